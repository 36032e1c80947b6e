/* SPDX-License-Identifier: MIT
 * test_stream_kill.c - streams whose workers are killed, crash, exit, or cannot live at all.
 *
 * Idea: a death costs at most the item its worker was on, and nothing that this item, or those
 * before it, had made is lost or given back twice. Items count their starts in shared memory;
 * results are made one by one, so that kills hit them on their way.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 200
#include "killer.h"

enum { ITEMS = 30000, TEXT = 40 };

struct fire {
    atomic_long *starts;
    size_t given, done, crashed, retried;
    unsigned retries;
    int unordered;
    unsigned char *seen;
};

static uint64_t work_of(uint64_t x)
{
    uint64_t state = x, sum = 0;
    for (unsigned i = 0; i < 300 + x % 700; i++)
        sum ^= random_next(&state);
    return sum;
}

static int make_and_work(yoke_task *task, const void *in, void *out)
{
    atomic_long *starts = *(atomic_long *const *)yoke_task_context(task);
    const uint64_t x = *(const uint64_t *)in;
    count_up(starts + x, 1);
    *(uint64_t *)out = 0;
    if (x % 2 == 0) {
        uint64_t *text = yoke_task_result(task, 8 * (1 + x % TEXT));
        if (x % 6 == 0)
            text = yoke_task_result(task, 8 * (1 + x % TEXT));
        if (!text)
            return 9;
        for (size_t i = 0; i <= x % TEXT; i++)
            text[i] = work_of(x) + i;
        return 0;
    }
    *(uint64_t *)out = work_of(x);
    return 0;
}

static int next_of_many(void *user, size_t item, void *in)
{
    struct fire *f = user;
    if (item == ITEMS)
        return 0;
    *(uint64_t *)in = item;
    f->given++;
    return 1;
}

static void check_result(uint64_t x, const uint64_t *out, size_t bytes)
{
    CHECK(out != NULL);
    CHECK_EQ(bytes, x % 2 ? 8 : 8 * (1 + x % TEXT));
    for (size_t i = 0; i < bytes / 8; i++)
        CHECK(out[i] == work_of(x) + i);
}

static int take_it(void *user, const yoke_outcome *o, const void *in, const void *out,
                   size_t out_bytes)
{
    struct fire *f = user;
    const uint64_t x = *(const uint64_t *)in;
    const long started = count_get(f->starts + x);
    CHECK_EQ(o->item, x);
    CHECK_EQ(f->seen[x]++, 0);
    CHECK(f->unordered || x == f->done);
    CHECK(o->kind == YOKE_OK || o->kind == YOKE_CRASHED);
    CHECK(started <= (long)o->attempts);
    CHECK(o->attempts >= 1 && o->attempts <= f->retries + 1);
    f->done++;
    f->retried += o->attempts > 1;
    if (o->kind == YOKE_OK) {
        CHECK(started >= 1);
        check_result(x, out, out_bytes);
        return 0;
    }
    CHECK(out == NULL && out_bytes == 0);
    CHECK_EQ(o->signal, SIGKILL);
    CHECK_EQ(o->attempts, f->retries + 1);
    f->crashed++;
    return 0;
}

static long one_stream(yoke_pool *pool, struct fire *f, struct killer *killer)
{
    const yoke_stream_config config = {.size = sizeof config,
                                       .in_bytes = 8,
                                       .out_bytes = 8,
                                       .unordered = f->unordered,
                                       .next = next_of_many,
                                       .done = take_it,
                                       .user = f};
    yoke_outcome failure = {.kind = -1};
    const yoke_options options = {.size = sizeof options,
                                  .context = &f->starts,
                                  .context_bytes = sizeof f->starts,
                                  .retries = f->retries,
                                  .failure = &failure};
    memset(f->starts, 0, ITEMS * sizeof *f->starts);
    memset(f->seen, 0, ITEMS);
    f->given = f->done = f->crashed = f->retried = 0;
    killer_start(killer);
    const int rc = yoke_map_stream(pool, make_and_work, &config, &options);
    const long kills = killer_stop(killer);
    CHECK_RC(rc, f->crashed ? YOKE_ETASK : 0);
    CHECK_EQ(failure.kind, f->crashed ? YOKE_CRASHED : -1);
    CHECK(f->given == ITEMS && f->done == ITEMS);
    CHECK((long)f->crashed <= kills);
    fprintf(stderr, "    %ld kills, %zu items crashed, %zu tried again\n", kills, f->crashed,
            f->retried);
    return kills;
}

static void streams_under_fire(unsigned retries, int unordered, int all)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 3);
    struct fire f = {.retries = retries,
                     .unordered = unordered,
                     .seen = calloc(ITEMS, 1),
                     .starts = shared_zeroed(ITEMS * sizeof *f.starts)};
    CHECK(f.seen != NULL);
    const size_t blocks = count_blocks();
    uint64_t seed = random_seed();
    long total = 0, hit = 0;
    for (int round = 0; round < 20 && (total < 60 || hit == 0); round++) {
        struct killer killer = {.pool = pool,
                                .random = random_next(&seed),
                                .pause_us = 3000,
                                .tasks_apart = 1,
                                .all = all};
        total += one_stream(pool, &f, &killer);
        hit += (long)(f.crashed + f.retried);
        CHECK_EQ(count_blocks(), blocks);
    }
    CHECK(total >= 5 && hit > 0);
    check_pool_works(pool);
    end_pool(pool);
    yoke_shared_free(f.starts);
    free(f.seen);
}

static void a_kill_costs_one_item_at_most(void)
{
    streams_under_fire(0, 0, 0);
}
static void also_when_nothing_is_in_order(void)
{
    streams_under_fire(0, 1, 0);
}
static void retries_save_the_items(void)
{
    streams_under_fire(4, 0, 0);
}
static void all_workers_killed_at_once(void)
{
    streams_under_fire(1, 0, 1);
}

/* ---- items that kill ---------------------------------------------------------------------- */

enum { BAD = 25 };

static int poison(yoke_task *task, const void *in, void *out)
{
    const uint64_t x = *(const uint64_t *)in;
    (void)out;
    uint64_t *result = yoke_task_result(task, 64);
    if (!result)
        return 9;
    if (x % BAD == 7 && x % 2)
        raise(SIGKILL);
    if (x % BAD == 7)
        exit(5);
    result[0] = x;
    return x % BAD == 8 ? 4 : 0;
}

static int take_poisoned(void *user, const yoke_outcome *o, const void *in, const void *out,
                         size_t out_bytes)
{
    struct fire *f = user;
    const uint64_t x = *(const uint64_t *)in;
    CHECK_EQ(o->item, f->done++);
    CHECK_EQ(o->item, x);
    if (x % BAD == 7) {
        CHECK_EQ(o->kind, YOKE_CRASHED);
        CHECK_EQ(o->signal, x % 2 ? SIGKILL : 0);
        CHECK(x % 2 || o->code == 5);
        CHECK_EQ(o->attempts, 3);
        CHECK(out == NULL);
        f->crashed++;
        return 0;
    }
    CHECK_EQ(o->kind, x % BAD == 8 ? YOKE_FAILED : YOKE_OK);
    CHECK_EQ(o->code, x % BAD == 8 ? 4 : 0);
    CHECK_EQ(o->attempts, 1);
    CHECK_EQ(out_bytes, 64);
    CHECK_EQ(((const uint64_t *)out)[0], x);
    return 0;
}

static int next_of_few(void *user, size_t item, void *in)
{
    *(uint64_t *)in = item;
    return item < ((struct fire *)user)->given;
}

static void poison_costs_itself_only(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    const size_t blocks = count_blocks();
    struct fire f = {.given = 600};
    const yoke_stream_config config = {.size = sizeof config,
                                       .in_bytes = 8,
                                       .next = next_of_few,
                                       .done = take_poisoned,
                                       .user = &f};
    const yoke_options options = {.size = sizeof options, .retries = 2};
    CHECK_RC(yoke_map_stream(pool, poison, &config, &options), YOKE_ETASK);
    CHECK_EQ(f.crashed, 600 / BAD);
    CHECK_EQ(f.done, 600);
    CHECK_EQ(count_blocks(), blocks);
    check_pool_works(pool);
    end_pool(pool);
}

static int leave_and_die(yoke_task *task, const void *in, void *out)
{
    (void)in, (void)out;
    if (yoke_task_attempt(task) > 0)
        return 0;
    if (!yoke_task_result(task, 100))
        return 9;
    raise(SIGKILL);
    return 1;
}

static int take_nothing(void *user, const yoke_outcome *o, const void *in, const void *out,
                        size_t out_bytes)
{
    (void)in;
    CHECK_EQ(o->kind, YOKE_OK);
    CHECK_EQ(o->attempts, 2);
    CHECK(out == NULL && out_bytes == 0);
    ((struct fire *)user)->done++;
    return 0;
}

static void what_a_try_left_does_not_count(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    const size_t blocks = count_blocks();
    struct fire f = {.given = 50};
    const yoke_stream_config config = {.size = sizeof config,
                                       .in_bytes = 8,
                                       .next = next_of_few,
                                       .done = take_nothing,
                                       .user = &f};
    const yoke_options options = {.size = sizeof options, .retries = 1};
    CHECK_RC(yoke_map_stream(pool, leave_and_die, &config, &options), 0);
    CHECK_EQ(f.done, 50);
    CHECK_EQ(count_blocks(), blocks);
    end_pool(pool);
}

/* ---- a pool that breaks ------------------------------------------------------------------- */

static int live_unless_told(unsigned worker, void *user)
{
    (void)worker;
    if (count_get(user))
        _exit(1);
    return 0;
}

static int tell_and_die(yoke_task *task, const void *in, void *out)
{
    atomic_long *told = *(atomic_long *const *)yoke_task_context(task);
    (void)out;
    if (*(const uint64_t *)in == 100) {
        count_set(told, 1);
        raise(SIGKILL);
    }
    return 0;
}

static int take_until_broken(void *user, const yoke_outcome *o, const void *in, const void *out,
                             size_t out_bytes)
{
    struct fire *f = user;
    (void)in, (void)out, (void)out_bytes;
    CHECK_EQ(o->item, f->done++);
    CHECK(o->kind == YOKE_OK || o->kind == YOKE_CANCELLED ||
          (o->kind == YOKE_CRASHED && o->item == 100));
    f->crashed += o->kind != YOKE_OK;
    return 0;
}

static int next_without_end(void *user, size_t item, void *in)
{
    *(uint64_t *)in = item;
    ((struct fire *)user)->given++;
    return 1;
}

static void a_pool_that_breaks_ends_the_stream(void)
{
    atomic_long *told = shared_zeroed(sizeof *told);
    const yoke_pool_config pool_config = {.size = sizeof pool_config,
                                          .kind = YOKE_PROCESSES,
                                          .workers = 1,
                                          .worker_init = live_unless_told,
                                          .user = told};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&pool_config, &pool), 0);
    struct fire f = {0};
    const yoke_stream_config config = {.size = sizeof config,
                                       .in_bytes = 8,
                                       .next = next_without_end,
                                       .done = take_until_broken,
                                       .user = &f};
    const yoke_options options = {
        .size = sizeof options, .context = &told, .context_bytes = sizeof told, .retries = 1000000};
    CHECK_RC(yoke_map_stream(pool, tell_and_die, &config, &options), YOKE_EBROKEN);
    CHECK_EQ(f.done, f.given);
    CHECK(f.crashed > 0);
    f = (struct fire){0};
    CHECK_RC(yoke_map_stream(pool, tell_and_die, &config, &options), YOKE_EBROKEN);
    CHECK_EQ(f.done, f.given);
    end_pool(pool);
    yoke_shared_free(told);
}

int main(int argc, char **argv)
{
    const struct usage before = killer_test_begin(argc, argv);
    RUN(a_kill_costs_one_item_at_most);
    RUN(also_when_nothing_is_in_order);
    RUN(retries_save_the_items);
    RUN(all_workers_killed_at_once);
    RUN(poison_costs_itself_only);
    RUN(what_a_try_left_does_not_count);
    RUN(a_pool_that_breaks_ends_the_stream);
    usage_check(before, 20);
    return 0;
}
