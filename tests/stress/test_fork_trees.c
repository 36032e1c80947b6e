/* SPDX-License-Identifier: MIT
 * test_fork_trees.c - random trees of spawns give what the same trees give in order.
 *
 * Idea: a node's number decides all about it: how many children it has, by which form they are
 * spawned, how long it works, whether it runs a tree in the same pool or in another one. The sum
 * over the tree is the same in whatever order it grows; the oracle is a plain recursion. Several
 * callers at once, 1 to 8 workers. CHECK_SEED repeats a run.
 */
/* tsan: yes */
/* timeout: 240 */
#define CHECK_TIMEOUT 200
#include "check.h"

enum { CALLERS = 3, TREES = 60, WIDEST = 6, PART_MS = 2500 };

static yoke_pool *pools[2];
static atomic_long trees;

struct node {
    uint64_t number;
    int depth;
    uint64_t sum;
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t state = a * 0x9e3779b97f4a7c15u + b;
    return random_next(&state);
}

/* Most are short, a few take long. */
static uint64_t work(uint64_t number)
{
    uint64_t x = number;
    const unsigned times = number % 64 == 0 ? 4000 : (unsigned)(number % 50);
    for (unsigned i = 0; i < times; i++)
        x = mix(x, i);
    return x;
}

static unsigned children(const struct node *node)
{
    return node->depth == 0 ? 0 : (unsigned)(node->number >> 20) % (WIDEST + 1);
}

static struct node child(const struct node *node, unsigned index)
{
    return (struct node){.number = mix(node->number, index), .depth = node->depth - 1};
}

static uint64_t serial(const struct node *node)
{
    uint64_t sum = work(node->number);
    for (unsigned i = 0; i < children(node); i++) {
        const struct node next = child(node, i);
        sum += serial(&next) * (i + 1);
    }
    return sum;
}

static void grow(yoke_strand strand, void *arg);

YOKE_FORK_2(uint64_t, typed, uint64_t, number, int, depth)
{
    struct node node = {.number = number, .depth = depth};
    grow(strand, &node);
    return node.sum;
}

static void by_calls(yoke_strand strand, const struct node *node, struct node *below, unsigned n)
{
    yoke_call calls[WIDEST];
    (void)node;
    for (unsigned i = 0; i < n; i++)
        yoke_spawn(&strand, &calls[i], grow, &below[i]);
    for (unsigned i = n; i-- > 0;)
        yoke_sync(&strand, &calls[i]);
}

static void by_type(yoke_strand strand, struct node *below, unsigned n)
{
    struct typed_call call;
    if (n == 0)
        return;
    typed_spawn(&strand, &call, below[0].number, below[0].depth);
    by_type(strand, below + 1, n - 1);
    below[0].sum = typed_sync(&strand, &call);
}

static void grow_one(yoke_strand strand, size_t index, void *arg)
{
    grow(strand, (struct node *)arg + index);
}

static void run_below(yoke_pool *pool, struct node *below, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        CHECK_RC(yoke_run(pool, grow, &below[i], NULL), 0);
}

static void grow(yoke_strand strand, void *arg)
{
    struct node *const node = arg;
    struct node below[WIDEST];
    const unsigned n = children(node);
    for (unsigned i = 0; i < n; i++)
        below[i] = child(node, i);
    const unsigned how = (unsigned)(node->number >> 40) % 64;
    if (how < 2)
        run_below(pools[how], below, n);
    else if (how < 24)
        by_calls(strand, node, below, n);
    else if (how < 44)
        by_type(strand, below, n);
    else
        yoke_each(strand, 0, n, grow_one, below);
    node->sum = work(node->number);
    for (unsigned i = 0; i < n; i++)
        node->sum += below[i].sum * (i + 1);
}

static int plant(void *arg)
{
    uint64_t state = *(uint64_t *)arg;
    const int64_t end = yoke_in_ms(PART_MS);
    for (int i = 0; i < TREES && yoke_now_ns() < end; i++) {
        struct node root = {.number = random_next(&state), .depth = 2 + i % 6};
        const uint64_t wanted = serial(&root);
        CHECK_RC(yoke_run(pools[random_next(&state) % 2], grow, &root, NULL), 0);
        if (root.sum != wanted)
            fprintf(stderr, "tree %" PRIu64 " of depth %d\n", root.number, root.depth);
        CHECK(root.sum == wanted);
        count_up(&trees, 1);
    }
    return 0;
}

static void plant_all(unsigned workers, uint64_t *state)
{
    yoke_thread *threads[CALLERS];
    uint64_t seeds[CALLERS];
    pools[0] = make_pool(YOKE_THREADS, workers);
    pools[1] = make_pool(YOKE_THREADS, 2);
    for (int i = 0; i < CALLERS; i++) {
        seeds[i] = random_next(state);
        CHECK_RC(yoke_thread_start(NULL, plant, &seeds[i], &threads[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        int code = 77;
        CHECK_RC(yoke_thread_wait(threads[i], yoke_in_ms(100000), &code), 0);
        CHECK_EQ(code, 0);
        yoke_thread_release(threads[i]);
    }
    end_pool(pools[0]);
    end_pool(pools[1]);
}

static void trees_grow_as_in_order(void)
{
    uint64_t state = random_seed();
    for (unsigned workers = 1; workers <= 8; workers *= 2)
        plant_all(workers, &state);
    printf("summary: %ld trees\n", count_get(&trees));
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(trees_grow_as_in_order);
    return 0;
}
