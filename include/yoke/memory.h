/* SPDX-License-Identifier: MIT
 * memory.h - the shared heap: memory with the same address in every worker.
 *
 * A pointer into it is valid in the program and in all its process workers, so linked
 * structures need no offsets. It has no name anywhere: when the last process is gone, however
 * it went, the memory is gone. Outside of it, and on thread pools, use malloc as ever.
 */
#ifndef YOKE_MEMORY_H
#define YOKE_MEMORY_H

#include <yoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Take a block of the shared heap.
 *
 *  \param bytes  1 and up. The contents are not defined.
 *  \return the block, aligned to 16 bytes (to 4096 from 64 KiB on), or NULL: bytes is 0, the
 *          heap is at its limit (see yoke_heap_limit), or this is a forked child that Yoke did
 *          not make and no heap could be had.
 *
 *  Ownership:  the caller's, until yoke_shared_free in any process. It outlives the worker that
 *              took it, also one that was killed.
 *  Threads:    any, in the program and in workers.   Blocks: no.
 *  After fork: in Yoke's workers the same heap; in other children a new one of their own.
 */
YOKE_API void *yoke_shared_alloc(size_t bytes);

/** Take a block of zeros. As yoke_shared_alloc, but the first `bytes` bytes are 0.
 *
 *  Memory of a large block that was never used before is not touched for it.
 */
YOKE_API void *yoke_shared_zalloc(size_t bytes);

/** Take a block at an address that a number divides. As yoke_shared_alloc, but:
 *
 *  \param alignment  a power of two from 1 to 1 GiB. Over 4096 the block takes multiples of
 *                    256 KiB of the limit, though memory only where it is touched.
 *  \return as yoke_shared_alloc; also NULL when alignment is not such a number.
 */
YOKE_API void *yoke_shared_alloc_aligned(size_t bytes, size_t alignment);

/** Make a block larger or smaller; it may move.
 *
 *  \param block  a block, or NULL: then as yoke_shared_alloc.
 *  \param bytes  1 and up.
 *  \return the block, which holds what the old one did as far as both reach, aligned to 16 bytes;
 *          or NULL, and the old one is as it was: bytes is 0, the heap is at its limit, or
 *          `block` is no block in use.
 *
 *  Ownership:  of the old block passes in, unless NULL comes out. A worker that is killed in it
 *              leaves the old block, the new one, or both.
 *  Threads:    any, in the program and in workers, one at a time for a block.   Blocks: no.
 *  After fork: as yoke_shared_alloc.
 */
YOKE_API void *yoke_shared_realloc(void *block, size_t bytes);

/** The bytes that may be used from block on: at least what was asked for; 0: no block in use.
 *
 *  Threads:    any, in the program and in workers.   Blocks: no.
 *  After fork: in Yoke's workers; 0 for a block of the parent in other children.
 */
YOKE_API size_t yoke_shared_bytes(const void *block);

/** Give a block back, from any process. NULL does nothing.
 *
 *  A pointer that is no block, or a block that is free already, is left alone and counted (see
 *  yoke_heap_stats and yoke_heap_debug).
 *
 *  Threads:    any, in the program and in workers.   Blocks: no.
 *  After fork: in Yoke's workers; in other children it does nothing to the parent's blocks.
 */
YOKE_API void yoke_shared_free(void *block);

/** 1 if all of these bytes lie in the shared heap, else 0.
 *
 *  Threads:    any, in the program and in workers.   Blocks: no.
 *  After fork: as yoke_shared_alloc.
 */
YOKE_API int yoke_shared_contains(const void *start, size_t bytes);

/** What the shared heap holds now; a snapshot, exact when nobody allocates meanwhile. */
typedef struct yoke_heap_stats {
    size_t size;           /**< sizeof(yoke_heap_stats), set by the caller */
    size_t limit_bytes;    /**< the most it may hold */
    size_t reserved_bytes; /**< in chunks that hold blocks or could do so at once */
    size_t used_bytes;     /**< in blocks, by the size the heap gave them */
    size_t blocks;         /**< blocks in use */
    size_t large_bytes;    /**< of used_bytes, in blocks over 57344 bytes */
    size_t large_blocks;   /**< of blocks, those over 57344 bytes */
    size_t idle_bytes;     /**< free memory that was used before: yoke_heap_trim gives it back */
    size_t peak_bytes;     /**< the most it ever took of the limit, gaps included */
    size_t allocations;    /**< blocks taken since the heap was made; may miss some of the killed */
    size_t large_allocations; /**< of these, blocks over 57344 bytes */
    size_t frees;             /**< allocations less blocks */
    size_t recovered_bytes;   /**< in chunks that dead workers left and others may use again */
    size_t faults;            /**< misuses noticed, see yoke_heap_debug */
} yoke_heap_stats;

/** Fill in *stats.
 *
 *  \return 0, -EINVAL (stats NULL or its size 0), YOKE_EVERSION, or -ENOMEM (no heap).
 *
 *  Threads:    any.   Blocks: no; takes time in proportion to the heap.
 *  After fork: as yoke_shared_alloc.
 */
YOKE_API YOKE_MUST_CHECK int yoke_heap_stats_get(yoke_heap_stats *stats);

/** Set the limit of the shared heap, for the whole program.
 *
 *  The default is three quarters of the memory that was available (MemAvailable, and what the
 *  cgroup leaves) when the heap was first used. A smaller limit does not touch blocks in use.
 *
 *  \param bytes  1 MiB and up; more than could be reserved is cut to that.
 *  \return 0, -EINVAL, or -ENOMEM (no heap).
 *
 *  Threads:    any, in the program only (YOKE_ENESTED in a worker).   Blocks: no.
 *  After fork: as yoke_shared_alloc.
 */
YOKE_API YOKE_MUST_CHECK int yoke_heap_limit(size_t bytes);

/** Give free memory back to the system.
 *
 *  What is freed stays with the heap, since memory that was touched before costs nothing to use
 *  again. This call gives back free chunks of 256 KiB: all that large blocks have left, and what
 *  small blocks have left where a whole chunk is free and no other live worker takes its blocks.
 *  An allocation at the limit may fail while it runs, since it holds up to 16 MiB of the free
 *  chunks at a time.
 *
 *  \return bytes given back; 0 also where the system does not take memory back.
 *
 *  Threads:    any, in the program and in workers; a kill in it loses nothing.
 *  Blocks:     no; takes time in proportion to what is given back.
 *  After fork: as yoke_shared_alloc.
 */
YOKE_API size_t yoke_heap_trim(void);

/** Misuses of the shared heap that can be noticed. */
enum {
    YOKE_HEAP_NO_BLOCK = 1,      /**< freed: no block of the heap */
    YOKE_HEAP_INSIDE_BLOCK,      /**< freed: an address inside a block */
    YOKE_HEAP_FREED_TWICE,       /**< freed: a block that is free already */
    YOKE_HEAP_WRITTEN_AFTER_FREE /**< a block was written after it was freed; noticed when it, or
                                      a block in its place, is taken */
};

/** What the blocks are filled with in debug mode. */
enum {
    YOKE_HEAP_TAKEN_BYTE = 0xA5, /**< when taken */
    YOKE_HEAP_FREED_BYTE = 0xDD  /**< when freed */
};

/** A misuse. */
typedef struct yoke_heap_fault {
    size_t size;        /**< sizeof(yoke_heap_fault) of the library */
    int kind;           /**< YOKE_HEAP_... */
    void *address;      /**< what was freed, or the first byte that was written */
    void *block;        /**< the block it lies in, or NULL */
    size_t block_bytes; /**< its size, 0: not known */
} yoke_heap_fault;

/** Called for each misuse, on the thread that noticed it, in the process where that is; no lock is
 *  held. It may use the heap. *fault is the library's and valid during the call. */
typedef void yoke_heap_fault_fn(const yoke_heap_fault *fault, void *context);

/** Look for misuses of the shared heap, in the whole program.
 *
 *  While it is on, blocks are filled when they are taken and when they are freed (the first MiB of
 *  large ones), in all workers, and each misuse is told to fn. Blocks that were taken or freed
 *  while it was off do no harm. Wrong frees are counted also while it is off.
 *
 *  Workers call fn too, if they are copies of the program as it was later than this call (see
 *  image in yoke_pool_config); others, and programs started by Yoke, only count.
 *
 *  \param on       0: off.
 *  \param fn       NULL: misuses are only counted.
 *  \param context  handed to fn.
 *  \return 0, -ENOMEM (no heap), or YOKE_ENESTED in a worker.
 *
 *  Ownership:  context stays the caller's, and must be there until the mode is off or set anew and
 *              no call to the heap runs any more; in copies of the program it is the copy's.
 *  Threads:    any, in the program only.   Blocks: no.
 *  After fork: off in children that Yoke did not make.
 */
YOKE_API YOKE_MUST_CHECK int yoke_heap_debug(int on, yoke_heap_fault_fn *fn, void *context);

#ifdef __cplusplus
}
#endif

#endif
