/* plait.hpp: pools of threads and worker processes; whose handlers live how long. */
#include "cpp/support.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <string>
#include <unistd.h>

/* ---- pools ---- */

TEST(a_pooled_handler_answers_fails_and_throws_as_any_other)
{
    settle();
    std::atomic<int> ran{ 0 };
    plait::PoolOptions options;
    options.threads = 2;
    plait::Server server("pooled");
    {
        plait::Pool pool(options); /* lives on in the server */
        server.handle("echo", pool, [&](plait::Request &q) {
            ran++;
            q.reply(q.text());
        });
        server.handle("throws", pool, [](plait::Request &q) {
            q.reply("first");
            throw std::runtime_error("too late");
        });
        server.handle("fails", pool, [](plait::Request &) { throw std::runtime_error("no"); });
    }
    server.start();
    plait::Client client("pooled");
    for (int i = 0; i < 20; i++) CHECK(client.call("echo", "x").text() == "x");
    CHECK_INT(ran.load(), 20);
    CHECK(client.call("throws").text() == "first");
    try {
        client.call("fails");
        CHECK(!"it failed");
    } catch (const plait::RemoteError &error) {
        CHECK_STR(error.what(), "no");
    }
    options.threads = -1;
    try {
        plait::Pool pool(options);
        CHECK(!"it failed");
    } catch (const plait::Error &error) {
        CHECK_INT(error.code(), -EINVAL);
    }
}

/* What a handler has of its own, on the heap, and how far it has come. */
struct LongWork {
    std::shared_ptr<std::string> own = std::make_shared<std::string>("what the handler took along");
    std::promise<void> begun{}, go_on{};
    std::promise<std::string> ended{};

    auto handler()
    {
        return [this, copy = own, go = go_on.get_future().share()](plait::Request &) {
            begun.set_value();
            go.wait();
            ended.set_value(*copy);
        };
    }
    bool ends_well()
    {
        go_on.set_value();
        return ended.get_future().get() == *own;
    }
};

TEST(a_pooled_handler_may_run_on_when_its_server_is_gone)
{
    settle();
    LongWork work;
    {
        plait::PoolOptions one;
        one.threads = 1;
        plait::Pool pool(one);
        {
            plait::Server server("brief");
            server.handle("long", pool, work.handler());
            server.handle("next", pool, [own = work.own](plait::Request &q) { q.reply(*own); });
            server.start();
            plait::Client client("brief");
            client.call_async("long", {}, [](plait::Result) {});
            work.begun.get_future().wait();
            client.call_async("next", {}, [](plait::Result) {});
            server.stop(0s);
        }
        CHECK_INT(work.own.use_count(), 3); /* ours and those of both handlers */
        CHECK(work.ends_well());
    }
    CHECK_INT(work.own.use_count(), 1);
}

TEST(a_server_that_has_the_only_pool_waits_for_its_handlers)
{
    settle();
    LongWork work;
    std::thread other;
    {
        plait::Server server("keeper");
        server.handle("long", plait::Pool(), work.handler());
        server.start();
        plait::Client client("keeper");
        client.call_async("long", {}, [](plait::Result) {});
        work.begun.get_future().wait();
        other = std::thread([&] { CHECK(work.ends_well()); });
        server.stop(0s);
    }
    CHECK_INT(work.own.use_count(), 1);
    other.join();
}

TEST(a_handler_that_run_gave_up_on_keeps_what_it_has)
{
    settle();
    pid_t pid = fork();
    if (pid == 0) {
        LongWork work;
        plait::ServerOptions options;
        options.threads = 2;
        auto server = std::make_unique<plait::Server>("stuck", options);
        server->handle("long", work.handler());
        std::thread caller([&] {
            plait::Client client("stuck");
            client.call_async("long", {}, [](plait::Result) {});
            work.begun.get_future().wait();
            server->stop(1ms);
        });
        CHECK_CONTAINS(thrown_by<plait::TimeoutError>([&] { server->run(); }).what(), "'long'");
        caller.join();
        server.reset();
        CHECK_INT(work.own.use_count(), 2);
        CHECK(work.ends_well());
        raise(SIGKILL); /* there is no other end that nobody minds: the thread is never joined */
    }
    CHECK_INT(test_wait_child(pid), 128 + SIGKILL);
}

/* ---- workers ---- */

/* Runs SUPERVISOR in a process of its own, and gives what it and its workers write. */
template <class F> static std::string lines_of(F &&supervisor)
{
    int out[2];
    CHECK_INT(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(out[0]);
        plait::ServerOptions options;
        options.processes = 2;
        plait::Server server("crew", options);
        server.handle("who", [&](plait::Request &q) { q.reply(std::to_string(server.worker())); });
        supervisor(server, [&](const std::string &line) {
            CHECK_INT(write(out[1], (line + "\n").data(), line.size() + 1), static_cast<ssize_t>(line.size() + 1));
        });
        _exit(0);
    }
    close(out[1]);
    std::string all;
    char bytes[256];
    for (ssize_t n; (n = read(out[0], bytes, sizeof(bytes))) > 0;) all.append(bytes, static_cast<std::size_t>(n));
    close(out[0]);
    CHECK_INT(test_wait_child(pid), 0);
    return all;
}

TEST(workers_are_supervised_and_every_hook_runs_where_it_should)
{
    settle();
    std::string lines = lines_of([](plait::Server &server, auto say) {
        const pid_t supervisor = getpid();
        int started = 0, bell[2];
        bool up = false;
        CHECK_INT(pipe2(bell, O_NONBLOCK), 0);
        plait::WorkerHooks hooks;
        hooks.start = [&](int worker) {
            started = worker;
            CHECK(getpid() != supervisor && server.worker() == worker);
            say("start " + std::to_string(worker));
        };
        hooks.ready = [&] {
            CHECK(getpid() == supervisor && started == 0);
            CHECK_CONTAINS("1 2", plait::Client("crew").call("who").text().c_str());
            say("ready");
            up = true;
            CHECK_INT(write(bell[1], "!", 1), 1);
        };
        hooks.attend = [&] {
            char byte;
            CHECK(getpid() == supervisor);
            if (read(bell[0], &byte, 1) != 1) return; /* it woke up for something else */
            say("attend");
            server.stop();
        };
        hooks.attend_fd = bell[0];
        hooks.end = [&](int worker) {
            CHECK_INT(worker, started); /* of the same process */
            say("end " + std::to_string(worker));
        };
        server.workers(hooks);
        CHECK_INT(server.worker(), 0);
        server.run();
        say(up ? "over" : "never up");
    });
    for (const char *line : { "start 1\n", "start 2\n", "ready\n", "attend\n", "end 1\n", "end 2\n", "over\n" })
        CHECK_CONTAINS(lines.c_str(), line);
    CHECK_INT(std::count(lines.begin(), lines.end(), '\n'), 7);
}

TEST(what_a_hook_throws_in_the_supervisor_comes_out_of_run)
{
    settle();
    for (bool attend : { false, true }) {
        std::string lines = lines_of([attend](plait::Server &server, auto say) {
            plait::WorkerHooks hooks;
            (attend ? hooks.attend : hooks.ready) = [] { throw std::logic_error("enough"); };
            server.workers(hooks);
            say(thrown_by<std::logic_error>([&] { server.run(); }).what());
        });
        CHECK_STR(lines.c_str(), "enough\n");
    }
}

TEST(what_a_start_hook_throws_is_run_s_error)
{
    settle();
    std::string lines = lines_of([](plait::Server &server, auto say) {
        plait::WorkerHooks hooks;
        hooks.start = [](int) { throw plait::Error(-EACCES, "not today"); };
        server.workers(hooks);
        auto error = thrown_by<plait::Error>([&] { server.run(); });
        CHECK_INT(error.code(), -EACCES);
        say(error.what());
    });
    CHECK_CONTAINS(lines.c_str(), "not today");
    lines = lines_of([](plait::Server &server, auto say) {
        plait::WorkerHooks hooks;
        hooks.start = [](int) { throw std::runtime_error("no such table"); };
        server.workers(hooks);
        auto error = thrown_by<plait::Error>([&] { server.run(); });
        CHECK_INT(error.code(), -ECANCELED);
        say(error.what());
    });
    CHECK_CONTAINS(lines.c_str(), "no such table");
}
