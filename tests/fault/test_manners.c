/* SPDX-License-Identifier: MIT
 * test_manners.c - how process workers behave as processes: descriptors, stdio, exit, signals.
 *
 * Idea: each worker writes down what it sees of itself; output is tried in a child whose stdout
 * is a pipe, read to its end.
 */
/* timeout: 120 */
#include "check.h"

enum { WORKERS = 3, SEEN = 24 };

struct seen {
    int64_t pid, ppid, pgrp, random, fds, oom, int_ignored, blocked, threads, umask_now;
    char name[32];
};

static int64_t read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    int n = -1;
    if (f && fscanf(f, "%d", &n) != 1)
        n = -1;
    if (f)
        fclose(f);
    return n;
}

static int64_t open_fds(void)
{
    int64_t mask = 0;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        const long fd = strtol(e->d_name, NULL, 10);
        if (e->d_name[0] != '.' && fd != dirfd(dir))
            mask |= INT64_C(1) << (fd < 62 ? fd : 62);
    }
    if (dir)
        closedir(dir);
    return mask;
}

static int look(yoke_task *task, const void *in, void *out)
{
    struct seen *seen = out;
    struct sigaction action;
    sigset_t mask;
    (void)task;
    (void)in;
    seen->random = rand();
    seen->pid = getpid();
    seen->ppid = getppid();
    seen->pgrp = getpgrp();
    seen->fds = open_fds();
    seen->oom = read_number("/proc/self/oom_score_adj");
    sigaction(SIGINT, NULL, &action);
    seen->int_ignored = action.sa_handler == SIG_IGN;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int sig = 1; sig < 32; sig++)
        seen->blocked += sigismember(&mask, sig) == 1;
    seen->threads = count_threads();
    prctl(PR_GET_NAME, seen->name);
    /* Long enough that all workers get some. */
    const int64_t until = yoke_in_ms(20);
    while (yoke_now_ns() < until)
        breathe();
    return 0;
}

static int64_t own_std_fds(void)
{
    int64_t mask = 0;
    for (int fd = 0; fd < 3; fd++)
        mask |= fcntl(fd, F_GETFD) >= 0 ? INT64_C(1) << fd : 0;
    return mask;
}

static void workers_are_clean_processes(void)
{
    int pipes[2], extra[2];
    CHECK_EQ(pipe(pipes), 0);
    CHECK_EQ(pipe(extra), 0);
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = YOKE_PROCESSES,
                                     .workers = WORKERS,
                                     .keep_fds = &pipes[1],
                                     .keep_fd_count = 1};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    struct seen seen[SEEN];
    memset(seen, 0, sizeof seen);
    CHECK_RC(yoke_map(pool, look, NULL, 0, seen, sizeof *seen, SEEN, NULL), 0);
    const int64_t own_oom = read_number("/proc/self/oom_score_adj");
    int others = 0;
    for (int i = 0; i < SEEN; i++) {
        CHECK_EQ(seen[i].ppid, getpid());
        CHECK_EQ(seen[i].pgrp, getpgrp());
        CHECK_EQ(seen[i].fds, own_std_fds() | INT64_C(1) << pipes[1]);
        CHECK_EQ(seen[i].int_ignored, 1);
        CHECK_EQ(seen[i].blocked, 0);
        CHECK_EQ(seen[i].threads, 1);
        CHECK(own_oom == 1000 || seen[i].oom > own_oom);
        others += seen[i].pid != seen[0].pid;
        for (int k = 0; k < i; k++)
            CHECK(seen[i].random != seen[k].random);
    }
    CHECK(others > 0);
    end_pool(pool);
    for (int i = 0; i < 2; i++) {
        close(pipes[i]);
        close(extra[i]);
    }
}

static void peers_see_the_end_of_a_pipe(void)
{
    int pipes[2];
    CHECK_EQ(pipe(pipes), 0);
    yoke_pool *pool = make_pool(YOKE_PROCESSES, WORKERS);
    close(pipes[1]);
    char c;
    CHECK_EQ(read(pipes[0], &c, 1), 0);
    close(pipes[0]);
    int pids[WORKERS];
    CHECK_EQ(pipe(pipes), 0); /* and of one made between two workers */
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, WORKERS), WORKERS);
    CHECK_EQ(signal_child(pids[0], SIGKILL), 1);
    yoke_pool_stats stats = {.size = sizeof stats};
    WAIT_FOR(yoke_pool_stats_get(pool, &stats) == 0 && stats.died == 1 && stats.workers == WORKERS);
    close(pipes[1]);
    CHECK_EQ(read(pipes[0], &c, 1), 0);
    close(pipes[0]);
    end_pool(pool);
}

static void control_c_is_the_programs(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, WORKERS);
    int pids[WORKERS], again[WORKERS];
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, WORKERS), WORKERS);
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQ(signal_child(pids[i], SIGINT), 1);
    for (int i = 0; i < 5; i++)
        check_pool_works(pool);
    CHECK_EQ(yoke_pool_worker_ids(pool, again, WORKERS), WORKERS);
    CHECK_EQ(memcmp(pids, again, sizeof pids), 0);
    const yoke_pool_stats stats = stats_of(pool);
    CHECK_EQ(stats.died, 0);
    end_pool(pool);
}

static int print_lines(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    printf("task %zu says", yoke_task_item(task));
    printf(" this in three pieces");
    printf(" (%zu)\n", yoke_task_item(task) * 7);
    return 0;
}

static int print_once(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    *(int64_t *)out = getpid();
    printf("printed by the late one\n");
    return 0;
}

/* What a task printed is out when its result is: also if its worker dies after that. */
static void print_and_be_killed(yoke_pool *pool)
{
    yoke_job *job = NULL;
    const void *out = NULL;
    CHECK_RC(yoke_submit(pool, print_once, NULL, 0, 8, NULL, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, NULL, &out, NULL), 0);
    const int pid = (int)*(const int64_t *)out;
    yoke_job_release(job);
    CHECK_EQ(signal_child(pid, SIGKILL), 1);
    WAIT_FOR(process_is_gone(pid));
}

static int print_and_exit(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    printf("last words\n");
    exit(3);
}

static void on_exit_of_program(void)
{
    printf("the program's own handler\n");
}

enum { LINES = 200 };

/* stdout is a pipe: stdio keeps what is printed in a buffer, which a fork would double. */
static int talk(void *arg)
{
    const int *pipes = arg;
    CHECK_EQ(dup2(pipes[1], 1), 1);
    close(pipes[0]);
    close(pipes[1]);
    CHECK_EQ(atexit(on_exit_of_program), 0);
    printf("before the pool, with no end of line: ");
    yoke_pool *pool = make_pool(YOKE_PROCESSES, WORKERS);
    printf("and after it\n");
    CHECK_RC(yoke_map(pool, print_lines, NULL, 0, NULL, 0, LINES, NULL), 0);
    print_and_be_killed(pool);
    yoke_job *job = NULL;
    yoke_outcome outcome;
    CHECK_RC(yoke_submit(pool, print_and_exit, NULL, 0, 0, NULL, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
    CHECK_EQ(outcome.kind, YOKE_CRASHED);
    CHECK_EQ(outcome.code, 3);
    CHECK_EQ(outcome.signal, 0);
    yoke_job_release(job);
    printf("the end\n");
    end_pool(pool);
    exit(0);
}

static int count_text(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        n++;
    return n;
}

static void what_is_printed_comes_once_and_whole(void)
{
    static char text[1 << 16];
    int pipes[2];
    CHECK_EQ(pipe(pipes), 0);
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(talk(pipes));
    close(pipes[1]);
    size_t n = 0;
    for (ssize_t got = 1; got > 0 && n < sizeof text - 1; n += (size_t)(got > 0 ? got : 0))
        got = read(pipes[0], text + n, sizeof text - 1 - n);
    close(pipes[0]);
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK_EQ(count_text(text, "before the pool"), 1);
    CHECK_EQ(count_text(text, "and after it\n"), 1);
    CHECK_EQ(count_text(text, "the end\n"), 1);
    CHECK_EQ(count_text(text, "the program's own handler\n"), 1);
    CHECK_EQ(count_text(text, "printed by the late one\n"), 1);
    CHECK_EQ(count_text(text, "last words\n"), 1);
    CHECK_EQ(count_text(text, " says"), LINES);
    for (int i = 0; i < LINES; i++) {
        char line[80];
        snprintf(line, sizeof line, "task %d says this in three pieces (%d)\n", i, i * 7);
        CHECK_EQ(count_text(text, line), 1);
    }
}

static int nothing_shared_by_name(int pid)
{
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *dir = opendir(path);
    if (!dir)
        return 1;
    int clean = 1;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        char link[400];
        snprintf(link, sizeof link, "%s/%s", path, e->d_name);
        const ssize_t n = readlink(link, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        if (strncmp(target, "/dev/shm/", 9) == 0) {
            fprintf(stderr, "    %s is open in %d\n", target, pid);
            clean = 0;
        }
    }
    closedir(dir);
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    char line[512];
    while (maps && fgets(line, sizeof line, maps)) {
        if (strstr(line, "/dev/shm/") || strstr(line, "SYSV")) {
            fprintf(stderr, "    mapped in %d: %s", pid, line);
            clean = 0;
        }
    }
    if (maps)
        fclose(maps);
    return clean;
}

static void shared_memory_has_no_name(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, WORKERS);
    void *block = yoke_shared_alloc(1 << 20);
    CHECK(block != NULL);
    int pids[WORKERS];
    check_pool_works(pool);
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, WORKERS), WORKERS);
    CHECK(nothing_shared_by_name(getpid()));
    for (int i = 0; i < WORKERS; i++)
        CHECK(nothing_shared_by_name(pids[i]));
    yoke_shared_free(block);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("manners of processes");
    check_kind = YOKE_PROCESSES;
    RUN(workers_are_clean_processes);
    RUN(peers_see_the_end_of_a_pipe);
    RUN(control_c_is_the_programs);
    RUN(what_is_printed_comes_once_and_whole);
    RUN(shared_memory_has_no_name);
    return 0;
}
