/* SPDX-License-Identifier: MIT
 * ref_line.c - the round trip of a cache line between two processes.
 *
 * Idea: one line for each direction and nothing else; this is the floor that the hardware
 * sets, and it moves when the machine moves the virtual CPUs.
 */
#include "harness.h"
#include "machine.h"
#include "ref.h"
#include "word.h"

struct lines {
    struct bench_word go; /* the last number of the pass */
    struct bench_word ping, pong;
};

static struct lines *lines;
static pid_t peer;
static uint32_t last;

static void serve(void *arg)
{
    (void)arg;
    if (bench_pin(1) != 0) {
        return;
    }
    uint32_t seen = 0;
    for (;;) {
        const uint32_t until = bench_word_sleep(&lines->go, seen);
        while (seen != until) {
            bench_word_spin(&lines->ping, ++seen);
            bench_word_put(&lines->pong, seen);
        }
    }
}

const char *ref_line_start(void)
{
    lines = bench_share(sizeof *lines);
    if (!lines) {
        return "no shared memory for the cache lines";
    }
    last = 0;
    peer = bench_fork(serve, NULL);
    return peer > 0 ? NULL : bench_why("fork", peer);
}

static void trips(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bench_word_put(&lines->ping, ++last);
        bench_word_spin(&lines->pong, last);
    }
}

const char *ref_line_pass(unsigned warm, unsigned count, double *ns_each)
{
    bench_word_wake(&lines->go, last + warm + count);
    trips(warm);
    const int64_t start = bench_now_ns();
    trips(count);
    *ns_each = (double)(bench_now_ns() - start) / count;
    return NULL;
}

void ref_line_stop(void)
{
    bench_kill(peer);
    bench_unshare(lines, sizeof *lines);
    peer = 0;
    lines = NULL;
}
