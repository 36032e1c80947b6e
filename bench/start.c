/* SPDX-License-Identifier: MIT
 * start.c - figures of starting a process, from small and from large programs.
 *
 * Idea: two copies of this program live side by side and hold 10 MB and 1 GB of private memory.
 * Each plants Yoke first, then touches its memory, then starts what it is told to and says how
 * long it took from before the call to the first instruction of the function. Asking them in
 * turns lets both sides of a round see the same machine.
 */
#include "roles.h"

#include "harness.h"
#include "machine.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yoke/yoke.h>

enum { SMALL_MB = 10, LARGE_MB = 1000, STARTS = 5, PAUSE_NS = 5000000, PAGE = 4096 };

/* What a holder can be told, in one byte. */
enum {
    START_SEED = 'y',
    START_FORK = 'f',
    START_THREAD = 't',
    PAUSE_SEED = 'Y',
    PAUSE_THREAD = 'T'
};

struct answer {
    double us;
    char why[120]; /* empty: all is well */
};

static struct bench_program small, large;

/* ---- in the holder */

static int stamp(void *arg)
{
    *(volatile int64_t *)arg = bench_now_ns();
    return 0;
}

static const char *start_seed(int64_t *stamped, int64_t *began)
{
    const yoke_process_config config = {.size = sizeof config, .image = YOKE_SEED};
    yoke_process *process;
    yoke_process_end end = {.code = -1};
    *began = bench_now_ns();
    int error = yoke_process_start(&config, stamp, stamped, &process);
    if (error) {
        return bench_why("yoke_process_start", error);
    }
    error = yoke_process_wait(process, yoke_in_ms(5000), &end);
    yoke_process_release(process);
    if (error) {
        return bench_why("yoke_process_wait", error);
    }
    return end.code == 0 ? NULL : "the process ended badly";
}

static const char *start_fork(int64_t *stamped, int64_t *began)
{
    int status = -1;
    *began = bench_now_ns();
    const pid_t pid = fork();
    if (pid == 0) {
        stamp(stamped);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        return "fork went wrong";
    }
    return NULL;
}

static void *stamp_thread(void *arg)
{
    stamp(arg);
    return NULL;
}

static const char *start_thread(int64_t *stamped, int64_t *began)
{
    pthread_t thread;
    *began = bench_now_ns();
    if (pthread_create(&thread, NULL, stamp_thread, stamped) != 0) {
        return "pthread_create went wrong";
    }
    pthread_join(thread, NULL);
    return NULL;
}

static const char *start_one(char what, int64_t *stamped, double *us)
{
    int64_t began = 0;
    const char *why = NULL;
    *stamped = 0;
    if (what == PAUSE_SEED || what == PAUSE_THREAD) {
        bench_nap_ns(PAUSE_NS);
    }
    if (what == START_FORK) {
        why = start_fork(stamped, &began);
    } else if (what == START_THREAD || what == PAUSE_THREAD) {
        why = start_thread(stamped, &began);
    } else {
        why = start_seed(stamped, &began);
    }
    if (!why && (*stamped < began || *stamped > bench_now_ns())) {
        why = "the function did not stamp";
    }
    *us = (double)(*stamped - began) / 1e3;
    return why;
}

static void answer_one(char what, int64_t *stamped, struct answer *answer)
{
    double us[STARTS];
    const char *why = NULL;
    memset(answer, 0, sizeof *answer);
    for (int i = 0; i < STARTS && !why; i++) {
        why = start_one(what, stamped, &us[i]);
    }
    if (why) {
        snprintf(answer->why, sizeof answer->why, "%s", why);
    } else {
        answer->us = bench_median(us, STARTS);
    }
}

/* Small pages, as most of a large program's memory has them. */
static int hold(size_t bytes)
{
    char *memory = malloc(bytes);
    for (size_t i = 0; memory && i < bytes; i += PAGE) {
        ((volatile char *)memory)[i] = 1;
    }
    return memory ? 0 : -ENOMEM;
}

int start_holder_main(const char *megabytes)
{
    char what;
    struct answer answer;
    int64_t *stamped = yoke_shared_alloc(sizeof *stamped);
    if (!stamped || hold(strtoul(megabytes, NULL, 10) * 1000000) != 0) {
        return 1;
    }
    while (bench_read(STDIN_FILENO, &what, 1) == 0) {
        answer_one(what, stamped, &answer);
        if (bench_write(STDOUT_FILENO, &answer, sizeof answer) != 0) {
            return 1;
        }
    }
    return 0;
}

/* ---- in the program that asks */

static const char *ask(struct bench_program *holder, char what, double *us)
{
    static struct answer answer;
    if (bench_write(holder->to, &what, 1) != 0 ||
        bench_read(holder->from, &answer, sizeof answer) != 0) {
        return "the program that holds the memory has gone";
    }
    *us = answer.us;
    return answer.why[0] ? answer.why : NULL;
}

static const char *start_holder(struct bench_program *holder, unsigned megabytes)
{
    char text[16];
    double us;
    snprintf(text, sizeof text, "%u", megabytes);
    const int error = bench_program_start(holder, "--holder", text);
    return error ? bench_why("the program that holds memory", error) : ask(holder, START_SEED, &us);
}

static const char *start_small(void)
{
    return start_holder(&small, SMALL_MB);
}
static const char *start_large(void)
{
    return start_holder(&large, LARGE_MB);
}

static const char *start_both(void)
{
    const char *why = start_small();
    return why ? why : start_large();
}

static void stop_both(void)
{
    bench_program_stop(&small);
    bench_program_stop(&large);
}

static const char *seed_large(double *us)
{
    return ask(&large, START_SEED, us);
}
static const char *seed_small(double *us)
{
    return ask(&small, START_SEED, us);
}
static const char *fork_large(double *us)
{
    return ask(&large, START_FORK, us);
}
static const char *seed_rested(double *us)
{
    return ask(&small, PAUSE_SEED, us);
}
static const char *thread_rested(double *us)
{
    return ask(&small, PAUSE_THREAD, us);
}

static const bench_figure figures[] = {
    {.name = "process/start-flat",
     .unit = "us",
     .reference = "the same start in a 10 MB program",
     .yoke = seed_large,
     .ref = seed_small,
     .rounds = 61,
     .memory_mib = 2000,
     .setup = start_both,
     .teardown = stop_both},
    {.name = "process/start-fork-1g",
     .unit = "us",
     .reference = "fork in the same 1 GB program",
     .yoke = seed_large,
     .ref = fork_large,
     .rounds = 9,
     .memory_mib = 2000,
     .setup = start_large,
     .teardown = stop_both},
    {.name = "process/start-spare",
     .unit = "us",
     .reference = "pthread_create",
     .yoke = seed_rested,
     .ref = thread_rested,
     .rounds = 31,
     .setup = start_small,
     .teardown = stop_both},
};

const bench_table bench_start_table = {figures, sizeof figures / sizeof *figures};
