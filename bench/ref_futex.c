/* SPDX-License-Identifier: MIT
 * ref_futex.c - two processes that wake each other with bare futexes.
 *
 * Idea: each round trip begins when both sides are asleep. The peer stamps when it woke, naps
 * so that the caller falls asleep too, stamps again and answers. What is counted is the two
 * wakes: request to first stamp, second stamp to answer seen.
 */
#include "harness.h"
#include "machine.h"
#include "ref.h"
#include "word.h"

struct meeting {
    struct bench_word ping, pong;
    int64_t nap_ns;          /* written before ping */
    int64_t woke_ns, end_ns; /* written before pong */
};

static struct meeting *meeting;
static pid_t peer;
static uint32_t last;

static void serve(void *arg)
{
    (void)arg;
    if (bench_pin(1) != 0) {
        return;
    }
    for (uint32_t seen = 0;;) {
        seen = bench_word_sleep(&meeting->ping, seen);
        meeting->woke_ns = bench_now_ns();
        bench_nap_ns(meeting->nap_ns);
        meeting->end_ns = bench_now_ns();
        bench_word_wake(&meeting->pong, seen);
    }
}

const char *ref_futex_start(void)
{
    meeting = bench_share(sizeof *meeting);
    if (!meeting) {
        return "no shared memory for the futexes";
    }
    last = 0;
    peer = bench_fork(serve, NULL);
    return peer > 0 ? NULL : bench_why("fork", peer);
}

static int64_t trip(int64_t nap_ns)
{
    meeting->nap_ns = nap_ns;
    bench_nap_ns(nap_ns);
    const int64_t start = bench_now_ns();
    bench_word_wake(&meeting->ping, last + 1);
    last = bench_word_sleep(&meeting->pong, last);
    return bench_now_ns() - start - (meeting->end_ns - meeting->woke_ns);
}

const char *ref_futex_pass(unsigned count, int64_t nap_ns, double *us_each)
{
    int64_t total = 0;
    for (unsigned i = 0; i < count; i++) {
        const long sleeps = bench_sleeps();
        total += trip(nap_ns);
        if (bench_sleeps() < sleeps + 2) { /* the nap, and the wait */
            return "the caller of the futex did not sleep";
        }
    }
    *us_each = (double)total / count / 1e3;
    return NULL;
}

void ref_futex_stop(void)
{
    bench_kill(peer);
    bench_unshare(meeting, sizeof *meeting);
    peer = 0;
    meeting = NULL;
}
