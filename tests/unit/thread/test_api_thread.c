/* SPDX-License-Identifier: MIT
 * test_api_thread.c - single threads: codes, names, CPUs, deadlines, interrupts, signals.
 *
 * Idea: a thread held at a gate is surely running, one that was let go surely ends; interrupts
 * are sticky and end every blocking call.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>
#include <sys/resource.h>

struct gate {
    atomic_long begun, go, saw;
    yoke_thread *self;
    char name[32];
    cpu_set_t cpus;
    sigset_t blocked;
    long stack;
};

static yoke_thread *start(yoke_thread_fn *fn, void *arg)
{
    yoke_thread *thread = NULL;
    CHECK_RC(yoke_thread_start(NULL, fn, arg, &thread), 0);
    CHECK(thread != NULL);
    return thread;
}

static int answer(void *arg)
{
    return (int)(intptr_t)arg;
}

static int hold(void *arg)
{
    struct gate *gate = arg;
    count_up(&gate->begun, 1);
    while (!count_get(&gate->go) && !yoke_thread_interrupted())
        breathe();
    count_set(&gate->saw, yoke_thread_interrupted());
    return 5;
}

static void the_code_comes_back(void)
{
    static const int codes[] = {0, 1, -1, 123456, INT32_MIN};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        yoke_thread *thread = start(answer, (void *)(intptr_t)codes[i]);
        int code = 77;
        CHECK_RC(yoke_thread_wait(thread, YOKE_FOREVER, &code), 0);
        CHECK_EQ(code, codes[i]);
        code = 78;
        CHECK_RC(yoke_thread_wait(thread, 0, &code), 0);
        CHECK_EQ(code, codes[i]);
        CHECK_RC(yoke_thread_wait(thread, 0, NULL), 0);
        yoke_thread_release(thread);
    }
    yoke_thread_release(NULL);
}

static void waits_have_deadlines(void)
{
    struct gate gate = {0};
    yoke_thread *thread = start(hold, &gate);
    int code = 77;
    CHECK_RC(yoke_thread_wait(thread, 0, &code), -ETIMEDOUT);
    const int64_t until = yoke_in_ms(30);
    CHECK_RC(yoke_thread_wait(thread, until, &code), -ETIMEDOUT);
    CHECK(yoke_now_ns() >= until);
    CHECK_EQ(code, 77);
    count_set(&gate.go, 1);
    CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
    CHECK_EQ(code, 5);
    CHECK_EQ(count_get(&gate.saw), 0);
    yoke_thread_release(thread);
}

static void *wait_for_thread(void *thread)
{
    int code = 0;
    CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
    CHECK_EQ(code, 5);
    return NULL;
}

static void several_may_wait(void)
{
    struct gate gate = {0};
    yoke_thread *thread = start(hold, &gate);
    pthread_t waiters[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&waiters[i], NULL, wait_for_thread, thread), 0);
    count_set(&gate.go, 1);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(waiters[i], NULL), 0);
    yoke_thread_release(thread);
}

static int wait_for_self(void *arg)
{
    struct gate *gate = arg;
    while (!count_get(&gate->go))
        breathe();
    return yoke_thread_wait(gate->self, soon(), NULL);
}

static void a_thread_does_not_wait_for_itself(void)
{
    struct gate gate = {0};
    gate.self = start(wait_for_self, &gate);
    count_set(&gate.go, 1);
    int code = 0;
    CHECK_RC(yoke_thread_wait(gate.self, soon(), &code), 0);
    CHECK_RC(code, -EDEADLK);
    yoke_thread_release(gate.self);
}

static int look_around(void *arg)
{
    struct gate *gate = arg;
    prctl(PR_GET_NAME, gate->name);
    sched_getaffinity(0, sizeof gate->cpus, &gate->cpus);
    pthread_sigmask(SIG_SETMASK, NULL, &gate->blocked);
    pthread_attr_t attr;
    size_t stack = 0;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstacksize(&attr, &stack);
        pthread_attr_destroy(&attr);
    }
    gate->stack = (long)stack;
    return 0;
}

static int first_cpu(void)
{
    cpu_set_t all;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all))
            return (int)cpu;
    }
    return 0;
}

static void settings_are_obeyed(void)
{
    struct gate gate = {0};
    const int cpu = first_cpu();
    yoke_thread *thread = NULL;
    const yoke_thread_config config = {.size = sizeof config,
                                       .name = "a-name-that-is-too-long",
                                       .stack_bytes = 64 << 20,
                                       .cpus = &cpu,
                                       .cpu_count = 1};
    CHECK_RC(yoke_thread_start(&config, look_around, &gate, &thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    CHECK_EQ(strcmp(gate.name, "a-name-that-is-"), 0);
    CHECK_EQ(CPU_COUNT(&gate.cpus), 1);
    CHECK(CPU_ISSET((size_t)cpu, &gate.cpus));
    CHECK(gate.stack >= 64 << 20);
    for (int sig = 1; sig < 32; sig++) {
        if (sig != SIGKILL && sig != SIGSTOP)
            CHECK_EQ(sigismember(&gate.blocked, sig), 1);
    }
    char own[32];
    prctl(PR_GET_NAME, own);
    thread = start(look_around, &gate);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    CHECK_EQ(strcmp(gate.name, own), 0);
}

struct future_config {
    yoke_thread_config now;
    char later[16];
};

static void bad_settings_start_nothing(void)
{
    yoke_thread *const untouched = (yoke_thread *)&check_kind;
    yoke_thread *thread = untouched;
    const int none = -1, beyond = 1 << 20;
    struct future_config config;
    memset(&config, 0, sizeof config);
    CHECK_RC(yoke_thread_start(NULL, NULL, NULL, &thread), -EINVAL);
    CHECK_RC(yoke_thread_start(NULL, answer, NULL, NULL), -EINVAL);
    CHECK_RC(yoke_thread_start(&config.now, answer, NULL, &thread), -EINVAL);
    config.now.size = sizeof config;
    config.later[3] = 1;
    CHECK_RC(yoke_thread_start(&config.now, answer, NULL, &thread), YOKE_EVERSION);
    config.later[3] = 0;
    config.now.cpu_count = 1;
    CHECK_RC(yoke_thread_start(&config.now, answer, NULL, &thread), -EINVAL);
    config.now.cpus = &none;
    CHECK_RC(yoke_thread_start(&config.now, answer, NULL, &thread), -EINVAL);
    config.now.cpus = &beyond;
    CHECK_RC(yoke_thread_start(&config.now, answer, NULL, &thread), -EINVAL);
    CHECK(thread == untouched);
    CHECK_RC(yoke_thread_wait(NULL, 0, NULL), -EINVAL);
    CHECK_EQ(yoke_thread_interrupt(NULL), -EINVAL);
    config.now = (yoke_thread_config){.size = sizeof config};
    CHECK_RC(yoke_thread_start(&config.now, answer, NULL, &thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
}

static int block_in_everything(void *arg)
{
    struct gate *gate = arg;
    count_up(&gate->begun, 1);
    if (yoke_sleep_until(YOKE_FOREVER) != -ECANCELED)
        return 1;
    /* Sticky: every blocking call that comes after says so too, at once. */
    if (!yoke_thread_interrupted() || yoke_sleep_until(YOKE_FOREVER) != -ECANCELED)
        return 2;
    if (yoke_thread_wait(gate->self, YOKE_FOREVER, NULL) != -ECANCELED)
        return 3;
    return 0;
}

static void an_interrupt_ends_every_wait(void)
{
    struct gate other = {0}, gate = {0};
    gate.self = start(hold, &other);
    yoke_thread *thread = start(block_in_everything, &gate);
    WAIT_FOR(count_get(&gate.begun) == 1);
    CHECK_EQ(yoke_thread_interrupt(thread), 0);
    CHECK_EQ(yoke_thread_interrupt(thread), 0);
    int code = 77;
    CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
    CHECK_EQ(code, 0);
    yoke_thread_release(thread);
    CHECK_EQ(yoke_thread_interrupt(gate.self), 0);
    CHECK_RC(yoke_thread_wait(gate.self, soon(), &code), 0);
    CHECK_EQ(code, 5);
    CHECK_EQ(count_get(&other.saw), 1);
    yoke_thread_release(gate.self);
    CHECK_EQ(yoke_thread_interrupted(), 0);
}

static int wait_for_job(void *job)
{
    return yoke_wait(job, YOKE_FOREVER);
}

static int hold_task(yoke_task *task, const void *in, void *out)
{
    struct gate *gate = *(struct gate *const *)in;
    const int64_t until = soon();
    (void)task;
    (void)out;
    count_up(&gate->begun, 1);
    while (!count_get(&gate->go) && yoke_now_ns() < until)
        breathe();
    return 0;
}

static void an_interrupt_ends_a_wait_for_a_job(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        struct gate *gate = shared_zeroed(sizeof *gate);
        yoke_pool *pool = make_pool(kind, 1);
        yoke_job *job = NULL;
        CHECK_RC(yoke_submit(pool, hold_task, &gate, sizeof gate, 0, NULL, &job), 0);
        WAIT_FOR(count_get(&gate->begun) == 1);
        yoke_thread *thread = start(wait_for_job, job);
        CHECK_EQ(yoke_thread_interrupt(thread), 0);
        int code = 0;
        CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
        CHECK_RC(code, -ECANCELED);
        yoke_thread_release(thread);
        count_set(&gate->go, 1);
        CHECK_RC(yoke_wait(job, soon()), 0);
        yoke_job_release(job);
        end_pool(pool);
        yoke_shared_free(gate);
    }
}

static void sleep_is_until_then(void)
{
    const int64_t until = yoke_in_ms(20);
    CHECK_RC(yoke_sleep_until(until), 0);
    CHECK(yoke_now_ns() >= until);
    CHECK_RC(yoke_sleep_until(0), 0);
    CHECK_RC(yoke_sleep_until(yoke_now_ns() - 1), 0);
}

static void on_signal(int sig)
{
    (void)sig;
}

struct nag {
    pthread_t target;
    atomic_long stop;
};

static void *nag_on(void *arg)
{
    struct nag *nag = arg;
    while (!count_get(&nag->stop)) {
        pthread_kill(nag->target, SIGUSR1);
        breathe();
    }
    return NULL;
}

static void a_signal_ends_a_wait_with_eintr(void)
{
    const struct sigaction old = set_action(SIGUSR1, on_signal);
    struct gate gate = {0};
    struct nag nag = {.target = pthread_self()};
    yoke_thread *thread = start(hold, &gate);
    pthread_t nagger;
    CHECK_EQ(pthread_create(&nagger, NULL, nag_on, &nag), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), -EINTR);
    CHECK_RC(yoke_sleep_until(soon()), -EINTR);
    count_set(&nag.stop, 1);
    CHECK_EQ(pthread_join(nagger, NULL), 0);
    count_set(&gate.go, 1);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    CHECK_EQ(sigaction(SIGUSR1, &old, NULL), 0);
}

static void released_threads_run_on_and_leave_nothing(void)
{
    yoke_thread *thread = start(answer, NULL);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    const struct usage before = usage_now();
    struct gate gate = {0};
    for (int i = 0; i < 200; i++) {
        count_set(&gate.go, 0);
        count_set(&gate.begun, 0);
        thread = start(hold, &gate);
        if (i % 3 == 0)
            CHECK_EQ(yoke_thread_interrupt(thread), 0);
        yoke_thread_release(thread);
        WAIT_FOR(count_get(&gate.begun) == 1);
        count_set(&gate.go, 1);
        WAIT_FOR(count_threads() <= before.threads);
    }
    usage_check(before, 20);
}

static int use_handle_in_child(void *thread)
{
    CHECK_RC(yoke_thread_wait(thread, 0, NULL), -ECHILD);
    CHECK_RC(yoke_thread_interrupt(thread), -ECHILD);
    yoke_thread_release(thread);
    yoke_thread *mine = start(answer, (void *)(intptr_t)9);
    int code = 0;
    CHECK_RC(yoke_thread_wait(mine, soon(), &code), 0);
    CHECK_EQ(code, 9);
    yoke_thread_release(mine);
    return 0;
}

static void handles_are_not_for_forked_children(void)
{
    /* qemu-user cannot start a thread in a child that was forked beside threads: it stops itself. */
    if (CHECK_TSAN || check_emulated())
        return;
    struct gate gate = {0};
    yoke_thread *thread = start(hold, &gate);
    CHECK_CHILD(use_handle_in_child, thread);
    CHECK_RC(yoke_thread_wait(thread, 0, NULL), -ETIMEDOUT);
    count_set(&gate.go, 1);
    int code = 0;
    CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
    CHECK_EQ(code, 5);
    CHECK_EQ(count_get(&gate.saw), 0);
    yoke_thread_release(thread);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(the_code_comes_back);
    RUN(waits_have_deadlines);
    RUN(several_may_wait);
    RUN(a_thread_does_not_wait_for_itself);
    RUN(settings_are_obeyed);
    RUN(bad_settings_start_nothing);
    RUN(an_interrupt_ends_every_wait);
    RUN(an_interrupt_ends_a_wait_for_a_job);
    RUN(sleep_is_until_then);
    RUN(a_signal_ends_a_wait_with_eintr);
    RUN(released_threads_run_on_and_leave_nothing);
    RUN(handles_are_not_for_forked_children);
    return 0;
}
