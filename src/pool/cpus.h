/* SPDX-License-Identifier: MIT
 * cpus.h - the CPUs of this process, and how many of its workers keep one busy.
 *
 * Idea: all thread pools of a process share its CPUs, so one count of workers that are awake serves
 * them all: who would wake helpers asks how many CPUs are left for them. It changes only where a
 * worker goes to sleep or wakes up, never with a task.   Room: pool.
 */
#ifndef YK_CPUS_H
#define YK_CPUS_H

#include "pool/table.h"

/* The counts; all zero in a child made by fork. */
struct yk_cpus {
    _Atomic int32_t busy;    /* workers of thread pools that are awake and do not say they wait */
    _Atomic uint32_t count;  /* as yk_cpus_look saw it last; 0: it never did */
    _Atomic int64_t look_ns; /* when to look again */
};

static inline struct yk_cpus *yk_cpus_here(void)
{
    /* SYNC(local-areas) acquire: sees the area zeroed by who made it. */
    char *const areas = atomic_load_explicit(&yk_local_areas, memory_order_acquire);
    return YK_LIKELY(areas != NULL)
               ? (struct yk_cpus *)(void *)(areas + (size_t)YK_LOCAL_CPUS * YK_LOCAL_BYTES)
               : yk_process_local(YK_LOCAL_CPUS);
}

/* One more worker is busy (1), or one fewer (-1). */
static inline void yk_cpus_busy(int by)
{
    /* relaxed: a count, and nothing hangs on it. */
    atomic_fetch_add_explicit(&yk_cpus_here()->busy, by, memory_order_relaxed);
}

/* CPUs that no worker of this process keeps busy, by the last look (every thread pool looks when it
 * is made): 0 and up. A thread of the program that runs tasks itself is not counted. Three loads. */
static inline unsigned yk_cpus_left(void)
{
    const struct yk_cpus *const here = yk_cpus_here();
    /* relaxed: a hint of whether to wake somebody. */
    const uint32_t count = atomic_load_explicit(&here->count, memory_order_relaxed);
    /* relaxed: as above. */
    const int32_t busy = atomic_load_explicit(&here->busy, memory_order_relaxed);
    return busy < 0 ? count : count > (uint32_t)busy ? count - (uint32_t)busy : 0;
}

/* How many CPUs this process may use. Reads affinity and quota again at most once a second, which
 * takes some 100 us then; else it looks at the clock. */
unsigned yk_cpus_look(void);
/* governor.c: where config.workers was 0, as many workers as there are CPUs now run tasks. */
void yk_target_follow(const struct yk_table *table);

#endif
