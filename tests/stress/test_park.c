/* SPDX-License-Identifier: MIT
 * test_park.c - no call is lost: a worker that waits for frames is given one, whatever it was just
 * about to do.
 *
 * Idea: in each round so many calls are spawned that they can only end if as many threads take
 * part as the pool has workers, the caller among them: each waits until all of them have begun. The
 * round has a deadline. What comes before it is random: workers spin, are about to sleep, or
 * sleep; frames are so short that their owner takes them back from a mailbox; another caller
 * comes and goes. The owner spawns now and then while it waits, or is in one long call.
 *
 * test_park who ROUNDS plays that many rounds; docs/fork-join.md tells what was played by hand.
 */
/* tsan: yes */
/* timeout: 240 */
#define CHECK_TIMEOUT 100000
#include "check.h"
#include <stdbool.h>

enum { MOST = 4, ROUNDS = 100000, ALARM_MS = 10000, PART_MS = 9000 };

static long wanted_rounds;
static uint64_t state;
static yoke_pool *pool;

static unsigned below(unsigned n)
{
    return (unsigned)(random_next(&state) >> 32) % n;
}

static void spin_us(unsigned us)
{
    const int64_t until = yoke_now_ns() + (int64_t)us * 1000;
    while (yoke_now_ns() < until) {
    }
}

struct party {
    atomic_long here, late;
    long wanted;
    bool spawns; /* who waits goes on spawning; else it is in one long call */
    int64_t until;
};

static void nothing(yoke_strand strand, void *arg)
{
    (void)strand;
    (void)arg;
}

static void meet(yoke_strand strand, void *arg)
{
    struct party *party = arg;
    count_up(&party->here, 1);
    while (count_get(&party->here) < party->wanted) {
        if (yoke_now_ns() > party->until) {
            count_up(&party->late, 1);
            return;
        }
        if (party->spawns) {
            yoke_call call;
            yoke_spawn(&strand, &call, nothing, NULL);
            yoke_sync(&strand, &call);
        }
        sched_yield();
    }
}

static void invite(yoke_strand strand, void *arg)
{
    struct party *party = arg;
    yoke_call calls[MOST];
    const long guests = party->wanted - 1;
    for (long i = 0; i < guests; i++)
        yoke_spawn(&strand, &calls[i], meet, party);
    meet(strand, party);
    for (long i = guests - 1; i >= 0; i--)
        yoke_sync(&strand, &calls[i]);
}

/* Frames that go into mailboxes and are wanted back at once. */
static void tease(yoke_strand strand, void *arg)
{
    const unsigned *times = arg;
    for (unsigned i = 0; i < *times; i++) {
        yoke_call call;
        yoke_spawn(&strand, &call, nothing, NULL);
        yoke_sync(&strand, &call);
    }
}

static int come_and_go(void *arg)
{
    unsigned times = 3;
    (void)arg;
    return yoke_run(pool, tease, &times, NULL);
}

static void before_a_round(void)
{
    unsigned times = 1 + below(50);
    switch (below(16)) {
    case 0:
        breathe();
        break;
    case 1:
    case 2:
    case 3:
        spin_us(below(150));
        break;
    case 4:
    case 5:
    case 6:
        CHECK_RC(yoke_run(pool, tease, &times, NULL), 0);
        break;
    default:
        break;
    }
}

static void play(unsigned workers)
{
    struct party party = {.wanted = 1 + below(workers),
                          .spawns = below(2) == 0 || CHECK_TSAN, /* it has no barriers */
                          .until = yoke_in_ms(ALARM_MS * (int64_t)check_slowness())};
    yoke_thread *thread = NULL;
    if (below(256) == 0)
        CHECK_RC(yoke_thread_start(NULL, come_and_go, NULL, &thread), 0);
    CHECK_RC(yoke_run(pool, invite, &party, NULL), 0);
    CHECK_EQ(count_get(&party.late), 0);
    if (thread != NULL) {
        CHECK_RC(yoke_thread_wait(thread, soon(), NULL), 0);
        yoke_thread_release(thread);
    }
}

/* On a slow machine fewer rounds, and it is said how many. */
static void who_is_hungry_is_fed(void)
{
    long played = 0;
    state = random_seed();
    for (unsigned workers = 2; workers <= MOST; workers++) {
        const int64_t end = yoke_in_ms(PART_MS * (int64_t)check_slowness());
        pool = make_pool(YOKE_THREADS, workers);
        for (long i = 0; i < (wanted_rounds ? wanted_rounds : ROUNDS) / (MOST - 1); i++) {
            if (wanted_rounds == 0 && yoke_now_ns() > end)
                break;
            before_a_round();
            play(workers);
            played++;
        }
        end_pool(pool);
    }
    printf("summary: %ld rounds\n", played);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    wanted_rounds = argc > 2 ? strtol(argv[2], NULL, 0) : 0;
    RUN(who_is_hungry_is_fed);
    return 0;
}
