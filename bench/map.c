/* SPDX-License-Identifier: MIT
 * map.c - figures of map and for over many items, against a loop in the caller.
 *
 * Idea: the reference is the loop that one would write without Yoke, compiled with the same
 * flags. Results are cleared before each pass and compared with the right ones after it.
 */
#include "harness.h"
#include "machine.h"

#include <stdlib.h>
#include <string.h>
#include <yoke/yoke.h>

enum { SQUARES = 1000000, HEAVY = 400, HEAVY_STEPS = 20000 };

static yoke_pool *pool;
static int64_t *in, *out, *right;

static void stop(void)
{
    if (pool) {
        yoke_pool_destroy(pool, yoke_in_ms(1000));
    }
    pool = NULL;
    free(in);
    free(out);
    free(right);
    in = out = right = NULL;
}

static int64_t heavy_value(int64_t seed)
{
    uint64_t x = (uint64_t)seed;
    for (int i = 0; i < HEAVY_STEPS; i++) { /* each step needs the one before */
        x = x * 6364136223846793005U + 1442695040888963407U;
        x ^= x >> 29;
    }
    return (int64_t)x;
}

static const char *start(int kind, size_t count)
{
    const yoke_pool_config config = {.size = sizeof config, .kind = kind};
    in = malloc(count * sizeof *in);
    out = malloc(count * sizeof *out);
    right = malloc(count * sizeof *right);
    if (!in || !out || !right) {
        return "no memory for the numbers";
    }
    for (size_t i = 0; i < count; i++) {
        in[i] = (int64_t)i + 1;
        right[i] = count == SQUARES ? in[i] * in[i] : heavy_value(in[i]);
    }
    const int error = yoke_pool_create(&config, &pool);
    return error ? bench_why("the pool", error) : NULL;
}

static const char *start_squares(void)
{
    return start(YOKE_THREADS, SQUARES);
}
static const char *start_heavy_threads(void)
{
    return start(YOKE_THREADS, HEAVY);
}
static const char *start_heavy_processes(void)
{
    return start(YOKE_PROCESSES, HEAVY);
}

static int square(yoke_task *task, const void *item, void *result)
{
    (void)task;
    const int64_t x = *(const int64_t *)item;
    *(int64_t *)result = x * x;
    return 0;
}

static int square_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    (void)accumulator;
    for (size_t i = begin; i < end; i++) {
        out[i] = in[i] * in[i];
    }
    return 0;
}

static int heavy(yoke_task *task, const void *item, void *result)
{
    (void)task;
    *(int64_t *)result = heavy_value(*(const int64_t *)item);
    return 0;
}

static int map_squares(void)
{
    return yoke_map(pool, square, in, sizeof *in, out, sizeof *out, SQUARES, NULL);
}

static int for_squares(void)
{
    return yoke_for(pool, square_range, SQUARES, NULL);
}

static int loop_squares(void)
{
    return square_range(NULL, 0, SQUARES, NULL);
}

static int map_heavy(void)
{
    return yoke_map(pool, heavy, in, sizeof *in, out, sizeof *out, HEAVY, NULL);
}

static int loop_heavy(void)
{
    for (size_t i = 0; i < HEAVY; i++) {
        out[i] = heavy_value(in[i]);
    }
    return 0;
}

static const char *timed(int (*run)(void), size_t count, double *us)
{
    memset(out, 0, count * sizeof *out);
    const int64_t begin = bench_now_ns();
    const int error = run();
    *us = (double)(bench_now_ns() - begin) / 1e3;
    if (error) {
        return bench_why("the map", error);
    }
    return memcmp(out, right, count * sizeof *out) == 0 ? NULL : "a wrong result";
}

static const char *yoke_map_squares(double *us)
{
    return timed(map_squares, SQUARES, us);
}
static const char *yoke_for_squares(double *us)
{
    return timed(for_squares, SQUARES, us);
}
static const char *serial_squares(double *us)
{
    return timed(loop_squares, SQUARES, us);
}
static const char *yoke_heavy(double *us)
{
    return timed(map_heavy, HEAVY, us);
}
static const char *serial_heavy(double *us)
{
    return timed(loop_heavy, HEAVY, us);
}

static const bench_figure figures[] = {
    {.name = "map/squares",
     .unit = "us",
     .reference = "a loop",
     .yoke = yoke_map_squares,
     .ref = serial_squares,
     .rounds = 61,
     .setup = start_squares,
     .teardown = stop},
    {.name = "map/squares-for",
     .unit = "us",
     .reference = "a loop",
     .yoke = yoke_for_squares,
     .ref = serial_squares,
     .rounds = 61,
     .setup = start_squares,
     .teardown = stop},
    {.name = "map/heavy-threads",
     .unit = "us",
     .reference = "a loop",
     .yoke = yoke_heavy,
     .ref = serial_heavy,
     .rounds = 31,
     .cpus = 2,
     .setup = start_heavy_threads,
     .teardown = stop},
    {.name = "map/heavy-processes",
     .unit = "us",
     .reference = "a loop",
     .yoke = yoke_heavy,
     .ref = serial_heavy,
     .rounds = 31,
     .cpus = 2,
     .setup = start_heavy_processes,
     .teardown = stop},
};

const bench_table bench_map_table = {figures, sizeof figures / sizeof *figures};
