/* SPDX-License-Identifier: MIT
 * file.c - descriptors: closing them in a child, eventfd, epoll.   Room: platform.
 *
 * All of ours are close-on-exec: a program that the user executes inherits none.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/platform.h"

#define FIRST_OTHER_FD 3
#define CLOSE_BY_HAND_MAX 65536

void yk_fd_close(int fd)
{
    const int saved = errno;
    close(fd);
    errno = saved;
}

int yk_fd_lift(int fd)
{
    if (fd < 0 || fd >= FIRST_OTHER_FD) {
        return fd;
    }
    const int saved = errno;
    const int lifted = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_OTHER_FD);
    if (lifted >= 0) {
        close(fd);
    }
    errno = saved;
    return lifted >= 0 ? lifted : fd;
}

bool yk_fd_is_open(int fd)
{
    const int saved = errno;
    const bool open = fcntl(fd, F_GETFD) >= 0;
    errno = saved;
    return open;
}

static void close_range_of(unsigned first, unsigned last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0U) == 0) {
        return;
    }
    /* Where a sandbox hides close_range: one by one, as far as the limit goes. */
    const long open_max = sysconf(_SC_OPEN_MAX);
    const unsigned end =
        open_max > 0 && open_max < CLOSE_BY_HAND_MAX ? (unsigned)open_max : CLOSE_BY_HAND_MAX;
    for (unsigned fd = first; fd <= last && fd < end; fd++) {
        close((int)fd);
    }
}

/* The lowest number in keep that is at least from, or -1. */
static int next_kept(const int *keep, size_t count, int from)
{
    int next = -1;
    for (size_t i = 0; i < count; i++) {
        if (keep[i] >= from && (next < 0 || keep[i] < next)) {
            next = keep[i];
        }
    }
    return next;
}

int yk_fd_close_others(const int *keep, size_t count)
{
    int from = FIRST_OTHER_FD;
    for (;;) {
        const int kept = next_kept(keep, count, from);
        if (kept < 0) {
            close_range_of((unsigned)from, UINT_MAX);
            return 0;
        }
        if (kept > from) {
            close_range_of((unsigned)from, (unsigned)kept - 1);
        }
        from = kept + 1;
    }
}

int yk_fd_error(int error)
{
    return error == ENFILE ? -EMFILE : -error;
}

static int checked(int fd_or_error, int *fd)
{
    if (fd_or_error < 0) {
        return yk_fd_error(errno);
    }
    *fd = yk_fd_lift(fd_or_error);
    return 0;
}

int yk_eventfd_create(int *fd)
{
    const int saved = errno;
    const int rc = checked(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fd);
    errno = saved;
    return rc;
}

void yk_eventfd_signal(int fd)
{
    const int saved = errno;
    const uint64_t one = 1;
    /* Can only fail when the counter is full, and then it is readable anyway. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    errno = saved;
}

void yk_eventfd_drain(int fd)
{
    const int saved = errno;
    uint64_t count = 0;
    (void)!read(fd, &count, sizeof count);
    errno = saved;
}

int yk_epoll_create(int *fd)
{
    const int saved = errno;
    const int rc = checked(epoll_create1(EPOLL_CLOEXEC), fd);
    errno = saved;
    return rc;
}

int yk_epoll_add(int epoll, int fd, void *tag)
{
    const int saved = errno;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    int rc = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0 ? -errno : 0;
    if (rc == -ENOSPC) {
        rc = -ENOMEM; /* the user's watches are used up: kernel memory by another name */
    }
    errno = saved;
    return rc;
}

void yk_epoll_remove(int epoll, int fd)
{
    const int saved = errno;
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
    errno = saved;
}

int yk_epoll_wait(int epoll, void **tags, int max, int64_t until_ns)
{
    enum { BATCH = 64 };
    struct epoll_event events[BATCH];
    const int saved = errno;
    const int count =
        epoll_wait(epoll, events, max < BATCH ? max : BATCH, yk_clock_ms_left(until_ns));
    const int error = count < 0 ? -errno : 0;
    errno = saved;
    for (int i = 0; i < count; i++) {
        tags[i] = events[i].data.ptr;
    }
    return count < 0 ? error : count;
}
