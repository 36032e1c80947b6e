/* SPDX-License-Identifier: MIT
 * ref_ring.c - a pair of single-producer single-consumer rings between two processes.
 *
 * Idea: number and sequence share the line of a slot, so a message moves one line. There are
 * never more messages under way than slots, so no side has to look for room.
 * Invariant: the slot of message n is n modulo 64, and its sequence is n once it is there.
 */
#include "harness.h"
#include "machine.h"
#include "ref.h"
#include "word.h"

enum { SLOTS = 64 };

struct slot {
    struct bench_word sequence;
    uint64_t number; /* written before the sequence is put; in the same line */
};

struct rings {
    struct bench_word go; /* the last message of the pass */
    struct slot there[SLOTS], back[SLOTS];
};

static struct rings *rings;
static pid_t peer;
static uint32_t last;

static void ring_put(struct slot *ring, uint32_t message, uint64_t number)
{
    struct slot *slot = &ring[message % SLOTS];
    slot->number = number;
    bench_word_put(&slot->sequence, message);
}

static uint64_t ring_take(struct slot *ring, uint32_t message)
{
    struct slot *slot = &ring[message % SLOTS];
    bench_word_spin(&slot->sequence, message);
    return slot->number;
}

static void serve(void *arg)
{
    (void)arg;
    if (bench_pin(1) != 0) {
        return;
    }
    uint32_t seen = 0;
    for (;;) {
        const uint32_t until = bench_word_sleep(&rings->go, seen);
        while (seen != until) {
            seen++;
            ring_put(rings->back, seen, ring_take(rings->there, seen) + 1);
        }
    }
}

const char *ref_ring_start(void)
{
    rings = bench_share(sizeof *rings);
    if (!rings) {
        return "no shared memory for the rings";
    }
    last = 0;
    peer = bench_fork(serve, NULL);
    return peer > 0 ? NULL : bench_why("fork", peer);
}

/* Keeps the window full: each answer makes room for one more message. */
static int stream(unsigned count)
{
    const uint32_t first = last + 1;
    int wrong = 0;
    for (uint32_t i = 0; i < count + SLOTS; i++) {
        if (i >= SLOTS) {
            const uint32_t message = first + i - SLOTS;
            wrong |= ring_take(rings->back, message) != (uint64_t)message + 1;
        }
        if (i < count) {
            ring_put(rings->there, first + i, first + i);
        }
    }
    last += count;
    return wrong;
}

const char *ref_ring_pass(unsigned warm, unsigned count, double *ns_each)
{
    bench_word_wake(&rings->go, last + warm + count);
    int wrong = stream(warm);
    const int64_t start = bench_now_ns();
    wrong |= stream(count);
    *ns_each = (double)(bench_now_ns() - start) / count;
    return wrong ? "the ring gave a wrong answer" : NULL;
}

void ref_ring_stop(void)
{
    bench_kill(peer);
    bench_unshare(rings, sizeof *rings);
    peer = 0;
    rings = NULL;
}
