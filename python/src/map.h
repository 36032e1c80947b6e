/* SPDX-License-Identifier: MIT
 * map.h - a map, as map.c (results) and map_draw.c (items) both handle it.   Room: python.
 */
#ifndef YPY_MAP_H
#define YPY_MAP_H

#include "engine.h"

struct ypy_map {
    PyObject_HEAD
    struct ypy_core *core;
    PyObject *definition;
    PyObject *iterators; /* tuple; NULL: no more items are wanted */
    bool star, unordered, fixed, exhausted;
    bool late;               /* the first batch is */
    unsigned long taker;     /* the thread that is in it, or 0 */
    unsigned waiting;        /* threads that want to be */
    bool told;               /* one of them may come */
    PyThread_type_lock turn; /* what they wait on */
    int64_t timeout_ns;
    unsigned retries;
    uint32_t chunk;
    int64_t pace_ns;               /* an item's, as last measured; 0: not yet */
    uint64_t result_bytes;         /* an item's */
    struct ypy_call *first, *last; /* in the order of the items */
    size_t outstanding;            /* of these */
    Py_ssize_t done;               /* items given out */
    Py_ssize_t length;             /* of the iterables, as they say; or -1 */
};

/* --- map_draw.c ------------------------------------------------------------------------------- */

/* chunksize 0: by itself; timeout in seconds, 0: none. */
void ypy_map_set_options(struct ypy_map *map, Py_ssize_t chunksize, double timeout,
                         unsigned retries);
/* How many batches may be under way or wait to be read. */
size_t ypy_map_window(const struct ypy_map *map);
/* Draw items and hand them in until the window is full: 0, or -1 with an exception that is not an
 * item's. */
int ypy_map_fill(struct ypy_map *map);
/* From a batch that ended: how long an item takes, how large its result is. */
void ypy_map_learn(struct ypy_map *map, const struct ypy_call *call, const struct ypy_end *end);

/* --- map.c ------------------------------------------------------------------------------------ */

/* Into the list, behind that one; NULL: in front. */
void ypy_map_insert(struct ypy_map *map, struct ypy_call *before, struct ypy_call *call);

#endif
