/* SPDX-License-Identifier: MIT
 * job.c - one task at a time: submit, wait, result, cancel, release.   Room: pool.
 *
 * Small arguments and results live in the slot. Larger ones, a copied context or a timeout need a
 * record: one block that holds the yk_call, the context, in and out, in memory the workers see.
 * A job is freed by whoever comes last: its owner's release, or the end of its task.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "memory/heap.h"
#include "pool/pool_private.h"

#define DATA_BYTES_MAX ((size_t)1 << 30)
#define ALIGN ((size_t)16)
#define SEVERAL_POOLS_SLICE_NS 1000000LL

struct yoke_job {
    struct yk_unit unit; /* first: a unit of ours is a job */
    /* read-only after submit */
    struct yoke_pool *pool;
    yoke_fn *fn;
    const void *context;
    size_t in_bytes;
    size_t out_bytes;
    unsigned retries;
    _Alignas(16) unsigned char small_in[YK_INLINE_IN_MAX];
    struct yk_call *record; /* or NULL */
    void *record_out;
    /* under the pool's lock */
    unsigned attempts;
    bool cancelled;
    bool released;
    yoke_outcome outcome;
    void *result; /* a block of the task's making, to be given back; or NULL */
    const void *result_at;
    size_t result_bytes;
    _Alignas(16) unsigned char small_out[YK_INLINE_OUT_MAX];
    _Atomic bool ended; /* SYNC(job-ended): the outcome is final */
};

static bool job_ended(const yoke_job *job)
{
    /* SYNC(job-ended) acquire: sees the outcome and the result. */
    return atomic_load_explicit(&job->ended, memory_order_acquire);
}

static void free_job(yoke_job *job)
{
    yk_pool_free(job->pool, job->result);
    yk_pool_free(job->pool, job->record);
    free(job);
}

/* --- in and out of the table ---------------------------------------------------------------- */

static void fill(struct yk_unit *unit, struct yk_slot *slot)
{
    yoke_job *const job = (yoke_job *)unit;
    slot->op = YK_OP_CALL;
    slot->run.fn = job->fn;
    slot->context = job->context;
    slot->attempt = job->attempts;
    if (job->record != NULL) {
        slot->u.record.call = job->record;
        slot->flags = unit->timeout_ns != 0 ? YK_FLAG_TIMED : 0;
        return;
    }
    slot->flags = YK_FLAG_INLINE;
    memset(slot->u.data, 0, sizeof slot->u.data);
    memcpy(slot->u.data, job->small_in, sizeof job->small_in);
}

static bool may_try_again(const yoke_job *job, const struct yk_answer *answer)
{
    if (!answer->died || job->unit.verdict != 0 || job->pool->stopping || job->cancelled) {
        return false;
    }
    return answer->progress == 0 || job->attempts <= job->retries;
}

static void finish(yoke_job *job, const struct yk_answer *answer)
{
    job->outcome = answer->outcome;
    job->outcome.attempts = job->attempts;
    job->outcome.item = 0;
    job->result = answer->result;
    job->result_at = answer->result_at;
    job->result_bytes = answer->result_bytes;
    memcpy(job->small_out, answer->data, sizeof job->small_out);
    if (job->released) {
        struct yoke_pool *const pool = job->pool;
        free_job(job);
        yk_pool_job_gone(pool);
        return;
    }
    /* SYNC(job-ended) release: publishes the outcome and the result. */
    atomic_store_explicit(&job->ended, true, memory_order_release);
}

static bool ended(struct yk_unit *unit, const struct yk_answer *answer)
{
    yoke_job *const job = (yoke_job *)unit;
    job->attempts += answer->progress > 0;
    if (may_try_again(job, answer)) {
        if (job->record != NULL) {
            memset(job->record_out, 0, job->out_bytes);
            atomic_init(&job->record->started_ns, 0);
        }
        return true;
    }
    finish(job, answer);
    return false;
}

/* --- making --------------------------------------------------------------------------------- */

static int make_record(yoke_job *job, const void *in, const yoke_options *options)
{
    const size_t context_at = yk_round_up(sizeof(struct yk_call), ALIGN);
    const size_t in_at = context_at + yk_round_up(options->context_bytes, ALIGN);
    const size_t out_at = in_at + yk_round_up(job->in_bytes, ALIGN);
    unsigned char *const block = yk_pool_alloc(job->pool, out_at + job->out_bytes);
    if (block == NULL) {
        return -ENOMEM;
    }
    struct yk_call *const call = (struct yk_call *)block;
    call->timeout_ns = options->timeout_ns;
    atomic_init(&call->started_ns, 0);
    if (options->context_bytes != 0) {
        memcpy(block + context_at, options->context, options->context_bytes);
        job->context = block + context_at;
    }
    if (job->in_bytes != 0) {
        memcpy(block + in_at, in, job->in_bytes);
    }
    memset(block + out_at, 0, job->out_bytes);
    call->in = block + in_at;
    call->out = block + out_at;
    job->record = call;
    job->record_out = block + out_at;
    job->unit.started_ns = &call->started_ns;
    return 0;
}

static int make_job(struct yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                    size_t out_bytes, const yoke_options *options, yoke_job **made)
{
    /* Field by field: most tasks are small, and clearing what they do not use would cost as much
     * as the rest of this. malloc aligns to 16. */
    yoke_job *const job = malloc(sizeof *job);
    if (job == NULL) {
        return -ENOMEM;
    }
    yk_unit_init(&job->unit, fill, ended);
    job->unit.timeout_ns = options->timeout_ns;
    job->pool = pool;
    job->fn = fn;
    job->context = options->context;
    job->in_bytes = in_bytes;
    job->out_bytes = out_bytes;
    job->retries = options->retries;
    job->record = NULL;
    job->attempts = 0;
    job->cancelled = false;
    job->released = false;
    job->result = NULL;
    memset(job->small_in, 0, sizeof job->small_in);
    memset(job->small_out, 0, sizeof job->small_out);
    atomic_init(&job->ended, false);
    const bool small = in_bytes <= YK_INLINE_IN_MAX && out_bytes <= YK_INLINE_OUT_MAX &&
                       options->context_bytes == 0 && options->timeout_ns == 0;
    if (!small) {
        const int rc = make_record(job, in, options);
        if (rc != 0) {
            free(job);
            return rc;
        }
    } else if (in_bytes != 0) {
        memcpy(job->small_in, in, in_bytes);
    }
    *made = job;
    return 0;
}

/* --- submit --------------------------------------------------------------------------------- */

static void run_serially(yoke_job *job)
{
    struct yoke_task task = {.context = job->context, .wants_result = true};
    const void *in = job->small_in;
    void *out = job->small_out;
    if (job->record != NULL) {
        in = job->record->in;
        out = job->record_out;
    }
    if (job->unit.timeout_ns != 0) {
        task.deadline_ns = yk_after(yk_clock_ns(), job->unit.timeout_ns);
    }
    yk_task_enter(&task);
    job->outcome = yk_outcome_of(yk_task_call(&task, job->fn, in, out));
    yk_task_leave(&task);
    job->outcome.attempts = 1;
    job->result = task.result;
    job->result_at = task.result;
    job->result_bytes = task.result_bytes;
    /* SYNC(job-ended) release: publishes the outcome and the result. */
    atomic_store_explicit(&job->ended, true, memory_order_release);
}

/* Ask for a wake at every unit of the table; true if one is DONE already. */
static bool notify_all_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    bool done = false;
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        if (pool->units[i] != NULL) {
            done = yk_unit_notify_locked(pool, pool->units[i]) || done;
        }
    }
    return done;
}

static int await_room_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    while (pool->closed == 0 && !yk_pool_has_room_locked(pool)) {
        yk_pool_collect_all_locked(pool);
        const uint32_t event = yk_pool_event(pool);
        if (yk_pool_has_room_locked(pool) || notify_all_locked(pool)) {
            continue;
        }
        yk_biased_unlock(&pool->lock);
        const int rc = yk_pool_await(pool, event, YOKE_FOREVER);
        yk_biased_lock(&pool->lock);
        if (rc != 0) {
            return rc;
        }
    }
    return pool->closed;
}

static int hand_in(struct yoke_pool *pool, yoke_job *job)
{
    const bool inside = pool->kind == YOKE_THREADS && yk_pool_inside_task(pool);
    yk_biased_lock(&pool->lock);
    /* A task must not wait for room that only it could make: it does the work itself. */
    const bool full = inside && !yk_pool_has_room_locked(pool);
    int rc = inside ? pool->closed : await_room_locked(pool);
    if (inside && !pool->stopping) {
        rc = 0; /* a pool that lets its tasks finish lets them finish what they start */
    }
    if (rc == 0) {
        pool->jobs_made++;
        yk_unit_publish_locked(pool, &job->unit);
        yk_pool_collect_some_locked(pool);
    }
    yk_biased_unlock(&pool->lock);
    if (rc == 0 && full) {
        (void)yk_unit_help(pool, &job->unit);
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

int yoke_submit(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes, size_t out_bytes,
                const yoke_options *options, yoke_job **job)
{
    yoke_options settings;
    int rc = job == NULL ? -EINVAL : yk_pool_check(pool);
    rc = rc == 0 ? yk_options_read(&settings, options) : rc;
    rc = rc == 0 ? check_submit(fn, in, in_bytes, out_bytes, &settings) : rc;
    rc = rc == 0 ? yk_pool_holds(pool, (uintptr_t)fn) : rc;
    if (rc != 0) {
        return rc;
    }
    yoke_job *made = NULL;
    rc = make_job(pool, fn, in, in_bytes, out_bytes, &settings, &made);
    if (rc != 0) {
        return rc;
    }
    if (pool->kind == YOKE_SERIAL) {
        yk_biased_lock(&pool->lock);
        pool->jobs_made++;
        pool->tasks++;
        yk_biased_unlock(&pool->lock);
        run_serially(made);
    } else {
        rc = hand_in(pool, made);
        if (rc != 0) {
            free_job(made);
            return rc;
        }
    }
    *job = made;
    return 0;
}

/* --- waiting -------------------------------------------------------------------------------- */

static int check_job(const yoke_job *job)
{
    if (job == NULL) {
        return -EINVAL;
    }
    return job->pool->generation == yk_process_generation() ? 0 : -ECHILD;
}

/* Look at the job; true if it has ended. Else ask for a wake, and *event is what to sleep on. */
static bool look_at(yoke_job *job, uint32_t *event)
{
    if (job_ended(job)) {
        return true;
    }
    struct yoke_pool *const pool = job->pool;
    yk_biased_lock(&pool->lock);
    yk_unit_poll_locked(pool, &job->unit);
    if (!job_ended(job)) {
        *event = yk_pool_event(pool);
        if (yk_unit_notify_locked(pool, &job->unit)) {
            yk_unit_poll_locked(pool, &job->unit);
        }
    }
    yk_biased_unlock(&pool->lock);
    return job_ended(job);
}

/* Where a core is free for it, looking is much faster than sleeping. */
static bool spin_for(yoke_job *job)
{
    for (uint32_t i = 0; i < job->pool->waiter_spins && !job_ended(job); i++) {
        if (yk_unit_looks_done(job->pool, &job->unit)) {
            return true;
        }
        yk_cpu_relax();
    }
    return job_ended(job);
}

int yoke_wait(yoke_job *job, int64_t until_ns)
{
    const int rc = check_job(job);
    if (rc != 0) {
        return rc;
    }
    if (!job_ended(job) && (until_ns > 0 ? spin_for(job) : false)) {
        uint32_t unused = 0;
        if (look_at(job, &unused)) {
            return 0;
        }
    }
    while (!job_ended(job)) {
        uint32_t event = 0;
        if (look_at(job, &event)) {
            return 0;
        }
        if (until_ns <= 0) {
            return -ETIMEDOUT;
        }
        if (yk_unit_help(job->pool, &job->unit)) {
            continue;
        }
        const int waited = yk_pool_await(job->pool, event, until_ns);
        if (waited != 0 && !look_at(job, &event)) {
            return waited;
        }
    }
    return 0;
}

int yoke_wait_all(yoke_job *const *jobs, size_t count, int64_t until_ns)
{
    if (jobs == NULL && count != 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        const int rc = jobs[i] != NULL ? yoke_wait(jobs[i], until_ns) : 0;
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* The first job that has ended, or count; *event and *pool are what to sleep on, *several tells
 * that one pool is not all. */
static size_t find_ended(yoke_job *const *jobs, size_t count, struct yoke_pool **pool,
                         uint32_t *event, bool *several)
{
    *pool = NULL;
    *several = false;
    for (size_t i = 0; i < count; i++) {
        uint32_t now = 0;
        if (jobs[i] == NULL) {
            continue;
        }
        if (look_at(jobs[i], &now)) {
            return i;
        }
        if (*pool == NULL) {
            *pool = jobs[i]->pool;
            *event = now;
        }
        *several = *several || jobs[i]->pool != *pool;
    }
    return count;
}

static bool help_any(yoke_job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (jobs[i] != NULL && yk_unit_help(jobs[i]->pool, &jobs[i]->unit)) {
            return true;
        }
    }
    return false;
}

static int check_jobs(yoke_job *const *jobs, size_t count)
{
    int rc = -EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (jobs[i] != NULL) {
            rc = check_job(jobs[i]);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return rc;
}

int yoke_wait_any(yoke_job *const *jobs, size_t count, int64_t until_ns, size_t *index)
{
    const int rc = jobs == NULL || index == NULL ? -EINVAL : check_jobs(jobs, count);
    if (rc != 0) {
        return rc;
    }
    for (;;) {
        struct yoke_pool *pool = NULL;
        uint32_t event = 0;
        bool several = false;
        const size_t found = find_ended(jobs, count, &pool, &event, &several);
        if (found < count) {
            *index = found;
            return 0;
        }
        if (until_ns <= 0) {
            return -ETIMEDOUT;
        }
        if (help_any(jobs, count)) {
            continue;
        }
        const int64_t slice = yk_clock_ns() + SEVERAL_POOLS_SLICE_NS;
        const bool sliced = several && slice < until_ns;
        const int waited = yk_pool_await(pool, event, sliced ? slice : until_ns);
        if (waited != 0 && !(waited == -ETIMEDOUT && sliced) &&
            find_ended(jobs, count, &pool, &event, &several) == count) {
            return waited;
        }
    }
}

/* --- after ---------------------------------------------------------------------------------- */

int yoke_job_result(yoke_job *job, yoke_outcome *outcome, const void **out, size_t *bytes)
{
    const int rc = check_job(job);
    if (rc != 0) {
        return rc;
    }
    uint32_t unused = 0;
    if (!look_at(job, &unused)) {
        return -EAGAIN;
    }
    const bool has_result = job->outcome.kind == YOKE_OK || job->outcome.kind == YOKE_FAILED;
    const void *result = NULL;
    size_t result_bytes = 0;
    if (has_result && job->result != NULL) {
        result = job->result_at;
        result_bytes = job->result_bytes;
    } else if (has_result && job->out_bytes != 0) {
        result = job->record != NULL ? job->record_out : job->small_out;
        result_bytes = job->out_bytes;
    }
    if (outcome != NULL) {
        *outcome = job->outcome;
    }
    if (out != NULL) {
        *out = result;
    }
    if (bytes != NULL) {
        *bytes = result_bytes;
    }
    return 0;
}

static int cancel_locked(struct yoke_pool *pool, yoke_job *job, bool force) YK_REQUIRES(pool->lock)
{
    yk_unit_poll_locked(pool, &job->unit);
    if (job_ended(job)) {
        return -EALREADY;
    }
    job->cancelled = true;
    if (!yk_unit_revoke_locked(pool, &job->unit)) {
        yk_unit_cancel_locked(pool, &job->unit);
        if (force && pool->kind == YOKE_PROCESSES) {
            const uint32_t progress = yk_unit_progress_locked(pool, &job->unit);
            (void)yk_processes_doom_locked(pool, &job->unit, progress, YOKE_CANCELLED);
        }
    }
    return 0;
}

int yoke_job_cancel(yoke_job *job, int force)
{
    int rc = check_job(job);
    if (rc != 0) {
        return rc;
    }
    if (job_ended(job)) {
        return -EALREADY;
    }
    yk_biased_lock(&job->pool->lock);
    rc = cancel_locked(job->pool, job, force != 0);
    yk_biased_unlock(&job->pool->lock);
    return rc;
}

void yoke_job_release(yoke_job *job)
{
    if (job == NULL || check_job(job) != 0) {
        return;
    }
    struct yoke_pool *const pool = job->pool;
    bool over = job_ended(job);
    if (!over) {
        yk_biased_lock(&pool->lock);
        over = job_ended(job);
        job->released = true; /* if it is not over, its end frees it */
        yk_biased_unlock(&pool->lock);
    }
    if (over) {
        free_job(job);
        yk_pool_job_gone(pool);
    }
}
