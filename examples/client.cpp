/* A client in C++: `echo-client-cpp TARGET MESSAGE` calls TARGET a hundred times, checks that each answer is MESSAGE,
 * and prints the answer, how it came and the median round trip. */
#include <plait/plait.hpp>
#include <algorithm>
#include <array>
#include <iomanip>
#include <iostream>

using namespace std::chrono;

int main(int argc, char **argv)
try {
    if (argc != 3) {
        std::cerr << "usage: echo-client-cpp TARGET MESSAGE\n";
        return 2;
    }
    const std::string message = argv[2];
    std::array<duration<double, std::micro>, 100> times;
    plait::Client client(argv[1]);
    for (auto &time : times) {
        const auto begun = steady_clock::now();
        const plait::Reply reply = client.call("", message, seconds(5));
        time = steady_clock::now() - begun;
        if (reply.view() != message) {
            std::cerr << "echo-client-cpp: the answer is not what was sent\n";
            return 1;
        }
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    std::cout << message << " (" << client.transport() << ", median of " << times.size()
              << " round trips: " << std::fixed << std::setprecision(1) << times[times.size() / 2].count() << " us)\n";
} catch (const plait::Error &error) {
    std::cerr << "echo-client-cpp: " << error.what() << '\n';
    return 1;
}
