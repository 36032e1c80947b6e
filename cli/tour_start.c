/* SPDX-License-Identifier: MIT
 * tour_start.c - row "start-up": from the call that starts it until it has ended.
 *
 * Idea: all of them run an empty body and are waited for. A second group does the same from a
 * program that holds a lot of memory, since fork has to copy the page tables of all of it.
 */
#include "plain.h"
#include "tour.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <yoke/yoke.h>

enum { THREAD, EXEC, SPAWN, FORK, PROCESS, HANDOVER, SMALL };
enum { HANDOVERS = 50 };

/* The ways that are tried again when the program is big: EXEC to PROCESS. */
enum { BIG_FIRST = EXEC, BIG = PROCESS - EXEC + 1 };

extern char **environ;

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int nothing_task(yoke_task *task, const void *in, void *out)
{
    (void)task, (void)in, (void)out;
    return 0;
}

static int run_thread(void *arg)
{
    return plain_threads(nothing, arg, 1, 1);
}

static int run_fork(void *arg)
{
    return plain_forks(nothing, arg, 1, 1);
}

static int run_exec(void *arg)
{
    (void)arg;
    char name[] = "true", *argv[] = {name, NULL};
    const pid_t pid = plain_exec(argv, -1);
    return pid < 0 ? pid : plain_wait(pid);
}

static int run_spawn(void *arg)
{
    (void)arg;
    char name[] = "true", *argv[] = {name, NULL};
    pid_t pid = -1;
    const int rc = posix_spawnp(&pid, name, NULL, NULL, argv, environ);
    return rc != 0 ? -rc : plain_wait(pid);
}

static int run_process(void *arg)
{
    (void)arg;
    const yoke_process_config config = {.size = sizeof config, .image = YOKE_SEED};
    yoke_process *process = NULL;
    int rc = yoke_process_start(&config, nothing, NULL, &process);
    if (rc != 0)
        return rc;
    yoke_process_end end = {0};
    rc = yoke_process_wait(process, YOKE_FOREVER, &end);
    yoke_process_release(process);
    return rc != 0 ? rc : end.code == 0 ? 0 : -EIO;
}

static int run_handover(void *arg)
{
    for (int i = 0; i < HANDOVERS; i++) {
        yoke_job *job = NULL;
        int rc = yoke_submit(arg, nothing_task, NULL, 0, 0, NULL, &job);
        if (rc != 0)
            return rc;
        rc = yoke_wait(job, YOKE_FOREVER);
        yoke_job_release(job);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static const char *growth_words(double growth)
{
    if (growth < 1.3)
        return "its start does not depend on the size of the program";
    return growth < 3 ? "its start hardly depends on the size of the program"
                      : "its start did not stay flat here";
}

/* The same starts from this program while it is small and while it is big, in turns. */
struct growth {
    struct trial small[BIG], big[BIG];
    size_t ballast_bytes;
};

static double grown(const struct growth *growth, int way)
{
    return trial_speedup(&growth->big[way - BIG_FIRST], &growth->small[way - BIG_FIRST]);
}

static int measure_growth(struct growth *growth)
{
    const int64_t until_ns = yoke_in_ms(5000);
    int rc = 0;
    for (size_t round = 0; round < 9 && rc == 0; round++) {
        if (round > 0 && yoke_now_ns() > until_ns)
            break;
        rc = trial_round(growth->small, BIG, round);
        void *ballast = ballast_take(&growth->ballast_bytes);
        if (ballast == NULL)
            return -ENOMEM;
        rc = rc ? rc : trial_round(growth->big, BIG, round);
        ballast_give(ballast, growth->ballast_bytes);
    }
    return rc;
}

static void conclude(struct report *report, const struct trial *small, const struct growth *growth)
{
    char words[64], thread[32], process[32], handover[32], size[32];
    report_say(report, "%s: a thread takes %s, a Yoke process %s, which is %s fork + exec.",
               trial_speedup(&small[PROCESS], &small[THREAD]) > 1.15 ? "Still true"
                                                                     : "No longer true",
               text_ns(thread, sizeof thread, trial_median_ns(&small[THREAD])),
               text_ns(process, sizeof process, trial_median_ns(&small[PROCESS])),
               speed_words(words, sizeof words, trial_speedup(&small[EXEC], &small[PROCESS])));
    report_say(report,
               "A pool starts its processes once: a task is with a waiting one and "
               "back in %s, which is %s starting a thread.",
               text_ns(handover, sizeof handover, trial_median_ns(&small[HANDOVER])),
               speed_words(words, sizeof words, trial_speedup(&small[THREAD], &small[HANDOVER])));
    report_say(report,
               "When the program holds %s, fork + exec takes %.1f times as long, posix_spawn "
               "%.1f times, a Yoke process %.1f times: %s.",
               text_bytes(size, sizeof size, (double)growth->ballast_bytes), grown(growth, EXEC),
               grown(growth, SPAWN), grown(growth, PROCESS), growth_words(grown(growth, PROCESS)));
}

int tour_start(struct report *report)
{
    char item = 0;
    yoke_pool *pool = NULL;
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .image = YOKE_SEED, .workers = 1};
    int rc = yoke_pool_create(&config, &pool);
    if (rc != 0)
        return rc;
    struct trial small[SMALL] = {
        [THREAD] = {.label = "pthread_create", .run = run_thread, .arg = &item},
        [EXEC] = {.label = "fork + exec", .run = run_exec, .arg = &item},
        [SPAWN] = {.label = "posix_spawn", .run = run_spawn, .arg = &item},
        [FORK] = {.label = "fork", .run = run_fork, .arg = &item},
        [PROCESS] = {.label = "Yoke process", .run = run_process, .arg = &item},
        [HANDOVER] = {.label = "Yoke task to a waiting process",
                      .run = run_handover,
                      .arg = pool,
                      .calls = HANDOVERS},
    };
    struct growth growth = {.ballast_bytes = 0};
    memcpy(growth.small, &small[BIG_FIRST], sizeof growth.small);
    memcpy(growth.big, &small[BIG_FIRST], sizeof growth.big);
    rc = trial_run(small, SMALL, TRIAL_ROUNDS_MAX, 2000);
    if (rc == 0)
        rc = measure_growth(&growth);
    yoke_pool_destroy(pool, YOKE_FOREVER);
    if (rc != 0)
        return rc;
    report_trials(report, "from this small program", small, SMALL, NULL);
    report_trials(report, "from the same program when it holds much memory", growth.big, BIG, NULL);
    conclude(report, small, &growth);
    return 0;
}
