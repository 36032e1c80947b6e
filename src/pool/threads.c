/* SPDX-License-Identifier: MIT
 * threads.c - the engine of thread pools: start, grow while tasks queue, shrink when idle.
 *
 * A member is alive from its start until it says under the pool's lock that it ends. A thread that
 * ends joins the one that ended before it, so at most one is left to be joined, at the end. A thread that ends of idleness looks at the table
 * once more under the lock, since a submitter may have counted on it.   Room: pool.
 */
#include <errno.h>

#include "pool/deque.h"
#include "pool/governor.h"
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

bool yk_threads_is_worker(const struct yoke_pool *pool)
{
    return self != NULL && self->pool == pool &&
           self->worker.ctl->generation == yk_process_generation();
}

/* No member any more. Whoever counted on us finds us gone, or we see his task. */
static void leave_locked(struct yoke_pool *pool, struct yk_member *member) YK_REQUIRES(pool->lock)
{
    struct yk_line *const line = member->worker.line;
    member->alive = false;
    member->active = false;
    pool->alive--;
    pool->active--;
    if (yk_line_state_of(line) != YK_LINE_REFUSED) {
        state_set(line, YK_LINE_UNUSED);
        pool->lowest_free = (uint32_t)yk_min(pool->lowest_free, line->index);
    }
    const bool more = !yk_table_looks_empty(&pool->table) || yk_posts_queued(pool->ctl, 1) != 0;
    if (pool->governor != NULL && more) {
        yk_governor_queued_locked(pool, 1);
    } else if (more) {
        (void)yk_threads_grow_locked(pool); /* an embedder's main loop returned */
    }
    if (pool->stopping && pool->alive == 0) {
        yk_table_announce(&pool->table);
    }
}

static void watch_me(struct yk_line *line)
{
    const struct yk_thread_watch watch = yk_thread_watch_self();
    const uint64_t bits = (uint64_t)(uint32_t)watch.id << 32 | (uint32_t)watch.clock;
    /* relaxed: our state, which says that we run, publishes it. */
    atomic_store_explicit(&line->watch, bits, memory_order_relaxed);
    yk_cpus_busy(1);
}

static void thread_main(void *arg)
{
    struct yk_member *const member = arg;
    struct yoke_pool *const pool = member->pool;
    self = member;
    yk_team_adopt(pool->team, &member->worker);
    watch_me(member->worker.line);
    yk_worker_live(&member->worker);
    if (self == NULL) {
        return; /* the pool is not, or no longer, the one we worked for */
    }
    yk_cpus_busy(-1);
    yk_biased_lock(&pool->lock);
    leave_locked(pool, member);
    const bool joins = pool->has_ended;
    const yk_thread_id before = pool->ended;
    pool->has_ended = true;
    pool->ended = member->thread;
    yk_biased_unlock(&pool->lock);
    if (joins) {
        yk_thread_join(before);
    }
}

static int start_locked(struct yoke_pool *pool, uint32_t index) YK_REQUIRES(pool->lock)
{
    struct yk_member *const member = &pool->members[index];
    struct yk_line *const line = &pool->table.lines[index];
    member->pool = pool;
    member->owner = YK_OWNER_PROGRAM + 1 + index;
    line->ctl = pool->ctl;
    line->index = index;
    line->owner = member->owner;
    member->worker = yk_worker_of(&pool->ctl->table, line); /* not the pool's: see reborn.c */
    state_set(line, YK_LINE_STARTING_ACTIVE);
    const bool plain = index < pool->config.workers || pool->config.hooks != NULL;
    const struct yk_thread_setup setup = {.name = "yoke-worker",
                                          .stack_bytes = plain ? 0 : YK_EXTRA_STACK_BYTES};
    const int rc = yk_thread_start(&setup, thread_main, member, &member->thread);
    if (rc != 0) {
        state_set(line, YK_LINE_UNUSED);
        return rc;
    }
    member->alive = true;
    member->active = true;
    pool->alive++;
    pool->active++;
    pool->started++;
    /* relaxed: the governor may see it late; changes under the lock only. */
    const uint32_t top = atomic_load_explicit(&pool->lines_top, memory_order_relaxed);
    /* relaxed: as above. */
    atomic_store_explicit(&pool->lines_top, (uint32_t)yk_max(top, index + 1), memory_order_relaxed);
    return 0;
}

bool yk_threads_grow_locked(struct yoke_pool *pool)
{
    if (pool->alive >= pool->config.workers_max || pool->stopping) {
        return false;
    }
    for (uint32_t i = pool->lowest_free; i < pool->table.line_count; i++) {
        if (!pool->members[i].alive && yk_line_state_of(&pool->table.lines[i]) == YK_LINE_UNUSED) {
            pool->lowest_free = i;
            /* No thread to be had now: those there are will do the work. */
            return start_locked(pool, i) == 0;
        }
    }
    return false;
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
    yk_governor_stop(pool);
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
    if (pool->has_ended) {
        pool->has_ended = false;
        yk_thread_join(pool->ended); /* which joined the one before it */
    }
    return true;
}
