/* SPDX-License-Identifier: MIT
 * pool_private.h - a pool, as the program's side sees it.
 *
 * Idea: a *unit* is one slot's worth of work. While it is in the table its slot's word tells how
 * it stands; what the program needs to believe it (ticket, sizes, who asked) is kept here, out of
 * the workers' reach. Units are moved by whoever holds the pool's lock: submitters, waiters, and
 * on process pools the keeper.   Room: pool.
 */
#ifndef YK_POOL_PRIVATE_H
#define YK_POOL_PRIVATE_H

#include "pool/table.h"
#include "pool/worker.h"
#include "process/keeper.h"
#include "process/template.h"
#include "sync/biased.h"
#include "sync/waiting.h"

#define YK_NO_SLOT UINT32_MAX
/* Of workers beyond the first ones, of which there can be thousands. Enough for getaddrinfo, TLS
 * and the like; embedders (hooks) may run anything, and get the default. */
#define YK_EXTRA_STACK_BYTES ((size_t)512 << 10)

enum yk_unit_state {
    YK_UNIT_IDLE,    /* nowhere */
    YK_UNIT_BACKLOG, /* waits for a slot */
    YK_UNIT_TABLE,   /* in slot `slot` */
    YK_UNIT_HELPED,  /* run by a waiter that found no slot for it */
    YK_UNIT_ENDED    /* answered; its owner may read it */
};

/* What the worker left, copied out of its reach. */
struct yk_answer {
    yoke_outcome outcome;  /* kind, code, signal; attempts and item are the owner's to fill in */
    uint32_t progress;     /* below YK_PROGRESS_DOOMED */
    bool died;             /* its worker died; else it is DONE */
    void *result;          /* a call's block, or NULL; to be given back */
    const void *result_at; /* where in it the result begins */
    size_t result_bytes;
    unsigned char data[YK_INLINE_OUT_MAX]; /* an inline call's out */
};

struct yk_unit {
    /* the owner's, before publishing */
    void (*fill)(struct yk_unit *unit, struct yk_slot *slot);
    /* under the pool's lock, once the answer is there; true: publish it again */
    bool (*ended)(struct yk_unit *unit, const struct yk_answer *answer);
    uint32_t items;     /* a map, a stream: how many; the kill for lateness is meant for one */
    int64_t timeout_ns; /* 0: none */
    _Atomic int64_t *started_ns; /* where the worker notes it; NULL without a timeout */
    void **results;              /* a stream's part: one per item; else NULL */
    struct yoke_cancel *token;   /* what it belongs to, until it is settled; or NULL */
    /* under the pool's lock */
    enum yk_unit_state state;
    struct yk_unit *next; /* in the backlog */
    uint32_t ticket;
    int verdict;                 /* what the kill of its worker will mean; 0: YOKE_CRASHED */
    int64_t claimed_ns;          /* the watchdog saw it claimed first; 0: not yet */
    struct yoke_cancel *running; /* of the task that runs it, once that has one; see cancel.c */
    struct yk_slot *aside;       /* HELPED: where it runs */
    _Atomic uint32_t slot;       /* also read without the lock, as a hint of where to look */
};

static inline void yk_unit_init(struct yk_unit *unit,
                                void (*fill)(struct yk_unit *unit, struct yk_slot *slot),
                                bool (*ended)(struct yk_unit *unit, const struct yk_answer *answer))
{
    unit->fill = fill;
    unit->ended = ended;
    unit->items = 0;
    unit->timeout_ns = 0;
    unit->started_ns = NULL;
    unit->results = NULL;
    unit->token = NULL;
    unit->running = NULL;
    unit->aside = NULL;
    unit->state = YK_UNIT_IDLE;
    unit->verdict = 0;
    unit->claimed_ns = 0;
    atomic_init(&unit->slot, YK_NO_SLOT);
}

/* How far a worker was told to end its task, see escalate.c. In this order. */
enum yk_step {
    YK_STEP_NONE,
    YK_STEP_INTERRUPTED,
    YK_STEP_TERMINATED,
    YK_STEP_KILLED,
    YK_STEP_LET_GO /* it gave the task up, and is to go on */
};

/* A worker, as the program knows it. */
struct yk_member {
    /* under lock */
    bool alive;
    bool active;    /* counts as a worker; else the spare, or dying */
    bool condemned; /* killed because the table was spoiled */
    bool grouped;   /* it is in a group of its own */
    uint32_t owner;
    enum yk_step step;
    uint32_t doomed_slot; /* of the task it was told for */
    uint32_t doomed_ticket;
    int64_t doomed_ns;
    int64_t step_until_ns; /* when the next step is due */
    /* processes: the keeper's */
    int pid;
    int pidfd; /* under lock too */
    struct yk_watch watch;
    struct yoke_pool *pool;
    /* threads */
    yk_thread_id thread;
    struct yoke_worker worker;
};

struct yoke_pool {
    /* whose it is: see reborn.c */
    _Atomic uint64_t generation; /* SYNC(reborn): the process whose engine it has */
    _Atomic uint64_t reviver;    /* SYNC(reviver): the process in which a thread makes it anew; 0 */
    _Atomic uint32_t revivals;   /* SYNC(reborn): counts ends of that, good or bad */
    /* read-only after create; what a forked child keeps */
    int kind;
    yoke_pool_config config;
    yoke_hooks hooks;
    bool automatic; /* YOKE_AUTO */
    bool follows;   /* config.workers was 0 */
    /* read-only after create; made anew in a forked child, as all that follows */
    struct yk_ctl *ctl; /* table.ctl; NULL on a serial pool */
    struct yk_table table;
    size_t ctl_bytes;
    struct yk_team *team;      /* threads: fork-join; else NULL */
    int *keep_fds;             /* our copy of config.keep_fds */
    struct yk_pool_exec *exec; /* YOKE_EXEC; else NULL */
    uint32_t spins_max;        /* a waiter's looks before it sleeps, at most */
    _Atomic uint32_t spins;    /* what waiters learnt */
    yk_biased lock;            /* order: pool, then heap */
    /* under lock */
    struct yk_unit **units; /* in the table, by their slot; NULL: it is free */
    uint64_t tail;
    int64_t jobs_out;            /* made and not released */
    bool destroyed;              /* freed with the last of them */
    struct yoke_job *spare_jobs; /* to use again */
    unsigned spare_job_count;
    unsigned in_flight; /* units in the table or the backlog */
    struct yk_unit *backlog;
    struct yk_unit **backlog_end;
    int closed;          /* takes no new work: 0, YOKE_ECLOSED or YOKE_EBROKEN */
    bool stopping;       /* nothing is started again */
    unsigned watchers;   /* threads in yoke_pool_await, which want to hear of every end */
    unsigned with_token; /* units that have a token, in flight */
    struct yk_cancel_hook cancel_hook; /* listed with the first of them */
    uint64_t tasks;
    uint64_t started;
    uint64_t died;
    unsigned alive;  /* members that live, with the spare */
    unsigned active; /* workers */
    unsigned dying;  /* members that were killed for their task, and are not buried */
    int64_t last_death_ns;
    bool condemning;      /* waits for the workers that were killed because the table was spoiled */
    int64_t next_tick_ns; /* processes: when the keeper looks up next */
    unsigned barren;      /* deaths in a row, close together, that cost no task a try */
    unsigned spoiled;     /* times in a row, close together, that all workers were killed */
    int64_t last_spoil_ns;
    unsigned stillborn;        /* ends in a row of workers that had not come to be ready */
    struct yk_member *members; /* table.line_count */
    /* threads, see threads.c and governor.c */
    struct yk_governor *governor; /* elastic pools; else NULL */
    uint32_t lowest_free;         /* no line below it is free */
    _Atomic uint32_t lines_top; /* no line from here on was ever used; also read without the lock */
    bool has_ended;             /* a thread has ended, and is to be joined */
    yk_thread_id ended;
    _Atomic uintptr_t known_fns[8]; /* found in the image before */
    /* processes; the keeper's */
    struct yk_template *_Atomic template; /* own_template or the seed */
    struct yk_template own_template;
    struct yk_ticker ticker;
    struct yk_groups *groups; /* where each worker has its limit of memory; NULL: nowhere */
    unsigned start_failures;  /* in a row */
    int64_t start_failing_ns; /* since when */
    unsigned rounds;          /* of restarts in a row that came to nothing */
    int64_t restart_at_ns;    /* not before */
};

/* 0 on a serial pool. */
static inline uint32_t yk_pool_slots(const struct yoke_pool *pool)
{
    return pool->units != NULL ? pool->table.slot_mask + 1 : 0;
}

/* --- dispatch.c: units in and out of the table; all with the pool's lock held --------------- */

/* Publish, or put in the backlog when there is no room. */
void yk_unit_publish_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
/* In two steps, for many at once. Into a slot, READY, but tail stands before it still; false: there
 * is no slot. The caller counts it as in flight. */
bool yk_unit_place_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
/* Move tail behind what was placed, and wake workers for it. */
void yk_pool_tell_locked(struct yoke_pool *pool, size_t placed) YK_REQUIRES(pool->lock);
static inline bool yk_pool_has_room_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    return pool->in_flight <= pool->table.slot_mask;
}
/* Collect the unit if it is DONE. */
void yk_unit_poll_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
void yk_pool_collect_all_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* Not begun yet: take it back, it ends as cancelled. True if so. */
bool yk_unit_revoke_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
/* Ask for a wake when the unit is DONE. True if it is already. */
bool yk_unit_notify_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
/* The same at every unit of the table: any that ends makes room. */
bool yk_pool_notify_all_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* The task that runs it is told, and its own token is set: yk_cancel_flush without the lock. */
void yk_unit_cancel_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
void yk_unit_flag_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
uint32_t yk_unit_progress_locked(struct yoke_pool *pool, struct yk_unit *unit)
    YK_REQUIRES(pool->lock);
/* Its owner will be killed for what it runs at this progress, and cannot go on to anything else.
 * The owner, or 0: it moved on. YK_PROGRESS_ANY: for the whole unit, whatever runs. */
#define YK_PROGRESS_ANY UINT32_MAX
uint32_t yk_unit_doom_locked(struct yoke_pool *pool, struct yk_unit *unit, uint32_t progress)
    YK_REQUIRES(pool->lock);
/* End every unit that has not begun as cancelled. */
void yk_pool_revoke_all_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* Run the unit here if nobody has begun it; lock not held. True if it was run. */
bool yk_unit_help(struct yoke_pool *pool, struct yk_unit *unit);
/* Run the first unit of the backlog here, if there is one, as the worker of that number. */
void yk_pool_help_backlog(struct yoke_pool *pool, unsigned number);
/* Sleep until something happened in the pool since `event` was read: 0, or as yk_wait. */
int yk_pool_await(struct yoke_pool *pool, uint32_t event, int64_t until_ns);
/* The same, whatever signals and interrupts come. */
void yk_pool_await_for_sure(struct yoke_pool *pool, uint32_t event, int64_t until_ns);
uint32_t yk_pool_event(struct yoke_pool *pool);
/* How an item with this answer ended. */
static inline yoke_outcome yk_outcome_of(int32_t code)
{
    if (code < 0) {
        const bool late = code == YK_TOLD_TIMEDOUT;
        return (yoke_outcome){.kind = late ? YOKE_TIMEDOUT : YOKE_CANCELLED};
    }
    return (yoke_outcome){.kind = code == 0 ? YOKE_OK : YOKE_FAILED, .code = code};
}

/* --- bury.c --------------------------------------------------------------------------------- */

/* Everything `owner` held ends as died; what it did not start may go back. `noted` is the block it
 * was about to make a result, or NULL. Retired: it ended by itself, after its last task. */
void yk_pool_bury_locked(struct yoke_pool *pool, uint32_t owner, struct yk_exit_status status,
                         bool retired, void *noted) YK_REQUIRES(pool->lock);
/* A unit whose word is GIVEN ends as if its worker had died, with its verdict. */
void yk_unit_give_locked(struct yoke_pool *pool, struct yk_unit *unit) YK_REQUIRES(pool->lock);
/* Check what only a worker could have spoiled: the head, and words that fit nothing. If there are
 * any, no worker is trusted: all are killed, and then those slots end as crashed. */
void yk_pool_audit_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);

/* --- pool.c --------------------------------------------------------------------------------- */

/* 0, -EINVAL, -ECHILD; YOKE_ENESTED in a process worker. In a forked child it makes the pool anew,
 * and may say what yk_pool_revive says. */
int yk_pool_check(struct yoke_pool *pool);
/* 0, or why it takes no new work. */
int yk_pool_closed(struct yoke_pool *pool);
/* So many tasks ended that were in no table. */
void yk_pool_count(struct yoke_pool *pool, uint64_t tasks);
/* This process's engine runs it. */
static inline bool yk_pool_is_ours(const struct yoke_pool *pool)
{
    /* SYNC(reborn) acquire: sees the engine that was made here. */
    return atomic_load_explicit(&pool->generation, memory_order_acquire) == yk_process_generation();
}
/* Make the table, the members and what they run on, and start them; nothing of it is there yet. On
 * failure some of it may be, for yk_pool_parts_free. */
int yk_pool_engine_start(struct yoke_pool *pool);
void yk_pool_parts_free(struct yoke_pool *pool);
/* Blocks that workers of this pool can see. */
void *yk_pool_alloc(struct yoke_pool *pool, size_t bytes);
void yk_pool_free(struct yoke_pool *pool, void *block);
/* yk_pool_translate said 0 before, or always does; a hint. */
static inline bool yk_pool_knows(const struct yoke_pool *pool, uintptr_t fn)
{
    const size_t at = (fn >> 4) % YK_COUNT_OF(pool->known_fns);
    /* relaxed: the address is all there is to see. */
    return atomic_load_explicit(&pool->known_fns[at], memory_order_relaxed) == fn;
}
/* *name, an address, becomes what a slot names the function by: its address, or, in another program's image, a token. 0,
 * YOKE_EIMAGE or -ENOMEM. */
int yk_pool_translate(struct yoke_pool *pool, uintptr_t *name);
int yk_options_read(yoke_options *out, const yoke_options *options);
/* Nothing is under way; else whoever waits for the pool's event is told of what ends. */
bool yk_pool_drained_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* Free the struct, which is all that is left after destroy and the last job; NULL does nothing. */
void yk_pool_forget(struct yoke_pool *pool);

/* The calling thread is inside a task of this pool, however deep. */
bool yk_pool_inside_task(const struct yoke_pool *pool);
/* The same, of any thread pool. */
bool yk_threads_inside_task(void);

/* --- reborn.c: a pool in a child after fork() ------------------------------------------------ */

/* Make the pool of a parent ours: 0; -ECHILD (its workers are processes), YOKE_ECLOSED, what
 * yoke_pool_create says of memory, threads and worker_init, -EDEADLK (from its worker_init). */
int yk_pool_revive(struct yoke_pool *pool);
/* Destroy the pool of a parent, as far as it is here; it was not made anew. 0 or -ECHILD. */
int yk_pool_disown(struct yoke_pool *pool);

/* --- job.c ---------------------------------------------------------------------------------- */

void yk_jobs_free_spare_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);

/* --- post.c --------------------------------------------------------------------------------- */

struct yk_posts;
struct yk_posts_count {
    uint64_t ended, in_flight;
};
struct yk_posts_count yk_posts_count(const struct yoke_pool *pool);
/* A thread of a pool that may grow is wanted for posted tasks; no lock is held. */
void yk_pool_wants_hands(struct yoke_pool *pool);
/* Who waits until all has ended is told, from here to there. */
struct yk_posts *yk_posts_drain_begin(struct yoke_pool *pool);
void yk_posts_drain_end(struct yk_posts *posts);
/* The pool is closed: only its own tasks post. Then: what has not begun never will. */
void yk_posts_close(struct yoke_pool *pool);
void yk_posts_stop(struct yoke_pool *pool);
void yk_posts_free(struct yoke_pool *pool);
/* A task left a unit in the backlog: a worker is to run it. False: there is no memory to say so. */
bool yk_posts_call_for_backlog(struct yoke_pool *pool);
/* spill.c. Around a call that runs because there was no room; false: too many are on this stack. */
bool yk_here_enter(void);
void yk_here_leave(void);

/* --- threads.c ------------------------------------------------------------------------------ */

int yk_threads_start(struct yoke_pool *pool);
/* One more thread, if the pool may grow and there is one to be had. */
bool yk_threads_grow_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* The calling thread is a worker of this pool, started in this process. */
bool yk_threads_is_worker(const struct yoke_pool *pool);
/* Tell all threads to end and join them; false: some have not ended at until_ns. */
bool yk_threads_stop(struct yoke_pool *pool, int64_t until_ns);

/* --- processes.c ---------------------------------------------------------------------------- */

int yk_processes_start(struct yoke_pool *pool);
/* The life of a worker process. */
YK_NORETURN void yk_processes_live(struct yk_line *line, const struct yk_worker_code *code);
/* All work is over: end the workers and the image. */
void yk_processes_stop(struct yoke_pool *pool);
/* The keeper is to look up after that long: a unit with that timeout was published, say. */
void yk_processes_timed_locked(struct yoke_pool *pool, int64_t timeout_ns) YK_REQUIRES(pool->lock);
/* The spare becomes a worker, if one is needed. */
void yk_processes_promote_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* Workers whose order to work was written over get it again. */
void yk_processes_remind_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);

/* --- escalate.c: tasks that must end ------------------------------------------------------- */

/* Go on with those that were told; returns when to look again. */
int64_t yk_escalate_look_locked(struct yoke_pool *pool, int64_t now_ns) YK_REQUIRES(pool->lock);
/* The worker that runs this unit is told to end it, and then killed; the unit will end with that
 * verdict. False: it has ended. */
bool yk_processes_doom_locked(struct yoke_pool *pool, struct yk_unit *unit, uint32_t progress,
                              int verdict) YK_REQUIRES(pool->lock);
/* A worker that lives has this number, and this unit is what it was told to end. */
bool yk_processes_is_doomed_locked(struct yoke_pool *pool, const struct yk_unit *unit,
                                   uint32_t owner) YK_REQUIRES(pool->lock);
/* A worker that lives has this number. */
bool yk_processes_is_member_locked(struct yoke_pool *pool, uint32_t owner) YK_REQUIRES(pool->lock);
/* Kill every worker that lives now, since none is trusted. False: there is none. */
bool yk_processes_condemn_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* One of those lives still. */
bool yk_processes_condemned_left_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);
/* Kill every worker; what they run ends as cancelled. */
void yk_processes_kill_all_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock);

/* --- watchdog.c: deadlines of tasks in processes -------------------------------------------- */

/* Doom what is late; returns when to look again. */
int64_t yk_watchdog_look_locked(struct yoke_pool *pool, int64_t now_ns) YK_REQUIRES(pool->lock);

/* --- map.c, serial.c ------------------------------------------------------------------------ */

/* A map, for or reduce as it was asked for. */
struct yk_sweep {
    struct yoke_pool *pool; /* not looked at by yk_serial_sweep */
    yoke_fn *fn;            /* map */
    yoke_range_fn *range_fn;
    yoke_merge_fn *merge;
    const unsigned char *in;
    size_t in_bytes;
    unsigned char *out;
    size_t out_bytes;
    void *accumulator;
    size_t accumulator_bytes;
    size_t count;
    yoke_options options;
    struct yoke_cancel *token; /* what it all belongs to; NULL: nothing */
};

/* Of two items that failed, the one to tell of. With fail_fast those that were cancelled for it come
 * last. */
static inline bool yk_outcome_comes_first(const yoke_options *options, const yoke_outcome *outcome,
                                          const yoke_outcome *than)
{
    const bool cancelled = outcome->kind == YOKE_CANCELLED;
    if (options->fail_fast != 0 && cancelled != (than->kind == YOKE_CANCELLED)) {
        return !cancelled;
    }
    return outcome->item < than->item;
}

/* In the caller: on serial pools, and inside a process worker. */
int yk_serial_sweep(const struct yk_sweep *sweep);
/* For calls in the caller: a task that sees what the task around it, if any, should see. */
struct yoke_task yk_serial_task(const void *context, struct yoke_cancel *token);
/* That long from now; 0 for 0. */
int64_t yk_serial_deadline(int64_t timeout_ns);

#endif
