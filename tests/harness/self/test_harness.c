/* The runner notices what it promises to notice: runs planted_failures and reads what it says. */
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char output[16384];

/* Runs planted_failures with one argument or none; its exit status, its text in `output`. */
static int run_planted(const char *argument)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl(getenv("PLANTED_FAILURES"), "planted_failures", argument, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t got;
    while ((got = read(ends[0], output + used, sizeof(output) - 1 - used)) != 0) {
        CHECK(got > 0 || errno == EINTR);
        if (got > 0) used += (size_t)got;
    }
    output[used] = 0;
    close(ends[0]);
    return test_wait_child(child);
}

TEST(failures_of_every_kind_are_noticed)
{
    CHECK(getenv("PLANTED_FAILURES"));
    CHECK_INT(run_planted(NULL), 1);
    CHECK_CONTAINS(output, "\nFAIL wrong_int: ");
    CHECK_CONTAINS(output, "1 + 1 is 2, expected 3\n");
    CHECK_CONTAINS(output, "differs at byte 2 of 3: 0x63, expected 0x64");
    CHECK_CONTAINS(output, "\nFAIL leaks_a_descriptor: descriptor ");
    CHECK_CONTAINS(output, " was left open: /dev/null\n");
    CHECK_CONTAINS(output, "\nFAIL leaks_a_mapping: 1 shared mappings were left");
    CHECK_CONTAINS(output, "\nskip skips: no reason\n");
    CHECK_CONTAINS(output, "\nFAIL crashes: ended by signal 11");
    CHECK_CONTAINS(output, "\nFAIL is_too_slow: it took more than 1 s\n");
    CHECK_CONTAINS(output, "\nFAIL leaves_a_process: left process ");
    CHECK_CONTAINS(output, "\nFAIL leaves_a_process_of_another_session: left process ");
    CHECK_CONTAINS(output, "\nFAIL fails_in_a_child: ");
    CHECK_CONTAINS(output, "\nFAIL fails_in_a_thread: ");
    CHECK_CONTAINS(output, "\n3 passed, 10 failed, 1 skipped\n");
}

TEST(what_is_right_passes)
{
    CHECK(getenv("PLANTED_FAILURES"));
    run_planted(NULL);
    CHECK(strncmp(output, "ok passes\n", 10) == 0);
    CHECK_CONTAINS(output, "\nok keeps_what_it_settled_for\n");
    CHECK_CONTAINS(output, "\nok leaves_a_process_that_ends_by_itself\n");
}

TEST(one_test_runs_by_name)
{
    CHECK(getenv("PLANTED_FAILURES"));
    CHECK_INT(run_planted("passes"), 0);
    CHECK_STR(output, "ok passes\n");
    CHECK_INT(run_planted("no_such_test"), 2);
    CHECK_INT(run_planted("--list"), 0);
    CHECK_CONTAINS(output, "wrong_int\nwrong_bytes\n");
}
