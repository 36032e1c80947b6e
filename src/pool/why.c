/* SPDX-License-Identifier: MIT
 * why.c - a pool says why it has the workers it has.   Room: pool.
 *
 * Idea: what decides is told with the figures it went by, and nothing else: the number asked for,
 * the CPUs, or what the governor saw tasks do while others queued.
 */
#include <errno.h>
#include <stdio.h>

#include "pool/governor.h"

#define TEXT_BYTES 512
#define RECENT_NS 1000000000LL

/* What decides, copied under the lock. */
struct facts {
    unsigned workers, target, cpus;
    struct yk_figures figures;
};

static unsigned percent(int64_t part, int64_t whole)
{
    const int64_t of_100 =
        part > 0 && whole > 0 ? (int64_t)(100.0 * (double)part / (double)whole + 0.5) : 0;
    return of_100 > 100 ? 100 : (unsigned)of_100;
}

static int say_fixed(const struct yoke_pool *pool, const struct facts *facts, char *text)
{
    const char *const cpus = "one per CPU that this process could use (by affinity, cgroup quota "
                             "and what is online) when the pool was made";
    const char *const asked = "as many as were asked for";
    const unsigned wanted = pool->config.workers;
    int length =
        snprintf(text, TEXT_BYTES, "%u workers: %s.", wanted, pool->follows ? cpus : asked);
    if (pool->kind == YOKE_PROCESSES) {
        length +=
            snprintf(text + length, TEXT_BYTES - (size_t)length,
                     " A process pool keeps that number: who dies is replaced (%u are there).",
                     facts->workers);
    } else if (facts->target < wanted) {
        length += snprintf(text + length, TEXT_BYTES - (size_t)length,
                           " It may use %u CPU%s now, so %u of them run%s tasks; the others rest.",
                           facts->cpus, facts->cpus == 1 ? "" : "s", facts->target,
                           facts->target == 1 ? "s" : "");
    }
    return length;
}

/* "one worker per CPU (2)" or "the 2 workers asked for" */
static void name_target(const struct yoke_pool *pool, const struct facts *facts, char *text,
                        size_t bytes)
{
    snprintf(text, bytes, pool->follows ? "one worker per CPU (%u)" : "the %u workers asked for",
             facts->target);
}

static int say_so(const struct facts *facts, bool waiting, const char *base, char *text,
                  size_t bytes)
{
    if (facts->workers <= facts->target) {
        return snprintf(
            text, bytes, "%s %s",
            waiting ? "it had grown; with nothing left to do it is back at" : "there is", base);
    }
    if (waiting) {
        return snprintf(text, bytes, "it grew beyond %s: %u waited at the last look", base,
                        facts->figures.blocked);
    }
    return snprintf(text, bytes, "%s is at work; the others rest, and end in a second", base);
}

static int say_elastic(const struct yoke_pool *pool, const struct facts *facts, char *text)
{
    const struct yk_figures *const seen = &facts->figures;
    char base[64];
    char when[64];
    name_target(pool, facts, base, sizeof base);
    if (seen->wall_ns == 0) {
        return snprintf(text, TEXT_BYTES,
                        "%u workers: no task has had to queue for long, so there is no more than "
                        "%s. It may grow to %u.",
                        facts->workers, base, pool->config.workers_max);
    }
    if (seen->age_ns < RECENT_NS) {
        snprintf(when, sizeof when, "in the last %.1f s", (double)seen->span_ns / 1e9);
    } else {
        snprintf(when, sizeof when, "when tasks last queued, %.0f s ago,",
                 (double)seen->age_ns / 1e9);
    }
    const unsigned computed = percent(seen->cpu_ns, seen->wall_ns);
    const unsigned waited = percent(seen->waited_ns, seen->wall_ns);
    const char *const rest = computed + waited < 80 ? ", and for the rest no CPU was free" : "";
    int length = 0;
    if (waited > computed) {
        length =
            snprintf(text, TEXT_BYTES,
                     "%u workers: %s its tasks waited %u %% of their time and computed %u %%%s, "
                     "so ",
                     facts->workers, when, waited, computed, rest);
    } else {
        length =
            snprintf(text, TEXT_BYTES,
                     "%u workers: %s its tasks computed %u %% of their time and waited %u %%%s, "
                     "so ",
                     facts->workers, when, computed, waited, rest);
    }
    length += say_so(facts, waited > computed, base, text + length, TEXT_BYTES - (size_t)length);
    return length + snprintf(text + length, TEXT_BYTES - (size_t)length, ". It may grow to %u.",
                             pool->config.workers_max);
}

int yoke_pool_why(yoke_pool *pool, char *text, size_t bytes)
{
    const int rc = text == NULL && bytes != 0 ? -EINVAL : yk_pool_check(pool);
    if (rc != 0) {
        return rc;
    }
    char whole[TEXT_BYTES];
    struct facts facts = {0};
    yk_biased_lock(&pool->lock);
    facts.workers = pool->active;
    facts.target = pool->ctl != NULL ? yk_ctl_target(pool->ctl) : 0;
    yk_governor_figures_locked(pool, &facts.figures);
    yk_biased_unlock(&pool->lock);
    facts.cpus = yk_cpus_look();
    int length = 0;
    if (pool->kind == YOKE_SERIAL) {
        length =
            snprintf(whole, sizeof whole,
                     "No workers: a serial pool runs each task in the thread that hands it in.");
    } else if (yk_pool_is_elastic(pool)) {
        length = say_elastic(pool, &facts, whole);
    } else {
        length = say_fixed(pool, &facts, whole);
    }
    if (bytes != 0) {
        const size_t most = yk_min((size_t)length, bytes - 1);
        memcpy(text, whole, most);
        text[most] = '\0';
    }
    return length;
}
