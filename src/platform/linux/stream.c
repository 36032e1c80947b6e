/* SPDX-License-Identifier: MIT
 * stream.c - what a program reads from and writes to.   Room: platform.
 *
 * Bytes for its input lie in a nameless file, so nobody has to feed a pipe while it runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/platform.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif
#define FILE_MODE 0666
#define PRIVATE_MODE 0600

static int checked(int fd_or_error, int *fd)
{
    if (fd_or_error < 0) {
        return yk_fd_error(errno);
    }
    *fd = yk_fd_lift(fd_or_error);
    return 0;
}

int yk_file_open(const char *path, enum yk_file_use use, int *fd)
{
    static const int flags[] = {
        [YK_FILE_READ] = O_RDONLY,
        [YK_FILE_WRITE] = O_WRONLY | O_CREAT | O_TRUNC,
        [YK_FILE_APPEND] = O_WRONLY | O_CREAT | O_APPEND,
    };
    const int saved = errno;
    const int rc = checked(open(path, flags[use] | O_CLOEXEC | O_NOCTTY, FILE_MODE), fd);
    errno = saved;
    return rc;
}

int yk_null_open(int *fd)
{
    const int saved = errno;
    const int rc = checked(open("/dev/null", O_RDWR | O_CLOEXEC), fd);
    errno = saved;
    return rc;
}

int yk_pipe_open(int *read_end, int *write_end)
{
    const int saved = errno;
    int ends[2];
    const int rc = pipe2(ends, O_CLOEXEC) != 0 ? yk_fd_error(errno) : 0;
    if (rc == 0) {
        *read_end = yk_fd_lift(ends[0]);
        *write_end = yk_fd_lift(ends[1]);
    }
    errno = saved;
    return rc;
}

/* A file over RLIMIT_FSIZE raises SIGXFSZ: look first. */
static bool size_is_allowed(size_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
           bytes <= limit.rlim_cur;
}

int yk_fd_write_at(int fd, const void *bytes, size_t count, size_t offset)
{
    if (!size_is_allowed(offset + count)) {
        return -EFBIG;
    }
    const int saved = errno;
    const char *at = bytes;
    int rc = 0;
    while (count > 0 && rc == 0) {
        const ssize_t put = pwrite(fd, at, count, (off_t)offset);
        if (put > 0) {
            at += put;
            offset += (size_t)put;
            count -= (size_t)put;
        } else if (put == 0 || errno != EINTR) {
            rc = put == 0 ? -ENOSPC : -errno;
        }
    }
    errno = saved;
    return rc;
}

/* A nameless file of these bytes that nobody can change any more. The file or -errno. */
static int open_sealed(const char *name, unsigned flags, const void *bytes, size_t count)
{
    const int file = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    const int rc = file < 0 ? yk_fd_error(errno) : yk_fd_write_at(file, bytes, count, 0);
    if (rc == 0) {
        fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
        return yk_fd_lift(file);
    }
    if (file >= 0) {
        close(file);
    }
    return rc;
}

int yk_bytes_open(const void *bytes, size_t count, int *fd)
{
    const int saved = errno;
    const int rc = open_sealed("yoke-bytes", 0, bytes, count);
    *fd = rc;
    errno = saved;
    return rc < 0 ? rc : 0;
}

int yk_spill_open(const char *folder, int *fd)
{
    const int saved = errno;
    int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, PRIVATE_MODE);
    if (file < 0) {
        file = memfd_create("yoke-output", MFD_CLOEXEC);
    }
    const int rc = checked(file, fd);
    errno = saved;
    return rc;
}

int yk_spill_map(int fd, size_t bytes, void **start)
{
    const int saved = errno;
    /* Zeros first, the file over them: it ends in zeros then, also where its disk is full. */
    int rc = yk_map_private(bytes + 1, start);
    if (rc == 0 && bytes > 0) {
        /* Without a write that failed half way. */
        const bool mapped =
            ftruncate(fd, (off_t)bytes) == 0 &&
            mmap(*start, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
        rc = mapped ? 0 : -errno;
        if (!mapped) {
            yk_unmap(*start, bytes + 1);
        }
    }
    errno = saved;
    return rc;
}

size_t yk_pipe_waiting(int fd)
{
    const int saved = errno;
    int bytes = 0;
    const int rc = ioctl(fd, FIONREAD, &bytes);
    errno = saved;
    return rc == 0 && bytes > 0 ? (size_t)bytes : 0;
}

int yk_fd_nonblocking(int fd)
{
    const int saved = errno;
    const int flags = fcntl(fd, F_GETFL);
    const int rc = flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ? -errno : 0;
    errno = saved;
    return rc;
}

long yk_fd_read(int fd, void *to, size_t count)
{
    const int saved = errno;
    ssize_t got = 0;
    do {
        got = read(fd, to, count);
    } while (got < 0 && errno == EINTR);
    const long rc = got < 0 ? -errno : got;
    errno = saved;
    return rc;
}

int yk_supervisor_open(struct yk_file_identity *identity, int *fd)
{
    const int saved = errno;
    size_t count = 0;
    const unsigned char *const bytes = yk_supervisor_bytes(&count);
    int file = open_sealed("yoke-supervisor", MFD_EXEC, bytes, count);
    if (file == -EINVAL) { /* before Linux 6.3 all can be executed */
        file = open_sealed("yoke-supervisor", 0, bytes, count);
    }
    int rc = file >= 0 ? 0 : file == -EACCES ? -ENOTSUP : file;
    if (rc == 0 && !yk_fd_identify(file, identity)) {
        rc = -EBADF;
        close(file);
    }
    *fd = file;
    errno = saved;
    return rc;
}

bool yk_fd_identify(int fd, struct yk_file_identity *identity)
{
    const int saved = errno;
    struct stat about;
    const bool known = fstat(fd, &about) == 0;
    *identity = (struct yk_file_identity){
        .device = known ? about.st_dev : 0,
        .inode = known ? about.st_ino : 0,
    };
    errno = saved;
    return known;
}
