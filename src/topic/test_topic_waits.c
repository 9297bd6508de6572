/* Waits in a publisher and a subscriber: how a program ends them, and how it does without them. */
#include "harness/test.h"

#include <errno.h>
#include <plait/plait.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LARGE = 10000, SEGMENTS = PLAIT_SEGMENTS_MAX };

struct asked {
    int count, stop_at; /* 0: never */
};

static int stop_at(void *context)
{
    struct asked *asked = context;
    return ++asked->count >= asked->stop_at && asked->stop_at != 0;
}

static plait_subscriber *subscriber_of(const char *topic, struct asked *asked)
{
    plait_subscriber *subscriber = NULL;
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    options.interrupted = asked ? stop_at : NULL;
    options.interrupted_context = asked;
    int r = plait_subscriber_open(&subscriber, topic, &options);
    if (r < 0) test_fail(__FILE__, __LINE__, "subscriber: %s", plait_error_text());
    return subscriber;
}

static plait_publisher *publisher_of(const char *topic, struct asked *asked, int64_t timeout, uint32_t wanted)
{
    plait_publisher *publisher = NULL;
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.reliable = 1;
    options.timeout = timeout;
    options.wait_subscribers = wanted;
    options.interrupted = asked ? stop_at : NULL;
    options.interrupted_context = asked;
    int r = plait_publisher_open(&publisher, topic, &options);
    if (r < 0) test_fail(__FILE__, __LINE__, "publisher: %s", plait_error_text());
    return publisher;
}

/* Publishes messages of SIZE bytes while that doesn't have to wait: how many. */
static int fill(plait_publisher *publisher, size_t size)
{
    static char text[LARGE];
    int count = 0, r;
    while ((r = plait_publisher_ready(publisher, size)) == 0) {
        CHECK_INT(plait_publisher_publish(publisher, text, size), 0);
        CHECK(++count < 1000000);
    }
    CHECK_INT(r, -EAGAIN);
    return count;
}

static void take(plait_subscriber *subscriber, int count)
{
    plait_message *message;
    for (int i = 0; i < count; i++) CHECK_INT(plait_subscriber_next(subscriber, 20000, &message), 0);
}

TEST(an_interrupted_wait_for_a_message_ends_and_nothing_is_lost)
{
    struct asked asked = { .stop_at = 3 };
    plait_message *message;
    plait_publisher *publisher = publisher_of("news", NULL, 0, 0);
    plait_subscriber *subscriber = subscriber_of("news", &asked);
    CHECK_INT(plait_subscriber_next(subscriber, PLAIT_FOREVER, &message), -EINTR);
    CHECK_CONTAINS(plait_error_text(), "interrupted");
    CHECK_INT(asked.count, 3);
    CHECK_INT(plait_publisher_publish(publisher, "after", 5), 0);
    CHECK_INT(plait_subscriber_next(subscriber, PLAIT_FOREVER, &message), 0);
    CHECK_MEM(plait_message_body(message).data, "after", 5);
    CHECK_INT(plait_message_lost(message, NULL), 0);
    asked.stop_at = 0;
    CHECK_INT(plait_subscriber_next(subscriber, 120, &message), -ETIMEDOUT); /* asked in between */
    CHECK(asked.count > 4);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(a_spinning_subscriber_is_asked_too)
{
    struct asked asked = { .stop_at = 2 };
    plait_message *message;
    plait_subscriber *subscriber = NULL;
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    options.spin_us = INT64_C(1000000000);
    options.interrupted = stop_at;
    options.interrupted_context = &asked;
    CHECK_INT(plait_subscriber_open(&subscriber, "quiet", &options), 0);
    CHECK_INT(plait_subscriber_next(subscriber, 0, &message), -EINTR);
    plait_subscriber_close(subscriber);
}

TEST(opening_a_subscriber_that_is_not_answered_can_be_interrupted)
{
    struct asked asked = { .stop_at = 3 };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char url[128];
    plait_subscriber *subscriber = NULL;
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    options.connect_timeout = PLAIT_FOREVER;
    options.interrupted = stop_at;
    options.interrupted_context = &asked;
    int silent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/silent", test_directory());
    snprintf(url, sizeof url, "unix://%s", address.sun_path);
    CHECK_INT(bind(silent, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_INT(listen(silent, 1), 0);
    CHECK_INT(plait_subscriber_open(&subscriber, url, &options), -EINTR);
    CHECK_INT(asked.count, 3);
    close(silent);
}

TEST(a_subscriber_that_would_connect_anew_without_waiting_asks_first)
{
    struct asked asked = { .stop_at = 0 };
    plait_message *message;
    plait_publisher *publisher = NULL;
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    char url[256];
    int r = -EAGAIN;
    options.listen = "tcp://127.0.0.1:0";
    CHECK_INT(plait_publisher_open(&publisher, "far", &options), 0);
    snprintf(url, sizeof url, "%s/far", plait_publisher_url(publisher, 0));
    plait_subscriber *subscriber =
        subscriber_of(strstr(url, "/far/far") ? plait_publisher_url(publisher, 0) : url, &asked);
    plait_publisher_close(publisher);
    asked = (struct asked){ .stop_at = 1 };
    for (int i = 0; i < 20000 && r == -EAGAIN; i++) {
        r = plait_subscriber_next(subscriber, PLAIT_NOW, &message);
        poll(NULL, 0, 1);
    }
    CHECK_INT(r, -EINTR);
    plait_subscriber_close(subscriber);
}

TEST(an_interrupted_publisher_has_published_nothing_and_goes_on)
{
    struct asked asked = { .stop_at = 2 };
    plait_message *message;
    plait_publisher *publisher = publisher_of("quorum", &asked, PLAIT_FOREVER, 1);
    CHECK_INT(plait_publisher_publish(publisher, "never", 5), -EINTR);
    plait_subscriber *subscriber = subscriber_of("quorum", NULL);
    int count = fill(publisher, 1000);
    asked = (struct asked){ .stop_at = 2 };
    static char text[1000];
    CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), -EINTR);
    take(subscriber, count);
    CHECK_INT(plait_publisher_publish(publisher, "last", 4), 0);
    CHECK_INT(plait_subscriber_next(subscriber, 20000, &message), 0);
    CHECK_INT(plait_message_number(message), count + 1);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(a_publisher_that_is_ready_does_not_wait)
{
    struct asked asked = { .stop_at = 1 }; /* any wait would be -EINTR */
    plait_publisher *publisher = publisher_of("steady", &asked, PLAIT_FOREVER, 0);
    CHECK_INT(plait_publisher_ready(publisher, 100), 0);
    plait_subscriber *subscriber = subscriber_of("steady", NULL);
    for (int i = 0; i < 3; i++) {
        int small = fill(publisher, 1000);
        CHECK(small > 10);
        take(subscriber, small);
        int large = fill(publisher, LARGE);
        CHECK_INT(large, SEGMENTS);
        CHECK_INT(plait_publisher_ready(publisher, 1000), 0); /* the ring has room */
        take(subscriber, large);
    }
    CHECK_INT(asked.count, 0);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(a_publisher_whose_loans_are_all_out_is_ready_to_say_so)
{
    plait_loan *loans[SEGMENTS], *more = NULL;
    plait_publisher *publisher = publisher_of("lent", NULL, PLAIT_FOREVER, 0);
    plait_subscriber *subscriber = subscriber_of("lent", NULL);
    for (int i = 0; i < SEGMENTS; i++) {
        CHECK_INT(plait_publisher_ready(publisher, LARGE), 0);
        CHECK_INT(plait_publisher_loan(publisher, LARGE, &loans[i]), 0);
    }
    CHECK_INT(plait_publisher_ready(publisher, LARGE), 0);
    CHECK_INT(plait_publisher_loan(publisher, LARGE, &more), -ENOBUFS);
    for (int i = 0; i < SEGMENTS; i++) plait_loan_abort(loans[i]);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(a_publisher_is_not_ready_before_as_many_subscribers_are_there_as_it_wants)
{
    plait_publisher *publisher = publisher_of("wanted", NULL, 0, 1);
    CHECK_INT(plait_publisher_ready(publisher, 1), -EAGAIN);
    CHECK_CONTAINS(plait_error_text(), "0 of 1 subscribers");
    plait_subscriber *subscriber = subscriber_of("wanted", NULL);
    CHECK_INT(plait_publisher_ready(publisher, 1), 0);
    CHECK_INT(plait_publisher_ready(publisher, SIZE_MAX), -EMSGSIZE);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}

TEST(a_subscriber_that_is_stuck_while_its_publisher_asks_is_left_behind)
{
    plait_message *message;
    plait_lost why;
    plait_publisher *publisher = publisher_of("stuck", NULL, 50, 0);
    plait_subscriber *subscriber = subscriber_of("stuck", NULL);
    int count = fill(publisher, 1000), r = -EAGAIN;
    for (int i = 0; i < 20000 && r == -EAGAIN; i++) {
        poll(NULL, 0, 1);
        r = plait_publisher_ready(publisher, 1000);
    }
    CHECK_INT(r, 0);
    static char text[1000];
    for (int i = 0; i < count; i++) CHECK_INT(plait_publisher_publish(publisher, text, sizeof text), 0);
    CHECK_INT(plait_subscriber_next(subscriber, 20000, &message), 0);
    CHECK(plait_message_lost(message, &why) > 0);
    CHECK_INT(why, PLAIT_LOST_DROPPED);
    plait_subscriber_close(subscriber);
    plait_publisher_close(publisher);
}
