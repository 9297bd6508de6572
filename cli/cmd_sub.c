/* plait sub: prints what a topic's publishers say. */
#include "clock.h"
#include "command.h"
#include "message.h"
#include "output.h"
#include <errno.h>
#include <plait/plait.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static const char *const causes[] = { "nothing", "overrun", "dropped", "died", "reconnected" };

static bool raw, reliable, json;
static int64_t count_limit, history, timeout;

static void print_json(const plait_message *message)
{
    plait_lost why;
    uint64_t lost = plait_message_lost(message, &why);

    json_begin("message");
    json_text("topic", plait_message_topic(message));
    json_id("publisher", plait_message_publisher(message));
    json_number("number", plait_message_number(message));
    json_decimal("time_ms", (double)plait_message_time(message) / 1e6);
    json_text("encoding", encoding_names[plait_message_encoding(message) & 3]);
    if (why != PLAIT_LOST_NOTHING) {
        json_number("lost", lost);
        json_text("why", causes[why]);
    }
    json_body(plait_message_body(message));
    json_end();
}

static void print(const plait_message *message, const char *topic)
{
    plait_bytes body = plait_message_body(message);

    if (plait_message_lost(message, NULL) > 0) {
        fflush(stdout);
        complain("sub %s: %s", topic, plait_message_lost_text(message));
    }
    if (body.size > 0) fwrite(body.data, 1, body.size, stdout);
    if (!raw) putchar('\n');
}

/* What was written goes out before we wait, and not before. A reader that goes away while nothing comes is noticed,
 * too: -EPIPE. -ETIMEDOUT has no text. */
static int next(plait_subscriber *subscriber, plait_message **ret_message)
{
    int64_t until = timeout == 0 || timeout == PLAIT_FOREVER ? INT64_MAX : now_ns() + timeout * 1000000, left;
    struct pollfd fds[2] = { { .events = POLLIN }, { .fd = STDOUT_FILENO } };
    int r;

    while ((r = plait_subscriber_next(subscriber, PLAIT_NOW, ret_message)) == -EAGAIN) {
        if (fds[0].fd == 0) {
            fflush(stdout);
            if (output_failed()) return -EPIPE;
            fds[0].fd = plait_subscriber_fd(subscriber);
            if (fds[0].fd < 0) return fds[0].fd;
            continue; /* from now on the descriptor tells, of what came before it was asked for as well */
        }
        left = until == INT64_MAX ? INT64_MAX : until - now_ns();
        if (left <= 0) return -ETIMEDOUT;
        if (poll(fds, 2, left > 1000000000000 ? -1 : (int)((left + 999999) / 1000000)) > 0 && fds[1].revents & POLLERR)
            return -EPIPE;
    }
    return r;
}

static int run(int argc, char **argv)
{
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;
    int r, status = STATUS_OK;

    if (argc < 2 || !argv[1][0]) return command_usage("sub", "to what? Give a TOPIC");
    if (argc > 2) return command_usage("sub", "%s: one TOPIC at a time (sensors.* is all that begin so)", argv[2]);
    options.history = (uint32_t)history;
    options.reliable = reliable ? PLAIT_RELIABLE_YES : PLAIT_RELIABLE_NO;
    if (timeout > 0) options.connect_timeout = timeout;
    log_complaints(PLAIT_LOG_ERROR);
    r = plait_subscriber_open(&subscriber, argv[1], &options);
    if (r < 0) return (int)command_failed(r, "sub %s", argv[1]);
    if (plait_subscriber_publishers(subscriber) == 0 && isatty(STDERR_FILENO) && !json)
        fprintf(stderr, "plait: waiting for %s to be published\n", argv[1]);
    for (int64_t n = 0; (count_limit == 0 || n < count_limit) && !output_failed(); n++) {
        r = next(subscriber, &message);
        if (r < 0) break;
        if (json) print_json(message);
        else print(message, argv[1]);
    }
    if (r == -ETIMEDOUT) {
        complain("sub %s: no message within %lld ms%s", argv[1], (long long)timeout,
                 plait_subscriber_publishers(subscriber) == 0 ? " (nobody publishes it here)" : "");
        status = STATUS_TIMED_OUT;
    } else if (r < 0 && r != -EPIPE) {
        status = (int)command_failed(r, "sub %s", argv[1]);
    }
    plait_subscriber_close(subscriber);
    return status;
}

static const struct option options[] = {
    { .name = "--count",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &count_limit,
      .minimum = 1,
      .maximum = INT64_MAX,
      .help = "end after N messages" },
    { .name = "--history",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &history,
      .maximum = UINT32_MAX,
      .help = "begin with the last N messages of each publisher that is there" },
    { .name = "--reliable",
      .kind = OPTION_FLAG,
      .value = &reliable,
      .help = "lose nothing: refuse publishers that aren't reliable, and make those\n"
              "that are wait for this reader. Without it none is ever held up" },
    { .name = "--raw", .kind = OPTION_FLAG, .value = &raw, .help = "no newline behind each message" },
    { .name = "--timeout",
      .argument = "T",
      .kind = OPTION_DURATION,
      .value = &timeout,
      .help = "give up when no message comes for T (exit status 4); default: never" },
    { .name = "--json",
      .kind = OPTION_FLAG,
      .value = &json,
      .help = "an object for each message, kind \"message\": topic, publisher, number,\n"
              "time_ms, encoding, size, text or base64; lost and why after a loss" },
    { .name = NULL },
};

const struct command command_sub = {
    .name = "sub",
    .arguments = "TOPIC",
    .summary = "print a topic's messages",
    .options = options,
    .text = "TOPIC is a name, all topics that begin so ('sensors.*'), or tcp://HOST:PORT/TOPIC. An absent\n"
            "topic is waited for, and publishers may come and go meanwhile. Messages that were lost, since\n"
            "this reader was too slow, are counted on standard error.\n"
            "\n"
            "Examples:\n"
            "  plait sub news\n"
            "  plait sub --history 1 --count 1 clock      the last value\n"
            "  plait sub 'sensors.*' --json | jq -r .text\n"
            "  plait sub --reliable log | grep ERROR\n",
    .run = run,
};
