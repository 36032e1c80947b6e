/* SPDX-License-Identifier: MIT
 * soak.h - what the parts of the soak share: tickets, actors, the figures.
 *
 * Idea: each task has a ticket in memory that all processes see; the task itself counts there how
 * often its body began and ended. A ticket lies fallow for a while before it is used again, so a
 * body that runs after its task was said to be over is seen too. An actor is a thread that does
 * one kind of thing again and again; between two of them it can be asked to stand still.
 */
#ifndef YOKE_TESTS_SOAK_H
#define YOKE_TESTS_SOAK_H

#include "check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum {
    SOAK_TICKETS = 4096, /* of each actor */
    SOAK_ACTORS = 24,
    SOAK_POOLS = 16,
    SOAK_WAIT_MS = 120000 /* nothing takes longer; what does is a hang */
};

struct soak_ticket {
    atomic_long starts, ends;
    atomic_long linger;
    long starts_then; /* when the task was over */
};

/* What was done, and what went wrong with permission. */
struct soak_figures {
    atomic_long tasks, items, ok, failed, crashed, cancelled, timed_out, refused, again;
    atomic_long kills, stops, template_kills, processes, process_kills, threads, pools, blocks;
    atomic_long lost, doubled;
};

struct soak_actor {
    pthread_t thread;
    char name[32];
    void (*step)(struct soak_actor *actor);
    uint64_t random;
    struct soak_ticket *tickets;
    unsigned next_ticket;
    int pool; /* its number, or -1 */
    void *state;
    /* for who looks after it */
    _Atomic(const char *) doing;
    atomic_long since_ms;
};

/* Pools that last; killers find them here. */
struct soak_pool {
    yoke_pool *pool;
    int kind;
    unsigned workers;
    uint64_t tasks_then; /* the killer's: when it killed last */
};

struct soak {
    struct soak_figures *figures;
    struct soak_actor actors[SOAK_ACTORS];
    unsigned actor_count;
    struct soak_pool pools[SOAK_POOLS];
    unsigned pool_count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int pause, stop;      /* under lock */
    unsigned parked;      /* under lock */
    atomic_long squeezed; /* memory or descriptors are short on purpose: refusals are in order */
    atomic_long squeezes; /* how often that began or ended */
    atomic_long template_tries; /* how often somebody set out to kill one */
    pthread_mutex_t looks;      /* held while descriptors are short, or /proc is read */
    int seed;                   /* pid of the seed image */
    long kills_wanted;
};

extern struct soak soak;

static inline int64_t soak_until(void)
{
    return yoke_in_ms((int64_t)SOAK_WAIT_MS * check_slowness());
}

static inline uint64_t soak_random(struct soak_actor *actor, uint64_t below)
{
    return random_next(&actor->random) % below;
}

/** From here on the actor does this; who looks after it says so if it never ends. */
static inline void soak_doing(struct soak_actor *actor, const char *what)
{
    atomic_store_explicit(&actor->doing, what, memory_order_seq_cst);
    count_set(&actor->since_ms, (long)(yoke_now_ns() / 1000000));
}

static inline _Noreturn void soak_fail(const struct soak_actor *actor, const char *what, long a,
                                       long b)
{
    fprintf(stderr, "FAILED: %s: %s (%ld, %ld)\n", actor->name, what, a, b);
    fflush(NULL);
    _exit(1);
}

/** Lost and doubled tasks are counted too, so that the summary's zeros are measured. */
static inline void soak_lost(struct soak_actor *actor, const char *what, long a, long b)
{
    count_up(&soak.figures->lost, 1);
    soak_fail(actor, what, a, b);
}

static inline void soak_doubled(struct soak_actor *actor, const char *what, long a, long b)
{
    count_up(&soak.figures->doubled, 1);
    soak_fail(actor, what, a, b);
}

static inline void soak_ticket_check(struct soak_actor *actor, const struct soak_ticket *ticket)
{
    const long starts = count_get(&ticket->starts);
    if (starts != ticket->starts_then)
        soak_doubled(actor, "a body began after its task was over", starts, ticket->starts_then);
}

/** A fresh ticket; the body that used it last must not have begun once more since. */
static inline struct soak_ticket *soak_ticket_fresh(struct soak_actor *actor, unsigned number)
{
    struct soak_ticket *const ticket = &actor->tickets[number];
    soak_ticket_check(actor, ticket);
    count_set(&ticket->starts, 0);
    count_set(&ticket->ends, 0);
    count_set(&ticket->linger, 0);
    ticket->starts_then = 0;
    return ticket;
}

static inline struct soak_ticket *soak_ticket_take(struct soak_actor *actor)
{
    actor->next_ticket = (actor->next_ticket + 1) % SOAK_TICKETS;
    return soak_ticket_fresh(actor, actor->next_ticket);
}

/** Refusals that shortage explains. */
static inline int soak_may_refuse(int rc, long squeezes_before)
{
    const int short_of_it =
        count_get(&soak.squeezed) || count_get(&soak.squeezes) != squeezes_before;
    return short_of_it && (rc == -ENOMEM || rc == -EMFILE || rc == -EAGAIN || rc == -EBADF);
}

/** What must be true of any task that is over. Counts it. */
static inline void soak_judge(struct soak_actor *actor, struct soak_ticket *ticket,
                              const yoke_outcome *outcome, unsigned retries)
{
    struct soak_figures *const f = soak.figures;
    const long starts = count_get(&ticket->starts), ends = count_get(&ticket->ends);
    if (starts > (long)retries + 1 || starts > (long)outcome->attempts)
        soak_doubled(actor, "began more often than allowed", starts, outcome->attempts);
    if (outcome->kind == YOKE_OK && (starts < 1 || ends < 1))
        soak_lost(actor, "is OK and was not done", starts, ends);
    if (outcome->kind == YOKE_OK && retries == 0 && (starts != 1 || ends != 1))
        soak_doubled(actor, "was done more than once", starts, ends);
    atomic_long *const by_kind[] = {[YOKE_OK] = &f->ok,
                                    [YOKE_FAILED] = &f->failed,
                                    [YOKE_CRASHED] = &f->crashed,
                                    [YOKE_CANCELLED] = &f->cancelled,
                                    [YOKE_TIMEDOUT] = &f->timed_out};
    if (outcome->kind < 0 || outcome->kind > YOKE_TIMEDOUT)
        soak_fail(actor, "no such outcome", outcome->kind, 0);
    count_up(by_kind[outcome->kind], 1);
    count_up(&f->tasks, 1);
    count_up(&f->again, outcome->attempts > 1);
    ticket->starts_then = starts;
}

#endif
