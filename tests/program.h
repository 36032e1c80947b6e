/* SPDX-License-Identifier: MIT
 * program.h - what the tests of programs share: short starts, ends, and who is left.
 */
#ifndef YOKE_TESTS_PROGRAM_H
#define YOKE_TESTS_PROGRAM_H

#include "check.h"

/** A program on an emulated machine is one of the machine below, where nothing here holds. */
static inline void need_real_machine(void)
{
    if (check_emulated())
        skip("programs are not run by the emulator");
}

static inline int try_program(const yoke_program *wanted, yoke_process **process)
{
    yoke_program program = *wanted;
    program.size = sizeof program;
    return yoke_program_start(&program, process);
}

static inline yoke_process *run_program(const yoke_program *wanted)
{
    yoke_process *process = NULL;
    CHECK_RC(try_program(wanted, &process), 0);
    CHECK(process != NULL && yoke_process_id(process) > 0);
    return process;
}

/** Run this through sh -c; the rest as in `wanted`. */
static inline yoke_process *run_shell(const char *script, yoke_program wanted)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    wanted.argv = argv;
    return run_program(&wanted);
}

static inline yoke_process_end end_of(yoke_process *process)
{
    yoke_process_end end = {.code = 12345, .signal = 12345};
    CHECK_RC(yoke_process_wait(process, yoke_in_ms(20000LL * check_slowness()), &end), 0);
    return end;
}

/** Waits until this process is that program. A shell that is about to become another program
 * forgets a SIGINT of its last moments. */
static inline void await_program(int pid, const char *name)
{
    struct proc_info info = {0};
    WAIT_FOR(proc_read(pid, &info) && strcmp(info.name, name) == 0);
}

static inline void check_code(yoke_process *process, int code)
{
    const yoke_process_end end = end_of(process);
    CHECK_EQ(end.signal, 0);
    CHECK_EQ(end.code, code);
}

static inline yoke_output output_of(yoke_process *process, int stream)
{
    yoke_output output = {.size = sizeof output};
    CHECK_RC(yoke_process_output(process, stream, &output), 0);
    CHECK(output.data != NULL && output.data[output.bytes] == 0);
    return output;
}

static inline void check_output(yoke_process *process, int stream, const char *text)
{
    const yoke_output output = output_of(process, stream);
    if (strcmp(output.data, text) != 0)
        fprintf(stderr, "    got '%s', not '%s'\n", output.data, text);
    CHECK_EQ(output.bytes, strlen(text));
    CHECK(memcmp(output.data, text, output.bytes) == 0);
    CHECK_EQ(output.dropped, 0);
}

/** Processes that have this text in their command line and are no zombies, besides us. */
static inline int count_marked(const char *mark)
{
    DIR *dir = opendir("/proc");
    CHECK(dir != NULL);
    int count = 0;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        const int pid = (int)strtol(e->d_name, NULL, 10);
        char path[300], text[4096];
        if (pid <= 0 || pid == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        const ssize_t n = read(fd, text, sizeof text);
        close(fd);
        count += n > 0 && memmem(text, (size_t)n, mark, strlen(mark)) != NULL;
    }
    closedir(dir);
    return count;
}

/** A text that only the processes of this part have: a number of seconds for sleep. */
static inline const char *new_mark(void)
{
    static char mark[64];
    static int number;
    snprintf(mark, sizeof mark, "1000.%d%04d", (int)getpid(), ++number);
    return mark;
}

#define FOR_EACH_START(flags) for (unsigned flags = 0; flags <= 2; flags += YOKE_PROGRAM_PLAIN)

#endif
