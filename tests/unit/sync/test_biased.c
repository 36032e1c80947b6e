/* SPDX-License-Identifier: MIT
 * test_biased.c - the lock that costs its favourite thread nothing: one at a time, whoever comes.
 *
 * Idea: whoever is inside writes who he is into plain memory, looks again a moment later, and
 * counts; favourite and strangers do so at the same time, in a rhythm that keeps the favour with
 * the one who has it. Under ThreadSanitizer the lock has no favourite and is the plain mutex, so
 * that build says nothing of the short way. The lock is no part of the public interface.
 */
/* tsan: yes */
/* timeout: 200 */
#define CHECK_TIMEOUT 120
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "pool/pool_private.h"

enum { STRANGERS = 2, PER_STRANGER = 600, REUSES = 200, FINIS = 3000 };

struct room {
    yk_biased lock;
    volatile int inside; /* under lock: who is */
    long visits;         /* under lock, plain: who goes in together loses some */
    atomic_long favourite_uses, going, made;
};

static void visit(struct room *room, int who, int stay)
{
    yk_biased_lock(&room->lock);
    room->inside = who;
    room->visits++;
    for (int i = 0; i < stay; i++)
        yk_cpu_relax();
    check_true(room->inside == who, "only one is inside at a time", __FILE__, __LINE__);
    yk_biased_unlock(&room->lock);
}

static bool is_biased(const struct room *room)
{
    return atomic_load_explicit((_Atomic uintptr_t *)&room->lock.favourite, memory_order_relaxed) !=
           0;
}

/* So seldom that the favourite keeps its favour. */
static void *come_seldom(void *arg)
{
    struct room *room = arg;
    long seen = 0;
    for (int i = 0; i < PER_STRANGER; i++) {
        const int64_t until = yoke_in_ms(2);
        while (count_get(&room->favourite_uses) < seen + 12000 && yoke_now_ns() < until)
            sched_yield();
        seen = count_get(&room->favourite_uses);
        visit(room, 2 + i % 2, i % 3);
    }
    count_up(&room->going, -1);
    return NULL;
}

static void one_at_a_time(void)
{
    struct room room = {.going = STRANGERS};
    pthread_t strangers[STRANGERS];
    yk_biased_init(&room.lock);
    const bool biased = is_biased(&room);
    for (int i = 0; i < STRANGERS; i++)
        CHECK_EQ(pthread_create(&strangers[i], NULL, come_seldom, &room), 0);
    long mine = 0;
    while (count_get(&room.going) > 0) {
        for (int i = 0; i < 100; i++)
            visit(&room, 1, 0);
        mine += 100;
        count_up(&room.favourite_uses, 100);
    }
    for (int i = 0; i < STRANGERS; i++)
        CHECK_EQ(pthread_join(strangers[i], NULL), 0);
    CHECK_EQ(room.visits, mine + STRANGERS * PER_STRANGER);
    fprintf(stderr, "    %s, %s at the end\n", biased ? "biased" : "not biased here",
            is_biased(&room) ? "still so" : "not so");
}

static void *come_in_a_rush(void *arg)
{
    struct room *room = arg;
    for (int i = 0; i < 40; i++)
        visit(room, 2, i % 5);
    count_up(&room->going, -1);
    return NULL;
}

/* The favourite gets its favour while strangers use the lock. */
static void the_favour_comes_in_the_middle(void)
{
    for (int round = 0; round < REUSES; round++) {
        struct room room = {.going = STRANGERS};
        pthread_t strangers[STRANGERS];
        long mine = 0;
        for (int i = 0; i < STRANGERS; i++)
            CHECK_EQ(pthread_create(&strangers[i], NULL, come_in_a_rush, &room), 0);
        while (count_get(&room.going) == STRANGERS && mine < round)
            mine++, visit(&room, 1, 0);
        yk_biased_init(&room.lock);
        for (; count_get(&room.going) > 0; mine++)
            visit(&room, 1, 0);
        for (int i = 0; i < STRANGERS; i++)
            CHECK_EQ(pthread_join(strangers[i], NULL), 0);
        CHECK_EQ(room.visits, mine + STRANGERS * 40);
    }
}

/* Starting workers is not what the favour is lost for. */
static void the_start_of_a_pool_costs_no_favour(void)
{
    struct room room = {.made = 0};
    yk_biased_init(&room.lock);
    if (!is_biased(&room) || !check_has_kind(YOKE_PROCESSES)) {
        fprintf(stderr, "    no favourites, or no process pools here\n");
        return;
    }
    check_kind = YOKE_PROCESSES;
    yoke_pool *pool = make_pool(YOKE_PROCESSES, 40);
    WAIT_FOR(stats_of(pool).spares == 1);
    check_pool_works(pool);
    CHECK(yk_biased_is_favourite(&pool->lock));
    end_pool(pool);
}

/* However often the favourite came long ago: who uses the lock now does not pay for ever. */
static void *come_often(void *arg)
{
    struct room *room = arg;
    for (int i = 0; i < 100; i++)
        visit(room, 2, 0);
    return NULL;
}

static void the_favour_is_lost_to_who_comes_often(void)
{
    struct room room = {.made = 0};
    pthread_t stranger;
    yk_biased_init(&room.lock);
    for (int i = 0; i < 1000000; i++)
        visit(&room, 1, 0);
    CHECK_EQ(pthread_create(&stranger, NULL, come_often, &room), 0);
    CHECK_EQ(pthread_join(stranger, NULL), 0);
    CHECK(!is_biased(&room));
    visit(&room, 1, 0);
    CHECK_EQ(room.visits, 1000101);
}

/* The favourite takes its leave while strangers are just about to take the favour away. */
static void the_favour_is_lost_in_the_middle(void)
{
    for (int round = 0; round < REUSES; round++) {
        struct room room = {.going = STRANGERS};
        pthread_t strangers[STRANGERS];
        long mine = 0;
        yk_biased_init(&room.lock);
        for (int i = 0; i < STRANGERS; i++)
            CHECK_EQ(pthread_create(&strangers[i], NULL, come_in_a_rush, &room), 0);
        for (; count_get(&room.going) > 0; mine++)
            visit(&room, 1, 0);
        for (int i = 0; i < STRANGERS; i++)
            CHECK_EQ(pthread_join(strangers[i], NULL), 0);
        CHECK_EQ(room.visits, mine + STRANGERS * 40);
    }
}

/* The favourite is gone; a later thread, at the same place in memory, is taken for it. */
static void *make_lock(void *arg)
{
    struct room *room = arg;
    yk_biased_init(&room->lock);
    for (int i = 0; i < 5000; i++)
        visit(room, 1, 0);
    return NULL;
}

static void *come_after_it(void *arg)
{
    struct room *room = arg;
    if (yk_biased_is_favourite(&room->lock))
        count_up(&room->made, 1);
    for (int i = 0; i < 5000; i++)
        visit(room, 1, 0);
    return NULL;
}

static void the_favourite_is_gone(void)
{
    long reused = 0;
    for (int round = 0; round < 20; round++) {
        struct room room = {.made = 0};
        pthread_t one, other;
        CHECK_EQ(pthread_create(&one, NULL, make_lock, &room), 0);
        CHECK_EQ(pthread_join(one, NULL), 0);
        CHECK_EQ(pthread_create(&one, NULL, come_after_it, &room), 0);
        CHECK_EQ(pthread_create(&other, NULL, come_after_it, &room), 0);
        for (int i = 0; i < 50; i++)
            visit(&room, 3, 0);
        CHECK_EQ(pthread_join(one, NULL), 0);
        CHECK_EQ(pthread_join(other, NULL), 0);
        CHECK_EQ(room.visits, 15050);
        reused += count_get(&room.made);
    }
    fprintf(stderr, "    %ld of 40 threads had the mark of the one before\n", reused);
}

/* Whoever comes last frees the lock, while the one before is still on its way out. */
struct last {
    yk_biased lock;
    bool seen; /* under lock */
    atomic_long go, out;
};

static void *leave(void *arg)
{
    struct last *last = arg;
    for (int i = 0; i < FINIS; i++) {
        while (count_get(&last->go) <= i)
            sched_yield();
        yk_biased_lock(&last->lock);
        last->seen = true;
        yk_biased_unlock(&last->lock);
        count_up(&last->out, 1);
    }
    return NULL;
}

static void nobody_touches_it_after_the_last(void)
{
    struct last last = {.seen = false};
    pthread_t stranger;
    CHECK_EQ(pthread_create(&stranger, NULL, leave, &last), 0);
    for (int i = 0; i < FINIS; i++) {
        unsigned char gone[sizeof last.lock];
        memset(&last.lock, 0, sizeof last.lock);
        yk_biased_init(&last.lock);
        last.seen = false;
        count_up(&last.go, 1);
        for (bool seen = false; !seen;) {
            yk_biased_lock(&last.lock);
            seen = last.seen;
            yk_biased_unlock(&last.lock);
        }
        yk_biased_fini(&last.lock);
        memset(gone, 0xA5, sizeof gone);
        memcpy(&last.lock, gone, sizeof gone);
        while (count_get(&last.out) <= i)
            sched_yield();
        check_true(memcmp(&last.lock, gone, sizeof gone) == 0, "nobody writes to a lock that ended",
                   __FILE__, __LINE__);
    }
    CHECK_EQ(pthread_join(stranger, NULL), 0);
}

/* The program shuts itself in after the lock was made: there is no barrier to be had any more. */
static void refuse_membarrier(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = 4, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(77);
}

static void *come_once(void *arg)
{
    visit(arg, 2, 0);
    count_up(&((struct room *)arg)->going, -1);
    return NULL;
}

static void without_barriers(void)
{
    struct room room = {.going = 1};
    pthread_t stranger;
    yk_biased_init(&room.lock);
    const bool biased = is_biased(&room);
    refuse_membarrier();
    CHECK_EQ(pthread_create(&stranger, NULL, come_once, &room), 0);
    long mine = 0;
    for (; count_get(&room.going) > 0; mine++)
        visit(&room, 1, 0);
    CHECK_EQ(pthread_join(stranger, NULL), 0);
    CHECK_EQ(room.visits, mine + 1);
    check_true(!is_biased(&room), "without barriers there is no favourite", __FILE__, __LINE__);
    _exit(biased ? 0 : 77);
}

static void a_barrier_may_be_refused(void)
{
    const int pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        without_barriers();
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        fprintf(stderr, "    not here\n");
    else
        CHECK_EQ(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(one_at_a_time);
    RUN(the_favour_comes_in_the_middle);
    RUN(the_start_of_a_pool_costs_no_favour);
    RUN(the_favour_is_lost_to_who_comes_often);
    RUN(the_favour_is_lost_in_the_middle);
    RUN(the_favourite_is_gone);
    RUN(nobody_touches_it_after_the_last);
    if (!CHECK_TSAN)
        RUN(a_barrier_may_be_refused);
    return 0;
}
