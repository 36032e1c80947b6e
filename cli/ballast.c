/* SPDX-License-Identifier: MIT
 * ballast.c - makes this program big, as programs are that hold their data in memory.
 *
 * Idea: 4 KB pages, each of them touched, as a program has that grew by many small objects. It
 * takes a quarter of the memory that is available and no more.
 */
#include "tour.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t available_bytes(void)
{
    char line[128];
    unsigned long kilobytes = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %lu", &kilobytes) == 1)
            break;
    fclose(file);
    return (size_t)kilobytes * 1024;
}

void *ballast_take(size_t *bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), quarter = available_bytes() / 4;
    *bytes = quarter < BALLAST_BYTES ? quarter : BALLAST_BYTES;
    char *ballast = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ballast == MAP_FAILED)
        return NULL;
    (void)madvise(ballast, *bytes, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < *bytes; i += page)
        ballast[i] = 1;
    return ballast;
}

void ballast_give(void *ballast, size_t bytes)
{
    munmap(ballast, bytes);
}
