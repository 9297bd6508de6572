/* column_command: `plait call`, a process per call. */
#include "conformance/conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct command {
    char url[SERVICE_TEXT];
    bool named; /* the framing carries methods */
    struct settings settings;
};

static void *command_open(const struct cell *cell, const char *url, const struct settings *settings)
{
    struct command *own = calloc(1, sizeof(*own));
    CHECK(own != NULL);
    own->named = cell->framing == FRAMING_PLAIT;
    own->settings = *settings;
    snprintf(own->url, sizeof(own->url), "%s", url);
    return own;
}

/* A file under the test's directory: pipes would need somebody to read and write at once. */
static int open_file(const char *name, int flags)
{
    char path[SERVICE_TEXT];
    snprintf(path, sizeof(path), "%s/%s", test_directory(), name);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static char *read_file(const char *name, size_t *ret_size)
{
    struct stat status;
    int fd = open_file(name, O_RDONLY);
    CHECK_INT(fstat(fd, &status), 0);
    char *data = malloc((size_t)status.st_size + 1);
    CHECK(data != NULL);
    CHECK_INT(read(fd, data, (size_t)status.st_size), status.st_size);
    data[status.st_size] = 0;
    close(fd);
    *ret_size = (size_t)status.st_size;
    return data;
}

static int run(const char *target, int64_t timeout)
{
    char text[32], path[SERVICE_TEXT];
    const char *build = getenv("PLAIT_BUILD");
    snprintf(text, sizeof(text), "%lldms", (long long)(timeout ? timeout : 30000));
    snprintf(path, sizeof(path), "%s/plait", build ? build : ".");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(open_file("in", O_RDONLY), STDIN_FILENO);
        dup2(open_file("out", O_WRONLY | O_CREAT | O_TRUNC), STDOUT_FILENO);
        dup2(open_file("err", O_WRONLY | O_CREAT | O_TRUNC), STDERR_FILENO);
        execl(path, "plait", "call", target, "-", "--timeout", text, (char *)NULL);
        perror(path);
        _exit(126);
    }
    return test_wait_child(pid);
}

static void command_call(void *client, const char *method, const void *data, size_t size, int64_t timeout,
                         struct answer *answer)
{
    static const int results[] = { 0, -EREMOTEIO, -EINVAL, -EOPNOTSUPP, -ETIMEDOUT, -ECONNRESET };
    struct command *own = client;
    char target[SERVICE_TEXT + 96], option[96] = "";
    size_t text_size;
    snprintf(target, sizeof(target), "%s", own->url);
    if (own->named) snprintf(option, sizeof(option), "method=%s", method);
    add_option(target, sizeof(target), option);
    add_option(target, sizeof(target), own->settings.until_eof ? "until=eof" : "");
    int in = open_file("in", O_WRONLY | O_CREAT | O_TRUNC);
    CHECK_INT(write(in, data, size), size);
    close(in);
    int status = run(target, timeout);
    *answer = (struct answer){ .result = status < 6 ? results[status] : -EIO };
    answer->data = read_file("out", &answer->size);
    char *text = read_file("err", &text_size);
    snprintf(answer->text, sizeof(answer->text), "%s", text);
    free(text);
    if (status == 0) CHECK_STR(answer->text, "");
}

static void command_close(void *client)
{
    free(client);
}

const struct column column_command = {
    .name = "command",
    .framings = ALL,
    .can = CALLS | DEADLINES | OWN_SERVICE | ONE_PROCESS | SIZES,
    .patience = 5,
    .serve = service_run_own,
    .open = command_open,
    .call = command_call,
    .close = command_close,
};
