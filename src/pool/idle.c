/* SPDX-License-Identifier: MIT
 * idle.c - a worker without a task: it spins where that pays, and then sleeps.   Room: pool.
 *
 * How long to spin is learnt: longer after it found a task that way, shorter after it did not. At
 * most as many workers spin at once as there are CPUs, but one, which is the caller's. Who submits
 * wakes nobody while somebody spins; so whoever was idle and takes a task looks whether there are
 * more, and wakes the next worker for them, who does the same (claim.c has the argument).
 */
#include <errno.h>

#include "pool/cpus.h"
#include "pool/deque.h"
#include "pool/worker.h"

/* Cheap looks between two full ones: tail and our state are lines the program writes, and each
 * look at them makes its next write slow. */
#define FULL_LOOK_SPINS 32
#define BATCH_SPINS 512
#define POSTS_SPINS 8 /* between two looks at posted tasks */

static bool has_work_or_stops(struct yoke_worker *worker)
{
    return !yk_table_looks_empty(worker->table) || yk_posts_look(worker) ||
           yk_line_state_of(worker->line) != YK_LINE_ACTIVE;
}

/* Where tasks come in batches we are often faster than who writes them, and following him from slot
 * to slot would take each line away from him as he writes it: we wait for tail, which he moves
 * once for all. */
bool yk_worker_await_batch(struct yoke_worker *worker)
{
    for (uint32_t i = 0; i < BATCH_SPINS && i < worker->ctl->spins && worker->claimer.batches;
         i++) {
        if (yk_table_look_ahead(worker->table, &worker->claimer)) {
            return true;
        }
        yk_cpu_relax();
    }
    worker->claimer.batches = false;
    return false;
}

/* --- spinning ------------------------------------------------------------------------------- */

static _Atomic uint64_t *spinners(struct yoke_worker *worker)
{
    return &worker->ctl->spinners[worker->index / 64];
}

/* So many may spin at once, the rest goes to sleep. */
static bool spin_begin(struct yoke_worker *worker)
{
    if (worker->ctl->spinners_max == 0) {
        return true; /* nobody counts on us */
    }
    if (yk_table_spinners(worker->table) >= worker->ctl->spinners_max) {
        return false;
    }
    /* SYNC(spinners) seq_cst: before we look for tasks. */
    atomic_fetch_or_explicit(spinners(worker), 1ULL << worker->index % 64, memory_order_seq_cst);
    return true;
}

static void spin_end(struct yoke_worker *worker)
{
    if (worker->ctl->spinners_max != 0) {
        /* SYNC(spinners) seq_cst: before we look at tail, see claim.c. */
        atomic_fetch_and_explicit(spinners(worker), ~(1ULL << worker->index % 64),
                                  memory_order_seq_cst);
    }
}

void yk_worker_pass_on(struct yoke_worker *worker)
{
    worker->owes_wake = false;
    if (yk_table_look_ahead(worker->table, &worker->claimer)) {
        (void)yk_table_wake_one(worker->table);
    }
}

static bool look_for_work(struct yoke_worker *worker, uint32_t spins)
{
    struct yk_deque *const deque = worker->deque;
    const int64_t begin_ns = deque != NULL ? yk_clock_ns() : 0;
    for (uint32_t i = 1; i <= spins || (deque != NULL && yk_hungry_is_warm(deque)); i++) {
        if (yk_table_looks_ready(worker->table) || (deque != NULL && yk_hungry_has_mail(deque)) ||
            (i % POSTS_SPINS == 0 && yk_posts_look(worker))) {
            return true;
        }
        if (i % FULL_LOOK_SPINS == 0 &&
            (has_work_or_stops(worker) || (deque != NULL && yk_hungry_look(deque, begin_ns)))) {
            return true;
        }
        yk_cpu_relax();
    }
    return false;
}

static bool spin_for_work(struct yoke_worker *worker)
{
    const uint32_t most = worker->ctl->spins;
    if (most == 0 || !spin_begin(worker)) {
        return false;
    }
    const bool found = look_for_work(worker, yk_spins_now(&worker->spins, most));
    yk_spins_learn(&worker->spins, most, found);
    spin_end(worker);
    return found;
}

/* --- sleeping ------------------------------------------------------------------------------- */

/* Take our bit back; false: somebody else did, and a wake is on its way for a task. */
static bool bit_clear(struct yoke_worker *worker)
{
    _Atomic uint64_t *const word = &worker->ctl->sleepers[worker->index / 64];
    const uint64_t bit = 1ULL << worker->index % 64;
    /* SYNC(sleepers) seq_cst: before we look at tail a last time. */
    return (atomic_fetch_and_explicit(word, ~bit, memory_order_seq_cst) & bit) != 0;
}

static void bit_set(struct yoke_worker *worker)
{
    _Atomic uint64_t *const word = &worker->ctl->sleepers[worker->index / 64];
    /* SYNC(line-wake) acq_rel: after a stop order set it to 0, we see the order. */
    atomic_exchange_explicit(&worker->line->wake, 1, memory_order_acq_rel);
    /* SYNC(sleepers) seq_cst: before we look at tail, see claim.c. */
    atomic_fetch_or_explicit(word, 1ULL << worker->index % 64, memory_order_seq_cst);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Posts and frames have last looks of their own. */
static int nap(struct yoke_worker *worker, int64_t until_ns)
{
    struct yk_deque *const deque = worker->deque;
    const int64_t posts_until = yk_posts_doze(worker);
    if (posts_until == 0 || (deque != NULL && yk_hungry_park(deque))) {
        return 0;
    }
    const int64_t frames_until = deque != NULL ? yk_hungry_sleep(deque) : YOKE_FOREVER;
    const int64_t until = earlier(until_ns, earlier(posts_until, frames_until));
    yk_cpus_busy(-1);
    yk_target_follow(worker->table);
    const int rc = yk_futex_wait(&worker->line->wake, 1, until, worker->table->scope);
    yk_cpus_busy(1);
    return rc == -ETIMEDOUT && until != until_ns ? 0 : rc;
}

static int idle(struct yoke_worker *worker, int64_t until_ns)
{
    yk_posts_seek(worker);
    if (spin_for_work(worker)) {
        return 0;
    }
    bit_set(worker);
    int rc = 0;
    if (!has_work_or_stops(worker)) {
        rc = nap(worker, until_ns);
    }
    yk_posts_wake_up(worker);
    if (!bit_clear(worker) && rc == -ETIMEDOUT) {
        rc = 0; /* we were chosen for a task just now */
    }
    return rc == -EAGAIN ? 0 : rc;
}

int yk_worker_idle(struct yoke_worker *worker, int64_t until_ns)
{
    /* Also who did not spin: one wake that was passed on may stand for several tasks. */
    worker->owes_wake = worker->ctl->spinners_max != 0;
    if (worker->deque == NULL) {
        return idle(worker, until_ns);
    }
    yk_hungry_begin(worker->deque);
    int rc = 0;
    do {
        rc = idle(worker, until_ns);
    } while (yk_hungry_run(worker->deque) && !has_work_or_stops(worker));
    yk_hungry_end(worker->deque);
    return rc;
}
