/* SPDX-License-Identifier: MIT
 * test_full_table.c - a table full of tasks that nobody waits for yet.
 *
 * What comes then has to make room for itself: no other call of the program does.
 */
#include "check.h"

enum { SLOTS = 1024, ITEMS = 50 };

static int nap(yoke_task *task, const void *in, void *out)
{
    const struct timespec pause = {0, 200 * 1000};
    (void)task;
    (void)in;
    (void)out;
    nanosleep(&pause, NULL);
    return 0;
}

static void a_map_gets_slots_of_ended_tasks(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *const pool = make_pool(kind, 2);
        yoke_job *jobs[SLOTS];
        int64_t in[ITEMS], out[ITEMS];
        for (int i = 0; i < SLOTS; i++)
            CHECK_RC(yoke_submit(pool, nap, NULL, 0, 0, NULL, &jobs[i]), 0);
        for (int i = 0; i < ITEMS; i++)
            in[i] = i;
        CHECK_RC(yoke_map(pool, check_square, in, sizeof *in, out, sizeof *out, ITEMS, NULL), 0);
        for (int i = 0; i < ITEMS; i++)
            CHECK_EQ(out[i], (int64_t)i * i);
        CHECK_RC(yoke_wait_all(jobs, SLOTS, soon()), 0);
        for (int i = 0; i < SLOTS; i++)
            yoke_job_release(jobs[i]);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(a_map_gets_slots_of_ended_tasks);
    return 0;
}
