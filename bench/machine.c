/* SPDX-License-Identifier: MIT
 * machine.c - time, CPUs and plain child processes.
 *
 * Idea: thin covers over the calls of the system, so that the references read like what they
 * measure. The set of CPUs is taken once, at the start: a thread that is bound now can be let
 * go later.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static cpu_set_t all_cpus;

int64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void bench_nap_ns(int64_t ns)
{
    struct timespec left = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

void bench_machine_init(void)
{
    if (sched_getaffinity(0, sizeof all_cpus, &all_cpus) != 0) {
        CPU_ZERO(&all_cpus);
        CPU_SET(0, &all_cpus);
    }
}

unsigned bench_cpu_count(void)
{
    return (unsigned)CPU_COUNT(&all_cpus);
}

unsigned bench_available_mib(void)
{
    unsigned long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemAvailable: %lu kB", &kib) == 1) {
            break;
        }
    }
    if (file) {
        fclose(file);
    }
    return (unsigned)(kib / 1024);
}

int bench_pin(unsigned index)
{
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all_cpus) || index-- > 0) {
            continue;
        }
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        return sched_setaffinity(0, sizeof one, &one) == 0 ? 0 : -errno;
    }
    return -EINVAL;
}

void bench_unpin(void)
{
    if (sched_setaffinity(0, sizeof all_cpus, &all_cpus) != 0) {
        perror("# sched_setaffinity");
    }
}

long bench_sleeps(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}

void *bench_share(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void bench_unshare(void *memory, size_t bytes)
{
    if (memory) {
        munmap(memory, bytes);
    }
}

/* The signal comes only if the parent dies after the prctl: hence the second look. */
static void die_with(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
        _exit(1);
    }
}

pid_t bench_fork(void (*fn)(void *), void *arg)
{
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid != 0) {
        return pid > 0 ? pid : -errno;
    }
    die_with(parent);
    fn(arg);
    _exit(0);
}

static void become(const char *role, const char *argument, int in, int out)
{
    char *const argv[] = {"bench", (char *)role, (char *)argument, NULL};
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0) {
        execv("/proc/self/exe", argv);
    }
    _exit(127);
}

int bench_program_start(struct bench_program *program, const char *role, const char *argument)
{
    int down[2], up[2];
    *program = (struct bench_program){.pid = 0, .to = -1, .from = -1};
    if (pipe2(down, O_CLOEXEC) != 0) {
        return -errno;
    }
    if (pipe2(up, O_CLOEXEC) != 0) {
        const int error = -errno;
        close(down[0]);
        close(down[1]);
        return error;
    }
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
        die_with(parent);
        become(role, argument, down[0], up[1]);
    }
    const int error = pid < 0 ? -errno : 0;
    close(down[0]);
    close(up[1]);
    *program = (struct bench_program){.pid = pid, .to = down[1], .from = up[0]};
    if (error) {
        bench_program_stop(program);
    }
    return error;
}

void bench_program_stop(struct bench_program *program)
{
    if (program->pid != 0) {
        bench_kill(program->pid);
        close(program->to);
        close(program->from);
    }
    program->pid = 0;
}

void bench_kill(pid_t pid)
{
    if (pid > 0) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
}

int bench_read(int fd, void *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        const ssize_t got = read(fd, (char *)bytes + done, count - done);
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

int bench_write(int fd, const void *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        const ssize_t put = write(fd, (const char *)bytes + done, count - done);
        if (put > 0) {
            done += (size_t)put;
        } else if (put == 0 || errno != EINTR) {
            return -1;
        }
    }
    return 0;
}
