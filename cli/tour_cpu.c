/* SPDX-License-Identifier: MIT
 * tour_cpu.c - row "cpu": how many primes there are, on one CPU and on all.
 *
 * Idea: by hand the numbers are cut into equal parts, a thread or a fork each. Later numbers
 * take longer, so the last part is the slowest; Yoke cuts finer.
 */
#include "jobs.h"
#include "plain.h"
#include "tour.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

enum { SERIAL, PLAIN_THREADS, PLAIN_FORKS, YOKE_T, YOKE_P, WAYS };

struct part {
    const struct job *job;
    size_t begin, end;
    uint64_t sum;
};

struct cpu {
    struct job threads, processes;
    struct part *parts; /* shared with the forks */
    size_t count;
};

static int part_run(void *item)
{
    struct part *part = item;
    part->sum = part->job->sum(part->begin, part->end);
    return 0;
}

static void parts_cut(struct cpu *cpu)
{
    const size_t all = cpu->threads.count;
    for (size_t i = 0; i < cpu->count; i++)
        cpu->parts[i] = (struct part){
            .job = &cpu->threads, .begin = all * i / cpu->count, .end = all * (i + 1) / cpu->count};
}

static int parts_check(const struct cpu *cpu, int rc)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < cpu->count; i++)
        sum += cpu->parts[i].sum;
    return rc ? rc : sum == cpu->threads.expected ? 0 : -EILSEQ;
}

static int run_threads(void *arg)
{
    struct cpu *cpu = arg;
    parts_cut(cpu);
    return parts_check(cpu, plain_threads(part_run, cpu->parts, sizeof *cpu->parts, cpu->count));
}

static int run_forks(void *arg)
{
    struct cpu *cpu = arg;
    parts_cut(cpu);
    return parts_check(cpu, plain_forks(part_run, cpu->parts, sizeof *cpu->parts, cpu->count));
}

static int cpu_open(struct cpu *cpu)
{
    const unsigned cpus = yoke_cpu_count();
    cpu->count = cpus < PLAIN_MAX ? cpus : PLAIN_MAX;
    void *shared = mmap(NULL, PLAIN_MAX * sizeof *cpu->parts, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -ENOMEM;
    cpu->parts = shared;
    cpu->threads = cpu->processes = job_primes(PRIMES_BELOW);
    const int rc = pool_make(YOKE_THREADS, 0, &cpu->threads.pool);
    return rc ? rc : pool_make(YOKE_PROCESSES, 0, &cpu->processes.pool);
}

static void cpu_close(struct cpu *cpu)
{
    if (cpu->threads.pool != NULL)
        yoke_pool_destroy(cpu->threads.pool, YOKE_FOREVER);
    if (cpu->processes.pool != NULL)
        yoke_pool_destroy(cpu->processes.pool, YOKE_FOREVER);
    if (cpu->parts != NULL)
        munmap(cpu->parts, PLAIN_MAX * sizeof *cpu->parts);
}

static void conclude(struct report *report, const struct trial ways[WAYS])
{
    const unsigned cpus = yoke_cpu_count();
    const double threads = trial_speedup(&ways[SERIAL], &ways[YOKE_T]);
    const double processes = trial_speedup(&ways[SERIAL], &ways[YOKE_P]);
    const double by_hand = trial_speedup(&ways[SERIAL], &ways[PLAIN_THREADS]);
    const double best = threads > processes ? threads : processes;
    if (!report_gain(report, best))
        return;
    report_say(report,
               "On %u CPUs Yoke's threads are %.2f times as fast as one loop, its processes "
               "%.2f times.",
               cpus, threads, processes);
    if (threads > 0.9 * processes)
        report_say(report, "Threads gain as much as processes: C has no GIL to hold them back.");
    if (best > 1.1 * by_hand)
        report_say(report,
                   "By hand, in equal parts, it is %.2f times: later numbers take longer, and all "
                   "wait for the slowest part. Yoke cuts the rest finer.",
                   by_hand);
}

int tour_cpu(struct report *report)
{
    struct cpu cpu = {.parts = NULL};
    int rc = cpu_open(&cpu);
    char labels[WAYS][48];
    snprintf(labels[PLAIN_THREADS], 48, "%zu pthread%s, equal parts", cpu.count,
             cpu.count == 1 ? "" : "s");
    snprintf(labels[PLAIN_FORKS], 48, "%zu fork%s, equal parts", cpu.count,
             cpu.count == 1 ? "" : "s");
    struct trial ways[WAYS] = {
        [SERIAL] = {.label = "one loop", .run = job_plain, .arg = &cpu.threads},
        [PLAIN_THREADS] = {.label = labels[PLAIN_THREADS], .run = run_threads, .arg = &cpu},
        [PLAIN_FORKS] = {.label = labels[PLAIN_FORKS], .run = run_forks, .arg = &cpu},
        [YOKE_T] = {.label = "Yoke threads", .run = job_pool, .arg = &cpu.threads},
        [YOKE_P] = {.label = "Yoke processes", .run = job_pool, .arg = &cpu.processes},
    };
    rc = rc ? rc : trial_run(ways, WAYS, 7, 8000);
    cpu_close(&cpu);
    if (rc != 0)
        return rc;
    report_trials(report, "how many primes there are below 3,000,000", ways, WAYS, &ways[SERIAL]);
    conclude(report, ways);
    return 0;
}
