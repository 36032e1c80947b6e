/* SPDX-License-Identifier: MIT
 * test_cancel_random.c - tokens set at random points in random trees of maps, jobs and regions.
 *
 * Idea: leaves sleep for an hour, so a cancel that does not reach one of them is a hang. Every task
 * has memory of malloc that its clean-up frees, and memory of its own: after each round all clean-ups
 * have run, once, and under ASan all memory is free.
 */
/* tsan: yes */
/* timeout: 240 */
#include "check.h"

enum { ROUNDS = 1500, FAR_ROUNDS = 150, HOUR_MS = 3600 * 1000, DEEP = 4 };

/* In the shared heap. */
struct world {
    atomic_long opened, closed; /* clean-ups */
    atomic_long ran, told, slept;
    yoke_cancel *root;
    yoke_pool *pools[3]; /* to run on; the last may be one of processes */
    int near;            /* so many of them are not */
    int pool_count;
};

struct node {
    struct world *world;
    uint64_t seed;
    int64_t depth; /* so many levels may follow; -1: in a process worker */
};

static uint64_t draw(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 11;
}

struct held {
    struct world *world;
    void *block;
};

static void let_go(void *arg)
{
    struct held *held = arg;
    free(held->block);
    count_up(&held->world->closed, 1);
}

static void hold_some(yoke_task *task, struct world *world, uint64_t *seed)
{
    for (int i = 0; i < 2; i++) {
        struct held *held = yoke_task_alloc(task, 16 + draw(seed) % 9000);
        CHECK(held != NULL);
        *held = (struct held){world, malloc(1 + draw(seed) % 300)};
        count_up(&world->opened, 1);
        CHECK_RC(yoke_task_defer(task, let_go, held), 0);
    }
}

static int run_node(yoke_task *task, const void *in, void *out);

static struct node below(const struct node *node, uint64_t *seed)
{
    return (struct node){node->world, draw(seed) | 1, node->depth - 1};
}

static void sleep_an_hour(struct world *world)
{
    const int rc = yoke_sleep_until(yoke_in_ms(HOUR_MS));
    CHECK(rc == -ECANCELED);
    count_up(&world->slept, 1);
}

/* --- what a task may start -------------------------------------------------------------------- */

static yoke_options draw_options(const struct node *node, yoke_cancel **token, uint64_t *seed)
{
    yoke_options options = {.size = sizeof options, .fail_fast = draw(seed) % 3 == 0};
    *token = NULL;
    if (node->depth >= 0 && draw(seed) % 3 == 0) {
        /* Below the task's own; or beside it, below the root. */
        CHECK_RC(yoke_cancel_create(draw(seed) % 2 ? NULL : node->world->root, token), 0);
        options.cancel = *token;
    }
    return options;
}

static void start_map(const struct node *node, uint64_t *seed)
{
    struct world *world = node->world;
    struct node items[5];
    const size_t count = 1 + draw(seed) % 5;
    const size_t at = draw(seed) % (size_t)world->pool_count;
    yoke_cancel *token = NULL;
    const yoke_options options = draw_options(node, &token, seed);
    for (size_t i = 0; i < count; i++) {
        items[i] = below(node, seed);
        items[i].depth = (int)at < world->near ? items[i].depth : -1;
    }
    const int rc = yoke_map(world->pools[at], run_node, items, sizeof *items, NULL, 0, count,
                            node->depth == DEEP
                                ? &(yoke_options){.size = sizeof options, .cancel = world->root}
                                : &options);
    CHECK(rc == 0 || rc == -ECANCELED || rc == YOKE_ETASK);
    yoke_cancel_release(token);
}

static void start_jobs(const struct node *node, uint64_t *seed)
{
    struct world *world = node->world;
    yoke_job *jobs[4] = {NULL};
    for (int i = 0; i < 4; i++) {
        struct node item = below(node, seed);
        const size_t at = draw(seed) % (size_t)world->pool_count;
        yoke_cancel *token = NULL;
        yoke_options options = draw_options(node, &token, seed);
        item.depth = (int)at < world->near ? item.depth : -1;
        options.cancel = node->depth == DEEP ? world->root : options.cancel;
        const int rc =
            yoke_submit(world->pools[at], run_node, &item, sizeof item, 0, &options, &jobs[i]);
        CHECK(rc == 0 || rc == -ECANCELED);
        if (token != NULL && draw(seed) % 2)
            yoke_cancel_set(token);
        if (token != NULL && jobs[i] != NULL && draw(seed) % 2)
            (void)yoke_job_cancel(jobs[i], 0);
        /* The job keeps what it needs of the tree. */
        yoke_cancel_release(token);
    }
    if (draw(seed) % 2) {
        const int rc = yoke_wait_all(jobs, 4, yoke_in_ms(HOUR_MS));
        CHECK(rc == 0 || rc == -ECANCELED);
    }
    yoke_job_release_all(jobs, 4);
}

struct region {
    const struct node *node;
    uint64_t seed;
};

static void in_region(yoke_strand strand, size_t index, void *arg)
{
    const struct region *region = arg;
    struct node node = *region->node;
    uint64_t seed = (region->seed + index * 77) | 1;
    if (yoke_strand_cancelled(strand))
        return;
    node.depth--;
    if (draw(&seed) % 3 == 0)
        sleep_an_hour(node.world);
    else if (node.depth > 0)
        start_map(&node, &seed);
}

static void region_root(yoke_strand strand, void *arg)
{
    yoke_each(strand, 0, 4, in_region, arg);
}

static void start_region(const struct node *node, uint64_t *seed)
{
    struct region region = {node, draw(seed)};
    yoke_cancel *token = NULL;
    yoke_options options = draw_options(node, &token, seed);
    options.cancel = node->depth == DEEP ? node->world->root : options.cancel;
    const int rc = yoke_run(node->world->pools[0], region_root, &region, &options);
    CHECK(rc == 0 || rc == -ECANCELED);
    yoke_cancel_release(token);
}

static void start_something(const struct node *node, uint64_t *seed)
{
    switch (draw(seed) % 4) {
    case 0:
    case 1:
        start_map(node, seed);
        break;
    case 2:
        start_jobs(node, seed);
        break;
    default:
        start_region(node, seed);
        break;
    }
}

static int run_node(yoke_task *task, const void *in, void *out)
{
    const struct node *node = in;
    struct world *world = node->world;
    uint64_t seed = node->seed;
    (void)out;
    count_up(&world->ran, 1);
    hold_some(task, world, &seed);
    if (node->depth > 0)
        start_something(node, &seed);
    hold_some(task, world, &seed);
    if (yoke_task_cancelled(task)) {
        count_up(&world->told, 1);
        return 0;
    }
    if (node->depth > 0 && draw(&seed) % 40 == 0)
        yoke_cancel_set(world->root);
    if (draw(&seed) % 3 == 0)
        return 1;
    if (draw(&seed) % 2)
        sleep_an_hour(world);
    return 0;
}

/* --- rounds ----------------------------------------------------------------------------------- */

struct setter {
    yoke_cancel *root;
    atomic_long go;
    uint64_t spins;
};

static int set_root(void *arg)
{
    struct setter *setter = arg;
    while (!count_get(&setter->go))
        sched_yield();
    for (volatile uint64_t i = 0; i < setter->spins; i++) {
    }
    yoke_cancel_set(setter->root);
    return 0;
}

static int is_idle(yoke_pool *pool)
{
    uint64_t ended = 0;
    (void)!yoke_pool_await(pool, &ended, 0); /* collects what nobody waits for */
    return stats_of(pool).in_flight == 0;
}

static void one_round(struct world *world, uint64_t seed)
{
    struct setter setter = {.spins = draw(&seed) % 3 == 0 ? 0 : draw(&seed) % 300000};
    yoke_thread *thread = NULL;
    CHECK_RC(yoke_cancel_create(NULL, &world->root), 0);
    setter.root = world->root;
    CHECK_RC(yoke_thread_start(NULL, set_root, &setter, &thread), 0);
    struct node node = {world, seed, DEEP};
    count_set(&setter.go, 1);
    start_something(&node, &seed);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    for (int i = 0; i < world->pool_count; i++)
        WAIT_FOR(is_idle(world->pools[i]));
    CHECK_EQ(count_get(&world->opened), count_get(&world->closed));
    yoke_cancel_release(world->root);
}

static void play(struct world *world, int rounds, uint64_t seed)
{
    for (int i = 0; i < rounds; i++)
        one_round(world, draw(&seed) | 1);
    fprintf(stderr, "    %d rounds: %ld tasks, %ld told, %ld woken, %ld clean-ups\n", rounds,
            count_get(&world->ran), count_get(&world->told), count_get(&world->slept),
            count_get(&world->closed));
    CHECK(count_get(&world->ran) > rounds && count_get(&world->slept) > rounds / 4);
    for (int i = 0; i < world->pool_count; i++) {
        check_pool_works(world->pools[i]);
        end_pool(world->pools[i]);
    }
}

static uint64_t first_seed(void)
{
    const char *text = getenv("SEED");
    return text ? strtoull(text, NULL, 0) | 1 : 0x9e3779b97f4a7c15u;
}

static void on_threads_and_in_the_caller(void)
{
    struct world *world = shared_zeroed(sizeof *world);
    world->pools[0] = make_pool(YOKE_THREADS, 3);
    world->pools[1] =
        make_pool_of((yoke_pool_config){.kind = YOKE_THREADS, .workers = 1, .workers_max = 4});
    world->pools[2] = make_pool(YOKE_SERIAL, 1);
    world->pool_count = world->near = 3;
    play(world, ROUNDS, first_seed());
    yoke_shared_free(world);
}

static void and_in_processes(void)
{
    struct world *world = shared_zeroed(sizeof *world);
    if (!check_has_kind(YOKE_PROCESSES)) {
        yoke_shared_free(world);
        return;
    }
    world->pools[0] = make_pool(YOKE_THREADS, 2);
    world->pools[1] = make_pool(YOKE_PROCESSES, 2);
    world->pool_count = 2;
    world->near = 1;
    play(world, FAR_ROUNDS, first_seed() + 4);
    yoke_shared_free(world);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(on_threads_and_in_the_caller);
    RUN(and_in_processes);
    return 0;
}
