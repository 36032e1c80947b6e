/* SPDX-License-Identifier: MIT
 * value.c - a Python value as bytes: plain types by a tag, all else pickle 5.
 *
 * Idea: what most calls carry is a tag and a few bytes, made without any code of Python's. What is
 * not plain costs one pickle; its large buffers stay out of it.   Room: python.
 */
#include "ypy.h"

#define PLAIN_NODES 4096 /* what is_builtin looks at, at most */
#define PLAIN_DEPTH 16
#define LARGE_BYTES ((size_t)1 << 20) /* the GIL is let go for a copy of that */

/* --- bytes that grow -------------------------------------------------------------------------- */

static int out_reserve(struct ypy_out *out, size_t count)
{
    if (out->room - out->used >= count) {
        return 0;
    }
    size_t room = out->room < 256 ? 512 : out->room * 2;
    if (count > SIZE_MAX / 4 || room < out->room) {
        PyErr_NoMemory();
        return -1;
    }
    room = room - out->used < count ? out->used + count : room;
    char *const data = PyMem_Realloc(out->data, room);
    if (data == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    out->data = data;
    out->room = room;
    return 0;
}

static void put_raw(struct ypy_out *out, const void *bytes, size_t count)
{
    memcpy(out->data + out->used, bytes, count);
    out->used += count;
}

int ypy_put_bytes(struct ypy_out *out, const void *bytes, size_t count)
{
    if (count == 0) {
        return 0;
    }
    if (out_reserve(out, count) != 0) {
        return -1;
    }
    put_raw(out, bytes, count);
    return 0;
}

void ypy_out_rewind(struct ypy_out *out, size_t used)
{
    out->used = used;
    size_t keep = out->block_count;
    while (keep > 0 && out->block_from[keep - 1] >= used) {
        keep--;
    }
    if (keep < out->block_count) {
        ypy_blocks_give(out->blocks + keep, out->block_count - keep);
        out->block_count = keep;
    }
    while (out->view_count > 0 && out->views[out->view_count - 1].from >= used) {
        struct ypy_view *const view = &out->views[--out->view_count];
        out->views_bytes = view->at;
        PyBuffer_Release(&view->buffer);
    }
}

void ypy_out_clear(struct ypy_out *out)
{
    ypy_out_rewind(out, 0);
    PyMem_Free(out->data);
    PyMem_Free(out->blocks);
    PyMem_Free(out->block_from);
    PyMem_Free(out->views);
    Py_CLEAR(out->uses);
    const struct ypy_out empty = {.sends = out->sends, .snapshot = out->snapshot};
    *out = empty;
}

/* --- a result with buffers, in a block of its own --------------------------------------------- */

static size_t up64(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

size_t ypy_out_total(const struct ypy_out *out)
{
    return out->view_count != 0 ? up64(out->used) + out->views_bytes : out->used;
}

/* In the order in which numpy, for one, wants the bytes: that of memory. */
static void copy_view(char *to, const Py_buffer *view)
{
    if ((size_t)view->len < LARGE_BYTES) {
        memcpy(to, view->buf, (size_t)view->len);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    memcpy(to, view->buf, (size_t)view->len);
    Py_END_ALLOW_THREADS
}

void ypy_out_copy(const struct ypy_out *out, char *block)
{
    const size_t base = up64(out->used);
    memcpy(block, out->data, out->used);
    for (size_t i = 0; i < out->view_count; i++) {
        const struct ypy_view *const view = &out->views[i];
        const uint64_t at = base + view->at;
        memcpy(block + view->at_field, &at, sizeof at);
        copy_view(block + at, &view->buffer);
    }
}

/* --- buffers of a pickle that is being made ---------------------------------------------------- */

/* Room for one more in an array; NULL with MemoryError. */
static void *grown(void *array, size_t count, size_t *room, size_t each)
{
    if (count < *room) {
        return array;
    }
    const size_t wanted = *room < 8 ? 8 : *room * 2;
    void *const fresh = PyMem_Realloc(array, wanted * each);
    if (fresh == NULL) {
        return PyErr_NoMemory();
    }
    *room = wanted;
    return fresh;
}

static int keep_block(struct ypy_out *out, const Py_buffer *view)
{
    struct ypy_block **const blocks =
        grown(out->blocks, out->block_count, &out->block_room, sizeof(struct ypy_block *));
    if (blocks == NULL) {
        return -1;
    }
    out->blocks = blocks;
    size_t *const from =
        grown(out->block_from, out->block_count, &out->block_from_room, sizeof *from);
    if (from == NULL) {
        return -1;
    }
    out->block_from = from;
    struct ypy_block *const block = ypy_block_make(view);
    if (block == NULL) {
        return -1;
    }
    from[out->block_count] = out->used;
    blocks[out->block_count++] = block;
    return 0;
}

static int keep_view(struct ypy_out *out, PyObject *exporter)
{
    struct ypy_view *const views =
        grown(out->views, out->view_count, &out->view_room, sizeof *out->views);
    if (views == NULL) {
        return -1;
    }
    out->views = views;
    struct ypy_view *const view = &views[out->view_count];
    if (PyObject_GetBuffer(exporter, &view->buffer, PyBUF_FULL_RO) != 0) {
        return -1;
    }
    view->from = out->used;
    view->at = out->views_bytes;
    out->views_bytes += up64((size_t)view->buffer.len);
    out->view_count++;
    return 0;
}

/* buffer_callback: a true answer leaves the buffer in the pickle. self: a capsule of the ypy_out,
 * whose context is NULL once the pickle is made. */
static PyObject *take_buffer(PyObject *self, PyObject *buffer)
{
    struct ypy_out *const out = PyCapsule_GetContext(self);
    const Py_buffer *const view = out != NULL ? PyPickleBuffer_GetBuffer(buffer) : NULL;
    if (view == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "the pickle is made already");
        }
        return NULL;
    }
    if (view->len < YPY_BLOCK_MIN_BYTES || !PyBuffer_IsContiguous(view, 'A')) {
        Py_RETURN_TRUE;
    }
    const int rc = out->sends ? keep_block(out, view) : keep_view(out, buffer);
    return rc == 0 ? Py_NewRef(Py_False) : NULL;
}

static PyMethodDef take_buffer_def = {"take_buffer", take_buffer, METH_O, NULL};

/* --- pickles ----------------------------------------------------------------------------------- */

PyObject *ypy_found(PyObject **place, const char *module_name, const char *name)
{
    if (*place == NULL) {
        PyObject *const module = PyImport_ImportModule(module_name);
        *place = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
        Py_XDECREF(module);
    }
    return *place;
}

static bool is_builtin(PyObject *value, int depth, int *nodes);

static bool all_builtin(PyObject *const *items, Py_ssize_t count, int depth, int *nodes)
{
    if (count > *nodes || depth == 0) {
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!is_builtin(items[i], depth - 1, nodes)) {
            return false;
        }
    }
    return true;
}

static bool dict_is_builtin(PyObject *dict, int depth, int *nodes)
{
    if (PyDict_GET_SIZE(dict) > *nodes || depth == 0) {
        return false;
    }
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(dict, &at, &key, &value);) {
        if (!is_builtin(key, depth - 1, nodes) || !is_builtin(value, depth - 1, nodes)) {
            return false;
        }
    }
    return true;
}

/* Made of exact types of the interpreter's only, as far as a short look shows: then pickle needs no
 * help of ours. Runs no Python code. */
static bool is_builtin(PyObject *value, int depth, int *nodes)
{
    if (--*nodes < 0) {
        return false;
    }
    if (value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) ||
        PyFloat_CheckExact(value) || PyUnicode_CheckExact(value) || PyBytes_CheckExact(value)) {
        return true;
    }
    if (PyTuple_CheckExact(value)) {
        return all_builtin(&PyTuple_GET_ITEM(value, 0), PyTuple_GET_SIZE(value), depth, nodes);
    }
    if (PyList_CheckExact(value)) {
        const Py_ssize_t count = PyList_GET_SIZE(value);
        return all_builtin(count != 0 ? &PyList_GET_ITEM(value, 0) : NULL, count, depth, nodes);
    }
    return PyDict_CheckExact(value) && dict_is_builtin(value, depth, nodes);
}

static PyObject *pickle_plain(struct ypy_state *state, PyObject *value)
{
    PyObject *const dumps = ypy_found(&state->pickle_plain, "_pickle", "dumps");
    PyObject *const protocol = dumps != NULL ? PyLong_FromLong(5) : NULL;
    if (protocol == NULL) {
        return NULL;
    }
    PyObject *args[] = {NULL, value, protocol};
    PyObject *const bytes =
        PyObject_Vectorcall(dumps, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(protocol);
    return bytes;
}

static PyObject *pickle_any(struct ypy_state *state, struct ypy_out *out, PyObject *value)
{
    PyObject *const dumps = ypy_found(&state->pickle_dumps, "yoke._pickling", "dumps");
    if (dumps == NULL) {
        return NULL;
    }
    if (out->sends && out->uses == NULL && (out->uses = PyList_New(0)) == NULL) {
        return NULL;
    }
    PyObject *const capsule = PyCapsule_New(&take_buffer_def, NULL, NULL);
    if (capsule == NULL || PyCapsule_SetContext(capsule, out) != 0) {
        Py_XDECREF(capsule);
        return NULL;
    }
    PyObject *const callback = PyCFunction_New(&take_buffer_def, capsule);
    PyObject *bytes = NULL;
    if (callback != NULL) {
        PyObject *const uses = out->sends ? out->uses : Py_None;
        PyObject *const snapshot = out->snapshot != NULL ? out->snapshot : Py_None;
        PyObject *args[] = {NULL, value, callback, uses, snapshot};
        bytes = PyObject_Vectorcall(dumps, args + 1, 4 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(callback);
    }
    (void)PyCapsule_SetContext(capsule, NULL);
    Py_DECREF(capsule);
    if (bytes != NULL && !PyBytes_Check(bytes)) {
        Py_CLEAR(bytes);
        PyErr_SetString(PyExc_TypeError, "yoke._pickling.dumps must return bytes");
    }
    return bytes;
}

static void put_buffer_fields(struct ypy_out *out, size_t blocks_from, size_t views_from)
{
    for (size_t i = blocks_from; i < out->block_count; i++) {
        const struct ypy_block *const block = out->blocks[i];
        const uint64_t fields[3] = {(uint64_t)(uintptr_t)block, block->bytes, block->readonly};
        put_raw(out, fields, sizeof fields);
    }
    for (size_t i = views_from; i < out->view_count; i++) {
        struct ypy_view *const view = &out->views[i];
        const uint64_t fields[3] = {view->at, (uint64_t)view->buffer.len,
                                    view->buffer.readonly != 0};
        view->at_field = out->used;
        put_raw(out, fields, sizeof fields);
    }
}

static int put_pickle(struct ypy_state *state, struct ypy_out *out, PyObject *value)
{
    const size_t start = out->used;
    const size_t blocks = out->block_count;
    const size_t views = out->view_count;
    int nodes = PLAIN_NODES;
    PyObject *const bytes = is_builtin(value, PLAIN_DEPTH, &nodes) ? pickle_plain(state, value)
                                                                   : pickle_any(state, out, value);
    if (bytes == NULL) {
        ypy_out_rewind(out, start);
        return -1;
    }
    const size_t length = (size_t)PyBytes_GET_SIZE(bytes);
    const size_t count = out->block_count - blocks + (out->view_count - views);
    int rc = -1;
    if (length > UINT32_MAX || count > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "a pickle of more than 4 GiB cannot be carried over");
    } else {
        rc = out_reserve(out, 9 + length + count * YPY_BUFFER_FIELDS);
    }
    if (rc == 0) {
        const uint32_t sizes[2] = {(uint32_t)length, (uint32_t)count};
        out->data[out->used++] = 'P';
        put_raw(out, sizes, sizeof sizes);
        put_raw(out, PyBytes_AS_STRING(bytes), length);
        put_buffer_fields(out, blocks, views);
    } else {
        ypy_out_rewind(out, start);
    }
    Py_DECREF(bytes);
    return rc;
}

/* --- plain values ------------------------------------------------------------------------------ */

static int put_tagged(struct ypy_out *out, char tag, const void *bytes, size_t count)
{
    if (out_reserve(out, 1 + count) != 0) {
        return -1;
    }
    out->data[out->used++] = tag;
    put_raw(out, bytes, count);
    return 1;
}

static int put_counted(struct ypy_out *out, char tag, const char *bytes, size_t count)
{
    if (count > UINT32_MAX) {
        return 0;
    }
    if (out_reserve(out, 5 + count) != 0) {
        return -1;
    }
    const uint32_t length = (uint32_t)count;
    out->data[out->used++] = tag;
    put_raw(out, &length, sizeof length);
    put_raw(out, bytes, count);
    return 1;
}

static int put_str(struct ypy_out *out, PyObject *str)
{
    if (PyUnicode_IS_COMPACT_ASCII(str)) {
        return put_counted(out, 's', (const char *)PyUnicode_1BYTE_DATA(str),
                           (size_t)PyUnicode_GET_LENGTH(str));
    }
    /* Not PyUnicode_AsUTF8: that would leave a copy in the object for good. */
    PyObject *const utf8 = PyUnicode_AsUTF8String(str);
    if (utf8 == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return -1;
        }
        PyErr_Clear(); /* lone surrogates, which pickle can do */
        return 0;
    }
    const int rc = put_counted(out, 's', PyBytes_AS_STRING(utf8), (size_t)PyBytes_GET_SIZE(utf8));
    Py_DECREF(utf8);
    return rc;
}

/* 1: put; 0: it is not plain; -1: an exception. */
static int put_plain(struct ypy_out *out, PyObject *value)
{
    if (value == Py_None) {
        return put_tagged(out, 'N', "", 0);
    }
    if (PyBool_Check(value)) {
        return put_tagged(out, value == Py_True ? 'T' : 'F', "", 0);
    }
    if (PyLong_CheckExact(value)) {
        int overflow;
        const int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow != 0 ? 0 : put_tagged(out, 'i', &number, sizeof number);
    }
    if (PyFloat_CheckExact(value)) {
        const double number = PyFloat_AS_DOUBLE(value);
        return put_tagged(out, 'd', &number, sizeof number);
    }
    if (PyUnicode_CheckExact(value)) {
        return put_str(out, value);
    }
    return PyBytes_CheckExact(value)
               ? put_counted(out, 'b', PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value))
               : 0;
}

int ypy_put_text(struct ypy_out *out, const char *utf8, size_t bytes)
{
    const size_t most = bytes < UINT32_MAX ? bytes : UINT32_MAX;
    return put_counted(out, 's', utf8, most) == 1 ? 0 : -1;
}

int ypy_put_value(struct ypy_state *state, struct ypy_out *out, PyObject *value)
{
    const int rc = put_plain(out, value);
    return rc != 0 ? (rc > 0 ? 0 : -1) : put_pickle(state, out, value);
}

/* --- calls ------------------------------------------------------------------------------------- */

static int put_plain_keywords(struct ypy_out *out, PyObject *kwargs)
{
    PyObject *name, *value;
    for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &name, &value);) {
        int rc = PyUnicode_CheckExact(name) ? put_str(out, name) : 0;
        if (rc > 0) {
            rc = put_plain(out, value);
        }
        if (rc <= 0) {
            return rc;
        }
    }
    return 1;
}

static int put_plain_call(struct ypy_out *out, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwargs)
{
    const Py_ssize_t nkw = kwargs != NULL ? PyDict_GET_SIZE(kwargs) : 0;
    if (nargs >= YPY_CALL_PICKLED || nkw >= YPY_CALL_PICKLED) {
        return 0;
    }
    const uint16_t counts[2] = {(uint16_t)nargs, (uint16_t)nkw};
    if (ypy_put_bytes(out, counts, sizeof counts) != 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        const int rc = put_plain(out, args[i]);
        if (rc <= 0) {
            return rc;
        }
    }
    return nkw != 0 ? put_plain_keywords(out, kwargs) : 1;
}

static int put_pickled_call(struct ypy_state *state, struct ypy_out *out, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwargs)
{
    PyObject *const positional = PyTuple_New(nargs);
    if (positional == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTuple_SET_ITEM(positional, i, Py_NewRef(args[i]));
    }
    const bool named = kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0;
    PyObject *const both = PyTuple_Pack(2, positional, named ? kwargs : Py_None);
    Py_DECREF(positional);
    static const uint16_t counts[2] = {YPY_CALL_PICKLED, 0};
    int rc = both != NULL ? ypy_put_bytes(out, counts, sizeof counts) : -1;
    if (rc == 0) {
        rc = put_pickle(state, out, both);
    }
    Py_XDECREF(both);
    return rc;
}

int ypy_put_call(struct ypy_state *state, struct ypy_out *out, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *kwargs)
{
    const size_t start = out->used;
    int rc = put_plain_call(out, args, nargs, kwargs);
    if (rc == 0) {
        out->used = start;
        rc = put_pickled_call(state, out, args, nargs, kwargs) == 0 ? 1 : -1;
    }
    if (rc < 0) {
        ypy_out_rewind(out, start);
        return -1;
    }
    return 0;
}
