/* SPDX-License-Identifier: MIT
 * waiting.h - waits that a deadline, a signal or an interrupt ends.
 *
 * Idea: a thread that Yoke started carries a token; who interrupts it sets the token and wakes
 * the word it sleeps on. The thread may be on its way to sleep just then, so such threads sleep
 * in slices. Threads of the program have no token and sleep in one piece.   Room: sync.
 */
#ifndef YK_WAITING_H
#define YK_WAITING_H

#include "platform/platform.h"

struct yk_token {
    _Atomic bool set;
    _Atomic(_Atomic uint32_t *) sleeps_on; /* a hint for the wake */
};

/* This thread's token; NULL for threads that Yoke did not start. */
void yk_token_adopt(struct yk_token *token);
struct yk_token *yk_token_own(void);
bool yk_token_is_set(const struct yk_token *token);
void yk_token_set(struct yk_token *token);

/* The next point to look up at while waiting until then. */
int64_t yk_wait_slice(int64_t until_ns);

/* As yk_futex_wait, and -ECANCELED when this thread was interrupted. 0 may mean nothing. */
int yk_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns, enum yk_scope scope);

#endif
