/* SPDX-License-Identifier: MIT
 * capture.c - the pump, and what it fills.   Room: process.
 *
 * Argument. The pump sleeps in epoll; an event carries the number of a capture, which is looked up
 * in the list under `lock`, so one that is gone by then is not found and not touched. All reading
 * happens under that lock, also the last one, by who notes the end. `admin` is held for a whole
 * start or end of the pump. Its state lies in the area that forks wipe. Lock order: admin, lock.
 */
#include "process/capture.h"

#include <errno.h>
#include <stdlib.h>

#include "process/local.h"

#define FIRST_BYTES ((size_t)4096)
#define READ_BYTES ((size_t)65536)
#define AT_ONCE 4 /* reads, before others have their turn */

struct yk_capture {
    uint64_t number;
    struct yk_capture *next;     /* in the pump's list */
    struct yk_capture_bounds at; /* its folder is ours */
    int pipe;                    /* -1: has ended */
    int spill;                   /* or -1 */
    char *memory;
    size_t room;  /* of memory */
    size_t bytes; /* kept so far */
    uint64_t dropped;
    void *mapped; /* the spill, once asked for */
};

static struct yk_pump *get(void)
{
    struct yk_program_local *const local = yk_program_local();
    return local != NULL ? &local->pump : NULL;
}

/* --- filling ------------------------------------------------------------------------------- */

/* Make room for some more in memory. The bytes there are now; 0: nothing more goes there. */
static size_t make_room(struct yk_capture *capture)
{
    const size_t limit = yk_min(capture->at.memory_bytes, capture->at.total_bytes);
    if (capture->spill >= 0 || capture->bytes >= limit) {
        return 0;
    }
    if (capture->room - capture->bytes < yk_min(READ_BYTES, limit - capture->bytes)) {
        const size_t doubled = yk_max(capture->room * 2, FIRST_BYTES);
        const size_t room = yk_min(yk_max(doubled, capture->bytes + FIRST_BYTES), limit);
        char *const memory = realloc(capture->memory, room + 1); /* a zero byte follows */
        if (memory != NULL) {
            capture->memory = memory;
            capture->room = room;
        }
    }
    return capture->room - capture->bytes;
}

/* Move on to a file. False: there is none to be had. */
static bool spill(struct yk_capture *capture)
{
    if (capture->spill >= 0) {
        return true;
    }
    int fd = -1;
    if (yk_spill_open(capture->at.folder, &fd) != 0) {
        return false;
    }
    if (yk_fd_write_at(fd, capture->memory, capture->bytes, 0) != 0) {
        yk_fd_close(fd);
        return false;
    }
    free(capture->memory);
    capture->memory = NULL;
    capture->room = 0;
    capture->spill = fd;
    return true;
}

static void keep_in_file(struct yk_capture *capture, const char *bytes, size_t count)
{
    const size_t fits = yk_min(count, capture->at.total_bytes - capture->bytes);
    if (fits > 0 && spill(capture) &&
        yk_fd_write_at(capture->spill, bytes, fits, capture->bytes) == 0) {
        capture->bytes += fits;
        capture->dropped += count - fits;
    } else {
        capture->dropped += count;
        /* What comes after a gap would look like what came before it: nothing more is kept. */
        capture->at.total_bytes = capture->bytes;
    }
}

/* Read once. Bytes, 0 at the end, or -errno. */
static long read_once(struct yk_capture *capture, char *scratch)
{
    const size_t room = make_room(capture);
    if (room > 0) {
        const long got = yk_fd_read(capture->pipe, capture->memory + capture->bytes, room);
        capture->bytes += got > 0 ? (size_t)got : 0;
        return got;
    }
    const long got = yk_fd_read(capture->pipe, scratch, READ_BYTES);
    if (got > 0) {
        keep_in_file(capture, scratch, (size_t)got);
    }
    return got;
}

/* --- the pump ------------------------------------------------------------------------------ */

static void serve(struct yk_pump *pump, uint64_t number, char *scratch)
{
    yk_mutex_lock(&pump->lock);
    struct yk_capture *capture = pump->captures;
    while (capture != NULL && capture->number != number) {
        capture = capture->next;
    }
    long got = capture != NULL ? 1 : 0;
    for (int i = 0; i < AT_ONCE && got > 0; i++) {
        got = read_once(capture, scratch);
    }
    if (capture != NULL && got == 0) {
        yk_epoll_remove(pump->epoll, capture->pipe); /* the end is readable for ever */
    }
    yk_mutex_unlock(&pump->lock);
}

static bool must_stop(struct yk_pump *pump)
{
    yk_mutex_lock(&pump->lock);
    const bool stop = pump->stop;
    yk_mutex_unlock(&pump->lock);
    return stop;
}

static void pump_main(void *arg)
{
    enum { BATCH = 16 };
    struct yk_pump *const pump = arg;
    while (!must_stop(pump)) {
        void *tags[BATCH];
        const int count = yk_epoll_wait(pump->epoll, tags, BATCH, YOKE_FOREVER);
        for (int i = 0; i < count; i++) {
            if (tags[i] == NULL) {
                yk_eventfd_drain(pump->wake);
            } else {
                serve(pump, (uint64_t)(uintptr_t)tags[i], pump->scratch);
            }
        }
    }
}

static int start_pump(struct yk_pump *pump) YK_REQUIRES(pump->admin)
{
    int rc = yk_epoll_create(&pump->epoll);
    if (rc != 0) {
        return rc;
    }
    rc = yk_eventfd_create(&pump->wake);
    if (rc != 0) {
        goto fail_epoll;
    }
    rc = yk_epoll_add(pump->epoll, pump->wake, NULL);
    pump->scratch = rc == 0 ? malloc(READ_BYTES) : NULL;
    if (pump->scratch == NULL) {
        rc = rc != 0 ? rc : -ENOMEM;
        goto fail_wake;
    }
    pump->stop = false;
    const struct yk_thread_setup setup = {.name = "yoke-pump"};
    rc = yk_thread_start(&setup, pump_main, pump, &pump->thread);
    if (rc == 0) {
        return 0;
    }
    free(pump->scratch);
fail_wake:
    yk_fd_close(pump->wake);
fail_epoll:
    yk_fd_close(pump->epoll);
    return rc;
}

static void stop_pump(struct yk_pump *pump) YK_REQUIRES(pump->admin)
{
    yk_mutex_lock(&pump->lock);
    pump->stop = true;
    yk_mutex_unlock(&pump->lock);
    yk_eventfd_signal(pump->wake);
    yk_thread_join(pump->thread);
    free(pump->scratch);
    yk_fd_close(pump->wake);
    yk_fd_close(pump->epoll);
}

static int hold_pump(struct yk_pump *pump)
{
    yk_mutex_lock(&pump->admin);
    const int rc = pump->holds == 0 ? start_pump(pump) : 0;
    pump->holds += rc == 0;
    yk_mutex_unlock(&pump->admin);
    return rc;
}

static void drop_pump(struct yk_pump *pump)
{
    yk_mutex_lock(&pump->admin);
    if (--pump->holds == 0) {
        stop_pump(pump);
    }
    yk_mutex_unlock(&pump->admin);
}

static int add_to_pump(struct yk_pump *pump, struct yk_capture *capture)
{
    int rc = hold_pump(pump);
    if (rc != 0) {
        return rc;
    }
    yk_mutex_lock(&pump->lock);
    capture->number = ++pump->last_number;
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): epoll carries it, nobody follows it. */
    void *const tag = (void *)(uintptr_t)capture->number;
    rc = yk_epoll_add(pump->epoll, capture->pipe, tag);
    if (rc == 0) {
        capture->next = pump->captures;
        pump->captures = capture;
    }
    yk_mutex_unlock(&pump->lock);
    if (rc != 0) {
        drop_pump(pump);
    }
    return rc;
}

/* --- one capture --------------------------------------------------------------------------- */

static void free_capture(struct yk_capture *capture)
{
    free(capture->memory);
    free((char *)capture->at.folder);
    free(capture);
}

int yk_capture_begin(const struct yk_capture_bounds *bounds, struct yk_capture **capture,
                     int *write_end)
{
    struct yk_pump *const pump = get();
    struct yk_capture *const made = calloc(1, sizeof *made);
    const size_t folder_bytes = strlen(bounds->folder) + 1;
    char *const folder = malloc(folder_bytes);
    int rc = -ENOMEM;
    if (pump == NULL || made == NULL || folder == NULL) {
        free(made);
        free(folder);
        return rc;
    }
    memcpy(folder, bounds->folder, folder_bytes);
    made->at = *bounds;
    made->at.folder = folder;
    made->spill = -1;
    rc = yk_pipe_open(&made->pipe, write_end);
    if (rc != 0) {
        goto fail_made;
    }
    rc = yk_fd_nonblocking(made->pipe);
    rc = rc == 0 ? add_to_pump(pump, made) : rc;
    if (rc == 0) {
        *capture = made;
        return 0;
    }
    yk_fd_close(made->pipe);
    yk_fd_close(*write_end);
fail_made:
    free_capture(made);
    return rc;
}

void yk_capture_end(struct yk_capture *capture)
{
    struct yk_pump *const pump = get();
    yk_mutex_lock(&pump->lock);
    struct yk_capture **at = &pump->captures;
    while (*at != capture) {
        at = &(*at)->next;
    }
    *at = capture->next;
    yk_epoll_remove(pump->epoll, capture->pipe);
    /* Only what is there now: somebody who was left running may write for ever. */
    const size_t waiting = yk_pipe_waiting(capture->pipe);
    for (size_t taken = 0; taken < waiting;) {
        const long got = read_once(capture, pump->scratch);
        if (got <= 0) {
            break;
        }
        taken += (size_t)got;
    }
    yk_mutex_unlock(&pump->lock);
    yk_fd_close(capture->pipe);
    capture->pipe = -1;
    drop_pump(pump);
}

int yk_capture_data(struct yk_capture *capture, const char **data, size_t *bytes, uint64_t *dropped)
{
    if (capture->spill >= 0 && capture->mapped == NULL) {
        const int rc = yk_spill_map(capture->spill, capture->bytes, &capture->mapped);
        if (rc != 0) {
            return rc;
        }
    }
    if (capture->mapped != NULL) {
        *data = capture->mapped;
    } else if (capture->memory != NULL) {
        capture->memory[capture->bytes] = '\0';
        *data = capture->memory;
    } else {
        *data = "";
    }
    *bytes = capture->bytes;
    *dropped = capture->dropped;
    return 0;
}

void yk_capture_destroy(struct yk_capture *capture, bool ours)
{
    if (capture->pipe >= 0 && ours) {
        yk_capture_end(capture);
    } else if (capture->pipe >= 0) {
        yk_fd_close(capture->pipe);
    }
    if (capture->mapped != NULL) {
        yk_unmap(capture->mapped, capture->bytes + 1);
    }
    if (capture->spill >= 0) {
        yk_fd_close(capture->spill);
    }
    free_capture(capture);
}
