/*
 * An echo server on fourwave: one thread, epoll, any number of connections.
 *
 *     cc -o echo echo.c $(pkg-config --cflags --libs fourwave)
 *     ./echo 7777
 *
 * But for the fw_ before the calls, this is a program for the kernel's sockets.
 */
#include <errno.h>
#include <fourwave.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVENTS = 64, BUFFER = 16 * 1024 };

/* A connection, with bytes that have been read and not yet written. */
struct connection {
    int fd;
    size_t begin, end;
    int ended;
    char bytes[BUFFER];
};

static void fail(const char *what)
{
    int error = errno;
    const char *why = fw_explanation();
    fprintf(stderr, "%s: %s\n", what, why ? why : strerror(error));
    exit(1);
}

static int listen_on(unsigned short port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int on = 1;
    int fd = fw_socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket");
    if (fw_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        fail("SO_REUSEADDR");
    if (fw_bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    if (fw_listen(fd, 4096) < 0)
        fail("listen");
    return fd;
}

static void accept_all(int epoll, int listener)
{
    for (;;) {
        int on = 1;
        int fd = fw_accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                perror("accept");
            return;
        }
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            fail("calloc");
        connection->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (fw_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
            fw_epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
            perror("connection");
            fw_close(fd);
            free(connection);
        }
    }
}

/* Whether the connection goes on. */
static int serve(struct connection *connection)
{
    for (;;) {
        while (connection->begin < connection->end) {
            ssize_t sent = fw_send(connection->fd, connection->bytes + connection->begin,
                                   connection->end - connection->begin, MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR)
                continue;
            if (sent < 0) {
                if (errno != EAGAIN)
                    perror("send");
                return errno == EAGAIN;
            }
            connection->begin += (size_t)sent;
        }
        if (connection->ended)
            return 0;
        ssize_t got = fw_recv(connection->fd, connection->bytes, BUFFER, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            if (errno != EAGAIN)
                perror("recv");
            return errno == EAGAIN;
        }
        connection->begin = 0;
        connection->end = (size_t)got;
        connection->ended = got == 0;
    }
}

int main(int argc, char **argv)
{
    unsigned short port = argc > 1 ? (unsigned short)atoi(argv[1]) : 7777;
    int listener = listen_on(port);
    int epoll = fw_epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || fw_epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll");
    fprintf(stderr, "listening on port %d\n", port);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = fw_epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) {
                accept_all(epoll, listener);
                continue;
            }
            if (serve(connection)) {
                /* What to wait for: room if something is left to send, else bytes. */
                int waits = connection->begin < connection->end;
                event.events = waits ? EPOLLOUT : EPOLLIN;
                event.data.ptr = connection;
                if (fw_epoll_ctl(epoll, EPOLL_CTL_MOD, connection->fd, &event) == 0)
                    continue;
                perror("epoll_ctl");
            }
            fw_close(connection->fd);
            free(connection);
        }
    }
}
