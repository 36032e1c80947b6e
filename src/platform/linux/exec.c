/* SPDX-License-Identifier: MIT
 * exec.c - start another program, as flat as a spawn can be.   Room: platform.
 *
 * The child borrows our memory until it has become the other program (CLONE_VM, CLONE_VFORK), so
 * the cost does not depend on how much we have, and a failed exec is told through a variable. Until
 * then it touches nothing but its own descriptors and signals. Its exit signal is none until the
 * exec, and SIGCHLD after it: the kernel sets that.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/platform.h"

#define STACK_BYTES ((size_t)256 << 10) /* the search in PATH takes some of it */

struct child {
    const struct yk_exec_setup *setup;
    int program;
    int error;
};

static int keep_open(int fd)
{
    const int flags = fcntl(fd, F_GETFD);
    return flags < 0 || fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) != 0 ? -errno : 0;
}

/* It leaves by returning: what an _exit would run belongs to the thread we borrow from. */
static int become(void *arg)
{
    struct child *const child = arg;
    const struct yk_exec_setup *const setup = child->setup;
    if (!yk_process_follow(child->program)) {
        child->error = -ECHILD;
        return 1;
    }
    yk_fd_close_others(setup->fds, setup->fd_count);
    for (size_t i = 0; i < setup->fd_count && child->error == 0; i++) {
        child->error = keep_open(setup->fds[i]);
    }
    if (child->error == 0) {
        yk_signals_reset(true);
        execvpe(setup->argv[0], setup->argv, setup->env);
        child->error = -errno;
    }
    return 1;
}

char *const *yk_environment(void)
{
    return environ;
}

int yk_process_exec(const struct yk_exec_setup *setup, int *pidfd)
{
    struct child child = {.setup = setup, .program = getpid()};
    void *stack = NULL;
    int rc = yk_map_private(STACK_BYTES, &stack);
    if (rc != 0) {
        return rc;
    }
    const int saved = errno;
    struct yk_signal_mask mask;
    yk_signals_block(&mask);
    int fd = -1;
    const int made = clone(become, (char *)stack + STACK_BYTES,
                           CLONE_VM | CLONE_VFORK | CLONE_PIDFD, &child, &fd);
    rc = made < 0 ? -errno : child.error;
    yk_signals_restore(&mask);
    yk_unmap(stack, STACK_BYTES);
    if (rc == 0) {
        *pidfd = fd;
    } else if (made >= 0) {
        (void)yk_pidfd_ended(fd, YOKE_FOREVER);
        (void)yk_pidfd_reap(fd);
        close(fd);
    }
    errno = saved;
    return rc;
}
