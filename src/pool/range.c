/* SPDX-License-Identifier: MIT
 * range.c - map, for and reduce on threads: a range is halved while somebody might want half.
 *
 * Idea: the right half is pushed as a frame, the left half is run, the right half is popped and is
 * the next range, if nobody took it (lazy binary splitting: Tzannes et al., PPoPP 2010, with
 * frames that cost next to nothing in place of the test). It ends at a grain that is learnt from
 * how long the leaves take. What the items of a function cost is remembered for its next range:
 * one that is over before anybody could help is run in the caller at once.   Room: pool.
 */
#include "pool/range.h"

#include <errno.h>
#include <stdlib.h>

#include "pool/deque.h"

#define LEAF_NS 10000LL    /* a leaf should take: far more than pushing it, short enough to share */
#define SHORT_TICKS 100000 /* that was not short: some 30 us */
#define LONG_NS 20000000ULL
#define SHORT_NS 2500 /* nobody could help with so little */
#define WAKE_NS 60000 /* nobody is woken for less: that takes 20 to 50 us */
#define LEAVES 32     /* for each worker at least, however little an item costs */

/* What some leaves did. */
struct tally {
    size_t leaves;
    size_t items;
    uint64_t spent_ns;
};

/* One call. The caller's, on its stack; leaves on other workers use it too. */
struct range {
    const struct yk_sweep *sweep;
    size_t items; /* items, or the parts of a reduce */
    struct yk_cancel_call call;
    yoke_cancel *cancel; /* the call's; NULL: nobody can */
    size_t stride;       /* of accumulators */
    unsigned char *accumulators;
    size_t coarsest;
    struct tally tally; /* the caller's */
    /* atomic */
    _Atomic size_t grain;
    _Atomic size_t stop; /* 1: fail_fast, and one has failed */
    /* under lock */
    yk_mutex lock;
    bool failed;
    yoke_outcome failure;
};

struct half {
    yoke_frame frame;
    struct range *range;
    size_t begin, end;
    struct tally tally;
};

/* --- what a function's items cost: one word, {fn, 1/16 ns} ---------------------------------- */

static uintptr_t fn_of(const struct yk_sweep *sweep)
{
    return sweep->fn != NULL ? (uintptr_t)sweep->fn : (uintptr_t)sweep->range_fn;
}

static _Atomic uint64_t *hint_of(const struct yk_sweep *sweep)
{
    struct yk_team *const team = sweep->pool->team;
    return &team->hints[fn_of(sweep) >> 4 & (YK_COUNT_OF(team->hints) - 1)];
}

/* 0: not known. */
static uint32_t cost_of_item(const struct yk_sweep *sweep)
{
    /* relaxed: the word is all there is. */
    const uint64_t hint = atomic_load_explicit(hint_of(sweep), memory_order_relaxed);
    return hint >> 32 == (uint32_t)fn_of(sweep) ? (uint32_t)hint : 0;
}

static size_t cost_of_all(const struct yk_sweep *sweep)
{
    size_t sum = 0;
    return yk_mul_overflows(cost_of_item(sweep), sweep->count, &sum) ? SIZE_MAX : sum;
}

static void remember(const struct yk_sweep *sweep, uint64_t spent_ns, size_t items)
{
    const uint64_t before = cost_of_item(sweep);
    uint64_t cost = yk_min(spent_ns * 16 / items + 1, UINT32_MAX);
    cost = before == 0 ? cost : (before + cost + 1) / 2;
    /* relaxed: as above. */
    atomic_store_explicit(hint_of(sweep), fn_of(sweep) << 32 | cost, memory_order_relaxed);
}

/* --- words that several workers write ------------------------------------------------------- */

static size_t advice(const _Atomic size_t *word)
{
    /* relaxed: nothing hangs on it. */
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void advise(_Atomic size_t *word, size_t value)
{
    /* relaxed: nothing hangs on it. */
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* --- leaves --------------------------------------------------------------------------------- */

static bool stopped(const struct range *range)
{
    return advice(&range->stop) != 0 || yk_cancel_seen(range->cancel);
}

static void note_failure(struct range *range, yoke_outcome outcome)
{
    yk_mutex_lock(&range->lock);
    if (!range->failed ||
        yk_outcome_comes_first(&range->sweep->options, &outcome, &range->failure)) {
        range->failure = outcome;
    }
    range->failed = true;
    if (range->sweep->options.fail_fast != 0) {
        advise(&range->stop, 1);
    }
    yk_mutex_unlock(&range->lock);
    if (range->sweep->options.fail_fast != 0 && range->cancel != NULL &&
        !yk_cancel_seen(range->cancel)) {
        yk_cancel_tell(range->cancel); /* it is this call's alone */
        yk_cancel_flush();
    }
}

/* Nothing begins any more: what begins here, an item or a part, does not run. */
static bool skipped(struct range *range, size_t begin)
{
    if (YK_LIKELY(!stopped(range))) {
        return false;
    }
    const bool part = range->accumulators != NULL;
    const size_t item = part ? yk_fixed_begin(range->sweep->count, range->items, begin) : begin;
    note_failure(range, (yoke_outcome){.kind = YOKE_CANCELLED, .item = item});
    return true;
}

static void note(struct range *range, size_t item, int32_t code)
{
    yoke_outcome outcome = yk_outcome_of(code);
    outcome.attempts = 1;
    outcome.item = item;
    if (range->sweep->options.outcomes != NULL) {
        range->sweep->options.outcomes[item] = outcome;
    }
    if (outcome.kind != YOKE_OK) {
        note_failure(range, outcome);
    }
}

static struct yoke_task task_of(const struct range *range)
{
    struct yoke_task task = yk_serial_task(range->sweep->options.context, range->cancel);
    task.slot = NULL;
    const struct yoke_pool *const pool = range->sweep->pool;
    if (task.worker == NULL || task.worker->ctl != pool->ctl) {
        task.worker = yk_team_worker(pool->team); /* a short range: the caller is no guest */
    }
    return task;
}

static size_t map_leaf(struct range *range, size_t begin, size_t end)
{
    const struct yk_sweep *const sweep = range->sweep;
    const int64_t timeout_ns = sweep->options.timeout_ns;
    const bool tell = sweep->options.outcomes != NULL;
    const unsigned char *in = sweep->in == NULL ? NULL : sweep->in + begin * sweep->in_bytes;
    unsigned char *out = sweep->out == NULL ? NULL : sweep->out + begin * sweep->out_bytes;
    struct yoke_task task = task_of(range);
    size_t i = begin;
    yk_task_enter(&task);
    for (; i < end && !skipped(range, i); i++) {
        task.item = i;
        task.deadline_ns = yk_serial_deadline(timeout_ns);
        const int32_t code = yk_task_call(&task, sweep->fn, in, out);
        if (code != 0 || tell) {
            note(range, i, code);
        }
        in = yk_next_item(in, sweep->in_bytes);
        out = yk_next_room(out, sweep->out_bytes);
    }
    yk_task_leave(&task);
    return i - begin;
}

static size_t call_range(struct range *range, size_t begin, size_t end, void *accumulator)
{
    const struct yk_sweep *const sweep = range->sweep;
    struct yoke_task task = task_of(range);
    task.item = begin;
    task.deadline_ns = yk_serial_deadline(sweep->options.timeout_ns);
    yk_task_enter(&task);
    const int32_t code = yk_task_conclude(&task, sweep->range_fn(&task, begin, end, accumulator));
    yk_task_leave(&task);
    if (code != 0) {
        note(range, begin, code);
    }
    return end - begin;
}

static size_t reduce_leaf(struct range *range, size_t begin, size_t end)
{
    const size_t count = range->sweep->count;
    size_t ran = 0;
    for (size_t p = begin; p < end && !skipped(range, p); p++) {
        ran += call_range(range, yk_fixed_begin(count, range->items, p),
                          yk_fixed_begin(count, range->items, p + 1),
                          range->accumulators + p * range->stride);
    }
    return ran;
}

static size_t run_leaf(struct range *range, size_t begin, size_t end)
{
    if (range->sweep->fn != NULL) {
        return map_leaf(range, begin, end);
    }
    return range->accumulators != NULL ? reduce_leaf(range, begin, end)
                                       : call_range(range, begin, end, NULL);
}

/* Larger leaves, if they could be. */
static void learn(struct range *range, size_t items, int64_t took_ns)
{
    const size_t grain = advice(&range->grain);
    if (took_ns < LEAF_NS / 2 && items >= grain && grain < range->coarsest) {
        const size_t next = took_ns < LEAF_NS / 16 ? grain * 8 : grain * 2;
        advise(&range->grain, yk_min(next, range->coarsest));
    } else if (took_ns > 4 * LEAF_NS && grain > 1) {
        advise(&range->grain, grain / 2);
    }
}

static void leaf(struct range *range, size_t begin, size_t end, struct tally *tally)
{
    if (skipped(range, begin)) {
        return;
    }
    const int64_t begin_ns = yk_clock_ns();
    tally->items += run_leaf(range, begin, end);
    tally->leaves++;
    const int64_t took_ns = yk_clock_ns() - begin_ns;
    tally->spent_ns += (uint64_t)took_ns;
    learn(range, end - begin, took_ns);
}

/* --- splitting ------------------------------------------------------------------------------ */

static void half_run(yoke_strand strand, yoke_frame *frame);

static void split(yoke_strand strand, struct range *range, size_t begin, size_t end,
                  struct tally *tally)
{
    struct half right = {.range = range};
    while (end - begin > advice(&range->grain) && !stopped(range)) {
        const size_t middle = begin + (end - begin) / 2;
        right.begin = middle;
        right.end = end;
        yoke_frame_push(&strand, &right.frame, half_run);
        split(strand, range, begin, middle, tally);
        if (!yoke_frame_pop(&strand, &right.frame)) {
            tally->leaves += right.tally.leaves;
            tally->items += right.tally.items;
            tally->spent_ns += right.tally.spent_ns;
            return;
        }
        begin = middle;
    }
    leaf(range, begin, end, tally);
}

static void half_run(yoke_strand strand, yoke_frame *frame)
{
    struct half *const half = (struct half *)(void *)frame;
    struct tally tally = {0};
    split(strand, half->range, half->begin, half->end, &tally);
    half->tally = tally;
}

static void root(yoke_strand strand, void *arg)
{
    struct range *const range = arg;
    split(strand, range, 0, range->items, &range->tally);
}

/* --- reduce --------------------------------------------------------------------------------- */

static int make_accumulators(struct range *range)
{
    const struct yk_sweep *const sweep = range->sweep;
    range->items = yk_fixed_parts(sweep->count, sweep->accumulator_bytes);
    range->stride = yk_round_up(sweep->accumulator_bytes, YK_CACHE_LINE);
    range->accumulators = aligned_alloc(YK_CACHE_LINE, range->items * range->stride);
    if (range->accumulators == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < range->items; i++) {
        memcpy(range->accumulators + i * range->stride, sweep->accumulator,
               sweep->accumulator_bytes);
    }
    return 0;
}

/* From the left, into what the caller gave as the identity. */
static void merge(struct range *range)
{
    const struct yk_sweep *const sweep = range->sweep;
    for (size_t i = 0; i < range->items; i++) {
        sweep->merge(sweep->accumulator, range->accumulators + i * range->stride,
                     sweep->options.user);
    }
}

/* --- the call ------------------------------------------------------------------------------- */

static void prepare_outcomes(const struct yk_sweep *sweep)
{
    for (size_t i = 0; sweep->options.outcomes != NULL && i < sweep->count; i++) {
        sweep->options.outcomes[i] = (yoke_outcome){.kind = YOKE_CANCELLED, .item = i};
    }
}

/* What nobody knows the cost of begins with the smallest leaves. */
static void set_grain(struct range *range, uint64_t cost)
{
    const size_t workers = range->sweep->pool->config.workers;
    const size_t fair = yk_max(range->items / (LEAVES * workers), 1);
    const size_t per_us = cost == 0 ? fair : (size_t)(16000 / cost + 1);
    range->coarsest = yk_max(fair, yk_min(per_us, range->items / (2 * workers)));
    const size_t wanted = cost == 0 ? 1 : (size_t)(16ULL * LEAF_NS / cost + 1);
    atomic_init(&range->grain, yk_min(wanted, range->coarsest));
}

/* It is long, or comes after others that together were. */
static bool is_worth_a_wake(struct yk_team *team, uint64_t total_ns)
{
    const size_t now = (size_t)yk_clock_ns();
    const bool soon = now - advice(&team->last_ns) < WAKE_NS;
    const size_t sum = total_ns + (soon ? advice(&team->sum_ns) : 0);
    const bool worth = sum >= WAKE_NS;
    advise(&team->last_ns, now);
    advise(&team->sum_ns, worth ? 0 : sum);
    return worth;
}

/* In the caller, who tells nobody. Should it turn out to be long, its items count as costly until
 * many measured ones have shown otherwise. */
static void run_short(struct range *range)
{
    const uint64_t begin = yk_ticks();
    if (skipped(range, 0)) {
        return;
    }
    (void)run_leaf(range, 0, range->items);
    if (YK_UNLIKELY(yk_ticks() - begin > SHORT_TICKS)) {
        const uint64_t cost = yk_min(16 * LONG_NS / range->items + 1, UINT32_MAX);
        /* relaxed: as in remember. */
        atomic_store_explicit(hint_of(range->sweep), fn_of(range->sweep) << 32 | cost,
                              memory_order_relaxed);
    }
    range->tally.leaves = 1;
}

static int run(struct range *range)
{
    const struct yk_sweep *const sweep = range->sweep;
    const size_t sum = cost_of_all(sweep);
    const uint64_t cost = sum / range->items;
    const uint64_t total_ns = sum / 16;
    int rc = 0;
    if (cost != 0 && total_ns < SHORT_NS) {
        run_short(range);
    } else {
        set_grain(range, cost);
        rc = yk_fork_run(sweep->pool, root, range, range->cancel,
                         cost != 0 && !is_worth_a_wake(sweep->pool->team, total_ns));
    }
    if (range->tally.items != 0) {
        remember(sweep, range->tally.spent_ns, range->tally.items);
    }
    return rc;
}

static int conclude(struct range *range)
{
    const struct yk_sweep *const sweep = range->sweep;
    if (range->failed && sweep->options.failure != NULL) {
        *sweep->options.failure = range->failure;
    }
    if (yk_cancel_call_cancelled(&range->call)) {
        return -ECANCELED;
    }
    return range->failed ? YOKE_ETASK : 0;
}

int yk_range_run(const struct yk_sweep *sweep)
{
    struct range range = {.sweep = sweep, .items = sweep->count};
    int rc = yk_pool_closed(sweep->pool);
    rc = rc == 0 ? yk_cancel_call_begin(&range.call, &sweep->options) : rc;
    if (rc != 0) {
        return rc;
    }
    range.cancel = range.call.token;
    rc = sweep->merge != NULL ? make_accumulators(&range) : 0;
    if (rc == 0) {
        prepare_outcomes(sweep);
        rc = run(&range);
    }
    rc = rc == 0 ? conclude(&range) : rc;
    if (rc == 0 && sweep->merge != NULL) {
        merge(&range);
    }
    free(range.accumulators);
    yk_cancel_call_end(&range.call);
    yk_pool_count(sweep->pool, range.tally.leaves);
    return rc;
}
