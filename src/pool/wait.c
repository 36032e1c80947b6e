/* SPDX-License-Identifier: MIT
 * wait.c - waiting for jobs: look, help, spin as long as that paid before, sleep.   Room: pool.
 */
#include "pool/job.h"

#define SEVERAL_POOLS_SLICE_NS 1000000LL

bool yk_job_look(yoke_job *job, uint32_t *event)
{
    if (yk_job_ended(job)) {
        return true;
    }
    struct yoke_pool *const pool = job->pool;
    yk_biased_lock(&pool->lock);
    yk_job_poll_locked(pool, job);
    if (!yk_job_ended(job)) {
        *event = yk_pool_event(pool);
        if (yk_unit_notify_locked(pool, &job->unit)) {
            yk_job_poll_locked(pool, job);
        }
    }
    yk_biased_unlock(&pool->lock);
    return yk_job_ended(job);
}

static bool look_for_end(yoke_job *job, uint32_t spins)
{
    for (uint32_t i = 0; i < spins && !yk_job_ended(job); i++) {
        if (yk_unit_looks_done(job->pool, &job->unit)) {
            return true;
        }
        yk_cpu_relax();
    }
    return yk_job_ended(job);
}

/* Looking is much faster than sleeping, where the task ends soon: whether it does is learnt. */
static bool spin_for(yoke_job *job)
{
    struct yoke_pool *const pool = job->pool;
    if (pool->spins_max == 0) {
        return false;
    }
    /* relaxed: a guess, shared by all who wait. */
    uint32_t learnt = atomic_load_explicit(&pool->spins, memory_order_relaxed);
    const uint32_t before = learnt;
    const bool found = look_for_end(job, yk_spins_now(&learnt, pool->spins_max));
    yk_spins_learn(&learnt, pool->spins_max, found);
    if (learnt != before) {
        /* relaxed: as above. */
        atomic_store_explicit(&pool->spins, learnt, memory_order_relaxed);
    }
    return found;
}

static bool collect(yoke_job *job)
{
    struct yoke_pool *const pool = job->pool;
    yk_biased_lock(&pool->lock);
    yk_job_poll_locked(pool, job);
    yk_biased_unlock(&pool->lock);
    return yk_job_ended(job);
}

static int wait_long(yoke_job *job, int64_t until_ns)
{
    if (until_ns > 0 && yk_cancel_here()) {
        return -ECANCELED;
    }
    const bool waits = until_ns > 0 && !yk_unit_help(job->pool, &job->unit);
    if (waits && spin_for(job) && collect(job)) {
        return 0;
    }
    while (!yk_job_ended(job)) {
        uint32_t event = 0;
        if (yk_job_look(job, &event)) {
            return 0;
        }
        if (until_ns <= 0) {
            return -ETIMEDOUT;
        }
        if (yk_unit_help(job->pool, &job->unit)) {
            continue;
        }
        const int waited = yk_pool_await(job->pool, event, until_ns);
        if (waited != 0 && !yk_job_look(job, &event)) {
            return waited;
        }
    }
    return 0;
}

int yoke_wait(yoke_job *job, int64_t until_ns)
{
    const int rc = yk_job_check(job);
    if (rc != 0 || yk_job_ended(job)) {
        return rc;
    }
    return yk_unit_looks_done(job->pool, &job->unit) && collect(job) ? 0 : wait_long(job, until_ns);
}

/* Collect what is DONE at the front, of one pool, under one lock; how many have ended. */
static size_t collect_some(yoke_job *const *jobs, size_t count)
{
    struct yoke_pool *const pool = jobs[0]->pool;
    size_t i = 0;
    yk_biased_lock(&pool->lock);
    for (; i < count && jobs[i] != NULL && yk_job_is_of(jobs[i], pool); i++) {
        yk_job_poll_locked(pool, jobs[i]);
        if (!yk_job_ended(jobs[i])) {
            break;
        }
    }
    yk_biased_unlock(&pool->lock);
    return i;
}

int yoke_wait_all(yoke_job *const *jobs, size_t count, int64_t until_ns)
{
    if (jobs == NULL && count != 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count;) {
        if (jobs[i] == NULL) {
            i++;
            continue;
        }
        const int rc = yk_job_check(jobs[i]);
        if (rc != 0) {
            return rc;
        }
        i += yk_unit_looks_done(jobs[i]->pool, &jobs[i]->unit) ? collect_some(&jobs[i], count - i)
                                                               : 0;
        if (i < count && jobs[i] != NULL) {
            const int waited = yoke_wait(jobs[i], until_ns);
            if (waited != 0) {
                return waited;
            }
            i++;
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
        if (yk_job_look(jobs[i], &now)) {
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
            rc = yk_job_check(jobs[i]);
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
        if (yk_cancel_here()) {
            return -ECANCELED;
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

/* --- any task of a pool ---------------------------------------------------------------------- */

/* How many have ended by now. If `ended` is all, a wake was asked for, and *event is what to sleep
 * on; tasks that come later are placed with one, since somebody watches. */
static uint64_t count_ended(struct yoke_pool *pool, uint64_t ended, uint32_t *event)
{
    yk_biased_lock(&pool->lock);
    yk_pool_collect_all_locked(pool);
    const uint64_t posts = yk_posts_count(pool).ended;
    *event = pool->kind != YOKE_SERIAL ? yk_pool_event(pool) : 0;
    if (pool->tasks + posts == ended && pool->watchers != 0 && yk_pool_notify_all_locked(pool)) {
        yk_pool_collect_all_locked(pool);
    }
    const uint64_t now = pool->tasks + posts;
    yk_biased_unlock(&pool->lock);
    return now;
}

static void watch(struct yoke_pool *pool, unsigned change)
{
    yk_biased_lock(&pool->lock);
    pool->watchers += change;
    yk_biased_unlock(&pool->lock);
}

static int await_end(struct yoke_pool *pool, uint64_t before, int64_t until_ns, uint64_t *ended)
{
    for (int rc = 0;;) {
        uint32_t event = 0;
        *ended = count_ended(pool, before, &event);
        if (*ended != before || rc != 0) {
            return *ended != before ? 0 : rc;
        }
        rc = yk_pool_await(pool, event, until_ns);
    }
}

int yoke_pool_await(yoke_pool *pool, uint64_t *ended, int64_t until_ns)
{
    int rc = ended == NULL ? -EINVAL : yk_pool_check(pool);
    if (rc != 0) {
        return rc;
    }
    const uint64_t before = *ended;
    uint32_t event = 0;
    *ended = count_ended(pool, before, &event);
    if (*ended != before || until_ns <= 0 || pool->kind == YOKE_SERIAL) {
        return *ended != before ? 0 : -ETIMEDOUT;
    }
    struct yk_posts *const posts = yk_posts_drain_begin(pool);
    watch(pool, 1);
    rc = await_end(pool, before, until_ns, ended);
    watch(pool, -1U);
    yk_posts_drain_end(posts);
    return rc;
}
