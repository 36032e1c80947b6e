/* SPDX-License-Identifier: MIT
 * test_control_life.c - how workers end by themselves, and what they may use until then.
 *
 * Idea: a worker counts itself in where it begins and out where it ends, in shared memory, so
 * what is said of its life is held against what it did. Limits are hit for real.
 */
/* timeout: 120 */
#include "check.h"
#include "platform/platform.h"
#include <sys/mman.h>
#include <sys/resource.h>

struct it {
    atomic_long inits, exits, late, ran, last_pid, fresh;
};

static struct it *it;
static _Thread_local int life; /* 1 after init, 2 after exit */

static int begin(unsigned worker, void *user)
{
    (void)worker;
    CHECK(user == it || user == NULL);
    count_up(&it->inits, 1);
    count_up(&it->late, life != 0);
    life = 1;
    return 0;
}

static void end(unsigned worker, void *user)
{
    (void)worker;
    CHECK(user == it || user == NULL);
    count_up(&it->exits, 1);
    count_up(&it->late, life != 1);
    life = 2;
}

static int refuse(unsigned worker, void *user)
{
    (void)user;
    count_up(&it->inits, 1);
    return worker == 1;
}

static int work(yoke_task *task, const void *in, void *out)
{
    (void)task;
    count_up(&it->ran, 1);
    count_up(&it->late, life == 2);
    *(int64_t *)out = *(const int64_t *)in + 1;
    return 0;
}

static yoke_pool *make(yoke_pool_config config)
{
    memset(it, 0, sizeof *it);
    return make_pool_of(config);
}

static void map_some(yoke_pool *pool, int count)
{
    int64_t in[500], out[500];
    for (int i = 0; i < count; i++)
        in[i] = i;
    CHECK_RC(yoke_map(pool, work, in, 8, out, 8, (size_t)count, NULL), 0);
    for (int i = 0; i < count; i++)
        CHECK_EQ(out[i], i + 1);
}

static void each_worker_ends_once(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make((yoke_pool_config){
            .kind = kind, .workers = 3, .worker_init = begin, .worker_exit = end, .user = it});
        map_some(pool, 100);
        end_pool(pool);
        CHECK_EQ(count_get(&it->exits), count_get(&it->inits));
        CHECK(count_get(&it->exits) >= (kind == YOKE_SERIAL ? 0 : 3));
        CHECK(kind != YOKE_SERIAL || count_get(&it->exits) == 0);
        CHECK_EQ(count_get(&it->late), 0);
    }
}

static void who_refused_or_was_killed_does_not(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        const yoke_pool_config config = {.size = sizeof config,
                                         .kind = kind,
                                         .workers = 2,
                                         .worker_init = refuse,
                                         .worker_exit = end};
        yoke_pool *none = NULL;
        memset(it, 0, sizeof *it);
        CHECK_RC(yoke_pool_create(&config, &none), YOKE_EINIT);
        CHECK(count_get(&it->exits) <= 1); /* the other one, if it was ready by then */
    }
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make((yoke_pool_config){
        .kind = YOKE_PROCESSES, .workers = 2, .worker_init = begin, .worker_exit = end});
    int pids[2];
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, 2), 2);
    CHECK_EQ(signal_child(pids[0], SIGKILL), 1);
    WAIT_FOR(stats_of(pool).workers == 2 && stats_of(pool).spares == 1 &&
             count_get(&it->inits) == 4);
    end_pool(pool);
    CHECK_EQ(count_get(&it->exits), 3);
}

/* --- so many tasks, and no more -------------------------------------------------------------- */

static int count_in_life(yoke_task *task, const void *in, void *out)
{
    static int64_t in_this_life;
    (void)work(task, in, out);
    *(int64_t *)out = ++in_this_life;
    return 0;
}

static void a_worker_ends_after_its_last_task(void)
{
    enum { N = 2000 };
    static const unsigned workers[] = {1, 3, 3}, most[] = {1, 1, 7};
    static yoke_job *jobs[N];
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    for (int how = 0; how < 3; how++) {
        yoke_pool *pool = make((yoke_pool_config){.kind = YOKE_PROCESSES,
                                                  .workers = workers[how],
                                                  .tasks_max = most[how],
                                                  .worker_init = begin,
                                                  .worker_exit = end});
        const int count = N / (how == 2 ? 1 : (int)check_slowness());
        const int64_t start = yoke_now_ns();
        for (int64_t i = 0; i < count; i++)
            CHECK_RC(yoke_submit(pool, count_in_life, &i, 8, 8, NULL, &jobs[i]), 0);
        for (int i = 0; i < count; i++) {
            yoke_outcome outcome;
            const void *out = NULL;
            CHECK_RC(yoke_wait(jobs[i], soon()), 0);
            CHECK_RC(yoke_job_result(jobs[i], &outcome, &out, NULL), 0);
            CHECK_EQ(outcome.kind, YOKE_OK);
            CHECK(*(const int64_t *)out >= 1 && *(const int64_t *)out <= most[how]);
            yoke_job_release(jobs[i]);
        }
        fprintf(stderr, "    %u workers, %u tasks each: %d us a task\n", workers[how], most[how],
                (int)((yoke_now_ns() - start) / 1000 / count));
        CHECK(stats_of(pool).started >= (unsigned)count / most[how]);
        map_some(pool, 500);
        CHECK_EQ(stats_of(pool).died, 0);
        end_pool(pool);
        CHECK_EQ(count_get(&it->ran), count + 500);
        CHECK_EQ(count_get(&it->exits), count_get(&it->inits));
        CHECK_EQ(count_get(&it->late), 0);
    }
}

static int crash_first(yoke_task *task, const void *in, void *out)
{
    if (*(const int64_t *)in % 5 == 0 && yoke_task_attempt(task) == 0)
        raise(SIGKILL);
    return work(task, in, out);
}

static void crashes_and_ends_mix(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool =
        make((yoke_pool_config){.kind = YOKE_PROCESSES, .workers = 2, .tasks_max = 2});
    int64_t in[300], out[300];
    const yoke_options options = {.size = sizeof options, .retries = 1};
    for (int i = 0; i < 300; i++)
        in[i] = i;
    CHECK_RC(yoke_map(pool, crash_first, in, 8, out, 8, 300, &options), 0);
    for (int i = 0; i < 300; i++)
        CHECK_EQ(out[i], i + 1);
    WAIT_FOR(stats_of(pool).died == 60);
    end_pool(pool);
}

/* --- what it may use ------------------------------------------------------------------------- */

static int take_memory(yoke_task *task, const void *in, void *out)
{
    (void)task;
    void *volatile block = malloc((size_t) * (const int64_t *)in);
    *(int64_t *)out = block != NULL;
    free(block);
    return 0;
}

static int burn(yoke_task *task, const void *in, void *out)
{
    volatile unsigned long turns = 0;
    (void)task;
    (void)in;
    (void)out;
    for (;;)
        turns++;
    return 0;
}

static int write_file(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    char page[4096] = {0};
    const int fd = (int)syscall(SYS_memfd_create, "limit", 0);
    for (int64_t left = *(const int64_t *)in; left > 0; left -= (int64_t)sizeof page)
        if (write(fd, page, sizeof page) != (ssize_t)sizeof page)
            return 7;
    close(fd);
    return 0;
}

static int open_files(yoke_task *task, const void *in, void *out)
{
    int count = 0, fds[100];
    (void)task;
    (void)in;
    while (count < 100 && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    for (int i = 0; i < count; i++)
        close(fds[i]);
    *(int64_t *)out = count;
    return 0;
}

static yoke_outcome run(yoke_pool *pool, yoke_fn *fn, int64_t in, int64_t *result)
{
    yoke_job *job = NULL;
    yoke_outcome outcome;
    const void *out = NULL;
    CHECK_RC(yoke_submit(pool, fn, &in, 8, 8, NULL, &job), 0);
    CHECK_RC(yoke_wait(job, yoke_in_ms((int64_t)CHECK_PATIENCE_MS * 3)), 0);
    CHECK_RC(yoke_job_result(job, &outcome, &out, NULL), 0);
    if (out != NULL)
        *result = *(const int64_t *)out;
    yoke_job_release(job);
    return outcome;
}

static void what_is_beyond_a_limit_fails_alone(void)
{
    const int64_t mib = 1 << 20;
    int64_t result = -1;
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make((yoke_pool_config){
        .kind = YOKE_PROCESSES,
        .workers = 1,
        .limits = {.memory_bytes = CHECK_ASAN ? 0 : 200 << 20, .file_bytes = 1 << 20, .files = 20},
    });
    if (!CHECK_ASAN) {
        CHECK_EQ(run(pool, take_memory, 20 * mib, &result).kind, YOKE_OK);
        CHECK_EQ(result, 1);
        CHECK_EQ(run(pool, take_memory, 300 * mib, &result).kind, YOKE_OK);
        CHECK_EQ(result, 0);
    }
    CHECK_EQ(run(pool, open_files, 0, &result).kind, YOKE_OK);
    CHECK(result > 0 && result <= 17);
    CHECK_EQ(run(pool, write_file, mib, &result).kind, YOKE_OK);
    const yoke_outcome outcome = run(pool, write_file, 2 * mib, &result);
    CHECK_EQ(outcome.kind, YOKE_CRASHED);
    CHECK_EQ(outcome.signal, SIGXFSZ);
    check_pool_works(pool);
    CHECK_EQ(run(pool, take_memory, mib, &result).kind, YOKE_OK);
    end_pool(pool);
    /* The program itself is as free as before. */
    void *volatile block = malloc((size_t)300 << 20);
    CHECK(block != NULL);
    free(block);
}

static void cpu_time_runs_out(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    int64_t unused = 0;
    yoke_pool *pool =
        make((yoke_pool_config){.kind = YOKE_PROCESSES, .workers = 2, .limits = {.cpu_ns = 1000}});
    const yoke_outcome outcome = run(pool, burn, 0, &unused);
    CHECK_EQ(outcome.kind, YOKE_CRASHED);
    CHECK_EQ(outcome.signal, SIGXCPU);
    CHECK_EQ(outcome.attempts, 1);
    check_pool_works(pool);
    end_pool(pool);
}

static int apply(void *unused)
{
    (void)unused;
    struct rlimit got;
    const yoke_limits limits = {.cpu_ns = INT64_C(1500000000), .files = 50, .file_bytes = 12345};
    CHECK_RC(yk_limits_apply(&limits), 0);
    CHECK_EQ(getrlimit(RLIMIT_CPU, &got), 0);
    CHECK_EQ(got.rlim_cur, 2);
    CHECK_EQ(got.rlim_max, 3);
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &got), 0);
    CHECK_EQ(got.rlim_cur, 12345);
    /* As somebody who may not raise it, more is what there is, and no error. */
    CHECK_EQ(setuid(54332), 0);
    const yoke_limits more = {.cpu_ns = INT64_MAX, .files = 1 << 20};
    CHECK_RC(yk_limits_apply(&more), 0);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &got), 0);
    CHECK_EQ(got.rlim_cur, 50);
    CHECK_EQ(getrlimit(RLIMIT_CPU, &got), 0);
    CHECK_EQ(got.rlim_cur, 3);
    return 0;
}

static void limits_are_never_refused(void)
{
    if (getuid() != 0) {
        fprintf(stderr, "    not root: limits of another user are not tried\n");
        return;
    }
    CHECK_CHILD(apply, NULL);
}

static void what_makes_no_sense_is_refused(void)
{
    const yoke_pool_config bad[] = {
        {.kind = YOKE_PROCESSES, .interrupt_grace_ns = -1},
        {.kind = YOKE_PROCESSES, .terminate_grace_ns = -1},
        {.kind = YOKE_PROCESSES, .limits = {.cpu_ns = -1}},
        {.kind = YOKE_THREADS, .limits = {.memory_bytes = 1 << 30}},
        {.kind = YOKE_THREADS, .limits = {.files = 10}},
        {.kind = YOKE_THREADS, .tasks_max = 1},
        {.kind = YOKE_SERIAL, .interrupt_grace_ns = 1},
        {.kind = YOKE_SERIAL, .terminate_grace_ns = 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        yoke_pool_config config = bad[i];
        yoke_pool *pool = NULL;
        config.size = sizeof config;
        CHECK_RC(yoke_pool_create(&config, &pool), -EINVAL);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    it = shared_zeroed(sizeof *it);
    RUN(each_worker_ends_once);
    RUN(who_refused_or_was_killed_does_not);
    RUN(a_worker_ends_after_its_last_task);
    RUN(crashes_and_ends_mix);
    RUN(what_is_beyond_a_limit_fails_alone);
    RUN(cpu_time_runs_out);
    RUN(limits_are_never_refused);
    RUN(what_makes_no_sense_is_refused);
    return 0;
}
