/* SPDX-License-Identifier: MIT
 * job.h - a submitted task, as the program keeps it; for job.c, submit.c and wait.c.   Room: pool.
 */
#ifndef YK_JOB_H
#define YK_JOB_H

#include <errno.h>

#include "pool/dispatch.h"

struct yoke_job {
    struct yk_unit unit; /* first: a unit of ours is a job */
    /* read-only after submit */
    struct yoke_pool *pool;
    uint64_t generation; /* of the process that made it; a pool may be another's by now */
    yoke_fn *fn;
    const void *context;
    size_t out_bytes;
    struct yk_call *record; /* or NULL: in and out are in the slot */
    void *record_out;
    unsigned retries;
    /* under the pool's lock */
    unsigned attempts;
    bool cancelled;
    bool released;
    _Atomic bool ended; /* SYNC(job-ended): the outcome is final */
    yoke_outcome outcome;
    void *result; /* a block of the task's making, to be given back; or NULL */
    const void *result_at;
    size_t result_bytes;
    _Alignas(16) unsigned char small_out[YK_INLINE_OUT_MAX];
    _Alignas(8) unsigned char small_in[YK_INLINE_IN_MAX];
    struct yoke_job *next; /* in the pool's list of jobs to use again */
};

static inline bool yk_job_ended(const yoke_job *job)
{
    /* SYNC(job-ended) acquire: sees the outcome and the result. */
    return atomic_load_explicit(&job->ended, memory_order_acquire);
}

static inline int yk_job_check(const yoke_job *job)
{
    if (job == NULL) {
        return -EINVAL;
    }
    return YK_LIKELY(job->generation == yk_process_generation()) ? 0 : -ECHILD;
}

/* It is of that pool, as the pool is now: both were checked, or one was and is compared. */
static inline bool yk_job_is_of(const yoke_job *job, const struct yoke_pool *pool)
{
    return job->pool == pool && job->generation == yk_process_generation();
}

static inline bool yk_job_is_small(size_t in_bytes, size_t out_bytes)
{
    return in_bytes <= YK_INLINE_IN_MAX && out_bytes <= YK_INLINE_OUT_MAX;
}

/* A job to fill in, from the pool's list; NULL: the list is empty. */
static inline yoke_job *yk_job_reuse_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    yoke_job *const job = pool->spare_jobs;
    if (job != NULL) {
        pool->spare_jobs = job->next;
        pool->spare_job_count--;
        pool->jobs_out++;
    }
    return job;
}

/* The same, or a new one; NULL: no memory. Not locked. */
yoke_job *yk_job_make(struct yoke_pool *pool);
/* It was never published, or has ended and is released. The pool, if it has to be freed now that
 * its last job is gone; else NULL. */
struct yoke_pool *yk_job_drop_locked(struct yoke_pool *pool, yoke_job *job) YK_REQUIRES(pool->lock);
/* Set up for one task with nothing but a function and a small argument. */
static inline void yk_job_begin(yoke_job *job, yoke_fn *fn, const void *in, size_t in_bytes,
                                size_t out_bytes)
{
    job->unit.timeout_ns = 0;
    job->unit.state = YK_UNIT_IDLE;
    job->unit.token = NULL;
    job->unit.running = NULL;
    job->unit.aside = NULL;
    job->fn = fn;
    job->context = NULL;
    job->out_bytes = out_bytes;
    job->record = NULL;
    job->retries = 0;
    job->attempts = 0;
    job->cancelled = false;
    job->released = false;
    job->result = NULL;
    /* relaxed: nobody else knows the job yet. */
    atomic_store_explicit(&job->ended, false, memory_order_relaxed);
    if (YK_LIKELY(in_bytes == YK_INLINE_IN_MAX)) {
        memcpy(job->small_in, in, YK_INLINE_IN_MAX);
    } else {
        memset(job->small_in, 0, sizeof job->small_in);
        if (in_bytes != 0 && in_bytes < YK_INLINE_IN_MAX) {
            memcpy(job->small_in, in, in_bytes);
        }
    }
}

/* Into a slot, as if it had no record. */
static inline void yk_job_fill_small(const yoke_job *job, struct yk_slot *slot)
{
    slot->op = YK_OP_CALL;
    slot->flags = YK_FLAG_INLINE;
    slot->run.fn = job->fn;
    slot->context = job->context;
    slot->attempt = job->attempts;
    memcpy(slot->u.data, job->small_in, YK_INLINE_IN_MAX);
    memset(slot->u.data + YK_INLINE_IN_MAX, 0, YK_INLINE_OUT_MAX);
}

/* Collect it if it is DONE. The short way is for the plain ones: all is in the slot, and nobody
 * sleeps for it. It does what yk_unit_poll_locked and the job's `ended` would do. */
static inline void yk_job_poll_locked(struct yoke_pool *pool, yoke_job *job) YK_REQUIRES(pool->lock)
{
    struct yk_unit *const unit = &job->unit;
    if (!yk_unit_is_done_locked(pool, unit)) {
        return;
    }
    struct yk_slot *const slot = yk_pool_slot(pool, yk_unit_slot(unit));
    const bool plain = slot->flags == YK_FLAG_INLINE && job->record == NULL && !job->released &&
                       !yk_slot_needs_announce(slot) && pool->backlog == NULL &&
                       unit->token == NULL;
    if (YK_UNLIKELY(!plain)) {
        yk_unit_poll_locked(pool, unit);
        return;
    }
    yk_slot_send_for_next_locked(pool, unit);
    job->attempts++;
    job->outcome = yk_outcome_of(slot->code);
    job->outcome.attempts = job->attempts;
    memcpy(job->small_out, slot->u.data + YK_INLINE_IN_MAX, YK_INLINE_OUT_MAX);
    yk_slot_release_locked(pool, unit);
    unit->state = YK_UNIT_ENDED;
    pool->in_flight--;
    pool->tasks++;
    pool->barren = 0;
    /* SYNC(job-ended) release: publishes the outcome and the result. */
    atomic_store_explicit(&job->ended, true, memory_order_release);
}

/* Copy what does not fit into the slot to where the workers see it: 0 or -ENOMEM. */
int yk_job_record(yoke_job *job, const void *in, size_t in_bytes, const yoke_options *options);
/* True if it has ended. Else a wake was asked for, and *event is what to sleep on. */
bool yk_job_look(yoke_job *job, uint32_t *event);
/* Run it here, now; a serial pool's way. */
void yk_job_run(yoke_job *job);

#endif
