/* SPDX-License-Identifier: MIT
 * test_ring.c - the queue of calls: in order, bounded, each call taken once.
 *
 * The ring is no part of the public interface.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

#include "queue/ring.h"

enum { PUTTERS = 3, TAKERS = 3, EACH = 40000 };

static struct yk_ring ring;

static bool put(uint64_t value)
{
    uint64_t ticket = 0;
    struct yk_cell *const cell = yk_ring_reserve(&ring, &ticket);
    if (cell == NULL)
        return false;
    memcpy(cell->data, &value, sizeof value);
    yk_ring_publish(cell, ticket);
    return true;
}

static uint64_t take(uint64_t ticket)
{
    uint64_t value = 0;
    struct yk_cell *const cell = yk_ring_cell(&ring, ticket);
    memcpy(&value, cell->data, sizeof value);
    yk_ring_free(cell, ticket);
    return value;
}

static void what_goes_in_comes_out_in_order(void)
{
    CHECK_EQ(yk_ring_init(&ring), 0);
    uint64_t next_in = 0, next_out = 0, random = 42;
    for (int round = 0; round < 20000; round++) {
        const uint64_t want = random_next(&random) % 70;
        for (uint64_t i = 0; i < want && put(next_in); i++)
            next_in++;
        uint64_t first = 0;
        const uint32_t most = 1 + (uint32_t)(random_next(&random) % 70);
        const uint32_t count = yk_ring_claim(&ring, most, &first);
        CHECK(count <= most);
        CHECK_EQ(count, next_in - next_out < most ? next_in - next_out : most);
        for (uint32_t i = 0; i < count; i++)
            CHECK_EQ(take(first + i), next_out++);
        CHECK_EQ(yk_ring_count(&ring), next_in - next_out);
        CHECK_EQ(yk_ring_has_next(&ring), next_in != next_out);
        CHECK_EQ(yk_ring_is_empty(&ring), next_in == next_out);
    }
    CHECK(next_out > 10 * YK_RING_CELLS);
    yk_ring_fini(&ring);
}

static void a_full_ring_takes_no_more(void)
{
    uint64_t first = 0;
    CHECK_EQ(yk_ring_init(&ring), 0);
    CHECK(yk_ring_has_room(&ring, YK_RING_CELLS));
    for (uint64_t i = 0; i < YK_RING_CELLS; i++)
        CHECK(put(i));
    CHECK(!put(0));
    CHECK(!yk_ring_has_room(&ring, 1));
    /* Claimed is not free yet: nobody may write what somebody reads. */
    CHECK_EQ(yk_ring_claim(&ring, 3, &first), 3);
    CHECK(!put(0));
    CHECK_EQ(take(first + 1), 1); /* not the one that is next */
    CHECK(!put(0));
    CHECK_EQ(take(first), 0);
    CHECK(yk_ring_has_room(&ring, 2));
    CHECK(!yk_ring_has_room(&ring, 3));
    CHECK(put(YK_RING_CELLS));
    CHECK(put(YK_RING_CELLS + 1));
    CHECK(!put(0));
    yk_ring_fini(&ring);
}

/* Also behind a ticket that was given out and is not filled in yet. */
static void what_is_not_published_is_not_taken(void)
{
    uint64_t first = 0, ticket = 0;
    CHECK_EQ(yk_ring_init(&ring), 0);
    struct yk_cell *const cell = yk_ring_reserve(&ring, &ticket);
    CHECK(put(1));
    CHECK_EQ(yk_ring_claim(&ring, 8, &first), 0);
    CHECK(!yk_ring_has_next(&ring));
    CHECK(!yk_ring_is_empty(&ring));
    const uint64_t zero = 0;
    memcpy(cell->data, &zero, sizeof zero);
    yk_ring_publish(cell, ticket);
    CHECK_EQ(yk_ring_claim(&ring, 8, &first), 2);
    CHECK_EQ(take(first), 0);
    CHECK_EQ(take(first + 1), 1);
    yk_ring_fini(&ring);
}

static atomic_long taken[PUTTERS * EACH], total;

static void *putter(void *arg)
{
    const uint64_t from = (uint64_t)(uintptr_t)arg * EACH;
    for (uint64_t i = 0; i < EACH; i++) {
        while (!put(from + i))
            sched_yield();
    }
    return NULL;
}

static void *taker(void *arg)
{
    uint64_t last[PUTTERS] = {0}, random = (uintptr_t)arg;
    while (count_get(&total) < PUTTERS * EACH) {
        uint64_t first = 0;
        const uint32_t count =
            yk_ring_claim(&ring, 1 + (uint32_t)(random_next(&random) % 9), &first);
        for (uint32_t i = 0; i < count; i++) {
            const uint64_t value = take(first + i);
            CHECK(value < PUTTERS * EACH);
            CHECK_EQ(count_up(&taken[value], 1), 0);
            /* Of one putter, each taker sees them in order. */
            CHECK(value + 1 > last[value / EACH]);
            last[value / EACH] = value + 1;
        }
        count_up(&total, count);
        if (count == 0)
            sched_yield();
    }
    return NULL;
}

static void many_put_and_many_take(void)
{
    pthread_t threads[PUTTERS + TAKERS];
    CHECK_EQ(yk_ring_init(&ring), 0);
    for (uintptr_t i = 0; i < PUTTERS + TAKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, i < PUTTERS ? putter : taker, (void *)i), 0);
    for (int i = 0; i < PUTTERS + TAKERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(count_get(&total), PUTTERS * EACH);
    for (int i = 0; i < PUTTERS * EACH; i++)
        CHECK_EQ(count_get(&taken[i]), 1);
    CHECK(yk_ring_is_empty(&ring));
    yk_ring_fini(&ring);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(what_goes_in_comes_out_in_order);
    RUN(a_full_ring_takes_no_more);
    RUN(what_is_not_published_is_not_taken);
    RUN(many_put_and_many_take);
    return 0;
}
