/* SPDX-License-Identifier: MIT
 * worker.h - a worker's own side: the loop, the running task.   Room: pool.
 */
#ifndef YK_WORKER_H
#define YK_WORKER_H

#include "memory/heap.h"
#include "memory/region.h"
#include "pool/table.h"
#include "sync/cancel.h"

struct yoke_worker {
    const struct yk_table *table;
    struct yk_ctl *ctl;   /* table->ctl */
    struct yk_line *line; /* NULL: a thread of the program that helps */
    const struct yk_worker_code *code;
    struct yk_claimer claimer;
    unsigned index;
    uint32_t spins;         /* what it learnt about spinning */
    bool owes_wake;         /* it was idle, and others may have counted on it */
    uint32_t ran;           /* tasks, of ctl->tasks_max */
    struct yk_deque *deque; /* threads: where it spawns, and is given frames; else NULL */
    struct yk_unit *helped; /* a thread of the program that helps: what it runs; else NULL */
    uint32_t blocks;        /* yoke_blocking_begin without its end */
    bool posts_turn;        /* it had a task of the table: posted ones are next */
};

struct yoke_task {
    const void *context;
    struct yk_slot *slot; /* NULL on a serial pool */
    struct yoke_worker *worker;
    struct yk_region region;
    size_t item;
    int64_t deadline_ns; /* 0: none */
    unsigned attempt;
    int told; /* 0, YK_TOLD_CANCELLED or YK_TOLD_TIMEDOUT */
    bool wants_result;
    bool keeps_result; /* it stays in here, also with a slot: a stream that runs in the caller */
    void *result;      /* serial pools: malloc */
    size_t result_bytes;
    struct yoke_task *outer;        /* the task this one runs inside of, or NULL */
    struct yk_cancel_place place;   /* the token it belongs to */
    struct yoke_cancel *made_token; /* threads: its own; made when it is asked for */
    struct yk_deferred *deferred;   /* what to call at its end; the newest first */
};

/* The worker of this line, or, with line NULL, a thread of the program that helps. */
static inline struct yoke_worker yk_worker_of(const struct yk_table *table, struct yk_line *line)
{
    return (struct yoke_worker){
        .table = table,
        .ctl = table->ctl,
        .line = line,
        .code = &table->ctl->code,
        .claimer = {.owner = line != NULL ? line->owner : YK_OWNER_PROGRAM},
        .index = line != NULL ? line->index : table->line_count,
    };
}

/* What it ran forgot to say that it waits no more. */
void yk_worker_unblock_all(struct yoke_worker *worker);
/* Run a claimed slot to its end and complete it. */
void yk_worker_run(struct yoke_worker *worker, struct yk_slot *slot, uint64_t word);
/* The life of a worker: hooks, init, tasks until told to stop. */
void yk_worker_live(struct yoke_worker *worker);

/* idle.c. Nothing known is left: where tasks come in batches, wait a little for the next one. */
bool yk_worker_await_batch(struct yoke_worker *worker);
/* Spin, then sleep. 0: look again; else -ETIMEDOUT or -EINTR. */
int yk_worker_idle(struct yoke_worker *worker, int64_t until_ns);
/* Threads: more run tasks than there are CPUs for. 0: look again; YOKE_ECLOSED: end; else as idle. */
int yk_worker_rest(struct yoke_worker *worker, int64_t until_ns);
/* It was idle and has a task: wake another worker if there are more. */
void yk_worker_pass_on(struct yoke_worker *worker);

/* post_run.c; nothing happens where nobody has posted. Run some posted tasks; false: there were
 * none. */
bool yk_posts_run(struct yoke_worker *worker);
/* There is something to run: the cheap look. */
bool yk_posts_look(const struct yoke_worker *worker);
/* How many were not begun, at most so many. */
unsigned yk_posts_queued(const struct yk_ctl *ctl, unsigned most);
/* It has nothing to do, and will look at posts before it sleeps. */
void yk_posts_seek(struct yoke_worker *worker);
/* It was idle, and has something else to do, or ends. */
void yk_posts_leave(struct yoke_worker *worker);
/* It is about to sleep: until when it may, 0: not at all. And it slept. */
int64_t yk_posts_doze(struct yoke_worker *worker);
void yk_posts_wake_up(struct yoke_worker *worker);

/* The task that this thread runs now, or NULL. */
struct yoke_task *yk_task_own(void);
/* cancel.c: the token of a task in a slot of a thread pool, for its place; and its end. */
struct yoke_cancel *yk_task_token(struct yk_cancel_place *place);
void yk_task_token_drop(struct yoke_task *task);
/* Around the calls of one task struct: it is what yk_task_own gives. */
void yk_task_enter(struct yoke_task *task);
void yk_task_leave(struct yoke_task *task);
/* After a call that returned code, or left something behind: the answer of the item, its own code
 * >= 0, or how it was told to stop. */
int32_t yk_task_conclude(struct yoke_task *task, int code);

/* governor.c: the task of this worker begins to wait, or has waited. */
void yk_worker_block(struct yoke_worker *worker);
void yk_worker_unblock(struct yoke_worker *worker);

/* Call fn as task; the answer of the item. Inline: a map of small items spends its time here. */
static inline int32_t yk_task_call(struct yoke_task *task, yoke_fn *fn, const void *in, void *out)
{
    const int code = fn(task, in, out);
    const bool plain =
        code == 0 && task->told == 0 && !task->place.told && task->region.newest == NULL;
    return YK_LIKELY(plain) ? 0 : yk_task_conclude(task, code);
}

#endif
