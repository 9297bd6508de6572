#include "base/user.h"

#include "base/error.h"
#include "harness/test.h"

#include <errno.h>
#include <string.h>

static int uid_of(const char *text)
{
    uid_t uid = 4711;
    int r = pl_user_uid(text, strlen(text), &uid);
    if (r < 0) CHECK_INT(uid, 4711); /* untouched */
    return r < 0 ? r : (int)uid;
}

TEST(users_are_found_by_name_and_by_number)
{
    CHECK_INT(uid_of("root"), 0);
    CHECK_INT(uid_of("0"), 0);
    CHECK_INT(uid_of("54321"), 54321);
}

TEST(only_the_given_bytes_count)
{
    uid_t uid = 1;
    CHECK_INT(pl_user_uid("root,alice", 4, &uid), 0);
    CHECK_INT(uid, 0);
    CHECK_INT(pl_user_uid("12,13", 2, &uid), 0);
    CHECK_INT(uid, 12);
}

TEST(unknown_users_are_named)
{
    CHECK_INT(uid_of("no-such-user"), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "no user 'no-such-user'");
    CHECK_INT(uid_of(""), -EINVAL);
    CHECK_INT(uid_of("-1"), -EINVAL);
}

TEST(ids_that_the_kernel_has_no_room_for_are_refused)
{
    uid_t uid = 0;
    CHECK_INT(pl_user_uid("4294967294", 10, &uid), 0);
    CHECK_INT(uid_of("4294967295"), -EINVAL);
    CHECK_INT(uid_of("99999999999999999999"), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "too large for an id");
}

TEST(groups_are_found_by_name_and_by_number)
{
    gid_t gid = 1;
    CHECK_INT(pl_user_gid("root", 4, &gid), 0);
    CHECK_INT(gid, 0);
    CHECK_INT(pl_user_gid("44", 2, &gid), 0);
    CHECK_INT(gid, 44);
    CHECK_INT(pl_user_gid("no-such-group", 13, &gid), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "no group 'no-such-group'");
}

TEST(a_uid_is_shown_with_its_name)
{
    char text[PL_USER_TEXT];
    CHECK_STR(pl_user_format(0, text), "uid 0 (root)");
    CHECK_STR(pl_user_format(54321, text), "uid 54321");
}
