/* SPDX-License-Identifier: MIT
 * ypy.h - what the files of the extension share: the module's state, the formats, who owns what.
 *
 * Bytes in the shared heap are described in docs/rooms/python.md. Objects of Python are touched
 * with the GIL only; memory of the shared heap by everybody, with bounds.   Room: python.
 */
#ifndef YPY_H
#define YPY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <yoke/yoke.h>

/* --- the module's state (module.c) ----------------------------------------------------------- */

struct ypy_state {
    PyTypeObject *core_type;       /* core.c */
    PyTypeObject *future_type;     /* future.c: a subclass of concurrent.futures.Future */
    PyTypeObject *map_type;        /* map.c */
    PyTypeObject *definition_type; /* definition.c */
    PyTypeObject *buffer_type;     /* buffer.c */
    /* value.c; each is found when it is first needed */
    PyObject
        *pickle_dumps; /* yoke._pickling.dumps(obj, buffer_callback, uses, snapshot) -> bytes */
    PyObject *pickle_plain; /* _pickle.dumps */
    PyObject *pickle_loads; /* _pickle.loads */
    PyObject *definitions;  /* dict: address of a callable -> Definition, see ypy_definition_of */
    PyObject *last;         /* the Definition made last of what has no place in that dict */
    PyObject *empty_tuple;
    PyObject *names_buffers; /* ("buffers",): keyword names of a vectorcall of loads */
    PyObject *outcomes;      /* yoke._outcomes, when it is first needed */
    /* worker.c: set in workers */
    PyObject *loaded;    /* dict: id of a definition -> Definition; NULL: none yet */
    uint64_t epoch;      /* counts changes of the worker's __main__ by definitions */
    size_t loaded_bytes; /* of the definitions in loaded */
};

extern struct PyModuleDef ypy_module;

/* The state, from the module, and from a type of the module. */
struct ypy_state *ypy_state_of(PyObject *module);
struct ypy_state *ypy_state_of_type(PyTypeObject *type);

/* yoke._errors.NAME(message, ...) as the raised exception; rc of the library as an OSError or a
 * yoke.PoolBroken, PoolClosed. Both return NULL. */
PyObject *ypy_raise(const char *name, PyObject *message);
PyObject *ypy_raise_rc(int rc, const char *doing);

/* --- values as bytes (value.c) --------------------------------------------------------------- */

/* Bytes that grow, in private memory. Zero is a good beginning. */
struct ypy_out {
    char *data;
    size_t used, room;
    bool sends;     /* calls: buffers become blocks at once; else they are kept as views */
    PyObject *uses; /* list of Definition objects that the bytes name, or NULL */
    PyObject
        *snapshot; /* calls to workers made by start="fork": borrowed; see _pickling; or NULL */
    /* sends: */
    struct ypy_block **blocks;
    size_t block_count, block_room;
    size_t *block_from; /* for each, `used` when it was made */
    size_t block_from_room;
    /* else: */
    struct ypy_view *views;
    size_t view_count, view_room;
    size_t views_bytes; /* the buffers one behind the other, each from a multiple of 64 on */
};

/* A buffer of a result, and where its place (u64) is told in the bytes. */
struct ypy_view {
    Py_buffer buffer;
    size_t from;     /* `used` when it was made */
    size_t at_field; /* in the bytes; what stands there counts from the first buffer on */
    size_t at;
};

/* Frees the bytes and views; blocks and uses too, unless they were taken (set to NULL/0). */
void ypy_out_clear(struct ypy_out *out);
/* Forget what was put after `used` was such: also its blocks and views. */
void ypy_out_rewind(struct ypy_out *out, size_t used);
/* A result with buffers, as it lies in a block of its own: how many bytes that are, and the block's
 * contents. The GIL is let go while large buffers are copied. */
size_t ypy_out_total(const struct ypy_out *out);
void ypy_out_copy(const struct ypy_out *out, char *block);

enum {
    YPY_CALL_PICKLED = 0xFFFF, /* stands for the number of arguments */
    YPY_BUFFER_FIELDS = 24     /* bytes for each buffer behind a pickle */
};

/* *place; if that is NULL, first the attribute of that module. Borrowed; NULL with an exception. */
PyObject *ypy_found(PyObject **place, const char *module, const char *name);

/* Each: 0, or -1 with a Python exception, and then nothing was put. */
int ypy_put_bytes(struct ypy_out *out, const void *bytes, size_t count);
int ypy_put_value(struct ypy_state *state, struct ypy_out *out, PyObject *value);
int ypy_put_text(struct ypy_out *out, const char *utf8, size_t bytes); /* a plain str */
/* kwargs: a dict or NULL. */
int ypy_put_call(struct ypy_state *state, struct ypy_out *out, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *kwargs);

/* Bytes that are read, never beyond end. */
struct ypy_in {
    const char *at, *end;
    /* Makes the object for a buffer of a pickle. NULL with an exception. */
    PyObject *(*buffer)(struct ypy_in *in, uint64_t at, uint64_t bytes, bool readonly);
    struct ypy_state *state;
    void *user;
};

/* A new reference, or NULL with an exception (which may be the value's own). */
PyObject *ypy_get_value(struct ypy_in *in);

/* A call, ready for PyObject_Vectorcall, with PY_VECTORCALL_ARGUMENTS_OFFSET: values[-1] is free. */
struct ypy_args {
    PyObject **values; /* nargs, then the values of keywords */
    Py_ssize_t nargs;
    PyObject *names; /* tuple of keyword names, or NULL */
    PyObject *few[9];
};

int ypy_get_call(struct ypy_in *in, struct ypy_args *args); /* 0 or -1 */
void ypy_args_clear(struct ypy_args *args);

/* --- blocks (buffer.c) ------------------------------------------------------------------------ */

#define YPY_BLOCK_MIN_BYTES 16384 /* smaller buffers stay in the pickle */

/* Before the bytes of a buffer, in the shared heap. The program's. */
struct ypy_block {
    uint64_t bytes;
    _Atomic uint32_t attached; /* SYNC(block-attached): objects in the worker that use it */
    _Atomic int32_t pid;       /* the worker's */
    uint32_t readonly;
    char pad[44];
};

/* A copy of the view in a new block; NULL with MemoryError. */
struct ypy_block *ypy_block_make(const Py_buffer *view);
/* Blocks of a request that ended: freed, or kept on a list until their worker lets go or is dead.
 * GIL held. */
void ypy_blocks_give(struct ypy_block **blocks, size_t count);
/* Look through that list, as ypy_blocks_give does now and then. pids: of the live workers of all
 * pools; NULL: the system is asked who lives. */
void ypy_blocks_sweep(const int *pids, size_t count);
size_t ypy_blocks_kept(void); /* how many are on that list */

/* In a worker: a view of a block, for ypy_in.buffer (at: the address of the block). */
PyObject *ypy_buffer_of_block(struct ypy_in *in, uint64_t at, uint64_t bytes, bool readonly);
/* In the program: a view into a job's result (at: relative to ypy_job_result.start), for
 * ypy_in.buffer with user = a struct ypy_job_hold. The job is released with the last view. */
struct ypy_job_hold {
    yoke_job *job; /* given back by the last of its users */
    size_t users;  /* GIL */
    const char *start;
    size_t bytes;
    void *memory; /* freed with it; or NULL */
};
struct ypy_job_hold *ypy_job_hold_make(yoke_job *job, const void *start, size_t bytes);
void ypy_job_hold_drop(struct ypy_job_hold *hold);
PyObject *ypy_buffer_of_job(struct ypy_in *in, uint64_t at, uint64_t bytes, bool readonly);

/* --- definitions (definition.c) --------------------------------------------------------------- */

/* In the shared heap. */
struct ypy_definition_block {
    uint64_t id; /* never used twice in a program */
    uint64_t bytes;
    char data[]; /* a value, see value.c; never with buffers out of band */
};

/* The Python object that owns it; in a worker, what was loaded from it. */
struct ypy_definition {
    PyObject_HEAD
    struct ypy_definition_block *block; /* NULL in a worker */
    uint64_t id;
    uint64_t generation; /* of the process that made it */
    PyObject *object;    /* a weak reference to what it defines, or NULL; in a worker the object */
    PyObject *name;      /* a str for messages: module and qualified name, or a short repr */
    PyObject *guards;    /* a tuple, see definition.c: what must still hold; NULL: always */
    bool changes;        /* it reads what may change at any time: make it anew, and compare */
    PyObject *uses;      /* list of other definitions it names, or NULL */
    /* in a worker */
    PyObject *names; /* what it set in __main__, for _pickling.again; or NULL */
    uint64_t epoch;  /* state->epoch when it did */
    size_t bytes;
    bool used; /* since it was last thought of letting it go */
};

/* A definition of a callable, from the cache where that still holds; a new reference, or NULL.
 * snapshot: of the pool with start="fork" that it is for (see _pickling.Snapshot), or NULL. */
PyObject *ypy_definition_of(struct ypy_state *state, PyObject *callable);
PyObject *ypy_definition_in(struct ypy_state *state, PyObject *callable, PyObject *snapshot);
/* In a worker: the object a definition stands for, loaded once; a new reference or NULL. */
PyObject *ypy_definition_load(struct ypy_state *state, uint64_t address);

/* --- requests --------------------------------------------------------------------------------- */

struct ypy_request {
    /* the program writes these, before it is handed in */
    uint64_t definition; /* address of a ypy_definition_block */
    uint32_t count;      /* calls */
    uint32_t in_bytes;
    uint64_t out_room;
    int64_t budget_ns; /* end the request early after that long; 0: do not */
    uint64_t desk;     /* address of the pool's desk */
    /* the worker writes these */
    _Atomic uint32_t done;  /* SYNC(request-done): results that are complete */
    _Atomic uint32_t trace; /* place on the desk, + 1; 0: not begun */
    uint64_t out_bytes;     /* of the results in out_room */
    int64_t took_ns;        /* from its first call to its last */
    char data[];            /* in_bytes of calls, then from the next multiple of 8 on the results */
};

static inline size_t ypy_request_out_at(uint32_t in_bytes)
{
    return ((size_t)in_bytes + 7) & ~(size_t)7;
}

/* The task (run.c): in is the address of a request. Code 0, or YPY_CODE_...: */
int ypy_run(yoke_task *task, const void *in, void *out);
enum { YPY_CODE_NO_INTERPRETER = 1 };

/* --- the desk and the workers (worker.c) ------------------------------------------------------ */

struct ypy_desk; /* in the shared heap */

struct ypy_desk *ypy_desk_make(unsigned workers); /* NULL: no memory */
void ypy_desk_free(struct ypy_desk *desk);
/* The text a dead worker left, as a str, or None; a new reference. trace: of the request. */
PyObject *ypy_desk_trace(struct ypy_desk *desk, uint32_t trace);
/* Why the initializer failed (a str), or None. */
PyObject *ypy_desk_failure(struct ypy_desk *desk);

/* For core.c, start="fork": the hooks, and their user. The pool's config gets .hooks, .user and
 * .worker_init. setup: a dict for yoke._image.start_worker, kept alive by the pool's owner. */
struct ypy_fork_setup {
    struct ypy_desk *desk;
    PyObject *module;
    PyObject *setup;
    PyThreadState *keeper; /* the hooks' own */
    PyGILState_STATE gil;
};
extern const yoke_hooks ypy_fork_hooks;
int ypy_fork_check(void); /* 0, or -1 with RuntimeError: not from this interpreter */
/* Descriptors that are open now, besides 0, 1 and 2: for keep_fds; PyMem_RawFree. 0 or -ENOMEM. */
int ypy_fork_fds(int **fds, size_t *count);
int ypy_worker_init(unsigned worker, void *user);

/* Functions of the module, each list ends with an empty entry. */
extern PyMethodDef ypy_value_methods[];      /* value_test.c: encode_value ... for tests */
extern PyMethodDef ypy_definition_methods[]; /* definition.c: what _pickling needs */
extern PyMethodDef ypy_worker_methods[];     /* worker.c: serve, set_title */

/* --- the program's side (core.c, engine.c, future.c, map.c) ------------------------------------ */

struct ypy_core;

extern PyType_Spec ypy_core_spec, ypy_map_spec, ypy_definition_spec, ypy_buffer_spec;
/* Its base is a class of Python's, so it is made when the module is. */
PyTypeObject *ypy_future_type_make(PyObject *module);

#endif
