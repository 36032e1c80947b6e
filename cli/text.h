/* SPDX-License-Identifier: MIT
 * text.h - what the commands print: headings, wrapped sentences, tables of figures with bars.
 *
 * Idea: one place decides what the output can take. On a terminal there are bars, and colours
 * unless NO_COLOR is set; on a pipe there is plain text, and the same words.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>

enum unit { UNIT_NS, UNIT_BYTES, UNIT_COUNT /* 0: none was found */, UNIT_LEFT };

/** One line of a table. */
struct figure {
    const char *group; /* a heading; a table may have several, each with its own bars */
    char label[56];
    double value;
    enum unit unit;
    int yoke;      /* done by Yoke: its bar stands out */
    char note[40]; /* after the value, "1.9x" say; may be empty */
};

/** Find out what standard output is. Call it before the rest. */
void text_init(void);

/** 1 if standard output is a terminal that can redraw a line. */
int text_is_terminal(void);

void text_heading(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** A paragraph, wrapped to the width of the terminal, 2 columns in. */
void text_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** A warning if the machine is busy with other work, so that nobody wonders at the figures. */
void text_say_if_busy(unsigned cpus);

/** A paragraph that stands out: what the figures mean. */
void text_verdict(const char *verdict);

/** A line that is there while something is measured; NULL wipes it. Nothing on a pipe. */
void text_busy(const char *what);

void text_figures(const struct figure *figures, size_t count);

/** "48.2 us", "1.3 MB", "1,000,000": into buffer, which is returned. */
char *text_ns(char *buffer, size_t size, double ns);
char *text_bytes(char *buffer, size_t size, double bytes);
char *text_count(char *buffer, size_t size, double count);

#endif
