/* SPDX-License-Identifier: MIT
 * claim.c - claiming and completing tasks, and waking workers.   Room: pool.
 *
 * Argument. A claim is one CAS, so a slot has one owner, and a claimer that dies before it has
 * left no trace, after it is the owner. head moves only past what cannot be READY any more, see
 * table.h. Sleep and wake are Dekker's pattern thrice, each side writes its own word and then
 * reads the other's, all seq_cst:
 *   worker:  sleepers bit, then tail            submitter: tail, then sleepers bits
 *   worker:  word (DONE), then notify           waiter:    notify, then word
 *   spinner: spinners bit cleared, then tail    submitter: tail, then spinners bits
 * so at least one of the two sees the other, and no wake is lost.
 */
#include "pool/table.h"

static uint64_t load_word(struct yk_slot *slot)
{
    /* SYNC(slot-word) acquire: READY: sees what the submitter filled in. */
    return atomic_load_explicit(&slot->word, memory_order_acquire);
}

static bool claim(struct yk_slot *slot, uint64_t seen, uint32_t owner, uint64_t *word)
{
    const uint64_t mine = yk_word(yk_word_ticket(seen), owner, YK_CLAIMED);
    /* SYNC(slot-word) acquire: sees what the submitter filled in. */
    if (!atomic_compare_exchange_strong_explicit(&slot->word, &seen, mine, memory_order_acquire,
                                                 memory_order_relaxed)) {
        return false;
    }
    *word = mine;
    return true;
}

static uint64_t load_head(const struct yk_table *table)
{
    /* relaxed: a hint; the slots themselves are looked at with acquire. */
    return atomic_load_explicit(&table->ctl->head, memory_order_relaxed);
}

/* A store and no CAS, which would cost as much as the claim itself. If others went further between
 * the look and the store, head moves back: tickets that are not READY are passed once more. */
static void advance_head(const struct yk_table *table, uint64_t from)
{
    if (load_head(table) == from) {
        /* relaxed: a hint; the slots themselves are looked at with acquire. */
        atomic_store_explicit(&table->ctl->head, from + 1, memory_order_relaxed);
    }
}

static uint64_t load_tail(const struct yk_table *table)
{
    /* SYNC(tail) seq_cst: after our sleepers bit, see above; slots below it are published. */
    return atomic_load_explicit(&table->ctl->tail, memory_order_seq_cst);
}

static struct yk_slot *slot_of_ticket(const struct yk_table *table, uint64_t ticket)
{
    return &table->slots[yk_slot_of(table, ticket)];
}

/* Below the tail that we saw the slot at head was published: claim it blindly, which moves its
 * line once and not twice (to read, then to write), and send for the next one. */
static struct yk_slot *claim_published(const struct yk_table *table, struct yk_claimer *claimer,
                                       uint64_t head, uint64_t *word)
{
    struct yk_slot *const slot = slot_of_ticket(table, head);
    if (head + 1 < claimer->known_tail) {
        yk_prefetch_to_write(slot_of_ticket(table, head + 1));
    }
    return claim(slot, yk_word((uint32_t)head, 0, YK_READY), claimer->owner, word) ? slot : NULL;
}

/* Claim what is READY at head; else, if tail is beyond it, pass it. False: there is nothing. */
static bool claim_or_pass(const struct yk_table *table, struct yk_claimer *claimer, uint64_t head,
                          struct yk_slot **claimed, uint64_t *word)
{
    struct yk_slot *const slot = slot_of_ticket(table, head);
    uint64_t seen = load_word(slot);
    if (yk_word_phase(seen) != YK_READY) {
        claimer->known_tail = load_tail(table);
        if ((int64_t)(claimer->known_tail - head) <= 0) {
            return false;
        }
        /* Only what is not READY now, after tail was seen beyond it, may be passed. */
        seen = load_word(slot);
    }
    if (yk_word_phase(seen) != YK_READY) {
        advance_head(table, head);
    } else if (claim(slot, seen, claimer->owner, word)) {
        *claimed = slot;
    }
    return true;
}

struct yk_slot *yk_table_claim(const struct yk_table *table, struct yk_claimer *claimer,
                               uint64_t *word)
{
    for (;;) {
        const uint64_t head = load_head(table);
        struct yk_slot *slot = NULL;
        if ((int64_t)(claimer->known_tail - head) > 0) {
            slot = claim_published(table, claimer, head, word);
        }
        if (slot == NULL && !claim_or_pass(table, claimer, head, &slot, word)) {
            return NULL;
        }
        if (slot != NULL) {
            advance_head(table, head);
            return slot;
        }
    }
}

bool yk_table_has_known(const struct yk_table *table, const struct yk_claimer *claimer)
{
    return (int64_t)(claimer->known_tail - load_head(table)) > 0;
}

bool yk_table_look_ahead(const struct yk_table *table, struct yk_claimer *claimer)
{
    if (yk_table_has_known(table, claimer)) {
        return true;
    }
    claimer->known_tail = load_tail(table);
    const int64_t known = (int64_t)(claimer->known_tail - load_head(table));
    claimer->batches = known > 0 ? known > 1 : claimer->batches;
    return known > 0;
}

bool yk_table_claim_at(struct yk_slot *slot, uint32_t ticket, uint32_t owner, uint64_t *word)
{
    return claim(slot, yk_word(ticket, 0, YK_READY), owner, word);
}

bool yk_table_looks_ready(const struct yk_table *table)
{
    return yk_word_phase(load_word(slot_of_ticket(table, load_head(table)))) == YK_READY;
}

bool yk_table_looks_empty(const struct yk_table *table)
{
    return !yk_table_looks_ready(table) && (int64_t)(load_tail(table) - load_head(table)) <= 0;
}

void yk_table_announce(const struct yk_table *table)
{
    /* SYNC(event) release: who sees the count sees what it counts. */
    atomic_fetch_add_explicit(&table->ctl->event, 1, memory_order_release);
    yk_futex_wake(&table->ctl->event, INT32_MAX, table->scope);
}

bool yk_table_complete(const struct yk_table *table, struct yk_slot *slot, uint64_t claimed)
{
    const uint64_t done = yk_word(yk_word_ticket(claimed), yk_word_owner(claimed), YK_DONE);
    /* SYNC(slot-word) seq_cst: publishes the answer; before notify is read, see above. */
    if (!atomic_compare_exchange_strong_explicit(&slot->word, &claimed, done, memory_order_seq_cst,
                                                 memory_order_relaxed)) {
        return false;
    }
    /* SYNC(notify) seq_cst: after the word. The slot may be in use again by now: then a wake that
     * nobody needs is all that can come of it. */
    if (atomic_load_explicit(&slot->notify, memory_order_seq_cst) != 0) {
        yk_table_announce(table);
    }
    return true;
}

void yk_table_wake_line(const struct yk_table *table, struct yk_line *line)
{
    /* SYNC(line-wake) release: a worker that goes to sleep after this sees why it should not. */
    atomic_store_explicit(&line->wake, 0, memory_order_release);
    yk_futex_wake(&line->wake, 1, table->scope);
}

void yk_table_stop_line(const struct yk_table *table, struct yk_line *line)
{
    /* SYNC(line-state) release: what was done before the order is seen by the worker. */
    atomic_store_explicit(&line->state, YK_LINE_STOP, memory_order_release);
    yk_futex_wake(&line->state, 1, table->scope);
    yk_table_wake_line(table, line);
}

unsigned yk_table_spinners(const struct yk_table *table)
{
    unsigned count = 0;
    for (size_t i = 0; table->ctl->spinners_max != 0 && i <= table->line_count / 64; i++) {
        /* SYNC(spinners) seq_cst: after tail was written, see above. */
        count +=
            yk_count_bits(atomic_load_explicit(&table->ctl->spinners[i], memory_order_seq_cst));
    }
    return count;
}

/* At most so many; how many. */
static size_t wake(const struct yk_table *table, size_t most)
{
    size_t woken = 0;
    for (size_t i = 0; i <= table->line_count / 64; i++) {
        /* SYNC(sleepers) seq_cst: after tail was written, see above. */
        uint64_t bits = atomic_load_explicit(&table->ctl->sleepers[i], memory_order_seq_cst);
        for (; bits != 0 && woken < most; bits &= bits - 1) {
            const unsigned bit = yk_lowest_bit(bits);
            const size_t index = i * 64 + bit;
            /* SYNC(sleepers) seq_cst: who clears the bit is the one who wakes. */
            const uint64_t before = atomic_fetch_and_explicit(&table->ctl->sleepers[i],
                                                              ~(1ULL << bit), memory_order_seq_cst);
            if ((before >> bit & 1) != 0 && index < table->line_count) {
                yk_table_wake_line(table, &table->lines[index]);
                woken++;
            }
        }
        if (woken == most) {
            break;
        }
    }
    return woken;
}

bool yk_table_wake_one(const struct yk_table *table)
{
    return wake(table, 1) != 0;
}

void yk_table_wake_all(const struct yk_table *table)
{
    (void)wake(table, SIZE_MAX);
}
