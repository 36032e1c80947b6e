/* SPDX-License-Identifier: MIT
 * escalate.c - how a worker that must end its task is told, and told again, and killed.
 *
 * Idea: the task is doomed by one CAS first, so its owner cannot go on to the next one by itself.
 * Then come SIGINT, SIGTERM and SIGKILL, each after its grace. An owner whose function returned
 * meanwhile gives the task up (the word is GIVEN) and waits; the keeper settles the task and lets
 * the owner go. All of it is under the pool's lock: no signal is sent any more once the owner was
 * let go, so none can hit the next task.
 * Argument for the last step: a worker that was let go and does not go (stopped, say) is killed by
 * first taking the go back with a CAS, which the worker takes with a CAS too.   Room: pool.
 */
#include <errno.h>

#include "pool/dispatch.h"

#define LET_GO_NS 1000000000LL
#define LOOK_MIN_NS 500000LL
#define LOOK_MAX_NS 50000000LL
#define LOOK_SHARE 8 /* of the time that it took until now: how much later we may notice */

static void kill_member_locked(struct yoke_pool *pool, struct yk_member *member)
    YK_REQUIRES(pool->lock)
{
    yk_pidfd_signal(member->pidfd, yk_signal_kill());
    if (member->step != YK_STEP_KILLED) {
        member->step = YK_STEP_KILLED;
        pool->dying++;
        pool->active -= member->active;
        member->active = false;
        /* A large process takes its time to die: the spare does not wait for that. */
        yk_processes_promote_locked(pool);
    }
}

/* Send what comes next. */
static void step_locked(struct yoke_pool *pool, struct yk_member *member, int64_t now_ns)
    YK_REQUIRES(pool->lock)
{
    const yoke_pool_config *const config = &pool->config;
    if (member->step < YK_STEP_INTERRUPTED && config->interrupt_grace_ns > 0) {
        member->step = YK_STEP_INTERRUPTED;
        member->step_until_ns = yk_after(now_ns, config->interrupt_grace_ns);
        yk_pidfd_signal(member->pidfd, yk_signal_interrupt());
    } else if (member->step < YK_STEP_TERMINATED && config->terminate_grace_ns > 0) {
        member->step = YK_STEP_TERMINATED;
        member->step_until_ns = yk_after(now_ns, config->terminate_grace_ns);
        yk_pidfd_signal(member->pidfd, yk_signal_terminate());
        yk_pidfd_signal(member->pidfd, yk_signal_continue()); /* stopped, it would not hear it */
    } else {
        kill_member_locked(pool, member);
    }
}

/* The unit that the member was doomed for, if it has given it up. */
static struct yk_unit *given_up_locked(struct yoke_pool *pool, const struct yk_member *member)
    YK_REQUIRES(pool->lock)
{
    struct yk_unit *const unit = pool->units[member->doomed_slot];
    const uint64_t word = yk_slot_load_word(yk_pool_slot(pool, member->doomed_slot));
    const bool given = unit != NULL && unit->ticket == member->doomed_ticket &&
                       word == yk_word(unit->ticket, member->owner, YK_GIVEN);
    return given ? unit : NULL;
}

/* The task first, then the go: what the worker claims next may be in the same slot. */
static void let_go_locked(struct yoke_pool *pool, struct yk_member *member, struct yk_unit *unit,
                          int64_t now_ns) YK_REQUIRES(pool->lock)
{
    struct yk_line *const line = &pool->table.lines[member - pool->members];
    yk_unit_give_locked(pool, unit);
    member->step = YK_STEP_LET_GO;
    member->step_until_ns = yk_after(now_ns, LET_GO_NS);
    /* SYNC(hand) release: after the last signal for that task. */
    atomic_store_explicit(&line->hand, YK_HAND_GO, memory_order_release);
    yk_futex_wake(&line->hand, 1, YK_SHARED);
}

/* It was let go: did it go? */
static void see_it_go_locked(struct yoke_pool *pool, struct yk_member *member, int64_t now_ns)
    YK_REQUIRES(pool->lock)
{
    struct yk_line *const line = &pool->table.lines[member - pool->members];
    uint32_t seen = YK_HAND_GO;
    /* relaxed: a look; nothing follows from it but that we stop looking. */
    if (atomic_load_explicit(&line->hand, memory_order_relaxed) != YK_HAND_GO) {
        member->step = YK_STEP_NONE;
    } else if (now_ns >= member->step_until_ns) {
        /* SYNC(hand) acq_rel: it cannot go any more, so the kill hits no task. */
        if (atomic_compare_exchange_strong_explicit(&line->hand, &seen, YK_HAND_NEVER,
                                                    memory_order_acq_rel, memory_order_relaxed)) {
            kill_member_locked(pool, member);
        } else {
            member->step = YK_STEP_NONE;
        }
    }
}

static bool is_waited_for(const struct yk_member *member)
{
    return member->alive && member->step != YK_STEP_NONE && member->step != YK_STEP_KILLED;
}

/* When to look at it again: soon at first, since the worker has no way to wake the keeper. */
static int64_t next_look(const struct yk_member *member, int64_t now_ns)
{
    int64_t pause = (now_ns - member->doomed_ns) / LOOK_SHARE;
    pause = pause < LOOK_MIN_NS ? LOOK_MIN_NS : pause;
    pause = pause > LOOK_MAX_NS ? LOOK_MAX_NS : pause;
    const int64_t next = now_ns + pause;
    return next < member->step_until_ns ? next : member->step_until_ns;
}

static void look_at_locked(struct yoke_pool *pool, struct yk_member *member, int64_t now_ns)
    YK_REQUIRES(pool->lock)
{
    if (member->step == YK_STEP_LET_GO) {
        see_it_go_locked(pool, member, now_ns);
        return;
    }
    struct yk_unit *const unit = given_up_locked(pool, member);
    if (unit != NULL) {
        let_go_locked(pool, member, unit, now_ns);
    } else if (now_ns >= member->step_until_ns) {
        step_locked(pool, member, now_ns);
    }
}

int64_t yk_escalate_look_locked(struct yoke_pool *pool, int64_t now_ns)
{
    int64_t soonest = YOKE_FOREVER;
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        struct yk_member *const member = &pool->members[i];
        if (is_waited_for(member)) {
            look_at_locked(pool, member, now_ns);
        }
        if (is_waited_for(member)) {
            const int64_t next = next_look(member, now_ns);
            soonest = next < soonest ? next : soonest;
        }
    }
    return soonest;
}

/* --- who is doomed -------------------------------------------------------------------------- */

static struct yk_member *member_of_locked(struct yoke_pool *pool, uint32_t owner)
    YK_REQUIRES(pool->lock)
{
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].alive && pool->members[i].owner == owner) {
            return &pool->members[i];
        }
    }
    return NULL;
}

bool yk_processes_is_member_locked(struct yoke_pool *pool, uint32_t owner)
{
    return member_of_locked(pool, owner) != NULL;
}

bool yk_processes_is_doomed_locked(struct yoke_pool *pool, const struct yk_unit *unit,
                                   uint32_t owner)
{
    const struct yk_member *const member = member_of_locked(pool, owner);
    return member != NULL && member->step != YK_STEP_NONE &&
           member->doomed_slot == yk_unit_slot(unit) && member->doomed_ticket == unit->ticket;
}

bool yk_processes_doom_locked(struct yoke_pool *pool, struct yk_unit *unit, uint32_t progress,
                              int verdict)
{
    const uint32_t owner = yk_unit_doom_locked(pool, unit, progress);
    if (owner == 0) {
        return false;
    }
    unit->verdict = verdict;
    struct yk_member *const member = member_of_locked(pool, owner);
    if (member == NULL || member->step == YK_STEP_KILLED) {
        return true; /* its burial ends the unit; or the audit, if nobody has that number */
    }
    const int64_t now = yk_clock_ns();
    member->step = YK_STEP_NONE; /* let go before, it went: it has claimed again */
    member->doomed_ns = now;
    member->doomed_slot = yk_unit_slot(unit);
    member->doomed_ticket = unit->ticket;
    step_locked(pool, member, now);
    if (is_waited_for(member)) {
        yk_processes_timed_locked(pool, LOOK_MIN_NS);
    }
    return true;
}

/* --- all of them ---------------------------------------------------------------------------- */

bool yk_processes_condemn_locked(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        struct yk_member *const member = &pool->members[i];
        if (member->alive) {
            member->condemned = true;
            pool->condemning = true;
            yk_pidfd_signal(member->pidfd, yk_signal_kill());
        }
    }
    return pool->condemning;
}

bool yk_processes_condemned_left_locked(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].alive && pool->members[i].condemned) {
            return true;
        }
    }
    return false;
}

void yk_processes_kill_all_locked(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        if (pool->units[i] != NULL && pool->units[i]->verdict == 0) {
            pool->units[i]->verdict = YOKE_CANCELLED;
        }
    }
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].alive) {
            yk_pidfd_signal(pool->members[i].pidfd, yk_signal_kill());
        }
    }
}
