/* A service that says which thread answers, and how plait and the kernel show that thread meanwhile. */
#define _GNU_SOURCE
#include <plait/plait.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void look(plait_request *request, void *context)
{
    char command[64], text[4096];
    int used = snprintf(text, sizeof(text), "inside: ident %#lx, native id %d\n", (unsigned long)pthread_self(),
                        (int)gettid());
    snprintf(command, sizeof(command), "plait threads %d", (int)getpid());
    FILE *outside = popen(command, "re");
    (void)context;
    if (outside == NULL) {
        plait_request_fail(request, 1, "no shell to run plait threads in");
        return;
    }
    size_t seen = fread(text + used, 1, sizeof(text) - (size_t)used, outside);
    pclose(outside);
    plait_request_reply(request, text, (size_t)used + seen);
}

int main(void)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    plait_server *server = NULL;
    options.threads = 2;
    int r = plait_server_open(&server, "who", &options);
    if (r == 0) r = plait_server_handle(server, "look", look, NULL);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fprintf(stderr, "served: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
