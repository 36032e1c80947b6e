/* SPDX-License-Identifier: MIT
 * cut.c - how many items the next part of a sweep gets.   Room: pool.
 *
 * Guided self-scheduling: half a fair share of what is left. Even work ends with little idle time
 * and uneven work is cut finer towards the end. It looks at no clock, so the same call on the same
 * pool is cut the same way each time.
 */
#include "pool/sweep.h"

size_t yk_cut(size_t left, unsigned shares, size_t most)
{
    const size_t part = left / ((size_t)shares * 2);
    return yk_min(yk_max(part, 1), yk_min(yk_max(most, 1), left));
}
