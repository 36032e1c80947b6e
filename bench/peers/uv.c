/* SPDX-License-Identifier: MIT
 * uv.c - libuv's thread pool: uv_queue_work.
 *
 * Idea: the loop runs between passes only, so what is measured is the way to a thread; the requests
 * come from an array, as a program would keep its own: at most that many until settle. The number of threads is libuv's to read, once.
 */
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

enum { REQUESTS = 1 << 17 };

struct request {
    uv_work_t work;
    bench_task_fn *fn;
    void *arg;
};

static uv_loop_t loop;
static struct request *requests;
static size_t next;

static void run(uv_work_t *work)
{
    struct request *const request = (struct request *)work;
    request->fn(request->arg);
}

static void ended(uv_work_t *work, int status)
{
    (void)work;
    (void)status;
}

static const char *start(unsigned threads)
{
    char text[16];
    snprintf(text, sizeof text, "%u", threads);
    setenv("UV_THREADPOOL_SIZE", text, 1);
    requests = calloc(REQUESTS, sizeof *requests);
    next = 0;
    return requests && uv_loop_init(&loop) == 0 ? NULL : "libuv has no loop";
}

static void stop(void)
{
    uv_loop_close(&loop);
    free(requests);
    requests = NULL;
}

static void post(bench_task_fn *fn, void *arg)
{
    struct request *const request = &requests[next++];
    request->fn = fn;
    request->arg = arg;
    uv_queue_work(&loop, &request->work, run, ended);
}

static void settle(void)
{
    uv_run(&loop, UV_RUN_DEFAULT);
    next = 0;
}

const bench_peer bench_peer_table = {
    .start = start, .stop = stop, .quiet_ns = 2000000, .post = post, .settle = settle};
