/* SPDX-License-Identifier: MIT
 * test_stepkill_calls.c - submitted tasks, their worker killed after every instruction.
 *
 * Idea: each task counts in shared memory how often its body began and ended. Whatever the
 * instruction, its job ends once: as OK with the whole result, or as CRASHED with no retry left;
 * the body never runs more often than the outcome tells, and no block of the heap is lost, save
 * the one a body had in its own hands.
 */
/* timeout: 200 */
#define CHECK_TIMEOUT 120
#include "stepkill.h"

#include "memory/size_class.h"

enum { SMALL = 100, LARGE = 70000, HUGE = 600000, RECORD_IN = 200, CONTEXT = 48, RECORD_OUT = 120 };

struct tally {
    atomic_long starts, ends;
    void *_Atomic shelf;
};

/* What a kind of call takes and gives. */
struct call {
    yoke_fn *fn;
    size_t in_bytes, context_bytes, out_bytes;
    size_t result_bytes; /* of yoke_task_result */
    size_t shelf_bytes;  /* a block changes hands: the body takes one, or gives this one back */
    int gives;
    int64_t timeout_ns;
};

struct calls {
    struct tally *tally;
    yoke_job *job;
    void *given;
    unsigned char in[RECORD_IN], context[CONTEXT];
};

static struct tally *tally_of(const void *in)
{
    struct tally *tally;
    memcpy(&tally, in, sizeof tally);
    return tally;
}

static unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 7 + 3);
}

static void paint(unsigned char *block, size_t bytes)
{
    block[0] = pattern(0);
    block[bytes / 2] = pattern(bytes / 2);
    block[bytes - 1] = pattern(bytes - 1);
}

static int is_painted(const unsigned char *block, size_t bytes)
{
    return block[0] == pattern(0) && block[bytes / 2] == pattern(bytes / 2) &&
           block[bytes - 1] == pattern(bytes - 1);
}

/* ---- the bodies ---------------------------------------------------------------------------- */

static int run_inline(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)task;
    count_up(&tally->starts, 1);
    paint(out, YK_INLINE_OUT_MAX);
    count_up(&tally->ends, 1);
    return 0;
}

static int run_record(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    count_up(&tally->starts, 1);
    if (!is_painted((const unsigned char *)in + 8, RECORD_IN - 8) ||
        !is_painted(yoke_task_context(task), CONTEXT))
        return 77;
    paint(out, RECORD_OUT);
    count_up(&tally->ends, 1);
    return 0;
}

static int run_small_result(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)out;
    count_up(&tally->starts, 1);
    paint(yoke_task_result(task, SMALL), SMALL);
    count_up(&tally->ends, 1);
    return 0;
}

static int run_large_result(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)out;
    count_up(&tally->starts, 1);
    paint(yoke_task_result(task, LARGE), LARGE);
    count_up(&tally->ends, 1);
    return 0;
}

static int run_two_results(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)out;
    count_up(&tally->starts, 1);
    paint(yoke_task_result(task, HUGE), HUGE);
    paint(yoke_task_result(task, SMALL), SMALL);
    count_up(&tally->ends, 1);
    return 0;
}

static int take_block(struct tally *tally, size_t bytes)
{
    count_up(&tally->starts, 1);
    if (!atomic_load_explicit(&tally->shelf, memory_order_seq_cst)) { /* else it is a retry's */
        unsigned char *block = yoke_shared_alloc(bytes);
        paint(block, bytes);
        atomic_store_explicit(&tally->shelf, block, memory_order_seq_cst);
    }
    count_up(&tally->ends, 1);
    return 0;
}

static int run_take_small(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return take_block(tally_of(in), SMALL);
}

/* A run of chunks. */
static int run_take_huge(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return take_block(tally_of(in), HUGE);
}

static int run_give(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)task;
    (void)out;
    count_up(&tally->starts, 1);
    yoke_shared_free(atomic_load_explicit(&tally->shelf, memory_order_seq_cst));
    count_up(&tally->ends, 1);
    return 0;
}

/* ---- begin --------------------------------------------------------------------------------- */

static const struct call *call_of(const struct stepkill *s)
{
    return s->scene->detail;
}

static void begin(struct stepkill *s)
{
    struct calls *c = s->state;
    const struct call *call = call_of(s);
    memset(c->tally, 0, sizeof *c->tally);
    c->given = NULL;
    if (call->gives) {
        c->given = shared_zeroed(call->shelf_bytes);
        atomic_store_explicit(&c->tally->shelf, c->given, memory_order_seq_cst);
    }
    memcpy(c->in, &c->tally, sizeof c->tally);
    paint(c->in + 8, RECORD_IN - 8);
    paint(c->context, CONTEXT);
    const yoke_options options = {.size = sizeof options,
                                  .retries = s->retries,
                                  .timeout_ns = call->timeout_ns,
                                  .context = call->context_bytes ? c->context : NULL,
                                  .context_bytes = call->context_bytes};
    CHECK_RC(
        yoke_submit(s->pool, call->fn, c->in, call->in_bytes, call->out_bytes, &options, &c->job),
        0);
    /* A wait that ended too early leaves its wish for a wake behind: that way is stepped too. */
    CHECK_RC(yoke_wait(c->job, 1), -ETIMEDOUT);
}

static void cancel(struct stepkill *s)
{
    struct calls *c = s->state;
    const int rc = yoke_job_cancel(c->job, 1);
    CHECK(rc == 0 || rc == -EALREADY);
}

/* ---- judge --------------------------------------------------------------------------------- */

static void judge_outcome(struct stepkill *s, const yoke_outcome *o, long starts, long ends)
{
    const int crashed = o->kind == YOKE_CRASHED, cancelled = o->kind == YOKE_CANCELLED;
    MUST(starts <= (long)o->attempts, "I1 a body runs no more often than the outcome tells");
    MUST(o->attempts <= s->retries + 1, "I1 no more starts than asked for");
    MUST(ends <= starts, "the counters make sense");
    MUST(o->kind == YOKE_OK || crashed || cancelled, "I1 a job ends as OK, crashed or cancelled");
    MUST(!cancelled || s->how == STEPKILL_CANCEL, "I1 cancelled is what was cancelled");
    MUST(!crashed || s->killed, "I1 crashed is what was killed");
    if (o->kind == YOKE_OK) {
        MUST(ends >= 1, "I3 OK means that the body ended");
        MUST(o->attempts >= 1 && o->signal == 0 && o->code == 0, "I3 OK has nothing to tell");
        return;
    }
    s->crashed++;
    s->innocent += starts == 0;
    if (cancelled)
        return;
    MUST(s->how == STEPKILL_KILL, "I1 a cancel is no crash");
    MUST(s->retries == 0 && o->attempts == 1, "I1 a task with a retry left is not lost");
    MUST(o->signal == SIGKILL, "I1 the signal is told");
    MUST(s->mark > 0, "I2 who was killed before the claim took no task along");
}

static void judge_result(struct stepkill *s, const yoke_outcome *outcome)
{
    struct calls *c = s->state;
    const struct call *call = call_of(s);
    const size_t want = call->result_bytes ? call->result_bytes : call->out_bytes;
    const void *out = c;
    size_t bytes = 1;
    yoke_outcome again;
    CHECK_RC(yoke_job_result(c->job, &again, &out, &bytes), 0);
    MUST(memcmp(&again, outcome, sizeof again) == 0, "I1 an outcome is final");
    if (outcome->kind != YOKE_OK || want == 0) {
        MUST(out == NULL && bytes == 0, "I3 no result without success");
        return;
    }
    MUST(bytes == want, "I3 the result has its size");
    MUST(out != NULL && is_painted(out, bytes), "I3 the result is complete");
}

/* The large block that went down with its worker: the only one of its size. */
static void find_lost(size_t bytes)
{
    struct yk_heap_handle heap;
    CHECK_RC(yk_heap_export(&heap), 0);
    const size_t size = (bytes + STEPKILL_CHUNK - 1) / STEPKILL_CHUNK * STEPKILL_CHUNK;
    unsigned char *at = heap.base;
    while (yk_heap_block_bytes(at) != size) {
        at += STEPKILL_CHUNK;
        CHECK(at < (unsigned char *)heap.base + heap.bytes);
    }
    MUST(yk_heap_free(at), "I6 a block that nobody knows is still a block");
}

/* The block that changed hands: nobody's twice, and the program can give it back. */
static void judge_shelf(struct stepkill *s, const yoke_outcome *outcome)
{
    struct calls *c = s->state;
    const struct call *call = call_of(s);
    void *block = atomic_load_explicit(&c->tally->shelf, memory_order_seq_cst);
    const size_t now = count_blocks();
    if (call->gives) {
        MUST(now == s->blocks || now == s->blocks + 1, "I6 given back, or not");
        MUST(outcome->kind != YOKE_OK || now == s->blocks, "I3 OK: it was given back");
        if (now > s->blocks)
            yoke_shared_free(block);
        MUST(count_blocks() == s->blocks, "I6 what was not given back can be");
        return;
    }
    size_t lost = now - s->blocks;
    if (block) {
        MUST(is_painted(block, call->shelf_bytes), "I3 the block is whole");
        MUST(lost >= 1, "I6 a block that was handed out stays in use");
        yoke_shared_free(block);
        lost--;
        MUST(count_blocks() == s->blocks + lost, "I6 the program can give back a worker's block");
    }
    MUST(outcome->kind != YOKE_OK || block != NULL, "I3 OK: it was handed out");
    MUST(lost <= (size_t)s->killed, "I6 a body loses what it held itself, no more");
    s->lost += lost;
    if (lost && call->shelf_bytes > YK_CLASS_BYTES_MAX) {
        find_lost(call->shelf_bytes);
        lost = 0;
    }
    s->blocks += lost;
}

static void judge(struct stepkill *s)
{
    struct calls *c = s->state;
    const struct call *call = call_of(s);
    yoke_outcome outcome;
    const int rc = yoke_wait(c->job, yoke_in_ms(STEPKILL_END_MS));
    MUST(rc == 0, "I9 a job ends, in time");
    stepkill_ended(s);
    CHECK_RC(yoke_job_result(c->job, &outcome, NULL, NULL), 0);
    const long starts = count_get(&c->tally->starts), ends = count_get(&c->tally->ends);
    judge_outcome(s, &outcome, starts, ends);
    MUST(s->killed || outcome.kind == YOKE_OK, "I1 unharmed, all is well");
    judge_result(s, &outcome);
    /* If anybody gives a block of the dead back once more, it is this one. */
    void *probe = yoke_shared_alloc(call->result_bytes ? call->result_bytes : SMALL);
    yoke_job_release(c->job);
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    MUST(yk_heap_free(probe), "I6 no block is given back twice");
    MUST(count_get(&c->tally->starts) == starts, "I1 nothing runs after the end");
    if (call->shelf_bytes)
        judge_shelf(s, &outcome);
    MUST(count_blocks() == s->blocks, "I6 no block of the heap is lost");
    stepkill_heap_is_whole();
}

/* ---- the scenes ---------------------------------------------------------------------------- */

static void run_call(const char *name, const struct call *call, const struct stepkill_mark *marks)
{
    const struct stepkill_scene scene = {.name = name,
                                         .marks = marks,
                                         .begin = begin,
                                         .cancel = cancel,
                                         .judge = judge,
                                         .detail = call};
    struct calls calls = {.tally = shared_zeroed(sizeof(struct tally))};
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    unsigned long kills = 0;
    for (int i = 0; i < 3; i++) {
        struct stepkill s = {.scene = &scene,
                             .pool = pool,
                             .retries = i == 1,
                             .how = i == 2 ? STEPKILL_CANCEL : STEPKILL_KILL,
                             .stride = i == 0 ? 1 : 3,
                             .state = &calls,
                             .kills = kills};
        stepkill_scene_run(&s);
        kills = s.kills;
        MUST(s.crashed > 0 || s.retries, "some points cost the task");
    }
    end_pool(pool);
    yoke_shared_free(calls.tally);
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
    RUN(give_a_block);
    RUN(give_a_run_of_chunks);
    RUN(two_results);
    return 0;
}
