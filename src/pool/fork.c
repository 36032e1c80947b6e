/* SPDX-License-Identifier: MIT
 * fork.c - spawn and sync, where they are more than a few instructions.   Room: pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/deque.h"
#include "pool/pool_private.h"

/* Below all slots: where top stands while too many spawns are open and each runs at once. */
static yoke_frame **overflow_slot(struct yk_deque *deque)
{
    return deque->slots - 2;
}

static void set_limit(struct yk_deque *deque, yoke_frame **limit)
{
    /* relaxed: a request to look. */
    __atomic_store_n(&deque->ends.limit, limit, __ATOMIC_RELAXED);
}

/* No slot is left: run it now. Where top stood is kept in the frame for the pop. */
static yoke_frame **run_now(struct yk_deque *deque, yoke_frame **top, yoke_frame *frame)
{
    yoke_frame **const within = overflow_slot(deque) + 1;
    top[-1] = NULL;
    frame->taker = top - 1;
    set_limit(deque, NULL);
    frame->run((yoke_strand){&deque->ends, within}, frame);
    return within;
}

static yoke_frame **end_of_overflow(struct yk_deque *deque, yoke_frame *frame)
{
    yoke_frame **const before = frame->taker;
    if (before >= deque->slots) {
        set_limit(deque, deque->slots + YK_DEQUE_SLOTS);
    }
    return before;
}

yoke_frame **yoke_fork_called(yoke_deque *ends, yoke_frame **top, yoke_frame *frame)
{
    struct yk_deque *const deque = yk_deque_of(ends);
    if (top > deque->slots + YK_DEQUE_SLOTS || top < deque->slots) {
        return run_now(deque, top, frame);
    }
    return top;
}

yoke_frame **yoke_fork_taken(yoke_deque *ends, yoke_frame **slot, yoke_frame *frame, int *mine)
{
    struct yk_deque *const deque = yk_deque_of(ends);
    *mine = 0;
    return slot == overflow_slot(deque) ? end_of_overflow(deque, frame) : slot;
}

void yoke_call_run(yoke_strand strand, yoke_frame *frame)
{
    yoke_call *const call = (yoke_call *)(void *)frame;
    call->fn(strand, call->arg);
}

void yoke_each_run(yoke_strand strand, yoke_frame *frame)
{
    const yoke_each_rest *const rest = (const yoke_each_rest *)(void *)frame;
    yoke_each(strand, rest->next, rest->end, rest->fn, rest->arg);
}

int yoke_strand_cancelled(yoke_strand strand)
{
    (void)strand;
    return 0;
}

unsigned yoke_strand_worker(yoke_strand strand)
{
    return yk_deque_of(strand.deque)->index;
}

int yoke_run(yoke_pool *pool, yoke_fork_fn *fn, void *arg, const yoke_options *options)
{
    (void)options;
    if (pool == NULL || fn == NULL) {
        return -EINVAL;
    }
    struct yk_deque deque = {.index = 0};
    yoke_frame **const area = calloc(YK_DEQUE_SLOTS + 4, sizeof *area);
    if (area == NULL) {
        return -ENOMEM;
    }
    deque.slots = area + 2;
    deque.ends.split = deque.slots;
    set_limit(&deque, deque.slots + YK_DEQUE_SLOTS);
    fn((yoke_strand){&deque.ends, deque.slots}, arg);
    free(area);
    return 0;
}
