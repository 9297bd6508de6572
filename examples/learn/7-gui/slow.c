/* A service that takes its time: slow [SECONDS] */
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds = 2;

static void ask(plait_request *request, void *context)
{
    struct timespec while_asked = { .tv_sec = (time_t)seconds };
    (void)context;
    while_asked.tv_nsec = (long)((seconds - (double)while_asked.tv_sec) * 1e9);
    nanosleep(&while_asked, NULL);
    plait_request_replyf(request, "42");
}

int main(int argc, char **argv)
{
    plait_server *server = NULL;
    if (argc > 1) seconds = atof(argv[1]);
    int r = plait_server_open(&server, "oracle", NULL);
    if (r == 0) r = plait_server_handle(server, "ask", ask, NULL);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fprintf(stderr, "slow: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
