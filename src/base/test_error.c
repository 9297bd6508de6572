/* What callers rely on in an error text: it is the thread's, bounded, and survives being extended. */
#include "base/error.h"

#include "harness/test.h"
#include <errno.h>
#include <limits.h>
#include <plait/plait.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

TEST(text_is_empty_before_the_first_error)
{
    CHECK_STR(pl_error_text(), "");
    CHECK_STR(plait_error_text(), "");
}

TEST(error_returns_its_code_and_keeps_the_text)
{
    CHECK_INT(pl_error(-ENOENT, "service %s: %s", "greeter", "not found"), -ENOENT);
    CHECK_STR(plait_error_text(), "service greeter: not found");
}

TEST(context_goes_before_the_text)
{
    pl_error(-EACCES, "permission denied");
    CHECK_INT(pl_error_in(-EACCES, "file %d", 7), -EACCES);
    CHECK_INT(pl_error_in(-EACCES, "service a"), -EACCES);
    CHECK_STR(pl_error_text(), "service a: file 7: permission denied");
}

TEST(arguments_may_point_into_the_old_text)
{
    pl_error(-EIO, "inner");
    pl_error(-EIO, "outer (%s)", pl_error_text());
    CHECK_STR(pl_error_text(), "outer (inner)");
    pl_error_in(-EIO, "%s, %s", pl_error_text(), pl_error_text());
    CHECK_STR(pl_error_text(), "outer (inner), outer (inner): outer (inner)");
}

TEST(long_texts_are_cut_visibly)
{
    char longer[3000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    pl_error(-EIO, "%s", longer);
    CHECK_INT(strlen(pl_error_text()), 1023);
    CHECK_STR(pl_error_text() + 1020, "...");
    pl_error(-EIO, "%.1020s", longer);
    pl_error_in(-EIO, "context");
    CHECK_INT(strlen(pl_error_text()), 1023);
    CHECK_CONTAINS(pl_error_text(), "context: xxx");
    CHECK_STR(pl_error_text() + 1020, "...");
    pl_error(-EIO, "short");
    pl_error_in(-EIO, "%s", longer); /* would leave nothing of the text */
    CHECK_STR(pl_error_text(), "short");
}

static void *fail_elsewhere(void *context)
{
    (void)context;
    CHECK_STR(pl_error_text(), "");
    pl_error(-EIO, "there");
    CHECK_STR(pl_error_text(), "there");
    return NULL;
}

TEST(each_thread_has_its_own_text)
{
    pthread_t thread;
    pl_error(-EIO, "here");
    CHECK_INT(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_STR(pl_error_text(), "here");
}

TEST(words_are_the_same_for_either_sign)
{
    CHECK_STR(pl_error_word(-EACCES), "permission denied");
    CHECK_STR(pl_error_word(EACCES), "permission denied");
    CHECK_STR(pl_error_word(EWOULDBLOCK), pl_error_word(EAGAIN));
}

TEST(every_number_has_a_word)
{
    for (int code = -5000; code <= 5000; code++) CHECK(pl_error_word(code)[0] != '\0');
    CHECK_STR(pl_error_word(4095), "unknown error");
    CHECK_STR(pl_error_word(INT_MIN), "unknown error");
    CHECK_STR(pl_error_word(INT_MAX), "unknown error");
    CHECK(strcmp(pl_error_word(ENOTBLK), "unknown error") != 0); /* not in our table: libc's word */
}

TEST(version_is_the_headers)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", PLAIT_VERSION_MAJOR, PLAIT_VERSION_MINOR, PLAIT_VERSION_PATCH);
    CHECK_STR(plait_version(), PLAIT_VERSION);
    CHECK_STR(plait_version(), text);
}
