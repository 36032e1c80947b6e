/* SPDX-License-Identifier: MIT
 * tour.c - `yoke tour`: what is said of threads and processes, measured here and now.
 *
 * Idea: a table of rows (see tour.h). This file picks the rows, runs them, and prints each one
 * as soon as it is measured, as text or as JSON.
 */
#include "tour.h"

#include "cli.h"

#include <stdio.h>
#include <string.h>
#include <yoke/yoke.h>

struct row {
    const char *name;
    const char *title;
    const char *claim; /* as it is commonly said */
    int (*measure)(struct report *report);
};

static const struct row rows[] = {
    {"start-up", "Start-up", "Starting a thread is faster than starting a process", tour_start},
    {"memory", "Memory", "[A process has a] larger memory footprint", tour_memory},
    {"ipc", "IPC", "IPC (inter-process communication) is complicated", tour_ipc},
    {"cpu", "CPU-bound work", "Multithreading has no effect for CPU-bound tasks due to the GIL",
     tour_cpu},
    {"io", "I/O-bound work", "[Threads are] great for I/O-bound tasks", tour_io},
    {"stop", "Stopping", "[Threads are] not interruptible/killable -> !can cause memory leaks!",
     tour_stop},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

struct choice {
    int json;
    int only[ROWS]; /* all 0: every row */
    int any_only;
};

static void json_string(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void json_field(const char *name, const char *value)
{
    json_string(name);
    fputs(": ", stdout);
    json_string(value);
}

static void json_figure(const struct figure *figure)
{
    static const char *const units[] = {
        [UNIT_NS] = "ns", [UNIT_BYTES] = "bytes", [UNIT_COUNT] = "items", [UNIT_LEFT] = "items"};
    fputs("    {", stdout);
    if (figure->group != NULL) {
        json_field("group", figure->group);
        fputs(", ", stdout);
    }
    json_field("name", figure->label);
    printf(", \"value\": %.1f, ", figure->value);
    json_field("unit", units[figure->unit]);
    printf(", \"yoke\": %s}", figure->yoke ? "true" : "false");
}

static void print_json(const struct row *row, const struct report *report, int rc, int first)
{
    printf("%s\n  {", first ? "" : ",");
    json_field("row", row->name);
    fputs(", ", stdout);
    json_field("claim", row->claim);
    printf(", \"cpus\": %u, \"figures\": [", yoke_cpu_count());
    for (size_t i = 0; i < report->count; i++) {
        fputs(i == 0 ? "\n" : ",\n", stdout);
        json_figure(&report->figures[i]);
    }
    fputs("],\n   ", stdout);
    json_field(rc == 0 ? "verdict" : "error", rc == 0 ? report->verdict : yoke_strerror(rc));
    putchar('}');
    fflush(stdout);
}

static void print_text(const struct row *row, const struct report *report, int rc)
{
    text_heading("%s: \"%s\"", row->title, row->claim);
    if (rc != 0) {
        text_say("could not be measured: %s", yoke_strerror(rc));
        return;
    }
    report_print(report);
}

static int row_run(const struct row *row, const struct choice *choice, int first)
{
    struct report report = {.count = 0};
    if (!choice->json)
        text_busy(row->title);
    const int rc = row->measure(&report);
    if (rc != 0)
        report.count = 0;
    if (choice->json) {
        print_json(row, &report, rc, first);
    } else {
        text_busy(NULL);
        print_text(row, &report, rc);
    }
    return rc;
}

static int choose_row(struct choice *choice, const char *name)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            choice->only[i] = choice->any_only = 1;
            return EXIT_OK;
        }
    }
    const int code = usage_error("tour", "there is no row", name);
    fputs("The rows are:", stderr);
    for (size_t i = 0; i < ROWS; i++)
        fprintf(stderr, " %s", rows[i].name);
    fputc('\n', stderr);
    return code;
}

static int choose(struct choice *choice, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], "--json") == 0) {
            choice->json = 1;
            continue;
        }
        if (strncmp(argv[i], "--only=", 7) == 0)
            value = argv[i] + 7;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            value = argv[++i];
        else if (strcmp(argv[i], "--only") == 0)
            return usage_error("tour", "the name of a row must follow", "--only");
        else
            return usage_error("tour", argv[i][0] == '-' ? "unknown option" : "unexpected argument",
                               argv[i]);
        const int code = choose_row(choice, value);
        if (code != EXIT_OK)
            return code;
    }
    return EXIT_OK;
}

int tour_main(int argc, char **argv)
{
    struct choice choice = {.json = 0};
    const int usage = choose(&choice, argc, argv);
    if (usage != EXIT_OK)
        return usage;
    text_init();
    const int64_t start_ns = yoke_now_ns();
    const unsigned cpus = yoke_cpu_count();
    if (choice.json) {
        putchar('[');
    } else {
        text_say("Yoke %s on %u CPU%s. Each claim is measured here and now, with plain POSIX calls "
                 "and with Yoke; figures are medians of runs that took turns.",
                 yoke_version(), cpus, cpus == 1 ? "" : "s");
        text_say_if_busy(cpus);
    }
    int failed = 0, shown = 0;
    for (size_t i = 0; i < ROWS; i++)
        if (!choice.any_only || choice.only[i])
            failed += row_run(&rows[i], &choice, shown++ == 0) != 0;
    if (choice.json) {
        puts("\n]");
    } else {
        putchar('\n');
        text_say("%d of %d rows measured in %.0f s", shown - failed, shown,
                 (double)(yoke_now_ns() - start_ns) / 1e9);
    }
    return failed == 0 ? EXIT_OK : EXIT_FAILED;
}
