/* SPDX-License-Identifier: MIT
 * value_read.c - bytes as Python values: the other half of value.c.
 *
 * Idea: no length is trusted. Each is copied once, then checked, since others can write where it
 * stands. What a pickle does is the pickle's business; a reader that fails because of one has gone
 * past it.   Room: python.
 */
#include "ypy.h"

#define COPY_MAX_BYTES ((size_t)64 << 10) /* a copy is cheaper than a memoryview */

/* --- reading ----------------------------------------------------------------------------------- */

static PyObject *too_short(void)
{
    PyErr_SetString(PyExc_EOFError, "the bytes of a value end too early, or are not of a value");
    return NULL;
}

/* The next so many bytes, or NULL with an exception. */
static const char *take(struct ypy_in *in, size_t count)
{
    if (in->at > in->end || (size_t)(in->end - in->at) < count) {
        (void)too_short();
        return NULL;
    }
    const char *const at = in->at;
    in->at += count;
    return at;
}

static const char *take_counted(struct ypy_in *in, size_t *length)
{
    uint32_t count;
    const char *const at = take(in, sizeof count);
    if (at == NULL) {
        return NULL;
    }
    memcpy(&count, at, sizeof count);
    *length = count;
    return take(in, count);
}

static PyObject *get_buffers(struct ypy_in *in, const char *fields, uint32_t count)
{
    PyObject *const buffers = PyTuple_New(count);
    for (uint32_t i = 0; buffers != NULL && i < count; i++) {
        uint64_t field[3];
        memcpy(field, fields + (size_t)i * YPY_BUFFER_FIELDS, sizeof field);
        PyObject *const buffer =
            in->buffer != NULL ? in->buffer(in, field[0], field[1], field[2] != 0) : too_short();
        /* Some classes show what they get here, and want more of it than the buffer protocol. */
        PyObject *const view = buffer != NULL ? PyMemoryView_FromObject(buffer) : NULL;
        Py_XDECREF(buffer);
        if (view == NULL) {
            Py_DECREF(buffers);
            return NULL;
        }
        PyTuple_SET_ITEM(buffers, i, view);
    }
    return buffers;
}

static PyObject *get_pickle(struct ypy_in *in)
{
    uint32_t sizes[2];
    const char *const head = take(in, sizeof sizes);
    if (head == NULL) {
        return NULL;
    }
    memcpy(sizes, head, sizeof sizes);
    const char *const pickle = take(in, sizes[0]);
    const char *const fields =
        pickle != NULL ? take(in, (size_t)sizes[1] * YPY_BUFFER_FIELDS) : NULL;
    PyObject *const loads =
        fields != NULL ? ypy_found(&in->state->pickle_loads, "_pickle", "loads") : NULL;
    if (loads == NULL) {
        return NULL;
    }
    PyObject *const bytes =
        sizes[0] <= COPY_MAX_BYTES
            ? PyBytes_FromStringAndSize(pickle, (Py_ssize_t)sizes[0])
            : PyMemoryView_FromMemory((char *)pickle, (Py_ssize_t)sizes[0], PyBUF_READ);
    PyObject *const buffers =
        bytes != NULL && sizes[1] != 0 ? get_buffers(in, fields, sizes[1]) : NULL;
    PyObject *value = NULL;
    if (bytes != NULL && (sizes[1] == 0 || buffers != NULL)) {
        PyObject *args[] = {NULL, bytes, buffers};
        value = PyObject_Vectorcall(loads, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                    buffers != NULL ? in->state->names_buffers : NULL);
    }
    Py_XDECREF(buffers);
    Py_XDECREF(bytes);
    return value;
}

PyObject *ypy_get_value(struct ypy_in *in)
{
    const char *at = take(in, 1);
    if (at == NULL) {
        return NULL;
    }
    const char tag = *(const volatile char *)at;
    size_t length;
    switch (tag) {
    case 'N':
        return Py_NewRef(Py_None);
    case 'T':
        return Py_NewRef(Py_True);
    case 'F':
        return Py_NewRef(Py_False);
    case 'i': {
        int64_t number;
        if ((at = take(in, sizeof number)) == NULL) {
            return NULL;
        }
        memcpy(&number, at, sizeof number);
        return PyLong_FromLongLong(number);
    }
    case 'd': {
        double number;
        if ((at = take(in, sizeof number)) == NULL) {
            return NULL;
        }
        memcpy(&number, at, sizeof number);
        return PyFloat_FromDouble(number);
    }
    case 's':
        at = take_counted(in, &length);
        return at != NULL ? PyUnicode_DecodeUTF8(at, (Py_ssize_t)length, NULL) : NULL;
    case 'b':
        at = take_counted(in, &length);
        return at != NULL ? PyBytes_FromStringAndSize(at, (Py_ssize_t)length) : NULL;
    case 'P':
        return get_pickle(in);
    default:
        return too_short();
    }
}

/* --- reading a call ---------------------------------------------------------------------------- */

static int args_reserve(struct ypy_args *args, size_t count)
{
    args->values = args->few + 1;
    if (count >= sizeof args->few / sizeof(PyObject *)) {
        PyObject **const values = PyMem_Malloc((count + 1) * sizeof(PyObject *));
        if (values == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        args->values = values + 1;
    }
    return 0;
}

void ypy_args_clear(struct ypy_args *args)
{
    if (args->values == NULL) {
        return;
    }
    const Py_ssize_t count =
        args->nargs + (args->names != NULL ? PyTuple_GET_SIZE(args->names) : 0);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(args->values[i]);
    }
    Py_CLEAR(args->names);
    if (args->values != args->few + 1) {
        PyMem_Free(args->values - 1);
    }
    args->values = NULL;
    args->nargs = 0;
}

static int not_a_call(void)
{
    PyErr_SetString(PyExc_ValueError, "the bytes are not those of a call");
    return -1;
}

static int take_kwargs(struct ypy_args *args, PyObject *kwargs)
{
    PyObject *name, *value;
    Py_ssize_t index = 0;
    bool are_names = true;
    for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &name, &value); index++) {
        PyTuple_SET_ITEM(args->names, index, Py_NewRef(name));
        args->values[args->nargs + index] = Py_NewRef(value);
        are_names = are_names && PyUnicode_Check(name);
    }
    return are_names ? 0 : not_a_call();
}

/* both: a tuple (args, kwargs or None), if it is one at all. */
static int take_both(struct ypy_args *args, PyObject *both)
{
    const bool pair = PyTuple_CheckExact(both) && PyTuple_GET_SIZE(both) == 2;
    PyObject *const positional = pair ? PyTuple_GET_ITEM(both, 0) : Py_None;
    PyObject *const kwargs = pair ? PyTuple_GET_ITEM(both, 1) : Py_None;
    if (!PyTuple_CheckExact(positional) || (kwargs != Py_None && !PyDict_CheckExact(kwargs))) {
        return not_a_call();
    }
    const Py_ssize_t nargs = PyTuple_GET_SIZE(positional);
    const Py_ssize_t nkw = kwargs != Py_None ? PyDict_GET_SIZE(kwargs) : 0;
    if (args_reserve(args, (size_t)(nargs + nkw)) != 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        args->values[i] = Py_NewRef(PyTuple_GET_ITEM(positional, i));
    }
    args->nargs = nargs;
    args->names = nkw != 0 ? PyTuple_New(nkw) : NULL;
    if (nkw == 0) {
        return 0;
    }
    return args->names != NULL ? take_kwargs(args, kwargs) : -1;
}

static int get_pickled_call(struct ypy_in *in, struct ypy_args *args)
{
    PyObject *const both = ypy_get_value(in);
    if (both == NULL) {
        return -1;
    }
    const int rc = take_both(args, both);
    Py_DECREF(both);
    return rc;
}

static int get_plain_call(struct ypy_in *in, struct ypy_args *args, Py_ssize_t nargs,
                          Py_ssize_t nkw)
{
    const size_t total = (size_t)(nargs + nkw);
    if ((size_t)(in->end - in->at) < total) {
        (void)too_short();
        return -1;
    }
    if (args_reserve(args, total) != 0) {
        return -1;
    }
    memset(args->values, 0, total * sizeof(PyObject *));
    args->nargs = nargs;
    for (Py_ssize_t i = 0; i < nargs; i++) {
        if ((args->values[i] = ypy_get_value(in)) == NULL) {
            return -1;
        }
    }
    if (nkw == 0) {
        return 0;
    }
    args->names = PyTuple_New(nkw);
    for (Py_ssize_t i = 0; args->names != NULL && i < nkw; i++) {
        PyObject *const name = ypy_get_value(in);
        if (name == NULL || !PyUnicode_CheckExact(name)) {
            Py_XDECREF(name);
            return PyErr_Occurred() ? -1 : not_a_call();
        }
        PyTuple_SET_ITEM(args->names, i, name);
        if ((args->values[nargs + i] = ypy_get_value(in)) == NULL) {
            return -1;
        }
    }
    return args->names != NULL ? 0 : -1;
}

int ypy_get_call(struct ypy_in *in, struct ypy_args *args)
{
    args->values = NULL;
    args->names = NULL;
    args->nargs = 0;
    uint16_t counts[2];
    const char *const head = take(in, sizeof counts);
    if (head == NULL) {
        return -1;
    }
    memcpy(counts, head, sizeof counts);
    const int rc = counts[0] == YPY_CALL_PICKLED ? get_pickled_call(in, args)
                                                 : get_plain_call(in, args, counts[0], counts[1]);
    if (rc != 0) {
        ypy_args_clear(args);
    }
    return rc;
}
