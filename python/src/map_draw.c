/* SPDX-License-Identifier: MIT
 * map_draw.c - a map draws items and makes batches of them.
 *
 * How many go into a batch is learnt from what the workers took for those before: about two
 * milliseconds' worth. A batch is not waited for: what was drawn so far goes when drawing takes
 * long.   Room: python.
 */
#include "map.h"

#define BATCH_NS 2000000LL   /* so much work is a batch */
#define BUDGET_NS 10000000LL /* a worker gives the rest back after that long */
#define AHEAD_NS 4000000LL   /* so much work lies ready for each worker */
#define DRAW_NS 100000LL     /* a batch is handed in after drawing items for that long */
#define BATCH_ITEMS_MAX 65536
#define BATCH_BYTES_MAX ((size_t)256 << 10)
#define GROWTH 8
#define AHEAD_MAX 64
#define FIRST_RESULT_BYTES 64
#define ROOM_MAX ((uint64_t)8 << 20)
#define PACE_MAX_NS 3600000000000LL /* a worker may write anything */

void ypy_map_set_options(struct ypy_map *map, Py_ssize_t chunksize, double timeout,
                         unsigned retries)
{
    map->fixed = chunksize > 0 || timeout > 0;
    map->chunk = chunksize > 0 && timeout <= 0
                     ? (uint32_t)(chunksize < BATCH_ITEMS_MAX ? chunksize : BATCH_ITEMS_MAX)
                     : 1;
    map->timeout_ns = timeout > 0 ? (int64_t)(timeout * 1e9) + 1 : 0;
    map->retries = retries;
    map->result_bytes = FIRST_RESULT_BYTES;
}

/* --- drawing items ---------------------------------------------------------------------------- */

/* The arguments of the next call, a tuple; NULL: no more, or an exception. */
static PyObject *draw(struct ypy_map *map)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(map->iterators);
    if (map->star) {
        PyObject *const item = PyIter_Next(PyTuple_GET_ITEM(map->iterators, 0));
        PyObject *const args = item != NULL ? PySequence_Tuple(item) : NULL;
        Py_XDECREF(item);
        return args;
    }
    PyObject *const args = PyTuple_New(count);
    for (Py_ssize_t i = 0; args != NULL && i < count; i++) {
        PyObject *const item = PyIter_Next(PyTuple_GET_ITEM(map->iterators, i));
        if (item == NULL) {
            Py_DECREF(args);
            return NULL;
        }
        PyTuple_SET_ITEM(args, i, item);
    }
    return args;
}

/* One call into out: 1, 0: there are no more, -1: an exception. */
static int put_next(struct ypy_map *map, struct ypy_out *out)
{
    struct ypy_state *const state = map->core->state;
    const bool single = !map->star && PyTuple_GET_SIZE(map->iterators) == 1;
    PyObject *const drawn = single ? PyIter_Next(PyTuple_GET_ITEM(map->iterators, 0)) : draw(map);
    if (drawn == NULL) {
        map->exhausted = true;
        return PyErr_Occurred() ? -1 : 0;
    }
    const int rc = single ? ypy_put_call(state, out, &drawn, 1, NULL)
                          : ypy_put_call(state, out, &PyTuple_GET_ITEM(drawn, 0),
                                         PyTuple_GET_SIZE(drawn), NULL);
    Py_DECREF(drawn);
    return rc == 0 ? 1 : -1;
}

/* Time is over, or it is large enough. */
static bool is_enough(uint32_t count, const struct ypy_out *out, int64_t begin_ns)
{
    return out->used + out->block_count * BATCH_BYTES_MAX >= BATCH_BYTES_MAX ||
           ((count == 1 || count % 8 == 0) && yoke_now_ns() - begin_ns >= DRAW_NS);
}

/* Fill out; returns how many calls there are. -1 in *rc: an exception ended it. */
static uint32_t draw_batch(struct ypy_map *map, struct ypy_out *out, uint32_t *starts, int *rc)
{
    const int64_t begin_ns = map->chunk > 1 ? yoke_now_ns() : 0;
    const uint32_t want = map->chunk;
    uint32_t count = 0;
    *rc = 1;
    while (count < want) {
        starts[count] = (uint32_t)out->used;
        *rc = put_next(map, out);
        if (*rc <= 0) {
            break;
        }
        count++;
        if (count < want && !map->fixed && is_enough(count, out, begin_ns)) {
            break;
        }
    }
    starts[count] = (uint32_t)out->used;
    return count;
}

static uint64_t room_for(const struct ypy_map *map, uint32_t count)
{
    const uint64_t room = (map->result_bytes + map->result_bytes / 2 + 16) * count;
    return room < ROOM_MAX ? room : ROOM_MAX;
}

/* An exception in place of an item; takes the one that is being raised. */
static struct ypy_call *make_error(struct ypy_map *map)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    struct ypy_out out = {.sends = true};
    struct ypy_call *const call = ypy_call_make(map->core, &out, map->definition, 0, 0);
    if (call == NULL) {
        Py_XDECREF(value);
        return NULL;
    }
    call->error = value;
    call->resolved = true;
    return call;
}

static struct ypy_call *make_batch(struct ypy_map *map, int *rc)
{
    uint32_t *const starts = PyMem_Malloc(((size_t)map->chunk + 1) * sizeof *starts);
    if (starts == NULL) {
        *rc = -1;
        return (struct ypy_call *)PyErr_NoMemory();
    }
    struct ypy_out out = ypy_out_borrow(map->core);
    const uint32_t count = draw_batch(map, &out, starts, rc);
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    struct ypy_call *call =
        count != 0 ? ypy_call_make(map->core, &out, map->definition, count, room_for(map, count))
                   : NULL;
    ypy_out_return(map->core, &out);
    if (call == NULL) {
        PyMem_Free(starts);
    } else {
        call->starts = starts;
        call->timeout_ns = map->timeout_ns;
        call->retries = map->retries;
        call->request->budget_ns = map->fixed ? 0 : BUDGET_NS;
    }
    if (type != NULL) {
        PyErr_Restore(type, value, traceback);
    }
    return call;
}

size_t ypy_map_window(const struct ypy_map *map)
{
    int64_t batches = 2;
    if (map->pace_ns != 0) {
        const int64_t took = map->pace_ns * map->chunk;
        batches = took > 0 ? AHEAD_NS / took : AHEAD_MAX;
        batches = batches < 2 ? 2 : batches;
        batches = batches > AHEAD_MAX ? AHEAD_MAX : batches;
    }
    return (size_t)batches * map->core->workers;
}

/* An exception that is being raised stays so. */
static void submit_all(struct ypy_map *map, struct ypy_call **calls, size_t count)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    for (size_t i = 0; i < count; i++) {
        calls[i]->owner = (PyObject *)map; /* borrowed, see map_dealloc */
        calls[i]->maps = true;
        ypy_map_insert(map, map->last, calls[i]);
    }
    if (count != 0) {
        ypy_calls_submit(map->core, calls, count);
    }
    PyErr_Restore(type, value, traceback);
}

/* Draw and hand in until the window is full: 0, or -1 with an exception that is not an item's. */
int ypy_map_fill(struct ypy_map *map)
{
    struct ypy_call *calls[AHEAD_MAX];
    const size_t window = ypy_map_window(map);
    size_t count = 0;
    int rc = 1;
    while (rc == 1 && !map->exhausted && map->outstanding + count < window && count < AHEAD_MAX) {
        struct ypy_call *const call = make_batch(map, &rc);
        if (call != NULL) {
            calls[count++] = call;
        } else if (PyErr_Occurred()) {
            rc = -1;
        }
    }
    submit_all(map, calls, count);
    if (rc != -1) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        return -1;
    }
    struct ypy_call *const error = make_error(map);
    if (error == NULL) {
        return -1;
    }
    ypy_map_insert(map, map->last, error);
    return 0;
}

/* --- learning --------------------------------------------------------------------------------- */

void ypy_map_learn(struct ypy_map *map, const struct ypy_call *call, const struct ypy_end *end)
{
    const uint32_t done = end->done + (end->block != NULL);
    const int64_t took = *(volatile int64_t *)&call->request->took_ns;
    if (end->kind != YOKE_OK || done == 0 || took < 0) {
        return;
    }
    const int64_t pace = took / done;
    map->pace_ns = pace < 1 ? 1 : pace > PACE_MAX_NS ? PACE_MAX_NS : pace;
    const uint64_t bytes =
        end->block != NULL ? end->block_bytes : (uint64_t)(end->end - end->at) / done;
    map->result_bytes = bytes > map->result_bytes ? bytes : (3 * map->result_bytes + bytes) / 4;
    map->result_bytes = map->result_bytes < 16 ? 16 : map->result_bytes;
    if (map->fixed) {
        return;
    }
    int64_t want = BATCH_NS / map->pace_ns;
    want = want > (int64_t)call->calls * GROWTH ? (int64_t)call->calls * GROWTH : want;
    want = want > BATCH_ITEMS_MAX ? BATCH_ITEMS_MAX : want;
    map->chunk = want < 1 ? 1 : (uint32_t)want;
}
