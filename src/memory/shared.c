/* SPDX-License-Identifier: MIT
 * shared.c - the rest of what users call on the shared heap, and its statistics.   Room: memory.
 *
 * Nothing is counted while blocks are taken and freed but the blocks taken from a chunk, by its
 * owner, in the chunk; all else is found out when somebody asks.
 */
#include "memory/chunk.h"

#include <errno.h>

#define ALIGNMENT_MAX ((size_t)1 << 30)

void *yoke_shared_alloc_aligned(size_t bytes, size_t alignment)
{
    const bool power = alignment != 0 && (alignment & (alignment - 1)) == 0;
    return power && alignment <= ALIGNMENT_MAX ? yk_heap_alloc_aligned(bytes, alignment) : NULL;
}

/* A large block: only its chunks that were used before need it. */
static void clear_run(struct yk_heap *heap, size_t at, unsigned char *block, size_t bytes)
{
    for (size_t from = 0; from < bytes; from += YK_CHUNK_BYTES, at++) {
        const bool dirty = yk_chunk_class(yk_chunk_load(heap, at)) != 0;
        if (dirty || yk_heap_debug_now(heap) != 0) {
            memset(block + from, 0, yk_min(bytes - from, YK_CHUNK_BYTES));
        }
    }
}

void *yoke_shared_zalloc(size_t bytes)
{
    unsigned char *const block = yk_heap_alloc(bytes);
    if (block == NULL) {
        return NULL;
    }
    if (bytes <= YK_CLASS_BYTES_MAX) {
        memset(block, 0, bytes);
    } else {
        struct yk_heap *const heap = yk_heap_if_open();
        clear_run(heap, yk_chunk_index(heap, block), block, bytes);
    }
    return block;
}

void *yoke_shared_realloc(void *block, size_t bytes)
{
    if (block == NULL) {
        return yk_heap_alloc(bytes);
    }
    const size_t have = yk_heap_block_bytes(block);
    if (have == 0) {
        yk_debug_refused(block);
        return NULL;
    }
    if (bytes == 0 || (bytes <= have && bytes >= have / 2)) {
        return bytes != 0 ? block : NULL;
    }
    void *const other = yk_heap_alloc(bytes);
    if (other != NULL) {
        /* Apart, unless a worker spoiled the heap's words. */
        memmove(other, block, yk_min(bytes, have));
        yk_heap_free(block);
    }
    return other;
}

size_t yoke_shared_bytes(const void *block)
{
    return yk_heap_block_bytes(block);
}

int yoke_shared_contains(const void *start, size_t bytes)
{
    return yk_heap_contains(start, bytes) ? 1 : 0;
}

int yoke_heap_limit(size_t bytes)
{
    if (bytes < YK_HEAP_LIMIT_MIN) {
        return -EINVAL;
    }
    return yk_worker_role() ? YOKE_ENESTED : yk_heap_limit(bytes);
}

size_t yoke_heap_trim(void)
{
    struct yk_heap *const heap = yk_heap_if_open();
    if (heap == NULL) {
        return 0;
    }
    yk_mutex_lock(&heap->lock);
    yk_small_let_go(heap);
    yk_mutex_unlock(&heap->lock);
    return yk_run_trim(heap);
}

/* --- statistics ------------------------------------------------------------------------------ */

static size_t count_of(const _Atomic uint64_t *count)
{
    /* relaxed: a count. */
    return atomic_load_explicit(count, memory_order_relaxed);
}

static void count_small(struct yk_heap *heap, size_t at, unsigned class, yoke_heap_stats *stats)
{
    const struct yk_chunk *const chunk = (const struct yk_chunk *)yk_chunk_start(heap, at);
    const size_t used = yk_classes[class].blocks - yk_small_count_free(heap, at, class);
    stats->blocks += used;
    stats->used_bytes += used * yk_class_bytes(class);
    stats->reserved_bytes += YK_CHUNK_BYTES;
    stats->allocations += count_of(&chunk->taken);
}

/* Counts the chunk at `at`; how far to go on. */
static size_t count_chunk(struct yk_heap *heap, size_t at, yoke_heap_stats *stats)
{
    const uint64_t word = yk_chunk_load(heap, at);
    const size_t length = yk_min(yk_chunk_step(word), heap->count - at);
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        count_small(heap, at, yk_chunk_class(word), stats);
    } else if (yk_chunk_kind_of(word) == YK_CHUNK_LARGE) {
        stats->blocks++;
        stats->large_blocks++;
        stats->large_bytes += length * YK_CHUNK_BYTES;
        stats->used_bytes += length * YK_CHUNK_BYTES;
        stats->reserved_bytes += length * YK_CHUNK_BYTES;
    } else if (word == YK_CHUNK_USED) {
        stats->idle_bytes += YK_CHUNK_BYTES;
    }
    return length;
}

static void count_all(struct yk_heap *heap, yoke_heap_stats *stats)
{
    struct yk_heap_shared *const base = yk_heap_base(heap);
    const size_t first = heap->first;
    stats->limit_bytes = (yk_max(yk_heap_limit_chunks(heap), first) - first) * YK_CHUNK_BYTES;
    const size_t top = yk_heap_top(heap);
    for (size_t at = first; at < top;) {
        at += count_chunk(heap, at, stats);
    }
    stats->peak_bytes = (yk_max(top, first) - first) * YK_CHUNK_BYTES;
    stats->large_allocations = count_of(&base->large_taken);
    stats->allocations += count_of(&base->small_taken) + stats->large_allocations;
    stats->faults = count_of(&base->faults);
    stats->recovered_bytes = count_of(&heap->recovered) * YK_CHUNK_BYTES;
    stats->frees = yk_max(stats->allocations, stats->blocks) - stats->blocks;
}

int yoke_heap_stats_get(yoke_heap_stats *stats)
{
    yoke_heap_stats out;
    if (stats == NULL) {
        return -EINVAL;
    }
    const int rc = yk_settings_read(&out, sizeof out, stats);
    if (rc != 0) {
        return rc;
    }
    struct yk_heap *const heap = yk_heap_ready();
    if (heap == NULL) {
        return -ENOMEM;
    }
    const size_t given = out.size;
    out = (yoke_heap_stats){.size = given};
    count_all(heap, &out);
    memcpy(stats, &out, yk_min(given, sizeof out));
    return 0;
}
