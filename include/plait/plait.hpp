/* plait for C++17: the C interface with the STL's types; docs/cpp.md explains every class.
 *
 *     plait::Server s("greeter");
 *     s.handle("greet", [](plait::Request &q) { q.reply("hello, " + q.text()); });
 *     s.run();
 *
 *     plait::Client c("greeter");
 *     std::string t = c.call("greet", "Ada", 300ms).text();
 *
 * Header-only. What fails throws plait::Error or a class derived from it; no exception crosses the C library: what a
 * handler throws becomes a failure for its caller, what a callback throws comes out of dispatch(). Servers, clients,
 * requests that were deferred and replies are handles: they move, close themselves, and throw -EBADF (requests:
 * -EALREADY) when used after they were moved from. Threads, fork and limits: as plait.h says.
 */
#ifndef PLAIT_PLAIT_HPP
#define PLAIT_PLAIT_HPP

#include <plait/plait.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace plait
{

/* ---- errors ------------------------------------------------------------------------- */

/* CODE is the C interface's, a negative errno: error.code() == -EMSGSIZE. what() says what, where, and what to do. */
class Error : public std::runtime_error
{
  public:
    Error(int code, const std::string &text) : std::runtime_error(text), code_(code) {}
    int code() const noexcept { return code_; }

  private:
    int code_;
};

/* -ETIMEDOUT. */
class TimeoutError : public Error
{
  public:
    explicit TimeoutError(const std::string &text) : Error(-ETIMEDOUT, text) {}
};

/* -ECONNRESET: the other side is gone; a call may have run, what() says whether. */
class PeerDied : public Error
{
  public:
    explicit PeerDied(const std::string &text) : Error(-ECONNRESET, text) {}
};

/* -ENOENT: nobody serves this name. */
class NoSuchName : public Error
{
  public:
    explicit NoSuchName(const std::string &text) : Error(-ENOENT, text) {}
};

/* -EREMOTEIO: the handler failed; what() is its text, status() its number. */
class RemoteError : public Error
{
  public:
    RemoteError(std::uint32_t status, const std::string &text) : Error(-EREMOTEIO, text), status_(status) {}
    std::uint32_t status() const noexcept { return status_; }

  private:
    std::uint32_t status_;
};

namespace detail
{

[[noreturn]] inline void fail(int code, const std::string &text, std::uint32_t status = 0)
{
    switch (code) {
    case -ETIMEDOUT: throw TimeoutError(text);
    case -ECONNRESET: throw PeerDied(text);
    case -ENOENT: throw NoSuchName(text);
    case -EREMOTEIO: throw RemoteError(status, text);
    default: throw Error(code, text);
    }
}

inline int check(int result)
{
    if (result < 0) fail(result, plait_error_text());
    return result;
}

template <class Handle> Handle *check_open(Handle *handle, const char *what)
{
    if (handle == nullptr) fail(-EBADF, std::string("this ") + what + " was moved from");
    return handle;
}

/* What C gets as a string: the caller's own where that ends in a NUL, else a copy. */
class CString
{
  public:
    CString(const char *text) noexcept : text_(text) {}
    CString(const std::string &text) : text_(checked(text)) {}
    CString(std::string_view text) : copy_(std::make_unique<std::string>(text)), text_(checked(*copy_)) {}
    CString(const CString &) = delete;
    CString &operator=(const CString &) = delete;
    ~CString() = default;
    const char *get() const noexcept { return text_; }

  private:
    static const char *checked(const std::string &text)
    {
        if (text.find('\0') != std::string::npos) fail(-EINVAL, "a name or URL with a NUL byte in it");
        return text.c_str();
    }
    std::unique_ptr<std::string> copy_{}; /* made where it is needed: most names are literals */
    const char *text_;
};

/* Containers of bytes that lie in one piece, but not what is text already. */
template <class T>
using Element = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<const T &>()))>>;
template <class T> inline constexpr bool is_text = std::is_convertible_v<const T &, std::string_view>;
template <class T, class = void> struct IsBytes : std::false_type {
};
template <class T>
struct IsBytes<T, std::void_t<Element<T>, decltype(std::size(std::declval<const T &>()))>>
    : std::bool_constant<!is_text<T> &&
                         (std::is_same_v<Element<T>, std::byte> || std::is_same_v<Element<T>, unsigned char> ||
                          std::is_same_v<Element<T>, char>)> {
};

} // namespace detail

/* ---- values ------------------------------------------------------------------------- */

/* The library's version, "MAJOR.MINOR.PATCH". */
inline std::string_view version() noexcept
{
    return plait_version();
}

enum class Encoding : int { bytes = PLAIT_BYTES, utf8 = PLAIT_UTF8, json = PLAIT_JSON, array = PLAIT_ARRAY };
enum class Transport : int {
    any = PLAIT_TRANSPORT_AUTO,
    shm = PLAIT_TRANSPORT_SHM,
    unix_socket = PLAIT_TRANSPORT_UNIX
};

/* A time span to wait: any std::chrono duration, rounded up to milliseconds. None at all, Timeout(), is the default of
 * whatever takes it; zero or less doesn't wait; milliseconds::max(), plait::forever, has no end. */
class Timeout
{
  public:
    constexpr Timeout() noexcept = default;
    template <class Rep, class Period>
    constexpr Timeout(std::chrono::duration<Rep, Period> span) noexcept : ms_(convert(span))
    {
    }
    /* As the C interface has it: 0 is the default, PLAIT_NOW, PLAIT_FOREVER. */
    constexpr std::int64_t count() const noexcept { return ms_; }

  private:
    template <class Rep, class Period>
    static constexpr std::int64_t convert(std::chrono::duration<Rep, Period> span) noexcept
    {
        using std::chrono::duration, std::chrono::milliseconds;
        if (!(span > span.zero())) return PLAIT_NOW;
        if (duration<double, std::milli>(span).count() >= 9e18) return PLAIT_FOREVER;
        return std::chrono::ceil<milliseconds>(span).count();
    }
    std::int64_t ms_ = 0;
};
inline constexpr Timeout forever = std::chrono::milliseconds::max();

/* How long to spin before sleeping, in options: adaptive, never, or always that long. */
inline constexpr std::chrono::microseconds spin_adaptive{ PLAIT_SPIN_DEFAULT };
inline constexpr std::chrono::microseconds spin_never{ PLAIT_SPIN_NEVER };

/* A view of bytes that somebody else owns. */
class Bytes
{
  public:
    constexpr Bytes() noexcept = default;
    Bytes(const void *data, std::size_t size) noexcept : data_(static_cast<const std::byte *>(data)), size_(size) {}
    explicit Bytes(std::string_view text) noexcept : Bytes(text.data(), text.size()) {}
    /* std::vector<std::byte>, std::vector<std::uint8_t>, std::array, std::span, ... */
    template <class T, std::enable_if_t<detail::IsBytes<T>::value, int> = 0>
    Bytes(const T &container) noexcept : Bytes(std::data(container), std::size(container))
    {
    }
    const std::byte *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    const std::byte *begin() const noexcept { return data_; }
    const std::byte *end() const noexcept { return data_ + size_; }
    const std::byte &operator[](std::size_t index) const noexcept { return data_[index]; }
    std::string_view view() const noexcept { return { reinterpret_cast<const char *>(data_), size_ }; }

  private:
    const std::byte *data_ = nullptr;
    std::size_t size_ = 0;
};

/* What a message carries, borrowed until the function that takes it returns. Made from text (sent as UTF-8) or from
 * bytes; {body, Encoding::json} says it otherwise. */
class Body
{
  public:
    Body() noexcept = default;
    template <class T, std::enable_if_t<detail::is_text<T>, int> = 0>
    Body(const T &text, Encoding encoding = Encoding::utf8) : bytes_(std::string_view(text)), encoding_(encoding)
    {
    }
    template <class T, std::enable_if_t<std::is_convertible_v<const T &, Bytes>, int> = 0>
    Body(const T &bytes, Encoding encoding = Encoding::bytes) noexcept : bytes_(bytes), encoding_(encoding)
    {
    }
    Body(const void *data, std::size_t size) noexcept : bytes_(data, size) {}
    const void *data() const noexcept { return bytes_.data(); }
    std::size_t size() const noexcept { return bytes_.size(); }
    Encoding encoding() const noexcept { return encoding_; }

  private:
    Bytes bytes_{};
    Encoding encoding_ = Encoding::bytes;
};

/* ---- server ------------------------------------------------------------------------- */

/* Who called. */
struct Peer {
    std::int32_t pid;      /* 0 if unknown (network) */
    std::uint32_t uid;     /* UINT32_MAX if unknown */
    std::string transport; /* "shm", "unix", "tcp" */
    std::string address;   /* "pid 123 (name)" or "127.0.0.1:40012" */
};

namespace detail
{
class AnyRequest;
}

/* Memory for one large message, written where its receiver reads it; see <plait/loan.h>. From Client::loan() or
 * Request::loan(); sent by moving it into call(), send() or reply(), which takes it also when that throws. Destroying
 * it gives it back. It may outlive its client. */
class Loan
{
  public:
    Loan(Loan &&other) noexcept
        : raw_(std::exchange(other.raw_, nullptr)), size_(other.size_), encoding_(other.encoding_)
    {
    }
    Loan &operator=(Loan &&other) noexcept
    {
        Loan old(std::move(other));
        std::swap(raw_, old.raw_);
        size_ = old.size_;
        encoding_ = old.encoding_;
        return *this;
    }
    Loan(const Loan &) = delete;
    Loan &operator=(const Loan &) = delete;
    ~Loan() { plait_loan_abort(raw_); }

    void *data() const noexcept { return plait_loan_data(raw_); }
    template <class T> T *as() const noexcept { return static_cast<T *>(data()); }
    /* The message's size: all that was lent, until use() says less. */
    std::size_t size() const noexcept { return raw_ ? size_ : 0; }
    Encoding encoding() const noexcept { return encoding_; }
    /* Sends only the first SIZE bytes (-EINVAL: more than were lent), and says what they hold. */
    Loan &use(std::size_t size, Encoding encoding = Encoding::bytes)
    {
        if (size > plait_loan_size(raw_))
            detail::fail(-EINVAL, "a message of " + std::to_string(size) + " bytes in a loan of " +
                                      std::to_string(plait_loan_size(raw_)));
        size_ = size;
        encoding_ = encoding;
        return *this;
    }
    /* False: sent or moved from. */
    explicit operator bool() const noexcept { return raw_ != nullptr; }

  private:
    friend class Client;
    friend class detail::AnyRequest;
    friend class DeferredRequest;
    friend class Request;
    explicit Loan(plait_loan *raw) noexcept : raw_(raw), size_(plait_loan_size(raw)) {}
    plait_loan *release()
    {
        if (raw_ == nullptr) detail::fail(-EINVAL, "this loan was sent or moved from");
        return std::exchange(raw_, nullptr);
    }
    plait_loan *raw_;
    std::size_t size_;
    Encoding encoding_ = Encoding::bytes;
};

namespace detail
{

/* What Request and DeferredRequest share. */
class AnyRequest
{
  public:
    AnyRequest(const AnyRequest &) = delete;
    AnyRequest &operator=(const AnyRequest &) = delete;

    Bytes body() const
    {
        plait_bytes body = plait_request_body(get());
        return { body.data, body.size };
    }
    /* A copy, and a view that lives as long as the body does. */
    std::string text() const { return std::string(view()); }
    std::string_view view() const { return body().view(); }
    Encoding encoding() const { return static_cast<Encoding>(plait_request_encoding(get())); }
    std::string_view method() const { return plait_request_method(get()); }
    Peer peer() const
    {
        const plait_peer *peer = plait_request_peer(get());
        return { peer->pid, peer->uid, peer->transport, peer->address };
    }
    std::uint64_t trace() const { return plait_request_trace(get()); }
    /* milliseconds::max() without a deadline. */
    std::chrono::milliseconds time_left() const { return std::chrono::milliseconds(plait_request_time_left(get())); }
    /* Nobody waits for the answer any more. */
    bool cancelled() const { return plait_request_cancelled(get()) != 0; }
    /* Memory for an answer of up to SIZE bytes. */
    Loan loan(std::size_t size)
    {
        plait_loan *raw = nullptr;
        detail::check(plait_request_reply_loan(get(), size, &raw));
        return Loan(raw);
    }

  protected:
    explicit AnyRequest(plait_request *raw) noexcept : raw_(raw) {}
    AnyRequest(AnyRequest &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    ~AnyRequest() = default;

    plait_request *get() const
    {
        if (raw_ == nullptr) detail::fail(-EALREADY, "this request was answered, deferred or moved from");
        return raw_;
    }
    static int send(plait_request *raw, const Body &body)
    {
        return plait_request_reply_as(raw, static_cast<plait_encoding>(body.encoding()), body.data(), body.size());
    }
    static int send(plait_request *raw, Loan &loan)
    {
        return plait_request_reply_loaned(raw, static_cast<plait_encoding>(loan.encoding()), loan.release(),
                                          loan.size_);
    }
    static int send_failure(plait_request *raw, std::uint32_t status, std::string_view text) noexcept
    {
        std::size_t most = 0x7fffffff;
        return plait_request_fail(raw, status, "%.*s", static_cast<int>(text.size() < most ? text.size() : most),
                                  text.data());
    }
    /* Before the request is given away: what C would refuse without freeing it. */
    static void check_encoding(Encoding given)
    {
        int encoding = static_cast<int>(given);
        if (encoding < PLAIT_BYTES || encoding > PLAIT_ARRAY)
            detail::fail(-EINVAL, "unknown encoding " + std::to_string(encoding));
    }
    static void check_status(std::uint32_t status)
    {
        if (status > 0x7fffffff)
            detail::fail(-EINVAL, "status " + std::to_string(status) + ": a handler's own are 1 to 0x7fffffff");
    }

    plait_request *raw_;
};

} // namespace detail

/* A request that left its handler: to be answered later, once, from any thread. If it is destroyed without an answer,
 * its caller gets a failure. After its answer it is empty. */
class DeferredRequest : public detail::AnyRequest
{
  public:
    DeferredRequest(DeferredRequest &&) noexcept = default;
    DeferredRequest &operator=(DeferredRequest &&other) noexcept
    {
        if (this != &other) {
            drop();
            raw_ = std::exchange(other.raw_, nullptr);
        }
        return *this;
    }
    ~DeferredRequest() { drop(); }
    void reply(const Body &body = {})
    {
        check_encoding(body.encoding());
        get();
        detail::check(send(std::exchange(raw_, nullptr), body));
    }
    void reply(Loan &&loan)
    {
        Loan own(std::move(loan));
        check_encoding(own.encoding());
        get();
        if (!own) detail::fail(-EINVAL, "this loan was sent or moved from");
        detail::check(send(std::exchange(raw_, nullptr), own));
    }
    void reply(Loan &loan) = delete;
    /* STATUS is yours, 1 to 0x7fffffff. */
    void fail(std::uint32_t status, std::string_view text)
    {
        check_status(status);
        get();
        detail::check(send_failure(std::exchange(raw_, nullptr), status, text));
    }
    /* False: answered or moved from. */
    explicit operator bool() const noexcept { return raw_ != nullptr; }

  private:
    friend class Request;
    explicit DeferredRequest(plait_request *raw) noexcept : AnyRequest(raw) {}
    void drop() noexcept
    {
        if (raw_) (void)send_failure(std::exchange(raw_, nullptr), 1, "the request was dropped without an answer");
    }
};

/* What a handler gets, valid until it returns. One answer per request. */
class Request : public detail::AnyRequest
{
  public:
    Request(Request &&) = delete;
    Request &operator=(Request &&) = delete;

    void reply(const Body &body = {}) { detail::check(send(get(), body)); }
    void reply(Loan &&loan)
    {
        Loan own(std::move(loan));
        detail::check(send(get(), own));
    }
    void reply(Loan &loan) = delete; /* move it */
    /* STATUS is yours, 1 to 0x7fffffff; the caller gets RemoteError. */
    void fail(std::uint32_t status, std::string_view text)
    {
        check_status(status);
        detail::check(send_failure(get(), status, text));
    }
    /* Takes the request out of the handler; this object is empty afterwards. */
    DeferredRequest defer()
    {
        plait_request *deferred = nullptr;
        detail::check(plait_request_defer(get(), &deferred));
        raw_ = nullptr;
        return DeferredRequest(deferred);
    }

  private:
    friend class Server;
    explicit Request(plait_request *raw) noexcept : AnyRequest(raw) {}
    ~Request() = default;

    void fail_quietly(std::uint32_t status, std::string_view text) noexcept
    {
        if (raw_) (void)send_failure(raw_, status, text); /* -EALREADY where the handler had answered */
    }
};

/* As plait_server_options; zero and "" mean default. */
struct ServerOptions {
    int threads = 0;        /* reactors: 0 is 1, -1 is as many as there are CPUs */
    bool exclusive = false; /* be the only instance of this name, or throw -EADDRINUSE */
    std::string allow = {}; /* who else may call: "alice,1001,@video,*" */
    std::uint64_t max_message = 0;
    std::uint64_t inbound_bytes = 0;
    std::uint32_t outstanding = 0;
    std::chrono::microseconds spin = spin_adaptive;
};

/* Serves a name. Its destructor stops it and waits for that; never destroy it in a handler. */
class Server
{
  public:
    explicit Server(const detail::CString &name, const ServerOptions &options = {})
    {
        plait_server_options raw{}; /* the macros are for C: C++17 has no designators */
        raw.size = sizeof(raw);
        raw.threads = options.threads;
        raw.exclusive = options.exclusive;
        raw.allow = options.allow.empty() ? nullptr : options.allow.c_str();
        raw.max_message = options.max_message;
        raw.inbound_bytes = options.inbound_bytes;
        raw.outstanding = options.outstanding;
        raw.spin_us = options.spin.count();
        detail::check(plait_server_open(&raw_, name.get(), &raw));
    }
    Server(Server &&other) noexcept : handlers_(std::move(other.handlers_)), raw_(std::exchange(other.raw_, nullptr)) {}
    Server &operator=(Server &&other) noexcept
    {
        Server old(std::move(other));
        std::swap(raw_, old.raw_);
        handlers_.swap(old.handlers_);
        return *this;
    }
    Server(const Server &) = delete;
    Server &operator=(const Server &) = delete;
    ~Server() { plait_server_close(raw_); }

    /* HANDLER is anything that can be called with a Request &; it is moved in and lives as long as the server. With
     * threads it is called from several at a time. What it throws its caller gets as a failure. */
    template <class Handler> void handle(const detail::CString &method, Handler &&handler)
    {
        using Own = std::decay_t<Handler>;
        static_assert(std::is_invocable_v<Own &, Request &>, "a handler is called with a plait::Request &");
        auto own = std::make_shared<Own>(std::forward<Handler>(handler));
        handlers_.reserve(handlers_.size() + 1);
        detail::check(plait_server_handle(get(), method.get(), run_handler<Own>, own.get()));
        handlers_.push_back(std::move(own));
    }
    /* Also listens on tcp://HOST:PORT or unix:///PATH, see plait_server_listen(). */
    void listen(const detail::CString &url) { detail::check(plait_server_listen(get(), url.get())); }
    /* What listen() was told, with real ports. */
    std::vector<std::string> urls() const
    {
        std::vector<std::string> urls;
        while (const char *url = plait_server_url(get(), urls.size())) urls.emplace_back(url);
        return urls;
    }
    /* Serves until SIGINT, SIGTERM or stop(). */
    void run() { detail::check(plait_server_run(get())); }
    /* Serves on threads of its own until stop() or the end of this object. */
    void start() { detail::check(plait_server_start(get())); }
    /* Asks it to stop and returns at once; what it has taken is answered within GRACE (5 s). From any thread. */
    void stop(Timeout grace = {}) { detail::check(plait_server_stop(get(), grace.count())); }
    /* For a loop of one's own (threads = 1): when fd() is readable, call dispatch(). */
    int fd() { return detail::check(plait_server_fd(get())); }
    /* Does what can be done within TIMEOUT: how many requests were handled; nothing once a stop is complete. */
    std::optional<int> dispatch(Timeout timeout = std::chrono::milliseconds(0))
    {
        int result = plait_server_dispatch(get(), timeout.count());
        if (result == -ESHUTDOWN) return std::nullopt;
        return detail::check(result);
    }

  private:
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
    plait_server *get() const { return detail::check_open(raw_, "server"); }
    std::vector<std::shared_ptr<void>> handlers_{}; /* outlive raw_, whose threads run them */
    plait_server *raw_ = nullptr;
};

/* ---- client ------------------------------------------------------------------------- */

/* As plait_client_options; zero and "" mean default. */
struct ClientOptions {
    Timeout connect_timeout = {}; /* how long an absent name is waited for: 5 s */
    Timeout timeout = {};         /* of this client's calls: 30 s */
    std::string peer = {};        /* user name or uid whose services are accepted too */
    std::uint64_t max_message = 0;
    std::chrono::microseconds spin = spin_adaptive;
    Transport transport = Transport::any;
};

struct CallOptions {
    Timeout timeout = {};    /* the client's */
    bool idempotent = false; /* may run twice: retried elsewhere when its instance dies */
    bool ordered = false;    /* arrives after this thread's earlier ordered calls and sends */
    std::uint64_t trace = 0; /* 0: inherited from the handler that this thread is in, or none */
};

/* The answer to a call. Views of it live as long as it does, so a temporary gives none: text() copies. */
class Reply
{
  public:
    Bytes bytes() const &noexcept
    {
        plait_bytes body = raw_ ? plait_reply_body(raw_.get()) : plait_bytes{ nullptr, 0 };
        return { body.data, body.size };
    }
    Bytes bytes() const && = delete;
    std::string_view view() const &noexcept { return bytes().view(); }
    std::string_view view() const && = delete;
    std::string text() const { return std::string(view()); }
    Encoding encoding() const noexcept
    {
        return raw_ ? static_cast<Encoding>(plait_reply_encoding(raw_.get())) : Encoding::bytes;
    }

  private:
    friend class Client;
    friend class Result;
    struct Free {
        void operator()(plait_reply *raw) const noexcept { plait_reply_free(raw); }
    };
    explicit Reply(plait_reply *raw = nullptr) noexcept : raw_(raw) {}
    [[noreturn]] void fail(int code, const std::string &text) const
    {
        bool remote = code == -EREMOTEIO && raw_;
        detail::fail(code, remote ? plait_reply_text(raw_.get()) : text, remote ? plait_reply_status(raw_.get()) : 0);
    }
    std::unique_ptr<plait_reply, Free> raw_;
};

/* How a call ended that somebody didn't wait for: a reply, or what call() would have thrown. */
class Result
{
  public:
    explicit operator bool() const noexcept { return code_ == 0; }
    /* 0 or a negative errno. */
    int code() const noexcept { return code_; }
    /* The reply, moved out; or throws the Error. */
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

/* Calls what serves a name or a URL. All but moving and destroying it is thread-safe. */
class Client
{
  public:
    using CallId = std::uint64_t;

    /* TARGET as for plait_client_open(): a name, "name?shm=off", tcp://HOST:PORT, unix:///PATH. Waits for the name. */
    explicit Client(const detail::CString &target, const ClientOptions &options = {})
        : turns_(std::make_shared<Turns>())
    {
        plait_client_options raw{}; /* the macros are for C: C++17 has no designators */
        raw.size = sizeof(raw);
        raw.connect_timeout = options.connect_timeout.count();
        raw.timeout = options.timeout.count();
        raw.peer = options.peer.empty() ? nullptr : options.peer.c_str();
        raw.max_message = options.max_message;
        raw.spin_us = options.spin.count();
        raw.transport = static_cast<std::int32_t>(options.transport);
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
    /* Calls that are still open end with -ECANCELED; their callbacks run here. */
    ~Client()
    {
        if (raw_ == nullptr) return;
        plait_client_close(raw_);
        std::lock_guard<std::mutex> lock(turns_->mutex);
        turns_->client = nullptr;
    }

    /* Calls METHOD ("": the default one) and waits for the reply. */
    Reply call(const detail::CString &method, const Body &body = {}, const CallOptions &options = {})
    {
        Settings settings(body, options);
        plait_reply *raw = nullptr;
        int result = plait_client_call(get(), method.get(), body.data(), body.size(), settings.get(), &raw);
        Reply reply(raw);
        if (result < 0) reply.fail(result, plait_error_text());
        return reply;
    }
    Reply call(const detail::CString &method, const Body &body, Timeout timeout)
    {
        CallOptions options;
        options.timeout = timeout;
        return call(method, body, options);
    }
    /* Memory for a request of up to SIZE bytes; of OPTIONS the timeout counts: how long to wait while all is out. */
    Loan loan(std::size_t size, const CallOptions &options = {})
    {
        Settings settings(Encoding::bytes, options);
        plait_loan *raw = nullptr;
        detail::check(plait_client_loan(get(), size, settings.get(), &raw));
        return Loan(raw);
    }
    Loan loan(std::size_t size, Timeout timeout)
    {
        CallOptions options;
        options.timeout = timeout;
        return loan(size, options);
    }
    Reply call(const detail::CString &method, Loan &&loan, const CallOptions &options = {})
    {
        Loan own(std::move(loan));
        Settings settings(own.encoding(), options);
        plait_reply *raw = nullptr;
        plait_client *client = get();
        int result = plait_client_call_loan(client, method.get(), own.release(), own.size_, settings.get(), &raw);
        Reply reply(raw);
        if (result < 0) reply.fail(result, plait_error_text());
        return reply;
    }
    Reply call(const detail::CString &method, Loan &&loan, Timeout timeout)
    {
        CallOptions options;
        options.timeout = timeout;
        return call(method, std::move(loan), options);
    }
    template <class... Rest> Reply call(const detail::CString &method, Loan &loan, Rest &&...) = delete; /* move it */
    void send(const detail::CString &method, Loan &&loan, const CallOptions &options = {})
    {
        Loan own(std::move(loan));
        Settings settings(own.encoding(), options);
        plait_client *client = get();
        detail::check(plait_client_send_loan(client, method.get(), own.release(), own.size_, settings.get()));
    }
    template <class... Rest> void send(const detail::CString &method, Loan &loan, Rest &&...) = delete;
    /* One way: no answer, no error from afar. */
    void send(const detail::CString &method, const Body &body = {}, const CallOptions &options = {})
    {
        Settings settings(body, options);
        detail::check(plait_client_send(get(), method.get(), body.data(), body.size(), settings.get()));
    }
    /* Starts a call; CALLBACK, anything that can be called with a Result, is called once, in dispatch() or when the
     * client is destroyed. What it throws comes out of that dispatch(); out of a destructor nothing comes. */
    template <class Callback>
    CallId call_async(const detail::CString &method, const Body &body, Callback &&callback,
                      const CallOptions &options = {})
    {
        using Own = std::decay_t<Callback>;
        static_assert(std::is_invocable_v<Own &, Result>, "a callback is called with a plait::Result");
        plait_client *client = get();
        auto call = std::make_unique<Pending<Own>>(Pending<Own>{ std::forward<Callback>(callback), turns_.get() });
        Settings settings(body, options);
        CallId id = 0;
        detail::check(plait_client_call_async(client, method.get(), body.data(), body.size(), settings.get(),
                                              run_callback<Own>, call.get(), &id));
        (void)call.release(); /* its callback's, which another thread may have run by now */
        return id;
    }
    template <class Callback>
    CallId call_async(const detail::CString &method, Loan &&loan, Callback &&callback, const CallOptions &options = {})
    {
        using Own = std::decay_t<Callback>;
        static_assert(std::is_invocable_v<Own &, Result>, "a callback is called with a plait::Result");
        Loan own(std::move(loan));
        plait_client *client = get();
        auto call = std::make_unique<Pending<Own>>(Pending<Own>{ std::forward<Callback>(callback), turns_.get() });
        Settings settings(own.encoding(), options);
        CallId id = 0;
        detail::check(plait_client_call_async_loan(client, method.get(), own.release(), own.size_, settings.get(),
                                                   run_callback<Own>, call.get(), &id));
        (void)call.release();
        return id;
    }
    template <class... Rest> CallId call_async(const detail::CString &method, Loan &loan, Rest &&...) = delete;
    template <class Callback>
    CallId call_async(const detail::CString &method, const Body &body, Callback &&callback, Timeout timeout)
    {
        CallOptions options;
        options.timeout = timeout;
        return call_async(method, body, std::forward<Callback>(callback), options);
    }
    /* Starts a call whose reply is fetched later. Nobody has to dispatch for it: get() and wait() do, on the thread
     * that calls them, so they never hang longer than the call's timeout. wait_for() says future_status::deferred. */
    std::future<Reply> call_future(const detail::CString &method, const Body &body = {},
                                   const CallOptions &options = {})
    {
        auto slot = std::make_shared<Slot>();
        std::future<Reply> future = std::async(std::launch::deferred, [slot, turns = turns_] {
            turns->until(*slot);
            return slot->result.get();
        });
        call_async(
            method, body,
            [slot, turns = turns_.get()](Result &&result) {
                std::lock_guard<std::mutex> lock(turns->mutex);
                slot->result = std::move(result);
                slot->done = true;
            },
            options);
        return future;
    }
    std::future<Reply> call_future(const detail::CString &method, const Body &body, Timeout timeout)
    {
        CallOptions options;
        options.timeout = timeout;
        return call_future(method, body, options);
    }
    /* Ends a call early: its callback gets -ECANCELED. False: it was over already. */
    bool cancel(CallId call)
    {
        int result = plait_client_cancel(get(), call);
        if (result == -ENOENT) return false;
        detail::check(result);
        return true;
    }
    std::vector<std::string> methods()
    {
        char **names = nullptr;
        std::size_t count = 0;
        detail::check(plait_client_methods(get(), &names, &count));
        std::unique_ptr<char *, void (*)(void *)> owner(names, std::free);
        return std::vector<std::string>(names, names + count);
    }
    /* "shm", "unix", "tcp": how the last call went. */
    std::string_view transport() const { return plait_client_transport(get()); }
    /* Readable when dispatch() has something to do. The client's own. */
    int fd() { return detail::check(plait_client_fd(get())); }
    /* Runs the callbacks that are due, waiting at most TIMEOUT for the first: how many. One thread does so at a time,
     * others wait for their turn. */
    int dispatch(Timeout timeout = std::chrono::milliseconds(0))
    {
        get();
        auto turns = turns_; /* a callback may destroy this client */
        return turns->dispatch(timeout.count());
    }

  private:
    /* NULL where all is default, which spares C to look. */
    class Settings
    {
      public:
        Settings(const Body &body, const CallOptions &options) noexcept : Settings(body.encoding(), options) {}
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
            bool given = raw_.timeout != 0 || raw_.encoding != 0 || raw_.flags != 0 || raw_.trace != 0;
            return given ? &raw_ : nullptr;
        }

      private:
        plait_call_options raw_{};
    };

    struct Slot {
        Result result{};
        bool done = false;
    };

    /* One thread dispatches at a time: a second could run what the first waits for and leave it waiting. Its callbacks
     * may dispatch in turn. */
    struct Turns {
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
            std::thread::id before = std::exchange(dispatcher, std::this_thread::get_id());
            lock.unlock();
            int result = plait_client_dispatch(client, ms);
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
            int result = take(lock, ms);
            if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
            return detail::check(result);
        }
        void until(const Slot &slot)
        {
            std::unique_lock<std::mutex> lock(mutex);
            while (!slot.done) {
                if (client == nullptr) detail::fail(-ECANCELED, "the client was closed");
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
        std::unique_ptr<Pending<Callback>> call(static_cast<Pending<Callback> *>(context));
        Turns *turns = call->turns;
        try {
            call->callback(Result(code, raw));
        } catch (...) {
            std::lock_guard<std::mutex> lock(turns->mutex);
            if (!turns->thrown) turns->thrown = std::current_exception();
        }
    }
    plait_client *get() const { return detail::check_open(raw_, "client"); }
    std::shared_ptr<Turns> turns_;
    plait_client *raw_ = nullptr;
};

} // namespace plait

#endif
