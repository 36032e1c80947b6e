/* SPDX-License-Identifier: MIT
 * warm.h - one copy of the seed that waits, ready, for the next single process.   Room: process.
 */
#ifndef YK_WARM_H
#define YK_WARM_H

#include "process/template.h"
#include <yoke/process.h>

#define YK_PROCESS_NAME_BYTES 16

/* What a single process is told, and tells; in the shared heap. */
struct yk_process_record {
    yoke_process_fn *fn;
    void *arg;
    char name[YK_PROCESS_NAME_BYTES];
    uint32_t owner; /* of the heap chunks it takes */
    _Atomic uint32_t
        go; /* SYNC(process-go): not 0: the fields above are set, the start succeeded */
    _Atomic int returned; /* the exit code + 1, once fn returned */
};

/* A zeroed record with an owner; NULL: no memory. */
struct yk_process_record *yk_record_make(void);
/* process.c: what the process runs; arg is its record. */
void yk_process_main(void *arg);
/* In the process: wait for the record's go. */
void yk_record_await_go(struct yk_process_record *record);

/* The waiting copy, if there is one; its record is to be filled in and told to go. */
bool yk_warm_take(struct yk_process_record **record, int *pid, int *pidfd);
/* After that, and after a start without it: have one made soon. */
void yk_warm_order(void);
/* The seed is planted anew: the old copy goes. */
void yk_warm_discard(void);

#endif
