/* SPDX-License-Identifier: MIT
 * test_host.c - programs that have ideas of their own about children, signals and being PID 1.
 *
 * Idea: the host ignores SIGCHLD, reaps whatever it finds, or has a handler and children of its
 * own; the pool must see its deaths all the same, and take nothing that is the host's.
 */
/* timeout: 180 */
#include "check.h"
#include <pthread.h>
#include <sys/mount.h>

static int die_at_13(yoke_task *task, const void *in, void *out)
{
    if (yoke_task_item(task) == 13)
        raise(SIGKILL);
    return check_square(task, in, out);
}

/* One item of 100 dies; the others do not, and the next map is good. */
static void crash_one_item(yoke_pool *pool, int status_known)
{
    enum { N = 100 };
    int64_t in[N], out[N];
    yoke_outcome outcomes[N];
    for (int i = 0; i < N; i++)
        in[i] = i;
    const yoke_options options = {.size = sizeof options, .outcomes = outcomes};
    CHECK_RC(yoke_map(pool, die_at_13, in, 8, out, 8, N, &options), YOKE_ETASK);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(outcomes[i].kind, i == 13 ? YOKE_CRASHED : YOKE_OK);
        if (i != 13)
            CHECK_EQ(out[i], i * i);
    }
    const int lost = outcomes[13].signal == 0 && outcomes[13].code == -1;
    CHECK(outcomes[13].signal == SIGKILL || (!status_known && lost));
    check_pool_works(pool);
}

static void work_and_die(int status_known)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    for (int i = 0; i < 5; i++)
        crash_one_item(pool, status_known);
    end_pool(pool);
}

static int ignore_sigchld(void *arg)
{
    (void)arg;
    (void)set_action(SIGCHLD, SIG_IGN);
    work_and_die(0);
    struct sigaction now;
    CHECK_EQ(sigaction(SIGCHLD, NULL, &now), 0);
    CHECK(now.sa_handler == SIG_IGN);
    return 0;
}

static void sigchld_may_be_ignored(void)
{
    CHECK_CHILD(ignore_sigchld, NULL);
}

static atomic_long handled, reaped;

static void reap_all(int sig)
{
    const int saved = errno;
    (void)sig;
    count_up(&handled, 1);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        count_up(&reaped, 1);
    errno = saved;
}

static int reap_in_handler(void *arg)
{
    (void)arg;
    (void)set_action(SIGCHLD, reap_all);
    work_and_die(0);
    struct sigaction now;
    CHECK_EQ(sigaction(SIGCHLD, NULL, &now), 0);
    CHECK(now.sa_handler == reap_all);
    return 0;
}

static void a_handler_may_reap_everything(void)
{
    CHECK_CHILD(reap_in_handler, NULL);
}

static void *reap_for_ever(void *arg)
{
    atomic_long *stop = arg;
    while (!count_get(stop)) {
        if (wait(NULL) < 0)
            breathe();
    }
    return NULL;
}

static int reap_in_thread(void *arg)
{
    atomic_long stop = 0;
    pthread_t thread;
    (void)arg;
    CHECK_EQ(pthread_create(&thread, NULL, reap_for_ever, &stop), 0);
    work_and_die(0);
    count_set(&stop, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    return 0;
}

static void a_thread_may_wait_for_any_child(void)
{
    CHECK_CHILD(reap_in_thread, NULL);
}

/* The host's own children come and go; their statuses are the host's. */
static int own_children(void *arg)
{
    (void)arg;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    for (int i = 0; i < 30; i++) {
        const pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            _exit(i);
        if (i % 3 == 0)
            crash_one_item(pool, 1);
        else
            check_pool_works(pool);
        int status = 0;
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i);
    }
    end_pool(pool);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1); /* and none of ours is left for it to find */
    return 0;
}

static void the_hosts_children_stay_its_own(void)
{
    CHECK_CHILD(own_children, NULL);
}

static int work_as_init(void *arg)
{
    const int own_proc = *(const int *)arg;
    CHECK_EQ(getpid(), 1);
    if (own_proc) {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("proc", "/proc", "proc", 0, NULL) != 0)
            return 77;
    }
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    for (int i = 0; i < 5; i++) {
        check_pool_works(pool);
        crash_one_item(pool, 1);
    }
    int pids[2];
    WAIT_FOR(yoke_pool_worker_ids(pool, pids, 2) == 2);
    CHECK_EQ(kill(pids[0], SIGKILL), 0);
    check_pool_works(pool);
    end_pool(pool);
    return 0;
}

static int enter_namespace(void *arg)
{
    if (unshare(CLONE_NEWPID) != 0)
        return 77;
    return in_child(work_as_init, arg);
}

static void it_works_as_process_one(void)
{
    for (int own_proc = 0; own_proc < 2; own_proc++) {
        const int code = in_child(enter_namespace, &own_proc);
        if (code == 77)
            fprintf(stderr, "    no namespace to be had: not tried\n");
        else
            CHECK_EQ(code, 0);
    }
}

static int closed_std_fds(void *arg)
{
    (void)arg;
    close(0);
    close(1);
    work_and_die(1);
    return 0;
}

static void std_descriptors_may_be_closed(void)
{
    CHECK_CHILD(closed_std_fds, NULL);
}

/* Every signal of the host is blocked where the pool is made. */
static int blocked_signals(void *arg)
{
    sigset_t all, now;
    (void)arg;
    sigfillset(&all);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
    work_and_die(1);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &now), 0);
    CHECK_EQ(sigismember(&now, SIGTERM), 1);
    CHECK_EQ(sigismember(&now, SIGCHLD), 1);
    return 0;
}

static void all_signals_may_be_blocked(void)
{
    CHECK_CHILD(blocked_signals, NULL);
}

static atomic_long term_seen;

static void on_term(int sig)
{
    (void)sig;
    count_up(&term_seen, 1);
}

/* Signals to the program meet its own handlers, in its own threads. */
static int signals_arrive(void *arg)
{
    (void)arg;
    (void)set_action(SIGTERM, on_term);
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2), *threads = make_pool(YOKE_THREADS, 2);
    for (int i = 1; i <= 20; i++) {
        CHECK_EQ(kill(getpid(), SIGTERM), 0);
        WAIT_FOR(count_get(&term_seen) == i);
        check_pool_works(pool);
        check_pool_works(threads);
    }
    end_pool(pool);
    end_pool(threads);
    return 0;
}

static void the_programs_handlers_still_run(void)
{
    CHECK_CHILD(signals_arrive, NULL);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("hosts of processes");
    check_kind = YOKE_PROCESSES;
    RUN(sigchld_may_be_ignored);
    RUN(a_handler_may_reap_everything);
    RUN(a_thread_may_wait_for_any_child);
    RUN(the_hosts_children_stay_its_own);
    RUN(it_works_as_process_one);
    RUN(std_descriptors_may_be_closed);
    RUN(all_signals_may_be_blocked);
    RUN(the_programs_handlers_still_run);
    return 0;
}
