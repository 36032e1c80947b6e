/* SPDX-License-Identifier: MIT
 * test_stepkill_births.c - new workers, killed after every instruction until they are ready.
 *
 * Idea: we hold the template while it makes a worker, and so have the newborn from its first
 * instruction on. Wherever it dies, the pool makes another, loses no task and no block; and
 * wherever it is when the last worker dies, it takes that one's place once it is ready. The
 * template itself is killed while it makes a worker, and while it settles; a spare while it takes
 * a dead worker's place. Here the marks are only the way: what is judged is the pool.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 120
#include <pthread.h>

#include "stepkill.h"

enum what { NEWBORN_DIES, NEWBORN_STEPS_IN, TEMPLATE_DIES, TEMPLATE_SETTLES, SPARE_STEPS_IN };

struct births {
    int template;
    atomic_long *starts;
    atomic_long *stopped; /* a new image's pid; it stopped itself as soon as it was there */
};

/* Read by forked children: the next one is to stop itself. */
static atomic_long *stopped_at;
static atomic_long armed;

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

/* A template that died after it had made the copy is missed with the next death. */
static int find_template(struct stepkill *s)
{
    for (const int64_t until = soon();;) {
        int pid = 0;
        WAIT_FOR(stepkill_at_rest(s, s->kills));
        /* A copy that was made just now has the template's name for a moment. */
        const int count = count_descendants(getpid(), "yoke-template", 0, &pid);
        if (count == 1)
            return pid;
        if (count == 0)
            kill_the_worker(s);
        CHECK(yoke_now_ns() < until);
    }
}

/* In each forked child, on the keeper's copy. */
static void stop_if_armed(void)
{
    if (count_get(&armed)) {
        count_set(stopped_at, getpid());
        raise(SIGSTOP);
    }
}

static struct yk_template_ctl *template_ctl(struct stepkill *s)
{
    struct yk_template *template = s->pool->template;
    return *(struct yk_template_ctl *volatile *)&template->ctl;
}

/* The first word of what the two share: the number of the last request. */
static uint32_t last_request(struct stepkill *s)
{
    struct yk_template_ctl *const ctl = template_ctl(s);
    return ctl ? atomic_load_explicit((_Atomic uint32_t *)ctl, memory_order_seq_cst) : 0;
}

/* The template and a worker die, the keeper makes another image; that one is ours. */
static void catch_image(struct stepkill *s)
{
    struct births *b = s->state;
    const struct yk_template_ctl *const before = template_ctl(s);
    count_set(b->stopped, 0);
    count_set(&armed, 1);
    CHECK_EQ(signal_child(b->template, SIGKILL), 1);
    kill_the_worker(s);
    WAIT_FOR(count_get(b->stopped) != 0);
    count_set(&armed, 0);
    /* It is asked for a worker by now, and goes on to that without a sleep. */
    WAIT_FOR(template_ctl(s) != before && last_request(s) == 1);
    s->pid = (int)count_get(b->stopped);
    CHECK_EQ(ptrace(PTRACE_SEIZE, s->pid, NULL, PTRACE_O_EXITKILL), 0);
    stepkill_stop(s, SIGSTOP);
    stepkill_rip(s);
}

static void interrupt(struct stepkill *s, int pid)
{
    s->pid = pid;
    CHECK_EQ(ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_EXITKILL), 0);
    CHECK_EQ(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
    stepkill_stop(s, 0);
    stepkill_rip(s);
}

/* The template, as it is asked for a worker. */
static void catch_template(struct stepkill *s)
{
    struct births *b = s->state;
    const uint32_t before = last_request(s);
    interrupt(s, b->template);
    kill_the_worker(s);
    WAIT_FOR(last_request(s) != before);
}

/* The spare, as it is told to take the place of the worker that died. */
static void catch_spare(struct stepkill *s)
{
    int pid = 0;
    for (uint32_t i = 0; i < s->pool->table.line_count; i++) {
        if (s->pool->members[i].alive && !s->pool->members[i].active)
            pid = s->pool->members[i].pid;
    }
    interrupt(s, pid);
    kill_the_worker(s);
    WAIT_FOR(yoke_pool_worker_ids(s->pool, &pid, 1) == 1 && pid == s->pid);
}

static void catch (struct stepkill *s, enum what what)
{
    if (what == TEMPLATE_DIES)
        catch_template(s);
    else if (what == TEMPLATE_SETTLES)
        catch_image(s);
    else if (what == SPARE_STEPS_IN)
        catch_spare(s);
    else
        catch_newborn(s);
}

static int is_whole(struct stepkill *s)
{
    const yoke_pool_stats stats = stats_of(s->pool);
    return stats.workers == 1 && stats.spares == 1;
}

/* It is at the point: the end of it, or of the worker that it is to replace. */
static void strike(struct stepkill *s, enum what what, yoke_job *job)
{
    s->killed_ns = yoke_now_ns();
    s->killed = 1;
    s->points++;
    if (what == NEWBORN_STEPS_IN) {
        WAIT_FOR(is_whole(s));
        kill_the_worker(s);
        job = submit(s);
        CHECK_EQ(ptrace(PTRACE_DETACH, s->pid, NULL, NULL), 0);
    } else if (what == NEWBORN_DIES || what == SPARE_STEPS_IN) {
        WAIT_FOR(what == SPARE_STEPS_IN || is_whole(s));
        stepkill_end_worker(s);
    } else {
        CHECK_EQ(signal_child(s->pid, SIGKILL), 1);
        WAIT_FOR(process_is_gone(s->pid));
    }
    must_end_well(s, job ? job : submit(s));
}

static uintptr_t end_of(enum what what)
{
    if (what == SPARE_STEPS_IN)
        return (uintptr_t)yk_worker_run;
    return what == TEMPLATE_SETTLES ? (uintptr_t)yk_clone_quiet : (uintptr_t)yk_futex_wait;
}

static int birth(struct stepkill *s, size_t wanted, enum what what)
{
    struct births *b = s->state;
    const int spare = what == SPARE_STEPS_IN;
    s->killed = 0;
    s->steps = 0;
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    if (what == TEMPLATE_DIES || what == TEMPLATE_SETTLES)
        b->template = find_template(s);
    s->blocks = count_blocks();
    catch (s, what);
    yoke_job *job = spare ? submit(s) : NULL;
    const int reached = stepkill_go(s, wanted, end_of(what));
    if (reached || !spare)
        strike(s, what, job);
    else {
        CHECK_EQ(ptrace(PTRACE_DETACH, s->pid, NULL, NULL), 0);
        must_end_well(s, job);
    }
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    MUST(count_blocks() == s->blocks, "I6 no block of the heap is lost");
    return reached;
}

static void births(const char *name, enum what what, unsigned stride)
{
    static const struct stepkill_mark marks[] = {{NULL, 0}};
    const struct stepkill_scene scene = {.name = name, .marks = marks};
    struct births b = {.starts = shared_zeroed(sizeof *b.starts), .stopped = stopped_at};
    struct stepkill s = {.scene = &scene,
                         .pool = make_pool(YOKE_PROCESSES, 1),
                         .state = &b,
                         .step_only = what == TEMPLATE_DIES,
                         .stride = stepkill_stride(stride)};
    uint64_t random = random_seed();
    const int64_t from = yoke_now_ns();
    WAIT_FOR(stepkill_at_rest(&s, 0));
    const int fds = count_fds(), children = count_children();
    b.template = find_template(&s);
    stepkill_now = &s;
    stepkill_path_cut(0);
    size_t wanted = (size_t)(random_next(&random) % s.stride);
    while (birth(&s, wanted, what)) {
        wanted = stepkill_next(&s, wanted, s.stride);
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
    births("a newborn dies", NEWBORN_DIES, 3);
}

static void a_newborn_steps_in(void)
{
    births("a newborn steps in for a dead worker", NEWBORN_STEPS_IN, 3);
}

static void a_spare_steps_in(void)
{
    births("a spare steps in for a dead worker", SPARE_STEPS_IN, 1);
}

static void the_template_dies(void)
{
    births("the template dies as it makes a worker", TEMPLATE_DIES, 5);
}

static void the_template_settles(void)
{
    births("the template dies as it settles", TEMPLATE_SETTLES, 53);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    end_pool(make_pool(YOKE_PROCESSES, 1));
    stopped_at = shared_zeroed(sizeof *stopped_at);
    CHECK_EQ(pthread_atfork(NULL, NULL, stop_if_armed), 0);
    const struct usage before = usage_now();
    RUN(a_newborn_dies);
    RUN(a_newborn_steps_in);
    RUN(a_spare_steps_in);
    RUN(the_template_dies);
    RUN(the_template_settles);
    usage_check(before, 20);
    stepkill_summary();
    return 0;
}
