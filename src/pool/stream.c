/* SPDX-License-Identifier: MIT
 * stream.c - a stream: what the call accepts, and the stream that runs in the caller.   Room: pool.
 *
 * On a serial pool, and inside a process worker, each item is asked for, run and delivered in
 * place. stream_run.c runs a stream on workers.
 */
#include <stdlib.h>

#include "pool/stream.h"
#include <yoke/thread.h>

#define ITEM_BYTES_MAX ((size_t)1 << 30)
#define ALIGN ((size_t)64)

void yk_tally_note_failure(struct yk_tally *tally, const yoke_outcome *outcome)
{
    if (!tally->failed || outcome->item < tally->failure.item) {
        tally->failure = *outcome;
    }
    tally->failed = true;
}

void yk_tally_report(struct yk_tally *tally)
{
    const yoke_options *const options = &tally->stream->options;
    if (options->progress != NULL && tally->rc == 0 &&
        options->progress(options->user, tally->ended, tally->given) != 0) {
        yk_tally_stop(tally, -ECANCELED);
    }
}

/* --- in the caller -------------------------------------------------------------------------- */

static void run_item(struct yk_tally *tally, const void *in, void *out)
{
    const struct yk_stream *const stream = tally->stream;
    const size_t item = tally->given - 1;
    struct yoke_task task = yk_serial_task(stream->options.context, tally->token);
    task.item = item;
    task.wants_result = true;
    task.keeps_result = true;
    task.deadline_ns = yk_serial_deadline(stream->options.timeout_ns);
    yk_task_enter(&task);
    yoke_outcome outcome = yk_outcome_of(yk_task_call(&task, stream->fn, in, out));
    yk_task_leave(&task);
    outcome.attempts = 1;
    outcome.item = item;
    tally->ended++;
    const bool has_result = outcome.kind == YOKE_OK || outcome.kind == YOKE_FAILED;
    if (has_result && task.result != NULL) {
        yk_tally_deliver(tally, &outcome, in, task.result, task.result_bytes);
    } else {
        const size_t out_bytes = has_result ? stream->config.out_bytes : 0;
        yk_tally_deliver(tally, &outcome, in, out_bytes != 0 ? out : NULL, out_bytes);
    }
    free(task.result);
}

static void pause_a_moment(struct yk_tally *tally)
{
    const int rc = yoke_sleep_until(yk_clock_ns() + YK_STREAM_ASK_NS);
    if (rc == -ECANCELED) {
        yk_tally_stop(tally, rc);
    } else if (rc == -EINTR) {
        yk_tally_report(tally);
    }
}

static void run_in_caller(struct yk_tally *tally, void *in, void *out)
{
    if (yk_cancel_here() || yk_cancel_seen(tally->token)) {
        yk_tally_stop(tally, -ECANCELED);
    }
    while (tally->rc == 0 && !tally->no_more) {
        const int got = yk_tally_ask(tally, in);
        if (got == 1) {
            run_item(tally, in, out);
            yk_tally_report(tally);
        } else if (got == -EAGAIN) {
            pause_a_moment(tally);
        }
        if (yk_cancel_here() || yk_cancel_seen(tally->token)) {
            yk_tally_stop(tally, -ECANCELED);
        }
    }
}

/* Room for one item; *room is NULL for none. */
static int make_room(size_t bytes, void **room)
{
    *room = bytes != 0 ? aligned_alloc(ALIGN, yk_round_up(bytes, ALIGN)) : NULL;
    if (bytes != 0 && *room == NULL) {
        return -ENOMEM;
    }
    if (bytes != 0) {
        memset(*room, 0, bytes);
    }
    return 0;
}

static void serial(struct yk_tally *tally)
{
    void *in = NULL;
    void *out = NULL;
    tally->rc = make_room(tally->stream->config.in_bytes, &in);
    if (tally->rc == 0) {
        tally->rc = make_room(tally->stream->config.out_bytes, &out);
    }
    run_in_caller(tally, in, out);
    free(in);
    free(out);
}

/* --- the call ------------------------------------------------------------------------------- */

static int read_settings(struct yk_stream *stream, const yoke_stream_config *config,
                         const yoke_options *options)
{
    if (stream->fn == NULL || config == NULL) {
        return -EINVAL;
    }
    int rc = yk_settings_read(&stream->config, sizeof stream->config, config);
    rc = rc == 0 ? yk_options_read(&stream->options, options) : rc;
    if (rc != 0) {
        return rc;
    }
    const bool sound = stream->config.next != NULL && stream->config.in_bytes <= ITEM_BYTES_MAX &&
                       stream->config.out_bytes <= ITEM_BYTES_MAX;
    return sound ? 0 : -EINVAL;
}

int yoke_map_stream(yoke_pool *pool, yoke_fn *fn, const yoke_stream_config *stream,
                    const yoke_options *options)
{
    struct yk_stream asked = {.fn = fn};
    uintptr_t name = (uintptr_t)fn;
    struct yk_tally tally = {.stream = &asked};
    int rc = pool == NULL ? -EINVAL : read_settings(&asked, stream, options);
    if (rc != 0) {
        return rc;
    }
    /* Inside a process worker the pool is not there: not even its kind may be read. */
    if (!yk_worker_role()) {
        rc = yk_pool_check(pool);
        rc = rc == 0 ? yk_pool_translate(pool, &name) : rc;
        if (rc != 0) {
            return rc;
        }
        asked.pool = pool;
        asked.fn = (yoke_fn *)yk_code_at(name);
    }
    struct yk_cancel_call call;
    tally.rc = yk_cancel_call_begin(&call, &asked.options);
    tally.token = call.token;
    if (tally.rc == 0 && (asked.pool == NULL || pool->kind == YOKE_SERIAL)) {
        serial(&tally);
    } else if (tally.rc == 0) {
        yk_stream_run(&tally);
    }
    yk_cancel_call_end(&call);
    if (tally.failed && asked.options.failure != NULL) {
        *asked.options.failure = tally.failure;
    }
    return tally.rc != 0 ? tally.rc : tally.failed ? YOKE_ETASK : 0;
}
