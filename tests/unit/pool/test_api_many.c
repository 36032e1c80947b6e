/* SPDX-License-Identifier: MIT
 * test_api_many.c - many tasks at once: handed in, waited for and released together.
 *
 * Idea: whatever is used again (a job, a slot) shows nothing of who had it before, and whatever
 * comes to an end in the middle (room, the pool, the pool's last job) leaves the rest as promised.
 */
/* tsan: yes */
/* timeout: 180 */
#define CHECK_TIMEOUT 100
#include "check.h"
#include <pthread.h>
#include <stdbool.h>

enum { MANY = 3000, SLOTS = 1024, FEW = 8 };

static int say_nothing(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return 0;
}

static int fill(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    memset(out, 0x5A, 16);
    return 3;
}

static int make_result(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    void *result = yoke_task_result(task, 5000);
    if (result == NULL)
        return 1;
    memset(result, 7, 5000);
    return 0;
}

static int die(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    raise(SIGKILL);
    return 0;
}

struct gate {
    atomic_long open, begun;
};

static yoke_job *submit(yoke_pool *pool, yoke_fn *fn, size_t out_bytes, const yoke_options *options)
{
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, fn, NULL, 0, out_bytes, options, &job), 0);
    return job;
}

static yoke_outcome outcome_of(yoke_job *job, const void **out, size_t *bytes)
{
    yoke_outcome outcome;
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, &outcome, out, bytes), 0);
    return outcome;
}

/* Like a job of its own: an OK that came first, with a zeroed out of 16 bytes and nothing else. */
static void check_is_new(yoke_pool *pool)
{
    static const unsigned char zeroes[16];
    const void *out = NULL;
    size_t bytes = 0;
    yoke_job *job = submit(pool, say_nothing, 16, NULL);
    const yoke_outcome outcome = outcome_of(job, &out, &bytes);
    CHECK_EQ(outcome.kind, YOKE_OK);
    CHECK_EQ(outcome.code, 0);
    CHECK_EQ(outcome.signal, 0);
    CHECK_EQ(outcome.attempts, 1);
    CHECK_EQ(outcome.item, 0);
    CHECK_EQ(bytes, 16);
    check_true(memcmp(out, zeroes, 16) == 0, "a job shows nothing of the one before", __FILE__,
               __LINE__);
    CHECK_EQ(yoke_job_cancel(job, 0), -EALREADY);
    yoke_job_release(job);
    job = submit(pool, say_nothing, 0, NULL);
    (void)outcome_of(job, &out, &bytes);
    CHECK_EQ(bytes, 0);
    CHECK(out == NULL);
    yoke_job_release(job);
}

static void a_job_shows_nothing_of_the_one_before(void)
{
    FOR_EACH_KIND(kind)
    {
        const size_t blocks = count_blocks();
        yoke_pool *pool = make_pool(kind, 2);
        int context = 1;
        const yoke_options options = {.size = sizeof options,
                                      .context = &context,
                                      .context_bytes = sizeof context,
                                      .timeout_ns = INT64_C(100000000000),
                                      .retries = 1};
        for (int round = 0; round < 5; round++) {
            yoke_job *job = submit(pool, fill, 16, NULL);
            CHECK_EQ(outcome_of(job, NULL, NULL).code, 3);
            yoke_job_release(job);
            check_is_new(pool);
            job = submit(pool, make_result, 4000, &options);
            CHECK_EQ(outcome_of(job, NULL, NULL).kind, YOKE_OK);
            yoke_job_release(job);
            check_is_new(pool);
            job = submit(pool, make_result, 0, NULL);
            yoke_job_release(job); /* before its end, or after */
            check_is_new(pool);
            if (kind != YOKE_PROCESSES)
                continue;
            job = submit(pool, die, 16, &options);
            const yoke_outcome outcome = outcome_of(job, NULL, NULL);
            CHECK_EQ(outcome.kind, YOKE_CRASHED);
            CHECK_EQ(outcome.attempts, 2);
            yoke_job_release(job);
            check_is_new(pool);
            job = submit(pool, die, 0, NULL);
            CHECK_EQ(outcome_of(job, NULL, NULL).attempts, 1);
            yoke_job_release(job);
            check_is_new(pool);
        }
        end_pool(pool);
        CHECK_EQ(count_blocks(), blocks);
    }
}

static void a_job_that_was_released_early_is_used_again(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (int round = 0; round < 2000; round++) {
            int64_t in[FEW], got = 0;
            yoke_job *jobs[FEW];
            for (int i = 0; i < FEW; i++)
                in[i] = round + i;
            CHECK_RC(yoke_submit_many(pool, check_square, in, sizeof *in, 8, FEW, NULL, jobs), 0);
            for (int i = 0; i < FEW * FEW; i++)
                check_true(jobs[i / FEW] != jobs[i % FEW] || i / FEW == i % FEW,
                           "each job is its own", __FILE__, __LINE__);
            yoke_job_release_all(jobs, FEW / 2);
            CHECK_RC(yoke_wait_all(&jobs[FEW / 2], FEW / 2, soon()), 0);
            for (int i = FEW / 2; i < FEW; i++) {
                const void *out = NULL;
                CHECK_RC(yoke_job_result(jobs[i], NULL, &out, NULL), 0);
                memcpy(&got, out, sizeof got);
                check_true(got == in[i] * in[i], "each job has its own result", __FILE__, __LINE__);
            }
            yoke_job_release_all(&jobs[FEW / 2], FEW / 2);
        }
        end_pool(pool);
    }
}

static atomic_long next_in_order, out_of_order;

static int note_order(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    if (count_up(&next_in_order, 1) != *(const int64_t *)in)
        count_up(&out_of_order, 1);
    return 0;
}

static void room_runs_out_in_the_middle(void)
{
    FOR_EACH_KIND(kind)
    {
        static int64_t in[MANY];
        static yoke_job *jobs[MANY];
        yoke_pool *pool = make_pool(kind, kind == YOKE_SERIAL ? 1 : 2);
        for (int i = 0; i < MANY; i++)
            in[i] = i;
        CHECK_RC(yoke_submit_many(pool, check_square, in, sizeof *in, 8, MANY, NULL, jobs), 0);
        CHECK_RC(yoke_wait_all(jobs, MANY, soon()), 0);
        for (int i = 0; i < MANY; i++) {
            const void *out = NULL;
            int64_t got;
            CHECK_RC(yoke_job_result(jobs[i], NULL, &out, NULL), 0);
            memcpy(&got, out, sizeof got);
            CHECK_EQ(got, (int64_t)i * i);
        }
        yoke_job_release_all(jobs, MANY);
        end_pool(pool);
    }
}

/* While there is room for all; else a later one may get the slot of an earlier one's turn. */
static void one_worker_takes_them_in_order(void)
{
    static int64_t in[SLOTS];
    static yoke_job *jobs[SLOTS];
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    count_set(&next_in_order, 0);
    for (int i = 0; i < SLOTS; i++)
        in[i] = i;
    CHECK_RC(yoke_submit_many(pool, note_order, in, sizeof *in, 0, SLOTS, NULL, jobs), 0);
    WAIT_FOR(count_get(&next_in_order) == SLOTS); /* without our help, which has no order */
    CHECK_EQ(count_get(&out_of_order), 0);
    CHECK_RC(yoke_wait_all(jobs, SLOTS, soon()), 0);
    yoke_job_release_all(jobs, SLOTS);
    end_pool(pool);
}

static int kill_all_workers(yoke_pool *pool)
{
    int pids[4];
    const int n = yoke_pool_worker_ids(pool, pids, 4);
    for (int i = 0; i < n && i < 4; i++)
        kill(pids[i], SIGKILL);
    return n;
}

struct killer {
    yoke_pool *pool;
    struct gate *gate;
};

/* Once the gate is open no new worker comes to life. */
static int refuse_when_open(unsigned worker, void *user)
{
    struct gate *gate = *(struct gate **)user;
    (void)worker;
    if (count_get(&gate->open))
        _exit(1);
    return 0;
}

static void *kill_when_full(void *arg)
{
    struct killer *killer = arg;
    WAIT_FOR(stats_of(killer->pool).in_flight == SLOTS);
    WAIT_FOR(count_get(&killer->gate->begun) >= 2);
    count_set(&killer->gate->open, 1);
    const int64_t until = soon();
    while (kill_all_workers(killer->pool) > 0 && yoke_now_ns() < until)
        breathe();
    return NULL;
}

static struct gate *the_gate;

static int stand_still(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    (void)out;
    count_up(&gate->begun, 1);
    while (!yoke_task_cancelled(task))
        breathe();
    return 0;
}

static void a_pool_breaks_in_the_middle(void)
{
    static yoke_job *jobs[MANY];
    static struct gate *in[MANY];
    the_gate = shared_zeroed(sizeof *the_gate);
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = YOKE_PROCESSES,
                                     .workers = 2,
                                     .worker_init = refuse_when_open,
                                     .user = &the_gate};
    struct killer killer = {.gate = the_gate};
    pthread_t thread;
    CHECK_RC(yoke_pool_create(&config, &killer.pool), 0);
    for (int i = 0; i < MANY; i++)
        in[i] = the_gate;
    CHECK_EQ(pthread_create(&thread, NULL, kill_when_full, &killer), 0);
    CHECK_RC(yoke_submit_many(killer.pool, stand_still, in, sizeof *in, 0, MANY, NULL, jobs),
             YOKE_EBROKEN);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    size_t made = 0;
    for (; made < MANY && jobs[made] != NULL; made++) {
        const int kind = outcome_of(jobs[made], NULL, NULL).kind;
        CHECK(kind == YOKE_CRASHED || kind == YOKE_CANCELLED);
    }
    CHECK(made >= SLOTS && made < MANY);
    for (size_t i = made; i < MANY; i++)
        CHECK(jobs[i] == NULL);
    CHECK_RC(yoke_wait_all(jobs, MANY, 0), 0); /* the NULLs are passed over */
    yoke_job_release_all(jobs, MANY);
    end_pool(killer.pool);
    yoke_shared_free(the_gate);
}

static void odd_lists(void)
{
    FOR_EACH_KIND(kind)
    {
        int64_t in[FEW] = {1, 2, 3, 4, 5, 6, 7, 8};
        yoke_job *jobs[FEW];
        yoke_pool *pool = make_pool(kind, 2);
        yoke_pool *other = make_pool(YOKE_SERIAL, 1);
        size_t index = 99;
        CHECK_RC(yoke_submit_many(pool, check_square, NULL, 8, 8, 0, NULL, NULL), 0);
        CHECK_RC(yoke_submit_many(pool, check_square, NULL, 8, 8, 1, NULL, jobs), -EINVAL);
        CHECK(jobs[0] == NULL);
        CHECK_RC(yoke_submit_many(pool, NULL, in, 8, 8, 2, NULL, jobs), -EINVAL);
        CHECK_RC(yoke_submit_many(pool, check_square, in, 8, 8, 2, NULL, NULL), -EINVAL);
        CHECK_RC(yoke_submit_many(pool, check_square, in, SIZE_MAX / 2, 8, 3, NULL, jobs), -EINVAL);
        CHECK_RC(yoke_submit_many(NULL, check_square, in, 8, 8, 2, NULL, jobs), -EINVAL);
        CHECK_RC(yoke_wait_all(NULL, 0, 0), 0);
        CHECK_RC(yoke_wait_all(NULL, 1, 0), -EINVAL);
        CHECK_RC(yoke_wait_any(jobs, 0, 0, &index), -EINVAL);
        yoke_job_release_all(NULL, 0);
        yoke_job_release_all(NULL, 5);
        yoke_job *none[3] = {NULL, NULL, NULL};
        CHECK_RC(yoke_wait_all(none, 3, 0), 0);
        CHECK_RC(yoke_wait_any(none, 3, 0, &index), -EINVAL);
        yoke_job_release_all(none, 3);
        CHECK_RC(yoke_submit_many(pool, check_square, in, 8, 8, 3, NULL, jobs), 0);
        CHECK_RC(yoke_submit_many(other, check_square, in, 8, 8, 2, NULL, &jobs[3]), 0);
        yoke_job *list[] = {jobs[0], NULL, jobs[0], jobs[3], jobs[1], jobs[1],
                            jobs[4], NULL, NULL,    jobs[2], jobs[3], jobs[0]};
        CHECK_RC(yoke_wait_any(list, 12, soon(), &index), 0);
        CHECK(index < 12 && list[index] != NULL);
        CHECK_RC(yoke_wait_all(list, 12, soon()), 0);
        CHECK_RC(yoke_wait_all(list, 12, 0), 0);
        yoke_job *all[] = {NULL, jobs[0], jobs[3], NULL, jobs[4], jobs[1], NULL, jobs[2], NULL};
        CHECK_RC(yoke_pool_destroy(other, soon()), 0);
        end_pool(pool);
        CHECK_RC(yoke_wait_all(all, 9, 0), 0); /* they have ended, and stay readable */
        CHECK_RC(yoke_wait_any(all, 9, 0, &index), 0);
        yoke_job_release_all(all, 9);
    }
}

/* The pool goes with its last job, whoever has it, whenever. */
static void *release_it(void *arg)
{
    yoke_job_release(arg);
    return NULL;
}

static void the_last_job_frees_the_pool(void)
{
    FOR_EACH_KIND(kind)
    {
        for (int round = 0; round < (kind == YOKE_PROCESSES ? 10 : 200); round++) {
            int64_t in[3] = {1, 2, 3};
            yoke_job *jobs[3];
            pthread_t thread;
            yoke_pool *pool = make_pool(kind, 1);
            CHECK_RC(yoke_submit_many(pool, check_square, in, 8, 8, 3, NULL, jobs), 0);
            CHECK_RC(yoke_wait_all(jobs, 3, soon()), 0);
            CHECK_EQ(pthread_create(&thread, NULL, release_it, jobs[0]), 0);
            if (round % 2 == 0)
                yoke_job_release_all(&jobs[1], 2);
            end_pool(pool);
            if (round % 2 != 0)
                yoke_job_release_all(&jobs[1], 2);
            CHECK_EQ(pthread_join(thread, NULL), 0);
        }
    }
}

/* All threads of a program use one pool: its favourite, and strangers. */
static void *use_it(void *arg)
{
    yoke_pool *pool = arg;
    for (int round = 0; round < 300; round++) {
        int64_t in[FEW];
        yoke_job *jobs[FEW];
        for (int i = 0; i < FEW; i++)
            in[i] = round * i;
        CHECK_RC(yoke_submit_many(pool, check_square, in, 8, 8, FEW, NULL, jobs), 0);
        if (round % 3 == 0)
            yoke_job_cancel(jobs[FEW - 1], 0);
        CHECK_RC(yoke_wait_all(jobs, FEW, soon()), 0);
        for (int i = 0; i < FEW - 1; i++) {
            const void *out = NULL;
            int64_t got;
            CHECK_RC(yoke_job_result(jobs[i], NULL, &out, NULL), 0);
            memcpy(&got, out, sizeof got);
            CHECK_EQ(got, in[i] * in[i]);
        }
        yoke_job_release_all(jobs, FEW);
    }
    return NULL;
}

static void all_threads_at_once(void)
{
    FOR_EACH_KIND(kind)
    {
        pthread_t threads[3];
        yoke_pool *pool = make_pool(kind, 2);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, use_it, pool), 0);
        (void)use_it(pool);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(a_job_shows_nothing_of_the_one_before);
    RUN(a_job_that_was_released_early_is_used_again);
    RUN(room_runs_out_in_the_middle);
    if (check_has_kind(YOKE_THREADS))
        RUN(one_worker_takes_them_in_order);
    if (check_has_kind(YOKE_PROCESSES))
        RUN(a_pool_breaks_in_the_middle);
    RUN(odd_lists);
    RUN(the_last_job_frees_the_pool);
    RUN(all_threads_at_once);
    return 0;
}
