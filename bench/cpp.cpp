/* bench-cpp [ROUNDS]: what plait.hpp costs. Rounds of 50 calls of 64 bytes by the C interface and by C++ take turns
 * against one server; all spin. Prints the quiet rounds' time of a call (the tenth percentile) and their ratio. To
 * reach: C++ <= 1.03 x C. */
#include <plait/plait.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono;

static constexpr int calls = 50;
static constexpr int spin_us = 200;
static const std::string payload(64, 'x');

static double each_us(steady_clock::time_point begun)
{
    return duration<double, std::micro>(steady_clock::now() - begun).count() / calls;
}

/* ---- the server: a process of its own ---- */

static void echo(plait_request *request, void *)
{
    plait_bytes body = plait_request_body(request);
    plait_request_reply(request, body.data, body.size);
}

static int serve(const char *name)
{
    plait_server_options options{};
    plait_server *server = nullptr;
    options.size = sizeof(options);
    options.spin_us = spin_us;
    int r = plait_server_open(&server, name, &options);
    if (r == 0) r = plait_server_handle(server, "echo", echo, nullptr);
    if (r == 0) r = plait_server_run(server);
    plait_server_close(server);
    return r < 0;
}

static pid_t start(const char *name)
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    _exit(serve(name));
}

/* ---- clients ---- */

static plait_client *open_in_c(const char *name)
{
    plait_client_options options{};
    plait_client *client = nullptr;
    options.size = sizeof(options);
    options.spin_us = spin_us;
    if (plait_client_open(&client, name, &options) == 0) return client;
    std::fprintf(stderr, "bench-cpp: %s\n", plait_error_text());
    _exit(1);
}

static double round_in_c(plait_client *client)
{
    plait_call_options options{};
    options.size = sizeof(options);
    options.encoding = PLAIT_UTF8; /* as C++ does it with text */
    auto begun = steady_clock::now();
    for (int i = 0; i < calls; i++) {
        plait_reply *reply = nullptr;
        if (plait_client_call(client, "echo", payload.data(), payload.size(), &options, &reply) < 0) _exit(1);
        if (plait_reply_body(reply).size != payload.size()) _exit(1);
        plait_reply_free(reply);
    }
    return each_us(begun);
}

static double round_in_cpp(plait::Client &client)
{
    auto begun = steady_clock::now();
    for (int i = 0; i < calls; i++) {
        plait::Reply reply = client.call("echo", payload);
        if (reply.bytes().size() != payload.size()) _exit(1);
    }
    return each_us(begun);
}

/* Of sorted VALUES: a tenth are below it. Other programs make calls slower, never faster. */
static double quiet(std::vector<double> values)
{
    std::sort(values.begin(), values.end());
    return values[values.size() / 10];
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? std::atoi(argv[1]) : 20000;
    char directory[] = "/tmp/plait-bench-XXXXXX";
    if (rounds < 1 || mkdtemp(directory) == nullptr || setenv("PLAIT_DIR", directory, 1) < 0) return 2;
    pid_t server = start("bench");
    std::vector<double> c, cpp;
    {
        plait::ClientOptions options;
        options.spin = microseconds(spin_us);
        /* C, C++, C++, C: whoever connected earlier gains nothing by it. */
        plait_client *first = open_in_c("bench");
        plait::Client second("bench", options), third("bench", options);
        plait_client *fourth = open_in_c("bench");
        for (int i = 0; i < rounds; i++) {
            c.push_back(round_in_c(i % 2 ? first : fourth));
            cpp.push_back(round_in_cpp(i % 2 ? second : third));
        }
        plait_client_close(first);
        plait_client_close(fourth);
    }
    kill(server, SIGTERM);
    waitpid(server, nullptr, 0);
    rmdir(directory);
    double ratio = quiet(cpp) / quiet(c);
    std::printf("call of 64 bytes: C %.3f us, C++ %.3f us, ratio %.3f (to reach: <= 1.03)\n", quiet(c), quiet(cpp),
                ratio);
    return ratio <= 1.03 ? 0 : 1;
}
