/* SPDX-License-Identifier: MIT
 * pass.h - passes of small tasks through a pool of Yoke, of any kind.
 *
 * A pass sends numbers to a task that adds one, and looks at each answer and each outcome: a
 * pass that lost a task or got a wrong answer gives no figure. All return NULL, or what is wrong.
 */
#ifndef BENCH_PASS_H
#define BENCH_PASS_H

#include <yoke/yoke.h>

/** Make the pool that the passes use. With pinned, worker 0 is bound to the second CPU and the
 *  caller to the first, in this order, so that Yoke still sees all CPUs when the pool is made. */
const char *pass_pool_start(int kind, unsigned workers, int pinned);
void pass_pool_stop(void);
yoke_pool *pass_pool(void);

/** Submit, wait, look, release, one task at a time. */
const char *pass_round_trips(unsigned warm, unsigned count, double *ns_each);

/** The same with depth tasks under way; the oldest is waited for. */
const char *pass_window(unsigned depth, unsigned warm, unsigned count, double *ns_each);
/** The same, handed in and taken back in batches; all four are multiples of batch. */
const char *pass_window_batches(unsigned depth, unsigned batch, unsigned warm, unsigned count,
                                double *ns_each);

/** Round trips that begin when both sides are asleep, of a task that naps so that the caller
 *  falls asleep too; what is counted is the two wakes (see ref_futex.c). A side that did not
 *  sleep is an error. */
const char *pass_sleeping(unsigned count, int64_t nap_ns, double *us_each);

/** The task that adds one to a uint64_t. */
int pass_add_one(yoke_task *task, const void *in, void *out);

/** Take the result of a job that has ended and give the job back; *out gets a copy. */
const char *pass_take(yoke_job *job, void *out, size_t bytes);

#endif
