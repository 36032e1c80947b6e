/* SPDX-License-Identifier: MIT
 * flight.h - parts under way: what map, for, reduce and stream have in common.
 *
 * Idea: the calling thread cuts its items into pieces, and each travels as a *leg*: a unit of the
 * table with the block that a worker reads. The legs that are under way are its *flight*. What a
 * leg that has landed means for its items is told by yk_leg_read.   Room: pool.
 */
#ifndef YK_FLIGHT_H
#define YK_FLIGHT_H

#include "pool/dispatch.h"

/* Items begin to begin + count - 1; the first was started `attempts` times before. */
struct yk_piece {
    size_t begin;
    size_t count;
    unsigned attempts;
};

struct yk_leg {
    struct yk_unit unit; /* first: a unit of ours is a leg */
    struct yk_piece piece;
    const void *context;
    struct yk_part *block;   /* in memory the workers see; reused from piece to piece */
    size_t block_bytes;      /* of the block */
    struct yk_answer answer; /* under the pool's lock until it has landed */
};

void yk_leg_init(struct yk_leg *leg, const yoke_options *options, const void *context);
/* The leg's block, made larger if it must be; NULL when memory is short. */
struct yk_part *yk_leg_block(struct yoke_pool *pool, struct yk_leg *leg, size_t bytes);

/* What a part of a map or a stream that has landed means for its items. */
struct yk_reading {
    size_t complete;      /* so many ran to their end, from the first on */
    bool lost;            /* the next one ended with its worker, as the answer says */
    unsigned attempts;    /* lost: how often that one was started */
    struct yk_piece rest; /* what is left */
    bool again;           /* rest: to be handed out again; else it will not begin */
};

/* retries: as in the options. stopped: nothing is started again. */
struct yk_reading yk_leg_read(const struct yk_leg *leg, unsigned retries, bool stopped);
/* Its worker died, and not by a verdict; started so often, may it be started again? */
bool yk_leg_may_try_again(const struct yk_leg *leg, unsigned attempts, unsigned retries,
                          bool stopped);

/* The calling thread's. */
struct yk_flight {
    struct yoke_pool *pool;
    struct yk_leg **legs;
    unsigned count;
    unsigned most;
    unsigned next_look;
    struct yoke_cancel *token; /* what the legs belong to, or NULL */
};

/* 0 or -ENOMEM. At most `most` legs are under way at a time. Once the token is set those that have
 * not begun land as cancelled, and those that run are told. */
int yk_flight_begin(struct yk_flight *flight, struct yoke_pool *pool, unsigned most,
                    struct yoke_cancel *token);
void yk_flight_end(struct yk_flight *flight);
/* 0; or why the pool takes nothing: YOKE_ECLOSED, YOKE_EBROKEN. */
int yk_flight_send(struct yk_flight *flight, struct yk_leg *leg);
/* One that has ended, and is under way no more; NULL: there is none. */
struct yk_leg *yk_flight_land(struct yk_flight *flight);
/* What has not begun ends as cancelled; what runs is told. All of it still has to land. */
void yk_flight_recall(struct yk_flight *flight);
/* On a thread pool: run one here that nobody has begun. True if there was one. */
bool yk_flight_help(struct yk_flight *flight);
/* Ask for a wake when one lands. True if one has. */
bool yk_flight_notify(struct yk_flight *flight);
/* Why the pool takes nothing any more, or 0. */
int yk_flight_closed(struct yk_flight *flight);

/* The context for the workers: the caller's pointer, or a copy, which *copy names. 0 or -ENOMEM. */
int yk_context_copy(struct yoke_pool *pool, const yoke_options *options, const void **context,
                    void **copy);

#endif
