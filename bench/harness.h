/* SPDX-License-Identifier: MIT
 * harness.h - what a figure is, and how it is run.
 *
 * Idea: a figure is one line of a table: a function that measures Yoke once, a function that
 * measures the reference once, and how often. Both give a time, so less is better, and
 * the ratio is reference / Yoke: above 1, Yoke is better. A measurement that cannot show that
 * its work was done returns the reason, and the figure is refused.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stddef.h>

/** Measure once. \return NULL and *value set, or what is wrong: the figure is then refused. */
typedef const char *bench_measure(double *value);

/** One figure. setup runs once before its rounds, teardown once after them, also after a failure
 *  (of setup too); either may be NULL. */
typedef struct bench_figure {
    const char *name;      /**< "room/what" */
    const char *unit;      /**< of both values: ns, us, ms or KiB */
    const char *reference; /**< what the value is compared with, in a few words */
    bench_measure *yoke;
    bench_measure *ref;
    unsigned rounds;     /**< how often each is measured, in turns */
    unsigned cpus;       /**< skipped on a machine with fewer; 0: 1 */
    unsigned memory_mib; /**< skipped when less is available */
    const char *peer;    /**< skipped when this one is not there (peers/); NULL: none */
    const char *(*setup)(void);
    void (*teardown)(void);
} bench_figure;

/** The figures of one file. */
typedef struct bench_table {
    const bench_figure *figures;
    size_t count;
} bench_table;

/** The tables, each at the end of its file; main.c lists them. */
extern const bench_table bench_process_table;
extern const bench_table bench_start_table;
extern const bench_table bench_thread_table;
extern const bench_table bench_map_table;
extern const bench_table bench_stream_table;
extern const bench_table bench_heap_table;
extern const bench_table bench_footprint_table;
extern const bench_table bench_clean_table;
extern const bench_table bench_threads_fork_table;
extern const bench_table bench_threads_region_table;
extern const bench_table bench_threads_range_table;
extern const bench_table bench_threads_post_table;

/** How to run; zero means default. */
typedef struct bench_options {
    const char *only; /**< the prefix of the names to run; NULL: all */
    unsigned rounds;  /**< in place of each figure's own; 0: its own */
    int verbose;      /**< adds a comment line with the spread */
} bench_options;

/** Run a table and print a line for each figure. \return how many were refused. */
unsigned bench_run(const bench_table *table, const bench_options *options);

/** The middle one of count values; the values are sorted by it. */
double bench_median(double *values, size_t count);

/** "what: text of the error", in a buffer that the next call overwrites. */
const char *bench_why(const char *what, int error);

#endif
