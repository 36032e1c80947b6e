/* SPDX-License-Identifier: MIT
 * demo_work.c - first part of the demo: work that computes, small and large.
 *
 * Idea: a million squares are the textbook example, and too little work to start anything for;
 * so it measures how many it takes until two or more workers win.
 */
#include "demo.h"
#include "jobs.h"
#include "report.h"

#include <stdio.h>

enum { LOOP, THREADS, PROCESSES, THREADS_COLD, PROCESSES_COLD, WAYS };
enum { SEARCH_FROM = 1000, SEARCH_MS = 700 };

static const double payoff = 1.2; /* times as fast as one loop: then it pays */

struct pools {
    yoke_pool *threads, *processes;
};

/* The same job in each of the ways. */
struct jobs {
    struct job job[WAYS];
};

static struct jobs jobs_make(struct job job, const struct pools *pools)
{
    struct jobs jobs;
    for (size_t i = 0; i < WAYS; i++)
        jobs.job[i] = job;
    jobs.job[THREADS].pool = pools->threads;
    jobs.job[PROCESSES].pool = pools->processes;
    jobs.job[THREADS_COLD].config =
        (yoke_pool_config){.size = sizeof(yoke_pool_config), .kind = YOKE_THREADS};
    jobs.job[PROCESSES_COLD].config =
        (yoke_pool_config){.size = sizeof(yoke_pool_config), .kind = YOKE_PROCESSES};
    return jobs;
}

static struct trial trial_of(const char *label, struct jobs *jobs, int way)
{
    int (*const run[WAYS])(void *) = {job_plain, job_pool, job_pool, job_cold, job_cold};
    return (struct trial){.label = label, .run = run[way], .arg = &jobs->job[way]};
}

/* The number of squares from which on this way wins; 0 if it did not in the time there was. */
static int search(const struct pools *pools, int way, double *items)
{
    size_t won_at = 0;
    *items = 0;
    const int64_t until_ns = yoke_in_ms(SEARCH_MS);
    for (size_t count = SEARCH_FROM; yoke_now_ns() < until_ns; count *= 2) {
        struct jobs jobs = jobs_make(job_squares(count), pools);
        struct trial trials[] = {trial_of("", &jobs, LOOP), trial_of("", &jobs, way)};
        const int rc = trial_run(trials, 2, 9, SEARCH_MS);
        if (rc != 0)
            return rc;
        if (trial_speedup(&trials[0], &trials[1]) < payoff) {
            won_at = 0;
        } else if (won_at == 0) {
            won_at = count; /* a win counts if twice the work wins as well */
        } else {
            *items = (double)won_at;
            return 0;
        }
    }
    return 0;
}

/* From how many squares on each way pays. */
static int add_payoffs(struct report *report, const struct pools *pools, const struct trial *trials)
{
    static const char group[] = "squares it takes until it pays (1.2x)";
    static const int ways[] = {THREADS, PROCESSES, THREADS_COLD, PROCESSES_COLD};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        double items = 0;
        const int rc = search(pools, ways[i], &items);
        if (rc != 0)
            return rc;
        report_add(report, group, trials[ways[i]].label, items, UNIT_COUNT);
    }
    return 0;
}

static void squares_conclude(struct report *report, const struct trial trials[WAYS])
{
    char loop[32], start[32];
    const double warm = trial_speedup(&trials[LOOP], &trials[PROCESSES]);
    const double cold = trial_speedup(&trials[LOOP], &trials[PROCESSES_COLD]);
    text_ns(loop, sizeof loop, trial_median_ns(&trials[LOOP]));
    text_ns(start, sizeof start, trial_median_ns(&trials[PROCESSES_COLD]));
    if (yoke_cpu_count() == 1)
        report_say(report, "No gain: this program may use 1 CPU, so splitting pays at no size.");
    else if (cold < payoff)
        report_say(report,
                   "Too small to start processes for: one loop takes %s, with their start it is "
                   "%s. With processes that wait for work it is %.2fx.",
                   loop, start, warm);
    else
        report_say(report, "Worth to split even with the start of processes: %.2fx.", cold);
}

static int squares(const struct pools *pools)
{
    struct report report = {.count = 0};
    struct jobs jobs = jobs_make(job_squares(SQUARES_COUNT), pools);
    struct trial trials[WAYS] = {
        trial_of("one loop", &jobs, LOOP),
        trial_of("threads, waiting for work", &jobs, THREADS),
        trial_of("processes, waiting for work", &jobs, PROCESSES),
        trial_of("threads, started for it", &jobs, THREADS_COLD),
        trial_of("processes, started for it", &jobs, PROCESSES_COLD),
    };
    int rc = trial_run(trials, WAYS, 15, 500);
    if (rc != 0)
        return rc;
    report_trials(&report, "the squares of 1 to 1,000,000", trials, WAYS, &trials[LOOP]);
    if (yoke_cpu_count() > 1)
        rc = add_payoffs(&report, pools, trials);
    if (rc != 0)
        return rc;
    squares_conclude(&report, trials);
    text_busy(NULL);
    report_mark_yoke(&report);
    report_print(&report);
    return 0;
}

static int primes(const struct pools *pools)
{
    struct report report = {.count = 0};
    struct jobs jobs = jobs_make(job_primes(PRIMES_BELOW), pools);
    struct trial trials[] = {
        trial_of("one loop", &jobs, LOOP),
        trial_of("threads", &jobs, THREADS),
        trial_of("processes", &jobs, PROCESSES),
    };
    const int rc = trial_run(trials, 3, 3, 2000);
    if (rc != 0)
        return rc;
    const unsigned cpus = yoke_cpu_count();
    const double threads = trial_speedup(&trials[0], &trials[1]);
    const double processes = trial_speedup(&trials[0], &trials[2]);
    report_trials(&report, "how many primes there are below 3,000,000", trials, 3, &trials[0]);
    if (report_gain(&report, threads > processes ? threads : processes))
        report_say(&report, "Large enough: %.2fx with threads and %.2fx with processes on %u CPUs.",
                   threads, processes, cpus);
    text_busy(NULL);
    putchar('\n');
    report_mark_yoke(&report);
    report_print(&report);
    return 0;
}

int demo_work(void)
{
    struct pools pools = {.threads = NULL};
    text_heading("1. Work that computes");
    text_busy("squares");
    int rc = yoke_pool_create(NULL, &pools.threads);
    rc = rc ? rc : pool_make(YOKE_PROCESSES, 0, &pools.processes);
    rc = rc ? rc : squares(&pools);
    if (rc == 0)
        text_busy("primes");
    rc = rc ? rc : primes(&pools);
    if (pools.threads != NULL)
        yoke_pool_destroy(pools.threads, YOKE_FOREVER);
    if (pools.processes != NULL)
        yoke_pool_destroy(pools.processes, YOKE_FOREVER);
    return rc;
}
