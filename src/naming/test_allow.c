#include "naming/allow.h"

#include "naming/test_support.h"

#include <sys/un.h>

static struct pl_allow parsed(const char *text)
{
    struct pl_allow allow;
    int r = pl_allow_parse(&allow, text);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s", pl_error_text());
    return allow;
}

/* What pl_allow_check says of a caller with UID, GID and the supplementary group EXTRA. */
static int caller(const char *text, uid_t uid, gid_t gid, gid_t extra)
{
    struct pl_allow allow = parsed(text);
    struct sockaddr_un address = { .sun_family = AF_UNIX }; /* autobind */
    socklen_t size = sizeof(sa_family_t);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(listener, (struct sockaddr *)&address, size), 0);
    CHECK_INT(listen(listener, 1), 0);
    size = sizeof address;
    CHECK_INT(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    pid_t child = fork();
    if (child == 0) {
        gid_t groups[100];
        for (int i = 0; i < 100; i++) groups[i] = 60000 + (gid_t)i; /* more than fit at the first try */
        groups[99] = extra;
        if (uid != geteuid()) {
            CHECK_INT(setgroups(extra != 0 ? 100 : 0, groups), 0);
            CHECK_INT(setresgid(gid, gid, gid), 0);
            CHECK_INT(setresuid(uid, uid, uid), 0);
        }
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK_INT(connect(fd, (struct sockaddr *)&address, size), 0);
        char byte;
        (void)!read(fd, &byte, 1);
        _exit(0);
    }
    int fd = accept(listener, NULL, NULL);
    pid_t pid = -7;
    uid_t seen = 4711;
    int r = pl_allow_check(&allow, fd, &pid, &seen);
    if (r == 0) {
        CHECK_INT(pid, child);
        CHECK_INT(seen, uid);
    } else {
        CHECK_INT(pid, -7);
        CHECK_INT(seen, 4711);
    }
    close(fd);
    close(listener);
    CHECK_INT(test_wait_child(child), 0);
    return r;
}

TEST(nothing_allows_nobody_else)
{
    struct pl_allow allow = parsed(NULL);
    CHECK(pl_allow_empty(&allow));
    allow = parsed("");
    CHECK(pl_allow_empty(&allow));
}

TEST(users_uids_groups_and_everybody_can_be_listed)
{
    struct pl_allow allow = parsed("nobody, 1001,@nogroup ,@44");
    CHECK_INT(allow.uid_count, 2);
    CHECK_INT(allow.uids[0], 65534);
    CHECK_INT(allow.uids[1], 1001);
    CHECK_INT(allow.gid_count, 2);
    CHECK_INT(allow.gids[0], 65534);
    CHECK_INT(allow.gids[1], 44);
    CHECK(!allow.everybody);
    CHECK(!pl_allow_empty(&allow));
    allow = parsed("*");
    CHECK(allow.everybody);
    CHECK(!pl_allow_empty(&allow));
}

TEST(what_is_unknown_or_empty_is_named)
{
    struct pl_allow allow;
    memset(&allow, 0x5a, sizeof allow);
    struct pl_allow before = allow;
    CHECK_INT(pl_allow_parse(&allow, "root,no-such-user"), -EINVAL);
    CHECK_STR(pl_error_text(),
              "allow 'root,no-such-user': no user 'no-such-user' (see getent passwd; a uid will do too)");
    CHECK_INT(pl_allow_parse(&allow, "@no-such-group"), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "no group 'no-such-group'");
    CHECK_INT(pl_allow_parse(&allow, "root,,nobody"), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "an empty name");
    CHECK_INT(pl_allow_parse(&allow, "root,"), -EINVAL);
    CHECK_INT(pl_allow_parse(&allow, ","), -EINVAL);
    CHECK_INT(pl_allow_parse(&allow, "@"), -EINVAL);
    CHECK_INT(pl_allow_parse(&allow, "**"), -EINVAL);
    CHECK_INT(pl_allow_parse(&allow, "4294967295"), -EINVAL);
    CHECK_MEM(&allow, &before, sizeof allow); /* untouched */
}

TEST(more_than_fit_are_refused)
{
    char text[256] = "1";
    struct pl_allow allow;
    for (int i = 1; i < 32; i++) strcat(text, ",1");
    CHECK_INT(pl_allow_parse(&allow, text), 0);
    CHECK_INT(allow.uid_count, 32);
    strcat(text, ",1");
    CHECK_INT(pl_allow_parse(&allow, text), -E2BIG);
    CHECK_CONTAINS(pl_error_text(), "more than 32 users");
    strcpy(text, "@1");
    for (int i = 1; i < 33; i++) strcat(text, ",@1");
    CHECK_INT(pl_allow_parse(&allow, text), -E2BIG);
    CHECK_CONTAINS(pl_error_text(), "more than 32 groups");
}

TEST(the_own_uid_is_always_allowed)
{
    CHECK_INT(caller(NULL, geteuid(), getegid(), 0), 0);
}

TEST(root_is_always_allowed)
{
    int pair[2];
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t child = fork();
    if (child == 0) {
        struct pl_allow allow = parsed(NULL);
        pid_t pid = 0;
        uid_t uid = 1;
        be(SOMEBODY);
        CHECK_INT(pl_allow_check(&allow, pair[0], &pid, &uid), 0);
        CHECK_INT(uid, 0);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    close(pair[0]);
    close(pair[1]);
}

TEST(another_user_needs_to_be_listed)
{
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(caller(NULL, SOMEBODY, SOMEBODY, 0), -EACCES);
    CHECK_CONTAINS(pl_error_text(), "uid 54321 is not allowed to call");
    CHECK_INT(caller("54322", SOMEBODY, SOMEBODY, 0), -EACCES);
    CHECK_INT(caller("54322,54321", SOMEBODY, SOMEBODY, 0), 0);
    CHECK_INT(caller("*", SOMEBODY, SOMEBODY, 0), 0);
}

TEST(a_group_is_the_primary_or_a_supplementary_one)
{
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(caller("@777", SOMEBODY, SOMEBODY, 0), -EACCES);
    CHECK_INT(caller("@777", SOMEBODY, 777, 0), 0);
    CHECK_INT(caller("@777", SOMEBODY, SOMEBODY, 777), 0);
    CHECK_INT(caller("@54321", OTHER, SOMEBODY, 0), 0);
    CHECK_INT(caller("777", SOMEBODY, 777, 777), -EACCES); /* a uid is no gid */
}

TEST(what_has_no_peer_is_refused)
{
    struct pl_allow allow = parsed("*");
    pid_t pid;
    uid_t uid;
    CHECK_INT(pl_allow_check(&allow, -1, &pid, &uid), -EBADF);
}
