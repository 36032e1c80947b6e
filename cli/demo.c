/* SPDX-License-Identifier: MIT
 * demo.c - `yoke demo`: a story in four parts, each measured while it is told.
 */
#include "demo.h"

#include "cli.h"
#include "text.h"

#include <sched.h>
#include <stdio.h>
#include <yoke/yoke.h>

static int part(int (*tell)(void))
{
    const int rc = tell();
    text_busy(NULL);
    if (rc != 0)
        text_say("This part failed: %s", yoke_strerror(rc));
    return rc != 0;
}

/* A CPU that this program may use, for taskset. */
static int first_cpu(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &allowed))
                return (int)cpu;
    return 0;
}

static void next(void)
{
    text_heading("Try next");
    printf("  %s tour\n", program_name);
    printf("  %s tour --only cpu\n", program_name);
    printf("  taskset -c %d %s tour --only cpu\n", first_cpu(), program_name);
}

int demo_main(int argc, char **argv)
{
    if (argc > 1)
        return usage_error("demo", "unexpected argument", argv[1]);
    text_init();
    const unsigned cpus = yoke_cpu_count();
    text_say("Yoke %s runs your work on all your cores, as threads or as processes. This program "
             "may use %u CPU%s. Every figure below is measured now.",
             yoke_version(), cpus, cpus == 1 ? "" : "s");
    text_say_if_busy(cpus);
    const int failed = part(demo_work) + part(demo_wait) + part(demo_python) + part(demo_survival);
    next();
    return failed == 0 ? EXIT_OK : EXIT_FAILED;
}
