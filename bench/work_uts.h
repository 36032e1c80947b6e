/* SPDX-License-Identifier: MIT
 * work_uts.h - the unbalanced tree search: tree T1 of the benchmark, cut at depth 8.
 *
 * Idea: a node is 20 bytes, the SHA-1 of its parent's and its number; those bytes alone say how many
 * children it has, 4 on average, so the tree is the same everywhere and no shape is known before.
 * After Olivier et al., "UTS: an unbalanced tree search benchmark", 2006: root 19, geometric, fixed.
 */
#ifndef BENCH_WORK_UTS_H
#define BENCH_WORK_UTS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { UTS_DEPTH = 8, UTS_BRANCH = 4, UTS_ROOT = 19, UTS_CHILDREN_MAX = 100, UTS_NODES = 257042 };

struct uts_node {
    uint32_t state[5];
    unsigned depth;
};

static inline uint32_t uts_rotate(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}

/* The SHA-1 of a message of words * 4 bytes, 13 words at most: one block. */
static inline void uts_sha1(const uint32_t *message, unsigned words, uint32_t out[5])
{
    uint32_t w[80] = {0};
    uint32_t a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe, d = 0x10325476, e = 0xc3d2e1f0;
    memcpy(w, message, words * sizeof *w);
    w[words] = 0x80000000;
    w[15] = words * 32;
    for (int i = 16; i < 80; i++) {
        w[i] = uts_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }
    for (int i = 0; i < 80; i++) {
        const uint32_t f = i < 20   ? (b & c) | (~b & d)
                           : i < 40 ? b ^ c ^ d
                           : i < 60 ? (b & c) | (b & d) | (c & d)
                                    : b ^ c ^ d;
        const uint32_t k = i < 20   ? 0x5a827999
                           : i < 40 ? 0x6ed9eba1
                           : i < 60 ? 0x8f1bbcdc
                                    : 0xca62c1d6;
        const uint32_t next = uts_rotate(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = uts_rotate(b, 30);
        b = a;
        a = next;
    }
    out[0] = 0x67452301 + a;
    out[1] = 0xefcdab89 + b;
    out[2] = 0x98badcfe + c;
    out[3] = 0x10325476 + d;
    out[4] = 0xc3d2e1f0 + e;
}

static inline void uts_root(struct uts_node *node)
{
    const uint32_t message[5] = {0, 0, 0, 0, UTS_ROOT};
    uts_sha1(message, 5, node->state);
    node->depth = 0;
}

static inline void uts_child(const struct uts_node *parent, unsigned number, struct uts_node *child)
{
    uint32_t message[6];
    memcpy(message, parent->state, sizeof parent->state);
    message[5] = number;
    uts_sha1(message, 6, child->state);
    child->depth = parent->depth + 1;
}

/* A geometric draw with the mean UTS_BRANCH. */
static inline unsigned uts_children(const struct uts_node *node)
{
    if (node->depth >= UTS_DEPTH) {
        return 0;
    }
    const double u = (double)(node->state[4] & 0x7fffffff) / 2147483648.0;
    const double p = 1.0 / (1.0 + UTS_BRANCH);
    const unsigned count = (unsigned)floor(log(1 - u) / log(1 - p));
    return count < UTS_CHILDREN_MAX ? count : UTS_CHILDREN_MAX;
}

#endif
