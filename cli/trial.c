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

int trial_round(struct trial *trials, size_t count, size_t first)
{
    for (size_t i = 0; i < count; i++) {
        struct trial *trial = &trials[(i + first) % count];
        double ns = 0;
        const int rc = run_once(trial, &ns);
        if (rc != 0)
            return rc;
        if (trial->rounds < TRIAL_ROUNDS_MAX)
            trial->ns[trial->rounds++] = ns;
    }
    return 0;
}

int trial_run(struct trial *trials, size_t count, size_t rounds, int64_t limit_ms)
{
    const int64_t until_ns = yoke_in_ms(limit_ms);
    int rc = trial_round(trials, count, 0);
    for (size_t i = 0; i < count; i++)
        trials[i].rounds = 0; /* that was to warm up */
    for (size_t round = 0; round < rounds && rc == 0; round++) {
        if (round > 0 && yoke_now_ns() > until_ns)
            break;
        rc = trial_round(trials, count, round);
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
