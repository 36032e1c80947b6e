/* SPDX-License-Identifier: MIT
 * threads.c - what the figures of the thread engine share.
 */
#include "threads.h"

#include "harness.h"
#include "machine.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { YOKE_QUIET_NS = 3000000, MEET_NS = 2000000000, STEPS = 20000 };

yoke_pool *threads_pool;
const bench_peer *threads_peer;

/* --- peers: objects in the folder peers, beside the program --------------------------------- */

const bench_peer *threads_peer_find(const char *name)
{
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    path[length > 0 ? length : 0] = 0;
    char *const slash = strrchr(path, '/');
    if (!slash) {
        return NULL;
    }
    snprintf(slash, 64, "/peers/%s.so", name);
    void *const object = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* and never closed: it has threads */
    return object ? dlsym(object, "bench_peer_table") : NULL;
}

/* --- two halves ----------------------------------------------------------------------------- */

struct halves {
    bench_half_fn *fn;
    void *arg;
};

static void second_half(yoke_strand strand, void *arg)
{
    const struct halves *const halves = arg;
    (void)strand;
    halves->fn(halves->arg, 1);
}

static void both_halves(yoke_strand strand, void *arg)
{
    const struct halves *const halves = arg;
    yoke_call second;
    yoke_spawn(&strand, &second, second_half, arg);
    halves->fn(halves->arg, 0);
    yoke_sync(&strand, &second);
}

int threads_region(bench_half_fn *fn, void *arg)
{
    struct halves halves = {fn, arg};
    return yoke_run(threads_pool, both_halves, &halves, NULL);
}

/* --- do two threads take part? -------------------------------------------------------------- */

struct meeting {
    atomic_uint come[2];
    int64_t until_ns;
};

static void meet(void *arg, unsigned half)
{
    struct meeting *const meeting = arg;
    atomic_store(&meeting->come[half], 1);
    while (!atomic_load(&meeting->come[!half]) && bench_now_ns() < meeting->until_ns) {
        sched_yield();
    }
}

static int met(const struct meeting *meeting)
{
    return bench_now_ns() < meeting->until_ns;
}

static const char *meet_all(void)
{
    struct meeting meeting = {.until_ns = bench_now_ns() + MEET_NS};
    const int error = threads_region(meet, &meeting);
    if (error) {
        return bench_why("yoke_run", error);
    }
    if (!met(&meeting)) {
        return "one thread of Yoke did it all";
    }
    if (!threads_peer || !threads_peer->region) {
        return NULL;
    }
    meeting = (struct meeting){.until_ns = bench_now_ns() + MEET_NS};
    threads_peer->region(1, meet, &meeting);
    return met(&meeting) ? NULL : "one thread of the peer did it all";
}

/* --- start, stop, rest ---------------------------------------------------------------------- */

const char *threads_start(unsigned workers, const char *peer)
{
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_THREADS, .workers = workers};
    const int error = yoke_pool_create(&config, &threads_pool);
    if (error) {
        return bench_why("the pool", error);
    }
    const bench_peer *const found = peer ? threads_peer_find(peer) : NULL;
    const char *const why = found ? found->start(workers) : NULL;
    threads_peer = why ? NULL : found;
    return why || workers < 2 ? why : meet_all();
}

void threads_stop(void)
{
    if (threads_pool) {
        yoke_pool_destroy(threads_pool, yoke_in_ms(1000));
    }
    if (threads_peer) {
        threads_peer->stop();
    }
    threads_pool = NULL;
    threads_peer = NULL;
}

void threads_rest(void)
{
    const int64_t quiet_ns = threads_peer ? threads_peer->quiet_ns : 0;
    bench_nap_ns(quiet_ns > YOKE_QUIET_NS ? quiet_ns : YOKE_QUIET_NS);
}

/* --- the plain hand-off --------------------------------------------------------------------- */

static struct {
    pthread_t thread;
    bench_half_fn *fn;
    void *arg;
    _Alignas(64) atomic_uint begun;
    _Alignas(64) atomic_uint ended;
} raw;

static void *raw_serve(void *arg)
{
    unsigned seen = 0;
    bench_pin(1);
    for (;;) {
        while (atomic_load_explicit(&raw.begun, memory_order_acquire) == seen) {
            bench_pause();
        }
        seen++;
        if (!raw.fn) {
            return arg;
        }
        raw.fn(raw.arg, 1);
        atomic_store_explicit(&raw.ended, seen, memory_order_release);
    }
}

static unsigned raw_begin(bench_half_fn *fn, void *arg)
{
    raw.fn = fn;
    raw.arg = arg;
    const unsigned now = atomic_load_explicit(&raw.begun, memory_order_relaxed) + 1;
    atomic_store_explicit(&raw.begun, now, memory_order_release);
    return now;
}

void threads_raw_region(bench_half_fn *fn, void *arg)
{
    const unsigned now = raw_begin(fn, arg);
    fn(arg, 0);
    while (atomic_load_explicit(&raw.ended, memory_order_acquire) != now) {
        bench_pause();
    }
}

const char *threads_raw_start(void)
{
    atomic_store(&raw.begun, 0);
    atomic_store(&raw.ended, 0);
    const int error = pthread_create(&raw.thread, NULL, raw_serve, NULL);
    if (error) {
        return bench_why("pthread_create", -error);
    }
    bench_pin(0);
    return NULL;
}

void threads_raw_stop(void)
{
    raw_begin(NULL, NULL);
    pthread_join(raw.thread, NULL);
    bench_unpin();
}

/* --- work ----------------------------------------------------------------------------------- */

uint64_t threads_work(uint64_t seed, unsigned long steps)
{
    uint64_t x = seed;
    for (unsigned long i = 0; i < steps; i++) { /* each step needs the one before */
        x = x * 6364136223846793005U + 1442695040888963407U;
        x ^= x >> 29;
    }
    return x;
}

unsigned long threads_steps(int64_t ns)
{
    static volatile uint64_t sink;
    int64_t best = INT64_MAX;
    for (int i = 0; i < 200; i++) {
        const int64_t begin = bench_now_ns();
        sink = threads_work((uint64_t)begin, STEPS);
        const int64_t took = bench_now_ns() - begin;
        best = took < best ? took : best;
    }
    (void)sink;
    return (unsigned long)(ns * STEPS / best);
}
