/* SPDX-License-Identifier: MIT
 * mutex.h - a lock between threads of one process.
 *
 * Idea: Drepper's "Futexes are tricky", mutex 3: the word is 0 (free), 1 (held) or 2 (held, and
 * somebody may sleep). Zeroed memory is an unlocked mutex. Never shared with workers: the program
 * takes no lock that a worker can hold.   Room: sync.
 */
#ifndef YK_MUTEX_H
#define YK_MUTEX_H

#include "platform/platform.h"

typedef struct YK_CAPABILITY yk_mutex {
    _Atomic uint32_t word;
} yk_mutex;

void yk_mutex_lock_slow(yk_mutex *mutex);
void yk_mutex_unlock_slow(yk_mutex *mutex);

static inline void yk_mutex_lock(yk_mutex *mutex) YK_ACQUIRES(mutex) YK_NO_LOCK_ANALYSIS
{
    uint32_t seen = 0;
    /* SYNC(mutex) acquire: sees what the last holder wrote. */
    if (YK_UNLIKELY(!atomic_compare_exchange_strong_explicit(
            &mutex->word, &seen, 1, memory_order_acquire, memory_order_relaxed))) {
        yk_mutex_lock_slow(mutex);
    }
}

static inline void yk_mutex_unlock(yk_mutex *mutex) YK_RELEASES(mutex) YK_NO_LOCK_ANALYSIS
{
    /* SYNC(mutex) release: publishes what was written under the lock. */
    if (YK_UNLIKELY(atomic_exchange_explicit(&mutex->word, 0, memory_order_release) == 2)) {
        yk_mutex_unlock_slow(mutex);
    }
}

#endif
