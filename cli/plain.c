/* SPDX-License-Identifier: MIT
 * plain.c - the same things with plain POSIX calls (see plain.h).
 */
#include "plain.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct call {
    plain_fn *fn;
    void *item;
    int rc;
};

static void *thread_main(void *arg)
{
    struct call *call = arg;
    call->rc = call->fn(call->item);
    return NULL;
}

int plain_threads(plain_fn *fn, void *items, size_t item_bytes, size_t count)
{
    pthread_t threads[PLAIN_MAX];
    struct call calls[PLAIN_MAX];
    size_t started = 0;
    int rc = 0;
    for (; started < count && started < PLAIN_MAX && rc == 0; started += rc == 0) {
        calls[started] = (struct call){.fn = fn, .item = (char *)items + started * item_bytes};
        rc = -pthread_create(&threads[started], NULL, thread_main, &calls[started]);
    }
    for (size_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (calls[i].rc != 0 && rc == 0)
            rc = -EIO;
    }
    return rc;
}

pid_t plain_fork(void)
{
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1); /* it died before the line above */
    }
    return pid;
}

int plain_wait(pid_t pid)
{
    int status = 0;
    pid_t got;
    do {
        got = waitpid(pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int plain_forks(plain_fn *fn, void *items, size_t item_bytes, size_t count)
{
    pid_t children[PLAIN_MAX];
    size_t started = 0;
    int rc = 0;
    for (; started < count && started < PLAIN_MAX && rc == 0; started += rc == 0) {
        const pid_t pid = plain_fork();
        if (pid == 0)
            _exit(fn((char *)items + started * item_bytes) == 0 ? 0 : 1);
        children[started] = pid;
        rc = pid < 0 ? -errno : 0;
    }
    for (size_t i = 0; i < started; i++) {
        const int end = plain_wait(children[i]);
        rc = rc == 0 ? end : rc;
    }
    return rc;
}

pid_t plain_exec(char *const argv[], int input)
{
    const pid_t pid = plain_fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        if (input < 0 || dup2(input, STDIN_FILENO) >= 0)
            execvp(argv[0], argv);
        _exit(127);
    }
    return pid;
}
