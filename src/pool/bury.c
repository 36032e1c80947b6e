/* SPDX-License-Identifier: MIT
 * bury.c - what the dead held, and what only a hostile worker can have written.   Room: pool.
 *
 * Argument. Its exit is confirmed, so nothing of the dead's moves any more: a slot CLAIMED, DOOMED
 * or GIVEN by it is its alone, and is ended or published again here, once, under the pool's lock;
 * DONE is collected as ever; READY was never started and stays. Done twice, the second time finds
 * nothing. Words that fit nothing we published are never believed: who wrote them may still be
 * writing, so all workers go before such a slot is used again.
 */
#include <errno.h>

#include "pool/dispatch.h"

#define BARREN_WINDOW_NS 5000000000LL
#define SPOILED_MAX 16 /* rounds of killing all, close together */

/* *noted becomes NULL if the slot names that block too: it is given back once. */
static void bury_unit_locked(struct yoke_pool *pool, struct yk_unit *unit,
                             struct yk_exit_status status, void **noted) YK_REQUIRES(pool->lock)
{
    struct yk_slot *const slot = yk_pool_slot(pool, yk_unit_slot(unit));
    struct yk_answer answer = {
        .outcome = {.kind = YOKE_CRASHED, .code = status.code, .signal = status.signal},
        .progress = yk_slot_progress(slot),
        .died = true,
    };
    if (unit->verdict != 0) {
        answer.outcome = (yoke_outcome){.kind = unit->verdict};
    } else if (answer.progress == 0) {
        answer.outcome = (yoke_outcome){.kind = YOKE_CANCELLED}; /* unless it may begin again */
    }
    yk_slot_take_result(pool, slot, &answer);
    if (answer.result != NULL) {
        *noted = *noted == answer.result ? NULL : *noted;
        yk_heap_free(answer.result);
        answer.result = NULL;
    }
    if (unit->results != NULL && answer.progress > 0 && answer.progress <= unit->items &&
        unit->results[answer.progress - 1] == *noted) {
        *noted = NULL; /* a stream gives back what its item had made */
    }
    /* relaxed: a garbage word could say READY. */
    atomic_store_explicit(&slot->word, yk_word(unit->ticket, 0, YK_FREE), memory_order_relaxed);
    yk_slot_release_locked(pool, unit);
    yk_unit_settle_locked(pool, unit, &answer);
}

static bool held_by(uint64_t word, uint32_t owner)
{
    const enum yk_phase phase = yk_word_phase(word);
    return yk_word_owner(word) == owner &&
           (phase == YK_CLAIMED || phase == YK_DOOMED || phase == YK_GIVEN);
}

/* Nothing we or an honest worker would write. */
static bool is_garbage_locked(struct yoke_pool *pool, const struct yk_unit *unit, uint64_t word)
    YK_REQUIRES(pool->lock)
{
    if (yk_word_ticket(word) != unit->ticket) {
        return true;
    }
    switch (yk_word_phase(word)) {
    case YK_READY:
        return yk_word_owner(word) != 0;
    case YK_CLAIMED:
        return !yk_processes_is_member_locked(pool, yk_word_owner(word));
    case YK_DOOMED:
    case YK_GIVEN:
        return unit->verdict == 0 ||
               !yk_processes_is_doomed_locked(pool, unit, yk_word_owner(word));
    case YK_DONE:
        return false;
    case YK_FREE:
    default:
        return true;
    }
}

/* Honest workers came, again and again, and the table is spoiled still: the heap hands its memory
 * out to others, say. That many deaths that cost no task its try break the pool. */
static void count_spoil_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    const int64_t now = yk_clock_ns();
    pool->spoiled = now - pool->last_spoil_ns > BARREN_WINDOW_NS ? 1 : pool->spoiled + 1;
    pool->last_spoil_ns = now;
}

/* Words that fit nothing: who wrote them may still be writing. All workers go first, and with the
 * last of them those units end as crashed. */
static void end_garbage_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    if (pool->kind != YOKE_PROCESSES || yk_processes_condemned_left_locked(pool)) {
        return;
    }
    const bool all_gone = pool->condemning; /* who may have written it; those since are innocent */
    pool->condemning = false;
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        struct yk_unit *const unit = pool->units[i];
        if (unit == NULL ||
            !is_garbage_locked(pool, unit, yk_slot_load_word(yk_pool_slot(pool, i)))) {
            continue;
        }
        if (!all_gone && yk_processes_condemn_locked(pool)) {
            count_spoil_locked(pool);
            return;
        }
        void *none = NULL;
        bury_unit_locked(pool, unit, (struct yk_exit_status){.code = -1}, &none);
    }
    if (all_gone && pool->spoiled > SPOILED_MAX) {
        pool->barren = UINT32_MAX / 2;
    }
}

/* Deaths in a row that cost no task its try: a few in a short time, and workers cannot live here. */
static void count_death_locked(struct yoke_pool *pool, bool barren) YK_REQUIRES(pool->lock)
{
    const int64_t now = yk_clock_ns();
    if (!barren || now - pool->last_death_ns > BARREN_WINDOW_NS) {
        pool->barren = 0;
    }
    pool->barren += barren;
    pool->last_death_ns = now;
}

void yk_unit_give_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    void *none = NULL; /* its function returned, so its note is empty */
    bury_unit_locked(pool, unit, (struct yk_exit_status){.code = -1}, &none);
    yk_pool_drain_backlog_locked(pool);
    yk_table_announce(&pool->table);
}

void yk_pool_bury_locked(struct yoke_pool *pool, uint32_t owner, struct yk_exit_status status,
                         bool retired, void *noted)
{
    bool barren = !retired;
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        struct yk_unit *const unit = pool->units[i];
        if (unit == NULL) {
            continue;
        }
        const uint64_t word = yk_slot_load_word(yk_pool_slot(pool, i));
        barren = barren && !(held_by(word, owner) && yk_slot_progress(yk_pool_slot(pool, i)) > 0);
        if (held_by(word, owner)) {
            bury_unit_locked(pool, unit, status, &noted);
        } else {
            yk_unit_poll_locked(pool, unit);
        }
    }
    count_death_locked(pool, barren && !pool->condemning);
    end_garbage_locked(pool);
    yk_heap_free(noted);
    yk_pool_drain_backlog_locked(pool);
    /* The dead one may have been woken for a task that it did not live to claim. */
    if (!yk_table_looks_empty(&pool->table)) {
        yk_table_wake_one(&pool->table);
    }
    yk_table_announce(&pool->table);
}

/* --- audit ---------------------------------------------------------------------------------- */

/* The whole ticket of a unit: the low half is kept, and it is less than a table below tail. */
static uint64_t whole_ticket(const struct yoke_pool *pool, const struct yk_unit *unit)
{
    return pool->tail - (uint32_t)((uint32_t)pool->tail - unit->ticket);
}

/* Whatever the bits say: a worker may have cleared those of others who sleep, or set some of others
 * who do not spin. Who does, and is not counted on any more, finds what there is all the same. */
static void wake_all(struct yoke_pool *pool)
{
    for (size_t i = 0; i <= pool->table.line_count / 64; i++) {
        /* SYNC(spinners) seq_cst: as the worker itself would have done. */
        atomic_store_explicit(&pool->ctl->spinners[i], 0, memory_order_seq_cst);
    }
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        yk_table_wake_line(&pool->table, &pool->table.lines[i]);
    }
}

/* The first ticket that may be READY; the first not given out if none is. */
static uint64_t oldest_ready_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    uint64_t oldest = pool->tail;
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
        const struct yk_unit *const unit = pool->units[i];
        if (unit != NULL && yk_word_phase(yk_slot_load_word(yk_pool_slot(pool, i))) == YK_READY) {
            const uint64_t ticket = whole_ticket(pool, unit);
            oldest = ticket < oldest ? ticket : oldest;
        }
    }
    return oldest;
}

/* Beyond a wrong head, or below a wrong tail, no worker would ever look. Nothing is published
 * while we have the lock, so what we write is right. */
static void mend_ends_locked(struct yoke_pool *pool, uint64_t oldest) YK_REQUIRES(pool->lock)
{
    struct yk_ctl *const ctl = pool->ctl;
    /* relaxed: ours, unless a worker spoiled it. */
    const uint64_t tail = atomic_load_explicit(&ctl->tail, memory_order_relaxed);
    if (tail != pool->tail) {
        /* SYNC(tail) seq_cst: as it was published. */
        atomic_store_explicit(&ctl->tail, pool->tail, memory_order_seq_cst);
    }
    /* relaxed: a hint; who moves it next looks at the slots with acquire. */
    uint64_t head = atomic_load_explicit(&ctl->head, memory_order_relaxed);
    if (head != oldest) {
        /* relaxed: as above. */
        atomic_compare_exchange_strong_explicit(&ctl->head, &head, oldest, memory_order_relaxed,
                                                memory_order_relaxed);
    }
}

void yk_pool_audit_locked(struct yoke_pool *pool)
{
    end_garbage_locked(pool);
    if (pool->kind == YOKE_PROCESSES) {
        yk_processes_remind_locked(pool);
    }
    yk_pool_drain_backlog_locked(pool);
    const uint64_t oldest = oldest_ready_locked(pool);
    mend_ends_locked(pool, oldest);
    if (oldest != pool->tail && pool->kind == YOKE_PROCESSES) {
        wake_all(pool);
    } else if (oldest != pool->tail) {
        (void)yk_table_wake_one(&pool->table);
    }
}
