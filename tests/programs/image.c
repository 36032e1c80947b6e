/* SPDX-License-Identifier: MIT
 * image.c - the program that test_exec.c has its pools run: it serves, in the way that its first
 * argument says, with the libraries that the others name.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <yoke/yoke.h>

enum { TICKET_BASE = 7, KEPT_FD = 100, EXIT_SERVE_FAILED = 3 };

static int state; /* of the image; its workers inherit it */

static const char *ticket(void)
{
    return getenv("YOKE_IMAGE");
}

static int serve(const yoke_image *image)
{
    const int rc = yoke_image_serve(ticket(), image);
    fprintf(stderr, "    the image could not serve: %s\n", yoke_strerror(rc));
    return EXIT_SERVE_FAILED;
}

static int init(unsigned worker, void *user)
{
    (void)worker;
    return *(int *)user == 7 ? 0 : 1;
}

static int refuse(unsigned worker, void *user)
{
    (void)user;
    return (int)worker + 1;
}

static void note(char what)
{
    (void)!write(KEPT_FD, &what, 1);
}

static void on_start(unsigned worker, void *user)
{
    (void)worker;
    note(*(int *)user == 7 ? 's' : '?');
}

static void on_exit_hook(unsigned worker, void *user)
{
    (void)worker;
    note(*(int *)user == 7 ? 'e' : '?');
}

static void own_main(yoke_worker *worker, void *user)
{
    (void)user;
    note('m');
    while (yoke_worker_next(worker, YOKE_FOREVER) != YOKE_ECLOSED) {
    }
}

static int serve_with_hooks(void)
{
    const yoke_hooks hooks = {.size = sizeof hooks,
                              .worker_start = on_start,
                              .worker_exit = on_exit_hook,
                              .worker_main = own_main};
    const yoke_image image = {
        .size = sizeof image, .worker_init = init, .user = &state, .hooks = &hooks};
    state = 7;
    return serve(&image);
}

static void *sleeper(void *arg)
{
    for (;;)
        pause();
    return arg;
}

/* The address of the heap, as the ticket has it. */
static uintptr_t heap_base(void)
{
    const char *at = ticket();
    for (int i = 0; i < TICKET_BASE && at; i++)
        at = strchr(at, '.') + 1;
    return at ? (uintptr_t)strtoull(at, NULL, 16) : 0;
}

/* Something lies where the heap should. */
static void block_heap(void)
{
    const size_t bytes = 4096;
    char *const at = (char *)heap_base() + (16 << 20);
    if (mmap(at, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
        _exit(4);
}

/* In the first `times` runs, which are counted in the kept descriptor. */
static void block_heap_at_first(off_t times)
{
    note('r');
    if (lseek(KEPT_FD, 0, SEEK_END) <= times)
        block_heap();
}

static int serve_as_another_version(void)
{
    char text[512];
    char *at = text;
    snprintf(text, sizeof text, "%s", ticket());
    for (int i = 0; i < 6; i++)
        at = strchr(at, '.') + 1;
    *at = *at == '1' ? '2' : '1';
    return yoke_image_serve(text, NULL) == YOKE_EVERSION ? EXIT_SERVE_FAILED : 5;
}

static int serve_beside_a_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleeper, NULL) != 0)
        return 6;
    return serve(NULL);
}

static int serve_with_own_heap(void)
{
    return yoke_shared_alloc(16) ? serve(NULL) : 8;
}

static int is(const char *mode, const char *name)
{
    return strcmp(mode, name) == 0;
}

int main(int argc, char **argv)
{
    const char *const mode = argc > 1 ? argv[1] : "serve";
    for (int i = 2; i < argc; i++) {
        if (!dlopen(argv[i], RTLD_NOW)) {
            fprintf(stderr, "%s\n", dlerror());
            return 7;
        }
    }
    if (is(mode, "hooks"))
        return serve_with_hooks();
    if (is(mode, "refuse"))
        return serve(&(yoke_image){.size = sizeof(yoke_image), .worker_init = refuse});
    if (is(mode, "exit"))
        return 0;
    if (is(mode, "crash"))
        raise(SIGKILL);
    if (is(mode, "hang"))
        sleeper(NULL);
    if (is(mode, "version"))
        return serve_as_another_version();
    if (is(mode, "thread"))
        return serve_beside_a_thread();
    if (is(mode, "own heap"))
        return serve_with_own_heap();
    if (is(mode, "blocked"))
        block_heap();
    if (is(mode, "blocked at first"))
        block_heap_at_first(2);
    if (is(mode, "go on")) { /* it does not end when serving failed */
        (void)serve_beside_a_thread();
        sleeper(NULL);
    }
    return serve(NULL);
}
