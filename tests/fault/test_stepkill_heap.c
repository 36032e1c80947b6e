/* SPDX-License-Identifier: MIT
 * test_stepkill_heap.c - calls on the shared heap, their worker killed after every instruction.
 *
 * Idea: as test_stepkill_calls, for the calls that are not part of running tasks: giving memory
 * back to the system, blocks at an alignment, zeros. Small blocks are taken and freed in debug
 * mode, which must find nothing wrong afterwards: the judge takes and frees all of the heap.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 120
#include "stepkill_calls.h"

static atomic_long told;

static void note_fault(const yoke_heap_fault *fault, void *context)
{
    (void)context;
    fprintf(stderr, "    misuse %d at %p\n", fault->kind, fault->address);
    count_up(&told, 1);
}

static int run_trim(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)task;
    (void)out;
    count_up(&tally->starts, 1);
    const size_t given = yoke_heap_trim();
    count_up(&tally->ends, 1);
    return given % STEPKILL_CHUNK ? 77 : 0;
}

static int keep_or_give(struct tally *tally, unsigned char *block, size_t bytes)
{
    count_up(&tally->starts, 1);
    if (!block)
        return 77;
    paint(block, bytes);
    yoke_shared_free(block);
    count_up(&tally->ends, 1);
    return 0;
}

static int run_aligned(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return keep_or_give(tally_of(in), yoke_shared_alloc_aligned(HUGE, (size_t)1 << 20), HUGE);
}

static int run_zalloc(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return keep_or_give(tally_of(in), yoke_shared_zalloc(HUGE), HUGE);
}

static int run_small(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return keep_or_give(tally_of(in), yoke_shared_zalloc(SMALL), SMALL);
}

#define MARK(fn) STEPKILL_MARK(fn)
#define END_OF_MARKS \
    STEPKILL_MARK(yk_futex_wait), \
    { \
        NULL, 0 \
    }

static void run_scene(const char *name, const struct call *call, const struct stepkill_mark *marks,
                      int debug)
{
    const struct stepkill_scene scene = {.name = name,
                                         .marks = marks,
                                         .begin = begin,
                                         .cancel = cancel,
                                         .judge = judge,
                                         .detail = call};
    struct calls calls = {.tally = shared_zeroed(sizeof(struct tally))};
    CHECK_RC(yoke_heap_debug(debug, note_fault, NULL), 0);
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    struct stepkill s = {
        .scene = &scene, .pool = pool, .how = STEPKILL_KILL, .stride = 3, .state = &calls};
    stepkill_scene_run(&s);
    MUST(s.crashed > 0, "some points cost the task");
    end_pool(pool);
    CHECK_RC(yoke_heap_debug(0, NULL, NULL), 0);
    CHECK_EQ(count_get(&told), 0);
    yoke_shared_free(calls.tally);
}

static void trimming(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_trim), MARK(yoke_heap_trim),
                                          MARK(yk_table_complete), END_OF_MARKS};
    const struct call call = {.fn = run_trim, .in_bytes = 8};
    run_scene("memory given back to the system", &call, marks, 0);
}

static void a_block_at_an_alignment(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_aligned),
                                          MARK(yoke_shared_free), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_aligned, .in_bytes = 8, .shelf_bytes = HUGE, .keeps = 1};
    run_scene("block at an alignment", &call, marks, 0);
}

static void large_zeros(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_zalloc),
                                          MARK(yoke_shared_free), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_zalloc, .in_bytes = 8, .shelf_bytes = HUGE, .keeps = 1};
    run_scene("large block of zeros", &call, marks, 0);
}

static void small_zeros(void)
{
    const struct stepkill_mark marks[] = {MARK(yk_worker_run), MARK(run_small),
                                          MARK(yoke_shared_free), MARK(yk_table_complete),
                                          END_OF_MARKS};
    const struct call call = {.fn = run_small, .in_bytes = 8, .shelf_bytes = SMALL, .keeps = 1};
    run_scene("small block of zeros, debug mode", &call, marks, 1);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    RUN(trimming);
    RUN(a_block_at_an_alignment);
    RUN(large_zeros);
    RUN(small_zeros);
    stepkill_summary();
    return 0;
}
