/* SPDX-License-Identifier: MIT
 * threads.c - how many threads libraries of linear algebra and OpenMP use, where they are loaded.
 *
 * Each worker would start as many threads as there are CPUs. Libraries that are not loaded yet look at
 * the environment; the others are told by the functions they have for it, under any of the names that
 * builds of them give those.   Room: python.
 */
#include "worker.h"

#include <dlfcn.h>
#include <link.h>

static const char *const set_functions[] = {
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads_64",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
    "MKL_Set_Num_Threads",
    "omp_set_num_threads",
};

static const char *const libraries[] = {"blas", "mkl_rt", "libgomp", "libiomp", "libomp"};

static void tell(void *library, int threads)
{
    for (size_t i = 0; i < sizeof set_functions / sizeof set_functions[0]; i++) {
        void (*set)(int) = NULL;
        *(void **)&set = dlsym(library, set_functions[i]);
        if (set != NULL) {
            set(threads);
            return;
        }
    }
}

struct found {
    char names[16][512];
    size_t count;
};

static int look_at(struct dl_phdr_info *module, size_t size, void *arg)
{
    struct found *const found = arg;
    (void)size;
    const char *const name = module->dlpi_name != NULL ? module->dlpi_name : "";
    const char *const slash = strrchr(name, '/');
    const char *const base = slash != NULL ? slash + 1 : name;
    for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
        if (strstr(base, libraries[i]) != NULL && strlen(name) < sizeof found->names[0] &&
            found->count < sizeof found->names / sizeof found->names[0]) {
            memcpy(found->names[found->count++], name, strlen(name) + 1);
            break;
        }
    }
    return 0;
}

PyObject *ypy_limit_threads(PyObject *module, PyObject *number)
{
    (void)module;
    const long threads = PyLong_AsLong(number);
    if (threads == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (threads < 1 || threads > 65536) {
        PyErr_SetString(PyExc_ValueError, "a number of threads must be 1 to 65536");
        return NULL;
    }
    struct found found = {.count = 0};
    (void)dl_iterate_phdr(look_at, &found); /* under a lock of the loader's: remember only */
    for (size_t i = 0; i < found.count; i++) {
        void *const library = dlopen(found.names[i], RTLD_LAZY | RTLD_NOLOAD);
        if (library != NULL) {
            tell(library, (int)threads);
            (void)dlclose(library);
        }
    }
    Py_RETURN_NONE;
}
