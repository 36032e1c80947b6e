/* SPDX-License-Identifier: MIT
 * trial.h - times several ways to do one thing, fairly.
 *
 * Idea: the ways take turns, round by round, each round beginning with another one, so that a
 * machine that gets slower in the middle slows all of them. Figures are medians; a ratio is the
 * median of the ratios of each round.
 */
#ifndef TRIAL_H
#define TRIAL_H

#include <stddef.h>
#include <stdint.h>

enum { TRIAL_ROUNDS_MAX = 31 };

struct trial {
    const char *label;
    int (*run)(void *arg); /* 0, or an error for yoke_strerror */
    void *arg;
    double calls; /* how many operations one run does; 0: one */
    double ns[TRIAL_ROUNDS_MAX];
    size_t rounds;
};

/** Run each once to warm up, then rounds times (at most TRIAL_ROUNDS_MAX); fewer times, but at
 *  least once, when limit_ms have passed.
 *  \return 0, or the first error of a run. */
int trial_run(struct trial *trials, size_t count, size_t rounds, int64_t limit_ms);

/** One round more, beginning with trial number first. \return as trial_run. */
int trial_round(struct trial *trials, size_t count, size_t first);

/** Nanoseconds of one operation. */
double trial_median_ns(const struct trial *trial);

/** How many times as fast fast is as slow. */
double trial_speedup(const struct trial *slow, const struct trial *fast);

/** The median of values; reorders them. */
double median(double *values, size_t count);

#endif
