/* SPDX-License-Identifier: MIT
 * demo_survival.c - last part of the demo: a worker is killed in the middle of a map.
 *
 * Idea: the tasks count themselves in shared memory, so that a second thread kills a worker when
 * a third of them is done, and not at some guessed time. The results must be those of a serial
 * pool.
 */
#include "demo.h"
#include "jobs.h"
#include "text.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { ITEMS = 60, STEP = PRIMES_BELOW / ITEMS, KILL_AT = ITEMS / 3 };

struct killer {
    yoke_pool *pool;
    atomic_uint *done; /* in the shared heap */
    int victim;        /* 0: nobody was killed */
};

struct survival {
    yoke_pool *serial, *processes;
    atomic_uint *done;
    size_t first[ITEMS];
    uint64_t expected[ITEMS], got[ITEMS];
    yoke_outcome outcomes[ITEMS];
};

static int count_primes(yoke_task *task, const void *in, void *out)
{
    const size_t first = *(const size_t *)in;
    atomic_uint *const *done = yoke_task_context(task);
    *(uint64_t *)out = job_primes_between(first, first + STEP);
    /* relaxed: a count, nothing else is published by it. */
    atomic_fetch_add_explicit(*done, 1, memory_order_relaxed);
    return 0;
}

static int kill_one(void *arg)
{
    struct killer *killer = arg;
    /* relaxed: only the count matters. */
    while (atomic_load_explicit(killer->done, memory_order_relaxed) < KILL_AT)
        if (yoke_sleep_until(yoke_now_ns() + 200000) == -ECANCELED)
            return 1;
    int pid = 0;
    if (yoke_pool_worker_ids(killer->pool, &pid, 1) < 1 || kill(pid, SIGKILL) != 0)
        return 1;
    killer->victim = pid;
    return 0;
}

static int map(struct survival *s, yoke_pool *pool, uint64_t *out)
{
    const yoke_options options = {.size = sizeof options,
                                  .context = &s->done,
                                  .context_bytes = sizeof s->done,
                                  .retries = 2,
                                  .outcomes = s->outcomes};
    return yoke_map(pool, count_primes, s->first, sizeof *s->first, out, sizeof *out, ITEMS,
                    &options);
}

static int map_with_a_killer(struct survival *s, struct killer *killer)
{
    yoke_thread *thread = NULL;
    /* relaxed: the killer is started after this. */
    atomic_store_explicit(s->done, 0, memory_order_relaxed);
    int rc = yoke_thread_start(NULL, kill_one, killer, &thread);
    if (rc != 0)
        return rc;
    rc = map(s, s->processes, s->got);
    yoke_thread_interrupt(thread);
    const int waited = yoke_thread_wait(thread, YOKE_FOREVER, NULL);
    yoke_thread_release(thread);
    return rc ? rc : waited;
}

static int say_what_happened(struct survival *s, const struct killer *killer)
{
    yoke_pool_stats stats = {.size = sizeof stats};
    const int rc = yoke_pool_stats_get(s->processes, &stats);
    unsigned equal = 0, again = 0;
    for (size_t i = 0; i < ITEMS; i++) {
        equal += s->got[i] == s->expected[i];
        again += s->outcomes[i].attempts > 1;
    }
    if (rc != 0)
        return rc;
    if (killer->victim == 0) {
        text_say("The map was done before a worker could be killed: nothing was shown.");
        return -EAGAIN;
    }
    char verdict[400];
    text_say("A map of %d items on %u process%s; when %d were done, worker %d got SIGKILL. Workers "
             "that died: %llu; started again: %u item%s.",
             ITEMS, stats.workers, stats.workers == 1 ? "" : "es", KILL_AT, killer->victim,
             (unsigned long long)stats.died, again, again == 1 ? "" : "s");
    snprintf(verdict, sizeof verdict, "%u of %d results are equal to those of a serial run: %s.",
             equal, ITEMS, equal == ITEMS ? "nothing is lost" : "that is an error");
    text_verdict(verdict);
    return equal == ITEMS ? 0 : -EILSEQ;
}

static int survive(struct survival *s)
{
    s->done = yoke_shared_alloc(sizeof *s->done);
    if (s->done == NULL)
        return -ENOMEM;
    atomic_init(s->done, 0);
    for (size_t i = 0; i < ITEMS; i++)
        s->first[i] = i * STEP;
    int rc = pool_make(YOKE_SERIAL, 0, &s->serial);
    rc = rc ? rc : pool_make(YOKE_PROCESSES, 0, &s->processes);
    rc = rc ? rc : map(s, s->serial, s->expected);
    if (rc != 0)
        return rc;
    struct killer killer = {.pool = s->processes, .done = s->done};
    rc = map_with_a_killer(s, &killer);
    text_busy(NULL);
    return rc ? rc : say_what_happened(s, &killer);
}

int demo_survival(void)
{
    struct survival s = {.serial = NULL};
    text_heading("4. A worker is killed");
    text_busy("killing");
    const int rc = survive(&s);
    if (s.serial != NULL)
        yoke_pool_destroy(s.serial, YOKE_FOREVER);
    if (s.processes != NULL)
        yoke_pool_destroy(s.processes, YOKE_FOREVER);
    yoke_shared_free(s.done);
    return rc;
}
