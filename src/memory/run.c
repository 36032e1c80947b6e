/* SPDX-License-Identifier: MIT
 * run.c - runs of chunks: claimed one by one, committed by one store.   Room: memory.
 *
 * A large block is a run. First fit from a hint, so that memory used before is used again; who
 * finds a chunk taken gives back those it had. The argument is in chunk.h.
 */
#include "memory/chunk.h"

#define GROWTH_MIN 16 /* chunks the heap grows by before a sweep */
#define TRIM_MAX 64   /* chunks held while their memory is given back */

static void top_raise(struct yk_heap *heap, size_t end)
{
    _Atomic uint64_t *const top = &yk_heap_base(heap)->top;
    /* relaxed: a hint for scans. */
    uint64_t seen = atomic_load_explicit(top, memory_order_relaxed);
    while (seen < end) {
        /* relaxed: a hint for scans. */
        if (atomic_compare_exchange_weak_explicit(top, &seen, end, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            /* relaxed: a count. */
            atomic_fetch_add_explicit(&heap->grown, end - seen, memory_order_relaxed);
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

/* The word of a chunk that we hold while it is nobody's; it knows whether memory was used. */
static uint64_t claiming(const struct yk_heap *heap, uint64_t word)
{
    return yk_chunk_word(YK_CHUNK_CLAIMING, word != 0 ? YK_CHUNK_DIRTY : 0, heap->owner, 0);
}

static void unclaim(struct yk_heap *heap, size_t at)
{
    const bool dirty = yk_chunk_class(yk_chunk_load(heap, at)) != 0;
    yk_chunk_store(heap, at, dirty ? YK_CHUNK_USED : 0);
}

/* Claim chunks at..at+n-1 one by one; all or none. How many could be had: n, or fewer. */
static size_t claim_at(struct yk_heap *heap, size_t at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t word = yk_chunk_load(heap, at + i);
        if (!yk_chunk_is_free(word) || !yk_chunk_swap(heap, at + i, word, claiming(heap, word))) {
            for (size_t k = i; k-- > 0;) {
                unclaim(heap, at + k);
            }
            return i;
        }
    }
    return n;
}

/* From `at` on the first chunk at an address that `alignment` divides; it may lie outside. */
static size_t aligned_from(struct yk_heap *heap, size_t at, size_t alignment)
{
    const uintptr_t base = (uintptr_t)yk_heap_base(heap);
    const uintptr_t start = yk_round_up(base + at * YK_CHUNK_BYTES, alignment);
    return (start - base) / YK_CHUNK_BYTES;
}

static size_t claim_between(struct yk_heap *heap, size_t from, size_t n, size_t alignment)
{
    const size_t limit = yk_heap_limit_chunks(heap);
    size_t at = aligned_from(heap, from, alignment);
    while (at < limit && n <= limit - at) {
        const uint64_t word = yk_chunk_load(heap, at);
        size_t step = 1;
        if (!yk_chunk_is_free(word)) {
            step = yk_chunk_step(word);
        } else {
            top_raise(heap, at + n);
            const size_t had = claim_at(heap, at, n);
            if (had == n) {
                return at;
            }
            step = yk_max(had, 1); /* no run that holds the one in the way will do */
        }
        at = aligned_from(heap, at + step, alignment);
    }
    return 0;
}

/* First fit from the hint, then from the front. */
static size_t claim_run(struct yk_heap *heap, size_t n, size_t alignment)
{
    const size_t hint = lowest_get(heap);
    size_t at = claim_between(heap, hint, n, alignment);
    if (at == 0 && hint != heap->first) {
        at = claim_between(heap, heap->first, n, alignment);
    }
    if (at != 0 && n == 1 && alignment == 1) {
        lowest_set(heap, at + 1);
    }
    return at;
}

/* The chunk's count of blocks outlives it. */
static void count_small(struct yk_heap *heap, size_t at)
{
    const struct yk_chunk *const chunk = (const struct yk_chunk *)yk_chunk_start(heap, at);
    /* relaxed: a count. */
    const uint64_t taken = atomic_load_explicit(&chunk->taken, memory_order_relaxed);
    /* relaxed: a count. */
    atomic_fetch_add_explicit(&yk_heap_base(heap)->small_taken, taken, memory_order_relaxed);
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
    if (empty) {
        count_small(heap, at);
    }
    yk_chunk_store(heap, at, empty ? YK_CHUNK_USED : word);
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

/* Before the heap grows by a quarter it looks for chunks that have become free: memory that was
 * used is cheaper than memory that was not. */
static bool grew_much(struct yk_heap *heap)
{
    /* relaxed: a count. */
    const uint64_t grown = atomic_load_explicit(&heap->grown, memory_order_relaxed);
    if (grown < GROWTH_MIN || grown < (yk_heap_top(heap) - heap->first) / 4) {
        return false;
    }
    /* relaxed: a count. */
    atomic_store_explicit(&heap->grown, 0, memory_order_relaxed);
    return true;
}

size_t yk_run_claim(struct yk_heap *heap, size_t n, size_t alignment)
{
    if (grew_much(heap)) {
        sweep(heap);
    }
    const size_t at = claim_run(heap, n, alignment);
    return at != 0 || !sweep(heap) ? at : claim_run(heap, n, alignment);
}

void *yk_run_alloc(struct yk_heap *heap, size_t bytes, size_t alignment, void *_Atomic *note)
{
    const size_t n = bytes / YK_CHUNK_BYTES + (bytes % YK_CHUNK_BYTES != 0);
    if (n >= heap->count) {
        return NULL;
    }
    const size_t at = yk_run_claim(heap, n, alignment);
    if (at == 0) {
        return NULL;
    }
    const unsigned dirty = yk_chunk_class(yk_chunk_load(heap, at)) != 0 ? YK_CHUNK_DIRTY : 0;
    void *const block = yk_chunk_start(heap, at);
    yk_heap_note(note, block);
    yk_chunk_store(heap, at, yk_chunk_word(YK_CHUNK_LARGE, dirty, heap->owner, n));
    /* relaxed: a count. */
    atomic_fetch_add_explicit(&yk_heap_base(heap)->large_taken, 1, memory_order_relaxed);
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
        yk_chunk_swap(heap, at + i, yk_chunk_word(YK_CHUNK_FREEING, 0, owner, 1), YK_CHUNK_USED);
    }
    yk_chunk_store(heap, at, YK_CHUNK_USED);
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

size_t yk_run_recover(struct yk_heap *heap, size_t at, uint32_t dead, size_t *found)
{
    const uint64_t word = yk_chunk_load(heap, at);
    const size_t length = yk_min(yk_chunk_step(word), heap->count - at);
    if (yk_chunk_owner(word) != dead) {
        return length;
    }
    switch (yk_chunk_kind_of(word)) {
    case YK_CHUNK_CLAIMING:
        yk_chunk_swap(heap, at, word, YK_CHUNK_USED);
        lowest_set(heap, heap->first);
        *found += 1;
        break;
    case YK_CHUNK_SMALL:
        yk_chunk_swap(heap, at, word,
                      yk_chunk_word(YK_CHUNK_SMALL, yk_chunk_class(word), YK_OWNER_NOBODY, 0));
        *found += 1;
        break;
    case YK_CHUNK_FREEING:
        if (yk_chunk_class(word) == RELEASING) {
            release_run(heap, at, length, dead);
        } else {
            mark_and_release(heap, at, length, dead);
        }
        *found += length;
        break;
    case YK_CHUNK_LARGE: /* handed out: it stays */
    case YK_CHUNK_FREE:
    default:
        break;
    }
    return length;
}

/* --- giving memory back ---------------------------------------------------------------------- */

/* Claim used chunks from `at` on; how many. */
static size_t claim_used(struct yk_heap *heap, size_t at, size_t most)
{
    size_t n = 0;
    while (n < most && yk_chunk_load(heap, at + n) == YK_CHUNK_USED &&
           yk_chunk_swap(heap, at + n, YK_CHUNK_USED, claiming(heap, YK_CHUNK_USED))) {
        n++;
    }
    return n;
}

/* Some emulators say that memory was given back, and keep it: look, once per call. */
static bool discards(void *start)
{
    volatile uint64_t *const word = start;
    *word = 1;
    return yk_memory_discard(start, YK_CHUNK_BYTES) == 0 && *word == 0;
}

/* They are ours while their memory goes, and only then become chunks that were never used: a
 * kill in between leaves used ones. */
size_t yk_run_trim(struct yk_heap *heap)
{
    sweep(heap);
    const size_t top = yk_heap_top(heap);
    size_t given = 0;
    bool works = true;
    for (size_t at = heap->first; at < top && works;) {
        const size_t n = claim_used(heap, at, yk_min(TRIM_MAX, top - at));
        if (n == 0) {
            at += yk_chunk_step(yk_chunk_load(heap, at));
            continue;
        }
        unsigned char *const start = yk_chunk_start(heap, at);
        yk_debug_forget(heap, at, n);
        works =
            (given != 0 || discards(start)) && yk_memory_discard(start, n * YK_CHUNK_BYTES) == 0;
        for (size_t i = 0; i < n; i++) {
            yk_chunk_store(heap, at + i, works ? 0 : YK_CHUNK_USED);
        }
        lower_lowest(heap, at);
        given += works ? n * YK_CHUNK_BYTES : 0;
        at += n;
    }
    return given;
}
