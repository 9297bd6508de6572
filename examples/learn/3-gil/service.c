/* A service that computes and waits: service threads|processes N */
#define _GNU_SOURCE
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Work for the CPU, about 10 ms of it. */
static void compute(plait_request *request, void *context)
{
    volatile unsigned long total = 0; /* volatile: or the compiler would do it once, beforehand */
    (void)context;
    for (unsigned long number = 0; number < 8000000; number++) total = total + number * number;
    plait_request_replyf(request, "%lu", total);
}

/* What a database or another service does to us: 10 ms of nothing. Tells which thread it was. */
static void wait_a_little(plait_request *request, void *context)
{
    struct timespec little = { .tv_nsec = 10000000 };
    (void)context;
    nanosleep(&little, NULL);
    plait_request_replyf(request, "%d", (int)gettid());
}

int main(int argc, char **argv)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    plait_server *server = NULL;
    if (argc != 3) return 2;
    if (strcmp(argv[1], "processes") == 0) options.processes = atoi(argv[2]);
    else options.threads = atoi(argv[2]);
    int r = plait_server_open(&server, "sums", &options);
    if (r == 0) r = plait_server_handle(server, "compute", compute, NULL);
    if (r == 0) r = plait_server_handle(server, "wait", wait_a_little, NULL);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fprintf(stderr, "service: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
