/* SPDX-License-Identifier: MIT
 * program.c - runs another program and reads what it prints (see program.h).
 */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yoke/yoke.h>

extern char **environ;

static int spawn(char *const argv[], int out, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc != 0)
        return -rc;
    rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    rc = rc ? rc : posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    rc = rc ? rc
            : posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    rc = rc ? rc : posix_spawnp(pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return -rc;
}

/* Until the other end is closed; what does not fit is thrown away. */
static int read_until(int fd, int64_t until_ns, char *output, size_t size)
{
    size_t used = 0;
    output[0] = '\0';
    for (;;) {
        char rest[256];
        const int full = used + 1 >= size;
        const int64_t left_ms = (until_ns - yoke_now_ns()) / 1000000;
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        const int polled = left_ms > 0 ? poll(&ready, 1, (int)left_ms) : 0;
        if (polled == 0)
            return -ETIMEDOUT;
        const ssize_t n = polled < 0 ? -1
                          : full     ? read(fd, rest, sizeof rest)
                                     : read(fd, output + used, size - 1 - used);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return 0;
        if (n > 0 && !full)
            output[used += (size_t)n] = '\0';
    }
}

int program_output(char *const argv[], int64_t until_ns, char *output, size_t size)
{
    int pipe_ends[2], status = 0;
    pid_t pid = -1;
    if (pipe2(pipe_ends, O_CLOEXEC) != 0)
        return -errno;
    int rc = spawn(argv, pipe_ends[1], &pid);
    close(pipe_ends[1]);
    if (rc == 0) {
        rc = read_until(pipe_ends[0], until_ns, output, size);
        if (rc != 0)
            kill(pid, SIGKILL);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        if (rc == 0)
            rc = WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
    }
    close(pipe_ends[0]);
    return rc;
}
