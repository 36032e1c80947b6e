/* SPDX-License-Identifier: MIT
 * test_orphans.c - the program is killed with -9 while its pools are busy: nothing is left.
 *
 * Idea: this test adopts orphans (PR_SET_CHILD_SUBREAPER), so that whatever a killed program
 * leaves behind becomes ours and is counted. The time until all are gone is printed; only
 * seconds are a failure, since the machine may be loaded.
 */
/* timeout: 180 */
#include "check.h"
#include <pthread.h>

struct scene {
    int ready; /* the write end of a pipe */
    int kind, image, spin, from_thread, process;
};

static int busy(yoke_task *task, const void *in, void *out)
{
    const int spin = *(const int *)in;
    (void)task;
    (void)out;
    for (;;) {
        if (!spin)
            breathe();
    }
    return 0;
}

static int busy_process(void *arg)
{
    (void)arg;
    for (;;)
        breathe();
    return 0;
}

/* Kept where a leak checker finds them: a scene gives nothing back, that is its point. */
static yoke_pool *pool;
static yoke_job *jobs[8];
static yoke_process *process;

static void *run_scene(void *arg)
{
    const struct scene *scene = arg;
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .image = scene->image, .workers = 2};
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    check_pool_works(pool);
    for (int i = 0; i < 8 && scene->kind == 0; i++)
        CHECK_RC(yoke_submit(pool, busy, &scene->spin, sizeof scene->spin, 0, NULL, &jobs[i]), 0);
    if (scene->process)
        CHECK_RC(yoke_process_start(NULL, busy_process, NULL, &process), 0);
    CHECK_EQ(write(scene->ready, "r", 1), 1);
    return NULL;
}

static int play(const struct scene *scene)
{
    if (scene->image == YOKE_SEED)
        CHECK_RC(yoke_init(), 0);
    if (scene->from_thread) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, run_scene, (void *)(uintptr_t)scene), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    } else {
        (void)run_scene((void *)(uintptr_t)scene);
    }
    /* The tasks never end, so neither does this wait. */
    (void)yoke_sleep_until(YOKE_FOREVER);
    return 0;
}

static int reap_and_count(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    return count_children();
}

static double kill_program(struct scene scene, int sig)
{
    int pipes[2];
    CHECK_EQ(reap_and_count(), 0);
    CHECK_EQ(pipe(pipes), 0);
    scene.ready = pipes[1];
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(CHECK_TIMEOUT);
        _exit(play(&scene));
    }
    close(pipes[1]);
    char c;
    CHECK_EQ(read(pipes[0], &c, 1), 1);
    const int family = count_descendants(getpid(), NULL, 0, NULL);
    CHECK(family >= 4); /* the program, two workers, a template */
    const int64_t start = yoke_now_ns();
    CHECK_EQ(kill(pid, sig), 0);
    while (reap_and_count() > 0) {
        CHECK(yoke_now_ns() - start < INT64_C(2000000000) * check_slowness());
        sched_yield();
    }
    const double ms = (double)(yoke_now_ns() - start) / 1e6;
    CHECK_EQ(read(pipes[0], &c, 1), 0); /* nobody holds its descriptors either */
    close(pipes[0]);
    return ms;
}

static void measure(const char *what, struct scene scene, int sig)
{
    double worst = 0;
    for (int round = 0; round < 5; round++) {
        const double ms = kill_program(scene, sig);
        worst = ms > worst ? ms : worst;
    }
    fprintf(stderr, "    %-28s all gone after %.1f ms at most%s\n", what, worst,
            worst > 50 ? " (aim: 50)" : "");
}

static void nothing_is_left_after_kill_9(void)
{
    measure("busy, spinning", (struct scene){.spin = 1}, SIGKILL);
    measure("busy, sleeping", (struct scene){.spin = 0}, SIGKILL);
    measure("idle", (struct scene){.kind = 1}, SIGKILL);
    measure("made by a thread that ended", (struct scene){.from_thread = 1}, SIGKILL);
    measure("seed image", (struct scene){.image = YOKE_SEED}, SIGKILL);
    measure("with a single process", (struct scene){.process = 1}, SIGKILL);
}

static void nor_after_other_ends(void)
{
    measure("SIGTERM", (struct scene){.spin = 1}, SIGTERM);
    measure("SIGSEGV", (struct scene){.spin = 0}, SIGSEGV);
    measure("SIGINT", (struct scene){.spin = 0, .process = 1}, SIGINT);
}

/* A program that just returns from main, its pools never destroyed. */
static int forget_everything(void *arg)
{
    int pipes[2];
    (void)arg;
    CHECK_EQ(pipe(pipes), 0);
    struct scene scene = {.ready = pipes[1], .process = 1};
    (void)run_scene(&scene);
    exit(0);
}

static void nor_when_main_returns(void)
{
    CHECK_CHILD(forget_everything, NULL);
    WAIT_MS(reap_and_count() == 0, 2000 * check_slowness());
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("orphans need processes");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        skip("no child subreaper here");
    check_kind = YOKE_PROCESSES;
    RUN(nothing_is_left_after_kill_9);
    RUN(nor_after_other_ends);
    RUN(nor_when_main_returns);
    return 0;
}
