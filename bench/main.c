/* SPDX-License-Identifier: MIT
 * main.c - yoke-bench [-v] [-r ROUNDS] [PREFIX...]: the benchmarks, or those that begin so.
 *
 * Idea: one line for each figure, for people and for scripts; lines with '#' are remarks (see
 * docs/benchmarks.md). Exit: 0, 1 if a figure was refused, 2 for a hang or wrong arguments. A
 * new file of figures gets a line in harness.h and one here.
 */
#include "harness.h"
#include "machine.h"
#include "roles.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yoke/yoke.h>

/* The footprint first: workers are copies of this program, whose memory grows with each figure. */
static const bench_table *const tables[] = {
    &bench_footprint_table,      &bench_process_table,       &bench_start_table,
    &bench_thread_table,         &bench_map_table,           &bench_stream_table,
    &bench_heap_table,           &bench_clean_table,         &bench_threads_fork_table,
    &bench_threads_region_table, &bench_threads_range_table, &bench_threads_post_table,
};

/* The programs that figures start; not for people. */
static const struct {
    const char *name;
    int (*main)(const char *argument);
    int plain; /* it waits for all its children: Yoke must make none for it */
} roles[] = {
    {"--holder", start_holder_main, 0},
    {"--watcher", clean_watcher_main, 1},
    {"--busy", clean_busy_main, 0},
};

static int find_role(int argc, char *const *argv)
{
    for (size_t i = 0; argc == 3 && i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(argv[1], roles[i].name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static int run_all(bench_options *options, char *const *prefixes, int count)
{
    unsigned refused = 0;
    for (int i = 0; i < (count > 0 ? count : 1); i++) {
        options->only = count > 0 ? prefixes[i] : NULL;
        for (size_t k = 0; k < sizeof tables / sizeof tables[0]; k++) {
            refused += bench_run(tables[k], options);
        }
    }
    return refused ? 1 : 0;
}

int main(int argc, char **argv)
{
    const int role = find_role(argc, argv);
    const int error = role >= 0 && roles[role].plain ? 0 : yoke_init();
    if (error) {
        printf("# yoke_init: %s\n", yoke_strerror(error));
        return 1;
    }
    bench_machine_init();
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    if (role >= 0) {
        return roles[role].main(argv[2]);
    }
    bench_options options = {0};
    for (int option; (option = getopt(argc, argv, "vr:")) != -1;) {
        if (option == 'v') {
            options.verbose = 1;
        } else if (option == 'r' && strtoul(optarg, NULL, 10) > 0) {
            options.rounds = (unsigned)strtoul(optarg, NULL, 10);
        } else {
            fprintf(stderr, "use: %s [-v] [-r ROUNDS] [PREFIX...]\n", argv[0]);
            return 2;
        }
    }
    printf("# FIGURE\tYOKE\tUNIT\tREFERENCE\tREFERENCE-VALUE\tRATIO\n");
    return run_all(&options, argv + optind, argc - optind);
}
