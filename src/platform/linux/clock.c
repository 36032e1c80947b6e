/* SPDX-License-Identifier: MIT
 * clock.c - the monotonic clock, the only one Yoke reads.   Room: platform.
 *
 * CLOCK_MONOTONIC is read without a system call on all machines we support, and futex, epoll
 * and timeouts use the same one, so deadlines never jump.
 */
#include <limits.h>
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

int yk_clock_ms_left(int64_t until_ns)
{
    if (until_ns == YOKE_FOREVER) {
        return -1;
    }
    const int64_t left = until_ns - yk_clock_ns();
    if (left <= 0) {
        return 0;
    }
    const int64_t ms = (left + NS_PER_MS - 1) / NS_PER_MS;
    return ms > INT_MAX ? INT_MAX : (int)ms;
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
