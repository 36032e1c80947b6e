/* SPDX-License-Identifier: MIT
 * chunk.h - the chunks of the shared heap: one word each that says what they are.
 *
 * Argument. A chunk's word is the only truth about it: {kind, class, owner, length}.
 *   FREE -> CLAIMING(me) by CAS; then SMALL(class, me), or on a run's first chunk LARGE(n, me).
 *   That one store commits; a chunk still CLAIMING for the dead was never handed out.
 *   FREE is 0 (its memory was never used, or was given back: all zeros) or YK_CHUNK_USED.
 *   LARGE -> FREEING(n, me) by CAS; then the run's other chunks FREEING, then FREE from the last
 *   to the first. A chunk that is CLAIMING below a LARGE or FREEING head belongs to that head.
 * In a SMALL chunk a set bit is a free block. Only the chunk's owner clears bits; anyone sets
 * one, which is what free is. No list, so nothing can be half linked, and a second free of a
 * block changes nothing. Everything read here is checked against bounds before use: a hostile
 * worker can spoil data, not make us read outside the mapping.
 * Room: memory; used inside it only.
 */
#ifndef YK_CHUNK_H
#define YK_CHUNK_H

#include "memory/heap.h"
#include "memory/size_class.h"
#include "sync/mutex.h"

#include <yoke/memory.h>

#define YK_CHUNK_BYTES ((size_t)256 << 10)
#define YK_CHUNK_HEADER_BYTES ((size_t)4096)
#define YK_CHUNK_BITMAP_WORDS ((size_t)252)

#define YK_HEAP_LIMIT_MIN ((size_t)1 << 20)

/* The class field of words that are neither SMALL nor FREEING: the chunk's memory was used. */
#define YK_CHUNK_DIRTY 1U

_Static_assert((YK_CHUNK_BYTES - YK_CHUNK_HEADER_BYTES) / 16 <= YK_CHUNK_BITMAP_WORDS * 64,
               "a bit per smallest block");

/* The chunk was last filled for a free large block this time the mode was on; see debug.c. */
typedef _Atomic uint32_t yk_heap_tag;

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

/* The word of a free chunk whose memory was used. */
#define YK_CHUNK_USED yk_chunk_word(YK_CHUNK_FREE, YK_CHUNK_DIRTY, 0, 0)

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

/* The first bytes of the mapping; every field is a hint, a limit or a count, none is trusted.
 * The program's own limit and mode are private; these are the copies that workers go by. */
struct yk_heap_shared {
    _Atomic uint64_t limit;  /* chunks from here on are not taken */
    _Atomic uint64_t top;    /* chunks from here on were never taken */
    _Atomic uint64_t lowest; /* below here no chunk is free, as far as we know */
    _Atomic uint32_t debug;  /* 0: off; else the how-manieth time it is on */
    uint32_t padding[9];
    /* counts, for the statistics */
    _Atomic uint64_t small_taken; /* in chunks that are no chunks of small blocks any more */
    _Atomic uint64_t large_taken;
    _Atomic uint64_t faults; /* misuses */
    uint64_t more_padding[5];
    _Atomic uint64_t words[]; /* one per chunk; then a yk_heap_tag for each */
};

struct yk_chunk {
    _Atomic uint64_t free[YK_CHUNK_BITMAP_WORDS];
    _Atomic uint64_t filled[YK_CHUNK_BITMAP_WORDS]; /* debug.c: free, and filled with the byte */
    _Atomic uint32_t debug;                         /* debug.c: `filled` is of this time */
    _Atomic uint64_t taken;                         /* blocks, ever; only the owner counts */
};

_Static_assert(sizeof(struct yk_chunk) <= YK_CHUNK_HEADER_BYTES, "fits the header");

/* What this process knows; private, wiped in forked children. */
struct yk_heap {
    yk_mutex lock;
    bool open;                      /* under lock; read without it after yk_heap_open */
    uint32_t owner;                 /* read-only after open */
    size_t first;                   /* read-only after open: chunks below hold the words */
    size_t count;                   /* read-only after open: chunks in the mapping */
    size_t bytes;                   /* read-only after open */
    struct yk_shared_object object; /* read-only after open; in a worker none */
    struct yk_heap_shared *_Atomic base;
    const _Atomic uint64_t *limit; /* read-only after open: our own, or in workers base->limit */
    const _Atomic uint32_t *debug; /* read-only after open: our own, or in workers base->debug */
    _Atomic uint64_t own_limit;
    _Atomic uint64_t reach; /* the highest limit ever: no chunk beyond can have been taken */
    _Atomic uint32_t own_debug;
    _Atomic uint32_t owners;    /* numbers given out */
    _Atomic uint64_t grown;     /* chunks by which we raised the top since the last sweep */
    _Atomic uint64_t recovered; /* chunks of the dead */
    uint32_t debug_times;       /* under lock */
    yoke_heap_fault_fn *told;   /* under lock: who is told of misuses, or NULL */
    void *told_context;         /* under lock */
    size_t cursor;              /* under lock: where the next scan starts */
    _Atomic uint32_t current[YK_CLASS_COUNT]; /* changed under lock: our chunk, 0 none */
    _Atomic uint16_t hint[YK_CLASS_COUNT];    /* bitmap word to look at first */
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
    const uint64_t limit = atomic_load_explicit(heap->limit, memory_order_relaxed);
    return yk_min((size_t)limit, heap->count);
}

static inline size_t yk_heap_top(struct yk_heap *heap)
{
    /* relaxed: a hint; chunks beyond it are free. */
    const uint64_t top = atomic_load_explicit(&yk_heap_base(heap)->top, memory_order_relaxed);
    /* relaxed: a limit, compared only. */
    const uint64_t reach = atomic_load_explicit(&heap->reach, memory_order_relaxed);
    return yk_min((size_t)top, yk_min((size_t)reach, heap->count));
}

/* 0: off. */
static inline uint32_t yk_heap_debug_now(const struct yk_heap *heap)
{
    /* relaxed: a mode; what it guards is ordered by the words and bits. */
    return atomic_load_explicit(heap->debug, memory_order_relaxed);
}

/* The chunk that holds this address; 0 when it is none of ours. */
static inline size_t yk_chunk_index(struct yk_heap *heap, const void *at)
{
    const size_t index = ((uintptr_t)at - (uintptr_t)yk_heap_base(heap)) / YK_CHUNK_BYTES;
    return index >= heap->first && index < heap->count ? index : 0;
}

static inline bool yk_chunk_is_free(uint64_t word)
{
    return word == 0 || word == YK_CHUNK_USED;
}

/* How far to go on from a chunk that is not free. */
static inline size_t yk_chunk_step(uint64_t word)
{
    const bool head =
        yk_chunk_kind_of(word) == YK_CHUNK_LARGE || yk_chunk_kind_of(word) == YK_CHUNK_FREEING;
    return head ? yk_max(yk_chunk_length(word), 1) : 1;
}

/* The bits of one bitmap word that stand for blocks; the others are whatever a worker wrote. */
static inline uint64_t yk_chunk_valid_bits(const struct yk_class *kind, size_t word)
{
    return word + 1 < kind->words ? UINT64_MAX : word + 1 == kind->words ? kind->last : 0;
}

/* Which block of its chunk starts there; SIZE_MAX: none does. */
static inline size_t yk_chunk_block_at(const struct yk_class *kind, size_t offset)
{
    const size_t from = offset - YK_CHUNK_HEADER_BYTES;
    const size_t block = yk_class_divide(kind, from);
    const bool is =
        offset >= YK_CHUNK_HEADER_BYTES && block < kind->blocks && block * kind->bytes == from;
    return is ? block : SIZE_MAX;
}

static inline void yk_heap_note(void *_Atomic *note, void *block)
{
    if (note != NULL) {
        /* SYNC(alloc-note) release: the note stands before the block is taken. */
        atomic_store_explicit(note, block, memory_order_release);
    }
}

/* --- heap.c ---------------------------------------------------------------------------------- */

/* The heap, made if need be; NULL: there is none. */
struct yk_heap *yk_heap_ready(void);
struct yk_heap *yk_heap_if_open(void);
/* Program only. 0 or -ENOMEM. */
int yk_heap_limit(size_t bytes);

/* --- run.c: runs of chunks, and large blocks, which are one run each ------------------------ */

/* A run of n chunks, CLAIMING for us, at an address that `alignment` divides; 0 when there is
 * none (chunk 0 holds words). */
size_t yk_run_claim(struct yk_heap *heap, size_t n, size_t alignment);
void *yk_run_alloc(struct yk_heap *heap, size_t bytes, size_t alignment, void *_Atomic *note);
bool yk_run_free(struct yk_heap *heap, size_t at, uint64_t word);
/* What the dead owner was doing to the chunk at `at` is finished or undone; *found counts. The
 * number of chunks looked at. */
size_t yk_run_recover(struct yk_heap *heap, size_t at, uint32_t dead, size_t *found);
/* Give memory of free chunks back to the system; the bytes. */
size_t yk_run_trim(struct yk_heap *heap);

/* --- small.c: small blocks, many to a chunk -------------------------------------------------- */

void *yk_small_alloc(struct yk_heap *heap, unsigned class, void *_Atomic *note)
    YK_REQUIRES(heap->lock);
/* False: it is no block, or was free already. */
bool yk_small_free(struct yk_heap *heap, size_t index, const unsigned char *block, unsigned class);
bool yk_small_in_use(const unsigned char *chunk_at, size_t block);
bool yk_small_all_free(struct yk_heap *heap, size_t index, unsigned class);
size_t yk_small_count_free(struct yk_heap *heap, size_t index, unsigned class);
/* Our chunks become nobody's: who needs one takes it over. */
void yk_small_let_go(struct yk_heap *heap) YK_REQUIRES(heap->lock);

/* --- debug.c: only called while the mode is on, but for the last two ------------------------- */

/* The block was just taken: look at it and fill it. */
void yk_debug_taken(struct yk_heap *heap, void *block);
/* The block is about to be freed: fill it. `word` is its chunk's. */
void yk_debug_freeing(struct yk_heap *heap, size_t index, uint64_t word, void *block);
/* These chunks are put to another use. */
void yk_debug_forget(struct yk_heap *heap, size_t at, size_t n);
/* Somebody freed what is no block in use: count it, and tell if the mode is on. */
void yk_debug_refused(void *block);

#endif
