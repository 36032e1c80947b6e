/* SPDX-License-Identifier: MIT
 * stream.h - a map over items that come one by one, however many, in bounded memory.
 *
 * next fills in an item, a worker runs the function on it, done takes what came of it. next and
 * done run in the calling thread and take turns. Items travel to the workers in parts that grow
 * while items are short; memory is bounded by a window.
 */
#ifndef YOKE_STREAM_H
#define YOKE_STREAM_H

#include <yoke/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What streams through a pool; zero means default. */
typedef struct yoke_stream_config {
    size_t size;      /**< sizeof(yoke_stream_config) */
    size_t in_bytes;  /**< room for each item, at most 1 GiB; 0: there is none, and in is NULL */
    size_t out_bytes; /**< room for each result, at most 1 GiB; 0: there is none, or the function
                           calls yoke_task_result */
    size_t window;    /**< at most so many items are under way or wait for their turn at a time;
                           0: as many as 16 MiB of in and out hold, at most 16384, and at least 4
                           for each worker */
    int unordered;    /**< not 0: done is called as items end; 0: in the order of the items */

    /** Fill in an item. Runs in the caller; no lock is held. While it waits for something,
     *  nothing is delivered: rather than wait long, return -EAGAIN.
     *
     *  \param item  its number, from 0.
     *  \param in    in_bytes to fill; an array of such items begins at a multiple of 64. They hold
     *               what an earlier item left there.
     *  \return 1: filled in; 0: there are no more; -EAGAIN: there is none yet, ask again when an
     *          item has ended, or in a millisecond. Anything else: stop, and yoke_map_stream returns
     *          it. */
    int (*next)(void *user, size_t item, void *in);

    /** Take an item that ended. Runs in the caller, exactly once for each item that next filled
     *  in, also after a stop; no lock is held. NULL: not wanted.
     *
     *  \param outcome    how it ended; outcome->item is its number.
     *  \param in         the item as next filled it in, unless the function wrote to it.
     *  \param out        the result; NULL if it did not end in YOKE_OK or YOKE_FAILED, or has none.
     *                    It is the stream's and goes when this returns.
     *  \param out_bytes  its size.
     *  \return 0: go on. Anything else: stop, and yoke_map_stream returns it; done is still called for
     *          the items that next has filled in, and what it returns then is not looked at. */
    int (*done)(void *user, const yoke_outcome *outcome, const void *in, const void *out,
                size_t out_bytes);

    void *user; /**< for next and done */
} yoke_stream_config;

/** done(fn(next())) until next says that there are no more.
 *
 *  Every item that next filled in ends once: its outcome is OK, FAILED, CRASHED, TIMEDOUT or, after
 *  a stop, CANCELLED, and done gets it. An item whose worker died costs itself; the rest of its
 *  part is run elsewhere. From inside a process worker, and on a serial pool, each item runs in
 *  place.
 *
 *  How soon: what has ended, and whose turn it is, goes to done before another part is filled in.
 *  A part is handed out when its items are work for about a millisecond, by the pace of those
 *  before it; when next says -EAGAIN; or when filling it in took 0.1 ms, which is looked at
 *  after its first and every eighth item. The items of a part are delivered when all of them have
 *  ended. So an item that suddenly takes much longer than those before it holds up its part. A
 *  next that suddenly waits holds up what it filled in during the last 0.1 ms, and what has ended
 *  meanwhile; while it goes on like that, each item is handed out at once, and each call of next
 *  comes after all that has ended by then is delivered.
 *
 *  \param stream   what streams; next is needed.
 *  \param options  NULL for all defaults. timeout_ns and retries are for each item. outcomes is not
 *                  used. failure gets the outcome of the first item, by number, that did not end
 *                  in YOKE_OK. progress is called with the items that have ended and those that
 *                  next has filled in so far.
 *  \return 0: every item ended in YOKE_OK; YOKE_ETASK: at least one did not; what next or done
 *          stopped it with; -ECANCELED: progress said stop, or the calling thread was
 *          interrupted; -EINVAL (NULL where it is needed, sizes that overflow), YOKE_EVERSION,
 *          YOKE_EIMAGE, -ENOMEM, -ECHILD, YOKE_EBROKEN, YOKE_ECLOSED. Whatever it is, nothing of
 *          the stream is left in the pool.
 *
 *  Ownership:  everything stays the caller's.
 *  Threads:    any, several at once, also from inside a task.   Blocks: until all is done; a
 *              signal makes it call progress and goes on.
 *  After fork: as yoke_pool_create.
 */
YOKE_API YOKE_MUST_CHECK int yoke_map_stream(yoke_pool *pool, yoke_fn *fn,
                                             const yoke_stream_config *stream,
                                             const yoke_options *options);

#ifdef __cplusplus
}
#endif

#endif
