/* SPDX-License-Identifier: MIT
 * peer.h - what another runtime can do, for the figures that compare with it.
 *
 * Idea: each peer is a shared object of its own beside the benchmarks, found when a figure asks for
 * it: what is not installed skips its figures, and flags such as -fopenmp stay with it. A peer
 * shows one table; what it cannot do is NULL. All bodies come from the benchmarks' own code, but
 * those that a runtime's users write with its own words: fib and the tiny loop.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One half of a region of two. */
typedef void bench_half_fn(void *arg, unsigned half);

/** One task that was handed in. */
typedef void bench_task_fn(void *arg);

typedef struct bench_peer {
    /** Make the runtime ready, with that many threads: in all, or beside the caller for post.
     *  \return NULL, or what is wrong. */
    const char *(*start)(unsigned threads);
    void (*stop)(void);
    int64_t quiet_ns; /**< after that its threads sleep */

    long (*fib)(int n); /**< each call spawns its first half */
    /** times regions of two halves each, one after the other */
    void (*region)(size_t times, bench_half_fn *fn, void *arg);
    /** times loops of work_tiny over the numbers */
    void (*loop)(size_t times, uint32_t *numbers, size_t count);
    void (*sort)(uint64_t *numbers, size_t count);
    void (*post)(bench_task_fn *fn, void *arg); /**< runs some time, on another thread */
    void (*settle)(void);                       /**< after posts have run, if there is more to do */
} bench_peer;

/** The table of a peer: the object's one name. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const bench_peer bench_peer_table;

#ifdef __cplusplus
}
#endif

#endif
