/* SPDX-License-Identifier: MIT
 * waiting.c - waits that a deadline, a signal or an interrupt ends.   Room: sync.
 */
#include "sync/waiting.h"

#include <yoke/thread.h>

#include <errno.h>

#define SLICE_NS 20000000LL

static _Thread_local struct yk_token *own;

void yk_token_adopt(struct yk_token *token)
{
    own = token;
}

struct yk_token *yk_token_own(void)
{
    return own;
}

bool yk_token_is_set(const struct yk_token *token)
{
    /* SYNC(token) acquire: sees what was done before the interrupt. */
    return token != NULL && atomic_load_explicit(&token->set, memory_order_acquire);
}

void yk_token_set(struct yk_token *token)
{
    /* SYNC(token) release: publishes what was done before the interrupt. */
    atomic_store_explicit(&token->set, true, memory_order_release);
    /* relaxed: a hint; a sleeper that is missed looks up at the end of its slice. */
    _Atomic uint32_t *const word = atomic_load_explicit(&token->sleeps_on, memory_order_relaxed);
    if (word != NULL) {
        yk_futex_wake(word, INT32_MAX, YK_SHARED);
        yk_futex_wake(word, INT32_MAX, YK_PRIVATE);
    }
}

int64_t yk_wait_slice(int64_t until_ns)
{
    if (own == NULL) {
        return until_ns;
    }
    const int64_t slice = yk_clock_ns() + SLICE_NS;
    return slice < until_ns ? slice : until_ns;
}

static void sleeps_on_set(_Atomic uint32_t *word)
{
    if (own != NULL) {
        /* relaxed: a hint. */
        atomic_store_explicit(&own->sleeps_on, word, memory_order_relaxed);
    }
}

int yk_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns, enum yk_scope scope)
{
    sleeps_on_set(word);
    int rc = 0;
    const int64_t slice = yk_wait_slice(until_ns);
    if (yk_token_is_set(own)) {
        rc = -ECANCELED;
    } else {
        rc = yk_futex_wait(word, expected, slice, scope);
    }
    sleeps_on_set(NULL);
    if (rc == -EAGAIN || (rc == -ETIMEDOUT && slice != until_ns)) {
        rc = 0;
    }
    return rc == 0 && yk_token_is_set(own) ? -ECANCELED : rc;
}

int yoke_sleep_until(int64_t until_ns)
{
    _Atomic uint32_t never = 0;
    for (;;) {
        const int rc = yk_wait(&never, 0, until_ns, YK_PRIVATE);
        if (rc != 0) {
            return rc == -ETIMEDOUT ? 0 : rc;
        }
    }
}

int yoke_thread_interrupted(void)
{
    return yk_token_is_set(own) ? 1 : 0;
}
