/* SPDX-License-Identifier: MIT
 * heap.c - the shared heap: chunks, small blocks by bitmap, large blocks by runs of chunks.
 *
 * Argument. A chunk's word is the only truth about it: {kind, class, owner, length}.
 *   FREE -> CLAIMING(me) by CAS; then SMALL(class, me), or on a run's first chunk LARGE(n, me).
 *   That one store commits; a chunk still CLAIMING for the dead was never handed out.
 *   LARGE -> FREEING(n, me) by CAS; then the run's other chunks FREEING, then FREE from the last
 *   to the first. A chunk that is CLAIMING below a LARGE or FREEING head belongs to that head.
 * In a SMALL chunk a set bit is a free block. Only the chunk's owner clears bits; anyone sets
 * one, which is what free is. No list, so nothing can be half linked, and a second free of a
 * block changes nothing. Everything read here is checked against bounds before use: a hostile
 * worker can spoil data, not make us read outside the mapping.   Room: memory.
 */
#include "memory/heap.h"

#include <errno.h>

#include "memory/size_class.h"
#include "sync/mutex.h"
#include <yoke/memory.h>

#define CHUNK_BYTES ((size_t)256 << 10)
#define HEADER_BYTES ((size_t)4096)
#define BITMAP_WORDS 252
#define RESERVE_BYTES_MAX ((size_t)1 << 40)
#define RESERVE_BYTES_MIN ((size_t)16 << 20)
#define LIMIT_BYTES_MIN ((size_t)1 << 20)
#define SCAN_MAX 256 /* chunk words looked at for a part-filled chunk before a new one is taken */

_Static_assert((CHUNK_BYTES - HEADER_BYTES) / 16 <= BITMAP_WORDS * 64, "a bit per smallest block");

enum kind { FREE = 0, CLAIMING, SMALL, LARGE, FREEING };

/* kind:4 | class:8 | owner:24 | length:28 (chunks) */
static uint64_t word_of(enum kind kind, unsigned class, uint32_t owner, size_t length)
{
    return (uint64_t)kind | (uint64_t) class << 4 | (uint64_t)owner << 12 | (uint64_t)length << 36;
}

static enum kind kind_of(uint64_t word)
{
    return (enum kind)(word & 0xF);
}

static unsigned class_of(uint64_t word)
{
    return (unsigned)(word >> 4 & 0xFF);
}

static uint32_t owner_of(uint64_t word)
{
    return (uint32_t)(word >> 12 & 0xFFFFFF);
}

static size_t length_of(uint64_t word)
{
    return (size_t)(word >> 36);
}

/* The first bytes of the mapping; every field is a hint or a limit, none is trusted. */
struct shared {
    _Atomic uint64_t limit;  /* chunks from here on are not taken */
    _Atomic uint64_t top;    /* chunks from here on were never taken */
    _Atomic uint64_t lowest; /* below here no chunk is free, as far as we know */
    uint64_t padding[5];
    _Atomic uint64_t words[]; /* one per chunk */
};

struct chunk {
    _Atomic uint64_t free[BITMAP_WORDS];
};

/* What this process knows; private, wiped in forked children. */
struct heap {
    yk_mutex lock;
    bool open;      /* under lock; read without it after yk_heap_open */
    uint32_t owner; /* read-only after open */
    size_t first;   /* read-only after open: chunks below hold the words */
    size_t count;   /* read-only after open: chunks in the mapping */
    size_t bytes;   /* read-only after open */
    struct shared *_Atomic base;
    _Atomic uint32_t owners;          /* numbers given out */
    size_t cursor;                    /* under lock: where the next scan starts */
    uint32_t current[YK_CLASS_COUNT]; /* under lock: our chunk of that class, 0 none */
    uint16_t hint[YK_CLASS_COUNT];    /* under lock: bitmap word to look at first */
};

_Static_assert(sizeof(struct heap) <= YK_LOCAL_BYTES, "fits the area that forks wipe");

static struct heap *heap_get(void)
{
    return yk_process_local(YK_LOCAL_HEAP);
}

/* The heap if it is open, else NULL. */
static struct heap *heap_if_open(void)
{
    struct heap *const heap = heap_get();
    if (heap == NULL) {
        return NULL;
    }
    /* SYNC(heap-open) acquire: sees the fields set by who opened it. */
    return atomic_load_explicit(&heap->base, memory_order_acquire) != NULL ? heap : NULL;
}

static struct shared *shared_of(struct heap *heap)
{
    /* relaxed: callers hold a heap that heap_if_open or heap_ready gave them. */
    return atomic_load_explicit(&heap->base, memory_order_relaxed);
}

static _Atomic uint64_t *word_at(struct heap *heap, size_t index)
{
    YK_ASSERT(index < heap->count);
    return &shared_of(heap)->words[index];
}

static unsigned char *chunk_start(struct heap *heap, size_t index)
{
    return (unsigned char *)shared_of(heap) + index * CHUNK_BYTES;
}

static uint64_t load_word(struct heap *heap, size_t index)
{
    /* SYNC(chunk-word) acquire: sees the bitmap set up before the word was. */
    return atomic_load_explicit(word_at(heap, index), memory_order_acquire);
}

static void store_word(struct heap *heap, size_t index, uint64_t word)
{
    /* SYNC(chunk-word) release: publishes the bitmap set up before. */
    atomic_store_explicit(word_at(heap, index), word, memory_order_release);
}

static bool swap_word(struct heap *heap, size_t index, uint64_t from, uint64_t to)
{
    /* SYNC(chunk-word) acq_rel: takes the chunk over with all its last owner did to it. */
    return atomic_compare_exchange_strong_explicit(word_at(heap, index), &from, to,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static size_t limit_of(struct heap *heap)
{
    /* relaxed: a limit, compared only. */
    const uint64_t limit = atomic_load_explicit(&shared_of(heap)->limit, memory_order_relaxed);
    return yk_min((size_t)limit, heap->count);
}

static size_t top_of(struct heap *heap)
{
    /* relaxed: a hint; chunks beyond it are free. */
    const uint64_t top = atomic_load_explicit(&shared_of(heap)->top, memory_order_relaxed);
    return yk_min((size_t)top, heap->count);
}

static size_t block_count(unsigned class)
{
    return (CHUNK_BYTES - HEADER_BYTES) / yk_class_bytes(class);
}

/* --- opening ------------------------------------------------------------------------------- */

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
    const size_t bytes = sizeof(struct shared) + count * sizeof(uint64_t);
    return (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

static void adopt(struct heap *heap, void *base, size_t bytes, uint32_t owner)
{
    heap->bytes = bytes;
    heap->count = bytes / CHUNK_BYTES;
    heap->first = word_chunks(heap->count);
    heap->cursor = heap->first;
    heap->owner = owner;
    heap->open = true;
    /* SYNC(heap-open) release: publishes the fields above. */
    atomic_store_explicit(&heap->base, base, memory_order_release);
}

static void limit_set(struct heap *heap, size_t bytes)
{
    const size_t chunks = yk_max(bytes, LIMIT_BYTES_MIN) / CHUNK_BYTES;
    const size_t limit = yk_min(heap->first + chunks, heap->count);
    /* relaxed: a limit, compared only. */
    atomic_store_explicit(&shared_of(heap)->limit, limit, memory_order_relaxed);
}

static int open_locked(struct heap *heap) YK_REQUIRES(heap->lock)
{
    if (heap->open) {
        return 0;
    }
    if (yk_worker_role()) {
        return YOKE_ENESTED;
    }
    void *base = NULL;
    size_t bytes = reserve_bytes();
    int rc = yk_map_shared(bytes, &base);
    while (rc != 0 && bytes > RESERVE_BYTES_MIN) {
        bytes /= 2;
        rc = yk_map_shared(bytes, &base);
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
    struct heap *const heap = heap_get();
    if (heap == NULL) {
        return -ENOMEM;
    }
    yk_mutex_lock(&heap->lock);
    const int rc = open_locked(heap);
    yk_mutex_unlock(&heap->lock);
    return rc;
}

uint32_t yk_heap_new_owner(void)
{
    const uint32_t first = YK_OWNER_PROGRAM + 1;
    /* relaxed: a counter. */
    const uint32_t n = atomic_fetch_add_explicit(&heap_get()->owners, 1, memory_order_relaxed);
    return first + n % ((1U << YK_OWNER_BITS) - first);
}

static struct heap *heap_ready(void)
{
    return yk_heap_open() == 0 ? heap_get() : NULL;
}

int yk_heap_export(struct yk_heap_handle *handle)
{
    const int rc = yk_heap_open();
    if (rc == 0) {
        struct heap *const heap = heap_get();
        *handle = (struct yk_heap_handle){.base = shared_of(heap), .bytes = heap->bytes};
    }
    return rc;
}

void yk_heap_import(const struct yk_heap_handle *handle, uint32_t owner)
{
    struct heap *const heap = heap_get();
    if (heap != NULL) {
        adopt(heap, handle->base, handle->bytes, owner);
    }
}

/* --- runs of chunks ------------------------------------------------------------------------ */

static void top_raise(struct heap *heap, size_t end)
{
    _Atomic uint64_t *const top = &shared_of(heap)->top;
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

static size_t lowest_get(struct heap *heap)
{
    /* relaxed: a hint; the scan starts over from the front when it finds nothing. */
    const uint64_t at = atomic_load_explicit(&shared_of(heap)->lowest, memory_order_relaxed);
    return at < heap->first || at >= heap->count ? heap->first : (size_t)at;
}

static void lowest_set(struct heap *heap, size_t at)
{
    /* relaxed: a hint. */
    atomic_store_explicit(&shared_of(heap)->lowest, at, memory_order_relaxed);
}

/* Claim chunks at..at+n-1 one by one; all or none. */
static bool claim_at(struct heap *heap, size_t at, size_t n)
{
    const uint64_t mine = word_of(CLAIMING, 0, heap->owner, 0);
    for (size_t i = 0; i < n; i++) {
        if (load_word(heap, at + i) != 0 || !swap_word(heap, at + i, 0, mine)) {
            while (i-- > 0) {
                store_word(heap, at + i, 0);
            }
            return false;
        }
    }
    return true;
}

/* How far to go on from a chunk that is not free. */
static size_t step_over(uint64_t word)
{
    const bool head = kind_of(word) == LARGE || kind_of(word) == FREEING;
    return head ? yk_max(length_of(word), 1) : 1;
}

/* A run of n chunks, CLAIMING for us; 0 when there is none (chunk 0 holds words). First fit. */
static size_t claim_run(struct heap *heap, size_t n)
{
    const size_t limit = limit_of(heap);
    size_t from = lowest_get(heap);
    const size_t start = from;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t at = from; at < limit && n <= limit - at;) {
            const uint64_t word = load_word(heap, at);
            if (word != 0) {
                at += step_over(word);
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

/* The bits of one bitmap word that stand for blocks; the others are whatever a worker wrote. */
static uint64_t valid_bits(unsigned class, size_t word)
{
    const size_t blocks = block_count(class);
    const size_t first = word * 64;
    if (first >= blocks) {
        return 0;
    }
    return blocks - first >= 64 ? UINT64_MAX : (1ULL << (blocks - first)) - 1;
}

static bool all_free(struct heap *heap, size_t index, unsigned class)
{
    const struct chunk *const chunk = (const struct chunk *)chunk_start(heap, index);
    for (size_t i = 0; valid_bits(class, i) != 0; i++) {
        const uint64_t full = valid_bits(class, i);
        /* SYNC(block-bits) acquire: a freed block's last use happened before. */
        if ((atomic_load_explicit(&chunk->free[i], memory_order_acquire) & full) != full) {
            return false;
        }
    }
    return true;
}

/* A chunk of small blocks that is all free becomes a plain free chunk. We own it first: only an
 * owner hands out blocks, so what is all free then stays so, and nobody holds a pointer in. */
static bool sweep_chunk(struct heap *heap, size_t at, uint64_t word)
{
    const unsigned class = class_of(word);
    const uint64_t mine = word_of(SMALL, class, heap->owner, 0);
    if (word != word_of(SMALL, class, YK_OWNER_NOBODY, 0) || class >= YK_CLASS_COUNT ||
        !all_free(heap, at, class) || !swap_word(heap, at, word, mine)) {
        return false;
    }
    const bool empty = all_free(heap, at, class);
    store_word(heap, at, empty ? 0 : word);
    return empty;
}

static bool sweep(struct heap *heap)
{
    bool found = false;
    const size_t top = top_of(heap);
    for (size_t at = heap->first; at < top;) {
        const uint64_t word = load_word(heap, at);
        found = sweep_chunk(heap, at, word) || found;
        at += step_over(word);
    }
    if (found) {
        lowest_set(heap, heap->first);
    }
    return found;
}

static size_t claim_run_or_sweep(struct heap *heap, size_t n)
{
    const size_t at = claim_run(heap, n);
    return at != 0 || !sweep(heap) ? at : claim_run(heap, n);
}

static void note_set(void *_Atomic *note, void *block)
{
    if (note != NULL) {
        /* SYNC(alloc-note) release: the note stands before the block is taken. */
        atomic_store_explicit(note, block, memory_order_release);
    }
}

static void *alloc_large(struct heap *heap, size_t bytes, void *_Atomic *note)
{
    const size_t n = bytes / CHUNK_BYTES + (bytes % CHUNK_BYTES != 0);
    if (n >= heap->count) {
        return NULL;
    }
    const size_t at = claim_run_or_sweep(heap, n);
    if (at == 0) {
        return NULL;
    }
    void *const block = chunk_start(heap, at);
    note_set(note, block);
    store_word(heap, at, word_of(LARGE, 0, heap->owner, n));
    return block;
}

static void lower_lowest(struct heap *heap, size_t at)
{
    if (at < lowest_get(heap)) {
        lowest_set(heap, at);
    }
}

/* Two passes, and the head says which one: in the first the run is still whole, so whoever takes
 * over may free all of it; in the second a chunk that is not FREEING any more is somebody's new
 * one. */
enum { MARKING = 0, RELEASING = 1 };

static void release_run(struct heap *heap, size_t at, size_t n, uint32_t owner)
{
    for (size_t i = n; i-- > 1;) {
        swap_word(heap, at + i, word_of(FREEING, 0, owner, 1), 0);
    }
    store_word(heap, at, 0);
    lower_lowest(heap, at);
}

static void mark_and_release(struct heap *heap, size_t at, size_t n, uint32_t owner)
{
    for (size_t i = 1; i < n; i++) {
        store_word(heap, at + i, word_of(FREEING, 0, owner, 1));
    }
    store_word(heap, at, word_of(FREEING, RELEASING, owner, n));
    release_run(heap, at, n, owner);
}

static bool free_large(struct heap *heap, size_t at, uint64_t word)
{
    const size_t n = length_of(word);
    if (n == 0 || n > heap->count - at ||
        !swap_word(heap, at, word, word_of(FREEING, MARKING, heap->owner, n))) {
        return false;
    }
    mark_and_release(heap, at, n, heap->owner);
    return true;
}

/* --- small blocks -------------------------------------------------------------------------- */

static void set_all_free(struct heap *heap, size_t index, unsigned class)
{
    struct chunk *const chunk = (struct chunk *)chunk_start(heap, index);
    for (size_t i = 0; i < BITMAP_WORDS; i++) {
        /* relaxed: the chunk's word publishes it. */
        atomic_store_explicit(&chunk->free[i], valid_bits(class, i), memory_order_relaxed);
    }
}

/* Take a free block of our chunk; NULL when it is full. */
static void *take_block(struct heap *heap, size_t index, unsigned class, void *_Atomic *note)
    YK_REQUIRES(heap->lock)
{
    struct chunk *const chunk = (struct chunk *)chunk_start(heap, index);
    const size_t blocks = block_count(class);
    const size_t words = (blocks + 63) / 64;
    size_t at = heap->hint[class] < words ? heap->hint[class] : 0;
    for (size_t i = 0; i < words; i++, at = at + 1 < words ? at + 1 : 0) {
        /* SYNC(block-bits) acquire: who freed the block is done with it. */
        const uint64_t all = atomic_load_explicit(&chunk->free[at], memory_order_acquire);
        const uint64_t bits = all & valid_bits(class, at);
        if (bits == 0) {
            continue;
        }
        const size_t block = at * 64 + yk_lowest_bit(bits);
        void *const start = (unsigned char *)chunk + HEADER_BYTES + block * yk_class_bytes(class);
        note_set(note, start);
        /* SYNC(block-bits) release: not before the note stands. Only the owner clears bits. */
        atomic_fetch_and_explicit(&chunk->free[at], ~(bits & (0 - bits)), memory_order_release);
        heap->hint[class] = (uint16_t)at;
        return start;
    }
    return NULL;
}

static size_t free_blocks(struct heap *heap, size_t index, unsigned class)
{
    const struct chunk *const chunk = (const struct chunk *)chunk_start(heap, index);
    size_t free = 0;
    for (size_t i = 0; valid_bits(class, i) != 0; i++) {
        /* relaxed: an estimate. */
        const uint64_t bits = atomic_load_explicit(&chunk->free[i], memory_order_relaxed);
        free += yk_count_bits(bits & valid_bits(class, i));
    }
    return free;
}

static bool worth_taking(struct heap *heap, size_t index, unsigned class)
{
    const size_t free = free_blocks(heap, index, class);
    return free > 0 && free >= block_count(class) / 8;
}

/* A chunk of this class that nobody owns and that has room; 0: none among the next few. */
static size_t take_over(struct heap *heap, unsigned class, size_t scan) YK_REQUIRES(heap->lock)
{
    const size_t top = top_of(heap);
    size_t at = heap->cursor;
    for (size_t i = 0; i < scan && i < top; i++) {
        at = at >= top || at < heap->first ? heap->first : at;
        if (at >= top) {
            break;
        }
        const uint64_t word = load_word(heap, at);
        if (word == word_of(SMALL, class, YK_OWNER_NOBODY, 0) && worth_taking(heap, at, class) &&
            swap_word(heap, at, word, word_of(SMALL, class, heap->owner, 0))) {
            heap->cursor = at + 1;
            return at;
        }
        at += step_over(word);
    }
    heap->cursor = at;
    return 0;
}

static size_t next_chunk(struct heap *heap, unsigned class) YK_REQUIRES(heap->lock)
{
    const size_t full = heap->current[class];
    if (full != 0) {
        /* Whoever finds room in it later may take it over. */
        swap_word(heap, full, word_of(SMALL, class, heap->owner, 0),
                  word_of(SMALL, class, YK_OWNER_NOBODY, 0));
        heap->current[class] = 0;
    }
    heap->hint[class] = 0;
    size_t at = take_over(heap, class, SCAN_MAX);
    if (at != 0) {
        return at;
    }
    at = claim_run_or_sweep(heap, 1);
    if (at != 0) {
        set_all_free(heap, at, class);
        store_word(heap, at, word_of(SMALL, class, heap->owner, 0));
        return at;
    }
    return take_over(heap, class, SIZE_MAX);
}

static void *alloc_small(struct heap *heap, size_t bytes, void *_Atomic *note)
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

static bool free_small(unsigned char *chunk_at, const unsigned char *block, unsigned class)
{
    struct chunk *const chunk = (struct chunk *)chunk_at;
    const size_t offset = (size_t)(block - chunk_at);
    const size_t size = yk_class_bytes(class);
    if (offset < HEADER_BYTES || (offset - HEADER_BYTES) % size != 0) {
        return false;
    }
    const size_t index = (offset - HEADER_BYTES) / size;
    if (index >= block_count(class)) {
        return false;
    }
    _Atomic uint64_t *const word = &chunk->free[index / 64];
    const uint64_t bit = 1ULL << index % 64;
    /* SYNC(block-bits) release: our use of the block is over before anyone takes it. */
    return (atomic_fetch_or_explicit(word, bit, memory_order_release) & bit) == 0;
}

/* --- the calls ----------------------------------------------------------------------------- */

void *yk_heap_alloc_noted(size_t bytes, void *_Atomic *note)
{
    struct heap *const heap = bytes != 0 ? heap_ready() : NULL;
    if (heap == NULL) {
        return NULL;
    }
    if (bytes > YK_CLASS_BYTES_MAX) {
        return alloc_large(heap, bytes, note);
    }
    yk_mutex_lock(&heap->lock);
    void *const block = alloc_small(heap, bytes, note);
    yk_mutex_unlock(&heap->lock);
    return block;
}

void *yk_heap_alloc(size_t bytes)
{
    return yk_heap_alloc_noted(bytes, NULL);
}

bool yk_heap_contains(const void *start, size_t bytes)
{
    struct heap *const heap = heap_if_open();
    if (heap == NULL) {
        return false;
    }
    const uintptr_t at = (uintptr_t)start;
    const uintptr_t low = (uintptr_t)shared_of(heap) + heap->first * CHUNK_BYTES;
    const uintptr_t high = (uintptr_t)shared_of(heap) + heap->count * CHUNK_BYTES;
    return at >= low && at <= high && bytes <= high - at;
}

static size_t index_of(struct heap *heap, const void *block)
{
    return (size_t)((const unsigned char *)block - (unsigned char *)shared_of(heap)) / CHUNK_BYTES;
}

bool yk_heap_free(void *block)
{
    if (block == NULL || !yk_heap_contains(block, 1)) {
        return false;
    }
    struct heap *const heap = heap_get();
    const size_t index = index_of(heap, block);
    const uint64_t word = load_word(heap, index);
    unsigned char *const start = chunk_start(heap, index);
    if (kind_of(word) == SMALL && class_of(word) < YK_CLASS_COUNT) {
        return free_small(start, block, class_of(word));
    }
    return kind_of(word) == LARGE && block == (void *)start && free_large(heap, index, word);
}

size_t yk_heap_block_bytes(const void *block)
{
    if (!yk_heap_contains(block, 1)) {
        return 0;
    }
    struct heap *const heap = heap_get();
    const size_t index = index_of(heap, block);
    const uint64_t word = load_word(heap, index);
    if (kind_of(word) == SMALL && class_of(word) < YK_CLASS_COUNT) {
        const size_t offset = (size_t)((const unsigned char *)block - chunk_start(heap, index));
        const size_t size = yk_class_bytes(class_of(word));
        const bool fits = offset >= HEADER_BYTES && offset + size <= CHUNK_BYTES;
        return fits && (offset - HEADER_BYTES) % size == 0 ? size : 0;
    }
    const bool head = kind_of(word) == LARGE && block == (void *)chunk_start(heap, index);
    return head ? yk_min(length_of(word), heap->count - index) * CHUNK_BYTES : 0;
}

static size_t recover_at(struct heap *heap, size_t at, uint32_t dead)
{
    const uint64_t word = load_word(heap, at);
    const size_t length = yk_min(step_over(word), heap->count - at);
    if (owner_of(word) != dead) {
        return length;
    }
    switch (kind_of(word)) {
    case CLAIMING:
        swap_word(heap, at, word, 0);
        lowest_set(heap, heap->first);
        break;
    case SMALL:
        swap_word(heap, at, word, word_of(SMALL, class_of(word), YK_OWNER_NOBODY, 0));
        break;
    case FREEING:
        if (class_of(word) == RELEASING) {
            release_run(heap, at, length, dead);
        } else {
            mark_and_release(heap, at, length, dead);
        }
        break;
    case LARGE: /* handed out: it stays */
    case FREE:
    default:
        break;
    }
    return length;
}

void yk_heap_recover(uint32_t owner)
{
    struct heap *const heap = heap_if_open();
    if (heap == NULL || owner <= YK_OWNER_PROGRAM) {
        return;
    }
    const size_t top = top_of(heap);
    for (size_t at = heap->first; at < top;) {
        at += recover_at(heap, at, owner);
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

static void count_chunk(struct heap *heap, size_t at, uint64_t word, yoke_heap_stats *stats)
{
    if (kind_of(word) == SMALL && class_of(word) < YK_CLASS_COUNT) {
        const unsigned class = class_of(word);
        const size_t used = block_count(class) - free_blocks(heap, at, class);
        stats->blocks += used;
        stats->used_bytes += used * yk_class_bytes(class);
        stats->reserved_bytes += CHUNK_BYTES;
    } else if (kind_of(word) == LARGE) {
        stats->blocks++;
        stats->used_bytes += step_over(word) * CHUNK_BYTES;
        stats->reserved_bytes += step_over(word) * CHUNK_BYTES;
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
    struct heap *const heap = heap_ready();
    if (heap == NULL) {
        return -ENOMEM;
    }
    const size_t given = out.size;
    out = (yoke_heap_stats){.size = given};
    out.limit_bytes = (yk_max(limit_of(heap), heap->first) - heap->first) * CHUNK_BYTES;
    const size_t top = top_of(heap);
    for (size_t at = heap->first; at < top;) {
        const uint64_t word = load_word(heap, at);
        count_chunk(heap, at, word, &out);
        at += step_over(word);
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
    struct heap *const heap = heap_ready();
    if (heap == NULL) {
        return -ENOMEM;
    }
    limit_set(heap, bytes);
    return 0;
}
