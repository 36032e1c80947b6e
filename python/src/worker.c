/* SPDX-License-Identifier: MIT
 * worker.c - workers: the hooks of both starts, the main loop, the end.
 *
 * Between PyOS_BeforeFork() in the image and PyOS_AfterFork_Child() in a worker nothing of Python's
 * runs. The main loop keeps the GIL while there is work and lets it go before it sleeps, so that
 * threads of the worker's own run; a task that comes then takes it again.   Room: python.
 */
#include "worker.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#define TURN_NS 5000000LL /* other threads get the GIL that often, also beside tasks in C */
#define LOOK_NS 1000000000LL
#define FAREWELL_S 5 /* for exit handlers; the pool may end us sooner */

struct ypy_worker ypy_worker;

void ypy_worker_wake(void)
{
    if (ypy_worker.idle != NULL) {
        PyThreadState *const thread = ypy_worker.idle;
        ypy_worker.idle = NULL;
        PyEval_RestoreThread(thread);
    }
}

static void let_go(void)
{
    ypy_worker.idle = PyEval_SaveThread();
}

/* --- the end ---------------------------------------------------------------------------------- */

static void leave(int number)
{
    (void)number;
    _exit(0);
}

/* Handlers that tasks registered may wait for ever; we do not. */
static void limit_farewell(void)
{
    struct sigaction action = {.sa_handler = leave};
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
    const struct itimerval timer = {.it_value.tv_sec = FAREWELL_S};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void say_farewell(void)
{
    limit_farewell();
    PyObject *const image = PyImport_ImportModule("yoke._image");
    PyObject *const done = image != NULL ? PyObject_CallMethod(image, "end_worker", NULL) : NULL;
    if (done == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_XDECREF(done);
    Py_XDECREF(image);
}

/* --- the start -------------------------------------------------------------------------------- */

static void worker_start(unsigned worker, void *user)
{
    struct ypy_fork_setup *const setup = user;
    PyOS_AfterFork_Child();
    ypy_worker.state = ypy_state_of(setup->module);
    ypy_desk_enter(setup->desk, worker);
}

/* A bytearray of yoke._image, which lives as long as that. */
static void find_dirty(PyObject *image)
{
    PyObject *const dirty = PyObject_GetAttrString(image, "dirty");
    if (dirty != NULL && PyByteArray_CheckExact(dirty) && PyByteArray_GET_SIZE(dirty) > 0) {
        ypy_worker.dirty = (const unsigned char *)PyByteArray_AS_STRING(dirty);
    }
    PyErr_Clear();
    Py_XDECREF(dirty);
}

int ypy_worker_init(unsigned worker, void *user)
{
    struct ypy_fork_setup *const setup = user;
    PyObject *const image = PyImport_ImportModule("yoke._image");
    PyObject *const done =
        image != NULL ? PyObject_CallMethod(image, "start_worker", "IO", worker, setup->setup)
                      : NULL;
    if (done != NULL) {
        find_dirty(image);
    } else {
        PyObject *const exc = ypy_take_raised();
        PyObject *const text = ypy_traceback_text(exc);
        ypy_desk_tell_failure(setup->desk, text);
        Py_DECREF(text);
        Py_DECREF(exc);
        say_farewell(); /* what was logged gets out before anybody hears of the failure */
    }
    Py_XDECREF(image);
    const bool ready = done != NULL;
    Py_XDECREF(done);
    let_go(); /* a spare waits here; threads that the initializer made go on */
    return ready ? 0 : 1;
}

/* --- the main loop ---------------------------------------------------------------------------- */

/* Handlers of Python's, for signals that came while we slept. True: one of them ends the worker. */
static bool run_handlers(void)
{
    if (!PyErr_Occurred() && PyErr_CheckSignals() == 0) {
        return false;
    }
    const bool leaves = PyErr_ExceptionMatches(PyExc_SystemExit) != 0;
    if (leaves) {
        PyErr_Clear();
    } else {
        PyErr_WriteUnraisable(NULL);
    }
    return leaves;
}

/* A signal between the look for handlers and the sleep does not wake us: look again in a while. */
static int sleep_for_task(yoke_worker *worker)
{
    if (PyErr_CheckSignals() != 0) {
        return -EINTR;
    }
    let_go();
    const int rc = yoke_worker_next(worker, yoke_now_ns() + LOOK_NS);
    ypy_worker_wake();
    return rc;
}

static yoke_worker *current; /* while the main loop runs */

static PyObject *loop(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    int64_t turn_ns = ypy_tick_ns();
    while (current != NULL) {
        int rc = yoke_worker_next(current, 0);
        if (rc == -ETIMEDOUT) {
            rc = sleep_for_task(current);
            turn_ns = ypy_tick_ns();
        } else if (ypy_tick_ns() - turn_ns > TURN_NS) {
            Py_BEGIN_ALLOW_THREADS
            Py_END_ALLOW_THREADS
            turn_ns = ypy_tick_ns();
        }
        if (rc == YOKE_ECLOSED || (rc == -EINTR && run_handlers())) {
            break;
        }
    }
    Py_RETURN_NONE;
}

/* Below a frame of __main__: who asks for the caller's globals gets those of a program. */
static void worker_main(yoke_worker *worker, void *user)
{
    struct ypy_fork_setup *const setup = user;
    ypy_worker_wake();
    PyObject *const image = PyImport_ImportModule("yoke._image");
    PyObject *const run = PyObject_GetAttrString(setup->module, "loop");
    current = worker;
    PyObject *const done =
        image != NULL && run != NULL ? PyObject_CallMethod(image, "frame", "O", run) : NULL;
    current = NULL;
    if (done == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_XDECREF(done);
    Py_XDECREF(run);
    Py_XDECREF(image);
}

static void worker_exit(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    ypy_worker_wake();
    say_farewell();
}

/* --- start="fork" ----------------------------------------------------------------------------- */

/* On the keeper's thread, which has no business with Python otherwise. */
static void before_fork(void *user)
{
    struct ypy_fork_setup *const setup = user;
    setup->gil = PyGILState_Ensure();
    setup->keeper = PyThreadState_Get();
    PyObject *const image = PyImport_ImportModule("yoke._image"); /* once, not in each worker */
    PyErr_Clear();
    Py_XDECREF(image);
    PyOS_BeforeFork();
}

static void after_fork_parent(void *user)
{
    struct ypy_fork_setup *const setup = user;
    PyOS_AfterFork_Parent();
    PyGILState_Release(setup->gil);
}

const yoke_hooks ypy_fork_hooks = {
    .size = sizeof(yoke_hooks),
    .before_fork = before_fork,
    .after_fork_parent = after_fork_parent,
    .worker_start = worker_start,
    .worker_exit = worker_exit,
    .worker_main = worker_main,
};

int ypy_fork_check(void)
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "start='fork' is not possible in a subinterpreter: its "
                                        "copies would run the main one; use start='fresh'");
    return -1;
}

/* Files, sockets and the like of the program are open in its copies, as after any fork: objects of
 * Python's hold their numbers, which must not come to stand for something else. */
int ypy_fork_fds(int **fds, size_t *count)
{
    size_t room = 64;
    int *list = PyMem_RawMalloc(room * sizeof *list);
    DIR *const folder = opendir("/proc/self/fd");
    const int error = folder == NULL ? -errno : -ENOMEM;
    *count = 0;
    while (folder != NULL && list != NULL) {
        const struct dirent *const entry =
            readdir(folder); /* NOLINT(concurrency-mt-unsafe): ours */
        if (entry == NULL) {
            break;
        }
        const int fd = (int)strtol(entry->d_name, NULL, 10);
        if (fd <= STDERR_FILENO || fd == dirfd(folder)) {
            continue;
        }
        if (*count == room) {
            room *= 2;
            int *const more = PyMem_RawRealloc(list, room * sizeof *list);
            if (more == NULL) {
                PyMem_RawFree(list);
            }
            list = more;
        }
        if (list != NULL) {
            list[(*count)++] = fd;
        }
    }
    if (folder == NULL || list == NULL) {
        PyMem_RawFree(list);
        list = NULL;
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    *fds = list;
    return list != NULL ? 0 : error;
}

/* --- start="fresh" ---------------------------------------------------------------------------- */

static const char *why_not(int rc)
{
    switch (rc) {
    case -EBUSY:
        return "this interpreter has other threads, and copies of it would lack them";
    case -EEXIST:
        return "the address of the shared heap is taken here";
    case -EINVAL:
        return "there is no ticket of a pool";
    case -ECHILD:
        return "the pool has gone, or did not start this process itself";
    default:
        return yoke_strerror(rc);
    }
}

static PyObject *serve(PyObject *module, PyObject *args)
{
    const char *ticket = NULL;
    PyObject *settings = NULL;
    if (!PyArg_ParseTuple(args, "sO!", &ticket, &PyDict_Type, &settings)) {
        return NULL;
    }
    PyObject *const address = PyDict_GetItemString(settings, "desk");
    void *const desk = address != NULL ? PyLong_AsVoidPtr(address) : NULL;
    if (desk == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "the settings name no desk");
        }
        return NULL;
    }
    struct ypy_fork_setup setup = {.desk = desk, .module = module, .setup = settings};
    const yoke_hooks hooks = {
        .size = sizeof hooks,
        .worker_start = worker_start,
        .worker_exit = worker_exit,
        .worker_main = worker_main,
    };
    const yoke_image image = {
        .size = sizeof image, .worker_init = ypy_worker_init, .user = &setup, .hooks = &hooks};
    PyOS_BeforeFork();
    const int rc = yoke_image_serve(ticket, &image);
    PyOS_AfterFork_Parent();
    PyErr_Format(PyExc_RuntimeError, "cannot serve: %s", why_not(rc));
    return NULL;
}

PyMethodDef ypy_worker_methods[] = {
    {"serve", serve, METH_VARARGS,
     PyDoc_STR("serve(ticket, setup)\n--\n\nBecome the image of a pool's workers; returns only by "
               "raising.")},
    {"loop", loop, METH_NOARGS, PyDoc_STR("loop()\n--\n\nThe main loop of a worker.")},
    {"set_title", ypy_set_title, METH_O,
     PyDoc_STR("set_title(text)\n--\n\nWhat ps shows for this process.")},
    {"crash_file", ypy_crash_file, METH_NOARGS,
     PyDoc_STR("crash_file()\n--\n\nDescriptor for faulthandler, in a worker.")},
    {"write_whole", ypy_write_whole, METH_VARARGS,
     PyDoc_STR("write_whole(fd, data)\n--\n\nWrite all of it, with nothing of other workers in "
               "between; returns how many bytes.")},
    {"limit_threads", ypy_limit_threads, METH_O,
     PyDoc_STR("limit_threads(number)\n--\n\nThreads of BLAS and OpenMP, where they are loaded.")},
    {NULL, NULL, 0, NULL},
};
