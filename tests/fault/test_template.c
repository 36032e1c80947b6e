/* SPDX-License-Identifier: MIT
 * test_template.c - what stands behind the workers dies too: the template, idle and stopped ones.
 *
 * Idea: after any kill the pool runs new tasks (or says in so many words that it cannot), and a
 * seed or a snapshot shows the memory it was taken with, also after its workers were replaced.
 */
/* timeout: 240 */
#define CHECK_TIMEOUT 100
#include "killer.h"

static int image_value = 1;

static int see_image(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    ((int64_t *)out)[0] = image_value;
    ((int64_t *)out)[1] = getpid();
    return 0;
}

static void check_image(yoke_pool *pool, int want)
{
    enum { N = 40 };
    int64_t out[N][2];
    memset(out, 0, sizeof out);
    CHECK_RC(yoke_map(pool, see_image, NULL, 0, out, sizeof *out, N, NULL), 0);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(out[i][0], want);
        CHECK(out[i][1] != getpid());
    }
}

static int template_of(int root)
{
    int pid = -1;
    /* A copy that was made just now has the template's name for a moment. */
    WAIT_MS(count_descendants(root, "yoke-template", 0, &pid) == 1, 10000);
    return pid;
}

static void kill_all_workers(yoke_pool *pool)
{
    int pids[16];
    const int n = yoke_pool_worker_ids(pool, pids, 16);
    for (int i = 0; i < n && i < 16; i++)
        (void)signal_child(pids[i], SIGKILL);
    for (int i = 0; i < n && i < 16; i++)
        WAIT_FOR(process_is_gone(pids[i]));
}

static void wait_for_workers(yoke_pool *pool, unsigned workers)
{
    WAIT_FOR(stats_of(pool).workers == workers);
}

static yoke_pool *make_image_pool(int image)
{
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_PROCESSES, .image = image, .workers = 2};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    return pool;
}

static void images_show_their_own_time(void)
{
    image_value = 10;
    yoke_pool *seed = make_image_pool(YOKE_SEED);
    image_value = 20;
    yoke_pool *early = make_image_pool(YOKE_SNAPSHOT);
    image_value = 30;
    yoke_pool *late = make_image_pool(YOKE_SNAPSHOT);
    image_value = 40;
    for (int round = 0; round < 3; round++) {
        check_image(seed, 1);
        check_image(early, 20);
        check_image(late, 30);
        kill_all_workers(seed);
        kill_all_workers(early);
        kill_all_workers(late);
    }
    end_pool(early);
    end_pool(seed);
    check_image(late, 30);
    end_pool(late);
    image_value = 1;
}

static void idle_workers_killed_are_replaced(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 3);
    for (int round = 0; round < 15; round++) {
        kill_all_workers(pool);
        if (round % 2)
            check_pool_works(pool);
        else
            wait_for_workers(pool, 3);
    }
    check_pool_works(pool);
    end_pool(pool);
}

static void a_pool_survives_its_template(void)
{
    const int seed_template = template_of(getpid());
    CHECK(seed_template > 0);
    for (int round = 0; round < 12; round++) {
        /* Soon after the start, so that some die while they make the spare. */
        yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
        /* The seed's sleeps on; the other one is this pool's. */
        struct proc_info *list = malloc(CHECK_PROCS * sizeof *list);
        CHECK(list != NULL);
        const size_t n = proc_list(list, CHECK_PROCS);
        int killed = 0;
        for (size_t i = 0; i < n; i++) {
            if (list[i].ppid == getpid() && list[i].pid != seed_template &&
                strcmp(list[i].name, "yoke-template") == 0)
                killed += signal_child(list[i].pid, SIGKILL);
        }
        free(list);
        CHECK(killed >= 1); /* a worker just made is still called that, too */
        check_pool_works(pool);
        if (round % 2)
            kill_all_workers(pool);
        for (int i = 0; i < 5; i++)
            check_pool_works(pool);
        kill_all_workers(pool);
        check_pool_works(pool);
        end_pool(pool);
    }
}

static void pools_of_the_seed_survive_its_template(void)
{
    yoke_pool *pool = make_image_pool(YOKE_SEED);
    const int pid = template_of(getpid());
    CHECK(pid > 0);
    CHECK_EQ(signal_child(pid, SIGKILL), 1);
    WAIT_FOR(process_is_gone(pid));
    check_pool_works(pool);
    kill_all_workers(pool);
    /* The seed is gone for good: to go on without it or to say so are both answers. */
    int64_t x = 5, y = 0;
    const int rc = yoke_map(pool, check_square, &x, 8, &y, 8, 1, NULL);
    fprintf(stderr, "    after the seed's template: %s\n", yoke_strerror(rc));
    CHECK((rc == 0 && y == 25) || rc == YOKE_EBROKEN);
    CHECK(yoke_pool_destroy(pool, soon()) == 0);
    yoke_pool *fresh = make_pool(YOKE_PROCESSES, 2);
    check_pool_works(fresh);
    end_pool(fresh);
}

struct hold {
    atomic_long begun, go;
};

static int hold(yoke_task *task, const void *in, void *out)
{
    struct hold *it = *(struct hold *const *)in;
    const int64_t until = soon();
    (void)task;
    *(int64_t *)out = getpid();
    count_up(&it->begun, 1);
    while (!count_get(&it->go) && yoke_now_ns() < until)
        breathe();
    return 0;
}

static void a_stopped_worker_can_still_be_killed(void)
{
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    struct hold *it = shared_zeroed(sizeof *it);
    yoke_job *jobs[2];
    int pids[2];
    for (int i = 0; i < 2; i++)
        CHECK_RC(yoke_submit(pool, hold, &it, sizeof it, 8, NULL, &jobs[i]), 0);
    WAIT_FOR(count_get(&it->begun) == 2);
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, 2), 2);
    CHECK_EQ(signal_child(pids[0], SIGSTOP), 1);
    struct proc_info info;
    WAIT_FOR(proc_read(pids[0], &info) && info.state == 'T');
    count_set(&it->go, 1);
    size_t first = 9;
    CHECK_RC(yoke_wait_any(jobs, 2, soon(), &first), 0);
    const size_t other = 1 - first;
    CHECK_RC(yoke_wait(jobs[other], yoke_in_ms(50)), -ETIMEDOUT);
    check_pool_works(pool); /* one worker is enough */
    CHECK_EQ(signal_child(pids[0], SIGKILL), 1);
    CHECK_RC(yoke_wait(jobs[other], soon()), 0);
    yoke_outcome outcome;
    CHECK_RC(yoke_job_result(jobs[other], &outcome, NULL, NULL), 0);
    CHECK_EQ(outcome.kind, YOKE_CRASHED);
    CHECK_EQ(outcome.signal, SIGKILL);
    CHECK_RC(yoke_job_result(jobs[first], &outcome, NULL, NULL), 0);
    CHECK_EQ(outcome.kind, YOKE_OK);
    yoke_job_release(jobs[0]);
    yoke_job_release(jobs[1]);
    /* A stopped one is ended by destroy, too. */
    wait_for_workers(pool, 2);
    CHECK_EQ(yoke_pool_worker_ids(pool, pids, 2), 2);
    CHECK_EQ(signal_child(pids[1], SIGSTOP), 1);
    WAIT_FOR(proc_read(pids[1], &info) && info.state == 'T');
    const int rc = yoke_pool_destroy(pool, yoke_in_ms(200));
    CHECK(rc == 0 || rc == -ETIMEDOUT);
    CHECK(process_is_gone(pids[1]));
    yoke_shared_free(it);
}

static atomic_long *init_calls;

static int init_twice_only(unsigned worker, void *user)
{
    (void)worker;
    return count_up(user, 1) >= 3 ? _exit(9), 1 : 0;
}

static void a_pool_that_cannot_go_on_says_so(void)
{
    init_calls = shared_zeroed(sizeof *init_calls);
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = YOKE_PROCESSES,
                                     .workers = 2,
                                     .worker_init = init_twice_only,
                                     .user = init_calls};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    check_pool_works(pool);
    /* No worker that comes now gets through its init: sooner or later none is left. */
    const int64_t until = soon();
    int rc = 0;
    while (rc != YOKE_EBROKEN) {
        CHECK(yoke_now_ns() < until);
        kill_all_workers(pool);
        int64_t x = 5, y = 0;
        rc = yoke_map(pool, check_square, &x, 8, &y, 8, 1, NULL);
        CHECK(rc == YOKE_EBROKEN || rc == YOKE_ETASK || (rc == 0 && y == 25));
    }
    yoke_job *job = NULL;
    CHECK_RC(yoke_submit(pool, check_square, &rc, 4, 8, NULL, &job), YOKE_EBROKEN);
    CHECK(job == NULL);
    const int end = yoke_pool_destroy(pool, soon());
    CHECK(end == 0 || end == -ETIMEDOUT);
    yoke_shared_free(init_calls);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    if (!check_has_kind(YOKE_PROCESSES))
        skip("kills need processes");
    CHECK_RC(yoke_init(), 0);
    check_kind = YOKE_PROCESSES;
    end_pool(make_pool(YOKE_PROCESSES, 3));
    const struct usage before = usage_now();
    RUN(images_show_their_own_time);
    RUN(idle_workers_killed_are_replaced);
    RUN(a_pool_survives_its_template);
    RUN(a_stopped_worker_can_still_be_killed);
    RUN(a_pool_that_cannot_go_on_says_so);
    usage_check(before, 20);
    RUN(pools_of_the_seed_survive_its_template);
    return 0;
}
