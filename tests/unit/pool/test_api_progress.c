/* SPDX-License-Identifier: MIT
 * test_api_progress.c - progress of maps, fors and reduces, and stopping them by it.
 *
 * Idea: the counts only grow and end at the total; after a stop every item is either done, with
 * its effect there exactly once, or cancelled and without any.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

struct watch {
    pthread_t caller;
    size_t calls, done, total, stop_at;
    int wrong;
};

static int watch_progress(void *user, size_t done, size_t total)
{
    struct watch *watch = user;
    watch->wrong += !pthread_equal(watch->caller, pthread_self());
    watch->wrong += done < watch->done || done > total;
    watch->wrong += watch->calls > 0 && total != watch->total;
    watch->calls++;
    watch->done = done;
    watch->total = total;
    return watch->calls >= watch->stop_at;
}

static int slow_square(yoke_task *task, const void *in, void *out)
{
    atomic_long *starts = *(atomic_long *const *)yoke_task_context(task);
    count_up(starts + yoke_task_item(task), 1);
    const int64_t until = yoke_now_ns() + 100 * 1000;
    while (yoke_now_ns() < until) {
    }
    return check_square(task, in, out);
}

static void progress_grows_to_the_total(void)
{
    enum { N = 3000 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t in[N] = {0}, out[N];
        atomic_long *starts = shared_zeroed(N * sizeof *starts);
        struct watch watch = {.caller = pthread_self(), .stop_at = SIZE_MAX};
        const yoke_options options = {.size = sizeof options,
                                      .context = &starts,
                                      .context_bytes = sizeof starts,
                                      .progress = watch_progress,
                                      .user = &watch};
        CHECK_RC(yoke_map(pool, slow_square, in, 8, out, 8, N, &options), 0);
        CHECK_EQ(watch.wrong, 0);
        CHECK(watch.calls >= 1);
        CHECK(watch.total >= 1);
        CHECK_EQ(watch.done, watch.total);
        yoke_shared_free(starts);
        end_pool(pool);
    }
}

static void a_stopped_map_tells_what_was_done(void)
{
    enum { N = 20000 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        int64_t *in = calloc(N, 8), *out = calloc(N, 8);
        yoke_outcome *outcomes = calloc(N, sizeof *outcomes), failure = {.kind = -1};
        CHECK(in && out && outcomes);
        for (int i = 0; i < N; i++)
            in[i] = i;
        atomic_long *starts = shared_zeroed(N * sizeof *starts);
        struct watch watch = {.caller = pthread_self(), .stop_at = 2};
        const yoke_options options = {.size = sizeof options,
                                      .context = &starts,
                                      .context_bytes = sizeof starts,
                                      .outcomes = outcomes,
                                      .failure = &failure,
                                      .progress = watch_progress,
                                      .user = &watch};
        CHECK_RC(yoke_map(pool, slow_square, in, 8, out, 8, N, &options), -ECANCELED);
        CHECK_EQ(watch.wrong, 0);
        size_t ok = 0, cancelled = 0;
        for (int64_t i = 0; i < N; i++) {
            const int was_ok = outcomes[i].kind == YOKE_OK;
            CHECK(was_ok || outcomes[i].kind == YOKE_CANCELLED);
            CHECK_EQ(outcomes[i].item, i);
            CHECK_EQ(outcomes[i].attempts, was_ok);
            CHECK_EQ(count_get(starts + i), was_ok);
            if (was_ok)
                CHECK_EQ(out[i], i * i);
            if (!was_ok && cancelled == 0) {
                CHECK_EQ(failure.kind, YOKE_CANCELLED);
                CHECK_EQ(failure.item, i);
            }
            *(was_ok ? &ok : &cancelled) += 1;
        }
        CHECK(ok > 0);
        CHECK(cancelled > 0);
        check_pool_works(pool);
        /* Nothing comes later. */
        for (int i = 0; i < N; i++)
            CHECK_EQ(count_get(starts + i), outcomes[i].kind == YOKE_OK);
        yoke_shared_free(starts);
        free(in);
        free(out);
        free(outcomes);
        end_pool(pool);
    }
}

static int slow_range(yoke_task *task, size_t begin, size_t end, void *accumulator)
{
    (void)task;
    for (size_t i = begin; i < end; i++) {
        const int64_t until = yoke_now_ns() + 50 * 1000;
        while (yoke_now_ns() < until) {
        }
        if (accumulator)
            *(uint64_t *)accumulator += i;
    }
    return 0;
}

static void merge_add(void *accumulator, const void *other, void *user)
{
    (void)user;
    *(uint64_t *)accumulator += *(const uint64_t *)other;
}

static void fors_and_reduces_have_progress_too(void)
{
    enum { N = 4000 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct watch watch = {.caller = pthread_self(), .stop_at = SIZE_MAX};
        yoke_options options = {.size = sizeof options, .progress = watch_progress, .user = &watch};
        CHECK_RC(yoke_for(pool, slow_range, N, &options), 0);
        CHECK_EQ(watch.wrong, 0);
        CHECK(watch.calls >= 1);
        CHECK_EQ(watch.done, watch.total);

        uint64_t sum = 0;
        watch = (struct watch){.caller = pthread_self(), .stop_at = SIZE_MAX};
        CHECK_RC(yoke_reduce(pool, slow_range, merge_add, N, &sum, sizeof sum, &options), 0);
        CHECK_EQ(watch.wrong, 0);
        CHECK(watch.calls >= 1);
        CHECK_EQ(watch.done, watch.total);
        CHECK_EQ(sum, (uint64_t)N * (N - 1) / 2);
        end_pool(pool);
    }
}

static int let_items_through(yoke_task *task, const void *in, void *out)
{
    atomic_long *go = *(atomic_long *const *)yoke_task_context(task);
    const int64_t until = soon();
    (void)in;
    (void)out;
    while (!count_get(go) && yoke_now_ns() < until)
        breathe();
    return !count_get(go);
}

static volatile sig_atomic_t alarms;

static void on_signal(int sig)
{
    (void)sig;
    alarms++;
}

struct poke {
    pthread_t target;
    atomic_long *go;
    atomic_long calls;
};

static int note_progress(void *user, size_t done, size_t total)
{
    struct poke *poke = user;
    (void)done;
    (void)total;
    count_up(&poke->calls, 1);
    return 0;
}

/* Signals the caller until it has called progress, then lets the items end. */
static void *poke_caller(void *arg)
{
    struct poke *poke = arg;
    const int64_t until = soon();
    while (count_get(&poke->calls) == 0 && yoke_now_ns() < until) {
        pthread_kill(poke->target, SIGUSR1);
        breathe();
    }
    count_set(poke->go, 1);
    return NULL;
}

static void a_signal_calls_progress_and_the_map_goes_on(void)
{
    const struct sigaction old = set_action(SIGUSR1, on_signal);
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        yoke_pool *pool = make_pool(kind, 2);
        atomic_long *go = shared_zeroed(sizeof *go);
        /* Workers enough for the gate, more parts than one: only the signal can call it. */
        struct poke poke = {.target = pthread_self(), .go = go};
        const yoke_options options = {.size = sizeof options,
                                      .context = &go,
                                      .context_bytes = sizeof go,
                                      .progress = note_progress,
                                      .user = &poke};
        pthread_t poker;
        if (kind == YOKE_THREADS) {
            /* The caller may help and sit in an item itself: then it cannot call progress. */
            count_set(go, 1);
        }
        CHECK_EQ(pthread_create(&poker, NULL, poke_caller, &poke), 0);
        CHECK_RC(yoke_map(pool, let_items_through, NULL, 0, NULL, 0, 64, &options), 0);
        CHECK_EQ(pthread_join(poker, NULL), 0);
        CHECK(count_get(&poke.calls) >= 1);
        yoke_shared_free(go);
        end_pool(pool);
    }
    CHECK_EQ(sigaction(SIGUSR1, &old, NULL), 0);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(progress_grows_to_the_total);
    RUN(a_stopped_map_tells_what_was_done);
    RUN(fors_and_reduces_have_progress_too);
    RUN(a_signal_calls_progress_and_the_map_goes_on);
    return 0;
}
