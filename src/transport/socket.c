#include "transport/socket.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/interrupt.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024, ADDRESSES = 8 };

void pl_socket_tune(int fd)
{
    static const struct {
        int level, option, value;
    } options[] = {
        { IPPROTO_TCP, TCP_NODELAY, 1 },   { SOL_SOCKET, SO_KEEPALIVE, 1 }, { IPPROTO_TCP, TCP_KEEPIDLE, 10 },
        { IPPROTO_TCP, TCP_KEEPINTVL, 2 }, { IPPROTO_TCP, TCP_KEEPCNT, 3 }, { IPPROTO_TCP, TCP_USER_TIMEOUT, 15000 },
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        (void)setsockopt(fd, options[i].level, options[i].option, &options[i].value, sizeof(int));
}

static int type_of(const struct pl_url *url)
{
    return url->scheme == PL_SCHEME_UDP ? SOCK_DGRAM : SOCK_STREAM;
}

static int open_socket(int family, int type, int *ret_fd)
{
    int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return pl_error(-errno, "no socket: %s", pl_error_word(errno));
    *ret_fd = fd;
    return 0;
}

/* ---- listening ---- */

static bool stale_unix_socket(const struct pl_address *address, const char *path)
{
    struct stat info;
    int fd PL_AUTO_CLOSE = -1;
    if (lstat(path, &info) < 0 || !S_ISSOCK(info.st_mode)) return false;
    if (open_socket(AF_UNIX, SOCK_STREAM, &fd) < 0) return false;
    return connect(fd, (const struct sockaddr *)&address->storage, address->size) < 0 && errno == ECONNREFUSED;
}

static int bind_to(int fd, const struct pl_address *address)
{
    return bind(fd, (const struct sockaddr *)&address->storage, address->size) < 0 ? -errno : 0;
}

static int bind_and_listen(const struct pl_url *url, struct pl_address *address, int *ret_fd)
{
    char text[PL_ADDRESS_TEXT];
    int fd PL_AUTO_CLOSE = -1;
    int r = open_socket(address->storage.ss_family, type_of(url), &fd);
    if (r < 0) return r;
    /* Not for UDP, where it would let two servers have one port. */
    if (url->scheme == PL_SCHEME_TCP) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
    r = bind_to(fd, address);
    if (r == -EADDRINUSE && url->scheme == PL_SCHEME_UNIX && stale_unix_socket(address, url->path)) {
        (void)unlink(url->path);
        r = bind_to(fd, address);
    }
    if (r == 0 && type_of(url) == SOCK_STREAM && listen(fd, BACKLOG) < 0) r = -errno;
    if (r < 0)
        return pl_error(r, "cannot listen on %s: %s%s",
                        url->scheme == PL_SCHEME_UNIX ? url->path : pl_address_format(address, text, sizeof(text)),
                        pl_error_word(r),
                        r == -EADDRINUSE ? " (another program listens there: stop it, or take port 0)"
                        : r == -EACCES   ? " (a port below 1024, or a directory that you may not write)"
                                         : "");
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int listen_unix(const struct pl_url *url, int *ret_fd)
{
    struct pl_address address;
    int directory PL_AUTO_CLOSE = -1;
    int r = pl_address_unix(&address, url->path, &directory);
    if (r < 0) return r;
    return bind_and_listen(url, &address, ret_fd);
}

static int listen_inet(const struct pl_url *url, int *ret_fd, uint16_t *ret_port)
{
    struct pl_address addresses[ADDRESSES];
    int count = pl_address_resolve(url->host, url->port, true, addresses, ADDRESSES);
    if (count < 0) return count;
    if (!url->insecure && !pl_address_loopback(&addresses[0]))
        return pl_error(-EPERM,
                        "refusing to listen on %s: beyond loopback everybody on the network may call, "
                        "unencrypted (add insecure=1 to the URL if that is what you want)",
                        url->host);
    int r = bind_and_listen(url, &addresses[0], ret_fd);
    if (r < 0) return r;
    struct pl_address bound = { .size = sizeof(bound.storage) };
    if (getsockname(*ret_fd, (struct sockaddr *)&bound.storage, &bound.size) < 0) {
        r = pl_error(-errno, "getsockname: %s", pl_error_word(errno));
        pl_close(ret_fd);
        return r;
    }
    *ret_port = pl_address_port(&bound);
    return 0;
}

int pl_socket_listen(const struct pl_url *url, int *ret_fd, char *ret_url, size_t size)
{
    struct pl_url real = *url;
    int fd = -1, r;
    if (url->scheme == PL_SCHEME_UNIX) r = listen_unix(url, &fd);
    else if (url->scheme == PL_SCHEME_NAME)
        r = pl_error(-EINVAL, "cannot listen on a bare name; a server's name is offered anyway (give tcp://, udp:// or "
                              "unix://)");
    else r = listen_inet(url, &fd, &real.port);
    if (r < 0) return r;
    pl_url_format(&real, ret_url, size);
    *ret_fd = fd;
    return 0;
}

void pl_socket_unlink(const struct pl_url *url)
{
    if (url->scheme == PL_SCHEME_UNIX) (void)unlink(url->path);
}

int pl_socket_accept(int listener, int *ret_fd, struct pl_address *ret_peer)
{
    ret_peer->size = sizeof(ret_peer->storage);
    int fd = accept4(listener, (struct sockaddr *)&ret_peer->storage, &ret_peer->size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return PL_SOCKET_NONE;
        return pl_error(-errno, "accept: %s", pl_error_word(errno));
    }
    *ret_fd = fd;
    return 0;
}

/* ---- connecting ---- */

static int wait_connected(int fd, uint64_t deadline_ns)
{
    int n = pl_interrupt_poll(fd, POLLOUT, deadline_ns, 0);
    if (n <= 0) return n == 0 ? -ETIMEDOUT : n;
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return -errno;
    return -error;
}

/* TCP and UDP on one machine can connect a socket to itself: its ephemeral port may be the very one that it calls while
 * nobody listens there. */
static bool met_itself(int fd, const struct pl_address *peer)
{
    struct pl_address own = { .size = sizeof(own.storage) };
    if (peer->storage.ss_family == AF_UNIX) return false;
    if (getsockname(fd, (struct sockaddr *)&own.storage, &own.size) < 0 || own.size != peer->size) return false;
    if (pl_address_port(&own) != pl_address_port(peer)) return false;
    char a[PL_ADDRESS_TEXT], b[PL_ADDRESS_TEXT];
    return strcmp(pl_address_format(&own, a, sizeof(a)), pl_address_format(peer, b, sizeof(b))) == 0;
}

static int connect_one(const struct pl_address *address, int type, const char *where, uint64_t deadline_ns, int *ret_fd)
{
    int fd PL_AUTO_CLOSE = -1;
    int r = open_socket(address->storage.ss_family, type, &fd);
    if (r < 0) return r;
    for (;;) {
        r = connect(fd, (const struct sockaddr *)&address->storage, address->size) == 0 ? 0 : -errno;
        if (r == -EINPROGRESS) r = wait_connected(fd, deadline_ns);
        if (r == 0 && met_itself(fd, address)) r = -ECONNREFUSED;
        if (r != -EAGAIN) break;
        /* A Unix listener's backlog is full, and poll would say ready at once: by timer. */
        if (pl_clock_ns() >= deadline_ns) break;
        if (pl_interrupt_poll(-1, 0, pl_clock_deadline(1, 1), 0) == -EINTR) return -EINTR;
    }
    if (r == -EINTR) return r; /* with its text */
    if (r == -EAGAIN) r = -ETIMEDOUT;
    if (r < 0)
        return pl_error(r, "cannot connect to %s: %s%s", where, pl_error_word(r),
                        r == -ECONNREFUSED || r == -ENOENT ? " (is the server running?)" : "");
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int pl_socket_connect(const struct pl_url *url, uint64_t deadline_ns, int *ret_fd, struct pl_address *ret_peer)
{
    struct pl_address addresses[ADDRESSES];
    char text[PL_ADDRESS_TEXT];
    int directory PL_AUTO_CLOSE = -1;
    int count = 1, r;
    if (url->scheme == PL_SCHEME_UNIX) r = pl_address_unix(&addresses[0], url->path, &directory);
    else r = count = pl_address_resolve(url->host, url->port, false, addresses, ADDRESSES);
    if (r < 0) return r;
    for (int i = 0; i < count; i++) {
        const char *where =
            url->scheme == PL_SCHEME_UNIX ? url->path : pl_address_format(&addresses[i], text, sizeof(text));
        r = connect_one(&addresses[i], type_of(url), where, deadline_ns, ret_fd);
        if (r == 0) {
            *ret_peer = addresses[i];
            if (url->scheme == PL_SCHEME_TCP) pl_socket_tune(*ret_fd);
            return 0;
        }
        if (r == -EINTR) break;
    }
    return r;
}
