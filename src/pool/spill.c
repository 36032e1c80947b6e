/* SPDX-License-Identifier: MIT
 * spill.c - where a task's posts go when the ring is full, and its stack deep.
 *
 * Idea: a task must not wait for room that perhaps only its thread could make, so it runs here what
 * it finds no room for. That may find no room either, and so on: beyond a few such calls, one inside
 * the other, the call goes on a list, which workers look at before the ring. It is as long as what
 * tasks hand in; who is no task waits for room instead.   Room: pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/post.h"

#define HERE_MOST 8U /* calls, one inside the other */

struct yk_spilled {
    struct yk_cell call;
    struct yk_spilled *next;
};

static _Thread_local unsigned here_depth;

bool yk_here_enter(void)
{
    if (here_depth == HERE_MOST) {
        return false;
    }
    here_depth++;
    return true;
}

void yk_here_leave(void)
{
    here_depth--;
}

int yk_spill_put(struct yk_posts *posts, const struct yk_cell *call)
{
    struct yk_spilled *const made = aligned_alloc(YK_CACHE_LINE, sizeof *made);
    if (made == NULL) {
        return -ENOMEM;
    }
    memset(made, 0, sizeof *made);
    yk_cell_copy(&made->call, call);
    yk_mutex_lock(&posts->lock);
    /* SYNC(posts-state) acquire: who stops the pool comes here with the lock after it. */
    if (atomic_load_explicit(&posts->state, memory_order_acquire) == YK_POSTS_STOPPED) {
        yk_mutex_unlock(&posts->lock);
        free(made);
        return YOKE_ECLOSED;
    }
    if (call->fn != NULL) {
        /* SYNC(posts-ended) release: counted before it is counted as ended. */
        atomic_fetch_add_explicit(&posts->here_begun, 1, memory_order_release);
    }
    *(posts->spill != NULL ? &posts->spill_last->next : &posts->spill) = made;
    posts->spill_last = made;
    /* SYNC(posts-spilled) seq_cst: before we look who dozes. */
    atomic_fetch_add_explicit(&posts->spilled, 1, memory_order_seq_cst);
    yk_mutex_unlock(&posts->lock);
    return 0;
}

bool yk_spill_take(struct yk_posts *posts, struct yk_cell *call)
{
    yk_mutex_lock(&posts->lock);
    struct yk_spilled *const first = posts->spill;
    if (first != NULL) {
        posts->spill = first->next;
        /* relaxed: who sees the old count finds the list shorter. */
        atomic_fetch_sub_explicit(&posts->spilled, 1, memory_order_relaxed);
    }
    yk_mutex_unlock(&posts->lock);
    if (first == NULL) {
        return false;
    }
    yk_cell_copy(call, &first->call);
    free(first);
    return true;
}

uint32_t yk_spill_drop(struct yk_posts *posts)
{
    struct yk_cell call;
    uint32_t count = 0;
    while (yk_spill_take(posts, &call)) {
        count += call.fn != NULL;
        yk_post_drop(&call);
    }
    return count;
}
