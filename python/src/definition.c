/* SPDX-License-Identifier: MIT
 * definition.c - a function or class as bytes that workers load once.
 *
 * Idea: what callers hand in is mostly the same function again, so its definition is found by the
 * address of the object, and holds while its guards do: what it reads from its module and closure is
 * still the same. What the function reads may be such that nobody can tell; then it is made anew
 * each time, and the old one is used if the bytes are the same. Nothing here keeps the object alive.
 * Making the bytes is _pickling.py's business.   Room: python.
 */
#include "engine.h"

#include <structmember.h>
#include <unistd.h>

#define LOADED_MAX 1024
#define LOADED_MAX_BYTES ((size_t)64 << 20)

/* What a guard says of the function it is about; the second item of its tuple, see guard_holds. */
enum { GUARD_SAME, GUARD_SAME_REFERENT, GUARD_MISSING, GUARD_CODE };

static uint64_t next_id(void)
{
    static _Atomic uint64_t count;
    /* relaxed: only the number counts. */
    const uint64_t serial = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    /* A forked child goes on from the same count, under another number of its own. */
    return ((uint64_t)getpid() << 40) + serial + 1;
}

/* The referent of a weak reference: borrowed, so to be compared only; or NULL. */
static PyObject *referent(PyObject *ref)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *object;
    if (PyWeakref_GetRef(ref, &object) <= 0) {
        PyErr_Clear();
        return NULL;
    }
    Py_DECREF(object); /* the GIL is held and no code runs: what held it still does */
    return object;
#else
    PyObject *const object = PyWeakref_GetObject(ref);
    return object != Py_None ? object : NULL;
#endif
}

/* --- guards ------------------------------------------------------------------------------------ */

/* What a function has under that key now: a global by its name, a cell of the closure by its
 * number. Borrowed, or NULL. */
static PyObject *value_of(PyObject *function, PyObject *key)
{
    if (PyUnicode_Check(key)) {
        return PyDict_GetItemWithError(PyFunction_GET_GLOBALS(function), key);
    }
    PyObject *const closure = PyFunction_GET_CLOSURE(function);
    const Py_ssize_t index = PyLong_AsSsize_t(key);
    if (closure == NULL || index < 0 || index >= PyTuple_GET_SIZE(closure)) {
        return NULL;
    }
    return PyCell_GET(PyTuple_GET_ITEM(closure, index));
}

/* A guard: (weak reference to a function, what it says, key, value). */
static bool guard_holds(PyObject *guard)
{
    PyObject *const function = referent(PyTuple_GET_ITEM(guard, 0));
    if (function == NULL || !PyFunction_Check(function)) {
        return false;
    }
    PyObject *const key = PyTuple_GET_ITEM(guard, 2);
    PyObject *const value = PyTuple_GET_ITEM(guard, 3);
    switch (PyLong_AsLong(PyTuple_GET_ITEM(guard, 1))) {
    case GUARD_SAME:
        return value_of(function, key) == value;
    case GUARD_SAME_REFERENT: {
        PyObject *const now = value_of(function, key);
        return now != NULL && now == referent(value);
    }
    case GUARD_MISSING:
        return value_of(function, key) == NULL;
    case GUARD_CODE:
        return PyFunction_GET_CODE(function) == value;
    default:
        return false;
    }
}

static bool guards_hold(PyObject *guards)
{
    const Py_ssize_t count = guards != NULL ? PyTuple_GET_SIZE(guards) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!guard_holds(PyTuple_GET_ITEM(guards, i))) {
            PyErr_Clear();
            return false;
        }
    }
    return true;
}

static bool are_guards(PyObject *guards)
{
    if (!PyTuple_CheckExact(guards)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(guards); i++) {
        PyObject *const guard = PyTuple_GET_ITEM(guards, i);
        if (!PyTuple_CheckExact(guard) || PyTuple_GET_SIZE(guard) != 4 ||
            !PyWeakref_Check(PyTuple_GET_ITEM(guard, 0))) {
            return false;
        }
    }
    return true;
}

/* --- making one -------------------------------------------------------------------------------- */

static struct ypy_definition *definition_alloc(struct ypy_state *state)
{
    struct ypy_definition *const self = PyObject_New(struct ypy_definition, state->definition_type);
    if (self != NULL) {
        memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    }
    return self;
}

static void definition_dealloc(PyObject *object)
{
    struct ypy_definition *const self = (struct ypy_definition *)object;
    PyTypeObject *const type = Py_TYPE(object);
    yoke_shared_free(self->block);
    Py_XDECREF(self->object);
    Py_XDECREF(self->name);
    Py_XDECREF(self->guards);
    Py_XDECREF(self->uses);
    Py_XDECREF(self->names);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* What _pickling.define tells. All borrowed from `all`. */
struct told {
    PyObject *all; /* owned */
    PyObject *data, *name, *uses, *guards, *anchor;
    bool changes;
};

static int ask(struct ypy_state *state, PyObject *callable, PyObject *snapshot, struct told *told)
{
    (void)state;
    PyObject *define = NULL;
    (void)ypy_found(&define, "yoke._pickling", "define");
    told->all = define != NULL ? PyObject_CallFunctionObjArgs(
                                     define, callable, snapshot != NULL ? snapshot : Py_None, NULL)
                               : NULL;
    Py_XDECREF(define);
    if (told->all == NULL) {
        return -1;
    }
    int changes;
    if (!PyTuple_Check(told->all) ||
        !PyArg_ParseTuple(told->all, "SUOOpO:define", &told->data, &told->name, &told->uses,
                          &told->guards, &changes, &told->anchor) ||
        (told->guards != Py_None && !are_guards(told->guards))) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "yoke._pickling.define returned something else");
        }
        Py_CLEAR(told->all);
        return -1;
    }
    told->changes = changes != 0;
    return 0;
}

#define HEAD_BYTES 9 /* 'P', the length of the pickle, no buffers */

static bool has_bytes(const struct ypy_definition *self, PyObject *data)
{
    const struct ypy_definition_block *const block = self->block;
    const size_t bytes = (size_t)PyBytes_GET_SIZE(data);
    return self->generation == ypy_generation() && block->bytes == bytes + HEAD_BYTES &&
           memcmp(block->data + HEAD_BYTES, PyBytes_AS_STRING(data), bytes) == 0;
}

static struct ypy_definition_block *block_make(PyObject *data, uint64_t id)
{
    const size_t bytes = (size_t)PyBytes_GET_SIZE(data);
    struct ypy_definition_block *block = NULL;
    if (bytes > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError,
                        "a function with more than 4 GiB of data cannot be carried over");
        return NULL;
    }
    block = yoke_shared_alloc(sizeof *block + HEAD_BYTES + bytes);
    if (block == NULL) {
        PyErr_SetString(PyExc_MemoryError, "the shared heap is at its limit");
        return NULL;
    }
    const uint32_t sizes[2] = {(uint32_t)bytes, 0};
    block->id = id;
    block->bytes = HEAD_BYTES + bytes;
    block->data[0] = 'P';
    memcpy(block->data + 1, sizes, sizeof sizes);
    memcpy(block->data + HEAD_BYTES, PyBytes_AS_STRING(data), bytes);
    return block;
}

/* What was told beside the bytes; it may differ though the bytes are the same. */
static void take_told(struct ypy_definition *self, const struct told *told)
{
    Py_XSETREF(self->guards, told->guards != Py_None ? Py_NewRef(told->guards) : NULL);
    Py_XSETREF(self->uses, told->uses != Py_None ? Py_NewRef(told->uses) : NULL);
    self->changes = told->changes;
}

static struct ypy_definition *definition_make(struct ypy_state *state, const struct told *told)
{
    struct ypy_definition *const self = definition_alloc(state);
    if (self == NULL) {
        return NULL;
    }
    self->id = next_id();
    self->generation = ypy_generation();
    self->name = Py_NewRef(told->name);
    take_told(self, told);
    self->block = block_make(told->data, self->id);
    if (self->block == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

/* --- the cache --------------------------------------------------------------------------------- */

/* Called when what is defined goes. self: (dict, key). */
static PyObject *forget(PyObject *self, PyObject *ref)
{
    PyObject *const dict = PyTuple_GET_ITEM(self, 0);
    PyObject *const key = PyTuple_GET_ITEM(self, 1);
    PyObject *const found = PyDict_GetItemWithError(dict, key);
    if (found != NULL && ((struct ypy_definition *)found)->object == ref) {
        (void)PyDict_DelItem(dict, key);
    }
    PyErr_Clear();
    Py_RETURN_NONE;
}

static PyMethodDef forget_def = {"forget", forget, METH_O, NULL};

static int remember(PyObject *dict, PyObject *key, PyObject *callable,
                    struct ypy_definition *definition)
{
    PyObject *const both = PyTuple_Pack(2, dict, key);
    PyObject *const callback = both != NULL ? PyCFunction_New(&forget_def, both) : NULL;
    Py_XDECREF(both);
    definition->object = callback != NULL ? PyWeakref_NewRef(callable, callback) : NULL;
    Py_XDECREF(callback);
    return definition->object != NULL ? PyDict_SetItem(dict, key, (PyObject *)definition) : -1;
}

/* One that was made before of the same, if it is the same still; borrowed. */
static struct ypy_definition *made_before(struct ypy_state *state, PyObject *dict, PyObject *key,
                                          PyObject *callable, const struct told *told)
{
    if (told->anchor == Py_None) {
        PyObject *const last = state->last;
        return last != NULL && has_bytes((struct ypy_definition *)last, told->data)
                   ? (struct ypy_definition *)last
                   : NULL;
    }
    struct ypy_definition *const self = (struct ypy_definition *)PyDict_GetItemWithError(dict, key);
    return self != NULL && referent(self->object) == callable && has_bytes(self, told->data) ? self
                                                                                             : NULL;
}

static PyObject *define_anew(struct ypy_state *state, PyObject *dict, PyObject *key,
                             PyObject *callable, PyObject *snapshot)
{
    struct told told;
    if (ask(state, callable, snapshot, &told) != 0) {
        return NULL;
    }
    struct ypy_definition *self = made_before(state, dict, key, callable, &told);
    if (self != NULL) {
        (void)Py_NewRef((PyObject *)self);
        take_told(self, &told);
        Py_DECREF(told.all);
        return (PyObject *)self;
    }
    self = definition_make(state, &told);
    if (self != NULL && told.anchor == Py_None) {
        Py_XSETREF(state->last, Py_NewRef((PyObject *)self));
    } else if (self != NULL && remember(dict, key, callable, self) != 0) {
        Py_CLEAR(self);
    }
    Py_DECREF(told.all);
    return (PyObject *)self;
}

static PyObject *cache_of(struct ypy_state *state, PyObject *snapshot)
{
    if (snapshot != NULL && snapshot != Py_None) {
        PyObject *const dict = PyObject_GetAttrString(snapshot, "definitions");
        if (dict != NULL && !PyDict_CheckExact(dict)) {
            Py_DECREF(dict);
            PyErr_SetString(PyExc_TypeError, "definitions must be a dict");
            return NULL;
        }
        return dict;
    }
    if (state->definitions == NULL) {
        state->definitions = PyDict_New();
    }
    return Py_XNewRef(state->definitions);
}

PyObject *ypy_definition_in(struct ypy_state *state, PyObject *callable, PyObject *snapshot)
{
    PyObject *const dict = cache_of(state, snapshot);
    PyObject *const key = dict != NULL ? PyLong_FromVoidPtr(callable) : NULL;
    PyObject *found = key != NULL ? PyDict_GetItemWithError(dict, key) : NULL;
    if (found != NULL) {
        const struct ypy_definition *const self = (struct ypy_definition *)found;
        const bool holds = self->generation == ypy_generation() && !self->changes &&
                           self->object != NULL && referent(self->object) == callable &&
                           guards_hold(self->guards);
        found = holds ? Py_NewRef(found) : NULL;
    }
    if (found == NULL && key != NULL && !PyErr_Occurred()) {
        found = define_anew(state, dict, key, callable, snapshot);
    }
    Py_XDECREF(key);
    Py_XDECREF(dict);
    return found;
}

PyObject *ypy_definition_of(struct ypy_state *state, PyObject *callable)
{
    return ypy_definition_in(state, callable, NULL);
}

/* --- in a worker ------------------------------------------------------------------------------- */

/* Let go of what was not used for long. */
static int make_room(struct ypy_state *state)
{
    PyObject *key, *value;
    Py_ssize_t left = PyDict_GET_SIZE(state->loaded) * 2;
    while (
        (PyDict_GET_SIZE(state->loaded) > LOADED_MAX || state->loaded_bytes > LOADED_MAX_BYTES) &&
        PyDict_GET_SIZE(state->loaded) > 1 && left-- > 0) {
        Py_ssize_t at = 0;
        (void)PyDict_Next(state->loaded, &at, &key, &value);
        (void)Py_NewRef(key);
        (void)Py_NewRef(value);
        struct ypy_definition *const entry = (struct ypy_definition *)value;
        int rc = PyDict_DelItem(state->loaded, key);
        if (rc == 0 && entry->used) {
            entry->used = false;
            rc = PyDict_SetItem(state->loaded, key, value);
        } else if (rc == 0) {
            state->loaded_bytes -= entry->bytes;
        }
        Py_DECREF(key);
        Py_DECREF(value);
        if (rc != 0) {
            return -1;
        }
    }
    return 0;
}

static struct ypy_definition *load_anew(struct ypy_state *state, PyObject *key,
                                        const struct ypy_definition_block *block, uint64_t bytes)
{
    PyObject *load = NULL;
    if (bytes < HEAD_BYTES || ypy_found(&load, "yoke._loading", "load") == NULL) {
        return NULL;
    }
    PyObject *const data =
        PyBytes_FromStringAndSize(block->data + HEAD_BYTES, (Py_ssize_t)(bytes - HEAD_BYTES));
    PyObject *const told = data != NULL ? PyObject_CallOneArg(load, data) : NULL;
    Py_XDECREF(data);
    Py_DECREF(load);
    PyObject *object, *names;
    if (told == NULL || !PyArg_ParseTuple(told, "OO", &object, &names)) {
        Py_XDECREF(told);
        return NULL;
    }
    struct ypy_definition *const self = definition_alloc(state);
    if (self != NULL) {
        self->id = block->id;
        self->object = Py_NewRef(object);
        self->names = names != Py_None ? Py_NewRef(names) : NULL;
        self->epoch = state->epoch;
        self->bytes = bytes;
    }
    Py_DECREF(told);
    if (self != NULL && PyDict_SetItem(state->loaded, key, (PyObject *)self) != 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (self != NULL) {
        state->loaded_bytes += bytes;
    }
    return self;
}

/* Another definition changed the worker's __main__ since this one was there. */
static int set_again(struct ypy_state *state, struct ypy_definition *self)
{
    PyObject *again = NULL;
    if (ypy_found(&again, "yoke._loading", "again") == NULL) {
        return -1;
    }
    PyObject *const done = PyObject_CallOneArg(again, self->names);
    Py_DECREF(again);
    if (done == NULL) {
        return -1;
    }
    Py_DECREF(done);
    self->epoch = state->epoch;
    return 0;
}

/* The block at an address that came from elsewhere, and its size as it is now; or NULL. */
static const struct ypy_definition_block *block_at(uint64_t address, uint64_t *bytes)
{
    const struct ypy_definition_block *const block =
        (struct ypy_definition_block *)(uintptr_t)address; /* NOLINT: an address */
    bool there = address % 16 == 0 && yoke_shared_contains(block, sizeof *block);
    if (there) {
        *bytes = *(const volatile uint64_t *)&block->bytes;
        there = *bytes >= HEAD_BYTES && *bytes <= PY_SSIZE_T_MAX / 2 &&
                yoke_shared_contains(block, sizeof *block + *bytes);
    }
    if (!there) {
        PyErr_SetString(PyExc_ValueError, "there is no definition at this address");
        return NULL;
    }
    return block;
}

/* What was loaded under this key, as its definition wants __main__. NULL: nothing, or an exception. */
static struct ypy_definition *loaded_before(struct ypy_state *state, PyObject *key)
{
    PyObject *const found = PyDict_GetItemWithError(state->loaded, key);
    struct ypy_definition *self = (struct ypy_definition *)Py_XNewRef(found);
    if (self != NULL) {
        self->used = true;
        if (self->names != NULL && self->epoch != state->epoch && set_again(state, self) != 0) {
            Py_CLEAR(self);
        }
    }
    return self;
}

PyObject *ypy_definition_load(struct ypy_state *state, uint64_t address)
{
    uint64_t bytes;
    const struct ypy_definition_block *const block = block_at(address, &bytes);
    if (block == NULL || (state->loaded == NULL && (state->loaded = PyDict_New()) == NULL)) {
        return NULL;
    }
    PyObject *const key = PyLong_FromUnsignedLongLong(block->id);
    if (key == NULL) {
        return NULL;
    }
    struct ypy_definition *self = loaded_before(state, key);
    if (self == NULL && !PyErr_Occurred()) {
        self = load_anew(state, key, block, bytes);
        if (self != NULL && make_room(state) != 0) {
            Py_CLEAR(self);
        }
    }
    Py_DECREF(key);
    PyObject *const object = self != NULL ? Py_NewRef(self->object) : NULL;
    Py_XDECREF(self);
    return object;
}

/* --- for _pickling ----------------------------------------------------------------------------- */

static PyObject *definition(PyObject *module, PyObject *args)
{
    PyObject *callable, *snapshot;
    if (!PyArg_ParseTuple(args, "OO", &callable, &snapshot)) {
        return NULL;
    }
    return ypy_definition_in(ypy_state_of(module), callable, snapshot != Py_None ? snapshot : NULL);
}

static PyObject *load_definition(PyObject *module, PyObject *address)
{
    const uint64_t number = PyLong_AsUnsignedLongLong(address);
    return PyErr_Occurred() ? NULL : ypy_definition_load(ypy_state_of(module), number);
}

static PyObject *main_changed(PyObject *module, PyObject *unused)
{
    (void)unused;
    ypy_state_of(module)->epoch++;
    Py_RETURN_NONE;
}

PyMethodDef ypy_definition_methods[] = {
    {"definition", definition, METH_VARARGS, NULL},
    {"load_definition", load_definition, METH_O, NULL},
    {"main_changed", main_changed, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *definition_place(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(((struct ypy_definition *)self)->block);
}

static PyGetSetDef definition_getset[] = {
    {"place", definition_place, NULL, PyDoc_STR("Its address in the shared heap."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef definition_members[] = {
    {"id", T_ULONGLONG, offsetof(struct ypy_definition, id), READONLY, NULL},
    {"name", T_OBJECT, offsetof(struct ypy_definition, name), READONLY, NULL},
    {"guards", T_OBJECT, offsetof(struct ypy_definition, guards), READONLY, NULL},
    {"changes", T_BOOL, offsetof(struct ypy_definition, changes), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot definition_slots[] = {
    {Py_tp_doc, "A function or class as bytes that workers load once."},
    {Py_tp_dealloc, definition_dealloc},
    {Py_tp_getset, definition_getset},
    {Py_tp_members, definition_members},
    {0, NULL},
};

PyType_Spec ypy_definition_spec = {
    .name = "yoke._yoke.Definition",
    .basicsize = sizeof(struct ypy_definition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = definition_slots,
};
