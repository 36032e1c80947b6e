/* SPDX-License-Identifier: MIT
 * stepkill_copy.h - recovery, in a copy of the program that is killed too.
 *
 * Idea: a worker dies; before the program takes that in, a copy of the program (fork: its own
 * pool, the same shared heap) does, and is killed after each single instruction of it. Then the
 * program does it all again, over what the copy left half done: everything must end once, and no
 * block may be lost (I8). The copy takes chunks under a number of its own, as any process, and is
 * recovered as any process is.
 */
#ifndef YOKE_TESTS_STEPKILL_COPY_H
#define YOKE_TESTS_STEPKILL_COPY_H

#include "stepkill.h"

/* Where the worker dies: after that many marks, and that many instructions more. */
struct stepkill_death {
    size_t mark;
    unsigned steps;
};

struct stepkill_corpse {
    struct yk_member *member;
    uint32_t owner;
    void *noted;
};

/* In the copy, which has the pool's lock as we do. */
static inline _Noreturn void
stepkill_recover(yoke_pool *pool, const struct stepkill_corpse *dead) YK_NO_LOCK_ANALYSIS
{
    const struct yk_exit_status status = {.code = -1, .signal = SIGKILL};
    yk_pool_bury_locked(pool, dead->owner, status, false, dead->noted);
    yk_heap_recover(dead->owner);
    yk_pool_audit_locked(pool);
    yk_process_exit(0);
}

/* Lead the worker to the place of its death, and kill it, with the pool's lock held: the program
 * cannot look before we let it. */
static inline struct stepkill_corpse stepkill_die(struct stepkill *s,
                                                  struct stepkill_death death) YK_NO_LOCK_ANALYSIS
{
    const struct stepkill_mark *marks = s->scene->marks;
    struct stepkill_corpse dead = {0};
    for (s->mark = 0; s->mark < death.mark; s->mark++)
        stepkill_run_to(s, marks[s->mark].at, 1, 0);
    for (unsigned i = 0; i < death.steps && s->regs.rip != marks[s->mark].at; i++)
        stepkill_step(s);
    yk_biased_lock(&s->pool->lock);
    for (uint32_t i = 0; i < s->pool->table.line_count; i++) {
        if (s->pool->members[i].alive && s->pool->members[i].pid == s->pid)
            dead.member = &s->pool->members[i];
    }
    CHECK(dead.member != NULL);
    stepkill_end_worker(s);
    CHECK(yk_pidfd_ended(dead.member->pidfd, soon()));
    dead.owner = dead.member->owner;
    dead.noted = s->pool->table.lines[dead.member - s->pool->members].note;
    return dead;
}

/* A copy of this thread, stopped where recovery begins. */
static inline int stepkill_copy(struct stepkill *s, uint32_t self,
                                const struct stepkill_corpse *dead)
{
    struct yk_heap_handle heap;
    int status = 0;
    CHECK_RC(yk_heap_export(&heap), 0);
    const int pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        yk_heap_import(&heap, self);
        raise(SIGSTOP);
        stepkill_recover(s->pool, dead);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL), 0);
    s->pid = pid;
    s->steps = 0;
    stepkill_run_to(s, (uintptr_t)yk_pool_bury_locked, 1, 0);
    return pid;
}

static inline int stepkill_recovery_point(struct stepkill *s, struct stepkill_death death,
                                          size_t wanted) YK_NO_LOCK_ANALYSIS
{
    int status = 0;
    s->killed = 0;
    s->steps = 0;
    stepkill_seize(s);
    s->blocks = count_blocks();
    s->scene->begin(s);
    const struct stepkill_corpse dead = stepkill_die(s, death);
    const uint32_t self = yk_heap_new_owner();
    const int copy = stepkill_copy(s, self, &dead);
    const int reached = stepkill_go(s, wanted, (uintptr_t)yk_process_exit);
    CHECK_EQ(kill(copy, SIGKILL), 0);
    CHECK_EQ(waitpid(copy, &status, __WALL), copy);
    CHECK(WIFSIGNALED(status));
    yk_heap_recover(self);
    s->killed_ns = yoke_now_ns();
    yk_biased_unlock(&s->pool->lock);
    s->points++;
    s->scene->judge(s);
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    return reached;
}

/* Every instruction of recovery from that death; of the later rounds of its loops, some. */
static inline void stepkill_recovery_run(struct stepkill *s, struct stepkill_death death)
{
    s->by_copy = 1;
    s->thin = 1;
    WAIT_FOR(stepkill_at_rest(s, s->kills));
    const int fds = count_fds(), children = count_children();
    const int64_t from = yoke_now_ns();
    const unsigned stride = stepkill_stride(s->stride);
    size_t wanted = 0;
    stepkill_now = s;
    stepkill_path_cut(0);
    while (stepkill_recovery_point(s, death, wanted)) {
        wanted = stepkill_next(s, wanted, stride);
        MUST(count_fds() == fds, "I6 no descriptor is lost");
        alarm(CHECK_TIMEOUT);
    }
    MUST(count_fds() == fds, "I6 no descriptor is lost");
    MUST(count_children() == children, "I6 no process is left");
    stepkill_heap_is_whole();
    check_pool_works(s->pool);
    stepkill_report(s, from);
}

#endif
