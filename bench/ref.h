/* SPDX-License-Identifier: MIT
 * ref.h - the references: the plain ways to do what Yoke does.
 *
 * Each has start, a pass that measures, and stop. A pass of a reference does the same work as
 * the pass of Yoke beside it (see pass.h): it adds one to each number it sends, and looks at
 * each answer. All return NULL, or what is wrong.
 */
#ifndef BENCH_REF_H
#define BENCH_REF_H

#include <stddef.h>
#include <stdint.h>

/** Two processes and two cache lines, one for each direction; both sides spin, the peer on the
 *  second CPU. The shortest round trip that two processes can have. */
const char *ref_line_start(void);
const char *ref_line_pass(unsigned warm, unsigned count, double *ns_each);
void ref_line_stop(void);

/** A ring of 64 slots in shared memory to a process and one back, one line a slot; both sides
 *  spin, the peer on the second CPU; 64 numbers are under way. */
const char *ref_ring_start(void);
const char *ref_ring_pass(unsigned warm, unsigned count, double *ns_each);
void ref_ring_stop(void);

/** Two processes that sleep on a futex each; see pass_sleeping. */
const char *ref_futex_start(void);
const char *ref_futex_pass(unsigned count, int64_t nap_ns, double *us_each);
void ref_futex_stop(void);

/** A pool of processes on two pipes: all read requests from one and write answers to the other. */
const char *ref_pipe_start(unsigned workers);
const char *ref_pipe_pass(unsigned depth, unsigned count, double *ns_each);
void ref_pipe_stop(void);

/** A pool of threads on one mutex and two condition variables. */
const char *ref_condvar_start(unsigned workers);
const char *ref_condvar_pass(unsigned depth, unsigned warm, unsigned count, double *ns_each);
void ref_condvar_stop(void);

#endif
