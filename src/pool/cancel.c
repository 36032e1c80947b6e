/* SPDX-License-Identifier: MIT
 * cancel.c - pools and cancel tokens: what has not begun ends, what runs is told.   Room: pool.
 *
 * A unit names the token it belongs to. Who sets one sweeps the pools that have such units
 * (sweep). A unit is looked at once more under the pool's lock when it is taken in, so it is found
 * by the one or the other. A task on a thread gets a token of its own the first time that one is
 * asked for: the cancel of its job, or of the map it is a part of, sets that, and so reaches what
 * the task waits for and what it started.
 */
#include "pool/cancel.h"

/* --- units ---------------------------------------------------------------------------------- */

static void sweep_table_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
        struct yk_unit *const unit = pool->units[i];
        if (unit != NULL && yk_cancel_seen(unit->token) && !yk_unit_revoke_locked(pool, unit)) {
            yk_unit_flag_locked(pool, unit);
        }
    }
}

static void sweep_backlog_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    for (struct yk_unit *unit = pool->backlog; unit != NULL;) {
        struct yk_unit *const next = unit->next;
        if (yk_cancel_seen(unit->token)) {
            (void)yk_unit_revoke_locked(pool, unit);
        }
        unit = next;
    }
}

static void sweep(struct yk_cancel_hook *hook)
{
    struct yoke_pool *const pool =
        (struct yoke_pool *)((char *)hook - offsetof(struct yoke_pool, cancel_hook));
    yk_biased_lock(&pool->lock);
    if (pool->with_token != 0) {
        sweep_table_locked(pool);
        sweep_backlog_locked(pool);
        yk_pool_drain_backlog_locked(pool);
    }
    yk_biased_unlock(&pool->lock);
}

bool yk_unit_belongs_locked(struct yoke_pool *pool, const struct yk_unit *unit)
{
    yk_cancel_hook_add(&pool->cancel_hook, sweep);
    pool->with_token++;
    return !yk_cancel_seen(unit->token);
}

/* --- tasks ---------------------------------------------------------------------------------- */

/* The pool whose slot this task runs in; NULL: it has none, or that was the pool of a parent of
 * this process. */
static struct yoke_pool *pool_of(const struct yoke_task *task)
{
    const struct yk_ctl *const ctl = task->worker->ctl;
    return ctl->generation == yk_process_generation() ? ctl->pool : NULL;
}

/* Its unit stays where it is until the task is DONE, which is later than this. */
static struct yk_unit *unit_of_locked(struct yoke_pool *pool, const struct yoke_task *task)
    YK_REQUIRES(pool->lock)
{
    struct yk_unit *const helped = task->worker->helped;
    return helped != NULL && helped->aside == task->slot
               ? helped
               : pool->units[task->slot - pool->table.slots];
}

struct yoke_cancel *yk_task_token(struct yk_cancel_place *place)
{
    struct yoke_task *const task =
        (struct yoke_task *)((char *)place - offsetof(struct yoke_task, place));
    struct yoke_pool *const pool = pool_of(task);
    if (pool == NULL) {
        return NULL;
    }
    yk_biased_lock(&pool->lock);
    struct yk_unit *const unit = unit_of_locked(pool, task);
    unit->running = yk_cancel_make(unit->token);
    task->made_token = unit->running;
    /* Memory is short: what the unit belongs to is better than nothing. */
    struct yoke_cancel *const token = unit->running != NULL ? unit->running : unit->token;
    /* relaxed: written under the lock. */
    if (task->made_token != NULL &&
        atomic_load_explicit(&task->slot->cancel, memory_order_relaxed) != 0) {
        yk_cancel_tell(task->made_token);
    }
    yk_biased_unlock(&pool->lock);
    return token;
}

void yk_task_token_drop(struct yoke_task *task)
{
    struct yoke_pool *const pool = pool_of(task);
    if (pool != NULL) {
        yk_biased_lock(&pool->lock);
        unit_of_locked(pool, task)->running = NULL;
        yk_biased_unlock(&pool->lock);
    }
    yk_cancel_drop(task->made_token);
    task->made_token = NULL;
}
