/* SPDX-License-Identifier: MIT
 * tour_ipc.c - row "ipc": a word, and 16 MB, to another process and back.
 *
 * Idea: by hand it is a pipe each way and a protocol; with Yoke it is a task, and what is big
 * lies in the shared heap and is handed over as a pointer. The other side adds up all the 16 MB,
 * so that both ways really get there.
 */
#include "jobs.h"
#include "plain.h"
#include "tour.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { WORDS = 2 << 20, ROUND_TRIPS = 200, BATCH = 20000 };

struct channel {
    int to, from; /* the program's ends */
    pid_t pid;
};

struct ipc {
    struct channel echo, bulk;
    yoke_pool *pool;
    uint64_t *block; /* WORDS words in the shared heap */
    uint64_t expected;
    uint64_t *in, *out; /* BATCH words each, private */
};

static int write_all(int fd, const void *data, size_t bytes)
{
    for (const char *at = data; bytes > 0;) {
        const ssize_t n = write(fd, at, bytes);
        if (n <= 0)
            return -EPIPE;
        at += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int read_all(int fd, void *data, size_t bytes)
{
    for (char *at = data; bytes > 0;) {
        const ssize_t n = read(fd, at, bytes);
        if (n <= 0)
            return -EPIPE;
        at += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static uint64_t add_up(const uint64_t *block)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < WORDS; i++)
        sum += block[i];
    return sum;
}

static void echo_serve(int in, int out)
{
    uint64_t word;
    while (read_all(in, &word, sizeof word) == 0 && write_all(out, &word, sizeof word) == 0) {
    }
}

static void bulk_serve(int in, int out)
{
    uint64_t *block = malloc(WORDS * sizeof *block);
    while (block != NULL && read_all(in, block, WORDS * sizeof *block) == 0) {
        const uint64_t sum = add_up(block);
        if (write_all(out, &sum, sizeof sum) != 0)
            break;
    }
    free(block);
}

static int channel_open(struct channel *channel, void (*serve)(int in, int out))
{
    int there[2], back[2];
    if (pipe2(there, O_CLOEXEC) != 0)
        return -errno;
    if (pipe2(back, O_CLOEXEC) != 0) {
        const int rc = -errno;
        close(there[0]);
        close(there[1]);
        return rc;
    }
    const pid_t pid = plain_fork();
    if (pid == 0) {
        close(there[1]);
        close(back[0]);
        serve(there[0], back[1]);
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
    *channel = (struct channel){.to = there[1], .from = back[0], .pid = pid};
    return pid > 0 ? 0 : -EAGAIN;
}

static void channel_close(struct channel *channel)
{
    if (channel->pid <= 0)
        return;
    close(channel->to);
    close(channel->from);
    (void)plain_wait(channel->pid);
}

static int pipe_echo(void *arg)
{
    const struct ipc *ipc = arg;
    int rc = 0;
    for (uint64_t i = 0, back = 0; i < ROUND_TRIPS && rc == 0; i++) {
        rc = write_all(ipc->echo.to, &i, sizeof i);
        rc = rc ? rc : read_all(ipc->echo.from, &back, sizeof back);
        rc = rc ? rc : back == i ? 0 : -EILSEQ;
    }
    return rc;
}

static int pipe_bulk(void *arg)
{
    const struct ipc *ipc = arg;
    uint64_t sum = 0;
    int rc = write_all(ipc->bulk.to, ipc->block, WORDS * sizeof *ipc->block);
    rc = rc ? rc : read_all(ipc->bulk.from, &sum, sizeof sum);
    return rc ? rc : sum == ipc->expected ? 0 : -EILSEQ;
}

static int echo_task(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(uint64_t *)out = *(const uint64_t *)in;
    return 0;
}

static int bulk_task(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(uint64_t *)out = add_up(*(uint64_t *const *)in);
    return 0;
}

/* fn on a worker process, with 8 bytes in and 8 bytes out. */
static int call(yoke_pool *pool, yoke_fn *fn, const void *in, uint64_t *result)
{
    yoke_job *job = NULL;
    const void *out = NULL;
    int rc = yoke_submit(pool, fn, in, sizeof(uint64_t), sizeof *result, NULL, &job);
    if (rc != 0)
        return rc;
    rc = yoke_wait(job, YOKE_FOREVER);
    rc = rc ? rc : yoke_job_result(job, NULL, &out, NULL);
    if (rc == 0 && out != NULL)
        *result = *(const uint64_t *)out;
    yoke_job_release(job);
    return rc ? rc : out != NULL ? 0 : YOKE_ETASK;
}

static int yoke_echo(void *arg)
{
    const struct ipc *ipc = arg;
    int rc = 0;
    for (uint64_t i = 0, back = 0; i < ROUND_TRIPS && rc == 0; i++) {
        rc = call(ipc->pool, echo_task, &i, &back);
        rc = rc ? rc : back == i ? 0 : -EILSEQ;
    }
    return rc;
}

static int yoke_bulk(void *arg)
{
    const struct ipc *ipc = arg;
    uint64_t sum = 0;
    const int rc = call(ipc->pool, bulk_task, &ipc->block, &sum);
    return rc ? rc : sum == ipc->expected ? 0 : -EILSEQ;
}

static int yoke_batch(void *arg)
{
    const struct ipc *ipc = arg;
    const int rc = yoke_map(ipc->pool, echo_task, ipc->in, sizeof *ipc->in, ipc->out,
                            sizeof *ipc->out, BATCH, NULL);
    return rc ? rc : ipc->out[BATCH - 1] == ipc->in[BATCH - 1] ? 0 : -EILSEQ;
}

static int ipc_open(struct ipc *ipc)
{
    ipc->in = calloc(BATCH, sizeof *ipc->in);
    ipc->out = calloc(BATCH, sizeof *ipc->out);
    ipc->block = yoke_shared_alloc(WORDS * sizeof *ipc->block);
    if (ipc->in == NULL || ipc->out == NULL || ipc->block == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < WORDS; i++)
        ipc->block[i] = i * i;
    for (size_t i = 0; i < BATCH; i++)
        ipc->in[i] = i + 1;
    ipc->expected = add_up(ipc->block);
    int rc = pool_make(YOKE_PROCESSES, 1, &ipc->pool);
    rc = rc ? rc : channel_open(&ipc->echo, echo_serve);
    return rc ? rc : channel_open(&ipc->bulk, bulk_serve);
}

static void ipc_close(struct ipc *ipc)
{
    channel_close(&ipc->bulk); /* the last first: it holds a copy of the other's end */
    channel_close(&ipc->echo);
    if (ipc->pool != NULL)
        yoke_pool_destroy(ipc->pool, YOKE_FOREVER);
    yoke_shared_free(ipc->block);
    free(ipc->in);
    free(ipc->out);
}

static void conclude(struct report *report, const struct trial *words, const struct trial *bulk)
{
    char a[64], b[32], c[32];
    report_say(report,
               "A Yoke task there and back takes %s, %s a word through two pipes; in a map an item "
               "costs %s. (Yoke looks for work for a moment before it sleeps, a pipe sleeps at "
               "once.)",
               text_ns(b, sizeof b, trial_median_ns(&words[1])),
               speed_words(a, sizeof a, trial_speedup(&words[0], &words[1])),
               text_ns(c, sizeof c, trial_median_ns(&words[2])));
    report_say(report,
               "16 MB in the shared heap are handed over as one pointer and never copied: %s "
               "the pipe.",
               speed_words(a, sizeof a, trial_speedup(&bulk[0], &bulk[1])));
    report_say(report, "Either way it is one call, with no protocol to write.");
}

int tour_ipc(struct report *report)
{
    struct ipc ipc = {.pool = NULL};
    struct trial words[] = {
        {.label = "two pipes", .run = pipe_echo, .arg = &ipc, .calls = ROUND_TRIPS},
        {.label = "Yoke task: submit, wait", .run = yoke_echo, .arg = &ipc, .calls = ROUND_TRIPS},
        {.label = "Yoke map, for each item", .run = yoke_batch, .arg = &ipc, .calls = BATCH},
    };
    struct trial bulk[] = {
        {.label = "through a pipe", .run = pipe_bulk, .arg = &ipc},
        {.label = "Yoke: a pointer into the shared heap", .run = yoke_bulk, .arg = &ipc},
    };
    int rc = ipc_open(&ipc);
    rc = rc ? rc : trial_run(words, 3, 15, 2000);
    rc = rc ? rc : trial_run(bulk, 2, 11, 3000);
    ipc_close(&ipc);
    if (rc != 0)
        return rc;
    report_trials(report, "8 bytes to another process and back", words, 3, NULL);
    report_trials(report, "16 MB to another process, which adds them up", bulk, 2, NULL);
    conclude(report, words, bulk);
    return 0;
}
