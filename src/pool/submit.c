/* SPDX-License-Identifier: MIT
 * submit.c - handing tasks to a pool.   Room: pool.
 *
 * Most tasks are a function with an argument of a word or less and no options: they have a short
 * way of their own, under one lock. All others, and a full or closed pool, go the long way.
 */
#include "pool/exec.h"
#include "pool/job.h"

#define DATA_BYTES_MAX ((size_t)1 << 30)

/* Also until the token is set. */
static int await_event(struct yoke_pool *pool, uint32_t event, struct yoke_cancel *token)
{
    struct yk_cancel_watch watch = {0};
    if (yk_cancel_here()) {
        return -ECANCELED;
    }
    if (token != NULL &&
        !yk_cancel_watch_begin(&watch, token, &pool->ctl->event, pool->table.scope)) {
        return 0;
    }
    const int rc = yk_pool_await(pool, event, YOKE_FOREVER);
    yk_cancel_wait_end(&watch.wait);
    return rc;
}

static int await_room_locked(struct yoke_pool *pool, struct yoke_cancel *token)
    YK_REQUIRES(pool->lock)
{
    while (pool->closed == 0 && !yk_pool_has_room_locked(pool)) {
        yk_pool_collect_all_locked(pool);
        const uint32_t event = yk_pool_event(pool);
        if (yk_pool_has_room_locked(pool) || yk_pool_notify_all_locked(pool)) {
            continue;
        }
        yk_biased_unlock(&pool->lock);
        const int rc = await_event(pool, event, token);
        yk_biased_lock(&pool->lock);
        if (rc != 0) {
            return rc;
        }
        if (yk_cancel_seen(token)) {
            break; /* it needs no room */
        }
    }
    return pool->closed;
}

/* There was no room. Too deep in such calls, what is left in the backlog is for the next worker. */
static void help(struct yoke_pool *pool, yoke_job *job, bool left)
{
    const bool enters = yk_here_enter();
    if (enters || (left && !yk_posts_call_for_backlog(pool))) {
        (void)yk_unit_help(pool, &job->unit);
    }
    if (enters) {
        yk_here_leave();
    }
}

static int hand_in(struct yoke_pool *pool, yoke_job *job)
{
    const bool threads = pool->kind == YOKE_THREADS;
    const bool inside = threads && yk_pool_inside_task(pool);
    const bool in_task = inside || (threads && yk_threads_inside_task());
    yk_biased_lock(&pool->lock);
    /* A task must not wait for room that only it could make, or one that waits for room in its own
     * pool: it does the work itself. */
    const bool full = in_task && !yk_pool_has_room_locked(pool);
    int rc = in_task ? pool->closed : await_room_locked(pool, job->unit.token);
    if (inside && !pool->stopping) {
        rc = 0; /* a pool that lets its tasks finish lets them finish what they start */
    }
    if (rc == 0) {
        yk_unit_publish_locked(pool, &job->unit);
    }
    const bool left = job->unit.state == YK_UNIT_BACKLOG;
    yk_biased_unlock(&pool->lock);
    if (rc == 0 && full) {
        help(pool, job, left);
    }
    return rc;
}

static int check_submit(yoke_fn *fn, const void *in, size_t in_bytes, size_t out_bytes,
                        const yoke_options *options)
{
    const bool sound = fn != NULL && (in != NULL || in_bytes == 0) && in_bytes <= DATA_BYTES_MAX &&
                       out_bytes <= DATA_BYTES_MAX && options->context_bytes <= DATA_BYTES_MAX;
    return sound ? 0 : -EINVAL;
}

/* The caller checked nothing yet. */
static bool is_plain(const yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                     size_t out_bytes)
{
    /* The token first: in a task of a process worker the pool may not be there to be read. */
    return yk_cancel_top == NULL && pool != NULL && fn != NULL &&
           yk_job_is_small(in_bytes, out_bytes) && (in != NULL || in_bytes == 0) &&
           yk_pool_is_ours(pool) && yk_pool_knows(pool, (uintptr_t)fn);
}

/* What yk_unit_place_locked does; there is room. */
static inline void place_plain_locked(yoke_pool *pool, yoke_job *job) YK_REQUIRES(pool->lock)
{
    const uint32_t index = yk_slot_of(&pool->table, pool->tail);
    pool->in_flight++;
    if (YK_UNLIKELY(pool->units[index] != NULL)) {
        (void)yk_unit_place_locked(pool, &job->unit);
        return;
    }
    struct yk_slot *const slot = yk_pool_slot(pool, index);
    slot->code = 0;
    yk_job_fill_small(job, slot);
    /* relaxed: the word publishes it. */
    atomic_store_explicit(&slot->notify, pool->watchers != 0, memory_order_relaxed);
    yk_slot_ready_locked(pool, &job->unit, slot, index);
}

/* Up to count jobs, in order, as long as there are jobs and room; how many. */
static size_t submit_plain(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                           size_t out_bytes, size_t count, yoke_job **jobs)
{
    const unsigned char *at = in;
    size_t made = 0;
    uintptr_t name = (uintptr_t)fn;
    if (YK_UNLIKELY(pool->exec != NULL) && !yk_exec_find(pool, &name)) {
        return 0;
    }
    yk_biased_lock(&pool->lock);
    for (; made < count && YK_LIKELY(pool->closed == 0 && yk_pool_has_room_locked(pool)); made++) {
        yoke_job *const job = yk_job_reuse_locked(pool);
        if (YK_UNLIKELY(job == NULL)) {
            break;
        }
        yk_job_begin(job, (yoke_fn *)yk_code_at(name), at, in_bytes, out_bytes);
        place_plain_locked(pool, job);
        jobs[made] = job;
        at = yk_next_item(at, in_bytes);
    }
    if (YK_LIKELY(made > 0)) {
        yk_pool_tell_locked(pool, made);
    }
    yk_biased_unlock(&pool->lock);
    return made;
}

static void drop(yoke_pool *pool, yoke_job *job)
{
    yk_cancel_drop(job->unit.token);
    yk_biased_lock(&pool->lock);
    (void)yk_job_drop_locked(pool, job);
    yk_biased_unlock(&pool->lock);
}

static int make_job(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes, size_t out_bytes,
                    const yoke_options *options, yoke_job **made)
{
    yoke_job *const job = yk_job_make(pool);
    if (job == NULL) {
        return -ENOMEM;
    }
    yk_job_begin(job, fn, in, in_bytes, out_bytes);
    job->context = options->context;
    job->retries = options->retries;
    job->unit.timeout_ns = options->timeout_ns;
    job->unit.token = yk_cancel_of(options);
    yk_cancel_keep(job->unit.token);
    const bool small = yk_job_is_small(in_bytes, out_bytes) && options->context_bytes == 0 &&
                       options->timeout_ns == 0;
    const int rc = small ? 0 : yk_job_record(job, in, in_bytes, options);
    if (rc != 0) {
        drop(pool, job);
        return rc;
    }
    *made = job;
    return 0;
}

static int submit_any(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                      size_t out_bytes, const yoke_options *options, yoke_job **job)
{
    yoke_options settings;
    int rc = job == NULL ? -EINVAL : yk_pool_check(pool);
    rc = rc == 0 ? yk_options_read(&settings, options) : rc;
    rc = rc == 0 ? check_submit(fn, in, in_bytes, out_bytes, &settings) : rc;
    uintptr_t name = (uintptr_t)fn;
    rc = rc == 0 ? yk_pool_translate(pool, &name) : rc;
    yoke_job *made = NULL;
    rc = rc == 0 ? make_job(pool, (yoke_fn *)yk_code_at(name), in, in_bytes, out_bytes, &settings,
                            &made)
                 : rc;
    if (rc != 0) {
        return rc;
    }
    if (pool->kind == YOKE_SERIAL) {
        yk_biased_lock(&pool->lock);
        pool->tasks++;
        yk_biased_unlock(&pool->lock);
        yk_job_run(made);
    } else {
        rc = hand_in(pool, made);
    }
    if (rc != 0) {
        drop(pool, made);
        return rc;
    }
    *job = made;
    return 0;
}

int yoke_submit(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes, size_t out_bytes,
                const yoke_options *options, yoke_job **job)
{
    if (YK_LIKELY(options == NULL && job != NULL && is_plain(pool, fn, in, in_bytes, out_bytes)) &&
        YK_LIKELY(submit_plain(pool, fn, in, in_bytes, out_bytes, 1, job) == 1)) {
        return 0;
    }
    return submit_any(pool, fn, in, in_bytes, out_bytes, options, job);
}

static const void *item_at(const void *items, size_t bytes, size_t index)
{
    return items != NULL ? (const unsigned char *)items + index * bytes : NULL;
}

int yoke_submit_many(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                     size_t out_bytes, size_t count, const yoke_options *options, yoke_job **jobs)
{
    size_t total = 0;
    if (count != 0 && (jobs == NULL || yk_mul_overflows(count, in_bytes, &total))) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        jobs[i] = NULL;
    }
    int rc = count == 0 ? yk_pool_check(pool) : 0;
    for (size_t i = 0; i < count && rc == 0;) {
        const void *const at = item_at(in, in_bytes, i);
        if (options == NULL && is_plain(pool, fn, at, in_bytes, out_bytes)) {
            i += submit_plain(pool, fn, at, in_bytes, out_bytes, count - i, &jobs[i]);
        }
        /* The first of a function, one with options, or one that has to wait for room. */
        if (i < count && jobs[i] == NULL) {
            rc = submit_any(pool, fn, item_at(in, in_bytes, i), in_bytes, out_bytes, options,
                            &jobs[i]);
            i += rc == 0;
        }
    }
    return rc;
}
