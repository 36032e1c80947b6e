/* SPDX-License-Identifier: MIT
 * tour.h - the rows of `yoke tour`, one file each (tour_*.c).
 *
 * Idea: a row is a claim and a function that measures it into a report: figures, and a verdict
 * in words that is computed from them. A new row is a new file and a line in the table in tour.c.
 */
#ifndef TOUR_H
#define TOUR_H

#include "report.h"

enum { BALLAST_BYTES = 500000000 };

/* Each returns 0, or an error for yoke_strerror; then the report is not used. */
int tour_start(struct report *report);
int tour_memory(struct report *report);
int tour_ipc(struct report *report);
int tour_cpu(struct report *report);
int tour_io(struct report *report);
int tour_stop(struct report *report);

/** Memory that makes this program big, every 4 KB page of it touched. Gives back less than
 *  BALLAST_BYTES, in *bytes, where memory is short. \return NULL if there is none to be had. */
void *ballast_take(size_t *bytes);
void ballast_give(void *ballast, size_t bytes);

#endif
