/* SPDX-License-Identifier: MIT
 * demo.h - the parts of `yoke demo`, one file each (demo_*.c).
 *
 * Idea: a part prints its own heading, its figures and what they mean.
 */
#ifndef DEMO_H
#define DEMO_H

/* Each returns 0, or an error for yoke_strerror. */
int demo_work(void);     /* squares and primes on all CPUs */
int demo_wait(void);     /* downloads */
int demo_python(void);   /* python3's threads and the GIL */
int demo_survival(void); /* a worker killed in the middle of a map */

#endif
