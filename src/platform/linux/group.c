/* SPDX-License-Identifier: MIT
 * group.c - a control group (v2) for each worker, with a limit of its memory.   Room: platform.
 *
 * Idea: a group that holds processes cannot give its children controllers ("no internal processes",
 * the kernel's cgroup-v2 document), and the program is in its own group. So the groups of its
 * workers are beside it, in the group above, or below it where that one may (the root). We only use
 * what is there: no controller is switched on, no process but a worker is moved.
 * The names carry our process id: what a killed program could not remove, the next one does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/linux/cgroup.h"
#include "platform/platform.h"

#define NAME "yoke-"

static int write_file(const struct yk_groups *groups, uint32_t id, const char *file,
                      const char *text)
{
    char path[YK_GROUP_PATH_BYTES + 96];
    snprintf(path, sizeof path, "%s/%s-%u/%s", groups->base, groups->name, id, file);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    const int rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

/* Groups made below it have the limit. */
static bool gives_limit(const char *base)
{
    char path[YK_GROUP_PATH_BYTES + 32];
    char line[256] = "";
    snprintf(path, sizeof path, "%s/cgroup.subtree_control", base);
    FILE *const file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    const bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    return read && yk_cgroup_lists(line, "memory") && access(base, W_OK) == 0;
}

/* What programs left here that were killed. An empty group is all that can be removed. */
static void sweep(const char *base)
{
    DIR *const dir = opendir(base);
    if (dir == NULL) {
        return;
    }
    const struct dirent *entry = NULL;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own. */
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, NAME, strlen(NAME)) != 0) {
            continue;
        }
        const long pid = strtol(entry->d_name + strlen(NAME), NULL, 10);
        if (pid > 1 && pid <= INT32_MAX && kill((pid_t)pid, 0) != 0 && errno == ESRCH) {
            (void)unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
        }
    }
    closedir(dir);
}

bool yk_groups_find(const char *root, struct yk_groups *groups)
{
    static _Atomic unsigned count;
    const int saved = errno;
    struct yk_hierarchy at;
    bool found = yk_hierarchy_find(root, "", true, &at);
    if (found) {
        /* relaxed: only a number that nobody else has. */
        const unsigned number = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
        char *const up = strrchr(at.group, '/');
        groups->limit_file = "memory.max";
        snprintf(groups->name, sizeof groups->name, NAME "%d-%u", getpid(), number);
        snprintf(groups->base, sizeof groups->base, "%s%s%s", root, at.mount, at.group);
        found = gives_limit(groups->base);
        if (!found && up != NULL) {
            *up = '\0';
            snprintf(groups->base, sizeof groups->base, "%s%s%s", root, at.mount, at.group);
            found = gives_limit(groups->base);
        }
    }
    if (found) {
        sweep(groups->base);
    }
    errno = saved;
    return found;
}

static int group_path(const struct yk_groups *groups, uint32_t id, char *path, size_t bytes)
{
    const int length = snprintf(path, bytes, "%s/%s-%u", groups->base, groups->name, id);
    return length > 0 && (size_t)length < bytes ? 0 : -ENAMETOOLONG;
}

void yk_group_remove(const struct yk_groups *groups, uint32_t id)
{
    const int saved = errno;
    char path[YK_GROUP_PATH_BYTES + 64];
    if (group_path(groups, id, path, sizeof path) == 0) {
        (void)rmdir(path);
    }
    errno = saved;
}

int yk_group_make(const struct yk_groups *groups, uint32_t id, size_t limit, int pid)
{
    const int saved = errno;
    char path[YK_GROUP_PATH_BYTES + 64];
    char text[32];
    int rc = group_path(groups, id, path, sizeof path);
    rc = rc == 0 && mkdir(path, 0755) != 0 ? -errno : rc;
    if (rc == 0) {
        snprintf(text, sizeof text, "%zu", limit);
        rc = write_file(groups, id, groups->limit_file, text);
        /* All of it dies, and none of it is put off to swap; where the machine can do that. */
        (void)write_file(groups, id, "memory.oom.group", "1");
        (void)write_file(groups, id, "memory.swap.max", "0");
        snprintf(text, sizeof text, "%d", pid);
        rc = rc == 0 ? write_file(groups, id, "cgroup.procs", text) : rc;
        if (rc != 0) {
            yk_group_remove(groups, id);
        }
    }
    errno = saved;
    return rc;
}
