/* SPDX-License-Identifier: MIT
 * program.h - runs another program and reads what it prints, with a deadline.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stddef.h>
#include <stdint.h>

/** Run argv[0] from the PATH; its standard error is thrown away. When until_ns (absolute) has
 *  passed it is killed.
 *
 *  \param output  gets what it printed, as much as fits, ended by a zero byte.
 *  \return its exit code, or -ENOENT (no such program), -ETIMEDOUT, -EIO (a signal ended it) or
 *          another -errno.
 */
int program_output(char *const argv[], int64_t until_ns, char *output, size_t size);

#endif
