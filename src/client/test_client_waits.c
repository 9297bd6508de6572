#include "client/test_support.h"

static void echo_one(struct stage *stage)
{
    struct actor actor;
    accept_client(stage, &actor);
    echo_until_the_end(&actor);
    leave(&actor);
}

/* ---- threads ---- */

struct caller {
    plait_client *client;
    const char *text;
    int64_t timeout;
    _Atomic int stop;
    int result;
    uint64_t took;
    pthread_t thread;
};

static void *call_once_in_thread(void *argument)
{
    struct caller *caller = argument;
    uint64_t before = pl_clock_ns();
    caller->result = call_text(caller->client, caller->text, caller->timeout);
    caller->took = (pl_clock_ns() - before) / 1000000;
    return NULL;
}

static void *call_on_and_on(void *argument)
{
    struct caller *caller = argument;
    while (!caller->stop) CHECK_INT(call_text(caller->client, caller->text, 0), 0);
    return NULL;
}

/* The leader receives for all: while others' replies come and come it never sleeps. */
TEST(a_leader_that_others_keep_busy_still_keeps_its_deadline)
{
    struct stage stage;
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.spin_us = 10000000; /* so that it finds something before it would sleep */
    plait_client *client = NULL;
    CHECK_INT(plait_client_open(&client, stage.url, &options), 0);
    struct caller busy[2], stuck = { .client = client, .text = "stuck", .timeout = 200 };
    for (int i = 0; i < 2; i++) {
        busy[i] = (struct caller){ .client = client, .text = i ? "one" : "two" };
        CHECK_INT(pthread_create(&busy[i].thread, NULL, call_on_and_on, &busy[i]), 0);
    }
    for (int i = 0; i < 5; i++) {
        (void)call_once_in_thread(&stuck);
        CHECK_INT(stuck.result, -ETIMEDOUT);
        CHECK_CONTAINS(plait_error_text(), "200 ms");
        CHECK(stuck.took >= 199 && stuck.took < 10000);
    }
    for (int i = 0; i < 2; i++) busy[i].stop = 1;
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_join(busy[i].thread, NULL), 0);
    plait_client_close(client);
    close_stage(&stage);
}

TEST(many_threads_share_one_client_and_each_gets_its_own)
{
    enum { THREADS = 6, CALLS = 1500 };
    for (int shm = 0; shm < 2; shm++) {
        struct stage stage;
        open_stage(&stage, "", shm, echo_one, NULL);
        plait_client *client = open_client(&stage);
        struct caller callers[THREADS];
        static char texts[THREADS][8];
        for (int i = 0; i < THREADS; i++) {
            snprintf(texts[i], sizeof(texts[i]), "text%d", i);
            callers[i] = (struct caller){ .client = client, .text = texts[i] };
            CHECK_INT(pthread_create(&callers[i].thread, NULL, call_on_and_on, &callers[i]), 0);
        }
        for (int i = 0; i < CALLS; i++) CHECK_INT(call_text(client, "main", 0), 0);
        for (int i = 0; i < THREADS; i++) callers[i].stop = 1;
        for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(callers[i].thread, NULL), 0);
        plait_client_close(client);
        close_stage(&stage);
    }
}

static void read_lines_only(struct stage *stage)
{
    char bytes[100];
    for (int i = 0; i < 2; i++) {
        int fd = accept_socket(stage);
        while (wait_for(fd, POLLIN) && recv(fd, bytes, sizeof(bytes), 0) > 0) continue;
        close(fd);
        if (stage->context == NULL) return;
    }
}

/* Framings without ids give the connection up with a call; the leader's own may be on it, and nobody rings. */
TEST(who_ends_a_connection_wakes_the_leader_whose_call_was_on_it)
{
    struct stage stage;
    open_stage(&stage, "?framing=lines", false, read_lines_only, NULL);
    plait_client *client = open_client(&stage);
    struct caller leader = { .client = client, .text = "long", .timeout = 25000 };
    CHECK_INT(pthread_create(&leader.thread, NULL, call_once_in_thread, &leader), 0);
    bool asleep = false;
    while (!asleep) {
        pthread_mutex_lock(&client->lock);
        asleep = client->asleep;
        pthread_mutex_unlock(&client->lock);
    }
    CHECK_INT(call_text(client, "short", 100), -ETIMEDOUT);
    CHECK_INT(pthread_join(leader.thread, NULL), 0);
    CHECK_INT(leader.result, -ECONNRESET);
    CHECK(leader.took < 15000);
    plait_client_close(client);
    close_stage(&stage);
}

/* ---- asynchronous calls and who dispatches ---- */

struct dispatcher {
    plait_client *client;
    struct told told;
    pthread_t thread;
};

static void *dispatch_long(void *argument)
{
    struct dispatcher *dispatcher = argument;
    CHECK_INT(plait_client_dispatch(dispatcher->client, 25000), 1);
    return NULL;
}

static void start_dispatcher(struct dispatcher *dispatcher)
{
    CHECK_INT(pthread_create(&dispatcher->thread, NULL, dispatch_long, dispatcher), 0);
    bool asleep = false;
    while (!asleep) {
        pthread_mutex_lock(&dispatcher->client->lock);
        asleep = dispatcher->client->asleep;
        pthread_mutex_unlock(&dispatcher->client->lock);
    }
}

TEST(a_dispatcher_that_sleeps_hears_of_a_cancel_and_of_an_earlier_deadline)
{
    for (int cancel = 0; cancel < 2; cancel++) {
        struct stage stage;
        open_stage(&stage, "", true, echo_one, NULL);
        struct dispatcher dispatcher = { .client = open_client(&stage) };
        uint64_t before = pl_clock_ns(), id = 0;
        if (cancel) id = begin(dispatcher.client, "stuck", 0, &dispatcher.told);
        start_dispatcher(&dispatcher);
        if (cancel) CHECK_INT(plait_client_cancel(dispatcher.client, id), 0);
        else begin(dispatcher.client, "stuck", 50, &dispatcher.told);
        CHECK_INT(pthread_join(dispatcher.thread, NULL), 0);
        CHECK_INT(dispatcher.told.result, cancel ? -ECANCELED : -ETIMEDOUT);
        CHECK(pl_clock_ns() - before < 15000 * UINT64_C(1000000));
        if (cancel) CHECK_INT(plait_client_cancel(dispatcher.client, id), -ENOENT);
        plait_client_close(dispatcher.client);
        close_stage(&stage);
    }
}

TEST(dispatching_now_doesn_t_wait)
{
    struct stage stage;
    struct told told = { 0 };
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_client(&stage);
    CHECK_INT(plait_client_dispatch(client, PLAIT_NOW), 0);
    begin(client, "stuck", 20000, &told);
    uint64_t before = pl_clock_ns();
    for (int i = 0; i < 100; i++) CHECK_INT(plait_client_dispatch(client, i % 2 ? PLAIT_NOW : 0), 0);
    CHECK(pl_clock_ns() - before < 5000 * UINT64_C(1000000));
    begin(client, "x", 0, &told);
    dispatch_until(client, &told, 1);
    CHECK_INT(told.result, 0);
    plait_client_close(client); /* ends the other, here */
    CHECK_INT(told.count, 2);
    CHECK_INT(told.result, -ECANCELED);
    close_stage(&stage);
}

/* ---- foreign loops ---- */

static void sync_first(struct stage *stage)
{
    struct actor actor;
    struct pl_message message;
    accept_client(stage, &actor);
    struct pl_frame asynchronous = hear_call(&actor), synchronous = hear_call(&actor);
    reply(&actor, synchronous.call, "sync");
    CHECK_INT(sem_wait(stage->context), 0); /* its caller has it */
    reply(&actor, asynchronous.call, "async");
    while (hear(&actor, &message)) pl_message_release(actor.transport, &message);
    leave(&actor);
}

/* A blocking call takes the announcements back on which the descriptor relies. */
TEST(the_descriptor_tells_of_a_reply_that_comes_after_a_blocking_call)
{
    for (int shm = 0; shm < 2; shm++) {
        struct stage stage;
        struct told told = { 0 };
        sem_t returned;
        CHECK_INT(sem_init(&returned, 0, 0), 0);
        open_stage(&stage, "", shm, sync_first, &returned);
        plait_client *client = open_client(&stage);
        int fd = plait_client_fd(client);
        CHECK(fd >= 0);
        begin(client, "async", 20000, &told);
        CHECK_INT(call_text(client, "sync", 0), 0);
        struct pollfd poller = { .fd = fd, .events = POLLIN };
        while (poll(&poller, 1, 0) == 1) CHECK(plait_client_dispatch(client, PLAIT_NOW) >= 0);
        CHECK_INT(sem_post(&returned), 0);
        CHECK_INT(poll(&poller, 1, 10000), 1); /* well before the deadline's timer */
        dispatch_until(client, &told, 1);
        CHECK_INT(told.result, 0);
        plait_client_close(client);
        close_stage(&stage);
        sem_destroy(&returned);
    }
}

TEST(the_descriptor_tells_of_a_deadline_also_of_calls_made_after_it_was_asked_for)
{
    struct stage stage;
    struct told told = { 0 };
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_client(&stage);
    int fd = plait_client_fd(client);
    begin(client, "stuck", 60, &told);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (told.count == 0) {
        CHECK(wait_for(fd, POLLIN));
        CHECK(plait_client_dispatch(client, PLAIT_NOW) >= 0);
        CHECK(pl_clock_ns() < deadline);
    }
    CHECK_INT(told.result, -ETIMEDOUT);
    struct pollfd poller = { .fd = fd, .events = POLLIN };
    CHECK_INT(poll(&poller, 1, 0), 0); /* and is quiet again */
    plait_client_close(client);
    close_stage(&stage);
}

/* ---- idle is idle ---- */

static void read_all_answer_late(struct stage *stage)
{
    struct actor actor;
    struct pl_message message;
    accept_client(stage, &actor);
    CHECK_INT(sem_wait(stage->context), 0); /* what is too much for the socket waits */
    for (int i = 0; i < 2; i++) (void)hear_call(&actor);
    CHECK_INT(sem_wait(stage->context), 0);
    while (hear(&actor, &message)) pl_message_release(actor.transport, &message);
    leave(&actor);
}

/* Room was wanted, and came while another call was sent: nobody wants to hear of it any more. */
TEST(room_that_came_by_the_way_is_not_told_for_ever)
{
    struct stage stage;
    struct told told = { 0 };
    sem_t steps;
    enum { SIZE = 3 << 20 };
    char *body = calloc(1, SIZE);
    CHECK_INT(sem_init(&steps, 0, 0), 0);
    open_stage(&stage, "", false, read_all_answer_late, &steps);
    plait_client *client = open_client(&stage);
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    options.timeout = 20000;
    CHECK_INT(plait_client_call_async(client, "", body, SIZE, &options, tell, &told, NULL), 0);
    CHECK_INT(sem_post(&steps), 0);
    /* Each attempt pushes what it can; when all is out the second call's frame follows by itself. */
    begin(client, "small", 20000, &told);
    struct pl_link *link = pl_container_of(client->links.next, struct pl_link, link);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (link->connection.transport->ops->pending(link->connection.transport)) {
        CHECK(link->connection.transport->ops->flush(link->connection.transport) >= 0);
        CHECK(pl_clock_ns() < deadline);
    }
    double before = cpu_seconds();
    CHECK_INT(plait_client_dispatch(client, 300), 0);
    CHECK(cpu_seconds() - before < 0.05);
    CHECK_INT(sem_post(&steps), 0);
    plait_client_close(client);
    close_stage(&stage);
    sem_destroy(&steps);
    free(body);
}

/* ---- a full connection ---- */

/* Takes two calls at a time. "stuck" is answered once somebody says "go". */
static void take_two_at_a_time(struct stage *stage)
{
    struct actor actor;
    struct pl_message message;
    uint64_t stuck = 0;
    stage->outstanding = 2;
    accept_client(stage, &actor);
    while (hear(&actor, &message)) {
        bool hold = message.size == 5 && memcmp(message.body, "stuck", 5) == 0;
        bool go = message.size == 2 && memcmp(message.body, "go", 2) == 0;
        struct pl_frame frame = { .kind = PL_FRAME_REPLY, .call = message.frame.call, .size = (uint32_t)message.size };
        if (hold) stuck = message.frame.call;
        else if (message.frame.kind == PL_FRAME_CALL) say(&actor, frame, message.body);
        pl_message_release(actor.transport, &message);
        if (go) reply(&actor, stuck, "stuck");
        if (hold) *(_Atomic int *)stage->context = 1;
    }
    leave(&actor);
}

static void *call_stuck(void *client)
{
    CHECK_INT(call_text(client, "stuck", 2 * PATIENCE_MS), 0);
    return NULL;
}

static void *call_often(void *client)
{
    for (int i = 0; i < 3000; i++) CHECK_INT(call_text(client, "often", PATIENCE_MS), 0);
    return NULL;
}

/* The leader waits for its own long call and files what others wait for; each answer makes room for one of those
 * that found none, though it tells them nothing else. */
TEST(an_answer_that_makes_room_wakes_who_waits_for_it)
{
    enum { MANY = 4 };
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.spin_us = 1000000; /* a leader that sleeps hears a doorbell, which wakes everybody */
    for (int shm = 0; shm < 2; shm++) {
        struct stage stage;
        pthread_t first, others[MANY];
        _Atomic int held = 0;
        open_stage(&stage, "", shm, take_two_at_a_time, &held);
        plait_client *client = NULL;
        CHECK_INT(plait_client_open(&client, stage.url, &options), 0);
        CHECK_INT(pthread_create(&first, NULL, call_stuck, client), 0);
        uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
        while (!held) CHECK(pl_clock_ns() < deadline);
        for (int i = 0; i < MANY; i++) CHECK_INT(pthread_create(&others[i], NULL, call_often, client), 0);
        for (int i = 0; i < MANY; i++) CHECK_INT(pthread_join(others[i], NULL), 0);
        CHECK_INT(call_text(client, "go", PATIENCE_MS), 0);
        CHECK_INT(pthread_join(first, NULL), 0);
        plait_client_close(client);
        close_stage(&stage);
    }
}

static void hear_of_the_end(struct stage *stage)
{
    struct actor actor;
    struct pl_message message;
    accept_client(stage, &actor);
    uint64_t call = hear_call(&actor).call;
    CHECK(hear(&actor, &message));
    CHECK_INT(message.frame.kind, PL_FRAME_CANCEL);
    CHECK_INT(message.frame.call, call);
    pl_message_release(actor.transport, &message);
    leave(&actor);
}

TEST(a_server_hears_of_a_call_whose_time_is_over)
{
    for (int asynchronous = 0; asynchronous < 2; asynchronous++) {
        struct stage stage;
        struct told told = { 0 };
        open_stage(&stage, "", true, hear_of_the_end, NULL);
        plait_client *client = open_client(&stage);
        if (asynchronous) {
            begin(client, "short", 20, &told);
            dispatch_until(client, &told, 1);
            CHECK_INT(told.result, -ETIMEDOUT);
        } else {
            CHECK_INT(call_text(client, "short", 20), -ETIMEDOUT);
        }
        close_stage(&stage);
        plait_client_close(client);
    }
}

/* ---- connecting ---- */

TEST(who_waits_for_no_name_still_connects_to_who_is_there)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    plait_client *client = NULL;
    options.connect_timeout = PLAIT_NOW;
    CHECK_INT(plait_client_open(&client, "absent", &options), -ENOENT);
    for (int i = 0; i < 20; i++) {
        struct stage stage;
        char options_of_stage[24];
        snprintf(options_of_stage, sizeof(options_of_stage), "%d", i);
        open_stage(&stage, options_of_stage, true, echo_one, NULL);
        CHECK_INT(plait_client_open(&client, stage.url, &options), 0);
        plait_client_close(client);
        close_stage(&stage);
    }
}

/* ---- the option `interrupted` ---- */

struct asked {
    _Atomic int count;
    _Atomic int stop_at;
    plait_client *uses;
};

static int stop_at(void *context)
{
    struct asked *asked = context;
    int count = ++asked->count;
    if (asked->uses) CHECK_INT(call_text(asked->uses, "from within", 0), 0);
    return count >= asked->stop_at;
}

static plait_client *open_interruptible(const char *target, struct asked *asked, int expected)
{
    plait_client *client = NULL;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = PLAIT_FOREVER;
    options.timeout = PLAIT_FOREVER;
    options.interrupted = stop_at;
    options.interrupted_context = asked;
    CHECK_INT(plait_client_open(&client, target, &options), expected);
    return client;
}

TEST(an_interrupted_call_ends_and_its_client_goes_on)
{
    for (int shm = 0; shm < 2; shm++) {
        struct asked asked = { .stop_at = 1000000 };
        struct stage stage;
        open_stage(&stage, "", shm, echo_one, NULL);
        plait_client *client = open_interruptible(stage.url, &asked, 0);
        for (int i = 0; i < 3; i++) {
            asked.stop_at = asked.count + 2;
            CHECK_INT(call_text(client, "stuck", 0), -EINTR);
            CHECK_CONTAINS(plait_error_text(), "interrupted");
            asked.stop_at = 1000000;
            CHECK_INT(call_text(client, "after", 0), 0);
        }
        plait_client_close(client);
        close_stage(&stage);
    }
}

TEST(what_is_asked_may_use_the_client_that_waits)
{
    struct asked asked = { .stop_at = 1000000 };
    struct stage stage;
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_interruptible(stage.url, &asked, 0);
    asked = (struct asked){ .stop_at = 3, .uses = client };
    CHECK_INT(call_text(client, "stuck", 0), -EINTR);
    CHECK_INT(asked.count, 3);
    asked.uses = NULL;
    plait_client_close(client);
    close_stage(&stage);
}

TEST(a_follower_is_asked_as_the_leader_is)
{
    struct asked asked = { .stop_at = 1000000 };
    struct stage stage;
    open_stage(&stage, "", true, echo_one, NULL);
    plait_client *client = open_interruptible(stage.url, &asked, 0);
    struct caller callers[2];
    for (int i = 0; i < 2; i++) {
        callers[i] = (struct caller){ .client = client, .text = "stuck" };
        CHECK_INT(pthread_create(&callers[i].thread, NULL, call_once_in_thread, &callers[i]), 0);
    }
    asked.stop_at = 4;
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_join(callers[i].thread, NULL), 0);
        CHECK_INT(callers[i].result, -EINTR);
    }
    plait_client_close(client);
    close_stage(&stage);
}

TEST(waiting_for_an_absent_name_can_be_interrupted)
{
    struct asked asked = { .stop_at = 3 };
    CHECK(open_interruptible("absent", &asked, -EINTR) == NULL);
    CHECK_INT(asked.count, 3);
}

static void accept_and_say_nothing(struct stage *stage)
{
    char byte;
    int fd = accept_socket(stage);
    while (read(fd, &byte, 1) != 0) (void)wait_for(fd, POLLIN);
    close(fd);
}

TEST(waiting_for_a_hello_can_be_interrupted)
{
    struct asked asked = { .stop_at = 3 };
    struct stage stage;
    open_stage(&stage, "", true, accept_and_say_nothing, NULL);
    CHECK(open_interruptible(stage.url, &asked, -EINTR) == NULL);
    close_stage(&stage);
}
