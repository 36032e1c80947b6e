/* SPDX-License-Identifier: MIT
 * test_api_crash.c - tasks that take their process with them, and retries.
 *
 * Idea: a crash, an exit or a kill costs one item and says so in its outcome; starts are counted
 * in shared memory, so that "at most once" is counted by the tasks and not by the library.
 */
/* timeout: 120 */
#include "check.h"

enum { N = 400 };

enum how { SEGV, ABORT, KILL, EXIT3, QUICK_EXIT, TERM, HOWS };

static void die(enum how how)
{
    switch (how) {
    case SEGV:
        (void)set_action(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
        break;
    case ABORT:
        abort();
    case KILL:
        raise(SIGKILL);
        break;
    case EXIT3:
        exit(3);
    case QUICK_EXIT:
        _exit(200);
    case TERM:
        raise(SIGTERM);
        break;
    case HOWS:
        break;
    }
}

struct plan {
    atomic_long *starts;
    enum how how;
    unsigned good_attempt; /* the attempt that does not die */
};

static int die_sometimes(yoke_task *task, const void *in, void *out)
{
    const struct plan *plan = yoke_task_context(task);
    const size_t i = yoke_task_item(task);
    count_up(plan->starts + i, 1);
    if (i % 40 == 17 && yoke_task_attempt(task) < plan->good_attempt)
        die(plan->how);
    *(int64_t *)out = *(const int64_t *)in * 2;
    return 0;
}

static int die_first(yoke_task *task, const void *in, void *out)
{
    const struct plan *plan = yoke_task_context(task);
    (void)out;
    count_up(plan->starts, 1);
    if (*(const int64_t *)in == 17 && yoke_task_attempt(task) < plan->good_attempt)
        die(plan->how);
    return 0;
}

static void check_map(yoke_pool *pool, struct plan plan, unsigned retries, int signo, int code)
{
    int64_t in[N], out[N];
    yoke_outcome outcomes[N], failure = {.kind = -1};
    const int saved = plan.good_attempt <= retries;
    for (int i = 0; i < N; i++)
        in[i] = i;
    memset(plan.starts, 0, N * sizeof *plan.starts);
    const yoke_options options = {.size = sizeof options,
                                  .context = &plan,
                                  .context_bytes = sizeof plan,
                                  .retries = retries,
                                  .outcomes = outcomes,
                                  .failure = &failure};
    CHECK_RC(yoke_map(pool, die_sometimes, in, 8, out, 8, N, &options), saved ? 0 : YOKE_ETASK);
    for (int i = 0; i < N; i++) {
        const int dies = i % 40 == 17;
        CHECK_EQ(outcomes[i].item, i);
        CHECK_EQ(outcomes[i].kind, dies && !saved ? YOKE_CRASHED : YOKE_OK);
        CHECK_EQ(outcomes[i].signal, dies && !saved ? signo : 0);
        if (outcomes[i].signal == 0) /* a code beside a signal is not promised */
            CHECK_EQ(outcomes[i].code, dies && !saved ? code : 0);
        const unsigned starts = !dies ? 1 : saved ? plan.good_attempt + 1 : retries + 1;
        CHECK_EQ(outcomes[i].attempts, starts);
        CHECK_EQ(count_get(plan.starts + i), starts);
        if (!dies || saved)
            CHECK_EQ(out[i], i * 2);
    }
    CHECK_EQ(failure.kind, saved ? -1 : YOKE_CRASHED);
    CHECK(saved || failure.item == 17);
}

static void a_death_costs_one_item_and_has_a_name(void)
{
    static const struct {
        int signal, code;
    } ends[HOWS] = {[SEGV] = {SIGSEGV, 0}, [ABORT] = {SIGABRT, 0},  [KILL] = {SIGKILL, 0},
                    [EXIT3] = {0, 3},      [QUICK_EXIT] = {0, 200}, [TERM] = {SIGTERM, 0}};
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    struct plan plan = {.starts = shared_zeroed(N * sizeof(atomic_long)), .good_attempt = 99};
    for (plan.how = 0; plan.how < HOWS; plan.how++) {
        check_map(pool, plan, 0, ends[plan.how].signal, ends[plan.how].code);
        check_pool_works(pool);
    }
    const yoke_pool_stats stats = stats_of(pool);
    CHECK(stats.died >= (uint64_t)HOWS * N / 40);
    CHECK(stats.started >= stats.died + stats.workers);
    end_pool(pool);
    yoke_shared_free(plan.starts);
}

static void retries_start_it_again_that_often(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    struct plan plan = {.starts = shared_zeroed(N * sizeof(atomic_long)), .how = KILL};
    plan.good_attempt = 1;
    check_map(pool, plan, 1, SIGKILL, 0);
    check_map(pool, plan, 0, SIGKILL, 0);
    plan.good_attempt = 2;
    check_map(pool, plan, 2, SIGKILL, 0);
    check_map(pool, plan, 1, SIGKILL, 0);
    end_pool(pool);
    yoke_shared_free(plan.starts);
}

/* A poison task is the one that pays: not the pool, and not the tasks beside it. */
static void many_retries_are_many_starts(void)
{
    enum { RETRIES = 40 };
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    struct plan plan = {.starts = shared_zeroed(N * sizeof(atomic_long)), .how = KILL};
    const int64_t x = 17;
    yoke_job *job = NULL;
    yoke_outcome outcome;
    const yoke_options options = {
        .size = sizeof options, .context = &plan, .context_bytes = sizeof plan, .retries = RETRIES};
    plan.good_attempt = RETRIES + 1;
    CHECK_RC(yoke_submit(pool, die_first, &x, 8, 8, &options, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
    yoke_job_release(job);
    CHECK_EQ(outcome.attempts, RETRIES + 1);
    CHECK_EQ(outcome.kind, YOKE_CRASHED);
    CHECK_EQ(count_get(plan.starts), RETRIES + 1);
    check_pool_works(pool);
    end_pool(pool);
    yoke_shared_free(plan.starts);
}

static int fail_and_count(yoke_task *task, const void *in, void *out)
{
    atomic_long *starts = *(atomic_long *const *)in;
    (void)out;
    count_up(starts, 1);
    return 7 + (int)yoke_task_attempt(task);
}

static void a_failure_is_not_retried(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *starts = shared_zeroed(sizeof *starts);
        const yoke_options options = {.size = sizeof options, .retries = 9};
        yoke_job *job = NULL;
        yoke_outcome outcome;
        CHECK_RC(yoke_submit(pool, fail_and_count, &starts, sizeof starts, 0, &options, &job), 0);
        CHECK_RC(yoke_wait(job, soon()), 0);
        CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_FAILED);
        CHECK_EQ(outcome.code, 7);
        CHECK_EQ(outcome.attempts, 1);
        CHECK_EQ(count_get(starts), 1);
        yoke_job_release(job);
        end_pool(pool);
        yoke_shared_free(starts);
    }
}

struct order {
    atomic_long *starts;
    int how;
    unsigned good_attempt;
};

static int die_on_order(yoke_task *task, const void *in, void *out)
{
    const struct order *order = in;
    count_up(order->starts, 1);
    if (yoke_task_attempt(task) < order->good_attempt)
        die((enum how)order->how);
    *(int64_t *)out = yoke_task_attempt(task);
    return 0;
}

static void submitted_tasks_die_alone_too(void)
{
    enum { JOBS = 60 };
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    atomic_long *starts = shared_zeroed(JOBS * sizeof *starts);
    yoke_job *jobs[JOBS];
    const yoke_options options = {.size = sizeof options, .retries = 2};
    for (int i = 0; i < JOBS; i++) {
        const struct order order = {starts + i, KILL, i % 6 == 2 ? 99u : i % 6 == 4 ? 2u : 0u};
        CHECK_RC(yoke_submit(pool, die_on_order, &order, sizeof order, 8, &options, &jobs[i]), 0);
    }
    CHECK_RC(yoke_wait_all(jobs, JOBS, soon()), 0);
    for (int i = 0; i < JOBS; i++) {
        yoke_outcome outcome;
        const void *out = starts;
        CHECK_RC(yoke_job_result(jobs[i], &outcome, &out, NULL), 0);
        CHECK_EQ(outcome.kind, i % 6 == 2 ? YOKE_CRASHED : YOKE_OK);
        CHECK_EQ(outcome.signal, i % 6 == 2 ? SIGKILL : 0);
        CHECK_EQ(outcome.attempts, i % 6 == 2 || i % 6 == 4 ? 3 : 1);
        CHECK_EQ(count_get(starts + i), outcome.attempts);
        if (i % 6 == 2)
            CHECK(out == NULL);
        else
            CHECK_EQ(*(const int64_t *)out, i % 6 == 4 ? 2 : 0);
        yoke_job_release(jobs[i]);
    }
    check_pool_works(pool);
    end_pool(pool);
    yoke_shared_free(starts);
}

struct ranges {
    atomic_long *visits;
    unsigned good_attempt;
};

static int die_in_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    const struct ranges *ranges = yoke_task_context(task);
    for (size_t i = begin; i < end; i++) {
        if (i == 555 && yoke_task_attempt(task) < ranges->good_attempt)
            raise(SIGKILL);
        count_up(ranges->visits + i, 1);
        if (accumulator)
            *(uint64_t *)accumulator += i;
    }
    return 0;
}

static void merge_add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static void ranges_are_run_again_as_a_whole(void)
{
    enum { ITEMS = 1000 };
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    struct ranges ranges = {.visits = shared_zeroed(ITEMS * sizeof(atomic_long))};
    yoke_outcome failure = {.kind = -1};
    yoke_options options = {.size = sizeof options,
                            .context = &ranges,
                            .context_bytes = sizeof ranges,
                            .failure = &failure};
    ranges.good_attempt = 1;
    CHECK_RC(yoke_for(pool, die_in_range, ITEMS, &options), YOKE_ETASK);
    CHECK_EQ(failure.kind, YOKE_CRASHED);
    CHECK_EQ(failure.signal, SIGKILL);
    CHECK_EQ(failure.attempts, 1);
    CHECK(failure.item <= 555);
    for (size_t i = 0; i < ITEMS; i++)
        CHECK_EQ(count_get(ranges.visits + i) <= 1, 1);
    for (size_t i = 0; i < failure.item; i++)
        CHECK_EQ(count_get(ranges.visits + i), 1);
    options.retries = 1;
    memset(ranges.visits, 0, ITEMS * sizeof *ranges.visits);
    CHECK_RC(yoke_for(pool, die_in_range, ITEMS, &options), 0);
    for (size_t i = 0; i < ITEMS; i++)
        CHECK(count_get(ranges.visits + i) >= 1);
    /* What a dead part had added up is not in the sum twice. */
    uint64_t sum = 0;
    CHECK_RC(yoke_reduce(pool, die_in_range, merge_add, ITEMS, &sum, sizeof sum, &options), 0);
    CHECK_EQ(sum, ITEMS * (ITEMS - 1) / 2);
    options.retries = 0;
    sum = 7;
    CHECK_RC(yoke_reduce(pool, die_in_range, merge_add, ITEMS, &sum, sizeof sum, &options),
             YOKE_ETASK);
    CHECK_EQ(sum, 7);
    end_pool(pool);
    yoke_shared_free(ranges.visits);
}

static int smash_stack(yoke_task *task, const void *in, void *out)
{
    volatile char room[4096];
    memset((char *)room, 1, sizeof room);
    if (room[100] == 1 && *(const int64_t *)in == 3)
        return smash_stack(task, in, out) + room[5];
    *(int64_t *)out = 1;
    return 0;
}

static void a_stack_overflow_is_a_crash(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    int64_t in[10], out[10];
    yoke_outcome outcomes[10];
    for (int i = 0; i < 10; i++)
        in[i] = i;
    const yoke_options options = {.size = sizeof options, .outcomes = outcomes};
    CHECK_RC(yoke_map(pool, smash_stack, in, 8, out, 8, 10, &options), YOKE_ETASK);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(outcomes[i].kind, i == 3 ? YOKE_CRASHED : YOKE_OK);
    CHECK_EQ(outcomes[3].signal, SIGSEGV);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("crashes need processes");
    check_kind = YOKE_PROCESSES;
    RUN(a_death_costs_one_item_and_has_a_name);
    RUN(retries_start_it_again_that_often);
    RUN(many_retries_are_many_starts);
    RUN(a_failure_is_not_retried);
    RUN(submitted_tasks_die_alone_too);
    RUN(ranges_are_run_again_as_a_whole);
    RUN(a_stack_overflow_is_a_crash);
    return 0;
}
