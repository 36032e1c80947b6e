/* SPDX-License-Identifier: MIT
 * test_cancel.c - the tree of cancel tokens by itself, and the sleeps that it wakes.
 *
 * Idea: what is set stays set, reaches all that hangs below and nothing else; a token lives as long
 * as somebody has it or a token below; whoever sleeps is woken, and not by looking up in slices.
 */
/* tsan: yes */
#include "check.h"

static yoke_cancel *token_below(yoke_cancel *parent)
{
    yoke_cancel *token = NULL;
    CHECK_RC(yoke_cancel_create(parent, &token), 0);
    CHECK(token != NULL);
    return token;
}

static void a_set_reaches_what_is_below_and_nothing_else(void)
{
    yoke_cancel *root = token_below(NULL), *left = token_below(root), *right = token_below(root);
    yoke_cancel *leaf = token_below(left), *other = token_below(NULL);
    CHECK_EQ(yoke_cancel_is_set(root), 0);
    yoke_cancel_set(left);
    CHECK_EQ(yoke_cancel_is_set(left), 1);
    CHECK_EQ(yoke_cancel_is_set(leaf), 1);
    CHECK_EQ(yoke_cancel_is_set(root), 0);
    CHECK_EQ(yoke_cancel_is_set(right), 0);
    yoke_cancel *late = token_below(leaf);
    CHECK_EQ(yoke_cancel_is_set(late), 1);
    yoke_cancel_set(root);
    CHECK_EQ(yoke_cancel_is_set(right), 1);
    CHECK_EQ(yoke_cancel_is_set(other), 0);
    yoke_cancel_set(root);
    yoke_cancel *const all[] = {root, left, right, leaf, late, other};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        yoke_cancel_release(all[i]);
}

static void bad_arguments_and_nothing(void)
{
    CHECK_RC(yoke_cancel_create(NULL, NULL), -EINVAL);
    yoke_cancel_set(NULL);
    yoke_cancel_release(NULL);
    CHECK_EQ(yoke_cancel_is_set(NULL), 0);
}

static void a_token_lives_as_long_as_one_below(void)
{
    enum { DEEP = 200000 };
    yoke_cancel *root = token_below(NULL), *at = root, *next = NULL;
    for (int i = 0; i < DEEP; i++, at = next) {
        next = token_below(at);
        if (at != root)
            yoke_cancel_release(at);
    }
    CHECK_EQ(yoke_cancel_is_set(at), 0);
    yoke_cancel_set(root); /* no recursion: the chain is longer than any stack */
    CHECK_EQ(yoke_cancel_is_set(at), 1);
    yoke_cancel_release(root);
    CHECK_EQ(yoke_cancel_is_set(at), 1);
    yoke_cancel_release(at);
}

/* --- sleeping --------------------------------------------------------------------------------- */

struct sleeper {
    atomic_long begun;
    int64_t woken_ns;
    int rc;
};

static int sleep_long(void *arg)
{
    struct sleeper *it = arg;
    CHECK_EQ(yoke_thread_interrupted(), 0);
    count_up(&it->begun, 1);
    it->rc = yoke_sleep_until(yoke_in_ms(3600 * 1000));
    it->woken_ns = yoke_now_ns();
    CHECK_EQ(yoke_thread_interrupted(), 1);
    CHECK_RC(yoke_sleep_until(yoke_in_ms(3600 * 1000)), -ECANCELED);
    return 0;
}

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* In slices of 20 ms the wake would come 10 ms late in the mean; a real one takes far less than 1. */
static void an_interrupt_wakes_at_once(void)
{
    enum { TIMES = 31 };
    int64_t late[TIMES];
    for (int i = 0; i < TIMES; i++) {
        struct sleeper it = {.rc = 1};
        yoke_thread *thread = NULL;
        CHECK_RC(yoke_thread_start(NULL, sleep_long, &it, &thread), 0);
        WAIT_FOR(count_get(&it.begun) == 1);
        for (int k = 0; k < i % 4; k++)
            breathe();
        const int64_t asked = yoke_now_ns();
        CHECK_RC(yoke_thread_interrupt(thread), 0);
        CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
        CHECK_RC(it.rc, -ECANCELED);
        late[i] = it.woken_ns - asked;
        yoke_thread_release(thread);
    }
    qsort(late, TIMES, sizeof *late, by_size);
    fprintf(stderr, "    woken after %lld us (median)\n", (long long)late[TIMES / 2] / 1000);
    CHECK(late[TIMES / 4] < 5 * 1000 * 1000);
}

/* A thread that can be interrupted sleeps in one piece: its switches can be counted. */
static void who_can_be_interrupted_sleeps_in_one_piece(void)
{
    struct sleeper it = {.rc = 1};
    yoke_thread *thread = NULL;
    const yoke_thread_config config = {.size = sizeof config, .name = "test-sleeper"};
    CHECK_RC(yoke_thread_start(&config, sleep_long, &it, &thread), 0);
    WAIT_FOR(count_get(&it.begun) == 1);
    long switches[2] = {0};
    for (int round = 0; round < 2; round++) {
        const int64_t until = yoke_in_ms(400);
        while (round == 1 && yoke_now_ns() < until)
            breathe();
        DIR *dir = opendir("/proc/self/task");
        CHECK(dir != NULL);
        for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
            char path[300], line[200];
            snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
            FILE *f = fopen(path, "re");
            int ours = 0;
            while (f && fgets(line, sizeof line, f)) {
                ours = ours || strstr(line, "test-sleeper") != NULL;
                if (ours && strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
                    switches[round] = strtol(line + 24, NULL, 10);
            }
            if (f)
                fclose(f);
        }
        closedir(dir);
        if (round == 0)
            breathe();
    }
    /* In slices it would be 20. */
    CHECK(switches[1] > 0 && switches[1] - switches[0] < 8);
    CHECK_RC(yoke_thread_interrupt(thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
}

struct waiter {
    atomic_long begun;
    yoke_thread *other;
};

static int wait_for_other(void *arg)
{
    struct waiter *it = arg;
    count_up(&it->begun, 1);
    return yoke_thread_wait(it->other, yoke_in_ms(3600 * 1000), NULL) == -ECANCELED ? 7 : 1;
}

static void an_interrupted_waiter_leaves_the_other_thread_as_it_was(void)
{
    struct sleeper one = {.rc = 1};
    struct waiter two = {.other = NULL};
    yoke_thread *thread = NULL;
    int code = 0;
    CHECK_RC(yoke_thread_start(NULL, sleep_long, &one, &two.other), 0);
    CHECK_RC(yoke_thread_start(NULL, wait_for_other, &two, &thread), 0);
    WAIT_FOR(count_get(&two.begun) == 1 && count_get(&one.begun) == 1);
    CHECK_RC(yoke_thread_interrupt(thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), &code), 0);
    CHECK_EQ(code, 7);
    /* A wake writes to the word that also says that a thread has ended. */
    CHECK_RC(yoke_thread_wait(two.other, yoke_in_ms(1), NULL), -ETIMEDOUT);
    CHECK_RC(yoke_thread_interrupt(two.other), 0);
    CHECK_RC(yoke_thread_wait(two.other, soon(), &code), 0);
    CHECK_EQ(code, 0);
    yoke_thread_release(thread);
    yoke_thread_release(two.other);
}

/* --- many threads ----------------------------------------------------------------------------- */

struct wood {
    yoke_cancel *root;
    atomic_long set;
};

static int grow_and_cut(void *arg)
{
    struct wood *wood = arg;
    for (int i = 0; i < 2000; i++) {
        yoke_cancel *a = token_below(wood->root), *b = token_below(a), *c = token_below(b);
        if (i % 3 == 0)
            yoke_cancel_set(a);
        yoke_cancel_release(i % 2 ? a : b);
        if (i % 3 == 0)
            CHECK_EQ(yoke_cancel_is_set(c), 1);
        if (count_get(&wood->set))
            CHECK_EQ(yoke_cancel_is_set(c), 1);
        yoke_cancel_release(i % 2 ? b : a);
        yoke_cancel_release(c);
    }
    return 0;
}

static void many_threads_in_one_tree(void)
{
    enum { THREADS = 4 };
    struct wood wood = {.root = token_below(NULL)};
    yoke_thread *threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK_RC(yoke_thread_start(NULL, grow_and_cut, &wood, &threads[i]), 0);
    for (int i = 0; i < 20; i++)
        breathe();
    yoke_cancel_set(wood.root);
    count_set(&wood.set, 1);
    for (int i = 0; i < THREADS; i++) {
        CHECK_RC(yoke_thread_wait(threads[i], soon(), NULL), 0);
        yoke_thread_release(threads[i]);
    }
    yoke_cancel_release(wood.root);
}

/* --- fork ------------------------------------------------------------------------------------- */

static int fork_inside(yoke_cancel *parent, yoke_cancel *child)
{
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(20);
        CHECK_EQ(yoke_cancel_is_set(child), 0);
        yoke_cancel *grandchild = token_below(child);
        yoke_cancel_set(child);
        CHECK_EQ(yoke_cancel_is_set(grandchild), 1);
        CHECK_EQ(yoke_cancel_is_set(parent), 0);
        yoke_cancel_release(grandchild);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static int keep_busy(void *arg)
{
    struct wood *wood = arg;
    while (!yoke_thread_interrupted()) {
        yoke_cancel *a = token_below(wood->root);
        yoke_cancel_set(a);
        yoke_cancel_release(a);
    }
    return 0;
}

/* The lock may be held by another thread at the fork; the child has copies of its own. */
static void a_forked_child_has_copies_of_its_own(void)
{
    struct wood wood = {.root = token_below(NULL)};
    yoke_cancel *child = token_below(wood.root);
    yoke_thread *thread = NULL;
    CHECK_RC(yoke_thread_start(NULL, keep_busy, &wood, &thread), 0);
    for (int i = 0; i < 50; i++)
        CHECK_EQ(fork_inside(wood.root, child), 0);
    CHECK_EQ(yoke_cancel_is_set(child), 0);
    CHECK_RC(yoke_thread_interrupt(thread), 0);
    CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
    yoke_thread_release(thread);
    yoke_cancel_set(wood.root);
    CHECK_EQ(yoke_cancel_is_set(child), 1);
    yoke_cancel_release(child);
    yoke_cancel_release(wood.root);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(a_set_reaches_what_is_below_and_nothing_else);
    RUN(bad_arguments_and_nothing);
    RUN(a_token_lives_as_long_as_one_below);
    RUN(an_interrupt_wakes_at_once);
    RUN(who_can_be_interrupted_sleeps_in_one_piece);
    RUN(an_interrupted_waiter_leaves_the_other_thread_as_it_was);
    RUN(many_threads_in_one_tree);
    if (!CHECK_TSAN)
        RUN(a_forked_child_has_copies_of_its_own);
    return 0;
}
