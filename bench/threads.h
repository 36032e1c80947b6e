/* SPDX-License-Identifier: MIT
 * threads.h - what the figures of the thread engine share: a pool and a peer of the same size.
 *
 * Idea: both sides run in one program, so each pass begins with a rest: until then the threads of
 * the other side have gone to sleep. Before the first pass both sides show that two of their
 * threads meet in a region; a side that ran all in one thread has no figure.
 */
#ifndef BENCH_THREADS_H
#define BENCH_THREADS_H

#include "peers/peer.h"

#include <stddef.h>
#include <stdint.h>
#include <yoke/yoke.h>

/** The pool of the figure that runs, and its peer, or NULL. */
extern yoke_pool *threads_pool;
extern const bench_peer *threads_peer;

/** The table of a peer; NULL: it is not installed. */
const bench_peer *threads_peer_find(const char *name);

/** Make the pool, and start the peer (NULL: none). \return NULL, or what is wrong. */
const char *threads_start(unsigned workers, const char *peer);
void threads_stop(void);

/** Both halves, one of them on another thread if there is one; yoke_run from outside the pool. */
int threads_region(bench_half_fn *fn, void *arg);

/** Wait until the threads of both sides sleep. */
void threads_rest(void);

/* A hand-off in its plainest form: the caller, and a thread that spins. Both are bound to a CPU
 * until threads_raw_stop, so nothing of Yoke is to be started meanwhile. */
const char *threads_raw_start(void);
void threads_raw_region(bench_half_fn *fn, void *arg);
void threads_raw_stop(void);

/** Work that takes about ns, and reads no clock: so many steps (see threads_steps). */
uint64_t threads_work(uint64_t seed, unsigned long steps);

/** How many steps take ns when nobody disturbs. */
unsigned long threads_steps(int64_t ns);

#endif
