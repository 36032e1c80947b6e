/* SPDX-License-Identifier: MIT
 * test_stepkill_streams.c - streams whose items make results, the worker killed after every
 * instruction.
 *
 * Idea: the first part of a stream is one item; it is stepped through, up to the item after it. A
 * kill costs that item at most, and the block it makes is, at each instant, named by somebody, and
 * given back once.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 120
#include <pthread.h>

#include "stepkill.h"

enum { ITEMS = 4, SMALL = 48, LARGE = 100000 };

/* In shared memory; the context of all. */
struct tally {
    atomic_long starts[ITEMS];
    size_t bytes;
    int twice; /* the first result is replaced */
};

struct streams {
    struct tally *tally;
    yoke_pool *pool;
    size_t bytes;
    int twice;
    unsigned retries;
    yoke_outcome outcomes[ITEMS];
    int told[ITEMS], wrong;
    pthread_t caller;
    atomic_long over;
    int rc;
};

static int run_item(yoke_task *task, const void *in, void *out)
{
    struct tally *tally = *(struct tally *const *)yoke_task_context(task);
    (void)out;
    count_up(&tally->starts[yoke_task_item(task)], 1);
    unsigned char *result = yoke_task_result(task, tally->bytes);
    if (result && tally->twice)
        result = yoke_task_result(task, tally->bytes);
    if (!result)
        return 9;
    result[0] = result[tally->bytes - 1] = (unsigned char)(*(const int64_t *)in + 1);
    return 0;
}

static int next(void *user, size_t item, void *in)
{
    (void)user;
    *(int64_t *)in = (int64_t)item;
    return item < ITEMS;
}

static int done(void *user, const yoke_outcome *outcome, const void *in, const void *out,
                size_t out_bytes)
{
    struct streams *w = user;
    const unsigned char *result = out;
    const unsigned char right = (unsigned char)(*(const int64_t *)in + 1);
    w->told[outcome->item]++;
    w->outcomes[outcome->item] = *outcome;
    if (outcome->kind == YOKE_OK)
        w->wrong += out_bytes != w->bytes || result[0] != right || result[w->bytes - 1] != right;
    else
        w->wrong += out != NULL || out_bytes != 0;
    return 0;
}

static void *call(void *arg)
{
    struct streams *w = arg;
    const yoke_stream_config config = {
        .size = sizeof config, .in_bytes = 8, .next = next, .done = done, .user = w};
    const yoke_options options = {.size = sizeof options,
                                  .context = &w->tally,
                                  .context_bytes = sizeof w->tally,
                                  .retries = w->retries};
    w->rc = yoke_map_stream(w->pool, run_item, &config, &options);
    count_set(&w->over, 1);
    return NULL;
}

static void begin(struct stepkill *s)
{
    struct streams *w = s->state;
    s->begun++;
    memset(w->tally, 0, sizeof *w->tally);
    memset(w->told, 0, sizeof w->told);
    w->tally->bytes = w->bytes;
    w->tally->twice = w->twice;
    w->retries = s->retries;
    w->wrong = 0;
    w->rc = 1;
    count_set(&w->over, 0);
    CHECK_EQ(pthread_create(&w->caller, NULL, call, w), 0);
    WAIT_FOR(stats_of(s->pool).in_flight == 3); /* all of its parts */
}

/* The next part has begun; it is like this one. */
static int over(struct stepkill *s)
{
    struct streams *w = s->state;
    return count_get(&w->tally->starts[1]) > 0;
}

static void judge_item(struct stepkill *s, size_t i)
{
    struct streams *w = s->state;
    const yoke_outcome *o = &w->outcomes[i];
    const long starts = count_get(&w->tally->starts[i]);
    MUST(w->told[i] == 1, "I1 each item is delivered once");
    s->doubled += (unsigned long)(starts > (long)o->attempts);
    MUST(starts <= (long)o->attempts, "I1 an item runs no more often than its outcome tells");
    MUST(o->attempts >= 1 && o->attempts <= s->retries + 1, "I1 no more starts than asked for");
    if (o->kind == YOKE_CRASHED) {
        s->crashed++;
        s->innocent += starts == 0;
        MUST(s->killed && s->retries == 0, "I1 crashed is what was killed, with no retry left");
        MUST(i <= 1 && s->mark > 0, "I2 an item that had not begun is not lost");
        return;
    }
    MUST(o->kind == YOKE_OK && starts >= 1, "I1 an item ends as it returned, or crashed");
}

static void judge(struct stepkill *s)
{
    struct streams *w = s->state;
    const unsigned long crashed = s->crashed;
    stepkill_join(s, w->caller, &w->over);
    for (size_t i = 0; i < ITEMS; i++)
        judge_item(s, i);
    MUST(s->crashed - crashed <= (unsigned long)s->killed, "I1 a kill costs one item at most");
    MUST(w->wrong == 0, "I3 the results are complete");
    MUST(w->rc == (s->crashed > crashed ? YOKE_ETASK : 0), "the call tells how it went");
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    MUST(count_blocks() == s->blocks, "I6 no block of the heap is lost");
}

static void run_stream(const char *name, size_t bytes, int twice)
{
    const struct stepkill_mark marks[] = {
        STEPKILL_MARK(yk_worker_run),       STEPKILL_MARK(run_item),
        STEPKILL_MARK(yk_heap_alloc_noted), STEPKILL_MARK(yk_table_complete),
        STEPKILL_MARK(yk_futex_wait),       {NULL, 0}};
    const struct stepkill_scene scene = {
        .name = name, .marks = marks, .begin = begin, .over = over, .judge = judge};
    struct streams streams = {
        .tally = shared_zeroed(sizeof(struct tally)), .bytes = bytes, .twice = twice};
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    unsigned long kills = 0;
    for (unsigned retries = 0; retries <= 1; retries++) {
        struct stepkill s = {.scene = &scene,
                             .pool = pool,
                             .retries = retries,
                             .state = &streams,
                             .kills = kills,
                             .stride = retries || twice ? 3 : 1};
        streams.pool = pool;
        stepkill_scene_run(&s);
        kills = s.kills;
        MUST(s.crashed > 0 || retries, "some points cost an item");
    }
    end_pool(pool);
    yoke_shared_free(streams.tally);
}

static void a_small_result(void)
{
    run_stream("stream, a small result", SMALL, 0);
}

static void a_large_result(void)
{
    run_stream("stream, a large result", LARGE, 0);
}

static void a_result_that_is_replaced(void)
{
    run_stream("stream, a result that is replaced", SMALL, 1);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    end_pool(make_pool(YOKE_PROCESSES, 1));
    const struct usage before = usage_now();
    RUN(a_small_result);
    RUN(a_large_result);
    RUN(a_result_that_is_replaced);
    usage_check(before, 20);
    stepkill_summary();
    return 0;
}
