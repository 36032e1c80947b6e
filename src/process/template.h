/* SPDX-License-Identifier: MIT
 * template.h - a small process that holds an image of the program and makes copies of it.
 *
 * Idea: the template is single-threaded and sleeps on a futex, so a bare clone of it is safe and
 * cheap however many threads the program has by now. Its copies are made as its siblings: direct
 * children of the program, which can wait for them.   Room: process.
 */
#ifndef YK_TEMPLATE_H
#define YK_TEMPLATE_H

#include "memory/heap.h"
#include "platform/platform.h"
#include "sync/mutex.h"

struct yk_template_ctl;

struct yk_image_setup {
    const int *keep_fds;
    size_t keep_fd_count;
    void (*before_fork)(void *user);
    void (*after_fork_parent)(void *user);
    void *user;
    bool caller_waits; /* the thread that asked for it is blocked until we are done */
};

/* What an image can run. */
struct yk_ranges {
    struct yk_code_range *at;
    size_t count;
    size_t room;
};

struct yk_template {
    yk_mutex lock;               /* of all below; held for a whole request */
    struct yk_template_ctl *ctl; /* NULL: there is no template */
    int pidfd;
    uint32_t requests; /* made so far */
    struct yk_ranges ranges;
    _Atomic uintptr_t known_fn; /* held, when somebody asked last; not under lock */
};

/* What a copy runs; it must not return. arg is memory of the image or of the shared heap. */
typedef void yk_image_entry(void *arg);

/* Make the image, in the place of the template that was there before, if any. On the keeper only,
 * and the keeper must be held as long as it lives. */
int yk_template_plant(struct yk_template *template, const struct yk_image_setup *setup);
bool yk_template_is_dead(struct yk_template *template);
/* End the template; copies made of it live on. */
void yk_template_uproot(struct yk_template *template);
/* Make a copy that runs entry(arg). Any thread; blocks for the time of one fork. *pidfd is -1 if
 * the copy ended, and was reaped by the program, before we could look. -ESRCH: the template is
 * dead. */
int yk_template_spawn(struct yk_template *template, yk_image_entry *entry, void *arg, int *pid,
                      int *pidfd);
/* Can a copy run this function? 0 or YOKE_EIMAGE. */
int yk_template_holds(struct yk_template *template, uintptr_t fn);

/* For a template that is another program, see exec_image.h. A zeroed control block, or NULL; and
 * make the process that serves it the template. ranges->at becomes the template's. */
struct yk_template_ctl *yk_template_ctl_make(void);
void yk_template_take_over(struct yk_template *template, struct yk_template_ctl *ctl, int pidfd,
                           const struct yk_ranges *ranges);
/* In that program: what each image does once; then serve, with copies that run entry. */
void yk_image_settle(int program, const struct yk_heap_handle *heap);
YK_NORETURN void yk_template_serve(struct yk_template_ctl *ctl, yk_image_entry *entry);

/* Fork now, from the keeper only, and run entry(arg) in the child: an image used once. */
int yk_image_fork(const struct yk_image_setup *setup, yk_image_entry *entry, void *arg, int *pid,
                  int *pidfd);

/* Kill a child, wait until it is gone, and close its pidfd. */
void yk_child_end(int pidfd);

/* First in every copy: dies with the program; the shared heap is owner's. */
void yk_image_begin(const char *name, uint32_t owner);
/* Before it, in a copy that waits for what it is to be: all that can be done by then. */
void yk_image_warm(const char *name, uint32_t owner);
/* In a copy: ends it if the program has gone. */
void yk_image_check(void);

/* The seed image of yoke_init; NULL if there is none. */
struct yk_template *yk_seed(void);

#endif
