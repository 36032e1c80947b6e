/* SPDX-License-Identifier: MIT
 * pass.c - passes of small tasks through a pool of Yoke.
 *
 * Idea: what a user writes, and nothing more: submit, wait, result, release. The check of the
 * answer is part of the time, as it is in the passes of the references.
 */
#include "pass.h"

#include "harness.h"
#include "machine.h"

#include <string.h>

enum { DEPTH_MAX = 64, DEADLINE_MS = 20000 };

struct nap {
    int64_t woke_ns, end_ns;
    int64_t sleeps_before, sleeps_after; /* of the worker, in the task */
};

static yoke_pool *pool;
static int unpin_at_stop;

yoke_pool *pass_pool(void)
{
    return pool;
}

static int pin_worker(unsigned worker, void *user)
{
    (void)user;
    return worker == 0 ? bench_pin(1) : 0;
}

const char *pass_pool_start(int kind, unsigned workers, int pinned)
{
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = kind,
                                     .workers = workers,
                                     .worker_init = pinned ? pin_worker : NULL};
    pool = NULL;
    unpin_at_stop = pinned;
    int error = yoke_pool_create(&config, &pool);
    if (!error && pinned) {
        error = bench_pin(0);
    }
    return error ? bench_why("the pool", error) : NULL;
}

void pass_pool_stop(void)
{
    if (pool) {
        yoke_pool_destroy(pool, yoke_in_ms(1000));
    }
    if (unpin_at_stop) {
        bench_unpin();
    }
    pool = NULL;
}

int pass_add_one(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(uint64_t *)out = *(const uint64_t *)in + 1;
    return 0;
}

const char *pass_take(yoke_job *job, void *out, size_t bytes)
{
    yoke_outcome outcome;
    const void *result = NULL;
    size_t got = 0;
    const int error = yoke_job_result(job, &outcome, &result, &got);
    const int good = !error && outcome.kind == YOKE_OK && result && got == bytes;
    if (good) {
        memcpy(out, result, bytes);
    }
    yoke_job_release(job);
    return good ? NULL : "a task of Yoke did not end well";
}

static const char *add(uint64_t number, yoke_job **job)
{
    const int error =
        yoke_submit(pool, pass_add_one, &number, sizeof number, sizeof number, NULL, job);
    return error ? bench_why("yoke_submit", error) : NULL;
}

static const char *take_sum(yoke_job *job, uint64_t number)
{
    uint64_t answer = 0;
    const int error = yoke_wait(job, YOKE_FOREVER);
    const char *why =
        error ? bench_why("yoke_wait", error) : pass_take(job, &answer, sizeof answer);
    return why || answer == number + 1 ? why : "a task of Yoke gave a wrong answer";
}

static const char *trips(unsigned count)
{
    const char *why = NULL;
    for (unsigned i = 0; i < count && !why; i++) {
        yoke_job *job;
        why = add(i, &job);
        if (!why) {
            why = take_sum(job, i);
        }
    }
    return why;
}

const char *pass_round_trips(unsigned warm, unsigned count, double *ns_each)
{
    const char *why = trips(warm);
    const int64_t start = bench_now_ns();
    if (!why) {
        why = trips(count);
    }
    *ns_each = (double)(bench_now_ns() - start) / count;
    return why;
}

static const char *stream(unsigned depth, unsigned count)
{
    yoke_job *jobs[DEPTH_MAX];
    const char *why = NULL;
    for (unsigned i = 0; i < count + depth && !why; i++) {
        if (i >= depth) {
            why = take_sum(jobs[i % depth], i - depth);
        }
        if (i < count && !why) {
            why = add(i, &jobs[i % depth]);
        }
    }
    return why;
}

const char *pass_window(unsigned depth, unsigned warm, unsigned count, double *ns_each)
{
    const char *why =
        depth > 0 && depth <= DEPTH_MAX ? stream(depth, warm) : "the window is too deep";
    const int64_t start = bench_now_ns();
    if (!why) {
        why = stream(depth, count);
    }
    *ns_each = (double)(bench_now_ns() - start) / count;
    return why;
}

static const char *take_batch(yoke_job **jobs, unsigned count, uint64_t first)
{
    const char *why = NULL;
    const int error = yoke_wait_all(jobs, count, YOKE_FOREVER);
    for (unsigned i = 0; i < count && !error && !why; i++) {
        yoke_outcome outcome;
        const void *result = NULL;
        const int wrong = yoke_job_result(jobs[i], &outcome, &result, NULL);
        const int good = !wrong && outcome.kind == YOKE_OK && result;
        why = good && *(const uint64_t *)result == first + i + 1 ? NULL : "a wrong answer";
    }
    yoke_job_release_all(jobs, count);
    return error ? bench_why("yoke_wait_all", error) : why;
}

static const char *add_batch(yoke_job **jobs, unsigned count, uint64_t first)
{
    uint64_t numbers[DEPTH_MAX];
    for (unsigned i = 0; i < count; i++) {
        numbers[i] = first + i;
    }
    const int error = yoke_submit_many(pool, pass_add_one, numbers, sizeof *numbers,
                                       sizeof *numbers, count, NULL, jobs);
    return error ? bench_why("yoke_submit_many", error) : NULL;
}

static const char *stream_batches(unsigned depth, unsigned batch, unsigned count)
{
    yoke_job *jobs[DEPTH_MAX];
    const char *why = NULL;
    for (unsigned i = 0; i < count + depth && !why; i += batch) {
        yoke_job **const at = &jobs[i % depth];
        why = i >= depth ? take_batch(at, batch, i - depth) : NULL;
        if (i < count && !why) {
            why = add_batch(at, batch, i);
        }
    }
    return why;
}

const char *pass_window_batches(unsigned depth, unsigned batch, unsigned warm, unsigned count,
                                double *ns_each)
{
    const int fits = depth > 0 && depth <= DEPTH_MAX && depth % batch == 0 && warm % batch == 0 &&
                     count % batch == 0;
    const char *why = fits ? stream_batches(depth, batch, warm) : "batches do not fit the window";
    const int64_t start = bench_now_ns();
    if (!why) {
        why = stream_batches(depth, batch, count);
    }
    *ns_each = (double)(bench_now_ns() - start) / count;
    return why;
}

static int nap(yoke_task *task, const void *in, void *out)
{
    struct nap *result = out;
    (void)task;
    result->woke_ns = bench_now_ns();
    result->sleeps_before = bench_sleeps();
    bench_nap_ns(*(const int64_t *)in);
    result->sleeps_after = bench_sleeps();
    result->end_ns = bench_now_ns();
    return 0;
}

static const char *sleeping_trip(int64_t nap_ns, struct nap *result, int64_t *took_ns)
{
    yoke_job *job;
    bench_nap_ns(nap_ns);
    const long sleeps = bench_sleeps();
    const int64_t start = bench_now_ns();
    int error = yoke_submit(pool, nap, &nap_ns, sizeof nap_ns, sizeof *result, NULL, &job);
    if (error) {
        return bench_why("yoke_submit", error);
    }
    error = yoke_wait(job, yoke_in_ms(DEADLINE_MS));
    const int64_t end = bench_now_ns();
    const char *why = pass_take(job, result, sizeof *result);
    if (why || error) {
        return error ? bench_why("yoke_wait", error) : why;
    }
    *took_ns = end - start - (result->end_ns - result->woke_ns);
    return bench_sleeps() > sleeps ? NULL : "the caller of Yoke did not sleep";
}

/* A trip on which somebody was kept from sleeping (the machine was busy) does not count; if that
 * is what mostly happens there is no figure. */
const char *pass_sleeping(unsigned count, int64_t nap_ns, double *us_each)
{
    int64_t total = 0, took = 0;
    struct nap now = {0}, before = {0};
    unsigned slept = 0;
    for (unsigned trips = 0; slept < count; trips++) {
        const char *why = sleeping_trip(nap_ns, &now, &took);
        if (why) {
            return why;
        }
        if (trips == 0 || now.sleeps_before > before.sleeps_after) {
            total += took;
            slept++;
        } else if (trips > 2 * count) {
            return "the worker of Yoke did not sleep";
        }
        before = now;
    }
    *us_each = (double)total / count / 1e3;
    return NULL;
}
