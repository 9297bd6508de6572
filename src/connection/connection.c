#include "connection/connection.h"

#include "base/fd.h"
#include "base/list.h"
#include "connection/context.h"
#include "loop/crash.h"

#include <sys/socket.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

_Thread_local struct pl_context pl_context __attribute__((tls_model("initial-exec")));
_Atomic uint32_t pl_context_servers;

static void on_socket(struct pl_source *source, uint32_t events)
{
    struct pl_connection *connection = pl_container_of(source, struct pl_connection, socket);
    /* A half-closed stream may still be answered; in shared memory the socket is there to tell of the end. */
    uint32_t end = EPOLLHUP | EPOLLERR | (connection->transport->bell >= 0 ? EPOLLRDHUP : 0);
    if (events & end && !connection->transport->datagrams) connection->transport->hung_up = true;
    connection->transport->ops->readable(connection->transport);
    connection->event(connection);
}

static void on_bell(struct pl_source *source, uint32_t events)
{
    struct pl_connection *connection = pl_container_of(source, struct pl_connection, bell);
    (void)events;
    connection->event(connection);
}

static void on_process_end(struct pl_source *source, uint32_t events)
{
    struct pl_connection *connection = pl_container_of(source, struct pl_connection, process);
    (void)events;
    connection->transport->hung_up = true;
    connection->transport->ops->readable(connection->transport);
    connection->event(connection);
}

/* The peer's pidfd from the socket itself where the kernel can (6.5): no pid that could be another's by now. */
static int peer_pidfd(int socket, pid_t pid)
{
    int fd = -1;
    socklen_t size = sizeof(fd);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) return fd;
    return pl_fd_pidfd(pid);
}

int pl_connection_open(struct pl_connection *connection, struct pl_transport *transport, pid_t pid,
                       struct pl_loop *loop, void (*event)(struct pl_connection *connection))
{
    *connection = (struct pl_connection){
        .transport = transport,
        .socket = PL_SOURCE(transport->socket, on_socket),
        .bell = PL_SOURCE(transport->bell, on_bell),
        .process = PL_SOURCE(-1, on_process_end),
        .event = event,
    };
    /* In shared memory the socket is read when a frame in the ring says so: edges, or a level would spin. */
    uint32_t edge = transport->bell >= 0 ? EPOLLET : 0;
    int r = pl_loop_add(loop, &connection->socket, EPOLLIN | EPOLLRDHUP | edge);
    if (r == 0 && transport->bell >= 0) r = pl_loop_add(loop, &connection->bell, EPOLLIN | EPOLLET);
    if (r == 0 && pid > 0) {
        /* Without a pidfd (old kernel, another pid namespace) the HUP has to do. */
        int fd = peer_pidfd(transport->socket, pid);
        if (fd >= 0) {
            connection->process.fd = fd;
            r = pl_loop_add(loop, &connection->process, EPOLLIN | EPOLLET);
        }
    }
    if (r < 0) pl_connection_close(connection, loop);
    else if (!transport->datagrams) pl_crash_watch(transport->socket); /* that one has siblings, or nothing to end */
    return r;
}

void pl_connection_close(struct pl_connection *connection, struct pl_loop *loop)
{
    if (connection->transport == NULL) return;
    pl_crash_unwatch(connection->transport->socket);
    pl_loop_remove(loop, &connection->socket);
    pl_loop_remove(loop, &connection->bell);
    pl_loop_remove(loop, &connection->process);
    pl_close(&connection->process.fd);
    /* First out of sight: a fork at any moment finds it whole or not at all. */
    struct pl_transport *transport = connection->transport;
    connection->transport = NULL;
    transport->ops->close(transport);
}

void pl_connection_forked(struct pl_connection *connection)
{
    if (connection->transport == NULL) return;
    pl_crash_unwatch(connection->transport->socket);
    pl_close(&connection->process.fd);
    connection->transport->ops->forget(connection->transport);
}

int pl_connection_want_write(struct pl_connection *connection, struct pl_loop *loop, bool want)
{
    uint32_t events = connection->socket.events;
    return pl_loop_change(loop, &connection->socket, want ? events | EPOLLOUT : events & ~(uint32_t)EPOLLOUT);
}
