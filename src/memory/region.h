/* SPDX-License-Identifier: MIT
 * region.h - memory that goes all at once, when its task ends.   Room: memory.
 *
 * A zeroed region is empty and usable. One thread only.
 */
#ifndef YK_REGION_H
#define YK_REGION_H

#include "base/base.h"

struct yk_region_block;

struct yk_region {
    struct yk_region_block *newest;
};

/* bytes aligned to 16; NULL when bytes is 0 or memory is short. */
void *yk_region_alloc(struct yk_region *region, size_t bytes);
/* Give everything back; the region is empty and usable again. */
void yk_region_clear(struct yk_region *region);

#endif
