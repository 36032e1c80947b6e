/* SPDX-License-Identifier: MIT
 * pool.h - a pool runs tasks: in the caller, in threads, or in processes, with the same calls.
 *
 * map, for and reduce cut data into parts for you; submit and wait run one task at a time. How a
 * task ended is data (yoke_outcome), not an error of the call. Zero in a settings struct means
 * default. timeouts in options are relative, deadlines (until_ns) are absolute.
 *
 * An accepted task ends exactly once, whatever dies: OK, FAILED, CRASHED, CANCELLED or TIMEDOUT.
 * By default a task is started at most once; with retries it may run again after its worker
 * died, and then only.
 *
 * After fork() the child may go on using the thread and serial pools it inherited. The first call on
 * one makes it anew, empty and with new workers, as yoke_pool_create did: worker_init runs again, and
 * that call may return what yoke_pool_create returns for memory, threads and YOKE_EINIT (the next one
 * tries again). Until it is ready, a call from its worker_init gets -EDEADLK. The parent's tasks go on
 * in the parent alone; its jobs are not for the child. What was forked inside a task, a callback or a
 * forked function must not return from it in the child: use what you like there, then _exit.
 */
#ifndef YOKE_POOL_H
#define YOKE_POOL_H

#include <yoke/base.h>
#include <yoke/cancel.h>
#include <yoke/process.h>
#include <yoke/task.h>
#include <yoke/worker.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct yoke_pool yoke_pool;
typedef struct yoke_job yoke_job; /**< a submitted task, as its owner sees it */

/** Where tasks run. */
enum {
    YOKE_SERIAL = 1, /**< in the caller, at once: for debugging, and to compare results with */
    YOKE_THREADS,    /**< in threads: cheap, shares all memory; cancelled only if the task asks */
    YOKE_PROCESSES,  /**< in processes: a crash, an exit or a kill costs one item */
    YOKE_AUTO        /**< in threads, as many as its tasks can use: one per CPU while they compute,
                          more while they wait; yoke_pool_why tells. In yoke_pool_config only */
};

/** How a task or an item ended. */
enum {
    YOKE_OK,        /**< its function returned 0 */
    YOKE_FAILED,    /**< its function returned another code: outcome.code */
    YOKE_CRASHED,   /**< its worker died while it ran: outcome.signal, or outcome.code if it
                         called exit(); code -1 and signal 0: died, and the program took the
                         status (wait, or SIGCHLD ignored) */
    YOKE_CANCELLED, /**< cancelled before it began, or it saw the cancel, or was killed for it */
    YOKE_TIMEDOUT   /**< ran longer than options.timeout_ns */
};

/** How a task or an item ended, and after what. */
typedef struct yoke_outcome {
    int kind;          /**< YOKE_OK ... YOKE_TIMEDOUT */
    int code;          /**< the task's own code, or its exit code */
    int signal;        /**< the signal that killed its worker, or 0 */
    unsigned attempts; /**< how often it was started; 0: never */
    size_t item;       /**< map: the item; for and reduce: the first of its range; else 0 */
} yoke_outcome;

/** How to make a pool; zero means default. */
typedef struct yoke_pool_config {
    size_t size;           /**< sizeof(yoke_pool_config) */
    int kind;              /**< 0: YOKE_THREADS */
    int image;             /**< processes: YOKE_SNAPSHOT, or YOKE_SEED after yoke_init. If somebody
                                kills the process that holds the image, a new one is made of the
                                program as it is then */
    unsigned workers;      /**< 0: yoke_cpu_count(); threads: read again when it changes, so that no
                                more run tasks than there are CPUs. At most 1024 */
    unsigned workers_max;  /**< threads: for tasks that wait (I/O): grow up to this many while tasks
                               queue and those that run wait, and shrink again; 0: the same as
                               workers (YOKE_AUTO: 1024). At most 16384; those beyond workers have a
                               stack of 512 KiB, unless there are hooks. Processes: 0 or the same as
                               workers */
    size_t heap_max_bytes; /**< sets yoke_heap_limit, for the whole program; 0: leaves it */

    /** Runs on each worker before its first task; no lock is held. Not 0: the worker ends, and
     *  yoke_pool_create returns YOKE_EINIT. In a process, user must be memory of the image. */
    int (*worker_init)(unsigned worker, void *user);
    void *user;

    const int *keep_fds; /**< processes: descriptors the workers keep besides 0, 1 and 2. Not with
                              YOKE_SEED */
    size_t keep_fd_count;
    const yoke_hooks *hooks; /**< for embedders; copied; NULL: none */

    /** Runs on each worker whose worker_init said 0, after its last task, unless it is killed or
     *  dies; no lock is held. When the pool is destroyed it has a second. */
    void (*worker_exit)(unsigned worker, void *user);
    unsigned tasks_max; /**< processes: a worker ends after that many tasks and parts, and the spare
                             takes its place; 0: never */
    yoke_limits limits; /**< processes: of each worker, with what it has of the image */
    int64_t interrupt_grace_ns; /**< processes: a task that must end (forced cancel, timeout) gets
                                     SIGINT first, and that long to return; 0: no SIGINT. Workers
                                     ignore it unless worker_init sets a handler. If the task
                                     returns in time its worker lives on; it ends as cancelled or
                                     timed out all the same. The handler may run just after it
                                     returned, and must not jump out of a call of Yoke */
    int64_t terminate_grace_ns; /**< then SIGTERM and SIGCONT, and that long; 0: neither. What is
                                     left gets SIGKILL */
    const char *const *argv; /**< YOKE_EXEC: the program and its arguments, ends with NULL; argv[0]
                                  is looked up in PATH unless it holds a '/'. Copied. Not with hooks,
                                  worker_init or worker_exit: those are in yoke_image */
    const char *const *env;  /**< YOKE_EXEC: its environment, copied; NULL: the caller's own.
                                  YOKE_IMAGE is added */
} yoke_pool_config;

/** How to run a task, a map, a for or a reduce; zero means default. */
typedef struct yoke_options {
    size_t size;            /**< sizeof(yoke_options) */
    const void *context;    /**< what yoke_task_context gives */
    size_t context_bytes;   /**< it is copied; 0: the pointer goes as it is (YOKE_EXEC: to memory of
                               the shared heap, or of that program) */
    int64_t timeout_ns;     /**< for each task (map: each item; for, reduce: each range), from its
                               start; 0: none. A process worker must end it then or is killed,
                               a thread task must ask yoke_task_cancelled */
    unsigned retries;       /**< how often a task may be started again after its worker died */
    yoke_outcome *outcomes; /**< map: room for one per item; NULL: not wanted */
    yoke_outcome *failure;  /**< map, for, reduce: gets the outcome of the first item (by number)
                                 that did not end in YOKE_OK, if any; may be NULL */

    /** map, for, reduce: runs in the caller each time a part is done, and when a signal came
     *  (done may be unchanged); no lock is held. Not 0: stop; what has not begun is cancelled and
     *  the call returns -ECANCELED. */
    int (*progress)(void *user, size_t done, size_t total);
    void *user; /**< for progress and merge */

    yoke_cancel *cancel; /**< once it is set, what has not begun never will, and what runs is told;
                              NULL: only what the calling task belongs to. Must live until the call,
                              or the job, has ended */
    unsigned fail_fast;  /**< map, for, reduce: 1: the first item that does not end in YOKE_OK
                              cancels the rest; the call returns YOKE_ETASK. Of those that failed,
                              failure is the first by number; one that was only cancelled is not */
    unsigned
        deterministic; /**< reduce: 1: the same bits for any number of workers and on any kind of
                                 pool: the cut depends on count and accumulator_bytes only */
} yoke_options;

/** Make a pool; when it returns 0 all its workers are ready.
 *
 *  \param config  NULL for all defaults.
 *  \param pool    gets the pool; untouched on failure.
 *  \return 0; -EINVAL (a value out of range, or for processes only; pool NULL); YOKE_EVERSION;
 *          -ENOMEM, -EAGAIN, -EMFILE (memory, processes or threads, descriptors are used up);
 *          YOKE_EINIT; -ESRCH (YOKE_SEED without yoke_init); -EBADF (a descriptor of keep_fds is
 *          not open); YOKE_ENESTED (inside a process worker). Nothing is left behind on failure.
 *          With YOKE_EXEC also: -ENOENT, -EACCES and what else exec says; YOKE_EINIT (the program
 *          ended before it served); -ETIMEDOUT (it did not serve within 120 seconds, and was
 *          killed); -EBUSY, YOKE_EVERSION (see yoke_image_serve); -EEXIST (the shared heap's address
 *          was taken there in 8 runs); -EBADF (the caller has closed the shared heap's descriptor).
 *
 *  Ownership:  the pool is the caller's until yoke_pool_destroy.
 *  Threads:    any.   Blocks: until the workers are ready.
 *  After fork: yes; of the pools made before, those of threads and the serial ones are for the child
 *              too (see the top); one of processes is not (-ECHILD from every call).
 */
YOKE_API YOKE_MUST_CHECK int yoke_pool_create(const yoke_pool_config *config, yoke_pool **pool);

/** End a pool: lets the tasks it has finish until until_ns, then stops them.
 *
 *  After the deadline, tasks that have not begun are cancelled. Processes are killed, and what
 *  they ran is cancelled. Threads are asked to stop (yoke_task_cancelled).
 *
 *  \param until_ns  absolute; 0: stop at once.
 *  \return 0 (all work was done, pool freed); -ETIMEDOUT (work was stopped, pool freed); -EBUSY
 *          (a task in a thread does not stop: the pool is closed but not freed, call again);
 *          -EDEADLK (called from inside one of its tasks); -EINVAL (NULL).
 *
 *  Ownership:  the pool is gone, unless -EBUSY, -EDEADLK or -ECHILD. Jobs stay readable until
 *              released. No other call on the pool, and no wait for one of its jobs, may be running
 *              or come later.
 *  Threads:    any.   Blocks: until until_ns, and for the time it takes to stop (threads: at most
 *              100 ms more).
 *  After fork: as yoke_pool_create; a pool that the child has not used is only freed. The parent's
 *              goes on.
 */
YOKE_API int yoke_pool_destroy(yoke_pool *pool, int64_t until_ns);

/** out[i] = fn(in[i]) for count items.
 *
 *  All items run, also after one failed. Items that died with their worker cost that item; the
 *  rest of its part is run elsewhere. From inside a process worker it runs in place, serially.
 *
 *  \param in        count items of in_bytes each; NULL when in_bytes is 0. Process pools: private
 *                   memory is copied in bounded pieces; shared memory is used where it is.
 *  \param out       count items of out_bytes each; NULL when out_bytes is 0. As in. What failed
 *                   items leave there is not defined; it must not overlap in.
 *  \param count     0 is allowed and does nothing.
 *  \param options   NULL for all defaults.
 *  \return 0: every item ended in YOKE_OK; YOKE_ETASK: at least one did not (see outcomes, failure);
 *          -EINVAL (NULL where memory is needed, sizes that overflow), YOKE_EVERSION, YOKE_EIMAGE,
 *          -ENOMEM, -ECHILD; -ECANCELED: progress said stop, or the calling thread was interrupted;
 *          YOKE_EBROKEN; YOKE_ECLOSED. In the last three, outcomes tells what was done.
 *
 *  Ownership:  everything stays the caller's.
 *  Threads:    any, several at once, also from inside a task.   Blocks: until all is done; a
 *              signal makes it call progress and goes on.
 *  After fork: as yoke_pool_create.
 */
YOKE_API YOKE_MUST_CHECK int yoke_map(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                                      void *out, size_t out_bytes, size_t count,
                                      const yoke_options *options);

/** fn over ranges that together are 0 to count - 1, each item in exactly one.
 *
 *  A range whose worker died is run again as a whole if options.retries allows, else it is the
 *  failure. outcomes is not used.
 *
 *  \return as yoke_map.
 *
 *  Ownership, Threads, Blocks, After fork: as yoke_map.
 */
YOKE_API YOKE_MUST_CHECK int yoke_for(yoke_pool *pool, yoke_range_fn *fn, size_t count,
                                      const yoke_options *options);

/** Fold count items: fn folds each range into an accumulator of its own, merge joins them.
 *
 *  The cut depends on count and the number of workers only, and parts are merged in order: the
 *  same pool gives the same bits each time.
 *
 *  \param accumulator        on entry the identity of merge (0 for a sum), on success the result;
 *                            untouched on failure.
 *  \param accumulator_bytes  1 and up.
 *  \return as yoke_map.
 *
 *  Ownership, Threads, Blocks, After fork: as yoke_map.
 */
YOKE_API YOKE_MUST_CHECK int yoke_reduce(yoke_pool *pool, yoke_range_fn *fn, yoke_merge_fn *merge,
                                         size_t count, void *accumulator, size_t accumulator_bytes,
                                         const yoke_options *options);

/** Hand one task to the pool; waits for room when 1024 tasks are under way (on a thread pool with
 *  more workers_max: that many).
 *
 *  On a serial pool the task runs before this returns. From inside a task of a thread pool nobody
 *  waits for the room of a thread pool: the task runs before this returns, or is left to a worker.
 *
 *  \param in         copied; may be NULL when in_bytes is 0. At most 1 GiB.
 *  \param out_bytes  room for the result, at most 1 GiB; 0 if there is none, or if the task calls
 *                    yoke_task_result.
 *  \param options    NULL for all defaults. outcomes, failure and progress are not used.
 *  \param job        gets the handle.
 *  \return 0; -EINVAL, YOKE_EVERSION, YOKE_EIMAGE, -ENOMEM, YOKE_ECLOSED, YOKE_EBROKEN, -ECHILD;
 *          YOKE_ENESTED (from inside a process worker); -EINTR (a signal) or -ECANCELED (the calling
 *          thread was interrupted) while it waited for room. On failure fn will not run.
 *
 *  Ownership:  in stays the caller's. The job is the caller's until yoke_job_release.
 *  Threads:    any, several at once, also from inside a thread task.   Blocks: while there is no
 *              room.
 *  After fork: as yoke_pool_create.
 */
YOKE_API YOKE_MUST_CHECK int yoke_submit(yoke_pool *pool, yoke_fn *fn, const void *in,
                                         size_t in_bytes, size_t out_bytes,
                                         const yoke_options *options, yoke_job **job);

/** Hand in many tasks at once: fn on in[i], in order, as so many yoke_submit would; each costs less.
 *
 *  \param in     count arguments of in_bytes each, one behind the other; copied.
 *  \param count  0 and up.
 *  \param jobs   room for count handles; all are NULL first.
 *  \return as yoke_submit. When not all could be handed in, the first ones were: their jobs are
 *          set, and run; the others are NULL.
 *
 *  Ownership, Threads, Blocks, After fork: as yoke_submit.
 */
YOKE_API YOKE_MUST_CHECK int yoke_submit_many(yoke_pool *pool, yoke_fn *fn, const void *in,
                                              size_t in_bytes, size_t out_bytes, size_t count,
                                              const yoke_options *options, yoke_job **jobs);

/** Run fn(task, in, NULL) some time, and tell nobody: the cheapest way to hand in a task.
 *
 *  Thread pools keep it in a ring of 1024 entries of 64 bytes (made with the first post; one worker
 *  runs what one thread posts in order). When that is full the caller waits for room; inside a task
 *  of a thread pool it runs the new task itself, or leaves it to a worker. A serial pool runs it
 *  before this returns; a process pool treats it as yoke_submit and yoke_job_release would.
 *
 *  \param in        copied; may be NULL when in_bytes is 0. At most 1 GiB. Up to 48 bytes lie in the
 *                   ring, with a context or a token up to 32; more, and copied contexts, are
 *                   allocated.
 *  \param options   NULL for all defaults; context, context_bytes and cancel count.
 *  \return as yoke_submit; -ECANCELED also when options.cancel is set while it waits for room. How
 *          the task ends is counted (yoke_pool_stats), and not kept.
 *
 *  Ownership:  in stays the caller's.
 *  Threads:    any, several at once, also from inside a thread task.   Blocks: while there is no
 *              room.
 *  After fork: as yoke_submit.
 */
YOKE_API YOKE_MUST_CHECK int yoke_post(yoke_pool *pool, yoke_fn *fn, const void *in,
                                       size_t in_bytes, const yoke_options *options);

/** Wait until the pool has nothing to do: no task is queued or runs, no map and no yoke_run is under
 *  way, also none that came meanwhile.
 *
 *  \param until_ns  absolute; 0: only look.
 *  \return 0, -ETIMEDOUT, -EINTR (a signal), -ECANCELED (the calling thread was interrupted, or its
 *          task cancelled), -EINVAL, -EDEADLK (called from inside one of its tasks), -ECHILD;
 *          YOKE_ENESTED (from inside a process worker).
 *
 *  Threads:    any, several at once.   Blocks: until until_ns.
 *  After fork: as yoke_submit.
 */
YOKE_API YOKE_MUST_CHECK int yoke_pool_drain(yoke_pool *pool, int64_t until_ns);

/** Wait until a job has ended. On a thread pool the caller runs it itself if nobody has begun.
 *
 *  \param until_ns  absolute; 0: do not wait.
 *  \return 0, -ETIMEDOUT, -EINTR (a signal; call again or not), -ECANCELED (the calling thread was
 *          interrupted), -EINVAL.
 *
 *  Threads:    any, several at once.   Blocks: until until_ns (longer while it runs the task).
 *  After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_wait(yoke_job *job, int64_t until_ns);

/** Wait until one of the jobs has ended; *index tells which (the first that has).
 *
 *  \param jobs   count jobs, of any pools; NULL entries are passed over.
 *  \return as yoke_wait; -EINVAL too when there is no job in it.
 *
 *  Threads, Blocks, After fork: as yoke_wait.
 */
YOKE_API YOKE_MUST_CHECK int yoke_wait_any(yoke_job *const *jobs, size_t count, int64_t until_ns,
                                           size_t *index);

/** Wait until all of the jobs have ended. \return as yoke_wait. NULL entries are passed over.
 *
 *  Threads, Blocks, After fork: as yoke_wait.
 */
YOKE_API YOKE_MUST_CHECK int yoke_wait_all(yoke_job *const *jobs, size_t count, int64_t until_ns);

/** Wait until more of the pool's tasks have ended than the caller knows of: for a loop that looks
 *  after many jobs (yoke_job_result tells which have ended, and costs next to nothing).
 *
 *  \param ended     how many tasks and parts had ended when the caller looked last, at first 0; gets
 *                   how many have by now.
 *  \param until_ns  absolute; 0: only look.
 *  \return 0 (*ended has changed), -ETIMEDOUT, -EINTR (a signal), -ECANCELED (the calling thread was
 *          interrupted), -EINVAL (NULL); on a serial pool -ETIMEDOUT at once, if nothing changed.
 *
 *  Threads:    any, several at once.   Blocks: until until_ns. While one waits, each task that ends
 *              wakes it, which costs a worker a system call.
 *  After fork: as yoke_pool_create; the child counts from 0.
 */
YOKE_API YOKE_MUST_CHECK int yoke_pool_await(yoke_pool *pool, uint64_t *ended, int64_t until_ns);

/** How a job ended, and its result.
 *
 *  \param outcome  gets how it ended; may be NULL.
 *  \param out      gets the result: the task's out, or what yoke_task_result made; NULL if it did
 *                  not end in YOKE_OK or YOKE_FAILED, or has none. May be NULL.
 *  \param bytes    gets its size; may be NULL.
 *  \return 0, -EAGAIN (it has not ended), -EINVAL, -ECHILD.
 *
 *  Ownership:  the result is the job's and goes with it.
 *  Threads:    any.   Blocks: no.
 *  After fork: not in the child (-ECHILD).
 */
YOKE_API YOKE_MUST_CHECK int yoke_job_result(yoke_job *job, yoke_outcome *outcome, const void **out,
                                             size_t *bytes);

/** Cancel a job. One that has not begun never will; one that runs is told (yoke_task_cancelled).
 *
 *  \param force  not 0: a process worker that runs it must end it or is killed (interrupt_grace_ns,
 *                terminate_grace_ns); a thread is told.
 *  \return 0 (it has been, or will be, told; wait for it to see how it ended), -EALREADY (it has
 *          ended), -EINVAL, -ECHILD.
 *
 *  Threads:    any.   Blocks: no.
 *  After fork: not in the child (-ECHILD).
 */
YOKE_API int yoke_job_cancel(yoke_job *job, int force);

/** Give the job back, with its result. NULL does nothing. The task itself goes on if it has not
 *  ended; its result is then dropped.
 *
 *  Threads:    any, once.   Blocks: no.
 *  After fork: in the child it does nothing.
 */
YOKE_API void yoke_job_release(yoke_job *job);

/** Give many jobs back, as so many yoke_job_release would, at less cost. NULL entries, and NULL
 *  for no jobs at all, are passed over.
 *
 *  Threads, Blocks, After fork: as yoke_job_release.
 */
YOKE_API void yoke_job_release_all(yoke_job *const *jobs, size_t count);

/** What a pool is and did. */
typedef struct yoke_pool_stats {
    size_t size;        /**< sizeof(yoke_pool_stats), set by the caller */
    int kind;           /**< YOKE_SERIAL ... */
    unsigned workers;   /**< workers that can run tasks now */
    unsigned spares;    /**< processes: warm spare workers */
    unsigned in_flight; /**< tasks and parts handed out and not collected */
    uint64_t tasks;     /**< tasks and parts that ended */
    uint64_t started;   /**< workers started since the pool was made */
    uint64_t died;      /**< workers that died (not those ended by the pool) */
} yoke_pool_stats;

/** Fill in *stats.
 *
 *  \return 0, -EINVAL, YOKE_EVERSION, -ECHILD.
 *
 *  Threads:    any.   Blocks: no.
 *  After fork: as yoke_pool_create; the child counts from 0.
 */
YOKE_API YOKE_MUST_CHECK int yoke_pool_stats_get(yoke_pool *pool, yoke_pool_stats *stats);

/** Say why the pool has the number of workers it has, in one or a few sentences of English, with the
 *  figures it goes by: how much of their time its tasks computed, how much they waited.
 *
 *  \param text   gets at most bytes, always with a 0 at the end; may be NULL when bytes is 0.
 *  \return the length of the whole text, or -EINVAL, -ECHILD.
 *
 *  Threads:    any.   Blocks: no.
 *  After fork: as yoke_submit.
 */
YOKE_API int yoke_pool_why(yoke_pool *pool, char *text, size_t bytes);

/** The process ids of the workers of a process pool, without the spare.
 *
 *  \param pids   gets at most capacity of them; may be NULL when capacity is 0.
 *  \return how many there are (0 on other kinds), -EINVAL or -ECHILD.
 *
 *  Threads:    any.   Blocks: no.
 *  After fork: as yoke_pool_create.
 */
YOKE_API int yoke_pool_worker_ids(yoke_pool *pool, int *pids, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
