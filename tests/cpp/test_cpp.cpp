/* plait.hpp: what it promises beyond the C interface, but for what doesn't wait (test_async.cpp), loans, pools and
 * workers. */
#include "cpp/support.hpp"

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <mutex>
#include <unistd.h>

using plait::Encoding;

static std::string as_text(plait::Bytes bytes)
{
    return std::string(bytes.view());
}

/* ---- what the types say ---- */

template <class T>
inline constexpr bool is_handle = !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
                                  std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
static_assert(is_handle<plait::Server> && is_handle<plait::Client> && is_handle<plait::Reply> &&
              is_handle<plait::DeferredRequest> && is_handle<plait::Publisher> && is_handle<plait::Subscriber> &&
              is_handle<plait::Message> && is_handle<plait::Pool>);
static_assert(!std::is_move_constructible_v<plait::Request> && !std::is_copy_constructible_v<plait::Request>);

template <class T, class = void> struct HasView : std::false_type {
};
template <class T> struct HasView<T, std::void_t<decltype(std::declval<T>().view())>> : std::true_type {
};
static_assert(HasView<plait::Message &>::value && !HasView<plait::Message>::value);
static_assert(HasView<plait::Reply &>::value && !HasView<plait::Reply>::value, "a view of a temporary would dangle");

static_assert(std::is_constructible_v<plait::Body, const char *>);
static_assert(!std::is_constructible_v<plait::Body, std::nullptr_t>, "no text is no body");

static_assert(plait::Timeout().count() == 0, "the default");
static_assert(plait::Timeout(0s).count() == PLAIT_NOW && plait::Timeout(-5s).count() == PLAIT_NOW);
static_assert(plait::Timeout(1us).count() == 1, "rounded up, never to the default");
static_assert(plait::Timeout(1500ms).count() == 1500 && plait::Timeout(2h).count() == 7200000);
static_assert(plait::Timeout(std::chrono::milliseconds::max()).count() == PLAIT_FOREVER);
static_assert(plait::Timeout(std::chrono::hours::max()).count() == PLAIT_FOREVER, "doesn't overflow");
static_assert(plait::Timeout(std::chrono::duration<double>(0.25)).count() == 250);
static_assert(plait::Timeout(std::chrono::duration<double>(1e300)).count() == PLAIT_FOREVER);

/* ---- calls ---- */

TEST(the_first_example_works)
{
    settle();
    plait::Server s("greeter");
    s.handle("greet", [](plait::Request &q) { q.reply("hello, " + q.text()); });
    s.start();
    plait::Client c("greeter");
    auto t = c.call("greet", "Ada", 30s).text();
    CHECK_STR(t.c_str(), "hello, Ada");
}

TEST(bodies_are_made_from_all_that_the_stl_has)
{
    settle();
    plait::Server server("echo");
    server.handle("echo", echo);
    server.start();
    plait::Client client("echo");
    std::string text = "text", zeros("a\0b", 3), none;
    std::vector<std::byte> bytes = { std::byte{ 0 }, std::byte{ 255 } };
    std::vector<std::uint8_t> octets = { 1, 0, 2 };
    std::vector<char> chars = { 'x', 'y' };
    std::array<unsigned char, 2> array = { 7, 8 };
    char buffer[] = "buffer";

    CHECK(client.call("echo", text).text() == "text");
    CHECK(client.call("echo", "literal").text() == "literal");
    CHECK(client.call("echo", std::string_view("a view").substr(2)).text() == "view");
    CHECK(client.call("echo", buffer).text() == "buffer");
    CHECK(client.call("echo", zeros).text() == zeros);
    CHECK(client.call("echo", none).text().empty());
    CHECK(client.call("echo").text().empty());
    CHECK(client.call("echo", {}, patience).text().empty());
    CHECK(client.call("echo", bytes).text() == std::string("\0\xff", 2));
    CHECK(client.call("echo", octets).text() == std::string("\1\0\2", 3));
    CHECK(client.call("echo", chars).text() == "xy");
    CHECK(client.call("echo", array).text() == "\7\10");
    CHECK(client.call("echo", { octets.data(), 1 }).text() == "\1");
    CHECK(client.call("echo", plait::Bytes(buffer, 3)).text() == "buf");

    CHECK(client.call("echo", text).encoding() == Encoding::utf8);
    CHECK(client.call("echo", octets).encoding() == Encoding::bytes);
    CHECK(client.call("echo", { "[1]", Encoding::json }).encoding() == Encoding::json);
    CHECK(client.call("echo", { octets, Encoding::array }).encoding() == Encoding::array);
    CHECK_INT(thrown_by<plait::Error>([&] { client.call("echo", { text, Encoding(9) }); }).code(), -EINVAL);

    plait::Reply reply = client.call("echo", octets);
    std::vector<std::byte> copy(reply.bytes().begin(), reply.bytes().end());
    CHECK(copy.size() == 3 && copy[2] == std::byte{ 2 } && reply.bytes()[0] == std::byte{ 1 });
    CHECK(as_text(copy) == reply.view());
}

TEST(large_bodies_arrive_whole)
{
    settle();
    plait::Server server("echo");
    server.handle("", echo);
    server.start();
    plait::Client client("echo");
    std::vector<std::uint8_t> large(9 << 20);
    for (std::size_t i = 0; i < large.size(); i++) large[i] = static_cast<std::uint8_t>(i * 7 + i / 251);
    plait::Reply reply = client.call("", large);
    CHECK(reply.bytes().size() == large.size());
    CHECK_MEM(reply.bytes().data(), large.data(), large.size());
}

TEST(names_may_be_any_kind_of_string)
{
    settle();
    std::string name = "echo";
    plait::Server server(name);
    server.handle(std::string_view("echoes").substr(0, 4), echo);
    server.handle(std::string("other"), echo);
    server.start();
    plait::Client client(name);
    CHECK(client.call(std::string_view("otherwise").substr(0, 5), "x").text() == "x");
    CHECK(client.call(name, "x").text() == "x");
    auto names = client.methods();
    CHECK(names.size() == 2 && names[0] == "echo" && names[1] == "other");
    CHECK_INT(thrown_by<plait::Error>([&] { client.call(std::string("echo\0x", 6)); }).code(), -EINVAL);
    CHECK_INT(thrown_by<plait::Error>([&] { client.call(std::string(PLAIT_NAME_MAX + 1, 'x')); }).code(), -EOPNOTSUPP);
    CHECK_INT(thrown_by<plait::Error>([] { plait::Server nameless("no/name"); }).code(), -EINVAL);
    plait::ServerOptions options; /* C would have ended it at the NUL, and let everybody in */
    options.allow = std::string("*\0no", 4);
    CHECK_CONTAINS(thrown_by<plait::Error>([&] { plait::Server open("open", options); }).what(), "NUL");
}

TEST(call_options_reach_the_handler)
{
    settle();
    plait::Server server("echo");
    std::atomic<std::uint64_t> trace{ 0 };
    std::atomic<std::int64_t> left{ 0 };
    server.handle("tell", [&](plait::Request &request) {
        trace = request.trace();
        left = request.time_left().count();
        CHECK(request.method() == "tell");
        CHECK(!request.cancelled());
        CHECK_INT(request.peer().pid, getpid());
        CHECK_INT(request.peer().uid, getuid());
        CHECK(request.peer().transport == "shm" && !request.peer().address.empty());
        request.reply();
    });
    server.start();
    plait::Client client("echo");
    plait::CallOptions options;
    options.trace = 77;
    options.idempotent = options.ordered = true;
    options.timeout = 40s;
    client.call("tell", {}, options);
    CHECK_INT(trace, 77);
    CHECK(left > 10000 && left <= 40000);
    client.call("tell", {}, plait::forever);
    CHECK(std::chrono::milliseconds(left) == std::chrono::milliseconds::max());
    CHECK(client.transport() == "shm");
}

TEST(sends_arrive)
{
    settle();
    plait::Server server("sink");
    std::promise<std::string> arrived;
    server.handle("put", [&](plait::Request &request) { arrived.set_value(request.text()); });
    server.start();
    plait::Client client("sink");
    client.send("put", "on its way");
    CHECK(arrived.get_future().get() == "on its way");
}

/* ---- errors ---- */

TEST(a_handler_that_throws_answers_its_caller_and_lives_on)
{
    settle();
    plait::Server server("thrower");
    server.handle("std", [](plait::Request &) { throw std::runtime_error("out of 100% %s tea"); });
    server.handle("int", [](plait::Request &) { throw 7; });
    server.handle("remote", [](plait::Request &) { throw plait::RemoteError(42, "from further away"); });
    server.handle("wild", [](plait::Request &) { throw plait::RemoteError(0xffffffff, "a status of its own"); });
    server.handle("late", [](plait::Request &request) {
        request.reply("done");
        throw std::runtime_error("nobody hears this");
    });
    server.handle("twice", [](plait::Request &request) {
        request.reply("first");
        request.reply("second");
    });
    server.start();
    plait::Client client("thrower");
    for (int i = 0; i < 3; i++) {
        auto error = thrown_by<plait::RemoteError>([&] { client.call("std"); });
        CHECK_STR(error.what(), "out of 100% %s tea");
        CHECK_INT(error.status(), 1);
        CHECK_INT(error.code(), -EREMOTEIO);
    }
    CHECK_CONTAINS(thrown_by<plait::RemoteError>([&] { client.call("int"); }).what(), "no std::exception");
    CHECK_INT(thrown_by<plait::RemoteError>([&] { client.call("remote"); }).status(), 42);
    CHECK_STR(thrown_by<plait::RemoteError>([&] { client.call("wild"); }).what(), "a status of its own");
    CHECK(client.call("late").text() == "done");
    CHECK(client.call("twice").text() == "first");
}

TEST(handlers_fail_with_a_status_of_their_own)
{
    settle();
    plait::Server server("failer");
    server.handle("fail", [](plait::Request &request) { request.fail(0x7fffffff, std::string(3000, 'x')); });
    server.handle("wrong", [](plait::Request &request) { request.fail(0x80000000, "too large a status"); });
    server.handle("nothing", [](plait::Request &) {});
    server.start();
    plait::Client client("failer");
    auto error = thrown_by<plait::RemoteError>([&] { client.call("fail"); });
    CHECK_INT(error.status(), 0x7fffffff);
    CHECK(error.what() == std::string(3000, 'x'));
    CHECK_CONTAINS(thrown_by<plait::RemoteError>([&] { client.call("wrong"); }).what(), "0x7fffffff");
    CHECK(thrown_by<plait::Error>([&] { client.call("nothing"); }).code() < 0);
}

TEST(errors_have_the_classes_that_their_codes_mean)
{
    settle();
    std::optional<plait::DeferredRequest> held;
    plait::Server server("held");
    server.handle("hold", [&](plait::Request &request) { held = request.defer(); });
    server.handle("echo", echo);
    plait::ServerOptions exclusive;
    exclusive.exclusive = true;
    server.start();
    plait::Client client("held");
    auto late = thrown_by<plait::TimeoutError>([&] { client.call("hold", "", 20ms); });
    CHECK_INT(late.code(), -ETIMEDOUT);
    CHECK_CONTAINS(late.what(), "20 ms");
    CHECK_INT(thrown_by<plait::Error>([&] { client.call("nowhere"); }).code(), -EOPNOTSUPP);
    CHECK_INT(thrown_by<plait::Error>([&] { server.handle("later", echo); }).code(), -EBUSY);
    CHECK_INT(thrown_by<plait::Error>([&] { plait::Server second("held", exclusive); }).code(), -EADDRINUSE);
    plait::ClientOptions impatient;
    impatient.connect_timeout = 1ms;
    CHECK_CONTAINS(thrown_by<plait::NoSuchName>([&] { plait::Client nobody("absent", impatient); }).what(), "absent");
    CHECK_INT(thrown_by<plait::Error>([&] { plait::Client nobody("pigeon://coop"); }).code(), -EPROTONOSUPPORT);
}

TEST(a_dead_server_is_a_peer_that_died)
{
    settle();
    pid_t pid = fork();
    if (pid == 0) {
        plait::Server server("mortal");
        server.handle("die", [](plait::Request &) { raise(SIGKILL); });
        server.run();
        _exit(1);
    }
    {
        plait::Client client("mortal");
        CHECK_INT(thrown_by<plait::PeerDied>([&] { client.call("die"); }).code(), -ECONNRESET);
    }
    CHECK_INT(test_wait_child(pid), 128 + SIGKILL);
}

/* ---- deferred requests ---- */

TEST(deferred_requests_are_answered_from_other_threads)
{
    settle();
    plait::Server server("later");
    std::mutex lock; /* of threads: that an answer came says it, too, but through memory where TSan doesn't see it */
    std::vector<std::thread> threads;
    server.handle("", [&](plait::Request &request) {
        std::lock_guard<std::mutex> held(lock);
        threads.emplace_back([deferred = request.defer()]() mutable {
            CHECK(deferred);
            CHECK(deferred.method().empty() && deferred.encoding() == Encoding::utf8);
            if (deferred.view() == "fail") deferred.fail(5, "as told");
            else deferred.reply("later: " + deferred.text());
            CHECK(!deferred);
            CHECK_INT(thrown_by<plait::Error>([&] { deferred.reply(); }).code(), -EALREADY);
            CHECK_INT(thrown_by<plait::Error>([&] { (void)deferred.body(); }).code(), -EALREADY);
        });
        CHECK_INT(thrown_by<plait::Error>([&] { (void)request.text(); }).code(), -EALREADY);
        CHECK_INT(thrown_by<plait::Error>([&] { request.reply(); }).code(), -EALREADY);
    });
    server.start();
    plait::Client client("later");
    CHECK(client.call("", "tea").text() == "later: tea");
    CHECK_INT(thrown_by<plait::RemoteError>([&] { client.call("", "fail"); }).status(), 5);
    server.stop();
    std::lock_guard<std::mutex> held(lock);
    for (auto &thread : threads) thread.join();
}

TEST(a_deferred_request_that_is_dropped_answers_with_a_failure)
{
    settle();
    std::optional<plait::DeferredRequest> kept;
    plait::Server server("dropper");
    server.handle("drop", [](plait::Request &request) { auto deferred = request.defer(); });
    server.handle("throw", [](plait::Request &request) {
        auto deferred = request.defer();
        throw std::runtime_error("over it");
    });
    server.handle("keep", [&](plait::Request &request) { kept = request.defer(); }); /* assignment drops the last */
    server.start();
    plait::Client client("dropper");
    for (const char *method : { "drop", "throw" }) {
        auto error = thrown_by<plait::RemoteError>([&] { client.call(method); });
        CHECK_CONTAINS(error.what(), "without an answer");
    }
    auto first = client.call_future("keep"), second = client.call_future("keep");
    CHECK_CONTAINS(thrown_by<plait::RemoteError>([&] { first.get(); }).what(), "without an answer");
    server.stop(0s);
    (void)thrown_by<plait::Error>([&] { second.get(); });
}

TEST(a_deferred_request_is_answered_even_by_what_is_too_large)
{
    settle();
    plait::Server server("huge");
    server.handle("", [](plait::Request &request) {
        auto deferred = request.defer();
        plait::Bytes huge(&deferred, PLAIT_MESSAGE_MAX + std::size_t{ 1 }); /* nobody reads it */
        CHECK_INT(thrown_by<plait::Error>([&] { deferred.reply({ huge, Encoding(9) }); }).code(), -EINVAL);
        CHECK_INT(thrown_by<plait::Error>([&] { deferred.fail(0x80000000, ""); }).code(), -EINVAL);
        CHECK(deferred);
        CHECK_INT(thrown_by<plait::Error>([&] { deferred.reply(huge); }).code(), -EMSGSIZE);
        CHECK(!deferred);
    });
    server.start();
    plait::Client client("huge");
    CHECK_INT(thrown_by<plait::Error>([&] { client.call("", "", patience); }).code(), -EMSGSIZE);
}

TEST(a_deferred_request_outlives_its_server_and_its_caller)
{
    settle();
    std::optional<plait::DeferredRequest> kept;
    {
        plait::Server server("shortlived");
        server.handle("", [&](plait::Request &request) { kept = request.defer(); });
        server.start();
        plait::Client client("shortlived");
        (void)thrown_by<plait::TimeoutError>([&] { client.call("", "body", 20ms); });
        server.stop(0s);
    }
    CHECK(kept && kept->text() == "body");
    CHECK_INT(thrown_by<plait::PeerDied>([&] { kept->reply("into nowhere"); }).code(), -ECONNRESET);
}

/* ---- handles ---- */

TEST(handlers_may_move_only_and_live_as_long_as_their_server)
{
    settle();
    auto watched = std::make_shared<int>(3);
    {
        plait::Server server("stateful");
        server.handle("count", [own = std::make_unique<int>(0), watched](plait::Request &request) mutable {
            request.reply(std::to_string(*own += *watched));
        });
        CHECK_INT(watched.use_count(), 2);
        CHECK_INT(thrown_by<plait::Error>([&] { server.handle("count", [watched](plait::Request &) {}); }).code(),
                  -EEXIST);
        CHECK_INT(watched.use_count(), 2); /* the refused one is gone */
        server.start();
        plait::Client client("stateful");
        CHECK(client.call("count").text() == "3");
        CHECK(client.call("count").text() == "6");
    }
    CHECK_INT(watched.use_count(), 1);
}

TEST(a_running_server_can_be_moved)
{
    settle();
    plait::Server server = [] {
        plait::Server first("moving");
        first.handle("", [text = std::string("still here, as text that needs the heap")](plait::Request &request) {
            request.reply(text);
        });
        first.start();
        return plait::Server(std::move(first));
    }();
    plait::Client client("moving");
    plait::Client other(std::move(client));
    CHECK_CONTAINS(other.call("").text().c_str(), "still here");
    plait::Server moved("replaced");
    moved.handle("", echo);
    moved.start();
    moved = std::move(server); /* ends what it was */
    CHECK_CONTAINS(other.call("").text().c_str(), "still here");
    plait::ClientOptions impatient;
    impatient.connect_timeout = 1ms;
    (void)thrown_by<plait::NoSuchName>([&] { plait::Client nobody("replaced", impatient); });
}

TEST(handles_that_were_moved_from_throw)
{
    settle();
    plait::Server server("husk");
    server.handle("", echo);
    server.start();
    plait::Client client("husk");
    auto future = client.call_future("", "promised");
    plait::Client other(std::move(client));
    CHECK(future.get().text() == "promised"); /* of the client, wherever it is */
    CHECK_INT(thrown_by<plait::Error>([&] { client.call(""); }).code(), -EBADF);
    CHECK_INT(thrown_by<plait::Error>([&] { client.dispatch(); }).code(), -EBADF);
    CHECK_INT(thrown_by<plait::Error>([&] { (void)client.call_future(""); }).code(), -EBADF);
    plait::Reply reply = other.call("", "x"), taken = std::move(reply);
    CHECK(reply.text().empty() && taken.text() == "x" && reply.encoding() == Encoding::bytes);
    plait::Server moved(std::move(server));
    CHECK_INT(thrown_by<plait::Error>([&] { server.stop(); }).code(), -EBADF);
    CHECK_INT(thrown_by<plait::Error>([&] { server.urls(); }).code(), -EBADF);
    CHECK_INT(thrown_by<plait::Error>([&] { server.run(); }).code(), -EBADF);
    CHECK_INT(thrown_by<plait::Error>([&] { server.handle("", echo); }).code(), -EBADF);
    CHECK_INT(thrown_by<plait::Error>([&] { server.workers({}); }).code(), -EBADF);
    plait::Server idle("idle");
    plait::Pool pool, other_pool(std::move(pool));
    CHECK_INT(thrown_by<plait::Error>([&] { idle.handle("", pool, echo); }).code(), -EBADF);
    plait::Publisher publisher("husk.told"), other_publisher(std::move(publisher));
    plait::Loan loan = other_publisher.loan(9);
    CHECK_INT(thrown_by<plait::Error>([&] { publisher.publish(std::move(loan)); }).code(), -EBADF);
    CHECK(!loan); /* taken, as by all that throw */
    CHECK_INT(thrown_by<plait::Error>([&] { loan.use(0); }).code(), -EINVAL);
    client = std::move(other);
    CHECK(client.call("", "back").text() == "back");
}

template <class T> static void move_to_itself(T &handle)
{
    T &same = handle;
    handle = std::move(same);
}

TEST(handles_survive_being_moved_to_themselves)
{
    settle();
    std::optional<plait::DeferredRequest> kept;
    plait::Server server("self");
    server.handle("keep", [&](plait::Request &request) {
        kept = request.defer();
        move_to_itself(*kept);
        kept->reply(kept->text());
    });
    server.start();
    move_to_itself(server);
    plait::Client client("self");
    move_to_itself(client);
    plait::Loan loan = client.loan(20000);
    std::memset(loan.data(), 'x', 20000);
    move_to_itself(loan);
    plait::Reply reply = client.call("keep", std::move(loan));
    move_to_itself(reply);
    CHECK(reply.text() == std::string(20000, 'x'));
    plait::Publisher publisher("self.told");
    plait::Subscriber subscriber("self.told");
    move_to_itself(publisher);
    move_to_itself(subscriber);
    publisher.publish("told");
    plait::Message message = subscriber.next(patience);
    move_to_itself(message);
    CHECK(message.view() == "told");
}

TEST(after_fork_handles_say_so_and_are_destroyed_in_peace)
{
    settle();
    auto server = std::make_unique<plait::Server>("parent");
    server->handle("", echo);
    server->start();
    auto client = std::make_unique<plait::Client>("parent");
    auto future = client->call_future("", "x");
    pid_t pid = fork();
    if (pid == 0) {
        bool right = true;
        try {
            client->call("");
            right = false;
        } catch (const plait::Error &error) {
            right = right && error.code() == -ECHILD;
        }
        client.reset();
        server.reset();
        try {
            future.get();
            right = false;
        } catch (const plait::Error &) {
        }
        _exit(right ? 0 : 1);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK(future.get().text() == "x");
    CHECK(client->call("", "y").text() == "y");
}

/* ---- topics ---- */

TEST(topics_merge_and_tell_what_was_lost)
{
    settle();
    plait::PublisherOptions options;
    options.listen = "tcp://127.0.0.1:0";
    plait::Publisher first("news", options), second("news");
    plait::Subscriber subscriber("news");
    CHECK_INT(subscriber.publishers(), 2);
    CHECK_INT(first.subscribers(), 1);
    first.publish("one");
    second.publish({ "2", Encoding::json });
    int jsons = 0;
    for (int i = 0; i < 2; i++) {
        plait::Message message = subscriber.next(patience);
        CHECK_STR(message.topic().c_str(), "news");
        CHECK_INT(message.number(), 1);
        CHECK_INT(message.lost(), 0);
        jsons += message.encoding() == Encoding::json;
        CHECK(std::chrono::system_clock::now() - message.time() < std::chrono::hours(1));
    }
    CHECK_INT(jsons, 1);
    CHECK(!subscriber.poll().has_value());
    thrown_by<plait::TimeoutError>([&] { subscriber.next(1ms); });
    thrown_by<plait::TimeoutError>([&] { subscriber.next(0s); });
    plait::Subscriber far(first.urls().at(0) + "/news");
    for (int i = 0; i < 20000; i++) first.publish(std::string(100, 'x'));
    std::uint64_t received = 0, lost = 0;
    while (auto message = subscriber.poll()) {
        received++;
        lost += message->lost();
        if (message->lost() > 0) CHECK(message->why() == plait::Lost::overrun);
    }
    CHECK_INT(received + lost, 20000);
    CHECK_INT(far.next(patience).text().size(), 100);
}

TEST(a_message_outlives_its_subscriber_and_publisher)
{
    settle();
    std::optional<plait::Message> kept;
    {
        plait::Publisher publisher("short");
        plait::Subscriber subscriber("short");
        publisher.publish("lived");
        kept = subscriber.next(patience);
    }
    CHECK_STR(kept->text().c_str(), "lived");
    plait::Message moved = std::move(*kept);
    CHECK_INT(thrown_by<plait::Error>([&] { kept->topic(); }).code(), -EBADF);
    CHECK_STR(moved.topic().c_str(), "short");
}

TEST(a_subscriber_that_wants_reliable_is_refused_by_latest)
{
    settle();
    plait::Publisher publisher("careless");
    plait::SubscriberOptions options;
    options.reliable = plait::Reliable::yes;
    CHECK_INT(thrown_by<plait::Error>([&] { plait::Subscriber("careless", options); }).code(), -EOPNOTSUPP);
    thrown_by<plait::Error>([] { plait::Publisher("Bad Name"); });
}
