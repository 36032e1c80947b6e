/* SPDX-License-Identifier: MIT
 * roles.h - the other roles of the program, for main.c.
 *
 * Some figures need programs of their own: one that holds much memory, one that is killed. They
 * are this program, started again with a role. Each returns the exit code.
 */
#ifndef BENCH_ROLES_H
#define BENCH_ROLES_H

/** Hold that many megabytes and start what stdin tells (start.c). */
int start_holder_main(const char *megabytes);

/** Start a program with a busy pool, kill it, and tell what was left (clean.c). */
int clean_watcher_main(const char *unused);

/** Be that program (clean.c). */
int clean_busy_main(const char *unused);

#endif
