/* SPDX-License-Identifier: MIT
 * thread.h - a single thread: started, named, pinned, waited for with a deadline, interrupted.
 *
 * A thread is never killed: that would leak what it holds and leave its locks locked.
 * yoke_thread_interrupt asks it to stop; it sees that in yoke_thread_interrupted, and every
 * blocking Yoke call it is in, or comes to, returns -ECANCELED (yoke_pool_destroy and the releases
 * do what they promise first).
 */
#ifndef YOKE_THREAD_H
#define YOKE_THREAD_H

#include <yoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct yoke_thread yoke_thread;

/** What a single thread runs; its return value is kept for yoke_thread_wait. Runs on the new
 *  thread; no lock is held. All signals are blocked in it, so the program's handlers stay where
 *  they were. */
typedef int yoke_thread_fn(void *arg);

/** How to start a thread; zero means default. */
typedef struct yoke_thread_config {
    size_t size;        /**< sizeof(yoke_thread_config) */
    const char *name;   /**< as ps shows it, 15 bytes at most count; NULL: the program's */
    size_t stack_bytes; /**< 0: the system's default */
    const int *cpus;    /**< the CPUs it may run on; NULL: all of the process */
    size_t cpu_count;   /**< how many numbers cpus holds */
} yoke_thread_config;

/** Start a thread.
 *
 *  \param config  NULL for all defaults.
 *  \param thread  gets the handle.
 *  \return 0, -EINVAL, YOKE_EVERSION, -EAGAIN (no thread to be had) or -ENOMEM.
 *
 *  Ownership:  arg stays the caller's; the handle is the caller's until yoke_thread_release.
 *  Threads:    any.   Blocks: no.
 *  After fork: yes; a handle made before is not for the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_thread_start(const yoke_thread_config *config, yoke_thread_fn *fn,
                                               void *arg, yoke_thread **thread);

/** Wait until the thread has ended.
 *
 *  \param until_ns  absolute; 0: do not wait.
 *  \param code      gets what its function returned; may be NULL.
 *  \return 0, -ETIMEDOUT, -EINTR (a signal), -ECANCELED (the caller was interrupted), -EINVAL, or
 *          -EDEADLK (a thread waits for itself). May be called again after 0.
 *
 *  Threads:    any, several at once too.   Blocks: until until_ns.
 *  After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_thread_wait(yoke_thread *thread, int64_t until_ns, int *code);

/** Ask the thread to stop. Sticky: there is no way back.
 *
 *  \return 0, or -EINVAL.
 *
 *  Threads:    any.   Blocks: no.
 *  After fork: not in the child (-ECHILD).
 */
YOKE_API int yoke_thread_interrupt(yoke_thread *thread);

/** Give the handle back; the thread runs on if it has not ended. NULL does nothing.
 *
 *  Threads:    any, once.   Blocks: no.
 *  After fork: in the child it frees the child's copy.
 */
YOKE_API void yoke_thread_release(yoke_thread *thread);

/** 1 if somebody interrupted the calling thread, else 0; 0 too in threads Yoke did not start.
 *
 *  Threads:    any.   Blocks: no.
 */
YOKE_API int yoke_thread_interrupted(void);

/** Sleep until then, or until something happens to this thread.
 *
 *  \return 0, -EINTR (a signal), or -ECANCELED (interrupted, or already was).
 *
 *  Threads:    any.   Blocks: until until_ns.
 *  After fork: yes.
 */
YOKE_API int yoke_sleep_until(int64_t until_ns);

#ifdef __cplusplus
}
#endif

#endif
