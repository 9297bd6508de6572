/* Small messages in shared memory while both sides are awake: no system call, no page touched for the first time. */
#include "transport/test_pair.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { MESSAGES = 100000, BODY = 64, WARM_UP = 5000 };

/* From here on every system call but exit_group ends the process with SIGSYS. */
static void forbid_system_calls(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(77);
}

static void exchange(struct shm_pair *pair, unsigned from, unsigned to)
{
    uint8_t body[BODY] = { 0 };
    struct pl_message message;
    for (unsigned i = from; i < to; i++) {
        struct pl_frame call = frame_of(PL_FRAME_CALL, i, sizeof(body)), answer;
        pair->client->ops->send(pair->client, &call, body, 0);
        pair->client->ops->flush(pair->client);
        if (pair->server->ops->receive(pair->server, &message) != PL_TRANSPORT_OK || message.frame.call != i) abort();
        answer = frame_of(PL_FRAME_REPLY, i, message.size);
        pair->server->ops->send(pair->server, &answer, message.body, 0);
        pl_message_release(pair->server, &message);
        pair->server->ops->flush(pair->server);
        if (pair->client->ops->receive(pair->client, &message) != PL_TRANSPORT_OK || message.frame.call != i) abort();
        pl_message_release(pair->client, &message);
    }
}

TEST(a_call_and_its_reply_make_no_system_call_while_both_sides_are_awake)
{
    if (test_sanitized()) SKIP("a sanitizer makes system calls of its own");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct shm_pair pair;
        shm_pair_open(&pair);
        exchange(&pair, 0, WARM_UP);
        forbid_system_calls();
        exchange(&pair, WARM_UP, MESSAGES);
        _exit(0);
    }
    int status = test_wait_child(pid);
    if (status == 77) SKIP("seccomp is not to be had here");
    CHECK_INT(status, 0);
}

TEST(in_steady_state_no_page_is_touched_for_the_first_time)
{
    if (test_sanitized()) SKIP("a sanitizer touches pages of its own");
    struct shm_pair pair;
    struct rusage before, after;
    shm_pair_open(&pair);
    exchange(&pair, 0, WARM_UP);
    CHECK_INT(getrusage(RUSAGE_SELF, &before), 0);
    exchange(&pair, WARM_UP, MESSAGES);
    CHECK_INT(getrusage(RUSAGE_SELF, &after), 0);
    /* The kernel may take a page away and fault it in again; once a lap would be hundreds. */
    CHECK(after.ru_minflt - before.ru_minflt < 20);
    CHECK_INT(after.ru_majflt, before.ru_majflt);
    shm_pair_close(&pair);
}
