/* SPDX-License-Identifier: MIT
 * main.c - the supervisor: a tiny program that runs another one and ends all that comes of it.
 *
 * Idea: it is a child subreaper, so whatever its program starts stays below it, also what forked
 * twice or made a session of its own. It kills its children until none is left: orphans of those
 * it killed become its children. It does so when the program ends, when it is told to, and when
 * the Yoke program is gone (a pidfd says so, or the end of the socket).
 * It has no libc and about ten pages of memory; it lies in the library as a byte array and is
 * executed from a nameless file, so it shares nothing with the Yoke program: not its memory, its
 * size, its core dump or its trouble with the out-of-memory killer.   Room: platform.
 */
#include <linux/prctl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "platform/linux/supervisor/protocol.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define CHILD_STACK_BYTES 16384
#define TEXT_BYTES 4096
#define DEPTH_MAX 64
#define PID_MAX 4194304
#define NS_PER_MS 1000000L
#define KILL_AGAIN_MS 20
#define CLOSE_BY_HAND_MAX 65536
#define HOPELESS_ROUNDS 50 /* of KILL_AGAIN_MS without a child that we may kill */

/* After the start these are all its descriptors. */
enum { CONTROL, HOST, CHILDREN, FD_COUNT };

struct child {
    char **argv;
    char **environment;
    const struct yk_sup_task *task;
    int self;
    volatile long error;
};

struct supervisor {
    struct yk_sup_task task;
    int program;    /* pid */
    int status;     /* of the program */
    int has_ended;  /* the program has */
    int is_killing; /* everything has to go */
    int alone;      /* no child is left */
};

/* The compiler may call these. */
void *memset(void *at, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);

void *memset(void *at, int byte, size_t count)
{
    for (volatile unsigned char *b = at; count > 0; count--) {
        *b++ = (unsigned char)byte;
    }
    return at;
}

void *memcpy(void *to, const void *from, size_t count)
{
    volatile unsigned char *t = to;
    for (const unsigned char *f = from; count > 0; count--) {
        *t++ = *f++;
    }
    return to;
}

/* --- text ---------------------------------------------------------------------------------- */

static char *put_text(char *at, const char *text)
{
    while (*text != '\0') {
        *at++ = *text++;
    }
    *at = '\0';
    return at;
}

static char *put_number(char *at, int number)
{
    char digits[12];
    int count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0) {
        *at++ = digits[--count];
    }
    *at = '\0';
    return at;
}

static int number_of(const char *text)
{
    int number = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        number = number * 10 + (*text - '0');
    }
    return number;
}

/* --- who is below whom --------------------------------------------------------------------- */

typedef void visit_fn(void *arg, int pid);

/* Visit every number in a file of numbers. False: it cannot be opened. */
static int each_number(const char *path, visit_fn *visit, void *arg)
{
    const long fd = YK_SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return 0;
    }
    char text[TEXT_BYTES];
    int number = 0;
    long got = 0;
    while ((got = YK_SYS(SYS_read, fd, text, sizeof text)) > 0) {
        for (long i = 0; i < got; i++) {
            /* NOLINTNEXTLINE(clang-analyzer-core.*): the kernel filled it. */
            if (text[i] >= '0' && text[i] <= '9') {
                number = number * 10 + (text[i] - '0');
            } else if (number != 0) {
                visit(arg, number);
                number = 0;
            }
        }
    }
    if (number != 0) {
        visit(arg, number);
    }
    YK_SYS(SYS_close, fd);
    return 1;
}

struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

/* Visit every entry of a folder that is a number. */
static void each_entry(const char *path, visit_fn *visit, void *arg)
{
    const long fd = YK_SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    _Alignas(struct entry) char text[TEXT_BYTES];
    long got = 0;
    while ((got = YK_SYS(SYS_getdents64, fd, text, sizeof text)) > 0) {
        for (long at = 0; at < got;) {
            const struct entry *const entry = (const struct entry *)(text + at);
            const int number = number_of(entry->name);
            if (number != 0) {
                visit(arg, number);
            }
            /* NOLINTNEXTLINE(clang-analyzer-core.*): the kernel filled it. */
            at += entry->bytes;
        }
    }
    YK_SYS(SYS_close, fd);
}

/* The parent of a process, or 0. */
static int parent_of(int pid)
{
    char text[TEXT_BYTES];
    put_text(put_number(put_text(text, "/proc/"), pid), "/stat");
    const long fd = YK_SYS(SYS_openat, AT_FDCWD, text, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return 0;
    }
    const long got = YK_SYS(SYS_read, fd, text, sizeof text - 1);
    YK_SYS(SYS_close, fd);
    text[got > 0 ? got : 0] = '\0';
    const char *after_name = NULL;
    for (const char *c = text; *c != '\0'; c++) {
        after_name = *c == ')' ? c : after_name;
    }
    /* ") S 123": the state, then the parent. */
    return after_name != NULL && after_name[1] != '\0' && after_name[2] != '\0' &&
                   after_name[3] != '\0'
               ? number_of(after_name + 4)
               : 0;
}

struct walk {
    visit_fn *visit;
    void *arg;
    int parent;
};

static void visit_if_child(void *arg, int pid)
{
    struct walk *const walk = arg;
    if (parent_of(pid) == walk->parent) {
        walk->visit(walk->arg, pid);
    }
}

/* There is none in some sandboxes, and where it is that of another namespace, it counts otherwise:
 * what has a number there is a stranger here. */
static int proc_is_ours(int self)
{
    char text[TEXT_BYTES / 32];
    const long got = YK_SYS(SYS_readlinkat, AT_FDCWD, "/proc/self", text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    return number_of(text) == self;
}

/* Nobody but our children can be waited for. Slow: all numbers there may be. */
static void each_waitable(visit_fn *visit, void *arg)
{
    for (int pid = 1; pid <= PID_MAX; pid++) {
        if (YK_SYS(SYS_waitid, P_PID, pid, 0, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0) {
            visit(arg, pid);
        }
    }
}

/* Visit our own children: from the kernel's list of them, or, where it has none, from all. */
static void each_child(int self, visit_fn *visit, void *arg)
{
    if (!proc_is_ours(self)) {
        each_waitable(visit, arg);
    } else if (!each_number("/proc/thread-self/children", visit, arg)) {
        struct walk walk = {.visit = visit, .arg = arg, .parent = self};
        each_entry("/proc", visit_if_child, &walk);
    }
}

/* --- signals to many ----------------------------------------------------------------------- */

struct shot {
    int signal;
    int parent; /* whose children are visited, 0: ours */
    int depth;
    int hits;
};

static void shoot_below(struct shot *shot, int pid);

/* Our own child: until we reap it its number is its own. */
static void shoot_child(void *arg, int pid)
{
    struct shot *const shot = arg;
    shot->hits += YK_SYS(SYS_kill, pid, shot->signal) == 0;
}

static void shoot_child_and_below(void *arg, int pid)
{
    shoot_child(arg, pid);
    shoot_below(arg, pid);
}

/* Somebody else's child: it may be gone and its number another's, so look once it is held. */
static void shoot_grandchild(void *arg, int pid)
{
    struct shot *const shot = arg;
    const long pidfd = YK_SYS(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        return;
    }
    const int parent = parent_of(pid); /* us, if that one has died by now */
    const int is_below = parent == shot->parent || parent == YK_SYS(SYS_getpid, 0);
    if (is_below) {
        shot->hits += YK_SYS(SYS_pidfd_send_signal, pidfd, shot->signal, 0, 0) == 0;
        shoot_below(shot, pid);
    }
    YK_SYS(SYS_close, pidfd);
}

static void shoot_from_thread(void *arg, int tid)
{
    struct shot *const shot = arg;
    char path[TEXT_BYTES / 32];
    char *const end = put_text(put_number(put_text(path, "/proc/"), shot->parent), "/task/");
    put_text(put_number(end, tid), "/children");
    each_number(path, shoot_grandchild, shot);
}

static void shoot_below(struct shot *shot, int pid)
{
    if (shot->depth >= DEPTH_MAX) {
        return;
    }
    struct shot below = {.signal = shot->signal, .parent = pid, .depth = shot->depth + 1};
    char path[TEXT_BYTES / 32];
    put_text(put_number(put_text(path, "/proc/"), pid), "/task");
    each_entry(path, shoot_from_thread, &below);
}

static void obey(struct supervisor *sup, const struct yk_sup_command *command)
{
    struct shot shot = {.signal = command->signal};
    if (command->whom == YK_SUP_KILL) {
        sup->is_killing = 1;
    } else if (command->whom == YK_SUP_TREE) {
        const int self = (int)YK_SYS(SYS_getpid, 0);
        each_child(self, proc_is_ours(self) ? shoot_child_and_below : shoot_child, &shot);
    } else if (!sup->has_ended) { /* else the number may be another's by now */
        const int group = command->whom == YK_SUP_GROUP;
        if (!group || YK_SYS(SYS_kill, -sup->program, command->signal) != 0) {
            YK_SYS(SYS_kill, sup->program, command->signal); /* it may have left its group */
        }
    }
}

/* --- its life ------------------------------------------------------------------------------ */

static void report(int control, int what, const struct supervisor *sup, long error)
{
    struct yk_sup_report message = {
        .what = what,
        .pid = sup->program,
        .error = (int32_t)error,
        .status = sup->status,
    };
    if (what == YK_SUP_ENDED) {
        YK_SYS(SYS_getrusage, RUSAGE_CHILDREN, &message.usage);
    }
    YK_SYS(SYS_sendto, control, &message, sizeof message, 0x4000 /* MSG_NOSIGNAL */);
}

/* In the child, which still has our memory. */
static void become_program(void *arg)
{
    struct child *const child = arg;
    YK_SYS(SYS_setpgid, 0, 0);
    YK_SYS(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
    long rc = YK_SYS(SYS_getppid, 0) == child->self ? 0 : -ECHILD;
    rc = rc == 0 ? yk_raw_limits(child->task->limits, child->task->limit_count) : rc;
    if (rc == 0) {
        yk_raw_mask(0);
        rc = yk_raw_exec(child->argv, child->environment);
    }
    child->error = rc;
    yk_raw_exit(127);
}

static long start_program(struct supervisor *sup, char **argv, char **environment)
{
    _Alignas(16) char stack[CHILD_STACK_BYTES];
    struct child child = {
        .argv = argv,
        .environment = environment,
        .task = &sup->task,
        .self = (int)YK_SYS(SYS_getpid, 0),
    };
    const long pid = yk_raw_vfork(CLONE_VM | CLONE_VFORK | SIGCHLD, stack + sizeof stack, NULL,
                                  become_program, &child);
    if (pid < 0) {
        return pid;
    }
    sup->program = (int)pid;
    if (child.error != 0) {
        YK_SYS(SYS_wait4, pid, 0, __WALL, 0); /* or it is left to whoever becomes its parent */
    }
    return child.error;
}

static void reap(struct supervisor *sup)
{
    for (;;) {
        int status = 0;
        const long pid = YK_SYS(SYS_wait4, -1, &status, WNOHANG | __WALL, 0);
        if (pid == sup->program) {
            sup->has_ended = 1;
            sup->status = status;
            report(CONTROL, YK_SUP_ENDED, sup, 0); /* in case that we do not get to the end */
        }
        if (pid <= 0) {
            sup->alone = pid == -ECHILD;
            return;
        }
    }
}

static void kill_all(struct supervisor *sup)
{
    int hopeless = 0;
    const int self = (int)YK_SYS(SYS_getpid, 0);
    while (!sup->alone && hopeless < HOPELESS_ROUNDS) {
        struct shot shot = {.signal = SIGKILL};
        each_child(self, shoot_child, &shot);
        hopeless = shot.hits > 0 ? 0 : hopeless + 1; /* all are another user's now */
        struct pollfd wait = {.fd = CHILDREN, .events = POLLIN};
        const struct timespec slice = {.tv_nsec = KILL_AGAIN_MS * NS_PER_MS};
        YK_SYS(SYS_ppoll, &wait, 1, &slice, 0, YK_MASK_BYTES);
        char drained[TEXT_BYTES];
        YK_SYS(SYS_read, CHILDREN, drained, sizeof drained);
        reap(sup);
    }
}

static void watch(struct supervisor *sup)
{
    struct pollfd wait[FD_COUNT] = {
        {.fd = CONTROL, .events = POLLIN},
        {.fd = HOST, .events = POLLIN},
        {.fd = CHILDREN, .events = POLLIN},
    };
    while (!sup->has_ended && !sup->is_killing) {
        const long ready = YK_SYS(SYS_ppoll, wait, FD_COUNT, 0, 0, YK_MASK_BYTES);
        if (ready <= 0) {
            sup->is_killing = ready != -EINTR; /* we could not hear of anything any more */
            continue;
        }
        if (wait[CHILDREN].revents != 0) {
            char drained[TEXT_BYTES];
            YK_SYS(SYS_read, CHILDREN, drained, sizeof drained);
            reap(sup);
        }
        if (wait[HOST].revents != 0) {
            sup->is_killing = 1;
        } else if (wait[CONTROL].revents != 0) {
            struct yk_sup_command command;
            const long got = YK_SYS(SYS_read, CONTROL, &command, sizeof command);
            if (got == sizeof command) {
                obey(sup, &command);
            } else if (got != -EINTR && got != -EAGAIN) {
                sup->is_killing = 1;
            }
        }
    }
    if (sup->is_killing || !sup->task.leave) {
        kill_all(sup);
    }
}

/* Below FD_COUNT it would be written over too early. */
static long lift(long fd)
{
    return fd >= 0 && fd < FD_COUNT ? YK_SYS(SYS_fcntl, fd, F_DUPFD_CLOEXEC, FD_COUNT) : fd;
}

/* What we watch, before there is anything to watch. */
static long open_all(long fds[FD_COUNT], int control, int host)
{
    const uint64_t child_only = 1ULL << (SIGCHLD - 1);
    fds[CONTROL] = lift(control);
    fds[HOST] = lift(YK_SYS(SYS_pidfd_open, host, 0));
    fds[CHILDREN] =
        lift(YK_SYS(SYS_signalfd4, -1, &child_only, YK_MASK_BYTES, O_CLOEXEC | O_NONBLOCK));
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i] < 0) {
            return fds[i];
        }
    }
    /* Had it died before we held it, the number could be another's. */
    return YK_SYS(SYS_getppid, 0) == host ? 0 : -ESRCH;
}

/* Let go of what is the program's: its readers must see the end when it ends. */
static void settle(const long fds[FD_COUNT])
{
    for (long i = 0; i < FD_COUNT; i++) {
        YK_SYS(SYS_dup3, fds[i], i, O_CLOEXEC);
    }
    if (YK_SYS(SYS_close_range, FD_COUNT, ~0U, 0) != 0) {
        for (long fd = FD_COUNT; fd < CLOSE_BY_HAND_MAX; fd++) {
            YK_SYS(SYS_close, fd); /* a sandbox hides close_range */
        }
    }
}

/* argv: our name, the socket's number, then the program and its arguments. */
static int supervise(char **argv, char **environment)
{
    struct supervisor sup = {.program = 0};
    const int control = number_of(argv[1]);
    if (YK_SYS(SYS_read, control, &sup.task, sizeof sup.task) != sizeof sup.task) {
        return 1;
    }
    YK_SYS(SYS_fcntl, control, F_SETFD, FD_CLOEXEC);
    YK_SYS(SYS_prctl, PR_SET_NAME, "yoke-supervisor");
    YK_SYS(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1);
    YK_SYS(SYS_setpgid, 0, 0); /* what hits the group of the Yoke program does not hit us */
    yk_raw_signals_default();
    long fds[FD_COUNT];
    long rc = open_all(fds, control, sup.task.host);
    rc = rc == 0 ? start_program(&sup, argv + 2, environment) : rc;
    if (rc != 0) {
        report(control, YK_SUP_FAILED, &sup, rc);
        return 1;
    }
    settle(fds);
    report(CONTROL, YK_SUP_STARTED, &sup, 0);
    watch(&sup);
    if (sup.has_ended) { /* else it is another user's now, and nobody knows how it will end */
        report(CONTROL, YK_SUP_ENDED, &sup, 0);
    }
    return 0;
}

/* The kernel's start of a program: the stack holds argc, argv, 0, environment, 0. */
__attribute__((used)) _Noreturn void yk_supervisor_begin(long *stack);

_Noreturn void yk_supervisor_begin(long *stack)
{
    const long argc = stack[0];
    char **const argv = (char **)(stack + 1);
    yk_raw_exit(argc > 2 ? supervise(argv, argv + argc + 1) : 2);
    __builtin_unreachable();
}

#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start:\n\t"
        "xor %ebp, %ebp\n\t"
        "mov %rsp, %rdi\n\t"
        "and $-16, %rsp\n\t"
        "call yk_supervisor_begin\n");
#else
__asm__(".globl _start\n"
        "_start:\n\t"
        "mov x29, xzr\n\t"
        "mov x30, xzr\n\t"
        "mov x0, sp\n\t"
        "bl yk_supervisor_begin\n");
#endif
