/* SPDX-License-Identifier: MIT
 * jobs.c - the CPU-bound jobs that demo and tour time (see jobs.h).
 */
#include "jobs.h"

#include <errno.h>

/* Each square is stored, in a block that stays in the cache, and then added up: a compiler that
 * sees only the sum may put a formula in the place of the whole loop. */
static uint64_t squares_sum(size_t begin, size_t end)
{
    enum { BLOCK = 1024 };
    uint64_t block[BLOCK], sum = 0;
    for (size_t i = begin; i < end; i += BLOCK) {
        const size_t n = end - i < BLOCK ? end - i : BLOCK;
        for (size_t k = 0; k < n; k++)
            block[k] = (uint64_t)(i + k + 1) * (i + k + 1);
        for (size_t k = 0; k < n; k++)
            sum += block[k];
    }
    return sum;
}

uint64_t job_primes_between(size_t begin, size_t end)
{
    uint64_t count = 0;
    for (uint32_t n = (uint32_t)begin; n < (uint32_t)end; n++) {
        int prime = n == 2 || (n > 2 && n % 2 == 1);
        for (uint32_t d = 3; prime && d * d <= n; d += 2)
            prime = n % d != 0;
        count += (uint64_t)prime;
    }
    return count;
}

static int squares_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    *(uint64_t *)accumulator += squares_sum(begin, end);
    return 0;
}

static int primes_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    *(uint64_t *)accumulator += job_primes_between(begin, end);
    return 0;
}

static void add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

struct job job_squares(size_t count)
{
    /* n (n + 1) (2 n + 1) / 6: one factor is divided by 2 and one by 3, then all wrap around
     * just as the sum does. */
    uint64_t a = count, b = count + 1, c = 2 * (uint64_t)count + 1;
    *(a % 2 == 0 ? &a : &b) /= 2;
    *(a % 3 == 0 ? &a : b % 3 == 0 ? &b : &c) /= 3;
    return (struct job){
        .sum = squares_sum, .range = squares_range, .count = count, .expected = a * b * c};
}

struct job job_primes(size_t below)
{
    return (struct job){.sum = job_primes_between,
                        .range = primes_range,
                        .count = below,
                        .expected = job_primes_between(0, below)};
}

int job_plain(void *arg)
{
    const struct job *job = arg;
    return job->sum(0, job->count) == job->expected ? 0 : -EILSEQ;
}

static int reduce(const struct job *job, yoke_pool *pool)
{
    uint64_t sum = 0;
    const int rc = yoke_reduce(pool, job->range, add, job->count, &sum, sizeof sum, NULL);
    if (rc != 0)
        return rc;
    return sum == job->expected ? 0 : -EILSEQ;
}

int job_pool(void *arg)
{
    const struct job *job = arg;
    return reduce(job, job->pool);
}

int job_cold(void *arg)
{
    const struct job *job = arg;
    yoke_pool *pool = NULL;
    int rc = yoke_pool_create(&job->config, &pool);
    if (rc != 0)
        return rc;
    rc = reduce(job, pool);
    yoke_pool_destroy(pool, YOKE_FOREVER);
    return rc;
}

int pool_make(int kind, unsigned workers, yoke_pool **pool)
{
    const yoke_pool_config config = {.size = sizeof config, .kind = kind, .workers = workers};
    return yoke_pool_create(&config, pool);
}
