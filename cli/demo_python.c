/* SPDX-License-Identifier: MIT
 * demo_python.c - third part of the demo: the same squares in threads of python3.
 *
 * Idea: python3 measures itself, one thread and two taking turns, and prints two medians and
 * whether it has a GIL. What is said about it follows from these three numbers.
 */
#include "demo.h"
#include "program.h"
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <yoke/yoke.h>

static char script[] =
    "import sys, threading, time\n"
    "def squares(first, last):\n"
    "    for x in range(first, last): x * x\n"
    "def timed(count):\n"
    "    part = 1000000 // count\n"
    "    threads = [threading.Thread(target=squares, args=(i * part, (i + 1) * part))\n"
    "               for i in range(count)]\n"
    "    start = time.perf_counter()\n"
    "    for t in threads: t.start()\n"
    "    for t in threads: t.join()\n"
    "    return time.perf_counter() - start\n"
    "runs = [(timed(1), timed(2)) for _ in range(7)]\n"
    "middle = lambda i: sorted(run[i] for run in runs)[3] * 1e9\n"
    "gil = getattr(sys, '_is_gil_enabled', lambda: True)()\n"
    "print(int(middle(0)), int(middle(1)), int(gil))\n";

static void conclude(struct report *report, double one_ns, double two_ns, int gil)
{
    const double speedup = one_ns / two_ns;
    if (speedup >= 1.2)
        report_say(report, "Two threads are %.2f times as fast: %s.", speedup,
                   gil ? "more than a GIL should allow" : "this python3 has no GIL");
    else if (!gil || yoke_cpu_count() == 1)
        report_say(report, "%.2fx, but the GIL is not the reason here: %s.", speedup,
                   gil ? "this program may use 1 CPU" : "this python3 has none");
    else
        report_say(report,
                   "%.2fx: a second thread does not help, since the GIL (global interpreter lock) "
                   "lets one thread run at a time. C has no such lock: compare the primes above.",
                   speedup);
}

int demo_python(void)
{
    char name[] = "python3", flag[] = "-c", output[256];
    char *argv[] = {name, flag, script, NULL};
    struct report report = {.count = 0};
    text_heading("3. Threads in Python");
    text_busy("python3");
    const int rc = program_output(argv, yoke_in_ms(4000), output, sizeof output);
    text_busy(NULL);
    if (rc == -ENOENT) {
        text_say("python3 not found, skipped.");
        return 0;
    }
    if (rc != 0) {
        text_say("python3 %s, skipped.", rc == -ETIMEDOUT ? "took too long" : "failed");
        return 0;
    }
    char *end = output;
    const double one_ns = strtod(end, &end), two_ns = strtod(end, &end);
    const long gil = strtol(end, &end, 10);
    if (one_ns <= 0 || two_ns <= 0)
        return -EPROTO;
    static const char group[] = "the squares of 1 to 1,000,000, in python3";
    report_add(&report, group, "1 thread", one_ns, UNIT_NS);
    struct figure *two = report_add(&report, group, "2 threads", two_ns, UNIT_NS);
    snprintf(two->note, sizeof two->note, "%.2fx", one_ns / two_ns);
    conclude(&report, one_ns, two_ns, gil != 0);
    report_print(&report);
    return 0;
}
