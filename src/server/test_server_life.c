#include "server/test_support.h"

#include <signal.h>
#include <sys/wait.h>

#define PLAIN "unix://%s/plain"

/* ---- starting and stopping ---- */

/* The stop may be told by a look at epoll that a spinning reactor takes. */
TEST(a_stop_is_heard_at_any_moment)
{
    for (int i = 0; i < 150; i++) {
        plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
        options.spin_us = 2000;
        plait_server *server = open_server(&options, PLAIN);
        struct caller caller;
        CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
        CHECK_INT(plait_server_start(server), 0);
        CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
        for (uint64_t call = 1; call <= 3; call++) {
            send_call(&caller, call, "x", 1);
            check_reply(&caller, call, PL_STATUS_OK, "x", 1);
        }
        uint64_t before = pl_clock_ns();
        plait_server_close(server);
        CHECK(pl_clock_ns() - before < 2000 * UINT64_C(1000000)); /* the grace is 5 s, and nothing needs it */
        hang_up(&caller);
    }
}

TEST(a_server_that_never_ran_closes)
{
    plait_server *server = open_server(NULL, PLAIN);
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    plait_server_close(server);
    plait_server_close(NULL);
}

TEST(what_doesn_t_fit_is_refused_with_words)
{
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.threads = 65;
    CHECK_INT(plait_server_open(&server, "tested", &options), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "PL_THREADS_MAX");
    CHECK_INT(plait_server_open(&server, NULL, NULL), -EINVAL);
    CHECK_INT(plait_server_open(&server, "No Name", NULL), -EINVAL);
    options = (plait_server_options)PLAIT_SERVER_OPTIONS_INIT;
    options.max_message = (uint64_t)2 << 30;
    CHECK_INT(plait_server_open(&server, "tested", &options), -EINVAL);
    CHECK(server == NULL);
    server = open_server(NULL, "unix://%s/lines?framing=lines&method=none");
    CHECK_INT(pl_server_serve(server), -EINVAL); /* no methods */
    CHECK_CONTAINS(plait_error_text(), "plait_server_handle");
    CHECK_INT(plait_server_handle(server, "some", echo, NULL), 0);
    CHECK_INT(plait_server_handle(server, "some", echo, NULL), -EEXIST);
    CHECK_INT(plait_server_handle(server, "other", NULL, NULL), -EINVAL);
    CHECK_INT(plait_server_start(server), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "no method 'none'");
    CHECK_INT(plait_server_handle(server, "none", echo, NULL), 0); /* and then it is right */
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(plait_server_handle(server, "more", echo, NULL), -EBUSY);
    CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0"), -EBUSY);
    CHECK_INT(plait_server_start(server), -EBUSY);
    CHECK_INT(plait_server_fd(server), -EBUSY);
    CHECK(plait_server_url(server, 0) != NULL && plait_server_url(server, 1) == NULL);
    plait_server_close(server);
}

TEST(run_ends_with_sigterm_and_puts_the_signals_back)
{
    plait_server *server = open_server(NULL, NULL);
    struct sigaction after;
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    pid_t sender = fork();
    if (sender == 0) {
        /* Until it is caught it would kill: wait for the handler to be there. */
        char path[64], line[256];
        snprintf(path, sizeof(path), "/proc/%d/status", (int)getppid());
        for (;;) {
            FILE *status = fopen(path, "re");
            unsigned long long caught = 0;
            while (status && fgets(line, sizeof(line), status)) sscanf(line, "SigCgt: %llx", &caught);
            if (status) fclose(status);
            if (caught >> (SIGTERM - 1) & 1) break;
        }
        kill(getppid(), SIGTERM);
        _exit(0);
    }
    CHECK_INT(pl_server_serve(server), 0);
    CHECK_INT(test_wait_child(sender), 0);
    CHECK_INT(sigaction(SIGTERM, NULL, &after), 0);
    CHECK(after.sa_handler == SIG_DFL);
    CHECK_INT(pl_server_serve(server), -EBUSY);
    CHECK_CONTAINS(plait_error_text(), "has run and ended");
    plait_server_close(server);
}

/* ---- draining ---- */

TEST(a_stopping_server_answers_what_it_took_and_says_what_it_didn_t)
{
    static struct kept kept = KEPT_INIT;
    for (int shm = 0; shm < 2; shm++) {
        plait_server *server = open_server(NULL, PLAIN);
        struct caller caller;
        struct pl_message message;
        CHECK_INT(plait_server_handle(server, "", keep, &kept), 0);
        CHECK_INT(plait_server_start(server), 0);
        CHECK_INT(greet_as(&caller, server, 0, shm, "tested"), 0);
        send_call(&caller, 1, "taken", 5);
        plait_request *request = kept_request(&kept);
        CHECK_INT(plait_server_stop(server, 20000), 0);
        CHECK_INT(next_message(&caller, &message), PL_TRANSPORT_OK);
        CHECK_INT(message.frame.kind, PL_FRAME_GOAWAY);
        CHECK_INT(pl_frame_load_u64(message.body), 1);
        pl_message_release(caller.transport, &message);
        send_call(&caller, 2, "not taken", 9);
        CHECK_INT(plait_request_reply(request, "done", 4), 0);
        check_reply(&caller, 1, PL_STATUS_OK, "done", 4);
        CHECK_INT(next_message(&caller, &message), PL_TRANSPORT_END);
        CHECK(kept.first == kept.count);
        plait_server_close(server);
        hang_up(&caller);
    }
}

TEST(the_grace_ends_and_what_is_deferred_still_is_no_reason_to_wait)
{
    static struct kept kept = KEPT_INIT;
    plait_server *server = open_server(NULL, PLAIN);
    struct caller caller;
    CHECK_INT(plait_server_handle(server, "", keep, &kept), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
    send_call(&caller, 1, "taken", 5);
    plait_request *request = kept_request(&kept);
    CHECK_INT(plait_server_stop(server, 50), 0);
    plait_server_close(server);
    CHECK_INT(plait_request_cancelled(request), 1);
    CHECK_INT(plait_request_reply(request, "x", 1), -ECONNRESET);
    hang_up(&caller);
}

/* ---- greeting ---- */

TEST(a_connection_for_another_service_is_told_so)
{
    plait_server *server = open_server(NULL, PLAIN);
    struct caller caller = { .transport = NULL };
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&caller, server, 0, true, "other"), -ENOENT);
    CHECK_CONTAINS(plait_error_text(), "this is 'tested'");
    CHECK_INT(greet_as(&caller, server, 0, true, ""), 0);
    hang_up(&caller);
    plait_server_close(server);
}

TEST(of_too_many_silent_connections_the_oldest_goes)
{
    enum { MANY = PL_UNGREETED_MAX + 1 };
    plait_server *server = open_server(NULL, PLAIN);
    int silent[MANY];
    char bytes[300];
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    uint64_t before = pl_clock_ns();
    for (int i = 0; i < MANY; i++) silent[i] = dial(server, 0);
    CHECK(wait_for(silent[0], POLLIN));
    if (pl_clock_ns() - before < 500 * UINT64_C(1000000)) { /* or its second was over */
        CHECK(recv(silent[0], bytes, sizeof(bytes), 0) > 0);
        CHECK_MEM(bytes, "PLAS", 4);
    }
    /* All go after a second, and who greets is served meanwhile. */
    struct caller caller;
    CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
    send_call(&caller, 1, "x", 1);
    check_reply(&caller, 1, PL_STATUS_OK, "x", 1);
    for (int i = 0; i < MANY; i++) {
        while (wait_for(silent[i], POLLIN) && recv(silent[i], bytes, sizeof(bytes), 0) > 0) continue;
        close(silent[i]);
    }
    hang_up(&caller);
    plait_server_close(server);
}

/* More than the socket takes at once. */
TEST(a_long_method_table_arrives_whole)
{
    char name[PLAIT_NAME_MAX + 1];
    plait_server *server = open_server(NULL, "tcp://127.0.0.1:0");
    for (int i = 0; i < PLAIT_METHODS_MAX; i++) {
        snprintf(name, sizeof(name), "m%0*d", PLAIT_NAME_MAX - 1, i);
        CHECK_INT(plait_server_handle(server, name, echo, NULL), 0);
    }
    CHECK_INT(plait_server_handle(server, "more", echo, NULL), -ENOSPC);
    int little = 4096, listener = server->listeners[server->listener_count - 1]->source.fd;
    CHECK_INT(setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0); /* those accepted inherit it */
    CHECK_INT(plait_server_start(server), 0);
    for (int i = 0; i < 5; i++) {
        struct caller caller;
        CHECK_INT(greet_as(&caller, server, 0, false, "tested"), 0);
        CHECK_INT(caller.accepted.method_count, PLAIT_METHODS_MAX);
        CHECK_STR(caller.accepted.methods[PLAIT_METHODS_MAX - 1], name);
        hang_up(&caller);
    }
    plait_server_close(server);
}

/* ---- sessions from inside ---- */

/* As when its reactor is over before it looks into its inbox. */
TEST(a_session_that_never_began_closes_what_is_its_own_and_no_more)
{
    plait_server *server = open_server(NULL, NULL);
    struct pl_transport *transport;
    int fds[2];
    char byte;
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    CHECK_INT(pl_transport_stream_new(&transport, fds[0], "unix"), 0);
    struct pl_session *session =
        pl_session_new(pl_reactor_emptiest(server, 0), transport, server->listeners[0], 0, 0, "nobody");
    CHECK(session != NULL);
    int standard_input = fcntl(0, F_GETFD);
    pl_session_end(session);
    pl_session_unref(session);
    CHECK_INT(fcntl(0, F_GETFD), standard_input);
    CHECK_INT(recv(fds[1], &byte, 1, 0), 0);
    close(fds[1]);
    plait_server_close(server);
}

static struct pl_session *to_knock;
static const struct pl_transport_ops *real_ops;

static int knock_and_flush(struct pl_transport *transport)
{
    pl_reactor_knock(to_knock->reactor, to_knock);
    return real_ops->flush(transport);
}

/* As another thread does that answers just then. */
TEST(a_session_may_knock_while_its_reactor_empties_the_inbox)
{
    plait_server *server = open_server(NULL, NULL);
    struct pl_session *sessions[3];
    struct pl_transport *transport;
    int fds[3][2];
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    CHECK(plait_server_fd(server) >= 0);
    struct pl_reactor *reactor = &server->reactors[0];
    for (int i = 0; i < 3; i++) {
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds[i]), 0);
        CHECK_INT(pl_transport_stream_new(&transport, fds[i][0], "unix"), 0);
        sessions[i] = pl_session_new(pl_reactor_emptiest(server, 0), transport, server->listeners[0], 0, 0, "somebody");
        pl_reactor_knock(reactor, sessions[i]);
    }
    while (!sessions[2]->listed) CHECK_INT(pl_reactor_round(reactor, 0), 0);
    to_knock = sessions[1];
    transport = sessions[0]->connection.transport;
    real_ops = transport->ops;
    struct pl_transport_ops ops = *real_ops;
    ops.flush = knock_and_flush;
    transport->ops = &ops;
    for (int i = 0; i < 3; i++) pl_reactor_knock(reactor, sessions[i]);
    for (int i = 0; i < 10; i++) CHECK_INT(pl_reactor_round(reactor, 0), 0);
    transport->ops = real_ops;
    for (int i = 0; i < 3; i++) {
        CHECK_INT(sessions[i]->references, 2); /* ours and the reactor's */
        CHECK(!sessions[i]->knocking);
        pl_session_unref(sessions[i]);
        close(fds[i][1]);
    }
    plait_server_close(server);
}

/* ---- foreign loops ---- */

TEST(a_foreign_loop_serves_by_fd_and_dispatch)
{
    plait_server *server = open_server(NULL, "unix://%s/lines?framing=lines");
    char line[6];
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    int epoll = plait_server_fd(server);
    CHECK(epoll >= 0);
    int fd = dial(server, 0), handled = 0;
    write_all(fd, "one\ntwo\n", 8);
    while (handled < 2) {
        CHECK(wait_for(epoll, POLLIN));
        int r = plait_server_dispatch(server, PLAIT_NOW);
        CHECK(r >= 0);
        handled += r;
    }
    CHECK(read_all(fd, line, 4));
    CHECK_MEM(line, "one\n", 4);
    CHECK(read_all(fd, line, 4));
    CHECK_INT(plait_server_dispatch(server, 10), 0);
    CHECK_INT(plait_server_stop(server, 0), 0);
    int r = 0;
    while (r >= 0) {
        CHECK(wait_for(epoll, POLLIN));
        r = plait_server_dispatch(server, PLAIT_NOW);
    }
    CHECK_INT(r, -ESHUTDOWN);
    CHECK(!read_all(fd, line, 1));
    close(fd);
    plait_server_close(server);
}

TEST(after_fork_the_child_s_copy_says_so_and_the_parent_serves_on)
{
    plait_server *server = open_server(NULL, PLAIN);
    struct caller caller;
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
    pid_t child = fork();
    if (child == 0) {
        int r = plait_server_stop(server, 0);
        plait_server_close(server);
        _exit(r == -ECHILD ? 0 : 1);
    }
    CHECK_INT(test_wait_child(child), 0);
    send_call(&caller, 1, "x", 1);
    check_reply(&caller, 1, PL_STATUS_OK, "x", 1);
    hang_up(&caller);
    plait_server_close(server);
}

/* ---- several threads -------------------------------------------------------------------- */

static _Atomic int hanging, go_on;
static void hang(plait_request *request, void *context)
{
    (void)context;
    atomic_fetch_add(&hanging, 1);
    while (!atomic_load(&go_on)) poll(NULL, 0, 1);
    plait_request_reply(request, "hung", 4);
}

TEST(a_handler_that_takes_long_delays_no_new_connection_where_there_are_threads)
{
    enum { THREADS = 3 };
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.threads = THREADS;
    plait_server *server = open_server(&options, PLAIN);
    struct caller callers[THREADS];
    CHECK_INT(plait_server_handle(server, "", hang, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    /* Each finds an empty thread, whatever the others' do; and with all of them busy the next is still greeted. */
    for (int i = 0; i < THREADS; i++) {
        CHECK_INT(greet_as(&callers[i], server, 0, true, "tested"), 0);
        send_call(&callers[i], 1, "x", 1);
        while (atomic_load(&hanging) <= i) poll(NULL, 0, 1);
    }
    struct caller more;
    CHECK_INT(greet_as(&more, server, 0, true, "tested"), 0);
    hang_up(&more);
    atomic_store(&go_on, 1);
    for (int i = 0; i < THREADS; i++) {
        check_reply(&callers[i], 1, PL_STATUS_OK, "hung", 4);
        hang_up(&callers[i]);
    }
    plait_server_close(server);
}

static void *stop_soon(void *server)
{
    while (!atomic_load(&hanging)) poll(NULL, 0, 1);
    CHECK_INT(plait_server_stop(server, 50), 0);
    return NULL;
}

static void *call_and_stay(void *server)
{
    static struct caller caller;
    CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
    send_call(&caller, 1, "x", 1);
    return NULL;
}

TEST(a_stop_gives_up_on_a_handler_that_never_returns_and_names_it)
{
    if (test_sanitized()) SKIP("a thread is left behind, and sanitizers say so");
    pid_t pid = fork();
    if (pid == 0) { /* its thread goes on to the end of the process */
        plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
        options.threads = 2;
        plait_server *server = open_server(&options, PLAIN);
        pthread_t stopper, calls;
        CHECK_INT(plait_server_handle(server, "other", echo, NULL), 0);
        CHECK_INT(plait_server_handle(server, "", hang, NULL), 0);
        CHECK_INT(pthread_create(&calls, NULL, call_and_stay, server), 0);
        CHECK_INT(pthread_create(&stopper, NULL, stop_soon, server), 0);
        CHECK_INT(pl_server_serve(server), -ETIMEDOUT);
        CHECK_CONTAINS(plait_error_text(), "method ''");
        CHECK_CONTAINS(plait_error_text(), "thread plait/tested/");
        pthread_join(stopper, NULL);
        plait_server_close(server); /* doesn't wait for it either */
        pthread_join(calls, NULL);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
}
