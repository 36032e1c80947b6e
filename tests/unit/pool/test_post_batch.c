/* SPDX-License-Identifier: MIT
 * test_post_batch.c - a batch of posted tasks is taken from at any moment: each runs once; and who
 * posts stops at any moment: nobody spins for him.
 *
 * Idea: one thread does nothing but take from the batches of two workers that run through them, and
 * runs what it took. In the library this happens once in a while; here it happens all the time. And
 * a ticket is taken, and its cell not filled for long. Neither is part of the public interface.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>
#include <sys/syscall.h>

#include "pool/post.h"

enum { TASKS = 4000000, ROBBED = 20000 };

static _Atomic unsigned char ran[TASKS];
static atomic_long over, robbed;

static int mark(yoke_task *task, const void *in, void *out)
{
    uint64_t number = 0;
    (void)task;
    (void)out;
    memcpy(&number, in, sizeof number);
    CHECK(number < TASKS);
    CHECK_EQ(atomic_fetch_add(&ran[number], 1), 0);
    for (int i = 0; i < 4; i++)
        yk_cpu_relax();
    return 0;
}

static void *rob(void *arg)
{
    struct yk_posts *const posts = arg;
    while (!count_get(&over)) {
        for (uint32_t i = 0; i < posts->hand_count; i++) {
            uint64_t first = 0;
            yk_mutex_lock(&posts->lock);
            const uint32_t count = yk_batch_rob_locked(posts, &posts->hands[i], &first);
            yk_mutex_unlock(&posts->lock);
            for (uint32_t k = 0; k < count; k++) {
                struct yk_cell call;
                yk_post_take(&call, yk_ring_cell(&posts->ring, first + k), first + k);
                CHECK_EQ(mark(NULL, call.data, NULL), 0);
            }
            atomic_fetch_add_explicit(&posts->here_ended, count, memory_order_release);
            count_up(&robbed, count);
        }
    }
    return NULL;
}

static void each_runs_once_whoever_takes_it(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    pthread_t thread;
    uint64_t number = 0;
    CHECK_RC(yoke_post(pool, mark, &number, sizeof number, NULL), 0);
    CHECK_EQ(pthread_create(&thread, NULL, rob, yk_posts_of(pool->ctl)), 0);
    const long wanted = ROBBED / (long)check_slowness();
    const int64_t until = soon();
    for (number = 1; number < TASKS && count_get(&robbed) < wanted; number++) {
        CHECK_RC(yoke_post(pool, mark, &number, sizeof number, NULL), 0);
        if (number % 1000 == 0)
            CHECK(yoke_now_ns() < until);
    }
    CHECK_RC(yoke_pool_drain(pool, soon()), 0);
    count_set(&over, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (uint64_t i = 0; i < number; i++)
        CHECK_EQ(ran[i], 1);
    CHECK(count_get(&robbed) > 0);
    end_pool(pool);
}

/* ---- a ticket without a call ------------------------------------------------------------------ */

static atomic_long filled;

static int note_filled(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    count_up(&filled, 1);
    return 0;
}

struct pair {
    atomic_long threads[2], here;
};

static int note_thread(yoke_task *task, const void *in, void *out)
{
    struct pair *pair = *(struct pair *const *)in;
    const int64_t until = soon();
    (void)out;
    count_set(&pair->threads[yoke_task_worker(task)], (long)syscall(SYS_gettid));
    count_up(&pair->here, -1);
    while (count_get(&pair->here) > 0) {
        CHECK(yoke_now_ns() < until);
        breathe();
    }
    return 0;
}

/* How often this thread went to sleep. */
static long sleeps_of(long thread)
{
    char path[64], text[8192];
    (void)snprintf(path, sizeof path, "/proc/self/task/%ld/status", thread);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    const size_t length = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    text[length] = '\0';
    const char *at = strstr(text, "\nvoluntary_ctxt_switches:");
    CHECK(at != NULL);
    return strtol(strchr(at, ':') + 1, NULL, 10);
}

/* Who took it may be preempted for long; if a worker is what keeps him from going on, for ever. */
static void workers_sleep_until_a_ticket_is_filled(void)
{
    for (int workers = 1; workers <= 2; workers++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, (unsigned)workers);
        struct pair pair = {.here = workers}, *at = &pair;
        for (int i = 0; i < workers; i++)
            CHECK_RC(yoke_post(pool, note_thread, &at, sizeof at, NULL), 0);
        CHECK_RC(yoke_pool_drain(pool, soon()), 0);
        uint64_t ticket = 0;
        struct yk_cell *cell = yk_ring_reserve(&yk_posts_of(pool->ctl)->ring, &ticket);
        CHECK(cell != NULL);
        yk_table_wake_all(&pool->table); /* whoever slept looks once more, and sees it */
        for (int i = 0; i < workers; i++) {
            const long before = sleeps_of(pair.threads[i]);
            WAIT_FOR(sleeps_of(pair.threads[i]) >= before + 20);
        }
        CHECK_EQ(count_get(&filled), workers - 1);
        cell->flags = 0;
        cell->fn = note_filled;
        yk_ring_publish(cell, ticket);
        CHECK_RC(yoke_pool_drain(pool, soon()), 0);
        CHECK_EQ(count_get(&filled), workers);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(each_runs_once_whoever_takes_it);
    RUN(workers_sleep_until_a_ticket_is_filled);
    return 0;
}
