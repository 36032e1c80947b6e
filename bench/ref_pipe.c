/* SPDX-License-Identifier: MIT
 * ref_pipe.c - a pool of processes on two pipes.
 *
 * Idea: what one writes in an afternoon: all workers read the next request from one pipe and
 * write the answer to the other. A number fits into one write of a pipe, which is atomic, so
 * no lock is needed.
 */
#include "harness.h"
#include "machine.h"
#include "ref.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { WORKERS_MAX = 64 };

static struct {
    int request[2], answer[2];
    pid_t worker[WORKERS_MAX];
    unsigned workers;
} pool;

static void serve(void *arg)
{
    uint64_t number;
    (void)arg;
    while (bench_read(pool.request[0], &number, sizeof number) == 0) {
        number++;
        if (bench_write(pool.answer[1], &number, sizeof number) != 0) {
            return;
        }
    }
}

static void shut(int fd[2])
{
    close(fd[0]);
    close(fd[1]);
}

const char *ref_pipe_start(unsigned workers)
{
    pool.workers = 0;
    if (pipe2(pool.request, O_CLOEXEC) != 0) {
        return bench_why("pipe", -errno);
    }
    if (pipe2(pool.answer, O_CLOEXEC) != 0) {
        shut(pool.request);
        return bench_why("pipe", -errno);
    }
    while (pool.workers < workers && pool.workers < WORKERS_MAX) {
        const pid_t pid = bench_fork(serve, NULL);
        if (pid < 0) {
            return bench_why("fork", pid);
        }
        pool.worker[pool.workers++] = pid;
    }
    return NULL;
}

/* The answers come in any order: the sum shows that each came once. */
const char *ref_pipe_pass(unsigned depth, unsigned count, double *ns_each)
{
    uint64_t sum = 0, wanted = 0;
    const int64_t start = bench_now_ns();
    for (unsigned i = 0; i < count + depth; i++) {
        if (i >= depth) {
            uint64_t number = 0;
            if (bench_read(pool.answer[0], &number, sizeof number) != 0) {
                return "a worker on the pipes has gone";
            }
            sum += number;
        }
        if (i < count) {
            const uint64_t number = i;
            if (bench_write(pool.request[1], &number, sizeof number) != 0) {
                return "the workers on the pipes have gone";
            }
            wanted += number + 1;
        }
    }
    *ns_each = (double)(bench_now_ns() - start) / count;
    return sum == wanted ? NULL : "the pool on pipes gave a wrong answer";
}

void ref_pipe_stop(void)
{
    if (pool.workers == 0) {
        return;
    }
    while (pool.workers > 0) {
        bench_kill(pool.worker[--pool.workers]);
    }
    shut(pool.request);
    shut(pool.answer);
}
