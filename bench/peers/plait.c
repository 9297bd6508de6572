/* plait as a peer: names instead of paths, and its defaults. */
#include "peer.h"

#include <plait/plait.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *name_of(const char *address)
{
    char *directory = strdup(address), *slash = strrchr(directory, '/');

    *slash = '\0';
    setenv("PLAIT_DIR", directory, 1);
    free(directory);
    return strrchr(address, '/') + 1;
}

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);

    (void)context;
    plait_request_reply(request, body.data, body.size);
}

static void take(plait_request *request, void *context)
{
    if (peer_is_last(plait_request_body(request).data) && write(*(int *)context, "", 1) < 0) _exit(1);
}

static int serve(const char *address, plait_handler *handler, void *context)
{
    plait_server *server = NULL;
    int r = plait_server_open(&server, name_of(address), NULL);

    if (r == 0) r = plait_server_handle(server, "", handler, context);
    if (r == 0) r = plait_server_run(server);
    return r;
}

static int serve_echo(const char *address)
{
    return serve(address, echo, NULL);
}

static int serve_sink(const char *address, int done_fd)
{
    return serve(address, take, &done_fd);
}

static void *open_client(const char *address, int one_way)
{
    plait_client *client = NULL;

    (void)one_way;
    return plait_client_open(&client, name_of(address), NULL) < 0 ? NULL : client;
}

static int call(void *client, const void *data, size_t size, void *ret_reply)
{
    plait_reply *reply = NULL;
    plait_bytes body;
    int r = plait_client_call(client, NULL, data, size, NULL, &reply);

    if (r < 0) return r;
    body = plait_reply_body(reply);
    if (body.size == size) memcpy(ret_reply, body.data, size); /* into the caller's memory, as the others deliver it */
    plait_reply_free(reply);
    return body.size == size ? 0 : -1;
}

static int send_one(void *client, const void *data, size_t size)
{
    return plait_client_send(client, NULL, data, size, NULL);
}

static int subscribe(const char *address, int done_fd)
{
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;
    int r = plait_subscriber_open(&subscriber, name_of(address), NULL);

    for (uint64_t count = 0; r == 0; count++) {
        r = plait_subscriber_next(subscriber, PLAIT_FOREVER, &message);
        if (r < 0 || !peer_is_due(plait_message_body(message).data, count)) return -1;
        if (peer_is_last(plait_message_body(message).data)) break;
    }
    return r == 0 && write(done_fd, "", 1) == 1 ? pause() : -1;
}

static void *open_publisher(const char *address, int count)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    plait_publisher *publisher = NULL;

    options.reliable = 1;
    options.timeout = 20000;
    if (plait_publisher_open(&publisher, name_of(address), &options) < 0) return NULL;
    for (int i = 0; i < 20000 && plait_publisher_subscribers(publisher) < (size_t)count; i++) usleep(1000);
    return publisher;
}

static int publish(void *publisher, const void *data, size_t size)
{
    return plait_publisher_publish(publisher, data, size);
}

const struct peer peer = { serve_echo, serve_sink, open_client, call, send_one, subscribe, open_publisher, publish };
