/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fourwave: TCP sockets that bypass the kernel, for C programs.
 *
 * Each function is the POSIX or Linux call of the same name without `fw_`, with the same arguments,
 * results and errno. Where a descriptor is not one of fourwave's, the call is passed on to the
 * kernel: a program can use these functions for all of its descriptors, and mix them in fw_poll and
 * fw_epoll_wait. A descriptor of fourwave's must be closed with fw_close, and duplicated with fw_dup
 * or fw_fcntl.
 *
 * The daemon is that at /run/fourwave/control.sock, or the one that the environment variable
 * FOURWAVE_SOCKET names. Without it, bind, listen and connect fail with ENETDOWN.
 *
 * Link with `pkg-config --cflags --libs fourwave`. Made by cbindgen; do not edit.
 */

#ifndef FOURWAVE_H
#define FOURWAVE_H

#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * fcntl(2): O_NONBLOCK with F_GETFL and F_SETFL, FD_CLOEXEC, F_DUPFD and F_DUPFD_CLOEXEC.
 * EINVAL for O_ASYNC and O_DIRECT.
 */
int fw_fcntl(int fd, int command, ...);

/**
 * ioctl(2): FIONREAD, FIONBIO, SIOCATMARK; ENOTTY for others.
 */
int fw_ioctl(int fd, unsigned long request, ...);

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * socket(2): a TCP socket of fourwave's. `domain` is AF_INET or AF_INET6, `kind` SOCK_STREAM, with
 * SOCK_NONBLOCK and SOCK_CLOEXEC; `protocol` 0 or IPPROTO_TCP.
 * EAFNOSUPPORT, ESOCKTNOSUPPORT and EPROTONOSUPPORT for others.
 */
int fw_socket(int domain, int kind, int protocol);

/**
 * bind(2). EADDRINUSE and EACCES come with an explanation, as does ENETDOWN without a daemon.
 *
 * `address` points to `length` bytes.
 */
int fw_bind(int fd, const struct sockaddr *address, socklen_t length);

/**
 * listen(2). At any free port if the socket has no address.
 */
int fw_listen(int fd, int backlog);

/**
 * accept(2): fw_accept4 without flags.
 *
 * `address` and `length` are null, or `address` points to as many bytes as `length` says.
 */
int fw_accept(int fd, struct sockaddr *address, socklen_t *length);

/**
 * accept4(2). `flags` are SOCK_NONBLOCK and SOCK_CLOEXEC.
 *
 * `address` and `length` are null, or `address` points to as many bytes as `length` says.
 */
int fw_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);

/**
 * connect(2). A socket that is bound cannot connect: EOPNOTSUPP.
 *
 * `address` points to `length` bytes.
 */
int fw_connect(int fd, const struct sockaddr *address, socklen_t length);

/**
 * shutdown(2).
 */
int fw_shutdown(int fd, int how);

/**
 * getsockname(2).
 *
 * `address` points to as many bytes as `length` says.
 */
int fw_getsockname(int fd, struct sockaddr *address, socklen_t *length);

/**
 * getpeername(2).
 *
 * `address` points to as many bytes as `length` says.
 */
int fw_getpeername(int fd, struct sockaddr *address, socklen_t *length);

/**
 * setsockopt(2). ENOPROTOOPT for options that fourwave does not have: nothing is accepted and then
 * ignored.
 *
 * `value` points to `length` bytes.
 */
int fw_setsockopt(int fd, int level, int name, const void *value, socklen_t length);

/**
 * getsockopt(2).
 *
 * `value` points to as many bytes as `length` says.
 */
int fw_getsockopt(int fd, int level, int name, void *value, socklen_t *length);

/**
 * What the last failure of this thread that came with an explanation was about, in a sentence: who
 * holds the port, which daemon does not answer. NULL if there was none. The string is valid until
 * the thread calls this again.
 */
const char *fw_explanation(void);

/**
 * send(2). Flags: MSG_DONTWAIT, MSG_NOSIGNAL, MSG_MORE; EOPNOTSUPP for MSG_OOB and MSG_FASTOPEN.
 * SIGPIPE as there.
 *
 * `buffer` points to `size` bytes.
 */
ssize_t fw_send(int fd, const void *buffer, size_t size, int flags);

/**
 * recv(2). Flags: MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_TRUNC; EINVAL for MSG_OOB.
 *
 * `buffer` points to `size` bytes.
 */
ssize_t fw_recv(int fd, void *buffer, size_t size, int flags);

/**
 * write(2).
 *
 * `buffer` points to `size` bytes.
 */
ssize_t fw_write(int fd, const void *buffer, size_t size);

/**
 * read(2).
 *
 * `buffer` points to `size` bytes.
 */
ssize_t fw_read(int fd, void *buffer, size_t size);

/**
 * writev(2).
 *
 * `vectors` points to `number` vectors, which point to bytes.
 */
ssize_t fw_writev(int fd, const struct iovec *vectors, int number);

/**
 * readv(2).
 *
 * `vectors` points to `number` vectors, which point to bytes.
 */
ssize_t fw_readv(int fd, const struct iovec *vectors, int number);

/**
 * close(2). Required for descriptors of fourwave's, and for epoll instances that watch them. With
 * SO_LINGER it waits. EBADF for what the library itself has open.
 */
int fw_close(int fd);

/**
 * dup(2).
 */
int fw_dup(int fd);

/**
 * dup2(2); either descriptor may be the kernel's. EBADF for a number that the library itself has open.
 */
int fw_dup2(int from,
            int to);

/**
 * dup3(2), as fw_dup2.
 */
int fw_dup3(int from, int to, int flags);

/**
 * poll(2), for descriptors of the kernel's and of fourwave's together.
 *
 * `fds` points to `number` entries.
 */
int fw_poll(struct pollfd *fds, nfds_t number, int timeout);

/**
 * epoll_create1(2). The instance watches descriptors of the kernel's and of fourwave's.
 */
int fw_epoll_create1(int flags);

/**
 * epoll_ctl(2). Level-triggered, EPOLLET and EPOLLONESHOT; EPOLLIN, EPOLLOUT and EPOLLRDHUP.
 *
 * `event` is null or points to an event.
 */
int fw_epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event);

/**
 * epoll_wait(2).
 *
 * `events` has room for `room` events.
 */
int fw_epoll_wait(int epfd, struct epoll_event *events, int room, int timeout);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FOURWAVE_H */
