/* SPDX-License-Identifier: MIT
 * task.h - the running task, as its own function sees it.
 *
 * A yoke_task lives as long as the call of its function, on the worker that runs it. Every
 * function here is called from inside that call, on that thread.
 *
 * In a process worker, globals and private pointers are those of the image: what the program
 * changed later is not there. A task should touch its in, its out, its context and shared
 * memory (yoke_shared_alloc), and nothing else; then it runs the same on every kind of pool.
 */
#ifndef YOKE_TASK_H
#define YOKE_TASK_H

#include <yoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct yoke_task yoke_task;

/** A task. Runs on a worker (in the caller on a serial pool, and where a caller helps); no lock
 *  is held.
 *
 *  \param task  this call; valid until it returns.
 *  \param in    the argument; of in_bytes bytes, aligned to 8 (submit), or item i of the input
 *               array (map).
 *  \param out   room for the result, of out_bytes bytes; for submit zeroed.
 *  \return 0, or the task's own code > 0, which becomes outcome.code (a code below 0 counts as
 *          its absolute value).
 */
typedef int yoke_fn(yoke_task *task, const void *in, void *out);

/** A range of a for or a reduce: the items begin to end - 1. Runs as a yoke_fn does.
 *
 *  \param accumulator  NULL in a for; in a reduce this part's own, a copy of the identity.
 *  \return as yoke_fn.
 */
typedef int yoke_range_fn(yoke_task *task, size_t begin, size_t end, void *accumulator);

/** Fold other into accumulator. Runs in the thread that called yoke_reduce, in order of the
 *  parts, from the left; no lock is held. */
typedef void yoke_merge_fn(void *accumulator, const void *other, void *user);

/** The context given in the options; NULL if there was none. Do not write to it. */
YOKE_API const void *yoke_task_context(const yoke_task *task);

/** 1 once somebody cancelled this task (its job, its map, a token it belongs to) or its timeout
 *  passed, else 0.
 *
 *  Long loops ask it and return early; a task that was told so ends as YOKE_CANCELLED or
 *  YOKE_TIMEDOUT, whatever it returns. Costs a load, and a clock read if there is a timeout.
 */
YOKE_API int yoke_task_cancelled(yoke_task *task);

/** Around a stretch in which the task waits for something else than its pool: input, a lock, a
 *  sleep. Meanwhile the pool runs other tasks in its place, on one thread more if it must
 *  (workers_max); end gives the place back, and never waits. They nest. Nothing happens outside
 *  of thread pools. */
YOKE_API void yoke_blocking_begin(yoke_task *task);
YOKE_API void yoke_blocking_end(yoke_task *task);

/** Have fn(arg) run when this call ends, however it ends; the last deferred runs first. For what a
 *  task must undo: close, unlock, free.
 *
 *  They run on the worker, after the function and before anybody hears of the end, for each item of
 *  a map; no lock is held. The task's memory is still there, and they may defer more. What they wait
 *  for ends with -ECANCELED if the task was cancelled. In a process that is killed, or that calls
 *  exit(), nothing runs; what the kernel gives back is given back.
 *
 *  \return 0, or -ENOMEM (fn was not and will not be called), -EINVAL. */
YOKE_API YOKE_MUST_CHECK int yoke_task_defer(yoke_task *task, void (*fn)(void *arg), void *arg);

/** The item of a map or a stream this call is for; 0 in other tasks. */
YOKE_API size_t yoke_task_item(const yoke_task *task);

/** How often this task was started before, because its worker died: 0, or up to options.retries.
 */
YOKE_API unsigned yoke_task_attempt(const yoke_task *task);

/** The number of the worker this runs on, from 0; the caller's own thread gives the number after
 *  the last worker's. No two tasks that run at the same time share one, except where several
 *  threads of the program help their own calls. */
YOKE_API unsigned yoke_task_worker(const yoke_task *task);

/** Memory that goes when the task ends, however it ends. Private to the worker.
 *
 *  \return bytes aligned to 16, or NULL when memory is short or bytes is 0.
 */
YOKE_API void *yoke_task_alloc(yoke_task *task, size_t bytes);

/** Make a result of any size for a submitted task, or an item of a stream; it becomes the job's.
 *
 *  It takes the place of out: yoke_job_result, or done of the stream, gives this block. A second
 *  call replaces the first block. A map, for or reduce has no place for it: NULL.
 *
 *  \return a block of that many bytes, zeroed, aligned to 16, or NULL when memory is short or
 *          bytes is 0.
 */
YOKE_API void *yoke_task_result(yoke_task *task, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
