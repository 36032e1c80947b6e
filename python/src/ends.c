/* SPDX-License-Identifier: MIT
 * ends.c - how calls ended: results read, deaths and timeouts named, the rest of a batch anew.
 *
 * A worker can write everywhere in a request, also after it should not any more, so sizes come from
 * the program's own copies and each offset is checked once, on a copy.   Room: python.
 */
#include "engine.h"

#include <stdarg.h>

void ypy_outcomes_load(struct ypy_core *core)
{
    PyObject *const module = PyImport_ImportModule("yoke._outcomes");
    PyErr_Clear();
    if (module != NULL) {
        Py_XSETREF(core->state->outcomes, module);
    }
}

PyObject *ypy_outcome(struct ypy_core *core, const char *name, const char *format, ...)
{
    struct ypy_state *const state = core->state;
    if (state->outcomes == NULL) {
        state->outcomes = PyImport_ImportModule("yoke._outcomes");
    }
    va_list list;
    va_start(list, format);
    PyObject *const args = state->outcomes != NULL ? Py_VaBuildValue(format, list) : NULL;
    va_end(list);
    PyObject *const make = args != NULL ? PyObject_GetAttrString(state->outcomes, name) : NULL;
    PyObject *const exc = make != NULL ? PyObject_CallObject(make, args) : NULL;
    Py_XDECREF(make);
    Py_XDECREF(args);
    return exc;
}

/* --- reading ---------------------------------------------------------------------------------- */

void ypy_call_end(struct ypy_call *call, struct ypy_end *end)
{
    *end = (struct ypy_end){.kind = call->cancelled ? YOKE_CANCELLED : -1};
    struct ypy_request *const request = call->request;
    if (call->job != NULL) {
        const void *block = NULL;
        if (yoke_job_result(call->job, &end->outcome, &block, &end->block_bytes) == 0) {
            end->kind = end->outcome.kind;
        }
        end->block = end->block_bytes != 0 && end->kind == YOKE_OK ? block : NULL;
    }
    /* SYNC(request-done) acquire: sees the results it counts. */
    const uint32_t done = atomic_load_explicit(&request->done, memory_order_acquire);
    end->done = done < call->calls ? done : call->calls;
    const uint64_t bytes = *(volatile uint64_t *)&request->out_bytes;
    end->at = request->data + ypy_request_out_at(call->in_bytes);
    end->end = end->at + (bytes < call->out_room ? bytes : call->out_room);
    if (end->block != NULL && end->done == call->calls) {
        end->block = NULL; /* there is no call that it could be of */
    }
}

/* The exception that is being raised becomes the cause of one that says what could not be done. */
static int as_transfer_error(struct ypy_core *core, const char *what, PyObject **value)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
        PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return -1;
    }
    PyObject *type, *cause, *traceback;
    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(cause, traceback);
    }
    *value = ypy_outcome(core, "transfer", "(sO)", what, cause != NULL ? cause : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(cause);
    Py_XDECREF(traceback);
    return *value != NULL ? 1 : -1;
}

static int read_exception(struct ypy_core *core, struct ypy_in *in, PyObject **value)
{
    PyObject *const exc = ypy_get_value(in);
    const int lost =
        exc == NULL
            ? as_transfer_error(core, "the exception of the task could not be unpickled", value)
            : 0;
    PyObject *const text = lost >= 0 ? ypy_get_value(in) : NULL;
    if (lost == 0 && text != NULL) {
        *value = ypy_outcome(core, "remote", "(OO)", exc, text);
    } else if (lost == 1 && text != NULL) {
        Py_SETREF(*value, ypy_outcome(core, "remote", "(OO)", *value, text));
    } else if (lost == 1) {
        PyErr_Clear(); /* it is the less important one */
    }
    Py_XDECREF(exc);
    Py_XDECREF(text);
    return *value != NULL ? 1 : -1;
}

static int read_failure(struct ypy_core *core, struct ypy_in *in, PyObject **value)
{
    PyObject *const message = ypy_get_value(in);
    PyObject *const text = message != NULL ? ypy_get_value(in) : NULL;
    if (text != NULL) {
        *value = ypy_outcome(core, "not_carried", "(OO)", message, text);
    }
    Py_XDECREF(message);
    Py_XDECREF(text);
    return *value != NULL ? 1 : -1;
}

int ypy_result_read(struct ypy_core *core, const char **at, const char *end,
                    struct ypy_job_hold *hold, PyObject **value)
{
    struct ypy_in in = {
        .at = *at + 1, .end = end, .buffer = ypy_buffer_of_job, .state = core->state, .user = hold};
    *value = NULL;
    const int kind = *at < end ? **at : 0;
    int rc = 0;
    switch (kind) {
    case 'R':
        *value = ypy_get_value(&in);
        rc = *value == NULL ? as_transfer_error(core, "the result could not be unpickled", value)
                            : 0;
        break;
    case 'E':
        rc = read_exception(core, &in, value);
        break;
    case 'X':
        rc = read_failure(core, &in, value);
        break;
    default:
        *value = ypy_outcome(core, "transfer", "(sO)", "the worker wrote no result", Py_None);
        rc = *value != NULL ? 1 : -1;
        in.at = end;
    }
    if (rc == -1 && !PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) &&
        !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        rc = as_transfer_error(core, "what the worker sent could not be read", value);
    }
    *at = in.at <= end ? in.at : end;
    return rc;
}

/* --- what did not come to a result ------------------------------------------------------------ */

static PyObject *name_of(const struct ypy_call *call)
{
    PyObject *const name = ((struct ypy_definition *)call->definition)->name;
    return name != NULL ? name : Py_None;
}

PyObject *ypy_call_error(struct ypy_core *core, struct ypy_call *call, const struct ypy_end *end)
{
    if (end->kind == YOKE_TIMEDOUT) {
        return ypy_outcome(core, "timed_out", "(Od)", name_of(call),
                           (double)call->timeout_ns / 1e9);
    }
    if (end->kind == YOKE_CRASHED) {
        /* relaxed: its worker is dead. */
        const uint32_t trace = atomic_load_explicit(&call->request->trace, memory_order_relaxed);
        PyObject *const text = ypy_desk_trace(core->desk, trace);
        return text != NULL ? ypy_outcome(core, "died", "(OiiNi)", name_of(call),
                                          end->outcome.signal, end->outcome.code, text, trace != 0)
                            : NULL;
    }
    if (core->failure != NULL) {
        return ypy_outcome(core, "again", "(O)", core->failure);
    }
    if (end->kind == YOKE_CANCELLED && (call->cancelled || core->cancelling)) {
        return ypy_outcome(core, "cancelled", "()");
    }
    if (end->kind == -1 && call->refusal != YOKE_EBROKEN && call->refusal != YOKE_ECLOSED) {
        return ypy_outcome(core, "refused", "(is)", call->refusal, yoke_strerror(call->refusal));
    }
    if (end->kind == YOKE_OK || end->kind == YOKE_FAILED) {
        return ypy_outcome(core, "transfer", "(sO)", "the worker wrote no result", Py_None);
    }
    return ypy_outcome(core, "broken", "(s)", yoke_strerror(YOKE_EBROKEN));
}

/* --- the rest of a batch ---------------------------------------------------------------------- */

struct ypy_call *ypy_call_rest(struct ypy_core *core, struct ypy_call *call, uint32_t from)
{
    const uint32_t begin = call->starts != NULL ? call->starts[from] : 0;
    const uint32_t count = call->calls - from;
    struct ypy_out out = ypy_out_borrow(core);
    const int rc = ypy_put_bytes(&out, call->request->data + begin, call->in_bytes - begin);
    struct ypy_call *const rest =
        rc == 0 ? ypy_call_make(core, &out, call->definition, count, call->out_room) : NULL;
    ypy_out_return(core, &out);
    if (rest == NULL) {
        return NULL;
    }
    if (call->starts != NULL) {
        rest->starts = PyMem_Malloc(((size_t)count + 1) * sizeof *rest->starts);
        if (rest->starts == NULL) {
            ypy_call_free(core, rest);
            return (struct ypy_call *)PyErr_NoMemory();
        }
        for (uint32_t i = 0; i <= count; i++) {
            rest->starts[i] = call->starts[from + i] - begin;
        }
    }
    rest->request->budget_ns = call->request->budget_ns;
    rest->timeout_ns = call->timeout_ns;
    rest->retries = call->retries;
    rest->uses = Py_XNewRef(call->uses);
    rest->blocks = call->blocks;
    rest->block_count = call->block_count;
    call->blocks = NULL;
    call->block_count = 0;
    return rest;
}
