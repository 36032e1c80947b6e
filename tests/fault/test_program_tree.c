/* SPDX-License-Identifier: MIT
 * test_program_tree.c - whatever a program starts, nothing of it is left.
 *
 * Idea: every process of a tree carries a mark in its command line, its supervisor too, so what is
 * left is found whoever its parent is by now: what forked twice, what made a session of its own,
 * what was stopped, what ignores all signals.
 */
/* timeout: 240 */
#include "program.h"

enum { LEAVE = YOKE_PROGRAM_LEAVE, PLAIN = YOKE_PROGRAM_PLAIN };

/* Each %1$s is the mark. All of them end at once, or wait for ever after a word. */
static const char *const quick[] = {
    "sleep %1$s & setsid sleep %1$s & exit 3",
    "(setsid sh -c 'sleep %1$s & sleep %1$s & exit' &) ; exit 3",
    "setsid sh -c 'trap \"\" INT TERM HUP; sleep %1$s; sleep %1$s' & exit 3",
    "setsid sh -c 'kill -STOP $$; sleep %1$s' & exit 3",
    "(((setsid sleep %1$s &) ; setsid setsid sleep %1$s &) ; nohup sleep %1$s >/dev/null &) ; exit "
    "3",
    "for i in 1 2 3 4 5 6 7 8 9 10; do setsid sh -c 'sleep %1$s & sleep %1$s & wait' & done; exit "
    "3",
};
enum { QUICK = sizeof quick / sizeof *quick };

/* The last one by exec: a shell that waits for a child leaves it to the child whether SIGINT ends it,
 * and the child may just be on its way to be another program. */
static const char slow[] =
    "sleep %1$s & setsid sh -c 'trap \"\" INT TERM; sleep %1$s & sleep %1$s; "
    ": %1$s' & (setsid sleep %1$s &); echo; exec sleep %1$s";

static yoke_process *run_marked(const char *script, const char *mark, yoke_program program)
{
    char text[1024];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, script, mark);
#pragma GCC diagnostic pop
    return run_shell(text, program);
}

static void await_word(yoke_process *process)
{
    int fd = -1;
    char text[64];
    CHECK_RC(yoke_process_take_pipe(process, 1, &fd), 0);
    CHECK(read(fd, text, sizeof text) > 0);
    close(fd);
}

static yoke_process *run_slow(const char *mark)
{
    yoke_process *process =
        run_marked(slow, mark, (yoke_program){.output = {.kind = YOKE_STREAM_PIPE}});
    await_word(process);
    await_program(yoke_process_id(process), "sleep");
    WAIT_FOR(count_marked(mark) >= 6);
    return process;
}

static void the_end_of_the_program_ends_all(void)
{
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < QUICK; i++) {
            const char *mark = new_mark();
            yoke_process *process = run_marked(quick[i], mark, (yoke_program){.size = 0});
            check_code(process, 3);
            CHECK_EQ(count_marked(mark), 0); /* when wait returns, not some time later */
            yoke_process_release(process);
        }
    }
}

static void kill_ends_all(void)
{
    for (int how = 0; how < 3; how++) {
        const char *mark = new_mark();
        yoke_process *process = run_slow(mark);
        if (how == 0)
            CHECK_EQ(yoke_process_kill(process), 0);
        if (how == 1)
            CHECK_RC(yoke_process_stop(&process, 1, 1000000000), 0);
        if (how < 2)
            CHECK_EQ(end_of(process).signal, how == 0 ? SIGKILL : SIGINT);
        else
            yoke_process_release(process);
        CHECK_EQ(count_marked(mark), 0);
        if (how < 2)
            yoke_process_release(process);
    }
}

static void what_is_to_be_left_is_left(void)
{
    const char *mark = new_mark();
    const struct {
        unsigned flags;
        int left;
    } cases[] = {{LEAVE, 2}, {PLAIN, 1}, {PLAIN | LEAVE, 2}};
    for (int i = 0; i < 3; i++) {
        const yoke_stream pipe_ = {.kind = YOKE_STREAM_PIPE};
        yoke_process *process =
            run_marked("sleep %1$s & setsid sh -c 'echo; exec sleep %1$s' & read x; exit 3", mark,
                       (yoke_program){.input = pipe_, .output = pipe_, .flags = cases[i].flags});
        await_word(process);
        int fd = -1;
        CHECK_RC(yoke_process_take_pipe(process, 0, &fd), 0);
        close(fd);
        check_code(process, 3);
        yoke_process_release(process);
        WAIT_FOR(count_marked(mark) == cases[i].left);
        char command[128];
        snprintf(command, sizeof command, "pkill -f '[s]leep %s'", mark);
        CHECK_EQ(system(command), 0);
        WAIT_FOR(count_marked(mark) == 0);
    }
}

/* A tree that makes new processes all the time must not outrun the one who ends it. */
static void who_forks_all_the_time_is_caught(void)
{
    for (int round = 0; round < 5; round++) {
        const char *mark = new_mark();
        char script[512];
        snprintf(script, sizeof script,
                 "run() { while :; do setsid sh -c '(sleep %s &) ; : %s' & : %s; wait; done; }; "
                 "run & run & echo; run",
                 mark, mark, mark);
        yoke_process *process =
            run_shell(script, (yoke_program){.output = {.kind = YOKE_STREAM_PIPE}});
        await_word(process);
        WAIT_FOR(count_marked(mark) > 30);
        CHECK_EQ(yoke_process_kill(process), 0);
        CHECK_EQ(end_of(process).signal, SIGKILL);
        CHECK_EQ(count_marked(mark), 0);
        yoke_process_release(process);
    }
}

/* --- the host is killed -------------------------------------------------------------------- */

struct host {
    atomic_long ready;
    char mark[64];
    int threads, count;
};

static void run_as_host(struct host *host)
{
    for (int i = 0; i < host->count; i++)
        (void)run_slow(host->mark);
    count_up(&host->ready, 1);
    for (;;)
        pause();
}

static pid_t start_host(struct host *host)
{
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        run_as_host(host);
    WAIT_FOR(count_get(&host->ready) > 0);
    return pid;
}

static void nothing_outlives_a_killed_host(void)
{
    for (int round = 0; round < 4; round++) {
        struct host *host = shared_zeroed(sizeof *host);
        host->count = 1 + round * 3;
        snprintf(host->mark, sizeof host->mark, "%s", new_mark());
        const pid_t pid = start_host(host);
        CHECK(count_marked(host->mark) >= host->count);
        CHECK_EQ(kill(pid, SIGKILL), 0);
        WAIT_MS(count_marked(host->mark) == 0, 1000LL * check_slowness());
        CHECK_EQ(waitpid(pid, NULL, 0), pid);
        yoke_shared_free(host);
    }
}

/* Also when its socket lives on in a child of its own that knows nothing of it. */
static void nor_one_that_has_children(void)
{
    struct host *host = shared_zeroed(sizeof *host);
    snprintf(host->mark, sizeof host->mark, "%s", new_mark());
    atomic_long *go = shared_zeroed(sizeof *go);
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)run_slow(host->mark);
        const pid_t child = fork();
        if (child == 0) {
            while (!count_get(go))
                breathe();
            _exit(0);
        }
        count_up(&host->ready, child);
        for (;;)
            pause();
    }
    WAIT_FOR(count_get(&host->ready) > 0);
    CHECK_EQ(kill(pid, SIGKILL), 0);
    WAIT_MS(count_marked(host->mark) == 0, 1000LL * check_slowness());
    CHECK(!process_is_gone((int)count_get(&host->ready)));
    count_set(go, 1);
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    WAIT_FOR(process_is_gone((int)count_get(&host->ready)));
    yoke_shared_free(host);
    yoke_shared_free(go);
}

/* Killed at any moment of a start. */
static void nor_one_killed_while_it_starts_them(void)
{
    for (int round = 0; round < 60; round++) {
        struct host *host = shared_zeroed(sizeof *host);
        snprintf(host->mark, sizeof host->mark, "%s", new_mark());
        fflush(NULL);
        const pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            count_up(&host->ready, 1);
            for (;;)
                (void)run_marked("setsid sleep %1$s & sleep %1$s", host->mark,
                                 (yoke_program){.size = 0});
        }
        WAIT_FOR(count_get(&host->ready) > 0);
        const int64_t until = yoke_now_ns() + round * 150000LL;
        while (yoke_now_ns() < until)
            sched_yield();
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK_EQ(waitpid(pid, NULL, 0), pid);
        WAIT_MS(count_marked(host->mark) == 0, 1000LL * check_slowness());
        yoke_shared_free(host);
    }
}

static void a_host_that_executes_another_program_leaves_nothing(void)
{
    struct host *host = shared_zeroed(sizeof *host);
    snprintf(host->mark, sizeof host->mark, "%s", new_mark());
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)run_slow(host->mark);
        execlp("sleep", "sleep", "500", (char *)NULL);
        _exit(1);
    }
    struct proc_info info = {0};
    WAIT_FOR(proc_read(pid, &info) && strcmp(info.name, "sleep") == 0);
    WAIT_FOR(count_marked(host->mark) == 0);
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    yoke_shared_free(host);
}

/* --- the supervisor is killed -------------------------------------------------------------- */

static int supervisor_of(yoke_process *process)
{
    struct proc_info info = {0};
    CHECK(proc_read(yoke_process_id(process), &info));
    struct proc_info parent = {0};
    CHECK(proc_read(info.ppid, &parent));
    CHECK(strcmp(parent.name, "yoke-supervisor") == 0);
    CHECK_EQ(parent.ppid, getpid());
    return info.ppid;
}

static void the_program_goes_with_its_supervisor(void)
{
    yoke_process *process = run_shell("exec sleep 1000", (yoke_program){.size = 0});
    const int program = yoke_process_id(process);
    const int supervisor = supervisor_of(process);
    CHECK(getpgid(supervisor) != getpgid(0) && getpgid(supervisor) != getpgid(program));
    CHECK_EQ(kill(supervisor, SIGKILL), 0);
    const yoke_process_end end = end_of(process);
    CHECK_EQ(end.signal, SIGKILL);
    WAIT_FOR(process_is_gone(program));
    yoke_process_release(process);
}

static void a_stopped_supervisor_is_woken(void)
{
    const char *mark = new_mark();
    yoke_process *process = run_slow(mark);
    const int supervisor = supervisor_of(process);
    CHECK_EQ(kill(supervisor, SIGSTOP), 0);
    struct proc_info info = {0};
    WAIT_FOR(proc_read(supervisor, &info) && info.state == 'T');
    CHECK_EQ(yoke_process_kill(process), 0);
    CHECK_EQ(end_of(process).signal, SIGKILL);
    CHECK_EQ(count_marked(mark), 0);
    yoke_process_release(process);
}

static void signals_to_our_group_do_not_reach_them(void)
{
    struct host *host = shared_zeroed(sizeof *host);
    snprintf(host->mark, sizeof host->mark, "%s", new_mark());
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        setpgid(0, 0);
        yoke_process *process = run_slow(host->mark);
        (void)set_action(SIGTERM, SIG_IGN);
        kill(0, SIGTERM);
        breathe();
        CHECK_RC(yoke_process_wait(process, 0, NULL), -ETIMEDOUT);
        CHECK(count_marked(host->mark) >= 6);
        yoke_process_release(process);
        _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    yoke_shared_free(host);
}

static void we_are_no_subreaper(void)
{
    int is = 7;
    CHECK_EQ(prctl(PR_GET_CHILD_SUBREAPER, &is), 0);
    CHECK_EQ(is, 0);
    struct sigaction now;
    CHECK_EQ(sigaction(SIGCHLD, NULL, &now), 0);
    CHECK(now.sa_handler == SIG_DFL);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    need_real_machine();
    RUN(the_end_of_the_program_ends_all);
    RUN(kill_ends_all);
    RUN(what_is_to_be_left_is_left);
    RUN(who_forks_all_the_time_is_caught);
    RUN(nothing_outlives_a_killed_host);
    RUN(nor_one_that_has_children);
    RUN(nor_one_killed_while_it_starts_them);
    RUN(a_host_that_executes_another_program_leaves_nothing);
    RUN(the_program_goes_with_its_supervisor);
    RUN(a_stopped_supervisor_is_woken);
    RUN(signals_to_our_group_do_not_reach_them);
    RUN(we_are_no_subreaper);
    return 0;
}
