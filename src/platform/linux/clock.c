/* SPDX-License-Identifier: MIT
 * clock.c - the monotonic clock, the only one Yoke reads.   Room: platform.
 *
 * CLOCK_MONOTONIC is read without a system call on all machines we support, and futex, epoll
 * and timeouts use the same one, so deadlines never jump.
 */
#include <time.h>

#include "platform/platform.h"

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL

int64_t yk_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t yoke_now_ns(void)
{
    return yk_clock_ns();
}

int64_t yoke_in_ms(int64_t ms)
{
    const int64_t now = yk_clock_ns();
    if (ms <= 0) {
        return now;
    }
    return ms > (YOKE_FOREVER - now) / NS_PER_MS ? YOKE_FOREVER : now + ms * NS_PER_MS;
}
