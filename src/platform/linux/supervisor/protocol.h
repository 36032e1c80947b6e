/* SPDX-License-Identifier: MIT
 * protocol.h - what the program and a supervisor say to each other, over a socket pair.
 *
 * Idea: one packet, one struct. The task comes first, before the supervisor runs; then reports one
 * way and commands the other. The end of the socket is an order to end everything.
 * Room: platform.
 */
#ifndef YK_PROTOCOL_H
#define YK_PROTOCOL_H

#include <stdint.h>

#include "platform/linux/supervisor/raw.h"

#define YK_LIMITS_MAX 4

struct yk_sup_task {
    int32_t host;  /* the program's pid */
    int32_t leave; /* what the program's child leaves running when it ends may go on */
    uint32_t limit_count;
    uint32_t unused;
    struct yk_raw_limit limits[YK_LIMITS_MAX];
};

enum { YK_SUP_ONE = 1, YK_SUP_GROUP, YK_SUP_TREE, YK_SUP_KILL };

struct yk_sup_command {
    int32_t whom;
    int32_t signal; /* not for YK_SUP_KILL */
};

enum { YK_SUP_STARTED = 1, YK_SUP_FAILED, YK_SUP_ENDED };

struct yk_sup_report {
    int32_t what;
    int32_t pid;    /* of the supervised program */
    int32_t error;  /* YK_SUP_FAILED: -errno */
    int32_t status; /* YK_SUP_ENDED: as wait gives it */
    struct rusage usage;
};

#endif
