/* SPDX-License-Identifier: MIT
 * test_api_hooks.c - worker_init, the hooks and main loops of one's own.
 *
 * Idea: everything that happens is written into one log in shared memory, in the order it
 * happened; the log is then held against the order the header promises.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

enum event { START = 1, INIT, MAIN, EXIT, BEFORE, AFTER, TASK };

struct entry {
    atomic_long event;
    long worker, pid;
    pthread_t thread;
};

enum { ENTRIES = 4096 };

struct book {
    atomic_long count, inits, fail_from, closed;
    struct entry entries[ENTRIES];
};

static void note(struct book *book, enum event event, unsigned worker)
{
    const long at = count_up(&book->count, 1);
    if (at >= ENTRIES)
        return;
    struct entry *entry = &book->entries[at];
    entry->worker = (long)worker;
    entry->pid = getpid();
    entry->thread = pthread_self();
    count_set(&entry->event, event);
}

static long how_many(const struct book *book, enum event event)
{
    long n = 0;
    for (long i = 0; i < count_get(&book->count); i++)
        n += count_get(&book->entries[i].event) == event;
    return n;
}

static void on_before(void *user)
{
    note(user, BEFORE, 0);
}
static void on_after(void *user)
{
    note(user, AFTER, 0);
}
static void on_start(unsigned worker, void *user)
{
    note(user, START, worker);
}
static void on_exit_of_worker(unsigned worker, void *user)
{
    note(user, EXIT, worker);
}

static int on_init(unsigned worker, void *user)
{
    struct book *book = user;
    note(book, INIT, worker);
    const long from = count_get(&book->fail_from);
    return from && count_up(&book->inits, 1) + 1 >= from ? 5 : 0;
}

static int note_task(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    note((struct book *)(uintptr_t)yoke_task_context(task), TASK, yoke_task_worker(task));
    return 0;
}

/* Same process, same thread: one worker's life. */
static int same_worker(const struct entry *a, const struct entry *b)
{
    return a->pid == b->pid && pthread_equal(a->thread, b->thread);
}

/* Each worker: start, init, then tasks, then exit, each once and in this order. */
static void check_lives(const struct book *book, unsigned workers)
{
    const long n = count_get(&book->count);
    CHECK(n < ENTRIES);
    for (long i = 0; i < n; i++) {
        const struct entry *e = &book->entries[i];
        long starts = 0, inits = 0, exits = 0;
        if (count_get(&e->event) == BEFORE || count_get(&e->event) == AFTER) {
            CHECK_EQ(e->pid, getpid());
            continue;
        }
        for (long k = 0; k < i; k++) {
            if (!same_worker(e, &book->entries[k]))
                continue;
            const long event = count_get(&book->entries[k].event);
            starts += event == START;
            inits += event == INIT;
            exits += event == EXIT;
        }
        /* The caller may help with tasks: it is no worker and has no life of this kind. */
        if (count_get(&e->event) == TASK && e->pid == getpid() &&
            pthread_equal(e->thread, pthread_self()))
            continue;
        CHECK_EQ(exits, 0);
        CHECK_EQ(starts, count_get(&e->event) != START);
        CHECK_EQ(inits, count_get(&e->event) == TASK || count_get(&e->event) == EXIT ||
                            count_get(&e->event) == MAIN);
        CHECK(e->worker <= workers);
    }
}

static void every_worker_is_started_initialised_and_ended(void)
{
    enum { WORKERS = 3 };
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        struct book *book = shared_zeroed(sizeof *book);
        const yoke_hooks hooks = {.size = sizeof hooks,
                                  .before_fork = on_before,
                                  .after_fork_parent = on_after,
                                  .worker_start = on_start,
                                  .worker_exit = on_exit_of_worker};
        const yoke_pool_config config = {.size = sizeof config,
                                         .kind = kind,
                                         .workers = WORKERS,
                                         .worker_init = on_init,
                                         .user = book,
                                         .hooks = &hooks};
        yoke_pool *pool = NULL;
        CHECK_RC(yoke_pool_create(&config, &pool), 0);
        /* "When it returns 0 all its workers are ready." */
        for (long w = 0; w < WORKERS; w++) {
            long inits = 0;
            for (long i = 0; i < count_get(&book->count); i++)
                inits += count_get(&book->entries[i].event) == INIT && book->entries[i].worker == w;
            CHECK_EQ(inits, 1);
        }
        const yoke_options options = {.size = sizeof options, .context = book};
        CHECK_RC(yoke_map(pool, note_task, NULL, 0, NULL, 0, 200, &options), 0);
        end_pool(pool);
        CHECK_EQ(how_many(book, TASK), 200);
        CHECK(how_many(book, EXIT) >= WORKERS);
        CHECK(how_many(book, EXIT) <= how_many(book, START));
        CHECK_EQ(how_many(book, BEFORE), how_many(book, AFTER));
        CHECK(kind == YOKE_PROCESSES ? how_many(book, BEFORE) >= 1 : how_many(book, BEFORE) == 0);
        check_lives(book, WORKERS);
        yoke_shared_free(book);
    }
}

static void fork_hooks_stand_around_everything_of_the_workers(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    struct book *book = shared_zeroed(sizeof *book);
    const yoke_hooks hooks = {.size = sizeof hooks,
                              .before_fork = on_before,
                              .after_fork_parent = on_after,
                              .worker_start = on_start};
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .workers = 2, .user = book, .hooks = &hooks};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    CHECK_EQ(count_get(&book->entries[0].event), BEFORE);
    long before = -1, after = -1;
    for (long i = 0; i < count_get(&book->count); i++) {
        if (count_get(&book->entries[i].event) == BEFORE && before < 0)
            before = i;
        if (count_get(&book->entries[i].event) == AFTER && after < 0)
            after = i;
    }
    CHECK_EQ(before, 0);
    CHECK(after > 0);
    CHECK(pthread_equal(book->entries[before].thread, book->entries[after].thread));
    end_pool(pool);
    yoke_shared_free(book);
}

static void a_refusing_init_leaves_nothing(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        end_pool(make_pool(kind, 3));
        struct book *book = shared_zeroed(sizeof *book);
        const struct usage before = usage_now();
        for (long from = 1; from <= 3; from++) {
            count_set(&book->count, 0);
            count_set(&book->inits, 0);
            count_set(&book->fail_from, from);
            const yoke_pool_config config = {.size = sizeof config,
                                             .kind = kind,
                                             .workers = 3,
                                             .worker_init = on_init,
                                             .user = book};
            yoke_pool *pool = (yoke_pool *)book;
            CHECK_RC(yoke_pool_create(&config, &pool), YOKE_EINIT);
            CHECK(pool == (yoke_pool *)book);
            usage_check(before, 8);
        }
        yoke_shared_free(book);
    }
}

static int die_in_init(unsigned worker, void *user)
{
    (void)user;
    if (worker == 1)
        raise(SIGKILL);
    return 0;
}

static void a_worker_that_dies_in_init_is_refused_too(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    end_pool(make_pool(YOKE_PROCESSES, 3));
    const struct usage before = usage_now();
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .workers = 3, .worker_init = die_in_init};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), YOKE_EINIT);
    CHECK(pool == NULL);
    usage_check(before, 8);
}

/* A main loop that wakes up in between, as an interpreter's would. */
static void own_main(yoke_worker *worker, void *user)
{
    struct book *book = user;
    int rc;
    note(book, MAIN, 0);
    do {
        rc = yoke_worker_next(worker, yoke_in_ms(5));
    } while (rc == 0 || rc == -ETIMEDOUT || rc == -EINTR);
    if (rc == YOKE_ECLOSED)
        count_up(&book->closed, 1);
}

static void a_main_loop_of_ones_own_runs_the_tasks(void)
{
    enum { WORKERS = 2 };
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        struct book *book = shared_zeroed(sizeof *book);
        const yoke_hooks hooks = {.size = sizeof hooks,
                                  .worker_start = on_start,
                                  .worker_exit = on_exit_of_worker,
                                  .worker_main = own_main};
        const yoke_pool_config config = {.size = sizeof config,
                                         .kind = kind,
                                         .workers = WORKERS,
                                         .worker_init = on_init,
                                         .user = book,
                                         .hooks = &hooks};
        yoke_pool *pool = NULL;
        CHECK_RC(yoke_pool_create(&config, &pool), 0);
        for (int i = 0; i < 5; i++)
            check_pool_works(pool);
        yoke_job *jobs[100];
        for (int64_t i = 0; i < 100; i++)
            CHECK_RC(yoke_submit(pool, check_square, &i, 8, 8, NULL, &jobs[i]), 0);
        CHECK_RC(yoke_wait_all(jobs, 100, soon()), 0);
        for (int i = 0; i < 100; i++)
            yoke_job_release(jobs[i]);
        WAIT_FOR(how_many(book, MAIN) >= WORKERS);
        end_pool(pool);
        CHECK(count_get(&book->closed) >= WORKERS);
        CHECK(how_many(book, EXIT) >= WORKERS);
        check_lives(book, WORKERS);
        yoke_shared_free(book);
    }
}

static void hooks_are_copied(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        struct book *book = shared_zeroed(sizeof *book);
        yoke_hooks hooks = {.size = sizeof hooks, .worker_exit = on_exit_of_worker};
        yoke_pool_config config = {
            .size = sizeof config, .kind = kind, .workers = 2, .user = book, .hooks = &hooks};
        yoke_pool *pool = NULL;
        CHECK_RC(yoke_pool_create(&config, &pool), 0);
        memset(&hooks, 0xff, sizeof hooks);
        memset(&config, 0xff, sizeof config);
        check_pool_works(pool);
        end_pool(pool);
        CHECK(how_many(book, EXIT) >= 2);
        yoke_shared_free(book);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(every_worker_is_started_initialised_and_ended);
    RUN(fork_hooks_stand_around_everything_of_the_workers);
    RUN(a_refusing_init_leaves_nothing);
    RUN(a_worker_that_dies_in_init_is_refused_too);
    RUN(a_main_loop_of_ones_own_runs_the_tasks);
    RUN(hooks_are_copied);
    return 0;
}
