/* plait::Loan: RAII over loans, and what the compiler refuses. */
#include "cpp/support.hpp"

#include <cstring>
#include <numeric>
#include <unistd.h>

enum { MIB = 1 << 20 };

static_assert(!std::is_copy_constructible_v<plait::Loan> && !std::is_copy_assignable_v<plait::Loan> &&
              std::is_nothrow_move_constructible_v<plait::Loan> && std::is_nothrow_move_assignable_v<plait::Loan>);

template <class L, class = void> struct CanCall : std::false_type {
};
template <class L>
struct CanCall<L, std::void_t<decltype(std::declval<plait::Client &>().call("", std::declval<L>()))>> : std::true_type {
};
template <class L, class = void> struct CanReply : std::false_type {
};
template <class L>
struct CanReply<L, std::void_t<decltype(std::declval<plait::Request &>().reply(std::declval<L>()))>> : std::true_type {
};
static_assert(CanCall<plait::Loan>::value && !CanCall<plait::Loan &>::value, "a loan is sent by moving it");
static_assert(CanReply<plait::Loan>::value && !CanReply<plait::Loan &>::value);

static void fill(void *memory, std::size_t size)
{
    std::memset(memory, static_cast<int>(size % 251), size);
}

static bool whole(plait::Bytes bytes, std::size_t size)
{
    for (std::byte b : bytes)
        if (b != static_cast<std::byte>(size % 251)) return false;
    return bytes.size() == size;
}

TEST(loans_go_both_ways_and_keep_their_encoding)
{
    settle();
    plait::Server server("loans");
    server.handle("mirror", [](plait::Request &q) {
        plait::Loan answer = q.loan(q.body().size());
        std::memcpy(answer.data(), q.body().data(), q.body().size());
        answer.use(q.body().size(), q.encoding());
        q.reply(std::move(answer));
        if (answer) q.fail(1, "it is still there");
    });
    server.start();
    for (const char *target : { "loans", "loans?shm=off" }) {
        plait::Client client(target);
        for (std::size_t size : { 1, 8192, 8193, 3 * MIB }) {
            plait::Loan loan = client.loan(size + 9, patience);
            CHECK(reinterpret_cast<std::uintptr_t>(loan.data()) % 64 == 0);
            CHECK_INT(loan.size(), size + 9);
            CHECK(loan.as<std::uint8_t>() == loan.data());
            fill(loan.data(), size);
            loan.use(size, plait::Encoding::array);
            plait::Reply reply = client.call("mirror", std::move(loan), patience);
            CHECK(!loan && loan.size() == 0 && loan.data() == nullptr);
            CHECK(whole(reply.bytes(), size));
            CHECK(reply.encoding() == plait::Encoding::array);
            plait::Loan again = client.loan(size);
            fill(again.data(), size);
            client.send("mirror", std::move(again));
            again = client.loan(size);
            fill(again.data(), size);
            bool told = false;
            client.call_async("mirror", std::move(again), [&](plait::Result result) {
                told = true;
                plait::Reply got = result.get();
                CHECK(whole(got.bytes(), size));
            });
            while (!told) client.dispatch(patience);
            again = client.loan(size);
            fill(again.data(), size);
            reply = client.call_future("mirror", std::move(again), patience).get();
            CHECK(!again && whole(reply.bytes(), size));
        }
    }
}

TEST(deferred_requests_are_answered_with_loans)
{
    settle();
    plait::Server server("loans");
    std::optional<plait::DeferredRequest> kept;
    server.handle("keep", [&](plait::Request &q) { kept = q.defer(); });
    server.handle("free", [&](plait::Request &q) {
        plait::Loan loan = kept->loan(MIB);
        fill(loan.data(), MIB);
        kept->reply(std::move(loan));
        q.reply(thrown_by<plait::Error>([&] { (void)kept->loan(1); }).code() == -EALREADY ? "over" : "not over");
    });
    server.start();
    plait::Client client("loans");
    auto future = client.call_future("keep");
    CHECK(client.call("free").text() == "over");
    plait::Reply reply = future.get();
    CHECK(whole(reply.bytes(), MIB));
}

TEST(what_is_not_sent_is_given_back_whatever_happens)
{
    settle();
    plait::Server server("loans");
    server.handle("echo", echo);
    server.start();
    auto client = std::make_unique<plait::Client>("loans");
    for (int i = 0; i < 3 * PLAIT_SEGMENTS_MAX; i++) { /* were one lost each time, they would run out */
        plait::Loan loan = client->loan(20000);
        if (i % 3 == 0) {
            CHECK_INT(thrown_by<plait::Error>([&] { client->call("nowhere", std::move(loan)); }).code(), -EOPNOTSUPP);
            CHECK(!loan);
        } else if (i % 3 == 1) {
            loan = client->loan(20000);
        }
        if (loan) CHECK_INT(thrown_by<plait::Error>([&] { loan.use(20001); }).code(), -EINVAL);
    }
    std::vector<plait::Loan> all;
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) all.push_back(client->loan(20000, patience));
    plait::Error full = thrown_by<plait::Error>([&] { (void)client->loan(20000, 0s); });
    CHECK_INT(full.code(), -ENOBUFS);
    CHECK_CONTAINS(full.what(), "this process holds 64");
    CHECK_INT(thrown_by<plait::Error>([&] { (void)client->loan(std::size_t(PLAIT_MESSAGE_MAX) + 1); }).code(),
              -EMSGSIZE);
    client.reset();
    fill(all[5].data(), 20000); /* a loan outlives its client */
    plait::Client other("loans");
    plait::Reply reply = other.call("echo", std::move(all[5]));
    CHECK(whole(reply.bytes(), 20000));
    plait::Error over = thrown_by<plait::Error>([&] { other.call("echo", std::move(all[5])); });
    CHECK_INT(over.code(), -EINVAL);
    CHECK_CONTAINS(over.what(), "sent or moved from");
}
