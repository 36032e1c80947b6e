/* SPDX-License-Identifier: MIT
 * clean.c - what is left when a program with a busy pool is killed.
 *
 * Idea: a watcher starts the program and declares itself the reaper of orphans, so that every
 * process of the program, whoever made it, ends up as the watcher's child. Then "none is left"
 * is exact: the wait for children says that there are no more. Nothing is polled.
 */
#include "harness.h"
#include "machine.h"
#include "roles.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yoke/yoke.h>

enum { WORKERS = 2, NAMES_MAX = 1024, WATCH_SECONDS = 20 };

struct report {
    double ms;
    int processes; /* that were reaped: the program, its workers, and what Yoke needs */
    char why[120]; /* empty: all is well */
};

/* ---- the program that is killed */

/* Tells that it runs, and runs for ever. */
static int busy(yoke_task *task, const void *in, void *out)
{
    volatile char *began = *(char *const *)in;
    (void)out;
    began[yoke_task_worker(task)] = 1;
    for (volatile uint64_t turns = 0;; turns++) {
    }
    return 0;
}

static int start_busy(yoke_pool *pool, char *began)
{
    for (int i = 0; i < WORKERS; i++) {
        yoke_job *job;
        if (yoke_submit(pool, busy, &began, sizeof began, 0, NULL, &job) != 0) {
            return -1;
        }
    }
    for (const volatile char *seen = began; !seen[0] || !seen[1];) {
        bench_nap_ns(100000);
    }
    return 0;
}

int clean_busy_main(const char *unused)
{
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .workers = WORKERS};
    yoke_pool *pool;
    char *began = yoke_shared_alloc(WORKERS);
    (void)unused;
    if (!began || yoke_pool_create(&config, &pool) != 0) {
        return 1;
    }
    memset(began, 0, WORKERS);
    if (start_busy(pool, began) != 0 || bench_write(STDOUT_FILENO, "r", 1) != 0) {
        return 1;
    }
    for (;;) {
        pause();
    }
}

/* ---- the watcher */

static int reap_all(void)
{
    int count = 0;
    for (;;) {
        if (waitpid(-1, NULL, __WALL) > 0) {
            count++;
        } else if (errno == ECHILD) {
            return count;
        }
    }
}

static const char *watch(struct report *report)
{
    struct bench_program program;
    char ready;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 ||
        bench_program_start(&program, "--busy", "-") != 0) {
        return "the program could not be started";
    }
    if (bench_read(program.from, &ready, 1) != 0) {
        return "the program did not get its pool busy";
    }
    const int64_t start = bench_now_ns();
    kill(program.pid, SIGKILL);
    report->processes = reap_all();
    report->ms = (double)(bench_now_ns() - start) / 1e6;
    return report->processes > WORKERS ? NULL : "the workers were not seen to go";
}

int clean_watcher_main(const char *unused)
{
    struct report report = {0};
    (void)unused;
    alarm(WATCH_SECONDS);
    const char *why = watch(&report);
    if (why) {
        snprintf(report.why, sizeof report.why, "%s", why);
    }
    return bench_write(STDOUT_FILENO, &report, sizeof report) != 0;
}

/* ---- the figure */

struct names {
    char *name[NAMES_MAX];
    int count;
};

static struct names before;

static void names_read(struct names *names)
{
    names->count = 0;
    DIR *folder = opendir("/dev/shm");
    for (const struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        if (names->count < NAMES_MAX) {
            names->name[names->count++] = strdup(entry->d_name);
        }
    }
    if (folder) {
        closedir(folder);
    }
}

static void names_free(struct names *names)
{
    while (names->count > 0) {
        free(names->name[--names->count]);
    }
}

static int names_has(const struct names *names, const char *name)
{
    for (int i = 0; i < names->count; i++) {
        if (names->name[i] && name && strcmp(names->name[i], name) == 0) {
            return 1;
        }
    }
    return 0;
}

static const char *find_leftover(void)
{
    static char text[160];
    struct names now;
    int left = 0;
    names_read(&now);
    for (int i = 0; i < now.count; i++) {
        left += !names_has(&before, now.name[i]);
    }
    names_free(&now);
    snprintf(text, sizeof text, "%d new names were left in /dev/shm", left);
    return left ? text : NULL;
}

static const char *kill_program(double *ms)
{
    static struct report report;
    struct bench_program watcher;
    names_read(&before);
    const int error = bench_program_start(&watcher, "--watcher", "-");
    if (error) {
        return bench_why("the watcher", error);
    }
    const int lost = bench_read(watcher.from, &report, sizeof report);
    bench_program_stop(&watcher);
    const char *leftover = find_leftover();
    names_free(&before);
    if (lost) {
        return "processes were left after the kill, or the watcher died";
    }
    *ms = report.ms;
    return report.why[0] ? report.why : leftover;
}

static const char *fifty_ms(double *ms)
{
    *ms = 50;
    return NULL;
}

static const bench_figure figures[] = {
    {.name = "clean/kill9",
     .unit = "ms",
     .reference = "50 ms",
     .yoke = kill_program,
     .ref = fifty_ms,
     .rounds = 15},
};

const bench_table bench_clean_table = {figures, sizeof figures / sizeof *figures};
