/* SPDX-License-Identifier: MIT
 * inject.h - put before each source of the library, it makes any system call of theirs fail.
 *
 * Idea: the calls that src/platform makes, and malloc and calloc everywhere, become macros that
 * ask first: inject_fails() knows the place (file, function, line) and how often it was passed, in
 * this process and in the copies that were made of it, since its notes lie in shared memory. A
 * call that fails does nothing; close and munmap, which always do their work, do it and say that
 * they failed. An error of 0 is a wake-up that nobody sent. The plan is in inject_plan.h.
 */
#ifndef YOKE_TESTS_INJECT_H
#define YOKE_TESTS_INJECT_H

#include <stdlib.h>

#if defined(INJECT_PLATFORM)
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

/* 1: this call is to fail; errno says how. */
int inject_fails(const char *file, const char *function, int line, const char *call);
/* What the last one failed with, in this thread. */
int inject_error(void);
/* 0 where the error is a wake-up that nobody sent, else -1. */
int inject_minus(void);
/* A call that makes copies of the process: in the copy we are one generation further. */
long inject_copied(const char *call, long result);
/* Mappings are counted: whoever maps must unmap. */
void *inject_mapped(void *at);

#define INJECT_ASK(call) inject_fails(__FILE__, __func__, __LINE__, #call)
#define INJECT_OR(failure, call, ...) (INJECT_ASK(call) ? (failure) : call(__VA_ARGS__))

#define malloc(...) INJECT_OR(NULL, malloc, __VA_ARGS__)
#define calloc(...) INJECT_OR(NULL, calloc, __VA_ARGS__)

#if defined(INJECT_PLATFORM)

/* -1 and errno */
#define INJECT_INT(call, ...) INJECT_OR(inject_minus(), call, __VA_ARGS__)
#define access(...) INJECT_INT(access, __VA_ARGS__)
#define dup(...) INJECT_INT(dup, __VA_ARGS__)
#define dup2(...) INJECT_INT(dup2, __VA_ARGS__)
#define dup3(...) INJECT_INT(dup3, __VA_ARGS__)
#define epoll_create1(...) INJECT_INT(epoll_create1, __VA_ARGS__)
#define epoll_ctl(...) INJECT_INT(epoll_ctl, __VA_ARGS__)
#define epoll_wait(...) INJECT_INT(epoll_wait, __VA_ARGS__)
#define eventfd(...) INJECT_INT(eventfd, __VA_ARGS__)
#define fcntl(...) INJECT_INT(fcntl, __VA_ARGS__)
#define ftruncate(...) INJECT_INT(ftruncate, __VA_ARGS__)
#define getrandom(...) INJECT_INT(getrandom, __VA_ARGS__)
#define getrlimit(...) INJECT_INT(getrlimit, __VA_ARGS__)
#define setrlimit(...) INJECT_INT(setrlimit, __VA_ARGS__)
#define ioctl(...) INJECT_INT(ioctl, __VA_ARGS__)
#define kill(...) INJECT_INT(kill, __VA_ARGS__)
#define madvise(...) INJECT_INT(madvise, __VA_ARGS__)
#define memfd_create(...) INJECT_INT(memfd_create, __VA_ARGS__)
#define mkdir(...) INJECT_INT(mkdir, __VA_ARGS__)
#define open(...) INJECT_INT(open, __VA_ARGS__)
#define openat(...) INJECT_INT(openat, __VA_ARGS__)
#define pipe2(...) INJECT_INT(pipe2, __VA_ARGS__)
#define poll(...) INJECT_INT(poll, __VA_ARGS__)
#define prctl(...) INJECT_INT(prctl, __VA_ARGS__)
#define pwrite(...) INJECT_INT(pwrite, __VA_ARGS__)
#define read(...) INJECT_INT(read, __VA_ARGS__)
#define readlink(...) INJECT_INT(readlink, __VA_ARGS__)
#define recv(...) INJECT_INT(recv, __VA_ARGS__)
#define rmdir(...) INJECT_INT(rmdir, __VA_ARGS__)
#define sched_getaffinity(...) INJECT_INT(sched_getaffinity, __VA_ARGS__)
#define send(...) INJECT_INT(send, __VA_ARGS__)
#define setsid(...) INJECT_INT(setsid, __VA_ARGS__)
#define setpgid(...) INJECT_INT(setpgid, __VA_ARGS__)
#define sigaction(...) INJECT_INT(sigaction, __VA_ARGS__)
#define socketpair(...) INJECT_INT(socketpair, __VA_ARGS__)
#define stat(...) INJECT_INT(stat, __VA_ARGS__)
#define fstat(...) INJECT_INT(fstat, __VA_ARGS__)
#define sysconf(...) INJECT_INT(sysconf, __VA_ARGS__)
#define sysinfo(...) INJECT_INT(sysinfo, __VA_ARGS__)
#define unlink(...) INJECT_INT(unlink, __VA_ARGS__)
#define unlinkat(...) INJECT_INT(unlinkat, __VA_ARGS__)
#define waitid(...) INJECT_INT(waitid, __VA_ARGS__)
#define waitpid(...) INJECT_INT(waitpid, __VA_ARGS__)
#define write(...) INJECT_INT(write, __VA_ARGS__)

/* NULL */
#define fopen(...) INJECT_OR(NULL, fopen, __VA_ARGS__)
#define fgets(...) INJECT_OR(NULL, fgets, __VA_ARGS__)
#define opendir(...) INJECT_OR(NULL, opendir, __VA_ARGS__)
#undef CPU_ALLOC
#define CPU_ALLOC(count) (INJECT_ASK(CPU_ALLOC) ? NULL : __sched_cpualloc(count))

/* the error itself */
#define INJECT_RC(call, ...) INJECT_OR(inject_error(), call, __VA_ARGS__)
#define pthread_atfork(...) INJECT_RC(pthread_atfork, __VA_ARGS__)
#define pthread_attr_init(...) INJECT_RC(pthread_attr_init, __VA_ARGS__)
#define pthread_attr_setaffinity_np(...) INJECT_RC(pthread_attr_setaffinity_np, __VA_ARGS__)
#define pthread_attr_setstacksize(...) INJECT_RC(pthread_attr_setstacksize, __VA_ARGS__)
#define pthread_create(...) INJECT_RC(pthread_create, __VA_ARGS__)
#define pthread_setname_np(...) INJECT_RC(pthread_setname_np, __VA_ARGS__)
#define pthread_sigmask(...) INJECT_RC(pthread_sigmask, __VA_ARGS__)
#define posix_spawn(...) INJECT_RC(posix_spawn, __VA_ARGS__)

/* done all the same */
#define INJECT_DONE(call, ...) \
    (INJECT_ASK(call) ? ((void)call(__VA_ARGS__), errno = inject_error(), -1) : call(__VA_ARGS__))
#define close(...) INJECT_DONE(close, __VA_ARGS__)
#define munmap(...) (inject_mapped(NULL), INJECT_DONE(munmap, __VA_ARGS__))

#define mmap(...) (INJECT_ASK(mmap) ? MAP_FAILED : inject_mapped(mmap(__VA_ARGS__)))
#define fork() (INJECT_ASK(fork) ? -1 : (pid_t)inject_copied("fork", fork()))
#define syscall(number, ...) \
    (inject_fails(__FILE__, __func__, __LINE__, #number) \
         ? (long)inject_minus() \
         : inject_copied(#number, syscall(number, ##__VA_ARGS__)))

#endif
#endif
