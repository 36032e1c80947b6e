/* SPDX-License-Identifier: MIT
 * test_cancel_race.c - submit, cancel, wait and release race each other on every kind of pool.
 *
 * Idea: whoever wins, a job ends exactly once, as OK or as CANCELLED; one that was cancelled
 * before it began has not touched anything, and one that is OK has done all.
 */
/* tsan: yes */
/* timeout: 180 */
#define CHECK_TIMEOUT 120
#include "check.h"
#include <pthread.h>

enum { JOBS = 64, ROUNDS = 40 };

struct input {
    atomic_long *begun, *ended;
    int64_t spins;
};

static int work(yoke_task *task, const void *in, void *out)
{
    const struct input *input = in;
    count_up(input->begun, 1);
    for (int64_t i = 0; i < input->spins; i++) {
        if (yoke_task_cancelled(task))
            return 1;
        if (i % 4 == 0) /* on a busy machine each costs a slice of others */
            sched_yield();
    }
    *(int64_t *)out = input->spins;
    count_up(input->ended, 1);
    return 0;
}

struct race {
    yoke_job *jobs[JOBS];
    atomic_long begun_by, stop;
    uint64_t random;
    int force;
};

static void *cancel_some(void *arg)
{
    struct race *race = arg;
    uint64_t random = race->random;
    count_up(&race->begun_by, 1);
    for (int i = 0; i < JOBS; i++) {
        const uint64_t r = random_next(&random);
        const int rc = r % 2 ? yoke_job_cancel(race->jobs[r / 2 % JOBS], race->force) : 0;
        CHECK(rc == 0 || rc == -EALREADY);
        if (r % 7 == 0)
            sched_yield();
    }
    return NULL;
}

static void *wait_for_all(void *arg)
{
    struct race *race = arg;
    count_up(&race->begun_by, 1);
    CHECK_RC(yoke_wait_all(race->jobs, JOBS, soon()), 0);
    return NULL;
}

static void check_round(struct race *race, const atomic_long *begun, const atomic_long *ended)
{
    for (int i = 0; i < JOBS; i++) {
        yoke_outcome outcome;
        const void *out = NULL;
        CHECK_RC(yoke_job_result(race->jobs[i], &outcome, &out, NULL), 0);
        CHECK(outcome.kind == YOKE_OK || outcome.kind == YOKE_CANCELLED);
        if (outcome.kind == YOKE_OK) {
            CHECK_EQ(outcome.attempts, 1);
            CHECK_EQ(count_get(ended + i), 1);
            CHECK(out != NULL);
        } else {
            CHECK(out == NULL);
        }
        if (outcome.attempts == 0)
            CHECK_EQ(count_get(begun + i), 0);
        CHECK(count_get(begun + i) <= 1);
        yoke_job_release(race->jobs[i]);
    }
}

static void race_on(int kind, int force)
{
    yoke_pool *pool = make_pool(kind, 2);
    atomic_long *begun = shared_zeroed(2 * JOBS * sizeof *begun), *ended = begun + JOBS;
    uint64_t seed = random_seed();
    const int rounds = force ? ROUNDS / 4 : ROUNDS;
    for (int round = 0; round < rounds; round++) {
        struct race race = {.random = random_next(&seed), .force = force};
        memset(begun, 0, 2 * JOBS * sizeof *begun);
        for (int i = 0; i < JOBS; i++) {
            const struct input input = {begun + i, ended + i, (int64_t)(random_next(&seed) % 40)};
            CHECK_RC(yoke_submit(pool, work, &input, sizeof input, 8, NULL, &race.jobs[i]), 0);
        }
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, i % 2 ? wait_for_all : cancel_some, &race),
                     0);
        for (int i = 0; i < 4; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        check_round(&race, begun, ended);
    }
    const yoke_pool_stats stats = stats_of(pool);
    CHECK_EQ(stats.in_flight, 0);
    check_pool_works(pool);
    end_pool(pool);
    yoke_shared_free(begun);
}

static void jobs_end_once_whoever_wins(void)
{
    FOR_EACH_KIND(kind)
    {
        race_on(kind, 0);
    }
}

static void force_changes_nothing_of_that(void)
{
    FOR_EACH_KIND(kind)
    {
        race_on(kind, 1);
    }
}

/* Jobs are released by another thread while they run; the pool frees what is left. */
static void *release_all(void *arg)
{
    struct race *race = arg;
    for (int i = 0; i < JOBS; i++) {
        yoke_job_release(race->jobs[i]);
        if (i % 5 == 0)
            sched_yield();
    }
    return NULL;
}

static void releases_race_with_the_end(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *begun = shared_zeroed(2 * JOBS * sizeof *begun), *ended = begun + JOBS;
        check_pool_works(pool);
        const size_t blocks = count_blocks();
        for (int round = 0; round < ROUNDS; round++) {
            struct race race = {.force = 0};
            for (int i = 0; i < JOBS; i++) {
                const struct input input = {begun + i, ended + i, i % 5};
                CHECK_RC(yoke_submit(pool, work, &input, sizeof input, 8, NULL, &race.jobs[i]), 0);
            }
            pthread_t thread;
            CHECK_EQ(pthread_create(&thread, NULL, release_all, &race), 0);
            CHECK_EQ(pthread_join(thread, NULL), 0);
        }
        for (int i = 0; i < JOBS; i++)
            WAIT_FOR(count_get(ended + i) == ROUNDS);
        end_pool(pool);
        CHECK(count_blocks() <= blocks);
        yoke_shared_free(begun);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(jobs_end_once_whoever_wins);
    RUN(force_changes_nothing_of_that);
    RUN(releases_race_with_the_end);
    return 0;
}
