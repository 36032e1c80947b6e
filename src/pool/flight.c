/* SPDX-License-Identifier: MIT
 * flight.c - parts of a call: sent out, landed, read, recalled.   Room: pool.
 *
 * Each item ends exactly once: with its part, or as the one its worker died with, or cancelled
 * before it began. What a dead worker's part did not come to is a piece to hand out again.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/flight.h"

/* --- legs ----------------------------------------------------------------------------------- */

static void fill(struct yk_unit *unit, struct yk_slot *slot)
{
    const struct yk_leg *const leg = (const struct yk_leg *)unit;
    slot->op = unit->items != 0 ? YK_OP_MAP : YK_OP_RANGE;
    slot->flags = unit->timeout_ns != 0 ? YK_FLAG_TIMED : 0;
    slot->run.part = leg->block;
    slot->context = leg->context;
    slot->attempt = leg->piece.attempts;
}

static bool ended(struct yk_unit *unit, const struct yk_answer *answer)
{
    ((struct yk_leg *)unit)->answer = *answer;
    return false; /* what comes next is the caller's to decide */
}

void yk_leg_init(struct yk_leg *leg, const yoke_options *options, const void *context)
{
    yk_unit_init(&leg->unit, fill, ended);
    leg->unit.timeout_ns = options->timeout_ns;
    leg->context = context;
}

struct yk_part *yk_leg_block(struct yoke_pool *pool, struct yk_leg *leg, size_t bytes)
{
    if (leg->block != NULL && leg->block_bytes >= bytes) {
        return leg->block;
    }
    yk_pool_free(pool, leg->block);
    leg->block = yk_pool_alloc(pool, bytes);
    leg->block_bytes = leg->block != NULL ? bytes : 0;
    return leg->block;
}

bool yk_leg_may_try_again(const struct yk_leg *leg, unsigned attempts, unsigned retries,
                          bool stopped)
{
    const bool crashed = leg->answer.died && leg->unit.verdict == 0 && !stopped;
    return crashed && attempts <= retries;
}

/* The worker died with item k begun, or (begun false) between two items. */
static struct yk_reading read_dead(const struct yk_leg *leg, size_t k, bool begun, bool try_again)
{
    const struct yk_piece piece = leg->piece;
    const unsigned attempts = (k == 0 ? piece.attempts : 0) + begun;
    struct yk_reading reading = {
        .complete = k,
        .lost = begun && !try_again,
        .attempts = attempts,
        .rest = {.begin = piece.begin + k, .count = piece.count - k, .attempts = attempts},
        .again = true,
    };
    if (reading.lost) {
        reading.rest =
            (struct yk_piece){.begin = piece.begin + k + 1, .count = piece.count - k - 1};
    }
    return reading;
}

struct yk_reading yk_leg_read(const struct yk_leg *leg, unsigned retries, bool stopped)
{
    const size_t count = leg->piece.count;
    const size_t progress = yk_min(leg->answer.progress, count + 1);
    if (leg->answer.died && progress <= count) {
        const size_t k = progress > 0 ? progress - 1 : 0;
        const unsigned attempts = (k == 0 ? leg->piece.attempts : 0) + 1;
        /* Late before its first item, it lied: it was given more than the time of all. */
        return read_dead(leg, k, progress > 0 || leg->unit.verdict == YOKE_TIMEDOUT,
                         yk_leg_may_try_again(leg, attempts, retries, stopped));
    }
    /* Taken back before it began, it never ran; cut short by a cancel, it ran in part. */
    const bool never = !leg->answer.died && progress == 0;
    const size_t ran = never ? 0 : yk_min(leg->block->ran, count);
    return (struct yk_reading){
        .complete = ran,
        .rest = {.begin = leg->piece.begin + ran, .count = count - ran},
    };
}

/* --- the flight ----------------------------------------------------------------------------- */

int yk_flight_begin(struct yk_flight *flight, struct yoke_pool *pool, unsigned most,
                    struct yoke_cancel *token)
{
    *flight = (struct yk_flight){.pool = pool, .most = most, .token = token};
    flight->legs = calloc(most, sizeof(struct yk_leg *));
    return flight->legs != NULL ? 0 : -ENOMEM;
}

void yk_flight_end(struct yk_flight *flight)
{
    free(flight->legs);
}

int yk_flight_send(struct yk_flight *flight, struct yk_leg *leg)
{
    struct yoke_pool *const pool = flight->pool;
    yk_biased_lock(&pool->lock);
    const int closed = pool->stopping ? pool->closed : 0;
    if (closed == 0) {
        leg->unit.token = flight->token;
        yk_cancel_keep(flight->token);
        yk_unit_publish_locked(pool, &leg->unit);
    }
    yk_biased_unlock(&pool->lock);
    if (closed == 0) {
        YK_ASSERT(flight->count < flight->most);
        flight->legs[flight->count++] = leg;
    }
    return closed;
}

static bool has_landed(struct yoke_pool *pool, struct yk_leg *leg)
{
    if (!yk_unit_looks_done(pool, &leg->unit)) {
        return false;
    }
    yk_biased_lock(&pool->lock);
    yk_unit_poll_locked(pool, &leg->unit);
    const bool over = leg->unit.state == YK_UNIT_ENDED;
    yk_biased_unlock(&pool->lock);
    return over;
}

struct yk_leg *yk_flight_land(struct yk_flight *flight)
{
    for (unsigned n = 0; n < flight->count; n++) {
        if (flight->next_look >= flight->count) {
            flight->next_look = 0;
        }
        struct yk_leg **const at = &flight->legs[flight->next_look];
        struct yk_leg *const leg = *at;
        if (has_landed(flight->pool, leg)) {
            flight->count--;
            memmove((void *)at, (const void *)(at + 1),
                    (flight->count - flight->next_look) * sizeof(struct yk_leg *));
            return leg;
        }
        flight->next_look++;
    }
    return NULL;
}

void yk_flight_recall(struct yk_flight *flight)
{
    struct yoke_pool *const pool = flight->pool;
    yk_biased_lock(&pool->lock);
    for (unsigned i = 0; i < flight->count; i++) {
        struct yk_unit *const unit = &flight->legs[i]->unit;
        if (!yk_unit_revoke_locked(pool, unit)) {
            yk_unit_cancel_locked(pool, unit);
        }
    }
    yk_biased_unlock(&pool->lock);
    yk_cancel_flush(); /* what its tasks have handed in */
}

bool yk_flight_help(struct yk_flight *flight)
{
    for (unsigned i = 0; i < flight->count; i++) {
        if (yk_unit_help(flight->pool, &flight->legs[i]->unit)) {
            return true;
        }
    }
    return false;
}

bool yk_flight_notify(struct yk_flight *flight)
{
    struct yoke_pool *const pool = flight->pool;
    bool over = false;
    yk_biased_lock(&pool->lock);
    if (pool->backlog != NULL) {
        /* Perhaps ours: the table is full, maybe of what has ended and nobody else waits for. */
        yk_pool_collect_all_locked(pool);
        over = yk_pool_notify_all_locked(pool);
    }
    for (unsigned i = 0; i < flight->count; i++) {
        over = yk_unit_notify_locked(pool, &flight->legs[i]->unit) || over;
    }
    yk_biased_unlock(&pool->lock);
    return over;
}

int yk_flight_closed(struct yk_flight *flight)
{
    struct yoke_pool *const pool = flight->pool;
    yk_biased_lock(&pool->lock);
    const int closed = pool->stopping ? pool->closed : 0;
    yk_biased_unlock(&pool->lock);
    return closed;
}

int yk_context_copy(struct yoke_pool *pool, const yoke_options *options, const void **context,
                    void **copy)
{
    *context = options->context;
    *copy = NULL;
    if (options->context_bytes == 0) {
        return 0;
    }
    *copy = yk_pool_alloc(pool, options->context_bytes);
    if (*copy == NULL) {
        return -ENOMEM;
    }
    memcpy(*copy, options->context, options->context_bytes);
    *context = *copy;
    return 0;
}
