/* SPDX-License-Identifier: MIT
 * test_api_submit.c - one task at a time: submit, wait, result, cancel, release.
 *
 * Idea: a gate in shared memory holds tasks where the test wants them, so that "not begun",
 * "running" and "ended" are states it makes and not moments it hopes for.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

/* A task that runs until it is let go, or told to stop, or gives up. */
struct gate {
    atomic_long begun, go, told;
};

static int wait_at_gate(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    const int64_t until = soon();
    count_up(&gate->begun, 1);
    while (!count_get(&gate->go) && yoke_now_ns() < until) {
        if (yoke_task_cancelled(task)) {
            count_up(&gate->told, 1);
            return 3;
        }
        breathe();
    }
    if (out)
        *(int64_t *)out = 4711;
    return count_get(&gate->go) ? 0 : 99;
}

static yoke_job *submit_gate(yoke_pool *pool, struct gate *gate)
{
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, wait_at_gate, &gate, sizeof gate, 8, NULL, &job), 0);
    CHECK(job != NULL);
    return job;
}

static yoke_job *submit_square(yoke_pool *pool, int64_t x)
{
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, check_square, &x, sizeof x, sizeof x, NULL, &job), 0);
    return job;
}

static int64_t take_number(yoke_job *job)
{
    yoke_outcome outcome;
    const void *out = NULL;
    size_t bytes = 0;
    memset(&outcome, 0xee, sizeof outcome);
    CHECK_RC(yoke_job_result(job, &outcome, &out, &bytes), 0);
    CHECK_EQ(outcome.kind, YOKE_OK);
    CHECK_EQ(outcome.code, 0);
    CHECK_EQ(outcome.signal, 0);
    CHECK_EQ(outcome.attempts, 1);
    CHECK_EQ(outcome.item, 0);
    CHECK_EQ(bytes, 8);
    CHECK(out != NULL);
    int64_t number;
    memcpy(&number, out, sizeof number);
    yoke_job_release(job);
    return number;
}

static void one_task_gives_one_result(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_job *job = submit_square(pool, -12);
        CHECK_RC(yoke_wait(job, soon()), 0);
        CHECK_RC(yoke_wait(job, 0), 0);
        CHECK_RC(yoke_job_result(job, NULL, NULL, NULL), 0);
        CHECK_EQ(yoke_job_cancel(job, 0), -EALREADY);
        CHECK_EQ(yoke_job_cancel(job, 1), -EALREADY);
        CHECK_EQ(take_number(job), 144);
        yoke_job_release(NULL);
        end_pool(pool);
    }
}

static void more_tasks_than_there_is_room_for(void)
{
    enum { N = 5000 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        static yoke_job *jobs[N];
        for (int i = 0; i < N; i++)
            jobs[i] = submit_square(pool, i);
        CHECK_RC(yoke_wait_all(jobs, N, soon()), 0);
        for (int64_t i = 0; i < N; i++)
            CHECK_EQ(take_number(jobs[i]), i * i);
        end_pool(pool);
    }
}

struct input {
    uint64_t words[40];
};

static int check_input(yoke_task *task, const void *in, void *out)
{
    const struct input *input = in;
    const unsigned char *room = out;
    (void)task;
    if ((uintptr_t)in % 8)
        return 1;
    for (int i = 0; i < 100; i++) {
        if (room[i])
            return 2;
    }
    for (uint64_t i = 0; i < 40; i++) {
        if (input->words[i] != i * 3)
            return 3;
    }
    memset(out, 'x', 100);
    return 0;
}

static void input_is_copied_and_room_is_zeroed(void)
{
    enum { N = 300 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_job *jobs[N];
        for (int i = 0; i < N; i++) {
            struct input input;
            for (uint64_t k = 0; k < 40; k++)
                input.words[k] = k * 3;
            CHECK_RC(yoke_submit(pool, check_input, &input, sizeof input, 100, NULL, &jobs[i]), 0);
            memset(&input, 0xff, sizeof input);
        }
        CHECK_RC(yoke_wait_all(jobs, N, soon()), 0);
        for (int i = 0; i < N; i++) {
            yoke_outcome outcome;
            const void *out;
            size_t bytes;
            CHECK_RC(yoke_job_result(jobs[i], &outcome, &out, &bytes), 0);
            CHECK_EQ(outcome.kind, YOKE_OK);
            CHECK_EQ(outcome.code, 0);
            CHECK_EQ(bytes, 100);
            CHECK(((const char *)out)[0] == 'x' && ((const char *)out)[99] == 'x');
            yoke_job_release(jobs[i]);
        }
        end_pool(pool);
    }
}

static int check_alignment(yoke_task *task, const void *in, void *out)
{
    const size_t bytes = (size_t)((const unsigned char *)in)[0];
    for (size_t i = 0; i < bytes; i++) {
        if (((const unsigned char *)in)[i] != bytes)
            return 2;
    }
    if (yoke_task_context(task) != NULL)
        memset(out, 1, 8);
    return (uintptr_t)in % 8 ? 1 : 0;
}

static void input_of_any_size_is_aligned(void)
{
    enum { N = 100 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_job *jobs[2 * N];
        for (size_t i = 0; i < 2 * N; i++) {
            unsigned char in[N];
            memset(in, (int)(i / 2 + 1), sizeof in);
            const yoke_options options = {.size = sizeof options, .context = i % 2 ? pool : NULL};
            CHECK_RC(
                yoke_submit(pool, check_alignment, in, i / 2 + 1, i % 2 * 8, &options, &jobs[i]),
                0);
        }
        CHECK_RC(yoke_wait_all(jobs, 2 * N, soon()), 0);
        for (int i = 0; i < 2 * N; i++) {
            yoke_outcome outcome;
            CHECK_RC(yoke_job_result(jobs[i], &outcome, NULL, NULL), 0);
            CHECK_EQ(outcome.code, 0);
            yoke_job_release(jobs[i]);
        }
        end_pool(pool);
    }
}

static int context_number(yoke_task *task, const void *in, void *out)
{
    (void)in;
    memcpy(out, yoke_task_context(task), 8);
    return 0;
}

static void a_job_keeps_its_own_context(void)
{
    enum { N = 100 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_job *jobs[N];
        for (int64_t i = 0; i < N; i++) {
            int64_t number = i * 11;
            const yoke_options options = {
                .size = sizeof options, .context = &number, .context_bytes = sizeof number};
            CHECK_RC(yoke_submit(pool, context_number, NULL, 0, 8, &options, &jobs[i]), 0);
            number = -1;
        }
        CHECK_RC(yoke_wait_all(jobs, N, soon()), 0);
        for (int64_t i = 0; i < N; i++)
            CHECK_EQ(take_number(jobs[i]), i * 11);
        end_pool(pool);
    }
}

static int make_result(yoke_task *task, const void *in, void *out)
{
    const size_t bytes = *(const size_t *)in;
    (void)out;
    char *small = yoke_task_result(task, 33); /* the next call takes its place */
    if (!small)
        return 1;
    memset(small, 'o', 33);
    unsigned char *big = yoke_task_result(task, bytes);
    if (!big || (uintptr_t)big % 16)
        return 2;
    for (size_t i = 0; i < bytes; i += 4093) {
        if (big[i])
            return 3;
    }
    for (size_t i = 0; i < bytes; i++)
        big[i] = (unsigned char)(i * 7 + bytes);
    return 0;
}

static void results_have_the_size_the_task_gives(void)
{
    static const size_t sizes[] = {1, 8, 47, 48, 49, 64, 1000, 4096, 70001, 3 << 20, 33 << 20};
    enum { N = sizeof sizes / sizeof *sizes };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        const size_t blocks = count_blocks();
        yoke_job *jobs[N];
        for (int i = 0; i < N; i++)
            CHECK_RC(yoke_submit(pool, make_result, &sizes[i], 8, 0, NULL, &jobs[i]), 0);
        CHECK_RC(yoke_wait_all(jobs, N, soon()), 0);
        for (int i = 0; i < N; i++) {
            yoke_outcome outcome;
            const void *out = NULL;
            size_t bytes = 0;
            CHECK_RC(yoke_job_result(jobs[i], &outcome, &out, &bytes), 0);
            CHECK_EQ(outcome.code, 0);
            CHECK_EQ(outcome.kind, YOKE_OK);
            CHECK_EQ(bytes, sizes[i]);
            const unsigned char *got = out;
            for (size_t k = 0; k < bytes; k++)
                CHECK(got[k] == (unsigned char)(k * 7 + bytes));
            yoke_job_release(jobs[i]);
        }
        WAIT_FOR(count_blocks() <= blocks);
        end_pool(pool);
    }
}

static int nothing(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return 0;
}

static int fail_with_result(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(int64_t *)out = *(const int64_t *)in + 1;
    return 17;
}

static void jobs_without_result_and_failed_jobs(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_job *job = NULL;
        yoke_outcome outcome;
        const void *out = &outcome;
        size_t bytes = 5;
        CHECK_RC(yoke_submit(pool, nothing, NULL, 0, 0, NULL, &job), 0);
        CHECK_RC(yoke_wait(job, soon()), 0);
        CHECK_RC(yoke_job_result(job, &outcome, &out, &bytes), 0);
        CHECK_EQ(outcome.kind, YOKE_OK);
        CHECK(out == NULL);
        yoke_job_release(job);
        const int64_t x = 8;
        CHECK_RC(yoke_submit(pool, fail_with_result, &x, 8, 8, NULL, &job), 0);
        CHECK_RC(yoke_wait(job, soon()), 0);
        CHECK_RC(yoke_job_result(job, &outcome, &out, &bytes), 0);
        CHECK_EQ(outcome.kind, YOKE_FAILED);
        CHECK_EQ(outcome.code, 17);
        CHECK_EQ(bytes, 8);
        CHECK(out != NULL && *(const int64_t *)out == 9);
        yoke_job_release(job);
        end_pool(pool);
    }
}

static int no_result_in_a_map(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    return yoke_task_result(task, 64) == NULL ? 0 : 1;
}

static int use_task_memory(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    if (yoke_task_alloc(task, 0) != NULL)
        return 1;
    unsigned char *blocks[50];
    for (size_t i = 0; i < 50; i++) {
        blocks[i] = yoke_task_alloc(task, i * 997 + 1);
        if (!blocks[i] || (uintptr_t)blocks[i] % 16)
            return 2;
        memset(blocks[i], (int)i, i * 997 + 1);
    }
    for (size_t i = 0; i < 50; i++) {
        if (blocks[i][0] != i || blocks[i][i * 997] != i)
            return 3;
    }
    return 0;
}

static void task_memory_goes_with_the_task(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        CHECK_RC(yoke_map(pool, no_result_in_a_map, NULL, 0, NULL, 0, 20, NULL), 0);
        CHECK_RC(yoke_map(pool, use_task_memory, NULL, 0, NULL, 0, 50, NULL), 0);
        const size_t blocks = count_blocks();
        const long before = count_rss_kib();
        /* 1.2 MB an item: 2.4 GB would be here if it stayed; half a GB where all takes longer. */
        const size_t items = 2000 / check_slowness();
        CHECK_RC(yoke_map(pool, use_task_memory, NULL, 0, NULL, 0, items, NULL), 0);
        CHECK(count_rss_kib() - before < 200 * 1024);
        WAIT_FOR(count_blocks() <= blocks);
        end_pool(pool);
    }
}

static void waits_end_at_their_deadline(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 2);
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_job *job = submit_gate(pool, gate);
        WAIT_FOR(count_get(&gate->begun) == 1);
        yoke_outcome outcome = {.kind = 55};
        size_t index = 77;
        CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), -EAGAIN);
        CHECK_EQ(outcome.kind, 55);
        CHECK_RC(yoke_wait(job, 0), -ETIMEDOUT);
        const int64_t until = yoke_in_ms(30);
        CHECK_RC(yoke_wait(job, until), -ETIMEDOUT);
        CHECK(yoke_now_ns() >= until);
        CHECK_RC(yoke_wait_any(&job, 1, yoke_in_ms(10), &index), -ETIMEDOUT);
        CHECK_RC(yoke_wait_all(&job, 1, yoke_in_ms(10)), -ETIMEDOUT);
        count_set(&gate->go, 1);
        CHECK_RC(yoke_wait(job, YOKE_FOREVER), 0);
        CHECK_EQ(take_number(job), 4711);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

static void wait_any_finds_the_one_that_ended(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2), *second = make_pool(kind, 1);
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_job *jobs[4] = {NULL};
        size_t index = 77;
        CHECK_RC(yoke_wait_any(jobs, 4, soon(), &index), -EINVAL);
        CHECK_RC(yoke_wait_any(jobs, 0, soon(), &index), -EINVAL);
        CHECK_EQ(index, 77);
        CHECK_RC(yoke_wait_all(jobs, 4, soon()), 0);
        count_set(&gate->go, kind == YOKE_SERIAL);
        jobs[1] = submit_gate(pool, gate);
        if (kind != YOKE_SERIAL) {
            WAIT_FOR(count_get(&gate->begun) == 1);
            jobs[3] = submit_square(second, 6);
            CHECK_RC(yoke_wait_any(jobs, 4, soon(), &index), 0);
            CHECK_EQ(index, 3);
            CHECK_EQ(take_number(jobs[3]), 36);
            jobs[3] = NULL;
            CHECK_RC(yoke_wait_any(jobs, 4, yoke_in_ms(10), &index), -ETIMEDOUT);
            count_set(&gate->go, 1);
        }
        CHECK_RC(yoke_wait_any(jobs, 4, soon(), &index), 0);
        CHECK_EQ(index, 1);
        jobs[0] = submit_square(second, 2);
        jobs[2] = submit_square(pool, 3);
        CHECK_RC(yoke_wait_all(jobs, 4, soon()), 0);
        CHECK_EQ(take_number(jobs[0]), 4);
        CHECK_EQ(take_number(jobs[1]), 4711);
        CHECK_EQ(take_number(jobs[2]), 9);
        end_pool(second);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

static void *wait_for_job(void *job)
{
    CHECK_RC(yoke_wait(job, soon()), 0);
    return NULL;
}

static void several_threads_wait_for_one_job(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 1);
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_job *job = submit_gate(pool, gate);
        WAIT_FOR(count_get(&gate->begun) == 1);
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, wait_for_job, job), 0);
        count_set(&gate->go, 1);
        for (int i = 0; i < 4; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(take_number(job), 4711);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(one_task_gives_one_result);
    RUN(more_tasks_than_there_is_room_for);
    RUN(input_is_copied_and_room_is_zeroed);
    RUN(input_of_any_size_is_aligned);
    RUN(a_job_keeps_its_own_context);
    RUN(results_have_the_size_the_task_gives);
    RUN(jobs_without_result_and_failed_jobs);
    RUN(task_memory_goes_with_the_task);
    RUN(waits_end_at_their_deadline);
    RUN(wait_any_finds_the_one_that_ended);
    RUN(several_threads_wait_for_one_job);
    return 0;
}
