/* raw: sockets that speak as the test says, and not plait. */
#include "system/system.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_path(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    CHECK(strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        test_fail(__FILE__, __LINE__, "connect %s: %s", path, strerror(errno));
    return fd;
}

int raw_connect(const char *url)
{
    unsigned port = 0;
    char path[200];
    if (sscanf(url, "unix://%199[^?]", path) == 1) return connect_path(path);
    if (sscanf(url, "tcp://127.0.0.1:%u", &port) != 1) test_fail(__FILE__, __LINE__, "what is %s?", url);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        test_fail(__FILE__, __LINE__, "connect %s: %s", url, strerror(errno));
    return fd;
}

int raw_connect_name(const char *name)
{
    char path[700], id[32] = "";
    snprintf(path, sizeof(path), "%s/services", getenv("PLAIT_DIR"));
    DIR *listing = opendir(path);
    CHECK(listing != NULL);
    for (struct dirent *entry; (entry = readdir(listing));) {
        const char *at = strchr(entry->d_name, '@');
        if (at && (size_t)(at - entry->d_name) == strlen(name) && strncmp(entry->d_name, name, strlen(name)) == 0)
            snprintf(id, sizeof(id), "%.20s", at + 1);
    }
    closedir(listing);
    if (id[0] == 0) test_fail(__FILE__, __LINE__, "no instance of %s", name);
    snprintf(path, sizeof(path), "%s/s/%s", getenv("PLAIT_DIR"), id);
    return connect_path(path);
}

void raw_send(int fd, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    while (size > 0) {
        ssize_t n = send(fd, from, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        from += n;
        size -= (size_t)n;
    }
}

size_t raw_read(int fd, void *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        struct pollfd poller = { .fd = fd, .events = POLLIN };
        if (poll(&poller, 1, PATIENCE_MS) <= 0) test_fail(__FILE__, __LINE__, "nothing came");
        ssize_t n = recv(fd, (uint8_t *)bytes + done, size - done, 0);
        if (n <= 0) break;
        done += (size_t)n;
    }
    return done;
}

int raw_closed(int fd, int milliseconds)
{
    int64_t until = now_ms() + milliseconds;
    for (;;) {
        char dropped[4096];
        int64_t left = until - now_ms();
        struct pollfd poller = { .fd = fd, .events = POLLIN };
        if (left < 0 || poll(&poller, 1, (int)left) <= 0) return 0;
        if (recv(fd, dropped, sizeof(dropped), 0) <= 0) return 1;
    }
}

size_t raw_hello(uint8_t bytes[132], const char *name, uint64_t features)
{
    uint8_t page = 0;
    while ((1L << page) < sysconf(_SC_PAGESIZE)) page++;
    memset(bytes, 0, 132);
    memcpy(bytes, "PLAI", 4);
    bytes[4] = 1;
    bytes[8] = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 1 : 2;
    bytes[9] = sizeof(void *);
    bytes[10] = page;
    bytes[16] = (uint8_t)features;
    bytes[24] = (uint8_t)strlen(name);
    memcpy(bytes + 32, name, strlen(name));
    return 32 + strlen(name);
}

void raw_frame(uint8_t head[32], uint32_t size, uint8_t kind, uint8_t flags, uint32_t method, uint64_t call)
{
    memset(head, 0, 32);
    for (int i = 0; i < 4; i++) {
        head[i] = (uint8_t)(size >> 8 * i);
        head[8 + i] = (uint8_t)(method >> 8 * i);
    }
    head[4] = kind;
    head[6] = flags;
    for (int i = 0; i < 8; i++) head[16 + i] = (uint8_t)(call >> 8 * i);
}
