/* SPDX-License-Identifier: MIT
 * test_elastic.c - thread pools that grow while their tasks wait, and shrink again.
 *
 * Idea: tasks that wait for each other can only end if all of them run at the same time; the
 * pool must grow to hold them, never beyond workers_max, and be small again afterwards.
 */
/* tsan: yes */
/* timeout: 180 */
#define CHECK_TIMEOUT 120
#include "check.h"
#include <sys/resource.h>

enum { MOST = 16, ASLEEP_MS = 60000 /* so many threads are not started in a moment */ };

struct party {
    atomic_long here, most, wanted, gone;
};

/* Ends when as many as wanted are here: no caller helps, since each waits for the others. */
static int meet(yoke_task *task, const void *in, void *out)
{
    struct party *party = *(struct party *const *)in;
    const int64_t until = soon();
    (void)task;
    (void)out;
    const long here = count_up(&party->here, 1) + 1;
    if (here > count_get(&party->most))
        count_set(&party->most, here);
    while (count_get(&party->here) < count_get(&party->wanted)) {
        if (yoke_now_ns() > until)
            return 1;
        /* It is to wait, and not to run: also where waking up is slow. */
        CHECK_RC(yoke_sleep_until(yoke_in_ms(4 * (int64_t)check_slowness())), 0);
    }
    count_up(&party->gone, 1);
    return 0;
}

static yoke_pool *make_elastic(unsigned workers, unsigned most)
{
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_THREADS, .workers = workers, .workers_max = most};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    return pool;
}

static void a_pool_grows_until_all_tasks_run(void)
{
    yoke_pool *pool = make_elastic(1, MOST);
    for (int round = 0; round < 5; round++) {
        struct party party = {.wanted = MOST};
        struct party *at = &party;
        yoke_job *jobs[MOST];
        for (int i = 0; i < MOST; i++)
            CHECK_RC(yoke_submit(pool, meet, &at, sizeof at, 0, NULL, &jobs[i]), 0);
        WAIT_FOR(count_get(&party.gone) == MOST); /* without this thread's help */
        CHECK_RC(yoke_wait_all(jobs, MOST, soon()), 0);
        for (int i = 0; i < MOST; i++) {
            yoke_outcome outcome;
            CHECK_RC(yoke_job_result(jobs[i], &outcome, NULL, NULL), 0);
            CHECK_EQ(outcome.kind, YOKE_OK);
            yoke_job_release(jobs[i]);
        }
        const yoke_pool_stats stats = stats_of(pool);
        CHECK(stats.workers <= MOST);
        CHECK_EQ(stats.died, 0);
    }
    end_pool(pool);
}

struct crowd {
    atomic_long now, most, ended;
};

static int sleep_a_little(yoke_task *task, const void *in, void *out)
{
    struct crowd *crowd = *(struct crowd *const *)in;
    (void)task;
    (void)out;
    const long now = count_up(&crowd->now, 1) + 1;
    long most = count_get(&crowd->most);
    while (now > most &&
           !atomic_compare_exchange_strong_explicit(&crowd->most, &most, now, memory_order_seq_cst,
                                                    memory_order_seq_cst)) {
    }
    const int rc = yoke_sleep_until(yoke_in_ms(2 * (int64_t)check_slowness()));
    count_up(&crowd->now, -1);
    count_up(&crowd->ended, 1);
    return rc == 0 ? 0 : 1;
}

static void a_pool_never_grows_beyond_its_most_and_shrinks(void)
{
    enum { TASKS = 600 };
    const int threads = count_threads();
    yoke_pool *pool = make_elastic(2, 6);
    struct crowd crowd = {0};
    struct crowd *at = &crowd;
    yoke_job *jobs[TASKS];
    for (int i = 0; i < TASKS; i++)
        CHECK_RC(yoke_submit(pool, sleep_a_little, &at, sizeof at, 0, NULL, &jobs[i]), 0);
    WAIT_FOR(count_get(&crowd.ended) == TASKS);
    CHECK_RC(yoke_wait_all(jobs, TASKS, soon()), 0);
    for (int i = 0; i < TASKS; i++) {
        yoke_outcome outcome;
        CHECK_RC(yoke_job_result(jobs[i], &outcome, NULL, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_OK);
        yoke_job_release(jobs[i]);
    }
    CHECK(count_get(&crowd.most) > 2);
    CHECK(count_get(&crowd.most) <= 6);
    WAIT_MS(stats_of(pool).workers == 2, 40000);
    check_pool_works(pool);
    end_pool(pool);
    WAIT_FOR(count_threads() <= threads);
}

static void a_pool_that_may_not_grow_does_not(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct crowd crowd = {0};
    struct crowd *at = &crowd;
    yoke_job *jobs[60];
    for (int i = 0; i < 60; i++)
        CHECK_RC(yoke_submit(pool, sleep_a_little, &at, sizeof at, 0, NULL, &jobs[i]), 0);
    WAIT_FOR(count_get(&crowd.ended) == 60);
    for (int i = 0; i < 60; i++)
        yoke_job_release(jobs[i]);
    CHECK(count_get(&crowd.most) <= 2);
    end_pool(pool);
}

/* --- thousands that sleep ---------------------------------------------------------------------- */

/* A number from a file; UINT64_MAX if there is none. */
static uint64_t number_in(const char *path)
{
    uint64_t number = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    if (fscanf(file, "%" SCNu64, &number) != 1)
        number = UINT64_MAX;
    fclose(file);
    return number;
}

/* How many threads this machine lets us have; *why names what says so. */
static uint64_t threads_allowed(const char **why)
{
    static const char *const files[] = {"/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max",
                                        "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"};
    struct rlimit limit;
    uint64_t least = number_in("/proc/sys/vm/max_map_count") / 2; /* a stack and its guard */
    *why = "vm.max_map_count";
    CHECK_EQ(getrlimit(RLIMIT_NPROC, &limit), 0);
    if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < least) {
        least = limit.rlim_cur;
        *why = "RLIMIT_NPROC";
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (number_in(files[i]) < least) {
            least = number_in(files[i]);
            *why = files[i];
        }
    }
    return least;
}

static long count_virtual_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file != NULL && fscanf(file, "%ld", &pages) == 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

struct dormitory {
    atomic_long asleep, most, woken;
    _Atomic int64_t until_ns;
};

/* Sleeps until all are told to get up; looks now and then whether that was brought forward. */
static int sleep_there(yoke_task *task, const void *in, void *out)
{
    struct dormitory *room = *(struct dormitory *const *)in;
    (void)task;
    (void)out;
    const long now = count_up(&room->asleep, 1) + 1;
    long most = count_get(&room->most);
    while (now > most && !atomic_compare_exchange_strong_explicit(
                             &room->most, &most, now, memory_order_seq_cst, memory_order_seq_cst)) {
    }
    int rc = 0;
    int64_t until = 0;
    while (rc == 0 &&
           (until = atomic_load_explicit(&room->until_ns, memory_order_seq_cst)) > yoke_now_ns()) {
        const int64_t next = yoke_in_ms(1000);
        rc = yoke_sleep_until(next < until ? next : until);
    }
    count_up(&room->asleep, -1);
    count_up(&room->woken, 1);
    return rc == 0 ? 0 : 1;
}

static size_t sleepers_wanted(void)
{
    const size_t most = CHECK_TSAN || CHECK_ASAN ? 500 : 10000;
    const char *why = NULL;
    const uint64_t allowed = threads_allowed(&why);
    if (allowed >= most + 500)
        return most;
    const size_t fewer = allowed > 600 ? (size_t)allowed - 500 : 100;
    printf("    %s allows %" PRIu64 " threads: %zu tasks, not %zu\n", why, allowed, fewer, most);
    return fewer;
}

static void report_sleepers(size_t count, int64_t begin, long rss, long virtual)
{
    printf("    %zu tasks sleep at once after %.2f s; each costs %.1f KiB resident, %.0f KiB of "
           "addresses\n",
           count, (double)(yoke_now_ns() - begin) / 1e9,
           (double)(count_rss_kib() - rss) / (double)count,
           (double)(count_virtual_kib() - virtual) / (double)count);
}

static void thousands_of_tasks_sleep_at_once(void)
{
    const size_t count = sleepers_wanted();
    const int threads = count_threads();
    struct dormitory room = {0};
    struct dormitory *at = &room;
    yoke_job **jobs = calloc(count, sizeof(yoke_job *));
    CHECK(jobs != NULL);
    const long rss = count_rss_kib(), virtual = count_virtual_kib();
    const int64_t begin = yoke_now_ns();
    yoke_pool *pool = make_elastic(2, (unsigned)count);
    atomic_store_explicit(&room.until_ns, YOKE_FOREVER, memory_order_seq_cst);
    for (size_t i = 0; i < count; i++)
        CHECK_RC(yoke_submit(pool, sleep_there, &at, sizeof at, 0, NULL, &jobs[i]), 0);
    WAIT_MS(count_get(&room.asleep) == (long)count, ASLEEP_MS * (int64_t)check_slowness());
    report_sleepers(count, begin, rss, virtual);
    CHECK_EQ(stats_of(pool).workers, count);
    atomic_store_explicit(&room.until_ns, 0, memory_order_seq_cst);
    CHECK_RC(yoke_wait_all(jobs, count, soon()), 0);
    yoke_job_release_all(jobs, count);
    free(jobs);
    WAIT_MS(stats_of(pool).workers == 2, 40000 * check_slowness());
    check_pool_works(pool);
    end_pool(pool);
    WAIT_FOR(count_threads() <= threads);
}

/* The caller of a map sleeps in one of its items: somebody else has to wake them. */
struct alarm_clock {
    struct dormitory *room;
    long count;
};

static int wake_when_all_sleep(void *arg)
{
    const struct alarm_clock *clock = arg;
    WAIT_MS(count_get(&clock->room->asleep) == clock->count, ASLEEP_MS * (int64_t)check_slowness());
    atomic_store_explicit(&clock->room->until_ns, 0, memory_order_seq_cst);
    return 0;
}

static void thousands_of_items_sleep_at_once(void)
{
    const size_t count = sleepers_wanted() / 2;
    struct dormitory room = {0};
    struct alarm_clock clock = {&room, (long)count};
    yoke_thread *waker = NULL;
    struct dormitory **in = calloc(count, sizeof *in);
    CHECK(in != NULL);
    for (size_t i = 0; i < count; i++)
        in[i] = &room;
    yoke_pool *pool = make_elastic(2, (unsigned)count);
    const int64_t begin = yoke_now_ns();
    atomic_store_explicit(&room.until_ns, YOKE_FOREVER, memory_order_seq_cst);
    CHECK_RC(yoke_thread_start(NULL, wake_when_all_sleep, &clock, &waker), 0);
    CHECK_RC(yoke_map(pool, sleep_there, in, sizeof *in, NULL, 0, count, NULL), 0);
    CHECK_RC(yoke_thread_wait(waker, soon(), NULL), 0);
    yoke_thread_release(waker);
    printf("    a map of %zu items that sleep: %ld at once, %.2f s\n", count, count_get(&room.most),
           (double)(yoke_now_ns() - begin) / 1e9);
    CHECK_EQ(count_get(&room.most), count);
    end_pool(pool);
    free(in);
}

/* Threads that are interrupted while they wait for jobs that wait for them. */
static int wait_for_job(void *job)
{
    return yoke_wait(job, YOKE_FOREVER);
}

static void interrupts_race_with_the_end_of_jobs(void)
{
    yoke_pool *pool = make_elastic(1, 8);
    uint64_t random = random_seed();
    for (int round = 0; round < 150; round++) {
        struct party party = {.wanted = 2};
        struct party *at = &party;
        yoke_job *jobs[2];
        yoke_thread *threads[3];
        CHECK_RC(yoke_submit(pool, meet, &at, sizeof at, 0, NULL, &jobs[0]), 0);
        WAIT_FOR(count_get(&party.here) == 1); /* begun: a waiter cannot run it itself */
        for (int i = 0; i < 3; i++)
            CHECK_RC(yoke_thread_start(NULL, wait_for_job, jobs[0], &threads[i]), 0);
        const uint64_t r = random_next(&random);
        if (r & 1)
            CHECK_EQ(yoke_thread_interrupt(threads[0]), 0);
        CHECK_RC(yoke_submit(pool, meet, &at, sizeof at, 0, NULL, &jobs[1]), 0);
        if (r & 2)
            CHECK_EQ(yoke_thread_interrupt(threads[1]), 0);
        for (int i = 0; i < 3; i++) {
            int code = 77;
            CHECK_RC(yoke_thread_wait(threads[i], soon(), &code), 0);
            CHECK(code == 0 || (code == -ECANCELED && i < 2 && (r >> i & 1)));
            yoke_thread_release(threads[i]);
        }
        CHECK_RC(yoke_wait_all(jobs, 2, soon()), 0);
        yoke_job_release(jobs[0]);
        yoke_job_release(jobs[1]);
    }
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(a_pool_grows_until_all_tasks_run);
    RUN(a_pool_never_grows_beyond_its_most_and_shrinks);
    RUN(a_pool_that_may_not_grow_does_not);
    RUN(thousands_of_tasks_sleep_at_once);
    RUN(thousands_of_items_sleep_at_once);
    RUN(interrupts_race_with_the_end_of_jobs);
    return 0;
}
