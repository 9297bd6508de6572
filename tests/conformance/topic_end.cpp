/* topic_end: as topic_end.c says, with plait.hpp. */
#include <plait/plait.hpp>

#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>

static void publish_array(plait::Publisher &publisher, const std::string &line)
{
    const std::uint64_t shape[] = { line.size() / 3, 3 };
    std::size_t whole = 0;
    void *elements = nullptr;
    if (plait_array_measure("|u1", shape, 2, &whole) < 0) throw std::runtime_error(plait_error_text());
    plait::Loan loan = publisher.loan(whole);
    if (plait_array_write(loan.data(), whole, "|u1", shape, 2, &elements) < 0)
        throw std::runtime_error(plait_error_text());
    std::memcpy(elements, line.data(), line.size() / 3 * 3);
    loan.use(whole, plait::Encoding::array);
    publisher.publish(std::move(loan));
}

static void publish_all(char **argv)
{
    plait::PublisherOptions options;
    options.reliable = true;
    options.timeout = std::chrono::minutes(1);
    options.history = static_cast<std::uint32_t>(std::stoul(argv[3]));
    options.wait_subscribers = static_cast<std::uint32_t>(std::stoul(argv[4]));
    if (argv[6] != nullptr) options.listen = argv[6];
    plait::Publisher publisher(argv[2], options);
    for (const std::string &url : publisher.urls()) std::cout << "listening on " << url << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        if (std::strcmp(argv[5], "array") == 0) publish_array(publisher, line);
        else publisher.publish(line);
    }
}

static std::uint32_t adler(plait::Bytes bytes)
{
    std::uint32_t low = 1, high = 0;
    for (std::byte byte : bytes) {
        low = (low + static_cast<std::uint32_t>(byte)) % 65521;
        high = (high + low) % 65521;
    }
    return high << 16 | low;
}

static void show(const plait::Message &message)
{
    static const char *const encodings[] = { "bytes", "utf8", "json", "array" };
    plait::Bytes body = message.bytes();
    plait_array array{};
    const bool is_array = message.encoding() == plait::Encoding::array;
    if (is_array) {
        if (plait_array_read(body.data(), body.size(), &array) < 0) throw std::runtime_error(plait_error_text());
        body = { array.data, array.size };
    }
    std::cout << message.number() << ' ' << message.lost() << ' ' << encodings[static_cast<int>(message.encoding())]
              << ' ' << body.size() << ' ' << adler(body) << ' ' << message.topic();
    if (is_array) std::cout << ' ' << array.dtype;
    for (std::uint32_t i = 0; i < array.dimensions; i++) std::cout << ' ' << array.shape[i];
    std::cout << '\n';
}

static void subscribe(char **argv)
{
    plait::SubscriberOptions options;
    options.history = static_cast<std::uint32_t>(std::stoul(argv[3]));
    plait::Subscriber subscriber(argv[2], options);
    for (int count = std::stoi(argv[4]); count > 0; count--) show(subscriber.next(std::chrono::minutes(1)));
}

int main(int argc, char **argv)
try {
    if (argc >= 6 && std::strcmp(argv[1], "pub") == 0) publish_all(argv);
    else if (argc == 5 && std::strcmp(argv[1], "sub") == 0) subscribe(argv);
    else return 2;
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
