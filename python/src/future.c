/* SPDX-License-Identifier: MIT
 * future.c - a concurrent.futures.Future that costs little until somebody looks into it.
 *
 * Idea: the state is a number here; the condition, the list of waiters and that of callbacks are
 * made when the class's own methods, or those of concurrent.futures, first ask for them. From then on
 * somebody watches, and the class's own set_result does the work. Until then one assignment under the
 * GIL does. What can lead back to the future (result, exception) lives in its __dict__, where the
 * collector of garbage sees it.   Room: python.
 */
#include "engine.h"

#include <unistd.h>

#define IDLE_STEPS 25 /* of 20 ms: then the main thread does the collector's work */

enum state { PENDING, RUNNING, CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED };

static const char *const state_names[] = {"PENDING", "RUNNING", "CANCELLED",
                                          "CANCELLED_AND_NOTIFIED", "FINISHED"};

struct future {
    enum state state;
    bool watched;
    struct ypy_call *call;                     /* until it is resolved */
    struct ypy_core *core;                     /* the same; a reference */
    PyObject *condition, *waiters, *callbacks; /* or NULL: nobody asked */
};

static Py_ssize_t base_bytes; /* of concurrent.futures.Future: the same in all interpreters */

static struct future *of(PyObject *self)
{
    return (struct future *)((char *)self + base_bytes);
}

static PyObject *call_base(PyObject *self, const char *method, PyObject *arg)
{
    struct ypy_state *const state = ypy_state_of_type(Py_TYPE(self));
    PyObject *const base = state != NULL ? (PyObject *)state->future_type->tp_base : NULL;
    PyObject *const function = base != NULL ? PyObject_GetAttrString(base, method) : NULL;
    PyObject *const result =
        function != NULL ? PyObject_CallFunctionObjArgs(function, self, arg, NULL) : NULL;
    Py_XDECREF(function);
    return result;
}

/* --- what the class's own methods see --------------------------------------------------------- */

static bool is_done(const struct future *future)
{
    return future->state >= CANCELLED;
}

static enum state state_of(PyObject *self)
{
    const struct future *const future = of(self);
    return future->state == PENDING && future->call != NULL && ypy_call_runs(future->call)
               ? RUNNING
               : future->state;
}

static PyObject *get_state(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_InternFromString(state_names[state_of(self)]);
}

static int set_state(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    for (enum state i = PENDING; value != NULL && i <= FINISHED; i++) {
        if (PyUnicode_Check(value) &&
            PyUnicode_CompareWithASCIIString(value, state_names[i]) == 0) {
            of(self)->state = i;
            return 0;
        }
    }
    PyErr_SetString(PyExc_ValueError, "no state of a future");
    return -1;
}

static void watch(struct future *future)
{
    /* In a forked child the lock may be held by a thread that is not there. */
    if (!future->watched && future->core != NULL && future->core->generation == ypy_generation()) {
        future->watched = true;
        ypy_core_watch(future->core, 1);
    }
}

static PyObject *get_condition(PyObject *self, void *unused)
{
    (void)unused;
    struct future *const future = of(self);
    if (future->condition == NULL) {
        PyObject *const threading = PyImport_ImportModule("threading");
        PyObject *const made =
            threading != NULL ? PyObject_CallMethod(threading, "Condition", NULL) : NULL;
        Py_XDECREF(threading);
        if (made == NULL) {
            return NULL;
        }
        if (future->condition == NULL) { /* nobody else made one meanwhile */
            future->condition = made;
            watch(future);
        } else {
            Py_DECREF(made);
        }
    }
    return Py_NewRef(future->condition);
}

static PyObject *get_list(PyObject **list)
{
    if (*list == NULL) {
        *list = PyList_New(0);
    }
    return Py_XNewRef(*list);
}

static PyObject *get_waiters(PyObject *self, void *unused)
{
    (void)unused;
    return get_list(&of(self)->waiters);
}

static PyObject *get_callbacks(PyObject *self, void *unused)
{
    (void)unused;
    return get_list(&of(self)->callbacks);
}

static int set_object(PyObject **place, PyObject *value)
{
    Py_XSETREF(*place, Py_XNewRef(value));
    return 0;
}

static int set_condition(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    return set_object(&of(self)->condition, value);
}

static int set_waiters(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    return set_object(&of(self)->waiters, value);
}

static int set_callbacks(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    return set_object(&of(self)->callbacks, value);
}

/* --- resolving -------------------------------------------------------------------------------- */

static void forget_call(struct future *future)
{
    struct ypy_core *const core = future->core;
    if (future->watched) {
        future->watched = false;
        ypy_core_watch(core, -1);
    }
    future->call = NULL;
    future->core = NULL;
    Py_XDECREF(core);
}

static bool in_main_thread(void)
{
    return gettid() == getpid();
}

/* An exception of a callback, or no memory: nobody is there to hear of it. But for Ctrl-C, which comes
 * once more, where it can be raised. */
static void done_with(PyObject *self, PyObject *result)
{
    if (result == NULL && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) && in_main_thread()) {
        PyErr_Clear();
        PyErr_SetInterrupt();
    } else if (result == NULL) {
        PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(result);
}

static void finish(PyObject *self, PyObject *value, bool failed)
{
    struct future *const future = of(self);
    if (is_done(future)) {
        return; /* somebody has set it by hand */
    }
    if (future->condition == NULL &&
        PyObject_SetAttrString(self, failed ? "_exception" : "_result", value) != 0) {
        PyErr_WriteUnraisable(self);
    }
    if (is_done(future)) {
        return;
    }
    if (future->condition == NULL) { /* still: nobody looked meanwhile */
        future->state = FINISHED;
        return;
    }
    /* Once more, if a signal's handler raised before it was done. */
    for (int i = 0; i < 2 && !is_done(future); i++) {
        PyObject *const set = call_base(self, failed ? "set_exception" : "set_result", value);
        if (set == NULL && is_done(future) && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear(); /* it was cancelled just then */
        } else {
            done_with(self, set);
        }
    }
    Py_CLEAR(future->callbacks); /* the waiters take themselves off their list */
}

static PyObject *announce_cancel(PyObject *self)
{
    PyObject *const answer = call_base(self, "cancel", NULL);
    if (answer == Py_True) {
        done_with(self, call_base(self, "set_running_or_notify_cancel", NULL));
        Py_CLEAR(of(self)->callbacks);
    }
    return answer;
}

/* -1: an exception instead of it. 0: value is the result. 1: the exception. 2: it begins anew. */
static int outcome_of(struct ypy_core *core, struct ypy_call *call, PyObject **value)
{
    struct ypy_end end;
    ypy_call_end(call, &end);
    if (end.done != 0) {
        return ypy_result_read(core, &end.at, end.end, NULL, value);
    }
    if (end.block != NULL && call->hold == NULL) {
        call->hold = ypy_job_hold_make(call->job, end.block, end.block_bytes);
    }
    if (end.block != NULL) {
        const char *at = end.block;
        return call->hold != NULL
                   ? ypy_result_read(core, &at, at + end.block_bytes, call->hold, value)
                   : -1;
    }
    if (end.kind == YOKE_CRASHED && call->retries > 0 && !core->cancelling) {
        struct ypy_call *const again = ypy_call_rest(core, call, 0);
        if (again == NULL) {
            return -1;
        }
        again->retries--;
        again->owner = Py_NewRef(call->owner);
        of(call->owner)->call = again;
        ypy_call_submit(core, again, true);
        return 2;
    }
    *value = ypy_call_error(core, call, &end);
    return *value != NULL ? 1 : -1;
}

static bool is_cancelled(const struct ypy_core *core, const struct ypy_call *call)
{
    yoke_outcome outcome = {.kind = YOKE_CANCELLED};
    return call->cancelled && core->failure == NULL &&
           (call->job == NULL || (yoke_job_result(call->job, &outcome, NULL, NULL) == 0 &&
                                  outcome.kind == YOKE_CANCELLED));
}

void ypy_future_resolve(struct ypy_core *core, struct ypy_call *call)
{
    PyObject *const self = Py_NewRef(call->owner);
    PyObject *value = NULL;
    bool again = false;
    if (is_cancelled(core, call)) {
        forget_call(of(self));
        for (int i = 0; i < 2 && !is_done(of(self)); i++) {
            done_with(self, announce_cancel(self));
        }
    } else {
        int rc = outcome_of(core, call, &value);
        if (rc == -1 && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) && in_main_thread()) {
            /* Ctrl-C is for the program, not for the one who waits for this. */
            PyErr_Clear();
            rc = outcome_of(core, call, &value);
            again = rc != -1;
        }
        if (rc != 2) {
            forget_call(of(self));
        }
        if (rc == -1) {
            PyObject *type, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            PyErr_NormalizeException(&type, &value, &traceback);
            Py_XDECREF(type);
            Py_XDECREF(traceback);
        }
        if (rc != 2 && value != NULL) {
            finish(self, value, rc != 0);
        }
    }
    Py_XDECREF(value);
    ypy_call_free(core, call);
    Py_DECREF(self);
    if (again) {
        PyErr_SetInterrupt();
    }
}

bool ypy_future_is_plain(PyObject *self)
{
    return of(self)->condition == NULL;
}

PyObject *ypy_future_make(struct ypy_core *core, struct ypy_call *call)
{
    PyTypeObject *const type = core->state->future_type;
    PyObject *const self = type->tp_alloc(type, 0);
    if (self != NULL) {
        struct future *const future = of(self);
        future->call = call;
        future->core = (struct ypy_core *)Py_NewRef((PyObject *)core);
        call->owner = Py_NewRef(self);
    }
    return self;
}

PyObject *ypy_future_make_failed(struct ypy_core *core, PyObject *exception)
{
    PyTypeObject *const type = core->state->future_type;
    PyObject *const self = type->tp_alloc(type, 0);
    if (self != NULL) {
        finish(self, exception, true);
    }
    return self;
}

/* --- methods ---------------------------------------------------------------------------------- */

bool ypy_future_is_left(PyObject *self)
{
    return of(self)->condition != NULL && in_main_thread();
}

/* One step of waiting; as ypy_call_wait. idle: steps in which the collector did nothing. */
static int wait_on(PyObject *self, struct ypy_core *core, int64_t until_ns, unsigned *idle)
{
    if (!ypy_future_is_left(self)) {
        return ypy_call_wait(core, of(self)->call, until_ns);
    }
    const uint64_t resolved = core->resolved;
    const int rc = ypy_core_wait_resolved(core, resolved, until_ns);
    *idle = core->resolved == resolved ? *idle + 1 : 0;
    return rc;
}

/* Until it is resolved, by us if we come first: 0; -1: an exception. */
static int await_done(PyObject *self, int64_t until_ns)
{
    struct future *const future = of(self);
    unsigned idle = 0;
    while (!is_done(future)) {
        struct ypy_core *const core = future->core;
        if (core == NULL) {
            return 1; /* one of those that somebody made by hand */
        }
        if (core->generation != ypy_generation()) {
            PyErr_SetString(PyExc_RuntimeError, "this future was made before fork()");
            return -1;
        }
        struct ypy_call *const call = future->call;
        if ((idle > IDLE_STEPS || !ypy_future_is_left(self)) && ypy_call_take(core, call)) {
            ypy_call_resolve(core, call);
            continue;
        }
        Py_INCREF(core);
        const int rc = wait_on(self, core, until_ns, &idle);
        Py_DECREF(core);
        if (rc == -ETIMEDOUT && !is_done(future)) {
            PyErr_SetNone(PyExc_TimeoutError);
        }
        if (rc != 0 && !is_done(future)) {
            return -1;
        }
        if (rc == -1) {
            return -1;
        }
    }
    return 0;
}

static int read_timeout(PyObject *const *args, Py_ssize_t nargs, PyObject *names, int64_t *until_ns)
{
    const Py_ssize_t named = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    *until_ns = YOKE_FOREVER;
    if (nargs + named > 1 || (named == 1 && PyUnicode_CompareWithASCIIString(
                                                PyTuple_GET_ITEM(names, 0), "timeout") != 0)) {
        PyErr_SetString(PyExc_TypeError, "the only argument is timeout");
        return -1;
    }
    if (nargs + named == 0 || args[0] == Py_None) {
        return 0;
    }
    const double seconds = PyFloat_AsDouble(args[0]);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (seconds < 1e9) {
        *until_ns = yoke_now_ns() + (seconds > 0 ? (int64_t)(seconds * 1e9) : 0);
    }
    return 0;
}

static PyObject *read_end(PyObject *self, bool exception)
{
    const struct future *const future = of(self);
    if (future->state != FINISHED) {
        PyObject *const futures = PyImport_ImportModule("concurrent.futures");
        PyObject *const type =
            futures != NULL ? PyObject_GetAttrString(futures, "CancelledError") : NULL;
        if (type != NULL) {
            PyErr_SetNone(type);
        }
        Py_XDECREF(type);
        Py_XDECREF(futures);
        return NULL;
    }
    PyObject *const exc = PyObject_GetAttrString(self, "_exception");
    if (exc == NULL || exception) {
        return exc;
    }
    if (exc == Py_None) {
        Py_DECREF(exc);
        return PyObject_GetAttrString(self, "_result");
    }
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
    return NULL;
}

static PyObject *wait_and_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *names, bool exception)
{
    int64_t until_ns;
    if (read_timeout(args, nargs, names, &until_ns) != 0) {
        return NULL;
    }
    const int rc = await_done(self, until_ns);
    if (rc == 1) {
        const bool given = nargs != 0 || (names != NULL && PyTuple_GET_SIZE(names) != 0);
        return call_base(self, exception ? "exception" : "result", given ? args[0] : NULL);
    }
    return rc == 0 ? read_end(self, exception) : NULL;
}

static PyObject *future_result(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *names)
{
    return wait_and_read(self, args, nargs, names, false);
}

static PyObject *future_exception(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *names)
{
    return wait_and_read(self, args, nargs, names, true);
}

static PyObject *future_done(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(is_done(of(self)));
}

static PyObject *future_running(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(state_of(self) == RUNNING);
}

static PyObject *future_cancelled(PyObject *self, PyObject *unused)
{
    (void)unused;
    const enum state state = of(self)->state;
    return PyBool_FromLong(state == CANCELLED || state == CANCELLED_AND_NOTIFIED);
}

static PyObject *future_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"force", NULL};
    int force = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:cancel", names, &force)) {
        return NULL;
    }
    struct future *const future = of(self);
    if (is_done(future) || future->call == NULL) {
        return call_base(self, "cancel", NULL);
    }
    struct ypy_core *const core = future->core;
    if (core->generation != ypy_generation()) {
        Py_RETURN_FALSE;
    }
    struct ypy_call *const call = future->call;
    const int rc = ypy_call_cancel(core, call, force != 0);
    if (rc == 1) {
        ypy_call_resolve(core, call);
        return PyBool_FromLong(future->state != FINISHED);
    }
    return PyBool_FromLong(rc == 2);
}

static PyMethodDef methods[] = {
    {"result", (PyCFunction)(void (*)(void))future_result, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("result(timeout=None)\n--\n\nThe result of the call; raises what it raised.\n\n"
               "timeout: seconds to wait; then TimeoutError. A signal's handler runs at once.")},
    {"exception", (PyCFunction)(void (*)(void))future_exception, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("exception(timeout=None)\n--\n\nWhat the call raised, or None.")},
    {"done", future_done, METH_NOARGS,
     PyDoc_STR("done()\n--\n\nTrue if the call ended or was cancelled.")},
    {"running", future_running, METH_NOARGS,
     PyDoc_STR("running()\n--\n\nTrue if a worker runs the call now.")},
    {"cancelled", future_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled()\n--\n\nTrue if the call was cancelled.")},
    {"cancel", (PyCFunction)(void (*)(void))future_cancel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("cancel(force=False)\n--\n\nCancel the call if it has not begun: then True.\n\n"
               "force: one that runs, too: its worker is killed and replaced.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"_state", get_state, set_state, NULL, NULL},
    {"_condition", get_condition, set_condition, NULL, NULL},
    {"_waiters", get_waiters, set_waiters, NULL, NULL},
    {"_done_callbacks", get_callbacks, set_callbacks, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* Of a call that is under way the engine has a reference, so there is none here. */
static void future_finalize(PyObject *self)
{
    struct future *const future = of(self);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_CLEAR(future->condition);
    Py_CLEAR(future->waiters);
    Py_CLEAR(future->callbacks);
    PyErr_Restore(type, value, traceback);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "A call to a pool. See concurrent.futures.Future."},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_finalize, future_finalize},
    {0, NULL},
};

static int set_defaults(PyTypeObject *type)
{
    PyObject *const self = (PyObject *)type;
    return PyObject_SetAttrString(self, "_result", Py_None) != 0 ||
           PyObject_SetAttrString(self, "_exception", Py_None) != 0;
}

PyTypeObject *ypy_future_type_make(PyObject *module)
{
    PyObject *const futures = PyImport_ImportModule("concurrent.futures");
    PyObject *const base = futures != NULL ? PyObject_GetAttrString(futures, "Future") : NULL;
    Py_XDECREF(futures);
    if (base == NULL) {
        return NULL;
    }
    base_bytes = (((PyTypeObject *)base)->tp_basicsize + 7) & ~(Py_ssize_t)7;
    PyType_Spec spec = {
        .name = "yoke.Future",
        .basicsize = (int)(base_bytes + (Py_ssize_t)sizeof(struct future)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
        .slots = slots,
    };
    PyTypeObject *const type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, base);
    Py_DECREF(base);
    if (type != NULL && set_defaults(type) != 0) {
        Py_DECREF(type);
        return NULL;
    }
    return type;
}
