/* SPDX-License-Identifier: MIT
 * base.h - what every room may lean on: assertions, checked arithmetic, lock annotations.
 *
 * Room: base. The only room where compiler extensions are allowed.
 */
#ifndef YK_BASE_H
#define YK_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <yoke/base.h>

#define YK_CACHE_LINE 64
#define YK_LIKELY(x) __builtin_expect(!!(x), 1)
#define YK_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define YK_NORETURN __attribute__((noreturn))
#define YK_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Lock annotations, checked by clang -Wthread-safety. */
#if defined(__clang__)
#define YK_ANNOTATE(x) __attribute__((x))
#else
#define YK_ANNOTATE(x)
#endif
#define YK_CAPABILITY YK_ANNOTATE(capability("mutex"))
#define YK_REQUIRES(lock) YK_ANNOTATE(requires_capability(lock))
#define YK_ACQUIRES(lock) YK_ANNOTATE(acquire_capability(lock))
#define YK_RELEASES(lock) YK_ANNOTATE(release_capability(lock))
#define YK_NO_LOCK_ANALYSIS YK_ANNOTATE(no_thread_safety_analysis)

/* YK_ASSERT: what our own code promises; debug builds only. YK_CHECK: a broken invariant that
 * would corrupt data if we went on. Neither is for mistakes of users. */
#define YK_CHECK(x) (YK_LIKELY(x) ? (void)0 : __builtin_trap())
#if defined(YK_DEBUG)
#define YK_ASSERT(x) YK_CHECK(x)
#else
#define YK_ASSERT(x) ((void)sizeof(x))
#endif

/* This cache line will be read soon. */
static inline void yk_prefetch(const void *at)
{
    __builtin_prefetch(at);
}

/* This cache line will be written soon: take it from whoever has it. */
static inline void yk_prefetch_to_write(const void *at)
{
#if defined(__x86_64__)
    /* gcc emits this instruction only for newer CPUs; to older ones it is a no-op. */
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)at));
#else
    __builtin_prefetch(at, 1);
#endif
}

static inline bool yk_mul_overflows(size_t a, size_t b, size_t *product)
{
    return __builtin_mul_overflow(a, b, product);
}

static inline size_t yk_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t yk_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* multiple must be a power of two. */
static inline size_t yk_round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) & ~(multiple - 1);
}

/* The next item of an array; an array of no bytes stays where it is, also at NULL. */
static inline const unsigned char *yk_next_item(const unsigned char *item, size_t bytes)
{
    return bytes != 0 ? item + bytes : item;
}

static inline unsigned char *yk_next_room(unsigned char *item, size_t bytes)
{
    return bytes != 0 ? item + bytes : item;
}

static inline unsigned yk_lowest_bit(uint64_t nonzero)
{
    return (unsigned)__builtin_ctzll(nonzero);
}

static inline unsigned yk_highest_bit(uint64_t nonzero)
{
    return 63U - (unsigned)__builtin_clzll(nonzero);
}

static inline unsigned yk_count_bits(uint64_t word)
{
    return (unsigned)__builtin_popcountll(word);
}

/* Read a settings struct of a caller who may know more or fewer fields than we do: what he does
 * not know becomes 0, what we do not know must be 0. The size field comes first.
 * Returns 0, -EINVAL (size 0 or absurd) or YOKE_EVERSION. A NULL from gives all zeros. */
int yk_settings_read(void *to, size_t to_bytes, const void *from);

#endif
