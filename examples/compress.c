/* SPDX-License-Identifier: MIT
 * compress.c - compresses every file of a folder in processes, while these are killed.
 *
 * Idea: files go through a stream, a name in, compressed bytes out: first one after the other, then
 * in workers, of which one is killed whenever something was done. With retries that costs time and
 * nothing else: each result is compared with the first one, byte for byte.
 */
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yoke/yoke.h>
#include <zlib.h>

static struct {
    char *name;
    unsigned char *packed; /* as it is when nobody is killed */
    size_t bytes;
} files[100000];
static size_t count, total_bytes, wrong;

static int collect(const char *name, const struct stat *info, int type, struct FTW *where)
{
    (void)where;
    if (type == FTW_F && count < sizeof files / sizeof *files && strlen(name) < PATH_MAX) {
        files[count++].name = strdup(name);
        total_bytes += (size_t)info->st_size;
    }
    return 0;
}

static int next(void *user, size_t item, void *in)
{
    (void)user;
    return item < count && strcpy(in, files[item].name) != NULL;
}

static int pack(yoke_task *task, const void *in, void *out)
{
    FILE *file = fopen(in, "re");
    const long bytes = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : 0;
    uLongf size = compressBound((uLong)bytes);
    unsigned char *plain = yoke_task_alloc(task, (size_t)bytes + 1); /* goes with the task */
    unsigned char *packed = yoke_task_alloc(task, size);
    if (file && plain && packed && fseek(file, 0, SEEK_SET) == 0 &&
        fread(plain, 1, (size_t)bytes, file) == (size_t)bytes &&
        compress(packed, &size, plain, (uLong)bytes) == Z_OK)
        out = yoke_task_result(task, size);
    if (file)
        fclose(file);
    return out == NULL || memcpy(out, packed, size) == NULL;
}

static int done(void *first, const yoke_outcome *o, const void *name, const void *out, size_t bytes)
{
    (void)name;
    if (first && o->kind == YOKE_OK && (files[o->item].packed = malloc(bytes)) != NULL)
        memcpy(files[o->item].packed, out, files[o->item].bytes = bytes);
    wrong += o->kind != YOKE_OK || !files[o->item].packed || files[o->item].bytes != bytes ||
             memcmp(files[o->item].packed, out, bytes) != 0;
    return 0;
}

/* A worker each 10 ms, if anything was done since: so the longest task comes to its end too. */
static int kill_workers(void *pool)
{
    yoke_pool_stats stats = {.size = sizeof stats};
    int kills = 0, pids[64];
    for (uint64_t seen = 0; yoke_sleep_until(yoke_in_ms(10)) != -ECANCELED; seen = stats.tasks) {
        const int n = yoke_pool_worker_ids(pool, pids, 64);
        if (yoke_pool_stats_get(pool, &stats) == 0 && stats.tasks > seen && n > 0)
            kills += kill(pids[rand() % (n < 64 ? n : 64)], SIGKILL) == 0;
    }
    return kills;
}

static double pack_all(int kind, int *kills)
{
    const yoke_pool_config config = {.size = sizeof config, .kind = kind};
    const yoke_options options = {.size = sizeof options, .retries = UINT_MAX};
    const yoke_stream_config stream = {.size = sizeof stream,
                                       .in_bytes = PATH_MAX,
                                       .next = next,
                                       .done = done,
                                       .user = kind == YOKE_SERIAL ? files : NULL};
    yoke_pool *pool = NULL;
    yoke_thread *killer = NULL;
    if (yoke_pool_create(&config, &pool) != 0 ||
        (kills && yoke_thread_start(NULL, kill_workers, pool, &killer) != 0))
        exit(1);
    const int64_t begin_ns = yoke_now_ns();
    const int rc = yoke_map_stream(pool, pack, &stream, &options);
    const double seconds = (double)(yoke_now_ns() - begin_ns) / 1e9;
    wrong += rc != 0;
    yoke_thread_interrupt(killer);
    if (rc != 0 || (killer && yoke_thread_wait(killer, YOKE_FOREVER, kills) != 0))
        fprintf(stderr, "compress: %s\n", yoke_strerror(rc));
    yoke_thread_release(killer);
    yoke_pool_destroy(pool, YOKE_FOREVER);
    return seconds;
}

int main(int argc, char **argv)
{
    int kills = 0;
    nftw(argc > 1 ? argv[1] : "/usr/share/doc", collect, 16, FTW_PHYS);
    const double alone = pack_all(YOKE_SERIAL, NULL);
    const double together = pack_all(YOKE_PROCESSES, &kills);
    printf("%zu files, %zu bytes, %d kills, %zu results differ\n", count, total_bytes, kills,
           wrong);
    printf("%.2f s alone, %.2f s in processes: %.2f times as fast\n", alone, together,
           alone / together);
    return count == 0 || wrong != 0;
}
