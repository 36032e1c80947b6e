/* SPDX-License-Identifier: MIT
 * quiet.c - small tasks through one process worker, to be counted from outside by strace -c -f.
 *
 * Idea: what a pool asks of the kernel, it asks when it starts, ends, and when a side has nothing
 * to do. So a thousand times as many tasks must take next to no more system calls. Arguments: how
 * many tasks, and whether to take the real-time priority that keeps other programs out (root).
 *
 *   make lib && cc -O2 -Iinclude -o quiet bench/spikes/quiet.c build/libyoke.a
 *   strace -c -f -o 1000.txt ./quiet 1000 rt && strace -c -f -o 1000000.txt ./quiet 1000000 rt
 *   tail -n 1 1000.txt 1000000.txt; grep futex 1000.txt 1000000.txt
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <yoke/yoke.h>

enum { UNDER_WAY = 64 };

static int plus_one(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(long *)out = *(const long *)in + 1;
    return 0;
}

/* Collects one job; the answer that is not right, or not there, ends the program. */
static void collect(yoke_job *job, long expected)
{
    const void *out = NULL;
    yoke_outcome outcome;
    int rc = yoke_wait(job, YOKE_FOREVER);
    if (rc == 0)
        rc = yoke_job_result(job, &outcome, &out, NULL);
    if (rc != 0 || outcome.kind != YOKE_OK || *(const long *)out != expected) {
        fprintf(stderr, "task %ld: %s\n", expected - 1, yoke_strerror(rc));
        exit(1);
    }
    yoke_job_release(job);
}

int main(int argc, char **argv)
{
    const long count = argc > 1 ? atol(argv[1]) : 1000;
    const struct sched_param priority = {.sched_priority = 1};
    if (argc > 2 && sched_setscheduler(0, SCHED_FIFO, &priority) != 0)
        perror("sched_setscheduler");
    yoke_pool *pool;
    yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES, .workers = 1};
    int rc = yoke_pool_create(&config, &pool);
    yoke_job *jobs[UNDER_WAY];
    for (long i = 0; rc == 0 && i < count + UNDER_WAY; i++) {
        if (i >= UNDER_WAY && i - UNDER_WAY < count)
            collect(jobs[i % UNDER_WAY], i - UNDER_WAY + 1);
        if (i < count)
            rc = yoke_submit(pool, plus_one, &i, sizeof i, sizeof i, NULL, &jobs[i % UNDER_WAY]);
    }
    if (rc == 0)
        rc = yoke_pool_destroy(pool, YOKE_FOREVER);
    printf("%ld tasks: %s\n", count, yoke_strerror(rc));
    return rc != 0;
}
