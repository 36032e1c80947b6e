/* SPDX-License-Identifier: MIT
 * pool.c - making a pool, ending it, asking how it is.   Room: pool.
 *
 * A pool is a table (table.h), the program's side of it (dispatch.c) and an engine that keeps
 * workers alive (threads.c, processes.c). The struct outlives yoke_pool_destroy until the last
 * job is released.
 */
#include <errno.h>
#include <stdlib.h>

#include "memory/heap.h"
#include "pool/deque.h"
#include "pool/exec.h"
#include "pool/governor.h"
#include "pool/pool_private.h"
#include <yoke/memory.h>

#define SPINS_MAX 4000    /* about 100 us, where a wake takes 20 to 50 */
#define SPINS_CROWDED 200 /* whoever looks may keep one from working who has something to do */
#define THREAD_IDLE_NS 1000000000LL
#define AUTO_MAX 1024U
#define STOP_NS 100000000LL /* for threads to notice that they should stop */

int yk_pool_check(struct yoke_pool *pool)
{
    if (pool == NULL) {
        return -EINVAL;
    }
    if (yk_worker_role()) {
        return YOKE_ENESTED;
    }
    return YK_LIKELY(yk_pool_is_ours(pool)) ? 0 : yk_pool_revive(pool);
}

int yk_options_read(yoke_options *out, const yoke_options *options)
{
    const int rc = yk_settings_read(out, sizeof *out, options);
    if (rc != 0) {
        return rc;
    }
    const bool sound = out->timeout_ns >= 0 && out->context_bytes <= PTRDIFF_MAX &&
                       (out->context != NULL || out->context_bytes == 0);
    return sound ? 0 : -EINVAL;
}

void *yk_pool_alloc(struct yoke_pool *pool, size_t bytes)
{
    return pool->kind == YOKE_PROCESSES ? yk_heap_alloc(bytes) : malloc(bytes);
}

void yk_pool_free(struct yoke_pool *pool, void *block)
{
    if (pool->kind == YOKE_PROCESSES) {
        yk_heap_free(block);
    } else {
        free(block);
    }
}

int yk_pool_translate(struct yoke_pool *pool, uintptr_t *name)
{
    const uintptr_t fn = *name;
    if (pool->exec == NULL && yk_pool_knows(pool, fn)) {
        return 0;
    }
    int rc = 0;
    if (pool->exec != NULL) {
        rc = yk_exec_translate(pool, name);
    } else if (pool->kind == YOKE_PROCESSES) {
        /* SYNC(template) acquire: sees the template that was planted. */
        rc = yk_template_holds(atomic_load_explicit(&pool->template, memory_order_acquire), fn);
    }
    if (rc == 0 && pool->kind != YOKE_SERIAL) {
        const size_t at = (fn >> 4) % YK_COUNT_OF(pool->known_fns);
        /* relaxed: the address is all there is to see. */
        atomic_store_explicit(&pool->known_fns[at], fn, memory_order_relaxed);
    }
    return rc;
}

/* --- create --------------------------------------------------------------------------------- */

static int check_keep_fds(const yoke_pool_config *config)
{
    if ((config->keep_fds == NULL) != (config->keep_fd_count == 0)) {
        return -EINVAL;
    }
    if (config->keep_fd_count != 0 &&
        (config->kind != YOKE_PROCESSES || config->image == YOKE_SEED)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < config->keep_fd_count; i++) {
        if (!yk_fd_is_open(config->keep_fds[i])) {
            return -EBADF;
        }
    }
    return 0;
}

/* Of threads none of it could be kept. */
static int check_control(const yoke_pool_config *config)
{
    const yoke_limits *const limits = &config->limits;
    const bool limited = limits->memory_bytes != 0 || limits->cpu_ns != 0 ||
                         limits->file_bytes != 0 || limits->files != 0;
    const bool told = config->interrupt_grace_ns != 0 || config->terminate_grace_ns != 0;
    if (config->kind != YOKE_PROCESSES) {
        return limited || told || config->tasks_max != 0 ? -EINVAL : 0;
    }
    const bool sound =
        config->interrupt_grace_ns >= 0 && config->terminate_grace_ns >= 0 && limits->cpu_ns >= 0;
    return sound ? 0 : -EINVAL;
}

/* The hooks are that program's own, and its memory is not ours. */
static int check_exec(const yoke_pool_config *config)
{
    if (config->image != YOKE_EXEC) {
        return config->argv != NULL || config->env != NULL ? -EINVAL : 0;
    }
    const bool sound = config->argv != NULL && config->argv[0] != NULL &&
                       config->argv[0][0] != '\0' && config->worker_init == NULL &&
                       config->worker_exit == NULL && config->hooks == NULL;
    return sound ? 0 : -EINVAL;
}

static int check_processes(const yoke_pool_config *config)
{
    if (config->kind != YOKE_PROCESSES) {
        return config->image != YOKE_SNAPSHOT ? -EINVAL : check_exec(config);
    }
    if (config->workers_max != config->workers || config->image < YOKE_SNAPSHOT ||
        config->image > YOKE_EXEC || check_exec(config) != 0) {
        return -EINVAL;
    }
    return config->image == YOKE_SEED && yk_seed() == NULL ? -ESRCH : 0;
}

/* Fill in the defaults; refuse what makes no sense. */
static int complete_config(yoke_pool_config *config)
{
    if (config->kind == YOKE_AUTO && config->workers_max == 0) {
        config->workers_max = (unsigned)yk_max(AUTO_MAX, config->workers);
    }
    if (config->kind == 0 || config->kind == YOKE_AUTO) {
        config->kind = YOKE_THREADS;
    }
    if (config->kind < YOKE_SERIAL || config->kind > YOKE_PROCESSES) {
        return -EINVAL;
    }
    if (config->workers == 0) {
        config->workers = (unsigned)yk_min(yoke_cpu_count(), YK_WORKERS_MAX);
        if (config->kind == YOKE_THREADS && config->workers_max != 0) {
            config->workers = (unsigned)yk_min(config->workers, config->workers_max);
        }
    }
    if (config->workers_max == 0) {
        config->workers_max = config->workers;
    }
    if (config->workers > config->workers_max || config->workers > YK_WORKERS_MAX ||
        config->workers_max > (config->kind == YOKE_THREADS ? YK_THREADS_MAX : YK_WORKERS_MAX)) {
        return -EINVAL;
    }
    int rc = check_control(config);
    rc = rc == 0 ? check_processes(config) : rc;
    return rc != 0 ? rc : check_keep_fds(config);
}

/* Each worker can have a task in hand. */
static uint32_t slots_for(uint32_t workers)
{
    uint32_t slots = YK_TABLE_SLOTS;
    while (slots < workers) {
        slots *= 2;
    }
    return slots;
}

static size_t ctl_bytes(size_t slots, size_t lines)
{
    return sizeof(struct yk_ctl) + slots * sizeof(struct yk_slot) + lines * sizeof(struct yk_line);
}

static int make_ctl(struct yoke_pool *pool, uint32_t lines)
{
    const bool processes = pool->kind == YOKE_PROCESSES;
    const uint32_t slots = processes ? YK_TABLE_SLOTS : slots_for(pool->config.workers_max);
    const size_t bytes = ctl_bytes(slots, lines);
    void *block = NULL;
    if (processes) {
        /* Large enough to be aligned to a page. */
        block = yk_heap_alloc(bytes);
    } else if (yk_map_private(bytes, &block) != 0) {
        block = NULL;
    }
    if (block == NULL) {
        return -ENOMEM;
    }
    if (processes) {
        memset(block, 0, bytes);
    }
    struct yk_ctl *const ctl = block;
    ctl->processes = processes;
    ctl->pool = processes ? NULL : pool;
    ctl->generation = yk_process_generation();
    pool->table.ctl = ctl;
    pool->table.slots = (struct yk_slot *)(ctl + 1);
    pool->table.slot_mask = slots - 1;
    pool->table.lines = (struct yk_line *)(pool->table.slots + slots);
    pool->table.line_count = lines;
    pool->table.scope = ctl->processes ? YK_SHARED : YK_PRIVATE;
    ctl->table = pool->table;
    ctl->keep = pool->config.workers;
    atomic_init(&ctl->target, pool->config.workers);
    if (!processes) {
        ctl->follow_max = pool->follows ? pool->config.workers_max : 0;
        atomic_init(&ctl->cpus_seen, yk_cpus_look());
    }
    ctl->code = (struct yk_worker_code){
        .hooks = pool->hooks,
        .worker_init = pool->config.worker_init,
        .worker_exit = pool->config.worker_exit,
        .user = pool->config.user,
    };
    ctl->tasks_max = pool->config.tasks_max;
    ctl->limits = pool->config.limits;
    /* One CPU is the caller's, who looks too; with one in all, looking only keeps the others from
     * working. A pool that grows wants to know who is busy, so nobody counts on spinners there. */
    const unsigned cpus = yoke_cpu_count();
    const bool grows = yk_pool_is_elastic(pool);
    const bool several = pool->config.workers > 1 && !grows;
    const bool crowded = pool->config.workers_max >= cpus;
    ctl->idle_ns = grows ? THREAD_IDLE_NS : 0;
    ctl->spins = cpus == 1 ? 0 : crowded ? SPINS_CROWDED : SPINS_MAX;
    ctl->spinners_max = several ? cpus - 1 : 0;
    pool->spins_max = ctl->spins;
    pool->ctl = ctl;
    pool->ctl_bytes = bytes;
    pool->units = calloc(slots, sizeof(struct yk_unit *));
    return pool->units != NULL ? 0 : -ENOMEM;
}

bool yk_pool_inside_task(const struct yoke_pool *pool)
{
    for (const struct yoke_task *task = yk_task_own(); task != NULL; task = task->outer) {
        if (task->worker != NULL && task->worker->ctl == pool->ctl) {
            return true;
        }
    }
    return false;
}

bool yk_threads_inside_task(void)
{
    for (const struct yoke_task *task = yk_task_own(); task != NULL; task = task->outer) {
        const struct yoke_worker *const worker = task->worker;
        /* In a child that was forked in the task, it is nobody's. */
        if (worker != NULL && !worker->ctl->processes &&
            worker->ctl->generation == yk_process_generation()) {
            return true;
        }
    }
    return false;
}

static void free_ctl(struct yoke_pool *pool)
{
    if (pool->ctl == NULL) {
        return;
    }
    if (pool->kind == YOKE_PROCESSES) {
        yk_heap_free(pool->ctl);
    } else {
        yk_unmap(pool->ctl, pool->ctl_bytes);
    }
    pool->ctl = NULL;
}

/* The image may have to be made again, long after the caller's array is gone. */
static int copy_keep_fds(struct yoke_pool *pool)
{
    const size_t count = pool->config.keep_fd_count;
    if (count == 0) {
        return 0;
    }
    pool->keep_fds = calloc(count, sizeof *pool->keep_fds);
    if (pool->keep_fds == NULL) {
        return -ENOMEM;
    }
    memcpy(pool->keep_fds, pool->config.keep_fds, count * sizeof *pool->keep_fds);
    pool->config.keep_fds = pool->keep_fds;
    return 0;
}

int yk_pool_engine_start(struct yoke_pool *pool)
{
    const uint32_t spare = pool->kind == YOKE_PROCESSES ? 1 : 0;
    const uint32_t lines = pool->config.workers_max + spare;
    pool->members = calloc(lines, sizeof *pool->members);
    if (pool->members == NULL) {
        return -ENOMEM;
    }
    int rc = copy_keep_fds(pool);
    rc = rc == 0 ? make_ctl(pool, lines) : rc;
    rc = rc == 0 && pool->config.image == YOKE_EXEC ? yk_exec_prepare(pool) : rc;
    if (rc != 0) {
        return rc;
    }
    if (pool->kind == YOKE_PROCESSES) {
        return yk_processes_start(pool);
    }
    rc = yk_team_create(pool);
    rc = rc == 0 ? yk_governor_create(pool) : rc;
    return rc == 0 ? yk_threads_start(pool) : rc;
}

/* What the caller gave, with the defaults filled in. */
static int prepare(const yoke_pool_config *config, struct yoke_pool *pool)
{
    yoke_pool_config *const settings = &pool->config;
    int rc = yk_worker_role() ? YOKE_ENESTED : 0;
    rc = rc == 0 ? yk_settings_read(settings, sizeof *settings, config) : rc;
    if (rc == 0) {
        pool->automatic = settings->kind == YOKE_AUTO;
        pool->follows = settings->workers == 0;
        rc = complete_config(settings);
        pool->kind = settings->kind;
    }
    rc = rc == 0 ? yk_settings_read(&pool->hooks, sizeof pool->hooks, settings->hooks) : rc;
    if (rc == 0 && settings->kind == YOKE_PROCESSES) {
        rc = yk_heap_open();
    }
    if (rc == 0 && settings->heap_max_bytes != 0) {
        rc = yoke_heap_limit(settings->heap_max_bytes);
    }
    return rc;
}

void yk_pool_parts_free(struct yoke_pool *pool)
{
    yk_exec_release(pool);
    yk_posts_free(pool);
    yk_team_destroy(pool->team);
    yk_governor_free(pool);
    free_ctl(pool);
    free(pool->units);
    free(pool->members);
    free(pool->keep_fds);
}

int yoke_pool_create(const yoke_pool_config *config, yoke_pool **pool)
{
    if (pool == NULL) {
        return -EINVAL;
    }
    struct yoke_pool *const made = calloc(1, sizeof *made);
    if (made == NULL) {
        return -ENOMEM;
    }
    int rc = prepare(config, made);
    if (rc != 0) {
        free(made);
        return rc;
    }
    atomic_init(&made->generation, yk_process_generation());
    made->backlog_end = &made->backlog;
    rc = made->kind == YOKE_SERIAL ? 0 : yk_pool_engine_start(made);
    if (rc != 0) {
        yk_pool_parts_free(made);
        free(made);
        return rc;
    }
    yk_biased_init(&made->lock); /* now: it was the keeper's until here */
    *pool = made;
    return 0;
}

/* --- destroy -------------------------------------------------------------------------------- */

void yk_pool_forget(struct yoke_pool *pool)
{
    if (pool != NULL) {
        /* Who released a job before us may still be on its way out of the lock. */
        yk_biased_fini(&pool->lock);
        free(pool);
    }
}

/* Jobs that were not released stay readable; the last of them frees the pool. */
static void free_after_last_job(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    pool->destroyed = true;
    yk_jobs_free_spare_locked(pool);
    const bool last = pool->jobs_out == 0;
    yk_biased_unlock(&pool->lock);
    if (last) {
        yk_pool_forget(pool);
    }
}

bool yk_pool_drained_locked(struct yoke_pool *pool)
{
    yk_pool_collect_all_locked(pool);
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
        if (pool->units[i] != NULL && yk_unit_notify_locked(pool, pool->units[i])) {
            yk_unit_poll_locked(pool, pool->units[i]);
        }
    }
    return pool->in_flight == 0 && yk_posts_count(pool).in_flight == 0 &&
           (pool->team == NULL || !yk_team_is_busy(pool->team));
}

/* Wait until no task is under way; false: there still are at until_ns. */
static bool drain_some(struct yoke_pool *pool, int64_t until_ns)
{
    for (;;) {
        const uint32_t event = yk_pool_event(pool);
        yk_biased_lock(&pool->lock);
        const bool over = yk_pool_drained_locked(pool);
        yk_biased_unlock(&pool->lock);
        if (over) {
            return true;
        }
        if (yk_clock_ns() >= until_ns) {
            return false;
        }
        yk_pool_await_for_sure(pool, event, until_ns);
    }
}

static bool drain(struct yoke_pool *pool, int64_t until_ns)
{
    struct yk_posts *const posts = yk_posts_drain_begin(pool);
    const bool drained = drain_some(pool, until_ns);
    yk_posts_drain_end(posts);
    return drained;
}

/* Nothing begins any more; what runs is told, or killed. */
static void stop_work(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    pool->stopping = true;
    yk_pool_revoke_all_locked(pool);
    if (pool->kind == YOKE_PROCESSES) {
        yk_processes_kill_all_locked(pool);
    }
    for (uint32_t i = 0; i < yk_pool_slots(pool); i++) {
        if (pool->units[i] != NULL) {
            yk_unit_cancel_locked(pool, pool->units[i]);
        }
    }
    yk_biased_unlock(&pool->lock);
    yk_cancel_flush();
}

static int end_work(struct yoke_pool *pool, int64_t until_ns)
{
    if (drain(pool, until_ns)) {
        return 0;
    }
    stop_work(pool);
    yk_posts_stop(pool);
    const bool threads = pool->kind == YOKE_THREADS;
    return drain(pool, threads ? yk_clock_ns() + STOP_NS : YOKE_FOREVER) ? -ETIMEDOUT : -EBUSY;
}

int yoke_pool_destroy(yoke_pool *pool, int64_t until_ns)
{
    if (pool != NULL && !yk_worker_role() && !yk_pool_is_ours(pool)) {
        return yk_pool_disown(pool);
    }
    int rc = yk_pool_check(pool);
    if (rc != 0) {
        return rc;
    }
    if (yk_pool_inside_task(pool)) {
        return -EDEADLK;
    }
    if (pool->kind != YOKE_SERIAL) {
        yk_biased_lock(&pool->lock);
        pool->closed = pool->closed != 0 ? pool->closed : YOKE_ECLOSED;
        yk_biased_unlock(&pool->lock);
        yk_posts_close(pool);
        rc = end_work(pool, until_ns);
        if (rc == -EBUSY) {
            return rc;
        }
        if (pool->kind == YOKE_PROCESSES) {
            yk_processes_stop(pool);
        } else {
            const int64_t grace = yk_clock_ns() + STOP_NS;
            if (!yk_threads_stop(pool, grace > until_ns ? grace : until_ns)) {
                return -EBUSY;
            }
        }
    }
    yk_cancel_hook_remove(&pool->cancel_hook);
    yk_pool_parts_free(pool);
    free_after_last_job(pool);
    return rc;
}

int yk_pool_closed(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    const int closed = pool->closed;
    const bool stopping = pool->stopping;
    yk_biased_unlock(&pool->lock);
    /* A pool that lets its tasks finish lets them finish what they start. */
    return closed != 0 && !stopping && yk_pool_inside_task(pool) ? 0 : closed;
}

void yk_pool_count(struct yoke_pool *pool, uint64_t tasks)
{
    yk_biased_lock(&pool->lock);
    pool->tasks += tasks;
    const bool watched = pool->watchers != 0;
    yk_biased_unlock(&pool->lock);
    if (watched) {
        yk_table_announce(&pool->table);
    }
}

/* --- asking --------------------------------------------------------------------------------- */

int yoke_pool_stats_get(yoke_pool *pool, yoke_pool_stats *stats)
{
    yoke_pool_stats out;
    int rc = stats == NULL ? -EINVAL : yk_pool_check(pool);
    rc = rc == 0 ? yk_settings_read(&out, sizeof out, stats) : rc;
    if (rc != 0) {
        return rc;
    }
    const size_t given = out.size;
    const struct yk_posts_count posts = yk_posts_count(pool);
    yk_biased_lock(&pool->lock);
    out = (yoke_pool_stats){
        .size = given,
        .kind = pool->kind,
        .workers = pool->active,
        .spares = pool->alive - pool->active - pool->dying,
        .in_flight = pool->in_flight + (unsigned)posts.in_flight,
        .tasks = pool->tasks + posts.ended,
        .started = pool->started,
        .died = pool->died,
    };
    yk_biased_unlock(&pool->lock);
    memcpy(stats, &out, yk_min(given, sizeof out));
    return 0;
}

int yoke_pool_worker_ids(yoke_pool *pool, int *pids, size_t capacity)
{
    const int rc = pids == NULL && capacity != 0 ? -EINVAL : yk_pool_check(pool);
    if (rc != 0) {
        return rc;
    }
    int count = 0;
    yk_biased_lock(&pool->lock);
    for (uint32_t i = 0; pool->kind == YOKE_PROCESSES && i < pool->table.line_count; i++) {
        const struct yk_member *const member = &pool->members[i];
        if (!member->alive || !member->active) {
            continue;
        }
        if ((size_t)count < capacity) {
            pids[count] = member->pid;
        }
        count++;
    }
    yk_biased_unlock(&pool->lock);
    return count;
}
