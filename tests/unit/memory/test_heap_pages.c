/* SPDX-License-Identifier: MIT
 * test_heap_pages.c - which pages the shared heap touches, keeps, and gives back.
 *
 * Idea: the kernel counts the faults of this process. Memory that was used once costs none when it
 * is used again; memory that was given back does. What huge pages save is shown, not judged: a
 * machine may have none to give.
 */
/* timeout: 120 */
#include "check.h"
#include <sys/resource.h>

enum { KIB = 1 << 10, MIB = 1 << 20, ROUNDS = 1000 };

static long faults_now(void)
{
    struct rusage usage;
    CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_minflt;
}

static void touch(unsigned char *block, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 4096)
        ((volatile unsigned char *)block)[i] = 1;
    ((volatile unsigned char *)block)[bytes - 1] = 1;
}

static yoke_heap_stats stats_now(void)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    CHECK_RC(yoke_heap_stats_get(&stats), 0);
    return stats;
}

static void a_round(const size_t *sizes, int n, int turn)
{
    unsigned char *held[4];
    for (int i = 0; i < n; i++) {
        held[i] = yoke_shared_alloc(sizes[i]);
        CHECK(held[i] != NULL);
        touch(held[i], sizes[i]);
    }
    for (int i = 0; i < n; i++)
        yoke_shared_free(held[(i + turn) % n]);
}

static void used_memory_is_used_again_without_faults(void)
{
    static const size_t sizes[] = {64, 4 * KIB, MIB, (size_t)100 * 1000 * 1000};
    /* Each size by itself, then all four, freed in changing order. */
    for (int set = 0; set < 5; set++) {
        const size_t *first = set < 4 ? &sizes[set] : sizes;
        const int n = set < 4 ? 1 : 4;
        for (int i = 0; i < n; i++)
            a_round(first, n, i);
        const long before = faults_now();
        for (int round = 0; round < ROUNDS / (int)check_slowness(); round++)
            a_round(first, n, round);
        const long faults = faults_now() - before;
        if (faults)
            fprintf(stderr, "    set %d: %ld faults\n", set, faults);
        /* A sanitizer may touch a page of its own. */
        CHECK(faults <= (check_slowness() > 1 ? 20 : 0));
    }
}

static void the_lowest_free_block_is_taken_first(void)
{
    enum { N = 500 };
    static unsigned char *held[N];
    for (int i = 0; i < N; i++)
        held[i] = yoke_shared_alloc(64);
    static const int order[] = {400, 3, 200, 70};
    for (int i = 0; i < 4; i++) {
        yoke_shared_free(held[order[i]]);
        CHECK(yoke_shared_alloc(64) == held[order[i]]);
    }
    for (int i = 0; i < N; i++)
        yoke_shared_free(held[i]);
}

/* In a child, which has a heap of its own. */
static int small_then_pages(void *arg)
{
    (void)arg;
    enum { N = 400000, BYTES = 128, PAGES = 10000 };
    static void *held[N];
    for (int i = 0; i < N; i++) {
        held[i] = yoke_shared_alloc(BYTES);
        CHECK(held[i] != NULL);
    }
    for (int i = 0; i < N; i++)
        yoke_shared_free(held[i]);
    const yoke_heap_stats before = stats_now();
    CHECK(before.peak_bytes >= (size_t)N * BYTES);
    for (int i = 0; i < PAGES; i++)
        held[i] = yoke_shared_alloc(4 * KIB);
    const yoke_heap_stats after = stats_now();
    for (int i = 0; i < PAGES; i++)
        yoke_shared_free(held[i]);
    fprintf(stderr, "    %zu MiB in small blocks, freed; then %d pages: peak %zu MiB, was %zu\n",
            (size_t)N * BYTES / MIB, PAGES, after.peak_bytes / MIB, before.peak_bytes / MIB);
    CHECK(after.peak_bytes <= before.peak_bytes + before.peak_bytes / 3 + (8 << 20));
    return 0;
}

static void freed_small_blocks_make_room_for_other_sizes(void)
{
    CHECK_CHILD(small_then_pages, NULL);
}

static void trim_gives_memory_back_and_zeros_come(void)
{
    enum { N = 4 };
    const size_t bytes = (size_t)16 * MIB;
    unsigned char *held[N], *keep[N];
    (void)yoke_heap_trim();
    for (int i = 0; i < N; i++) {
        held[i] = yoke_shared_alloc(bytes);
        keep[i] = yoke_shared_alloc(i % 2 ? MIB : 100);
        CHECK(held[i] != NULL && keep[i] != NULL);
        memset(held[i], 0xee, bytes);
        memset(keep[i], i + 1, 100);
    }
    for (int i = 0; i < N; i++)
        yoke_shared_free(held[i]);
    CHECK(stats_now().idle_bytes >= N * bytes);
    const long full = count_rss_kib();
    const size_t given = yoke_heap_trim();
    if (given == 0 && check_emulated())
        return;
    CHECK(given >= N * bytes);
    const long freed = full - count_rss_kib();
    fprintf(stderr, "    %zu MiB given back, %ld MiB less resident\n", given / MIB, freed / 1024);
    CHECK(CHECK_ASAN || CHECK_TSAN || freed >= (long)(N * bytes / 1024) * 9 / 10);
    CHECK_EQ(stats_now().idle_bytes, 0);
    CHECK_EQ(yoke_heap_trim(), 0);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(keep[i][0], i + 1);
        CHECK_EQ(keep[i][99], i + 1);
    }
    /* And zalloc need not write to it: it is clear, and costs no fault until it is used. */
    const long before = faults_now();
    unsigned char *block = yoke_shared_zalloc(bytes);
    CHECK(block != NULL);
    CHECK(CHECK_ASAN || CHECK_TSAN || faults_now() - before < 100);
    for (size_t i = 0; i < bytes; i += 64)
        CHECK_EQ(block[i], 0);
    yoke_shared_free(block);
    for (int i = 0; i < N; i++)
        yoke_shared_free(keep[i]);
}

/* ---- huge pages --------------------------------------------------------------------------- */

static const char huge_file[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/* The word in brackets; "" if there is none. */
static void huge_read(char word[32])
{
    char text[256] = "";
    const int fd = open(huge_file, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    word[0] = 0;
    if (n <= 0 || sscanf(text, "%*[^[][%31[a-z_]", word) == 1)
        return;
    (void)sscanf(text, "[%31[a-z_]", word);
}

static int huge_write(const char *word)
{
    const int fd = open(huge_file, O_WRONLY | O_CLOEXEC);
    const ssize_t want = (ssize_t)strlen(word);
    const int ok = fd >= 0 && write(fd, word, (size_t)want) == want;
    if (fd >= 0)
        close(fd);
    return ok;
}

struct first_touch {
    long faults;
    int64_t ns;
};

/* In a child, which has a heap of its own that nobody has touched. */
static struct first_touch measure(void)
{
    enum { BYTES = 64 * MIB };
    struct first_touch result = {-1, 0};
    int ends[2], status = 0;
    CHECK_EQ(pipe(ends), 0);
    const int pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        unsigned char *block = yoke_shared_alloc(BYTES);
        result.faults = -faults_now();
        result.ns = -yoke_now_ns();
        touch(block, BYTES);
        result.ns += yoke_now_ns();
        result.faults += faults_now();
        _exit(write(ends[1], &result, sizeof result) != sizeof result);
    }
    close(ends[1]);
    (void)!read(ends[0], &result, sizeof result);
    close(ends[0]);
    (void)waitpid(pid, &status, 0);
    return result;
}

static void huge_pages_are_used_where_they_are_allowed(void)
{
    char was[32], now[32];
    huge_read(was);
    unsigned char *large = yoke_shared_alloc_aligned((size_t)4 * MIB, (size_t)2 * MIB);
    CHECK(large != NULL);
    CHECK_EQ((uintptr_t)large % ((size_t)2 * MIB), 0);
    yoke_shared_free(large);
    const struct first_touch before = measure();
    fprintf(stderr, "    shmem_enabled is '%s': first touch of 64 MiB %" PRId64 " us, %ld faults\n",
            was, before.ns / 1000, before.faults);
    CHECK(before.faults >= 0);
    if (strcmp(was, "never") != 0 || !huge_write("advise"))
        return;
    const struct first_touch advised = measure();
    huge_read(now);
    const int restored = huge_write(was);
    fprintf(stderr, "    set to '%s': %" PRId64 " us, %ld faults\n", now, advised.ns / 1000,
            advised.faults);
    CHECK(restored);
    CHECK(advised.faults >= 0 && advised.faults <= before.faults + 64);
}

int main(int argc, char **argv)
{
    check_main(argc, argv);
    RUN(used_memory_is_used_again_without_faults);
    RUN(the_lowest_free_block_is_taken_first);
    RUN(freed_small_blocks_make_room_for_other_sizes);
    RUN(trim_gives_memory_back_and_zeros_come);
    RUN(huge_pages_are_used_where_they_are_allowed);
    return 0;
}
