/* SPDX-License-Identifier: MIT
 * cancel.h - a tree of tokens: setting one cancels all work below it.
 *
 * A call that takes options belongs to options.cancel, or else to the token of the task that made the
 * call. Once a token is set (there is no way back), for all work that belongs to it or to a token
 * below it: what has not begun never will; tasks that run are told (yoke_task_cancelled,
 * yoke_strand_cancelled); blocking calls of Yoke that they are in, or come to, return -ECANCELED.
 * Memory and clean-ups of a task (yoke_task_alloc, yoke_task_defer) go as at any end.
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
 *  After fork: yes; tokens made before are copies of the child's own.
 */
YOKE_API YOKE_MUST_CHECK int yoke_cancel_create(yoke_cancel *parent, yoke_cancel **cancel);

/** Set it, and all below it. NULL does nothing.
 *
 *  Threads:    any.   Blocks: no. It takes a lock: not for signal handlers.
 */
YOKE_API void yoke_cancel_set(yoke_cancel *cancel);

/** 1 if it is set, else 0. Costs a load. */
YOKE_API int yoke_cancel_is_set(const yoke_cancel *cancel);

/** Give it back; NULL does nothing.
 *
 *  Threads:    any, once.   Blocks: no.
 */
YOKE_API void yoke_cancel_release(yoke_cancel *cancel);

#ifdef __cplusplus
}
#endif

#endif
