/* SPDX-License-Identifier: MIT
 * test_threads_many.c - many threads of the program use one thread pool at once, in every way.
 *
 * Idea: more callers than workers, each with its own data and known answers; maps, fors, reduces
 * and jobs overlap, and the pool's counters come out even.
 */
/* tsan: yes */
/* timeout: 180 */
#define CHECK_TIMEOUT 120
#include "check.h"
#include <pthread.h>

enum { CALLERS = 8, ROUNDS = 60 };

struct caller {
    pthread_t thread;
    yoke_pool *pool;
    uint64_t random;
};

static int add(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    const uint64_t factor = *(const uint64_t *)yoke_task_context(task);
    for (size_t i = begin; i < end; i++)
        *(uint64_t *)accumulator += i * factor;
    return 0;
}

static void merge_add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static int mark(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    unsigned char *marks = *(unsigned char *const *)yoke_task_context(task);
    (void)accumulator;
    for (size_t i = begin; i < end; i++)
        marks[i]++; /* plain: the pool alone keeps two from one item */
    return 0;
}

static void one_map(struct caller *caller, size_t n)
{
    int64_t in[3000], out[3000];
    for (size_t i = 0; i < n; i++)
        in[i] = (int64_t)(i * n);
    memset(out, 0xff, sizeof out);
    CHECK_RC(yoke_map(caller->pool, check_square, in, 8, out, 8, n, NULL), 0);
    for (size_t i = 0; i < n; i++)
        CHECK_EQ(out[i], in[i] * in[i]);
}

static void one_reduce(struct caller *caller, size_t n)
{
    uint64_t factor = random_next(&caller->random) % 100, sum = 0;
    const yoke_options options = {
        .size = sizeof options, .context = &factor, .context_bytes = sizeof factor};
    CHECK_RC(yoke_reduce(caller->pool, add, merge_add, n, &sum, sizeof sum, &options), 0);
    CHECK_EQ(sum, factor * (n * (n - 1) / 2));
}

static void one_for(struct caller *caller, size_t n)
{
    unsigned char marks[3000] = {0}, *at = marks;
    const yoke_options options = {
        .size = sizeof options, .context = &at, .context_bytes = sizeof at};
    CHECK_RC(yoke_for(caller->pool, mark, n, &options), 0);
    for (size_t i = 0; i < n; i++)
        CHECK_EQ(marks[i], 1);
}

static void some_jobs(struct caller *caller, size_t n)
{
    yoke_job *jobs[64];
    n = n % 64 + 1;
    for (size_t i = 0; i < n; i++) {
        const int64_t x = (int64_t)(i + n);
        CHECK_RC(yoke_submit(caller->pool, check_square, &x, 8, 8, NULL, &jobs[i]), 0);
    }
    size_t left = n;
    while (left > n / 2) {
        size_t index = 99;
        CHECK_RC(yoke_wait_any(jobs, n, soon(), &index), 0);
        CHECK(index < n && jobs[index] != NULL);
        const void *out = NULL;
        CHECK_RC(yoke_job_result(jobs[index], NULL, &out, NULL), 0);
        CHECK_EQ(*(const int64_t *)out, (int64_t)((index + n) * (index + n)));
        yoke_job_release(jobs[index]);
        jobs[index] = NULL;
        left--;
    }
    CHECK_RC(yoke_wait_all(jobs, n, soon()), 0);
    for (size_t i = 0; i < n; i++)
        yoke_job_release(jobs[i]);
}

static void *use_pool(void *arg)
{
    struct caller *caller = arg;
    for (int round = 0; round < ROUNDS; round++) {
        const size_t n = 1 + random_next(&caller->random) % 2999;
        switch (random_next(&caller->random) % 4) {
        case 0:
            one_map(caller, n);
            break;
        case 1:
            one_reduce(caller, n);
            break;
        case 2:
            one_for(caller, n);
            break;
        default:
            some_jobs(caller, n);
        }
    }
    return NULL;
}

static void many_callers_share_a_pool(void)
{
    uint64_t seed = random_seed();
    for (unsigned workers = 1; workers <= 4; workers += 1) {
        yoke_pool *pool = make_pool(YOKE_THREADS, workers);
        struct caller callers[CALLERS];
        for (int i = 0; i < CALLERS; i++) {
            callers[i] = (struct caller){.pool = pool, .random = random_next(&seed)};
            CHECK_EQ(pthread_create(&callers[i].thread, NULL, use_pool, &callers[i]), 0);
        }
        for (int i = 0; i < CALLERS; i++)
            CHECK_EQ(pthread_join(callers[i].thread, NULL), 0);
        const yoke_pool_stats stats = stats_of(pool);
        CHECK_EQ(stats.in_flight, 0);
        CHECK_EQ(stats.workers, workers);
        CHECK_EQ(stats.died, 0);
        end_pool(pool);
    }
}

struct use {
    atomic_long on[80];
};

static int note_worker(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    struct use *use = (struct use *)(uintptr_t)yoke_task_context(task);
    const unsigned worker = yoke_task_worker(task);
    (void)accumulator;
    if (worker > 4)
        return 1;
    /* "No two tasks that run at the same time share one." */
    const long others = count_up(&use->on[worker], 1);
    for (size_t i = begin; i < end; i++)
        sched_yield();
    count_up(&use->on[worker], -1);
    return others ? 2 : 0;
}

static void worker_numbers_are_not_shared(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 4);
    struct use *use = calloc(1, sizeof *use);
    CHECK(use != NULL);
    yoke_outcome failure = {0};
    const yoke_options options = {.size = sizeof options, .context = use, .failure = &failure};
    for (int round = 0; round < 30; round++) {
        const int rc = yoke_for(pool, note_worker, 2000, &options);
        CHECK_EQ(failure.code, 0);
        CHECK_RC(rc, 0);
    }
    free(use);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(many_callers_share_a_pool);
    RUN(worker_numbers_are_not_shared);
    return 0;
}
