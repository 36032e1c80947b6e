/* SPDX-License-Identifier: MIT
 * test_control.c - a task that must end is asked first, and its worker may live on.
 *
 * Idea: the worker has a handler that jumps out of the task, as a runtime would. It counts who was
 * hit: only a task that was meant to be stopped may be, however close the next one follows.
 */
/* timeout: 120 */
#include "check.h"
#include "pool/worker.h"
#include <pthread.h>
#include <setjmp.h>

struct it {
    atomic_long begun, go, interrupts, terminates, strays, wrong, ended, pid;
    _Atomic(struct yk_line *) line;
};

enum { VICTIM = 1, INNOCENT };

static const int64_t ms = INT64_C(1000) * 1000;
static struct it *it;
static sigjmp_buf out_of_task;
static volatile sig_atomic_t running; /* VICTIM, INNOCENT, or 0: no task of ours */

static void on_signal(int sig)
{
    count_up(sig == SIGINT ? &it->interrupts : &it->terminates, 1);
    if (running == 0) {
        count_up(&it->strays, 1);
        return;
    }
    if (running == INNOCENT) {
        count_up(&it->wrong, 1);
    }
    siglongjmp(out_of_task, sig);
}

/* Without SA_RESTART or not makes no difference here: the handler does not return into a wait. */
static int listen(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    (void)set_action(SIGINT, on_signal);
    (void)set_action(SIGTERM, on_signal);
    return 0;
}

static int listen_to_terminate(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    (void)set_action(SIGTERM, on_signal);
    return 0;
}

static int run_as(sig_atomic_t who, void (*body)(void))
{
    const int sig = sigsetjmp(out_of_task, 1);
    if (sig == 0) {
        running = who;
        body();
    }
    running = 0;
    count_up(&it->ended, sig == 0);
    return sig;
}

static void never_end(void)
{
    count_set(&it->pid, getpid());
    count_up(&it->begun, 1);
    for (;;)
        breathe();
}

static int victim(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return run_as(VICTIM, never_end);
}

static int tell_pid(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    *(int64_t *)out = getpid();
    return 0;
}

static yoke_pool *make(yoke_pool_config config)
{
    config.kind = YOKE_PROCESSES;
    return make_pool_of(config);
}

static yoke_job *submit(yoke_pool *pool, yoke_fn *fn, int64_t timeout_ns)
{
    const yoke_options options = {.size = sizeof options, .timeout_ns = timeout_ns};
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, fn, NULL, 0, 8, &options, &job), 0);
    return job;
}

static int only_worker(yoke_pool *pool)
{
    int pid = -1;
    WAIT_FOR(yoke_pool_worker_ids(pool, &pid, 1) == 1);
    return pid;
}

static void a_handler_saves_the_worker(void)
{
    for (int how = 0; how < 4; how++) {
        const int terminate = how & 1, timeout = how & 2;
        memset(it, 0, sizeof *it);
        yoke_pool *pool = make((yoke_pool_config){
            .workers = 1,
            .worker_init = terminate ? listen_to_terminate : listen,
            .interrupt_grace_ns = terminate ? ms : 60000 * ms,
            .terminate_grace_ns = 60000 * ms,
        });
        const int pid = only_worker(pool);
        for (int round = 1; round <= 5; round++) {
            yoke_job *job = submit(pool, victim, timeout ? 20 * ms : 0);
            yoke_job *next = submit(pool, tell_pid, 0);
            WAIT_FOR(count_get(&it->begun) == round);
            if (!timeout)
                CHECK_EQ(yoke_job_cancel(job, 1), 0);
            const yoke_outcome outcome = end_job(job);
            CHECK_EQ(outcome.kind, timeout ? YOKE_TIMEDOUT : YOKE_CANCELLED);
            CHECK_EQ(outcome.attempts, 1);
            const void *out = NULL;
            CHECK_RC(yoke_wait(next, soon()), 0);
            CHECK_RC(yoke_job_result(next, NULL, &out, NULL), 0);
            CHECK_EQ(*(const int64_t *)out, pid);
            yoke_job_release(next);
        }
        CHECK_EQ(count_get(terminate ? &it->terminates : &it->interrupts), 5);
        CHECK_EQ(count_get(terminate ? &it->interrupts : &it->terminates), 0);
        CHECK_EQ(count_get(&it->strays), 0);
        CHECK_EQ(count_get(&it->ended), 0);
        check_pool_works(pool);
        CHECK_EQ(stats_of(pool).died, 0);
        CHECK_EQ(only_worker(pool), pid);
        end_pool(pool);
    }
}

static int deaf(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    never_end();
    return 0;
}

static int ignore_terminate(unsigned worker, void *user)
{
    (void)worker;
    (void)user;
    (void)set_action(SIGTERM, SIG_IGN);
    return 0;
}

/* A plain task ignores SIGINT, as all workers do, and SIGTERM ends it; or nothing does but SIGKILL.
 */
static void who_does_not_listen_is_killed_in_the_end(void)
{
    for (int stubborn = 0; stubborn <= 1; stubborn++) {
        memset(it, 0, sizeof *it);
        yoke_pool *pool = make((yoke_pool_config){
            .workers = 1,
            .worker_init = stubborn ? ignore_terminate : NULL,
            .interrupt_grace_ns = 30 * ms,
            .terminate_grace_ns = 40 * ms,
        });
        yoke_job *job = submit(pool, deaf, 0);
        WAIT_FOR(count_get(&it->begun) == 1);
        const int64_t begin = yoke_now_ns();
        CHECK_EQ(yoke_job_cancel(job, 1), 0);
        CHECK_EQ(yoke_job_cancel(job, 1), 0); /* once more changes nothing */
        CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
        CHECK(yoke_now_ns() - begin >= (stubborn ? 70 : 30) * ms);
        check_pool_works(pool);
        CHECK_EQ(count_get(&it->begun), 1);
        WAIT_FOR(stats_of(pool).died == 1);
        end_pool(pool);
    }
}

static int stuck_some(yoke_task *task, const void *in, void *out)
{
    const size_t i = yoke_task_item(task);
    *(int64_t *)out = *(const int64_t *)in + 1;
    return i == 13 || i == 14 || i == 170 ? run_as(VICTIM, never_end) : 0;
}

static int stuck_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)accumulator;
    return begin <= 40 && 40 < end ? victim(task, NULL, NULL) : 0;
}

static void items_and_ranges_end_alone_too(void)
{
    enum { N = 200 };
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make(
        (yoke_pool_config){.workers = 2, .worker_init = listen, .interrupt_grace_ns = 60000 * ms});
    int64_t in[N], out[N];
    yoke_outcome outcomes[N], failure = {0};
    for (int i = 0; i < N; i++)
        in[i] = i;
    yoke_options options = {.size = sizeof options,
                            .timeout_ns = 100 * ms * check_slowness(),
                            .outcomes = outcomes,
                            .failure = &failure};
    CHECK_RC(yoke_map(pool, stuck_some, in, 8, out, 8, N, &options), YOKE_ETASK);
    for (int i = 0; i < N; i++) {
        const int stuck = i == 13 || i == 14 || i == 170;
        CHECK_EQ(outcomes[i].kind, stuck ? YOKE_TIMEDOUT : YOKE_OK);
        CHECK_EQ(outcomes[i].attempts, 1);
        CHECK(stuck || out[i] == i + 1);
    }
    CHECK_EQ(failure.item, 13);
    CHECK_EQ(count_get(&it->interrupts), 3);
    options.outcomes = NULL;
    CHECK_RC(yoke_for(pool, stuck_range, 100, &options), YOKE_ETASK);
    CHECK_EQ(failure.kind, YOKE_TIMEDOUT);
    CHECK(failure.item <= 40);
    check_pool_works(pool);
    CHECK_EQ(count_get(&it->strays) + count_get(&it->ended), 0);
    CHECK_EQ(stats_of(pool).died, 0);
    end_pool(pool);
}

/* A result that was made, and a task that ends by asking: both go the same way. */
static int make_a_result(yoke_task *task, const void *in, void *out)
{
    (void)in;
    (void)out;
    CHECK(yoke_task_result(task, 100000) != NULL);
    count_up(&it->begun, 1);
    while (!yoke_task_cancelled(task))
        breathe();
    return 0;
}

static void what_it_had_made_is_given_back(void)
{
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make(
        (yoke_pool_config){.workers = 1, .terminate_grace_ns = 60000 * ms, .worker_init = listen});
    const size_t blocks = count_blocks();
    for (int round = 1; round <= 20; round++) {
        yoke_job *job = submit(pool, make_a_result, 0);
        WAIT_FOR(count_get(&it->begun) == round);
        CHECK_EQ(yoke_job_cancel(job, 1), 0);
        CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
    }
    CHECK_EQ(count_blocks(), blocks);
    end_pool(pool);
}

static void a_stopped_worker_is_woken_to_hear_it(void)
{
    memset(it, 0, sizeof *it);
    yoke_pool *pool = make(
        (yoke_pool_config){.workers = 1, .worker_init = listen, .terminate_grace_ns = 60000 * ms});
    const int pid = only_worker(pool);
    struct proc_info info;
    yoke_job *job = submit(pool, victim, 0);
    WAIT_FOR(count_get(&it->begun) == 1);
    CHECK_EQ(signal_child(pid, SIGSTOP), 1);
    WAIT_FOR(proc_read(pid, &info) && info.state == 'T');
    CHECK_EQ(yoke_job_cancel(job, 1), 0);
    CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
    check_pool_works(pool);
    CHECK_EQ(stats_of(pool).died, 0);
    end_pool(pool);
}

/* --- stopped just where it waits to be let go ------------------------------------------------ */

static void *stop_in_the_wait(void *arg)
{
    struct yk_line *const line = arg;
    while (atomic_load_explicit(&line->hand, memory_order_acquire) == YK_HAND_FREE) {
        if (count_get(&it->go)) {
            count_up(&it->ended, 1); /* it came and went, and we did not see it */
            return NULL;
        }
        sched_yield();
    }
    raise(SIGSTOP);          /* this very thread, so it stands still here */
    count_up(&it->ended, 1); /* the pool's own SIGCONT came later */
    return NULL;
}

static int to_be_stopped(yoke_task *task, const void *in, void *out)
{
    pthread_t thread;
    (void)in;
    (void)out;
    atomic_store_explicit(&it->line, task->worker->line, memory_order_release);
    CHECK_EQ(pthread_create(&thread, NULL, stop_in_the_wait, task->worker->line), 0);
    return make_a_result(task, in, out);
}

static int is_stopped_or_gone(int pid)
{
    struct proc_info info;
    return process_is_gone(pid) || (proc_read(pid, &info) && info.state == 'T');
}

/* True if the worker was stopped while it waited. */
static int stop_while_it_waits(yoke_pool *pool)
{
    const int pid = only_worker(pool);
    memset(it, 0, sizeof *it);
    yoke_job *job = submit(pool, to_be_stopped, 0);
    WAIT_FOR(count_get(&it->begun) == 1);
    CHECK_EQ(yoke_job_cancel(job, 1), 0);
    CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
    const int64_t until = yoke_in_ms(300);
    while (!is_stopped_or_gone(pid) && yoke_now_ns() < until)
        breathe();
    count_set(&it->go, 1);
    WAIT_FOR(is_stopped_or_gone(pid) || count_get(&it->ended) == 1);
    if (process_is_gone(pid) || count_get(&it->ended) == 1)
        return process_is_gone(pid);
    struct yk_line *line = atomic_load_explicit(&it->line, memory_order_acquire);
    if (atomic_load_explicit(&line->hand, memory_order_acquire) == YK_HAND_FREE) {
        CHECK_EQ(signal_child(pid, SIGCONT), 1); /* it went before it was stopped */
        return 0;
    }
    WAIT_FOR(process_is_gone(pid));
    return 1;
}

static void a_worker_that_does_not_go_is_killed(void)
{
    yoke_pool *pool = make(
        (yoke_pool_config){.workers = 1, .worker_init = listen, .terminate_grace_ns = 60000 * ms});
    int stopped = 0;
    for (int tries = 1; tries <= 100 && !stopped; tries++) {
        stopped = stop_while_it_waits(pool);
        check_pool_works(pool);
    }
    CHECK(stopped);
    end_pool(pool);
}

/* --- a word that says what no honest worker would -------------------------------------------- */

static int name_another(yoke_task *task, const void *in, void *out)
{
    struct yk_slot *const slot = task->slot;
    const struct yk_table *const table = task->worker->table;
    const int64_t phase = *(const int64_t *)in;
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
    uint32_t other = 0;
    (void)out;
    for (uint32_t i = 0; i < table->line_count; i++)
        if (&table->lines[i] != task->worker->line)
            other = table->lines[i].owner;
    count_up(&it->begun, 1);
    while (yk_word_phase(word) != YK_DOOMED)
        word = atomic_load_explicit(&slot->word, memory_order_acquire);
    word = yk_word(yk_word_ticket(word), other, (enum yk_phase)phase);
    atomic_store_explicit(&slot->word, word, memory_order_release);
    never_end();
    return 0;
}

static void a_word_that_names_another_is_not_believed(void)
{
    static const int64_t phases[] = {YK_GIVEN, YK_DOOMED};
    for (int i = 0; i < 2; i++) {
        yoke_pool *pool = make((yoke_pool_config){
            .workers = 2, .interrupt_grace_ns = 20 * ms, .terminate_grace_ns = 20 * ms});
        memset(it, 0, sizeof *it);
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(pool, name_another, &phases[i], 8, 0, NULL, &job), 0);
        WAIT_FOR(count_get(&it->begun) == 1);
        CHECK_EQ(yoke_job_cancel(job, 1), 0);
        CHECK_EQ(end_job(job).kind, YOKE_CANCELLED);
        check_pool_works(pool);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("no process pools here");
    check_kind = YOKE_PROCESSES;
    it = shared_zeroed(sizeof *it);
    RUN(a_handler_saves_the_worker);
    RUN(who_does_not_listen_is_killed_in_the_end);
    RUN(items_and_ranges_end_alone_too);
    RUN(what_it_had_made_is_given_back);
    RUN(a_stopped_worker_is_woken_to_hear_it);
    RUN(a_worker_that_does_not_go_is_killed);
    RUN(a_word_that_names_another_is_not_believed);
    return 0;
}
