/* SPDX-License-Identifier: MIT
 * test_cancel_tree.c - cancel tokens: work that has not begun, tasks that run, tasks inside of tasks.
 *
 * Idea: what is set reaches all work below it, on every kind of pool, and nothing else; also what a
 * task has handed in, however deep, by its token or by the cancel of its job.
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

static int sleep_in_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)begin;
    (void)end;
    return sleep_an_hour(task, NULL, accumulator);
}

static void merge_nothing(void *accumulator, const void *other, void *user)
{
    (void)accumulator;
    (void)other;
    (void)user;
}

static int one_more(void *user, size_t item, void *in)
{
    (void)user;
    (void)in;
    return item < 5 ? 1 : 0;
}

/* --- jobs and the tree ------------------------------------------------------------------------ */

struct gate {
    atomic_long begun, go, told, later;
};

static int at_gate(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    (void)out;
    count_up(&gate->begun, 1);
    while (!count_get(&gate->go)) {
        if (yoke_task_cancelled(task)) {
            count_up(&gate->told, 1);
            return 3;
        }
        breathe();
    }
    return 0;
}

static int later(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    (void)task;
    (void)out;
    count_up(&gate->later, 1);
    return 0;
}

static yoke_job *submit(yoke_pool *pool, yoke_fn *fn, struct gate *gate, yoke_cancel *token)
{
    const yoke_options options = with(token);
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, fn, &gate, sizeof gate, 0, token ? &options : NULL, &job), 0);
    return job;
}

static void what_has_not_begun_never_will(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 1);
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_cancel *root = token_below(NULL), *left = token_below(root),
                    *right = token_below(root);
        yoke_job *first = submit(pool, at_gate, gate, NULL), *jobs[1000];
        WAIT_FOR(count_get(&gate->begun) == 1);
        const int n = kind == YOKE_THREADS ? 1000 : 900;
        for (int i = 0; i < n; i++)
            jobs[i] = submit(pool, later, gate, i % 3 == 0 ? left : i % 3 == 1 ? right : NULL);
        yoke_cancel_set(left);
        for (int i = 0; i < n; i += 3) { /* ended by the time the call returns */
            yoke_outcome outcome = {.kind = -1};
            CHECK_RC(yoke_job_result(jobs[i], &outcome, NULL, NULL), 0);
            CHECK_EQ(outcome.kind, YOKE_CANCELLED);
            CHECK_EQ(outcome.attempts, 0);
        }
        CHECK_RC(yoke_job_result(jobs[1], NULL, NULL, NULL), -EAGAIN);
        yoke_job *after = submit(pool, later, gate, left); /* set already */
        CHECK_EQ(end_job(after).kind, YOKE_CANCELLED);
        count_set(&gate->go, 1);
        CHECK_EQ(end_job(first).kind, YOKE_OK);
        for (int i = 0; i < n; i++)
            CHECK_EQ(end_job(jobs[i]).kind, i % 3 == 0 ? YOKE_CANCELLED : YOKE_OK);
        CHECK_EQ(count_get(&gate->later), n - (n + 2) / 3);
        yoke_cancel_release(root);
        yoke_cancel_release(right);
        yoke_cancel_release(left);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

static void a_set_token_means_never(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct gate *gate = shared_zeroed(sizeof *gate), *in[20];
        yoke_outcome outcomes[20], failure = {.kind = -1};
        yoke_cancel *token = token_below(NULL);
        for (int i = 0; i < 20; i++)
            in[i] = gate;
        yoke_cancel_set(token);
        const yoke_outcome outcome = end_job(submit(pool, later, gate, token));
        CHECK_EQ(outcome.kind, YOKE_CANCELLED);
        CHECK_EQ(outcome.attempts, 0);
        yoke_options options = with(token);
        options.outcomes = outcomes;
        options.failure = &failure;
        CHECK_RC(yoke_map(pool, later, in, sizeof *in, NULL, 0, 20, &options), -ECANCELED);
        for (int i = 0; i < 20; i++) {
            CHECK_EQ(outcomes[i].kind, YOKE_CANCELLED);
            CHECK_EQ(outcomes[i].attempts, 0);
        }
        CHECK_RC(yoke_for(pool, sleep_in_range, 20, &options), -ECANCELED);
        const yoke_stream_config stream = {.size = sizeof stream, .next = one_more};
        CHECK_RC(yoke_map_stream(pool, sleep_an_hour, &stream, &options), -ECANCELED);
        CHECK_EQ(count_get(&gate->later), 0);
        yoke_cancel_release(token);
        check_pool_works(pool);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

struct setter {
    yoke_cancel *token;
    struct gate *gate;
    long begun;
};

static int set_when_begun(void *arg)
{
    struct setter *it = arg;
    WAIT_FOR(count_get(&it->gate->begun) >= it->begun);
    yoke_cancel_set(it->token);
    return 0;
}

static int gate_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    struct gate *gate = *(struct gate *const *)yoke_task_context(task);
    (void)begin;
    (void)end;
    return at_gate(task, &gate, accumulator);
}

static int next_gate(void *user, size_t item, void *in)
{
    memcpy(in, user, sizeof(struct gate *));
    return item < 100 ? 1 : 0;
}

static void call_and_be_stopped(yoke_pool *pool, int what, yoke_cancel *above)
{
    struct gate *gate = shared_zeroed(sizeof *gate), *in[40];
    yoke_outcome outcomes[40], failure = {.kind = -1};
    yoke_cancel *token = token_below(above);
    struct setter setter = {above ? above : token, gate, 1};
    yoke_thread *thread = NULL;
    yoke_options options = with(token);
    options.failure = &failure;
    options.context = &gate;
    options.context_bytes = sizeof gate;
    for (int i = 0; i < 40; i++)
        in[i] = gate;
    CHECK_RC(yoke_thread_start(NULL, set_when_begun, &setter, &thread), 0);
    int64_t sum = 5;
    if (what == 0) {
        options.outcomes = outcomes;
        CHECK_RC(yoke_map(pool, at_gate, in, sizeof *in, NULL, 0, 40, &options), -ECANCELED);
        long begun = 0;
        for (int i = 0; i < 40; i++) {
            CHECK_EQ(outcomes[i].kind, YOKE_CANCELLED);
            begun += outcomes[i].attempts;
        }
        CHECK_EQ(begun, count_get(&gate->begun));
    } else if (what == 1) {
        CHECK_RC(yoke_for(pool, gate_range, 40, &options), -ECANCELED);
    } else if (what == 2) {
        CHECK_RC(yoke_reduce(pool, gate_range, merge_nothing, 40, &sum, sizeof sum, &options),
                 -ECANCELED);
        CHECK_EQ(sum, 5);
    } else {
        const yoke_stream_config stream = {
            .size = sizeof stream, .in_bytes = sizeof gate, .next = next_gate, .user = &gate};
        CHECK_RC(yoke_map_stream(pool, at_gate, &stream, &options), -ECANCELED);
    }
    CHECK(count_get(&gate->told) >= 1);
    CHECK_EQ(count_get(&gate->told), count_get(&gate->begun));
    CHECK(count_get(&gate->begun) <= 4);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    yoke_cancel_release(token);
    yoke_shared_free(gate);
}

static void somebody_else_stops_a_call(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (int what = 0; what < 4; what++) {
            yoke_cancel *above = token_below(NULL);
            call_and_be_stopped(pool, what, NULL);
            call_and_be_stopped(pool, what, above);
            yoke_cancel_release(above);
        }
        check_pool_works(pool);
        end_pool(pool);
    }
}

/* --- tasks inside of tasks -------------------------------------------------------------------- */

struct nest {
    yoke_pool *inner;
    struct gate *gate;
    yoke_cancel *other; /* options.cancel of the inner call; or NULL */
    yoke_job *left;     /* handed in, and not waited for */
    int depth;
    atomic_long in;
    atomic_long rc; /* the innermost's */
};

static int nest_map(yoke_task *task, const void *in, void *out)
{
    struct nest *nest = *(struct nest *const *)in;
    struct nest below = {.inner = nest->inner, .gate = nest->gate, .depth = nest->depth - 1};
    struct nest *const items[2] = {&below, &below};
    const yoke_options options = with(nest->other);
    (void)task;
    (void)out;
    int rc = 0;
    if (nest->depth > 0) {
        rc = yoke_map(nest->inner, nest_map, items, sizeof *items, NULL, 0, 2, &options);
    } else {
        struct gate *const gates[3] = {nest->gate, nest->gate, nest->gate};
        rc = yoke_map(nest->inner, at_gate, gates, sizeof *gates, NULL, 0, 3, &options);
    }
    count_set(&nest->rc, rc);
    return 0;
}

static int nest_submit(yoke_task *task, const void *in, void *out)
{
    struct nest *nest = *(struct nest *const *)in;
    (void)task;
    (void)out;
    nest->left = submit(nest->inner, at_gate, nest->gate, NULL);
    WAIT_FOR(count_get(&nest->gate->begun) == 1);
    count_up(&nest->in, 1);
    return yoke_sleep_until(yoke_in_ms(HOUR_MS)) == -ECANCELED ? 0 : 1;
}

static void a_cancel_goes_down_to_the_innermost(void)
{
    if (!check_has_kind(YOKE_THREADS))
        return;
    FOR_EACH_KIND(kind)
    {
        for (int how = 0; how < 4; how++) {
            yoke_pool *outer = make_pool(YOKE_THREADS, 2), *inner = make_pool(kind, 2);
            struct gate *gate = shared_zeroed(sizeof *gate);
            yoke_cancel *token = token_below(NULL), *other = token_below(NULL);
            struct nest nest = {.inner = inner, .gate = gate, .depth = 0}, *in = &nest;
            /* A process worker runs such maps in place: it has no pool, so it goes no deeper. */
            nest.depth = kind == YOKE_THREADS ? 3 : 0;
            nest.other = how == 2 || how == 3 ? other : NULL;
            const yoke_options options = with(how == 0 || how == 2 ? token : NULL);
            yoke_job *job = NULL;
            CHECK_RC(yoke_submit(outer, nest_map, &in, sizeof in, 0, &options, &job), 0);
            WAIT_FOR(count_get(&gate->begun) >= 1);
            if (how == 1)
                CHECK_EQ(yoke_job_cancel(job, 0), 0);
            else
                yoke_cancel_set(how == 3 ? other : token);
            const yoke_outcome outcome = end_job(job);
            CHECK_EQ(outcome.kind, how == 3 ? YOKE_OK : YOKE_CANCELLED);
            CHECK_EQ(count_get(&nest.rc), -ECANCELED);
            CHECK_EQ(count_get(&gate->told), count_get(&gate->begun));
            yoke_cancel_release(token);
            yoke_cancel_release(other);
            end_pool(outer);
            end_pool(inner);
            yoke_shared_free(gate);
        }
    }
}

/* What a task hands in belongs to it, also when the task has ended. */
static void what_a_task_hands_in_belongs_to_it(void)
{
    if (!check_has_kind(YOKE_THREADS))
        return;
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        for (int by_job = 0; by_job < 2; by_job++) {
            yoke_pool *outer = make_pool(YOKE_THREADS, 1), *inner = make_pool(kind, 1);
            struct gate *gate = shared_zeroed(sizeof *gate);
            yoke_cancel *token = token_below(NULL);
            struct nest nest = {.inner = inner, .gate = gate}, *in = &nest;
            const yoke_options options = with(token);
            yoke_job *job = NULL;
            CHECK_RC(
                yoke_submit(outer, nest_submit, &in, sizeof in, 0, by_job ? NULL : &options, &job),
                0);
            WAIT_FOR(count_get(&nest.in) == 1);
            if (by_job)
                CHECK_EQ(yoke_job_cancel(job, 0), 0);
            else
                yoke_cancel_set(token);
            CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
            CHECK_EQ(end_job(nest.left).kind, YOKE_CANCELLED);
            CHECK_EQ(count_get(&gate->told), 1);
            yoke_cancel_release(token);
            end_pool(outer);
            end_pool(inner);
            yoke_shared_free(gate);
        }
    }
}

static int hand_in_and_go(yoke_task *task, const void *in, void *out)
{
    struct nest *nest = *(struct nest *const *)in;
    (void)task;
    (void)out;
    nest->left = submit(nest->inner, at_gate, nest->gate, NULL);
    return 0;
}

static void it_still_does_when_the_task_has_ended(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind != YOKE_THREADS)
            continue;
        yoke_pool *pool = make_pool(kind, 2);
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_cancel *token = token_below(NULL);
        struct nest nest = {.inner = pool, .gate = gate}, *in = &nest;
        const yoke_options options = with(token);
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(pool, hand_in_and_go, &in, sizeof in, 0, &options, &job), 0);
        CHECK_EQ(end_job(job).kind, YOKE_OK);
        WAIT_FOR(count_get(&gate->begun) == 1);
        yoke_cancel_set(token);
        yoke_cancel_release(token);
        CHECK_EQ(end_job(nest.left).kind, YOKE_CANCELLED);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(what_has_not_begun_never_will);
    RUN(a_set_token_means_never);
    RUN(somebody_else_stops_a_call);
    RUN(a_cancel_goes_down_to_the_innermost);
    RUN(what_a_task_hands_in_belongs_to_it);
    RUN(it_still_does_when_the_task_has_ended);
    return 0;
}
