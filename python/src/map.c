/* SPDX-License-Identifier: MIT
 * map.c - a map as an iterator: items are drawn as results are taken, in bounded memory.
 *
 * Idea: items travel in batches, each a call of the engine with its place in a list here, in the
 * order of the items. A batch that ended early is followed in the list by its rest. The calls borrow
 * the map; when it goes it lets go of them first.   Room: python.
 */
#include "map.h"

#define TURN_US 100000
#define LATE_NS 2000000LL /* after that more is handed in, though nothing could be given out */

static struct ypy_map *of(PyObject *self)
{
    return (struct ypy_map *)self;
}

/* --- the list --------------------------------------------------------------------------------- */

void ypy_map_insert(struct ypy_map *map, struct ypy_call *before, struct ypy_call *call)
{
    call->map_before = before;
    call->map_next = before != NULL ? before->map_next : map->first;
    *(before != NULL ? &before->map_next : &map->first) = call;
    *(call->map_next != NULL ? &call->map_next->map_before : &map->last) = call;
    map->outstanding++;
}

static void detach(struct ypy_map *map, struct ypy_call *call)
{
    *(call->map_before != NULL ? &call->map_before->map_next : &map->first) = call->map_next;
    *(call->map_next != NULL ? &call->map_next->map_before : &map->last) = call->map_before;
    map->outstanding--;
    call->owner = NULL; /* it was borrowed */
}

/* --- results ---------------------------------------------------------------------------------- */

/* The calls from `from` on, anew, behind it in the list. */
static int send_rest(struct ypy_map *map, struct ypy_call *call, uint32_t from, unsigned retries)
{
    struct ypy_call *const rest = ypy_call_rest(map->core, call, from);
    if (rest == NULL) {
        return -1;
    }
    rest->owner = (PyObject *)map;
    rest->maps = true;
    rest->retries = retries;
    ypy_map_insert(map, call, rest);
    ypy_call_submit(map->core, rest, true);
    return 0;
}

/* What becomes of those that have no result: 0, or -1 with an exception. */
static int go_on(struct ypy_map *map, struct ypy_call *call, const struct ypy_end *end,
                 uint32_t done)
{
    const bool cancelled = call->cancelled || map->core->cancelling || end->kind == -1 ||
                           end->kind == YOKE_CANCELLED || call->owner == NULL;
    if (end->kind == YOKE_OK && done > 0 && !cancelled) {
        return send_rest(map, call, done, map->retries);
    }
    const unsigned left = done == 0 ? call->retries : map->retries;
    if (end->kind == YOKE_CRASHED && left > 0 && !cancelled) {
        return send_rest(map, call, done, left - 1);
    }
    call->error = ypy_call_error(map->core, call, end);
    if (call->error == NULL) {
        return -1;
    }
    return done + 1 < call->calls && !cancelled && call->owner != NULL
               ? send_rest(map, call, done + 1, map->retries)
               : 0;
}

void ypy_map_resolve(struct ypy_core *core, struct ypy_call *call)
{
    struct ypy_map *const map = (struct ypy_map *)Py_XNewRef(call->owner);
    if (map == NULL) {
        ypy_call_free(core, call);
        return;
    }
    struct ypy_end end;
    ypy_call_end(call, &end);
    ypy_map_learn(map, call, &end);
    call->at = end.at;
    call->end = end.end;
    call->count = end.done;
    if (end.block != NULL) {
        call->hold = ypy_job_hold_make(call->job, end.block, end.block_bytes);
        call->count += call->hold != NULL;
    }
    if (PyErr_Occurred() ||
        (call->count < call->calls && go_on(map, call, &end, call->count) != 0)) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        Py_XSETREF(call->error, value);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
    }
    call->resolved = true;
    if (call->owner == NULL) {
        ypy_call_free(core, call); /* it was let go of meanwhile */
    }
    Py_DECREF(map);
}

/* As from a generator: or who iterates would take it for the end. Takes the exception. */
static void raise_for_item(PyObject *exc)
{
    if (PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        PyErr_SetString(PyExc_RuntimeError, "a task raised StopIteration");
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        PyException_SetCause(value, exc);
        PyErr_Restore(type, value, traceback);
        return;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
}

/* The next result of a call that has one: a value, or NULL and an exception. */
static PyObject *read_result(struct ypy_map *map, struct ypy_call *call)
{
    PyObject *value = NULL;
    const bool in_block = call->hold != NULL && call->read + 1 == call->count;
    call->read++;
    map->done++;
    if (in_block) {
        call->at = call->hold->start;
        call->end = call->at + call->hold->bytes;
    }
    const int rc =
        ypy_result_read(map->core, &call->at, call->end, in_block ? call->hold : NULL, &value);
    if (rc == 0) {
        return value;
    }
    if (rc == 1) {
        raise_for_item(value);
    }
    return NULL;
}

/* The call whose turn it is, resolved; or NULL. */
static struct ypy_call *find_turn(struct ypy_map *map)
{
    struct ypy_call *call = map->first;
    while (map->unordered && call != NULL && !call->resolved) {
        call = call->map_next;
    }
    return call != NULL && call->resolved ? call : NULL;
}

/* Until something has come on: 0, or -1 with an exception. */
static int await_turn(struct ypy_map *map)
{
    struct ypy_core *const core = map->core;
    if (map->unordered) {
        const int rc = ypy_core_wait_any(core);
        ypy_core_resolve_all(core, false);
        return rc;
    }
    struct ypy_call *const call = map->first;
    if (ypy_call_take(core, call)) {
        ypy_call_resolve(core, call);
        return 0;
    }
    /* While it is late, others end, and there is room for more. */
    const int64_t until_ns = map->exhausted ? YOKE_FOREVER : yoke_now_ns() + LATE_NS;
    const int rc = ypy_call_wait(core, call, until_ns);
    map->late = rc == -ETIMEDOUT;
    return rc == -1 ? -1 : 0;
}

static bool wants_more(const struct ypy_map *map)
{
    const size_t window = ypy_map_window(map);
    return !map->exhausted &&
           (map->late ? map->outstanding < window : 2 * map->outstanding <= window);
}

/* A result, NULL with an exception, or NULL without: it is over. */
static PyObject *next_result(struct ypy_map *map)
{
    for (;;) {
        struct ypy_call *const call = find_turn(map);
        if (call != NULL && call->read < call->count) {
            return read_result(map, call);
        }
        if (call != NULL && call->error != NULL) {
            PyObject *const error = call->error;
            call->error = NULL;
            map->done++;
            raise_for_item(error);
            return NULL;
        }
        if (call != NULL) {
            detach(map, call);
            ypy_call_free(map->core, call);
        }
        if (wants_more(map) && ypy_map_fill(map) != 0) {
            return NULL;
        }
        if (map->first == NULL) {
            return NULL;
        }
        if (find_turn(map) == NULL && await_turn(map) != 0) {
            return NULL;
        }
    }
}

/* One of those who wait for their turn may go. */
static void tell(struct ypy_map *map)
{
    if (map->waiting != 0 && !map->told) {
        map->told = true;
        PyThread_release_lock(map->turn);
    }
}

/* One thread at a time: 0, or -1 with an exception. The GIL guards the taker: a lock of Python's would
 * ask the clock for each item. `turn` is held always, but for the moment that lets one who waits on. */
static int enter(struct ypy_map *map)
{
    const unsigned long self = PyThread_get_thread_ident();
    if (map->taker == self) {
        PyErr_SetString(PyExc_ValueError, "map already executing");
        return -1;
    }
    while (map->taker != 0) {
        PyLockStatus got;
        map->waiting++;
        Py_BEGIN_ALLOW_THREADS
        /* In slices: another thread may have taken the signal that this one should hear of. */
        got = PyThread_acquire_lock_timed(map->turn, TURN_US, 1);
        Py_END_ALLOW_THREADS
        map->waiting--;
        map->told = map->told && got != PY_LOCK_ACQUIRED;
        if (got != PY_LOCK_ACQUIRED && PyErr_CheckSignals() != 0) {
            if (map->taker == 0) {
                tell(map); /* it may have been meant for us */
            }
            return -1;
        }
    }
    map->taker = self;
    return 0;
}

static void leave(struct ypy_map *map)
{
    map->taker = 0;
    tell(map);
}

static PyObject *map_next(PyObject *self)
{
    struct ypy_map *const map = of(self);
    if (map->core->generation != ypy_generation()) {
        PyErr_SetString(PyExc_RuntimeError, "this map was begun before fork()");
        return NULL;
    }
    if (enter(map) != 0) {
        return NULL;
    }
    PyObject *const result = next_result(map);
    leave(map);
    return result;
}

/* --- beginning and end ------------------------------------------------------------------------ */

PyObject *ypy_map_make(struct ypy_core *core, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fn",      "iterables", "star",      "chunksize",
                            "timeout", "retries",   "unordered", NULL};
    PyObject *fn, *iterables, *timeout = Py_None;
    int star = 0, unordered = 0;
    Py_ssize_t chunksize = 0;
    unsigned retries = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!|pnOIp:map", names, &fn, &PyTuple_Type,
                                     &iterables, &star, &chunksize, &timeout, &retries,
                                     &unordered)) {
        return NULL;
    }
    const double seconds = timeout != Py_None ? PyFloat_AsDouble(timeout) : 0;
    if (PyErr_Occurred() || ypy_core_check(core) != 0) {
        return NULL;
    }
    PyTypeObject *const type = core->state->map_type;
    struct ypy_map *const map = of(type->tp_alloc(type, 0));
    if (map == NULL) {
        return NULL;
    }
    map->core = (struct ypy_core *)Py_NewRef((PyObject *)core);
    map->star = star != 0;
    map->unordered = unordered != 0;
    ypy_map_set_options(map, chunksize, seconds, retries);
    map->turn = PyThread_allocate_lock();
    if (map->turn == NULL) {
        Py_DECREF(map);
        return PyErr_NoMemory();
    }
    (void)PyThread_acquire_lock(map->turn, NOWAIT_LOCK);
    map->definition = ypy_definition_in(core->state, fn, core->snapshot);
    const Py_ssize_t count = PyTuple_GET_SIZE(iterables);
    map->iterators = map->definition != NULL ? PyTuple_New(count) : NULL;
    bool sound = map->iterators != NULL;
    map->length = -1;
    for (Py_ssize_t i = 0; i < count && sound; i++) {
        PyObject *const iterable = PyTuple_GET_ITEM(iterables, i);
        const Py_ssize_t length = PyObject_LengthHint(iterable, -1);
        map->length = i == 0 || (length >= 0 && length < map->length) ? length : map->length;
        PyErr_Clear();
        PyObject *const iterator = PyObject_GetIter(iterable);
        sound = iterator != NULL;
        PyTuple_SET_ITEM(map->iterators, i, iterator);
    }
    map->exhausted = count == 0;
    if (sound && enter(map) == 0) {
        sound = ypy_map_fill(map) == 0;
        leave(map);
    }
    if (!sound) {
        Py_DECREF(map);
        return NULL;
    }
    return (PyObject *)map;
}

/* What has not begun never will; what runs ends without us. First the list is emptied, and no code of
 * Python's runs meanwhile; from then on each call is either ours alone or no business of ours. */
static void drop_calls(struct ypy_map *map)
{
    struct ypy_core *const core = map->core;
    const bool child = core != NULL && core->generation != ypy_generation();
    struct ypy_call *ours = NULL;
    map->exhausted = true;
    while (map->first != NULL) {
        struct ypy_call *const call = map->first;
        detach(map, call);
        if (call->resolved || (!child && ypy_call_cancel(core, call, false) == 1)) {
            call->map_next = ours;
            ours = call;
        }
    }
    while (ours != NULL) {
        struct ypy_call *const call = ours;
        ours = call->map_next;
        if (call->resolved) {
            ypy_call_free(core, call);
        } else {
            ypy_call_resolve(core, call);
        }
    }
}

static int map_clear(PyObject *self)
{
    struct ypy_map *const map = of(self);
    drop_calls(map);
    Py_CLEAR(map->iterators);
    Py_CLEAR(map->definition);
    return 0;
}

static int map_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct ypy_map *const map = of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)map->core);
    for (struct ypy_call *call = map->first; call != NULL; call = call->map_next) {
        Py_VISIT(call->error); /* its traceback may lead to whoever made the map, and has it */
    }
    Py_VISIT(map->iterators);
    Py_VISIT(map->definition);
    return 0;
}

static void map_dealloc(PyObject *self)
{
    struct ypy_map *const map = of(self);
    PyTypeObject *const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)map_clear(self);
    if (map->turn != NULL) {
        PyThread_free_lock(map->turn);
    }
    Py_CLEAR(map->core);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *map_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct ypy_map *const map = of(self);
    if (map->core->generation != ypy_generation()) { /* who was in it is not in this process */
        drop_calls(map);
        Py_RETURN_NONE;
    }
    if (enter(map) != 0) {
        return NULL;
    }
    drop_calls(map);
    leave(map);
    Py_RETURN_NONE;
}

static PyObject *map_length_hint(PyObject *self, PyObject *unused)
{
    (void)unused;
    const struct ypy_map *const map = of(self);
    if (map->exhausted && map->first == NULL) {
        return PyLong_FromLong(0);
    }
    if (map->length < map->done) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    return PyLong_FromSsize_t(map->length - map->done);
}

static PyObject *get_done(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(of(self)->done);
}

static PyMethodDef methods[] = {
    {"close", map_close, METH_NOARGS,
     PyDoc_STR("close()\n--\n\nDraw no more items; cancel what has not begun.")},
    {"__length_hint__", map_length_hint, METH_NOARGS,
     PyDoc_STR("__length_hint__()\n--\n\nHow many results are to come, if the iterables know.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"done", get_done, NULL, "How many results were given out.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The results of a map, one by one."},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, map_next},
    {Py_tp_dealloc, map_dealloc},
    {Py_tp_traverse, map_traverse},
    {Py_tp_clear, map_clear},
    {0, NULL},
};

PyType_Spec ypy_map_spec = {
    .name = "yoke._yoke.Map",
    .basicsize = sizeof(struct ypy_map),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
