/* bench-cpp [--json] [--rounds N] [--turns N]: what plait.hpp costs. To reach: a call in C++ <= 1.03 x one in C.
 *
 * A round is a server and a client in fresh processes, each pinned to a CPU of its own, both spinning. The client calls
 * by the C interface and by C++ in turns of 50 calls of 64 bytes, so close to each other that what else the machine
 * does meets both; who begins, and who connected first, alternates. A round's figures are the medians of its turns, and
 * its ratio is the median of the ratios of neighbours: where the turns fall into two groups (a core that is lent out, a
 * clock that changes), two medians could come from different ones. Shown are the medians of the rounds.
 *
 * The status is 0 if the goal is reached, 1 if not, 2 if it couldn't be measured.
 */
#include <plait/plait.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono;

static constexpr int calls = 50, warm_up = 4000;
static constexpr int spin_us = 1000000; /* for ever, as these calls go */
static constexpr double goal = 1.03;
static const std::string payload(64, 'x');

struct Figures {
    double c, cpp, ratio;
};

[[noreturn]] static void die(const char *what, const char *why)
{
    std::fprintf(stderr, "bench-cpp: %s: %s\n", what, why);
    _exit(2);
}

static double median(std::vector<double> values)
{
    auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/* ---- the server ---- */

static void echo(plait_request *request, void *)
{
    plait_bytes body = plait_request_body(request);
    plait_request_reply(request, body.data, body.size);
}

static void serve()
{
    plait_server_options options{};
    plait_server *server = nullptr;
    options.size = sizeof(options);
    options.spin_us = spin_us;
    int r = plait_server_open(&server, "bench", &options);
    if (r == 0) r = plait_server_handle(server, "echo", echo, nullptr);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) die("the server", plait_error_text());
    plait_server_close(server);
}

/* ---- the client ---- */

static plait_client *open_in_c()
{
    plait_client_options options{};
    plait_client *client = nullptr;
    options.size = sizeof(options);
    options.spin_us = spin_us;
    if (plait_client_open(&client, "bench", &options) < 0) die("the C client", plait_error_text());
    return client;
}

static double each_us(steady_clock::time_point begun, int count)
{
    return duration<double, std::micro>(steady_clock::now() - begun).count() / count;
}

static double turn(plait_client *client, int count)
{
    plait_call_options options{};
    options.size = sizeof(options);
    options.encoding = PLAIT_UTF8; /* as C++ does it with text */
    const auto begun = steady_clock::now();
    for (int i = 0; i < count; i++) {
        plait_reply *reply = nullptr;
        if (plait_client_call(client, "echo", payload.data(), payload.size(), &options, &reply) < 0)
            die("a call in C", plait_error_text());
        if (plait_reply_body(reply).size != payload.size()) die("a call in C", "the reply is not the request");
        plait_reply_free(reply);
    }
    return each_us(begun, count);
}

static double turn(plait::Client &client, int count)
{
    const auto begun = steady_clock::now();
    for (int i = 0; i < count; i++) {
        const plait::Reply reply = client.call("echo", payload);
        if (reply.bytes().size() != payload.size()) die("a call in C++", "the reply is not the request");
    }
    return each_us(begun, count);
}

static Figures measure(int turns)
{
    plait::ClientOptions options;
    options.spin = microseconds(spin_us);
    /* C, C++, C++, C: whoever connected earlier gains nothing by it. */
    plait_client *first = open_in_c();
    plait::Client second("bench", options), third("bench", options);
    plait_client *fourth = open_in_c();
    for (auto *client : { first, fourth }) turn(client, warm_up);
    for (auto *client : { &second, &third }) turn(*client, warm_up);
    std::vector<double> c, cpp, ratio;
    for (int i = 0; i < turns; i++) {
        plait_client *in_c = i / 2 % 2 ? first : fourth;
        plait::Client &in_cpp = i / 2 % 2 ? second : third;
        if (i % 2) c.push_back(turn(in_c, calls));
        cpp.push_back(turn(in_cpp, calls));
        if (i % 2 == 0) c.push_back(turn(in_c, calls));
        ratio.push_back(cpp.back() / c.back());
    }
    plait_client_close(first);
    plait_client_close(fourth);
    return { median(c), median(cpp), median(ratio) };
}

/* ---- rounds ---- */

/* Two CPUs that this process may use. */
static std::array<int, 2> two_cpus()
{
    cpu_set_t set;
    std::array<int, 2> cpus{};
    std::size_t found = 0;
    if (sched_getaffinity(0, sizeof(set), &set) < 0) die("sched_getaffinity", std::strerror(errno));
    for (int cpu = 0; cpu < CPU_SETSIZE && found < cpus.size(); cpu++)
        if (CPU_ISSET(cpu, &set)) cpus[found++] = cpu;
    if (found < cpus.size()) die("one CPU", "two sides that spin need two");
    return cpus;
}

template <class F> static pid_t start(int cpu, F &&child)
{
    std::fflush(nullptr);
    const pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork", std::strerror(errno));
    if (pid > 0) return pid;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(2);
    if (sched_setaffinity(0, sizeof(set), &set) < 0) die("sched_setaffinity", std::strerror(errno));
    try {
        child();
    } catch (const std::exception &error) {
        die("C++", error.what());
    }
    _exit(0);
}

static bool ends_well(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run_round(const std::array<int, 2> &cpus, int turns, Figures &figures)
{
    int out[2];
    if (pipe(out) < 0) die("pipe", std::strerror(errno));
    const pid_t server = start(cpus[1], serve);
    const pid_t client = start(cpus[0], [&] {
        const Figures own = measure(turns);
        if (write(out[1], &own, sizeof(own)) != sizeof(own)) _exit(2);
    });
    close(out[1]);
    const bool read_all = read(out[0], &figures, sizeof(figures)) == sizeof(figures);
    close(out[0]);
    const bool client_fine = ends_well(client);
    kill(server, SIGTERM);
    return ends_well(server) && client_fine && read_all;
}

/* Of each round the figure that OF names. */
struct Spread {
    Spread(const std::vector<Figures> &rounds, double Figures::*of)
    {
        std::vector<double> values;
        for (const Figures &round : rounds) values.push_back(round.*of);
        middle = median(values);
        least = *std::min_element(values.begin(), values.end());
        most = *std::max_element(values.begin(), values.end());
    }
    double middle = 0, least = 0, most = 0;
};

static void print(const std::vector<Figures> &rounds, bool json, double ratio)
{
    const Spread c(rounds, &Figures::c), cpp(rounds, &Figures::cpp), ratios(rounds, &Figures::ratio);
    const bool ok = ratio <= goal;
    if (json)
        std::printf(
            "{\"kind\":\"bench\",\"row\":\"cpp\",\"what\":\"64 B call in C++, both spinning, two CPUs\",\"unit\":"
            "\"us\",\"plait\":{\"median\":%.4f,\"min\":%.4f,\"max\":%.4f},\"raw\":{\"name\":\"C client\","
            "\"median\":%.4f,\"min\":%.4f,\"max\":%.4f},\"ratio\":%.4f,\"goal\":\"<= %.2f x\",\"ok\":%s,"
            "\"note\":\"ratios of neighbouring turns, by rounds: %.3f ... %.3f\"}\n",
            cpp.middle, cpp.least, cpp.most, c.middle, c.least, c.most, ratio, goal, ok ? "true" : "false",
            ratios.least, ratios.most);
    else
        std::printf("64 B call, both spinning, two CPUs: C++ %.3f us (%.3f ... %.3f), C %.3f us (%.3f ... %.3f), ratio "
                    "%.3f (%.3f ... %.3f); to reach <= %.2f: %s\n",
                    cpp.middle, cpp.least, cpp.most, c.middle, c.least, c.most, ratio, ratios.least, ratios.most, goal,
                    ok ? "reached" : "MISSED");
}

static int number(const char *text)
{
    char *end = nullptr;
    const long value = text ? std::strtol(text, &end, 10) : 0;
    if (value < 1 || value > 1000000 || *end != 0) die(text ? text : "an option", "1 to 1000000");
    return static_cast<int>(value);
}

int main(int argc, char **argv)
{
    int rounds = 11, turns = 5000;
    bool json = false;
    for (int i = 1; i < argc; i++) {
        const std::string_view option = argv[i];
        if (option == "--json") json = true;
        else if (option == "--rounds") rounds = number(argv[++i]);
        else if (option == "--turns") turns = number(argv[++i]);
        else die(argv[i], "usage: bench-cpp [--json] [--rounds N] [--turns N]");
    }
    const std::array<int, 2> cpus = two_cpus();
    std::string directory = std::filesystem::temp_directory_path() / "plait-bench-XXXXXX";
    if (mkdtemp(directory.data()) == nullptr) die(directory.c_str(), std::strerror(errno));
    setenv("PLAIT_DIR", directory.c_str(), 1);
    std::vector<Figures> all;
    Figures figures{};
    while (all.size() < static_cast<std::size_t>(rounds) && run_round(cpus, turns, figures)) all.push_back(figures);
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
    if (all.size() < static_cast<std::size_t>(rounds)) return 2;
    const double ratio = Spread(all, &Figures::ratio).middle;
    print(all, json, ratio);
    return ratio <= goal ? 0 : 1;
}
