/* SPDX-License-Identifier: MIT
 * work_tiny.h - the body of a loop whose iterations are next to nothing.
 */
#ifndef BENCH_WORK_TINY_H
#define BENCH_WORK_TINY_H

#include <stdint.h>

static inline uint32_t work_tiny(uint32_t number)
{
    return 3 * number + 1;
}

#endif
