/* SPDX-License-Identifier: MIT
 * check.h - what tests share: assertions, counters of what leaks, waits with a deadline.
 *
 * A test is a program: exit 0 passed, 1 failed, 77 skipped. RUN(name) runs one part of it;
 * a first argument of the program picks the parts whose name contains it, and CHECK_KINDS
 * ("s", "st", "tp" ...) picks the kinds of pools. Any part that takes longer than CHECK_TIMEOUT
 * seconds dies by SIGALRM. Nothing here measures speed: deadlines are for hangs only.
 */
#ifndef YOKE_TESTS_CHECK_H
#define YOKE_TESTS_CHECK_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <yoke/yoke.h>

#if defined(__SANITIZE_THREAD__)
#define CHECK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CHECK_TSAN 1
#endif
#endif
#ifndef CHECK_TSAN
#define CHECK_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CHECK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECK_ASAN 1
#endif
#endif
#ifndef CHECK_ASAN
#define CHECK_ASAN 0
#endif

#ifndef CHECK_TIMEOUT
#define CHECK_TIMEOUT 60
#endif

enum { CHECK_PATIENCE_MS = 20000 };

static const char *check_filter;
static int check_kind;

/* ---- saying what went wrong -------------------------------------------------------------- */

static inline const char *check_kind_name(int kind)
{
    static const char *const names[] = {"no pool", "serial", "threads", "processes"};
    return kind >= 0 && kind <= 3 ? names[kind] : "?";
}

static inline _Noreturn void check_die(const char *file, int line)
{
    fprintf(stderr, "    at %s:%d (%s, pid %d)\n", file, line, check_kind_name(check_kind),
            (int)getpid());
    fflush(NULL);
    _exit(1);
}

static inline void check_true(int ok, const char *what, const char *file, int line)
{
    if (ok)
        return;
    fprintf(stderr, "FAILED: %s\n", what);
    check_die(file, line);
}

static inline void check_eq(long long got, long long want, const char *what, const char *file,
                            int line)
{
    if (got == want)
        return;
    fprintf(stderr, "FAILED: %s is %lld, not %lld\n", what, got, want);
    check_die(file, line);
}

static inline void check_rc(int got, int want, const char *what, const char *file, int line)
{
    if (got == want)
        return;
    fprintf(stderr, "FAILED: %s gave %d (%s), not %d (%s)\n", what, got, yoke_strerror(got), want,
            yoke_strerror(want));
    check_die(file, line);
}

#define CHECK(cond) check_true((cond) ? 1 : 0, #cond, __FILE__, __LINE__)
#define CHECK_EQ(got, want) check_eq((long long)(got), (long long)(want), #got, __FILE__, __LINE__)
#define CHECK_RC(call, want) check_rc((call), (want), #call, __FILE__, __LINE__)

static inline _Noreturn void skip(const char *reason)
{
    printf("skipped: %s\n", reason);
    fflush(NULL);
    _exit(77);
}

/* ---- the parts of a test ----------------------------------------------------------------- */

static inline void check_main(int argc, char **argv)
{
    check_filter = argc > 1 ? argv[1] : NULL;
}

/* The program runs in an emulator, as `make arm` does it. */
static inline int check_emulated(void)
{
    const char *via = getenv("VIA");
    return via && *via;
}

/** How much longer all takes here than in a plain build on the machine itself. */
static inline unsigned check_slowness(void)
{
    return CHECK_TSAN || CHECK_ASAN || check_emulated() ? 5 : 1;
}

static inline int check_begin(const char *name)
{
    if (check_filter && !strstr(name, check_filter))
        return 0;
    fprintf(stderr, "  %s\n", name);
    alarm(CHECK_TIMEOUT * check_slowness());
    return 1;
}

#define RUN(part) \
    do { \
        if (check_begin(#part)) \
            part(); \
        alarm(0); \
        check_kind = 0; \
    } while (0)

/** The kind after this one that this run has; 0 at the end. */
static inline int check_next_kind(int kind)
{
    const char *only = getenv("CHECK_KINDS");
    for (kind++; kind <= YOKE_PROCESSES; kind++) {
        if (CHECK_TSAN && kind == YOKE_PROCESSES)
            continue;
        if (!only || strchr(only, "?stp"[kind]))
            break;
    }
    check_kind = kind <= YOKE_PROCESSES ? kind : 0;
    return check_kind;
}

/** Every kind of pool this run has; threads only under ThreadSanitizer. */
#define FOR_EACH_KIND(kind) \
    for (int kind = check_next_kind(0); kind != 0; kind = check_next_kind(kind))

static inline int check_has_kind(int kind)
{
    FOR_EACH_KIND(k)
    {
        if (k == kind)
            return 1;
    }
    return 0;
}

/* ---- time -------------------------------------------------------------------------------- */

/** A deadline for hangs, which nothing that works comes near to. */
static inline int64_t soon(void)
{
    return yoke_in_ms((int64_t)CHECK_PATIENCE_MS * check_slowness());
}

/** Let others run; short, and never the thing a test relies on. */
static inline void breathe(void)
{
    const struct timespec pause = {0, 200 * 1000};
    sched_yield();
    nanosleep(&pause, NULL);
}

/** Wait for a condition, at most that many milliseconds; fails the test after that. */
#define WAIT_MS(cond, ms) \
    do { \
        const int64_t wait_until_ = yoke_in_ms(ms); \
        while (!(cond)) { \
            check_true(yoke_now_ns() < wait_until_, "in time: " #cond, __FILE__, __LINE__); \
            breathe(); \
        } \
    } while (0)
#define WAIT_FOR(cond) WAIT_MS(cond, (int64_t)CHECK_PATIENCE_MS *check_slowness())

/* ---- counters between threads and processes ------------------------------------------------ */

/* Sequentially consistent on purpose: a test has no speed to win and nobody to puzzle. */
static inline long count_up(atomic_long *counter, long by)
{
    return atomic_fetch_add_explicit(counter, by, memory_order_seq_cst);
}

static inline long count_get(const atomic_long *counter)
{
    return atomic_load_explicit((atomic_long *)counter, memory_order_seq_cst);
}

static inline void count_set(atomic_long *counter, long value)
{
    atomic_store_explicit(counter, value, memory_order_seq_cst);
}

/** An action for a signal; the old one comes back. */
static inline struct sigaction set_action(int sig, void (*handler)(int))
{
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    CHECK_EQ(sigaction(sig, &action, &old), 0);
    return old;
}

/** Zeroed memory that workers of every kind see at the same address. */
static inline void *shared_zeroed(size_t bytes)
{
    void *block = yoke_shared_alloc(bytes);
    CHECK(block != NULL);
    memset(block, 0, bytes);
    return block;
}

/* ---- pools --------------------------------------------------------------------------------- */

static inline yoke_pool *make_pool_of(yoke_pool_config config)
{
    yoke_pool *pool = NULL;
    config.size = sizeof config;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    CHECK(pool != NULL);
    return pool;
}

static inline yoke_pool *make_pool(int kind, unsigned workers)
{
    return make_pool_of((yoke_pool_config){.kind = kind, .workers = workers});
}

static inline yoke_pool_stats stats_of(yoke_pool *pool)
{
    yoke_pool_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_pool_stats_get(pool, &stats), 0);
    return stats;
}

/** Waits for the job and gives it back. */
static inline yoke_outcome end_job(yoke_job *job)
{
    yoke_outcome outcome = {.kind = -1};
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
    yoke_job_release(job);
    return outcome;
}

static inline void end_pool(yoke_pool *pool)
{
    CHECK_RC(yoke_pool_destroy(pool, soon()), 0);
}

/** Ends a pool that has tasks which end only when they are told. A thread that is told may get no CPU
 *  for longer than the pool waits for it: then the pool is there still, and empty a little later. */
static inline void stop_pool(yoke_pool *pool, int64_t until_ns)
{
    int rc = yoke_pool_destroy(pool, until_ns);
    CHECK(yoke_now_ns() >= until_ns);
    if (rc == -EBUSY) {
        rc = yoke_pool_destroy(pool, soon());
        rc = rc == 0 ? -ETIMEDOUT : rc;
    }
    CHECK_RC(rc, -ETIMEDOUT);
}

static inline int check_square(yoke_task *task, const void *in, void *out)
{
    (void)task;
    int64_t x;
    memcpy(&x, in, sizeof x);
    x *= x;
    memcpy(out, &x, sizeof x);
    return 0;
}

/** The pool does honest work now: a map whose every result is looked at. */
static inline void check_pool_works(yoke_pool *pool)
{
    enum { N = 500 };
    int64_t in[N], out[N];
    memset(out, 0, sizeof out);
    for (int i = 0; i < N; i++)
        in[i] = i - 17;
    CHECK_RC(yoke_map(pool, check_square, in, sizeof *in, out, sizeof *out, N, NULL), 0);
    for (int i = 0; i < N; i++)
        CHECK_EQ(out[i], (int64_t)(i - 17) * (i - 17));
}

/* ---- what this process holds --------------------------------------------------------------- */

static inline int count_entries(const char *path)
{
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    int count = 0;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir))
        count += e->d_name[0] != '.';
    closedir(dir);
    return count;
}

static inline int count_fds(void)
{
    return count_entries("/proc/self/fd") - 1;
}
static inline int count_threads(void)
{
    return count_entries("/proc/self/task");
}

static inline int count_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    CHECK(f != NULL);
    int lines = 0;
    for (int c = getc(f); c != EOF; c = getc(f))
        lines += c == '\n';
    fclose(f);
    return lines;
}

static inline long count_rss_kib(void)
{
    long size = 0, rss = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    CHECK(f != NULL && fscanf(f, "%ld %ld", &size, &rss) == 2);
    fclose(f);
    return rss * (sysconf(_SC_PAGESIZE) / 1024);
}

static inline size_t count_blocks(void)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    return stats.blocks;
}

/* ---- other processes ----------------------------------------------------------------------- */

struct proc_info {
    int pid, ppid, pgrp;
    char state;
    char name[32];
};

static inline int proc_read(int pid, struct proc_info *info)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *open_paren = strchr(text, '('), *close_paren = strrchr(text, ')');
    if (!open_paren || !close_paren)
        return 0;
    info->pid = pid;
    *close_paren = 0;
    snprintf(info->name, sizeof info->name, "%s", open_paren + 1);
    return sscanf(close_paren + 1, " %c %d %d", &info->state, &info->ppid, &info->pgrp) == 3;
}

/** All processes of the machine that we can see; at most cap of them. */
static inline size_t proc_list(struct proc_info *list, size_t cap)
{
    DIR *dir = opendir("/proc");
    CHECK(dir != NULL);
    size_t n = 0;
    for (struct dirent *e = readdir(dir); e && n < cap; e = readdir(dir)) {
        const int pid = (int)strtol(e->d_name, NULL, 10);
        if (pid > 0 && proc_read(pid, &list[n]))
            n++;
    }
    closedir(dir);
    return n;
}

enum { CHECK_PROCS = 4096 };

/** Descendants of root that are called name (NULL: any); *one gets one of them. */
static inline int count_descendants(int root, const char *name, int zombies, int *one)
{
    struct proc_info *list = malloc(CHECK_PROCS * sizeof *list);
    char *mine = calloc(CHECK_PROCS, 1);
    CHECK(list != NULL && mine != NULL);
    const size_t n = proc_list(list, CHECK_PROCS);
    int count = 0, grown = 1;
    while (grown) {
        grown = 0;
        for (size_t i = 0; i < n; i++) {
            int parent_is = list[i].ppid == root;
            for (size_t k = 0; k < n && !parent_is; k++)
                parent_is = mine[k] && list[k].pid == list[i].ppid;
            if (!mine[i] && parent_is)
                mine[i] = (char)(grown = 1);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!mine[i] || (list[i].state == 'Z' && !zombies) || (name && strcmp(list[i].name, name)))
            continue;
        count++;
        if (one)
            *one = list[i].pid;
    }
    free(list);
    free(mine);
    return count;
}

static inline int count_children(void)
{
    return count_descendants(getpid(), NULL, 1, NULL);
}

/** Signal a child of ours; looks twice, so that a reused number is never hit. 1 if it was sent. */
static inline int signal_child(int pid, int sig)
{
    struct proc_info info;
    const int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return 0;
    int sent = 0;
    if (proc_read(pid, &info) && info.ppid == getpid() && info.state != 'Z')
        sent = syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0) == 0;
    close(fd);
    return sent;
}

static inline int process_is_gone(int pid)
{
    struct proc_info info;
    return !proc_read(pid, &info) || info.state == 'Z' || info.state == 'X';
}

/** Run fn in a forked child. \return its exit code, or 128 + the signal that ended it. */
static inline int in_child(int (*fn)(void *), void *arg)
{
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(CHECK_TIMEOUT * check_slowness());
        const int code = fn(arg);
        fflush(NULL);
        _exit(code);
    }
    int status = 0;
    pid_t got;
    do {
        got = waitpid(pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    CHECK_EQ(got, pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/** As in_child; fails the test unless the child exits with 0. 77 skips nothing: it comes back. */
#define CHECK_CHILD(fn, arg) CHECK_EQ(in_child((fn), (arg)), 0)

/* ---- what must not grow -------------------------------------------------------------------- */

struct usage {
    int fds, children, threads, maps;
    size_t blocks;
};

static inline struct usage usage_now(void)
{
    const size_t blocks = count_blocks(); /* first: it opens the heap */
    return (struct usage){count_fds(), count_children(), count_threads(), count_maps(), blocks};
}

/** Fails unless we hold again what we held before; maps may have grown by a few. */
static inline void usage_check(struct usage before, int maps_slack)
{
    WAIT_FOR(count_children() <= before.children);
    WAIT_FOR(count_threads() <= before.threads);
    const struct usage now = usage_now();
    CHECK_EQ(now.fds, before.fds);
    CHECK_EQ(now.children, before.children);
    CHECK_EQ(now.blocks, before.blocks);
    if (CHECK_ASAN || CHECK_TSAN) /* a sanitizer maps as it likes */
        return;
    if (now.maps > before.maps + maps_slack)
        fprintf(stderr, "mappings: %d before, %d now\n", before.maps, now.maps);
    CHECK(now.maps <= before.maps + maps_slack);
}

/* ---- random numbers a failure can be repeated with ------------------------------------------ */

static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/** CHECK_SEED, or the clock; printed, so that the run can be repeated. */
static inline uint64_t random_seed(void)
{
    const char *text = getenv("CHECK_SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)yoke_now_ns();
    fprintf(stderr, "    CHECK_SEED=%" PRIu64 "\n", seed);
    return seed;
}

#endif
