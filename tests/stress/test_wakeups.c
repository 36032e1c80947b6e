/* SPDX-License-Identifier: MIT
 * test_wakeups.c - no wake is lost, whatever the workers are just about to do.
 *
 * Idea: in each round as many tasks as there are workers, or fewer, are handed in, and each waits
 * until all of them run: one wake that is missing, and the round never ends. Nobody waits for a job
 * before the round is over, so nobody looks up for himself either, as waiters do after a while,
 * and no deadline of this test is about speed. What comes before a round is random: workers spin,
 * go to sleep, sleep, or are dead, when it begins.
 */
/* tsan: yes */
/* timeout: 300 */
#define CHECK_TIMEOUT 200
#include "check.h"
#include <stdbool.h>

enum { MOST = 4, PARTIES = 64, ROUNDS = 16000, KILLS = 150, ALARM_MS = 10000 };

struct party {
    atomic_long wanted, here, gone;
};

static struct party *parties;
static unsigned seed = 12345;
static bool tells; /* the tasks say that they wait: a pool may grow for them */

static unsigned random_below(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void spin_us(unsigned us)
{
    const int64_t until = yoke_now_ns() + (int64_t)us * 1000;
    while (yoke_now_ns() < until) {
    }
}

/* Ends when all are here. */
static int meet(yoke_task *task, const void *in, void *out)
{
    struct party *party = *(struct party *const *)in;
    (void)out;
    if (tells)
        yoke_blocking_begin(task);
    count_up(&party->here, 1);
    while (count_get(&party->here) < count_get(&party->wanted) && !yoke_task_cancelled(task))
        sched_yield();
    if (tells)
        yoke_blocking_end(task);
    count_up(&party->gone, 1);
    return 0;
}

static void hand_in(yoke_pool *pool, struct party *party, size_t count, yoke_job **jobs,
                    const yoke_options *options)
{
    struct party *in[MOST] = {party, party, party, party};
    const bool singly = random_below(2) == 0;
    size_t at = 0;
    while (at < count) {
        const size_t n = singly ? 1 : 1 + random_below((unsigned)(count - at));
        if (n == 1)
            CHECK_RC(yoke_submit(pool, meet, &in[at], sizeof *in, 0, options, &jobs[at]), 0);
        else
            CHECK_RC(yoke_submit_many(pool, meet, &in[at], sizeof *in, 0, n, options, &jobs[at]),
                     0);
        at += n;
        if (!singly && random_below(4) == 0)
            spin_us(random_below(60));
    }
}

static struct party *new_party(int round, size_t count)
{
    struct party *party = &parties[round % PARTIES];
    count_set(&party->here, 0);
    count_set(&party->gone, 0);
    count_set(&party->wanted, (long)count);
    return party;
}

static void await_party(struct party *party)
{
    const int64_t until = yoke_in_ms(ALARM_MS * (int64_t)check_slowness());
    while (count_get(&party->gone) < count_get(&party->wanted)) {
        check_true(yoke_now_ns() < until, "no wake is lost: all run at the same time", __FILE__,
                   __LINE__);
        sched_yield();
    }
}

static void play(yoke_pool *pool, int round, size_t count)
{
    yoke_job *jobs[MOST];
    struct party *party = new_party(round, count);
    hand_in(pool, party, count, jobs, NULL);
    await_party(party);
    CHECK_RC(yoke_wait_all(jobs, count, soon()), 0);
    yoke_job_release_all(jobs, count);
}

/* Most rounds follow at once, some find all asleep, and some come while they go to sleep. */
static void pause_at_random(void)
{
    const unsigned how = random_below(16);
    if (how == 0)
        breathe();
    else if (how < 6)
        spin_us(random_below(150));
}

static void wake_pool(int kind, unsigned workers, int rounds)
{
    yoke_pool *pool = make_pool(kind, workers);
    for (int round = 0; round < rounds; round++) {
        pause_at_random();
        play(pool, round, 1 + random_below(workers));
    }
    end_pool(pool);
}

static void each_round_is_answered(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        for (unsigned workers = 1; workers <= MOST; workers++)
            wake_pool(kind, workers, ROUNDS / (int)check_slowness());
    }
}

/* A pool that may grow by one, and must: all of its workers spin, or wait and say so. */
static void a_pool_that_grows_does(void)
{
    tells = true;
    for (unsigned more = 1; more <= 2; more++) {
        const yoke_pool_config config = {
            .size = sizeof config, .kind = YOKE_THREADS, .workers = 2, .workers_max = 2 + more};
        for (int i = 0; i < 100; i++) {
            yoke_pool *pool = NULL;
            CHECK_RC(yoke_pool_create(&config, &pool), 0);
            for (int round = 0; round < 10; round++) {
                pause_at_random();
                play(pool, round, 1 + random_below(2 + more));
            }
            end_pool(pool);
        }
    }
    tells = false;
}

/* The one that spins, and that others count on, is killed, or has run its last task. */
static void who_others_count_on_goes(void)
{
    for (unsigned tasks_max = 0; tasks_max <= 3; tasks_max += 3) {
        const yoke_pool_config config = {.size = sizeof config,
                                         .kind = YOKE_PROCESSES,
                                         .workers = MOST - 1,
                                         .tasks_max = tasks_max};
        const yoke_options options = {.size = sizeof options, .retries = 100};
        yoke_pool *pool = NULL;
        CHECK_RC(yoke_pool_create(&config, &pool), 0);
        for (int round = 0; round < KILLS; round++) {
            const size_t count = 1 + random_below(MOST - 1);
            yoke_job *jobs[MOST];
            int pids[MOST];
            play(pool, round, count);
            const int n = yoke_pool_worker_ids(pool, pids, MOST);
            spin_us(random_below(150));
            if (tasks_max == 0 && n > 0)
                kill(pids[random_below((unsigned)(n < MOST ? n : MOST))], SIGKILL);
            struct party *party = new_party(round + PARTIES / 2, count);
            hand_in(pool, party, count, jobs, &options);
            await_party(party);
            CHECK_RC(yoke_wait_all(jobs, count, soon()), 0);
            yoke_job_release_all(jobs, count);
        }
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    parties = shared_zeroed(PARTIES * sizeof *parties);
    RUN(each_round_is_answered);
    RUN(a_pool_that_grows_does);
    if (check_has_kind(YOKE_PROCESSES))
        RUN(who_others_count_on_goes);
    yoke_shared_free(parties);
    return 0;
}
