/* SPDX-License-Identifier: MIT
 * program.c - running other programs.   Room: platform.
 *
 * Idea: the child shares our memory until it executes (CLONE_VM, CLONE_VFORK), so a start takes as
 * long from a 10 GB program as from a small one, and it inherits what this thread has now: user,
 * umask, limits, folder. Until then it makes bare system calls only (raw.h) with all signals
 * blocked, and tells its error through the memory. A supervised program is executed by the
 * supervisor, which is executed here.
 */
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/linux/rlimits.h"
#include "platform/linux/supervisor/protocol.h"
#include "platform/platform.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define CHILD_STACK_BYTES 16384
#define STREAMS 3
#define NS_PER_S 1000000000LL
#define NS_PER_US 1000LL
#define KIB 1024U
#define NUMBER_BYTES 12
#define CLOSE_BY_HAND_MAX 65536U
#define NOBODY (-1)

/* What the child needs; it lies on the stack of its parent, which sleeps. */
struct launch {
    const struct yk_program *program;
    char *const *argv;  /* what is executed: the program, or the supervisor */
    char *control_text; /* the number of the supervisor's socket, in argv */
    int control;        /* NOBODY: no supervisor */
    const struct yk_raw_limit *limits;
    unsigned limit_count;
    volatile long error;
};

/* --- in the child -------------------------------------------------------------------------- */

YK_RAW static void put_number(char *at, long number)
{
    char digits[NUMBER_BYTES];
    int count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0) {
        *at++ = digits[--count];
    }
    *at = '\0';
}

/* Give the streams their numbers. Those that lie where another belongs move up first. */
YK_RAW static long set_streams(const int wanted[STREAMS])
{
    long from[STREAMS];
    for (int i = 0; i < STREAMS; i++) {
        from[i] = wanted[i];
        if (from[i] >= 0 && from[i] < STREAMS && from[i] != i) {
            from[i] = YK_SYS(SYS_fcntl, from[i], F_DUPFD_CLOEXEC, STREAMS);
            if (from[i] < 0) {
                return from[i];
            }
        }
    }
    for (int i = 0; i < STREAMS; i++) {
        if (from[i] < 0) {
            YK_SYS(SYS_close, i);
            continue;
        }
        const long rc =
            from[i] == i ? YK_SYS(SYS_fcntl, i, F_SETFD, 0) : YK_SYS(SYS_dup3, from[i], i, 0);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

YK_RAW static void close_range_of(unsigned first, unsigned last)
{
    if (first > last || YK_SYS(SYS_close_range, first, last, 0) == 0) {
        return;
    }
    for (unsigned fd = first; fd <= last && fd < CLOSE_BY_HAND_MAX; fd++) {
        YK_SYS(SYS_close, fd); /* a sandbox hides close_range */
    }
}

/* The lowest descriptor from `from` on that must stay, or NOBODY. */
YK_RAW static int next_kept(const struct yk_program *program, int control, int from)
{
    int next = control >= from ? control : NOBODY;
    if (program->supervisor >= from && (next < 0 || program->supervisor < next)) {
        next = program->supervisor;
    }
    for (size_t i = 0; i < program->keep_fd_count; i++) {
        const int kept = program->keep_fds[i];
        if (kept >= from && (next < 0 || kept < next)) {
            next = kept;
        }
    }
    return next;
}

YK_RAW static long set_descriptors(const struct launch *launch)
{
    const struct yk_program *const program = launch->program;
    long control = launch->control;
    if (control >= 0) {
        control = control < STREAMS ? YK_SYS(SYS_fcntl, control, F_DUPFD, STREAMS) : control;
        if (control < 0) {
            return control;
        }
        YK_SYS(SYS_fcntl, control, F_SETFD, 0);
        put_number(launch->control_text, control);
    }
    const long rc = set_streams(program->streams);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < program->keep_fd_count; i++) {
        YK_SYS(SYS_fcntl, program->keep_fds[i], F_SETFD, 0);
    }
    int from = STREAMS;
    for (;;) {
        const int kept = next_kept(program, (int)control, from);
        if (kept < 0) {
            close_range_of((unsigned)from, ~0U);
            return 0;
        }
        if (kept > from) {
            close_range_of((unsigned)from, (unsigned)kept - 1);
        }
        from = kept + 1;
    }
}

/* What forbids to execute a nameless file, as against what is wrong with the program. */
YK_RAW static long supervisor_error(long rc)
{
    return rc == -EACCES || rc == -EPERM || rc == -ENOSYS ? -ENOTSUP : rc;
}

YK_RAW static long become(const struct launch *launch)
{
    const struct yk_program *const program = launch->program;
    long rc = set_descriptors(launch);
    if (rc == 0 && program->directory != NULL) {
        rc = YK_SYS(SYS_chdir, program->directory);
    }
    if (rc != 0) {
        return rc;
    }
    if (launch->control >= 0) {
        return supervisor_error(YK_SYS(SYS_execveat, program->supervisor, "", launch->argv,
                                       program->environment, AT_EMPTY_PATH));
    }
    YK_SYS(SYS_setpgid, 0, 0);
    yk_raw_signals_default();
    rc = yk_raw_limits(launch->limits, launch->limit_count);
    if (rc != 0) {
        return rc;
    }
    yk_raw_mask(0);
    return yk_raw_exec(launch->argv, program->environment);
}

YK_RAW static void child_main(void *arg)
{
    struct launch *const launch = arg;
    launch->error = become(launch);
    yk_raw_exit(127);
}

/* --- in the program ------------------------------------------------------------------------ */

static void discard(int pidfd)
{
    siginfo_t info;
    while (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) != 0 && errno == EINTR) {
    }
    close(pidfd);
}

/* Start the child and wait until it has executed. */
static int launch_child(struct launch *launch, int *pid, int *pidfd)
{
    _Alignas(16) char stack[CHILD_STACK_BYTES];
    const uint64_t all = ~0ULL;
    uint64_t mask = 0;
    int fd = NOBODY;
    YK_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, YK_MASK_BYTES);
    /* Without an exit signal: had it failed, the program would hear of a child it never had. Once
     * it has executed, it is SIGCHLD again, so says the kernel. */
    const long rc = yk_raw_vfork(CLONE_VM | CLONE_VFORK | CLONE_PIDFD, stack + sizeof stack, &fd,
                                 child_main, launch);
    YK_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, YK_MASK_BYTES);
    if (rc < 0) {
        return (int)rc;
    }
    if (launch->error != 0) {
        discard(fd);
        return (int)launch->error;
    }
    *pid = (int)rc;
    *pidfd = yk_fd_lift(fd);
    return 0;
}

static int start_plain(const struct yk_program *program, struct yk_program_handle *handle)
{
    struct yk_raw_limit limits[YK_LIMITS_MAX];
    struct launch launch = {
        .program = program,
        .argv = program->argv,
        .control = NOBODY,
        .limits = limits,
        .limit_count = yk_limits_list(program->limits, limits),
    };
    handle->control = NOBODY;
    return launch_child(&launch, &handle->pid, &handle->pidfd);
}

/* Wait for one report: 1, 0 (there is none yet, and may come), -EPIPE (there will be none). */
static int take_report(int control, struct yk_sup_report *report)
{
    for (;;) {
        const ssize_t got = recv(control, report, sizeof *report, MSG_DONTWAIT);
        if (got == (ssize_t)sizeof *report) {
            return 1;
        }
        if (got >= 0 || errno == EAGAIN) {
            return got >= 0 ? -EPIPE : 0;
        }
        /* It ended with a command unread: that is said once, before the reports that it sent. */
        if (errno != EINTR && errno != ECONNRESET) {
            return -EPIPE;
        }
    }
}

/* The supervisor says whether the program is executing. It may have been killed instead. */
static int await_start(struct yk_program_handle *handle)
{
    struct yk_sup_report report;
    struct pollfd wait[] = {{.fd = handle->control, .events = POLLIN},
                            {.fd = handle->pidfd, .events = POLLIN}};
    for (;;) {
        (void)poll(wait, YK_COUNT_OF(wait), -1);
        const int rc = take_report(handle->control, &report);
        if (rc > 0) {
            break;
        }
        if (rc < 0 || (wait[1].revents != 0 && take_report(handle->control, &report) <= 0)) {
            return -EAGAIN;
        }
    }
    handle->pid = report.pid;
    return report.what == YK_SUP_FAILED ? report.error : 0;
}

static char **supervisor_argv(const struct yk_program *program, char number[NUMBER_BYTES])
{
    size_t count = 0;
    while (program->argv[count] != NULL) {
        count++;
    }
    char **const argv = malloc((count + 3) * sizeof *argv);
    if (argv != NULL) {
        static char name[] = "yoke-supervisor";
        argv[0] = name;
        argv[1] = number;
        memcpy(argv + 2, program->argv, (count + 1) * sizeof *argv);
    }
    return argv;
}

static int start_supervised(const struct yk_program *program, struct yk_program_handle *handle)
{
    char number[NUMBER_BYTES];
    int pair[2];
    struct yk_sup_task task = {.host = getpid(), .leave = program->leave};
    task.limit_count = yk_limits_list(program->limits, task.limits);
    char **const argv = supervisor_argv(program, number);
    if (argv == NULL) {
        return -ENOMEM;
    }
    int rc = 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        rc = -errno;
        goto done;
    }
    pair[0] = yk_fd_lift(pair[0]);
    pair[1] = yk_fd_lift(pair[1]);
    handle->control = pair[0];
    struct launch launch = {
        .program = program, .argv = argv, .control_text = number, .control = pair[1]};
    rc = send(pair[0], &task, sizeof task, MSG_NOSIGNAL) < 0 ? -errno : 0;
    int supervisor = NOBODY;
    rc = rc == 0 ? launch_child(&launch, &supervisor, &handle->pidfd) : rc;
    close(pair[1]);
    if (rc == 0) {
        rc = await_start(handle);
        if (rc != 0) {
            yk_pidfd_signal(handle->pidfd, SIGKILL);
            discard(handle->pidfd);
            handle->pidfd = NOBODY;
        }
    }
    if (rc != 0) {
        close(pair[0]);
        handle->control = NOBODY;
    }
done:
    free(argv);
    return rc;
}

int yk_program_start(const struct yk_program *program, struct yk_program_handle *handle)
{
    const int saved = errno;
    struct yk_program wanted = *program;
    if (wanted.environment == NULL) {
        wanted.environment = environ;
    }
    const int rc =
        wanted.supervisor >= 0 ? start_supervised(&wanted, handle) : start_plain(&wanted, handle);
    errno = saved;
    return rc;
}

/* --- a program that runs ------------------------------------------------------------------- */

int yk_program_signal(const struct yk_program_handle *handle, int signal, enum yk_whom whom)
{
    const int saved = errno;
    int rc = 0;
    if (handle->control >= 0) {
        const struct yk_sup_command command = {.whom = (int)whom, .signal = signal};
        rc = send(handle->control, &command, sizeof command, MSG_NOSIGNAL | MSG_DONTWAIT) < 0;
        rc = rc == 0 ? 0 : errno == EPIPE || errno == ECONNRESET ? -ESRCH : -errno;
        /* Should somebody have stopped the supervisor. */
        (void)yk_pidfd_signal(handle->pidfd, SIGCONT);
    } else if (whom == YK_WHOM_ONE) {
        rc = yk_pidfd_signal(handle->pidfd, signal);
    } else {
        const int sent = whom == YK_WHOM_KILL ? SIGKILL : signal;
        rc = kill(-handle->pid, sent) != 0 ? -errno : 0;
        if (whom == YK_WHOM_KILL || rc == -ESRCH) { /* it may have left its group */
            rc = yk_pidfd_signal(handle->pidfd, sent);
        }
    }
    errno = saved;
    return rc;
}

static void fill_usage(const struct rusage *from, struct yk_usage *usage)
{
    *usage = (struct yk_usage){
        .known = true,
        .user_ns = from->ru_utime.tv_sec * NS_PER_S + from->ru_utime.tv_usec * NS_PER_US,
        .system_ns = from->ru_stime.tv_sec * NS_PER_S + from->ru_stime.tv_usec * NS_PER_US,
        .memory_peak_bytes = (size_t)from->ru_maxrss * KIB,
        .faults_minor = (uint64_t)from->ru_minflt,
        .faults_major = (uint64_t)from->ru_majflt,
        .switches_voluntary = (uint64_t)from->ru_nvcsw,
        .switches_forced = (uint64_t)from->ru_nivcsw,
    };
}

struct yk_exit_status yk_pidfd_reap_usage(int pidfd, struct yk_usage *usage)
{
    struct yk_exit_status status = {.code = -1};
    siginfo_t info = {0};
    struct rusage used = {0};
    long rc = 0;
    *usage = (struct yk_usage){0};
    do { /* libc's waitid has no place for what was used */
        rc = YK_SYS(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | WNOHANG | __WALL, &used);
    } while (rc == -EINTR);
    if (rc == 0 && info.si_pid != 0) {
        status.code = info.si_code == CLD_EXITED ? info.si_status : -1;
        status.signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
        fill_usage(&used, usage);
    }
    return status;
}

struct yk_exit_status yk_program_reap(const struct yk_program_handle *handle, bool leave,
                                      struct yk_usage *usage)
{
    const int saved = errno;
    siginfo_t info;
    if (handle->control < 0 && !leave &&
        waitid((idtype_t)P_PIDFD, (id_t)handle->pidfd, &info,
               WEXITED | WNOHANG | WNOWAIT | __WALL) == 0) {
        kill(-handle->pid, SIGKILL); /* nobody has reaped it: the number is its own */
    }
    struct yk_exit_status status = yk_pidfd_reap_usage(handle->pidfd, usage);
    struct yk_sup_report report;
    /* The last report has it all, and is there whoever reaped the supervisor. */
    bool heard = false;
    while (handle->control >= 0 && take_report(handle->control, &report) > 0) {
        if (report.what == YK_SUP_ENDED) {
            heard = true;
            status.code = WIFEXITED(report.status) ? WEXITSTATUS(report.status) : -1;
            status.signal = WIFSIGNALED(report.status) ? WTERMSIG(report.status) : 0;
            fill_usage(&report.usage, usage);
        }
    }
    if (handle->control >= 0 && !heard) {
        /* Somebody killed the supervisor; the kernel kills the program then. */
        status = (struct yk_exit_status){.code = -1, .signal = SIGKILL};
        usage->known = false;
    }
    errno = saved;
    return status;
}

/* --- many ---------------------------------------------------------------------------------- */

int yk_poll_many(const int *fds, size_t count, int64_t until_ns, bool *ready)
{
    enum { FEW = 16 };
    const int saved = errno;
    struct pollfd few[FEW];
    struct pollfd *const wait = count > FEW ? malloc(count * sizeof *wait) : few;
    if (wait == NULL) {
        errno = saved;
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        wait[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    }
    const int got = poll(wait, count, yk_clock_ms_left(until_ns));
    const int rc = got > 0 ? 0 : got == 0 ? -ETIMEDOUT : -errno;
    for (size_t i = 0; i < count; i++) {
        ready[i] = rc == 0 && wait[i].revents != 0;
    }
    if (wait != few) {
        free(wait);
    }
    errno = saved;
    return rc;
}
