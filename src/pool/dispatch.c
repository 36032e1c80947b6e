/* SPDX-License-Identifier: MIT
 * dispatch.c - units in and out of the table, on the program's side.   Room: pool.
 *
 * Argument. Under the pool's lock a slot is free exactly if units[slot] is NULL; its word is then
 * anything but READY. Only this side moves a word to READY, a worker moves it to CLAIMED and DONE. What a worker can write
 * is read once, after its word was seen DONE (or its owner was seen dead), and checked: a word
 * that fits nothing we published is never believed: it costs all workers their life.
 */
#include <errno.h>

#include "memory/heap.h"
#include "pool/pool_private.h"

#define BARREN_WINDOW_NS 5000000000LL
#define LOOK_UP_NS 50000000LL /* a waiter looks for itself that often, whatever wakes it */

static struct yk_slot *slot_at(struct yoke_pool *pool, uint32_t index)
{
    return &pool->table.slots[index % YK_TABLE_SLOTS];
}

static uint64_t load_word(struct yk_slot *slot)
{
    /* SYNC(slot-word) acquire: DONE: sees the whole answer. */
    return atomic_load_explicit(&slot->word, memory_order_acquire);
}

static bool swap_word(struct yk_slot *slot, uint64_t from, uint64_t to)
{
    /* SYNC(slot-word) acq_rel: the unit's owner sees all the worker did. */
    return atomic_compare_exchange_strong_explicit(&slot->word, &from, to, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static uint32_t slot_of(const struct yk_unit *unit)
{
    /* relaxed: changes under the lock only; without it, it is a hint. */
    return atomic_load_explicit(&unit->slot, memory_order_relaxed);
}

static void slot_set(struct yk_unit *unit, uint32_t index)
{
    /* relaxed: changes under the lock only; without it, it is a hint. */
    atomic_store_explicit(&unit->slot, index, memory_order_relaxed);
}

uint32_t yk_pool_event(struct yoke_pool *pool)
{
    /* SYNC(event) acquire: sees what was done before it was counted. */
    return atomic_load_explicit(&pool->ctl->event, memory_order_acquire);
}

/* Nothing was announced for a while: see whether something should have been. */
static void look_up(struct yoke_pool *pool, uint32_t event)
{
    if (yk_pool_event(pool) == event) {
        yk_mutex_lock(&pool->lock);
        yk_pool_audit_locked(pool);
        yk_mutex_unlock(&pool->lock);
    }
}

static int64_t sooner(int64_t until_ns)
{
    const int64_t soon = yk_clock_ns() + LOOK_UP_NS;
    return soon < until_ns ? soon : until_ns;
}

int yk_pool_await(struct yoke_pool *pool, uint32_t event, int64_t until_ns)
{
    const int64_t until = sooner(until_ns);
    const int rc = yk_wait(&pool->ctl->event, event, until, pool->table.scope);
    const bool more = rc == -ETIMEDOUT && until != until_ns;
    if (rc == 0 || more) {
        look_up(pool, event);
    }
    return more ? 0 : rc;
}

void yk_pool_await_for_sure(struct yoke_pool *pool, uint32_t event, int64_t until_ns)
{
    (void)yk_futex_wait(&pool->ctl->event, event, sooner(until_ns), pool->table.scope);
    look_up(pool, event);
}

bool yk_unit_looks_done(struct yoke_pool *pool, struct yk_unit *unit)
{
    const uint32_t index = slot_of(unit);
    return index == YK_NO_SLOT || yk_word_phase(load_word(slot_at(pool, index))) == YK_DONE;
}

/* --- publishing ----------------------------------------------------------------------------- */

/* A FREE slot, with its ticket; YK_NO_SLOT if all are in use. */
static uint32_t take_slot_locked(struct yoke_pool *pool, uint32_t *ticket) YK_REQUIRES(pool->lock)
{
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        const uint32_t index = (uint32_t)(pool->tail % YK_TABLE_SLOTS);
        if (pool->units[index] == NULL) {
            *ticket = (uint32_t)pool->tail;
            return index;
        }
        pool->tail++; /* passed over: it is not READY with this ticket, claimers go past it */
    }
    return YK_NO_SLOT;
}

bool yk_pool_has_room_locked(struct yoke_pool *pool)
{
    return pool->in_flight < YK_TABLE_SLOTS;
}

static void publish_at_locked(struct yoke_pool *pool, struct yk_unit *unit, uint32_t index,
                              uint32_t ticket) YK_REQUIRES(pool->lock)
{
    struct yk_slot *const slot = slot_at(pool, index);
    slot->flags = 0;
    slot->code = 0;
    unit->fill(unit, slot);
    /* relaxed: the word publishes these. */
    atomic_store_explicit(&slot->progress, 0, memory_order_relaxed);
    /* relaxed: as above. From the backlog, its waiter could not ask for a wake. */
    atomic_store_explicit(&slot->notify, unit->state == YK_UNIT_BACKLOG, memory_order_relaxed);
    /* relaxed: as above. */
    atomic_store_explicit(&slot->cancel, 0, memory_order_relaxed);
    unit->verdict = 0;
    unit->ticket = ticket;
    unit->state = YK_UNIT_TABLE;
    slot_set(unit, index);
    pool->units[index] = unit;
    /* SYNC(slot-word) release: publishes what was filled in. */
    atomic_store_explicit(&slot->word, yk_word(ticket, 0, YK_READY), memory_order_release);
    pool->tail++;
    /* SYNC(tail) seq_cst: after the slot, before the sleepers bits, see claim.c. */
    atomic_store_explicit(&pool->ctl->tail, pool->tail, memory_order_seq_cst);
    if (!yk_table_wake_one(&pool->table) && pool->kind == YOKE_THREADS) {
        yk_threads_grow_locked(pool);
    }
    if (unit->timeout_ns != 0 && pool->kind == YOKE_PROCESSES) {
        yk_processes_timed_locked(pool, unit->timeout_ns);
    }
}

void yk_unit_publish_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    uint32_t ticket = 0;
    const uint32_t index = take_slot_locked(pool, &ticket);
    pool->in_flight++;
    if (index != YK_NO_SLOT) {
        publish_at_locked(pool, unit, index, ticket);
        return;
    }
    unit->state = YK_UNIT_BACKLOG;
    unit->next = NULL;
    slot_set(unit, YK_NO_SLOT);
    *pool->backlog_end = unit;
    pool->backlog_end = &unit->next;
}

static void drain_backlog_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    while (pool->backlog != NULL) {
        uint32_t ticket = 0;
        const uint32_t index = take_slot_locked(pool, &ticket);
        if (index == YK_NO_SLOT) {
            return;
        }
        struct yk_unit *const unit = pool->backlog;
        pool->backlog = unit->next;
        if (pool->backlog == NULL) {
            pool->backlog_end = &pool->backlog;
        }
        publish_at_locked(pool, unit, index, ticket);
    }
}

/* --- collecting ----------------------------------------------------------------------------- */

/* The unit has left the table or the backlog: tell its owner, or publish it again. */
static void settle_locked(struct yoke_pool *pool, struct yk_unit *unit,
                          const struct yk_answer *answer) YK_REQUIRES(pool->lock)
{
    pool->in_flight--;
    unit->state = YK_UNIT_ENDED;
    if (unit->ended(unit, answer)) {
        yk_unit_publish_locked(pool, unit);
    } else {
        pool->tasks++;
        pool->barren = 0;
    }
}

/* The slot is ours again. Its word stays as it is, DONE or of a dead owner: nobody claims that, and
 * writing it would only move the cache line once more. */
static void release_slot_locked(struct yoke_pool *pool, struct yk_unit *unit)
    YK_REQUIRES(pool->lock)
{
    pool->units[slot_of(unit)] = NULL;
    slot_set(unit, YK_NO_SLOT);
}

static bool needs_announce(struct yk_slot *slot)
{
    /* SYNC(notify) seq_cst: a waiter asked before it went to sleep. */
    return atomic_load_explicit(&slot->notify, memory_order_seq_cst) != 0;
}

static uint32_t load_progress(struct yk_slot *slot)
{
    /* SYNC(progress) acquire: the items before it are complete. */
    return atomic_load_explicit(&slot->progress, memory_order_acquire) & ~YK_PROGRESS_DOOMED;
}

/* What a worker made the result: in the shared heap, and no more than the heap says. */
static void take_shared_result(struct yoke_pool *pool, struct yk_result *block, size_t bytes,
                               struct yk_answer *answer)
{
    const size_t room = yk_heap_block_bytes(block);
    if (room < sizeof *block || bytes > room - sizeof *block || block == (void *)pool->ctl) {
        return;
    }
    answer->result = block;
    answer->result_at = block->data;
    answer->result_bytes = bytes;
    /* Blocks that later calls replaced. A circle ends at what is free already. */
    struct yk_result *older = block->older;
    while (older != NULL && older != (void *)pool->ctl && older != block &&
           yk_heap_block_bytes(older) >= sizeof *older) {
        struct yk_result *const next = older->older;
        if (!yk_heap_free(older)) {
            break;
        }
        older = next;
    }
}

static void take_result(struct yoke_pool *pool, struct yk_slot *slot, struct yk_answer *answer)
{
    if (slot->op != YK_OP_CALL || (slot->flags & YK_FLAG_RESULT) == 0) {
        return;
    }
    void *const block = slot->u.record.result;
    const size_t bytes = slot->u.record.result_bytes;
    if (pool->kind == YOKE_PROCESSES) {
        take_shared_result(pool, block, bytes, answer);
        return;
    }
    answer->result = block;
    answer->result_at = block;
    answer->result_bytes = bytes;
}

yoke_outcome yk_outcome_of(int32_t code)
{
    if (code < 0) {
        const bool late = code == YK_TOLD_TIMEDOUT;
        return (yoke_outcome){.kind = late ? YOKE_TIMEDOUT : YOKE_CANCELLED};
    }
    return (yoke_outcome){.kind = code == 0 ? YOKE_OK : YOKE_FAILED, .code = code};
}

/* The answer of a DONE slot, copied out of the worker's reach. */
static void read_answer(struct yoke_pool *pool, struct yk_slot *slot, struct yk_answer *answer)
{
    answer->outcome = yk_outcome_of(slot->code);
    answer->progress = load_progress(slot);
    memcpy(answer->data, slot->u.data + YK_INLINE_IN_MAX, sizeof answer->data);
    take_result(pool, slot, answer);
}

static void collect_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock)
{
    struct yk_slot *const slot = slot_at(pool, slot_of(unit));
    struct yk_answer answer = {0};
    read_answer(pool, slot, &answer);
    const bool announce = needs_announce(slot);
    release_slot_locked(pool, unit);
    settle_locked(pool, unit, &answer);
    drain_backlog_locked(pool);
    if (announce) {
        yk_table_announce(&pool->table);
    }
}

static bool is_done_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock)
{
    const uint64_t word = load_word(slot_at(pool, slot_of(unit)));
    return yk_word_phase(word) == YK_DONE && yk_word_ticket(word) == unit->ticket;
}

void yk_unit_poll_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    if (unit->state == YK_UNIT_TABLE && is_done_locked(pool, unit)) {
        collect_locked(pool, unit);
    }
}

void yk_pool_collect_all_locked(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        if (pool->units[i] != NULL) {
            yk_unit_poll_locked(pool, pool->units[i]);
        }
    }
}

bool yk_unit_notify_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    if (unit->state != YK_UNIT_TABLE) {
        return unit->state == YK_UNIT_ENDED;
    }
    struct yk_slot *const slot = slot_at(pool, slot_of(unit));
    /* SYNC(notify) seq_cst: before the word is looked at again, see claim.c. */
    atomic_store_explicit(&slot->notify, 1, memory_order_seq_cst);
    /* SYNC(slot-word) seq_cst: after notify. */
    const uint64_t word = atomic_load_explicit(&slot->word, memory_order_seq_cst);
    return yk_word_phase(word) == YK_DONE;
}

/* --- taking back ---------------------------------------------------------------------------- */

static void remove_from_backlog_locked(struct yoke_pool *pool, struct yk_unit *unit)
    YK_REQUIRES(pool->lock)
{
    struct yk_unit **at = &pool->backlog;
    while (*at != unit) {
        at = &(*at)->next;
    }
    *at = unit->next;
    if (*at == NULL) {
        pool->backlog_end = at;
    }
}

bool yk_unit_revoke_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    const struct yk_answer answer = {.outcome = {.kind = YOKE_CANCELLED}};
    bool announce = true;
    if (unit->state == YK_UNIT_BACKLOG) {
        remove_from_backlog_locked(pool, unit);
    } else if (unit->state == YK_UNIT_TABLE) {
        struct yk_slot *const slot = slot_at(pool, slot_of(unit));
        if (!swap_word(slot, yk_word(unit->ticket, 0, YK_READY),
                       yk_word(unit->ticket, 0, YK_FREE))) {
            return false;
        }
        announce = needs_announce(slot);
        release_slot_locked(pool, unit);
    } else {
        return false;
    }
    settle_locked(pool, unit, &answer);
    if (announce) {
        yk_table_announce(&pool->table);
    }
    return true;
}

void yk_pool_revoke_all_locked(struct yoke_pool *pool)
{
    while (pool->backlog != NULL) {
        yk_unit_revoke_locked(pool, pool->backlog);
    }
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        if (pool->units[i] != NULL) {
            yk_unit_revoke_locked(pool, pool->units[i]);
        }
    }
}

void yk_unit_cancel_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    if (unit->state == YK_UNIT_TABLE) {
        /* relaxed: a request, seen sooner or later. */
        atomic_store_explicit(&slot_at(pool, slot_of(unit))->cancel, 1, memory_order_relaxed);
    }
}

uint32_t yk_unit_progress_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    return unit->state == YK_UNIT_TABLE ? load_progress(slot_at(pool, slot_of(unit))) : 0;
}

uint32_t yk_unit_doom_locked(struct yoke_pool *pool, struct yk_unit *unit, uint32_t progress)
{
    if (unit->state != YK_UNIT_TABLE) {
        return 0;
    }
    struct yk_slot *const slot = slot_at(pool, slot_of(unit));
    const uint64_t word = load_word(slot);
    const uint32_t owner = yk_word_owner(word);
    if (yk_word_phase(word) != YK_CLAIMED) {
        return 0;
    }
    if (unit->items == 0) {
        return swap_word(slot, word, yk_word(unit->ticket, owner, YK_DOOMED)) ? owner : 0;
    }
    uint32_t seen = progress;
    const uint32_t marked = progress | YK_PROGRESS_DOOMED;
    /* SYNC(progress) acq_rel: the owner's next step fails from here on. */
    const bool swapped =
        progress != 0 && progress <= unit->items &&
        atomic_compare_exchange_strong_explicit(&slot->progress, &seen, marked,
                                                memory_order_acq_rel, memory_order_relaxed);
    return swapped ? owner : 0;
}

/* --- death ---------------------------------------------------------------------------------- */

/* *noted becomes NULL if the slot names that block too: it is given back once. */
static void bury_unit_locked(struct yoke_pool *pool, struct yk_unit *unit,
                             struct yk_exit_status status, void **noted) YK_REQUIRES(pool->lock)
{
    struct yk_slot *const slot = slot_at(pool, slot_of(unit));
    struct yk_answer answer = {
        .outcome = {.kind = YOKE_CRASHED, .code = status.code, .signal = status.signal},
        .progress = load_progress(slot),
        .died = true,
    };
    if (unit->verdict != 0) {
        answer.outcome = (yoke_outcome){.kind = unit->verdict};
    } else if (answer.progress == 0) {
        answer.outcome = (yoke_outcome){.kind = YOKE_CANCELLED}; /* unless it may begin again */
    }
    take_result(pool, slot, &answer);
    if (answer.result != NULL) {
        *noted = *noted == answer.result ? NULL : *noted;
        yk_heap_free(answer.result);
        answer.result = NULL;
    }
    /* relaxed: a garbage word could say READY. */
    atomic_store_explicit(&slot->word, yk_word(unit->ticket, 0, YK_FREE), memory_order_relaxed);
    release_slot_locked(pool, unit);
    settle_locked(pool, unit, &answer);
}

static bool held_by(uint64_t word, uint32_t owner)
{
    const enum yk_phase phase = yk_word_phase(word);
    return yk_word_owner(word) == owner && (phase == YK_CLAIMED || phase == YK_DOOMED);
}

/* Nothing we or an honest worker would write. */
static bool is_garbage_locked(struct yoke_pool *pool, const struct yk_unit *unit, uint64_t word)
    YK_REQUIRES(pool->lock)
{
    if (pool->kind != YOKE_PROCESSES) {
        return false;
    }
    if (yk_word_ticket(word) != unit->ticket) {
        return true;
    }
    switch (yk_word_phase(word)) {
    case YK_READY:
        return yk_word_owner(word) != 0;
    case YK_CLAIMED:
        return !yk_processes_is_member_locked(pool, yk_word_owner(word));
    case YK_DOOMED:
        return unit->verdict == 0 || !yk_processes_is_member_locked(pool, yk_word_owner(word));
    case YK_DONE:
        return false;
    case YK_FREE:
    default:
        return true;
    }
}

/* Words that fit nothing: who wrote them may still be writing. All workers go first, and with the
 * last of them those units end as crashed. */
static void end_garbage_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    if (yk_processes_condemned_left_locked(pool)) {
        return;
    }
    const bool all_gone = pool->condemning; /* who may have written it; those since are innocent */
    pool->condemning = false;
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        struct yk_unit *const unit = pool->units[i];
        if (unit == NULL || !is_garbage_locked(pool, unit, load_word(slot_at(pool, i)))) {
            continue;
        }
        if (!all_gone && yk_processes_condemn_locked(pool)) {
            return;
        }
        void *none = NULL;
        bury_unit_locked(pool, unit, (struct yk_exit_status){.code = -1}, &none);
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

void yk_pool_bury_locked(struct yoke_pool *pool, uint32_t owner, struct yk_exit_status status,
                         void *noted)
{
    bool barren = true;
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        struct yk_unit *const unit = pool->units[i];
        if (unit == NULL) {
            continue;
        }
        const uint64_t word = load_word(slot_at(pool, i));
        barren = barren && !(held_by(word, owner) && load_progress(slot_at(pool, i)) > 0);
        if (held_by(word, owner)) {
            bury_unit_locked(pool, unit, status, &noted);
        } else {
            yk_unit_poll_locked(pool, unit);
        }
    }
    count_death_locked(pool, barren && !pool->condemning);
    end_garbage_locked(pool);
    yk_heap_free(noted);
    drain_backlog_locked(pool);
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

/* Whatever the sleepers bits say: a worker may have cleared those of others. */
static void wake_all(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        struct yk_line *const line = &pool->table.lines[i];
        /* SYNC(line-wake) release: a worker that goes to sleep after this sees the task. */
        atomic_store_explicit(&line->wake, 0, memory_order_release);
        yk_futex_wake(&line->wake, 1, pool->table.scope);
    }
}

static uint64_t oldest_ready_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    uint64_t oldest = UINT64_MAX;
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        const struct yk_unit *const unit = pool->units[i];
        if (unit != NULL && yk_word_phase(load_word(slot_at(pool, i))) == YK_READY) {
            const uint64_t ticket = whole_ticket(pool, unit);
            oldest = ticket < oldest ? ticket : oldest;
        }
    }
    return oldest;
}

void yk_pool_audit_locked(struct yoke_pool *pool)
{
    end_garbage_locked(pool);
    drain_backlog_locked(pool);
    const uint64_t oldest = oldest_ready_locked(pool);
    if (oldest == UINT64_MAX) {
        return;
    }
    /* relaxed: a hint; who moves it next looks at the slots with acquire. */
    uint64_t head = atomic_load_explicit(&pool->ctl->head, memory_order_relaxed);
    if (head > oldest) {
        /* relaxed: as above. */
        atomic_compare_exchange_strong_explicit(&pool->ctl->head, &head, oldest,
                                                memory_order_relaxed, memory_order_relaxed);
    }
    wake_all(pool);
}

/* --- helping -------------------------------------------------------------------------------- */

/* Claims the unit's slot for this thread; with no slot to be had, the unit gets `spare`. */
static struct yk_slot *claim_for_help_locked(struct yoke_pool *pool, struct yk_unit *unit,
                                             struct yk_slot *spare, uint64_t *word)
    YK_REQUIRES(pool->lock)
{
    if (unit->state == YK_UNIT_BACKLOG) {
        remove_from_backlog_locked(pool, unit);
        unit->fill(unit, spare);
        unit->state = YK_UNIT_HELPED;
        *word = yk_word(0, YK_OWNER_PROGRAM, YK_CLAIMED);
        atomic_init(&spare->word, *word);
        return spare;
    }
    if (unit->state != YK_UNIT_TABLE) {
        return NULL;
    }
    struct yk_slot *const slot = slot_at(pool, slot_of(unit));
    return yk_table_claim_at(slot, unit->ticket, YK_OWNER_PROGRAM, word) ? slot : NULL;
}

bool yk_unit_help(struct yoke_pool *pool, struct yk_unit *unit)
{
    if (pool->kind != YOKE_THREADS) {
        return false;
    }
    struct yk_slot spare = {0};
    uint64_t word = 0;
    yk_mutex_lock(&pool->lock);
    struct yk_slot *const slot = claim_for_help_locked(pool, unit, &spare, &word);
    yk_mutex_unlock(&pool->lock);
    if (slot == NULL) {
        return false;
    }
    struct yoke_worker helper = yk_worker_of(&pool->table, NULL);
    yk_worker_run(&helper, slot, word);
    if (slot == &spare) {
        struct yk_answer answer = {0};
        read_answer(pool, slot, &answer);
        yk_mutex_lock(&pool->lock);
        settle_locked(pool, unit, &answer);
        yk_mutex_unlock(&pool->lock);
        yk_table_announce(&pool->table);
    }
    return true;
}
