/* SPDX-License-Identifier: MIT
 * process.c - figures of a process pool: round trips, streams of tasks, a killed worker.
 *
 * Idea: each round is a pass of a few milliseconds, so that both sides of a round see the
 * machine in the same state. Spinning sides are bound to two CPUs, the same way for both.
 */
#include "harness.h"
#include "machine.h"
#include "pass.h"
#include "ref.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

enum {
    TRIPS = 4000,
    STREAM = 20480,
    STREAM_SHARED = 4096, /* with more processes than CPUs, tasks take longer */
    WARM = 1024,
    DEPTH = 64,
    BATCH = 32,
    SLEEPING_TRIPS = 4,
    NAP_NS = 400000,
    LINE_EXTRA_NS = 40, /* what a task may cost above the bare line */
    KILLS_TRIED = 1000
};

static const char *start_line(void)
{
    const char *why = ref_line_start();
    return why ? why : pass_pool_start(YOKE_PROCESSES, 1, 1);
}

static void stop_line(void)
{
    pass_pool_stop();
    ref_line_stop();
}

static const char *yoke_rtt(double *value)
{
    return pass_round_trips(WARM, TRIPS, value);
}

static const char *line_rtt(double *value)
{
    const char *why = ref_line_pass(WARM, TRIPS, value);
    *value += LINE_EXTRA_NS;
    return why;
}

static const char *start_ring(void)
{
    const char *why = ref_ring_start();
    return why ? why : pass_pool_start(YOKE_PROCESSES, 1, 1);
}

static void stop_ring(void)
{
    pass_pool_stop();
    ref_ring_stop();
}

static const char *yoke_tasks_1(double *value)
{
    return pass_window_batches(DEPTH, BATCH, WARM, STREAM, value);
}
static const char *yoke_tasks_1_single(double *value)
{
    return pass_window(DEPTH, WARM, STREAM, value);
}
static const char *ring_tasks(double *value)
{
    return ref_ring_pass(WARM, STREAM, value);
}

static const char *start_futex(void)
{
    const char *why = ref_futex_start();
    return why ? why : pass_pool_start(YOKE_PROCESSES, 1, 1);
}

static void stop_futex(void)
{
    pass_pool_stop();
    ref_futex_stop();
}

static const char *yoke_sleep(double *value)
{
    return pass_sleeping(SLEEPING_TRIPS, NAP_NS, value);
}

static const char *futex_sleep(double *value)
{
    return ref_futex_pass(SLEEPING_TRIPS, NAP_NS, value);
}

static const char *start_pipe(void)
{
    const char *why = ref_pipe_start(2);
    return why ? why : pass_pool_start(YOKE_PROCESSES, 2, 0);
}

static void stop_pipe(void)
{
    pass_pool_stop();
    ref_pipe_stop();
}

static const char *yoke_tasks_2(double *value)
{
    return pass_window_batches(DEPTH, BATCH, WARM, STREAM_SHARED, value);
}

static const char *pipe_tasks(double *value)
{
    return ref_pipe_pass(DEPTH, STREAM_SHARED, value);
}

static const char *start_one(void)
{
    return pass_pool_start(YOKE_PROCESSES, 1, 0);
}

static int who(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    *(int *)out = getpid();
    return 0;
}

/* Gets 0 if the task died with the old worker. */
static const char *ask_who(int *pid)
{
    yoke_job *job;
    yoke_outcome outcome;
    const void *out = NULL;
    int error = yoke_submit(pass_pool(), who, NULL, 0, sizeof *pid, NULL, &job);
    if (error) {
        return bench_why("yoke_submit", error);
    }
    error = yoke_wait(job, YOKE_FOREVER);
    if (!error) {
        error = yoke_job_result(job, &outcome, &out, NULL);
    }
    *pid = !error && outcome.kind == YOKE_OK ? *(const int *)out : 0;
    yoke_job_release(job);
    return error ? bench_why("the task after the kill", error) : NULL;
}

/* From the kill to the return of the first task that another process has run. Tasks that the old
 * worker still takes, or takes with it, do not end it. */
static const char *yoke_recover(double *value)
{
    int old = 0, now = 0;
    const char *why = ask_who(&old);
    if (why || old <= 0 || old == getpid()) {
        return why ? why : "the task did not run in a process of its own";
    }
    const int64_t start = bench_now_ns();
    if (kill(old, SIGKILL) != 0) {
        return bench_why("kill", -errno);
    }
    for (int i = 0; i < KILLS_TRIED && !why && (now == 0 || now == old); i++) {
        why = ask_who(&now);
    }
    *value = (double)(bench_now_ns() - start) / 1e3;
    return why || (now > 0 && now != old) ? why : "no other worker after the kill";
}

static const char *one_ms(double *value)
{
    *value = 1000;
    return NULL;
}

static const bench_figure figures[] = {
    {.name = "process/rtt-spin",
     .unit = "ns",
     .reference = "a cache line there and back + 40 ns",
     .yoke = yoke_rtt,
     .ref = line_rtt,
     .rounds = 61,
     .cpus = 2,
     .setup = start_line,
     .teardown = stop_line},
    {.name = "process/tasks-1",
     .unit = "ns",
     .reference = "two rings in shared memory",
     .yoke = yoke_tasks_1,
     .ref = ring_tasks,
     .rounds = 61,
     .cpus = 2,
     .setup = start_ring,
     .teardown = stop_ring},
    {.name = "process/tasks-single",
     .unit = "ns",
     .reference = "two rings in shared memory",
     .yoke = yoke_tasks_1_single,
     .ref = ring_tasks,
     .rounds = 61,
     .cpus = 2,
     .setup = start_ring,
     .teardown = stop_ring},
    {.name = "process/rtt-sleep",
     .unit = "us",
     .reference = "two bare futexes",
     .yoke = yoke_sleep,
     .ref = futex_sleep,
     .rounds = 61,
     .cpus = 2,
     .setup = start_futex,
     .teardown = stop_futex},
    {.name = "process/tasks-2",
     .unit = "ns",
     .reference = "two processes on two pipes",
     .yoke = yoke_tasks_2,
     .ref = pipe_tasks,
     .rounds = 61,
     .setup = start_pipe,
     .teardown = stop_pipe},
    {.name = "process/recover",
     .unit = "us",
     .reference = "1 ms",
     .yoke = yoke_recover,
     .ref = one_ms,
     .rounds = 61,
     .setup = start_one,
     .teardown = pass_pool_stop},
};

const bench_table bench_process_table = {figures, sizeof figures / sizeof *figures};
