/* SPDX-License-Identifier: MIT
 * heap.c - the shared heap: opened once per program, taken up by each worker.   Room: memory.
 *
 * Idea: one nameless mapping of full size, sparse and sealed, cut into chunks (chunk.h). What a
 * process knows of it lies in the area that forks wipe, so a forked child never mistakes the
 * heap of its parent for its own.
 */
#include "memory/chunk.h"

#include <errno.h>

#include <yoke/memory.h>

#define RESERVE_BYTES_MAX ((size_t)1 << 40)
#define RESERVE_BYTES_MIN ((size_t)16 << 20)
#define LIMIT_BYTES_MIN ((size_t)1 << 20)

static struct yk_heap *heap_get(void)
{
    return yk_process_local(YK_LOCAL_HEAP);
}

/* The heap if it is open, else NULL. */
static struct yk_heap *heap_if_open(void)
{
    struct yk_heap *const heap = heap_get();
    if (heap == NULL) {
        return NULL;
    }
    /* SYNC(heap-open) acquire: sees the fields set by who opened it. */
    return atomic_load_explicit(&heap->base, memory_order_acquire) != NULL ? heap : NULL;
}

static size_t reserve_bytes(void)
{
    const size_t space = yk_address_space_limit();
    size_t bytes = RESERVE_BYTES_MAX;
    while (bytes > RESERVE_BYTES_MIN && bytes > space / 4) {
        bytes /= 2;
    }
    return bytes;
}

static size_t word_chunks(size_t count)
{
    const size_t bytes = sizeof(struct yk_heap_shared) + count * sizeof(uint64_t);
    return (bytes + YK_CHUNK_BYTES - 1) / YK_CHUNK_BYTES;
}

static void adopt(struct yk_heap *heap, void *base, size_t bytes, uint32_t owner)
{
    heap->bytes = bytes;
    heap->count = bytes / YK_CHUNK_BYTES;
    heap->first = word_chunks(heap->count);
    heap->cursor = heap->first;
    heap->owner = owner;
    heap->open = true;
    /* SYNC(heap-open) release: publishes the fields above. */
    atomic_store_explicit(&heap->base, base, memory_order_release);
}

static void limit_set(struct yk_heap *heap, size_t bytes)
{
    const size_t chunks = yk_max(bytes, LIMIT_BYTES_MIN) / YK_CHUNK_BYTES;
    const size_t limit = yk_min(heap->first + chunks, heap->count);
    /* relaxed: a limit, compared only. */
    atomic_store_explicit(&yk_heap_base(heap)->limit, limit, memory_order_relaxed);
}

static int open_locked(struct yk_heap *heap) YK_REQUIRES(heap->lock)
{
    if (heap->open) {
        return 0;
    }
    if (yk_worker_role()) {
        return YOKE_ENESTED;
    }
    void *base = NULL;
    size_t bytes = reserve_bytes();
    int rc = yk_map_shared(bytes, &base, &heap->object);
    while (rc != 0 && bytes > RESERVE_BYTES_MIN) {
        bytes /= 2;
        rc = yk_map_shared(bytes, &base, &heap->object);
    }
    if (rc != 0) {
        return rc == -EMFILE || rc == -ENFILE ? rc : -ENOMEM;
    }
    adopt(heap, base, bytes, YK_OWNER_PROGRAM);
    limit_set(heap, yk_memory_available("") / 4 * 3);
    return 0;
}

int yk_heap_open(void)
{
    if (YK_LIKELY(heap_if_open() != NULL)) {
        return 0;
    }
    struct yk_heap *const heap = heap_get();
    if (heap == NULL) {
        return -ENOMEM;
    }
    yk_mutex_lock(&heap->lock);
    const int rc = open_locked(heap);
    yk_mutex_unlock(&heap->lock);
    return rc;
}

bool yk_heap_is_open(void)
{
    return heap_if_open() != NULL;
}

uint32_t yk_heap_new_owner(void)
{
    const uint32_t first = YK_OWNER_PROGRAM + 1;
    /* relaxed: a counter. */
    const uint32_t n = atomic_fetch_add_explicit(&heap_get()->owners, 1, memory_order_relaxed);
    return first + n % ((1U << YK_OWNER_BITS) - first);
}

static struct yk_heap *heap_ready(void)
{
    return yk_heap_open() == 0 ? heap_get() : NULL;
}

int yk_heap_export(struct yk_heap_handle *handle)
{
    const int rc = yk_heap_open();
    if (rc == 0) {
        struct yk_heap *const heap = heap_get();
        *handle = (struct yk_heap_handle){.base = yk_heap_base(heap), .bytes = heap->bytes};
    }
    return rc;
}

int yk_heap_object(struct yk_shared_object *object)
{
    const int rc = yk_heap_open();
    if (rc == 0) {
        *object = heap_get()->object;
    }
    return rc != 0 || yk_shared_object_is(object) ? rc : -EBADF;
}

void yk_heap_import(const struct yk_heap_handle *handle, uint32_t owner)
{
    struct yk_heap *const heap = heap_get();
    if (heap != NULL) {
        heap->object.fd = -1;
        adopt(heap, handle->base, handle->bytes, owner);
    }
}

/* --- the calls ----------------------------------------------------------------------------- */

void *yk_heap_alloc_noted(size_t bytes, void *_Atomic *note)
{
    struct yk_heap *const heap = bytes != 0 ? heap_ready() : NULL;
    if (heap == NULL) {
        return NULL;
    }
    if (bytes > YK_CLASS_BYTES_MAX) {
        return yk_run_alloc(heap, bytes, note);
    }
    yk_mutex_lock(&heap->lock);
    void *const block = yk_small_alloc(heap, bytes, note);
    yk_mutex_unlock(&heap->lock);
    return block;
}

void *yk_heap_alloc(size_t bytes)
{
    return yk_heap_alloc_noted(bytes, NULL);
}

bool yk_heap_contains(const void *start, size_t bytes)
{
    struct yk_heap *const heap = heap_if_open();
    if (heap == NULL) {
        return false;
    }
    const uintptr_t at = (uintptr_t)start;
    const uintptr_t low = (uintptr_t)yk_heap_base(heap) + heap->first * YK_CHUNK_BYTES;
    const uintptr_t high = (uintptr_t)yk_heap_base(heap) + heap->count * YK_CHUNK_BYTES;
    return at >= low && at <= high && bytes <= high - at;
}

static size_t index_of(struct yk_heap *heap, const void *block)
{
    return (size_t)((const unsigned char *)block - (unsigned char *)yk_heap_base(heap)) /
           YK_CHUNK_BYTES;
}

bool yk_heap_free(void *block)
{
    if (block == NULL || !yk_heap_contains(block, 1)) {
        return false;
    }
    struct yk_heap *const heap = heap_get();
    const size_t index = index_of(heap, block);
    const uint64_t word = yk_chunk_load(heap, index);
    unsigned char *const start = yk_chunk_start(heap, index);
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        return yk_small_free(start, block, yk_chunk_class(word));
    }
    return yk_chunk_kind_of(word) == YK_CHUNK_LARGE && block == (void *)start &&
           yk_run_free(heap, index, word);
}

size_t yk_heap_block_bytes(const void *block)
{
    if (!yk_heap_contains(block, 1)) {
        return 0;
    }
    struct yk_heap *const heap = heap_get();
    const size_t index = index_of(heap, block);
    const uint64_t word = yk_chunk_load(heap, index);
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        const size_t offset = (size_t)((const unsigned char *)block - yk_chunk_start(heap, index));
        const size_t size = yk_class_bytes(yk_chunk_class(word));
        const bool fits = offset >= YK_CHUNK_HEADER_BYTES && offset + size <= YK_CHUNK_BYTES;
        return fits && (offset - YK_CHUNK_HEADER_BYTES) % size == 0 ? size : 0;
    }
    const bool head =
        yk_chunk_kind_of(word) == YK_CHUNK_LARGE && block == (void *)yk_chunk_start(heap, index);
    return head ? yk_min(yk_chunk_length(word), heap->count - index) * YK_CHUNK_BYTES : 0;
}

void yk_heap_recover(uint32_t owner)
{
    struct yk_heap *const heap = heap_if_open();
    if (heap == NULL || owner <= YK_OWNER_PROGRAM) {
        return;
    }
    const size_t top = yk_heap_top(heap);
    for (size_t at = heap->first; at < top;) {
        at += yk_run_recover(heap, at, owner);
    }
}

void *yoke_shared_alloc(size_t bytes)
{
    return yk_heap_alloc(bytes);
}

void yoke_shared_free(void *block)
{
    const bool freed = yk_heap_free(block);
    YK_ASSERT(freed || !yk_heap_contains(block, 1));
    (void)freed;
}

int yoke_shared_contains(const void *start, size_t bytes)
{
    return yk_heap_contains(start, bytes) ? 1 : 0;
}

static void count_chunk(struct yk_heap *heap, size_t at, uint64_t word, yoke_heap_stats *stats)
{
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        const unsigned class = yk_chunk_class(word);
        const size_t used = yk_chunk_blocks(class) - yk_small_count_free(heap, at, class);
        stats->blocks += used;
        stats->used_bytes += used * yk_class_bytes(class);
        stats->reserved_bytes += YK_CHUNK_BYTES;
    } else if (yk_chunk_kind_of(word) == YK_CHUNK_LARGE) {
        stats->blocks++;
        stats->used_bytes += yk_chunk_step(word) * YK_CHUNK_BYTES;
        stats->reserved_bytes += yk_chunk_step(word) * YK_CHUNK_BYTES;
    }
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
    struct yk_heap *const heap = heap_ready();
    if (heap == NULL) {
        return -ENOMEM;
    }
    const size_t given = out.size;
    out = (yoke_heap_stats){.size = given};
    out.limit_bytes =
        (yk_max(yk_heap_limit_chunks(heap), heap->first) - heap->first) * YK_CHUNK_BYTES;
    const size_t top = yk_heap_top(heap);
    for (size_t at = heap->first; at < top;) {
        const uint64_t word = yk_chunk_load(heap, at);
        count_chunk(heap, at, word, &out);
        at += yk_chunk_step(word);
    }
    memcpy(stats, &out, yk_min(given, sizeof out));
    return 0;
}

int yoke_heap_limit(size_t bytes)
{
    if (bytes < LIMIT_BYTES_MIN) {
        return -EINVAL;
    }
    if (yk_worker_role()) {
        return YOKE_ENESTED;
    }
    struct yk_heap *const heap = heap_ready();
    if (heap == NULL) {
        return -ENOMEM;
    }
    limit_set(heap, bytes);
    return 0;
}
