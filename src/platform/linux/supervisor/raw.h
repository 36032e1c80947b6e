/* SPDX-License-Identifier: MIT
 * raw.h - system calls without libc, for code that runs between clone and exec.
 *
 * Idea: the supervisor has no libc at all, and a child that still shares the program's memory
 * must not touch libc's errno, locks or, under sanitizers, their interceptors. Every call returns
 * its result or -errno. What is the same in both starts is here: running argv[0] by PATH, default
 * signals, limits.   Room: platform.
 */
#ifndef YK_RAW_H
#define YK_RAW_H

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#if defined(__clang__)
#define YK_RAW __attribute__((no_sanitize("address", "thread", "undefined")))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define YK_RAW __attribute__((no_sanitize("address"), no_sanitize("thread")))
#else
#define YK_RAW
#endif

#define YK_PATH_BYTES 4096
#define YK_SIGNALS 64
#define YK_MASK_BYTES 8

struct yk_raw_limit {
    int resource;
    int unused;
    uint64_t soft, hard;
};

YK_RAW static inline long yk_raw5(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
    long rc;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return rc;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
#endif
}

/* One to five arguments, of any kind that fits a register. */
#define YK_SYS(...) YK_SYS_FILL(__VA_ARGS__, 0, 0, 0, 0, 0)
#define YK_SYS_FILL(number, a, b, c, d, e, ...) \
    yk_raw5((number), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* A child that runs fn(arg) on its own stack in our memory; we sleep until it executes another
 * program or exits. fn must not return. */
YK_RAW static inline long yk_raw_vfork(long flags, void *stack_top, int *pidfd, void (*fn)(void *),
                                       void *arg)
{
#if defined(__x86_64__)
    long rc;
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "mov %[arg], %%rdi\n\t"
                     "call *%[fn]\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(rc)
                     : "a"(SYS_clone), "D"(flags), "S"(stack_top), "d"(pidfd), "r"(r10),
                       "r"(r8), [fn] "r"(fn), [arg] "r"(arg)
                     : "rcx", "r11", "memory");
    return rc;
#else
    register long x8 __asm__("x8") = SYS_clone;
    register long x0 __asm__("x0") = flags;
    register void *x1 __asm__("x1") = stack_top;
    register int *x2 __asm__("x2") = pidfd;
    register long x3 __asm__("x3") = 0;
    register long x4 __asm__("x4") = 0;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x0, %[arg]\n\t"
                     "blr %[fn]\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), [fn] "r"(fn), [arg] "r"(arg)
                     : "memory");
    return x0;
#endif
}

YK_RAW static inline void yk_raw_exit(int code)
{
    for (;;) {
        YK_SYS(SYS_exit_group, code);
    }
}

YK_RAW static inline void yk_raw_mask(uint64_t mask)
{
    enum { SET_MASK = 2 };
    YK_SYS(SYS_rt_sigprocmask, SET_MASK, &mask, 0, YK_MASK_BYTES);
}

/* Default actions for all signals, those ignored too. */
YK_RAW static inline void yk_raw_signals_default(void)
{
    const uint64_t action[4] = {0}; /* the kernel's struct: all zero is the default action */
    for (long i = 1; i <= YK_SIGNALS; i++) {
        YK_SYS(SYS_rt_sigaction, i, action, 0, YK_MASK_BYTES);
    }
}

YK_RAW static inline long yk_raw_limits(const struct yk_raw_limit *limits, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const uint64_t pair[2] = {limits[i].soft, limits[i].hard};
        const long rc = YK_SYS(SYS_prlimit64, 0, limits[i].resource, pair, 0);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* What PATH says in that environment, or where programs usually are. */
YK_RAW static inline const char *yk_raw_path(char *const *environment)
{
    for (; *environment != NULL; environment++) {
        const char *const entry = *environment;
        if (entry[0] == 'P' && entry[1] == 'A' && entry[2] == 'T' && entry[3] == 'H' &&
            entry[4] == '=') {
            return entry + 5;
        }
    }
    return "/usr/local/bin:/usr/bin:/bin";
}

/* Write folder/name to at[0..YK_PATH_BYTES); returns where the next folder begins, or NULL. */
YK_RAW static inline const char *yk_raw_join(char *at, const char *folder, const char *name)
{
    size_t used = 0;
    for (; *folder != '\0' && *folder != ':'; folder++) {
        if (used < YK_PATH_BYTES) {
            at[used++] = *folder;
        }
    }
    if (used > 0 && used < YK_PATH_BYTES) {
        at[used++] = '/';
    }
    for (; *name != '\0' && used < YK_PATH_BYTES; name++) {
        at[used++] = *name;
    }
    at[used < YK_PATH_BYTES ? used : 0] = '\0'; /* too long is found nowhere */
    return *folder == ':' ? folder + 1 : NULL;
}

/* Become argv[0]: as it is when it holds a slash, else from a folder of PATH. Never a shell.
 * Returns -errno only. */
YK_RAW static inline long yk_raw_exec(char *const *argv, char *const *environment)
{
    for (const char *c = argv[0]; *c != '\0'; c++) {
        if (*c == '/') {
            return YK_SYS(SYS_execve, argv[0], argv, environment);
        }
    }
    if (argv[0][0] == '\0') {
        return -ENOENT;
    }
    char at[YK_PATH_BYTES];
    long answer = -ENOENT;
    const char *next = yk_raw_path(environment);
    while (next != NULL) {
        next = yk_raw_join(at, next, argv[0]);
        const long rc = YK_SYS(SYS_execve, at, argv, environment);
        if (rc == -EACCES) {
            answer = rc; /* there may be another one further on */
        } else if (rc != -ENOENT && rc != -ENOTDIR && rc != -ESTALE && rc != -ENODEV) {
            return rc;
        }
    }
    return answer;
}

#endif
