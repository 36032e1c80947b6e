/* SPDX-License-Identifier: MIT
 * team.c - the deques of a pool: who is hungry, who gives, who comes from outside.
 *
 * A worker without work opens its mailbox, sets its bit in `hungry` and calls at every busy deque
 * by taking its limit away; the next spawn there gives it the oldest frame. Who becomes busy looks
 * at the bits himself, so nobody is missed: both sides write first, then read (SYNC(busy),
 * SYNC(hungry)). A call stays until a spawn hears it, also while the hungry one sleeps.
 *
 * At most as many threads run one pool's frames as it has workers, callers included.   Room: pool.
 */
#include "pool/cpus.h"
#include "pool/deque.h"
#include "pool/pool_private.h"

#define WARM_NS 400000LL /* after frames: the next ones often come soon */
#define TINY_NS 2000LL   /* a frame that took less was not worth giving */
#define DEAF_MAX_NS 64000LL
#define DEAF_ASLEEP_NS 250000LL      /* a wake costs both sides 10 to 50 us */
#define DEAF_ASLEEP_MAX_NS 4000000LL /* so long may a long task stay unseen after many tiny ones */
#define ALONE_NS 20000LL             /* before we take what nobody gives */

yoke_frame yk_mail_marks[2];

static _Thread_local struct yk_deque *own; /* innermost */

static struct yk_deque *own_in(const struct yk_team *team)
{
    struct yk_deque *deque = own;
    while (deque != NULL && deque->team != team) {
        deque = deque->outer;
    }
    return deque;
}

void yk_team_adopt(struct yk_team *team, struct yoke_worker *worker)
{
    if (worker->index < team->workers) {
        struct yk_deque *const deque = &team->deques[worker->index];
        deque->worker = worker;
        worker->deque = deque;
        own = deque;
    }
}

/* --- who is hungry, who is busy ------------------------------------------------------------- */

static bool is_hungry(const struct yk_team *team)
{
    for (unsigned i = 0; i < YK_TEAM_WORDS; i++) {
        /* SYNC(hungry) seq_cst: after we said that we are busy. */
        if (atomic_load_explicit(&team->hungry[i], memory_order_seq_cst) != 0) {
            return true;
        }
    }
    return false;
}

static uint64_t guests(const struct yk_team *team)
{
    /* SYNC(busy) seq_cst: after the bit of who is hungry was set. */
    return ~atomic_load_explicit(&team->guests_free, memory_order_seq_cst);
}

static bool is_busy(const struct yk_deque *deque)
{
    /* SYNC(busy) seq_cst: as above. */
    return atomic_load_explicit(&deque->busy, memory_order_seq_cst) != 0;
}

/* The next busy deque from *index on; NULL: that was the last. */
static struct yk_deque *next_busy(struct yk_team *team, unsigned *index, uint64_t *left)
{
    for (; *index < team->workers; (*index)++) {
        if (is_busy(&team->deques[*index])) {
            return &team->deques[(*index)++];
        }
    }
    if (*left == 0) {
        return NULL;
    }
    const unsigned bit = yk_lowest_bit(*left);
    *left &= *left - 1;
    return &team->deques[team->workers + bit];
}

static void call(struct yk_team *team)
{
    unsigned index = 0;
    uint64_t left = guests(team);
    for (;;) {
        struct yk_deque *const deque = next_busy(team, &index, &left);
        if (deque == NULL) {
            return;
        }
        yk_deque_limit_set(deque, NULL);
    }
}

/* A busy deque with a frame that nobody took; NULL: none. */
static struct yk_deque *find_victim(struct yk_team *team)
{
    unsigned index = 0;
    uint64_t left = guests(team);
    struct yk_deque *victim = next_busy(team, &index, &left);
    while (victim != NULL && !yk_deque_shows(victim)) {
        victim = next_busy(team, &index, &left);
    }
    return victim;
}

/* There is room for one more. Its owners may spawn nothing for long; then one who sleeps is to come
 * and look. */
void yk_team_call(struct yk_team *team)
{
    call(team);
    if (find_victim(team) == NULL) {
        return;
    }
    for (unsigned i = 0; i < YK_TEAM_WORDS; i++) {
        /* SYNC(hungry) seq_cst: after the place was freed. */
        const uint64_t bits = atomic_load_explicit(&team->hungry[i], memory_order_seq_cst);
        /* relaxed: who is about to park looks for himself. */
        const uint64_t parked = atomic_load_explicit(&team->parked[i], memory_order_relaxed);
        if ((bits & parked) != 0) {
            yk_deque_wake(&team->deques[i * 64 + yk_lowest_bit(bits & parked)]);
            return;
        }
    }
}

static bool has_place(struct yk_team *team)
{
    /* SYNC(running) seq_cst: after the bits of who is hungry were read. */
    const uint64_t running = atomic_load_explicit(&team->running, memory_order_seq_cst);
    return running + yk_count_bits(guests(team)) < yk_ctl_target(team->pool->ctl);
}

static void place_take(struct yk_team *team)
{
    /* relaxed: a count. */
    atomic_fetch_add_explicit(&team->running, 1, memory_order_relaxed);
}

/* Returns how many there were. */
static uint64_t place_give_back(struct yk_team *team)
{
    /* SYNC(running) seq_cst: before we look who is hungry. */
    return atomic_fetch_sub_explicit(&team->running, 1, memory_order_seq_cst);
}

/* Who found no place used up the calls of all who are hungry. */
void yk_place_free(struct yk_team *team)
{
    const uint64_t before = place_give_back(team);
    if (before + yk_count_bits(guests(team)) >= yk_ctl_target(team->pool->ctl) && is_hungry(team)) {
        yk_team_call(team);
    }
}

/* Somebody gave us a frame, and may have taken it back since: our bit is gone. */
static bool was_chosen(const struct yk_deque *deque)
{
    /* SYNC(hungry) seq_cst: after asleep was set: who clears the bit later will wake us. */
    const uint64_t bits =
        atomic_load_explicit(&deque->team->hungry[deque->index / 64], memory_order_seq_cst);
    return (bits >> deque->index % 64 & 1) == 0;
}

/* Whoever was called while the frame lay in the mailbox passed the taker over, and the call was used
 * up: that of a worker whose bit is set again (it is set after the mailbox opens), or of a follower
 * that sleeps. A follower that is awake calls again. */
void yk_team_taken_back(struct yk_deque *deque, struct yk_deque *taker, bool placed)
{
    if (placed && !was_chosen(taker)) {
        yk_team_call(deque->team);
    }
    /* SYNC(asleep) seq_cst: after the frame was taken back; set before its last call. */
    if (!placed && atomic_load_explicit(&taker->asleep, memory_order_seq_cst) != 0) {
        yk_deque_limit_set(deque, NULL);
    }
}

/* The mailbox is shut, or open already: then somebody may be writing to it just now. */
static void open_mail(struct yk_deque *deque)
{
    deque->registered = true;
    yoke_frame *mail = YK_MAIL_SHUT;
    /* SYNC(mail) release: what we did before is over. */
    atomic_compare_exchange_strong_explicit(&deque->mail, &mail, YK_MAIL_HUNGRY,
                                            memory_order_release, memory_order_relaxed);
    /* SYNC(hungry) seq_cst: before we look who is busy. */
    atomic_fetch_or_explicit(&deque->team->hungry[deque->index / 64], 1ULL << deque->index % 64,
                             memory_order_seq_cst);
}

static void register_hungry(struct yk_deque *deque)
{
    open_mail(deque);
    deque->call_due = false;
    call(deque->team);
}

static void unregister(struct yk_team *team, unsigned index)
{
    /* SYNC(hungry) seq_cst: nobody needs to call any more. */
    atomic_fetch_and_explicit(&team->hungry[index / 64], ~(1ULL << index % 64),
                              memory_order_seq_cst);
}

static void set_parked(struct yk_deque *deque, bool parked)
{
    _Atomic uint64_t *const word = &deque->team->parked[deque->index / 64];
    const uint64_t bit = 1ULL << deque->index % 64;
    if (parked) {
        /* relaxed: a hint. */
        atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
    } else {
        /* relaxed: a hint. */
        atomic_fetch_and_explicit(word, ~bit, memory_order_relaxed);
    }
}

void yk_deque_wake(struct yk_deque *deque)
{
    /* SYNC(asleep) seq_cst: after the frame was done, or given. */
    const uint32_t how = atomic_load_explicit(&deque->asleep, memory_order_seq_cst);
    if (how == YK_SLEEPS_IDLE) {
        /* relaxed: a hint. */
        atomic_store_explicit(&deque->waker_cpu, yk_cpu_current() + 1, memory_order_relaxed);
        yk_table_wake_line(deque->worker->table, deque->worker->line);
    } else if (how != 0) {
        uint32_t here = YK_SLEEPS_HERE;
        /* SYNC(asleep) release: it was told. By now it may sleep on its line, for others to wake. */
        atomic_compare_exchange_strong_explicit(&deque->asleep, &here, 0, memory_order_release,
                                                memory_order_relaxed);
        yk_futex_wake(&deque->asleep, 1, YK_PRIVATE);
    }
}

/* --- giving --------------------------------------------------------------------------------- */

/* Who waits for a frame that we are in the middle of comes first: it can use nothing else. */
static void give_follower_locked(struct yk_deque *deque, yoke_frame **top)
{
    /* SYNC(follower) acquire: sees what it waits for. */
    struct yk_deque *const follower = atomic_load_explicit(&deque->follower, memory_order_acquire);
    if (follower == NULL) {
        return;
    }
    /* SYNC(follower) acquire: while it waits for a frame of ours it waits for nothing else. */
    const yoke_frame *const awaited =
        atomic_load_explicit(&follower->awaited, memory_order_acquire);
    if (awaited == NULL || !yk_deque_runs_locked(deque, awaited)) {
        return;
    }
    if (yk_deque_give_locked(deque, top, follower, YK_FRAME_FOLLOWED)) {
        yk_deque_wake(follower);
    } else if (deque->ends.split >= top) {
        yk_deque_limit_set(deque, NULL); /* somebody took it first: it was not served yet */
    }
}

static bool give_one_locked(struct yk_deque *deque, yoke_frame **top, bool sleepers)
{
    struct yk_team *const team = deque->team;
    for (unsigned i = 0; i < YK_TEAM_WORDS; i++) {
        /* SYNC(hungry) seq_cst: after we took the call from our limit. */
        uint64_t bits = atomic_load_explicit(&team->hungry[i], memory_order_seq_cst);
        /* relaxed: whom to prefer. */
        const uint64_t parked = atomic_load_explicit(&team->parked[i], memory_order_relaxed);
        for (bits &= sleepers ? parked : ~parked; bits != 0; bits &= bits - 1) {
            const unsigned index = i * 64 + yk_lowest_bit(bits);
            struct yk_deque *const taker = &team->deques[index];
            place_take(team);
            if (!yk_deque_give_locked(deque, top, taker, YK_FRAME_PLACED)) {
                yk_place_free(team);
                continue;
            }
            unregister(team, index);
            yk_deque_wake(taker);
            return true;
        }
    }
    return false;
}

void yk_team_give_locked(struct yk_deque *deque, yoke_frame **top)
{
    struct yk_team *const team = deque->team;
    give_follower_locked(deque, top);
    if (!is_hungry(team) || !has_place(team)) {
        return;
    }
    /* Pools that are used from inside of each other share the CPUs. */
    const bool wakes = !deque->spins_only && (!deque->nested || yk_cpus_left() != 0);
    const bool given =
        give_one_locked(deque, top, false) || (wakes && give_one_locked(deque, top, true));
    /* One at a time: the next spawn serves the next. Also where there was nothing left to give, since
     * somebody took it first: the others were not served yet. */
    if ((given || deque->ends.split >= top) && is_hungry(team)) {
        yk_deque_limit_set(deque, NULL);
    }
}

/* --- coming and going ----------------------------------------------------------------------- */

/* The first spawn looks who is hungry; until then it does not matter. */
static void begin(struct yk_deque *deque)
{
    if (deque->entered++ == 0) {
        /* SYNC(busy) seq_cst: before we look who is hungry. */
        atomic_store_explicit(&deque->busy, 1, memory_order_seq_cst);
    }
    /* relaxed: our own word. */
    __atomic_store_n(&deque->ends.limit, NULL, __ATOMIC_RELAXED);
}

static void end(struct yk_deque *deque)
{
    if (--deque->entered == 0) {
        /* relaxed: a call that comes too late does no harm. */
        atomic_store_explicit(&deque->busy, 0, memory_order_relaxed);
    }
}

static struct yk_deque *enter_as_guest(struct yk_team *team)
{
    /* SYNC(busy) acquire: sees the deque as the last guest left it. */
    uint64_t free_bits = atomic_load_explicit(&team->guests_free, memory_order_acquire);
    while (free_bits != 0) {
        const unsigned bit = yk_lowest_bit(free_bits);
        /* SYNC(busy) seq_cst: before we look who is hungry. */
        if (atomic_compare_exchange_weak_explicit(&team->guests_free, &free_bits,
                                                  free_bits & ~(1ULL << bit), memory_order_seq_cst,
                                                  memory_order_acquire)) {
            struct yk_deque *const deque = &team->deques[team->workers + bit];
            deque->nested = yk_task_own() != NULL;
            deque->outer = own;
            own = deque;
            return deque;
        }
    }
    return NULL;
}

struct yk_deque *yk_team_enter(struct yk_team *team, yoke_frame ***top)
{
    struct yk_deque *deque = own_in(team);
    const bool inside = deque != NULL && deque->entered != 0;
    deque = deque != NULL ? deque : enter_as_guest(team);
    if (deque != NULL) {
        *top = inside ? yk_deque_top(deque) : deque->slots;
        begin(deque);
    }
    return deque;
}

void yk_team_leave(struct yk_deque *deque)
{
    struct yk_team *const team = deque->team;
    end(deque);
    if (deque->entered != 0 || deque->index < team->workers) {
        return;
    }
    own = deque->outer;
    /* SYNC(busy) release: the next guest finds it as we leave it. */
    const uint64_t others = ~atomic_fetch_or_explicit(
        &team->guests_free, 1ULL << (deque->index - team->workers), memory_order_release);
    if (yk_count_bits(others) > 1 && is_hungry(team)) {
        yk_team_call(team);
    }
}

bool yk_team_is_busy(const struct yk_team *team)
{
    bool busy = guests(team) != 0;
    for (unsigned i = 0; i < team->workers && !busy; i++) {
        busy = is_busy(&team->deques[i]);
    }
    return busy;
}

/* All strangers share a number; nothing of theirs is written. */
struct yoke_worker *yk_team_worker(struct yk_team *team)
{
    struct yk_deque *const deque = own_in(team);
    return deque != NULL ? deque->worker : &team->deques[team->workers].guest;
}

/* --- being hungry --------------------------------------------------------------------------- */

void yk_hungry_begin(struct yk_deque *deque)
{
    deque->slept = false;
    if (deque->deaf_ns == 0) {
        register_hungry(deque);
    }
}

/* Shut the mailbox; what was in it, or NULL. */
static yoke_frame *shut(struct yk_deque *deque)
{
    /* SYNC(mail) acquire: sees the frame. */
    yoke_frame *const mail =
        atomic_exchange_explicit(&deque->mail, YK_MAIL_SHUT, memory_order_acquire);
    return yk_mail_is_frame(mail) ? mail : NULL;
}

/* As find_victim, where a frame could be taken, and may be. */
static struct yk_deque *find_takeable(struct yk_team *team)
{
    return team->barriers && has_place(team) ? find_victim(team) : NULL;
}

/* Frames that their owner gives to nobody, since it spawns nothing for a while. The mailbox is shut
 * meanwhile: a second frame would have to wait here. */
static bool take_somewhere(struct yk_deque *deque)
{
    struct yk_team *const team = deque->team;
    struct yk_deque *const victim = find_takeable(team);
    if (victim == NULL) {
        return false;
    }
    deque->taken = shut(deque);
    if (deque->taken == NULL) {
        place_take(team);
        deque->taken = yk_deque_take(victim, deque, NULL);
        if (deque->taken == NULL) {
            yk_place_free(team);
            register_hungry(deque); /* who found it shut used up our call */
        }
    }
    return deque->taken != NULL;
}

bool yk_hungry_look(struct yk_deque *deque, int64_t since_ns)
{
    const int64_t now = yk_clock_ns();
    deque->now_ns = now;
    const bool chosen = deque->registered && was_chosen(deque) && !yk_hungry_has_mail(deque);
    if (deque->registered ? chosen || deque->call_due : now >= deque->deaf_until_ns) {
        register_hungry(deque);
    }
    return yk_hungry_has_mail(deque) ||
           (deque->registered && now - since_ns > ALONE_NS && take_somewhere(deque));
}

int64_t yk_hungry_sleep(const struct yk_deque *deque)
{
    return deque->registered ? YOKE_FOREVER : deque->deaf_until_ns;
}

bool yk_hungry_park(struct yk_deque *deque)
{
    const int64_t now = yk_clock_ns();
    deque->slept = true;
    if (!deque->registered && now < deque->deaf_until_ns) {
        return false;
    }
    /* SYNC(asleep) seq_cst: before our last look, after which they wake us. */
    atomic_store_explicit(&deque->asleep, YK_SLEEPS_IDLE, memory_order_seq_cst);
    set_parked(deque, true);
    if (deque->registered && was_chosen(deque)) {
        return true; /* whatever the mailbox says: what it says may be taken back */
    }
    if (!deque->registered || deque->call_due) {
        register_hungry(deque);
    }
    /* SYNC(mail) seq_cst: after asleep. */
    const bool given = yk_mail_is_frame(atomic_load_explicit(&deque->mail, memory_order_seq_cst));
    /* One that we could not take may hide others: we come again. */
    return given || take_somewhere(deque) || find_takeable(deque->team) != NULL;
}

/* Twice as long as before, and longer where each time costs a wake. */
static int64_t deafer(const struct yk_deque *deque)
{
    const int64_t least = deque->slept ? DEAF_ASLEEP_NS : TINY_NS;
    const int64_t most = deque->slept ? DEAF_ASLEEP_MAX_NS : DEAF_MAX_NS;
    const int64_t twice = deque->deaf_ns * 2;
    return twice < least ? least : twice > most ? most : twice;
}

static void learn(struct yk_deque *deque, int64_t now, int64_t took_ns)
{
    deque->now_ns = now;
    deque->deaf_ns = took_ns < TINY_NS ? deafer(deque) : 0;
    deque->deaf_until_ns = now + deque->deaf_ns;
    deque->warm_until_ns = now + WARM_NS;
}

/* We are hungry again before its owner knows that it is done: he may spawn the next one at once. */
static void run_given(struct yk_deque *deque, yoke_frame *frame, bool again)
{
    const int64_t begin_ns = yk_clock_ns();
    yk_posts_leave(deque->worker);
    begin(deque);
    yk_frame_run(deque, deque->slots, frame);
    yk_worker_unblock_all(deque->worker);
    end(deque);
    const int64_t now = yk_clock_ns();
    learn(deque, now, now - begin_ns);
    again = again && deque->deaf_ns == 0;
    deque->slept = false;
    if (again) {
        (void)place_give_back(deque->team);
        open_mail(deque);
        deque->call_due = true; /* after the next look: it would disturb who begins the next one */
    } else {
        yk_place_free(deque->team);
    }
    yk_frame_done(frame);
}

/* Who gave it clears our bit, and whoever finds it set until then finds the mailbox shut. */
static yoke_frame *claim(struct yk_deque *deque)
{
    yoke_frame *const taken = deque->taken;
    yoke_frame *const given = taken == NULL ? shut(deque) : NULL;
    deque->taken = NULL;
    if (deque->registered && given == NULL) {
        unregister(deque->team, deque->index);
    }
    deque->registered = false;
    return taken != NULL ? taken : given;
}

/* The kernel may wake us on the waker's CPU, in place of the waker: that one would wait until we have
 * run the frame, and spun after it. It comes first, and may take the frame back. */
static void make_way(struct yk_deque *deque)
{
    /* relaxed: a hint. */
    const uint32_t cpu = atomic_load_explicit(&deque->waker_cpu, memory_order_relaxed);
    if (cpu != 0) {
        /* relaxed: a hint. */
        atomic_store_explicit(&deque->waker_cpu, 0, memory_order_relaxed);
        if (cpu == yk_cpu_current() + 1) {
            yk_cpu_yield();
        }
    }
}

bool yk_hungry_run(struct yk_deque *deque)
{
    /* relaxed: a wake too many does no harm. */
    if (atomic_load_explicit(&deque->asleep, memory_order_relaxed) != 0) {
        set_parked(deque, false);
        /* relaxed: as above. */
        atomic_store_explicit(&deque->asleep, 0, memory_order_relaxed);
        make_way(deque);
    }
    /* relaxed: advice. */
    if (atomic_load_explicit(&deque->late, memory_order_relaxed) != 0) {
        /* relaxed: as above. */
        atomic_store_explicit(&deque->late, 0, memory_order_relaxed);
        deque->deaf_ns = deafer(deque);
        deque->deaf_until_ns = yk_clock_ns() + deque->deaf_ns;
    }
    if (deque->taken == NULL && !yk_hungry_has_mail(deque)) {
        return false;
    }
    yoke_frame *const frame = claim(deque);
    if (frame != NULL) {
        run_given(deque, frame, true);
    }
    return frame != NULL;
}

void yk_hungry_end(struct yk_deque *deque)
{
    yoke_frame *const frame = claim(deque);
    if (deque->call_due) { /* it was for all who are hungry, and we look no more */
        deque->call_due = false;
        if (is_hungry(deque->team)) {
            yk_team_call(deque->team);
        }
    }
    if (frame != NULL) {
        run_given(deque, frame, false);
    }
}
