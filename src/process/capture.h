/* SPDX-License-Identifier: MIT
 * capture.h - what a program writes, kept in memory, then in a file, then counted.
 *
 * Idea: one thread for all of them (the pump) reads the pipes, so no program ever waits for
 * somebody to ask for its output, and two streams cannot hold each other up.   Room: process.
 */
#ifndef YK_CAPTURE_H
#define YK_CAPTURE_H

#include "base/base.h"

struct yk_capture;

struct yk_capture_bounds {
    size_t memory_bytes; /* then a file in folder */
    size_t total_bytes;  /* then it is dropped */
    const char *folder;  /* copied */
};

/* Begin to read a new pipe; *write_end is the caller's to close. */
int yk_capture_begin(const struct yk_capture_bounds *bounds, struct yk_capture **capture,
                     int *write_end);
/* Who wrote has ended: take what lies in the pipe still, and read no more. Once. */
void yk_capture_end(struct yk_capture *capture);
/* After the end. *data lives as long as the capture; a zero byte follows it. 0 or -errno. */
int yk_capture_data(struct yk_capture *capture, const char **data, size_t *bytes,
                    uint64_t *dropped);
/* After the end, or instead of it. Not ours: a copy in a forked child, where no pump knows it. */
void yk_capture_destroy(struct yk_capture *capture, bool ours);

#endif
