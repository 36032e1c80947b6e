/* SPDX-License-Identifier: MIT
 * killer.h - a thread that kills workers of a pool at random, and counts.
 *
 * Idea: the count of kills is an upper bound for what may crash: a kill that hits a worker that
 * is idle, or already dying, costs no task. It pauses until the pool has done something new, so
 * that work goes on however slow the machine is.
 */
#ifndef YOKE_TESTS_KILLER_H
#define YOKE_TESTS_KILLER_H

#include "check.h"
#include <pthread.h>

struct killer {
    yoke_pool *pool;
    pthread_t thread;
    atomic_long stop, kills;
    uint64_t random;
    unsigned pause_us;    /* at least this long between two kills */
    unsigned tasks_apart; /* and this many tasks or parts that ended */
    int all;              /* each time all workers at once */
};

static inline uint64_t tasks_ended(yoke_pool *pool)
{
    return stats_of(pool).tasks;
}

static inline void *killer_run(void *arg)
{
    struct killer *killer = arg;
    uint64_t last = tasks_ended(killer->pool);
    while (!count_get(&killer->stop)) {
        const int64_t until =
            yoke_now_ns() + (int64_t)(random_next(&killer->random) % (2 * killer->pause_us)) * 1000;
        while (yoke_now_ns() < until && !count_get(&killer->stop))
            breathe();
        if (tasks_ended(killer->pool) < last + killer->tasks_apart)
            continue;
        int pids[64];
        const int n = yoke_pool_worker_ids(killer->pool, pids, 64);
        if (n <= 0)
            continue;
        const int first = (int)(random_next(&killer->random) % (unsigned)n);
        for (int i = 0; i < (killer->all ? n : 1); i++)
            count_up(&killer->kills, signal_child(pids[(first + i) % n], SIGKILL));
        last = tasks_ended(killer->pool);
    }
    return NULL;
}

static inline void killer_start(struct killer *killer)
{
    CHECK_EQ(pthread_create(&killer->thread, NULL, killer_run, killer), 0);
}

static inline long killer_stop(struct killer *killer)
{
    count_set(&killer->stop, 1);
    CHECK_EQ(pthread_join(killer->thread, NULL), 0);
    return count_get(&killer->kills);
}

/** How a test with a killer begins; what it holds then, for usage_check. */
static inline struct usage killer_test_begin(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("kills need processes");
    check_kind = YOKE_PROCESSES;
    end_pool(make_pool(YOKE_PROCESSES, 3)); /* opens what stays open */
    return usage_now();
}

#endif
