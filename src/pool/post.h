/* SPDX-License-Identifier: MIT
 * post.h - tasks that nobody waits for, in a ring of their own; for post.c, post_run.c, and the
 * workers' loop.
 *
 * Made with the first post of a pool; until then workers lose a load to it. What tells who posts
 * that there is somebody to wake is `idle`: how many workers seek (they look before they sleep),
 * how many doze, and how many of those were called. The argument is in post_run.c.   Room: pool.
 */
#ifndef YK_POST_H
#define YK_POST_H

#include "pool/pool_private.h"
#include "queue/ring.h"

#define YK_BATCH_MOST 32U

/* What does not fit a cell lies elsewhere. */
enum {
    YK_POST_BLOCK = 1,   /* data: the block to free, and where in it the argument is */
    YK_POST_CONTEXT = 2, /* the context is at YK_POST_CONTEXT_AT */
    YK_POST_TOKEN = 4    /* the token is at YK_POST_TOKEN_AT, and kept */
};
#define YK_POST_CONTEXT_AT 32U
#define YK_POST_TOKEN_AT 40U
#define YK_POST_INLINE_MAX ((size_t)32) /* with a context or a token; YK_CELL_BYTES without */

/* In `idle`: how many workers there are of each kind. */
#define YK_IDLE_SEEKS 1ULL         /* looks at the ring before it sleeps; or was called, and will */
#define YK_IDLE_DOZES (1ULL << 20) /* sleeps, or is about to */
#define YK_IDLE_CALLED (1ULL << 40) /* of those that seek: still to wake up */
#define YK_IDLE_MASK 0xFFFFFULL

/* How much of the pool is still there for posts. */
enum { YK_POSTS_OPEN = 0, YK_POSTS_INSIDE, YK_POSTS_STOPPED };

/* A worker's batch: the calls it has claimed and not begun are those from next up to limit. */
struct yk_batch {
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t next; /* written by its worker */
    _Atomic uint64_t limit; /* written by it, and under posts->lock by who takes from it */
    _Atomic uint64_t ended; /* calls; written by its worker */
    uint64_t watched;       /* under posts->lock: limit, as a watcher saw it */
    /* the worker's own */
    uint64_t seen_head;
    uint32_t most; /* calls to claim at once */
    bool seeks;    /* counted so in `idle` */
    bool dozes;    /* the same */
    bool watches;
    bool watched_now;     /* it comes from watching: batches that stand still are to be taken */
    bool insists;         /* nobody moved what queues: a streamer does not keep us from it */
    uint32_t before_ring; /* spilled ones to run before it is the ring's turn */
    _Alignas(YK_CACHE_LINE) struct yk_slot slot; /* what its tasks see of their pool */
};

struct yk_posts {
    /* read-only */
    struct yoke_pool *pool;
    struct yk_batch *hands; /* one per line of the table */
    uint32_t hand_count;
    uint32_t most;             /* calls in a batch */
    bool alone;                /* there is one worker, and never more */
    bool grows;                /* the pool may */
    struct yoke_cancel *token; /* what all tasks belong to that have no other; set when it stops */
    bool barriers;             /* who takes from a batch can have a barrier run at its worker */
    _Atomic int state;         /* YK_POSTS_OPEN ...; SYNC(posts-state) */
    struct yk_ring ring;
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t idle;
    _Alignas(YK_CACHE_LINE) _Atomic uint32_t hand_high; /* hands from here on were never used */
    _Atomic uint32_t room;                              /* counts when room was made */
    _Atomic uint32_t wants_room;
    _Atomic uint32_t drainers;
    _Atomic uint32_t streamer; /* 1 + whose tasks are tiny: more workers would be in its way; 0 */
    _Atomic uint32_t watcher;  /* 1: a worker sleeps in short stretches for the others */
    yk_mutex lock;             /* taking from batches, spill; no other is taken under it */
    struct yk_spilled *spill;  /* under lock: what tasks found no room for, the oldest first */
    struct yk_spilled *spill_last;
    _Atomic uint32_t spilled;                            /* how many; written under lock */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t here_begun; /* not by workers' hands */
    _Atomic uint64_t here_ended;
};

static inline struct yk_posts *yk_posts_of(const struct yk_ctl *ctl)
{
    /* SYNC(posts) seq_cst: sees what was made; and after our sleepers bit, see post_run.c. */
    return atomic_load_explicit(&ctl->posts, memory_order_seq_cst);
}

/* Somebody dozes, and nobody looks. */
static inline bool yk_idle_wants_wake(uint64_t idle)
{
    return (idle & YK_IDLE_MASK) == 0 && idle >= YK_IDLE_DOZES;
}

static inline uint64_t yk_posts_idle(const struct yk_posts *posts)
{
    /* SYNC(posts-idle) seq_cst: after a ticket was taken from tail, or a batch shown. */
    return atomic_load_explicit(&posts->idle, memory_order_seq_cst);
}

/* Calls that tasks found no room for. */
static inline uint32_t yk_posts_spilled(const struct yk_posts *posts)
{
    /* SYNC(posts-spilled) seq_cst: after we were counted in `idle`. */
    return atomic_load_explicit(&posts->spilled, memory_order_seq_cst);
}

/* Nothing queues, not even a ticket. */
static inline bool yk_posts_is_empty(const struct yk_posts *posts)
{
    return yk_posts_spilled(posts) == 0 && yk_ring_is_empty(&posts->ring);
}

static inline void yk_cell_copy(struct yk_cell *to, const struct yk_cell *from)
{
    to->fn = from->fn;
    to->flags = from->flags;
    memcpy(to->data, from->data, sizeof to->data);
}

/* spill.c. A call copied, counted as begun; one without fn, which is not counted, is for the first
 * of the backlog. 0, -ENOMEM, YOKE_ECLOSED; the caller wakes somebody. */
int yk_spill_put(struct yk_posts *posts, const struct yk_cell *call);
/* The oldest; false: there is none. */
bool yk_spill_take(struct yk_posts *posts, struct yk_cell *call);
/* All of them; how many were counted as begun. */
uint32_t yk_spill_drop(struct yk_posts *posts);

/* Wake a worker if one dozes and nobody seeks. */
void yk_posts_wake(struct yk_posts *posts);
/* A call begins or not, and is over. */
void yk_post_run(struct yoke_task *task, const struct yk_cell *call);
void yk_post_drop(const struct yk_cell *call);
/* The call, copied out of its cell, which is free then. */
static inline void yk_post_take(struct yk_cell *call, struct yk_cell *cell, uint64_t ticket)
{
    yk_cell_copy(call, cell);
    yk_ring_free(cell, ticket);
}
/* Take what the worker of this hand has not begun: how many, from *first on. */
uint32_t yk_batch_rob_locked(struct yk_posts *posts, struct yk_batch *hand, uint64_t *first)
    YK_REQUIRES(posts->lock);

#endif
