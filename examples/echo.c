/* An echo server: `echo-server [NAME [URL]...]` answers every call with its own body. NAME ("echo" if absent)
 * is reached by shared memory on this machine, each URL by sockets too. Ends in order on Ctrl-C and SIGTERM. */
#include <plait/plait.h>
#include <stdio.h>
#include <unistd.h>

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);

    (void)context;
    plait_request_reply_as(request, plait_request_encoding(request), body.data, body.size);
}

/* Whoever started us waits for these lines, so they are flushed, the last one last. */
static void announce(plait_server *server, const char *name)
{
    const char *url;

    for (size_t i = 0; (url = plait_server_url(server, i)); i++)
        printf("listening on %s\n", url); /* with the real port, where the URL said 0 */
    printf("serving %s (pid %d)\n", name, (int)getpid());
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "echo";
    plait_server *server = NULL;
    int r = plait_server_open(&server, name, NULL);

    if (r == 0) r = plait_server_handle(server, "", echo, NULL);
    for (int i = 2; i < argc && r == 0; i++) r = plait_server_listen(server, argv[i]);
    if (r == 0) {
        announce(server, name);
        r = plait_server_run(server);
    }
    if (r < 0) fprintf(stderr, "echo-server: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
