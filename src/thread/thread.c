/* SPDX-License-Identifier: MIT
 * thread.c - a single thread: start, wait with a deadline, interrupt.   Room: thread.
 *
 * The handle is shared by its owner and the running thread; the last of the two frees it.
 * `done` is the word waiters sleep on; once it is odd the code is final. An interrupt is the cancel of
 * the thread's own token.
 */
#include <errno.h>
#include <stdlib.h>

#include "sync/waiting.h"
#include <yoke/thread.h>

struct yoke_thread {
    /* read-only after start */
    uint64_t generation;
    yoke_thread_fn *fn;
    void *arg;
    yk_thread_id id;
    struct yoke_cancel *token;
    /* atomic */
    _Atomic uint32_t refs;
    _Atomic uint32_t done; /* SYNC(thread-done) bit 0; what is above, a cancel of a waiter adds */
    /* the thread's until done, then read-only */
    int code;
};

static void unref(yoke_thread *thread)
{
    /* SYNC(thread-refs) acq_rel: the last one sees all the other did with it. */
    if (atomic_fetch_sub_explicit(&thread->refs, 1, memory_order_acq_rel) == 1) {
        yk_cancel_drop(thread->token);
        free(thread);
    }
}

static void run(void *arg)
{
    yoke_thread *const thread = arg;
    yk_cancel_thread_adopt(thread->token);
    thread->code = thread->fn(thread->arg);
    yk_cancel_thread_adopt(NULL);
    /* SYNC(thread-done) release: publishes the code. */
    atomic_fetch_or_explicit(&thread->done, 1, memory_order_release);
    yk_futex_wake(&thread->done, INT32_MAX, YK_PRIVATE);
    unref(thread);
}

static uint32_t done_word(const yoke_thread *thread)
{
    /* SYNC(thread-done) acquire: odd: sees the code. */
    return atomic_load_explicit(&thread->done, memory_order_acquire);
}

static bool is_done(const yoke_thread *thread)
{
    return (done_word(thread) & 1) != 0;
}

int yoke_thread_start(const yoke_thread_config *config, yoke_thread_fn *fn, void *arg,
                      yoke_thread **thread)
{
    yoke_thread_config settings;
    if (fn == NULL || thread == NULL) {
        return -EINVAL;
    }
    int rc = yk_settings_read(&settings, sizeof settings, config);
    if (rc != 0) {
        return rc;
    }
    if ((settings.cpus == NULL) != (settings.cpu_count == 0)) {
        return -EINVAL;
    }
    yoke_thread *const made = calloc(1, sizeof *made);
    if (made == NULL) {
        return -ENOMEM;
    }
    made->token = yk_cancel_make(NULL);
    if (made->token == NULL) {
        free(made);
        return -ENOMEM;
    }
    made->generation = yk_process_generation();
    made->fn = fn;
    made->arg = arg;
    atomic_init(&made->refs, 2);
    const struct yk_thread_setup setup = {
        .name = settings.name,
        .stack_bytes = settings.stack_bytes,
        .cpus = settings.cpus,
        .cpu_count = settings.cpu_count,
    };
    rc = yk_thread_start(&setup, run, made, &made->id);
    if (rc != 0) {
        yk_cancel_drop(made->token);
        free(made);
        return rc;
    }
    *thread = made;
    return 0;
}

static int check(const yoke_thread *thread)
{
    if (thread == NULL) {
        return -EINVAL;
    }
    return thread->generation == yk_process_generation() ? 0 : -ECHILD;
}

int yoke_thread_wait(yoke_thread *thread, int64_t until_ns, int *code)
{
    const int rc = check(thread);
    if (rc != 0) {
        return rc;
    }
    if (yk_cancel_thread() == thread->token) {
        return -EDEADLK;
    }
    for (uint32_t seen = 0; ((seen = done_word(thread)) & 1) == 0;) {
        const int waited = yk_wait(&thread->done, seen, until_ns, YK_PRIVATE);
        if (waited != 0 && !is_done(thread)) {
            return waited;
        }
    }
    if (code != NULL) {
        *code = thread->code;
    }
    return 0;
}

int yoke_thread_interrupt(yoke_thread *thread)
{
    const int rc = check(thread);
    if (rc == 0) {
        yoke_cancel_set(thread->token);
    }
    return rc;
}

void yoke_thread_release(yoke_thread *thread)
{
    if (thread == NULL) {
        return;
    }
    if (check(thread) != 0) {
        yk_cancel_drop(thread->token);
        free(thread); /* the child's copy: the thread itself is not here */
        return;
    }
    if (is_done(thread) && yk_cancel_thread() != thread->token) {
        yk_thread_join(thread->id);
    } else {
        yk_thread_detach(thread->id);
    }
    unref(thread);
}
