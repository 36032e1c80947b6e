/* SPDX-License-Identifier: MIT
 * memory.c - mappings: private, shared and nameless, and one that a fork wipes.   Room: platform.
 *
 * The shared object has its full (sparse) size from the start and is sealed: nobody, however
 * hostile, can shrink it under us, so a read inside the mapping never raises SIGBUS for its size.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/platform.h"

size_t yk_page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

size_t yk_address_space_limit(void)
{
    struct rlimit limit;
    const bool none = getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY;
    return none ? SIZE_MAX : (size_t)limit.rlim_cur;
}

static int map(void *hint, size_t bytes, int flags, int fd, void **start)
{
    const int saved = errno;
    void *const at = mmap(hint, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    const int error = at == MAP_FAILED ? -errno : 0;
    errno = saved;
    if (error == 0) {
        *start = at;
    }
    return error;
}

int yk_map_private(size_t bytes, void **start)
{
    return map(NULL, bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, start);
}

int yk_map_scratch(size_t bytes, void **start)
{
    const int rc = yk_map_private(bytes, start);
    if (rc == 0) {
        const int saved = errno;
        madvise(*start, bytes, MADV_HUGEPAGE);
        errno = saved;
    }
    return rc;
}

/* A quiet zone: between the low programs and the heaps and libraries at the top, clear of what
 * sanitizers use. Another program can map the object at the same address then, however the kernel
 * lays it out. Where there is no such address, or the zone is taken, the kernel chooses. */
#define QUIET_ZONE ((uintptr_t)0x200000000000)
#define QUIET_STEP ((uintptr_t)1 << 41)
#define QUIET_PLACES 4U

#define HUGE_BYTES ((size_t)2 << 20)

/* Room for it and more is reserved first, so that it can begin at a multiple of HUGE_BYTES. */
static int map_anywhere(size_t bytes, int flags, int fd, void **start)
{
    const size_t room_bytes = bytes + HUGE_BYTES;
    const int room_flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const int saved = errno;
    void *const room = mmap(NULL, room_bytes, PROT_NONE, room_flags, -1, 0);
    errno = saved;
    if (room == MAP_FAILED) {
        return -ENOMEM;
    }
    const size_t before = yk_round_up((uintptr_t)room, HUGE_BYTES) - (uintptr_t)room;
    unsigned char *const at = (unsigned char *)room + before;
    const int rc = map(at, bytes, flags | MAP_FIXED, fd, start);
    if (rc != 0) {
        yk_unmap(room, room_bytes);
        return rc;
    }
    if (before != 0) {
        yk_unmap(room, before);
    }
    if (before != HUGE_BYTES) {
        yk_unmap(at + bytes, HUGE_BYTES - before);
    }
    return 0;
}

static int map_quietly(size_t bytes, int fd, void **start)
{
    const int flags = MAP_SHARED | MAP_NORESERVE;
    for (unsigned i = 0; i < QUIET_PLACES; i++) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address of our choice is the point. */
        void *const hint = (void *)(QUIET_ZONE + i * QUIET_STEP);
        const int rc = map(hint, bytes, flags, fd, start);
        if (rc != 0 || *start == hint) {
            return rc;
        }
        yk_unmap(*start, bytes);
    }
    return map_anywhere(bytes, flags, fd, start);
}

/* Out of the way of a program that counts its descriptors or wants the low ones; not so high
 * that the kernel's table of them becomes large. The caller's own if there is no room. */
#define FD_ROOM ((rlim_t)32)
#define FD_LIMIT_MAX ((rlim_t)1024)

static int move_up(int fd)
{
    struct rlimit limit;
    const bool known = getrlimit(RLIMIT_NOFILE, &limit) == 0;
    const rlim_t top = known && limit.rlim_cur < FD_LIMIT_MAX ? limit.rlim_cur : FD_LIMIT_MAX;
    const int moved = top > 2 * FD_ROOM ? fcntl(fd, F_DUPFD_CLOEXEC, (int)(top - FD_ROOM)) : -1;
    if (moved < 0) {
        return fd;
    }
    close(fd);
    return moved;
}

static int note_object(int fd, struct yk_shared_object *object)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return -errno;
    }
    *object = (struct yk_shared_object){
        .fd = fd, .device = (uint64_t)info.st_dev, .inode = (uint64_t)info.st_ino};
    return 0;
}

/* A file over RLIMIT_FSIZE raises SIGXFSZ before it fails: look first. */
static bool size_is_allowed(size_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
           bytes <= limit.rlim_cur;
}

/* Wishes: what the kernel makes of them is its own affair. */
static void advise(void *start, size_t bytes)
{
    madvise(start, bytes, MADV_DONTDUMP);
    madvise(start, bytes, MADV_HUGEPAGE);
}

static const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

int yk_map_shared(size_t bytes, void **start, struct yk_shared_object *object)
{
    if (!size_is_allowed(bytes)) {
        return -EFBIG;
    }
    const int saved = errno;
    int fd = memfd_create("yoke", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const bool made =
        fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0;
    int rc = made ? map_quietly(bytes, fd, start) : yk_fd_error(errno);
    if (rc == 0) {
        advise(*start, bytes);
        fd = move_up(fd);
        rc = note_object(fd, object);
        if (rc != 0) {
            munmap(*start, bytes);
        }
    }
    if (rc != 0 && fd >= 0) {
        close(fd);
    }
    errno = saved;
    return rc;
}

bool yk_shared_object_is(const struct yk_shared_object *object)
{
    const int saved = errno;
    struct stat info;
    const bool same = object->fd >= 0 && fstat(object->fd, &info) == 0 &&
                      (uint64_t)info.st_dev == object->device &&
                      (uint64_t)info.st_ino == object->inode;
    errno = saved;
    return same;
}

int yk_map_shared_at(const struct yk_shared_object *object, size_t bytes, void *at)
{
    const int saved = errno;
    struct stat info;
    const int has = fcntl(object->fd, F_GET_SEALS); /* some machines add a seal of their own */
    const bool sound = has >= 0 && (has & seals) == seals && fstat(object->fd, &info) == 0 &&
                       (uint64_t)info.st_size == bytes;
    void *start = NULL;
    int rc =
        sound ? map(at, bytes, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, object->fd, &start)
              : -EINVAL;
    if (rc == 0 && start != at) { /* an emulator that does not know the flag */
        munmap(start, bytes);
        rc = -EEXIST;
    }
    if (rc == 0) {
        advise(at, bytes);
    }
    errno = saved;
    return rc;
}

void yk_shared_object_write(const struct yk_shared_object *object, size_t at, const void *data,
                            size_t bytes)
{
    const int saved = errno;
    (void)!pwrite(object->fd, data, bytes, (off_t)at);
    errno = saved;
}

void yk_unmap(void *start, size_t bytes)
{
    const int saved = errno;
    munmap(start, bytes);
    errno = saved;
}

int yk_memory_discard(void *start, size_t bytes)
{
    const int saved = errno;
    const int error = madvise(start, bytes, MADV_REMOVE) != 0 ? -errno : 0;
    errno = saved;
    return error;
}

void *_Atomic yk_local_areas;

#define LOCAL_BYTES ((size_t)YK_LOCAL_COUNT * YK_LOCAL_BYTES)

void yk_process_local_wipe(void)
{
    /* relaxed: the child has one thread. */
    struct yk_role *const first = atomic_load_explicit(&yk_local_areas, memory_order_relaxed);
    /* relaxed: as above. What this process wrote stays: the program's own handlers of fork() may
     * have used a pool before us. */
    if (first != NULL && atomic_load_explicit(&first->process, memory_order_relaxed) != getpid()) {
        memset(first, 0, LOCAL_BYTES);
    }
}

/* The kernel wipes the page in every child. Some emulators only say so: then fork() does it, and
 * our own copies do it themselves; so our own memory will do too, where no page is to be had. */
static void *make_local_areas(void)
{
    static _Alignas(YK_CACHE_LINE) unsigned char reserve[LOCAL_BYTES];
    void *fresh = reserve;
    const bool mapped = yk_map_private(LOCAL_BYTES, &fresh) == 0;
    if (mapped) {
        madvise(fresh, LOCAL_BYTES, MADV_WIPEONFORK);
    }
    void *none = NULL;
    /* SYNC(local-areas) acq_rel: publishes the zeroed area; the loser uses the winner's. */
    if (!atomic_compare_exchange_strong_explicit(&yk_local_areas, &none, fresh,
                                                 memory_order_acq_rel, memory_order_acquire)) {
        if (mapped) {
            yk_unmap(fresh, LOCAL_BYTES);
        }
        return none;
    }
    pthread_atfork(NULL, NULL, yk_process_local_wipe);
    return fresh;
}

void *yk_process_local(enum yk_local which)
{
    /* SYNC(local-areas) acquire: sees the area zeroed by who made it. */
    void *areas = atomic_load_explicit(&yk_local_areas, memory_order_acquire);
    if (YK_UNLIKELY(areas == NULL)) {
        areas = make_local_areas();
    }
    return (char *)areas + (size_t)which * YK_LOCAL_BYTES;
}

static struct yk_role *role(void)
{
    return yk_process_local(YK_LOCAL_ROLE);
}

uint64_t yk_process_generation_first(void)
{
    const uint64_t fresh = ((uint64_t)yk_clock_ns() << 22 ^ (uint64_t)getpid()) | 1;
    uint64_t known = 0;
    /* relaxed: the number itself is all there is to see. */
    atomic_store_explicit(&role()->process, getpid(), memory_order_relaxed);
    /* relaxed: as above. */
    return atomic_compare_exchange_strong_explicit(&role()->generation, &known, fresh,
                                                   memory_order_relaxed, memory_order_relaxed)
               ? fresh
               : known;
}

void yk_worker_role_set(void)
{
    /* relaxed: set while the process has one thread. */
    atomic_store_explicit(&role()->worker, true, memory_order_relaxed);
}

bool yk_worker_role(void)
{
    /* relaxed: set while the process had one thread. */
    return atomic_load_explicit(&role()->worker, memory_order_relaxed);
}
