/* SPDX-License-Identifier: MIT
 * watchdog.c - deadlines of tasks in process workers.   Room: pool.
 *
 * A late task is doomed by one CAS before its worker is killed, so the kill cannot hit the task
 * that comes after it: for a call or a range the slot's word goes from CLAIMED to DOOMED, for an
 * item of a map its progress gets a mark. If the CAS fails, the task ended in time after all.
 * When it began is the worker's word, which may be a lie. So it also has a last moment, by when we
 * saw it claimed, that no honest worker comes to: then the word is doomed, whatever item runs.
 */
#include "pool/dispatch.h"

#define SLACK_NS 1000000000LL   /* a task that was claimed has begun by then */
#define ITEM_SLACK_NS 1000000LL /* from one item to the next */

/* It may be claimed that long, with all its items. */
static int64_t most_ns(const struct yk_unit *unit)
{
    const int64_t items = unit->items != 0 ? (int64_t)unit->items : 1;
    const int64_t each = yk_after(unit->timeout_ns, ITEM_SLACK_NS);
    return each < YOKE_FOREVER / (items + 1) ? yk_after(SLACK_NS, each * (items + 1))
                                             : YOKE_FOREVER;
}

static int64_t last_moment_locked(struct yoke_pool *pool, struct yk_unit *unit, int64_t now_ns)
    YK_REQUIRES(pool->lock)
{
    const uint64_t word = yk_slot_load_word(yk_pool_slot(pool, yk_unit_slot(unit)));
    if (unit->claimed_ns == 0 && yk_word_phase(word) == YK_CLAIMED) {
        unit->claimed_ns = now_ns;
    }
    return unit->claimed_ns != 0 ? yk_after(unit->claimed_ns, most_ns(unit)) : YOKE_FOREVER;
}

static int64_t look_at_locked(struct yoke_pool *pool, struct yk_unit *unit, int64_t now_ns)
    YK_REQUIRES(pool->lock)
{
    if (unit->verdict != 0) {
        return YOKE_FOREVER;
    }
    const int64_t last = last_moment_locked(pool, unit, now_ns);
    if (now_ns >= last && yk_processes_doom_locked(pool, unit, YK_PROGRESS_ANY, YOKE_TIMEDOUT)) {
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
        return now_ns < last && last < until ? last : until;
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
