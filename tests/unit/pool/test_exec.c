/* SPDX-License-Identifier: MIT
 * test_exec.c - pools whose workers are copies of another program: tasks of libraries that both
 * have loaded, hooks, deaths, and every way in which the program can fail to serve.
 */
/* timeout: 120 */
#include <dlfcn.h>
#include <limits.h>

#include "check.h"
#include "process/exec_image.h"

enum { KEPT_FD = 100 };

static char image_path[PATH_MAX], tasks_path[PATH_MAX], other_path[PATH_MAX];
static yoke_fn *cube, *address, *die, *sleep_on, *pids, *context, *answer;
static yoke_range_fn *sum;

static void find_path(char *path, const char *name)
{
    char self[PATH_MAX] = "";
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    for (int i = 0; i < 3; i++)
        *strrchr(self, '/') = '\0';
    CHECK(snprintf(path, PATH_MAX, "%s/programs/%s", self, name) < PATH_MAX);
}

static uintptr_t find_function(void *library, const char *name)
{
    void *const found = dlsym(library, name);
    CHECK(found != NULL);
    return (uintptr_t)found;
}

static void load_tasks(void)
{
    find_path(image_path, "image");
    find_path(tasks_path, "libtasks.so");
    find_path(other_path, "libother.so");
    void *const tasks = dlopen(tasks_path, RTLD_NOW);
    void *const other = dlopen(other_path, RTLD_NOW);
    CHECK(tasks != NULL && other != NULL);
    cube = (yoke_fn *)find_function(tasks, "tasks_cube");
    address = (yoke_fn *)find_function(tasks, "tasks_address");
    sum = (yoke_range_fn *)find_function(tasks, "tasks_sum");
    die = (yoke_fn *)find_function(tasks, "tasks_die");
    sleep_on = (yoke_fn *)find_function(tasks, "tasks_sleep");
    pids = (yoke_fn *)find_function(tasks, "tasks_pid");
    context = (yoke_fn *)find_function(tasks, "tasks_context");
    answer = (yoke_fn *)find_function(other, "other_answer");
}

/* Our pools in this file: two workers, copies of `image MODE libtasks.so`. */
static yoke_pool_config exec_config(const char *const *words)
{
    return (yoke_pool_config){.size = sizeof(yoke_pool_config),
                              .kind = YOKE_PROCESSES,
                              .image = YOKE_EXEC,
                              .workers = 2,
                              .argv = words};
}

static int try_mode(const char *mode, yoke_pool **pool)
{
    const char *const words[] = {image_path, mode, tasks_path, NULL};
    const yoke_pool_config config = exec_config(words);
    return yoke_pool_create(&config, pool);
}

static yoke_pool *make_exec_pool(void)
{
    yoke_pool *pool = NULL;
    CHECK_RC(try_mode("serve", &pool), 0);
    return pool;
}

static void check_cubes_retried(yoke_pool *pool, unsigned retries)
{
    enum { N = 400 };
    int64_t in[N], out[N];
    const yoke_options options = {.size = sizeof options, .retries = retries};
    for (int i = 0; i < N; i++)
        in[i] = i - 9;
    CHECK_RC(yoke_map(pool, cube, in, sizeof *in, out, sizeof *out, N, &options), 0);
    for (int i = 0; i < N; i++)
        CHECK_EQ(out[i], in[i] * in[i] * in[i]);
}

static void check_cubes(yoke_pool *pool)
{
    check_cubes_retried(pool, 0);
}

/* ---- work -------------------------------------------------------------------------------- */

static void tasks_run_in_the_other_program(void)
{
    yoke_pool *pool = make_exec_pool();
    check_cubes(pool);

    int64_t x = 7;
    yoke_job *jobs[300];
    for (int i = 0; i < 300; i++)
        CHECK_RC(yoke_submit(pool, cube, &x, sizeof x, sizeof x, NULL, &jobs[i]), 0);
    CHECK_RC(yoke_wait_all(jobs, 300, soon()), 0);
    for (int i = 0; i < 300; i++) {
        const void *out = NULL;
        yoke_outcome outcome;
        CHECK_RC(yoke_job_result(jobs[i], &outcome, &out, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_OK);
        CHECK_EQ(*(const int64_t *)out, 343);
        yoke_job_release(jobs[i]);
    }

    int64_t *counter = shared_zeroed(sizeof *counter);
    const yoke_options options = {.size = sizeof options, .context = counter};
    CHECK_RC(yoke_for(pool, sum, 10000, &options), 0);
    CHECK_EQ(*counter, 49995000);
    yoke_shared_free(counter);

    const char text[] = "copied for the worker";
    const yoke_options copied = {
        .size = sizeof copied, .context = text, .context_bytes = sizeof text};
    int64_t length = 0;
    CHECK_RC(yoke_map(pool, context, NULL, 0, &length, sizeof length, 1, &copied), 0);
    CHECK_EQ(length, strlen(text));
    end_pool(pool);
}

static void merge_sums(void *total, const void *more, void *user)
{
    (void)user;
    *(int64_t *)total += *(const int64_t *)more;
}

static void a_reduce_folds_here_what_was_made_there(void)
{
    yoke_pool *pool = make_exec_pool();
    int64_t total = 0;
    CHECK_RC(yoke_reduce(pool, sum, merge_sums, 100000, &total, sizeof total, NULL), 0);
    CHECK_EQ(total, 4999950000);
    end_pool(pool);
}

/* The library lies elsewhere there: that is what this file is about. */
static void addresses_differ(void)
{
    int differ = 0;
    for (int i = 0; i < 5 && !differ; i++) {
        yoke_pool *pool = make_exec_pool();
        uintptr_t there = 0;
        CHECK_RC(yoke_map(pool, address, NULL, 0, &there, sizeof there, 1, NULL), 0);
        differ = there != (uintptr_t)address;
        end_pool(pool);
    }
    CHECK(differ);
}

static void workers_are_children_of_this_program(void)
{
    yoke_pool *pool = make_exec_pool();
    int64_t ids[2] = {0};
    CHECK_RC(yoke_map(pool, pids, NULL, 0, ids, sizeof ids, 1, NULL), 0);
    CHECK_EQ(ids[1], getpid());
    CHECK(ids[0] != getpid());
    int known[2];
    CHECK_EQ(yoke_pool_worker_ids(pool, known, 2), 2);
    CHECK(ids[0] == known[0] || ids[0] == known[1]);
    end_pool(pool);
}

static void a_program_may_run_itself(void)
{
    static const char *const names[] = {"itself", "fixed"};
    for (int i = 0; i < 2; i++) {
        char path[PATH_MAX];
        find_path(path, names[i]);
        const pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            execl(path, path, (char *)NULL);
            _exit(127);
        }
        int status = -1;
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
}

static void what_the_image_has_not_loaded_is_refused(void)
{
    yoke_pool *pool = make_exec_pool();
    int64_t out = 0;
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, answer, NULL, 0, 8, NULL, &job), YOKE_EIMAGE);
    CHECK_RC(yoke_map(pool, check_square, &out, 8, &out, 8, 1, NULL), YOKE_EIMAGE);
    check_cubes(pool);
    end_pool(pool);

    const char *const words[] = {image_path, "serve", other_path, NULL};
    const yoke_pool_config config = exec_config(words);
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    CHECK_RC(yoke_map(pool, answer, NULL, 0, &out, sizeof out, 1, NULL), 0);
    CHECK_EQ(out, 42);
    CHECK_RC(yoke_map(pool, cube, &out, 8, &out, 8, 1, NULL), YOKE_EIMAGE);
    end_pool(pool);
}

/* ---- its environment and descriptors ------------------------------------------------------- */

static yoke_pool *make_kept(const char *mode, int *kept)
{
    const char *const words[] = {image_path, mode, tasks_path, NULL};
    yoke_pool_config config = exec_config(words);
    const int fd = (int)syscall(SYS_memfd_create, "kept", 0);
    CHECK(fd >= 0 && fcntl(fd, F_SETFL, O_APPEND) == 0 && dup3(fd, KEPT_FD, O_CLOEXEC) == KEPT_FD);
    close(fd);
    const int fds[] = {KEPT_FD};
    config.keep_fds = fds;
    config.keep_fd_count = 1;
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    *kept = KEPT_FD;
    return pool;
}

static int count_notes(int fd, char what)
{
    char text[256];
    const ssize_t n = pread(fd, text, sizeof text, 0);
    CHECK(n >= 0);
    int count = 0;
    for (ssize_t i = 0; i < n; i++)
        count += text[i] == what;
    return count;
}

static void hooks_are_the_image_s_own(void)
{
    int kept = -1;
    yoke_pool *pool = make_kept("hooks", &kept);
    check_cubes(pool);
    CHECK(count_notes(kept, 's') >= 2);
    CHECK(count_notes(kept, 'm') >= 1);
    end_pool(pool);
    CHECK_EQ(count_notes(kept, 'e'), count_notes(kept, 's'));
    CHECK_EQ(count_notes(kept, '?'), 0);
    close(kept);
}

static void nothing_else_is_inherited(void)
{
    const int before = open("/dev/null", O_RDONLY); /* not close-on-exec */
    CHECK(before >= 0);
    yoke_pool *pool = make_exec_pool();
    int ids[2];
    CHECK_EQ(yoke_pool_worker_ids(pool, ids, 2), 2);
    char path[64], link[256];
    for (int fd = 3; fd < 1024; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", ids[0], fd);
        const ssize_t n = readlink(path, link, sizeof link - 1);
        CHECK(n < 0);
    }
    close(before);
    end_pool(pool);
}

static void the_environment_is_what_the_pool_says(void)
{
    /* A program of that name is found by PATH, and its words come from `env`. */
    char folder[PATH_MAX];
    find_path(folder, "");
    char *const old = strdup(getenv("PATH"));
    CHECK(setenv("PATH", folder, 1) == 0);
    char library_path[PATH_MAX + 32];
    snprintf(library_path, sizeof library_path, "LD_LIBRARY_PATH=%s", folder);
    const char *const words[] = {"image", "serve", "libtasks.so", NULL};
    const char *const env[] = {"YOKE_IMAGE=not this one", library_path,
                               "ASAN_OPTIONS=handle_segv=0", NULL};
    yoke_pool_config config = exec_config(words);
    config.env = env;
    yoke_pool *pool = NULL;
    const int rc = yoke_pool_create(&config, &pool);
    CHECK(setenv("PATH", old, 1) == 0);
    free(old);
    CHECK_RC(rc, 0);
    check_cubes(pool);
    end_pool(pool);
}

/* ---- deaths -------------------------------------------------------------------------------- */

static void a_dead_worker_costs_its_task(void)
{
    yoke_pool *pool = make_exec_pool();
    for (int i = 0; i < 5; i++) {
        yoke_job *job = NULL;
        yoke_outcome outcome;
        CHECK_RC(yoke_submit(pool, die, NULL, 0, 0, NULL, &job), 0);
        CHECK_RC(yoke_wait(job, soon()), 0);
        CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
        CHECK_EQ(outcome.kind, YOKE_CRASHED);
        CHECK_EQ(outcome.signal, SIGKILL);
        yoke_job_release(job);
        check_cubes(pool);
    }
    end_pool(pool);
}

static void late_tasks_time_out(void)
{
    yoke_pool *pool = make_exec_pool();
    const yoke_options options = {.size = sizeof options, .timeout_ns = 30000000};
    yoke_job *job = NULL;
    yoke_outcome outcome;
    CHECK_RC(yoke_submit(pool, sleep_on, NULL, 0, 0, &options, &job), 0);
    CHECK_RC(yoke_wait(job, soon()), 0);
    CHECK_RC(yoke_job_result(job, &outcome, NULL, NULL), 0);
    CHECK_EQ(outcome.kind, YOKE_TIMEDOUT);
    yoke_job_release(job);
    check_cubes(pool);
    end_pool(pool);
}

/* The one child of that name that is no worker; it has the name from when it serves. */
static int template_of(int root)
{
    int pid = -1;
    WAIT_FOR(count_descendants(root, "yoke-template", 0, &pid) == 1);
    return pid;
}

static void workers_killed_at_random_are_replaced(void)
{
    yoke_pool *pool = make_exec_pool();
    unsigned dice = 1;
    for (int i = 0; i < 40; i++) {
        int ids[2];
        const int n = yoke_pool_worker_ids(pool, ids, 2);
        dice = dice * 1103515245 + 12345;
        if (n > 0)
            (void)signal_child(ids[(dice >> 16) % (unsigned)n], SIGKILL);
        if (i % 4 == 0)
            check_cubes_retried(pool, 100);
    }
    check_cubes_retried(pool, 100);
    end_pool(pool);
}

static void another_start_of_the_program_takes_over(void)
{
    yoke_pool *pool = make_exec_pool();
    for (int round = 0; round < 6; round++) {
        check_cubes(pool);
        const int pid = template_of(getpid());
        CHECK_EQ(signal_child(pid, SIGKILL), 1);
        WAIT_FOR(process_is_gone(pid));
        check_cubes(pool); /* by the workers there are */
        int ids[2];
        const int n = yoke_pool_worker_ids(pool, ids, 2);
        for (int i = 0; i < n; i++)
            (void)signal_child(ids[i], SIGKILL);
        /* By workers of the program's next start, where all lies elsewhere. */
        check_cubes_retried(pool, 100);
        uintptr_t there = 0;
        const yoke_options retry = {.size = sizeof retry, .retries = 100};
        CHECK_RC(yoke_map(pool, address, NULL, 0, &there, sizeof there, 1, &retry), 0);
    }
    end_pool(pool);
}

static int be_orphaned(void *arg)
{
    int *const shown = arg;
    yoke_pool *pool = make_exec_pool();
    check_cubes(pool);
    CHECK_EQ(yoke_pool_worker_ids(pool, shown, 2), 2);
    shown[2] = template_of(getpid());
    raise(SIGKILL);
    return 1;
}

static void all_go_with_the_program(void)
{
    int *const shown = shared_zeroed(3 * sizeof *shown);
    CHECK_EQ(in_child(be_orphaned, shown), 128 + SIGKILL);
    for (int i = 0; i < 3; i++) {
        CHECK(shown[i] > 0);
        WAIT_FOR(process_is_gone(shown[i]));
    }
    yoke_shared_free(shown);
}

/* ---- programs that do not serve ------------------------------------------------------------ */

static void each_failure_has_its_name(void)
{
    static const struct {
        const char *mode;
        int error;
    } cases[] = {
        {"exit", YOKE_EINIT},       {"crash", YOKE_EINIT}, {"refuse", YOKE_EINIT},
        {"version", YOKE_EVERSION}, {"thread", -EBUSY},    {"own heap", -EBUSY},
        {"blocked", -EEXIST},       {"go on", -EBUSY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct usage before = usage_now();
        yoke_pool *pool = NULL;
        const int rc = try_mode(cases[i].mode, &pool);
        if (rc != cases[i].error)
            fprintf(stderr, "    of mode %s\n", cases[i].mode);
        CHECK_RC(rc, cases[i].error);
        CHECK(pool == NULL);
        usage_check(before, 2);
    }
}

static void what_cannot_be_run_says_why(void)
{
    static const struct {
        const char *program;
        int error;
    } cases[] = {
        {"/no/such/program", -ENOENT},
        {"no-such-program-in-path", -ENOENT},
        {"/dev/null", -EACCES},
        {"/tmp", -EACCES},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const words[] = {cases[i].program, NULL};
        const yoke_pool_config config = exec_config(words);
        const struct usage before = usage_now();
        yoke_pool *pool = NULL;
        CHECK_RC(yoke_pool_create(&config, &pool), cases[i].error);
        usage_check(before, 2);
    }
}

static void a_program_that_hangs_is_given_up(void)
{
    const int64_t usual = yk_exec_patience_ns;
    yk_exec_patience_ns = 100000000;
    const struct usage before = usage_now();
    yoke_pool *pool = NULL;
    CHECK_RC(try_mode("hang", &pool), -ETIMEDOUT);
    usage_check(before, 2);
    yk_exec_patience_ns = usual;
}

static void a_taken_address_is_tried_again(void)
{
    int kept = -1;
    yoke_pool *pool = make_kept("blocked at first", &kept);
    check_cubes(pool);
    end_pool(pool);
    CHECK_EQ(count_notes(kept, 'r'), 3);
    close(kept);
}

static void settings_that_make_no_sense_are_refused(void)
{
    const char *const words[] = {image_path, NULL}, *const none[] = {NULL};
    const yoke_hooks hooks = {.size = sizeof hooks};
    yoke_pool *pool = NULL;
    yoke_pool_config config = exec_config(words);
    config.hooks = &hooks;
    CHECK_RC(yoke_pool_create(&config, &pool), -EINVAL);
    config = exec_config(NULL);
    CHECK_RC(yoke_pool_create(&config, &pool), -EINVAL);
    config = exec_config(none);
    CHECK_RC(yoke_pool_create(&config, &pool), -EINVAL);
    config = exec_config(words);
    config.worker_init = (int (*)(unsigned, void *))(uintptr_t)1;
    CHECK_RC(yoke_pool_create(&config, &pool), -EINVAL);
    config = exec_config(words);
    config.image = YOKE_SNAPSHOT;
    CHECK_RC(yoke_pool_create(&config, &pool), -EINVAL);
    config = exec_config(words);
    config.kind = YOKE_THREADS;
    CHECK_RC(yoke_pool_create(&config, &pool), -EINVAL);

    const yoke_process_config process = {.size = sizeof process, .image = YOKE_EXEC};
    yoke_process *started = NULL;
    CHECK_RC(yoke_process_start(&process, (yoke_process_fn *)(uintptr_t)1, NULL, &started),
             -EINVAL);
}

static void tickets_that_are_none_are_refused(void)
{
    CHECK_RC(yoke_image_serve(NULL, NULL), -EINVAL);
    CHECK_RC(yoke_image_serve("", NULL), -EINVAL);
    CHECK_RC(yoke_image_serve("yoke", NULL), -EINVAL);
    CHECK_RC(yoke_image_serve("yoke.0.1.2.3.4.5.6.7.8.9", NULL), -EINVAL);
    CHECK_RC(yoke_image_serve("yoke.ffffffffff.1.2.3.4.5.6.7.8.9", NULL), -EINVAL);
}

static int close_heap_fd(void *unused)
{
    (void)unused;
    void *const block = yoke_shared_alloc(16);
    for (int fd = 3; fd < 2048; fd++)
        close(fd);
    yoke_pool *pool = NULL;
    CHECK(block != NULL);
    CHECK_RC(try_mode("serve", &pool), -EBADF);
    const int other = (int)syscall(SYS_memfd_create, "other", 0);
    CHECK(other >= 0);
    for (int fd = other; fd >= 0 && fd < 1023;)
        fd = dup(other);
    CHECK_RC(try_mode("serve", &pool), -EBADF); /* another one has its number now */
    return 0;
}

static void a_heap_whose_descriptor_is_gone_is_told(void)
{
    CHECK_CHILD(close_heap_fd, NULL);
}

static void two_pools_of_two_programs_live_side_by_side(void)
{
    yoke_pool *one = make_exec_pool();
    yoke_pool *two = make_exec_pool();
    yoke_pool *own = make_pool(YOKE_PROCESSES, 2);
    for (int i = 0; i < 3; i++) {
        check_cubes(one);
        check_cubes(two);
        check_cubes(own);
        check_pool_works(own);
    }
    end_pool(one);
    check_cubes(two);
    end_pool(two);
    end_pool(own);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (CHECK_TSAN || check_emulated())
        skip("there are no process pools here");
    load_tasks();
    RUN(tasks_run_in_the_other_program);
    RUN(a_reduce_folds_here_what_was_made_there);
    RUN(addresses_differ);
    RUN(workers_are_children_of_this_program);
    RUN(a_program_may_run_itself);
    RUN(what_the_image_has_not_loaded_is_refused);
    RUN(hooks_are_the_image_s_own);
    RUN(nothing_else_is_inherited);
    RUN(the_environment_is_what_the_pool_says);
    RUN(a_dead_worker_costs_its_task);
    RUN(late_tasks_time_out);
    RUN(workers_killed_at_random_are_replaced);
    RUN(another_start_of_the_program_takes_over);
    RUN(all_go_with_the_program);
    RUN(each_failure_has_its_name);
    RUN(what_cannot_be_run_says_why);
    RUN(a_program_that_hangs_is_given_up);
    RUN(a_taken_address_is_tried_again);
    RUN(settings_that_make_no_sense_are_refused);
    RUN(tickets_that_are_none_are_refused);
    RUN(a_heap_whose_descriptor_is_gone_is_told);
    RUN(two_pools_of_two_programs_live_side_by_side);
    return 0;
}
