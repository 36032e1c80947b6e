/* SPDX-License-Identifier: MIT
 * debug.c - misuses of the shared heap, found while the program asks for it.   Room: memory.
 *
 * Idea: who frees a block fills it and notes so (a bit of its chunk, or a tag for each chunk of a
 * large block); who takes one that is noted looks for another byte in it. Each time the mode is
 * set on has a number, and notes of other times do not count: blocks that were freed meanwhile
 * were not filled. The notes are set before the block is free and cleared after it was taken, so
 * a kill between leaves at most a note that the next free sets again.
 */
#include "memory/chunk.h"

#include <errno.h>

/* Of a large block, this much is filled and looked at: a worker's word for its length must not
 * make us fill the whole heap. */
#define FILLED_CHUNKS ((size_t)4)

static yk_heap_tag *tag_at(struct yk_heap *heap, size_t index)
{
    void *const after = &yk_heap_base(heap)->words[heap->count];
    return (yk_heap_tag *)after + index;
}

/* --- telling --------------------------------------------------------------------------------- */

static void tell(struct yk_heap *heap, const yoke_heap_fault *fault)
{
    /* relaxed: a count. */
    atomic_fetch_add_explicit(&yk_heap_base(heap)->faults, 1, memory_order_relaxed);
    if (yk_heap_debug_now(heap) == 0) {
        return;
    }
    yk_mutex_lock(&heap->lock);
    yoke_heap_fault_fn *const told = heap->told;
    void *const context = heap->told_context;
    yk_mutex_unlock(&heap->lock);
    if (told != NULL) {
        told(fault, context);
    }
}

/* The first byte that is not that one; bytes: there is none. */
static size_t first_other(const unsigned char *at, size_t bytes, unsigned char byte)
{
    if (at[0] == byte && memcmp(at, at + 1, bytes - 1) == 0) {
        return bytes;
    }
    size_t i = 0;
    while (i < bytes && at[i] == byte) {
        i++;
    }
    return i;
}

struct piece {
    unsigned char *start;
    size_t bytes;
};

static void look_at(struct yk_heap *heap, struct piece piece, struct piece block)
{
    const size_t other = first_other(piece.start, piece.bytes, YOKE_HEAP_FREED_BYTE);
    if (other < piece.bytes) {
        const yoke_heap_fault fault = {.size = sizeof fault,
                                       .kind = YOKE_HEAP_WRITTEN_AFTER_FREE,
                                       .address = piece.start + other,
                                       .block = block.start,
                                       .block_bytes = block.bytes};
        tell(heap, &fault);
    }
}

/* --- small blocks ---------------------------------------------------------------------------- */

/* The chunk's notes are of this time from here on. Two may do this at once: the worst is that a
 * note is lost. */
static void renew_notes(struct yk_chunk *chunk, uint32_t now)
{
    /* SYNC(heap-debug) acquire: sees the notes cleared. */
    if (atomic_load_explicit(&chunk->debug, memory_order_acquire) == now) {
        return;
    }
    for (size_t i = 0; i < YK_CHUNK_BITMAP_WORDS; i++) {
        /* relaxed: published below. */
        atomic_store_explicit(&chunk->filled[i], 0, memory_order_relaxed);
    }
    /* SYNC(heap-debug) release: publishes the cleared notes. */
    atomic_store_explicit(&chunk->debug, now, memory_order_release);
}

static void small_taken(struct yk_heap *heap, struct yk_chunk *chunk, size_t n, struct piece block)
{
    const uint32_t now = yk_heap_debug_now(heap);
    const uint64_t bit = 1ULL << n % 64;
    renew_notes(chunk, now);
    /* relaxed: the block's own bit orders it. */
    const uint64_t filled =
        atomic_fetch_and_explicit(&chunk->filled[n / 64], ~bit, memory_order_relaxed);
    if ((filled & bit) != 0) {
        look_at(heap, block, block);
    }
    memset(block.start, YOKE_HEAP_TAKEN_BYTE, block.bytes);
}

static void small_freeing(struct yk_heap *heap, struct yk_chunk *chunk, size_t n,
                          struct piece block)
{
    renew_notes(chunk, yk_heap_debug_now(heap));
    memset(block.start, YOKE_HEAP_FREED_BYTE, block.bytes);
    /* relaxed: published by the block's own bit. */
    atomic_fetch_or_explicit(&chunk->filled[n / 64], 1ULL << n % 64, memory_order_relaxed);
}

/* --- large blocks ---------------------------------------------------------------------------- */

static void large_taken(struct yk_heap *heap, size_t at, struct piece block)
{
    const uint32_t now = yk_heap_debug_now(heap);
    for (size_t i = 0; i < block.bytes / YK_CHUNK_BYTES; i++) {
        /* relaxed: the chunk's word orders it. */
        const uint32_t tag = atomic_load_explicit(tag_at(heap, at + i), memory_order_relaxed);
        if (tag == now) {
            const struct piece piece = {block.start + i * YK_CHUNK_BYTES, YK_CHUNK_BYTES};
            look_at(heap, piece, block);
        }
    }
    yk_debug_forget(heap, at, block.bytes / YK_CHUNK_BYTES);
    memset(block.start, YOKE_HEAP_TAKEN_BYTE, yk_min(block.bytes, FILLED_CHUNKS * YK_CHUNK_BYTES));
}

static void large_freeing(struct yk_heap *heap, size_t at, struct piece block)
{
    for (size_t i = 0; i < yk_min(block.bytes / YK_CHUNK_BYTES, FILLED_CHUNKS); i++) {
        memset(block.start + i * YK_CHUNK_BYTES, YOKE_HEAP_FREED_BYTE, YK_CHUNK_BYTES);
        /* relaxed: published by the chunk's word. */
        atomic_store_explicit(tag_at(heap, at + i), yk_heap_debug_now(heap), memory_order_relaxed);
    }
}

void yk_debug_forget(struct yk_heap *heap, size_t at, size_t n)
{
    for (size_t i = 0; yk_heap_debug_now(heap) != 0 && i < n; i++) {
        /* relaxed: the chunk's word orders it. */
        if (atomic_load_explicit(tag_at(heap, at + i), memory_order_relaxed) != 0) {
            /* relaxed: as above. */
            atomic_store_explicit(tag_at(heap, at + i), 0, memory_order_relaxed);
        }
    }
}

/* --- both ------------------------------------------------------------------------------------ */

/* A block, small or large, as its chunk's word had it when it was read, once. */
struct place {
    struct yk_chunk *chunk; /* NULL: it is large */
    size_t n;               /* which one of the chunk */
    struct piece block;
};

static bool find(struct yk_heap *heap, size_t index, uint64_t word, void *block,
                 struct place *place)
{
    unsigned char *const start = yk_chunk_start(heap, index);
    *place = (struct place){.block = {block, 0}};
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        const struct yk_class *const kind = &yk_classes[yk_chunk_class(word)];
        place->chunk = (struct yk_chunk *)start;
        place->n = yk_chunk_block_at(kind, (size_t)(place->block.start - start));
        place->block.bytes = place->n != SIZE_MAX ? kind->bytes : 0;
    } else if (yk_chunk_kind_of(word) == YK_CHUNK_LARGE && block == (void *)start) {
        place->block.bytes = yk_min(yk_chunk_length(word), heap->count - index) * YK_CHUNK_BYTES;
    }
    return place->block.bytes != 0;
}

void yk_debug_taken(struct yk_heap *heap, void *block)
{
    const size_t index = yk_chunk_index(heap, block);
    struct place place;
    if (!find(heap, index, yk_chunk_load(heap, index), block, &place)) {
        return; /* a worker spoiled the chunk */
    }
    if (place.chunk != NULL) {
        small_taken(heap, place.chunk, place.n, place.block);
    } else {
        large_taken(heap, index, place.block);
    }
}

void yk_debug_freeing(struct yk_heap *heap, size_t index, uint64_t word, void *block)
{
    struct place place;
    if (!find(heap, index, word, block, &place)) {
        return;
    }
    if (place.chunk == NULL) {
        large_freeing(heap, index, place.block);
    } else if (yk_small_in_use(yk_chunk_start(heap, index), place.n)) {
        small_freeing(heap, place.chunk, place.n, place.block);
    }
}

/* The large block that this chunk is a part of. */
static bool find_head(struct yk_heap *heap, size_t index, struct place *place)
{
    size_t at = index;
    while (at > heap->first && yk_chunk_kind_of(yk_chunk_load(heap, at)) == YK_CHUNK_CLAIMING) {
        at--;
    }
    return find(heap, at, yk_chunk_load(heap, at), yk_chunk_start(heap, at), place) &&
           place->chunk == NULL && place->block.bytes > (index - at) * YK_CHUNK_BYTES;
}

/* What is wrong with freeing it. */
static yoke_heap_fault judge(struct yk_heap *heap, size_t index, unsigned char *freed)
{
    yoke_heap_fault fault = {.size = sizeof fault, .kind = YOKE_HEAP_NO_BLOCK, .address = freed};
    if (index == 0) {
        return fault;
    }
    unsigned char *const start = yk_chunk_start(heap, index);
    const uint64_t word = yk_chunk_load(heap, index);
    const size_t offset = (size_t)(freed - start);
    struct place place;
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        const struct yk_class *const kind = &yk_classes[yk_chunk_class(word)];
        const size_t n = yk_class_divide(kind, offset - YK_CHUNK_HEADER_BYTES);
        if (offset < YK_CHUNK_HEADER_BYTES || n >= kind->blocks) {
            return fault;
        }
        fault.block = start + YK_CHUNK_HEADER_BYTES + n * kind->bytes;
        fault.block_bytes = kind->bytes;
        fault.kind = fault.block != freed ? YOKE_HEAP_INSIDE_BLOCK : YOKE_HEAP_FREED_TWICE;
    } else if (word == YK_CHUNK_USED && offset == 0) {
        fault.block = freed;
        fault.kind = YOKE_HEAP_FREED_TWICE;
    } else if (find(heap, index, word, start, &place) ||
               (yk_chunk_kind_of(word) == YK_CHUNK_CLAIMING && find_head(heap, index, &place))) {
        fault.block = place.block.start;
        fault.block_bytes = place.block.bytes;
        fault.kind = YOKE_HEAP_INSIDE_BLOCK;
    }
    return fault;
}

void yk_debug_refused(void *block)
{
    struct yk_heap *const heap = block != NULL ? yk_heap_if_open() : NULL;
    if (heap != NULL) {
        const yoke_heap_fault fault = judge(heap, yk_chunk_index(heap, block), block);
        tell(heap, &fault);
    }
}

int yoke_heap_debug(int on, yoke_heap_fault_fn *fn, void *context)
{
    if (yk_worker_role()) {
        return YOKE_ENESTED;
    }
    struct yk_heap *const heap = yk_heap_ready();
    if (heap == NULL) {
        return -ENOMEM;
    }
    yk_mutex_lock(&heap->lock);
    if (on && yk_heap_debug_now(heap) == 0) {
        heap->debug_times = heap->debug_times == UINT32_MAX ? 1 : heap->debug_times + 1;
    }
    const uint32_t now = on ? heap->debug_times : 0;
    heap->told = on ? fn : NULL;
    heap->told_context = context;
    /* relaxed: a mode; see yk_heap_debug_now. */
    atomic_store_explicit(&heap->own_debug, now, memory_order_relaxed);
    /* relaxed: as above. */
    atomic_store_explicit(&yk_heap_base(heap)->debug, now, memory_order_relaxed);
    yk_mutex_unlock(&heap->lock);
    return 0;
}
