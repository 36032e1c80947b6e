/* SPDX-License-Identifier: MIT
 * limits.c - what one process may use.   Room: platform.
 *
 * Idea: a limit is the smaller of what is asked for and what the process may set, so setting one
 * is never refused: where the machine allows less already, less it is.
 */
#include <errno.h>
#include <sys/resource.h>

#include "platform/platform.h"

#define NS_PER_S 1000000000LL

/* Soft and hard; soft alone is what the kernel warns at. */
static int limit(__rlimit_resource_t what, rlim_t soft, rlim_t hard)
{
    struct rlimit now;
    if (getrlimit(what, &now) != 0) {
        return -errno;
    }
    const struct rlimit wanted = {
        .rlim_cur = soft < now.rlim_max ? soft : now.rlim_max,
        .rlim_max = hard < now.rlim_max ? hard : now.rlim_max,
    };
    return setrlimit(what, &wanted) != 0 ? -errno : 0;
}

int yk_limits_apply(const yoke_limits *limits)
{
    const int saved = errno;
    int rc = 0;
    if (limits->memory_bytes != 0) {
        /* Not the address space: the shared heap alone has terabytes of that. */
        rc = limit(RLIMIT_DATA, limits->memory_bytes, limits->memory_bytes);
    }
    if (rc == 0 && limits->cpu_ns > 0) {
        const rlim_t seconds = (rlim_t)((limits->cpu_ns - 1) / NS_PER_S + 1);
        rc = limit(RLIMIT_CPU, seconds, seconds + 1); /* SIGXCPU, and a second later SIGKILL */
    }
    if (rc == 0 && limits->file_bytes != 0) {
        rc = limit(RLIMIT_FSIZE, limits->file_bytes, limits->file_bytes);
    }
    if (rc == 0 && limits->files != 0) {
        rc = limit(RLIMIT_NOFILE, limits->files, limits->files);
    }
    errno = saved;
    return rc;
}
