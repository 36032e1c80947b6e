/* SPDX-License-Identifier: MIT
 * template.c - a small process that holds an image of the program and makes copies of it.
 *
 * Argument. The control block is one request at a time: the program writes entry and arg, then
 * `request` (release); the template reads them after it saw `request` change (acquire), clones,
 * writes pid, then `reply` (release). The program holds `lock` from request to reply, and looks
 * at the template's pidfd while it waits, so a killed template is an error and not a hang.
 * How the image is forked: docs/adr/0001-images-and-fork.md. A template that is another program
 * (exec_image.c) serves the same way, but what its copies run is its own to say.   Room: process.
 */
#include "process/template.h"

#include <errno.h>

#include "process/keeper.h"
#include "process/warm.h"

#define REPLY_SLICE_NS 20000000LL
#define REPLY_NS 10000000000LL /* a fork of 500 GB takes less */
#define TRACED_NS 1000000000LL
#define TRACED_SLICE_NS 1000000LL
#define IDLE_SLICE_NS 5000000000LL

struct yk_template_ctl {
    _Atomic uint32_t request; /* counts up */
    _Atomic uint32_t reply;   /* the last request that was served */
    yk_image_entry *entry;
    void *arg;
    int pid; /* 0: none yet; or -errno. Set before the copy runs, whoever is killed when */
};

/* Set before the fork, so that copies know it; in the program itself it is not used. */
static struct {
    int program;
    struct yk_heap_handle heap;
} inherited;

/* --- in the image -------------------------------------------------------------------------- */

static void follow_or_exit(void)
{
    if (!yk_process_follow(inherited.program)) {
        yk_process_exit(0);
    }
}

/* What every image does once, whether template or used at once. */
static void settle(void)
{
    follow_or_exit();
    yk_process_local_wipe();
    yk_keeper_forget();
    yk_worker_role_set();
    yk_signals_reset(true);
    yk_exit_immediately();
}

static void settle_copy(const struct yk_image_setup *setup)
{
    settle();
    yk_stdio_forget();
    yk_fd_close_others(setup->keep_fds, setup->keep_fd_count);
}

/* Descriptors that the program opened are part of it, and what it printed is its own. */
void yk_image_settle(int program, const struct yk_heap_handle *heap)
{
    yk_stdio_flush();
    inherited.program = program;
    inherited.heap = *heap;
    settle();
}

/* In a copy that was made ready beforehand. */
static bool warmed;

void yk_image_check(void)
{
    if (yk_process_parent() != inherited.program) {
        yk_process_exit(0);
    }
}

void yk_image_warm(const char *name, uint32_t owner)
{
    follow_or_exit();
    yk_worker_role_set();
    yk_process_name(name);
    yk_process_oom_raise();
    yk_random_reseed();
    yk_heap_import(&inherited.heap, owner);
    warmed = true;
}

void yk_image_begin(const char *name, uint32_t owner)
{
    if (warmed) {
        yk_process_name(name);
    } else {
        yk_image_warm(name, owner);
    }
}

void yk_template_serve(struct yk_template_ctl *ctl, yk_image_entry *entry)
{
    uint32_t served = 0;
    yk_process_name("yoke-template");
    for (;;) {
        /* SYNC(template-request) acquire: sees entry and arg. */
        const uint32_t request = atomic_load_explicit(&ctl->request, memory_order_acquire);
        if (request == served) {
            /* The parent-death signal ends us; the slice is for programs that lost it. */
            (void)yk_futex_wait(&ctl->request, served, yk_clock_ns() + IDLE_SLICE_NS, YK_SHARED);
            yk_image_check();
            continue;
        }
        served = request;
        yk_image_entry *const run = entry != NULL ? entry : ctl->entry;
        void *const arg = ctl->arg;
        const int pid = yk_clone_quiet(true, &ctl->pid);
        if (pid == 0) {
            run(arg);
            yk_process_exit(0);
        }
        ctl->pid = pid; /* the kernel wrote it already, unless it is an error */
        /* SYNC(template-reply) release: publishes pid. */
        atomic_store_explicit(&ctl->reply, request, memory_order_release);
        yk_futex_wake(&ctl->reply, 1, YK_SHARED);
    }
}

/* --- in the program ------------------------------------------------------------------------ */

/* Beside other threads only libc's fork() may copy us: it leaves malloc usable in the child. */
static int copy_self(const struct yk_image_setup *setup)
{
    const unsigned ours = setup->caller_waits ? 2 : 1; /* the keeper, and who waits for it */
    int pid = -ENOSYS;
    yk_stdio_flush();
    if (setup->before_fork != NULL) {
        setup->before_fork(setup->user);
    } else if (yk_thread_count() <= ours) {
        pid = yk_clone_quiet(false, NULL);
    }
    if (pid == -ENOSYS) {
        pid = yk_fork();
    }
    if (pid != 0 && setup->after_fork_parent != NULL) {
        setup->after_fork_parent(setup->user);
    }
    return pid;
}

static int inherit_set(void)
{
    inherited.program = yk_process_self();
    return yk_heap_export(&inherited.heap);
}

/* *pidfd is -1 when the child has gone already. */
static int open_child(int pid, int *pidfd)
{
    *pidfd = -1;
    const int rc = yk_pidfd_open(pid, pidfd);
    if (rc == 0 || rc == -ESRCH) {
        return 0;
    }
    yk_child_discard(pid); /* no descriptor left to watch it with */
    return rc;
}

int yk_image_fork(const struct yk_image_setup *setup, yk_image_entry *entry, void *arg, int *pid,
                  int *pidfd)
{
    int rc = inherit_set();
    if (rc != 0) {
        return rc;
    }
    const int child = copy_self(setup);
    if (child == 0) {
        settle_copy(setup);
        entry(arg);
        yk_process_exit(0);
    }
    if (child < 0) {
        return child;
    }
    *pid = child;
    return open_child(child, pidfd);
}

static void forget_ranges(struct yk_ranges *ranges)
{
    if (ranges->at != NULL) {
        yk_unmap(ranges->at, ranges->room * sizeof *ranges->at);
    }
    *ranges = (struct yk_ranges){0};
}

/* In a mapping of its own: it lives as long as the template, which may be for ever. */
static int record_ranges(struct yk_ranges *ranges)
{
    size_t room = yk_code_ranges(NULL, 0) + 8;
    for (;;) {
        void *at = NULL;
        if (yk_map_private(room * sizeof *ranges->at, &at) != 0) {
            return -ENOMEM;
        }
        *ranges = (struct yk_ranges){.at = at, .room = room};
        ranges->count = yk_code_ranges(ranges->at, room);
        if (ranges->count <= room) {
            return 0;
        }
        room = ranges->count + 8;
        forget_ranges(ranges);
    }
}

static const struct yk_code_range *range_of(const struct yk_code_range *ranges, size_t count,
                                            uintptr_t fn)
{
    for (size_t i = 0; i < count; i++) {
        if (fn >= ranges[i].start && fn < ranges[i].end) {
            return &ranges[i];
        }
    }
    return NULL;
}

static bool holds(struct yk_template *template, uintptr_t fn)
{
    enum { NOW_MAX = 512 };
    yk_mutex_lock(&template->lock);
    const struct yk_code_range *const found =
        range_of(template->ranges.at, template->ranges.count, fn);
    const struct yk_code_range then = found != NULL ? *found : (struct yk_code_range){0};
    yk_mutex_unlock(&template->lock);
    if (then.end == 0) {
        return false;
    }
    /* The same address may by now belong to another library. */
    struct yk_code_range now[NOW_MAX];
    const size_t count = yk_min(yk_code_ranges(now, NOW_MAX), NOW_MAX);
    const struct yk_code_range *const here = range_of(now, count, fn);
    return here == NULL || here->identity == then.identity;
}

int yk_template_holds(struct yk_template *template, uintptr_t fn)
{
    /* relaxed: the address is all there is to see. */
    if (atomic_load_explicit(&template->known_fn, memory_order_relaxed) == fn) {
        return 0;
    }
    if (!holds(template, fn)) {
        return YOKE_EIMAGE;
    }
    /* relaxed: as above. */
    atomic_store_explicit(&template->known_fn, fn, memory_order_relaxed);
    return 0;
}

static bool is_reaped(int pidfd)
{
    const struct yk_exit_status status = yk_pidfd_reap(pidfd);
    return status.code >= 0 || status.signal != 0 || yk_pidfd_signal(pidfd, 0) == -ESRCH;
}

void yk_child_end(int pidfd)
{
    yk_pidfd_signal(pidfd, yk_signal_kill());
    (void)yk_pidfd_ended(pidfd, YOKE_FOREVER);
    /* Who traces it has the first look: a debugger, or the leak checker that it started itself. */
    const int64_t until = yk_clock_ns() + TRACED_NS;
    while (!is_reaped(pidfd) && yk_clock_ns() < until) {
        _Atomic uint32_t never = 0;
        (void)yk_futex_wait(&never, 0, yk_clock_ns() + TRACED_SLICE_NS, YK_PRIVATE);
    }
    yk_fd_close(pidfd);
}

/* Fork the template that serves ctl. No lock is held: hooks and fork handlers of the program run. */
static int fork_template(struct yk_template_ctl *ctl, const struct yk_image_setup *setup,
                         int *pidfd)
{
    const int pid = copy_self(setup);
    if (pid == 0) {
        settle_copy(setup);
        yk_template_serve(ctl, NULL);
    }
    const int rc = pid < 0 ? pid : open_child(pid, pidfd);
    return rc == 0 && *pidfd < 0 ? -EAGAIN : rc; /* dead already */
}

static void discard_locked(struct yk_template *template) YK_REQUIRES(template->lock)
{
    if (template->ctl != NULL) {
        yk_child_end(template->pidfd);
        yk_heap_free(template->ctl);
        template->ctl = NULL;
    }
    forget_ranges(&template->ranges);
}

struct yk_template_ctl *yk_template_ctl_make(void)
{
    struct yk_template_ctl *const ctl = yk_heap_alloc(sizeof *ctl);
    if (ctl != NULL) {
        memset(ctl, 0, sizeof *ctl);
    }
    return ctl;
}

void yk_template_take_over(struct yk_template *template, struct yk_template_ctl *ctl, int pidfd,
                           const struct yk_ranges *ranges)
{
    yk_mutex_lock(&template->lock);
    discard_locked(template);
    template->ranges = *ranges;
    /* relaxed: who saw the old one saw the old image. */
    atomic_store_explicit(&template->known_fn, 0, memory_order_relaxed);
    template->pidfd = pidfd;
    template->ctl = ctl;
    template->requests = 0;
    yk_mutex_unlock(&template->lock);
}

int yk_template_plant(struct yk_template *template, const struct yk_image_setup *setup)
{
    int rc = inherit_set();
    struct yk_template_ctl *const ctl = rc == 0 ? yk_template_ctl_make() : NULL;
    if (ctl == NULL) {
        return rc != 0 ? rc : -ENOMEM;
    }
    struct yk_ranges ranges = {0};
    int pidfd = -1;
    rc = record_ranges(&ranges);
    rc = rc == 0 ? fork_template(ctl, setup, &pidfd) : rc;
    if (rc != 0) {
        forget_ranges(&ranges);
        yk_heap_free(ctl);
        return rc;
    }
    yk_template_take_over(template, ctl, pidfd, &ranges);
    return 0;
}

void yk_template_uproot(struct yk_template *template)
{
    yk_mutex_lock(&template->lock);
    discard_locked(template);
    yk_mutex_unlock(&template->lock);
}

bool yk_template_is_dead(struct yk_template *template)
{
    yk_mutex_lock(&template->lock);
    const bool dead = template->ctl == NULL || yk_pidfd_ended(template->pidfd, 0);
    yk_mutex_unlock(&template->lock);
    return dead;
}

static int await_reply(struct yk_template *template, uint32_t request)
{
    const int64_t until = yk_clock_ns() + REPLY_NS;
    for (;;) {
        /* SYNC(template-reply) acquire: sees pid. */
        const uint32_t reply = atomic_load_explicit(&template->ctl->reply, memory_order_acquire);
        if (reply == request) {
            return 0;
        }
        const int rc =
            yk_futex_wait(&template->ctl->reply, reply, yk_clock_ns() + REPLY_SLICE_NS, YK_SHARED);
        /* A worker that writes here again and again keeps us from sleeping, not from looking. */
        const bool look = rc == -ETIMEDOUT || yk_clock_ns() > until;
        if (look && yk_pidfd_ended(template->pidfd, 0)) {
            /* Killed after it made the copy, but before it could say so? */
            return template->ctl->pid > 0 ? 0 : -ESRCH;
        }
        if (yk_clock_ns() > until) {
            yk_pidfd_signal(template->pidfd, yk_signal_kill()); /* stopped, or worse */
        }
    }
}

static int request(struct yk_template *template, yk_image_entry *entry, void *arg)
    YK_REQUIRES(template->lock)
{
    struct yk_template_ctl *const ctl = template->ctl;
    ctl->entry = entry;
    ctl->arg = arg;
    ctl->pid = 0;
    const uint32_t number = ++template->requests;
    /* SYNC(template-request) release: publishes entry and arg. */
    atomic_store_explicit(&ctl->request, number, memory_order_release);
    yk_futex_wake(&ctl->request, 1, YK_SHARED);
    const int rc = await_reply(template, number);
    return rc != 0 ? rc : ctl->pid;
}

int yk_template_spawn(struct yk_template *template, yk_image_entry *entry, void *arg, int *pid,
                      int *pidfd)
{
    yk_mutex_lock(&template->lock);
    const int child = template->ctl != NULL ? request(template, entry, arg) : -ESRCH;
    yk_mutex_unlock(&template->lock);
    if (child <= 0) {
        return child == 0 ? -EAGAIN : child;
    }
    *pid = child;
    return open_child(child, pidfd);
}

/* --- the seed ------------------------------------------------------------------------------ */

struct seed {
    yk_mutex lock;
    _Atomic bool planted;
    struct yk_template template;
};

_Static_assert(sizeof(struct seed) <= YK_LOCAL_BYTES, "fits the area that forks wipe");

/* On the keeper, which makes the copies too: none of the old seed's is made after the old one goes. */
static int plant_seed(void *arg)
{
    const struct yk_image_setup setup = {.caller_waits = true};
    yk_warm_discard();
    return yk_template_plant(arg, &setup);
}

static int plant_seed_locked(struct seed *seed) YK_REQUIRES(seed->lock)
{
    /* relaxed: under lock. */
    const bool planted = atomic_load_explicit(&seed->planted, memory_order_relaxed);
    if (planted && !yk_template_is_dead(&seed->template)) {
        return 0;
    }
    int rc = planted ? 0 : yk_keeper_hold(); /* for ever, as the seed */
    if (rc != 0) {
        return rc;
    }
    rc = yk_keeper_call(plant_seed, &seed->template);
    if (rc != 0 && !planted) {
        yk_keeper_drop();
    }
    if (rc != 0) {
        return rc;
    }
    /* SYNC(seed) release: publishes the template. */
    atomic_store_explicit(&seed->planted, true, memory_order_release);
    return 0;
}

int yoke_init(void)
{
    if (yk_worker_role()) {
        return YOKE_ENESTED;
    }
    struct seed *const seed = yk_process_local(YK_LOCAL_SEED);
    if (seed == NULL) {
        return -ENOMEM;
    }
    yk_mutex_lock(&seed->lock);
    const int rc = plant_seed_locked(seed);
    yk_mutex_unlock(&seed->lock);
    return rc;
}

struct yk_template *yk_seed(void)
{
    struct seed *const seed = yk_process_local(YK_LOCAL_SEED);
    /* SYNC(seed) acquire: sees the template. */
    const bool planted = seed != NULL && atomic_load_explicit(&seed->planted, memory_order_acquire);
    return planted ? &seed->template : NULL;
}
