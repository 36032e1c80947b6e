/* SPDX-License-Identifier: MIT
 * loopback.h - a tiny web server on 127.0.0.1 that takes its time, so nothing needs a network.
 *
 * Idea: the server is a process, so that it can be stopped at any moment (loopback_stop). Each
 * answer is due the same time after its request came, so a first-in first-out queue of
 * connections is all the timer it needs. GET /N answers with N bytes, at most 64 KiB.
 */
#ifndef LOOPBACK_H
#define LOOPBACK_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <yoke/yoke.h>

enum { LOOPBACK_QUEUE = 256, LOOPBACK_BYTES_MAX = 65536 };

struct loopback {
    int listener;
    int delay_ms;
    unsigned short port; /* what clients connect to */
    yoke_process *process;
};

struct loopback_visit {
    int fd;
    int64_t due_ns;
};

static inline void loopback_answer(int fd)
{
    static char answer[256 + LOOPBACK_BYTES_MAX];
    char request[512] = "";
    unsigned bytes = 0;
    if (recv(fd, request, sizeof request - 1, MSG_DONTWAIT) > 0 &&
        strncmp(request, "GET /", 5) == 0)
        bytes = (unsigned)strtoul(request + 5, NULL, 10);
    if (bytes > LOOPBACK_BYTES_MAX)
        bytes = LOOPBACK_BYTES_MAX;
    const int head = snprintf(answer, 256,
                              "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n"
                              "Content-Type: text/plain\r\nConnection: close\r\n\r\n",
                              bytes);
    memset(answer + head, 'y', bytes);
    const size_t total = (size_t)head + bytes;
    for (size_t sent = 0; sent < total;) {
        const ssize_t n = send(fd, answer + sent, total - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    close(fd);
}

/* The next connection, or -1 if none came within wait_ms (-1: for ever). */
static inline int loopback_accept(int listener, int wait_ms)
{
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    return poll(&ready, 1, wait_ms) == 1 ? accept(listener, NULL, NULL) : -1;
}

static inline int loopback_serve(void *arg)
{
    const struct loopback *server = arg;
    static struct loopback_visit queue[LOOPBACK_QUEUE];
    size_t head = 0, tail = 0; /* both only grow */
    while (tail - head <= LOOPBACK_QUEUE) {
        struct loopback_visit *const first = &queue[head % LOOPBACK_QUEUE];
        const int64_t left_ns = head == tail ? 0 : first->due_ns - yoke_now_ns();
        if (head != tail && (left_ns <= 0 || tail - head == LOOPBACK_QUEUE)) {
            yoke_sleep_until(first->due_ns);
            loopback_answer(first->fd);
            head++;
            continue;
        }
        const int wait_ms = head == tail ? -1 : (int)((left_ns + 999999) / 1000000);
        const int fd = loopback_accept(server->listener, wait_ms);
        if (fd >= 0)
            queue[tail++ % LOOPBACK_QUEUE] =
                (struct loopback_visit){fd, yoke_in_ms(server->delay_ms)};
    }
    return 1;
}

static inline int loopback_listen(struct loopback *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->listener < 0)
        return -errno;
    if (bind(server->listener, (struct sockaddr *)&address, length) == 0 &&
        listen(server->listener, LOOPBACK_QUEUE) == 0 &&
        getsockname(server->listener, (struct sockaddr *)&address, &length) == 0) {
        server->port = ntohs(address.sin_port);
        return 0;
    }
    const int rc = -errno;
    close(server->listener);
    return rc;
}

/** Start a server that answers each request after delay_ms. *server must stay until the stop.
 *  \return 0 or an error for yoke_strerror. */
static inline int loopback_start(struct loopback *server, int delay_ms)
{
    *server = (struct loopback){.delay_ms = delay_ms};
    int rc = loopback_listen(server);
    if (rc != 0)
        return rc;
    const yoke_process_config config = {.size = sizeof config,
                                        .name = "loopback",
                                        .keep_fds = &server->listener,
                                        .keep_fd_count = 1};
    rc = yoke_process_start(&config, loopback_serve, server, &server->process);
    close(server->listener); /* the server has its own */
    return rc;
}

static inline void loopback_stop(struct loopback *server)
{
    yoke_process_release(server->process);
}

#endif
