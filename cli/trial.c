/* SPDX-License-Identifier: MIT
 * trial.c - times several ways to do one thing, fairly (see trial.h).
 */
#include "trial.h"

#include <stdlib.h>
#include <yoke/yoke.h>

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, size_t count)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static int run_once(struct trial *trial, double *ns)
{
    const int64_t start_ns = yoke_now_ns();
    const int rc = trial->run(trial->arg);
    *ns = (double)(yoke_now_ns() - start_ns) / (trial->calls > 0 ? trial->calls : 1);
    return rc;
}

/* One round, beginning with another trial each time. */
static int run_round(struct trial *trials, size_t count, size_t round, size_t slot)
{
    for (size_t i = 0; i < count; i++) {
        struct trial *trial = &trials[(i + round) % count];
        const int rc = run_once(trial, &trial->ns[slot]);
        if (rc != 0)
            return rc;
        trial->rounds = slot + 1;
    }
    return 0;
}

int trial_run(struct trial *trials, size_t count, size_t rounds, int64_t limit_ms)
{
    const int64_t until_ns = yoke_in_ms(limit_ms);
    if (rounds > TRIAL_ROUNDS_MAX)
        rounds = TRIAL_ROUNDS_MAX;
    int rc = run_round(trials, count, 0, 0); /* warms up, and is overwritten */
    for (size_t slot = 0; slot < rounds && rc == 0; slot++) {
        if (slot > 0 && yoke_now_ns() > until_ns)
            break;
        rc = run_round(trials, count, slot + 1, slot);
    }
    return rc;
}

double trial_median_ns(const struct trial *trial)
{
    double sorted[TRIAL_ROUNDS_MAX];
    for (size_t i = 0; i < trial->rounds; i++)
        sorted[i] = trial->ns[i];
    return median(sorted, trial->rounds);
}

double trial_speedup(const struct trial *slow, const struct trial *fast)
{
    double ratios[TRIAL_ROUNDS_MAX];
    const size_t rounds = slow->rounds < fast->rounds ? slow->rounds : fast->rounds;
    for (size_t i = 0; i < rounds; i++)
        ratios[i] = slow->ns[i] / (fast->ns[i] > 0 ? fast->ns[i] : 1);
    return median(ratios, rounds);
}
