/* SPDX-License-Identifier: MIT
 * engine.h - the program's side: calls on their way from the backlog to their result.
 *
 * A call is in one place at a time; core->lock guards which. The lock is held for a few hundred
 * instructions, never while the GIL is waited for and never while Python code runs, so a thread that
 * has the GIL may take it. What resolves a call has the GIL.   Room: python.
 */
#ifndef YPY_ENGINE_H
#define YPY_ENGINE_H

#include "ypy.h"

#include <errno.h>
#include <pthread.h>

enum { YPY_FLIGHT_MAX = 256 };

enum ypy_place {
    YPY_NEW,     /* its maker has it */
    YPY_BACKLOG, /* in core->backlog */
    YPY_FLIGHT,  /* a job of the library, in core->flight */
    YPY_ENDED,   /* its job has ended, or it will never have one; in core->ended */
    YPY_TAKEN    /* somebody with the GIL resolves it, or has */
};

/* A request, as the program keeps it. */
struct ypy_call {
    /* under core->lock */
    struct ypy_call *next, *before; /* in the backlog or the list of the ended */
    enum ypy_place place;
    unsigned index; /* in the flight */
    unsigned pins;  /* threads that wait for its job; it is not given back before they are gone */
    yoke_job *job;
    bool cancelled; /* it, or the pool, was told so */
    int refusal;    /* why it could not be handed in */
    /* read-only once it is handed in */
    struct ypy_request *request;
    uint32_t calls, in_bytes; /* as in the request, where a worker could write */
    uint64_t out_room;
    int64_t timeout_ns;
    /* GIL */
    unsigned holds; /* threads in ypy_call_wait: until they are through it is not used again */
    bool freed;
    unsigned retries;     /* left for the call that is number `done` */
    PyObject *owner;      /* a Future; or a Map, borrowed, NULL: it is gone */
    bool maps;            /* it is a Map's */
    PyObject *definition; /* of the function */
    PyObject *uses;       /* list of the definitions that arguments name, or NULL */
    struct ypy_block **blocks;
    size_t block_count;
    uint32_t *starts; /* where each call begins in the request's data, and the end; or NULL:
                                there is one only */
    /* a Map's */
    struct ypy_call *map_next, *map_before;
    PyObject *error;           /* of call number `count`, or NULL */
    uint32_t count, read;      /* results that are there, and were given out */
    const char *at, *end;      /* the next result */
    struct ypy_job_hold *hold; /* where the last result lies in the job; or NULL */
    bool resolved;
};

struct ypy_list {
    struct ypy_call *first, *last;
    size_t count;
};

enum ypy_phase { YPY_STARTING, YPY_RUNNING, YPY_FAILED, YPY_ENDING, YPY_OVER };

struct ypy_core {
    PyObject_HEAD
    struct ypy_state *state;
    unsigned workers;
    uint64_t generation; /* of the process that made it */
    struct ypy_desk *desk;
    struct ypy_fork_setup fork;
    struct ypy_out out;      /* GIL: what ypy_out_borrow lends */
    PyObject *failure;       /* GIL: of YPY_FAILED; NULL: a close broke the start off */
    PyObject *snapshot;      /* GIL: start="fork": what workers have already; or NULL */
    struct ypy_call *unused; /* GIL: calls to use again */
    size_t unused_count;
    unsigned submits; /* GIL */
    pthread_mutex_t lock;
    /* under lock */
    pthread_cond_t changed; /* phase, or there is something to do for the collector */
    enum ypy_phase phase;
    bool closed;      /* takes no new calls */
    bool asleep;      /* the collector sleeps until it is told */
    bool rested;      /* it had nothing to do once */
    bool cancelling;  /* nothing begins any more */
    unsigned watched; /* futures into which somebody looks */
    size_t pending;   /* calls not resolved */
    yoke_pool *pool;
    unsigned users;    /* threads that wait for any end in the pool */
    uint64_t seen;     /* see yoke_pool_await */
    bool left_some;    /* in the flight, that may have ended by `seen` */
    unsigned sleepers; /* threads that wait for a call to be resolved, or for the start */
    uint64_t resolved; /* how many calls were; GIL and lock to write, either to read */
    struct ypy_list backlog, ended;
    struct ypy_call *flight[YPY_FLIGHT_MAX];
    unsigned flight_count;
};

/* --- engine.c --------------------------------------------------------------------------------- */

int ypy_engine_init(void);     /* 0, or -1 with an exception */
uint64_t ypy_generation(void); /* differs in a forked child */
/* 0, or -1 with RuntimeError: this is a forked child, or nobody may hand in any more. */
int ypy_core_check(struct ypy_core *core);

/* Room to encode in, empty. It is lent to one at a time: encoding may run Python code. */
struct ypy_out ypy_out_borrow(struct ypy_core *core);
void ypy_out_return(struct ypy_core *core, struct ypy_out *out);
/* A call with what `out` holds: so many calls; takes blocks and uses out of it. Room for results:
 * out_room. NULL with an exception. */
struct ypy_call *ypy_call_make(struct ypy_core *core, struct ypy_out *out, PyObject *definition,
                               uint32_t count, uint64_t out_room);
/* The owner has no more use for it. */
void ypy_call_free(struct ypy_core *core, struct ypy_call *call);
/* Hand in; the owner is set. GIL held. front: before all others. */
void ypy_call_submit(struct ypy_core *core, struct ypy_call *call, bool front);
/* The same for a chain by map_next of `count` calls. */
void ypy_calls_submit(struct ypy_core *core, struct ypy_call *const *calls, size_t count);

/* Wait, without the GIL, until the call may have come on: its job has ended, or a moment passed.
 * It holds the GIL again on return. 0, -ETIMEDOUT (until_ns is over), -1: an exception (a signal). */
int ypy_call_wait(struct ypy_core *core, struct ypy_call *call, int64_t until_ns);
/* The same until any call of the pool has ended: 0 or -1. */
int ypy_core_wait_any(struct ypy_core *core);
/* Take it from the flight or the ended, to resolve it, if it is there and has ended; else false. */
bool ypy_call_take(struct ypy_core *core, struct ypy_call *call);
/* Resolve a call that was taken: its owner's business (future.c, map.c). */
void ypy_call_resolve(struct ypy_core *core, struct ypy_call *call);
/* Resolve some of what has ended, if that piles up because the collector does not get the GIL. */
void ypy_core_help(struct ypy_core *core);
/* Resolve whatever has ended; not what is left to the collector, unless this is it. */
void ypy_core_resolve_all(struct ypy_core *core, bool collector);
/* Wait for a call that is left to the collector, until more than `resolved` are, or a moment passed.
 * As ypy_call_wait. */
int ypy_core_wait_resolved(struct ypy_core *core, uint64_t resolved, int64_t until_ns);
/* Cancel: 1: it will never begin (taken: resolve it), 0: it runs or has ended; force: it is told,
 * and killed: 2. */
int ypy_call_cancel(struct ypy_core *core, struct ypy_call *call, bool force);
void ypy_core_watch(struct ypy_core *core, int change);
/* With the lock held: fill the flight; wait for a change of phase; what has not begun ends as
 * cancelled; what runs is told, and with kill ended. */
void ypy_core_launch(struct ypy_core *core);
void ypy_core_pump(struct ypy_core *core); /* and empty it of what has ended */
void ypy_core_await_change(struct ypy_core *core, int64_t until_ns);
void ypy_core_cancel_backlog(struct ypy_core *core);
void ypy_core_cancel_flight(struct ypy_core *core, bool kill);
/* The collector's work, until the pool is over. */
int ypy_core_drive(struct ypy_core *core);
/* It has begun to run on a worker. */
bool ypy_call_runs(const struct ypy_call *call);

/* --- ends.c ----------------------------------------------------------------------------------- */

/* yoke._outcomes.NAME(...) with arguments as for Py_BuildValue: an exception, a new reference, or
 * NULL and another exception. */
PyObject *ypy_outcome(struct ypy_core *core, const char *name, const char *format, ...);

/* Import that module, which is slow. */
void ypy_outcomes_load(struct ypy_core *core);

/* How a call that has ended did. */
struct ypy_end {
    int kind;      /* YOKE_OK ..., or -1: it could not be handed in */
    uint32_t done; /* results in at..end */
    const char *at, *end;
    const char *block; /* one more result, in the job's block; or NULL */
    size_t block_bytes;
    yoke_outcome outcome;
};
void ypy_call_end(struct ypy_call *call, struct ypy_end *end);
/* What it is when call number `done` did not come to a result; a new reference. */
PyObject *ypy_call_error(struct ypy_core *core, struct ypy_call *call, const struct ypy_end *end);
/* The calls from number `from` on, anew, without an owner; NULL with an exception. The blocks go
 * along. */
struct ypy_call *ypy_call_rest(struct ypy_core *core, struct ypy_call *call, uint32_t from);
/* One result, from *at on, which moves: 0 and *value; 1 and *value is the exception to raise; -1: no
 * memory, or a signal. */
int ypy_result_read(struct ypy_core *core, const char **at, const char *end,
                    struct ypy_job_hold *hold, PyObject **value);

/* --- future.c and map.c ----------------------------------------------------------------------- */

PyObject *ypy_future_make(struct ypy_core *core, struct ypy_call *call);
PyObject *ypy_future_make_failed(struct ypy_core *core, PyObject *exception);
/* Nobody looks into it: to resolve it runs no callbacks. */
bool ypy_future_is_plain(PyObject *future);
/* It is for the collector to resolve: somebody looks into it, and this is the main thread, where a
 * signal's handler may raise an exception in the middle of telling them. */
bool ypy_future_is_left(PyObject *self);
void ypy_future_resolve(struct ypy_core *core, struct ypy_call *call);
PyObject *ypy_map_make(struct ypy_core *core, PyObject *args, PyObject *kwargs);
void ypy_map_resolve(struct ypy_core *core, struct ypy_call *call);

#endif
