/* SPDX-License-Identifier: MIT
 * test_api_cancel.c - cancel, release, timeouts, retries: tasks that do not end by themselves.
 *
 * Idea: what has not begun never will; a thread is asked, a process can be killed; either way
 * the outcome says what happened and the pool is as good as before.
 */
/* tsan: yes */
/* timeout: 120 */
#include "check.h"

/* One worker held at a gate, so that what comes after has surely not begun. */
struct gate {
    atomic_long begun, go, told, later;
};

static int hold(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    const int64_t until = soon();
    (void)out;
    count_up(&gate->begun, 1);
    while (!count_get(&gate->go) && yoke_now_ns() < until) {
        if (yoke_task_cancelled(task)) {
            count_up(&gate->told, 1);
            return 3;
        }
        breathe();
    }
    return count_get(&gate->go) ? 0 : 99;
}

static int come_later(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    (void)task;
    (void)out;
    count_up(&gate->later, 1);
    return 0;
}

static yoke_job *submit(yoke_pool *pool, yoke_fn *fn, struct gate *gate,
                        const yoke_options *options)
{
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, fn, &gate, sizeof gate, 0, options, &job), 0);
    return job;
}

static yoke_outcome outcome_of(yoke_job *job)
{
    yoke_outcome outcome;
    memset(&outcome, 0xee, sizeof outcome);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
    return outcome;
}

static void what_has_not_begun_never_will(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 1);
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_job *first = submit(pool, hold, gate, NULL), *jobs[40];
        WAIT_FOR(count_get(&gate->begun) == 1);
        for (int i = 0; i < 40; i++)
            jobs[i] = submit(pool, come_later, gate, NULL);
        for (int i = 0; i < 40; i += 2)
            CHECK_EQ(yoke_job_cancel(jobs[i], i % 4 == 0), 0);
        for (int i = 0; i < 40; i += 2) {
            const yoke_outcome outcome = outcome_of(jobs[i]);
            CHECK_EQ(outcome.kind, YOKE_CANCELLED);
            CHECK_EQ(outcome.attempts, 0);
            const void *out = gate;
            CHECK_RC(yoke_job_result(jobs[i], NULL, &out, NULL), 0);
            CHECK(out == NULL);
            CHECK_EQ(yoke_job_cancel(jobs[i], 1), -EALREADY);
        }
        count_set(&gate->go, 1);
        for (int i = 1; i < 40; i += 2)
            CHECK_EQ(outcome_of(jobs[i]).kind, YOKE_OK);
        CHECK_EQ(outcome_of(first).kind, YOKE_OK);
        CHECK_EQ(count_get(&gate->later), 20);
        CHECK_EQ(count_get(&gate->told), 0);
        for (int i = 0; i < 40; i++)
            yoke_job_release(jobs[i]);
        yoke_job_release(first);
        end_pool(pool);
        CHECK_EQ(count_get(&gate->later), 20);
        yoke_shared_free(gate);
    }
}

static void a_running_task_is_told(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 2);
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_job *job = submit(pool, hold, gate, NULL);
        WAIT_FOR(count_get(&gate->begun) == 1);
        CHECK_EQ(yoke_job_cancel(job, 0), 0);
        const yoke_outcome outcome = outcome_of(job);
        CHECK_EQ(outcome.kind, YOKE_CANCELLED);
        CHECK_EQ(outcome.attempts, 1);
        CHECK_EQ(count_get(&gate->told), 1);
        yoke_job_release(job);
        check_pool_works(pool);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

static int deaf(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    (void)task;
    (void)out;
    count_up(&gate->begun, 1);
    for (;;)
        breathe();
    return 0;
}

static void force_kills_a_process_that_does_not_listen(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    struct gate *gate = shared_zeroed(sizeof *gate);
    for (int round = 1; round <= 5; round++) {
        yoke_job *job = submit(pool, deaf, gate, NULL);
        WAIT_FOR(count_get(&gate->begun) == round);
        CHECK_EQ(yoke_job_cancel(job, 0), 0);
        CHECK_RC(yoke_wait(job, yoke_in_ms(20)), -ETIMEDOUT);
        CHECK_EQ(yoke_job_cancel(job, 1), 0);
        const yoke_outcome outcome = outcome_of(job);
        CHECK_EQ(outcome.kind, YOKE_CANCELLED);
        CHECK_EQ(outcome.attempts, 1);
        yoke_job_release(job);
        check_pool_works(pool);
    }
    WAIT_FOR(stats_of(pool).workers == 2);
    CHECK_EQ(yoke_pool_worker_ids(pool, NULL, 0), 2);
    end_pool(pool);
    yoke_shared_free(gate);
}

static void a_forced_cancel_is_not_retried(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    struct gate *gate = shared_zeroed(sizeof *gate);
    const yoke_options options = {.size = sizeof options, .retries = 5};
    yoke_job *job = submit(pool, deaf, gate, &options);
    WAIT_FOR(count_get(&gate->begun) == 1);
    CHECK_EQ(yoke_job_cancel(job, 1), 0);
    CHECK_EQ(outcome_of(job).kind, YOKE_CANCELLED);
    check_pool_works(pool);
    CHECK_EQ(count_get(&gate->begun), 1);
    yoke_job_release(job);
    end_pool(pool);
    yoke_shared_free(gate);
}

static void released_jobs_run_to_their_end(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct gate *gate = shared_zeroed(sizeof *gate);
        count_set(&gate->go, kind == YOKE_SERIAL);
        const size_t blocks = count_blocks();
        yoke_job *job = submit(pool, hold, gate, NULL);
        yoke_job_release(job);
        for (int i = 0; i < 100; i++)
            yoke_job_release(submit(pool, come_later, gate, NULL));
        count_set(&gate->go, 1);
        WAIT_FOR(count_get(&gate->later) == 100);
        end_pool(pool);
        CHECK_EQ(count_get(&gate->begun), 1); /* maybe after all that came later */
        CHECK(count_blocks() <= blocks);
        yoke_shared_free(gate);
    }
}

static void jobs_outlive_their_pool(void)
{
    FOR_EACH_KIND(kind)
    {
        const size_t blocks = count_blocks();
        yoke_pool *pool = make_pool(kind, 2);
        yoke_job *jobs[20];
        for (int64_t i = 0; i < 20; i++)
            CHECK_RC(yoke_submit(pool, check_square, &i, 8, 8, NULL, &jobs[i]), 0);
        end_pool(pool);
        for (int64_t i = 0; i < 20; i++) {
            yoke_outcome outcome;
            const void *out = NULL;
            size_t bytes = 0;
            CHECK_RC(yoke_wait(jobs[i], 0), 0);
            CHECK_RC(yoke_job_result(jobs[i], &outcome, &out, &bytes), 0);
            CHECK_EQ(outcome.kind, YOKE_OK);
            CHECK_EQ(bytes, 8);
            CHECK_EQ(*(const int64_t *)out, i * i);
            CHECK_EQ(yoke_job_cancel(jobs[i], 0), -EALREADY);
            yoke_job_release(jobs[i]);
        }
        CHECK(count_blocks() <= blocks);
    }
}

static void a_task_that_asks_sees_its_timeout(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct gate *gate = shared_zeroed(sizeof *gate);
        const yoke_options options = {.size = sizeof options, .timeout_ns = 30 * 1000 * 1000};
        yoke_job *job = submit(pool, hold, gate, &options);
        const yoke_outcome outcome = outcome_of(job);
        CHECK_EQ(outcome.kind, YOKE_TIMEDOUT);
        CHECK_EQ(outcome.attempts, 1);
        CHECK(kind == YOKE_PROCESSES || count_get(&gate->told) == 1);
        yoke_job_release(job);
        check_pool_works(pool);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

static int never_end_some(yoke_task *task, const void *in, void *out)
{
    const size_t i = yoke_task_item(task);
    while (i == 13 || i == 170)
        breathe();
    *(int64_t *)out = *(const int64_t *)in + 1;
    return 0;
}

static void items_that_never_end_time_out_alone(void)
{
    enum { N = 200 };
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    int64_t in[N], out[N];
    yoke_outcome outcomes[N], failure = {0};
    for (int i = 0; i < N; i++)
        in[i] = i;
    const yoke_options options = {.size = sizeof options,
                                  .timeout_ns = INT64_C(1500) * 1000 * 1000,
                                  .retries = 3, /* a timeout is no death: not started again */
                                  .outcomes = outcomes,
                                  .failure = &failure};
    CHECK_RC(yoke_map(pool, never_end_some, in, 8, out, 8, N, &options), YOKE_ETASK);
    for (int i = 0; i < N; i++) {
        const int stuck = i == 13 || i == 170;
        CHECK_EQ(outcomes[i].kind, stuck ? YOKE_TIMEDOUT : YOKE_OK);
        CHECK_EQ(outcomes[i].item, i);
        if (stuck)
            CHECK_EQ(outcomes[i].attempts, 1);
        else
            CHECK_EQ(out[i], i + 1);
    }
    CHECK_EQ(failure.item, 13);
    CHECK_EQ(failure.kind, YOKE_TIMEDOUT);
    check_pool_works(pool);
    end_pool(pool);
}

static void a_timeout_kills_a_process_that_does_not_listen(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    struct gate *gate = shared_zeroed(sizeof *gate);
    const yoke_options options = {.size = sizeof options, .timeout_ns = 100 * 1000 * 1000};
    yoke_job *job = submit(pool, deaf, gate, &options);
    yoke_job *next = submit(pool, come_later, gate, NULL);
    CHECK_EQ(outcome_of(job).kind, YOKE_TIMEDOUT);
    CHECK_EQ(outcome_of(next).kind, YOKE_OK);
    yoke_job_release(job);
    yoke_job_release(next);
    check_pool_works(pool);
    end_pool(pool);
    yoke_shared_free(gate);
}

static void a_timeout_that_does_not_come_changes_nothing(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[300] = {5}, out[300];
        const yoke_options options = {.size = sizeof options,
                                      .timeout_ns = INT64_C(60) * 1000 * 1000 * 1000};
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, 300, &options), 0);
        CHECK_EQ(out[0], 25);
        const yoke_options longest = {.size = sizeof longest, .timeout_ns = INT64_MAX};
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, 300, &longest), 0);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(what_has_not_begun_never_will);
    RUN(a_running_task_is_told);
    RUN(force_kills_a_process_that_does_not_listen);
    RUN(a_forced_cancel_is_not_retried);
    RUN(released_jobs_run_to_their_end);
    RUN(jobs_outlive_their_pool);
    RUN(a_task_that_asks_sees_its_timeout);
    RUN(items_that_never_end_time_out_alone);
    RUN(a_timeout_kills_a_process_that_does_not_listen);
    RUN(a_timeout_that_does_not_come_changes_nothing);
    return 0;
}
