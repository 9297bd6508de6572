/* column_python: the Python package calls a server that is written with it, too. The client is a process that makes one
 * call after the other, as it is told through its standard input. */
#include "conformance/conformance.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS = SERVICE_URLS + 16, METHODS_MAX = 16 };

static void be_python(char **arguments)
{
    char script[SERVICE_TEXT];
    const char *source = getenv("PLAIT_SOURCE");
    snprintf(script, sizeof(script), "%s/tests/conformance/python_column.py", source ? source : ".");
    arguments[0] = (char *)"python3";
    arguments[1] = script;
    execv("/usr/bin/python3", arguments);
    perror("/usr/bin/python3");
    _exit(1);
}

/* ---- the server ---- */

static void serve(const struct cell *cell, const struct service_options *options, int out, int stop)
{
    static char urls[METHODS_MAX][SERVICE_TEXT];
    char limit[24], threads[16], out_text[16], stop_text[16], methods[SERVICE_TEXT], *save = NULL;
    char *arguments[ARGUMENTS] = { NULL,
                                   NULL,
                                   (char *)"serve",
                                   (char *)framing_name(cell->framing),
                                   (char *)(options->methods ? options->methods : ""),
                                   (char *)(options->name ? options->name : SERVICE_NAME),
                                   limit,
                                   threads,
                                   (char *)(options->foreign_loop ? "1" : "0"),
                                   (char *)cell->transport->option };
    int count = 10, listeners = 0;
    snprintf(limit, sizeof(limit), "%llu", cell->transport->listen ? 0ull : (unsigned long long)options->max_message);
    snprintf(threads, sizeof(threads), "%d", options->threads);
    snprintf(methods, sizeof(methods), "%s", cell->framing == FRAMING_PLAIT ? "*" : options->methods);
    for (char *method = strtok_r(methods, " ", &save); cell->transport->listen && method && listeners < METHODS_MAX;
         method = strtok_r(NULL, " ", &save)) {
        service_listen_url(urls[listeners], cell, options, method);
        arguments[count++] = urls[listeners++];
    }
    snprintf(out_text, sizeof(out_text), "%d", dup(out));
    snprintf(stop_text, sizeof(stop_text), "%d", dup(stop));
    arguments[count++] = out_text;
    arguments[count++] = stop_text;
    close(out);
    close(stop);
    be_python(arguments);
}

/* ---- the client ---- */

struct python_client {
    pid_t pid;
    int socket;
    bool named; /* the framing carries methods */
};

struct head {
    int32_t result;
    uint32_t status;
    uint64_t size, text_size;
};

static void put(int fd, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
        CHECK(n > 0);
        done += (size_t)n;
    }
}

static void get(int fd, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)data + done, size - done);
        CHECK(n > 0);
        done += (size_t)n;
    }
}

static void hear(struct python_client *own, struct answer *answer)
{
    struct head head;
    get(own->socket, &head, sizeof(head));
    *answer = (struct answer){ .result = head.result, .status = head.status, .size = head.size };
    if (head.result == 0) {
        answer->data = malloc(answer->size + 1);
        CHECK(answer->data != NULL);
        get(own->socket, answer->data, answer->size);
        answer->data[answer->size] = 0;
    }
    char *text = calloc(head.text_size + 1, 1);
    CHECK(text != NULL);
    get(own->socket, text, head.text_size);
    snprintf(answer->text, sizeof(answer->text), "%s", text);
    free(text);
}

static void *open_client_process(const struct cell *cell, const char *url, const struct settings *settings)
{
    struct python_client *own = calloc(1, sizeof(*own));
    struct answer opened;
    char target[SERVICE_TEXT + 32], limit[24];
    int ends[2];
    CHECK(own != NULL);
    snprintf(target, sizeof(target), "%s", url);
    add_option(target, sizeof(target), settings->until_eof ? "until=eof" : "");
    snprintf(limit, sizeof(limit), "%llu", (unsigned long long)settings->max_message);
    own->named = cell->framing == FRAMING_PLAIT;
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    own->pid = fork();
    CHECK(own->pid >= 0);
    if (own->pid == 0) {
        char *arguments[] = { NULL, NULL, (char *)"call", target, limit, NULL };
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], 0);
        dup2(ends[1], 1);
        be_python(arguments);
    }
    close(ends[1]);
    own->socket = ends[0];
    hear(own, &opened);
    if (opened.result < 0) test_fail(__FILE__, __LINE__, "%s: %s", target, opened.text);
    answer_free(&opened);
    return own;
}

static void call(void *client, const char *method, const void *data, size_t size, int64_t timeout,
                 struct answer *answer)
{
    struct python_client *own = client;
    const char *name = own->named ? method : "";
    uint64_t head[3] = { strlen(name), size, (uint64_t)timeout };
    put(own->socket, head, sizeof(head));
    put(own->socket, name, strlen(name));
    put(own->socket, data, size);
    hear(own, answer);
}

static void close_client_process(void *client)
{
    struct python_client *own = client;
    int status;
    close(own->socket);
    CHECK_INT(waitpid(own->pid, &status, 0), own->pid);
    CHECK_INT(status, 0);
    free(own);
}

const struct column column_python = {
    .name = "python",
    .framings = ALL,
    .can = CALLS | DEADLINES | LIMITS | OWN_SERVICE | ONE_PROCESS | SIZES,
    .patience = 500,
    .serve = serve,
    .open = open_client_process,
    .call = call,
    .close = close_client_process,
};
