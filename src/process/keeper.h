/* SPDX-License-Identifier: MIT
 * keeper.h - the one thread that forks, and that hears of every death.
 *
 * Idea: a child's parent-death signal follows the *thread* that forked it, so that thread must
 * live as long as the child. The keeper lives while anybody holds it. It sleeps in epoll on the
 * pidfds of the workers and on its own deadlines.   Room: process.
 */
#ifndef YK_KEEPER_H
#define YK_KEEPER_H

#include "platform/platform.h"

struct yk_watch {
    int fd;
    void (*ready)(void *arg); /* runs on the keeper; may unwatch, also itself */
    void *arg;
};

struct yk_ticker {
    int64_t (*tick)(void *arg, int64_t now_ns); /* runs on the keeper; returns when next */
    void *arg;
    struct yk_ticker *next; /* the keeper's */
};

/* Start the keeper, or hold it once more. Each hold needs a drop; the last one ends it. Not on
 * the keeper. */
int yk_keeper_hold(void);
void yk_keeper_drop(void);

/* Run fn on the keeper and wait for it. On the keeper itself: runs it. Needs a hold. */
int yk_keeper_call(int (*fn)(void *arg), void *arg);
/* Make the keeper call its tickers soon. Needs a hold. */
void yk_keeper_nudge(void);

/* In a copy of the keeper made by fork: it is an ordinary thread. */
void yk_keeper_forget(void);

/* These four on the keeper only. */
int yk_keeper_watch(struct yk_watch *watch);
void yk_keeper_unwatch(struct yk_watch *watch);
void yk_keeper_add_ticker(struct yk_ticker *ticker);
void yk_keeper_remove_ticker(struct yk_ticker *ticker);

#endif
