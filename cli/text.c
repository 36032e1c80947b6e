/* SPDX-License-Identifier: MIT
 * text.c - what the commands print (see text.h).
 *
 * Idea: the width, the colours and the characters for bars are found out once, in text_init, and
 * kept in one struct. All else only asks it.
 */
#include "text.h"

#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MARGIN = 2, WIDTH_DEFAULT = 80, WIDTH_MIN = 24, WIDTH_MAX = 100, BAR_MIN = 8, BAR_MAX = 40 };

static struct {
    int width;
    int terminal; /* may redraw, shows bars */
    int colour;
    int utf8;
} screen = {.width = WIDTH_DEFAULT};

static const char bold[] = "1", dim[] = "2", green[] = "32", cyan[] = "36";

void text_init(void)
{
    struct winsize size;
    /* NOLINTBEGIN(concurrency-mt-unsafe): no thread has been started yet. */
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    setlocale(LC_CTYPE, "");
    screen.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    /* NOLINTEND(concurrency-mt-unsafe) */
    screen.terminal = isatty(STDOUT_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
    screen.colour = screen.terminal && (no_colour == NULL || no_colour[0] == '\0');
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        screen.width = size.ws_col;
    if (screen.width > WIDTH_MAX)
        screen.width = WIDTH_MAX;
    if (screen.width < WIDTH_MIN)
        screen.width = WIDTH_MIN;
}

int text_is_terminal(void)
{
    return screen.terminal;
}

static void style(const char *code)
{
    if (screen.colour)
        printf("\033[%sm", code);
}

static void style_end(void)
{
    if (screen.colour)
        fputs("\033[0m", stdout);
}

static void spaces(int count)
{
    printf("%*s", count > 0 ? count : 0, "");
}

/* Columns that a text takes: its characters, not its bytes. */
static int columns(const char *text, size_t bytes)
{
    int count = 0;
    for (size_t i = 0; i < bytes; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

static void wrap(const char *text, int margin)
{
    int column = margin;
    spaces(margin);
    while (*text != '\0') {
        const size_t bytes = strcspn(text, " ");
        const int need = columns(text, bytes);
        if (column > margin && column + 1 + need > screen.width) {
            fputc('\n', stdout);
            spaces(margin);
            column = margin;
        } else if (column > margin) {
            fputc(' ', stdout);
            column++;
        }
        fwrite(text, 1, bytes, stdout);
        column += need;
        text += bytes + strspn(text + bytes, " ");
    }
}

/* A wrapped paragraph; code is NULL or a style. */
static void paragraph(const char *text, int margin, const char *code)
{
    if (code != NULL)
        style(code);
    wrap(text, margin);
    if (code != NULL)
        style_end();
    fputc('\n', stdout);
}

void text_heading(const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fputc('\n', stdout);
    paragraph(text, 0, bold);
}

void text_say(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    paragraph(text, MARGIN, NULL);
    fflush(stdout);
}

void text_say_if_busy(unsigned cpus)
{
    double load = 0;
    if (getloadavg(&load, 1) == 1 && load > cpus)
        text_say("The load of this machine is %.1f: other programs compete for its CPUs, so the "
                 "figures are worse than they could be.",
                 load);
}

void text_verdict(const char *verdict)
{
    char text[1100];
    snprintf(text, sizeof text, "%s %s", screen.utf8 ? "→" : "=>", verdict);
    paragraph(text, MARGIN, green);
    fflush(stdout);
}

void text_busy(const char *what)
{
    if (!screen.terminal)
        return;
    fputs("\r\033[K", stdout);
    if (what != NULL)
        printf("  ... %.*s", screen.width - 7, what);
    fflush(stdout);
}

static char *number(char *buffer, size_t size, double value, const char *unit)
{
    snprintf(buffer, size, "%.*f %s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, unit);
    return buffer;
}

char *text_ns(char *buffer, size_t size, double ns)
{
    if (ns < 999.5)
        snprintf(buffer, size, "%.0f ns", ns);
    else if (ns < 999.5e3)
        number(buffer, size, ns / 1e3, "us");
    else if (ns < 999.5e6)
        number(buffer, size, ns / 1e6, "ms");
    else
        number(buffer, size, ns / 1e9, "s");
    return buffer;
}

char *text_bytes(char *buffer, size_t size, double bytes)
{
    if (bytes < 999.5)
        snprintf(buffer, size, "%.0f B", bytes);
    else if (bytes < 999.5e3)
        number(buffer, size, bytes / 1e3, "KB");
    else if (bytes < 999.5e6)
        number(buffer, size, bytes / 1e6, "MB");
    else
        number(buffer, size, bytes / 1e9, "GB");
    return buffer;
}

char *text_count(char *buffer, size_t size, double count)
{
    char digits[32];
    const int length = snprintf(digits, sizeof digits, "%.0f", count);
    size_t at = 0;
    for (int i = 0; i < length && at + 2 < size; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            buffer[at++] = ',';
        buffer[at++] = digits[i];
    }
    buffer[at] = '\0';
    return buffer;
}

static char *value_text(char *buffer, size_t size, const struct figure *figure)
{
    switch (figure->unit) {
    case UNIT_NS:
        return text_ns(buffer, size, figure->value);
    case UNIT_BYTES:
        return text_bytes(buffer, size, figure->value);
    case UNIT_LEFT:
        return text_count(buffer, size, figure->value);
    case UNIT_COUNT:
    default:
        if (figure->value > 0)
            return text_count(buffer, size, figure->value);
        snprintf(buffer, size, "not found");
        return buffer;
    }
}

static void bar(double fraction, int width, int yoke)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const int steps = (int)(fraction * width * 8 + 0.5);
    style(yoke ? green : cyan);
    for (int i = 0; i < steps / 8; i++)
        fputs(screen.utf8 ? "█" : "#", stdout);
    if (screen.utf8)
        fputs(steps == 0 ? eighths[1] : eighths[steps % 8], stdout);
    else if (steps < 8)
        fputc('.', stdout);
    style_end();
}

/* The widths of a table's columns, and the greatest value of the group that is printed. */
struct table {
    int label, value, note, bar;
    int stacked; /* too narrow for all columns: the value goes below the label */
    double max;
};

static int same_group(const struct figure *a, const struct figure *b)
{
    return a->group == b->group ||
           (a->group != NULL && b->group != NULL && strcmp(a->group, b->group) == 0);
}

static double group_max(const struct figure *figures, size_t count)
{
    double max = 0;
    for (size_t i = 0; i < count && same_group(&figures[0], &figures[i]); i++)
        if (figures[i].value > max)
            max = figures[i].value;
    return max > 0 ? max : 1;
}

static struct table table_measure(const struct figure *figures, size_t count)
{
    struct table table = {.value = 8};
    for (size_t i = 0; i < count; i++) {
        char text[32];
        const int value = (int)strlen(value_text(text, sizeof text, &figures[i]));
        const int label = columns(figures[i].label, strlen(figures[i].label));
        const int note = columns(figures[i].note, strlen(figures[i].note));
        table.label = label > table.label ? label : table.label;
        table.value = value > table.value ? value : table.value;
        table.note = note > table.note ? note : table.note;
    }
    const int used = MARGIN + table.label + 2 + table.value + 2 + (table.note ? table.note + 2 : 0);
    table.stacked = used - 2 > screen.width;
    table.bar = screen.width - used - 1;
    if (!screen.terminal || table.bar < BAR_MIN)
        table.bar = 0;
    if (table.bar > BAR_MAX)
        table.bar = BAR_MAX;
    return table;
}

static void figure_print(const struct figure *figure, const struct table *table)
{
    char value[32];
    const int pad = table->label - columns(figure->label, strlen(figure->label));
    wrap(figure->label, MARGIN);
    if (table->stacked)
        fputc('\n', stdout);
    spaces(table->stacked ? 2 * MARGIN : pad + 2);
    printf("%*s", table->value, value_text(value, sizeof value, figure));
    const int has_bar = table->bar > 0 && figure->value > 0;
    if (figure->note[0] != '\0' || (has_bar && table->note > 0))
        printf("  %s", figure->note);
    if (has_bar) {
        spaces(table->note > 0 ? table->note - columns(figure->note, strlen(figure->note)) + 2 : 2);
        bar(figure->value / table->max, table->bar, figure->yoke);
    }
    fputc('\n', stdout);
}

void text_figures(const struct figure *figures, size_t count)
{
    struct table table = table_measure(figures, count);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || !same_group(&figures[i - 1], &figures[i])) {
            table.max = group_max(&figures[i], count - i);
            if (figures[i].group != NULL) {
                char group[128];
                snprintf(group, sizeof group, "%s:", figures[i].group);
                paragraph(group, MARGIN, dim);
            }
        }
        figure_print(&figures[i], &table);
    }
    fflush(stdout);
}
