/* plait.hpp's requests: what a handler gets, and what it may take away to answer later. */
#ifndef PLAIT_CPP_REQUEST_HPP
#define PLAIT_CPP_REQUEST_HPP

#include <plait/cpp/loan.hpp>

namespace plait
{

/* Who called. */
struct Peer {
    std::int32_t pid;      /* 0 if unknown (network) */
    std::uint32_t uid;     /* UINT32_MAX if unknown */
    std::string transport; /* "shm", "unix", "tcp", "udp" */
    std::string address;   /* "pid 123 (name)" or "127.0.0.1:40012" */
};

namespace detail
{

/* What Request and DeferredRequest share. Each is used by one thread at a time. */
class AnyRequest
{
  public:
    AnyRequest(const AnyRequest &) = delete;
    AnyRequest &operator=(const AnyRequest &) = delete;

    /* A view, valid until the handler returns; of a deferred request, until it is answered. */
    Bytes body() const
    {
        const plait_bytes body = plait_request_body(get());
        return { body.data, body.size };
    }
    /* The same as a string_view, and a copy. */
    std::string_view view() const { return body().view(); }
    std::string text() const { return std::string(view()); }
    Encoding encoding() const { return static_cast<Encoding>(plait_request_encoding(get())); }
    /* As the caller named it: "" if it named none. Valid as long as the body. */
    std::string_view method() const { return plait_request_method(get()); }
    Peer peer() const
    {
        const plait_peer *peer = plait_request_peer(get());
        return { peer->pid, peer->uid, peer->transport, peer->address };
    }
    /* 0 if the caller gave none; calls that the handler makes inherit it. */
    std::uint64_t trace() const { return plait_request_trace(get()); }
    /* Until the caller's deadline; milliseconds::max() without one. */
    std::chrono::milliseconds time_left() const { return std::chrono::milliseconds(plait_request_time_left(get())); }
    /* Nobody waits for the answer any more. */
    bool cancelled() const { return plait_request_cancelled(get()) != 0; }
    /* Memory for an answer of up to SIZE bytes. It never waits: while all segments are out it is plain memory. */
    Loan loan(std::size_t size)
    {
        plait_loan *raw = nullptr;
        check(plait_request_reply_loan(get(), size, &raw));
        return Loan(raw);
    }

  protected:
    explicit AnyRequest(plait_request *raw) noexcept : raw_(raw) {}
    AnyRequest(AnyRequest &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    ~AnyRequest() = default;

    plait_request *get() const
    {
        if (raw_ == nullptr) fail(-EALREADY, "this request was answered, deferred or moved from");
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
        const std::size_t most = 0x7fffffff;
        return plait_request_fail(raw, status, "%.*s", static_cast<int>(text.size() < most ? text.size() : most),
                                  text.data());
    }

    static constexpr std::uint32_t most_status = 0x7fffffff;
    static void check_status(std::uint32_t status)
    {
        if (status > most_status)
            detail::fail(-EINVAL, "status " + std::to_string(status) + ": a handler's own are 1 to 0x7fffffff");
    }

    plait_request *raw_;
};

} // namespace detail

/* A request that left its handler: to be answered later, once, from any thread. If it is destroyed without an answer,
 * its caller gets a failure. After its answer it is empty. It may outlive its server: a late answer throws PeerDied. */
class [[nodiscard]] DeferredRequest : public detail::AnyRequest
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
    DeferredRequest(const DeferredRequest &) = delete;
    DeferredRequest &operator=(const DeferredRequest &) = delete;
    ~DeferredRequest() { drop(); }

    /* The answer is final whatever it throws, but for -EINVAL and -EALREADY: then nothing was answered. */
    void reply(const Body &body = {})
    {
        check_encoding(body.encoding());
        detail::check(send(give(), body));
    }
    void reply(Loan &&loan)
    {
        Loan own(std::move(loan));
        check_encoding(own.encoding());
        own.check_whole();
        detail::check(send(give(), own));
    }
    void reply(Loan &loan) = delete; /* move it */
    /* STATUS is yours, 1 to 0x7fffffff; the caller gets RemoteError. */
    void fail(std::uint32_t status, std::string_view text)
    {
        check_status(status);
        detail::check(send_failure(give(), status, text));
    }
    /* False: answered or moved from. */
    explicit operator bool() const noexcept { return raw_ != nullptr; }

  private:
    friend class Request;
    explicit DeferredRequest(plait_request *raw) noexcept : AnyRequest(raw) {}
    /* To C, which frees it with the answer. What C would refuse without doing so is checked before. */
    plait_request *give()
    {
        get();
        return std::exchange(raw_, nullptr);
    }
    static void check_encoding(Encoding given)
    {
        const int encoding = static_cast<int>(given);
        if (encoding < PLAIT_BYTES || encoding > PLAIT_ARRAY)
            detail::fail(-EINVAL, "unknown encoding " + std::to_string(encoding));
    }
    void drop() noexcept
    {
        if (raw_) (void)send_failure(std::exchange(raw_, nullptr), 1, "the request was dropped without an answer");
    }
};

/* What a handler gets, valid until it returns. One answer per request; none at all is a failure. */
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

    /* What the handler threw; its caller hears of it unless it has its answer. */
    void fail_quietly(std::uint32_t status, std::string_view text) noexcept
    {
        if (raw_) (void)send_failure(raw_, status > most_status ? 1 : status, text);
    }
};

} // namespace plait

#endif
