/* SPDX-License-Identifier: MIT
 * size_class.h - block sizes of the shared heap: 16 to 128 by 16, then four per doubling.
 *
 * Waste is at most a fifth. Arithmetic only; no table.   Room: memory.
 */
#ifndef YK_SIZE_CLASS_H
#define YK_SIZE_CLASS_H

#include "base/base.h"

#define YK_CLASS_LINEAR 8U /* classes of 16, 32 ... 128 */
#define YK_CLASS_BYTES_MAX ((size_t)57344)
#define YK_CLASS_COUNT 43U

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
    if (class < YK_CLASS_LINEAR) {
        return ((size_t) class + 1) * 16;
    }
    const unsigned step = class - YK_CLASS_LINEAR;
    return ((size_t)(step % 4) + 5) << (step / 4 + 5);
}

#endif
