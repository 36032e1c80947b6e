/* SPDX-License-Identifier: MIT
 * test_cancel_ends.c - clean-ups of tasks, and the first failure that ends the rest.
 *
 * Idea: what a task deferred runs once, last first, before anybody hears of its end, however it
 * ends. With fail_fast, those beside the failure wait for it, so none of them can end by itself.
 */
/* tsan: yes */
/* timeout: 180 */
#include "check.h"

enum { HOUR_MS = 3600 * 1000 };

static yoke_cancel *token_below(yoke_cancel *parent)
{
    yoke_cancel *token = NULL;
    CHECK_RC(yoke_cancel_create(parent, &token), 0);
    return token;
}

static yoke_options with(yoke_cancel *token)
{
    return (yoke_options){.size = sizeof(yoke_options), .cancel = token};
}

static int sleep_an_hour(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return yoke_sleep_until(yoke_in_ms(HOUR_MS)) == -ECANCELED ? 0 : 1;
}

static void merge_nothing(void *accumulator, const void *other, void *user)
{
    (void)accumulator;
    (void)other;
    (void)user;
}

/* --- clean-ups -------------------------------------------------------------------------------- */

struct journal {
    atomic_long count;
    long lines[64];
    atomic_long open;
};

struct entry {
    struct journal *journal;
    long number;
};

static void write_line(void *arg)
{
    const struct entry *entry = arg;
    entry->journal->lines[count_up(&entry->journal->count, 1)] = entry->number;
    count_up(&entry->journal->open, -1);
}

static void defer_line(yoke_task *task, struct journal *journal, long number)
{
    struct entry *entry = yoke_task_alloc(task, sizeof *entry);
    CHECK(entry != NULL);
    *entry = (struct entry){journal, number};
    count_up(&journal->open, 1);
    CHECK_RC(yoke_task_defer(task, write_line, entry), 0);
}

static int defer_two(yoke_task *task, const void *in, void *out)
{
    struct journal *journal = *(struct journal *const *)in;
    const long base = 10 * (long)yoke_task_item(task);
    (void)out;
    defer_line(task, journal, base + 1);
    defer_line(task, journal, base + 2);
    return yoke_task_item(task) % 2 ? 4 : 0;
}

static void clean_ups_run_last_first_for_each_item(void)
{
    FOR_EACH_KIND(kind)
    {
        for (int what = 0; what < 3; what++) {
            yoke_pool *pool = make_pool(kind, 1);
            struct journal *journal = shared_zeroed(sizeof *journal), *in[4];
            for (int i = 0; i < 4; i++)
                in[i] = journal;
            const long items = what == 0 ? 4 : 1;
            if (what == 0) {
                CHECK_RC(yoke_map(pool, defer_two, in, sizeof *in, NULL, 0, 4, NULL), YOKE_ETASK);
            } else if (what == 1) {
                yoke_job *job = NULL;
                CHECK_RC(yoke_submit(pool, defer_two, in, sizeof *in, 0, NULL, &job), 0);
                CHECK_RC(yoke_wait(job, soon()), 0);
                CHECK_EQ(count_get(&journal->count), 2); /* before it is told to have ended */
                yoke_job_release(job);
            } else {
                const yoke_options late = {.size = sizeof late, .timeout_ns = 1};
                yoke_job *job = NULL;
                CHECK_RC(yoke_submit(pool, defer_two, in, sizeof *in, 0,
                                     kind == YOKE_PROCESSES ? NULL : &late, &job),
                         0);
                (void)end_job(job);
            }
            CHECK_EQ(count_get(&journal->count), 2 * items);
            CHECK_EQ(count_get(&journal->open), 0);
            long seen = 0;
            for (long i = 0; i < items; i++) { /* those of one item stand together: one worker */
                CHECK_EQ(journal->lines[2 * i] % 10, 2);
                CHECK_EQ(journal->lines[2 * i + 1], journal->lines[2 * i] - 1);
                seen |= 1L << journal->lines[2 * i] / 10;
            }
            CHECK_EQ(seen, (1L << items) - 1);
            end_pool(pool);
            yoke_shared_free(journal);
        }
    }
}

static int defer_and_be_cancelled(yoke_task *task, const void *in, void *out)
{
    struct journal *journal = *(struct journal *const *)in;
    (void)out;
    defer_line(task, journal, 7);
    return yoke_sleep_until(yoke_in_ms(HOUR_MS)) == -ECANCELED ? 0 : 1;
}

static void clean_ups_run_when_a_task_is_cancelled(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 1);
        struct journal *journal = shared_zeroed(sizeof *journal);
        yoke_cancel *token = token_below(NULL);
        const yoke_options options = with(token);
        yoke_job *job = NULL;
        CHECK_RC(
            yoke_submit(pool, defer_and_be_cancelled, &journal, sizeof journal, 0, &options, &job),
            0);
        WAIT_FOR(count_get(&journal->open) == 1);
        yoke_cancel_set(token);
        CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
        CHECK_EQ(count_get(&journal->count), 1);
        CHECK_EQ(count_get(&journal->open), 0);
        yoke_cancel_release(token);
        end_pool(pool);
        yoke_shared_free(journal);
    }
}

static yoke_task *deferring;

static void defer_more(void *arg)
{
    defer_line(deferring, arg, 2);
}

static int defer_in_clean_up(yoke_task *task, const void *in, void *out)
{
    struct journal *journal = *(struct journal *const *)in;
    (void)out;
    deferring = task;
    defer_line(task, journal, 1);
    CHECK_RC(yoke_task_defer(task, defer_more, journal), 0);
    CHECK_RC(yoke_task_defer(task, NULL, journal), -EINVAL);
    CHECK_RC(yoke_task_defer(NULL, defer_more, journal), -EINVAL);
    return 0;
}

static void a_clean_up_may_defer(void)
{
    yoke_pool *pool = make_pool(YOKE_SERIAL, 1);
    struct journal *journal = shared_zeroed(sizeof *journal);
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, defer_in_clean_up, &journal, sizeof journal, 0, NULL, &job), 0);
    CHECK_EQ(end_job(job).kind, YOKE_OK);
    CHECK_EQ(count_get(&journal->count), 2);
    CHECK_EQ(journal->lines[0], 2);
    CHECK_EQ(journal->lines[1], 1);
    end_pool(pool);
    yoke_shared_free(journal);
}

/* --- the first failure ------------------------------------------------------------------------ */

struct fast {
    atomic_long ran, failed;
    size_t bad;
    int crash;
};

static int fail_at(yoke_task *task, struct fast *fast, size_t item)
{
    count_up(&fast->ran, 1);
    if (item == fast->bad) {
        count_up(&fast->failed, 1);
        if (fast->crash)
            raise(SIGKILL);
        return 9;
    }
    /* Those beside it wait for the failure, and are told. */
    const int64_t until = soon();
    while (item > fast->bad && !yoke_task_cancelled(task) && yoke_now_ns() < until)
        breathe();
    return 0;
}

static int fast_item(yoke_task *task, const void *in, void *out)
{
    (void)out;
    return fail_at(task, *(struct fast *const *)in, yoke_task_item(task));
}

static int fast_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    struct fast *fast = *(struct fast *const *)yoke_task_context(task);
    (void)accumulator;
    for (size_t i = begin; i < end; i++) {
        const int rc = fail_at(task, fast, i);
        if (rc != 0 || yoke_task_cancelled(task))
            return rc;
    }
    return 0;
}

static void check_fast_map(yoke_pool *pool, int kind, size_t bad, int crash)
{
    enum { N = 4000 };
    struct fast *fast = shared_zeroed(sizeof *fast), **in = calloc(N, sizeof *in);
    yoke_outcome *outcomes = calloc(N, sizeof *outcomes), failure = {.kind = -1};
    fast->bad = bad;
    fast->crash = crash;
    for (int i = 0; i < N; i++)
        in[i] = fast;
    yoke_options options = {.size = sizeof options, .fail_fast = 1, .failure = &failure};
    for (int told = 0; told < 2; told++) {
        options.outcomes = told ? outcomes : NULL;
        count_set(&fast->ran, 0);
        CHECK_RC(yoke_map(pool, fast_item, in, sizeof *in, NULL, 0, N, &options), YOKE_ETASK);
        CHECK_EQ(failure.kind, crash ? YOKE_CRASHED : YOKE_FAILED);
        CHECK_EQ(failure.item, bad);
        if (!crash)
            CHECK_EQ(failure.code, 9);
        CHECK(count_get(&fast->ran) <= (long)bad + 1 + 8);
    }
    long ran = 0;
    for (size_t i = 0; i < N; i++) {
        ran += outcomes[i].attempts;
        CHECK_EQ(outcomes[i].item, i);
        if (i == bad)
            CHECK_EQ(outcomes[i].kind, failure.kind);
        else if (i > bad)
            CHECK_EQ(outcomes[i].kind, YOKE_CANCELLED);
        else
            CHECK(outcomes[i].kind == YOKE_OK || outcomes[i].attempts == 0);
    }
    CHECK_EQ(ran, count_get(&fast->ran));
    if (kind == YOKE_SERIAL)
        CHECK_EQ(ran, (long)bad + 1);
    free(in);
    free(outcomes);
    yoke_shared_free(fast);
}

static void the_first_failure_ends_a_map(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        check_fast_map(pool, kind, 0, 0);
        check_fast_map(pool, kind, 3, 0);
        if (kind == YOKE_PROCESSES)
            check_fast_map(pool, kind, 2, 1);
        check_pool_works(pool);
        end_pool(pool);
    }
}

static void the_first_failure_ends_a_for_and_a_reduce(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (int reduces = 0; reduces < 2; reduces++) {
            struct fast *fast = shared_zeroed(sizeof *fast);
            yoke_outcome failure = {.kind = -1};
            int64_t sum = 7;
            const yoke_options options = {.size = sizeof options,
                                          .fail_fast = 1,
                                          .failure = &failure,
                                          .context = &fast,
                                          .context_bytes = sizeof fast};
            fast->bad = 0;
            CHECK_RC(reduces ? yoke_reduce(pool, fast_range, merge_nothing, 100000, &sum,
                                           sizeof sum, &options)
                             : yoke_for(pool, fast_range, 100000, &options),
                     YOKE_ETASK);
            CHECK_EQ(failure.kind, YOKE_FAILED);
            CHECK_EQ(failure.code, 9);
            CHECK_EQ(failure.item, 0);
            CHECK_EQ(sum, 7);
            CHECK(count_get(&fast->ran) <= 8);
            yoke_shared_free(fast);
        }
        end_pool(pool);
    }
}

/* An hour of sleep beside the failure: the sleepers are woken. */
static int fail_or_sleep(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    return yoke_task_item(task) == 0 ? 5 : sleep_an_hour(task, NULL, NULL);
}

static void the_first_failure_wakes_who_sleeps(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        yoke_outcome outcomes[6], failure = {.kind = -1};
        const yoke_options options = {
            .size = sizeof options, .fail_fast = 1, .outcomes = outcomes, .failure = &failure};
        CHECK_RC(yoke_map(pool, fail_or_sleep, NULL, 0, NULL, 0, 6, &options), YOKE_ETASK);
        CHECK_EQ(failure.kind, YOKE_FAILED);
        CHECK_EQ(failure.item, 0);
        for (int i = 1; i < 6; i++)
            CHECK_EQ(outcomes[i].kind, YOKE_CANCELLED);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(clean_ups_run_last_first_for_each_item);
    RUN(clean_ups_run_when_a_task_is_cancelled);
    RUN(a_clean_up_may_defer);
    RUN(the_first_failure_ends_a_map);
    RUN(the_first_failure_ends_a_for_and_a_reduce);
    RUN(the_first_failure_wakes_who_sleeps);
    return 0;
}
