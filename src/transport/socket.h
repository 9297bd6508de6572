/* socket: listening and connecting, Unix, TCP and UDP. */
#ifndef PL_TRANSPORT_SOCKET_H
#define PL_TRANSPORT_SOCKET_H

#include "base/address.h"
#include "wire/url.h"

/* A nonblocking listening socket for URL (tcp, unix; udp: a bound one). *ret_url is its canonical text with the real
 * port. -EADDRINUSE, -EACCES, -EADDRNOTAVAIL, -EPERM (beyond loopback without insecure=1), ... with text. A
 * stale Unix socket file that nobody listens on is replaced; another kind of file never is. */
int pl_socket_listen(const struct pl_url *url, int *ret_fd, char *ret_url, size_t size);

/* Removes the file of a Unix listener; nothing for others. */
void pl_socket_unlink(const struct pl_url *url);

/* Accepts one: 0 and a nonblocking socket; PL_SOCKET_NONE; -EMFILE and other -errno with text. */
enum { PL_SOCKET_NONE = 1 };
int pl_socket_accept(int listener, int *ret_fd, struct pl_address *ret_peer);

/* Connects to URL (tcp: each address in turn; udp, which asks nobody: the first; unix), until DEADLINE. 0 and a
 * nonblocking socket. */
int pl_socket_connect(const struct pl_url *url, uint64_t deadline_ns, int *ret_fd, struct pl_address *ret_peer);

/* NODELAY, keepalive (10 s + 3 × 2 s) and USER_TIMEOUT 15 s, so that a host that vanished is known within
 * 20 s by the kernel alone. No-op on a Unix socket. */
void pl_socket_tune(int fd);

#endif
