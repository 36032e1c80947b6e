/* SPDX-License-Identifier: MIT
 * tour_memory.c - row "memory": what one more thread or process costs.
 *
 * Idea: the memory that a process has for itself alone (private pages, from smaps_rollup) and
 * its page tables; for threads, what the program grew by, divided by their number. The kernel's
 * own books (stacks, descriptors of tasks) are not in it, for any of them.
 */
#include "plain.h"
#include "tour.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yoke/yoke.h>

enum { THREADS = 32, PROCESSES = 5 };

/* The sum of the lines of a file in /proc that begin with one of the names, in bytes. */
static double proc_sum(int pid, const char *file, const char *const names[])
{
    char path[64], text[8192];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return -1;
    text[length] = '\0';
    double sum = 0;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        for (size_t i = 0; names[i] != NULL; i++)
            if (strncmp(line, names[i], strlen(names[i])) == 0)
                sum += strtod(line + strlen(names[i]), NULL) * 1024;
    }
    return sum;
}

/* What the process has for itself alone, or -1. */
static double own_bytes(int pid)
{
    static const char *const private[] = {"Private_Clean:", "Private_Dirty:", NULL};
    static const char *const tables[] = {"VmPTE:", NULL};
    const double pages = proc_sum(pid, "smaps_rollup", private);
    const double page_tables = proc_sum(pid, "status", tables);
    return pages < 0 || page_tables < 0 ? -1 : pages + page_tables;
}

/* Two pipes: who has started writes a byte to one, and ends when the other is closed. */
struct gate {
    int started[2], open[2];
};

static int gate_make(struct gate *gate)
{
    if (pipe2(gate->started, O_CLOEXEC) != 0)
        return -errno;
    if (pipe2(gate->open, O_CLOEXEC) == 0)
        return 0;
    const int rc = -errno;
    close(gate->started[0]);
    close(gate->started[1]);
    return rc;
}

static void gate_close(struct gate *gate)
{
    close(gate->started[0]);
    close(gate->started[1]);
    close(gate->open[0]);
}

static void *thread_at_gate(void *arg)
{
    const struct gate *gate = arg;
    char byte = 0;
    if (write(gate->started[1], &byte, 1) == 1)
        while (read(gate->open[0], &byte, 1) < 0 && errno == EINTR) {
        }
    return NULL;
}

static int plain_thread_bytes(double *bytes)
{
    pthread_t threads[THREADS];
    struct gate gate;
    char byte;
    int rc = gate_make(&gate);
    if (rc != 0)
        return rc;
    (void)own_bytes(getpid()); /* so that what it touches itself is not counted */
    const double before = own_bytes(getpid());
    size_t started = 0;
    while (started < THREADS && rc == 0) {
        rc = -pthread_create(&threads[started], NULL, thread_at_gate, &gate);
        started += rc == 0;
    }
    for (size_t i = 0; i < started; i++)
        if (read(gate.started[0], &byte, 1) != 1)
            rc = -EIO;
    *bytes = (own_bytes(getpid()) - before) / THREADS;
    close(gate.open[1]);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    gate_close(&gate);
    return rc;
}

/* Waits until a process that is about to sleep has settled: the same figure three times. */
static double settled_bytes(pid_t pid)
{
    double last = -1;
    int same = 0;
    for (const int64_t until_ns = yoke_in_ms(1000); same < 3 && yoke_now_ns() < until_ns;) {
        const double now = own_bytes(pid);
        same = now > 0 && now == last ? same + 1 : 0;
        last = now;
        if (yoke_sleep_until(yoke_in_ms(3)) != 0)
            break;
    }
    return last;
}

/* A child by fork, or by fork + exec of cat; both wait for the end of their input. */
static int plain_process_bytes(int exec, double *bytes)
{
    char name[] = "cat", *argv[] = {name, NULL}, byte;
    int input[2];
    if (pipe2(input, O_CLOEXEC) != 0)
        return -errno;
    const pid_t pid = exec ? plain_exec(argv, input[0]) : plain_fork();
    if (pid == 0) {
        close(input[1]);
        _exit(read(input[0], &byte, 1) == 0 ? 0 : 1);
    }
    *bytes = pid > 0 ? settled_bytes(pid) : -1;
    close(input[1]);
    close(input[0]);
    return pid > 0 ? plain_wait(pid) : -EAGAIN;
}

static int plain_processes_bytes(int exec, double *bytes)
{
    double samples[PROCESSES];
    for (size_t i = 0; i < PROCESSES; i++) {
        const int rc = plain_process_bytes(exec, &samples[i]);
        if (rc != 0)
            return rc;
    }
    *bytes = median(samples, PROCESSES);
    return 0;
}

static int touch(yoke_task *task, const void *in, void *out)
{
    *(size_t *)out = *(const size_t *)in + yoke_task_item(task);
    return 0;
}

/* Every worker has run something, so it has the memory of a worker at work. */
static int pool_exercise(yoke_pool *pool)
{
    size_t in[256], out[256];
    for (size_t i = 0; i < 256; i++)
        in[i] = i;
    return yoke_map(pool, touch, in, sizeof *in, out, sizeof *out, 256, NULL);
}

static int yoke_thread_bytes(double *bytes)
{
    yoke_pool *pool = NULL;
    const yoke_pool_config config = {.size = sizeof config, .workers = THREADS};
    const double before = own_bytes(getpid());
    int rc = yoke_pool_create(&config, &pool);
    if (rc != 0)
        return rc;
    rc = pool_exercise(pool);
    *bytes = (own_bytes(getpid()) - before) / THREADS;
    yoke_pool_destroy(pool, YOKE_FOREVER);
    return rc;
}

static int yoke_worker_bytes(int image, double *bytes)
{
    yoke_pool *pool = NULL;
    int pids[PROCESSES];
    double samples[PROCESSES];
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .image = image, .workers = PROCESSES};
    int rc = yoke_pool_create(&config, &pool);
    if (rc != 0)
        return rc;
    rc = pool_exercise(pool);
    const int count = yoke_pool_worker_ids(pool, pids, PROCESSES);
    for (int i = 0; i < count; i++)
        samples[i] = own_bytes(pids[i]);
    *bytes = median(samples, count > 0 ? (size_t)count : 0);
    yoke_pool_destroy(pool, YOKE_FOREVER);
    return rc != 0 ? rc : *bytes > 0 ? 0 : -EIO;
}

struct sizes {
    double thread, fork, exec, yoke_thread, yoke_worker;
    double big_fork, big_worker;
    size_t ballast_bytes;
};

static int measure(struct sizes *sizes)
{
    int rc = plain_thread_bytes(&sizes->thread);
    rc = rc ? rc : plain_processes_bytes(0, &sizes->fork);
    rc = rc ? rc : plain_processes_bytes(1, &sizes->exec);
    rc = rc ? rc : yoke_thread_bytes(&sizes->yoke_thread);
    rc = rc ? rc : yoke_worker_bytes(YOKE_SNAPSHOT, &sizes->yoke_worker);
    if (rc != 0)
        return rc;
    void *ballast = ballast_take(&sizes->ballast_bytes);
    if (ballast == NULL)
        return -ENOMEM;
    rc = plain_processes_bytes(0, &sizes->big_fork);
    rc = rc ? rc : yoke_worker_bytes(YOKE_SEED, &sizes->big_worker);
    ballast_give(ballast, sizes->ballast_bytes);
    return rc;
}

static void conclude(struct report *report, const struct sizes *sizes)
{
    char a[32], b[32], c[32], d[32], size[32];
    report_say(report,
               "%s: one more thread costs %s, one more Yoke worker process %s (%.1f times that), a "
               "program started with fork + exec %s.",
               sizes->yoke_worker > 1.15 * sizes->thread ? "True" : "Not here",
               text_bytes(a, sizeof a, sizes->thread), text_bytes(b, sizeof b, sizes->yoke_worker),
               sizes->yoke_worker / (sizes->thread > 0 ? sizes->thread : 1),
               text_bytes(c, sizeof c, sizes->exec));
    report_say(report,
               "From a program that holds %s a forked child costs %s, mostly page tables; a Yoke "
               "worker of the seed image costs %s.",
               text_bytes(size, sizeof size, (double)sizes->ballast_bytes),
               text_bytes(a, sizeof a, sizes->big_fork),
               text_bytes(d, sizeof d, sizes->big_worker));
    report_say(report, "%s",
               sizes->yoke_worker < 1e6 ? "Either way it is little: 100 workers fit in 100 MB."
                                        : "That is much: look for what the workers write to.");
}

int tour_memory(struct report *report)
{
    static const char small[] = "one more, of this small program";
    static const char big[] = "one more, of the same program when it holds much memory";
    struct sizes sizes = {.thread = 0};
    const int rc = measure(&sizes);
    if (rc != 0)
        return rc;
    report_add(report, small, "pthread", sizes.thread, UNIT_BYTES);
    report_add(report, small, "fork", sizes.fork, UNIT_BYTES);
    report_add(report, small, "fork + exec (cat)", sizes.exec, UNIT_BYTES);
    report_add(report, small, "Yoke worker thread", sizes.yoke_thread, UNIT_BYTES);
    report_add(report, small, "Yoke worker process", sizes.yoke_worker, UNIT_BYTES);
    report_add(report, big, "fork", sizes.big_fork, UNIT_BYTES);
    report_add(report, big, "Yoke worker process, seed image", sizes.big_worker, UNIT_BYTES);
    conclude(report, &sizes);
    return 0;
}
