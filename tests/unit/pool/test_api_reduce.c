/* SPDX-License-Identifier: MIT
 * test_api_reduce.c - yoke_for and yoke_reduce on every kind of pool.
 *
 * Idea: ranges tile 0 to count - 1, each item once; parts are merged from the left, so that a
 * fold that does not commute shows any other order; the same pool gives the same bits.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

static int mark(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    atomic_long *marks = (atomic_long *)(uintptr_t)yoke_task_context(task);
    if (accumulator || begin >= end)
        return 1;
    for (size_t i = begin; i < end; i++)
        count_up(marks + i, 1);
    return 0;
}

static void a_for_visits_each_item_once(void)
{
    static const size_t counts[] = {0, 1, 2, 3, 17, 1000, 30011};
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            atomic_long *marks = shared_zeroed((counts[c] + 1) * sizeof *marks);
            const yoke_options options = {.size = sizeof options, .context = marks};
            CHECK_RC(yoke_for(pool, mark, counts[c], &options), 0);
            for (size_t i = 0; i < counts[c]; i++)
                CHECK_EQ(count_get(marks + i), 1);
            CHECK_EQ(count_get(marks + counts[c]), 0);
            yoke_shared_free(marks);
        }
        end_pool(pool);
    }
}

static int fail_at_100(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    atomic_long *first = (atomic_long *)(uintptr_t)yoke_task_context(task);
    (void)accumulator;
    if (begin > 100 || end <= 100)
        return 0;
    count_set(first, (long)begin);
    return 42;
}

static void a_failed_range_is_the_failure(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *first = shared_zeroed(sizeof *first);
        yoke_outcome failure;
        memset(&failure, 0xee, sizeof failure);
        const yoke_options options = {
            .size = sizeof options, .context = first, .failure = &failure};
        CHECK_RC(yoke_for(pool, fail_at_100, 5000, &options), YOKE_ETASK);
        CHECK_EQ(failure.kind, YOKE_FAILED);
        CHECK_EQ(failure.code, 42);
        CHECK_EQ(failure.item, count_get(first));
        CHECK_EQ(failure.attempts, 1);
        yoke_shared_free(first);
        end_pool(pool);
    }
}

static int add(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    for (size_t i = begin; i < end; i++)
        *(uint64_t *)accumulator += i * i;
    return 0;
}

static void merge_add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static void a_sum_is_the_sum(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        static const size_t counts[] = {0, 1, 2, 3, 999, 100003};
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            uint64_t want = 0, sum = 0;
            for (size_t i = 0; i < counts[c]; i++)
                want += i * i;
            CHECK_RC(yoke_reduce(pool, add, merge_add, counts[c], &sum, sizeof sum, NULL), 0);
            CHECK(sum == want);
        }
        end_pool(pool);
    }
}

/* x -> a * x + b: composing such maps does not commute. */
struct affine {
    uint64_t a, b;
};

static struct affine then(struct affine first, struct affine second)
{
    return (struct affine){first.a * second.a, first.b * second.a + second.b};
}

static int compose(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    struct affine *whole = accumulator;
    (void)task;
    for (size_t i = begin; i < end; i++)
        *whole = then(*whole, (struct affine){2 * i + 3, i});
    return 0;
}

struct merges {
    pthread_t caller;
    int calls, strangers;
};

static void merge_compose(void *accumulator, const void *other, void *user)
{
    struct affine *whole = accumulator;
    struct merges *merges = user;
    *whole = then(*whole, *(const struct affine *)other);
    merges->calls++;
    merges->strangers += !pthread_equal(merges->caller, pthread_self());
}

static void parts_are_merged_in_order_by_the_caller(void)
{
    enum { N = 20001 };
    struct affine want = {1, 0};
    for (size_t i = 0; i < N; i++)
        want = then(want, (struct affine){2 * i + 3, i});
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 4);
        for (int round = 0; round < 20; round++) {
            struct affine whole = {1, 0};
            struct merges merges = {.caller = pthread_self()};
            const yoke_options options = {.size = sizeof options, .user = &merges};
            CHECK_RC(yoke_reduce(pool, compose, merge_compose, N, &whole, sizeof whole, &options),
                     0);
            CHECK(whole.a == want.a && whole.b == want.b);
            CHECK_EQ(merges.strangers, 0);
            CHECK(kind == YOKE_SERIAL || merges.calls >= 1);
        }
        end_pool(pool);
    }
}

/* Sums whose bits depend on where the cuts are. */
static int add_floats(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    double *sum = accumulator;
    (void)task;
    for (size_t i = begin; i < end; i++) {
        uint64_t state = i;
        *sum += (double)random_next(&state) / (double)(1 + i % 1000003);
    }
    return 0;
}

static void merge_floats(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(double *)accumulator += *(const double *)other;
}

static uint64_t float_bits(yoke_pool *pool, size_t count, unsigned deterministic)
{
    const yoke_options options = {.size = sizeof options, .deterministic = deterministic};
    double sum = 0;
    uint64_t bits;
    CHECK_RC(yoke_reduce(pool, add_floats, merge_floats, count, &sum, sizeof sum, &options), 0);
    memcpy(&bits, &sum, sizeof bits);
    return bits;
}

static void the_same_pool_gives_the_same_bits(void)
{
    enum { N = 50021 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        const uint64_t first = float_bits(pool, N, 0);
        for (int round = 0; round < 25; round++)
            CHECK(float_bits(pool, N, 0) == first);
        end_pool(pool);
    }
}

static void all_pools_give_the_same_bits_on_request(void)
{
    static const size_t counts[] = {1, 2, 255, 256, 257, 511, 1000, 50021};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        uint64_t first = 0;
        FOR_EACH_KIND(kind)
        {
            for (unsigned workers = 1; workers <= 4; workers += 3) {
                yoke_pool *pool = make_pool(kind, workers);
                const uint64_t bits = float_bits(pool, counts[i], 1);
                first = first == 0 ? bits : first;
                CHECK(bits == first);
                end_pool(pool);
            }
        }
    }
}

enum { BINS = 5000 };

static int fill_bins(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    uint32_t *bins = accumulator;
    (void)task;
    for (size_t i = begin; i < end; i++)
        bins[i % BINS] += (uint32_t)i;
    return 0;
}

static void merge_bins(void *accumulator, const void *other, void *user)
{
    uint32_t *bins = accumulator;
    const uint32_t *more = other;
    (void)user;
    for (int i = 0; i < BINS; i++)
        bins[i] += more[i];
}

static void accumulators_may_be_big(void)
{
    enum { N = 40009 };
    static uint32_t want[BINS];
    memset(want, 0, sizeof want);
    for (size_t i = 0; i < N; i++)
        want[i % BINS] += (uint32_t)i;
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        uint32_t *bins = calloc(BINS, sizeof *bins);
        CHECK(bins != NULL);
        CHECK_RC(yoke_reduce(pool, fill_bins, merge_bins, N, bins, BINS * sizeof *bins, NULL), 0);
        CHECK(memcmp(bins, want, sizeof want) == 0);
        free(bins);
        end_pool(pool);
    }
}

static int fail_late(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    (void)begin;
    *(uint64_t *)accumulator += 1;
    return end == 10000 ? 5 : 0;
}

static void a_failed_reduce_leaves_the_accumulator(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        uint64_t sum = 0;
        yoke_outcome failure = {0};
        const yoke_options options = {.size = sizeof options, .failure = &failure};
        CHECK_RC(yoke_reduce(pool, fail_late, merge_add, 10000, &sum, sizeof sum, &options),
                 YOKE_ETASK);
        CHECK(sum == 0);
        CHECK_EQ(failure.kind, YOKE_FAILED);
        CHECK_EQ(failure.code, 5);
        CHECK(failure.item < 10000);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(a_for_visits_each_item_once);
    RUN(a_failed_range_is_the_failure);
    RUN(a_sum_is_the_sum);
    RUN(parts_are_merged_in_order_by_the_caller);
    RUN(the_same_pool_gives_the_same_bits);
    RUN(all_pools_give_the_same_bits_on_request);
    RUN(accumulators_may_be_big);
    RUN(a_failed_reduce_leaves_the_accumulator);
    return 0;
}
