/* SPDX-License-Identifier: MIT
 * test_heap_trade.c - several processes take, free, grow and trim at once, and are killed in it.
 *
 * Idea: blocks of all kinds change hands on a shelf in shared memory, so most are freed by another
 * process than took them. The debug mode, on for some rounds, says of itself whether a block was
 * written after it was freed, or freed twice: with correct workers it must say nothing, whatever
 * instruction they are killed at.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 200
#include "killer.h"

enum { SLOTS = 128, STEPS = 80, TASKS = 1500, TASKS_MAX = 60000, KILLS = 15 };

struct block {
    uint64_t bytes, check;
    unsigned char fill[];
};

struct shelf {
    _Atomic(struct block *) slots[SLOTS];
    atomic_long wrong, full, trimmed, told;
};

static uint64_t check_of(const struct block *block)
{
    return block->bytes * 31 + (uintptr_t)block;
}

static unsigned char pattern(const struct block *block, uint64_t i)
{
    return (unsigned char)((uintptr_t)block / 16 + i * 5);
}

static void fill_block(struct block *block, size_t bytes)
{
    block->bytes = bytes;
    block->check = check_of(block);
    for (uint64_t i = 0; i < bytes; i += 1 + bytes / 64)
        block->fill[i] = pattern(block, i);
}

static int is_whole(const struct block *block)
{
    if (block->check != check_of(block))
        return 0;
    for (uint64_t i = 0; i < block->bytes; i += 1 + block->bytes / 64) {
        if (block->fill[i] != pattern(block, i))
            return 0;
    }
    return 1;
}

static struct block *take(uint64_t r, struct shelf *shelf)
{
    const size_t bytes = (r >> 20) % (r % 31 ? 900 : r % 2 ? 200000 : 3000000);
    const size_t whole = sizeof(struct block) + bytes;
    struct block *block = NULL;
    switch (r % 3) {
    case 0:
        block = yoke_shared_alloc(whole);
        break;
    case 1:
        block = yoke_shared_zalloc(whole);
        if (block && (block->bytes || block->check || (bytes && block->fill[bytes - 1])))
            count_up(&shelf->wrong, 1);
        break;
    default:
        block = yoke_shared_alloc_aligned(whole, (size_t)1 << (r >> 12) % 15);
        if (block && (uintptr_t)block % ((size_t)1 << (r >> 12) % 15))
            count_up(&shelf->wrong, 1);
        break;
    }
    if (block)
        fill_block(block, bytes);
    else
        count_up(&shelf->full, 1);
    return block;
}

static struct block *grow(struct block *block)
{
    struct block *other = yoke_shared_realloc(block, sizeof *block + block->bytes + 300);
    if (!other)
        return block;
    other->check = check_of(other);
    for (uint64_t i = 0; i < other->bytes; i += 1 + other->bytes / 64) {
        other->fill[i] = pattern(other, i);
    }
    return other;
}

static int trade(yoke_task *task, const void *in, void *out)
{
    struct shelf *shelf = *(struct shelf *const *)in;
    uint64_t state = (uint64_t)getpid() ^ (uint64_t)yoke_now_ns();
    (void)task;
    (void)out;
    for (int i = 0; i < STEPS; i++) {
        const uint64_t r = random_next(&state);
        struct block *block = r % 5 ? take(r / 5, shelf) : NULL;
        if (block && r % 11 == 0)
            block = grow(block);
        struct block *old =
            atomic_exchange_explicit(&shelf->slots[(r >> 8) % SLOTS], block, memory_order_seq_cst);
        if (old && !is_whole(old))
            count_up(&shelf->wrong, 1);
        if (old)
            old->check = 0; /* a block handed out twice is seen */
        yoke_shared_free(old);
        if (r % 401 == 0)
            count_up(&shelf->trimmed, (long)(yoke_heap_trim() / 1024));
    }
    return 0;
}

static void note_fault(const yoke_heap_fault *fault, void *context)
{
    struct shelf *shelf = context;
    fprintf(stderr, "    misuse %d at %p, block %p of %zu\n", fault->kind, fault->address,
            fault->block, fault->block_bytes);
    count_up(&shelf->told, 1);
}

static long run_trades(yoke_pool *pool, struct shelf *shelf)
{
    struct killer killer = {
        .pool = pool, .random = random_seed(), .pause_us = 4000, .tasks_apart = 5};
    killer_start(&killer);
    yoke_job *window[32] = {NULL};
    for (int i = 0; i < TASKS || (i < TASKS_MAX && count_get(&killer.kills) < KILLS); i++) {
        yoke_job **job = &window[i % 32];
        if (*job) {
            CHECK_RC(yoke_wait(*job, soon()), 0);
            yoke_job_release(*job);
        }
        CHECK_RC(yoke_submit(pool, trade, &shelf, sizeof shelf, 0, NULL, job), 0);
        /* The program takes part. */
        struct block *old = atomic_exchange_explicit(
            &shelf->slots[i % SLOTS], take((uint64_t)i, shelf), memory_order_seq_cst);
        CHECK(!old || is_whole(old));
        if (old)
            old->check = 0;
        yoke_shared_free(old);
    }
    CHECK_RC(yoke_wait_all(window, 32, soon()), 0);
    for (int i = 0; i < 32; i++)
        yoke_job_release(window[i]);
    return killer_stop(&killer);
}

static void empty_shelf(struct shelf *shelf)
{
    for (int i = 0; i < SLOTS; i++) {
        struct block *block =
            atomic_exchange_explicit(&shelf->slots[i], NULL, memory_order_seq_cst);
        CHECK(!block || is_whole(block));
        if (block)
            block->check = 0;
        yoke_shared_free(block);
    }
}

static yoke_heap_stats stats_now(void)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    return stats;
}

static void trade_and_die(int debug)
{
    struct shelf *shelf = shared_zeroed(sizeof *shelf);
    CHECK_RC(yoke_heap_debug(debug, note_fault, shelf), 0);
    const yoke_heap_stats before = stats_now();
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 3);
    const long kills = run_trades(pool, shelf);
    empty_shelf(shelf);
    check_pool_works(pool);
    end_pool(pool);
    const yoke_heap_stats after = stats_now();
    const long lost = (long)(after.blocks - before.blocks);
    fprintf(stderr, "    %ld kills, %ld blocks lost in dead hands, %ld MiB trimmed by workers\n",
            kills, lost, count_get(&shelf->trimmed) / 1024);
    CHECK_EQ(count_get(&shelf->wrong), 0);
    CHECK_EQ(count_get(&shelf->told), 0);
    CHECK_EQ(after.faults, before.faults);
    CHECK(count_get(&shelf->full) == 0);
    /* In its hands: the block it made, the one it grew that into, the one off the shelf. */
    CHECK(lost >= 0 && lost <= 3 * kills);
    CHECK(after.recovered_bytes > before.recovered_bytes);
    CHECK_RC(yoke_heap_debug(0, NULL, NULL), 0);
    /* All chunks that hold nothing can be given back. */
    (void)yoke_heap_trim();
    CHECK_EQ(stats_now().idle_bytes, 0);
    yoke_shared_free(shelf);
}

static void blocks_of_all_kinds_change_hands(void)
{
    trade_and_die(0);
}

static void nothing_is_written_after_it_was_freed(void)
{
    trade_and_die(1);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("kills need processes");
    check_kind = YOKE_PROCESSES;
    RUN(blocks_of_all_kinds_change_hands);
    RUN(nothing_is_written_after_it_was_freed);
    return 0;
}
