/* SPDX-License-Identifier: MIT
 * test_doomed_parts.c - what a worker writes must not outwit the deadline of its task.
 *
 * Idea: workers that look into the library's own structures, and write there. A worker that lies
 * about when its task began is ended all the same; one whose order to work was written over works;
 * and a part that is cut short after its item was doomed leaves no signal for the next task.
 */
/* timeout: 120 */
#define CHECK_TIMEOUT 100
#include "check.h"
#include <sys/time.h>

#include "pool/worker.h"

struct it {
    atomic_long begun, told, wrong, stop;
};

static const int64_t ms = INT64_C(1000) * 1000;
static struct it *it;
static volatile sig_atomic_t innocent;

static yoke_pool *make(yoke_pool_config config)
{
    config.kind = YOKE_PROCESSES;
    return make_pool_of(config);
}

/* --- doomed, then cut short ------------------------------------------------------------------ */

static void on_signal(int sig)
{
    (void)sig;
    count_up(innocent ? &it->wrong : &it->told, 1);
}

static int listen(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    (void)set_action(SIGINT, on_signal);
    (void)set_action(SIGTERM, on_signal);
    return 0;
}

/* Ends when it is late, was told so, and its part is to be cut short. */
static int outstay(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    innocent = 0;
    /* relaxed: a request, seen sooner or later. */
    while (count_get(&it->told) == 0 ||
           atomic_load_explicit(&task->slot->cancel, memory_order_relaxed) == 0)
        breathe();
    return 0;
}

static int mind_own_business(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    innocent = 1;
    const int64_t until = yoke_now_ns() + ms;
    while (yoke_now_ns() < until) {
    }
    return 0;
}

static void on_alarm(int sig)
{
    (void)sig;
}

static int stop_when_told(void *user, size_t done, size_t count)
{
    (void)user;
    (void)done;
    (void)count;
    return count_get(&it->told) > 0;
}

static void no_signal_for_who_comes_after(void)
{
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make((yoke_pool_config){.workers = 1,
                                              .worker_init = listen,
                                              .interrupt_grace_ns = 300 * ms,
                                              .terminate_grace_ns = 60000 * ms});
    yoke_outcome failure = {.kind = -1};
    const yoke_options options = {.size = sizeof options,
                                  .timeout_ns = 20 * ms,
                                  .progress = stop_when_told,
                                  .failure = &failure};
    /* Signals make the map call progress. */
    const struct sigaction old = set_action(SIGALRM, on_alarm);
    const struct itimerval often = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    const unsigned left = alarm(0);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    const int rc = yoke_map(pool, outstay, NULL, 0, NULL, 0, 64, &options);
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK_EQ(sigaction(SIGALRM, &old, NULL), 0);
    alarm(left);
    CHECK_RC(rc, -ECANCELED);
    CHECK_EQ(failure.kind, YOKE_TIMEDOUT);
    CHECK_EQ(failure.item, 0);
    /* Twice as long as until the next signal would come. */
    const int64_t until = yoke_in_ms(600);
    while (yoke_now_ns() < until)
        CHECK_RC(yoke_map(pool, mind_own_business, NULL, 0, NULL, 0, 8, NULL), 0);
    CHECK_EQ(count_get(&it->wrong), 0);
    CHECK_EQ(count_get(&it->told), 1);
    end_pool(pool);
}

/* --- lies about the time --------------------------------------------------------------------- */

struct lie {
    uint32_t progress; /* or as it is */
    bool starts_anew;
};

/* Has begun just now, whenever one looks. */
static void lie_for_ever(yoke_task *task, const struct lie *lie, _Atomic int64_t *started_ns)
{
    for (count_up(&it->begun, 1);; breathe()) {
        if (lie->starts_anew)
            atomic_store(started_ns, yoke_now_ns());
        if (lie->progress != UINT32_MAX)
            atomic_store(&task->slot->progress, lie->progress);
    }
}

static int lie_in_a_call(yoke_task *task, const void *in, void *out)
{
    (void)out;
    lie_for_ever(task, in, &task->slot->u.record.call->started_ns);
    return 0;
}

static int lie_in_a_map(yoke_task *task, const void *in, void *out)
{
    (void)out;
    lie_for_ever(task, in, &task->slot->run.part->started_ns);
    return 0;
}

static const struct lie *told_lie; /* a worker is a copy of the program, and has it too */

static int lie_in_a_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)begin;
    (void)end;
    (void)accumulator;
    lie_for_ever(task, told_lie, &task->slot->run.part->started_ns);
    return 0;
}

static const struct lie lies[] = {{UINT32_MAX, true}, {0, false}, {0, true}, {7, true}};

static void lies_do_not_help(void)
{
    memset(it, 0, sizeof *it);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        yoke_outcome outcome = {.kind = -1};
        const yoke_options options = {
            .size = sizeof options, .timeout_ns = 10 * ms, .retries = 3, .failure = &outcome};
        told_lie = &lies[i];
        yoke_pool *pool = make_pool(YOKE_PROCESSES, 1);
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(pool, lie_in_a_call, told_lie, sizeof *told_lie, 0, &options, &job),
                 0);
        CHECK_RC(yoke_wait(job, soon()), 0);
        CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_TIMEDOUT);
        yoke_job_release(job);
        const int map =
            yoke_map(pool, lie_in_a_map, told_lie, sizeof *told_lie, NULL, 0, 1, &options);
        fprintf(stderr, "    map: %s, %d\n", yoke_strerror(map), outcome.kind);
        CHECK(map == YOKE_ETASK || map == -ECANCELED);
        CHECK_RC(yoke_for(pool, lie_in_a_range, 1, &options), YOKE_ETASK);
        CHECK_EQ(outcome.kind, YOKE_TIMEDOUT);
        check_pool_works(pool);
        end_pool(pool);
    }
    CHECK_EQ(count_get(&it->begun), 3 * sizeof lies / sizeof *lies);
}

/* --- an order that was written over ---------------------------------------------------------- */

static int forget_the_order(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    count_up(&it->begun, 1);
    while (count_get(&it->stop) == 0)
        breathe();
    return 0;
}

/* Writes into the lines of the others what they had before they were told to work. */
static int spoil_orders(yoke_task *task, const void *in, void *out)
{
    struct yk_table *const table = &task->worker->ctl->table;
    (void)in;
    (void)out;
    for (uint32_t i = 0; i < table->line_count; i++) {
        uint32_t told = YK_LINE_STARTING_ACTIVE;
        if (atomic_compare_exchange_strong(&table->lines[i].state, &told, YK_LINE_STARTING))
            count_up(&it->wrong, 1);
    }
    count_set(&it->stop, 1);
    raise(SIGKILL);
    return 0;
}

/* Two at a time. */
static int meet(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    count_up(&it->told, 1);
    while (count_get(&it->told) < 2 && !yoke_task_cancelled(task))
        breathe();
    return 0;
}

static void an_order_that_was_lost_is_given_again(void)
{
    memset(it, 0, sizeof *it);
    count_set(&it->stop, 1);
    yoke_pool *pool = make((yoke_pool_config){.workers = 2, .worker_init = forget_the_order});
    WAIT_FOR(count_get(&it->begun) == 3);
    count_set(&it->stop, 0);
    int pids[2];
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, 2), 2);
    CHECK_EQ(signal_child(pids[0], SIGKILL), 1);
    WAIT_FOR(count_get(&it->begun) == 4); /* the spare stepped in, the next one is being born */
    CHECK_EQ(signal_child(pids[1], SIGKILL), 1);
    int now[2] = {0, 0};
    /* Two workers: the spare of before, and the one that is not ready. */
    WAIT_FOR(yoke_pool_worker_ids(pool, now, 2) == 2 && now[0] != pids[1] && now[1] != pids[1]);
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, spoil_orders, NULL, 0, 0, NULL, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    yoke_job_release(job);
    CHECK_EQ(count_get(&it->wrong), 1);
    yoke_job *both[2];
    for (int i = 0; i < 2; i++)
        CHECK_RC(yoke_submit(pool, meet, NULL, 0, 0, NULL, &both[i]), 0);
    CHECK_RC(yoke_wait_all(both, 2, soon()), 0);
    yoke_job_release_all(both, 2);
    end_pool(pool);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("no process pools here");
    check_kind = YOKE_PROCESSES;
    it = shared_zeroed(sizeof *it);
    RUN(no_signal_for_who_comes_after);
    RUN(lies_do_not_help);
    RUN(an_order_that_was_lost_is_given_again);
    return 0;
}
