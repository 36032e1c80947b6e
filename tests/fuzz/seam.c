/* SPDX-License-Identifier: MIT
 * seam.c - the make-believe machine: clock, waits, processes, keeper, shared memory.
 *
 * Each __wrap_x takes the place of the library's x. What is not wrapped is the real thing.
 */
#include "seam.h"

#include <errno.h>
#include <sanitizer/allocator_interface.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <yoke/yoke.h>

#define GUARD_BYTES ((size_t)1 << 30)
#define DIRTY_MAX 1024
#define WATCHES_MAX 64
#define TICK_NS 1000 /* what a look at the clock costs */

struct seam_process seam_processes[SEAM_PROCESSES];
int seam_process_count;
unsigned char *seam_arena;
int64_t seam_now_ns;
bool (*seam_idle)(void);
unsigned seam_waits;
unsigned seam_waits_max = 100000;

static struct {
    const void *start;
    size_t bytes;
} dirty[DIRTY_MAX];
static size_t dirty_count;
static struct yk_watch *watches[WATCHES_MAX];
static struct yk_ticker *tickers;
static int keeper_holds;
static long private_blocks; /* malloc minus free */
static long private_blocks_before;

_Noreturn void seam_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "FAILED: %s\n    at %s:%d\n", what, file, line);
    abort();
}

/* --- memory --------------------------------------------------------------------------------- */

static void on_malloc(const volatile void *start, size_t bytes)
{
    (void)start;
    (void)bytes;
    private_blocks++;
}

static void on_free(const volatile void *start)
{
    private_blocks -= start != NULL;
}

static void make_arena(void)
{
    unsigned char *const all = mmap(NULL, SEAM_ARENA_BYTES + 2 * GUARD_BYTES, PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(all != MAP_FAILED);
    seam_arena = all + GUARD_BYTES;
    MUST(mprotect(seam_arena, SEAM_ARENA_BYTES, PROT_READ | PROT_WRITE) == 0);
    MUST(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) != 0);
}

void seam_dirty(const void *start, size_t bytes)
{
    /* More than fits is zeroed whole: rare, and slow. */
    if (dirty_count < DIRTY_MAX) {
        dirty[dirty_count].start = start;
        dirty[dirty_count].bytes = bytes;
    }
    dirty_count++;
}

bool seam_in_heap(const void *start, size_t bytes)
{
    const uintptr_t low = (uintptr_t)seam_arena + YK_CHUNK_BYTES;
    const uintptr_t high = (uintptr_t)seam_arena + SEAM_ARENA_BYTES;
    const uintptr_t at = (uintptr_t)start;
    return at >= low && at <= high && bytes <= high - at;
}

static void clean_arena(void)
{
    if (dirty_count > DIRTY_MAX) {
        madvise(seam_arena, SEAM_ARENA_BYTES, MADV_DONTNEED);
    }
    for (size_t i = 0; i < dirty_count && dirty_count <= DIRTY_MAX; i++) {
        memset((void *)(uintptr_t)dirty[i].start, 0, dirty[i].bytes);
    }
    dirty_count = 0;
    /* The words, and the bitmaps of chunks that were in use. */
    struct yk_heap_shared *const shared = (struct yk_heap_shared *)seam_arena;
    const size_t count = SEAM_ARENA_BYTES / YK_CHUNK_BYTES;
    memset(shared, 0, sizeof *shared + count * sizeof shared->words[0]);
    for (size_t i = 1; i < count; i++) {
        struct yk_chunk *const chunk = (struct yk_chunk *)(seam_arena + i * YK_CHUNK_BYTES);
        /* relaxed: there is one thread. */
        if (atomic_load_explicit(&chunk->free[0], memory_order_relaxed) != 0 ||
            atomic_load_explicit(&chunk->taken, memory_order_relaxed /* as above */) != 0) {
            memset(chunk, 0, YK_CHUNK_HEADER_BYTES);
        }
    }
}

void seam_reset(void)
{
    if (seam_arena == NULL) {
        make_arena();
    }
    clean_arena();
    for (int i = YK_LOCAL_ROLE + 1; i < YK_LOCAL_COUNT; i++) {
        memset(yk_process_local((enum yk_local)i), 0, YK_LOCAL_BYTES);
    }
    memset(seam_processes, 0, sizeof *seam_processes * (size_t)seam_process_count);
    memset(watches, 0, sizeof watches);
    seam_process_count = 0;
    keeper_holds = 0;
    tickers = NULL;
    seam_now_ns = 1000000000;
    seam_waits = 0;
    private_blocks_before = private_blocks;
}

void seam_check_leaks(void)
{
    for (int i = 0; i < seam_process_count; i++) {
        MUST(seam_processes[i].reaped);
        MUST(seam_processes[i].open == 0);
    }
    for (size_t i = 0; i < WATCHES_MAX; i++) {
        MUST(watches[i] == NULL);
    }
    MUST(tickers == NULL);
    MUST(keeper_holds == 0);
    MUST(private_blocks == private_blocks_before);
}

size_t __wrap_yk_address_space_limit(void);
size_t __wrap_yk_address_space_limit(void)
{
    return 4 * SEAM_ARENA_BYTES;
}

size_t __wrap_yk_memory_available(const char *root);
size_t __wrap_yk_memory_available(const char *root)
{
    (void)root;
    return SEAM_ARENA_BYTES;
}

int __wrap_yk_map_shared(size_t bytes, void **start);
int __wrap_yk_map_shared(size_t bytes, void **start)
{
    MUST(bytes == SEAM_ARENA_BYTES);
    *start = seam_arena;
    return 0;
}

unsigned __wrap_yoke_cpu_count(void);
unsigned __wrap_yoke_cpu_count(void)
{
    return 1; /* nobody spins */
}

/* --- time ----------------------------------------------------------------------------------- */

int64_t __wrap_yk_clock_ns(void);
int64_t __wrap_yk_clock_ns(void)
{
    seam_now_ns += TICK_NS;
    return seam_now_ns;
}

int __wrap_yk_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns,
                         enum yk_scope scope);
int __wrap_yk_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns,
                         enum yk_scope scope)
{
    (void)scope;
    /* relaxed: there is one thread. */
    if (atomic_load_explicit(word, memory_order_relaxed) != expected) {
        return -EAGAIN;
    }
    /* Only a lock is waited for without a limit, and nobody else is there to give it. */
    MUST(until_ns != YOKE_FOREVER);
    /* A wait that nothing ends, however often the world goes on, is a hang. */
    MUST(++seam_waits < seam_waits_max);
    if (seam_idle != NULL && seam_idle()) {
        return -EINTR;
    }
    /* relaxed: as above. */
    if (atomic_load_explicit(word, memory_order_relaxed) != expected) {
        return 0;
    }
    seam_now_ns = until_ns > seam_now_ns ? until_ns : seam_now_ns;
    return -ETIMEDOUT;
}

void __wrap_yk_futex_wake(_Atomic uint32_t *word, int count, enum yk_scope scope);
void __wrap_yk_futex_wake(_Atomic uint32_t *word, int count, enum yk_scope scope)
{
    (void)word;
    (void)count;
    (void)scope;
}

/* --- processes ------------------------------------------------------------------------------ */

int seam_spawn(yk_image_entry *entry, void *arg, int *pid, int *pidfd)
{
    MUST(seam_process_count < SEAM_PROCESSES); /* they multiply without end */
    struct seam_process *const process = &seam_processes[seam_process_count];
    *process = (struct seam_process){.entry = entry, .arg = arg};
    process->pidfd = SEAM_FIRST_FD + seam_process_count;
    seam_process_count++;
    *pid = process->pidfd;
    if (pidfd != NULL) {
        process->open = 1;
        *pidfd = process->pidfd;
    }
    return 0;
}

struct seam_process *seam_process_of(int pidfd)
{
    const int index = pidfd - SEAM_FIRST_FD;
    MUST(index >= 0 && index < seam_process_count);
    return &seam_processes[index];
}

static struct seam_process *opened(int pidfd)
{
    struct seam_process *const process = seam_process_of(pidfd);
    MUST(process->open > 0);
    return process;
}

void seam_end(struct seam_process *process, int status)
{
    if (!process->ended) {
        process->ended = true;
        process->status = status;
    }
}

int __wrap_yk_pidfd_open(int pid, int *pidfd);
int __wrap_yk_pidfd_open(int pid, int *pidfd)
{
    const int index = pid - SEAM_FIRST_FD;
    if (index < 0 || index >= seam_process_count || seam_processes[index].reaped) {
        return -ESRCH; /* not a child of ours, or not any more */
    }
    seam_processes[index].open++;
    *pidfd = pid;
    return 0;
}

int __wrap_yk_pidfd_signal(int pidfd, int signal);
int __wrap_yk_pidfd_signal(int pidfd, int signal)
{
    struct seam_process *const process = opened(pidfd);
    process->killed = process->killed || signal == yk_signal_kill();
    return process->ended ? -ESRCH : 0;
}

bool __wrap_yk_pidfd_ended(int pidfd, int64_t until_ns);
bool __wrap_yk_pidfd_ended(int pidfd, int64_t until_ns)
{
    struct seam_process *const process = opened(pidfd);
    if (process->killed && until_ns > seam_now_ns) {
        seam_end(process, yk_signal_kill());
    }
    if (!process->ended && until_ns > seam_now_ns) {
        MUST(until_ns != YOKE_FOREVER); /* nobody has killed it */
        if (seam_idle != NULL) {
            (void)seam_idle();
        }
        seam_now_ns = until_ns > seam_now_ns ? until_ns : seam_now_ns;
    }
    return process->ended;
}

int __wrap_yk_pidfd_wait(int pidfd, int64_t until_ns);
int __wrap_yk_pidfd_wait(int pidfd, int64_t until_ns)
{
    MUST(++seam_waits < seam_waits_max);
    if (seam_idle != NULL && seam_idle()) {
        return -EINTR;
    }
    return __wrap_yk_pidfd_ended(pidfd, until_ns) ? 0 : -ETIMEDOUT;
}

struct yk_exit_status __wrap_yk_pidfd_reap(int pidfd);
struct yk_exit_status __wrap_yk_pidfd_reap(int pidfd)
{
    struct seam_process *const process = opened(pidfd);
    MUST(process->ended);
    if (process->reaped) {
        return (struct yk_exit_status){.code = -1}; /* by another descriptor */
    }
    process->reaped = true;
    return process->status > 0 ? (struct yk_exit_status){.code = -1, .signal = process->status}
                               : (struct yk_exit_status){.code = -process->status};
}

struct yk_exit_status __wrap_yk_pidfd_reap_usage(int pidfd, struct yk_usage *usage);
struct yk_exit_status __wrap_yk_pidfd_reap_usage(int pidfd, struct yk_usage *usage)
{
    *usage = (struct yk_usage){0};
    return __wrap_yk_pidfd_reap(pidfd);
}

int __wrap_yk_poll_many(const int *fds, size_t count, int64_t until_ns, bool *ready);
int __wrap_yk_poll_many(const int *fds, size_t count, int64_t until_ns, bool *ready)
{
    bool any = false;
    MUST(++seam_waits < seam_waits_max);
    if (seam_idle != NULL && seam_idle()) {
        return -EINTR;
    }
    for (size_t i = 0; i < count; i++) {
        ready[i] = fds[i] >= 0 && __wrap_yk_pidfd_ended(fds[i], 0);
        any = any || ready[i];
    }
    seam_now_ns = !any && until_ns > seam_now_ns ? until_ns : seam_now_ns;
    return any ? 0 : -ETIMEDOUT;
}

void __wrap_yk_fd_close(int fd);
void __wrap_yk_fd_close(int fd)
{
    opened(fd)->open--;
}

void __wrap_yk_child_discard(int pid);
void __wrap_yk_child_discard(int pid)
{
    seam_process_of(pid)->reaped = true;
}

int __wrap_yk_fork(void);
int __wrap_yk_fork(void)
{
    int pid = -1;
    (void)seam_spawn(NULL, NULL, &pid, NULL);
    return pid;
}

int __wrap_yk_clone_quiet(bool sibling, int *child);
int __wrap_yk_clone_quiet(bool sibling, int *child)
{
    MUST(!sibling && child == NULL); /* only templates make siblings */
    return __wrap_yk_fork();
}

/* --- the keeper ----------------------------------------------------------------------------- */

int __wrap_yk_keeper_hold(void);
int __wrap_yk_keeper_hold(void)
{
    keeper_holds++;
    return 0;
}

void __wrap_yk_keeper_drop(void);
void __wrap_yk_keeper_drop(void)
{
    MUST(keeper_holds-- > 0);
}

int __wrap_yk_keeper_call(int (*fn)(void *arg), void *arg);
int __wrap_yk_keeper_call(int (*fn)(void *arg), void *arg)
{
    MUST(keeper_holds > 0);
    return fn(arg);
}

void __wrap_yk_keeper_nudge(void);
void __wrap_yk_keeper_nudge(void)
{
    MUST(keeper_holds > 0);
}

int __wrap_yk_keeper_watch(struct yk_watch *watch);
int __wrap_yk_keeper_watch(struct yk_watch *watch)
{
    for (size_t i = 0; i < WATCHES_MAX; i++) {
        if (watches[i] == NULL) {
            watches[i] = watch;
            return 0;
        }
    }
    return -ENOMEM;
}

void __wrap_yk_keeper_unwatch(struct yk_watch *watch);
void __wrap_yk_keeper_unwatch(struct yk_watch *watch)
{
    for (size_t i = 0; i < WATCHES_MAX; i++) {
        watches[i] = watches[i] == watch ? NULL : watches[i];
    }
}

void __wrap_yk_keeper_add_ticker(struct yk_ticker *ticker);
void __wrap_yk_keeper_add_ticker(struct yk_ticker *ticker)
{
    ticker->next = tickers;
    tickers = ticker;
}

void __wrap_yk_keeper_remove_ticker(struct yk_ticker *ticker);
void __wrap_yk_keeper_remove_ticker(struct yk_ticker *ticker)
{
    struct yk_ticker **at = &tickers;
    while (*at != NULL && *at != ticker) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = ticker->next;
    }
}

void seam_drop_tickers(void)
{
    tickers = NULL;
}

bool seam_keeper_step(void)
{
    bool death = false;
    for (size_t i = 0; i < WATCHES_MAX && !death; i++) {
        if (watches[i] == NULL) {
            continue;
        }
        struct seam_process *const process = opened(watches[i]->fd);
        if (process->killed) {
            seam_end(process, yk_signal_kill());
        }
        if (process->ended) {
            watches[i]->ready(watches[i]->arg);
            death = true;
        }
    }
    struct yk_ticker *next = NULL;
    for (struct yk_ticker *ticker = tickers; ticker != NULL; ticker = next) {
        next = ticker->next;
        (void)ticker->tick(ticker->arg, __wrap_yk_clock_ns());
    }
    return death;
}
