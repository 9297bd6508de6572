/* plait for C++17: the C interface with the STL's types; docs/cpp.md explains every class.
 *
 *     plait::Server s("greeter");
 *     s.handle("greet", [](plait::Request &q) { q.reply("hello, " + q.text()); });
 *     s.run();
 *
 *     plait::Client c("greeter");
 *     std::string t = c.call("greet", "Ada", 300ms).text();
 *
 * Header-only; include this one, the parts are where to look.
 *
 * - Errors. What fails throws plait::Error or a class derived from it; no exception crosses the C library: what a
 *   handler throws becomes a failure for its caller, what a callback throws comes out of dispatch(), what a
 * supervisor's hook throws out of run().
 * - Ownership. Servers, pools, clients, publishers, subscribers, messages, loans, deferred requests and replies are
 *   handles: they move and don't copy, moving never throws, and they close themselves. One that was moved from can be
 *   destroyed and assigned to; all else throws -EBADF (requests: -EALREADY, loans: -EINVAL), but that a reply's and a
 *   message's bytes are empty.
 * - Threads. A class says what may be done by several at a time; what doesn't say so is used by one.
 * - fork and limits. As plait.h says.
 */
#ifndef PLAIT_PLAIT_HPP
#define PLAIT_PLAIT_HPP

#include <plait/cpp/error.hpp>   /* Error and its kin */
#include <plait/cpp/value.hpp>   /* Encoding, Transport, Timeout, Bytes, Body */
#include <plait/cpp/loan.hpp>    /* Loan */
#include <plait/cpp/request.hpp> /* Peer, Request, DeferredRequest */
#include <plait/cpp/server.hpp>  /* Server, Pool, WorkerHooks */
#include <plait/cpp/client.hpp>  /* Client, Reply, Result */
#include <plait/cpp/topic.hpp>   /* Publisher, Subscriber, Message */

#endif
