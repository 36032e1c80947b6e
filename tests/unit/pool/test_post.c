/* SPDX-License-Identifier: MIT
 * test_post.c - tasks that nobody waits for: posted, run once, counted; and what happens at the ends.
 */
/* tsan: yes */
/* timeout: 120 */
#define CHECK_TIMEOUT 100
#include "gate.h"
#include <pthread.h>

enum { CELLS = 1024 };

static void close_gate(yoke_pool *pool, struct gate *gate, long workers)
{
    for (long i = 0; i < workers; i++) {
        CHECK_RC(yoke_post(pool, wait_at_gate, &gate, sizeof gate, NULL), 0);
        WAIT_FOR(count_get(&gate->inside) == i + 1);
    }
}

/* ---- arguments -------------------------------------------------------------------------------- */

struct parcel {
    atomic_long *sum;
    size_t bytes;
    unsigned char data[200];
};

static int look_into_parcel(yoke_task *task, const void *in, void *out)
{
    struct parcel parcel;
    memset(&parcel, 0, sizeof parcel);
    memcpy(&parcel, in, offsetof(struct parcel, data));
    memcpy(parcel.data, (const char *)in + offsetof(struct parcel, data), parcel.bytes);
    (void)task;
    CHECK(out == NULL || check_kind == YOKE_PROCESSES);
    CHECK_EQ((uintptr_t)in % 8, 0);
    for (size_t i = 0; i < parcel.bytes; i++)
        CHECK_EQ(parcel.data[i], (unsigned char)(i * 7 + parcel.bytes));
    count_up(parcel.sum, (long)parcel.bytes + 1);
    return 0;
}

/* Whether it fits into a cell or not; the caller's is gone at once. */
static void arguments_of_any_size_are_copied(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *sum = shared_zeroed(sizeof *sum);
        long want = 0;
        for (size_t bytes = 0; bytes <= sizeof((struct parcel *)0)->data; bytes++) {
            struct parcel *parcel = malloc(sizeof *parcel);
            CHECK(parcel != NULL);
            parcel->sum = sum;
            parcel->bytes = bytes;
            for (size_t i = 0; i < bytes; i++)
                parcel->data[i] = (unsigned char)(i * 7 + bytes);
            CHECK_RC(yoke_post(pool, look_into_parcel, parcel,
                               offsetof(struct parcel, data) + bytes, NULL),
                     0);
            memset(parcel, 0xA5, sizeof *parcel);
            free(parcel);
            want += (long)bytes + 1;
        }
        drain(pool);
        CHECK_EQ(count_get(sum), want);
        end_pool(pool);
        yoke_shared_free(sum);
    }
}

static int add_context(yoke_task *task, const void *in, void *out)
{
    atomic_long *sum = *(atomic_long *const *)in;
    (void)out;
    count_up(sum, *(const long *)yoke_task_context(task));
    return 0;
}

static int has_no_context(yoke_task *task, const void *in, void *out)
{
    atomic_long *sum = *(atomic_long *const *)in;
    (void)out;
    CHECK(yoke_task_context(task) == NULL);
    count_up(sum, 1);
    return 0;
}

static void a_task_gets_its_context(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *sum = shared_zeroed(sizeof *sum);
        long *kept = shared_zeroed(sizeof *kept), copied = 3;
        *kept = 100;
        for (int i = 0; i < 50; i++) {
            const yoke_options as_is = {.size = sizeof as_is, .context = kept};
            const yoke_options copy = {
                .size = sizeof copy, .context = &copied, .context_bytes = sizeof copied};
            CHECK_RC(yoke_post(pool, add_context, &sum, sizeof sum, &as_is), 0);
            CHECK_RC(yoke_post(pool, add_context, &sum, sizeof sum, &copy), 0);
            CHECK_RC(yoke_post(pool, has_no_context, &sum, sizeof sum, NULL), 0);
        }
        copied = 0;
        drain(pool);
        CHECK_EQ(count_get(sum), 50 * 104);
        end_pool(pool);
        yoke_shared_free(sum);
        yoke_shared_free(kept);
    }
}

static void bad_arguments_are_refused(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 1);
        const yoke_options odd = {.size = sizeof odd, .context_bytes = 8};
        CHECK_RC(yoke_post(NULL, check_square, NULL, 0, NULL), -EINVAL);
        CHECK_RC(yoke_post(pool, NULL, NULL, 0, NULL), -EINVAL);
        CHECK_RC(yoke_post(pool, check_square, NULL, 8, NULL), -EINVAL);
        CHECK_RC(yoke_post(pool, check_square, &odd, ((size_t)1 << 30) + 1, NULL), -EINVAL);
        CHECK_RC(yoke_post(pool, check_square, NULL, 0, &odd), -EINVAL);
        CHECK_RC(yoke_pool_drain(NULL, 0), -EINVAL);
        CHECK_RC(yoke_pool_drain(pool, 0), 0);
        end_pool(pool);
    }
}

/* ---- order and counting ------------------------------------------------------------------------ */

struct line {
    atomic_long next;
};

static int keep_order(yoke_task *task, const void *in, void *out)
{
    struct {
        struct line *line;
        long number;
    } turn;
    (void)task;
    (void)out;
    memcpy(&turn, in, sizeof turn);
    CHECK_EQ(count_up(&turn.line->next, 1), turn.number);
    return 0;
}

static void one_worker_runs_them_in_order(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    struct line line = {0};
    for (long i = 0; i < 30000; i++) {
        const struct {
            struct line *line;
            long number;
        } turn = {&line, i};
        CHECK_RC(yoke_post(pool, keep_order, &turn, sizeof turn, NULL), 0);
        if (i % 5000 == 0)
            drain(pool);
    }
    drain(pool);
    CHECK_EQ(count_get(&line.next), 30000);
    end_pool(pool);
}

static int add_one(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    count_up(*(atomic_long *const *)in, 1);
    return 0;
}

static void they_are_counted(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *sum = shared_zeroed(sizeof *sum);
        CHECK_EQ(stats_of(pool).tasks, 0);
        for (int i = 0; i < 300; i++)
            CHECK_RC(yoke_post(pool, add_one, &sum, sizeof sum, NULL), 0);
        drain(pool);
        CHECK_EQ(count_get(sum), 300);
        CHECK_EQ(stats_of(pool).tasks, 300);
        CHECK_EQ(stats_of(pool).in_flight, 0);
        check_pool_works(pool);
        end_pool(pool);
        yoke_shared_free(sum);
    }
}

static void what_runs_and_what_queues_is_in_flight(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct gate gate = {0};
    atomic_long sum = 0, *at = &sum;
    close_gate(pool, &gate, 2);
    for (int i = 0; i < 10; i++)
        CHECK_RC(yoke_post(pool, add_one, &at, sizeof at, NULL), 0);
    CHECK_EQ(stats_of(pool).in_flight, 12);
    CHECK_RC(yoke_pool_drain(pool, 0), -ETIMEDOUT);
    CHECK_RC(yoke_pool_drain(pool, yoke_in_ms(5)), -ETIMEDOUT);
    count_set(&gate.open, 1);
    drain(pool);
    CHECK_EQ(sum, 10);
    CHECK_EQ(stats_of(pool).tasks, 12);
    end_pool(pool);
}

/* ---- a full ring ------------------------------------------------------------------------------- */

struct poster {
    yoke_pool *pool;
    atomic_long *sum;
    atomic_long posted, rc;
    int count;
};

static int post_many(void *arg)
{
    struct poster *poster = arg;
    int rc = 0;
    for (int i = 0; i < poster->count && rc == 0; i++) {
        rc = yoke_post(poster->pool, add_one, &poster->sum, sizeof poster->sum, NULL);
        count_up(&poster->posted, rc == 0);
    }
    count_set(&poster->rc, rc);
    return rc;
}

static void a_full_ring_makes_the_caller_wait(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct gate gate = {0};
    atomic_long sum = 0;
    struct poster poster = {.pool = pool, .sum = &sum, .count = 3 * CELLS};
    yoke_thread *thread = NULL;
    close_gate(pool, &gate, 2);
    CHECK_RC(yoke_thread_start(NULL, post_many, &poster, &thread), 0);
    WAIT_FOR(count_get(&poster.posted) == CELLS);
    for (int i = 0; i < 20; i++) {
        breathe();
        CHECK_EQ(count_get(&poster.posted), CELLS);
    }
    CHECK_EQ(stats_of(pool).in_flight, CELLS + 2);
    CHECK_EQ(count_get(&sum), 0);
    count_set(&gate.open, 1);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    drain(pool);
    CHECK_EQ(count_get(&sum), 3 * CELLS);
    end_pool(pool);
}

static void an_interrupt_ends_the_wait_for_room(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    struct gate gate = {0};
    atomic_long sum = 0;
    struct poster poster = {.pool = pool, .sum = &sum, .count = 3 * CELLS, .rc = 1};
    yoke_thread *thread = NULL;
    close_gate(pool, &gate, 1);
    CHECK_RC(yoke_thread_start(NULL, post_many, &poster, &thread), 0);
    WAIT_FOR(count_get(&poster.posted) == CELLS);
    CHECK_RC(yoke_thread_interrupt(thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    CHECK_RC((int)count_get(&poster.rc), -ECANCELED);
    yoke_thread_release(thread);
    count_set(&gate.open, 1);
    drain(pool);
    CHECK_EQ(count_get(&sum), CELLS);
    end_pool(pool);
}

static void on_signal(int sig)
{
    (void)sig;
}

static void *post_in_pthread(void *arg)
{
    (void)post_many(arg);
    return NULL;
}

static void a_signal_ends_the_wait_for_room(void)
{
    const struct sigaction old = set_action(SIGUSR1, on_signal);
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    struct gate gate = {0};
    atomic_long sum = 0;
    struct poster poster = {.pool = pool, .sum = &sum, .count = 3 * CELLS, .rc = 1};
    pthread_t thread;
    close_gate(pool, &gate, 1);
    CHECK_EQ(pthread_create(&thread, NULL, post_in_pthread, &poster), 0);
    WAIT_FOR(count_get(&poster.posted) == CELLS);
    const int64_t until = soon();
    while (count_get(&poster.rc) == 1) { /* it may be between two looks when the signal comes */
        CHECK(yoke_now_ns() < until);
        pthread_kill(thread, SIGUSR1);
        breathe();
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_RC((int)count_get(&poster.rc), -EINTR);
    count_set(&gate.open, 1);
    drain(pool);
    CHECK_EQ(count_get(&sum), CELLS);
    end_pool(pool);
    sigaction(SIGUSR1, &old, NULL);
}

/* ---- from inside tasks ------------------------------------------------------------------------- */

struct tree {
    yoke_pool *pool;
    atomic_long *nodes;
    long depth;
};

static int grow_tree(yoke_task *task, const void *in, void *out)
{
    struct tree tree;
    (void)task;
    (void)out;
    memcpy(&tree, in, sizeof tree);
    count_up(tree.nodes, 1);
    if (tree.depth-- > 0) {
        CHECK_RC(yoke_post(tree.pool, grow_tree, &tree, sizeof tree, NULL), 0);
        CHECK_RC(yoke_post(tree.pool, grow_tree, &tree, sizeof tree, NULL), 0);
    }
    return 0;
}

static void tasks_post_tasks(void)
{
    for (unsigned workers = 1; workers <= 3; workers++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, workers);
        atomic_long nodes = 0;
        const struct tree tree = {pool, &nodes, 13};
        CHECK_RC(yoke_post(pool, grow_tree, &tree, sizeof tree, NULL), 0);
        drain(pool);
        CHECK_EQ(count_get(&nodes), (1 << 14) - 1);
        end_pool(pool);
    }
}

/* The one worker posts more than there is room for: nobody else could make room. */
static int post_too_many(yoke_task *task, const void *in, void *out)
{
    struct poster *poster = *(struct poster *const *)in;
    (void)task;
    (void)out;
    CHECK_RC(post_many(poster), 0);
    CHECK_EQ(count_get(poster->sum), poster->count - CELLS);
    CHECK_RC(yoke_pool_drain(poster->pool, 0), -EDEADLK);
    return 0;
}

static void a_task_that_finds_no_room_runs_it_itself(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    atomic_long sum = 0;
    struct poster poster = {.pool = pool, .sum = &sum, .count = 3 * CELLS};
    struct poster *at = &poster;
    CHECK_RC(yoke_post(pool, post_too_many, &at, sizeof at, NULL), 0);
    drain(pool);
    CHECK_EQ(count_get(&sum), 3 * CELLS);
    CHECK_EQ(stats_of(pool).tasks, 3 * CELLS + 1);
    end_pool(pool);
}

/* ---- the end ----------------------------------------------------------------------------------- */

static void what_was_posted_runs_before_the_end(void)
{
    for (int round = 0; round < 20; round++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, 2);
        atomic_long sum = 0;
        struct poster poster = {.pool = pool, .sum = &sum, .count = CELLS};
        CHECK_RC(post_many(&poster), 0);
        end_pool(pool);
        CHECK_EQ(count_get(&sum), CELLS);
    }
}

/* With copies that are too large for the ring: who leaks them is found out under ASan. */
static void what_has_not_begun_never_does(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct gate gate = {0};
    atomic_long sum = 0;
    struct parcel parcel = {.sum = &sum, .bytes = sizeof parcel.data};
    close_gate(pool, &gate, 2);
    for (int i = 0; i < CELLS; i++)
        CHECK_RC(yoke_post(pool, look_into_parcel, &parcel, sizeof parcel, NULL), 0);
    stop_pool(pool, yoke_in_ms(1));
    CHECK_EQ(count_get(&sum), 0);
}

/* A task that sleeps is woken by the end of its pool. */
static int sleep_long(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    count_up(*(atomic_long *const *)in, 1);
    CHECK_RC(yoke_sleep_until(yoke_in_ms(100000)), -ECANCELED);
    return 0;
}

static int sleep_short(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)out;
    CHECK_RC(yoke_sleep_until(yoke_in_ms(1)), 0);
    count_up(*(atomic_long *const *)in, 1);
    return 0;
}

/* Also who belongs to a token, which nobody sets. */
static void the_end_wakes_who_sleeps(void)
{
    yoke_cancel *cancel = NULL;
    CHECK_RC(yoke_cancel_create(NULL, &cancel), 0);
    const yoke_options options = {.size = sizeof options, .cancel = cancel};
    for (int with_token = 0; with_token < 2; with_token++) {
        yoke_pool *pool = make_pool(YOKE_THREADS, 2);
        atomic_long begun = 0, *at = &begun;
        CHECK_RC(yoke_post(pool, sleep_long, &at, sizeof at, with_token ? &options : NULL), 0);
        WAIT_FOR(count_get(&begun) == 1);
        stop_pool(pool, 0);
    }
    CHECK_EQ(yoke_cancel_is_set(cancel), 0);
    yoke_cancel_release(cancel);
}

/* And only him: the next one on that worker sleeps undisturbed. */
static void a_token_wakes_who_sleeps(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    yoke_cancel *cancel = NULL;
    atomic_long begun = 0, *at = &begun;
    CHECK_RC(yoke_cancel_create(NULL, &cancel), 0);
    const yoke_options options = {.size = sizeof options, .cancel = cancel};
    CHECK_RC(yoke_post(pool, sleep_long, &at, sizeof at, &options), 0);
    CHECK_RC(yoke_post(pool, sleep_short, &at, sizeof at, NULL), 0);
    WAIT_FOR(count_get(&begun) == 1);
    yoke_cancel_set(cancel);
    drain(pool);
    CHECK_EQ(count_get(&begun), 2);
    yoke_cancel_release(cancel);
    end_pool(pool);
}

/* ---- tokens ------------------------------------------------------------------------------------ */

static void what_was_cancelled_does_not_begin(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    struct gate gate = {0};
    atomic_long sum = 0, *at = &sum;
    yoke_cancel *cancel = NULL;
    CHECK_RC(yoke_cancel_create(NULL, &cancel), 0);
    const yoke_options options = {.size = sizeof options, .cancel = cancel};
    close_gate(pool, &gate, 1);
    for (int i = 0; i < 100; i++) {
        CHECK_RC(yoke_post(pool, add_one, &at, sizeof at, &options), 0);
        CHECK_RC(yoke_post(pool, add_one, &at, sizeof at, NULL), 0);
    }
    yoke_cancel_set(cancel);
    yoke_cancel_release(cancel);
    count_set(&gate.open, 1);
    drain(pool);
    CHECK_EQ(count_get(&sum), 100);
    CHECK_EQ(stats_of(pool).tasks, 201);
    end_pool(pool);
}

static void what_runs_is_told(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct gate gate = {0}, *at = &gate;
    yoke_cancel *cancel = NULL;
    CHECK_RC(yoke_cancel_create(NULL, &cancel), 0);
    const yoke_options options = {.size = sizeof options, .cancel = cancel};
    CHECK_RC(yoke_post(pool, wait_at_gate, &at, sizeof at, &options), 0);
    WAIT_FOR(count_get(&gate.inside) == 1);
    CHECK_RC(yoke_pool_drain(pool, 0), -ETIMEDOUT);
    yoke_cancel_set(cancel);
    drain(pool);
    yoke_cancel_release(cancel);
    end_pool(pool);
}

/* A task posts: what it posts belongs to what it belongs to. */
static int post_below(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    yoke_pool *pool = *(yoke_pool *const *)((const char *)in + sizeof gate);
    (void)task;
    (void)out;
    return yoke_post(pool, wait_at_gate, &gate, sizeof gate, NULL) != 0;
}

static void tasks_of_tasks_belong_to_their_token(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    struct gate gate = {0};
    const struct {
        struct gate *gate;
        yoke_pool *pool;
    } in = {&gate, pool};
    yoke_cancel *cancel = NULL;
    CHECK_RC(yoke_cancel_create(NULL, &cancel), 0);
    const yoke_options options = {.size = sizeof options, .cancel = cancel};
    CHECK_RC(yoke_post(pool, post_below, &in, sizeof in, &options), 0);
    WAIT_FOR(count_get(&gate.inside) == 1);
    yoke_cancel_set(cancel);
    drain(pool);
    yoke_cancel_release(cancel);
    end_pool(pool);
}

static void free_all(void *arg)
{
    count_up(*(atomic_long **)arg, 1);
    free(arg);
}

static int allocate(yoke_task *task, const void *in, void *out)
{
    (void)out;
    void *block = malloc(sizeof(atomic_long *));
    CHECK(block != NULL && yoke_task_alloc(task, 100) != NULL);
    memcpy(block, in, sizeof(atomic_long *));
    CHECK_RC(yoke_task_defer(task, free_all, block), 0);
    CHECK(yoke_task_result(task, 10) == NULL || check_kind == YOKE_PROCESSES);
    CHECK_EQ(yoke_task_item(task), 0);
    CHECK(yoke_task_worker(task) < 2);
    return 3;
}

static void a_task_has_memory_and_clean_ups(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    atomic_long sum = 0, *at = &sum;
    for (int i = 0; i < 200; i++)
        CHECK_RC(yoke_post(pool, allocate, &at, sizeof at, NULL), 0);
    drain(pool);
    CHECK_EQ(count_get(&sum), 200);
    end_pool(pool);
}

/* ---- together ---------------------------------------------------------------------------------- */

/* Tasks that wait for each other: each needs a thread of its own, whatever lies behind it. */
static int meet(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    const long wanted = count_get(&gate->open);
    const int64_t until = soon();
    (void)task;
    (void)out;
    count_up(&gate->inside, 1);
    while (count_get(&gate->inside) < wanted) {
        CHECK(yoke_now_ns() < until);
        breathe();
    }
    return 0;
}

static int nothing(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return 0;
}

/* After many tiny ones a worker claims several at once: among them some that take long. */
static void nothing_is_stranded_behind_a_long_task(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 3);
    for (int round = 0; round < 60; round++) {
        struct gate gate = {.open = 3}, *at = &gate;
        for (int i = 0; i < 4000; i++)
            CHECK_RC(yoke_post(pool, nothing, NULL, 0, NULL), 0);
        for (int i = 0; i < 3; i++)
            CHECK_RC(yoke_post(pool, meet, &at, sizeof at, NULL), 0);
        for (int i = 0; i < round; i++)
            CHECK_RC(yoke_post(pool, nothing, NULL, 0, NULL), 0);
        drain(pool);
        CHECK_EQ(count_get(&gate.inside), 3);
    }
    end_pool(pool);
}

static int block_and_meet(yoke_task *task, const void *in, void *out)
{
    yoke_blocking_begin(task);
    const int rc = meet(task, in, out);
    yoke_blocking_end(task);
    return rc;
}

static void elastic_pools_grow_for_them(void)
{
    for (int says = 0; says < 2; says++) {
        yoke_pool *pool =
            make_pool_of((yoke_pool_config){.kind = YOKE_THREADS, .workers = 1, .workers_max = 12});
        struct gate gate = {.open = 12}, *at = &gate;
        for (int i = 0; i < 12; i++)
            CHECK_RC(yoke_post(pool, says ? block_and_meet : meet, &at, sizeof at, NULL), 0);
        drain(pool);
        CHECK_EQ(count_get(&gate.inside), 12);
        CHECK(stats_of(pool).workers <= 12);
        end_pool(pool);
    }
}

static void posts_and_jobs_share_a_pool(void)
{
    yoke_pool *pool = make_pool(YOKE_THREADS, 2);
    atomic_long sum = 0, *at = &sum;
    for (int round = 0; round < 200; round++) {
        yoke_job *jobs[20];
        for (int i = 0; i < 20; i++) {
            CHECK_RC(yoke_post(pool, add_one, &at, sizeof at, NULL), 0);
            CHECK_RC(yoke_submit(pool, add_one, &at, sizeof at, 0, NULL, &jobs[i]), 0);
        }
        check_pool_works(pool);
        for (int i = 0; i < 20; i++)
            yoke_job_release(jobs[i]);
        drain(pool);
        CHECK_EQ(count_get(&sum), 40 * (round + 1));
    }
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(arguments_of_any_size_are_copied);
    RUN(a_task_gets_its_context);
    RUN(bad_arguments_are_refused);
    RUN(one_worker_runs_them_in_order);
    RUN(they_are_counted);
    RUN(what_runs_and_what_queues_is_in_flight);
    RUN(a_full_ring_makes_the_caller_wait);
    RUN(an_interrupt_ends_the_wait_for_room);
    RUN(a_signal_ends_the_wait_for_room);
    RUN(tasks_post_tasks);
    RUN(a_task_that_finds_no_room_runs_it_itself);
    RUN(what_was_posted_runs_before_the_end);
    RUN(what_has_not_begun_never_does);
    RUN(the_end_wakes_who_sleeps);
    RUN(a_token_wakes_who_sleeps);
    RUN(what_was_cancelled_does_not_begin);
    RUN(what_runs_is_told);
    RUN(tasks_of_tasks_belong_to_their_token);
    RUN(a_task_has_memory_and_clean_ups);
    RUN(nothing_is_stranded_behind_a_long_task);
    RUN(elastic_pools_grow_for_them);
    RUN(posts_and_jobs_share_a_pool);
    return 0;
}
