/* SPDX-License-Identifier: MIT
 * biased.h - a lock that costs its favourite thread no locked operation.
 *
 * Idea: most pools are used by one thread. The lock is biased towards the thread that made it:
 * that one enters with a plain store and a plain load. Everybody else takes the mutex, says so in
 * `claimed`, and has the kernel run a full barrier on every CPU that runs a thread of this process
 * (membarrier), so the two cannot miss each other: the argument is in biased.c. After Kawachiya
 * et al., "Lock Reservation", OOPSLA 2002.   Room: sync.
 */
#ifndef YK_BIASED_H
#define YK_BIASED_H

#include "sync/mutex.h"

typedef struct YK_CAPABILITY yk_biased {
    yk_mutex mutex;
    _Atomic uint32_t inside;     /* the favourite holds the lock, the short way */
    _Atomic uint32_t claimed;    /* somebody else holds it, or waits for the favourite to leave */
    _Atomic uintptr_t favourite; /* see yk_biased_self; 0: nobody */
    /* under the lock, since the last look at them */
    uint64_t uses;      /* by the favourite, the short way */
    uint64_t strangers; /* by others */
} yk_biased;

extern _Thread_local char yk_biased_mark;

/* A thread, as a number that no other thread that lives has. */
static inline uintptr_t yk_biased_self(void)
{
    return (uintptr_t)&yk_biased_mark;
}

/* Zeroed memory is an unlocked lock without a favourite. This makes the caller its favourite,
 * where the machine can do that; once, others may use the lock already. */
void yk_biased_init(yk_biased *lock);
void yk_biased_lock_slow(yk_biased *lock);
void yk_biased_unlock_slow(yk_biased *lock);
/* Before its memory goes, when nobody has it and nobody will come: waits until the last one is out
 * of it for good. */
void yk_biased_fini(yk_biased *lock);

static inline bool yk_biased_is_favourite(const yk_biased *lock)
{
    /* relaxed: our own mark was written by us; that we lost it, `claimed` tells. */
    return atomic_load_explicit(&lock->favourite, memory_order_relaxed) == yk_biased_self();
}

static inline void yk_biased_lock(yk_biased *lock) YK_ACQUIRES(lock) YK_NO_LOCK_ANALYSIS
{
    if (YK_LIKELY(yk_biased_is_favourite(lock))) {
        /* relaxed: the barrier after it is the other side's, see biased.c. */
        atomic_store_explicit(&lock->inside, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst); /* for the compiler: the store comes first */
        /* SYNC(biased) acquire: 0: sees what the last holder wrote. */
        if (YK_LIKELY(atomic_load_explicit(&lock->claimed, memory_order_acquire) == 0)) {
            lock->uses++;
            return;
        }
    }
    yk_biased_lock_slow(lock);
}

static inline void yk_biased_unlock(yk_biased *lock) YK_RELEASES(lock) YK_NO_LOCK_ANALYSIS
{
    /* relaxed: written by this very thread, if it is the favourite. */
    const bool inside = atomic_load_explicit(&lock->inside, memory_order_relaxed) != 0;
    if (YK_LIKELY(inside && yk_biased_is_favourite(lock))) {
        /* SYNC(biased) release: publishes what was written under the lock. */
        atomic_store_explicit(&lock->inside, 0, memory_order_release);
        return;
    }
    yk_biased_unlock_slow(lock);
}

#endif
