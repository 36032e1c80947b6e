/* SPDX-License-Identifier: MIT
 * test_cpu.c - how many CPUs this program may use: affinity, and the quota of its control groups.
 *
 * Idea: the files of a machine that is not ours lie below a folder of ours.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "platform/platform.h"
#include <sys/stat.h>

static char root[64];

static void put(const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *at = strchr(full + strlen(root) + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        CHECK(mkdir(full, 0700) == 0 || errno == EEXIST);
        *at = '/';
    }
    FILE *file = fopen(full, "we");
    CHECK(file != NULL && fputs(text, file) >= 0);
    CHECK_EQ(fclose(file), 0);
}

static unsigned by_affinity(void)
{
    cpu_set_t set;
    CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    return (unsigned)CPU_COUNT(&set);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static void without_groups_it_is_the_affinity(void)
{
    CHECK_EQ(yk_cpu_count("/nowhere"), by_affinity());
}

static void the_smallest_quota_of_version_2_counts(void)
{
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo", "30 23 0:26 / /cg rw,nosuid - cgroup2 cgroup2 rw\n");
    CHECK_EQ(yk_cpu_count(root), by_affinity());
    put("/cg/a/b/cpu.max", "max 100000\n");
    CHECK_EQ(yk_cpu_count(root), by_affinity());
    put("/cg/a/b/cpu.max", "150000 100000\n"); /* a part of a CPU counts as one */
    CHECK_EQ(yk_cpu_count(root), least(2, by_affinity()));
    put("/cg/a/cpu.max", "50000 100000\n"); /* of all that is in a */
    CHECK_EQ(yk_cpu_count(root), 1);
    put("/cg/a/cpu.max", "6400000 100000\n");
    put("/cg/a/b/cpu.max", "6400000 100000\n");
    CHECK_EQ(yk_cpu_count(root), least(64, by_affinity()));
}

static void a_quota_of_version_1_counts(void)
{
    put("/proc/self/cgroup", "4:cpu,cpuacct:/box\n0::/\n");
    put("/proc/self/mountinfo", "30 23 0:26 / /c1 rw - cgroup cgroup rw,cpu,cpuacct\n");
    put("/c1/box/cpu.cfs_period_us", "100000\n");
    put("/c1/box/cpu.cfs_quota_us", "-1\n");
    CHECK_EQ(yk_cpu_count(root), by_affinity());
    put("/c1/box/cpu.cfs_quota_us", "20000\n");
    CHECK_EQ(yk_cpu_count(root), 1);
}

/* Whatever thread asks, the process's affinity is that of its main thread. */
static int ask_for_process(void *out)
{
    *(unsigned *)out = yk_cpu_count_process();
    return 0;
}

static void a_narrow_affinity_counts(void)
{
    cpu_set_t all, one;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    yoke_thread *thread = NULL;
    unsigned seen = 0;
    int first = 0;
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_EQ(yk_cpu_count("/nowhere"), 1);
    CHECK_RC(yoke_thread_start(NULL, ask_for_process, &seen, &thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    CHECK_EQ(seen, 1);
    CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
}

static void sweep(const char *path)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", root, path);
    (void)remove(full);
}

int main(int argc, char **argv)
{
    static const char *const made[] = {"/proc/self/cgroup",
                                       "/proc/self/mountinfo",
                                       "/proc/self",
                                       "/proc",
                                       "/cg/a/b/cpu.max",
                                       "/cg/a/cpu.max",
                                       "/cg/a/b",
                                       "/cg/a",
                                       "/c1/box/cpu.cfs_period_us",
                                       "/c1/box/cpu.cfs_quota_us",
                                       "/c1/box",
                                       "/cg",
                                       "/c1",
                                       ""};
    check_main(argc, argv);
    snprintf(root, sizeof root, "/tmp/yoke-cpu-%d", (int)getpid());
    CHECK_EQ(mkdir(root, 0700), 0);
    RUN(without_groups_it_is_the_affinity);
    RUN(the_smallest_quota_of_version_2_counts);
    RUN(a_quota_of_version_1_counts);
    RUN(a_narrow_affinity_counts);
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        sweep(made[i]);
    return 0;
}
