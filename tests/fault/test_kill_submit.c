/* SPDX-License-Identifier: MIT
 * test_kill_submit.c - 100,000 submitted tasks while workers are killed at random.
 *
 * Idea: each task counts its own starts in shared memory and its result is held against what a
 * serial run gives. Every job ends once; without retries a kill costs at most the one task its
 * worker ran, and none is started twice; with retries none is lost.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 200
#include "killer.h"

enum { TASKS = 100000, WINDOW = 400 };

struct order {
    atomic_long *starts;
    uint64_t x;
};

static uint64_t work_of(uint64_t x)
{
    uint64_t state = x, sum = 0;
    for (unsigned i = 0; i < 500 + x % 3000; i++)
        sum ^= random_next(&state);
    return sum;
}

static int work(yoke_task *task, const void *in, void *out)
{
    const struct order *order = in;
    (void)task;
    count_up(order->starts, 1);
    *(uint64_t *)out = work_of(order->x);
    return 0;
}

struct tally {
    long ok, crashed, again;
};

/* The job of task x has ended: looks at all that may be known of it. */
static void collect(yoke_job *job, uint64_t x, const atomic_long *starts, unsigned retries,
                    struct tally *tally)
{
    yoke_outcome outcome;
    const void *out = NULL;
    size_t bytes = 0;
    memset(&outcome, 0xee, sizeof outcome);
    CHECK_RC(yoke_job_result(job, &outcome, &out, &bytes), 0);
    const long started = count_get(starts);
    CHECK(outcome.kind == YOKE_OK || outcome.kind == YOKE_CRASHED);
    CHECK(started <= (long)outcome.attempts);
    CHECK(outcome.attempts <= retries + 1);
    tally->again += outcome.attempts > 1;
    if (outcome.kind == YOKE_OK) {
        CHECK(started >= 1);
        CHECK_EQ(outcome.signal, 0);
        CHECK_EQ(bytes, 8);
        CHECK(*(const uint64_t *)out == work_of(x));
        tally->ok++;
    } else {
        CHECK_EQ(outcome.signal, SIGKILL);
        CHECK_EQ(outcome.attempts, retries + 1);
        CHECK(out == NULL);
        tally->crashed++;
    }
    yoke_job_release(job);
}

/* How many tasks were hit by a kill. */
static long run_tasks(yoke_pool *pool, struct killer *killer, unsigned retries)
{
    static yoke_job *window[WINDOW];
    static uint64_t which[WINDOW];
    atomic_long *starts = shared_zeroed(TASKS * sizeof *starts);
    struct tally tally = {0};
    const yoke_options options = {.size = sizeof options, .retries = retries};
    killer_start(killer);
    for (uint64_t x = 0; x < TASKS + WINDOW; x++) {
        const size_t at = x % WINDOW;
        if (x >= WINDOW) {
            CHECK_RC(yoke_wait(window[at], soon()), 0);
            collect(window[at], which[at], starts + which[at], retries, &tally);
            window[at] = NULL;
        }
        if (x >= TASKS)
            continue;
        const struct order order = {starts + x, x};
        which[at] = x;
        CHECK_RC(yoke_submit(pool, work, &order, sizeof order, 8, &options, &window[at]), 0);
    }
    const long kills = killer_stop(killer);
    fprintf(stderr, "    %ld kills: %ld ok, %ld crashed, %ld started again\n", kills, tally.ok,
            tally.crashed, tally.again);
    CHECK(kills >= 20); /* or this was no test */
    CHECK_EQ(tally.ok + tally.crashed, TASKS);
    CHECK(tally.crashed <= kills);
    CHECK(tally.again <= kills);
    check_pool_works(pool);
    yoke_pool_stats stats = {.size = sizeof stats};
    WAIT_FOR(yoke_pool_stats_get(pool, &stats) == 0 && stats.workers == 3);
    CHECK_EQ(stats.in_flight, 0);
    CHECK(stats.died >= 1 && stats.died <= (uint64_t)kills);
    /* Nothing is started once its job has ended. */
    for (int x = 0; x < TASKS; x++)
        CHECK(count_get(starts + x) <= (long)retries + 1);
    yoke_shared_free(starts);
    return tally.crashed + tally.again;
}

/* Kills may by chance hit idle workers only: then it was no test, and is done again. */
static void run_until_hit(struct killer killer, unsigned retries)
{
    long hits = 0;
    for (int i = 0; i < 10 && hits == 0; i++) {
        yoke_pool *pool = make_pool(YOKE_PROCESSES, 3);
        struct killer mine = killer;
        mine.pool = pool;
        mine.random = random_seed();
        hits = run_tasks(pool, &mine, retries);
        end_pool(pool);
    }
    CHECK(hits > 0);
}

static void without_retries_a_kill_costs_one_task_at_most(void)
{
    run_until_hit((struct killer){.pause_us = 1500, .tasks_apart = 50}, 0);
}

static void with_retries_no_task_is_lost(void)
{
    run_until_hit((struct killer){.pause_us = 1500, .tasks_apart = 50}, 3);
}

static void all_workers_killed_at_once(void)
{
    run_until_hit((struct killer){.pause_us = 20000, .tasks_apart = 500, .all = 1}, 2);
}

int main(int argc, char **argv)
{
    const struct usage before = killer_test_begin(argc, argv);
    RUN(without_retries_a_kill_costs_one_task_at_most);
    RUN(with_retries_no_task_is_lost);
    RUN(all_workers_killed_at_once);
    usage_check(before, 20);
    return 0;
}
