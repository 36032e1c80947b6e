/* SPDX-License-Identifier: MIT
 * worker.h - what a process knows of itself as a worker: shared by the files that run there.
 *
 * There is one worker to a process and one interpreter in it, so this is no part of the module's
 * state; nothing in it owns an object. In the program it stays zero.   Room: python.
 */
#ifndef YPY_WORKER_H
#define YPY_WORKER_H

#include "ypy.h"

#include <time.h>

struct ypy_worker {
    struct ypy_state *state;    /* NULL: this process is no worker */
    PyThreadState *idle;        /* the main loop's, while it has let the GIL go; else NULL */
    const unsigned char *dirty; /* not 0: yoke._image.flush() has something to do; or NULL */
    uint32_t trace;             /* for requests: where on the desk a crash would be told */
};

extern struct ypy_worker ypy_worker;

/* The time as of the clock's last tick, at most 10 ms ago: a fifth of the price of the time. */
static inline int64_t ypy_tick_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Take the GIL if the main loop has let it go. */
void ypy_worker_wake(void);

/* --- desk.c: what workers leave, and how ------------------------------------------------------- */

/* Take a place for this life of that worker; what it wrote to before is forgotten. */
void ypy_desk_enter(struct ypy_desk *desk, unsigned worker);
/* The first failure of an initializer is kept; a str. */
void ypy_desk_tell_failure(struct ypy_desk *desk, PyObject *text);
/* crash_file() -> int: descriptor of a file for faulthandler; from now on a crash of this process
 * leaves on the desk what is in it. */
PyObject *ypy_crash_file(PyObject *module, PyObject *unused);
/* write_whole(fd, data) -> int: all of it, and nothing of other workers in between. */
PyObject *ypy_write_whole(PyObject *module, PyObject *args);
/* set_title(text) */
PyObject *ypy_set_title(PyObject *module, PyObject *text);

/* limit_threads(number): of BLAS and OpenMP, where they are loaded (threads.c) */
PyObject *ypy_limit_threads(PyObject *module, PyObject *number);

/* --- run.c ------------------------------------------------------------------------------------- */

/* The exception that is being raised, taken; with its traceback set. Never NULL. */
PyObject *ypy_take_raised(void);
/* As Python would print it; a new str, never NULL. No exception is set after it. */
PyObject *ypy_traceback_text(PyObject *exc);

#endif
