/* SPDX-License-Identifier: MIT
 * region.c - bump allocation in a chain of blocks.   Room: memory.
 *
 * Idea: a task's allocations die together, so nothing is tracked but the blocks. Blocks double
 * up to a limit; what does not fit the next block gets one of its own size.
 */
#include "memory/region.h"

#include <stdlib.h>

#define ALIGN ((size_t)16)
#define BLOCK_BYTES_MIN ((size_t)4096)
#define BLOCK_BYTES_MAX ((size_t)1 << 20)

struct yk_region_block {
    struct yk_region_block *older;
    size_t used; /* of data */
    size_t size;
    size_t padding; /* data stays aligned to 16 */
    unsigned char data[];
};

static struct yk_region_block *add_block(struct yk_region *region, size_t bytes)
{
    const size_t last = region->newest != NULL ? region->newest->size : BLOCK_BYTES_MIN / 2;
    const size_t size = yk_max(bytes, yk_min(2 * last, BLOCK_BYTES_MAX));
    struct yk_region_block *const block = malloc(sizeof *block + size);
    if (block == NULL) {
        return NULL;
    }
    block->older = region->newest;
    block->used = 0;
    block->size = size;
    region->newest = block;
    return block;
}

void *yk_region_alloc(struct yk_region *region, size_t bytes)
{
    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        return NULL;
    }
    const size_t wanted = yk_round_up(bytes, ALIGN);
    struct yk_region_block *block = region->newest;
    if (block == NULL || block->size - block->used < wanted) {
        block = add_block(region, wanted);
        if (block == NULL) {
            return NULL;
        }
    }
    void *const start = block->data + block->used;
    block->used += wanted;
    return start;
}

void yk_region_clear(struct yk_region *region)
{
    while (region->newest != NULL) {
        struct yk_region_block *const block = region->newest;
        region->newest = block->older;
        free(block);
    }
}
