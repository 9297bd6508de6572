/* plait pub: publishes one message, the same one at a rate, or each line of standard input. */
#include "clock.h"
#include "command.h"
#include "message.h"
#include "output.h"
#include <errno.h>
#include <plait/plait.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static bool lines, reliable, json;
static int64_t rate; /* thousandths of a Hz; 0: all at once */
static int64_t wait_count, count_limit, history, timeout;
static int encoding;
static struct option_list listeners;

struct job {
    const char *topic;
    plait_publisher *publisher;
    uint64_t count, bytes;
    int64_t due; /* ns: when the next message is, with --rate */
};

/* ---- Ctrl-C and SIGTERM ------------------------------------------------------------- */

/* They end it in order, so that subscribers at sockets get what was published. A descriptor tells of them, so that no
 * wait misses one that comes just before it. */
static int stop_fd = -1;
static bool stopped;
static int64_t stopped_at;
static sigset_t stopping;

/* Who asks again, since a subscriber holds up the end, ends the process. But timeout(1) sends one and the same twice:
 * to the process and to its group. */
static void on_second(int number)
{
    if (now_ns() - stopped_at < 100000000) return;
    signal(number, SIG_DFL);
    raise(number);
}

static int catch_signals(void)
{
    struct sigaction second = { .sa_handler = on_second, .sa_flags = SA_RESTART };

    sigaction(SIGINT, &second, NULL);
    sigaction(SIGTERM, &second, NULL);
    sigemptyset(&stopping);
    sigaddset(&stopping, SIGINT);
    sigaddset(&stopping, SIGTERM);
    sigprocmask(SIG_BLOCK, &stopping, NULL);
    stop_fd = signalfd(-1, &stopping, SFD_CLOEXEC | SFD_NONBLOCK);
    if (stop_fd >= 0) return STATUS_OK;
    complain("pub: signalfd: %s", strerror(errno));
    return STATUS_FAILED;
}

static void note_stop(void)
{
    struct signalfd_siginfo info;

    if (read(stop_fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) return;
    stopped = true;
    stopped_at = now_ns();
    sigprocmask(SIG_UNBLOCK, &stopping, NULL);
}

/* Waits until DUE (ns; 0: not at all, -1: for ever), or until FD (-1: none) can be read. False: it shall stop. */
static bool wait_for(int64_t due, int fd)
{
    while (!stopped) {
        struct pollfd fds[2] = { { stop_fd, POLLIN, 0 }, { fd, POLLIN, 0 } };
        int64_t left = due > 0 ? due - now_ns() : 0;
        struct timespec span = { left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0 };
        int n = ppoll(fds, 2, due < 0 ? NULL : &span, NULL);
        if (n == 0 || fds[1].revents) break;
        if (n > 0) note_stop();
    }
    return !stopped;
}

/* What the library asks while it waits for subscribers. */
static int shall_stop(void *context)
{
    (void)context;
    return !wait_for(0, -1);
}

/* ---- publishing --------------------------------------------------------------------- */

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
    options.interrupted = shall_stop;
    /* To wait for subscribers is what was asked for: for ever, unless there is a limit. */
    if (wait_count > 0 && timeout == 0 && !reliable) options.timeout = PLAIT_FOREVER;
    int r = plait_publisher_open(&job->publisher, job->topic, &options);
    if (r < 0) return claim_failed(r, "pub %s", job->topic);
    for (size_t i = 0; (url = plait_publisher_url(job->publisher, i)) != NULL; i++) announce_listener(url, json);
    return STATUS_OK;
}

/* Waits until the next message is due; false: it shall stop. */
static bool keep_rate(struct job *job)
{
    if (rate == 0) return job->count % 64 == 0 ? wait_for(0, -1) : !stopped; /* a look at each would take longer */
    if (job->count == 0) job->due = now_ns();
    if (!wait_for(job->due, -1)) return false;
    job->due += 1000000000000 / rate;
    return true;
}

static int publish(struct job *job, const void *data, size_t size)
{
    int r = plait_publisher_publish_as(job->publisher, (plait_encoding)encoding, data, size);
    if (r == -EINTR && stopped) return STATUS_OK;
    if (r < 0) return (int)command_failed(r, "pub %s", job->topic);
    job->count++;
    job->bytes += size;
    return STATUS_OK;
}

static bool enough(const struct job *job)
{
    return count_limit > 0 && job->count >= (uint64_t)count_limit;
}

/* What of standard input was read: [start, end) is still to be published. */
struct reader {
    char *bytes;
    size_t start, end, room;
    bool over;
};

/* The next line without its newline; the last one may lack it. 1, 0 at the end, -errno, -EINTR: it shall stop. */
static int next_line(struct reader *reader, const char **ret_line, size_t *ret_size)
{
    for (size_t looked = reader->start;;) {
        char *newline = looked < reader->end ? memchr(reader->bytes + looked, '\n', reader->end - looked) : NULL;
        if (newline || (reader->over && reader->start < reader->end)) {
            *ret_line = reader->bytes + reader->start;
            *ret_size = (newline ? (size_t)(newline - reader->bytes) : reader->end) - reader->start;
            reader->start += *ret_size + (newline != NULL);
            return 1;
        }
        if (reader->over) return 0;
        looked = reader->end - reader->start;
        if (reader->start > 0) memmove(reader->bytes, reader->bytes + reader->start, looked);
        reader->start = 0;
        reader->end = looked;
        if (reader->end == reader->room) {
            size_t room = reader->room ? reader->room * 2 : 65536;
            char *larger = realloc(reader->bytes, room);
            if (!larger) return -ENOMEM;
            reader->bytes = larger;
            reader->room = room;
        }
        if (!wait_for(-1, STDIN_FILENO)) return -EINTR;
        ssize_t n = read(STDIN_FILENO, reader->bytes + reader->end, reader->room - reader->end);
        if (n < 0 && errno != EINTR && errno != EAGAIN) return -errno;
        if (n == 0) reader->over = true;
        if (n > 0) reader->end += (size_t)n;
    }
}

static int publish_lines(struct job *job)
{
    struct reader reader = { .bytes = NULL };
    const char *line = NULL;
    size_t size = 0;
    int r = 1, status = STATUS_OK;

    while (status == STATUS_OK && !enough(job) && keep_rate(job) && (r = next_line(&reader, &line, &size)) > 0)
        status = publish(job, line, size);
    free(reader.bytes);
    if (r >= 0 || r == -EINTR) return status;
    complain("pub %s: standard input: %s", job->topic, strerror(-r));
    return STATUS_FAILED;
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
    status = catch_signals();
    if (status == STATUS_OK) status = open_publisher(&job);
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
    if (stop_fd >= 0) close(stop_fd);
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
