/* SPDX-License-Identifier: MIT
 * fork.c - spawn and sync, where they are more than a few instructions.
 *
 * A sync whose frame was taken waits for it, and helps meanwhile: it follows the taker and is given
 * frames of the taker's deque, all of which descend from the one it waits for, since frames leave
 * a deque oldest first (leapfrogging: Wagner and Calder, PPoPP 1993).   Room: pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/deque.h"
#include "pool/pool_private.h"

#define ALONE_NS 20000LL  /* before we take what nobody gives: a barrier costs some microseconds */
#define SPINS_NS 100000LL /* before we sleep */
#define FEW_LOOKS 8
#define LOOKS_PER_CLOCK 32 /* reading the clock costs as much as some looks */

/* --- too many spawns ------------------------------------------------------------------------ */

/* Below all slots: where top stands while no slot is left and each spawn runs at once. */
static yoke_frame **overflow_slot(const struct yk_deque *deque)
{
    return deque->slots - 2;
}

/* Where top stood is kept in the frame, for its pop. */
static yoke_frame **run_now(struct yk_deque *deque, yoke_frame **top, yoke_frame *frame)
{
    yoke_frame **const within = overflow_slot(deque) + 1;
    top[-1] = NULL;
    frame->taker = top - 1;
    yk_deque_limit_set(deque, NULL);
    frame->run((yoke_strand){&deque->ends, within}, frame);
    return within;
}

/* --- stretches ------------------------------------------------------------------------------ */

void yk_stretch_open(struct yk_stretch *stretch, struct yk_deque *deque, yoke_frame **base,
                     const yoke_frame *frame, yoke_cancel *cancel)
{
    *stretch = (struct yk_stretch){
        .outer = deque->stretch,
        .deque = deque,
        .base = base,
        .frame = frame,
        .cancel = cancel,
    };
    yk_mutex_lock(&deque->lock);
    deque->stretch = stretch;
    yk_mutex_unlock(&deque->lock);
}

void yk_stretch_close(struct yk_stretch *stretch)
{
    struct yk_deque *const deque = stretch->deque;
    yk_mutex_lock(&deque->lock);
    deque->stretch = stretch->outer;
    yk_mutex_unlock(&deque->lock);
}

/* The one that the frame in this slot was spawned in. */
static struct yk_stretch *stretch_of(const struct yk_deque *deque, yoke_frame **slot)
{
    struct yk_stretch *stretch = deque->stretch;
    while (stretch->outer != NULL && slot < stretch->base) {
        stretch = stretch->outer;
    }
    return stretch;
}

yoke_frame **yk_deque_top(struct yk_deque *deque)
{
    yk_mutex_lock(&deque->lock);
    yoke_frame **top = deque->ends.split;
    yk_mutex_unlock(&deque->lock);
    while (*top != NULL) {
        top++;
    }
    return top;
}

/* --- giving and taking ---------------------------------------------------------------------- */

static void hand_over(yoke_frame *frame, struct yk_stretch *stretch, struct yk_deque *taker,
                      unsigned state)
{
    frame->scope = stretch;
    frame->taker = taker;
    frame->state = state;
}

static void split_set(struct yk_deque *deque, yoke_frame **split)
{
    /* SYNC(split) release: for the owner, whose pop reads it without the lock. */
    __atomic_store_n(&deque->ends.split, split, __ATOMIC_RELEASE);
}

bool yk_deque_give_locked(struct yk_deque *deque, yoke_frame **top, struct yk_deque *taker,
                          unsigned state)
{
    yoke_frame **const slot = deque->ends.split;
    if (slot >= top) {
        return false;
    }
    yoke_frame *const frame = *slot;
    hand_over(frame, stretch_of(deque, slot), taker, state);
    yoke_frame *open = state == YK_FRAME_PLACED ? YK_MAIL_HUNGRY : YK_MAIL_FOLLOWS;
    /* SYNC(mail) seq_cst: publishes the frame; before we look whether the taker sleeps. */
    if (!atomic_compare_exchange_strong_explicit(&taker->mail, &open, frame, memory_order_seq_cst,
                                                 memory_order_relaxed)) {
        return false;
    }
    split_set(deque, slot + 1);
    return true;
}

/* The owner says nothing. Split goes up first; after a barrier on its CPU either it sees that at its
 * pop, or we see that the slot is empty. */
static yoke_frame *take_locked(struct yk_deque *victim, struct yk_deque *taker, unsigned state)
{
    yoke_frame **const slot = victim->ends.split;
    /* relaxed: only worth a try. What lies behind the last slot is being run. */
    if (slot == yk_deque_end(victim) || __atomic_load_n(slot, __ATOMIC_RELAXED) == NULL) {
        return NULL;
    }
    split_set(victim, slot + 1);
    yoke_frame *frame = NULL;
    if (yk_barrier_everywhere()) {
        /* SYNC(slot) acquire: sees the frame as it was pushed. */
        frame = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    }
    if (frame == NULL) {
        split_set(victim, slot);
        return NULL;
    }
    hand_over(frame, stretch_of(victim, slot), taker, state);
    return frame;
}

bool yk_deque_runs_locked(const struct yk_deque *deque, const yoke_frame *frame)
{
    const struct yk_stretch *stretch = deque->stretch;
    while (stretch != NULL && stretch->frame != frame) {
        stretch = stretch->outer;
    }
    return stretch != NULL;
}

yoke_frame *yk_deque_take(struct yk_deque *victim, struct yk_deque *taker, const yoke_frame *below)
{
    yk_mutex_lock(&victim->lock);
    const bool may = below != NULL ? yk_deque_runs_locked(victim, below) : victim->stretch != NULL;
    const unsigned state = below != NULL ? YK_FRAME_FOLLOWED : YK_FRAME_PLACED;
    yoke_frame *const frame = may ? take_locked(victim, taker, state) : NULL;
    yk_mutex_unlock(&victim->lock);
    return frame;
}

yoke_frame **yoke_fork_called(yoke_deque *ends, yoke_frame **top, yoke_frame *frame)
{
    struct yk_deque *const deque = yk_deque_of(ends);
    if (top > yk_deque_end(deque) || top <= deque->slots) {
        return run_now(deque, top, frame);
    }
    /* SYNC(limit) seq_cst: sees who called until now; who calls later makes us come here again. */
    (void)__atomic_exchange_n(&deque->ends.limit, yk_deque_end(deque), __ATOMIC_SEQ_CST);
    if (deque->team != NULL) {
        yk_mutex_lock(&deque->lock);
        yk_team_give_locked(deque, top);
        yk_mutex_unlock(&deque->lock);
    }
    return top;
}

void yk_frame_run(struct yk_deque *deque, yoke_frame **top, yoke_frame *frame)
{
    const struct yk_stretch *const origin = frame->scope;
    struct yk_stretch here;
    struct yoke_task task = {.worker = deque->worker};
    struct yk_cancel_place place = {.token = origin->cancel};
    yk_stretch_open(&here, deque, top, frame, origin->cancel);
    yk_task_enter(&task);
    yk_cancel_enter(&place);
    frame->run((yoke_strand){&deque->ends, top}, frame);
    yk_cancel_leave(&place);
    yk_task_leave(&task);
    yk_stretch_close(&here);
}

void yk_frame_done(yoke_frame *frame)
{
    struct yk_deque *const owner = ((const struct yk_stretch *)frame->scope)->deque;
    /* SYNC(frame) seq_cst: publishes what it did, and the frame may be gone from here on; before
     * we look whether its owner sleeps. */
    (void)__atomic_exchange_n(&frame->state, YK_FRAME_DONE, __ATOMIC_SEQ_CST);
    yk_deque_wake(owner);
}

/* --- waiting for a frame that was taken ----------------------------------------------------- */

static bool is_done(const yoke_frame *frame)
{
    /* SYNC(frame) seq_cst: sees what it did; after asleep was set. */
    return __atomic_load_n(&frame->state, __ATOMIC_SEQ_CST) == YK_FRAME_DONE;
}

static yoke_frame *mail_of(const struct yk_deque *deque)
{
    /* SYNC(mail) seq_cst: sees the frame; after asleep was set. */
    return atomic_load_explicit(&deque->mail, memory_order_seq_cst);
}

static void mail_set(struct yk_deque *deque, yoke_frame *mail)
{
    /* SYNC(mail) seq_cst: open: what was told before is over; before anybody is called. */
    atomic_store_explicit(&deque->mail, mail, memory_order_seq_cst);
}

/* Be the one that the taker gives frames to, and have it look. */
static void follow(struct yk_deque *taker, struct yk_deque *deque)
{
    struct yk_deque *nobody = NULL;
    /* SYNC(follower) release: it sees what we wait for. */
    if (atomic_compare_exchange_strong_explicit(&taker->follower, &nobody, deque,
                                                memory_order_release, memory_order_relaxed) ||
        nobody == deque) {
        yk_deque_limit_set(taker, NULL);
    }
}

static void unfollow(struct yk_deque *taker, struct yk_deque *deque)
{
    struct yk_deque *we = deque;
    /* relaxed: whoever reads it looks at what we wait for. */
    atomic_compare_exchange_strong_explicit(&taker->follower, &we, NULL, memory_order_relaxed,
                                            memory_order_relaxed);
}

static void sleep_until_told(struct yk_deque *deque, struct yk_deque *taker,
                             const yoke_frame *frame)
{
    /* SYNC(asleep) seq_cst: before our last look, after which they wake us. */
    atomic_store_explicit(&deque->asleep, YK_SLEEPS_HERE, memory_order_seq_cst);
    follow(taker, deque); /* once more: it may have used up our call while the mailbox was shut */
    if (!is_done(frame) && mail_of(deque) == YK_MAIL_FOLLOWS) {
        (void)yk_futex_wait(&deque->asleep, YK_SLEEPS_HERE, YOKE_FOREVER, YK_PRIVATE);
    }
    /* relaxed: to be woken once more does no harm. */
    atomic_store_explicit(&deque->asleep, 0, memory_order_relaxed);
}

/* The taker gives us nothing, in a long call perhaps. Our mailbox is shut meanwhile: a second frame
 * would have to wait here. */
static yoke_frame *take_from(struct yk_deque *deque, struct yk_deque *taker,
                             const yoke_frame *frame)
{
    yoke_frame *open = YK_MAIL_FOLLOWS;
    if (!deque->team->barriers || !yk_deque_shows(taker)) {
        return NULL;
    }
    /* SYNC(mail) acquire: a frame that was given instead. */
    if (!atomic_compare_exchange_strong_explicit(&deque->mail, &open, YK_MAIL_SHUT,
                                                 memory_order_acquire, memory_order_acquire)) {
        return NULL;
    }
    yoke_frame *const taken = yk_deque_take(taker, deque, frame);
    if (taken == NULL) {
        mail_set(deque, YK_MAIL_FOLLOWS);
    }
    return taken;
}

/* A frame to help with, or NULL: it is done. */
static yoke_frame *await_or_help(struct yk_deque *deque, struct yk_deque *taker,
                                 const yoke_frame *frame)
{
    const int64_t begin = yk_clock_ns();
    for (unsigned i = 1;; i++) {
        if (mail_of(deque) != YK_MAIL_FOLLOWS) {
            /* SYNC(mail) acquire: sees the frame, unless it was taken back just now. */
            yoke_frame *const mail =
                atomic_exchange_explicit(&deque->mail, YK_MAIL_SHUT, memory_order_acquire);
            if (yk_mail_is_frame(mail)) {
                return mail;
            }
            mail_set(deque, YK_MAIL_FOLLOWS);
            follow(taker, deque);
        }
        if (is_done(frame)) {
            return NULL;
        }
        yk_cpu_relax();
        if (i == FEW_LOOKS) {
            follow(taker, deque); /* it is not about to end */
        }
        if (i % LOOKS_PER_CLOCK != 0) {
            continue;
        }
        const int64_t waited = yk_clock_ns() - begin;
        yoke_frame *const taken = waited > ALONE_NS ? take_from(deque, taker, frame) : NULL;
        if (taken != NULL) {
            return taken;
        }
        if (waited > SPINS_NS) {
            sleep_until_told(deque, taker, frame);
        }
        follow(taker, deque);
    }
}

static void await(struct yk_deque *deque, yoke_frame **top, yoke_frame *frame)
{
    struct yk_deque *const taker = frame->taker;
    for (;;) {
        /* SYNC(follower) release: with the follower, below. */
        atomic_store_explicit(&deque->awaited, frame, memory_order_release);
        mail_set(deque, YK_MAIL_FOLLOWS);
        yoke_frame *const help = await_or_help(deque, taker, frame);
        mail_set(deque, YK_MAIL_SHUT);
        if (help == NULL) {
            break;
        }
        yk_frame_run(deque, top, help);
        yk_frame_done(help);
    }
    /* relaxed: nothing hangs on it. */
    atomic_store_explicit(&deque->awaited, NULL, memory_order_relaxed);
    unfollow(taker, deque);
}

/* It lies in a mailbox still, of one who is slow to wake up perhaps: then we run it after all. */
static bool take_back(struct yk_deque *deque, yoke_frame *frame)
{
    struct yk_deque *const taker = frame->taker;
    /* relaxed: if it is done, or begun, it is not in the mailbox. */
    const bool placed = __atomic_load_n(&frame->state, __ATOMIC_RELAXED) == YK_FRAME_PLACED;
    yoke_frame *mail = frame;
    /* SYNC(mail) seq_cst: either it or we run the frame. */
    if (!atomic_compare_exchange_strong_explicit(&taker->mail, &mail,
                                                 placed ? YK_MAIL_HUNGRY : YK_MAIL_FOLLOWS,
                                                 memory_order_seq_cst, memory_order_relaxed)) {
        return false;
    }
    if (placed) {
        /* relaxed: advice. */
        atomic_store_explicit(&taker->late, 1, memory_order_relaxed);
        yk_place_free(taker->team);
    }
    yk_team_taken_back(deque, taker, placed);
    return true;
}

char *yoke_fork_taken(yoke_deque *ends, yoke_frame **slot, yoke_frame *frame)
{
    struct yk_deque *const deque = yk_deque_of(ends);
    if (slot == overflow_slot(deque)) {
        return (char *)frame->taker + 1;
    }
    yk_mutex_lock(&deque->lock);
    const bool taken = deque->ends.split > slot;
    yk_mutex_unlock(&deque->lock);
    const bool ours = !taken || take_back(deque, frame);
    if (!ours) {
        await(deque, slot + 1, frame);
    }
    if (taken) {
        yk_mutex_lock(&deque->lock);
        split_set(deque, slot);
        yk_mutex_unlock(&deque->lock);
    }
    return (char *)slot + (ours ? 0 : 1);
}

/* --- plain calls, and children -------------------------------------------------------------- */

void yoke_call_run(yoke_strand strand, yoke_frame *frame)
{
    yoke_call *const call = (yoke_call *)(void *)frame;
    call->fn(strand, call->arg);
}

void yoke_each_run(yoke_strand strand, yoke_frame *frame)
{
    const yoke_each_rest *const rest = (const yoke_each_rest *)(void *)frame;
    yoke_each(strand, rest->next, rest->end, rest->fn, rest->arg);
}

int yoke_strand_cancelled(yoke_strand strand)
{
    const struct yk_deque *const deque = yk_deque_of(strand.deque);
    const bool told = deque->team == NULL && yk_cancel_flagged(); /* in a process worker */
    return told || yk_cancel_seen(deque->stretch->cancel) ? 1 : 0;
}

unsigned yoke_strand_worker(yoke_strand strand)
{
    return yk_deque_of(strand.deque)->worker->index;
}

/* --- where it begins ------------------------------------------------------------------------ */

/* Nobody can take anything from this one. */
static int run_alone(struct yoke_pool *pool, yoke_fork_fn *fn, void *arg, yoke_cancel *cancel)
{
    yoke_frame **const area = calloc(YK_DEQUE_SLOTS + 16, sizeof(void *));
    struct yk_deque *const deque = aligned_alloc(YK_CACHE_LINE, sizeof *deque);
    if (area != NULL && deque != NULL) {
        struct yk_stretch stretch;
        struct yoke_task task = yk_serial_task(NULL, cancel);
        task.slot = NULL;
        if (pool != NULL && pool->team != NULL) {
            task.worker = yk_team_worker(pool->team);
        }
        memset(deque, 0, sizeof *deque);
        deque->slots = area + 8;
        deque->ends.split = deque->slots;
        deque->worker = task.worker != NULL ? task.worker : &deque->guest;
        yk_deque_limit_set(deque, yk_deque_end(deque));
        yk_stretch_open(&stretch, deque, deque->slots, NULL, cancel);
        yk_task_enter(&task);
        fn((yoke_strand){&deque->ends, deque->slots}, arg);
        yk_task_leave(&task);
    }
    const int rc = area != NULL && deque != NULL ? 0 : -ENOMEM;
    free(area);
    free(deque);
    return rc;
}

int yk_fork_run(struct yoke_pool *pool, yoke_fork_fn *fn, void *arg, yoke_cancel *cancel,
                bool spins_only)
{
    yoke_frame **top = NULL;
    struct yk_deque *const deque =
        pool != NULL && pool->team != NULL ? yk_team_enter(pool->team, &top) : NULL;
    if (deque == NULL) {
        return run_alone(pool, fn, arg, cancel);
    }
    struct yk_stretch stretch;
    struct yoke_task task = {.worker = deque->worker};
    struct yk_cancel_place place = {.token = cancel};
    const bool before = deque->spins_only;
    deque->spins_only = spins_only;
    yk_stretch_open(&stretch, deque, top, NULL, cancel);
    yk_task_enter(&task);
    yk_cancel_enter(&place);
    fn((yoke_strand){&deque->ends, top}, arg);
    yk_cancel_leave(&place);
    yk_task_leave(&task);
    yk_stretch_close(&stretch);
    deque->spins_only = before;
    if (spins_only && !before && deque->entered > 1) {
        yk_deque_limit_set(deque, NULL); /* sleepers who called meanwhile were passed over */
    }
    yk_team_leave(deque);
    return 0;
}

int yoke_run(yoke_pool *pool, yoke_fork_fn *fn, void *arg, const yoke_options *options)
{
    yoke_options settings;
    struct yk_cancel_call call;
    int rc = pool == NULL || fn == NULL ? -EINVAL : yk_options_read(&settings, options);
    if (rc == 0 && !yk_worker_role()) {
        rc = yk_pool_check(pool);
        rc = rc == 0 ? yk_pool_closed(pool) : rc;
    }
    rc = rc == 0 ? yk_cancel_call_begin(&call, &settings) : rc;
    if (rc != 0) {
        return rc;
    }
    if (!yk_cancel_seen(call.token)) {
        rc = yk_fork_run(yk_worker_role() ? NULL : pool, fn, arg, call.token, false);
    }
    rc = rc == 0 && (yk_cancel_here() || yk_cancel_seen(call.token)) ? -ECANCELED : rc;
    yk_cancel_call_end(&call);
    return rc;
}
