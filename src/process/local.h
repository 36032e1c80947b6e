/* SPDX-License-Identifier: MIT
 * local.h - what programs need once per process, in an area that forks wipe.   Room: process.
 */
#ifndef YK_PROGRAM_LOCAL_H
#define YK_PROGRAM_LOCAL_H

#include "platform/platform.h"
#include "sync/mutex.h"

struct yk_capture;

struct yk_pump {
    yk_mutex admin;
    yk_mutex lock;
    unsigned holds;              /* under admin */
    struct yk_capture *captures; /* under lock */
    uint64_t last_number;        /* under lock */
    bool stop;                   /* under lock */
    int epoll;                   /* read-only after start */
    int wake;                    /* read-only after start */
    yk_thread_id thread;         /* read-only after start */
    char *scratch;               /* under lock */
};

/* The supervisor as a file; it stays open, as opening it takes longer than the start of a program.
 * Who closes all descriptors of the program closes it too, so it is looked at before each use. */
struct yk_supervisor_file {
    yk_mutex lock;
    bool open;                        /* under lock */
    int fd;                           /* under lock */
    struct yk_file_identity identity; /* under lock */
};

struct yk_program_local {
    struct yk_pump pump;
    struct yk_supervisor_file supervisor;
};

_Static_assert(sizeof(struct yk_program_local) <= YK_LOCAL_BYTES, "fits the area that forks wipe");

/* NULL: no memory. */
static inline struct yk_program_local *yk_program_local(void)
{
    return yk_process_local(YK_LOCAL_PROGRAM);
}

#endif
