/* A server in a child process, called by every transport: what the other checks promise, put to the test. */
#include "clock.h"
#include "doctor.h"
#include <errno.h>
#include <fcntl.h>
#include <plait/plait.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALLS 200
#define BODY 64
#define PATIENCE 5000 /* ms for anything that should take none */

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);

    (void)context;
    plait_request_reply(request, body.data, body.size);
}

/* In the child: tells "=URL" or what is wrong, then serves until SIGTERM. */
static void serve(const char *name, int news)
{
    plait_server *server = NULL;
    int r = plait_server_open(&server, name, NULL);

    if (r == 0) r = plait_server_handle(server, "", echo, NULL);
    if (r == 0) r = plait_server_listen(server, "tcp://127.0.0.1:0");
    dprintf(news, "%s%s", r == 0 ? "=" : "", r == 0 ? plait_server_url(server, 0) : plait_error_text());
    close(news);
    if (r == 0) plait_server_run(server);
    plait_server_close(server);
}

/* Reads the child's news to the end; false: it said nothing in time. */
static bool hear(int news, char *text, size_t size)
{
    size_t used = 0;
    ssize_t n = 1;

    while (n > 0 && used < size - 1) {
        struct pollfd fd = { news, POLLIN, 0 };
        if (poll(&fd, 1, PATIENCE) <= 0) return false;
        n = read(news, text + used, size - 1 - used);
        used += n > 0 ? (size_t)n : 0;
    }
    text[used] = 0;
    return used > 0;
}

static int compare(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* 0 and the median, or a negative errno; -EBADMSG: the echo was wrong. */
static int measure(plait_client *client, int64_t *ret_median)
{
    int64_t times[CALLS];
    char body[BODY];

    memset(body, 'x', sizeof(body));
    for (int i = 0; i < CALLS; i++) {
        plait_reply *reply = NULL;
        int64_t begun = now_ns();
        int r = plait_client_call(client, "", body, sizeof(body), NULL, &reply);
        bool right;
        times[i] = now_ns() - begun;
        if (r < 0) {
            plait_reply_free(reply);
            return r;
        }
        right = plait_reply_body(reply).size == BODY && memcmp(plait_reply_body(reply).data, body, BODY) == 0;
        plait_reply_free(reply);
        if (!right) return -EBADMSG;
    }
    qsort(times, CALLS, sizeof(times[0]), compare);
    *ret_median = times[CALLS / 2];
    return 0;
}

static void try_transport(const char *name, const char *target, plait_transport transport, const char *remark)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    plait_client *client = NULL;
    int64_t median = 0;
    int r;

    options.transport = (int32_t)transport;
    options.connect_timeout = options.timeout = PATIENCE;
    r = plait_client_open(&client, target, &options);
    if (r == 0) r = measure(client, &median);
    if (r == -EBADMSG) doctor_report(VERDICT_FAIL, name, "please report this", "the answer was not what was sent");
    else if (r < 0)
        doctor_report(VERDICT_FAIL, name, "see the checks above; PLAIT_LOG=debug tells more", "%s", plait_error_text());
    else
        doctor_report(VERDICT_OK, name, NULL, "%d calls of %d bytes, median round trip %.1f us%s", CALLS, BODY,
                      (double)median / 1000, remark);
    plait_client_close(client);
}

/* SIGTERM, and SIGKILL for one that doesn't end. */
static void end_child(pid_t pid)
{
    kill(pid, SIGTERM);
    for (int i = 0; i < PATIENCE / 10; i++) {
        if (waitpid(pid, NULL, WNOHANG) != 0) return;
        nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
    }
    doctor_report(VERDICT_FAIL, "stop", "please report this", "the test's server did not end on SIGTERM");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void doctor_loopback(void)
{
    char name[64], news[1024];
    uint64_t id = 0;
    int pipes[2];
    pid_t pid;

    (void)!getrandom(&id, sizeof(id), 0);
    snprintf(name, sizeof(name), "plait-doctor-%016llx", (unsigned long long)id);
    fflush(stdout);
    if (pipe2(pipes, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        doctor_report(VERDICT_FAIL, "loopback", "raise ulimit -n and -u", "no test server: %s", strerror(errno));
        return;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        close(pipes[0]);
        serve(name, pipes[1]);
        _exit(0);
    }
    close(pipes[1]);
    if (!hear(pipes[0], news, sizeof(news))) {
        doctor_report(VERDICT_FAIL, "loopback", "PLAIT_LOG=debug tells more", "the test's server didn't start");
    } else if (news[0] != '=') {
        doctor_report(VERDICT_FAIL, "loopback", "see above", "no server can be started: %s", news);
    } else {
        try_transport("shm", name, PLAIT_TRANSPORT_SHM, "");
        try_transport("unix", name, PLAIT_TRANSPORT_UNIX, "");
        try_transport("tcp", news + 1, PLAIT_TRANSPORT_AUTO, "; a tcp:// listener on loopback admits every local user");
    }
    close(pipes[0]);
    end_child(pid);
}
