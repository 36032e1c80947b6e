/* SPDX-License-Identifier: MIT
 * value_test.c - values as bytes and back, for the tests: what the engine and the workers do to them.
 *
 * Idea: encode_value and decode_value are a result with its own block, encode_call and decode_call a
 * call with blocks in the shared heap. They are small, and so they are always there.   Room: python.
 */
#include "ypy.h"

/* --- results ----------------------------------------------------------------------------------- */

static PyObject *encode_value(PyObject *module, PyObject *value)
{
    struct ypy_out out = {.sends = false};
    PyObject *bytes = NULL;
    if (ypy_put_value(ypy_state_of(module), &out, value) == 0) {
        bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)ypy_out_total(&out));
    }
    if (bytes != NULL) {
        memset(PyBytes_AS_STRING(bytes), 0, (size_t)PyBytes_GET_SIZE(bytes));
        ypy_out_copy(&out, PyBytes_AS_STRING(bytes));
    }
    ypy_out_clear(&out);
    return bytes;
}

static PyObject *decode_value(PyObject *module, PyObject *bytes)
{
    char *start;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(bytes, &start, &count) != 0) {
        return NULL;
    }
    /* Memory of its own, that a reader beyond its end would be caught with; kept by views of it. */
    yoke_job *const none = NULL;
    char *const copy = malloc(count != 0 ? (size_t)count : 1);
    struct ypy_job_hold *const hold =
        copy != NULL ? ypy_job_hold_make(none, copy, (size_t)count) : NULL;
    if (hold == NULL) {
        free(copy);
        return PyErr_NoMemory();
    }
    memcpy(copy, start, (size_t)count);
    hold->memory = copy;
    struct ypy_in in = {.at = copy,
                        .end = copy + count,
                        .buffer = ypy_buffer_of_job,
                        .state = ypy_state_of(module),
                        .user = hold};
    PyObject *const value = ypy_get_value(&in);
    ypy_job_hold_drop(hold);
    return value;
}

/* --- calls ------------------------------------------------------------------------------------- */

static void give_blocks(PyObject *capsule)
{
    struct ypy_block **const blocks = PyCapsule_GetPointer(capsule, NULL);
    size_t count = 0;
    while (blocks[count] != NULL) {
        count++;
    }
    ypy_blocks_give(blocks, count);
    PyMem_Free(blocks);
}

/* What must be kept as long as the bytes are read goes into the list. */
static int keep(struct ypy_out *out, PyObject *list)
{
    struct ypy_block **const blocks =
        PyMem_Calloc(out->block_count + 1, sizeof(struct ypy_block *));
    PyObject *const capsule = blocks != NULL ? PyCapsule_New(blocks, NULL, give_blocks) : NULL;
    if (capsule == NULL) {
        PyMem_Free(blocks);
        return -1;
    }
    for (size_t i = 0; i < out->block_count; i++) {
        blocks[i] = out->blocks[i];
    }
    out->block_count = 0;
    int rc = PyList_Append(list, capsule);
    Py_DECREF(capsule);
    if (rc == 0 && out->uses != NULL) {
        rc = PyList_Append(list, out->uses);
    }
    return rc;
}

static PyObject *encode_call(PyObject *module, PyObject *args)
{
    PyObject *positional, *kwargs = Py_None, *list = Py_None, *snapshot = Py_None;
    if (!PyArg_ParseTuple(args, "O!|OOO:encode_call", &PyTuple_Type, &positional, &kwargs, &list,
                          &snapshot)) {
        return NULL;
    }
    struct ypy_out out = {.sends = true, .snapshot = snapshot != Py_None ? snapshot : NULL};
    PyObject *bytes = NULL;
    if (ypy_put_call(ypy_state_of(module), &out, &PyTuple_GET_ITEM(positional, 0),
                     PyTuple_GET_SIZE(positional), PyDict_Check(kwargs) ? kwargs : NULL) == 0) {
        bytes = PyBytes_FromStringAndSize(out.data, (Py_ssize_t)out.used);
    }
    if (bytes != NULL && PyList_Check(list) && keep(&out, list) != 0) {
        Py_CLEAR(bytes);
    }
    ypy_out_clear(&out);
    return bytes;
}

static PyObject *decode_call(PyObject *module, PyObject *bytes)
{
    char *start;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(bytes, &start, &count) != 0) {
        return NULL;
    }
    char *const copy = malloc(count != 0 ? (size_t)count : 1);
    if (copy == NULL) {
        return PyErr_NoMemory();
    }
    memcpy(copy, start, (size_t)count);
    struct ypy_in in = {.at = copy,
                        .end = copy + count,
                        .buffer = ypy_buffer_of_block,
                        .state = ypy_state_of(module)};
    struct ypy_args got;
    PyObject *both = NULL;
    if (ypy_get_call(&in, &got) == 0) {
        PyObject *const args = PyTuple_New(got.nargs);
        PyObject *const kwargs = PyDict_New();
        int rc = args != NULL && kwargs != NULL ? 0 : -1;
        for (Py_ssize_t i = 0; rc == 0 && i < got.nargs; i++) {
            PyTuple_SET_ITEM(args, i, Py_NewRef(got.values[i]));
        }
        for (Py_ssize_t i = 0; rc == 0 && got.names != NULL && i < PyTuple_GET_SIZE(got.names);
             i++) {
            rc = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(got.names, i), got.values[got.nargs + i]);
        }
        both = rc == 0 ? PyTuple_Pack(2, args, kwargs) : NULL;
        Py_XDECREF(args);
        Py_XDECREF(kwargs);
        ypy_args_clear(&got);
    }
    free(copy);
    return both;
}

static PyObject *blocks_kept(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    ypy_blocks_sweep(NULL, 0);
    return PyLong_FromSize_t(ypy_blocks_kept());
}

PyMethodDef ypy_value_methods[] = {
    {"encode_value", encode_value, METH_O, PyDoc_STR("For tests: a value as a result's bytes.")},
    {"decode_value", decode_value, METH_O, PyDoc_STR("For tests: such bytes as a value.")},
    {"encode_call", encode_call, METH_VARARGS,
     PyDoc_STR("For tests: (args, kwargs, keep, snapshot) as a call's bytes; what they name is "
               "appended to the list keep.")},
    {"decode_call", decode_call, METH_O, PyDoc_STR("For tests: such bytes as (args, kwargs).")},
    {"blocks_kept", blocks_kept, METH_NOARGS,
     PyDoc_STR("For tests: how many blocks wait for their worker.")},
    {NULL, NULL, 0, NULL},
};
