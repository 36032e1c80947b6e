/* SPDX-License-Identifier: MIT
 * fold.c - accumulators of a reduce, merged in order of the items.   Room: pool.
 *
 * Idea: floating-point sums depend on their order, so parts are merged from the left whatever
 * order they end in; what comes early waits in a list.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/sweep.h"

struct yk_folded {
    struct yk_folded *next;
    size_t begin;
    size_t count;
    _Alignas(16) unsigned char accumulator[];
};

int yk_fold_begin(struct yk_fold *fold, const struct yk_sweep *sweep)
{
    *fold = (struct yk_fold){.sweep = sweep};
    if (sweep->merge == NULL) {
        return 0;
    }
    fold->total = malloc(sweep->accumulator_bytes);
    if (fold->total == NULL) {
        return -ENOMEM;
    }
    memcpy(fold->total, sweep->accumulator, sweep->accumulator_bytes);
    return 0;
}

static void merge(struct yk_fold *fold, size_t count, const void *accumulator)
{
    fold->sweep->merge(fold->total, accumulator, fold->sweep->options.user);
    fold->merged += count;
}

static int keep_for_later(struct yk_fold *fold, size_t begin, size_t count, const void *accumulator)
{
    const size_t bytes = fold->sweep->accumulator_bytes;
    struct yk_folded *const folded = aligned_alloc(16, yk_round_up(sizeof *folded + bytes, 16));
    if (folded == NULL) {
        return -ENOMEM;
    }
    folded->begin = begin;
    folded->count = count;
    memcpy(folded->accumulator, accumulator, bytes);
    struct yk_folded **at = &fold->later;
    while (*at != NULL && (*at)->begin < begin) {
        at = &(*at)->next;
    }
    folded->next = *at;
    *at = folded;
    return 0;
}

int yk_fold_add(struct yk_fold *fold, size_t begin, size_t count, const void *accumulator)
{
    if (begin != fold->merged) {
        return keep_for_later(fold, begin, count, accumulator);
    }
    merge(fold, count, accumulator);
    while (fold->later != NULL && fold->later->begin == fold->merged) {
        struct yk_folded *const next = fold->later;
        fold->later = next->next;
        merge(fold, next->count, next->accumulator);
        free(next);
    }
    return 0;
}

void yk_fold_end(struct yk_fold *fold, bool keep)
{
    while (fold->later != NULL) {
        struct yk_folded *const next = fold->later;
        fold->later = next->next;
        free(next);
    }
    if (keep && fold->total != NULL) {
        memcpy(fold->sweep->accumulator, fold->total, fold->sweep->accumulator_bytes);
    }
    free(fold->total);
}
