/* SPDX-License-Identifier: MIT
 * worker.c - a worker: looks for tasks and runs them.   Room: pool.
 *
 * `progress` is written in an order that a death at any instruction can be read from: item k
 * counts as started before its body runs, and as complete only when the next one is started (or
 * all are). Where a task can be doomed for lateness the step is a CAS, so that the kill hits the
 * very item that was late. An owner whose step or completion fails gives the task up, and does
 * nothing more until the program has let it go.
 */
#include "pool/worker.h"

#include <errno.h>

#include "pool/exec.h"

#define DOOMED_NS 1000000000LL
#define GIVEN_NS 10000000000LL /* the program may be busy forking, or stopped */

/* --- running ------------------------------------------------------------------------------- */

/* False: the item that ran until now was doomed. Calls and ranges are doomed by their word. */
static bool step_to(struct yk_slot *slot, uint32_t from, uint32_t to)
{
    if ((slot->flags & YK_FLAG_TIMED) == 0) {
        /* SYNC(progress) release: what the items before did is complete. */
        atomic_store_explicit(&slot->progress, to, memory_order_release);
        return true;
    }
    /* SYNC(progress) release: as above, unless the item was doomed. */
    return atomic_compare_exchange_strong_explicit(&slot->progress, &from, to, memory_order_release,
                                                   memory_order_relaxed);
}

/* Note the start for the watchdog, and set the deadline the task itself can ask for. */
static void start_clock(struct yoke_task *task, _Atomic int64_t *started_ns, int64_t timeout_ns)
{
    if ((task->slot->flags & YK_FLAG_TIMED) == 0) {
        return;
    }
    const int64_t now = yk_clock_ns();
    /* relaxed: progress, written next, publishes it. */
    atomic_store_explicit(started_ns, now, memory_order_relaxed);
    task->deadline_ns = yk_after(now, timeout_ns);
}

static bool run_call(struct yoke_task *task, struct yk_slot *slot)
{
    task->wants_result = true;
    task->attempt = slot->attempt;
    const void *in = slot->u.data;
    void *out = slot->u.data + YK_INLINE_IN_MAX;
    if ((slot->flags & YK_FLAG_INLINE) == 0) {
        struct yk_call *const call = slot->u.record.call;
        in = call->in;
        out = call->out;
        start_clock(task, &call->started_ns, call->timeout_ns);
    }
    yoke_fn *const fn = (yoke_fn *)yk_worker_code_of(task->worker, (uintptr_t)slot->run.fn);
    (void)step_to(slot, 0, 1);
    slot->code = yk_task_call(task, fn, in, out);
    return step_to(slot, 1, 2);
}

static bool run_range(struct yoke_task *task, struct yk_slot *slot)
{
    struct yk_part *const part = slot->run.part;
    task->item = part->begin;
    task->attempt = slot->attempt;
    start_clock(task, &part->started_ns, part->timeout_ns);
    yoke_range_fn *const fn =
        (yoke_range_fn *)yk_worker_code_of(task->worker, (uintptr_t)part->range_fn);
    (void)step_to(slot, 0, 1);
    slot->code =
        yk_task_conclude(task, fn(task, part->begin, part->begin + part->count, part->out));
    part->ran = part->count;
    return step_to(slot, 1, 2);
}

static void note_failure(struct yk_part *part, uint32_t k, int32_t code)
{
    if (part->codes != NULL) {
        part->codes[k] = code;
    }
    /* Killed in here, first_failed is either not below the items that count as complete, or
     * set with its code: item k itself does not count until the next step. */
    if (part->failed++ == 0) {
        part->first_code = code;
        part->first_failed = k;
    }
}

static bool run_items(struct yoke_task *task, struct yk_slot *slot)
{
    struct yk_part *const part = slot->run.part;
    task->wants_result = part->results != NULL;
    const int64_t begin_ns = task->wants_result ? yk_clock_ns() : 0;
    yoke_fn *const fn = (yoke_fn *)yk_worker_code_of(task->worker, (uintptr_t)part->fn);
    const unsigned char *in = part->in;
    unsigned char *out = part->out;
    uint32_t k = 0;
    for (; k < part->count; k++) {
        /* relaxed: a request, seen sooner or later. */
        if (atomic_load_explicit(&slot->cancel, memory_order_relaxed) != 0) {
            break;
        }
        task->item = part->begin + k;
        task->attempt = k == 0 ? slot->attempt : 0;
        start_clock(task, &part->started_ns, part->timeout_ns);
        if (!step_to(slot, k, k + 1)) {
            return false;
        }
        const int32_t code = yk_task_call(task, fn, in, out);
        if (code != 0) {
            note_failure(part, k, code);
        }
        if (YK_UNLIKELY(code != 0 && part->fail_fast)) {
            k++;
            break;
        }
        in = yk_next_item(in, part->in_bytes);
        out = yk_next_room(out, part->out_bytes);
    }
    part->took_ns = task->wants_result ? yk_clock_ns() - begin_ns : 0;
    part->ran = k;
    /* Also after a cancel: the item that ran last may have been doomed meanwhile, and from here on
     * none can be. */
    return step_to(slot, k, part->count + 1);
}

/* --- giving up ----------------------------------------------------------------------------- */

/* Nobody believes us any more, or waits for us: our end makes room for another worker. A SIGKILL
 * may be on its way, and then it is what the program should see. */
YK_NORETURN static void await_end(void)
{
    _Atomic uint32_t never = 0;
    (void)yk_futex_wait(&never, 0, yk_clock_ns() + DOOMED_NS, YK_PRIVATE);
    yk_process_exit(1);
}

static bool swap_word(struct yk_slot *slot, uint64_t from, uint64_t to)
{
    /* SYNC(slot-word) release: we touch nothing of the task after this. */
    return atomic_compare_exchange_strong_explicit(&slot->word, &from, to, memory_order_release,
                                                   memory_order_relaxed);
}

static enum yk_hand load_hand(struct yk_line *line)
{
    /* SYNC(hand) acquire: what was sent for the task was sent before. */
    return (enum yk_hand)atomic_load_explicit(&line->hand, memory_order_acquire);
}

/* The program settles the task that we gave up, and lets us go. The signals it sent for that task
 * are pending by then, since they are blocked here: they end with it. */
static void await_hand(struct yk_line *line)
{
    const int64_t until = yk_clock_ns() + GIVEN_NS;
    while (load_hand(line) == YK_HAND_WAITS) {
        if (yk_futex_wait(&line->hand, YK_HAND_WAITS, until, YK_SHARED) == -ETIMEDOUT) {
            await_end();
        }
    }
    yk_signals_drop();
    uint32_t seen = YK_HAND_GO;
    /* SYNC(hand) acq_rel: from here on a signal would hit the next task, and none comes. */
    if (!atomic_compare_exchange_strong_explicit(&line->hand, &seen, YK_HAND_FREE,
                                                 memory_order_acq_rel, memory_order_relaxed)) {
        await_end();
    }
}

/* Doomed, and yet alive: a handler, or the task itself, made an end in time, or the SIGKILL is on
 * its way. That we gave the task up is a phase of its word and no flag beside it: should we die
 * now, one look at the word still tells all there is to know of the task. That we wait stands in
 * the line, since the slot is the next task's as soon as ours is settled. */
static void give_up(struct yoke_worker *worker, struct yk_slot *slot, uint64_t word)
{
    const uint32_t ticket = yk_word_ticket(word);
    const uint64_t given = yk_word(ticket, worker->claimer.owner, YK_GIVEN);
    struct yk_signal_mask mask;
    if (!worker->ctl->processes) {
        return;
    }
    yk_signals_block(&mask);
    /* relaxed: the word publishes it. */
    atomic_store_explicit(&worker->line->hand, YK_HAND_WAITS, memory_order_relaxed);
    if (!swap_word(slot, yk_word(ticket, worker->claimer.owner, YK_DOOMED), given) &&
        !swap_word(slot, word, given)) {
        await_end(); /* nothing that we or the program would write */
    }
    await_hand(worker->line);
    yk_signals_restore(&mask);
}

void yk_worker_unblock_all(struct yoke_worker *worker)
{
    if (YK_UNLIKELY(worker->blocks != 0)) {
        worker->blocks = 0;
        yk_worker_unblock(worker);
    }
}

void yk_worker_run(struct yoke_worker *worker, struct yk_slot *slot, uint64_t word)
{
    struct yoke_task task = {.context = slot->context, .slot = slot, .worker = worker};
    if (worker->ctl->processes) {
        task.place.flag = &slot->cancel;
    } else {
        task.place.resolve = yk_task_token;
    }
    bool whole = false;
    yk_task_enter(&task);
    switch ((enum yk_op)slot->op) {
    case YK_OP_CALL:
        whole = run_call(&task, slot);
        break;
    case YK_OP_MAP:
        whole = run_items(&task, slot);
        break;
    case YK_OP_RANGE:
    default:
        whole = run_range(&task, slot);
        break;
    }
    yk_task_leave(&task);
    yk_worker_unblock_all(worker);
    if (worker->ctl->processes) {
        yk_stdio_flush(); /* what the task printed is out before its result is in */
    }
    if (!whole || !yk_table_complete(worker->table, slot, word)) {
        give_up(worker, slot, word);
    }
}

/* --- looking for tasks ---------------------------------------------------------------------- */

/* A task if there is one. In a queue the cheap look goes first: while the next task is on its way,
 * reading tail would only make it later. */
static struct yk_slot *take(struct yoke_worker *worker, bool queue, uint64_t *word)
{
    if (queue && !yk_worker_await_batch(worker)) {
        if (!yk_table_has_known(worker->table, &worker->claimer) &&
            !yk_table_looks_ready(worker->table)) {
            return NULL;
        }
        (void)yk_table_look_ahead(worker->table, &worker->claimer);
    }
    return yk_table_claim(worker->table, &worker->claimer, word);
}

/* It ran as many tasks as it may: its end is to count as none. */
static bool retires(struct yoke_worker *worker)
{
    if (worker->ctl->tasks_max == 0 || worker->ran < worker->ctl->tasks_max) {
        return false;
    }
    uint32_t active = YK_LINE_ACTIVE;
    /* SYNC(line-state) release: unless it was told to stop, which it does as well. */
    atomic_compare_exchange_strong_explicit(&worker->line->state, &active, YK_LINE_RETIRED,
                                            memory_order_release, memory_order_relaxed);
    return true;
}

static bool is_surplus(const struct yoke_worker *worker)
{
    /* relaxed: sooner or later. */
    return atomic_load_explicit(&worker->ctl->surplus, memory_order_relaxed) != 0 &&
           !worker->ctl->processes &&
           (!yk_table_looks_empty(worker->table) || yk_posts_queued(worker->ctl, 1) != 0);
}

/* A task of the table, or posts; in turn while there are both. False: there is nothing. */
static bool run_next(struct yoke_worker *worker, bool queue)
{
    if (worker->posts_turn && yk_posts_run(worker)) {
        worker->posts_turn = false;
        return true;
    }
    uint64_t word = 0;
    struct yk_slot *const slot = take(worker, queue, &word);
    worker->posts_turn = slot != NULL;
    if (slot == NULL) {
        return yk_posts_run(worker);
    }
    yk_posts_leave(worker);
    if (YK_UNLIKELY(worker->owes_wake)) {
        yk_worker_pass_on(worker);
    }
    yk_worker_run(worker, slot, word);
    worker->ran++;
    return true;
}

int yoke_worker_next(yoke_worker *worker, int64_t until_ns)
{
    /* One task after the other: look how many there are. After a sleep: take what has come. */
    bool queue = true;
    for (;;) {
        if (yk_line_state_of(worker->line) != YK_LINE_ACTIVE || retires(worker)) {
            yk_posts_leave(worker);
            return YOKE_ECLOSED;
        }
        if (YK_UNLIKELY(is_surplus(worker))) {
            yk_posts_leave(worker);
            const int rest = yk_worker_rest(worker, until_ns);
            if (rest != 0) {
                return rest;
            }
            continue;
        }
        if (run_next(worker, queue)) {
            return 0;
        }
        queue = false;
        const int rc = yk_worker_idle(worker, until_ns);
        if (rc != 0) {
            yk_posts_leave(worker);
            return rc;
        }
    }
}

/* --- living -------------------------------------------------------------------------------- */

/* A spare sleeps here until it is needed, or told to stop. */
static void await_order(struct yk_line *line)
{
    while (yk_line_state_of(line) == YK_LINE_PARKED) {
        (void)yk_futex_wait(&line->state, YK_LINE_PARKED, YOKE_FOREVER, line->ctl->table.scope);
    }
}

/* Ready: a spare parks, one that is needed already goes on. Told to stop meanwhile, it stops. */
static void report(struct yk_line *line, bool refused)
{
    uint32_t seen = YK_LINE_STARTING;
    const uint32_t parked = refused ? YK_LINE_REFUSED : YK_LINE_PARKED;
    /* SYNC(line-state) release: our init is over before we count as ready. */
    if (!atomic_compare_exchange_strong_explicit(&line->state, &seen, parked, memory_order_release,
                                                 memory_order_relaxed) &&
        seen == YK_LINE_STARTING_ACTIVE) {
        const uint32_t active = refused ? YK_LINE_REFUSED : YK_LINE_ACTIVE;
        /* SYNC(line-state) release: as above. */
        atomic_compare_exchange_strong_explicit(&line->state, &seen, active, memory_order_release,
                                                memory_order_relaxed);
    }
    /* Nobody waits for those that come later. */
    if (line->ctl->processes || line->index < line->ctl->keep) {
        yk_table_announce(&line->ctl->table);
    }
}

static void serve(struct yoke_worker *worker)
{
    struct yk_ctl *const ctl = worker->ctl;
    for (;;) {
        const bool extra = ctl->idle_ns != 0 && worker->index >= yk_ctl_target(ctl);
        const int64_t until = extra ? yk_clock_ns() + ctl->idle_ns : YOKE_FOREVER;
        const int rc = yoke_worker_next(worker, until);
        if (rc == YOKE_ECLOSED || (rc == -ETIMEDOUT && yk_table_looks_empty(worker->table))) {
            return;
        }
    }
}

void yk_worker_live(struct yoke_worker *worker)
{
    const struct yk_worker_code *const code = worker->code;
    struct yk_line *const line = worker->line;
    if (code->hooks.worker_start != NULL) {
        code->hooks.worker_start(worker->index, code->user);
    }
    const int refused =
        code->worker_init != NULL ? code->worker_init(worker->index, code->user) : 0;
    report(line, refused != 0);
    await_order(line);
    if (yk_line_state_of(line) == YK_LINE_ACTIVE) {
        if (code->hooks.worker_main != NULL) {
            code->hooks.worker_main(worker, code->user);
        } else {
            serve(worker);
        }
    }
    if (code->worker_exit != NULL && refused == 0) {
        code->worker_exit(worker->index, code->user);
    }
    if (code->hooks.worker_exit != NULL) {
        code->hooks.worker_exit(worker->index, code->user);
    }
}
