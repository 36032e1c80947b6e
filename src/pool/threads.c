/* SPDX-License-Identifier: MIT
 * threads.c - the engine of thread pools: start, grow while tasks queue, shrink when idle.
 *
 * A member is alive from its start until it says under the pool's lock that it ends; it is joined
 * by whoever needs its line next, or at the end. A thread that ends of idleness looks at the table
 * once more under the lock, since a submitter may have counted on it.   Room: pool.
 */
#include <errno.h>

#include "pool/deque.h"
#include "pool/pool_private.h"

static void state_set(struct yk_line *line, enum yk_line_state state)
{
    /* SYNC(line-state) release: what was done before the order is seen by the worker. */
    atomic_store_explicit(&line->state, state, memory_order_release);
}

/* The worker that this thread is. */
static _Thread_local struct yk_member *self;

/* A task forked, and this is the child's one thread: it is no worker here. Should the task return,
 * the thread ends, and the process with it. */
static void resign_in_child(void)
{
    if (self != NULL) {
        state_set(self->worker.line, YK_LINE_STOP);
        self = NULL;
    }
}

static void watch_forks(void)
{
    static _Atomic bool watched;
    /* relaxed: only who is first does it. */
    if (!atomic_exchange_explicit(&watched, true, memory_order_relaxed)) {
        yk_fork_watch(resign_in_child);
    }
}

bool yk_threads_is_starting(const struct yoke_pool *pool)
{
    return self != NULL && self->pool == pool &&
           yk_line_state_of(self->worker.line) == YK_LINE_STARTING_ACTIVE;
}

static void thread_main(void *arg)
{
    struct yk_member *const member = arg;
    struct yoke_pool *const pool = member->pool;
    self = member;
    yk_team_adopt(pool->team, &member->worker);
    yk_worker_live(&member->worker);
    if (self == NULL) {
        return; /* the pool is not, or no longer, the one we worked for */
    }
    yk_biased_lock(&pool->lock);
    member->alive = false;
    member->active = false;
    pool->alive--;
    pool->active--;
    if (yk_line_state_of(member->worker.line) != YK_LINE_REFUSED) {
        state_set(member->worker.line, YK_LINE_UNUSED);
    }
    if (!yk_table_looks_empty(&pool->table)) {
        yk_threads_grow_locked(pool);
    }
    yk_table_announce(&pool->table);
    yk_biased_unlock(&pool->lock);
}

/* The thread that had the line before has left the lock for good, or it is the calling one, which
 * makes room for its successor as the last thing it does. */
static void leave_behind(yk_thread_id thread)
{
    if (yk_thread_is_self(thread)) {
        yk_thread_detach(thread);
    } else {
        yk_thread_join(thread);
    }
}

static int start_locked(struct yoke_pool *pool, uint32_t index) YK_REQUIRES(pool->lock)
{
    struct yk_member *const member = &pool->members[index];
    if (member->joinable) {
        leave_behind(member->thread);
        member->joinable = false;
    }
    struct yk_line *const line = &pool->table.lines[index];
    member->pool = pool;
    member->owner = YK_OWNER_PROGRAM + 1 + index;
    line->ctl = pool->ctl;
    line->index = index;
    line->owner = member->owner;
    member->worker = yk_worker_of(&pool->ctl->table, line); /* not the pool's: see reborn.c */
    state_set(line, YK_LINE_STARTING_ACTIVE);
    const struct yk_thread_setup setup = {.name = "yoke-worker"};
    const int rc = yk_thread_start(&setup, thread_main, member, &member->thread);
    if (rc != 0) {
        state_set(line, YK_LINE_UNUSED);
        return rc;
    }
    member->joinable = true;
    member->alive = true;
    member->active = true;
    pool->alive++;
    pool->active++;
    pool->started++;
    return 0;
}

void yk_threads_grow_locked(struct yoke_pool *pool)
{
    if (pool->alive >= pool->config.workers_max || pool->stopping) {
        return;
    }
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (!pool->members[i].alive && yk_line_state_of(&pool->table.lines[i]) == YK_LINE_UNUSED) {
            /* No thread to be had now: those there are will do the work. */
            (void)start_locked(pool, i);
            return;
        }
    }
}

/* 0 once all first workers are ready; YOKE_EINIT if one refused. */
static int await_ready(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < pool->config.workers;) {
        const uint32_t event = yk_pool_event(pool);
        const enum yk_line_state state = yk_line_state_of(&pool->table.lines[i]);
        if (state == YK_LINE_REFUSED) {
            return YOKE_EINIT;
        }
        if (state != YK_LINE_STARTING_ACTIVE) {
            i++;
            continue;
        }
        (void)yk_futex_wait(&pool->ctl->event, event, YOKE_FOREVER, pool->table.scope);
    }
    return 0;
}

int yk_threads_start(struct yoke_pool *pool)
{
    int rc = 0;
    watch_forks();
    yk_biased_lock(&pool->lock);
    for (uint32_t i = 0; i < pool->config.workers && rc == 0; i++) {
        rc = start_locked(pool, i);
    }
    yk_biased_unlock(&pool->lock);
    rc = rc == 0 ? await_ready(pool) : rc;
    if (rc != 0) {
        (void)yk_threads_stop(pool, YOKE_FOREVER);
    }
    return rc;
}

static void tell_to_stop_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    pool->stopping = true;
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].alive) {
            yk_table_stop_line(&pool->table, &pool->table.lines[i]);
        }
    }
}

static bool all_ended(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    const bool ended = pool->alive == 0;
    yk_biased_unlock(&pool->lock);
    return ended;
}

bool yk_threads_stop(struct yoke_pool *pool, int64_t until_ns)
{
    yk_biased_lock(&pool->lock);
    tell_to_stop_locked(pool);
    yk_biased_unlock(&pool->lock);
    for (;;) {
        const uint32_t event = yk_pool_event(pool);
        if (all_ended(pool)) {
            break;
        }
        if (yk_clock_ns() >= until_ns) {
            return false;
        }
        (void)yk_futex_wait(&pool->ctl->event, event, until_ns, pool->table.scope);
    }
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].joinable) {
            yk_thread_join(pool->members[i].thread);
        }
    }
    return true;
}
