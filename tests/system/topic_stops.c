/* topic_stops: SIGSTOP. A subscriber that stands still in `reliable` is waited for, then named and left behind, while
 * the others get everything; in `latest` it holds nobody up; either way it learns exactly what it missed when it goes
 * on. A publisher that stands still holds up no subscriber, and is found when it goes on.
 *
 * The test's process publishes; subscribers are children that report on a page that they share with it.
 */
#include "system/system.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct report {
    _Atomic uint32_t ready, gone_on;
    _Atomic uint64_t received, lost;
    _Atomic int why; /* of the first loss */
    char text[64];   /* likewise */
};

struct scene {
    plait_publisher *publisher;
    int64_t timeout;
    struct report *reports; /* [0]: who is stopped, [1]: who is not */
    pid_t pids[2];
    uint64_t published;
    const char *listen; /* NULL: found by name */
    const char *option; /* of the name */
    size_t size;        /* of a message */
};

static char logged[1024];

static void take_log(plait_log_level level, const char *line, void *context)
{
    (void)context;
    if (level == PLAIT_LOG_ERROR) snprintf(logged, sizeof(logged), "%s", line);
}

/* A message says its number in every part, so that a torn one shows. */
static void fill(uint64_t *words, size_t size, uint64_t number)
{
    for (size_t i = 0; i < size / sizeof(*words); i++) words[i] = number * 1000003 + i;
}

static void check(const plait_message *message)
{
    plait_bytes body = plait_message_body(message);
    uint64_t number = plait_message_number(message), word;
    for (size_t at = 0; at + sizeof(word) <= body.size; at += 512) {
        memcpy(&word, (const char *)body.data + at / 8 * 8, sizeof(word));
        if (word != number * 1000003 + at / 8)
            test_fail(__FILE__, __LINE__, "message %llu is torn", (unsigned long long)number);
    }
}

/* ---- subscribers ---- */

static plait_message *next(plait_subscriber *subscriber)
{
    plait_message *message = NULL;
    int r = plait_subscriber_next(subscriber, PATIENCE_MS, &message);
    if (r < 0) test_fail(__FILE__, __LINE__, "next: %s", plait_error_text());
    return message;
}

/* Reads to the message of three bytes, which is the last; keeps the first all the while. */
static void report_all(const char *target, struct report *report)
{
    plait_subscriber *subscriber = NULL;
    if (plait_subscriber_open(&subscriber, target, NULL) < 0)
        test_fail(__FILE__, __LINE__, "subscriber: %s", plait_error_text());
    plait_message *message = next(subscriber), *first = NULL;
    check(message);
    report->received++;
    CHECK_INT(plait_message_hold(message, &first), 0);
    report->ready = 1;
    while (plait_message_body(message = next(subscriber)).size != 3) {
        plait_lost why;
        uint64_t lost = plait_message_lost(message, &why);
        check(message);
        report->received++;
        report->lost += lost;
        if (why == PLAIT_LOST_NOTHING || report->why != 0) continue;
        snprintf(report->text, sizeof(report->text), "%s", plait_message_lost_text(message));
        report->why = why;
    }
    report->received++;
    report->lost += plait_message_lost(message, NULL);
    plait_subscriber_close(subscriber);
    check(first); /* held through all of it */
    plait_message_release(first);
}

static pid_t subscribe(const char *target, struct report *report)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    report_all(target, report);
    _exit(0); /* without looking for leaks: that stops threads by itself, as the test does */
}

static void publish(struct scene *scene)
{
    static uint64_t words[131072];
    CHECK(scene->size <= sizeof(words));
    fill(words, scene->size, ++scene->published);
    int r = plait_publisher_publish(scene->publisher, words, scene->size);
    if (r < 0) test_fail(__FILE__, __LINE__, "publish: %s", plait_error_text());
}

/* Two subscribers that have read the first message; the first of them is stopped then. */
static void begin(struct scene *scene, int reliable)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    char target[300];
    TEST_TIMEOUT(240);
    scene->timeout = test_sanitized() ? 4000 : 2000; /* nobody else may seem to stand still on a busy machine */
    scene->reports = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(scene->reports != MAP_FAILED);
    options.reliable = reliable;
    options.timeout = scene->timeout;
    options.listen = scene->listen;
    if (plait_publisher_open(&scene->publisher, "still", &options) < 0)
        test_fail(__FILE__, __LINE__, "publisher: %s", plait_error_text());
    snprintf(target, sizeof(target), "%s%s", scene->listen != NULL ? plait_publisher_url(scene->publisher, 0) : "still",
             scene->option != NULL ? scene->option : "");
    for (int i = 0; i < 2; i++) scene->pids[i] = subscribe(target, &scene->reports[i]);
    WAIT_UNTIL(plait_publisher_subscribers(scene->publisher) == 2);
    publish(scene);
    WAIT_UNTIL(scene->reports[0].ready && scene->reports[1].ready);
    kill(scene->pids[0], SIGSTOP);
    WAIT_UNTIL(state_of(scene->pids[0]) == 'T');
    plait_set_log(take_log, NULL);
    logged[0] = '\0';
}

/* The last message, and the one that stood still goes on. */
static void end(struct scene *scene)
{
    CHECK_INT(plait_publisher_publish(scene->publisher, "end", 3), 0);
    scene->published++;
    plait_set_log(NULL, NULL);
    CHECK_INT(state_of(scene->pids[0]), 'T');
    kill(scene->pids[0], SIGCONT);
    for (int i = 0; i < 2; i++) CHECK_INT(test_wait_child(scene->pids[i]), 0);
    for (int i = 0; i < 2; i++) CHECK_INT(scene->reports[i].received + scene->reports[i].lost, scene->published);
    plait_publisher_close(scene->publisher);
}

/* COUNT messages while one stands still. */
static void stand_still_in_reliable(struct scene scene, int count)
{
    char who[64];
    begin(&scene, 1);
    int64_t began = now_ms();
    for (int i = 0; i < count; i++) publish(&scene);
    CHECK(now_ms() - began >= scene.timeout); /* it was waited for */
    CHECK_CONTAINS(logged, "topic 'still': dropped ");
    CHECK_CONTAINS(logged, "stuck for ");
    snprintf(who, sizeof(who), "(pid %d)", (int)scene.pids[0]);
    if (scene.listen == NULL) CHECK_CONTAINS(logged, who);
    end(&scene);
    CHECK_INT(scene.reports[1].lost, 0);
    CHECK(scene.reports[0].lost > 0);
    CHECK_INT(scene.reports[0].why, PLAIT_LOST_DROPPED);
    CHECK_CONTAINS(scene.reports[0].text, "dropped: stuck for ");
    munmap(scene.reports, 4096);
}

TEST(in_reliable_who_is_stopped_is_waited_for_then_named_and_left_behind_and_the_others_get_everything)
{
    stand_still_in_reliable((struct scene){ .size = 4000 }, 500);
}

TEST(in_reliable_the_same_holds_for_large_messages)
{
    stand_still_in_reliable((struct scene){ .size = 100000 }, 200);
}

/* A socket holds some megabytes of its own. */
TEST(in_reliable_the_same_holds_at_a_unix_socket)
{
    stand_still_in_reliable((struct scene){ .size = 8000, .option = "?shm=off" }, 3000);
}

TEST(in_reliable_the_same_holds_over_tcp)
{
    stand_still_in_reliable((struct scene){ .size = 8000, .listen = "tcp://127.0.0.1:0" }, 3000);
}

static void stand_still_in_latest(struct scene scene, int count)
{
    begin(&scene, 0);
    for (int i = 0; i < count; i++) publish(&scene); /* all of it while it stands still: see end */
    CHECK_STR(logged, "");
    end(&scene);
    CHECK(scene.reports[0].lost > 0);
    CHECK_INT(scene.reports[0].why, PLAIT_LOST_OVERRUN);
    CHECK_CONTAINS(scene.reports[0].text, "lost: overrun");
    munmap(scene.reports, 4096);
}

TEST(in_latest_who_is_stopped_holds_nobody_up_and_learns_its_loss_when_it_goes_on)
{
    stand_still_in_latest((struct scene){ .size = 4000 }, 500);
}

TEST(in_latest_the_same_holds_for_large_messages)
{
    stand_still_in_latest((struct scene){ .size = 100000 }, 200);
}

TEST(in_latest_the_same_holds_at_a_unix_socket)
{
    stand_still_in_latest((struct scene){ .size = 8000, .option = "?shm=off" }, 3000);
}

TEST(in_latest_the_same_holds_over_tcp)
{
    stand_still_in_latest((struct scene){ .size = 8000, .listen = "tcp://127.0.0.1:0" }, 3000);
}

/* ---- publishers ---- */

static pid_t publish_often(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    plait_publisher *publisher = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK_INT(plait_publisher_open(&publisher, "frozen", NULL), 0);
    for (uint32_t i = 0;; i++) {
        CHECK_INT(plait_publisher_publish(publisher, &i, sizeof(i)), 0);
        usleep(1000);
    }
}

TEST(a_publisher_that_is_stopped_holds_up_no_subscriber_and_is_found_when_it_goes_on)
{
    plait_subscriber *subscriber = NULL, *early = NULL;
    plait_message *message = NULL;
    pid_t frozen = publish_often();
    CHECK_INT(plait_subscriber_open(&early, "frozen", NULL), 0);
    uint64_t its = plait_message_publisher(next(early));
    kill(frozen, SIGSTOP);
    WAIT_UNTIL(state_of(frozen) == 'T');
    pid_t lively = publish_often();
    plait_set_log(take_log, NULL);
    logged[0] = '\0';
    CHECK_INT(plait_subscriber_open(&subscriber, "frozen", NULL), 0);
    /* Until it has given the frozen one up, the other is heard. */
    for (int i = 0; i < PATIENCE_MS && strstr(logged, "is the publisher stopped?") == NULL; i++)
        CHECK(plait_message_publisher(next(subscriber)) != its);
    CHECK_CONTAINS(logged, "is the publisher stopped?");
    CHECK(plait_message_publisher(next(early)) != 0);
    kill(frozen, SIGCONT);
    int64_t until = now_ms() + PATIENCE_MS;
    while (plait_message_publisher(message = next(subscriber)) != its) CHECK(now_ms() < until);
    CHECK_INT(plait_subscriber_publishers(subscriber), 2);
    plait_set_log(NULL, NULL);
    plait_subscriber_close(subscriber);
    plait_subscriber_close(early);
    kill_process(frozen);
    kill_process(lively);
}
