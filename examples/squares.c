/* SPDX-License-Identifier: MIT
 * squares.c - the squares of 1 to 1,000,000, cut into equal parts, one process for each part.
 *
 * Idea: the numbers and the squares lie in shared memory, which every worker sees at the same
 * address, so nothing is copied. Change YOKE_PROCESSES to YOKE_THREADS or YOKE_SERIAL and it
 * still runs: a task that touches only its in and its out runs everywhere.
 */
#include <inttypes.h>
#include <stdio.h>
#include <yoke/yoke.h>

enum { COUNT = 1000000 };
static const int64_t expected_sum = 333333833333500000;

static int square(yoke_task *task, const void *in, void *out)
{
    (void)task;
    const int64_t x = *(const int64_t *)in;
    *(int64_t *)out = x * x;
    return 0;
}

static int square_all(const int64_t *numbers, int64_t *squares)
{
    yoke_pool *pool = NULL;
    const yoke_pool_config config = {.size = sizeof config, .kind = YOKE_PROCESSES};
    int rc = yoke_pool_create(&config, &pool);
    if (rc != 0)
        return rc;
    rc = yoke_map(pool, square, numbers, sizeof *numbers, squares, sizeof *squares, COUNT, NULL);
    yoke_pool_destroy(pool, YOKE_FOREVER);
    return rc;
}

int main(void)
{
    int64_t *numbers = yoke_shared_alloc(COUNT * sizeof *numbers);
    int64_t *squares = yoke_shared_alloc(COUNT * sizeof *squares);
    if (numbers == NULL || squares == NULL) {
        fprintf(stderr, "squares: no memory\n");
        return 1;
    }
    for (int64_t i = 0; i < COUNT; i++)
        numbers[i] = i + 1;

    const int rc = square_all(numbers, squares);
    if (rc != 0) {
        fprintf(stderr, "squares: %s\n", yoke_strerror(rc));
        return 1;
    }

    int64_t sum = 0;
    for (size_t i = 0; i < COUNT; i++)
        sum += squares[i];
    printf("sum of the squares of 1 to %d: %" PRId64 "\n", COUNT, sum);
    yoke_shared_free(squares);
    yoke_shared_free(numbers);
    return sum == expected_sum ? 0 : 1;
}
