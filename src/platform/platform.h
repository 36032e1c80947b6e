/* SPDX-License-Identifier: MIT
 * platform.h - the seam: every system call Yoke makes, one function each.
 *
 * Idea: the rest of the library sees no OS header, so fault injection, kill tests and, later, a
 * deterministic scheduler stand in for this one layer. Errors are -errno; errno itself is left
 * as it was.   Room: platform.
 */
#ifndef YK_PLATFORM_H
#define YK_PLATFORM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include <yoke/process.h>

/* --- clock.c ------------------------------------------------------------------------------- */

int64_t yk_clock_ns(void);
/* Until then, in milliseconds, rounded up, as poll and epoll take it: 0 past it, -1 for ever. */
int yk_clock_ms_left(int64_t until_ns);

/* That long after `from`, at most YOKE_FOREVER. */
static inline int64_t yk_after(int64_t from_ns, int64_t ns)
{
    return ns < YOKE_FOREVER - from_ns ? from_ns + ns : YOKE_FOREVER;
}

/* --- futex.c ------------------------------------------------------------------------------- */

enum yk_scope { YK_PRIVATE, YK_SHARED }; /* threads of one process; or any process */

/* Sleep while *word == expected, until until_ns (absolute, YOKE_FOREVER: no limit).
 * 0 (woken, maybe for nothing), -EAGAIN (*word differs), -ETIMEDOUT, -EINTR. */
int yk_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t until_ns, enum yk_scope scope);
void yk_futex_wake(_Atomic uint32_t *word, int count, enum yk_scope scope);

/* Get ready for yk_barrier_everywhere; false: this machine, or a tool that watches this program,
 * cannot do it. */
bool yk_barrier_prepare(void);
/* The same, but only if this thread is the only one so far: then it costs nothing, and milliseconds
 * later on. */
void yk_barrier_prepare_early(void);
/* A full barrier on every CPU that runs a thread of this process, and here. False: it was refused
 * this time: no memory, or a filter of system calls that the program put on since. */
bool yk_barrier_everywhere(void);

/* A hint to the CPU that this is a spin loop. */
static inline void yk_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A counter that only grows, at a rate of its own (0.02 to 5 per ns): to tell short from long at
 * less than half of what the clock costs. */
static inline uint64_t yk_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return (uint64_t)yk_clock_ns();
#endif
}

/* --- cpu.c --------------------------------------------------------------------------------- */

/* CPUs by the calling thread's affinity, of those that are online, then cut by the cgroup quota found below root ("" for the real one). */
unsigned yk_cpu_count(const char *root);
/* The same, by the affinity of the main thread. */
unsigned yk_cpu_count_process(void);
/* The CPU that we run on; only a hint. */
unsigned yk_cpu_current(void);
/* Let others who are ready run on this CPU first. */
void yk_cpu_yield(void);
/* Bytes this program may still use: MemAvailable, cut by the cgroup's limit. */
size_t yk_memory_available(const char *root);

/* --- memory.c ------------------------------------------------------------------------------ */

size_t yk_page_bytes(void);
/* RLIMIT_AS, or SIZE_MAX. */
size_t yk_address_space_limit(void);

/* A private zeroed mapping. */
int yk_map_private(size_t bytes, void **start);
/* The same, for much that all of it is used: in large pages where they can be had. */
int yk_map_scratch(size_t bytes, void **start);

/* A nameless shared memory object: its descriptor, and how to know that it still is one of it. */
struct yk_shared_object {
    int fd; /* close-on-exec, with a high number; -1: none */
    uint64_t device, inode;
};
/* A new object of bytes, mapped in a quiet zone of the address space if it can be, not in core
 * dumps. It cannot be resized, so no access inside the mapping can fault for its size. */
int yk_map_shared(size_t bytes, void **start, struct yk_shared_object *object);
/* Nobody closed the descriptor, or opened something else in its place. */
bool yk_shared_object_is(const struct yk_shared_object *object);
/* Map it in another program, at that very address: -EEXIST where something is in the way, -EINVAL
 * when it is no such object. */
int yk_map_shared_at(const struct yk_shared_object *object, size_t bytes, void *at);
/* Write into it without mapping it. */
void yk_shared_object_write(const struct yk_shared_object *object, size_t at, const void *data,
                            size_t bytes);
void yk_unmap(void *start, size_t bytes);
/* Give the memory of a part of a shared mapping back, in all processes; it reads as zeros then. 0
 * or -errno. */
int yk_memory_discard(void *start, size_t bytes);

/* A small zeroed area that is zero again in every child made by fork, so state in it is never
 * mistaken for the child's own. One area per number; lives as long as the process. */
enum yk_local {
    YK_LOCAL_ROLE,
    YK_LOCAL_HEAP,
    YK_LOCAL_KEEPER,
    YK_LOCAL_SEED,
    YK_LOCAL_PROGRAM,
    YK_LOCAL_WARM,
    YK_LOCAL_CANCEL,
    YK_LOCAL_CPUS,
    YK_LOCAL_COUNT
};
#define YK_LOCAL_BYTES 1024
void *yk_process_local(enum yk_local which);
/* In a child with one thread: make sure that it is. */
void yk_process_local_wipe(void);

/* The first area: who this process is. */
struct yk_role {
    _Atomic uint64_t generation; /* 0: not asked for yet */
    _Atomic int process;         /* that asked first; 0: not yet */
    _Atomic bool worker;
};

extern void *_Atomic yk_local_areas; /* memory.c's; here for the inline function below */
uint64_t yk_process_generation_first(void);

/* A number that no parent or child of this process has; never 0. What carries another one was
 * made before a fork and is not ours. Inline: every call on a job asks it. */
static inline uint64_t yk_process_generation(void)
{
    /* SYNC(local-areas) acquire: sees the area zeroed by who made it. */
    struct yk_role *const role = atomic_load_explicit(&yk_local_areas, memory_order_acquire);
    if (YK_UNLIKELY(role == NULL)) {
        return yk_process_generation_first();
    }
    /* relaxed: the number itself is all there is to see. */
    const uint64_t known = atomic_load_explicit(&role->generation, memory_order_relaxed);
    return YK_LIKELY(known != 0) ? known : yk_process_generation_first();
}

/* This process is a copy made by Yoke to run tasks. */
void yk_worker_role_set(void);
bool yk_worker_role(void);

/* --- file.c -------------------------------------------------------------------------------- */

void yk_fd_close(int fd);
/* -error; no descriptor to be had is -EMFILE, whether the program or the machine is out of them. */
int yk_fd_error(int error);
/* Close all descriptors but 0, 1, 2 and keep[0..count). */
int yk_fd_close_others(const int *keep, size_t count);
bool yk_fd_is_open(int fd);
/* Out of the numbers of the standard streams, where another program would take it for its own. The
 * same descriptor if it cannot be moved. */
int yk_fd_lift(int fd);

int yk_eventfd_create(int *fd);
void yk_eventfd_signal(int fd);
void yk_eventfd_drain(int fd);

int yk_epoll_create(int *fd);
int yk_epoll_add(int epoll, int fd, void *tag);
void yk_epoll_remove(int epoll, int fd);
/* Wait for events; fills tags[0..max). Returns how many, or -errno (-EINTR too). */
int yk_epoll_wait(int epoll, void **tags, int max, int64_t until_ns);

/* --- thread.c ------------------------------------------------------------------------------ */

struct yk_thread_setup {
    const char *name;   /* or NULL */
    size_t stack_bytes; /* 0: default */
    const int *cpus;    /* or NULL */
    size_t cpu_count;
};

typedef struct yk_thread_id {
    unsigned long handle;
} yk_thread_id;

/* Start a thread with all signals blocked. Each must be joined once. */
int yk_thread_start(const struct yk_thread_setup *setup, void (*fn)(void *), void *arg,
                    yk_thread_id *thread);
void yk_thread_join(yk_thread_id thread);
void yk_thread_detach(yk_thread_id thread);
bool yk_thread_is_self(yk_thread_id thread);
/* The threads of this process, or a large number when that cannot be known. */
unsigned yk_thread_count(void);
/* From now on, in a child that fork() makes, run this in its one thread. */
void yk_fork_watch(void (*in_child)(void));
/* A thread of this process, as others look at it. */
struct yk_thread_watch {
    int id;
    int clock;
};
struct yk_thread_watch yk_thread_watch_self(void);
/* How much CPU time it has used; -1: it has ended. */
int64_t yk_thread_cpu_ns(struct yk_thread_watch watch);
/* 1: it waits for something; 0: it runs, or could if a CPU were free; -1: nobody knows. */
int yk_thread_waits(struct yk_thread_watch watch);
/* As deep a stack as the main thread's. */
size_t yk_stack_bytes_default(void);

/* --- process.c ----------------------------------------------------------------------------- */

int yk_process_self(void);
int yk_process_parent(void);

/* A copy of the calling process, with glibc's fork(): right beside other threads, its exit
 * signal is SIGCHLD. The child's pid, 0 in the child, or -errno. */
int yk_fork(void);
/* The same by a bare clone with no exit signal: wait() of the program does not see the child.
 * Only when no other thread can hold a lock of libc. -ENOSYS where the thread's own data cannot
 * be put right (a sibling is made all the same; robust mutexes do not work in it then). With
 * sibling true the child's parent is the caller's parent, and its exit signal is the caller's.
 * *child gets the pid before the child runs its first instruction, also if the caller is killed
 * meanwhile; NULL: not wanted. */
int yk_clone_quiet(bool sibling, int *child);

/* A descriptor that becomes readable when the process ends; -ESRCH when it is not our child or
 * has gone. */
int yk_pidfd_open(int pid, int *pidfd);
int yk_pidfd_signal(int pidfd, int signal);
/* True once the process has ended (zombie or gone). */
bool yk_pidfd_ended(int pidfd, int64_t until_ns);
/* Wait for the end: 0, -EINTR, -ETIMEDOUT; does not reap. */
int yk_pidfd_wait(int pidfd, int64_t until_ns);

struct yk_exit_status {
    int code;   /* or -1 */
    int signal; /* or 0; code -1 and signal 0: somebody else took the status */
};
/* Reap an ended child. */
struct yk_exit_status yk_pidfd_reap(int pidfd);

/* Kill a child that nobody can be told of, and reap it. */
void yk_child_discard(int pid);

/* In a new child: die when the thread that made us dies, unless it has already. False: it has.
 * parent is the pid of the program. */
bool yk_process_follow(int parent);
/* In a new child: default actions, nothing blocked, ignored ones stay ignored. */
void yk_signals_reset(bool ignore_interrupt);
void yk_interrupt_default(void);
int yk_signal_kill(void);
int yk_signal_interrupt(void);
int yk_signal_terminate(void);
int yk_signal_continue(void);
/* Block all signals in this thread; *saved (128 bytes) gets the old mask. */
struct yk_signal_mask {
    unsigned long words[16];
};
void yk_signals_block(struct yk_signal_mask *saved);
void yk_signals_restore(const struct yk_signal_mask *saved);
/* Blocked here, and pending: forget SIGINT and SIGTERM. */
void yk_signals_drop(void);

void yk_process_name(const char *name);
void yk_process_oom_raise(void);
YK_NORETURN void yk_process_exit(int code);
/* Drop what the parent had printed but not flushed, so that it is not printed twice. */
void yk_stdio_forget(void);
/* Flush stdout and stderr, unless another thread holds them. */
void yk_stdio_flush(void);
/* From now on exit() ends this process at once: no atexit handler registered before runs. */
void yk_exit_immediately(void);
/* New random state for rand, random, drand48. */
void yk_random_reseed(void);

/* --- limits.c ------------------------------------------------------------------------------ */

/* Limit this process, from here on. 0 or -errno. */
int yk_limits_apply(const yoke_limits *limits);

/* --- group.c: a control group with a limit of memory for a process ------------------------- */

#define YK_GROUP_PATH_BYTES 2048

/* Where groups can be made; a name of its own for each yk_groups_find. */
struct yk_groups {
    char base[YK_GROUP_PATH_BYTES];
    char name[40];
    const char *limit_file;
};

/* Look below root ("" for the real one) for a place, and remove what dead programs left there.
 * False: there is no cgroup v2, or we may not use it, or it does not limit memory. */
bool yk_groups_find(const char *root, struct yk_groups *groups);
/* Make group `id` and put the process into it. 0 or -errno, and then there is no such group. */
int yk_group_make(const struct yk_groups *groups, uint32_t id, size_t limit, int pid);
/* Remove it, if no process is left in it. */
void yk_group_remove(const struct yk_groups *groups, uint32_t id);

/* --- exec.c -------------------------------------------------------------------------------- */

struct yk_exec_setup {
    char *const *argv; /* ends with NULL; argv[0] is looked up in PATH unless it holds a '/' */
    char *const *env;  /* ends with NULL */
    const int *fds;    /* what it gets besides 0, 1 and 2; at the same numbers */
    size_t fd_count;
};
/* Start another program as a child of ours that dies with the calling thread, with SIGINT ignored
 * and other signals as at the start of a program. 0, or what clone or exec said. */
int yk_process_exec(const struct yk_exec_setup *setup, int *pidfd);
/* This program's environment, as exec hands it on. */
char *const *yk_environment(void);

/* --- image.c ------------------------------------------------------------------------------- */

/* The loaded modules' code, as of one moment. */
struct yk_code_range {
    uintptr_t start, end;
    uintptr_t base;    /* what was added to the addresses in its file */
    uint64_t identity; /* of the module that holds it */
};
/* Fill ranges[0..max); returns how many there are. The identity is that of the module as it is
 * loaded here. */
size_t yk_code_ranges(struct yk_code_range *ranges, size_t max);
/* The same; the identity is that of the file, the same in each program that loaded it; 0: nobody
 * knows. */
size_t yk_code_files(struct yk_code_range *ranges, size_t max);
/* The same, of the one module that holds this address. */
size_t yk_code_file_of(uintptr_t fn, struct yk_code_range *ranges, size_t max);

/* --- program.c: running other programs ------------------------------------------------------- */

struct yk_program {
    char *const *argv;
    char *const *environment; /* NULL: ours */
    const char *directory;    /* or NULL */
    int streams[3];           /* what becomes 0, 1 and 2; -1: it is closed */
    const int *keep_fds;
    size_t keep_fd_count;
    const yoke_limits *limits;
    int supervisor; /* from yk_supervisor_open; -1: none */
    bool leave;     /* what its end leaves running may go on */
};

struct yk_program_handle {
    int pid;     /* of the program */
    int pidfd;   /* of its supervisor, or of itself: our child */
    int control; /* the supervisor's ear, or -1 */
};

/* Start it in a group of its own; returns when it is executing, or why not (-errno). Flat: no page
 * of ours is copied. -ENOTSUP: the machine does not let us execute a supervisor. */
int yk_program_start(const struct yk_program *program, struct yk_program_handle *handle);

enum yk_whom { YK_WHOM_ONE = 1, YK_WHOM_GROUP, YK_WHOM_TREE, YK_WHOM_KILL };
/* Not once it was reaped. YK_WHOM_KILL: SIGKILL for all of it. 0, -ESRCH, -EAGAIN, -EPERM. */
int yk_program_signal(const struct yk_program_handle *handle, int signal, enum yk_whom whom);

struct yk_usage {
    bool known;
    int64_t user_ns, system_ns;
    size_t memory_peak_bytes;
    uint64_t faults_minor, faults_major, switches_voluntary, switches_forced;
};
/* How an ended program ended. Without a supervisor what is left of its group is killed, unless
 * leave. */
struct yk_exit_status yk_program_reap(const struct yk_program_handle *handle, bool leave,
                                      struct yk_usage *usage);
/* As yk_pidfd_reap. */
struct yk_exit_status yk_pidfd_reap_usage(int pidfd, struct yk_usage *usage);

/* Wait until one of them is readable; negative ones are not looked at. Fills ready[0..count).
 * 0, -ETIMEDOUT, -EINTR, -ENOMEM. */
int yk_poll_many(const int *fds, size_t count, int64_t until_ns, bool *ready);

/* --- stream.c: what programs read from and write to ------------------------------------------ */

enum yk_file_use { YK_FILE_READ, YK_FILE_WRITE, YK_FILE_APPEND };
int yk_file_open(const char *path, enum yk_file_use use, int *fd);
int yk_null_open(int *fd);
int yk_pipe_open(int *read_end, int *write_end);
/* A nameless file that holds these bytes, at its start; it cannot be changed. */
int yk_bytes_open(const void *bytes, size_t count, int *fd);
/* A nameless file in that folder, or in memory. */
int yk_spill_open(const char *folder, int *fd);
/* Its first bytes, and a zero byte after them. */
int yk_spill_map(int fd, size_t bytes, void **start);
int yk_fd_write_at(int fd, const void *bytes, size_t count, size_t offset);
int yk_fd_nonblocking(int fd);
/* Bytes, 0 at the end, or -errno. */
long yk_fd_read(int fd, void *to, size_t count);
/* Bytes that lie in a pipe. */
size_t yk_pipe_waiting(int fd);

struct yk_file_identity {
    uint64_t device, inode;
};
bool yk_fd_identify(int fd, struct yk_file_identity *identity);
/* The supervisor, as a file that can be executed. */
int yk_supervisor_open(struct yk_file_identity *identity, int *fd);
const unsigned char *yk_supervisor_bytes(size_t *count);

#endif
