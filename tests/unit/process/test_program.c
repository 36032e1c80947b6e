/* SPDX-License-Identifier: MIT
 * test_program.c - programs: what is executed, where, with what, and what is refused.
 *
 * Idea: the programs are small shell scripts that say what they see; each part runs with and
 * without a supervisor.
 */
/* timeout: 120 */
#include "program.h"
#include <sys/resource.h>
#include <sys/stat.h>

static const yoke_stream capture = {.kind = YOKE_STREAM_CAPTURE};
static const yoke_stream none = {.kind = YOKE_STREAM_NULL};

static char folder[] = "/tmp/yoke-test-XXXXXX";

static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    CHECK_EQ(chmod(path, mode), 0);
}

static void check_file(const char *path, const char *text)
{
    char got[256] = {0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(read(fd, got, sizeof got - 1) >= 0);
    close(fd);
    if (strcmp(got, text) != 0)
        fprintf(stderr, "    %s holds '%s', not '%s'\n", path, got, text);
    CHECK(strcmp(got, text) == 0);
}

static void codes_and_signals_come_back(void)
{
    FOR_EACH_START(flags)
    {
        yoke_process *process = run_shell("exit 37", (yoke_program){.flags = flags});
        check_code(process, 37);
        CHECK_RC(yoke_process_wait(process, 0, NULL), 0);
        CHECK_EQ(yoke_process_kill(process), -ESRCH);
        CHECK_EQ(yoke_process_signal(process, SIGTERM, YOKE_SIGNAL_TREE), -ESRCH);
        yoke_process_release(process);
        static const int signals[] = {SIGTERM, SIGKILL, SIGUSR1, SIGPIPE};
        for (int i = 0; i < 4; i++) {
            char script[32];
            snprintf(script, sizeof script, "kill -%d $$", signals[i]);
            process = run_shell(script, (yoke_program){.flags = flags});
            const yoke_process_end end = end_of(process);
            CHECK_EQ(end.signal, signals[i]);
            CHECK_EQ(end.code, -1);
            yoke_process_release(process);
        }
    }
}

static void arguments_arrive_as_they_are(void)
{
    const char *const argv[] = {"printf", "[%s]",    "",         "a b", "$HOME",
                                "`x`",    "\n'\"\\", "\xff\x01", NULL};
    FOR_EACH_START(flags)
    {
        yoke_process *process =
            run_program(&(yoke_program){.argv = argv, .output = capture, .flags = flags});
        check_code(process, 0);
        check_output(process, 1, "[][a b][$HOME][`x`][\n'\"\\][\xff\x01]");
        yoke_process_release(process);
    }
}

static void what_cannot_be_executed_is_an_error_of_the_start(void)
{
    write_file(in_folder("text"), "hello\n", 0755);
    write_file(in_folder("private"), "#!/bin/sh\n", 0644);
    write_file(in_folder("lost"), "#!/no/such/interpreter\n", 0755);
    const struct {
        const char *name;
        int error;
    } bad[] = {{"no-such-program-at-all", -ENOENT},
               {"/no/such/program", -ENOENT},
               {"", -ENOENT},
               {folder, -EACCES},
               {"/etc/passwd/x", -ENOTDIR},
               {in_folder("text"), -ENOEXEC},
               {in_folder("private"), -EACCES},
               {in_folder("lost"), -ENOENT}};
    const struct usage before = usage_now();
    FOR_EACH_START(flags)
    {
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            const char *const argv[] = {bad[i].name, NULL};
            yoke_process *process = (void *)1;
            const yoke_program program = {.argv = argv, .output = capture, .flags = flags};
            CHECK_RC(try_program(&program, &process), bad[i].error);
            CHECK(process == (void *)1);
        }
    }
    struct usage after = before;
    after.fds = count_fds(); /* the supervisor's file stays */
    CHECK(after.fds <= before.fds + 1);
    usage_check(after, 8);
}

static void nonsense_is_refused(void)
{
    const char *const nothing[] = {NULL};
    const char *const argv[] = {"true", NULL};
    const int closed = 777;
    yoke_process *process = NULL;
    const yoke_program bad[] = {
        {.argv = NULL},
        {.argv = nothing},
        {.argv = argv, .flags = 64},
        {.argv = argv, .input = {.kind = YOKE_STREAM_CAPTURE}},
        {.argv = argv, .input = {.kind = YOKE_STREAM_STDOUT}},
        {.argv = argv, .output = {.kind = YOKE_STREAM_STDOUT}},
        {.argv = argv, .output = {.kind = YOKE_STREAM_BYTES}},
        {.argv = argv, .output = {.kind = YOKE_STREAM_FILE}},
        {.argv = argv, .error = {.kind = 99}},
        {.argv = argv, .input = {.kind = YOKE_STREAM_FD, .fd = -1}},
        {.argv = argv, .keep_fd_count = 1},
        {.argv = argv, .limits = {.cpu_ns = -1}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_RC(try_program(&bad[i], &process), -EINVAL);
    CHECK_RC(yoke_program_start(NULL, &process), -EINVAL);
    CHECK_RC(
        try_program(&(yoke_program){.argv = argv, .input = {.kind = YOKE_STREAM_FD, .fd = closed}},
                    &process),
        -EBADF);
    CHECK_RC(try_program(&(yoke_program){.argv = argv, .keep_fds = &closed, .keep_fd_count = 1},
                         &process),
             -EBADF);
    CHECK_RC(try_program(&(yoke_program){.argv = argv,
                                         .input = {.kind = YOKE_STREAM_FILE, .path = "/no/file"}},
                         &process),
             -ENOENT);
    yoke_process *running = run_shell("exit 0", (yoke_program){.size = 0});
    yoke_output output = {.size = sizeof output};
    yoke_usage usage = {.size = sizeof usage};
    int fd = -1;
    size_t which = 0;
    CHECK_RC(yoke_process_output(running, 1, &output), -ENOENT);
    CHECK_RC(yoke_process_output(running, 0, &output), -EINVAL);
    CHECK_RC(yoke_process_usage(running, NULL), -EINVAL);
    CHECK_RC(yoke_process_take_pipe(running, 0, &fd), -ENOENT);
    CHECK_RC(yoke_process_take_pipe(running, 3, &fd), -EINVAL);
    CHECK_RC(yoke_process_take_pipe(NULL, 0, &fd), -EINVAL);
    CHECK_EQ(yoke_process_signal(running, 0, 0), -EINVAL);
    CHECK_EQ(yoke_process_signal(running, 65, 0), -EINVAL);
    CHECK_EQ(yoke_process_signal(running, 1, 3), -EINVAL);
    CHECK_RC(yoke_process_wait_any(NULL, 0, 0, &which), -EINVAL);
    CHECK_RC(yoke_process_wait_all(NULL, 0, 0), 0);
    CHECK_RC(yoke_process_wait_all(NULL, 1, 0), -EINVAL);
    CHECK_RC(yoke_process_stop(&running, 1, -1), -EINVAL);
    check_code(running, 0);
    CHECK_RC(yoke_process_usage(running, &usage), 0);
    yoke_process_release(running);
}

static void path_is_the_one_of_its_environment(void)
{
    write_file(in_folder("yoke-test-tool"), "#!/bin/sh\necho found \"$WHO\"\n", 0755);
    CHECK(mkdir(in_folder("dir"), 0755) == 0 || errno == EEXIST);
    write_file(in_folder("dir/yoke-test-tool"), "not for you\n", 0644);
    char path[600];
    snprintf(path, sizeof path, "PATH=/no/such:%s/dir:%s:/bin", folder, folder);
    const char *const environment[] = {"A=b", path, "WHO=me", NULL};
    const char *const empty[] = {NULL};
    const char *const argv[] = {"yoke-test-tool", NULL};
    const char *const env[] = {"env", NULL};
    FOR_EACH_START(flags)
    {
        yoke_process *process = NULL;
        yoke_program program = {.argv = argv, .output = capture, .flags = flags};
        CHECK_RC(try_program(&program, &process), -ENOENT);
        program.environment = environment;
        process = run_program(&program);
        check_code(process, 0);
        check_output(process, 1, "found me\n");
        yoke_process_release(process);
        program.argv = env;
        program.environment = empty;
        process = run_program(&program);
        check_code(process, 0);
        check_output(process, 1, "");
        yoke_process_release(process);
    }
    CHECK_EQ(setenv("YOKE_TEST_INHERITED", "yes", 1), 0);
    yoke_process *process =
        run_shell("echo $YOKE_TEST_INHERITED", (yoke_program){.output = capture});
    check_code(process, 0);
    check_output(process, 1, "yes\n");
    yoke_process_release(process);
}

static void it_runs_where_it_is_told(void)
{
    write_file(in_folder("here"), "#!/bin/sh\npwd\n", 0755);
    const char *const argv[] = {"./here", NULL};
    char expected[64];
    snprintf(expected, sizeof expected, "%s\n", folder);
    FOR_EACH_START(flags)
    {
        yoke_process *process = run_program(
            &(yoke_program){.argv = argv, .directory = folder, .output = capture, .flags = flags});
        check_code(process, 0);
        check_output(process, 1, expected);
        yoke_process_release(process);
        yoke_program lost = {.argv = argv, .directory = "/no/such/folder", .flags = flags};
        CHECK_RC(try_program(&lost, &process), -ENOENT);
    }
}

static void files_are_read_emptied_and_appended_to(void)
{
    FOR_EACH_START(flags)
    {
        write_file(in_folder("in"), "from file\n", 0644);
        write_file(in_folder("out"), "a long old text\n", 0644);
        write_file(in_folder("log"), "first\n", 0644);
        yoke_process *process = run_shell(
            "cat; echo second >&2",
            (yoke_program){.input = {.kind = YOKE_STREAM_FILE, .path = in_folder("in")},
                           .output = {.kind = YOKE_STREAM_FILE, .path = in_folder("out")},
                           .error = {.kind = YOKE_STREAM_APPEND, .path = in_folder("log")},
                           .flags = flags});
        check_code(process, 0);
        yoke_process_release(process);
        check_file(in_folder("out"), "from file\n");
        check_file(in_folder("log"), "first\nsecond\n");
    }
}

static void pipes_are_ours_to_read_and_write(void)
{
    FOR_EACH_START(flags)
    {
        const yoke_stream pipe_ = {.kind = YOKE_STREAM_PIPE};
        yoke_process *process = run_shell(
            "read x; echo \"<$x>\"; echo problem >&2; read x || echo end",
            (yoke_program){.input = pipe_, .output = pipe_, .error = pipe_, .flags = flags});
        int fds[3];
        for (int i = 0; i < 3; i++) {
            CHECK_RC(yoke_process_take_pipe(process, i, &fds[i]), 0);
            CHECK(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
            CHECK_RC(yoke_process_take_pipe(process, i, &fds[i]), -ENOENT);
        }
        CHECK_EQ(write(fds[0], "word\n", 5), 5);
        close(fds[0]);
        char text[64] = {0};
        size_t used = 0;
        for (ssize_t n = 1; n > 0; used += (size_t)n) {
            n = read(fds[1], text + used, sizeof text - 1 - used);
            CHECK(n >= 0);
        }
        CHECK(strcmp(text, "<word>\nend\n") == 0);
        CHECK_EQ(read(fds[2], text, sizeof text), 8);
        close(fds[1]);
        close(fds[2]);
        check_code(process, 0);
        yoke_process_release(process);
    }
}

/* The supervisor lets go of what is the program's. */
static void nobody_else_holds_its_pipes(void)
{
    FOR_EACH_START(flags)
    {
        int kept[2], fd = -1;
        char script[64], byte = 0;
        CHECK_EQ(pipe2(kept, O_CLOEXEC), 0);
        if (kept[1] > 9) {
            fprintf(stderr, "    descriptors of one digit, which sh wants, are taken\n");
            close(kept[0]);
            close(kept[1]);
            return;
        }
        snprintf(script, sizeof script, "exec >&- %d>&-; sleep 1000", kept[1]);
        yoke_process *process =
            run_shell(script, (yoke_program){.output = {.kind = YOKE_STREAM_PIPE},
                                             .keep_fds = &kept[1],
                                             .keep_fd_count = 1,
                                             .flags = flags});
        close(kept[1]);
        CHECK_RC(yoke_process_take_pipe(process, 1, &fd), 0);
        CHECK_EQ(read(fd, &byte, 1), 0);
        CHECK_EQ(read(kept[0], &byte, 1), 0);
        CHECK_RC(yoke_process_wait(process, 0, NULL), -ETIMEDOUT);
        close(fd);
        close(kept[0]);
        yoke_process_release(process);
    }
}

static void descriptors_are_those_asked_for(void)
{
    FOR_EACH_START(flags)
    {
        int ends[2], kept[2], other[2];
        CHECK_EQ(pipe(ends), 0); /* not close-on-exec: the start has to close them */
        CHECK_EQ(pipe2(kept, O_CLOEXEC), 0);
        CHECK_EQ(pipe(other), 0);
        char script[256];
        snprintf(script, sizeof script, "ls /proc/self/fd | tr '\\n' ' ' >&%d; echo swapped >&2",
                 kept[1]);
        /* 1 and 2 change places. */
        yoke_process *process =
            run_shell(script, (yoke_program){.input = none,
                                             .output = {.kind = YOKE_STREAM_FD, .fd = 2},
                                             .error = {.kind = YOKE_STREAM_FD, .fd = ends[1]},
                                             .keep_fds = &kept[1],
                                             .keep_fd_count = 1,
                                             .flags = flags});
        close(ends[1]);
        close(kept[1]);
        check_code(process, 0);
        char text[128] = {0}, expected[128];
        /* 0, 1 (the list), 2, the one it keeps, and the folder that ls reads. */
        CHECK(read(kept[0], text, sizeof text - 1) > 0);
        snprintf(expected, sizeof expected, "0 1 2 3 %d ", kept[1]);
        if (strcmp(text, expected) != 0)
            fprintf(stderr, "    it has '%s', not '%s'\n", text, expected);
        CHECK(strcmp(text, expected) == 0 || kept[1] == 3);
        memset(text, 0, sizeof text);
        CHECK(read(ends[0], text, sizeof text - 1) > 0);
        CHECK(strcmp(text, "swapped\n") == 0);
        CHECK_EQ(read(ends[0], text, 1), 0); /* nobody else holds it */
        yoke_process_release(process);
        close(ends[0]);
        close(kept[0]);
        close(other[0]);
        close(other[1]);
    }
}

static int streams_cross_over_in_child(void *arg)
{
    const unsigned flags = *(unsigned *)arg;
    int out[2], err[2];
    CHECK_EQ(pipe(out), 0);
    CHECK_EQ(pipe(err), 0);
    const int saved_err = dup(2);
    CHECK_EQ(dup2(out[1], 1), 1);
    CHECK_EQ(dup2(err[1], 2), 2);
    close(0); /* and 0 is free for whoever opens something */
    yoke_process *process = run_shell("echo to-out; echo to-err >&2",
                                      (yoke_program){.output = {.kind = YOKE_STREAM_FD, .fd = 2},
                                                     .error = {.kind = YOKE_STREAM_FD, .fd = 1},
                                                     .flags = flags});
    dup2(saved_err, 2);
    check_code(process, 0);
    yoke_process_release(process);
    char text[32] = {0};
    CHECK_EQ(read(err[0], text, sizeof text), 7);
    CHECK(memcmp(text, "to-out\n", 7) == 0);
    CHECK_EQ(read(out[0], text, sizeof text), 7);
    CHECK(memcmp(text, "to-err\n", 7) == 0);
    return 0;
}

static void streams_cross_over(void)
{
    FOR_EACH_START(flags)
    CHECK_CHILD(streams_cross_over_in_child, &flags);
}

static void ignore(int sig)
{
    (void)sig;
}

static void signals_are_as_at_the_start_of_a_program(void)
{
    const struct sigaction old_pipe = set_action(SIGPIPE, SIG_IGN);
    const struct sigaction old_hup = set_action(SIGHUP, SIG_IGN);
    const struct sigaction old_usr = set_action(SIGUSR1, ignore);
    sigset_t some, old;
    sigemptyset(&some);
    sigaddset(&some, SIGTERM);
    sigaddset(&some, SIGUSR2);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &some, &old), 0);
    const char *const argv[] = {"grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", NULL};
    FOR_EACH_START(flags)
    {
        yoke_process *process =
            run_program(&(yoke_program){.argv = argv, .output = capture, .flags = flags});
        check_code(process, 0);
        check_output(process, 1, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
        yoke_process_release(process);
    }
    sigset_t now;
    CHECK_EQ(sigprocmask(SIG_SETMASK, &old, &now), 0);
    CHECK(sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGINT) == 0);
    sigaction(SIGPIPE, &old_pipe, NULL);
    sigaction(SIGHUP, &old_hup, NULL);
    sigaction(SIGUSR1, &old_usr, NULL);
}

static void it_has_a_group_of_its_own_and_our_session(void)
{
    FOR_EACH_START(flags)
    {
        yoke_process *process = run_shell("exec sleep 1000", (yoke_program){.flags = flags});
        const int pid = yoke_process_id(process);
        CHECK_EQ(getpgid(pid), pid);
        CHECK_EQ(getsid(pid), getsid(0));
        await_program(pid, "sleep");
        CHECK_EQ(yoke_process_interrupt(process), 0);
        CHECK_EQ(end_of(process).signal, SIGINT);
        yoke_process_release(process);
    }
}

static void what_this_thread_has_now_is_inherited(void)
{
    const mode_t old = umask(037);
    yoke_process *process = run_shell("umask", (yoke_program){.output = capture});
    umask(old);
    check_code(process, 0);
    check_output(process, 1, "0037\n");
    yoke_process_release(process);
}

static void limits_hold(void)
{
    const struct {
        const char *script;
        yoke_limits limits;
        int code, signal;
    } cases[] = {
        {"ulimit -n", {.files = 17}, 0, 0},
        {"ulimit -d", {.memory_bytes = (size_t)32 << 20}, 0, 0},
        {"dd if=/dev/zero of=big bs=1024 count=100 2>/dev/null", {.file_bytes = 4096}, -1, SIGXFSZ},
        {"exec sh -c 'while :; do :; done'", {.cpu_ns = 1}, -1, SIGXCPU},
    };
    static const char *const said[] = {"17\n", "32768\n", "", ""};
    FOR_EACH_START(flags)
    {
        for (int i = 0; i < 4; i++) {
            yoke_process *process = run_shell(cases[i].script, (yoke_program){
                                                                   .limits = cases[i].limits,
                                                                   .directory = folder,
                                                                   .output = capture,
                                                                   .flags = flags,
                                                               });
            const yoke_process_end end = end_of(process);
            if (cases[i].signal == SIGXFSZ) /* the shell tells it as a code */
                CHECK(end.code == 128 + SIGXFSZ || end.signal == SIGXFSZ);
            else {
                CHECK_EQ(end.signal, cases[i].signal);
                CHECK_EQ(end.code, cases[i].code);
            }
            check_output(process, 1, said[i]);
            yoke_process_release(process);
        }
    }
}

static int in_two_processes(void *arg)
{
    yoke_process *parents = arg;
    yoke_output output = {.size = sizeof output};
    CHECK_RC(yoke_process_wait(parents, 0, NULL), -ECHILD);
    CHECK_EQ(yoke_process_kill(parents), -ECHILD);
    CHECK_RC(yoke_process_output(parents, 1, &output), -ECHILD);
    yoke_process_release(parents); /* frees the copy, kills nothing */
    yoke_process *own = run_shell("echo child", (yoke_program){.output = capture});
    check_code(own, 0);
    check_output(own, 1, "child\n");
    yoke_process_release(own);
    return 0;
}

static void a_forked_child_has_programs_of_its_own(void)
{
    yoke_process *process =
        run_shell("read x; echo parent",
                  (yoke_program){.input = {.kind = YOKE_STREAM_PIPE}, .output = capture});
    CHECK_CHILD(in_two_processes, process);
    int fd = -1;
    CHECK_RC(yoke_process_take_pipe(process, 0, &fd), 0);
    close(fd);
    check_code(process, 0);
    check_output(process, 1, "parent\n");
    yoke_process_release(process);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    need_real_machine();
    CHECK(mkdtemp(folder) != NULL);
    RUN(codes_and_signals_come_back);
    RUN(arguments_arrive_as_they_are);
    RUN(what_cannot_be_executed_is_an_error_of_the_start);
    RUN(nonsense_is_refused);
    RUN(path_is_the_one_of_its_environment);
    RUN(it_runs_where_it_is_told);
    RUN(files_are_read_emptied_and_appended_to);
    RUN(pipes_are_ours_to_read_and_write);
    RUN(nobody_else_holds_its_pipes);
    RUN(descriptors_are_those_asked_for);
    RUN(streams_cross_over);
    RUN(signals_are_as_at_the_start_of_a_program);
    RUN(it_has_a_group_of_its_own_and_our_session);
    RUN(what_this_thread_has_now_is_inherited);
    RUN(limits_hold);
    RUN(a_forked_child_has_programs_of_its_own);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_EQ(system(command), 0);
    return 0;
}
