/* address: host and port to socket addresses and back. */
#include "base/address.h"

#include "base/error.h"
#include "base/fd.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

/* What getaddrinfo answered, as an errno with what to do about it. */
static int resolver_error(int answer, int system_error, const char *host)
{
    switch (answer) {
    case EAI_AGAIN:
        return pl_error(-EAGAIN, "host %s: no name server answers (try again, or give an IP address)", host);
    case EAI_MEMORY: return pl_error(-ENOMEM, "host %s: out of memory", host);
    case EAI_SYSTEM: return pl_error(-system_error, "host %s: %s", host, pl_error_word(system_error));
    case EAI_NONAME:
        return pl_error(-ENOENT, "host %s: no such host (check the spelling, or give an IP address)", host);
    default:
        return pl_error(-ENOENT, "host %s: %s (check the spelling, or give an IP address)", host, gai_strerror(answer));
    }
}

int pl_address_resolve(const char *host, uint16_t port, bool passive, struct pl_address *addresses, int room)
{
    char service[8];
    bool any = strcmp(host, "*") == 0;
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
    if (host[0] == '\0')
        return pl_error(-EINVAL, "an empty host (give a name, an IP address%s)",
                        passive ? ", or * for every address" : "");
    if (any && !passive) return pl_error(-EINVAL, "host * means every address to listen on; to connect, name one");
    snprintf(service, sizeof service, "%u", port);

    /* IP addresses are recognised before any name server is asked. */
    struct addrinfo *list = NULL;
    int answer = getaddrinfo(any ? NULL : host, service, &hints, &list);
    if (answer != 0) return resolver_error(answer, errno, host);
    int count = 0;
    for (struct addrinfo *item = list; item != NULL && count < room; item = item->ai_next) {
        if (item->ai_addrlen > sizeof addresses[count].storage) continue;
        memset(&addresses[count], 0, sizeof addresses[count]);
        memcpy(&addresses[count].storage, item->ai_addr, item->ai_addrlen);
        addresses[count++].size = item->ai_addrlen;
    }
    freeaddrinfo(list);
    return count;
}

/* The path of a sockaddr_un, which may lack its NUL, be abstract (shown with @) or unnamed. */
static void format_unix(const struct pl_address *address, char *text, size_t size)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
    size_t offset = offsetof(struct sockaddr_un, sun_path);
    size_t length = address->size > offset ? address->size - offset : 0;
    if (length > sizeof un->sun_path) length = sizeof un->sun_path;
    if (length > 1 && un->sun_path[0] == '\0') snprintf(text, size, "unix:@%.*s", (int)(length - 1), un->sun_path + 1);
    else snprintf(text, size, "unix:%.*s", (int)length, un->sun_path);
}

const char *pl_address_format(const struct pl_address *address, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN + 32];
    if (address->storage.ss_family == AF_UNIX) {
        format_unix(address, text, size);
        return text;
    }
    const char *format = address->storage.ss_family == AF_INET6 ? "[%s]:%u" : "%s:%u";
    int answer = getnameinfo((const struct sockaddr *)&address->storage, address->size, host, sizeof host, NULL, 0,
                             NI_NUMERICHOST);
    if (answer != 0) snprintf(text, size, "?");
    else snprintf(text, size, format, host, pl_address_port(address));
    return text;
}

bool pl_address_loopback(const struct pl_address *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;
    switch (address->storage.ss_family) {
    case AF_UNIX: return true;
    case AF_INET: return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
        if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) return v6->sin6_addr.s6_addr[12] == 127;
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    default: return false;
    }
}

bool pl_address_any(const struct pl_address *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;
    switch (address->storage.ss_family) {
    case AF_INET: return v4->sin_addr.s_addr == htonl(INADDR_ANY);
    case AF_INET6: return IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
    default: return false;
    }
}

uint16_t pl_address_port(const struct pl_address *address)
{
    switch (address->storage.ss_family) {
    case AF_INET: return ntohs(((const struct sockaddr_in *)&address->storage)->sin_port);
    case AF_INET6: return ntohs(((const struct sockaddr_in6 *)&address->storage)->sin6_port);
    default: return 0;
    }
}

void pl_address_set_port(struct pl_address *address, uint16_t port)
{
    if (address->storage.ss_family == AF_INET) ((struct sockaddr_in *)&address->storage)->sin_port = htons(port);
    if (address->storage.ss_family == AF_INET6) ((struct sockaddr_in6 *)&address->storage)->sin6_port = htons(port);
}

/* False where PATH doesn't fit with its NUL; ADDRESS is untouched then. */
static bool set_unix(struct pl_address *address, const char *path)
{
    size_t length = strlen(path);
    struct sockaddr_un *un = (struct sockaddr_un *)&address->storage;
    if (length >= sizeof un->sun_path) return false;
    memset(address, 0, sizeof *address);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, length + 1);
    address->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return true;
}

static bool set_unix_at(struct pl_address *address, int directory_fd, const char *socket_name)
{
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    int length = snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory_fd, socket_name);
    return length >= 0 && (size_t)length < sizeof path && set_unix(address, path);
}

void pl_address_unix_at(struct pl_address *address, int directory_fd, const char *socket_name)
{
    /* A name that doesn't fit must never become another's, nor an empty one, which the kernel
     * would fill in: this one fails with ENOTDIR wherever it is used. */
    if (!set_unix_at(address, directory_fd, socket_name)) set_unix(address, "/dev/null/name-too-long");
}

int pl_address_unix(struct pl_address *address, const char *path, int *ret_directory)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    if (name[0] == '\0') return pl_error(-EINVAL, "socket path '%s' names no file", path);
    if (set_unix(address, path)) {
        *ret_directory = -1;
        return 0;
    }
    char directory[4096] = ".";
    size_t length = slash == path ? 1 : slash != NULL ? (size_t)(slash - path) : 0;
    if (length >= sizeof directory)
        return pl_error(-ENAMETOOLONG, "socket path of %zu bytes: name too long", strlen(path));
    if (length > 0) snprintf(directory, sizeof directory, "%.*s", (int)length, path);
    PL_AUTO_CLOSE int fd = -1;
    int r = pl_fd_open_directory(directory, &fd);
    if (r < 0) return pl_error_in(r, "socket %s", path);
    if (!set_unix_at(address, fd, name)) {
        return pl_error(-ENAMETOOLONG, "socket name '%s' is %zu bytes: at most 80, whatever its directory", name,
                        strlen(name));
    }
    *ret_directory = fd;
    fd = -1;
    return 0;
}
