/* SPDX-License-Identifier: MIT
 * test_api_heap.c - the shared heap: blocks, limits, threads, forks, pointers across processes.
 *
 * Idea: every block is filled with a pattern made from its address and size and looked at again
 * before it is freed, so that two blocks that overlap, or one that moves, are seen.
 */
/* tsan: yes */
/* timeout: 120 */
#include "check.h"
#include <limits.h>
#include <pthread.h>

static void paint(unsigned char *block, size_t bytes, unsigned salt)
{
    for (size_t i = 0; i < bytes; i += i < 64 || i + 65 >= bytes ? 1 : 61)
        block[i] = (unsigned char)((uintptr_t)block / 16 + i * 7 + salt);
    block[bytes - 1] = (unsigned char)(bytes + salt);
}

static int is_painted(const unsigned char *block, size_t bytes, unsigned salt)
{
    for (size_t i = 0; i + 1 < bytes; i += i < 64 || i + 65 >= bytes ? 1 : 61) {
        if (i != bytes - 1 && block[i] != (unsigned char)((uintptr_t)block / 16 + i * 7 + salt))
            return 0;
    }
    return block[bytes - 1] == (unsigned char)(bytes + salt);
}

static yoke_heap_stats stats_now(void)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    CHECK(stats.used_bytes <= stats.reserved_bytes);
    return stats;
}

static void blocks_are_aligned_and_apart(void)
{
    enum { N = 400 };
    static unsigned char *blocks[N];
    static size_t sizes[N];
    const yoke_heap_stats before = stats_now();
    size_t total = 0;
    for (size_t i = 0; i < N; i++) {
        sizes[i] = i < 300 ? i * 7 + 1 : (i - 299) * 37003;
        blocks[i] = yoke_shared_alloc(sizes[i]);
        CHECK(blocks[i] != NULL);
        CHECK_EQ((uintptr_t)blocks[i] % (sizes[i] >= 65536 ? 4096 : 16), 0);
        CHECK_EQ(yoke_shared_contains(blocks[i], sizes[i]), 1);
        paint(blocks[i], sizes[i], 5);
        total += sizes[i];
    }
    yoke_heap_stats full = stats_now();
    CHECK_EQ(full.blocks, before.blocks + N);
    CHECK(full.used_bytes >= before.used_bytes + total);
    for (size_t i = 0; i < N; i++)
        CHECK(is_painted(blocks[i], sizes[i], 5));
    for (size_t i = 0; i < N; i++)
        yoke_shared_free(blocks[(i * 7) % N]);
    full = stats_now();
    CHECK_EQ(full.blocks, before.blocks);
    CHECK_EQ(full.used_bytes, before.used_bytes);
}

static void odd_requests(void)
{
    CHECK(yoke_shared_alloc(0) == NULL);
    CHECK(yoke_shared_alloc(SIZE_MAX) == NULL);
    CHECK(yoke_shared_alloc(SIZE_MAX - 4095) == NULL);
    CHECK(yoke_shared_alloc((size_t)1 << 62) == NULL);
    CHECK(yoke_shared_alloc(PTRDIFF_MAX) == NULL);
    const size_t blocks = count_blocks();
    yoke_shared_free(NULL);
    CHECK_EQ(count_blocks(), blocks);
    CHECK_RC(yoke_heap_stats_get(NULL), -EINVAL);
    yoke_heap_stats stats = {.size = 0};
    CHECK_RC(yoke_heap_stats_get(&stats), -EINVAL);
    CHECK_RC(yoke_heap_limit(0), -EINVAL);
    CHECK_RC(yoke_heap_limit(((size_t)1 << 20) - 1), -EINVAL);
}

static void contains_tells_private_from_shared(void)
{
    static int global;
    int local = 0;
    char *block = yoke_shared_alloc(100000);
    char *private = malloc(100000);
    CHECK(block && private);
    CHECK_EQ(yoke_shared_contains(block, 1), 1);
    CHECK_EQ(yoke_shared_contains(block + 99999, 1), 1);
    CHECK_EQ(yoke_shared_contains(private, 100000), 0);
    CHECK_EQ(yoke_shared_contains(&global, sizeof global), 0);
    CHECK_EQ(yoke_shared_contains(&local, sizeof local), 0);
    CHECK_EQ(yoke_shared_contains(NULL, 1), 0);
    CHECK_EQ(yoke_shared_contains(block, SIZE_MAX), 0);
    CHECK_EQ(yoke_shared_contains(block, SIZE_MAX - (uintptr_t)block), 0);
    free(private);
    yoke_shared_free(block);
}

static void freed_memory_is_used_again(void)
{
    yoke_shared_free(yoke_shared_alloc(50 << 20));
    const yoke_heap_stats before = stats_now();
    /* 200 times 50 MB, one after the other: 10 GB if it were not. */
    for (int i = 0; i < 200; i++) {
        unsigned char *block = yoke_shared_alloc(50 << 20);
        CHECK(block != NULL);
        block[0] = block[(50 << 20) - 1] = 1;
        yoke_shared_free(block);
    }
    uint64_t state = 42;
    for (int i = 0; i < 100000; i++) {
        const size_t bytes = 1 + random_next(&state) % 5000;
        unsigned char *block = yoke_shared_alloc(bytes);
        CHECK(block != NULL);
        block[bytes - 1] = 1;
        yoke_shared_free(block);
    }
    const yoke_heap_stats after = stats_now();
    CHECK_EQ(after.blocks, before.blocks);
    CHECK(after.reserved_bytes <= before.reserved_bytes + (32 << 20));
}

static void the_limit_is_an_answer_and_not_an_end(void)
{
    enum { MIB = 1 << 20, MANY = 4096 };
    static void *blocks[MANY];
    CHECK_RC(yoke_heap_limit(stats_now().reserved_bytes + 24 * MIB), 0);
    const size_t limit = stats_now().limit_bytes;
    static const size_t sizes[] = {MIB, 100000, 3000, 16};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = 0;
        while (n < MANY && (blocks[n] = yoke_shared_alloc(sizes[s])) != NULL) {
            memset(blocks[n], 7, sizes[s]);
            n++;
        }
        CHECK(n > 0);
        CHECK(n < MANY || sizes[s] * MANY < 24 * MIB);
        CHECK(stats_now().reserved_bytes <= limit);
        CHECK(yoke_shared_alloc(64 * MIB) == NULL);
        for (size_t i = 0; i < n; i++)
            yoke_shared_free(blocks[i]);
    }
    void *again = yoke_shared_alloc(8 * MIB);
    CHECK(again != NULL);
    yoke_shared_free(again);
    CHECK_RC(yoke_heap_limit((size_t)1 << 50), 0); /* cut to what there is */
    CHECK(stats_now().limit_bytes >= limit);
}

struct shelf {
    pthread_mutex_t lock;
    struct {
        unsigned char *block;
        size_t bytes;
    } slots[64];
    atomic_long wrong;
    atomic_long seed;
};

/* Swaps blocks through a shelf, so that most are freed by another thread than took them. */
static void *trade(void *arg)
{
    struct shelf *shelf = arg;
    uint64_t state = (uint64_t)count_up(&shelf->seed, 1);
    for (int i = 0; i < 20000; i++) {
        const uint64_t r = random_next(&state);
        const size_t at = r % 64;
        size_t bytes = 1 + (r >> 8) % (r % 97 == 0 ? 300000 : 600);
        unsigned char *block = yoke_shared_alloc(bytes);
        if (!block) {
            count_up(&shelf->wrong, 1);
            break;
        }
        paint(block, bytes, 9);
        pthread_mutex_lock(&shelf->lock);
        unsigned char *old = shelf->slots[at].block;
        const size_t old_bytes = shelf->slots[at].bytes;
        shelf->slots[at].block = block;
        shelf->slots[at].bytes = bytes;
        pthread_mutex_unlock(&shelf->lock);
        if (old && !is_painted(old, old_bytes, 9))
            count_up(&shelf->wrong, 1);
        yoke_shared_free(old);
    }
    return NULL;
}

static void threads_may_free_what_others_took(void)
{
    struct shelf shelf;
    memset(&shelf, 0, sizeof shelf);
    CHECK_EQ(pthread_mutex_init(&shelf.lock, NULL), 0);
    const size_t blocks = count_blocks();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, trade, &shelf), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(count_get(&shelf.wrong), 0);
    for (int i = 0; i < 64; i++) {
        CHECK(!shelf.slots[i].block || is_painted(shelf.slots[i].block, shelf.slots[i].bytes, 9));
        yoke_shared_free(shelf.slots[i].block);
    }
    CHECK_EQ(count_blocks(), blocks);
    pthread_mutex_destroy(&shelf.lock);
}

static void *take_and_leave(void *arg)
{
    void **blocks = arg;
    for (int i = 0; i < 100; i++)
        blocks[i] = yoke_shared_alloc(200);
    return NULL;
}

static void blocks_outlive_their_thread(void)
{
    const yoke_heap_stats before = stats_now();
    for (int round = 0; round < 50; round++) {
        void *blocks[100] = {NULL};
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, take_and_leave, blocks), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        for (int i = 0; i < 100; i++) {
            CHECK(blocks[i] != NULL);
            memset(blocks[i], i, 200);
        }
        for (int i = 0; i < 100; i++)
            yoke_shared_free(blocks[i]);
    }
    const yoke_heap_stats after = stats_now();
    CHECK_EQ(after.blocks, before.blocks);
    CHECK(after.reserved_bytes <= before.reserved_bytes + (32 << 20));
}

static int fresh_heap(void *arg)
{
    yoke_shared_free(arg); /* does nothing to the parent's */
    unsigned char *block = yoke_shared_alloc(5000);
    CHECK(block != NULL);
    memset(block, 1, 5000);
    CHECK_EQ(yoke_shared_contains(block, 5000), 1);
    CHECK_EQ(count_blocks(), 1);
    yoke_shared_free(block);
    CHECK_EQ(count_blocks(), 0);
    return 0;
}

static void a_forked_child_has_a_heap_of_its_own(void)
{
    if (CHECK_TSAN)
        return;
    unsigned char *block = yoke_shared_alloc(3000);
    CHECK(block != NULL);
    paint(block, 3000, 1);
    const size_t blocks = count_blocks();
    CHECK_CHILD(fresh_heap, block);
    CHECK_EQ(count_blocks(), blocks);
    CHECK(is_painted(block, 3000, 1));
    unsigned char *other = yoke_shared_alloc(3000);
    CHECK(other != NULL && other != block);
    yoke_shared_free(other);
    yoke_shared_free(block);
}

struct node {
    struct node *next;
    int64_t value;
    char text[];
};

/* Each item makes a node that points to the one it was given. */
static int make_list(yoke_task *task, const void *in, void *out)
{
    struct node *head = NULL;
    (void)task;
    for (int64_t i = 0; i < 50; i++) {
        struct node *node = yoke_shared_alloc(sizeof *node + (size_t)i + 20);
        if (!node)
            return 1;
        node->next = head;
        node->value = i + *(const int64_t *)in;
        snprintf(node->text, 20 + (size_t)i, "node %" PRId64, node->value);
        head = node;
    }
    memcpy(out, &head, sizeof head);
    return 0;
}

static int free_list(yoke_task *task, const void *in, void *out)
{
    struct node *node;
    int64_t sum = 0;
    (void)task;
    memcpy(&node, in, sizeof node);
    while (node) {
        struct node *next = node->next;
        char want[32];
        snprintf(want, sizeof want, "node %" PRId64, node->value);
        if (strcmp(want, node->text) != 0)
            return 2;
        sum += node->value;
        yoke_shared_free(node);
        node = next;
    }
    memcpy(out, &sum, sizeof sum);
    return 0;
}

static void linked_structures_travel_as_they_are(void)
{
    enum { N = 200 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 3);
        const size_t blocks = count_blocks();
        int64_t in[N], sums[N];
        struct node *heads[N] = {NULL};
        for (int i = 0; i < N; i++)
            in[i] = i;
        CHECK_RC(yoke_map(pool, make_list, in, 8, heads, sizeof *heads, N, NULL), 0);
        CHECK_EQ(count_blocks(), blocks + N * 50);
        for (int i = 0; i < N; i++) {
            CHECK_EQ(yoke_shared_contains(heads[i], sizeof **heads), 1);
            CHECK_EQ(heads[i]->value, i + 49);
            CHECK_EQ(heads[i]->next->value, i + 48);
        }
        CHECK_RC(yoke_map(pool, free_list, heads, sizeof *heads, sums, 8, N, NULL), 0);
        for (int i = 0; i < N; i++)
            CHECK_EQ(sums[i], 50 * i + 49 * 25);
        CHECK_EQ(count_blocks(), blocks);
        end_pool(pool);
    }
}

static int fill_heap(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    if (yoke_task_result(task, (size_t)256 << 20) != NULL)
        return 1;
    return yoke_shared_alloc((size_t)256 << 20) == NULL ? 0 : 2;
}

static void a_full_heap_leaves_the_pool_usable(void)
{
    enum { MIB = 1 << 20 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        check_pool_works(pool);
        CHECK_RC(yoke_heap_limit(stats_now().reserved_bytes + 40 * MIB), 0);
        static void *blocks[64];
        size_t n = 0;
        while (n < 64 && (blocks[n] = yoke_shared_alloc(MIB)) != NULL)
            n++;
        CHECK(n > 0 && n < 64);
        /* Either there is still room for what the call needs, or it says so. */
        int64_t in[100] = {4}, out[100] = {0};
        int rc = yoke_map(pool, check_square, in, 8, out, 8, 100, NULL);
        CHECK(rc == -ENOMEM || (rc == 0 && out[0] == 16));
        char *big = calloc(1, 32 * MIB);
        CHECK(big != NULL);
        yoke_job *job = NULL;
        rc = yoke_submit(pool, check_square, big, 32 * MIB, 8, NULL, &job);
        CHECK(kind == YOKE_PROCESSES ? rc == -ENOMEM && !job : rc == 0 || rc == -ENOMEM);
        yoke_job_release(job);
        free(big);
        for (size_t i = 0; i < n; i++)
            yoke_shared_free(blocks[i]);
        check_pool_works(pool);
        if (kind == YOKE_PROCESSES) {
            CHECK_RC(yoke_submit(pool, fill_heap, NULL, 0, 0, NULL, &job), 0);
            CHECK_RC(yoke_wait(job, soon()), 0);
            yoke_outcome outcome;
            CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
            CHECK_EQ(outcome.code, 0);
            CHECK_EQ(outcome.kind, YOKE_OK);
            yoke_job_release(job);
        }
        CHECK_RC(yoke_heap_limit((size_t)1 << 50), 0);
        check_pool_works(pool);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(blocks_are_aligned_and_apart);
    RUN(odd_requests);
    RUN(contains_tells_private_from_shared);
    RUN(freed_memory_is_used_again);
    RUN(the_limit_is_an_answer_and_not_an_end);
    RUN(threads_may_free_what_others_took);
    RUN(blocks_outlive_their_thread);
    RUN(a_forked_child_has_a_heap_of_its_own);
    RUN(linked_structures_travel_as_they_are);
    RUN(a_full_heap_leaves_the_pool_usable);
    return 0;
}
