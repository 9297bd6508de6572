/* The smallest server in C++: `plait call greeter/greet Ada` gets "hello, Ada". */
#include <plait/plait.hpp>
#include <iostream>

int main()
try {
    plait::Server server("greeter");
    server.handle("greet", [](plait::Request &request) { request.reply("hello, " + request.text()); });
    server.listen("tcp://127.0.0.1:8888?framing=raw&method=greet");
    server.run(); // until SIGINT, SIGTERM or server.stop()
} catch (const plait::Error &error) {
    std::cerr << "greeter: " << error.what() << '\n';
    return 1;
}
