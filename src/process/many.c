/* SPDX-License-Identifier: MIT
 * many.c - several processes at once: wait for them, stop them; signals; what they used.
 *
 * Processes of both kinds have a pidfd each, so one poll waits for all.   Room: process.
 */
#include <errno.h>
#include <stdlib.h>

#include "process/process.h"
#include "sync/waiting.h"

#define SIGNAL_MAX 64
#define AFTER_KILL_NS 10000000000LL

int yoke_process_signal(yoke_process *process, int signal, int whom)
{
    static const enum yk_whom whoms[] = {
        [YOKE_SIGNAL_ONE] = YK_WHOM_ONE,
        [YOKE_SIGNAL_GROUP] = YK_WHOM_GROUP,
        [YOKE_SIGNAL_TREE] = YK_WHOM_TREE,
    };
    if (signal < 1 || signal > SIGNAL_MAX || whom < 0 || whom >= (int)YK_COUNT_OF(whoms)) {
        return -EINVAL;
    }
    return yk_process_send(process, signal, whoms[whom]);
}

int yoke_process_usage(yoke_process *process, yoke_usage *usage)
{
    yoke_usage out;
    int rc = yk_process_check(process);
    rc = rc == 0 && usage == NULL ? -EINVAL : rc;
    rc = rc == 0 ? yk_settings_read(&out, sizeof out, usage) : rc;
    if (rc != 0) {
        return rc;
    }
    yk_mutex_lock(&process->lock);
    const bool ended = process->ended;
    const struct yk_usage used = process->usage;
    yk_mutex_unlock(&process->lock);
    if (!ended || !used.known) {
        return ended ? -ENODATA : -EBUSY;
    }
    out = (yoke_usage){
        .size = out.size,
        .user_ns = used.user_ns,
        .system_ns = used.system_ns,
        .memory_peak_bytes = used.memory_peak_bytes,
        .faults_minor = used.faults_minor,
        .faults_major = used.faults_major,
        .switches_voluntary = used.switches_voluntary,
        .switches_forced = used.switches_forced,
    };
    memcpy(usage, &out, yk_min(out.size, sizeof out));
    return 0;
}

/* --- waiting ------------------------------------------------------------------------------- */

/* All are ours; *present gets how many there are. */
static int check_all(yoke_process *const *processes, size_t count, size_t *present)
{
    *present = 0;
    if (processes == NULL && count > 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        const int rc = processes[i] != NULL ? yk_process_check(processes[i]) : 0;
        if (rc != 0) {
            return rc;
        }
        *present += processes[i] != NULL;
    }
    return 0;
}

/* The waits of one call: fds[i] is -1 where there is nothing to wait for, or no more. */
struct waits {
    int *fds;
    bool *ready;
    size_t count;
};

static int waits_init(struct waits *waits, yoke_process *const *processes, size_t count)
{
    waits->count = count;
    waits->fds = calloc(count + 1, sizeof *waits->fds); /* one more for yk_wait_fds */
    waits->ready = calloc(count + 1, sizeof *waits->ready);
    if (waits->fds == NULL || waits->ready == NULL) {
        free(waits->fds);
        free(waits->ready);
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        waits->fds[i] = processes[i] != NULL ? processes[i]->program.pidfd : -1;
        waits->ready[i] = processes[i] != NULL && waits->fds[i] < 0; /* gone before its start */
    }
    return 0;
}

static void waits_fini(struct waits *waits)
{
    free(waits->fds);
    free(waits->ready);
}

/* Wait until some are ready. */
static int waits_some(const struct waits *waits, int64_t until_ns)
{
    return yk_wait_fds(waits->fds, waits->ready, waits->count, until_ns);
}

int yoke_process_wait_any(yoke_process *const *processes, size_t count, int64_t until_ns,
                          size_t *ended)
{
    size_t present = 0;
    struct waits waits;
    int rc = check_all(processes, count, &present);
    rc = rc == 0 && (present == 0 || ended == NULL) ? -EINVAL : rc;
    rc = rc == 0 ? waits_init(&waits, processes, count) : rc;
    if (rc != 0) {
        return rc;
    }
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        found = found || waits.ready[i];
    }
    rc = found ? 0 : waits_some(&waits, until_ns);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (waits.ready[i]) {
            yk_process_note_end(processes[i]);
            *ended = i;
            break;
        }
    }
    waits_fini(&waits);
    return rc;
}

int yoke_process_wait_all(yoke_process *const *processes, size_t count, int64_t until_ns)
{
    size_t left = 0;
    struct waits waits;
    int rc = check_all(processes, count, &left);
    rc = rc == 0 ? waits_init(&waits, processes, count) : rc;
    if (rc != 0) {
        return rc;
    }
    for (;;) {
        for (size_t i = 0; i < count; i++) {
            if (waits.ready[i]) {
                yk_process_note_end(processes[i]);
                waits.fds[i] = -1;
                waits.ready[i] = false;
                left--;
            }
        }
        rc = left > 0 ? waits_some(&waits, until_ns) : 0;
        if (left == 0 || rc != 0) {
            break;
        }
    }
    waits_fini(&waits);
    return rc;
}

/* --- stopping ------------------------------------------------------------------------------ */

static void send_to_all(yoke_process *const *processes, size_t count, int signal, enum yk_whom whom)
{
    for (size_t i = 0; i < count; i++) {
        if (processes[i] != NULL) {
            (void)yk_process_send(processes[i], signal, whom); /* it may have ended */
        }
    }
}

int yoke_process_stop(yoke_process *const *processes, size_t count, int64_t grace_ns)
{
    enum { STEPS = 2 };
    const int signals[STEPS][2] = {{yk_signal_interrupt(), 0},
                                   {yk_signal_terminate(), yk_signal_continue()}};
    size_t present = 0;
    int rc = check_all(processes, count, &present);
    if (rc != 0 || grace_ns < 0) {
        return rc != 0 ? rc : -EINVAL;
    }
    for (int step = 0; step < STEPS && grace_ns > 0; step++) {
        for (int i = 0; i < 2 && signals[step][i] != 0; i++) {
            send_to_all(processes, count, signals[step][i], YK_WHOM_TREE);
        }
        rc = yoke_process_wait_all(processes, count, yk_after(yk_clock_ns(), grace_ns));
        if (rc != -ETIMEDOUT) {
            return rc;
        }
    }
    send_to_all(processes, count, yk_signal_kill(), YK_WHOM_KILL);
    return yoke_process_wait_all(processes, count, yk_after(yk_clock_ns(), AFTER_KILL_NS));
}
