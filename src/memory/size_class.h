/* SPDX-License-Identifier: MIT
 * size_class.h - block sizes of the shared heap: 16 to 128 by 16, then four per doubling.
 *
 * Waste is at most a fifth. A table (small.c) holds what else follows from a size, since a
 * division takes as long as all the rest of an allocation.   Room: memory.
 */
#ifndef YK_SIZE_CLASS_H
#define YK_SIZE_CLASS_H

#include "base/base.h"

#define YK_CLASS_LINEAR 8U /* classes of 16, 32 ... 128 */
#define YK_CLASS_BYTES_MAX ((size_t)57344)
#define YK_CLASS_COUNT 43U
#define YK_CLASS_SHIFT 40 /* of `inverse` */

struct yk_class {
    uint32_t bytes;   /* of a block */
    uint16_t blocks;  /* in a chunk */
    uint16_t words;   /* of its bitmap */
    uint64_t last;    /* the bits of the last word that stand for blocks */
    uint64_t inverse; /* 2^40 / bytes, rounded up */
};

extern const struct yk_class yk_classes[YK_CLASS_COUNT];

static inline unsigned yk_class_of(size_t bytes)
{
    if (bytes <= 128) {
        return (unsigned)((bytes + 15) / 16 - 1);
    }
    const unsigned top = yk_highest_bit(bytes - 1);
    const unsigned quarter = (unsigned)((bytes - 1) >> (top - 2)) & 3U;
    return YK_CLASS_LINEAR + (top - 7) * 4 + quarter;
}

static inline size_t yk_class_bytes(unsigned class)
{
    return yk_classes[class].bytes;
}

/* offset / kind->bytes, exact for offsets inside a chunk: there the error of the inverse, less
 * than `bytes` in 2^40, times 2^18, stays below one. */
static inline size_t yk_class_divide(const struct yk_class *kind, size_t offset)
{
    return (size_t)(offset * kind->inverse >> YK_CLASS_SHIFT);
}

#endif
