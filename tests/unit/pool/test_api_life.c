/* SPDX-License-Identifier: MIT
 * test_api_life.c - pools come and go: destroy with and without patience, many, often, in forks.
 *
 * Idea: what a pool took from the system is counted before and after; after 200 pools nothing
 * may have grown.
 */
/* tsan: yes */
/* timeout: 240 */
#define CHECK_TIMEOUT 120
#include "check.h"
#include <pthread.h>

struct gate {
    atomic_long begun, go, told;
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

static int deaf(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    const int64_t until = soon();
    (void)task;
    (void)out;
    count_up(&gate->begun, 1);
    while (!count_get(&gate->go) && yoke_now_ns() < until)
        breathe();
    return 0;
}

static yoke_job *submit(yoke_pool *pool, yoke_fn *fn, struct gate *gate)
{
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, fn, &gate, sizeof gate, 0, NULL, &job), 0);
    return job;
}

static yoke_outcome ended(yoke_job *job)
{
    yoke_outcome outcome;
    memset(&outcome, 0xee, sizeof outcome);
    CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
    CHECK_RC(yoke_wait(job, 0), 0);
    yoke_job_release(job);
    return outcome;
}

static void defaults_make_a_pool(void)
{
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(NULL, &pool), 0);
    const yoke_pool_stats stats = stats_of(pool);
    CHECK_EQ(stats.kind, YOKE_THREADS);
    CHECK_EQ(stats.workers, yoke_cpu_count());
    check_pool_works(pool);
    end_pool(pool);
    FOR_EACH_KIND(kind)
    {
        pool = make_pool(kind, 0);
        check_pool_works(pool);
        end_pool(pool);
    }
}

static void destroy_lets_tasks_finish(void)
{
    enum { N = 300 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_job *jobs[N];
        for (int64_t i = 0; i < N; i++)
            CHECK_RC(yoke_submit(pool, check_square, &i, 8, 8, NULL, &jobs[i]), 0);
        CHECK_RC(yoke_pool_destroy(pool, soon()), 0);
        for (int i = 0; i < N; i++)
            CHECK_EQ(ended(jobs[i]).kind, YOKE_OK);
    }
}

static void destroy_stops_what_does_not_finish(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        for (int wait_ms = 0; wait_ms <= 30; wait_ms += 30) {
            struct gate *gate = shared_zeroed(sizeof *gate);
            yoke_pool *pool = make_pool(kind, 1);
            yoke_job *running = submit(pool, hold, gate), *queued[30];
            WAIT_FOR(count_get(&gate->begun) == 1);
            for (int i = 0; i < 30; i++)
                queued[i] = submit(pool, hold, gate);
            stop_pool(pool, wait_ms ? yoke_in_ms(wait_ms) : 0);
            const yoke_outcome outcome = ended(running);
            CHECK_EQ(outcome.kind, YOKE_CANCELLED);
            CHECK_EQ(outcome.attempts, 1);
            for (int i = 0; i < 30; i++) {
                const yoke_outcome never = ended(queued[i]);
                CHECK_EQ(never.kind, YOKE_CANCELLED);
                CHECK_EQ(never.attempts, 0);
            }
            CHECK_EQ(count_get(&gate->begun), 1);
            yoke_shared_free(gate);
        }
    }
}

static void destroy_kills_processes_that_do_not_listen(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    end_pool(make_pool(YOKE_PROCESSES, 2));
    struct gate *gate = shared_zeroed(sizeof *gate);
    const struct usage before = usage_now();
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    yoke_job *jobs[2] = {submit(pool, deaf, gate), submit(pool, deaf, gate)};
    WAIT_FOR(count_get(&gate->begun) == 2);
    CHECK_RC(yoke_pool_destroy(pool, yoke_in_ms(20)), -ETIMEDOUT);
    CHECK_EQ(ended(jobs[0]).kind, YOKE_CANCELLED);
    CHECK_EQ(ended(jobs[1]).kind, YOKE_CANCELLED);
    usage_check(before, 8);
    yoke_shared_free(gate);
}

static void destroy_is_busy_while_a_thread_does_not_listen(void)
{
    if (!check_has_kind(YOKE_THREADS))
        return;
    check_kind = YOKE_THREADS;
    end_pool(make_pool(YOKE_THREADS, 2));
    struct gate *gate = shared_zeroed(sizeof *gate);
    const struct usage before = usage_now();
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    yoke_job *job = submit(pool, deaf, gate);
    WAIT_FOR(count_get(&gate->begun) == 1);
    CHECK_RC(yoke_pool_destroy(pool, 0), -EBUSY);
    CHECK_RC(yoke_pool_destroy(pool, yoke_in_ms(10)), -EBUSY);
    CHECK_RC(yoke_job_result(job, NULL, NULL, NULL), -EAGAIN);
    count_set(&gate->go, 1);
    const int rc = yoke_pool_destroy(pool, soon());
    CHECK(rc == 0 || rc == -ETIMEDOUT);
    CHECK_RC(yoke_job_result(job, NULL, NULL, NULL), 0);
    yoke_job_release(job);
    usage_check(before, 8);
    yoke_shared_free(gate);
}

static void five_pools_at_once(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pools[5];
        yoke_job *jobs[5][20];
        for (int p = 0; p < 5; p++)
            pools[p] = make_pool(kind, 1 + (unsigned)p % 3);
        for (int64_t i = 0; i < 20; i++) {
            for (int p = 0; p < 5; p++)
                CHECK_RC(yoke_submit(pools[p], check_square, &i, 8, 8, NULL, &jobs[p][i]), 0);
        }
        for (int p = 4; p >= 0; p--) {
            check_pool_works(pools[p]);
            CHECK_RC(yoke_wait_all(jobs[p], 20, soon()), 0);
            for (int64_t i = 0; i < 20; i++) {
                const void *out = NULL;
                CHECK_RC(yoke_job_result(jobs[p][i], NULL, &out, NULL), 0);
                CHECK_EQ(*(const int64_t *)out, i * i);
                yoke_job_release(jobs[p][i]);
            }
        }
        /* Not in the order they were made. */
        end_pool(pools[2]);
        end_pool(pools[0]);
        check_pool_works(pools[3]);
        end_pool(pools[4]);
        end_pool(pools[3]);
        check_pool_works(pools[1]);
        end_pool(pools[1]);
    }
}

static void two_hundred_pools_leave_nothing(void)
{
    FOR_EACH_KIND(kind)
    {
        for (int i = 0; i < 5; i++) {
            yoke_pool *pool = make_pool(kind, 2);
            check_pool_works(pool);
            end_pool(pool);
        }
        const struct usage before = usage_now();
        const long rss = count_rss_kib();
        for (int i = 0; i < 200; i++) {
            yoke_pool *pool = make_pool(kind, 2);
            if (i % 20 == 0)
                check_pool_works(pool);
            yoke_job *job = NULL;
            const int64_t x = 5;
            CHECK_RC(yoke_submit(pool, check_square, &x, 8, 8, NULL, &job), 0);
            if (i % 2)
                yoke_job_release(job);
            end_pool(pool);
            if (i % 2 == 0)
                yoke_job_release(job);
        }
        usage_check(before, 20);
        /* An emulator keeps what it translated, a sanitizer what it watches. */
        CHECK(count_rss_kib() - rss < 16 * 1024 || CHECK_TSAN || CHECK_ASAN || check_emulated());
    }
}

struct inherited {
    yoke_pool *pool;
    yoke_job *job, *other;
    int kind;
};

static int no_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    (void)accumulator;
    return begin < end;
}

static void no_merge(void *accumulator, const void *other, void *user)
{
    (void)accumulator;
    (void)other;
    (void)user;
}

/* Jobs of the parent are not for the child, whatever became of their pool here. */
static void check_foreign_jobs(const struct inherited *it)
{
    size_t index = 0;
    CHECK_RC(yoke_wait(it->job, 0), -ECHILD);
    CHECK_RC(yoke_wait_any(&it->job, 1, 0, &index), -ECHILD);
    CHECK_RC(yoke_wait_all(&it->job, 1, 0), -ECHILD);
    CHECK_RC(yoke_job_result(it->job, NULL, NULL, NULL), -ECHILD);
    CHECK_RC(yoke_job_cancel(it->other, 1), -ECHILD);
    yoke_job_release(it->other);
    yoke_job_release_all(&it->other, 1);
}

/* What a forked child finds of its parent's process pool. */
static void check_foreign_pool(yoke_pool *pool)
{
    int64_t x[3] = {1, 2, 3}, out[3];
    yoke_job *job = NULL;
    uint64_t total = 0;
    yoke_pool_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_map(pool, check_square, x, 8, out, 8, 3, NULL), -ECHILD);
    CHECK_RC(yoke_submit(pool, check_square, x, 8, 8, NULL, &job), -ECHILD);
    CHECK_RC(yoke_for(pool, no_range, 3, NULL), -ECHILD);
    CHECK_RC(yoke_reduce(pool, no_range, no_merge, 3, &total, 8, NULL), -ECHILD);
    CHECK_RC(yoke_pool_stats_get(pool, &stats), -ECHILD);
    CHECK_EQ(yoke_pool_worker_ids(pool, NULL, 0), -ECHILD);
    CHECK_RC(yoke_pool_destroy(pool, 0), -ECHILD);
}

/* In a forked child: a pool of the parent's processes answers -ECHILD, others work, as does a pool
 * of its own. */
static int child_of_a_pool(void *arg)
{
    const struct inherited *it = arg;
    check_foreign_jobs(it);
    if (it->kind == YOKE_PROCESSES) {
        check_foreign_pool(it->pool);
    } else {
        check_pool_works(it->pool);
        check_foreign_jobs(it);
        end_pool(it->pool);
    }
    void *block = yoke_shared_alloc(1000);
    CHECK(block != NULL);
    memset(block, 1, 1000);
    yoke_shared_free(block);
    yoke_pool *mine = make_pool(it->kind, 2);
    check_pool_works(mine);
    end_pool(mine);
    return 0;
}

static void a_forked_child_makes_its_own(void)
{
    /* qemu-user cannot start a thread in a child that was forked beside threads: it stops itself. */
    if (CHECK_TSAN || check_emulated())
        return;
    FOR_EACH_KIND(kind)
    {
        struct gate *gate = shared_zeroed(sizeof *gate);
        count_set(&gate->go, kind == YOKE_SERIAL);
        yoke_pool *pool = make_pool(kind, 2);
        struct inherited it = {.pool = pool, .kind = kind};
        const int64_t x = 9;
        CHECK_RC(yoke_submit(pool, check_square, &x, 8, 8, NULL, &it.job), 0);
        it.other = submit(pool, hold, gate);
        CHECK_RC(yoke_wait(it.job, soon()), 0);
        CHECK_CHILD(child_of_a_pool, &it);
        /* The child neither cancelled nor released nor destroyed anything of ours. */
        count_set(&gate->go, 1);
        CHECK_RC(yoke_wait(it.other, soon()), 0);
        CHECK_EQ(ended(it.other).kind, YOKE_OK);
        CHECK_EQ(ended(it.job).kind, YOKE_OK);
        check_pool_works(pool);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

static void *make_pools(void *arg)
{
    const int kind = *(const int *)arg;
    for (int i = 0; i < 10; i++) {
        yoke_pool *pool = make_pool(kind, 2);
        check_pool_works(pool);
        end_pool(pool);
    }
    return NULL;
}

static void threads_make_pools_side_by_side(void)
{
    FOR_EACH_KIND(kind)
    {
        pthread_t threads[3];
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, make_pools, &kind), 0);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
}

static void many_workers_fit(void)
{
    FOR_EACH_KIND(kind)
    {
        const unsigned many = CHECK_TSAN ? 40 : kind == YOKE_THREADS ? 300 : 64;
        yoke_pool *pool = make_pool(kind, many);
        const yoke_pool_stats stats = stats_of(pool);
        CHECK(kind == YOKE_SERIAL || stats.workers == many);
        check_pool_works(pool);
        end_pool(pool);
    }
}

static void *make_one(void *arg)
{
    return make_pool(*(const int *)arg, 2);
}

static void the_maker_thread_may_end_first(void)
{
    FOR_EACH_KIND(kind)
    {
        pthread_t thread;
        void *made = NULL;
        CHECK_EQ(pthread_create(&thread, NULL, make_one, &kind), 0);
        CHECK_EQ(pthread_join(thread, &made), 0);
        yoke_pool *pool = made;
        for (int i = 0; i < 20; i++)
            check_pool_works(pool);
        const yoke_pool_stats stats = stats_of(pool);
        CHECK_EQ(stats.died, 0);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(defaults_make_a_pool);
    RUN(destroy_lets_tasks_finish);
    RUN(destroy_stops_what_does_not_finish);
    RUN(destroy_kills_processes_that_do_not_listen);
    RUN(destroy_is_busy_while_a_thread_does_not_listen);
    RUN(five_pools_at_once);
    RUN(two_hundred_pools_leave_nothing);
    RUN(a_forked_child_makes_its_own);
    RUN(threads_make_pools_side_by_side);
    RUN(many_workers_fit);
    RUN(the_maker_thread_may_end_first);
    return 0;
}
