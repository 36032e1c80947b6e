/* SPDX-License-Identifier: MIT
 * stream_run.c - a stream on workers: filled in, sent, landed, delivered.   Room: pool.
 *
 * The calling thread drives it. next fills items into the block of a part, where the worker finds
 * them; a part that has landed waits for its turn in the line, with its outcomes, and its block is
 * used again after done has seen all of it. A part whose worker died is sent again from the item
 * after the one that the worker died with. Items between next and done are at most a window full.
 */
#include <stdlib.h>

#include "pool/dispatch.h"
#include "pool/flight.h"
#include "pool/stream.h"

#define ALIGN ((size_t)64)
#define PART_ITEMS_MAX ((size_t)4096)
#define PART_BYTES_MAX ((size_t)1 << 20)
#define WINDOW_BYTES ((size_t)16 << 20)
#define WINDOW_ITEMS ((size_t)16384)
#define WINDOW_PER_WORKER 4
#define PART_NS 1000000LL    /* what a part should be work for */
#define FILL_NS 100000LL     /* filling in a part may take */
#define FILL_LOOK 8          /* items between two looks at the clock */
#define ALONE_NS 200000000LL /* nobody begins our parts for that long: run one ourselves */

/* An item that did not end in the way that its code tells. */
struct odd {
    size_t k;
    yoke_outcome outcome;
};

struct part {
    struct yk_leg leg; /* first: a leg of ours is a part; its piece is what is still to be run */
    struct part *next; /* in the line, or idle */
    size_t first;      /* the number of its first item */
    size_t count;
    size_t begun; /* the items from here on were cancelled before they began */
    bool landed;  /* all its items have ended */
    /* in the block */
    size_t room; /* items */
    unsigned char *in;
    unsigned char *out;
    void **results;
    int32_t *codes;
    struct odd *odd; /* by k */
    size_t odd_count;
};

struct run {
    struct yk_tally *tally;
    const yoke_stream_config *config;
    const yoke_options *options;
    struct yoke_pool *pool;
    const void *context;
    void *context_copy;
    struct yk_flight flight;
    size_t window;
    size_t delivered;
    size_t part_items;     /* the next part gets so many */
    size_t part_items_max; /* and never more */
    struct part *line;     /* to be delivered, in this order */
    struct part **line_end;
    struct part *idle;
    int64_t ask_ns;  /* next said -EAGAIN: ask it again then; 0: now */
    int64_t help_ns; /* from then on the caller runs parts too; 0: not known yet */
    bool recalled;
};

/* --- parts ---------------------------------------------------------------------------------- */

/* A block with room for so many items; its end is where the codes end. */
static int make_room(struct run *run, struct part *part, size_t items)
{
    const yoke_stream_config *const config = run->config;
    if (part->room >= items) {
        return 0;
    }
    const size_t in_at = yk_round_up(sizeof(struct yk_part), ALIGN);
    const size_t out_at = in_at + yk_round_up(items * config->in_bytes, ALIGN);
    const size_t results_at = out_at + yk_round_up(items * config->out_bytes, ALIGN);
    const size_t codes_at = results_at + items * sizeof(void *);
    part->room = 0;
    unsigned char *const block =
        (unsigned char *)yk_leg_block(run->pool, &part->leg, codes_at + items * sizeof(int32_t));
    if (block == NULL) {
        return -ENOMEM;
    }
    part->room = items;
    part->in = config->in_bytes != 0 ? block + in_at : NULL;
    part->out = config->out_bytes != 0 ? block + out_at : NULL;
    part->results = (void **)(block + results_at);
    part->codes = (int32_t *)(block + codes_at);
    return 0;
}

static struct part *take_idle(struct run *run)
{
    struct part *part = run->idle;
    if (part != NULL) {
        run->idle = part->next;
        return part;
    }
    part = calloc(1, sizeof *part);
    if (part != NULL) {
        yk_leg_init(&part->leg, run->options, run->context);
    }
    return part;
}

static void give_idle(struct run *run, struct part *part)
{
    part->next = run->idle;
    run->idle = part;
}

static void free_idle(struct run *run)
{
    while (run->idle != NULL) {
        struct part *const part = run->idle;
        run->idle = part->next;
        yk_pool_free(run->pool, part->leg.block);
        free(part->odd);
        free(part);
    }
}

/* A part with room for so many items; NULL when memory is short. */
static struct part *take_part(struct run *run, size_t items)
{
    struct part *const part = take_idle(run);
    if (part == NULL || make_room(run, part, items) == 0) {
        return part;
    }
    give_idle(run, part);
    return NULL;
}

/* False: no memory to note it. */
static bool note_odd(struct run *run, struct part *part, size_t k, yoke_outcome outcome,
                     unsigned attempts)
{
    struct odd *const odd = realloc(part->odd, (part->odd_count + 1) * sizeof *odd);
    if (odd == NULL) {
        yk_tally_stop(run->tally, -ENOMEM);
        return false;
    }
    outcome.item = part->first + k;
    outcome.attempts = attempts;
    part->odd = odd;
    odd[part->odd_count++] = (struct odd){k, outcome};
    return true;
}

/* --- results -------------------------------------------------------------------------------- */

/* The block that item k made, out of the worker's reach. */
static void take_result(struct run *run, struct part *part, size_t k, struct yk_answer *answer)
{
    struct yk_result *const block = part->results[k];
    part->results[k] = NULL;
    if (block == NULL) {
        return;
    }
    if (run->pool->kind == YOKE_PROCESSES) {
        yk_pool_take_result(run->pool, block, answer);
        return;
    }
    answer->result = block;
    answer->result_at = block->data;
    answer->result_bytes = block->bytes;
}

/* What an item left that its worker died with. */
static void forget_item(struct run *run, struct part *part, size_t k)
{
    struct yk_answer answer = {0};
    take_result(run, part, k, &answer);
    yk_pool_free(run->pool, answer.result);
    part->codes[k] = 0;
}

/* --- sending -------------------------------------------------------------------------------- */

/* The worker's view of what is still to be run. */
static void arm(struct run *run, struct part *part)
{
    const yoke_stream_config *const config = run->config;
    const struct yk_piece piece = part->leg.piece;
    const size_t k = piece.begin - part->first;
    struct yk_part *const block = part->leg.block;
    *block = (struct yk_part){
        .fn = run->tally->stream->fn,
        .in = part->in != NULL ? part->in + k * config->in_bytes : NULL,
        .out = part->out != NULL ? part->out + k * config->out_bytes : NULL,
        .in_bytes = config->in_bytes,
        .out_bytes = config->out_bytes,
        .codes = part->codes + k,
        .results = part->results + k,
        .begin = piece.begin,
        .count = (uint32_t)piece.count,
        .timeout_ns = run->options->timeout_ns,
        .first_failed = UINT32_MAX,
    };
    part->leg.unit.started_ns = &block->started_ns;
    part->leg.unit.results = block->results;
    part->leg.unit.items = (uint32_t)piece.count;
}

/* All items of the part have ended; those from number `begun` on never began. */
static void settle(struct run *run, struct part *part, size_t begun)
{
    run->tally->ended += part->first + part->count - begun;
    part->begun = begun - part->first;
    part->landed = true;
}

/* Send the piece; or, if nothing may be started any more, its items are cancelled. */
static void send(struct run *run, struct part *part)
{
    struct yk_tally *const tally = run->tally;
    if (tally->rc == 0) {
        arm(run, part);
        tally->rc = yk_flight_send(&run->flight, &part->leg);
    }
    if (tally->rc != 0) {
        settle(run, part, part->leg.piece.begin);
    }
}

/* --- landing -------------------------------------------------------------------------------- */

/* A part should be work for PART_NS: long enough that its way there and back does not count, short
 * enough that nobody waits long for its items. The time is a worker's word: any is harmless. */
static void keep_pace(struct run *run, const struct part *part)
{
    const size_t count = part->leg.piece.count;
    const int64_t took_ns = part->leg.block->took_ns;
    const size_t fits = took_ns > 0 ? (size_t)((int64_t)count * PART_NS / took_ns) : 2 * count;
    if (took_ns > 2 * PART_NS) {
        run->part_items = yk_min(run->part_items, yk_max(fits, 1));
    } else if (fits > run->part_items && count >= run->part_items) {
        run->part_items = yk_min(yk_min(2 * count, fits), run->part_items_max);
    }
}

static void take_in(struct run *run, struct part *part)
{
    struct yk_tally *const tally = run->tally;
    const struct yk_leg *const leg = &part->leg;
    const struct yk_reading read = yk_leg_read(leg, run->options->retries, tally->rc != 0);
    const size_t k = leg->piece.begin - part->first;
    const size_t next = k + read.complete;
    tally->ended += read.complete + read.lost;
    if (read.complete > 0 && leg->piece.attempts > 0) {
        note_odd(run, part, k, yk_outcome_of(part->codes[k]), leg->piece.attempts + 1);
    }
    if (!leg->answer.died) {
        keep_pace(run, part);
    } else if (next < part->count) {
        forget_item(run, part, next);
    }
    if (read.lost && !note_odd(run, part, next, leg->answer.outcome, read.attempts)) {
        part->codes[next] = YK_TOLD_CANCELLED;
    }
    if (read.rest.count == 0) {
        settle(run, part, part->first + part->count);
    } else if (read.again) {
        part->leg.piece = read.rest;
        send(run, part);
    } else {
        settle(run, part, read.rest.begin);
        yk_tally_stop(tally, -ECANCELED);
    }
}

static bool land(struct run *run)
{
    struct yk_leg *leg = NULL;
    bool any = false;
    for (unsigned i = 0; i < run->flight.most && (leg = yk_flight_land(&run->flight)) != NULL;
         i++) {
        take_in(run, (struct part *)leg);
        any = true;
    }
    if (any) {
        run->ask_ns = 0;
        run->help_ns = 0;
        yk_tally_report(run->tally);
    }
    return any;
}

/* --- delivering ----------------------------------------------------------------------------- */

static void deliver_result(struct run *run, struct part *part, size_t k,
                           const yoke_outcome *outcome, const void *in)
{
    struct yk_answer answer = {0};
    take_result(run, part, k, &answer);
    yk_tally_deliver(run->tally, outcome, in, answer.result_at, answer.result_bytes);
    yk_pool_free(run->pool, answer.result);
}

static void deliver_item(struct run *run, struct part *part, size_t k, const yoke_outcome *outcome)
{
    const yoke_stream_config *const config = run->config;
    const bool has_result = outcome->kind == YOKE_OK || outcome->kind == YOKE_FAILED;
    const void *const in = part->in != NULL ? part->in + k * config->in_bytes : NULL;
    if (YK_UNLIKELY(!has_result)) {
        forget_item(run, part, k);
        yk_tally_deliver(run->tally, outcome, in, NULL, 0);
    } else if (part->results[k] != NULL) {
        deliver_result(run, part, k, outcome, in);
    } else {
        const void *const out = part->out != NULL ? part->out + k * config->out_bytes : NULL;
        yk_tally_deliver(run->tally, outcome, in, out, config->out_bytes);
    }
}

static void deliver(struct run *run, struct part *part)
{
    size_t odd = 0;
    for (size_t k = 0; k < part->count; k++) {
        yoke_outcome outcome = {.kind = YOKE_CANCELLED, .item = part->first + k};
        if (YK_UNLIKELY(odd < part->odd_count && part->odd[odd].k == k)) {
            outcome = part->odd[odd++].outcome;
        } else if (k < part->begun) {
            outcome = yk_outcome_of(part->codes[k]);
            outcome.attempts = 1;
            outcome.item = part->first + k;
        }
        deliver_item(run, part, k, &outcome);
    }
    run->delivered += part->count;
    part->odd_count = 0;
}

/* Takes the first part out of the line that is to be delivered now. */
static struct part *take_landed(struct run *run)
{
    for (struct part **at = &run->line; *at != NULL; at = &(*at)->next) {
        struct part *const part = *at;
        if (part->landed) {
            *at = part->next;
            if (*at == NULL) {
                run->line_end = at;
            }
            return part;
        }
        if (!run->config->unordered) {
            break;
        }
    }
    return NULL;
}

static bool deliver_landed(struct run *run)
{
    struct part *part = NULL;
    bool any = false;
    while ((part = take_landed(run)) != NULL) {
        deliver(run, part);
        give_idle(run, part);
        any = true;
    }
    return any;
}

/* --- feeding -------------------------------------------------------------------------------- */

/* Up to part_items of them; fewer when next takes its time, and then the next part is as small. */
static size_t fill_in(struct run *run, struct part *part)
{
    unsigned char *in = part->in;
    const size_t most = run->part_items;
    const int64_t until_ns = yk_clock_ns() + FILL_NS;
    int got = 1;
    size_t k = 0;
    while (k < most && (got = yk_tally_ask(run->tally, in)) == 1) {
        k++;
        in = yk_next_room(in, run->config->in_bytes);
        if ((k == 1 || k % FILL_LOOK == 0) && k < most && yk_clock_ns() >= until_ns) {
            run->part_items = k;
            break;
        }
    }
    run->ask_ns = got == -EAGAIN ? yk_clock_ns() + YK_STREAM_ASK_NS : 0;
    return k;
}

/* Memory is short. What is under way will come free; else try with less. */
static bool make_do(struct run *run)
{
    free_idle(run);
    if (run->line != NULL) {
        return false;
    }
    if (run->part_items == 1) {
        yk_tally_stop(run->tally, -ENOMEM);
    }
    run->part_items_max = yk_max(run->part_items / 2, 1);
    run->part_items = run->part_items_max;
    return true;
}

static bool may_feed(const struct run *run)
{
    const struct yk_tally *const tally = run->tally;
    const size_t room = run->window - (tally->given - run->delivered);
    return tally->rc == 0 && !tally->no_more && run->flight.count < run->flight.most &&
           room >= run->part_items && (run->ask_ns == 0 || yk_clock_ns() >= run->ask_ns);
}

/* Ask for items and send them as a part. False: there is nothing to be sent now. */
static bool feed(struct run *run)
{
    if (!may_feed(run)) {
        return false;
    }
    struct part *const part = take_part(run, run->part_items);
    if (part == NULL) {
        return make_do(run);
    }
    part->first = run->tally->given;
    part->count = fill_in(run, part);
    if (part->count == 0) {
        give_idle(run, part);
        return false;
    }
    memset((void *)part->results, 0, part->count * sizeof *part->results);
    memset(part->codes, 0, part->count * sizeof *part->codes);
    part->landed = false;
    part->next = NULL;
    *run->line_end = part;
    run->line_end = &part->next;
    part->leg.piece = (struct yk_piece){.begin = part->first, .count = part->count};
    send(run, part);
    return true;
}

/* --- driving -------------------------------------------------------------------------------- */

/* On a thread pool, a caller who only waits runs a part: at once if he is a task of this pool, since
 * the workers may all be such callers. Else he is better ready to deliver and to fill in, unless
 * nothing lands for so long that the workers may be waiting for something that waits for him. */
static bool help(struct run *run)
{
    if (run->pool->kind != YOKE_THREADS || run->flight.count == 0) {
        return false;
    }
    const int64_t now_ns = yk_clock_ns();
    if (run->help_ns == 0) {
        run->help_ns = yk_pool_inside_task(run->pool) ? now_ns : now_ns + ALONE_NS;
    }
    return now_ns >= run->help_ns && yk_flight_help(&run->flight);
}

/* Until a part lands, or it is time to ask next again, or to see whether to help. */
static void rest(struct run *run)
{
    const uint32_t event = yk_pool_event(run->pool);
    if (run->tally->rc != 0 && !run->recalled) {
        return; /* next said stop just now */
    }
    if (help(run) || yk_flight_notify(&run->flight)) {
        return;
    }
    if (run->tally->rc != 0) {
        yk_pool_await_for_sure(run->pool, event, YOKE_FOREVER);
        return;
    }
    const int rc = yk_pool_await(run->pool, event, run->ask_ns != 0 ? run->ask_ns : YOKE_FOREVER);
    if (rc == -EINTR) {
        yk_tally_report(run->tally);
    } else if (rc == -ECANCELED) {
        yk_tally_stop(run->tally, rc);
    }
}

static void look_around(struct run *run)
{
    if (yk_cancel_here() || yk_cancel_seen(run->tally->token)) {
        yk_tally_stop(run->tally, -ECANCELED);
    }
    if (run->tally->rc != 0 && !run->recalled) {
        yk_flight_recall(&run->flight);
        run->recalled = true;
    }
}

static void drive(struct run *run)
{
    const struct yk_tally *const tally = run->tally;
    while (run->line != NULL || (tally->rc == 0 && !tally->no_more)) {
        bool busy = land(run);
        busy = deliver_landed(run) || busy;
        look_around(run);
        if (!feed(run) && !busy && (run->line != NULL || run->ask_ns != 0)) {
            rest(run);
        }
    }
}

/* --- begin and end -------------------------------------------------------------------------- */

static int begin(struct run *run)
{
    const size_t shares = run->pool->config.workers_max;
    const size_t per_item = run->config->in_bytes + run->config->out_bytes;
    const size_t fits = per_item != 0 ? WINDOW_BYTES / per_item : WINDOW_ITEMS;
    const size_t by_default = yk_max(yk_min(fits, WINDOW_ITEMS), WINDOW_PER_WORKER * shares);
    run->window = run->config->window != 0 ? run->config->window : by_default;
    /* Two for each worker, so that none waits for us to fill in the next. */
    const size_t most = yk_min(yk_min(2 * shares + 1, run->window), yk_pool_slots(run->pool));
    const size_t most_items = per_item != 0 ? PART_BYTES_MAX / per_item : PART_ITEMS_MAX;
    run->part_items_max =
        yk_max(yk_min(yk_min(most_items, PART_ITEMS_MAX), run->window / (most + 1)), 1);
    run->part_items = 1;
    run->line_end = &run->line;
    const int rc = yk_context_copy(run->pool, run->options, &run->context, &run->context_copy);
    return rc == 0 ? yk_flight_begin(&run->flight, run->pool, (unsigned)most, run->tally->token)
                   : rc;
}

void yk_stream_run(struct yk_tally *tally)
{
    struct run run = {
        .tally = tally,
        .config = &tally->stream->config,
        .options = &tally->stream->options,
        .pool = tally->stream->pool,
    };
    tally->rc = begin(&run);
    if (tally->rc == 0) {
        drive(&run);
        const int closed = tally->rc == -ECANCELED ? yk_flight_closed(&run.flight) : 0;
        tally->rc = closed != 0 ? closed : tally->rc; /* it was the pool that cancelled us */
    }
    free_idle(&run);
    yk_flight_end(&run.flight);
    yk_pool_free(run.pool, run.context_copy);
}
