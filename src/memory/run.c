/* SPDX-License-Identifier: MIT
 * run.c - runs of chunks: claimed one by one, committed by one store.   Room: memory.
 *
 * A large block is a run. First fit from a hint; who finds a chunk taken gives back those it had.
 * The argument is in chunk.h.
 */
#include "memory/chunk.h"

static void top_raise(struct yk_heap *heap, size_t end)
{
    _Atomic uint64_t *const top = &yk_heap_base(heap)->top;
    /* relaxed: a hint for scans. */
    uint64_t seen = atomic_load_explicit(top, memory_order_relaxed);
    while (seen < end) {
        /* relaxed: a hint for scans. */
        if (atomic_compare_exchange_weak_explicit(top, &seen, end, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return;
        }
    }
}

static size_t lowest_get(struct yk_heap *heap)
{
    /* relaxed: a hint; the scan starts over from the front when it finds nothing. */
    const uint64_t at = atomic_load_explicit(&yk_heap_base(heap)->lowest, memory_order_relaxed);
    return at < heap->first || at >= heap->count ? heap->first : (size_t)at;
}

static void lowest_set(struct yk_heap *heap, size_t at)
{
    /* relaxed: a hint. */
    atomic_store_explicit(&yk_heap_base(heap)->lowest, at, memory_order_relaxed);
}

/* Claim chunks at..at+n-1 one by one; all or none. */
static bool claim_at(struct yk_heap *heap, size_t at, size_t n)
{
    const uint64_t mine = yk_chunk_word(YK_CHUNK_CLAIMING, 0, heap->owner, 0);
    for (size_t i = 0; i < n; i++) {
        if (yk_chunk_load(heap, at + i) != 0 || !yk_chunk_swap(heap, at + i, 0, mine)) {
            while (i-- > 0) {
                yk_chunk_store(heap, at + i, 0);
            }
            return false;
        }
    }
    return true;
}

/* A run of n chunks, CLAIMING for us; 0 when there is none (chunk 0 holds words). First fit. */
static size_t claim_run(struct yk_heap *heap, size_t n)
{
    const size_t limit = yk_heap_limit_chunks(heap);
    size_t from = lowest_get(heap);
    const size_t start = from;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t at = from; at < limit && n <= limit - at;) {
            const uint64_t word = yk_chunk_load(heap, at);
            if (word != 0) {
                at += yk_chunk_step(word);
                continue;
            }
            top_raise(heap, at + n);
            if (claim_at(heap, at, n)) {
                if (n == 1) {
                    lowest_set(heap, at + 1);
                }
                return at;
            }
            at++;
        }
        if (start == heap->first) {
            break;
        }
        from = heap->first;
    }
    return 0;
}

/* A chunk of small blocks that is all free becomes a plain free chunk. We own it first: only an
 * owner hands out blocks, so what is all free then stays so, and nobody holds a pointer in. */
static bool sweep_chunk(struct yk_heap *heap, size_t at, uint64_t word)
{
    const unsigned class = yk_chunk_class(word);
    const uint64_t mine = yk_chunk_word(YK_CHUNK_SMALL, class, heap->owner, 0);
    if (word != yk_chunk_word(YK_CHUNK_SMALL, class, YK_OWNER_NOBODY, 0) ||
        class >= YK_CLASS_COUNT || !yk_small_all_free(heap, at, class) ||
        !yk_chunk_swap(heap, at, word, mine)) {
        return false;
    }
    const bool empty = yk_small_all_free(heap, at, class);
    yk_chunk_store(heap, at, empty ? 0 : word);
    return empty;
}

static bool sweep(struct yk_heap *heap)
{
    bool found = false;
    const size_t top = yk_heap_top(heap);
    for (size_t at = heap->first; at < top;) {
        const uint64_t word = yk_chunk_load(heap, at);
        found = sweep_chunk(heap, at, word) || found;
        at += yk_chunk_step(word);
    }
    if (found) {
        lowest_set(heap, heap->first);
    }
    return found;
}

size_t yk_run_claim(struct yk_heap *heap, size_t n)
{
    const size_t at = claim_run(heap, n);
    return at != 0 || !sweep(heap) ? at : claim_run(heap, n);
}

void *yk_run_alloc(struct yk_heap *heap, size_t bytes, void *_Atomic *note)
{
    const size_t n = bytes / YK_CHUNK_BYTES + (bytes % YK_CHUNK_BYTES != 0);
    if (n >= heap->count) {
        return NULL;
    }
    const size_t at = yk_run_claim(heap, n);
    if (at == 0) {
        return NULL;
    }
    void *const block = yk_chunk_start(heap, at);
    yk_heap_note(note, block);
    yk_chunk_store(heap, at, yk_chunk_word(YK_CHUNK_LARGE, 0, heap->owner, n));
    return block;
}

static void lower_lowest(struct yk_heap *heap, size_t at)
{
    if (at < lowest_get(heap)) {
        lowest_set(heap, at);
    }
}

/* Two passes, and the head says which one: in the first the run is still whole, so whoever takes
 * over may free all of it; in the second a chunk that is not FREEING any more is somebody's new
 * one. */
enum { MARKING = 0, RELEASING = 1 };

static void release_run(struct yk_heap *heap, size_t at, size_t n, uint32_t owner)
{
    for (size_t i = n; i-- > 1;) {
        yk_chunk_swap(heap, at + i, yk_chunk_word(YK_CHUNK_FREEING, 0, owner, 1), 0);
    }
    yk_chunk_store(heap, at, 0);
    lower_lowest(heap, at);
}

static void mark_and_release(struct yk_heap *heap, size_t at, size_t n, uint32_t owner)
{
    for (size_t i = 1; i < n; i++) {
        yk_chunk_store(heap, at + i, yk_chunk_word(YK_CHUNK_FREEING, 0, owner, 1));
    }
    yk_chunk_store(heap, at, yk_chunk_word(YK_CHUNK_FREEING, RELEASING, owner, n));
    release_run(heap, at, n, owner);
}

bool yk_run_free(struct yk_heap *heap, size_t at, uint64_t word)
{
    const size_t n = yk_chunk_length(word);
    if (n == 0 || n > heap->count - at ||
        !yk_chunk_swap(heap, at, word, yk_chunk_word(YK_CHUNK_FREEING, MARKING, heap->owner, n))) {
        return false;
    }
    mark_and_release(heap, at, n, heap->owner);
    return true;
}

size_t yk_run_recover(struct yk_heap *heap, size_t at, uint32_t dead)
{
    const uint64_t word = yk_chunk_load(heap, at);
    const size_t length = yk_min(yk_chunk_step(word), heap->count - at);
    if (yk_chunk_owner(word) != dead) {
        return length;
    }
    switch (yk_chunk_kind_of(word)) {
    case YK_CHUNK_CLAIMING:
        yk_chunk_swap(heap, at, word, 0);
        lowest_set(heap, heap->first);
        break;
    case YK_CHUNK_SMALL:
        yk_chunk_swap(heap, at, word,
                      yk_chunk_word(YK_CHUNK_SMALL, yk_chunk_class(word), YK_OWNER_NOBODY, 0));
        break;
    case YK_CHUNK_FREEING:
        if (yk_chunk_class(word) == RELEASING) {
            release_run(heap, at, length, dead);
        } else {
            mark_and_release(heap, at, length, dead);
        }
        break;
    case YK_CHUNK_LARGE: /* handed out: it stays */
    case YK_CHUNK_FREE:
    default:
        break;
    }
    return length;
}
