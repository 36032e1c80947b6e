/* SPDX-License-Identifier: MIT
 * test_inject.c - each system call of the library fails, at each of its places, and nothing breaks.
 *
 *     test_inject [part]          some of the times that a place is passed
 *     test_inject part full       more of them
 *     test_inject table           the first, and docs/fault-injection.md on stdout
 *     test_inject part trace      says what each fault led to
 *
 * Idea: a scene runs once to see which places it passes (inject_plan.h), then once for each place,
 * process, error and turn, each time in a fresh child: first with the fault, then again without.
 * Afterwards it holds what it held after two runs without any. A child that crashes, hangs, breaks
 * a promise or leaves something is a failure, named by its place.
 */
/* timeout: 240 */
#define CHECK_TIMEOUT 230
#include "inject_scenes.h"

#include <sys/mman.h>
#include <sys/prctl.h>

enum { AT_ONCE = 6, DEADLINE_MS = 15000, OUTCOMES = 64, FAULTS_MAX = 20000 };

#if CHECK_ASAN
int __lsan_do_recoverable_leak_check(void);
#else
static int __lsan_do_recoverable_leak_check(void)
{
    return 0;
}
#endif

struct part {
    const char *name;
    void (*run)(struct scene *);
    int threads;   /* beside others: fork, not clone */
    int processes; /* needs them */
};

static const struct part parts[] = {
    {"heap", scene_heap, 0, 0},
    {"asking", scene_asking, 0, 0},
    {"single_thread", scene_thread, 0, 0},
    {"thread_pool", scene_threads, 0, 0},
    {"process_alone", scene_process, 0, 1},
    {"single_process_beside_threads", scene_process, 1, 1},
    {"single_process_of_the_seed", scene_process_of_seed, 0, 1},
    {"program", scene_program, 0, 1},
    {"program_plain", scene_program_plain, 0, 1},
    {"process_pool", scene_processes, 0, 1},
    {"process_pool_beside_threads", scene_processes, 1, 1},
    {"process_pool_of_the_seed", scene_seed, 0, 1},
    {"process_pool_without_template", scene_replant, 0, 1},
};

/* What a fault led to, for the table. */
struct row {
    char place[3 * INJECT_TEXT];
    int depth, error;
    unsigned faults, recovered, refused, crashed, missed;
    char refusal[96];
};

static struct row *rows;
static size_t row_count;
static int full, table, trace;
static unsigned failures, hangs;

/* ---- in the child ---------------------------------------------------------------------------- */

static void *idle_main(void *arg)
{
    while (!count_get(arg))
        breathe();
    return NULL;
}

static void run_scene(const struct part *part, struct scene_counts *counts, int faults)
{
    struct scene scene = {.counts = counts, .faults = faults};
    part->run(&scene);
    if (!faults)
        return;
    struct inject_area *const area = inject_area;
    if (count_get(&area->fired) == 0)
        snprintf(area->result, sizeof area->result, "missed");
    else if (scene.error[0] != '\0')
        snprintf(area->result, sizeof area->result, "%s", scene.error);
    else
        snprintf(area->result, sizeof area->result, "%s", scene.crashed ? "crashed" : "recovered");
}

static int is_same(const struct usage *a, const struct usage *b)
{
    return a->fds == b->fds && a->children == b->children && a->threads == b->threads &&
           a->blocks == b->blocks;
}

/* What we hold once the library has done what it does in its own time: as much as the reference, or
 * for the reference itself what stays the same for a while. */
static struct usage usage_settled(const struct inject_area *reference)
{
    struct usage now = usage_now();
    if (reference != NULL) {
        const int64_t until = yoke_in_ms(2000 * (int64_t)check_slowness());
        while (!is_same(&now, &reference->usage) && yoke_now_ns() < until) {
            breathe();
            now = usage_now();
        }
        return now;
    }
    for (int64_t until = yoke_in_ms(100); yoke_now_ns() < until; breathe()) {
        const struct usage next = usage_now();
        if (!is_same(&now, &next))
            until = yoke_in_ms(100);
        now = next;
    }
    return now;
}

static _Noreturn void child_main(const struct part *part, struct inject_area *area,
                                 const struct inject_area *reference)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(0);
    struct scene_counts *const counts =
        mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counts != MAP_FAILED);
    static atomic_long over;
    pthread_t idle;
    if (part->threads)
        CHECK_EQ(pthread_create(&idle, NULL, idle_main, &over), 0);
    const int counting = reference == NULL;
    atomic_store(&area->counting, counting);
    atomic_store(&area->armed, !counting);
    inject_area = area;
    run_scene(part, counts, !counting);
    atomic_store(&area->counting, 0);
    atomic_store(&area->armed, 0);
    scene_stage("again, without a fault");
    run_scene(part, counts, 0);
    area->maps_left = count_get(&area->maps);
    inject_area = NULL;
    if (part->threads) {
        count_set(&over, 1);
        CHECK_EQ(pthread_join(idle, NULL), 0);
    }
    area->usage = usage_settled(reference);
    if (__lsan_do_recoverable_leak_check() != 0) {
        snprintf(area->why, sizeof area->why, "memory that nobody has any more");
        _exit(3);
    }
    _exit(0);
}

/* ---- one fault ------------------------------------------------------------------------------- */

struct fault {
    const struct part *part;
    const struct inject_area *reference;
    struct inject_area *area;
    int pid; /* 0: none */
    int64_t until_ns;
};

static void say_plan(const struct fault *fault)
{
    const struct inject_plan *const plan = &fault->area->plan;
    char place[3 * INJECT_TEXT];
    inject_place(plan, place, sizeof place);
    fprintf(stderr, "    %s (line %d) in the %s, %s, time %ld%s; scene %s, at: %s\n", place,
            plan->line, inject_depth_name(plan->depth),
            plan->error ? strerrorname_np(plan->error) : "a false wake-up", plan->from + 1,
            plan->times == INJECT_FOR_EVER ? " and ever after" : "", fault->part->name,
            fault->area->stage);
}

static void fault_failed(const struct fault *fault, const char *what, long code)
{
    failures++;
    fprintf(stderr, "FAILED: %s", what);
    if (code >= 0)
        fprintf(stderr, " %ld", code);
    if (fault->area->why[0])
        fprintf(stderr, ": %s", fault->area->why);
    fprintf(stderr, "\n");
    say_plan(fault);
}

static void put_row(const struct fault *fault)
{
    const struct inject_area *const area = fault->area;
    char place[3 * INJECT_TEXT];
    inject_place(&area->plan, place, sizeof place);
    struct row *row = NULL;
    for (size_t i = 0; i < row_count && row == NULL; i++)
        if (rows[i].depth == area->plan.depth && rows[i].error == area->plan.error &&
            strcmp(rows[i].place, place) == 0)
            row = &rows[i];
    if (row == NULL) {
        row = &rows[row_count++];
        memcpy(row->place, place, sizeof place);
        row->depth = area->plan.depth;
        row->error = area->plan.error;
    }
    row->faults++;
    if (strcmp(area->result, "recovered") == 0) {
        row->recovered++;
    } else if (strcmp(area->result, "missed") == 0) {
        row->missed++;
    } else if (strcmp(area->result, "crashed") == 0) {
        row->crashed++;
    } else {
        row->refused++;
        if (strstr(row->refusal, area->result) == NULL &&
            strlen(row->refusal) + strlen(area->result) + 3 < sizeof row->refusal) {
            strcat(row->refusal, row->refusal[0] ? ", " : "");
            strcat(row->refusal, area->result);
        }
    }
}

static int group_is_gone(int group)
{
    while (waitpid(-group, NULL, WNOHANG) > 0) {
    }
    return kill(-group, 0) != 0 && errno == ESRCH;
}

/* Nothing of it may be left; what is, goes now. */
static int left_nothing(int group)
{
    const int64_t until = yoke_in_ms(8000 * (int64_t)check_slowness());
    while (!group_is_gone(group)) {
        if (yoke_now_ns() > until) {
            kill(-group, SIGKILL);
            return 0;
        }
        breathe();
    }
    return 1;
}

static void judge(const struct fault *fault, int status)
{
    const struct inject_area *const area = fault->area;
    const struct usage *const now = &area->usage, *const then = &fault->reference->usage;
    if (WIFSIGNALED(status))
        fault_failed(fault, "crash, signal", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        fault_failed(fault, "a promise is broken", -1);
    else if (now->fds != then->fds)
        fault_failed(fault, "descriptors left over:", now->fds - then->fds);
    else if (now->children != then->children || now->threads != then->threads)
        fault_failed(fault, "processes or threads left over:",
                     now->children - then->children + now->threads - then->threads);
    else if (now->blocks != then->blocks)
        fault_failed(fault, "blocks of the heap left over:", (long)(now->blocks - then->blocks));
    else if (area->maps_left > fault->reference->maps_left)
        fault_failed(fault, "mappings left over:", area->maps_left - fault->reference->maps_left);
    else if (area->plan.line != 0) /* not the one that counts */
        put_row(fault);
    if (trace) {
        fprintf(stderr, "  %s\n", area->result);
        say_plan(fault);
    }
}

/* True once it is over. */
static int look_after(struct fault *fault)
{
    int status = 0;
    if (waitpid(fault->pid, &status, WNOHANG) == fault->pid) {
        if (!left_nothing(fault->pid))
            fault_failed(fault, "left processes running", -1);
        else
            judge(fault, status);
    } else if (yoke_now_ns() > fault->until_ns) {
        fault_failed(fault, "hangs", -1);
        hangs++; /* one says it all: no more are begun in this part */
        kill(-fault->pid, SIGKILL);
        (void)waitpid(fault->pid, NULL, 0);
        (void)left_nothing(fault->pid);
    } else {
        return 0;
    }
    fault->pid = 0;
    return 1;
}

static void start(struct fault *fault, int counting)
{
    fflush(NULL);
    fault->until_ns = yoke_in_ms(DEADLINE_MS * (int64_t)check_slowness());
    fault->pid = fork();
    CHECK(fault->pid >= 0);
    if (fault->pid == 0)
        child_main(fault->part, fault->area, counting ? NULL : fault->reference);
    setpgid(fault->pid, fault->pid);
}

/* ---- all faults ------------------------------------------------------------------------------ */

static struct inject_area *make_area(void)
{
    struct inject_area *const area =
        mmap(NULL, sizeof *area, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    return area;
}

static struct fault running[AT_ONCE];

static struct fault *free_place(void)
{
    for (;;) {
        for (int i = 0; i < AT_ONCE; i++)
            if (running[i].pid == 0 || look_after(&running[i]))
                return &running[i];
        breathe();
    }
}

static void wait_for_all(void)
{
    for (int i = 0; i < AT_ONCE; i++)
        while (running[i].pid != 0 && !look_after(&running[i]))
            breathe();
}

static void inject(const struct part *part, const struct inject_area *reference,
                   const struct inject_plan *plan)
{
    struct fault *const fault = free_place();
    if (hangs > 0)
        return;
    fault->part = part;
    fault->reference = reference;
    memset(fault->area, 0, sizeof *fault->area);
    fault->area->plan = *plan;
    start(fault, 0);
}

/* A few turns of a place that is passed so often; short of something also from then on. */
static void inject_turns(const struct part *part, const struct inject_area *reference,
                         struct inject_plan *plan, long calls, int lasting)
{
    const long few[] = {1, 2, calls / 2, calls}, more[] = {1, 2, 3, 4, 5, 7, 10, calls / 2, calls};
    const long *const turns = full ? more : few;
    const size_t count = full ? sizeof more / sizeof *more : sizeof few / sizeof *few;
    long last = 0;
    for (size_t i = 0; i < count; i++) {
        if (turns[i] <= last || turns[i] > calls)
            continue;
        last = turns[i];
        plan->from = last - 1;
        plan->times = 1;
        inject(part, reference, plan);
        /* Signals come in bursts. */
        plan->times = lasting ? INJECT_FOR_EVER : 3;
        if (i < 2 && (lasting || plan->error == EINTR))
            inject(part, reference, plan);
    }
}

static void inject_site(const struct part *part, const struct inject_area *reference,
                        const struct inject_site *site)
{
    struct inject_plan plan = {.line = site->line};
    memcpy(plan.file, site->file, INJECT_TEXT);
    memcpy(plan.function, site->function, INJECT_TEXT);
    memcpy(plan.call, site->call, INJECT_TEXT);
    const struct inject_errors *const errors = inject_errors_of(site->call, site->function);
    if (errors == NULL) {
        fprintf(stderr, "FAILED: inject.c does not know what %s can fail with\n", site->call);
        failures++;
        return;
    }
    for (plan.depth = 0; plan.depth < INJECT_DEPTHS; plan.depth++) {
        const long calls = count_get(&site->calls[plan.depth]);
        for (int i = 0; calls > 0 && errors->errors[i] >= 0; i++) {
            plan.error = errors->errors[i];
            inject_turns(part, reference, &plan, calls, i < errors->lasting);
        }
    }
}

static void run_part(const struct part *part)
{
    struct inject_area *const reference = make_area();
    struct fault count = {.part = part, .reference = reference, .area = reference};
    const unsigned before = failures;
    hangs = 0;
    const int64_t start_ns = yoke_now_ns();
    start(&count, 1);
    while (!look_after(&count))
        breathe();
    if (failures == before) {
        const int sites = atomic_load(&reference->site_count);
        CHECK(sites <= INJECT_SITES);
        for (int i = 0; i < sites; i++)
            inject_site(part, reference, &reference->sites[i]);
        wait_for_all();
        fprintf(stderr, "    %d places, %lld ms\n", sites,
                (long long)(yoke_now_ns() - start_ns) / 1000000);
    }
    munmap(reference, sizeof *reference);
}

/* Calls in the sources, whatever they failed with and in which process. */
static unsigned count_places(void)
{
    unsigned count = 0;
    for (size_t i = 0; i < row_count; i++) {
        int known = 0;
        for (size_t k = 0; k < i && !known; k++)
            known = strcmp(rows[k].place, rows[i].place) == 0;
        count += !known;
    }
    return count;
}

static int by_place(const void *a, const void *b)
{
    const struct row *const x = a, *const y = b;
    const int places = strcmp(x->place, y->place);
    return places != 0 ? places : x->depth != y->depth ? x->depth - y->depth : x->error - y->error;
}

/* What the program gets to see; "-" where nothing was reached. */
static void print_outcome(const struct row *row)
{
    const char *between = "";
    if (row->recovered) {
        printf("recovers");
        between = "; ";
    }
    if (row->crashed) {
        printf("%sa worker is lost", between);
        between = "; ";
    }
    if (row->refused)
        printf("%s%s", between, row->refusal);
    else if (!row->recovered && !row->crashed)
        printf("not reached");
}

static void print_table(void)
{
    qsort(rows, row_count, sizeof *rows, by_place);
    printf("| place | in the | error | faults | outcome |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < row_count; i++) {
        const struct row *const row = &rows[i];
        printf("| `%s` | %s | %s | %u | ", row->place, inject_depth_name(row->depth),
               row->error ? strerrorname_np(row->error) : "false wake-up", row->faults);
        print_outcome(row);
        printf(" |\n");
    }
}

/* One line; also the last of the table. */
static void print_totals(FILE *to)
{
    unsigned faults = 0, recovered = 0, refused = 0, crashed = 0, missed = 0;
    for (size_t i = 0; i < row_count; i++) {
        faults += rows[i].faults;
        recovered += rows[i].recovered;
        refused += rows[i].refused;
        crashed += rows[i].crashed;
        missed += rows[i].missed;
    }
    fprintf(to,
            "%u calls, %zu ways to fail, %u faults: %u recovered from, %u answered with an error "
            "that is documented, %u that cost a worker, %u not reached; %u failed\n",
            count_places(), row_count, faults, recovered, refused, crashed, missed, failures);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    full = argc > 2 && strcmp(argv[2], "full") == 0;
    trace = argc > 2 && strcmp(argv[2], "trace") == 0;
    table = argc > 1 && strcmp(argv[1], "table") == 0;
    if (table)
        check_filter = NULL;
    if (check_emulated())
        skip("too slow in an emulator");
    rows = calloc(FAULTS_MAX, sizeof *rows);
    CHECK(rows != NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < AT_ONCE; i++)
        running[i].area = make_area();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if ((parts[i].processes && !check_has_kind(YOKE_PROCESSES)) || !check_begin(parts[i].name))
            continue;
        run_part(&parts[i]);
    }
    alarm(0);
    if (table) {
        print_table();
        printf("\n");
        print_totals(stdout);
    }
    print_totals(stderr);
    return failures != 0;
}
