/* SPDX-License-Identifier: MIT
 * range.h - map, for and reduce on the threads of a pool, by lazy splitting.   Room: pool.
 */
#ifndef YK_RANGE_H
#define YK_RANGE_H

#include "pool/pool_private.h"

/* Returns as yoke_map. count is not 0. */
int yk_range_run(const struct yk_sweep *sweep);

/* cut.c: how a reduce is cut where the bits of the result must not depend on the workers: into so
 * many parts, of which part p begins at that item, and the one that begins here has so many. */
size_t yk_fixed_parts(size_t count, size_t accumulator_bytes);
size_t yk_fixed_begin(size_t count, size_t parts, size_t part);
size_t yk_fixed_cut(size_t count, size_t accumulator_bytes, size_t begin);

#endif
