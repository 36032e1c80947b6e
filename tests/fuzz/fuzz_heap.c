/* SPDX-License-Identifier: MIT
 * fuzz_heap.c - the shared heap, while somebody writes into its words and bitmaps.
 *
 * An input is a list of calls by the program and two workers, of deaths, and of writes anywhere
 * into what the heap keeps in shared memory. Nothing may crash, go on for ever or give out memory
 * that is not the heap's. As long as the words of chunks are left alone (hints and limits are not),
 * no two blocks overlap and each is freed once; in a chunk whose bitmap is left alone, too.
 */
#include "seam.h"

#include <yoke/yoke.h>

#define ACTORS 3
#define BLOCKS 64
#define CHUNKS (SEAM_ARENA_BYTES / YK_CHUNK_BYTES)
#define OPS_MAX 200

struct block {
    unsigned char *start;
    size_t bytes;
};

static struct {
    struct input *input;
    unsigned char actors[ACTORS][YK_LOCAL_BYTES]; /* what each process knows of the heap */
    uint32_t owners[ACTORS];
    unsigned actor; /* whose copy lies in the process-local area */
    struct block blocks[BLOCKS];
    unsigned block_count;
    bool words_spoiled;
    bool hints_spoiled;
    bool bitmap_spoiled[CHUNKS];
    bool any_bitmap_spoiled;
} w;

static struct yk_heap_shared *shared(void)
{
    return (struct yk_heap_shared *)seam_arena;
}

static size_t chunk_of(const void *at)
{
    return (size_t)((const unsigned char *)at - seam_arena) / YK_CHUNK_BYTES;
}

/* --- who acts ------------------------------------------------------------------------------- */

static void become(unsigned actor)
{
    void *const area = yk_process_local(YK_LOCAL_HEAP);
    memcpy(w.actors[w.actor], area, YK_LOCAL_BYTES);
    memcpy(area, w.actors[actor], YK_LOCAL_BYTES);
    w.actor = actor;
}

static void be_born(unsigned actor)
{
    struct yk_heap_handle handle;
    become(0);
    MUST(yk_heap_export(&handle) == 0);
    w.owners[actor] = yk_heap_new_owner();
    become(actor);
    memset(yk_process_local(YK_LOCAL_HEAP), 0, YK_LOCAL_BYTES);
    yk_heap_import(&handle, w.owners[actor]);
}

/* Killed between two calls: what it had taken chunks for is given back, blocks stay. */
static void die(unsigned actor)
{
    if (actor == 0) {
        return;
    }
    become(0);
    yk_heap_recover(w.owners[actor]);
    yk_heap_recover(w.owners[actor]);
    be_born(actor);
}

/* --- honest calls --------------------------------------------------------------------------- */

static size_t some_size(struct input *input)
{
    const unsigned shape = take(input, 8);
    const size_t n = (size_t)take_bytes(input, 2);
    switch (shape) {
    case 0:
        return n % 64;
    case 1:
    case 2:
        return n % 2048;
    case 3:
        return YK_CLASS_BYTES_MAX - 2 + n % 8;
    case 4:
        return YK_CHUNK_BYTES * (n % 8) + n / 256;
    case 5:
        return n * 512;
    case 6:
        return SIZE_MAX - n;
    default:
        return n;
    }
}

static bool overlaps(const struct block *a, const struct block *b)
{
    return a->start < b->start + b->bytes && b->start < a->start + a->bytes;
}

static void check_new(const struct block *new)
{
    MUST(seam_in_heap(new->start, new->bytes));
    MUST((uintptr_t) new->start % (new->bytes > YK_CLASS_BYTES_MAX ? 4096 : 16) == 0);
    if (w.words_spoiled || w.bitmap_spoiled[chunk_of(new->start)]) {
        return;
    }
    MUST(yk_heap_block_bytes(new->start) >= new->bytes);
    for (unsigned i = 0; i < w.block_count; i++) {
        /* A chunk whose bitmap says that all is free is given out again. */
        MUST(!overlaps(new, &w.blocks[i]) || w.bitmap_spoiled[chunk_of(w.blocks[i].start)]);
    }
}

static void allocate(struct input *input)
{
    const size_t bytes = some_size(input);
    void *_Atomic note = NULL;
    const bool noted = take(input, 2) != 0;
    struct block new = {.bytes = bytes};
    new.start = noted ? yk_heap_alloc_noted(bytes, &note) : yk_heap_alloc(bytes);
    if (new.start == NULL) {
        return;
    }
    check_new(&new);
    /* relaxed: there is one thread. */
    MUST(!noted || atomic_load_explicit(&note, memory_order_relaxed) == (void *)new.start);
    new.start[0] = 0xA5;
    new.start[bytes - 1] = 0xA5;
    seam_dirty(new.start, 1);
    seam_dirty(new.start + bytes - 1, 1);
    if (w.block_count < BLOCKS) {
        w.blocks[w.block_count++] = new;
    } else {
        (void)yk_heap_free(new.start);
    }
}

static void keep(struct block new)
{
    if (new.start == NULL) {
        return;
    }
    check_new(&new);
    if (w.block_count < BLOCKS) {
        w.blocks[w.block_count++] = new;
    } else {
        (void)yk_heap_free(new.start);
    }
}

static void allocate_specially(struct input *input)
{
    const size_t bytes = some_size(input) % (2 * YK_CHUNK_BYTES);
    const size_t alignment = (size_t)1 << take(input, 22);
    struct block new = {.bytes = bytes};
    if (take(input, 2) != 0) {
        new.start = yoke_shared_zalloc(bytes);
        const bool spoiled = w.words_spoiled || w.any_bitmap_spoiled;
        for (size_t i = 0; new.start != NULL && !spoiled &&i < bytes; i += 97) {
            MUST(new.start[i] == 0);
        }
    } else {
        new.start = yoke_shared_alloc_aligned(bytes, alignment);
        MUST((uintptr_t) new.start % alignment == 0);
    }
    keep(new);
}

static void resize(struct input *input)
{
    if (w.block_count == 0) {
        return;
    }
    const unsigned i = take(input, w.block_count);
    struct block new = {.bytes = some_size(input) % (2 * YK_CHUNK_BYTES)};
    new.start = yoke_shared_realloc(w.blocks[i].start, new.bytes);
    if (new.start != NULL) {
        seam_dirty(new.start, new.bytes);
        w.blocks[i] = w.blocks[--w.block_count];
        keep(new);
    }
}

static void give_back(struct input *input)
{
    if (w.block_count == 0) {
        return;
    }
    struct block *const block = &w.blocks[take(input, w.block_count)];
    const bool spoiled = w.words_spoiled || w.bitmap_spoiled[chunk_of(block->start)];
    const bool freed = yk_heap_free(block->start);
    MUST(freed || spoiled);
    MUST(!yk_heap_free(block->start) || spoiled); /* a second free changes nothing */
    *block = w.blocks[--w.block_count];
}

/* A pointer that a worker may name: near a block, in the words, anywhere. */
static unsigned char *some_pointer(struct input *input)
{
    const unsigned shape = take(input, 6);
    const uint64_t n = take_bytes(input, 3);
    switch (shape) {
    case 0:
        return w.block_count != 0 ? w.blocks[n % w.block_count].start + (n >> 8) % 64 : NULL;
    case 1:
        return seam_arena + n % CHUNKS * YK_CHUNK_BYTES + YK_CHUNK_HEADER_BYTES + (n >> 8);
    case 2:
        return seam_arena + n % CHUNKS * YK_CHUNK_BYTES;
    case 3:
        return seam_arena + SEAM_ARENA_BYTES - n % 64;
    case 4:
        return (unsigned char *)(uintptr_t)take_bytes(input, 8);
    default:
        return seam_arena + n;
    }
}

static void ask(struct input *input)
{
    void *const at = some_pointer(input);
    const size_t bytes = yk_heap_block_bytes(at);
    MUST(bytes == 0 || seam_in_heap(at, bytes));
    const size_t n = some_size(input);
    MUST(yk_heap_contains(at, n) == seam_in_heap(at, n));
    bool live = false;
    for (unsigned i = 0; i < w.block_count; i++) {
        live = live || w.blocks[i].start == at;
    }
    if (!live && yk_heap_free(at)) {
        w.words_spoiled = true; /* a block that was never handed out: only forged words say so */
    }
}

static void count(void)
{
    yoke_heap_stats stats = {.size = sizeof stats};
    MUST(yoke_heap_stats_get(&stats) == 0);
    if (!w.words_spoiled && !w.hints_spoiled && !w.any_bitmap_spoiled) {
        MUST(stats.blocks == w.block_count);
    }
}

/* --- hostile writes ------------------------------------------------------------------------- */

static uint64_t some_word(struct input *input)
{
    const unsigned shape = take(input, 4);
    const uint64_t n = take_bytes(input, 3);
    switch (shape) {
    case 0: /* a chunk word with a length that is about right, or not at all */
        return yk_chunk_word((enum yk_chunk_kind)(n % 8), (n >> 3) % 64, w.owners[(n >> 9) % 3],
                             (n >> 11) % 128);
    case 1:
        return yk_chunk_word((enum yk_chunk_kind)(n % 8), (n >> 3) % 256, n >> 9 & 0xFFFF,
                             (size_t)take_bytes(input, 4) & 0xFFFFFFF);
    case 2:
        return n;
    default:
        return take_bytes(input, 8);
    }
}

static void spoil_word(struct input *input)
{
    const size_t at = take(input, CHUNKS);
    /* relaxed: there is one thread. */
    atomic_store_explicit(&shared()->words[at], some_word(input), memory_order_relaxed);
    w.words_spoiled = true;
}

static void spoil_hint(struct input *input)
{
    _Atomic uint64_t *const hints[] = {&shared()->limit, &shared()->top, &shared()->lowest};
    /* relaxed: there is one thread. */
    atomic_store_explicit(hints[take(input, 3)], some_word(input), memory_order_relaxed);
    w.hints_spoiled = true;
}

static void spoil_bitmap(struct input *input)
{
    const size_t chunk = 1 + take(input, 16);
    const size_t word = take(input, YK_CHUNK_BITMAP_WORDS);
    struct yk_chunk *const header = (struct yk_chunk *)(seam_arena + chunk * YK_CHUNK_BYTES);
    const uint64_t value = take(input, 2) != 0 ? UINT64_MAX : take_bytes(input, 8);
    /* relaxed: there is one thread. */
    atomic_store_explicit(&header->free[word], value, memory_order_relaxed);
    seam_dirty(header, sizeof *header);
    w.bitmap_spoiled[chunk] = true;
    w.any_bitmap_spoiled = true;
}

/* --- one input ------------------------------------------------------------------------------ */

static void step(struct input *input)
{
    switch (take(input, 20)) {
    case 0:
        become(take(input, ACTORS));
        break;
    case 1:
        die(take(input, ACTORS));
        break;
    case 2:
        spoil_word(input);
        break;
    case 3:
        spoil_hint(input);
        break;
    case 4:
        spoil_bitmap(input);
        break;
    case 5:
        ask(input);
        break;
    case 6:
        count();
        break;
    case 7:
        become(0);
        (void)!yoke_heap_limit((size_t)take_bytes(input, 4));
        break;
    case 8:
        yk_heap_recover((uint32_t)take_bytes(input, 3) & 0xFF);
        w.words_spoiled = true; /* it may be a living one */
        break;
    case 13:
    case 14:
        allocate_specially(input);
        break;
    case 15:
        resize(input);
        break;
    case 16:
        (void)yoke_heap_trim();
        break;
    case 9:
    case 10:
    case 11:
    case 12:
        give_back(input);
        break;
    default:
        allocate(input);
        break;
    }
}

/* Whatever was written: it can still be asked, and gives blocks or NULL. */
static void finish(void)
{
    for (unsigned actor = 1; actor < ACTORS; actor++) {
        die(actor);
    }
    become(0);
    count();
    while (w.block_count > 0) {
        struct input none = {0};
        give_back(&none);
    }
    static const size_t sizes[] = {16, 100, 5000, 57344, 57345, 3 * YK_CHUNK_BYTES};
    for (size_t i = 0; i < YK_COUNT_OF(sizes); i++) {
        struct block block = {.start = yk_heap_alloc(sizes[i]), .bytes = sizes[i]};
        if (block.start != NULL) {
            check_new(&block);
            (void)yk_heap_free(block.start);
        }
    }
    count();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    seam_reset();
    memset(&w, 0, sizeof w);
    MUST(yk_heap_open() == 0);
    for (unsigned actor = 1; actor < ACTORS; actor++) {
        be_born(actor);
    }
    become(0);
    for (unsigned ops = 0; input.left > 0 && ops < OPS_MAX; ops++) {
        step(&input);
    }
    finish();
    seam_check_leaks();
    return 0;
}
