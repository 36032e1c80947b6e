/* SPDX-License-Identifier: MIT
 * reborn.c - a pool in a child after fork(): made anew at its first use.   Room: pool.
 *
 * Of the parent's pool the child has a picture taken at an unknown instant: without the threads,
 * its lock perhaps held, its table half filled. Nothing of that is read. What the caller gave
 * (config, hooks) was never written since; the rest is zeroed and made again as at the first time.
 * The old table, members and jobs are left where they are, since the child's one thread may stand
 * in a task that knows them: they are pages shared with the parent, which nobody writes again.
 *
 * `reviver` names the process, not a thread: what a fork cut short does not count in its child.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/pool_private.h"

#define LOOK_NS 50000000LL

static void wipe(struct yoke_pool *pool)
{
    const size_t from = offsetof(struct yoke_pool, ctl);
    memset((unsigned char *)pool + from, 0, sizeof *pool - from);
    pool->backlog_end = &pool->backlog;
}

static int make_anew(struct yoke_pool *pool)
{
    wipe(pool);
    const int rc = pool->kind == YOKE_SERIAL ? 0 : yk_pool_engine_start(pool);
    if (rc != 0) {
        yk_pool_parts_free(pool);
        wipe(pool);
        return rc;
    }
    yk_biased_init(&pool->lock);
    return 0;
}

/* True: the caller is to make it anew. */
static bool claim(struct yoke_pool *pool, uint64_t now)
{
    /* SYNC(reviver) acquire: sees what who tried it before us left. */
    uint64_t seen = atomic_load_explicit(&pool->reviver, memory_order_acquire);
    /* SYNC(reviver) acq_rel: as above; and one alone does it. */
    return seen != now &&
           atomic_compare_exchange_strong_explicit(&pool->reviver, &seen, now, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static void conclude(struct yoke_pool *pool, uint64_t now, int rc)
{
    if (rc == 0) {
        /* SYNC(reborn) release: publishes the engine. */
        atomic_store_explicit(&pool->generation, now, memory_order_release);
    }
    /* SYNC(reviver) release: who tries it next sees what we left. After generation: who finds it
     * free then, finds that it is done. */
    atomic_store_explicit(&pool->reviver, 0, memory_order_release);
    /* SYNC(reborn) release: who sees the count sees what came of it. */
    atomic_fetch_add_explicit(&pool->revivals, 1, memory_order_release);
    yk_futex_wake(&pool->revivals, INT32_MAX, YK_PRIVATE);
}

int yk_pool_revive(struct yoke_pool *pool)
{
    const uint64_t now = yk_process_generation();
    if (pool->kind == YOKE_PROCESSES) {
        return -ECHILD;
    }
    for (;;) {
        /* SYNC(reborn) acquire: sees what came of it. */
        const uint32_t count = atomic_load_explicit(&pool->revivals, memory_order_acquire);
        if (yk_pool_is_ours(pool)) {
            return 0;
        }
        if (yk_threads_is_worker(pool)) {
            return -EDEADLK; /* it is in worker_init, and who makes the pool anew waits for it */
        }
        if (claim(pool, now)) {
            break;
        }
        (void)yk_futex_wait(&pool->revivals, count, yk_clock_ns() + LOOK_NS, YK_PRIVATE);
    }
    int rc = 0;
    if (!yk_pool_is_ours(pool)) { /* else it was done between our two looks */
        rc = pool->closed != 0 ? YOKE_ECLOSED : make_anew(pool);
    }
    conclude(pool, now, rc);
    return rc;
}

int yk_pool_disown(struct yoke_pool *pool)
{
    if (pool->kind == YOKE_PROCESSES) {
        return -ECHILD;
    }
    free(pool);
    return 0;
}
