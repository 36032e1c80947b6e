/* SPDX-License-Identifier: MIT
 * openmp.c - OpenMP, as its users write it. Compiled twice: for libgomp and for libomp,
 * which keep their threads spinning for PEER_QUIET_NS after each loop.
 */
#include "peer.h"

#include "../work_tiny.h"

#include <omp.h>

static unsigned team;

static const char *start(unsigned threads)
{
    team = threads;
    omp_set_dynamic(0);
    return NULL;
}

static void stop(void) {}

static void loop(size_t times, uint32_t *numbers, size_t count)
{
    for (size_t i = 0; i < times; i++) {
#pragma omp parallel for num_threads(team) schedule(static)
        for (size_t k = 0; k < count; k++) {
            numbers[k] = work_tiny(numbers[k]);
        }
    }
}

const bench_peer bench_peer_table = {
    .start = start, .stop = stop, .quiet_ns = PEER_QUIET_NS, .loop = loop};
