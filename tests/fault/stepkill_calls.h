/* SPDX-License-Identifier: MIT
 * stepkill_calls.h - submitted tasks that count what happens to them, and the judge of their end.
 *
 * Idea: each task counts in shared memory how often its body began and ended. Wherever its worker
 * dies, its job ends once: as OK with the whole result, or as CRASHED with no retry left; the body
 * never runs more often than the outcome tells, and no block of the heap is lost, save the one a
 * body had in its own hands.
 */
#ifndef YOKE_TESTS_STEPKILL_CALLS_H
#define YOKE_TESTS_STEPKILL_CALLS_H

#include "stepkill.h"

#include "memory/chunk.h"

enum {
    SMALL = 100,
    LARGE = 70000,
    HUGE = 600000,
    RECORD_IN = 200,
    CONTEXT = 48,
    RECORD_OUT = 120,
    NESTED = 5,
    ALIGNED = 300000,
    ALIGNMENT = 512 << 10
};

struct tally {
    atomic_long starts, ends;
    void *_Atomic shelf;
    yoke_pool *pool; /* for maps inside */
};

/* What a kind of call takes and gives. */
struct call {
    yoke_fn *fn;
    size_t in_bytes, context_bytes, out_bytes;
    size_t result_bytes; /* of yoke_task_result */
    size_t shelf_bytes;  /* a block changes hands: the body takes one, or gives this one back */
    int gives;
    int keeps; /* the body takes a block and gives it back: it may go down with it */
    int64_t timeout_ns;
};

struct calls {
    struct tally *tally;
    yoke_job *job;
    void *given;
    unsigned char in[RECORD_IN], context[CONTEXT];
};

static inline struct tally *tally_of(const void *in)
{
    struct tally *tally;
    memcpy(&tally, in, sizeof tally);
    return tally;
}

static inline unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 7 + 3);
}

static inline void paint(unsigned char *block, size_t bytes)
{
    block[0] = pattern(0);
    block[bytes / 2] = pattern(bytes / 2);
    block[bytes - 1] = pattern(bytes - 1);
}

static inline int is_painted(const unsigned char *block, size_t bytes)
{
    return block[0] == pattern(0) && block[bytes / 2] == pattern(bytes / 2) &&
           block[bytes - 1] == pattern(bytes - 1);
}

/* ---- the bodies ---------------------------------------------------------------------------- */

static inline int run_inline(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)task;
    count_up(&tally->starts, 1);
    paint(out, YK_INLINE_OUT_MAX);
    count_up(&tally->ends, 1);
    return 0;
}

static inline int run_record(yoke_task *task, const void *in, void *out)
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

static inline int run_small_result(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)out;
    count_up(&tally->starts, 1);
    paint(yoke_task_result(task, SMALL), SMALL);
    count_up(&tally->ends, 1);
    return 0;
}

static inline int run_large_result(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)out;
    count_up(&tally->starts, 1);
    paint(yoke_task_result(task, LARGE), LARGE);
    count_up(&tally->ends, 1);
    return 0;
}

static inline int run_two_results(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)out;
    count_up(&tally->starts, 1);
    paint(yoke_task_result(task, HUGE), HUGE);
    paint(yoke_task_result(task, SMALL), SMALL);
    count_up(&tally->ends, 1);
    return 0;
}

static inline int take_block(struct tally *tally, size_t bytes)
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

static inline int run_take_small(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return take_block(tally_of(in), SMALL);
}

/* A run of chunks. */
static inline int run_take_huge(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return take_block(tally_of(in), HUGE);
}

static inline int run_take_aligned(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)task;
    (void)out;
    count_up(&tally->starts, 1);
    if (!atomic_load_explicit(&tally->shelf, memory_order_seq_cst)) { /* else it is a retry's */
        unsigned char *block = yoke_shared_alloc_aligned(ALIGNED, ALIGNMENT);
        paint(block, ALIGNED);
        atomic_store_explicit(&tally->shelf, block, memory_order_seq_cst);
    }
    count_up(&tally->ends, 1);
    return (uintptr_t)atomic_load_explicit(&tally->shelf, memory_order_seq_cst) % ALIGNMENT ? 80
                                                                                            : 0;
}

static inline int run_give(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)task;
    (void)out;
    count_up(&tally->starts, 1);
    yoke_shared_free(atomic_load_explicit(&tally->shelf, memory_order_seq_cst));
    count_up(&tally->ends, 1);
    return 0;
}

static inline int run_three_results(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    (void)out;
    count_up(&tally->starts, 1);
    paint(yoke_task_result(task, SMALL), SMALL);
    paint(yoke_task_result(task, LARGE), LARGE);
    paint(yoke_task_result(task, SMALL), SMALL);
    count_up(&tally->ends, 1);
    return 0;
}

static inline int take_and_give(struct tally *tally, size_t bytes)
{
    count_up(&tally->starts, 1);
    unsigned char *block = yoke_shared_alloc(bytes);
    paint(block, bytes);
    yoke_shared_free(block);
    count_up(&tally->ends, 1);
    return 0;
}

static inline int run_own_small(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return take_and_give(tally_of(in), SMALL);
}

static inline int run_own_huge(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    return take_and_give(tally_of(in), HUGE);
}

static inline int run_inner(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(int64_t *)out = *(const int64_t *)in * 3;
    return 0;
}

/* A map inside a task runs in the worker itself. */
static inline int run_nested(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = tally_of(in);
    const int64_t numbers[NESTED] = {1, 2, 3, 4, 5};
    int64_t tripled[NESTED] = {0}, sum = 0;
    (void)task;
    count_up(&tally->starts, 1);
    if (yoke_map(tally->pool, run_inner, numbers, 8, tripled, 8, NESTED, NULL) != 0)
        return 78;
    for (int i = 0; i < NESTED; i++)
        sum += tripled[i];
    if (sum != 45)
        return 79;
    paint(out, YK_INLINE_OUT_MAX);
    count_up(&tally->ends, 1);
    return 0;
}

/* ---- begin --------------------------------------------------------------------------------- */

static inline const struct call *call_of(const struct stepkill *s)
{
    return s->scene->detail;
}

static inline void begin(struct stepkill *s)
{
    struct calls *c = s->state;
    s->begun++;
    const struct call *call = call_of(s);
    memset(c->tally, 0, sizeof *c->tally);
    c->tally->pool = s->pool;
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

static inline void cancel(struct stepkill *s)
{
    struct calls *c = s->state;
    const int rc = yoke_job_cancel(c->job, 1);
    CHECK(rc == 0 || rc == -EALREADY);
}

/* ---- judge --------------------------------------------------------------------------------- */

static inline void judge_outcome(struct stepkill *s, const yoke_outcome *o, long starts, long ends)
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
    MUST(o->signal == SIGKILL || s->by_copy, "I1 the signal is told");
    MUST(s->mark > 0, "I2 who was killed before the claim took no task along");
}

static inline void judge_result(struct stepkill *s, const yoke_outcome *outcome)
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
static inline void find_lost(size_t bytes)
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
static inline void judge_shelf(struct stepkill *s, const yoke_outcome *outcome)
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
    MUST(outcome->kind != YOKE_OK || block != NULL || call->keeps, "I3 OK: it was handed out");
    MUST(lost <= (size_t)s->killed, "I6 a body loses what it held itself, no more");
    s->blocks_lost += lost;
    if (lost && call->shelf_bytes > YK_CLASS_BYTES_MAX) {
        find_lost(call->shelf_bytes);
        lost = 0;
    }
    s->blocks += lost;
}

static inline void judge(struct stepkill *s)
{
    struct calls *c = s->state;
    const struct call *call = call_of(s);
    yoke_outcome outcome;
    const int rc = yoke_wait(c->job, yoke_in_ms(STEPKILL_END_MS));
    MUST(rc == 0, "I9 a job ends, in time");
    stepkill_ended(s);
    CHECK_RC(yoke_job_result(c->job, &outcome, NULL, NULL), 0);
    const long starts = count_get(&c->tally->starts), ends = count_get(&c->tally->ends);
    s->over++;
    s->doubled += (unsigned long)(starts > (long)outcome.attempts);
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

#endif
