/* SPDX-License-Identifier: MIT
 * program_image.c - the supervisor, as a byte array.   Room: platform.
 *
 * Idea: it is executed from a nameless file in memory, so there is nothing to install and nothing
 * to find. The build makes the program first and says where it is.
 */
#include "platform/platform.h"

#if defined(YK_SUPERVISOR)
__asm__(".section .rodata\n"
        ".globl yk_supervisor_start\n"
        ".globl yk_supervisor_end\n"
        ".hidden yk_supervisor_start\n"
        ".hidden yk_supervisor_end\n"
        "yk_supervisor_start:\n"
        ".incbin \"" YK_SUPERVISOR "\"\n"
        "yk_supervisor_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const unsigned char yk_supervisor_start[];
extern const unsigned char yk_supervisor_end[];
#else /* for tools that only read */
static const unsigned char yk_supervisor_start[1];
static const unsigned char *const yk_supervisor_end = yk_supervisor_start;
#endif

const unsigned char *yk_supervisor_bytes(size_t *count)
{
    *count = (size_t)(yk_supervisor_end - yk_supervisor_start);
    return yk_supervisor_start;
}
