/* SPDX-License-Identifier: MIT
 * futex.c - sleep on a word, wake who sleeps on it.   Room: platform.
 *
 * Idea: FUTEX_WAIT_BITSET takes an absolute deadline, so a wait that is interrupted and called
 * again does not grow longer. A wake that finds nobody costs a system call: callers check first.
 * And membarrier, for who wants a barrier on the other side only.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "platform/platform.h"

#define NS_PER_S 1000000000LL

int yk_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns, enum yk_scope scope)
{
    const int operation = FUTEX_WAIT_BITSET | (scope == YK_PRIVATE ? FUTEX_PRIVATE_FLAG : 0);
    /* Always with a limit, if far: a wait without one is begun again after a signal whose handler
     * was installed with SA_RESTART, and nobody would hear of the signal. */
    const int64_t ns = until_ns > 0 ? until_ns : 0;
    const struct timespec until = {.tv_sec = (time_t)(ns / NS_PER_S),
                                   .tv_nsec = (long)(ns % NS_PER_S)};
    const int saved = errno;
    const long rc =
        syscall(SYS_futex, word, operation, expected, &until, NULL, FUTEX_BITSET_MATCH_ANY);
    const int error = rc < 0 ? -errno : 0;
    errno = saved;
    return error;
}

void yk_futex_wake(_Atomic uint32_t *word, int count, enum yk_scope scope)
{
    const int operation = FUTEX_WAKE | (scope == YK_PRIVATE ? FUTEX_PRIVATE_FLAG : 0);
    const int saved = errno;
    syscall(SYS_futex, word, operation, count, NULL, NULL, 0);
    errno = saved;
}

static long membarrier(int command)
{
    const int saved = errno;
    const long rc = syscall(SYS_membarrier, command, 0, 0);
    errno = saved;
    return rc;
}

bool yk_barrier_prepare(void)
{
#if defined(__SANITIZE_THREAD__)
    return false; /* it does not know that such a barrier orders anything */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
    return false;
#endif
#endif
    return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

void yk_barrier_prepare_early(void)
{
    if (__libc_single_threaded != 0) {
        (void)yk_barrier_prepare();
    }
}

bool yk_barrier_everywhere(void)
{
    return membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}
