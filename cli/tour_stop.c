/* SPDX-License-Identifier: MIT
 * tour_stop.c - row "stop": what a thread leaves behind that is killed, and a task that is cancelled.
 *
 * Idea: both hold a lock and 1 MB, and compute. The thread is cancelled wherever it is just then
 * (pthread_cancel, asynchronous); the task is told, and returns. Then the allocator says how much
 * is still in use, and a try at the lock whether it is locked.
 */
#include "tour.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <yoke/yoke.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif

enum { WARM_UPS = 12, ROUNDS = 5, BLOCKS = 64, BLOCK_BYTES = 16 * 1024 };

/* What one of them holds; the tour's own notes of it, so that it can clear up behind the thread. */
struct victim {
    pthread_mutex_t lock;
    void *blocks[BLOCKS];
    atomic_int begun;
    atomic_ullong work;
};

struct remains {
    double bytes[ROUNDS], locks[ROUNDS], ns[ROUNDS];
};

/* Bytes that were allocated and not freed, in all threads. */
static double in_use(void)
{
    const struct mallinfo2 info = mallinfo2();
    return (double)info.uordblks + (double)info.hblkhd;
}

static void await_begin(struct victim *victim)
{
    while (atomic_load(&victim->begun) == 0)
        sched_yield();
}

static int is_locked(pthread_mutex_t *lock)
{
    if (pthread_mutex_trylock(lock) != 0)
        return 1;
    pthread_mutex_unlock(lock);
    return 0;
}

static void take_stock(struct remains *remains, int round, struct victim *victim, double before,
                       int64_t asked_ns)
{
    remains->ns[round] = (double)(yoke_now_ns() - asked_ns);
    remains->bytes[round] = in_use() - before;
    remains->locks[round] = is_locked(&victim->lock);
}

/* --- a thread, killed ------------------------------------------------------------------------- */

static void *thread_works(void *arg)
{
    struct victim *victim = arg;
    int old = 0;
    pthread_mutex_lock(&victim->lock);
    for (int i = 0; i < BLOCKS; i++)
        victim->blocks[i] = malloc(BLOCK_BYTES);
    atomic_store(&victim->begun, 1);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
    for (;;)
        atomic_fetch_add_explicit(&victim->work, 1, memory_order_relaxed);
    return NULL;
}

static int kill_thread(struct remains *remains, int round)
{
    struct victim victim = {.lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    const double before = in_use();
    const int rc = pthread_create(&thread, NULL, thread_works, &victim);
    if (rc != 0)
        return -rc;
    await_begin(&victim);
    const int64_t asked_ns = yoke_now_ns();
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    take_stock(remains, round, &victim, before, asked_ns);
    for (int i = 0; i < BLOCKS; i++)
        free(victim.blocks[i]);
    return 0;
}

/* --- a task, cancelled ------------------------------------------------------------------------ */

static void unlock(void *lock)
{
    pthread_mutex_unlock(lock);
}

static int task_works(yoke_task *task, const void *in, void *out)
{
    struct victim *victim = *(struct victim *const *)in;
    (void)out;
    pthread_mutex_lock(&victim->lock);
    const int rc = yoke_task_defer(task, unlock, &victim->lock);
    if (rc != 0)
        pthread_mutex_unlock(&victim->lock);
    for (int i = 0; rc == 0 && i < BLOCKS; i++)
        victim->blocks[i] = yoke_task_alloc(task, BLOCK_BYTES);
    atomic_store(&victim->begun, 1);
    while (rc == 0 && !yoke_task_cancelled(task))
        atomic_fetch_add_explicit(&victim->work, 1, memory_order_relaxed);
    return rc == 0 ? 0 : 1;
}

static int run_and_cancel(yoke_pool *pool, struct victim *victim, yoke_cancel *cancel,
                          int64_t *asked_ns)
{
    const yoke_options options = {.size = sizeof options, .cancel = cancel};
    yoke_job *job = NULL;
    int rc = yoke_submit(pool, task_works, &victim, sizeof(void *), 0, &options, &job);
    if (rc != 0)
        return rc;
    await_begin(victim);
    *asked_ns = yoke_now_ns();
    yoke_cancel_set(cancel);
    do
        rc = yoke_wait(job, YOKE_FOREVER);
    while (rc == -EINTR);
    yoke_job_release(job);
    return rc;
}

static int cancel_task(yoke_pool *pool, struct remains *remains, int round)
{
    struct victim victim = {.lock = PTHREAD_MUTEX_INITIALIZER};
    yoke_cancel *cancel = NULL;
    int64_t asked_ns = 0;
    const double before = in_use();
    int rc = yoke_cancel_create(NULL, &cancel);
    if (rc != 0)
        return rc;
    rc = run_and_cancel(pool, &victim, cancel, &asked_ns);
    yoke_cancel_release(cancel);
    if (rc == 0)
        take_stock(remains, round, &victim, before, asked_ns);
    return rc;
}

/* --- the row ---------------------------------------------------------------------------------- */

static int measure(struct remains *killed, struct remains *cancelled)
{
    struct remains warm_up;
    yoke_pool *pool = NULL;
    const yoke_pool_config config = {.size = sizeof config, .kind = YOKE_THREADS, .workers = 1};
    int rc = yoke_pool_create(&config, &pool);
    if (rc != 0)
        return rc;
    /* What libc and the pool keep for the next time is not what anybody leaves behind: malloc counts
     * the first few free blocks of each size as in use. */
    for (int i = 0; i < WARM_UPS && rc == 0; i++) {
        rc = kill_thread(&warm_up, 0);
        rc = rc == 0 ? cancel_task(pool, &warm_up, 0) : rc;
    }
    for (int i = 0; i < ROUNDS && rc == 0; i++) {
        rc = kill_thread(killed, i);
        rc = rc == 0 ? cancel_task(pool, cancelled, i) : rc;
    }
    yoke_pool_destroy(pool, yoke_in_ms(1000));
    return rc;
}

static void conclude(struct report *report, double lost, double locked, double kept, double open)
{
    char lost_text[32], kept_text[32];
    text_bytes(lost_text, sizeof lost_text, lost);
    text_bytes(kept_text, sizeof kept_text, kept);
    if (lost <= 0 || locked == 0) {
        report_say(report, "Not measured here: this allocator does not tell what is in use.");
        return;
    }
    report_say(report,
               "True of a thread that is killed: it left %s that nobody will free, and its lock "
               "locked for ever: who wants it next hangs.",
               lost_text);
    if (kept <= 0 && open == 0)
        report_say(
            report,
            "A Yoke task is told, not killed. Whatever it waits for ends, its memory goes and "
            "its clean-ups run: %s left, the lock open. For what does not listen there are "
            "processes.",
            kept <= 0 ? "0 bytes" : kept_text);
    else
        report_say(report, "The Yoke task that was cancelled left %s, and %s lock.", kept_text,
                   open == 0 ? "an open" : "a locked");
}

int tour_stop(struct report *report)
{
#ifdef SANITIZED
    report_say(report, "Not measured here: a sanitizer does not tell what is in use, nor does it "
                       "bear that threads are killed.");
    return 0;
#endif
    struct remains killed = {.ns = {0}}, cancelled = {.ns = {0}};
    const int rc = measure(&killed, &cancelled);
    if (rc != 0)
        return rc;
    const double lost = median(killed.bytes, ROUNDS), kept = median(cancelled.bytes, ROUNDS);
    const double locked = median(killed.locks, ROUNDS), open = median(cancelled.locks, ROUNDS);
    static const char memory[] = "memory left behind, of 1 MB";
    static const char locks[] = "locks left locked, of 1";
    static const char times[] = "gone after";
    static const char thread[] = "pthread_cancel, a thread", task[] = "Yoke, a task";
    report_add(report, memory, thread, lost > 0 ? lost : 0, UNIT_BYTES);
    report_add(report, memory, task, kept > 0 ? kept : 0, UNIT_BYTES);
    report_add(report, locks, thread, locked, UNIT_LEFT);
    report_add(report, locks, task, open, UNIT_LEFT);
    report_add(report, times, thread, median(killed.ns, ROUNDS), UNIT_NS);
    report_add(report, times, task, median(cancelled.ns, ROUNDS), UNIT_NS);
    conclude(report, lost, locked, kept, open);
    return 0;
}
