/* SPDX-License-Identifier: MIT
 * test_posts.c - posted tasks, whatever their workers are just about to do: none is lost, none runs
 * twice, no wake is missed, none lies behind one that waits for it.
 *
 * Idea: before each round workers run, spin, watch, go to sleep or sleep, at random. A round posts as
 * many tasks as there are workers, or fewer, each of which ends when all of them run, among tiny
 * ones; a wake that is missing, or a task that is stuck in another worker's batch, and the round
 * never ends. Nobody waits in Yoke meanwhile, so nobody looks after lost ones either.
 */
/* tsan: yes */
/* timeout: 300 */
#define CHECK_TIMEOUT 200
#include "check.h"
#include <pthread.h>
#include <stdbool.h>

enum { MOST = 4, ROUNDS = 100000, MEETINGS = 6000, POSTERS = 3, EACH = 150000, ALARM_MS = 10000 };

static unsigned seed = 4711;

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

static void await(const atomic_long *counter, long wanted)
{
    const int64_t until = yoke_in_ms(ALARM_MS * (int64_t)check_slowness());
    for (unsigned i = 1; count_get(counter) < wanted; i++) {
        check_true(yoke_now_ns() < until, "no posted task is lost", __FILE__, __LINE__);
        if (i % 64 == 0)
            sched_yield();
    }
}

static int add_one(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    count_up(*(atomic_long *const *)in, 1);
    return 0;
}

static void post_one(yoke_pool *pool, atomic_long *counter)
{
    CHECK_RC(yoke_post(pool, add_one, &counter, sizeof counter, NULL), 0);
}

/* ---- one at a time ------------------------------------------------------------------------------ */

static void pause_at_random(void)
{
    const unsigned how = random_below(64);
    if (how == 0)
        breathe();
    else if (how < 40)
        spin_us(random_below(40));
}

static void each_post_is_answered(void)
{
    for (unsigned workers = 1; workers <= 3; workers++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, workers);
        atomic_long ended = 0;
        const long rounds = ROUNDS / 3 / (long)check_slowness();
        for (long round = 1; round <= rounds; round++) {
            pause_at_random();
            post_one(pool, &ended);
            await(&ended, round);
        }
        end_pool(pool);
    }
}

/* ---- all at the same time ----------------------------------------------------------------------- */

struct party {
    atomic_long here, wanted, gone;
};

static int meet(yoke_task *task, const void *in, void *out)
{
    struct party *party = *(struct party *const *)in;
    (void)out;
    count_up(&party->here, 1);
    while (count_get(&party->here) < count_get(&party->wanted) && !yoke_task_cancelled(task))
        sched_yield();
    count_up(&party->gone, 1);
    return 0;
}

static void play(yoke_pool *pool, atomic_long *ended, long *tiny, long count)
{
    static struct party parties[64];
    static unsigned turn;
    struct party *party = &parties[turn++ % 64];
    count_set(&party->here, 0);
    count_set(&party->gone, 0);
    count_set(&party->wanted, count);
    const bool stream = random_below(3) == 0;
    for (unsigned i = stream ? random_below(1500) : 0; i > 0; i--, (*tiny)++)
        post_one(pool, ended);
    for (long i = 0; i < count; i++) {
        CHECK_RC(yoke_post(pool, meet, &party, sizeof party, NULL), 0);
        for (unsigned k = stream ? random_below(20) : 0; k > 0; k--, (*tiny)++)
            post_one(pool, ended);
        if (random_below(4) == 0)
            spin_us(random_below(60));
    }
    await(&party->gone, count);
    await(ended, *tiny);
}

static void meet_often(yoke_pool_config config, unsigned most)
{
    yoke_pool *pool = make_pool_of(config);
    atomic_long ended = 0;
    long tiny = 0;
    for (int round = 0; round < MEETINGS / (int)check_slowness(); round++) {
        pause_at_random();
        play(pool, &ended, &tiny, 1 + (long)random_below(most));
    }
    end_pool(pool);
}

static void each_meeting_takes_place(void)
{
    for (unsigned workers = 2; workers <= MOST; workers++)
        meet_often((yoke_pool_config){.kind = YOKE_THREADS, .workers = workers}, workers);
}

/* Jobs of the table come between. */
static void each_meeting_of_posts_and_jobs_takes_place(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, MOST);
    for (int round = 0; round < MEETINGS / (int)check_slowness(); round++) {
        struct party party = {.wanted = 1 + (long)random_below(MOST)}, *at = &party;
        yoke_job *jobs[MOST] = {NULL};
        pause_at_random();
        for (long i = 0; i < count_get(&party.wanted); i++) {
            if (random_below(2) == 0)
                CHECK_RC(yoke_post(pool, meet, &at, sizeof at, NULL), 0);
            else
                CHECK_RC(yoke_submit(pool, meet, &at, sizeof at, 0, NULL, &jobs[i]), 0);
        }
        await(&party.gone, count_get(&party.wanted));
        yoke_job_release_all(jobs, MOST);
        CHECK_RC(yoke_pool_drain(pool, soon()), 0); /* the party is ours, on the stack */
    }
    end_pool(pool);
}

/* ---- many posters ------------------------------------------------------------------------------- */

struct crowd {
    yoke_pool *pool;
    _Atomic unsigned char *ran; /* one per task */
    atomic_long ended;
};

struct ticket {
    struct crowd *crowd;
    uint64_t number;
    uint64_t more[5]; /* some of it lies outside of the cell */
};

static int run_ticket(yoke_task *task, const void *in, void *out)
{
    struct ticket ticket = {0};
    (void)task;
    (void)out;
    memcpy(&ticket, in, offsetof(struct ticket, more));
    CHECK_EQ(atomic_fetch_add(&ticket.crowd->ran[ticket.number], 1), 0);
    if (ticket.number % 1000 == 0)
        sched_yield();
    if (ticket.number % 2 == 0) { /* half of them are posted by a task */
        ticket.number++;
        CHECK_RC(yoke_post(ticket.crowd->pool, run_ticket, &ticket, sizeof ticket, NULL), 0);
    }
    count_up(&ticket.crowd->ended, 1);
    return 0;
}

struct poster {
    struct crowd *crowd;
    uint64_t from;
    uint64_t count;
};

static void *post_tickets(void *arg)
{
    const struct poster *poster = arg;
    for (uint64_t i = 0; i < poster->count; i += 2) {
        const struct ticket ticket = {.crowd = poster->crowd, .number = poster->from + i};
        const size_t bytes = i % 16 == 0 ? sizeof ticket : offsetof(struct ticket, more);
        CHECK_RC(yoke_post(poster->crowd->pool, run_ticket, &ticket, bytes, NULL), 0);
    }
    return NULL;
}

static void many_post_at_once(void)
{
    const uint64_t each = EACH / check_slowness() / 2 * 2;
    for (unsigned workers = 1; workers <= MOST; workers++) {
        struct crowd crowd = {.pool = make_pool(YOKE_THREADS, workers)};
        struct poster posters[POSTERS];
        pthread_t threads[POSTERS];
        crowd.ran = calloc(POSTERS * each, 1);
        CHECK(crowd.ran != NULL);
        for (int i = 0; i < POSTERS; i++) {
            posters[i] = (struct poster){&crowd, (uint64_t)i * each, each};
            CHECK_EQ(pthread_create(&threads[i], NULL, post_tickets, &posters[i]), 0);
        }
        for (int i = 0; i < POSTERS; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_RC(yoke_pool_drain(crowd.pool, soon()), 0);
        CHECK_EQ(count_get(&crowd.ended), POSTERS * each);
        for (uint64_t i = 0; i < POSTERS * each; i++)
            CHECK_EQ(crowd.ran[i], 1);
        CHECK_EQ(stats_of(crowd.pool).tasks, POSTERS * each);
        end_pool(crowd.pool);
        free((void *)crowd.ran);
    }
}

/* ---- batches ------------------------------------------------------------------------------------ */

/* A batch that was claimed for tiny ones takes longer with these than a watcher sleeps. */
static int count_and_linger(yoke_task *task, const void *in, void *out)
{
    atomic_long *ran = *(atomic_long *const *)in;
    const int64_t until = yoke_now_ns() + 8000 + (int64_t)((uintptr_t)ran * 2654435761u % 8000);
    (void)task;
    (void)out;
    CHECK_EQ(count_up(ran, 1), 0);
    while (yoke_now_ns() < until) {
    }
    return 0;
}

/* A batch is taken from just when its worker goes on to the next of it. */
static void batches_are_taken_at_any_moment(void)
{
    enum { LONG = 31 };
    for (unsigned workers = 2; workers <= 3; workers++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, workers);
        atomic_long ended = 0, tiny = 0;
        for (int round = 0; round < 600; round++) {
            atomic_long ran[LONG] = {0};
            for (int i = 0; i < 900; i++, tiny++)
                post_one(pool, &ended);
            for (int i = 0; i < LONG; i++) {
                atomic_long *at = &ran[i];
                CHECK_RC(yoke_post(pool, count_and_linger, &at, sizeof at, NULL), 0);
            }
            CHECK_RC(yoke_pool_drain(pool, soon()), 0);
            for (int i = 0; i < LONG; i++)
                CHECK_EQ(count_get(&ran[i]), 1);
            CHECK_EQ(count_get(&ended), tiny);
        }
        end_pool(pool);
    }
}

/* ---- ends --------------------------------------------------------------------------------------- */

static int idle_a_little(yoke_task *task, const void *in, void *out)
{
    const int64_t until = yoke_now_ns() + 3000;
    (void)out;
    while (yoke_now_ns() < until && !yoke_task_cancelled(task)) {
    }
    count_up(*(atomic_long *const *)in, 1);
    return 0;
}

/* Some have run when the pool goes, some are in a batch, some in the ring: with the copies of all. */
static void pools_end_in_the_middle(void)
{
    for (int round = 0; round < 400 / (int)check_slowness(); round++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, 1 + random_below(3));
        atomic_long ended = 0;
        const long count = 1 + (long)random_below(1000);
        const struct {
            atomic_long *ended;
            char more[100];
        } in = {&ended, {0}};
        for (long i = 0; i < count; i++) {
            yoke_fn *fn = i < count / 2 ? add_one : idle_a_little;
            CHECK_RC(yoke_post(pool, fn, &in, i % 3 == 0 ? sizeof in : 8, NULL), 0);
        }
        spin_us(random_below(100));
        const int rc = yoke_pool_destroy(pool, random_below(2) == 0 ? 0 : yoke_in_ms(0));
        CHECK(rc == 0 || rc == -ETIMEDOUT || rc == -EBUSY);
        if (rc == -EBUSY)
            end_pool(pool);
        CHECK(rc == 0 ? count_get(&ended) == count : count_get(&ended) <= count);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(each_post_is_answered);
    RUN(each_meeting_takes_place);
    RUN(each_meeting_of_posts_and_jobs_takes_place);
    RUN(many_post_at_once);
    RUN(batches_are_taken_at_any_moment);
    RUN(pools_end_in_the_middle);
    return 0;
}
