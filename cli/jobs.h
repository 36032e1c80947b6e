/* SPDX-License-Identifier: MIT
 * jobs.h - the CPU-bound jobs that demo and tour time: squares and primes.
 *
 * Idea: a job is a sum over the numbers 0 to count - 1 with a known result. It runs as a plain
 * loop, or on a pool, and each run checks its result, so that no figure stands for wrong work.
 */
#ifndef JOBS_H
#define JOBS_H

#include <stddef.h>
#include <stdint.h>
#include <yoke/yoke.h>

enum { SQUARES_COUNT = 1000000, PRIMES_BELOW = 3000000 };

struct job {
    uint64_t (*sum)(size_t begin, size_t end); /* the plain loop */
    yoke_range_fn *range;                      /* the same as a task */
    size_t count;
    uint64_t expected;
    yoke_pool *pool;         /* for job_pool */
    yoke_pool_config config; /* for job_cold */
};

struct job job_squares(size_t count); /* the squares of 1 to count, added up */
struct job job_primes(size_t below);  /* how many numbers below it are prime */

/** How many of the numbers begin to end - 1 are prime. */
uint64_t job_primes_between(size_t begin, size_t end);

/* For trial_run; arg is the job. 0, an error, or -EILSEQ when the result is wrong. */
int job_plain(void *arg); /* one loop in the caller */
int job_pool(void *arg);  /* on job->pool */
int job_cold(void *arg);  /* on a pool that is made for it and ended after it */

/** A pool of that kind. workers 0: as many as CPUs. */
int pool_make(int kind, unsigned workers, yoke_pool **pool);

#endif
