/* SPDX-License-Identifier: MIT
 * machine.h - what the benchmarks need of the machine: time, CPUs, plain child processes.
 *
 * Idea: the references must not use Yoke, so they start processes and share memory with the
 * calls of the system alone. Every child goes when the program goes.
 */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** Now, on CLOCK_MONOTONIC: the same clock in all processes of the machine. */
int64_t bench_now_ns(void);

/** Sleep that long, signals or not. */
void bench_nap_ns(int64_t ns);

/** Remember the CPUs that the program may use; main calls it first. */
void bench_machine_init(void);
unsigned bench_cpu_count(void);

/** The memory that could be taken without swapping, in MiB. */
unsigned bench_available_mib(void);

/** Bind the calling thread to the index-th CPU of the program. \return 0, or -errno. */
int bench_pin(unsigned index);

/** Let the calling thread run on all CPUs of the program again. */
void bench_unpin(void);

/** How often the calling thread went to sleep of its own will so far. */
long bench_sleeps(void);

/** Zeroed memory that is shared with children made later; NULL if there is none. */
void *bench_share(size_t bytes);
void bench_unshare(void *memory, size_t bytes);

/** Fork a child that runs fn(arg) and goes with the calling thread. \return its id, or -errno. */
pid_t bench_fork(void (*fn)(void *), void *arg);

/** A child that runs this very program with other arguments, and its stdin and stdout. */
struct bench_program {
    pid_t pid; /* 0: none */
    int to, from;
};

/** Start this program with that role and argument (main.c lists the roles). \return 0, -errno. */
int bench_program_start(struct bench_program *program, const char *role, const char *argument);
void bench_program_stop(struct bench_program *program);

/** Kill a child and reap it; 0 or less does nothing. */
void bench_kill(pid_t pid);

/** Exactly that many bytes. \return 0, or -1: the other side has gone. */
int bench_read(int fd, void *bytes, size_t count);
int bench_write(int fd, const void *bytes, size_t count);

/** Tell the CPU that this is a spin loop. */
static inline void bench_pause(void)
{
#if defined(__x86_64__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

#endif
