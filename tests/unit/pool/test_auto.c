/* SPDX-License-Identifier: MIT
 * test_auto.c - pools whose size follows what their tasks do, and the CPUs they may use; and what
 * they say about it.
 *
 * Idea: tasks that compute, tasks that wait, and an affinity that changes under a pool that lives.
 * How many run at once is counted by the tasks themselves.
 */
/* tsan: yes */
/* timeout: 300 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define CHECK_TIMEOUT 120
#include "check.h"
#include "pool/cpus.h"
#include "pool/deque.h"
#include "pool/pool_private.h"
#include <stdbool.h>

struct scene {
    atomic_long now, most, done, stop;
};

static void arrive(struct scene *scene)
{
    const long now = count_up(&scene->now, 1) + 1;
    long most = count_get(&scene->most);
    while (now > most &&
           !atomic_compare_exchange_strong_explicit(&scene->most, &most, now, memory_order_seq_cst,
                                                    memory_order_seq_cst)) {
    }
}

static void leave(struct scene *scene)
{
    count_up(&scene->now, -1);
    count_up(&scene->done, 1);
}

static int64_t cpu_ns(void)
{
    struct timespec t;
    CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int compute(yoke_task *task, const void *in, void *out)
{
    struct scene *scene = *(struct scene *const *)in;
    const int64_t until = cpu_ns() + 2000000;
    (void)task;
    (void)out;
    arrive(scene);
    while (cpu_ns() < until && !count_get(&scene->stop)) {
    }
    leave(scene);
    return 0;
}

static int wait_for_stop(yoke_task *task, const void *in, void *out)
{
    struct scene *scene = *(struct scene *const *)in;
    (void)task;
    (void)out;
    arrive(scene);
    int rc = 0;
    do
        rc = yoke_sleep_until(yoke_in_ms(30));
    while (rc == 0 && !count_get(&scene->stop));
    leave(scene);
    return rc == 0 ? 0 : 1;
}

static yoke_pool *make_default(int kind, unsigned most)
{
    return make_pool_of((yoke_pool_config){.kind = kind, .workers_max = most});
}

static void say(yoke_pool *pool, char *text, size_t bytes)
{
    const int length = yoke_pool_why(pool, text, bytes);
    CHECK(length > 0 && (size_t)length < bytes);
    CHECK_EQ(strlen(text), length);
    printf("    %s\n", text);
}

static void end_jobs(yoke_job **jobs, size_t count)
{
    CHECK_RC(yoke_wait_all(jobs, count, yoke_in_ms(CHECK_PATIENCE_MS * 3)), 0);
    yoke_job_release_all(jobs, count);
}

static void hand_in(yoke_pool *pool, yoke_fn *fn, struct scene *scene, size_t count,
                    yoke_job **jobs)
{
    for (size_t i = 0; i < count; i++)
        CHECK_RC(yoke_submit(pool, fn, &scene, sizeof scene, 0, NULL, &jobs[i]), 0);
}

static unsigned cpus(void)
{
    const unsigned count = yoke_cpu_count();
    return count < 1024 ? count : 1024;
}

/* --- the size follows the tasks ------------------------------------------------------------- */

static void begins_with_a_worker_per_cpu(void)
{
    char text[600];
    yoke_pool *pool = make_default(YOKE_AUTO, 0);
    const yoke_pool_stats stats = stats_of(pool);
    CHECK_EQ(stats.kind, YOKE_THREADS);
    CHECK_EQ(stats.workers, cpus());
    say(pool, text, sizeof text);
    CHECK(strstr(text, "no task has had to queue") != NULL);
    CHECK(strstr(text, "It may grow to 1024") != NULL);
    check_pool_works(pool);
    end_pool(pool);
}

static void stays_small_while_tasks_compute(void)
{
    enum { TASKS = 400 };
    char text[600];
    struct scene scene = {0};
    yoke_job *jobs[TASKS];
    yoke_pool *pool = make_default(YOKE_AUTO, 0);
    unsigned most = 0;
    hand_in(pool, compute, &scene, TASKS, jobs);
    while (count_get(&scene.done) < TASKS - 20) {
        const unsigned workers = stats_of(pool).workers;
        most = workers > most ? workers : most;
        if (count_get(&scene.done) < TASKS / 2) /* long before the last one ends */
            CHECK(yoke_pool_why(pool, text, sizeof text) > 0);
        breathe();
    }
    printf("    %s\n", text);
    unsigned computed = 0, waited = 101, at = 0;
    CHECK_EQ(sscanf(text,
                    "%u workers: in the last %*f s its tasks computed %u %% of their time and "
                    "waited %u",
                    &at, &computed, &waited),
             3);
    CHECK(computed > waited);
    CHECK(most <= cpus() + 2);
    end_jobs(jobs, TASKS);
    end_pool(pool);
}

/* In the words of the pool. */
static bool waits_mostly(yoke_pool *pool, unsigned *workers)
{
    char text[600];
    unsigned waited = 0, computed = 101;
    say(pool, text, sizeof text);
    return sscanf(text,
                  "%u workers: in the last %*f s its tasks waited %u %% of their time and "
                  "computed %u",
                  workers, &waited, &computed) == 3 &&
           waited > 50 && computed < 50 && strstr(text, "grew beyond one worker per CPU") != NULL;
}

static void grows_while_tasks_wait_and_shrinks(void)
{
    enum { TASKS = 400 };
    char text[600];
    struct scene scene = {0};
    yoke_job *jobs[TASKS];
    yoke_pool *pool = make_default(YOKE_AUTO, 40);
    hand_in(pool, wait_for_stop, &scene, TASKS, jobs);
    WAIT_FOR(count_get(&scene.most) >= 30);
    unsigned workers = 0;
    WAIT_FOR(waits_mostly(pool, &workers));
    CHECK(workers > cpus() && workers <= 40);
    count_set(&scene.stop, 1);
    end_jobs(jobs, TASKS);
    CHECK(count_get(&scene.most) <= 41); /* and a waiter that helps */
    WAIT_MS(stats_of(pool).workers == cpus(), 40000);
    say(pool, text, sizeof text);
    CHECK(strstr(text, "it is back at one worker per CPU") != NULL);
    check_pool_works(pool);
    end_pool(pool);
}

/* --- saying why ----------------------------------------------------------------------------- */

static void every_kind_says_why(void)
{
    static const char *const words[] = {"", "serial pool", "one per CPU", "process pool"};
    FOR_EACH_KIND(kind)
    {
        char text[600], piece[8];
        yoke_pool *pool = make_default(kind, 0);
        say(pool, text, sizeof text);
        CHECK(strstr(text, words[kind]) != NULL);
        const int length = yoke_pool_why(pool, NULL, 0);
        CHECK_EQ(length, strlen(text));
        memset(piece, 'x', sizeof piece);
        CHECK_EQ(yoke_pool_why(pool, piece, 5), length);
        CHECK_EQ(memcmp(piece, text, 4), 0);
        CHECK(piece[4] == '\0' && piece[5] == 'x');
        CHECK_EQ(yoke_pool_why(pool, piece, 1), length);
        CHECK_EQ(piece[0], '\0');
        CHECK_EQ(yoke_pool_why(pool, NULL, 5), -EINVAL);
        end_pool(pool);
    }
    CHECK_EQ(yoke_pool_why(NULL, NULL, 0), -EINVAL);
    char text[600];
    yoke_pool *pool = make_pool(YOKE_THREADS, 3);
    say(pool, text, sizeof text);
    CHECK(strstr(text, "3 workers: as many as were asked for") != NULL);
    end_pool(pool);
}

/* --- the CPUs change ------------------------------------------------------------------------ */

static cpu_set_t set_of(int count, const cpu_set_t *from)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < CPU_SETSIZE && count > 0; i++) {
        if (CPU_ISSET(i, from)) {
            CPU_SET(i, &set);
            count--;
        }
    }
    return set;
}

/* Tasks run all the time; until at most (or at least) so many do so at once, for a while. */
static void runs_at_once(yoke_pool *pool, long wanted, bool at_least)
{
    enum { TASKS = 40, ENOUGH = 6 };
    const int64_t until = yoke_in_ms(CHECK_PATIENCE_MS * (int64_t)check_slowness());
    for (int rounds = 0; rounds < ENOUGH;) {
        struct scene scene = {0};
        yoke_job *jobs[TASKS];
        hand_in(pool, compute, &scene, TASKS, jobs);
        WAIT_FOR(count_get(&scene.done) == TASKS); /* without this thread's help */
        end_jobs(jobs, TASKS);
        const long most = count_get(&scene.most);
        rounds = (at_least ? most >= wanted : most <= wanted) ? rounds + 1 : 0;
        CHECK(yoke_now_ns() < until);
    }
}

static void follows_the_affinity(int kind, unsigned most)
{
    char text[600];
    cpu_set_t all;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    const cpu_set_t one = set_of(1, &all);
    const unsigned cpus_before = cpus();
    yoke_pool *pool = make_default(kind, most);
    runs_at_once(pool, 2, true);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    runs_at_once(pool, 1, false);
    say(pool, text, sizeof text);
    CHECK(strstr(text, most == 0 && kind == YOKE_THREADS ? "1 of them runs tasks" : "CPU (1)"));
    CHECK_RC(yoke_sleep_until(yoke_in_ms(1500)), 0); /* longer than an idle thread stays */
    CHECK(kind == YOKE_AUTO || stats_of(pool).workers == cpus_before);
    CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
    runs_at_once(pool, 2, true);
    end_pool(pool);
}

static void a_default_pool_follows_the_affinity(void)
{
    if (cpus() < 2)
        return;
    follows_the_affinity(YOKE_THREADS, 0);
}

static void an_automatic_pool_follows_the_affinity(void)
{
    if (cpus() < 2)
        return;
    follows_the_affinity(YOKE_AUTO, 0);
}

/* Asked for, the number stays. */
static void a_pool_of_two_stays_one(void)
{
    if (cpus() < 2)
        return;
    cpu_set_t all;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    const cpu_set_t one = set_of(1, &all);
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_RC(yoke_sleep_until(yoke_in_ms(1100)), 0); /* time enough to look */
    runs_at_once(pool, 2, true);
    CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
    end_pool(pool);
}

/* --- CPUs that come back while frames are spawned ------------------------------------------------ */

static unsigned look_now(yoke_pool *pool)
{
    atomic_store_explicit(&yk_cpus_here()->look_ns, 0, memory_order_relaxed); /* it is time */
    yk_target_follow(&pool->table);
    return yk_ctl_target(pool->ctl);
}

static void set_cpus(yoke_pool *pool, const cpu_set_t *set, unsigned target)
{
    CHECK_EQ(sched_setaffinity(0, sizeof *set, set), 0);
    WAIT_FOR(look_now(pool) == target); /* a worker may be looking just now, and see the old ones */
}

static void meet_one(yoke_strand strand, void *arg)
{
    struct scene *scene = arg;
    const int64_t until = soon();
    (void)strand;
    count_up(&scene->now, 1);
    while (count_get(&scene->now) < 2 && !count_get(&scene->stop)) {
        CHECK(yoke_now_ns() < until);
        breathe();
    }
}

static void do_nothing(yoke_strand strand, void *arg)
{
    (void)strand;
    (void)arg;
}

static void spawn_one(yoke_strand *strand, yoke_fork_fn *fn, void *arg)
{
    yoke_call call;
    yoke_spawn(strand, &call, fn, arg);
    yoke_sync(strand, &call);
}

struct absence {
    yoke_pool *pool;
    unsigned cpus;
    const cpu_set_t *all;
    struct scene scene;
};

static bool all_sleep_hungry(const struct yk_team *team)
{
    const uint64_t all = (UINT64_C(1) << team->workers) - 1;
    return atomic_load(&team->hungry[0]) == all && atomic_load(&team->parked[0]) == all &&
           yk_cpus_left() == 1;
}

/* All workers sleep and have called; spawns have heard it while there was no place for them. */
static void come_back(yoke_strand strand, void *arg)
{
    struct absence *absence = arg;
    const int64_t until = soon();
    while (!all_sleep_hungry(absence->pool->team)) {
        CHECK(yoke_now_ns() < until);
        spawn_one(&strand, do_nothing, NULL);
    }
    for (int i = 0; i < 100; i++)
        spawn_one(&strand, do_nothing, NULL);
    set_cpus(absence->pool, absence->all, absence->cpus);
    yoke_call call;
    yoke_spawn(&strand, &call, meet_one, &absence->scene);
    while (count_get(&absence->scene.now) < 1) {
        CHECK(yoke_now_ns() < until);
        spawn_one(&strand, do_nothing, NULL);
    }
    count_set(&absence->scene.stop, 1);
    yoke_sync(&strand, &call);
}

static void workers_are_called_when_cpus_come_back(void)
{
    if (cpus() < 2 || cpus() > 64)
        return;
    cpu_set_t all;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    const cpu_set_t one = set_of(1, &all);
    atomic_store_explicit(&yk_cpus_here()->look_ns, 0, memory_order_relaxed);
    yoke_pool *pool = make_default(YOKE_THREADS, 0); /* looks */
    for (int round = 0; round < 5; round++) {
        struct absence absence = {pool, cpus(), &all, {0}};
        WAIT_FOR(yk_cpus_left() == absence.cpus); /* all asleep */
        set_cpus(pool, &one, 1);
        CHECK_RC(yoke_run(pool, come_back, &absence, NULL), 0);
    }
    end_pool(pool);
}

/* --- CPUs that are left --------------------------------------------------------------------- */

static int hold(yoke_task *task, const void *in, void *out)
{
    struct scene *scene = *(struct scene *const *)in;
    (void)task;
    (void)out;
    arrive(scene);
    while (!count_get(&scene->stop))
        sched_yield();
    leave(scene);
    return 0;
}

static void workers_of_all_pools_share_the_cpus(void)
{
    struct scene scene = {0};
    yoke_job *jobs[2];
    yoke_pool *one = make_pool(YOKE_THREADS, 1);
    yoke_pool *other = make_pool(YOKE_THREADS, 1);
    const unsigned count = yk_cpus_look();
    WAIT_FOR(yk_cpus_left() == count); /* all asleep */
    hand_in(one, hold, &scene, 1, &jobs[0]);
    WAIT_FOR(count_get(&scene.now) == 1);
    WAIT_FOR(yk_cpus_left() == count - 1);
    hand_in(other, hold, &scene, 1, &jobs[1]);
    WAIT_FOR(count_get(&scene.now) == 2);
    WAIT_FOR(yk_cpus_left() == (count > 2 ? count - 2 : 0));
    count_set(&scene.stop, 1);
    end_jobs(jobs, 2);
    WAIT_FOR(yk_cpus_left() == count);
    end_pool(one);
    end_pool(other);
    CHECK_EQ(yk_cpus_left(), count);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(begins_with_a_worker_per_cpu);
    RUN(stays_small_while_tasks_compute);
    RUN(grows_while_tasks_wait_and_shrinks);
    RUN(every_kind_says_why);
    RUN(a_default_pool_follows_the_affinity);
    RUN(an_automatic_pool_follows_the_affinity);
    RUN(a_pool_of_two_stays_one);
    RUN(workers_are_called_when_cpus_come_back);
    RUN(workers_of_all_pools_share_the_cpus);
    return 0;
}
