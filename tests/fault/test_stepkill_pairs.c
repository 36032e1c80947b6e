/* SPDX-License-Identifier: MIT
 * test_stepkill_pairs.c - two workers in turns, a few instructions each; what if they died now?
 *
 * Idea: breadth. Two workers are stepped in turns of random length through tasks that were drawn
 * by lot. After each instruction the shared heap as it is now is looked at by a copy of the
 * program that maps it anew, copied on write: there both workers count as dead, one after the
 * other, recovery runs, the tasks that are left run in the copy itself, and everything is judged.
 * The workers notice nothing, and go on. In the end, as in many turns without such looks, one of
 * them or both are really killed, and the program itself has to cope.
 */
/* timeout: 300 */
#define CHECK_TIMEOUT 120
#include <sys/mman.h>

#include "pool/job.h"
#include "stepkill_calls.h"

enum { PAIR = 2, JOBS = 5, TURN = 40, STEPS = 4000, LOST_MAX = 2 };

struct task {
    const struct call *call;
    struct calls c;
    unsigned retries;
};

struct pairs {
    struct task task[JOBS];
    size_t base; /* blocks before all this */
    int heap_fd;
    struct yk_heap_handle heap;
};

static uint64_t dice;

static unsigned roll(unsigned sides)
{
    return (unsigned)(random_next(&dice) % sides);
}

static const struct call kinds[] = {
    {.fn = run_inline, .in_bytes = 8, .out_bytes = YK_INLINE_OUT_MAX},
    {.fn = run_record, .in_bytes = RECORD_IN, .context_bytes = CONTEXT, .out_bytes = RECORD_OUT},
    {.fn = run_small_result, .in_bytes = 8, .result_bytes = SMALL},
    {.fn = run_large_result, .in_bytes = 8, .result_bytes = LARGE},
    {.fn = run_two_results, .in_bytes = 8, .result_bytes = SMALL},
    {.fn = run_three_results, .in_bytes = 8, .result_bytes = SMALL},
    {.fn = run_take_small, .in_bytes = 8, .shelf_bytes = SMALL},
    {.fn = run_own_small, .in_bytes = 8, .shelf_bytes = SMALL, .keeps = 1},
    {.fn = run_give, .in_bytes = 8, .shelf_bytes = SMALL, .gives = 1},
    {.fn = run_give, .in_bytes = 8, .shelf_bytes = HUGE, .gives = 1},
};

#define SMALL_GIVEN (&kinds[sizeof kinds / sizeof *kinds - 2])
#define HUGE_GIVEN (&kinds[sizeof kinds / sizeof *kinds - 1])

/* ---- the tasks ------------------------------------------------------------------------------ */

static void hand_in(struct stepkill *s)
{
    struct pairs *p = s->state;
    p->base = count_blocks();
    for (int i = 0; i < JOBS; i++) {
        struct task *task = &p->task[i];
        const struct stepkill_scene scene = {.detail = &kinds[roll(sizeof kinds / sizeof *kinds)]};
        task->call = scene.detail;
        /* A body that gives a block back may not be run again: by then the block may be another's. */
        struct stepkill one = {.scene = &scene,
                               .pool = s->pool,
                               .retries = task->call->gives ? 0 : roll(2),
                               .state = &task->c};
        task->retries = one.retries;
        begin(&one);
        s->begun++;
    }
}

/* As in stepkill_calls.h, but that the blocks of all are counted at the end, together. */
static void judge_task(struct stepkill *s, struct task *task, yoke_outcome *outcome)
{
    const struct call *call = task->call;
    struct stepkill_scene scene = *s->scene;
    scene.detail = call;
    struct stepkill one = *s;
    one.scene = &scene;
    one.retries = task->retries;
    one.state = &task->c;
    CHECK_RC(yoke_job_result(task->c.job, outcome, NULL, NULL), 0);
    const long starts = count_get(&task->c.tally->starts), ends = count_get(&task->c.tally->ends);
    s->over++;
    s->doubled += (unsigned long)(starts > (long)outcome->attempts);
    judge_outcome(&one, outcome, starts, ends);
    judge_result(&one, outcome);
    s->crashed += outcome->kind != YOKE_OK;
    const unsigned char *block = atomic_load_explicit(&task->c.tally->shelf, memory_order_seq_cst);
    if (call->shelf_bytes && !call->gives && block)
        MUST(is_painted(block, call->shelf_bytes), "I3 the block is whole");
    if (call->shelf_bytes && !call->gives && !call->keeps)
        MUST(outcome->kind != YOKE_OK || block, "I3 OK: it was handed out");
}

/* All have ended: everything is as it should be, and every block is somebody's. */
static void judge_all(struct stepkill *s)
{
    struct pairs *p = s->state;
    size_t open = LOST_MAX;
    for (int i = 0; i < JOBS; i++) {
        yoke_outcome outcome;
        judge_task(s, &p->task[i], &outcome);
        open += p->task[i].call == SMALL_GIVEN && outcome.kind != YOKE_OK;
    }
    for (int i = 0; i < JOBS; i++) {
        struct calls *c = &p->task[i].c;
        const struct call *call = p->task[i].call;
        yoke_job_release(c->job);
        void *block = atomic_load_explicit(&c->tally->shelf, memory_order_seq_cst);
        if (block && !call->gives)
            MUST(yk_heap_free(block), "I6 a block that was handed out is in use, once");
    }
    /* One that was not given back is the only one of its size by now. */
    for (int i = 0; i < JOBS; i++) {
        if (p->task[i].call == HUGE_GIVEN && yk_heap_block_bytes(p->task[i].c.given) >= HUGE)
            yoke_shared_free(p->task[i].c.given);
    }
    const size_t left = count_blocks() - p->base;
    MUST(left <= open, "I6 a body loses what it held itself, no more");
    stepkill_heap_is_whole();
}

/* ---- a look --------------------------------------------------------------------------------- */

/* In the copy: the tasks that nobody has begun run here. */
static void serve(yoke_pool *pool, struct yk_line *line)
{
    struct yoke_worker worker = yk_worker_of(&pool->table, line);
    for (;;) {
        uint64_t word = 0;
        struct yk_slot *slot = yk_table_claim(&pool->table, &worker.claimer, &word);
        if (!slot)
            return;
        yk_worker_run(&worker, slot, word);
    }
}

/* In the copy: that worker is dead, and another one takes its line. */
static void bury(yoke_pool *pool, int pid, uint32_t next_owner) YK_NO_LOCK_ANALYSIS
{
    const struct yk_exit_status status = {.code = -1, .signal = SIGKILL};
    for (uint32_t i = 0; i < pool->table.line_count; i++) {
        struct yk_member *member = &pool->members[i];
        struct yk_line *line = &pool->table.lines[i];
        if (!member->alive || member->pid != pid)
            continue;
        member->alive = false;
        atomic_fetch_and_explicit(&pool->ctl->sleepers[i / 64], ~(1ull << i % 64),
                                  memory_order_seq_cst);
        yk_biased_lock(&pool->lock);
        yk_pool_bury_locked(pool, member->owner, status, false, line->note);
        yk_heap_recover(member->owner);
        yk_biased_unlock(&pool->lock);
        member->owner = next_owner;
        member->pid = 0;
        member->alive = true;
        line->owner = next_owner;
        line->note = NULL;
        serve(pool, line);
    }
}

static _Noreturn void look_in_copy(struct stepkill *s, const int *pids,
                                   uint32_t owner) YK_NO_LOCK_ANALYSIS
{
    struct pairs *p = s->state;
    const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(mmap(p->heap.base, p->heap.bytes, PROT_READ | PROT_WRITE, flags, p->heap_fd, 0) ==
          p->heap.base);
    yk_heap_import(&p->heap, owner);
    s->pool->generation = yk_process_generation();
    for (int i = 0; i < JOBS; i++)
        p->task[i].c.job->generation = yk_process_generation();
    yk_biased_unlock(&s->pool->lock);
    const unsigned first = roll(PAIR);
    bury(s->pool, pids[first], owner + 1);
    bury(s->pool, pids[!first], owner + 2);
    for (int i = 0; i < JOBS; i++)
        MUST(yoke_wait(p->task[i].c.job, 0) == 0, "I1 a task ends, whoever dies");
    judge_all(s);
    _exit(0);
}

/* Nobody's: as many as there are, a worker never gets so far. */
static const uint32_t copy_owner = (1u << YK_OWNER_BITS) - 16;

static void look(struct stepkill *s, const int *pids) YK_NO_LOCK_ANALYSIS
{
    int status = 0;
    s->killed = 1;
    yk_biased_lock(&s->pool->lock);
    const int copy = fork();
    CHECK(copy >= 0);
    if (copy == 0)
        look_in_copy(s, pids, copy_owner);
    yk_biased_unlock(&s->pool->lock);
    CHECK_EQ(waitpid(copy, &status, 0), copy);
    MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0, "if both had died here, all were well");
    stepkill_sum.snapshots++;
    roll(PAIR); /* other dice for the next one */
}

/* ---- turns ---------------------------------------------------------------------------------- */

static void seize(struct stepkill *one, int pid)
{
    one->pid = pid;
    CHECK_EQ(ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_EXITKILL), 0);
    for (const int64_t until = soon();;) {
        CHECK_EQ(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
        stepkill_stop(one, 0);
        if (stepkill_sleeps(one))
            return;
        CHECK(yoke_now_ns() < until);
        CHECK_EQ(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
        breathe();
    }
}

static int all_asleep(const struct stepkill *workers, const unsigned *moved)
{
    for (int i = 0; i < PAIR; i++) {
        if (!moved[i] || workers[i].regs.rip != (uintptr_t)yk_futex_wait)
            return 0;
    }
    return 1;
}

/* In turns until both sleep again, or that many steps. `looks`: a look after each how-manieth. */
static void take_turns(struct stepkill *s, struct stepkill *workers, const int *pids,
                       unsigned steps, unsigned looks)
{
    unsigned moved[PAIR] = {0};
    while (steps > 0 && !all_asleep(workers, moved)) {
        const unsigned who = roll(PAIR);
        struct stepkill *one = &workers[who];
        for (unsigned turn = 1 + roll(TURN); turn > 0 && steps > 0; turn--, steps--) {
            if (moved[who] && one->regs.rip == (uintptr_t)yk_futex_wait)
                break;
            stepkill_step(one);
            moved[who]++;
            s->steps++;
            if (looks && s->steps % looks == 0)
                look(s, pids);
        }
        steps -= steps > 0;
    }
}

static void let_go_or_kill(struct stepkill *s, struct stepkill *workers)
{
    const unsigned victims = 1 + roll(3);
    s->killed = 0;
    for (unsigned i = 0; i < PAIR; i++) {
        if (victims & 1u << i) {
            s->killed++;
            s->kills++;
            signal_child(workers[i].pid, SIGKILL);
        } else {
            CHECK_EQ(ptrace(PTRACE_DETACH, workers[i].pid, NULL, NULL), 0);
        }
    }
    s->killed_ns = yoke_now_ns();
    s->points++;
}

static void play(struct stepkill *s, unsigned steps, unsigned looks)
{
    struct pairs *p = s->state;
    struct stepkill workers[PAIR] = {{.scene = s->scene}, {.scene = s->scene}};
    int pids[PAIR];
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    CHECK_EQ(yoke_pool_worker_ids(s->pool, pids, PAIR), PAIR);
    for (int i = 0; i < PAIR; i++)
        seize(&workers[i], pids[i]);
    s->steps = 0;
    s->mark = 1;
    hand_in(s);
    take_turns(s, workers, pids, steps, looks);
    let_go_or_kill(s, workers);
    for (int i = 0; i < JOBS; i++)
        MUST(yoke_wait(p->task[i].c.job, yoke_in_ms(STEPKILL_END_MS)) == 0,
             "I9 a job ends, in time");
    stepkill_ended(s);
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    const size_t base = p->base;
    judge_all(s);
    s->blocks_lost += count_blocks() - base;
    alarm(CHECK_TIMEOUT);
}

/* ---- the program ---------------------------------------------------------------------------- */

/* The object behind the shared heap. */
static int open_heap(const struct yk_heap_handle *heap)
{
    char line[512], path[64];
    unsigned long start = 0, end = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) && start != (unsigned long)(uintptr_t)heap->base)
        sscanf(line, "%lx-%lx", &start, &end);
    fclose(maps);
    snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", start, end);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void play_all(const char *name, unsigned games, unsigned looks)
{
    static const struct stepkill_mark marks[] = {{"in turns", 0}, {NULL, 0}};
    const struct stepkill_scene scene = {.name = name, .marks = marks};
    struct pairs p = {.heap_fd = -1};
    struct stepkill s = {
        .scene = &scene, .pool = make_pool(YOKE_PROCESSES, PAIR), .workers = PAIR, .state = &p};
    CHECK_RC(yk_heap_export(&p.heap), 0);
    p.heap_fd = open_heap(&p.heap);
    if (p.heap_fd < 0 && looks)
        skip("the heap's object cannot be opened");
    for (int i = 0; i < JOBS; i++)
        p.task[i].c.tally = shared_zeroed(sizeof(struct tally));
    const int64_t from = yoke_now_ns();
    const unsigned long before = stepkill_sum.snapshots;
    stepkill_now = &s;
    for (unsigned i = 0; i < games; i++)
        play(&s, looks ? STEPS : 1 + roll(STEPS / 2), looks);
    check_pool_works(s.pool);
    stepkill_report(&s, from);
    if (looks)
        fprintf(stderr, "    %s: %lu snapshots\n", name, stepkill_sum.snapshots - before);
    close(p.heap_fd);
    end_pool(s.pool);
    for (int i = 0; i < JOBS; i++)
        yoke_shared_free(p.task[i].c.tally);
}

static void two_in_turns(void)
{
    play_all("two workers in turns", stepkill_full ? 3000 : 100, 0);
}

static void two_in_turns_looked_at(void)
{
    play_all("two workers in turns, looked at", stepkill_full ? 60 : 3, stepkill_full ? 1 : 3);
}

int main(int argc, char **argv)
{
    stepkill_main(argc, argv);
    dice = random_seed();
    end_pool(make_pool(YOKE_PROCESSES, 1));
    RUN(two_in_turns);
    RUN(two_in_turns_looked_at);
    stepkill_summary();
    return 0;
}
