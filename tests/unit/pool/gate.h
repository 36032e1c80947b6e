/* SPDX-License-Identifier: MIT
 * gate.h - a task that begins and does not end before it is let; and a drain with a deadline.
 */
#ifndef YOKE_TESTS_GATE_H
#define YOKE_TESTS_GATE_H

#include "check.h"

static inline void drain(yoke_pool *pool)
{
    CHECK_RC(yoke_pool_drain(pool, soon()), 0);
}

struct gate {
    atomic_long inside, open;
};

static inline int wait_at_gate(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    const int64_t until = soon();
    (void)out;
    count_up(&gate->inside, 1);
    while (!count_get(&gate->open) && !yoke_task_cancelled(task)) {
        CHECK(yoke_now_ns() < until);
        breathe();
    }
    return 0;
}

#endif
