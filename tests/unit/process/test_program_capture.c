/* SPDX-License-Identifier: MIT
 * test_program_capture.c - what programs write and read: all of it, in order, within bounds.
 *
 * Idea: the programs write what can be checked byte by byte, more of it than any pipe holds, and
 * nobody reads until they have ended: a program that had to wait would never end.
 */
/* timeout: 180 */
/* tsan: yes */
#include "program.h"

#define MIB ((size_t)1 << 20)

static const yoke_stream capture = {.kind = YOKE_STREAM_CAPTURE};

static void thousands_of_lines_on_both_streams(void)
{
    enum { LINES = 10000 };
    static const char script[] = "read go; i=0; while [ $i -lt 10000 ]; do echo out $i; "
                                 "echo err $i >&2; i=$((i+1)); done; exit 4";
    const yoke_stream pipe_ = {.kind = YOKE_STREAM_PIPE};
    FOR_EACH_START(flags)
    {
        yoke_process *process = run_shell(
            script,
            (yoke_program){.input = pipe_, .output = capture, .error = capture, .flags = flags});
        yoke_output early = {.size = sizeof early};
        CHECK_RC(yoke_process_output(process, 1, &early), -EBUSY);
        yoke_usage usage = {.size = sizeof usage};
        CHECK_RC(yoke_process_usage(process, &usage), -EBUSY);
        int go = -1;
        CHECK_RC(yoke_process_take_pipe(process, 0, &go), 0);
        close(go);
        check_code(process, 4);
        for (int stream = 1; stream <= 2; stream++) {
            const yoke_output output = output_of(process, stream);
            const char *at = output.data;
            for (int i = 0; i < LINES; i++) {
                char line[32];
                const int n =
                    snprintf(line, sizeof line, "%s %d\n", stream == 1 ? "out" : "err", i);
                CHECK(memcmp(at, line, (size_t)n) == 0);
                at += n;
            }
            CHECK_EQ(at - output.data, output.bytes);
        }
        yoke_process_release(process);
        /* Both into one: in the order in which they were written. */
        process = run_shell(script, (yoke_program){.output = capture,
                                                   .error = {.kind = YOKE_STREAM_STDOUT},
                                                   .flags = flags});
        check_code(process, 4);
        const yoke_output both = output_of(process, 1);
        const char *at = both.data;
        for (int i = 0; i < LINES; i++) {
            char line[64];
            const int n = snprintf(line, sizeof line, "out %d\nerr %d\n", i, i);
            CHECK(memcmp(at, line, (size_t)n) == 0);
            at += n;
        }
        CHECK_EQ(at - both.data, both.bytes);
        yoke_process_release(process);
    }
}

/* A file of numbers, one to a line, and what is in it. */
static char pattern[] = "/tmp/yoke-test-XXXXXX";
static char *numbers;

static void make_pattern(size_t bytes)
{
    const int fd = mkstemp(pattern);
    CHECK(fd >= 0);
    numbers = malloc(bytes + 1);
    CHECK(numbers != NULL);
    for (size_t i = 0; i < bytes / 8; i++)
        snprintf(numbers + i * 8, 9, "%07zu\n", i % 10000000);
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = write(fd, numbers + done, bytes - done);
        CHECK(n > 0);
        done += (size_t)n;
    }
    close(fd);
}

static int pattern_is_right(const char *data, size_t bytes)
{
    return memcmp(data, numbers, bytes) == 0;
}

static void check_pattern(size_t total, size_t memory_bytes, size_t total_bytes, const char *spill,
                          unsigned flags)
{
    char script[128];
    snprintf(script, sizeof script, "head -c %zu %s; seq 100000 >&2", total, pattern);
    const yoke_stream bounded = {
        .kind = YOKE_STREAM_CAPTURE, .memory_bytes = memory_bytes, .total_bytes = total_bytes};
    yoke_process *process = run_shell(
        script, (yoke_program){
                    .output = bounded, .error = capture, .flags = flags, .spill_directory = spill});
    check_code(process, 0);
    const yoke_output output = output_of(process, 1);
    const size_t kept = total_bytes != 0 && total_bytes < total ? total_bytes : total;
    CHECK_EQ(output.bytes, kept);
    CHECK_EQ(output.dropped, total - kept);
    CHECK(pattern_is_right(output.data, output.bytes));
    const yoke_output again = output_of(process, 1);
    CHECK(again.data == output.data);
    CHECK_EQ(output_of(process, 2).bytes, 588895);
    yoke_process_release(process);
}

static void big_outputs_spill_and_are_bounded(void)
{
    const size_t big = 50 * MIB;
    FOR_EACH_START(flags)
    {
        check_pattern(big, 0, 0, NULL, flags);
        check_pattern(big, MIB, 10 * MIB + 3, NULL, flags); /* file, then nothing */
        check_pattern(big, 64 * MIB, 3 * MIB + 5, NULL, flags);
        check_pattern(4 * MIB, 1, 0, NULL, flags);
        check_pattern(4 * MIB, MIB, 0, "/no/such/folder", flags); /* then memory it is */
        check_pattern(4 * MIB, 4 * MIB, 4 * MIB, NULL, flags);
        check_pattern(4 * MIB, 4 * MIB - 1, 0, NULL, flags);
        check_pattern(4 * MIB, 4 * MIB, 1, NULL, flags);
    }
}

static void no_file_is_left_where_it_spilled(void)
{
    char folder[] = "/tmp/yoke-test-XXXXXX";
    CHECK(mkdtemp(folder) != NULL);
    check_pattern(4 * MIB, MIB, 0, folder, 0);
    CHECK_EQ(count_entries(folder), 0);
    CHECK_EQ(rmdir(folder), 0);
}

/* A full disk: what does not fit is counted, and what fits is right. */
static void a_full_disk_is_counted(void)
{
    char folder[] = "/tmp/yoke-test-XXXXXX", command[200];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(command, sizeof command, "mount -t tmpfs -o size=2m none %s 2>/dev/null", folder);
    const int mounted = system(command) == 0;
    if (mounted) {
        char script[64];
        snprintf(script, sizeof script, "head -c %zu %s", 8 * MIB, pattern);
        const yoke_stream bounded = {.kind = YOKE_STREAM_CAPTURE, .memory_bytes = MIB};
        yoke_process *process =
            run_shell(script, (yoke_program){.output = bounded, .spill_directory = folder});
        check_code(process, 0);
        const yoke_output output = output_of(process, 1);
        CHECK(output.bytes >= MIB && output.bytes <= 2 * MIB);
        CHECK_EQ(output.bytes + output.dropped, 8 * MIB);
        CHECK(pattern_is_right(output.data, output.bytes));
        yoke_process_release(process);
        snprintf(command, sizeof command, "umount %s", folder);
        CHECK_EQ(system(command), 0);
    } else {
        fprintf(stderr, "    nothing can be mounted here\n");
    }
    CHECK_EQ(rmdir(folder), 0);
}

static void any_bytes_go_through(void)
{
    const size_t size = 3 * MIB + 17;
    unsigned char *bytes = malloc(size);
    CHECK(bytes != NULL);
    uint64_t state = 7;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)random_next(&state);
    memset(bytes, 0, 1000);
    const char *const argv[] = {"cat", NULL};
    FOR_EACH_START(flags)
    {
        const size_t sizes[] = {0, 1, 65536, 65537, size};
        for (int i = 0; i < 5; i++) {
            yoke_process *process =
                run_program(&(yoke_program){.argv = argv,
                                            .input = {.kind = YOKE_STREAM_BYTES,
                                                      .bytes = sizes[i] ? bytes : NULL,
                                                      .byte_count = sizes[i]},
                                            .output = capture,
                                            .flags = flags});
            check_code(process, 0);
            const yoke_output output = output_of(process, 1);
            CHECK_EQ(output.bytes, sizes[i]);
            CHECK(memcmp(output.data, bytes, output.bytes) == 0);
            yoke_process_release(process);
        }
    }
    free(bytes);
}

/* Who ends right after a write leaves it in the pipe. */
static void the_last_words_are_heard(void)
{
    enum { BYTES = 60000 };
    const char *const argv[] = {"head", "-c", "60000", "/dev/zero", NULL};
    for (int i = 0; i < 60; i++) {
        yoke_process *process = run_program(&(yoke_program){
            .argv = argv, .output = capture, .flags = i % 2 ? YOKE_PROGRAM_PLAIN : 0});
        check_code(process, 0);
        CHECK_EQ(output_of(process, 1).bytes, BYTES);
        yoke_process_release(process);
    }
}

static void silence_is_an_empty_output(void)
{
    yoke_process *process =
        run_shell("exec >&- 2>&-; exit 0", (yoke_program){.output = capture, .error = capture});
    check_code(process, 0);
    check_output(process, 1, "");
    check_output(process, 2, "");
    yoke_process_release(process);
}

/* What was left running holds the pipe: the end of the program is the end of the output. */
static void who_is_left_running_does_not_hold_the_output_open(void)
{
    const char *mark = new_mark();
    char script[128];
    snprintf(script, sizeof script, "echo before; sleep %s & echo after", mark);
    yoke_process *process =
        run_shell(script, (yoke_program){.output = capture, .flags = YOKE_PROGRAM_LEAVE});
    check_code(process, 0);
    check_output(process, 1, "before\nafter\n");
    yoke_process_release(process);
    WAIT_FOR(count_marked(mark) == 1); /* it may be on its way from shell to sleep */
    snprintf(script, sizeof script, "pkill -f '[s]leep %s'", mark);
    CHECK_EQ(system(script), 0);
    WAIT_FOR(count_marked(mark) == 0);
}

/* A writer left behind that never stops must not keep the last read going. */
static void who_writes_for_ever_is_cut_off(void)
{
    const char *mark = new_mark();
    char script[160];
    snprintf(script, sizeof script, "sh -c 'while :; do echo %s; done' & sleep 0.05", mark);
    yoke_process *process = run_shell(
        script, (yoke_program){.output = {.kind = YOKE_STREAM_CAPTURE, .total_bytes = 100000},
                               .flags = YOKE_PROGRAM_LEAVE});
    check_code(process, 0);
    CHECK(output_of(process, 1).bytes <= 100000);
    yoke_process_release(process);
    WAIT_FOR(count_marked(mark) == 0); /* by SIGPIPE */
}

static void nothing_grows(void)
{
    const char *const argv[] = {"sh", "-c", "echo x; echo y >&2", NULL};
    const yoke_program program = {
        .argv = argv,
        .input = {.kind = YOKE_STREAM_BYTES, .bytes = "b", .byte_count = 1},
        .output = {.kind = YOKE_STREAM_CAPTURE, .memory_bytes = 1},
        .error = capture};
    struct usage before = usage_now(); /* the first one opens the shared heap */
    for (int i = 0; i < 60; i++) {
        yoke_process *process = run_program(&program);
        if (i % 3 != 2) /* or it is killed at once, and nobody waits */
            check_code(process, 0);
        yoke_process_release(process);
        if (i == 9)
            before = usage_now();
    }
    usage_check(before, 8);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    need_real_machine();
    RUN(thousands_of_lines_on_both_streams);
    make_pattern(50 * MIB);
    RUN(big_outputs_spill_and_are_bounded);
    RUN(no_file_is_left_where_it_spilled);
    RUN(a_full_disk_is_counted);
    CHECK_EQ(unlink(pattern), 0);
    free(numbers);
    RUN(any_bytes_go_through);
    RUN(the_last_words_are_heard);
    RUN(silence_is_an_empty_output);
    RUN(who_is_left_running_does_not_hold_the_output_open);
    RUN(who_writes_for_ever_is_cut_off);
    RUN(nothing_grows);
    return 0;
}
