/* SPDX-License-Identifier: MIT
 * libother.c - a function of a library that an image may not have loaded.
 */
#include <string.h>
#include <yoke/yoke.h>

YOKE_API int other_answer(yoke_task *task, const void *in, void *out);

int other_answer(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    const int64_t answer = 42;
    memcpy(out, &answer, sizeof answer);
    return 0;
}
