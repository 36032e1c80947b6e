/* SPDX-License-Identifier: MIT
 * test_program_odd.c - programs that are started by odd programs, in odd places, or are odd.
 *
 * Idea: each part is played in a forked child, which first makes itself or its machine what the
 * part is about: no descriptors, no /proc, a subreaper, small limits, somebody who may do little.
 */
/* timeout: 240 */
#include "program.h"
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { PLAIN = YOKE_PROGRAM_PLAIN, NOBODY = 65534 };

static char itself[4096];

static const yoke_stream capture = {.kind = YOKE_STREAM_CAPTURE};

static void needs_root(void)
{
    if (geteuid() != 0)
        skip("needs root");
}

/* --- descriptors --------------------------------------------------------------------------- */

static char seen[] = "/tmp/yoke-test-seen-XXXXXX";

/* Says there which of its streams are open. */
static int look_at_streams(const char *path)
{
    char text[256] = "";
    size_t used = 0;
    for (int fd = 0; fd < 3; fd++) {
        char name[32], file[64] = "";
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (readlink(name, file, sizeof file - 1) > 0)
            used += (size_t)snprintf(text + used, sizeof text - used, "%d: %s\n", fd, file);
    }
    const int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    return fd >= 0 && write(fd, text, used) == (ssize_t)used ? 0 : 1;
}

static void see_nothing(unsigned flags)
{
    const char *const argv[] = {itself, "--look-at-streams", seen, NULL};
    yoke_process *process = run_program(&(yoke_program){.argv = argv, .flags = flags});
    check_code(process, 0);
    yoke_process_release(process);
}

static int without_streams(void *arg)
{
    (void)arg;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    for (int round = 0; round < 2; round++) {
        FOR_EACH_START(flags)
        {
            see_nothing(flags);
        }
    }
    /* While another one is read and written to. */
    yoke_process *other =
        run_shell("read x", (yoke_program){.input = {.kind = YOKE_STREAM_PIPE}, .error = capture});
    FOR_EACH_START(flags)
    {
        see_nothing(flags);
    }
    yoke_process_release(other);
    return 0;
}

/* What lies there by now is ours, and no program's stream. */
static void closed_streams_stay_closed(void)
{
    const int fd = mkstemp(seen);
    CHECK(fd >= 0);
    CHECK_CHILD(without_streams, NULL);
    char text[1024] = {0};
    CHECK(pread(fd, text, sizeof text - 1, 0) >= 0);
    if (text[0] != '\0')
        fprintf(stderr, "    it has\n%s", text);
    CHECK_EQ(text[0], 0);
    close(fd);
    unlink(seen);
}

/* --- children ------------------------------------------------------------------------------ */

static int as_subreaper(void *arg)
{
    (void)arg;
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    const char *const argv[] = {"/nowhere/at/all", NULL};
    FOR_EACH_START(flags)
    {
        yoke_process *process = NULL;
        CHECK_RC(try_program(&(yoke_program){.argv = argv, .flags = flags}, &process), -ENOENT);
        siginfo_t info;
        CHECK_EQ(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL), -1);
        CHECK_EQ(errno, ECHILD);
    }
    return 0;
}

static void a_failed_start_leaves_a_subreaper_no_child(void)
{
    CHECK_CHILD(as_subreaper, NULL);
}

/* --- /proc --------------------------------------------------------------------------------- */

struct stage {
    atomic_long ended, go;
    char mark[64];
    int hide; /* /proc, not just its numbers */
};

static void play_stage(struct stage *stage)
{
    char script[512];
    snprintf(script, sizeof script, "sleep %s & (setsid sh -c 'sleep %s & sleep %s' &) ; exit 3",
             stage->mark, stage->mark, stage->mark);
    yoke_process *process = run_shell(script, (yoke_program){.flags = 0});
    check_code(process, 3);
    count_set(&stage->ended, 1);
    while (!count_get(&stage->go))
        breathe();
    yoke_process_release(process);
}

static int in_other_numbers(void *arg)
{
    struct stage *stage = arg;
    if (unshare(stage->hide ? CLONE_NEWNS : CLONE_NEWPID) != 0)
        return 77;
    if (stage->hide) {
        CHECK_EQ(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
        CHECK_EQ(mount("none", "/proc", "tmpfs", 0, NULL), 0);
        play_stage(stage);
        return 0;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        play_stage(stage);
        _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Nor is anybody hit whose number it is there. */
static void a_tree_is_found_without_proc(void)
{
    needs_root();
    for (int hide = 0; hide < 2; hide++) {
        struct stage *stage = shared_zeroed(sizeof *stage);
        snprintf(stage->mark, sizeof stage->mark, "%s", new_mark());
        stage->hide = hide;
        fflush(NULL);
        const pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            _exit(in_other_numbers(stage));
        int status = 0;
        WAIT_FOR(count_get(&stage->ended) != 0 || waitpid(pid, &status, WNOHANG) == pid);
        if (count_get(&stage->ended) == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 77)
            skip("no namespaces");
        CHECK_EQ(count_marked(stage->mark), 0);
        count_set(&stage->go, 1);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
        yoke_shared_free(stage);
    }
}

/* --- programs ------------------------------------------------------------------------------ */

/* The group of who started us: not the one that was made for us. */
static int leave_the_group(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (setpgid(0, getpgid(getppid())) != 0 || write(1, "x", 1) != 1)
        return 1;
    for (;;)
        pause();
}

static void who_left_its_group_is_found(void)
{
    const char *const argv[] = {itself, "--leave-the-group", NULL};
    for (int how = 0; how < 3; how++) {
        FOR_EACH_START(flags)
        {
            yoke_process *process = run_program(&(yoke_program){
                .argv = argv, .output = {.kind = YOKE_STREAM_PIPE}, .flags = flags});
            int fd = -1;
            char byte = 0;
            CHECK_RC(yoke_process_take_pipe(process, 1, &fd), 0);
            CHECK_EQ(read(fd, &byte, 1), 1);
            close(fd);
            if (how == 0)
                CHECK_RC(yoke_process_kill(process), 0);
            if (how == 1)
                CHECK_RC(yoke_process_interrupt(process), 0);
            if (how < 2)
                CHECK_EQ(end_of(process).signal, how == 0 ? SIGKILL : SIGINT);
            yoke_process_release(process);
        }
    }
}

/* --- rights and limits --------------------------------------------------------------------- */

static char private[] = "/tmp/yoke-test-private-XXXXXX";

static int as_nobody(void *arg)
{
    (void)arg;
    CHECK_EQ(setuid(NOBODY), 0);
    const char *const argv[] = {"/bin/true", NULL};
    FOR_EACH_START(flags)
    {
        yoke_process *process = NULL;
        CHECK_RC(try_program(&(yoke_program){.argv = argv, .directory = private, .flags = flags},
                             &process),
                 -EACCES);
    }
    return 0;
}

static void a_folder_that_is_not_for_us_is_no_fault_of_the_machine(void)
{
    needs_root();
    CHECK(mkdtemp(private) != NULL);
    CHECK_CHILD(as_nobody, NULL);
    rmdir(private);
}

static int with_small_files(void *arg)
{
    const size_t bytes = *(size_t *)arg;
    const struct rlimit limit = {bytes, bytes};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    static const char input[100000];
    const char *const argv[] = {"head", "-c", "100000", "/dev/zero", NULL};
    FOR_EACH_START(flags)
    {
        yoke_process *process = NULL;
        const yoke_stream bytes_in = {
            .kind = YOKE_STREAM_BYTES, .bytes = input, .byte_count = sizeof input};
        CHECK_RC(
            try_program(&(yoke_program){.argv = argv, .input = bytes_in, .flags = flags}, &process),
            -EFBIG);
        const yoke_stream bounded = {.kind = YOKE_STREAM_CAPTURE, .memory_bytes = 1000};
        const int rc =
            try_program(&(yoke_program){.argv = argv, .output = bounded, .flags = flags}, &process);
        if (flags != PLAIN && bytes < 4096) {
            CHECK_RC(rc, -EFBIG); /* no room for a supervisor */
            continue;
        }
        CHECK_RC(rc, 0);
        check_code(process, 0);
        const yoke_output output = output_of(process, 1);
        CHECK_EQ(output.bytes + output.dropped, 100000);
        CHECK(output.bytes >= 1000 && output.dropped > 0);
        yoke_process_release(process);
    }
    return 0;
}

static void a_limit_of_files_is_an_error_and_no_signal(void)
{
    for (size_t bytes = 2000; bytes <= 50000; bytes *= 25)
        CHECK_CHILD(with_small_files, &bytes);
}

static int where_nameless_files_are_data(void *arg)
{
    const char level = *(const char *)arg;
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
        return 77;
    const pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
        CHECK_EQ(mount("proc", "/proc", "proc", 0, NULL), 0);
        const int fd = open("/proc/sys/vm/memfd_noexec", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            _exit(77);
        CHECK_EQ(write(fd, &level, 1), 1);
        close(fd);
        const char *const argv[] = {"cat", NULL};
        FOR_EACH_START(flags)
        {
            yoke_process *process = NULL;
            const yoke_program program = {
                .argv = argv,
                .input = {.kind = YOKE_STREAM_BYTES, .bytes = "abc", .byte_count = 3},
                .output = capture,
                .flags = flags};
            const int rc = try_program(&program, &process);
            if (level == '2' && flags == 0) {
                CHECK_RC(rc, -ENOTSUP);
                continue;
            }
            CHECK_RC(rc, 0);
            check_code(process, 0);
            check_output(process, 1, "abc");
            yoke_process_release(process);
        }
        _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void nameless_files_that_may_not_be_executed(void)
{
    needs_root();
    for (char level = '1'; level <= '2'; level++) {
        const int code = in_child(where_nameless_files_are_data, &level);
        if (code == 77)
            return;
        CHECK_EQ(code, 0);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--leave-the-group") == 0)
        return leave_the_group();
    if (argc > 2 && strcmp(argv[1], "--look-at-streams") == 0)
        return look_at_streams(argv[2]);
    check_main(argc, argv);
    need_real_machine();
    CHECK(readlink("/proc/self/exe", itself, sizeof itself - 1) > 0);
    RUN(closed_streams_stay_closed);
    RUN(a_failed_start_leaves_a_subreaper_no_child);
    RUN(a_tree_is_found_without_proc);
    RUN(who_left_its_group_is_found);
    RUN(a_folder_that_is_not_for_us_is_no_fault_of_the_machine);
    RUN(a_limit_of_files_is_an_error_and_no_signal);
    RUN(nameless_files_that_may_not_be_executed);
    return 0;
}
