/* SPDX-License-Identifier: MIT
 * cut.c - how many items the next part of a sweep gets.   Room: pool.
 *
 * Guided self-scheduling: half a fair share of what is left. Even work ends with little idle time
 * and uneven work is cut finer towards the end. It looks at no clock, so the same call on the same
 * pool is cut the same way each time.
 */
#include "pool/range.h"
#include "pool/sweep.h"

#define PARTS_MAX 256                  /* some for each worker of a large machine */
#define PARTS_BYTES ((size_t)16 << 20) /* of accumulators at once */

size_t yk_cut(size_t left, unsigned shares, size_t most)
{
    const size_t part = left / ((size_t)shares * 2);
    return yk_min(yk_max(part, 1), yk_min(yk_max(most, 1), left));
}

size_t yk_fixed_parts(size_t count, size_t accumulator_bytes)
{
    const size_t room = yk_max(PARTS_BYTES / accumulator_bytes, 16);
    return yk_min(count, yk_min(room, PARTS_MAX));
}

/* The first parts are longer by one, so that all are used up. */
size_t yk_fixed_begin(size_t count, size_t parts, size_t part)
{
    return part * (count / parts) + yk_min(part, count % parts);
}

size_t yk_fixed_cut(size_t count, size_t accumulator_bytes, size_t begin)
{
    const size_t parts = yk_fixed_parts(count, accumulator_bytes);
    const size_t longer = count % parts;
    const size_t length = count / parts;
    return begin < longer * (length + 1) ? length + 1 : length;
}
