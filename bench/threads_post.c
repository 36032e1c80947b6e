/* SPDX-License-Identifier: MIT
 * threads_post.c - figures of tasks that a thread outside hands in, one by one, and no result.
 *
 * Idea: each task adds one to a slot of its own, so that none is lost or runs twice unseen, and
 * no two threads want the same line for long. The time ends when all have run: Yoke is asked
 * (yoke_pool_drain); for a peer without such a call the caller looks at the slots in turn, which it
 * has to do once anyway.
 */
#include "harness.h"
#include "machine.h"
#include "threads.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum { TASKS = 100000 };

static atomic_uint slots[TASKS];
static unsigned pass;

static int bump_posted(yoke_task *task, const void *in, void *out)
{
    atomic_uint *slot;
    (void)task;
    (void)out;
    memcpy(&slot, in, sizeof slot);
    atomic_store_explicit(slot, atomic_load_explicit(slot, memory_order_relaxed) + 1,
                          memory_order_release);
    return 0;
}

static void bump(void *arg)
{
    bump_posted(NULL, &arg, NULL);
}

static const char *judge(void)
{
    for (size_t i = 0; i < TASKS; i++) {
        if (atomic_load(&slots[i]) != pass) {
            return "a task was lost, or ran twice";
        }
    }
    return NULL;
}

static const char *yoke_posts(double *ns)
{
    int error = 0;
    threads_rest();
    pass++;
    const int64_t from = bench_now_ns();
    for (size_t i = 0; i < TASKS && !error; i++) {
        atomic_uint *const slot = &slots[i];
        error = yoke_post(threads_pool, bump_posted, &slot, sizeof slot, NULL);
    }
    if (!error) {
        error = yoke_pool_drain(threads_pool, yoke_in_ms(10000));
    }
    *ns = (double)(bench_now_ns() - from) / TASKS;
    return error ? bench_why("yoke_post", error) : judge();
}

static const char *peer_posts(double *ns)
{
    threads_rest();
    pass++;
    const int64_t from = bench_now_ns();
    for (size_t i = 0; i < TASKS; i++) {
        threads_peer->post(bump, &slots[i]);
    }
    for (size_t i = 0; i < TASKS; i++) {
        while (atomic_load_explicit(&slots[i], memory_order_acquire) != pass) {
            sched_yield();
        }
    }
    *ns = (double)(bench_now_ns() - from) / TASKS;
    if (threads_peer->settle) {
        threads_peer->settle();
    }
    return judge();
}

static const char *start_one(void)
{
    return threads_start(1, "tbb");
}
static const char *start_two(void)
{
    return threads_start(2, "tbb");
}
static const char *start_glib(void)
{
    return threads_start(2, "glib");
}
static const char *start_uv(void)
{
    return threads_start(2, "uv");
}

#define FIGURE(NAME, REFERENCE, PEER, START) \
    { \
        .name = (NAME), .unit = "ns", .reference = (REFERENCE), .yoke = yoke_posts, \
        .ref = peer_posts, .rounds = 31, .cpus = 2, .peer = (PEER), .setup = (START), \
        .teardown = threads_stop \
    }

static const bench_figure figures[] = {
    FIGURE("threads/submit-1", "oneTBB, task_arena::enqueue", "tbb", start_one),
    FIGURE("threads/submit-2", "oneTBB, task_arena::enqueue", "tbb", start_two),
    FIGURE("threads/submit-glib", "GLib, g_thread_pool_push", "glib", start_glib),
    FIGURE("threads/submit-uv", "libuv, uv_queue_work", "uv", start_uv),
};

const bench_table bench_threads_post_table = {figures, sizeof figures / sizeof *figures};
