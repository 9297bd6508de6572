/* What the tests of the client share: a server whose every step the test decides, on a thread of its own. */
#ifndef PL_CLIENT_TEST_SUPPORT_H
#define PL_CLIENT_TEST_SUPPORT_H

#include "base/clock.h"
#include "base/fd.h"
#include "client/client.h"
#include "connection/context.h"
#include "connection/handshake.h"
#include "harness/test.h"
#include "transport/socket.h"
#include <plait/plait.h>

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 30000 };

/* A listener and what is known of the client that it accepted last. */
struct stage {
    int listener;
    bool shm;
    char url[1200];
    pthread_t thread;
    void (*play)(struct stage *stage);
    void *context;
    uint64_t instance; /* as the hello says them */
    uint32_t concurrency, outstanding, reactor;
};

/* The server's end of one connection: a transport (plait) or a bare socket. */
struct actor {
    struct pl_transport *transport;
    int socket;
};

__attribute__((unused)) static void *stage_main(void *argument)
{
    struct stage *stage = argument;
    stage->play(stage);
    return NULL;
}

__attribute__((unused)) static void open_stage(struct stage *stage, const char *options, bool shm,
                                               void (*play)(struct stage *stage), void *context)
{
    struct pl_url url;
    char text[1200];
    *stage = (struct stage){
        .shm = shm, .play = play, .context = context, .instance = 4711, .concurrency = 1, .outstanding = 1000
    };
    snprintf(stage->url, sizeof(stage->url), "unix://%s/stage%s", test_directory(), options);
    CHECK_INT(pl_url_parse(&url, stage->url), 0);
    CHECK_INT(pl_socket_listen(&url, &stage->listener, text, sizeof(text)), 0);
    CHECK_INT(pthread_create(&stage->thread, NULL, stage_main, stage), 0);
}

__attribute__((unused)) static void close_stage(struct stage *stage)
{
    CHECK_INT(pthread_join(stage->thread, NULL), 0);
    close(stage->listener);
}

__attribute__((unused)) static bool wait_for(int fd, short events)
{
    struct pollfd poller = { .fd = fd, .events = events };
    return poll(&poller, 1, PATIENCE_MS) == 1;
}

__attribute__((unused)) static int accept_socket(struct stage *stage)
{
    struct pl_address peer;
    int fd;
    CHECK(wait_for(stage->listener, POLLIN));
    CHECK_INT(pl_socket_accept(stage->listener, &fd, &peer), 0);
    return fd;
}

__attribute__((unused)) static void accept_client(struct stage *stage, struct actor *actor)
{
    static const uint8_t table[] = { 4, 'e', 'c', 'h', 'o' };
    struct pl_greeting greeting = { .size = 0 };
    struct pl_hello_client hello;
    struct pl_terms terms = { .instance = stage->instance,
                              .max_message = PLAIT_MESSAGE_MAX,
                              .outstanding = stage->outstanding,
                              .concurrency = stage->concurrency,
                              .reactor = stage->reactor,
                              .methods = table,
                              .methods_size = sizeof(table),
                              .method_count = 1,
                              .load_fd = -1,
                              .shm = stage->shm,
                              .transport = "unix" };
    actor->socket = accept_socket(stage);
    int r;
    while ((r = pl_greeting_read(&greeting, actor->socket, &hello)) == PL_HELLO_MORE)
        CHECK(wait_for(actor->socket, POLLIN));
    CHECK_INT(r, 0);
    CHECK_INT(pl_handshake_accept(&actor->transport, actor->socket, &hello, &terms), 0);
}

__attribute__((unused)) static void leave(struct actor *actor)
{
    actor->transport->ops->close(actor->transport);
}

/* The next frame; false: the client is gone. */
__attribute__((unused)) static bool hear(struct actor *actor, struct pl_message *message)
{
    struct pl_transport *transport = actor->transport;
    for (;;) {
        int r = transport->ops->receive(transport, message);
        if (r == PL_TRANSPORT_OK) return true;
        if (r != PL_TRANSPORT_EMPTY) return false;
        struct pollfd pollers[2] = { { .fd = transport->socket, .events = POLLIN },
                                     { .fd = transport->bell, .events = POLLIN } };
        if (transport->ops->sleep(transport)) {
            CHECK(poll(pollers, transport->bell >= 0 ? 2 : 1, PATIENCE_MS) > 0);
            uint64_t count;
            if (pollers[1].revents & POLLIN) (void)!read(transport->bell, &count, sizeof(count));
            if (pollers[0].revents & POLLHUP && transport->bell >= 0) return false;
        }
        transport->ops->awake(transport);
        transport->ops->readable(transport);
    }
}

/* The next call's frame. */
__attribute__((unused)) static struct pl_frame hear_call(struct actor *actor)
{
    struct pl_message message;
    CHECK(hear(actor, &message));
    struct pl_frame frame = message.frame;
    CHECK_INT(frame.kind, PL_FRAME_CALL);
    pl_message_release(actor->transport, &message);
    return frame;
}

__attribute__((unused)) static void say(struct actor *actor, struct pl_frame frame, const void *body)
{
    CHECK_INT(actor->transport->ops->send(actor->transport, &frame, body, false), PL_TRANSPORT_OK);
    CHECK(actor->transport->ops->flush(actor->transport) >= 0);
}

__attribute__((unused)) static void reply(struct actor *actor, uint64_t call, const char *text)
{
    say(actor, (struct pl_frame){ .kind = PL_FRAME_REPLY, .call = call, .size = (uint32_t)strlen(text) }, text);
}

__attribute__((unused)) static void go_away(struct actor *actor, uint64_t taken)
{
    uint8_t position[8];
    pl_frame_store_u64(position, taken);
    say(actor, (struct pl_frame){ .kind = PL_FRAME_GOAWAY, .size = 8 }, position);
}

/* Answers every call with its body until the client leaves; a body "stuck" never. */
__attribute__((unused)) static void echo_until_the_end(struct actor *actor)
{
    struct pl_message message;
    while (hear(actor, &message)) {
        bool stuck = message.size == 5 && memcmp(message.body, "stuck", 5) == 0;
        struct pl_frame frame = { .kind = PL_FRAME_REPLY, .call = message.frame.call, .size = (uint32_t)message.size };
        if (message.frame.kind == PL_FRAME_CALL && !stuck) say(actor, frame, message.body);
        pl_message_release(actor->transport, &message);
    }
}

__attribute__((unused)) static plait_client *open_client(struct stage *stage)
{
    plait_client *client = NULL;
    CHECK_INT(plait_client_open(&client, stage->url, NULL), 0);
    return client;
}

__attribute__((unused)) static int call_text(plait_client *client, const char *text, int64_t timeout)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_reply *answer = NULL;
    options.timeout = timeout;
    int r = plait_client_call(client, "", text, strlen(text), &options, &answer);
    if (r == 0) {
        CHECK_INT(plait_reply_body(answer).size, strlen(text));
        CHECK_MEM(plait_reply_body(answer).data, text, strlen(text));
    }
    plait_reply_free(answer);
    return r;
}

/* ---- ends of asynchronous calls ---- */

struct told {
    int count, result;
    plait_client *close; /* closed by the callback */
};

__attribute__((unused)) static void tell(int result, plait_reply *answer, void *context)
{
    struct told *told = context;
    told->count++;
    told->result = result;
    plait_reply_free(answer);
    if (told->close) plait_client_close(told->close);
}

__attribute__((unused)) static uint64_t begin(plait_client *client, const char *text, int64_t timeout,
                                              struct told *told)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    uint64_t id = 0;
    options.timeout = timeout;
    CHECK_INT(plait_client_call_async(client, "", text, strlen(text), &options, tell, told, &id), 0);
    return id;
}

__attribute__((unused)) static void dispatch_until(plait_client *client, const struct told *told, int count)
{
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (told->count < count) {
        CHECK(plait_client_dispatch(client, 1000) >= 0);
        CHECK(pl_clock_ns() < deadline);
    }
    CHECK_INT(told->count, count);
}

__attribute__((unused)) static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
