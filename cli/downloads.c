/* SPDX-License-Identifier: MIT
 * downloads.c - web pages from a slow server (see downloads.h).
 */
#include "downloads.h"

#include "jobs.h"

static int client_connect(unsigned short port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval limit = {.tv_sec = 10};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
        connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    const int rc = -errno;
    close(fd);
    return rc;
}

/* The whole answer, or as much of it as fits; it is ended by a zero byte. */
static int read_all(int fd, char *answer, size_t size, size_t *length)
{
    *length = 0;
    for (;;) {
        const ssize_t n = recv(fd, answer + *length, size - 1 - *length, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        *length += (size_t)n;
        if (n == 0) {
            answer[*length] = '\0';
            return 0;
        }
    }
}

int download(void *item)
{
    char request[128], answer[DOWNLOAD_BYTES + 1024];
    size_t length = 0;
    const int fd = client_connect(*(unsigned short *)item);
    if (fd < 0)
        return fd;
    const int bytes = snprintf(request, sizeof request,
                               "GET /%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", DOWNLOAD_BYTES);
    int rc = send(fd, request, (size_t)bytes, MSG_NOSIGNAL) == bytes ? 0 : -EPROTO;
    if (rc == 0)
        rc = read_all(fd, answer, sizeof answer, &length);
    close(fd);
    if (rc != 0)
        return rc;
    const char *body = strstr(answer, "\r\n\r\n");
    const int good = strncmp(answer, "HTTP/1.1 200 ", 13) == 0 && body != NULL &&
                     (size_t)(answer + length - body - 4) == DOWNLOAD_BYTES;
    return good ? 0 : -EPROTO;
}

static int download_task(yoke_task *task, const void *in, void *out)
{
    (void)task, (void)out;
    unsigned short port = *(const unsigned short *)in;
    return download(&port);
}

int downloads_serial(void *arg)
{
    struct downloads *downloads = arg;
    int rc = 0;
    for (size_t i = 0; i < DOWNLOADS && rc == 0; i++)
        rc = download(&downloads->ports[i]);
    return rc;
}

int downloads_threads(void *arg)
{
    struct downloads *downloads = arg;
    return yoke_map(downloads->threads, download_task, downloads->ports, sizeof *downloads->ports,
                    NULL, 0, DOWNLOADS, NULL);
}

int downloads_processes(void *arg)
{
    struct downloads *downloads = arg;
    return yoke_map(downloads->processes, download_task, downloads->ports, sizeof *downloads->ports,
                    NULL, 0, DOWNLOADS, NULL);
}

int downloads_open(struct downloads *downloads)
{
    *downloads = (struct downloads){.threads = NULL};
    int rc = loopback_start(&downloads->server, DOWNLOAD_DELAY_MS);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < DOWNLOADS; i++)
        downloads->ports[i] = downloads->server.port;
    const int64_t start_ns = yoke_now_ns();
    rc = pool_make(YOKE_THREADS, DOWNLOADS, &downloads->threads);
    const int64_t middle_ns = yoke_now_ns();
    if (rc == 0)
        rc = pool_make(YOKE_PROCESSES, DOWNLOADS, &downloads->processes);
    downloads->threads_start_ns = (double)(middle_ns - start_ns);
    downloads->processes_start_ns = (double)(yoke_now_ns() - middle_ns);
    return rc;
}

void downloads_close(struct downloads *downloads)
{
    if (downloads->threads != NULL)
        yoke_pool_destroy(downloads->threads, YOKE_FOREVER);
    if (downloads->processes != NULL)
        yoke_pool_destroy(downloads->processes, YOKE_FOREVER);
    loopback_stop(&downloads->server);
}
