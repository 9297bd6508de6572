/* topic_kills: kill -9 of publishers and subscribers of one topic at random moments, while a publisher and a subscriber
 * that survive go on. Every message carries a checksum; small ones go through the ring, large ones through segments,
 * of which the victims hold some. Afterwards nothing may be left in the survivors, and they must still go on.
 */
#include "harness/test.h"

#include <dirent.h>
#include <errno.h>
#include <plait/plait.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILLS = 1000, SMALL = 4000, LARGE = 60000, PATIENCE_MS = 30000 };

struct survivor {
    _Atomic uint64_t progress;
    _Atomic uint32_t fds, mappings;
};

struct board {
    _Atomic uint32_t stop, look;
    struct survivor publisher, subscriber;
    _Atomic uint64_t lost;
};

struct content {
    uint64_t seed, sum;
    uint8_t bytes[LARGE];
};

static uint64_t sum_of(const uint8_t *bytes, size_t size)
{
    uint64_t sum = 14695981039346656037u;
    for (size_t i = 0; i < size; i++) sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

static void publish_one(plait_publisher *publisher, unsigned *seed)
{
    static struct content content;
    size_t size = (size_t)rand_r(seed) % (rand_r(seed) % 8 == 0 ? LARGE : SMALL);
    content.seed = (uint64_t)rand_r(seed);
    for (size_t i = 0; i < size; i += 64) content.bytes[i] = (uint8_t)(content.seed + i);
    content.sum = sum_of(content.bytes, size);
    int r = plait_publisher_publish(publisher, &content, offsetof(struct content, bytes) + size);
    if (r < 0) test_fail(__FILE__, __LINE__, "publish: %s", plait_error_text());
}

static void check_one(const plait_message *message)
{
    plait_bytes body = plait_message_body(message);
    uint64_t head[2];
    CHECK(body.size >= sizeof head);
    memcpy(head, body.data, sizeof head);
    if (sum_of((const uint8_t *)body.data + sizeof head, body.size - sizeof head) != head[1])
        test_fail(__FILE__, __LINE__, "message %llu is torn", (unsigned long long)plait_message_number(message));
}

static plait_publisher *open_publisher(int reliable)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    plait_publisher *publisher = NULL;
    options.reliable = reliable;
    options.timeout = 20000;
    int r = plait_publisher_open(&publisher, "battle", &options);
    if (r < 0) test_fail(__FILE__, __LINE__, "publisher: %s", plait_error_text());
    return publisher;
}

static plait_subscriber *open_subscriber(void)
{
    plait_subscriber *subscriber = NULL;
    int r = plait_subscriber_open(&subscriber, "battle", NULL);
    if (r < 0) test_fail(__FILE__, __LINE__, "subscriber: %s", plait_error_text());
    return subscriber;
}

static void show(struct board *board, struct survivor *survivor)
{
    if (board->look == 0) return;
    survivor->fds = (uint32_t)test_count_fds();
    survivor->mappings = (uint32_t)test_count_mappings();
}

static void survive_publishing(struct board *board)
{
    plait_publisher *publisher = open_publisher(1);
    unsigned seed = 7;
    while (!board->stop) {
        publish_one(publisher, &seed);
        board->publisher.progress++;
        show(board, &board->publisher);
        if (board->publisher.progress % 16 == 0) usleep(200); /* the machine is for others, too */
    }
    plait_publisher_close(publisher);
}

static void survive_subscribing(struct board *board)
{
    plait_subscriber *subscriber = open_subscriber();
    plait_message *message = NULL;
    while (!board->stop) {
        int r = plait_subscriber_next(subscriber, 100, &message);
        show(board, &board->subscriber);
        if (r == -ETIMEDOUT) continue;
        if (r < 0) test_fail(__FILE__, __LINE__, "next: %s", plait_error_text());
        check_one(message);
        board->subscriber.progress++;
        board->lost += plait_message_lost(message, NULL);
    }
    plait_subscriber_close(subscriber);
}

static void fall_publishing(unsigned seed)
{
    plait_publisher *publisher = open_publisher(seed & 1);
    for (;;) publish_one(publisher, &seed);
}

static void fall_subscribing(unsigned seed)
{
    plait_subscriber *subscriber = open_subscriber();
    plait_message *message = NULL, *held = NULL;
    for (;;) {
        if (plait_subscriber_next(subscriber, 1000, &message) < 0) continue;
        check_one(message);
        if (rand_r(&seed) % 4 == 0) CHECK_INT(plait_message_hold(message, &held), 0);
    }
}

static pid_t child(void (*survive)(struct board *), struct board *board, void (*fall)(unsigned), unsigned seed)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (survive != NULL) survive(board);
    else fall(seed);
    _exit(0);
}

/* Both survivors get on by COUNT messages. */
static void await_progress(struct board *board, uint64_t count)
{
    uint64_t published = board->publisher.progress + count, received = board->subscriber.progress + count;
    for (int i = 0; i < PATIENCE_MS; i++) {
        if (board->publisher.progress >= published && board->subscriber.progress >= received) return;
        usleep(1000);
    }
    test_fail(__FILE__, __LINE__, "stuck at %llu published, %llu received",
              (unsigned long long)board->publisher.progress, (unsigned long long)board->subscriber.progress);
}

static struct survivor look_at(struct board *board, struct survivor *survivor)
{
    board->look = 1;
    await_progress(board, 50);
    struct survivor seen = { .fds = survivor->fds, .mappings = survivor->mappings };
    board->look = 0;
    return seen;
}

static int count_entries(void)
{
    char path[512];
    int count = 0;
    snprintf(path, sizeof path, "%s/topics", getenv("PLAIT_DIR"));
    DIR *list = opendir(path);
    CHECK(list != NULL);
    for (struct dirent *item = readdir(list); item != NULL; item = readdir(list)) count += item->d_name[0] != '.';
    closedir(list);
    return count;
}

TEST(a_thousand_kills_of_publishers_and_subscribers_harm_nobody_else)
{
    TEST_TIMEOUT(500);
    unsigned seed = 17;
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(board != MAP_FAILED);
    pid_t publisher = child(survive_publishing, board, NULL, 0),
          subscriber = child(survive_subscribing, board, NULL, 0);
    await_progress(board, 500);
    struct survivor early[2] = { 0 };
    for (int i = 0; i < KILLS; i++) {
        if (i == 50) {
            early[0] = look_at(board, &board->publisher);
            early[1] = look_at(board, &board->subscriber);
        }
        pid_t victim = child(NULL, board, i % 2 == 0 ? fall_publishing : fall_subscribing, (unsigned)i);
        usleep((unsigned)rand_r(&seed) % (i % 8 == 0 ? 20000 : 3000));
        kill(victim, SIGKILL);
        int status = 0;
        CHECK_INT(waitpid(victim, &status, 0), victim);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* and not of something that it found wrong */
    }
    struct survivor late[2] = { look_at(board, &board->publisher), look_at(board, &board->subscriber) };
    for (int i = 0; i < 2; i++) {
        /* A publisher's segments grow in number, up to their limit, with what the victims happened to hold at once; a
         * descriptor that each victim left would be hundreds. */
        if (late[i].fds > early[i].fds + PLAIT_SEGMENTS_MAX ||
            late[i].mappings > early[i].mappings + 2 * PLAIT_SEGMENTS_MAX)
            test_fail(__FILE__, __LINE__, "%s: %u descriptors and %u mappings early, %u and %u late",
                      i == 0 ? "publisher" : "subscriber", early[i].fds, early[i].mappings, late[i].fds,
                      late[i].mappings);
    }
    /* The next claim sweeps what the dead left. */
    plait_publisher *last = open_publisher(0);
    CHECK_INT(count_entries(), 2);
    plait_publisher_close(last);
    board->stop = 1;
    CHECK_INT(test_wait_child(publisher), 0);
    CHECK_INT(test_wait_child(subscriber), 0);
    munmap(board, sizeof *board);
}
