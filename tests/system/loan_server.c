#include "system/loan_server.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

struct shared *shared_new(void)
{
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    return shared;
}

uint64_t inode_at(const void *address)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    uint64_t found = 0;
    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps)) {
        unsigned long first, last, inode;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &first, &last, access, &inode) != 4) continue;
        if ((uintptr_t)address >= first && (uintptr_t)address < last && access[3] == 's') found = inode;
    }
    fclose(maps);
    return found;
}

uint64_t faults(void)
{
    struct rusage usage;
    CHECK_INT(getrusage(RUSAGE_SELF, &usage), 0);
    return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

void fill(void *memory, size_t size, uint64_t seed)
{
    uint64_t *words = memory;
    for (size_t i = 0; i < size / 8; i++) words[i] = i == 0 ? seed : seed * 0x9e3779b97f4a7c15 + i;
}

bool whole(plait_bytes body)
{
    const uint64_t *words = body.data;
    for (size_t i = 1; i < body.size / 8; i++)
        if (words[i] != words[0] * 0x9e3779b97f4a7c15 + i) return false;
    return body.size >= 8;
}

/* ---- the server ---- */

enum { KEPT = 256 };
static plait_request *kept[KEPT];

static void on_look(plait_request *request, void *context)
{
    struct shared *shared = context;
    plait_bytes body = plait_request_body(request);
    if (!whole(body)) atomic_fetch_add(&shared->bad, 1);
    atomic_store(&shared->inode, inode_at(body.data));
    plait_request_reply(request, NULL, 0);
}

/* Only what a steady state may do. */
static void on_touch(plait_request *request, void *context)
{
    struct shared *shared = context;
    plait_bytes body = plait_request_body(request);
    if (((const uint64_t *)body.data)[0] != body.size) atomic_fetch_add(&shared->bad, 1);
    atomic_store(&shared->faults, faults());
    plait_request_reply(request, NULL, 0);
}

static void on_check(plait_request *request, void *context)
{
    struct shared *shared = context;
    if (!whole(plait_request_body(request))) atomic_fetch_add(&shared->bad, 1);
    plait_request_reply(request, plait_request_body(request).data, 8);
}

/* The body is {size, seed}; the answer is lent. */
static void on_make(plait_request *request, void *context)
{
    uint64_t order[2];
    plait_loan *loan = NULL;
    (void)context;
    CHECK_INT(plait_request_body(request).size, sizeof(order));
    memcpy(order, plait_request_body(request).data, sizeof(order));
    int r = plait_request_reply_loan(request, order[0], &loan);
    if (r < 0) {
        plait_request_fail(request, 1, "%s", plait_error_text());
        return;
    }
    CHECK_INT(plait_loan_size(loan), order[0]);
    fill(plait_loan_data(loan), order[0], order[1]);
    CHECK_INT(plait_request_reply_loaned(request, PLAIT_ARRAY, loan, order[0]), 0);
    CHECK_INT(plait_request_reply_loaned(request, PLAIT_ARRAY, loan, order[0]), -EINVAL);
}

static void on_defer(plait_request *request, void *context)
{
    struct shared *shared = context;
    CHECK_INT(plait_request_defer(request, &kept[atomic_load(&shared->deferred)]), 0);
    atomic_fetch_add(&shared->deferred, 1);
}

/* Answers what is kept, one more each time the director raises `release`; checks each body first. */
static void *answerer(void *context)
{
    struct shared *shared = context;
    while (!atomic_load(&shared->stop)) {
        uint32_t next = atomic_load(&shared->answered);
        if (next == atomic_load(&shared->release) || next == atomic_load(&shared->deferred)) {
            usleep(200);
            continue;
        }
        plait_request *request = kept[next];
        if (!whole(plait_request_body(request))) atomic_fetch_add(&shared->bad, 1);
        plait_loan *loan = NULL;
        if (next % 2 && plait_request_reply_loan(request, 100000, &loan) == 0) {
            fill(plait_loan_data(loan), 100000, next + 1);
            plait_request_reply_loaned(request, PLAIT_BYTES, loan, 100000);
        } else {
            plait_request_reply(request, NULL, 0);
        }
        atomic_fetch_add(&shared->answered, 1);
    }
    return NULL;
}

static plait_server *stopped_by_signal;
static void on_stop(int signal)
{
    (void)signal;
    plait_server_stop(stopped_by_signal, 0);
}

pid_t start_server(const char *name, struct shared *shared, int port_pipe)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        WAIT_UNTIL(atomic_load(&shared->ready) == (uint32_t)pid);
        return pid;
    }
    plait_server *server = NULL;
    pthread_t thread;
    CHECK_INT(plait_server_open(&server, name, NULL), 0);
    if (port_pipe >= 0) {
        char url[200];
        CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0"), 0);
        for (size_t i = 0; plait_server_url(server, i); i++)
            if (strncmp(plait_server_url(server, i), "tcp:", 4) == 0) {
                int n = snprintf(url, sizeof(url), "%s", plait_server_url(server, i));
                CHECK(write(port_pipe, url, (size_t)n + 1) == n + 1);
            }
    }
    CHECK_INT(plait_server_handle(server, "look", on_look, shared), 0);
    CHECK_INT(plait_server_handle(server, "touch", on_touch, shared), 0);
    CHECK_INT(plait_server_handle(server, "check", on_check, shared), 0);
    CHECK_INT(plait_server_handle(server, "make", on_make, shared), 0);
    CHECK_INT(plait_server_handle(server, "defer", on_defer, shared), 0);
    stopped_by_signal = server;
    signal(SIGUSR1, on_stop);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(pthread_create(&thread, NULL, answerer, shared), 0);
    atomic_store(&shared->ready, (uint32_t)getpid());
    while (!atomic_load(&shared->stop)) usleep(500);
    CHECK_INT(pthread_join(thread, NULL), 0);
    for (uint32_t i = atomic_load(&shared->answered); i < atomic_load(&shared->deferred); i++)
        plait_request_fail(kept[i], 1, "over");
    plait_server_close(server);
    leave(0);
}

void stop_server(pid_t pid, struct shared *shared)
{
    atomic_store(&shared->stop, 1);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(atomic_load(&shared->bad), 0);
    munmap(shared, sizeof(*shared));
}

plait_loan *lend(plait_client *client, size_t size)
{
    plait_loan *loan = NULL;
    int r = plait_client_loan(client, size, NULL, &loan);
    if (r < 0) test_fail(__FILE__, __LINE__, "no loan of %zu bytes: %s", size, plait_error_text());
    CHECK(plait_loan_data(loan) != NULL);
    CHECK_INT(plait_loan_size(loan), size);
    CHECK_INT((uintptr_t)plait_loan_data(loan) % 64, 0);
    return loan;
}
