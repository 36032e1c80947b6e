/* SPDX-License-Identifier: MIT
 * threads_range.c - figures of loops, a sum and a sort.
 *
 * Idea: the body of each loop is one function that both sides call with ranges, but the tiny loop,
 * whose body a compiler must see in the peer's own words (work_tiny.h). What is computed is
 * compared after each pass with what a plain loop made of it.
 */
#include "harness.h"
#include "machine.h"
#include "threads.h"
#include "work_tiny.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { TINY = 1000, TINY_TIMES = 1000, WARM = 100, SIDE = 512, DEEP = 400, SORTED = 10000000 };
#define SUMMED ((size_t)40000000)

static union {
    uint32_t *tiny;
    uint16_t *image;
    double *doubles;
    uint64_t *sorted;
    void *memory;
} data, want;

static void stop(void)
{
    threads_stop();
    free(data.memory);
    free(want.memory);
    data.memory = want.memory = NULL;
}

static const char *start(size_t bytes, const char *peer)
{
    data.memory = calloc(1, bytes);
    want.memory = calloc(1, bytes);
    return data.memory && want.memory ? threads_start(2, peer) : "no memory for the numbers";
}

/* --- a loop of tiny iterations -------------------------------------------------------------- */

static int tiny_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    uint32_t *const numbers = data.tiny;
    (void)task;
    (void)accumulator;
    for (size_t i = begin; i < end; i++) {
        numbers[i] = work_tiny(numbers[i]);
    }
    return 0;
}

static void tiny_yoke(size_t times)
{
    for (size_t i = 0; i < times; i++) {
        if (yoke_for(threads_pool, tiny_range, TINY, NULL) != 0) {
            return; /* the numbers tell */
        }
    }
}

static void tiny_peer(size_t times)
{
    threads_peer->loop(times, data.tiny, TINY);
}

static const char *tiny(void (*loops)(size_t times), double *ns)
{
    for (uint32_t i = 0; i < TINY; i++) {
        data.tiny[i] = i;
    }
    threads_rest();
    loops(WARM);
    const int64_t from = bench_now_ns();
    loops(TINY_TIMES);
    *ns = (double)(bench_now_ns() - from) / TINY_TIMES;
    return memcmp(data.tiny, want.tiny, TINY * sizeof *data.tiny) == 0 ? NULL : "a wrong result";
}

static const char *yoke_tiny(double *ns)
{
    return tiny(tiny_yoke, ns);
}
static const char *peer_tiny(double *ns)
{
    return tiny(tiny_peer, ns);
}

static const char *start_tiny(const char *peer)
{
    const char *const why = start(TINY * sizeof *data.tiny, peer);
    for (uint32_t i = 0; i < TINY && !why; i++) {
        want.tiny[i] = i;
        for (int k = 0; k < WARM + TINY_TIMES; k++) {
            want.tiny[i] = work_tiny(want.tiny[i]);
        }
    }
    return why;
}

static const char *start_gomp(void)
{
    return start_tiny("gomp");
}
static const char *start_omp(void)
{
    return start_tiny("omp");
}

/* --- rows of very different length: the Mandelbrot set --------------------------------------- */

static unsigned escape(double x, double y)
{
    double u = 0, v = 0;
    unsigned steps = 0;
    while (steps < DEEP && u * u + v * v < 4) {
        const double next = u * u - v * v + x;
        v = 2 * u * v + y;
        u = next;
        steps++;
    }
    return steps;
}

static void row(uint16_t *image, size_t number)
{
    for (size_t i = 0; i < SIDE; i++) {
        image[number * SIDE + i] =
            (uint16_t)escape(-2 + 3 * (double)i / SIDE, -1.5 + 3 * (double)number / SIDE);
    }
}

static int rows(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    (void)accumulator;
    for (size_t i = begin; i < end; i++) {
        row(data.image, i);
    }
    return 0;
}

static int image_yoke(void)
{
    return yoke_for(threads_pool, rows, SIDE, NULL);
}

static void rows_of_counter(void *counter, unsigned half)
{
    (void)half;
    for (size_t i; (i = atomic_fetch_add((atomic_size_t *)counter, 1)) < SIDE;) {
        row(data.image, i);
    }
}

static int image_raw(void)
{
    atomic_size_t counter = 0;
    threads_raw_region(rows_of_counter, &counter);
    return 0;
}

static const char *image(int (*make)(void), double *ms)
{
    const size_t bytes = (size_t)SIDE * SIDE * sizeof *data.image;
    memset(data.image, 0, bytes);
    const int64_t from = bench_now_ns();
    const int error = make();
    *ms = (double)(bench_now_ns() - from) / 1e6;
    if (error) {
        return bench_why("yoke_for", error);
    }
    return memcmp(data.image, want.image, bytes) == 0 ? NULL : "a wrong result";
}

static const char *yoke_mandel(double *ms)
{
    threads_rest();
    return image(image_yoke, ms);
}
static const char *raw_mandel(double *ms)
{
    threads_rest();
    const char *why = threads_raw_start();
    if (!why) {
        why = image(image_raw, ms);
        threads_raw_stop();
    }
    return why;
}

static const char *start_image(void)
{
    const char *const why = start((size_t)SIDE * SIDE * sizeof *data.image, NULL);
    for (size_t i = 0; i < SIDE && !why; i++) {
        row(want.image, i);
    }
    return why;
}

/* --- a sum bound by memory ------------------------------------------------------------------ */

/* Eight sums side by side: one would wait for its own additions, and not for the memory. */
static double sum(const double *numbers, size_t count)
{
    double part[8] = {0}, total = 0;
    const size_t even = count - count % 8;
    for (size_t i = 0; i < even; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            part[k] += numbers[i + k];
        }
    }
    for (size_t i = even; i < even + count % 8; i++) {
        total += numbers[i];
    }
    for (size_t k = 0; k < 8; k++) {
        total += part[k];
    }
    return total;
}

static int sum_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    *(double *)accumulator += sum(data.doubles + begin, end - begin);
    return 0;
}

static void sum_merge(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(double *)accumulator += *(const double *)other;
}

struct half_sum {
    _Alignas(64) double sum;
};

static void sum_half(void *arg, unsigned half)
{
    ((struct half_sum *)arg)[half].sum = sum(data.doubles + half * (SUMMED / 2), SUMMED / 2);
}

static double right_sum;

static const char *yoke_sum(double *ms)
{
    double total = 0;
    threads_rest();
    const int64_t from = bench_now_ns();
    const int error =
        yoke_reduce(threads_pool, sum_range, sum_merge, SUMMED, &total, sizeof total, NULL);
    *ms = (double)(bench_now_ns() - from) / 1e6;
    if (error) {
        return bench_why("yoke_reduce", error);
    }
    return total == right_sum ? NULL : "a wrong result";
}

static const char *raw_sum(double *ms)
{
    struct half_sum halves[2];
    threads_rest();
    const char *const why = threads_raw_start();
    if (why) {
        return why;
    }
    const int64_t from = bench_now_ns();
    threads_raw_region(sum_half, halves);
    *ms = (double)(bench_now_ns() - from) / 1e6;
    threads_raw_stop();
    return halves[0].sum + halves[1].sum == right_sum ? NULL : "a wrong result";
}

/* Whole numbers: their sum has the same bits in any order. */
static const char *start_sum(void)
{
    const char *const why = start(SUMMED * sizeof *data.doubles, NULL);
    right_sum = 0;
    for (size_t i = 0; i < SUMMED && !why; i++) {
        data.doubles[i] = (double)(i % 7);
        right_sum += (double)(i % 7);
    }
    return why;
}

/* --- a sort --------------------------------------------------------------------------------- */

YOKE_SORT(sort_numbers, uint64_t, *a < *b)

static uint64_t nth(uint64_t n)
{
    uint64_t x = (n + 1) * 0x9e3779b97f4a7c15U;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
    x = (x ^ x >> 27) * 0x94d049bb133111ebU;
    return x ^ x >> 31;
}

static int sort_yoke(void)
{
    return sort_numbers(threads_pool, data.sorted, SORTED, NULL);
}

static int sort_peer(void)
{
    threads_peer->sort(data.sorted, SORTED);
    return 0;
}

static const char *sort(int (*fn)(void), double *ms)
{
    for (size_t i = 0; i < SORTED; i++) {
        data.sorted[i] = nth(i);
    }
    threads_rest();
    const int64_t from = bench_now_ns();
    const int error = fn();
    *ms = (double)(bench_now_ns() - from) / 1e6;
    if (error) {
        return bench_why("the sort", error);
    }
    return memcmp(data.sorted, want.sorted, SORTED * sizeof *data.sorted) == 0 ? NULL
                                                                               : "a wrong result";
}

static const char *yoke_sorted(double *ms)
{
    return sort(sort_yoke, ms);
}
static const char *peer_sorted(double *ms)
{
    return sort(sort_peer, ms);
}

static int compare(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static const char *start_sort(void)
{
    const char *const why = start(SORTED * sizeof *data.sorted, "tbb");
    for (size_t i = 0; i < SORTED && !why; i++) {
        want.sorted[i] = nth(i);
    }
    if (!why) {
        qsort(want.sorted, SORTED, sizeof *want.sorted, compare);
    }
    return why;
}

#define FIGURE(NAME, UNIT, REFERENCE, YOKE, REF, ROUNDS, MEMORY, PEER, START) \
    { \
        .name = (NAME), .unit = (UNIT), .reference = (REFERENCE), .yoke = (YOKE), .ref = (REF), \
        .rounds = (ROUNDS), .cpus = 2, .memory_mib = (MEMORY), .peer = (PEER), .setup = (START), \
        .teardown = stop \
    }

static const bench_figure figures[] = {
    FIGURE("threads/loop-1k", "ns", "libgomp, parallel for", yoke_tiny, peer_tiny, 31, 0, "gomp",
           start_gomp),
    FIGURE("threads/loop-libomp", "ns", "libomp, parallel for", yoke_tiny, peer_tiny, 9, 0, "omp",
           start_omp),
    FIGURE("threads/irregular", "ms", "two threads and a counter", yoke_mandel, raw_mandel, 21, 0,
           NULL, start_image),
    FIGURE("threads/sum", "ms", "two threads", yoke_sum, raw_sum, 31, 1000, NULL, start_sum),
    FIGURE("threads/sort-10m", "ms", "oneTBB, parallel_sort", yoke_sorted, peer_sorted, 7, 600,
           "tbb", start_sort),
};

const bench_table bench_threads_range_table = {figures, sizeof figures / sizeof *figures};
