/* SPDX-License-Identifier: MIT
 * cancel.c - the tree of cancel tokens.   Room: sync.
 *
 * One lock guards all trees: it is held for a few instructions, and while a token is set for as
 * long as it takes to walk what hangs below. It lies in memory that a fork wipes: in the child the
 * lock is free, and a token made before stands alone, with nothing above or below it.
 *
 * Setting has two steps. Under the tree's lock all tokens below are marked, and their waits woken.
 * Then, without it, each pool that was given work with a token ends what has not begun. A pool
 * looks at the token again under its own lock when it takes work in, so the two cannot miss each
 * other: the later of them sees what the earlier did.
 */
#include "sync/cancel.h"

#include <errno.h>
#include <stdlib.h>

#include "sync/mutex.h"

struct forest {
    yk_mutex sweepers; /* order: sweepers, pool, tree */
    yk_mutex tree;
    struct yk_cancel_hook *hooks; /* under tree; taken out under both */
    _Atomic bool pending;         /* SYNC(cancel-pending): tokens were set, pools not told */
};

_Static_assert(sizeof(struct forest) <= YK_LOCAL_BYTES, "fits the area that forks wipe");

_Thread_local struct yk_cancel_place *yk_cancel_top;
static _Thread_local struct yoke_cancel *thread_token;

static struct forest *forest(void)
{
    return yk_process_local(YK_LOCAL_CANCEL);
}

/* --- the tree ------------------------------------------------------------------------------- */

/* A copy that a fork made stands alone: what it hung with is the other process's. */
static void own_locked(struct yoke_cancel *token)
{
    const uint64_t generation = yk_process_generation();
    if (token->generation != generation) {
        token->generation = generation;
        token->parent = NULL;
        token->children = NULL;
        token->waits = NULL;
    }
}

static void hang_locked(struct yoke_cancel *token, struct yoke_cancel *parent)
{
    own_locked(parent);
    token->parent = parent;
    token->next = parent->children;
    token->at = &parent->children;
    if (token->next != NULL) {
        token->next->at = &token->next;
    }
    parent->children = token;
    /* relaxed: nobody else knows the token yet. */
    atomic_store_explicit(&token->set, yk_cancel_seen(parent), memory_order_relaxed);
}

static void unhang_locked(const struct yoke_cancel *token)
{
    if (token->parent != NULL) {
        *token->at = token->next;
        if (token->next != NULL) {
            token->next->at = token->at;
        }
    }
}

struct yoke_cancel *yk_cancel_make(struct yoke_cancel *parent)
{
    struct yoke_cancel *const token = calloc(1, sizeof *token);
    if (token == NULL) {
        return NULL;
    }
    token->generation = yk_process_generation();
    atomic_init(&token->refs, 1);
    if (parent != NULL) {
        yk_cancel_keep(parent);
        yk_mutex_lock(&forest()->tree);
        hang_locked(token, parent);
        yk_mutex_unlock(&forest()->tree);
    }
    return token;
}

void yk_cancel_keep(struct yoke_cancel *token)
{
    if (token != NULL) {
        /* relaxed: the caller has it, or a child of it, already. */
        atomic_fetch_add_explicit(&token->refs, 1, memory_order_relaxed);
    }
}

/* With the last child of a token that is otherwise forgotten, that one goes as well. */
void yk_cancel_drop(struct yoke_cancel *token)
{
    /* SYNC(cancel-refs) acq_rel: the last one sees all the others did with it. */
    while (token != NULL && atomic_fetch_sub_explicit(&token->refs, 1, memory_order_acq_rel) == 1) {
        yk_mutex_lock(&forest()->tree);
        own_locked(token);
        unhang_locked(token);
        yk_mutex_unlock(&forest()->tree);
        struct yoke_cancel *const parent = token->parent;
        free(token);
        token = parent;
    }
}

/* --- setting -------------------------------------------------------------------------------- */

/* Marked, and on the list of those whose children and waits come next. A list and no recursion:
 * trees may be deep. */
static void mark_locked(struct yoke_cancel *token, struct yoke_cancel **todo)
{
    if (!yk_cancel_seen(token)) {
        /* SYNC(cancel) release: publishes what was done before it was set. */
        atomic_store_explicit(&token->set, 1, memory_order_release);
        token->todo = *todo;
        *todo = token;
    }
}

static void wake_tied(struct yk_cancel_wait *wait);

static void set_locked(struct yoke_cancel *token)
{
    struct yoke_cancel *todo = NULL;
    mark_locked(token, &todo);
    while (todo != NULL) {
        struct yoke_cancel *const now = todo;
        todo = now->todo;
        for (struct yoke_cancel *child = now->children; child != NULL; child = child->next) {
            mark_locked(child, &todo);
        }
        for (struct yk_cancel_wait *wait = now->waits; wait != NULL; wait = wait->next) {
            if (wait->wake == wake_tied) {
                struct yk_cancel_call *const call =
                    (struct yk_cancel_call *)((char *)wait - offsetof(struct yk_cancel_call, tie));
                mark_locked(call->made, &todo);
            } else {
                wait->wake(wait);
            }
        }
    }
}

void yk_cancel_tell(struct yoke_cancel *token)
{
    struct forest *const all = forest();
    yk_mutex_lock(&all->tree);
    own_locked(token);
    set_locked(token);
    /* SYNC(cancel-pending) release: who sweeps sees the marks. */
    atomic_store_explicit(&all->pending, true, memory_order_release);
    yk_mutex_unlock(&all->tree);
}

static struct yk_cancel_hook *next_hook(struct forest *all, const struct yk_cancel_hook *hook)
{
    yk_mutex_lock(&all->tree);
    struct yk_cancel_hook *const next = hook == NULL ? all->hooks : hook->next;
    yk_mutex_unlock(&all->tree);
    return next;
}

void yk_cancel_flush(void)
{
    struct forest *const all = forest();
    yk_mutex_lock(&all->sweepers);
    /* SYNC(cancel-pending) acq_rel: sees the marks of all that asked for this. */
    if (atomic_exchange_explicit(&all->pending, false, memory_order_acq_rel)) {
        for (struct yk_cancel_hook *hook = next_hook(all, NULL); hook != NULL;
             hook = next_hook(all, hook)) {
            hook->sweep(hook);
        }
    }
    yk_mutex_unlock(&all->sweepers);
}

void yk_cancel_hook_add(struct yk_cancel_hook *hook, void (*sweep)(struct yk_cancel_hook *hook))
{
    struct forest *const all = forest();
    const uint64_t generation = yk_process_generation();
    if (hook->generation == generation) {
        return; /* written by who holds the same lock */
    }
    yk_mutex_lock(&all->tree);
    hook->generation = generation;
    hook->sweep = sweep;
    hook->next = all->hooks;
    all->hooks = hook;
    yk_mutex_unlock(&all->tree);
}

void yk_cancel_hook_remove(struct yk_cancel_hook *hook)
{
    struct forest *const all = forest();
    yk_mutex_lock(&all->sweepers);
    yk_mutex_lock(&all->tree);
    struct yk_cancel_hook **at = &all->hooks;
    while (*at != NULL && *at != hook) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = hook->next;
    }
    hook->generation = 0;
    yk_mutex_unlock(&all->tree);
    yk_mutex_unlock(&all->sweepers);
}

/* --- waits ---------------------------------------------------------------------------------- */

bool yk_cancel_wait_begin(struct yk_cancel_wait *wait, struct yoke_cancel *token)
{
    struct forest *const all = forest();
    yk_mutex_lock(&all->tree);
    own_locked(token);
    const bool hangs = !yk_cancel_seen(token);
    wait->token = hangs ? token : NULL;
    if (hangs) {
        wait->next = token->waits;
        wait->at = &token->waits;
        if (wait->next != NULL) {
            wait->next->at = &wait->next;
        }
        token->waits = wait;
    }
    yk_mutex_unlock(&all->tree);
    return hangs;
}

void yk_cancel_wait_end(struct yk_cancel_wait *wait)
{
    if (wait->token == NULL) {
        return; /* only we write that */
    }
    struct forest *const all = forest();
    yk_mutex_lock(&all->tree);
    *wait->at = wait->next;
    if (wait->next != NULL) {
        wait->next->at = wait->at;
    }
    wait->token = NULL;
    yk_mutex_unlock(&all->tree);
}

static void wake_watch(struct yk_cancel_wait *wait)
{
    const struct yk_cancel_watch *const watch = (struct yk_cancel_watch *)wait;
    /* relaxed: who sleeps on it looks at the token next; the word only keeps it from sleeping. */
    atomic_fetch_add_explicit(watch->word, 2, memory_order_relaxed);
    yk_futex_wake(watch->word, INT32_MAX, watch->scope);
}

bool yk_cancel_watch_begin(struct yk_cancel_watch *watch, struct yoke_cancel *token,
                           _Atomic uint32_t *word, enum yk_scope scope)
{
    *watch = (struct yk_cancel_watch){.wait = {.wake = wake_watch}, .word = word, .scope = scope};
    return yk_cancel_wait_begin(&watch->wait, token);
}

/* --- who cancels me ------------------------------------------------------------------------- */

void yk_cancel_thread_adopt(struct yoke_cancel *token)
{
    thread_token = token;
}

struct yoke_cancel *yk_cancel_thread(void)
{
    return thread_token;
}

static struct yoke_cancel *token_of(struct yk_cancel_place *place)
{
    if (place->token == NULL && place->resolve != NULL) {
        place->token = place->resolve(place);
    }
    return place->token;
}

/* Only to be recognised: set_locked does the work. */
static void wake_tied(struct yk_cancel_wait *wait)
{
    (void)wait;
}

/* A token that is set with either. What it hands in goes on to belong to place->token: were it this
 * one, each task of a chain would keep those of all before it. */
static struct yoke_cancel *tied(struct yk_cancel_place *place)
{
    struct yk_cancel_call *const call = &place->tie->call;
    if (call->made == NULL) {
        call->tie.wake = wake_tied;
        call->made = yk_cancel_make(place->token);
        if (call->made != NULL && !yk_cancel_wait_begin(&call->tie, place->tie->other)) {
            yk_cancel_tell(call->made);
        }
    }
    /* Memory is short: what the work belongs to is better than nothing. */
    return call->made != NULL ? call->made : place->token;
}

struct yoke_cancel *yk_cancel_own(void)
{
    if (yk_cancel_top == NULL) {
        return thread_token;
    }
    return yk_cancel_top->tie != NULL ? tied(yk_cancel_top) : token_of(yk_cancel_top);
}

struct yoke_cancel *yk_cancel_of(const yoke_options *options)
{
    if (yk_worker_role()) {
        return NULL;
    }
    if (options != NULL && options->cancel != NULL) {
        return options->cancel;
    }
    return yk_cancel_top != NULL ? token_of(yk_cancel_top) : NULL;
}

bool yk_cancel_here(void)
{
    struct yk_cancel_place *const place = yk_cancel_top;
    if (place == NULL) {
        return yk_cancel_seen(thread_token);
    }
    /* relaxed: a request, seen sooner or later. */
    const bool flagged =
        place->flag != NULL && atomic_load_explicit(place->flag, memory_order_relaxed) != 0;
    const bool other = place->tie != NULL && yk_cancel_seen(place->tie->other);
    if (!flagged && !other && !yk_cancel_seen(token_of(place))) {
        return false;
    }
    place->told = true;
    return true;
}

/* --- calls ---------------------------------------------------------------------------------- */

int yk_cancel_call_begin(struct yk_cancel_call *call, const yoke_options *options)
{
    *call = (struct yk_cancel_call){.tie = {.wake = wake_tied}};
    if (yk_worker_role()) {
        return 0;
    }
    struct yoke_cancel *const own = yk_cancel_own();
    struct yoke_cancel *const given = options != NULL ? options->cancel : NULL;
    const bool two = given != NULL && own != NULL && given != own;
    call->given = given;
    call->token = given != NULL ? given : own;
    if (!two && (options == NULL || options->fail_fast == 0)) {
        return 0;
    }
    call->made = yk_cancel_make(call->token);
    call->token = call->made;
    if (call->made == NULL) {
        return -ENOMEM;
    }
    if (two && !yk_cancel_wait_begin(&call->tie, own)) {
        yk_cancel_tell(call->made);
    }
    return 0;
}

void yk_cancel_call_end(struct yk_cancel_call *call)
{
    yk_cancel_wait_end(&call->tie);
    yk_cancel_drop(call->made);
}

/* --- the public side ------------------------------------------------------------------------ */

int yoke_cancel_create(yoke_cancel *parent, yoke_cancel **cancel)
{
    if (cancel == NULL) {
        return -EINVAL;
    }
    if (yk_worker_role()) {
        return YOKE_ENESTED;
    }
    yoke_cancel *const made =
        yk_cancel_make(parent != NULL || yk_cancel_top == NULL ? parent : yk_cancel_own());
    if (made == NULL) {
        return -ENOMEM;
    }
    *cancel = made;
    return 0;
}

void yoke_cancel_set(yoke_cancel *cancel)
{
    if (cancel != NULL && !yk_worker_role()) {
        yk_cancel_tell(cancel);
        yk_cancel_flush();
    }
}

int yoke_cancel_is_set(const yoke_cancel *cancel)
{
    return yk_cancel_seen(cancel) ? 1 : 0;
}

void yoke_cancel_release(yoke_cancel *cancel)
{
    if (!yk_worker_role()) {
        yk_cancel_drop(cancel);
    }
}
