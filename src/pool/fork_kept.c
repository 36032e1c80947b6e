/* SPDX-License-Identifier: MIT
 * fork_kept.c - the way from inline code to fork.c that keeps the general registers.
 *
 * The caller names what is not kept: the arguments, rax, r10, r11 and all vector registers. See
 * YOKE_FORK_SLOW in fork.h for why. Elsewhere than on x86-64 there is none.   Room: pool.
 */
#include <yoke/fork.h>

#if defined(__x86_64__)
#define KEPT(name) \
    __asm__(".text\n" \
            ".globl " #name "_kept\n" \
            ".type " #name "_kept, @function\n" #name "_kept:\n" \
            "\t.cfi_startproc\n" \
            "\tendbr64\n" \
            "\tpush %rbp\n" \
            "\t.cfi_def_cfa_offset 16\n" \
            "\t.cfi_offset rbp, -16\n" \
            "\tmov %rsp, %rbp\n" \
            "\t.cfi_def_cfa_register rbp\n" \
            "\tpush %rcx\n" \
            "\tpush %r8\n" \
            "\tpush %r9\n" \
            "\tand $-16, %rsp\n" \
            "\tcld\n" \
            "\tcall " #name "\n" \
            "\tmov -8(%rbp), %rcx\n" \
            "\tmov -16(%rbp), %r8\n" \
            "\tmov -24(%rbp), %r9\n" \
            "\tleave\n" \
            "\t.cfi_def_cfa rsp, 8\n" \
            "\tret\n" \
            "\t.cfi_endproc\n" \
            ".size " #name "_kept, .-" #name "_kept\n")

KEPT(yoke_fork_called);
KEPT(yoke_fork_taken);
#else
typedef int yk_nothing_is_kept_here;
#endif
