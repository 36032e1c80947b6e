/* SPDX-License-Identifier: MIT
 * test_warm.c - the copy of the seed that waits for the next single process.
 *
 * Idea: whatever happens to the copy (killed, stopped, left behind by a new seed, or taken by
 * several threads at once), each start gives a process that runs its own function with its own
 * argument, once; and in the end there are as many processes, descriptors and blocks as before.
 */
/* timeout: 120 */
#define CHECK_TIMEOUT 60
#include "check.h"
#include <pthread.h>
#include <stdbool.h>

enum { STARTS = 60, THREADS = 3, MORE = 30 };

static long global = 1; /* of the image */

struct note {
    atomic_long runs, pid, global;
};

static yoke_process *start(yoke_process_fn *fn, void *arg, const char *name)
{
    const yoke_process_config config = {.size = sizeof config, .image = YOKE_SEED, .name = name};
    yoke_process *process = NULL;
    CHECK_RC(yoke_process_start(&config, fn, arg, &process), 0);
    return process;
}

static yoke_process_end finish(yoke_process *process)
{
    yoke_process_end end = {.code = -2};
    CHECK_RC(yoke_process_wait(process, soon(), &end), 0);
    yoke_process_release(process);
    return end;
}

static int note(void *arg)
{
    struct note *to = arg;
    count_up(&to->runs, 1);
    count_set(&to->pid, getpid());
    count_set(&to->global, global);
    return 7;
}

static int answer(void *arg)
{
    return (int)(intptr_t)arg;
}

static int use_heap(void *arg)
{
    void *block = yoke_shared_alloc(100);
    (void)arg;
    if (block == NULL)
        return 1;
    yoke_shared_free(block);
    return 0;
}

static int hold(void *arg)
{
    struct note *to = arg;
    char name[32] = "";
    prctl(PR_GET_NAME, name);
    count_set(&to->pid, getpid());
    count_up(&to->runs, strcmp(name, "it-has-a-name") == 0 ? 1 : 100);
    for (const int64_t until = soon(); yoke_now_ns() < until;)
        breathe();
    return 0;
}

/* The copy that waits; the seed's name and the spare's are the library's own. */
static int spare(void)
{
    int pid = 0;
    return count_descendants(getpid(), "yoke-spare", 0, &pid) == 1 ? pid : 0;
}

static int await_spare(void)
{
    int pid = 0;
    WAIT_FOR((pid = spare()) != 0);
    return pid;
}

/* Start from the copy that waits. It can be seen a moment before the library knows that it is there;
 * then the start does without it, and this tries again. */
static yoke_process *start_warm(yoke_process_fn *fn, void *arg, const char *name, int stop)
{
    for (int i = 0; i < 50; i++) {
        const int ready = await_spare();
        if (stop)
            kill(ready, SIGSTOP);
        yoke_process *process = start(fn, arg, name);
        if (yoke_process_id(process) == ready)
            return process;
        if (stop)
            kill(ready, SIGCONT);
        finish(process);
    }
    check_die(__FILE__, __LINE__);
}

static int children(void)
{
    return count_descendants(getpid(), NULL, 1, NULL);
}

static void the_next_one_is_ready(void)
{
    CHECK_EQ(finish(start(answer, (void *)5, NULL)).code, 5);
    struct note *to = shared_zeroed(sizeof *to);
    for (int i = 0; i < 5; i++) {
        yoke_process *process = start_warm(note, to, NULL, 0);
        const int pid = yoke_process_id(process);
        CHECK_EQ(finish(process).code, 7);
        CHECK_EQ(count_get(&to->pid), pid);
    }
    await_spare();
    count_set(&to->runs, 0);
    yoke_process *process = start(hold, to, "it-has-a-name");
    WAIT_FOR(count_get(&to->runs) != 0);
    CHECK_EQ(count_get(&to->runs), 1);
    CHECK_EQ(count_get(&to->pid), yoke_process_id(process));
    CHECK_RC(yoke_process_kill(process), 0);
    CHECK_EQ(finish(process).signal, SIGKILL);
    yoke_shared_free(to);
}

static void a_killed_copy_harms_nobody(void)
{
    for (int i = 0; i < 20; i++) {
        kill(await_spare(), SIGKILL);
        /* Before the start sees that it is dead, or after: it fails at no time. */
        if (i % 2 != 0)
            WAIT_FOR(spare() == 0);
        const yoke_process_end end = finish(start(answer, (void *)(intptr_t)(i + 1), NULL));
        CHECK(end.code == i + 1 || (i % 2 == 0 && end.signal == SIGKILL));
        if (end.signal == 0 && end.code == i + 1)
            continue;
        CHECK_EQ(finish(start(answer, (void *)3, NULL)).code, 3);
    }
}

static void a_stopped_copy_can_be_killed(void)
{
    yoke_process *process = start_warm(answer, (void *)9, NULL, 1);
    CHECK_RC(yoke_process_wait(process, yoke_in_ms(20), NULL), -ETIMEDOUT);
    kill(yoke_process_id(process), SIGCONT);
    CHECK_EQ(finish(process).code, 9);
    process = start_warm(answer, (void *)9, NULL, 1);
    const int next = yoke_process_id(process);
    yoke_process_release(process);
    WAIT_FOR(kill(next, 0) != 0);
}

static void *start_many(void *arg)
{
    for (int i = 0; i < MORE; i++) {
        struct note *to = shared_zeroed(sizeof *to);
        yoke_process *process = start(note, to, NULL);
        const int pid = yoke_process_id(process);
        CHECK_EQ(finish(process).code, 7);
        CHECK_EQ(count_get(&to->runs), 1);
        CHECK_EQ(count_get(&to->pid), pid);
        yoke_shared_free(to);
        if (i % 4 == 0)
            breathe();
    }
    return arg;
}

static void threads_take_one_each(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, start_many, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* A child of the program has no seed, and leaves the copy alone. */
static void the_program_forks(void)
{
    const int ready = await_spare();
    const int pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        const yoke_process_config config = {.size = sizeof config, .image = YOKE_SEED};
        yoke_process *process = NULL;
        CHECK_RC(yoke_process_start(&config, answer, NULL, &process), -ESRCH);
        global = 50;
        CHECK_RC(yoke_init(), 0);
        struct note *to = shared_zeroed(sizeof *to);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(finish(start(note, to, NULL)).code, 7);
            CHECK_EQ(count_get(&to->global), 50);
        }
        _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    yoke_process *process = start(answer, (void *)1, NULL);
    CHECK_EQ(yoke_process_id(process), ready);
    CHECK_EQ(finish(process).code, 1);
}

/* The seed is killed and planted anew: nobody gets a copy of the old one. */
static void a_new_seed_has_new_copies(void)
{
    struct note *to = shared_zeroed(sizeof *to);
    for (int i = 0; i < 8; i++) {
        int seed = 0;
        if (i % 2 == 0) {
            (void)await_spare();
        } else {
            CHECK_EQ(finish(start(answer, (void *)2, NULL)).code, 2); /* one is just being made */
        }
        /* A copy has the seed's name until it has its own. */
        WAIT_FOR(count_descendants(getpid(), "yoke-template", 0, &seed) == 1);
        kill(seed, SIGKILL);
        global = 10 + i;
        WAIT_FOR(count_descendants(getpid(), "yoke-template", 0, NULL) == 0);
        CHECK_RC(yoke_init(), 0);
        for (int k = 0; k < 3; k++) {
            CHECK_EQ(finish(start(note, to, NULL)).code, 7);
            check_true(count_get(&to->global) == 10 + i, "a process is of the new seed", __FILE__,
                       __LINE__);
        }
    }
    yoke_shared_free(to);
}

static void nothing_piles_up(void)
{
    CHECK_EQ(finish(start(use_heap, NULL, NULL)).code, 0);
    /* One descriptor for the process, and one more if the next copy is there already. */
    yoke_process *taken = start_warm(answer, NULL, NULL, 0);
    const int fds = count_fds();
    CHECK_EQ(finish(taken).code, 0);
    (void)await_spare();
    const int processes = children();
    const size_t blocks = count_blocks();
    for (int i = 0; i < STARTS; i++) {
        if (i % 5 == 0)
            kill(await_spare(), SIGKILL);
        const yoke_process_end end = finish(start(use_heap, NULL, NULL));
        CHECK(end.code == 0 || end.signal == SIGKILL);
        if (i % 3 == 0)
            (void)await_spare();
    }
    CHECK_EQ(finish(start(use_heap, NULL, NULL)).code, 0);
    (void)await_spare();
    WAIT_FOR(children() == processes);
    WAIT_FOR(count_fds() <= fds);
    CHECK_EQ(count_blocks(), blocks);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("no processes under ThreadSanitizer, or in qemu-user: it has no CLONE_PARENT");
    CHECK_RC(yoke_init(), 0);
    CHECK_EQ(finish(start(answer, (void *)1, NULL)).code, 1);
    RUN(the_next_one_is_ready);
    RUN(a_killed_copy_harms_nobody);
    RUN(a_stopped_copy_can_be_killed);
    RUN(threads_take_one_each);
    RUN(the_program_forks);
    RUN(a_new_seed_has_new_copies);
    RUN(nothing_piles_up);
    return 0;
}
