/* SPDX-License-Identifier: MIT
 * inject_plan.h - which call fails, the how-manieth time, with what; and which calls there are.
 *
 * Idea: a run without faults notes each place that is passed, and how often by the program itself,
 * by the images made of it and by the workers made of these: that is the list of what can fail. A
 * plan is one line of it. Both lie in memory that all of them share, in an area for each run.
 */
#ifndef YOKE_TESTS_INJECT_PLAN_H
#define YOKE_TESTS_INJECT_PLAN_H

#include "check.h"

enum { INJECT_SITES = 400, INJECT_TEXT = 48, INJECT_ERRORS = 6, INJECT_FOR_EVER = 1 << 30 };

/* Which process: the program, an image (or a single process), a worker. */
enum { INJECT_PROGRAM, INJECT_IMAGE, INJECT_WORKER, INJECT_DEPTHS };

struct inject_site {
    atomic_int ready;
    int line;
    char file[INJECT_TEXT], function[INJECT_TEXT], call[INJECT_TEXT];
    atomic_long calls[INJECT_DEPTHS];
};

struct inject_plan {
    int line;
    char file[INJECT_TEXT], function[INJECT_TEXT], call[INJECT_TEXT];
    int depth, error;
    long from, times;
};

struct inject_area {
    atomic_int counting; /* 1: note the places */
    atomic_int armed;    /* 1: the plan holds */
    atomic_long passed, fired;
    atomic_long maps; /* of the program, made and not unmapped */
    struct inject_plan plan;
    atomic_int site_count;
    struct inject_site sites[INJECT_SITES];
    /* of the run */
    char stage[64];
    char result[96]; /* how it ended; "" while it runs */
    char why[256];   /* what is wrong with that */
    struct usage usage;
    long maps_left;
};

extern struct inject_area *inject_area;

/* What each call can fail with; -1 ends a list, 0 is a wake-up for nothing. The first ones are
 * those of a machine that is short of something, and may last. */
struct inject_errors {
    const char *call;
    int lasting; /* the first so many may last */
    int errors[INJECT_ERRORS];
};

extern const struct inject_errors inject_errors[];
const struct inject_errors *inject_errors_of(const char *call, const char *function);
const char *inject_depth_name(int depth);
/* The place as text, the same as long as function and call keep their names. */
void inject_place(const struct inject_plan *plan, char *text, size_t bytes);

#endif
