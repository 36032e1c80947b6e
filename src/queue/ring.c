/* SPDX-License-Identifier: MIT
 * ring.c - a bounded queue of calls: the longer ways.   Room: queue.
 *
 * Argument. A ticket has one putter, who moved tail past it, and one taker, who moved head past it.
 * The putter writes only while the turn says free, which the taker of the lap before stored after
 * he had read; the taker reads only what he saw full, which the putter stored after he had written.
 * A turn seen full stays so until head is past it: only who has claimed it changes it, so what was
 * counted before the exchange of head is still there after it.
 */
#include "queue/ring.h"

#include <errno.h>

int yk_ring_init(struct yk_ring *ring)
{
    void *cells = NULL;
    if (yk_map_private(YK_RING_CELLS * sizeof(struct yk_cell), &cells) != 0) {
        return -ENOMEM;
    }
    ring->cells = cells;
    atomic_init(&ring->tail, 0);
    atomic_init(&ring->head, 0);
    return 0;
}

void yk_ring_fini(struct yk_ring *ring)
{
    yk_unmap(ring->cells, YK_RING_CELLS * sizeof(struct yk_cell));
    ring->cells = NULL;
}

struct yk_cell *yk_ring_reserve_slow(struct yk_ring *ring, uint64_t *ticket)
{
    /* relaxed: a guess, which the exchange below checks. */
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    for (;;) {
        struct yk_cell *const cell = yk_ring_cell(ring, tail);
        const int32_t ahead = (int32_t)(yk_cell_turn(cell) - yk_ring_free_turn(tail));
        if (ahead < 0) {
            return NULL;
        }
        if (ahead > 0) { /* others were faster */
            /* relaxed: as above. */
            tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
            continue;
        }
        /* SYNC(ring-tail) seq_cst: before the caller looks who sleeps. */
        if (atomic_compare_exchange_strong_explicit(&ring->tail, &tail, tail + 1,
                                                    memory_order_seq_cst, memory_order_relaxed)) {
            *ticket = tail;
            return cell;
        }
    }
}

static uint32_t count_full(const struct yk_ring *ring, uint64_t head, uint32_t most)
{
    uint32_t count = 0;
    while (count < most &&
           yk_cell_turn(yk_ring_cell(ring, head + count)) == yk_ring_free_turn(head + count) + 1) {
        count++;
    }
    return count;
}

uint32_t yk_ring_claim(struct yk_ring *ring, uint32_t most, uint64_t *ticket)
{
    uint64_t head = yk_ring_head(ring);
    for (;;) {
        const uint32_t count = count_full(ring, head, most);
        if (count == 0) {
            const uint64_t now = yk_ring_head(ring);
            if (now == head) {
                return 0;
            }
            head = now;
            continue;
        }
        /* SYNC(ring-head) seq_cst: before the caller looks who waits for room. */
        if (atomic_compare_exchange_strong_explicit(&ring->head, &head, head + count,
                                                    memory_order_seq_cst, memory_order_acquire)) {
            *ticket = head;
            /* We have read them; to free them we must have them alone. */
            for (uint32_t i = 0; i < count; i++) {
                yk_prefetch_to_write(yk_ring_cell(ring, head + i));
            }
            return count;
        }
    }
}
