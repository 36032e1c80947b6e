/* SPDX-License-Identifier: MIT
 * harness.c - runs figures in interleaved rounds and prints medians.
 *
 * Idea: a machine changes while it is measured (clock, placement of virtual CPUs, neighbours),
 * so Yoke and the reference are measured in turns, close together, and each round gives a
 * ratio of its own. The ratio printed is the median of those, not the ratio of the medians.
 */
#include "harness.h"

#include "machine.h"
#include "threads.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yoke/yoke.h>

enum { ROUNDS_MAX = 1001, FIGURE_SECONDS_MAX = 180 };

struct samples {
    double yoke[ROUNDS_MAX], ref[ROUNDS_MAX], ratio[ROUNDS_MAX];
};

static struct samples samples;

static int compare(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

const char *bench_why(const char *what, int error)
{
    static char text[160];
    snprintf(text, sizeof text, "%s: %s", what, yoke_strerror(error));
    return text;
}

/* A figure that hangs must end the run, and say so: the default action would be silent. */
static void give_up(int signal)
{
    static const char text[] = "# the figure hangs: giving up\n";
    (void)signal;
    if (write(STDOUT_FILENO, text, sizeof text - 1) < 0) {
        _exit(3);
    }
    _exit(2);
}

static const char *lacking(const bench_figure *figure)
{
    if (bench_cpu_count() < figure->cpus) {
        return "it needs two CPUs";
    }
    if (bench_available_mib() < figure->memory_mib) {
        return "not enough memory is free";
    }
    if (figure->peer && !threads_peer_find(figure->peer)) {
        static char text[64];
        snprintf(text, sizeof text, "no lib%s", figure->peer);
        return text;
    }
    return NULL;
}

/* Who goes first changes from round to round, so that neither always finds the caches warm. */
static const char *one_round(const bench_figure *figure, unsigned round, double *yoke, double *ref)
{
    bench_measure *const first = round % 2 ? figure->ref : figure->yoke;
    bench_measure *const second = round % 2 ? figure->yoke : figure->ref;
    const char *why = first(round % 2 ? ref : yoke);
    if (!why) {
        why = second(round % 2 ? yoke : ref);
    }
    if (!why && !(*yoke > 0 && *ref > 0)) {
        why = "a time that is not above zero";
    }
    return why;
}

static const char *measure(const bench_figure *figure, unsigned rounds)
{
    double yoke = 0, ref = 0;
    const char *why = figure->setup ? figure->setup() : NULL;
    if (!why) {
        why = one_round(figure, 0, &yoke, &ref); /* warms up; not counted */
    }
    for (unsigned round = 0; round < rounds && !why; round++) {
        why = one_round(figure, round, &yoke, &ref);
        samples.yoke[round] = yoke;
        samples.ref[round] = ref;
        samples.ratio[round] = ref / yoke;
    }
    if (figure->teardown) {
        figure->teardown();
    }
    return why;
}

static void report(const bench_figure *figure, unsigned rounds, int verbose)
{
    const double yoke = bench_median(samples.yoke, rounds);
    const double ref = bench_median(samples.ref, rounds);
    const double ratio = bench_median(samples.ratio, rounds);
    printf("%s\t%.4g\t%s\t%s\t%.4g\t%.3g\n", figure->name, yoke, figure->unit, figure->reference,
           ref, ratio);
    if (verbose) {
        const unsigned low = rounds / 10, high = rounds - 1 - low;
        printf("# %u rounds; 10%% and 90%%: yoke %.4g .. %.4g, reference %.4g .. %.4g, "
               "ratio %.3g .. %.3g\n",
               rounds, samples.yoke[low], samples.yoke[high], samples.ref[low], samples.ref[high],
               samples.ratio[low], samples.ratio[high]);
    }
}

static int run_figure(const bench_figure *figure, const bench_options *options)
{
    const char *why = lacking(figure);
    if (why) {
        printf("# %s skipped: %s\n", figure->name, why);
        return 0;
    }
    unsigned rounds = options->rounds ? options->rounds : figure->rounds;
    if (rounds > ROUNDS_MAX) {
        rounds = ROUNDS_MAX;
    }
    alarm(FIGURE_SECONDS_MAX);
    why = measure(figure, rounds);
    alarm(0);
    if (why) {
        printf("# %s REFUSED: %s\n", figure->name, why);
        return 1;
    }
    report(figure, rounds, options->verbose);
    return 0;
}

unsigned bench_run(const bench_table *table, const bench_options *options)
{
    unsigned refused = 0;
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = give_up}, NULL);
    for (size_t i = 0; i < table->count; i++) {
        const bench_figure *figure = &table->figures[i];
        if (options->only && strncmp(figure->name, options->only, strlen(options->only)) != 0) {
            continue;
        }
        refused += (unsigned)run_figure(figure, options);
        fflush(stdout);
    }
    return refused;
}
