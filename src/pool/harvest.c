/* SPDX-License-Identifier: MIT
 * harvest.c - what a part that ended means for the items of its sweep.   Room: pool.
 *
 * flight.c reads it; here its items get their results and outcomes, and what it did not come to
 * goes back to the pieces.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/sweep.h"

static void note_failure(struct yk_sweep_run *run, const yoke_outcome *outcome)
{
    if (!run->failed || yk_outcome_comes_first(&run->sweep->options, outcome, &run->failure)) {
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
        memcpy(sweep->out + part->leg.piece.begin * sweep->out_bytes, part->out_stage,
               count * sweep->out_bytes);
    }
}

/* The first `count` items ran to their end. */
static void take_complete(struct yk_sweep_run *run, struct yk_sweep_part *part, size_t count)
{
    const struct yk_piece piece = part->leg.piece;
    const struct yk_part *const block = part->leg.block;
    copy_out(run, part, count);
    for (size_t k = 0; part->codes != NULL && k < count; k++) {
        set_outcome(run, yk_outcome_of(part->codes[k]), piece.begin + k,
                    k == 0 ? piece.attempts + 1 : 1);
    }
    const size_t first = block->first_failed;
    if (part->codes == NULL && block->failed != 0 && first < count) {
        set_outcome(run, yk_outcome_of(block->first_code), piece.begin + first,
                    first == 0 ? piece.attempts + 1 : 1);
    }
    run->done += count;
}

void yk_sweep_take_map(struct yk_sweep_run *run, struct yk_sweep_part *part)
{
    const struct yk_leg *const leg = &part->leg;
    const struct yk_reading read = yk_leg_read(leg, run->sweep->options.retries, run->rc != 0);
    take_complete(run, part, read.complete);
    if (read.lost) {
        set_outcome(run, leg->answer.outcome, leg->piece.begin + read.complete, read.attempts);
        run->done++;
    }
    if (read.again) {
        yk_sweep_give_back(run, read.rest);
    } else if (read.rest.count != 0) {
        const bool fast = run->failed && run->sweep->options.fail_fast != 0;
        if (run->rc == 0 && fast) {
            run->rc = YOKE_ETASK;
            yk_flight_recall(&run->flight);
        }
        yk_sweep_cancel_items(run, read.rest.begin, read.rest.count);
        run->rc = run->rc != 0 ? run->rc : -ECANCELED;
    }
}

void yk_sweep_take_range(struct yk_sweep_run *run, struct yk_sweep_part *part)
{
    const struct yk_leg *const leg = &part->leg;
    const struct yk_piece piece = leg->piece;
    const bool begun = leg->answer.progress > 0 || leg->unit.verdict == YOKE_TIMEDOUT;
    const bool stopped = run->rc != 0;
    const bool retry = leg->answer.died && !stopped &&
                       (!begun || yk_leg_may_try_again(leg, piece.attempts + 1,
                                                       run->sweep->options.retries, stopped));
    if (retry) {
        yk_sweep_give_back(run,
                           (struct yk_piece){piece.begin, piece.count, piece.attempts + begun});
        return;
    }
    run->done += piece.count;
    yoke_outcome outcome = leg->answer.outcome;
    if (outcome.kind != YOKE_OK) {
        outcome.item = piece.begin;
        outcome.attempts = piece.attempts + begun;
        note_failure(run, &outcome);
    } else if (run->sweep->merge != NULL &&
               yk_fold_add(&run->fold, piece.begin, piece.count, part->accumulator) != 0) {
        run->rc = -ENOMEM;
    }
}
