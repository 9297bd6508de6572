/* echo: the C halves of bench/python.py.
 *
 *     bench-echo serve NAME SPIN_US          an echo server, until its standard input ends
 *     bench-echo call NAME SPIN_US SIZE COUNT  prints the median round trip in ns
 *     bench-echo publish TOPIC COUNT           frames of 1920 x 1080 x 3 to one subscriber, 500 a second, by loan
 *     bench-echo watch TOPIC SPIN_US COUNT     prints the median way of such frames in ns, from their commit
 *     bench-echo socket PATH                 a bare Unix stream that echoes messages, a 32-bit size before each
 *
 * "ready" is printed once there is somebody to talk to. Small calls are timed sixteen at a time, since a clock reading
 * costs as much as a fair part of one.
 */
#include <plait/plait.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 16, SMALL = 4096, WARM_UP = 2000, FRAME_WARM_UP = 50, FRAME_PAUSE_NS = 2000000 };

static void die(const char *what)
{
    fprintf(stderr, "bench-echo: %s: %s\n", what, plait_error_text()[0] ? plait_error_text() : strerror(errno));
    exit(1);
}

static void ready(void)
{
    puts("ready");
    fflush(stdout);
}

/* ---- plait ---- */

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    (void)plait_request_reply(request, body.data, body.size);
}

static void serve(const char *name, int64_t spin_us)
{
    plait_server *server;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    char byte;
    options.spin_us = spin_us;
    if (plait_server_open(&server, name, &options) < 0) die(name);
    if (plait_server_handle(server, "", echo, NULL) < 0 || plait_server_start(server) < 0) die(name);
    ready();
    while (read(0, &byte, 1) > 0) continue;
    plait_server_close(server);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void call_once(plait_client *client, const char *body, size_t size)
{
    plait_reply *reply;
    if (plait_client_call(client, "", body, size, NULL, &reply) < 0) die("call");
    if (plait_reply_body(reply).size != size) die("a reply of another size");
    plait_reply_free(reply);
}

static void call(const char *name, int64_t spin_us, size_t size, size_t count)
{
    plait_client *client;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    size_t batch = size <= SMALL ? BATCH : 1, rounds = count / batch;
    char *body = malloc(size);
    uint64_t *times = malloc(rounds * sizeof(*times));
    options.spin_us = spin_us;
    if (body == NULL || times == NULL) die("malloc");
    memset(body, 'x', size);
    if (plait_client_open(&client, name, &options) < 0) die(name);
    for (size_t i = 0; i < (size <= SMALL ? WARM_UP : 100); i++) call_once(client, body, size);
    for (size_t i = 0; i < rounds; i++) {
        uint64_t begun = now_ns();
        for (size_t j = 0; j < batch; j++) call_once(client, body, size);
        times[i] = now_ns() - begun;
    }
    qsort(times, rounds, sizeof(*times), ascending);
    printf("%.1f\n", (double)times[rounds / 2] / (double)batch);
    plait_client_close(client);
    free(times);
    free(body);
}

/* ---- frames: each begins with the moment of its commit ---- */

static const uint64_t shape[] = { 1080, 1920, 3 };

static void publish(const char *topic, size_t count)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    plait_publisher *publisher;
    const struct timespec pause = { .tv_nsec = FRAME_PAUSE_NS };
    size_t size;
    char byte;
    options.wait_subscribers = 1;
    options.timeout = 20000;
    if (plait_publisher_open(&publisher, topic, &options) < 0) die(topic);
    if (plait_array_measure("|u1", shape, 3, &size) < 0) die(topic);
    ready();
    if (plait_publisher_publish(publisher, "", 0) < 0) die(topic); /* waits for the subscriber */
    for (size_t i = 0; i < count + FRAME_WARM_UP; i++) {
        plait_loan *loan;
        void *pixels;
        if (plait_publisher_loan(publisher, size, &loan) < 0) die("loan");
        if (plait_array_write(plait_loan_data(loan), size, "|u1", shape, 3, &pixels) < 0) die("array");
        memset(pixels, (int)i, size - PLAIT_ARRAY_HEAD);
        uint64_t now = now_ns();
        memcpy(pixels, &now, sizeof(now));
        if (plait_publisher_publish_loan(publisher, PLAIT_ARRAY, loan, size) < 0) die("publish");
        nanosleep(&pause, NULL);
    }
    while (read(0, &byte, 1) > 0) continue;
    plait_publisher_close(publisher);
}

static void watch(const char *topic, int64_t spin_us, size_t count)
{
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber;
    plait_message *message;
    uint64_t *times = malloc((count + FRAME_WARM_UP) * sizeof(*times));
    size_t seen = 0;
    if (times == NULL) die("malloc");
    options.spin_us = spin_us;
    if (plait_subscriber_open(&subscriber, topic, &options) < 0) die(topic);
    while (seen < count && plait_subscriber_next(subscriber, 20000, &message) == 0) {
        plait_array array;
        uint64_t now, sent;
        plait_bytes body = plait_message_body(message);
        if (body.size == 0) continue;
        if (plait_array_read(body.data, body.size, &array) < 0) die("array");
        now = now_ns();
        memcpy(&sent, array.data, sizeof(sent));
        if (plait_message_number(message) > FRAME_WARM_UP) times[seen++] = now - sent;
    }
    if (seen < count) die("watch");
    qsort(times, seen, sizeof(*times), ascending);
    printf("%.1f\n", (double)times[seen / 2]);
    plait_subscriber_close(subscriber);
    free(times);
}

/* ---- a bare socket ---- */

static int read_all(int fd, char *data, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = read(fd, data + got, size - got);
        if (n <= 0) return -1;
        got += (size_t)n;
    }
    return 0;
}

static int write_all(int fd, const char *data, size_t size)
{
    for (size_t put = 0; put < size;) {
        ssize_t n = write(fd, data + put, size - put);
        if (n <= 0) return -1;
        put += (size_t)n;
    }
    return 0;
}

static void socket_echo(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    static char message[4 + SMALL];
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof(address.sun_path)) die("path");
    strcpy(address.sun_path, path);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0) die(path);
    ready();
    int fd = accept(listener, NULL, NULL);
    for (;;) { /* one read for a message that came whole, as one would write it by hand */
        uint32_t size;
        ssize_t got = read(fd, message, sizeof(message));
        if (got < 4) break;
        memcpy(&size, message, 4);
        if (size > SMALL || (size_t)got > 4 + size) break;
        if (read_all(fd, message + got, 4 + size - (size_t)got) < 0 || write_all(fd, message, 4 + size) < 0) break;
    }
    close(fd);
    close(listener);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "serve") == 0) serve(argv[2], atoll(argv[3]));
    else if (argc == 6 && strcmp(argv[1], "call") == 0)
        call(argv[2], atoll(argv[3]), (size_t)atoll(argv[4]), (size_t)atoll(argv[5]));
    else if (argc == 4 && strcmp(argv[1], "publish") == 0) publish(argv[2], (size_t)atoll(argv[3]));
    else if (argc == 5 && strcmp(argv[1], "watch") == 0) watch(argv[2], atoll(argv[3]), (size_t)atoll(argv[4]));
    else if (argc == 3 && strcmp(argv[1], "socket") == 0) socket_echo(argv[2]);
    else {
        fprintf(stderr, "usage: bench-echo serve NAME SPIN_US | call NAME SPIN_US SIZE COUNT | publish TOPIC COUNT |\n"
                        "       watch TOPIC SPIN_US COUNT | socket PATH\n");
        return 2;
    }
    return 0;
}
