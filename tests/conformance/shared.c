/* shared: small things that many behaviours and columns need; starting and ending servers. */
#include "conformance/conformance.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

const char *framing_name(enum framing framing)
{
    static const char *const names[FRAMINGS] = { "plait", "raw", "lines", "length", "datagram" };
    return names[framing];
}

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

char *pattern(const struct cell *cell, size_t size, unsigned seed)
{
    char *data = malloc(size + 1);
    uint32_t state = seed * 2654435761u + 1;
    CHECK(data != NULL);
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (char)(i < 256 ? i ^ (seed & 0xff) : state >> 24); /* every value early, then noise */
        if (cell->framing == FRAMING_LINES && data[i] == '\n') data[i] = 'n';
    }
    if (cell->framing == FRAMING_LINES && size > 0 && data[size - 1] == '\r') data[size - 1] = 'r';
    data[size] = 0;
    return data;
}

void answer_free(struct answer *answer)
{
    free(answer->data);
    *answer = (struct answer){ 0 };
}

const char *method_in(const struct cell *cell, const char *method)
{
    return cell->framing == FRAMING_PLAIT ? method : "";
}

void call_once(const struct cell *cell, const struct service *service, const char *method, const void *data,
               size_t size, struct answer *answer)
{
    struct settings settings = { 0 };
    void *client = cell->column->open(cell, service_url(service, method), &settings);
    cell->column->call(client, method, data, size, 0, answer);
    cell->column->close(client);
}

plait_client *open_client(const struct cell *cell, const struct service *service, const char *method)
{
    plait_client *client = NULL;
    int r = plait_client_open(&client, service_url(service, method), NULL);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s: %s", service_url(service, method), plait_error_text());
    CHECK_STR(plait_client_transport(client), cell->transport->shown);
    return client;
}

void add_option(char *url, size_t size, const char *option)
{
    size_t used = strlen(url);
    if (option[0]) snprintf(url + used, size - used, "%c%s", strchr(url, '?') ? '&' : '?', option);
}

int connect_to(const char *url)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address = { 0 };
    socklen_t size = sizeof(address.un);
    char text[SERVICE_TEXT];
    snprintf(text, sizeof(text), "%s", url);
    text[strcspn(text, "?")] = 0;
    if (strncmp(text, "unix://", 7) == 0) {
        address.un.sun_family = AF_UNIX;
        CHECK(strlen(text + 7) < sizeof(address.un.sun_path));
        strcpy(address.un.sun_path, text + 7);
    } else {
        char *colon = strrchr(text, ':');
        CHECK(strncmp(text, "tcp://", 6) == 0 || strncmp(text, "udp://", 6) == 0);
        if (text[6] == '[') {
            colon[-1] = 0;
            size = sizeof(address.in6);
            address.in6.sin6_family = AF_INET6;
            address.in6.sin6_port = htons((uint16_t)atoi(colon + 1));
            CHECK_INT(inet_pton(AF_INET6, text + 7, &address.in6.sin6_addr), 1);
        } else {
            *colon = 0;
            size = sizeof(address.in);
            address.in.sin_family = AF_INET;
            address.in.sin_port = htons((uint16_t)atoi(colon + 1));
            CHECK_INT(inet_pton(AF_INET, text + 6, &address.in.sin_addr), 1);
        }
    }
    bool datagrams = strncmp(text, "udp", 3) == 0;
    int fd = socket(address.any.sa_family, (datagrams ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0), one = 1;
    CHECK(fd >= 0);
    if (connect(fd, &address.any, size) < 0) test_fail(__FILE__, __LINE__, "connect %s: %s", url, strerror(errno));
    if (address.any.sa_family != AF_UNIX && !datagrams) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* ---- servers ---- */

/* Reads "METHOD URL" lines up to an empty one: then the server can be called. */
static void read_urls(struct service *service, int fd)
{
    FILE *lines = fdopen(fd, "r");
    char line[SERVICE_TEXT + 64] = "";
    CHECK(lines != NULL);
    while (fgets(line, sizeof(line), lines) && line[0] != '\n') {
        CHECK(service->count < SERVICE_URLS);
        CHECK_INT(sscanf(line, "%31s %399s", service->methods[service->count], service->urls[service->count]), 2);
        service->count++;
    }
    if (line[0] != '\n') test_fail(__FILE__, __LINE__, "the server didn't come up");
    fclose(lines);
}

void service_start(struct service *service, const struct cell *cell, const char *methods,
                   const struct service_options *options)
{
    struct service_options wanted = options ? *options : (struct service_options){ 0 };
    int out[2], stop[2];
    *service = (struct service){ 0 };
    wanted.methods = methods;
    CHECK_INT(pipe2(out, O_CLOEXEC), 0);
    CHECK_INT(pipe2(stop, O_CLOEXEC), 0);
    service->pid = fork();
    CHECK(service->pid >= 0);
    if (service->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(out[0]);
        close(stop[1]);
        cell->column->serve(cell, &wanted, out[1], stop[0]);
        _exit(1);
    }
    close(out[1]);
    close(stop[0]);
    service->stop = stop[1];
    read_urls(service, out[0]);
}

const char *service_url(const struct service *service, const char *method)
{
    for (size_t i = 0; i < service->count; i++)
        if (strcmp(service->methods[i], method) == 0 || strcmp(service->methods[i], "*") == 0) return service->urls[i];
    test_fail(__FILE__, __LINE__, "the server has no listener for %s", method);
}

void service_stop(struct service *service)
{
    close(service->stop);
    CHECK_INT(test_wait_child(service->pid), 0);
}
