/* SPDX-License-Identifier: MIT
 * test_stepkill_ends.c - workers on their way out, and single processes, killed at every step.
 *
 * Idea: a worker that was told to end, or ends by itself after tasks_max tasks, dies on the way;
 * the pool must end, or go on, as if it had come to its end. A single process is ours from the
 * first instruction it runs: wherever it dies, its end is told, once, and truly: the signal; or,
 * where the program takes the status away, the code if the function had returned it.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 120
#include <pthread.h>

#include "stepkill_calls.h"

/* ---- told to end ---------------------------------------------------------------------------- */

struct leaving {
    yoke_pool *pool;
    int rc;
};

static void *leave(void *arg)
{
    struct leaving *l = arg;
    l->rc = yoke_pool_destroy(l->pool, soon());
    return NULL;
}

static int is_told(const yoke_pool *pool, int pid)
{
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        if (pool->members[i].pid == pid)
            return yk_line_state_of(&pool->table.lines[i]) == YK_LINE_STOP;
    }
    return 0;
}

/* A pool for each point. */
static int leave_point(struct stepkill *s, size_t wanted)
{
    struct leaving l = {.pool = make_pool(YOKE_PROCESSES, 1), .rc = 1};
    pthread_t thread;
    s->pool = l.pool;
    s->killed = 0;
    s->steps = 0;
    s->kills = 0;
    stepkill_seize(s);
    s->begun++;
    CHECK_EQ(pthread_create(&thread, NULL, leave, &l), 0);
    WAIT_FOR(is_told(l.pool, s->pid));
    const int reached = stepkill_go(s, wanted, (uintptr_t)yk_process_exit);
    s->points++;
    stepkill_end_worker(s);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    stepkill_ended(s);
    MUST(l.rc == 0, "I9 a pool without work ends, whatever its workers do");
    s->over++;
    return reached;
}

static void told_to_end(void)
{
    static const struct stepkill_mark marks[] = {{NULL, 0}};
    const struct stepkill_scene scene = {.name = "a worker that was told to end", .marks = marks};
    struct stepkill s = {.scene = &scene, .stride = 1};
    const int64_t from = yoke_now_ns();
    const struct usage before = usage_now();
    size_t wanted = 0;
    stepkill_now = &s;
    stepkill_path_cut(0);
    while (leave_point(&s, wanted)) {
        wanted = stepkill_next(&s, wanted, 1);
        alarm(CHECK_TIMEOUT);
        usage_check(before, 20);
    }
    stepkill_heap_is_whole();
    stepkill_report(&s, from);
}

/* ---- ends by itself ------------------------------------------------------------------------- */

static unsigned long workers_started(const struct stepkill *s)
{
    const yoke_pool_stats stats = stats_of(s->pool);
    return (unsigned long)stats.started;
}

/* One went, or two: the dead one, and who ran its task after it. Each is replaced. */
static void judge_retired(struct stepkill *s)
{
    static unsigned long started;
    const unsigned long crashed = s->crashed;
    started = started ? started : 2;
    judge(s);
    started += 1 + (s->killed && s->mark < 2 && s->crashed == crashed);
    WAIT_FOR(workers_started(s) == started);
}

static void retires(void)
{
    const struct stepkill_mark marks[] = {STEPKILL_MARK(yk_worker_run),
                                          STEPKILL_MARK(yk_table_complete),
                                          STEPKILL_MARK(yk_process_exit),
                                          {NULL, 0}};
    const struct call call = {.fn = run_inline, .in_bytes = 8, .out_bytes = YK_INLINE_OUT_MAX};
    const struct stepkill_scene scene = {.name = "a worker that retires",
                                         .marks = marks,
                                         .begin = begin,
                                         .judge = judge_retired,
                                         .detail = &call};
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .workers = 1, .tasks_max = 1};
    struct calls calls = {.tally = shared_zeroed(sizeof(struct tally))};
    struct stepkill s = {.scene = &scene, .stride = 1, .state = &calls};
    CHECK_RC(yoke_pool_create(&config, &s.pool), 0);
    stepkill_scene_run(&s);
    end_pool(s.pool);
    yoke_shared_free(calls.tally);
}

/* ---- single processes ----------------------------------------------------------------------- */

enum { CODE = 7, BLOCK = 70000 };

struct life {
    atomic_long stopped; /* its pid, when it has stopped itself */
    atomic_long starts, ends;
    void *_Atomic block;
};

static struct life *life;
static atomic_long armed; /* the next copy is to stop itself */

static void stop_if_armed(void)
{
    if (count_get(&armed)) {
        count_set(&life->stopped, getpid());
        raise(SIGSTOP);
    }
}

static int live(void *arg)
{
    struct life *l = arg;
    count_up(&l->starts, 1);
    void *block = yoke_shared_alloc(BLOCK);
    memset(block, 7, BLOCK);
    atomic_store_explicit(&l->block, block, memory_order_seq_cst);
    count_up(&l->ends, 1);
    return CODE;
}

static yoke_process *catch_process(struct stepkill *s)
{
    yoke_process *process = NULL;
    memset(life, 0, sizeof *life);
    count_set(&armed, 1);
    CHECK_RC(yoke_process_start(NULL, live, life, &process), 0);
    WAIT_FOR(count_get(&life->stopped) != 0);
    count_set(&armed, 0);
    s->pid = (int)count_get(&life->stopped);
    CHECK_EQ(s->pid, yoke_process_id(process));
    CHECK_EQ(ptrace(PTRACE_SEIZE, s->pid, NULL, PTRACE_O_EXITKILL), 0);
    stepkill_stop(s, SIGSTOP);
    stepkill_rip(s);
    return process;
}

static void judge_end(struct stepkill *s, const yoke_process_end *end, int taken)
{
    const long starts = count_get(&life->starts), ends = count_get(&life->ends);
    s->doubled += starts > 1;
    s->crashed += end->code < 0;
    MUST(starts <= 1 && ends <= starts, "I1 it ran once at most");
    if (!s->killed) {
        MUST(end->code == CODE && end->signal == 0 && ends == 1, "I3 it ended with its code");
        return;
    }
    if (!taken) {
        MUST(end->code == -1 && end->signal == SIGKILL, "I1 the signal is told");
        return;
    }
    MUST(end->signal == 0, "a status that the program took is not told");
    MUST(end->code == -1 || end->code == CODE, "a code is the function's own");
    MUST(end->code == -1 || ends == 1, "I3 a code means that the function returned");
}

static void judge_block(struct stepkill *s)
{
    void *block = atomic_load_explicit(&life->block, memory_order_seq_cst);
    size_t lost = count_blocks() - s->blocks;
    if (block) {
        MUST(lost == 1, "I6 a block that was handed out stays in use");
        MUST(yk_heap_free(block), "I6 the program can give it back");
        lost = 0;
    }
    MUST(lost <= (size_t)s->killed, "I6 a process loses what it held itself, no more");
    s->blocks_lost += lost;
    if (lost)
        find_lost(BLOCK);
    MUST(count_blocks() == s->blocks, "I6 no block of the heap is lost");
    stepkill_heap_is_whole();
}

/* `taken`: the program itself waits for its children, before Yoke can look. */
static int life_point(struct stepkill *s, size_t wanted, int taken)
{
    yoke_process_end end = {.code = -5};
    int status = 0;
    s->killed = 0;
    s->steps = 0;
    s->blocks = count_blocks();
    s->begun++;
    yoke_process *process = catch_process(s);
    const int reached = stepkill_go(s, wanted, (uintptr_t)yk_process_exit);
    s->points++;
    s->killed = reached;
    s->killed_ns = yoke_now_ns();
    if (reached)
        CHECK_EQ(signal_child(s->pid, SIGKILL), 1);
    else if (kill(s->pid, SIGCONT) == 0) /* it had stopped itself */
        CHECK_EQ(ptrace(PTRACE_DETACH, s->pid, NULL, NULL), 0);
    if (taken)
        CHECK_EQ(waitpid(s->pid, &status, __WALL), s->pid);
    MUST(yoke_process_wait(process, soon(), &end) == 0, "I9 a process ends, in time");
    stepkill_ended(s);
    judge_end(s, &end, taken);
    s->over++;
    yoke_process_release(process);
    judge_block(s);
    return reached;
}

static void *idle(void *arg)
{
    while (!count_get(arg))
        breathe();
    return NULL;
}

static void lives(const char *name, int taken, unsigned stride)
{
    static const struct stepkill_mark marks[] = {{NULL, 0}};
    const struct stepkill_scene scene = {.name = name, .marks = marks};
    struct stepkill s = {.scene = &scene, .stride = stepkill_stride(stride)};
    atomic_long over = 0;
    pthread_t other; /* beside another thread a copy is made by fork(), and that calls us */
    CHECK_EQ(pthread_create(&other, NULL, idle, &over), 0);
    const int64_t from = yoke_now_ns();
    const struct usage before = usage_now();
    size_t wanted = 0;
    stepkill_now = &s;
    stepkill_path_cut(0);
    while (life_point(&s, wanted, taken)) {
        wanted = stepkill_next(&s, wanted, s.stride);
        alarm(CHECK_TIMEOUT);
        usage_check(before, 20);
    }
    stepkill_report(&s, from);
    count_set(&over, 1);
    CHECK_EQ(pthread_join(other, NULL), 0);
}

static void a_process(void)
{
    lives("a single process", 0, 11);
}

static void a_process_whose_status_is_taken(void)
{
    lives("a single process, its status taken", 1, 23);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    end_pool(make_pool(YOKE_PROCESSES, 1));
    life = shared_zeroed(sizeof *life);
    CHECK_EQ(pthread_atfork(NULL, NULL, stop_if_armed), 0);
    RUN(told_to_end);
    RUN(retires);
    RUN(a_process);
    RUN(a_process_whose_status_is_taken);
    stepkill_summary();
    return 0;
}
