/* SPDX-License-Identifier: MIT
 * heap.c - the shared heap: opened once per program, taken up by each worker.   Room: memory.
 *
 * Idea: one nameless mapping of full size, sparse and sealed, cut into chunks (chunk.h). What a
 * process knows of it lies in the area that forks wipe, so a forked child never mistakes the
 * heap of its parent for its own.
 */
#include "memory/chunk.h"

#include <errno.h>

#define RESERVE_BYTES_MAX ((size_t)1 << 40)
#define RESERVE_BYTES_MIN ((size_t)16 << 20)

/* Inline, since every call asks it. */
static inline struct yk_heap *heap_get(void)
{
    /* SYNC(local-areas) acquire: sees the area zeroed by who made it. */
    char *const areas = atomic_load_explicit(&yk_local_areas, memory_order_acquire);
    if (YK_UNLIKELY(areas == NULL)) {
        return yk_process_local(YK_LOCAL_HEAP);
    }
    return (struct yk_heap *)(void *)(areas + (size_t)YK_LOCAL_HEAP * YK_LOCAL_BYTES);
}

/* The heap if it is open, else NULL. */
static inline struct yk_heap *heap_if_open(void)
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
    const size_t each = sizeof(uint64_t) + sizeof(yk_heap_tag);
    const size_t bytes = sizeof(struct yk_heap_shared) + count * each;
    return (bytes + YK_CHUNK_BYTES - 1) / YK_CHUNK_BYTES;
}

static void adopt(struct yk_heap *heap, const struct yk_heap_handle *from, uint32_t owner)
{
    struct yk_heap_shared *const base = from->base;
    const bool program = owner == YK_OWNER_PROGRAM;
    heap->bytes = from->bytes;
    heap->count = from->bytes / YK_CHUNK_BYTES;
    heap->first = word_chunks(heap->count);
    heap->cursor = heap->first;
    heap->owner = owner;
    heap->limit = program ? &heap->own_limit : &base->limit;
    heap->debug = program ? &heap->own_debug : &base->debug;
    heap->told = from->told;
    heap->told_context = from->told_context;
    heap->open = true;
    /* relaxed: published with the fields above. */
    atomic_store_explicit(&heap->reach, heap->count, memory_order_relaxed);
    /* SYNC(heap-open) release: publishes the fields above. */
    atomic_store_explicit(&heap->base, base, memory_order_release);
}

static void limit_set(struct yk_heap *heap, size_t bytes) YK_REQUIRES(heap->lock)
{
    const size_t chunks = yk_max(bytes, YK_HEAP_LIMIT_MIN) / YK_CHUNK_BYTES;
    const size_t limit = yk_min(heap->first + chunks, heap->count);
    /* relaxed: a limit, compared only; 0 at first. */
    const bool first = atomic_load_explicit(&heap->own_limit, memory_order_relaxed) == 0;
    /* relaxed: as above. */
    const uint64_t reach = first ? 0 : atomic_load_explicit(&heap->reach, memory_order_relaxed);
    /* relaxed: as above. It stands before anybody takes a chunk by the new limit. */
    atomic_store_explicit(&heap->reach, yk_max(limit, (size_t)reach), memory_order_relaxed);
    /* relaxed: as above. */
    atomic_store_explicit(&heap->own_limit, limit, memory_order_relaxed);
    /* relaxed: as above. */
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
    const struct yk_heap_handle made = {.base = base, .bytes = bytes};
    adopt(heap, &made, YK_OWNER_PROGRAM);
    yk_barrier_prepare_early(); /* for the locks of the pools that will come */
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

uint64_t yk_heap_layout(void)
{
    return YK_CHUNK_BYTES ^ sizeof(struct yk_heap_shared) << 32 ^ sizeof(struct yk_chunk) << 40 ^
           (uint64_t)YK_CLASS_COUNT << 56;
}

uint32_t yk_heap_new_owner(void)
{
    const uint32_t first = YK_OWNER_PROGRAM + 1;
    /* relaxed: a counter. */
    const uint32_t n = atomic_fetch_add_explicit(&heap_get()->owners, 1, memory_order_relaxed);
    return first + n % ((1U << YK_OWNER_BITS) - first);
}

struct yk_heap *yk_heap_ready(void)
{
    return yk_heap_open() == 0 ? heap_get() : NULL;
}

struct yk_heap *yk_heap_if_open(void)
{
    return heap_if_open();
}

int yk_heap_export(struct yk_heap_handle *handle)
{
    const int rc = yk_heap_open();
    if (rc == 0) {
        struct yk_heap *const heap = heap_get();
        yk_mutex_lock(&heap->lock);
        *handle = (struct yk_heap_handle){.base = yk_heap_base(heap),
                                          .bytes = heap->bytes,
                                          .told = heap->told,
                                          .told_context = heap->told_context};
        yk_mutex_unlock(&heap->lock);
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
        adopt(heap, handle, owner);
    }
}

int yk_heap_limit(size_t bytes)
{
    struct yk_heap *const heap = yk_heap_ready();
    if (heap == NULL) {
        return -ENOMEM;
    }
    yk_mutex_lock(&heap->lock);
    limit_set(heap, bytes);
    yk_mutex_unlock(&heap->lock);
    return 0;
}

/* --- the calls ----------------------------------------------------------------------------- */

static void *debugged(struct yk_heap *heap, void *block)
{
    if (YK_UNLIKELY(yk_heap_debug_now(heap) != 0) && block != NULL) {
        yk_debug_taken(heap, block);
    }
    return block;
}

static void *alloc_small(struct yk_heap *heap, unsigned class, void *_Atomic *note)
{
    yk_mutex_lock(&heap->lock);
    void *const block = yk_small_alloc(heap, class, note);
    yk_mutex_unlock(&heap->lock);
    return debugged(heap, block);
}

void *yk_heap_alloc_noted(size_t bytes, void *_Atomic *note)
{
    struct yk_heap *heap = heap_if_open();
    heap = YK_LIKELY(heap != NULL) ? heap : yk_heap_ready();
    if (heap == NULL || bytes == 0) {
        return NULL;
    }
    return bytes <= YK_CLASS_BYTES_MAX ? alloc_small(heap, yk_class_of(bytes), note)
                                       : debugged(heap, yk_run_alloc(heap, bytes, 1, note));
}

void *yk_heap_alloc(size_t bytes)
{
    return yk_heap_alloc_noted(bytes, NULL);
}

/* Blocks of a chunk start after a header of 4096 bytes: a size that the alignment divides will
 * do. Each power of two is a size, so the search is short. */
void *yk_heap_alloc_aligned(size_t bytes, size_t alignment)
{
    struct yk_heap *const heap = yk_heap_ready();
    if (heap == NULL || bytes == 0) {
        return NULL;
    }
    if (alignment > YK_CHUNK_HEADER_BYTES || bytes > YK_CLASS_BYTES_MAX) {
        return debugged(heap, yk_run_alloc(heap, bytes, alignment, NULL));
    }
    unsigned class = yk_class_of(yk_max(bytes, alignment));
    while (yk_class_bytes(class) % alignment != 0) {
        class ++;
    }
    return alloc_small(heap, class, NULL);
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

bool yk_heap_free(void *block)
{
    struct yk_heap *const heap = heap_if_open();
    const size_t index = heap != NULL ? yk_chunk_index(heap, block) : 0;
    if (index == 0) {
        return false;
    }
    const uint64_t word = yk_chunk_load(heap, index);
    if (YK_UNLIKELY(yk_heap_debug_now(heap) != 0)) {
        yk_debug_freeing(heap, index, word, block);
    }
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        return yk_small_free(heap, index, block, yk_chunk_class(word));
    }
    return yk_chunk_kind_of(word) == YK_CHUNK_LARGE &&
           block == (void *)yk_chunk_start(heap, index) && yk_run_free(heap, index, word);
}

static size_t small_bytes(struct yk_heap *heap, size_t index, unsigned class, const void *block)
{
    const unsigned char *const start = yk_chunk_start(heap, index);
    const struct yk_class *const kind = &yk_classes[class];
    const size_t n = yk_chunk_block_at(kind, (size_t)((const unsigned char *)block - start));
    return n != SIZE_MAX && yk_small_in_use(start, n) ? kind->bytes : 0;
}

size_t yk_heap_block_bytes(const void *block)
{
    struct yk_heap *const heap = heap_if_open();
    const size_t index = heap != NULL ? yk_chunk_index(heap, block) : 0;
    if (index == 0) {
        return 0;
    }
    const uint64_t word = yk_chunk_load(heap, index);
    if (yk_chunk_kind_of(word) == YK_CHUNK_SMALL && yk_chunk_class(word) < YK_CLASS_COUNT) {
        return small_bytes(heap, index, yk_chunk_class(word), block);
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
    size_t found = 0;
    const size_t top = yk_heap_top(heap);
    for (size_t at = heap->first; at < top;) {
        at += yk_run_recover(heap, at, owner, &found);
    }
    /* relaxed: a count. */
    atomic_fetch_add_explicit(&heap->recovered, found, memory_order_relaxed);
}

void *yoke_shared_alloc(size_t bytes)
{
    return yk_heap_alloc(bytes);
}

void yoke_shared_free(void *block)
{
    if (YK_UNLIKELY(!yk_heap_free(block))) {
        yk_debug_refused(block);
    }
}
