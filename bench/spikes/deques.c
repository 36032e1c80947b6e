/* SPDX-License-Identifier: MIT
 * deques.c - what a spawn and its sync cost with each kind of deque, and what a steal costs.
 *
 * Idea: fib with one frame on the stack for each call, so that only push and pop differ: plain stores
 * (who steals is given, or pays for the fence), a fence in each pop (Chase and Lev; Cilk's THE), an
 * atomic exchange in each pop, a lock around both. Then a thief on one CPU and a victim that pushes and
 * pops on another: until a frame that was asked for is there, by each way. Plain Linux, without Yoke.
 * With -DINLINED the compiler may put some levels of fib into one, as it does for a user.
 *
 *   cc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -pthread -o deques bench/spikes/deques.c
 *   chrt -r 1 ./deques
 */
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { N = 27, CALLS = 317810, PASSES = 41, STEALS = 2001, SLOTS = 8192 };

struct frame {
    void (*run)(struct frame *frame);
    long result;
    int n;
};

/* The parts of one call are always in it. */
#define ALWAYS inline __attribute__((always_inline))

#ifdef INLINED
#define FORM static inline
#else
#define FORM __attribute__((noinline)) static
#endif

static struct {
    _Alignas(64) struct frame *_Atomic *_Atomic split;
    struct frame *_Atomic *_Atomic limit;
    _Alignas(64) atomic_long head;
    _Alignas(64) atomic_long tail;
    _Alignas(64) pthread_mutex_t lock;
    atomic_flag spin;
    _Alignas(64) struct frame *_Atomic mail;
    _Alignas(64) struct frame *_Atomic slots[SLOTS];
} deque = {.lock = PTHREAD_MUTEX_INITIALIZER, .spin = ATOMIC_FLAG_INIT};

static struct frame waiting; /* in the mailbox: somebody wants a frame */

static void run(struct frame *frame)
{
    frame->result = frame->n;
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static ALWAYS void set(struct frame *frame, int n)
{
    frame->run = run;
    frame->n = n;
}

/* Who finds this true would do what is rare; here nobody makes it true but a thief. */
__attribute__((noinline, cold)) static void rare(void)
{
    struct frame *open = &waiting;
    atomic_store(&deque.limit, deque.slots + SLOTS);
    atomic_compare_exchange_strong(&deque.mail, &open, atomic_load(&deque.slots[0]));
}

/* --- the five kinds ------------------------------------------------------------------------- */

FORM long fib_calls(struct frame *_Atomic *top, int n)
{
    struct frame left;
    if (n < 2) {
        return n;
    }
    set(&left, n - 1);
    __asm__ volatile("" : : "r"(&left) : "memory");
    const long right = fib_calls(top, n - 2);
    return fib_calls(top, left.n) + right;
}

static ALWAYS void plain_push(struct frame *_Atomic *top, struct frame *frame)
{
    atomic_store_explicit(top, frame, memory_order_release);
    if (__builtin_expect(top + 1 > atomic_load_explicit(&deque.limit, memory_order_relaxed), 0)) {
        rare();
    }
}

static ALWAYS int plain_pop(struct frame *_Atomic *top)
{
    atomic_store_explicit(top, NULL, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    return __builtin_expect(atomic_load_explicit(&deque.split, memory_order_relaxed) <= top, 1);
}

FORM long fib_plain(struct frame *_Atomic *top, int n)
{
    struct frame left;
    if (n < 2) {
        return n;
    }
    set(&left, n - 1);
    plain_push(top, &left);
    const long right = fib_plain(top + 1, n - 2);
    return (plain_pop(top) ? fib_plain(top, left.n) : left.result) + right;
}

static ALWAYS void indexed_push(struct frame *frame)
{
    const long tail = atomic_load_explicit(&deque.tail, memory_order_relaxed);
    atomic_store_explicit(&deque.slots[tail], frame, memory_order_relaxed);
    atomic_store_explicit(&deque.tail, tail + 1, memory_order_release);
}

static ALWAYS int fenced_pop(void)
{
    const long tail = atomic_load_explicit(&deque.tail, memory_order_relaxed) - 1;
    atomic_store_explicit(&deque.tail, tail, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    return __builtin_expect(atomic_load_explicit(&deque.head, memory_order_relaxed) <= tail, 1);
}

static ALWAYS int exchanged_pop(void)
{
    const long tail = atomic_fetch_sub(&deque.tail, 1) - 1;
    return __builtin_expect(atomic_load_explicit(&deque.head, memory_order_relaxed) <= tail, 1);
}

static ALWAYS int locked_pop(void)
{
    pthread_mutex_lock(&deque.lock);
    const long tail = atomic_load_explicit(&deque.tail, memory_order_relaxed) - 1;
    atomic_store_explicit(&deque.tail, tail, memory_order_relaxed);
    const int mine = atomic_load_explicit(&deque.head, memory_order_relaxed) <= tail;
    pthread_mutex_unlock(&deque.lock);
    return mine;
}

static ALWAYS void locked_push(struct frame *frame)
{
    pthread_mutex_lock(&deque.lock);
    indexed_push(frame);
    pthread_mutex_unlock(&deque.lock);
}

static ALWAYS void spin_lock(void)
{
    while (atomic_flag_test_and_set_explicit(&deque.spin, memory_order_acquire)) {
    }
}

static ALWAYS void spin_unlock(void)
{
    atomic_flag_clear_explicit(&deque.spin, memory_order_release);
}

static ALWAYS void spun_push(struct frame *frame)
{
    spin_lock();
    indexed_push(frame);
    spin_unlock();
}

static ALWAYS int spun_pop(void)
{
    spin_lock();
    const long tail = atomic_load_explicit(&deque.tail, memory_order_relaxed) - 1;
    atomic_store_explicit(&deque.tail, tail, memory_order_relaxed);
    const int mine = atomic_load_explicit(&deque.head, memory_order_relaxed) <= tail;
    spin_unlock();
    return mine;
}

#define FIB(NAME, PUSH, POP) \
    FORM long NAME(struct frame *_Atomic *top, int n) \
    { \
        struct frame left; \
        if (n < 2) { \
            return n; \
        } \
        set(&left, n - 1); \
        PUSH(&left); \
        const long right = NAME(top, n - 2); \
        return (POP() ? NAME(top, left.n) : left.result) + right; \
    }

FIB(fib_fenced, indexed_push, fenced_pop)
FIB(fib_exchanged, indexed_push, exchanged_pop)
FIB(fib_locked, locked_push, locked_pop)
FIB(fib_spun, spun_push, spun_pop)

static void spawns(const char *what, long (*fib)(struct frame *_Atomic *top, int n))
{
    static volatile int n = N;
    double took[PASSES];
    for (int i = 0; i < PASSES; i++) {
        const double from = now_ns();
        if (fib(deque.slots, n) != 196418) {
            abort();
        }
        took[i] = (now_ns() - from) / CALLS;
    }
    qsort(took, PASSES, sizeof *took, compare);
    printf("%-52s %8.2f %8.2f\n", what, took[PASSES / 2], took[0]);
}

/* --- steals --------------------------------------------------------------------------------- */

static void bind_to(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
        perror("sched_setaffinity");
    }
}

static atomic_int
    victim_does; /* 0: it ends; 1: pushes and pops; 2: the same, with fences; 3: sleeps */
static atomic_int victim_is_on;

static void *victim(void *arg)
{
    struct frame oldest, frame;
    bind_to(1);
    set(&oldest, 1);
    set(&frame, 1);
    atomic_store(&deque.slots[0], &oldest);
    while (atomic_load_explicit(&victim_does, memory_order_relaxed) != 0) {
        const int does = atomic_load_explicit(&victim_does, memory_order_relaxed);
        atomic_store_explicit(&victim_is_on, does, memory_order_relaxed);
        if (does == 1) {
            plain_push(deque.slots + 1, &frame);
            plain_pop(deque.slots + 1);
        } else if (does == 2) {
            indexed_push(&frame);
            fenced_pop();
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    return arg;
}

static void asked(void)
{
    atomic_store(&deque.mail, &waiting);
    atomic_store(&deque.limit, NULL);
    while (atomic_load_explicit(&deque.mail, memory_order_acquire) == &waiting) {
    }
}

static void fence_there(void)
{
    atomic_store_explicit(&deque.split, deque.slots + 1, memory_order_release);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0 ||
        !atomic_load_explicit(&deque.slots[0], memory_order_acquire)) {
        abort();
    }
    atomic_store_explicit(&deque.split, deque.slots, memory_order_release);
}

/* head and tail are put so that there is always one to take; it is put back at once. */
static void exchanged(void)
{
    long head = atomic_load_explicit(&deque.head, memory_order_acquire);
    atomic_thread_fence(memory_order_seq_cst);
    if (head >= atomic_load_explicit(&deque.tail, memory_order_acquire) ||
        !atomic_compare_exchange_strong(&deque.head, &head, head + 1)) {
        abort();
    }
    atomic_store_explicit(&deque.head, head, memory_order_release);
}

static void steals(const char *what, void (*steal)(void), int does)
{
    static double took[STEALS];
    atomic_store(&victim_does, does);
    while (atomic_load(&victim_is_on) != does) {
    }
    for (int i = 0; i < STEALS; i++) {
        const double until = now_ns() + 2000; /* the victim has its lines back */
        while (now_ns() < until) {
        }
        const double from = now_ns();
        steal();
        took[i] = now_ns() - from;
    }
    qsort(took, STEALS, sizeof *took, compare);
    printf("%-52s %8.0f %8.0f\n", what, took[STEALS / 2], took[STEALS / 10]);
}

int main(void)
{
    pthread_t thread;
    atomic_store(&deque.split, deque.slots);
    atomic_store(&deque.limit, deque.slots + SLOTS);
    printf("%-52s %8s %8s\n", "ns for a spawn and its sync, one thread", "median", "best");
    spawns("calls only, with the frame on the stack", fib_calls);
    spawns("plain stores, two loads (ours)", fib_plain);
    spawns("a fence in each pop (Chase-Lev, THE)", fib_fenced);
    spawns("an atomic subtraction in each pop", fib_exchanged);
    spawns("a spin lock around push and pop", fib_spun);
    spawns("a mutex around push and pop", fib_locked);
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2 ||
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
        printf("no steals: they need two CPUs and membarrier\n");
        return 0;
    }
    bind_to(0);
    atomic_store(&deque.tail, 4);
    atomic_store(&victim_does, 1);
    if (pthread_create(&thread, NULL, victim, NULL) != 0) {
        return 1;
    }
    printf("%-52s %8s %8s\n", "ns until a thief has a frame", "median", "10 %");
    steals("asked for, and given at the next spawn (ours)", asked, 1);
    steals("membarrier, the victim runs", fence_there, 1);
    steals("membarrier, the victim sleeps", fence_there, 3);
    steals("compare and swap on the victim's head", exchanged, 2);
    atomic_store(&victim_does, 0);
    pthread_join(thread, NULL);
    return 0;
}
