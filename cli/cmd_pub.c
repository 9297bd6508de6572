/* plait pub: publishes one message, the same one at a rate, or each line of standard input. */
#include "command.h"
#include "message.h"
#include "output.h"
#include <errno.h>
#include <plait/plait.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool lines, reliable, json;
static int64_t rate; /* thousandths of a Hz; 0: all at once */
static int64_t wait_count, count_limit, history, timeout;
static int encoding;
static struct option_list listeners;

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

struct job {
    const char *topic;
    plait_publisher *publisher;
    uint64_t count, bytes;
    struct timespec due; /* of the next message, with --rate */
};

/* Ctrl-C and SIGTERM end it in order, so that subscribers at sockets get what was published. */
static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int open_publisher(struct job *job)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    char urls[4096] = "";
    size_t used = 0;
    const char *url;

    for (int i = 0; i < listeners.count && used < sizeof(urls); i++) {
        const char *item = listeners.items[i];
        if (!item[0] || strchr(item, ' ')) return command_usage("pub", "--listen '%s': not a URL", item);
        used += (size_t)snprintf(urls + used, sizeof(urls) - used, "%s%s", i ? " " : "", item);
    }
    if (used >= sizeof(urls)) return command_usage("pub", "--listen: too many URLs");
    options.reliable = reliable;
    options.history = (uint32_t)history;
    options.wait_subscribers = (uint32_t)wait_count;
    options.timeout = timeout;
    options.listen = used > 0 ? urls : NULL;
    /* To wait for subscribers is what was asked for: for ever, unless there is a limit. */
    if (wait_count > 0 && timeout == 0 && !reliable) options.timeout = PLAIT_FOREVER;
    int r = plait_publisher_open(&job->publisher, job->topic, &options);
    if (r < 0) return claim_failed(r, "pub %s", job->topic);
    for (size_t i = 0; (url = plait_publisher_url(job->publisher, i)) != NULL; i++) announce_listener(url, json);
    return STATUS_OK;
}

/* Sleeps until the next message is due; false: interrupted. */
static bool keep_rate(struct job *job)
{
    int64_t period; /* ns, and what is over of the second before */

    if (rate == 0) return !interrupted;
    if (job->count == 0) clock_gettime(CLOCK_MONOTONIC, &job->due);
    while (!interrupted && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &job->due, NULL) == EINTR) continue;
    period = 1000000000000 / rate + job->due.tv_nsec;
    job->due.tv_sec += period / 1000000000;
    job->due.tv_nsec = period % 1000000000;
    return !interrupted;
}

static int publish(struct job *job, const void *data, size_t size)
{
    int r = plait_publisher_publish_as(job->publisher, (plait_encoding)encoding, data, size);
    if (r < 0) return (int)command_failed(r, "pub %s", job->topic);
    job->count++;
    job->bytes += size;
    return STATUS_OK;
}

static bool enough(const struct job *job)
{
    return count_limit > 0 && job->count >= (uint64_t)count_limit;
}

static int publish_lines(struct job *job)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    int status = STATUS_OK;

    while (status == STATUS_OK && !enough(job) && keep_rate(job) && (size = getline(&line, &room, stdin)) >= 0) {
        if (size > 0 && line[size - 1] == '\n') size--;
        status = publish(job, line, (size_t)size);
    }
    free(line);
    if (status == STATUS_OK && ferror(stdin) && !interrupted) {
        complain("pub %s: standard input: %s", job->topic, strerror(errno));
        status = STATUS_FAILED;
    }
    return status;
}

static int publish_data(struct job *job, const struct data *data)
{
    int status = STATUS_OK;

    while (status == STATUS_OK && keep_rate(job)) {
        status = publish(job, data->bytes, data->size);
        if (enough(job) || (rate == 0 && count_limit == 0)) break;
    }
    return status;
}

static int run(int argc, char **argv)
{
    struct job job = { .topic = argc > 1 ? argv[1] : NULL };
    struct data data = { .owned = NULL };
    int literal, status;

    argc = options_drop_dashes(argc, argv, &literal);
    if (argc < 2 || !argv[1][0]) return command_usage("pub", "where to? Give a TOPIC");
    if (argc == 3 && lines) return command_usage("pub", "--lines reads standard input; leave DATA out");
    job.topic = argv[1];
    status = data_take(&data, "pub", argc, argv, literal);
    if (status != STATUS_OK) return status;
    log_complaints(PLAIT_LOG_ERROR);
    catch_signals();
    status = open_publisher(&job);
    if (status == STATUS_OK) status = lines ? publish_lines(&job) : publish_data(&job, &data);
    if (json && job.publisher) {
        json_begin("published");
        json_text("topic", job.topic);
        json_number("count", job.count);
        json_number("bytes", job.bytes);
        json_number("subscribers", plait_publisher_subscribers(job.publisher));
        json_end();
    }
    plait_publisher_close(job.publisher);
    free(data.owned);
    return status;
}

static const struct option options[] = {
    { .name = "--lines",
      .kind = OPTION_FLAG,
      .value = &lines,
      .help = "publish each line of standard input, without its newline" },
    { .name = "--rate",
      .argument = "HZ",
      .kind = OPTION_DECIMAL,
      .value = &rate,
      .minimum = 1,
      .maximum = 1000000000,
      .help = "so many messages a second (0.1: one in ten), until Ctrl-C or --count" },
    { .name = "--count",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &count_limit,
      .minimum = 1,
      .maximum = INT64_MAX,
      .help = "end after N messages" },
    { .name = "--reliable",
      .kind = OPTION_FLAG,
      .value = &reliable,
      .help = "wait for slow subscribers, each for at most --timeout without progress" },
    { .name = "--wait",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &wait_count,
      .minimum = 1,
      .maximum = 1000000,
      .help = "publish only while there are N subscribers; wait for them" },
    { .name = "--history",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &history,
      .maximum = PLAIT_HISTORY_MAX,
      .help = "keep the last N messages for late subscribers, whatever their size" },
    { .name = "--timeout",
      .argument = "T",
      .kind = OPTION_DURATION,
      .value = &timeout,
      .help = "how long to wait for a subscriber that makes no progress (1 s), and\n"
              "for those of --wait (for ever; 1 s with --reliable)" },
    { .name = "--listen",
      .argument = "URL",
      .kind = OPTION_LIST,
      .value = &listeners,
      .help = "let others subscribe at tcp://HOST:PORT or unix:///PATH, too; repeatable" },
    { .name = "--encoding",
      .argument = "E",
      .kind = OPTION_CHOICE,
      .value = &encoding,
      .choices = encoding_names,
      .help = "what messages are said to be: bytes (the default), utf8, json, array" },
    { .name = "--json",
      .kind = OPTION_FLAG,
      .value = &json,
      .help = "an object for each listener (kind \"listening\"), and at the end kind\n"
              "\"published\": topic, count, bytes, subscribers" },
    { .name = NULL },
};

const struct command command_pub = {
    .name = "pub",
    .arguments = "TOPIC [DATA | -]",
    .summary = "publish messages to a topic",
    .options = options,
    .text = "Without DATA the message is empty; - reads it from standard input; behind -- it may begin with\n"
            "a dash. The topic is there while this runs: without --rate or --lines that is a moment, in\n"
            "which a running subscriber may not have connected yet. --wait 1 waits for one.\n"
            "\n"
            "Examples:\n"
            "  plait pub --wait 1 news 'hello, all'\n"
            "  tail -f log | plait pub --lines log\n"
            "  date | plait pub --rate 1 clock -\n"
            "  plait pub --lines --listen tcp://127.0.0.1:8890 quotes <quotes\n",
    .takes_dashes = true,
    .run = run,
};
