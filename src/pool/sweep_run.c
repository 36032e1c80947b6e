/* SPDX-License-Identifier: MIT
 * sweep_run.c - a sweep on workers: cut, stage, publish, harvest.   Room: pool.
 *
 * The calling thread drives it: it keeps a few parts under way, and takes in what ended. Private
 * data for a process pool is copied through the parts' own buffers, so the shared memory in use is
 * bounded however large the data is. A part whose worker died is split at the item that ran then:
 * what was complete counts, the item itself is the failure (or is tried again), the rest is a
 * piece like any other. On a thread pool the caller runs parts too, so nested calls cannot starve.
 */
#include <errno.h>
#include <stdlib.h>

#include "memory/heap.h"
#include "pool/range.h"
#include "pool/sweep.h"

#define STAGE_BYTES ((size_t)1 << 20)
#define ALIGN ((size_t)64)

/* --- staging -------------------------------------------------------------------------------- */

static size_t block_layout(const struct yk_sweep_run *run, size_t count, size_t *codes_at,
                           size_t *in_at, size_t *out_at)
{
    const struct yk_sweep *const sweep = run->sweep;
    const bool codes = sweep->options.outcomes != NULL;
    *codes_at = yk_round_up(sizeof(struct yk_part), ALIGN);
    *in_at = *codes_at + yk_round_up(codes ? count * sizeof(int32_t) : 0, ALIGN);
    *out_at = *in_at + yk_round_up(run->stage_in ? count * sweep->in_bytes : 0, ALIGN);
    return *out_at + yk_round_up(run->stage_out ? count * sweep->out_bytes : 0, ALIGN) +
           sweep->accumulator_bytes;
}

/* Where the worker finds the first item of the piece: in the caller's array or in our copy. */
static const void *stage_in(const struct yk_sweep *sweep, struct yk_sweep_part *part)
{
    const struct yk_piece piece = part->leg.piece;
    if (sweep->in == NULL) {
        return NULL;
    }
    const unsigned char *const in = sweep->in + piece.begin * sweep->in_bytes;
    if (part->in_stage == NULL) {
        return in;
    }
    memcpy(part->in_stage, in, piece.count * sweep->in_bytes);
    return part->in_stage;
}

static void *stage_out(const struct yk_sweep *sweep, struct yk_sweep_part *part)
{
    if (part->accumulator != NULL) {
        memcpy(part->accumulator, sweep->accumulator, sweep->accumulator_bytes);
        return part->accumulator;
    }
    if (part->out_stage != NULL || sweep->out == NULL) {
        return part->out_stage;
    }
    return sweep->out + part->leg.piece.begin * sweep->out_bytes;
}

/* Make the block that a worker reads for this piece. */
static int stage(struct yk_sweep_run *run, struct yk_sweep_part *part)
{
    const struct yk_sweep *const sweep = run->sweep;
    struct yk_leg *const leg = &part->leg;
    const struct yk_piece piece = leg->piece;
    size_t codes_at = 0;
    size_t in_at = 0;
    size_t out_at = 0;
    const size_t bytes = block_layout(run, piece.count, &codes_at, &in_at, &out_at);
    struct yk_part *const block = yk_leg_block(run->pool, leg, bytes);
    if (block == NULL) {
        return -ENOMEM;
    }
    unsigned char *const base = (unsigned char *)block;
    part->codes = sweep->options.outcomes != NULL ? (int32_t *)(base + codes_at) : NULL;
    part->in_stage = run->stage_in ? base + in_at : NULL;
    part->out_stage = run->stage_out ? base + out_at : NULL;
    part->accumulator = sweep->merge != NULL ? base + bytes - sweep->accumulator_bytes : NULL;
    if (part->codes != NULL) {
        memset(part->codes, 0, piece.count * sizeof(int32_t));
    }
    *block = (struct yk_part){
        .fn = sweep->fn,
        .range_fn = sweep->range_fn,
        .in = stage_in(sweep, part),
        .out = stage_out(sweep, part),
        .in_bytes = sweep->in_bytes,
        .out_bytes = sweep->out_bytes,
        .codes = part->codes,
        .begin = piece.begin,
        .count = (uint32_t)piece.count,
        .timeout_ns = sweep->options.timeout_ns,
        .first_failed = UINT32_MAX,
        .fail_fast = sweep->options.fail_fast != 0,
    };
    leg->unit.started_ns = &block->started_ns;
    leg->unit.items = sweep->fn != NULL ? (uint32_t)piece.count : 0;
    return 0;
}

/* --- handing out ---------------------------------------------------------------------------- */

/* The next piece, if any. */
static bool take_piece(struct yk_sweep_run *run, struct yk_piece *piece)
{
    if (run->piece_count > 0) {
        struct yk_piece *const last = &run->pieces[run->piece_count - 1];
        /* A range that was given back is run again as it was; items may be cut anew. */
        const bool whole = run->sweep->fn == NULL || last->count <= run->piece_most;
        *piece = *last;
        if (whole) {
            run->piece_count--;
        } else {
            piece->count = run->piece_most;
            last->begin += piece->count;
            last->count -= piece->count;
            last->attempts = 0;
        }
        return true;
    }
    const size_t left = run->sweep->count - run->next;
    if (left == 0) {
        return false;
    }
    const struct yk_sweep *const sweep = run->sweep;
    const bool fixed = sweep->merge != NULL && sweep->options.deterministic != 0;
    *piece = (struct yk_piece){.begin = run->next};
    piece->count = fixed ? yk_fixed_cut(sweep->count, sweep->accumulator_bytes, run->next)
                         : yk_cut(left, run->shares, run->piece_most);
    run->next += piece->count;
    return true;
}

/* Memory is short: with other parts under way it will come free, else try with less. */
static void defer(struct yk_sweep_run *run, struct yk_piece piece)
{
    if (run->flight.count > 0) {
        yk_sweep_give_back(run, piece);
    } else if (run->piece_most > 1 && run->sweep->fn != NULL) {
        run->piece_most = yk_max(yk_min(run->piece_most, piece.count) / 2, 1);
        yk_sweep_give_back(run, piece);
    } else {
        yk_sweep_cancel_items(run, piece.begin, piece.count);
        run->rc = -ENOMEM;
    }
}

/* Keep as many parts under way as we may. */
static void hand_out(struct yk_sweep_run *run)
{
    struct yk_sweep_part *part = NULL;
    while (run->rc == 0 && (part = run->idle) != NULL && take_piece(run, &part->leg.piece)) {
        if (stage(run, part) != 0) {
            defer(run, part->leg.piece);
            if (run->flight.count > 0) {
                return;
            }
            continue;
        }
        run->rc = yk_flight_send(&run->flight, &part->leg);
        if (run->rc != 0) {
            yk_sweep_cancel_items(run, part->leg.piece.begin, part->leg.piece.count);
            return;
        }
        run->idle = part->next;
    }
}

/* --- harvesting ----------------------------------------------------------------------------- */

static void stop(struct yk_sweep_run *run, int rc)
{
    run->rc = run->rc != 0 ? run->rc : rc;
    yk_flight_recall(&run->flight);
}

/* Somebody set our token, or an item failed and the others are not wanted any more. True: so it
 * was stopped. */
static bool look_around(struct yk_sweep_run *run)
{
    int rc = 0;
    if (yk_cancel_seen(run->sweep->token)) {
        (void)yk_cancel_here(); /* the caller's task knows, if it is its token */
        rc = -ECANCELED;
    } else if (run->failed && run->sweep->options.fail_fast != 0) {
        rc = YOKE_ETASK;
    }
    if (run->rc != 0 || rc == 0) {
        return false;
    }
    stop(run, rc);
    return true;
}

static void report(struct yk_sweep_run *run)
{
    const yoke_options *const options = &run->sweep->options;
    if (options->progress != NULL && run->rc == 0 &&
        options->progress(options->user, run->done, run->sweep->count) != 0) {
        stop(run, -ECANCELED);
    }
}

/* Take in every part that ended. True if there was one. */
static bool harvest(struct yk_sweep_run *run)
{
    struct yk_leg *leg = NULL;
    bool any = false;
    while ((leg = yk_flight_land(&run->flight)) != NULL) {
        struct yk_sweep_part *const part = (struct yk_sweep_part *)leg;
        any = true;
        if (run->sweep->fn != NULL) {
            yk_sweep_take_map(run, part);
        } else {
            yk_sweep_take_range(run, part);
        }
        part->next = run->idle;
        run->idle = part;
        (void)look_around(run);
        hand_out(run);
        report(run);
    }
    return any;
}

static void drive(struct yk_sweep_run *run)
{
    (void)look_around(run);
    hand_out(run);
    while (run->flight.count > 0) {
        if (harvest(run) || look_around(run) || yk_flight_help(&run->flight)) {
            continue;
        }
        const uint32_t event = yk_pool_event(run->pool);
        if (yk_flight_notify(&run->flight) || look_around(run)) {
            continue;
        }
        if (run->rc != 0) {
            yk_pool_await_for_sure(run->pool, event, YOKE_FOREVER);
            continue;
        }
        const int rc = yk_pool_await(run->pool, event, YOKE_FOREVER);
        if (rc == -EINTR) {
            report(run);
        } else if (rc == -ECANCELED) {
            stop(run, rc);
        }
        hand_out(run);
    }
}

/* --- begin and end -------------------------------------------------------------------------- */

static size_t most_items(const struct yk_sweep_run *run)
{
    const struct yk_sweep *const sweep = run->sweep;
    const size_t per_item = (run->stage_in ? sweep->in_bytes : 0) +
                            (run->stage_out ? sweep->out_bytes : 0) +
                            (sweep->options.outcomes != NULL ? sizeof(int32_t) : 0);
    const size_t most = per_item != 0 ? STAGE_BYTES / per_item : YK_PART_ITEMS_MAX;
    return yk_min(yk_max(most, 1), YK_PART_ITEMS_MAX);
}

static bool must_stage(const struct yk_sweep_run *run, const void *array, size_t item_bytes)
{
    return run->pool->kind == YOKE_PROCESSES && array != NULL &&
           !yk_heap_contains(array, item_bytes * run->sweep->count);
}

/* Two for each worker, so that none waits for us to cut the next. */
static unsigned most_parts(const struct yk_sweep_run *run)
{
    const size_t most = yk_min(2 * (size_t)run->shares + 1, yk_pool_slots(run->pool));
    return (unsigned)yk_max(yk_min(most, run->sweep->count), 1);
}

static int make_parts(struct yk_sweep_run *run, const void *context)
{
    const unsigned most = most_parts(run);
    run->parts = calloc(most, sizeof *run->parts);
    if (run->parts == NULL) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < most; i++) {
        yk_leg_init(&run->parts[i].leg, &run->sweep->options, context);
        run->parts[i].next = run->idle;
        run->idle = &run->parts[i];
    }
    return yk_flight_begin(&run->flight, run->pool, most, run->sweep->token);
}

static int begin(struct yk_sweep_run *run, const struct yk_sweep *sweep)
{
    const void *context = NULL;
    run->sweep = sweep;
    run->pool = sweep->pool;
    run->stage_in = must_stage(run, sweep->in, sweep->in_bytes);
    run->stage_out = must_stage(run, sweep->out, sweep->out_bytes);
    run->piece_most = most_items(run);
    run->shares = sweep->pool->config.workers_max;
    int rc = yk_context_copy(run->pool, &sweep->options, &context, &run->context_copy);
    rc = rc == 0 ? yk_fold_begin(&run->fold, sweep) : rc;
    return rc == 0 ? make_parts(run, context) : rc;
}

static void end(struct yk_sweep_run *run, bool keep)
{
    for (unsigned i = 0; run->parts != NULL && i < most_parts(run); i++) {
        yk_pool_free(run->pool, run->parts[i].leg.block);
    }
    free(run->parts);
    free(run->pieces);
    yk_flight_end(&run->flight);
    yk_pool_free(run->pool, run->context_copy);
    yk_fold_end(&run->fold, keep);
}

static int conclude(struct yk_sweep_run *run)
{
    /* What was never handed out, because something stopped us. */
    struct yk_piece piece;
    while (run->rc != 0 && take_piece(run, &piece)) {
        yk_sweep_cancel_items(run, piece.begin, piece.count);
    }
    if (run->rc == 0 && run->failed && yk_cancel_seen(run->sweep->token)) {
        run->rc = -ECANCELED; /* the last part was told */
    }
    if (run->failed && run->sweep->options.failure != NULL) {
        *run->sweep->options.failure = run->failure;
    }
    const int closed = yk_flight_closed(&run->flight);
    if (run->rc == -ECANCELED && closed != 0) {
        return closed; /* it was the pool that cancelled us */
    }
    return run->rc != 0 ? run->rc : run->failed ? YOKE_ETASK : 0;
}

int yk_sweep_run(const struct yk_sweep *sweep)
{
    struct yk_sweep_run run = {0};
    int rc = begin(&run, sweep);
    if (rc == 0) {
        drive(&run);
        rc = conclude(&run);
    }
    end(&run, rc == 0);
    return rc;
}
