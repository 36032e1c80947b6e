/* SPDX-License-Identifier: MIT
 * inject.c - the side of inject.h that runs inside the library's calls.
 *
 * It runs in signal-free places of any process and any thread, beside locks that are held: it
 * takes none, and writes to its shared area only.
 */
#include "inject_plan.h"

#define INJECT_PLATFORM
#include "inject.h"

struct inject_area *inject_area;

static int depth = INJECT_PROGRAM;
static _Thread_local int last_error;

const struct inject_errors inject_errors[] = {
    {"malloc", 1, {ENOMEM, -1}},
    {"calloc", 1, {ENOMEM, -1}},
    {"CPU_ALLOC", 1, {ENOMEM, -1}},
    {"access", 1, {ENOENT, -1}},
    {"ioctl", 1, {ENOTTY, EINTR, -1}},
    {"opendir", 3, {EMFILE, ENOENT, ENOMEM, -1}},
    {"recv", 0, {EINTR, -1}},
    {"send", 0, {EAGAIN, -1}}, /* that does not wait */
    {"unlinkat", 0, {EACCES, -1}},
    {"close", 0, {EINTR, EIO, -1}},
    {"dup", 1, {EMFILE, -1}},
    {"dup2", 0, {EMFILE, EINTR, -1}},
    {"dup3", 0, {EMFILE, EINTR, -1}},
    {"epoll_create1", 3, {EMFILE, ENFILE, ENOMEM, -1}},
    {"epoll_ctl", 2, {ENOMEM, ENOSPC, -1}},
    {"epoll_wait", 0, {EINTR, 0, -1}},
    {"eventfd", 3, {EMFILE, ENFILE, ENOMEM, -1}},
    {"fcntl", 0, {EINVAL, EPERM, -1}},
    {"fgets", 0, {EIO, EINTR, -1}},
    {"fopen", 3, {EMFILE, ENOENT, EACCES, -1}},
    {"fork", 2, {EAGAIN, ENOMEM, -1}},
    {"fstat", 0, {EIO, -1}},
    {"ftruncate", 1, {ENOSPC, EINTR, -1}},
    {"getrandom", 1, {ENOSYS, EAGAIN, EINTR, -1}},
    {"getrlimit", 1, {EPERM, -1}},
    {"setrlimit", 1, {EPERM, -1}},
    {"kill", 0, {EPERM, -1}},
    {"madvise", 1, {EINVAL, ENOMEM, -1}},
    {"memfd_create", 4, {EMFILE, ENFILE, ENOMEM, ENOSYS, -1}},
    {"mkdir", 2, {EACCES, ENOSPC, -1}},
    {"mmap", 1, {ENOMEM, EAGAIN, -1}},
    {"munmap", 0, {ENOMEM, -1}},
    {"open", 3, {EMFILE, ENOENT, EACCES, -1}},
    {"openat", 3, {EMFILE, ENOENT, EACCES, -1}},
    {"pipe2", 2, {EMFILE, ENFILE, -1}},
    {"poll", 0, {EINTR, -1}}, /* of one descriptor: no memory to fail */
    {"posix_spawn", 2, {EAGAIN, ENOMEM, -1}},
    {"prctl", 1, {EINVAL, EPERM, -1}},
    {"pthread_atfork", 1, {ENOMEM, -1}},
    {"pthread_attr_init", 1, {ENOMEM, -1}},
    {"pthread_attr_setaffinity_np", 1, {ENOMEM, -1}},
    {"pthread_attr_setstacksize", 0, {-1}}, /* sizes are rounded up to what it takes */
    {"pthread_create", 1, {EAGAIN, ENOMEM, -1}},
    {"pthread_setname_np", 1, {EIO, -1}},
    {"pthread_sigmask", 0, {EINVAL, -1}},
    {"pwrite", 1, {EACCES, EINTR, -1}},
    {"read", 0, {EINTR, EAGAIN, EIO, -1}},
    {"readlink", 1, {EACCES, -1}},
    {"rmdir", 0, {EBUSY, -1}},
    {"sched_getaffinity", 1, {EINVAL, -1}},
    {"setpgid", 0, {EPERM, -1}},
    {"setsid", 0, {EPERM, -1}},
    {"sigaction", 0, {EINVAL, -1}},
    {"socketpair", 2, {EMFILE, ENFILE, -1}},
    {"stat", 1, {EACCES, ENOENT, -1}},
    {"SYS_clone", 2, {EAGAIN, ENOMEM, -1}},
    {"SYS_close_range", 1, {ENOSYS, EPERM, -1}},
    {"SYS_futex", 0, {EINTR, EAGAIN, 0, -1}},
    {"SYS_get_robust_list", 1, {ENOSYS, -1}},
    {"SYS_pidfd_open", 3, {EMFILE, ENFILE, ENOMEM, -1}},
    {"SYS_membarrier", 2, {ENOSYS, EPERM, -1}},
    {"SYS_pidfd_send_signal", 0, {-1}}, /* to a child that was not reaped */
    {"SYS_set_robust_list", 0, {ENOSYS, -1}},
    {"sysconf", 0, {EINVAL, -1}}, /* or there is no limit */
    {"sysinfo", 1, {EPERM, -1}},
    {"unlink", 0, {EACCES, -1}},
    {"waitid", 0, {EINTR, -1}},
    {"waitpid", 0, {EINTR, -1}},
    {"write", 0, {EINTR, EAGAIN, -1}},
    {NULL, 0, {-1}},
};

const struct inject_errors *inject_errors_of(const char *call, const char *function)
{
    static const struct inject_errors never = {"", 0, {-1}}, interrupted = {"", 0, {EINTR, -1}};
    /* A wake of a word of ours, a descriptor that is in the set, a constant, a pipe's or a memfd's
     * own data: nothing can be wrong with these. */
    static const char *const sure[] = {"yk_futex_wake", "yk_epoll_remove", "yk_page_bytes",
                                       "yk_pipe_waiting", "yk_fd_identify"};
    /* An eventfd that is full is readable, so nothing is missed; a pipe has no bad sectors. */
    static const char *const sure_but_for_signals[] = {"yk_eventfd_signal", "yk_fd_read"};
    for (size_t i = 0; i < sizeof sure / sizeof *sure; i++)
        if (strcmp(function, sure[i]) == 0)
            return &never;
    for (size_t i = 0; i < sizeof sure_but_for_signals / sizeof *sure_but_for_signals; i++)
        if (strcmp(function, sure_but_for_signals[i]) == 0)
            return &interrupted;
    const struct inject_errors *at = inject_errors;
    while (at->call != NULL && strcmp(at->call, call) != 0)
        at++;
    return at->call != NULL ? at : NULL;
}

const char *inject_depth_name(int which)
{
    static const char *const names[] = {"program", "image", "worker"};
    return names[which];
}

static const char *base_name(const char *path)
{
    const char *const slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

void inject_place(const struct inject_plan *plan, char *text, size_t bytes)
{
    snprintf(text, bytes, "%s %s: %s", plan->file, plan->function, plan->call);
}

static void put(char *to, const char *text)
{
    const size_t length = strnlen(text, INJECT_TEXT - 1);
    memcpy(to, text, length);
    to[length] = '\0';
}

static void note(struct inject_area *area, const char *file, const char *function, int line,
                 const char *call)
{
    const int count = atomic_load(&area->site_count);
    for (int i = 0; i < count && i < INJECT_SITES; i++) {
        struct inject_site *const site = &area->sites[i];
        if (atomic_load(&site->ready) && site->line == line && strcmp(site->call, call) == 0 &&
            strcmp(site->file, file) == 0) {
            count_up(&site->calls[depth], 1);
            return;
        }
    }
    const int mine = atomic_fetch_add(&area->site_count, 1);
    if (mine >= INJECT_SITES)
        return;
    struct inject_site *const site = &area->sites[mine];
    site->line = line;
    put(site->file, file);
    put(site->function, function);
    put(site->call, call);
    count_up(&site->calls[depth], 1);
    atomic_store(&site->ready, 1);
}

int inject_fails(const char *file, const char *function, int line, const char *call)
{
    struct inject_area *const area = inject_area;
    if (area == NULL)
        return 0;
    const char *const name = base_name(file);
    if (atomic_load(&area->counting))
        note(area, name, function, line, call);
    const struct inject_plan *const plan = &area->plan;
    if (!atomic_load(&area->armed) || plan->line != line || plan->depth != depth ||
        strcmp(plan->call, call) != 0 || strcmp(plan->file, name) != 0)
        return 0;
    const long before = count_up(&area->passed, 1);
    if (before < plan->from || before - plan->from >= plan->times)
        return 0;
    count_up(&area->fired, 1);
    last_error = plan->error;
    errno = plan->error != 0 ? plan->error : errno;
    return 1;
}

int inject_error(void)
{
    return last_error;
}

int inject_minus(void)
{
    return last_error == 0 ? 0 : -1;
}

long inject_copied(const char *call, long result)
{
    if (result == 0 && (strcmp(call, "fork") == 0 || strcmp(call, "SYS_clone") == 0) &&
        depth < INJECT_WORKER)
        depth++;
    return result;
}

#undef mmap
#undef munmap
void *inject_mapped(void *at)
{
    if (inject_area != NULL && depth == INJECT_PROGRAM && at != MAP_FAILED)
        count_up(&inject_area->maps, at != NULL ? 1 : -1);
    return at;
}
