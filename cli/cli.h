/* SPDX-License-Identifier: MIT
 * cli.h - the commands of `yoke`, one entry point each.
 *
 * Idea: main.c knows the names and the help texts, each command its own options. Every command
 * returns the exit code of the program: 0, 1 (something failed) or 2 (wrong usage).
 */
#ifndef CLI_H
#define CLI_H

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/** How the program was called, so that what it prints can be pasted: "build/yoke", say. */
extern const char *program_name;

/** Say what was wrong with the command line, and where to look. \return EXIT_USAGE */
int usage_error(const char *command, const char *what, const char *word);

int demo_main(int argc, char **argv); /* argv[0] is the name of the command */
int tour_main(int argc, char **argv);

#endif
