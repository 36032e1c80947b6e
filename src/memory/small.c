/* SPDX-License-Identifier: MIT
 * small.c - small blocks of the shared heap: a bitmap per chunk.   Room: memory.
 *
 * One chunk per size class is ours; a full one is let go, and whoever finds room in it later takes
 * it over. Bits beyond the last block are whatever a worker wrote, and are never looked at.
 */
#include "memory/chunk.h"

#define SCAN_MAX 256 /* chunk words looked at for a part-filled chunk before a new one is taken */

bool yk_small_all_free(struct yk_heap *heap, size_t index, unsigned class)
{
    const struct yk_chunk *const chunk = (const struct yk_chunk *)yk_chunk_start(heap, index);
    for (size_t i = 0; yk_chunk_valid_bits(class, i) != 0; i++) {
        const uint64_t full = yk_chunk_valid_bits(class, i);
        /* SYNC(block-bits) acquire: a freed block's last use happened before. */
        if ((atomic_load_explicit(&chunk->free[i], memory_order_acquire) & full) != full) {
            return false;
        }
    }
    return true;
}

static void set_all_free(struct yk_heap *heap, size_t index, unsigned class)
{
    struct yk_chunk *const chunk = (struct yk_chunk *)yk_chunk_start(heap, index);
    for (size_t i = 0; i < YK_CHUNK_BITMAP_WORDS; i++) {
        /* relaxed: the chunk's word publishes it. */
        atomic_store_explicit(&chunk->free[i], yk_chunk_valid_bits(class, i), memory_order_relaxed);
    }
}

/* Take a free block of our chunk; NULL when it is full. */
static void *take_block(struct yk_heap *heap, size_t index, unsigned class, void *_Atomic *note)
    YK_REQUIRES(heap->lock)
{
    struct yk_chunk *const chunk = (struct yk_chunk *)yk_chunk_start(heap, index);
    const size_t blocks = yk_chunk_blocks(class);
    const size_t words = (blocks + 63) / 64;
    size_t at = heap->hint[class] < words ? heap->hint[class] : 0;
    for (size_t i = 0; i < words; i++, at = at + 1 < words ? at + 1 : 0) {
        /* SYNC(block-bits) acquire: who freed the block is done with it. */
        const uint64_t all = atomic_load_explicit(&chunk->free[at], memory_order_acquire);
        const uint64_t bits = all & yk_chunk_valid_bits(class, at);
        if (bits == 0) {
            continue;
        }
        const size_t block = at * 64 + yk_lowest_bit(bits);
        void *const start =
            (unsigned char *)chunk + YK_CHUNK_HEADER_BYTES + block * yk_class_bytes(class);
        yk_heap_note(note, start);
        /* SYNC(block-bits) release: not before the note stands. Only the owner clears bits. */
        atomic_fetch_and_explicit(&chunk->free[at], ~(bits & (0 - bits)), memory_order_release);
        heap->hint[class] = (uint16_t)at;
        return start;
    }
    return NULL;
}

size_t yk_small_count_free(struct yk_heap *heap, size_t index, unsigned class)
{
    const struct yk_chunk *const chunk = (const struct yk_chunk *)yk_chunk_start(heap, index);
    size_t free = 0;
    for (size_t i = 0; yk_chunk_valid_bits(class, i) != 0; i++) {
        /* relaxed: an estimate. */
        const uint64_t bits = atomic_load_explicit(&chunk->free[i], memory_order_relaxed);
        free += yk_count_bits(bits & yk_chunk_valid_bits(class, i));
    }
    return free;
}

static bool worth_taking(struct yk_heap *heap, size_t index, unsigned class)
{
    const size_t free = yk_small_count_free(heap, index, class);
    return free > 0 && free >= yk_chunk_blocks(class) / 8;
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

static size_t next_chunk(struct yk_heap *heap, unsigned class) YK_REQUIRES(heap->lock)
{
    const size_t full = heap->current[class];
    if (full != 0) {
        /* Whoever finds room in it later may take it over. */
        yk_chunk_swap(heap, full, yk_chunk_word(YK_CHUNK_SMALL, class, heap->owner, 0),
                      yk_chunk_word(YK_CHUNK_SMALL, class, YK_OWNER_NOBODY, 0));
        heap->current[class] = 0;
    }
    heap->hint[class] = 0;
    size_t at = take_over(heap, class, SCAN_MAX);
    if (at != 0) {
        return at;
    }
    at = yk_run_claim(heap, 1);
    if (at != 0) {
        set_all_free(heap, at, class);
        yk_chunk_store(heap, at, yk_chunk_word(YK_CHUNK_SMALL, class, heap->owner, 0));
        return at;
    }
    return take_over(heap, class, SIZE_MAX);
}

void *yk_small_alloc(struct yk_heap *heap, size_t bytes, void *_Atomic *note)
    YK_REQUIRES(heap->lock)
{
    const unsigned class = yk_class_of(bytes);
    for (;;) {
        const size_t index = heap->current[class];
        void *const block = index != 0 ? take_block(heap, index, class, note) : NULL;
        if (block != NULL) {
            return block;
        }
        const size_t next = next_chunk(heap, class);
        if (next == 0) {
            return NULL;
        }
        heap->current[class] = (uint32_t)next;
    }
}

bool yk_small_free(unsigned char *chunk_at, const unsigned char *block, unsigned class)
{
    struct yk_chunk *const chunk = (struct yk_chunk *)chunk_at;
    const size_t offset = (size_t)(block - chunk_at);
    const size_t size = yk_class_bytes(class);
    if (offset < YK_CHUNK_HEADER_BYTES || (offset - YK_CHUNK_HEADER_BYTES) % size != 0) {
        return false;
    }
    const size_t index = (offset - YK_CHUNK_HEADER_BYTES) / size;
    if (index >= yk_chunk_blocks(class)) {
        return false;
    }
    _Atomic uint64_t *const word = &chunk->free[index / 64];
    const uint64_t bit = 1ULL << index % 64;
    /* SYNC(block-bits) release: our use of the block is over before anyone takes it. */
    return (atomic_fetch_or_explicit(word, bit, memory_order_release) & bit) == 0;
}
