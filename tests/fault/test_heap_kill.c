/* SPDX-License-Identifier: MIT
 * test_heap_kill.c - workers are killed while they take and free blocks of the shared heap.
 *
 * Idea: workers put blocks on a shelf in shared memory and take others' off it. A kill loses at
 * most what that worker had in its hands; every block on the shelf is whole, no two overlap, and
 * when all is freed the heap has its memory back.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 200
#include "killer.h"

enum { SLOTS = 256, ROUNDS = 3000, ROUNDS_MAX = 100000 };

struct block {
    uint64_t bytes, check;
    unsigned char fill[];
};

struct shelf {
    _Atomic(struct block *) slots[SLOTS];
    atomic_long wrong, full;
};

static unsigned char pattern(const struct block *block, uint64_t i)
{
    return (unsigned char)((uintptr_t)block / 16 + i * 3);
}

static struct block *fill_block(size_t bytes)
{
    struct block *block = yoke_shared_alloc(sizeof *block + bytes);
    if (!block)
        return NULL;
    block->bytes = bytes;
    block->check = bytes * 31 + (uintptr_t)block;
    for (uint64_t i = 0; i < bytes; i += 1 + bytes / 64)
        block->fill[i] = pattern(block, i);
    return block;
}

static int is_whole(const struct block *block)
{
    if (block->check != block->bytes * 31 + (uintptr_t)block)
        return 0;
    for (uint64_t i = 0; i < block->bytes; i += 1 + block->bytes / 64) {
        if (block->fill[i] != pattern(block, i))
            return 0;
    }
    return 1;
}

/* Swaps blocks with the shelf; what it holds in between is lost if it is killed there. */
static int trade(yoke_task *task, const void *in, void *out)
{
    struct shelf *shelf = *(struct shelf *const *)in;
    uint64_t state = (uint64_t)getpid() ^ (uint64_t)yoke_now_ns();
    (void)task;
    (void)out;
    for (int i = 0; i < 60; i++) {
        const uint64_t r = random_next(&state);
        struct block *block = r % 5 ? fill_block((r >> 20) % (r % 41 ? 900 : 200000)) : NULL;
        if (r % 5 && !block)
            count_up(&shelf->full, 1);
        struct block *old =
            atomic_exchange_explicit(&shelf->slots[(r >> 8) % SLOTS], block, memory_order_seq_cst);
        if (old && !is_whole(old))
            count_up(&shelf->wrong, 1);
        if (old)
            old->check = 0; /* a block handed out twice is seen */
        yoke_shared_free(old);
    }
    return 0;
}

static void blocks_stay_whole_and_come_back(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 3);
    struct shelf *shelf = shared_zeroed(sizeof *shelf);
    struct killer killer = {
        .pool = pool, .random = random_seed(), .pause_us = 4000, .tasks_apart = 5};
    yoke_heap_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    CHECK_RC(yoke_heap_stats_get(&before), 0);
    killer_start(&killer);
    yoke_job *window[32] = {NULL};
    for (int i = 0; i < ROUNDS || (i < ROUNDS_MAX && count_get(&killer.kills) < 20); i++) {
        yoke_job **job = &window[i % 32];
        if (*job) {
            CHECK_RC(yoke_wait(*job, soon()), 0);
            yoke_job_release(*job);
        }
        CHECK_RC(yoke_submit(pool, trade, &shelf, sizeof shelf, 0, NULL, job), 0);
    }
    CHECK_RC(yoke_wait_all(window, 32, soon()), 0);
    const long kills = killer_stop(&killer);
    for (int i = 0; i < 32; i++)
        yoke_job_release(window[i]);
    CHECK_EQ(count_get(&shelf->wrong), 0);
    CHECK_EQ(count_get(&shelf->full), 0);
    CHECK(kills >= 10);
    long found = 0;
    for (int i = 0; i < SLOTS; i++) {
        struct block *block = atomic_load_explicit(&shelf->slots[i], memory_order_seq_cst);
        if (!block)
            continue;
        found++;
        CHECK(is_whole(block));
        block->check = 0;
        yoke_shared_free(block);
    }
    check_pool_works(pool);
    CHECK_RC(yoke_heap_stats_get(&after), 0);
    const long lost = (long)(after.blocks - before.blocks);
    fprintf(stderr, "    %ld kills, %ld blocks on the shelf, %ld lost in dead hands\n", kills,
            found, lost);
    /* A dead worker held the block it had made and the one it took off the shelf. */
    CHECK(lost >= 0 && lost <= 2 * kills);
    CHECK(after.used_bytes <= before.used_bytes + (size_t)(2 * kills) * 262144);
    end_pool(pool);
    /* All that is free can be taken again, by us. */
    static void *blocks[20000];
    const size_t count = count_blocks();
    for (int i = 0; i < 20000; i++) {
        blocks[i] = yoke_shared_alloc(500);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], i, 500);
    }
    for (int i = 0; i < 20000; i++) {
        CHECK_EQ(((unsigned char *)blocks[i])[499], (unsigned char)i);
        yoke_shared_free(blocks[i]);
    }
    CHECK_EQ(count_blocks(), count);
    yoke_shared_free(shelf);
}

static int take_and_die(yoke_task *task, const void *in, void *out)
{
    struct shelf *shelf = *(struct shelf *const *)in;
    (void)task;
    (void)out;
    for (int i = 0; i < SLOTS; i++) {
        struct block *block = fill_block((size_t)i * 11);
        atomic_store_explicit(&shelf->slots[i], block, memory_order_seq_cst);
    }
    raise(SIGKILL);
    return 0;
}

static void blocks_of_the_dead_are_freed_by_others(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    struct shelf *shelf = shared_zeroed(sizeof *shelf);
    yoke_heap_stats first = {.size = sizeof first}, last = {.size = sizeof last};
    for (int round = 0; round < 25; round++) {
        const size_t blocks = count_blocks();
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(pool, take_and_die, &shelf, sizeof shelf, 0, NULL, &job), 0);
        CHECK_RC(yoke_wait(job, soon()), 0);
        yoke_outcome outcome;
        CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_CRASHED);
        yoke_job_release(job);
        for (int i = 0; i < SLOTS; i++) {
            struct block *block = atomic_load_explicit(&shelf->slots[i], memory_order_seq_cst);
            CHECK(block != NULL && is_whole(block));
            yoke_shared_free(block);
        }
        CHECK(count_blocks() <= blocks);
        CHECK_RC(yoke_heap_stats_get(round == 4 ? &first : &last), 0);
    }
    /* A dead worker's chunks go back: 20 more deaths need no 20 times the room. */
    CHECK(last.reserved_bytes <= first.reserved_bytes + (8 << 20));
    end_pool(pool);
    yoke_shared_free(shelf);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("kills need processes");
    check_kind = YOKE_PROCESSES;
    RUN(blocks_stay_whole_and_come_back);
    RUN(blocks_of_the_dead_are_freed_by_others);
    return 0;
}
