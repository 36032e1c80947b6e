/* SPDX-License-Identifier: MIT
 * sort.h - a stable parallel sort: of elements of any size, or inlined for one type.
 *
 *     YOKE_SORT(sort_ints, int, *a < *b)
 *     ...
 *     rc = sort_ints(pool, numbers, count, NULL);
 *
 * A merge sort: n log n comparisons at most, and about n where the data is sorted or reversed.
 * Merges are cut in pieces, so that the last one runs on all workers too. Equal elements stay in
 * order. It needs a buffer as large as the array. A comparison that contradicts itself (a NaN, say)
 * gives some order of the same elements.
 */
#ifndef YOKE_SORT_H
#define YOKE_SORT_H

#include <yoke/fork.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Below 0: a belongs before b; above 0: after it; 0: they are equal. Runs on any worker, several
 *  at once; no lock is held. The elements must not be changed. */
typedef int yoke_compare_fn(const void *a, const void *b, void *user);

/** Sort count elements in place; equal ones stay in order.
 *
 *  On serial and process pools, and inside a process worker, it all runs in the caller.
 *
 *  \param base     the elements, count times bytes, one behind the other; may be NULL when count is 0.
 *  \param count    0 and up.
 *  \param bytes    the size of one, 1 and up. What compare gets is aligned as in the array (to 64
 *                  at most).
 *  \param user     for compare.
 *  \param options  NULL for all defaults. Of options, only cancel counts.
 *  \return 0; -EINVAL (a NULL, or bytes is 0, or the size overflows), YOKE_EVERSION, -ECHILD,
 *          -ENOMEM (no room for the buffer of count times bytes), YOKE_ECLOSED: the array is
 *          untouched. -ECANCELED (options.cancel was set, before or meanwhile): the array holds the
 *          same elements in some order.
 *
 *  Ownership:  base and user stay the caller's; nobody else may use the elements meanwhile.
 *  Threads:    any, several at once, also from inside a task or a forked function.
 *              Blocks: until it is sorted.
 *  After fork: as yoke_run.
 */
YOKE_API YOKE_MUST_CHECK int yoke_sort(yoke_pool *pool, void *base, size_t count, size_t bytes,
                                       yoke_compare_fn *compare, void *user,
                                       const yoke_options *options);

/** YOKE_SORT(name, type, less) defines
 *
 *      static int name(yoke_pool *pool, type *base, size_t count, const yoke_options *options)
 *
 *  less is an expression of `const type *a, *b`: not 0 if *a belongs before *b. It should be without
 *  branches where it can: then the sort has none to guess wrong. type is copied byte by byte (in
 *  C++: trivially copyable), and aligned to at most 64. All else is as yoke_sort.
 */
#define YOKE_SORT(name, type, less) \
    typedef type name##_element; \
    static inline int name##_less(const yoke_sort_kind *kind_, const void *a_, const void *b_) \
    { \
        const name##_element *const a = (const name##_element *)a_; \
        const name##_element *const b = (const name##_element *)b_; \
        (void)kind_; \
        return (less) ? 1 : 0; \
    } \
    YOKE_SORT_MAKE(name, sizeof(name##_element), name##_less) \
    static inline YOKE_MUST_CHECK int name(yoke_pool *pool, name##_element *base, size_t count, \
                                           const yoke_options *options) \
    { \
        static const yoke_sort_kind kind = {sizeof(name##_element), name##_leaf, name##_merge, \
                                            name##_split,           0,           0}; \
        return yoke_sort_kind_run(pool, base, count, &kind, options); \
    }

/* --- what YOKE_SORT is made of; nothing below is to be used directly ------------------------- */

#define YOKE_SORT_LEAF 4096 /* elements that one call sorts: 64 and up, a power of 2 */

enum { YOKE_SORT_IN_OTHER = 1, YOKE_SORT_REVERSED = 2 };

typedef struct yoke_sort_kind yoke_sort_kind;

/* Not 0 if a belongs before b. */
typedef int yoke_sort_less_fn(const yoke_sort_kind *kind, const void *a, const void *b);

/** The parts of a sort that are made anew for each type. */
struct yoke_sort_kind {
    size_t bytes;
    /* Sort count elements, at most YOKE_SORT_LEAF, with room for as many in other. Leaves them in
     * data if they are in order or reversed there, else in other if into_other, else in data.
     * \return YOKE_SORT_IN_OTHER, YOKE_SORT_REVERSED or 0. */
    int (*leaf)(const yoke_sort_kind *kind, unsigned char *data, unsigned char *other, size_t count,
                int into_other);
    /* Merge what lies from a on and from b on, both sorted, into out; a first where equal. */
    void (*merge)(const yoke_sort_kind *kind, const unsigned char *a, size_t a_count,
                  const unsigned char *b, size_t b_count, unsigned char *out);
    /* How many of the first `rank` elements of that merge are of a. */
    size_t (*split)(const yoke_sort_kind *kind, const unsigned char *a, size_t a_count,
                    const unsigned char *b, size_t b_count, size_t rank);
    yoke_compare_fn *compare; /* yoke_sort */
    void *user;
};

YOKE_API YOKE_MUST_CHECK int yoke_sort_kind_run(yoke_pool *pool, void *base, size_t count,
                                                const yoke_sort_kind *kind,
                                                const yoke_options *options);

/* All these are inlined where bytes and less are constants. */
#define YOKE_SORT_INLINE static inline __attribute__((always_inline))
/* The compiler shall not make a branch of it: it does not see where it comes from, and that it is as
 * often 0 as 1. */
#define YOKE_SORT_OPAQUE(x) __asm__("" : "+r"(x))
#define YOKE_SORT_EVEN(x) __builtin_expect_with_probability((long)(x), 1, 0.5)
#define YOKE_SORT_OF const yoke_sort_kind *kind, size_t bytes, yoke_sort_less_fn *less

/** A merge under way: heads are read from the front, ends (one behind the last) from the back. */
struct yoke_sort_span {
    const unsigned char *a, *a_end, *b, *b_end;
    unsigned char *out, *out_end;
};

/* Copy one of two elements without a branch: it would be guessed wrong half of the time. */
YOKE_SORT_INLINE void yoke_sort_pick(size_t bytes, int second, const unsigned char *one,
                                     const unsigned char *two, unsigned char *out)
{
    if (bytes == 8) {
        uint64_t x, y;
        __builtin_memcpy(&x, one, 8);
        __builtin_memcpy(&y, two, 8);
        x = YOKE_SORT_EVEN(second) ? y : x;
        __builtin_memcpy(out, &x, 8);
    } else if (bytes == 4) {
        uint32_t x, y;
        __builtin_memcpy(&x, one, 4);
        __builtin_memcpy(&y, two, 4);
        x = YOKE_SORT_EVEN(second) ? y : x;
        __builtin_memcpy(out, &x, 4);
    } else {
        __builtin_memcpy(out, YOKE_SORT_EVEN(second) ? two : one, bytes);
    }
}

/* The next element from the front, to out. \return its bytes if it is of b, else 0. */
YOKE_SORT_INLINE size_t yoke_sort_first(YOKE_SORT_OF, const struct yoke_sort_span *s,
                                        unsigned char *out)
{
    size_t of_b = (size_t)less(kind, s->b, s->a);
    YOKE_SORT_OPAQUE(of_b);
    yoke_sort_pick(bytes, (int)of_b, s->a, s->b, out);
    return of_b * bytes;
}

/* The next one from the back. \return its bytes if it is of a, else 0. */
YOKE_SORT_INLINE size_t yoke_sort_last(YOKE_SORT_OF, const struct yoke_sort_span *s,
                                       unsigned char *out)
{
    const unsigned char *const a = s->a_end - bytes;
    const unsigned char *const b = s->b_end - bytes;
    size_t of_a = (size_t)less(kind, b, a);
    YOKE_SORT_OPAQUE(of_a);
    yoke_sort_pick(bytes, (int)of_a, b, a, out);
    return of_a * bytes;
}

YOKE_SORT_INLINE void yoke_sort_forth(size_t bytes, struct yoke_sort_span *s, size_t of_b)
{
    s->b += of_b;
    s->a += bytes - of_b;
}

YOKE_SORT_INLINE void yoke_sort_back(size_t bytes, struct yoke_sort_span *s, size_t of_a)
{
    s->a_end -= of_a;
    s->b_end -= bytes - of_a;
}

/* The rest of a merge: as many steps as are safe from both ends, then one by one. */
YOKE_SORT_INLINE void yoke_sort_finish(YOKE_SORT_OF, struct yoke_sort_span *s)
{
    while (s->a < s->a_end && s->b < s->b_end) {
        yoke_sort_forth(bytes, s, yoke_sort_first(kind, bytes, less, s, s->out));
        s->out += bytes;
    }
    if (s->a < s->a_end)
        __builtin_memcpy(s->out, s->a, (size_t)(s->a_end - s->a));
    else if (s->b < s->b_end)
        __builtin_memcpy(s->out, s->b, (size_t)(s->b_end - s->b));
}

/* Two merges at once, from both ends each: four chains of loads that do not wait for each other.
 * Neither side of a merge may have fewer than `steps`. */
YOKE_SORT_INLINE void yoke_sort_steps(YOKE_SORT_OF, struct yoke_sort_span *x,
                                      struct yoke_sort_span *y, size_t steps)
{
    struct yoke_sort_span s = *x, t = *y;
    unsigned char *up = t.out, *down = s.out_end;
    ptrdiff_t low = s.out - up, high = t.out_end - down;
    unsigned char *const end = up + steps * bytes;
    YOKE_SORT_OPAQUE(low); /* or it makes two more pointers of them */
    YOKE_SORT_OPAQUE(high);
    while (up != end) {
        down -= bytes;
        const size_t of_b = yoke_sort_first(kind, bytes, less, &s, up + low);
        const size_t of_a = yoke_sort_last(kind, bytes, less, &s, down);
        const size_t of_d = yoke_sort_first(kind, bytes, less, &t, up);
        const size_t of_c = yoke_sort_last(kind, bytes, less, &t, down + high);
        yoke_sort_forth(bytes, &s, of_b);
        yoke_sort_back(bytes, &s, of_a);
        yoke_sort_forth(bytes, &t, of_d);
        yoke_sort_back(bytes, &t, of_c);
        up += bytes;
    }
    s.out = up + low;
    s.out_end = down;
    t.out = up;
    t.out_end = down + high;
    *x = s;
    *y = t;
}

YOKE_SORT_INLINE size_t yoke_sort_shorter(size_t bytes, const struct yoke_sort_span *s)
{
    const size_t a = (size_t)(s->a_end - s->a) / bytes, b = (size_t)(s->b_end - s->b) / bytes;
    return a < b ? a : b;
}

/* Front and back have met as they should: a comparison that contradicts itself makes them pass. */
YOKE_SORT_INLINE int yoke_sort_met(const struct yoke_sort_span *s)
{
    return s->a <= s->a_end && s->b <= s->b_end;
}

YOKE_SORT_INLINE size_t yoke_sort_split(YOKE_SORT_OF, const unsigned char *a, size_t a_count,
                                        const unsigned char *b, size_t b_count, size_t rank)
{
    size_t low = rank > b_count ? rank - b_count : 0;
    size_t high = rank < a_count ? rank : a_count;
    while (low < high) {
        const size_t i = low + (high - low) / 2;
        if (less(kind, b + (rank - 1 - i) * bytes, a + i * bytes))
            high = i;
        else
            low = i + 1;
    }
    return low;
}

/* Merge x and y, both of the same number of elements or nearly so. */
YOKE_SORT_INLINE void yoke_sort_two(YOKE_SORT_OF, struct yoke_sort_span x, struct yoke_sort_span y)
{
    struct yoke_sort_span s = x, t = y;
    for (;;) {
        const size_t of_s = yoke_sort_shorter(bytes, &s), of_t = yoke_sort_shorter(bytes, &t);
        const size_t steps = of_s < of_t ? of_s : of_t;
        if (steps < 4)
            break;
        yoke_sort_steps(kind, bytes, less, &s, &t, steps);
        if (!yoke_sort_met(&s) || !yoke_sort_met(&t)) {
            s = x;
            t = y;
            break;
        }
    }
    yoke_sort_finish(kind, bytes, less, &s);
    yoke_sort_finish(kind, bytes, less, &t);
}

YOKE_SORT_INLINE struct yoke_sort_span yoke_sort_span_of(size_t bytes, const unsigned char *a,
                                                         size_t a_count, const unsigned char *b,
                                                         size_t b_count, unsigned char *out)
{
    struct yoke_sort_span s;
    s.a = a;
    s.a_end = a + a_count * bytes;
    s.b = b;
    s.b_end = b + b_count * bytes;
    s.out = out;
    s.out_end = out + (a_count + b_count) * bytes;
    return s;
}

YOKE_SORT_INLINE void yoke_sort_merge(YOKE_SORT_OF, const unsigned char *a, size_t a_count,
                                      const unsigned char *b, size_t b_count, unsigned char *out)
{
    const size_t half = (a_count + b_count) / 2;
    const size_t of_a = yoke_sort_split(kind, bytes, less, a, a_count, b, b_count, half);
    const size_t of_b = half - of_a;
    yoke_sort_two(kind, bytes, less, yoke_sort_span_of(bytes, a, of_a, b, of_b, out),
                  yoke_sort_span_of(bytes, a + of_a * bytes, a_count - of_a, b + of_b * bytes,
                                    b_count - of_b, out + half * bytes));
}

/* Four elements, five comparisons, no branch. Whatever less says, all four are there again. */
YOKE_SORT_INLINE void yoke_sort_four(YOKE_SORT_OF, const unsigned char *from, unsigned char *into)
{
    const size_t c1 = (size_t)less(kind, from + bytes, from);
    const size_t c2 = (size_t)less(kind, from + 3 * bytes, from + 2 * bytes);
    const unsigned char *const a = from + c1 * bytes;
    const unsigned char *const b = from + (c1 ^ 1) * bytes;
    const unsigned char *const c = from + (2 + c2) * bytes;
    const unsigned char *const d = from + (2 + (c2 ^ 1)) * bytes;
    const int c3 = less(kind, c, a), c4 = less(kind, d, b);
    const unsigned char *const lowest = c3 ? c : a;
    const unsigned char *const highest = c4 ? b : d;
    const unsigned char *const left = c3 ? a : c4 ? c : b;
    const unsigned char *const right = c4 ? d : c3 ? b : c;
    const int c5 = less(kind, right, left);
    __builtin_memcpy(into, lowest, bytes);
    __builtin_memcpy(into + bytes, c5 ? right : left, bytes);
    __builtin_memcpy(into + 2 * bytes, c5 ? left : right, bytes);
    __builtin_memcpy(into + 3 * bytes, highest, bytes);
}

/* The last one to three elements of a leaf. */
YOKE_SORT_INLINE void yoke_sort_few(YOKE_SORT_OF, const unsigned char *from, unsigned char *into,
                                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0 && less(kind, from + i * bytes, into + (at - 1) * bytes); at--)
            __builtin_memcpy(into + at * bytes, into + (at - 1) * bytes, bytes);
        __builtin_memcpy(into + at * bytes, from + i * bytes, bytes);
    }
}

/* Merge four sorted runs of `width` into two. */
YOKE_SORT_INLINE void yoke_sort_quad(YOKE_SORT_OF, const unsigned char *from, unsigned char *into,
                                     size_t width)
{
    const size_t run = width * bytes;
    struct yoke_sort_span x = yoke_sort_span_of(bytes, from, width, from + run, width, into);
    struct yoke_sort_span y =
        yoke_sort_span_of(bytes, from + 2 * run, width, from + 3 * run, width, into + 2 * run);
    struct yoke_sort_span s = x, t = y;
    yoke_sort_steps(kind, bytes, less, &s, &t, width);
    if (__builtin_expect(!yoke_sort_met(&s) || !yoke_sort_met(&t), 0)) {
        yoke_sort_finish(kind, bytes, less, &x);
        yoke_sort_finish(kind, bytes, less, &y);
    }
}

/* Merge sorted runs of `width` in pairs. */
YOKE_SORT_INLINE void yoke_sort_pass(YOKE_SORT_OF, const unsigned char *from, unsigned char *into,
                                     size_t count, size_t width)
{
    size_t i = 0;
    for (; count - i >= 4 * width; i += 4 * width)
        yoke_sort_quad(kind, bytes, less, from + i * bytes, into + i * bytes, width);
    for (; i < count; i += 2 * width) {
        const size_t a = count - i < width ? count - i : width;
        const size_t b = count - i - a < width ? count - i - a : width;
        yoke_sort_merge(kind, bytes, less, from + i * bytes, a, from + (i + a) * bytes, b,
                        into + i * bytes);
    }
}

/* 1 if data is all in order, -1 if each is before the one before it, else 0. */
YOKE_SORT_INLINE int yoke_sort_order(YOKE_SORT_OF, const unsigned char *data, size_t count)
{
    size_t i = 1;
    while (i < count && !less(kind, data + i * bytes, data + (i - 1) * bytes))
        i++;
    if (i >= count)
        return 1;
    if (i > 1)
        return 0;
    while (i < count && less(kind, data + i * bytes, data + (i - 1) * bytes))
        i++;
    return i >= count ? -1 : 0;
}

YOKE_SORT_INLINE int yoke_sort_leaf(YOKE_SORT_OF, unsigned char *data, unsigned char *other,
                                    size_t count, int into_other)
{
    const int order = yoke_sort_order(kind, bytes, less, data, count);
    unsigned char *from = data, *into = other;
    size_t i = 0;
    int turns = 1; /* from data into other, and back, ... */
    if (order != 0)
        return order > 0 ? 0 : YOKE_SORT_REVERSED;
    for (size_t width = 4; width < count; width *= 2)
        turns ^= 1;
    if (turns != (into_other != 0)) {
        __builtin_memcpy(other, data, count * bytes);
        from = other;
        into = data;
    }
    for (; count - i >= 4; i += 4)
        yoke_sort_four(kind, bytes, less, from + i * bytes, into + i * bytes);
    yoke_sort_few(kind, bytes, less, from + i * bytes, into + i * bytes, count - i);
    for (size_t width = 4; width < count; width *= 2) {
        unsigned char *const done = into;
        into = from;
        from = done;
        if (width == 4) /* with a loop of a known length */
            yoke_sort_pass(kind, bytes, less, from, into, count, 4);
        else
            yoke_sort_pass(kind, bytes, less, from, into, count, width);
    }
    return into_other ? YOKE_SORT_IN_OTHER : 0;
}

/* The three functions of a yoke_sort_kind. */
#define YOKE_SORT_MAKE(name, size, less_fn) \
    static int name##_leaf(const yoke_sort_kind *kind_, unsigned char *data_, \
                           unsigned char *other_, size_t count_, int into_other_) \
    { \
        return yoke_sort_leaf(kind_, (size), less_fn, data_, other_, count_, into_other_); \
    } \
    static void name##_merge(const yoke_sort_kind *kind_, const unsigned char *a_, \
                             size_t a_count_, const unsigned char *b_, size_t b_count_, \
                             unsigned char *out_) \
    { \
        yoke_sort_merge(kind_, (size), less_fn, a_, a_count_, b_, b_count_, out_); \
    } \
    static size_t name##_split(const yoke_sort_kind *kind_, const unsigned char *a_, \
                               size_t a_count_, const unsigned char *b_, size_t b_count_, \
                               size_t rank_) \
    { \
        return yoke_sort_split(kind_, (size), less_fn, a_, a_count_, b_, b_count_, rank_); \
    }

#ifdef __cplusplus
}
#endif

#endif
