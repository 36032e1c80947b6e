/* SPDX-License-Identifier: MIT
 * watchdog.c - deadlines of tasks in process workers.   Room: pool.
 *
 * A late task is doomed by one CAS before its worker is killed, so the kill cannot hit the task
 * that comes after it: for a call or a range the slot's word goes from CLAIMED to DOOMED, for an
 * item of a map its progress gets a mark. If the CAS fails, the task ended in time after all.
 */
#include "pool/pool_private.h"

static int64_t look_at_locked(struct yoke_pool *pool, struct yk_unit *unit, int64_t now_ns)
    YK_REQUIRES(pool->lock)
{
    if (unit->verdict != 0) {
        return YOKE_FOREVER;
    }
    /* Progress first: the start is then at least as new, so an item is never blamed for the time
     * of the one before it. */
    const uint32_t progress = yk_unit_progress_locked(pool, unit);
    /* SYNC(progress) acquire: see above. */
    const int64_t started = atomic_load_explicit(unit->started_ns, memory_order_acquire);
    const int64_t from = progress > 0 && started > 0 && started <= now_ns ? started : now_ns;
    const int64_t until = yk_after(from, unit->timeout_ns);
    if (until > now_ns) {
        return until;
    }
    /* If it moved on just now, it has all its time again. */
    return yk_processes_doom_locked(pool, unit, progress, YOKE_TIMEDOUT)
               ? YOKE_FOREVER
               : yk_after(now_ns, unit->timeout_ns);
}

int64_t yk_watchdog_look_locked(struct yoke_pool *pool, int64_t now_ns)
{
    int64_t soonest = YOKE_FOREVER;
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        struct yk_unit *const unit = pool->units[i];
        if (unit == NULL || unit->timeout_ns == 0) {
            continue;
        }
        const int64_t next = look_at_locked(pool, unit, now_ns);
        soonest = next < soonest ? next : soonest;
    }
    return soonest;
}
