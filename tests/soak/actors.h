/* SPDX-License-Identifier: MIT
 * actors.h - the kinds of things the soak does at the same time: tasks, maps, processes, threads,
 * blocks, pools that come and go; and those that kill, stop and squeeze.
 */
#ifndef YOKE_TESTS_SOAK_ACTORS_H
#define YOKE_TESTS_SOAK_ACTORS_H

#include "soak.h"

enum { SOAK_BATCH = 12, SOAK_ITEMS = 300, SOAK_BIG = 40000 };

/* ---- tasks --------------------------------------------------------------------------------- */

enum soak_mode { SOAK_PLAIN, SOAK_BUSY, SOAK_RESULT, SOAK_LATE, SOAK_CANCEL, SOAK_MODES };

struct soak_input {
    struct soak_ticket *ticket;
    uint64_t x;
    int mode;
};

static inline uint64_t soak_answer(uint64_t x)
{
    uint64_t state = x, sum = 0;
    for (unsigned i = 0; i < 300 + x % 700; i++)
        sum ^= random_next(&state);
    return sum;
}

/* Not for ever, whatever happens to the cancel: then the task is OK, and that is a failure. */
static inline int soak_linger(yoke_task *task)
{
    const int64_t until = yoke_in_ms((int64_t)SOAK_WAIT_MS * check_slowness() / 2);
    while (yoke_now_ns() < until) {
        if (yoke_task_cancelled(task))
            return 9;
        breathe();
    }
    return 0;
}

static int soak_task(yoke_task *task, const void *in, void *out)
{
    struct soak_input input;
    memcpy(&input, in, sizeof input);
    count_up(&input.ticket->starts, 1);
    uint64_t answer = soak_answer(input.x);
    if (input.mode == SOAK_BUSY) {
        volatile uint64_t sink = 0; /* so that it is really computed */
        for (unsigned i = 0; i < 100; i++)
            sink = sink ^ soak_answer(input.x + i);
    }
    if ((input.mode == SOAK_LATE || input.mode == SOAK_CANCEL) && soak_linger(task))
        return 9;
    if (input.mode == SOAK_RESULT) {
        const size_t bytes = 64 + input.x % SOAK_BIG;
        (void)!yoke_task_result(task, bytes / 2 + 1); /* to be replaced */
        unsigned char *const block = yoke_task_result(task, bytes);
        if (block == NULL)
            return 7;
        memset(block, (int)(answer & 0xFF), bytes);
    } else {
        memcpy(out, &answer, sizeof answer);
    }
    count_up(&input.ticket->ends, 1);
    return 0;
}

struct soak_job {
    yoke_job *job;
    struct soak_input input;
    unsigned retries;
    long squeezes;
};

static inline void soak_check_result(struct soak_actor *actor, const struct soak_job *job,
                                     const void *out, size_t bytes)
{
    const uint64_t answer = soak_answer(job->input.x);
    if (job->input.mode == SOAK_RESULT) {
        const unsigned char *const block = out;
        if (block == NULL || bytes != 64 + job->input.x % SOAK_BIG)
            soak_fail(actor, "the result has the wrong size", (long)bytes, 0);
        for (size_t i = 0; i < bytes; i++)
            if (block[i] != (answer & 0xFF))
                soak_fail(actor, "the result is wrong at", (long)i, block[i]);
    } else if (out == NULL || memcmp(out, &answer, sizeof answer) != 0) {
        soak_fail(actor, "the result is wrong", (long)job->input.x, job->input.mode);
    }
}

static inline void soak_finish(struct soak_actor *actor, struct soak_job *job)
{
    soak_doing(actor, "yoke_wait");
    const int rc = yoke_wait(job->job, soak_until());
    if (rc != 0)
        soak_lost(actor, "a task never ended; yoke_wait gave", rc, job->input.mode);
    yoke_outcome outcome = {.kind = -1};
    const void *out = NULL;
    size_t bytes = 0;
    CHECK_RC(yoke_job_result(job->job, &outcome, &out, &bytes), 0);
    soak_judge(actor, job->input.ticket, &outcome, job->retries);
    if (outcome.kind == YOKE_OK)
        soak_check_result(actor, job, out, bytes);
    const int mode = job->input.mode;
    if (outcome.kind == YOKE_OK && (mode == SOAK_LATE || mode == SOAK_CANCEL))
        soak_fail(actor, "lingered to the end: nobody told it", mode, 0);
    if (outcome.kind == YOKE_TIMEDOUT && mode != SOAK_LATE)
        soak_fail(actor, "timed out without a timeout", mode, 0);
    if (outcome.kind == YOKE_CANCELLED && mode != SOAK_CANCEL)
        soak_fail(actor, "cancelled, and nobody did", mode, 0);
    if (outcome.kind == YOKE_FAILED && !(outcome.code == 7 && mode == SOAK_RESULT))
        soak_fail(actor, "failed with code", outcome.code, mode);
    yoke_job_release(job->job);
}

static inline int soak_mode_of(struct soak_actor *actor)
{
    /* Where kills are to come fast, tasks that linger are rare, and most are there to be hit. */
    const int fast = soak.kills_wanted != 0;
    const uint64_t dice = soak_random(actor, fast ? 400 : 40);
    return dice == 0                  ? SOAK_LATE
           : dice < 3                 ? SOAK_CANCEL
           : dice < (fast ? 40 : 10)  ? SOAK_RESULT
           : dice < (fast ? 300 : 20) ? SOAK_BUSY
                                      : SOAK_PLAIN;
}

static inline int soak_victim(struct soak_actor *actor, yoke_pool *pool)
{
    int pids[16];
    const int n = yoke_pool_worker_ids(pool, pids, 16);
    return n > 0 ? pids[soak_random(actor, (uint64_t)(n < 16 ? n : 16))] : -1;
}

static inline int soak_kill(struct soak_actor *actor, yoke_pool *pool)
{
    const int pid = soak_victim(actor, pool);
    const int hit = pid > 0 ? signal_child(pid, SIGKILL) : 0;
    count_up(&soak.figures->kills, hit);
    return hit;
}

/* A batch of tasks of all modes; `kill` one of the workers meanwhile. Returns whether that hit. */
static inline int soak_batch(struct soak_actor *actor, yoke_pool *pool, unsigned count, int kill)
{
    struct soak_job jobs[SOAK_BATCH];
    unsigned made = 0;
    int hit = 0;
    soak_doing(actor, "yoke_submit");
    for (unsigned i = 0; i < count; i++) {
        struct soak_job *const job = &jobs[made];
        *job = (struct soak_job){.input = {.ticket = soak_ticket_take(actor),
                                           .x = random_next(&actor->random),
                                           .mode = soak_mode_of(actor)},
                                 .retries = (unsigned)soak_random(actor, 3),
                                 .squeezes = count_get(&soak.squeezes)};
        const yoke_options options = {.size = sizeof options,
                                      .retries = job->retries,
                                      .timeout_ns = job->input.mode == SOAK_LATE ? 3000000 : 0};
        const int rc = yoke_submit(pool, soak_task, &job->input, sizeof job->input,
                                   sizeof(uint64_t), &options, &job->job);
        if (rc != 0 && !soak_may_refuse(rc, job->squeezes))
            soak_fail(actor, "yoke_submit gave", rc, 0);
        count_up(&soak.figures->refused, rc != 0);
        made += rc == 0;
    }
    if (kill) {
        const int64_t until = yoke_now_ns() + (int64_t)soak_random(actor, 300000);
        while (yoke_now_ns() < until)
            sched_yield();
        hit = soak_kill(actor, pool);
    }
    for (unsigned i = 0; i < made; i++)
        if (jobs[i].input.mode == SOAK_CANCEL)
            (void)yoke_job_cancel(jobs[i].job, 1);
    for (unsigned i = 0; i < made; i++)
        soak_finish(actor, &jobs[i]);
    return hit;
}

static void soak_submit_step(struct soak_actor *actor)
{
    soak_batch(actor, soak.pools[actor->pool].pool, 1 + (unsigned)soak_random(actor, SOAK_BATCH),
               0);
}

/* ---- maps ---------------------------------------------------------------------------------- */

struct soak_map {
    uint64_t in[SOAK_ITEMS], out[SOAK_ITEMS];
    yoke_outcome outcomes[SOAK_ITEMS];
};

static int soak_item(yoke_task *task, const void *in, void *out)
{
    struct soak_ticket *const tickets = *(struct soak_ticket *const *)yoke_task_context(task);
    struct soak_ticket *const ticket = &tickets[yoke_task_item(task)];
    count_up(&ticket->starts, 1);
    *(uint64_t *)out = soak_answer(*(const uint64_t *)in);
    count_up(&ticket->ends, 1);
    return 0;
}

static inline void soak_map_run(struct soak_actor *actor, yoke_pool *pool, size_t count)
{
    /* Half the time in shared memory, where workers use it as it is. */
    const long squeezes = count_get(&soak.squeezes);
    struct soak_map *shared = soak_random(actor, 2) ? yoke_shared_alloc(sizeof *shared) : NULL;
    struct soak_map *const map = shared ? shared : actor->state;
    struct soak_ticket *const tickets = actor->tickets;
    const unsigned retries = (unsigned)soak_random(actor, 3);
    for (size_t i = 0; i < count; i++) {
        map->in[i] = random_next(&actor->random);
        map->out[i] = 0;
        (void)soak_ticket_fresh(actor, (unsigned)i);
    }
    const yoke_options options = {.size = sizeof options,
                                  .context = &tickets,
                                  .context_bytes = sizeof tickets,
                                  .retries = retries,
                                  .outcomes = map->outcomes};
    soak_doing(actor, "yoke_map");
    const int rc = yoke_map(pool, soak_item, map->in, 8, map->out, 8, count, &options);
    if (rc != 0 && rc != YOKE_ETASK) {
        if (!soak_may_refuse(rc, squeezes))
            soak_fail(actor, "yoke_map gave", rc, 0);
        count_up(&soak.figures->refused, 1);
        for (size_t i = 0; i < count; i++)
            tickets[i].starts_then = count_get(&tickets[i].starts);
        yoke_shared_free(shared);
        return;
    }
    long bad = 0;
    for (size_t i = 0; i < count; i++) {
        const yoke_outcome *const outcome = &map->outcomes[i];
        soak_judge(actor, &tickets[i], outcome, retries);
        bad += outcome->kind != YOKE_OK;
        if (outcome->kind != YOKE_OK && outcome->kind != YOKE_CRASHED)
            soak_fail(actor, "an item ended as", outcome->kind, outcome->code);
        if (outcome->kind == YOKE_OK && map->out[i] != soak_answer(map->in[i]))
            soak_fail(actor, "an item's result is wrong", (long)i, 0);
    }
    if ((rc == 0) != (bad == 0))
        soak_fail(actor, "yoke_map and its outcomes differ", rc, bad);
    count_up(&soak.figures->items, (long)count);
    yoke_shared_free(shared);
}

static void soak_map_step(struct soak_actor *actor)
{
    soak_map_run(actor, soak.pools[actor->pool].pool, 1 + soak_random(actor, SOAK_ITEMS));
}

/* ---- single processes and threads ------------------------------------------------------------ */

static int soak_process_body(void *arg)
{
    struct soak_ticket *const ticket = arg;
    count_up(&ticket->starts, 1);
    while (count_get(&ticket->linger))
        breathe();
    count_up(&ticket->ends, 1);
    return 42;
}

static void soak_process_step(struct soak_actor *actor)
{
    struct soak_ticket *const ticket = soak_ticket_take(actor);
    const int kill = (int)soak_random(actor, 3) == 0;
    const yoke_process_config config = {.size = sizeof config,
                                        .image = soak_random(actor, 2) ? YOKE_SEED : YOKE_SNAPSHOT};
    const long squeezes = count_get(&soak.squeezes);
    count_set(&ticket->linger, kill);
    yoke_process *process = NULL;
    soak_doing(actor, "yoke_process_start");
    const int rc = yoke_process_start(&config, soak_process_body, ticket, &process);
    if (rc != 0) {
        if (!soak_may_refuse(rc, squeezes))
            soak_fail(actor, "yoke_process_start gave", rc, config.image);
        count_up(&soak.figures->refused, 1);
        return;
    }
    if (kill)
        CHECK_RC(yoke_process_kill(process), 0);
    yoke_process_end end = {0};
    soak_doing(actor, "yoke_process_wait");
    if (yoke_process_wait(process, soak_until(), &end) != 0)
        soak_lost(actor, "a process never ended", end.code, end.signal);
    const long starts = count_get(&ticket->starts), ends = count_get(&ticket->ends);
    if (starts > 1 || ends > 1)
        soak_doubled(actor, "a process ran more than once", starts, ends);
    if (!kill && (starts != 1 || ends != 1 || end.code != 42 || end.signal != 0))
        soak_lost(actor, "a process did not do its work", end.code, end.signal);
    if (kill && (end.signal != SIGKILL || ends != 0))
        soak_fail(actor, "a killed process ended as", end.code, end.signal);
    ticket->starts_then = starts;
    count_up(&soak.figures->processes, 1);
    count_up(&soak.figures->process_kills, kill);
    yoke_process_release(process);
}

/* The library keeps a copy of the seed ready after each of these: so there is one. */
static inline void soak_seed_process(struct soak_actor *actor)
{
    struct soak_ticket *const ticket = soak_ticket_take(actor);
    const yoke_process_config config = {.size = sizeof config, .image = YOKE_SEED};
    yoke_process *process = NULL;
    CHECK_RC(yoke_process_start(&config, soak_process_body, ticket, &process), 0);
    CHECK_RC(yoke_process_wait(process, soak_until(), NULL), 0);
    ticket->starts_then = count_get(&ticket->starts);
    CHECK_EQ(ticket->starts_then, 1);
    yoke_process_release(process);
}

static int soak_thread_body(void *arg)
{
    struct soak_ticket *const ticket = arg;
    count_up(&ticket->starts, 1);
    const int rc = count_get(&ticket->linger) ? yoke_sleep_until(soak_until()) : 0;
    count_up(&ticket->ends, 1);
    return rc;
}

static void soak_thread_step(struct soak_actor *actor)
{
    struct soak_ticket *const ticket = soak_ticket_take(actor);
    const int interrupt = (int)soak_random(actor, 2);
    count_set(&ticket->linger, interrupt);
    yoke_thread *thread = NULL;
    soak_doing(actor, "yoke_thread_start");
    CHECK_RC(yoke_thread_start(NULL, soak_thread_body, ticket, &thread), 0);
    if (interrupt)
        CHECK_RC(yoke_thread_interrupt(thread), 0);
    int code = -1;
    soak_doing(actor, "yoke_thread_wait");
    CHECK_RC(yoke_thread_wait(thread, soak_until(), &code), 0);
    CHECK_EQ(code, interrupt ? -ECANCELED : 0);
    CHECK_EQ(count_get(&ticket->starts), 1);
    CHECK_EQ(count_get(&ticket->ends), 1);
    ticket->starts_then = 1;
    count_up(&soak.figures->threads, 1);
    yoke_thread_release(thread);
    breathe();
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void soak_heap_step(struct soak_actor *actor)
{
    enum { BLOCKS = 64 };
    unsigned char *blocks[BLOCKS];
    size_t bytes[BLOCKS];
    soak_doing(actor, "yoke_shared_alloc");
    for (int i = 0; i < BLOCKS; i++) {
        bytes[i] = 1 + (size_t)soak_random(actor, i % 16 == 0 ? 2000000 : 3000);
        blocks[i] = yoke_shared_alloc(bytes[i]);
        count_up(blocks[i] ? &soak.figures->blocks : &soak.figures->refused, 1);
        if (blocks[i] != NULL) {
            blocks[i][0] = (unsigned char)i;
            blocks[i][bytes[i] - 1] = (unsigned char)i;
        }
    }
    for (int i = 0; i < BLOCKS; i++) {
        if (blocks[i] != NULL &&
            (blocks[i][bytes[i] - 1] != i || (bytes[i] > 1 && blocks[i][0] != i)))
            soak_fail(actor, "somebody else wrote into a block", i, (long)bytes[i]);
        yoke_shared_free(blocks[i]);
    }
    breathe();
}

/* ---- pools that come and go -------------------------------------------------------------------- */

static void soak_churn_step(struct soak_actor *actor)
{
    const int kind = soak_random(actor, 3) ? YOKE_PROCESSES : YOKE_THREADS;
    const yoke_pool_config config = {
        .size = sizeof config,
        .kind = kind,
        .image = kind == YOKE_PROCESSES && soak_random(actor, 2) ? YOKE_SEED : YOKE_SNAPSHOT,
        .workers = 1 + (unsigned)soak_random(actor, 3)};
    const long squeezes = count_get(&soak.squeezes);
    const long template_tries = count_get(&soak.template_tries);
    yoke_pool *pool = NULL;
    soak_doing(actor, "yoke_pool_create");
    const int rc = yoke_pool_create(&config, &pool);
    if (rc != 0) {
        /* Its template may have been the one that was killed, or a copy that had no name yet. */
        const int killed = template_tries % 2 || count_get(&soak.template_tries) != template_tries;
        if (!soak_may_refuse(rc, squeezes) && !(killed && (rc == -EAGAIN || rc == YOKE_EINIT)))
            soak_fail(actor, "yoke_pool_create gave", rc, kind);
        count_up(&soak.figures->refused, 1);
        return;
    }
    const unsigned rounds = (unsigned)soak_random(actor, 4);
    for (unsigned i = 0; i < rounds; i++)
        (void)soak_batch(actor, pool, 4, kind == YOKE_PROCESSES && soak_random(actor, 2));
    soak_doing(actor, "yoke_pool_destroy");
    int ended = yoke_pool_destroy(pool, soak_random(actor, 2) ? soak_until() : 0);
    if (ended == -EBUSY && kind == YOKE_THREADS) /* no CPU for its threads just now */
        ended = yoke_pool_destroy(pool, soak_until());
    CHECK_RC(ended, 0);
    count_up(&soak.figures->pools, 1);
}

/* ---- those that disturb ------------------------------------------------------------------------ */

/* Something came to an end since the last kill, so no pool gives up. */
static inline int soak_has_moved(struct soak_pool *entry)
{
    const yoke_pool_stats stats = stats_of(entry->pool);
    const int moved = stats.tasks > entry->tasks_then;
    entry->tasks_then = moved ? stats.tasks : entry->tasks_then;
    return moved;
}

static inline int is_template(const struct proc_info *one)
{
    return one->ppid == getpid() && one->pid != soak.seed && one->state == 'S' &&
           strcmp(one->name, "yoke-template") == 0;
}

/* A template of a pool, not the seed: that one is dead for good once it is killed. */
static inline int soak_template(void)
{
    int found = -1;
    pthread_mutex_lock(&soak.looks);
    struct proc_info *const list = malloc(CHECK_PROCS * sizeof *list);
    CHECK(list != NULL);
    const size_t n = proc_list(list, CHECK_PROCS);
    for (size_t i = 0; i < n; i++)
        if (is_template(&list[i]))
            found = list[i].pid;
    /* Nor a copy that has no name of its own yet: a template sleeps. */
    for (int64_t until = yoke_in_ms(3); found > 0 && yoke_now_ns() < until;)
        breathe();
    if (found > 0 && !(proc_read(found, &list[0]) && is_template(&list[0])))
        found = -1;
    free(list);
    pthread_mutex_unlock(&soak.looks);
    return found;
}

static void soak_stop_and_go(struct soak_actor *actor, int pid)
{
    pthread_mutex_lock(&soak.looks); /* SIGCONT needs a descriptor too */
    if (signal_child(pid, SIGSTOP)) {
        count_up(&soak.figures->stops, 1);
        const int64_t until = yoke_in_ms(1 + (int64_t)soak_random(actor, 30));
        while (yoke_now_ns() < until)
            breathe();
        (void)signal_child(pid, SIGCONT);
    }
    pthread_mutex_unlock(&soak.looks);
}

static void soak_disturb_step(struct soak_actor *actor)
{
    struct soak_pool *const entry = &soak.pools[soak_random(actor, soak.pool_count)];
    soak_doing(actor, "killing");
    breathe();
    const uint64_t dice = soak_random(actor, 200);
    if (entry->kind != YOKE_PROCESSES)
        return;
    if (dice < 2) {
        count_up(&soak.template_tries, 1); /* odd: one is under way */
        const int pid = soak_template();
        if (pid > 0 && dice == 0)
            count_up(&soak.figures->template_kills, signal_child(pid, SIGKILL));
        else if (pid > 0)
            soak_stop_and_go(actor, pid);
        count_up(&soak.template_tries, 1);
    } else if (dice < 12) {
        const int pid = soak_victim(actor, entry->pool);
        if (pid > 0)
            soak_stop_and_go(actor, pid);
    } else if (soak_has_moved(entry)) {
        (void)soak_kill(actor, entry->pool);
    }
}

/* For a tenth of a second there is next to no heap, or no descriptor, to be had. */
static void soak_squeeze_step(struct soak_actor *actor)
{
    static int64_t next_ns;
    breathe();
    if (yoke_now_ns() < next_ns)
        return;
    next_ns = yoke_in_ms(700);
    soak_doing(actor, "squeezing");
    const int descriptors = (int)soak_random(actor, 2);
    pthread_mutex_lock(&soak.looks);
    count_set(&soak.squeezed, 1);
    count_up(&soak.squeezes, 1);
    struct rlimit old;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    if (descriptors) {
        const struct rlimit few = {.rlim_cur = (rlim_t)count_fds() + 1, .rlim_max = old.rlim_max};
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    } else {
        CHECK_RC(yoke_heap_limit(1 << 20), 0);
    }
    for (int64_t until = yoke_in_ms(100); yoke_now_ns() < until;)
        breathe();
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    CHECK_RC(yoke_heap_limit(stats.limit_bytes), 0);
    count_up(&soak.squeezes, 1);
    count_set(&soak.squeezed, 0);
    pthread_mutex_unlock(&soak.looks);
}

/* ---- kills as fast as they come ------------------------------------------------------------------ */

/* A kill amid tasks, then tasks until the pool is seen to have buried the dead: none is idle. */
static void soak_fast_kill_step(struct soak_actor *actor)
{
    yoke_pool *const pool = soak.pools[actor->pool].pool;
    yoke_pool_stats before = {.size = sizeof before}, now = {.size = sizeof now};
    CHECK_RC(yoke_pool_stats_get(pool, &before), 0);
    const int hit = soak_batch(actor, pool, 1 + (unsigned)soak_random(actor, 4), 1);
    const int64_t until = soak_until();
    do {
        soak_batch(actor, pool, 1, 0);
        CHECK_RC(yoke_pool_stats_get(pool, &now), 0);
        if (yoke_now_ns() > until)
            soak_lost(actor, "a death was never noticed", (long)now.died, (long)before.died);
    } while (hit && now.died == before.died);
}

#endif
