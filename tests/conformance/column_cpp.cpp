/* column_cpp: plait.hpp calls a server that is written with plait.hpp, too. */
#include <plait/plait.hpp>

#include <poll.h>
#include <sstream>
#include <unistd.h>

extern "C" {
#include "conformance/conformance.h"
}

extern "C" int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

using std::chrono::milliseconds;

/* ---- the server ---- */

static void echo(plait::Request &request)
{
    request.reply({ request.body(), request.encoding() });
}

/* "first" is held; whatever comes next answers it, and only then itself. */
static void late(plait::Request &request)
{
    static std::vector<plait::DeferredRequest> held;
    if (request.view() == "first") {
        held.push_back(request.defer());
        return;
    }
    for (auto &first : held) {
        try {
            first.reply(first.body());
        } catch (const plait::PeerDied &) { /* it closed its connection when its time was over */
        }
    }
    held.clear();
    request.reply(request.body());
}

static void add_methods(plait::Server &server)
{
    server.handle("echo", echo);
    server.handle("fail", [](plait::Request &request) { request.fail(7, "boom: " + request.text()); });
    server.handle("late", late);
    server.handle("mute", [](plait::Request &) {});
    server.handle("two_lines", [](plait::Request &request) { request.reply("two\nlines"); });
    server.handle("bytes",
                  [](plait::Request &request) { request.reply(std::string(std::stoul(request.text()), 'b')); });
    server.handle("later", [](plait::Request &request) {
        std::thread([deferred = request.defer()]() mutable { deferred.reply(deferred.body()); }).detach();
    });
}

static void announce(plait::Server &server, const struct cell *cell, const struct service_options *options, int out)
{
    if (cell->transport->listen == nullptr) {
        char target[SERVICE_TEXT] = SERVICE_NAME;
        add_option(target, sizeof(target), cell->transport->option);
        dprintf(out, "* %s\n", target);
    }
    std::istringstream names(cell->framing == FRAMING_PLAIT ? "*" : options->methods);
    for (std::string method; cell->transport->listen && names >> method;) {
        char url[SERVICE_TEXT];
        service_listen_url(url, cell, options, method.c_str());
        server.listen(url);
        snprintf(url, sizeof(url), "%s", server.urls().back().c_str());
        if (cell->framing == FRAMING_PLAIT) add_option(url, sizeof(url), cell->transport->option);
        dprintf(out, "%s %s\n", method.c_str(), url);
    }
    dprintf(out, "\n");
    close(out);
}

static void loop(plait::Server &server, int stop)
{
    bool stopping = false;
    do {
        struct pollfd events[2] = { { server.fd(), POLLIN, 0 }, { stopping ? -1 : stop, POLLIN, 0 } };
        poll(events, 2, -1);
        if (events[1].revents) server.stop();
        stopping = stopping || events[1].revents;
    } while (server.dispatch());
}

static void serve(const struct cell *cell, const struct service_options *options, int out, int stop)
try {
    std::size_t before = test_count_fds() - 1; /* OUT gets closed */
    {
        plait::ServerOptions own;
        own.max_message = cell->transport->listen ? 0 : options->max_message;
        own.threads = options->threads;
        plait::Server server(options->name ? options->name : SERVICE_NAME, own);
        char end;
        add_methods(server);
        /* Whoever connects before it serves waits. */
        announce(server, cell, options, out);
        if (options->foreign_loop) {
            loop(server, stop);
        } else {
            server.start();
            while (read(stop, &end, 1) > 0) continue;
        }
    }
    if (test_count_fds() != before) _exit(3);
    if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check()) _exit(2);
    _exit(0);
} catch (const std::exception &error) {
    fprintf(stderr, "conformance service in C++: %s\n", error.what());
    fflush(stderr);
    _exit(1);
}

/* ---- the client ---- */

struct cpp_client {
    plait::Client client;
    bool named; /* the framing carries methods */
};

static void *open(const struct cell *cell, const char *url, const struct settings *settings)
try {
    char target[SERVICE_TEXT + 32];
    plait::ClientOptions options;
    snprintf(target, sizeof(target), "%s", url);
    add_option(target, sizeof(target), settings->until_eof ? "until=eof" : "");
    options.max_message = settings->max_message;
    return new cpp_client{ plait::Client(target, options), cell->framing == FRAMING_PLAIT };
} catch (const plait::Error &error) {
    test_fail(__FILE__, __LINE__, "%s: %s", url, error.what());
}

static void call(void *client, const char *method, const void *data, size_t size, int64_t timeout,
                 struct answer *answer)
{
    auto *own = static_cast<cpp_client *>(client);
    *answer = {};
    try {
        plait::Reply reply = own->client.call(own->named ? method : "", { data, size },
                                              timeout ? plait::Timeout(milliseconds(timeout)) : plait::Timeout());
        answer->size = reply.bytes().size();
        answer->data = static_cast<char *>(calloc(answer->size + 1, 1));
        CHECK(answer->data != nullptr);
        reply.view().copy(answer->data, answer->size);
    } catch (const plait::Error &error) {
        const auto *remote = dynamic_cast<const plait::RemoteError *>(&error);
        answer->result = error.code();
        answer->status = remote ? remote->status() : 0;
        snprintf(answer->text, sizeof(answer->text), "%s", error.what());
    }
}

static void close_client(void *client)
{
    delete static_cast<cpp_client *>(client);
}

extern "C" const struct column column_cpp = {
    "c++", ALL, CALLS | DEADLINES | LIMITS | OWN_SERVICE | ONE_PROCESS | SIZES, 2000, serve, open, call, close_client,
};
