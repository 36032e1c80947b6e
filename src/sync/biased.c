/* SPDX-License-Identifier: MIT
 * biased.c - the long way into a biased lock.   Room: sync.
 *
 * Argument. The favourite F writes `inside`, then reads `claimed`; a stranger S, who has the
 * mutex, writes `claimed`, then reads `inside`. Were both reads to come too early, both would
 * enter. S has a full barrier run on F's CPU in between: if F's store came before it, S sees it
 * and waits; if it came after, F's load does too, sees `claimed`, and F goes the long way. F
 * inside keeps S waiting; S claiming keeps F, by the mutex, waiting. Strangers among each other
 * have the mutex. F by the long way holds the mutex too and needs no claim: nobody else is F.
 *
 * A barrier costs microseconds, so a lock that many threads use loses its favourite: `claimed`
 * then stays 1 for ever, and F, who may just be on its way in by the short way, goes the long one.
 *
 * S clears `claimed` before it opens the mutex, so F may come and go while S is still on its way
 * out. Who frees the lock therefore goes through the mutex once: yk_biased_fini.
 */
#include "sync/biased.h"

#define SPINS 200
#define LOOK_NS 200000LL /* the favourite does not wake who waits for it: it looks that often */
#define STRANGERS_FEW 32
#define USES_PER_STRANGER 4096 /* a barrier costs 12 us, and a use saves 3 ns */
#define DRAIN_NS 10000000LL    /* stores reach the other CPUs in far less than that by themselves */

_Thread_local char yk_biased_mark;

void yk_biased_init(yk_biased *lock)
{
    if (yk_barrier_prepare()) {
        yk_mutex_lock(&lock->mutex);
        /* relaxed: who comes after us has the mutex after us. */
        atomic_store_explicit(&lock->favourite, yk_biased_self(), memory_order_relaxed);
        yk_mutex_unlock(&lock->mutex);
    }
}

static void await_favourite(yk_biased *lock)
{
    for (int i = 0;; i++) {
        /* SYNC(biased) acquire: 0: sees what the favourite wrote. */
        if (atomic_load_explicit(&lock->inside, memory_order_acquire) == 0) {
            return;
        }
        if (i < SPINS) {
            yk_cpu_relax();
        } else {
            (void)yk_futex_wait(&lock->inside, 1, yk_clock_ns() + LOOK_NS, YK_PRIVATE);
        }
    }
}

/* What was long ago tells nothing of now: the favourite earns its way anew each few strangers. */
static bool costs_too_much_locked(yk_biased *lock)
{
    if (++lock->strangers < STRANGERS_FEW) {
        return false;
    }
    const bool much = lock->uses < lock->strangers * USES_PER_STRANGER;
    lock->strangers = 0;
    lock->uses = 0;
    return much;
}

/* There is no barrier any more: give what the favourite wrote the time to get here by itself. */
static void drain(void)
{
    _Atomic uint32_t never = 0;
    const int64_t until = yk_clock_ns() + DRAIN_NS;
    while (yk_clock_ns() < until) {
        (void)yk_futex_wait(&never, 0, until, YK_PRIVATE);
    }
}

static void enter_as_stranger(yk_biased *lock)
{
    /* SYNC(biased) seq_cst: before the barrier, and `inside` is read after it. */
    atomic_store_explicit(&lock->claimed, 1, memory_order_seq_cst);
    const bool ordered = yk_barrier_everywhere();
    if (YK_UNLIKELY(!ordered)) {
        drain();
    }
    await_favourite(lock);
    if (costs_too_much_locked(lock) || !ordered) {
        /* relaxed: the favourite learns it from `claimed`, which stays. */
        atomic_store_explicit(&lock->favourite, 0, memory_order_relaxed);
    }
}

void yk_biased_lock_slow(yk_biased *lock) YK_NO_LOCK_ANALYSIS
{
    const bool favourite = yk_biased_is_favourite(lock);
    if (favourite) {
        /* SYNC(biased) release: we were not in; whoever waits for us may go on. */
        atomic_store_explicit(&lock->inside, 0, memory_order_release);
    }
    yk_mutex_lock(&lock->mutex);
    /* relaxed: changed under the mutex only. */
    if (!favourite && atomic_load_explicit(&lock->favourite, memory_order_relaxed) != 0) {
        enter_as_stranger(lock);
    }
}

void yk_biased_unlock_slow(yk_biased *lock) YK_NO_LOCK_ANALYSIS
{
    /* relaxed: changed under the mutex only, and we hold it. */
    const bool biased = atomic_load_explicit(&lock->favourite, memory_order_relaxed) != 0;
    if (biased) {
        /* SYNC(biased) release: publishes what was written under the lock to the favourite. */
        atomic_store_explicit(&lock->claimed, 0, memory_order_release);
    }
    yk_mutex_unlock(&lock->mutex);
}

void yk_biased_fini(yk_biased *lock)
{
    yk_mutex_lock(&lock->mutex);
    yk_mutex_unlock(&lock->mutex);
}
