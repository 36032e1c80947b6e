/* SPDX-License-Identifier: MIT
 * images.c - the spike behind docs/adr/0001: how to make worker processes of a big program.
 *
 * Idea: every claim of that decision is run here, on plain Linux without Yoke: how long a worker
 * takes to start from four kinds of parent, what a snapshot pins, which children hang when
 * they are made beside threads busy in malloc, and what the kernel does with exit signals,
 * PDEATHSIG, robust mutexes and the rest. It stays in the tree as evidence, and to be run
 * again on other machines; the normal bench does not build it.
 *
 *   cc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -pthread -o images bench/spikes/images.c
 *   ./images                                everything, a few minutes
 *   ./images time MB THREADS ROUNDS         start times and pinned pages
 *   ./images hangs THREADS CHILDREN ARENAS  children that hang (ARENAS 0: malloc's default)
 *   ./images semantics                      yes or no; exit code 1 if one contradicts the decision
 *
 * One file on purpose, over the usual length: it must compile alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum {
    PAGE = 4096,
    MAX_ROUNDS = 1001,
    REWRITES = 9,
    MAX_THREADS = 64,
    SLOTS = 256,
    HANG_MS = 500,
    PART_MS = 600000,
    CHECK_MS = 20000
};

enum how { RAW, FORK }; /* a raw clone with exit signal 0, or glibc's fork() */

/* ---- small helpers ---- */

static void die(const char *what)
{
    perror(what);
    _exit(2);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *map(size_t bytes, int flags)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

/* Wait until *word is no longer old; dies after 10 s, so that nothing here waits for ever. */
static void word_wait(_Atomic int *word, int old)
{
    const int64_t until = now_ns() + INT64_C(10000000000);
    while (atomic_load(word) == old) {
        const struct timespec step = {.tv_sec = 1};
        syscall(SYS_futex, word, FUTEX_WAIT, old, &step, NULL, 0);
        if (now_ns() > until && atomic_load(word) == old) {
            errno = ETIMEDOUT;
            die("word_wait");
        }
    }
}

static void word_set(_Atomic int *word, int value)
{
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE, 1000, NULL, NULL, 0);
}

/* Has the process ended after that many milliseconds? Leaves it to be reaped. */
static bool ended_within(pid_t pid, int ms)
{
    const int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return errno == ESRCH; /* reaped by the kernel already */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    const int64_t until = now_ns() + (int64_t)ms * 1000000;
    int rc;
    do {
        const int64_t left = (until - now_ns() + 999999) / 1000000;
        rc = poll(&p, 1, left > 0 ? (int)left : 0);
    } while (rc < 0 && errno == EINTR);
    close(fd);
    return rc > 0;
}

static siginfo_t reap(pid_t pid)
{
    siginfo_t info = {0};
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | __WALL) != 0)
        if (errno != EINTR)
            die("waitid");
    return info;
}

static void kill_and_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    reap(pid);
}

/* A number from a line "Key:  123 kB" of a file in /proc/PID; -1 when it is not there. */
static long proc_kb(pid_t pid, const char *file, const char *key)
{
    char path[64], line[256];
    long kb = -1;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return -1;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            kb = strtol(line + strlen(key), NULL, 10);
    fclose(f);
    return kb;
}

/* Field number 3 (state, as a character) or a later one (as a number) of /proc/PID/stat. */
static long proc_stat(pid_t pid, int field)
{
    char path[64], text[1024] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return -1;
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *at = strrchr(text, ')'); /* the name is field 2 and may hold anything */
    for (int i = 2; at != NULL && i < field; i++)
        at = strchr(at + 1, ' ');
    if (at == NULL)
        return -1;
    return field == 3 ? at[1] : strtol(at + 1, NULL, 10);
}

/* ---- processes: raw clone, template, keeper thread ---- */

/* Where glibc keeps this thread's id and robust list: what fork() renews in a child, and a raw
 * clone must renew by hand. Read it in the thread that is about to be copied. */
struct refs {
    void *tid;
    void *robust;
    size_t robust_bytes;
};

static struct refs refs_read(void)
{
    struct refs r = {0};
    if (prctl(PR_GET_TID_ADDRESS, &r.tid, 0, 0, 0) != 0)
        r.tid = NULL;
    if (syscall(SYS_get_robust_list, 0, &r.robust, &r.robust_bytes) != 0)
        r.robust = NULL;
    return r;
}

/* clone without a new stack: the child goes on where the caller is, in a copy. refs may be NULL. */
static pid_t raw_clone(unsigned long flags, const struct refs *refs)
{
    void *tid = NULL;
    if (refs != NULL && refs->tid != NULL) {
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
        tid = refs->tid;
    }
#if defined(__x86_64__)
    const long pid = syscall(SYS_clone, flags, NULL, NULL, tid, NULL);
#else
    const long pid = syscall(SYS_clone, flags, NULL, NULL, NULL, tid);
#endif
    if (pid < 0)
        die("clone");
    if (pid == 0 && refs != NULL && refs->robust != NULL)
        syscall(SYS_set_robust_list, refs->robust, refs->robust_bytes);
    return (pid_t)pid;
}

static pid_t split(enum how how)
{
    if (how == RAW)
        return raw_clone(0, NULL);
    const pid_t pid = fork();
    if (pid < 0)
        die("fork");
    return pid;
}

typedef int job_fn(void *arg);

/* What a template, its workers and the program share. */
struct station {
    _Atomic int request;    /* the program counts up; the template makes one worker for each */
    _Atomic int worker;     /* the newest worker's pid, written by itself */
    _Atomic int64_t first;  /* when it ran its first instruction */
    _Atomic int flag;       /* for jobs */
    _Atomic int made;       /* the template's pid, by the keeper */
    _Atomic int keeper_end; /* not 0: the keeper thread returns */
    unsigned long flags;    /* what workers are cloned with, besides CLONE_PARENT */
    bool fix;               /* renew tid and robust list in workers */
    bool outlives;          /* the template has no PDEATHSIG */
    struct refs refs;
    job_fn *job;
    void *arg;
    pthread_mutex_t mutex;
};

static struct station *station_create(void)
{
    struct station *s = map(sizeof *s, MAP_SHARED);
    s->fix = true;
    return s;
}

static void worker_run(struct station *s)
{
    atomic_store(&s->first, now_ns());
    word_set(&s->worker, (int)syscall(SYS_getpid));
    _exit(s->job == NULL ? 0 : s->job(s->arg));
}

static void template_run(struct station *s)
{
    if (!s->outlives)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int served = 0;; served++) {
        while (atomic_load(&s->request) == served)
            syscall(SYS_futex, &s->request, FUTEX_WAIT, served, NULL, NULL, 0);
        if (raw_clone(CLONE_PARENT | s->flags, s->fix ? &s->refs : NULL) == 0)
            worker_run(s);
    }
}

static pid_t template_create(struct station *s, enum how how)
{
    s->refs = refs_read();
    atomic_store(&s->request, 0);
    const pid_t pid = split(how);
    if (pid == 0)
        template_run(s);
    return pid;
}

/* Ask the template for a worker. Returns its pid once it runs, and how long that took. */
static pid_t worker_create(struct station *s, job_fn *job, void *arg, int64_t *ns)
{
    s->job = job;
    s->arg = arg;
    atomic_store(&s->worker, 0);
    const int64_t begin = now_ns();
    word_set(&s->request, atomic_load(&s->request) + 1);
    word_wait(&s->worker, 0);
    if (ns != NULL)
        *ns = atomic_load(&s->first) - begin;
    return atomic_load(&s->worker);
}

struct keeper {
    pthread_t thread;
    struct station *station;
    enum how how;
    pid_t pid; /* of the template */
};

static void *keeper_run(void *arg)
{
    struct keeper *k = arg;
    word_set(&k->station->made, template_create(k->station, k->how));
    while (atomic_load(&k->station->keeper_end) == 0)
        syscall(SYS_futex, &k->station->keeper_end, FUTEX_WAIT, 0, NULL, NULL, 0);
    return NULL;
}

/* A template forked by a thread of its own, as in the decision. */
static struct keeper *keeper_create(enum how how, struct station *s)
{
    struct keeper *k = map(sizeof *k, MAP_PRIVATE);
    k->station = s;
    k->how = how;
    if (pthread_create(&k->thread, NULL, keeper_run, k) != 0)
        die("pthread_create");
    word_wait(&s->made, 0);
    k->pid = atomic_load(&s->made);
    return k;
}

static void keeper_end(struct keeper *k)
{
    word_set(&k->station->keeper_end, 1);
    pthread_join(k->thread, NULL);
}

/* ---- threads busy in malloc and free, which also free each other's blocks ---- */

static _Atomic(void *) slots[SLOTS];
static _Atomic bool busy_end;
static pthread_t busy_threads[MAX_THREADS];

static void *busy_run(void *arg)
{
    uint64_t x = 88172645463325252u + (uintptr_t)arg;
    while (!atomic_load_explicit(&busy_end, memory_order_relaxed)) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        char *p = malloc(16 + x % 4000);
        if (p == NULL)
            die("malloc");
        *p = 1;
        free(atomic_exchange(&slots[(x >> 32) % SLOTS], p));
    }
    return NULL;
}

static void busy_start(int count)
{
    for (int i = 0; i < count; i++)
        if (pthread_create(&busy_threads[i], NULL, busy_run, (void *)(uintptr_t)(i + 1)) != 0)
            die("pthread_create");
}

static void busy_stop(int count)
{
    atomic_store(&busy_end, true);
    for (int i = 0; i < count; i++)
        pthread_join(busy_threads[i], NULL);
}

/* ---- part 1: start times, and what a snapshot pins ---- */

static int compare_ns(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, int64_t *ns, int rounds)
{
    qsort(ns, (size_t)rounds, sizeof *ns, compare_ns);
    printf("  %-46s %10.0f %10.0f\n", name, (double)ns[rounds / 2] / 1000,
           (double)ns[rounds * 9 / 10] / 1000);
}

static int job_sleep(void *arg)
{
    (void)arg;
    while (pause() != 0) {
    }
    return 0;
}

static int64_t time_direct(struct station *s, enum how how)
{
    const int64_t begin = now_ns();
    const pid_t pid = split(how);
    if (pid == 0) {
        atomic_store(&s->first, now_ns());
        _exit(0);
    }
    reap(pid);
    return atomic_load(&s->first) - begin;
}

static int64_t time_worker(struct station *s)
{
    int64_t ns;
    reap(worker_create(s, NULL, NULL, &ns));
    return ns;
}

static long own_kb(pid_t pid)
{
    return proc_kb(pid, "smaps_rollup", "Private_Clean:") +
           proc_kb(pid, "smaps_rollup", "Private_Dirty:");
}

static void print_memory(const char *when, pid_t snapshot, pid_t seed)
{
    printf("  %-46s %10.1f %10.1f\n", when, (double)own_kb(snapshot) / 1024,
           (double)own_kb(seed) / 1024);
}

static void print_worker_memory(struct station *snapshot, struct station *seed)
{
    const pid_t a = worker_create(snapshot, job_sleep, NULL, NULL);
    const pid_t b = worker_create(seed, job_sleep, NULL, NULL);
    printf("  %-46s %10.2f %10.2f\n", "page tables of one worker",
           (double)proc_kb(a, "status", "VmPTE:") / 1024,
           (double)proc_kb(b, "status", "VmPTE:") / 1024);
    kill_and_reap(a);
    kill_and_reap(b);
}

static double rewrite_us_per_page(volatile char *memory, size_t bytes)
{
    const int64_t begin = now_ns();
    for (size_t i = 0; i < bytes; i += PAGE)
        memory[i]++;
    return (double)(now_ns() - begin) / 1000 / (double)(bytes / PAGE);
}

static void print_pinned(char *memory, size_t bytes, pid_t snapshot, pid_t seed)
{
    const size_t half = bytes / 2 / PAGE * PAGE;
    print_memory("only the template's: before", snapshot, seed);
    const double first = rewrite_us_per_page(memory, half);
    print_memory("  after the program rewrote half", snapshot, seed);
    const double second = rewrite_us_per_page(memory, half);
    munmap(memory + half, bytes - half);
    print_memory("  after it gave the other half back", snapshot, seed);
    printf("  rewriting a page: %.2f us the first time, %.2f us the second\n", first, second);
}

/* Pages written since the last fork cost more to copy: both ways, before any snapshot holds them. */
static void time_rewritten(struct station *s, char *memory, size_t bytes, int64_t (*ns)[REWRITES])
{
    for (int r = 0; r < REWRITES; r++)
        for (int k = 0; k < 2; k++) {
            const enum how how = (r + k) % 2 == 0 ? FORK : RAW;
            memset(memory, 1, bytes);
            ns[how][r] = time_direct(s, how);
        }
}

static int part_time(const long *v)
{
    const size_t bytes = (size_t)v[0] << 20;
    const int threads = (int)v[1], rounds = (int)v[2];
    struct station *seed = station_create(), *snapshot = station_create();
    const pid_t seed_pid = template_create(seed, FORK); /* first thing, before the memory */

    char *memory = map(bytes, MAP_PRIVATE);
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    memset(memory, 1, bytes);
    busy_start(threads);
    static int64_t ns[4][MAX_ROUNDS], fresh[2][REWRITES];
    time_rewritten(snapshot, memory, bytes, fresh);
    const pid_t snapshot_pid = template_create(snapshot, FORK);

    for (int r = -2; r < rounds; r++)
        for (int k = 0; k < 4; k++) {
            const int way = (r + 2 + k) % 4;
            const int64_t t = way == 0   ? time_direct(snapshot, FORK)
                              : way == 1 ? time_direct(snapshot, RAW)
                              : way == 2 ? time_worker(snapshot)
                                         : time_worker(seed);
            if (r >= 0)
                ns[way][r] = t;
        }
    printf("\n%zu MB private in 4 KiB pages, %d threads busy in malloc, %d interleaved rounds\n",
           bytes >> 20, threads, rounds);
    printf("  %-46s %10s %10s\n", "to the first instruction of the child, us", "median", "p90");
    print_times("(a) fork()", ns[0], rounds);
    print_times("(b) raw clone", ns[1], rounds);
    print_times("(c) worker of a SNAPSHOT template", ns[2], rounds);
    print_times("(d) worker of a SEED template", ns[3], rounds);
    print_times("(e) fork(), all pages rewritten since the last", fresh[FORK], REWRITES);
    print_times("(f) raw clone, the same", fresh[RAW], REWRITES);
    busy_stop(threads);
    printf("  %-46s %10s %10s\n", "memory, MB", "snapshot", "seed");
    print_worker_memory(snapshot, seed);
    print_pinned(memory, bytes, snapshot_pid, seed_pid);
    kill_and_reap(seed_pid);
    kill_and_reap(snapshot_pid);
    return 0;
}

/* ---- part 2: children that hang ---- */

/* What any task may do: take and free memory, print; with inherited, free the program's blocks. */
static int job_heap(void *inherited)
{
    void *fresh[64];
    for (int i = 0; i < 64; i++) {
        fresh[i] = malloc((size_t)(1100 + i * 37)); /* too big for the thread's own cache */
        if (fresh[i] == NULL)
            return 1;
        memset(fresh[i], 1, 1100);
    }
    for (int i = 0; i < 64; i++)
        free(fresh[i]);
    for (int i = 0; inherited != NULL && i < SLOTS; i++)
        free(atomic_exchange(&slots[i], NULL));
    FILE *f = fopen("/dev/null", "w");
    if (f == NULL)
        return 1;
    fprintf(f, "%d %f\n", 1, 2.0);
    fclose(f);
    return 0;
}

struct row {
    const char *name;
    enum how how;
    bool by_template, from_main, inherited;
    int count;
    int hung, asleep, crashed;
};

static pid_t row_child(const struct row *row, struct station *s, pid_t *template_pid)
{
    void *arg = row->inherited ? s : NULL;
    if (row->by_template) {
        *template_pid = template_create(s, row->how);
        return worker_create(s, job_heap, arg, NULL);
    }
    const pid_t pid = split(row->how);
    if (pid == 0)
        _exit(job_heap(arg));
    return pid;
}

static void *row_run(void *arg)
{
    struct row *row = arg;
    struct station *s = station_create();
    for (int i = 0; i < row->count; i++) {
        pid_t template_pid = 0;
        const pid_t pid = row_child(row, s, &template_pid);
        if (!ended_within(pid, HANG_MS)) {
            row->hung++;
            row->asleep += proc_stat(pid, 3) == 'S'; /* waits for a lock, is not just slow */
            kill(pid, SIGKILL);
            reap(pid);
        } else {
            const siginfo_t end = reap(pid);
            row->crashed += end.si_code != CLD_EXITED || end.si_status != 0;
        }
        if (template_pid != 0)
            kill_and_reap(template_pid);
    }
    return NULL;
}

static int part_hangs(const long *v)
{
    const int threads = (int)v[0], children = (int)v[1], arenas = (int)v[2];
    struct row rows[] = {
        {.name = "raw clone, child uses new memory", .how = RAW},
        {.name = "raw clone by the main thread, the same", .how = RAW, .from_main = true},
        {.name = "raw clone, child also frees inherited", .how = RAW, .inherited = true},
        {.name = "raw template, worker the same",
         .how = RAW,
         .by_template = true,
         .inherited = true},
        {.name = "fork(), child the same", .how = FORK, .inherited = true},
        {.name = "fork() template, worker the same",
         .how = FORK,
         .by_template = true,
         .inherited = true},
    };
    if (arenas > 0)
        mallopt(M_ARENA_MAX, arenas);
    busy_start(threads);
    printf("\n%d threads busy in malloc, ", threads);
    if (arenas > 0)
        printf("%d arena(s), ", arenas);
    else
        printf("default arenas, ");
    printf("%d children each, deadline %d ms\n", children, HANG_MS);
    printf("  %-46s %6s %15s %8s\n", "made beside them", "hung", "(asleep then)", "crashed");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rows[i].count = children;
        pthread_t thread;
        if (rows[i].from_main)
            row_run(&rows[i]);
        else if (pthread_create(&thread, NULL, row_run, &rows[i]) != 0)
            die("pthread_create");
        else
            pthread_join(thread, NULL);
        printf("  %-46s %6d %15d %8d\n", rows[i].name, rows[i].hung, rows[i].asleep,
               rows[i].crashed);
    }
    busy_stop(threads);
    return 0;
}

/* ---- part 3: yes or no. Each check runs in a process of its own: 1 yes, 0 no ---- */

static struct keeper *start_worker(enum how how, job_fn *job, pid_t *worker)
{
    struct station *s = station_create();
    struct keeper *k = keeper_create(how, s);
    *worker = worker_create(s, job, s, NULL);
    return k;
}

static int job_exit7(void *arg)
{
    (void)arg;
    return 7;
}

/* Ended and not yet reaped by us: now everybody may look at the zombie. */
static void await_zombie(pid_t pid)
{
    siginfo_t info;
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | __WALL) != 0)
        die("waitid WNOWAIT");
}

/* The template inherits to its workers its own exit signal, whatever clone is asked for. */
static int has_exit_signal(enum how how, int asked)
{
    struct station *s = station_create();
    s->flags = (unsigned long)asked;
    keeper_create(how, s);
    const pid_t pid = worker_create(s, job_exit7, NULL, NULL);
    await_zombie(pid);
    return proc_stat(pid, 38) == (how == RAW ? 0 : SIGCHLD);
}

static int seen_by_waitpid(enum how how, int unused)
{
    (void)unused;
    pid_t worker;
    start_worker(how, job_exit7, &worker);
    await_zombie(worker);
    return waitpid(-1, NULL, WNOHANG) == worker;
}

static int wait_gives_echild(enum how how, int unused)
{
    (void)unused;
    pid_t worker;
    start_worker(how, job_sleep, &worker);
    return wait(NULL) == -1 && errno == ECHILD; /* if not, it blocks, and the deadline says so */
}

static _Atomic int handled;

static void on_sigchld(int number)
{
    (void)number;
    atomic_store(&handled, 1);
}

static int handler_runs(enum how how, int unused)
{
    (void)unused;
    pid_t worker;
    signal(SIGCHLD, on_sigchld);
    start_worker(how, job_exit7, &worker);
    await_zombie(worker);
    for (int i = 0; i < 20 && atomic_load(&handled) == 0; i++)
        poll(NULL, 0, 10);
    return atomic_load(&handled);
}

static int pidfd_waits(enum how how, int options)
{
    pid_t worker;
    siginfo_t info = {0};
    start_worker(how, job_exit7, &worker);
    await_zombie(worker);
    const int fd = (int)syscall(SYS_pidfd_open, worker, 0);
    const int rc = waitid(P_PIDFD, (id_t)fd, &info, WEXITED | options);
    return rc == 0 && info.si_pid == worker && info.si_status == 7;
}

static int job_wait_flag(void *arg)
{
    struct station *s = arg;
    word_wait(&s->flag, 0);
    return 7;
}

/* With SIGCHLD ignored: is the status gone when the pidfd says that the worker has ended? */
static int auto_reaped(enum how how, int unused)
{
    (void)unused;
    pid_t worker;
    siginfo_t info = {0};
    signal(SIGCHLD, SIG_IGN);
    struct keeper *k = start_worker(how, job_wait_flag, &worker);
    const int fd = (int)syscall(SYS_pidfd_open, worker, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    word_set(&k->station->flag, 1);
    if (fd < 0 || poll(&p, 1, 5000) != 1)
        die("pidfd");
    if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED | __WALL) == 0)
        return info.si_status == 7 ? 0 : 2;
    return errno == ECHILD ? 1 : 2;
}

static int job_pdeathsig(void *arg)
{
    struct station *s = arg;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    word_set(&s->flag, 1);
    return job_sleep(arg);
}

/* A worker with PDEATHSIG, seen alive for a while: only what comes next can have killed it. */
static pid_t pdeathsig_worker(enum how how, struct keeper **keeper)
{
    struct station *s = station_create();
    s->outlives = true;
    *keeper = keeper_create(how, s);
    const pid_t worker = worker_create(s, job_pdeathsig, s, NULL);
    word_wait(&s->flag, 0);
    if (ended_within(worker, 200))
        die("the worker ended too early");
    return worker;
}

static int thread_exit_kills(enum how how, int unused)
{
    (void)unused;
    struct keeper *k;
    const pid_t worker = pdeathsig_worker(how, &k);
    keeper_end(k);
    const bool gone = ended_within(worker, 2000);
    const bool killed = gone && reap(worker).si_status == SIGKILL;
    const bool template_lives = !ended_within(k->pid, 100);
    return killed && template_lives;
}

static int survives_template(enum how how, int unused)
{
    (void)unused;
    struct keeper *k;
    const pid_t worker = pdeathsig_worker(how, &k);
    kill_and_reap(k->pid);
    return !ended_within(worker, 300);
}

static int tid_address_here(enum how how, int unused)
{
    (void)how;
    (void)unused;
    return refs_read().tid != NULL;
}

static int tid_address_in_child(enum how how, int unused)
{
    (void)unused;
    const pid_t pid = split(how);
    if (pid == 0)
        _exit(refs_read().tid != NULL);
    return reap(pid).si_status;
}

static void mutex_init(pthread_mutex_t *m, int type, int robust)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_settype(&a, type);
    pthread_mutexattr_setrobust(&a, robust);
    pthread_mutex_init(m, &a);
}

static int job_lock(void *arg)
{
    struct station *s = arg;
    word_set(&s->flag, pthread_mutex_lock(&s->mutex) == 0 ? 1 : 2);
    return job_sleep(arg);
}

static int job_trylock(void *arg)
{
    struct station *s = arg;
    return pthread_mutex_trylock(&s->mutex) == 0;
}

static struct keeper *lock_in_worker(enum how how, int fix, int type, int robust, pid_t *worker)
{
    struct station *s = station_create();
    s->fix = fix != 0;
    mutex_init(&s->mutex, type, robust);
    struct keeper *k = keeper_create(how, s);
    *worker = worker_create(s, job_lock, s, NULL);
    word_wait(&s->flag, 0);
    if (atomic_load(&s->flag) != 1)
        die("the worker could not lock");
    return k;
}

static int robust_works(enum how how, int fix)
{
    pid_t worker;
    struct keeper *k =
        lock_in_worker(how, fix, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, &worker);
    kill_and_reap(worker);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    return pthread_mutex_timedlock(&k->station->mutex, &until) == EOWNERDEAD;
}

/* Two workers of one template and a recursive mutex: do both get it at the same time? */
static int recursive_shared(enum how how, int fix)
{
    pid_t worker;
    struct keeper *k =
        lock_in_worker(how, fix, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_STALLED, &worker);
    return reap(worker_create(k->station, job_trylock, k->station, NULL)).si_status;
}

static void *thread_answer(void *arg)
{
    return arg;
}

static int job_thread(void *arg)
{
    pthread_t t;
    void *got = NULL;
    return pthread_create(&t, NULL, thread_answer, arg) == 0 && pthread_join(t, &got) == 0 &&
           got == arg;
}

static int thread_in_worker(enum how how, int fix)
{
    struct station *s = station_create();
    s->fix = fix != 0;
    if (how == FORK)
        busy_start(2);
    keeper_create(how, s);
    const pid_t worker = worker_create(s, job_thread, s, NULL);
    if (!ended_within(worker, 5000))
        return 0;
    return reap(worker).si_status == 1;
}

static int wiped(enum how how, int unused)
{
    (void)unused;
    char *page = map(PAGE, MAP_PRIVATE);
    memset(page, 0xaa, PAGE);
    if (madvise(page, PAGE, MADV_WIPEONFORK) != 0)
        die("MADV_WIPEONFORK");
    const pid_t pid = split(how);
    if (pid == 0) {
        int set = 0;
        for (int i = 0; i < PAGE; i++)
            set += page[i] != 0;
        _exit(set == 0);
    }
    return reap(pid).si_status == 1 && (unsigned char)page[PAGE - 1] == 0xaa;
}

static long links(void)
{
    struct stat st;
    return stat("/proc/self/task", &st) == 0 ? (long)st.st_nlink - 2 : -1;
}

/* After a join the kernel may still count the thread for a moment: too many, never too few. */
static int links_count_threads(enum how how, int unused)
{
    (void)how;
    (void)unused;
    const long before = links();
    busy_start(3);
    const long during = links();
    busy_stop(3);
    const int64_t until = now_ns() + INT64_C(2000000000);
    while (links() != 1 && now_ns() < until)
        sched_yield();
    return before == 1 && during == 4 && links() == 1;
}

static int atfork_seen;

static void on_atfork(void)
{
    atfork_seen = 1;
}

static int atfork_runs(enum how how, int unused)
{
    (void)unused;
    pthread_atfork(NULL, NULL, on_atfork);
    const pid_t pid = split(how);
    if (pid == 0)
        _exit(atfork_seen);
    return reap(pid).si_status;
}

static FILE *held;

static int job_print(void *arg)
{
    (void)arg;
    return fprintf(held, "x") != 1;
}

/* The caller holds a stdio lock while the keeper makes the image: does a worker's printf hang? */
static int stdio_lock_hangs(enum how how, int unused)
{
    (void)unused;
    pid_t worker;
    held = fopen("/dev/null", "w");
    if (held == NULL)
        die("/dev/null");
    flockfile(held);
    start_worker(how, job_print, &worker);
    const int hung = !ended_within(worker, 1000);
    funlockfile(held);
    return hung;
}

/* A thread writes cause, then effect, far apart in memory. No copy may hold an effect without
 * its cause, if fork() takes the memory at one instant. */
enum { FAR = 64 << 20 };
static char *far_memory;

static void *cause_run(void *arg)
{
    (void)arg;
    _Atomic long *cause = (_Atomic long *)far_memory;
    _Atomic long *effect = (_Atomic long *)(far_memory + FAR - PAGE);
    for (long i = 1; !atomic_load(&busy_end); i++) {
        atomic_store(cause, i);
        atomic_store(effect, i);
    }
    return NULL;
}

static int one_instant(enum how how, int unused)
{
    (void)unused;
    far_memory = map(FAR, MAP_PRIVATE);
    madvise(far_memory, FAR, MADV_NOHUGEPAGE);
    memset(far_memory, 0, FAR);
    if (pthread_create(&busy_threads[0], NULL, cause_run, NULL) != 0)
        die("pthread_create");
    const _Atomic long *cause = (_Atomic long *)far_memory;
    const _Atomic long *effect = (_Atomic long *)(far_memory + FAR - PAGE);
    int torn = 0;
    long last = 0, moved = 0;
    for (int i = 0; i < 100; i++) {
        const pid_t pid = split(how);
        if (pid == 0) {
            const long gap = atomic_load(cause) - atomic_load(effect);
            _exit(gap != 0 && gap != 1);
        }
        torn += reap(pid).si_status;
        const long now = atomic_load(cause);
        moved += now != last;
        last = now;
    }
    busy_stop(1);
    return moved < 90 ? 2 : torn == 0;
}

static const struct check {
    const char *question;
    int (*run)(enum how how, int v);
    enum how how;
    int v;
    int expected;
} checks[] = {
    {"worker of a raw template, cloned with SIGCHLD: exit signal is 0", has_exit_signal, RAW,
     SIGCHLD, 1},
    {"worker of a fork() template, cloned with 0: exit signal is SIGCHLD", has_exit_signal, FORK, 0,
     1},
    {"the host's waitpid(-1) takes a worker of a raw template", seen_by_waitpid, RAW, 0, 0},
    {"the host's waitpid(-1) takes a worker of a fork() template", seen_by_waitpid, FORK, 0, 1},
    {"wait(NULL) beside a live raw template and worker: ECHILD at once", wait_gives_echild, RAW, 0,
     1},
    {"the host's SIGCHLD handler runs, worker of a raw template", handler_runs, RAW, 0, 0},
    {"the host's SIGCHLD handler runs, worker of a fork() template", handler_runs, FORK, 0, 1},
    {"waitid(P_PIDFD, WEXITED|__WALL) gets the status, exit signal 0", pidfd_waits, RAW, __WALL, 1},
    {"waitid(P_PIDFD, WEXITED) without __WALL does", pidfd_waits, RAW, 0, 0},
    {"SIGCHLD ignored: the kernel reaps a worker with exit signal 0", auto_reaped, RAW, 0, 0},
    {"SIGCHLD ignored: the kernel reaps a worker with SIGCHLD", auto_reaped, FORK, 0, 1},
    {"PDEATHSIG of a worker: thread that made the raw template exits", thread_exit_kills, RAW, 0,
     1},
    {"PDEATHSIG of a worker: thread that fork()ed the template exits", thread_exit_kills, FORK, 0,
     1},
    {"a worker with PDEATHSIG lives on when its template is killed", survives_template, RAW, 0, 1},
    {"PR_GET_TID_ADDRESS works in a thread of the program", tid_address_here, RAW, 0, 1},
    {"PR_GET_TID_ADDRESS finds it inside a raw-cloned process", tid_address_in_child, RAW, 0, 0},
    {"PR_GET_TID_ADDRESS finds it inside a child of fork()", tid_address_in_child, FORK, 0, 1},
    {"robust mutex: EOWNERDEAD after a kill, raw template, bare", robust_works, RAW, 0, 0},
    {"robust mutex: the same, fork() template, worker bare", robust_works, FORK, 0, 0},
    {"robust mutex: the same, raw template, tid and list renewed", robust_works, RAW, 1, 1},
    {"robust mutex: the same, fork() template, renewed", robust_works, FORK, 1, 1},
    {"recursive shared mutex given to two workers at once, bare", recursive_shared, FORK, 0, 1},
    {"recursive shared mutex given to two workers at once, renewed", recursive_shared, FORK, 1, 0},
    {"pthread_create and join in a worker, raw template, bare", thread_in_worker, RAW, 0, 1},
    {"pthread_create and join in a worker, raw template, renewed", thread_in_worker, RAW, 1, 1},
    {"pthread_create and join, fork() template beside busy threads", thread_in_worker, FORK, 1, 1},
    {"MADV_WIPEONFORK: zero in a child of fork()", wiped, FORK, 0, 1},
    {"MADV_WIPEONFORK: zero in a child of raw clone", wiped, RAW, 0, 1},
    {"stat(\"/proc/self/task\").st_nlink - 2 is the number of threads", links_count_threads, RAW, 0,
     1},
    {"pthread_atfork handlers run in a child of fork()", atfork_runs, FORK, 0, 1},
    {"pthread_atfork handlers run in a child of raw clone", atfork_runs, RAW, 0, 0},
    {"caller holds flockfile: worker's fprintf hangs, raw template", stdio_lock_hangs, RAW, 0, 1},
    {"caller holds flockfile: worker's fprintf hangs, fork() template", stdio_lock_hangs, FORK, 0,
     0},
    {"fork() beside a writing thread copies one instant", one_instant, FORK, 0, 1},
};

/* ---- running the parts ---- */

typedef int part_fn(const long *v);

/* Run it in a child, in a process group of its own; kill whatever is left. -1: no answer. */
static int run_apart(part_fn *part, const long *v, int ms)
{
    fflush(stdout);
    const pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int rc = part(v);
        fflush(stdout);
        _exit(rc);
    }
    setpgid(pid, pid);
    const bool ended = ended_within(pid, ms);
    kill(-pid, SIGKILL); /* still a zombie at least, so the number is its own */
    const siginfo_t end = reap(pid);
    return ended && end.si_code == CLD_EXITED ? end.si_status : -1;
}

static int part_check(const long *v)
{
    const struct check *c = &checks[v[0]];
    return c->run(c->how, c->v);
}

static int part_semantics(void)
{
    int contradicted = 0;
    printf("\nyes or no\n");
    for (long i = 0; i < (long)(sizeof checks / sizeof *checks); i++) {
        const int answer = run_apart(part_check, &i, CHECK_MS);
        const bool same = answer == checks[i].expected;
        printf("  %-4s %s%s\n",
               answer == 1   ? "yes"
               : answer == 0 ? "no"
                             : "?",
               checks[i].question, same ? "" : "   (CONTRADICTS the decision)");
        contradicted += !same;
    }
    printf("  %d of %zu contradict the decision\n", contradicted, sizeof checks / sizeof *checks);
    return contradicted > 0;
}

static int run_all(void)
{
    static const long times[][3] = {{10, 0, 101},  {1000, 0, 31}, {10, 1, 101},
                                    {1000, 1, 31}, {10, 4, 101},  {1000, 4, 31}};
    static const long hangs[][3] = {{4, 60, 0}, {4, 60, 1}};
    int rc = 0;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        rc |= run_apart(part_time, times[i], PART_MS) != 0;
    for (size_t i = 0; i < sizeof hangs / sizeof *hangs; i++)
        rc |= run_apart(part_hangs, hangs[i], PART_MS) != 0;
    return rc | part_semantics();
}

int main(int argc, char **argv)
{
    long v[3] = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 2; i < argc && i < 5; i++)
        v[i - 2] = strtol(argv[i], NULL, 10);
    if (argc == 1)
        return run_all();
    if (argc == 2 && strcmp(argv[1], "semantics") == 0)
        return part_semantics();
    if (argc == 5 && strcmp(argv[1], "time") == 0 && v[0] > 0 && v[1] >= 0 && v[1] <= MAX_THREADS &&
        v[2] > 0 && v[2] <= MAX_ROUNDS)
        return run_apart(part_time, v, PART_MS) != 0;
    if (argc == 5 && strcmp(argv[1], "hangs") == 0 && v[0] > 0 && v[0] <= MAX_THREADS && v[1] > 0 &&
        v[2] >= 0)
        return run_apart(part_hangs, v, PART_MS) != 0;
    fprintf(stderr, "usage: images [time MB THREADS ROUNDS | hangs THREADS CHILDREN ARENAS"
                    " | semantics]\n");
    return 2;
}
