/* SPDX-License-Identifier: MIT
 * test_stepkill_recovery.c - what the program does about a death, itself killed at every step.
 *
 * Idea: stepkill_copy.h. A worker dies with something in its hands: a task begun or not, results
 * in the slot, in the note, replaced, a run of chunks half taken or half given back; or its word
 * was spoiled. Where exactly it dies is another each time.
 */
/* timeout: 600 */
#define CHECK_TIMEOUT 120
#include "stepkill_calls.h"
#include "stepkill_copy.h"

#define MARK(fn) STEPKILL_MARK(fn)

enum { ROUNDS_FULL = 3 };

static uint64_t dice;

/* `within`: it dies that many instructions after the mark, or fewer. */
static void recover(const char *name, const struct call *call, const struct stepkill_mark *marks,
                    size_t mark, unsigned within)
{
    const struct stepkill_scene scene = {
        .name = name, .marks = marks, .begin = begin, .judge = judge, .detail = call};
    struct calls calls = {.tally = shared_zeroed(sizeof(struct tally))};
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    unsigned long kills = 0;
    for (int i = 0; i < (stepkill_full ? ROUNDS_FULL : 1); i++) {
        struct stepkill s = {.scene = &scene,
                             .pool = pool,
                             .retries = random_next(&dice) % 2,
                             .stride = 5,
                             .state = &calls,
                             .kills = kills};
        const unsigned steps = within ? (unsigned)(random_next(&dice) % within) : 0;
        stepkill_recovery_run(&s, (struct stepkill_death){mark, steps});
        kills = s.kills;
    }
    end_pool(pool);
    yoke_shared_free(calls.tally);
}

static const struct call inline_call = {
    .fn = run_inline, .in_bytes = 8, .out_bytes = YK_INLINE_OUT_MAX};
static const struct stepkill_mark inline_marks[] = {
    MARK(yk_worker_run), MARK(run_inline), MARK(yk_table_complete), {NULL, 0}};

static void a_task_not_begun(void)
{
    recover("recovery: a task not begun", &inline_call, inline_marks, 1, 0);
}

static void a_task_begun(void)
{
    recover("recovery: a task begun", &inline_call, inline_marks, 2, 40);
}

static void a_task_done(void)
{
    recover("recovery: a task on its way to DONE", &inline_call, inline_marks, 3, 30);
}

static void a_small_result(void)
{
    const struct stepkill_mark marks[] = {
        MARK(yk_worker_run), MARK(yk_heap_alloc_noted), MARK(yk_table_complete), {NULL, 0}};
    const struct call call = {.fn = run_small_result, .in_bytes = 8, .result_bytes = SMALL};
    recover("recovery: a small result", &call, marks, 2, 500);
}

static void a_large_result(void)
{
    const struct stepkill_mark marks[] = {
        MARK(yk_worker_run), MARK(yk_heap_alloc_noted), MARK(yk_table_complete), {NULL, 0}};
    const struct call call = {.fn = run_large_result, .in_bytes = 8, .result_bytes = LARGE};
    recover("recovery: a large result", &call, marks, 2, 200);
}

static void three_results(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(yk_table_complete), {NULL, 0}};
    const struct call call = {.fn = run_three_results, .in_bytes = 8, .result_bytes = SMALL};
    recover("recovery: three results", &call, marks, 2, 30);
}

static void a_run_half_taken(void)
{
    const struct stepkill_mark marks[] = {
        MARK(yk_worker_run), MARK(yk_run_alloc), MARK(yk_table_complete), {NULL, 0}};
    const struct call call = {.fn = run_take_huge, .in_bytes = 8, .shelf_bytes = HUGE};
    recover("recovery: a run of chunks half taken", &call, marks, 2, 140);
}

static void a_run_half_given(void)
{
    const struct stepkill_mark marks[] = {
        MARK(yk_worker_run), MARK(yk_run_free), MARK(yk_table_complete), {NULL, 0}};
    const struct call call = {.fn = run_give, .in_bytes = 8, .shelf_bytes = HUGE, .gives = 1};
    recover("recovery: a run of chunks half given back", &call, marks, 2, 100);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    dice = random_seed();
    end_pool(make_pool(YOKE_PROCESSES, 1));
    RUN(a_task_not_begun);
    RUN(a_task_begun);
    RUN(a_task_done);
    RUN(a_small_result);
    RUN(a_large_result);
    RUN(three_results);
    RUN(a_run_half_taken);
    RUN(a_run_half_given);
    stepkill_summary();
    return 0;
}
