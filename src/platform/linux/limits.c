/* SPDX-License-Identifier: MIT
 * limits.c - what one process may use.   Room: platform.
 *
 * Idea: a limit is the smaller of what is asked for and what the process may set, so setting one
 * is never refused: where the machine allows less already, less it is.
 */
#include "platform/linux/rlimits.h"

#include <errno.h>
#include <sys/resource.h>

#define NS_PER_S 1000000000LL

/* Soft and hard; soft alone is what the kernel warns at. */
static struct yk_raw_limit limit(__rlimit_resource_t what, uint64_t soft, uint64_t hard)
{
    const int saved = errno;
    struct rlimit now = {.rlim_max = RLIM_INFINITY};
    (void)getrlimit(what, &now);
    errno = saved;
    return (struct yk_raw_limit){
        .resource = (int)what,
        .soft = yk_min(soft, now.rlim_max),
        .hard = yk_min(hard, now.rlim_max),
    };
}

unsigned yk_limits_list(const yoke_limits *wanted, struct yk_raw_limit limits[YK_LIMITS_MAX])
{
    unsigned count = 0;
    if (wanted->memory_bytes != 0) {
        /* Not the address space: the shared heap alone has terabytes of that. */
        limits[count++] = limit(RLIMIT_DATA, wanted->memory_bytes, wanted->memory_bytes);
    }
    if (wanted->cpu_ns > 0) {
        const uint64_t seconds = (uint64_t)((wanted->cpu_ns - 1) / NS_PER_S + 1);
        /* SIGXCPU, and a second later SIGKILL */
        limits[count++] = limit(RLIMIT_CPU, seconds, seconds + 1);
    }
    if (wanted->file_bytes != 0) {
        limits[count++] = limit(RLIMIT_FSIZE, wanted->file_bytes, wanted->file_bytes);
    }
    if (wanted->files != 0) {
        limits[count++] = limit(RLIMIT_NOFILE, wanted->files, wanted->files);
    }
    return count;
}

int yk_limits_apply(const yoke_limits *limits)
{
    struct yk_raw_limit list[YK_LIMITS_MAX];
    const int saved = errno;
    int rc = 0;
    for (unsigned i = 0, count = yk_limits_list(limits, list); i < count && rc == 0; i++) {
        const struct rlimit wanted = {.rlim_cur = list[i].soft, .rlim_max = list[i].hard};
        rc = setrlimit((__rlimit_resource_t)list[i].resource, &wanted) != 0 ? -errno : 0;
    }
    errno = saved;
    return rc;
}
