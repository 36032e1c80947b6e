/* SPDX-License-Identifier: MIT
 * process.c - a single process: a C function in a copy of the program; and, for programs too
 * (program.c), its end and its handle.   Room: process.
 *
 * How it ended comes from its exit status, or, where the program took that, from the record in
 * the shared heap, where the function's return value was noted before the exit.
 */
#include <errno.h>
#include <stdlib.h>

#include "process/keeper.h"
#include "process/process.h"
#include "process/warm.h"
#include "sync/waiting.h"

#define RELEASE_NS 10000000000LL

/* --- in the process ------------------------------------------------------------------------ */

void yk_process_main(void *arg)
{
    struct yk_process_record *const record = arg;
    yk_image_begin(record->name, record->owner);
    yk_interrupt_default();
    /* It exists before it can be watched; if that fails it is killed, and fn must not have run. */
    yk_record_await_go(record);
    const int code = record->fn(record->arg) & 0xFF;
    yk_stdio_flush();
    /* SYNC(process-returned) release: what fn wrote is there before its code. */
    atomic_store_explicit(&record->returned, code + 1, memory_order_release);
    yk_process_exit(code);
}

/* --- in the program ------------------------------------------------------------------------ */

struct start {
    struct yk_image_setup setup;
    yoke_process *process;
};

static int start_snapshot(void *arg)
{
    struct start *const start = arg;
    return yk_image_fork(&start->setup, yk_process_main, start->process->record,
                         &start->process->program.pid, &start->process->program.pidfd);
}

static void fill_record(struct yk_process_record *record, const yoke_process_config *config,
                        yoke_process_fn *fn, void *arg)
{
    record->fn = fn;
    record->arg = arg;
    strncpy(record->name, config->name != NULL ? config->name : "yoke-process",
            YK_PROCESS_NAME_BYTES - 1);
}

static int start_from_snapshot(const yoke_process_config *config, yoke_process_fn *fn, void *arg,
                               yoke_process *process)
{
    process->record = yk_record_make();
    if (process->record == NULL) {
        return -ENOMEM;
    }
    fill_record(process->record, config, fn, arg);
    struct start start = {
        .setup = {.keep_fds = config->keep_fds,
                  .keep_fd_count = config->keep_fd_count,
                  .caller_waits = true},
        .process = process,
    };
    int rc = yk_keeper_hold();
    if (rc != 0) {
        return rc;
    }
    rc = yk_keeper_call(start_snapshot, &start);
    process->kept = rc == 0;
    if (rc != 0) {
        yk_keeper_drop();
    }
    return rc;
}

static int start_from_seed(const yoke_process_config *config, yoke_process_fn *fn, void *arg,
                           yoke_process *process)
{
    struct yk_template *const seed = yk_seed();
    if (seed == NULL) {
        return -ESRCH;
    }
    const int rc = yk_template_holds(seed, (uintptr_t)fn);
    if (rc != 0) {
        return rc;
    }
    struct yk_program_handle *const handle = &process->program;
    if (yk_warm_take(&process->record, &handle->pid, &handle->pidfd)) {
        fill_record(process->record, config, fn, arg);
        return 0;
    }
    process->record = yk_record_make();
    if (process->record == NULL) {
        return -ENOMEM;
    }
    fill_record(process->record, config, fn, arg);
    return yk_template_spawn(seed, yk_process_main, process->record, &handle->pid, &handle->pidfd);
}

static int check_config(const yoke_process_config *config)
{
    const bool seed = config->image == YOKE_SEED;
    if ((!seed && config->image != YOKE_SNAPSHOT) || (seed && config->keep_fd_count != 0) ||
        (config->keep_fds == NULL) != (config->keep_fd_count == 0)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < config->keep_fd_count; i++) {
        if (!yk_fd_is_open(config->keep_fds[i])) {
            return -EBADF;
        }
    }
    return yk_worker_role() ? YOKE_ENESTED : 0;
}

int yoke_process_start(const yoke_process_config *config, yoke_process_fn *fn, void *arg,
                       yoke_process **process)
{
    yoke_process_config settings;
    if (fn == NULL || process == NULL) {
        return -EINVAL;
    }
    int rc = yk_settings_read(&settings, sizeof settings, config);
    rc = rc == 0 ? check_config(&settings) : rc;
    rc = rc == 0 ? yk_heap_open() : rc;
    if (rc != 0) {
        return rc;
    }
    yoke_process *const made = calloc(1, sizeof *made);
    if (made == NULL) {
        return -ENOMEM;
    }
    made->generation = yk_process_generation();
    const bool seed = settings.image == YOKE_SEED;
    rc = seed ? start_from_seed(&settings, fn, arg, made)
              : start_from_snapshot(&settings, fn, arg, made);
    if (rc != 0) {
        yk_heap_free(made->record);
        free(made);
        return rc;
    }
    made->owner = made->record->owner;
    /* SYNC(process-go) release: publishes the record's fields to a copy that waits for them. */
    atomic_store_explicit(&made->record->go, 1, memory_order_release);
    yk_futex_wake(&made->record->go, 1, YK_SHARED);
    if (seed) {
        yk_warm_order();
    }
    *process = made;
    return 0;
}

/* --- its end, of both kinds ---------------------------------------------------------------- */

int yk_process_check(const yoke_process *process)
{
    if (process == NULL) {
        return -EINVAL;
    }
    return process->generation == yk_process_generation() ? 0 : -ECHILD;
}

static struct yk_exit_status reap_function(yoke_process *process)
{
    struct yk_exit_status status = {.code = -1};
    if (process->program.pidfd >= 0) {
        status = yk_pidfd_reap_usage(process->program.pidfd, &process->usage);
    }
    /* SYNC(process-returned) acquire: sees what fn wrote. */
    const int returned = atomic_load_explicit(&process->record->returned, memory_order_acquire);
    if (status.code < 0 && status.signal == 0 && returned > 0) {
        status.code = (returned - 1) & 0xFF;
    }
    yk_heap_recover(process->owner);
    return status;
}

static struct yk_exit_status reap_program(yoke_process *process)
{
    const struct yk_exit_status status =
        yk_program_reap(&process->program, process->leave, &process->usage);
    for (int i = 0; i < YK_STREAMS; i++) {
        if (process->captures[i] != NULL) {
            yk_capture_end(process->captures[i]);
        }
    }
    return status;
}

void yk_process_note_end(yoke_process *process)
{
    yk_mutex_lock(&process->lock);
    if (!process->ended) {
        const struct yk_exit_status status =
            process->record != NULL ? reap_function(process) : reap_program(process);
        process->end = (yoke_process_end){.code = status.code, .signal = status.signal};
        process->ended = true;
    }
    yk_mutex_unlock(&process->lock);
}

bool yk_process_has_ended(yoke_process *process)
{
    return process->program.pidfd < 0 || yk_pidfd_ended(process->program.pidfd, 0);
}

int yoke_process_wait(yoke_process *process, int64_t until_ns, yoke_process_end *end)
{
    const int rc = yk_process_check(process);
    if (rc != 0) {
        return rc;
    }
    while (!yk_process_has_ended(process)) {
        int fds[2] = {process->program.pidfd};
        bool ready[2] = {false};
        const int waited = yk_wait_fds(fds, ready, 1, until_ns);
        if (waited != 0 && !yk_process_has_ended(process)) {
            return waited;
        }
    }
    yk_process_note_end(process);
    if (end != NULL) {
        *end = process->end;
    }
    return 0;
}

int yk_process_send(yoke_process *process, int signal, enum yk_whom whom)
{
    const int rc = yk_process_check(process);
    if (rc != 0) {
        return rc;
    }
    if (yk_process_has_ended(process)) {
        return -ESRCH;
    }
    return process->record != NULL ? yk_pidfd_signal(process->program.pidfd, signal)
                                   : yk_program_signal(&process->program, signal, whom);
}

int yoke_process_interrupt(yoke_process *process)
{
    return yk_process_send(process, yk_signal_interrupt(), YK_WHOM_GROUP);
}

int yoke_process_kill(yoke_process *process)
{
    return yk_process_send(process, yk_signal_kill(), YK_WHOM_KILL);
}

int yoke_process_id(const yoke_process *process)
{
    return process == NULL ? -1 : process->program.pid;
}

/* A supervisor needs a moment to end the whole tree; one that is stuck goes itself. */
static void end_now(yoke_process *process)
{
    const bool supervised = process->program.control >= 0 && process->record == NULL;
    (void)yk_process_send(process, yk_signal_kill(), YK_WHOM_KILL);
    if (supervised && !yk_pidfd_ended(process->program.pidfd, yk_clock_ns() + RELEASE_NS)) {
        yk_pidfd_signal(process->program.pidfd, yk_signal_kill());
    }
    (void)yk_pidfd_ended(process->program.pidfd, YOKE_FOREVER);
}

void yoke_process_release(yoke_process *process)
{
    if (process == NULL) {
        return;
    }
    const bool ours = yk_process_check(process) == 0;
    if (ours) {
        if (!yk_process_has_ended(process)) {
            end_now(process);
        }
        yk_process_note_end(process);
    }
    if (ours && process->record != NULL) {
        yk_heap_free(process->record);
        if (process->kept) {
            yk_keeper_drop();
        }
    }
    if (process->record == NULL) {
        yk_program_forget(process, ours);
    }
    if (process->program.pidfd >= 0) {
        yk_fd_close(process->program.pidfd);
    }
    free(process);
}
