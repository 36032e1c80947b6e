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
    return &pool->table.slots[index % YK_TABLE_SLOTS];
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

/* The unit has left the table or the backlog: tell its owner, or publish it again. */
void yk_unit_settle_locked(struct yoke_pool *pool, struct yk_unit *unit,
                           const struct yk_answer *answer) YK_REQUIRES(pool->lock);
/* The unit's slot is free for others. */
void yk_slot_release_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
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
