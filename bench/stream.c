/* SPDX-License-Identifier: MIT
 * stream.c - figures of streams: items that come one by one, against a loop and against a map.
 *
 * Idea: tiny items show what an item costs on its way there and back, large ones what a stream
 * loses against a map that has all of them at hand. The sum of the results is the check.
 */
#include "harness.h"
#include "machine.h"

#include <stdlib.h>
#include <yoke/yoke.h>

enum { TINY = 1000000, LARGE = 400, LARGE_STEPS = 20000 };

static yoke_pool *pool;
static size_t count;
static int64_t sum, right;
static int64_t *in, *out;

static int64_t large_value(int64_t seed)
{
    uint64_t x = (uint64_t)seed;
    for (int i = 0; i < LARGE_STEPS; i++) { /* each step needs the one before */
        x = x * 6364136223846793005U + 1442695040888963407U;
        x ^= x >> 29;
    }
    return (int64_t)(x >> 20);
}

static int64_t value(int64_t x)
{
    return count == LARGE ? large_value(x) : x * 3;
}

static void stop(void)
{
    if (pool) {
        yoke_pool_destroy(pool, yoke_in_ms(1000));
    }
    pool = NULL;
    free(in);
    free(out);
    in = out = NULL;
}

static const char *start(size_t items)
{
    const yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES};
    count = items;
    right = 0;
    in = malloc(count * sizeof *in);
    out = malloc(count * sizeof *out);
    if (!in || !out) {
        return "no memory for the numbers";
    }
    for (size_t i = 0; i < count; i++) {
        in[i] = (int64_t)i;
        right += value(in[i]);
    }
    const int error = yoke_pool_create(&config, &pool);
    return error ? bench_why("the pool", error) : NULL;
}

static const char *start_tiny(void)
{
    return start(TINY);
}
static const char *start_large(void)
{
    return start(LARGE);
}

static int tiny(yoke_task *task, const void *item, void *result)
{
    (void)task;
    *(int64_t *)result = *(const int64_t *)item * 3;
    return 0;
}

static int large(yoke_task *task, const void *item, void *result)
{
    (void)task;
    *(int64_t *)result = large_value(*(const int64_t *)item);
    return 0;
}

static int next(void *user, size_t item, void *room)
{
    (void)user;
    *(int64_t *)room = (int64_t)item;
    return item < count;
}

static int done(void *user, const yoke_outcome *outcome, const void *item, const void *result,
                size_t bytes)
{
    (void)user;
    (void)item;
    (void)bytes;
    sum += outcome->kind == YOKE_OK ? *(const int64_t *)result : 0;
    return 0;
}

static int stream(yoke_fn *fn)
{
    const yoke_stream_config config = {.size = sizeof config,
                                       .in_bytes = sizeof(int64_t),
                                       .out_bytes = sizeof(int64_t),
                                       .next = next,
                                       .done = done};
    return yoke_map_stream(pool, fn, &config, NULL);
}

static int stream_tiny(void)
{
    return stream(tiny);
}
static int stream_large(void)
{
    return stream(large);
}

/* The same calls without Yoke: next, the function, done. */
static int loop_tiny(void)
{
    const yoke_outcome ok = {.kind = YOKE_OK};
    int64_t room = 0, result = 0;
    for (size_t i = 0; next(NULL, i, &room); i++) {
        tiny(NULL, &room, &result);
        done(NULL, &ok, &room, &result, sizeof result);
    }
    return 0;
}

static int map_large(void)
{
    const int error = yoke_map(pool, large, in, sizeof *in, out, sizeof *out, count, NULL);
    for (size_t i = 0; i < count; i++) {
        sum += out[i];
    }
    return error;
}

static const char *timed(int (*run)(void), double scale, double *each)
{
    sum = 0;
    const int64_t begin = bench_now_ns();
    const int error = run();
    *each = (double)(bench_now_ns() - begin) / scale;
    if (error) {
        return bench_why("the stream", error);
    }
    return sum == right ? NULL : "a wrong sum";
}

static const char *yoke_tiny(double *ns)
{
    return timed(stream_tiny, TINY, ns);
}
static const char *ref_tiny(double *ns)
{
    return timed(loop_tiny, TINY, ns);
}
static const char *yoke_large(double *us)
{
    return timed(stream_large, 1e3, us);
}
static const char *ref_large(double *us)
{
    return timed(map_large, 1e3, us);
}

static const bench_figure figures[] = {
    {.name = "stream/tiny",
     .unit = "ns",
     .reference = "a loop",
     .yoke = yoke_tiny,
     .ref = ref_tiny,
     .rounds = 31,
     .setup = start_tiny,
     .teardown = stop},
    {.name = "stream/large",
     .unit = "us",
     .reference = "yoke_map",
     .yoke = yoke_large,
     .ref = ref_large,
     .rounds = 31,
     .cpus = 2,
     .setup = start_large,
     .teardown = stop},
};

const bench_table bench_stream_table = {figures, sizeof figures / sizeof *figures};
