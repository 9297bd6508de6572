/* topic_faults: the same for topics: every allocation and every system call that a publisher or a subscriber makes
 * fails once (see faulty.h). No crash, no hang, no leak, an error with a text; and whoever was there already goes on.
 */
#include "system/faulty.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGE = 100000, SHORT_MS = 200 };

/* Every third message is large. All bytes of one say its number. */
static int publish_one(plait_publisher *publisher, uint64_t number)
{
    static char body[LARGE];
    size_t size = number % 3 == 0 ? LARGE : 100;
    memset(body, (char)number, size);
    return plait_publisher_publish(publisher, body, size);
}

static void check(const plait_message *message)
{
    plait_bytes body = plait_message_body(message);
    const char *bytes = body.data;
    CHECK(body.size == 100 || body.size == LARGE);
    CHECK(bytes[0] == (char)plait_message_number(message));
    CHECK(bytes[body.size - 1] == bytes[0]);
}

/* ---- who opens and closes ---- */

static void open_publish_close(void)
{
    plait_publisher *publisher = NULL;
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    char urls[400];
    snprintf(urls, sizeof(urls), "tcp://127.0.0.1:0 unix://%s/feed", test_directory());
    options.listen = urls;
    options.history = 3;
    options.reliable = 1;
    options.timeout = SHORT_MS;
    if (bad(plait_publisher_open(&publisher, "feed", &options), "open")) {
        CHECK(publisher == NULL);
        return;
    }
    for (uint64_t i = 1; i <= 8; i++) (void)bad(publish_one(publisher, i), "publish");
    for (int i = 0; i < 3; i++) {
        plait_loan *loan = NULL;
        if (bad(plait_publisher_loan(publisher, i == 0 ? 100 : 3 * LARGE, &loan), "loan")) continue;
        memset(plait_loan_data(loan), i, 100);
        (void)bad(plait_publisher_publish_loan(publisher, PLAIT_BYTES, loan, 100), "publish_loan");
    }
    plait_publisher_close(publisher);
}

TEST(a_publisher_opens_or_says_why_when_an_allocation_fails)
{
    TEST_TIMEOUT(240);
    fault_new();
    put_through(FAULT_ALLOCATIONS, open_publish_close);
    fault_free();
}

TEST(a_publisher_opens_or_says_why_when_a_system_call_fails)
{
    TEST_TIMEOUT(240);
    fault_new();
    put_through(FAULT_SYSTEM_CALLS, open_publish_close);
    fault_free();
}

struct stage {
    _Atomic uint32_t stop;
    _Atomic uint64_t received, lost; /* by who is there all the time */
    char url[200];
};

static char target[300];

/* Some messages, by waiting and by the descriptor; a loss is no failure. */
static void open_subscribe_close(void)
{
    plait_subscriber *subscriber = NULL;
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_message *message = NULL, *held = NULL;
    options.connect_timeout = SHORT_MS;
    options.history = 3;
    if (bad(plait_subscriber_open(&subscriber, target, &options), "open")) {
        CHECK(subscriber == NULL);
        return;
    }
    for (int i = 0, failures = 0; i < 8 && failures < 2; i++) {
        if (bad(plait_subscriber_next(subscriber, SHORT_MS, &message), "next")) {
            failures++;
            continue;
        }
        check(message);
        if (i < 2 && !bad(plait_message_hold(message, &held), "hold")) plait_message_release(held);
    }
    if (!bad(plait_subscriber_fd(subscriber), "fd"))
        for (int i = 0; i < 4; i++)
            if (plait_subscriber_next(subscriber, PLAIT_NOW, &message) == 0) check(message);
    plait_subscriber_close(subscriber);
}

/* ---- who is there all the time ---- */

static void publish_all_the_time(struct stage *stage, bool spared, int ready)
{
    plait_publisher *publisher = NULL;
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    options.listen = "tcp://127.0.0.1:0";
    options.history = 3;
    if (spared) fault = NULL;
    if (plait_publisher_open(&publisher, "feed", &options) < 0)
        test_fail(__FILE__, __LINE__, "publisher: %s", plait_error_text());
    snprintf(stage->url, sizeof(stage->url), "%s", plait_publisher_url(publisher, 0));
    CHECK_INT(write(ready, "", 1), 1);
    for (uint64_t number = 1; !stage->stop;) {
        number += !bad(publish_one(publisher, number), "publish");
        usleep(1000);
    }
    plait_publisher_close(publisher);
    leave(0);
}

static void subscribe_all_the_time(struct stage *stage)
{
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;
    uint64_t its = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fault = NULL;
    if (plait_subscriber_open(&subscriber, "feed", NULL) < 0)
        test_fail(__FILE__, __LINE__, "subscriber: %s", plait_error_text());
    while (!stage->stop) {
        int r = plait_subscriber_next(subscriber, 100, &message);
        if (r == -ETIMEDOUT) continue;
        if (r < 0) test_fail(__FILE__, __LINE__, "next: %s", plait_error_text());
        check(message);
        if (its == 0) its = plait_message_publisher(message);
        CHECK(plait_message_publisher(message) == its);
        stage->lost += plait_message_lost(message, NULL);
        stage->received++;
    }
    plait_subscriber_close(subscriber);
    leave(0);
}

static struct stage *begin(bool spared, pid_t *ret_publisher)
{
    struct stage *stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ready[2];
    char byte;
    TEST_TIMEOUT(240);
    CHECK(stage != MAP_FAILED);
    fault_new();
    fault_arm(0, 0);
    CHECK_INT(pipe(ready), 0);
    *ret_publisher = fork();
    CHECK(*ret_publisher >= 0);
    if (*ret_publisher == 0) publish_all_the_time(stage, spared, ready[1]);
    CHECK_INT(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return stage;
}

static void end(struct stage *stage, const pid_t *pids, int count)
{
    fault_arm(0, 0);
    stage->stop = 1;
    for (int i = 0; i < count; i++) CHECK_INT(test_wait_child(pids[i]), 0);
    munmap(stage, sizeof(*stage));
    fault_free();
}

static void put_subscriber_through(int kind, const char *where)
{
    pid_t publisher;
    struct stage *stage = begin(true, &publisher);
    snprintf(target, sizeof(target), "%s", strcmp(where, "tcp") == 0 ? stage->url : where);
    put_through(kind, open_subscribe_close);
    end(stage, &publisher, 1);
}

TEST(a_subscriber_survives_every_failing_allocation_over_shared_memory)
{
    put_subscriber_through(FAULT_ALLOCATIONS, "feed");
}
TEST(a_subscriber_survives_every_failing_allocation_over_a_socket)
{
    put_subscriber_through(FAULT_ALLOCATIONS, "feed?shm=off");
}
TEST(a_subscriber_survives_every_failing_allocation_over_tcp)
{
    put_subscriber_through(FAULT_ALLOCATIONS, "tcp");
}
TEST(a_subscriber_survives_every_failing_system_call_over_shared_memory)
{
    put_subscriber_through(FAULT_SYSTEM_CALLS, "feed");
}
TEST(a_subscriber_survives_every_failing_system_call_over_a_socket)
{
    put_subscriber_through(FAULT_SYSTEM_CALLS, "feed?shm=off");
}
TEST(a_subscriber_survives_every_failing_system_call_over_tcp)
{
    put_subscriber_through(FAULT_SYSTEM_CALLS, "tcp");
}

/* A subscriber that nothing fails in; COUNT messages are due, or as many as come in time. */
static int visit(const char *where, int count, int64_t patience)
{
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    int came = 0;
    options.connect_timeout = patience;
    if (plait_subscriber_open(&subscriber, where, &options) < 0) return 0;
    while (came < count && plait_subscriber_next(subscriber, patience, &message) == 0) {
        check(message);
        came++;
    }
    plait_subscriber_close(subscriber);
    return came;
}

/* A visit in a process of its own, so that what it maps and opens is gone afterwards. */
static bool visited(const char *where, int64_t patience)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fault = NULL;
        _exit(visit(where, 4, patience) == 4 ? 0 : 3);
    }
    int status = test_wait_child(pid);
    CHECK(status == 0 || status == 3);
    return status == 0;
}

/* The publisher's Nth call from here on fails; whoever suffers, the next visitor doesn't, nor who was there before. */
static void put_publisher_through(int kind)
{
    pid_t pids[2];
    struct stage *stage = begin(false, &pids[0]);
    const char *const places[] = { "feed", "feed?shm=off", stage->url };
    pids[1] = fork();
    CHECK(pids[1] >= 0);
    if (pids[1] == 0) subscribe_all_the_time(stage);
    WAIT_UNTIL(stage->received > 0);
    int nth = 1, quiet = 0;
    for (; quiet < 3; nth++) {
        CHECK(nth < FAULTS_MOST);
        fault_arm(kind, nth);
        (void)visited(places[nth % 3], SHORT_MS);
        bool fired = atomic_load(&fault->fired);
        fault_arm(0, 0);
        quiet = fired ? 0 : quiet + 1;
        uint64_t before = stage->received;
        if (!visited(places[nth % 3], PATIENCE_MS))
            test_fail(__FILE__, __LINE__, "after %s failed, the %dth call, nothing comes over %s", fault->name, nth,
                      places[nth % 3]);
        WAIT_UNTIL(stage->received > before + 2);
    }
    printf("# %d %s failed in turn\n", nth - 4, kind == FAULT_ALLOCATIONS ? "allocations" : "system calls");
    CHECK(nth > 5);
    end(stage, pids, 2);
}

TEST(a_publisher_goes_on_after_every_failing_allocation)
{
    put_publisher_through(FAULT_ALLOCATIONS);
}
TEST(a_publisher_goes_on_after_every_failing_system_call)
{
    put_publisher_through(FAULT_SYSTEM_CALLS);
}
