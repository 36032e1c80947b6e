/* SPDX-License-Identifier: MIT
 * waiting.c - waits that a deadline, a signal or a cancel ends.   Room: sync.
 */
#include "sync/waiting.h"

#include <yoke/thread.h>

#include <errno.h>

#define SLICE_NS 20000000LL

static int64_t slice_of(int64_t until_ns)
{
    const int64_t slice = yk_clock_ns() + SLICE_NS;
    return slice < until_ns ? slice : until_ns;
}

/* A task of a process worker: whoever cancels it cannot wake us, only set its flag. */
static bool looks_at_flag(void)
{
    return yk_cancel_top != NULL && yk_cancel_top->flag != NULL;
}

static int wait_sliced(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns,
                       enum yk_scope scope)
{
    const int64_t slice = slice_of(until_ns);
    const int rc = yk_cancel_here() ? -ECANCELED : yk_futex_wait(word, expected, slice, scope);
    return rc == -ETIMEDOUT && slice != until_ns ? 0 : rc;
}

static int wait_hanging(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns,
                        enum yk_scope scope, struct yoke_cancel *token)
{
    struct yk_cancel_watch watch;
    if (!yk_cancel_watch_begin(&watch, token, word, scope)) {
        return 0; /* cancelled; the caller looks */
    }
    const int rc = yk_futex_wait(word, expected, until_ns, scope);
    yk_cancel_wait_end(&watch.wait);
    return rc;
}

int yk_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns, enum yk_scope scope)
{
    struct yoke_cancel *const own = yk_cancel_own();
    int rc = 0;
    if (looks_at_flag()) {
        rc = wait_sliced(word, expected, until_ns, scope);
    } else if (own != NULL) {
        rc = wait_hanging(word, expected, until_ns, scope, own);
    } else {
        rc = yk_futex_wait(word, expected, until_ns, scope);
    }
    rc = rc == -EAGAIN ? 0 : rc;
    return rc == 0 && yk_cancel_here() ? -ECANCELED : rc;
}

/* --- descriptors ---------------------------------------------------------------------------- */

struct fd_wait {
    struct yk_cancel_wait wait; /* first */
    int fd;                     /* readable with the cancel; -1: there is none */
};

static void wake_fd(struct yk_cancel_wait *wait)
{
    yk_eventfd_signal(((struct fd_wait *)wait)->fd);
}

/* False: cancelled, or no descriptor to be had: then in slices. */
static bool fd_wait_begin(struct fd_wait *wait, struct yoke_cancel *token)
{
    *wait = (struct fd_wait){.wait = {.wake = wake_fd}, .fd = -1};
    if (yk_eventfd_create(&wait->fd) != 0) {
        wait->fd = -1;
        return false;
    }
    return yk_cancel_wait_begin(&wait->wait, token);
}

static void fd_wait_end(struct fd_wait *wait)
{
    yk_cancel_wait_end(&wait->wait);
    if (wait->fd >= 0) {
        yk_fd_close(wait->fd);
    }
}

static int poll_on(int *fds, bool *ready, size_t count, int64_t until_ns, bool sliced)
{
    for (;;) {
        if (yk_cancel_here()) {
            return -ECANCELED;
        }
        const int64_t slice = sliced ? slice_of(until_ns) : until_ns;
        const int rc = yk_poll_many(fds, count + 1, slice, ready);
        if (rc == 0 && ready[count]) {
            continue; /* the cancel */
        }
        if (rc != -ETIMEDOUT || slice == until_ns) {
            return rc;
        }
    }
}

int yk_wait_fds(int *fds, bool *ready, size_t count, int64_t until_ns)
{
    struct yoke_cancel *const own = yk_cancel_own();
    struct fd_wait wait = {.fd = -1};
    const bool hangs = own != NULL && fd_wait_begin(&wait, own);
    fds[count] = wait.fd;
    const int rc = poll_on(fds, ready, count, until_ns, looks_at_flag() || (own != NULL && !hangs));
    fd_wait_end(&wait);
    return rc;
}

/* --- the public side ------------------------------------------------------------------------ */

int yoke_sleep_until(int64_t until_ns)
{
    _Atomic uint32_t never = 0;
    for (;;) {
        const int rc = yk_wait(&never, 0, until_ns, YK_PRIVATE);
        if (rc != 0) {
            return rc == -ETIMEDOUT ? 0 : rc;
        }
    }
}

int yoke_thread_interrupted(void)
{
    return yk_cancel_seen(yk_cancel_thread()) ? 1 : 0;
}
