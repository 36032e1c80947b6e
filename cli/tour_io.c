/* SPDX-License-Identifier: MIT
 * tour_io.c - row "io": web pages from a server that takes 50 ms for each.
 *
 * Idea: who waits needs no CPU, so there are as many threads or processes as pages.
 */
#include "downloads.h"
#include "plain.h"
#include "tour.h"

enum { SERIAL, PLAIN_THREADS, PLAIN_FORKS, YOKE_T, YOKE_P, WAYS };

static int run_threads(void *arg)
{
    struct downloads *downloads = arg;
    return plain_threads(download, downloads->ports, sizeof *downloads->ports, DOWNLOADS);
}

static int run_forks(void *arg)
{
    struct downloads *downloads = arg;
    return plain_forks(download, downloads->ports, sizeof *downloads->ports, DOWNLOADS);
}

static void conclude(struct report *report, const struct trial ways[WAYS],
                     const struct downloads *downloads)
{
    char one[32], threads_start[32], processes_start[32];
    const unsigned cpus = yoke_cpu_count();
    const double threads = trial_speedup(&ways[SERIAL], &ways[YOKE_T]);
    const double processes = trial_speedup(&ways[SERIAL], &ways[YOKE_P]);
    text_ns(one, sizeof one, trial_median_ns(&ways[YOKE_T]));
    text_ns(threads_start, sizeof threads_start, downloads->threads_start_ns);
    text_ns(processes_start, sizeof processes_start, downloads->processes_start_ns);
    if (threads < 1.5) {
        report_say(report,
                   "Not here: threads were only %.2f times as fast as one download after "
                   "the other.",
                   threads);
        return;
    }
    report_say(
        report,
        "True: %d downloads in %s, %.1f times as fast as one after the other, with %u CPU%s. "
        "Waiting needs no CPU, only someone to wait.",
        DOWNLOADS, one, threads, cpus, cpus == 1 ? "" : "s");
    report_say(report,
               "Processes are %.1f times as fast, too; their pool was ready in %s, that of the "
               "threads in %s: for waiting take threads.",
               processes, processes_start, threads_start);
}

int tour_io(struct report *report)
{
    struct downloads downloads;
    struct trial ways[WAYS] = {
        [SERIAL] = {.label = "one after the other", .run = downloads_serial, .arg = &downloads},
        [PLAIN_THREADS] = {.label = "a pthread each", .run = run_threads, .arg = &downloads},
        [PLAIN_FORKS] = {.label = "a fork each", .run = run_forks, .arg = &downloads},
        [YOKE_T] = {.label = "Yoke threads", .run = downloads_threads, .arg = &downloads},
        [YOKE_P] = {.label = "Yoke processes", .run = downloads_processes, .arg = &downloads},
    };
    int rc = downloads_open(&downloads);
    rc = rc ? rc : trial_run(ways, WAYS, 3, 5000);
    downloads_close(&downloads);
    if (rc != 0)
        return rc;
    report_trials(report, "16 web pages, each answered after 50 ms", ways, WAYS, &ways[SERIAL]);
    conclude(report, ways, &downloads);
    return 0;
}
