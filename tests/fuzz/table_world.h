/* SPDX-License-Identifier: MIT
 * table_world.h - the workers of a process pool, as the harness plays them: honest ones, and what
 * a hostile one can write. For fuzz_table.c only.
 *
 * Idea: an honest worker does one step at a time, with the library's own claim and completion. A
 * hostile one is a write of some value to some place: both are chosen where it may hurt, since
 * random bytes at random places would hit nothing.
 */
#ifndef YOKE_FUZZ_TABLE_WORLD_H
#define YOKE_FUZZ_TABLE_WORLD_H

#include "pool/dispatch.h"
#include "pool/sweep.h"
#include "seam.h"

#define BLOCKS 32 /* blocks of the shared heap that the program took last */
#define SOON (4 * (int64_t)YK_TABLE_SLOTS)

/* What a worker has in hand, by the number of its process. */
struct claim {
    struct yk_claimer claimer;
    struct yk_slot *slot; /* NULL: nothing */
    uint64_t word;
    unsigned ran;
    bool waits; /* gave a doomed task up, and is not let go yet */
};

static struct claim claims[SEAM_PROCESSES];

static struct {
    struct input *input;
    struct yoke_pool *pool;
    struct {
        unsigned char *start;
        size_t bytes;
    } blocks[BLOCKS];
    unsigned block_count;
    unsigned tasks_max; /* 0: workers do not retire */
    bool table_spoiled; /* by a hostile write, anywhere in shared memory */
    bool heap_spoiled;  /* in what the heap keeps there */
    bool died;          /* a worker died while it may have had a task */
} w;

/* --- honest workers ------------------------------------------------------------------------- */

/* An honest worker dies of a pointer that is not, which is another step of ours. */
static bool is_sound(const void *start, size_t bytes)
{
    return (uintptr_t)start % 8 == 0 && seam_in_heap(start, bytes);
}

static void run_call(struct yk_slot *slot, struct yk_line *line, bool result)
{
    uint64_t x = 0;
    unsigned char *out = slot->u.data + YK_INLINE_IN_MAX;
    const unsigned char *in = slot->u.data;
    if ((slot->flags & YK_FLAG_INLINE) == 0) {
        const struct yk_call *const call = slot->u.record.call;
        if (!is_sound(call, sizeof *call) || !is_sound(call->in, sizeof x) ||
            !is_sound(call->out, sizeof x)) {
            return;
        }
        in = call->in;
        out = call->out;
    }
    memcpy(&x, in, sizeof x);
    x = x * 3 + 1;
    memcpy(out, &x, sizeof x);
    if (!result) {
        return;
    }
    struct yk_result *const block = yk_heap_alloc_noted(sizeof *block + sizeof x, &line->note);
    if (block == NULL) {
        return;
    }
    seam_dirty(block, sizeof *block + sizeof x);
    block->bytes = sizeof x;
    block->older = (slot->flags & YK_FLAG_RESULT) != 0 ? slot->u.record.result : NULL;
    memcpy(block->data, &x, sizeof x);
    slot->u.record.result = block;
    slot->flags |= YK_FLAG_RESULT;
    /* relaxed: there is one thread. */
    atomic_store_explicit(&line->note, NULL, memory_order_relaxed);
}

/* Items 0 to `until` - 1 of the part are done. */
static void run_items(struct yk_slot *slot, uint32_t until)
{
    struct yk_part *const part = slot->run.part;
    if (!is_sound(part, sizeof *part)) {
        return;
    }
    const struct yk_part asked = *part; /* its buffers may lie over it by now */
    const uint32_t count = asked.count < until ? asked.count : until;
    const bool known = asked.in_bytes == sizeof(uint64_t) && asked.out_bytes == sizeof(uint64_t) &&
                       is_sound(asked.in, count * sizeof(uint64_t)) &&
                       is_sound(asked.out, count * sizeof(uint64_t));
    for (uint32_t k = 0; k < count && known; k++) {
        uint64_t x = 0;
        memcpy(&x, (const unsigned char *)asked.in + k * sizeof x, sizeof x);
        x = x * 3 + 1;
        memcpy((unsigned char *)asked.out + k * sizeof x, &x, sizeof x);
    }
    part->ran = count;
}

static struct yk_line *line_of(const struct seam_process *process)
{
    return process->arg;
}

static struct claim *claim_of(const struct seam_process *process)
{
    return &claims[process - seam_processes];
}

static void set_progress(struct yk_slot *slot, uint32_t progress)
{
    /* relaxed: there is one thread. */
    const uint32_t before = atomic_load_explicit(&slot->progress, memory_order_relaxed);
    if ((slot->flags & YK_FLAG_TIMED) == 0 || (before & YK_PROGRESS_DOOMED) == 0) {
        /* relaxed: as above. */
        atomic_store_explicit(&slot->progress, progress, memory_order_relaxed);
    }
}

/* Progress is `progress`, or, with all, the task's end. Map: that many items are complete. */
static void run_to(struct seam_process *process, bool all, uint32_t progress, int32_t code)
{
    struct claim *const claim = claim_of(process);
    struct yk_slot *const slot = claim->slot;
    if (slot->op == YK_OP_CALL) {
        run_call(slot, line_of(process), code == 7);
        progress = all ? 2 : progress % 3;
    } else {
        const bool sound = is_sound(slot->run.part, sizeof *slot->run.part);
        const uint32_t count = sound ? slot->run.part->count % YK_PART_ITEMS_MAX : 0;
        run_items(slot, all ? UINT32_MAX : progress);
        progress = slot->op == YK_OP_RANGE ? 2 : all ? count + 1 : progress % (count + 2);
    }
    slot->code = code == 7 ? 0 : code;
    set_progress(slot, progress);
}

static bool swap_word(struct yk_slot *slot, uint64_t from, uint64_t to)
{
    /* relaxed: there is one thread. */
    return atomic_compare_exchange_strong_explicit(&slot->word, &from, to, memory_order_relaxed,
                                                   memory_order_relaxed);
}

/* As worker.c does it. */
static void give_up(struct seam_process *process)
{
    struct claim *const claim = claim_of(process);
    const uint32_t ticket = yk_word_ticket(claim->word);
    const uint64_t given = yk_word(ticket, claim->claimer.owner, YK_GIVEN);
    /* relaxed: there is one thread. */
    atomic_store_explicit(&line_of(process)->hand, YK_HAND_WAITS, memory_order_relaxed);
    claim->waits =
        swap_word(claim->slot, yk_word(ticket, claim->claimer.owner, YK_DOOMED), given) ||
        swap_word(claim->slot, claim->word, given);
    if (!claim->waits) {
        seam_end(process, -1);
    }
}

static void await_hand(struct seam_process *process)
{
    struct claim *const claim = claim_of(process);
    uint32_t seen = YK_HAND_GO;
    /* relaxed: there is one thread. */
    claim->waits = !atomic_compare_exchange_strong_explicit(
        &line_of(process)->hand, &seen, YK_HAND_FREE, memory_order_relaxed, memory_order_relaxed);
    if (seen == YK_HAND_NEVER) {
        seam_end(process, -1);
    }
}

static void complete(struct seam_process *process, int32_t code)
{
    struct claim *const claim = claim_of(process);
    struct yk_slot *const slot = claim->slot;
    /* relaxed: there is one thread. */
    const uint32_t before = atomic_load_explicit(&slot->progress, memory_order_relaxed);
    const bool late = (slot->flags & YK_FLAG_TIMED) != 0 && (before & YK_PROGRESS_DOOMED) != 0;
    if (!late) {
        run_to(process, true, 0, code);
    }
    if (late || !yk_table_complete(&w.pool->table, slot, claim->word)) {
        give_up(process);
    }
    claim->slot = NULL;
    claim->ran++;
}

/* The library's own claim, unless head and tail say that it would be busy for ages: then what it
 * would come to in the end. */
static void claim_next(struct claim *claim)
{
    struct yk_ctl *const ctl = w.pool->table.ctl;
    /* relaxed: there is one thread. */
    const uint64_t head = atomic_load_explicit(&ctl->head, memory_order_relaxed);
    const int64_t ahead =
        (int64_t)(atomic_load_explicit(&ctl->tail, memory_order_relaxed /* as above */) - head);
    claim->claimer.known_tail = head;
    if (ahead <= SOON) {
        claim->slot = yk_table_claim(&w.pool->table, &claim->claimer, &claim->word);
        return;
    }
    for (uint32_t i = 0; i < YK_TABLE_SLOTS && claim->slot == NULL; i++) {
        struct yk_slot *const slot = yk_pool_slot(w.pool, i);
        const uint32_t ticket = yk_word_ticket(yk_slot_load_word(slot));
        if (yk_table_claim_at(slot, ticket, claim->claimer.owner, &claim->word)) {
            claim->slot = slot;
        }
    }
}

static void retire(struct seam_process *process)
{
    uint32_t active = YK_LINE_ACTIVE;
    /* relaxed: there is one thread. */
    atomic_compare_exchange_strong_explicit(&line_of(process)->state, &active, YK_LINE_RETIRED,
                                            memory_order_relaxed, memory_order_relaxed);
    seam_end(process, 0);
}

static void step_state(struct seam_process *process, struct yk_line *line)
{
    const enum yk_line_state state = yk_line_state_of(line);
    const bool starting = state == YK_LINE_STARTING;
    if (starting || state == YK_LINE_STARTING_ACTIVE) {
        /* relaxed: there is one thread. */
        atomic_store_explicit(&line->state, starting ? YK_LINE_PARKED : YK_LINE_ACTIVE,
                              memory_order_relaxed);
        /* While the pool is being made, its own copy is out of our reach. */
        yk_table_announce(w.pool != NULL ? &w.pool->table : &line->ctl->table);
    } else if (state != YK_LINE_PARKED || claim_of(process)->ran > 0) {
        seam_end(process, 0); /* told to stop, or so it seems */
    }
}

/* One step of the life of a worker. */
static void work(struct seam_process *process, int32_t code)
{
    struct claim *const claim = claim_of(process);
    if (process->ended) {
        return;
    }
    if (process->killed) {
        seam_end(process, yk_signal_kill());
    } else if (claim->waits) {
        await_hand(process);
    } else if (claim->slot != NULL && code == 8) {
        run_to(process, false, 1, 0); /* it goes on for a while */
    } else if (claim->slot != NULL) {
        complete(process, code);
    } else if (w.tasks_max != 0 && claim->ran >= w.tasks_max) {
        retire(process);
    } else if (yk_line_state_of(line_of(process)) == YK_LINE_ACTIVE) {
        claim_next(claim);
    } else {
        step_state(process, line_of(process));
    }
}

/* Killed in the middle of what it does. */
static void die_at(struct seam_process *process, uint32_t progress)
{
    if (claim_of(process)->slot != NULL && !process->ended) {
        run_to(process, false, progress, 0);
        w.died = true;
        if (progress >= 8) { /* with a block that is no result yet */
            (void)yk_heap_alloc_noted(64, &line_of(process)->note);
        }
    }
    seam_end(process, yk_signal_kill());
}

static struct seam_process *some_process(struct input *input)
{
    if (seam_process_count == 0) {
        return NULL;
    }
    /* The last few live, most likely. */
    const int back = (int)take(input, 8);
    return &seam_processes[back < seam_process_count ? seam_process_count - 1 - back : 0];
}

/* --- hostile ones --------------------------------------------------------------------------- */

static void *within(void *start, size_t bytes, uint64_t n)
{
    return (unsigned char *)start + n % bytes / 4 * 4;
}

static void *some_place(struct input *input)
{
    struct yoke_pool *const pool = w.pool;
    struct yk_heap_shared *const heap = (struct yk_heap_shared *)seam_arena;
    const unsigned shape = take(input, 12);
    const uint64_t n = take_bytes(input, 2);
    struct yk_slot *const slot = yk_pool_slot(pool, (uint32_t)n >> 6);
    switch (shape) {
    case 0:
    case 1:
    case 2:
        return &slot->word;
    case 3:
    case 4:
        return within(slot, sizeof *slot, n & 63);
    case 5:
        return within(&pool->table.lines[(n >> 6) % pool->table.line_count], sizeof(struct yk_line),
                      n & 63);
    case 6:
        return within(&pool->ctl->tail, sizeof *pool->ctl - offsetof(struct yk_ctl, tail),
                      n / 3 * 64 + n % 2 * 8);
    case 7:
        return within(pool->ctl, sizeof *pool->ctl, n);
    case 8:
        w.heap_spoiled = true;
        return within(heap, sizeof *heap + 16 * sizeof(uint64_t), n / 8 * 8);
    case 9:
        w.heap_spoiled = true;
        return seam_arena + ((n & 7) + 1) * YK_CHUNK_BYTES + (n >> 3) % 512 * 8;
    case 10:
        w.heap_spoiled = true; /* it may be anything */
        return seam_arena + (n % 4 + 1) * YK_CHUNK_BYTES + YK_CHUNK_HEADER_BYTES + (n >> 2) * 4;
    default:
        if (w.block_count == 0) {
            return &slot->word;
        }
        const size_t i = n % w.block_count % BLOCKS;
        return within(w.blocks[i].start, yk_min(w.blocks[i].bytes, 512) + 3, n >> 5);
    }
}

static uint32_t some_owner(unsigned n)
{
    const struct yk_member *const member = &w.pool->members[n % w.pool->table.line_count];
    return n % 5 == 0 ? n % 3 : member->owner;
}

static uint64_t some_word(struct input *input, const void *place)
{
    const uint64_t n = take_bytes(input, 2);
    const size_t offset =
        (size_t)((const unsigned char *)place - (unsigned char *)w.pool->table.slots);
    const struct yk_unit *const unit =
        offset < YK_TABLE_SLOTS * sizeof(struct yk_slot) ? w.pool->units[offset / 64] : NULL;
    uint32_t ticket = unit != NULL ? unit->ticket : (uint32_t)w.pool->tail;
    ticket += n % 4 == 0 ? (uint32_t)(n >> 2) % 9 - 4 : 0;
    return yk_word(ticket, some_owner((unsigned)n >> 6 & 15), (enum yk_phase)(n >> 10 & 7));
}

static uint64_t some_pointer(struct input *input)
{
    const unsigned shape = take(input, 8);
    const uint64_t n = take_bytes(input, 2);
    switch (shape) {
    case 0:
        return (uintptr_t)w.pool->ctl + n % 256 / 8 * 8;
    case 1:
        return (uintptr_t)seam_arena + n % 64 * YK_CHUNK_BYTES;
    case 2:
        return (uintptr_t)seam_arena + SEAM_ARENA_BYTES - n % 64;
    case 3:
        return (uintptr_t)seam_arena - n % 64; /* a guard page */
    case 4:
        return take_bytes(input, 8);
    case 5:
        return (uintptr_t)seam_arena + (n % 4 + 1) * YK_CHUNK_BYTES + YK_CHUNK_HEADER_BYTES +
               (n >> 2) * 16;
    default:
        return w.block_count != 0
                   ? (uintptr_t)w.blocks[n % w.block_count % BLOCKS].start + (n >> 8 & 1) * 16
                   : 0;
    }
}

static uint64_t some_value(struct input *input, const void *place)
{
    static const uint32_t edges[] = {0, 1, 2, 3, 7, 0x7FFFFFFF, 0x80000000, 0x80000001, UINT32_MAX};
    const unsigned shape = take(input, 8);
    switch (shape) {
    case 0:
    case 1:
    case 2:
        return some_word(input, place);
    case 3:
        return edges[take(input, YK_COUNT_OF(edges))];
    case 4:
        return (uint64_t)edges[take(input, YK_COUNT_OF(edges))] << 32 |
               edges[take(input, YK_COUNT_OF(edges))];
    case 5:
        return take_bytes(input, 8);
    case 6: { /* a chunk's word */
        const uint64_t n = take_bytes(input, 3);
        return yk_chunk_word((enum yk_chunk_kind)(n % 6), (n >> 3) % 64,
                             some_owner((unsigned)n >> 9 & 15), n >> 13);
    }
    default:
        return some_pointer(input);
    }
}

/* A finished call with a result of a hostile make. */
static void spoil_result(struct input *input)
{
    const uint64_t n = take_bytes(input, 2);
    const uint32_t index = (uint32_t)n % YK_TABLE_SLOTS;
    struct yk_slot *const slot = yk_pool_slot(w.pool, index);
    struct yk_result *const block = (struct yk_result *)(uintptr_t)some_pointer(input);
    if (is_sound(block, sizeof *block) && (n & 0x100) != 0) {
        block->older = (struct yk_result *)(uintptr_t)some_pointer(input);
        block->bytes = (size_t)some_value(input, block);
        w.heap_spoiled = true; /* it may be anything */
        seam_dirty(block, sizeof *block);
    }
    slot->op = YK_OP_CALL;
    slot->flags |= YK_FLAG_RESULT;
    slot->u.record.result = block;
    if (w.pool->units[index] != NULL) {
        /* relaxed: there is one thread. */
        atomic_store_explicit(&slot->word, yk_word(w.pool->units[index]->ticket, 2, YK_DONE),
                              memory_order_relaxed);
    }
    w.table_spoiled = true;
    w.heap_spoiled = true; /* blocks of others go back with it */
}

static void spoil(struct input *input)
{
    static const size_t sizes[] = {8, 8, 4, 1};
    unsigned char *const place = some_place(input);
    const uint64_t value = some_value(input, place);
    const size_t bytes = sizes[take(input, 4)];
    MUST(seam_in_heap(place, 0) || (place >= seam_arena && place < seam_arena + 4096));
    memcpy(place, &value, bytes);
    seam_dirty(place, bytes);
    w.table_spoiled = true;
}

#endif
