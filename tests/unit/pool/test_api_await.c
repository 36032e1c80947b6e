/* SPDX-License-Identifier: MIT
 * test_api_await.c - a loop that looks after many jobs hears of each end, however it came about.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

static int die(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    raise(SIGKILL);
    return 0;
}

static int linger(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    while (yoke_task_cancelled(task) == 0)
        breathe();
    return 0;
}

static int64_t square_of(yoke_job *job)
{
    const void *out = NULL;
    yoke_outcome outcome;
    CHECK_RC(yoke_job_result(job, &outcome, &out, NULL), 0);
    CHECK_EQ(outcome.kind, YOKE_OK);
    return *(const int64_t *)out;
}

static void each_end_is_heard_of(int kind)
{
    enum { ROUNDS = 300 };
    yoke_pool *pool = make_pool(kind, 2);
    uint64_t ended = 0;
    for (int64_t i = 0; i < ROUNDS; i++) {
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(pool, check_square, &i, sizeof i, sizeof i, NULL, &job), 0);
        CHECK_RC(yoke_pool_await(pool, &ended, soon()), 0);
        CHECK_EQ(ended, i + 1);
        CHECK_EQ(square_of(job), i * i);
        yoke_job_release(job);
    }
    CHECK_RC(yoke_pool_await(pool, &ended, 0), -ETIMEDOUT);
    CHECK_RC(yoke_pool_await(pool, &ended, yoke_in_ms(1)), -ETIMEDOUT);
    CHECK_RC(yoke_pool_await(pool, NULL, 0), -EINVAL);
    CHECK_RC(yoke_pool_await(NULL, &ended, 0), -EINVAL);
    end_pool(pool);
}

struct watcher {
    yoke_pool *pool;
    uint64_t ended;
    int rc;
    atomic_long waits;
};

static void *watch(void *arg)
{
    struct watcher *const watcher = arg;
    count_set(&watcher->waits, 1);
    watcher->rc = yoke_pool_await(watcher->pool, &watcher->ended, soon());
    return NULL;
}

/* The task is handed in after the watcher went to sleep, with nothing to wait for. */
static void what_comes_later_wakes_it(int kind)
{
    yoke_pool *pool = make_pool(kind, 1);
    for (int i = 0; i < 50; i++) {
        struct watcher watcher = {.pool = pool, .ended = (uint64_t)i};
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, watch, &watcher), 0);
        WAIT_FOR(count_get(&watcher.waits) == 1);
        if (i % 2 == 0)
            (void)yoke_sleep_until(yoke_in_ms(2));
        const int64_t in = 3;
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(pool, check_square, &in, sizeof in, sizeof in, NULL, &job), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_RC(watcher.rc, 0);
        CHECK_EQ(watcher.ended, i + 1);
        CHECK_EQ(square_of(job), 9);
        yoke_job_release(job);
    }
    end_pool(pool);
}

static void deaths_and_cancels_count(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    uint64_t ended = 0;
    yoke_job *dead = NULL, *long_one = NULL, *queued = NULL;
    CHECK_RC(yoke_submit(pool, die, NULL, 0, 0, NULL, &dead), 0);
    CHECK_RC(yoke_pool_await(pool, &ended, soon()), 0);
    yoke_outcome outcome;
    CHECK_RC(yoke_job_result(dead, &outcome, NULL, NULL), 0);
    CHECK_EQ(outcome.signal, SIGKILL);
    CHECK_RC(yoke_submit(pool, linger, NULL, 0, 0, NULL, &long_one), 0);
    CHECK_RC(yoke_submit(pool, linger, NULL, 0, 0, NULL, &queued), 0);
    CHECK_RC(yoke_pool_await(pool, &ended, yoke_in_ms(5)), -ETIMEDOUT);
    CHECK_RC(yoke_job_cancel(queued, 0), 0);
    CHECK_RC(yoke_pool_await(pool, &ended, soon()), 0);
    CHECK_EQ(ended, 2);
    CHECK_RC(yoke_job_cancel(long_one, 1), 0);
    CHECK_RC(yoke_pool_await(pool, &ended, soon()), 0);
    CHECK_EQ(ended, 3);
    yoke_job *const all[] = {dead, long_one, queued};
    yoke_job_release_all(all, 3);
    end_pool(pool);
}

static void nothing_to_wait_for_in_a_serial_pool(void)
{
    yoke_pool *pool = make_pool(YOKE_SERIAL, 1);
    uint64_t ended = 0;
    CHECK_RC(yoke_pool_await(pool, &ended, soon()), -ETIMEDOUT);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    FOR_EACH_KIND(kind)
    {
        if (kind != YOKE_SERIAL) {
            each_end_is_heard_of(kind);
            what_comes_later_wakes_it(kind);
        }
    }
    if (check_has_kind(YOKE_PROCESSES))
        RUN(deaths_and_cancels_count);
    RUN(nothing_to_wait_for_in_a_serial_pool);
    return 0;
}
