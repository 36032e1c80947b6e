/* SPDX-License-Identifier: MIT
 * test_threads_calls.c - calls on thread pools keep their word at the edges: who a task is, what a
 * cancelled call says, what a closing pool allows, whom drain and await count.
 */
/* tsan: yes */
/* timeout: 120 */
#define CHECK_TIMEOUT 100
#include "check.h"
#include <pthread.h>
#include <yoke/fork.h>

enum { HOUR_S = 3600 };

static yoke_options with(yoke_cancel *token)
{
    return (yoke_options){.size = sizeof(yoke_options), .cancel = token};
}

static yoke_cancel *make_token(void)
{
    yoke_cancel *token = NULL;
    CHECK_RC(yoke_cancel_create(NULL, &token), 0);
    return token;
}

/* ---- a map so short that its caller runs it alone --------------------------------------------- */

static int note_worker(yoke_task *task, const void *in, void *out)
{
    (void)in;
    *(unsigned *)out = yoke_task_worker(task);
    return 0;
}

static void caller_has_a_number_of_its_own(void)
{
    yoke_pool *const pool = make_pool(YOKE_THREADS, 1);
    for (int i = 0; i < 100; i++) {
        unsigned worker = 99;
        CHECK_RC(yoke_map(pool, note_worker, NULL, 0, &worker, sizeof worker, 1, NULL), 0);
        CHECK_EQ(worker, 1); /* 0 is the worker's; nobody takes a map of one item */
    }
    end_pool(pool);
}

static int drain_inside(yoke_task *task, const void *in, void *out)
{
    yoke_pool *const pool = *(yoke_pool *const *)in;
    (void)task;
    *(int *)out = pool != NULL ? yoke_pool_drain(pool, 0) : 0;
    return 0;
}

static void short_map_is_inside_its_pool(void)
{
    yoke_pool *const pool = make_pool(YOKE_THREADS, 2);
    yoke_pool *at = NULL;
    int rc = 1;
    for (int i = 0; i < 10; i++)
        CHECK_RC(yoke_map(pool, drain_inside, &at, sizeof at, &rc, sizeof rc, 1, NULL), 0);
    at = pool;
    CHECK_RC(yoke_map(pool, drain_inside, &at, sizeof at, &rc, sizeof rc, 1, NULL), 0);
    CHECK_RC(rc, -EDEADLK);
    end_pool(pool);
}

/* ---- a run in the caller ---------------------------------------------------------------------- */

struct sleep {
    atomic_long begun;
    yoke_cancel *token;
    int rc;
};

static void sleep_an_hour(yoke_strand strand, void *arg)
{
    struct sleep *const it = arg;
    count_up(&it->begun, 1);
    it->rc = yoke_sleep_until(yoke_now_ns() + HOUR_S * 1000000000LL);
    CHECK_EQ(yoke_strand_cancelled(strand), 1);
}

static void *cancel_sleeper(void *arg)
{
    struct sleep *const it = arg;
    WAIT_FOR(count_get(&it->begun) != 0);
    yoke_cancel_set(it->token);
    return NULL;
}

static void wait_in_a_run_sees_its_token(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *const pool = make_pool(kind, kind == YOKE_SERIAL ? 0 : 2);
        struct sleep it = {.token = make_token()};
        const yoke_options options = with(it.token);
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, cancel_sleeper, &it), 0);
        CHECK_RC(yoke_run(pool, sleep_an_hour, &it, &options), -ECANCELED);
        CHECK_RC(it.rc, -ECANCELED);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        yoke_cancel_release(it.token);
        end_pool(pool);
    }
}

static void ask_until_told(yoke_strand strand, void *arg)
{
    const int64_t until = soon();
    atomic_long *const begun = arg;
    count_up(begun, 1);
    while (!yoke_strand_cancelled(strand)) {
        CHECK(yoke_now_ns() < until);
        breathe();
    }
}

struct asker {
    yoke_pool *pool;
    atomic_long *begun;
};

static int run_asker(yoke_task *task, const void *in, void *out)
{
    const struct asker it = *(const struct asker *)in;
    (void)task;
    (void)out;
    return yoke_run(it.pool, ask_until_told, it.begun, NULL) == -ECANCELED ? 0 : 1;
}

static void strand_in_a_task_sees_its_cancel(void)
{
    atomic_long *const begun = shared_zeroed(sizeof *begun);
    for (int kind = YOKE_THREADS; kind <= YOKE_PROCESSES; kind++) {
        if (!check_has_kind(kind))
            continue;
        yoke_pool *const pool = make_pool(kind, 2);
        const struct asker it = {pool, begun};
        yoke_job *job = NULL;
        count_set(begun, 0);
        CHECK_RC(yoke_submit(pool, run_asker, &it, sizeof it, 0, NULL, &job), 0);
        WAIT_FOR(count_get(begun) != 0);
        CHECK_RC(yoke_job_cancel(job, 0), 0);
        CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
        end_pool(pool);
    }
}

/* ---- cancelled ranges ------------------------------------------------------------------------- */

static int nothing(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return 0;
}

static void cancelled_map_tells_the_first_item(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *const pool = make_pool(kind, kind == YOKE_SERIAL ? 0 : 2);
        yoke_outcome failure = {.kind = -1};
        yoke_options options = with(make_token());
        options.failure = &failure;
        yoke_cancel_set(options.cancel);
        CHECK_RC(yoke_map(pool, nothing, NULL, 0, NULL, 0, 100, &options), -ECANCELED);
        CHECK_EQ(failure.kind, YOKE_CANCELLED);
        CHECK_EQ(failure.item, 0);
        yoke_cancel_release(options.cancel);
        end_pool(pool);
    }
}

static int fail(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    (void)begin;
    (void)end;
    (void)accumulator;
    return 3;
}

/* What is left is passed over at once, however much that is. */
static void failed_loop_ends_at_once(void)
{
    yoke_pool *const pool = make_pool(YOKE_THREADS, 2);
    yoke_outcome failure = {.kind = -1};
    const yoke_options options = {.size = sizeof options, .fail_fast = 1, .failure = &failure};
    CHECK_RC(yoke_for(pool, fail, SIZE_MAX, &options), YOKE_ETASK);
    CHECK_EQ(failure.kind, YOKE_FAILED);
    CHECK_EQ(failure.code, 3);
    end_pool(pool);
}

/* ---- a pool that is being closed -------------------------------------------------------------- */

struct late {
    yoke_pool *pool;
    atomic_long begun;
    int map, run;
};

static void do_nothing(yoke_strand strand, void *arg)
{
    (void)strand;
    (void)arg;
}

static int call_when_closed(yoke_task *task, const void *in, void *out)
{
    struct late *const it = *(struct late *const *)in;
    (void)task;
    (void)out;
    count_up(&it->begun, 1);
    /* A post from a thread that is in no task is what tells that it is closed. */
    WAIT_FOR(count_get(&it->begun) == 2);
    it->map = yoke_map(it->pool, nothing, NULL, 0, NULL, 0, 100, NULL);
    it->run = yoke_run(it->pool, do_nothing, NULL, NULL);
    return 0;
}

static void *post_until_closed(void *arg)
{
    struct late *const it = arg;
    WAIT_FOR(yoke_post(it->pool, nothing, NULL, 0, NULL) == YOKE_ECLOSED);
    count_up(&it->begun, 1);
    return NULL;
}

static void tasks_of_a_closing_pool_finish(void)
{
    struct late it = {.pool = make_pool(YOKE_THREADS, 2), .map = 1, .run = 1};
    struct late *const in = &it;
    yoke_job *job = NULL;
    pthread_t thread;
    CHECK_RC(yoke_submit(it.pool, call_when_closed, &in, sizeof in, 0, NULL, &job), 0);
    WAIT_FOR(count_get(&it.begun) == 1);
    CHECK_EQ(pthread_create(&thread, NULL, post_until_closed, &it), 0);
    CHECK_RC(yoke_pool_destroy(it.pool, soon()), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_RC(it.map, 0);
    CHECK_RC(it.run, 0);
    yoke_job_release(job);
}

/* ---- drain and await -------------------------------------------------------------------------- */

static int wait_for_go(yoke_task *task, const void *in, void *out)
{
    atomic_long *const at = *(atomic_long *const *)in;
    (void)task;
    (void)out;
    count_up(&at[0], 1);
    WAIT_FOR(count_get(&at[1]) != 0);
    return 0;
}

struct mapper {
    yoke_pool *pool;
    atomic_long at[2];
};

static void *map_one(void *arg)
{
    struct mapper *const it = arg;
    atomic_long *const in = it->at;
    CHECK_RC(yoke_map(it->pool, wait_for_go, &in, sizeof in, NULL, 0, 1, NULL), 0);
    return NULL;
}

static void drain_waits_for_a_map(void)
{
    struct mapper it = {.pool = make_pool(YOKE_THREADS, 2)};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, map_one, &it), 0);
    WAIT_FOR(count_get(&it.at[0]) == 1);
    CHECK_RC(yoke_pool_drain(it.pool, 0), -ETIMEDOUT);
    count_up(&it.at[1], 1);
    CHECK_RC(yoke_pool_drain(it.pool, soon()), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    end_pool(it.pool);
}

static void await_counts_posts(void)
{
    yoke_pool *const pool = make_pool(YOKE_THREADS, 2);
    uint64_t ended = 0;
    CHECK_RC(yoke_post(pool, nothing, NULL, 0, NULL), 0);
    CHECK_RC(yoke_pool_await(pool, &ended, soon()), 0);
    CHECK_EQ(ended, 1);
    CHECK_EQ(stats_of(pool).tasks, 1);
    end_pool(pool);
}

/* ---- posts ------------------------------------------------------------------------------------ */

struct poster {
    yoke_pool *pool;
    yoke_cancel *token;
    atomic_long posted;
};

static void *post_until_told(void *arg)
{
    struct poster *const it = arg;
    const yoke_options options = with(it->token);
    int rc = 0;
    while ((rc = yoke_post(it->pool, nothing, NULL, 0, &options)) == 0)
        count_up(&it->posted, 1);
    CHECK_RC(rc, -ECANCELED);
    return NULL;
}

static void wait_for_room_sees_the_token(void)
{
    struct poster it = {.pool = make_pool(YOKE_THREADS, 1), .token = make_token()};
    atomic_long at[2] = {0};
    atomic_long *const in = at;
    pthread_t thread;
    CHECK_RC(yoke_post(it.pool, wait_for_go, &in, sizeof in, NULL), 0);
    WAIT_FOR(count_get(&at[0]) == 1);
    CHECK_EQ(pthread_create(&thread, NULL, post_until_told, &it), 0);
    WAIT_FOR(count_get(&it.posted) >= 1023);
    yoke_cancel_set(it.token);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    count_up(&at[1], 1);
    yoke_cancel_release(it.token);
    end_pool(it.pool);
}

/* It wakes all workers, and each of them once: they go to sleep again sooner than the last is up. */
static void first_post_wakes_many(void)
{
    yoke_pool *const pool = make_pool(YOKE_THREADS, CHECK_TSAN ? 100 : 600);
    CHECK_RC(yoke_post(pool, nothing, NULL, 0, NULL), 0);
    CHECK_RC(yoke_pool_drain(pool, soon()), 0);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(caller_has_a_number_of_its_own);
    RUN(short_map_is_inside_its_pool);
    RUN(wait_in_a_run_sees_its_token);
    RUN(strand_in_a_task_sees_its_cancel);
    RUN(cancelled_map_tells_the_first_item);
    RUN(failed_loop_ends_at_once);
    RUN(tasks_of_a_closing_pool_finish);
    RUN(drain_waits_for_a_map);
    RUN(await_counts_posts);
    RUN(wait_for_room_sees_the_token);
    RUN(first_post_wakes_many);
    return 0;
}
