/* SPDX-License-Identifier: MIT
 * crash.c - tasks that crash, exit, or never end, and what the caller sees of it.
 *
 * Idea: in a process pool a task that dies costs that one item. How an item ended is data
 * (yoke_outcome); the rest of the map is done, and the pool works on with a new worker.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <yoke/yoke.h>

enum { GOOD, SEGFAULT, EXIT, ENDLESS, COUNT };

static int misbehave(yoke_task *task, const void *in, void *out)
{
    (void)task;
    switch (*(const int *)in) {
    case SEGFAULT:
        return raise(SIGSEGV); /* as a wild pointer would */
    case EXIT:
        exit(3);
    case ENDLESS:
        for (;;)
            pause();
    default:
        *(int *)out = 42;
        return 0;
    }
}

static void print_outcome(const yoke_outcome *outcome, int result)
{
    printf("item %zu: ", outcome->item);
    if (outcome->kind == YOKE_OK)
        printf("ok, result %d\n", result);
    else if (outcome->kind == YOKE_TIMEDOUT)
        printf("killed, it ran longer than its timeout\n");
    else if (outcome->kind == YOKE_CRASHED && outcome->signal != 0)
        printf("crashed with signal %d\n", outcome->signal);
    else if (outcome->kind == YOKE_CRASHED)
        printf("called exit(%d)\n", outcome->code);
    else
        printf("unexpected outcome %d\n", outcome->kind);
}

static int run(yoke_pool *pool, const int items[COUNT], int expected)
{
    yoke_outcome outcomes[COUNT] = {{0}};
    int results[COUNT] = {0};
    const yoke_options options = {
        .size = sizeof options, .timeout_ns = 200000000, .outcomes = outcomes};
    const int rc =
        yoke_map(pool, misbehave, items, sizeof *items, results, sizeof *results, COUNT, &options);
    for (int i = 0; i < COUNT; i++)
        print_outcome(&outcomes[i], results[i]);
    printf("yoke_map said: %s\n", yoke_strerror(rc));
    return rc == expected ? 0 : 1;
}

int main(void)
{
    yoke_pool *pool = NULL;
    const yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES};
    const int rc = yoke_pool_create(&config, &pool);
    if (rc != 0) {
        fprintf(stderr, "crash: %s\n", yoke_strerror(rc));
        return 1;
    }
    int failed = run(pool, (const int[]){GOOD, SEGFAULT, EXIT, ENDLESS}, YOKE_ETASK);
    printf("\nThe same pool afterwards:\n");
    failed += run(pool, (const int[]){GOOD, GOOD, GOOD, GOOD}, 0);
    yoke_pool_destroy(pool, YOKE_FOREVER);
    return failed == 0 ? 0 : 1;
}
