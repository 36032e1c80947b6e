/* SPDX-License-Identifier: MIT
 * stepkill.h - a worker is stopped after each single instruction of a task, and killed there.
 *
 * Idea: the worker sleeps, traced by us; a task is published; the worker is led to a *mark* (a
 * function that each run passes) and then, instruction by instruction, to one point further than
 * the last time. There it gets a real SIGKILL, and what the program sees is held against the
 * promise. Each point has its own worker, the spare that stepped in for the last one. So the
 * points together are every instruction from the wake to the next sleep.
 *
 * Without more, some of the instructions are points, others each run, and of the later rounds of
 * loops few. The second argument (the first picks parts, "" is all) can be `each`, every one but
 * in later rounds of loops, or `full`, each and every one. Where a run is long, it is led by a
 * breakpoint to a place it was at before.
 * Needs ptrace, x86-64, and a build without sanitizers; everything runs on one CPU, which makes
 * a step cheap.
 */
#ifndef YOKE_TESTS_STEPKILL_H
#define YOKE_TESTS_STEPKILL_H

#include "check.h"
#include "pool/pool_private.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/ptrace.h>
#include <sys/user.h>

enum {
    STEPKILL_STEPS_MAX = 400000,
    STEPKILL_REP_MIN = 64, /* rounds of a string instruction that count as one step */
    STEPKILL_END_MS = 10000,
    STEPKILL_ROUNDS = 5,         /* of a loop that are points, when it is not `full` */
    STEPKILL_LATER_ROUNDS = 499, /* and one instruction of that many in the rounds after */
    STEPKILL_PLACES_BITS = 15,
    STEPKILL_PLACES = 1 << STEPKILL_PLACES_BITS
};

#define STEPKILL_CHUNK ((size_t)256 << 10)
#define STEPKILL_HEAP ((size_t)8 << 20)

/* Other machines have other registers, and load-linked loops that a single step never leaves: the
 * program compiles there, and says that it is skipped. */
#if defined(__x86_64__)
typedef struct user_regs_struct stepkill_regs;
#else
typedef struct {
    unsigned long long rip, rdi, rsi, rdx, rcx, orig_rax;
} stepkill_regs;
#undef PTRACE_GETREGS
#undef PTRACE_SETREGS
#define PTRACE_GETREGS 12
#define PTRACE_SETREGS 13
#endif

/* A function on the way of each run; the worker is stopped at its first instruction. */
struct stepkill_mark {
    const char *name;
    uintptr_t at;
};
#define STEPKILL_MARK(fn) \
    { \
#fn, (uintptr_t)(fn) \
    }

/* What ends the worker at the point. */
enum stepkill_how { STEPKILL_KILL, STEPKILL_CANCEL };

struct stepkill;

/* An operation, and what must hold of it. */
struct stepkill_scene {
    const char *name;
    const struct stepkill_mark *marks; /* in the order they are passed; the last is where the
                                          run ends; then one with NULL */
    void (*begin)(struct stepkill *s); /* publish it; the worker is stopped */
    int (*over)(struct stepkill *s);   /* the end of what is to be stepped; may be NULL */
    void (*cancel)(struct stepkill *s);
    void (*judge)(struct stepkill *s); /* wait for its end and look at everything */
    const void *detail;                /* the test's own */
};

struct stepkill {
    const struct stepkill_scene *scene;
    yoke_pool *pool;
    unsigned retries;
    enum stepkill_how how;
    unsigned workers; /* of the pool; 0: one */
    unsigned stride;  /* each how-manieth instruction is a point */
    int thin;         /* later rounds of loops are thinned out even when it is `full` */
    int step_only;    /* no breakpoints: a copy that it makes would run into them */
    int by_copy;      /* a copy of the program recovers too: words that fit nothing come up, and
                        the spare may have to go for them */
    void *state;      /* the test's own */
    /* this point */
    int pid;
    int killed;
    int careful;  /* loops go around more often, or less: led only to places outside of them */
    int overshot; /* led to the end: it went another way than the last time */
    size_t mark;  /* 0: asleep; else the mark passed last */
    unsigned steps;
    stepkill_regs regs; /* not all fields at all times: rip is right */
    size_t blocks;
    int64_t killed_ns;
    /* all points */
    unsigned long points, kills; /* kills: since the pool was made */
    unsigned long crashed, innocent, blocks_lost;
    unsigned long begun, over, doubled; /* calls handed in, seen to end, runs that nobody told of */
    int64_t slowest_ns;
};

/* All scenes of the program. */
struct stepkill_sum {
    unsigned long points, snapshots, lost, doubled;
};

/* The way from one mark to the next, as it was the last time. */
struct stepkill_path {
    size_t known;
    uintptr_t at[STEPKILL_STEPS_MAX];
    unsigned short visit[STEPKILL_STEPS_MAX]; /* the how-manieth visit of that place */
    uintptr_t place[STEPKILL_PLACES];
    unsigned short visits[STEPKILL_PLACES];
};

static struct stepkill_path stepkill_path;
static struct stepkill_sum stepkill_sum;
static int stepkill_full, stepkill_each;
static const struct stepkill *stepkill_now;

/* ---- saying what went wrong --------------------------------------------------------------- */

static inline void stepkill_where(void)
{
    const struct stepkill *s = stepkill_now;
    if (s && s->scene)
        fprintf(stderr, "    %s, retries %u, %s: %s + %u instructions (%s)\n", s->scene->name,
                s->retries, s->how == STEPKILL_KILL ? "kill" : "cancel by force",
                s->mark ? s->scene->marks[s->mark - 1].name : "asleep", s->steps,
                s->killed ? "ended there" : "not ended");
}

static inline void stepkill_must(int ok, const char *what, const char *file, int line)
{
    if (ok)
        return;
    fprintf(stderr, "FAILED: %s\n", what);
    stepkill_where();
    check_die(file, line);
}

/** An invariant, by its number in the design and in words. */
#define MUST(cond, what) stepkill_must((cond) ? 1 : 0, what ": " #cond, __FILE__, __LINE__)

/* ---- one traced worker -------------------------------------------------------------------- */

static inline void stepkill_stop(struct stepkill *s, int want)
{
    int status = 0;
    while (waitpid(s->pid, &status, __WALL) < 0)
        CHECK_EQ(errno, EINTR);
    MUST(WIFSTOPPED(status), "the worker does not die by itself");
    if (want)
        CHECK_EQ(WSTOPSIG(status), want);
}

static inline void stepkill_rip(struct stepkill *s)
{
    s->regs.rip =
        (unsigned long long)ptrace(PTRACE_PEEKUSER, s->pid, offsetof(stepkill_regs, rip), NULL);
}

static inline long stepkill_break(struct stepkill *s, uintptr_t at)
{
    errno = 0;
    const long text = ptrace(PTRACE_PEEKTEXT, s->pid, at, NULL);
    CHECK_EQ(errno, 0);
    CHECK_EQ(ptrace(PTRACE_POKETEXT, s->pid, at, (text & ~0xffL) | 0xcc), 0);
    return text;
}

static inline void stepkill_resume(struct stepkill *s, int request)
{
    CHECK_EQ(ptrace(request, s->pid, NULL, NULL), 0);
    stepkill_stop(s, SIGTRAP);
}

/* Run on to an address, for the how-manieth time, or to another one (or 0); by breakpoints. */
static inline void stepkill_run_to(struct stepkill *s, uintptr_t at, unsigned times,
                                   uintptr_t or_at)
{
    const long or_text = or_at ? stepkill_break(s, or_at) : 0;
    while (times > 0) {
        const long text = stepkill_break(s, at);
        stepkill_resume(s, PTRACE_CONT);
        CHECK_EQ(ptrace(PTRACE_GETREGS, s->pid, NULL, &s->regs), 0);
        s->regs.rip--;
        CHECK(s->regs.rip == at || s->regs.rip == or_at);
        CHECK_EQ(ptrace(PTRACE_POKETEXT, s->pid, at, text), 0);
        CHECK_EQ(ptrace(PTRACE_SETREGS, s->pid, NULL, &s->regs), 0);
        times = s->regs.rip == at ? times - 1 : 0;
        if (times > 0)
            stepkill_resume(s, PTRACE_SINGLESTEP);
    }
    if (or_at)
        CHECK_EQ(ptrace(PTRACE_POKETEXT, s->pid, or_at, or_text), 0);
}

/* The worker's code is ours, at the same addresses. */
static inline const unsigned char *stepkill_code(const struct stepkill *s)
{
    return (const unsigned char *)(uintptr_t)s->regs.rip;
}

/* The bytes of a string instruction with a repeat prefix, which steps once per round; else 0. */
static inline size_t stepkill_rep(const unsigned char *code)
{
    if (code[0] != 0xf3 && code[0] != 0xf2)
        return 0;
    const size_t wide = (code[1] & 0xf8) == 0x48;
    const unsigned char op = code[1 + wide] & 0xfe;
    return op == 0xa4 || op == 0xaa ? 2 + wide : 0;
}

/* One instruction. A long string instruction counts as one. */
static inline void stepkill_step(struct stepkill *s)
{
    const unsigned char *code = stepkill_code(s);
    const size_t rep = stepkill_rep(code);
    if (rep) {
        CHECK_EQ(ptrace(PTRACE_GETREGS, s->pid, NULL, &s->regs), 0);
        if (s->regs.rcx >= STEPKILL_REP_MIN) {
            stepkill_run_to(s, (uintptr_t)code + rep, 1, 0);
            return;
        }
    }
    stepkill_resume(s, PTRACE_SINGLESTEP);
    stepkill_rip(s);
}

/* It waits for work: on its wake flag, and not as a spare on its state. */
static inline int stepkill_sleeps(struct stepkill *s)
{
    CHECK_EQ(ptrace(PTRACE_GETREGS, s->pid, NULL, &s->regs), 0);
    return s->regs.orig_rax == SYS_futex && (s->regs.rsi & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET &&
           s->regs.rdx == 1 && yoke_shared_contains((const void *)(uintptr_t)s->regs.rdi, 4);
}

/* So many deaths are our doing: the pool is not to wait before it starts the next worker. */
static inline void stepkill_calm(yoke_pool *pool) YK_NO_LOCK_ANALYSIS
{
    yk_biased_lock(&pool->lock);
    pool->barren = 0;
    pool->stillborn = 0;
    pool->rounds = 0;
    pool->restart_at_ns = 0;
    pool->spoiled = 0;
    yk_biased_unlock(&pool->lock);
}

/* The pool has all its workers, nothing to do, and has seen as many deaths as there were. */
static inline int stepkill_at_rest(struct stepkill *s, unsigned long deaths)
{
    const yoke_pool_stats stats = stats_of(s->pool);
    MUST(stats.died <= deaths + (s->by_copy ? 1 : 0), "only who was killed dies");
    const unsigned workers = s->workers ? s->workers : 1;
    if (stats.workers != workers || stats.spares != 1 || stats.in_flight || stats.died < deaths)
        return 0;
    s->kills = (unsigned long)stats.died;
    stepkill_calm(s->pool);
    return 1;
}

/* Get hold of the worker where it sleeps for want of work. */
static inline void stepkill_seize(struct stepkill *s)
{
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    CHECK_EQ(yoke_pool_worker_ids(s->pool, &s->pid, 1), 1);
    CHECK_EQ(ptrace(PTRACE_SEIZE, s->pid, NULL, PTRACE_O_EXITKILL), 0);
    for (const int64_t until = soon();;) {
        CHECK_EQ(ptrace(PTRACE_INTERRUPT, s->pid, NULL, NULL), 0);
        stepkill_stop(s, 0);
        if (stepkill_sleeps(s))
            return;
        CHECK(yoke_now_ns() < until);
        CHECK_EQ(ptrace(PTRACE_CONT, s->pid, NULL, NULL), 0);
        breathe();
    }
}

/* What holds of the table at every instant. */
static inline void stepkill_table_is_sound(const yoke_pool *pool)
{
    const uint64_t head = atomic_load_explicit(&pool->ctl->head, memory_order_seq_cst);
    for (uint32_t i = 0; i < YK_TABLE_SLOTS; i++) {
        const uint64_t word =
            atomic_load_explicit(&pool->table.slots[i].word, memory_order_seq_cst);
        MUST(yk_word_phase(word) != YK_READY ||
                 (int32_t)(yk_word_ticket(word) - (uint32_t)head) >= 0,
             "I2 no task that waits is behind the head");
        MUST(yk_word_phase(word) != YK_CLAIMED || yk_word_owner(word) != 0,
             "I4 a claimed task has an owner");
    }
}

/* ---- a point ------------------------------------------------------------------------------ */

static inline void stepkill_end_worker(struct stepkill *s)
{
    s->killed = 1;
    stepkill_table_is_sound(s->pool);
    s->killed_ns = yoke_now_ns();
    s->kills++;
    if (s->how == STEPKILL_CANCEL)
        s->scene->cancel(s);
    signal_child(s->pid, SIGKILL);
}

/* The pool took the death in; called by judges once their call has ended. */
static inline void stepkill_ended(struct stepkill *s)
{
    const int64_t took = yoke_now_ns() - s->killed_ns;
    if (s->killed && took > s->slowest_ns)
        s->slowest_ns = took;
}

/* The call that a thread makes has ended, in time; `over` is what it set last. */
static inline void stepkill_join(struct stepkill *s, pthread_t caller, const atomic_long *over)
{
    const int64_t until = yoke_in_ms(STEPKILL_END_MS);
    while (!count_get(over) && yoke_now_ns() < until)
        breathe();
    MUST(count_get(over), "I9 the call ends, in time");
    s->over++;
    stepkill_ended(s);
    CHECK_EQ(pthread_join(caller, NULL), 0);
}

/* I6: every chunk of the heap is in blocks or can be: what is free can be taken, all of it. */
static inline void stepkill_heap_is_whole(void)
{
    enum { MAX = 256 };
    static void *blocks[MAX];
    int n = 0;
    while (n < MAX && (blocks[n] = yoke_shared_alloc(STEPKILL_CHUNK)) != NULL)
        n++;
    CHECK(n < MAX);
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    while (n > 0)
        yoke_shared_free(blocks[--n]);
    MUST(stats.reserved_bytes == stats.limit_bytes, "I6 no chunk of the heap is lost");
}

/* ---- the way there ------------------------------------------------------------------------ */

static inline unsigned short stepkill_visit(uintptr_t at)
{
    struct stepkill_path *path = &stepkill_path;
    size_t i = at * 0x9e3779b97f4a7c15u >> (64 - STEPKILL_PLACES_BITS);
    while (path->place[i] && path->place[i] != at)
        i = (i + 1) % STEPKILL_PLACES;
    path->place[i] = at;
    return ++path->visits[i];
}

static inline void stepkill_path_cut(size_t known)
{
    struct stepkill_path *path = &stepkill_path;
    memset(path->place, 0, sizeof path->place);
    memset(path->visits, 0, sizeof path->visits);
    for (size_t i = 0; i < known; i++)
        stepkill_visit(path->at[i]);
    path->known = known;
}

/* We are here, that many steps after the mark. */
static inline void stepkill_path_note(size_t i, uintptr_t at)
{
    struct stepkill_path *path = &stepkill_path;
    CHECK(i < STEPKILL_STEPS_MAX);
    if (i < path->known && path->at[i] == at)
        return;
    if (i < path->known)
        stepkill_path_cut(i); /* it went another way this time */
    path->at[i] = at;
    path->visit[i] = stepkill_visit(at);
    path->known = i + 1;
}

static inline int stepkill_is_point(const struct stepkill *s, size_t i)
{
    return (stepkill_full && !s->thin) || stepkill_path.visit[i] <= STEPKILL_ROUNDS ||
           i % STEPKILL_LATER_ROUNDS == 0;
}

/* Skip what is known, to the place that is the cheapest to go on from. */
static inline void stepkill_jump(struct stepkill *s, size_t wanted, uintptr_t end)
{
    enum { BREAK = 3, BREAKS = 4 }; /* what a breakpoint costs, and two of them, in steps */
    const struct stepkill_path *path = &stepkill_path;
    size_t best = 0, cost = wanted;
    for (size_t i = 1; i <= wanted && i < path->known; i++) {
        const size_t here = BREAKS + (size_t)BREAK * path->visit[i] + (wanted - i);
        const int safe = !s->careful || path->visit[i] == 1;
        if (here <= cost && safe && path->at[i] != path->at[0]) {
            best = i;
            cost = here;
        }
    }
    if (best > 0) {
        stepkill_run_to(s, path->at[best], path->visit[best], end);
        s->steps = (unsigned)best;
    }
}

/* From the mark to the point; 0: the end came first. */
static inline int stepkill_go(struct stepkill *s, size_t wanted, uintptr_t end)
{
    s->overshot = 0;
    if (!s->step_only)
        stepkill_jump(s, wanted, end);
    if (s->steps > 0 && s->regs.rip == end) {
        s->overshot = 1; /* a point too, but the one that was wanted is still to come */
        if (s->careful)
            stepkill_path_cut(0);
        s->careful = 1;
        return 1;
    }
    for (;;) {
        if (s->regs.rip == end && s->steps > 0)
            return 0;
        MUST(s->steps == 0 || s->regs.rip != (uintptr_t)yk_futex_wait,
             "a run passes all its marks");
        if (s->scene->over && s->scene->over(s))
            return 0;
        stepkill_path_note(s->steps, (uintptr_t)s->regs.rip);
        if (s->steps >= wanted && stepkill_is_point(s, s->steps))
            return 1;
        stepkill_step(s);
        s->steps++;
    }
}

/* One run to the first point that is at least `wanted` steps after the mark (0: after the sleep),
 * and the kill there. 0: the next mark came first. */
static inline int stepkill_point(struct stepkill *s, size_t mark, size_t wanted)
{
    const struct stepkill_mark *marks = s->scene->marks;
    uintptr_t end = 0;
    for (size_t i = 0; marks[i].at; i++)
        end = marks[i].at;
    s->killed = 0;
    s->mark = 0;
    s->steps = 0;
    stepkill_seize(s);
    s->blocks = count_blocks();
    s->scene->begin(s);
    while (s->mark < mark) {
        stepkill_run_to(s, marks[s->mark].at, 1, end);
        MUST(s->regs.rip == marks[s->mark].at, "a run passes all its marks");
        s->mark++;
    }
    const int reached = stepkill_go(s, wanted, marks[mark].at);
    if (reached || marks[mark + 1].at != 0) {
        stepkill_end_worker(s); /* also at a mark: the run is not to be wasted */
        s->points++;
    } else {
        CHECK_EQ(ptrace(PTRACE_DETACH, s->pid, NULL, NULL), 0);
    }
    s->scene->judge(s);
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    return reached;
}

/* The point after this one. */
static inline size_t stepkill_next(const struct stepkill *s, size_t wanted, unsigned stride)
{
    return s->overshot ? wanted : s->steps + stride;
}

static inline unsigned stepkill_stride(unsigned stride)
{
    return stepkill_each ? 1 : stride;
}

/* ---- all points --------------------------------------------------------------------------- */

/* A line that tools/kill-proof.sh reads. */
static inline void stepkill_report(const struct stepkill *s, int64_t from_ns)
{
    const unsigned long lost = s->begun - s->over;
    fprintf(
        stderr,
        "    %s%s%s: %lu points, %lu lost, %lu doubled; %lu crashed (%lu before the body's first "
        "line), %lu blocks lost with their worker, slowest end %" PRId64 " us, %" PRId64 " ms\n",
        s->scene->name, s->retries ? ", retried" : "",
        s->how == STEPKILL_KILL ? "" : ", cancelled by force", s->points, lost, s->doubled,
        s->crashed, s->innocent, s->blocks_lost, s->slowest_ns / 1000,
        (yoke_now_ns() - from_ns) / 1000000);
    stepkill_sum.points += s->points;
    stepkill_sum.lost += lost;
    stepkill_sum.doubled += s->doubled;
    stepkill_now = NULL;
}

/* The last line of the program. */
static inline void stepkill_summary(void)
{
    fprintf(stderr, "summary: %lu real kills", stepkill_sum.points);
    if (stepkill_sum.snapshots)
        fprintf(stderr, ", %lu snapshots", stepkill_sum.snapshots);
    fprintf(stderr, ", %lu lost, %lu doubled\n", stepkill_sum.lost, stepkill_sum.doubled);
}

static inline void stepkill_scene_run(struct stepkill *s)
{
    static uint64_t random;
    if (!random)
        random = random_seed();
    const unsigned stride = stepkill_stride(s->stride);
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    const int fds = count_fds(), children = count_children();
    const int64_t from = yoke_now_ns();
    stepkill_now = s;
    for (size_t mark = 0; s->scene->marks[mark].at; mark++) {
        size_t wanted = (size_t)(random_next(&random) % stride);
        stepkill_path_cut(0);
        s->careful = 0;
        while (stepkill_point(s, mark, wanted)) {
            wanted = stepkill_next(s, wanted, stride);
            MUST(count_fds() == fds, "I6 no descriptor is lost");
            alarm(CHECK_TIMEOUT);
        }
    }
    MUST(count_fds() == fds, "I6 no descriptor is lost");
    MUST(count_children() == children, "I6 no process is left");
    stepkill_heap_is_whole();
    check_pool_works(s->pool);
    stepkill_report(s, from);
}

/* ---- the program -------------------------------------------------------------------------- */

static inline int stepkill_may_trace(void)
{
    const int pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        for (;;)
            pause();
    }
    int status = 0;
    const int ok = ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_EXITKILL) == 0;
    kill(pid, SIGKILL);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    return ok;
}

/* Before any pool is made. */
static inline void stepkill_main(int argc, char **argv)
{
    check_main(argc, argv);
    check_kind = YOKE_PROCESSES;
    const char *via = getenv("VIA");
#if !defined(__x86_64__)
    skip("stepping by instruction is for x86-64");
#endif
    if (CHECK_ASAN || CHECK_TSAN || (via && *via))
        skip("no stepping under a sanitizer or an emulator");
    if (!check_has_kind(YOKE_PROCESSES))
        skip("kills need processes");
    if (!stepkill_may_trace())
        skip("ptrace is not permitted");
    stepkill_full = argc > 2 && strcmp(argv[2], "full") == 0;
    stepkill_each = stepkill_full || (argc > 2 && strcmp(argv[2], "each") == 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_RC(yoke_heap_limit(STEPKILL_HEAP), 0);
}

#endif
