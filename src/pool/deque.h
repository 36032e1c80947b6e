/* SPDX-License-Identifier: MIT
 * deque.h - one thread's deque of spawned frames, and the mailbox in which it is given frames.
 *
 * The owner alone pushes and pops, at the top. Who is *hungry* (has nothing to do) is given the
 * oldest frame by the owner at its next spawn, or takes it himself if that lasts too long.
 * `split` holds the truth: what lies below was taken. docs/fork-join.md has the argument.
 * Room: pool.
 */
#ifndef YK_DEQUE_H
#define YK_DEQUE_H

#include "base/base.h"
#include "platform/platform.h"
#include "pool/worker.h"
#include "sync/cancel.h"
#include "sync/mutex.h"
#include <yoke/fork.h>

#define YK_DEQUE_SLOTS 8192U /* open spawns; more run at once */
#define YK_GUESTS 64U        /* outside callers in one pool at once */

/* Placed: by somebody who was hungry and counts as running now; followed: by who waits for us. */
enum { YK_FRAME_PLACED = 1, YK_FRAME_FOLLOWED, YK_FRAME_DONE };

/* How an owner sleeps: on its own word while it waits for a frame; a worker without work, on its
 * line. */
enum { YK_SLEEPS_HERE = 1, YK_SLEEPS_IDLE };

/* What a mailbox holds, if it is no frame: shut; open for any frame; open for those that descend
 * from the one its owner waits for. */
#define YK_MAIL_SHUT NULL
#define YK_MAIL_HUNGRY (&yk_mail_marks[0])
#define YK_MAIL_FOLLOWS (&yk_mail_marks[1])
extern yoke_frame yk_mail_marks[2];

static inline bool yk_mail_is_frame(const yoke_frame *mail)
{
    return mail != YK_MAIL_SHUT && mail != YK_MAIL_HUNGRY && mail != YK_MAIL_FOLLOWS;
}

struct yk_deque;

/* A stretch of a deque: what lies at or above `base` was spawned by one run, or below one taken
 * frame. On the stack of who runs it. */
struct yk_stretch {
    struct yk_stretch *outer;
    struct yk_deque *deque;
    yoke_frame **base;
    const yoke_frame *frame; /* taken from somebody, and run here; NULL: a run begins here */
    yoke_cancel *cancel;
};

struct yk_deque {
    /* the owner reads these at each spawn and sync; others seldom write them */
    _Alignas(YK_CACHE_LINE) yoke_deque ends;
    yoke_frame **slots;
    struct yk_team *team;       /* NULL: nobody takes from this one */
    struct yk_stretch *stretch; /* innermost; written under the lock */
    unsigned index;             /* in the team */
    bool spins_only;            /* what is spawned now is not worth the wake of a sleeper */
    bool nested;                /* a guest that is a worker of another pool, or in a task of it */
    struct yoke_worker *worker; /* whose it is; a guest has one of its own */
    struct yoke_worker guest;
    /* written by others too */
    _Alignas(YK_CACHE_LINE) yk_mutex lock; /* who moves split holds it */
    _Atomic uint32_t busy;                 /* frames may be spawned on it: SYNC(busy) */
    struct yk_deque *_Atomic follower;     /* waits for a frame that we run: SYNC(follower) */
    /* what the owner looks at while it waits */
    _Alignas(YK_CACHE_LINE) yoke_frame *_Atomic mail; /* SYNC(mail) */
    _Atomic uint32_t late;                            /* a frame was taken back from the mailbox */
    _Atomic uint32_t asleep;                          /* SYNC(asleep); also the word it sleeps on */
    _Atomic uint32_t waker_cpu;                       /* where who woke it ran, plus 1; a hint */
    const yoke_frame *_Atomic awaited;                /* SYNC(follower) */
    /* the owner's */
    struct yk_deque *outer; /* of another team, that this thread is in as well */
    uint32_t entered;       /* how often; a guest leaves with the last */
    bool registered;        /* its bit in hungry was set */
    bool slept;             /* since it became hungry */
    bool call_due;          /* it is hungry, and has not called yet */
    int64_t deaf_ns;        /* how long it keeps quiet after frames that were not worth a wake */
    int64_t deaf_until_ns;
    int64_t warm_until_ns; /* worth spinning until then */
    int64_t now_ns;        /* as of the last look at the clock */
    yoke_frame *taken;     /* found by yk_hungry_look */
};

#define YK_TEAM_WORDS 3U
/* Workers that fork and join; more only run tasks. */
#define YK_TEAM_MAX ((size_t)64 * YK_TEAM_WORDS)

/* All deques of a pool. */
struct yk_team {
    struct yoke_pool *pool;
    unsigned workers; /* deques of workers; those of guests follow */
    unsigned deque_count;
    bool barriers; /* yk_barrier_everywhere works here */
    void *area;    /* slots of all */
    size_t area_bytes;
    /* One line: who gives, and who is given, touch it once each. */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t guests_free; /* SYNC(busy) bit i: nobody is guest i */
    _Atomic uint64_t running;               /* SYNC(running) frames that were given and run */
    _Atomic uint64_t hungry[YK_TEAM_WORDS]; /* SYNC(hungry) bit i: deque i */
    _Atomic uint64_t parked[YK_TEAM_WORDS]; /* of those: they sleep, or are about to; a hint */
    /* range.c */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t hints[64];
    _Atomic size_t last_ns; /* the last short range */
    _Atomic size_t sum_ns;  /* of those in quick succession */
    struct yk_deque deques[];
};

static inline struct yk_deque *yk_deque_of(yoke_deque *ends)
{
    return (struct yk_deque *)(void *)ends;
}

static inline yoke_frame **yk_deque_end(const struct yk_deque *deque)
{
    return deque->slots + YK_DEQUE_SLOTS;
}

static inline void yk_deque_limit_set(struct yk_deque *deque, yoke_frame **limit)
{
    /* SYNC(limit) seq_cst: after the bit of who calls; who takes it away looks at the bits. */
    __atomic_store_n(&deque->ends.limit, limit, __ATOMIC_SEQ_CST);
}

/* --- fork.c --------------------------------------------------------------------------------- */

/* Run a frame that was given to, or taken for, this deque, above top. Then it has to be said. */
void yk_frame_run(struct yk_deque *deque, yoke_frame **top, yoke_frame *frame);
void yk_frame_done(yoke_frame *frame);
/* The first free slot of a deque whose owner, which calls this, is inside of it. */
yoke_frame **yk_deque_top(struct yk_deque *deque);
/* Frames spawned above base belong to this stretch until it is closed. */
void yk_stretch_open(struct yk_stretch *stretch, struct yk_deque *deque, yoke_frame **base,
                     const yoke_frame *frame, yoke_cancel *cancel);
void yk_stretch_close(struct yk_stretch *stretch);
/* It is in the middle of this frame, which it took. */
bool yk_deque_runs_locked(const struct yk_deque *deque, const yoke_frame *frame);
/* Put the deque's oldest frame in an open mailbox; its owner calls this, with its lock. */
bool yk_deque_give_locked(struct yk_deque *deque, yoke_frame **top, struct yk_deque *taker,
                          unsigned state);
/* There may be a frame to take; only a hint. */
static inline bool yk_deque_shows(const struct yk_deque *deque)
{
    /* relaxed, both: only worth a try. */
    yoke_frame **const slot = __atomic_load_n(&deque->ends.split, __ATOMIC_RELAXED);
    return __atomic_load_n(slot, __ATOMIC_RELAXED) != NULL;
}
/* Take the victim's oldest frame without its help; NULL: there is none to be had. Not NULL below:
 * only while the victim is in the middle of that frame. */
yoke_frame *yk_deque_take(struct yk_deque *victim, struct yk_deque *taker, const yoke_frame *below);

/* Run fn here, as yoke_run; a pool without a team, or NULL: nobody helps. 0 or -ENOMEM. Spins
 * only: no sleeper is woken for it. */
int yk_fork_run(struct yoke_pool *pool, yoke_fork_fn *fn, void *arg, yoke_cancel *cancel,
                bool spins_only);

/* --- team.c, team_make.c ---------------------------------------------------------------------- */

int yk_team_create(struct yoke_pool *pool);
void yk_team_destroy(struct yk_team *team); /* NULL does nothing */
/* The calling thread is this worker. */
void yk_team_adopt(struct yk_team *team, struct yoke_worker *worker);
/* Give the oldest frames to those who want one; the owner calls this, with its lock. */
void yk_team_give_locked(struct yk_deque *deque, yoke_frame **top);
/* A deque for the calling thread and where its top stands: its own as a worker of this pool or a
 * guest, or a new guest's; NULL: all guests' are in use. */
struct yk_deque *yk_team_enter(struct yk_team *team, yoke_frame ***top);
void yk_team_leave(struct yk_deque *deque);
/* Somebody is in it, from outside or in a task; a hint. */
bool yk_team_is_busy(const struct yk_team *team);
/* What the calling thread counts as in tasks of this pool that it runs itself. */
struct yoke_worker *yk_team_worker(struct yk_team *team);
/* Its owner may wait for what we did; if it sleeps it is woken. */
void yk_deque_wake(struct yk_deque *deque);

/* A worker has nothing to do: it is hungry from begin until end. */
void yk_hungry_begin(struct yk_deque *deque);
/* A frame is there, or was taken here. Looks at other deques, now and then. */
bool yk_hungry_look(struct yk_deque *deque, int64_t since_ns);
static inline bool yk_hungry_has_mail(const struct yk_deque *deque)
{
    /* SYNC(mail) acquire: sees the frame. */
    return yk_mail_is_frame(atomic_load_explicit(&deque->mail, memory_order_acquire));
}
static inline bool yk_hungry_is_warm(const struct yk_deque *deque)
{
    return deque->now_ns < deque->warm_until_ns;
}
/* About to sleep on its line: true: it must not. */
bool yk_hungry_park(struct yk_deque *deque);
/* Run what it was given; false: that was nothing. It is hungry again. */
bool yk_hungry_run(struct yk_deque *deque);
/* No longer hungry; what it was given last is run. */
void yk_hungry_end(struct yk_deque *deque);
/* Until then it should sleep at most; or YOKE_FOREVER. */
int64_t yk_hungry_sleep(const struct yk_deque *deque);
/* There is a place: whoever is hungry is given a frame, though its call was used up before. */
void yk_team_call(struct yk_team *team);
/* The deque's owner took a frame back from the taker's mailbox. */
void yk_team_taken_back(struct yk_deque *deque, struct yk_deque *taker, bool placed);
/* A frame that was placed, or taken by the hungry, runs no more, or never did. */
void yk_place_free(struct yk_team *team);

#endif
