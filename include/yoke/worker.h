/* SPDX-License-Identifier: MIT
 * worker.h - hooks for those who embed Yoke in a runtime of their own (an interpreter, say).
 *
 * A plain C program needs none of this. The order, for a process pool: before_fork and
 * after_fork_parent around the fork of the image, in the program; then in each worker
 * worker_start, worker_init (pool.h), the main loop, worker_exit.
 */
#ifndef YOKE_WORKER_H
#define YOKE_WORKER_H

#include <yoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct yoke_worker yoke_worker; /**< this worker, in its own process or thread */

/** Hooks of a pool; each may be NULL. user is yoke_pool_config.user. */
typedef struct yoke_hooks {
    size_t size; /**< sizeof(yoke_hooks) */

    /** Process pools. Runs in the program on a thread of Yoke's, just before the image is made
     *  by fork(); no lock is held. With this hook the image is always made by fork(). */
    void (*before_fork)(void *user);

    /** Process pools. Runs in the program on the same thread, just after, also when the fork
     *  failed. There is no such call in the image: it runs no code of yours. */
    void (*after_fork_parent)(void *user);

    /** Runs on each worker first; no lock is held. */
    void (*worker_start)(unsigned worker, void *user);

    /** Runs on each worker last, unless it is killed or dies; no lock is held. */
    void (*worker_exit)(unsigned worker, void *user);

    /** The main loop of each worker, instead of Yoke's own, which is:
     *  `while (yoke_worker_next(worker, YOKE_FOREVER) != YOKE_ECLOSED) {}`. The worker ends when it
     *  returns.
     */
    void (*worker_main)(yoke_worker *worker, void *user);
} yoke_hooks;

/** Run the next task of the pool on this worker; waits for one until until_ns.
 *
 *  \return 0 (ran one), -ETIMEDOUT, -EINTR (a signal), or YOKE_ECLOSED: return from worker_main.
 *
 *  Threads:    the worker's own, inside worker_main.   Blocks: until until_ns.
 */
YOKE_API YOKE_MUST_CHECK int yoke_worker_next(yoke_worker *worker, int64_t until_ns);

/** What the workers of a YOKE_EXEC pool run; zero means none. */
typedef struct yoke_image {
    size_t size; /**< sizeof(yoke_image) */
    int (*worker_init)(unsigned worker, void *user);
    void *user;              /**< for worker_init and the hooks: memory of this program */
    const yoke_hooks *hooks; /**< worker_start, worker_exit, worker_main; NULL: none, and Yoke's own
                                  loop. Copied */
} yoke_image;

/** In a program that a pool started (image = YOKE_EXEC): become the image of its workers.
 *
 *  The program runs once per pool: it loads what its workers need, then calls this, which does not
 *  return. Workers are copies of the program as it is then, and children of the one that has the
 *  pool. The shared heap has the same address in all of them; a task's function is found by the
 *  library or program file that holds it and its place there, so both must have loaded the same
 *  file (else YOKE_EIMAGE). A pool of C functions needs no hooks.
 *
 *  It has 120 seconds to get here, must be the process that the pool started (not a child of a
 *  shell), and must not have used shared memory of its own. Until here SIGINT is ignored; here
 *  signal handlers go, and what it printed is flushed. Descriptors that it opened stay open in the
 *  workers.
 *
 *  \param ticket  the value of the environment variable YOKE_IMAGE, as the pool set it.
 *  \param image   NULL for all defaults.
 *  \return only on failure: -EINVAL (no ticket of a pool), YOKE_EVERSION (another version of Yoke),
 *          -EEXIST (the heap's address is taken here; the pool will start the program once more),
 *          -EBUSY (this program has other threads, or a shared heap of its own), -ENOMEM, -ECHILD
 *          (the pool has gone, or did not start this process itself), YOKE_ENESTED (in a worker).
 *          Exit then; one second later the pool kills it.
 *
 *  Threads:    the only one.   Blocks: for as long as the image lives.
 *  After fork: no.
 */
YOKE_API int yoke_image_serve(const char *ticket, const yoke_image *image);

#ifdef __cplusplus
}
#endif

#endif
