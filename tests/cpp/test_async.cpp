/* plait.hpp: callbacks, futures, deferred answers to them, and loops of one's own. */
#include "cpp/support.hpp"

#include <atomic>
#include <cctype>
#include <functional>
#include <poll.h>

/* ---- callbacks ---- */

TEST(callbacks_run_in_dispatch)
{
    settle();
    plait::Server server("echo");
    server.handle("echo", echo);
    server.handle("fail", [](plait::Request &request) { request.fail(9, "no"); });
    server.start();
    plait::Client client("echo");
    std::vector<std::string> got;
    auto expected = std::this_thread::get_id();
    auto note = [&](plait::Result result) {
        CHECK(std::this_thread::get_id() == expected);
        CHECK(result && result.code() == 0);
        got.push_back(result.get().text());
    };
    client.call_async("echo", "one", note);
    client.call_async("echo", "two", note, 30s);
    client.call_async("fail", {}, [&, own = std::make_unique<int>(9)](plait::Result &&result) {
        CHECK(!result && result.code() == -EREMOTEIO);
        auto error = thrown_by<plait::RemoteError>([&] { result.get(); });
        CHECK(error.status() == 9u && *own == 9);
        got.push_back(error.what());
    });
    CHECK(got.empty());
    while (got.size() < 3) client.dispatch(patience);
    CHECK(got[0] == "one" && got[1] == "two" && got[2] == "no");
    CHECK_INT(client.dispatch(), 0);
}

TEST(an_exception_of_a_callback_comes_out_of_dispatch)
{
    settle();
    plait::Server server("echo");
    server.handle("", echo);
    server.start();
    plait::Client client("echo");
    int ran = 0;
    for (int i = 0; i < 3; i++)
        client.call_async("", "x", [&](plait::Result) {
            ran++;
            throw std::logic_error("of a callback");
        });
    int thrown = 0;
    while (ran < 3) {
        try {
            client.dispatch(patience);
        } catch (const std::logic_error &error) {
            CHECK_STR(error.what(), "of a callback");
            thrown++;
        }
    }
    CHECK(thrown >= 1);
    CHECK_INT(client.dispatch(), 0);
}

TEST(calls_can_be_cancelled_and_end_with_their_client)
{
    settle();
    std::vector<plait::DeferredRequest> held;
    plait::Server server("holder");
    server.handle("", [&](plait::Request &request) { held.push_back(request.defer()); });
    server.start();
    auto watched = std::make_shared<int>(0);
    std::vector<int> codes;
    auto note = [&codes, watched](plait::Result result) {
        codes.push_back(result.code());
        result.get(); /* throws */
    };
    {
        plait::Client client("holder");
        auto first = client.call_async("", "1", note);
        client.call_async("", "2", note);
        CHECK(client.cancel(first));
        CHECK_INT(thrown_by<plait::Error>([&] { client.dispatch(patience); }).code(), -ECANCELED);
        CHECK(!client.cancel(first));
        CHECK_INT(codes.size(), 1);
    }
    CHECK_INT(codes.size(), 2);
    CHECK(codes[0] == -ECANCELED && codes[1] == -ECANCELED);
    CHECK_INT(watched.use_count(), 2); /* ours and note's: no callback was kept */
    server.stop(0s);
}

TEST(a_callback_may_destroy_its_client)
{
    settle();
    plait::Server server("echo");
    server.handle("", echo);
    server.start();
    auto client = std::make_unique<plait::Client>("echo");
    bool other = false;
    client->call_async("", "x", [&](plait::Result) {
        client.reset();
        throw std::runtime_error("on top of it");
    });
    client->call_async("", "y", [&](plait::Result) { other = true; });
    plait::Client &raw = *client;
    CHECK_STR(thrown_by<std::runtime_error>([&] { raw.dispatch(patience); }).what(), "on top of it");
    CHECK(!client && other);
}

/* ---- futures ---- */

TEST(futures_need_nobody_who_dispatches)
{
    settle();
    plait::Server server("echo");
    server.handle("", echo);
    server.handle("fail", [](plait::Request &request) { request.fail(3, "failed"); });
    server.start();
    plait::Client client("echo");
    std::vector<std::future<plait::Reply>> futures;
    for (int i = 0; i < 100; i++) futures.push_back(client.call_future("", std::to_string(i), 30s));
    for (int i = 99; i >= 0; i--) CHECK(futures[static_cast<std::size_t>(i)].get().text() == std::to_string(i));
    auto failed = client.call_future("fail");
    CHECK_INT(thrown_by<plait::RemoteError>([&] { failed.get(); }).status(), 3);
    CHECK_INT(thrown_by<plait::Error>([&] { client.call_future("absent").get(); }).code(), -EOPNOTSUPP);
    auto polled = client.call_future("", "x");
    CHECK(polled.wait_for(0s) == std::future_status::deferred);
    polled.wait();
    CHECK(polled.get().text() == "x");
    (void)client.call_future("", "dropped");
}

TEST(a_future_ends_with_its_call)
{
    settle();
    std::vector<plait::DeferredRequest> held;
    plait::Server server("holder");
    server.handle("", [&](plait::Request &request) { held.push_back(request.defer()); });
    server.start();
    std::future<plait::Reply> orphan;
    {
        plait::Client client("holder");
        auto late = client.call_future("", "", 20ms);
        (void)thrown_by<plait::TimeoutError>([&] { late.get(); });
        orphan = client.call_future("", "");
    }
    CHECK_INT(thrown_by<plait::Error>([&] { orphan.get(); }).code(), -ECANCELED);
    server.stop(0s);
}

TEST(futures_of_one_client_are_fetched_by_many_threads)
{
    settle();
    plait::ServerOptions options;
    options.threads = 2;
    plait::Server server("echo", options);
    server.handle("", echo);
    server.start();
    plait::Client client("echo");
    std::atomic<int> right{ 0 }, callbacks{ 0 };
    std::atomic<bool> over{ false };
    std::thread dispatcher([&] {
        while (!over) client.dispatch(1ms);
    });
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; thread++)
        threads.emplace_back([&, thread] {
            for (int i = 0; i < 200; i++) {
                std::string text = std::to_string(thread) + " " + std::to_string(i);
                auto future = client.call_future("", text);
                client.call_async("", text, [&callbacks](plait::Result result) { callbacks += result ? 1 : 0; });
                if (i % 3 == 0) right += client.call("", text).text() == text;
                else right++;
                right += future.get().text() == text;
            }
        });
    for (auto &thread : threads) thread.join();
    while (callbacks < 800) std::this_thread::yield(); /* the dispatcher runs what is left */
    over = true;
    dispatcher.join();
    CHECK_INT(right, 1600);
}

TEST(a_future_can_be_fetched_within_a_callback)
{
    settle();
    plait::Server server("echo");
    server.handle("", echo);
    server.start();
    plait::Client client("echo");
    std::string got;
    std::future<plait::Reply> inner;
    client.call_async("", "outer", [&](plait::Result result) {
        got = inner.get().text() + " in " + result.get().text() + client.call("", "!").text();
    });
    inner = client.call_future("", "inner");
    while (got.empty()) client.dispatch(patience);
    CHECK_STR(got.c_str(), "inner in outer!");
}

/* ---- waits that are interrupted ---- */

TEST(another_thread_can_end_every_wait_of_a_client_and_a_publisher)
{
    settle();
    std::vector<plait::DeferredRequest> held;
    plait::Server server("holder");
    server.handle("", [&](plait::Request &request) { held.push_back(request.defer()); });
    server.start();
    std::atomic<bool> enough{ false };
    plait::ClientOptions options;
    options.interrupted = [&] { return enough.load(); };
    plait::Client first("holder", options), client(std::move(first));
    std::thread other([&] { enough = true; });
    CHECK_INT(thrown_by<plait::Error>([&] { client.call("", "", plait::forever); }).code(), -EINTR);
    other.join();
    CHECK_INT(thrown_by<plait::Error>([&] { plait::Client nobody("absent", options); }).code(), -EINTR);
    plait::PublisherOptions lonely;
    lonely.wait_subscribers = 1;
    lonely.timeout = plait::forever;
    lonely.interrupted = options.interrupted;
    plait::Publisher opened("lonely", lonely), publisher(std::move(opened));
    CHECK_INT(thrown_by<plait::Error>([&] { publisher.publish("nobody hears it"); }).code(), -EINTR);
    server.stop(0s);
}

/* ---- loops of one's own ---- */

TEST(server_and_client_live_in_one_poll_loop)
{
    settle();
    plait::Server server("loop");
    server.handle("", echo);
    int server_fd = server.fd();
    /* Opening a client waits for a server that greets it, so that is done by another thread. */
    std::promise<plait::Client> opening;
    std::thread opener([&] { opening.set_value(plait::Client("loop")); });
    auto opened = opening.get_future();
    while (opened.wait_for(0s) != std::future_status::ready) CHECK(server.dispatch(10ms));
    opener.join();
    plait::Client client = opened.get();
    int rounds = 0;
    plait::Client *again = &client;
    std::function<void(plait::Result)> next = [&](plait::Result result) {
        CHECK(result.get().text() == std::to_string(rounds));
        if (++rounds < 50) again->call_async("", std::to_string(rounds), next);
    };
    client.call_async("", "0", next);
    while (rounds < 50) {
        struct pollfd fds[] = { { server.fd(), POLLIN, 0 }, { client.fd(), POLLIN, 0 } };
        CHECK(poll(fds, 2, 30000) > 0);
        CHECK(server.dispatch());
        client.dispatch();
    }
    CHECK_INT(server.fd(), server_fd);
    server.stop(0s);
    int turns = 0;
    while (server.dispatch(1s)) CHECK(++turns < 100);
    CHECK(!server.dispatch()); /* nothing any more, and no exception */
}

TEST(many_threads_serve_and_stop_is_for_any)
{
    settle();
    plait::ServerOptions options;
    options.threads = 3;
    plait::Server server("pool", options);
    std::atomic<int> calls{ 0 };
    server.handle("", [&](plait::Request &request) {
        calls++;
        request.reply(request.text());
    });
    server.handle("stop", [&](plait::Request &request) {
        server.stop(); /* from a handler */
        request.reply("stopping");
    });
    std::thread runner([&] { server.run(); });
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([] {
            plait::Client client("pool");
            for (int call = 0; call < 50; call++) CHECK(client.call("", "x").text() == "x");
        });
    for (auto &thread : threads) thread.join();
    CHECK(plait::Client("pool").call("stop").text() == "stopping");
    runner.join();
    CHECK_INT(calls, 200);
}

TEST(urls_are_told_with_their_ports)
{
    settle();
    plait::Server server("urls");
    server.handle("upper", [](plait::Request &request) {
        std::string text = request.text();
        for (char &letter : text) letter = static_cast<char>(std::toupper(letter));
        request.reply(text);
        CHECK(request.peer().transport == "tcp");
        CHECK_CONTAINS(request.peer().address.c_str(), "127.0.0.1:");
    });
    CHECK(server.urls().empty());
    server.listen("tcp://127.0.0.1:0");
    server.listen(std::string("tcp://127.0.0.1:0?framing=lines&method=upper"));
    CHECK_INT(thrown_by<plait::Error>([&] { server.listen("tcp://127.0.0.1:99999"); }).code(), -EINVAL);
    server.start();
    auto urls = server.urls();
    CHECK_INT(urls.size(), 2);
    for (const auto &url : urls) {
        CHECK(url.find(":0") == std::string::npos);
        plait::Client client(url);
        CHECK(client.call(url == urls[0] ? "upper" : "", "ada").text() == "ADA");
        CHECK(client.transport() == "tcp");
    }
}

TEST(limits_are_told)
{
    settle();
    plait::ServerOptions small;
    small.max_message = 100;
    small.spin = plait::spin_never;
    plait::Server server("small", small);
    server.handle("", [](plait::Request &request) { request.reply(std::string(300, 'x')); });
    server.start();
    plait::ClientOptions options;
    options.max_message = 200;
    options.timeout = 30s;
    options.spin = 5us;
    options.transport = plait::Transport::unix_socket;
    plait::Client client("small", options);
    CHECK_CONTAINS(thrown_by<plait::Error>([&] { client.call("", std::string(101, 'x')); }).what(), "max_message=100");
    auto error = thrown_by<plait::Error>([&] { client.call("", "x"); });
    CHECK_INT(error.code(), -EMSGSIZE);
    CHECK_CONTAINS(error.what(), "max_message is 200");
    CHECK(client.transport() == "unix");
}
