#include "base/clock.h"
#include "transport/socket.h"
#include "transport/test_pair.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char text[1400];

static struct pl_url url_of(const char *format, const char *part)
{
    struct pl_url url;
    char line[1200];
    snprintf(line, sizeof(line), format, part);
    CHECK_INT(pl_url_parse(&url, line), 0);
    return url;
}

static uint64_t soon(void)
{
    return pl_clock_deadline(20000, 0);
}

static int option_of(int fd, int level, int option)
{
    int value = -1;
    socklen_t size = sizeof(value);
    CHECK_INT(getsockopt(fd, level, option, &value, &size), 0);
    return value;
}

static void check_connects(const struct pl_url *url, int listener)
{
    struct pl_address peer;
    int a, b;
    char byte;
    CHECK_INT(pl_socket_connect(url, soon(), &a, &peer), 0);
    CHECK(readable(listener, 20000));
    CHECK_INT(pl_socket_accept(listener, &b, &peer), 0);
    CHECK_INT(send(a, "x", 1, 0), 1);
    CHECK(readable(b, 20000));
    CHECK_INT(recv(b, &byte, 1, 0), 1);
    CHECK(fcntl(b, F_GETFL) & O_NONBLOCK && fcntl(a, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(b, F_GETFD) & FD_CLOEXEC && fcntl(a, F_GETFD) & FD_CLOEXEC);
    close(a);
    close(b);
}

TEST(a_listener_on_port_0_tells_its_real_port)
{
    struct pl_url url = url_of("tcp://127.0.0.1:0?framing=lines%s", ""), real;
    int listener;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    CHECK_INT(pl_url_parse(&real, text), 0);
    CHECK(real.port != 0);
    CHECK_INT(real.framing, PL_FRAMING_LINES);
    check_connects(&real, listener);
    close(listener);
}

TEST(a_unix_listener_lives_at_its_path_and_is_unlinked)
{
    struct pl_url url = url_of("unix://%s/socket", test_directory());
    struct stat status;
    int listener;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    check_connects(&url, listener);
    pl_socket_unlink(&url);
    CHECK_INT(stat(url.path, &status), -1);
    close(listener);
}

TEST(a_path_longer_than_a_socket_address_works)
{
    char directory[600];
    int used = snprintf(directory, sizeof(directory), "%s", test_directory());
    for (int i = 0; i < 3; i++) {
        used += snprintf(directory + used, sizeof(directory) - (size_t)used, "/%0*d", 90, i);
        CHECK_INT(mkdir(directory, 0700), 0);
    }
    struct pl_url url = url_of("unix://%s/socket", directory);
    int listener;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    check_connects(&url, listener);
    close(listener);
}

TEST(a_stale_socket_is_replaced)
{
    struct pl_url url = url_of("unix://%s/socket", test_directory());
    int listener;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    close(listener);
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    check_connects(&url, listener);
    close(listener);
}

TEST(a_living_listener_is_not_replaced_not_even_with_a_full_backlog)
{
    struct pl_url url = url_of("unix://%s/socket", test_directory());
    struct pl_address address;
    int listener, second, directory = -1, fds[1100], count = 0;
    struct rlimit limit = { 2000, 2000 };
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    CHECK_INT(pl_socket_listen(&url, &second, text, sizeof(text)), -EADDRINUSE);
    CHECK_CONTAINS(plait_error_text(), "another program listens there");
    CHECK_INT(listen(listener, 0), 0); /* a short queue */
    CHECK_INT(pl_address_unix(&address, url.path, &directory), 0);
    for (;;) {
        CHECK(count < 1100);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        fds[count++] = fd;
        if (connect(fd, (struct sockaddr *)&address.storage, address.size) < 0) break;
    }
    CHECK_INT(errno, EAGAIN);
    CHECK_INT(pl_socket_listen(&url, &second, text, sizeof(text)), -EADDRINUSE);
    /* And who connects waits its turn, by timer. */
    struct pl_address peer;
    uint64_t deadline = pl_clock_ns() + 30 * UINT64_C(1000000);
    CHECK_INT(pl_socket_connect(&url, deadline, &second, &peer), -ETIMEDOUT);
    CHECK(pl_clock_ns() >= deadline);
    while (count > 0) close(fds[--count]);
    pl_close(&directory);
    close(listener);
}

TEST(a_file_that_is_no_socket_is_never_touched)
{
    struct pl_url url = url_of("unix://%s/file", test_directory());
    struct stat status;
    int listener, fd = open(url.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK_INT(write(fd, "data", 4), 4);
    close(fd);
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), -EADDRINUSE);
    CHECK_INT(stat(url.path, &status), 0);
    CHECK_INT(status.st_size, 4);
}

TEST(beyond_loopback_needs_a_word)
{
    struct pl_url url = url_of("tcp://0.0.0.0:0%s", "");
    int listener;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), -EPERM);
    CHECK_CONTAINS(plait_error_text(), "insecure=1");
    url = url_of("tcp://0.0.0.0:0?insecure=1%s", "");
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    close(listener);
}

TEST(a_port_in_use_is_named)
{
    struct pl_url url = url_of("tcp://127.0.0.1:0%s", "");
    int listener, second;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    CHECK_INT(pl_url_parse(&url, text), 0);
    CHECK_INT(pl_socket_listen(&url, &second, text, sizeof(text)), -EADDRINUSE);
    CHECK_CONTAINS(plait_error_text(), "127.0.0.1:");
    close(listener);
}

TEST(a_bare_name_is_nothing_to_listen_on)
{
    struct pl_url url = url_of("greeter%s", "");
    int listener;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "tcp://");
}

TEST(nobody_there_is_refused_with_a_hint)
{
    struct pl_url url = url_of("tcp://127.0.0.1:0%s", "");
    struct pl_address peer;
    int listener, fd;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    CHECK_INT(pl_url_parse(&url, text), 0);
    close(listener);
    CHECK_INT(pl_socket_connect(&url, soon(), &fd, &peer), -ECONNREFUSED);
    CHECK_CONTAINS(plait_error_text(), "is the server running?");
    url = url_of("unix://%s/none", test_directory());
    CHECK_INT(pl_socket_connect(&url, soon(), &fd, &peer), -ENOENT);
}

/* A socket bound to the port that it calls, on loopback, meets itself. */
TEST(a_socket_that_met_itself_met_nobody)
{
    struct pl_url url = url_of("tcp://127.0.0.1:0%s", "");
    struct pl_address peer;
    FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    int low = 0, high = 0, fd, met = 0;
    if (range == NULL) SKIP("no /proc/sys");
    CHECK_INT(fscanf(range, "%d %d", &low, &high), 2);
    fclose(range);
    /* The kernel takes the ports of one destination in turn: some of so many attempts would meet. */
    url.port = (uint16_t)(low + (high - low) / 2 / 2 * 2);
    for (int i = 0; i < 40000 && !met; i++) {
        int r = pl_socket_connect(&url, soon(), &fd, &peer);
        if (r == 0) {
            struct pl_address own = { .size = sizeof(own.storage) };
            CHECK_INT(getsockname(fd, (struct sockaddr *)&own.storage, &own.size), 0);
            CHECK(pl_address_port(&own) != url.port);
            close(fd);
            SKIP("somebody listens there");
        }
        met = r != -ECONNREFUSED;
    }
    CHECK(!met);
}

TEST(a_vanished_host_is_known_within_20_seconds_by_the_kernel)
{
    struct pl_url url = url_of("tcp://127.0.0.1:0%s", "");
    struct pl_address peer;
    int listener, fd;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    CHECK_INT(pl_url_parse(&url, text), 0);
    CHECK_INT(pl_socket_connect(&url, soon(), &fd, &peer), 0);
    CHECK_INT(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK_INT(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK(option_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
              option_of(fd, IPPROTO_TCP, TCP_KEEPINTVL) * option_of(fd, IPPROTO_TCP, TCP_KEEPCNT) <
          20);
    CHECK_INT(option_of(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 15000);
    close(fd);
    close(listener);
}

TEST(nothing_to_accept_is_no_error_and_no_descriptor_is_one)
{
    struct pl_url url = url_of("unix://%s/socket", test_directory());
    struct pl_address peer;
    int listener, fd, client;
    struct rlimit before, none;
    CHECK_INT(pl_socket_listen(&url, &listener, text, sizeof(text)), 0);
    CHECK_INT(pl_socket_accept(listener, &fd, &peer), PL_SOCKET_NONE);
    CHECK_INT(pl_socket_connect(&url, soon(), &client, &peer), 0);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 3;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    int r = pl_socket_accept(listener, &fd, &peer);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_INT(r, -EMFILE);
    CHECK_INT(pl_socket_accept(listener, &fd, &peer), 0);
    close(fd);
    close(client);
    close(listener);
}
