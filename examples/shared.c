/* SPDX-License-Identifier: MIT
 * shared.c - processes build linked lists that the program walks by plain pointers.
 *
 * Idea: the shared heap has the same address in every worker, so a list that a worker builds
 * needs no packing, no copying and no offsets: its task returns a pointer, and that is all.
 */
#include <stdio.h>
#include <yoke/yoke.h>

enum { LIMIT = 1000, STEP = 100, PARTS = LIMIT / STEP };

struct prime {
    int value;
    struct prime *next;
};

static int is_prime(int n)
{
    for (int d = 2; d * d <= n; d++)
        if (n % d == 0)
            return 0;
    return n >= 2;
}

/* in: the first number of a hundred. out: the head of the list of the primes in it. */
static int list_primes(yoke_task *task, const void *in, void *out)
{
    (void)task;
    const int first = *(const int *)in;
    struct prime *head = NULL;
    for (int n = first + STEP - 1; n >= first; n--) {
        if (!is_prime(n))
            continue;
        struct prime *node = yoke_shared_alloc(sizeof *node);
        if (node == NULL)
            return 1;
        node->value = n;
        node->next = head;
        head = node;
    }
    *(struct prime **)out = head;
    return 0;
}

/* Frees the list on the way: any process may free what another one took. */
static void walk_and_free(struct prime *list, int *count, int *sum)
{
    while (list != NULL) {
        struct prime *next = list->next;
        *count += 1;
        *sum += list->value;
        yoke_shared_free(list);
        list = next;
    }
}

int main(void)
{
    int firsts[PARTS];
    for (int i = 0; i < PARTS; i++)
        firsts[i] = i * STEP;

    yoke_pool *pool = NULL;
    struct prime *lists[PARTS] = {NULL};
    const yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES};
    int rc = yoke_pool_create(&config, &pool);
    if (rc == 0)
        rc = yoke_map(pool, list_primes, firsts, sizeof *firsts, lists, sizeof *lists, PARTS, NULL);
    if (rc != 0) {
        fprintf(stderr, "shared: %s\n", yoke_strerror(rc));
        return 1;
    }
    yoke_pool_destroy(pool, YOKE_FOREVER); /* the lists outlive the processes that built them */
    int count = 0, sum = 0;
    for (int i = 0; i < PARTS; i++)
        walk_and_free(lists[i], &count, &sum);
    printf("%d primes below %d in %d lists, their sum is %d\n", count, LIMIT, PARTS, sum);
    return count == 168 && sum == 76127 ? 0 : 1;
}
