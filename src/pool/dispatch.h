/* SPDX-License-Identifier: MIT
 * dispatch.h - slots, as dispatch.c (units in and out) and bury.c (the dead) both handle them.
 *
 * The _locked ones want the pool's lock.   Room: pool.
 */
#ifndef YK_DISPATCH_H
#define YK_DISPATCH_H

#include "pool/pool_private.h"

static inline struct yk_slot *yk_pool_slot(struct yoke_pool *pool, uint32_t index)
{
    return &pool->table.slots[index & pool->table.slot_mask];
}

static inline uint64_t yk_slot_load_word(struct yk_slot *slot)
{
    /* SYNC(slot-word) acquire: DONE: sees the whole answer. */
    return atomic_load_explicit(&slot->word, memory_order_acquire);
}

static inline bool yk_slot_swap_word(struct yk_slot *slot, uint64_t from, uint64_t to)
{
    /* SYNC(slot-word) acq_rel: the unit's owner sees all the worker did. */
    return atomic_compare_exchange_strong_explicit(&slot->word, &from, to, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static inline uint32_t yk_unit_slot(const struct yk_unit *unit)
{
    /* relaxed: changes under the lock only; without it, it is a hint. */
    return atomic_load_explicit(&unit->slot, memory_order_relaxed);
}

static inline void yk_unit_slot_set(struct yk_unit *unit, uint32_t index)
{
    /* relaxed: changes under the lock only; without it, it is a hint. */
    atomic_store_explicit(&unit->slot, index, memory_order_relaxed);
}

static inline uint32_t yk_slot_progress(struct yk_slot *slot)
{
    /* SYNC(progress) acquire: the items before it are complete. */
    return atomic_load_explicit(&slot->progress, memory_order_acquire) & ~YK_PROGRESS_DOOMED;
}

#define YK_PUBLISH_AHEAD 16U /* slots; the one at head is looked at by workers */
#define YK_COLLECT_AHEAD 6U  /* slots */

/* The last steps of a unit into a slot of its own, which is filled in by now but for these. Nobody
 * is told: tail still stands before it. */
static inline void yk_slot_ready_locked(struct yoke_pool *pool, struct yk_unit *unit,
                                        struct yk_slot *slot, uint32_t index)
    YK_REQUIRES(pool->lock)
{
    /* relaxed: the word publishes these. */
    atomic_store_explicit(&slot->progress, 0, memory_order_relaxed);
    /* relaxed: as above. */
    atomic_store_explicit(&slot->cancel, 0, memory_order_relaxed);
    unit->verdict = 0;
    unit->claimed_ns = 0;
    unit->ticket = (uint32_t)pool->tail;
    unit->state = YK_UNIT_TABLE;
    yk_unit_slot_set(unit, index);
    pool->units[index] = unit;
    /* SYNC(slot-word) release: publishes what was filled in. */
    atomic_store_explicit(&slot->word, yk_word(unit->ticket, 0, YK_READY), memory_order_release);
    pool->tail++;
    /* Whoever had that line last, it is here when it is its turn. */
    yk_prefetch_to_write(
        yk_pool_slot(pool, yk_slot_of(&pool->table, pool->tail + YK_PUBLISH_AHEAD)));
}

/* The unit is in the table, and DONE. */
static inline bool yk_unit_is_done_locked(struct yoke_pool *pool, struct yk_unit *unit)
    YK_REQUIRES(pool->lock)
{
    if (unit->state != YK_UNIT_TABLE) {
        return false;
    }
    const uint64_t word = yk_slot_load_word(yk_pool_slot(pool, yk_unit_slot(unit)));
    return yk_word_phase(word) == YK_DONE && yk_word_ticket(word) == unit->ticket;
}

/* The slot is ours again. Its word stays as it is, DONE or of a dead owner: nobody claims that, and
 * writing it would only move the cache line once more. */
static inline void yk_slot_release_locked(struct yoke_pool *pool, struct yk_unit *unit)
    YK_REQUIRES(pool->lock)
{
    pool->units[yk_unit_slot(unit)] = NULL;
    yk_unit_slot_set(unit, YK_NO_SLOT);
}

/* Who collects one after the other comes to a later line soon, and a worker wrote it last. */
static inline void yk_slot_send_for_next_locked(struct yoke_pool *pool, const struct yk_unit *unit)
    YK_REQUIRES(pool->lock)
{
    if (pool->in_flight > 2 * YK_COLLECT_AHEAD) {
        yk_prefetch(yk_pool_slot(pool, yk_slot_of(&pool->table, unit->ticket + YK_COLLECT_AHEAD)));
    }
}

static inline bool yk_slot_needs_announce(struct yk_slot *slot)
{
    /* SYNC(notify) seq_cst: a waiter asked before it went to sleep. */
    return atomic_load_explicit(&slot->notify, memory_order_seq_cst) != 0;
}

/* The unit has left the table or the backlog: tell its owner, or publish it again. */
void yk_unit_settle_locked(struct yoke_pool *pool, struct yk_unit *unit,
                           const struct yk_answer *answer) YK_REQUIRES(pool->lock);
/* What a worker made a result: in the shared heap, and no more than the heap says; what it replaced
 * is given back. */
void yk_pool_take_result(struct yoke_pool *pool, struct yk_result *block, struct yk_answer *answer);
/* The result block of a call, if it made one; what it replaced is given back. */
void yk_slot_take_result(struct yoke_pool *pool, struct yk_slot *slot, struct yk_answer *answer);
void yk_pool_drain_backlog_slow_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);

static inline void yk_pool_drain_backlog_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    if (YK_UNLIKELY(pool->backlog != NULL)) {
        yk_pool_drain_backlog_slow_locked(pool);
    }
}

/* The slot's word says DONE; no lock needed, a hint. */
static inline bool yk_unit_looks_done(struct yoke_pool *pool, struct yk_unit *unit)
{
    const uint32_t index = yk_unit_slot(unit);
    return index == YK_NO_SLOT ||
           yk_word_phase(yk_slot_load_word(yk_pool_slot(pool, index))) == YK_DONE;
}

#endif
