/* SPDX-License-Identifier: MIT
 * main.c - the command `yoke`: finds the command that was named and runs it.
 *
 * Idea: a table of commands is the whole of it, help included. yoke_init comes first, so that
 * processes start from an image that is as small as the program will ever be.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>
#include <yoke/yoke.h>

struct command {
    const char *name;
    const char *summary;
    const char *help;
    int (*run)(int argc, char **argv);
};

static int help_main(int argc, char **argv);

static const struct command commands[] = {
    {"demo", "see it work: a short story in four parts, about 10 seconds",
     "usage: yoke demo\n"
     "\n"
     "Squares and primes, downloads, Python's GIL and a killed worker, measured here and now.\n"
     "Needs no network and writes no files. Uses python3 if there is one.\n",
     demo_main},
    {"tour", "what threads and processes cost on this machine, with plain POSIX and with Yoke",
     "usage: yoke tour [--only ROW]... [--json]\n"
     "\n"
     "Takes what is commonly said of threads and processes and measures it, row by row:\n"
     "start-up, memory, ipc, cpu, io, stop. Takes less than a minute, needs about 600 MB of "
     "memory.\n"
     "\n"
     "  --only ROW   this row only; may be given several times\n"
     "  --json       a JSON array with one object for each row\n"
     "\n"
     "examples:\n"
     "  yoke tour --only cpu\n"
     "  taskset -c 0 yoke tour --only cpu     the same with one CPU: another verdict\n",
     tour_main},
    {"help", "help with a command", "usage: yoke help [COMMAND]\n", help_main},
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

const char *program_name = "yoke";

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

int usage_error(const char *command, const char *what, const char *word)
{
    fprintf(stderr, "yoke%s%s: %s '%s'\n", command ? " " : "", command ? command : "", what, word);
    fprintf(stderr, "Try '%s help%s%s'.\n", program_name, command ? " " : "",
            command ? command : "");
    return EXIT_USAGE;
}

static void print_usage(FILE *out)
{
    fprintf(out, "yoke %s - runs your work on all your cores, as threads or as processes\n\n",
            yoke_version());
    fprintf(out, "usage: yoke COMMAND [OPTION]...\n\n");
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "  %-10s the version\n", "--version");
    fprintf(out, "\nStart with '%s demo'.\n", program_name);
}

static int help_main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stdout);
        return EXIT_OK;
    }
    const struct command *command = command_find(argv[1]);
    if (command == NULL)
        return usage_error(NULL, "there is no command", argv[1]);
    if (argc > 2)
        return usage_error("help", "unexpected argument", argv[2]);
    fputs(command->help, stdout);
    return EXIT_OK;
}

static int run(int argc, char **argv)
{
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("yoke %s\n", yoke_version());
        return EXIT_OK;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help_main(1, argv);
    const struct command *command = command_find(name);
    if (command == NULL)
        return usage_error(NULL, name[0] == '-' ? "unknown option" : "there is no command", name);
    if (argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0)) {
        fputs(command->help, stdout);
        return EXIT_OK;
    }
    return command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    const int rc = yoke_init();
    if (rc != 0) {
        fprintf(stderr, "yoke: cannot start: %s\n", yoke_strerror(rc));
        return EXIT_FAILED;
    }
    if (argc > 0 && argv[0] != NULL && argv[0][0] != '\0')
        program_name = argv[0];
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    const int code = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "yoke: cannot write to standard output\n");
        return EXIT_FAILED;
    }
    return code;
}
