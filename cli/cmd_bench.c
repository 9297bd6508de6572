/* plait bench: what a call costs, beside what the bare primitive costs, in the same run.
 *
 * Without --transport, --size or --pattern it measures the table of docs/benchmarks.md. Its
 * services live in a runtime directory of their own, which is gone afterwards.
 */
#include "bench.h"
#include "command.h"
#include "output.h"

#include <errno.h>
#include <ftw.h>
#include <plait/plait.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const transports[] = { "shm", "unix", "tcp", "raw-tcp", "udp", NULL };
static const char *const patterns[] = { "call", "sparse", "oneway", "async", "fanout", NULL };
static const char *const spins[] = { "default", "never", "always", NULL };

static int transport = -1, pattern = -1, spin = -1;
static int64_t size = -1, rounds = 5;
static const char *only;
static bool json;

static const struct option options[] = {
    { .name = "--transport",
      .argument = "T",
      .kind = OPTION_CHOICE,
      .value = &transport,
      .choices = transports,
      .help = "shm, unix, tcp, raw-tcp or udp: one measurement instead of the table" },
    { .name = "--size",
      .argument = "BYTES",
      .kind = OPTION_NUMBER,
      .value = &size,
      .maximum = PLAIT_MESSAGE_MAX,
      .help = "of a message; default 64" },
    { .name = "--pattern",
      .argument = "P",
      .kind = OPTION_CHOICE,
      .value = &pattern,
      .choices = patterns,
      .help = "call, sparse (1 ms of silence before each), oneway, async (256 in\n"
              "flight), or fanout: the table's rows of topics" },
    { .name = "--spin",
      .argument = "S",
      .kind = OPTION_CHOICE,
      .value = &spin,
      .choices = spins,
      .help = "how both sides wait: default (adaptive), never, always" },
    { .name = "--rounds",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &rounds,
      .minimum = 1,
      .maximum = 20,
      .help = "how often everything is measured, by turns; default 5" },
    { .name = "--only",
      .argument = "ROW",
      .kind = OPTION_TEXT,
      .value = &only,
      .help = "of the table, the rows whose name (\"row\" in the JSON) begins so" },
    { .name = "--json", .kind = OPTION_FLAG, .value = &json, .help = "an object for each row, kind \"bench\"" },
    { .name = NULL },
};

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    remove(path);
    return 0;
}

static void interrupted(int number)
{
    (void)number;
    bench_interrupt();
}

static int make_directory(char *path, size_t room)
{
    const char *base = getenv("TMPDIR");

    snprintf(path, room, "%s/plait-bench-XXXXXX", base && base[0] == '/' ? base : "/tmp");
    if (!mkdtemp(path)) {
        complain("bench: %s: %s (set TMPDIR to a directory that you can write to)", path, strerror(errno));
        return -1;
    }
    setenv("PLAIT_DIR", path, 1);
    return 0;
}

static int measure(void)
{
    struct bench_options chosen = {
        .transport = transports[transport < 0 ? 0 : transport],
        .pattern = patterns[pattern < 0 ? 0 : pattern],
        .spin_us = spin <= 0   ? PLAIT_SPIN_DEFAULT
                   : spin == 1 ? PLAIT_SPIN_NEVER
                               : BENCH_SPIN_ALWAYS_US,
        .only = only,
        .size = size < 0 ? 64 : (size_t)size,
        .rounds = (unsigned)rounds,
        .json = json,
    };

    if (pattern >= 0 && strcmp(chosen.pattern, "fanout") == 0) {
        chosen.only = "topic";
        return bench_table(&chosen);
    }
    if (transport >= 0 || pattern >= 0 || spin >= 0 || size >= 0) return bench_single(&chosen);
    return bench_table(&chosen);
}

static int run(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = interrupted };
    char directory[4096];
    int r;

    if (argc > 1) return command_usage("bench", "%s: takes no arguments", argv[1]);
    if (make_directory(directory, sizeof(directory)) < 0) return STATUS_FAILED;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    r = measure();
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (r == -ENOENT) return command_usage("bench", "--only %s: no row begins so", only);
    return r == 0 ? STATUS_OK : STATUS_FAILED;
}

const struct command command_bench = {
    .name = "bench",
    .arguments = "",
    .summary = "measure calls beside the bare kernel primitive that they stand on",
    .options = options,
    .text = "Without --transport, --size or --pattern: the whole table, about two minutes. Client and\n"
            "server are two processes, fresh in each round; plait and the bare primitive take turns, and\n"
            "every reply is compared with its request. The exit status is 1 if a goal was missed.\n"
            "docs/benchmarks.md tells how to read the figures. Let the machine rest meanwhile.\n",
    .run = run,
};
