/* SPDX-License-Identifier: MIT
 * process.h - the handle of a process, whether it runs a function or a program.   Room: process.
 */
#ifndef YK_PROCESS_H
#define YK_PROCESS_H

#include "platform/platform.h"
#include "process/capture.h"
#include "sync/mutex.h"
#include <yoke/process.h>
#include <yoke/program.h>

#define YK_STREAMS 3

struct yk_process_record;

struct yoke_process {
    /* read-only after start */
    uint64_t generation;
    struct yk_process_record *record; /* NULL: it runs a program */
    uint32_t owner;
    struct yk_program_handle program; /* pid and pidfd of both kinds; pidfd -1: it has gone */
    bool leave;                       /* YOKE_PROGRAM_LEAVE */
    bool kept;                        /* the keeper is held for it */
    struct yk_capture *captures[YK_STREAMS];
    yk_mutex lock;
    int pipes[YK_STREAMS]; /* under lock: our ends, or -1 */
    bool ended;            /* under lock */
    yoke_process_end end;  /* under lock until ended */
    struct yk_usage usage; /* under lock until ended */
};

/* 0, -EINVAL (NULL) or -ECHILD. */
int yk_process_check(const yoke_process *process);
bool yk_process_has_ended(yoke_process *process);
/* It has ended: reap it, once, and keep what is to be known. */
void yk_process_note_end(yoke_process *process);
int yk_process_send(yoke_process *process, int signal, enum yk_whom whom);

/* Of a program: close our end of its socket and of its pipes, and give its output back. Not ours:
 * the handle is a copy in a forked child, whose pump never knew it. */
void yk_program_forget(yoke_process *process, bool ours);

#endif
