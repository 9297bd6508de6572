/* address: host and port to socket addresses and back; getaddrinfo does the work. */
#ifndef PL_BASE_ADDRESS_H
#define PL_BASE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct pl_address {
    struct sockaddr_storage storage;
    socklen_t size;
};

#define PL_ADDRESS_TEXT 128 /* room for "[v6%scope]:65535" and for "unix:" with any sun_path */

/* Resolves HOST (name, IPv4, IPv6 without brackets; PASSIVE: "*" is every address) into at most
 * ROOM addresses in the resolver's order. Count, or -EINVAL, -ENOENT, -EAGAIN with text. */
int pl_address_resolve(const char *host, uint16_t port, bool passive, struct pl_address *addresses, int room);

/* "127.0.0.1:8888", "[::1]:8888", "unix:/path"; returns TEXT. */
const char *pl_address_format(const struct pl_address *address, char *text, size_t size);
bool pl_address_loopback(const struct pl_address *address);
bool pl_address_any(const struct pl_address *address); /* every one of this machine's */
uint16_t pl_address_port(const struct pl_address *address);
void pl_address_set_port(struct pl_address *address, uint16_t port);

/* A sockaddr_un for SOCKET_NAME inside the directory DIRECTORY_FD, through /proc/self/fd (108
 * bytes are short); or for PATH itself where it fits and through its directory where not: then
 * *ret_directory is a descriptor to be closed after bind or connect, else -1. */
void pl_address_unix_at(struct pl_address *address, int directory_fd, const char *socket_name);
int pl_address_unix(struct pl_address *address, const char *path, int *ret_directory);

#endif
