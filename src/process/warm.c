/* SPDX-License-Identifier: MIT
 * warm.c - one copy of the seed that waits, ready, for the next single process.   Room: process.
 *
 * Idea: the seed does not change, so a copy of it can be made before anybody asks for one; to start
 * it then costs one wake and no fork. The keeper makes it, a moment after the last start, so that
 * it does not take the CPU from the process that just began. Only programs that start processes
 * from the seed ever have one.
 */
#include "process/warm.h"

#include <errno.h>

#include "process/keeper.h"

#define REST_NS 1000000LL
#define LOOK_NS 5000000000LL
#define STACK_BYTES 32768
#define PAGE_BYTES 4096

struct warm {
    yk_mutex lock;
    /* under lock */
    bool ticking;
    int64_t wanted_ns;                /* when to make one; 0: not wanted */
    struct yk_process_record *record; /* of the copy that waits; NULL: there is none */
    int pid;
    int pidfd;
    struct yk_ticker ticker; /* the keeper's */
};

_Static_assert(sizeof(struct warm) <= YK_LOCAL_BYTES, "fits the area that forks wipe");

/* --- in the copy ---------------------------------------------------------------------------- */

void yk_record_await_go(struct yk_process_record *record)
{
    /* SYNC(process-go) acquire: sees the fields of the record. */
    while (atomic_load_explicit(&record->go, memory_order_acquire) == 0) {
        /* The parent-death signal ends us if nobody ever says it; the slice is for programs that
         * lost it. */
        if (yk_futex_wait(&record->go, 0, yk_clock_ns() + LOOK_NS, YK_SHARED) == -ETIMEDOUT) {
            yk_image_check();
        }
    }
}

/* A page that is written first after the start would be copied then. */
static void touch_stack(void)
{
    volatile unsigned char room[STACK_BYTES];
    for (size_t i = 0; i < sizeof room; i += PAGE_BYTES) {
        room[i] = 0;
    }
}

static void warm_main(void *arg)
{
    struct yk_process_record *const record = arg;
    yk_image_warm("yoke-spare", record->owner);
    touch_stack();
    yk_record_await_go(record);
    yk_process_main(arg);
}

/* --- in the program ------------------------------------------------------------------------- */

struct yk_process_record *yk_record_make(void)
{
    struct yk_process_record *const record = yk_heap_alloc(sizeof *record);
    if (record != NULL) {
        memset(record, 0, sizeof *record);
        record->owner = yk_heap_new_owner();
    }
    return record;
}

static void end_copy(struct yk_process_record *record, int pidfd)
{
    yk_child_end(pidfd);
    yk_heap_free(record);
}

/* On the keeper. A copy that cannot be made now is tried again after the next start. */
static void make_copy(struct warm *warm)
{
    struct yk_template *const seed = yk_seed();
    struct yk_process_record *const record = seed != NULL ? yk_record_make() : NULL;
    int pid = -1;
    int pidfd = -1;
    if (record == NULL || yk_template_spawn(seed, warm_main, record, &pid, &pidfd) != 0 ||
        pidfd < 0) {
        yk_heap_free(record);
        return;
    }
    yk_mutex_lock(&warm->lock);
    warm->record = record;
    warm->pid = pid;
    warm->pidfd = pidfd;
    yk_mutex_unlock(&warm->lock);
}

/* One that was killed as it was made would stand in the way of the next. */
static void bury_copy(struct warm *warm)
{
    yk_mutex_lock(&warm->lock);
    struct yk_process_record *record = warm->record;
    const int pidfd = warm->pidfd;
    if (record != NULL && yk_pidfd_ended(pidfd, 0)) {
        warm->record = NULL;
    } else {
        record = NULL;
    }
    yk_mutex_unlock(&warm->lock);
    if (record != NULL) {
        end_copy(record, pidfd);
    }
}

static int64_t tick(void *arg, int64_t now_ns)
{
    struct warm *const warm = arg;
    bury_copy(warm);
    yk_mutex_lock(&warm->lock);
    const int64_t wanted = warm->record == NULL ? warm->wanted_ns : 0;
    const bool now = wanted != 0 && wanted <= now_ns;
    warm->wanted_ns = now ? 0 : wanted;
    yk_mutex_unlock(&warm->lock);
    if (now) {
        make_copy(warm);
    }
    return wanted != 0 && !now ? wanted : YOKE_FOREVER;
}

bool yk_warm_take(struct yk_process_record **record, int *pid, int *pidfd)
{
    struct warm *const warm = yk_process_local(YK_LOCAL_WARM);
    if (warm == NULL) {
        return false;
    }
    yk_mutex_lock(&warm->lock);
    *record = warm->record;
    *pid = warm->pid;
    *pidfd = warm->pidfd;
    warm->record = NULL;
    yk_mutex_unlock(&warm->lock);
    if (*record != NULL && yk_pidfd_ended(*pidfd, 0)) {
        end_copy(*record, *pidfd); /* somebody killed it */
        return false;
    }
    return *record != NULL;
}

static int begin_ticking(void *arg)
{
    struct warm *const warm = arg;
    warm->ticker = (struct yk_ticker){.tick = tick, .arg = warm};
    yk_keeper_add_ticker(&warm->ticker);
    return 0;
}

void yk_warm_order(void)
{
    struct warm *const warm = yk_process_local(YK_LOCAL_WARM);
    if (warm == NULL) {
        return;
    }
    yk_mutex_lock(&warm->lock);
    const bool first = !warm->ticking;
    const bool ordered = warm->wanted_ns != 0;
    warm->ticking = true;
    warm->wanted_ns = yk_clock_ns() + REST_NS;
    yk_mutex_unlock(&warm->lock);
    if (first) {
        (void)yk_keeper_call(begin_ticking, warm); /* the seed holds the keeper for ever */
    }
    if (!ordered) {
        yk_keeper_nudge();
    }
}

void yk_warm_discard(void)
{
    struct yk_process_record *record = NULL;
    int pid = -1;
    int pidfd = -1;
    if (yk_warm_take(&record, &pid, &pidfd)) {
        end_copy(record, pidfd);
    }
}
