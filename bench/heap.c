/* SPDX-License-Identifier: MIT
 * heap.c - figures of the shared heap: small blocks, and a large block that is passed.
 *
 * Idea: a block is passed by its pointer, so its size should not matter: the reference of the
 * large one is a task with 8 bytes. The first and the last word of a block are looked at on
 * both sides, so that a pointer that leads elsewhere is seen.
 */
#include "harness.h"
#include "machine.h"
#include "pass.h"

#include <stdlib.h>
#include <string.h>
#include <yoke/yoke.h>

enum { BLOCK = 64, BATCH = 64, BATCHES = 500, PASSES = 4000, WARM = 50 };

static const size_t large_bytes = 100000000;
static uint64_t *large;

typedef void *take_fn(size_t bytes);
typedef void give_fn(void *block);

static const char *batches(take_fn *take, give_fn *give, unsigned batch, double *ns)
{
    uint64_t *blocks[BATCH];
    const unsigned rounds = BATCHES * BATCH / batch;
    int wrong = 0;
    const int64_t start = bench_now_ns();
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned k = 0; k < batch; k++) {
            blocks[k] = take(BLOCK);
            if (!blocks[k]) {
                return "no memory";
            }
            *(volatile uint64_t *)blocks[k] = k;
        }
        for (unsigned k = 0; k < batch; k++) {
            wrong |= *(volatile uint64_t *)blocks[k] != k;
            give(blocks[k]);
        }
    }
    *ns = (double)(bench_now_ns() - start) / rounds / batch;
    return wrong ? "two blocks share memory" : NULL;
}

static const char *yoke_batch(double *ns)
{
    return batches(yoke_shared_alloc, yoke_shared_free, BATCH, ns);
}

static const char *yoke_pair(double *ns)
{
    return batches(yoke_shared_alloc, yoke_shared_free, 1, ns);
}

static const char *plain_batch(double *ns)
{
    return batches(malloc, free, BATCH, ns);
}
static const char *plain_pair(double *ns)
{
    return batches(malloc, free, 1, ns);
}

static uint64_t *last_of(uint64_t *block)
{
    return block + large_bytes / sizeof *block - 1;
}

/* Gets the block, changes its ends, and gives the block back. */
static int change(yoke_task *task, const void *in, void *out)
{
    uint64_t *block = *(uint64_t *const *)in;
    (void)task;
    ++*block;
    ++*last_of(block);
    *(uint64_t **)out = block;
    return 0;
}

/* Gets the block, looks at its ends, and gives the block back. */
static int look(yoke_task *task, const void *in, void *out)
{
    uint64_t *block = *(uint64_t *const *)in;
    (void)task;
    *(uint64_t **)out = block;
    return *block != *last_of(block);
}

static const char *pass_large(yoke_fn *fn)
{
    yoke_job *job;
    uint64_t *back = NULL;
    int error = yoke_submit(pass_pool(), fn, &large, sizeof large, sizeof back, NULL, &job);
    if (error) {
        return bench_why("yoke_submit", error);
    }
    error = yoke_wait(job, YOKE_FOREVER);
    const char *why = pass_take(job, &back, sizeof back);
    if (why || error) {
        return error ? bench_why("yoke_wait", error) : why;
    }
    return back == large ? NULL : "another block came back";
}

/* The timed tasks only look, or the lines that they change would be in the time. */
static const char *yoke_large(double *ns)
{
    const char *why = NULL;
    const uint64_t before = *large;
    for (unsigned i = 0; i < WARM && !why; i++) {
        why = pass_large(change);
    }
    if (!why && (*large != before + WARM || *last_of(large) != *large)) {
        why = "what the tasks wrote did not arrive";
    }
    const int64_t start = bench_now_ns();
    for (unsigned i = 0; i < PASSES && !why; i++) {
        why = pass_large(look);
    }
    *ns = (double)(bench_now_ns() - start) / PASSES;
    return why;
}

static const char *yoke_eight_bytes(double *ns)
{
    return pass_round_trips(WARM, PASSES, ns);
}

static const char *start_large(void)
{
    const char *why = pass_pool_start(YOKE_PROCESSES, 1, bench_cpu_count() > 1);
    large = why ? NULL : yoke_shared_alloc(large_bytes);
    if (why || !large) {
        return why ? why : "no shared memory for the large block";
    }
    memset(large, 0, large_bytes);
    return NULL;
}

static void stop_large(void)
{
    pass_pool_stop();
    yoke_shared_free(large);
    large = NULL;
}

static const bench_figure figures[] = {
    {.name = "heap/alloc",
     .unit = "ns",
     .reference = "malloc and free",
     .yoke = yoke_batch,
     .ref = plain_batch,
     .rounds = 61},
    {.name = "heap/alloc-pair",
     .unit = "ns",
     .reference = "malloc and free",
     .yoke = yoke_pair,
     .ref = plain_pair,
     .rounds = 61},
    {.name = "heap/pass-100m",
     .unit = "ns",
     .reference = "a task with 8 bytes",
     .yoke = yoke_large,
     .ref = yoke_eight_bytes,
     .rounds = 61,
     .memory_mib = 400,
     .setup = start_large,
     .teardown = stop_large},
};

const bench_table bench_heap_table = {figures, sizeof figures / sizeof *figures};
