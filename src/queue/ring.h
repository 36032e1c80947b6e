/* SPDX-License-Identifier: MIT
 * ring.h - a bounded queue of calls, for any number of threads on both sides.
 *
 * Idea: each cell has a turn, which tells whose it is, so that who puts and who takes meet in the
 * cell and nowhere else; `tail` and `head` only hand out tickets (D. Vyukov, "Bounded MPMC queue").
 * Who takes claims several tickets at once. Twice the lap: the cell is free; plus one: it is full.
 * Zeroed memory is an empty ring, so a ring that nobody uses takes no memory.
 *
 * A call is one cache line. Tickets in a row are not cells in a row: one side writes some while the
 * other reads those before them, and the prefetchers of their CPUs, which follow streams of lines,
 * would take each other's away.   Room: queue.
 */
#ifndef YK_RING_H
#define YK_RING_H

#include "platform/platform.h"
#include <yoke/task.h>

#define YK_RING_CELLS 1024U
#define YK_RING_STRIDE 37U /* odd, so that each cell has its turn */
#define YK_RING_AHEAD 32U  /* cells; who puts sends for the one that he will write then */
#define YK_CELL_BYTES ((size_t)48)

struct yk_cell {
    _Alignas(YK_CACHE_LINE) _Atomic uint32_t turn;
    uint16_t bytes; /* of data, as its owner likes */
    uint16_t flags; /* the same */
    yoke_fn *fn;
    _Alignas(8) unsigned char data[YK_CELL_BYTES];
};

_Static_assert(sizeof(struct yk_cell) == YK_CACHE_LINE, "a queued call is one cache line");

struct yk_ring {
    struct yk_cell *cells;                         /* read-only */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t tail; /* the first ticket that was not given out */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t head; /* the first that was not claimed */
};

/* 0 or -ENOMEM. */
int yk_ring_init(struct yk_ring *ring);
/* Nobody uses it any more. */
void yk_ring_fini(struct yk_ring *ring);
/* The reservation again, after the first look did not find room; NULL: there is none. */
struct yk_cell *yk_ring_reserve_slow(struct yk_ring *ring, uint64_t *ticket);
/* Claim up to `most` full cells in a row; how many. The first has *ticket, and the caller alone
 * frees them, in any order. */
uint32_t yk_ring_claim(struct yk_ring *ring, uint32_t most, uint64_t *ticket);

static inline struct yk_cell *yk_ring_cell(const struct yk_ring *ring, uint64_t ticket)
{
    return &ring->cells[(uint32_t)(ticket * YK_RING_STRIDE) % YK_RING_CELLS];
}

/* The turn of its cell when this ticket may be put. */
static inline uint32_t yk_ring_free_turn(uint64_t ticket)
{
    return (uint32_t)(ticket / YK_RING_CELLS) * 2;
}

static inline uint32_t yk_cell_turn(const struct yk_cell *cell)
{
    /* SYNC(ring-turn) acquire: free: whoever took from it has read it; full: sees the call. */
    return atomic_load_explicit(&cell->turn, memory_order_acquire);
}

/* A cell to fill in; NULL: the ring is full. The ticket is taken from tail by a locked operation in
 * the one order of all seq_cst ones: who looks at a word of his after this one, and finds nothing
 * there, was not yet seen by a thread that wrote the word and then saw the old tail. */
static inline struct yk_cell *yk_ring_reserve(struct yk_ring *ring, uint64_t *ticket)
{
    /* relaxed: a guess, which the exchange below checks. */
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    struct yk_cell *const cell = yk_ring_cell(ring, tail);
    if (YK_LIKELY(yk_cell_turn(cell) == yk_ring_free_turn(tail))) {
        /* SYNC(ring-tail) seq_cst: before the caller looks who sleeps. */
        if (YK_LIKELY(atomic_compare_exchange_strong_explicit(
                &ring->tail, &tail, tail + 1, memory_order_seq_cst, memory_order_relaxed))) {
            *ticket = tail;
            /* Whoever had that line last, it is here when it is its turn. */
            yk_prefetch_to_write(yk_ring_cell(ring, tail + YK_RING_AHEAD));
            return cell;
        }
    }
    return yk_ring_reserve_slow(ring, ticket);
}

/* It is filled in. */
static inline void yk_ring_publish(struct yk_cell *cell, uint64_t ticket)
{
    /* SYNC(ring-turn) release: publishes the call. */
    atomic_store_explicit(&cell->turn, yk_ring_free_turn(ticket) + 1, memory_order_release);
}

/* The claimed call was read. */
static inline void yk_ring_free(struct yk_cell *cell, uint64_t ticket)
{
    /* SYNC(ring-turn) release: we read it before it is written again. */
    atomic_store_explicit(&cell->turn, yk_ring_free_turn(ticket) + 2, memory_order_release);
}

static inline uint64_t yk_ring_tail(const struct yk_ring *ring)
{
    /* SYNC(ring-tail) seq_cst: after what the caller wrote before. */
    return atomic_load_explicit(&ring->tail, memory_order_seq_cst);
}

static inline uint64_t yk_ring_head(const struct yk_ring *ring)
{
    /* SYNC(ring-head) acquire: what was claimed was put before. */
    return atomic_load_explicit(&ring->head, memory_order_acquire);
}

/* The cheap look, at the one line in which the next call comes. */
static inline bool yk_ring_has_next(const struct yk_ring *ring)
{
    const uint64_t head = yk_ring_head(ring);
    return yk_cell_turn(yk_ring_cell(ring, head)) == yk_ring_free_turn(head) + 1;
}

/* The full look: not even a ticket was given out that nobody claimed. It takes the line of tail
 * away from who puts. */
static inline bool yk_ring_is_empty(const struct yk_ring *ring)
{
    return (int64_t)(yk_ring_tail(ring) - yk_ring_head(ring)) <= 0;
}

/* Tickets given out and not claimed, about. */
static inline uint64_t yk_ring_count(const struct yk_ring *ring)
{
    const int64_t count = (int64_t)(yk_ring_tail(ring) - yk_ring_head(ring));
    return count > 0 ? (uint64_t)count : 0;
}

/* So many cells in a row are free, as it looks. */
static inline bool yk_ring_has_room(const struct yk_ring *ring, uint32_t count)
{
    /* relaxed: a guess. */
    const uint64_t last = atomic_load_explicit(&ring->tail, memory_order_relaxed) + count - 1;
    return (int32_t)(yk_cell_turn(yk_ring_cell(ring, last)) - yk_ring_free_turn(last)) >= 0;
}

#endif
