/* SPDX-License-Identifier: MIT
 * test_heap_debug.c - misuses of the shared heap are found, told and counted; nothing else is.
 */
/* tsan: yes */
/* timeout: 120 */
#include "check.h"
#include <pthread.h>

/* What the callback was told last; in shared memory, since workers are told too. */
struct seen {
    atomic_long count;
    yoke_heap_fault last;
};

static struct seen *seen;

static void note_fault(const yoke_heap_fault *fault, void *context)
{
    struct seen *to = context;
    yoke_shared_free(yoke_shared_alloc(100)); /* no lock is held */
    to->last = *fault;
    count_up(&to->count, 1);
}

static void start(void)
{
    seen = shared_zeroed(sizeof *seen);
    CHECK_RC(yoke_heap_debug(1, note_fault, seen), 0);
}

static void finish(void)
{
    CHECK_RC(yoke_heap_debug(0, NULL, NULL), 0);
    yoke_shared_free(seen);
}

static size_t faults_counted(void)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    return stats.faults;
}

static void expect(long count, int kind, const void *address, const void *block, size_t bytes)
{
    CHECK_EQ(count_get(&seen->count), count);
    CHECK_EQ(seen->last.size, sizeof seen->last);
    CHECK_EQ(seen->last.kind, kind);
    CHECK(seen->last.address == address);
    CHECK(seen->last.block == block);
    CHECK_EQ(seen->last.block_bytes, bytes);
}

static int is_filled(const unsigned char *block, size_t bytes, int byte)
{
    return block[0] == byte && memcmp(block, block + 1, bytes - 1) == 0;
}

static void blocks_are_filled(void)
{
    static const size_t sizes[] = {16, 100, 5000, 57344, 100000, 1 << 20};
    start();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *block = yoke_shared_alloc(sizes[i]);
        CHECK(is_filled(block, yoke_shared_bytes(block), YOKE_HEAP_TAKEN_BYTE));
        memset(block, 1, sizes[i]);
        yoke_shared_free(block);
        CHECK(is_filled(block, sizes[i], YOKE_HEAP_FREED_BYTE));
        block = yoke_shared_zalloc(sizes[i]);
        CHECK(is_filled(block, sizes[i], 0));
        yoke_shared_free(block);
    }
    CHECK_EQ(count_get(&seen->count), 0);
    finish();
}

static void a_write_after_free_is_found_when_the_block_is_taken(void)
{
    static const size_t sizes[] = {16, 64, 5000, 57344, 100000, 3 << 20};
    start();
    long n = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int at = 0; at < 2; at++) {
            unsigned char *block = yoke_shared_alloc(sizes[i]);
            unsigned char *spot =
                at ? block + (sizes[i] < 1 << 20 ? sizes[i] : 1 << 20) - 1 : block;
            const size_t bytes = yoke_shared_bytes(block);
            yoke_shared_free(block);
            *spot = 7;
            CHECK_EQ(count_get(&seen->count), n);
            CHECK(yoke_shared_alloc(sizes[i]) == block); /* what was freed is used again */
            expect(++n, YOKE_HEAP_WRITTEN_AFTER_FREE, spot, block, bytes);
            yoke_shared_free(block);
            CHECK(yoke_shared_alloc(sizes[i]) == block);
            yoke_shared_free(block);
            CHECK_EQ(count_get(&seen->count), n); /* it is told once */
        }
    }
    finish();
}

/* The free is the first that the new time of the mode sees of the chunk. */
static void a_block_of_another_time_is_looked_at_too(void)
{
    start();
    unsigned char *block = yoke_shared_alloc(50000);
    const size_t bytes = yoke_shared_bytes(block);
    CHECK_RC(yoke_heap_debug(0, NULL, NULL), 0);
    CHECK_RC(yoke_heap_debug(1, note_fault, seen), 0);
    yoke_shared_free(block);
    block[9] = 1;
    CHECK(yoke_shared_alloc(50000) == block);
    expect(1, YOKE_HEAP_WRITTEN_AFTER_FREE, block + 9, block, bytes);
    yoke_shared_free(block);
    finish();
}

static void wrong_frees_are_found(void)
{
    start();
    const size_t before = faults_counted();
    char local = 0, *small = yoke_shared_alloc(100), *large = yoke_shared_alloc(600000);
    const size_t small_bytes = yoke_shared_bytes(small), large_bytes = yoke_shared_bytes(large);
    char *private = malloc(10);
    yoke_shared_free(&local);
    expect(1, YOKE_HEAP_NO_BLOCK, &local, NULL, 0);
    yoke_shared_free(private);
    expect(2, YOKE_HEAP_NO_BLOCK, private, NULL, 0);
    free(private);
    yoke_shared_free(small + 5);
    expect(3, YOKE_HEAP_INSIDE_BLOCK, small + 5, small, small_bytes);
    yoke_shared_free(large + 5);
    expect(4, YOKE_HEAP_INSIDE_BLOCK, large + 5, large, large_bytes);
    yoke_shared_free(large + (256 << 10)); /* where a chunk begins */
    expect(5, YOKE_HEAP_INSIDE_BLOCK, large + (256 << 10), large, large_bytes);
    CHECK_EQ(yoke_shared_bytes(small), small_bytes);
    CHECK_EQ(yoke_shared_bytes(large), large_bytes);
    yoke_shared_free(small);
    yoke_shared_free(small);
    expect(6, YOKE_HEAP_FREED_TWICE, small, small, small_bytes);
    yoke_shared_free(large);
    yoke_shared_free(large);
    expect(7, YOKE_HEAP_FREED_TWICE, large, large, 0);
    yoke_shared_free(large + 100000000); /* in the heap, where nothing ever was */
    expect(8, YOKE_HEAP_NO_BLOCK, large + 100000000, NULL, 0);
    CHECK(yoke_shared_realloc(small, 10) == NULL);
    expect(9, YOKE_HEAP_FREED_TWICE, small, small, small_bytes);
    yoke_shared_free(NULL);
    CHECK_EQ(count_get(&seen->count), 9);
    CHECK_EQ(faults_counted(), before + 9);
    finish();
    yoke_shared_free(small); /* counted, though nobody is told */
    CHECK_EQ(faults_counted(), before + 10);
}

/* What happens while the mode is off leaves nothing that is mistaken for a misuse later. */
static void blocks_of_other_times_do_no_harm(void)
{
    enum { N = 3000 };
    static unsigned char *held[N];
    struct seen *counts = shared_zeroed(sizeof *counts);
    uint64_t state = 5;
    for (int round = 0; round < 40; round++) {
        CHECK_RC(yoke_heap_debug(round % 3 != 2, note_fault, counts), 0);
        for (int i = 0; i < N; i++) {
            const size_t r = random_next(&state);
            unsigned char **one = &held[r % N];
            yoke_shared_free(*one);
            const size_t bytes = r % 499 ? (r >> 20) % 900 + 1 : (r >> 20) % 900000 + 1;
            *one = yoke_shared_alloc(bytes);
            CHECK(*one != NULL);
            memset(*one, (int)r, bytes);
        }
        if (round % 7 == 6)
            (void)yoke_heap_trim();
    }
    for (int i = 0; i < N; i++)
        yoke_shared_free(held[i]);
    CHECK_RC(yoke_heap_debug(0, NULL, NULL), 0);
    CHECK_EQ(count_get(&counts->count), 0);
    yoke_shared_free(counts);
}

static void *trade(void *arg)
{
    unsigned char *_Atomic *shelf = arg;
    uint64_t state = (uint64_t)(uintptr_t)&state;
    for (int i = 0; i < 5000; i++) {
        const uint64_t r = random_next(&state);
        const size_t bytes = r % 97 ? (r >> 20) % 600 + 1 : (r >> 20) % 200000 + 1;
        unsigned char *block = yoke_shared_alloc(bytes);
        CHECK(block != NULL);
        memset(block, 3, bytes);
        unsigned char *old =
            atomic_exchange_explicit(&shelf[(r >> 8) % 64], block, memory_order_seq_cst);
        if (old)
            old[0] = 4;
        yoke_shared_free(old);
    }
    return NULL;
}

static void threads_raise_no_false_alarm(void)
{
    enum { N = 4 };
    static unsigned char *_Atomic shelf[64];
    pthread_t threads[N];
    start();
    for (int i = 0; i < N; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, trade, shelf), 0);
    for (int i = 0; i < N; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 64; i++)
        yoke_shared_free(atomic_load_explicit(&shelf[i], memory_order_seq_cst));
    CHECK_EQ(count_get(&seen->count), 0);
    finish();
}

static int misuse(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    char *block = yoke_shared_alloc(500);
    yoke_shared_free(block);
    *block = 1;
    if (yoke_shared_alloc(500) != block)
        return 1;
    yoke_shared_free(block + 1);
    yoke_shared_free(block);
    *(int *)out = yoke_heap_debug(0, NULL, NULL);
    return 0;
}

static void run_misuse(yoke_pool *pool)
{
    int out = 0;
    CHECK_RC(yoke_map(pool, misuse, NULL, 0, &out, sizeof out, 1, NULL), 0);
    CHECK_RC(out, YOKE_ENESTED);
}

static void workers_look_too(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    yoke_pool *early = make_pool(YOKE_PROCESSES, 1);
    check_pool_works(early);
    start();
    yoke_pool *late = make_pool(YOKE_PROCESSES, 1);
    const size_t before = faults_counted();
    run_misuse(late);
    expect(2, YOKE_HEAP_INSIDE_BLOCK, seen->last.address, (char *)seen->last.address - 1, 512);
    CHECK_EQ(faults_counted(), before + 2);
    run_misuse(early); /* a copy of what was before: it counts, and tells nobody */
    CHECK_EQ(faults_counted(), before + 4);
    CHECK_EQ(count_get(&seen->count), 2);
    check_pool_works(early);
    check_pool_works(late);
    CHECK_EQ(count_get(&seen->count), 2);
    end_pool(late);
    end_pool(early);
    finish();
}

static int child_is_on_its_own(void *arg)
{
    char *block = yoke_shared_alloc(100);
    yoke_shared_free(block);
    *block = 1;
    CHECK(yoke_shared_alloc(100) == block);
    CHECK_EQ(*block, 1);
    CHECK_EQ(count_get(&((struct seen *)arg)->count), 0);
    CHECK_EQ(faults_counted(), 0);
    return 0;
}

static void a_forked_child_does_not_look(void)
{
    if (CHECK_TSAN)
        return;
    start();
    CHECK_CHILD(child_is_on_its_own, seen);
    CHECK_EQ(count_get(&seen->count), 0);
    finish();
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(blocks_are_filled);
    RUN(a_write_after_free_is_found_when_the_block_is_taken);
    RUN(a_block_of_another_time_is_looked_at_too);
    RUN(wrong_frees_are_found);
    RUN(blocks_of_other_times_do_no_harm);
    RUN(threads_raise_no_false_alarm);
    RUN(workers_look_too);
    RUN(a_forked_child_does_not_look);
    return 0;
}
