/* SPDX-License-Identifier: MIT
 * run.c - in a worker: a request is run, call by call, and each gets its result.
 *
 * Whatever goes wrong with one call is that call's result, in this order of despair: what it
 * returned; what it raised; why that could not be carried over. `done` is counted up only when a
 * result is complete, so a death at any instruction leaves what was done before.   Room: python.
 */
#include "worker.h"

#define SCRATCH_KEPT_BYTES ((size_t)1 << 20)
#define TEXT_MAX_BYTES 2000 /* of what must fit when nothing else does */
#define LONG_CALL 0xFFFFU

enum { CODE_NO_RESULT = 2 };

/* A result on its way; grows, and serves all requests of this worker. */
static struct ypy_out scratch;

struct run {
    struct ypy_state *state;
    struct ypy_request *request;
    yoke_task *task;
    struct ypy_in in;
    PyObject *fn; /* NULL: it could not be loaded, see load_error */
    PyObject *load_error, *load_text;
    char *at; /* where the next result goes */
    uint64_t left;
    uint32_t done;
    bool in_block; /* a result lies in the task's own block: it is the last */
    bool stuck;    /* not even a failure could be told */
};

/* --- exceptions ------------------------------------------------------------------------------- */

PyObject *ypy_take_raised(void)
{
#if PY_VERSION_HEX >= 0x030c0000
    PyObject *const exc = PyErr_GetRaisedException();
#else
    PyObject *type, *exc, *traceback;
    PyErr_Fetch(&type, &exc, &traceback);
    PyErr_NormalizeException(&type, &exc, &traceback);
    if (traceback != NULL && exc != NULL) {
        (void)PyException_SetTraceback(exc, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    PyErr_Clear();
#endif
    return exc != NULL ? exc : Py_NewRef(Py_None);
}

/* As Python prints it: with the module, unless that is builtins or __main__. */
static PyObject *full_name(PyTypeObject *type)
{
    PyObject *const name = PyObject_GetAttrString((PyObject *)type, "__qualname__");
    PyObject *const module = PyObject_GetAttrString((PyObject *)type, "__module__");
    PyErr_Clear();
    PyObject *text = NULL;
    if (name != NULL && module != NULL && PyUnicode_Check(module) &&
        PyUnicode_CompareWithASCIIString(module, "builtins") != 0 &&
        PyUnicode_CompareWithASCIIString(module, "__main__") != 0) {
        text = PyUnicode_FromFormat("%U.%S", module, name);
    } else if (name != NULL) {
        text = PyObject_Str(name);
    }
    Py_XDECREF(module);
    Py_XDECREF(name);
    return text;
}

/* "TypeError: what it says"; less where it cannot say anything. */
static PyObject *describe(PyObject *exc)
{
    PyObject *const words = PyObject_Str(exc);
    PyErr_Clear();
    PyObject *const name = full_name(Py_TYPE(exc));
    PyObject *text = NULL;
    if (name != NULL) {
        text = words != NULL && PyUnicode_GetLength(words) != 0
                   ? PyUnicode_FromFormat("%U: %U", name, words)
                   : Py_NewRef(name);
    }
    Py_XDECREF(name);
    Py_XDECREF(words);
    if (text == NULL) {
        PyErr_Clear();
        text = PyUnicode_New(0, 0); /* a constant of the interpreter */
    }
    return text;
}

/* The module traceback knows causes, groups and notes. */
static PyObject *format_by_module(PyObject *exc, PyObject *traceback)
{
    PyObject *const module = PyImport_ImportModule("traceback");
    PyObject *const lines =
        module != NULL ? PyObject_CallMethod(module, "format_exception", "OOO", Py_TYPE(exc), exc,
                                             traceback != NULL ? traceback : Py_None)
                       : NULL;
    PyObject *const nothing = lines != NULL ? PyUnicode_FromString("") : NULL;
    PyObject *const text = nothing != NULL ? PyUnicode_Join(nothing, lines) : NULL;
    Py_XDECREF(nothing);
    Py_XDECREF(lines);
    Py_XDECREF(module);
    return text;
}

/* No cause, no context, no notes, none of the kinds that print themselves. */
static bool is_plain(PyObject *exc)
{
    PyObject *const cause = PyException_GetCause(exc);
    PyObject *const context = PyException_GetContext(exc);
    const bool plain = cause == NULL && context == NULL &&
                       !PyObject_HasAttrString(exc, "__notes__") &&
                       !PyObject_HasAttrString(exc, "exceptions") &&
                       !PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_SyntaxError) &&
                       !PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_ImportError) &&
                       !PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_NameError) &&
                       !PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_AttributeError);
    Py_XDECREF(cause);
    Py_XDECREF(context);
    return plain;
}

/* The frames by the interpreter itself: the module takes 20 ms to import. */
static PyObject *format_plain(PyObject *exc, PyObject *traceback)
{
    PyObject *const io = PyImport_ImportModule("io");
    PyObject *const file = io != NULL ? PyObject_CallMethod(io, "StringIO", NULL) : NULL;
    PyObject *text = NULL;
    if (file != NULL && (traceback == NULL || PyTraceBack_Print(traceback, file) == 0)) {
        PyObject *const frames = PyObject_CallMethod(file, "getvalue", NULL);
        PyObject *const words = frames != NULL ? describe(exc) : NULL;
        text = words != NULL ? PyUnicode_FromFormat("%U%U\n", frames, words) : NULL;
        Py_XDECREF(words);
        Py_XDECREF(frames);
    }
    Py_XDECREF(file);
    Py_XDECREF(io);
    return text;
}

static PyObject *format_exception(PyObject *exc)
{
    PyObject *const traceback = PyException_GetTraceback(exc);
    PyObject *text = is_plain(exc) ? format_plain(exc, traceback) : NULL;
    if (text == NULL) {
        PyErr_Clear();
        text = format_by_module(exc, traceback);
    }
    Py_XDECREF(traceback);
    return text;
}

PyObject *ypy_traceback_text(PyObject *exc)
{
    PyObject *text = PyExceptionInstance_Check(exc) ? format_exception(exc) : NULL;
    if (text == NULL) {
        PyErr_Clear();
        text = describe(exc);
    }
    return text;
}

/* --- encoding --------------------------------------------------------------------------------- */

/* A str as UTF-8, whatever is in it; at most `most` bytes of it. */
static int put_str(PyObject *str, size_t most)
{
    PyObject *const bytes = PyUnicode_AsEncodedString(str, "utf-8", "backslashreplace");
    if (bytes == NULL) {
        PyErr_Clear();
        return ypy_put_text(&scratch, "", 0);
    }
    const char *const text = PyBytes_AS_STRING(bytes);
    size_t count = (size_t)PyBytes_GET_SIZE(bytes);
    if (count > most) {
        count = most;
        while (count > 0 && ((unsigned char)text[count] & 0xC0U) == 0x80U) {
            count--; /* not in the middle of a character */
        }
    }
    const int rc = ypy_put_text(&scratch, text, count);
    Py_DECREF(bytes);
    return rc;
}

static int put_failure(PyObject *message, PyObject *text, size_t most)
{
    ypy_out_rewind(&scratch, 0);
    return ypy_put_bytes(&scratch, "X", 1) != 0 || put_str(message, most) != 0 ||
                   put_str(text, most) != 0
               ? -1
               : 0;
}

/* --- delivering ------------------------------------------------------------------------------- */

static void count_up(struct run *run)
{
    run->done++;
    /* SYNC(request-done) release: publishes the result. */
    atomic_store_explicit(&run->request->done, run->done, memory_order_release);
}

/* The result, and behind it the buffers, in a block of the task's own. */
static bool deliver_in_block(struct run *run)
{
    const size_t bytes = ypy_out_total(&scratch);
    char *block = NULL;
    Py_BEGIN_ALLOW_THREADS /* it comes as zeros, which takes its time when it is large */
    block = yoke_task_result(run->task, bytes);
    Py_END_ALLOW_THREADS
    if (block != NULL) {
        ypy_out_copy(&scratch, block);
        run->in_block = true;
    }
    return run->in_block;
}

/* False: there is no memory for it. */
static bool deliver(struct run *run)
{
    if (scratch.view_count != 0 || scratch.used > run->left) {
        return deliver_in_block(run);
    }
    memcpy(run->at, scratch.data, scratch.used);
    run->at += scratch.used;
    run->left -= scratch.used;
    run->request->out_bytes += scratch.used;
    count_up(run);
    return true;
}

/* What could not be carried over and why. Takes both strings. */
static void deliver_failure(struct run *run, PyObject *message, PyObject *text)
{
    if (message == NULL || text == NULL || put_failure(message, text, SIZE_MAX) != 0 ||
        !deliver(run)) {
        PyErr_Clear();
        PyObject *const least = PyUnicode_New(0, 0);
        run->stuck = put_failure(message != NULL ? message : least, text != NULL ? text : least,
                                 TEXT_MAX_BYTES) != 0 ||
                     !deliver(run);
        Py_DECREF(least);
        PyErr_Clear();
    }
    Py_XDECREF(message);
    Py_XDECREF(text);
}

/* What is being raised kept us from carrying something over. text: of what the task raised, taken;
 * or NULL. */
static void deliver_raised(struct run *run, const char *what, PyObject *text)
{
    PyObject *const exc = ypy_take_raised();
    PyObject *const why = describe(exc);
    PyObject *const message = PyUnicode_FromFormat("%s: %U", what, why);
    PyErr_Clear();
    deliver_failure(run, message, text != NULL ? text : ypy_traceback_text(exc));
    if (PyExceptionInstance_Check(exc)) {
        (void)PyException_SetTraceback(exc, Py_None);
    }
    Py_DECREF(why);
    Py_DECREF(exc);
}

static void deliver_no_memory(struct run *run, const char *what)
{
    deliver_failure(run,
                    PyUnicode_FromFormat("the %s takes %zu bytes, and the shared heap has no room "
                                         "for them",
                                         what, ypy_out_total(&scratch)),
                    PyUnicode_New(0, 0));
}

/* Takes the exception. */
static void deliver_exception(struct run *run, PyObject *exc)
{
    PyObject *const text = ypy_traceback_text(exc);
    /* What it would keep alive are the frames of the task. */
    if (PyExceptionInstance_Check(exc)) {
        (void)PyException_SetTraceback(exc, Py_None);
    }
    ypy_out_rewind(&scratch, 0);
    if (ypy_put_bytes(&scratch, "E", 1) != 0 || ypy_put_value(run->state, &scratch, exc) != 0 ||
        put_str(text, SIZE_MAX) != 0) {
        deliver_raised(run, "the exception of the task could not be pickled", text);
    } else {
        if (!deliver(run)) {
            deliver_no_memory(run, "exception of the task");
        }
        Py_DECREF(text);
    }
    Py_DECREF(exc);
}

/* What is raised while the result is pickled counts as raised by the task. */
static void deliver_no_result(struct run *run)
{
    PyObject *const exc = ypy_take_raised();
    PyObject *const noted =
        PyObject_CallMethod(exc, "add_note", "s", "(while the result of the task was pickled)");
    PyErr_Clear();
    Py_XDECREF(noted);
    deliver_exception(run, exc);
}

static void deliver_value(struct run *run, PyObject *value)
{
    if (ypy_put_bytes(&scratch, "R", 1) != 0 || ypy_put_value(run->state, &scratch, value) != 0) {
        deliver_no_result(run);
    } else if (!deliver(run)) {
        deliver_no_memory(run, "result");
    }
}

/* --- calls ------------------------------------------------------------------------------------ */

static bool skip_bytes(const char **at, const char *end, uint64_t bytes)
{
    if (bytes > (uint64_t)(end - *at)) {
        return false;
    }
    *at += bytes;
    return true;
}

static bool read_number(const char **at, const char *end, void *number, size_t bytes)
{
    const char *const from = *at;
    if (!skip_bytes(at, end, bytes)) {
        return false;
    }
    memcpy(number, from, bytes); /* little endian, as all we run on */
    return true;
}

static bool skip_value(const char **at, const char *end)
{
    char tag = 0;
    uint32_t size = 0, buffers = 0;
    if (!read_number(at, end, &tag, 1)) {
        return false;
    }
    switch (tag) {
    case 'N':
    case 'T':
    case 'F':
        return true;
    case 'i':
    case 'd':
        return skip_bytes(at, end, 8);
    case 's':
    case 'b':
        return read_number(at, end, &size, 4) && skip_bytes(at, end, size);
    case 'P':
        return read_number(at, end, &size, 4) && read_number(at, end, &buffers, 4) &&
               skip_bytes(at, end, size) && skip_bytes(at, end, (uint64_t)buffers * 24);
    default:
        return false;
    }
}

/* Past a call that could not be decoded. */
static bool skip_call(const char **at, const char *end)
{
    uint16_t nargs = 0, nkw = 0;
    if (!read_number(at, end, &nargs, 2) || !read_number(at, end, &nkw, 2)) {
        return false;
    }
    const uint32_t values = nargs == LONG_CALL ? 1 : nargs + 2U * nkw;
    for (uint32_t i = 0; i < values; i++) {
        if (!skip_value(at, end)) {
            return false;
        }
    }
    return true;
}

static void run_call(struct run *run)
{
    const char *const begin = run->in.at;
    struct ypy_args args;
    ypy_out_rewind(&scratch, 0);
    if (run->fn == NULL) {
        deliver_failure(run, Py_NewRef(run->load_error), Py_NewRef(run->load_text));
        return;
    }
    if (ypy_get_call(&run->in, &args) != 0) {
        run->in.at = begin;
        if (!skip_call(&run->in.at, run->in.end)) {
            run->in.at = run->in.end; /* the rest of this request fails the same way */
        }
        deliver_raised(run, "the arguments could not be unpickled", NULL);
        return;
    }
    PyObject *const value = PyObject_Vectorcall(
        run->fn, args.values, (size_t)args.nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, args.names);
    ypy_args_clear(&args);
    if (value == NULL) {
        deliver_exception(run, ypy_take_raised());
    } else {
        deliver_value(run, value);
        Py_DECREF(value);
    }
}

/* --- the request ------------------------------------------------------------------------------ */

static void load(struct run *run)
{
    run->fn = ypy_definition_load(run->state, run->request->definition);
    if (run->fn != NULL) {
        return;
    }
    PyObject *const exc = ypy_take_raised();
    PyObject *const why = describe(exc);
    run->load_text = ypy_traceback_text(exc);
    run->load_error = PyUnicode_FromFormat("the function could not be loaded: %U", why);
    if (run->load_error == NULL) {
        PyErr_Clear();
        run->load_error = PyUnicode_New(0, 0);
    }
    Py_DECREF(why);
    Py_DECREF(exc);
}

static void run_calls(struct run *run)
{
    const uint32_t count = run->request->count;
    const int64_t budget_ns = run->request->budget_ns;
    const bool timed = budget_ns != 0;
    const int64_t begin_ns = timed ? yoke_now_ns() : ypy_tick_ns();
    load(run);
    while (run->done < count && !run->in_block && !run->stuck) {
        run_call(run);
        if (scratch.view_count != 0 || scratch.room > SCRATCH_KEPT_BYTES) {
            ypy_out_clear(&scratch); /* what it holds may be large */
        }
        if (timed && ypy_tick_ns() - begin_ns > budget_ns) {
            break;
        }
    }
    run->request->took_ns = (timed ? yoke_now_ns() : ypy_tick_ns()) - begin_ns;
    Py_CLEAR(run->fn);
    Py_CLEAR(run->load_error);
    Py_CLEAR(run->load_text);
}

static void flush_streams(void)
{
    PyObject *const image = PyImport_ImportModule("yoke._image");
    PyObject *const done = image != NULL ? PyObject_CallMethod(image, "flush", NULL) : NULL;
    PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(image);
}

int ypy_run(yoke_task *task, const void *in, void *out)
{
    (void)out;
    if (ypy_worker.state == NULL) {
        return YPY_CODE_NO_INTERPRETER;
    }
    uint64_t address;
    memcpy(&address, in, sizeof address);
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): the address is the same in all workers. */
    struct ypy_request *const request = (struct ypy_request *)(uintptr_t)address;
    /* relaxed: whoever reads it for good knows by then that we are dead. */
    atomic_store_explicit(&request->trace, ypy_worker.trace, memory_order_relaxed);
    ypy_worker_wake();
    struct run run = {
        .state = ypy_worker.state,
        .request = request,
        .task = task,
        .in = {.at = request->data,
               .end = request->data + request->in_bytes,
               .buffer = ypy_buffer_of_block,
               .state = ypy_worker.state},
        .at = request->data + ypy_request_out_at(request->in_bytes),
        .left = request->out_room,
    };
    run_calls(&run);
    if (ypy_worker.dirty != NULL && *ypy_worker.dirty != 0) {
        flush_streams();
    }
    return run.stuck ? CODE_NO_RESULT : 0;
}
