/* SPDX-License-Identifier: MIT
 * test_sort.c - yoke_sort and YOKE_SORT against a plain stable merge sort.
 *
 * Idea: an element is a key, and a tag that no comparison looks at: its place before. So one
 * memcmp with the oracle's array shows order, stability and that nothing was lost, all at once. A
 * comparison that talks nonsense still must give the same elements, each once.
 */
/* tsan: yes */
#include "check.h"
#include <math.h>
#include <sys/resource.h>

enum { SHAPES = 10 };

/* What compare needs to know, and notes. */
struct rule {
    size_t key_bytes;
    atomic_long compared;
    yoke_cancel *cancel; /* set it at the comparison of that number */
    long cancel_at;
};

static int compare(const void *a, const void *b, void *user)
{
    const struct rule *rule = user;
    uint32_t x = 0, y = 0;
    memcpy(&x, a, rule->key_bytes);
    memcpy(&y, b, rule->key_bytes);
    return x < y ? -7 : x > y;
}

static int compare_and_count(const void *a, const void *b, void *user)
{
    struct rule *rule = user;
    if (count_up(&rule->compared, 1) + 1 == rule->cancel_at)
        yoke_cancel_set(rule->cancel);
    return compare(a, b, user);
}

/* ---- the oracle ---------------------------------------------------------------------------- */

static void merge_plainly(unsigned char *data, unsigned char *room, size_t count, size_t bytes,
                          struct rule *rule)
{
    if (count < 2)
        return;
    const size_t half = count / 2;
    size_t a = 0, b = half;
    merge_plainly(data, room, half, bytes, rule);
    merge_plainly(data + half * bytes, room, count - half, bytes, rule);
    memcpy(room, data, count * bytes);
    for (size_t i = 0; i < count; i++) {
        const int of_b =
            a == half || (b < count && compare(room + b * bytes, room + a * bytes, rule) < 0);
        memcpy(data + i * bytes, room + (of_b ? b++ : a++) * bytes, bytes);
    }
}

/* ---- data ---------------------------------------------------------------------------------- */

static uint64_t shape_key(int shape, size_t i, size_t count, uint64_t *state)
{
    switch (shape) {
    case 0: /* random */
        return random_next(state);
    case 1: /* in order, in pairs of equals */
        return i / 2;
    case 2: /* reversed */
        return count - i;
    case 3: /* reversed, in pairs of equals: not to be turned round as it is */
        return (count - i) / 2;
    case 4: /* all equal */
        return 7;
    case 5: /* organ pipe */
        return i < count / 2 ? i : count - i;
    case 6: /* few keys */
        return random_next(state) % 4;
    case 7: /* nearly in order */
        return random_next(state) % 50 == 0 ? random_next(state) % (count + 1) : i;
    case 8: /* two halves in order, exchanged */
        return i < count / 2 ? i + count : i;
    default: /* each leaf has its own kind of order */
        return i / 4096 % 3 == 0 ? i : i / 4096 % 3 == 1 ? count - i : random_next(state);
    }
}

static void fill(unsigned char *data, size_t count, size_t bytes, size_t key_bytes, int shape,
                 uint64_t *state)
{
    for (size_t i = 0; i < count; i++) {
        const uint64_t key = shape_key(shape, i, count, state);
        unsigned char *const at = data + i * bytes;
        memcpy(at, &key, key_bytes);
        for (size_t k = key_bytes; k < bytes; k++)
            at[k] = (unsigned char)(i >> 8 * ((k - key_bytes) % 4));
    }
}

/* A sort under test, and room for the largest array. */
struct bench {
    yoke_pool *pool;
    int (*sort)(yoke_pool *pool, void *base, size_t count, size_t bytes, struct rule *rule);
    size_t bytes, key_bytes;
    uint64_t state;
};

static int sort_any(yoke_pool *pool, void *base, size_t count, size_t bytes, struct rule *rule)
{
    return yoke_sort(pool, base, count, bytes, compare, rule, NULL);
}

static void check_sort(struct bench *bench, size_t count, int shape)
{
    struct rule rule = {.key_bytes = bench->key_bytes};
    const size_t bytes = bench->bytes, size = count * bytes;
    unsigned char *const data = malloc(size + 1); /* exact, for AddressSanitizer */
    unsigned char *const want = malloc(2 * size + 1);
    CHECK(data && want);
    fill(data, count, bytes, bench->key_bytes, shape, &bench->state);
    memcpy(want, data, size);
    data[size] = 0x5a;
    merge_plainly(want, want + size, count, bytes, &rule);
    CHECK_RC(bench->sort(bench->pool, data, count, bytes, &rule), 0);
    if (memcmp(data, want, size) != 0)
        fprintf(stderr, "    %zu elements of %zu bytes, shape %d\n", count, bytes, shape);
    CHECK(memcmp(data, want, size) == 0);
    CHECK_EQ(data[size], 0x5a);
    free(data);
    free(want);
}

/* ---- any element --------------------------------------------------------------------------- */

static void elements_of_any_size_are_sorted(void)
{
    static const size_t sizes[] = {1, 3, 4, 8, 16, 24, 100};
    static const size_t counts[] = {0, 1, 2, 5, 33, 1009, 4096, 4099, 8192, 20011};
    const uint64_t seed = random_seed();
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct bench bench = {pool, sort_any, sizes[s], sizes[s] < 4 ? 1 : sizes[s] / 2, seed};
            bench.key_bytes = bench.key_bytes > 4 ? 4 : bench.key_bytes;
            const size_t last = kind == YOKE_THREADS && check_slowness() == 1 ? 10 : 8;
            for (size_t c = 0; c < last; c++) {
                for (int shape = 0; shape < SHAPES; shape++)
                    check_sort(&bench, counts[c], shape);
            }
        }
        end_pool(pool);
    }
}

static void bytes_may_lie_anywhere(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct rule rule = {.key_bytes = 4};
    unsigned char *const data = malloc(9000 * 8 + 1), *const want = malloc(2 * 9000 * 8);
    uint64_t state = random_seed();
    fill(data + 1, 9000, 8, 4, 0, &state);
    memcpy(want, data + 1, 9000 * 8);
    merge_plainly(want, want + 9000 * 8, 9000, 8, &rule);
    CHECK_RC(yoke_sort(pool, data + 1, 9000, 8, compare, &rule, NULL), 0);
    CHECK(memcmp(data + 1, want, 9000 * 8) == 0);
    free(data);
    free(want);
    end_pool(pool);
}

/* ---- one type ------------------------------------------------------------------------------ */

struct tagged {
    uint32_t key, tag;
};
struct wide {
    uint32_t key, tag[6];
};

YOKE_SORT(sort_tagged, struct tagged, a->key < b->key)
YOKE_SORT(sort_wide, struct wide, a->key < b->key)
YOKE_SORT(sort_ints, int, *a < *b)
YOKE_SORT(sort_doubles, double, *a < *b)

static int sort_8(yoke_pool *pool, void *base, size_t count, size_t bytes, struct rule *rule)
{
    (void)bytes;
    (void)rule;
    return sort_tagged(pool, base, count, NULL);
}

static int sort_28(yoke_pool *pool, void *base, size_t count, size_t bytes, struct rule *rule)
{
    (void)bytes;
    (void)rule;
    return sort_wide(pool, base, count, NULL);
}

static void a_type_has_its_own_sort(void)
{
    static const size_t primes[] = {1009,  4093,  4099,   8191,   8209,   12289,
                                    16411, 65537, 131071, 262147, 524287, 999983};
    yoke_pool *pool = make_pool(YOKE_THREADS, 3);
    struct bench bench = {pool, sort_8, 8, 4, random_seed()};
    for (size_t count = 0; count <= 300; count++) {
        for (int shape = 0; shape < SHAPES; shape++)
            check_sort(&bench, count, shape);
    }
    const size_t most = check_slowness() == 1 ? 1000000 : 150000;
    for (size_t p = 0; p < sizeof primes / sizeof *primes; p++) {
        for (int shape = 0; shape < SHAPES && primes[p] < most; shape++) {
            if (primes[p] < most / 5 || shape % 9 == 0)
                check_sort(&bench, primes[p], shape);
        }
    }
    bench = (struct bench){pool, sort_28, 28, 4, bench.state};
    for (int shape = 0; shape < SHAPES; shape++)
        check_sort(&bench, 30011, shape);
    end_pool(pool);
}

static void signed_numbers_are_in_order(void)
{
    enum { COUNT = 100003 };
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    int *const numbers = malloc(COUNT * sizeof *numbers);
    uint64_t state = random_seed();
    int64_t sum = 0;
    for (int i = 0; i < COUNT; i++) {
        numbers[i] = (int)(uint32_t)random_next(&state);
        sum += numbers[i];
    }
    CHECK_RC(sort_ints(pool, numbers, COUNT, NULL), 0);
    for (int i = 0; i < COUNT; i++) {
        CHECK(i == 0 || numbers[i - 1] <= numbers[i]);
        sum -= numbers[i];
    }
    CHECK_EQ(sum, 0);
    free(numbers);
    end_pool(pool);
}

/* ---- nonsense ------------------------------------------------------------------------------ */

static int compare_by_chance(const void *a, const void *b, void *user)
{
    static _Thread_local uint64_t state;
    (void)a;
    (void)b;
    (void)user;
    return (int)(random_next(&state) % 3) - 1;
}

static int compare_always_less(const void *a, const void *b, void *user)
{
    (void)a;
    (void)b;
    (void)user;
    return -1;
}

static int compare_in_a_circle(const void *a, const void *b, void *user)
{
    struct tagged x, y;
    (void)user;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x.tag - y.tag) % 3 == 1 ? -1 : 1;
}

/* Each tag from 0 to count - 1 is there once. */
static void check_all_there(const struct tagged *data, size_t count)
{
    unsigned char *const seen = calloc(count + 1, 1);
    for (size_t i = 0; i < count; i++) {
        CHECK(data[i].tag < count && !seen[data[i].tag]);
        seen[data[i].tag] = 1;
    }
    free(seen);
}

static void nonsense_gives_the_same_elements(void)
{
    static yoke_compare_fn *const fns[] = {compare_by_chance, compare_always_less,
                                           compare_in_a_circle};
    static const size_t counts[] = {2, 3, 4, 7, 8, 31, 64, 257, 300, 4096, 5000, 100003};
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    uint64_t state = random_seed();
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        for (size_t f = 0; f < 3; f++) {
            struct tagged *const data = malloc(counts[c] * sizeof *data);
            fill((unsigned char *)data, counts[c], sizeof *data, 4, 0, &state);
            CHECK_RC(yoke_sort(pool, data, counts[c], sizeof *data, fns[f], NULL, NULL), 0);
            check_all_there(data, counts[c]);
            free(data);
        }
    }
    end_pool(pool);
}

static void not_a_number_is_kept(void)
{
    enum { COUNT = 50021 };
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    double *const numbers = malloc(COUNT * sizeof *numbers);
    uint64_t state = random_seed();
    size_t nans = 0, sum = 0;
    for (size_t i = 0; i < COUNT; i++)
        numbers[i] = random_next(&state) % 5 == 0 ? NAN : (double)i;
    for (size_t i = 0; i < COUNT; i++) {
        nans += isnan(numbers[i]) ? 1U : 0U;
        sum += isnan(numbers[i]) ? 0U : (size_t)numbers[i];
    }
    CHECK_RC(sort_doubles(pool, numbers, COUNT, NULL), 0);
    for (size_t i = 0; i < COUNT; i++) {
        nans -= isnan(numbers[i]) ? 1U : 0U;
        sum -= isnan(numbers[i]) ? 0U : (size_t)numbers[i];
    }
    CHECK_EQ(nans, 0);
    CHECK_EQ(sum, 0);
    free(numbers);
    end_pool(pool);
}

/* ---- what it costs ------------------------------------------------------------------------- */

static long comparisons(yoke_pool *pool, int shape, size_t count)
{
    struct rule rule = {.key_bytes = 4};
    struct tagged *const data = malloc(count * sizeof *data);
    uint64_t state = 1;
    fill((unsigned char *)data, count, sizeof *data, 4, shape, &state);
    CHECK_RC(yoke_sort(pool, data, count, sizeof *data, compare_and_count, &rule, NULL), 0);
    free(data);
    return count_get(&rule.compared);
}

static void what_is_in_order_costs_a_look(void)
{
    enum { COUNT = 200003 };
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    CHECK(comparisons(pool, 1, COUNT) < COUNT + COUNT / 100); /* in order */
    CHECK(comparisons(pool, 2, COUNT) < COUNT + COUNT / 100); /* reversed */
    CHECK(comparisons(pool, 4, COUNT) < COUNT + COUNT / 100); /* equal */
    CHECK(comparisons(pool, 5, COUNT) < 4 * COUNT);           /* organ pipe: a few merges */
    CHECK(comparisons(pool, 0, COUNT) < COUNT * 18L);         /* random: log2 is 17.6 */
    end_pool(pool);
}

/* ---- cancel and errors --------------------------------------------------------------------- */

/* \return how often it compared. */
static long check_cancel_at(yoke_pool *pool, struct tagged *data, size_t count, long at)
{
    struct rule rule = {.key_bytes = 4, .cancel_at = at};
    uint64_t state = 3;
    CHECK_RC(yoke_cancel_create(NULL, &rule.cancel), 0);
    const yoke_options options = {.size = sizeof options, .cancel = rule.cancel};
    if (at == 0)
        yoke_cancel_set(rule.cancel);
    fill((unsigned char *)data, count, sizeof *data, 4, at % 2 ? 0 : 9, &state);
    const int rc = yoke_sort(pool, data, count, sizeof *data, compare_and_count, &rule, &options);
    const long compared = count_get(&rule.compared);
    CHECK_RC(rc, yoke_cancel_is_set(rule.cancel) ? -ECANCELED : 0);
    CHECK(rc == 0 || compared < at + 200000); /* a leaf or a piece on each worker */
    CHECK(at > 0 || compared == 0);
    check_all_there(data, count);
    yoke_cancel_release(rule.cancel);
    return compared;
}

static void a_cancelled_sort_keeps_the_elements(void)
{
    enum { NEVER = 99999999 };
    const long count = check_slowness() == 1 ? 150001 : 50001;
    struct tagged *const data = malloc((size_t)count * sizeof *data);
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        const long all = check_cancel_at(pool, data, (size_t)count, NEVER);
        check_cancel_at(pool, data, (size_t)count, 0);
        for (long i = 1; i < 12; i += check_slowness() == 1 ? 1 : 2) {
            check_cancel_at(pool, data, (size_t)count, all / 12 * i);
            check_cancel_at(pool, data, (size_t)count, (all - count / 6 * i) | 1); /* late merges */
        }
        end_pool(pool);
    }
    free(data);
}

static void bad_arguments_are_told(void)
{
    yoke_pool *pool = make_pool(YOKE_SERIAL, 1);
    struct rule rule = {.key_bytes = 1};
    char data[] = "cba";
    CHECK_RC(yoke_sort(NULL, data, 3, 1, compare, &rule, NULL), -EINVAL);
    CHECK_RC(yoke_sort(pool, NULL, 3, 1, compare, &rule, NULL), -EINVAL);
    CHECK_RC(yoke_sort(pool, data, 3, 0, compare, &rule, NULL), -EINVAL);
    CHECK_RC(yoke_sort(pool, data, 3, 1, NULL, &rule, NULL), -EINVAL);
    CHECK_RC(yoke_sort(pool, data, SIZE_MAX / 2, 3, compare, &rule, NULL), -EINVAL);
    CHECK_RC(yoke_sort(pool, data, SIZE_MAX - 2, 1, compare, &rule, NULL), -EINVAL);
    CHECK_RC(sort_ints(NULL, NULL, 0, NULL), -EINVAL);
    CHECK_RC(yoke_sort(pool, NULL, 0, 1, compare, &rule, NULL), 0);
    CHECK(strcmp(data, "cba") == 0);
    CHECK_RC(yoke_sort(pool, data, 3, 1, compare, &rule, NULL), 0);
    CHECK(strcmp(data, "abc") == 0);
    end_pool(pool);
}

/* ---- inside a task ------------------------------------------------------------------------- */

static int sort_inside(yoke_task *task, const void *in, void *out)
{
    enum { COUNT = 20011 };
    yoke_pool *const *pool = yoke_task_context(task);
    int *const numbers = malloc(COUNT * sizeof *numbers);
    uint64_t state = *(const int64_t *)in ? 5 : 6;
    int64_t wrong = 0;
    for (int i = 0; i < COUNT; i++)
        numbers[i] = (int)(uint32_t)random_next(&state);
    const int rc = sort_ints(*pool, numbers, COUNT, NULL);
    for (int i = 1; i < COUNT; i++)
        wrong += numbers[i - 1] > numbers[i];
    free(numbers);
    memcpy(out, &wrong, sizeof wrong);
    return rc != 0;
}

static void a_task_may_sort(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[6] = {0, 1, 2, 3, 4, 5}, out[6] = {1, 1, 1, 1, 1, 1};
        const yoke_options options = {
            .size = sizeof options, .context = &pool, .context_bytes = sizeof pool};
        CHECK_RC(yoke_map(pool, sort_inside, in, sizeof *in, out, sizeof *out, 6, &options), 0);
        for (int i = 0; i < 6; i++)
            CHECK_EQ(out[i], 0);
        end_pool(pool);
    }
}

/* ---- without memory ------------------------------------------------------------------------ */

static int sort_without_memory(void *arg)
{
    enum { COUNT = 16 << 20 };
    yoke_pool *pool = arg;
    uint32_t *const numbers = malloc(COUNT * sizeof *numbers);
    const struct rlimit limit = {64 << 20, 64 << 20}; /* less than there is: nothing more */
    struct rule rule = {.key_bytes = 4};
    for (uint32_t i = 0; i < COUNT; i++)
        numbers[i] = COUNT - i;
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    CHECK_RC(yoke_sort(pool, numbers, COUNT, sizeof *numbers, compare, &rule, NULL), -ENOMEM);
    for (uint32_t i = 0; i < COUNT; i++)
        CHECK(numbers[i] == COUNT - i);
    CHECK_RC(yoke_sort(pool, numbers, 500, sizeof *numbers, compare, &rule, NULL), 0);
    CHECK(numbers[0] == COUNT - 499);
    return 0;
}

static void without_memory_nothing_is_touched(void)
{
    if (CHECK_ASAN || CHECK_TSAN || check_emulated())
        return; /* the limit is not, or not only, the program's */
    yoke_pool *pool = make_pool(YOKE_SERIAL, 1);
    CHECK_CHILD(sort_without_memory, pool);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(bad_arguments_are_told);
    RUN(a_type_has_its_own_sort);
    RUN(elements_of_any_size_are_sorted);
    RUN(bytes_may_lie_anywhere);
    RUN(signed_numbers_are_in_order);
    RUN(nonsense_gives_the_same_elements);
    RUN(not_a_number_is_kept);
    RUN(what_is_in_order_costs_a_look);
    RUN(a_cancelled_sort_keeps_the_elements);
    RUN(a_task_may_sort);
    RUN(without_memory_nothing_is_touched);
    return 0;
}
