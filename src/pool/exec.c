/* SPDX-License-Identifier: MIT
 * exec.c - pools whose workers are copies of another program.   Room: pool.
 *
 * A token is {number of the file, offset}. The list of files only grows; what a token means never
 * changes, whichever start of the program the worker that meets it is a copy of. The program's
 * side is found without a lock: an entry is complete before the count covers it.
 * Why it is so: docs/adr/0011-exec-images.md.
 */
#include "pool/exec.h"

#include <errno.h>
#include <stdlib.h>

#include "pool/pool_private.h"
#include "process/exec_image.h"

#define FILES_MAX 256U
#define OFFSET_BITS 48U
#define OFFSET_MASK (((uintptr_t)1 << OFFSET_BITS) - 1)
#define TRIES_MAX 8U
#define RANGES_OF_ONE_FILE 16U
#define EXIT_NO_FILE 126

struct yk_pool_exec {
    /* read-only after create */
    char **argv;
    char **env;
    uint64_t *files; /* ctl->files: the identities of `known`, for the workers */
    /* the keeper's; before there is a template, the creator's */
    struct yk_exec_start start;
    /* the first known_count are read-only; more are added under the pool's lock */
    _Atomic uint32_t known_count;
    struct yk_code_range known[FILES_MAX]; /* stretches of code that tasks came from */
};

/* --- both sides agree on -------------------------------------------------------------------- */

static uint64_t layout(void)
{
    const uint64_t parts[] = {
        YOKE_VERSION_MAJOR,
        YOKE_VERSION_MINOR,
        YOKE_VERSION_PATCH,
        sizeof(struct yk_ctl),
        offsetof(struct yk_ctl, files),
        offsetof(struct yk_ctl, tail),
        sizeof(struct yk_slot),
        sizeof(struct yk_line),
        offsetof(struct yk_line, note),
        sizeof(struct yk_part),
        sizeof(struct yk_call),
        YK_TABLE_SLOTS,
        OFFSET_BITS,
        yk_heap_layout(),
    };
    uint64_t hash = 1;
    for (size_t i = 0; i < YK_COUNT_OF(parts); i++) {
        hash = (hash ^ parts[i]) * 1099511628211ULL;
    }
    return hash;
}

/* --- the program's words -------------------------------------------------------------------- */

/* A copy of a list of strings, in one block; NULL: no memory. */
static char **copy_words(char *const *words)
{
    size_t count = 0;
    size_t bytes = 0;
    for (; words[count] != NULL; count++) {
        bytes += strlen(words[count]) + 1;
    }
    char **const copy = malloc((count + 1) * sizeof *copy + bytes);
    if (copy == NULL) {
        return NULL;
    }
    char *at = (char *)(copy + count + 1);
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(words[i]) + 1;
        memcpy(at, words[i], length);
        copy[i] = at;
        at += length;
    }
    copy[count] = NULL;
    return copy;
}

int yk_exec_prepare(struct yoke_pool *pool)
{
    const yoke_pool_config *const config = &pool->config;
    struct yk_pool_exec *const exec = calloc(1, sizeof *exec);
    if (exec == NULL) {
        return -ENOMEM;
    }
    pool->exec = exec;
    exec->argv = copy_words((char *const *)config->argv);
    exec->env = copy_words(config->env != NULL ? (char *const *)config->env : yk_environment());
    exec->files = yk_heap_alloc(FILES_MAX * sizeof *exec->files);
    if (exec->argv == NULL || exec->env == NULL || exec->files == NULL) {
        return -ENOMEM; /* yk_exec_release takes what there is */
    }
    memset(exec->files, 0, FILES_MAX * sizeof *exec->files);
    pool->ctl->files = exec->files;
    return 0;
}

void yk_exec_release(struct yoke_pool *pool)
{
    struct yk_pool_exec *const exec = pool->exec;
    if (exec != NULL) {
        yk_heap_free(exec->files);
        free(exec->argv);
        free(exec->env);
        free(exec);
        pool->exec = NULL;
    }
}

/* --- starting it ---------------------------------------------------------------------------- */

/* On the keeper: it is the parent. */
static int begin(void *arg)
{
    struct yoke_pool *const pool = arg;
    const struct yk_exec_plan plan = {
        .argv = pool->exec->argv,
        .env = pool->exec->env,
        .keep_fds = pool->config.keep_fds,
        .keep_fd_count = pool->config.keep_fd_count,
        .layout = layout(),
    };
    return yk_exec_begin(&pool->exec->start, &plan);
}

static uint32_t count_known(const struct yk_pool_exec *exec)
{
    /* SYNC(exec-known) acquire: sees the entries below it. */
    return atomic_load_explicit(&exec->known_count, memory_order_acquire);
}

/* The program as it is now must have all that tasks were made of. */
static int adopt(struct yoke_pool *pool)
{
    struct yk_pool_exec *const exec = pool->exec;
    const int rc = yk_exec_adopt(&exec->start, &pool->own_template);
    if (rc != 0) {
        return rc;
    }
    const uint32_t count = count_known(exec);
    for (uint32_t i = 0; i < count; i++) {
        const struct yk_code_range *const known = &exec->known[i];
        if (!yk_template_has_file(&pool->own_template, known->identity,
                                  known->start - known->base)) {
            yk_template_uproot(&pool->own_template);
            return YOKE_EINIT;
        }
    }
    return 0;
}

int yk_exec_first(struct yoke_pool *pool)
{
    int rc = -EEXIST;
    /* What was in the heap's way this time may lie elsewhere the next time. */
    for (unsigned i = 0; i < TRIES_MAX && rc == -EEXIST; i++) {
        rc = yk_keeper_call(begin, pool);
        rc = rc == 0 ? yk_exec_await(&pool->exec->start) : rc;
    }
    return rc == 0 ? adopt(pool) : rc;
}

int yk_exec_again(struct yoke_pool *pool)
{
    if (!yk_exec_pending(pool)) {
        const int rc = begin(pool);
        return rc != 0 ? rc : -EAGAIN;
    }
    const int rc = yk_exec_look(&pool->exec->start);
    return rc == 0 ? adopt(pool) : rc;
}

bool yk_exec_pending(const struct yoke_pool *pool)
{
    return pool->exec != NULL && pool->exec->start.card != NULL;
}

void yk_exec_stop(struct yoke_pool *pool)
{
    if (pool->exec != NULL) {
        yk_exec_abandon(&pool->exec->start);
    }
}

/* --- naming functions ----------------------------------------------------------------------- */

/* The first `count` known stretches; true if one of them has it. */
static bool find_known(const struct yk_pool_exec *exec, uint32_t count, uintptr_t *fn)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct yk_code_range *const range = &exec->known[i];
        if (*fn >= range->start && *fn < range->end) {
            *fn = (uintptr_t)i << OFFSET_BITS | (*fn - range->base);
            return true;
        }
    }
    return false;
}

static int add_known(struct yoke_pool *pool, const struct yk_code_range *range, uintptr_t *fn)
{
    struct yk_pool_exec *const exec = pool->exec;
    int rc = 0;
    yk_biased_lock(&pool->lock);
    const uint32_t count = count_known(exec);
    if (!find_known(exec, count, fn)) { /* nobody was faster */
        rc = count < FILES_MAX ? 0 : -ENOMEM;
        if (rc == 0) {
            exec->known[count] = *range;
            exec->files[count] = range->identity;
            /* SYNC(exec-known) release: publishes the entry. */
            atomic_store_explicit(&exec->known_count, count + 1, memory_order_release);
            (void)find_known(exec, count + 1, fn);
        }
    }
    yk_biased_unlock(&pool->lock);
    return rc;
}

bool yk_exec_find(const struct yoke_pool *pool, uintptr_t *fn)
{
    return find_known(pool->exec, count_known(pool->exec), fn);
}

int yk_exec_translate(struct yoke_pool *pool, uintptr_t *fn)
{
    if (YK_LIKELY(yk_exec_find(pool, fn))) {
        return 0;
    }
    struct yk_code_range ranges[RANGES_OF_ONE_FILE];
    const size_t count =
        yk_min(yk_code_file_of(*fn, ranges, RANGES_OF_ONE_FILE), RANGES_OF_ONE_FILE);
    for (size_t i = 0; i < count; i++) {
        const struct yk_code_range *const range = &ranges[i];
        if (*fn >= range->start && *fn < range->end && range->identity != 0 &&
            yk_template_has_file(&pool->own_template, range->identity, *fn - range->base)) {
            return add_known(pool, range, fn);
        }
    }
    return YOKE_EIMAGE;
}

/* Where the files are, in this worker: 1 + what is added to the addresses in them; 0: not known
 * yet. Addresses of files are even. */
static uintptr_t bases[FILES_MAX];

uintptr_t yk_exec_resolve(const uint64_t *files, uintptr_t token)
{
    const size_t file = token >> OFFSET_BITS;
    if (YK_UNLIKELY(file >= FILES_MAX)) {
        yk_process_exit(EXIT_NO_FILE); /* the slot was spoiled */
    }
    if (YK_UNLIKELY(bases[file] == 0)) {
        uintptr_t base = 0;
        if (!yk_exec_base_of(files[file], &base)) {
            yk_process_exit(EXIT_NO_FILE);
        }
        bases[file] = base + 1;
    }
    return bases[file] - 1 + (token & OFFSET_MASK);
}

/* --- in the other program ------------------------------------------------------------------- */

static struct yk_worker_code image_code;

static void image_entry(void *arg)
{
    yk_processes_live(arg, &image_code);
}

int yoke_image_serve(const char *ticket, const yoke_image *image)
{
    yoke_image settings;
    int rc = yk_settings_read(&settings, sizeof settings, image);
    rc =
        rc == 0 ? yk_settings_read(&image_code.hooks, sizeof image_code.hooks, settings.hooks) : rc;
    if (rc != 0) {
        return rc;
    }
    image_code.worker_init = settings.worker_init;
    image_code.user = settings.user;
    return yk_worker_role() ? YOKE_ENESTED : yk_exec_serve(ticket, layout(), image_entry);
}
