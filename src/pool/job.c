/* SPDX-License-Identifier: MIT
 * job.c - the life of a job: made, filled in, ended, asked for its result, cancelled, released.
 *
 * Small arguments and results live in the slot. Larger ones, a copied context or a timeout need a
 * record: one block that holds the yk_call, the context, in and out, in memory the workers see.
 * A job goes back to the pool's list with whoever comes last: its owner's release, or the end of
 * its task. The pool itself is freed after its destroy with its last job.   Room: pool.
 */
#include <limits.h>
#include <stdlib.h>

#include "memory/heap.h"
#include "pool/job.h"

#define ALIGN ((size_t)16)
#if defined(YK_DEBUG)
static const unsigned spare_jobs_max; /* 0: so that tools that watch malloc see each job's end */
#else
static const unsigned spare_jobs_max = YK_TABLE_SLOTS;
#endif

/* --- in and out of the table ---------------------------------------------------------------- */

static void fill(struct yk_unit *unit, struct yk_slot *slot)
{
    yoke_job *const job = (yoke_job *)unit;
    yk_job_fill_small(job, slot);
    if (job->record != NULL) {
        slot->u.record.call = job->record;
        slot->flags = unit->timeout_ns != 0 ? YK_FLAG_TIMED : 0;
    }
}

static bool may_try_again(const yoke_job *job, const struct yk_answer *answer)
{
    if (job->unit.verdict != 0 || job->pool->stopping || job->cancelled) {
        return false;
    }
    return answer->progress == 0 || job->attempts <= job->retries;
}

/* Under the pool's lock, as all that dispatch.c calls by a pointer. */
static void finish(yoke_job *job, const struct yk_answer *answer) YK_NO_LOCK_ANALYSIS
{
    job->outcome = answer->outcome;
    job->outcome.attempts = job->attempts;
    job->outcome.item = 0;
    job->result = answer->result;
    job->result_at = answer->result_at;
    job->result_bytes = answer->result_bytes;
    memcpy(job->small_out, answer->data, sizeof job->small_out);
    /* SYNC(job-ended) release: publishes the outcome and the result. */
    atomic_store_explicit(&job->ended, true, memory_order_release);
    if (YK_UNLIKELY(job->released)) {
        (void)yk_job_drop_locked(job->pool, job); /* the pool is alive: it has tasks */
    }
}

static bool ended(struct yk_unit *unit, const struct yk_answer *answer)
{
    yoke_job *const job = (yoke_job *)unit;
    job->attempts += answer->progress > 0;
    if (YK_UNLIKELY(answer->died) && may_try_again(job, answer)) {
        if (job->record != NULL) {
            memset(job->record_out, 0, job->out_bytes);
            atomic_init(&job->record->started_ns, 0);
        }
        return true;
    }
    finish(job, answer);
    return false;
}

/* --- making and dropping -------------------------------------------------------------------- */

yoke_job *yk_job_make(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    yoke_job *job = yk_job_reuse_locked(pool);
    pool->jobs_out += job == NULL;
    yk_biased_unlock(&pool->lock);
    if (job != NULL) {
        return job;
    }
    job = aligned_alloc(YK_CACHE_LINE, yk_round_up(sizeof *job, YK_CACHE_LINE));
    if (job == NULL) {
        yk_biased_lock(&pool->lock);
        pool->jobs_out--;
        yk_biased_unlock(&pool->lock);
        return NULL;
    }
    yk_unit_init(&job->unit, fill, ended);
    job->pool = pool;
    job->generation = yk_process_generation();
    return job;
}

struct yoke_pool *yk_job_drop_locked(struct yoke_pool *pool, yoke_job *job)
{
    if (YK_UNLIKELY(job->result != NULL || job->record != NULL)) {
        yk_pool_free(pool, job->result);
        yk_pool_free(pool, job->record);
    }
    pool->jobs_out--;
    if (YK_LIKELY(pool->spare_job_count < spare_jobs_max && !pool->destroyed)) {
        job->next = pool->spare_jobs;
        pool->spare_jobs = job;
        pool->spare_job_count++;
    } else {
        free(job);
    }
    return pool->destroyed && pool->jobs_out == 0 ? pool : NULL;
}

void yk_jobs_free_spare_locked(struct yoke_pool *pool)
{
    while (pool->spare_jobs != NULL) {
        yoke_job *const job = pool->spare_jobs;
        pool->spare_jobs = job->next;
        free(job);
    }
    pool->spare_job_count = 0;
}

int yk_job_record(yoke_job *job, const void *in, size_t in_bytes, const yoke_options *options)
{
    const size_t context_at = yk_round_up(sizeof(struct yk_call), ALIGN);
    const size_t in_at = context_at + yk_round_up(options->context_bytes, ALIGN);
    const size_t out_at = in_at + yk_round_up(in_bytes, ALIGN);
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
    if (in_bytes != 0) {
        memcpy(block + in_at, in, in_bytes);
    }
    memset(block + out_at, 0, job->out_bytes);
    call->in = block + in_at;
    call->out = block + out_at;
    job->record = call;
    job->record_out = block + out_at;
    job->unit.started_ns = &call->started_ns;
    return 0;
}

void yk_job_run(yoke_job *job)
{
    struct yoke_task task = {.context = job->context, .wants_result = true};
    task.place.token = job->unit.token;
    const void *in = job->small_in;
    void *out = job->small_out;
    memset(job->small_out, 0, sizeof job->small_out); /* the job may have been another one's */
    if (job->record != NULL) {
        in = job->record->in;
        out = job->record_out;
    }
    if (job->unit.timeout_ns != 0) {
        task.deadline_ns = yk_after(yk_clock_ns(), job->unit.timeout_ns);
    }
    const bool begins = !yk_cancel_seen(job->unit.token);
    job->outcome = (yoke_outcome){.kind = YOKE_CANCELLED};
    if (begins) {
        yk_task_enter(&task);
        job->outcome = yk_outcome_of(yk_task_call(&task, job->fn, in, out));
        yk_task_leave(&task);
    }
    yk_cancel_drop(job->unit.token);
    job->outcome.attempts = begins;
    job->result = task.result;
    job->result_at = task.result;
    job->result_bytes = task.result_bytes;
    /* SYNC(job-ended) release: publishes the outcome and the result. */
    atomic_store_explicit(&job->ended, true, memory_order_release);
}

/* --- after ---------------------------------------------------------------------------------- */

int yoke_job_result(yoke_job *job, yoke_outcome *outcome, const void **out, size_t *bytes)
{
    const int rc = yk_job_check(job);
    if (rc != 0) {
        return rc;
    }
    uint32_t unused = 0;
    if (YK_UNLIKELY(!yk_job_ended(job)) && !yk_job_look(job, &unused)) {
        return -EAGAIN;
    }
    const bool has_result = job->outcome.kind == YOKE_OK || job->outcome.kind == YOKE_FAILED;
    const void *result = job->record != NULL ? job->record_out : job->small_out;
    size_t result_bytes = job->out_bytes;
    if (YK_UNLIKELY(job->result != NULL)) {
        result = job->result_at;
        result_bytes = job->result_bytes;
    }
    result_bytes = has_result ? result_bytes : 0;
    if (outcome != NULL) {
        *outcome = job->outcome;
    }
    if (out != NULL) {
        *out = result_bytes != 0 ? result : NULL;
    }
    if (bytes != NULL) {
        *bytes = result_bytes;
    }
    return 0;
}

static int cancel_locked(struct yoke_pool *pool, yoke_job *job, bool force) YK_REQUIRES(pool->lock)
{
    yk_unit_poll_locked(pool, &job->unit);
    if (yk_job_ended(job)) {
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
    int rc = yk_job_check(job);
    if (rc != 0) {
        return rc;
    }
    if (yk_job_ended(job)) {
        return -EALREADY;
    }
    yk_biased_lock(&job->pool->lock);
    rc = cancel_locked(job->pool, job, force != 0);
    yk_biased_unlock(&job->pool->lock);
    yk_cancel_flush(); /* what its task has handed in */
    return rc;
}

/* An end of its task that comes at the same time is seen under the lock. */
static struct yoke_pool *release_locked(struct yoke_pool *pool, yoke_job *job)
    YK_REQUIRES(pool->lock)
{
    if (YK_UNLIKELY(!yk_job_ended(job))) {
        job->released = true; /* its end drops it */
        return NULL;
    }
    return yk_job_drop_locked(pool, job);
}

void yoke_job_release(yoke_job *job)
{
    if (job == NULL || yk_job_check(job) != 0) {
        return;
    }
    struct yoke_pool *const pool = job->pool;
    yk_biased_lock(&pool->lock);
    struct yoke_pool *const last_of = release_locked(pool, job);
    yk_biased_unlock(&pool->lock);
    yk_pool_forget(last_of);
}

/* All those of one pool at the front, under one lock; how many were looked at. */
static size_t release_some(yoke_job *const *jobs, size_t count)
{
    struct yoke_pool *const pool = jobs[0]->pool;
    struct yoke_pool *last_of = NULL;
    size_t i = 0;
    yk_biased_lock(&pool->lock);
    for (; i < count && (jobs[i] == NULL || yk_job_is_of(jobs[i], pool)) && last_of == NULL; i++) {
        last_of = jobs[i] != NULL ? release_locked(pool, jobs[i]) : NULL;
    }
    yk_biased_unlock(&pool->lock);
    yk_pool_forget(last_of);
    return i;
}

void yoke_job_release_all(yoke_job *const *jobs, size_t count)
{
    for (size_t i = 0; jobs != NULL && i < count;) {
        const bool ours = jobs[i] != NULL && yk_job_check(jobs[i]) == 0;
        i += ours ? release_some(&jobs[i], count - i) : 1;
    }
}
