/* SPDX-License-Identifier: MIT
 * footprint.c - what one more worker process costs in memory.
 *
 * Idea: the kernel's own account of a worker that has run a task: its private pages (USS, from
 * smaps_rollup) and its page tables (VmPTE). The pages it shares with the program are there anyway.
 */
#include "harness.h"
#include "pass.h"

#include <stdio.h>
#include <string.h>
#include <yoke/yoke.h>

enum { WORKERS = 4, TASKS = 256, USS_KIB = 64, TABLES_KIB = 70 };

/* The sum of the lines of /proc/PID/what that begin with one of the names, in KiB. */
static const char *read_kib(int pid, const char *what, const char *const *names, double *kib)
{
    char line[256];
    snprintf(line, sizeof line, "/proc/%d/%s", pid, what);
    FILE *file = fopen(line, "r");
    unsigned found = 0;
    *kib = 0;
    while (file && fgets(line, sizeof line, file)) {
        for (size_t i = 0; names[i]; i++) {
            unsigned long value;
            const size_t length = strlen(names[i]);
            if (strncmp(line, names[i], length) == 0 && sscanf(line + length, "%lu", &value) == 1) {
                *kib += (double)value;
                found++;
            }
        }
    }
    if (file) {
        fclose(file);
    }
    return found > 0 ? NULL : "the kernel does not tell";
}

static const char *run_tasks(void)
{
    static uint64_t in[TASKS], out[TASKS];
    const int error =
        yoke_map(pass_pool(), pass_add_one, in, sizeof *in, out, sizeof *out, TASKS, NULL);
    return error ? bench_why("yoke_map", error) : NULL;
}

static const char *start_workers(void)
{
    const char *why = pass_pool_start(YOKE_PROCESSES, WORKERS, 0);
    return why ? why : run_tasks();
}

/* The median of the workers. */
static const char *measure(const char *what, const char *const *names, double *kib)
{
    int pids[WORKERS];
    double each[WORKERS];
    const char *why = NULL;
    const int count = yoke_pool_worker_ids(pass_pool(), pids, WORKERS);
    for (int i = 0; i < count && i < WORKERS && !why; i++) {
        why = read_kib(pids[i], what, names, &each[i]);
    }
    if (why || count != WORKERS) {
        return why ? why : "a worker is missing";
    }
    *kib = bench_median(each, WORKERS);
    return NULL;
}

static const char *uss(double *kib)
{
    static const char *const names[] = {"Private_Clean:", "Private_Dirty:", NULL};
    return measure("smaps_rollup", names, kib);
}

static const char *tables(double *kib)
{
    static const char *const names[] = {"VmPTE:", NULL};
    return measure("status", names, kib);
}

static const char *uss_wanted(double *kib)
{
    *kib = USS_KIB;
    return NULL;
}

static const char *tables_wanted(double *kib)
{
    *kib = TABLES_KIB;
    return NULL;
}

static const bench_figure figures[] = {
    {.name = "process/worker-uss",
     .unit = "KiB",
     .reference = "64 KiB",
     .yoke = uss,
     .ref = uss_wanted,
     .rounds = 3,
     .setup = start_workers,
     .teardown = pass_pool_stop},
    {.name = "process/worker-tables",
     .unit = "KiB",
     .reference = "70 KiB",
     .yoke = tables,
     .ref = tables_wanted,
     .rounds = 3,
     .setup = start_workers,
     .teardown = pass_pool_stop},
};

const bench_table bench_footprint_table = {figures, sizeof figures / sizeof *figures};
