/* SPDX-License-Identifier: MIT
 * wordcount.c - counts lines, words and bytes of the files below a folder: wordcount [FOLDER]
 *
 * Idea: one item of a map is one file; each has its own place for what was counted, so nothing is
 * locked, and the sums are made at the end. It counts as `wc` does in the C locale. Links are not
 * followed, and files that end in .gz are left out: only plain text is counted.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yoke/yoke.h>

struct counts {
    uint64_t lines, words, bytes;
};

static char **names;
static size_t name_count, name_room;

static int collect(const char *name, const struct stat *info, int type, struct FTW *where)
{
    const char *dot = strrchr(name + where->base, '.');
    if (type != FTW_F || !S_ISREG(info->st_mode) || (dot && strcmp(dot, ".gz") == 0))
        return 0;
    if (name_count == name_room) {
        name_room = name_room * 2 + 1024;
        names = realloc(names, name_room * sizeof *names);
    }
    return names == NULL || (names[name_count++] = strdup(name)) == NULL;
}

/* A word has a character that prints; white space ends it, and what is neither does nothing. */
static void count_text(const unsigned char *text, size_t bytes, struct counts *counts)
{
    int in_word = 0;
    for (size_t i = 0; i < bytes; i++) {
        counts->lines += text[i] == '\n';
        if (isspace(text[i])) {
            in_word = 0;
        } else if (!in_word && isprint(text[i])) {
            in_word = 1;
            counts->words++;
        }
    }
    counts->bytes += bytes;
}

static int count_file(yoke_task *task, const void *in, void *out)
{
    struct stat info;
    (void)task;
    const int fd = open(*(char *const *)in, O_RDONLY | O_CLOEXEC);
    int failed = fstat(fd, &info) != 0;
    if (!failed && info.st_size > 0) {
        void *text = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        failed = text == MAP_FAILED;
        if (!failed) {
            count_text(text, (size_t)info.st_size, out);
            munmap(text, (size_t)info.st_size);
        }
    }
    close(fd);
    return failed;
}

int main(int argc, char **argv)
{
    yoke_pool *pool = NULL;
    yoke_outcome failure = {0};
    const yoke_options options = {.size = sizeof options, .failure = &failure};
    if (nftw(argc > 1 ? argv[1] : "/usr/share/doc", collect, 16, FTW_PHYS) != 0) {
        perror("wordcount");
        return 1;
    }
    const int64_t begin_ns = yoke_now_ns();
    struct counts total = {0}, *counts = calloc(name_count + 1, sizeof *counts);
    int rc = counts != NULL ? yoke_pool_create(NULL, &pool) : -ENOMEM;
    if (rc == 0)
        rc = yoke_map(pool, count_file, names, sizeof *names, counts, sizeof *counts, name_count,
                      &options);
    if (rc != 0) {
        fprintf(stderr, "wordcount: %s: %s\n", failure.kind != YOKE_OK ? names[failure.item] : "",
                yoke_strerror(rc));
        return 1;
    }
    for (size_t i = 0; i < name_count; i++) {
        total.lines += counts[i].lines;
        total.words += counts[i].words;
        total.bytes += counts[i].bytes;
    }
    printf("%ju lines, %ju words, %ju bytes in %zu files, in %.3f s\n", (uintmax_t)total.lines,
           (uintmax_t)total.words, (uintmax_t)total.bytes, name_count,
           (double)(yoke_now_ns() - begin_ns) / 1e9);
    free(counts);
    return yoke_pool_destroy(pool, YOKE_FOREVER) != 0;
}
