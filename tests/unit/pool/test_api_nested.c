/* SPDX-License-Identifier: MIT
 * test_api_nested.c - pools used from inside their own tasks.
 *
 * Idea: with fewer workers than nested waits, a pool whose waits only wait would stop for ever;
 * these tests end only if waiting inside a task helps.
 */
/* tsan: yes */
/* timeout: 120 */
#include "check.h"
#include <sys/mman.h>

static int sum_squares(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    for (size_t i = begin; i < end; i++)
        *(uint64_t *)accumulator += i * i;
    return 0;
}

static void merge_add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static int mark(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    atomic_long *marks = (atomic_long *)(uintptr_t)yoke_task_context(task);
    (void)accumulator;
    for (size_t i = begin; i < end; i++)
        count_up(marks + i, 1);
    return 0;
}

/* A map, a for and a reduce inside one item; the code says which was wrong. */
static int nest_all(yoke_task *task, const void *in, void *out)
{
    enum { M = 200 };
    yoke_pool *pool = *(yoke_pool *const *)yoke_task_context(task);
    int64_t numbers[M], squares[M];
    for (int i = 0; i < M; i++)
        numbers[i] = i + *(const int64_t *)in;
    memset(squares, 0, sizeof squares);
    if (yoke_map(pool, check_square, numbers, 8, squares, 8, M, NULL) != 0)
        return 1;
    for (int i = 0; i < M; i++) {
        if (squares[i] != numbers[i] * numbers[i])
            return 2;
    }
    uint64_t sum = 0;
    if (yoke_reduce(pool, sum_squares, merge_add, M, &sum, sizeof sum, NULL) != 0)
        return 3;
    if (sum != UINT64_C(199) * 200 * 399 / 6)
        return 4;
    atomic_long *marks = yoke_shared_alloc(M * sizeof *marks);
    if (!marks)
        return 5;
    memset(marks, 0, M * sizeof *marks);
    const yoke_options options = {.size = sizeof options, .context = marks};
    int rc = yoke_for(pool, mark, M, &options) ? 6 : 0;
    for (int i = 0; i < M && rc == 0; i++)
        rc = count_get(marks + i) == 1 ? 0 : 7;
    yoke_shared_free(marks);
    *(int64_t *)out = *(const int64_t *)in + 1;
    return rc;
}

static void maps_fors_and_reduces_nest(void)
{
    enum { N = 60 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[N], out[N];
        for (int i = 0; i < N; i++)
            in[i] = i;
        yoke_outcome failure = {0};
        const yoke_options options = {.size = sizeof options,
                                      .context = &pool,
                                      .context_bytes = sizeof pool,
                                      .failure = &failure};
        const int rc = yoke_map(pool, nest_all, in, 8, out, 8, N, &options);
        CHECK_EQ(failure.code, 0);
        CHECK_RC(rc, 0);
        for (int i = 0; i < N; i++)
            CHECK_EQ(out[i], i + 1);
        end_pool(pool);
    }
}

static int nest_failures(yoke_task *task, const void *in, void *out);

static int odd_fails(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    return yoke_task_item(task) % 2 ? 21 : 0;
}

static int nest_failures(yoke_task *task, const void *in, void *out)
{
    yoke_pool *pool = *(yoke_pool *const *)yoke_task_context(task);
    yoke_outcome outcomes[10], failure = {.item = 99};
    const yoke_options options = {
        .size = sizeof options, .outcomes = outcomes, .failure = &failure};
    (void)in;
    (void)out;
    if (yoke_map(pool, odd_fails, NULL, 0, NULL, 0, 10, &options) != YOKE_ETASK)
        return 1;
    if (failure.item != 1 || failure.code != 21 || failure.kind != YOKE_FAILED)
        return 2;
    for (size_t i = 0; i < 10; i++) {
        if (outcomes[i].kind != (i % 2 ? YOKE_FAILED : YOKE_OK) || outcomes[i].item != i)
            return 3;
    }
    return 0;
}

static void nested_failures_stay_inside(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_outcome failure = {0};
        const yoke_options options = {.size = sizeof options,
                                      .context = &pool,
                                      .context_bytes = sizeof pool,
                                      .failure = &failure};
        const int rc = yoke_map(pool, nest_failures, NULL, 0, NULL, 0, 20, &options);
        CHECK_EQ(failure.code, 0);
        CHECK_RC(rc, 0);
        end_pool(pool);
    }
}

struct call {
    yoke_pool *pool;
    int64_t n;
};

/* fib by submit and wait: two children a task, nearly all of them waiting at once. */
static int fib(yoke_task *task, const void *in, void *out)
{
    const struct call *call = in;
    (void)task;
    if (call->n < 2) {
        *(int64_t *)out = call->n;
        return 0;
    }
    yoke_job *jobs[2];
    for (int i = 0; i < 2; i++) {
        const struct call child = {call->pool, call->n - 1 - i};
        if (yoke_submit(call->pool, fib, &child, sizeof child, 8, NULL, &jobs[i]) != 0)
            return 1;
    }
    if (yoke_wait_all(jobs, 2, YOKE_FOREVER) != 0)
        return 2;
    int64_t sum = 0;
    for (int i = 0; i < 2; i++) {
        const void *got = NULL;
        yoke_outcome outcome;
        if (yoke_job_result(jobs[i], &outcome, &got, NULL) != 0 || outcome.kind != YOKE_OK)
            return 3;
        sum += *(const int64_t *)got;
        yoke_job_release(jobs[i]);
    }
    *(int64_t *)out = sum;
    return 0;
}

static int64_t run_call(yoke_pool *pool, yoke_fn *fn, int64_t n)
{
    const struct call call = {pool, n};
    yoke_job *job = NULL;
    yoke_outcome outcome;
    const void *out = NULL;
    CHECK_RC(yoke_submit(pool, fn, &call, sizeof call, 8, NULL, &job), 0);
    CHECK_RC(yoke_wait(job, yoke_in_ms(2 * CHECK_PATIENCE_MS)), 0);
    CHECK_RC(yoke_job_result(job, &outcome, &out, NULL), 0);
    CHECK_EQ(outcome.code, 0);
    CHECK_EQ(outcome.kind, YOKE_OK);
    const int64_t result = *(const int64_t *)out;
    yoke_job_release(job);
    return result;
}

static void submit_inside_tasks_ends(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_PROCESSES)
            continue;
        for (unsigned workers = 1; workers <= 3; workers++) {
            yoke_pool *pool = make_pool(kind, workers);
            CHECK_EQ(run_call(pool, fib, 15), 610);
            end_pool(pool);
        }
    }
}

/* Each task waits for one child: as deep as the chain is long. */
static int chain(yoke_task *task, const void *in, void *out)
{
    const struct call *call = in;
    (void)task;
    if (call->n == 0) {
        *(int64_t *)out = 0;
        return 0;
    }
    const struct call child = {call->pool, call->n - 1};
    yoke_job *job = NULL;
    const void *got = NULL;
    if (yoke_submit(call->pool, chain, &child, sizeof child, 8, NULL, &job) != 0)
        return 1;
    if (yoke_wait(job, YOKE_FOREVER) != 0 || yoke_job_result(job, NULL, &got, NULL) != 0 || !got)
        return 2;
    *(int64_t *)out = *(const int64_t *)got + 1;
    yoke_job_release(job);
    return 0;
}

static void deep_chains_end(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_PROCESSES)
            continue;
        yoke_pool *pool = make_pool(kind, 2);
        CHECK_EQ(run_call(pool, chain, 500), 500);
        end_pool(pool);
    }
}

/* More children than there is room for, from inside a task: submit runs some itself. */
static int flood(yoke_task *task, const void *in, void *out)
{
    enum { MANY = 3000 };
    const struct call *call = in;
    (void)task;
    yoke_job **jobs = calloc(MANY, sizeof *jobs);
    if (!jobs)
        return 1;
    int64_t sum = 0;
    int rc = 0;
    for (int64_t i = 0; i < MANY && rc == 0; i++)
        rc = yoke_submit(call->pool, check_square, &i, 8, 8, NULL, &jobs[i]) ? 2 : 0;
    if (rc == 0 && yoke_wait_all(jobs, MANY, YOKE_FOREVER) != 0)
        rc = 3;
    for (int i = 0; i < MANY && rc == 0; i++) {
        const void *got = NULL;
        if (yoke_job_result(jobs[i], NULL, &got, NULL) != 0 || !got)
            rc = 4;
        else
            sum += *(const int64_t *)got;
        yoke_job_release(jobs[i]);
    }
    free(jobs);
    *(int64_t *)out = sum;
    return rc;
}

static void a_task_may_submit_more_than_there_is_room_for(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_PROCESSES)
            continue;
        yoke_pool *pool = make_pool(kind, 1);
        CHECK_EQ(run_call(pool, flood, 0), INT64_C(2999) * 3000 * 5999 / 6);
        end_pool(pool);
    }
}

static int try_nested(yoke_task *task, const void *in, void *out)
{
    yoke_pool *pool = *(yoke_pool *const *)in, *mine = NULL;
    yoke_job *job = NULL;
    int64_t x = 1;
    int *codes = out;
    (void)task;
    codes[0] = yoke_submit(pool, check_square, &x, 8, 8, NULL, &job);
    const yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES, .workers = 1};
    codes[1] = yoke_pool_create(&config, &mine);
    codes[2] = yoke_init();
    codes[3] = yoke_heap_limit((size_t)64 << 20);
    codes[4] = job == NULL && mine == NULL;
    return 0;
}

static void a_process_worker_may_not_submit_or_make_processes(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    yoke_job *job = NULL;
    const void *out = NULL;
    CHECK_RC(yoke_submit(pool, try_nested, &pool, sizeof pool, 5 * sizeof(int), NULL, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, NULL, &out, NULL), 0);
    CHECK(out != NULL);
    const int *codes = out;
    CHECK_RC(codes[0], YOKE_ENESTED);
    CHECK_RC(codes[1], YOKE_ENESTED);
    CHECK_RC(codes[2], YOKE_ENESTED);
    CHECK_RC(codes[3], YOKE_ENESTED);
    CHECK_EQ(codes[4], 1);
    yoke_job_release(job);
    end_pool(pool);
}

/* Of a pool whose memory this worker does not have, as one that is another program's copy. */
static int hand_to_nowhere(yoke_task *task, const void *in, void *out)
{
    void *nowhere = mmap(NULL, 1 << 16, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    yoke_job *job = NULL;
    int64_t x = 1;
    int *codes = out;
    (void)task;
    (void)in;
    CHECK(nowhere != MAP_FAILED);
    codes[0] = yoke_submit(nowhere, check_square, &x, 8, 8, NULL, &job);
    codes[1] = yoke_submit_many(nowhere, check_square, &x, 8, 8, 1, NULL, &job);
    codes[2] = yoke_post(nowhere, check_square, &x, 8, NULL);
    codes[3] = yoke_pool_drain(nowhere, 0);
    munmap(nowhere, 1 << 16);
    return 0;
}

static void a_process_worker_does_not_read_the_pool(void)
{
    int codes[4] = {0};
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    CHECK_RC(yoke_map(pool, hand_to_nowhere, NULL, 0, codes, sizeof codes, 1, NULL), 0);
    for (int i = 0; i < 4; i++)
        CHECK_RC(codes[i], YOKE_ENESTED);
    end_pool(pool);
}

static int try_destroy(yoke_task *task, const void *in, void *out)
{
    yoke_pool *pool = *(yoke_pool *const *)in;
    (void)task;
    *(int *)out = yoke_pool_destroy(pool, 0);
    return 0;
}

static void a_task_cannot_destroy_its_pool(void)
{
    if (!check_has_kind(YOKE_THREADS))
        return;
    check_kind = YOKE_THREADS;
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    yoke_job *job = NULL;
    const void *out = NULL;
    CHECK_RC(yoke_submit(pool, try_destroy, &pool, sizeof pool, sizeof(int), NULL, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, NULL, &out, NULL), 0);
    CHECK(out != NULL);
    CHECK_RC(*(const int *)out, -EDEADLK);
    yoke_job_release(job);
    check_pool_works(pool);
    end_pool(pool);
}

static int use_other_pool(yoke_task *task, const void *in, void *out)
{
    yoke_pool *other = *(yoke_pool *const *)yoke_task_context(task);
    return yoke_map(other, check_square, in, 8, out, 8, 1, NULL) ? 1 : 0;
}

static void tasks_may_use_another_pool(void)
{
    enum { N = 40 };
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_PROCESSES)
            continue;
        yoke_pool *outer = make_pool(kind, 2);
        for (int inner = check_next_kind(0); inner != 0; inner = check_next_kind(inner)) {
            yoke_pool *pool = make_pool(inner, 2);
            int64_t in[N], out[N];
            for (int i = 0; i < N; i++)
                in[i] = i;
            const yoke_options options = {
                .size = sizeof options, .context = &pool, .context_bytes = sizeof pool};
            CHECK_RC(yoke_map(outer, use_other_pool, in, 8, out, 8, N, &options), 0);
            for (int i = 0; i < N; i++)
                CHECK_EQ(out[i], i * i);
            end_pool(pool);
        }
        end_pool(outer);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(maps_fors_and_reduces_nest);
    RUN(nested_failures_stay_inside);
    RUN(submit_inside_tasks_ends);
    RUN(deep_chains_end);
    RUN(a_task_may_submit_more_than_there_is_room_for);
    RUN(a_process_worker_may_not_submit_or_make_processes);
    RUN(a_process_worker_does_not_read_the_pool);
    RUN(a_task_cannot_destroy_its_pool);
    RUN(tasks_may_use_another_pool);
    return 0;
}
