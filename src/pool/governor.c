/* SPDX-License-Identifier: MIT
 * governor.c - a thread pool grows while its tasks wait, and rests workers while too many run.
 *
 * At each look every busy worker is put into one of two classes: it waits (it used little CPU time
 * since the last look, and the kernel says that it waits for something now), or it runs. With tasks
 * queued and fewer running than `target`, workers are added: as many as are missing, and twice as
 * many as before while not one runs, so that any number of waiting tasks is soon under way. A
 * thread that is ready and gets no CPU runs, so a busy machine does not make pools grow.
 *
 * While more run than should, look after look, `surplus` tells as many to rest once their task is
 * done. A worker is added by calling one that rests, or by a new thread.   Room: pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/deque.h"
#include "pool/dispatch.h"
#include "pool/governor.h"

#define MS 1000000LL
#define LOOK_SOON_NS MS    /* after a change */
#define LOOK_NS (4 * MS)   /* and while all stays as it is */
#define STEP_MAX 256U      /* added at one look: more could turn out to compute */
#define STARTS_AT_ONCE 16U /* threads, before others may have the lock */
#define CALM_LOOKS 4       /* with enough running, until doubling begins anew */
#define CROWDED_LOOKS 3    /* with too many running, until some rest */
#define FIGURES_NS (2000 * MS)

enum { ASLEEP = 0, AWAKE, STOP };

/* A worker at the last look. */
struct sample {
    uint64_t watch;
    int64_t cpu_ns;
    int64_t at_ns;
    uint32_t look;
    bool waits;
};

struct span {
    int64_t begin_ns, end_ns;
    int64_t wall_ns, cpu_ns, waited_ns;
};

struct yk_governor {
    _Atomic uint32_t state; /* SYNC(governor) */
    bool started;           /* under the pool's lock */
    yk_thread_id thread;
    /* under the pool's lock: figures of the last seconds, and of those before */
    struct span span, before;
    unsigned blocked;
    uint64_t added; /* workers, by whomever */
    /* the governor's own */
    struct yoke_pool *pool;
    struct sample *samples; /* one per line */
    uint32_t look;
    unsigned step;
    unsigned calm, crowded;
    unsigned excess; /* the least there was while crowded */
    bool grew, woke;
};

/* What one look saw. */
struct census {
    unsigned running, blocked;
    int64_t wall_ns, cpu_ns, waited_ns;
};

/* --- counting ------------------------------------------------------------------------------- */

static unsigned blocking(const struct yk_ctl *ctl)
{
    /* SYNC(blocking) seq_cst: after tail was written, or we counted ourselves. */
    return atomic_load_explicit(&ctl->blocking, memory_order_seq_cst);
}

static unsigned resting(const struct yk_ctl *ctl)
{
    /* relaxed: a count. */
    return atomic_load_explicit(&ctl->rest_count, memory_order_relaxed);
}

static bool has_bit(const _Atomic uint64_t *bits, uint32_t index)
{
    /* relaxed: a picture of the moment. */
    return (atomic_load_explicit(&bits[index / 64], memory_order_relaxed) >> index % 64 & 1) != 0;
}

static unsigned sleeping(const struct yk_table *table)
{
    unsigned count = 0;
    for (uint32_t i = 0; i <= table->line_count / 64; i++) {
        /* relaxed: a picture of the moment. */
        count +=
            yk_count_bits(atomic_load_explicit(&table->ctl->sleepers[i], memory_order_relaxed));
    }
    return count;
}

/* Tasks that nobody has begun, at most `most`. */
static unsigned queued(const struct yk_table *table, unsigned most)
{
    unsigned count = 0;
    /* relaxed: a hint; no READY slot is below it. */
    uint64_t ticket = atomic_load_explicit(&table->ctl->head, memory_order_relaxed);
    /* SYNC(tail) seq_cst: after we said that we sleep. */
    const uint64_t tail = atomic_load_explicit(&table->ctl->tail, memory_order_seq_cst);
    for (; count < most && (int64_t)(tail - ticket) > 0; ticket++) {
        struct yk_slot *const slot = &table->slots[yk_slot_of(table, ticket)];
        count += yk_slot_load_word(slot) == yk_word((uint32_t)ticket, 0, YK_READY);
    }
    return count + yk_posts_queued(table->ctl, most - count);
}

/* --- adding workers ------------------------------------------------------------------------- */

/* Call one that rests. */
static bool call_one(const struct yk_table *table)
{
    struct yk_ctl *const ctl = table->ctl;
    for (uint32_t i = 0; resting(ctl) != 0 && i <= table->line_count / 64; i++) {
        /* relaxed: who clears a bit makes sure that it was there. */
        uint64_t bits = atomic_load_explicit(&ctl->resting[i], memory_order_relaxed);
        for (; bits != 0; bits &= bits - 1) {
            const unsigned bit = yk_lowest_bit(bits);
            /* SYNC(resting) seq_cst: who clears the bit is the one who calls. */
            const uint64_t seen =
                atomic_fetch_and_explicit(&ctl->resting[i], ~(1ULL << bit), memory_order_seq_cst);
            if ((seen >> bit & 1) != 0) {
                /* relaxed: a count. */
                atomic_fetch_sub_explicit(&ctl->rest_count, 1, memory_order_relaxed);
                yk_table_wake_line(table, &table->lines[i * 64 + bit]);
                return true;
            }
        }
    }
    return false;
}

static bool take_surplus(struct yk_ctl *ctl)
{
    /* relaxed: so many, whoever they are. */
    uint32_t surplus = atomic_load_explicit(&ctl->surplus, memory_order_relaxed);
    do {
        if (surplus == 0) {
            return false;
        }
        /* SYNC(surplus) acq_rel: after we were woken; the governor looks what waits after this. */
    } while (!atomic_compare_exchange_weak_explicit(&ctl->surplus, &surplus, surplus - 1,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return true;
}

/* Called with a task there that we would take. If we were woken for it, another one is now. */
int yk_worker_rest(struct yoke_worker *worker, int64_t until_ns)
{
    struct yk_ctl *const ctl = worker->ctl;
    _Atomic uint64_t *const word = &ctl->resting[worker->index / 64];
    const uint64_t bit = 1ULL << worker->index % 64;
    if (!take_surplus(ctl)) {
        return 0;
    }
    /* SYNC(line-wake) acq_rel: after a stop order set it to 0, we see the order. */
    atomic_exchange_explicit(&worker->line->wake, 1, memory_order_acq_rel);
    /* relaxed: a count. */
    atomic_fetch_add_explicit(&ctl->rest_count, 1, memory_order_relaxed);
    /* SYNC(resting) seq_cst: we can be called from here on. */
    atomic_fetch_or_explicit(word, bit, memory_order_seq_cst);
    (void)yk_table_wake_one(worker->table);
    int rc = 0;
    if (yk_line_state_of(worker->line) == YK_LINE_ACTIVE) {
        yk_cpus_busy(-1);
        rc = yk_futex_wait(&worker->line->wake, 1, until_ns, worker->table->scope);
        yk_cpus_busy(1);
    }
    /* SYNC(resting) seq_cst: who clears it calls us. */
    if ((atomic_fetch_and_explicit(word, ~bit, memory_order_seq_cst) & bit) == 0) {
        return 0;
    }
    /* relaxed: as above. */
    atomic_fetch_sub_explicit(&ctl->rest_count, 1, memory_order_relaxed);
    return rc == -ETIMEDOUT ? YOKE_ECLOSED : rc == -EAGAIN ? 0 : rc;
}

static bool add_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    const bool added = !pool->stopping && (call_one(&pool->table) || yk_threads_grow_locked(pool));
    pool->governor->added += added;
    return added;
}

static void add(struct yoke_pool *pool, unsigned count)
{
    while (count > 0) {
        bool more = true;
        yk_biased_lock(&pool->lock);
        for (unsigned i = 0; more && i < STARTS_AT_ONCE && count > 0; i++, count--) {
            more = add_locked(pool);
        }
        yk_biased_unlock(&pool->lock);
        if (!more) {
            return; /* there are no more threads to be had, now */
        }
    }
}

/* --- looking -------------------------------------------------------------------------------- */

/* Since the last look this worker waited; by what it is at now if it was not there then. */
static bool waits(struct yk_governor *governor, struct sample *sample, uint64_t watch_bits,
                  struct census *census)
{
    const struct yk_thread_watch watch = {.id = (int)(watch_bits >> 32),
                                          .clock = (int)(uint32_t)watch_bits};
    const struct sample last = *sample;
    const bool fresh = last.watch != watch_bits;
    const int64_t now = yk_clock_ns();
    *sample = (struct sample){watch_bits, yk_thread_cpu_ns(watch), now, governor->look, false};
    if (sample->cpu_ns < 0 || (!fresh && last.look + 1 != governor->look)) {
        return false; /* it ended, or may have been idle meanwhile */
    }
    const int64_t wall = fresh ? 0 : now - last.at_ns;
    const int64_t used = fresh ? 0 : sample->cpu_ns - last.cpu_ns;
    const bool still = !fresh && last.waits && used == 0;
    sample->waits = still || (used * 4 <= wall && yk_thread_waits(watch) != 0);
    census->wall_ns += wall;
    census->cpu_ns += used;
    census->waited_ns += sample->waits && wall > used ? wall - used : 0;
    return sample->waits;
}

static void count_line(struct yk_governor *governor, uint32_t i, struct census *census)
{
    const struct yk_table *const table = &governor->pool->table;
    struct yk_line *const line = &table->lines[i];
    const enum yk_line_state state = yk_line_state_of(line);
    if (state == YK_LINE_STARTING_ACTIVE) {
        census->running++;
        return;
    }
    if (state != YK_LINE_ACTIVE || has_bit(table->ctl->sleepers, i) ||
        has_bit(table->ctl->resting, i)) {
        return;
    }
    /* relaxed: the number itself is all there is to see. */
    const uint64_t watch = atomic_load_explicit(&line->watch, memory_order_relaxed);
    const bool is_waiting = waits(governor, &governor->samples[i], watch, census);
    /* relaxed: a picture of the moment. */
    const bool says = atomic_load_explicit(&line->blocking, memory_order_relaxed) != 0;
    census->blocked += is_waiting || says;
    census->running += !is_waiting && !says;
}

static struct census take_census(struct yk_governor *governor)
{
    struct census census = {0};
    governor->look++;
    /* relaxed: a line more or less; it only grows. */
    const uint32_t top = atomic_load_explicit(&governor->pool->lines_top, memory_order_relaxed);
    for (uint32_t i = 0; i < top; i++) {
        count_line(governor, i, &census);
    }
    return census;
}

static void note_figures_locked(struct yoke_pool *pool, const struct census *census)
    YK_REQUIRES(pool->lock)
{
    struct yk_governor *const governor = pool->governor;
    struct span *const span = &governor->span;
    const int64_t now = yk_clock_ns();
    if (span->begin_ns == 0 || now - span->begin_ns > FIGURES_NS) {
        governor->before = *span;
        *span = (struct span){.begin_ns = now};
    }
    span->end_ns = now;
    span->wall_ns += census->wall_ns;
    span->cpu_ns += census->cpu_ns;
    span->waited_ns += census->waited_ns;
    governor->blocked = census->blocked;
}

/* --- deciding ------------------------------------------------------------------------------- */

/* How many to add, with fewer running than should. */
static unsigned missing(struct yk_governor *governor, unsigned target, const struct census *census)
{
    governor->calm = 0;
    if (census->running != 0) {
        return target - census->running;
    }
    if (governor->grew) {
        governor->step = (unsigned)yk_min(2 * (size_t)governor->step, STEP_MAX);
    }
    governor->step = (unsigned)yk_max(governor->step, target);
    return governor->step;
}

static void rest_surplus(struct yk_governor *governor, unsigned excess)
{
    governor->excess = governor->crowded == 0 ? excess : (unsigned)yk_min(governor->excess, excess);
    governor->crowded = excess != 0 ? governor->crowded + 1 : 0;
    const bool told = governor->crowded >= CROWDED_LOOKS;
    /* SYNC(surplus) release: what was told before is told no more. */
    atomic_store_explicit(&governor->pool->ctl->surplus, told ? governor->excess : 0,
                          memory_order_release);
    governor->crowded = told ? 0 : governor->crowded;
}

/* Returns when to look again. */
static int64_t look(struct yk_governor *governor)
{
    struct yoke_pool *const pool = governor->pool;
    const int64_t begin = yk_clock_ns();
    yk_biased_lock(&pool->lock);
    const uint64_t added = governor->added;
    yk_biased_unlock(&pool->lock);
    const struct census census = take_census(governor);
    const int64_t took = yk_clock_ns() - begin;
    yk_target_follow(&pool->table);
    const unsigned target = yk_ctl_target(pool->ctl);
    unsigned count = 0;
    if (census.running < target) {
        count = missing(governor, target, &census);
        count = queued(&pool->table, count);
    } else if (++governor->calm >= CALM_LOOKS) {
        governor->step = 0;
    }
    rest_surplus(governor, census.running > target ? census.running - target : 0);
    yk_biased_lock(&pool->lock);
    note_figures_locked(pool, &census);
    const bool stale = governor->added != added; /* there are more by now than we saw */
    const bool full = pool->alive >= pool->config.workers_max && resting(pool->ctl) == 0;
    yk_biased_unlock(&pool->lock);
    governor->grew = count != 0 && !full;
    if (governor->grew && !stale) {
        add(pool, count);
    }
    /* However many there are, looking takes no more than a twentieth of a CPU, or, while the pool
     * grows, a half. */
    const int64_t soon = governor->grew || governor->woke ? LOOK_SOON_NS : LOOK_NS;
    governor->woke = false;
    const int64_t pause = took * (governor->grew ? 1 : 19);
    return yk_clock_ns() + (pause > soon ? pause : soon);
}

/* Nothing queues: sleep until somebody finds that something does. */
static void sleep_until_told(struct yk_governor *governor)
{
    struct yoke_pool *const pool = governor->pool;
    uint32_t awake = AWAKE;
    governor->step = 0;
    governor->grew = false;
    rest_surplus(governor, 0);
    /* SYNC(governor) seq_cst: before we look at tail a last time. */
    if (!atomic_compare_exchange_strong_explicit(&governor->state, &awake, ASLEEP,
                                                 memory_order_seq_cst, memory_order_relaxed)) {
        return;
    }
    if (queued(&pool->table, 1) == 0) {
        (void)yk_futex_wait(&governor->state, ASLEEP, YOKE_FOREVER, YK_PRIVATE);
    }
    uint32_t asleep = ASLEEP;
    /* SYNC(governor) acq_rel: unless we were told to stop. */
    atomic_compare_exchange_strong_explicit(&governor->state, &asleep, AWAKE, memory_order_acq_rel,
                                            memory_order_relaxed);
    governor->look++; /* what we knew is too old */
    governor->woke = true;
}

static bool is_stopped(struct yk_governor *governor)
{
    /* SYNC(governor) acquire: sees that the pool stops. */
    return atomic_load_explicit(&governor->state, memory_order_acquire) == STOP;
}

static void govern(void *arg)
{
    struct yk_governor *const governor = arg;
    while (!is_stopped(governor)) {
        if (queued(&governor->pool->table, 1) == 0) {
            sleep_until_told(governor);
        }
        const int64_t next = look(governor);
        (void)yk_futex_wait(&governor->state, AWAKE, next, YK_PRIVATE);
    }
}

/* --- from outside --------------------------------------------------------------------------- */

/* More may run frames than before: spawns that saw the old number used up the calls of those who are
 * hungry. Who hears this call sees the new one: setting a limit is a release. */
static void call_hungry(const struct yk_ctl *ctl)
{
    struct yk_team *const team =
        ctl->generation == yk_process_generation() ? ctl->pool->team : NULL;
    if (team != NULL) {
        yk_team_call(team);
    }
}

/* The CPUs have become more or fewer: a pool that may grow only wants to know, any other has to
 * rest workers now, or to call them back. */
void yk_target_follow(const struct yk_table *table)
{
    struct yk_ctl *const ctl = table->ctl;
    if (ctl->follow_max == 0) {
        return;
    }
    const uint32_t count = yk_cpus_look();
    /* relaxed: one alone finds that it changed. */
    if (atomic_load_explicit(&ctl->cpus_seen, memory_order_relaxed) == count ||
        /* relaxed: as above. */
        atomic_exchange_explicit(&ctl->cpus_seen, count, memory_order_relaxed) == count) {
        return;
    }
    const uint32_t target = (uint32_t)yk_min(yk_max(count, 1), ctl->follow_max);
    /* relaxed: a number. */
    const uint32_t before = atomic_exchange_explicit(&ctl->target, target, memory_order_relaxed);
    if (target > before) {
        call_hungry(ctl);
    }
    if (ctl->follow_max > ctl->keep) {
        return; /* its governor sees to it */
    }
    if (target < before) {
        /* SYNC(surplus) release: as the governor would. */
        atomic_fetch_add_explicit(&ctl->surplus, before - target, memory_order_release);
    }
    for (uint32_t more = before; more < target; more++) {
        if (!take_surplus(ctl)) {
            (void)call_one(table);
        }
    }
}

int yk_governor_create(struct yoke_pool *pool)
{
    if (!yk_pool_is_elastic(pool)) {
        return 0;
    }
    struct yk_governor *const governor = calloc(1, sizeof *governor);
    if (governor == NULL) {
        return -ENOMEM;
    }
    governor->samples = calloc(pool->table.line_count, sizeof *governor->samples);
    if (governor->samples == NULL) {
        free(governor);
        return -ENOMEM;
    }
    governor->pool = pool;
    pool->governor = governor;
    return 0;
}

void yk_governor_free(struct yoke_pool *pool)
{
    if (pool->governor != NULL) {
        free(pool->governor->samples);
        free(pool->governor);
        pool->governor = NULL;
    }
}

void yk_governor_stop(struct yoke_pool *pool)
{
    struct yk_governor *const governor = pool->governor;
    if (governor == NULL) {
        return;
    }
    yk_biased_lock(&pool->lock);
    pool->stopping = true;
    const bool started = governor->started;
    governor->started = false;
    yk_biased_unlock(&pool->lock);
    if (started) {
        /* SYNC(governor) release: sees that the pool stops. */
        atomic_store_explicit(&governor->state, STOP, memory_order_release);
        yk_futex_wake(&governor->state, 1, YK_PRIVATE);
        yk_thread_join(governor->thread);
    }
}

static void tell_locked(struct yoke_pool *pool) YK_REQUIRES(pool->lock)
{
    struct yk_governor *const governor = pool->governor;
    if (YK_UNLIKELY(!governor->started)) {
        const struct yk_thread_setup setup = {.name = "yoke-governor",
                                              .stack_bytes = YK_EXTRA_STACK_BYTES};
        /* relaxed: there is no thread yet. */
        atomic_store_explicit(&governor->state, AWAKE, memory_order_relaxed);
        governor->woke = true;
        governor->started = yk_thread_start(&setup, govern, governor, &governor->thread) == 0;
        return;
    }
    uint32_t asleep = ASLEEP;
    /* SYNC(governor) seq_cst: after tail was written. */
    if (atomic_load_explicit(&governor->state, memory_order_seq_cst) == ASLEEP &&
        /* SYNC(governor) acq_rel: unless it is told to stop. */
        atomic_compare_exchange_strong_explicit(&governor->state, &asleep, AWAKE,
                                                memory_order_acq_rel, memory_order_relaxed)) {
        yk_futex_wake(&governor->state, 1, YK_PRIVATE);
    }
}

void yk_governor_queued_locked(struct yoke_pool *pool, size_t tasks)
{
    if (pool->governor == NULL || pool->stopping) {
        return;
    }
    const unsigned away = blocking(pool->ctl) + resting(pool->ctl);
    const unsigned target = yk_ctl_target(pool->ctl);
    unsigned running = pool->alive > away ? pool->alive - away : 0;
    for (; tasks > 0 && running < target && add_locked(pool); tasks--) {
        running++;
    }
    tell_locked(pool);
}

void yk_worker_block(struct yoke_worker *worker)
{
    struct yk_member *const member =
        (struct yk_member *)((char *)worker - offsetof(struct yk_member, worker));
    struct yoke_pool *const pool = member->pool;
    struct yk_ctl *const ctl = worker->ctl;
    /* relaxed: for the governor, who counts what there is. */
    atomic_store_explicit(&worker->line->blocking, 1, memory_order_relaxed);
    /* SYNC(blocking) seq_cst: before we look at tail: who publishes writes it, and then counts. */
    atomic_fetch_add_explicit(&ctl->blocking, 1, memory_order_seq_cst);
    yk_cpus_busy(-1);
    if (pool->governor == NULL || queued(&pool->table, 1) == 0) {
        return;
    }
    yk_biased_lock(&pool->lock);
    const unsigned away = blocking(ctl) + resting(ctl) + sleeping(&pool->table);
    if (pool->alive < away + yk_ctl_target(ctl) && !yk_table_wake_one(&pool->table)) {
        (void)add_locked(pool);
    }
    yk_biased_unlock(&pool->lock);
}

void yk_worker_unblock(struct yoke_worker *worker)
{
    yk_cpus_busy(1);
    /* relaxed: as above. */
    atomic_store_explicit(&worker->line->blocking, 0, memory_order_relaxed);
    /* SYNC(blocking) release: we run again. */
    atomic_fetch_sub_explicit(&worker->ctl->blocking, 1, memory_order_release);
}

void yk_governor_figures_locked(struct yoke_pool *pool, struct yk_figures *figures)
{
    const struct yk_governor *const governor = pool->governor;
    *figures = (struct yk_figures){0};
    if (governor == NULL || governor->span.wall_ns + governor->before.wall_ns == 0) {
        return;
    }
    const struct span *const span = &governor->span;
    /* Those before count while they are recent. */
    const struct span *const before = &governor->before;
    const bool recent = before->wall_ns != 0 && span->begin_ns - before->end_ns < FIGURES_NS;
    const int64_t begin = recent ? before->begin_ns : span->begin_ns;
    *figures = (struct yk_figures){
        .span_ns = span->end_ns - begin,
        .age_ns = yk_clock_ns() - span->end_ns,
        .wall_ns = span->wall_ns + (recent ? before->wall_ns : 0),
        .cpu_ns = span->cpu_ns + (recent ? before->cpu_ns : 0),
        .waited_ns = span->waited_ns + (recent ? before->waited_ns : 0),
        .blocked = governor->blocked,
    };
}
