/* SPDX-License-Identifier: MIT
 * stream.h - a stream, wherever it runs: what is asked of next, and what is told to done.
 *
 * The tally is the calling thread's: how many items there are so far, and why nothing new begins.
 * Room: pool.
 */
#ifndef YK_STREAM_H
#define YK_STREAM_H

#include <errno.h>

#include "pool/pool_private.h"
#include <yoke/stream.h>

#define YK_STREAM_ASK_NS 1000000LL /* after -EAGAIN, next is asked again that soon */

struct yk_stream {
    struct yoke_pool *pool; /* NULL inside a process worker */
    yoke_fn *fn;
    yoke_stream_config config;
    yoke_options options;
};

struct yk_tally {
    const struct yk_stream *stream;
    size_t given;              /* next filled in so many items */
    size_t ended;              /* so many of them have ended */
    bool no_more;              /* next said so */
    int rc;                    /* not 0: nothing new is started */
    struct yoke_cancel *token; /* what it all belongs to, or NULL */
    bool failed;
    yoke_outcome failure; /* of the first item that did not end in YOKE_OK */
};

/* The first reason stays. */
static inline void yk_tally_stop(struct yk_tally *tally, int rc)
{
    tally->rc = tally->rc != 0 ? tally->rc : rc;
}

/* One more item: 1, 0 or -EAGAIN, as next; or another reason to stop, which is noted. */
static inline int yk_tally_ask(struct yk_tally *tally, void *in)
{
    const yoke_stream_config *const config = &tally->stream->config;
    const int rc = config->next(config->user, tally->given, in);
    if (YK_LIKELY(rc == 1)) {
        tally->given++;
    } else if (rc == 0) {
        tally->no_more = true;
    } else if (rc != -EAGAIN) {
        yk_tally_stop(tally, rc);
    }
    return rc;
}

/* stream.c */
void yk_tally_note_failure(struct yk_tally *tally, const yoke_outcome *outcome);
/* Call progress, if any. */
void yk_tally_report(struct yk_tally *tally);

static inline void yk_tally_deliver(struct yk_tally *tally, const yoke_outcome *outcome,
                                    const void *in, const void *out, size_t out_bytes)
{
    const yoke_stream_config *const config = &tally->stream->config;
    if (YK_UNLIKELY(outcome->kind != YOKE_OK)) {
        yk_tally_note_failure(tally, outcome);
    }
    const int rc =
        config->done != NULL ? config->done(config->user, outcome, in, out, out_bytes) : 0;
    if (YK_UNLIKELY(rc != 0)) {
        yk_tally_stop(tally, rc);
    }
}

/* A stream on the workers of a pool; stream_run.c. Leaves its reason to stop in the tally. */
void yk_stream_run(struct yk_tally *tally);

#endif
