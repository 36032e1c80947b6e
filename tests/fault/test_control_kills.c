/* SPDX-License-Identifier: MIT
 * test_control_kills.c - cancels, deadlines, kills and restarts that race with everything else.
 *
 * Idea: each task that must end is followed closely by tasks that must not. Whatever is sent for
 * the one, the others end well; and whatever dies, a job ends, and workers are started again no
 * faster than they should be.
 */
/* timeout: 240 */
#define CHECK_TIMEOUT 100
#include "check.h"
#include <pthread.h>
#include <sys/resource.h>

enum { NOBODY = 54331 }; /* a user who has nothing running */

struct it {
    atomic_long begun, told, wrong, inits, doomed_to_die, pid;
};

static const int64_t us = 1000, ms = INT64_C(1000) * 1000;
static struct it *it;
static volatile sig_atomic_t innocent; /* the task that runs, or ran last */

static void on_signal(int sig)
{
    (void)sig;
    count_up(innocent ? &it->wrong : &it->told, 1);
}

static int listen(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    (void)set_action(SIGINT, on_signal);
    (void)set_action(SIGTERM, on_signal);
    return 0;
}

static void spin(int64_t ns)
{
    const int64_t until = yoke_now_ns() + ns;
    while (yoke_now_ns() < until) {
    }
}

/* Works that long; once told to stop, that long again. */
static int linger(yoke_task *task, const void *in, void *out)
{
    const int64_t ns = *(const int64_t *)in;
    const int64_t until = yoke_now_ns() + ns;
    (void)out;
    innocent = 0;
    count_up(&it->begun, 1);
    while (yoke_now_ns() < until && !yoke_task_cancelled(task)) {
    }
    spin(yoke_task_cancelled(task) ? ns : 0);
    return 0;
}

static int mind_own_business(yoke_task *task, const void *in, void *out)
{
    (void)task;
    innocent = 1;
    spin(50 * us);
    *(int64_t *)out = *(const int64_t *)in + 1;
    return 0;
}

static yoke_pool *make(yoke_pool_config config)
{
    config.kind = YOKE_PROCESSES;
    return make_pool_of(config);
}

static yoke_job *submit(yoke_pool *pool, yoke_fn *fn, int64_t in, int64_t timeout_ns)
{
    const yoke_options options = {.size = sizeof options, .timeout_ns = timeout_ns};
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, fn, &in, sizeof in, 8, &options, &job), 0);
    return job;
}

static void await_workers(yoke_pool *pool, int count)
{
    WAIT_FOR(yoke_pool_worker_ids(pool, NULL, 0) == count);
}

/* --- who is asked to stop, and who comes next ------------------------------------------------ */

static void no_signal_hits_the_next_task(void)
{
    enum { ROUNDS = 300, NEXT = 30 };
    uint64_t random = random_seed();
    long cancelled = 0;
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make((yoke_pool_config){.workers = 1,
                                              .worker_init = listen,
                                              .interrupt_grace_ns = 2 * ms,
                                              .terminate_grace_ns = 60000 * ms});
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t ns = (int64_t)(random_next(&random) % (4000 * (uint64_t)us));
        yoke_job *job = submit(pool, linger, ns, 0), *next[NEXT];
        for (int i = 0; i < NEXT; i++)
            next[i] = submit(pool, mind_own_business, i, 0);
        WAIT_FOR(count_get(&it->begun) > round);
        spin((int64_t)(random_next(&random) % (2000 * (uint64_t)us)));
        (void)yoke_job_cancel(job, 1);
        const int kind = end_job(job).kind;
        CHECK(kind == YOKE_OK || kind == YOKE_CANCELLED);
        cancelled += kind == YOKE_CANCELLED;
        for (int i = 0; i < NEXT; i++)
            CHECK_EQ(end_job(next[i]).kind, YOKE_OK);
    }
    const long wrong = count_get(&it->wrong), died = (long)stats_of(pool).died;
    fprintf(stderr, "    %ld of %d cancelled, %ld signals\n", cancelled, ROUNDS,
            count_get(&it->told));
    CHECK_EQ(wrong, 0);
    CHECK_EQ(died, 0);
    CHECK(cancelled > 0 && count_get(&it->told) > 0);
    end_pool(pool);
}

static void the_worker_lives_on(void)
{
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make(
        (yoke_pool_config){.workers = 1, .worker_init = listen, .terminate_grace_ns = 60000 * ms});
    for (int kind = YOKE_OK, tries = 1; kind != YOKE_CANCELLED; tries++) {
        yoke_job *job = submit(pool, linger, 20 * ms, 0);
        WAIT_FOR(count_get(&it->begun) == tries);
        (void)yoke_job_cancel(job, 1);
        kind = end_job(job).kind;
    }
    /* Longer than a worker that was let go may take to go. */
    const int64_t until = yoke_in_ms(1500);
    while (yoke_now_ns() < until)
        CHECK_EQ(end_job(submit(pool, mind_own_business, 0, 0)).kind, YOKE_OK);
    CHECK_EQ(count_get(&it->wrong), 0);
    CHECK_EQ(stats_of(pool).died, 0);
    end_pool(pool);
}

/* Killed from outside at any moment of being asked, giving up and being let go. */
static void killed_in_the_middle_of_it(void)
{
    enum { ROUNDS = 200 };
    uint64_t random = random_seed();
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make((yoke_pool_config){.workers = 1,
                                              .worker_init = listen,
                                              .interrupt_grace_ns = ms,
                                              .terminate_grace_ns = 60000 * ms});
    const size_t blocks = count_blocks();
    for (int round = 0; round < ROUNDS; round++) {
        int pid = -1;
        WAIT_FOR(yoke_pool_worker_ids(pool, &pid, 1) == 1);
        const long before = count_get(&it->begun);
        yoke_job *job = submit(pool, linger, 500 * us, 0);
        yoke_job *next = submit(pool, mind_own_business, 1, 0);
        WAIT_FOR(count_get(&it->begun) > before);
        (void)yoke_job_cancel(job, 1);
        spin((int64_t)(random_next(&random) % (1500 * (uint64_t)us)));
        (void)signal_child(pid, SIGKILL);
        const int kind = end_job(job).kind;
        CHECK(kind == YOKE_OK || kind == YOKE_CANCELLED);
        const int after = end_job(next).kind;
        CHECK(after == YOKE_OK || after == YOKE_CRASHED);
    }
    check_pool_works(pool);
    CHECK_EQ(count_get(&it->wrong), 0);
    CHECK_EQ(count_blocks(), blocks);
    end_pool(pool);
}

/* --- cancel and deadline against completion -------------------------------------------------- */

static void cancel_races_with_completion(void)
{
    const int rounds = 10000 / (int)check_slowness();
    uint64_t random = random_seed();
    long kinds[5] = {0};
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    for (int round = 0; round < rounds; round++) {
        yoke_job *job = submit(pool, linger, (int64_t)(random_next(&random) % 60) * us, 0);
        spin((int64_t)(random_next(&random) % 90) * us);
        const int rc = yoke_job_cancel(job, 1);
        CHECK(rc == 0 || rc == -EALREADY);
        const yoke_outcome outcome = end_job(job);
        CHECK(outcome.kind == YOKE_OK || outcome.kind == YOKE_CANCELLED);
        CHECK(rc == 0 || outcome.kind == YOKE_OK);
        CHECK(outcome.attempts == 1 || (outcome.attempts == 0 && outcome.kind == YOKE_CANCELLED));
        kinds[outcome.kind]++;
    }
    check_pool_works(pool);
    fprintf(stderr, "    %ld ended, %ld cancelled, %ld workers died\n", kinds[YOKE_OK],
            kinds[YOKE_CANCELLED], (long)stats_of(pool).died);
    CHECK(kinds[YOKE_OK] > 0 && kinds[YOKE_CANCELLED] > 0);
    end_pool(pool);
}

static void *force(void *arg)
{
    const int rc = yoke_job_cancel(arg, 1);
    CHECK(rc == 0 || rc == -EALREADY);
    return NULL;
}

static void several_threads_force_the_same_job(void)
{
    enum { ROUNDS = 60, THREADS = 4 };
    const yoke_pool_config configs[] = {
        {.workers = 2},
        {.workers = 2, .worker_init = listen, .interrupt_grace_ns = 60000 * ms},
    };
    memset(it, 0, sizeof *it);
    for (size_t c = 0; c < 2; c++) {
        yoke_pool *pool = make(configs[c]);
        for (int round = 0; round < ROUNDS; round++) {
            const long before = count_get(&it->begun);
            yoke_job *job = submit(pool, linger, 300 * us, 0);
            pthread_t threads[THREADS];
            WAIT_FOR(count_get(&it->begun) > before);
            for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, force, job), 0);
            CHECK_EQ(end_job(submit(pool, mind_own_business, 1, 0)).kind, YOKE_OK);
            CHECK_RC(yoke_wait(job, soon()), 0);
            for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
            CHECK_EQ(yoke_job_cancel(job, 1), -EALREADY);
            const int kind = end_job(job).kind;
            CHECK(kind == YOKE_OK || kind == YOKE_CANCELLED);
        }
        CHECK(stats_of(pool).died <= (c == 0 ? ROUNDS : 0));
        end_pool(pool);
    }
    CHECK_EQ(count_get(&it->wrong), 0);
}

static void deadlines_race_with_completion(void)
{
    enum { ROUNDS = 200 };
    uint64_t random = random_seed();
    long late = 0;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t ns = ms + (int64_t)(random_next(&random) % 400) * us;
        yoke_job *job = submit(pool, linger, ns, ms + 200 * us);
        yoke_job *next = submit(pool, mind_own_business, 1, 0);
        const int kind = end_job(job).kind;
        CHECK(kind == YOKE_OK || kind == YOKE_TIMEDOUT);
        late += kind == YOKE_TIMEDOUT;
        CHECK_EQ(end_job(next).kind, YOKE_OK);
    }
    fprintf(stderr, "    %ld of %d were late\n", late, ROUNDS);
    end_pool(pool);
}

/* --- who steps in ---------------------------------------------------------------------------- */

/* Large, so that its death takes a while. */
static int fill_memory_for_ever(yoke_task *task, const void *in, void *out)
{
    const size_t bytes = (size_t)256 << 20;
    char *volatile block = malloc(bytes);
    (void)task;
    (void)in;
    (void)out;
    if (block != NULL)
        memset(block, 1, bytes);
    count_set(&it->pid, getpid());
    count_up(&it->begun, 1);
    for (;;)
        breathe();
    return 0;
}

static void nobody_waits_for_a_burial(void)
{
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    int first = 0;
    for (int round = 1; round <= 10; round++) {
        WAIT_FOR(stats_of(pool).spares == 1);
        yoke_job *job = submit(pool, fill_memory_for_ever, 0, 0);
        yoke_job *next = submit(pool, mind_own_business, 1, 0);
        WAIT_FOR(count_get(&it->begun) == round);
        CHECK_EQ(yoke_job_cancel(job, 1), 0);
        CHECK_RC(yoke_wait(next, soon()), 0);
        first += !process_is_gone((int)count_get(&it->pid));
        CHECK_EQ(end_job(next).kind, YOKE_OK);
        CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
        CHECK(stats_of(pool).spares <= 1);
    }
    fprintf(stderr, "    %d of 10 were answered before the dead one was gone\n", first);
    CHECK(first > 0);
    end_pool(pool);
}

/* A worker is woken for a task while it is stopped, and dies before it could claim it. */
static void a_wake_that_dies_is_not_lost(void)
{
    enum { ROUNDS = 150, WORKERS = 3 };
    struct proc_info info;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, WORKERS);
    for (int round = 0; round < ROUNDS; round++) {
        int pids[WORKERS];
        /* At once: the pool may hear just now that the last one is dead. */
        WAIT_FOR(yoke_pool_worker_ids(pool, pids, WORKERS) == WORKERS);
        const int pid = pids[round % WORKERS];
        if (signal_child(pid, SIGSTOP))
            WAIT_FOR(process_is_gone(pid) || (proc_read(pid, &info) && info.state == 'T'));
        yoke_job *job = submit(pool, mind_own_business, 1, 0);
        (void)signal_child(pid, SIGKILL);
        /* No waiter sleeps, so none looks for what was forgotten. */
        WAIT_FOR(yoke_wait(job, 0) == 0);
        CHECK_EQ(end_job(job).kind, YOKE_OK);
    }
    end_pool(pool);
}

/* --- how often workers are started ----------------------------------------------------------- */

/* Who counts has asked before: what it is told later is for others. */
static int die_if_told(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    const long doomed = count_get(&it->doomed_to_die);
    count_up(&it->inits, 1);
    if (doomed)
        raise(SIGKILL);
    return 0;
}

/* The spare counts as one as soon as it is born; here it has also come to life. */
static yoke_pool *make_with_live_spare(unsigned workers)
{
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make((yoke_pool_config){.workers = workers, .worker_init = die_if_told});
    WAIT_FOR(stats_of(pool).spares == 1 && count_get(&it->inits) == (long)workers + 1);
    return pool;
}

static void workers_that_are_born_dead_are_held_back(void)
{
    yoke_pool *pool = make_with_live_spare(2);
    /* One worker goes on and ends tasks all the time: that must not let the others off. */
    int pids[2];
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, 2), 2);
    count_set(&it->doomed_to_die, 1);
    const uint64_t before = stats_of(pool).started;
    CHECK_EQ(signal_child(pids[0], SIGKILL), 1);
    const int64_t until = yoke_in_ms(2000);
    while (yoke_now_ns() < until)
        CHECK_EQ(end_job(submit(pool, mind_own_business, 1, 0)).kind, YOKE_OK);
    const uint64_t started = stats_of(pool).started - before;
    fprintf(stderr, "    %d starts in 2 s\n", (int)started);
    CHECK(started <= 30);
    WAIT_FOR(stats_of(pool).started - before >= 5); /* it does try, if later on a busy machine */
    /* Once it can be, it is. */
    count_set(&it->doomed_to_die, 0);
    await_workers(pool, 2);
    end_pool(pool);
}

static void a_pool_that_cannot_go_on_says_so_in_time(void)
{
    yoke_pool *pool = make_with_live_spare(1);
    count_set(&it->doomed_to_die, 1);
    int pid = -1, spare = -1;
    CHECK_EQ(yoke_pool_worker_ids(pool, &pid, 1), 1);
    CHECK_EQ(signal_child(pid, SIGKILL), 1);
    WAIT_FOR(yoke_pool_worker_ids(pool, &spare, 1) == 1 && spare != pid);
    /* A waiter, while the last one that could do it dies. */
    yoke_job *job = submit(pool, linger, 100000 * ms, 0);
    WAIT_FOR(count_get(&it->begun) == 1);
    yoke_job *waiting = submit(pool, mind_own_business, 1, 0);
    CHECK_EQ(signal_child(spare, SIGKILL), 1);
    const int64_t begin = yoke_now_ns();
    CHECK_EQ(end_job(job).kind, YOKE_CRASHED);
    CHECK_EQ(end_job(waiting).kind, YOKE_CANCELLED);
    fprintf(stderr, "    broken after %d ms and %ld starts\n", (int)((yoke_now_ns() - begin) / ms),
            count_get(&it->inits));
    yoke_job *none = NULL;
    CHECK_RC(yoke_submit(pool, linger, NULL, 0, 0, NULL, &none), YOKE_EBROKEN);
    const int rc = yoke_pool_destroy(pool, soon());
    CHECK(rc == 0 || rc == -ETIMEDOUT);
}

static void limit_processes(rlim_t most)
{
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_NPROC, &limit), 0);
    limit.rlim_cur = most;
    CHECK_EQ(setrlimit(RLIMIT_NPROC, &limit), 0);
}

static int64_t cpu_ns(void)
{
    struct rusage usage;
    CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000000) +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * INT64_C(1000);
}

static int no_forks_for_a_while(void *unused)
{
    (void)unused;
    CHECK_EQ(setgid(NOBODY), 0);
    CHECK_EQ(setuid(NOBODY), 0);
    prctl(PR_SET_DUMPABLE, 1);
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    WAIT_FOR(stats_of(pool).spares == 1);
    limit_processes(1);
    int pids[2];
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, 2), 2);
    const int64_t begin = cpu_ns();
    CHECK_EQ(signal_child(pids[0], SIGKILL), 1);
    WAIT_FOR(stats_of(pool).died == 1);
    CHECK_RC(yoke_sleep_until(yoke_in_ms(700)), 0);
    CHECK(cpu_ns() - begin < 300 * ms);
    check_pool_works(pool); /* on those that are left */
    limit_processes(1000);
    WAIT_FOR(stats_of(pool).spares == 1 && stats_of(pool).workers == 2);
    end_pool(pool);
    return 0;
}

static void forks_that_are_refused_are_tried_again(void)
{
    if (getuid() != 0) {
        fprintf(stderr, "    not root: the limit of another user's processes is not tried\n");
        return;
    }
    CHECK_CHILD(no_forks_for_a_while, NULL);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("no process pools here");
    check_kind = YOKE_PROCESSES;
    it = shared_zeroed(sizeof *it);
    RUN(no_signal_hits_the_next_task);
    RUN(the_worker_lives_on);
    RUN(killed_in_the_middle_of_it);
    RUN(cancel_races_with_completion);
    RUN(several_threads_force_the_same_job);
    RUN(deadlines_race_with_completion);
    RUN(nobody_waits_for_a_burial);
    RUN(a_wake_that_dies_is_not_lost);
    RUN(workers_that_are_born_dead_are_held_back);
    RUN(a_pool_that_cannot_go_on_says_so_in_time);
    RUN(forks_that_are_refused_are_tried_again);
    return 0;
}
