/* SPDX-License-Identifier: MIT
 * test_program_many.c - many processes at once: waiting, stopping, signals, what they used.
 */
/* timeout: 240 */
#include "program.h"
#include <pthread.h>
#include <sys/resource.h>

#define NS_PER_MS 1000000LL

static const yoke_stream capture = {.kind = YOKE_STREAM_CAPTURE};
static const yoke_stream pipe_ = {.kind = YOKE_STREAM_PIPE};

/* Wait until the script has said something on its pipe. */
static void await_word(yoke_process *process)
{
    int fd = -1;
    char text[64];
    CHECK_RC(yoke_process_take_pipe(process, 1, &fd), 0);
    CHECK(read(fd, text, sizeof text) > 0);
    close(fd);
}

static void two_hundred_at_once(void)
{
    enum { MANY = 200 };
    static yoke_process *processes[MANY];
    int seen[MANY] = {0};
    for (int i = 0; i < MANY; i++) {
        char script[64];
        snprintf(script, sizeof script, "echo %d; exit %d", i, i % 250);
        processes[i] = run_shell(
            script, (yoke_program){.output = capture, .flags = i % 4 ? 0 : YOKE_PROGRAM_PLAIN});
    }
    for (int i = 0; i < MANY; i++) {
        size_t ended = MANY;
        CHECK_RC(yoke_process_wait_any((yoke_process *const *)processes, MANY,
                                       yoke_in_ms(20000LL * check_slowness()), &ended),
                 0);
        CHECK(ended < MANY && !seen[ended]++);
        char text[16];
        snprintf(text, sizeof text, "%zu\n", ended);
        check_code(processes[ended], (int)ended % 250);
        check_output(processes[ended], 1, text);
        yoke_process_release(processes[ended]);
        processes[ended] = NULL;
    }
    size_t ended = MANY;
    CHECK_RC(yoke_process_wait_any((yoke_process *const *)processes, MANY, 0, &ended), -EINVAL);
}

static int answer(void *arg)
{
    return (int)(intptr_t)arg;
}

static void both_kinds_are_waited_for_together(void)
{
    yoke_process *both[3] = {NULL};
    both[0] = run_shell("exit 5", (yoke_program){.size = 0});
    CHECK_RC(yoke_process_start(NULL, answer, (void *)(intptr_t)6, &both[2]), 0);
    CHECK_RC(yoke_process_wait_all(both, 3, soon()), 0);
    check_code(both[0], 5);
    check_code(both[2], 6);
    yoke_usage usage = {.size = sizeof usage};
    CHECK_RC(yoke_process_usage(both[2], &usage), 0);
    CHECK(usage.faults_minor > 0 && usage.memory_peak_bytes > 0);
    yoke_output output = {.size = sizeof output};
    int fd = -1;
    CHECK_RC(yoke_process_output(both[2], 1, &output), -ENOENT);
    CHECK_RC(yoke_process_take_pipe(both[2], 1, &fd), -ENOENT);
    yoke_process_release(both[0]);
    yoke_process_release(both[2]);
}

static void deadlines_hold(void)
{
    yoke_process *two[2];
    size_t ended = 7;
    for (int i = 0; i < 2; i++)
        two[i] = run_shell("sleep 1000", (yoke_program){.size = 0});
    CHECK_RC(yoke_process_wait_any(two, 2, 0, &ended), -ETIMEDOUT);
    CHECK_RC(yoke_process_wait_all(two, 2, 0), -ETIMEDOUT);
    const int64_t until = yoke_in_ms(20);
    CHECK_RC(yoke_process_wait_any(two, 2, until, &ended), -ETIMEDOUT);
    CHECK(yoke_now_ns() >= until);
    CHECK_EQ(ended, 7);
    CHECK_EQ(yoke_process_kill(two[1]), 0);
    CHECK_RC(yoke_process_wait_any(two, 2, soon(), &ended), 0);
    CHECK_EQ(ended, 1);
    CHECK_RC(yoke_process_wait_all(two, 2, yoke_in_ms(20)), -ETIMEDOUT);
    for (int i = 0; i < 2; i++)
        yoke_process_release(two[i]);
}

static void ignore(int sig)
{
    (void)sig;
}

static atomic_long waiting;

static void *poke(void *thread)
{
    while (count_get(&waiting)) {
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
        breathe();
    }
    return NULL;
}

static void a_signal_ends_a_wait(void)
{
    const struct sigaction old = set_action(SIGUSR1, ignore);
    yoke_process *process = run_shell("sleep 1000", (yoke_program){.size = 0});
    pthread_t self = pthread_self(), other;
    size_t ended = 0;
    count_set(&waiting, 1);
    CHECK_EQ(pthread_create(&other, NULL, poke, &self), 0);
    CHECK_RC(yoke_process_wait_any(&process, 1, soon(), &ended), -EINTR);
    CHECK_RC(yoke_process_wait_all(&process, 1, soon()), -EINTR);
    CHECK_RC(yoke_process_wait(process, soon(), NULL), -EINTR);
    count_set(&waiting, 0);
    CHECK_EQ(pthread_join(other, NULL), 0);
    sigaction(SIGUSR1, &old, NULL);
    yoke_process_release(process);
}

/* How the ladder ends each of them: by the first step that it cannot ignore. */
static void the_ladder_stops_them_all(void)
{
    static const struct {
        const char *script;
        int code, signal;
    } cases[] = {
        {"echo; exec sleep 1000", -1, SIGINT},
        {"trap '' INT; echo; while :; do sleep 1000; done", -1, SIGTERM},
        {"trap '' INT TERM; echo; while :; do sleep 1000; done", -1, SIGKILL},
        {"trap 'exit 9' INT; echo; while :; do sleep 0.01; done", 9, 0},
        {"trap '' INT; trap 'exit 8' TERM; echo; while :; do sleep 0.01; done", 8, 0},
        {"trap 'exit 7' TERM; trap '' INT; echo; kill -STOP $$; sleep 1000", 7, 0},
    };
    enum { CASES = 6 };
    FOR_EACH_START(flags)
    {
        yoke_process *processes[CASES + 1] = {NULL};
        for (int i = 0; i < CASES; i++) {
            processes[i] =
                run_shell(cases[i].script, (yoke_program){.output = pipe_, .flags = flags});
            await_word(processes[i]);
        }
        await_program(yoke_process_id(processes[0]), "sleep");
        struct proc_info info = {0};
        WAIT_FOR(proc_read(yoke_process_id(processes[5]), &info) && info.state == 'T');
        /* Two of them wait for both steps; a shell may need long for its trap on a busy machine. */
        CHECK_RC(yoke_process_stop(processes, CASES + 1, 1500 * NS_PER_MS), 0);
        for (int i = 0; i < CASES; i++) {
            const yoke_process_end end = end_of(processes[i]);
            if (end.signal != cases[i].signal)
                fprintf(stderr, "    case %d, flags %u\n", i, flags);
            CHECK_EQ(end.signal, cases[i].signal);
            CHECK_EQ(end.code, cases[i].code);
            yoke_process_release(processes[i]);
        }
    }
    CHECK_RC(yoke_process_stop(NULL, 0, 0), 0);
    yoke_process *process = run_shell("trap '' INT TERM; sleep 1000", (yoke_program){.size = 0});
    CHECK_RC(yoke_process_stop(&process, 1, 0), 0);
    CHECK_EQ(end_of(process).signal, SIGKILL);
    CHECK_RC(yoke_process_stop(&process, 1, NS_PER_MS), 0);
    yoke_process_release(process);
}

static void signals_reach_whom_they_are_for(void)
{
    /* The child of another group says what it gets. */
    static const char script[] =
        "trap 'echo one' USR1; trap 'exit 0' USR2\n"
        "setsid sh -c 'trap \"echo below\" USR1; trap \"exit 0\" USR2; echo ready;"
        " while :; do sleep 0.01; done' & "
        "while :; do sleep 0.01; done";
    yoke_process *process = run_shell(script, (yoke_program){.output = pipe_});
    int fd = -1;
    char text[64] = {0};
    CHECK_RC(yoke_process_take_pipe(process, 1, &fd), 0);
    CHECK_EQ(read(fd, text, sizeof text), 6);
    CHECK_EQ(yoke_process_signal(process, SIGUSR1, YOKE_SIGNAL_ONE), 0);
    CHECK_EQ(read(fd, text, sizeof text), 4);
    CHECK(memcmp(text, "one\n", 4) == 0);
    CHECK_EQ(yoke_process_signal(process, SIGUSR1, YOKE_SIGNAL_TREE), 0);
    size_t used = 0;
    while (used < 10) {
        const ssize_t n = read(fd, text + used, sizeof text - 1 - used);
        CHECK(n > 0);
        used += (size_t)n;
    }
    CHECK(strstr(text, "one\n") != NULL && strstr(text, "below\n") != NULL);
    CHECK_EQ(yoke_process_signal(process, SIGSTOP, YOKE_SIGNAL_ONE), 0);
    struct proc_info info = {0};
    WAIT_FOR(proc_read(yoke_process_id(process), &info) && info.state == 'T');
    CHECK_EQ(yoke_process_signal(process, SIGCONT, YOKE_SIGNAL_GROUP), 0);
    CHECK_EQ(yoke_process_signal(process, SIGUSR2, YOKE_SIGNAL_TREE), 0);
    check_code(process, 0);
    close(fd);
    yoke_process_release(process);
}

/* Orders that come too late must not cost the last report. */
static void late_orders_lose_nothing(void)
{
    for (int round = 0; round < 20; round++) {
        yoke_process *process = run_shell("sleep 1000", (yoke_program){.size = 0});
        CHECK_EQ(yoke_process_signal(process, SIGUSR1, YOKE_SIGNAL_GROUP), 0);
        for (int i = 0; i < 60; i++)
            (void)yoke_process_signal(process, SIGCONT, YOKE_SIGNAL_TREE);
        CHECK_EQ(end_of(process).signal, SIGUSR1);
        yoke_usage usage = {.size = sizeof usage};
        CHECK_RC(yoke_process_usage(process, &usage), 0);
        yoke_process_release(process);
    }
}

static void what_it_used_is_known(void)
{
    /* Two thirds of it by a grandchild that nobody waits for. */
    static const char script[] = "x=0; while [ $x -lt 100000 ]; do x=$((x+1)); done; "
                                 "head -c 40000000 /dev/zero | tail -c 30000000 | wc -c";
    FOR_EACH_START(flags)
    {
        yoke_process *process =
            run_shell(script, (yoke_program){.output = capture, .flags = flags});
        yoke_usage usage = {.size = sizeof usage};
        check_code(process, 0);
        CHECK_RC(yoke_process_usage(process, &usage), 0);
        check_output(process, 1, "30000000\n");
        CHECK(usage.user_ns > 5 * NS_PER_MS && usage.user_ns < 60000 * NS_PER_MS);
        CHECK(usage.system_ns >= 0 && usage.system_ns < 60000 * NS_PER_MS);
        CHECK(usage.memory_peak_bytes > 29000000 && usage.memory_peak_bytes < (size_t)4 << 30);
        CHECK(usage.faults_minor > 100);
        CHECK(usage.switches_voluntary + usage.switches_forced > 0);
        yoke_process_release(process);
    }
    /* Our own size is not the program's. */
    const size_t big = (size_t)64 << 20;
    char *memory = malloc(big);
    CHECK(memory != NULL);
    memset(memory, 1, big);
    yoke_process *process = run_shell("exit 0", (yoke_program){.size = 0});
    yoke_usage usage = {.size = sizeof usage};
    check_code(process, 0);
    CHECK_RC(yoke_process_usage(process, &usage), 0);
    CHECK(usage.memory_peak_bytes < big / 4);
    CHECK(memory[big / 2] == 1);
    free(memory);
    yoke_process_release(process);
}

static int ignoring_program(void *arg)
{
    (void)arg;
    (void)set_action(SIGCHLD, SIG_IGN);
    yoke_usage usage = {.size = sizeof usage};
    for (int i = 0; i < 20; i++) {
        yoke_process *process = run_shell("echo x; exit 3", (yoke_program){.output = capture});
        check_code(process, 3); /* the supervisor told it */
        check_output(process, 1, "x\n");
        CHECK_RC(yoke_process_usage(process, &usage), 0);
        yoke_process_release(process);
        process = run_shell("echo x; exit 3",
                            (yoke_program){.output = capture, .flags = YOKE_PROGRAM_PLAIN});
        const yoke_process_end end = end_of(process);
        CHECK(end.code == -1 && end.signal == 0); /* nobody knows */
        check_output(process, 1, "x\n");
        CHECK_RC(yoke_process_usage(process, &usage), -ENODATA);
        yoke_process_release(process);
    }
    return 0;
}

static void *wait_for_everything(void *stop)
{
    while (!count_get(stop)) {
        if (waitpid(-1, NULL, 0) < 0)
            breathe();
    }
    return NULL;
}

static int greedy_program(void *arg)
{
    (void)arg;
    static atomic_long stop;
    pthread_t reaper;
    CHECK_EQ(pthread_create(&reaper, NULL, wait_for_everything, &stop), 0);
    for (int i = 0; i < 40; i++) {
        const unsigned flags = i % 2 ? YOKE_PROGRAM_PLAIN : 0;
        yoke_process *process = run_shell("exit 3", (yoke_program){.flags = flags});
        const yoke_process_end end = end_of(process);
        CHECK(end.signal == 0);
        CHECK(end.code == 3 || (flags != 0 && end.code == -1));
        yoke_process_release(process);
    }
    count_set(&stop, 1);
    CHECK_EQ(pthread_join(reaper, NULL), 0);
    return 0;
}

static void a_program_that_reaps_by_itself(void)
{
    CHECK_CHILD(ignoring_program, NULL);
    CHECK_CHILD(greedy_program, NULL);
}

static void nothing_grows_in_500_runs(void)
{
    const char *const argv[] = {"/bin/true", NULL};
    struct usage before = {0};
    for (int i = 0; i < 510; i++) {
        yoke_process *process = run_program(
            &(yoke_program){.argv = argv, .flags = i % 3 == 0 ? YOKE_PROGRAM_PLAIN : 0});
        check_code(process, 0);
        yoke_process_release(process);
        if (i == 9)
            before = usage_now();
    }
    usage_check(before, 4);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    need_real_machine();
    RUN(two_hundred_at_once);
    RUN(both_kinds_are_waited_for_together);
    RUN(deadlines_hold);
    RUN(a_signal_ends_a_wait);
    RUN(the_ladder_stops_them_all);
    RUN(signals_reach_whom_they_are_for);
    RUN(late_orders_lose_nothing);
    RUN(what_it_used_is_known);
    RUN(a_program_that_reaps_by_itself);
    RUN(nothing_grows_in_500_runs);
    return 0;
}
