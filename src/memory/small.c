/* SPDX-License-Identifier: MIT
 * small.c - small blocks of the shared heap: a bitmap per chunk.   Room: memory.
 *
 * One chunk per size class is ours; a full one is let go, and whoever finds room in it later takes
 * it over. Bits beyond the last block are whatever a worker wrote, and are never looked at. The
 * lowest free block is taken first, so memory that is in the caches is used again.
 */
#include "memory/chunk.h"

#define SCAN_MAX 256 /* chunk words looked at for a part-filled chunk before a new one is taken */
#define TRIES 4      /* chunks that somebody else may fill or spoil under us, before we give up */

#define BLOCKS(size) ((YK_CHUNK_BYTES - YK_CHUNK_HEADER_BYTES) / (size))
#define CLASS(size) \
    { \
        .bytes = (size), .blocks = BLOCKS(size), .words = (BLOCKS(size) + 63) / 64, \
        .last = UINT64_MAX >> (63 - (BLOCKS(size) - 1) % 64), \
        .inverse = ((1ULL << YK_CLASS_SHIFT) + (size)-1) / (size) \
    }
#define TIMES(n, unit) CLASS((size_t)(n) * (unit))
#define DOUBLING(unit) TIMES(5, unit), TIMES(6, unit), TIMES(7, unit), TIMES(8, unit)

const struct yk_class yk_classes[YK_CLASS_COUNT] = {
    CLASS(16),      CLASS(32),      CLASS(48),      CLASS(64),      CLASS(80),
    CLASS(96),      CLASS(112),     CLASS(128),     DOUBLING(32),   DOUBLING(64),
    DOUBLING(128),  DOUBLING(256),  DOUBLING(512),  DOUBLING(1024), DOUBLING(2048),
    DOUBLING(4096), TIMES(5, 8192), TIMES(6, 8192), TIMES(7, 8192)};

static struct yk_chunk *chunk_at(struct yk_heap *heap, size_t index)
{
    return (struct yk_chunk *)yk_chunk_start(heap, index);
}

bool yk_small_all_free(struct yk_heap *heap, size_t index, unsigned class)
{
    const struct yk_chunk *const chunk = chunk_at(heap, index);
    const struct yk_class *const kind = &yk_classes[class];
    for (size_t i = 0; i < kind->words; i++) {
        const uint64_t full = yk_chunk_valid_bits(kind, i);
        /* SYNC(block-bits) acquire: a freed block's last use happened before. */
        if ((atomic_load_explicit(&chunk->free[i], memory_order_acquire) & full) != full) {
            return false;
        }
    }
    return true;
}

static void set_all_free(struct yk_heap *heap, size_t index, unsigned class)
{
    struct yk_chunk *const chunk = chunk_at(heap, index);
    for (size_t i = 0; i < YK_CHUNK_BITMAP_WORDS; i++) {
        const uint64_t bits = yk_chunk_valid_bits(&yk_classes[class], i);
        /* relaxed: the chunk's word publishes it. */
        atomic_store_explicit(&chunk->free[i], bits, memory_order_relaxed);
    }
    /* relaxed: the chunk's word publishes it. */
    atomic_store_explicit(&chunk->debug, 0, memory_order_relaxed);
    /* relaxed: the chunk's word publishes it. */
    atomic_store_explicit(&chunk->taken, 0, memory_order_relaxed);
}

static void hint_set(struct yk_heap *heap, unsigned class, size_t word)
{
    /* relaxed: a hint; who takes a block tries all words. */
    atomic_store_explicit(&heap->hint[class], (uint16_t)word, memory_order_relaxed);
}

static size_t hint_get(const struct yk_heap *heap, unsigned class)
{
    /* relaxed: a hint; it is compared with the number of words. */
    const size_t word = atomic_load_explicit(&heap->hint[class], memory_order_relaxed);
    return word < yk_classes[class].words ? word : 0;
}

static size_t current_get(const struct yk_heap *heap, unsigned class)
{
    /* relaxed: changed under the lock; without it only to see where a hint belongs. */
    return atomic_load_explicit(&heap->current[class], memory_order_relaxed);
}

static void current_set(struct yk_heap *heap, unsigned class, size_t index) YK_REQUIRES(heap->lock)
{
    /* relaxed: see current_get. */
    atomic_store_explicit(&heap->current[class], (uint32_t)index, memory_order_relaxed);
}

static void count_taken(struct yk_chunk *chunk)
{
    /* relaxed: only the owner counts, under its lock. */
    const uint64_t taken = atomic_load_explicit(&chunk->taken, memory_order_relaxed);
    /* relaxed: as above. */
    atomic_store_explicit(&chunk->taken, taken + 1, memory_order_relaxed);
}

/* Take a free block of our chunk; NULL when it is full. */
static void *take_block(struct yk_heap *heap, size_t index, unsigned class, void *_Atomic *note)
    YK_REQUIRES(heap->lock)
{
    struct yk_chunk *const chunk = chunk_at(heap, index);
    const struct yk_class *const kind = &yk_classes[class];
    const size_t hint = hint_get(heap, class);
    size_t at = hint;
    for (size_t i = 0; i < kind->words; i++, at = at + 1 < kind->words ? at + 1 : 0) {
        /* SYNC(block-bits) acquire: who freed the block is done with it. */
        const uint64_t all = atomic_load_explicit(&chunk->free[at], memory_order_acquire);
        const uint64_t bits = all & yk_chunk_valid_bits(kind, at);
        if (bits == 0) {
            continue;
        }
        const size_t block = at * 64 + yk_lowest_bit(bits);
        void *const start = (unsigned char *)chunk + YK_CHUNK_HEADER_BYTES + block * kind->bytes;
        yk_heap_note(note, start);
        /* SYNC(block-bits) release: not before the note stands. Only the owner clears bits. */
        atomic_fetch_and_explicit(&chunk->free[at], ~(bits & (0 - bits)), memory_order_release);
        if (at != hint) {
            hint_set(heap, class, at);
        }
        count_taken(chunk);
        return start;
    }
    return NULL;
}

size_t yk_small_count_free(struct yk_heap *heap, size_t index, unsigned class)
{
    const struct yk_chunk *const chunk = chunk_at(heap, index);
    const struct yk_class *const kind = &yk_classes[class];
    size_t free = 0;
    for (size_t i = 0; i < kind->words; i++) {
        /* relaxed: an estimate. */
        const uint64_t bits = atomic_load_explicit(&chunk->free[i], memory_order_relaxed);
        free += yk_count_bits(bits & yk_chunk_valid_bits(kind, i));
    }
    return free;
}

static bool worth_taking(struct yk_heap *heap, size_t index, unsigned class)
{
    const size_t free = yk_small_count_free(heap, index, class);
    return free > 0 && free >= yk_classes[class].blocks / 8U;
}

/* A chunk of this class that nobody owns and that has room; 0: none among the next few. */
static size_t take_over(struct yk_heap *heap, unsigned class, size_t scan) YK_REQUIRES(heap->lock)
{
    const size_t top = yk_heap_top(heap);
    size_t at = heap->cursor;
    for (size_t i = 0; i < scan && i < top; i++) {
        at = at >= top || at < heap->first ? heap->first : at;
        if (at >= top) {
            break;
        }
        const uint64_t word = yk_chunk_load(heap, at);
        if (word == yk_chunk_word(YK_CHUNK_SMALL, class, YK_OWNER_NOBODY, 0) &&
            worth_taking(heap, at, class) &&
            yk_chunk_swap(heap, at, word, yk_chunk_word(YK_CHUNK_SMALL, class, heap->owner, 0))) {
            heap->cursor = at + 1;
            return at;
        }
        at += yk_chunk_step(word);
    }
    heap->cursor = at;
    return 0;
}

/* Whoever finds room in our chunk of that class later may take it over. */
static void let_go(struct yk_heap *heap, unsigned class) YK_REQUIRES(heap->lock)
{
    const size_t old = current_get(heap, class);
    if (old != 0) {
        yk_chunk_swap(heap, old, yk_chunk_word(YK_CHUNK_SMALL, class, heap->owner, 0),
                      yk_chunk_word(YK_CHUNK_SMALL, class, YK_OWNER_NOBODY, 0));
        current_set(heap, class, 0);
    }
}

void yk_small_let_go(struct yk_heap *heap) YK_REQUIRES(heap->lock)
{
    for (unsigned class = 0; class < YK_CLASS_COUNT; class ++) {
        let_go(heap, class);
    }
}

static size_t new_chunk(struct yk_heap *heap, unsigned class)
{
    const size_t at = yk_run_claim(heap, 1, 1);
    if (at != 0) {
        if (YK_UNLIKELY(yk_heap_debug_now(heap) != 0)) {
            yk_debug_forget(heap, at, 1);
        }
        set_all_free(heap, at, class);
        yk_chunk_store(heap, at, yk_chunk_word(YK_CHUNK_SMALL, class, heap->owner, 0));
    }
    return at;
}

static bool next_chunk(struct yk_heap *heap, unsigned class) YK_REQUIRES(heap->lock)
{
    let_go(heap, class);
    hint_set(heap, class, 0);
    size_t at = take_over(heap, class, SCAN_MAX);
    at = at != 0 ? at : new_chunk(heap, class);
    at = at != 0 ? at : take_over(heap, class, SIZE_MAX);
    current_set(heap, class, at);
    return at != 0;
}

void *yk_small_alloc(struct yk_heap *heap, unsigned class, void *_Atomic *note)
    YK_REQUIRES(heap->lock)
{
    for (int tries = 0; tries < TRIES; tries++) {
        const size_t index = current_get(heap, class);
        void *const block = index != 0 ? take_block(heap, index, class, note) : NULL;
        if (block != NULL || !next_chunk(heap, class)) {
            return block;
        }
    }
    return NULL;
}

bool yk_small_free(struct yk_heap *heap, size_t index, const unsigned char *block, unsigned class)
{
    struct yk_chunk *const chunk = chunk_at(heap, index);
    const size_t n =
        yk_chunk_block_at(&yk_classes[class], (size_t)(block - (const unsigned char *)chunk));
    if (n == SIZE_MAX) {
        return false;
    }
    const uint64_t bit = 1ULL << n % 64;
    /* SYNC(block-bits) release: our use of the block is over before anyone takes it. */
    const uint64_t old = atomic_fetch_or_explicit(&chunk->free[n / 64], bit, memory_order_release);
    if (current_get(heap, class) == index && n / 64 < hint_get(heap, class)) {
        hint_set(heap, class, n / 64);
    }
    return (old & bit) == 0;
}

bool yk_small_in_use(const unsigned char *chunk_at, size_t block)
{
    const struct yk_chunk *const chunk = (const struct yk_chunk *)chunk_at;
    /* relaxed: who asks holds the block, or asks in vain. */
    const uint64_t bits = atomic_load_explicit(&chunk->free[block / 64], memory_order_relaxed);
    return (bits >> block % 64 & 1) == 0;
}
