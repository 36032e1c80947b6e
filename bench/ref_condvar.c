/* SPDX-License-Identifier: MIT
 * ref_condvar.c - a pool of threads on one mutex and two condition variables.
 *
 * Idea: the textbook: a list of jobs under a lock, one condition for "there is work", one for
 * "a job is done". A job belongs to the caller, so nothing is allocated.
 */
#include "harness.h"
#include "machine.h"
#include "ref.h"

#include <pthread.h>
#include <string.h>

enum { WORKERS_MAX = 64, DEPTH_MAX = 64 };

struct job {
    uint64_t (*fn)(uint64_t);
    uint64_t in, out;
    int done;         /* under lock */
    struct job *next; /* under lock */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct job *head, **tail; /* under lock */
    int stop;                 /* under lock */
    pthread_t worker[WORKERS_MAX];
    unsigned workers;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static uint64_t add_one(uint64_t number)
{
    return number + 1;
}

static void run_locked(struct job *job)
{
    pool.head = job->next;
    if (!pool.head) {
        pool.tail = &pool.head;
    }
    pthread_mutex_unlock(&pool.lock);
    const uint64_t out = job->fn(job->in);
    pthread_mutex_lock(&pool.lock);
    job->out = out;
    job->done = 1;
    pthread_cond_signal(&pool.done); /* there is one waiter at most */
}

static void *serve(void *arg)
{
    pthread_mutex_lock(&pool.lock);
    while (!pool.stop) {
        if (pool.head) {
            run_locked(pool.head);
        } else {
            pthread_cond_wait(&pool.work, &pool.lock);
        }
    }
    pthread_mutex_unlock(&pool.lock);
    return arg;
}

static void submit(struct job *job, uint64_t in)
{
    *job = (struct job){.fn = add_one, .in = in};
    pthread_mutex_lock(&pool.lock);
    *pool.tail = job;
    pool.tail = &job->next;
    pthread_cond_signal(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

static uint64_t wait_for(struct job *job)
{
    pthread_mutex_lock(&pool.lock);
    while (!job->done) {
        pthread_cond_wait(&pool.done, &pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
    return job->out;
}

const char *ref_condvar_start(unsigned workers)
{
    pool.tail = &pool.head;
    pool.stop = 0;
    for (pool.workers = 0; pool.workers < workers && pool.workers < WORKERS_MAX; pool.workers++) {
        const int error = pthread_create(&pool.worker[pool.workers], NULL, serve, NULL);
        if (error) {
            return bench_why("pthread_create", -error);
        }
    }
    return NULL;
}

static int stream(unsigned depth, unsigned count)
{
    struct job jobs[DEPTH_MAX];
    int wrong = 0;
    for (unsigned i = 0; i < count + depth; i++) {
        if (i >= depth) {
            wrong |= wait_for(&jobs[i % depth]) != i - depth + 1;
        }
        if (i < count) {
            submit(&jobs[i % depth], i);
        }
    }
    return wrong;
}

const char *ref_condvar_pass(unsigned depth, unsigned warm, unsigned count, double *ns_each)
{
    int wrong = stream(depth, warm);
    const int64_t start = bench_now_ns();
    wrong |= stream(depth, count);
    *ns_each = (double)(bench_now_ns() - start) / count;
    return wrong ? "the pool of threads gave a wrong answer" : NULL;
}

void ref_condvar_stop(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.stop = 1;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    while (pool.workers > 0) {
        pthread_join(pool.worker[--pool.workers], NULL);
    }
}
