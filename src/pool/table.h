/* SPDX-License-Identifier: MIT
 * table.h - the task table: slots that a worker claims and completes with one CAS each.
 *
 * Idea: one 64-bit word per slot holds {ticket, owner, phase} and is all the truth there is.
 *   FREE      never used, or taken back before it began.
 *   READY     published; the body never started.             (submitter, release)
 *   CLAIMED   exactly one owner runs it.                      (worker, CAS from READY)
 *   DONE      the body finished and its result is complete.   (that worker, CAS from CLAIMED)
 *   DOOMED    its owner is to end it or die; the late completion of the owner fails.
 *                                                             (submitter, CAS from CLAIMED)
 *   GIVEN     that owner lived to give the task up: it touches nothing of it any more, and waits
 *             to be let go (escalate.c).  (that worker, CAS from DOOMED; a map: from CLAIMED)
 * Whether a slot is in use is the submitter's to know; he fills one only while its word is not
 * READY. Taking a task back is a CAS from READY to FREE. A worker that dies at any instruction
 * leaves one of these, and none stands in another's way.
 *
 * Tickets are handed out in order, each has its slot (yk_slot_of); one still in use is passed over.
 * `tail`, written by the submitter only, is the first ticket not given out. `head` is a hint: no
 * READY slot has a ticket below it. Anyone may advance it past a ticket that he saw not READY
 * *after* he saw tail beyond it; in this order, since a slot is published before tail moves.
 *
 * The same table serves processes (in the shared heap) and threads (in private memory).
 * What needs more than release and acquire: docs/memory-model.md.   Room: pool.
 */
#ifndef YK_TABLE_H
#define YK_TABLE_H

#include "platform/platform.h"
#include <yoke/pool.h>

enum yk_phase { YK_FREE = 0, YK_READY, YK_CLAIMED, YK_DONE, YK_DOOMED, YK_GIVEN };

#ifndef YK_TABLE_SLOTS /* fuzzing sets fewer, to fill them often */
#define YK_TABLE_SLOTS 1024U
#endif
#define YK_WORKERS_MAX 1024U  /* of process pools, and to begin with */
#define YK_THREADS_MAX 16384U /* what a thread pool may grow to; its table has a slot for each */
#define YK_SLOT_STRIDE 37U    /* odd, so that each slot has its turn */

/* ticket:32 | owner:24 | phase:8 */
static inline uint64_t yk_word(uint32_t ticket, uint32_t owner, enum yk_phase phase)
{
    return (uint64_t)ticket << 32 | (uint64_t)owner << 8 | (uint64_t)phase;
}

static inline uint32_t yk_word_ticket(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static inline uint32_t yk_word_owner(uint64_t word)
{
    return (uint32_t)(word >> 8) & 0xFFFFFFU;
}

static inline enum yk_phase yk_word_phase(uint64_t word)
{
    return (enum yk_phase)(word & 0xFF);
}

enum yk_op { YK_OP_CALL = 1, YK_OP_MAP, YK_OP_RANGE };

enum {
    YK_FLAG_TIMED = 1,  /* the worker notes when it starts; it can be doomed for lateness */
    YK_FLAG_INLINE = 2, /* a call whose in and out are in the slot; no record */
    YK_FLAG_RESULT = 4  /* the answer: there is a block made by yoke_task_result */
};

/* Inline: in at data[0], out at data[8]; a result block's pointer and size overlay out only, so
 * a retry finds its argument as it was. */
#define YK_INLINE_IN_MAX ((size_t)8)
#define YK_INLINE_OUT_MAX ((size_t)16)

/* In front of a result block in the shared heap: the block it took the place of. The worker gives
 * none back; who takes the result does, so each is named by somebody at every instant. */
struct yk_result {
    struct yk_result *older;
    size_t bytes; /* of data */
    unsigned char data[];
};

/* How a task was told to stop; answers of items are these below 0, or the own code from 0 on. */
enum { YK_TOLD_CANCELLED = -1, YK_TOLD_TIMEDOUT = -2 };

/* What a slot calls a function: its address, or a token (exec.h). */
typedef void yk_code(void);
static inline yk_code *yk_code_at(uintptr_t name)
{
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): the one place where a number becomes code. */
    return (yk_code *)name;
}

/* What one task needs beyond a slot. */
struct yk_call {
    const void *in;
    void *out;
    int64_t timeout_ns;
    _Atomic int64_t started_ns;
};

/* A part of a map, for or reduce: the question, then the answer. */
struct yk_part {
    yoke_fn *fn;             /* map */
    yoke_range_fn *range_fn; /* for, reduce */
    const void *in;          /* of the first item */
    void *out;               /* of the first item; or the accumulator of a reduce, or NULL */
    size_t in_bytes;
    size_t out_bytes;
    int32_t *codes; /* one per item, zeroed; NULL: not wanted */
    void **results; /* a stream: one yk_result or NULL per item, zeroed; else NULL */
    size_t begin;
    int64_t timeout_ns;
    uint32_t count;
    /* the answer */
    uint32_t ran;          /* items that were run; below count after a cancel */
    uint32_t failed;       /* items that did not return 0 */
    uint32_t first_failed; /* the first of them, counted from begin */
    int32_t first_code;
    bool fail_fast;             /* the question: an item that fails is the last */
    int64_t took_ns;            /* a stream: all of it */
    _Atomic int64_t started_ns; /* of the item that runs */
};

/* In `progress`: 0 nothing started; k + 1: item k started, and those before it are complete;
 * count + 1: all complete. A call is one item. */
#define YK_PROGRESS_DOOMED 0x80000000U /* the owner of this item is to end it or die */
#define YK_PART_ITEMS_MAX 0x40000000U

struct yk_slot {
    _Atomic uint64_t word;
    union {
        yoke_fn *fn;          /* CALL */
        struct yk_part *part; /* MAP, RANGE */
    } run;
    const void *context;
    _Atomic uint32_t progress; /* written by the owner */
    int32_t code;              /* the answer of a call or range */
    uint8_t op;
    uint8_t flags;
    _Atomic uint8_t notify; /* somebody sleeps until this one is DONE */
    _Atomic uint8_t cancel; /* the task should stop */
    uint32_t attempt;       /* of the call, or of the first item */
    union {
        struct {
            struct yk_call *call;
            void *result;        /* threads: the data itself; processes: a yk_result */
            size_t result_bytes; /* threads */
        } record;
        unsigned char data[24];
    } u;
};

_Static_assert(sizeof(struct yk_slot) == YK_CACHE_LINE, "a task is one cache line each way");

/* --- what program and workers share besides the slots -------------------------------------- */

enum yk_line_state {
    YK_LINE_UNUSED = 0,
    YK_LINE_STARTING,        /* will park when ready */
    YK_LINE_STARTING_ACTIVE, /* will be active when ready */
    YK_LINE_PARKED,          /* ready, but a spare: claims nothing */
    YK_LINE_ACTIVE,
    YK_LINE_STOP,    /* should end */
    YK_LINE_REFUSED, /* worker_init said no */
    YK_LINE_RETIRED  /* ends by itself, after tasks_max tasks */
};

/* How a worker that gave a doomed task up comes to the next one. No step is taken twice, so at
 * each instant one side alone may take the next. */
enum yk_hand {
    YK_HAND_FREE = 0, /* no task was given up                    (worker, CAS from GO) */
    YK_HAND_WAITS,    /* claims nothing until it is let go       (worker, before GIVEN) */
    YK_HAND_GO,       /* the task is settled, no signal follows  (program) */
    YK_HAND_NEVER     /* it took too long to go: its SIGKILL follows (program, CAS from GO) */
};

/* A worker, as both sides see it. */
struct yk_line {
    _Alignas(YK_CACHE_LINE) _Atomic uint32_t state; /* also the word a spare sleeps on */
    _Atomic uint32_t wake;                          /* 1 while it sleeps for work */
    struct yk_ctl *ctl;                             /* read-only */
    uint32_t index;                                 /* read-only */
    uint32_t owner;                                 /* read-only while the worker lives */
    void *_Atomic note;        /* a block on its way to become a result; SYNC(alloc-note) */
    _Atomic uint32_t hand;     /* enum yk_hand */
    _Atomic uint32_t blocking; /* threads: its task says that it waits */
    _Atomic uint64_t watch;    /* threads: see governor.c; 0: not known yet */
};

static inline enum yk_line_state yk_line_state_of(const struct yk_line *line)
{
    /* SYNC(line-state) acquire: sees what was done before the order, or the report, was given. */
    return (enum yk_line_state)atomic_load_explicit(&line->state, memory_order_acquire);
}

/* Where the table is. Each side has a copy of its own: the program does not follow pointers, or
 * believe counts, that lie where a worker can write. */
struct yk_table {
    struct yk_ctl *ctl;
    struct yk_slot *slots;
    uint32_t slot_mask; /* slots - 1; they are a power of two */
    struct yk_line *lines;
    uint32_t line_count;
    enum yk_scope scope;
};

/* The slot of a ticket. Tickets in a row are not slots in a row: the program writes some while a
 * worker reads those before them, and the prefetchers of their CPUs, which follow streams of lines,
 * would take each other's away. */
static inline uint32_t yk_slot_of(const struct yk_table *table, uint64_t ticket)
{
    return (uint32_t)(ticket * YK_SLOT_STRIDE) & table->slot_mask;
}

/* The user's code in each worker. */
struct yk_worker_code {
    yoke_hooks hooks;
    int (*worker_init)(unsigned worker, void *user);
    void (*worker_exit)(unsigned worker, void *user);
    void *user;
};

struct yk_ctl {
    /* read-only after create; for the workers */
    struct yk_table table;
    bool processes;
    uint32_t spins;        /* looks at the table before sleeping, at most */
    uint32_t spinners_max; /* workers that spin at once; 0: as they like, and nobody counts on it */
    int64_t idle_ns;       /* threads above `target` end after that long without work; 0: never */
    uint32_t keep;         /* threads: workers to begin with */
    uint32_t follow_max;   /* threads: target follows the CPUs, up to this; 0: it does not */
    struct yk_worker_code code; /* of the program's own images */
    const uint64_t *files;      /* of another program's image, see exec.h; else NULL */
    uint32_t tasks_max;         /* 0: a worker never retires */
    yoke_limits limits;         /* of each worker process */
    struct yoke_pool *pool;     /* threads; else NULL */
    uint64_t generation;        /* of the process that made it */
    /* threads: made with the first post; see post.h */
    struct yk_posts *_Atomic posts;
    /* threads, see governor.c */
    _Alignas(YK_CACHE_LINE) _Atomic uint32_t target; /* so many should run tasks at once */
    _Atomic uint32_t surplus;                        /* so many of those that run one should rest */
    _Atomic uint32_t cpus_seen;                      /* what target follows */
    _Alignas(YK_CACHE_LINE) _Atomic uint32_t blocking; /* so many run one that says it waits */
    _Atomic uint32_t rest_count;
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t tail;
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t head;
    _Alignas(
        YK_CACHE_LINE) _Atomic uint32_t event; /* counts what waiters in the program wait for */
    /* bit i: the worker of line i sleeps, or is about to */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t sleepers[YK_THREADS_MAX / 64 + 1];
    /* bit i: the worker of line i rests: it is not woken for a task, but to take another's place */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t resting[YK_THREADS_MAX / 64 + 1];
    /* bit i: the worker of line i spins, and will look at tail after it cleared the bit */
    _Alignas(YK_CACHE_LINE) _Atomic uint64_t spinners[YK_THREADS_MAX / 64 + 1];
};

static inline uint32_t yk_ctl_target(const struct yk_ctl *ctl)
{
    /* relaxed: a number that changes now and then. */
    return atomic_load_explicit(&ctl->target, memory_order_relaxed);
}

/* --- spinning: how long pays ---------------------------------------------------------------- */

#define YK_SPINS_MIN 100U /* a task that goes there and back takes less, and a wake much more */

static inline uint32_t yk_spins_now(const uint32_t *learnt, uint32_t most)
{
    return *learnt == 0 || *learnt > most ? most : *learnt;
}

static inline void yk_spins_learn(uint32_t *learnt, uint32_t most, bool found)
{
    const uint32_t now = yk_spins_now(learnt, most);
    const uint32_t next = found ? now * 2 : now / 2;
    *learnt = next > most ? most : next < YK_SPINS_MIN ? YK_SPINS_MIN : next;
}

/* --- the worker's side, claim.c ------------------------------------------------------------ */

/* Who claims, and the tail it saw last: slots below that were published. */
struct yk_claimer {
    uint32_t owner;
    uint64_t known_tail;
    bool batches; /* the last time tail moved, it was by more than one */
};

/* Claim the oldest READY slot; *word gets its CLAIMED word. NULL: there is none. */
struct yk_slot *yk_table_claim(const struct yk_table *table, struct yk_claimer *claimer,
                               uint64_t *word);
/* There are slots below the tail that we saw. */
bool yk_table_has_known(const struct yk_table *table, const struct yk_claimer *claimer);
/* Read tail if we have used up what we know; false: that is all there is. Each read makes the next
 * publish slower, so only where tasks queue. */
bool yk_table_look_ahead(const struct yk_table *table, struct yk_claimer *claimer);
/* Claim this very slot if it is READY with that ticket. */
bool yk_table_claim_at(struct yk_slot *slot, uint32_t ticket, uint32_t owner, uint64_t *word);
/* CLAIMED to DONE, and wake who waits for it. False: it was taken away from us. */
bool yk_table_complete(const struct yk_table *table, struct yk_slot *slot, uint64_t claimed);
bool yk_table_looks_empty(const struct yk_table *table);
/* The slot at head is READY: the cheap look, at the one line the next task comes in. */
bool yk_table_looks_ready(const struct yk_table *table);
/* How many workers spin, as far as others may count on it. */
unsigned yk_table_spinners(const struct yk_table *table);
/* Wake one sleeping worker, if any. */
bool yk_table_wake_one(const struct yk_table *table);
/* Wake all that sleep now, each once: who goes to sleep meanwhile is let sleep. */
void yk_table_wake_all(const struct yk_table *table);
/* Wake this worker if it sleeps for work, or is about to. */
void yk_table_wake_line(const struct yk_table *table, struct yk_line *line);
/* Tell it to end, whatever it waits for. */
void yk_table_stop_line(const struct yk_table *table, struct yk_line *line);
/* Tell the program's waiters to look again. */
void yk_table_announce(const struct yk_table *table);

#endif
