/* SPDX-License-Identifier: MIT
 * plain.h - the same things with plain POSIX calls, to compare with.
 *
 * Idea: as one would write it by hand, without Yoke: a thread or a fork for each item, joined or
 * waited for. Children die with this program, so nothing is left behind when it is killed.
 */
#ifndef PLAIN_H
#define PLAIN_H

#include <stddef.h>
#include <sys/types.h>

typedef int plain_fn(void *item); /* 0 if it went well */

enum { PLAIN_MAX = 64 };

/** fn(item) for each of count items (at most PLAIN_MAX), each in a thread or a fork of its own.
 *  \return 0, -errno, or -EIO if one of them did not return 0. */
int plain_threads(plain_fn *fn, void *items, size_t item_bytes, size_t count);
int plain_forks(plain_fn *fn, void *items, size_t item_bytes, size_t count);

/** fork(); the child ends as soon as this program does. */
pid_t plain_fork(void);

/** fork and exec of a program; its input is fd input, unless that is -1.
 *  \return its process id or -errno. */
pid_t plain_exec(char *const argv[], int input);

/** waitpid. \return 0, -errno, or -EIO if it did not exit with 0. */
int plain_wait(pid_t pid);

#endif
