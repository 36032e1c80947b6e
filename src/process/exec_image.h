/* SPDX-License-Identifier: MIT
 * exec_image.h - a template that is another program: started once, it serves as the image.
 *
 * Idea: the pool runs the program with a *ticket* in its environment. The ticket names the heap's
 * descriptor and address, and a card in the heap where the program says how it went and which
 * files it has loaded where. From then on it is a template like any other.   Room: process.
 */
#ifndef YK_EXEC_IMAGE_H
#define YK_EXEC_IMAGE_H

#include "process/template.h"

/* How to start it. */
struct yk_exec_plan {
    char *const *argv;
    char *const *env; /* to which the ticket is added */
    const int *keep_fds;
    size_t keep_fd_count;
    uint64_t layout; /* of what both sides share: another one is another version */
};

/* A program that was started and does not serve yet. */
struct yk_exec_card;
struct yk_exec_start {
    struct yk_exec_card *card; /* NULL: there is none */
    struct yk_template_ctl *ctl;
    int pidfd;
    int64_t until_ns; /* then it is ended */
    bool failed;      /* it said that it cannot serve, and may end by itself */
};

/* Start the program. On the keeper only, and the keeper must be held as long as it lives. 0; what
 * exec said; -EBADF: the program has closed the heap's descriptor. */
int yk_exec_begin(struct yk_exec_start *start, const struct yk_exec_plan *plan);
/* Does it serve? 0; -EAGAIN: not yet; else it is over, and gone: -EEXIST (worth another try),
 * -EBUSY, -ENOMEM, YOKE_EVERSION, as yoke_image_serve said; -ETIMEDOUT; YOKE_EINIT (it ended). */
int yk_exec_look(struct yk_exec_start *start);
/* Wait until it does or is over. Not on the keeper. */
int yk_exec_await(struct yk_exec_start *start);
/* It serves: make it the template, in the place of what was there before. */
int yk_exec_adopt(struct yk_exec_start *start, struct yk_template *template);
/* End it. Nothing happens if there is none. */
void yk_exec_abandon(struct yk_exec_start *start);

/* The template's image has this place of this file. */
bool yk_template_has_file(struct yk_template *template, uint64_t identity, uintptr_t offset);

/* In the program: serve; copies run entry. Returns on failure only, as yoke_image_serve. */
int yk_exec_serve(const char *text, uint64_t layout, yk_image_entry *entry);
/* In a copy: what is added to the addresses in this file. False: it is not loaded. */
bool yk_exec_base_of(uint64_t identity, uintptr_t *base);

/* How long a program may take until it serves. Tests set it. */
extern int64_t yk_exec_patience_ns;

#endif
