/* SPDX-License-Identifier: MIT
 * test_limits.c - a full machine: no descriptors, no processes, no address space.
 *
 * Idea: the limit is moved through every value around what a pool needs, so that each step of
 * making one fails once. Every try either gives a pool that works or a code from the header, and
 * leaves nothing behind.
 */
/* timeout: 240 */
#define CHECK_TIMEOUT 100
#include "check.h"
#include <sys/mman.h>
#include <sys/resource.h>

enum { NOBODY = 54321 }; /* a user who has nothing running */

static void set_limit(int what, rlim_t value)
{
    struct rlimit limit;
    CHECK_EQ(getrlimit((__rlimit_resource_t)what, &limit), 0);
    limit.rlim_cur = value;
    CHECK_EQ(setrlimit((__rlimit_resource_t)what, &limit), 0);
}

static int is_shortage(int rc)
{
    return rc == -ENOMEM || rc == -EAGAIN || rc == -EMFILE;
}

static int try_pool(int kind, unsigned workers)
{
    const yoke_pool_config config = {.size = sizeof config, .kind = kind, .workers = workers};
    yoke_pool *const untouched = (yoke_pool *)&check_kind;
    yoke_pool *pool = untouched;
    const int rc = yoke_pool_create(&config, &pool);
    if (rc != 0) {
        CHECK(pool == untouched);
        return rc;
    }
    enum { N = 64 };
    int64_t in[N], out[N];
    for (int i = 0; i < N; i++)
        in[i] = i;
    const int map = yoke_map(pool, check_square, in, 8, out, 8, N, NULL);
    CHECK(map == 0 || is_shortage(map));
    for (int i = 0; i < N && map == 0; i++)
        CHECK_EQ(out[i], i * i);
    end_pool(pool);
    return 0;
}

/* usage_now() needs descriptors itself: the limit is lifted around it. */
static void try_with_limit(int what, rlim_t value, int kind, unsigned workers, int *good, int *bad)
{
    const struct usage before = usage_now();
    struct rlimit old;
    CHECK_EQ(getrlimit((__rlimit_resource_t)what, &old), 0);
    set_limit(what, value);
    const int rc = try_pool(kind, workers);
    set_limit(what, old.rlim_cur);
    if (rc != 0 && !is_shortage(rc))
        CHECK_RC(rc, -EAGAIN);
    *(rc == 0 ? good : bad) += 1;
    usage_check(before, 8);
}

static int few_descriptors(void *arg)
{
    const int kind = *(const int *)arg;
    int good = 0, bad = 0;
    end_pool(make_pool(kind, 3)); /* what is made once for the program is there now */
    const rlim_t now = (rlim_t)count_fds();
    for (rlim_t more = 0; more <= 40 && good < 3; more++)
        try_with_limit(RLIMIT_NOFILE, now + more, kind, 3, &good, &bad);
    fprintf(stderr, "    %s: %d pools, %d refusals\n", check_kind_name(kind), good, bad);
    CHECK(good >= 3);
    check_pool_works(make_pool(kind, 2));
    return 0;
}

static int few_descriptors_from_the_start(void *arg)
{
    const int kind = *(const int *)arg;
    const rlim_t now = (rlim_t)count_fds();
    const int children = count_children();
    int rc = -EMFILE;
    for (rlim_t more = 0; more <= 40 && rc != 0; more++) {
        set_limit(RLIMIT_NOFILE, now + more);
        rc = try_pool(kind, 2);
        CHECK(rc == 0 || is_shortage(rc));
        set_limit(RLIMIT_NOFILE, now + 100);
        WAIT_FOR(count_children() <= children);
    }
    CHECK_EQ(rc, 0);
    return 0;
}

static void descriptors_run_out(void)
{
    FOR_EACH_KIND(kind)
    {
        CHECK_CHILD(few_descriptors, &kind);
        CHECK_CHILD(few_descriptors_from_the_start, &kind);
    }
}

static int few_processes(void *arg)
{
    const int kind = *(const int *)arg;
    int good = 0, bad = 0;
    CHECK_EQ(setgid(NOBODY), 0);
    CHECK_EQ(setuid(NOBODY), 0);
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    end_pool(make_pool(kind, 4));
    for (rlim_t most = 1; most <= 24 && good < 3; most++)
        try_with_limit(RLIMIT_NPROC, most, kind, 4, &good, &bad);
    fprintf(stderr, "    %s: %d pools, %d refusals\n", check_kind_name(kind), good, bad);
    CHECK(good >= 3);
    CHECK(bad >= 1 || kind == YOKE_SERIAL);
    return 0;
}

static void processes_and_threads_run_out(void)
{
    if (getuid() != 0) {
        fprintf(stderr, "    not root: the limit of another user's processes is not tried\n");
        return;
    }
    FOR_EACH_KIND(kind)
    {
        CHECK_CHILD(few_processes, &kind);
    }
}

static int no_more_when_it_runs(void *arg)
{
    const int kill_template = *(const int *)arg;
    CHECK_EQ(setgid(NOBODY + 1), 0);
    CHECK_EQ(setuid(NOBODY + 1), 0);
    prctl(PR_SET_DUMPABLE, 1);
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    check_pool_works(pool);
    set_limit(RLIMIT_NPROC, 1);
    /* Workers that die now cannot be replaced: the pool runs on what is left, or says so. */
    int64_t x = 5, y = 0;
    int template = -1;
    if (kill_template) {
        /* A spare that was made just now has the template's name for a moment. */
        WAIT_MS(count_descendants(getpid(), "yoke-template", 0, &template) == 1, 10000);
        CHECK_EQ(signal_child(template, SIGKILL), 1);
    }
    for (int round = 0; round < 5; round++) {
        int pids[4];
        const int n = yoke_pool_worker_ids(pool, pids, 4);
        CHECK(n >= 0);
        if (n > 0)
            (void)signal_child(pids[0], SIGKILL);
        const yoke_options options = {.size = sizeof options, .retries = 3};
        const int rc = yoke_map(pool, check_square, &x, 8, &y, 8, 1, &options);
        fprintf(stderr, "    with no process to be had: %s\n", yoke_strerror(rc));
        CHECK((rc == 0 && y == 25) || rc == YOKE_EBROKEN || is_shortage(rc));
        /* Time for it to try again, and to fail again. */
        CHECK_RC(yoke_sleep_until(yoke_in_ms(150)), 0);
    }
    set_limit(RLIMIT_NPROC, 1000);
    const int rc = yoke_pool_destroy(pool, soon());
    CHECK(rc == 0 || rc == -ETIMEDOUT);
    CHECK_EQ(count_children(), 0);
    end_pool(make_pool(YOKE_PROCESSES, 2));
    return 0;
}

static void no_process_for_a_replacement(void)
{
    for (int template = 0; template <2; template ++) {
        if (getuid() == 0 && check_has_kind(YOKE_PROCESSES))
            CHECK_CHILD(no_more_when_it_runs, &template);
    }
}

static int little_address_space(void *arg)
{
    const int kind = *(const int *)arg;
    int good = 0, bad = 0;
    for (rlim_t mib = 8192; mib >= 8; mib = mib * 3 / 4) {
        const rlim_t bytes = mib << 20;
        struct rlimit old;
        CHECK_EQ(getrlimit(RLIMIT_AS, &old), 0);
        set_limit(RLIMIT_AS, bytes);
        const int rc = try_pool(kind, 2);
        set_limit(RLIMIT_AS, old.rlim_cur);
        if (rc != 0 && !is_shortage(rc))
            CHECK_RC(rc, -ENOMEM);
        *(rc == 0 ? &good : &bad) += 1;
        CHECK_EQ(count_children(), 0);
    }
    fprintf(stderr, "    %s: %d pools, %d refusals\n", check_kind_name(kind), good, bad);
    CHECK(good >= 1);
    return 0;
}

static int end_at_once(void *arg)
{
    (void)arg;
    return 4;
}

/* With this limit there is none left. How many are open does not tell: there may be gaps. */
static rlim_t first_free_fd(void)
{
    const int fd = dup(STDERR_FILENO);
    CHECK(fd >= 0);
    close(fd);
    return (rlim_t)fd;
}

/* Single processes at the same limits: started and seen to their end, or refused. */
static int few_for_a_process(void *arg)
{
    const int what = *(const int *)arg;
    if (what == RLIMIT_NPROC) {
        CHECK_EQ(setgid(NOBODY + 2), 0);
        CHECK_EQ(setuid(NOBODY + 2), 0);
        prctl(PR_SET_DUMPABLE, 1);
    }
    yoke_process *process = NULL;
    CHECK_RC(yoke_process_start(NULL, end_at_once, NULL, &process), 0);
    CHECK_RC(yoke_process_wait(process, soon(), NULL), 0);
    yoke_process_release(process);
    const rlim_t now = what == RLIMIT_NOFILE ? first_free_fd() : 1;
    int good = 0, bad = 0;
    for (rlim_t more = 0; more <= 40 && good < 3; more++) {
        const struct usage before = usage_now();
        struct rlimit old;
        process = NULL;
        CHECK_EQ(getrlimit((__rlimit_resource_t)what, &old), 0);
        set_limit(what, now + more);
        const int rc = yoke_process_start(NULL, end_at_once, NULL, &process);
        set_limit(what, old.rlim_cur);
        CHECK(rc == 0 || (is_shortage(rc) && process == NULL));
        yoke_process_end end = {0};
        if (rc == 0) {
            CHECK_RC(yoke_process_wait(process, soon(), &end), 0);
            CHECK_EQ(end.code, 4);
        }
        yoke_process_release(process);
        *(rc == 0 ? &good : &bad) += 1;
        usage_check(before, 8);
    }
    fprintf(stderr, "    %d processes, %d refusals\n", good, bad);
    CHECK(good >= 3);
    CHECK(bad >= 1);
    return 0;
}

static void single_processes_too(void)
{
    static const int what[] = {RLIMIT_NOFILE, RLIMIT_NPROC};
    for (int i = 0; i < 2 && check_has_kind(YOKE_PROCESSES); i++) {
        if (what[i] == RLIMIT_NOFILE || getuid() == 0)
            CHECK_CHILD(few_for_a_process, (void *)(uintptr_t)&what[i]);
    }
}

/* The heap is reserved under the limit: it must make do with less. */
static int heap_in_a_gigabyte(void *arg)
{
    const int kind = *(const int *)arg;
    set_limit(RLIMIT_AS, (rlim_t)1 << 30);
    yoke_pool *pool = make_pool(kind, 2);
    void *block = yoke_shared_alloc(16 << 20);
    CHECK(block != NULL);
    memset(block, 1, 16 << 20);
    yoke_shared_free(block);
    CHECK(yoke_shared_alloc((size_t)2 << 30) == NULL);
    check_pool_works(pool);
    end_pool(pool);
    return 0;
}

static void address_space_runs_out(void)
{
    if (CHECK_ASAN || CHECK_TSAN) {
        fprintf(stderr, "    a sanitizer needs all of it: not tried\n");
        return;
    }
    FOR_EACH_KIND(kind)
    {
        CHECK_CHILD(heap_in_a_gigabyte, &kind);
        CHECK_CHILD(little_address_space, &kind);
    }
}

static int more_than_the_heap(void *arg)
{
    (void)arg;
    yoke_heap_stats stats = {.size = sizeof stats};
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    CHECK_RC(yoke_heap_limit((size_t)64 << 20), 0);
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    static void *blocks[256];
    size_t n = 0;
    while (n < 256 && (blocks[n] = yoke_shared_alloc(1 << 20)) != NULL)
        memset(blocks[n++], 1, 1 << 20);
    CHECK(n >= 16 && n < 64);
    /* Single items bigger than what is left must be refused, not waited for. */
    char *big = mmap(NULL, (size_t)256 << 20, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(big != MAP_FAILED);
    int64_t out[2] = {1, 1};
    CHECK_RC(yoke_map(pool, check_square, big, (size_t)128 << 20, out, 8, 2, NULL), -ENOMEM);
    while (n > 0)
        yoke_shared_free(blocks[--n]);
    check_pool_works(pool);
    end_pool(pool);
    return 0;
}

static void items_bigger_than_the_heap(void)
{
    if (check_has_kind(YOKE_PROCESSES))
        CHECK_CHILD(more_than_the_heap, NULL);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(descriptors_run_out);
    RUN(processes_and_threads_run_out);
    RUN(single_processes_too);
    RUN(no_process_for_a_replacement);
    RUN(address_space_runs_out);
    RUN(items_bigger_than_the_heap);
    return 0;
}
