/* SPDX-License-Identifier: MIT
 * task.c - the running task, as its function sees it.   Room: pool.
 *
 * A result block travels in three stores: the note (before the block is taken), the slot, the
 * note cleared. Whoever sweeps up after a kill finds it in the one or the other, never in none.
 * A block that a second call replaces hangs on the new one.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "memory/heap.h"
#include "pool/worker.h"

static _Thread_local struct yoke_task *own;

struct yoke_task *yk_task_own(void)
{
    return own;
}

static int32_t answer(const struct yoke_task *task, int code)
{
    if (task->told != 0) {
        return task->told;
    }
    if (task->place.told) {
        return YK_TOLD_CANCELLED; /* a call that it waited in told it */
    }
    if (code < 0) {
        return code == INT_MIN ? INT_MAX : -code;
    }
    return code;
}

void yk_task_enter(struct yoke_task *task)
{
    task->outer = own;
    own = task;
    yk_cancel_enter(&task->place);
}

void yk_task_leave(struct yoke_task *task)
{
    own = task->outer;
    yk_cancel_leave(&task->place);
    if (YK_UNLIKELY(task->made_token != NULL)) {
        yk_task_token_drop(task);
    }
}

/* In the task's own memory. */
struct yk_deferred {
    struct yk_deferred *older;
    void (*fn)(void *arg);
    void *arg;
};

static void clean_up(struct yoke_task *task)
{
    while (task->deferred != NULL) {
        const struct yk_deferred *const newest = task->deferred;
        task->deferred = newest->older;
        newest->fn(newest->arg);
    }
}

/* What the call left behind goes; the next item of a map uses the same struct. */
int32_t yk_task_conclude(struct yoke_task *task, int code)
{
    const int32_t result = answer(task, code);
    clean_up(task);
    yk_region_clear(&task->region);
    task->told = 0;
    task->place.told = false;
    return result;
}

const void *yoke_task_context(const yoke_task *task)
{
    return task->context;
}

int yoke_task_cancelled(yoke_task *task)
{
    if (task->told != 0) {
        return 1;
    }
    /* SYNC(slot-cancel) acquire: the call that the task is an item of looks at its token next. */
    if ((task->slot != NULL &&
         atomic_load_explicit(&task->slot->cancel, memory_order_acquire) != 0) ||
        yk_cancel_seen(task->place.token)) {
        task->told = YK_TOLD_CANCELLED;
    } else if (task->deadline_ns != 0 && yk_clock_ns() >= task->deadline_ns) {
        task->told = YK_TOLD_TIMEDOUT;
    }
    return task->told != 0;
}

/* Whose wait the pool can make up for: its own threads'. */
static struct yoke_worker *own_worker(const yoke_task *task)
{
    struct yoke_worker *const worker = task->worker;
    const bool thread = worker != NULL && worker->line != NULL && !worker->ctl->processes;
    /* In a child that was forked in the task, it is nobody's. */
    return thread && worker->ctl->generation == yk_process_generation() ? worker : NULL;
}

void yoke_blocking_begin(yoke_task *task)
{
    struct yoke_worker *const worker = own_worker(task);
    if (worker != NULL && worker->blocks++ == 0) {
        yk_worker_block(worker);
    }
}

void yoke_blocking_end(yoke_task *task)
{
    struct yoke_worker *const worker = own_worker(task);
    if (worker != NULL && worker->blocks != 0 && --worker->blocks == 0) {
        yk_worker_unblock(worker);
    }
}

size_t yoke_task_item(const yoke_task *task)
{
    return task->item;
}

unsigned yoke_task_attempt(const yoke_task *task)
{
    return task->attempt;
}

unsigned yoke_task_worker(const yoke_task *task)
{
    return task->worker != NULL ? task->worker->index : 0;
}

void *yoke_task_alloc(yoke_task *task, size_t bytes)
{
    return yk_region_alloc(&task->region, bytes);
}

int yoke_task_defer(yoke_task *task, void (*fn)(void *arg), void *arg)
{
    if (task == NULL || fn == NULL) {
        return -EINVAL;
    }
    struct yk_deferred *const made = yk_region_alloc(&task->region, sizeof *made);
    if (made == NULL) {
        return -ENOMEM;
    }
    *made = (struct yk_deferred){.older = task->deferred, .fn = fn, .arg = arg};
    task->deferred = made;
    return 0;
}

/* Where a stream looks for what its item makes. */
static void **place_of_item(const struct yoke_task *task)
{
    const struct yk_part *const part = task->slot->run.part;
    return &part->results[task->item - part->begin];
}

static void *shared_result(struct yoke_task *task, size_t bytes)
{
    struct yk_slot *const slot = task->slot;
    struct yk_line *const line = task->worker->line;
    const bool item = slot->op == YK_OP_MAP;
    void **const place = item ? place_of_item(task) : &slot->u.record.result;
    if (bytes > SIZE_MAX - sizeof(struct yk_result)) {
        return NULL;
    }
    struct yk_result *const block =
        yk_heap_alloc_noted(sizeof(struct yk_result) + bytes, &line->note);
    if (block == NULL) {
        return NULL;
    }
    memset(block, 0, sizeof *block + bytes);
    block->bytes = bytes;
    block->older = item || (slot->flags & YK_FLAG_RESULT) != 0 ? *place : NULL;
    /* For the compiler, here and below: a kill may come between any two instructions, and who
     * finds the one must find the other. */
    atomic_signal_fence(memory_order_release);
    *place = block;
    atomic_signal_fence(memory_order_release);
    slot->flags |= item ? 0 : YK_FLAG_RESULT;
    /* SYNC(alloc-note) release: the slot names the block before the note forgets it. */
    atomic_store_explicit(&line->note, NULL, memory_order_release);
    return block->data;
}

static void *item_result(struct yoke_task *task, size_t bytes)
{
    void **const place = place_of_item(task);
    struct yk_result *const block =
        bytes <= SIZE_MAX - sizeof *block ? calloc(1, sizeof *block + bytes) : NULL;
    if (block == NULL) {
        return NULL;
    }
    block->bytes = bytes;
    free(*place);
    *place = block;
    return block->data;
}

static void *private_result(struct yoke_task *task, size_t bytes)
{
    struct yk_slot *const slot = task->slot;
    const bool keeps = slot == NULL || task->keeps_result;
    if (!keeps && slot->op == YK_OP_MAP) {
        return item_result(task, bytes);
    }
    void *const block = calloc(1, bytes);
    if (block == NULL) {
        return NULL;
    }
    if (keeps) {
        free(task->result);
        task->result = block;
        task->result_bytes = bytes;
        return block;
    }
    if ((slot->flags & YK_FLAG_RESULT) != 0) {
        free(slot->u.record.result);
    }
    slot->u.record.result = block;
    slot->u.record.result_bytes = bytes;
    slot->flags |= YK_FLAG_RESULT;
    return block;
}

void *yoke_task_result(yoke_task *task, size_t bytes)
{
    if (bytes == 0 || !task->wants_result) {
        return NULL;
    }
    const bool shared = task->slot != NULL && !task->keeps_result && task->worker->ctl->processes;
    return shared ? shared_result(task, bytes) : private_result(task, bytes);
}
