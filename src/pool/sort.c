/* SPDX-License-Identifier: MIT
 * sort.c - a stable merge sort on fork-join.   Room: pool.
 *
 * Idea: the array is halved down to leaves of some thousand elements; each level merges from the
 * array into the buffer or back, so that nothing is copied but by merging. A merge is halved too,
 * by rank ("merge path": Odeh, Green, Mwassi, Shmueli, Birk 2012), so that all workers have a part
 * in the last one. The array's part of a stretch holds all its elements, in some order, whenever no
 * leaf or merge of it is under way: that is what a cancelled sort leaves.
 * What is in order already, or reversed, stays where it is until something must be merged with it.
 * What depends on the type is in the header: leaf, merge, split.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/base.h"
#include "platform/platform.h"
#include <yoke/sort.h>

enum {
    IN_BUFFER = YOKE_SORT_IN_OTHER, /* else in the array */
    REVERSED = YOKE_SORT_REVERSED,  /* strictly; in the array */
    STOPPED = 4,                    /* cancelled: not sorted; in the array */
    LEAF = YOKE_SORT_LEAF,
    PIECE = 32768,          /* of a merge, in elements */
    BLOCK_BYTES = 1 << 18,  /* of a copy */
    MAPPED_BYTES = 8 << 20, /* a larger buffer is a mapping */
    SMALL_BYTES = 2048      /* sorted with a buffer on the stack */
};

struct sort {
    const yoke_sort_kind *kind;
    unsigned char *base;
    unsigned char *buffer;
    size_t count;
};

/* A stretch of elements, and where it is. */
struct stretch {
    const struct sort *sort;
    size_t first;
    size_t count;
};

struct piece {
    const unsigned char *a, *b;
    size_t a_count, b_count;
    unsigned char *out;
};

static unsigned char *at(const struct sort *sort, int where, size_t index)
{
    unsigned char *const start = where & IN_BUFFER ? sort->buffer : sort->base;
    return start + index * sort->kind->bytes;
}

/* ---- copies ------------------------------------------------------------------------------ */

static void copy_block(const struct stretch *stretch, int from, size_t index)
{
    const size_t bytes = stretch->sort->kind->bytes;
    const size_t start = index * BLOCK_BYTES;
    const size_t length = yk_min(stretch->count * bytes - start, BLOCK_BYTES);
    memcpy(at(stretch->sort, from ^ IN_BUFFER, stretch->first) + start,
           at(stretch->sort, from, stretch->first) + start, length);
}

static void copy_to_base(yoke_strand strand, size_t index, void *arg)
{
    (void)strand;
    copy_block(arg, IN_BUFFER, index);
}

static void copy_to_buffer(yoke_strand strand, size_t index, void *arg)
{
    (void)strand;
    copy_block(arg, 0, index);
}

static inline void swap(unsigned char *a, unsigned char *b, size_t bytes)
{
    unsigned char keep[64];
    for (size_t done = 0; done < bytes; done += sizeof keep) {
        const size_t part = yk_min(bytes - done, sizeof keep);
        memcpy(keep, a + done, part);
        memcpy(a + done, b + done, part);
        memcpy(b + done, keep, part);
    }
}

/* Exchange the elements first to last - 1 with those that mirror them. */
static void reverse_block(yoke_strand strand, size_t index, void *arg)
{
    (void)strand;
    const struct stretch *const stretch = arg;
    const size_t bytes = stretch->sort->kind->bytes;
    const size_t end = yk_min((index + 1) * LEAF, stretch->count / 2);
    unsigned char *const low = at(stretch->sort, 0, stretch->first);
    for (size_t i = index * LEAF; i < end; i++) {
        unsigned char *const a = low + i * bytes;
        unsigned char *const b = low + (stretch->count - 1 - i) * bytes;
        if (bytes == 8) {
            swap(a, b, 8);
        } else if (bytes == 4) {
            swap(a, b, 4);
        } else {
            swap(a, b, bytes);
        }
    }
}

/* Have a stretch that is in some state in order, and at that place. */
static void settle(yoke_strand strand, const struct stretch *stretch, int state, int where)
{
    struct stretch copy = *stretch;
    if (state & REVERSED) {
        yoke_each(strand, 0, (copy.count / 2 + LEAF - 1) / LEAF, reverse_block, &copy);
    }
    if ((state ^ where) & IN_BUFFER) {
        const size_t bytes = copy.count * copy.sort->kind->bytes;
        yoke_each(strand, 0, (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES,
                  where & IN_BUFFER ? copy_to_buffer : copy_to_base, &copy);
    }
}

/* ---- merges ------------------------------------------------------------------------------ */

/* 0, or STOPPED: then a part of out was not written. */
YOKE_FORK_2(int, merge, const yoke_sort_kind *, kind, struct piece, piece)
{
    const size_t count = piece.a_count + piece.b_count;
    if (yoke_strand_cancelled(strand)) {
        return STOPPED;
    }
    if (count <= PIECE) {
        kind->merge(kind, piece.a, piece.a_count, piece.b, piece.b_count, piece.out);
        return 0;
    }
    const size_t half = count / 2;
    const size_t of_a = kind->split(kind, piece.a, piece.a_count, piece.b, piece.b_count, half);
    const size_t of_b = half - of_a;
    const struct piece low = {piece.a, piece.b, of_a, of_b, piece.out};
    const struct piece high = {piece.a + of_a * kind->bytes, piece.b + of_b * kind->bytes,
                               piece.a_count - of_a, piece.b_count - of_b,
                               piece.out + half * kind->bytes};
    struct merge_call lower;
    merge_spawn(&strand, &lower, kind, low);
    const int stopped = merge(strand, kind, high);
    return merge_sync(&strand, &lower) | stopped;
}

/* Both in order, or both reversed, and so they are together, where they are. */
static bool joined(const struct stretch *left, const struct stretch *right, int state)
{
    const struct sort *const sort = left->sort;
    const int less = sort->kind->split(sort->kind, at(sort, state, right->first - 1), 1,
                                       at(sort, state, right->first), 1, 1) == 0;
    return state & REVERSED ? less : !less;
}

/* Both are sorted, each in its state. */
static int join(yoke_strand strand, const struct stretch *left, int left_state,
                const struct stretch *right, int right_state, int where)
{
    const struct sort *const sort = left->sort;
    const int from = where ^ IN_BUFFER;
    if (left_state == right_state && joined(left, right, left_state)) {
        return left_state;
    }
    settle(strand, left, left_state, from);
    settle(strand, right, right_state, from);
    if (joined(left, right, from)) {
        return from;
    }
    const struct piece all = {at(sort, from, left->first), at(sort, from, right->first),
                              left->count, right->count, at(sort, where, left->first)};
    if (merge(strand, sort->kind, all) == 0) {
        return where;
    }
    settle(strand, left, from, 0); /* out was spoiled */
    settle(strand, right, from, 0);
    return STOPPED;
}

YOKE_FORK_2(int, sort_stretch, struct stretch, stretch, int, where)
{
    const struct sort *const sort = stretch.sort;
    if (yoke_strand_cancelled(strand)) {
        return STOPPED;
    }
    if (stretch.count <= LEAF) {
        return sort->kind->leaf(sort->kind, at(sort, 0, stretch.first),
                                at(sort, IN_BUFFER, stretch.first), stretch.count, where);
    }
    const size_t half = (stretch.count + LEAF - 1) / LEAF / 2 * LEAF;
    const struct stretch left = {sort, stretch.first, half};
    const struct stretch right = {sort, stretch.first + half, stretch.count - half};
    struct sort_stretch_call call;
    sort_stretch_spawn(&strand, &call, left, where ^ IN_BUFFER);
    const int right_state = sort_stretch(strand, right, where ^ IN_BUFFER);
    const int left_state = sort_stretch_sync(&strand, &call);
    if ((left_state | right_state) & STOPPED) {
        return STOPPED;
    }
    return join(strand, &left, left_state, &right, right_state, where);
}

static void sort_all(yoke_strand strand, void *arg)
{
    const struct sort *const sort = arg;
    const struct stretch all = {sort, 0, sort->count};
    if (all.count > 1) {
        settle(strand, &all, sort_stretch(strand, all, 0), 0);
    }
}

/* ---- the doors --------------------------------------------------------------------------- */

static int make_buffer(size_t bytes, void **buffer)
{
    if (bytes >= MAPPED_BYTES) {
        return yk_map_scratch(bytes, buffer);
    }
    *buffer = aligned_alloc(YK_CACHE_LINE, (bytes / YK_CACHE_LINE + 1) * YK_CACHE_LINE);
    return *buffer != NULL ? 0 : -ENOMEM;
}

static void end_buffer(size_t bytes, void *buffer)
{
    if (bytes >= MAPPED_BYTES) {
        yk_unmap(buffer, bytes);
    } else {
        free(buffer);
    }
}

int yoke_sort_kind_run(yoke_pool *pool, void *base, size_t count, const yoke_sort_kind *kind,
                       const yoke_options *options)
{
    _Alignas(YK_CACHE_LINE) unsigned char small[SMALL_BYTES];
    struct sort sort = {kind, base, small, count};
    size_t bytes;
    if ((base == NULL && count > 0) || kind->bytes == 0 ||
        yk_mul_overflows(count, kind->bytes, &bytes) || bytes > PTRDIFF_MAX) {
        return -EINVAL;
    }
    if (count < 2 || bytes <= sizeof small) {
        return yoke_run(pool, sort_all, &sort, options);
    }
    void *buffer;
    int rc = make_buffer(bytes, &buffer);
    if (rc != 0) {
        return rc;
    }
    sort.buffer = buffer;
    rc = yoke_run(pool, sort_all, &sort, options);
    end_buffer(bytes, buffer);
    return rc;
}

static inline int compare_less(const yoke_sort_kind *kind, const void *a, const void *b)
{
    return kind->compare(a, b, kind->user) < 0;
}

/* Where the size is known, copies are moves and not calls. */
YOKE_SORT_MAKE(four, 4, compare_less)
YOKE_SORT_MAKE(eight, 8, compare_less)
YOKE_SORT_MAKE(sixteen, 16, compare_less)
YOKE_SORT_MAKE(any, kind_->bytes, compare_less)

int yoke_sort(yoke_pool *pool, void *base, size_t count, size_t bytes, yoke_compare_fn *compare,
              void *user, const yoke_options *options)
{
    yoke_sort_kind kind = {bytes, any_leaf, any_merge, any_split, compare, user};
    if (compare == NULL) {
        return -EINVAL;
    }
    if (bytes == 4) {
        kind = (yoke_sort_kind){bytes, four_leaf, four_merge, four_split, compare, user};
    } else if (bytes == 8) {
        kind = (yoke_sort_kind){bytes, eight_leaf, eight_merge, eight_split, compare, user};
    } else if (bytes == 16) {
        kind = (yoke_sort_kind){bytes, sixteen_leaf, sixteen_merge, sixteen_split, compare, user};
    }
    return yoke_sort_kind_run(pool, base, count, &kind, options);
}
