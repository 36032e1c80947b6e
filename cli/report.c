/* SPDX-License-Identifier: MIT
 * report.c - what one measurement found (see report.h).
 */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yoke/yoke.h>

struct figure *report_add(struct report *report, const char *group, const char *label, double value,
                          enum unit unit)
{
    static struct figure spill; /* a row with too many figures loses the last ones */
    struct figure *figure =
        report->count < REPORT_FIGURES ? &report->figures[report->count++] : &spill;
    *figure = (struct figure){.group = group, .value = value, .unit = unit};
    figure->yoke = strncmp(label, "Yoke", 4) == 0;
    snprintf(figure->label, sizeof figure->label, "%s", label);
    return figure;
}

void report_trials(struct report *report, const char *group, const struct trial *trials,
                   size_t count, const struct trial *base)
{
    for (size_t i = 0; i < count; i++) {
        struct figure *figure =
            report_add(report, group, trials[i].label, trial_median_ns(&trials[i]), UNIT_NS);
        if (base != NULL && base != &trials[i])
            snprintf(figure->note, sizeof figure->note, "%.2fx", trial_speedup(base, &trials[i]));
    }
}

void report_mark_yoke(struct report *report)
{
    for (size_t i = 1; i < report->count; i++)
        report->figures[i].yoke = 1;
}

void report_say(struct report *report, const char *format, ...)
{
    const size_t used = strlen(report->verdict);
    char *end = report->verdict + used;
    const size_t left = sizeof report->verdict - used;
    va_list args;
    va_start(args, format);
    const int gap = snprintf(end, left, "%s", used > 0 ? " " : "");
    if ((size_t)gap < left)
        vsnprintf(end + gap, left - (size_t)gap, format, args);
    va_end(args);
}

int report_gain(struct report *report, double speedup)
{
    const unsigned cpus = yoke_cpu_count();
    const int faster = speedup >= 1.15;
    double load = 0;
    if (cpus > 1 && faster)
        return 1;
    if (faster)
        report_say(report,
                   "No gain from more CPUs: this process may use 1 CPU. It is faster only since "
                   "several workers get more of it, beside other programs, than one.");
    else if (cpus == 1)
        report_say(report,
                   "No gain: this process may use 1 CPU, and the workers take turns on it.");
    else if (getloadavg(&load, 1) == 1 && load > cpus)
        report_say(report,
                   "No gain: the load of this machine was %.1f over the last minute, so other "
                   "programs probably took its %u CPUs.",
                   load, cpus);
    else
        report_say(report, "No gain, although this process may use %u CPUs.", cpus);
    return 0;
}

const char *speed_words(char *buffer, size_t size, double speedup)
{
    if (speedup >= 1.15)
        snprintf(buffer, size, "%.*f times as fast as", speedup < 10 ? 1 : 0, speedup);
    else if (speedup <= 1 / 1.15)
        snprintf(buffer, size, "%.*f times slower than", speedup > 0.1 ? 1 : 0, 1 / speedup);
    else
        snprintf(buffer, size, "about as fast as");
    return buffer;
}

void report_print(const struct report *report)
{
    text_figures(report->figures, report->count);
    text_verdict(report->verdict);
}
