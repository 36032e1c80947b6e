/* SPDX-License-Identifier: MIT
 * test_fork_child.c - programs that fork while their pools are at work, and whose children use them.
 *
 * Idea: the child gets a pool as it is at some instant, with none of its threads. Where that instant
 * can be chosen (the lock is held, a task is running, worker_init is) it is; where it cannot, a
 * busy pool is forked hundreds of times. Each child has a deadline: SIGALRM ends it.
 */
/* timeout: 300 */
#include "check.h"
#include "pool/pool_private.h"
#include <pthread.h>

enum { CHILD_SECONDS = 15 };

/* ---- children --------------------------------------------------------------------------- */

static pid_t fork_child(void)
{
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        sigset_t none; /* a worker has all signals blocked */
        sigemptyset(&none);
        CHECK_EQ(pthread_sigmask(SIG_SETMASK, &none, NULL), 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(CHILD_SECONDS * check_slowness());
    }
    return pid;
}

/* The child has ended well. */
static void expect_well(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        CHECK_EQ(errno, EINTR);
    CHECK_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), 0);
}

static int sum_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    for (size_t i = begin; i < end; i++)
        *(uint64_t *)accumulator += i;
    return 0;
}

static void add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static void check_submit_works(yoke_pool *pool)
{
    enum { N = 40 };
    int64_t in[N];
    yoke_job *jobs[N];
    for (int i = 0; i < N; i++)
        in[i] = i;
    CHECK_RC(yoke_submit_many(pool, check_square, in, 8, 8, N, NULL, jobs), 0);
    CHECK_RC(yoke_wait_all(jobs, N, soon()), 0);
    for (int i = 0; i < N; i++) {
        const void *out = NULL;
        yoke_outcome outcome;
        CHECK_RC(yoke_job_result(jobs[i], &outcome, &out, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_OK);
        CHECK_EQ(*(const int64_t *)out, i * i);
    }
    yoke_job_release_all(jobs, N);
}

static long fib(int n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

YOKE_FORK_1(long, forked_fib, int, n)
{
    struct forked_fib_call left;
    if (n < 2)
        return n;
    forked_fib_spawn(&strand, &left, n - 1);
    const long right = forked_fib(strand, n - 2);
    return forked_fib_sync(&strand, &left) + right;
}

static void run_fib(yoke_strand strand, void *arg)
{
    *(long *)arg = forked_fib(strand, 16);
}

static void check_run_works(yoke_pool *pool)
{
    long result = 0;
    CHECK_RC(yoke_run(pool, run_fib, &result, NULL), 0);
    CHECK_EQ(result, fib(16));
}

static int count_one(yoke_task *task, const void *in, void *out)
{
    (void)task, (void)out;
    count_up(*(atomic_long *const *)in, 1);
    return 0;
}

static void check_post_works(yoke_pool *pool)
{
    enum { N = 100 };
    atomic_long posted = 0, *at = &posted;
    for (int i = 0; i < N; i++)
        CHECK_RC(yoke_post(pool, count_one, &at, sizeof at, NULL), 0);
    WAIT_FOR(count_get(&posted) == N);
}

/* Everything that a pool is for. */
static void check_all_works(yoke_pool *pool)
{
    uint64_t total = 0;
    check_submit_works(pool);
    check_pool_works(pool);
    check_run_works(pool);
    check_post_works(pool);
    CHECK_RC(yoke_reduce(pool, sum_range, add, 1000, &total, sizeof total, NULL), 0);
    CHECK_EQ(total, 499500);
    CHECK_RC(yoke_pool_drain(pool, soon()), 0);
    CHECK_EQ(stats_of(pool).in_flight, 0);
}

/* ---- a busy pool ------------------------------------------------------------------------ */

struct storm {
    yoke_pool *pool;
    atomic_long stop, rounds, initialised;
};

static int count_init(unsigned worker, void *user)
{
    (void)worker;
    count_up(user, 1);
    return 0;
}

static void *keep_busy(void *arg)
{
    struct storm *storm = arg;
    while (!count_get(&storm->stop)) {
        check_submit_works(storm->pool);
        check_pool_works(storm->pool);
        check_run_works(storm->pool);
        check_post_works(storm->pool);
        count_up(&storm->rounds, 1);
    }
    return NULL;
}

static void spin_ns(int64_t ns)
{
    const int64_t until = yoke_now_ns() + ns;
    while (yoke_now_ns() < until) {
    }
}

static void storm_child(struct storm *storm, int way)
{
    count_set(&storm->initialised, 0);
    if (way != 3) {
        check_all_works(storm->pool);
        CHECK_EQ(count_get(&storm->initialised) >= 3, 1);
    }
    if (way != 2)
        end_pool(storm->pool);
    _exit(0);
}

static void fork_busy(unsigned workers_max, int forks)
{
    enum { THREADS = 3 };
    struct storm storm = {0};
    pthread_t threads[THREADS];
    storm.pool = make_pool_of((yoke_pool_config){.kind = YOKE_THREADS,
                                                 .workers = 3,
                                                 .workers_max = workers_max,
                                                 .worker_init = count_init,
                                                 .user = &storm.initialised});
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, keep_busy, &storm), 0);
    WAIT_FOR(count_get(&storm.rounds) > THREADS);
    uint64_t random = random_seed();
    for (int i = 0; i < forks; i++) {
        spin_ns((int64_t)(random_next(&random) % 300000));
        const pid_t pid = fork_child();
        if (pid == 0)
            storm_child(&storm, i % 4);
        expect_well(pid);
    }
    const long rounds = count_get(&storm.rounds);
    WAIT_FOR(count_get(&storm.rounds) > rounds + THREADS); /* the parent goes on */
    count_set(&storm.stop, 1);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    check_all_works(storm.pool);
    end_pool(storm.pool);
}

/* The sanitizer's own malloc does not survive a fork beside threads that allocate. */
static void a_busy_pool_is_forked_at_random_moments(void)
{
    if (!CHECK_ASAN)
        fork_busy(3, 300);
}

static void a_busy_pool_that_grows_is_forked(void)
{
    if (!CHECK_ASAN)
        fork_busy(8, 100);
}

/* ---- the lock --------------------------------------------------------------------------- */

struct holder {
    yoke_pool *pool;
    atomic_long held, let_go;
};

static void hold_the_lock(struct holder *holder) YK_NO_LOCK_ANALYSIS
{
    yk_biased_lock(&holder->pool->lock);
    count_set(&holder->held, 1);
    WAIT_FOR(count_get(&holder->let_go));
    yk_biased_unlock(&holder->pool->lock);
}

static void *be_a_stranger(void *arg)
{
    hold_the_lock(arg);
    return NULL;
}

static void *be_the_favourite(void *arg)
{
    struct holder *holder = arg;
    holder->pool = make_pool(YOKE_THREADS, 2);
    hold_the_lock(arg);
    return NULL;
}

static void fork_beside(void *(*locker)(void *), yoke_pool *pool)
{
    struct holder holder = {.pool = pool};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, locker, &holder), 0);
    WAIT_FOR(count_get(&holder.held));
    const pid_t pid = fork_child();
    if (pid == 0) {
        check_all_works(holder.pool);
        end_pool(holder.pool);
        _exit(0);
    }
    expect_well(pid);
    count_set(&holder.let_go, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    check_all_works(holder.pool);
    end_pool(holder.pool);
}

static void the_lock_is_held_by_a_thread_that_is_not_here(void)
{
    fork_beside(be_the_favourite, NULL);
    fork_beside(be_a_stranger, make_pool(YOKE_THREADS, 2));
}

/* ---- a full table ------------------------------------------------------------------------ */

struct gate {
    atomic_long go, runs;
};

static int wait_at_gate(yoke_task *task, const void *in, void *out)
{
    (void)out;
    struct gate *gate = *(struct gate *const *)in;
    count_up(&gate->runs, 1);
    while (!count_get(&gate->go) && !yoke_task_cancelled(task))
        breathe();
    return 0;
}

static void tasks_of_the_parent_do_not_run_in_the_child(void)
{
    enum { N = 700 };
    static yoke_job *jobs[N];
    struct gate gate = {0}, *at = &gate;
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    for (int i = 0; i < N; i++)
        CHECK_RC(yoke_submit(pool, wait_at_gate, &at, sizeof at, 0, NULL, &jobs[i]), 0);
    WAIT_FOR(count_get(&gate.runs) == 2);
    const pid_t pid = fork_child();
    if (pid == 0) {
        CHECK_EQ(stats_of(pool).in_flight, 0);
        check_all_works(pool);
        CHECK_EQ(count_get(&gate.runs), 2);
        CHECK_RC(yoke_wait(jobs[0], 0), -ECHILD);
        /* Beside one of the child's own, too. */
        yoke_job *own[2] = {NULL, jobs[1]};
        const int64_t x = 5;
        CHECK_RC(yoke_submit(pool, check_square, &x, 8, 8, NULL, &own[0]), 0);
        CHECK_RC(yoke_wait(own[0], soon()), 0);
        CHECK_RC(yoke_wait_all(own, 2, soon()), -ECHILD);
        yoke_job_release_all(own, 2);
        check_all_works(pool);
        end_pool(pool);
        CHECK_EQ(count_get(&gate.runs), 2);
        _exit(0);
    }
    expect_well(pid);
    count_set(&gate.go, 1);
    CHECK_RC(yoke_wait_all(jobs, N, soon()), 0);
    CHECK_EQ(count_get(&gate.runs), N);
    yoke_job_release_all(jobs, N);
    end_pool(pool);
}

/* ---- inside ------------------------------------------------------------------------------- */

enum { USES = 1, DESTROYS = 2, RETURNS = 4 };
struct inner {
    yoke_pool *pool;
    int ways;
    pid_t child;
    unsigned worker;
};

static int fork_here(yoke_task *task, const void *in, void *out)
{
    (void)out;
    struct inner *inner = *(struct inner *const *)in;
    inner->worker = yoke_task_worker(task);
    inner->child = fork_child();
    if (inner->child == 0) {
        if (inner->ways & USES)
            check_all_works(inner->pool);
        if (inner->ways & DESTROYS)
            end_pool(inner->pool);
        if (!(inner->ways & RETURNS))
            _exit(0);
    }
    return 0;
}

static void fork_in_a_task_of(yoke_pool *pool, int ways)
{
    struct inner inner = {.pool = pool, .ways = ways}, *at = &inner;
    struct gate gate = {0}, *gate_at = &gate;
    yoke_job *job = NULL, *other = NULL;
    yoke_pool_stats before = stats_of(pool);
    CHECK_RC(yoke_submit(pool, wait_at_gate, &gate_at, sizeof gate_at, 0, NULL, &other), 0);
    CHECK_RC(yoke_submit(pool, fork_here, &at, sizeof at, 0, NULL, &job), 0);
    uint64_t ended = before.tasks;
    while (yoke_job_result(job, NULL, NULL, NULL) == -EAGAIN) /* not yoke_wait: it would help */
        CHECK_RC(yoke_pool_await(pool, &ended, soon()), 0);
    CHECK_EQ(end_job(job).kind, YOKE_OK);
    CHECK(inner.worker < before.workers);
    expect_well(inner.child);
    count_set(&gate.go, 1);
    CHECK_EQ(end_job(other).kind, YOKE_OK);
}

static void the_fork_is_inside_a_task(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    for (int ways = 0; ways < 8; ways++) {
        /* Its workers would keep such a child alive. */
        const int lingers = ways == (USES | RETURNS);
        /* exit() has LeakSanitizer look for what only the parent's threads know. */
        if (!lingers && !(CHECK_ASAN && (ways & RETURNS)))
            fork_in_a_task_of(pool, ways);
    }
    check_all_works(pool);
    end_pool(pool);
}

static void forked_forks(yoke_strand strand, void *arg)
{
    struct inner *inner = arg;
    (void)strand;
    inner->child = fork_child();
    if (inner->child == 0) {
        check_all_works(inner->pool);
        end_pool(inner->pool);
        _exit(0);
    }
}

static int item_forks(yoke_task *task, const void *in, void *out)
{
    (void)in, (void)out;
    if (yoke_task_item(task) == 77)
        forked_forks((yoke_strand){0}, (void *)(uintptr_t)yoke_task_context(task));
    return 0;
}

static void the_fork_is_inside_what_the_caller_runs(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct inner inner = {.pool = pool};
    const yoke_options options = {.size = sizeof options, .context = &inner};
    CHECK_RC(yoke_run(pool, forked_forks, &inner, NULL), 0);
    expect_well(inner.child);
    CHECK_RC(yoke_map(pool, item_forks, NULL, 0, NULL, 0, 300, &options), 0);
    expect_well(inner.child);
    check_all_works(pool);
    end_pool(pool);
}

/* ---- generations -------------------------------------------------------------------------- */

static void descend(yoke_pool *pool, int depth)
{
    for (int i = 0; i < depth; i++) {
        if (i % 3 != 0) /* each third does not use it: its child finds its grandparent's */
            check_all_works(pool);
        const pid_t pid = fork_child();
        if (pid != 0) {
            expect_well(pid);
            check_all_works(pool);
            end_pool(pool);
            return;
        }
    }
    end_pool(pool);
}

static void grandchildren_use_it_too(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    const pid_t self = getpid();
    descend(pool, 9);
    if (getpid() != self)
        _exit(0);
}

static void serial_pools_go_on_too(void)
{
    yoke_pool *pool = make_pool(YOKE_SERIAL, 0);
    const pid_t self = getpid();
    descend(pool, 3);
    if (getpid() != self)
        _exit(0);
}

/* ---- the first use ------------------------------------------------------------------------ */

struct first {
    yoke_pool *pool;
    pthread_barrier_t barrier;
};

static void *come_first(void *arg)
{
    struct first *first = arg;
    pthread_barrier_wait(&first->barrier);
    check_submit_works(first->pool);
    return NULL;
}

static void two_threads_come_first_at_once(void)
{
    enum { THREADS = 4, ROUNDS = 50 };
    atomic_long initialised = 0;
    struct first first = {
        .pool = make_pool_of((yoke_pool_config){
            .kind = YOKE_THREADS, .workers = 2, .worker_init = count_init, .user = &initialised})};
    for (int i = 0; i < ROUNDS; i++) {
        const pid_t pid = fork_child();
        if (pid == 0) {
            pthread_t threads[THREADS];
            count_set(&initialised, 0);
            CHECK_EQ(pthread_barrier_init(&first.barrier, NULL, THREADS), 0);
            for (int k = 0; k < THREADS; k++)
                CHECK_EQ(pthread_create(&threads[k], NULL, come_first, &first), 0);
            for (int k = 0; k < THREADS; k++)
                CHECK_EQ(pthread_join(threads[k], NULL), 0);
            CHECK_EQ(count_get(&initialised), 2);
            end_pool(first.pool);
            _exit(0);
        }
        expect_well(pid);
    }
    end_pool(first.pool);
}

/* ---- worker_init -------------------------------------------------------------------------- */

struct moody {
    yoke_pool *pool;
    atomic_long refuse, calls, inner_rc, forked;
};

static int moody_init(unsigned worker, void *user)
{
    (void)worker;
    struct moody *moody = user;
    count_up(&moody->calls, 1);
    if (moody->pool != NULL) { /* a child's */
        int64_t x = 3, out = 0;
        count_set(&moody->inner_rc, yoke_map(moody->pool, check_square, &x, 8, &out, 8, 1, NULL));
    }
    return count_get(&moody->refuse) > 0;
}

static int child_of_moody(void *arg)
{
    struct moody *moody = arg;
    int64_t x = 3, out = 0;
    count_set(&moody->refuse, 1);
    CHECK_RC(yoke_map(moody->pool, check_square, &x, 8, &out, 8, 1, NULL), YOKE_EINIT);
    CHECK_RC(yoke_map(moody->pool, check_square, &x, 8, &out, 8, 1, NULL), YOKE_EINIT);
    CHECK_EQ(count_get(&moody->inner_rc), -EDEADLK);
    CHECK_EQ(count_threads(), 1);
    count_set(&moody->refuse, 0);
    CHECK_RC(yoke_map(moody->pool, check_square, &x, 8, &out, 8, 1, NULL), 0);
    CHECK_EQ(out, 9);
    check_all_works(moody->pool);
    end_pool(moody->pool);
    return 0;
}

static void what_worker_init_does_in_the_child(void)
{
    struct moody moody = {0};
    moody.pool = make_pool_of((yoke_pool_config){
        .kind = YOKE_THREADS, .workers = 2, .worker_init = moody_init, .user = &moody});
    CHECK_CHILD(child_of_moody, &moody);
    check_all_works(moody.pool);
    end_pool(moody.pool);
}

/* ---- handlers of fork() ------------------------------------------------------------------- */

static yoke_pool *handled_pool;
static int handled_early, handled_late;

static void use_in_handler(int *done)
{
    if (handled_pool != NULL) {
        check_all_works(handled_pool);
        *done = 1;
    }
}

static void early_handler(void)
{
    use_in_handler(&handled_early);
}

static void late_handler(void)
{
    use_in_handler(&handled_late);
}

static int child_with_handlers(void *arg)
{
    CHECK_EQ(count_threads(), 3); /* one engine, made by the first of them */
    CHECK_EQ(handled_early, 1);
    CHECK_EQ(handled_late, 1);
    check_all_works(arg);
    end_pool(arg);
    return 0;
}

/* Those that were there before Yoke run before Yoke's own. */
static void handlers_of_fork_use_it(void)
{
    handled_pool = make_pool(YOKE_THREADS, 2);
    CHECK_EQ(pthread_atfork(NULL, NULL, late_handler), 0);
    CHECK_CHILD(child_with_handlers, handled_pool);
    end_pool(handled_pool);
    handled_pool = NULL;
}

/* ---- destroy ------------------------------------------------------------------------------ */

static int child_that_only_destroys(void *arg)
{
    const int threads = count_threads();
    end_pool(arg);
    CHECK_EQ(count_threads(), threads);
    return 0;
}

static int child_of_a_closed_pool(void *arg)
{
    yoke_pool *pool = arg;
    int64_t x = 3, out = 0;
    CHECK_RC(yoke_map(pool, check_square, &x, 8, &out, 8, 1, NULL), YOKE_ECLOSED);
    end_pool(pool);
    return 0;
}

static int wait_stubbornly(yoke_task *task, const void *in, void *out)
{
    (void)task, (void)out;
    struct gate *gate = *(struct gate *const *)in;
    count_up(&gate->runs, 1);
    while (!count_get(&gate->go))
        breathe();
    return 0;
}

static void a_child_destroys_its_own_copy(void)
{
    struct gate gate = {0}, *at = &gate;
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    yoke_job *job = NULL;
    CHECK_CHILD(child_that_only_destroys, pool);
    CHECK_RC(yoke_submit(pool, wait_stubbornly, &at, sizeof at, 0, NULL, &job), 0);
    CHECK_CHILD(child_that_only_destroys, pool);
    WAIT_FOR(count_get(&gate.runs) == 1);
    CHECK_RC(yoke_pool_destroy(pool, 0), -EBUSY);
    CHECK_CHILD(child_of_a_closed_pool, pool);
    count_set(&gate.go, 1);
    CHECK_RC(yoke_pool_destroy(pool, soon()), 0);
    yoke_job_release(job);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (CHECK_TSAN)
        skip("ThreadSanitizer ends children of programs with threads that start threads");
    if (check_emulated())
        skip("qemu-user cannot start threads in a child that was forked beside threads");
    CHECK_EQ(pthread_atfork(NULL, NULL, early_handler), 0);
    RUN(a_busy_pool_is_forked_at_random_moments);
    RUN(a_busy_pool_that_grows_is_forked);
    RUN(the_lock_is_held_by_a_thread_that_is_not_here);
    RUN(tasks_of_the_parent_do_not_run_in_the_child);
    RUN(the_fork_is_inside_a_task);
    RUN(the_fork_is_inside_what_the_caller_runs);
    RUN(grandchildren_use_it_too);
    RUN(serial_pools_go_on_too);
    RUN(two_threads_come_first_at_once);
    RUN(what_worker_init_does_in_the_child);
    RUN(handlers_of_fork_use_it);
    RUN(a_child_destroys_its_own_copy);
    return 0;
}
