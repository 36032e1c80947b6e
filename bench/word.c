/* SPDX-License-Identifier: MIT
 * word.c - waiting on a word, by spinning and by sleeping on a futex.
 *
 * Idea: the bare calls, with nothing around them, since they are what Yoke is compared with.
 * The futexes are shared ones (no FUTEX_PRIVATE_FLAG): the sides are processes.
 */
#include "word.h"

#include "machine.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

void bench_word_spin(struct bench_word *word, uint32_t value)
{
    while (bench_word_get(word) != value) {
        bench_pause();
    }
}

uint32_t bench_word_sleep(struct bench_word *word, uint32_t value)
{
    for (;;) {
        const uint32_t now = bench_word_get(word);
        if (now != value) {
            return now;
        }
        syscall(SYS_futex, &word->value, FUTEX_WAIT, value, NULL, NULL, 0);
    }
}

void bench_word_wake(struct bench_word *word, uint32_t value)
{
    bench_word_put(word, value);
    syscall(SYS_futex, &word->value, FUTEX_WAKE, 1, NULL, NULL, 0);
}
