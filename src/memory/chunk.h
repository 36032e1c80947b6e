/* SPDX-License-Identifier: MIT
 * chunk.h - the chunks of the shared heap: one word each that says what they are.
 *
 * Argument. A chunk's word is the only truth about it: {kind, class, owner, length}.
 *   FREE -> CLAIMING(me) by CAS; then SMALL(class, me), or on a run's first chunk LARGE(n, me).
 *   That one store commits; a chunk still CLAIMING for the dead was never handed out.
 *   LARGE -> FREEING(n, me) by CAS; then the run's other chunks FREEING, then FREE from the last
 *   to the first. A chunk that is CLAIMING below a LARGE or FREEING head belongs to that head.
 * In a SMALL chunk a set bit is a free block. Only the chunk's owner clears bits; anyone sets
 * one, which is what free is. No list, so nothing can be half linked, and a second free of a
 * block changes nothing. Everything read here is checked against bounds before use: a hostile
 * worker can spoil data, not make us read outside the mapping.
 * Room: memory; used by heap.c, run.c and small.c only.
 */
#ifndef YK_CHUNK_H
#define YK_CHUNK_H

#include "memory/heap.h"
#include "memory/size_class.h"
#include "sync/mutex.h"

#define YK_CHUNK_BYTES ((size_t)256 << 10)
#define YK_CHUNK_HEADER_BYTES ((size_t)4096)
#define YK_CHUNK_BITMAP_WORDS ((size_t)252)

_Static_assert((YK_CHUNK_BYTES - YK_CHUNK_HEADER_BYTES) / 16 <= YK_CHUNK_BITMAP_WORDS * 64,
               "a bit per smallest block");

enum yk_chunk_kind {
    YK_CHUNK_FREE = 0,
    YK_CHUNK_CLAIMING,
    YK_CHUNK_SMALL,
    YK_CHUNK_LARGE,
    YK_CHUNK_FREEING
};

/* kind:4 | class:8 | owner:24 | length:28 (chunks) */
static inline uint64_t yk_chunk_word(enum yk_chunk_kind kind, unsigned class, uint32_t owner,
                                     size_t length)
{
    return (uint64_t)kind | (uint64_t) class << 4 | (uint64_t)owner << 12 | (uint64_t)length << 36;
}

static inline enum yk_chunk_kind yk_chunk_kind_of(uint64_t word)
{
    return (enum yk_chunk_kind)(word & 0xF);
}

static inline unsigned yk_chunk_class(uint64_t word)
{
    return (unsigned)(word >> 4 & 0xFF);
}

static inline uint32_t yk_chunk_owner(uint64_t word)
{
    return (uint32_t)(word >> 12 & 0xFFFFFF);
}

static inline size_t yk_chunk_length(uint64_t word)
{
    return (size_t)(word >> 36);
}

/* The first bytes of the mapping; every field is a hint or a limit, none is trusted. */
struct yk_heap_shared {
    _Atomic uint64_t limit;  /* chunks from here on are not taken */
    _Atomic uint64_t top;    /* chunks from here on were never taken */
    _Atomic uint64_t lowest; /* below here no chunk is free, as far as we know */
    uint64_t padding[5];
    _Atomic uint64_t words[]; /* one per chunk */
};

struct yk_chunk {
    _Atomic uint64_t free[YK_CHUNK_BITMAP_WORDS];
};

/* What this process knows; private, wiped in forked children. */
struct yk_heap {
    yk_mutex lock;
    bool open;      /* under lock; read without it after yk_heap_open */
    uint32_t owner; /* read-only after open */
    size_t first;   /* read-only after open: chunks below hold the words */
    size_t count;   /* read-only after open: chunks in the mapping */
    size_t bytes;   /* read-only after open */
    struct yk_shared_object object; /* read-only after open; in a worker none */
    struct yk_heap_shared *_Atomic base;
    _Atomic uint32_t owners;          /* numbers given out */
    size_t cursor;                    /* under lock: where the next scan starts */
    uint32_t current[YK_CLASS_COUNT]; /* under lock: our chunk of that class, 0 none */
    uint16_t hint[YK_CLASS_COUNT];    /* under lock: bitmap word to look at first */
};

_Static_assert(sizeof(struct yk_heap) <= YK_LOCAL_BYTES, "fits the area that forks wipe");

static inline struct yk_heap_shared *yk_heap_base(struct yk_heap *heap)
{
    /* relaxed: callers hold a heap that heap_if_open or heap_ready gave them. */
    return atomic_load_explicit(&heap->base, memory_order_relaxed);
}

static inline _Atomic uint64_t *yk_chunk_word_at(struct yk_heap *heap, size_t index)
{
    YK_ASSERT(index < heap->count);
    return &yk_heap_base(heap)->words[index];
}

static inline unsigned char *yk_chunk_start(struct yk_heap *heap, size_t index)
{
    return (unsigned char *)yk_heap_base(heap) + index * YK_CHUNK_BYTES;
}

static inline uint64_t yk_chunk_load(struct yk_heap *heap, size_t index)
{
    /* SYNC(chunk-word) acquire: sees the bitmap set up before the word was. */
    return atomic_load_explicit(yk_chunk_word_at(heap, index), memory_order_acquire);
}

static inline void yk_chunk_store(struct yk_heap *heap, size_t index, uint64_t word)
{
    /* SYNC(chunk-word) release: publishes the bitmap set up before. */
    atomic_store_explicit(yk_chunk_word_at(heap, index), word, memory_order_release);
}

static inline bool yk_chunk_swap(struct yk_heap *heap, size_t index, uint64_t from, uint64_t to)
{
    /* SYNC(chunk-word) acq_rel: takes the chunk over with all its last owner did to it. */
    return atomic_compare_exchange_strong_explicit(yk_chunk_word_at(heap, index), &from, to,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static inline size_t yk_heap_limit_chunks(struct yk_heap *heap)
{
    /* relaxed: a limit, compared only. */
    const uint64_t limit = atomic_load_explicit(&yk_heap_base(heap)->limit, memory_order_relaxed);
    return yk_min((size_t)limit, heap->count);
}

static inline size_t yk_heap_top(struct yk_heap *heap)
{
    /* relaxed: a hint; chunks beyond it are free. */
    const uint64_t top = atomic_load_explicit(&yk_heap_base(heap)->top, memory_order_relaxed);
    return yk_min((size_t)top, heap->count);
}

static inline size_t yk_chunk_blocks(unsigned class)
{
    return (YK_CHUNK_BYTES - YK_CHUNK_HEADER_BYTES) / yk_class_bytes(class);
}

/* How far to go on from a chunk that is not free. */
static inline size_t yk_chunk_step(uint64_t word)
{
    const bool head =
        yk_chunk_kind_of(word) == YK_CHUNK_LARGE || yk_chunk_kind_of(word) == YK_CHUNK_FREEING;
    return head ? yk_max(yk_chunk_length(word), 1) : 1;
}

/* The bits of one bitmap word that stand for blocks; the others are whatever a worker wrote. */
static inline uint64_t yk_chunk_valid_bits(unsigned class, size_t word)
{
    const size_t blocks = yk_chunk_blocks(class);
    const size_t first = word * 64;
    if (first >= blocks) {
        return 0;
    }
    return blocks - first >= 64 ? UINT64_MAX : (1ULL << (blocks - first)) - 1;
}

static inline void yk_heap_note(void *_Atomic *note, void *block)
{
    if (note != NULL) {
        /* SYNC(alloc-note) release: the note stands before the block is taken. */
        atomic_store_explicit(note, block, memory_order_release);
    }
}

/* --- run.c: runs of chunks, and large blocks, which are one run each ------------------------ */

/* A run of n chunks, CLAIMING for us; 0 when there is none (chunk 0 holds words). */
size_t yk_run_claim(struct yk_heap *heap, size_t n);
void *yk_run_alloc(struct yk_heap *heap, size_t bytes, void *_Atomic *note);
bool yk_run_free(struct yk_heap *heap, size_t at, uint64_t word);
/* What the dead owner was doing to the chunk at `at` is finished or undone. The number of chunks
 * looked at. */
size_t yk_run_recover(struct yk_heap *heap, size_t at, uint32_t dead);

/* --- small.c: small blocks, many to a chunk -------------------------------------------------- */

void *yk_small_alloc(struct yk_heap *heap, size_t bytes, void *_Atomic *note)
    YK_REQUIRES(heap->lock);
/* False: it is no block, or was free already. */
bool yk_small_free(unsigned char *chunk_at, const unsigned char *block, unsigned class);
bool yk_small_all_free(struct yk_heap *heap, size_t index, unsigned class);
size_t yk_small_count_free(struct yk_heap *heap, size_t index, unsigned class);

#endif
