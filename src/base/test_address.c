/* Addresses in and out, without a name server, and sockets in directories of any length. */
#include "base/address.h"

#include "base/error.h"
#include "base/fd.h"
#include "harness/test.h"
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The first address of HOST as text. */
static const char *resolve(const char *host, uint16_t port, bool passive, char text[PL_ADDRESS_TEXT])
{
    struct pl_address addresses[4];
    CHECK(pl_address_resolve(host, port, passive, addresses, 4) >= 1);
    CHECK_INT(pl_address_port(&addresses[0]), port);
    return pl_address_format(&addresses[0], text, PL_ADDRESS_TEXT);
}

TEST(numbers_resolve_to_themselves)
{
    char text[PL_ADDRESS_TEXT];
    CHECK_STR(resolve("127.0.0.1", 8888, false, text), "127.0.0.1:8888");
    CHECK_STR(resolve("192.0.2.7", 0, false, text), "192.0.2.7:0");
    CHECK_STR(resolve("255.255.255.255", 65535, true, text), "255.255.255.255:65535");
    CHECK_STR(resolve("::1", 1, false, text), "[::1]:1");
    CHECK_STR(resolve("2001:DB8:0::7", 80, true, text), "[2001:db8::7]:80");
    CHECK_STR(resolve("::ffff:192.0.2.7", 80, false, text), "[::ffff:192.0.2.7]:80");
}

TEST(a_scope_survives)
{
    char text[PL_ADDRESS_TEXT];
    CHECK_STR(resolve("fe80::1%lo", 80, false, text), "[fe80::1%lo]:80");
}

TEST(one_address_comes_once)
{
    struct pl_address addresses[4];
    CHECK_INT(pl_address_resolve("127.0.0.1", 80, false, addresses, 4), 1);
    CHECK_INT(addresses[0].size, sizeof(struct sockaddr_in));
    CHECK_INT(pl_address_resolve("::1", 80, false, addresses, 4), 1);
    CHECK_INT(addresses[0].size, sizeof(struct sockaddr_in6));
}

TEST(a_star_is_every_address_to_listen_on)
{
    struct pl_address addresses[4];
    bool v4 = false;
    char text[PL_ADDRESS_TEXT];
    int count = pl_address_resolve("*", 80, true, addresses, 4);
    CHECK(count >= 1);
    for (int i = 0; i < count; i++) {
        CHECK(!pl_address_loopback(&addresses[i]));
        if (strcmp(pl_address_format(&addresses[i], text, sizeof text), "0.0.0.0:80") == 0) v4 = true;
        else CHECK_STR(text, "[::]:80");
    }
    CHECK(v4);
    CHECK_INT(pl_address_resolve("*", 80, true, addresses, 1), 1); /* no more than there is room for */
    CHECK_INT(pl_address_resolve("*", 80, false, addresses, 4), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "to connect, name one");
}

TEST(names_in_etc_hosts_resolve)
{
    struct pl_address addresses[4];
    int count = pl_address_resolve("localhost", 80, false, addresses, 4);
    CHECK(count >= 1);
    for (int i = 0; i < count; i++) CHECK(pl_address_loopback(&addresses[i]));
}

TEST(what_is_no_host_is_told_with_advice)
{
    struct pl_address addresses[4];
    char longer[300];
    CHECK_INT(pl_address_resolve("", 80, true, addresses, 4), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "* for every address");
    CHECK_INT(pl_address_resolve("", 80, false, addresses, 4), -EINVAL);
    memset(longer, 'a', sizeof longer - 1); /* a label of more than 63: refused without asking anybody */
    longer[sizeof longer - 1] = '\0';
    int r = pl_address_resolve(longer, 80, false, addresses, 4);
    CHECK(r == -ENOENT || r == -EAGAIN);
    CHECK_CONTAINS(pl_error_text(), "give an IP address");
}

TEST(loopback_is_known)
{
    static const struct {
        const char *host;
        bool loopback;
    } hosts[] = {
        { "127.0.0.1", true },
        { "127.255.3.4", true },
        { "126.0.0.1", false },
        { "128.0.0.1", false },
        { "0.0.0.0", false },
        { "::1", true },
        { "::", false },
        { "::2", false },
        { "::ffff:127.0.0.1", true },
        { "::ffff:10.0.0.1", false },
        { "fe80::1", false },
    };
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct pl_address address;
        CHECK_INT(pl_address_resolve(hosts[i].host, 1, false, &address, 1), 1);
        CHECK_INT(pl_address_loopback(&address), hosts[i].loopback);
    }
    struct pl_address none = { .storage = { .ss_family = AF_UNSPEC } };
    CHECK(!pl_address_loopback(&none));
}

TEST(ports_are_set_and_read)
{
    struct pl_address address;
    CHECK_INT(pl_address_resolve("::1", 1, false, &address, 1), 1);
    pl_address_set_port(&address, 40000);
    CHECK_INT(pl_address_port(&address), 40000);
    CHECK_INT(pl_address_resolve("127.0.0.1", 1, false, &address, 1), 1);
    pl_address_set_port(&address, 50000);
    CHECK_INT(pl_address_port(&address), 50000);
    int directory;
    CHECK_INT(pl_address_unix(&address, "/x", &directory), 0);
    pl_address_set_port(&address, 50000);
    CHECK_INT(pl_address_port(&address), 0);
}

TEST(unix_addresses_have_a_text)
{
    struct pl_address address;
    int directory = -7;
    char text[PL_ADDRESS_TEXT], path[108];
    CHECK_INT(pl_address_unix(&address, "/tmp/x y", &directory), 0);
    CHECK_INT(directory, -1);
    CHECK_STR(pl_address_format(&address, text, sizeof text), "unix:/tmp/x y");
    CHECK(pl_address_loopback(&address));

    memset(path, 'a', sizeof path - 1); /* 107 bytes and the NUL: as long as it may be */
    path[107] = '\0';
    CHECK_INT(pl_address_unix(&address, path, &directory), 0);
    CHECK_INT(directory, -1);
    pl_address_format(&address, text, sizeof text);
    CHECK_STR(text + 5, path);
    ((struct sockaddr_un *)&address.storage)->sun_path[107] = 'b'; /* the kernel's may lack the NUL */
    CHECK_INT(strlen(pl_address_format(&address, text, sizeof text)), 5 + 108);

    struct sockaddr_un *un = (struct sockaddr_un *)&address.storage;
    memcpy(un->sun_path, "\0name", 5);
    address.size = offsetof(struct sockaddr_un, sun_path) + 5;
    CHECK_STR(pl_address_format(&address, text, sizeof text), "unix:@name");
    address.size = offsetof(struct sockaddr_un, sun_path);
    CHECK_STR(pl_address_format(&address, text, sizeof text), "unix:");
    CHECK_STR(pl_address_format(&address, text, 4), "uni");
}

static void listen_and_connect(const struct pl_address *address)
{
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
        client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(listener, (const struct sockaddr *)&address->storage, address->size), 0);
    CHECK_INT(listen(listener, 1), 0);
    CHECK_INT(connect(client, (const struct sockaddr *)&address->storage, address->size), 0);
    pl_close(&listener);
    pl_close(&client);
}

TEST(a_socket_in_a_deep_directory_works)
{
    char path[900], *end = path + snprintf(path, sizeof path, "%s", test_directory());
    for (int depth = 0; depth < 5; depth++) {
        end += sprintf(end, "/%0*d", 60, depth);
        CHECK_INT(mkdir(path, 0700), 0);
    }
    sprintf(end, "/socket");
    struct pl_address address;
    int directory = -1;
    CHECK_INT(pl_address_unix(&address, path, &directory), 0);
    CHECK(directory >= 0);
    listen_and_connect(&address);
    CHECK_INT(access(path, F_OK), 0);

    struct pl_address again;
    pl_address_unix_at(&again, directory, "socket");
    CHECK_INT(again.size, address.size);
    CHECK_MEM(&again.storage, &address.storage, address.size);
    pl_close(&directory);

    sprintf(end, "x/socket"); /* a directory that isn't there */
    directory = -7;
    CHECK_INT(pl_address_unix(&address, path, &directory), -ENOENT);
    CHECK_INT(directory, -7);
    CHECK_CONTAINS(pl_error_text(), "directory");
}

TEST(socket_names_that_do_not_fit_are_refused)
{
    char path[700];
    struct pl_address address;
    int directory = -7;
    snprintf(path, sizeof path, "%s/%0200d", test_directory(), 1);
    CHECK_INT(pl_address_unix(&address, path, &directory), -ENAMETOOLONG);
    CHECK_CONTAINS(pl_error_text(), "200 bytes: at most");
    CHECK_INT(pl_address_unix(&address, strrchr(path, '/') + 1, &directory), -ENAMETOOLONG);
    snprintf(path, sizeof path, "%0108d", 1); /* one more than sun_path holds with its NUL */
    CHECK_INT(pl_address_unix(&address, path, &directory), -ENAMETOOLONG);
    CHECK_INT(pl_address_unix(&address, "", &directory), -EINVAL);
    CHECK_INT(pl_address_unix(&address, "/tmp/", &directory), -EINVAL);
    CHECK_INT(directory, -7);

    snprintf(path, sizeof path, "%0200d", 1);
    pl_address_unix_at(&address, 3, path); /* never a cut name, never an empty one */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(fd, (const struct sockaddr *)&address.storage, address.size), -1);
    CHECK_INT(errno, ENOTDIR);
    pl_close(&fd);
}

TEST(a_long_name_in_the_working_directory_works)
{
    char name[81];
    struct pl_address address;
    int directory;
    CHECK_INT(chdir(test_directory()), 0);
    snprintf(name, sizeof name, "%080d", 1);
    CHECK_INT(pl_address_unix(&address, name, &directory), 0);
    listen_and_connect(&address);
    pl_close(&directory);
    CHECK_INT(access(name, F_OK), 0);
}
