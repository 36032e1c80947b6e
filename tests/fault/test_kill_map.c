/* SPDX-License-Identifier: MIT
 * test_kill_map.c - maps, fors and reduces of 100,000 items while workers are killed at random.
 *
 * Idea: a kill costs at most the item its worker was on; the rest of its part is run elsewhere,
 * and no item is started twice. Each item counts its starts itself, in shared memory.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 200
#include "killer.h"

enum { ITEMS = 100000 };

static uint64_t work_of(uint64_t x)
{
    uint64_t state = x, sum = 0;
    for (unsigned i = 0; i < 300 + x % 700; i++)
        sum ^= random_next(&state);
    return sum;
}

static int work(yoke_task *task, const void *in, void *out)
{
    atomic_long *starts = *(atomic_long *const *)yoke_task_context(task);
    count_up(starts + yoke_task_item(task), 1);
    *(uint64_t *)out = work_of(*(const uint64_t *)in);
    return 0;
}

struct arrays {
    uint64_t *in, *out;
    yoke_outcome *outcomes;
    atomic_long *starts;
};

static void check_items(const struct arrays *a, unsigned retries, long kills, int rc,
                        const yoke_outcome *failure)
{
    long crashed = 0;
    for (size_t i = 0; i < ITEMS; i++) {
        const yoke_outcome *o = &a->outcomes[i];
        const long started = count_get(a->starts + i);
        CHECK_EQ(o->item, i);
        CHECK(o->kind == YOKE_OK || o->kind == YOKE_CRASHED);
        CHECK(started <= (long)o->attempts);
        CHECK(o->attempts >= 1 && o->attempts <= retries + 1);
        if (o->kind == YOKE_OK) {
            CHECK(started >= 1);
            CHECK(a->out[i] == work_of(i));
            continue;
        }
        CHECK_EQ(o->signal, SIGKILL);
        CHECK_EQ(o->attempts, retries + 1);
        if (crashed++ == 0) {
            CHECK_EQ(failure->item, i);
            CHECK_EQ(failure->kind, YOKE_CRASHED);
        }
    }
    fprintf(stderr, "    %ld kills, %ld items crashed\n", kills, crashed);
    CHECK(crashed <= kills);
    CHECK_RC(rc, crashed ? YOKE_ETASK : 0);
}

/* Maps until enough kills have hit; each map by itself must hold. */
static void maps_under_fire(unsigned retries, int shared, int all)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 3);
    struct arrays a = {.outcomes = calloc(ITEMS, sizeof *a.outcomes),
                       .starts = shared_zeroed(ITEMS * sizeof *a.starts)};
    a.in = shared ? shared_zeroed(ITEMS * 8) : calloc(ITEMS, 8);
    a.out = shared ? shared_zeroed(ITEMS * 8) : calloc(ITEMS, 8);
    CHECK(a.in && a.out && a.outcomes);
    for (uint64_t i = 0; i < ITEMS; i++)
        a.in[i] = i;
    long total = 0;
    uint64_t seed = random_seed();
    for (int round = 0; round < 20 && total < 60; round++) {
        yoke_outcome failure = {.kind = -1};
        const yoke_options options = {.size = sizeof options,
                                      .context = &a.starts,
                                      .context_bytes = sizeof a.starts,
                                      .retries = retries,
                                      .outcomes = a.outcomes,
                                      .failure = &failure};
        memset(a.out, 0, ITEMS * 8);
        memset(a.starts, 0, ITEMS * sizeof *a.starts);
        struct killer killer = {.pool = pool,
                                .random = random_next(&seed),
                                .pause_us = 3000,
                                .tasks_apart = 1,
                                .all = all};
        killer_start(&killer);
        const int rc = yoke_map(pool, work, a.in, 8, a.out, 8, ITEMS, &options);
        const long kills = killer_stop(&killer);
        check_items(&a, retries, kills, rc, &failure);
        total += kills;
    }
    CHECK(total >= 5);
    check_pool_works(pool);
    end_pool(pool);
    yoke_shared_free(a.starts);
    free(a.outcomes);
    if (shared) {
        yoke_shared_free(a.in);
        yoke_shared_free(a.out);
    } else {
        free(a.in);
        free(a.out);
    }
}

static void a_kill_costs_one_item_at_most(void)
{
    maps_under_fire(0, 0, 0);
}
static void in_shared_memory_too(void)
{
    maps_under_fire(0, 1, 0);
}
static void retries_save_the_items(void)
{
    maps_under_fire(4, 0, 0);
}
static void all_workers_killed_at_once(void)
{
    maps_under_fire(1, 0, 1);
}

static int add(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    for (size_t i = begin; i < end; i++)
        *(uint64_t *)accumulator += work_of(i);
    return 0;
}

static void merge_add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static void reduces_add_nothing_twice(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 3);
    uint64_t want = 0;
    for (size_t i = 0; i < ITEMS; i++)
        want += work_of(i);
    long total = 0, done = 0;
    uint64_t seed = random_seed();
    for (int round = 0; round < 60 && (total < 15 || done < 3); round++) {
        struct killer killer = {
            .pool = pool, .random = random_next(&seed), .pause_us = 15000, .tasks_apart = 1};
        const yoke_options options = {.size = sizeof options, .retries = 20};
        uint64_t sum = 0;
        killer_start(&killer);
        const int rc = yoke_reduce(pool, add, merge_add, ITEMS, &sum, sizeof sum, &options);
        total += killer_stop(&killer);
        CHECK(rc == 0 || rc == YOKE_ETASK);
        CHECK(sum == (rc == 0 ? want : 0));
        done += rc == 0;
    }
    fprintf(stderr, "    %ld kills, %ld sums\n", total, done);
    CHECK(done >= 3);
    CHECK(total >= 5);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    const struct usage before = killer_test_begin(argc, argv);
    RUN(a_kill_costs_one_item_at_most);
    RUN(in_shared_memory_too);
    RUN(retries_save_the_items);
    RUN(all_workers_killed_at_once);
    RUN(reduces_add_nothing_twice);
    usage_check(before, 20);
    return 0;
}
