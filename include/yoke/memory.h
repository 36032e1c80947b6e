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

/** Give a block back, from any process. NULL does nothing.
 *
 *  A pointer that is no block, or a block that is free already, is left alone (a debug build
 *  of the library aborts).
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

#ifdef __cplusplus
}
#endif

#endif
