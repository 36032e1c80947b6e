/* SPDX-License-Identifier: MIT
 * exec_image.c - a template that is another program.   Room: process.
 *
 * The first half of the ticket, and the verdict it points at, stay as they are in all versions:
 * a program with another version of Yoke can say so. It says it, and all its failures, by writing
 * to the descriptor, which works where the heap could not be mapped. What a program claims of
 * itself is copied before it is looked at, and only ever used to name places in that program.
 * Why it is so: docs/adr/0011-exec-images.md.
 */
#include "process/exec_image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MODULES_MAX 4096
#define LOOK_SLICE_NS 5000000LL
#define FAREWELL_NS 1000000000LL
#define TICKET_NAME "YOKE_IMAGE="
#define TICKET_NAME_BYTES (sizeof TICKET_NAME - 1)
#define TICKET_MAGIC "yoke"
#define TICKET_BYTES 320

int64_t yk_exec_patience_ns = 120000000000LL;

enum { VERDICT_NONE = 0, VERDICT_SERVES = 1 }; /* or an error, below 0 */

struct yk_exec_card {
    _Atomic uint32_t verdict; /* an int32_t; first: see above */
    uint32_t range_count;
    struct yk_code_range ranges[MODULES_MAX];
};

/* What is written in the environment, in this order, in hexadecimal, with dots between. */
struct ticket {
    struct yk_shared_object object;
    uint64_t program; /* its process id */
    uint64_t verdict; /* where in the object */
    uint64_t layout;
    /* up to here the same in all versions */
    uint64_t base, bytes;
    uint64_t card, ctl;
};

#define TICKET_NUMBERS 10

/* --- in the program that has the pool ------------------------------------------------------- */

static void print_ticket(char *text, const struct ticket *ticket)
{
    const uint64_t numbers[TICKET_NUMBERS] = {(uint64_t)ticket->object.fd,
                                              ticket->object.device,
                                              ticket->object.inode,
                                              ticket->program,
                                              ticket->verdict,
                                              ticket->layout,
                                              ticket->base,
                                              ticket->bytes,
                                              ticket->card,
                                              ticket->ctl};
    size_t at = (size_t)snprintf(text, TICKET_BYTES, TICKET_NAME TICKET_MAGIC);
    for (size_t i = 0; i < TICKET_NUMBERS; i++) {
        at += (size_t)snprintf(text + at, TICKET_BYTES - at, ".%" PRIx64, numbers[i]);
    }
}

/* env with the ticket, in place of one that we got ourselves. */
static char **make_env(char *const *env, char *ticket)
{
    size_t count = 0;
    while (env[count] != NULL) {
        count++;
    }
    char **const made = malloc((count + 2) * sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(env[i], TICKET_NAME, TICKET_NAME_BYTES) != 0) {
            made[at++] = env[i];
        }
    }
    made[at++] = ticket;
    made[at] = NULL;
    return made;
}

static int run_program(const struct yk_exec_plan *plan, const struct ticket *ticket, int *pidfd)
{
    char text[TICKET_BYTES];
    print_ticket(text, ticket);
    char **const env = make_env(plan->env, text);
    int *const fds = malloc((plan->keep_fd_count + 1) * sizeof *fds);
    int rc = -ENOMEM;
    if (env != NULL && fds != NULL) {
        if (plan->keep_fd_count != 0) {
            memcpy(fds, plan->keep_fds, plan->keep_fd_count * sizeof *fds);
        }
        fds[plan->keep_fd_count] = ticket->object.fd;
        const struct yk_exec_setup setup = {
            .argv = plan->argv,
            .env = env,
            .fds = fds,
            .fd_count = plan->keep_fd_count + 1,
        };
        rc = yk_process_exec(&setup, pidfd);
    }
    free(env);
    free(fds);
    return rc;
}

static void free_blocks(struct yk_exec_start *start)
{
    yk_heap_free(start->card);
    yk_heap_free(start->ctl);
    *start = (struct yk_exec_start){.pidfd = -1};
}

int yk_exec_begin(struct yk_exec_start *start, const struct yk_exec_plan *plan)
{
    struct ticket ticket = {.program = (uint64_t)yk_process_self(), .layout = plan->layout};
    struct yk_heap_handle heap;
    int rc = yk_heap_object(&ticket.object);
    rc = rc == 0 ? yk_heap_export(&heap) : rc;
    if (rc != 0) {
        return rc;
    }
    start->card = yk_heap_alloc(sizeof *start->card);
    start->ctl = yk_template_ctl_make();
    if (start->card == NULL || start->ctl == NULL) {
        free_blocks(start);
        return -ENOMEM;
    }
    start->card->range_count = 0;
    atomic_init(&start->card->verdict, VERDICT_NONE);
    ticket.base = (uint64_t)(uintptr_t)heap.base;
    ticket.bytes = heap.bytes;
    ticket.card = (uint64_t)(uintptr_t)start->card;
    ticket.ctl = (uint64_t)(uintptr_t)start->ctl;
    ticket.verdict = ticket.card - ticket.base;
    rc = run_program(plan, &ticket, &start->pidfd);
    if (rc != 0) {
        free_blocks(start);
        return rc;
    }
    start->failed = false;
    start->until_ns = yk_after(yk_clock_ns(), yk_exec_patience_ns);
    return 0;
}

void yk_exec_abandon(struct yk_exec_start *start)
{
    if (start->card != NULL) {
        yk_child_end(start->pidfd);
        free_blocks(start);
    }
}

/* What a program may say of its failure; all else is some other failure. */
static int failure_of(int32_t verdict)
{
    switch (verdict) {
    case -EEXIST:
    case -EBUSY:
    case -ENOMEM:
    case YOKE_EVERSION:
        return verdict;
    default:
        return YOKE_EINIT;
    }
}

static int32_t verdict_of(const struct yk_exec_start *start)
{
    /* SYNC(exec-verdict) acquire: sees the card filled in, and the template at work. */
    return (int32_t)atomic_load_explicit(&start->card->verdict, memory_order_acquire);
}

int yk_exec_look(struct yk_exec_start *start)
{
    const bool ended = yk_pidfd_ended(start->pidfd, 0); /* before: it may have spoken last */
    const int32_t verdict = verdict_of(start);
    if (verdict == VERDICT_SERVES && !ended) {
        return 0;
    }
    if (verdict != VERDICT_NONE && !start->failed) {
        start->failed = true; /* let it say so to its user, too */
        const int64_t farewell = yk_clock_ns() + FAREWELL_NS;
        start->until_ns = farewell < start->until_ns ? farewell : start->until_ns;
    }
    if (!ended && yk_clock_ns() < start->until_ns) {
        return -EAGAIN;
    }
    yk_exec_abandon(start);
    return ended || verdict != VERDICT_NONE ? failure_of(verdict) : -ETIMEDOUT;
}

int yk_exec_await(struct yk_exec_start *start)
{
    for (;;) {
        const int rc = yk_exec_look(start);
        if (rc != -EAGAIN) {
            return rc;
        }
        /* That it serves ends the wait at once; a death, or another verdict, is seen a moment
         * later. */
        (void)yk_futex_wait(&start->card->verdict, VERDICT_NONE, yk_clock_ns() + LOOK_SLICE_NS,
                            YK_SHARED);
    }
}

int yk_exec_adopt(struct yk_exec_start *start, struct yk_template *template)
{
    const size_t count = start->card->range_count;
    struct yk_ranges ranges = {.room = yk_max(count, 1)};
    void *at = NULL;
    if (count > MODULES_MAX || yk_map_private(ranges.room * sizeof *ranges.at, &at) != 0) {
        yk_exec_abandon(start);
        return count > MODULES_MAX ? YOKE_EINIT : -ENOMEM;
    }
    ranges.at = at;
    ranges.count = count;
    memcpy(ranges.at, start->card->ranges, count * sizeof *ranges.at);
    yk_template_take_over(template, start->ctl, start->pidfd, &ranges);
    start->ctl = NULL;
    free_blocks(start);
    return 0;
}

static bool has_place(const struct yk_code_range *range, uint64_t identity, uintptr_t offset)
{
    return range->identity == identity && range->base + offset >= range->start &&
           range->base + offset < range->end;
}

bool yk_template_has_file(struct yk_template *template, uint64_t identity, uintptr_t offset)
{
    bool found = false;
    yk_mutex_lock(&template->lock);
    for (size_t i = 0; i < template->ranges.count && !found; i++) {
        found = has_place(&template->ranges.at[i], identity, offset);
    }
    yk_mutex_unlock(&template->lock);
    return found;
}

/* --- in the program that serves ------------------------------------------------------------- */

/* Which files we have loaded where; set once, before the first copy. */
static struct yk_ranges loaded;

static bool read_ticket(const char *text, struct ticket *ticket)
{
    uint64_t numbers[TICKET_NUMBERS] = {0};
    if (text == NULL || strncmp(text, TICKET_MAGIC, sizeof TICKET_MAGIC - 1) != 0) {
        return false;
    }
    const char *at = text + sizeof TICKET_MAGIC - 1;
    size_t count = 0;
    while (*at == '.' && count < TICKET_NUMBERS) {
        char *end = NULL;
        numbers[count++] = strtoull(at + 1, &end, 16);
        if (end == at + 1) {
            return false;
        }
        at = end;
    }
    *ticket = (struct ticket){
        .object = {.fd = (int)numbers[0], .device = numbers[1], .inode = numbers[2]},
        .program = numbers[3],
        .verdict = numbers[4],
        .layout = numbers[5],
        .base = numbers[6],
        .bytes = numbers[7],
        .card = numbers[8],
        .ctl = numbers[9],
    };
    return count > 5 && numbers[0] <= INT32_MAX && yk_shared_object_is(&ticket->object);
}

static bool lies_inside(const struct ticket *ticket, uint64_t at, size_t bytes)
{
    return at >= ticket->base && at % sizeof(uint64_t) == 0 && ticket->bytes >= bytes &&
           at - ticket->base <= ticket->bytes - bytes;
}

static int attach(const struct ticket *ticket)
{
    if (!lies_inside(ticket, ticket->card, sizeof(struct yk_exec_card)) ||
        !lies_inside(ticket, ticket->ctl, sizeof(uint64_t))) {
        return -EINVAL;
    }
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): the address is the same in both programs. */
    return yk_map_shared_at(&ticket->object, ticket->bytes, (void *)(uintptr_t)ticket->base);
}

/* On the card, and for ourselves. */
static int list_files(struct yk_exec_card *card)
{
    const size_t room = yk_code_files(NULL, 0);
    void *at = NULL;
    if (room > MODULES_MAX || yk_map_private(room * sizeof *loaded.at, &at) != 0) {
        return -ENOMEM;
    }
    loaded = (struct yk_ranges){.at = at, .room = room};
    loaded.count = yk_min(yk_code_files(loaded.at, room), room);
    memcpy(card->ranges, loaded.at, loaded.count * sizeof *loaded.at);
    card->range_count = (uint32_t)loaded.count;
    return 0;
}

static int prepare(const struct ticket *ticket, uint64_t layout)
{
    if (ticket->layout != layout) {
        return YOKE_EVERSION;
    }
    if (yk_thread_count() != 1 || yk_heap_is_open()) {
        return -EBUSY;
    }
    int rc = attach(ticket);
    if (rc != 0) {
        return rc;
    }
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): as above. */
    rc = list_files((struct yk_exec_card *)(uintptr_t)ticket->card);
    if (rc != 0) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): as above. */
        yk_unmap((void *)(uintptr_t)ticket->base, ticket->bytes);
    }
    return rc;
}

int yk_exec_serve(const char *text, uint64_t layout, yk_image_entry *entry)
{
    struct ticket ticket;
    if (!read_ticket(text, &ticket)) {
        return -EINVAL;
    }
    /* Whoever else got hold of the ticket has no say in how the pool fares. */
    if (!yk_process_follow((int)ticket.program)) {
        return -ECHILD;
    }
    const int32_t rc = prepare(&ticket, layout);
    if (rc != 0) {
        yk_shared_object_write(&ticket.object, (size_t)ticket.verdict, &rc, sizeof rc);
        return rc;
    }
    yk_fd_close(ticket.object.fd);
    /* NOLINTBEGIN(performance-no-int-to-ptr): as above. */
    const struct yk_heap_handle heap = {.base = (void *)(uintptr_t)ticket.base,
                                        .bytes = ticket.bytes};
    struct yk_exec_card *const card = (struct yk_exec_card *)(uintptr_t)ticket.card;
    struct yk_template_ctl *const ctl = (struct yk_template_ctl *)(uintptr_t)ticket.ctl;
    /* NOLINTEND(performance-no-int-to-ptr) */
    yk_image_settle((int)ticket.program, &heap);
    /* SYNC(exec-verdict) release: publishes the card. After this the card is gone. */
    atomic_store_explicit(&card->verdict, VERDICT_SERVES, memory_order_release);
    yk_futex_wake(&card->verdict, 1, YK_SHARED);
    yk_template_serve(ctl, entry);
}

bool yk_exec_base_of(uint64_t identity, uintptr_t *base)
{
    for (size_t i = 0; i < loaded.count; i++) {
        if (loaded.at[i].identity == identity) {
            *base = loaded.at[i].base;
            return true;
        }
    }
    return false;
}
