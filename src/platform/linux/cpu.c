/* SPDX-License-Identifier: MIT
 * cpu.c - the CPUs and the memory this program may really use.   Room: platform.
 *
 * Idea: affinity says how many CPUs there are, a cgroup quota how much of them we get; the
 * smallest limit on the way from our group up to the root counts, in cgroup v2 and in v1. All
 * files are looked up below `root`, so tests can show us any machine.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "platform/linux/cgroup.h"
#include "platform/platform.h"

#define PATH_BYTES YK_CGROUP_PATH_BYTES
#define CPUS_MAX 65536

bool yk_cgroup_lists(const char *list, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = strstr(list, word); at != NULL; at = strstr(at + 1, word)) {
        if ((at == list || strchr(", \n", at[-1]) != NULL) && strchr(", \n", at[length]) != NULL) {
            return true;
        }
    }
    return false;
}

static FILE *open_below(const char *root, const char *path)
{
    char full[3 * PATH_BYTES];
    const int length = snprintf(full, sizeof full, "%s%s", root, path);
    return length > 0 && (size_t)length < sizeof full ? fopen(full, "re") : NULL;
}

/* Our group in the hierarchy of `controller`: v1 names it, v2 is the line "0::". */
static bool find_group(const char *root, const char *controller, bool v2, char *group)
{
    FILE *const file = open_below(root, "/proc/self/cgroup");
    if (file == NULL) {
        return false;
    }
    char line[2 * PATH_BYTES];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *const names = strchr(line, ':');
        char *const path = names != NULL ? strchr(names + 1, ':') : NULL;
        if (path == NULL || strlen(path + 1) >= PATH_BYTES) {
            continue;
        }
        *path = '\0';
        found = v2 ? names[1] == '\0' : yk_cgroup_lists(names + 1, controller);
        if (found) {
            memcpy(group, path + 1, strlen(path + 1) + 1);
        }
    }
    fclose(file);
    return found;
}

/* One line of mountinfo: "id parent dev ROOT MOUNT options... - TYPE source SUPER". */
static bool parse_mount(char *line, const char *controller, bool v2, char *mount, char *mount_root)
{
    char *const tail = strstr(line, " - ");
    char type[32];
    char super[PATH_BYTES];
    if (tail == NULL || sscanf(tail + 3, "%31s %*s %1023s", type, super) != 2) {
        return false;
    }
    if (strcmp(type, v2 ? "cgroup2" : "cgroup") != 0 ||
        (!v2 && !yk_cgroup_lists(super, controller))) {
        return false;
    }
    return sscanf(line, "%*s %*s %*s %1023s %1023s", mount_root, mount) == 2;
}

bool yk_hierarchy_find(const char *root, const char *controller, bool v2, struct yk_hierarchy *out)
{
    char group[PATH_BYTES] = "";
    if (!find_group(root, controller, v2, group)) {
        return false;
    }
    FILE *const file = open_below(root, "/proc/self/mountinfo");
    if (file == NULL) {
        return false;
    }
    char line[4 * PATH_BYTES];
    char mount_root[PATH_BYTES] = "";
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        found = parse_mount(line, controller, v2, out->mount, mount_root);
    }
    fclose(file);
    if (!found) {
        return false;
    }
    /* In a container the mount shows a sub-tree: the group's path then begins with its root. */
    const size_t skip = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);
    const bool below = strncmp(group, mount_root, skip) == 0 &&
                       (skip == 0 || group[skip] == '/' || group[skip] == '\0');
    const char *const relative = below ? group + skip : "";
    memcpy(out->group, relative, strlen(relative) + 1);
    out->v2 = v2;
    return true;
}

/* Reads up to two numbers of a control file; "max" and what is missing stay as they were. */
static void read_numbers(const char *root, const struct yk_hierarchy *at, const char *name,
                         double numbers[2])
{
    char path[3 * PATH_BYTES];
    char line[128];
    snprintf(path, sizeof path, "%s%s/%s", at->mount, at->group, name);
    FILE *const file = open_below(root, path);
    if (file == NULL) {
        return;
    }
    if (fgets(line, sizeof line, file) != NULL) {
        char *end = line;
        const double first = strtod(line, &end);
        if (end != line) {
            numbers[0] = first;
        } else {
            end = line + strcspn(line, " \n");
        }
        char *rest = end;
        const double second = strtod(end, &rest);
        if (rest != end) {
            numbers[1] = second;
        }
    }
    fclose(file);
}

/* The quota of one group, in CPUs; 0: none. */
static double group_cpus(const char *root, const struct yk_hierarchy *at)
{
    double quota[2] = {0, 0};
    if (at->v2) {
        read_numbers(root, at, "cpu.max", quota);
    } else {
        double period[2] = {0, 0};
        read_numbers(root, at, "cpu.cfs_quota_us", quota);
        read_numbers(root, at, "cpu.cfs_period_us", period);
        quota[1] = period[0];
    }
    return quota[0] > 0 && quota[1] > 0 ? quota[0] / quota[1] : 0;
}

/* What one group may still use, in bytes; 0: no limit. */
static double group_memory(const char *root, const struct yk_hierarchy *at)
{
    double limit[2] = {0, 0};
    double used[2] = {0, 0};
    read_numbers(root, at, at->v2 ? "memory.max" : "memory.limit_in_bytes", limit);
    read_numbers(root, at, at->v2 ? "memory.current" : "memory.usage_in_bytes", used);
    if (limit[0] <= 0) {
        return 0;
    }
    return limit[0] > used[0] ? limit[0] - used[0] : 1;
}

/* The smallest value of `limit_of` from our group up to the mount; 0: no limit anywhere. */
static double smallest(const char *root, const char *controller,
                       double (*limit_of)(const char *, const struct yk_hierarchy *))
{
    double least = 0;
    for (int v2 = 0; v2 < 2; v2++) {
        struct yk_hierarchy at;
        if (!yk_hierarchy_find(root, controller, v2 != 0, &at)) {
            continue;
        }
        for (;;) {
            const double value = limit_of(root, &at);
            if (value > 0 && (least <= 0 || value < least)) {
                least = value;
            }
            char *const up = strrchr(at.group, '/');
            if (up == NULL) {
                break;
            }
            *up = '\0';
        }
    }
    return least;
}

/* The kernel leaves out of it what is not online. */
static unsigned affinity_count(pid_t thread)
{
    for (size_t cpus = 1024; cpus <= CPUS_MAX; cpus *= 4) {
        cpu_set_t *const set = CPU_ALLOC(cpus);
        if (set == NULL) {
            break;
        }
        const size_t bytes = CPU_ALLOC_SIZE(cpus);
        const int rc = sched_getaffinity(thread, bytes, set);
        const int count = rc == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) {
            return (unsigned)count;
        }
    }
    return 1;
}

static unsigned cpu_count(const char *root, pid_t thread)
{
    const int saved = errno;
    unsigned count = affinity_count(thread);
    const double quota = smallest(root, "cpu", group_cpus);
    if (quota > 0 && quota < count) {
        /* Part of a CPU is worth a worker of its own: 1.5 counts as 2. */
        const unsigned whole = (unsigned)quota;
        count = quota > whole ? whole + 1 : whole;
    }
    errno = saved;
    return count > 0 ? count : 1;
}

unsigned yk_cpu_count(const char *root)
{
    return cpu_count(root, 0);
}

unsigned yk_cpu_count_process(void)
{
    return cpu_count("", getpid());
}

unsigned yoke_cpu_count(void)
{
    return yk_cpu_count("");
}

size_t yk_memory_available(const char *root)
{
    const int saved = errno;
    double bytes = 0;
    FILE *const file = open_below(root, "/proc/meminfo");
    char line[256];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %lf kB", &bytes) == 1) {
            bytes *= 1024;
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    struct sysinfo info;
    if (bytes <= 0 && sysinfo(&info) == 0) {
        bytes = (double)info.freeram * info.mem_unit;
    }
    const double group = smallest(root, "memory", group_memory);
    if (group > 0 && group < bytes) {
        bytes = group;
    }
    errno = saved;
    return (size_t)bytes;
}

unsigned yk_cpu_current(void)
{
    const int cpu = sched_getcpu();
    return cpu >= 0 ? (unsigned)cpu : 0;
}

void yk_cpu_yield(void)
{
    (void)sched_yield();
}
