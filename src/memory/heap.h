/* SPDX-License-Identifier: MIT
 * heap.h - the shared heap, as the library itself uses it.
 *
 * Idea: one nameless mapping per program, cut into chunks; one 64-bit word per chunk holds what
 * the chunk is and who owns it, so whatever instruction an owner dies at, the rest can tell.
 * Room: memory.
 */
#ifndef YK_HEAP_H
#define YK_HEAP_H

#include "platform/platform.h"

#include <yoke/memory.h>

/* Owners: 0 nobody, 1 the program, from 2 on the incarnations of workers (24 bits). */
#define YK_OWNER_NOBODY 0U
#define YK_OWNER_PROGRAM 1U
#define YK_OWNER_BITS 24

struct yk_heap_handle {
    void *base;
    size_t bytes;
    /* Who is told of misuses; NULL in a program that is no copy of ours. */
    yoke_heap_fault_fn *told;
    void *told_context;
};

/* Make the heap unless there is one. 0 or -errno. */
int yk_heap_open(void);
/* Block of at least bytes, or NULL. From 57345 bytes on aligned to 4096. */
void *yk_heap_alloc(size_t bytes);
/* The same; *note holds the block from before it is taken, so that who reads the note after our
 * death can give it back. */
void *yk_heap_alloc_noted(size_t bytes, void *_Atomic *note);
/* Give back; true if it was a block in use. Pointers from a worker are checked in here. */
bool yk_heap_free(void *block);
/* At an address that the alignment, a power of two, divides. */
void *yk_heap_alloc_aligned(size_t bytes, size_t alignment);
bool yk_heap_contains(const void *start, size_t bytes);
/* The bytes usable from block on; 0 if it is no block in use. */
size_t yk_heap_block_bytes(const void *block);

/* A number for a worker or process that will take chunks; each has its own. After 16 million of
 * them the numbers come around again. */
uint32_t yk_heap_new_owner(void);

/* For the image: what to remember before a fork, and how a worker takes it up as owner. */
int yk_heap_export(struct yk_heap_handle *handle);
void yk_heap_import(const struct yk_heap_handle *handle, uint32_t owner);

/* For a program that is started by exec: the object behind the heap. -EBADF: the program closed its
 * descriptor. */
int yk_heap_object(struct yk_shared_object *object);
bool yk_heap_is_open(void);
/* How the heap is laid out, as a number: another one cannot be shared. */
uint64_t yk_heap_layout(void);

/* The owner is dead (its exit is confirmed): chunks it was taking or giving back become free,
 * chunks it took small blocks from may be taken over. What it handed out stays. Idempotent. */
void yk_heap_recover(uint32_t owner);

#endif
