/* SPDX-License-Identifier: MIT
 * post_run.c - the worker's side of posted tasks.   Room: pool.
 *
 * Argument, of wakes. `idle` counts who seeks and who dozes; a post makes a wake if somebody dozes
 * and nobody seeks. Dekker's pattern, all seq_cst: who posts moves tail, then reads `idle`; a worker
 * changes `idle` (from seeking to dozing, or from seeking to at work), then reads tail. One of the
 * two sees the other: a worker that dozes saw nothing, one that goes to work wakes the next for what
 * it leaves. Who wakes counts the worker as seeking at once, so one wake is enough for all posts
 * until it is up: CALLED says that such a count waits for its worker, whichever it is (all that
 * doze have their sleepers bit set, or were woken).
 *
 * Of batches. A worker claims as many tasks at once as it runs in a moment. If one of them takes
 * long, those behind it would wait though others have time. So while batches are shown, one idle
 * worker, the watcher, sleeps in short stretches, and takes the rest of a batch that lasts as long. This
 * is Dekker again: the worker moves `next`, then reads `limit`; the watcher moves `limit` back, then
 * reads `next`. The worker pays nothing: the watcher has a barrier run on its CPU in between
 * (biased.c has that argument); where there are none both do seq_cst operations. Who sees that both
 * were at the same task: the worker waits for the lock, under which the watcher gives it back.
 * Who is alone has no watcher and pays for neither: nobody may take from him, also not at the end.
 *
 * A batch is shown (limit, seq_cst) before `idle` is read, and a worker that comes to doze counts
 * itself before it looks at batches: either it stays to watch, or it is woken to.
 */
#include "pool/post.h"

#define WATCH_NS 100000LL /* how long tasks may lie behind one that takes long */
#define LONG_NS 20000LL   /* a batch that took so long was too large, */
#define SHORT_NS 3000LL   /* and one that took less, too small */
#define RUN_MOST 256U     /* tasks, then the worker looks at other things */
#define STREAM_LEAST 8U   /* tasks came one after the other: more will soon */
#define NAPS 6U           /* so many looks then, */
#define NAP_SPINS 24U     /* so far apart: each takes the line away from who posts */

/* --- taking from a batch -------------------------------------------------------------------- */

static uint64_t load_limit(const struct yk_batch *hand)
{
    /* SYNC(posts-batch) seq_cst: after next was moved, or we were counted in `idle`. */
    return atomic_load_explicit(&hand->limit, memory_order_seq_cst);
}

static uint64_t load_next(const struct yk_batch *hand)
{
    /* SYNC(posts-batch) seq_cst: after limit. */
    return atomic_load_explicit(&hand->next, memory_order_seq_cst);
}

static bool swap_limit(struct yk_batch *hand, uint64_t from, uint64_t to)
{
    /* SYNC(posts-batch) seq_cst: before we read next. Tickets are used once: it fails if this is
     * another batch by now. */
    return atomic_compare_exchange_strong_explicit(&hand->limit, &from, to, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

uint32_t yk_batch_rob_locked(struct yk_posts *posts, struct yk_batch *hand, uint64_t *first)
{
    const uint64_t limit = load_limit(hand);
    const uint64_t next = load_next(hand);
    if ((int64_t)(limit - next) <= 0 || !swap_limit(hand, limit, next)) {
        return 0;
    }
    if (posts->barriers && !yk_barrier_everywhere()) {
        (void)swap_limit(hand, next, limit); /* nothing was taken */
        return 0;
    }
    const uint64_t after = load_next(hand);
    if ((int64_t)(after - next) > 0) {
        /* It went on before it could see us: that far it is its own. */
        (void)swap_limit(hand, next, (int64_t)(limit - after) > 0 ? after : limit);
    }
    *first = after;
    return (int64_t)(limit - after) > 0 ? (uint32_t)(limit - after) : 0;
}

/* Our next one, of the batch that we show. False: it was taken from us, and all behind it. */
static bool step(struct yk_posts *posts, struct yk_batch *hand, uint64_t ticket)
{
    if (posts->barriers || posts->alone) {
        /* relaxed: the barrier after it is the other side's, see above. */
        atomic_store_explicit(&hand->next, ticket + 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst); /* for the compiler: the store comes first */
    } else {
        /* SYNC(posts-batch) seq_cst: before we read limit. */
        atomic_store_explicit(&hand->next, ticket + 1, memory_order_seq_cst);
    }
    if (YK_LIKELY((int64_t)(load_limit(hand) - ticket) > 0)) {
        return true;
    }
    yk_mutex_lock(&posts->lock);
    const bool ours = (int64_t)(load_limit(hand) - ticket) > 0;
    yk_mutex_unlock(&posts->lock);
    return ours;
}

/* Somebody's batch holds tasks that were not begun. */
static bool batches_shown(const struct yk_posts *posts)
{
    if (posts->most == 1 || posts->alone) {
        return false;
    }
    /* SYNC(posts-ended) acquire: whoever shows a batch raised it before. */
    const uint32_t high = atomic_load_explicit(&posts->hand_high, memory_order_acquire);
    for (uint32_t i = 0; i < high; i++) {
        const struct yk_batch *const hand = &posts->hands[i];
        if ((int64_t)(load_limit(hand) - load_next(hand)) > 0) {
            return true;
        }
    }
    return false;
}

/* A watcher's look: a batch that was there at the one before takes long, and its rest is ours. */
static uint32_t rob_somebody(struct yk_posts *posts, struct yk_batch *own, uint64_t *first)
{
    /* SYNC(posts-ended) acquire: whoever shows a batch raised it before. */
    const uint32_t high = atomic_load_explicit(&posts->hand_high, memory_order_acquire);
    uint32_t count = 0;
    yk_mutex_lock(&posts->lock);
    for (uint32_t i = 0; i < high && count == 0; i++) {
        struct yk_batch *const hand = &posts->hands[i];
        const uint64_t limit = load_limit(hand);
        if (hand->watched == limit && limit != 0) {
            count = yk_batch_rob_locked(posts, hand, first);
        }
        hand->watched = limit;
    }
    if (count > 1) {
        /* Older tickets than our last batch may have had: nobody is to see half of it. */
        /* SYNC(posts-batch) seq_cst: no batch, then next, then the batch. */
        atomic_store_explicit(&own->limit, 0, memory_order_seq_cst);
        /* SYNC(posts-batch) seq_cst: as above. */
        atomic_store_explicit(&own->next, *first, memory_order_seq_cst);
        /* SYNC(posts-batch) seq_cst: as above. */
        atomic_store_explicit(&own->limit, *first + count, memory_order_seq_cst);
    }
    yk_mutex_unlock(&posts->lock);
    return count;
}

/* --- who is idle ---------------------------------------------------------------------------- */

static struct yk_batch *hand_of(struct yk_posts *posts, const struct yoke_worker *worker)
{
    return &posts->hands[worker->index];
}

/* Tiny tasks come one after the other, and one worker is at it: the lines of the ring would only
 * go to and fro between two. Who finds nothing else to do watches whether it stays so. */
static bool is_streamed(const struct yk_posts *posts, uint32_t index)
{
    /* relaxed: advice; watchers see to what queues if it does not move. */
    const uint32_t streamer = atomic_load_explicit(&posts->streamer, memory_order_relaxed);
    return streamer != 0 && streamer != index + 1;
}

static void streamer_set(struct yk_posts *posts, uint32_t streamer)
{
    /* relaxed: as above. */
    if (atomic_load_explicit(&posts->streamer, memory_order_relaxed) != streamer) {
        /* relaxed: as above. */
        atomic_store_explicit(&posts->streamer, streamer, memory_order_relaxed);
    }
}

bool yk_posts_look(const struct yoke_worker *worker)
{
    const struct yk_posts *const posts = yk_posts_of(worker->ctl);
    return posts != NULL && (yk_posts_spilled(posts) != 0 || (!is_streamed(posts, worker->index) &&
                                                              yk_ring_has_next(&posts->ring)));
}

unsigned yk_posts_queued(const struct yk_ctl *ctl, unsigned most)
{
    const struct yk_posts *const posts = yk_posts_of(ctl);
    return posts != NULL
               ? (unsigned)yk_min(yk_ring_count(&posts->ring) + yk_posts_spilled(posts), most)
               : 0;
}

static uint64_t idle_add(struct yk_posts *posts, uint64_t what)
{
    /* SYNC(posts-idle) seq_cst: before we look at tail and at batches. */
    return atomic_fetch_add_explicit(&posts->idle, what, memory_order_seq_cst) + what;
}

void yk_posts_seek(struct yoke_worker *worker)
{
    struct yk_posts *const posts = yk_posts_of(worker->ctl);
    if (posts == NULL || posts->alone || hand_of(posts, worker)->seeks) {
        return;
    }
    hand_of(posts, worker)->seeks = true;
    (void)idle_add(posts, YK_IDLE_SEEKS);
}

/* We are not there any more for what is left. */
static void pass_on(struct yk_posts *posts)
{
    if (yk_posts_is_empty(posts) && !batches_shown(posts)) {
        return;
    }
    const uint64_t idle = yk_posts_idle(posts);
    if (yk_idle_wants_wake(idle)) {
        yk_posts_wake(posts);
    } else if (posts->grows && idle == 0) {
        yk_pool_wants_hands(posts->pool);
    }
}

static void leave(struct yk_posts *posts, struct yk_batch *hand)
{
    if (hand->seeks) {
        hand->seeks = false;
        (void)idle_add(posts, -YK_IDLE_SEEKS);
        pass_on(posts);
    }
}

void yk_posts_leave(struct yoke_worker *worker)
{
    struct yk_posts *const posts = yk_posts_of(worker->ctl);
    if (YK_UNLIKELY(posts != NULL && worker->line != NULL)) {
        leave(posts, hand_of(posts, worker));
    }
}

/* There is, or was a moment ago, something that one should keep an eye on; and nobody else does. */
static bool watch_begin(struct yk_posts *posts, struct yk_batch *hand)
{
    const uint64_t head = yk_ring_head(&posts->ring);
    const bool moved = head != hand->seen_head;
    hand->seen_head = head;
    uint32_t none = 0;
    /* SYNC(posts-watcher) seq_cst: one at a time. */
    return !posts->alone && posts->most > 1 && (moved || batches_shown(posts)) &&
           atomic_compare_exchange_strong_explicit(&posts->watcher, &none, 1, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

/* A ticket was given out. Who has it writes just now; or he was preempted, and it takes as long as
 * that takes. */
static bool next_comes(const struct yk_posts *posts)
{
    for (uint32_t i = 0; i < NAP_SPINS; i++) {
        if (yk_ring_has_next(&posts->ring)) {
            return true;
        }
        yk_cpu_relax();
    }
    return false;
}

int64_t yk_posts_doze(struct yoke_worker *worker)
{
    struct yk_posts *const posts = yk_posts_of(worker->ctl);
    if (posts == NULL) {
        return YOKE_FOREVER; /* who makes it wakes us */
    }
    struct yk_batch *const hand = hand_of(posts, worker);
    if (watch_begin(posts, hand)) {
        hand->watches = true;
        return yk_clock_ns() + WATCH_NS;
    }
    (void)idle_add(posts, YK_IDLE_DOZES - (hand->seeks ? YK_IDLE_SEEKS : 0));
    hand->seeks = false;
    hand->dozes = true;
    /* SYNC(posts-watcher) seq_cst: whoever watches looks at all this after it, before it dozes. */
    const bool watched = atomic_load_explicit(&posts->watcher, memory_order_seq_cst) != 0;
    if (yk_posts_spilled(posts) != 0) {
        return 0;
    }
    if (!yk_ring_is_empty(&posts->ring) && !(watched && is_streamed(posts, worker->index))) {
        hand->insists = true;
        return next_comes(posts) ? 0 : yk_clock_ns() + WATCH_NS;
    }
    return !watched && batches_shown(posts) ? 0 : YOKE_FOREVER;
}

/* Called or not, we seek now; if somebody was called, that is us. */
static void wake_up(struct yk_posts *posts)
{
    uint64_t seen = yk_posts_idle(posts);
    uint64_t next = 0;
    do {
        next =
            seen >= YK_IDLE_CALLED ? seen - YK_IDLE_CALLED : seen - YK_IDLE_DOZES + YK_IDLE_SEEKS;
        /* SYNC(posts-idle) seq_cst: before we look at tail. */
    } while (!atomic_compare_exchange_weak_explicit(&posts->idle, &seen, next, memory_order_seq_cst,
                                                    memory_order_seq_cst));
}

void yk_posts_wake_up(struct yoke_worker *worker)
{
    struct yk_posts *const posts = yk_posts_of(worker->ctl);
    if (posts == NULL) {
        return;
    }
    struct yk_batch *const hand = hand_of(posts, worker);
    if (hand->dozes) {
        hand->dozes = false;
        hand->seeks = true;
        wake_up(posts);
    }
    if (hand->watches) {
        hand->watches = false;
        hand->watched_now = true;
        hand->insists = yk_ring_head(&posts->ring) == hand->seen_head;
        /* SYNC(posts-watcher) seq_cst: we look at batches after this, before we doze. */
        atomic_store_explicit(&posts->watcher, 0, memory_order_seq_cst);
    }
}

/* --- running -------------------------------------------------------------------------------- */

static void count_ended(struct yk_batch *hand)
{
    /* relaxed: only we write it. */
    const uint64_t ended = atomic_load_explicit(&hand->ended, memory_order_relaxed) + 1;
    /* SYNC(posts-ended) release: what the task did is seen by who finds the pool drained. */
    atomic_store_explicit(&hand->ended, ended, memory_order_release);
}

static inline void run_call(struct yk_posts *posts, struct yoke_task *task, struct yk_batch *hand,
                            const struct yk_cell *call)
{
    if (YK_LIKELY(call->flags == 0)) {
        (void)yk_task_call(task, call->fn, call->data, NULL);
    } else {
        yk_post_run(task, call);
        task->context = NULL;
        task->place.token = posts->token;
    }
    count_ended(hand);
}

static inline void run_one(struct yk_posts *posts, struct yoke_task *task, struct yk_batch *hand,
                           uint64_t ticket)
{
    struct yk_cell call;
    yk_post_take(&call, yk_ring_cell(&posts->ring, ticket), ticket);
    run_call(posts, task, hand, &call);
}

/* True: nothing begins any more. */
static bool is_stopped(const struct yk_posts *posts)
{
    /* SYNC(posts-state) seq_cst: after our batch was shown. */
    return atomic_load_explicit(&posts->state, memory_order_seq_cst) == YK_POSTS_STOPPED;
}

static void drop_one(struct yk_posts *posts, struct yk_batch *hand, uint64_t ticket)
{
    struct yk_cell call;
    yk_post_take(&call, yk_ring_cell(&posts->ring, ticket), ticket);
    yk_post_drop(&call);
    count_ended(hand);
}

/* The batch that we show, or a single one. */
static void run_batch(struct yk_posts *posts, struct yoke_task *task, struct yk_batch *hand,
                      uint64_t first, uint32_t count)
{
    for (uint64_t ticket = first; ticket != first + count; ticket++) {
        if (count > 1 && !step(posts, hand, ticket)) {
            return;
        }
        if (YK_UNLIKELY(is_stopped(posts))) { /* each time: from who is alone nobody takes any */
            drop_one(posts, hand, ticket);
        } else {
            run_one(posts, task, hand, ticket);
        }
    }
}

/* Others may have to look after what lies behind our first one. */
static void show(struct yk_posts *posts, struct yk_batch *hand, uint64_t first, uint32_t count)
{
    /* SYNC(posts-batch) release: before limit; until then it is above the old one. */
    atomic_store_explicit(&hand->next, first, memory_order_release);
    /* SYNC(posts-batch) seq_cst: before we look who dozes, and whether the pool stops. */
    atomic_store_explicit(&hand->limit, first + count, memory_order_seq_cst);
    if (YK_UNLIKELY(yk_idle_wants_wake(yk_posts_idle(posts)))) {
        yk_posts_wake(posts);
    }
}

static uint32_t claim(struct yk_posts *posts, struct yk_batch *hand, uint64_t *first)
{
    const uint32_t count = yk_ring_claim(&posts->ring, hand->most, first);
    if (count > 1) {
        show(posts, hand, *first, count);
    }
    return count;
}

/* Tasks came in a stream: give who posts the time for some more. */
static uint32_t claim_soon(struct yk_posts *posts, struct yk_batch *hand, uint64_t *first)
{
    for (uint32_t i = 0; i < NAPS * NAP_SPINS; i++) {
        yk_cpu_relax();
        if (i % NAP_SPINS == NAP_SPINS - 1) {
            const uint32_t count = claim(posts, hand, first);
            if (count != 0) {
                return count;
            }
        }
    }
    return 0;
}

/* The batch took that long: the next one is to take a moment. */
static void learn(struct yk_posts *posts, struct yk_batch *hand, uint32_t count, int64_t took_ns)
{
    if (took_ns > LONG_NS) {
        hand->most = posts->alone ? posts->most : 1;
    } else if (count == hand->most && took_ns < SHORT_NS && hand->most < posts->most) {
        hand->most *= 2;
    }
}

/* Whoever waits for room, or for the end of it all. */
static void settle(struct yk_posts *posts, struct yk_batch *hand)
{
    /* relaxed: only we write it. */
    const uint64_t ended = atomic_load_explicit(&hand->ended, memory_order_relaxed);
    /* SYNC(posts-ended) seq_cst: the same again, before we look who waits. */
    atomic_store_explicit(&hand->ended, ended, memory_order_seq_cst);
    /* SYNC(posts-room) seq_cst: after what we freed. */
    if (YK_UNLIKELY(atomic_load_explicit(&posts->wants_room, memory_order_seq_cst) != 0)) {
        /* relaxed: who comes now looks for room after it. */
        atomic_store_explicit(&posts->wants_room, 0, memory_order_relaxed);
        /* SYNC(posts-room) release: room was made before it is counted. */
        atomic_fetch_add_explicit(&posts->room, 2, memory_order_release);
        yk_futex_wake(&posts->room, INT32_MAX, YK_PRIVATE);
    }
    /* SYNC(posts-drain) seq_cst: after what has ended. */
    if (YK_UNLIKELY(atomic_load_explicit(&posts->drainers, memory_order_seq_cst) != 0) &&
        yk_posts_is_empty(posts)) {
        yk_table_announce(&posts->pool->table);
    }
}

/* It forgot to say that it waits no more. */
static void forgive(struct yoke_worker *worker)
{
    if (YK_UNLIKELY(worker->blocks != 0)) {
        worker->blocks = 0;
        yk_worker_unblock(worker);
    }
}

static void hand_begin(struct yk_posts *posts, struct yk_batch *hand, uint32_t index)
{
    hand->most = posts->alone ? posts->most : 1;
    hand->slot.op = YK_OP_CALL;
    hand->slot.flags = YK_FLAG_INLINE;
    /* relaxed: a guess, which the exchange checks. */
    uint32_t high = atomic_load_explicit(&posts->hand_high, memory_order_relaxed);
    /* SYNC(posts-ended) release: before the hand counts or shows anything. */
    while (high <= index &&
           !atomic_compare_exchange_weak_explicit(&posts->hand_high, &high, index + 1,
                                                  memory_order_release, memory_order_relaxed)) {
    }
}

static void run_stream(struct yk_posts *posts, struct yoke_worker *worker, struct yk_batch *hand,
                       uint64_t first, uint32_t count)
{
    struct yoke_task task = {
        .worker = worker, .slot = &hand->slot, .place = {.token = posts->token}};
    uint32_t ran = 0;
    yk_task_enter(&task);
    int64_t then = yk_clock_ns();
    while (count != 0) {
        run_batch(posts, &task, hand, first, count);
        forgive(worker);
        ran += count;
        const int64_t now = yk_clock_ns();
        learn(posts, hand, count, now - then);
        if (hand->most == posts->most && !posts->alone && count > 1) {
            streamer_set(posts, worker->index + 1);
        }
        if (ran >= RUN_MOST || now - then > LONG_NS) {
            break;
        }
        then = now;
        count = claim(posts, hand, &first);
        if (count == 0 && ran >= STREAM_LEAST) {
            count = claim_soon(posts, hand, &first);
            then = yk_clock_ns();
        }
    }
    yk_task_leave(&task);
    if ((count == 0 || hand->most != posts->most) && !is_streamed(posts, worker->index)) {
        streamer_set(posts, 0);
    }
}

static void run_spilled_one(struct yk_posts *posts, struct yoke_worker *worker,
                            struct yk_batch *hand, const struct yk_cell *call)
{
    struct yoke_task task = {
        .worker = worker, .slot = &hand->slot, .place = {.token = posts->token}};
    if (call->fn == NULL) {
        yk_pool_help_backlog(posts->pool, worker->index);
    } else if (is_stopped(posts)) {
        yk_post_drop(call);
        count_ended(hand);
    } else {
        yk_task_enter(&task);
        run_call(posts, &task, hand, call);
        yk_task_leave(&task);
        forgive(worker);
    }
}

/* As many as there were, then it is the ring's turn: each round takes all of them one step further,
 * and few new ones begin while there are many. False: it is the ring's turn. */
static bool run_spilled(struct yk_posts *posts, struct yoke_worker *worker, struct yk_batch *hand)
{
    struct yk_cell call;
    if (hand->before_ring == 0) {
        hand->before_ring = yk_posts_spilled(posts);
    }
    leave(posts, hand);
    for (uint32_t i = 0; i < RUN_MOST && hand->before_ring != 0; i++) {
        hand->before_ring--;
        if (!yk_spill_take(posts, &call)) {
            hand->before_ring = 0;
            break;
        }
        run_spilled_one(posts, worker, hand, &call);
    }
    settle(posts, hand);
    return hand->before_ring != 0;
}

/* From the ring, or from somebody's batch. */
static bool run_queued(struct yk_posts *posts, struct yoke_worker *worker, struct yk_batch *hand)
{
    uint64_t first = 0;
    if (YK_UNLIKELY(is_streamed(posts, worker->index)) && !hand->insists && !hand->watched_now) {
        return false;
    }
    if (hand->insists) {
        hand->insists = false;
        streamer_set(posts, 0);
    }
    uint32_t count = is_streamed(posts, worker->index) ? 0 : claim(posts, hand, &first);
    if (count == 0 && hand->watched_now) {
        count = rob_somebody(posts, hand, &first);
    }
    hand->watched_now = false;
    if (count == 0) {
        return false;
    }
    if (YK_UNLIKELY(worker->owes_wake)) {
        yk_worker_pass_on(worker);
    }
    leave(posts, hand);
    run_stream(posts, worker, hand, first, count);
    settle(posts, hand);
    return true;
}

bool yk_posts_run(struct yoke_worker *worker)
{
    struct yk_posts *const posts = yk_posts_of(worker->ctl);
    if (YK_LIKELY(posts == NULL)) {
        return false;
    }
    struct yk_batch *const hand = hand_of(posts, worker);
    if (YK_UNLIKELY(hand->most == 0)) {
        hand_begin(posts, hand, worker->index);
    }
    if (YK_LIKELY(yk_posts_spilled(posts) == 0)) {
        hand->before_ring = 0;
        return run_queued(posts, worker, hand);
    }
    if (YK_UNLIKELY(worker->owes_wake)) {
        yk_worker_pass_on(worker);
    }
    if (!run_spilled(posts, worker, hand)) {
        (void)run_queued(posts, worker, hand);
    }
    return true;
}
