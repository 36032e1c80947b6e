/* SPDX-License-Identifier: MIT
 * core.c - one pool of the library, as a Python object: start, hand in, close, join.
 *
 * The public classes are in _pool.py; a thread of theirs runs start() and drive(). The pool of the
 * library goes when all calls have been resolved, so nobody is left who could wait for one.
 * Room: python.
 */
#include "engine.h"

#define KEPT_MAX 128
#define SUBMIT_ROOM 128
#define HELP_EACH 64 /* calls handed in */
#define SLICE_NS 20000000LL

static struct ypy_core *of(PyObject *self)
{
    return (struct ypy_core *)self;
}

/* --- making it -------------------------------------------------------------------------------- */

static int init_lock(struct ypy_core *core)
{
    pthread_condattr_t attributes;
    int rc = pthread_condattr_init(&attributes);
    rc = rc == 0 ? pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) : rc;
    rc = rc == 0 ? pthread_cond_init(&core->changed, &attributes) : rc;
    rc = rc == 0 ? pthread_mutex_init(&core->lock, NULL) : rc;
    return rc;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"workers", NULL};
    unsigned workers = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "I:Core", names, &workers)) {
        return NULL;
    }
    struct ypy_state *const state = ypy_state_of_type(type);
    PyObject *const module = PyType_GetModuleByDef(type, &ypy_module);
    if (state == NULL || module == NULL) {
        return NULL;
    }
    if (state->future_type == NULL) {
        state->future_type = ypy_future_type_make(module);
        if (state->future_type == NULL ||
            PyModule_AddObjectRef(module, "Future", (PyObject *)state->future_type) != 0) {
            return NULL;
        }
    }
    struct ypy_core *const core = of(type->tp_alloc(type, 0));
    if (core == NULL) {
        return NULL;
    }
    core->state = state;
    core->workers = workers;
    core->generation = ypy_generation();
    core->out.sends = true;
    core->phase = YPY_STARTING;
    core->desk = ypy_desk_make(workers);
    if (core->desk == NULL || init_lock(core) != 0) {
        Py_DECREF(core);
        return PyErr_NoMemory();
    }
    core->fork.desk = core->desk;
    core->fork.module = Py_NewRef(module);
    return (PyObject *)core;
}

/* --- start ------------------------------------------------------------------------------------ */

struct words {
    char **list;
    PyObject *bytes; /* what they point into */
};

static void free_words(struct words *words)
{
    PyMem_Free(words->list);
    Py_CLEAR(words->bytes);
}

/* A list of str as a list of C strings; None: NULL. */
static int read_words(PyObject *list, struct words *words)
{
    *words = (struct words){0};
    if (list == Py_None) {
        return 0;
    }
    const Py_ssize_t count = PySequence_Size(list);
    words->list = count >= 0 ? PyMem_Calloc((size_t)count + 1, sizeof *words->list) : NULL;
    words->bytes = count >= 0 ? PyTuple_New(count) : NULL;
    bool sound = words->list != NULL && words->bytes != NULL;
    for (Py_ssize_t i = 0; sound && i < count; i++) {
        PyObject *const word = PySequence_GetItem(list, i);
        PyObject *const bytes = word != NULL ? PyUnicode_EncodeFSDefault(word) : NULL;
        Py_XDECREF(word);
        sound = bytes != NULL;
        if (sound) {
            PyTuple_SET_ITEM(words->bytes, i, bytes);
            words->list[i] = PyBytes_AS_STRING(bytes);
        }
    }
    if (!sound) {
        free_words(words);
        return PyErr_Occurred() ? -1 : (PyErr_NoMemory(), -1);
    }
    return 0;
}

static PyObject *raise_failure(struct ypy_core *core, int rc)
{
    if (rc != YOKE_EINIT) {
        return ypy_raise_rc(rc, "the workers could not be started");
    }
    PyObject *const text = ypy_desk_failure(core->desk);
    if (text == NULL) {
        return NULL;
    }
    PyObject *const message =
        text != Py_None ? PyUnicode_FromFormat("a worker could not be set up:\n%U", text)
                        : PyUnicode_FromString("a worker, or the process that workers are made "
                                               "of, ended before it was ready");
    Py_DECREF(text);
    return ypy_raise("PoolBroken", message);
}

static int make_pool(struct ypy_core *core, const yoke_pool_config *config)
{
    yoke_pool *pool = NULL;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = yoke_pool_create(config, &pool);
    if (rc == 0) {
        pthread_mutex_lock(&core->lock);
        core->pool = pool;
        core->phase = YPY_RUNNING;
        ypy_core_launch(core);
        (void)pthread_cond_broadcast(&core->changed);
        pthread_mutex_unlock(&core->lock);
    }
    Py_END_ALLOW_THREADS
    return rc;
}

/* start="fork". What other threads close meanwhile is not there to be kept. */
static int make_copies(struct ypy_core *core, yoke_pool_config *config)
{
    int rc = -EBADF;
    for (int i = 0; i < 8 && rc == -EBADF; i++) {
        int *fds = NULL;
        rc = ypy_fork_fds(&fds, &config->keep_fd_count);
        if (rc == 0) {
            config->keep_fds = config->keep_fd_count != 0 ? fds : NULL;
            rc = make_pool(core, config);
        }
        PyMem_RawFree(fds);
    }
    return rc;
}

/* boot_fd, and those that setup["fds"] names: what the image keeps. */
struct kept {
    int fds[KEPT_MAX];
    size_t count;
};

static int read_kept(PyObject *setup, int boot_fd, struct kept *kept)
{
    kept->count = 0;
    if (boot_fd >= 0) {
        kept->fds[kept->count++] = boot_fd;
    }
    PyObject *const list = PyDict_GetItemString(setup, "fds");
    const Py_ssize_t count = list != NULL && PyList_Check(list) ? PyList_GET_SIZE(list) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        const long fd = PyLong_AsLong(PyList_GET_ITEM(list, i));
        if (fd < 0 || kept->count == KEPT_MAX) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "too many descriptors for the workers");
            }
            return -1;
        }
        kept->fds[kept->count++] = (int)fd;
    }
    return 0;
}

static PyObject *core_start(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"setup",     "argv",   "env",    "boot_fd",
                            "tasks_max", "memory", "cpu_ns", NULL};
    struct ypy_core *const core = of(self);
    PyObject *setup, *argv = Py_None, *env = Py_None;
    int boot_fd = -1;
    unsigned tasks_max = 0;
    Py_ssize_t memory = 0;
    long long cpu_ns = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|OOiInL:start", names, &PyDict_Type, &setup,
                                     &argv, &env, &boot_fd, &tasks_max, &memory, &cpu_ns)) {
        return NULL;
    }
    if (argv == Py_None && ypy_fork_check() != 0) {
        return NULL;
    }
    struct kept kept;
    if (read_kept(setup, boot_fd, &kept) != 0) {
        return NULL;
    }
    struct words argv_words, env_words = {0};
    if (read_words(argv, &argv_words) != 0 || read_words(env, &env_words) != 0) {
        free_words(&argv_words);
        return NULL;
    }
    yoke_pool_config config = {
        .size = sizeof config,
        .kind = YOKE_PROCESSES,
        .image = argv != Py_None ? YOKE_EXEC : YOKE_SNAPSHOT,
        .workers = core->workers,
        .keep_fds = kept.count != 0 ? kept.fds : NULL,
        .keep_fd_count = kept.count,
        .tasks_max = tasks_max,
        .limits = {.memory_bytes = (size_t)memory, .cpu_ns = cpu_ns},
        .argv = (const char *const *)argv_words.list,
        .env = (const char *const *)env_words.list,
    };
    Py_XSETREF(core->fork.setup, Py_NewRef(setup));
    PyObject *const snapshot = PyDict_GetItemString(setup, "snapshot");
    Py_XSETREF(core->snapshot, snapshot != Py_None ? Py_XNewRef(snapshot) : NULL);
    if (argv == Py_None) {
        config.hooks = &ypy_fork_hooks;
        config.user = &core->fork;
        config.worker_init = ypy_worker_init;
    }
    const int rc = argv != Py_None ? make_pool(core, &config) : make_copies(core, &config);
    free_words(&argv_words);
    free_words(&env_words);
    return rc == 0 ? Py_NewRef(Py_None) : raise_failure(core, rc);
}

/* All calls end with it, also later ones. Once; a failure after it changes nothing. */
static PyObject *core_fail(PyObject *self, PyObject *exc)
{
    struct ypy_core *const core = of(self);
    pthread_mutex_lock(&core->lock);
    if (!core->cancelling) { /* or a close broke the start off: its calls are cancelled */
        core->failure = Py_NewRef(exc);
    }
    core->phase = YPY_FAILED;
    ypy_core_cancel_backlog(core);
    pthread_mutex_unlock(&core->lock);
    ypy_core_resolve_all(core, true);
    Py_RETURN_NONE;
}

/* --- handing in ------------------------------------------------------------------------------- */

static int read_seconds(PyObject *timeout, int64_t *ns)
{
    *ns = 0;
    if (timeout == Py_None) {
        return 0;
    }
    const double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(seconds > 0)) {
        PyErr_SetString(PyExc_ValueError, "timeout must be more than 0 seconds");
        return -1;
    }
    *ns = seconds < 9e9 ? (int64_t)(seconds * 1e9) + 1 : 0;
    return 0;
}

static struct ypy_call *make_call(struct ypy_core *core, PyObject *fn, PyObject *args,
                                  PyObject *kwargs)
{
    PyObject *const definition = ypy_definition_in(core->state, fn, core->snapshot);
    if (definition == NULL) {
        return NULL;
    }
    struct ypy_out out = ypy_out_borrow(core);
    const int rc = ypy_put_call(core->state, &out, &PyTuple_GET_ITEM(args, 0),
                                PyTuple_GET_SIZE(args), kwargs != Py_None ? kwargs : NULL);
    struct ypy_call *const call =
        rc == 0 ? ypy_call_make(core, &out, definition, 1, SUBMIT_ROOM) : NULL;
    ypy_out_return(core, &out);
    Py_DECREF(definition);
    return call;
}

/* What cannot be carried over is that future's exception, as it would be in a worker. */
static PyObject *make_failed(struct ypy_core *core)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return NULL;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    PyObject *const future = ypy_future_make_failed(core, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return future;
}

/* submit(fn, args, kwargs, timeout, retries) */
static PyObject *core_submit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct ypy_core *const core = of(self);
    if (nargs != 5 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "submit(fn, args, kwargs, timeout, retries)");
        return NULL;
    }
    int64_t timeout_ns;
    const long retries = PyLong_AsLong(args[4]);
    if ((retries == -1 && PyErr_Occurred()) || read_seconds(args[3], &timeout_ns) != 0) {
        return NULL;
    }
    if (retries < 0 || retries > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "retries must not be negative");
        return NULL;
    }
    if (ypy_core_check(core) != 0) {
        return NULL;
    }
    struct ypy_call *const call = make_call(core, args[0], args[1], args[2]);
    if (call == NULL) {
        return make_failed(core);
    }
    call->timeout_ns = timeout_ns;
    call->retries = (unsigned)retries;
    PyObject *const future = ypy_future_make(core, call);
    if (future == NULL) {
        ypy_call_free(core, call);
        return NULL;
    }
    ypy_call_submit(core, call, false);
    if (++core->submits % HELP_EACH == 0) {
        ypy_core_help(core);
    }
    return future;
}

static PyObject *core_map(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return ypy_map_make(of(self), args, kwargs);
}

/* --- the end ---------------------------------------------------------------------------------- */

static PyObject *core_drive(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (of(self)->generation != ypy_generation()) {
        Py_RETURN_NONE;
    }
    return ypy_core_drive(of(self)) == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *core_close(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"cancel", "kill", NULL};
    struct ypy_core *const core = of(self);
    int cancel = 0, kill = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pp:close", names, &cancel, &kill)) {
        return NULL;
    }
    if (core->generation != ypy_generation()) {
        Py_RETURN_NONE;
    }
    pthread_mutex_lock(&core->lock);
    core->closed = true;
    if (cancel || kill) {
        ypy_core_cancel_backlog(core);
        ypy_core_cancel_flight(core, kill != 0);
    }
    core->asleep = false;
    (void)pthread_cond_broadcast(&core->changed);
    pthread_mutex_unlock(&core->lock);
    ypy_core_resolve_all(core, false);
    Py_RETURN_NONE;
}

static bool await_over(struct ypy_core *core, int64_t until_ns)
{
    pthread_mutex_lock(&core->lock);
    if (core->phase != YPY_OVER) {
        const int64_t slice = yoke_now_ns() + SLICE_NS;
        ypy_core_await_change(core, slice < until_ns ? slice : until_ns);
    }
    const bool over = core->phase == YPY_OVER;
    pthread_mutex_unlock(&core->lock);
    return over;
}

static PyObject *core_join(PyObject *self, PyObject *timeout)
{
    struct ypy_core *const core = of(self);
    int64_t until_ns = YOKE_FOREVER;
    if (timeout != Py_None) {
        const double seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        until_ns =
            yoke_now_ns() + (seconds > 0 ? (int64_t)(seconds < 1e9 ? seconds * 1e9 : 1e18) : 0);
    }
    if (core->generation != ypy_generation()) {
        Py_RETURN_TRUE;
    }
    for (bool over = false;;) {
        Py_BEGIN_ALLOW_THREADS
        over = await_over(core, until_ns);
        Py_END_ALLOW_THREADS
        if (over || PyErr_CheckSignals() != 0 || yoke_now_ns() >= until_ns) {
            return PyErr_Occurred() ? NULL : PyBool_FromLong(over);
        }
    }
}

/* --- what it is and did ----------------------------------------------------------------------- */

static yoke_pool *use_pool(struct ypy_core *core)
{
    if (core->generation != ypy_generation()) {
        return NULL;
    }
    pthread_mutex_lock(&core->lock);
    core->users += core->pool != NULL;
    yoke_pool *const pool = core->pool;
    pthread_mutex_unlock(&core->lock);
    return pool;
}

static void use_no_more(struct ypy_core *core)
{
    pthread_mutex_lock(&core->lock);
    core->users--;
    (void)pthread_cond_broadcast(&core->changed);
    pthread_mutex_unlock(&core->lock);
}

static PyObject *core_worker_ids(PyObject *self, PyObject *unused)
{
    (void)unused;
    yoke_pool *const pool = use_pool(of(self));
    int pids[1024];
    int count = 0;
    if (pool != NULL) {
        count = yoke_pool_worker_ids(pool, pids, 1024);
        use_no_more(of(self));
    }
    PyObject *const list = PyList_New(0);
    for (int i = 0; list != NULL && i < count && i < 1024; i++) {
        PyObject *const pid = PyLong_FromLong(pids[i]);
        if (pid == NULL || PyList_Append(list, pid) != 0) {
            Py_XDECREF(pid);
            Py_DECREF(list);
            return NULL;
        }
        Py_DECREF(pid);
    }
    return list;
}

static PyObject *core_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    yoke_pool_stats stats = {.size = sizeof stats};
    yoke_pool *const pool = use_pool(of(self));
    if (pool != NULL) {
        (void)!yoke_pool_stats_get(pool, &stats);
        use_no_more(of(self));
    }
    return Py_BuildValue("{sIsIsnsKsKsK}", "workers", stats.workers, "spares", stats.spares,
                         "pending", (Py_ssize_t)of(self)->pending, "requests",
                         (unsigned long long)stats.tasks, "started",
                         (unsigned long long)stats.started, "died", (unsigned long long)stats.died);
}

static PyObject *core_pending(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSize_t(of(self)->pending);
}

static PyObject *get_desk(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(of(self)->desk);
}

/* --- the type --------------------------------------------------------------------------------- */

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct ypy_core *const core = of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(core->failure);
    Py_VISIT(core->fork.setup);
    Py_VISIT(core->snapshot);
    return 0;
}

static int core_clear(PyObject *self)
{
    struct ypy_core *const core = of(self);
    Py_CLEAR(core->failure);
    Py_CLEAR(core->fork.setup);
    Py_CLEAR(core->snapshot);
    return 0;
}

static void core_dealloc(PyObject *self)
{
    struct ypy_core *const core = of(self);
    PyTypeObject *const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (core->generation == ypy_generation()) {
        if (core->pool != NULL) { /* nobody drove it */
            Py_BEGIN_ALLOW_THREADS(void)
            yoke_pool_destroy(core->pool, 0);
            Py_END_ALLOW_THREADS
        }
        ypy_desk_free(core->desk);
        (void)pthread_mutex_destroy(&core->lock);
        (void)pthread_cond_destroy(&core->changed);
    }
    while (core->unused != NULL) {
        struct ypy_call *const call = core->unused;
        core->unused = call->next;
        PyMem_Free(call);
    }
    ypy_out_clear(&core->out);
    (void)core_clear(self);
    Py_CLEAR(core->fork.module);
    type->tp_free(self);
    Py_DECREF(type);
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef methods[] = {
    {"start", (PyCFunction)(void (*)(void))core_start, KEYWORDS,
     PyDoc_STR("start(setup, argv=None, env=None, boot_fd=-1, tasks_max=0, memory=0, cpu_ns=0)\n"
               "--\n\nMake the workers; returns when they are ready.")},
    {"fail", core_fail, METH_O, PyDoc_STR("fail(exc)\n--\n\nstart() failed: so do all calls.")},
    {"submit", (PyCFunction)(void (*)(void))core_submit, METH_FASTCALL,
     PyDoc_STR("submit(fn, args, kwargs, timeout, retries, /)\n--\n\nHand in a call.")},
    {"map", (PyCFunction)(void (*)(void))core_map, KEYWORDS,
     PyDoc_STR("map(fn, iterables, star=False, chunksize=0, timeout=None, retries=0, "
               "unordered=False)\n--\n\nHand in a call for each item.")},
    {"drive", core_drive, METH_NOARGS,
     PyDoc_STR("drive()\n--\n\nLook after the calls until the pool is closed and all have ended.")},
    {"close", (PyCFunction)(void (*)(void))core_close, KEYWORDS,
     PyDoc_STR("close(cancel=False, kill=False)\n--\n\nTake no new calls.")},
    {"join", core_join, METH_O,
     PyDoc_STR("join(timeout, /)\n--\n\nWait for the end of drive(): True, or False: not yet.")},
    {"worker_ids", core_worker_ids, METH_NOARGS,
     PyDoc_STR("worker_ids()\n--\n\nThe process ids of the workers.")},
    {"stats", core_stats, METH_NOARGS, PyDoc_STR("stats()\n--\n\nWhat the pool did, as a dict.")},
    {"pending", core_pending, METH_NOARGS,
     PyDoc_STR("pending()\n--\n\nHow many calls and batches have not ended.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"desk", get_desk, NULL, "The address of the desk, for the workers.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Core(workers)\n--\n\nA pool of processes. Use yoke.Pool."},
    {Py_tp_new, core_new},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {0, NULL},
};

PyType_Spec ypy_core_spec = {
    .name = "yoke._yoke.Core",
    .basicsize = sizeof(struct ypy_core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
