/* SPDX-License-Identifier: MIT
 * test_api_base.c - errors, time, the version, the CPUs.
 *
 * Idea: what is promised to hold at the edges: unknown errors, deadlines that would overflow, a
 * process that may use one CPU only.
 */
/* tsan: yes */
#include "check.h"
#include <limits.h>

static void every_error_has_a_text_of_its_own(void)
{
    const char *unknown = yoke_strerror(-999999);
    CHECK(unknown != NULL);
    CHECK_EQ(strcmp(unknown, "unknown error"), 0);
    static const int mine[] = {YOKE_ETASK, YOKE_ECLOSED,  YOKE_EIMAGE, YOKE_ENESTED, YOKE_EBROKEN,
                               YOKE_EINIT, YOKE_EVERSION, 0,           -EINVAL,      -ENOMEM,
                               -EAGAIN,    -EMFILE,       -ETIMEDOUT,  -EINTR,       -ECANCELED,
                               -EBUSY,     -EDEADLK,      -ECHILD,     -ESRCH,       -EALREADY};
    enum { N = sizeof mine / sizeof *mine };
    for (int i = 0; i < N; i++) {
        const char *text = yoke_strerror(mine[i]);
        CHECK(text != NULL && text[0] != 0);
        CHECK(strcmp(text, unknown) != 0);
        for (int k = 0; k < i; k++)
            CHECK(strcmp(text, yoke_strerror(mine[k])) != 0);
    }
    static const int strange[] = {-5000, -5008, -6000, INT_MIN, INT_MAX, 12345, 1};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        CHECK_EQ(strcmp(yoke_strerror(strange[i]), unknown), 0);
}

static void no_call_sets_errno(void)
{
    FOR_EACH_KIND(kind)
    {
        errno = 12345;
        yoke_pool *pool = NULL;
        const yoke_pool_config config = {.size = sizeof config, .kind = kind, .workers = 2};
        int64_t x = 3, y = 0;
        yoke_job *job = NULL;
        const int rc[] = {yoke_pool_create(&config, &pool),
                          yoke_map(pool, check_square, &x, 8, &y, 8, 1, NULL),
                          yoke_submit(pool, check_square, &x, 8, 8, NULL, &job),
                          yoke_wait(job, soon()), yoke_map(pool, NULL, &x, 8, &y, 8, 1, NULL)};
        yoke_job_release(job);
        void *block = yoke_shared_alloc(100000);
        yoke_shared_free(block);
        (void)yoke_shared_alloc(SIZE_MAX / 2);
        (void)yoke_cpu_count();
        (void)yoke_strerror(-EINVAL);
        const int rc_destroy = yoke_pool_destroy(pool, soon());
        const int saved = errno;
        CHECK_EQ(saved, 12345);
        CHECK_EQ(rc_destroy, 0);
        for (int i = 0; i < 4; i++)
            CHECK_EQ(rc[i], 0);
        CHECK_EQ(rc[4], -EINVAL);
    }
}

static void the_version_is_that_of_the_header(void)
{
    char want[40];
    snprintf(want, sizeof want, "%d.%d.%d", YOKE_VERSION_MAJOR, YOKE_VERSION_MINOR,
             YOKE_VERSION_PATCH);
    CHECK_EQ(strcmp(yoke_version(), want), 0);
}

static int64_t system_clock_ns(void)
{
    struct timespec t;
    CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &t), 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void time_is_the_monotonic_clock(void)
{
    int64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        const int64_t before = system_clock_ns(), now = yoke_now_ns(), after = system_clock_ns();
        CHECK(before <= now && now <= after);
        CHECK(now >= last);
        last = now;
    }
}

static void deadlines_saturate(void)
{
    const int64_t before = yoke_now_ns(), in_five = yoke_in_ms(5), after = yoke_now_ns();
    CHECK(in_five >= before + 5000000 && in_five <= after + 5000000);
    CHECK(yoke_in_ms(INT64_MAX) == YOKE_FOREVER);
    CHECK(yoke_in_ms(INT64_MAX / 1000000) == YOKE_FOREVER);
    CHECK(yoke_in_ms(INT64_MAX / 1000000 + 1) == YOKE_FOREVER);
    CHECK(yoke_in_ms(1000000000000) < YOKE_FOREVER);
    static const int64_t past[] = {0, -1, -1000000, INT64_MIN, INT64_MIN / 1000000 - 1};
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        const int64_t low = yoke_now_ns(), got = yoke_in_ms(past[i]), high = yoke_now_ns();
        CHECK(got >= low && got <= high);
    }
}

static int count_with_one_cpu(void *arg)
{
    cpu_set_t all, one;
    const int many = (int)yoke_cpu_count();
    (void)arg;
    CPU_ZERO(&one);
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    CHECK(many >= 1 && many <= CPU_COUNT(&all));
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all) && CPU_COUNT(&one) == 0)
            CPU_SET(cpu, &one);
    }
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_EQ(yoke_cpu_count(), 1); /* read anew at each call */
    CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
    CHECK_EQ(yoke_cpu_count(), many);
    return 0;
}

static void the_cpus_are_those_we_may_use(void)
{
    CHECK_CHILD(count_with_one_cpu, NULL);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(every_error_has_a_text_of_its_own);
    RUN(no_call_sets_errno);
    RUN(the_version_is_that_of_the_header);
    RUN(time_is_the_monotonic_clock);
    RUN(deadlines_saturate);
    RUN(the_cpus_are_those_we_may_use);
    return 0;
}
