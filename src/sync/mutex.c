/* SPDX-License-Identifier: MIT
 * mutex.c - the slow halves of the lock: spin a little, then sleep; wake one.   Room: sync.
 *
 * Whoever slept takes the lock as 2, since it cannot know whether others sleep still: at worst
 * one wake too many, never one too few.
 */
#include "sync/mutex.h"

#define SPINS 40

void yk_mutex_lock_slow(yk_mutex *mutex)
{
    for (int i = 0; i < SPINS; i++) {
        uint32_t seen = 0;
        /* SYNC(mutex) acquire: sees what the last holder wrote. */
        if (atomic_compare_exchange_weak_explicit(&mutex->word, &seen, 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return;
        }
        yk_cpu_relax();
    }
    /* SYNC(mutex) acquire: sees what the last holder wrote. */
    while (atomic_exchange_explicit(&mutex->word, 2, memory_order_acquire) != 0) {
        (void)yk_futex_wait(&mutex->word, 2, YOKE_FOREVER, YK_PRIVATE);
    }
}

void yk_mutex_unlock_slow(yk_mutex *mutex)
{
    yk_futex_wake(&mutex->word, 1, YK_PRIVATE);
}
