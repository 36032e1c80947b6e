/* SPDX-License-Identifier: MIT
 * test_post_full.c - tasks that hand in tasks where there is no room: no stack overflows, and no two
 * pools wait for each other.
 */
/* tsan: yes */
/* timeout: 120 */
#define CHECK_TIMEOUT 100
#include "gate.h"
#include <pthread.h>

#include "pool/pool_private.h"

enum { CELLS = 1024, CHAIN = 100000 };

static int do_nothing(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return 0;
}

/* Each posts the next one; outside threads see to it that there is never room. */
struct chain {
    yoke_pool *pool;
    struct gate gate;
    atomic_long left, over;
    int submits;
};

static int post_next(yoke_task *task, const void *in, void *out)
{
    struct chain *chain = *(struct chain *const *)in;
    (void)task;
    (void)out;
    if (count_up(&chain->left, -1) <= 1) {
        count_set(&chain->over, 1);
    } else if (chain->submits) {
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(chain->pool, post_next, &chain, sizeof chain, 0, NULL, &job), 0);
        yoke_job_release(job);
    } else {
        CHECK_RC(yoke_post(chain->pool, post_next, &chain, sizeof chain, NULL), 0);
    }
    return 0;
}

static void *keep_it_full(void *arg)
{
    struct chain *chain = arg;
    while (!count_get(&chain->over))
        CHECK_RC(yoke_post(chain->pool, do_nothing, NULL, 0, NULL), 0);
    return NULL;
}

/* Who waits at the gate, and then begins a chain: the ring is full by then. */
static int begin_chain(yoke_task *task, const void *in, void *out)
{
    struct chain *chain = *(struct chain *const *)in;
    const int rc = wait_at_gate(task, &(struct gate *){&chain->gate}, NULL);
    return rc != 0 ? rc : post_next(task, in, out);
}

static void a_chain_of_posts_needs_little_stack(void)
{
    for (long workers = 1; workers <= 2; workers++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, (unsigned)workers);
        struct chain chain = {.pool = pool, .left = CHAIN}, *at = &chain;
        pthread_t threads[2];
        for (long i = 0; i < workers; i++) {
            CHECK_RC(yoke_post(pool, begin_chain, &at, sizeof at, NULL), 0);
            WAIT_FOR(count_get(&chain.gate.inside) == i + 1);
        }
        for (int i = 0; i < CELLS; i++)
            CHECK_RC(yoke_post(pool, do_nothing, NULL, 0, NULL), 0);
        for (int i = 0; i < 2; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, keep_it_full, &chain), 0);
        count_set(&chain.gate.open, 1);
        WAIT_FOR(count_get(&chain.over));
        for (int i = 0; i < 2; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        drain(pool);
        CHECK_EQ(stats_of(pool).in_flight, 0);
        end_pool(pool);
    }
}

/* The table stays full: nobody collects what has ended, and what queues waits for the one worker. */
static void a_chain_of_jobs_needs_little_stack(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    struct chain chain = {.pool = pool, .left = CHAIN / (long)check_slowness(), .submits = 1},
                 *at = &chain;
    struct gate gate = {0}, *door = &gate;
    yoke_job *jobs[CELLS];
    CHECK_RC(yoke_submit(pool, wait_at_gate, &door, sizeof door, 0, NULL, &jobs[0]), 0);
    WAIT_FOR(count_get(&gate.inside));
    for (int i = 1; i < CELLS; i++)
        CHECK_RC(yoke_submit(pool, post_next, &at, sizeof at, 0, NULL, &jobs[i]), 0);
    count_set(&gate.open, 1);
    WAIT_FOR(count_get(&chain.over));
    CHECK_RC(yoke_wait_all(jobs, CELLS, soon()), 0);
    for (int i = 0; i < CELLS; i++)
        yoke_job_release(jobs[i]);
    drain(pool);
    /* Workers pass all tickets one by one: there are no more of them than tasks. */
    CHECK(atomic_load(&pool->ctl->tail) <= CELLS + CHAIN);
    CHECK_EQ(stats_of(pool).in_flight, 0);
    end_pool(pool);
}

/* What a task of another pool leaves to the workers wakes one: they sleep, behind a table that is full
 * of what has ended and nobody collects. */
static void what_is_left_wakes_a_worker(void)
{
    yoke_pool *pools[2] = {make_pool(YOKE_THREADS, 1), make_pool(YOKE_THREADS, 1)};
    struct chain chain = {.pool = pools[1], .submits = 1}, *at = &chain;
    yoke_job *jobs[CELLS];
    for (int i = 0; i < CELLS; i++)
        CHECK_RC(yoke_submit(pools[1], do_nothing, NULL, 0, 0, NULL, &jobs[i]), 0);
    for (int round = 1; round <= 100; round++) {
        count_set(&chain.over, 0);
        count_set(&chain.left, 5 + round % 20);
        CHECK_RC(yoke_post(pools[0], post_next, &at, sizeof at, NULL), 0);
        WAIT_FOR(count_get(&chain.over));
    }
    CHECK_RC(yoke_wait_all(jobs, CELLS, soon()), 0);
    for (int i = 0; i < CELLS; i++)
        yoke_job_release(jobs[i]);
    for (int i = 0; i < 2; i++) {
        drain(pools[i]);
        end_pool(pools[i]);
    }
}

/* Two pools that are full of tasks, each of which hands more than there is room for to the other. */
struct pair {
    yoke_pool *pools[2];
    atomic_long inside, ran;
    int submits;
};

struct half {
    struct pair *pair;
    long which;
};

static int note_other(yoke_task *task, const void *in, void *out)
{
    const struct half half = *(const struct half *)in;
    (void)out;
    CHECK_EQ(yoke_task_cancelled(task), 0);
    CHECK_RC(yoke_pool_drain(half.pair->pools[half.which], 0), -EDEADLK);
    count_up(&half.pair->ran, 1);
    return 0;
}

static int hand_over(yoke_task *task, const void *in, void *out)
{
    const struct half half = *(const struct half *)in, other = {half.pair, !half.which};
    yoke_pool *to = half.pair->pools[other.which];
    (void)task;
    (void)out;
    count_up(&half.pair->inside, 1);
    const int64_t until = soon();
    while (count_get(&half.pair->inside) < 2) {
        CHECK(yoke_now_ns() < until);
        breathe();
    }
    for (int i = 0; i < 3 * CELLS; i++) {
        yoke_job *job = NULL;
        CHECK_RC(half.pair->submits
                     ? yoke_submit(to, note_other, &other, sizeof other, 0, NULL, &job)
                     : yoke_post(to, note_other, &other, sizeof other, NULL),
                 0);
        yoke_job_release(job);
    }
    return 0;
}

static void pools_that_hand_to_each_other_do_not_stop(void)
{
    for (int submits = 0; submits < 2; submits++) {
        struct pair pair = {{make_pool(YOKE_THREADS, 1), make_pool(YOKE_THREADS, 1)},
                            .submits = submits};
        for (int i = 0; i < 2; i++) {
            const struct half half = {&pair, i};
            CHECK_RC(yoke_post(pair.pools[i], hand_over, &half, sizeof half, NULL), 0);
        }
        WAIT_FOR(count_get(&pair.inside) == 2);
        /* The first once more: the other has handed it the last ones. */
        for (int i = 0; i < 3; i++)
            drain(pair.pools[i % 2]);
        CHECK_EQ(count_get(&pair.ran), 6 * CELLS);
        for (int i = 0; i < 2; i++)
            end_pool(pair.pools[i]);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(a_chain_of_posts_needs_little_stack);
    RUN(a_chain_of_jobs_needs_little_stack);
    RUN(what_is_left_wakes_a_worker);
    RUN(pools_that_hand_to_each_other_do_not_stop);
    return 0;
}
