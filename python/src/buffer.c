/* SPDX-License-Identifier: MIT
 * buffer.c - blocks out of band, as objects with the buffer protocol; who holds them.
 *
 * Idea: a block with the bytes of an array is the program's. The worker counts in it how many of its
 * objects use it; the program frees it when its request is over and that count is 0, or when the
 * worker is dead. A result's bytes are the job's, which is given back with the last object that
 * views them.   Room: python.
 */
#include "ypy.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define LOOK_COUNT \
    16 /* so many more blocks that workers use, or bytes in them, and a look is due */
#define LOOK_BYTES ((size_t)16 << 20)
#define LARGE_BYTES ((Py_ssize_t)1 << 20) /* the GIL is let go for a copy of that */

/* --- making blocks ----------------------------------------------------------------------------- */

struct ypy_block *ypy_block_make(const Py_buffer *view)
{
    struct ypy_block *block;
    /* Over 4096 bytes of alignment cost address space; 64 is what vector code likes. */
    block = yoke_shared_alloc_aligned(sizeof *block + (size_t)view->len, 64);
    if (block == NULL) {
        PyErr_Format(PyExc_MemoryError, "no room in the shared heap for a buffer of %zd bytes",
                     view->len);
        return NULL;
    }
    memset(block, 0, sizeof *block);
    block->bytes = (uint64_t)view->len;
    block->readonly = view->readonly != 0;
    if (view->len < LARGE_BYTES) {
        memcpy(block + 1, view->buf, (size_t)view->len);
    } else {
        Py_BEGIN_ALLOW_THREADS
        memcpy(block + 1, view->buf, (size_t)view->len);
        Py_END_ALLOW_THREADS
    }
    return block;
}

/* --- blocks that a worker still uses ----------------------------------------------------------- */

/* Those of all interpreters of the program, which may run at the same time. */
static struct {
    pthread_mutex_t lock;
    struct ypy_block **blocks; /* under lock, as all below */
    size_t count, room;
    size_t bytes;                  /* in these blocks */
    size_t look_count, look_bytes; /* when there are more, it is time to look through them */
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* A forked child has nothing to do with its parent's blocks. */
static void forget_all(void)
{
    (void)pthread_mutex_init(&kept.lock, NULL);
    kept.count = kept.bytes = 0;
}

static void register_fork(void)
{
    (void)pthread_atfork(NULL, NULL, forget_all);
}

static bool is_let_go(struct ypy_block *block)
{
    /* SYNC(block-attached) acquire: the worker's last reads of the bytes come before. */
    return atomic_load_explicit(&block->attached, memory_order_acquire) == 0;
}

/* pids: who lives; NULL: ask the system. */
static bool is_dead(int pid, const int *pids, size_t count)
{
    for (size_t i = 0; pids != NULL && i < count; i++) {
        if (pids[i] == pid) {
            return false;
        }
    }
    return pids != NULL || pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH);
}

static void sweep_locked(const int *pids, size_t count)
{
    size_t left = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < kept.count; i++) {
        struct ypy_block *const block = kept.blocks[i];
        /* relaxed: who wrote it is dead, or it does not matter. */
        const int pid = atomic_load_explicit(&block->pid, memory_order_relaxed);
        if (is_let_go(block) || is_dead(pid, pids, count)) {
            yoke_shared_free(block);
        } else {
            bytes += yoke_shared_bytes(block);
            kept.blocks[left++] = block;
        }
    }
    kept.count = left;
    kept.bytes = bytes;
    kept.look_count = 2 * left + LOOK_COUNT;
    kept.look_bytes = 2 * bytes + LOOK_BYTES;
}

/* Without memory for the list the block is lost: that is better than one freed early. */
static void keep_locked(struct ypy_block *block)
{
    if (kept.count == kept.room) {
        const size_t room = kept.room == 0 ? 64 : kept.room * 2;
        struct ypy_block **const blocks = realloc(kept.blocks, room * sizeof(struct ypy_block *));
        if (blocks == NULL) {
            return;
        }
        kept.blocks = blocks;
        kept.room = room;
    }
    kept.blocks[kept.count++] = block;
    kept.bytes += yoke_shared_bytes(block);
    if (kept.count > kept.look_count || kept.bytes > kept.look_bytes) {
        sweep_locked(NULL, 0);
    }
}

void ypy_blocks_give(struct ypy_block **blocks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_let_go(blocks[i])) {
            yoke_shared_free(blocks[i]);
            continue;
        }
        (void)pthread_once(&fork_once, register_fork);
        pthread_mutex_lock(&kept.lock);
        keep_locked(blocks[i]);
        pthread_mutex_unlock(&kept.lock);
    }
}

void ypy_blocks_sweep(const int *pids, size_t count)
{
    pthread_mutex_lock(&kept.lock);
    sweep_locked(pids, count);
    pthread_mutex_unlock(&kept.lock);
}

size_t ypy_blocks_kept(void)
{
    pthread_mutex_lock(&kept.lock);
    const size_t count = kept.count;
    pthread_mutex_unlock(&kept.lock);
    return count;
}

/* --- the object -------------------------------------------------------------------------------- */

struct buffer {
    PyObject_HEAD
    char *start;
    Py_ssize_t bytes;
    bool readonly;
    struct ypy_block *block; /* what it holds: one of these two */
    struct ypy_job_hold *hold;
};

static PyObject *buffer_make(struct ypy_state *state, const char *start, uint64_t bytes,
                             bool readonly)
{
    struct buffer *const self = PyObject_New(struct buffer, state->buffer_type);
    if (self != NULL) {
        self->start = (char *)start;
        self->bytes = (Py_ssize_t)bytes;
        self->readonly = readonly;
        self->block = NULL;
        self->hold = NULL;
    }
    return (PyObject *)self;
}

static int buffer_get(PyObject *self, Py_buffer *view, int flags)
{
    struct buffer *const buffer = (struct buffer *)self;
    return PyBuffer_FillInfo(view, self, buffer->start, buffer->bytes, buffer->readonly, flags);
}

static PyObject *out_of_range(void)
{
    PyErr_SetString(PyExc_ValueError, "a buffer lies outside of the memory it should be in");
    return NULL;
}

/* In a worker. */
static void block_attach(struct ypy_block *block)
{
    const int pid = (int)getpid();
    /* relaxed: the worker that had it before is dead, and only this one uses it. */
    if (atomic_load_explicit(&block->pid, memory_order_relaxed) != pid) {
        atomic_store_explicit(&block->pid, pid, memory_order_relaxed); /* relaxed: see above. */
        /* relaxed: what the dead one held counts no more; the request's end publishes it. */
        atomic_store_explicit(&block->attached, 0, memory_order_relaxed);
    }
    /* relaxed: the program looks at it when the request is over, which orders it. */
    atomic_fetch_add_explicit(&block->attached, 1, memory_order_relaxed);
}

static void block_detach(struct ypy_block *block)
{
    /* relaxed: written by this process, or by the one that forked it, which counts for itself. */
    const int pid = atomic_load_explicit(&block->pid, memory_order_relaxed);
    if (pid == (int)getpid()) {
        /* SYNC(block-attached) release: the reads of the bytes come before. */
        atomic_fetch_sub_explicit(&block->attached, 1, memory_order_release);
    }
}

static void buffer_dealloc(PyObject *self)
{
    struct buffer *const buffer = (struct buffer *)self;
    PyTypeObject *const type = Py_TYPE(self);
    if (buffer->block != NULL) {
        block_detach(buffer->block);
    }
    if (buffer->hold != NULL) {
        ypy_job_hold_drop(buffer->hold);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

PyObject *ypy_buffer_of_block(struct ypy_in *in, uint64_t at, uint64_t bytes, bool readonly)
{
    struct ypy_block *const block = (struct ypy_block *)(uintptr_t)at; /* NOLINT: an address */
    if (at % 16 != 0 || bytes > (uint64_t)PY_SSIZE_T_MAX - sizeof *block ||
        !yoke_shared_contains(block, sizeof *block + bytes) || block->bytes < bytes) {
        return out_of_range();
    }
    PyObject *const self = buffer_make(in->state, (char *)(block + 1), bytes, readonly);
    if (self != NULL) {
        block_attach(block);
        ((struct buffer *)self)->block = block;
    }
    return self;
}

/* --- results ----------------------------------------------------------------------------------- */

struct ypy_job_hold *ypy_job_hold_make(yoke_job *job, const void *start, size_t bytes)
{
    struct ypy_job_hold *const hold = PyMem_Malloc(sizeof *hold);
    if (hold == NULL) {
        return (struct ypy_job_hold *)PyErr_NoMemory();
    }
    *hold = (struct ypy_job_hold){.job = job, .users = 1, .start = start, .bytes = bytes};
    return hold;
}

void ypy_job_hold_drop(struct ypy_job_hold *hold)
{
    if (hold != NULL && --hold->users == 0) {
        yoke_job_release(hold->job);
        free(hold->memory);
        PyMem_Free(hold);
    }
}

PyObject *ypy_buffer_of_job(struct ypy_in *in, uint64_t at, uint64_t bytes, bool readonly)
{
    struct ypy_job_hold *const hold = in->user;
    if (hold == NULL || at > hold->bytes || bytes > hold->bytes - at) {
        return out_of_range();
    }
    PyObject *const self = buffer_make(in->state, hold->start + at, bytes, readonly);
    if (self != NULL) {
        hold->users++;
        ((struct buffer *)self)->hold = hold;
    }
    return self;
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, "Memory of the shared heap, for as long as something views it."},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_bf_getbuffer, buffer_get},
    {0, NULL},
};

PyType_Spec ypy_buffer_spec = {
    .name = "yoke._yoke.Buffer",
    .basicsize = sizeof(struct buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};
