/* SPDX-License-Identifier: MIT
 * test_elastic.c - thread pools that grow while their tasks wait, and shrink again.
 *
 * Idea: tasks that wait for each other can only end if all of them run at the same time; the
 * pool must grow to hold them, never beyond workers_max, and be small again afterwards.
 */
/* tsan: yes */
/* timeout: 180 */
#define CHECK_TIMEOUT 120
#include "check.h"
#include <pthread.h>

enum { MOST = 16 };

struct party {
    atomic_long here, most, wanted, gone;
};

/* Ends when as many as wanted are here: no caller helps, since each waits for the others. */
static int meet(yoke_task *task, const void *in, void *out)
{
    struct party *party = *(struct party *const *)in;
    const int64_t until = soon();
    (void)task;
    (void)out;
    const long here = count_up(&party->here, 1) + 1;
    if (here > count_get(&party->most))
        count_set(&party->most, here);
    while (count_get(&party->here) < count_get(&party->wanted)) {
        if (yoke_now_ns() > until)
            return 1;
        breathe();
    }
    count_up(&party->gone, 1);
    return 0;
}

static yoke_pool *make_elastic(unsigned workers, unsigned most)
{
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_THREADS, .workers = workers, .workers_max = most};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    return pool;
}

static void a_pool_grows_until_all_tasks_run(void)
{
    yoke_pool *pool = make_elastic(1, MOST);
    for (int round = 0; round < 5; round++) {
        struct party party = {.wanted = MOST};
        struct party *at = &party;
        yoke_job *jobs[MOST];
        for (int i = 0; i < MOST; i++)
            CHECK_RC(yoke_submit(pool, meet, &at, sizeof at, 0, NULL, &jobs[i]), 0);
        WAIT_FOR(count_get(&party.gone) == MOST); /* without this thread's help */
        CHECK_RC(yoke_wait_all(jobs, MOST, soon()), 0);
        for (int i = 0; i < MOST; i++) {
            yoke_outcome outcome;
            CHECK_RC(yoke_job_result(jobs[i], &outcome, NULL, NULL), 0);
            CHECK_EQ(outcome.kind, YOKE_OK);
            yoke_job_release(jobs[i]);
        }
        const yoke_pool_stats stats = stats_of(pool);
        CHECK(stats.workers <= MOST);
        CHECK_EQ(stats.died, 0);
    }
    end_pool(pool);
}

struct crowd {
    atomic_long now, most, ended;
};

static int sleep_a_little(yoke_task *task, const void *in, void *out)
{
    struct crowd *crowd = *(struct crowd *const *)in;
    (void)task;
    (void)out;
    const long now = count_up(&crowd->now, 1) + 1;
    long most = count_get(&crowd->most);
    while (now > most &&
           !atomic_compare_exchange_strong_explicit(&crowd->most, &most, now, memory_order_seq_cst,
                                                    memory_order_seq_cst)) {
    }
    const int rc = yoke_sleep_until(yoke_in_ms(2));
    count_up(&crowd->now, -1);
    count_up(&crowd->ended, 1);
    return rc == 0 ? 0 : 1;
}

static void a_pool_never_grows_beyond_its_most_and_shrinks(void)
{
    enum { TASKS = 600 };
    const int threads = count_threads();
    yoke_pool *pool = make_elastic(2, 6);
    struct crowd crowd = {0};
    struct crowd *at = &crowd;
    yoke_job *jobs[TASKS];
    for (int i = 0; i < TASKS; i++)
        CHECK_RC(yoke_submit(pool, sleep_a_little, &at, sizeof at, 0, NULL, &jobs[i]), 0);
    WAIT_FOR(count_get(&crowd.ended) == TASKS);
    CHECK_RC(yoke_wait_all(jobs, TASKS, soon()), 0);
    for (int i = 0; i < TASKS; i++) {
        yoke_outcome outcome;
        CHECK_RC(yoke_job_result(jobs[i], &outcome, NULL, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_OK);
        yoke_job_release(jobs[i]);
    }
    CHECK(count_get(&crowd.most) > 2);
    CHECK(count_get(&crowd.most) <= 6);
    WAIT_MS(stats_of(pool).workers == 2, 40000);
    check_pool_works(pool);
    end_pool(pool);
    WAIT_FOR(count_threads() <= threads);
}

static void a_pool_that_may_not_grow_does_not(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct crowd crowd = {0};
    struct crowd *at = &crowd;
    yoke_job *jobs[60];
    for (int i = 0; i < 60; i++)
        CHECK_RC(yoke_submit(pool, sleep_a_little, &at, sizeof at, 0, NULL, &jobs[i]), 0);
    WAIT_FOR(count_get(&crowd.ended) == 60);
    for (int i = 0; i < 60; i++)
        yoke_job_release(jobs[i]);
    CHECK(count_get(&crowd.most) <= 2);
    end_pool(pool);
}

/* Threads that are interrupted while they wait for jobs that wait for them. */
static int wait_for_job(void *job)
{
    return yoke_wait(job, YOKE_FOREVER);
}

static void interrupts_race_with_the_end_of_jobs(void)
{
    yoke_pool *pool = make_elastic(1, 8);
    uint64_t random = random_seed();
    for (int round = 0; round < 150; round++) {
        struct party party = {.wanted = 2};
        struct party *at = &party;
        yoke_job *jobs[2];
        yoke_thread *threads[3];
        CHECK_RC(yoke_submit(pool, meet, &at, sizeof at, 0, NULL, &jobs[0]), 0);
        WAIT_FOR(count_get(&party.here) == 1); /* begun: a waiter cannot run it itself */
        for (int i = 0; i < 3; i++)
            CHECK_RC(yoke_thread_start(NULL, wait_for_job, jobs[0], &threads[i]), 0);
        const uint64_t r = random_next(&random);
        if (r & 1)
            CHECK_EQ(yoke_thread_interrupt(threads[0]), 0);
        CHECK_RC(yoke_submit(pool, meet, &at, sizeof at, 0, NULL, &jobs[1]), 0);
        if (r & 2)
            CHECK_EQ(yoke_thread_interrupt(threads[1]), 0);
        for (int i = 0; i < 3; i++) {
            int code = 77;
            CHECK_RC(yoke_thread_wait(threads[i], soon(), &code), 0);
            CHECK(code == 0 || (code == -ECANCELED && i < 2 && (r >> i & 1)));
            yoke_thread_release(threads[i]);
        }
        CHECK_RC(yoke_wait_all(jobs, 2, soon()), 0);
        yoke_job_release(jobs[0]);
        yoke_job_release(jobs[1]);
    }
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(a_pool_grows_until_all_tasks_run);
    RUN(a_pool_never_grows_beyond_its_most_and_shrinks);
    RUN(a_pool_that_may_not_grow_does_not);
    RUN(interrupts_race_with_the_end_of_jobs);
    return 0;
}
