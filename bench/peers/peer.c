/* peer: measures the library behind `peer`: prints "call64 US", "call1m US", "oneway64 M/s" and, delivered to a hundred
 * subscribers together, "fanout64 M/s". */
#include "peer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES_MAX = 200000, CROWD = 100 };

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static pid_t start(const char *address, int done_fd)
{
    pid_t child = fork();

    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit((done_fd >= 0 ? peer.serve_sink(address, done_fd) : peer.serve_echo(address)) < 0);
}

static void stop(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static int measure_calls(const char *address, size_t size, double seconds, double *ret_median)
{
    static double samples[SAMPLES_MAX];
    unsigned char *data = malloc(size), *reply = malloc(size);
    pid_t server = start(address, -1);
    void *client = server > 0 ? peer.open(address, 0) : NULL;
    size_t count = 0;
    double end = 0;

    if (!client || !data || !reply) return -1;
    memset(data, 0x5a, size);
    for (uint64_t i = 0; count < SAMPLES_MAX; i++) {
        double from;
        memcpy(data, &i, sizeof(i));
        from = now_us();
        if (peer.call(client, data, size, reply) < 0 || memcmp(data, reply, size) != 0) return -1;
        if (i == 20) end = now_us() + seconds * 1e6; /* warm from here on */
        if (i <= 20) continue;
        samples[count++] = now_us() - from;
        if (from > end) break;
    }
    qsort(samples, count, sizeof(*samples), by_value);
    *ret_median = samples[count / 2];
    stop(server);
    free(data);
    free(reply);
    return 0;
}

static int measure_one_way(const char *address, double seconds, double *ret_rate)
{
    unsigned char data[64] = { 0 };
    uint64_t count = 0;
    int done[2];
    char byte;
    pid_t server;
    void *client;
    double from, end;

    if (pipe(done) < 0) return -1;
    server = start(address, done[1]);
    client = server > 0 ? peer.open(address, 1) : NULL;
    if (!client) return -1;
    from = now_us();
    end = from + seconds * 1e6;
    for (uint64_t number = 0; number != PEER_LAST; count++) {
        number = count % 64 == 63 && now_us() > end ? PEER_LAST : count;
        memcpy(data, &number, sizeof(number));
        if (peer.send(client, data, sizeof(data)) < 0) return -1;
    }
    if (read(done[0], &byte, 1) != 1) return -1;
    *ret_rate = (double)count / (now_us() - from);
    stop(server);
    return 0;
}

/* Everybody gets everything: what a publisher sends in SECONDS, times CROWD, over the time until the last one has it.
 */
static int measure_fanout(const char *address, double seconds, double *ret_rate)
{
    unsigned char data[64] = { 0 };
    pid_t crowd[CROWD];
    uint64_t count = 0;
    int done[2];
    char byte;

    if (pipe(done) < 0) return -1;
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = fork();
        if (crowd[i] != 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(peer.subscribe(address, done[1]) < 0);
    }
    close(done[1]);
    void *publisher = peer.open_publisher(address, CROWD);
    if (!publisher) return -1;
    double from = now_us(), end = from + seconds * 1e6;
    for (uint64_t number = 0; number != PEER_LAST; count++) {
        number = count % 16 == 15 && now_us() > end ? PEER_LAST : count;
        memcpy(data, &number, sizeof(number));
        memcpy(data + sizeof(number), &count, sizeof(count));
        if (peer.publish(publisher, data, sizeof(data)) < 0) return -1;
    }
    for (int i = 0; i < CROWD; i++) /* one that lost something ends without */
        if (read(done[0], &byte, 1) != 1) return -1;
    *ret_rate = (double)count * CROWD / (now_us() - from);
    for (int i = 0; i < CROWD; i++) stop(crowd[i]);
    return 0;
}

/* Each measurement has a process of its own: what a library leaves behind can't reach the next. */
static int in_child(const char *directory, int which)
{
    static const char *const names[] = { "call64", "call1m", "oneway64", "fanout64" };
    char address[512];
    double figure = 0;
    int r = -1, status = 1;
    pid_t child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(60);
        snprintf(address, sizeof(address), "%s/%s", directory, names[which]);
        if (which == 3) r = measure_fanout(address, 0.5, &figure);
        else if (which == 2) r = measure_one_way(address, 0.4, &figure);
        else r = measure_calls(address, which == 0 ? 64 : 1 << 20, 0.4, &figure);
        if (r == 0) printf("%s %.3f\n", names[which], figure);
        fflush(stdout);
        _exit(r < 0);
    }
    waitpid(child, &status, 0);
    if (status != 0) printf("%s failed\n", names[which]);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY (an empty one)\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int which = 0; which < (peer.subscribe ? 4 : 3); which++) in_child(argv[1], which);
    return 0;
}
