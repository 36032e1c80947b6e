/* SPDX-License-Identifier: MIT
 * word.h - a number that two processes share, and a gate made of it.
 *
 * Idea: all references talk through these few calls. A word has a cache line of its own. A
 * gate is a word that a spinning peer sleeps on between its passes, so that it does not burn
 * the CPU while the other side of a figure is measured.
 */
#ifndef BENCH_WORD_H
#define BENCH_WORD_H

#include <stdatomic.h>
#include <stdint.h>

struct bench_word {
    _Alignas(64) _Atomic uint32_t value;
};

static inline uint32_t bench_word_get(struct bench_word *word)
{
    /* SYNC(bench-word) acquire: sees what was written before the word was put. */
    return atomic_load_explicit(&word->value, memory_order_acquire);
}

static inline void bench_word_put(struct bench_word *word, uint32_t value)
{
    /* SYNC(bench-word) release: publishes what was written before. */
    atomic_store_explicit(&word->value, value, memory_order_release);
}

/** Spin until the word has that value. */
void bench_word_spin(struct bench_word *word, uint32_t value);

/** Sleep until the word is another value than that. \return the new one. */
uint32_t bench_word_sleep(struct bench_word *word, uint32_t value);

/** Put a value and wake the one that sleeps. */
void bench_word_wake(struct bench_word *word, uint32_t value);

#endif
