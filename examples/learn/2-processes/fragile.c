/* A service that works until it is told to end, and that can crash: fragile threads|processes */
#define _GNU_SOURCE
#include <plait/plait.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void work(plait_request *request, void *context)
{
    char byte;
    (void)context;
    if (write(STDOUT_FILENO, "begun\n", 6) < 0 || read(STDIN_FILENO, &byte, 1) < 0) /* whoever started us lets it end */
        plait_request_fail(request, 1, "nobody is there");
    else plait_request_replyf(request, "done by process %d", (int)getpid());
}

static void who(plait_request *request, void *context)
{
    (void)context;
    plait_request_replyf(request, "%d", (int)gettid());
}

static void crash(plait_request *request, void *context)
{
    volatile int *nowhere = NULL;
    (void)context;
    plait_request_replyf(request, "%d", *nowhere); /* reads what lies at address 0: nothing does */
}

int main(int argc, char **argv)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    plait_server *server = NULL;
    if (argc == 2 && strcmp(argv[1], "threads") == 0) options.threads = 4;
    else if (argc == 2 && strcmp(argv[1], "processes") == 0) options.processes = 4;
    else {
        fprintf(stderr, "usage: fragile threads|processes\n");
        return 2;
    }
    int r = plait_server_open(&server, "fragile", &options);
    if (r == 0) r = plait_server_handle(server, "who", who, NULL);
    if (r == 0) r = plait_server_handle(server, "work", work, NULL);
    if (r == 0) r = plait_server_handle(server, "crash", crash, NULL);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fprintf(stderr, "fragile: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
