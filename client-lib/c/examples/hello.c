/*
 * Answers each connection with a line and closes: blocking, one after the other.
 *
 *     cc -o hello hello.c $(pkg-config --cflags --libs fourwave)
 */
#include <errno.h>
#include <fourwave.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static int failed(const char *what)
{
    /* The daemon's words, if it had any. */
    const char *why = fw_explanation();
    fprintf(stderr, "%s: %s\n", what, why ? why : strerror(errno));
    return 1;
}

int main(void)
{
    static const char hello[] = "hello over fourwave\n";
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(7777)};
    int listener = fw_socket(AF_INET6, SOCK_STREAM, 0);
    if (listener < 0)
        return failed("socket");
    if (fw_bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        return failed("bind");
    if (fw_listen(listener, SOMAXCONN) < 0)
        return failed("listen");
    fprintf(stderr, "listening on port 7777\n");
    for (;;) {
        int fd = fw_accept(listener, NULL, NULL);
        if (fd < 0)
            return failed("accept");
        if (fw_send(fd, hello, sizeof hello - 1, MSG_NOSIGNAL) < 0)
            perror("send");
        fw_close(fd);
    }
}
