/* SPDX-License-Identifier: MIT
 * fuzz_process.c - single processes and the seed's template, while somebody writes into the
 * control block of the template and the records of processes.
 *
 * An input is a list of starts, waits, signals and releases, of what the template and the
 * processes do, and of writes. Nothing may crash or hang; each handle ends once; what the program
 * made it reaps. Where the template's word for a pid was forged, the real child is nobody's.
 */
#include "process/warm.h"
#include "seam.h"

#include <errno.h>
#include <stdlib.h>

#include <yoke/yoke.h>

#define HANDLES 24
#define OPS_MAX 80
#define PATIENCE_NS 100000000000LL

/* As template.c has it. */
struct template_ctl {
    _Atomic uint32_t request;
    _Atomic uint32_t reply;
    yk_image_entry *entry;
    void *arg;
    int pid;
};

static struct {
    struct input *input;
    yoke_process *handles[HANDLES];
    unsigned char *blocks[64]; /* what the program has in shared memory */
    size_t block_bytes[64];
    unsigned block_count;
    uint32_t served; /* by the template with this pidfd */
    int template;
    bool spoiled;
    bool of_template[OPS_MAX * 4]; /* by the number of the process */
    bool storm; /* somebody writes the reply again and again, and wakes who waits for it */
    bool settling;
} w;

void *__real_yk_heap_alloc(size_t bytes);
void *__wrap_yk_heap_alloc(size_t bytes);
void *__wrap_yk_heap_alloc(size_t bytes)
{
    void *const block = __real_yk_heap_alloc(bytes);
    if (block != NULL) {
        MUST(seam_in_heap(block, bytes));
        memset(block, 0xEE, bytes);
        seam_dirty(block, bytes);
        w.blocks[w.block_count % YK_COUNT_OF(w.blocks)] = block;
        w.block_bytes[w.block_count++ % YK_COUNT_OF(w.blocks)] = bytes;
    }
    return block;
}

static int body(void *arg)
{
    (void)arg;
    abort(); /* played */
}

/* --- the template --------------------------------------------------------------------------- */

static struct template_ctl *template_ctl(void)
{
    struct yk_template *const seed = yk_seed();
    return seed != NULL ? (struct template_ctl *)seed->ctl : NULL;
}

static bool template_lives(void)
{
    struct yk_template *const seed = yk_seed();
    if (seed == NULL || seed->ctl == NULL) {
        return false;
    }
    struct seam_process *const process = seam_process_of(seed->pidfd);
    return !process->ended && !process->killed;
}

/* Serve a request, if there is one; `how` says where it is killed meanwhile. */
static void serve(unsigned how)
{
    struct template_ctl *const ctl = template_ctl();
    if (!template_lives() || how == 1) {
        return;
    }
    if (w.template != yk_seed()->pidfd) {
        w.template = yk_seed()->pidfd; /* a new one */
        w.served = 0;
    }
    /* relaxed: there is one thread. */
    const uint32_t request = atomic_load_explicit(&ctl->request, memory_order_relaxed);
    if (request == w.served) {
        return;
    }
    w.served = request;
    struct seam_process *const self = seam_process_of(yk_seed()->pidfd);
    if (how == 2) {
        seam_end(self, yk_signal_kill());
        return;
    }
    int pid = -EAGAIN;
    if (how != 3) {
        (void)seam_spawn(ctl->entry, ctl->arg, &pid, NULL);
        w.of_template[pid - SEAM_FIRST_FD] = true;
    }
    ctl->pid = pid;
    if (how == 4) {
        seam_end(self, yk_signal_kill());
        return;
    }
    /* relaxed: there is one thread. */
    atomic_store_explicit(&ctl->reply, request, memory_order_relaxed);
}

/* --- hostile writes ------------------------------------------------------------------------- */

static void spoil(struct input *input)
{
    static const int pids[] = {0, 1, -1, -EAGAIN, -ESRCH, INT32_MIN, INT32_MAX};
    static const size_t sizes[] = {8, 4, 1};
    const unsigned shape = take(input, 6);
    unsigned char *place = (unsigned char *)template_ctl();
    if ((shape & 1) != 0 || place == NULL) {
        if (w.block_count == 0) {
            return;
        }
        const unsigned i = take(input, 64) % w.block_count % YK_COUNT_OF(w.blocks);
        place = w.blocks[i] + take(input, 64) % w.block_bytes[i] / 4 * 4;
    } else {
        place += shape == 0 ? offsetof(struct template_ctl, pid) : take(input, 7) * 4;
    }
    uint64_t value = 0;
    switch (take(input, 4)) {
    case 0:
        value = (uint64_t)SEAM_FIRST_FD + take(input, 8); /* some process's pid */
        break;
    case 1:
        value = (uint64_t)(int64_t)pids[take(input, YK_COUNT_OF(pids))];
        break;
    case 2:
        value = take(input, 4);
        value = value == 3 ? 0x5707 : value;
        break;
    default:
        value = take_bytes(input, 8);
        break;
    }
    const size_t bytes = sizes[take(input, 3)];
    w.storm = w.storm || value == 0x5707;
    memcpy(place, &value, bytes);
    seam_dirty(place, bytes);
    w.spoiled = true;
}

/* --- calls ---------------------------------------------------------------------------------- */

static void start(struct input *input)
{
    yoke_process_config config = {.size = sizeof config};
    config.image = take(input, 3) != 0 ? YOKE_SEED : YOKE_SNAPSHOT;
    for (unsigned i = 0; i < HANDLES; i++) {
        if (w.handles[i] == NULL) {
            const int rc = yoke_process_start(&config, body, NULL, &w.handles[i]);
            MUST(rc == 0 || w.handles[i] == NULL);
            MUST(rc == 0 || rc == -EAGAIN || rc == -ENOMEM || rc == -ESRCH || w.spoiled);
            return;
        }
    }
}

static void check_end(const yoke_process_end *end)
{
    MUST(end->code >= -1);
    MUST(end->code <= 255 || w.spoiled);
}

static void use(struct input *input)
{
    const unsigned what = take(input, 6);
    yoke_process **const handle = &w.handles[take(input, HANDLES)];
    yoke_process_end end = {0};
    if (*handle == NULL) {
        return;
    }
    switch (what) {
    case 0:
        (void)yoke_process_kill(*handle);
        break;
    case 1:
        (void)yoke_process_interrupt(*handle);
        break;
    case 2:
        yoke_process_release(*handle);
        *handle = NULL;
        break;
    case 3:
    case 4:
        if (yoke_process_wait(*handle, 0, &end) == 0) {
            check_end(&end);
        }
        break;
    default: {
        const int rc = yoke_process_wait(*handle, seam_now_ns + 1000000000, &end);
        MUST(rc == 0 || rc == -ETIMEDOUT || rc == -EINTR);
        break;
    }
    }
}

/* --- one input ------------------------------------------------------------------------------ */

static void others_step(struct input *input)
{
    switch (take(input, 6)) {
    case 0:
        serve(take(input, 6));
        break;
    case 1:
    case 2:
        spoil(input);
        break;
    case 3:
        seam_now_ns += (int64_t)take_bytes(input, 2) * 100000;
        break;
    case 4:
        if (seam_process_count > 0) {
            seam_end(&seam_processes[take(input, 16) % (unsigned)seam_process_count],
                     take(input, 2) != 0 ? yk_signal_kill() : -(int)take(input, 256));
        }
        break;
    default:
        serve(0);
        break;
    }
}

static bool go_on(void)
{
    if (w.input->left > 0 && !w.settling) {
        others_step(w.input);
        return take(w.input, 32) == 1;
    }
    for (int i = 0; i < seam_process_count; i++) {
        if (seam_processes[i].killed) {
            seam_end(&seam_processes[i], yk_signal_kill());
        }
    }
    if (w.storm && template_ctl() != NULL) {
        template_ctl()->reply += 7;
        seam_now_ns += 10000000;
    } else {
        serve(0);
    }
    return false;
}

static void step(struct input *input)
{
    switch (take(input, 8)) {
    case 0:
        w.settling = true; /* the birth of the seed is honest */
        (void)!yoke_init();
        w.settling = false;
        break;
    case 1:
    case 2:
        start(input);
        break;
    case 3:
    case 4:
        use(input);
        break;
    case 5:
        (void)seam_keeper_step(); /* makes the warm copy */
        break;
    default:
        others_step(input);
        break;
    }
}

static void finish(void)
{
    w.settling = true;
    w.storm = false;
    for (int i = 0; i < seam_process_count; i++) {
        seam_end(&seam_processes[i], yk_signal_kill());
    }
    for (unsigned i = 0; i < HANDLES; i++) {
        yoke_process_end end = {0};
        if (w.handles[i] != NULL) {
            MUST(yoke_process_wait(w.handles[i], seam_now_ns + PATIENCE_NS, &end) == 0);
            check_end(&end);
            yoke_process_release(w.handles[i]);
        }
    }
    yk_warm_discard();
    if (yk_seed() != NULL) {
        yk_template_uproot(yk_seed());
        yk_keeper_drop(); /* yoke_init holds it for ever */
        seam_drop_tickers();
    }
    for (int i = 0; i < seam_process_count; i++) {
        if (w.spoiled && w.of_template[i]) {
            seam_processes[i].reaped = true; /* its pid was perhaps forged: nobody knows of it */
        }
    }
    if (!w.spoiled) {
        yoke_heap_stats stats = {.size = sizeof stats};
        MUST(yoke_heap_stats_get(&stats) == 0);
        MUST(stats.blocks == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    seam_reset();
    memset(&w, 0, sizeof w);
    w.input = &input;
    seam_idle = go_on;
    seam_waits_max = 2000;
    MUST(yk_heap_open() == 0);
    for (unsigned ops = 0; input.left > 0 && ops < OPS_MAX; ops++) {
        seam_waits = 0;
        step(&input);
    }
    seam_waits = 0;
    finish();
    seam_check_leaks();
    return 0;
}
