/* SPDX-License-Identifier: MIT
 * test_api_process.c - single processes: codes, signals, handles, descriptors, images.
 *
 * Idea: a process tells what it sees through the shared heap, so that nothing is believed that
 * it did not write itself; after each part no child is left.
 */
/* timeout: 120 */
#include "check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

static int late_global = 1;

/* What a process saw of itself. */
struct report {
    atomic_long begun, go;
    long pid, ppid, pgrp, global, fds, fd_mask, ignored, blocked, handled, threads;
    char name[32];
};

static yoke_process *start(yoke_process_fn *fn, void *arg)
{
    yoke_process *process = NULL;
    CHECK_RC(yoke_process_start(NULL, fn, arg, &process), 0);
    CHECK(process != NULL);
    CHECK(yoke_process_id(process) > 0);
    return process;
}

static yoke_process_end finish(yoke_process *process)
{
    yoke_process_end end = {.code = 12345, .signal = 12345};
    CHECK_RC(yoke_process_wait(process, soon(), &end), 0);
    yoke_process_end again = {.code = 1, .signal = 1};
    CHECK_RC(yoke_process_wait(process, 0, &again), 0);
    CHECK_EQ(again.code, end.code);
    CHECK_EQ(again.signal, end.signal);
    CHECK_RC(yoke_process_wait(process, 0, NULL), 0);
    CHECK_EQ(yoke_process_kill(process), -ESRCH);
    CHECK_EQ(yoke_process_interrupt(process), -ESRCH);
    yoke_process_release(process);
    return end;
}

static int answer(void *arg)
{
    return (int)(intptr_t)arg;
}

static int hold(void *arg)
{
    struct report *report = arg;
    const int64_t until = soon();
    count_up(&report->begun, 1);
    while (!count_get(&report->go) && yoke_now_ns() < until)
        breathe();
    return count_get(&report->go) ? 6 : 99;
}

static void codes_come_back(void)
{
    static const int codes[] = {0, 1, 42, 255};
    for (int i = 0; i < 4; i++) {
        const yoke_process_end end = finish(start(answer, (void *)(intptr_t)codes[i]));
        CHECK_EQ(end.code, codes[i]);
        CHECK_EQ(end.signal, 0);
    }
    yoke_process_release(NULL);
    CHECK_EQ(yoke_process_id(NULL), -1);
}

static atomic_long *exits;

static void on_exit_of_program(void)
{
    if (exits)
        count_up(exits, 1);
}

static int call_exit(void *arg)
{
    (void)arg;
    exit(33);
}

static void exit_ends_it_without_the_programs_handlers(void)
{
    exits = shared_zeroed(sizeof *exits);
    CHECK_EQ(atexit(on_exit_of_program), 0);
    CHECK_EQ(finish(start(call_exit, NULL)).code, 33);
    CHECK_EQ(finish(start(answer, NULL)).code, 0);
    CHECK_EQ(count_get(exits), 0);
    exits = NULL;
}

static int die_by(void *arg)
{
    const int sig = (int)(intptr_t)arg;
    (void)set_action(sig == SIGKILL ? SIGUSR1 : sig, SIG_DFL);
    raise(sig);
    return 0;
}

static void signals_have_their_number(void)
{
    static const int signals[] = {SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGUSR1};
    for (int i = 0; i < 5; i++) {
        const yoke_process_end end = finish(start(die_by, (void *)(intptr_t)signals[i]));
        CHECK_EQ(end.signal, signals[i]);
        CHECK_EQ(end.code, -1);
    }
}

static void kill_and_interrupt_end_it(void)
{
    for (int round = 0; round < 10; round++) {
        struct report *report = shared_zeroed(sizeof *report);
        yoke_process *process = start(hold, report);
        WAIT_FOR(count_get(&report->begun) == 1);
        CHECK_RC(yoke_process_wait(process, 0, NULL), -ETIMEDOUT);
        const int64_t until = yoke_in_ms(5);
        CHECK_RC(yoke_process_wait(process, until, NULL), -ETIMEDOUT);
        CHECK(yoke_now_ns() >= until);
        CHECK_EQ(round % 2 ? yoke_process_kill(process) : yoke_process_interrupt(process), 0);
        const yoke_process_end end = finish(process);
        CHECK_EQ(end.signal, round % 2 ? SIGKILL : SIGINT);
        CHECK_EQ(end.code, -1);
        yoke_shared_free(report);
    }
}

static void release_kills_what_runs(void)
{
    struct report *report = shared_zeroed(sizeof *report);
    yoke_process *process = start(hold, report);
    WAIT_FOR(count_get(&report->begun) == 1);
    const int pid = yoke_process_id(process);
    yoke_process_release(process);
    CHECK(process_is_gone(pid));
    yoke_shared_free(report);
}

static int look_around(void *arg)
{
    struct report *report = arg;
    prctl(PR_GET_NAME, report->name);
    report->pid = getpid();
    report->ppid = getppid();
    report->pgrp = getpgrp();
    report->global = late_global;
    report->threads = count_threads();
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        const long fd = strtol(e->d_name, NULL, 10);
        if (e->d_name[0] == '.' || fd == dirfd(dir))
            continue;
        report->fds++;
        report->fd_mask |= fd < 60 ? 1L << fd : 1L << 62;
    }
    if (dir)
        closedir(dir);
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int sig = 1; sig < 32; sig++) {
        struct sigaction action;
        sigaction(sig, NULL, &action);
        report->blocked |= sigismember(&mask, sig) == 1 ? 1L << sig : 0;
        report->ignored |= action.sa_handler == SIG_IGN ? 1L << sig : 0;
        report->handled |=
            action.sa_handler != SIG_IGN && action.sa_handler != SIG_DFL ? 1L << sig : 0;
    }
    return 3;
}

static void never_called(int sig)
{
    (void)sig;
}

static void it_starts_clean(void)
{
    struct report *report = shared_zeroed(sizeof *report);
    int pipes[2], extra[2];
    CHECK_EQ(pipe(pipes), 0);
    CHECK_EQ(pipe(extra), 0);
    const struct sigaction old_usr1 = set_action(SIGUSR1, never_called);
    const struct sigaction old_usr2 = set_action(SIGUSR2, SIG_IGN);
    sigset_t block, old_mask;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGCHLD);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &block, &old_mask), 0);
    const yoke_process_config config = {
        .size = sizeof config, .name = "test-name", .keep_fds = &pipes[1], .keep_fd_count = 1};
    yoke_process *process = NULL;
    late_global = 2;
    CHECK_RC(yoke_process_start(&config, look_around, report, &process), 0);
    late_global = 3;
    const int pid = yoke_process_id(process);
    CHECK_EQ(finish(process).code, 3);
    CHECK_EQ(sigprocmask(SIG_SETMASK, &old_mask, NULL), 0);
    CHECK_EQ(strcmp(report->name, "test-name"), 0);
    CHECK_EQ(report->pid, pid);
    CHECK_EQ(report->ppid, getpid());
    CHECK_EQ(report->pgrp, getpgrp());
    CHECK_EQ(report->global, 2);
    CHECK_EQ(report->threads, 1);
    long want = 1L << pipes[1];
    for (int fd = 0; fd < 3; fd++)
        want |= fcntl(fd, F_GETFD) >= 0 ? 1L << fd : 0;
    CHECK_EQ(report->fd_mask, want);
    CHECK_EQ(report->blocked, 0);
    CHECK_EQ(report->handled, 0);
    CHECK((report->ignored & (1L << SIGUSR2)) != 0);
    CHECK((report->ignored & (1L << SIGINT)) == 0);
    CHECK_EQ(sigaction(SIGUSR1, &old_usr1, NULL), 0);
    CHECK_EQ(sigaction(SIGUSR2, &old_usr2, NULL), 0);
    close(pipes[0]);
    close(pipes[1]);
    close(extra[0]);
    close(extra[1]);
    report->name[0] = 0;
    CHECK_EQ(finish(start(look_around, report)).code, 3);
    CHECK_EQ(strcmp(report->name, "yoke-process"), 0);
    yoke_shared_free(report);
}

static void peers_see_the_end_of_a_pipe(void)
{
    int pipes[2];
    CHECK_EQ(pipe(pipes), 0);
    struct report *report = shared_zeroed(sizeof *report);
    yoke_process *process = start(hold, report);
    WAIT_FOR(count_get(&report->begun) == 1);
    close(pipes[1]);
    char c;
    CHECK_EQ(read(pipes[0], &c, 1), 0); /* nobody else holds the other end */
    close(pipes[0]);
    count_set(&report->go, 1);
    CHECK_EQ(finish(process).code, 6);
    yoke_shared_free(report);
}

static int nest(void *arg)
{
    int *codes = arg;
    yoke_process *process = NULL;
    yoke_pool *pool = NULL;
    const yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES, .workers = 1};
    codes[0] = yoke_process_start(NULL, answer, NULL, &process);
    codes[1] = yoke_init();
    codes[2] = yoke_pool_create(&config, &pool);
    return 0;
}

static void processes_do_not_nest(void)
{
    int *codes = shared_zeroed(4 * sizeof *codes);
    CHECK_EQ(finish(start(nest, codes)).code, 0);
    CHECK_RC(codes[0], YOKE_ENESTED);
    CHECK_RC(codes[1], YOKE_ENESTED);
    CHECK_RC(codes[2], YOKE_ENESTED);
    yoke_shared_free(codes);
}

struct future_config {
    yoke_process_config now;
    char later[16];
};

static void bad_settings_start_nothing(void)
{
    yoke_process *const untouched = (yoke_process *)&late_global;
    yoke_process *process = untouched;
    struct future_config config;
    const int children = count_children();
    memset(&config, 0, sizeof config);
    CHECK_RC(yoke_process_start(NULL, NULL, NULL, &process), -EINVAL);
    CHECK_RC(yoke_process_start(NULL, answer, NULL, NULL), -EINVAL);
    CHECK_RC(yoke_process_start(&config.now, answer, NULL, &process), -EINVAL);
    config.now.size = sizeof config;
    config.later[2] = 1;
    CHECK_RC(yoke_process_start(&config.now, answer, NULL, &process), YOKE_EVERSION);
    config.later[2] = 0;
    config.now.image = 9;
    CHECK_RC(yoke_process_start(&config.now, answer, NULL, &process), -EINVAL);
    config.now.image = YOKE_SNAPSHOT;
    config.now.keep_fd_count = 1;
    CHECK_RC(yoke_process_start(&config.now, answer, NULL, &process), -EINVAL);
    CHECK(process == untouched);
    CHECK_EQ(count_children(), children);
    CHECK_RC(yoke_process_wait(NULL, 0, NULL), -EINVAL);
    CHECK_EQ(yoke_process_kill(NULL), -EINVAL);
    CHECK_EQ(yoke_process_interrupt(NULL), -EINVAL);
}

static int use_handle_in_child(void *arg)
{
    yoke_process *process = arg;
    CHECK_RC(yoke_process_wait(process, 0, NULL), -ECHILD);
    CHECK_EQ(yoke_process_kill(process), -ECHILD);
    CHECK_EQ(yoke_process_interrupt(process), -ECHILD);
    yoke_process_release(process);
    CHECK_EQ(finish(start(answer, (void *)(intptr_t)8)).code, 8);
    return 0;
}

static void handles_are_not_for_forked_children(void)
{
    struct report *report = shared_zeroed(sizeof *report);
    yoke_process *process = start(hold, report);
    WAIT_FOR(count_get(&report->begun) == 1);
    CHECK_CHILD(use_handle_in_child, process);
    CHECK_RC(yoke_process_wait(process, 0, NULL), -ETIMEDOUT);
    count_set(&report->go, 1);
    CHECK_EQ(finish(process).code, 6);
    yoke_shared_free(report);
}

static void on_signal(int sig)
{
    (void)sig;
}

struct nag {
    pthread_t target;
    atomic_long stop;
};

static void *nag_on(void *arg)
{
    struct nag *nag = arg;
    while (!count_get(&nag->stop)) {
        pthread_kill(nag->target, SIGUSR1);
        breathe();
    }
    return NULL;
}

static void a_signal_ends_a_wait_with_eintr(void)
{
    const struct sigaction old = set_action(SIGUSR1, on_signal);
    struct report *report = shared_zeroed(sizeof *report);
    yoke_process *process = start(hold, report);
    struct nag nag = {.target = pthread_self()};
    pthread_t nagger;
    CHECK_EQ(pthread_create(&nagger, NULL, nag_on, &nag), 0);
    CHECK_RC(yoke_process_wait(process, soon(), NULL), -EINTR);
    count_set(&nag.stop, 1);
    CHECK_EQ(pthread_join(nagger, NULL), 0);
    count_set(&report->go, 1);
    CHECK_EQ(finish(process).code, 6);
    yoke_shared_free(report);
    CHECK_EQ(sigaction(SIGUSR1, &old, NULL), 0);
}

static int wait_for_it(void *process)
{
    return yoke_process_wait(process, YOKE_FOREVER, NULL);
}

static void an_interrupted_thread_stops_waiting(void)
{
    struct report *report = shared_zeroed(sizeof *report);
    yoke_process *process = start(hold, report);
    yoke_thread *thread = NULL;
    int code = 0;
    CHECK_RC(yoke_thread_start(NULL, wait_for_it, process, &thread), 0);
    CHECK_EQ(yoke_thread_interrupt(thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
    CHECK_RC(code, -ECANCELED);
    yoke_thread_release(thread);
    count_set(&report->go, 1);
    CHECK_EQ(finish(process).code, 6);
    yoke_shared_free(report);
}

static void *start_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < 15; i++)
        CHECK_EQ(finish(start(answer, (void *)(intptr_t)i)).code, i);
    return NULL;
}

static void many_in_a_row_and_side_by_side_leave_nothing(void)
{
    CHECK_EQ(finish(start(answer, NULL)).code, 0);
    const struct usage before = usage_now();
    for (int i = 0; i < 150; i++)
        CHECK_EQ(finish(start(answer, (void *)(intptr_t)(i % 256))).code, i % 256);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, start_many, NULL), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    usage_check(before, 20);
}

static void a_seed_shows_the_program_as_it_was(void)
{
    const yoke_process_config config = {.size = sizeof config, .image = YOKE_SEED};
    struct report *report = shared_zeroed(sizeof *report);
    yoke_process *process = NULL;
    CHECK_RC(yoke_process_start(&config, look_around, report, &process), -ESRCH);
    CHECK(process == NULL);
    late_global = 100;
    CHECK_RC(yoke_init(), 0);
    late_global = 101;
    CHECK_RC(yoke_init(), 0);
    late_global = 102;
    CHECK_RC(yoke_process_start(&config, look_around, report, &process), 0);
    CHECK_EQ(finish(process).code, 3);
    CHECK_EQ(report->global, 100);
    CHECK_EQ(report->ppid, getpid());
    CHECK_EQ(finish(start(look_around, report)).code, 3);
    CHECK_EQ(report->global, 102);
    const int zero = 0;
    const yoke_process_config keeping = {
        .size = sizeof keeping, .image = YOKE_SEED, .keep_fds = &zero, .keep_fd_count = 1};
    process = NULL;
    CHECK_RC(yoke_process_start(&keeping, look_around, report, &process), -EINVAL);
    CHECK(process == NULL);
    yoke_shared_free(report);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("no processes under ThreadSanitizer, or in qemu-user: it has no CLONE_PARENT");
    RUN(codes_come_back);
    RUN(exit_ends_it_without_the_programs_handlers);
    RUN(signals_have_their_number);
    RUN(kill_and_interrupt_end_it);
    RUN(release_kills_what_runs);
    RUN(it_starts_clean);
    RUN(peers_see_the_end_of_a_pipe);
    RUN(processes_do_not_nest);
    RUN(bad_settings_start_nothing);
    RUN(handles_are_not_for_forked_children);
    RUN(a_signal_ends_a_wait_with_eintr);
    RUN(an_interrupted_thread_stops_waiting);
    RUN(many_in_a_row_and_side_by_side_leave_nothing);
    RUN(a_seed_shows_the_program_as_it_was);
    return 0;
}
