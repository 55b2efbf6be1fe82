/*
 * The calls of fourwave.h, each with the results and errors that POSIX and Linux give.
 *
 *     calls OWN-ADDRESS PORT PEER-ADDRESS PORT
 *
 * The peer connects when this says that it is ready, and plays its part; at its own port it echoes,
 * at the port above nobody listens. End-to-end tests run this.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <fourwave.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            int error = errno;                                                                     \
            const char *why = fw_explanation();                                                    \
            printf("line %d: %s: %s (%s)\n", __LINE__, #condition, strerror(error),                \
                   why ? why : "no explanation");                                                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define FAILS(call, error) CHECK((errno = 0, (call) == -1 && errno == (error)))

static volatile sig_atomic_t broken_pipes;

static void on_broken_pipe(int signal)
{
    (void)signal;
    broken_pipes++;
}

static struct sockaddr_in address_of(const char *ip, const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(port))};
    CHECK(inet_pton(AF_INET, ip, &address.sin_addr) == 1);
    return address;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    CHECK(fw_getsockopt(fd, level, name, &value, &length) == 0 && length == sizeof value);
    return value;
}

/* A listener that is non-blocking, and beside it what binding refuses. */
static int listener_at(const struct sockaddr_in *own)
{
    const struct sockaddr *address = (const struct sockaddr *)own;
    struct sockaddr_in6 other = {.sin6_family = AF_INET6, .sin6_port = own->sin_port};
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    int on = 1;

    FAILS(fw_socket(AF_UNIX, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(fw_socket(AF_INET, SOCK_DGRAM, 0), ESOCKTNOSUPPORT);
    FAILS(fw_socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    int fd = fw_socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    CHECK(fd >= 0 && fd < 32);
    FAILS(fw_accept(fd, NULL, NULL), EINVAL);
    FAILS(fw_recv(fd, &on, sizeof on, 0), ENOTCONN);
    FAILS(fw_send(fd, &on, sizeof on, MSG_NOSIGNAL), EPIPE);
    FAILS(fw_getpeername(fd, (struct sockaddr *)&name, &length), ENOTCONN);
    FAILS(fw_shutdown(fd, SHUT_WR), ENOTCONN);
    FAILS(fw_bind(fd, NULL, 0), EFAULT);
    FAILS(fw_bind(fd, address, 4), EINVAL);
    FAILS(fw_bind(fd, (struct sockaddr *)&other, sizeof other), EAFNOSUPPORT);
    FAILS(fw_setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &on, sizeof on), ENOPROTOOPT);
    CHECK(fw_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(fw_bind(fd, address, sizeof *own) == 0);
    FAILS(fw_bind(fd, address, sizeof *own), EINVAL);
    CHECK(fw_getsockname(fd, (struct sockaddr *)&name, &length) == 0 && length == sizeof name);
    CHECK(name.sin_port == own->sin_port && name.sin_addr.s_addr == own->sin_addr.s_addr);
    CHECK(option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 0);
    CHECK(fw_listen(fd, 16) == 0);
    CHECK(option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 && option(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);

    int second = fw_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(fw_bind(second, address, sizeof *own), EADDRINUSE);
    CHECK(fw_explanation() && strlen(fw_explanation()) > 0);
    CHECK(fw_close(second) == 0);
    FAILS(fw_close(second), EBADF);

    int flags = fw_fcntl(fd, F_GETFL);
    CHECK(flags >= 0 && !(flags & O_NONBLOCK) && fw_fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
    CHECK(fw_fcntl(fd, F_GETFL) & O_NONBLOCK);
    FAILS(fw_fcntl(fd, F_SETFL, flags | O_ASYNC), EINVAL);
    FAILS(fw_accept(fd, NULL, NULL), EAGAIN);
    return fd;
}

/* Descriptors of both kinds in one poll. */
static void poll_both(int listener, int pipe_out, int pipe_in)
{
    struct pollfd fds[] = {{.fd = listener, .events = POLLIN}, {.fd = pipe_out, .events = POLLIN}};
    CHECK(fw_poll(fds, 2, 0) == 0);
    CHECK(fw_write(pipe_in, "p", 1) == 1 && fw_poll(fds, 2, -1) == 1);
    CHECK(fds[0].revents == 0 && fds[1].revents == POLLIN);
    char byte;
    CHECK(fw_read(pipe_out, &byte, 1) == 1 && byte == 'p');
}

/* The peer sends eleven bytes when it has got three, and ends after "twelve". */
static void accepted(int listener)
{
    struct sockaddr_in peer, name;
    socklen_t length = sizeof peer;
    struct pollfd wait = {.fd = listener, .events = POLLIN};
    char bytes[16] = {0};
    int on = 1, unread = -1;

    CHECK(fw_poll(&wait, 1, -1) == 1 && wait.revents == POLLIN);
    FAILS(fw_accept4(listener, NULL, NULL, 0x40000000), EINVAL);
    int fd = fw_accept4(listener, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC);
    CHECK(fd >= 0 && length == sizeof peer && peer.sin_family == AF_INET);
    CHECK(fw_fcntl(fd, F_GETFD) == FD_CLOEXEC && !(fw_fcntl(fd, F_GETFL) & O_NONBLOCK));
    CHECK(fw_getpeername(fd, (struct sockaddr *)&name, &length) == 0);
    CHECK(name.sin_port == peer.sin_port);

    FAILS(fw_recv(fd, bytes, 1, MSG_DONTWAIT), EAGAIN);
    struct timeval short_time = {.tv_usec = 10000};
    CHECK(fw_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &short_time, sizeof short_time) == 0);
    FAILS(fw_recv(fd, bytes, 1, 0), EAGAIN);
    short_time.tv_usec = 0;
    CHECK(fw_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &short_time, sizeof short_time) == 0);
    CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) == 0);
    CHECK(fw_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
    FAILS(fw_send(fd, bytes, 1, MSG_OOB | MSG_NOSIGNAL), EOPNOTSUPP);

    struct iovec out[] = {{.iov_base = "g", .iov_len = 1}, {.iov_base = "o\n", .iov_len = 2}};
    CHECK(fw_writev(fd, out, 2) == 3);
    CHECK(fw_recv(fd, bytes, 1, MSG_PEEK) == 1 && bytes[0] == 'h');
    CHECK(fw_recv(fd, bytes, 6, MSG_WAITALL) == 6 && !memcmp(bytes, "hello ", 6));
    char first[2], rest[8];
    struct iovec in[] = {{.iov_base = first, .iov_len = 2}, {.iov_base = rest, .iov_len = 8}};
    do {
        CHECK(fw_ioctl(fd, FIONREAD, &unread) == 0);
    } while (unread < 5);
    CHECK(fw_readv(fd, in, 2) == 5 && !memcmp(first, "wo", 2) && !memcmp(rest, "rld", 3));
    FAILS(fw_ioctl(fd, TCGETS, bytes), ENOTTY);
    CHECK(fw_ioctl(fd, TIOCOUTQ, &unread) == 0 && unread >= 0 && unread <= 3);
    FAILS(fw_ioctl(fd, FIOASYNC, &on), ENOTTY);
    CHECK(fw_ioctl(fd, FIONCLEX) == 0 && fw_fcntl(fd, F_GETFD) == 0);
    CHECK(fw_ioctl(fd, FIOCLEX) == 0 && fw_fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK(fw_ioctl(fd, FIONBIO, &on) == 0 && fw_fcntl(fd, F_GETFL) & O_NONBLOCK);
    on = 0;
    CHECK(fw_ioctl(fd, FIONBIO, &on) == 0 && !(fw_fcntl(fd, F_GETFL) & O_NONBLOCK));
    FAILS(fw_recv(fd, NULL, 1, 0), EFAULT);

    /* A duplicate is the same connection. */
    int copy = fw_dup(fd);
    CHECK(copy >= 0 && copy != fd && fw_close(fd) == 0);
    FAILS(fw_recv(fd, bytes, 1, 0), EBADF);
    int third = fw_fcntl(copy, F_DUPFD_CLOEXEC, 20);
    CHECK(third >= 20 && fw_close(copy) == 0 && fw_dup2(third, 30) == 30 && fw_close(third) == 0);
    CHECK(fw_send(30, "twelve", 6, MSG_MORE) == 6 && fw_shutdown(30, SHUT_WR) == 0);
    FAILS(fw_send(30, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK(broken_pipes == 0);
    FAILS(fw_write(30, "x", 1), EPIPE);
    CHECK(broken_pipes == 1);
    CHECK(fw_read(30, bytes, sizeof bytes) == 0 && fw_close(30) == 0);
}

/* Connecting without waiting, and descriptors of both kinds in one epoll instance. */
static void connecting(const struct sockaddr_in *peer, int pipe_out, int pipe_in)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 1}, events[4];
    int epoll = fw_epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll >= 0 && fw_epoll_ctl(epoll, EPOLL_CTL_ADD, pipe_out, &event) == 0);
    int fd = fw_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    FAILS(fw_connect(fd, (const struct sockaddr *)peer, sizeof *peer), EINPROGRESS);
    event.events = EPOLLOUT | EPOLLET;
    event.data.u32 = 2;
    CHECK(fw_epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    FAILS(fw_epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), EEXIST);
    CHECK(fw_epoll_wait(epoll, events, 4, -1) == 1);
    CHECK(events[0].data.u32 == 2 && events[0].events == EPOLLOUT);
    CHECK(option(fd, SOL_SOCKET, SO_ERROR) == 0);
    CHECK(fw_connect(fd, (const struct sockaddr *)peer, sizeof *peer) == 0);
    FAILS(fw_connect(fd, (const struct sockaddr *)peer, sizeof *peer), EISCONN);

    event.events = EPOLLIN | EPOLLRDHUP;
    CHECK(fw_epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0);
    CHECK(fw_epoll_wait(epoll, events, 4, 0) == 0);
    CHECK(fw_write(pipe_in, "p", 1) == 1 && fw_epoll_wait(epoll, events, 4, -1) == 1);
    CHECK(events[0].data.u32 == 1 && fw_read(pipe_out, events, 1) == 1);
    CHECK(fw_send(fd, "echo", 4, 0) == 4 && fw_shutdown(fd, SHUT_WR) == 0);
    char bytes[8];
    size_t got = 0;
    for (ssize_t more = 1; more != 0;) {
        CHECK(fw_epoll_wait(epoll, events, 4, -1) == 1 && events[0].data.u32 == 2);
        more = fw_recv(fd, bytes + got, sizeof bytes - got, 0);
        CHECK(more >= 0);
        got += (size_t)more;
    }
    CHECK(got == 4 && !memcmp(bytes, "echo", 4));
    CHECK(fw_epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL) == 0);
    FAILS(fw_epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL), ENOENT);
    CHECK(fw_close(fd) == 0 && fw_close(epoll) == 0);

    struct sockaddr_in nobody = *peer;
    nobody.sin_port = htons(ntohs(peer->sin_port) + 1);
    fd = fw_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(fw_connect(fd, (struct sockaddr *)&nobody, sizeof nobody), ECONNREFUSED);
    CHECK(fw_close(fd) == 0);
}

int main(int argc, char **argv)
{
    int pipes[2];
    struct sigaction action = {.sa_handler = on_broken_pipe};
    setvbuf(stdout, NULL, _IOLBF, 0);
    CHECK(argc == 5 && pipe(pipes) == 0 && sigaction(SIGPIPE, &action, NULL) == 0);
    struct sockaddr_in own = address_of(argv[1], argv[2]), peer = address_of(argv[3], argv[4]);
    int listener = listener_at(&own);
    poll_both(listener, pipes[0], pipes[1]);
    puts("the program is ready");
    accepted(listener);
    CHECK(fw_close(listener) == 0);
    connecting(&peer, pipes[0], pipes[1]);
    puts("the program has done");
    return 0;
}
