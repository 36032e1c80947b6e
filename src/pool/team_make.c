/* SPDX-License-Identifier: MIT
 * team_make.c - the deques of a pool: where they lie.   Room: pool.
 *
 * Idea: one block with the team and all deques, workers' first, then guests'; and one mapping with the
 * slots of all, of which only what is used takes memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/deque.h"
#include "pool/pool_private.h"

static void prepare(struct yk_team *team, unsigned index)
{
    struct yk_deque *const deque = &team->deques[index];
    yoke_frame **const area = team->area;
    /* Two slots before: where top stands when there are too many; one behind, for the last push. */
    deque->slots = area + (size_t)index * (YK_DEQUE_SLOTS + 16) + 8;
    deque->team = team;
    deque->index = index;
    deque->ends.split = deque->slots;
    deque->ends.limit = yk_deque_end(deque);
    deque->guest = yk_worker_of(&team->pool->table, NULL);
    deque->worker = &deque->guest;
}

int yk_team_create(struct yoke_pool *pool)
{
    const unsigned workers = (unsigned)yk_min(pool->config.workers, YK_TEAM_MAX);
    const unsigned count = workers + YK_GUESTS;
    const size_t bytes =
        yk_round_up(sizeof(struct yk_team) + (size_t)count * sizeof(struct yk_deque), 64);
    struct yk_team *const team = aligned_alloc(64, bytes);
    if (team == NULL) {
        return -ENOMEM;
    }
    memset(team, 0, bytes);
    team->pool = pool;
    team->workers = workers;
    team->deque_count = count;
    team->area_bytes = (size_t)count * (YK_DEQUE_SLOTS + 16) * sizeof(yoke_frame *);
    team->barriers = yk_barrier_prepare();
    atomic_init(&team->guests_free, UINT64_MAX);
    const int rc = yk_map_private(team->area_bytes, &team->area);
    if (rc != 0) {
        free(team);
        return rc;
    }
    for (unsigned i = 0; i < count; i++) {
        prepare(team, i);
    }
    pool->team = team;
    return 0;
}

void yk_team_destroy(struct yk_team *team)
{
    if (team != NULL) {
        yk_unmap(team->area, team->area_bytes);
        free(team);
    }
}
