/* SPDX-License-Identifier: MIT
 * libtasks.c - functions that a test and the image it starts have both loaded, each at an address
 * of its own.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <yoke/yoke.h>

YOKE_API int tasks_cube(yoke_task *task, const void *in, void *out);
YOKE_API int tasks_address(yoke_task *task, const void *in, void *out);
YOKE_API int tasks_sum(yoke_task *task, size_t begin, size_t end, void *out);
YOKE_API int tasks_die(yoke_task *task, const void *in, void *out);
YOKE_API int tasks_sleep(yoke_task *task, const void *in, void *out);
YOKE_API int tasks_pid(yoke_task *task, const void *in, void *out);
YOKE_API int tasks_context(yoke_task *task, const void *in, void *out);

int tasks_cube(yoke_task *task, const void *in, void *out)
{
    (void)task;
    int64_t x;
    memcpy(&x, in, sizeof x);
    x *= x * x;
    memcpy(out, &x, sizeof x);
    return 0;
}

/* Where this library lies in the worker. */
int tasks_address(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    const uintptr_t here = (uintptr_t)tasks_address;
    memcpy(out, &here, sizeof here);
    return 0;
}

int tasks_sum(yoke_task *task, size_t begin, size_t end, void *out)
{
    int64_t *const counter = (int64_t *)yoke_task_context(task);
    int64_t sum = 0;
    for (size_t i = begin; i < end; i++)
        sum += (int64_t)i;
    if (out)
        *(int64_t *)out += sum;
    else
        __atomic_fetch_add(counter, sum, __ATOMIC_SEQ_CST);
    return 0;
}

int tasks_die(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    raise(SIGKILL);
    return 0;
}

int tasks_sleep(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    for (;;)
        pause();
}

int tasks_pid(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    const int64_t pids[2] = {getpid(), getppid()};
    memcpy(out, pids, sizeof pids);
    return 0;
}

int tasks_context(yoke_task *task, const void *in, void *out)
{
    (void)in;
    const char *const text = yoke_task_context(task);
    const int64_t length = (int64_t)strlen(text);
    memcpy(out, &length, sizeof length);
    return 0;
}
