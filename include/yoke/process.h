/* SPDX-License-Identifier: MIT
 * process.h - a single process: a C function in a copy of the program.
 *
 * It can be interrupted and killed at any instruction, and it goes when the program goes, also
 * after kill -9. Results travel through the shared heap (yoke_shared_alloc).
 */
#ifndef YOKE_PROCESS_H
#define YOKE_PROCESS_H

#include <yoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Which memory a process starts with. */
enum {
    YOKE_SNAPSHOT = 0, /**< the program's, as it is at the start of the process or pool */
    YOKE_SEED = 1,     /**< the program's, as it was in yoke_init */
    YOKE_EXEC = 2      /**< pools only: another program's, started with arguments; see
                            yoke_image_serve */
};

/** Limits of one process; zero means none. What goes beyond them is the process's trouble alone. */
typedef struct yoke_limits {
    size_t memory_bytes; /**< private memory; beyond it malloc and mmap fail. Workers of pools
                              where a cgroup v2 can be written: all memory; the kernel kills */
    int64_t cpu_ns;      /**< CPU time, from its start, rounded up to seconds; then SIGXCPU */
    size_t file_bytes;   /**< of any file it writes; beyond it SIGXFSZ */
    unsigned files;      /**< open descriptors */
} yoke_limits;

typedef struct yoke_process yoke_process;

/** What a single process runs. Runs in the new process, on its only thread; no lock is held.
 *
 *  Signals are as at the start of a program (all unblocked, default actions; ignored ones stay
 *  ignored). The descriptors are 0, 1, 2 and keep_fds. exit() in it ends it at once, without the
 *  program's own atexit handlers.
 *  \return its exit code, 0 to 255.
 */
typedef int yoke_process_fn(void *arg);

/** How to start a process; zero means default. */
typedef struct yoke_process_config {
    size_t size;         /**< sizeof(yoke_process_config) */
    int image;           /**< YOKE_SNAPSHOT or YOKE_SEED */
    const char *name;    /**< as ps shows it, 15 bytes at most count; NULL: "yoke-process" */
    const int *keep_fds; /**< descriptors it keeps besides 0, 1 and 2; not with YOKE_SEED */
    size_t keep_fd_count;
} yoke_process_config;

/** How a process ended. */
typedef struct yoke_process_end {
    int code;   /**< its exit code, or -1: a signal ended it, or nobody knows */
    int signal; /**< the signal that ended it, or 0. code -1 and signal 0: the program reaped it
                     itself (wait, or SIGCHLD ignored) and its status is lost */
} yoke_process_end;

/** Run fn(arg) in a new process.
 *
 *  \param config   NULL for all defaults.
 *  \param arg      as it is: memory of the image or of the shared heap.
 *  \param process  gets the handle.
 *  \return 0, -EINVAL, YOKE_EVERSION, -EAGAIN, -ENOMEM, -EMFILE, YOKE_EIMAGE (the seed does not hold
 *          fn), YOKE_ENESTED (in a worker), -EBADF (a descriptor of keep_fds is not open), or -ESRCH
 *          (YOKE_SEED without yoke_init, or somebody killed the process that holds the seed).
 *
 *  Ownership:  the handle is the caller's until yoke_process_release.
 *  Threads:    any.   Blocks: for the time of one fork.
 *  After fork: yes; a handle made before is not for the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_start(const yoke_process_config *config,
                                                yoke_process_fn *fn, void *arg,
                                                yoke_process **process);

/** Wait until the process has ended.
 *
 *  \param until_ns  absolute; 0: do not wait.
 *  \param end       gets how it ended; may be NULL.
 *  \return 0, -ETIMEDOUT, -EINTR (a signal), -ECANCELED (the caller was interrupted) or -EINVAL.
 *          May be called again after 0.
 *
 *  Threads:    any, several at once too.   Blocks: until until_ns.
 *  After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_wait(yoke_process *process, int64_t until_ns,
                                               yoke_process_end *end);

/** Send SIGINT. \return 0, -ESRCH (it has ended), -EINVAL, -ECHILD in a forked child, or -EAGAIN: a
 *  program's supervisor has hundreds of signals to pass on; try again.
 *
 *  Threads:    any.   Blocks: no.   After fork: not in the child (-ECHILD).
 */
YOKE_API int yoke_process_interrupt(yoke_process *process);

/** Send SIGKILL. \return as yoke_process_interrupt.
 *
 *  Threads:    any.   Blocks: no.   After fork: not in the child (-ECHILD).
 */
YOKE_API int yoke_process_kill(yoke_process *process);

/** Its process id; -1 for NULL. The id may be another process's once it was waited for.
 *
 *  Threads:    any.   Blocks: no.
 */
YOKE_API int yoke_process_id(const yoke_process *process);

/** Give the handle back. A process that still runs is killed and reaped. NULL does nothing.
 *
 *  Threads:    any, once.   Blocks: until the process is gone, if it had to be killed.
 *  After fork: in the child it frees the child's copy and kills nothing.
 */
YOKE_API void yoke_process_release(yoke_process *process);

#ifdef __cplusplus
}
#endif

#endif
