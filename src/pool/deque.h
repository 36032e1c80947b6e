/* SPDX-License-Identifier: MIT
 * deque.h - one thread's deque of spawned frames, and the mailbox it is given work in.
 *
 * The owner alone pushes and pops, at the top; others are given the oldest frame, or take it. All
 * below `split` was taken. docs/fork-join.md has the argument.   Room: pool.
 */
#ifndef YK_DEQUE_H
#define YK_DEQUE_H

#include "base/base.h"
#include "platform/platform.h"
#include <yoke/fork.h>

#define YK_DEQUE_SLOTS 8192U /* open spawns; more run at once */

struct yk_team;

/* A stretch of a deque that belongs to one run: what lies at or above `base`. */
struct yk_stretch {
    struct yk_stretch *outer;
    yoke_frame **base;
    yoke_cancel *cancel;
};

struct yk_deque {
    /* the owner reads these at each spawn and sync; others write them, rarely */
    _Alignas(YK_CACHE_LINE) yoke_deque ends;
    struct yk_team *team; /* NULL: nobody takes from this one */
    yoke_frame **slots;
    struct yk_stretch *scope; /* innermost */
    unsigned index;
};

static inline struct yk_deque *yk_deque_of(yoke_deque *ends)
{
    return (struct yk_deque *)(void *)ends;
}

#endif
