/* SPDX-License-Identifier: MIT
 * sweep.h - a map, for or reduce on the workers of a pool.   Room: pool.
 */
#ifndef YK_SWEEP_H
#define YK_SWEEP_H

#include "pool/pool_private.h"

/* Items begin to begin + count - 1; the first was started `attempts` times before. */
struct yk_piece {
    size_t begin;
    size_t count;
    unsigned attempts;
};

/* sweep_run.c: returns as yoke_map. count is not 0. */
int yk_sweep_run(const struct yk_sweep *sweep);

/* cut.c: how the items are cut. Guided self-scheduling (Polychronopoulos and Kuck, 1987): each
 * piece is a share of what is left, so pieces start large and end small. Depends on its arguments
 * only. */
size_t yk_cut(size_t left, unsigned shares, size_t most);

/* fold.c: accumulators of a reduce, merged in order of the items. */
struct yk_fold {
    const struct yk_sweep *sweep;
    void *total;             /* what is merged so far */
    size_t merged;           /* up to this item */
    struct yk_folded *later; /* by their first item; what comes before is still missing */
};
int yk_fold_begin(struct yk_fold *fold, const struct yk_sweep *sweep);
int yk_fold_add(struct yk_fold *fold, size_t begin, size_t count, const void *accumulator);
/* With keep, the total goes to the caller's accumulator. */
void yk_fold_end(struct yk_fold *fold, bool keep);

#endif
