/* SPDX-License-Identifier: MIT
 * seam.h - a make-believe machine below the library, for fuzzing in one thread without any fork.
 *
 * Idea: the system calls that block, fork or look at the machine are stood in for at link time
 * (-Wl,--wrap). Time is a number that goes on when somebody waits, a process is a row in a list,
 * the shared heap is a small arena between guard pages. A wait hands over to `seam_idle`: there
 * the harness plays the rest of the world. One input is one world, and worlds do not mix.
 */
#ifndef YOKE_FUZZ_SEAM_H
#define YOKE_FUZZ_SEAM_H

#include <stdio.h>

#include "memory/chunk.h"
#include "process/keeper.h"
#include "process/template.h"

#define SEAM_ARENA_BYTES ((size_t)16 << 20)
#define SEAM_PROCESSES 4096
#define SEAM_FIRST_FD 1000000

/* What must hold; says what does not, then ends in a crash that the fuzzer notes. */
#define MUST(cond) ((cond) ? (void)0 : seam_fail(#cond, __FILE__, __LINE__))
_Noreturn void seam_fail(const char *what, const char *file, int line);

/* --- the input ------------------------------------------------------------------------------ */

struct input {
    const uint8_t *at;
    size_t left;
};

static inline uint64_t take_bytes(struct input *input, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && input->left > 0; i++, input->left--) {
        value |= (uint64_t)*input->at++ << 8 * i;
    }
    return value;
}

static inline unsigned take(struct input *input, unsigned below)
{
    return (unsigned)take_bytes(input, 1) % below;
}

/* --- the world ------------------------------------------------------------------------------ */

struct seam_process {
    int pidfd;
    int open;    /* descriptors of it that the program holds */
    bool killed; /* will end when the world goes on */
    bool ended;
    bool reaped;
    int status; /* of its end: a signal, or minus its exit code */
    yk_image_entry *entry;
    void *arg;
};

extern struct seam_process seam_processes[SEAM_PROCESSES];
extern int seam_process_count;
extern unsigned char *seam_arena;
extern int64_t seam_now_ns;
/* The world goes on: called by every wait. True: wake the waiter with -EINTR. */
extern bool (*seam_idle)(void);
/* Waits since the harness set this to 0; too many of them are a hang. */
extern unsigned seam_waits;
extern unsigned seam_waits_max;

/* A new world: the heap is empty and unopened, no process lives. */
void seam_reset(void);
/* Every process is reaped and every descriptor closed, all private memory is given back. */
void seam_check_leaks(void);

/* A process that the template would make; its pidfd is SEAM_FIRST_FD + its number. */
int seam_spawn(yk_image_entry *entry, void *arg, int *pid, int *pidfd);
struct seam_process *seam_process_of(int pidfd);
/* The process ends now, whatever it does. */
void seam_end(struct seam_process *process, int status);

/* On the keeper: tell of one death, if there is one; then tick. */
bool seam_keeper_step(void);

/* What ticks as long as the program lives. */
void seam_drop_tickers(void);

/* Written by somebody in the arena: what is noted is zeroed again by seam_reset. */
void seam_dirty(const void *start, size_t bytes);
/* All of [start, start + bytes) is in the arena, beyond the chunks that hold words. */
bool seam_in_heap(const void *start, size_t bytes);

#endif
