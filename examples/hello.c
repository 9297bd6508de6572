/* The smallest server: the README's. `plait call greeter/greet Ada` and `printf Ada | nc -N localhost 8888`
 * both get "hello, Ada". */
#include <plait/plait.h>
#include <stdio.h>

static void greet(plait_request *request, void *context)
{
    plait_bytes name = plait_request_body(request); /* valid until this function returns */
    (void)context;
    plait_request_replyf(request, "hello, %.*s", (int)name.size, (const char *)name.data);
}

int main(void)
{
    plait_server *server = NULL;
    int r = plait_server_open(&server, "greeter", NULL);
    if (r == 0) r = plait_server_handle(server, "greet", greet, NULL);
    if (r == 0) r = plait_server_listen(server, "tcp://127.0.0.1:8888?framing=raw&method=greet");
    if (r == 0) r = plait_server_run(server); /* until SIGINT, SIGTERM or plait_server_stop() */
    if (r < 0) fprintf(stderr, "greeter: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
