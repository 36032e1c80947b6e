/* SPDX-License-Identifier: MIT
 * collector.c - the thread that looks after what nobody waits for.
 *
 * While somebody watches a future, each end wakes it; else it looks once a millisecond while there
 * is work, and sleeps when there is none: who hands in then wakes it. It ends the pool.
 * Room: python.
 */
#include "engine.h"

#include <signal.h>

#define LOOK_NS 1000000LL /* how often it looks while nobody watches */
#define LINGER_LOOKS 50   /* so often without work before it sleeps */
#define SLICE_NS 1000000LL
#define PATIENCE_NS 100000000LL
#define SIGNAL_NS 20000000LL /* how late a signal's handler may run */
#define HELP_ABOVE 512       /* so many wait to be resolved: who hands in more helps */
#define HELP_CALLS 128

/* --- any end ---------------------------------------------------------------------------------- */

/* Lock held. Until more has ended than core->seen. */
static void wait_for_any(struct ypy_core *core)
{
    uint64_t seen = core->seen;
    core->users++;
    pthread_mutex_unlock(&core->lock);
    (void)!yoke_pool_await(core->pool, &seen, yoke_now_ns() + PATIENCE_NS);
    pthread_mutex_lock(&core->lock);
    if (--core->users == 0) {
        (void)pthread_cond_broadcast(&core->changed);
    }
}

int ypy_core_wait_any(struct ypy_core *core)
{
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&core->lock);
    if (core->pool == NULL) {
        ypy_core_await_change(core, yoke_now_ns() + SLICE_NS);
    } else {
        ypy_core_pump(core);
        if (core->ended.first == NULL && core->flight_count != 0) {
            wait_for_any(core);
            ypy_core_pump(core);
        }
    }
    pthread_mutex_unlock(&core->lock);
    Py_END_ALLOW_THREADS
    return PyErr_CheckSignals() != 0 ? -1 : 0;
}

static void wait_resolved(struct ypy_core *core, uint64_t resolved, int64_t until_ns)
{
    const int64_t slice_ns = yoke_now_ns() + SIGNAL_NS;
    pthread_mutex_lock(&core->lock);
    core->sleepers++;
    if (core->resolved == resolved) {
        ypy_core_await_change(core, slice_ns < until_ns ? slice_ns : until_ns);
    }
    core->sleepers--;
    pthread_mutex_unlock(&core->lock);
}

int ypy_core_wait_resolved(struct ypy_core *core, uint64_t resolved, int64_t until_ns)
{
    Py_BEGIN_ALLOW_THREADS
    wait_resolved(core, resolved, until_ns);
    Py_END_ALLOW_THREADS
    if (PyErr_CheckSignals() != 0) {
        return -1;
    }
    return yoke_now_ns() >= until_ns ? -ETIMEDOUT : 0;
}

/* --- helping it ------------------------------------------------------------------------------- */

void ypy_core_help(struct ypy_core *core)
{
    for (unsigned i = 0; i < HELP_CALLS; i++) {
        pthread_mutex_lock(&core->lock);
        struct ypy_call *const call = core->ended.count > HELP_ABOVE ? core->ended.first : NULL;
        pthread_mutex_unlock(&core->lock);
        /* With the GIL nobody else frees it. What has callbacks is the collector's: they must not
         * run in a thread that may hold locks of the user's. */
        if (call == NULL || call->maps || !ypy_future_is_plain(call->owner) ||
            !ypy_call_take(core, call)) {
            return;
        }
        ypy_call_resolve(core, call);
    }
}

/* --- the collector ---------------------------------------------------------------------------- */

void ypy_core_watch(struct ypy_core *core, int change)
{
    pthread_mutex_lock(&core->lock);
    core->watched += (unsigned)change;
    if (change > 0) {
        core->asleep = false;
        (void)pthread_cond_broadcast(&core->changed);
    }
    pthread_mutex_unlock(&core->lock);
}

static bool is_through(const struct ypy_core *core)
{
    return core->closed && core->pending == 0;
}

/* Lock held; no GIL. Returns when something has ended, or all is over; and once when it is idle. */
static void await_ends(struct ypy_core *core)
{
    for (unsigned idle = 0; core->ended.first == NULL && !is_through(core);) {
        ypy_core_pump(core);
        if (core->ended.first != NULL) {
            return;
        }
        idle = core->pending == 0 ? idle + 1 : 0;
        if (idle > LINGER_LOOKS && !core->rested) {
            core->rested = true;
            return;
        }
        if (idle > LINGER_LOOKS) {
            core->asleep = true;
            while (core->asleep && !is_through(core)) {
                ypy_core_await_change(core, yoke_now_ns() + PATIENCE_NS * 600);
            }
            idle = 0;
        } else if (core->watched != 0 && core->flight_count != 0) {
            wait_for_any(core);
        } else {
            ypy_core_await_change(core, yoke_now_ns() + LOOK_NS);
        }
    }
}

/* All calls have been resolved, so nobody waits for a job of the pool. False: one more came. */
static bool end_pool(struct ypy_core *core)
{
    pthread_mutex_lock(&core->lock);
    const bool over = is_through(core);
    core->phase = over ? YPY_ENDING : core->phase;
    while (over && core->users != 0) {
        ypy_core_await_change(core, yoke_now_ns() + PATIENCE_NS);
    }
    yoke_pool *const pool = over ? core->pool : NULL;
    core->pool = over ? NULL : core->pool;
    pthread_mutex_unlock(&core->lock);
    if (!over) {
        return false;
    }
    (void)yoke_pool_destroy(pool, yoke_now_ns() + PATIENCE_NS);
    pthread_mutex_lock(&core->lock);
    core->phase = YPY_OVER;
    (void)pthread_cond_broadcast(&core->changed);
    pthread_mutex_unlock(&core->lock);
    return true;
}

int ypy_core_drive(struct ypy_core *core)
{
    /* While it sleeps, signals are for those who would run their handlers. */
    sigset_t all, before;
    (void)sigfillset(&all);
    for (bool over = false; !over;) {
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&core->lock);
        (void)pthread_sigmask(SIG_BLOCK, &all, &before);
        await_ends(core);
        over = is_through(core);
        pthread_mutex_unlock(&core->lock);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        over = over && end_pool(core);
        Py_END_ALLOW_THREADS
        ypy_core_resolve_all(core, true);
        if (core->rested && core->state->outcomes == NULL) {
            ypy_outcomes_load(core); /* now, while there are time and descriptors */
        }
    }
    ypy_blocks_sweep(NULL, 0);
    return 0;
}
