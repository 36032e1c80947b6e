/* SPDX-License-Identifier: MIT
 * cpus.c - the CPUs of this process, read again now and then.
 *
 * Idea: nobody tells a program that its affinity or its quota changed, so whoever has a moment (a
 * worker that goes to sleep, a governor, a waiter) looks, one of them in a second. The affinity is
 * the main thread's: that of a worker may be its own.   Room: pool.
 */
#include "pool/cpus.h"

#define LOOK_NS 1000000000LL

unsigned yk_cpus_look(void)
{
    struct yk_cpus *const here = yk_cpus_here();
    const int64_t now = yk_clock_ns();
    /* relaxed: who swaps it looks. */
    int64_t due = atomic_load_explicit(&here->look_ns, memory_order_relaxed);
    if (now >= due &&
        /* relaxed: as above. */
        atomic_compare_exchange_strong_explicit(&here->look_ns, &due, now + LOOK_NS,
                                                memory_order_relaxed, memory_order_relaxed)) {
        /* relaxed: the number itself is all there is to see. */
        atomic_store_explicit(&here->count, yk_cpu_count_process(), memory_order_relaxed);
    }
    /* relaxed: as above. 0: somebody is at the first look now. */
    const unsigned count = atomic_load_explicit(&here->count, memory_order_relaxed);
    return count != 0 ? count : yk_cpu_count_process();
}
