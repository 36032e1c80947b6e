/* SPDX-License-Identifier: MIT
 * map.c - the three calls on data: what they accept, and where they run.   Room: pool.
 *
 * A map, for or reduce is a *sweep* over items 0 to count - 1. sweep_run.c runs one on workers,
 * serial.c in the caller.
 */
#include <errno.h>

#include "pool/range.h"
#include "pool/sweep.h"

static int translate(struct yoke_pool *pool, struct yk_sweep *sweep)
{
    uintptr_t fn = sweep->fn != NULL ? (uintptr_t)sweep->fn : (uintptr_t)sweep->range_fn;
    const int rc = yk_pool_translate(pool, &fn);
    if (sweep->fn != NULL) {
        sweep->fn = (yoke_fn *)yk_code_at(fn);
    } else {
        sweep->range_fn = (yoke_range_fn *)yk_code_at(fn);
    }
    return rc;
}

static int run_here(const struct yoke_pool *pool, struct yk_sweep *sweep)
{
    /* The table serves those who watch, and pools whose tasks may wait. */
    const bool splits = pool->kind == YOKE_THREADS && sweep->options.progress == NULL &&
                        pool->config.workers_max == pool->config.workers;
    if (splits) {
        return yk_range_run(sweep);
    }
    struct yk_cancel_call call;
    int rc = yk_cancel_call_begin(&call, &sweep->options);
    sweep->token = call.token;
    if (rc == 0) {
        rc = pool->kind == YOKE_SERIAL ? yk_serial_sweep(sweep) : yk_sweep_run(sweep);
    }
    yk_cancel_call_end(&call);
    return rc;
}

/* Inside a process worker the pool is not there: not even its kind may be read. */
static int run(struct yoke_pool *pool, struct yk_sweep *sweep, const yoke_options *options)
{
    int rc = pool == NULL ? -EINVAL : yk_options_read(&sweep->options, options);
    if (rc != 0) {
        return rc;
    }
    if (sweep->fn == NULL) {
        sweep->options.outcomes = NULL; /* one per item is for map */
    }
    if (yk_worker_role()) {
        sweep->options.cancel = NULL;
        return yk_serial_sweep(sweep);
    }
    rc = yk_pool_check(pool);
    rc = rc == 0 ? translate(pool, sweep) : rc;
    if (rc != 0 || sweep->count == 0) {
        return rc;
    }
    sweep->pool = pool;
    return run_here(pool, sweep);
}

static bool array_is_sound(const void *array, size_t item_bytes, size_t count)
{
    size_t bytes = 0;
    if (yk_mul_overflows(item_bytes, count, &bytes) || bytes > PTRDIFF_MAX) {
        return false;
    }
    return array != NULL || bytes == 0;
}

int yoke_map(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes, void *out,
             size_t out_bytes, size_t count, const yoke_options *options)
{
    if (fn == NULL || !array_is_sound(in, in_bytes, count) ||
        !array_is_sound(out, out_bytes, count)) {
        return -EINVAL;
    }
    struct yk_sweep sweep = {
        .fn = fn,
        .in = in_bytes != 0 ? in : NULL,
        .in_bytes = in_bytes,
        .out = out_bytes != 0 ? out : NULL,
        .out_bytes = out_bytes,
        .count = count,
    };
    return run(pool, &sweep, options);
}

int yoke_for(yoke_pool *pool, yoke_range_fn *fn, size_t count, const yoke_options *options)
{
    if (fn == NULL) {
        return -EINVAL;
    }
    struct yk_sweep sweep = {.range_fn = fn, .count = count};
    return run(pool, &sweep, options);
}

int yoke_reduce(yoke_pool *pool, yoke_range_fn *fn, yoke_merge_fn *merge, size_t count,
                void *accumulator, size_t accumulator_bytes, const yoke_options *options)
{
    if (fn == NULL || merge == NULL || accumulator == NULL || accumulator_bytes == 0 ||
        accumulator_bytes > PTRDIFF_MAX) {
        return -EINVAL;
    }
    struct yk_sweep sweep = {
        .range_fn = fn,
        .merge = merge,
        .accumulator = accumulator,
        .accumulator_bytes = accumulator_bytes,
        .count = count,
    };
    return run(pool, &sweep, options);
}
