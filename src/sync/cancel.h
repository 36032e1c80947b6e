/* SPDX-License-Identifier: MIT
 * cancel.h - the tree of cancel tokens, as the rooms above see it.
 *
 * Idea: a thread has a stack of *places*: the task it runs, the task around that one. The top
 * place says which token its blocking calls look at. Who waits hangs a wait on that token, and
 * whoever sets the token, or one above, wakes it under the tree's lock: no wake is lost, nobody
 * looks up in slices. Work that has not begun is found by the pools themselves (hooks).
 * Room: sync.
 */
#ifndef YK_CANCEL_H
#define YK_CANCEL_H

#include "platform/platform.h"
#include <yoke/cancel.h>
#include <yoke/pool.h>

/* --- tokens --------------------------------------------------------------------------------- */

/* Something that is woken when a token is set: a sleeper, or another token. */
struct yk_cancel_wait {
    /* Runs in whoever sets the token, with the tree's lock held: short, and takes no lock. */
    void (*wake)(struct yk_cancel_wait *wait);
    /* under the tree's lock */
    struct yoke_cancel *token; /* NULL: hangs nowhere */
    struct yk_cancel_wait *next;
    struct yk_cancel_wait **at; /* what points to us */
};

struct yoke_cancel {
    _Atomic uint32_t set;  /* SYNC(cancel) */
    _Atomic uint32_t refs; /* SYNC(cancel-refs): the maker, children, work that belongs to it */
    /* under the tree's lock */
    uint64_t generation; /* of the process that has it in its tree */
    struct yoke_cancel *parent;
    struct yoke_cancel *children;
    struct yoke_cancel *next; /* of the same parent */
    struct yoke_cancel **at;  /* what points to us */
    struct yk_cancel_wait *waits;
    struct yoke_cancel *todo; /* set, and what hangs below it is still to be */
};

/* A token below parent, or a root (NULL). It is the caller's, until yk_cancel_drop; NULL: no
 * memory. */
struct yoke_cancel *yk_cancel_make(struct yoke_cancel *parent);
/* Once more, or once less; NULL does nothing. Both may be called with a pool's lock held. */
void yk_cancel_keep(struct yoke_cancel *token);
void yk_cancel_drop(struct yoke_cancel *token);

/* It is set; NULL never is. One load. */
static inline bool yk_cancel_seen(const struct yoke_cancel *token)
{
    /* SYNC(cancel) acquire: sees what was done before it was set. */
    return token != NULL && atomic_load_explicit(&token->set, memory_order_acquire) != 0;
}

/* Set it and all below, and wake their waits; pools are not told before yk_cancel_flush. May be
 * called with a pool's lock held, yk_cancel_flush may not. */
void yk_cancel_tell(struct yoke_cancel *token);
void yk_cancel_flush(void);

/* Hang a wait on a token. False: it is set, and nothing hangs there. */
bool yk_cancel_wait_begin(struct yk_cancel_wait *wait, struct yoke_cancel *token);
/* No wake runs, or will run, when this returns. Of one that hangs nowhere: nothing. */
void yk_cancel_wait_end(struct yk_cancel_wait *wait);

/* A wait of somebody who watches a word: a wake adds 2 to it, and wakes who sleeps on it. So such
 * a word counts, or says what it says in its lowest bit. */
struct yk_cancel_watch {
    struct yk_cancel_wait wait; /* first */
    _Atomic uint32_t *word;
    enum yk_scope scope;
};
bool yk_cancel_watch_begin(struct yk_cancel_watch *watch, struct yoke_cancel *token,
                           _Atomic uint32_t *word, enum yk_scope scope);

/* --- pools ---------------------------------------------------------------------------------- */

/* Told after tokens were set: ends what has not begun, tells what runs. */
struct yk_cancel_hook {
    void (*sweep)(struct yk_cancel_hook *hook); /* no lock is held but the sweepers' */
    struct yk_cancel_hook *next;                /* under the tree's lock */
    uint64_t generation;                        /* of the process that listed it; 0: none */
};

/* List it, if it is not, with the lock of its pool held. A token that is not seen set after this,
 * with that lock held since, will be swept for when it is. */
void yk_cancel_hook_add(struct yk_cancel_hook *hook, void (*sweep)(struct yk_cancel_hook *hook));
/* Its sweep does not run, nor will, when this returns; no pool's lock is held. */
void yk_cancel_hook_remove(struct yk_cancel_hook *hook);

/* --- places --------------------------------------------------------------------------------- */

/* A call that waits ends early for its options.cancel and for the caller's own token: `token` is
 * set with either. The parts of its work belong to it. With fail_fast it is the call's alone, and
 * may be set for a failure. */
struct yk_cancel_call {
    struct yoke_cancel *token; /* NULL: nobody can cancel it */
    struct yoke_cancel *given; /* options.cancel */
    struct yoke_cancel *made;  /* or NULL */
    struct yk_cancel_wait tie; /* of ours to the caller's own */
};

/* Work with a token of its own whose waits end for another one as well: `call` is made when it
 * waits for the first time. On the stack of who runs it, who ends the call. */
struct yk_cancel_tie {
    struct yoke_cancel *other; /* borrowed */
    struct yk_cancel_call call;
};

/* A stretch of this thread's work that belongs to a token. On the stack of who runs it. */
struct yk_cancel_place {
    struct yk_cancel_place *outer;
    struct yoke_cancel *token; /* borrowed; NULL: none, or not asked for yet */
    /* NULL, or finds the token when somebody asks for it first. */
    struct yoke_cancel *(*resolve)(struct yk_cancel_place *place);
    struct yk_cancel_tie *tie;   /* NULL, or another token that ends its waits, and that alone */
    const _Atomic uint8_t *flag; /* process workers: not 0: cancelled. Else NULL */
    bool told;                   /* a call of this place has returned -ECANCELED for its token */
};

extern _Thread_local struct yk_cancel_place *yk_cancel_top;

static inline void yk_cancel_enter(struct yk_cancel_place *place)
{
    place->outer = yk_cancel_top;
    yk_cancel_top = place;
}

static inline void yk_cancel_leave(const struct yk_cancel_place *place)
{
    yk_cancel_top = place->outer;
}

/* The token of a thread that Yoke started, for what it does outside of tasks. */
void yk_cancel_thread_adopt(struct yoke_cancel *token);
struct yoke_cancel *yk_cancel_thread(void);

/* What the calls of this thread look at while they wait: the token of its task, else that of the
 * thread itself, or NULL. */
struct yoke_cancel *yk_cancel_own(void);
/* What work with these options belongs to: options.cancel, or the token of the task that asks.
 * Borrowed. NULL inside a process worker, where there are no tokens. */
struct yoke_cancel *yk_cancel_of(const yoke_options *options);
/* A process worker: its task was cancelled. */
static inline bool yk_cancel_flagged(void)
{
    const struct yk_cancel_place *const place = yk_cancel_top;
    /* relaxed: a request, seen sooner or later. */
    return place != NULL && place->flag != NULL &&
           atomic_load_explicit(place->flag, memory_order_relaxed) != 0;
}
/* The caller is to return -ECANCELED: its task, or its thread, was cancelled. Notes that it knows. */
bool yk_cancel_here(void);

/* --- calls that wait ------------------------------------------------------------------------ */

/* 0 or -ENOMEM. */
int yk_cancel_call_begin(struct yk_cancel_call *call, const yoke_options *options);
void yk_cancel_call_end(struct yk_cancel_call *call);
/* Not for a failure, but from outside: the call returns -ECANCELED. */
static inline bool yk_cancel_call_cancelled(const struct yk_cancel_call *call)
{
    return yk_cancel_seen(call->given) || yk_cancel_here();
}

#endif
