/* SPDX-License-Identifier: MIT
 * test_api_bad.c - what callers get wrong, and that nothing comes of it.
 *
 * Idea: each bad call has the code the header gives, runs nothing, touches no out-pointer, and
 * leaves the pool as good as it was.
 */
/* tsan: yes */
#include "check.h"
#include <dlfcn.h>
#include <limits.h>

static int sum(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    *(uint64_t *)accumulator += end - begin;
    return 0;
}

static void merge(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static int never(yoke_task *task, const void *in, void *out)
{
    (void)task;
    (void)in;
    (void)out;
    return 111;
}

static void bad_maps(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[4] = {0}, out[4] = {1, 1, 1, 1};
        CHECK_RC(yoke_map(NULL, check_square, in, 8, out, 8, 4, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, NULL, in, 8, out, 8, 4, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, check_square, NULL, 8, out, 8, 4, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, check_square, in, 8, NULL, 8, 4, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, SIZE_MAX / 4, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, SIZE_MAX / 8 + 1, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, SIZE_MAX / 2, 4, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, check_square, in, SIZE_MAX, out, 8, 2, NULL), -EINVAL);
        for (int i = 0; i < 4; i++)
            CHECK_EQ(out[i], 1);
        check_pool_works(pool);
        end_pool(pool);
    }
}

static void bad_fors_and_reduces(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        uint64_t total = 3;
        CHECK_RC(yoke_for(NULL, sum, 10, NULL), -EINVAL);
        CHECK_RC(yoke_for(pool, NULL, 10, NULL), -EINVAL);
        CHECK_RC(yoke_reduce(NULL, sum, merge, 10, &total, 8, NULL), -EINVAL);
        CHECK_RC(yoke_reduce(pool, NULL, merge, 10, &total, 8, NULL), -EINVAL);
        CHECK_RC(yoke_reduce(pool, sum, NULL, 10, &total, 8, NULL), -EINVAL);
        CHECK_RC(yoke_reduce(pool, sum, merge, 10, NULL, 8, NULL), -EINVAL);
        CHECK_RC(yoke_reduce(pool, sum, merge, 10, &total, 0, NULL), -EINVAL);
        CHECK_EQ(total, 3);
        end_pool(pool);
    }
}

static void bad_submits(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t x = 1;
        yoke_job *untouched = (yoke_job *)&x, *job = untouched;
        const size_t too_much = ((size_t)1 << 30) + 1;
        CHECK_RC(yoke_submit(NULL, check_square, &x, 8, 8, NULL, &job), -EINVAL);
        CHECK_RC(yoke_submit(pool, NULL, &x, 8, 8, NULL, &job), -EINVAL);
        CHECK_RC(yoke_submit(pool, check_square, NULL, 8, 8, NULL, &job), -EINVAL);
        CHECK_RC(yoke_submit(pool, check_square, &x, 8, 8, NULL, NULL), -EINVAL);
        CHECK_RC(yoke_submit(pool, check_square, &x, too_much, 8, NULL, &job), -EINVAL);
        CHECK_RC(yoke_submit(pool, check_square, &x, 8, too_much, NULL, &job), -EINVAL);
        CHECK_RC(yoke_submit(pool, check_square, &x, 8, SIZE_MAX, NULL, &job), -EINVAL);
        CHECK(job == untouched);
        CHECK_RC(yoke_wait(NULL, 0), -EINVAL);
        CHECK_RC(yoke_wait_any(NULL, 2, 0, NULL), -EINVAL);
        CHECK_RC(yoke_job_result(NULL, NULL, NULL, NULL), -EINVAL);
        CHECK_EQ(yoke_job_cancel(NULL, 0), -EINVAL);
        yoke_job_release(NULL);
        check_pool_works(pool);
        end_pool(pool);
    }
}

/* Settings of a library that is newer than this one. */
struct future_options {
    yoke_options now;
    char later[40];
};

static void settings_of_a_newer_library(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[4] = {3, 3, 3, 3}, out[4] = {0};
        uint64_t total = 0;
        yoke_job *job = NULL;
        struct future_options options;
        memset(&options, 0, sizeof options);
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, 4, &options.now), -EINVAL);
        CHECK_RC(yoke_submit(pool, check_square, in, 8, 8, &options.now, &job), -EINVAL);
        CHECK_RC(yoke_for(pool, sum, 10, &options.now), -EINVAL);
        CHECK_RC(yoke_reduce(pool, sum, merge, 10, &total, 8, &options.now), -EINVAL);
        options.now.size = sizeof options;
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, 4, &options.now), 0);
        CHECK_EQ(out[3], 9);
        options.later[39] = 1;
        CHECK_RC(yoke_map(pool, check_square, in, 8, out, 8, 4, &options.now), YOKE_EVERSION);
        CHECK_RC(yoke_submit(pool, check_square, in, 8, 8, &options.now, &job), YOKE_EVERSION);
        CHECK_RC(yoke_for(pool, sum, 10, &options.now), YOKE_EVERSION);
        CHECK_RC(yoke_reduce(pool, sum, merge, 10, &total, 8, &options.now), YOKE_EVERSION);
        CHECK(job == NULL);
        CHECK_EQ(total, 0);
        yoke_pool_stats stats = {.size = 0};
        CHECK_RC(yoke_pool_stats_get(pool, &stats), -EINVAL);
        CHECK_RC(yoke_pool_stats_get(pool, NULL), -EINVAL);
        CHECK_RC(yoke_pool_stats_get(NULL, &stats), -EINVAL);
        CHECK_EQ(yoke_pool_worker_ids(NULL, NULL, 0), -EINVAL);
        end_pool(pool);
    }
}

static void refuse(yoke_pool_config config, int want)
{
    yoke_pool *const untouched = (yoke_pool *)&check_kind;
    yoke_pool *pool = untouched;
    CHECK_RC(yoke_pool_create(&config, &pool), want);
    CHECK(pool == untouched);
}

static void bad_pools(void)
{
    const size_t size = sizeof(yoke_pool_config);
    static const int fds[] = {0, 1};
    CHECK_RC(yoke_pool_create(NULL, NULL), -EINVAL);
    CHECK_EQ(yoke_pool_destroy(NULL, 0), -EINVAL);
    refuse((yoke_pool_config){.size = 0}, -EINVAL);
    refuse((yoke_pool_config){.size = size, .kind = 99}, -EINVAL);
    refuse((yoke_pool_config){.size = size, .kind = -1}, -EINVAL);
    for (int kind = YOKE_THREADS; kind <= YOKE_PROCESSES; kind++) {
        refuse((yoke_pool_config){.size = size, .kind = kind, .workers = 1025}, -EINVAL);
        refuse((yoke_pool_config){.size = size, .kind = kind, .workers = UINT_MAX}, -EINVAL);
        refuse((yoke_pool_config){.size = size, .kind = kind, .workers = 2, .workers_max = 16385},
               -EINVAL);
    }
    const int processes = YOKE_PROCESSES;
    refuse((yoke_pool_config){.size = size, .kind = processes, .workers = 2, .workers_max = 3},
           -EINVAL);
    refuse((yoke_pool_config){.size = size, .kind = processes, .image = 7}, -EINVAL);
    refuse((yoke_pool_config){.size = size, .kind = processes, .workers = 1, .keep_fd_count = 2},
           -EINVAL);
    refuse((yoke_pool_config){.size = size, .kind = processes, .image = YOKE_SEED, .workers = 1},
           -ESRCH);
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    CHECK_RC(yoke_init(), 0);
    refuse((yoke_pool_config){.size = size,
                              .kind = processes,
                              .image = YOKE_SEED,
                              .workers = 1,
                              .keep_fds = fds,
                              .keep_fd_count = 2},
           -EINVAL);
}

struct future_config {
    yoke_pool_config now;
    char later[40];
};

struct future_hooks {
    yoke_hooks now;
    char later[40];
};

static void pool_settings_of_a_newer_library(void)
{
    FOR_EACH_KIND(kind)
    {
        struct future_config config;
        struct future_hooks hooks;
        yoke_pool *pool = NULL;
        memset(&config, 0, sizeof config);
        memset(&hooks, 0, sizeof hooks);
        config.now = (yoke_pool_config){.size = sizeof config, .kind = kind, .workers = 2};
        CHECK_RC(yoke_pool_create(&config.now, &pool), 0);
        check_pool_works(pool);
        end_pool(pool);
        pool = NULL;
        config.later[0] = 1;
        CHECK_RC(yoke_pool_create(&config.now, &pool), YOKE_EVERSION);
        CHECK(pool == NULL);
        config.later[0] = 0;
        config.now.hooks = &hooks.now;
        hooks.now.size = sizeof hooks;
        hooks.later[20] = 1;
        CHECK_RC(yoke_pool_create(&config.now, &pool), YOKE_EVERSION);
        hooks.now.size = 0;
        hooks.later[20] = 0;
        CHECK_RC(yoke_pool_create(&config.now, &pool), -EINVAL);
        CHECK(pool == NULL);
    }
}

static void functions_of_a_later_library_are_refused(void)
{
    static const char *const names[] = {"libBrokenLocale.so.1", "libanl.so.1", "libnsl.so.1",
                                        "libresolv.so.2", "libm.so.6"};
    static const char *const symbols[] = {"__ctype_get_mb_cur_max", "getaddrinfo_a", "yp_match",
                                          "ns_name_ntop", "cos"};
    if (!check_has_kind(YOKE_PROCESSES))
        return;
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    void *symbol = NULL;
    for (int i = 0; i < 5 && !symbol; i++) {
        void *library = NULL;
        if (!dlopen(names[i], RTLD_NOW | RTLD_NOLOAD))
            library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        symbol = library ? dlsym(library, symbols[i]) : NULL;
    }
    if (!symbol) { /* a static program has no dlopen to speak of */
        fprintf(stderr, "    no library to load: not tried\n");
        end_pool(pool);
        return;
    }
    yoke_fn *fn;
    yoke_range_fn *range_fn;
    memcpy(&fn, &symbol, sizeof fn);
    memcpy(&range_fn, &symbol, sizeof range_fn);
    int64_t in[4] = {0}, out[4];
    uint64_t total = 0;
    yoke_job *job = NULL;
    CHECK_RC(yoke_map(pool, fn, in, 8, out, 8, 4, NULL), YOKE_EIMAGE);
    CHECK_RC(yoke_submit(pool, fn, in, 8, 8, NULL, &job), YOKE_EIMAGE);
    CHECK_RC(yoke_for(pool, range_fn, 4, NULL), YOKE_EIMAGE);
    CHECK_RC(yoke_reduce(pool, range_fn, merge, 4, &total, 8, NULL), YOKE_EIMAGE);
    CHECK(job == NULL);
    /* Data is no function either. */
    static char data[64];
    symbol = data;
    memcpy(&fn, &symbol, sizeof fn);
    yoke_outcome failure = {0};
    const yoke_options options = {.size = sizeof options, .failure = &failure};
    const int rc = yoke_map(pool, fn, in, 8, out, 8, 1, &options);
    CHECK(rc == YOKE_EIMAGE || (rc == YOKE_ETASK && failure.kind == YOKE_CRASHED));
    check_pool_works(pool);
    end_pool(pool);
    /* A pool made now knows the library. */
    pool = make_pool(YOKE_PROCESSES, 1);
    check_pool_works(pool);
    end_pool(pool);
}

static void wrong_calls_run_nothing(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        yoke_pool_stats before = {.size = sizeof before}, after = {.size = sizeof after};
        CHECK_RC(yoke_pool_stats_get(pool, &before), 0);
        int64_t in[2] = {0};
        CHECK_RC(yoke_map(pool, never, in, 8, NULL, 8, 2, NULL), -EINVAL);
        CHECK_RC(yoke_map(pool, never, in, 8, NULL, 0, SIZE_MAX / 8 + 1, NULL), -EINVAL);
        CHECK_RC(yoke_pool_stats_get(pool, &after), 0);
        CHECK_EQ(after.tasks, before.tasks);
        CHECK_EQ(after.in_flight, 0);
        end_pool(pool);
    }
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(bad_maps);
    RUN(bad_fors_and_reduces);
    RUN(bad_submits);
    RUN(settings_of_a_newer_library);
    RUN(bad_pools);
    RUN(pool_settings_of_a_newer_library);
    RUN(functions_of_a_later_library_are_refused);
    RUN(wrong_calls_run_nothing);
    return 0;
}
