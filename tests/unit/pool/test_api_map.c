/* SPDX-License-Identifier: MIT
 * test_api_map.c - yoke_map on every kind of pool.
 *
 * Idea: the same map, the same answer, wherever it runs; the serial pool is the oracle. Every
 * item runs once, has its own outcome, and is found where it was put.
 */
/* tsan: yes */
/* timeout: 180 */
#include "check.h"
#include <pthread.h>
#include <sys/mman.h>

/* What a task was given, written down for the caller to look at. */
struct seen {
    uintptr_t in, out, context;
    size_t item;
    unsigned worker, attempt;
    int cancelled;
};

static int look(yoke_task *task, const void *in, void *out)
{
    struct seen *seen = out;
    seen->in = (uintptr_t)in;
    seen->out = (uintptr_t)out;
    seen->context = (uintptr_t)yoke_task_context(task);
    seen->item = yoke_task_item(task);
    seen->worker = yoke_task_worker(task);
    seen->attempt = yoke_task_attempt(task);
    seen->cancelled = yoke_task_cancelled(task);
    return 0;
}

static void every_count_gives_every_square(void)
{
    static const size_t counts[] = {0, 1, 2, 3, 5, 7, 64, 1000, 1001, 65537};
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            const size_t n = counts[c];
            int64_t *in = calloc(n + 1, sizeof *in), *out = calloc(n + 1, sizeof *out);
            CHECK(in && out);
            for (size_t i = 0; i < n; i++)
                in[i] = (int64_t)(i * 31) - 1000;
            out[n] = -77;
            CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, n, NULL), 0);
            for (size_t i = 0; i < n; i++)
                CHECK_EQ(out[i], in[i] * in[i]);
            CHECK_EQ(out[n], -77);
            free(in);
            free(out);
        }
        end_pool(pool);
    }
}

static void no_items_need_no_memory(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        CHECK_RC(yoke_map(pool, check_square, NULL, 8, NULL, 8, 0, NULL), 0);
        end_pool(pool);
    }
}

static void tasks_see_item_and_context(void)
{
    enum { N = 300 };
    static int anchor;
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        char in[N] = {0};
        struct seen out[N];
        memset(out, 0xff, sizeof out);
        const yoke_options options = {.size = sizeof options, .context = &anchor};
        CHECK_RC(yoke_map(pool, look, in, 1, out, sizeof *out, N, &options), 0);
        for (size_t i = 0; i < N; i++) {
            CHECK_EQ(out[i].item, i);
            CHECK_EQ(out[i].context, (uintptr_t)&anchor);
            CHECK(out[i].worker <= 2);
            CHECK_EQ(out[i].attempt, 0);
            CHECK_EQ(out[i].cancelled, 0);
        }
        CHECK_RC(yoke_map(pool, look, in, 1, out, sizeof *out, N, NULL), 0);
        CHECK_EQ(out[N / 2].context, 0);
        end_pool(pool);
    }
}

struct scale {
    int64_t factor, offset;
    char ballast[3000];
};

static int scale_by_context(yoke_task *task, const void *in, void *out)
{
    const struct scale *scale = yoke_task_context(task);
    if (scale->ballast[2999] != 'z')
        return 9;
    *(int64_t *)out = *(const int64_t *)in * scale->factor + scale->offset;
    return 0;
}

static void context_is_copied(void)
{
    enum { N = 200 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        /* Made after the pool and private: a process worker can only have it as a copy. */
        struct scale *scale = calloc(1, sizeof *scale);
        CHECK(scale != NULL);
        *scale = (struct scale){.factor = 3, .offset = -5};
        scale->ballast[2999] = 'z';
        int64_t in[N], out[N];
        for (int i = 0; i < N; i++)
            in[i] = i;
        const yoke_options options = {
            .size = sizeof options, .context = scale, .context_bytes = sizeof *scale};
        CHECK_RC(yoke_map(pool, scale_by_context, in, 8, out, 8, N, &options), 0);
        for (int i = 0; i < N; i++)
            CHECK_EQ(out[i], 3 * i - 5);
        free(scale);
        end_pool(pool);
    }
}

static int count_calls(yoke_task *task, const void *in, void *out)
{
    atomic_long *calls = (atomic_long *)(uintptr_t)yoke_task_context(task);
    (void)in;
    (void)out;
    count_up(calls + yoke_task_item(task), 1);
    return 0;
}

static int number_itself(yoke_task *task, const void *in, void *out)
{
    (void)in;
    *(uint32_t *)out = (uint32_t)yoke_task_item(task) * 7u;
    return 0;
}

static void input_or_output_may_be_missing(void)
{
    enum { N = 777 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *calls = shared_zeroed(N * sizeof *calls);
        const yoke_options options = {.size = sizeof options, .context = calls};
        CHECK_RC(yoke_map(pool, count_calls, NULL, 0, NULL, 0, N, &options), 0);
        for (int i = 0; i < N; i++)
            CHECK_EQ(count_get(calls + i), 1);
        yoke_shared_free(calls);
        uint32_t out[N];
        CHECK_RC(yoke_map(pool, number_itself, NULL, 0, out, sizeof *out, N, NULL), 0);
        for (int i = 0; i < N; i++)
            CHECK_EQ(out[i], i * 7);
        end_pool(pool);
    }
}

static int widen(yoke_task *task, const void *in, void *out)
{
    const unsigned char *from = in;
    unsigned char *to = out;
    (void)task;
    for (int i = 0; i < 5; i++)
        to[i] = (unsigned char)(from[i % 3] + i);
    return 0;
}

static void odd_sizes_do_not_touch_neighbours(void)
{
    enum { N = 1003 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        unsigned char in[N * 3], out[N * 5];
        for (size_t i = 0; i < sizeof in; i++)
            in[i] = (unsigned char)(i * 13);
        memset(out, 0, sizeof out);
        CHECK_RC(yoke_map(pool, widen, in, 3, out, 5, N, NULL), 0);
        for (size_t i = 0; i < N; i++) {
            for (size_t k = 0; k < 5; k++)
                CHECK_EQ(out[i * 5 + k], (unsigned char)(in[i * 3 + k % 3] + k));
        }
        end_pool(pool);
    }
}

static int fail_some(yoke_task *task, const void *in, void *out)
{
    const size_t i = yoke_task_item(task);
    *(int64_t *)out = *(const int64_t *)in + 1;
    if (i % 7 == 3)
        return (int)(i % 100) + 1;
    return i % 11 == 6 ? -(int)(i % 100) - 1 : 0;
}

static void failures_are_per_item(void)
{
    enum { N = 900 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[N], out[N];
        for (int i = 0; i < N; i++)
            in[i] = i;
        yoke_outcome outcomes[N], failure;
        memset(outcomes, 0xee, sizeof outcomes);
        memset(&failure, 0xee, sizeof failure);
        const yoke_options options = {
            .size = sizeof options, .outcomes = outcomes, .failure = &failure};
        CHECK_RC(yoke_map(pool, fail_some, in, 8, out, 8, N, &options), YOKE_ETASK);
        for (size_t i = 0; i < N; i++) {
            const int fails = i % 7 == 3 || i % 11 == 6;
            CHECK_EQ(outcomes[i].kind, fails ? YOKE_FAILED : YOKE_OK);
            CHECK_EQ(outcomes[i].code, fails ? (int)(i % 100) + 1 : 0);
            CHECK_EQ(outcomes[i].signal, 0);
            CHECK_EQ(outcomes[i].attempts, 1);
            CHECK_EQ(outcomes[i].item, i);
            if (!fails)
                CHECK_EQ(out[i], i + 1);
        }
        CHECK_EQ(failure.kind, YOKE_FAILED);
        CHECK_EQ(failure.item, 3);
        CHECK_EQ(failure.code, 4);
        /* Without the settings it is the return code that tells. */
        CHECK_RC(yoke_map(pool, fail_some, in, 8, out, 8, N, NULL), YOKE_ETASK);
        check_pool_works(pool);
        end_pool(pool);
    }
}

static void outcomes_of_success_are_filled_in(void)
{
    enum { N = 50 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[N] = {0}, out[N];
        yoke_outcome outcomes[N], failure = {.kind = 123, .item = 456};
        memset(outcomes, 0xee, sizeof outcomes);
        const yoke_options options = {
            .size = sizeof options, .outcomes = outcomes, .failure = &failure};
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, N, &options), 0);
        for (size_t i = 0; i < N; i++) {
            CHECK_EQ(outcomes[i].kind, YOKE_OK);
            CHECK_EQ(outcomes[i].code, 0);
            CHECK_EQ(outcomes[i].attempts, 1);
            CHECK_EQ(outcomes[i].item, i);
        }
        CHECK_EQ(failure.kind, 123); /* "if any": there was none */
        end_pool(pool);
    }
}

static void shared_memory_is_used_where_it_is(void)
{
    enum { N = 4000 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        char *in = shared_zeroed(N * 16);
        struct seen *out = shared_zeroed(N * sizeof *out);
        CHECK_RC(yoke_map(pool, look, in, 16, out, sizeof *out, N, NULL), 0);
        for (size_t i = 0; i < N; i++) {
            CHECK_EQ(out[i].in, (uintptr_t)(in + i * 16));
            CHECK_EQ(out[i].out, (uintptr_t)(out + i));
        }
        yoke_shared_free(in);
        yoke_shared_free(out);
        end_pool(pool);
    }
}

/* The first hundredth of the items costs a hundred times the rest. */
static int uneven(yoke_task *task, const void *in, void *out)
{
    const uint64_t x = *(const uint64_t *)in;
    uint64_t state = x, sum = 0;
    const int rounds = yoke_task_item(task) < 100 ? 20000 : 20;
    for (int i = 0; i < rounds; i++)
        sum += random_next(&state);
    *(uint64_t *)out = sum;
    return 0;
}

static void uneven_work_gives_the_serial_answer(void)
{
    enum { N = 10000 };
    uint64_t *in = calloc(N, 8), *want = calloc(N, 8), *out = calloc(N, 8);
    CHECK(in && want && out);
    for (uint64_t i = 0; i < N; i++)
        in[i] = i * i;
    yoke_pool *oracle = make_pool(YOKE_SERIAL, 1);
    CHECK_RC(yoke_map(oracle, uneven, in, 8, want, 8, N, NULL), 0);
    end_pool(oracle);
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 4);
        memset(out, 0, N * 8);
        CHECK_RC(yoke_map(pool, uneven, in, 8, out, 8, N, NULL), 0);
        CHECK(memcmp(out, want, N * 8) == 0);
        end_pool(pool);
    }
    free(in);
    free(want);
    free(out);
}

static void *map_many_times(void *arg)
{
    for (int i = 0; i < 30; i++)
        check_pool_works(arg);
    return NULL;
}

static void several_threads_map_at_once(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, map_many_times, pool), 0);
        for (int i = 0; i < 4; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        end_pool(pool);
    }
}

static int flip(yoke_task *task, const void *in, void *out)
{
    const uint64_t *from = in;
    uint64_t *to = out;
    (void)task;
    for (int i = 0; i < 128; i++)
        to[i] = ~from[i];
    return 0;
}

/* 300 MB in, 300 MB out, through a heap that may hold 128 MB. */
static void big_private_arrays_go_in_bounded_pieces(void)
{
    enum { ITEM = 1024, N = 300 * 1000 };
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = YOKE_PROCESSES,
                                     .workers = 2,
                                     .heap_max_bytes = (size_t)128 << 20};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    const size_t bytes = (size_t)ITEM * N;
    uint64_t *in = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(in != MAP_FAILED);
    uint64_t *out = in + bytes / 8;
    for (size_t i = 0; i < bytes / 8; i++)
        in[i] = i * 0x9e3779b97f4a7c15u;
    CHECK_RC(yoke_map(pool, flip, in, ITEM, out, ITEM, N, NULL), 0);
    for (size_t i = 0; i < bytes / 8; i++)
        CHECK(out[i] == ~(i * 0x9e3779b97f4a7c15u));
    CHECK_EQ(munmap(in, 2 * bytes), 0);
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    CHECK(stats.limit_bytes <= (size_t)128 << 20);
    end_pool(pool);
    CHECK_RC(yoke_heap_limit((size_t)1 << 40), 0);
}

static void stats_tell_what_the_pool_is(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_pool_stats stats = {.size = sizeof stats};
        yoke_job *job = NULL;
        const int64_t x = 2;
        check_pool_works(pool);
        CHECK_RC(yoke_submit(pool, check_square, &x, 8, 8, NULL, &job), 0);
        CHECK_RC(yoke_wait(job, soon()), 0);
        yoke_job_release(job);
        CHECK_RC(yoke_pool_stats_get(pool, &stats), 0);
        CHECK_EQ(stats.kind, kind);
        CHECK(stats.tasks >= 1);
        CHECK_EQ(stats.in_flight, 0);
        CHECK_EQ(stats.died, 0);
        int pids[4] = {-1, -1, -1, -1};
        const int n = yoke_pool_worker_ids(pool, pids, 4);
        if (kind == YOKE_SERIAL) {
            CHECK_EQ(n, 0);
        } else {
            CHECK_EQ(stats.workers, 2);
            CHECK(stats.started >= 2);
            CHECK_EQ(n, kind == YOKE_PROCESSES ? 2 : 0);
        }
        for (int i = 0; i < n; i++) {
            struct proc_info info;
            CHECK(proc_read(pids[i], &info));
            CHECK_EQ(info.ppid, getpid());
        }
        CHECK_EQ(yoke_pool_worker_ids(pool, NULL, 0), n);
        if (n == 2) {
            int one[2] = {-1, -1};
            CHECK(pids[0] != pids[1]);
            CHECK_EQ(yoke_pool_worker_ids(pool, one, 1), 2);
            CHECK(one[0] > 0);
            CHECK_EQ(one[1], -1);
        }
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(every_count_gives_every_square);
    RUN(no_items_need_no_memory);
    RUN(tasks_see_item_and_context);
    RUN(context_is_copied);
    RUN(input_or_output_may_be_missing);
    RUN(odd_sizes_do_not_touch_neighbours);
    RUN(failures_are_per_item);
    RUN(outcomes_of_success_are_filled_in);
    RUN(shared_memory_is_used_where_it_is);
    RUN(uneven_work_gives_the_serial_answer);
    RUN(several_threads_map_at_once);
    RUN(big_private_arrays_go_in_bounded_pieces);
    RUN(stats_tell_what_the_pool_is);
    return 0;
}
