/* SPDX-License-Identifier: MIT
 * test_stepkill_sweeps.c - maps, fors and reduces, their worker killed after every instruction.
 *
 * Idea: one worker, so the first part of a map of ten is five items; it is stepped through, up to
 * the first item of the next part. A kill costs at most the item that ran, those before it stay
 * done, the rest runs elsewhere, and nothing runs more often than its outcome tells.
 */
/* timeout: 600 */
#define CHECK_TIMEOUT 120
#include <pthread.h>

#include "stepkill_copy.h"

enum { ITEMS = 10, FIRST_PART = 5, RANGE_ITEMS = 4, FIRST_RANGE = 2, BAD_ITEM = 2, BAD_CODE = 5 };

/* In shared memory; the context of all. */
struct tally {
    atomic_long starts[ITEMS], ends[ITEMS];
    int fails; /* BAD_ITEM does */
};

enum kind { MAP, FOR, REDUCE };

/* What a kind of sweep is. */
struct sweep {
    enum kind kind;
    int no_outcomes, fails, shared;
    int64_t timeout_ns;
};

struct sweeps {
    struct tally *tally;
    yoke_pool *pool;
    const struct sweep *sweep;
    unsigned retries;
    int64_t *in, *out, sum;
    yoke_outcome outcomes[ITEMS], failure;
    pthread_t caller;
    atomic_long over;
    int rc;
};

/* ---- the bodies ---------------------------------------------------------------------------- */

static int run_item(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = *(struct tally *const *)yoke_task_context(task);
    const size_t item = yoke_task_item(task);
    count_up(&tally->starts[item], 1);
    *(int64_t *)out = *(const int64_t *)in * 3;
    count_up(&tally->ends[item], 1);
    return tally->fails && item == BAD_ITEM ? BAD_CODE : 0;
}

static int run_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    struct tally *tally = *(struct tally *const *)yoke_task_context(task);
    for (size_t i = begin; i < end; i++) {
        count_up(&tally->starts[i], 1);
        if (accumulator)
            *(int64_t *)accumulator += (int64_t)(i + 1) * 7;
        count_up(&tally->ends[i], 1);
    }
    return 0;
}

static void merge(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(int64_t *)accumulator += *(const int64_t *)other;
}

/* ---- begin --------------------------------------------------------------------------------- */

static void *call(void *arg)
{
    struct sweeps *w = arg;
    const struct sweep *sweep = w->sweep;
    const yoke_options options = {.size = sizeof options,
                                  .context = &w->tally,
                                  .context_bytes = sizeof w->tally,
                                  .retries = w->retries,
                                  .timeout_ns = sweep->timeout_ns,
                                  .outcomes = sweep->no_outcomes ? NULL : w->outcomes,
                                  .failure = &w->failure};
    if (sweep->kind == MAP)
        w->rc = yoke_map(w->pool, run_item, w->in, 8, w->out, 8, ITEMS, &options);
    else if (sweep->kind == FOR)
        w->rc = yoke_for(w->pool, run_range, RANGE_ITEMS, &options);
    else
        w->rc = yoke_reduce(w->pool, run_range, merge, RANGE_ITEMS, &w->sum, 8, &options);
    count_set(&w->over, 1);
    return NULL;
}

static void begin(struct stepkill *s)
{
    struct sweeps *w = s->state;
    s->begun++;
    memset(w->tally, 0, sizeof *w->tally);
    memset(w->outcomes, 0xee, sizeof w->outcomes);
    memset(w->out, 0xee, ITEMS * 8);
    w->failure = (yoke_outcome){.kind = -1};
    w->tally->fails = w->sweep->fails;
    w->retries = s->retries;
    w->sum = 0;
    w->rc = 1;
    count_set(&w->over, 0);
    CHECK_EQ(pthread_create(&w->caller, NULL, call, w), 0);
    WAIT_FOR(stats_of(s->pool).in_flight == 3); /* all of its parts */
}

/* The next part has begun; it is like this one. */
static int over(struct stepkill *s)
{
    struct sweeps *w = s->state;
    return count_get(&w->tally->starts[w->sweep->kind == MAP ? FIRST_PART : FIRST_RANGE]) > 0;
}

/* ---- judge --------------------------------------------------------------------------------- */

static void judge_item(struct stepkill *s, size_t i, const yoke_outcome *o)
{
    struct sweeps *w = s->state;
    const long starts = count_get(&w->tally->starts[i]), ends = count_get(&w->tally->ends[i]);
    const int bad = w->sweep->fails && i == BAD_ITEM;
    MUST(o->item == i, "an outcome names its item");
    s->doubled += (unsigned long)(starts > (long)o->attempts);
    MUST(starts <= (long)o->attempts, "I1 an item runs no more often than its outcome tells");
    MUST(o->attempts >= 1 && o->attempts <= s->retries + 1, "I1 no more starts than asked for");
    MUST(ends <= starts, "the counters make sense");
    if (o->kind == YOKE_CRASHED) {
        MUST(s->killed, "I1 crashed is what was killed");
        MUST(s->retries == 0, "I1 an item with a retry left is not lost");
        MUST(o->signal == SIGKILL || s->by_copy, "I1 the signal is told");
        MUST(s->mark > 0, "I2 who was killed before the claim took no item along");
        MUST(i <= FIRST_PART, "I2 an item that had not begun is not lost");
        return;
    }
    MUST(o->kind == (bad ? YOKE_FAILED : YOKE_OK), "I1 an item ends as it returned, or crashed");
    MUST(o->code == (bad ? BAD_CODE : 0), "I3 the code is the item's own");
    MUST(ends >= 1, "I3 a body that returned has ended");
    MUST(bad || w->out[i] == w->in[i] * 3, "I3 the result is complete");
}

/* Without outcomes, those that are not the one failure are like OK. */
static void judge_map(struct stepkill *s)
{
    struct sweeps *w = s->state;
    long crashed = 0;
    size_t first = ITEMS;
    for (size_t i = 0; i < ITEMS; i++) {
        MUST(count_get(&w->tally->starts[i]) <= (long)s->retries + 1, "I1 at most so often");
        if (w->sweep->no_outcomes)
            continue;
        judge_item(s, i, &w->outcomes[i]);
        crashed += w->outcomes[i].kind == YOKE_CRASHED;
        s->innocent += w->outcomes[i].kind == YOKE_CRASHED && !count_get(&w->tally->starts[i]);
        first = first == ITEMS && w->outcomes[i].kind != YOKE_OK ? i : first;
    }
    if (w->sweep->no_outcomes) {
        crashed = w->failure.kind == YOKE_CRASHED;
        first = w->failure.kind != -1 ? w->failure.item : ITEMS;
        MUST(w->rc == 0 || first < ITEMS, "the failure is told");
        MUST(!w->sweep->fails || first <= BAD_ITEM, "the failure is the first");
        MUST(crashed <= s->killed && (!crashed || s->retries == 0), "I1 one crash at most");
    }
    s->crashed += (unsigned long)crashed;
    MUST(crashed <= s->killed, "I1 a kill costs one item at most");
    MUST(w->rc == (first < ITEMS ? YOKE_ETASK : 0), "the call tells whether all went well");
    MUST(first == ITEMS || w->failure.item == first, "the failure is the first one");
}

static void judge_range(struct stepkill *s)
{
    struct sweeps *w = s->state;
    const int reduce = w->sweep->kind == REDUCE;
    int64_t sum = 0;
    for (size_t i = 0; i < RANGE_ITEMS; i++) {
        const long starts = count_get(&w->tally->starts[i]);
        MUST(starts <= (long)s->retries + 1, "I1 a range runs no more often than asked for");
        MUST(w->rc != 0 || count_get(&w->tally->ends[i]) >= 1, "I3 done means that it ran");
        sum += (int64_t)(i + 1) * 7;
    }
    if (w->rc == 0) {
        MUST(!reduce || w->sum == sum, "I3 each part is in the sum, once");
        return;
    }
    s->crashed++;
    s->innocent += count_get(&w->tally->starts[0]) == 0;
    MUST(w->rc == YOKE_ETASK, "the call tells that a range was lost");
    MUST(s->killed && s->retries == 0, "I1 only a kill costs a range, and no retry was left");
    MUST(s->mark > 0, "I2 who was killed before the claim took no range along");
    MUST(w->failure.kind == YOKE_CRASHED && w->failure.signal == SIGKILL, "I1 the failure is told");
    MUST(w->failure.item <= FIRST_RANGE, "I2 a range that had not begun is not lost");
    MUST(w->sum == 0, "nothing is half done");
}

static void judge(struct stepkill *s)
{
    struct sweeps *w = s->state;
    stepkill_join(s, w->caller, &w->over);
    if (w->sweep->kind == MAP)
        judge_map(s);
    else
        judge_range(s);
    MUST(s->killed || w->rc == (w->sweep->fails ? YOKE_ETASK : 0), "I1 unharmed, all is well");
    long starts = 0, later = 0;
    for (size_t i = 0; i < ITEMS; i++)
        starts += count_get(&w->tally->starts[i]);
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    for (size_t i = 0; i < ITEMS; i++)
        later += count_get(&w->tally->starts[i]);
    MUST(later == starts, "I1 nothing runs after the end");
    MUST(count_blocks() == s->blocks, "I6 no block of the heap is lost");
}

/* ---- the scenes ---------------------------------------------------------------------------- */

static void run_sweep(const char *name, const struct sweep *sweep)
{
    const uintptr_t body = sweep->kind == MAP ? (uintptr_t)run_item : (uintptr_t)run_range;
    const struct stepkill_mark marks[] = {STEPKILL_MARK(yk_worker_run),
                                          {"the body", body},
                                          STEPKILL_MARK(yk_table_complete),
                                          STEPKILL_MARK(yk_futex_wait),
                                          {NULL, 0}};
    const struct stepkill_scene scene = {
        .name = name, .marks = marks, .begin = begin, .over = over, .judge = judge};
    static int64_t in[ITEMS], out[ITEMS];
    struct sweeps sweeps = {
        .tally = shared_zeroed(sizeof(struct tally)), .sweep = sweep, .in = in, .out = out};
    if (sweep->shared) {
        sweeps.in = shared_zeroed(sizeof in);
        sweeps.out = shared_zeroed(sizeof out);
    }
    for (int i = 0; i < ITEMS; i++)
        sweeps.in[i] = i + 100;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    unsigned long kills = 0;
    for (unsigned retries = 0; retries <= 1; retries++) {
        struct stepkill s = {.scene = &scene,
                             .pool = pool,
                             .retries = retries,
                             .state = &sweeps,
                             .kills = kills,
                             .stride = retries ? 7 : 2};
        sweeps.pool = pool;
        stepkill_scene_run(&s);
        kills = s.kills;
        MUST(s.crashed > 0 || retries, "some points cost an item");
    }
    end_pool(pool);
    if (sweep->shared) {
        yoke_shared_free(sweeps.in);
        yoke_shared_free(sweeps.out);
    }
    yoke_shared_free(sweeps.tally);
}

static void map_with_outcomes(void)
{
    run_sweep("map", &(struct sweep){.kind = MAP});
}

static void map_of_shared_arrays(void)
{
    run_sweep("map of shared arrays, an item fails",
              &(struct sweep){.kind = MAP, .fails = 1, .shared = 1});
}

static void map_without_outcomes(void)
{
    run_sweep("map without outcomes, an item fails",
              &(struct sweep){.kind = MAP, .fails = 1, .no_outcomes = 1});
}

static void map_with_a_timeout(void)
{
    run_sweep("map with a timeout", &(struct sweep){.kind = MAP, .timeout_ns = 600000000000});
}

static void a_range_of_a_for(void)
{
    run_sweep("for", &(struct sweep){.kind = FOR});
}

static void a_range_of_a_reduce(void)
{
    run_sweep("reduce", &(struct sweep){.kind = REDUCE});
}

/* The program's recovery of a part of a map, cut off too; the worker dies with an item. */
static void recovery_of_a_part(void)
{
    const struct stepkill_mark marks[] = {STEPKILL_MARK(yk_worker_run),
                                          STEPKILL_MARK(run_item),
                                          STEPKILL_MARK(run_item),
                                          STEPKILL_MARK(yk_table_complete),
                                          {NULL, 0}};
    const struct stepkill_scene scene = {
        .name = "recovery: a part of a map", .marks = marks, .begin = begin, .judge = judge};
    static int64_t in[ITEMS], out[ITEMS];
    struct sweeps sweeps = {.tally = shared_zeroed(sizeof(struct tally)),
                            .pool = make_pool(YOKE_PROCESSES, 1),
                            .sweep = &(struct sweep){.kind = MAP},
                            .in = in,
                            .out = out};
    unsigned long kills = 0;
    for (int i = 0; i < ITEMS; i++)
        in[i] = i + 100;
    for (unsigned retries = 0; retries <= 1; retries++) {
        struct stepkill s = {.scene = &scene,
                             .pool = sweeps.pool,
                             .retries = retries,
                             .state = &sweeps,
                             .kills = kills,
                             .stride = 11};
        stepkill_recovery_run(&s, (struct stepkill_death){.mark = 3, .steps = 9});
        kills = s.kills;
    }
    end_pool(sweeps.pool);
    yoke_shared_free(sweeps.tally);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    end_pool(make_pool(YOKE_PROCESSES, 1));
    const struct usage before = usage_now();
    RUN(map_with_outcomes);
    RUN(map_of_shared_arrays);
    RUN(map_without_outcomes);
    RUN(map_with_a_timeout);
    RUN(a_range_of_a_for);
    RUN(a_range_of_a_reduce);
    RUN(recovery_of_a_part);
    usage_check(before, 20);
    stepkill_summary();
    return 0;
}
