/* SPDX-License-Identifier: MIT
 * thread.c - starting and joining threads.   Room: platform.
 *
 * Threads of Yoke have all signals blocked: the program's handlers run where they always ran,
 * and the program's sleeps and reads are the ones interrupted.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "platform/platform.h"

#define NAME_BYTES 16
#define STACK_BYTES_MIN ((size_t)8 << 20)
#define STACK_BYTES_UNLIMITED ((size_t)64 << 20)

struct start {
    void (*fn)(void *);
    void *arg;
    char name[NAME_BYTES];
};

static void *run(void *arg)
{
    struct start start = *(struct start *)arg;
    free(arg);
    if (start.name[0] != '\0') {
        pthread_setname_np(pthread_self(), start.name);
    }
    start.fn(start.arg);
    return NULL;
}

static int pin(pthread_attr_t *attr, const int *cpus, size_t count)
{
    int top = 0;
    for (size_t i = 0; i < count; i++) {
        if (cpus[i] < 0 || cpus[i] >= 1 << 20) {
            return EINVAL;
        }
        top = cpus[i] > top ? cpus[i] : top;
    }
    cpu_set_t *const set = CPU_ALLOC((size_t)top + 1);
    if (set == NULL) {
        return ENOMEM;
    }
    const size_t bytes = CPU_ALLOC_SIZE((size_t)top + 1);
    CPU_ZERO_S(bytes, set);
    for (size_t i = 0; i < count; i++) {
        CPU_SET_S((size_t)cpus[i], bytes, set);
    }
    const int rc = pthread_attr_setaffinity_np(attr, bytes, set);
    CPU_FREE(set);
    return rc;
}

static int apply(pthread_attr_t *attr, const struct yk_thread_setup *setup)
{
    int rc = 0;
    if (setup->stack_bytes != 0) {
        const size_t bytes = yk_round_up(setup->stack_bytes, yk_page_bytes());
        rc = pthread_attr_setstacksize(attr, yk_max(bytes, (size_t)PTHREAD_STACK_MIN));
    }
    if (rc == 0 && setup->cpus != NULL) {
        rc = pin(attr, setup->cpus, setup->cpu_count);
    }
    return rc;
}

int yk_thread_start(const struct yk_thread_setup *setup, void (*fn)(void *), void *arg,
                    yk_thread_id *thread)
{
    struct start *const start = calloc(1, sizeof *start);
    if (start == NULL) {
        return -ENOMEM;
    }
    start->fn = fn;
    start->arg = arg;
    if (setup->name != NULL) {
        strncpy(start->name, setup->name, NAME_BYTES - 1);
    }
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) {
        free(start);
        return -rc;
    }
    pthread_t id;
    rc = apply(&attr, setup);
    if (rc == 0) {
        struct yk_signal_mask mask;
        yk_signals_block(&mask);
        rc = pthread_create(&id, &attr, run, start);
        yk_signals_restore(&mask);
    }
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        free(start);
        return -rc;
    }
    thread->handle = (unsigned long)id;
    return 0;
}

void yk_thread_join(yk_thread_id thread)
{
    pthread_join((pthread_t)thread.handle, NULL);
}

void yk_thread_detach(yk_thread_id thread)
{
    pthread_detach((pthread_t)thread.handle);
}

bool yk_thread_is_self(yk_thread_id thread)
{
    return pthread_equal((pthread_t)thread.handle, pthread_self()) != 0;
}

unsigned yk_thread_count(void)
{
    const int saved = errno;
    struct stat tasks;
    /* The folder has one link per thread, besides . and .. */
    const bool known = stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink > 2;
    errno = saved;
    return known ? (unsigned)tasks.st_nlink - 2 : UINT_MAX;
}

void yk_fork_watch(void (*in_child)(void))
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

struct yk_thread_watch yk_thread_watch_self(void)
{
    clockid_t clock = CLOCK_THREAD_CPUTIME_ID;
    (void)pthread_getcpuclockid(pthread_self(), &clock);
    return (struct yk_thread_watch){.id = (int)gettid(), .clock = clock};
}

int64_t yk_thread_cpu_ns(struct yk_thread_watch watch)
{
    struct timespec used = {0};
    const int saved = errno;
    const int rc = clock_gettime(watch.clock, &used);
    errno = saved;
    return rc == 0 ? (int64_t)used.tv_sec * 1000000000LL + used.tv_nsec : -1;
}

/* "ID (NAME) STATE ...": S and D wait, R runs or is ready to; what is stopped does neither. */
int yk_thread_waits(struct yk_thread_watch watch)
{
    char path[64];
    char text[128];
    const int saved = errno;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", watch.id);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) {
        close(fd);
    }
    errno = saved;
    text[length > 0 ? length : 0] = '\0';
    const char *const name_end = strrchr(text, ')');
    if (name_end == NULL || name_end[1] != ' ') {
        return -1;
    }
    return name_end[2] == 'S' || name_end[2] == 'D';
}

size_t yk_stack_bytes_default(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0) {
        return STACK_BYTES_MIN;
    }
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > STACK_BYTES_UNLIMITED) {
        return STACK_BYTES_UNLIMITED;
    }
    return yk_max((size_t)limit.rlim_cur, STACK_BYTES_MIN);
}
