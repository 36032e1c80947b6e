/* SPDX-License-Identifier: MIT
 * process.c - copies of this process, their death, their manners.   Room: platform.
 *
 * Idea: the pidfd is the truth about a child, never its exit status, which the program may take
 * (a wait() loop) or throw away (SIGCHLD ignored). A child with exit signal 0 is not even seen by
 * such a loop. clone, not clone3: old container profiles answer ENOSYS to the latter.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/platform.h"

#define OOM_STEP 300
#define OOM_MAX 1000
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int yk_process_self(void)
{
    return getpid();
}

int yk_process_parent(void)
{
    return getppid();
}

int yk_fork(void)
{
    const int saved = errno;
    const pid_t pid = fork();
    const int rc = pid < 0 ? -errno : pid;
    errno = saved;
    return rc;
}

static long bare_clone(unsigned long flags, int *parent_tid, int *child_tid)
{
#if defined(__x86_64__)
    return syscall(SYS_clone, flags, NULL, parent_tid, child_tid, NULL);
#else
    return syscall(SYS_clone, flags, NULL, parent_tid, NULL, child_tid);
#endif
}

/* A bare clone leaves libc's copy of the thread id and the robust list those of the parent's
 * thread; both must be put right or mutexes in the child name the wrong owner. The kernel knows
 * where libc keeps the id. */
int yk_clone_quiet(bool sibling, int *child)
{
    const int saved = errno;
    int *tid = NULL;
    void *robust = NULL;
    size_t robust_bytes = 0;
    const bool known = prctl(PR_GET_TID_ADDRESS, &tid) == 0 && tid != NULL &&
                       syscall(SYS_get_robust_list, 0, &robust, &robust_bytes) == 0;
    if (!known && !sibling) {
        errno = saved;
        return -ENOSYS; /* fork() can do it; for a sibling there is no other way */
    }
    const unsigned long flags = (known ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0UL) |
                                (sibling ? CLONE_PARENT : 0UL) |
                                (child != NULL ? CLONE_PARENT_SETTID : 0UL);
    const long pid = bare_clone(flags, child, tid);
    if (pid == 0 && known) {
        syscall(SYS_set_robust_list, robust, robust_bytes);
    }
    const int rc = pid < 0 ? -errno : (int)pid;
    errno = saved;
    return rc;
}

/* Only a child can be waited for: this is how we know that an id is still ours. */
static bool is_child(idtype_t type, int id)
{
    siginfo_t info;
    int rc = 0;
    do {
        rc = waitid(type, (id_t)id, &info, WEXITED | WNOHANG | WNOWAIT | __WALL);
    } while (rc != 0 && errno == EINTR);
    return rc == 0;
}

int yk_pidfd_open(int pid, int *pidfd)
{
    const int saved = errno;
    int rc = 0;
    const int fd = (int)syscall(SYS_pidfd_open, pid, 0U);
    if (fd < 0) {
        rc = yk_fd_error(errno);
    } else if (!is_child((idtype_t)P_PIDFD, fd)) {
        close(fd);
        rc = -ESRCH;
    } else {
        *pidfd = fd;
    }
    errno = saved;
    return rc;
}

int yk_pidfd_signal(int pidfd, int signal)
{
    const int saved = errno;
    const int rc = syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0U) != 0 ? -errno : 0;
    errno = saved;
    return rc;
}

int yk_pidfd_wait(int pidfd, int64_t until_ns)
{
    const int saved = errno;
    struct pollfd wait = {.fd = pidfd, .events = POLLIN};
    const int count = poll(&wait, 1, yk_clock_ms_left(until_ns));
    const int rc = count > 0 ? 0 : count == 0 ? -ETIMEDOUT : -errno;
    errno = saved;
    return rc;
}

bool yk_pidfd_ended(int pidfd, int64_t until_ns)
{
    for (;;) {
        const int rc = yk_pidfd_wait(pidfd, until_ns);
        if (rc != -EINTR) {
            return rc == 0;
        }
    }
}

struct yk_exit_status yk_pidfd_reap(int pidfd)
{
    struct yk_exit_status status = {.code = -1, .signal = 0};
    const int saved = errno;
    siginfo_t info = {0};
    int rc = 0;
    do {
        rc = waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | __WALL);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0 && info.si_pid != 0) {
        if (info.si_code == CLD_EXITED) {
            status.code = info.si_status;
        } else {
            status.signal = info.si_status;
        }
    }
    errno = saved;
    return status;
}

void yk_child_discard(int pid)
{
    const int saved = errno;
    if (is_child(P_PID, pid)) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) {
        }
    }
    errno = saved;
}

bool yk_process_follow(int parent)
{
    if (getppid() != parent) {
        return false; /* and whoever is our parent now is not to take us along */
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Had it died before the call above, no signal would ever come. */
    return getppid() == parent;
}

void yk_signals_reset(bool ignore_interrupt)
{
    for (int i = 1; i < NSIG; i++) {
        struct sigaction action;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_IGN &&
            action.sa_handler != SIG_DFL) {
            action = (struct sigaction){.sa_handler = SIG_DFL};
            sigaction(i, &action, NULL);
        }
    }
    if (ignore_interrupt) {
        const struct sigaction ignore = {.sa_handler = SIG_IGN};
        sigaction(SIGINT, &ignore, NULL);
    }
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

_Static_assert(sizeof(sigset_t) <= sizeof(struct yk_signal_mask), "room for a signal mask");

void yk_signals_block(struct yk_signal_mask *saved)
{
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    memcpy(saved, &old, sizeof old);
}

void yk_signals_restore(const struct yk_signal_mask *saved)
{
    sigset_t old;
    memcpy(&old, saved, sizeof old);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void yk_signals_drop(void)
{
    const int saved = errno;
    const struct timespec now = {0, 0};
    sigset_t asked;
    sigemptyset(&asked);
    sigaddset(&asked, SIGINT);
    sigaddset(&asked, SIGTERM);
    while (sigtimedwait(&asked, NULL, &now) > 0 || errno == EINTR) {
    }
    errno = saved;
}

void yk_interrupt_default(void)
{
    const struct sigaction normal = {.sa_handler = SIG_DFL};
    sigaction(SIGINT, &normal, NULL);
}

int yk_signal_kill(void)
{
    return SIGKILL;
}

int yk_signal_interrupt(void)
{
    return SIGINT;
}

int yk_signal_terminate(void)
{
    return SIGTERM;
}

int yk_signal_continue(void)
{
    return SIGCONT;
}

void yk_process_name(const char *name)
{
    prctl(PR_SET_NAME, name);
}

/* The kernel should end a worker, whose task we can name, before it ends the program. */
void yk_process_oom_raise(void)
{
    const int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    char text[16] = {0};
    if (read(fd, text, sizeof text - 1) > 0) {
        const long now = strtol(text, NULL, 10);
        const long raised = now + OOM_STEP < OOM_MAX ? now + OOM_STEP : OOM_MAX;
        const int length = snprintf(text, sizeof text, "%ld", raised);
        (void)!pwrite(fd, text, (size_t)length, 0);
    }
    close(fd);
}

void yk_process_exit(int code)
{
    _exit(code);
}

void yk_stdio_forget(void)
{
    __fpurge(stdout);
    __fpurge(stderr);
}

static void flush_if_free(FILE *stream)
{
    /* The check first: a flush of nothing would still take the lock, for every task. */
    if (__fpending(stream) > 0 && ftrylockfile(stream) == 0) {
        fflush_unlocked(stream);
        funlockfile(stream);
    }
}

void yk_stdio_flush(void)
{
    const int saved = errno;
    flush_if_free(stdout);
    flush_if_free(stderr);
    errno = saved;
}

static void exit_now(int status, void *unused)
{
    (void)unused;
    yk_stdio_flush();
    _exit(status);
}

void yk_exit_immediately(void)
{
    /* Handlers run last first, so this one runs before any the program registered. */
    on_exit(exit_now, NULL);
}

void yk_random_reseed(void)
{
    unsigned seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) {
        seed = (unsigned)getpid() ^ (unsigned)yk_clock_ns();
    }
    srandom(seed);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this process has one thread yet. */
    srand48((long)seed);
}
