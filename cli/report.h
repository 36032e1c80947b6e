/* SPDX-License-Identifier: MIT
 * report.h - what one measurement found: figures, and a verdict in words computed from them.
 */
#ifndef REPORT_H
#define REPORT_H

#include "text.h"
#include "trial.h"

enum { REPORT_FIGURES = 12 };

struct report {
    struct figure figures[REPORT_FIGURES];
    size_t count;
    char verdict[900];
};

/** Add a figure; group and label are constant strings. Its note is empty. */
struct figure *report_add(struct report *report, const char *group, const char *label, double value,
                          enum unit unit);

/** Add the median of each trial; those whose label begins with "Yoke" stand out as Yoke's. With
 *  base, each other one is noted with its speed-up over it. */
void report_trials(struct report *report, const char *group, const struct trial *trials,
                   size_t count, const struct trial *base);

/** Let all figures but the first stand out: those of Yoke, beside one loop without it. */
void report_mark_yoke(struct report *report);

/** Add a sentence to the verdict. */
void report_say(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Is this speed-up (the best one there was) one that more CPUs explain? If not, add why: one
 *  CPU, or the load of the machine. \return 1 or 0 */
int report_gain(struct report *report, double speedup);

/** "3.1 times as fast as", "about as fast as", "2.0 times slower than": into buffer. */
const char *speed_words(char *buffer, size_t size, double speedup);

/** Print the figures and then the verdict. */
void report_print(const struct report *report);

#endif
