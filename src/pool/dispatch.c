/* SPDX-License-Identifier: MIT
 * dispatch.c - units in and out of the table, on the program's side.   Room: pool.
 *
 * Argument. Under the pool's lock a slot is free exactly if units[slot] is NULL; its word is then
 * anything but READY. Only this side moves a word to READY, a worker moves it to CLAIMED and DONE.
 * What a worker can write is read after its word was seen DONE, or its owner seen dead (bury.c),
 * and checked before it is used.
 */
#include <errno.h>

#include "memory/heap.h"
#include "pool/cancel.h"
#include "pool/governor.h"

#define REPLACED_AT_ONCE 64
#define LOOK_UP_NS 50000000LL /* a waiter looks for itself that often, whatever wakes it */

uint32_t yk_pool_event(struct yoke_pool *pool)
{
    /* SYNC(event) acquire: sees what was done before it was counted. */
    return atomic_load_explicit(&pool->ctl->event, memory_order_acquire);
}

/* Nothing was announced for a while: see whether something should have been. */
static void look_up(struct yoke_pool *pool, uint32_t event)
{
    if (pool->kind == YOKE_THREADS) {
        yk_target_follow(&pool->table);
    }
    if (yk_pool_event(pool) == event) {
        yk_biased_lock(&pool->lock);
        yk_pool_audit_locked(pool);
        yk_biased_unlock(&pool->lock);
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

/* --- publishing ----------------------------------------------------------------------------- */

/* The next FREE slot, whose ticket is the tail; YK_NO_SLOT if all are in use. */
static uint32_t take_slot_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    const uint64_t first = pool->tail;
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
        const uint32_t index = yk_slot_of(&pool->table, pool->tail);
        if (pool->units[index] == NULL) {
            return index;
        }
        pool->tail++; /* passed over: it is not READY with this ticket, claimers go past it */
    }
    pool->tail = first; /* once round, for nothing: nobody has to pass as many */
    return YK_NO_SLOT;
}

void yk_pool_tell_locked(struct yoke_pool *pool, size_t placed)
{
    /* SYNC(tail) seq_cst: after the slots, before the sleepers bits, see claim.c. */
    atomic_store_explicit(&pool->ctl->tail, pool->tail, memory_order_seq_cst);
    const size_t spinning = yk_table_spinners(&pool->table);
    placed -= yk_min(placed, spinning);
    for (; placed > 0 && yk_table_wake_one(&pool->table); placed--) {
    }
    if (YK_UNLIKELY(placed > 0 && pool->governor != NULL)) {
        yk_governor_queued_locked(pool, placed);
    }
}

bool yk_unit_place_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    const uint32_t index = take_slot_locked(pool);
    if (index == YK_NO_SLOT) {
        return false;
    }
    struct yk_slot *const slot = yk_pool_slot(pool, index);
    slot->flags = 0;
    slot->code = 0;
    unit->fill(unit, slot);
    /* The word publishes it. From the backlog, its waiter could not ask for a wake. */
    const bool asked = unit->state == YK_UNIT_BACKLOG || pool->watchers != 0;
    /* relaxed: as above. */
    atomic_store_explicit(&slot->notify, asked, memory_order_relaxed);
    yk_slot_ready_locked(pool, unit, slot, index);
    if (YK_UNLIKELY(unit->timeout_ns != 0) && pool->kind == YOKE_PROCESSES) {
        yk_processes_timed_locked(pool, unit->timeout_ns);
    }
    return true;
}

void yk_unit_publish_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    pool->in_flight++;
    if (unit->token != NULL && !yk_unit_belongs_locked(pool, unit)) {
        const struct yk_answer cancelled = {.outcome = {.kind = YOKE_CANCELLED}};
        yk_unit_settle_locked(pool, unit, &cancelled);
        return;
    }
    if (YK_LIKELY(yk_unit_place_locked(pool, unit))) {
        yk_pool_tell_locked(pool, 1);
        return;
    }
    unit->state = YK_UNIT_BACKLOG;
    unit->next = NULL;
    yk_unit_slot_set(unit, YK_NO_SLOT);
    *pool->backlog_end = unit;
    pool->backlog_end = &unit->next;
}

void yk_pool_drain_backlog_slow_locked(struct yoke_pool *pool)
{
    size_t placed = 0;
    /* The next one first: placing a unit takes it out of the list. */
    for (struct yk_unit *unit = pool->backlog; unit != NULL; unit = pool->backlog) {
        struct yk_unit *const next = unit->next;
        if (!yk_unit_place_locked(pool, unit)) {
            break;
        }
        pool->backlog = next;
        pool->backlog_end = next != NULL ? pool->backlog_end : &pool->backlog;
        placed++;
    }
    if (placed > 0) {
        yk_pool_tell_locked(pool, placed);
    }
}

/* --- collecting ----------------------------------------------------------------------------- */

/* The unit has left the table or the backlog: tell its owner, or publish it again. */
void yk_unit_settle_locked(struct yoke_pool *pool, struct yk_unit *unit,
                           const struct yk_answer *answer) YK_REQUIRES(pool->lock)
{
    struct yoke_cancel *const token = unit->token;
    pool->in_flight--;
    pool->with_token -= token != NULL;
    unit->state = YK_UNIT_ENDED;
    if (unit->ended(unit, answer)) {
        yk_unit_publish_locked(pool, unit);
    } else {
        pool->tasks++;
        pool->barren = 0;
        yk_cancel_drop(token); /* the unit may be gone by now */
    }
}

static bool is_result(struct yoke_pool *pool, const struct yk_result *block)
{
    return block != (void *)pool->ctl && yk_heap_block_bytes(block) >= sizeof *block;
}

/* Blocks that later calls replaced, the oldest first: until it is free each hangs on the block, so
 * that who is cut off here can begin anew. A circle ends at what is free already. */
static void free_older(struct yoke_pool *pool, struct yk_result *block)
{
    struct yk_result *found[REPLACED_AT_ONCE];
    bool more = block->older != NULL;
    while (more) {
        struct yk_result *older = block->older;
        size_t count = 0;
        for (; count < REPLACED_AT_ONCE && older != block && is_result(pool, older); count++) {
            found[count] = older;
            older = older->older;
        }
        more = count == REPLACED_AT_ONCE;
        block->older = more ? older : block->older;
        while (count-- > 0) {
            more = yk_heap_free(found[count]) && more;
        }
    }
}

void yk_pool_take_result(struct yoke_pool *pool, struct yk_result *block, struct yk_answer *answer)
{
    const size_t room = yk_heap_block_bytes(block); /* once: it may change */
    if (room < sizeof *block || block == (void *)pool->ctl) {
        return;
    }
    answer->result = block;
    answer->result_at = block->data;
    answer->result_bytes = yk_min(block->bytes, room - sizeof *block);
    free_older(pool, block);
}

void yk_slot_take_result(struct yoke_pool *pool, struct yk_slot *slot, struct yk_answer *answer)
{
    if (slot->op != YK_OP_CALL || (slot->flags & YK_FLAG_RESULT) == 0) {
        return;
    }
    if (pool->kind == YOKE_PROCESSES) {
        yk_pool_take_result(pool, slot->u.record.result, answer);
        return;
    }
    answer->result = slot->u.record.result;
    answer->result_at = answer->result;
    answer->result_bytes = slot->u.record.result_bytes;
}

/* The answer of a DONE slot, copied out of the worker's reach. */
static void read_answer(struct yoke_pool *pool, struct yk_slot *slot, struct yk_answer *answer)
{
    answer->outcome = yk_outcome_of(slot->code);
    answer->progress = yk_slot_progress(slot);
    memcpy(answer->data, slot->u.data + YK_INLINE_IN_MAX, sizeof answer->data);
    yk_slot_take_result(pool, slot, answer);
}

static void collect_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock)
{
    struct yk_slot *const slot = yk_pool_slot(pool, yk_unit_slot(unit));
    struct yk_answer answer = {0};
    yk_slot_send_for_next_locked(pool, unit);
    read_answer(pool, slot, &answer);
    const bool announce = yk_slot_needs_announce(slot);
    yk_slot_release_locked(pool, unit);
    yk_unit_settle_locked(pool, unit, &answer);
    yk_pool_drain_backlog_locked(pool);
    if (announce) {
        yk_table_announce(&pool->table);
    }
}

void yk_unit_poll_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    if (yk_unit_is_done_locked(pool, unit)) {
        collect_locked(pool, unit);
    }
}

void yk_pool_collect_all_locked(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
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
    struct yk_slot *const slot = yk_pool_slot(pool, yk_unit_slot(unit));
    /* SYNC(notify) seq_cst: before the word is looked at again, see claim.c. */
    atomic_store_explicit(&slot->notify, 1, memory_order_seq_cst);
    /* SYNC(slot-word) seq_cst: after notify. */
    const uint64_t word = atomic_load_explicit(&slot->word, memory_order_seq_cst);
    /* With another ticket it is no answer to this one: the caller would look again for ever. */
    return yk_word_phase(word) == YK_DONE && yk_word_ticket(word) == unit->ticket;
}

bool yk_pool_notify_all_locked(struct yoke_pool *pool)
{
    bool done = false;
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
        if (pool->units[i] != NULL) {
            done = yk_unit_notify_locked(pool, pool->units[i]) || done;
        }
    }
    return done;
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
        struct yk_slot *const slot = yk_pool_slot(pool, yk_unit_slot(unit));
        if (!yk_slot_swap_word(slot, yk_word(unit->ticket, 0, YK_READY),
                               yk_word(unit->ticket, 0, YK_FREE))) {
            return false;
        }
        announce = yk_slot_needs_announce(slot);
        yk_slot_release_locked(pool, unit);
    } else {
        return false;
    }
    yk_unit_settle_locked(pool, unit, &answer);
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
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
        if (pool->units[i] != NULL) {
            yk_unit_revoke_locked(pool, pool->units[i]);
        }
    }
}

void yk_unit_flag_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    struct yk_slot *const slot =
        unit->state == YK_UNIT_TABLE ? yk_pool_slot(pool, yk_unit_slot(unit)) : unit->aside;
    if (slot != NULL) {
        /* SYNC(slot-cancel) release: who sees it sees the token set as well. */
        atomic_store_explicit(&slot->cancel, 1, memory_order_release);
    }
}

/* The token first: an item of a nested call that sees the flag ends, and the call must then know
 * that it is to stop. */
void yk_unit_cancel_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    if (unit->running != NULL) {
        yk_cancel_tell(unit->running);
    }
    yk_unit_flag_locked(pool, unit);
}

uint32_t yk_unit_progress_locked(struct yoke_pool *pool, struct yk_unit *unit)
{
    return unit->state == YK_UNIT_TABLE ? yk_slot_progress(yk_pool_slot(pool, yk_unit_slot(unit)))
                                        : 0;
}

uint32_t yk_unit_doom_locked(struct yoke_pool *pool, struct yk_unit *unit, uint32_t progress)
{
    if (unit->state != YK_UNIT_TABLE) {
        return 0;
    }
    struct yk_slot *const slot = yk_pool_slot(pool, yk_unit_slot(unit));
    const uint64_t word = yk_slot_load_word(slot);
    const uint32_t owner = yk_word_owner(word);
    if (yk_word_phase(word) != YK_CLAIMED) {
        return 0;
    }
    if (unit->items == 0 || progress == YK_PROGRESS_ANY) {
        return yk_slot_swap_word(slot, word, yk_word(unit->ticket, owner, YK_DOOMED)) ? owner : 0;
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
        unit->aside = spare;
        *word = yk_word(0, YK_OWNER_PROGRAM, YK_CLAIMED);
        atomic_init(&spare->word, *word);
        return spare;
    }
    if (unit->state != YK_UNIT_TABLE) {
        return NULL;
    }
    struct yk_slot *const slot = yk_pool_slot(pool, yk_unit_slot(unit));
    return yk_table_claim_at(slot, unit->ticket, YK_OWNER_PROGRAM, word) ? slot : NULL;
}

/* The unit, or without one the first of the backlog, in a worker of that number. */
static bool help(struct yoke_pool *pool, struct yk_unit *given, unsigned number)
{
    struct yk_slot spare = {0};
    uint64_t word = 0;
    yk_biased_lock(&pool->lock);
    struct yk_unit *const unit = given != NULL ? given : pool->backlog;
    struct yk_slot *const slot =
        unit != NULL ? claim_for_help_locked(pool, unit, &spare, &word) : NULL;
    yk_biased_unlock(&pool->lock);
    if (slot == NULL) {
        return false;
    }
    struct yoke_worker helper = yk_worker_of(&pool->table, NULL);
    helper.index = number;
    helper.helped = unit;
    yk_worker_run(&helper, slot, word);
    if (slot == &spare) {
        struct yk_answer answer = {0};
        read_answer(pool, slot, &answer);
        yk_biased_lock(&pool->lock);
        unit->aside = NULL;
        yk_unit_settle_locked(pool, unit, &answer);
        yk_biased_unlock(&pool->lock);
        yk_table_announce(&pool->table);
    }
    return true;
}

bool yk_unit_help(struct yoke_pool *pool, struct yk_unit *unit)
{
    return pool->kind == YOKE_THREADS && help(pool, unit, pool->table.line_count);
}

void yk_pool_help_backlog(struct yoke_pool *pool, unsigned number)
{
    (void)help(pool, NULL, number);
}
