/* plait.hpp's topics: publishers, subscribers, and the messages between them. */
#ifndef PLAIT_CPP_TOPIC_HPP
#define PLAIT_CPP_TOPIC_HPP

#include <plait/cpp/loan.hpp>

#include <functional>
#include <optional>
#include <vector>

namespace plait
{

/* Why messages were lost: see plait_lost. */
enum class Lost : int {
    nothing = PLAIT_LOST_NOTHING,
    overrun = PLAIT_LOST_OVERRUN,
    dropped = PLAIT_LOST_DROPPED,
    died = PLAIT_LOST_DIED,
    reconnected = PLAIT_LOST_RECONNECTED
};

/* Whether publishers wait for a subscriber: never, as each offers, or it refuses those that wouldn't. */
enum class Reliable : int { no = PLAIT_RELIABLE_NO, by_default = PLAIT_RELIABLE_DEFAULT, yes = PLAIT_RELIABLE_YES };

/* As plait_publisher_options; zero and "" mean default. */
struct PublisherOptions {
    bool reliable = false;               /* wait for slow subscribers */
    std::uint32_t history = 0;           /* how many of its last messages a late subscriber can surely get */
    std::uint32_t wait_subscribers = 0;  /* publish() waits until there are so many */
    Timeout timeout{};                   /* of those waits: 1 s; a subscriber without progress is left behind then */
    std::string listen{};                /* URLs, separated by spaces, at which others may subscribe, too */
    std::string allow{};                 /* who else may subscribe: "alice,1001,@video,*" */
    std::uint64_t max_message = 0;       /* bytes: 1 GiB locally, to subscribers over the network 16 MiB */
    std::function<bool()> interrupted{}; /* as a client's, asked while publish() and loan() wait */
};

/* A topic's publisher: see <plait/topic.h>. It publishes and lends by one thread at a time. Its destructor sends what
 * subscribers at sockets have yet to get; what was published stays readable to those who were subscribed. */
class Publisher
{
  public:
    explicit Publisher(const detail::CString &topic, const PublisherOptions &options = {})
        : state_(std::make_unique<State>())
    {
        auto raw = detail::defaults<plait_publisher_options>();
        raw.reliable = options.reliable;
        raw.history = options.history;
        raw.wait_subscribers = options.wait_subscribers;
        raw.timeout = options.timeout.count();
        raw.listen = detail::given(options.listen);
        raw.allow = detail::given(options.allow);
        raw.max_message = options.max_message;
        state_->interrupted = options.interrupted;
        raw.interrupted = options.interrupted ? detail::ask : nullptr;
        raw.interrupted_context = &state_->interrupted;
        plait_publisher *opened = nullptr;
        detail::check(plait_publisher_open(&opened, topic.get(), &raw));
        state_->raw.reset(opened);
    }
    /* BODY is copied before it returns. TimeoutError: fewer than wait_subscribers, nothing was published. */
    void publish(const Body &body = {})
    {
        detail::check(
            plait_publisher_publish_as(get(), static_cast<plait_encoding>(body.encoding()), body.data(), body.size()));
    }
    void publish(Loan &&loan)
    {
        Loan own(std::move(loan));
        plait_publisher *publisher = get();
        const auto encoding = static_cast<plait_encoding>(own.encoding());
        detail::check(plait_publisher_publish_loan(publisher, encoding, own.release(), own.size_));
    }
    void publish(Loan &loan) = delete; /* move it */
    /* Memory for a message of up to SIZE bytes that subscribers read in place: publish(std::move(loan)). */
    Loan loan(std::size_t size)
    {
        plait_loan *raw = nullptr;
        detail::check(plait_publisher_loan(get(), size, &raw));
        return Loan(raw);
    }
    /* How many there are now. Any thread. */
    std::size_t subscribers() const { return plait_publisher_subscribers(get()); }
    /* Where it listens, with real ports. */
    std::vector<std::string> urls() const
    {
        std::vector<std::string> all;
        while (const char *url = plait_publisher_url(get(), all.size())) all.emplace_back(url);
        return all;
    }

  private:
    /* At one address wherever the Publisher moves. */
    struct State {
        std::function<bool()> interrupted{}; /* outlives what asks it */
        detail::Owner<plait_publisher, plait_publisher_close> raw{};
    };
    plait_publisher *get() const { return detail::check_open(state_ ? state_->raw.get() : nullptr, "publisher"); }
    std::unique_ptr<State> state_;
};

/* A message that its owner keeps, also when its subscriber is gone; released by any thread. Views of it live as long as
 * it does, so a temporary gives none: text() copies. */
class Message : public detail::Received<plait_message, plait_message_body, plait_message_release>
{
  public:
    Encoding encoding() const { return static_cast<Encoding>(plait_message_encoding(get())); }
    std::string topic() const { return plait_message_topic(get()); }
    /* From 1, of its publisher. */
    std::uint64_t number() const { return plait_message_number(get()); }
    /* 64 random bits, others for each Publisher. */
    std::uint64_t publisher() const { return plait_message_publisher(get()); }
    /* When it was published. */
    std::chrono::system_clock::time_point time() const
    {
        using namespace std::chrono;
        const nanoseconds since(plait_message_time(get()));
        return system_clock::time_point(duration_cast<system_clock::duration>(since));
    }
    /* How many were lost between the one before and this one, exactly; the latest cause; and both in words. */
    std::uint64_t lost() const { return plait_message_lost(get(), nullptr); }
    Lost why() const
    {
        plait_lost why = PLAIT_LOST_NOTHING;
        (void)plait_message_lost(get(), &why);
        return static_cast<Lost>(why);
    }
    std::string lost_text() const { return plait_message_lost_text(get()); }

  private:
    friend class Subscriber;
    explicit Message(plait_message *raw) noexcept : Received(raw) {}
    plait_message *get() const { return detail::check_open(raw_.get(), "message"); }
};

/* As plait_subscriber_options; zero and "" mean default. */
struct SubscriberOptions {
    std::uint32_t history = 0; /* earlier messages to get of each publisher that is there */
    Reliable reliable = Reliable::by_default;
    Timeout connect_timeout{}; /* for URLs: 5 s; an absent name is no error */
    std::chrono::microseconds spin = spin_adaptive;
    std::string peer{};            /* user name or uid whose topics are accepted, too */
    std::uint64_t max_message = 0; /* bytes: 1 GiB locally, 16 MiB over the network */
};

/* A topic's subscriber: TOPIC is a name, "sensors.*" or a URL, tcp://HOST:PORT/TOPIC or unix:///PATH. Used by one
 * thread at a time. */
class Subscriber
{
  public:
    explicit Subscriber(const detail::CString &topic, const SubscriberOptions &options = {})
    {
        auto raw = detail::defaults<plait_subscriber_options>();
        raw.history = options.history;
        raw.reliable = static_cast<std::int32_t>(options.reliable);
        raw.connect_timeout = options.connect_timeout.count();
        raw.spin_us = options.spin.count();
        raw.peer = detail::given(options.peer);
        raw.max_message = options.max_message;
        plait_subscriber *opened = nullptr;
        detail::check(plait_subscriber_open(&opened, topic.get(), &raw));
        raw_.reset(opened);
    }
    /* The next message, waiting at most TIMEOUT: else TimeoutError. -EINTR: a signal's handler ran. */
    Message next(Timeout timeout = forever)
    {
        plait_message *lent = nullptr;
        const int result = plait_subscriber_next(get(), timeout.count(), &lent);
        if (result == -EAGAIN) throw TimeoutError(plait_error_text());
        detail::check(result);
        return hold(lent);
    }
    /* The same without waiting; empty if there is none. */
    [[nodiscard]] std::optional<Message> poll()
    {
        plait_message *lent = nullptr;
        const int result = plait_subscriber_next(get(), PLAIT_NOW, &lent);
        if (result == -EAGAIN) return std::nullopt;
        detail::check(result);
        return hold(lent);
    }
    /* Readable when poll() may have something: then call it until it is empty. The subscriber's own. */
    int fd() { return detail::check(plait_subscriber_fd(get())); }
    /* How many it is subscribed to now. */
    std::size_t publishers() const { return plait_subscriber_publishers(get()); }

  private:
    /* LENT is so until the next call. */
    static Message hold(plait_message *lent)
    {
        plait_message *held = nullptr;
        detail::check(plait_message_hold(lent, &held));
        return Message(held);
    }
    plait_subscriber *get() const { return detail::check_open(raw_.get(), "subscriber"); }
    detail::Owner<plait_subscriber, plait_subscriber_close> raw_{};
};

} // namespace plait

#endif
