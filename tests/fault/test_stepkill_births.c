/* SPDX-License-Identifier: MIT
 * test_stepkill_births.c - new workers, killed after every instruction until they are ready.
 *
 * Idea: we hold the template while it makes a worker, and so have the newborn from its first
 * instruction on. Wherever it dies, the pool makes another, loses no task and no block; and
 * wherever it is when the last worker dies, it takes that one's place once it is ready. Here the
 * marks are only the way: what is judged is the pool.
 */
/* timeout: 200 */
#define CHECK_TIMEOUT 120
#include "stepkill.h"

enum what { NEWBORN_DIES, NEWBORN_STEPS_IN };

struct births {
    int template;
    atomic_long *starts;
};

static int run_task(yoke_task *task, const void *in, void *out)
{
    (void)task;
    count_up(*(atomic_long *const *)in, 1);
    *(int64_t *)out = 42;
    return 0;
}

static yoke_job *submit(struct stepkill *s)
{
    struct births *b = s->state;
    yoke_job *job = NULL;
    s->begun++;
    count_set(b->starts, 0);
    CHECK_RC(yoke_submit(s->pool, run_task, &b->starts, sizeof b->starts, 8, NULL, &job), 0);
    return job;
}

static void must_end_well(struct stepkill *s, yoke_job *job)
{
    struct births *b = s->state;
    yoke_outcome outcome;
    const void *out = NULL;
    MUST(yoke_wait(job, yoke_in_ms(STEPKILL_END_MS)) == 0, "I9 a job ends, in time");
    stepkill_ended(s);
    CHECK_RC(yoke_job_result(job, &outcome, &out, NULL), 0);
    s->over++;
    s->doubled += count_get(b->starts) > 1;
    MUST(outcome.kind == YOKE_OK && outcome.attempts == 1,
         "I2 a job that nobody began is not lost");
    MUST(out && *(const int64_t *)out == 42, "I3 the result is complete");
    MUST(count_get(b->starts) == 1, "I1 it ran once");
    yoke_job_release(job);
}

static void kill_the_worker(struct stepkill *s)
{
    int pid;
    CHECK_EQ(yoke_pool_worker_ids(s->pool, &pid, 1), 1);
    CHECK_EQ(signal_child(pid, SIGKILL), 1);
    s->kills++;
}

/* A worker dies, the spare steps in; the new spare is ours. */
static void catch_newborn(struct stepkill *s)
{
    struct births *b = s->state;
    int status = 0;
    unsigned long newborn = 0;
    const unsigned long options =
        PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
    CHECK_EQ(ptrace(PTRACE_SEIZE, b->template, NULL, options), 0);
    kill_the_worker(s);
    CHECK_EQ(waitpid(b->template, &status, __WALL), b->template);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && status >> 16 != 0);
    CHECK_EQ(ptrace(PTRACE_GETEVENTMSG, b->template, NULL, &newborn), 0);
    s->pid = (int)newborn;
    stepkill_stop(s, SIGTRAP);
    stepkill_rip(s);
    CHECK_EQ(ptrace(PTRACE_DETACH, b->template, NULL, NULL), 0);
}

static int birth(struct stepkill *s, size_t wanted, enum what what)
{
    s->killed = 0;
    s->steps = 0;
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    s->blocks = count_blocks();
    catch_newborn(s);
    const int reached = stepkill_go(s, wanted, (uintptr_t)yk_futex_wait);
    yoke_pool_stats stats = {.size = sizeof stats};
    WAIT_FOR(yoke_pool_stats_get(s->pool, &stats) == 0 && stats.workers == 1 && stats.spares == 1);
    s->killed_ns = yoke_now_ns();
    s->killed = 1;
    s->points++;
    if (what == NEWBORN_DIES) {
        stepkill_end_worker(s);
        must_end_well(s, submit(s));
    } else {
        kill_the_worker(s);
        yoke_job *job = submit(s);
        CHECK_EQ(ptrace(PTRACE_DETACH, s->pid, NULL, NULL), 0);
        must_end_well(s, job);
    }
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    MUST(count_blocks() == s->blocks, "I6 no block of the heap is lost");
    return reached;
}

static int find_template(void)
{
    int pid = 0;
    /* A copy that was made just now has the template's name for a moment. */
    WAIT_FOR(count_descendants(getpid(), "yoke-template", 0, &pid) == 1);
    return pid;
}

static void births(const char *name, enum what what)
{
    static const struct stepkill_mark marks[] = {{NULL, 0}};
    const struct stepkill_scene scene = {.name = name, .marks = marks};
    struct births b = {.starts = shared_zeroed(sizeof *b.starts)};
    struct stepkill s = {
        .scene = &scene, .pool = make_pool(YOKE_PROCESSES, 1), .state = &b, .stride = 1};
    uint64_t random = random_seed();
    const int64_t from = yoke_now_ns();
    WAIT_FOR(stepkill_at_rest(&s, 0));
    const int fds = count_fds(), children = count_children();
    b.template = find_template();
    stepkill_now = &s;
    stepkill_path_cut(0);
    size_t wanted = (size_t)(random_next(&random) % s.stride);
    while (birth(&s, wanted, what)) {
        wanted = s.steps + s.stride;
        MUST(count_fds() == fds, "I6 no descriptor is lost");
        alarm(CHECK_TIMEOUT);
    }
    MUST(count_fds() == fds, "I6 no descriptor is lost");
    MUST(count_children() == children, "I6 no process is left");
    stepkill_heap_is_whole();
    check_pool_works(s.pool);
    stepkill_report(&s, from);
    end_pool(s.pool);
    yoke_shared_free(b.starts);
}

static void a_newborn_dies(void)
{
    births("a newborn dies", NEWBORN_DIES);
}

static void a_newborn_steps_in(void)
{
    births("a newborn steps in for a dead worker", NEWBORN_STEPS_IN);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    end_pool(make_pool(YOKE_PROCESSES, 1));
    const struct usage before = usage_now();
    RUN(a_newborn_dies);
    RUN(a_newborn_steps_in);
    usage_check(before, 20);
    stepkill_summary();
    return 0;
}
