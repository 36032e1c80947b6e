/* SPDX-License-Identifier: MIT
 * governor.h - how many workers of a thread pool run tasks, and how many CPUs are left for more.
 *
 * Idea: as many tasks as there are CPUs should be running, however many wait. A pool that may grow
 * (workers_max above workers) has a governor: a thread that sleeps while nothing queues, and else
 * looks every few ms who runs and who waits. yoke_blocking_begin tells without it.   Room: pool.
 */
#ifndef YK_GOVERNOR_H
#define YK_GOVERNOR_H

#include "pool/cpus.h"
#include "pool/pool_private.h"

/* What the tasks of a pool did while others queued. */
struct yk_figures {
    int64_t span_ns;   /* over this long; 0: there are none */
    int64_t age_ns;    /* which ended so long ago */
    int64_t wall_ns;   /* of all workers that ran tasks */
    int64_t cpu_ns;    /* of that they used a CPU */
    int64_t waited_ns; /* of that they waited for something else */
    unsigned blocked;  /* workers whose task waited, at the last look */
};

static inline bool yk_pool_is_elastic(const struct yoke_pool *pool)
{
    return pool->config.workers_max > pool->config.workers;
}

/* What an elastic pool needs besides; others need nothing. 0 or -ENOMEM. */
int yk_governor_create(struct yoke_pool *pool);
/* End its thread; nothing grows any more. Not locked. */
void yk_governor_stop(struct yoke_pool *pool);
void yk_governor_free(struct yoke_pool *pool);
/* Tasks were published, and nobody slept to be woken: this many are not looked after. */
void yk_governor_queued_locked(struct yoke_pool *pool, size_t tasks) YK_REQUIRES(pool->lock);
void yk_governor_figures_locked(struct yoke_pool *pool, struct yk_figures *figures)
    YK_REQUIRES(pool->lock);

#endif
