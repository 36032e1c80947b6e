/* SPDX-License-Identifier: MIT
 * serial.c - map, for and reduce in the caller.   Room: pool.
 *
 * Used by serial pools, where it is the oracle the other kinds are compared with, and inside a
 * process worker, where nested calls run in place and the pool itself is not there to be read.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/pool_private.h"
#include "pool/range.h"

#define PROGRESS_STEPS 64

int64_t yk_serial_deadline(int64_t timeout_ns)
{
    return timeout_ns == 0 ? 0 : yk_after(yk_clock_ns(), timeout_ns);
}

static void note(const yoke_options *options, int32_t code, size_t item, int *rc)
{
    yoke_outcome outcome = yk_outcome_of(code);
    outcome.attempts = 1;
    outcome.item = item;
    if (options->outcomes != NULL) {
        options->outcomes[item] = outcome;
    }
    if (outcome.kind != YOKE_OK && *rc == 0) {
        *rc = YOKE_ETASK;
        if (options->failure != NULL) {
            *options->failure = outcome;
        }
    }
}

static int cancel_rest(const struct yk_sweep *sweep, size_t from, int rc, int why)
{
    const yoke_options *const options = &sweep->options;
    yoke_outcome outcome = {.kind = YOKE_CANCELLED, .item = from};
    if (rc == 0 && from < sweep->count && options->failure != NULL) {
        *options->failure = outcome;
    }
    for (; options->outcomes != NULL && outcome.item < sweep->count; outcome.item++) {
        options->outcomes[outcome.item] = outcome;
    }
    return why;
}

/* Somebody cancelled the call, or, in a process worker, the task that made it. */
static bool is_cancelled(const struct yoke_task *task)
{
    if (YK_LIKELY(task->place.token == NULL && task->place.flag == NULL)) {
        return false;
    }
    /* relaxed: a request, seen sooner or later. */
    return yk_cancel_seen(task->place.token) ||
           (task->place.flag != NULL &&
            atomic_load_explicit(task->place.flag, memory_order_relaxed) != 0);
}

static bool asked_to_stop(const struct yk_sweep *sweep, size_t done)
{
    const yoke_options *const options = &sweep->options;
    return options->progress != NULL && options->progress(options->user, done, sweep->count) != 0;
}

/* Inside a worker, its number and the outer task's cancel are what a nested task should see. */
struct yoke_task yk_serial_task(const void *context, struct yoke_cancel *token)
{
    const struct yoke_task *const outer = yk_task_own();
    struct yoke_task task = {.context = context};
    task.place.token = token;
    if (outer != NULL) {
        task.worker = outer->worker;
        task.slot = outer->slot;
        task.place.flag = outer->place.flag;
    }
    return task;
}

static int map_items(const struct yk_sweep *sweep, struct yoke_task *task)
{
    const size_t step = yk_max(sweep->count / PROGRESS_STEPS, 1);
    size_t look_at = yk_min(step, sweep->count);
    const unsigned char *in = sweep->in;
    unsigned char *out = sweep->out;
    int rc = 0;
    for (size_t i = 0; i < sweep->count; i++) {
        if (is_cancelled(task)) {
            return cancel_rest(sweep, i, rc, -ECANCELED);
        }
        task->item = i;
        task->deadline_ns = yk_serial_deadline(sweep->options.timeout_ns);
        const int32_t code = yk_task_call(task, sweep->fn, in, out);
        if (code != 0 || sweep->options.outcomes != NULL) {
            note(&sweep->options, code, i, &rc);
        }
        if (rc != 0 && sweep->options.fail_fast != 0) {
            return cancel_rest(sweep, i + 1, rc, is_cancelled(task) ? -ECANCELED : YOKE_ETASK);
        }
        if (i + 1 == look_at) {
            if (asked_to_stop(sweep, i + 1)) {
                return cancel_rest(sweep, i + 1, rc, -ECANCELED);
            }
            look_at = yk_min(look_at + step, sweep->count);
        }
        in = yk_next_item(in, sweep->in_bytes);
        out = yk_next_room(out, sweep->out_bytes);
    }
    return rc;
}

static int map(const struct yk_sweep *sweep)
{
    struct yoke_task task = yk_serial_task(sweep->options.context, sweep->token);
    yk_task_enter(&task);
    const int rc = map_items(sweep, &task);
    yk_task_leave(&task);
    if (rc == -ECANCELED) {
        (void)yk_cancel_here(); /* the task around this one knows, if it was its cancel */
    }
    return rc;
}

static int range(const struct yk_sweep *sweep, size_t begin, size_t end, void *accumulator)
{
    struct yoke_task task = yk_serial_task(sweep->options.context, sweep->token);
    if (is_cancelled(&task)) {
        return cancel_rest(sweep, begin, 0, -ECANCELED);
    }
    task.item = begin;
    task.deadline_ns = yk_serial_deadline(sweep->options.timeout_ns);
    yk_task_enter(&task);
    const int32_t code = yk_task_conclude(&task, sweep->range_fn(&task, begin, end, accumulator));
    yk_task_leave(&task);
    yoke_outcome outcome = yk_outcome_of(code);
    outcome.attempts = 1;
    outcome.item = begin;
    int rc = outcome.kind == YOKE_OK ? 0 : YOKE_ETASK;
    if (rc != 0 && sweep->options.failure != NULL) {
        *sweep->options.failure = outcome;
    }
    if (rc != 0 && is_cancelled(&task)) {
        (void)yk_cancel_here();
        return -ECANCELED;
    }
    return asked_to_stop(sweep, end) ? -ECANCELED : rc;
}

/* One part, unless the cut must be the same everywhere. */
static int reduce_parts(const struct yk_sweep *sweep, void *total, void *part)
{
    const size_t bytes = sweep->accumulator_bytes;
    int rc = 0;
    for (size_t begin = 0, count = 0; begin < sweep->count && rc == 0; begin += count) {
        count = sweep->options.deterministic != 0 ? yk_fixed_cut(sweep->count, bytes, begin)
                                                  : sweep->count;
        memcpy(part, sweep->accumulator, bytes);
        rc = range(sweep, begin, begin + count, part);
        if (rc == 0) {
            sweep->merge(total, part, sweep->options.user);
        }
    }
    return rc;
}

static int reduce(const struct yk_sweep *sweep)
{
    const size_t bytes = sweep->accumulator_bytes;
    void *const total = malloc(bytes);
    void *const part = malloc(bytes);
    int rc = -ENOMEM;
    if (total != NULL && part != NULL) {
        memcpy(total, sweep->accumulator, bytes);
        rc = reduce_parts(sweep, total, part);
    }
    if (rc == 0) {
        memcpy(sweep->accumulator, total, bytes);
    }
    free(total);
    free(part);
    return rc;
}

int yk_serial_sweep(const struct yk_sweep *sweep)
{
    if (sweep->count == 0) {
        return 0;
    }
    if (sweep->fn != NULL) {
        return map(sweep);
    }
    return sweep->merge != NULL ? reduce(sweep) : range(sweep, 0, sweep->count, NULL);
}
