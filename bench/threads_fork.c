/* SPDX-License-Identifier: MIT
 * threads_fork.c - figures of spawn and sync, against the same functions without them.
 *
 * Idea: each work is written twice here, with Yoke and as one would without it, and compiled with
 * the same flags (-O3, as the peers); the serial one has no copy or check that only the parallel one needs. All is
 * called from outside the pool.
 */
#include "harness.h"
#include "machine.h"
#include "threads.h"
#include "work_uts.h"

enum {
    FIB_N = 30,
    FIB_CALLS = 1346268, /* that spawn: fib(31) - 1 */
    FIB = 832040,
    QUEENS = 11,
    QUEENS_WAYS = 2680,
    NET_LEAVES = 1000000,
    NET_WAYS = 10
};

/* --- fib ------------------------------------------------------------------------------------ */

YOKE_FORK_1(long, fib, int, n)
{
    struct fib_call left;
    if (n < 2) {
        return n;
    }
    fib_spawn(&strand, &left, n - 1);
    const long right = fib(strand, n - 2);
    return fib_sync(&strand, &left) + right;
}

static void fib_begin(yoke_strand strand, void *result)
{
    *(uint64_t *)result = (uint64_t)fib(strand, FIB_N);
}

static long fib_plain(int n)
{
    return n < 2 ? n : fib_plain(n - 1) + fib_plain(n - 2);
}

static uint64_t fib_serial(void)
{
    static volatile int n = FIB_N;
    return (uint64_t)fib_plain(n);
}

static uint64_t fib_peer(void)
{
    return (uint64_t)threads_peer->fib(FIB_N);
}

/* --- queens: how many ways to put them ------------------------------------------------------ */

struct board {
    signed char column[16];
};

static int fits(const struct board *board, int row, int column)
{
    for (int i = 0; i < row; i++) {
        const int by = board->column[i] - column;
        if (by == 0 || by == row - i || by == i - row) {
            return 0;
        }
    }
    return 1;
}

struct queens_row {
    const struct board *board;
    int row;
    signed char column[QUEENS];
    uint32_t ways[QUEENS];
};

static uint32_t queens(yoke_strand strand, const struct board *board, int row);

static void queens_next(yoke_strand strand, size_t index, void *arg)
{
    struct queens_row *const of = arg;
    struct board board = *of->board;
    board.column[of->row] = of->column[index];
    of->ways[index] = queens(strand, &board, of->row + 1);
}

static uint32_t queens(yoke_strand strand, const struct board *board, int row)
{
    struct queens_row of = {.board = board, .row = row};
    size_t count = 0;
    uint32_t ways = 0;
    if (row == QUEENS) {
        return 1;
    }
    for (int column = 0; column < QUEENS; column++) {
        if (fits(board, row, column)) {
            of.column[count++] = (signed char)column;
        }
    }
    yoke_each(strand, 0, count, queens_next, &of);
    for (size_t i = 0; i < count; i++) {
        ways += of.ways[i];
    }
    return ways;
}

static void queens_begin(yoke_strand strand, void *result)
{
    const struct board board = {{0}};
    *(uint64_t *)result = queens(strand, &board, 0);
}

static uint32_t queens_plain(struct board *board, int row)
{
    uint32_t ways = 0;
    if (row == QUEENS) {
        return 1;
    }
    for (int column = 0; column < QUEENS; column++) {
        if (fits(board, row, column)) {
            board->column[row] = (signed char)column;
            ways += queens_plain(board, row + 1);
        }
    }
    return ways;
}

static uint64_t queens_serial(void)
{
    static volatile int row; /* 0, and the compiler cannot know the result */
    struct board board = {{0}};
    return queens_plain(&board, row);
}

/* --- the unbalanced tree -------------------------------------------------------------------- */

struct uts_family {
    const struct uts_node *parent;
    uint32_t nodes[UTS_CHILDREN_MAX];
};

static uint32_t uts(yoke_strand strand, const struct uts_node *node);

static void uts_next(yoke_strand strand, size_t index, void *arg)
{
    struct uts_family *const family = arg;
    struct uts_node child;
    uts_child(family->parent, (unsigned)index, &child);
    family->nodes[index] = uts(strand, &child);
}

static uint32_t uts(yoke_strand strand, const struct uts_node *node)
{
    const unsigned count = uts_children(node);
    struct uts_family family;
    uint32_t nodes = 1;
    family.parent = node;
    yoke_each(strand, 0, count, uts_next, &family);
    for (unsigned i = 0; i < count; i++) {
        nodes += family.nodes[i];
    }
    return nodes;
}

static void uts_begin(yoke_strand strand, void *result)
{
    struct uts_node root;
    uts_root(&root);
    *(uint64_t *)result = uts(strand, &root);
}

static uint32_t uts_plain(const struct uts_node *node)
{
    const unsigned count = uts_children(node);
    uint32_t nodes = 1;
    for (unsigned i = 0; i < count; i++) {
        struct uts_node child;
        uts_child(node, i, &child);
        nodes += uts_plain(&child);
    }
    return nodes;
}

static uint64_t uts_serial(void)
{
    static volatile unsigned depth; /* as above */
    struct uts_node root;
    uts_root(&root);
    root.depth = depth;
    return uts_plain(&root);
}

/* --- a net of tasks, ten below each; the leaves give their numbers --------------------------- */

YOKE_FORK_2(uint64_t, net, uint64_t, first, uint64_t, leaves)
{
    struct net_call child[NET_WAYS - 1];
    const uint64_t below = leaves / NET_WAYS;
    if (leaves == 1) {
        return first;
    }
    for (uint64_t i = 0; i < NET_WAYS - 1; i++) {
        net_spawn(&strand, &child[i], first + i * below, below);
    }
    uint64_t sum = net(strand, first + (NET_WAYS - 1) * below, below);
    for (int i = NET_WAYS - 2; i >= 0; i--) {
        sum += net_sync(&strand, &child[i]);
    }
    return sum;
}

static void net_begin(yoke_strand strand, void *result)
{
    *(uint64_t *)result = net(strand, 0, NET_LEAVES);
}

static uint64_t net_plain(uint64_t first, uint64_t leaves)
{
    uint64_t sum = 0;
    if (leaves == 1) {
        return first;
    }
    for (uint64_t i = 0; i < NET_WAYS; i++) {
        sum += net_plain(first + i * (leaves / NET_WAYS), leaves / NET_WAYS);
    }
    return sum;
}

static uint64_t net_serial(void)
{
    static volatile uint64_t leaves = NET_LEAVES;
    return net_plain(0, leaves);
}

/* --- measuring ------------------------------------------------------------------------------ */

static const uint64_t net_right = (uint64_t)NET_LEAVES * (NET_LEAVES - 1) / 2;

static const char *judge(uint64_t result, uint64_t right)
{
    return result == right ? NULL : "a wrong result";
}

/* Twice, the first time to wake who sleeps; then ns for each unit. */
static const char *run(yoke_fork_fn *begin, uint64_t right, double units, double *value)
{
    uint64_t result = 0;
    threads_rest();
    int error = yoke_run(threads_pool, begin, &result, NULL);
    const char *why = error ? bench_why("yoke_run", error) : judge(result, right);
    if (why) {
        return why;
    }
    result = 0;
    const int64_t from = bench_now_ns();
    error = yoke_run(threads_pool, begin, &result, NULL);
    *value = (double)(bench_now_ns() - from) / units;
    return error ? bench_why("yoke_run", error) : judge(result, right);
}

static const char *call(uint64_t (*fn)(void), uint64_t right, double units, double *value)
{
    threads_rest();
    const char *const why = judge(fn(), right);
    const int64_t from = bench_now_ns();
    const uint64_t result = fn();
    *value = (double)(bench_now_ns() - from) / units;
    return why ? why : judge(result, right);
}

static const char *yoke_fib(double *ns)
{
    return run(fib_begin, FIB, FIB_CALLS, ns);
}
static const char *plain_fib(double *ns)
{
    return call(fib_serial, FIB, FIB_CALLS, ns);
}
static const char *peer_fib(double *ns)
{
    return call(fib_peer, FIB, FIB_CALLS, ns);
}
static const char *yoke_queens(double *ms)
{
    return run(queens_begin, QUEENS_WAYS, 1e6, ms);
}
static const char *plain_queens(double *ms)
{
    return call(queens_serial, QUEENS_WAYS, 1e6, ms);
}
static const char *yoke_uts(double *ms)
{
    return run(uts_begin, UTS_NODES, 1e6, ms);
}
static const char *plain_uts(double *ms)
{
    return call(uts_serial, UTS_NODES, 1e6, ms);
}
static const char *yoke_net(double *ms)
{
    return run(net_begin, net_right, 1e6, ms);
}
static const char *plain_net(double *ms)
{
    return call(net_serial, net_right, 1e6, ms);
}

static const char *start_one(void)
{
    return threads_start(1, NULL);
}
static const char *start_two(void)
{
    return threads_start(2, NULL);
}
static const char *start_tbb(void)
{
    return threads_start(2, "tbb");
}

#define SERIAL(NAME, UNIT, YOKE, REF, ROUNDS, CPUS, START) \
    { \
        .name = (NAME), .unit = (UNIT), .reference = "the same function, serial", .yoke = (YOKE), \
        .ref = (REF), .rounds = (ROUNDS), .cpus = (CPUS), .setup = (START), \
        .teardown = threads_stop \
    }

static const bench_figure figures[] = {
    SERIAL("threads/fib-1", "ns", yoke_fib, plain_fib, 61, 1, start_one),
    SERIAL("threads/fib-2", "ns", yoke_fib, plain_fib, 61, 2, start_two),
    {.name = "threads/fib-tbb",
     .unit = "ns",
     .reference = "oneTBB, a task_group in each call",
     .yoke = yoke_fib,
     .ref = peer_fib,
     .rounds = 15,
     .cpus = 2,
     .peer = "tbb",
     .setup = start_tbb,
     .teardown = threads_stop},
    SERIAL("threads/nqueens-2", "ms", yoke_queens, plain_queens, 31, 2, start_two),
    SERIAL("threads/uts-2", "ms", yoke_uts, plain_uts, 31, 2, start_two),
    SERIAL("threads/skynet-2", "ms", yoke_net, plain_net, 61, 2, start_two),
};

const bench_table bench_threads_fork_table = {figures, sizeof figures / sizeof *figures};
