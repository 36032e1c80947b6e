/* SPDX-License-Identifier: MIT
 * post.c - handing in tasks that nobody waits for.
 *
 * Idea: who posts takes a ticket, fills a cell, and looks at one word to see whether somebody is
 * to be woken. He takes no lock and makes no system call while a worker is awake. The ticket is
 * taken by a locked operation, which is all the fence that the look needs (post_run.c has the
 * argument).   Room: pool.
 */
#include "pool/post.h"

#include <errno.h>
#include <stdlib.h>

#include "pool/governor.h"

#define DATA_BYTES_MAX ((size_t)1 << 30)
#define LOOK_UP_NS 10000000LL /* who waits for room looks for himself that often */
#define NAP_SPINS 32U         /* between two looks for room: each takes a line from who makes it */
#define ROOM_CELLS 256U       /* to wait for: at the heels of who makes room we would hinder him */

/* --- making --------------------------------------------------------------------------------- */

/* Of process pools the word lies where workers could write it. */
static struct yk_posts *of_pool(const struct yoke_pool *pool)
{
    return pool->kind == YOKE_THREADS && pool->ctl != NULL ? yk_posts_of(pool->ctl) : NULL;
}

static size_t hands_bytes(uint32_t count)
{
    return count * sizeof(struct yk_batch);
}

static struct yk_posts *make(struct yoke_pool *pool)
{
    struct yk_posts *const posts = aligned_alloc(YK_CACHE_LINE, sizeof *posts);
    if (posts == NULL) {
        return NULL;
    }
    memset(posts, 0, sizeof *posts);
    posts->pool = pool;
    posts->hand_count = pool->table.line_count;
    posts->grows = pool->config.workers_max > pool->config.workers;
    posts->alone = pool->config.workers_max == 1;
    /* Where a pool grows for tasks that wait, none is to lie behind another one. */
    posts->most = posts->grows ? 1 : YK_BATCH_MOST;
    posts->barriers = !posts->alone && yk_barrier_prepare();
    posts->token = yk_cancel_make(NULL);
    void *hands = NULL;
    if (posts->token == NULL || yk_map_private(hands_bytes(posts->hand_count), &hands) != 0) {
        goto fail_token;
    }
    posts->hands = hands;
    if (yk_ring_init(&posts->ring) != 0) {
        goto fail_hands;
    }
    return posts;
fail_hands:
    yk_unmap(hands, hands_bytes(posts->hand_count));
fail_token:
    yk_cancel_drop(posts->token);
    free(posts);
    return NULL;
}

/* The pool's first post. Workers that sleep do not know of posts: they come and count themselves.
 * One that goes to sleep now sets its bit first and looks for `posts` then. */
static struct yk_posts *begin(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    struct yk_posts *posts = yk_posts_of(pool->ctl);
    if (posts == NULL) {
        posts = make(pool);
        if (posts != NULL) {
            /* The pool may have been closed before. */
            atomic_init(&posts->state, pool->stopping      ? YK_POSTS_STOPPED
                                       : pool->closed != 0 ? YK_POSTS_INSIDE
                                                           : YK_POSTS_OPEN);
            /* SYNC(posts) seq_cst: before we look who sleeps. */
            atomic_store_explicit(&pool->ctl->posts, posts, memory_order_seq_cst);
            yk_table_wake_all(&pool->table);
        }
    }
    yk_biased_unlock(&pool->lock);
    return posts;
}

void yk_posts_free(struct yoke_pool *pool)
{
    struct yk_posts *const posts = of_pool(pool);
    if (posts != NULL) {
        (void)yk_spill_drop(posts);
        yk_unmap(posts->hands, hands_bytes(posts->hand_count));
        yk_ring_fini(&posts->ring);
        yk_cancel_drop(posts->token);
        free(posts);
    }
}

/* --- a call --------------------------------------------------------------------------------- */

static void data_set(struct yk_cell *call, size_t at, const void *pointer)
{
    memcpy(call->data + at, &pointer, sizeof pointer);
}

static void *data_get(const struct yk_cell *call, size_t at)
{
    void *pointer = NULL;
    memcpy(&pointer, call->data + at, sizeof pointer);
    return pointer;
}

/* Argument and context in one block. */
static int fill_block(struct yk_cell *call, const void *in, size_t in_bytes,
                      const yoke_options *options)
{
    const size_t in_at = yk_round_up(options->context_bytes, 16);
    unsigned char *const block = malloc(in_at + in_bytes);
    if (block == NULL) {
        return -ENOMEM;
    }
    if (options->context != NULL && options->context_bytes != 0) {
        memcpy(block, options->context, options->context_bytes);
        data_set(call, YK_POST_CONTEXT_AT, block);
    }
    if (in_bytes != 0) {
        memcpy(block + in_at, in, in_bytes);
    }
    data_set(call, 0, block);
    data_set(call, sizeof block, block + in_at);
    call->flags |= YK_POST_BLOCK;
    return 0;
}

/* The whole call but for the turn: 0 or -ENOMEM. Tasks of the pool's own token note none. */
static int fill(struct yk_cell *call, yoke_fn *fn, const void *in, size_t in_bytes,
                const yoke_options *options, const struct yoke_cancel *own)
{
    struct yoke_cancel *const given = yk_cancel_of(options);
    struct yoke_cancel *const token = given != own ? given : NULL;
    call->fn = fn;
    call->flags = 0;
    memset(call->data, 0, sizeof call->data);
    if (options->context != NULL) {
        call->flags |= YK_POST_CONTEXT;
        data_set(call, YK_POST_CONTEXT_AT, options->context);
    }
    if (token != NULL) {
        call->flags |= YK_POST_TOKEN;
        data_set(call, YK_POST_TOKEN_AT, token);
    }
    const size_t most = call->flags == 0 ? YK_CELL_BYTES : YK_POST_INLINE_MAX;
    if (in_bytes > most || options->context_bytes != 0) {
        const int rc = fill_block(call, in, in_bytes, options);
        if (rc != 0) {
            return rc;
        }
    } else if (in_bytes != 0) {
        memcpy(call->data, in, in_bytes);
    }
    yk_cancel_keep(token);
    return 0;
}

/* Nothing but a function and an argument that fits. */
static inline void fill_plain(struct yk_cell *call, yoke_fn *fn, const void *in, size_t in_bytes)
{
    call->fn = fn;
    call->flags = 0;
    if (YK_LIKELY(in_bytes == sizeof(uint64_t))) {
        memcpy(call->data, in, sizeof(uint64_t));
    } else if (in_bytes != 0) {
        memcpy(call->data, in, in_bytes);
    }
}

void yk_post_drop(const struct yk_cell *call)
{
    if ((call->flags & YK_POST_BLOCK) != 0) {
        free(data_get(call, 0));
    }
    if ((call->flags & YK_POST_TOKEN) != 0) {
        yk_cancel_drop(data_get(call, YK_POST_TOKEN_AT));
    }
}

void yk_post_run(struct yoke_task *task, const struct yk_cell *call)
{
    struct yoke_cancel *const token =
        (call->flags & YK_POST_TOKEN) != 0 ? data_get(call, YK_POST_TOKEN_AT) : NULL;
    const bool block = (call->flags & YK_POST_BLOCK) != 0;
    const bool context = (call->flags & YK_POST_CONTEXT) != 0;
    if (!yk_cancel_seen(token)) {
        struct yk_cancel_tie tie = {.other = task->place.token};
        task->context = context ? data_get(call, YK_POST_CONTEXT_AT) : NULL;
        if (token != NULL) {
            task->place.token = token;
            task->place.tie = tie.other != NULL ? &tie : NULL; /* the end of the pool wakes it */
        }
        const void *const in = block ? data_get(call, sizeof(void *)) : call->data;
        (void)yk_task_call(task, call->fn, in, NULL);
        task->place.tie = NULL;
        yk_cancel_call_end(&tie.call);
    }
    yk_post_drop(call);
}

/* --- posting -------------------------------------------------------------------------------- */

void yk_posts_wake(struct yk_posts *posts)
{
    uint64_t seen = yk_posts_idle(posts);
    while (yk_idle_wants_wake(seen)) {
        const uint64_t called = seen - YK_IDLE_DOZES + YK_IDLE_SEEKS + YK_IDLE_CALLED;
        /* SYNC(posts-idle) seq_cst: one wake for all who come while it is under way. */
        if (atomic_compare_exchange_strong_explicit(&posts->idle, &seen, called,
                                                    memory_order_seq_cst, memory_order_seq_cst)) {
            (void)yk_table_wake_one(&posts->pool->table);
            return;
        }
    }
}

void yk_pool_wants_hands(struct yoke_pool *pool)
{
    yk_biased_lock(&pool->lock);
    yk_governor_queued_locked(pool, 1);
    yk_biased_unlock(&pool->lock);
}

/* A call was published; `idle` was read after its ticket was taken. */
static inline void tell(struct yk_posts *posts, uint64_t idle)
{
    if (YK_UNLIKELY(yk_idle_wants_wake(idle))) {
        yk_posts_wake(posts);
    } else if (YK_UNLIKELY(posts->grows && idle == 0)) {
        yk_pool_wants_hands(posts->pool);
    }
}

static int state_of(const struct yk_posts *posts)
{
    /* SYNC(posts-state) acquire: what came before the pool was closed. */
    return atomic_load_explicit(&posts->state, memory_order_acquire);
}

/* Full, and the caller is a task: it does the work itself. In a task of another pool its worker has
 * the number of who helps. */
static void run_here(struct yk_posts *posts, const struct yk_cell *call)
{
    struct yoke_task task = yk_serial_task(NULL, posts->token);
    struct yoke_worker helper = yk_worker_of(&posts->pool->table, NULL);
    if (task.worker == NULL || task.worker->ctl != helper.ctl) {
        task.worker = &helper;
        task.slot = NULL;
    }
    /* SYNC(posts-ended) release: counted before it is counted as ended. */
    atomic_fetch_add_explicit(&posts->here_begun, 1, memory_order_release);
    yk_task_enter(&task);
    yk_post_run(&task, call);
    yk_task_leave(&task);
    /* SYNC(posts-ended) release: what it did is seen by who finds the pool drained. */
    atomic_fetch_add_explicit(&posts->here_ended, 1, memory_order_release);
}

/* Full, and the caller is a task. */
static int run_or_spill(struct yk_posts *posts, const struct yk_cell *call)
{
    if (yk_here_enter()) {
        run_here(posts, call);
        yk_here_leave();
        return 0;
    }
    const int rc = yk_spill_put(posts, call);
    if (rc == 0) {
        tell(posts, yk_posts_idle(posts));
    }
    return rc;
}

bool yk_posts_call_for_backlog(struct yoke_pool *pool)
{
    const struct yk_cell call = {.fn = NULL};
    struct yk_posts *posts = yk_posts_of(pool->ctl);
    posts = posts != NULL ? posts : begin(pool);
    if (posts == NULL || yk_spill_put(posts, &call) == -ENOMEM) {
        return false;
    }
    tell(posts, yk_posts_idle(posts));
    return true;
}

/* 0: there was room; YOKE_ECLOSED, -EINTR, -ECANCELED. */
static int await_room(struct yk_posts *posts, const struct yoke_cancel *token)
{
    for (uint32_t i = 0; i < posts->pool->spins_max; i++) {
        if (i % NAP_SPINS == 0 && yk_ring_has_room(&posts->ring, ROOM_CELLS)) {
            return 0;
        }
        yk_cpu_relax();
    }
    for (;;) {
        /* SYNC(posts-room) acquire: room that was made before it was counted. */
        const uint32_t seen = atomic_load_explicit(&posts->room, memory_order_acquire);
        /* SYNC(posts-room) seq_cst: before we look for room again. */
        atomic_store_explicit(&posts->wants_room, 1, memory_order_seq_cst);
        if (yk_ring_has_room(&posts->ring, 1)) {
            return 0;
        }
        if (state_of(posts) != YK_POSTS_OPEN) {
            return YOKE_ECLOSED;
        }
        if (yk_cancel_seen(token)) {
            return -ECANCELED;
        }
        /* In stretches: who makes room tells us when its batch is over, not at each cell. */
        const int rc = yk_wait(&posts->room, seen, yk_clock_ns() + LOOK_UP_NS, YK_PRIVATE);
        if (rc != 0 && rc != -ETIMEDOUT) {
            return rc;
        }
    }
}

/* With a call that is complete; on failure it is the caller's still. */
static int put(struct yk_posts *posts, const struct yk_cell *call)
{
    for (;;) {
        uint64_t ticket = 0;
        const int state = state_of(posts);
        const bool inside = yk_pool_inside_task(posts->pool);
        /* A pool that lets its tasks finish lets them finish what they start. */
        if (state == YK_POSTS_STOPPED || (state == YK_POSTS_INSIDE && !inside)) {
            return YOKE_ECLOSED;
        }
        struct yk_cell *const cell = yk_ring_reserve(&posts->ring, &ticket);
        if (cell != NULL) {
            const uint64_t idle = yk_posts_idle(posts);
            yk_cell_copy(cell, call);
            yk_ring_publish(cell, ticket);
            tell(posts, idle);
            return 0;
        }
        /* Also in a task of another pool: those of this one may wait for room in that. */
        if (inside || yk_threads_inside_task()) {
            return run_or_spill(posts, call);
        }
        const bool has_token = (call->flags & YK_POST_TOKEN) != 0;
        const int rc = await_room(posts, has_token ? data_get(call, YK_POST_TOKEN_AT) : NULL);
        if (rc != 0) {
            return rc;
        }
    }
}

static int post_to_threads(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                           const yoke_options *options)
{
    struct yk_cell call;
    struct yk_posts *posts = yk_posts_of(pool->ctl);
    posts = posts != NULL ? posts : begin(pool);
    int rc = posts == NULL ? -ENOMEM : fill(&call, fn, in, in_bytes, options, posts->token);
    if (rc == 0) {
        rc = put(posts, &call);
        if (rc != 0) {
            yk_post_drop(&call);
        }
    }
    return rc;
}

static int post_serially(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                         const yoke_options *options)
{
    struct yk_cell call;
    struct yoke_task task = yk_serial_task(NULL, NULL);
    const int rc = fill(&call, fn, in, in_bytes, options, NULL);
    if (rc != 0) {
        return rc;
    }
    yk_task_enter(&task);
    yk_post_run(&task, &call);
    yk_task_leave(&task);
    yk_biased_lock(&pool->lock);
    pool->tasks++;
    yk_biased_unlock(&pool->lock);
    return 0;
}

static int post_any(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
                    const yoke_options *options)
{
    yoke_options settings;
    int rc = yk_pool_check(pool);
    rc = rc == 0 ? yk_options_read(&settings, options) : rc;
    if (rc != 0) {
        return rc;
    }
    if (fn == NULL || (in == NULL && in_bytes != 0) || in_bytes > DATA_BYTES_MAX ||
        settings.context_bytes > DATA_BYTES_MAX) {
        return -EINVAL;
    }
    if (pool->kind == YOKE_THREADS) {
        return post_to_threads(pool, fn, in, in_bytes, &settings);
    }
    if (pool->kind == YOKE_SERIAL) {
        return post_serially(pool, fn, in, in_bytes, &settings);
    }
    yoke_job *job = NULL;
    settings.size = sizeof settings;
    settings.timeout_ns = 0;
    settings.retries = 0;
    rc = yoke_submit(pool, fn, in, in_bytes, 0, &settings, &job);
    yoke_job_release(job);
    return rc;
}

/* What the caller, whose place this is, posts belongs to a token. */
static inline bool belongs(const struct yk_posts *posts, const struct yk_cancel_place *place)
{
    if (YK_LIKELY(place == NULL)) {
        return false;
    }
    const struct yoke_cancel *const token = yk_cancel_of(NULL);
    return token != NULL && token != posts->token;
}

/* True: it was posted. Nothing was checked yet. */
static inline bool post_plain(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes)
{
    /* The place first: in a task of a process worker the pool may not be there to be read. */
    const struct yk_cancel_place *const place = yk_cancel_top;
    if (YK_UNLIKELY((place != NULL && place->flag != NULL) || pool == NULL || fn == NULL ||
                    (in == NULL && in_bytes != 0) || in_bytes > YK_CELL_BYTES ||
                    pool->kind != YOKE_THREADS || !yk_pool_is_ours(pool))) {
        return false;
    }
    struct yk_posts *const posts = yk_posts_of(pool->ctl);
    if (YK_UNLIKELY(posts == NULL || state_of(posts) != YK_POSTS_OPEN || belongs(posts, place))) {
        return false;
    }
    uint64_t ticket = 0;
    struct yk_cell *const cell = yk_ring_reserve(&posts->ring, &ticket);
    if (YK_UNLIKELY(cell == NULL)) {
        return false;
    }
    const uint64_t idle = yk_posts_idle(posts);
    fill_plain(cell, fn, in, in_bytes);
    yk_ring_publish(cell, ticket);
    tell(posts, idle);
    return true;
}

int yoke_post(yoke_pool *pool, yoke_fn *fn, const void *in, size_t in_bytes,
              const yoke_options *options)
{
    if (YK_LIKELY(options == NULL && post_plain(pool, fn, in, in_bytes))) {
        return 0;
    }
    return post_any(pool, fn, in, in_bytes, options);
}

/* --- counting, waiting, ending -------------------------------------------------------------- */

static uint64_t count_of(const _Atomic uint64_t *counter)
{
    /* SYNC(posts-ended) acquire: what the tasks did that it counts. */
    return atomic_load_explicit(counter, memory_order_acquire);
}

struct yk_posts_count yk_posts_count(const struct yoke_pool *pool)
{
    const struct yk_posts *const posts = of_pool(pool);
    if (posts == NULL) {
        return (struct yk_posts_count){0};
    }
    /* What has ended first: what has begun only grows meanwhile. */
    uint64_t ended = count_of(&posts->here_ended);
    /* SYNC(posts-ended) acquire: whoever ran something raised it before. */
    const uint32_t high = atomic_load_explicit(&posts->hand_high, memory_order_acquire);
    for (uint32_t i = 0; i < high; i++) {
        ended += count_of(&posts->hands[i].ended);
    }
    const uint64_t begun = count_of(&posts->here_begun) + yk_ring_tail(&posts->ring);
    return (struct yk_posts_count){.ended = ended, .in_flight = begun - ended};
}

struct yk_posts *yk_posts_drain_begin(struct yoke_pool *pool)
{
    struct yk_posts *const posts = of_pool(pool);
    if (posts != NULL) {
        /* SYNC(posts-drain) seq_cst: before we count what has ended. */
        atomic_fetch_add_explicit(&posts->drainers, 1, memory_order_seq_cst);
    }
    return posts;
}

void yk_posts_drain_end(struct yk_posts *posts)
{
    if (posts != NULL) {
        /* relaxed: a worker that still sees us makes a wake that nobody needs. */
        atomic_fetch_sub_explicit(&posts->drainers, 1, memory_order_relaxed);
    }
}

static void state_set(struct yk_posts *posts, int state)
{
    /* SYNC(posts-state) seq_cst: before we look at batches. */
    atomic_store_explicit(&posts->state, state, memory_order_seq_cst);
    /* SYNC(posts-room) release: who waits for room sees the state. */
    atomic_fetch_add_explicit(&posts->room, 1, memory_order_release);
    yk_futex_wake(&posts->room, INT32_MAX, YK_PRIVATE);
}

void yk_posts_close(struct yoke_pool *pool)
{
    struct yk_posts *const posts = of_pool(pool);
    if (posts != NULL && state_of(posts) == YK_POSTS_OPEN) {
        state_set(posts, YK_POSTS_INSIDE);
    }
}

static void drop_some(struct yk_posts *posts, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct yk_cell call;
        yk_post_take(&call, yk_ring_cell(&posts->ring, first + i), first + i);
        yk_post_drop(&call);
    }
    /* SYNC(posts-ended) release: as if they had run. */
    atomic_fetch_add_explicit(&posts->here_ended, count, memory_order_release);
}

void yk_posts_stop(struct yoke_pool *pool)
{
    struct yk_posts *const posts = of_pool(pool);
    if (posts == NULL) {
        return;
    }
    state_set(posts, YK_POSTS_STOPPED);
    uint64_t first = 0;
    uint32_t count = yk_spill_drop(posts);
    /* SYNC(posts-ended) release: as if they had run. */
    atomic_fetch_add_explicit(&posts->here_ended, count, memory_order_release);
    while ((count = yk_ring_claim(&posts->ring, YK_RING_CELLS, &first)) != 0) {
        drop_some(posts, first, count);
    }
    for (uint32_t i = 0; i < posts->hand_count; i++) {
        if (!posts->alone) {
            yk_mutex_lock(&posts->lock);
            count = yk_batch_rob_locked(posts, &posts->hands[i], &first);
            yk_mutex_unlock(&posts->lock);
            drop_some(posts, first, count);
        }
        /* relaxed: a request, seen sooner or later. */
        atomic_store_explicit(&posts->hands[i].slot.cancel, 1, memory_order_relaxed);
    }
    yk_cancel_tell(posts->token);
    yk_cancel_flush();
}

int yoke_pool_drain(yoke_pool *pool, int64_t until_ns)
{
    int rc = yk_pool_check(pool);
    if (rc != 0 || pool->kind == YOKE_SERIAL) {
        return rc;
    }
    if (yk_pool_inside_task(pool)) {
        return -EDEADLK;
    }
    struct yk_posts *const posts = yk_posts_drain_begin(pool);
    while (rc == 0) {
        const uint32_t event = yk_pool_event(pool);
        yk_biased_lock(&pool->lock);
        const bool over = yk_pool_drained_locked(pool);
        yk_biased_unlock(&pool->lock);
        if (over) {
            break;
        }
        rc = yk_clock_ns() >= until_ns ? -ETIMEDOUT : yk_pool_await(pool, event, until_ns);
    }
    yk_posts_drain_end(posts);
    return rc;
}
