/* SPDX-License-Identifier: MIT
 * desk.c - what workers leave behind: the trace of a crash, why an initializer failed; and the
 * manners of their output.
 *
 * Each worker number has room on the desk for its last two lives, so that the text of a crash can be
 * read while the next worker is at work. A trace number names place and life: of a third life it
 * finds nothing. faulthandler writes to a nameless file; our handler, which faulthandler calls next,
 * copies that to the desk and lets the signal do what it does.   Room: python.
 */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TEXT_BYTES 8192
#define LIVES 2U
#define SPARE_WORKERS 2U /* worker numbers beyond those asked for */
#define PLACE_BITS 12U
#define PLACE_MASK ((1U << PLACE_BITS) - 1)
#define HIGH_FD 480 /* out of the way of numbers that somebody may close by mistake */
#define ALT_STACK_BYTES 65536
#define LOCK_AT 0x796f6b65 /* any byte of a stream will do */
#define LOCK_LOOK_NS 50000000LL
#define LOCK_PATIENCE_NS 10000000000LL

struct place {
    _Atomic uint32_t life;  /* SYNC(desk-life): whose text it is; 0: nobody's */
    _Atomic uint32_t bytes; /* SYNC(desk-text): 0: none */
    char text[TEXT_BYTES];
};

enum { QUIET, TELLING, TOLD };

struct ypy_desk {
    uint32_t workers;        /* numbers of workers there is room for */
    _Atomic uint32_t failed; /* SYNC(desk-failure): QUIET ... */
    struct place failure;
    struct place places[]; /* of worker n: 2 n and 2 n + 1 */
};

struct ypy_desk *ypy_desk_make(unsigned workers)
{
    const uint32_t numbers = workers + SPARE_WORKERS;
    struct ypy_desk *desk = NULL;
    if (numbers * LIVES < PLACE_MASK) {
        desk = yoke_shared_zalloc(sizeof *desk + (size_t)numbers * LIVES * sizeof(struct place));
    }
    if (desk != NULL) {
        desk->workers = numbers;
    }
    return desk;
}

void ypy_desk_free(struct ypy_desk *desk)
{
    yoke_shared_free(desk);
}

/* --- leaving ---------------------------------------------------------------------------------- */

static void write_text(struct place *place, const char *text, size_t bytes)
{
    const size_t count = bytes < TEXT_BYTES ? bytes : TEXT_BYTES;
    memcpy(place->text, text, count);
    /* SYNC(desk-text) release: publishes the text. */
    atomic_store_explicit(&place->bytes, (uint32_t)count, memory_order_release);
}

void ypy_desk_tell_failure(struct ypy_desk *desk, PyObject *text)
{
    uint32_t seen = QUIET;
    PyObject *const bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    if (bytes == NULL) {
        PyErr_Clear();
        return;
    }
    /* SYNC(desk-failure) relaxed: who is first may write; TOLD publishes. */
    if (atomic_compare_exchange_strong_explicit(&desk->failed, &seen, TELLING, memory_order_relaxed,
                                                memory_order_relaxed)) {
        size_t count = (size_t)PyBytes_GET_SIZE(bytes);
        const char *at = PyBytes_AS_STRING(bytes);
        if (count > TEXT_BYTES) { /* the end of a traceback says more than its beginning */
            at += count - TEXT_BYTES;
            count = TEXT_BYTES;
        }
        write_text(&desk->failure, at, count);
        /* SYNC(desk-failure) release: the text is complete. */
        atomic_store_explicit(&desk->failed, TOLD, memory_order_release);
    }
    Py_DECREF(bytes);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* What is below the task is ours: from the frame of the main loop to the end of that thread. */
static size_t cut_own_frames(char *text, size_t bytes)
{
    static const char mark[] = "  File \"<yoke>\"";
    char *const begin = memmem(text, bytes, mark, sizeof mark - 1);
    if (begin == NULL) {
        return bytes;
    }
    const size_t rest = bytes - (size_t)(begin - text);
    char *const end = memmem(begin, rest, "\n\n", 2);
    if (end == NULL) {
        return (size_t)(begin - text);
    }
    const size_t cut = (size_t)(end + 1 - begin);
    memmove(begin, begin + cut, rest - cut);
    return bytes - cut;
}

static PyObject *read_text(struct place *place)
{
    /* SYNC(desk-text) acquire: sees the text. */
    const uint32_t bytes = atomic_load_explicit(&place->bytes, memory_order_acquire);
    if (bytes == 0 || bytes > TEXT_BYTES) {
        Py_RETURN_NONE;
    }
    char text[TEXT_BYTES]; /* who is dead does not write, but may have been more than one */
    memcpy(text, place->text, bytes);
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)cut_own_frames(text, bytes), "replace");
}

PyObject *ypy_desk_trace(struct ypy_desk *desk, uint32_t trace)
{
    const uint32_t number = (trace & PLACE_MASK) - 1;
    if (trace == 0 || desk == NULL || number >= desk->workers * LIVES) {
        Py_RETURN_NONE;
    }
    struct place *const place = &desk->places[number];
    /* SYNC(desk-life) acquire: the text is not of a life after this one. */
    if (atomic_load_explicit(&place->life, memory_order_acquire) != trace >> PLACE_BITS) {
        Py_RETURN_NONE;
    }
    return read_text(place);
}

PyObject *ypy_desk_failure(struct ypy_desk *desk)
{
    /* SYNC(desk-failure) acquire: sees the text. */
    if (desk == NULL || atomic_load_explicit(&desk->failed, memory_order_acquire) != TOLD) {
        Py_RETURN_NONE;
    }
    return read_text(&desk->failure);
}

/* --- a crash ---------------------------------------------------------------------------------- */

static struct {
    struct place *place; /* NULL: nobody wants to know */
    int fd;
    pid_t pid; /* whose place it is: children of a worker have none */
} crash = {.fd = -1};

void ypy_desk_enter(struct ypy_desk *desk, unsigned worker)
{
    const uint32_t first = worker % desk->workers * LIVES;
    struct place *const places = &desk->places[first];
    /* relaxed: one worker has this number at a time, and starts after the one before is dead. */
    const uint32_t a = atomic_load_explicit(&places[0].life, memory_order_relaxed);
    /* relaxed: as above. */
    const uint32_t b = atomic_load_explicit(&places[1].life, memory_order_relaxed);
    const uint32_t older = a > b ? 1 : 0;
    const uint32_t life = ((a > b ? a : b) + 1) & (UINT32_MAX >> PLACE_BITS);
    struct place *const place = &places[older];
    /* relaxed: life, written next, publishes it. */
    atomic_store_explicit(&place->bytes, 0, memory_order_relaxed);
    /* SYNC(desk-life) release: what was there is gone. */
    atomic_store_explicit(&place->life, life != 0 ? life : 1, memory_order_release);
    crash.place = place;
    crash.pid = getpid();
    ypy_worker.trace = (life != 0 ? life : 1) << PLACE_BITS | (first + older + 1);
}

/* Runs on the stack for signals, with little room left, on memory that may be spoiled. */
static void on_crash(int number)
{
    if (crash.place != NULL && crash.fd >= 0 && crash.pid == getpid()) {
        const ssize_t got = pread(crash.fd, crash.place->text, TEXT_BYTES, 0);
        if (got > 0) {
            /* SYNC(desk-text) release: publishes the text. */
            atomic_store_explicit(&crash.place->bytes, (uint32_t)got, memory_order_release);
        }
    }
    const struct sigaction normal = {.sa_handler = SIG_DFL};
    sigaction(number, &normal, NULL);
    raise(number);
}

static void set_handlers(void)
{
    static const int numbers[] = {SIGSEGV, SIGFPE, SIGABRT, SIGBUS, SIGILL}; /* faulthandler's */
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_NODEFER | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

/* faulthandler has one for the thread it was first enabled in, and that may be gone. */
static void set_stack(void)
{
    stack_t now;
    if (sigaltstack(NULL, &now) != 0 || (now.ss_flags & SS_DISABLE) == 0) {
        return;
    }
    void *const at = mmap(NULL, ALT_STACK_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (at != MAP_FAILED) {
        const stack_t own = {.ss_sp = at, .ss_size = ALT_STACK_BYTES};
        (void)sigaltstack(&own, NULL);
    }
}

PyObject *ypy_crash_file(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (crash.place == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this process is no worker");
        return NULL;
    }
    if (crash.fd < 0) {
        const int fd = memfd_create("yoke-crash", MFD_CLOEXEC);
        const int high = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD) : -1;
        if (high >= 0) {
            close(fd);
        }
        crash.fd = high >= 0 ? high : fd;
        if (crash.fd < 0) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    set_stack();
    set_handlers();
    return PyLong_FromLong(crash.fd);
}

/* --- output that arrives whole ---------------------------------------------------------------- */

/* Has this process stopped, or gone? Then it may hold the lock for ever. */
static bool is_stopped(pid_t pid)
{
    char path[32], text[256] = {0};
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return true;
    }
    const ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    const char *const name_end = got > 0 ? strrchr(text, ')') : NULL;
    return name_end == NULL || strchr("TtXxZ", name_end[1] == ' ' ? name_end[2] : 'X') != NULL;
}

/* A lock of the kernel's on the stream itself: it goes with its owner, however that dies. Pipes,
 * sockets and terminals only: one write to a file is whole anyway. */
static bool lock_stream(int fd)
{
    struct stat what;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_AT, .l_len = 1};
    const bool torn = fstat(fd, &what) == 0 && (S_ISFIFO(what.st_mode) || S_ISSOCK(what.st_mode) ||
                                                (S_ISCHR(what.st_mode) && isatty(fd)));
    if (!torn) {
        return false;
    }
    const int64_t begin = yoke_now_ns();
    int64_t look = begin + LOCK_LOOK_NS;
    struct timespec nap = {.tv_nsec = 20000};
    while (fcntl(fd, F_SETLK, &lock) != 0) {
        const int64_t now = yoke_now_ns();
        if ((errno != EAGAIN && errno != EACCES) || now - begin > LOCK_PATIENCE_NS) {
            return false;
        }
        if (now > look) {
            struct flock held = lock;
            look = now + LOCK_LOOK_NS;
            if (fcntl(fd, F_GETLK, &held) == 0 && held.l_type != F_UNLCK &&
                is_stopped(held.l_pid)) {
                return false;
            }
        }
        (void)nanosleep(&nap, NULL);
        nap.tv_nsec = nap.tv_nsec < 1000000 ? 2 * nap.tv_nsec : nap.tv_nsec;
    }
    return true;
}

static void unlock_stream(int fd)
{
    const int saved = errno;
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = LOCK_AT, .l_len = 1};
    (void)fcntl(fd, F_SETLK, &lock);
    errno = saved;
}

/* 0, or -1: errno, or EINTR and a handler of Python's should run. */
static int write_all(int fd, const char *at, size_t left, size_t *written)
{
    while (left != 0) {
        const ssize_t count = write(fd, at, left);
        if (count >= 0) {
            at += count;
            left -= (size_t)count;
            *written += (size_t)count;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            if (poll(&room, 1, -1) < 0) { /* until somebody reads, as with any pipe */
                return -1;
            }
        } else {
            return -1;
        }
    }
    return 0;
}

PyObject *ypy_write_whole(PyObject *module, PyObject *args)
{
    (void)module;
    int fd = -1;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "iy*", &fd, &data)) {
        return NULL;
    }
    size_t written = 0;
    int rc = -1;
    bool raised = false;
    bool locked = false;
    Py_BEGIN_ALLOW_THREADS
    locked = lock_stream(fd);
    Py_END_ALLOW_THREADS
    do {
        int error = 0;
        Py_BEGIN_ALLOW_THREADS
        rc = write_all(fd, (const char *)data.buf + written, (size_t)data.len - written, &written);
        error = errno;
        Py_END_ALLOW_THREADS
        errno = error;
        raised = rc != 0 && error == EINTR && PyErr_CheckSignals() != 0;
        errno = error;
    } while (rc != 0 && errno == EINTR && !raised);
    if (locked) {
        unlock_stream(fd);
    }
    PyBuffer_Release(&data);
    if (rc != 0) {
        return raised ? NULL : PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromSize_t(written);
}

/* --- the name --------------------------------------------------------------------------------- */

/* Where the kernel shows our arguments from; 0 bytes: unknown. */
static char *find_arguments(size_t *bytes)
{
    enum { ARG_START = 48, FIRST_AFTER_NAME = 3 };
    char text[2048] = {0};
    *bytes = 0;
    const int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) {
        close(fd);
    }
    const char *at = got > 0 ? strrchr(text, ')') : NULL;
    if (at == NULL) {
        return NULL;
    }
    at++;
    for (int field = FIRST_AFTER_NAME; field < ARG_START && at != NULL; field++) {
        at = strchr(at + 1, ' ');
    }
    char *end = NULL;
    const uintptr_t start = at != NULL ? strtoull(at, &end, 10) : 0;
    const uintptr_t stop = start != 0 ? strtoull(end, NULL, 10) : 0;
    *bytes = stop > start ? stop - start : 0;
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): what the kernel says. */
    return (char *)start;
}

PyObject *ypy_set_title(PyObject *module, PyObject *text)
{
    (void)module;
    Py_ssize_t length = 0;
    const char *const title = PyUnicode_AsUTF8AndSize(text, &length);
    if (title == NULL) {
        return NULL;
    }
    char name[16] = {0};
    const size_t word = strcspn(title, " ");
    memcpy(name, title, word < sizeof name - 1 ? word : sizeof name - 1);
    (void)prctl(PR_SET_NAME, name);
    size_t room = 0;
    char *const at = find_arguments(&room);
    if (room > 1) {
        const size_t count = (size_t)length < room - 1 ? (size_t)length : room - 1;
        memcpy(at, title, count);
        memset(at + count, 0, room - count);
    }
    Py_RETURN_NONE;
}
