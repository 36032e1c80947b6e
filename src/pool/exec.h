/* SPDX-License-Identifier: MIT
 * exec.h - pools whose workers are copies of another program.
 *
 * Idea: the two programs have the same files loaded at different addresses, and each start of the
 * other program at others again. So a slot names a function by a *token*: the number of its file,
 * in a list that the workers see, and its place in that file.   Room: pool.
 */
#ifndef YK_POOL_EXEC_H
#define YK_POOL_EXEC_H

#include "pool/worker.h"

struct yoke_pool;
struct yk_pool_exec;

/* --- in the program that has the pool ------------------------------------------------------- */

/* What the pool's config says of the program, copied; and back. */
int yk_exec_prepare(struct yoke_pool *pool);
void yk_exec_release(struct yoke_pool *pool);

/* Run the program until it serves as pool->own_template. Not on the keeper. */
int yk_exec_first(struct yoke_pool *pool);
/* The template was killed: 0 (another one serves), -EAGAIN (it is being started: ask again), or
 * why that failed. On the keeper. */
int yk_exec_again(struct yoke_pool *pool);
bool yk_exec_pending(const struct yoke_pool *pool);
/* What is being started comes to nothing. */
void yk_exec_stop(struct yoke_pool *pool);

/* *fn becomes its token. 0, YOKE_EIMAGE or -ENOMEM. Any thread. */
int yk_exec_translate(struct yoke_pool *pool, uintptr_t *fn);
/* The same for a function of a file that was translated from before; false: it is not. */
bool yk_exec_find(const struct yoke_pool *pool, uintptr_t *fn);

/* --- in a worker ---------------------------------------------------------------------------- */

/* The address of that token here. Ends the worker if its program has not loaded the file. */
uintptr_t yk_exec_resolve(const uint64_t *files, uintptr_t token);

static inline yk_code *yk_worker_code_of(const struct yoke_worker *worker, uintptr_t name)
{
    const uint64_t *const files = worker->ctl->files;
    return yk_code_at(YK_LIKELY(files == NULL) ? name : yk_exec_resolve(files, name));
}

#endif
