/* SPDX-License-Identifier: MIT
 * test_stepkill_calls.c - submitted tasks, their worker killed after every instruction.
 *
 * Idea: one worker, one task at a time, every kind of argument, result and heap block. The worker
 * is stepped from the wake through claim, body and completion to the next sleep.
 */
/* timeout: 600 */
#define CHECK_TIMEOUT 120
#include "stepkill_calls.h"

/* ---- the scenes ---------------------------------------------------------------------------- */

enum { WAYS = 3 }; /* killed; killed, with a retry left; cancelled by force */

static void run_calls(const struct stepkill_scene *scene, int ways)
{
    struct calls calls = {.tally = shared_zeroed(sizeof(struct tally))};
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    unsigned long kills = 0;
    for (int i = 0; i < ways; i++) {
        struct stepkill s = {.scene = scene,
                             .pool = pool,
                             .retries = i == 1,
                             .how = i == 2 ? STEPKILL_CANCEL : STEPKILL_KILL,
                             .stride = i == 0 ? 3 : 11,
                             .state = &calls,
                             .kills = kills};
        stepkill_scene_run(&s);
        kills = s.kills;
        MUST(s.crashed > 0 || s.retries, "some points cost the task");
    }
    end_pool(pool);
    yoke_shared_free(calls.tally);
}

static void run_call(const char *name, const struct call *call, const struct stepkill_mark *marks)
{
    const struct stepkill_scene scene = {.name = name,
                                         .marks = marks,
                                         .begin = begin,
                                         .cancel = cancel,
                                         .judge = judge,
                                         .detail = call};
    run_calls(&scene, WAYS);
}

#define MARK(fn) STEPKILL_MARK(fn)
#define END_OF_MARKS \
    STEPKILL_MARK(yk_futex_wait), \
    { \
        NULL, 0 \
    }

static void inline_call(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_inline),
                                          MARK(yk_table_complete), END_OF_MARKS};
    const struct call call = {.fn = run_inline, .in_bytes = 8, .out_bytes = YK_INLINE_OUT_MAX};
    run_call("inline call", &call, marks);
}

static void record_call(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_record),
                                          MARK(yk_table_complete), END_OF_MARKS};
    const struct call call = {
        .fn = run_record, .in_bytes = RECORD_IN, .context_bytes = CONTEXT, .out_bytes = RECORD_OUT};
    run_call("call with record and context", &call, marks);
}

static void timed_call(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_inline),
                                          MARK(yk_table_complete), END_OF_MARKS};
    const struct call call = {.fn = run_inline,
                              .in_bytes = 8,
                              .out_bytes = YK_INLINE_OUT_MAX,
                              .timeout_ns = 600000000000};
    run_call("call with a timeout", &call, marks);
}

static void small_result(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_small_result),
                                          MARK(yk_heap_alloc_noted), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_small_result, .in_bytes = 8, .result_bytes = SMALL};
    run_call("small result", &call, marks);
}

static void large_result(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_large_result),
                                          MARK(yk_heap_alloc_noted), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_large_result, .in_bytes = 8, .result_bytes = LARGE};
    run_call("large result", &call, marks);
}

static void two_results(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run),       MARK(run_two_results),
                                          MARK(yk_heap_alloc_noted), MARK(yk_heap_alloc_noted),
                                          MARK(yk_table_complete),   END_OF_MARKS};
    const struct call call = {.fn = run_two_results, .in_bytes = 8, .result_bytes = SMALL};
    run_call("two results, one after the other", &call, marks);
}

static void take_a_block(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_take_small),
                                          MARK(yoke_shared_alloc), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_take_small, .in_bytes = 8, .shelf_bytes = SMALL};
    run_call("small block taken", &call, marks);
}

static void take_a_run_of_chunks(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_take_huge),
                                          MARK(yoke_shared_alloc), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_take_huge, .in_bytes = 8, .shelf_bytes = HUGE};
    run_call("huge block taken", &call, marks);
}

static void take_an_aligned_block(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_take_aligned),
                                          MARK(yoke_shared_alloc_aligned), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_take_aligned, .in_bytes = 8, .shelf_bytes = ALIGNED};
    run_call("aligned block taken", &call, marks);
}

static void give_a_block(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_give),
                                          MARK(yoke_shared_free), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_give, .in_bytes = 8, .shelf_bytes = SMALL, .gives = 1};
    run_call("small block given back", &call, marks);
}

static void give_a_run_of_chunks(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_give),
                                          MARK(yoke_shared_free), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_give, .in_bytes = 8, .shelf_bytes = HUGE, .gives = 1};
    run_call("huge block given back", &call, marks);
}

static void own_small_block(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_own_small),
                                          MARK(yoke_shared_free), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_own_small, .in_bytes = 8, .shelf_bytes = SMALL, .keeps = 1};
    run_call("own small block, taken and given", &call, marks);
}

static void own_run_of_chunks(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_own_huge),
                                          MARK(yoke_shared_free), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_own_huge, .in_bytes = 8, .shelf_bytes = HUGE, .keeps = 1};
    run_call("own huge block, taken and given", &call, marks);
}

static void three_results(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run),
                                          MARK(run_three_results),
                                          MARK(yk_heap_alloc_noted),
                                          MARK(yk_heap_alloc_noted),
                                          MARK(yk_heap_alloc_noted),
                                          MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_three_results, .in_bytes = 8, .result_bytes = SMALL};
    run_call("three results", &call, marks);
}

static void nested_map(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_nested), MARK(run_inner),
                                          MARK(yk_table_complete), END_OF_MARKS};
    const struct call call = {.fn = run_nested, .in_bytes = 8, .out_bytes = YK_INLINE_OUT_MAX};
    run_call("map inside a call", &call, marks);
}

/* From where the wait for work begins to the system call. */
static int at_the_sleep(struct stepkill *s)
{
    const unsigned char *code = stepkill_code(s);
    return s->mark == 3 && code[0] == 0x0f && code[1] == 0x05;
}

static void going_to_sleep(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run),
                                          MARK(yk_table_complete),
                                          MARK(yk_futex_wait),
                                          MARK(yk_process_exit), /* never */
                                          {NULL, 0}};
    const struct call call = {.fn = run_inline, .in_bytes = 8, .out_bytes = YK_INLINE_OUT_MAX};
    const struct stepkill_scene scene = {.name = "going to sleep",
                                         .marks = marks,
                                         .begin = begin,
                                         .over = at_the_sleep,
                                         .judge = judge,
                                         .detail = &call};
    run_calls(&scene, 1);
}

/* A second task, published while the worker is on its way to sleep: it sees it, or is woken. Nobody
 * waits for it, so nobody looks whether a wake was lost. */
static int publish_point(struct stepkill *s, size_t wanted, int asleep, int killed)
{
    const struct call *call = call_of(s);
    struct calls *c = s->state;
    struct calls second = {.tally = c->tally + 1};
    memset(second.tally, 0, sizeof *second.tally);
    const struct stepkill_mark *marks = s->scene->marks;
    s->killed = 0;
    s->mark = 0;
    s->steps = 0;
    stepkill_seize(s);
    s->blocks = count_blocks();
    begin(s);
    stepkill_run_to(s, marks[0].at, 1, 0);
    if (asleep)
        stepkill_run_to(s, marks[1].at, 1, 0);
    s->mark = asleep ? 3 : 1;
    const int reached = stepkill_go(s, wanted, asleep ? 0 : marks[1].at);
    memcpy(c->in, &second.tally, sizeof second.tally);
    CHECK_RC(yoke_submit(s->pool, call->fn, c->in, 8, call->out_bytes, NULL, &second.job), 0);
    if (killed)
        stepkill_end_worker(s);
    else
        CHECK_EQ(ptrace(PTRACE_DETACH, s->pid, NULL, NULL), 0);
    for (const int64_t until = soon(); yoke_wait(second.job, 0) != 0; breathe())
        MUST(yoke_now_ns() < until, "I9 no wake is lost");
    yoke_outcome outcome;
    CHECK_RC(yoke_job_result(second.job, &outcome, NULL, NULL), 0);
    MUST(outcome.kind == YOKE_OK && outcome.attempts == 1, "I2 it had not begun");
    MUST(count_get(&second.tally->starts) == 1, "I1 it ran once");
    yoke_job_release(second.job);
    s->points += (unsigned long)killed;
    s->mark = 1;
    judge(s);
    return reached;
}

static void a_task_before_the_sleep(void)
{
    const struct stepkill_mark marks[] = {
        MARK(yk_table_complete), MARK(yk_futex_wait), MARK(yk_futex_wait), {NULL, 0}};
    const struct call call = {.fn = run_inline, .in_bytes = 8, .out_bytes = YK_INLINE_OUT_MAX};
    const struct stepkill_scene scene = {.name = "a task comes before the sleep",
                                         .marks = marks,
                                         .begin = begin,
                                         .over = at_the_sleep,
                                         .judge = judge,
                                         .detail = &call};
    struct calls calls = {.tally = shared_zeroed(2 * sizeof(struct tally))};
    struct stepkill s = {.scene = &scene, .pool = make_pool(YOKE_PROCESSES, 1), .state = &calls};
    const int64_t from = yoke_now_ns();
    for (int way = 0; way < 4; way++) {
        size_t wanted = 0;
        stepkill_now = &s;
        stepkill_path_cut(0);
        while (publish_point(&s, wanted, way / 2, way % 2)) {
            wanted = stepkill_next(&s, wanted, 1);
            alarm(CHECK_TIMEOUT);
        }
    }
    stepkill_report(&s, from);
    end_pool(s.pool);
    yoke_shared_free(calls.tally);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    end_pool(make_pool(YOKE_PROCESSES, 1));
    RUN(inline_call);
    RUN(record_call);
    RUN(timed_call);
    RUN(small_result);
    RUN(large_result);
    RUN(take_a_block);
    RUN(take_a_run_of_chunks);
    RUN(take_an_aligned_block);
    RUN(give_a_block);
    RUN(give_a_run_of_chunks);
    RUN(own_small_block);
    RUN(own_run_of_chunks);
    RUN(nested_map);
    RUN(going_to_sleep);
    RUN(a_task_before_the_sleep);
    RUN(two_results);
    if (stepkill_each) /* takes minutes */
        RUN(three_results);
    stepkill_summary();
    return 0;
}
