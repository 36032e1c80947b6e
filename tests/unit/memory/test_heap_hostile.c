/* SPDX-License-Identifier: MIT
 * test_heap_hostile.c - the program goes on using a heap whose every word may be garbage.
 *
 * Idea: what a hostile worker can write, we write ourselves: hints, limits, chunk words, bitmaps;
 * likely words and random ones. After that any call may fail or hand out memory twice, but none
 * crashes, hangs, or leaves the mapping: all that comes back lies in the heap and can be written.
 */
/* timeout: 120 */
#include "check.h"
#include "memory/chunk.h"

enum { CHUNKS = 96, ROUNDS = 80, CALLS = 60, HELD = 64 };

static struct yk_heap_handle heap;
static size_t first; /* chunk of blocks */

static uint64_t likely_word(uint64_t r)
{
    static const size_t lengths[] = {0, 1, 2, 5, CHUNKS, (1 << 22) - 1, (1 << 28) - 1};
    const uint32_t owner = r % 3 == 0 ? YK_OWNER_PROGRAM : (uint32_t)(r >> 8) % 5;
    return yk_chunk_word((enum yk_chunk_kind)((r >> 16) % 7), (unsigned)(r >> 24) % 50, owner,
                         r % 64 == 0 ? lengths[(r >> 32) % 7] : lengths[(r >> 32) % 5]);
}

static uint64_t garbage(uint64_t *state)
{
    const uint64_t r = random_next(state);
    switch (r % 5) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return r >> 8;
    case 3:
        return r >> (8 + (r >> 3) % 50);
    default:
        return likely_word(r >> 3);
    }
}

static void spoil_one(uint64_t *state)
{
    _Atomic uint64_t *const shared = heap.base;
    const uint64_t r = random_next(state);
    const size_t at = (r >> 8) % CHUNKS;
    _Atomic uint64_t *spot = &((struct yk_heap_shared *)heap.base)->words[first + at];
    if (r % 8 == 0) /* a hint, a limit, the mode, a count */
        spot = &shared[(r >> 8) % 16];
    else if (r % 8 < 3) /* a bitmap, a note or a count of a chunk */
        spot = (_Atomic uint64_t *)(void *)((char *)heap.base + (first + at) * YK_CHUNK_BYTES) +
               (r >> 20) % 512;
    atomic_store_explicit(spot, garbage(state), memory_order_seq_cst);
}

static void must_be_ours(unsigned char *block, size_t bytes)
{
    CHECK_EQ(yoke_shared_contains(block, bytes), 1);
    CHECK(block + bytes <= (unsigned char *)heap.base + (first + CHUNKS) * YK_CHUNK_BYTES);
    block[0] = block[bytes - 1] = 1;
}

static void call_one(unsigned char **held, uint64_t r)
{
    unsigned char **one = &held[(r >> 8) % HELD];
    const size_t bytes = r % 7 ? (r >> 16) % 3000 + 1 : (r >> 16) % 2000000 + 1;
    yoke_heap_stats stats = {.size = sizeof stats};
    switch (r % 11) {
    case 0:
        CHECK_RC(yoke_heap_stats_get(&stats), 0);
        break;
    case 1:
        yk_heap_recover((uint32_t)(r >> 16) % 5);
        break;
    case 2:
        (void)yoke_heap_trim();
        break;
    case 3:
        *one = yoke_shared_realloc(*one, bytes);
        break;
    case 4:
    case 5:
        yoke_shared_free(*one ? *one + (r >> 16) % 3 : NULL);
        *one = NULL;
        break;
    case 6:
        (void)yoke_shared_bytes(*one);
        *one = yoke_shared_alloc_aligned(bytes, (size_t)1 << (r >> 40) % 21);
        break;
    case 7:
        *one = yoke_shared_zalloc(bytes);
        break;
    default:
        *one = yoke_shared_alloc(bytes);
        break;
    }
    const int taken = r % 11 == 3 || r % 11 > 5;
    if (taken && *one)
        must_be_ours(*one, bytes);
}

static int play(void *arg)
{
    uint64_t state = *(uint64_t *)arg;
    static unsigned char *held[HELD];
    CHECK_RC(yoke_heap_limit((size_t)CHUNKS << 18), 0);
    CHECK_RC(yk_heap_export(&heap), 0);
    unsigned char *probe = yoke_shared_alloc(100);
    first = ((uintptr_t)probe - (uintptr_t)heap.base) / YK_CHUNK_BYTES;
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_RC(yoke_heap_debug(round % 2, NULL, NULL), 0);
        const unsigned spoiled = (unsigned)(random_next(&state) % 12);
        for (int i = 0; i < CALLS; i++) {
            for (unsigned k = 0; k < spoiled; k++)
                spoil_one(&state);
            call_one(held, random_next(&state));
        }
    }
    return 0;
}

static void garbage_is_survived(void)
{
    for (int i = 0; i < 8; i++) {
        uint64_t seed = random_seed() + (uint64_t)i;
        CHECK_CHILD(play, &seed);
    }
}

/* The program goes by its own limit, whatever the shared copy says. */
static int limit_is_private(void *arg)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    (void)arg;
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    const size_t highest = stats.limit_bytes;
    CHECK_RC(yoke_heap_limit((size_t)8 << 20), 0);
    CHECK_RC(yk_heap_export(&heap), 0);
    struct yk_heap_shared *shared = heap.base;
    atomic_store_explicit(&shared->limit, 0, memory_order_seq_cst);
    void *block = yoke_shared_alloc(1 << 20);
    CHECK(block != NULL);
    atomic_store_explicit(&shared->limit, UINT64_MAX, memory_order_seq_cst);
    atomic_store_explicit(&shared->debug, 1, memory_order_seq_cst);
    CHECK(yoke_shared_alloc((size_t)9 << 20) == NULL);
    atomic_store_explicit(&shared->top, UINT64_MAX, memory_order_seq_cst);
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    CHECK(stats.peak_bytes <= highest); /* no chunk beyond was ever to be had */
    CHECK_EQ(stats.limit_bytes, (size_t)8 << 20);
    return 0;
}

static void the_programs_limit_is_its_own(void)
{
    CHECK_CHILD(limit_is_private, NULL);
}

/* Four blocks of that size fit a chunk; its bitmap now says that there are 64. */
static int too_many_bits(void *arg)
{
    enum { BYTES = 57344 };
    (void)arg;
    CHECK_RC(yk_heap_export(&heap), 0);
    unsigned char *block = yoke_shared_alloc(BYTES);
    CHECK(block != NULL);
    const size_t offset = (size_t)(block - (unsigned char *)heap.base);
    unsigned char *chunk = (unsigned char *)heap.base + offset / YK_CHUNK_BYTES * YK_CHUNK_BYTES;
    atomic_store_explicit((_Atomic uint64_t *)(void *)chunk, UINT64_MAX - 15, memory_order_seq_cst);
    for (int i = 0; i < 10; i++) {
        block = yoke_shared_alloc(BYTES);
        CHECK(block != NULL);
        const size_t at = (size_t)(block - (unsigned char *)heap.base) % YK_CHUNK_BYTES;
        CHECK(at + BYTES <= YK_CHUNK_BYTES);
        CHECK(i > 0 || block < chunk || block >= chunk + YK_CHUNK_BYTES);
        yoke_shared_free(chunk + YK_CHUNK_HEADER_BYTES + 10 * BYTES);
    }
    return 0;
}

static void bits_beyond_the_last_block_are_no_blocks(void)
{
    CHECK_CHILD(too_many_bits, NULL);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(garbage_is_survived);
    RUN(the_programs_limit_is_its_own);
    RUN(bits_beyond_the_last_block_are_no_blocks);
    return 0;
}
