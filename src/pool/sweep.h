/* SPDX-License-Identifier: MIT
 * sweep.h - a map, for or reduce on the workers of a pool.   Room: pool.
 */
#ifndef YK_SWEEP_H
#define YK_SWEEP_H

#include "pool/flight.h"

/* fold.c: accumulators of a reduce, merged in order of the items. */
struct yk_fold {
    const struct yk_sweep *sweep;
    void *total;             /* what is merged so far */
    size_t merged;           /* up to this item */
    struct yk_folded *later; /* by their first item; what comes before is still missing */
};

/* A part: a piece that is under way, and the buffers it travels in. */
struct yk_sweep_part {
    struct yk_leg leg; /* first: a leg of ours is a part */
    int32_t *codes;
    unsigned char *in_stage;
    unsigned char *out_stage;
    void *accumulator;
    struct yk_sweep_part *next; /* of those that are idle */
};

/* A sweep that is being run; the calling thread's. */
struct yk_sweep_run {
    const struct yk_sweep *sweep;
    struct yoke_pool *pool;
    bool stage_in, stage_out;
    void *context_copy;
    unsigned shares;
    size_t piece_most;
    struct yk_flight flight;
    struct yk_sweep_part *parts;
    struct yk_sweep_part *idle;
    size_t next;             /* first item not cut off yet */
    struct yk_piece *pieces; /* given back by the dead; a stack */
    size_t piece_count;
    size_t done; /* items that ended */
    bool failed;
    yoke_outcome failure;
    int rc; /* not 0: nothing new is started */
    struct yk_fold fold;
};

/* sweep_run.c: returns as yoke_map. count is not 0. */
int yk_sweep_run(const struct yk_sweep *sweep);

/* harvest.c: a part that ended. */
void yk_sweep_take_map(struct yk_sweep_run *run, struct yk_sweep_part *part);
void yk_sweep_take_range(struct yk_sweep_run *run, struct yk_sweep_part *part);
/* Items that will not begin. */
void yk_sweep_cancel_items(struct yk_sweep_run *run, size_t begin, size_t count);
/* A piece to hand out again; false (its items are cancelled): no memory to note it. */
bool yk_sweep_give_back(struct yk_sweep_run *run, struct yk_piece piece);

/* cut.c: how the items are cut. Guided self-scheduling (Polychronopoulos and Kuck, 1987): each
 * piece is a share of what is left, so pieces start large and end small. Depends on its arguments
 * only. */
size_t yk_cut(size_t left, unsigned shares, size_t most);

/* fold.c */
int yk_fold_begin(struct yk_fold *fold, const struct yk_sweep *sweep);
int yk_fold_add(struct yk_fold *fold, size_t begin, size_t count, const void *accumulator);
/* With keep, the total goes to the caller's accumulator. */
void yk_fold_end(struct yk_fold *fold, bool keep);

#endif
