/* SPDX-License-Identifier: MIT
 * test_control_group.c - control groups of workers: where they are made, entered, and removed.
 *
 * Idea: where they may be is looked up in made-up machines below a folder of ours; what is done
 * with them is done in the real tree of groups, with another limit than that of memory, since that
 * one is not to be had on every machine.
 */
#include "check.h"
#include "platform/platform.h"
#include "pool/pool_private.h"
#include <ftw.h>
#include <sys/stat.h>

static char root[64];

static void write_text(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    FILE *file = fopen(full, "we");
    CHECK(file != NULL && fputs(text, file) >= 0);
    CHECK_EQ(fclose(file), 0);
}

static void make_folder(const char *path)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *at = strchr(full + strlen(root) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        CHECK(mkdir(full, 0755) == 0 || errno == EEXIST);
        *at = '/';
    }
    CHECK(mkdir(full, 0755) == 0 || errno == EEXIST);
}

static int exists(const char *path)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    return access(full, F_OK) == 0;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
    (void)stat;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void begin_machine(const char *group, const char *mount_root)
{
    char line[512];
    snprintf(root, sizeof root, "/tmp/yoke-test-XXXXXX");
    CHECK(mkdtemp(root) != NULL);
    make_folder("/proc/self");
    snprintf(line, sizeof line, "4:memory:/elsewhere\n0::%s\n", group);
    write_text("/proc/self/cgroup", line);
    snprintf(line, sizeof line,
             "25 1 0:22 / /proc rw - proc proc rw\n"
             "36 25 0:30 %s /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
             mount_root);
    write_text("/proc/self/mountinfo", line);
}

static void end_machine(void)
{
    CHECK_EQ(nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static int ends_with(const char *text, const char *end)
{
    const size_t all = strlen(text), last = strlen(end);
    return all >= last && strcmp(text + all - last, end) == 0;
}

static void they_are_made_beside_our_own(void)
{
    struct yk_groups groups;
    begin_machine("/user.slice/app.scope", "/");
    make_folder("/sys/fs/cgroup/user.slice/app.scope");
    CHECK(!yk_groups_find(root, &groups));
    write_text("/sys/fs/cgroup/user.slice/app.scope/cgroup.subtree_control", "\n");
    write_text("/sys/fs/cgroup/user.slice/cgroup.subtree_control", "cpu pids\n");
    CHECK(!yk_groups_find(root, &groups));
    write_text("/sys/fs/cgroup/user.slice/cgroup.subtree_control", "cpu memory pids\n");
    CHECK(yk_groups_find(root, &groups));
    CHECK(ends_with(groups.base, "/sys/fs/cgroup/user.slice"));
    write_text("/sys/fs/cgroup/user.slice/app.scope/cgroup.subtree_control", "memory\n");
    CHECK(yk_groups_find(root, &groups));
    CHECK(ends_with(groups.base, "/sys/fs/cgroup/user.slice/app.scope"));
    end_machine();
}

static void a_container_shows_a_part_of_the_tree(void)
{
    struct yk_groups groups;
    begin_machine("/docker/1234/work", "/docker/1234");
    make_folder("/sys/fs/cgroup/work");
    write_text("/sys/fs/cgroup/cgroup.subtree_control", "memory\n");
    CHECK(yk_groups_find(root, &groups));
    CHECK(ends_with(groups.base, "/sys/fs/cgroup"));
    end_machine();
    /* Our own group is all it shows, and it gives nothing: nor is there one above. */
    begin_machine("/docker/1234", "/docker/1234");
    make_folder("/sys/fs/cgroup");
    write_text("/sys/fs/cgroup/cgroup.subtree_control", "\n");
    CHECK(!yk_groups_find(root, &groups));
    end_machine();
}

static int nothing(void *unused)
{
    (void)unused;
    return 0;
}

static void what_the_dead_left_is_removed(void)
{
    struct yk_groups groups;
    char ours[128], dead[128];
    begin_machine("/a/b", "/");
    make_folder("/sys/fs/cgroup/a/b");
    write_text("/sys/fs/cgroup/a/cgroup.subtree_control", "memory\n");
    fflush(NULL);
    const pid_t gone = fork();
    if (gone == 0)
        _exit(nothing(NULL));
    CHECK_EQ(waitpid(gone, NULL, 0), gone);
    snprintf(dead, sizeof dead, "/sys/fs/cgroup/a/yoke-%d-0-7", (int)gone);
    snprintf(ours, sizeof ours, "/sys/fs/cgroup/a/yoke-%d-0-7", (int)getpid());
    make_folder(dead);
    make_folder(ours);
    make_folder("/sys/fs/cgroup/a/yoke-x");
    CHECK(yk_groups_find(root, &groups));
    CHECK(!exists(dead));
    CHECK(exists(ours) && exists("/sys/fs/cgroup/a/yoke-x") && exists("/sys/fs/cgroup/a/b"));
    end_machine();
}

/* --- in the real tree ------------------------------------------------------------------------ */

static int find_real(struct yk_groups *groups)
{
    char line[1024], mount[512];
    FILE *file = fopen("/proc/self/mounts", "re");
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file))
        found = sscanf(line, "%*s %511s cgroup2 ", mount) == 1 && strstr(line, " cgroup2 ");
    if (file)
        fclose(file);
    if (!found || access(mount, W_OK) != 0)
        return 0;
    snprintf(groups->base, sizeof groups->base, "%s", mount);
    snprintf(groups->name, sizeof groups->name, "yoke-%d-t", (int)getpid());
    groups->limit_file = "cgroup.max.depth";
    return 1;
}

static int is_in_group(int pid, const char *name)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
    FILE *file = fopen(path, "re");
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file))
        found = strncmp(line, "0::", 3) == 0 && strstr(line, name) != NULL;
    if (file)
        fclose(file);
    return found;
}

static void a_process_is_put_into_its_group(void)
{
    struct yk_groups groups;
    char path[YK_GROUP_PATH_BYTES + 64];
    if (!find_real(&groups)) {
        fprintf(stderr, "    no cgroup v2 that we may write\n");
        return;
    }
    root[0] = 0;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    CHECK(child > 0);
    snprintf(path, sizeof path, "%s/%s-%d", groups.base, groups.name, 5);
    const int rc = yk_group_make(&groups, 5, 3, child);
    if (rc == -EROFS || rc == -EACCES || rc == -EPERM) {
        fprintf(stderr, "    no group can be made: %s\n", yoke_strerror(rc));
    } else {
        CHECK_RC(rc, 0);
        CHECK(is_in_group(child, groups.name));
        yk_group_remove(&groups, 5);
        CHECK(exists(path)); /* not while somebody lives in it */
        CHECK_RC(yk_group_make(&groups, 5, 3, child), -EEXIST);
    }
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    yk_group_remove(&groups, 5);
    CHECK(!exists(path));
    /* A group that cannot have its limit, or its process, is not left behind. */
    CHECK(rc != 0 || yk_group_make(&groups, 5, 3, child) < 0);
    CHECK(!exists(path));
    groups.limit_file = "no.such.limit";
    CHECK(yk_group_make(&groups, 5, 3, getpid()) < 0);
    CHECK(!exists(path));
    CHECK(!is_in_group(getpid(), groups.name));
}

static int count_groups(const struct yk_groups *groups)
{
    DIR *dir = opendir(groups->base);
    int count = 0;
    CHECK(dir != NULL);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir))
        count += strncmp(e->d_name, groups->name, strlen(groups->name)) == 0;
    closedir(dir);
    return count;
}

static int all_grouped(yoke_pool *pool, const struct yk_groups *groups)
{
    int pids[2];
    return yoke_pool_worker_ids(pool, pids, 2) == 2 && is_in_group(pids[0], groups->name) &&
           is_in_group(pids[1], groups->name);
}

/* The pool believes that this place gives limits of memory. */
static void workers_live_and_die_in_groups(void)
{
    struct yk_groups groups;
    if (!find_real(&groups) || !check_has_kind(YOKE_PROCESSES) || CHECK_ASAN) {
        fprintf(stderr, "    no cgroup v2 that we may write, or no process pools with limits\n");
        return;
    }
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = YOKE_PROCESSES,
                                     .workers = 2,
                                     .limits = {.memory_bytes = (size_t)1 << 30}};
    yoke_pool *pool = NULL;
    yoke_pool_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    WAIT_FOR(yoke_pool_stats_get(pool, &stats) == 0 && stats.spares == 1);
    yk_biased_lock(&pool->lock);
    free(pool->groups);
    pool->groups = malloc(sizeof groups);
    CHECK(pool->groups != NULL);
    *pool->groups = groups;
    yk_biased_unlock(&pool->lock);
    /* Those that are in none are the old ones, the spare among them once it stepped in. */
    for (int round = 0; round < 30 && !all_grouped(pool, &groups); round++) {
        int pids[2] = {0, 0};
        CHECK_EQ(yoke_pool_worker_ids(pool, pids, 2), 2);
        const uint64_t died = stats.died;
        CHECK_EQ(signal_child(pids[is_in_group(pids[0], groups.name)], SIGKILL), 1);
        /* The pool hears of it a little later than the kernel. */
        WAIT_FOR(yoke_pool_stats_get(pool, &stats) == 0 && stats.died > died &&
                 stats.workers == 2 && stats.spares == 1);
    }
    if (count_groups(&groups) == 0)
        fprintf(stderr, "    no group can be made\n");
    else
        WAIT_FOR(all_grouped(pool, &groups) && count_groups(&groups) == 3);
    end_pool(pool);
    CHECK_EQ(count_groups(&groups), 0);
}

static int take_too_much(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    memset(*(char *const *)in, 1,
           (size_t)200 << 20); /* shared: no limit of private memory counts */
    return 0;
}

static void too_much_memory_of_any_kind_is_the_end(void)
{
    struct yk_groups groups;
    char *block = NULL;
    if (!yk_groups_find("", &groups) || !check_has_kind(YOKE_PROCESSES) || CHECK_ASAN) {
        fprintf(stderr, "    no cgroup v2 with a limit of memory that we may write\n");
        return;
    }
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = YOKE_PROCESSES,
                                     .workers = 2,
                                     .limits = {.memory_bytes = (size_t)64 << 20}};
    yoke_pool *pool = NULL;
    yoke_job *job = NULL;
    yoke_outcome outcome;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    block = yoke_shared_alloc((size_t)200 << 20);
    CHECK(block != NULL);
    CHECK_RC(yoke_submit(pool, take_too_much, &block, sizeof block, 0, NULL, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
    CHECK_EQ(outcome.kind, YOKE_CRASHED);
    CHECK_EQ(outcome.signal, SIGKILL);
    check_pool_works(pool);
    yoke_job_release(job);
    end_pool(pool);
    yoke_shared_free(block);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(they_are_made_beside_our_own);
    RUN(a_container_shows_a_part_of_the_tree);
    RUN(what_the_dead_left_is_removed);
    RUN(a_process_is_put_into_its_group);
    RUN(workers_live_and_die_in_groups);
    RUN(too_much_memory_of_any_kind_is_the_end);
    return 0;
}
