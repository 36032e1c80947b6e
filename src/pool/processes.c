/* SPDX-License-Identifier: MIT
 * processes.c - the engine of process pools: start, watch, bury, replace.   Room: pool.
 *
 * A worker is a copy made by the template; the keeper hears of its death through its pidfd, takes
 * in what it held (bury.c, heap.c), lets the warm spare step in and has a new spare made.
 * Everything here that changes members runs on the keeper, under the pool's lock where others
 * read it. Starts that fail and workers that die at once are tried again, later and later; a pool
 * whose workers keep dying without ending a task gives up, loudly: YOKE_EBROKEN.
 */
#include <errno.h>
#include <stdlib.h>

#include "memory/heap.h"
#include "pool/exec.h"
#include "pool/pool_private.h"

#define READY_SLICE_NS 20000000LL
#define RETRY_NS 100000000LL
#define START_FAILING_NS 5000000000LL /* with no worker left, that long */
#define FREE_ROUNDS 4U                /* of restarts, before they are held back */
#define BACKOFF_NS 1000000LL          /* the first; then twice as long, and so on */
#define BACKOFF_MAX_NS 1000000000LL
#define CALM_NS 10000000000LL /* what was longer ago is another story */
#define BARREN_EXTRA 16U
#define EXEC_LOOK_NS 5000000LL
#define STOP_GRACE_NS 1000000000LL

/* --- in the worker -------------------------------------------------------------------------- */

void yk_processes_live(struct yk_line *line, const struct yk_worker_code *code)
{
    yk_image_begin("yoke-worker", line->owner);
    struct yoke_worker worker = yk_worker_of(&line->ctl->table, line);
    /* No limit can be refused: what is not ours to raise is as low already. */
    (void)yk_limits_apply(&line->ctl->limits);
    worker.code = code != NULL ? code : worker.code;
    yk_worker_live(&worker);
    yk_stdio_flush();
    yk_process_exit(0);
}

static void worker_entry(void *arg)
{
    yk_processes_live(arg, NULL);
}

/* --- orders --------------------------------------------------------------------------------- */

static bool state_swap(struct yk_line *line, enum yk_line_state from, enum yk_line_state to)
{
    uint32_t seen = from;
    /* SYNC(line-state) acq_rel: what was done before the order is seen by the worker. */
    return atomic_compare_exchange_strong_explicit(&line->state, &seen, (uint32_t)to,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static void order_to_work(struct yk_line *line)
{
    if (!state_swap(line, YK_LINE_STARTING, YK_LINE_STARTING_ACTIVE) &&
        state_swap(line, YK_LINE_PARKED, YK_LINE_ACTIVE)) {
        yk_futex_wake(&line->state, 1, YK_SHARED);
    }
}

/* From now on it claims tasks, as soon as it is ready. */
static void activate_locked(struct yoke_pool *pool, uint32_t index) YK_REQUIRES(pool->lock)
{
    pool->members[index].active = true;
    pool->active++;
    order_to_work(&pool->table.lines[index]);
}

void yk_processes_remind_locked(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].alive && pool->members[i].active) {
            order_to_work(&pool->table.lines[i]);
        }
    }
}

/* --- starting ------------------------------------------------------------------------------- */

static void template_set(struct yoke_pool *pool, struct yk_template *template)
{
    /* SYNC(template) release: publishes the template to who looks whether it holds a function. */
    atomic_store_explicit(&pool->template, template, memory_order_release);
}

static int plant(struct yoke_pool *pool, bool caller_waits)
{
    const struct yk_image_setup setup = {
        .keep_fds = pool->config.keep_fds,
        .keep_fd_count = pool->config.keep_fd_count,
        .before_fork = pool->hooks.before_fork,
        .after_fork_parent = pool->hooks.after_fork_parent,
        .user = pool->config.user,
        .caller_waits = caller_waits,
    };
    const int rc = yk_template_plant(&pool->own_template, &setup);
    if (rc == 0) {
        template_set(pool, &pool->own_template);
    }
    return rc;
}

static int spawn(struct yoke_pool *pool, struct yk_line *line, int *pid, int *pidfd)
{
    /* relaxed: only the keeper, and that is us, sets it. */
    struct yk_template *const template =
        atomic_load_explicit(&pool->template, memory_order_relaxed);
    int rc = yk_template_spawn(template, worker_entry, line, pid, pidfd);
    if (rc == -ESRCH) {
        /* Somebody killed the template: the program as it is now becomes the image. */
        rc = pool->exec != NULL ? yk_exec_again(pool) : plant(pool, false);
        rc = rc == 0 ? yk_template_spawn(&pool->own_template, worker_entry, line, pid, pidfd) : rc;
    }
    return rc == -ESRCH ? -EAGAIN : rc; /* and killed again: no process to be had now */
}

/* Start a spare in this line. */
static int start_member(struct yoke_pool *pool, uint32_t index)
{
    struct yk_member *const member = &pool->members[index];
    struct yk_line *const line = &pool->table.lines[index];
    memset(line, 0, sizeof *line);
    line->ctl = pool->ctl;
    line->index = index;
    const uint32_t owner = yk_heap_new_owner();
    line->owner = owner;
    atomic_init(&line->state, YK_LINE_STARTING);
    int pid = -1;
    int pidfd = -1;
    const int rc = spawn(pool, line, &pid, &pidfd);
    if (rc != 0) {
        return rc;
    }
    if (pidfd < 0) {
        yk_heap_recover(owner);
        return YOKE_EINIT; /* dead, and reaped by the program, before we could look */
    }
    /* Before its first task. If it cannot be, what it set for itself holds alone. */
    const bool grouped =
        pool->groups != NULL && !yk_pidfd_ended(pidfd, 0) &&
        yk_group_make(pool->groups, owner, pool->config.limits.memory_bytes, pid) == 0;
    yk_biased_lock(&pool->lock);
    member->pool = pool;
    member->owner = owner;
    member->grouped = grouped;
    member->pid = pid;
    member->pidfd = pidfd;
    member->alive = true;
    member->active = false;
    member->condemned = false;
    member->step = YK_STEP_NONE;
    pool->alive++;
    pool->started++;
    yk_biased_unlock(&pool->lock);
    return 0;
}

/* --- death ---------------------------------------------------------------------------------- */

static void forget_sleeper(struct yoke_pool *pool, uint32_t index)
{
    const uint64_t others = ~(1ULL << index % 64);
    /* SYNC(sleepers) seq_cst: as the worker itself would have done. */
    atomic_fetch_and_explicit(&pool->ctl->sleepers[index / 64], others, memory_order_seq_cst);
    /* SYNC(spinners) seq_cst: as above; whether there are tasks is looked at after it. */
    atomic_fetch_and_explicit(&pool->ctl->spinners[index / 64], others, memory_order_seq_cst);
}

/* A result block that had not reached its slot. */
static void *noted(struct yk_line *line)
{
    /* SYNC(alloc-note) acquire: the worker is dead, this is the last it wrote. */
    return atomic_load_explicit(&line->note, memory_order_acquire);
}

static void break_pool_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    pool->closed = pool->closed != 0 ? pool->closed : YOKE_EBROKEN;
    pool->stopping = true;
    yk_pool_revoke_all_locked(pool);
    yk_table_announce(&pool->table);
}

void yk_processes_promote_locked(struct yoke_pool *pool)
{
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        const struct yk_member *const member = &pool->members[i];
        if (pool->active >= pool->config.workers || pool->stopping) {
            return;
        }
        if (member->alive && !member->active && !member->condemned &&
            member->step != YK_STEP_KILLED) {
            activate_locked(pool, i);
        }
    }
}

/* What the end of a worker says of those to come. */
static void note_end_locked(struct yoke_pool *pool, const struct yk_line *line, bool retired)
    YK_REQUIRES(pool->lock)
{
    const enum yk_line_state state = yk_line_state_of(line);
    const bool stillborn =
        state == YK_LINE_STARTING || state == YK_LINE_STARTING_ACTIVE || state == YK_LINE_REFUSED;
    pool->stillborn = stillborn ? pool->stillborn + 1 : 0;
    pool->died += !retired;
}

static void bury_locked(struct yoke_pool *pool, struct yk_member *member) YK_REQUIRES(pool->lock)
{
    const uint32_t index = (uint32_t)(member - pool->members);
    struct yk_line *const line = &pool->table.lines[index];
    const struct yk_exit_status status = yk_pidfd_reap(member->pidfd);
    const bool retired = yk_line_state_of(line) == YK_LINE_RETIRED && status.signal == 0;
    yk_fd_close(member->pidfd);
    member->pidfd = -1;
    member->alive = false;
    pool->alive--;
    pool->active -= member->active;
    member->active = false;
    pool->dying -= member->step == YK_STEP_KILLED;
    member->step = YK_STEP_NONE;
    note_end_locked(pool, line, retired);
    forget_sleeper(pool, index);
    yk_pool_bury_locked(pool, member->owner, status, retired, noted(line));
    /* Last: until then nobody else can take a block that was only noted. */
    yk_heap_recover(member->owner);
    yk_processes_promote_locked(pool);
    if (!pool->stopping && pool->barren > 2 * pool->config.workers + BARREN_EXTRA) {
        break_pool_locked(pool);
    }
}

/* Its processes are gone, so its group can go. Not under the lock: the kernel may take its time. */
static void leave_group(const struct yk_member *member)
{
    if (member->grouped) {
        yk_group_remove(member->pool->groups, member->owner);
    }
}

static void refill(struct yoke_pool *pool);
static int64_t look_up_by(struct yoke_pool *pool, int64_t at);

/* On the keeper: a pidfd became readable. */
static void on_death(void *arg)
{
    struct yk_member *const member = arg;
    struct yoke_pool *const pool = member->pool;
    yk_keeper_unwatch(&member->watch);
    yk_biased_lock(&pool->lock);
    bury_locked(pool, member);
    yk_biased_unlock(&pool->lock);
    leave_group(member);
    refill(pool);
}

static int watch(struct yk_member *member)
{
    member->watch = (struct yk_watch){.fd = member->pidfd, .ready = on_death, .arg = member};
    return yk_keeper_watch(&member->watch);
}

/* --- how often workers are started ---------------------------------------------------------- */

static void note_start_failure(struct yoke_pool *pool)
{
    const int64_t now = yk_clock_ns();
    if (pool->start_failures++ == 0) {
        pool->start_failing_ns = now;
    }
    yk_biased_lock(&pool->lock);
    if (pool->alive == 0 && now - pool->start_failing_ns > START_FAILING_NS && !pool->stopping) {
        break_pool_locked(pool);
    }
    yk_biased_unlock(&pool->lock);
}

/* Restarts that came to nothing, in a row? A task that ended ends the row, unless workers do not
 * even come to life: others may then end tasks all the time. */
static bool is_in_trouble(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    const bool trouble = pool->barren > 0 || pool->stillborn > 0 || pool->start_failures > 0;
    yk_biased_unlock(&pool->lock);
    return trouble;
}

static bool may_start(struct yoke_pool *pool)
{
    const int64_t now = yk_clock_ns();
    if (!is_in_trouble(pool) || now - pool->restart_at_ns > CALM_NS) {
        pool->rounds = 0;
        pool->restart_at_ns = now;
    }
    return now >= pool->restart_at_ns;
}

/* Some were started, or could not be. If there is trouble, the next ones wait: 1 ms, 2, 4 ... */
static void note_round(struct yoke_pool *pool)
{
    if (!is_in_trouble(pool)) {
        return;
    }
    if (pool->start_failures > 0 && pool->rounds < FREE_ROUNDS) {
        pool->rounds = FREE_ROUNDS; /* what was refused just now would be again */
    }
    const int64_t now = yk_clock_ns();
    pool->restart_at_ns = now;
    if (pool->rounds++ >= FREE_ROUNDS) {
        const unsigned doubled = pool->rounds - FREE_ROUNDS - 1;
        const int64_t wait = doubled < 10 ? BACKOFF_NS << doubled : BACKOFF_MAX_NS;
        pool->restart_at_ns = now + wait;
    }
}

/* The first line from `index` on whose worker is missing; line_count: none is to be started. */
static uint32_t find_missing(struct yoke_pool *pool, uint32_t index)
{
    const uint32_t count = pool->table.line_count;
    yk_biased_lock(&pool->lock);
    index = pool->stopping || pool->condemning ? count : index;
    while (index < count && pool->members[index].alive) {
        index++;
    }
    yk_biased_unlock(&pool->lock);
    return index;
}

static bool start_missing(struct yoke_pool *pool)
{
    bool any = false;
    for (uint32_t i = find_missing(pool, 0); i < pool->table.line_count;
         i = find_missing(pool, i + 1)) {
        struct yk_member *const member = &pool->members[i];
        any = true;
        int rc = start_member(pool, i);
        if (rc == 0 && watch(member) != 0) {
            rc = -ENOMEM;
            yk_pidfd_signal(member->pidfd, yk_signal_kill());
            (void)yk_pidfd_ended(member->pidfd, YOKE_FOREVER);
            yk_biased_lock(&pool->lock);
            bury_locked(pool, member);
            yk_biased_unlock(&pool->lock);
            leave_group(member);
        }
        if (rc != 0 && yk_exec_pending(pool)) {
            (void)look_up_by(pool, yk_clock_ns() + EXEC_LOOK_NS);
            break; /* no failure: the program loads what it needs */
        }
        if (rc != 0) {
            note_start_failure(pool);
            break;
        }
        pool->start_failures = 0;
        yk_biased_lock(&pool->lock);
        yk_processes_promote_locked(pool);
        yk_biased_unlock(&pool->lock);
    }
    return any;
}

/* Start what is missing. What cannot be started now, the ticker tries again. */
static void refill(struct yoke_pool *pool)
{
    if (may_start(pool) && start_missing(pool)) {
        note_round(pool);
    }
}

/* --- the ticker: late tasks, missing workers ------------------------------------------------ */

static bool is_complete(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    const bool complete = pool->stopping || pool->alive == pool->table.line_count;
    yk_biased_unlock(&pool->lock);
    return complete;
}

/* The keeper looks up again at the sooner of what it knew and `at`. */
static int64_t look_up_by(struct yoke_pool *pool, int64_t at)
{
    yk_biased_lock(&pool->lock);
    pool->next_tick_ns = at < pool->next_tick_ns ? at : pool->next_tick_ns;
    const int64_t next = pool->next_tick_ns;
    yk_biased_unlock(&pool->lock);
    return next;
}

static int64_t tick(void *arg, int64_t now_ns)
{
    struct yoke_pool *const pool = arg;
    yk_biased_lock(&pool->lock);
    const int64_t late = yk_watchdog_look_locked(pool, now_ns);
    const int64_t told = yk_escalate_look_locked(pool, now_ns);
    pool->next_tick_ns = late < told ? late : told;
    yk_biased_unlock(&pool->lock);
    if (!is_complete(pool)) {
        refill(pool);
    }
    const int64_t retry = now_ns < pool->restart_at_ns ? pool->restart_at_ns : now_ns + RETRY_NS;
    return look_up_by(pool, is_complete(pool) ? YOKE_FOREVER : retry);
}

void yk_processes_timed_locked(struct yoke_pool *pool, int64_t timeout_ns)
{
    const int64_t until = yk_after(yk_clock_ns(), timeout_ns);
    if (until < pool->next_tick_ns) {
        pool->next_tick_ns = until;
        yk_keeper_nudge();
    }
}

/* --- begin and end -------------------------------------------------------------------------- */

static int find_groups(struct yoke_pool *pool)
{
    if (pool->config.limits.memory_bytes == 0) {
        return 0;
    }
    pool->groups = malloc(sizeof *pool->groups);
    if (pool->groups == NULL) {
        return -ENOMEM;
    }
    if (!yk_groups_find("", pool->groups)) {
        free(pool->groups);
        pool->groups = NULL;
    }
    return 0;
}

/* On the keeper, while the creator waits. */
static int start_all(void *arg)
{
    struct yoke_pool *const pool = arg;
    int rc = find_groups(pool);
    if (rc != 0) {
        return rc;
    }
    if (pool->config.image == YOKE_SEED) {
        template_set(pool, yk_seed());
    } else if (pool->exec != NULL) {
        template_set(pool, &pool->own_template);
    } else {
        rc = plant(pool, true);
    }
    for (uint32_t i = 0; i < pool->config.workers && rc == 0; i++) {
        rc = start_member(pool, i);
    }
    return rc;
}

/* Wait until worker i is ready; YOKE_EINIT if it refused or died. */
static int await_ready(struct yoke_pool *pool, uint32_t i)
{
    struct yk_line *const line = &pool->table.lines[i];
    for (;;) {
        const uint32_t event = yk_pool_event(pool);
        const enum yk_line_state state = yk_line_state_of(line);
        if (state != YK_LINE_STARTING) {
            return state == YK_LINE_PARKED ? 0 : YOKE_EINIT;
        }
        if (yk_pidfd_ended(pool->members[i].pidfd, 0)) {
            return yk_line_state_of(line) == YK_LINE_PARKED ? 0 : YOKE_EINIT;
        }
        (void)yk_futex_wait(&pool->ctl->event, event, yk_clock_ns() + READY_SLICE_NS, YK_SHARED);
    }
}

/* On the keeper, once all are ready. */
static int begin_watching(void *arg)
{
    struct yoke_pool *const pool = arg;
    for (uint32_t i = 0; i < pool->config.workers; i++) {
        const int rc = watch(&pool->members[i]);
        if (rc != 0) {
            return rc;
        }
    }
    yk_biased_lock(&pool->lock);
    for (uint32_t i = 0; i < pool->config.workers; i++) {
        activate_locked(pool, i);
    }
    yk_biased_unlock(&pool->lock);
    pool->ticker = (struct yk_ticker){.tick = tick, .arg = pool};
    yk_keeper_add_ticker(&pool->ticker); /* its first tick makes the spare */
    return 0;
}

/* On the keeper: deaths are ours to see from now on. */
static int end_watching(void *arg)
{
    struct yoke_pool *const pool = arg;
    yk_biased_lock(&pool->lock);
    pool->stopping = true;
    yk_biased_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        struct yk_member *const member = &pool->members[i];
        if (member->alive && member->watch.ready != NULL) {
            yk_keeper_unwatch(&member->watch);
        }
    }
    yk_keeper_remove_ticker(&pool->ticker);
    return 0;
}

static void end_member(struct yk_member *member, int64_t until_ns)
{
    if (!yk_pidfd_ended(member->pidfd, until_ns)) {
        yk_pidfd_signal(member->pidfd, yk_signal_kill());
        (void)yk_pidfd_ended(member->pidfd, YOKE_FOREVER);
    }
    (void)yk_pidfd_reap(member->pidfd);
    yk_fd_close(member->pidfd);
    yk_heap_recover(member->owner);
    leave_group(member);
    member->alive = false;
}

void yk_processes_stop(struct yoke_pool *pool)
{
    (void)yk_keeper_call(end_watching, pool);
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].alive) {
            yk_table_stop_line(&pool->table, &pool->table.lines[i]);
        }
    }
    const int64_t until = yk_clock_ns() + STOP_GRACE_NS;
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].alive) {
            end_member(&pool->members[i], until);
        }
    }
    yk_exec_stop(pool);
    yk_template_uproot(&pool->own_template);
    yk_keeper_drop();
    free(pool->groups);
    pool->groups = NULL;
}

int yk_processes_start(struct yoke_pool *pool)
{
    int rc = yk_keeper_hold();
    if (rc != 0) {
        return rc;
    }
    pool->next_tick_ns = YOKE_FOREVER;
    rc = pool->exec != NULL ? yk_exec_first(pool) : 0;
    rc = rc == 0 ? yk_keeper_call(start_all, pool) : rc;
    for (uint32_t i = 0; i < pool->config.workers && rc == 0; i++) {
        rc = await_ready(pool, i);
    }
    rc = rc == 0 ? yk_keeper_call(begin_watching, pool) : rc;
    if (rc != 0) {
        yk_processes_stop(pool);
    }
    return rc;
}
