/* SPDX-License-Identifier: MIT
 * test_soak.c - everything at once, for as long as you like: `make soak T=60`.
 *
 *     test_soak [seconds]            5 by default
 *     test_soak seconds kills        small pools, and kills as fast as they come
 *     test_soak seconds kills COUNT  until there were that many kills, or the time is up
 *
 * Idea: actors (actors.h) work and disturb; every so often all stand still, and what we hold is
 * counted: descriptors, processes, threads and blocks of the heap must be what they were at first,
 * and memory about that. Each task is checked by its ticket (soak.h); an actor that is at one thing
 * for two minutes hangs. A failure ends the run with its name.
 */
/* timeout: 120 */
#include "actors.h"

#include <limits.h>

enum { SLACK_KIB = 8192, WARM_UP_MS = 1000 };

struct soak soak = {.lock = PTHREAD_MUTEX_INITIALIZER,
                    .changed = PTHREAD_COND_INITIALIZER,
                    .looks = PTHREAD_MUTEX_INITIALIZER};

/* ---- actors -------------------------------------------------------------------------------- */

/* Stand still while asked to; 0: the end. */
static int may_go_on(struct soak_actor *actor)
{
    pthread_mutex_lock(&soak.lock);
    if (soak.pause) {
        soak_doing(actor, NULL);
        soak.parked++;
        pthread_cond_broadcast(&soak.changed);
        while (soak.pause)
            pthread_cond_wait(&soak.changed, &soak.lock);
        soak.parked--;
    }
    const int go_on = !soak.stop;
    pthread_mutex_unlock(&soak.lock);
    return go_on;
}

static void *actor_main(void *arg)
{
    struct soak_actor *const actor = arg;
    while (may_go_on(actor))
        actor->step(actor);
    soak_doing(actor, NULL);
    return NULL;
}

static void add_actor(const char *name, void (*step)(struct soak_actor *), int pool, uint64_t seed)
{
    CHECK(soak.actor_count < SOAK_ACTORS);
    struct soak_actor *const actor = &soak.actors[soak.actor_count++];
    snprintf(actor->name, sizeof actor->name, "%s %d", name, pool);
    actor->step = step;
    actor->random = seed + soak.actor_count * 1000003u;
    actor->pool = pool;
    actor->state = calloc(1, sizeof(struct soak_map));
    CHECK(actor->state != NULL);
}

static int add_pool(int kind, int image, unsigned workers, unsigned workers_max)
{
    CHECK(soak.pool_count < SOAK_POOLS);
    const yoke_pool_config config = {.size = sizeof config,
                                     .kind = kind,
                                     .image = image,
                                     .workers = workers,
                                     .workers_max = workers_max};
    struct soak_pool *const entry = &soak.pools[soak.pool_count];
    CHECK_RC(yoke_pool_create(&config, &entry->pool), 0);
    entry->kind = kind;
    entry->workers = workers;
    return (int)soak.pool_count++;
}

static void cast_all(uint64_t seed)
{
    const int a = add_pool(YOKE_PROCESSES, YOKE_SNAPSHOT, 3, 0);
    const int b = add_pool(YOKE_PROCESSES, YOKE_SEED, 2, 0);
    const int c = add_pool(YOKE_THREADS, 0, 2, 2);
    const int d = add_pool(YOKE_PROCESSES, YOKE_SNAPSHOT, 2, 0);
    add_actor("submit to processes", soak_submit_step, a, seed);
    add_actor("map on processes", soak_map_step, a, seed);
    add_actor("submit to seed", soak_submit_step, b, seed);
    add_actor("map on seed", soak_map_step, b, seed);
    add_actor("submit to threads", soak_submit_step, c, seed);
    add_actor("map on threads", soak_map_step, c, seed);
    add_actor("map on processes", soak_map_step, d, seed);
    add_actor("processes", soak_process_step, -1, seed);
    add_actor("threads", soak_thread_step, -1, seed);
    add_actor("blocks", soak_heap_step, -1, seed);
    add_actor("pools", soak_churn_step, -1, seed);
    add_actor("disturb", soak_disturb_step, -1, seed);
    add_actor("squeeze", soak_squeeze_step, -1, seed);
}

static void cast_killers(uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        const int pool =
            add_pool(YOKE_PROCESSES, i % 2 ? YOKE_SEED : YOKE_SNAPSHOT, 1 + (unsigned)i % 3, 0);
        add_actor("kill", soak_fast_kill_step, pool, seed);
    }
}

static void start_actors(void)
{
    for (unsigned i = 0; i < soak.actor_count; i++)
        CHECK_EQ(pthread_create(&soak.actors[i].thread, NULL, actor_main, &soak.actors[i]), 0);
}

/* ---- standing still ------------------------------------------------------------------------ */

static void look_for_hangs(void)
{
    const long now = (long)(yoke_now_ns() / 1000000);
    for (unsigned i = 0; i < soak.actor_count; i++) {
        struct soak_actor *const actor = &soak.actors[i];
        const char *const doing = atomic_load_explicit(&actor->doing, memory_order_seq_cst);
        const long ms = now - count_get(&actor->since_ms);
        if (doing != NULL && ms > 2L * SOAK_WAIT_MS * check_slowness()) {
            fprintf(stderr, "hangs in %s:\n", doing);
            soak_lost(actor, "hangs, for milliseconds", ms, 0);
        }
    }
}

static void set_pause(int pause)
{
    pthread_mutex_lock(&soak.lock);
    soak.pause = pause;
    pthread_cond_broadcast(&soak.changed);
    pthread_mutex_unlock(&soak.lock);
}

static int all_parked(void)
{
    pthread_mutex_lock(&soak.lock);
    const int all = soak.parked == soak.actor_count;
    pthread_mutex_unlock(&soak.lock);
    return all;
}

/* All workers there, and the spare. */
static int is_whole(const struct soak_pool *entry)
{
    const yoke_pool_stats stats = stats_of(entry->pool);
    return stats.workers == entry->workers && stats.in_flight == 0 &&
           stats.spares == (entry->kind == YOKE_PROCESSES);
}

/* Without what the shared heap has touched by now: its blocks are counted. */
static long count_private_kib(void)
{
    char line[128];
    long kib = -1;
    FILE *const file = fopen("/proc/self/status", "re");
    CHECK(file != NULL);
    while (kib < 0 && fgets(line, sizeof line, file) != NULL)
        (void)sscanf(line, "RssAnon: %ld kB", &kib);
    fclose(file);
    CHECK(kib > 0);
    return kib;
}

static int is_same(const struct usage *a, const struct usage *b)
{
    return a->fds == b->fds && a->children == b->children && a->threads == b->threads &&
           a->blocks == b->blocks;
}

/* The library does some things in its own time: as much as `first`, or what stays for a while. */
static struct usage usage_settled(const struct usage *first)
{
    struct usage now = usage_now();
    const int64_t until = yoke_in_ms(5000 * (int64_t)check_slowness());
    for (int same = 0; yoke_now_ns() < until && same < 50; breathe()) {
        const struct usage next = usage_now();
        same = is_same(&now, &next) ? same + 1 : 0;
        now = next;
        if (first != NULL && is_same(&now, first))
            break;
    }
    return now;
}

static struct usage stand_still(const struct usage *first)
{
    set_pause(1);
    while (!all_parked()) {
        look_for_hangs();
        breathe();
    }
    for (unsigned i = 0; i < soak.pool_count; i++)
        WAIT_MS(is_whole(&soak.pools[i]), SOAK_WAIT_MS);
    soak_seed_process(&soak.actors[0]);
    return usage_settled(first);
}

/* ---- figures ------------------------------------------------------------------------------- */

static void check_usage(struct usage first, struct usage now, long kib_first, long kib)
{
    CHECK_EQ(now.fds, first.fds);
    CHECK_EQ(now.children, first.children);
    CHECK_EQ(now.threads, first.threads);
    CHECK_EQ(now.blocks, first.blocks);
    if (!CHECK_ASAN && kib > kib_first + SLACK_KIB) {
        fprintf(stderr, "FAILED: memory grew from %ld to %ld KiB\n", kib_first, kib);
        check_die(__FILE__, __LINE__);
    }
    const struct soak_figures *const f = soak.figures;
    CHECK(count_get(&f->crashed) <= count_get(&f->kills));
}

static void print_line(int64_t start_ns, struct usage u, long kib)
{
    const struct soak_figures *const f = soak.figures;
    printf("%6.1f s  tasks %ld  kills %ld  stops %ld  crashed %ld  again %ld  cancelled %ld  late "
           "%ld  "
           "refused %ld | fds %d  processes %d  threads %d  maps %d  blocks %zu  private %ld KiB\n",
           (double)(yoke_now_ns() - start_ns) / 1e9, count_get(&f->tasks), count_get(&f->kills),
           count_get(&f->stops), count_get(&f->crashed), count_get(&f->again),
           count_get(&f->cancelled), count_get(&f->timed_out), count_get(&f->refused), u.fds,
           u.children, u.threads, u.maps, u.blocks, kib);
    fflush(stdout);
}

static void print_summary(int64_t start_ns)
{
    const struct soak_figures *const f = soak.figures;
    printf("\nseconds            %.0f\n"
           "tasks and items    %ld, of these in maps %ld\n"
           "  OK               %ld\n"
           "  crashed          %ld\n"
           "  cancelled        %ld\n"
           "  timed out        %ld\n"
           "  failed           %ld (no memory for their result)\n"
           "  begun again      %ld (after a kill; one of the above in the end)\n"
           "refused            %ld (while memory or descriptors were short)\n"
           "SIGKILL to workers %ld\n"
           "SIGKILL to templates %ld, SIGSTOP and SIGCONT %ld\n"
           "single processes   %ld, of these killed %ld\n"
           "single threads     %ld\n"
           "pools made, ended  %ld\n"
           "blocks             %ld\n"
           "lost               %ld\n"
           "doubled            %ld\n",
           (double)(yoke_now_ns() - start_ns) / 1e9, count_get(&f->tasks), count_get(&f->items),
           count_get(&f->ok), count_get(&f->crashed), count_get(&f->cancelled),
           count_get(&f->timed_out), count_get(&f->failed), count_get(&f->again),
           count_get(&f->refused), count_get(&f->kills), count_get(&f->template_kills),
           count_get(&f->stops), count_get(&f->processes), count_get(&f->process_kills),
           count_get(&f->threads), count_get(&f->pools), count_get(&f->blocks), count_get(&f->lost),
           count_get(&f->doubled));
}

/* ---- the run ------------------------------------------------------------------------------- */

static int is_enough(void)
{
    return soak.kills_wanted > 0 && count_get(&soak.figures->kills) >= soak.kills_wanted;
}

static void run_for(int64_t ms)
{
    set_pause(0);
    for (const int64_t until = yoke_in_ms(ms); yoke_now_ns() < until && !is_enough();) {
        breathe();
        look_for_hangs();
    }
}

static void soak_for(long seconds)
{
    const int64_t start = yoke_now_ns();
    const int64_t interval_ms = seconds * 1000 / 12 > 400 ? seconds * 1000 / 12 : 400;
    run_for(WARM_UP_MS);
    const struct usage first = stand_still(NULL);
    const long kib_first = count_private_kib();
    print_line(start, first, kib_first);
    while (yoke_now_ns() - start < seconds * 1000000000 && !is_enough()) {
        run_for(interval_ms);
        const struct usage now = stand_still(&first);
        const long kib = count_private_kib();
        print_line(start, now, kib);
        check_usage(first, now, kib_first, kib);
    }
    print_summary(start);
}

static void end_all(void)
{
    soak.stop = 1; /* all stand still, and see it when they go on */
    set_pause(0);
    for (unsigned i = 0; i < soak.actor_count; i++) {
        struct soak_actor *const actor = &soak.actors[i];
        CHECK_EQ(pthread_join(actor->thread, NULL), 0);
        for (unsigned k = 0; k < SOAK_TICKETS; k++)
            soak_ticket_check(actor, &actor->tickets[k]);
        free(actor->state);
    }
    for (unsigned i = 0; i < soak.pool_count; i++)
        end_pool(soak.pools[i].pool);
}

static void *map_for_all(size_t bytes)
{
    void *const at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

int main(int argc, char **argv)
{
    const long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : 5;
    const int kills = argc > 2 && strcmp(argv[2], "kills") == 0;
    if (seconds < 1 || seconds > 1000000 || (argc > 2 && !kills)) {
        fprintf(stderr, "usage: test_soak [seconds [kills [count]]]\n");
        return 2;
    }
    if (!check_has_kind(YOKE_PROCESSES))
        skip("kills need processes");
    soak.kills_wanted = !kills ? 0 : argc > 3 ? strtol(argv[3], NULL, 10) : LONG_MAX;
    check_kind = YOKE_PROCESSES;
    /* Before the first image: all see these. */
    soak.figures = map_for_all(sizeof *soak.figures);
    struct soak_ticket *const tickets = map_for_all(SOAK_ACTORS * SOAK_TICKETS * sizeof *tickets);
    for (unsigned i = 0; i < SOAK_ACTORS; i++)
        soak.actors[i].tickets = tickets + (size_t)i * SOAK_TICKETS;
    CHECK_RC(yoke_init(), 0);
    WAIT_FOR(count_descendants(getpid(), "yoke-template", 0, &soak.seed) == 1);
    soak_seed_process(&soak.actors[0]);
    const struct usage before = usage_settled(NULL);
    const uint64_t seed = random_seed();
    (kills ? cast_killers : cast_all)(seed);
    start_actors();
    soak_for(seconds);
    end_all();
    soak_seed_process(&soak.actors[0]);
    /* The copy of the seed that is kept ready is made in the library's own time. */
    WAIT_FOR(count_fds() >= before.fds && count_children() >= before.children);
    usage_check(before, 40);
    return 0;
}
