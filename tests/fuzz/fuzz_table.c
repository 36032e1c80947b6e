/* SPDX-License-Identifier: MIT
 * fuzz_table.c - a process pool, while its workers write what they like.
 *
 * An input is a list of calls by the program and of what workers do: honest steps, deaths at any
 * progress, writes anywhere into the shared mapping. Nothing may crash, hang or read outside the
 * mapping. In the end the hostile ones die and others come: then every job and every item has
 * ended, once, every wait returns, the pool still works (unless it said that it is broken) and
 * the program holds nothing any more. An input without a hostile write must give right results.
 */
#include "table_world.h"

#include <errno.h>
#include <stdlib.h>

#include <yoke/yoke.h>

#define JOBS 40
#define ITEMS_MAX 40
#define OPS_MAX 120
#define PATIENCE_NS 1000000000000LL
#define WAITS_MAX 3000

struct job {
    yoke_job *job; /* NULL: released, or never made */
    uint64_t in;
    bool cancelled;
    bool timed;
};

static struct {
    struct job jobs[JOBS];
    unsigned job_count;
    unsigned depth; /* of calls that wait */
    struct job *busy;
    bool settling;  /* only honest workers are left */
    bool stopped;   /* destroy was called */
    unsigned swept; /* sweeps that were begun */
    unsigned accepted;
} p;

/* --- what stands in for the template -------------------------------------------------------- */

int __wrap_yk_template_plant(struct yk_template *template, const struct yk_image_setup *setup);
int __wrap_yk_template_plant(struct yk_template *template, const struct yk_image_setup *setup)
{
    (void)template;
    (void)setup;
    return 0;
}

void __wrap_yk_template_uproot(struct yk_template *template);
void __wrap_yk_template_uproot(struct yk_template *template)
{
    (void)template;
}

int __wrap_yk_template_holds(struct yk_template *template, uintptr_t fn);
int __wrap_yk_template_holds(struct yk_template *template, uintptr_t fn)
{
    (void)template;
    (void)fn;
    return 0;
}

int __wrap_yk_template_spawn(struct yk_template *template, yk_image_entry *entry, void *arg,
                             int *pid, int *pidfd);
int __wrap_yk_template_spawn(struct yk_template *template, yk_image_entry *entry, void *arg,
                             int *pid, int *pidfd)
{
    (void)template;
    const struct yk_line *const line = arg;
    claims[seam_process_count] = (struct claim){.claimer = {.owner = line->owner}};
    return seam_spawn(entry, arg, pid, pidfd);
}

void *__real_yk_heap_alloc(size_t bytes);
void *__wrap_yk_heap_alloc(size_t bytes);
void *__wrap_yk_heap_alloc(size_t bytes)
{
    void *const block = __real_yk_heap_alloc(bytes);
    if (block != NULL) {
        MUST(seam_in_heap(block, bytes));
        memset(block, 0xEE, bytes);
        seam_dirty(block, bytes);
        w.blocks[w.block_count % BLOCKS].start = block;
        w.blocks[w.block_count++ % BLOCKS].bytes = bytes;
    }
    return block;
}

/* --- jobs ----------------------------------------------------------------------------------- */

static int task(yoke_task *task_, const void *in, void *out)
{
    (void)task_;
    (void)in;
    (void)out;
    abort(); /* only workers run it, and those are played */
}

static int range(yoke_task *task_, size_t begin, size_t end, void *accumulator)
{
    (void)begin;
    (void)end;
    return task(task_, NULL, accumulator);
}

static bool is_broken(void)
{
    return w.pool->closed == YOKE_EBROKEN;
}

static struct job *submit(uint64_t in, size_t in_bytes, size_t out_bytes, yoke_options *options)
{
    if (p.job_count == JOBS || p.stopped || (p.depth > 0 && w.pool->in_flight >= YK_TABLE_SLOTS)) {
        return NULL;
    }
    unsigned char bytes[64] = {0};
    memcpy(bytes, &in, sizeof in);
    struct job *const job = &p.jobs[p.job_count];
    *job = (struct job){.in = in, .timed = options->timeout_ns != 0};
    options->size = sizeof *options;
    p.depth++;
    const int rc = yoke_submit(w.pool, task, bytes, in_bytes, out_bytes, options, &job->job);
    p.depth--;
    if (rc != 0) {
        MUST(rc == -ENOMEM || rc == -EINTR || (rc == YOKE_EBROKEN && is_broken()));
        job->job = NULL;
        return NULL;
    }
    p.job_count++;
    p.accepted++;
    return job;
}

static void submit_some(struct input *input)
{
    const unsigned shape = take(input, 32);
    static const unsigned char context[40];
    yoke_options options = {.retries = shape & 1};
    if ((shape & 4) != 0) {
        options.timeout_ns = 1000000 * (1 + (int64_t)take(input, 100));
    }
    if ((shape & 8) != 0) {
        options.context = context;
        options.context_bytes = sizeof context;
    }
    const bool small = (shape & 2) != 0;
    (void)submit(take_bytes(input, 1), small ? 8 : 24, small ? 8 : 32, &options);
}

/* The outcome of a job that has ended is one of five, and its result can be read. */
static void check_ended(struct job *job)
{
    yoke_outcome outcome;
    const unsigned char *out = NULL;
    size_t bytes = 0;
    MUST(yoke_job_result(job->job, &outcome, (const void **)&out, &bytes) == 0);
    MUST(outcome.kind >= YOKE_OK && outcome.kind <= YOKE_TIMEDOUT);
    MUST(outcome.attempts <= 2 || w.table_spoiled);
    if (bytes != 0) {
        MUST(out != NULL);
        volatile unsigned char sum = out[0];
        sum = (unsigned char)(sum + out[bytes - 1]);
    }
    if (!w.table_spoiled && outcome.kind == YOKE_OK) {
        uint64_t x = 0;
        MUST(bytes >= sizeof x);
        memcpy(&x, out, sizeof x);
        MUST(x == job->in * 3 + 1);
    }
    if (!w.table_spoiled) {
        MUST(outcome.kind != YOKE_TIMEDOUT || job->timed);
        MUST(outcome.kind != YOKE_CANCELLED || job->cancelled || p.stopped || is_broken());
        MUST(outcome.kind != YOKE_CRASHED || w.died);
    }
}

static struct job *some_job(struct input *input)
{
    struct job *const job = p.job_count != 0 ? &p.jobs[take(input, p.job_count)] : NULL;
    return job != NULL && job->job != NULL ? job : NULL;
}

static void ask_job(struct input *input)
{
    const unsigned what = take(input, 8);
    struct job *const job = some_job(input);
    if (job == NULL) {
        return;
    }
    switch (what) {
    case 0:
    case 1:
        if (yoke_wait(job->job, 0) == 0) {
            check_ended(job);
        }
        break;
    case 2: {
        const int rc = yoke_job_result(job->job, NULL, NULL, NULL);
        MUST(rc == 0 || rc == -EAGAIN);
        break;
    }
    case 3:
    case 4: {
        const int rc = yoke_job_cancel(job->job, what == 4);
        MUST(rc == 0 || rc == -EALREADY);
        job->cancelled = job->cancelled || rc == 0;
        break;
    }
    case 5:
        if (job != p.busy) {
            yoke_job_release(job->job);
            job->job = NULL;
        }
        break;
    default:
        if (p.depth == 0) {
            p.depth++;
            p.busy = job;
            const int rc = yoke_wait(job->job, seam_now_ns + 300000000);
            MUST(rc == 0 || rc == -ETIMEDOUT || rc == -EINTR);
            p.busy = NULL;
            p.depth--;
        }
        break;
    }
}

static void ask_pool(void)
{
    yoke_job *all[JOBS];
    size_t index = 0;
    for (unsigned i = 0; i < p.job_count; i++) {
        all[i] = p.jobs[i].job;
    }
    if (yoke_wait_any(all, p.job_count, 0, &index) == 0) {
        check_ended(&p.jobs[index]);
    }
    yoke_pool_stats stats = {.size = sizeof stats};
    int pids[4];
    MUST(yoke_pool_stats_get(w.pool, &stats) == 0);
    MUST(yoke_pool_worker_ids(w.pool, pids, YK_COUNT_OF(pids)) >= 0);
}

/* --- sweeps --------------------------------------------------------------------------------- */

struct sweep {
    uint64_t in[ITEMS_MAX];
    uint64_t out[ITEMS_MAX];
    yoke_outcome outcomes[ITEMS_MAX];
};

static int on_progress(void *user, size_t done, size_t total)
{
    const size_t *const stop_at = user;
    MUST(done <= total);
    return done >= *stop_at;
}

static void on_merge(void *accumulator, const void *other, void *user)
{
    uint64_t sum = 0;
    uint64_t more = 0;
    (void)user;
    memcpy(&sum, accumulator, sizeof sum);
    memcpy(&more, other, sizeof more);
    sum += more;
    memcpy(accumulator, &sum, sizeof sum);
}

static void check_items(const struct sweep *sweep, size_t count, int rc)
{
    if (rc == -ENOMEM) {
        return; /* perhaps before it began */
    }
    for (size_t i = 0; i < count; i++) {
        const yoke_outcome *const outcome = &sweep->outcomes[i];
        MUST(outcome->kind >= YOKE_OK && outcome->kind <= YOKE_TIMEDOUT);
        MUST(outcome->item == i);
        MUST(w.table_spoiled || outcome->kind != YOKE_OK || sweep->out[i] == sweep->in[i] * 3 + 1);
    }
}

static void sweep_some(struct input *input)
{
    const unsigned shape = take(input, 64);
    const size_t count = 1 + take(input, ITEMS_MAX);
    size_t stop_at = take(input, 8) == 0 ? count / 2 : SIZE_MAX;
    yoke_outcome failure = {.kind = -77};
    if (p.depth > 0 || p.stopped) {
        return;
    }
    /* Of the size in use, so that a byte too many is seen. */
    struct sweep *const sweep = calloc(1, sizeof *sweep);
    uint64_t *const out = malloc(count * sizeof *out);
    MUST(sweep != NULL && out != NULL);
    for (size_t i = 0; i < count; i++) {
        sweep->in[i] = i * 5;
        sweep->outcomes[i].kind = -77;
    }
    memset(out, 0, count * sizeof *out);
    yoke_options options = {.size = sizeof options,
                            .retries = shape & 1,
                            .failure = &failure,
                            .progress = on_progress,
                            .user = &stop_at};
    options.timeout_ns = (shape & 2) != 0 ? 1000000 * (1 + (int64_t)take(input, 100)) : 0;
    options.outcomes = (shape & 4) != 0 ? sweep->outcomes : NULL;
    int rc = 0;
    uint64_t sum = 0;
    p.depth++;
    p.swept++;
    switch (shape >> 3 & 3) {
    case 0:
        rc = yoke_for(w.pool, range, count, &options);
        break;
    case 1:
        rc = yoke_reduce(w.pool, range, on_merge, count, &sum, sizeof sum, &options);
        break;
    default:
        rc =
            yoke_map(w.pool, task, sweep->in, sizeof *sweep->in, out, sizeof *out, count, &options);
        memcpy(sweep->out, out, count * sizeof *out);
        if (options.outcomes != NULL) {
            check_items(sweep, count, rc);
        }
        break;
    }
    p.depth--;
    MUST(rc == 0 || rc == YOKE_ETASK || rc == -ECANCELED || rc == -ENOMEM ||
         (rc == YOKE_EBROKEN && is_broken()));
    MUST(rc != YOKE_ETASK || failure.kind != -77);
    free(sweep);
    free(out);
}

/* --- one input ------------------------------------------------------------------------------ */

static void step(struct input *input)
{
    struct seam_process *process = NULL;
    switch (take(input, 16)) {
    case 0:
        submit_some(input);
        break;
    case 1:
        ask_job(input);
        break;
    case 2:
        sweep_some(input);
        break;
    case 3:
        ask_pool();
        break;
    case 4:
        process = some_process(input);
        if (process != NULL) {
            die_at(process, take(input, 16));
        }
        break;
    case 5:
        (void)seam_keeper_step();
        break;
    case 6:
        seam_now_ns += (int64_t)take_bytes(input, 2) * 10000;
        break;
    case 7:
    case 8:
    case 9:
    case 10:
        spoil(input);
        break;
    case 11:
        spoil_result(input);
        break;
    default:
        process = some_process(input);
        if (process != NULL) {
            work(process, (int32_t)take(input, 9));
        }
        break;
    }
}

/* Whoever may have written dies; who comes after them is honest. */
static void replace_all(void)
{
    p.settling = true;
    seam_waits = 0;
    seam_waits_max = WAITS_MAX;
    w.died = w.died || w.table_spoiled;
    const int last = seam_process_count;
    for (int i = 0; i < last; i++) {
        if (w.table_spoiled) {
            seam_end(&seam_processes[i], yk_signal_kill());
        }
    }
}

/* What the others do while the program waits. */
static bool go_on(void)
{
    if (w.input->left > 0 && !p.settling) {
        step(w.input);
        return take(w.input, 32) == 1; /* a signal */
    }
    if (!p.settling) {
        replace_all();
    }
    for (int i = 0; i < seam_process_count; i++) {
        if (!seam_processes[i].ended) {
            work(&seam_processes[i], 0);
        }
    }
    (void)seam_keeper_step();
    return false;
}

static void create(struct input *input)
{
    yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES};
    const unsigned shape = take(input, 48);
    config.workers = 1 + shape % 3;
    config.interrupt_grace_ns = (shape & 4) != 0 ? 3000000 : 0;
    config.terminate_grace_ns = (shape & 8) != 0 ? 5000000 : 0;
    config.tasks_max = w.tasks_max = (shape & 32) != 0 ? 3 : 0;
    seam_waits_max = WAITS_MAX;
    w.input = &(struct input){0}; /* the birth is honest */
    p.settling = true;
    /* The played workers need the table before create gives us the pool. */
    MUST(yoke_pool_create(&config, &w.pool) == 0);
    p.settling = false;
    w.input = input;
}

/* Every job ends, every wait returns, and the pool works as before. */
static void settle(void)
{
    replace_all();
    while (seam_keeper_step()) {
    }
    for (unsigned i = 0; i < p.job_count; i++) {
        if (p.jobs[i].job != NULL) {
            MUST(yoke_wait(p.jobs[i].job, seam_now_ns + PATIENCE_NS) == 0);
            check_ended(&p.jobs[i]);
        }
    }
    if (w.heap_spoiled || is_broken() || p.job_count == JOBS) {
        return;
    }
    yoke_options options = {0};
    struct job *const job = submit(1234567, 8, 8, &options);
    yoke_outcome outcome;
    const void *out = NULL;
    size_t bytes = 0;
    MUST(job != NULL || is_broken());
    if (job == NULL) {
        return;
    }
    MUST(yoke_wait(job->job, seam_now_ns + PATIENCE_NS) == 0);
    MUST(yoke_job_result(job->job, &outcome, &out, &bytes) == 0);
    MUST(outcome.kind == YOKE_OK || is_broken());
    MUST(outcome.kind != YOKE_OK || (bytes == 8 && *(const uint64_t *)out == 1234567 * 3 + 1));
}

static void release_all(void)
{
    for (unsigned i = 0; i < p.job_count; i++) {
        if (p.jobs[i].job != NULL && p.stopped) {
            check_ended(&p.jobs[i]);
        }
        yoke_job_release(p.jobs[i].job);
        p.jobs[i].job = NULL;
    }
}

static void finish(unsigned how)
{
    if ((how & 1) != 0) {
        settle();
        yoke_pool_stats stats = {.size = sizeof stats};
        MUST(yoke_pool_stats_get(w.pool, &stats) == 0);
        bool released = false;
        for (unsigned i = 0; i < p.job_count; i++) {
            released = released || p.jobs[i].job == NULL;
        }
        MUST(released || stats.in_flight == 0);
        MUST(released || p.swept > 0 || stats.tasks == p.accepted);
    }
    if ((how & 2) != 0) {
        release_all();
    }
    p.stopped = true;
    p.depth++;
    const int64_t until = (how & 4) != 0 ? 0 : seam_now_ns + PATIENCE_NS;
    const int rc = yoke_pool_destroy(w.pool, until);
    MUST(rc == 0 || rc == -ETIMEDOUT);
    release_all();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    seam_reset();
    memset(&p, 0, sizeof p);
    memset(&w, 0, sizeof w);
    seam_idle = go_on;
    const unsigned how = take(&input, 8);
    create(&input);
    for (unsigned ops = 0; input.left > 0 && ops < OPS_MAX; ops++) {
        seam_waits = 0;
        step(&input);
    }
    input.left = 0;
    finish(how);
    if (!w.table_spoiled) {
        yoke_heap_stats stats = {.size = sizeof stats};
        MUST(yoke_heap_stats_get(&stats) == 0);
        MUST(stats.blocks == 0);
    }
    seam_check_leaks();
    return 0;
}
