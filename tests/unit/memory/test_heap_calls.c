/* SPDX-License-Identifier: MIT
 * test_heap_calls.c - alignment, zeros, sizes, realloc and statistics of the shared heap.
 */
/* tsan: yes */
#include "check.h"

enum { MIB = 1 << 20 };

static yoke_heap_stats stats_now(void)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    return stats;
}

static void every_alignment_holds(void)
{
    static const size_t sizes[] = {1, 16, 100, 4096, 5000, 57344, 57345, 300000};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    const size_t blocks = count_blocks();
    for (size_t alignment = 1; alignment <= (size_t)8 * MIB; alignment *= 2) {
        unsigned char *held[SIZES];
        for (size_t i = 0; i < SIZES; i++) {
            held[i] = yoke_shared_alloc_aligned(sizes[i], alignment);
            CHECK(held[i] != NULL);
            CHECK_EQ((uintptr_t)held[i] % alignment, 0);
            CHECK(yoke_shared_bytes(held[i]) >= sizes[i]);
            memset(held[i], (int)i + 1, sizes[i]);
        }
        for (size_t i = 0; i < SIZES; i++) {
            CHECK_EQ(held[i][0], i + 1);
            CHECK_EQ(held[i][sizes[i] - 1], i + 1);
            yoke_shared_free(held[i]);
        }
        CHECK_EQ(count_blocks(), blocks);
    }
    void *page = yoke_shared_alloc_aligned(1, 4096);
    CHECK_EQ(yoke_shared_bytes(page), 4096); /* no more than need be */
    yoke_shared_free(page);
}

static void what_is_no_alignment_gives_null(void)
{
    const size_t blocks = count_blocks();
    CHECK(yoke_shared_alloc_aligned(100, 0) == NULL);
    CHECK(yoke_shared_alloc_aligned(100, 3) == NULL);
    CHECK(yoke_shared_alloc_aligned(100, 96) == NULL);
    CHECK(yoke_shared_alloc_aligned(100, (size_t)2 << 30) == NULL);
    CHECK(yoke_shared_alloc_aligned(100, (size_t)1 << 63) == NULL);
    CHECK(yoke_shared_alloc_aligned(0, 64) == NULL);
    CHECK(yoke_shared_alloc_aligned(SIZE_MAX, 64) == NULL);
    CHECK_EQ(count_blocks(), blocks);
}

static int is_zero(const unsigned char *block, size_t bytes)
{
    return block[0] == 0 && memcmp(block, block + 1, bytes - 1) == 0;
}

static void zalloc_gives_zeros_where_others_wrote(void)
{
    static const size_t sizes[] = {1, 64, 5000, 57344, 57345, 3 * MIB + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *dirty[8];
        for (int k = 0; k < 8; k++) {
            dirty[k] = yoke_shared_alloc(sizes[i]);
            CHECK(dirty[k] != NULL);
            memset(dirty[k], 0xff, sizes[i]);
        }
        for (int k = 0; k < 8; k++)
            yoke_shared_free(dirty[k]);
        /* Among and beyond what was used. */
        for (int k = 0; k < 8; k++) {
            unsigned char *block = yoke_shared_zalloc(k == 7 ? 20 * sizes[i] : sizes[i]);
            CHECK(block != NULL);
            CHECK(is_zero(block, sizes[i]));
            CHECK(k < 7 || is_zero(block, 20 * sizes[i]));
            dirty[k] = block;
        }
        for (int k = 0; k < 8; k++)
            yoke_shared_free(dirty[k]);
    }
    CHECK(yoke_shared_zalloc(0) == NULL);
    CHECK(yoke_shared_zalloc(SIZE_MAX) == NULL);
}

static void bytes_are_those_of_blocks_in_use(void)
{
    static const size_t sizes[] = {1, 16, 17, 1000, 57344, 57345, 5 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *block = yoke_shared_alloc(sizes[i]);
        const size_t bytes = yoke_shared_bytes(block);
        CHECK(bytes >= sizes[i]);
        memset(block, 1, bytes);
        CHECK_EQ(yoke_shared_bytes(block + 1), 0);
        CHECK_EQ(yoke_shared_bytes(block + bytes / 2 + 1), 0);
        yoke_shared_free(block);
        CHECK_EQ(yoke_shared_bytes(block), 0);
    }
    int local = 0;
    CHECK_EQ(yoke_shared_bytes(NULL), 0);
    CHECK_EQ(yoke_shared_bytes(&local), 0);
}

static void realloc_keeps_what_was_there(void)
{
    static const size_t sizes[] = {10, 12, 1000, 100000, 4 * MIB, 70000, 60, 1};
    const size_t blocks = count_blocks();
    unsigned char *block = yoke_shared_realloc(NULL, 5);
    CHECK(block != NULL);
    memset(block, 0, 5);
    size_t had = 5;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        block = yoke_shared_realloc(block, sizes[i]);
        CHECK(block != NULL);
        CHECK(yoke_shared_bytes(block) >= sizes[i]);
        const size_t same = had < sizes[i] ? had : sizes[i];
        for (size_t k = 0; k < same; k++)
            CHECK_EQ(block[k], (unsigned char)(k * i));
        for (size_t k = 0; k < sizes[i]; k++)
            block[k] = (unsigned char)(k * (i + 1));
        had = sizes[i];
        CHECK_EQ(count_blocks(), blocks + 1);
    }
    CHECK(yoke_shared_realloc(block, 0) == NULL);
    CHECK(yoke_shared_realloc(block, SIZE_MAX) == NULL);
    CHECK_EQ(count_blocks(), blocks + 1); /* it is still there */
    yoke_shared_free(block);
    int local = 0;
    CHECK(yoke_shared_realloc(block, 100) == NULL); /* no block any more */
    CHECK(yoke_shared_realloc(&local, 100) == NULL);
    CHECK_EQ(count_blocks(), blocks);
}

/* Free runs that are all a little too short must not be walked from each of their chunks. */
static void many_short_runs_are_passed_quickly(void)
{
    enum { RUNS = 40, HOLES = 1000 };
    const size_t run = (size_t)200 * MIB, chunk = (size_t)256 << 10;
    void *held[RUNS], *between[RUNS], *in_holes[HOLES];
    int holes = 0;
    CHECK_RC(yoke_heap_limit((size_t)RUNS * (run + chunk) + 16 * (size_t)MIB), 0);
    int n = 0;
    while (n < RUNS && (held[n] = yoke_shared_alloc(run)) != NULL) {
        /* Where the parts before left holes depends on the address of the heap. */
        while ((between[n] = yoke_shared_alloc(chunk)) != NULL && between[n] < held[n]) {
            CHECK(holes < HOLES);
            in_holes[holes++] = between[n];
        }
        n++;
    }
    for (int i = 0; i < n; i++)
        yoke_shared_free(held[i]);
    int64_t best = INT64_MAX, walk = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        const int64_t from = yoke_now_ns();
        CHECK(yoke_shared_alloc(run + chunk) == NULL);
        const int64_t then = yoke_now_ns();
        (void)stats_now(); /* looks at each word once */
        best = then - from < best ? then - from : best;
        walk = yoke_now_ns() - then < walk ? yoke_now_ns() - then : walk;
    }
    fprintf(stderr,
            "    %d runs of 800 chunks, %d holes: %" PRId64 " us, to walk them %" PRId64 " us\n", n,
            holes, best / 1000, walk / 1000);
    CHECK(best < 100 * walk * check_slowness()); /* from each chunk it would be 1000 */
    CHECK_RC(yoke_heap_limit((size_t)1 << 50), 0);
    for (int i = 0; i < n; i++)
        yoke_shared_free(between[i]);
    for (int i = 0; i < holes; i++)
        yoke_shared_free(in_holes[i]);
}

static void statistics_add_up(void)
{
    enum { N = 20000, LARGE = 7 };
    static void *held[N];
    const yoke_heap_stats before = stats_now();
    for (int i = 0; i < N; i++)
        held[i] = yoke_shared_alloc(i < LARGE ? 3 * MIB : (size_t)i % 700 + 1);
    yoke_heap_stats now = stats_now();
    CHECK_EQ(now.blocks, before.blocks + N);
    CHECK_EQ(now.large_blocks, before.large_blocks + LARGE);
    CHECK_EQ(now.large_bytes, before.large_bytes + (size_t)LARGE * 3 * MIB);
    CHECK_EQ(now.allocations, before.allocations + N);
    CHECK_EQ(now.large_allocations, before.large_allocations + LARGE);
    CHECK_EQ(now.frees, before.frees);
    CHECK(now.peak_bytes >= now.reserved_bytes);
    CHECK(now.reserved_bytes >= now.used_bytes);
    const size_t peak = now.peak_bytes;
    for (int i = 0; i < N; i++)
        yoke_shared_free(held[i]);
    now = stats_now();
    CHECK_EQ(now.blocks, before.blocks);
    CHECK_EQ(now.frees, before.frees + N);
    CHECK_EQ(now.large_bytes, before.large_bytes);
    CHECK(now.idle_bytes >= (size_t)LARGE * 3 * MIB);
    CHECK_EQ(now.peak_bytes, peak);
    /* What a chunk counted is not lost with it. */
    (void)yoke_heap_trim();
    now = stats_now();
    CHECK_EQ(now.allocations, before.allocations + N);
    CHECK_EQ(now.frees, before.frees + N);
}

static void an_older_caller_gets_what_he_knows(void)
{
    struct {
        size_t size, limit_bytes, reserved_bytes, used_bytes, blocks, guard;
    } old = {.size = 5 * sizeof(size_t), .guard = 77};
    CHECK_RC(yoke_heap_stats_get((yoke_heap_stats *)(void *)&old), 0);
    CHECK_EQ(old.blocks, count_blocks());
    CHECK_EQ(old.guard, 77);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(every_alignment_holds);
    RUN(what_is_no_alignment_gives_null);
    RUN(zalloc_gives_zeros_where_others_wrote);
    RUN(bytes_are_those_of_blocks_in_use);
    RUN(realloc_keeps_what_was_there);
    RUN(many_short_runs_are_passed_quickly);
    RUN(statistics_add_up);
    RUN(an_older_caller_gets_what_he_knows);
    return 0;
}
