/* SPDX-License-Identifier: MIT
 * rlimits.h - the limits of a process as the kernel takes them; for limits.c and program.c.
 *
 * Idea: what is asked for becomes a list that can be applied without libc, here or, sent along, in
 * a program's supervisor.   Room: platform.
 */
#ifndef YK_RLIMITS_H
#define YK_RLIMITS_H

#include "platform/linux/supervisor/protocol.h"
#include "platform/platform.h"

/* No limit is above what this process may set. How many there are. */
unsigned yk_limits_list(const yoke_limits *wanted, struct yk_raw_limit limits[YK_LIMITS_MAX]);

#endif
