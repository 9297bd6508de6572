#include "base/clock.h"
#include "base/fd.h"
#include "base/list.h"
#include "connection/connection.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct end {
    struct pl_connection connection;
    struct pl_loop loop;
    int events, peer;
};

static void on_event(struct pl_connection *connection)
{
    pl_container_of(connection, struct end, connection)->events++;
}

static void open_end(struct end *end, pid_t pid, int fds[2])
{
    struct pl_transport *transport;
    *end = (struct end){ .peer = fds[1] };
    CHECK_INT(pl_loop_init(&end->loop, 8), 0);
    CHECK_INT(pl_transport_stream_new(&transport, fds[0], "unix"), 0);
    CHECK_INT(pl_connection_open(&end->connection, transport, pid, &end->loop, on_event), 0);
}

static void close_end(struct end *end)
{
    pl_connection_close(&end->connection, &end->loop);
    pl_connection_close(&end->connection, &end->loop);
    pl_loop_deinit(&end->loop);
    pl_close(&end->peer);
}

static int look(struct end *end, uint64_t deadline_ns)
{
    int before = end->events;
    CHECK(pl_loop_wait(&end->loop, deadline_ns) >= 0);
    pl_loop_run_ready(&end->loop);
    return end->events - before;
}

static void pair(int fds[2])
{
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

TEST(bytes_on_the_socket_are_an_event)
{
    struct end end;
    int fds[2];
    pair(fds);
    open_end(&end, 0, fds);
    CHECK_INT(look(&end, 0), 0);
    CHECK_INT(send(end.peer, "x", 1, 0), 1);
    CHECK_INT(look(&end, PL_NEVER), 1);
    CHECK_INT(look(&end, PL_NEVER), 1); /* until somebody reads */
    CHECK(!end.connection.transport->hung_up);
    close_end(&end);
}

TEST(a_half_closed_stream_may_still_be_answered)
{
    struct end end;
    int fds[2];
    pair(fds);
    open_end(&end, 0, fds);
    CHECK_INT(shutdown(end.peer, SHUT_WR), 0);
    CHECK_INT(look(&end, PL_NEVER), 1);
    CHECK(!end.connection.transport->hung_up);
    pl_close(&end.peer);
    CHECK_INT(look(&end, PL_NEVER), 1);
    CHECK(end.connection.transport->hung_up);
    close_end(&end);
}

/* A forked child of the peer holds the socket: no HUP comes. */
TEST(the_peer_s_death_is_known_though_its_child_holds_the_socket)
{
    struct end end;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int hold[2], listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[2] = { -1, -1 };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", test_directory());
    CHECK_INT(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_INT(listen(listener, 1), 0);
    CHECK_INT(pipe2(hold, O_CLOEXEC), 0);
    pid_t peer = fork();
    if (peer == 0) {
        char byte;
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) _exit(1);
        if (fork() == 0) {
            close(hold[1]);
            (void)!read(hold[0], &byte, 1); /* until the test ends */
            _exit(0);
        }
        for (;;) pause();
    }
    fds[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    CHECK(fds[0] >= 0);
    open_end(&end, peer, fds);
    CHECK_INT(look(&end, 0), 0);
    CHECK_INT(kill(peer, SIGKILL), 0);
    while (!end.connection.transport->hung_up) (void)look(&end, PL_NEVER);
    CHECK_INT(test_wait_child(peer), 128 + SIGKILL);
    close(hold[0]);
    close(hold[1]);
    close_end(&end);
    close(listener);
}

TEST(room_is_told_of_only_while_it_is_wanted)
{
    struct end end;
    int fds[2];
    pair(fds);
    open_end(&end, 0, fds);
    CHECK_INT(pl_connection_want_write(&end.connection, &end.loop, true), 0);
    CHECK_INT(look(&end, PL_NEVER), 1);
    CHECK_INT(pl_connection_want_write(&end.connection, &end.loop, false), 0);
    CHECK_INT(look(&end, 0), 0);
    close_end(&end);
}

TEST(a_child_closes_its_copy_and_the_parent_hears_nothing)
{
    struct end end;
    int fds[2];
    pair(fds);
    open_end(&end, 0, fds);
    pid_t child = fork();
    if (child == 0) {
        pl_connection_forked(&end.connection);
        _exit(fcntl(fds[0], F_GETFD) == -1 ? 0 : 1);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(look(&end, 0), 0);
    close_end(&end);
}

TEST(a_connection_that_cannot_be_watched_is_closed)
{
    struct pl_connection connection;
    struct pl_loop loop = { .epoll_fd = -1 };
    struct pl_transport *transport;
    int fds[2];
    char byte;
    pair(fds);
    CHECK_INT(pl_transport_stream_new(&transport, fds[0], "unix"), 0);
    CHECK_INT(pl_connection_open(&connection, transport, 0, &loop, on_event), -EBADF);
    CHECK(connection.transport == NULL);
    CHECK_INT(recv(fds[1], &byte, 1, 0), 0);
    close(fds[1]);
}
