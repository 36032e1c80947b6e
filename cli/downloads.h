/* SPDX-License-Identifier: MIT
 * downloads.h - the I/O-bound job that demo and tour time: web pages from a slow server.
 *
 * Idea: real HTTP over real sockets, from a server of our own on 127.0.0.1 that takes its time
 * for each answer. Each download is checked for its status and its length.
 */
#ifndef DOWNLOADS_H
#define DOWNLOADS_H

#include "../examples/loopback.h"

#include <stddef.h>
#include <yoke/yoke.h>

enum { DOWNLOADS = 16, DOWNLOAD_BYTES = 20000, DOWNLOAD_DELAY_MS = 50 };

struct downloads {
    struct loopback server;
    unsigned short ports[DOWNLOADS]; /* the server's, for each item */
    yoke_pool *threads, *processes;  /* one worker for each download */
    double threads_start_ns, processes_start_ns;
};

/** Start the server and the pools. \return 0 or an error; either way close it afterwards. */
int downloads_open(struct downloads *downloads);
void downloads_close(struct downloads *downloads);

/** Download one page from 127.0.0.1. item: a port. \return 0, -errno, or -EPROTO */
int download(void *item);

/* For trial_run; arg is a struct downloads. */
int downloads_serial(void *arg);
int downloads_threads(void *arg);
int downloads_processes(void *arg);

#endif
