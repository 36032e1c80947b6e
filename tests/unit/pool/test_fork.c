/* SPDX-License-Identifier: MIT
 * test_fork.c - spawn and sync: each call of fork.h, its errors, and what it promises of waiting.
 *
 * Idea: what has to run in parallel waits for the other half to have begun; what must not happen
 * while somebody waits (another root's frame on this thread) is seen by a note per thread. Nothing
 * here is about speed: deadlines are for hangs.
 */
/* tsan: yes */
/* timeout: 240 */
#define CHECK_TIMEOUT 120
#include "check.h"
#include <pthread.h>
#include <stdbool.h>

/* --- plain, typed, each ----------------------------------------------------------------------- */

YOKE_FORK_1(long, fib, int, n)
{
    struct fib_call left;
    if (n < 2)
        return n;
    fib_spawn(&strand, &left, n - 1);
    const long right = fib(strand, n - 2);
    return fib_sync(&strand, &left) + right;
}

YOKE_FORK_2(long, add2, long, a, long, b)
{
    (void)strand;
    return a + 10 * b;
}

YOKE_FORK_3(long, add3, long, a, long, b, long, c)
{
    return add2(strand, a, b) + 100 * c;
}

YOKE_FORK_4(long, add4, long, a, long, b, long, c, long, d)
{
    return add3(strand, a, b, c) + 1000 * d;
}

struct forms {
    long plain[3], typed, sum;
    atomic_long each[100];
};

static void set_to_seven(yoke_strand strand, void *arg)
{
    (void)strand;
    *(long *)arg = 7;
}

static void count_child(yoke_strand strand, size_t index, void *arg)
{
    struct forms *forms = arg;
    (void)strand;
    count_up(&forms->each[index], 1);
}

static void all_forms(yoke_strand strand, void *arg)
{
    struct forms *forms = arg;
    yoke_call calls[3];
    struct add2_call two;
    struct add3_call three;
    struct add4_call four;
    for (int i = 0; i < 3; i++)
        yoke_spawn(&strand, &calls[i], set_to_seven, &forms->plain[i]);
    add2_spawn(&strand, &two, 1, 2);
    add3_spawn(&strand, &three, 1, 2, 3);
    add4_spawn(&strand, &four, 1, 2, 3, 4);
    forms->typed = fib(strand, 12);
    yoke_each(strand, 5, 100, count_child, forms);
    yoke_each(strand, 0, 1, count_child, forms);
    yoke_each(strand, 3, 3, count_child, forms);
    forms->sum = add4_sync(&strand, &four);
    forms->sum += add3_sync(&strand, &three);
    forms->sum += add2_sync(&strand, &two);
    for (int i = 2; i >= 0; i--)
        yoke_sync(&strand, &calls[i]);
}

static void each_form_runs_once(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        for (int round = 0; round < 200; round++) {
            struct forms forms;
            memset(&forms, 0, sizeof forms);
            CHECK_RC(yoke_run(pool, all_forms, &forms, NULL), 0);
            CHECK_EQ(forms.typed, 144);
            CHECK_EQ(forms.sum, 4321 + 321 + 21);
            for (int i = 0; i < 3; i++)
                CHECK_EQ(forms.plain[i], 7);
            for (int i = 0; i < 100; i++)
                CHECK_EQ(count_get(&forms.each[i]), i == 0 || i >= 5);
        }
        end_pool(pool);
    }
}

static void note_worker(yoke_strand strand, void *arg)
{
    *(unsigned *)arg = yoke_strand_worker(strand);
}

static void errors_are_said(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    const yoke_options wrong = {.size = 3};
    const struct {
        yoke_options options;
        int64_t unknown;
    } later = {{.size = sizeof later}, 1};
    unsigned worker = 77;
    CHECK_RC(yoke_run(NULL, note_worker, &worker, NULL), -EINVAL);
    CHECK_RC(yoke_run(pool, NULL, &worker, NULL), -EINVAL);
    CHECK_RC(yoke_run(pool, note_worker, &worker, &wrong), -EINVAL);
    CHECK_RC(yoke_run(pool, note_worker, &worker, &later.options), YOKE_EVERSION);
    CHECK_EQ(worker, 77);
    CHECK_RC(yoke_run(pool, note_worker, &worker, NULL), 0);
    CHECK_EQ(worker, 2); /* the caller's number is the one after the last worker's */
    end_pool(pool);
}

static void cancel_from_within(yoke_strand strand, void *arg)
{
    CHECK_EQ(yoke_strand_cancelled(strand), 0);
    yoke_cancel_set(arg);
    CHECK_EQ(yoke_strand_cancelled(strand), 1);
}

static void a_cancelled_run_says_so(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    yoke_cancel *cancel = NULL;
    CHECK_RC(yoke_cancel_create(NULL, &cancel), 0);
    const yoke_options options = {.size = sizeof options, .cancel = cancel};
    unsigned worker = 77;
    CHECK_RC(yoke_run(pool, cancel_from_within, cancel, &options), -ECANCELED);
    CHECK_RC(yoke_run(pool, note_worker, &worker, &options), -ECANCELED);
    CHECK_EQ(worker, 77);
    yoke_cancel_release(cancel);
    end_pool(pool);
}

/* --- depth ------------------------------------------------------------------------------------ */

YOKE_FORK_1(long, nodes, int, depth)
{
    struct nodes_call left;
    if (depth == 0)
        return 1;
    nodes_spawn(&strand, &left, depth % 1000 == 0 ? 3 : 0);
    const long right = nodes(strand, depth - 1);
    return nodes_sync(&strand, &left) + right;
}

static void deep(yoke_strand strand, void *arg)
{
    *(long *)arg = nodes(strand, 30000);
}

static int deep_runs(void *pool)
{
    for (int i = 0; i < 20; i++) {
        long count = 0;
        const int rc = yoke_run(pool, deep, &count, NULL);
        if (rc != 0 || count != 30001 + 30 * 3)
            return 1;
    }
    return 0;
}

/* On a stack of 64 MiB, for sanitizers. */
static void thirty_thousand_open_spawns(void)
{
    for (unsigned workers = 1; workers <= 4; workers *= 2) {
        yoke_pool *pool = make_pool(YOKE_THREADS, workers);
        const yoke_thread_config config = {.size = sizeof config, .stack_bytes = 64u << 20};
        yoke_thread *thread = NULL;
        int code = 77;
        CHECK_RC(yoke_thread_start(&config, deep_runs, pool, &thread), 0);
        CHECK_RC(yoke_thread_wait(thread, yoke_in_ms(60000), &code), 0);
        CHECK_EQ(code, 0);
        yoke_thread_release(thread);
        end_pool(pool);
    }
}

/* --- coarse work, and workers that sleep ------------------------------------------------------- */

struct pair {
    atomic_long here;
    atomic_long late;
};

static void nothing(yoke_strand strand, void *arg)
{
    (void)strand;
    (void)arg;
}

/* Spawns nothing, as a long call does; but under TSan, where nobody can take what is not given. */
static void await_both(yoke_strand strand, struct pair *pair)
{
    const int64_t until = soon();
    count_up(&pair->here, 1);
    while (count_get(&pair->here) < 2 && yoke_now_ns() < until) {
        yoke_call call;
        if (CHECK_TSAN) {
            yoke_spawn(&strand, &call, nothing, NULL);
            yoke_sync(&strand, &call);
        }
        sched_yield();
    }
    count_up(&pair->late, count_get(&pair->here) < 2);
}

static void one_half(yoke_strand strand, void *arg)
{
    await_both(strand, arg);
}

static void two_halves(yoke_strand strand, void *arg)
{
    yoke_call call;
    yoke_spawn(&strand, &call, one_half, arg);
    await_both(strand, arg); /* a long call that spawns nothing hides the frame */
    yoke_sync(&strand, &call);
}

static void coarse_halves_meet(void)
{
    for (unsigned workers = 2; workers <= 4; workers++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, workers);
        for (int round = 0; round < 60; round++) {
            struct pair pair = {.here = 0};
            if (round % 3 == 0) { /* all sleep by now */
                const struct timespec pause = {0, 3000000};
                nanosleep(&pause, NULL);
            }
            CHECK_RC(yoke_run(pool, two_halves, &pair, NULL), 0);
            CHECK_EQ(count_get(&pair.late), 0);
        }
        end_pool(pool);
    }
}

/* The workers have something else to do when the frame is spawned; then it lies hidden. */
static int hold_worker(yoke_task *task, const void *in, void *out)
{
    atomic_long *open = *(atomic_long *const *)in;
    (void)out;
    while (!count_get(open) && !yoke_task_cancelled(task))
        breathe();
    return 0;
}

struct hidden {
    struct pair pair;
    atomic_long open;
};

static void spawn_then_open(yoke_strand strand, void *arg)
{
    struct hidden *hidden = arg;
    yoke_call call;
    yoke_spawn(&strand, &call, one_half, &hidden->pair);
    count_set(&hidden->open, 1);
    await_both(strand, &hidden->pair);
    yoke_sync(&strand, &call);
}

static void what_a_long_call_hides_is_taken(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    for (int round = 0; round < 40; round++) {
        struct hidden hidden = {.open = 0};
        atomic_long *open = &hidden.open;
        yoke_job *jobs[2];
        for (int i = 0; i < 2; i++)
            CHECK_RC(yoke_submit(pool, hold_worker, &open, sizeof open, 0, NULL, &jobs[i]), 0);
        CHECK_RC(yoke_run(pool, spawn_then_open, &hidden, NULL), 0);
        CHECK_EQ(count_get(&hidden.pair.late), 0);
        for (int i = 0; i < 2; i++)
            CHECK_EQ(end_job(jobs[i]).kind, YOKE_OK);
    }
    end_pool(pool);
}

/* --- what runs while a sync waits --------------------------------------------------------------- */

enum { ROOTS = 3, ROUNDS = 150 };

static _Thread_local int root_here; /* 1 + the root that this thread is in the middle of */
static atomic_long strangers, deepest;
static pthread_mutex_t locks[ROOTS] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                       PTHREAD_MUTEX_INITIALIZER};
static yoke_pool *shared_pool;

static void spin_us(int us)
{
    const int64_t until = yoke_now_ns() + us * 1000LL;
    while (yoke_now_ns() < until) {
    }
}

static void piece(yoke_strand strand, size_t index, void *arg)
{
    const int root = *(const int *)arg + 1, before = root_here;
    (void)strand;
    if (before != 0 && before != root)
        count_up(&strangers, 1);
    root_here = root;
    spin_us((int)(index * 7 % 40));
    root_here = before;
}

static void branch(yoke_strand strand, void *arg)
{
    const int root = *(const int *)arg + 1, before = root_here;
    if (before != 0 && before != root)
        count_up(&strangers, 1);
    root_here = root;
    yoke_each(strand, 0, 12, piece, arg);
    root_here = before;
}

/* Holds a lock that any other frame of this root would stop at if it came from elsewhere. */
static void root(yoke_strand strand, void *arg)
{
    const int number = *(const int *)arg;
    yoke_call calls[3];
    CHECK_EQ(pthread_mutex_lock(&locks[number]), 0);
    root_here = number + 1;
    for (int i = 0; i < 3; i++)
        yoke_spawn(&strand, &calls[i], branch, arg);
    branch(strand, arg);
    for (int i = 2; i >= 0; i--)
        yoke_sync(&strand, &calls[i]);
    root_here = 0;
    pthread_mutex_unlock(&locks[number]);
}

static int run_roots(void *arg)
{
    for (int i = 0; i < ROUNDS / (int)check_slowness(); i++)
        CHECK_RC(yoke_run(shared_pool, root, arg, NULL), 0);
    return 0;
}

static void run_in_threads(int (*fn)(void *), int count)
{
    yoke_thread *threads[ROOTS];
    int numbers[ROOTS];
    for (int i = 0; i < count; i++) {
        numbers[i] = i;
        CHECK_RC(yoke_thread_start(NULL, fn, &numbers[i], &threads[i]), 0);
    }
    for (int i = 0; i < count; i++) {
        int code = 77;
        CHECK_RC(yoke_thread_wait(threads[i], yoke_in_ms(100000), &code), 0);
        CHECK_EQ(code, 0);
        yoke_thread_release(threads[i]);
    }
}

static void a_wait_runs_nothing_of_others(void)
{
    for (unsigned workers = 2; workers <= 6; workers += 2) {
        shared_pool = make_pool(YOKE_THREADS, workers);
        count_set(&strangers, 0);
        run_in_threads(run_roots, ROOTS);
        CHECK_EQ(count_get(&strangers), 0);
        end_pool(shared_pool);
    }
}

/* --- stacks: what waits inside of waits inside of waits ------------------------------------------ */

static _Thread_local char *stack_base;

YOKE_FORK_1(long, tree, int, depth)
{
    struct tree_call left;
    char here;
    char *const base = stack_base;
    if (base == NULL)
        stack_base = &here;
    const long used = stack_base - &here;
    if (used > count_get(&deepest))
        count_set(&deepest, used);
    long sum = 1;
    if (depth > 0) {
        tree_spawn(&strand, &left, depth - 1);
        sum += tree(strand, depth - 1);
        sum += tree_sync(&strand, &left);
    } else {
        spin_us(1);
    }
    stack_base = base;
    return sum;
}

static void grow_tree(yoke_strand strand, void *arg)
{
    *(long *)arg = tree(strand, 12);
}

/* Each frame that a wait runs is a child of the one it waits for, so at most as many of them lie
 * on one stack as the tree is deep. */
static void stacks_stay_as_deep_as_the_tree(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 4);
    count_set(&deepest, 0);
    for (int i = 0; i < 30 / (int)check_slowness(); i++) {
        long sum = 0;
        CHECK_RC(yoke_run(pool, grow_tree, &sum, NULL), 0);
        CHECK_EQ(sum, (1 << 13) - 1);
    }
    CHECK(count_get(&deepest) < 13 * 2048 * (long)check_slowness());
    end_pool(pool);
}

/* --- signals, forks ------------------------------------------------------------------------------ */

static atomic_long signals, stop_storm;

static void on_signal(int sig)
{
    (void)sig;
    count_up(&signals, 1);
}

static int storm(void *arg)
{
    (void)arg;
    while (!count_get(&stop_storm)) {
        kill(getpid(), SIGUSR1);
        spin_us(20);
    }
    return 0;
}

static void signals_disturb_no_wait(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 3);
    yoke_thread *thread = NULL;
    const struct sigaction old = set_action(SIGUSR1, on_signal);
    count_set(&stop_storm, 0);
    CHECK_RC(yoke_thread_start(NULL, storm, NULL, &thread), 0);
    for (int i = 0; i < 60; i++) {
        struct pair pair = {.here = 0};
        long sum = 0;
        CHECK_RC(yoke_run(pool, two_halves, &pair, NULL), 0);
        CHECK_EQ(count_get(&pair.late), 0);
        CHECK_RC(yoke_run(pool, grow_tree, &sum, NULL), 0);
        CHECK_EQ(sum, (1 << 13) - 1);
    }
    count_set(&stop_storm, 1);
    int rc = 0;
    do /* the last signal may come in this wait, which says so */
        rc = yoke_thread_wait(thread, soon(), NULL);
    while (rc == -EINTR);
    CHECK_RC(rc, 0);
    yoke_thread_release(thread);
    CHECK(count_get(&signals) > 0);
    CHECK_EQ(sigaction(SIGUSR1, &old, NULL), 0);
    end_pool(pool);
}

static int child_uses_pools(void *arg)
{
    struct pair pair = {.here = 0};
    long sum = 0;
    yoke_pool *own = make_pool(YOKE_THREADS, 2);
    CHECK_RC(yoke_run(own, grow_tree, &sum, NULL), 0);
    CHECK_EQ(sum, (1 << 13) - 1);
    CHECK_RC(yoke_run(own, two_halves, &pair, NULL), 0);
    CHECK_EQ(count_get(&pair.late), 0);
    end_pool(own);
    CHECK_RC(yoke_run(arg, grow_tree, &sum, NULL), 0);
    CHECK_EQ(sum, (1 << 13) - 1);
    return 0;
}

static void fork_inside(yoke_strand strand, void *arg)
{
    yoke_call call;
    long sum = 0;
    yoke_spawn(&strand, &call, grow_tree, &sum);
    CHECK_CHILD(child_uses_pools, arg);
    yoke_sync(&strand, &call);
    CHECK_EQ(sum, (1 << 13) - 1);
}

static int keep_busy(void *arg)
{
    (void)arg;
    while (!count_get(&stop_storm)) {
        long sum = 0;
        CHECK_RC(yoke_run(shared_pool, grow_tree, &sum, NULL), 0);
        CHECK_EQ(sum, (1 << 13) - 1);
    }
    return 0;
}

static void forks_while_busy(void)
{
    yoke_thread *thread = NULL;
    if (check_emulated())
        return; /* qemu-user stops itself in a child that was forked while threads come and go */
    shared_pool = make_pool(YOKE_THREADS, 3);
    count_set(&stop_storm, 0);
    CHECK_RC(yoke_thread_start(NULL, keep_busy, NULL, &thread), 0);
    for (int i = 0; i < 8; i++) {
        CHECK_CHILD(child_uses_pools, shared_pool);
        CHECK_RC(yoke_run(shared_pool, fork_inside, shared_pool, NULL), 0);
    }
    count_set(&stop_storm, 1);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    end_pool(shared_pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(each_form_runs_once);
    RUN(errors_are_said);
    RUN(a_cancelled_run_says_so);
    RUN(thirty_thousand_open_spawns);
    RUN(coarse_halves_meet);
    RUN(what_a_long_call_hides_is_taken);
    RUN(a_wait_runs_nothing_of_others);
    RUN(stacks_stay_as_deep_as_the_tree);
    RUN(signals_disturb_no_wait);
    if (!CHECK_TSAN) /* which does not follow forks of programs with threads */
        RUN(forks_while_busy);
    return 0;
}
