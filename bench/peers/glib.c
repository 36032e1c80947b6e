/* SPDX-License-Identifier: MIT
 * glib.c - GLib's GThreadPool.
 */
#include "peer.h"

#include <glib.h>

static GThreadPool *pool;
static bench_task_fn *task; /* one function for a pool: that is its manner */

static void run(gpointer arg, gpointer user)
{
    (void)user;
    task(arg);
}

static const char *start(unsigned threads)
{
    pool = g_thread_pool_new(run, NULL, (gint)threads, TRUE, NULL);
    return pool ? NULL : "GLib has no threads";
}

static void stop(void)
{
    if (pool) {
        g_thread_pool_free(pool, FALSE, TRUE);
    }
    pool = NULL;
}

static void post(bench_task_fn *fn, void *arg)
{
    task = fn;
    g_thread_pool_push(pool, arg, NULL);
}

const bench_peer bench_peer_table = {
    .start = start, .stop = stop, .quiet_ns = 2000000, .post = post};
