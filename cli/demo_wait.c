/* SPDX-License-Identifier: MIT
 * demo_wait.c - second part of the demo: work that waits.
 */
#include "demo.h"
#include "downloads.h"
#include "report.h"

int demo_wait(void)
{
    struct downloads downloads;
    struct report report = {.count = 0};
    struct trial trials[] = {
        {.label = "one after the other", .run = downloads_serial, .arg = &downloads},
        {.label = "a thread each", .run = downloads_threads, .arg = &downloads},
        {.label = "a process each", .run = downloads_processes, .arg = &downloads},
    };
    text_heading("2. Work that waits");
    text_busy("downloads");
    int rc = downloads_open(&downloads);
    rc = rc ? rc : trial_run(trials, 3, 1, 1000);
    downloads_close(&downloads);
    text_busy(NULL);
    if (rc != 0)
        return rc;
    report_trials(&report, "16 web pages from a local server that takes 50 ms for each", trials, 3,
                  &trials[0]);
    const double threads = trial_speedup(&trials[0], &trials[1]);
    if (threads > 1.5)
        report_say(
            &report,
            "%.0f times as fast on %u CPU%s: who waits needs no CPU. Threads are the cheaper "
            "way, if the work does not crash.",
            threads, yoke_cpu_count(), yoke_cpu_count() == 1 ? "" : "s");
    else
        report_say(&report, "Threads did not help here: %.2fx.", threads);
    report_mark_yoke(&report);
    report_print(&report);
    return 0;
}
