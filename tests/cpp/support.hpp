/* What the tests of plait.hpp share. */
#ifndef TESTS_CPP_SUPPORT_HPP
#define TESTS_CPP_SUPPORT_HPP

#include <plait/plait.hpp>

extern "C" {
#include "harness/test.h"
}

using namespace std::chrono_literals;

static constexpr plait::Timeout patience = 30s; /* generous: the tests also run under sanitizers */

/* The Error that F throws, which must be of class E. */
template <class E, class F> static E thrown_by(F &&f)
{
    try {
        f();
    } catch (const E &error) {
        return error;
    } catch (const std::exception &error) {
        test_fail(__FILE__, __LINE__, "threw something else: %s", error.what());
    }
    test_fail(__FILE__, __LINE__, "threw nothing");
}

/* Answers with the body, its encoding kept. */
inline void echo(plait::Request &request)
{
    request.reply({ request.body(), request.encoding() });
}

/* What the process keeps for good (a status page, an inotify) comes up with the first server and client. */
inline void settle()
{
    {
        plait::Server server("settle");
        server.handle("", echo);
        server.start();
        plait::Client("settle").call("");
    }
    test_settle();
}

#endif
