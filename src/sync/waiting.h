/* SPDX-License-Identifier: MIT
 * waiting.h - waits that a deadline, a signal or a cancel ends.
 *
 * Idea: a thread that sleeps hangs a wait on the token its calls belong to (cancel.h), so it is
 * woken when that is set. Tasks of process workers have a flag in shared memory instead, and look
 * at it in slices.   Room: sync.
 */
#ifndef YK_WAITING_H
#define YK_WAITING_H

#include "sync/cancel.h"

/* As yk_futex_wait, and -ECANCELED when the caller's task or thread was cancelled. 0 may mean
 * nothing. The word counts, or says what it says in its lowest bit: a cancel adds 2. */
int yk_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns, enum yk_scope scope);

/* Wait until one of the descriptors is readable; those below 0 are passed over. Both arrays have
 * room for one more, which is used here. As yk_wait, and 0 means that one is ready. */
int yk_wait_fds(int *fds, bool *ready, size_t count, int64_t until_ns);

#endif
