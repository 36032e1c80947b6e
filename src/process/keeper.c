/* SPDX-License-Identifier: MIT
 * keeper.c - the one thread that forks, and that hears of every death.   Room: process.
 *
 * Its state lives in the area that forks wipe: a forked child has no keeper until it needs one
 * of its own. `admin` is held for a whole start or end, so a hold that comes while the last one
 * is dropped finds no keeper and starts a new one. `lock` guards the queue of calls.
 * Lock order: admin, lock.
 */
#include "process/keeper.h"

#include <errno.h>

#include "sync/mutex.h"

struct call {
    int (*fn)(void *arg);
    void *arg;
    int rc;
    _Atomic uint32_t done;
    struct call *next;
};

struct keeper {
    yk_mutex admin;
    yk_mutex lock;
    unsigned holds;            /* under admin */
    struct call *calls;        /* under lock, oldest first */
    struct call **calls_end;   /* under lock */
    bool stop;                 /* under lock */
    int epoll;                 /* read-only after start */
    int wake;                  /* read-only after start */
    yk_thread_id thread;       /* read-only after start */
    struct yk_ticker *tickers; /* keeper only */
};

_Static_assert(sizeof(struct keeper) <= YK_LOCAL_BYTES, "fits the area that forks wipe");

static _Thread_local bool on_keeper;

static struct keeper *get(void)
{
    return yk_process_local(YK_LOCAL_KEEPER);
}

static struct call *take_call(struct keeper *keeper, bool *stop)
{
    yk_mutex_lock(&keeper->lock);
    struct call *const call = keeper->calls;
    if (call != NULL) {
        keeper->calls = call->next;
        if (keeper->calls == NULL) {
            keeper->calls_end = &keeper->calls;
        }
    }
    *stop = keeper->stop;
    yk_mutex_unlock(&keeper->lock);
    return call;
}

static bool run_calls(struct keeper *keeper)
{
    for (;;) {
        bool stop = false;
        struct call *const call = take_call(keeper, &stop);
        if (call == NULL) {
            return !stop;
        }
        call->rc = call->fn(call->arg);
        /* SYNC(keeper-call) release: publishes rc. After this the call is gone. */
        atomic_store_explicit(&call->done, 1, memory_order_release);
        yk_futex_wake(&call->done, 1, YK_PRIVATE);
    }
}

static int64_t run_tickers(struct keeper *keeper)
{
    int64_t soonest = YOKE_FOREVER;
    struct yk_ticker *next = NULL;
    for (struct yk_ticker *ticker = keeper->tickers; ticker != NULL; ticker = next) {
        next = ticker->next;
        const int64_t at = ticker->tick(ticker->arg, yk_clock_ns());
        soonest = at < soonest ? at : soonest;
    }
    return soonest;
}

static void keeper_main(void *arg)
{
    struct keeper *const keeper = arg;
    on_keeper = true;
    int64_t until = YOKE_FOREVER;
    bool alive = true;
    while (alive) {
        /* One event at a time: handling it may end the watch of another. */
        void *tag = NULL;
        const int count = yk_epoll_wait(keeper->epoll, &tag, 1, until);
        if (count > 0 && tag != NULL) {
            struct yk_watch *const watch = tag;
            watch->ready(watch->arg);
        } else if (count > 0) {
            yk_eventfd_drain(keeper->wake);
        }
        alive = run_calls(keeper);
        until = run_tickers(keeper);
    }
}

static int start(struct keeper *keeper) YK_REQUIRES(keeper->admin)
{
    int rc = yk_epoll_create(&keeper->epoll);
    if (rc != 0) {
        return rc;
    }
    rc = yk_eventfd_create(&keeper->wake);
    if (rc != 0) {
        goto fail_epoll;
    }
    rc = yk_epoll_add(keeper->epoll, keeper->wake, NULL);
    if (rc != 0) {
        goto fail_wake;
    }
    keeper->stop = false;
    keeper->calls = NULL;
    keeper->calls_end = &keeper->calls;
    keeper->tickers = NULL;
    /* Its stack becomes the workers': as deep as the main thread's. */
    const struct yk_thread_setup setup = {
        .name = "yoke-keeper",
        .stack_bytes = yk_stack_bytes_default(),
    };
    rc = yk_thread_start(&setup, keeper_main, keeper, &keeper->thread);
    if (rc == 0) {
        return 0;
    }
fail_wake:
    yk_fd_close(keeper->wake);
fail_epoll:
    yk_fd_close(keeper->epoll);
    return rc;
}

int yk_keeper_hold(void)
{
    struct keeper *const keeper = get();
    if (keeper == NULL) {
        return -ENOMEM;
    }
    yk_mutex_lock(&keeper->admin);
    const int rc = keeper->holds == 0 ? start(keeper) : 0;
    keeper->holds += rc == 0;
    yk_mutex_unlock(&keeper->admin);
    return rc;
}

static void stop(struct keeper *keeper) YK_REQUIRES(keeper->admin)
{
    yk_mutex_lock(&keeper->lock);
    keeper->stop = true;
    yk_mutex_unlock(&keeper->lock);
    yk_eventfd_signal(keeper->wake);
    yk_thread_join(keeper->thread);
    yk_fd_close(keeper->wake);
    yk_fd_close(keeper->epoll);
}

void yk_keeper_drop(void)
{
    struct keeper *const keeper = get();
    yk_mutex_lock(&keeper->admin);
    if (--keeper->holds == 0) {
        stop(keeper);
    }
    yk_mutex_unlock(&keeper->admin);
}

int yk_keeper_call(int (*fn)(void *arg), void *arg)
{
    if (on_keeper) {
        return fn(arg);
    }
    struct keeper *const keeper = get();
    struct call call = {.fn = fn, .arg = arg};
    yk_mutex_lock(&keeper->lock);
    *keeper->calls_end = &call;
    keeper->calls_end = &call.next;
    yk_mutex_unlock(&keeper->lock);
    yk_eventfd_signal(keeper->wake);
    /* SYNC(keeper-call) acquire: sees rc. */
    while (atomic_load_explicit(&call.done, memory_order_acquire) == 0) {
        (void)yk_futex_wait(&call.done, 0, YOKE_FOREVER, YK_PRIVATE);
    }
    return call.rc;
}

void yk_keeper_forget(void)
{
    on_keeper = false;
}

void yk_keeper_nudge(void)
{
    yk_eventfd_signal(get()->wake);
}

int yk_keeper_watch(struct yk_watch *watch)
{
    return yk_epoll_add(get()->epoll, watch->fd, watch);
}

void yk_keeper_unwatch(struct yk_watch *watch)
{
    yk_epoll_remove(get()->epoll, watch->fd);
}

void yk_keeper_add_ticker(struct yk_ticker *ticker)
{
    struct keeper *const keeper = get();
    ticker->next = keeper->tickers;
    keeper->tickers = ticker;
}

void yk_keeper_remove_ticker(struct yk_ticker *ticker)
{
    for (struct yk_ticker **at = &get()->tickers; *at != NULL; at = &(*at)->next) {
        if (*at == ticker) {
            *at = ticker->next;
            return;
        }
    }
}
