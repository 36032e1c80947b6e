/* SPDX-License-Identifier: MIT
 * itself.h - a program whose pool runs the same program once more.
 */
#ifndef YOKE_TESTS_ITSELF_H
#define YOKE_TESTS_ITSELF_H

#include "check.h"

static int is_image; /* 1 in the workers */

static inline int own_task(yoke_task *task, const void *in, void *out)
{
    (void)task;
    int64_t x;
    memcpy(&x, in, sizeof x);
    x = is_image ? 2 * x : -1;
    memcpy(out, &x, sizeof x);
    return 0;
}

static inline int itself_main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "serve") == 0) {
        is_image = 1;
        return yoke_image_serve(getenv("YOKE_IMAGE"), NULL) != 0;
    }
    alarm(CHECK_TIMEOUT * check_slowness());
    const char *const words[] = {"/proc/self/exe", "serve", NULL};
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = YOKE_PROCESSES,
                                     .image = YOKE_EXEC,
                                     .workers = 2,
                                     .argv = words};
    yoke_pool *pool = NULL;
    CHECK_RC(yoke_pool_create(&config, &pool), 0);
    enum { N = 300 };
    int64_t in[N], out[N];
    for (int i = 0; i < N; i++)
        in[i] = i;
    CHECK_RC(yoke_map(pool, own_task, in, sizeof *in, out, sizeof *out, N, NULL), 0);
    for (int i = 0; i < N; i++)
        CHECK_EQ(out[i], 2 * i);
    check_pool_works(pool);
    end_pool(pool);
    return 0;
}

#endif
