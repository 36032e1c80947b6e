/* SPDX-License-Identifier: MIT
 * program.h - a process that runs a program: arguments, streams, limits, its whole tree.
 *
 * No shell is ever involved. A program gets a supervisor, a tiny process that ends everything the
 * program started, and everything that these started, also what forked twice or made a session of
 * its own: when the program ends, when it is killed here, and when this process is gone, however
 * that came. The handle is a yoke_process (process.h): wait, interrupt, kill, id and release work
 * on it; interrupt is for its process group, kill for all of its tree. The calls on several
 * processes work on processes of both kinds.
 */
#ifndef YOKE_PROGRAM_H
#define YOKE_PROGRAM_H

#include <yoke/base.h>
#include <yoke/process.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a standard stream of a program is. */
enum {
    YOKE_STREAM_INHERIT = 0, /**< this process's own; closed if that is closed */
    YOKE_STREAM_NULL = 1,    /**< /dev/null */
    YOKE_STREAM_PIPE = 2,    /**< a pipe; the other end is ours: yoke_process_take_pipe */
    YOKE_STREAM_FD = 3,      /**< a descriptor of this process; it stays the caller's */
    YOKE_STREAM_FILE = 4,    /**< a file: input reads it, output creates it or empties it */
    YOKE_STREAM_APPEND = 5,  /**< output: a file, created if need be, written at its end */
    YOKE_STREAM_STDOUT = 6,  /**< error: where output goes */
    YOKE_STREAM_BYTES = 7,   /**< input: these bytes, copied at the start */
    YOKE_STREAM_CAPTURE = 8  /**< output: kept for yoke_process_output */
};

/** One standard stream; only the fields of its kind are looked at. */
typedef struct yoke_stream {
    int kind;            /**< YOKE_STREAM_... */
    int fd;              /**< FD */
    const char *path;    /**< FILE, APPEND: seen from this process's folder */
    const void *bytes;   /**< BYTES */
    size_t byte_count;   /**< BYTES */
    size_t memory_bytes; /**< CAPTURE: what is beyond goes to a nameless file; 0: 8 MiB */
    size_t total_bytes;  /**< CAPTURE: what is beyond is dropped and counted; 0: no bound */
} yoke_stream;

/** Flags of yoke_program. */
enum {
    YOKE_PROGRAM_LEAVE = 1, /**< what the program leaves running when it ends by itself may go on */
    YOKE_PROGRAM_PLAIN = 2 /**< no supervisor: the fastest start, but only the program's own process
                                 group is killed with it, and nothing ends it when this process is
                                 gone */
};

/** What to run, and how; zero means default. */
typedef struct yoke_program {
    size_t size;                    /**< sizeof(yoke_program) */
    const char *const *argv;        /**< up to a NULL; argv[0] is looked for in PATH (the one of the
                                         environment it gets) unless it holds a slash */
    const char *const *environment; /**< "NAME=value" up to a NULL; NULL: this process's own */
    const char *directory; /**< where it runs, and what argv[0] is relative to; NULL: here */
    yoke_stream input, output, error;
    const int *keep_fds; /**< descriptors it keeps besides 0, 1 and 2, under the same numbers */
    size_t keep_fd_count;
    yoke_limits limits;          /**< of each process of the tree by itself */
    unsigned flags;              /**< YOKE_PROGRAM_... */
    const char *spill_directory; /**< for CAPTURE beyond memory_bytes; NULL: "/tmp" */
} yoke_program;

/** Run a program in a process group of its own, with default signal actions and none blocked.
 *
 *  Nothing is inherited but what is asked for here and the usual attributes (user, umask, limits,
 *  CPUs, control group, session). A program whose stdin is the terminal is in the background there.
 *
 *  \param process  gets the handle.
 *  \return 0 once the program is executing, else -errno and nothing runs: -ENOENT (no such program,
 *          folder or file), -EACCES, -ENOEXEC (no program, and no #! line), -E2BIG, -ENOTDIR, and the
 *          like; -EINVAL (argv empty, a kind of stream that does not fit), YOKE_EVERSION, -EBADF (a
 *          descriptor that is not open), -EAGAIN, -ENOMEM, -EMFILE; -ENOTSUP (this machine forbids
 *          the supervisor: use YOKE_PROGRAM_PLAIN).
 *
 *  Ownership:  all of *program is the caller's and may go at once. The handle is the caller's until
 *              yoke_process_release, which kills what still runs.
 *  Threads:    any.   Blocks: until the program is executing.
 *  After fork: yes; a handle made before is not for the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_program_start(const yoke_program *program,
                                                yoke_process **process);

/** Take our end of a pipe (YOKE_STREAM_PIPE): close-on-exec, blocking.
 *
 *  \param stream  0, 1 or 2.
 *  \param fd      gets the descriptor. Without this call it stays open until release.
 *  \return 0, -EINVAL, -ENOENT (no pipe there, or taken already), or -ECHILD in a forked child.
 *
 *  Ownership:  the descriptor is the caller's from now on.
 *  Threads:    any.   Blocks: no.   After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_take_pipe(yoke_process *process, int stream, int *fd);

/** What a program wrote (YOKE_STREAM_CAPTURE). */
typedef struct yoke_output {
    size_t size;      /**< sizeof(yoke_output), set by the caller */
    const char *data; /**< any bytes; a zero byte follows that does not count */
    size_t bytes;
    uint64_t dropped; /**< bytes beyond total_bytes, or that no memory and no file had room for */
} yoke_output;

/** The output of a program that has ended and was waited for.
 *
 *  \param stream  1 or 2.
 *  \return 0, -EBUSY (not waited for), -ENOENT (not captured), -EINVAL, YOKE_EVERSION, -ENOMEM, or
 *          -ECHILD in a forked child.
 *
 *  Ownership:  data is the handle's.
 *  Threads:    any.   Blocks: no.   After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_output(yoke_process *process, int stream,
                                                 yoke_output *output);

/** What a process used: of a supervised program, all of its tree that has ended; else the process
 *  and those of its children that it waited for. */
typedef struct yoke_usage {
    size_t size; /**< sizeof(yoke_usage), set by the caller */
    int64_t user_ns;
    int64_t system_ns;
    size_t memory_peak_bytes; /**< resident, of the largest one. PLAIN: at least what this process
                                   had at the start */
    uint64_t faults_minor;
    uint64_t faults_major;
    uint64_t switches_voluntary; /**< it waited for something */
    uint64_t switches_forced;    /**< others had their turn */
} yoke_usage;

/** What a process used that has ended and was waited for.
 *
 *  \return 0, -EBUSY (not waited for), -ENODATA (this program reaped it itself), -EINVAL,
 *          YOKE_EVERSION, or -ECHILD in a forked child.
 *
 *  Threads:    any.   Blocks: no.   After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_usage(yoke_process *process, yoke_usage *usage);

/** Whom a signal is for. */
enum {
    YOKE_SIGNAL_ONE = 0,   /**< the process itself */
    YOKE_SIGNAL_GROUP = 1, /**< its process group; of a yoke_process_start process: itself */
    YOKE_SIGNAL_TREE = 2   /**< it and all below it, whatever their group; without a supervisor: as
                                GROUP */
};

/** Send a signal. To a supervised program it is on its way when this returns.
 *
 *  \param signal  1 to 64.
 *  \param whom    YOKE_SIGNAL_...
 *  \return 0, -ESRCH (it has ended), -EINVAL, -EPERM (it became another user's), -EAGAIN (too many
 *          are on their way), or -ECHILD in a forked child.
 *
 *  Threads:    any.   Blocks: no.   After fork: not in the child (-ECHILD).
 */
YOKE_API int yoke_process_signal(yoke_process *process, int signal, int whom);

/** Stop processes, whole trees of them, as gently as they let us: SIGINT; a grace later SIGTERM and
 *  SIGCONT; a grace later SIGKILL. All at once; returns as soon as all have ended.
 *
 *  \param processes  count of them; those NULL or ended are skipped.
 *  \param grace_ns   per step; 0: no grace, SIGKILL at once.
 *  \return 0, -EINVAL, -ECHILD; -EINTR or -ECANCELED (the ladder is not finished: call again, or
 *          kill); -ETIMEDOUT (ten seconds after SIGKILL one was still there: the kernel holds it).
 *
 *  Threads:    any.   Blocks: see above.   After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_stop(yoke_process *const *processes, size_t count,
                                               int64_t grace_ns);

/** Wait until one of several processes has ended.
 *
 *  \param processes  count of them; NULL ones are skipped, so set those to NULL that you are done
 *                    with.
 *  \param until_ns   absolute; 0: do not wait.
 *  \param ended      gets the place of one that has ended, the first of them.
 *  \return 0, -ETIMEDOUT, -EINTR, -ECANCELED, -EINVAL (all are NULL), -ENOMEM, or -ECHILD.
 *
 *  Threads:    any.   Blocks: until until_ns.   After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_wait_any(yoke_process *const *processes, size_t count,
                                                   int64_t until_ns, size_t *ended);

/** Wait until all of several processes have ended; NULL ones are skipped.
 *
 *  \return 0, also for none, or as yoke_process_wait_any.
 *
 *  Threads:    any.   Blocks: until until_ns.   After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_process_wait_all(yoke_process *const *processes, size_t count,
                                                   int64_t until_ns);

#ifdef __cplusplus
}
#endif

#endif
