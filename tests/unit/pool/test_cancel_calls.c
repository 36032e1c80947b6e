/* SPDX-License-Identifier: MIT
 * test_cancel_calls.c - every call of Yoke that waits, inside a task that is cancelled.
 *
 * Idea: a task sits in each of them in turn, with nothing that would ever end it; then somebody
 * sets its token, or cancels its job. What ends later than its patience fails the test.
 */
/* tsan: yes */
/* timeout: 180 */
#include "check.h"

enum { HOUR_MS = 3600 * 1000 };

static yoke_cancel *token_below(yoke_cancel *parent)
{
    yoke_cancel *token = NULL;
    CHECK_RC(yoke_cancel_create(parent, &token), 0);
    return token;
}

static yoke_options with(yoke_cancel *token)
{
    return (yoke_options){.size = sizeof(yoke_options), .cancel = token};
}

/* What never ends by itself, for those who wait. */
struct stuck {
    atomic_long begun, go;
    yoke_pool *held; /* one worker, and it has a task that waits for go */
    yoke_job *job;
    yoke_pool *full; /* the same, and no room for more */
    yoke_thread *thread;
    yoke_process *process;
    atomic_long *ready; /* it does not die of the signals of a stop any more */
    yoke_cancel *other; /* that nobody sets */
    yoke_pool *own;     /* where the task runs */
    atomic_long in;     /* the task is about to wait */
    int rc;             /* what the call said */
};

static int hold(yoke_task *task, const void *in, void *out)
{
    struct stuck *it = *(struct stuck *const *)in;
    (void)task;
    (void)out;
    count_up(&it->begun, 1);
    while (!count_get(&it->go))
        breathe();
    return 0;
}

static int nothing(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return 0;
}

static int sleep_an_hour(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return yoke_sleep_until(yoke_in_ms(HOUR_MS)) == -ECANCELED ? 0 : 1;
}

static int sleep_in_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)begin;
    (void)end;
    return sleep_an_hour(task, NULL, accumulator);
}

static void merge_nothing(void *accumulator, const void *other, void *user)
{
    (void)accumulator;
    (void)other;
    (void)user;
}

static int one_more(void *user, size_t item, void *in)
{
    (void)user;
    (void)in;
    return item < 5 ? 1 : 0;
}

static int not_yet(void *user, size_t item, void *in)
{
    (void)user;
    (void)item;
    (void)in;
    return -EAGAIN;
}

static void sleep_on_strand(yoke_strand strand, void *arg)
{
    *(int *)arg = yoke_sleep_until(yoke_in_ms(HOUR_MS));
    if (!yoke_strand_cancelled(strand))
        *(int *)arg = 1;
}

/* --- every call that waits -------------------------------------------------------------------- */

static int call_sleep(struct stuck *it)
{
    (void)it;
    return yoke_sleep_until(yoke_in_ms(HOUR_MS));
}
static int call_wait(struct stuck *it)
{
    return yoke_wait(it->job, yoke_in_ms(HOUR_MS));
}
/* Nobody has begun it: who waits for it would run it, and must not. */
static int call_wait_not_begun(struct stuck *it)
{
    const yoke_options options = with(it->other);
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(it->held, nothing, NULL, 0, 0, &options, &job), 0);
    int rc = yoke_wait(job, yoke_in_ms(HOUR_MS));
    size_t index = 0;
    rc = rc == -ECANCELED ? yoke_wait_any(&job, 1, yoke_in_ms(HOUR_MS), &index) : rc;
    (void)yoke_job_cancel(job, 0);
    yoke_job_release(job);
    return rc;
}
static int call_wait_any(struct stuck *it)
{
    yoke_job *const jobs[] = {NULL, it->job};
    size_t index = 0;
    return yoke_wait_any(jobs, 2, yoke_in_ms(HOUR_MS), &index);
}
static int call_wait_all(struct stuck *it)
{
    yoke_job *const jobs[] = {it->job};
    return yoke_wait_all(jobs, 1, yoke_in_ms(HOUR_MS));
}
static int call_await(struct stuck *it)
{
    uint64_t ended = 0;
    int rc = 0;
    while (rc == 0)
        rc = yoke_pool_await(it->held, &ended, yoke_in_ms(HOUR_MS));
    return rc;
}
static int call_map(struct stuck *it)
{
    return yoke_map(it->own, sleep_an_hour, NULL, 0, NULL, 0, 10, NULL);
}
static int call_map_elsewhere(struct stuck *it)
{
    return yoke_map(it->held, sleep_an_hour, NULL, 0, NULL, 0, 10, NULL);
}
static int report_nothing(void *user, size_t done, size_t total)
{
    (void)user;
    (void)done;
    (void)total;
    return 0;
}
static int call_map_watched(struct stuck *it)
{
    const yoke_options options = {.size = sizeof options, .progress = report_nothing};
    return yoke_map(it->own, sleep_an_hour, NULL, 0, NULL, 0, 10, &options);
}
static int call_for(struct stuck *it)
{
    return yoke_for(it->own, sleep_in_range, 10, NULL);
}
static int call_reduce(struct stuck *it)
{
    int64_t sum = 0;
    return yoke_reduce(it->own, sleep_in_range, merge_nothing, 10, &sum, sizeof sum, NULL);
}
static int call_stream(struct stuck *it)
{
    const yoke_stream_config stream = {.size = sizeof stream, .next = one_more};
    return yoke_map_stream(it->own, sleep_an_hour, &stream, NULL);
}
static int call_stream_idle(struct stuck *it)
{
    const yoke_stream_config stream = {.size = sizeof stream, .next = not_yet};
    return yoke_map_stream(it->own, sleep_an_hour, &stream, NULL);
}
static int call_run(struct stuck *it)
{
    int slept = 1;
    const int rc = yoke_run(it->own, sleep_on_strand, &slept, NULL);
    return slept == -ECANCELED ? rc : 1;
}
static int call_thread(struct stuck *it)
{
    return yoke_thread_wait(it->thread, yoke_in_ms(HOUR_MS), NULL);
}
static int call_process(struct stuck *it)
{
    return yoke_process_wait(it->process, yoke_in_ms(HOUR_MS), NULL);
}
static int call_process_any(struct stuck *it)
{
    yoke_process *const processes[] = {NULL, it->process};
    size_t ended = 0;
    return yoke_process_wait_any(processes, 2, yoke_in_ms(HOUR_MS), &ended);
}
static int call_process_all(struct stuck *it)
{
    yoke_process *const processes[] = {it->process};
    return yoke_process_wait_all(processes, 1, yoke_in_ms(HOUR_MS));
}
static int call_process_stop(struct stuck *it)
{
    yoke_process *const processes[] = {it->process};
    return yoke_process_stop(processes, 1, (int64_t)HOUR_MS * 1000 * 1000);
}
static int call_drain(struct stuck *it)
{
    return yoke_pool_drain(it->held, yoke_in_ms(HOUR_MS));
}

typedef int stuck_call(struct stuck *it);
static const struct {
    const char *name;
    stuck_call *call;
    int of_processes; /* there is a process to wait for */
} calls[] = {
    {"sleep_until", call_sleep, 0},
    {"wait", call_wait, 0},
    {"wait_any", call_wait_any, 0},
    {"wait_all", call_wait_all, 0},
    {"pool_await", call_await, 0},
    {"pool_drain", call_drain, 0},
    {"map", call_map, 0},
    {"map elsewhere", call_map_elsewhere, 0},
    {"map watched", call_map_watched, 0},
    {"for", call_for, 0},
    {"reduce", call_reduce, 0},
    {"map_stream", call_stream, 0},
    {"map_stream without items", call_stream_idle, 0},
    {"run", call_run, 0},
    {"thread_wait", call_thread, 0},
    {"process_wait", call_process, 1},
    {"process_wait_any", call_process_any, 1},
    {"process_wait_all", call_process_all, 1},
    {"process_stop", call_process_stop, 1},
};

struct ask {
    struct stuck *it;
    stuck_call *call;
};

static int sit_in_call(yoke_task *task, const void *in, void *out)
{
    const struct ask *ask = *(const struct ask *const *)in;
    (void)task;
    (void)out;
    count_up(&ask->it->in, 1);
    ask->it->rc = ask->call(ask->it);
    count_up(&ask->it->in, 1);
    return 0;
}

static int wait_for_go(void *arg)
{
    struct stuck *it = arg;
    while (!count_get(&it->go))
        breathe();
    return 0;
}

static int live_on(void *arg)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    count_set(arg, 1);
    for (;;)
        pause();
    return 0;
}

static yoke_job *begin_hold(yoke_pool *pool, struct stuck *it, long begun)
{
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, hold, &it, sizeof it, 0, NULL, &job), 0);
    WAIT_FOR(count_get(&it->begun) == begun);
    return job;
}

static void stuck_begin(struct stuck *it, yoke_job **first_full)
{
    memset(it, 0, sizeof *it);
    if (!CHECK_TSAN) {
        it->ready = shared_zeroed(sizeof *it->ready);
        CHECK_RC(yoke_process_start(NULL, live_on, it->ready, &it->process), 0);
        WAIT_FOR(count_get(it->ready) == 1);
    }
    it->other = token_below(NULL);
    it->own = make_pool(YOKE_THREADS, 2);
    it->held = make_pool(YOKE_THREADS, 1);
    it->full = make_pool(YOKE_THREADS, 1);
    it->job = begin_hold(it->held, it, 1);
    *first_full = begin_hold(it->full, it, 2);
    while (stats_of(it->full).in_flight < 1024) {
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(it->full, nothing, NULL, 0, 0, NULL, &job), 0);
        yoke_job_release(job);
    }
    CHECK_RC(yoke_thread_start(NULL, wait_for_go, it, &it->thread), 0);
}

static void stuck_end(struct stuck *it, yoke_job *first_full)
{
    count_set(&it->go, 1);
    CHECK_RC(yoke_thread_wait(it->thread, soon(), NULL), 0);
    yoke_thread_release(it->thread);
    yoke_job_release(it->job);
    yoke_job_release(first_full);
    yoke_process_release(it->process);
    yoke_shared_free(it->ready);
    yoke_cancel_release(it->other);
    end_pool(it->own);
    end_pool(it->held);
    end_pool(it->full);
}

static void sit_and_be_cancelled(struct stuck *it, stuck_call *call, int by_job)
{
    struct ask ask = {it, call}, *in = &ask;
    yoke_cancel *token = token_below(NULL);
    const yoke_options options = with(token);
    yoke_job *job = NULL;
    count_set(&it->in, 0);
    it->rc = 1;
    CHECK_RC(yoke_submit(it->own, sit_in_call, &in, sizeof in, 0, by_job ? NULL : &options, &job),
             0);
    WAIT_FOR(count_get(&it->in) == 1);
    breathe();
    if (by_job)
        CHECK_EQ(yoke_job_cancel(job, 0), 0);
    else
        yoke_cancel_set(token);
    WAIT_FOR(count_get(&it->in) == 2);
    CHECK_RC(it->rc, -ECANCELED);
    /* It was told, so that is how it ends, though it returned 0. */
    CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
    yoke_cancel_release(token);
}

static void every_call_that_waits_ends(void)
{
    struct stuck it;
    yoke_job *first_full = NULL;
    if (!check_has_kind(YOKE_THREADS))
        return;
    stuck_begin(&it, &first_full);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (calls[i].of_processes && CHECK_TSAN)
            continue;
        for (int by_job = 0; by_job < 2; by_job++) {
            const int64_t begin = yoke_now_ns();
            fprintf(stderr, "    %s", calls[i].name);
            sit_and_be_cancelled(&it, calls[i].call, by_job);
            fprintf(stderr, " %lld us\n", (long long)(yoke_now_ns() - begin) / 1000);
        }
    }
    stuck_end(&it, first_full);
}

/* What such a task comes to afterwards ends at once as well. */
static int come_to_calls(yoke_task *task, const void *in, void *out)
{
    struct ask *ask = *(struct ask *const *)in;
    struct stuck *it = ask->it;
    (void)out;
    count_up(&it->in, 1);
    while (!yoke_task_cancelled(task))
        breathe();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (calls[i].of_processes && CHECK_TSAN)
            continue;
        if (calls[i].call == call_run)
            continue; /* the function would not begin */
        int rc = calls[i].call(it);
        rc = rc == -ECANCELED ? call_wait_not_begun(it) : rc;
        if (rc != -ECANCELED)
            fprintf(stderr, "    %s: %d\n", calls[i].name, rc);
        it->rc += rc != -ECANCELED;
    }
    return 0;
}

static void calls_it_comes_to_end_at_once(void)
{
    struct stuck it;
    yoke_job *first_full = NULL, *job = NULL;
    if (!check_has_kind(YOKE_THREADS))
        return;
    stuck_begin(&it, &first_full);
    struct ask ask = {.it = &it}, *in = &ask;
    yoke_cancel *token = token_below(NULL);
    const yoke_options options = with(token);
    CHECK_RC(yoke_submit(it.own, come_to_calls, &in, sizeof in, 0, &options, &job), 0);
    WAIT_FOR(count_get(&it.in) == 1);
    yoke_cancel_set(token);
    CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
    CHECK_EQ(it.rc, 0);
    yoke_cancel_release(token);
    stuck_end(&it, first_full);
}

/* --- in process workers ----------------------------------------------------------------------- */

struct far {
    atomic_long in, told;
    long rc;
};

static int sit_in_sleep(yoke_task *task, const void *in, void *out)
{
    struct far *far = *(struct far *const *)in;
    (void)out;
    count_up(&far->in, 1);
    far->rc = yoke_sleep_until(yoke_in_ms(HOUR_MS));
    count_up(&far->told, yoke_task_cancelled(task));
    return 0;
}

static int far_item(yoke_task *task, const void *in, void *out)
{
    struct far *far = *(struct far *const *)in;
    (void)task;
    (void)out;
    count_up(&far->in, 1);
    return yoke_sleep_until(yoke_in_ms(HOUR_MS)) == -ECANCELED ? 0 : 1;
}

static int sit_in_map(yoke_task *task, const void *in, void *out)
{
    struct far *far = *(struct far *const *)in, *items[3] = {far, far, far};
    (void)out;
    far->rc = yoke_map((yoke_pool *)far, far_item, items, sizeof *items, NULL, 0, 3, NULL);
    count_up(&far->told, yoke_task_cancelled(task));
    return 0;
}

static void tasks_in_processes_are_told(void)
{
    yoke_fn *const fns[] = {sit_in_sleep, sit_in_map};
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    for (int i = 0; i < 4; i++) {
        struct far *far = shared_zeroed(sizeof *far);
        yoke_cancel *token = token_below(NULL);
        const yoke_options options = with(token);
        yoke_job *job = NULL, *later = NULL;
        CHECK_RC(yoke_submit(pool, fns[i % 2], &far, sizeof far, 0, &options, &job), 0);
        CHECK_RC(yoke_submit(pool, fns[i % 2], &far, sizeof far, 0, &options, &later), 0);
        WAIT_FOR(count_get(&far->in) == 1);
        if (i < 2) {
            yoke_cancel_set(token);
        } else {
            CHECK_EQ(yoke_job_cancel(later, 0), 0);
            CHECK_EQ(yoke_job_cancel(job, 0), 0);
        }
        yoke_outcome outcome = end_job(later);
        CHECK_EQ(outcome.kind, YOKE_CANCELLED);
        CHECK_EQ(outcome.attempts, 0);
        outcome = end_job(job);
        CHECK_EQ(outcome.kind, YOKE_CANCELLED);
        CHECK_EQ(outcome.attempts, 1);
        CHECK_EQ(count_get(&far->in), 1);
        CHECK_EQ(count_get(&far->told), 1);
        CHECK_RC((int)far->rc, -ECANCELED);
        yoke_cancel_release(token);
        yoke_shared_free(far);
    }
    CHECK_EQ(stats_of(pool).died, 0); /* told, not killed */
    check_pool_works(pool);
    end_pool(pool);
}

static int make_a_token(yoke_task *task, const void *in, void *out)
{
    yoke_cancel *token = NULL;
    (void)task;
    (void)in;
    (void)out;
    return yoke_cancel_create(NULL, &token) == YOKE_ENESTED ? 0 : 1;
}

static void a_process_worker_has_no_tokens(void)
{
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, make_a_token, NULL, 0, 0, NULL, &job), 0);
    CHECK_EQ(end_job(job).kind, YOKE_OK);
    end_pool(pool);
}

/* The caller waits for room, and what it has to hand in is cancelled meanwhile. */
struct waits_for_room {
    struct stuck *it;
    yoke_cancel *token;
    atomic_long in;
    int64_t asked_ns, told_ns;
    int rc, kind;
};

static int submit_to_full(void *arg)
{
    struct waits_for_room *it = arg;
    const yoke_options options = with(it->token);
    yoke_job *job = NULL;
    count_up(&it->in, 1);
    it->asked_ns = yoke_now_ns();
    it->rc = yoke_submit(it->it->full, nothing, NULL, 0, 0, &options, &job);
    it->told_ns = yoke_now_ns();
    it->kind = it->rc == 0 ? end_job(job).kind : -1;
    return 0;
}

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Only who is no task waits for room. At once, and not when the waiter looks up for itself, 50 ms
 * after it went to sleep; a few of many, since the machine may be busy. */
static void a_cancelled_job_needs_no_room(void)
{
    enum { TIMES = 16 };
    int64_t late[TIMES];
    struct stuck it;
    yoke_job *first_full = NULL;
    yoke_thread *thread = NULL;
    if (!check_has_kind(YOKE_THREADS))
        return;
    stuck_begin(&it, &first_full);
    for (int round = 0; round < TIMES; round++) {
        struct waits_for_room waits = {.it = &it, .token = token_below(NULL)};
        CHECK_RC(yoke_thread_start(NULL, submit_to_full, &waits, &thread), 0);
        WAIT_FOR(count_get(&waits.in) == 1);
        for (int i = 0; i < 5; i++)
            breathe();
        yoke_cancel_set(waits.token);
        CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
        late[round] = waits.told_ns - waits.asked_ns;
        CHECK_RC(waits.rc, 0);
        CHECK_EQ(waits.kind, YOKE_CANCELLED);
        yoke_thread_release(thread);
        yoke_cancel_release(waits.token);
    }
    qsort(late, TIMES, sizeof *late, by_size);
    CHECK(late[TIMES / 4] < 45 * 1000 * 1000);
    stuck_end(&it, first_full);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(every_call_that_waits_ends);
    RUN(calls_it_comes_to_end_at_once);
    RUN(a_cancelled_job_needs_no_room);
    RUN(tasks_in_processes_are_told);
    RUN(a_process_worker_has_no_tokens);
    return 0;
}
