/* plait.hpp's client: calls that wait, callbacks, futures. */
#ifndef PLAIT_CPP_CLIENT_HPP
#define PLAIT_CPP_CLIENT_HPP

#include <plait/cpp/loan.hpp>

#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace plait
{

/* As plait_client_options; zero and "" mean default. */
struct ClientOptions {
    Timeout connect_timeout = {};  /* how long an absent name is waited for: 5 s */
    Timeout timeout = {};          /* of this client's calls: 30 s */
    std::string peer = {};         /* user name or uid whose services are accepted, too */
    std::uint64_t max_message = 0; /* bytes of a reply: 1 GiB locally, 16 MiB over the network */
    std::chrono::microseconds spin = spin_adaptive;
    Transport transport = Transport::any; /* for names */
    /* Asked about every 50 ms by whatever waits, opening it included, on its thread: true ends that wait with -EINTR.
     * It may use the client, and mustn't throw. */
    std::function<bool()> interrupted = {};
};

struct CallOptions {
    Timeout timeout = {};    /* the client's */
    bool idempotent = false; /* may run twice: retried elsewhere when its instance dies */
    bool ordered = false;    /* arrives after this thread's earlier ordered calls and sends */
    std::uint64_t trace = 0; /* 0: inherited from the handler that this thread is in, or none */
};

/* The answer to a call, also when its client is gone. Views of it live as long as it does, so a temporary gives none:
 * text() copies. */
class Reply : public detail::Received<plait_reply, plait_reply_body, plait_reply_free>
{
  public:
    Encoding encoding() const noexcept
    {
        return raw_ ? static_cast<Encoding>(plait_reply_encoding(raw_.get())) : Encoding::bytes;
    }

  private:
    friend class Client;
    friend class Result;
    explicit Reply(plait_reply *raw = nullptr) noexcept : Received(raw) {}
    /* As the call that ended with CODE and TEXT. */
    [[noreturn]] void fail(int code, const std::string &text) const
    {
        const bool remote = code == -EREMOTEIO && raw_;
        detail::fail(code, remote ? plait_reply_text(raw_.get()) : text, remote ? plait_reply_status(raw_.get()) : 0);
    }
};

/* How a call ended that somebody didn't wait for: a reply, or what call() would have thrown. */
class Result
{
  public:
    /* True: there is a reply. */
    explicit operator bool() const noexcept { return code_ == 0; }
    /* 0 or a negative errno. */
    int code() const noexcept { return code_; }
    /* The reply, moved out: once; or throws the Error, as often as it is asked. */
    Reply get()
    {
        if (code_ < 0) reply_.fail(code_, text_);
        return std::move(reply_);
    }

  private:
    friend class Client;
    Result() noexcept : reply_() {}
    Result(int code, plait_reply *raw) noexcept : reply_(raw), code_(code)
    {
        try {
            if (code < 0) text_ = plait_error_text();
        } catch (const std::bad_alloc &) { /* code() says enough */
        }
    }
    Reply reply_;
    std::string text_{};
    int code_ = 0;
};

/* Calls what serves a name or a URL. All but moving and destroying it is thread-safe; whoever fetches one of its
 * futures uses it. */
class Client
{
  public:
    using CallId = std::uint64_t;

    /* TARGET as for plait_client_open(): a name, "name?shm=off", tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH. Waits
     * for the name. */
    explicit Client(const detail::CString &target, const ClientOptions &options = {})
        : turns_(std::make_shared<Turns>())
    {
        auto raw = detail::defaults<plait_client_options>();
        raw.connect_timeout = options.connect_timeout.count();
        raw.timeout = options.timeout.count();
        raw.peer = detail::given(options.peer);
        raw.max_message = options.max_message;
        raw.spin_us = options.spin.count();
        raw.transport = static_cast<std::int32_t>(options.transport);
        turns_->interrupted = options.interrupted;
        raw.interrupted = options.interrupted ? detail::ask : nullptr;
        raw.interrupted_context = &turns_->interrupted;
        detail::check(plait_client_open(&raw_, target.get(), &raw));
        turns_->client = raw_;
    }
    Client(Client &&other) noexcept : turns_(std::move(other.turns_)), raw_(std::exchange(other.raw_, nullptr)) {}
    Client &operator=(Client &&other) noexcept
    {
        Client old(std::move(other));
        std::swap(raw_, old.raw_);
        turns_.swap(old.turns_);
        return *this;
    }
    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;
    /* Calls that are still open end with -ECANCELED; their callbacks run here. Also in a callback. */
    ~Client()
    {
        if (raw_ == nullptr) return;
        plait_client_close(raw_);
        std::lock_guard<std::mutex> lock(turns_->mutex);
        turns_->client = nullptr;
    }

    /* Calls METHOD ("": the default one) and waits for the reply. What carries the request is a Body, which is copied
     * out before it returns, or a Loan, which is taken; so it is in all that follow. */
    Reply call(const detail::CString &method, const Body &body = {}, const CallOptions &options = {})
    {
        return wait(method, body, options);
    }
    Reply call(const detail::CString &method, const Body &body, Timeout timeout)
    {
        return wait(method, body, within(timeout));
    }
    Reply call(const detail::CString &method, Loan &&loan, const CallOptions &options = {})
    {
        return wait(method, Loan(std::move(loan)), options);
    }
    Reply call(const detail::CString &method, Loan &&loan, Timeout timeout)
    {
        return wait(method, Loan(std::move(loan)), within(timeout));
    }
    template <class... Rest> Reply call(const detail::CString &method, Loan &loan, Rest &&...) = delete; /* move it */

    /* One way: no answer, no error from afar. Returns when the message is on its way. */
    void send(const detail::CString &method, const Body &body = {}, const CallOptions &options = {})
    {
        tell(method, body, options);
    }
    void send(const detail::CString &method, const Body &body, Timeout timeout) { tell(method, body, within(timeout)); }
    void send(const detail::CString &method, Loan &&loan, const CallOptions &options = {})
    {
        tell(method, Loan(std::move(loan)), options);
    }
    void send(const detail::CString &method, Loan &&loan, Timeout timeout)
    {
        tell(method, Loan(std::move(loan)), within(timeout));
    }
    template <class... Rest> void send(const detail::CString &method, Loan &loan, Rest &&...) = delete;

    /* Starts a call; CALLBACK, anything that can be called with a Result, is called once, in dispatch() or when the
     * client is destroyed. What it throws comes out of that dispatch(); out of a destructor nothing comes. */
    template <class Callback>
    CallId call_async(const detail::CString &method, const Body &body, Callback &&callback,
                      const CallOptions &options = {})
    {
        return start(method, body, std::forward<Callback>(callback), options);
    }
    template <class Callback>
    CallId call_async(const detail::CString &method, const Body &body, Callback &&callback, Timeout timeout)
    {
        return start(method, body, std::forward<Callback>(callback), within(timeout));
    }
    template <class Callback>
    CallId call_async(const detail::CString &method, Loan &&loan, Callback &&callback, const CallOptions &options = {})
    {
        return start(method, Loan(std::move(loan)), std::forward<Callback>(callback), options);
    }
    template <class Callback>
    CallId call_async(const detail::CString &method, Loan &&loan, Callback &&callback, Timeout timeout)
    {
        return start(method, Loan(std::move(loan)), std::forward<Callback>(callback), within(timeout));
    }
    template <class... Rest> CallId call_async(const detail::CString &method, Loan &loan, Rest &&...) = delete;

    /* Starts a call whose reply is fetched later. Nobody has to dispatch for it: get() and wait() do, on the thread
     * that calls them, so they never hang longer than the call's timeout. wait_for() says future_status::deferred.
     * When the client is gone, get() throws -ECANCELED. */
    [[nodiscard]] std::future<Reply> call_future(const detail::CString &method, const Body &body = {},
                                                 const CallOptions &options = {})
    {
        return promise(method, body, options);
    }
    [[nodiscard]] std::future<Reply> call_future(const detail::CString &method, const Body &body, Timeout timeout)
    {
        return promise(method, body, within(timeout));
    }
    [[nodiscard]] std::future<Reply> call_future(const detail::CString &method, Loan &&loan,
                                                 const CallOptions &options = {})
    {
        return promise(method, Loan(std::move(loan)), options);
    }
    [[nodiscard]] std::future<Reply> call_future(const detail::CString &method, Loan &&loan, Timeout timeout)
    {
        return promise(method, Loan(std::move(loan)), within(timeout));
    }
    template <class... Rest>
    std::future<Reply> call_future(const detail::CString &method, Loan &loan, Rest &&...) = delete;

    /* Memory for a request of up to SIZE bytes; of OPTIONS the timeout counts: how long to wait while all is out. */
    Loan loan(std::size_t size, const CallOptions &options = {})
    {
        const Settings settings(Encoding::bytes, options);
        plait_loan *raw = nullptr;
        detail::check(plait_client_loan(get(), size, settings.get(), &raw));
        return Loan(raw);
    }
    Loan loan(std::size_t size, Timeout timeout) { return loan(size, within(timeout)); }
    /* Ends a call early: its callback gets -ECANCELED. False: it was over already. */
    bool cancel(CallId call)
    {
        const int result = plait_client_cancel(get(), call);
        if (result == -ENOENT) return false;
        detail::check(result);
        return true;
    }
    /* The names of the server's methods. */
    std::vector<std::string> methods()
    {
        char **names = nullptr;
        std::size_t count = 0;
        detail::check(plait_client_methods(get(), &names, &count));
        const std::unique_ptr<char *, void (*)(void *)> owner(names, std::free);
        return std::vector<std::string>(names, names + count);
    }
    /* "shm", "unix", "tcp", "udp": how the last call went. Static. */
    std::string_view transport() const { return plait_client_transport(get()); }
    /* Readable when dispatch() has something to do. The client's own. */
    int fd() { return detail::check(plait_client_fd(get())); }
    /* Runs the callbacks that are due, waiting at most TIMEOUT for the first: how many. One thread does so at a time,
     * others wait for their turn. */
    int dispatch(Timeout timeout = std::chrono::milliseconds(0))
    {
        get();
        const auto turns = turns_; /* a callback may destroy this client */
        return turns->dispatch(timeout.count());
    }

  private:
    /* NULL where all is default, which spares C to look. */
    class Settings
    {
      public:
        Settings(Encoding encoding, const CallOptions &options) noexcept
        {
            raw_.size = sizeof(raw_);
            raw_.timeout = options.timeout.count();
            raw_.encoding = static_cast<std::int32_t>(encoding);
            raw_.flags = (options.idempotent ? PLAIT_CALL_IDEMPOTENT : 0) | (options.ordered ? PLAIT_CALL_ORDERED : 0);
            raw_.trace = options.trace;
        }
        const plait_call_options *get() const noexcept
        {
            const bool given = raw_.timeout != 0 || raw_.encoding != 0 || raw_.flags != 0 || raw_.trace != 0;
            return given ? &raw_ : nullptr;
        }

      private:
        plait_call_options raw_{};
    };
    static CallOptions within(Timeout timeout) noexcept
    {
        CallOptions options;
        options.timeout = timeout;
        return options;
    }

    struct Slot {
        Result result{};
        bool done = false;
    };

    /* One thread dispatches at a time: a second could run what the first waits for and leave it waiting. Its callbacks
     * may dispatch in turn. Outlives the client, for its futures. */
    struct Turns {
        std::function<bool()> interrupted{}; /* the client's, here since this doesn't move */
        std::mutex mutex{};
        std::condition_variable changed{};
        std::thread::id dispatcher{};
        std::exception_ptr thrown{}; /* by a callback; comes out of dispatch() */
        plait_client *client = nullptr;

        bool mine_or_free() const noexcept
        {
            return dispatcher == std::thread::id() || dispatcher == std::this_thread::get_id();
        }
        /* The lock is held before and after, and not while callbacks run. */
        int take(std::unique_lock<std::mutex> &lock, std::int64_t ms)
        {
            if (client == nullptr) detail::fail(-ECANCELED, "the client was closed");
            const std::thread::id before = std::exchange(dispatcher, std::this_thread::get_id());
            lock.unlock();
            const int result = plait_client_dispatch(client, ms);
            lock.lock();
            dispatcher = before;
            changed.notify_all();
            return result;
        }
        int dispatch(std::int64_t ms)
        {
            using namespace std::chrono;
            std::unique_lock<std::mutex> lock(mutex);
            if (!mine_or_free()) {
                const milliseconds most = hours(24 * 365);
                const auto begun = steady_clock::now();
                const auto span = ms <= 0 ? milliseconds(0) : milliseconds(ms) < most ? milliseconds(ms) : most;
                if (!changed.wait_until(lock, begun + span, [this] { return mine_or_free(); })) return 0;
                const auto spent = ceil<milliseconds>(steady_clock::now() - begun).count();
                if (ms > 0 && ms != PLAIT_FOREVER) ms = ms > spent ? ms - spent : 0;
            }
            const int result = take(lock, ms);
            if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
            return detail::check(result);
        }
        void until(const Slot &slot)
        {
            std::unique_lock<std::mutex> lock(mutex);
            while (!slot.done) {
                if (mine_or_free()) detail::check(take(lock, PLAIT_FOREVER));
                else changed.wait(lock);
            }
        }
    };

    template <class Callback> struct Pending {
        Callback callback;
        Turns *turns;
    };

    template <class Callback> static void run_callback(int code, plait_reply *raw, void *context) noexcept
    {
        const std::unique_ptr<Pending<Callback>> call(static_cast<Pending<Callback> *>(context));
        Turns *turns = call->turns;
        try {
            call->callback(Result(code, raw));
        } catch (...) {
            std::lock_guard<std::mutex> lock(turns->mutex);
            if (!turns->thrown) turns->thrown = std::current_exception();
        }
    }

    /* C has each call twice: for bytes, and for a loan, which it takes. */
    static int raw_call(plait_client *client, const char *method, const Body &body, const plait_call_options *options,
                        plait_reply **reply)
    {
        return plait_client_call(client, method, body.data(), body.size(), options, reply);
    }
    static int raw_call(plait_client *client, const char *method, Loan &loan, const plait_call_options *options,
                        plait_reply **reply)
    {
        return plait_client_call_loan(client, method, loan.release(), loan.size_, options, reply);
    }
    static int raw_send(plait_client *client, const char *method, const Body &body, const plait_call_options *options)
    {
        return plait_client_send(client, method, body.data(), body.size(), options);
    }
    static int raw_send(plait_client *client, const char *method, Loan &loan, const plait_call_options *options)
    {
        return plait_client_send_loan(client, method, loan.release(), loan.size_, options);
    }
    static int raw_start(plait_client *client, const char *method, const Body &body, const plait_call_options *options,
                         plait_reply_fn *callback, void *context, CallId *id)
    {
        return plait_client_call_async(client, method, body.data(), body.size(), options, callback, context, id);
    }
    static int raw_start(plait_client *client, const char *method, Loan &loan, const plait_call_options *options,
                         plait_reply_fn *callback, void *context, CallId *id)
    {
        return plait_client_call_async_loan(client, method, loan.release(), loan.size_, options, callback, context, id);
    }

    /* REQUEST is a const Body & or an own Loan. */
    template <class Carrier> Reply wait(const detail::CString &method, Carrier &&request, const CallOptions &options)
    {
        const Settings settings(request.encoding(), options);
        plait_reply *raw = nullptr;
        const int result = raw_call(get(), method.get(), request, settings.get(), &raw);
        Reply reply(raw);
        if (result < 0) reply.fail(result, plait_error_text());
        return reply;
    }
    template <class Carrier> void tell(const detail::CString &method, Carrier &&request, const CallOptions &options)
    {
        const Settings settings(request.encoding(), options);
        detail::check(raw_send(get(), method.get(), request, settings.get()));
    }
    template <class Carrier, class Callback>
    CallId start(const detail::CString &method, Carrier &&request, Callback &&callback, const CallOptions &options)
    {
        using Own = std::decay_t<Callback>;
        static_assert(std::is_invocable_v<Own &, Result>, "a callback is called with a plait::Result");
        plait_client *client = get();
        auto call = std::make_unique<Pending<Own>>(Pending<Own>{ std::forward<Callback>(callback), turns_.get() });
        const Settings settings(request.encoding(), options);
        CallId id = 0;
        detail::check(raw_start(client, method.get(), request, settings.get(), run_callback<Own>, call.get(), &id));
        (void)call.release(); /* its callback's, which another thread may have run by now */
        return id;
    }
    template <class Carrier>
    std::future<Reply> promise(const detail::CString &method, Carrier &&request, const CallOptions &options)
    {
        auto slot = std::make_shared<Slot>();
        std::future<Reply> future = std::async(std::launch::deferred, [slot, turns = turns_] {
            turns->until(*slot);
            return slot->result.get();
        });
        auto file = [slot, turns = turns_.get()](Result &&result) {
            std::lock_guard<std::mutex> lock(turns->mutex);
            slot->result = std::move(result);
            slot->done = true;
        };
        (void)start(method, request, std::move(file), options);
        return future;
    }

    plait_client *get() const { return detail::check_open(raw_, "client"); }
    std::shared_ptr<Turns> turns_;
    plait_client *raw_ = nullptr;
};

} // namespace plait

#endif
