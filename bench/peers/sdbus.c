/* sd-bus, peer to peer over a Unix socket: method calls, with and without a reply. */
#include "peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static int echo(sd_bus_message *message, void *context, sd_bus_error *error)
{
    sd_bus_message *reply = NULL;
    const void *data;
    size_t size;
    int r;

    (void)context;
    (void)error;
    r = sd_bus_message_read_array(message, 'y', &data, &size);
    if (r >= 0) r = sd_bus_message_new_method_return(message, &reply);
    if (r >= 0) r = sd_bus_message_append_array(reply, 'y', data, size);
    if (r >= 0) r = sd_bus_send(NULL, reply, NULL);
    sd_bus_message_unref(reply);
    return r;
}

static int take(sd_bus_message *message, void *context, sd_bus_error *error)
{
    const void *data;
    size_t size;
    int r = sd_bus_message_read_array(message, 'y', &data, &size);

    (void)error;
    if (r >= 0 && peer_is_last(data) && write(*(int *)context, "", 1) < 0) r = -errno;
    return r < 0 ? r : 1;
}

static const sd_bus_vtable methods[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Echo", "ay", "ay", echo, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Take", "ay", "", take, SD_BUS_VTABLE_UNPRIVILEGED | SD_BUS_VTABLE_METHOD_NO_REPLY),
    SD_BUS_VTABLE_END,
};

static int make_socket(const char *address, int listening)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(name.sun_path, address, sizeof(name.sun_path) - 1);
    if (listening) return bind(fd, (struct sockaddr *)&name, sizeof(name)) < 0 || listen(fd, 8) < 0 ? -1 : fd;
    for (int tries = 0; connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0; tries++) {
        if (tries == 2000) return -1;
        usleep(1000);
    }
    return fd;
}

static int serve(const char *address, int *done_fd)
{
    int listener = make_socket(address, 1), fd = listener < 0 ? -1 : accept(listener, NULL, NULL), r;
    sd_id128_t id = SD_ID128_MAKE(70, 6c, 61, 69, 74, 00, 40, 00, 80, 00, 00, 00, 00, 00, 00, 01);
    sd_bus *bus = NULL;

    if (fd < 0 || sd_bus_new(&bus) < 0 || sd_bus_set_fd(bus, fd, fd) < 0 || sd_bus_set_server(bus, 1, id) < 0 ||
        sd_bus_add_object_vtable(bus, NULL, "/peer", "bench.Peer", methods, done_fd) < 0 || sd_bus_start(bus) < 0)
        return -1;
    for (;;) {
        r = sd_bus_process(bus, NULL);
        if (r < 0 || (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0)) return -1;
    }
}

static int serve_echo(const char *address)
{
    return serve(address, NULL);
}

static int serve_sink(const char *address, int done_fd)
{
    return serve(address, &done_fd);
}

static void *open_client(const char *address, int one_way)
{
    int fd = make_socket(address, 0);
    sd_bus *bus = NULL;

    (void)one_way;
    if (fd < 0 || sd_bus_new(&bus) < 0 || sd_bus_set_fd(bus, fd, fd) < 0 || sd_bus_start(bus) < 0) return NULL;
    return bus;
}

static int make_call(sd_bus *bus, const char *method, const void *data, size_t size, sd_bus_message **ret_message)
{
    int r = sd_bus_message_new_method_call(bus, ret_message, NULL, "/peer", "bench.Peer", method);

    return r < 0 ? r : sd_bus_message_append_array(*ret_message, 'y', data, size);
}

static int call(void *client, const void *data, size_t size, void *ret_reply)
{
    sd_bus_message *message = NULL, *reply = NULL;
    const void *answer = NULL;
    size_t answer_size = 0;
    int r = make_call(client, "Echo", data, size, &message);

    if (r >= 0) r = sd_bus_call(client, message, 0, NULL, &reply);
    if (r >= 0) r = sd_bus_message_read_array(reply, 'y', &answer, &answer_size);
    if (r >= 0 && answer_size == size) memcpy(ret_reply, answer, size);
    sd_bus_message_unref(message);
    sd_bus_message_unref(reply);
    return r < 0 || answer_size != size ? -1 : 0;
}

static int send_one(void *client, const void *data, size_t size)
{
    sd_bus_message *message = NULL;
    int r = make_call(client, "Take", data, size, &message);

    if (r >= 0) r = sd_bus_message_set_expect_reply(message, 0);
    if (r >= 0) r = sd_bus_send(client, message, NULL);
    if (r >= 0) /* what a full socket made it queue would stay there */
        r = sd_bus_flush(client);
    sd_bus_message_unref(message);
    return r < 0 ? -1 : 0;
}

const struct peer peer = { serve_echo, serve_sink, open_client, call, send_one };
