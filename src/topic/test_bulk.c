/* Large messages: without copies, kept by their holders, counted when they are gone. */
#include "harness/test.h"

#include "naming/lookup.h"
#include "shm/memory.h"
#include "shm/ring_broadcast.h"
#include "topic/topic.h"

#include <errno.h>
#include <fcntl.h>
#include <plait/plait.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGE = 3000000 };

static uint8_t *pattern;

static void fill(uint64_t number, size_t size)
{
    if (pattern == NULL) pattern = malloc(LARGE);
    CHECK(pattern != NULL);
    for (size_t i = 0; i < size; i += 512) pattern[i] = (uint8_t)(number * 7 + i / 512);
    if (size >= 8) memcpy(pattern + size - 8, &number, 8);
}

static int is_pattern(plait_bytes body, uint64_t number)
{
    const uint8_t *bytes = body.data;
    for (size_t i = 0; i + 8 < body.size; i += 512)
        if (bytes[i] != (uint8_t)(number * 7 + i / 512)) return 0;
    return memcmp(bytes + body.size - 8, &number, 8) == 0;
}

static void publish(plait_publisher *publisher, uint64_t number, size_t size)
{
    fill(number, size);
    int r = plait_publisher_publish_as(publisher, PLAIT_ARRAY, pattern, size);
    if (r < 0) test_fail(__FILE__, __LINE__, "publish: %s", plait_error_text());
}

static plait_message *next(plait_subscriber *subscriber)
{
    plait_message *message = NULL;
    int r = plait_subscriber_next(subscriber, 30000, &message);
    if (r < 0) test_fail(__FILE__, __LINE__, "next: %s", plait_error_text());
    return message;
}

static void expect(plait_subscriber *subscriber, uint64_t number, size_t size)
{
    plait_message *message = next(subscriber);
    CHECK_INT(plait_message_body(message).size, size);
    CHECK_INT(plait_message_encoding(message), PLAIT_ARRAY);
    CHECK(is_pattern(plait_message_body(message), number));
}

struct pair {
    plait_publisher *publisher;
    plait_subscriber *subscriber;
};

static struct pair pair_of(const char *topic, int reliable)
{
    struct pair pair;
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.reliable = reliable;
    options.listen = "tcp://127.0.0.1:0";
    CHECK_INT(plait_publisher_open(&pair.publisher, topic, &options), 0);
    CHECK_INT(plait_subscriber_open(&pair.subscriber, topic, NULL), 0);
    return pair;
}

static void end(struct pair *pair)
{
    plait_subscriber_close(pair->subscriber);
    plait_publisher_close(pair->publisher);
    free(pattern);
    pattern = NULL;
}

TEST(messages_of_any_size_arrive_whole_and_in_order)
{
    struct pair pair = pair_of("sizes", 0);
    static const size_t sizes[] = { 8, 8192, 8193, 10000, 65536, 100000, 1000000, LARGE, 20000, 9000, LARGE, 8 };
    uint64_t number = 0;
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            publish(pair.publisher, ++number, sizes[i]);
            expect(pair.subscriber, number, sizes[i]);
        }
    }
    end(&pair);
}

TEST(a_large_body_lies_in_a_segment_and_is_read_where_it_was_written)
{
    struct pair pair = pair_of("zero", 0);
    char line[512];
    int found = 0;
    publish(pair.publisher, 1, LARGE);
    uintptr_t address = (uintptr_t)plait_message_body(next(pair.subscriber)).data;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        char mode[8];
        if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || address < from || address >= to) continue;
        found = 1;
        CHECK_STR(mode, "r--s");
        CHECK_CONTAINS(line, "/memfd:plait-segment");
    }
    fclose(maps);
    CHECK(found);
    end(&pair);
}

TEST(a_loan_is_published_without_a_copy_and_is_over_then)
{
    struct pair pair = pair_of("lent", 0);
    plait_loan *loan = NULL, *other = NULL;
    const uint64_t shape[] = { 600, 800, 3 };
    size_t size;
    void *pixels;
    plait_array array;
    CHECK_INT(plait_array_measure("|u1", shape, 3, &size), 0);
    for (int i = 0; i < 100; i++) {
        CHECK_INT(plait_publisher_loan(pair.publisher, size, &loan), 0);
        CHECK((uintptr_t)plait_loan_data(loan) % 64 == 0);
        CHECK_INT(plait_array_write(plait_loan_data(loan), size, "|u1", shape, 3, &pixels), 0);
        memset(pixels, i, size - PLAIT_ARRAY_HEAD);
        CHECK_INT(plait_publisher_publish_loan(pair.publisher, PLAIT_ARRAY, loan, size), 0);
        plait_bytes body = plait_message_body(next(pair.subscriber));
        CHECK_INT(plait_array_read(body.data, body.size, &array), 0);
        CHECK_STR(array.dtype, "|u1");
        CHECK_INT(array.shape[1], 800);
        CHECK_INT(((const uint8_t *)array.data)[array.size - 1], i);
        CHECK_INT(plait_publisher_publish_loan(pair.publisher, PLAIT_ARRAY, loan, size), -EINVAL);
    }
    /* Aborted, too large, small, somebody else's: each is given back. */
    CHECK_INT(plait_publisher_loan(pair.publisher, 20000, &loan), 0);
    plait_loan_abort(loan);
    CHECK_INT(plait_publisher_loan(pair.publisher, 20000, &loan), 0);
    CHECK_INT(plait_publisher_publish_loan(pair.publisher, PLAIT_BYTES, loan, 20001), -EINVAL);
    CHECK_INT(plait_publisher_loan(pair.publisher, 100, &loan), 0);
    memcpy(plait_loan_data(loan), "small", 5);
    CHECK_INT(plait_publisher_publish_loan(pair.publisher, PLAIT_UTF8, loan, 5), 0);
    CHECK_INT(plait_message_body(next(pair.subscriber)).size, 5);
    plait_publisher *second = NULL;
    CHECK_INT(plait_publisher_open(&second, "lent.second", NULL), 0);
    CHECK_INT(plait_publisher_loan(second, 20000, &loan), 0);
    CHECK_INT(plait_publisher_loan(second, 20000, &other), 0);
    CHECK_INT(plait_publisher_publish_loan(pair.publisher, PLAIT_BYTES, loan, 20000), 0);
    CHECK_INT(plait_message_body(next(pair.subscriber)).size, 20000);
    plait_publisher_close(second);
    memset(plait_loan_data(other), 1, 20000);
    plait_loan_abort(other); /* after its publisher */
    plait_loan *all[PLAIT_SEGMENTS_MAX + 1];
    int count = 0, r = 0;
    while ((r = plait_publisher_loan(pair.publisher, 20000, &all[count])) == 0) CHECK(++count <= PLAIT_SEGMENTS_MAX);
    CHECK_INT(r, -ENOBUFS);
    CHECK_CONTAINS(plait_error_text(), "loans ");
    for (int i = 0; i < count; i++) plait_loan_abort(all[i]);
    end(&pair);
}

TEST(large_messages_fault_no_pages_once_the_segments_are_made)
{
    struct pair pair = pair_of("warm", 0);
    struct rusage before, after;
    for (uint64_t i = 1; i <= 40; i++) {
        publish(pair.publisher, i, LARGE);
        expect(pair.subscriber, i, LARGE);
    }
    getrusage(RUSAGE_SELF, &before);
    for (uint64_t i = 41; i <= 60; i++) {
        publish(pair.publisher, i, LARGE);
        expect(pair.subscriber, i, LARGE);
    }
    getrusage(RUSAGE_SELF, &after);
    if (!test_sanitized()) CHECK(after.ru_minflt - before.ru_minflt < 20);
    end(&pair);
}

TEST(held_messages_stay_while_thousands_follow_and_all_else_is_closed)
{
    enum { HELD = 20 };
    struct pair pair = pair_of("kept", 0);
    plait_message *held[HELD];
    for (uint64_t i = 0; i < HELD; i++) { /* beyond PLAIT_HOLD_MAX they are copies */
        publish(pair.publisher, i, 100000);
        CHECK_INT(plait_message_hold(next(pair.subscriber), &held[i]), 0);
    }
    for (uint64_t i = HELD; i < 1000; i++) publish(pair.publisher, i, 100000);
    for (uint64_t i = 0; i < HELD; i++) CHECK(is_pattern(plait_message_body(held[i]), i));
    plait_subscriber_close(pair.subscriber);
    for (uint64_t i = 1000; i < 1500; i++) publish(pair.publisher, i, 100000);
    for (uint64_t i = 0; i < HELD; i++) CHECK(is_pattern(plait_message_body(held[i]), i));
    plait_publisher_close(pair.publisher);
    for (uint64_t i = 0; i < HELD; i++) {
        CHECK(is_pattern(plait_message_body(held[i]), i));
        plait_message_release(held[i]);
    }
    free(pattern);
}

TEST(ten_thousand_held_messages_stall_nobody)
{
    enum { HELD = 10000 };
    static plait_message *held[HELD];
    struct pair pair = pair_of("list", 1);
    for (uint64_t i = 0; i < HELD; i++) {
        publish(pair.publisher, i, 9000);
        CHECK_INT(plait_message_hold(next(pair.subscriber), &held[i]), 0);
    }
    for (uint64_t i = 0; i < HELD; i++) {
        CHECK(is_pattern(plait_message_body(held[i]), i));
        plait_message_release(held[i]);
    }
    end(&pair);
}

TEST(a_slow_subscriber_of_latest_counts_the_large_messages_that_are_gone)
{
    struct pair pair = pair_of("gone", 0);
    for (uint64_t i = 1; i <= 100; i++) publish(pair.publisher, i, 50000);
    publish(pair.publisher, 101, 8);
    uint64_t received = 0, lost = 0;
    plait_message *message = NULL;
    while (plait_subscriber_next(pair.subscriber, PLAIT_NOW, &message) == 0) {
        received++;
        lost += plait_message_lost(message, NULL);
        CHECK(is_pattern(plait_message_body(message), plait_message_number(message)));
    }
    CHECK_INT(received + lost, 101);
    CHECK(received >= 4 && lost > 50);
    end(&pair);
}

TEST(reliable_loses_no_large_message)
{
    enum { MESSAGES = 500 };
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.reliable = 1;
    options.wait_subscribers = 3;
    options.timeout = 30000;
    pid_t children[3];
    for (int c = 0; c < 3; c++) {
        children[c] = fork();
        if (children[c] != 0) continue;
        plait_subscriber *subscriber = NULL;
        CHECK_INT(plait_subscriber_open(&subscriber, c == 2 ? "sure?shm=off" : "sure", NULL), 0);
        for (uint64_t i = 1; i <= MESSAGES; i++) expect(subscriber, i, 8193 + i * 100);
        plait_subscriber_close(subscriber);
        _exit(0);
    }
    plait_publisher *publisher = NULL;
    CHECK_INT(plait_publisher_open(&publisher, "sure", &options), 0);
    for (uint64_t i = 1; i <= MESSAGES; i++) publish(publisher, i, 8193 + i * 100);
    plait_publisher_close(publisher);
    for (int c = 0; c < 3; c++) CHECK_INT(test_wait_child(children[c]), 0);
    free(pattern);
}

TEST(over_tcp_large_messages_are_the_same)
{
    struct pair pair = pair_of("far", 1);
    plait_subscriber *far = NULL;
    CHECK_INT(plait_subscriber_open(&far, plait_publisher_url(pair.publisher, 0), NULL), 0);
    for (uint64_t i = 1; i <= 10; i++) {
        publish(pair.publisher, i, LARGE);
        expect(far, i, LARGE);
        expect(pair.subscriber, i, LARGE);
    }
    plait_subscriber_close(far);
    end(&pair);
}

TEST(a_late_subscriber_gets_large_history)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    plait_subscriber_options wish = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    struct pair pair;
    options.history = 10;
    wish.history = 10;
    CHECK_INT(plait_publisher_open(&pair.publisher, "late", &options), 0);
    for (uint64_t i = 1; i <= 50; i++) publish(pair.publisher, i, 30000);
    CHECK_INT(plait_subscriber_open(&pair.subscriber, "late", &wish), 0);
    for (uint64_t i = 41; i <= 50; i++) expect(pair.subscriber, i, 30000);
    end(&pair);
}

TEST(a_reader_that_dies_gives_back_and_a_writer_that_dies_leaves_views_valid)
{
    int ready[2];
    char byte;
    plait_subscriber *subscriber = NULL;
    plait_message *held = NULL;
    CHECK_INT(pipe(ready), 0);
    pid_t writer = fork();
    if (writer == 0) {
        plait_publisher *publisher = NULL;
        plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
        options.wait_subscribers = 2;
        options.timeout = 30000;
        CHECK_INT(plait_publisher_open(&publisher, "mortal", &options), 0);
        publish(publisher, 1, LARGE);
        (void)!write(ready[1], "x", 1);
        pause();
    }
    CHECK_INT(plait_subscriber_open(&subscriber, "mortal", NULL), 0);
    pid_t reader = fork();
    if (reader == 0) {
        plait_subscriber *other = NULL;
        CHECK_INT(plait_subscriber_open(&other, "mortal", NULL), 0);
        expect(other, 1, LARGE);
        (void)!write(ready[1], "x", 1);
        pause();
    }
    CHECK_INT(plait_message_hold(next(subscriber), &held), 0);
    for (int i = 0; i < 2; i++) CHECK_INT(read(ready[0], &byte, 1), 1);
    kill(reader, SIGKILL);
    CHECK_INT(waitpid(reader, NULL, 0), reader);
    kill(writer, SIGKILL);
    CHECK_INT(waitpid(writer, NULL, 0), writer);
    CHECK(is_pattern(plait_message_body(held), 1));
    plait_subscriber_close(subscriber);
    CHECK(is_pattern(plait_message_body(held), 1));
    plait_message_release(held);
    close(ready[0]);
    close(ready[1]);
}

/* Hears what comes meanwhile, which is no message, until this process has only COUNT shared mappings more than BEFORE.
 */
static void await_mappings(plait_subscriber *subscriber, size_t before, size_t count)
{
    plait_message *message = NULL;
    for (int i = 0; i < 2000 && test_count_mappings() > before + count; i++)
        CHECK_INT(plait_subscriber_next(subscriber, 10, &message), -ETIMEDOUT);
    CHECK_INT(test_count_mappings(), before + count);
}

TEST(an_idle_publisher_gives_up_the_memory_of_all_but_the_last_message_and_those_that_are_held)
{
    pl_bulk_idle_ns = 50000000;
    struct pair pair = pair_of("idle", 0);
    plait_subscriber_options wish = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *late = NULL;
    plait_message *held = NULL;
    size_t before = test_count_mappings();
    publish(pair.publisher, 1, LARGE);
    CHECK_INT(plait_message_hold(next(pair.subscriber), &held), 0);
    for (uint64_t i = 2; i <= 8; i++) {
        publish(pair.publisher, i, LARGE);
        expect(pair.subscriber, i, LARGE);
    }
    await_mappings(pair.subscriber, before, 4); /* two segments, each mapped for writing and for reading */
    CHECK(is_pattern(plait_message_body(held), 1));
    wish.history = 8;
    CHECK_INT(plait_subscriber_open(&late, "idle", &wish), 0);
    expect(late, 8, LARGE);
    plait_subscriber_close(late);
    plait_message_release(held);
    /* It goes on, is idle again, and nobody holds anything then. */
    for (uint64_t i = 9; i <= 20; i++) {
        publish(pair.publisher, i, LARGE);
        expect(pair.subscriber, i, LARGE);
    }
    await_mappings(pair.subscriber, before, 2);
    /* What nobody has read yet stays. */
    for (uint64_t i = 21; i <= 23; i++) publish(pair.publisher, i, LARGE);
    usleep(300000); /* the helper has looked long since, or looks while it is read: the same comes */
    for (uint64_t i = 21; i <= 23; i++) expect(pair.subscriber, i, LARGE);
    end(&pair);
}

TEST(views_of_memory_that_was_given_up_are_unmapped_when_they_are_let_go)
{
    pl_bulk_idle_ns = 20000000;
    struct pair pair = pair_of("views", 0);
    plait_message *held = NULL;
    size_t before = test_count_mappings();
    publish(pair.publisher, 1, LARGE);
    CHECK_INT(plait_message_hold(next(pair.subscriber), &held), 0);
    for (uint64_t round = 0; round < 10; round++) { /* of which each brings new memory */
        for (uint64_t i = 0; i < 5; i++) {
            publish(pair.publisher, 2 + round * 5 + i, LARGE);
            expect(pair.subscriber, 2 + round * 5 + i, LARGE);
        }
        await_mappings(pair.subscriber, before, 4);
    }
    CHECK(is_pattern(plait_message_body(held), 1));
    plait_message_release(held);
    end(&pair);
}

/* Sizes so far apart that most messages bring new memory, more often than a socket holds announcements of it. */
TEST(who_did_not_hear_of_new_memory_in_time_hears_of_it_later)
{
    struct pair pair = pair_of("deaf", 0);
    uint64_t number = 0, received = 0, lost = 0;
    plait_message *message = NULL;
    for (int i = 0; i < 1000; i++) publish(pair.publisher, ++number, i % 3 == 0 ? 9000 : 400000);
    while (plait_subscriber_next(pair.subscriber, PLAIT_NOW, &message) == 0) {
        received++;
        lost += plait_message_lost(message, NULL);
    }
    for (int i = 0; i < 20; i++) {
        publish(pair.publisher, ++number, 9000);
        if (plait_subscriber_next(pair.subscriber, i < 3 ? 10 : 30000, &message) < 0) continue;
        received++;
        lost += plait_message_lost(message, NULL);
        if (i > 8) CHECK_INT(plait_message_lost(message, NULL), 0);
    }
    CHECK_INT(received + lost, number);
    end(&pair);
}

TEST(a_publisher_may_be_gone_before_its_answer_and_its_segments_are_read)
{
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;
    int status = 0;

    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        plait_publisher_options one = PLAIT_PUBLISHER_OPTIONS_INIT;
        plait_publisher *publisher = NULL;
        one.reliable = 1;
        one.wait_subscribers = 1;
        one.timeout = 20000;
        CHECK_INT(plait_publisher_open(&publisher, "brief", &one), 0);
        raise(SIGSTOP);
        publish(publisher, 0, 100);
        publish(publisher, 1, 20000);
        publish(publisher, 2, LARGE);
        plait_publisher_close(publisher);
        _exit(0);
    }
    CHECK_INT(waitpid(child, &status, WUNTRACED), child);
    options.reliable = 1;
    CHECK_INT(plait_subscriber_open(&subscriber, "brief", &options), 0);
    CHECK_INT(plait_subscriber_next(subscriber, 20, &message), -ETIMEDOUT); /* it says hello, to nobody yet */
    CHECK_INT(kill(child, SIGCONT), 0);
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    expect(subscriber, 0, 100);
    expect(subscriber, 1, 20000);
    expect(subscriber, 2, LARGE);
    plait_subscriber_close(subscriber);
}

TEST(messages_beyond_the_limits_are_refused_or_counted)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    plait_subscriber_options wish = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    struct pair pair;
    options.max_message = 100000;
    wish.max_message = 50000;
    CHECK_INT(plait_publisher_open(&pair.publisher, "bounds", &options), 0);
    CHECK_INT(plait_subscriber_open(&pair.subscriber, "bounds", &wish), 0);
    fill(1, 100001);
    CHECK_INT(plait_publisher_publish(pair.publisher, pattern, 100001), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "max_message");
    publish(pair.publisher, 1, 100000);
    publish(pair.publisher, 2, 50000);
    plait_message *message = next(pair.subscriber);
    CHECK_INT(plait_message_number(message), 2);
    CHECK_INT(plait_message_lost(message, NULL), 1);
    end(&pair);
}

TEST(no_memory_for_a_segment_is_an_error_that_names_the_size)
{
    struct pair pair = pair_of("poor", 0);
    if (test_sanitized()) SKIP("a sanitizer needs the addresses");
    publish(pair.publisher, 1, 100000);
    expect(pair.subscriber, 1, 100000);
    struct rlimit all, few;
    getrlimit(RLIMIT_AS, &all);
    few = (struct rlimit){ 300 << 20, all.rlim_max };
    static uint8_t *large;
    large = malloc(200 << 20);
    CHECK(large != NULL);
    setrlimit(RLIMIT_AS, &few);
    CHECK_INT(plait_publisher_publish(pair.publisher, large, 200 << 20), -ENOMEM);
    CHECK_CONTAINS(plait_error_text(), "a message of 209715200 bytes");
    setrlimit(RLIMIT_AS, &all);
    publish(pair.publisher, 2, 100000);
    expect(pair.subscriber, 2, 100000);
    free(large);
    end(&pair);
}
