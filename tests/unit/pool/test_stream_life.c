/* SPDX-License-Identifier: MIT
 * test_stream_life.c - streams among others: slow producers, stops from outside, nested, several.
 *
 * Idea: what a stream promises while something else happens. Producers that wait wait for what the
 * stream itself has to do first, so one that holds it back never comes to its end.
 */
/* tsan: yes */
#include "check.h"
#include <pthread.h>

enum { ENDLESS = 1 << 30 };

struct feed {
    size_t count, given, done;
    size_t cancelled;
    int64_t sum;
    int kinds[5];
    int unordered;
};

static int next_of(void *user, size_t item, void *in)
{
    struct feed *f = user;
    CHECK_EQ(item, f->given);
    *(int64_t *)in = (int64_t)item;
    f->given += item < f->count;
    return item < f->count;
}

static int take(void *user, const yoke_outcome *outcome, const void *in, const void *out,
                size_t out_bytes)
{
    struct feed *f = user;
    CHECK_EQ(*(const int64_t *)in, outcome->item);
    CHECK(f->unordered || outcome->item == f->done);
    CHECK_EQ(out_bytes, out ? 8 : 0);
    f->kinds[outcome->kind]++;
    f->sum += out ? *(const int64_t *)out : 0;
    f->done++;
    return 0;
}

static int copy(yoke_task *task, const void *in, void *out)
{
    (void)task;
    *(int64_t *)out = *(const int64_t *)in;
    return 0;
}

static yoke_stream_config config_of(struct feed *f)
{
    return (yoke_stream_config){.size = sizeof(yoke_stream_config),
                                .in_bytes = 8,
                                .out_bytes = 8,
                                .unordered = f->unordered,
                                .next = next_of,
                                .done = take,
                                .user = f};
}

static int64_t sum_below(size_t count)
{
    return (int64_t)(count * (count - 1) / 2);
}

/* ---- producers that wait ------------------------------------------------------------------ */

/* Bursts; each begins when all of the one before was delivered. */
static int next_when_all_is_done(void *user, size_t item, void *in)
{
    struct feed *f = user;
    if (item % 13 == 0 && f->done < item)
        return -EAGAIN;
    return next_of(user, item, in);
}

static void nothing_waits_for_a_producer_that_has_none_yet(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (int unordered = 0; unordered < 2; unordered++) {
            struct feed f = {.count = 1300, .unordered = unordered};
            yoke_stream_config config = config_of(&f);
            config.next = next_when_all_is_done;
            CHECK_RC(yoke_map_stream(pool, copy, &config, NULL), 0);
            CHECK_EQ(f.done, f.count);
            CHECK_EQ(f.sum, sum_below(f.count));
        }
        end_pool(pool);
    }
}

enum { ASKS_IN_VAIN = 20 };

static int asked_in_vain;

static int next_in_a_while(void *user, size_t item, void *in)
{
    return asked_in_vain < ASKS_IN_VAIN && ++asked_in_vain ? -EAGAIN : next_of(user, item, in);
}

static void a_producer_that_has_none_is_asked_again(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct feed f = {.count = 10};
        yoke_stream_config config = config_of(&f);
        config.next = next_in_a_while;
        const int64_t busy_loop_ns = yoke_in_ms(ASKS_IN_VAIN / 2);
        asked_in_vain = 0;
        CHECK_RC(yoke_map_stream(pool, copy, &config, NULL), 0);
        CHECK_EQ(asked_in_vain, ASKS_IN_VAIN);
        CHECK(yoke_now_ns() >= busy_loop_ns);
        CHECK_EQ(f.sum, sum_below(10));
        end_pool(pool);
    }
}

struct slow {
    struct feed feed; /* first */
    atomic_long *starts;
    long started_before; /* when the call of next before this one returned */
    long at_work;        /* so many may have begun an item and not ended it */
};

static int next_slowly(void *user, size_t item, void *in)
{
    struct slow *slow = user;
    CHECK((long)slow->feed.done >= slow->started_before - slow->at_work);
    const int64_t until = yoke_now_ns() + 300 * 1000;
    while (yoke_now_ns() < until) {
    }
    slow->started_before = count_get(slow->starts);
    return next_of(user, item, in);
}

static int count_and_copy(yoke_task *task, const void *in, void *out)
{
    count_up(*(atomic_long *const *)yoke_task_context(task), 1);
    return copy(task, in, out);
}

static void what_has_ended_is_delivered_before_a_slow_producer_is_asked(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 1);
        /* A worker; and a caller who helps, if that worker does nothing for long. */
        struct slow slow = {.feed = {.count = 300},
                            .starts = shared_zeroed(sizeof(atomic_long)),
                            .at_work = kind == YOKE_THREADS ? 2 : 1};
        yoke_stream_config config = config_of(&slow.feed);
        const yoke_options options = {
            .size = sizeof options, .context = &slow.starts, .context_bytes = sizeof slow.starts};
        config.next = next_slowly;
        CHECK_RC(yoke_map_stream(pool, count_and_copy, &config, &options), 0);
        CHECK_EQ(slow.feed.sum, sum_below(slow.feed.count));
        yoke_shared_free(slow.starts);
        end_pool(pool);
    }
}

/* ---- stops from outside ------------------------------------------------------------------- */

struct watched {
    struct feed feed; /* first */
    yoke_pool *pool;
    size_t ended, given, calls, stop_at;
    atomic_long rc, running;
};

static int watch_progress(void *user, size_t done, size_t total)
{
    struct watched *w = user;
    CHECK(done >= w->ended && total >= w->given && done <= total);
    w->ended = done;
    w->given = total;
    return ++w->calls == w->stop_at;
}

static void progress_is_told_and_can_stop(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        for (size_t stop_at = 0; stop_at < 20; stop_at += 9) {
            struct watched w = {.feed = {.count = stop_at ? ENDLESS : 3000}, .stop_at = stop_at};
            const yoke_stream_config config = config_of(&w.feed);
            const yoke_options options = {
                .size = sizeof options, .progress = watch_progress, .user = &w};
            CHECK_RC(yoke_map_stream(pool, copy, &config, &options), stop_at ? -ECANCELED : 0);
            CHECK(w.calls > 0 && (stop_at == 0 || w.calls == stop_at));
            CHECK_EQ(w.feed.done, w.feed.given);
            CHECK(stop_at || w.ended == w.feed.count);
        }
        end_pool(pool);
    }
}

static int stream_for_ever(void *arg)
{
    struct watched *w = arg;
    const yoke_stream_config config = config_of(&w->feed);
    count_set(&w->running, 1);
    count_set(&w->rc, yoke_map_stream(w->pool, copy, &config, NULL));
    return 0;
}

static void an_interrupted_caller_stops(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct watched w = {.feed = {.count = ENDLESS}, .pool = pool};
        yoke_thread *thread = NULL;
        int code = -1;
        CHECK_RC(yoke_thread_start(NULL, stream_for_ever, &w, &thread), 0);
        WAIT_FOR(count_get(&w.running));
        CHECK_RC(yoke_thread_interrupt(thread), 0);
        CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
        yoke_thread_release(thread);
        CHECK_RC((int)count_get(&w.rc), -ECANCELED);
        CHECK_EQ(w.feed.done, w.feed.given);
        check_pool_works(pool);
        end_pool(pool);
    }
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
    (void)sig;
    signals++;
}

static int wait_for_flag(yoke_task *task, const void *in, void *out)
{
    atomic_long *flag = *(atomic_long *const *)yoke_task_context(task);
    const int64_t until = soon();
    while (!count_get(flag) && yoke_now_ns() < until)
        breathe();
    return copy(task, in, out);
}

struct poke {
    pthread_t target;
    atomic_long *flag;
    atomic_long calls;
};

static int note_call(void *user, size_t done, size_t total)
{
    (void)done, (void)total;
    count_up(&((struct poke *)user)->calls, 1);
    return 0;
}

static void *poke_caller(void *arg)
{
    struct poke *poke = arg;
    const int64_t until = soon();
    while (count_get(&poke->calls) == 0 && yoke_now_ns() < until) {
        pthread_kill(poke->target, SIGUSR1);
        breathe();
    }
    count_set(poke->flag, 1);
    return NULL;
}

static void a_signal_makes_it_call_progress(void)
{
    FOR_EACH_KIND(kind)
    {
        if (kind == YOKE_SERIAL)
            continue;
        const struct sigaction old = set_action(SIGUSR1, on_signal);
        yoke_pool *pool = make_pool(kind, 1);
        struct feed f = {.count = 3};
        struct poke poke = {.target = pthread_self(), .flag = shared_zeroed(sizeof(atomic_long))};
        const yoke_stream_config config = config_of(&f);
        const yoke_options options = {.size = sizeof options,
                                      .context = &poke.flag,
                                      .context_bytes = sizeof poke.flag,
                                      .progress = note_call,
                                      .user = &poke};
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, poke_caller, &poke), 0);
        CHECK_RC(yoke_map_stream(pool, wait_for_flag, &config, &options), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK(signals > 0 && count_get(&poke.calls) > 0);
        CHECK_EQ(f.done, 3);
        yoke_shared_free(poke.flag);
        end_pool(pool);
        sigaction(SIGUSR1, &old, NULL);
    }
}

/* ---- in tasks, and several at once -------------------------------------------------------- */

static int stream_inside(yoke_task *task, const void *in, void *out)
{
    yoke_pool *pool = *(yoke_pool *const *)yoke_task_context(task);
    struct feed f = {.count = 500};
    const yoke_stream_config config = config_of(&f);
    (void)in;
    if (yoke_map_stream(pool, copy, &config, NULL) != 0)
        return 1;
    *(int64_t *)out = f.sum;
    return f.done == f.count ? 0 : 2;
}

static void streams_run_inside_tasks(void)
{
    FOR_EACH_KIND(kind)
    {
        for (unsigned workers = 1; workers <= 3; workers++) {
            yoke_pool *pool = make_pool(kind, workers);
            int64_t out[40] = {0};
            const yoke_options options = {
                .size = sizeof options, .context = &pool, .context_bytes = sizeof pool};
            CHECK_RC(yoke_map(pool, stream_inside, NULL, 0, out, 8, 40, &options), 0);
            for (int i = 0; i < 40; i++)
                CHECK_EQ(out[i], sum_below(500));
            struct feed f = {.count = 40};
            const yoke_stream_config config = config_of(&f);
            CHECK_RC(yoke_map_stream(pool, stream_inside, &config, &options), 0);
            CHECK_EQ(f.sum, 40 * sum_below(500));
            end_pool(pool);
        }
    }
}

static int join_a_stream(yoke_task *task, const void *in, void *out)
{
    struct watched w = {.feed = {.count = 3}, .pool = *(yoke_pool *const *)yoke_task_context(task)};
    yoke_thread *thread = NULL;
    int code = -1;
    (void)in, (void)out;
    if (yoke_thread_start(NULL, stream_for_ever, &w, &thread) != 0)
        return 1;
    if (yoke_thread_wait(thread, soon(), &code) != 0)
        return 2;
    yoke_thread_release(thread);
    return w.feed.done == 3 && count_get(&w.rc) == 0 ? 0 : 3;
}

static void a_caller_whom_the_only_worker_waits_for_helps(void)
{
    if (!check_has_kind(YOKE_THREADS))
        return;
    yoke_pool *pool = make_pool(YOKE_THREADS, 1);
    yoke_job *job = NULL;
    yoke_outcome outcome;
    const yoke_options copied = {
        .size = sizeof copied, .context = &pool, .context_bytes = sizeof pool};
    CHECK_RC(yoke_submit(pool, join_a_stream, NULL, 0, 0, &copied, &job), 0);
    /* Not by yoke_wait, which would run it here. */
    WAIT_FOR(yoke_job_result(job, &outcome, NULL, NULL) == 0);
    CHECK_EQ(outcome.kind, YOKE_OK);
    CHECK_EQ(outcome.code, 0);
    yoke_job_release(job);
    end_pool(pool);
}

static void *stream_some(void *arg)
{
    yoke_pool *pool = arg;
    for (int i = 0; i < 3; i++) {
        struct feed f = {.count = 5000, .unordered = i == 1};
        const yoke_stream_config config = config_of(&f);
        CHECK_RC(yoke_map_stream(pool, copy, &config, NULL), 0);
        CHECK_EQ(f.sum, sum_below(f.count));
        check_pool_works(pool);
    }
    return NULL;
}

static void several_at_once_do_not_mix(void)
{
    enum { CALLERS = 5 };
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        pthread_t threads[CALLERS];
        for (int i = 0; i < CALLERS; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, stream_some, pool), 0);
        for (int i = 0; i < CALLERS; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        end_pool(pool);
    }
}

/* ---- time limits -------------------------------------------------------------------------- */

static int late_at_seven(yoke_task *task, const void *in, void *out)
{
    const int64_t until = soon();
    while (*(const int64_t *)in % 50 == 7 && !yoke_task_cancelled(task) && yoke_now_ns() < until)
        breathe();
    return copy(task, in, out);
}

static void items_that_are_late_end_alone(void)
{
    FOR_EACH_KIND(kind)
    {
        yoke_pool *pool = make_pool(kind, 2);
        struct feed f = {.count = 200};
        const yoke_stream_config config = config_of(&f);
        yoke_outcome failure = {0};
        const yoke_options options = {.size = sizeof options,
                                      .timeout_ns = 250 * 1000 * 1000 * check_slowness(),
                                      .retries = 3,
                                      .failure = &failure};
        CHECK_RC(yoke_map_stream(pool, late_at_seven, &config, &options), YOKE_ETASK);
        CHECK_EQ(f.kinds[YOKE_TIMEDOUT], 4);
        CHECK_EQ(f.kinds[YOKE_OK], 196);
        CHECK_EQ(f.sum, sum_below(200) - 7 - 57 - 107 - 157);
        CHECK_EQ(failure.kind, YOKE_TIMEDOUT);
        CHECK_EQ(failure.item, 7);
        check_pool_works(pool);
        end_pool(pool);
    }
}

/* ---- short memory ------------------------------------------------------------------------- */

static int stream_in_little_memory(void *arg)
{
    enum { MIB = 1 << 20 };
    (void)arg;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 2);
    CHECK_RC(yoke_heap_limit((size_t)12 * MIB), 0);
    struct feed f = {.count = 200};
    yoke_stream_config config = config_of(&f);
    config.in_bytes = MIB;
    CHECK_RC(yoke_map_stream(pool, copy, &config, NULL), 0);
    CHECK_EQ(f.sum, sum_below(f.count));
    f = (struct feed){.count = 3000};
    config.in_bytes = 4096; /* parts of many items fit too, and then fewer */
    CHECK_RC(yoke_map_stream(pool, copy, &config, NULL), 0);
    CHECK_EQ(f.sum, sum_below(f.count));
    f = (struct feed){.count = 5};
    config.in_bytes = (size_t)64 * MIB;
    CHECK_RC(yoke_map_stream(pool, copy, &config, NULL), -ENOMEM);
    CHECK_EQ(f.given, 0);
    check_pool_works(pool);
    end_pool(pool);
    return 0;
}

static void short_memory_makes_it_slower_or_is_told(void)
{
    if (check_has_kind(YOKE_PROCESSES))
        CHECK_CHILD(stream_in_little_memory, NULL);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    FOR_EACH_KIND(kind)
    {
        end_pool(make_pool(kind, 1));
    }
    yoke_shared_free(shared_zeroed(8)); /* the heap has a descriptor */
    const struct usage before = usage_now();
    RUN(nothing_waits_for_a_producer_that_has_none_yet);
    RUN(a_producer_that_has_none_is_asked_again);
    RUN(what_has_ended_is_delivered_before_a_slow_producer_is_asked);
    RUN(progress_is_told_and_can_stop);
    RUN(an_interrupted_caller_stops);
    RUN(a_signal_makes_it_call_progress);
    RUN(streams_run_inside_tasks);
    RUN(a_caller_whom_the_only_worker_waits_for_helps);
    RUN(several_at_once_do_not_mix);
    RUN(items_that_are_late_end_alone);
    RUN(short_memory_makes_it_slower_or_is_told);
    usage_check(before, 20);
    return 0;
}
