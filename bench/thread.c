/* SPDX-License-Identifier: MIT
 * thread.c - figures of a thread pool, against a plain pool on a mutex and condition variables.
 *
 * Idea: nothing is bound to a CPU here: threads of one program run where the system puts them.
 */
#include "harness.h"
#include "pass.h"
#include "ref.h"

enum { TRIPS = 200, STREAM = 5000, WARM = 50, DEPTH = 64 };

static const char *start(unsigned workers)
{
    const char *why = ref_condvar_start(workers);
    return why ? why : pass_pool_start(YOKE_THREADS, workers, 0);
}

static const char *start_one(void)
{
    return start(1);
}
static const char *start_two(void)
{
    return start(2);
}

static void stop(void)
{
    pass_pool_stop();
    ref_condvar_stop();
}

static const char *yoke_rtt(double *value)
{
    return pass_round_trips(WARM, TRIPS, value);
}
static const char *plain_rtt(double *value)
{
    return ref_condvar_pass(1, WARM, TRIPS, value);
}
static const char *yoke_tasks(double *value)
{
    return pass_window(DEPTH, WARM, STREAM, value);
}

static const char *plain_tasks(double *value)
{
    return ref_condvar_pass(DEPTH, WARM, STREAM, value);
}

static const bench_figure figures[] = {
    {.name = "thread/rtt",
     .unit = "ns",
     .reference = "a thread on a mutex and conditions",
     .yoke = yoke_rtt,
     .ref = plain_rtt,
     .rounds = 61,
     .setup = start_one,
     .teardown = stop},
    {.name = "thread/tasks",
     .unit = "ns",
     .reference = "two threads on a mutex and conditions",
     .yoke = yoke_tasks,
     .ref = plain_tasks,
     .rounds = 61,
     .setup = start_two,
     .teardown = stop},
};

const bench_table bench_thread_table = {figures, sizeof figures / sizeof *figures};
