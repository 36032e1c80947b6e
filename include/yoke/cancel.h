/* SPDX-License-Identifier: MIT
 * cancel.h - a tree of tokens: setting one cancels all work below it.
 *
 * A call that takes options belongs to options.cancel, or else to the token of the task that made the
 * call. Once a token is set (there is no way back), for all work that belongs to it or to a token
 * below it: what has not begun never will; tasks that run are told (yoke_task_cancelled,
 * yoke_strand_cancelled); blocking calls of Yoke that they are in, or come to, return -ECANCELED, and
 * a task that got that ends as YOKE_CANCELLED. The cancel of a job (yoke_job_cancel), or of a map,
 * reaches what its tasks have started in the same way. Memory and clean-ups of a task
 * (yoke_task_alloc, yoke_task_defer) go as at any end.
 *
 * A cancelled task cannot wait any more, not even for a job that it has submitted: such a job must
 * not use the task's own memory. Maps and regions (yoke_map, yoke_run) wait for their parts first.
 *
 * Process workers: what has not begun is taken back, what runs is told, and not killed. There are no
 * tokens there: options.cancel does not count in a call that is made inside of one, which belongs
 * to the task that makes it.
 */
#ifndef YOKE_CANCEL_H
#define YOKE_CANCEL_H

#include <yoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct yoke_cancel yoke_cancel;

/** Make a token.
 *
 *  \param parent  the token above it; NULL: that of the running task, if there is one.
 *  \param cancel  gets the token; it is set already if the one above is.
 *  \return 0, -EINVAL (cancel NULL), -ENOMEM, YOKE_ENESTED (inside a process worker).
 *
 *  Ownership:  the caller's until yoke_cancel_release; keeps the one above alive.
 *  Threads:    any.   Blocks: no.
 *  After fork: yes; tokens made before are copies of the child's own, with nothing above or below.
 */
YOKE_API YOKE_MUST_CHECK int yoke_cancel_create(yoke_cancel *parent, yoke_cancel **cancel);

/** Set it, and all below it. NULL does nothing; so does any, inside a process worker.
 *
 *  When it returns, what had not begun has ended, on pools of threads and of processes.
 *
 *  Threads:    any.   Blocks: no. It takes locks: not for signal handlers.
 */
YOKE_API void yoke_cancel_set(yoke_cancel *cancel);

/** 1 if it is set, else 0. Costs a load. */
YOKE_API int yoke_cancel_is_set(const yoke_cancel *cancel);

/** Give it back; NULL does nothing. What belongs to it still does, and to those above: nobody can set
 *  it itself any more.
 *
 *  Threads:    any, once.   Blocks: no.
 */
YOKE_API void yoke_cancel_release(yoke_cancel *cancel);

#ifdef __cplusplus
}
#endif

#endif
