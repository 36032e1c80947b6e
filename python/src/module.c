/* SPDX-License-Identifier: MIT
 * module.c - the module yoke._yoke: its state, its types, its functions.
 *
 * Everything of Python's lives in the module's state, so that each interpreter has its own. The
 * type of futures is made with the first pool: its base class is slow to import, and workers have no
 * need of it.   Room: python.
 */
#include "engine.h"

struct ypy_state *ypy_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

struct ypy_state *ypy_state_of_type(PyTypeObject *type)
{
    PyObject *const module = PyType_GetModuleByDef(type, &ypy_module);
    return module != NULL ? ypy_state_of(module) : NULL;
}

/* --- errors ----------------------------------------------------------------------------------- */

PyObject *ypy_raise(const char *name, PyObject *message)
{
    PyObject *const errors = message != NULL ? PyImport_ImportModule("yoke._errors") : NULL;
    PyObject *const type = errors != NULL ? PyObject_GetAttrString(errors, name) : NULL;
    if (type != NULL) {
        PyErr_SetObject(type, message);
    } else if (message != NULL) { /* the interpreter ends, and imports no more */
        PyErr_Clear();
        PyErr_SetObject(PyExc_RuntimeError, message);
    }
    Py_XDECREF(type);
    Py_XDECREF(errors);
    Py_XDECREF(message);
    return NULL;
}

PyObject *ypy_raise_rc(int rc, const char *doing)
{
    if (rc == -ENOMEM) {
        return PyErr_NoMemory();
    }
    if (rc < 0 && rc > -4096) {
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): the GIL is held. */
        PyObject *const args = Py_BuildValue("(is)", -rc, strerror(-rc));
        if (args != NULL) {
            PyErr_SetObject(PyExc_OSError, args);
            Py_DECREF(args);
        }
        return NULL;
    }
    return ypy_raise(rc == YOKE_ECLOSED ? "PoolClosed" : "PoolBroken",
                     PyUnicode_FromFormat("%s: %s", doing, yoke_strerror(rc)));
}

/* --- functions -------------------------------------------------------------------------------- */

static PyObject *cpu_count(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLong(yoke_cpu_count());
}

static PyMethodDef methods[] = {
    {"cpu_count", cpu_count, METH_NOARGS,
     PyDoc_STR("cpu_count()\n--\n\nThe CPUs that this process may really use (affinity and cgroup "
               "quota).")},
    {NULL, NULL, 0, NULL},
};

/* --- the module ------------------------------------------------------------------------------- */

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *const type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, type) != 0) {
        Py_DECREF(type);
        return NULL;
    }
    return type;
}

static int module_exec(PyObject *module)
{
    struct ypy_state *const state = ypy_state_of(module);
    state->core_type = add_type(module, &ypy_core_spec);
    state->map_type = add_type(module, &ypy_map_spec);
    state->definition_type = add_type(module, &ypy_definition_spec);
    state->buffer_type = add_type(module, &ypy_buffer_spec);
    state->empty_tuple = PyTuple_New(0);
    state->names_buffers = Py_BuildValue("(s)", "buffers");
    const bool made = state->core_type != NULL && state->map_type != NULL &&
                      state->definition_type != NULL && state->buffer_type != NULL &&
                      state->empty_tuple != NULL && state->names_buffers != NULL;
    if (!made || PyModule_AddFunctions(module, ypy_value_methods) != 0 ||
        PyModule_AddFunctions(module, ypy_definition_methods) != 0 ||
        PyModule_AddFunctions(module, ypy_worker_methods) != 0 ||
        PyModule_AddStringConstant(module, "version", yoke_version()) != 0) {
        return -1;
    }
    return ypy_engine_init();
}

#define FOR_EACH_OBJECT(DO) \
    DO(core_type) \
    DO(future_type) \
    DO(map_type) \
    DO(definition_type) \
    DO(buffer_type) \
    DO(pickle_dumps) \
    DO(pickle_plain) \
    DO(pickle_loads) \
    DO(definitions) \
    DO(last) \
    DO(empty_tuple) \
    DO(names_buffers) \
    DO(loaded) \
    DO(outcomes)

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct ypy_state *const state = ypy_state_of(module);
#define VISIT(name) Py_VISIT(state->name);
    FOR_EACH_OBJECT(VISIT)
#undef VISIT
    return 0;
}

static int module_clear(PyObject *module)
{
    struct ypy_state *const state = ypy_state_of(module);
#define CLEAR(name) Py_CLEAR(state->name);
    FOR_EACH_OBJECT(CLEAR)
#undef CLEAR
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef ypy_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "yoke._yoke",
    .m_doc = PyDoc_STR("The part of yoke that is written in C. Use the module yoke."),
    .m_size = sizeof(struct ypy_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__yoke(void);
PyMODINIT_FUNC PyInit__yoke(void)
{
    return PyModuleDef_Init(&ypy_module);
}
