/* plait.hpp's server, its pools of threads and its worker processes.
 *
 * Handlers lie on the heap, and C calls them by their address. So each is kept until no thread can be in it: a plain
 * one until its server is closed, a pooled one until its pool is, whose threads may still be handling requests of a
 * server that is gone. A handler that run() gave up on is kept for good.
 */
#ifndef PLAIT_CPP_SERVER_HPP
#define PLAIT_CPP_SERVER_HPP

#include <plait/cpp/request.hpp>

#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

namespace plait
{

/* As plait_server_options; zero and "" mean default. */
struct ServerOptions {
    int threads = 0;                 /* reactors: 0 is 1, -1 is as many as there are CPUs */
    bool exclusive = false;          /* be the only instance of this name, or throw -EADDRINUSE */
    std::string allow = {};          /* who else may call: "alice,1001,@video,*" */
    std::uint64_t max_message = 0;   /* bytes of a request: 1 GiB locally, 16 MiB over the network */
    std::uint64_t inbound_bytes = 0; /* of requests held at once: the smaller of 2 GiB and a quarter of the RAM */
    std::uint32_t outstanding = 0;   /* requests of one connection in progress: 1024 */
    std::chrono::microseconds spin = spin_adaptive;
    int processes = 0;     /* workers that run() supervises: 0 is none, -1 is as many as there are CPUs */
    int restart_burst = 0; /* workers' deaths within 10 s that end it all: 0 is 5, -1 never */
};

/* What a program has to do with its workers (ServerOptions::processes); each may be empty. See <plait/worker.h>. What
 * `ready` and `attend` throw stops the server and comes out of run(). */
struct WorkerHooks {
    /* In the supervisor, once, when all workers serve for the first time. */
    std::function<void()> ready = {};
    /* In each worker, before it has threads or can be called: opens what a process needs of its own. What it throws
     * means that this worker can't serve; where all are being started for the first time, run() throws it as Error. */
    std::function<void(int worker)> start = {};
    /* In each worker that ends in good order, when its handlers are through. What it throws ends it as a crash does. */
    std::function<void(int worker)> end = {};
    /* In the supervisor, whenever it woke up, also because ATTEND_FD (-1: none) is readable, which this is to read. For
     * what must not wait until run() returns; it may call Server::stop(). */
    std::function<void()> attend = {};
    int attend_fd = -1; /* stays the program's, open until run() returns */
};

/* As plait_pool_options; zero and "" mean default. */
struct PoolOptions {
    int threads = 0;         /* as many as there are CPUs */
    std::uint32_t queue = 0; /* requests that wait at most: 1024 */
    std::string name = {};   /* shown to those who look: "pool" */
};

namespace detail
{

/* A pool and the handlers that run on its threads, which end with the pool, and that is before the handlers. */
struct PoolState {
    std::mutex mutex{}; /* of handlers */
    std::vector<std::shared_ptr<void>> handlers{};
    Owner<plait_pool, plait_pool_close> raw{};
};

} // namespace detail

/* A bounded queue and threads for handlers that take long; see Server::handle(method, pool, handler). Thread-safe; one
 * may work for several servers. It is closed with the last of this object and the servers that use it: then what
 * waits fails and what is being handled is waited for. So that must not happen in a handler of the pool. */
class Pool
{
  public:
    explicit Pool(const PoolOptions &options = {}) : state_(std::make_shared<detail::PoolState>())
    {
        auto raw = detail::defaults<plait_pool_options>();
        raw.threads = options.threads;
        raw.queue = options.queue;
        raw.name = detail::given(options.name);
        plait_pool *opened = nullptr;
        detail::check(plait_pool_open(&opened, &raw));
        state_->raw.reset(opened);
    }
    Pool(Pool &&) noexcept = default;
    Pool &operator=(Pool &&) noexcept = default;
    Pool(const Pool &) = delete; /* a copy in one of its handlers would keep it for ever */
    Pool &operator=(const Pool &) = delete;
    ~Pool() = default;

  private:
    friend class Server;
    std::shared_ptr<detail::PoolState> state_;
};

/* Serves a name. Its destructor stops it and waits for that; never destroy it in a handler. handle(), listen() and
 * workers() are for before it runs, by one thread; worker() and stop() are for any thread at any time. */
class Server
{
  public:
    /* Claims NAME and begins to queue connections. */
    explicit Server(const detail::CString &name, const ServerOptions &options = {}) : state_(new State)
    {
        auto raw = detail::defaults<plait_server_options>();
        raw.threads = options.threads;
        raw.exclusive = options.exclusive;
        raw.allow = detail::given(options.allow);
        raw.max_message = options.max_message;
        raw.inbound_bytes = options.inbound_bytes;
        raw.outstanding = options.outstanding;
        raw.spin_us = options.spin.count();
        raw.processes = options.processes;
        raw.restart_burst = options.restart_burst;
        plait_server *opened = nullptr;
        detail::check(plait_server_open(&opened, name.get(), &raw));
        state_->raw.reset(opened);
    }
    /* Also while it runs by start(); not during run(). */
    Server(Server &&) noexcept = default;
    Server &operator=(Server &&) noexcept = default;
    Server(const Server &) = delete;
    Server &operator=(const Server &) = delete;
    ~Server() = default;

    /* HANDLER is anything that can be called with a Request &; it is moved in and lives as long as the server. With
     * threads it is called from several at a time. What it throws its caller gets as a failure. METHOD "" is for
     * callers that name none. */
    template <class Handler> void handle(const detail::CString &method, Handler &&handler)
    {
        auto own = share(std::forward<Handler>(handler));
        plait_server *server = get();
        auto &kept = state_->kept;
        kept.reserve(kept.size() + 1);
        detail::check(plait_server_handle(server, method.get(), run_handler<std::decay_t<Handler>>, own.get()));
        kept.push_back(std::move(own));
    }
    /* The same on a thread of POOL, so that the server's own stay free; a full queue is -EBUSY for the caller. HANDLER
     * lives as long as the pool, and may run until that is closed, also when the server is gone. */
    template <class Handler> void handle(const detail::CString &method, const Pool &pool, Handler &&handler)
    {
        auto own = share(std::forward<Handler>(handler));
        plait_server *server = get();
        detail::PoolState *work = detail::check_open(pool.state_.get(), "pool");
        state_->kept.reserve(state_->kept.size() + 1);
        std::lock_guard<std::mutex> lock(work->mutex);
        work->handlers.reserve(work->handlers.size() + 1);
        detail::check(
            plait_pool_handle(work->raw.get(), server, method.get(), run_handler<std::decay_t<Handler>>, own.get()));
        work->handlers.push_back(std::move(own));
        state_->kept.push_back(pool.state_);
    }
    /* For run() with processes. */
    void workers(WorkerHooks hooks)
    {
        auto own = std::make_unique<Hooks>(std::move(hooks));
        auto raw = detail::defaults<plait_worker_hooks>();
        raw.ready = own->given.ready ? run_ready : nullptr;
        raw.start = own->given.start ? run_start : nullptr;
        raw.end = own->given.end ? run_end : nullptr;
        raw.attend = own->given.attend ? run_attend : nullptr;
        raw.attend_fd = own->given.attend_fd;
        raw.context = own.get();
        detail::check(plait_server_workers(get(), &raw));
        state_->hooks = std::move(own);
    }
    /* The number of the worker that this process is, from 1; 0 in a supervisor and without processes. */
    int worker() const { return plait_server_worker(get()); }
    /* Also listens on tcp://HOST:PORT, udp://HOST:PORT or unix:///PATH, see plait_server_listen(). */
    void listen(const detail::CString &url) { detail::check(plait_server_listen(get(), url.get())); }
    /* What listen() was told, with real ports. */
    std::vector<std::string> urls() const
    {
        std::vector<std::string> all;
        while (const char *url = plait_server_url(get(), all.size())) all.emplace_back(url);
        return all;
    }
    /* Serves until SIGINT, SIGTERM or stop(), then drains. TimeoutError: a handler didn't return within the grace, the
     * text says which; its thread still runs, so end the process (of workers, such a one was killed). */
    void run()
    {
        const int result = plait_server_run(get());
        state_->given_up = result == -ETIMEDOUT;
        Hooks *hooks = state_->hooks.get();
        if (hooks && hooks->thrown) std::rethrow_exception(std::exchange(hooks->thrown, nullptr));
        detail::check(result);
    }
    /* Serves on threads of its own until stop() or the end of this object. */
    void start() { detail::check(plait_server_start(get())); }
    /* Asks it to stop and returns at once; what it has taken is answered within GRACE (5 s). Also from handlers. */
    void stop(Timeout grace = {}) { detail::check(plait_server_stop(get(), grace.count())); }
    /* For a loop of one's own (threads = 1): when fd() is readable, call dispatch(), on one thread at a time. The
     * server's own. */
    int fd() { return detail::check(plait_server_fd(get())); }
    /* Does what can be done within TIMEOUT: how many requests were handled; nothing once a stop is complete. */
    [[nodiscard]] std::optional<int> dispatch(Timeout timeout = std::chrono::milliseconds(0))
    {
        const int result = plait_server_dispatch(get(), timeout.count());
        if (result == -ESHUTDOWN) return std::nullopt;
        return detail::check(result);
    }

  private:
    struct Hooks {
        explicit Hooks(WorkerHooks &&hooks) : given(std::move(hooks)) {}
        WorkerHooks given;
        std::exception_ptr thrown{}; /* by one in the supervisor; comes out of run() */
    };

    /* At one address wherever the Server moves. C's server is closed before what its threads use is destroyed. */
    struct State {
        std::vector<std::shared_ptr<void>> kept{}; /* handlers, and pools with theirs */
        std::unique_ptr<Hooks> hooks{};
        bool given_up = false; /* a thread may be in a handler for ever */
        State *next = nullptr;
        detail::Owner<plait_server, plait_server_close> raw{};
    };
    struct Discard {
        void operator()(State *state) const noexcept
        {
            state->raw.reset();
            if (state->given_up) state->next = kept_for_good.exchange(state);
            else delete state;
        }
    };
    static inline std::atomic<State *> kept_for_good{ nullptr }; /* a list, so that no leak detector minds */

    template <class Handler> static auto share(Handler &&handler)
    {
        using Own = std::decay_t<Handler>;
        static_assert(std::is_invocable_v<Own &, Request &>, "a handler is called with a plait::Request &");
        return std::make_shared<Own>(std::forward<Handler>(handler));
    }
    template <class Handler> static void run_handler(plait_request *raw, void *context) noexcept
    {
        Request request(raw);
        try {
            (*static_cast<Handler *>(context))(request);
        } catch (const RemoteError &error) {
            request.fail_quietly(error.status(), error.what());
        } catch (const std::exception &error) {
            request.fail_quietly(1, error.what());
        } catch (...) {
            request.fail_quietly(1, "the handler threw something that is no std::exception");
        }
    }

    static const WorkerHooks &hooks_of(void *context) noexcept { return static_cast<Hooks *>(context)->given; }
    static void run_in_supervisor(plait_server *server, void *context, const std::function<void()> &hook) noexcept
    {
        try {
            hook();
        } catch (...) {
            auto *hooks = static_cast<Hooks *>(context);
            if (!hooks->thrown) hooks->thrown = std::current_exception();
            (void)plait_server_stop(server, 0);
        }
    }
    static void run_ready(plait_server *server, void *context) noexcept
    {
        run_in_supervisor(server, context, hooks_of(context).ready);
    }
    static void run_attend(plait_server *server, void *context) noexcept
    {
        run_in_supervisor(server, context, hooks_of(context).attend);
    }
    static int run_start(plait_server *, int worker, void *context) noexcept
    {
        try {
            hooks_of(context).start(worker);
            return 0;
        } catch (const Error &error) {
            return plait_worker_fail(error.code() < 0 ? error.code() : -ECANCELED, error.what());
        } catch (const std::exception &error) {
            return plait_worker_fail(-ECANCELED, error.what());
        } catch (...) {
            return plait_worker_fail(-ECANCELED, "it threw something that is no std::exception");
        }
    }
    static void run_end(plait_server *, int worker, void *context) noexcept { hooks_of(context).end(worker); }

    plait_server *get() const { return detail::check_open(state_ ? state_->raw.get() : nullptr, "server"); }
    std::unique_ptr<State, Discard> state_;
};

} // namespace plait

#endif
