/* SPDX-License-Identifier: MIT
 * inject_scenes.h - what the library is asked to do while one of its calls fails.
 *
 * Idea: a scene makes honest use of a part of the library and backs out at the first error, as a
 * good program does. Every error must be one that the headers name for that call; every task ends
 * once and was begun at most once (an own counter each, retries are 0); a worker may be lost to a
 * fault in a worker, or to a scene that kills one. Without a fault all of it must go well.
 */
#ifndef YOKE_TESTS_INJECT_SCENES_H
#define YOKE_TESTS_INJECT_SCENES_H

#include "inject_plan.h"
#include <limits.h>
#include <pthread.h>

#define SCENE_ANY INT_MIN /* any -errno, says the header */

enum { SCENE_ITEMS = 24, SCENE_JOBS = 6, SCENE_MS = 10000 };

/* In memory that all share. */
struct scene_counts {
    atomic_long starts[SCENE_ITEMS + SCENE_JOBS];
    atomic_long process_starts, process_go;
    long process_wrote;
};

/* One run of a scene. */
struct scene {
    struct scene_counts *counts;
    int faults; /* one may come */
    /* how it went */
    char error[64]; /* the first error of a call; "" if all went well */
    long crashed;
};

static inline int64_t scene_until(void)
{
    return yoke_in_ms((int64_t)SCENE_MS * check_slowness());
}

static inline _Noreturn void scene_wrong(const char *what, long a, long b)
{
    snprintf(inject_area->why, sizeof inject_area->why, "%s (%ld, %ld)", what, a, b);
    _exit(3);
}

static inline void scene_stage(const char *what)
{
    snprintf(inject_area->stage, sizeof inject_area->stage, "%.63s", what);
}

/* The call gave rc, which is 0 or among `named`, those of its header (0 ends them). */
static inline int scene_call(struct scene *scene, const char *call, int rc, const int *named)
{
    if (rc == 0)
        return 0;
    int known = 0;
    for (const int *one = named; *one != 0; one++)
        known |= *one == rc || (*one == SCENE_ANY && rc > -4096 && rc < 0);
    if (!known || !scene->faults) {
        snprintf(inject_area->why, sizeof inject_area->why, "%s gave %d (%s)%s", call, rc,
                 yoke_strerror(rc),
                 known ? " without a fault" : ", which its header does not name");
        _exit(3);
    }
    if (scene->error[0] == '\0')
        snprintf(scene->error, sizeof scene->error, "%.31s: %.30s", call,
                 rc > -4096 ? strerrorname_np(-rc) : yoke_strerror(rc));
    return rc;
}

#define NAMED(...) ((const int[]){__VA_ARGS__, 0})
/* Memory, processes or threads, descriptors are used up. */
#define SCENE_CALL(scene, call, ...) \
    (scene_stage(#call), scene_call((scene), scene_name(#call), (call), NAMED(__VA_ARGS__)))

/* "yoke_map(pool, ...)" as "yoke_map" */
static inline const char *scene_name(const char *call)
{
    static char name[64];
    const size_t length = strcspn(call, "(");
    snprintf(name, sizeof name, "%.*s", (int)length, call);
    return name;
}

/* ---- tasks --------------------------------------------------------------------------------- */

struct scene_input {
    atomic_long *starts;
    int64_t x;
    int mode; /* 0; 1: a result of its own size; 2: until it is cancelled */
};

static int scene_item(yoke_task *task, const void *in, void *out)
{
    atomic_long *const starts = *(atomic_long *const *)yoke_task_context(task);
    count_up(&starts[yoke_task_item(task)], 1);
    return check_square(task, in, out);
}

static int scene_job(yoke_task *task, const void *in, void *out)
{
    const struct scene_input *const input = in;
    count_up(input->starts, 1);
    if (input->mode == 1) {
        int64_t *const result = yoke_task_result(task, 3000);
        if (result == NULL)
            return 7;
        result[0] = input->x;
        return 0;
    }
    while (input->mode == 2 && !yoke_task_cancelled(task))
        breathe();
    memcpy(out, &input->x, sizeof input->x);
    return 0;
}

static inline void scene_outcome(struct scene *scene, const yoke_outcome *outcome, long starts)
{
    if (starts > 1)
        scene_wrong("a task began twice", starts, outcome->kind);
    if (outcome->kind == YOKE_OK && starts != 1)
        scene_wrong("a task is OK and never began", starts, outcome->item);
    if (outcome->kind == YOKE_CRASHED)
        scene->crashed++;
}

static inline void scene_map(struct scene *scene, yoke_pool *pool)
{
    int64_t in[SCENE_ITEMS], out[SCENE_ITEMS];
    yoke_outcome outcomes[SCENE_ITEMS];
    atomic_long *const starts = scene->counts->starts;
    for (int i = 0; i < SCENE_ITEMS; i++) {
        in[i] = i + 3;
        out[i] = 0;
        count_set(&starts[i], 0);
    }
    const yoke_options options = {.size = sizeof options,
                                  .context = &starts,
                                  .context_bytes = sizeof starts,
                                  .outcomes = outcomes};
    scene_stage("yoke_map");
    const int rc = yoke_map(pool, scene_item, in, 8, out, 8, SCENE_ITEMS, &options);
    if (rc != YOKE_ETASK && scene_call(scene, "yoke_map", rc, NAMED(-ENOMEM, YOKE_EBROKEN)) != 0)
        return;
    long bad = 0;
    for (int i = 0; i < SCENE_ITEMS; i++) {
        scene_outcome(scene, &outcomes[i], count_get(&starts[i]));
        bad += outcomes[i].kind != YOKE_OK;
        if (outcomes[i].kind == YOKE_OK && out[i] != in[i] * in[i])
            scene_wrong("an item's result is wrong", i, (long)out[i]);
        if (outcomes[i].kind != YOKE_OK && outcomes[i].kind != YOKE_CRASHED)
            scene_wrong("an item ended as", outcomes[i].kind, outcomes[i].code);
    }
    if ((bad != 0) != (rc == YOKE_ETASK))
        scene_wrong("yoke_map and its outcomes differ", rc, bad);
}

static inline void scene_job_over(struct scene *scene, yoke_job *job,
                                  const struct scene_input *input)
{
    int rc;
    for (int signals = 0;; signals++) {
        scene_stage("yoke_wait");
        rc = yoke_wait(job, scene_until());
        if (rc != -EINTR || !scene->faults || signals == 100)
            break;
    }
    if (rc != 0)
        scene_wrong("lost: yoke_wait gave", rc, input->mode);
    yoke_outcome outcome = {.kind = -1};
    const void *out = NULL;
    size_t bytes = 0;
    CHECK_RC(yoke_job_result(job, &outcome, &out, &bytes), 0);
    scene_outcome(scene, &outcome, count_get(input->starts));
    if (outcome.kind == YOKE_OK && (out == NULL || memcmp(out, &input->x, 8) != 0))
        scene_wrong("a result is wrong", input->mode, (long)bytes);
    if (outcome.kind == YOKE_FAILED && outcome.code == 7 && scene->faults)
        snprintf(scene->error, sizeof scene->error, "yoke_task_result: NULL");
    else if (outcome.kind != YOKE_OK && outcome.kind != YOKE_CRASHED &&
             !(outcome.kind == YOKE_CANCELLED && (input->mode == 2 || scene->error[0])) &&
             !(outcome.kind == YOKE_TIMEDOUT && input->mode == 2))
        scene_wrong("a job ended as", outcome.kind, input->mode);
    yoke_job_release(job);
}

static inline void scene_jobs(struct scene *scene, yoke_pool *pool)
{
    yoke_job *jobs[SCENE_JOBS] = {0};
    struct scene_input inputs[SCENE_JOBS];
    for (int i = 0; i < SCENE_JOBS; i++) {
        inputs[i] = (struct scene_input){
            .starts = &scene->counts->starts[SCENE_ITEMS + i], .x = 100 + i, .mode = i % 3};
        count_set(inputs[i].starts, 0);
        const yoke_options options = {.size = sizeof options, .timeout_ns = i == 2 ? 20000000 : 0};
        (void)SCENE_CALL(
            scene,
            yoke_submit(pool, scene_job, &inputs[i], sizeof inputs[i], 8, &options, &jobs[i]),
            -ENOMEM, YOKE_EBROKEN, -EINTR);
    }
    if (jobs[5] != NULL)
        (void)yoke_job_cancel(jobs[5], 1);
    for (int i = 0; i < SCENE_JOBS; i++)
        if (jobs[i] != NULL)
            scene_job_over(scene, jobs[i], &inputs[i]);
}

/* Kill one, and see the pool whole again; unless there is a fault that lasts. */
static inline void scene_kill_one(struct scene *scene, yoke_pool *pool)
{
    int pids[8];
    yoke_pool_stats before = {.size = sizeof before}, now = {.size = sizeof now};
    scene_stage("a worker is killed");
    CHECK_RC(yoke_pool_stats_get(pool, &before), 0);
    const int count = yoke_pool_worker_ids(pool, pids, 8);
    if (count < 1 || !signal_child(pids[0], SIGKILL))
        return;
    const int lasts = inject_area->plan.times == INJECT_FOR_EVER && scene->faults;
    const int64_t until = scene_until();
    do {
        breathe();
        CHECK_RC(yoke_pool_stats_get(pool, &now), 0);
        if (yoke_now_ns() > until)
            scene_wrong("a worker that was killed is not replaced", now.died, now.workers);
    } while (now.died == before.died || (!lasts && now.workers < before.workers));
}

static inline yoke_pool *scene_pool(struct scene *scene, int kind, int image)
{
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = kind,
                                     .image = image,
                                     .workers = 2,
                                     .workers_max = kind == YOKE_THREADS ? 4 : 2};
    yoke_pool *pool = NULL;
    if (SCENE_CALL(scene, yoke_pool_create(&config, &pool), -ENOMEM, -EAGAIN, -EMFILE, YOKE_EINIT))
        return NULL;
    return pool;
}

static inline void scene_end_pool(struct scene *scene, yoke_pool *pool)
{
    scene_stage("yoke_pool_destroy");
    const int rc = yoke_pool_destroy(pool, scene_until());
    if (rc != 0)
        scene_wrong("yoke_pool_destroy gave", rc, scene->faults);
}

/* ---- the scenes ---------------------------------------------------------------------------- */

static void scene_heap(struct scene *scene)
{
    static const size_t sizes[] = {1, 100, 5000, 70000, 3000000};
    void *blocks[sizeof sizes / sizeof *sizes] = {0};
    yoke_heap_stats stats = {.size = sizeof stats};
    (void)SCENE_CALL(scene, yoke_heap_limit((size_t)64 << 20), -ENOMEM);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        scene_stage("yoke_shared_alloc");
        blocks[i] = yoke_shared_alloc(sizes[i]);
        if (blocks[i] != NULL)
            memset(blocks[i], 1, sizes[i]);
        else
            (void)scene_call(scene, "yoke_shared_alloc", -ENOMEM, NAMED(-ENOMEM));
    }
    (void)SCENE_CALL(scene, yoke_heap_stats_get(&stats), -ENOMEM);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        yoke_shared_free(blocks[i]);
}

static void scene_threads(struct scene *scene)
{
    yoke_pool *const pool = scene_pool(scene, YOKE_THREADS, 0);
    if (pool == NULL)
        return;
    scene_map(scene, pool);
    scene_jobs(scene, pool);
    scene_end_pool(scene, pool);
}

static void scene_processes(struct scene *scene)
{
    yoke_pool *const pool = scene_pool(scene, YOKE_PROCESSES, YOKE_SNAPSHOT);
    if (pool == NULL)
        return;
    scene_map(scene, pool);
    scene_jobs(scene, pool);
    scene_kill_one(scene, pool);
    scene_map(scene, pool);
    scene_end_pool(scene, pool);
}

static inline int scene_init(struct scene *scene)
{
    return SCENE_CALL(scene, yoke_init(), -ENOMEM, -EAGAIN, -EMFILE);
}

static void scene_seed(struct scene *scene)
{
    if (scene_init(scene) != 0)
        return;
    yoke_pool *const pool = scene_pool(scene, YOKE_PROCESSES, YOKE_SEED);
    if (pool == NULL)
        return;
    scene_map(scene, pool);
    scene_kill_one(scene, pool);
    scene_end_pool(scene, pool);
}

/* The template is killed, then a worker: a new image has to be made. */
static void scene_replant(struct scene *scene)
{
    yoke_pool *const pool = scene_pool(scene, YOKE_PROCESSES, YOKE_SNAPSHOT);
    if (pool == NULL)
        return;
    int template = -1;
    if (count_descendants(getpid(), "yoke-template", 0, &template) == 1)
        (void)signal_child(template, SIGKILL);
    scene_kill_one(scene, pool);
    scene_map(scene, pool);
    scene_end_pool(scene, pool);
}

static int scene_process_body(void *arg)
{
    struct scene_counts *const counts = arg;
    count_up(&counts->process_starts, 1);
    while (!count_get(&counts->process_go))
        breathe();
    counts->process_wrote = 11;
    return 5;
}

static inline void scene_one_process(struct scene *scene, int image, int kill)
{
    struct scene_counts *const counts = scene->counts;
    count_set(&counts->process_starts, 0);
    count_set(&counts->process_go, !kill);
    counts->process_wrote = 0;
    const yoke_process_config config = {.size = sizeof config, .image = image, .name = "scene"};
    yoke_process *process = NULL;
    yoke_process_end end = {0};
    const int rc =
        SCENE_CALL(scene, yoke_process_start(&config, scene_process_body, counts, &process),
                   -EAGAIN, -ENOMEM, -EMFILE, -ESRCH);
    if (rc != 0) {
        if (count_get(&counts->process_starts) != 0)
            scene_wrong("a process that was refused has run", rc, image);
        return;
    }
    if (kill)
        (void)SCENE_CALL(scene, yoke_process_kill(process), -EPERM);
    count_set(&counts->process_go, !kill || scene->error[0]);
    int waited;
    for (int signals = 0;; signals++) {
        scene_stage("yoke_process_wait");
        waited = yoke_process_wait(process, scene_until(), &end);
        if (waited != -EINTR || signals == 100 || !scene->faults)
            break;
    }
    if (waited != 0)
        scene_wrong("lost: yoke_process_wait gave", waited, image);
    if (count_get(&counts->process_starts) > 1)
        scene_wrong("a process ran twice", image, kill);
    const int well = kill ? end.signal == SIGKILL : end.code == 5 && counts->process_wrote == 11;
    if (!well && !scene->faults)
        scene_wrong("a process ended as", end.code, end.signal);
    scene->crashed += !well;
    scene_stage("yoke_process_release");
    yoke_process_release(process);
}

static void scene_process(struct scene *scene)
{
    scene_one_process(scene, YOKE_SNAPSHOT, 0);
    scene_one_process(scene, YOKE_SNAPSHOT, 1);
}

static void scene_process_of_seed(struct scene *scene)
{
    if (scene_init(scene) != 0)
        return;
    scene_one_process(scene, YOKE_SEED, 0);
    scene_one_process(scene, YOKE_SEED, 1);
}

/* As a good program does: what failed for now is tried again. */
static inline void scene_kill(struct scene *scene, yoke_process *process)
{
    if (SCENE_CALL(scene, yoke_process_kill(process), -EPERM, -ESRCH, -EAGAIN))
        (void)yoke_process_kill(process);
}

/* A program that writes what it is given, and one that has to be killed. */
static inline void scene_programs(struct scene *scene, unsigned flags)
{
    static const char *const speaks[] = {"/bin/sh", "-c", "cat; echo oops >&2", NULL};
    static const char *const sleeps[] = {"/bin/sleep", "100", NULL};
    for (int kill = 0; kill < 2; kill++) {
        const yoke_program program = {
            .size = sizeof program,
            .argv = kill ? sleeps : speaks,
            .input = {.kind = YOKE_STREAM_BYTES, .bytes = "hello", .byte_count = 5},
            .output = {.kind = YOKE_STREAM_CAPTURE},
            .error = {.kind = YOKE_STREAM_CAPTURE},
            .flags = flags};
        yoke_process *process = NULL;
        yoke_process_end end = {0};
        yoke_output output = {.size = sizeof output};
        if (SCENE_CALL(scene, yoke_program_start(&program, &process), SCENE_ANY))
            return;
        if (kill)
            scene_kill(scene, process);
        int rc;
        for (int signals = 0;; signals++) {
            scene_stage("yoke_process_wait");
            rc = yoke_process_wait(process, scene_until(), &end);
            if (rc != -EINTR || !scene->faults || signals == 100)
                break;
        }
        if (rc != 0)
            scene_wrong("lost: yoke_process_wait gave", rc, kill);
        if (kill ? end.signal != SIGKILL : end.code != 0)
            scene_wrong("a program ended as", end.code, end.signal);
        rc = SCENE_CALL(scene, yoke_process_output(process, 1, &output), -ENOMEM);
        if (!kill && rc == 0 && output.dropped == 0 &&
            (output.bytes != 5 || memcmp(output.data, "hello", 5) != 0))
            scene_wrong("an output is wrong, and nothing was dropped", (long)output.bytes, 0);
        yoke_process_release(process);
    }
}

static void scene_program(struct scene *scene)
{
    scene_programs(scene, 0);
}

static void scene_program_plain(struct scene *scene)
{
    scene_programs(scene, YOKE_PROGRAM_PLAIN);
}

static int scene_thread_body(void *arg)
{
    count_up(arg, 1);
    return yoke_sleep_until(scene_until());
}

static void scene_thread(struct scene *scene)
{
    const int cpus[] = {sched_getcpu()};
    const yoke_thread_config config = {.size = sizeof config,
                                       .name = "scene",
                                       .stack_bytes = 100000,
                                       .cpus = cpus,
                                       .cpu_count = 1};
    atomic_long *const starts = &scene->counts->starts[0];
    count_set(starts, 0);
    yoke_thread *thread = NULL;
    if (SCENE_CALL(scene, yoke_thread_start(&config, scene_thread_body, starts, &thread), -EAGAIN,
                   -ENOMEM, -EINVAL))
        return;
    CHECK_RC(yoke_thread_interrupt(thread), 0);
    int code = 0, rc;
    for (int signals = 0;; signals++) {
        scene_stage("yoke_thread_wait");
        rc = yoke_thread_wait(thread, scene_until(), &code);
        if (rc != -EINTR || signals == 100 || !scene->faults)
            break;
    }
    if (rc != 0 || count_get(starts) != 1)
        scene_wrong("lost: yoke_thread_wait gave", rc, count_get(starts));
    if (code != -ECANCELED && !(code == -EINTR && scene->faults))
        scene_wrong("yoke_sleep_until gave", code, 0);
    yoke_thread_release(thread);
}

static void scene_asking(struct scene *scene)
{
    scene_stage("yoke_cpu_count");
    const unsigned cpus = yoke_cpu_count();
    if (cpus < 1 || cpus > 65536)
        scene_wrong("yoke_cpu_count gave", (long)cpus, 0);
    const int64_t until = yoke_in_ms(2);
    int rc = SCENE_CALL(scene, yoke_sleep_until(until), -EINTR);
    if (rc == 0 && yoke_now_ns() < until)
        scene_wrong("yoke_sleep_until came back early", 0, 0);
}

#endif
