/* SPDX-License-Identifier: MIT
 * harvest.c - what a part that ended means for the items of its sweep.   Room: pool.
 *
 * Each item ends exactly once: with its part, or as the one its worker died with, or cancelled
 * before it began. What a dead worker's part did not come to is a piece to hand out again.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/sweep.h"

static void note_failure(struct yk_sweep_run *run, const yoke_outcome *outcome)
{
    if (!run->failed || outcome->item < run->failure.item) {
        run->failure = *outcome;
    }
    run->failed = true;
}

static void set_outcome(struct yk_sweep_run *run, yoke_outcome outcome, size_t item,
                        unsigned attempts)
{
    outcome.item = item;
    outcome.attempts = attempts;
    if (run->sweep->options.outcomes != NULL) {
        run->sweep->options.outcomes[item] = outcome;
    }
    if (outcome.kind != YOKE_OK) {
        note_failure(run, &outcome);
    }
}

void yk_sweep_cancel_items(struct yk_sweep_run *run, size_t begin, size_t count)
{
    const yoke_outcome cancelled = {.kind = YOKE_CANCELLED};
    /* Without outcomes the first one is all there is to tell. */
    const size_t told = run->sweep->options.outcomes != NULL ? count : yk_min(count, 1);
    for (size_t i = 0; i < told; i++) {
        set_outcome(run, cancelled, begin + i, 0);
    }
    run->done += count;
}

bool yk_sweep_give_back(struct yk_sweep_run *run, struct yk_piece piece)
{
    if (piece.count == 0) {
        return true;
    }
    struct yk_piece *const pieces =
        realloc(run->pieces, (run->piece_count + 1) * sizeof *run->pieces);
    if (pieces == NULL) {
        yk_sweep_cancel_items(run, piece.begin, piece.count);
        run->rc = run->rc != 0 ? run->rc : -ENOMEM;
        return false;
    }
    run->pieces = pieces;
    run->pieces[run->piece_count++] = piece;
    return true;
}

static void copy_out(struct yk_sweep_run *run, struct yk_sweep_part *part, size_t count)
{
    const struct yk_sweep *const sweep = run->sweep;
    if (part->out_stage != NULL && count != 0) {
        memcpy(sweep->out + part->piece.begin * sweep->out_bytes, part->out_stage,
               count * sweep->out_bytes);
    }
}

/* The first `count` items ran to their end. */
static void take_complete(struct yk_sweep_run *run, struct yk_sweep_part *part, size_t count)
{
    const struct yk_piece piece = part->piece;
    copy_out(run, part, count);
    for (size_t k = 0; part->codes != NULL && k < count; k++) {
        set_outcome(run, yk_outcome_of(part->codes[k]), piece.begin + k,
                    k == 0 ? piece.attempts + 1 : 1);
    }
    const size_t first = part->block->first_failed;
    if (part->codes == NULL && part->block->failed != 0 && first < count) {
        set_outcome(run, yk_outcome_of(part->block->first_code), piece.begin + first,
                    first == 0 ? piece.attempts + 1 : 1);
    }
    run->done += count;
}

static bool may_try_again(const struct yk_sweep_run *run, const struct yk_answer *answer,
                          unsigned attempts, int verdict)
{
    const bool crashed = answer->died && verdict == 0 && run->rc == 0;
    return crashed && attempts <= run->sweep->options.retries;
}

/* The worker died with item k begun, or (begun false) between two items. */
static void take_dead(struct yk_sweep_run *run, struct yk_sweep_part *part, size_t k, bool begun)
{
    const struct yk_piece piece = part->piece;
    const unsigned before = k == 0 ? piece.attempts : 0;
    take_complete(run, part, k);
    struct yk_piece rest = {.begin = piece.begin + k, .count = piece.count - k, .attempts = before};
    if (begun) {
        rest.attempts = before + 1;
        if (!may_try_again(run, &part->answer, before + 1, part->unit.verdict)) {
            set_outcome(run, part->answer.outcome, rest.begin, before + 1);
            run->done++;
            rest = (struct yk_piece){.begin = rest.begin + 1, .count = rest.count - 1};
        }
    }
    yk_sweep_give_back(run, rest);
}

void yk_sweep_take_map(struct yk_sweep_run *run, struct yk_sweep_part *part)
{
    const size_t count = part->piece.count;
    const size_t progress = yk_min(part->answer.progress, count + 1);
    if (part->answer.died && progress <= count) {
        take_dead(run, part, progress > 0 ? progress - 1 : 0, progress > 0);
        return;
    }
    /* Taken back before it began, it never ran; cut short by a cancel, it ran in part. */
    const bool never = !part->answer.died && progress == 0;
    const size_t ran = never ? 0 : yk_min(part->block->ran, count);
    take_complete(run, part, ran);
    if (ran < count) {
        yk_sweep_cancel_items(run, part->piece.begin + ran, count - ran);
        if (run->rc == 0) {
            run->rc = -ECANCELED;
        }
    }
}

void yk_sweep_take_range(struct yk_sweep_run *run, struct yk_sweep_part *part)
{
    const struct yk_piece piece = part->piece;
    const bool begun = part->answer.progress > 0;
    const bool retry =
        part->answer.died && run->rc == 0 &&
        (!begun || may_try_again(run, &part->answer, piece.attempts + 1, part->unit.verdict));
    if (retry) {
        yk_sweep_give_back(run,
                           (struct yk_piece){piece.begin, piece.count, piece.attempts + begun});
        return;
    }
    run->done += piece.count;
    yoke_outcome outcome = part->answer.outcome;
    if (outcome.kind != YOKE_OK) {
        outcome.item = piece.begin;
        outcome.attempts = piece.attempts + begun;
        note_failure(run, &outcome);
    } else if (run->sweep->merge != NULL &&
               yk_fold_add(&run->fold, piece.begin, piece.count, part->accumulator) != 0) {
        run->rc = -ENOMEM;
    }
}
