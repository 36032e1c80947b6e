/* SPDX-License-Identifier: MIT
 * fork.h - fork-join inside thread pools: spawn a call, do something else, sync.
 *
 * A spawned call is a note on the spawner's own stack. It costs a few plain instructions: no lock,
 * no atomic read-modify-write, no fence, no allocation. If another worker has nothing to do it takes
 * the oldest note; else sync finds it untouched and the caller runs it itself, as an ordinary
 * call that the compiler can inline. A waiting sync helps with what its own call has spawned, and
 * with nothing else.
 *
 *     YOKE_FORK_1(long, fib, int, n)
 *     {
 *         struct fib_call left;
 *         if (n < 2)
 *             return n;
 *         fib_spawn(&strand, &left, n - 1);
 *         const long right = fib(strand, n - 2);
 *         return fib_sync(&strand, &left) + right;
 *     }
 *
 * Rules: each spawn is followed by its sync in the same function, the last spawned first (as
 * brackets nest); a frame lives until its sync; do not leave with longjmp. There is no limit on
 * depth but the stack's: where 8,192 spawns of one worker are open, further ones run at once.
 */
#ifndef YOKE_FORK_H
#define YOKE_FORK_H

#include <yoke/base.h>
#include <yoke/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define YOKE_COLD __attribute__((cold))

typedef struct yoke_frame yoke_frame;
typedef struct yoke_deque yoke_deque;

/** Where a thread stands in its spawns: passed by value from each forked function to those it
 *  calls; lives in two registers. Valid in the function that got it, on that thread. */
typedef struct yoke_strand {
    yoke_deque *deque;
    yoke_frame **top;
} yoke_strand;

/** Runs a frame that another worker took. */
typedef void yoke_frame_fn(yoke_strand strand, yoke_frame *frame);

/** A spawned call: first member of a struct with its arguments and result. Not to be touched. */
struct yoke_frame {
    yoke_frame_fn *run;
    void *taker;
    void *scope;
    unsigned state;
};

/** One worker's part that spawn and sync look at. Not to be touched. */
struct yoke_deque {
    yoke_frame **split; /* what lies below was taken */
    yoke_frame **limit; /* a spawn beyond it has more to do: somebody is hungry, or all is full */
};

/* What spawn and sync do in the rare cases; not to be called. Both give the new top; the second
 * with its lowest bit set if the frame has run. */
YOKE_API YOKE_COLD yoke_frame **yoke_fork_called(yoke_deque *deque, yoke_frame **top,
                                                 yoke_frame *frame);
YOKE_API YOKE_COLD char *yoke_fork_taken(yoke_deque *deque, yoke_frame **slot, yoke_frame *frame);

/* What a forked function holds inline. gcc then sees that a strand is two registers, and puts the
 * first test of a function, and some levels of its recursion, into its caller (fib: 1.4 ns in place
 * of 2.8). */
#if defined(__GNUC__)
#define YOKE_FORK_INLINE static inline __attribute__((always_inline, unused))
#else
#define YOKE_FORK_INLINE static inline
#endif

/* On x86-64 they are reached by way of a few instructions that keep the registers: as an ordinary
 * call, which never happens, each would cost every forked function saving its registers at its very
 * beginning, also where it returns at once (fib: 4.0 ns in place of 3.0). */
#if defined(__x86_64__) && defined(__SSE2__)
YOKE_API void yoke_fork_called_kept(void); /* not as C calls it */
YOKE_API void yoke_fork_taken_kept(void);
#if defined(__AVX512F__)
#define YOKE_FORK_WIDE \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", \
        "k7"
#else
#define YOKE_FORK_WIDE
#endif
#define YOKE_FORK_SLOW(name, R) \
    YOKE_FORK_INLINE R name##_slow(yoke_deque *deque, yoke_frame **top, yoke_frame *frame) \
    { \
        R answer; \
        __asm__ volatile("lea -128(%%rsp), %%rsp\n\t" /* what a leaf function keeps there */ \
                         "call " #name "_kept@PLT\n\t" \
                         "lea 128(%%rsp), %%rsp" \
                         : "=a"(answer), "+D"(deque), "+S"(top), "+d"(frame) \
                         : \
                         : "memory", "cc", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", \
                           "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
                           "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)", \
                           "st(5)", "st(6)", "st(7)" YOKE_FORK_WIDE); \
        return answer; \
    }
#else
#define YOKE_FORK_SLOW(name, R) \
    YOKE_FORK_INLINE R name##_slow(yoke_deque *deque, yoke_frame **top, yoke_frame *frame) \
    { \
        return name(deque, top, frame); \
    }
#endif
YOKE_FORK_SLOW(yoke_fork_called, yoke_frame **)
YOKE_FORK_SLOW(yoke_fork_taken, char *)

/* The argument for the orders below is in docs/fork-join.md. */

/** Offer a frame to others. \param run what they run; its own caller calls the function itself.
 *
 *  Blocks: no; wakes another worker if one waits for that. */
YOKE_FORK_INLINE void yoke_frame_push(yoke_strand *strand, yoke_frame *frame, yoke_frame_fn *run)
{
    frame->run = run;
    __atomic_store_n(strand->top, frame, __ATOMIC_RELEASE); /* who takes it sees all of it */
    strand->top++;
    if (__builtin_expect(strand->top > __atomic_load_n(&strand->deque->limit, __ATOMIC_RELAXED), 0))
        strand->top = yoke_fork_called_slow(strand->deque, strand->top, frame);
}

/** Take the newest frame back.
 *
 *  \return 1: nobody began it, run it yourself; 0: it has run to its end.
 *
 *  Blocks: until it has ended; helps with what it spawned meanwhile. */
YOKE_FORK_INLINE int yoke_frame_pop(yoke_strand *strand, yoke_frame *frame)
{
    yoke_frame **const slot = strand->top - 1;
    __atomic_store_n(slot, (yoke_frame *)0, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the rest of the fence is the taker's */
    strand->top = slot;
    if (__builtin_expect(__atomic_load_n(&strand->deque->split, __ATOMIC_RELAXED) > slot, 0)) {
        char *const now = yoke_fork_taken_slow(strand->deque, slot, frame);
        const size_t ran = (uintptr_t)now & 1;
        strand->top = (yoke_frame **)(void *)(now - ran);
        return ran == 0;
    }
    return 1;
}

/* --- plain: a function and a pointer -------------------------------------------------------- */

typedef void yoke_fork_fn(yoke_strand strand, void *arg);

/** A spawned plain call. */
typedef struct yoke_call {
    yoke_frame frame;
    yoke_fork_fn *fn;
    void *arg;
} yoke_call;

YOKE_API void yoke_call_run(yoke_strand strand, yoke_frame *frame);

/** fn(strand, arg) may run elsewhere from now on, until yoke_sync. */
static inline void yoke_spawn(yoke_strand *strand, yoke_call *call, yoke_fork_fn *fn, void *arg)
{
    call->fn = fn;
    call->arg = arg;
    yoke_frame_push(strand, &call->frame, yoke_call_run);
}

/** It has run when this returns. */
static inline void yoke_sync(yoke_strand *strand, yoke_call *call)
{
    if (yoke_frame_pop(strand, &call->frame))
        call->fn(*strand, call->arg);
}

/* --- many children, one frame --------------------------------------------------------------- */

typedef void yoke_each_fn(yoke_strand strand, size_t index, void *arg);

/** The children that are left of a yoke_each. */
typedef struct yoke_each_rest {
    yoke_frame frame;
    yoke_each_fn *fn;
    void *arg;
    size_t next, end;
} yoke_each_rest;

YOKE_API void yoke_each_run(yoke_strand strand, yoke_frame *frame);

/** fn(strand, i, arg) for i from begin to end - 1, in any order and on any worker; all have run
 *  when it returns. One frame serves them all: cheaper than a spawn each. */
static inline void yoke_each(yoke_strand strand, size_t begin, size_t end, yoke_each_fn *fn,
                             void *arg)
{
    yoke_each_rest rest;
    if (begin >= end)
        return;
    rest.fn = fn;
    rest.arg = arg;
    rest.end = end;
    for (size_t i = begin; i + 1 < end; i++) {
        rest.next = i + 1;
        yoke_frame_push(&strand, &rest.frame, yoke_each_run);
        fn(strand, i, arg);
        if (!yoke_frame_pop(&strand, &rest.frame))
            return;
    }
    fn(strand, end - 1, arg);
}

/* --- typed: YOKE_FORK_n(result, name, type, argument, ...) begins the definition of
 *     `static result name(yoke_strand strand, type argument, ...)`, and makes struct name_call,
 *     name_spawn(&strand, &call, arguments) and name_sync(&strand, &call) --------------------- */

/* The function that is really called, name_flat, takes the two parts of a strand by themselves: gcc
 * does not split or inline a function that calls itself with a struct. */
#define YOKE_FORK_MAKE(R, name, FIELDS, PARAMS, GIVE, FLAT, BODY, SET, TAKE) \
    struct name##_call { \
        yoke_frame frame; \
        R result; \
        FIELDS \
    }; \
    YOKE_FORK_INLINE R name##_body PARAMS; \
    static inline R name##_flat FLAT \
    { \
        const yoke_strand strand_ = {deque_, top_}; \
        return name##_body BODY; \
    } \
    YOKE_FORK_INLINE R name PARAMS \
    { \
        return name##_flat GIVE; \
    } \
    static void name##_run(yoke_strand strand, yoke_frame *frame_) \
    { \
        struct name##_call *const call_ = (struct name##_call *)(void *)frame_; \
        call_->result = name##_flat TAKE; \
    } \
    YOKE_FORK_INLINE R name##_sync(yoke_strand *strand_, struct name##_call *call_) \
    { \
        if (yoke_frame_pop(strand_, &call_->frame)) { \
            const yoke_strand strand = *strand_; \
            return name##_flat TAKE; \
        } \
        return call_->result; \
    } \
    YOKE_FORK_INLINE void name##_spawn SET YOKE_FORK_INLINE R name##_body PARAMS

#define YOKE_FORK_PUSH(name) yoke_frame_push(strand_, &call_->frame, name##_run)

#define YOKE_FORK_1(R, name, T1, a1) \
    YOKE_FORK_MAKE( \
        R, name, T1 a1;, (yoke_strand strand, T1 a1), (strand.deque, strand.top, a1), \
                       (yoke_deque * deque_, yoke_frame * *top_, T1 a1), (strand_, a1), \
                       (yoke_strand * strand_, struct name##_call * call_, T1 a1) { \
                           call_->a1 = a1; \
                           YOKE_FORK_PUSH(name); \
                       }, \
                       (strand.deque, strand.top, call_->a1))

#define YOKE_FORK_2(R, name, T1, a1, T2, a2) \
    YOKE_FORK_MAKE( \
        R, name, T1 a1; T2 a2; \
        , (yoke_strand strand, T1 a1, T2 a2), (strand.deque, strand.top, a1, a2), \
        (yoke_deque * deque_, yoke_frame * *top_, T1 a1, T2 a2), (strand_, a1, a2), \
        (yoke_strand * strand_, struct name##_call * call_, T1 a1, T2 a2) { \
            call_->a1 = a1; \
            call_->a2 = a2; \
            YOKE_FORK_PUSH(name); \
        }, \
        (strand.deque, strand.top, call_->a1, call_->a2))

#define YOKE_FORK_3(R, name, T1, a1, T2, a2, T3, a3) \
    YOKE_FORK_MAKE( \
        R, name, T1 a1; T2 a2; T3 a3; \
        , (yoke_strand strand, T1 a1, T2 a2, T3 a3), (strand.deque, strand.top, a1, a2, a3), \
        (yoke_deque * deque_, yoke_frame * *top_, T1 a1, T2 a2, T3 a3), (strand_, a1, a2, a3), \
        (yoke_strand * strand_, struct name##_call * call_, T1 a1, T2 a2, T3 a3) { \
            call_->a1 = a1; \
            call_->a2 = a2; \
            call_->a3 = a3; \
            YOKE_FORK_PUSH(name); \
        }, \
        (strand.deque, strand.top, call_->a1, call_->a2, call_->a3))

#define YOKE_FORK_4(R, name, T1, a1, T2, a2, T3, a3, T4, a4) \
    YOKE_FORK_MAKE( \
        R, name, T1 a1; T2 a2; T3 a3; T4 a4; \
        , (yoke_strand strand, T1 a1, T2 a2, T3 a3, T4 a4), \
        (strand.deque, strand.top, a1, a2, a3, a4), \
        (yoke_deque * deque_, yoke_frame * *top_, T1 a1, T2 a2, T3 a3, T4 a4), \
        (strand_, a1, a2, a3, a4), \
        (yoke_strand * strand_, struct name##_call * call_, T1 a1, T2 a2, T3 a3, T4 a4) { \
            call_->a1 = a1; \
            call_->a2 = a2; \
            call_->a3 = a3; \
            call_->a4 = a4; \
            YOKE_FORK_PUSH(name); \
        }, \
        (strand.deque, strand.top, call_->a1, call_->a2, call_->a3, call_->a4))

/* --- where it begins ------------------------------------------------------------------------ */

/** Run fn(strand, arg) here; what it spawns may run on the pool's workers. The caller takes part
 *  itself, in place of one worker: no thread is switched to run the first function.
 *
 *  On serial and process pools, and inside a process worker, it all runs in the caller.
 *
 *  \param options  NULL for all defaults. Of options, only cancel counts.
 *  \return 0; -EINVAL, YOKE_EVERSION, -ECHILD, -ENOMEM, YOKE_ECLOSED (fn did not run); -ECANCELED
 *          (options.cancel was set, before or meanwhile: fn has returned, if it ran).
 *
 *  Ownership:  arg stays the caller's.
 *  Threads:    any, several at once, also from inside a task or a forked function (of any pool).
 *              When more than 64 threads that are no workers of the pool are in it at once, the
 *              others get no help.   Blocks: until fn and all it spawned have returned.
 *  After fork: as yoke_pool_create.
 */
YOKE_API YOKE_MUST_CHECK int yoke_run(yoke_pool *pool, yoke_fork_fn *fn, void *arg,
                                      const yoke_options *options);

/** 1 once the run this belongs to was cancelled, else 0. Spawned calls still run: long ones ask,
 *  and return early. Costs two loads. */
YOKE_API int yoke_strand_cancelled(yoke_strand strand);

/** The number of the worker, as yoke_task_worker. */
YOKE_API unsigned yoke_strand_worker(yoke_strand strand);

#ifdef __cplusplus
}
#endif

#endif
