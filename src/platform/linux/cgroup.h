/* SPDX-License-Identifier: MIT
 * cgroup.h - where the control groups of this machine are, and ours among them.   Room: platform.
 */
#ifndef YK_CGROUP_H
#define YK_CGROUP_H

#include <stdbool.h>

#define YK_CGROUP_PATH_BYTES 1024

/* Where the groups of one controller are mounted, and ours among them. */
struct yk_hierarchy {
    char mount[YK_CGROUP_PATH_BYTES]; /* below root */
    char group[YK_CGROUP_PATH_BYTES]; /* relative to mount; "" or "/a/b" */
    bool v2;
};

/* cpu.c: the hierarchy of a controller of v1, or the one of v2, looked up below root. */
bool yk_hierarchy_find(const char *root, const char *controller, bool v2, struct yk_hierarchy *out);
/* The word is in this list, which commas, spaces or line ends part. */
bool yk_cgroup_lists(const char *list, const char *word);

#endif
