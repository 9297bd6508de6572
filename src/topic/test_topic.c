/* Topics in one process and between processes: order, loss, starts in any order, restarts, ends. */
#include "harness/test.h"
#include "naming/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <plait/plait.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static plait_publisher *publisher_of(const char *topic, const plait_publisher_options *options)
{
    plait_publisher *publisher = NULL;
    int r = plait_publisher_open(&publisher, topic, options);
    if (r < 0) test_fail(__FILE__, __LINE__, "publisher: %s", plait_error_text());
    return publisher;
}

static plait_subscriber *subscriber_of(const char *topic, const plait_subscriber_options *options)
{
    plait_subscriber *subscriber = NULL;
    int r = plait_subscriber_open(&subscriber, topic, options);
    if (r < 0) test_fail(__FILE__, __LINE__, "subscriber: %s", plait_error_text());
    return subscriber;
}

static void publish(plait_publisher *publisher, const char *text)
{
    CHECK_INT(plait_publisher_publish(publisher, text, strlen(text)), 0);
}

static plait_message *next(plait_subscriber *subscriber)
{
    plait_message *message = NULL;
    int r = plait_subscriber_next(subscriber, 20000, &message);
    if (r < 0) test_fail(__FILE__, __LINE__, "next: %s", plait_error_text());
    return message;
}

static void expect(plait_subscriber *subscriber, const char *text)
{
    plait_bytes body = plait_message_body(next(subscriber));
    CHECK_INT(body.size, strlen(text));
    CHECK_MEM(body.data, text, body.size);
}

static void expect_nothing(plait_subscriber *subscriber)
{
    plait_message *message = NULL;
    CHECK_INT(plait_subscriber_next(subscriber, PLAIT_NOW, &message), -EAGAIN);
}

/* Until the topic of SUBSCRIBER has COUNT publishers. */
static void await_publishers(plait_subscriber *subscriber, size_t count)
{
    plait_message *message = NULL;
    for (int i = 0; i < 2000 && plait_subscriber_publishers(subscriber) != count; i++)
        CHECK_INT(plait_subscriber_next(subscriber, 10, &message), -ETIMEDOUT);
    CHECK_INT(plait_subscriber_publishers(subscriber), count);
}

static void await_subscribers(const plait_publisher *publisher, size_t count)
{
    for (int i = 0; i < 20000 && plait_publisher_subscribers(publisher) != count; i++) usleep(1000);
    CHECK_INT(plait_publisher_subscribers(publisher), count);
}

TEST(a_subscriber_gets_what_is_published_with_its_encoding_number_topic_and_time)
{
    plait_publisher *publisher = publisher_of("news", NULL);
    plait_subscriber *subscriber = subscriber_of("news", NULL);
    CHECK_INT(plait_publisher_subscribers(publisher), 1);
    publish(publisher, "one");
    CHECK_INT(plait_publisher_publish_as(publisher, PLAIT_JSON, "{}", 2), 0);
    CHECK_INT(plait_publisher_publish(publisher, NULL, 0), 0);
    expect(subscriber, "one");
    plait_message *message = next(subscriber);
    CHECK_INT(plait_message_encoding(message), PLAIT_JSON);
    CHECK_INT(plait_message_number(message), 2);
    CHECK_STR(plait_message_topic(message), "news");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = now.tv_sec * INT64_C(1000000000) + now.tv_nsec - plait_message_time(message);
    CHECK(age > -INT64_C(1000000000) && age < INT64_C(20000000000));
    CHECK_INT(plait_message_lost(message, NULL), 0);
    CHECK_STR(plait_message_lost_text(message), "");
    expect(subscriber, "");
    expect_nothing(subscriber);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(a_subscriber_may_start_first_and_misses_nothing)
{
    plait_subscriber *subscriber = subscriber_of("later", NULL);
    plait_message *message = NULL;
    CHECK_INT(plait_subscriber_next(subscriber, 10, &message), -ETIMEDOUT);
    CHECK_CONTAINS(plait_error_text(), "nobody publishes it here");
    plait_publisher *publisher = publisher_of("later", NULL);
    publish(publisher, "first");
    publish(publisher, "second");
    expect(subscriber, "first");
    expect(subscriber, "second");
    plait_publisher_close(publisher);
    plait_subscriber_close(subscriber);
}

TEST(a_late_subscriber_gets_the_history_that_it_asks_for)
{
    plait_publisher *publisher = publisher_of("past", NULL);
    for (int i = 0; i < 10; i++) publish(publisher, (char[]){ (char)('0' + i), '\0' });
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    options.history = 3;
    plait_subscriber *some = subscriber_of("past", &options), *none = subscriber_of("past", NULL);
    options.history = 1000;
    plait_subscriber *all = subscriber_of("past", &options);
    expect(some, "7");
    expect(some, "8");
    expect(some, "9");
    expect_nothing(some);
    expect_nothing(none);
    for (int i = 0; i < 10; i++) expect(all, (char[]){ (char)('0' + i), '\0' });
    plait_subscriber_close(some);
    plait_subscriber_close(none);
    plait_subscriber_close(all);
    plait_publisher_close(publisher);
}

TEST(a_publisher_keeps_as_much_history_as_it_promised)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.history = 100;
    plait_publisher *publisher = publisher_of("archive", &options);
    static char large[8192];
    for (int i = 0; i < 1000; i++) CHECK_INT(plait_publisher_publish(publisher, large, sizeof large), 0);
    plait_subscriber_options wish = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    wish.history = 100;
    plait_subscriber *subscriber = subscriber_of("archive", &wish);
    for (uint64_t i = 901; i <= 1000; i++) CHECK_INT(plait_message_number(next(subscriber)), i);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
    options.history = PLAIT_HISTORY_MAX + 1;
    CHECK_INT(plait_publisher_open(&publisher, "archive", &options), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_HISTORY_MAX");
}

TEST(a_slow_subscriber_of_latest_loses_the_oldest_and_knows_how_many)
{
    plait_publisher *publisher = publisher_of("fast", NULL);
    plait_subscriber *subscriber = subscriber_of("fast", NULL);
    uint64_t received = 0, lost = 0;
    plait_message *message = NULL;
    plait_lost why = PLAIT_LOST_NOTHING;
    char text[64] = "";
    for (int i = 0; i < 20000; i++) CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), 0);
    while (plait_subscriber_next(subscriber, PLAIT_NOW, &message) == 0) {
        plait_lost cause;
        received++;
        lost += plait_message_lost(message, &cause);
        if (cause != PLAIT_LOST_NOTHING) {
            why = cause;
            CHECK_CONTAINS(plait_message_lost_text(message), " lost: overrun");
        }
    }
    CHECK_INT(received + lost, 20000);
    CHECK(lost > 0 && received > 1000);
    CHECK_INT(why, PLAIT_LOST_OVERRUN);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(several_publishers_merge_each_in_its_order)
{
    plait_publisher *publishers[3];
    for (int i = 0; i < 3; i++) publishers[i] = publisher_of("merged", NULL);
    plait_subscriber *subscriber = subscriber_of("merged", NULL);
    CHECK_INT(plait_subscriber_publishers(subscriber), 3);
    uint64_t last[3] = { 0 }, id[3] = { 0 };
    for (int i = 0; i < 300; i++) publish(publishers[i % 3], "x");
    for (int i = 0; i < 300; i++) {
        plait_message *message = next(subscriber);
        int who = 0;
        while (id[who] != 0 && id[who] != plait_message_publisher(message)) who++;
        CHECK(who < 3);
        id[who] = plait_message_publisher(message);
        CHECK_INT(plait_message_number(message), ++last[who]);
    }
    expect_nothing(subscriber);
    plait_subscriber_close(subscriber);
    for (int i = 0; i < 3; i++) plait_publisher_close(publishers[i]);
}

TEST(a_restarted_publisher_is_picked_up_without_a_call)
{
    plait_subscriber *subscriber = subscriber_of("phoenix", NULL);
    for (int i = 0; i < 5; i++) {
        plait_publisher *publisher = publisher_of("phoenix", NULL);
        await_publishers(subscriber, 1);
        publish(publisher, "alive");
        publish(publisher, "again");
        plait_publisher_close(publisher); /* what it told remains readable */
        expect(subscriber, "alive");
        expect(subscriber, "again");
        await_publishers(subscriber, 0);
    }
    plait_subscriber_close(subscriber);
}

TEST(a_trailing_star_subscribes_to_all_topics_that_begin_so_also_later_ones)
{
    plait_publisher *left = publisher_of("sensors.left", NULL), *other = publisher_of("sensor", NULL);
    plait_subscriber *subscriber = subscriber_of("sensors.*", NULL);
    plait_subscriber *everything = subscriber_of("*", NULL);
    plait_publisher *right = publisher_of("sensors.right", NULL);
    publish(left, "l");
    CHECK_STR(plait_message_topic(next(subscriber)), "sensors.left");
    publish(other, "o");
    publish(right, "r");
    plait_message *message = next(subscriber);
    CHECK_STR(plait_message_topic(message), "sensors.right");
    for (int i = 0; i < 3; i++) next(everything);
    expect_nothing(everything);
    plait_subscriber *bad = NULL;
    CHECK_INT(plait_subscriber_open(&bad, "sens*", NULL), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "only a trailing");
    plait_subscriber_close(subscriber);
    plait_subscriber_close(everything);
    plait_publisher_close(left);
    plait_publisher_close(right);
    plait_publisher_close(other);
}

TEST(names_that_are_bad_or_a_services_are_refused)
{
    plait_publisher *publisher = NULL;
    plait_subscriber *subscriber = NULL;
    struct pl_allow nobody = { 0 };
    struct pl_claim service;
    CHECK_INT(plait_publisher_open(&publisher, "No", NULL), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "topic");
    CHECK_INT(plait_publisher_open(&publisher, "", NULL), -EINVAL);
    CHECK_INT(plait_publisher_open(&publisher, NULL, NULL), -EINVAL);
    CHECK_INT(plait_subscriber_open(&subscriber, "No", NULL), -EINVAL);
    CHECK_INT(pl_claim_open(&service, "greeter", PL_CLAIM_SHARED, &nobody), 0);
    CHECK_INT(plait_publisher_open(&publisher, "greeter", NULL), -EEXIST);
    CHECK_CONTAINS(plait_error_text(), "is a service");
    CHECK_INT(plait_subscriber_open(&subscriber, "greeter", NULL), -ENOENT);
    CHECK_CONTAINS(plait_error_text(), "is a service, not a topic");
    pl_claim_close(&service);
}

TEST(held_messages_stay_when_all_else_is_closed)
{
    plait_publisher *publisher = publisher_of("kept", NULL);
    plait_subscriber *subscriber = subscriber_of("kept", NULL);
    plait_message *held[100], *again = NULL;
    for (int i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        publish(publisher, text);
        CHECK_INT(plait_message_hold(next(subscriber), &held[i]), 0);
    }
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
    CHECK_INT(plait_message_hold(held[0], &again), -EALREADY);
    for (int i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        CHECK_INT(plait_message_body(held[i]).size, strlen(text));
        CHECK_MEM(plait_message_body(held[i]).data, text, strlen(text));
        CHECK_STR(plait_message_topic(held[i]), "kept");
        plait_message_release(held[i]);
    }
    plait_message_release(NULL);
}

TEST(a_publisher_waits_for_as_many_subscribers_as_it_wants)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.wait_subscribers = 2;
    options.timeout = 50;
    plait_publisher *publisher = publisher_of("quorum", &options);
    plait_subscriber *one = subscriber_of("quorum", NULL);
    CHECK_INT(plait_publisher_publish(publisher, "x", 1), -ETIMEDOUT);
    CHECK_CONTAINS(plait_error_text(), "1 of 2 subscribers");
    plait_subscriber *two = subscriber_of("quorum", NULL);
    publish(publisher, "y");
    expect(one, "y");
    expect(two, "y");
    plait_subscriber_close(one);
    await_subscribers(publisher, 1);
    plait_subscriber_close(two);
    plait_publisher_close(publisher);
}

TEST(a_foreign_loop_hears_of_each_message_by_the_descriptor)
{
    plait_publisher *publisher = publisher_of("loop", NULL);
    plait_subscriber *subscriber = subscriber_of("loop", NULL);
    plait_message *message = NULL;
    publish(publisher, "early");
    struct pollfd poller = { .fd = plait_subscriber_fd(subscriber), .events = POLLIN };
    CHECK(poller.fd >= 0);
    int outstanding = 1;
    for (int i = 0; i < 200;) {
        CHECK_INT(poll(&poller, 1, 20000), 1);
        int r = plait_subscriber_next(subscriber, PLAIT_NOW, &message);
        for (; r == 0; r = plait_subscriber_next(subscriber, PLAIT_NOW, &message)) outstanding--;
        CHECK_INT(r, -EAGAIN);
        CHECK(outstanding >= 0);
        if (outstanding > 0) continue; /* it may be readable for nothing */
        if (++i == 200) break;
        publish(publisher, "more");
        outstanding++;
    }
    /* And it becomes quiet. */
    for (int i = 0; i < 10 && poll(&poller, 1, 20) == 1; i++)
        CHECK_INT(plait_subscriber_next(subscriber, PLAIT_NOW, &message), -EAGAIN);
    CHECK_INT(poll(&poller, 1, 20), 0);
    plait_publisher *second = publisher_of("loop", NULL);
    publish(second, "from another");
    int r = -EAGAIN;
    for (int i = 0; i < 100 && r == -EAGAIN; i++) {
        CHECK_INT(poll(&poller, 1, 20000), 1);
        r = plait_subscriber_next(subscriber, PLAIT_NOW, &message);
    }
    CHECK_INT(r, 0);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
    plait_publisher_close(second);
}

/* ---- reliable ---- */

TEST(reliable_waits_for_its_slowest_subscriber_and_loses_nothing)
{
    enum { MESSAGES = 200000, SUBSCRIBERS = 3 };
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.reliable = 1;
    options.wait_subscribers = SUBSCRIBERS;
    options.timeout = 30000;
    uint64_t count = test_sanitized() ? MESSAGES / 10 : MESSAGES;
    pid_t children[SUBSCRIBERS];
    for (int i = 0; i < SUBSCRIBERS; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        plait_subscriber *subscriber = subscriber_of("sure", NULL);
        for (uint64_t n = 1; n <= count; n++) {
            plait_message *message = next(subscriber);
            uint64_t number;
            memcpy(&number, plait_message_body(message).data, sizeof number);
            CHECK_INT(plait_message_lost(message, NULL), 0);
            CHECK_INT(number, n);
            if (i == 0 && n % 5000 == 0) usleep(200);
        }
        plait_subscriber_close(subscriber);
        _exit(0);
    }
    plait_publisher *publisher = publisher_of("sure", &options);
    for (uint64_t n = 1; n <= count; n++) {
        uint64_t words[8] = { n };
        int r = plait_publisher_publish(publisher, words, sizeof words);
        if (r < 0) test_fail(__FILE__, __LINE__, "publish %d: %s", (int)n, plait_error_text());
    }
    for (int i = 0; i < SUBSCRIBERS; i++) CHECK_INT(test_wait_child(children[i]), 0);
    plait_publisher_close(publisher);
}

static char logged[1024];

static void take_log(plait_log_level level, const char *line, void *context)
{
    (void)context;
    if (level == PLAIT_LOG_ERROR) snprintf(logged, sizeof logged, "%s", line);
}

TEST(a_subscriber_that_is_stuck_is_left_behind_named_and_told)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.reliable = 1;
    options.timeout = 100;
    plait_publisher *publisher = publisher_of("patient", &options);
    plait_subscriber *stuck = subscriber_of("patient", NULL), *tool = NULL;
    plait_subscriber_options wish = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    wish.reliable = PLAIT_RELIABLE_NO;
    tool = subscriber_of("patient", &wish);
    plait_set_log(take_log, NULL);
    char text[1000] = "";
    for (int i = 0; i < 1000; i++) CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), 0);
    plait_set_log(NULL, NULL);
    CHECK_CONTAINS(logged, "topic 'patient': dropped ");
    CHECK_CONTAINS(logged, "stuck for 1");
    plait_lost why;
    plait_message *message = next(stuck);
    uint64_t received = 1, lost = plait_message_lost(message, &why);
    CHECK_INT(why, PLAIT_LOST_DROPPED);
    CHECK_CONTAINS(plait_message_lost_text(message), "dropped: stuck for 1");
    while (plait_subscriber_next(stuck, PLAIT_NOW, &message) == 0) {
        received++;
        lost += plait_message_lost(message, NULL);
    }
    CHECK_INT(received + lost, 1000);
    /* It counts again. */
    publish(publisher, "again");
    expect(stuck, "again");
    for (int i = 0; i < 240; i++) CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), 0);
    for (int i = 0; i < 240; i++) CHECK_INT(plait_message_lost(next(stuck), NULL), 0);
    plait_subscriber_close(stuck);
    plait_subscriber_close(tool);
    plait_publisher_close(publisher);
}

TEST(a_subscriber_that_wants_reliable_refuses_latest)
{
    plait_publisher *publisher = publisher_of("careless", NULL);
    plait_subscriber_options wish = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber = NULL;
    wish.reliable = PLAIT_RELIABLE_YES;
    CHECK_INT(plait_subscriber_open(&subscriber, "careless", &wish), -EOPNOTSUPP);
    CHECK_CONTAINS(plait_error_text(), "not reliable");
    plait_publisher_close(publisher);
}

/* ---- at a socket ---- */

TEST(over_tcp_the_same_rules_hold)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.listen = "tcp://127.0.0.1:0";
    plait_publisher *publisher = publisher_of("wire", &options);
    char url[256];
    for (int i = 0; i < 5; i++) publish(publisher, (char[]){ (char)('0' + i), '\0' });
    snprintf(url, sizeof url, "%s/wire", plait_publisher_url(publisher, 0));
    CHECK(plait_publisher_url(publisher, 1) == NULL);
    plait_subscriber_options wish = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    wish.history = 2;
    plait_subscriber *subscriber = subscriber_of(url, &wish);
    expect(subscriber, "3");
    expect(subscriber, "4");
    publish(publisher, "5");
    plait_message *message = next(subscriber);
    CHECK_STR(plait_message_topic(message), "wire");
    CHECK_INT(plait_message_number(message), 6);
    snprintf(url, sizeof url, "%s/other", plait_publisher_url(publisher, 0));
    plait_subscriber *wrong = NULL;
    CHECK_INT(plait_subscriber_open(&wrong, url, NULL), -ENOENT);
    CHECK_CONTAINS(plait_error_text(), "no topic 'other' here, this is 'wire'");
    plait_publisher_close(publisher);
    plait_subscriber_close(subscriber);
    CHECK_INT(plait_subscriber_open(&wrong, "tcp://127.0.0.1:1/x", NULL), -ECONNREFUSED);
}

TEST(a_slow_subscriber_at_a_socket_has_a_bounded_queue)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.listen = "tcp://127.0.0.1:0";
    plait_publisher *publisher = publisher_of("flood", &options);
    plait_subscriber *subscriber = subscriber_of(plait_publisher_url(publisher, 0), NULL);
    static char text[4000];
    uint64_t received = 0, lost = 0;
    plait_message *message = NULL;
    for (int i = 0; i < 20000; i++) CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), 0);
    publish(publisher, "end");
    do {
        message = next(subscriber);
        received++;
        lost += plait_message_lost(message, NULL);
    } while (plait_message_body(message).size != 3);
    CHECK_INT(received + lost, 20001);
    CHECK(lost > 0);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(reliable_over_a_socket_loses_nothing_also_at_the_end)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    pid_t child = fork();
    if (child == 0) {
        plait_subscriber *subscriber = subscriber_of("certain?shm=off", NULL);
        for (uint64_t n = 1; n <= 20000; n++) {
            plait_message *message = next(subscriber);
            CHECK_INT(plait_message_lost(message, NULL), 0);
            CHECK_INT(plait_message_number(message), n);
        }
        plait_subscriber_close(subscriber);
        _exit(0);
    }
    options.reliable = 1;
    options.wait_subscribers = 1;
    options.timeout = 20000;
    plait_publisher *publisher = publisher_of("certain", &options);
    static char text[300];
    for (int i = 0; i < 20000; i++) CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), 0);
    plait_publisher_close(publisher); /* sends what is left first */
    CHECK_INT(test_wait_child(child), 0);
}

/* ---- ends ---- */

TEST(a_killed_publisher_is_noticed_and_what_it_published_is_read)
{
    plait_subscriber *subscriber = subscriber_of("victim", NULL);
    for (int round = 0; round < 10; round++) {
        int ready[2];
        char byte;
        CHECK_INT(pipe(ready), 0);
        pid_t child = fork();
        if (child == 0) {
            plait_publisher *publisher = publisher_of("victim", NULL);
            for (int i = 0; i < 3; i++) publish(publisher, "last words");
            (void)!write(ready[1], "x", 1);
            pause();
        }
        CHECK_INT(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        close(ready[1]);
        plait_lost why;
        plait_message *message = next(subscriber);
        plait_message_lost(message, &why);
        CHECK_INT(why, round == 0 ? PLAIT_LOST_NOTHING : PLAIT_LOST_DIED);
        kill(child, SIGKILL);
        CHECK_INT(waitpid(child, NULL, 0), child);
        expect(subscriber, "last words");
        expect(subscriber, "last words");
        await_publishers(subscriber, 0);
    }
    plait_subscriber_close(subscriber);
}

TEST(a_killed_subscriber_holds_a_reliable_publisher_up_no_longer)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.reliable = 1;
    options.timeout = 60000;
    plait_publisher *publisher = publisher_of("mourner", &options);
    int ready[2];
    char byte;
    CHECK_INT(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        subscriber_of("mourner", NULL);
        (void)!write(ready[1], "x", 1);
        pause();
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    pid_t killer = fork();
    if (killer == 0) {
        usleep(100000);
        kill(child, SIGKILL);
        _exit(0);
    }
    static char text[4000];
    for (int i = 0; i < 1000; i++) CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), 0);
    CHECK_INT(test_wait_child(killer), 0);
    CHECK_INT(waitpid(child, NULL, 0), child);
    await_subscribers(publisher, 0);
    plait_publisher_close(publisher);
}

TEST(a_forked_child_is_refused_and_disturbs_nobody)
{
    plait_publisher *publisher = publisher_of("family", NULL);
    plait_subscriber *subscriber = subscriber_of("family", NULL);
    plait_message *message = NULL;
    pid_t child = fork();
    if (child == 0) {
        CHECK_INT(plait_publisher_publish(publisher, "x", 1), -ECHILD);
        CHECK_INT(plait_subscriber_next(subscriber, PLAIT_NOW, &message), -ECHILD);
        CHECK_CONTAINS(plait_error_text(), "opened before fork()");
        plait_subscriber_close(subscriber);
        plait_publisher_close(publisher);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    publish(publisher, "still here");
    expect(subscriber, "still here");
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(topics_are_watched_with_their_subscribers)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.reliable = 1;
    plait_publisher *publisher = publisher_of("seen", &options);
    plait_subscriber *subscriber = subscriber_of("seen", NULL);
    plait_watch *watch = NULL;
    publish(publisher, "12345");
    CHECK_INT(plait_watch_open(&watch, NULL), 0);
    CHECK_INT(plait_watch_count(watch), 0);
    CHECK_INT(plait_watch_topic_count(watch), 1);
    const plait_watch_instance *topic = plait_watch_topic_at(watch, 0);
    CHECK_STR(topic->service, "seen");
    CHECK_STR(topic->methods, "reliable");
    CHECK_INT(topic->pid, getpid());
    CHECK_INT(topic->published, 1);
    CHECK_INT(topic->bytes_out, 5);
    CHECK_INT(topic->connection_count, 1);
    CHECK_INT(topic->connections[0].peer_pid, getpid());
    CHECK_STR(topic->connections[0].transport, "shm");
    CHECK(plait_watch_topic_at(watch, 1) == NULL);
    plait_watch_close(watch);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}
