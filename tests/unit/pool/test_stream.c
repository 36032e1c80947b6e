/* SPDX-License-Identifier: MIT
 * test_stream.c - streams: every item ends once and is delivered once, in its order, on all kinds.
 *
 * Idea: one scene for all: next numbers its items, done sees that it gets each of them once, with
 * the right input and result; what a scene is about are a few numbers in it.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

enum { PLAIN = 2000 };

struct scene {
    yoke_pool *pool;
    size_t count, window;
    size_t in_bytes, out_bytes; /* 0, or 8 and up */
    int unordered;
    size_t fails_each; /* each how-manieth item fails, with the code 3 */
    /* how it goes */
    size_t given, delivered, most_between;
    size_t failed, cancelled;
    unsigned char *seen;
    pthread_t caller;
    int in_turn; /* next or done runs */
    /* stops */
    size_t next_stops_at, done_stops_at;
    int stop_code;
};

static int64_t value_of(size_t item)
{
    return (int64_t)(item * 7 + 1);
}

static int next_number(void *user, size_t item, void *in)
{
    struct scene *s = user;
    CHECK(pthread_equal(s->caller, pthread_self()));
    CHECK_EQ(s->in_turn++, 0);
    CHECK_EQ(item, s->given);
    CHECK((in != NULL) == (s->in_bytes != 0));
    s->in_turn--;
    if (s->next_stops_at && item == s->next_stops_at)
        return s->stop_code;
    if (item == s->count)
        return 0;
    for (size_t i = 0; i < s->in_bytes / 8; i++)
        ((int64_t *)in)[i] = value_of(item);
    s->given++;
    if (s->given - s->delivered > s->most_between)
        s->most_between = s->given - s->delivered;
    return 1;
}

static int take_number(void *user, const yoke_outcome *outcome, const void *in, const void *out,
                       size_t out_bytes)
{
    struct scene *s = user;
    const size_t item = outcome->item;
    const int fails = s->fails_each && item % s->fails_each == 0;
    CHECK(pthread_equal(s->caller, pthread_self()));
    CHECK_EQ(s->in_turn++, 0);
    CHECK(item < s->given);
    CHECK_EQ(s->seen[item]++, 0);
    CHECK(s->unordered || item == s->delivered);
    CHECK((in != NULL) == (s->in_bytes != 0));
    for (size_t i = 0; i < s->in_bytes / 8; i++)
        CHECK_EQ(((const int64_t *)in)[i], value_of(item));
    s->delivered++;
    s->in_turn--;
    if (outcome->kind == YOKE_CANCELLED) {
        CHECK(s->stop_code != 0);
        CHECK_EQ(outcome->attempts, 0);
        CHECK(out == NULL && out_bytes == 0);
        s->cancelled++;
        return 1;
    }
    CHECK_EQ(outcome->kind, fails ? YOKE_FAILED : YOKE_OK);
    CHECK_EQ(outcome->code, fails ? 3 : 0);
    CHECK_EQ(outcome->attempts, 1);
    CHECK_EQ(outcome->signal, 0);
    s->failed += (size_t)fails;
    CHECK_EQ(out_bytes, s->out_bytes);
    CHECK((out != NULL) == (s->out_bytes != 0));
    for (size_t i = 0; i < s->out_bytes / 8 && s->in_bytes && !fails; i++)
        CHECK_EQ(((const int64_t *)out)[i], 3 * value_of(item));
    return s->done_stops_at && item == s->done_stops_at ? s->stop_code : 0;
}

static int triple(yoke_task *task, const void *in, void *out)
{
    const struct scene *s = yoke_task_context(task);
    if (s->fails_each && yoke_task_item(task) % s->fails_each == 0)
        return 3;
    for (size_t i = 0; i < s->out_bytes / 8 && s->in_bytes; i++)
        ((int64_t *)out)[i] = 3 * ((const int64_t *)in)[i % (s->in_bytes / 8)];
    return 0;
}

static yoke_stream_config config_of(struct scene *s)
{
    return (yoke_stream_config){.size = sizeof(yoke_stream_config),
                                .in_bytes = s->in_bytes,
                                .out_bytes = s->out_bytes,
                                .window = s->window,
                                .unordered = s->unordered,
                                .next = next_number,
                                .done = take_number,
                                .user = s};
}

static unsigned in_flight(yoke_pool *pool)
{
    const yoke_pool_stats stats = stats_of(pool);
    return stats.in_flight;
}

static int run_scene(struct scene *s, yoke_outcome *failure)
{
    const yoke_stream_config config = config_of(s);
    const yoke_options options = {
        .size = sizeof options, .context = s, .context_bytes = sizeof *s, .failure = failure};
    s->seen = calloc(s->count + 1, 1);
    s->caller = pthread_self();
    CHECK(s->seen != NULL);
    const int rc = yoke_map_stream(s->pool, triple, &config, &options);
    CHECK_EQ(s->delivered, s->given);
    for (size_t i = 0; i < s->given; i++)
        CHECK_EQ(s->seen[i], 1);
    if (s->window)
        CHECK(s->most_between <= s->window);
    CHECK_EQ(in_flight(s->pool), 0);
    free(s->seen);
    return rc;
}

static void each_item_is_delivered_once_in_order(void)
{
    static const size_t windows[] = {0, 1, 2, 7, 100, 1000000};
    static const size_t bytes[] = {8, 0, 24, 4000};
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (size_t i = 0; i < 24; i++) {
            struct scene s = {.pool = pool,
                              .count = PLAIN + i,
                              .window = windows[i % 6],
                              .in_bytes = bytes[i % 4],
                              .out_bytes = bytes[i / 4 % 4],
                              .unordered = i % 5 == 4};
            CHECK_RC(run_scene(&s, NULL), 0);
            CHECK_EQ(s.given, s.count);
        }
        end_pool(pool);
    }
}

static void no_items_and_one_item(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (size_t count = 0; count < 2; count++) {
            struct scene s = {.pool = pool, .count = count, .in_bytes = 8, .out_bytes = 8};
            CHECK_RC(run_scene(&s, NULL), 0);
            CHECK_EQ(s.delivered, count);
        }
        end_pool(pool);
    }
}

static void failures_are_told(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (int unordered = 0; unordered < 2; unordered++) {
            struct scene s = {.pool = pool,
                              .count = 7000,
                              .in_bytes = 8,
                              .out_bytes = 8,
                              .unordered = unordered,
                              .fails_each = 100};
            yoke_outcome failure = {.item = 99};
            CHECK_RC(run_scene(&s, &failure), YOKE_ETASK);
            CHECK_EQ(s.failed, 70);
            CHECK_EQ(failure.item, 0);
            CHECK_EQ(failure.kind, YOKE_FAILED);
            CHECK_EQ(failure.code, 3);
        }
        end_pool(pool);
    }
}

static void stopped_by_next_or_done_all_is_accounted_for(void)
{
    static const int codes[] = {-EIO, 17, -ECANCELED, YOKE_ETASK};
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (size_t i = 0; i < 16; i++) {
            struct scene s = {.pool = pool,
                              .count = SIZE_MAX,
                              .in_bytes = 8,
                              .out_bytes = 8,
                              .unordered = i % 4 / 2,
                              .next_stops_at = i % 2 ? 0 : 5 + 333 * (i / 2),
                              .done_stops_at = i % 2 ? 5 + 333 * (i / 2) : 0,
                              .stop_code = codes[i % 4]};
            s.count = 1000000; /* of which few are asked for */
            CHECK_RC(run_scene(&s, NULL), s.stop_code);
            CHECK(s.given >= 5 && s.given < s.count);
        }
        check_pool_works(pool);
        end_pool(pool);
    }
}

/* ---- memory ------------------------------------------------------------------------------- */

struct gate {
    atomic_long open, begun;
};

struct held {
    struct scene scene; /* first: what next and done see */
    struct gate *gate;
    size_t expect;
};

static int wait_at_first(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)yoke_task_context(task);
    const int64_t until = soon();
    count_up(&gate->begun, 1);
    while (yoke_task_item(task) == 0 && !count_get(&gate->open) && yoke_now_ns() < until)
        breathe();
    *(int64_t *)out = 3 * *(const int64_t *)in;
    return 0;
}

/* Opens the gate when as much is under way as will ever be. */
static int fill_the_window(void *user, const size_t item, void *in)
{
    struct held *held = user;
    if (item + 1 == held->expect)
        count_set(&held->gate->open, 1);
    return next_number(&held->scene, item, in);
}

static void the_window_bounds_what_waits_for_its_turn(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 2);
        struct held held = {
            .scene = {.pool = pool, .count = 20000, .window = 600, .in_bytes = 8, .out_bytes = 8},
            .gate = shared_zeroed(sizeof(struct gate))};
        struct scene *s = &held.scene;
        held.expect = s->window * 3 / 4; /* the last part may not fit */
        yoke_stream_config config = config_of(s);
        config.next = fill_the_window;
        const yoke_options options = {
            .size = sizeof options, .context = &held.gate, .context_bytes = sizeof held.gate};
        s->seen = calloc(s->count, 1);
        s->caller = pthread_self();
        config.user = &held;
        CHECK_RC(yoke_map_stream(pool, wait_at_first, &config, &options), 0);
        CHECK_EQ(s->delivered, s->count);
        CHECK(s->most_between <= s->window && s->most_between >= held.expect);
        CHECK_EQ(count_get(&held.gate->begun), s->count);
        free(s->seen);
        yoke_shared_free(held.gate);
        end_pool(pool);
    }
}

struct count_only {
    size_t count, done;
    int64_t sum;
    long rss_max;
    size_t heap_max;
};

static int next_index(void *user, size_t item, void *in)
{
    *(int64_t *)in = (int64_t)item;
    return item < ((struct count_only *)user)->count;
}

static int add_up(void *user, const yoke_outcome *outcome, const void *in, const void *out,
                  size_t out_bytes)
{
    struct count_only *c = user;
    (void)in, (void)out_bytes;
    CHECK_EQ(outcome->kind, YOKE_OK);
    c->sum += *(const int64_t *)out;
    if (c->done++ % 8192 == 0) {
        yoke_heap_stats stats = {.size = sizeof stats};
        CHECK_RC(yoke_heap_stats_get(&stats), 0);
        c->heap_max = stats.reserved_bytes > c->heap_max ? stats.reserved_bytes : c->heap_max;
        const long rss = count_rss_kib();
        c->rss_max = rss > c->rss_max ? rss : c->rss_max;
    }
    return 0;
}

static int double_it(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(int64_t *)out = 2 * *(const int64_t *)in;
    return 0;
}

static struct count_only count_items(yoke_pool *pool, size_t count)
{
    struct count_only c = {.count = count};
    const yoke_stream_config config = {.size = sizeof config,
                                       .in_bytes = 8,
                                       .out_bytes = 8,
                                       .next = next_index,
                                       .done = add_up,
                                       .user = &c};
    CHECK_RC(yoke_map_stream(pool, double_it, &config, NULL), 0);
    CHECK_EQ(c.done, count);
    CHECK_EQ(c.sum, (int64_t)(count * (count - 1)));
    return c;
}

static void a_long_stream_needs_no_more_memory(void)
{
    const size_t many = check_slowness() > 1 ? 300000 : 3000000;
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        count_items(pool, 100000);
        const struct count_only few = count_items(pool, 100000);
        const struct count_only lots = count_items(pool, many);
        CHECK(lots.heap_max <= few.heap_max + (2U << 20));
        if (check_slowness() == 1)
            CHECK(lots.rss_max <= few.rss_max + 4096);
        end_pool(pool);
    }
}

/* ---- results of any size ------------------------------------------------------------------ */

struct texts {
    size_t count, taken, out_bytes;
};

static size_t size_of_text(size_t item)
{
    return item % 5 == 4 ? 0 : item * 37 % 3000 + 1;
}

static int make_text(yoke_task *task, const void *in, void *out)
{
    const size_t item = *(const size_t *)in, bytes = size_of_text(item);
    (void)out;
    if (bytes == 0)
        return 0;
    if (item % 3 == 0 && !yoke_task_result(task, 5000)) /* replaced below */
        return 1;
    unsigned char *text = yoke_task_result(task, bytes);
    if (!text)
        return 2;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] != 0)
            return 3;
    }
    memset(text, (int)(item % 251), bytes);
    return 0;
}

static int next_text(void *user, size_t item, void *in)
{
    *(size_t *)in = item;
    return item < ((struct texts *)user)->count;
}

static int take_text(void *user, const yoke_outcome *outcome, const void *in, const void *out,
                     size_t out_bytes)
{
    struct texts *texts = user;
    const size_t item = *(const size_t *)in, bytes = size_of_text(item);
    CHECK_EQ(outcome->kind, YOKE_OK);
    CHECK_EQ(item, texts->taken);
    CHECK_EQ(out_bytes, bytes ? bytes : texts->out_bytes);
    CHECK((out != NULL) == (out_bytes != 0));
    for (size_t i = 0; i < bytes; i++)
        CHECK_EQ(((const unsigned char *)out)[i], item % 251);
    texts->taken++;
    return 0;
}

static void results_of_any_size_arrive(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        const size_t blocks = count_blocks();
        for (size_t out_bytes = 0; out_bytes <= 16; out_bytes += 8) {
            struct texts texts = {.count = 5000, .out_bytes = out_bytes};
            const yoke_stream_config config = {.size = sizeof config,
                                               .in_bytes = sizeof(size_t),
                                               .out_bytes = out_bytes,
                                               .next = next_text,
                                               .done = take_text,
                                               .user = &texts};
            CHECK_RC(yoke_map_stream(pool, make_text, &config, NULL), 0);
            CHECK_EQ(texts.taken, texts.count);
        }
        CHECK_EQ(count_blocks(), blocks);
        end_pool(pool);
    }
}

static int no_result(yoke_task *task, const void *in, void *out)
{
    (void)in, (void)out;
    return yoke_task_result(task, 8) != NULL;
}

static void a_map_still_has_no_place_for_results(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        CHECK_RC(yoke_map(pool, no_result, NULL, 0, NULL, 0, 100, NULL), 0);
        end_pool(pool);
    }
}

/* ---- what makes no sense ------------------------------------------------------------------ */

static void bad_arguments_are_refused(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 1);
        struct scene s = {.pool = pool, .count = 3, .in_bytes = 8, .out_bytes = 8};
        const yoke_stream_config good = config_of(&s);
        yoke_stream_config bad = good;
        const yoke_options late = {.size = sizeof late, .timeout_ns = -1};
        CHECK_RC(yoke_map_stream(NULL, triple, &good, NULL), -EINVAL);
        CHECK_RC(yoke_map_stream(pool, NULL, &good, NULL), -EINVAL);
        CHECK_RC(yoke_map_stream(pool, triple, NULL, NULL), -EINVAL);
        CHECK_RC(yoke_map_stream(pool, triple, &good, &late), -EINVAL);
        bad.size = 0;
        CHECK_RC(yoke_map_stream(pool, triple, &bad, NULL), -EINVAL);
        bad = good;
        bad.next = NULL;
        CHECK_RC(yoke_map_stream(pool, triple, &bad, NULL), -EINVAL);
        bad = good;
        bad.in_bytes = ((size_t)1 << 30) + 1;
        CHECK_RC(yoke_map_stream(pool, triple, &bad, NULL), -EINVAL);
        bad = good;
        bad.out_bytes = SIZE_MAX;
        CHECK_RC(yoke_map_stream(pool, triple, &bad, NULL), -EINVAL);
        CHECK_EQ(s.given, 0);
        struct {
            yoke_stream_config now;
            size_t later;
        } future = {.now = good, .later = 1};
        future.now.size = sizeof future;
        CHECK_RC(yoke_map_stream(pool, triple, &future.now, NULL), YOKE_EVERSION);
        end_pool(pool);
    }
}

static int next_of_ten(void *user, size_t item, void *in)
{
    (void)user;
    *(int64_t *)in = (int64_t)item;
    return item < 10;
}

static void nobody_has_to_take_the_items(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct gate *gate = shared_zeroed(sizeof *gate);
        const yoke_stream_config config = {
            .size = sizeof config, .in_bytes = 8, .out_bytes = 8, .next = next_of_ten};
        const yoke_options options = {
            .size = sizeof options, .context = &gate, .context_bytes = sizeof gate};
        count_set(&gate->open, 1);
        CHECK_RC(yoke_map_stream(pool, wait_at_first, &config, &options), 0);
        CHECK_EQ(count_get(&gate->begun), 10);
        yoke_shared_free(gate);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    FOR_EACH_KIND(kind)
    {
        end_pool(make_pool(kind, 1));
    }
    yoke_shared_free(shared_zeroed(8)); /* the heap has a descriptor */
    const struct usage before = usage_now();
    RUN(each_item_is_delivered_once_in_order);
    RUN(no_items_and_one_item);
    RUN(failures_are_told);
    RUN(stopped_by_next_or_done_all_is_accounted_for);
    RUN(the_window_bounds_what_waits_for_its_turn);
    RUN(a_long_stream_needs_no_more_memory);
    RUN(results_of_any_size_arrive);
    RUN(a_map_still_has_no_place_for_results);
    RUN(bad_arguments_are_refused);
    RUN(nobody_has_to_take_the_items);
    usage_check(before, 20);
    return 0;
}
