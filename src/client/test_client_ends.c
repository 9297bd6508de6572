#include "client/test_support.h"

/* ---- what goes elsewhere ---- */

static void go_away_first(struct stage *stage)
{
    struct actor first, second;
    accept_client(stage, &first);
    (void)hear_call(&first);
    go_away(&first, 0);
    accept_client(stage, &second);
    struct pl_frame frame = hear_call(&second);
    *(_Atomic uint32_t *)stage->context = frame.time_left;
    reply(&second, frame.call, "there");
    echo_until_the_end(&second);
    leave(&second);
    leave(&first);
}

TEST(a_call_that_was_not_taken_goes_elsewhere_with_the_time_that_it_has_left)
{
    for (int asynchronous = 0; asynchronous < 2; asynchronous++) {
        struct stage stage;
        struct told told = { 0 };
        _Atomic uint32_t time_left = 0;
        open_stage(&stage, "", true, go_away_first, &time_left);
        plait_client *client = open_client(&stage);
        if (asynchronous) {
            begin(client, "there", 20000, &told);
            dispatch_until(client, &told, 1);
            CHECK_INT(told.result, 0);
        } else {
            CHECK_INT(call_text(client, "there", 20000), 0);
        }
        CHECK(time_left > 500000 && time_left <= 2000000); /* 10 µs each */
        plait_client_close(client);
        close_stage(&stage);
    }
}

static void take_and_die(struct stage *stage)
{
    struct actor actor;
    accept_client(stage, &actor);
    struct pl_frame frame = hear_call(&actor);
    pl_transport_shm_taken(actor.transport, 1);
    (void)frame;
    leave(&actor);
    if (stage->context == NULL) return;
    accept_client(stage, &actor);
    echo_until_the_end(&actor);
    leave(&actor);
}

TEST(a_call_that_may_have_run_is_not_sent_again)
{
    for (int shm = 0; shm < 2; shm++) {
        struct stage stage;
        open_stage(&stage, "", shm, take_and_die, NULL);
        plait_client *client = open_client(&stage);
        CHECK_INT(call_text(client, "once", 20000), -ECONNRESET);
        CHECK_CONTAINS(plait_error_text(), "may have run");
        plait_client_close(client);
        close_stage(&stage);
    }
}

TEST(an_idempotent_call_is_sent_again)
{
    struct stage stage;
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_reply *answer = NULL;
    options.flags = PLAIT_CALL_IDEMPOTENT;
    open_stage(&stage, "", true, take_and_die, &options);
    plait_client *client = open_client(&stage);
    CHECK_INT(plait_client_call(client, "echo", "twice", 5, &options, &answer), 0);
    CHECK_MEM(plait_reply_body(answer).data, "twice", 5);
    plait_reply_free(answer);
    plait_client_close(client);
    close_stage(&stage);
}

static void die_at_once(struct stage *stage)
{
    struct actor actor;
    accept_client(stage, &actor);
    (void)hear_call(&actor);
    leave(&actor);
    CHECK_INT(shutdown(stage->listener, SHUT_RDWR), 0);
}

TEST(a_call_for_which_nobody_is_there_waits_can_be_cancelled_and_costs_no_cpu)
{
    struct stage stage;
    struct told told = { 0 };
    open_stage(&stage, "", true, die_at_once, NULL);
    plait_client *client = open_client(&stage);
    uint64_t ids[50];
    for (int i = 0; i < 50; i++) ids[i] = begin(client, "x", 20000, &told);
    CHECK_INT(pthread_join(stage.thread, NULL), 0);
    close(stage.listener);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (pl_list_empty(&client->resend)) {
        CHECK_INT(plait_client_dispatch(client, 10), 0);
        CHECK(pl_clock_ns() < deadline);
    }
    while (pl_clock_ns() < client->resend_at) continue; /* until the next try is due */
    uint64_t before = pl_clock_ns();
    CHECK_INT(plait_client_dispatch(client, PLAIT_NOW), 0);
    CHECK(pl_clock_ns() - before < 300 * UINT64_C(1000000)); /* not fifty tries */
    double cpu = cpu_seconds();
    CHECK_INT(plait_client_dispatch(client, 300), 0);
    CHECK(cpu_seconds() - cpu < 0.2);
    CHECK_INT(plait_client_cancel(client, ids[7]), 0);
    CHECK_INT(plait_client_cancel(client, ids[7]), -ENOENT);
    dispatch_until(client, &told, 1);
    CHECK_INT(told.result, -ECANCELED);
    plait_client_close(client);
    CHECK_INT(told.count, 50);
}

/* ---- framings without ids ---- */

static void answer_lines_late(struct stage *stage)
{
    char bytes[100];
    int fd = accept_socket(stage);
    while (wait_for(fd, POLLIN) && recv(fd, bytes, sizeof(bytes), 0) > 0) continue;
    close(fd);
}

TEST(a_timeout_without_ids_is_told_as_one_and_others_on_it_may_have_run)
{
    struct stage stage;
    struct told late = { 0 }, other = { 0 };
    open_stage(&stage, "?framing=lines", false, answer_lines_late, NULL);
    plait_client *client = open_client(&stage);
    begin(client, "one", 50, &late);
    begin(client, "two", 20000, &other);
    dispatch_until(client, &late, 1);
    dispatch_until(client, &other, 1);
    CHECK_INT(late.result, -ETIMEDOUT);
    CHECK_INT(other.result, -ECONNRESET);
    plait_client_close(client);
    close_stage(&stage);
}

static void answer_early(struct stage *stage)
{
    uint8_t **got = stage->context;
    size_t size = 4 + (3 << 20), done = 0;
    int fd = accept_socket(stage);
    CHECK(wait_for(fd, POLLIN));
    CHECK_INT(send(fd, "\0\0\0\2ok", 6, 0), 6);
    CHECK_INT(sem_wait((sem_t *)got[1]), 0); /* the caller has its answer, and its memory back */
    while (done < size && wait_for(fd, POLLIN)) {
        ssize_t n = recv(fd, got[0] + done, size - done, 0);
        if (n <= 0) break;
        done += (size_t)n;
    }
    CHECK_INT(done, size);
    char byte;
    while (wait_for(fd, POLLIN) && recv(fd, &byte, 1, 0) > 0) continue;
    close(fd);
}

/* The rest of the request goes out of a copy. */
TEST(an_answer_that_comes_early_gives_the_request_s_memory_back)
{
    enum { SIZE = 3 << 20 };
    struct stage stage;
    sem_t returned;
    uint8_t *body = malloc(SIZE), *copy = malloc(SIZE), *got = malloc(SIZE + 4);
    void *context[2] = { got, &returned };
    plait_reply *answer = NULL;
    for (size_t i = 0; i < SIZE; i++) body[i] = copy[i] = (uint8_t)(i * 7 + (i >> 9));
    CHECK_INT(sem_init(&returned, 0, 0), 0);
    open_stage(&stage, "?framing=length", false, answer_early, context);
    plait_client *client = open_client(&stage);
    CHECK_INT(plait_client_call(client, "", body, SIZE, NULL, &answer), 0);
    CHECK_MEM(plait_reply_body(answer).data, "ok", 2);
    plait_reply_free(answer);
    memset(body, 0, SIZE);
    free(body);
    CHECK_INT(sem_post(&returned), 0);
    struct pl_link *link = pl_container_of(client->links.next, struct pl_link, link);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (link->connection.transport->ops->pending(link->connection.transport)) {
        CHECK_INT(plait_client_dispatch(client, 10), 0);
        CHECK(pl_clock_ns() < deadline);
    }
    plait_client_close(client);
    close_stage(&stage);
    CHECK_MEM(got + 4, copy, SIZE);
    sem_destroy(&returned);
    free(copy);
    free(got);
}

/* ---- closing ---- */

static void echo_one(struct stage *stage)
{
    struct actor actor;
    accept_client(stage, &actor);
    echo_until_the_end(&actor);
    leave(&actor);
}

TEST(a_callback_may_close_its_client_and_every_end_is_told_once)
{
    struct stage stage;
    struct told closing = { 0 }, other = { 0 };
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_client(&stage);
    closing.close = client;
    begin(client, "stuck", 20000, &other);
    begin(client, "x", 20000, &closing);
    for (int i = 0; i < 5; i++) begin(client, "y", 20000, &other);
    while (closing.count == 0) CHECK(plait_client_dispatch(client, 1000) > 0);
    CHECK_INT(closing.count, 1);
    CHECK_INT(closing.result, 0);
    CHECK_INT(other.count, 6);
    close_stage(&stage); /* its client has left */
}

static void close_and_call(int result, plait_reply *answer, void *context)
{
    struct told *told = context;
    uint64_t id;
    told->count++;
    plait_reply_free(answer);
    CHECK_INT(result, -ECANCELED);
    CHECK_INT(plait_client_call_async(told->close, "", "again", 5, NULL, close_and_call, told, &id), -ECANCELED);
    CHECK_INT(plait_client_dispatch(told->close, PLAIT_NOW), 0);
    plait_client_close(told->close); /* at work already */
}

TEST(callbacks_of_a_close_may_try_what_they_like)
{
    struct stage stage;
    struct told told = { 0 };
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_client(&stage);
    told.close = client;
    for (int i = 0; i < 3; i++)
        CHECK_INT(plait_client_call_async(client, "", "stuck", 5, NULL, close_and_call, &told, NULL), 0);
    plait_client_close(client);
    CHECK_INT(told.count, 3);
    plait_client_close(NULL);
    close_stage(&stage);
}

/* ---- handlers that call ---- */

TEST(only_who_would_wait_for_itself_is_refused)
{
    struct stage stage;
    struct told told = { 0 };
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_client(&stage);
    pl_context.instance = 4711;
    pl_context.reactor = 1;
    pl_context.alone = true;
    CHECK_INT(call_text(client, "x", 0), -EDEADLK);
    CHECK_CONTAINS(plait_error_text(), "call asynchronously");
    CHECK_INT(plait_client_send(client, "echo", "x", 1, NULL), 0);
    begin(client, "x", 20000, &told);
    pl_context.alone = false;
    CHECK_INT(call_text(client, "x", 0), 0);
    dispatch_until(client, &told, 1);
    CHECK_INT(told.result, 0);
    plait_client_close(client);
    close_stage(&stage);
}

/* A server of two threads: the first connection is thread 1's, the second the context's. */
static void serve_by_two(struct stage *stage)
{
    struct actor one, two;
    stage->concurrency = 2;
    stage->reactor = 1;
    accept_client(stage, &one);
    stage->reactor = *(uint32_t *)stage->context;
    accept_client(stage, &two);
    echo_until_the_end(&two);
    leave(&one);
    leave(&two);
}

/* In a handler on thread 1. */
static void open_two(struct stage *stage, uint32_t *second, plait_client **ret_client)
{
    open_stage(stage, "", true, serve_by_two, second);
    atomic_fetch_add(&pl_context_servers, 1);
    *ret_client = open_client(stage);
    pl_context.instance = 4711;
    pl_context.reactor = 1;
}

static void close_two(struct stage *stage, plait_client *client)
{
    pl_context = (struct pl_context){ 0 };
    atomic_fetch_sub(&pl_context_servers, 1);
    plait_client_close(client);
    close_stage(stage);
}

TEST(a_call_made_in_a_handler_takes_a_connection_of_another_thread)
{
    struct stage stage;
    plait_client *client;
    uint32_t second = 2;
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    open_two(&stage, &second, &client);
    for (int i = 0; i < 3; i++) CHECK_INT(call_text(client, "x", 0), 0);
    options.flags = PLAIT_CALL_ORDERED; /* must stay on the first connection */
    CHECK_INT(plait_client_call(client, "", "x", 1, &options, NULL), -EDEADLK);
    close_two(&stage, client);
}

TEST(a_handler_whose_thread_serves_every_connection_is_told_at_once)
{
    struct stage stage;
    plait_client *client;
    uint32_t second = 1;
    open_two(&stage, &second, &client);
    CHECK_INT(call_text(client, "x", 0), -EDEADLK);
    CHECK_CONTAINS(plait_error_text(), "this very thread");
    CHECK_INT(client->link_count, 2);
    close_two(&stage, client);
}

/* ---- servers that lie ---- */

static void lie(struct stage *stage)
{
    struct actor actor;
    struct pl_message message;
    accept_client(stage, &actor);
    struct pl_frame frame = hear_call(&actor);
    reply(&actor, frame.call + 1, "nobody's");
    reply(&actor, frame.call ^ UINT64_C(1) << 32, "an earlier one's");
    reply(&actor, UINT64_MAX, "beyond all");
    reply(&actor, frame.call, "right");
    reply(&actor, frame.call, "twice");
    frame = hear_call(&actor);
    say(&actor, (struct pl_frame){ .kind = PL_FRAME_CALL, .size = 1 }, "x");
    while (hear(&actor, &message)) pl_message_release(actor.transport, &message);
    leave(&actor);
}

struct ids {
    uint64_t seen[400];
    int count;
};

static void note_ids(struct stage *stage)
{
    struct ids *ids = stage->context;
    struct pl_message message;
    struct actor actor;
    accept_client(stage, &actor);
    while (hear(&actor, &message)) {
        uint64_t call = message.frame.call;
        CHECK(ids->count < 400);
        ids->seen[ids->count++] = call;
        pl_message_release(actor.transport, &message);
        reply(&actor, call, "once");
    }
    leave(&actor);
}

TEST(no_call_id_is_used_twice)
{
    struct stage stage;
    struct ids ids = { .count = 0 };
    struct told told = { 0 };
    open_stage(&stage, "", true, note_ids, &ids);
    plait_client *client = open_client(&stage);
    for (int i = 0; i < 200; i++) CHECK_INT(call_text(client, "once", 20000), 0); /* one place, again and again */
    for (int i = 0; i < 200; i++) (void)begin(client, "once", 20000, &told);      /* many at once */
    dispatch_until(client, &told, 200);
    plait_client_close(client);
    close_stage(&stage);
    CHECK_INT(ids.count, 400);
    for (int i = 0; i < ids.count; i++) {
        CHECK(ids.seen[i] != 0);
        for (int k = 0; k < i; k++) CHECK(ids.seen[i] != ids.seen[k]);
    }
}

TEST(replies_that_nobody_waits_for_are_dropped_and_what_no_server_says_ends_it)
{
    for (int shm = 0; shm < 2; shm++) {
        struct stage stage;
        open_stage(&stage, "", shm, lie, NULL);
        plait_client *client = open_client(&stage);
        CHECK_INT(call_text(client, "right", 20000), 0);
        int r = call_text(client, "x", 300);
        /* In shared memory it is known that the call was not taken: it is tried until its time is over. */
        CHECK(r == -EPROTO || (shm && r == -ETIMEDOUT));
        plait_client_close(client);
        close_stage(&stage);
    }
}

static void answer_with_status(struct stage *stage)
{
    static const uint32_t statuses[] = { 1, 77, PL_STATUS_NO_METHOD, PL_STATUS_TOO_LARGE, 0xffffffff, PL_STATUS_BUSY };
    struct actor actor;
    accept_client(stage, &actor);
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        struct pl_frame frame = hear_call(&actor);
        say(&actor,
            (struct pl_frame){
                .kind = PL_FRAME_REPLY, .call = frame.call, .method = statuses[i], .size = i % 2 ? 0 : 4 },
            i % 2 ? NULL : "why\n");
    }
    echo_until_the_end(&actor);
    leave(&actor);
}

TEST(a_failing_status_is_its_errno_and_always_has_a_text)
{
    static const int expected[] = { -EREMOTEIO, -EREMOTEIO, -EOPNOTSUPP, -EMSGSIZE, -EREMOTEIO, -EBUSY };
    struct stage stage;
    open_stage(&stage, "", true, answer_with_status, NULL);
    plait_client *client = open_client(&stage);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        plait_reply *answer = NULL;
        CHECK_INT(plait_client_call(client, "", "x", 1, NULL, &answer), expected[i]);
        CHECK(plait_error_text()[0] != 0);
        CHECK((answer != NULL) == (expected[i] == -EREMOTEIO));
        if (answer) CHECK_STR(plait_reply_text(answer), i % 2 ? "" : "why\n");
        plait_reply_free(answer);
    }
    plait_client_close(client);
    close_stage(&stage);
}

/* ---- arguments, and children ---- */

TEST(what_makes_no_sense_is_refused_before_anything_is_sent)
{
    struct stage stage;
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_client(&stage), *none = NULL;
    CHECK_INT(plait_client_call(client, "", NULL, 5, NULL, NULL), -EINVAL);
    CHECK_INT(plait_client_call(client, "", "x", (size_t)PLAIT_MESSAGE_MAX + 1, NULL, NULL), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_MESSAGE_MAX");
    CHECK_INT(plait_client_call(client, "none", "x", 1, NULL, NULL), -EOPNOTSUPP);
    CHECK_CONTAINS(plait_error_text(), "echo");
    options.encoding = 99;
    CHECK_INT(plait_client_call(client, "", "x", 1, &options, NULL), -EINVAL);
    options.encoding = 0;
    options.flags = 1u << 31;
    CHECK_INT(plait_client_call(client, "", "x", 1, &options, NULL), -EINVAL);
    CHECK_INT(plait_client_call_async(client, "", "x", 1, NULL, NULL, NULL, NULL), -EINVAL);
    CHECK_INT(plait_client_cancel(client, 0), -ENOENT);
    CHECK_INT(plait_client_cancel(client, UINT64_MAX), -ENOENT);
    CHECK_INT(plait_client_open(&none, NULL, NULL), -EINVAL);
    CHECK(none == NULL);
    plait_client_close(client);
    close_stage(&stage);
}

TEST(a_child_is_told_and_its_parent_goes_on)
{
    struct stage stage;
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_client(&stage);
    CHECK(plait_client_fd(client) >= 0);
    pid_t child = fork();
    if (child == 0) {
        bool right = plait_client_call(client, "", "x", 1, NULL, NULL) == -ECHILD &&
                     plait_client_dispatch(client, 0) == -ECHILD && plait_client_fd(client) == -ECHILD;
        right =
            right && plait_client_cancel(client, 1) == -ECHILD && strcmp(plait_client_transport(client), "none") == 0;
        plait_client_close(client);
        _exit(right ? 0 : 1);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(call_text(client, "x", 0), 0);
    CHECK_STR(plait_client_transport(client), "shm");
    plait_client_close(client);
    close_stage(&stage);
}

/* ---- further connections ---- */

enum { DRAINING = PL_LINKS_MAX + 4 };

/* Each call is taken by another instance, which then takes no more. */
static void drain_one_after_the_other(struct stage *stage)
{
    struct actor actors[DRAINING];
    uint64_t calls[DRAINING];
    for (int i = 0; i < DRAINING; i++) {
        stage->instance++;
        accept_client(stage, &actors[i]);
        calls[i] = hear_call(&actors[i]).call;
        go_away(&actors[i], 1);
    }
    for (int i = 0; i < DRAINING; i++) reply(&actors[i], calls[i], "done");
    for (int i = 0; i < DRAINING; i++) echo_until_the_end(&actors[i]);
    for (int i = 0; i < DRAINING; i++) leave(&actors[i]);
}

static unsigned draining(plait_client *client)
{
    unsigned count = 0;
    pl_list_each(item, &client->links) count += pl_container_of(item, struct pl_link, link)->draining;
    return count;
}

TEST(more_instances_than_a_client_has_links_for_may_drain_at_once)
{
    struct stage stage;
    struct told told = { 0 };
    open_stage(&stage, "", true, drain_one_after_the_other, NULL);
    plait_client *client = open_client(&stage);
    for (unsigned i = 1; i <= DRAINING; i++) {
        begin(client, "done", PATIENCE_MS, &told);
        uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
        while (i < DRAINING && draining(client) < i) {
            CHECK(plait_client_dispatch(client, 10) >= 0);
            CHECK(pl_clock_ns() < deadline);
        }
    }
    dispatch_until(client, &told, DRAINING);
    CHECK_INT(told.result, 0);
    plait_client_close(client);
    close_stage(&stage);
}

/* It says that it could serve more connections, and has none to spare. */
static void be_deaf_to_a_second(struct stage *stage)
{
    struct actor actor;
    stage->concurrency = 4;
    accept_client(stage, &actor);
    echo_until_the_end(&actor);
    leave(&actor);
}

TEST(a_further_connection_that_fails_is_not_tried_with_each_call)
{
    enum { CALLS = 40 };
    struct stage stage;
    struct told told = { 0 };
    open_stage(&stage, "", true, be_deaf_to_a_second, NULL);
    plait_client *client = open_client(&stage);
    for (int i = 0; i < CALLS; i++) begin(client, "much", PATIENCE_MS, &told);
    dispatch_until(client, &told, CALLS);
    int tries = 0, fd;
    struct pl_address peer;
    for (; pl_socket_accept(stage.listener, &fd, &peer) == 0; tries++) close(fd);
    CHECK(tries > 0 && tries < 6); /* each pause is twice the one before: the sixth try comes after 3 s */
    plait_client_close(client);
    close_stage(&stage);
}
