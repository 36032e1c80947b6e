/* SPDX-License-Identifier: MIT
 * threads_region.c - figures of short regions called from outside the pool: hot, warm and parked.
 *
 * Idea: a region is two halves, one for each CPU. Halves with work in them do a fixed number of
 * steps, as many as took the time when the figure began, so nothing but the work is in them; their
 * result shows that they ran. A figure with naps takes the median of its regions, the others the mean.
 */
#include "harness.h"
#include "machine.h"
#include "threads.h"

#include <dirent.h>
#include <stdlib.h>
#include <time.h>

enum {
    EMPTY = 5000,
    SHORT = 200,
    WARM = 200,
    NAPS = 21,
    PARKS = 7,
    SHORT_NS = 10000,
    LONG_NS = 50000,
    NAP_NS = 200000,
    PARK_NS = 20000000,
    IDLE_NS = 500000000,
};

struct half {
    _Alignas(64) uint64_t ran;
    uint64_t sum;
    unsigned long steps;
};

static struct half halves[2];
static uint64_t right; /* what one region adds to each sum */

static void count(void *arg, unsigned half)
{
    struct half *const halves_of = arg;
    halves_of[half].ran++;
}

static void compute(void *arg, unsigned half)
{
    struct half *const mine = (struct half *)arg + half;
    mine->sum += threads_work(1, mine->steps);
    mine->ran++;
}

static void clear(void)
{
    for (int i = 0; i < 2; i++) {
        halves[i].ran = halves[i].sum = 0;
    }
}

static const char *judge(uint64_t regions)
{
    for (int i = 0; i < 2; i++) {
        const uint64_t sum = halves[i].steps ? regions * right : 0;
        if (halves[i].ran != regions || halves[i].sum != sum) {
            return "a half did not run, or not once";
        }
    }
    return NULL;
}

/* --- the ways to run a region --------------------------------------------------------------- */

typedef void regions_fn(size_t times, bench_half_fn *fn);

static void by_yoke(size_t times, bench_half_fn *fn)
{
    for (size_t i = 0; i < times; i++) {
        if (threads_region(fn, halves) != 0) {
            return; /* the counts tell */
        }
    }
}

static void by_peer(size_t times, bench_half_fn *fn)
{
    threads_peer->region(times, fn, halves);
}

static void by_raw(size_t times, bench_half_fn *fn)
{
    for (size_t i = 0; i < times; i++) {
        threads_raw_region(fn, halves);
    }
}

static void by_caller(size_t times, bench_half_fn *fn)
{
    for (size_t i = 0; i < times; i++) {
        fn(halves, 0);
        fn(halves, 1);
    }
}

/* --- measuring ------------------------------------------------------------------------------ */

static const char *hot(regions_fn *regions, bench_half_fn *fn, size_t times, double *ns)
{
    clear();
    regions(WARM, fn);
    const int64_t from = bench_now_ns();
    regions(times, fn);
    *ns = (double)(bench_now_ns() - from) / (double)times;
    return judge(WARM + times);
}

static const char *after(int64_t nap_ns, regions_fn *regions, size_t times, double *us)
{
    double took[NAPS];
    clear();
    regions(WARM, compute);
    for (size_t i = 0; i < times; i++) {
        bench_nap_ns(nap_ns);
        const int64_t from = bench_now_ns();
        regions(1, compute);
        took[i] = (double)(bench_now_ns() - from) / 1e3;
    }
    *us = bench_median(took, times);
    return judge(WARM + times);
}

/* A thread that runs on another CPU has used up to a tick more than the process clock knows, unless
 * its own clock was read just before. */
static int64_t cpu_ns(void)
{
    struct timespec used;
    DIR *const threads = opendir("/proc/self/task");
    for (const struct dirent *entry; threads && (entry = readdir(threads));) {
        const unsigned long id = strtoul(entry->d_name, NULL, 10);
        if (id != 0) {
            clock_gettime((clockid_t)(~id << 3 | 6), &used); /* see pthread_getcpuclockid */
        }
    }
    if (threads) {
        closedir(threads);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static const char *burnt(regions_fn *regions, double *ms)
{
    clear();
    regions(WARM, compute);
    const int64_t from = cpu_ns();
    bench_nap_ns(IDLE_NS);
    *ms = (double)(cpu_ns() - from) / 1e6;
    return judge(WARM);
}

static const char *yoke_empty(double *ns)
{
    threads_rest();
    return hot(by_yoke, count, EMPTY, ns);
}
static const char *peer_empty(double *ns)
{
    threads_rest();
    return hot(by_peer, count, EMPTY, ns);
}
static const char *yoke_short(double *ns)
{
    threads_rest();
    return hot(by_yoke, compute, SHORT, ns);
}
static const char *raw_short(double *ns)
{
    threads_rest();
    const char *why = threads_raw_start();
    if (!why) {
        why = hot(by_raw, compute, SHORT, ns);
        threads_raw_stop();
    }
    return why;
}
static const char *yoke_nap(double *us)
{
    threads_rest();
    return after(NAP_NS, by_yoke, NAPS, us);
}
static const char *raw_nap(double *us)
{
    threads_rest();
    const char *why = threads_raw_start();
    if (!why) {
        why = after(NAP_NS, by_raw, NAPS, us);
        threads_raw_stop();
    }
    return why;
}
static const char *yoke_park(double *us)
{
    return after(PARK_NS, by_yoke, PARKS, us);
}
static const char *serial_park(double *us)
{
    return after(PARK_NS, by_caller, PARKS, us);
}
static const char *yoke_idle(double *ms)
{
    threads_rest();
    return burnt(by_yoke, ms);
}
static const char *peer_idle(double *ms)
{
    threads_rest();
    return burnt(by_peer, ms);
}

/* --- setup ---------------------------------------------------------------------------------- */

static const char *start(int64_t half_ns, unsigned workers, const char *peer)
{
    const unsigned long steps = half_ns ? threads_steps(half_ns) : 0;
    halves[0].steps = halves[1].steps = steps;
    right = threads_work(1, steps);
    return threads_start(workers, peer);
}

static const char *start_empty(void)
{
    return start(0, 2, "tbb");
}
static const char *start_crowded(void)
{
    return start(0, 2 * bench_cpu_count(), "tbb");
}
static const char *start_short(void)
{
    return start(SHORT_NS, 2, NULL);
}
static const char *start_short_tbb(void)
{
    return start(SHORT_NS, 2, "tbb");
}
static const char *start_long(void)
{
    return start(LONG_NS, 2, NULL);
}

#define FIGURE(NAME, UNIT, REFERENCE, YOKE, REF, ROUNDS, PEER, START) \
    { \
        .name = (NAME), .unit = (UNIT), .reference = (REFERENCE), .yoke = (YOKE), .ref = (REF), \
        .rounds = (ROUNDS), .cpus = 2, .peer = (PEER), .setup = (START), .teardown = threads_stop \
    }

static const bench_figure figures[] = {
    FIGURE("threads/region", "ns", "oneTBB, parallel_for of two", yoke_empty, peer_empty, 61, "tbb",
           start_empty),
    FIGURE("threads/region-10us", "ns", "a thread that spins", yoke_short, raw_short, 31, NULL,
           start_short),
    FIGURE("threads/wake-200us", "us", "a thread that spins", yoke_nap, raw_nap, 31, NULL,
           start_long),
    FIGURE("threads/wake-park", "us", "both halves in the caller", yoke_park, serial_park, 15, NULL,
           start_long),
    FIGURE("threads/idle", "ms", "oneTBB", yoke_idle, peer_idle, 9, "tbb", start_short_tbb),
    FIGURE("threads/oversubscribed", "ns", "oneTBB, parallel_for of two", yoke_empty, peer_empty,
           61, "tbb", start_crowded),
};

const bench_table bench_threads_region_table = {figures, sizeof figures / sizeof *figures};
