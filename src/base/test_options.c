/* Options of other versions: what an older or a newer header's struct means here. */
#include "base/error.h"
#include "base/options.h"
#include "harness/test.h"

#include <errno.h>
#include <plait/plait.h>
#include <stdint.h>

struct known {
    size_t size;
    int32_t first;
    uint32_t second;
};

struct later {
    struct known known;
    uint64_t third;
};

TEST(no_options_are_all_defaults)
{
    struct known known = { 1, 2, 3 };
    CHECK_INT(pl_options_read(&known, sizeof(known), NULL, "known"), 0);
    CHECK_INT(known.size, sizeof(known));
    CHECK_INT(known.first, 0);
    CHECK_INT(known.second, 0);
}

TEST(what_an_older_header_lacks_is_the_default)
{
    struct known known = { 1, 2, 3 }, given = { .size = offsetof(struct known, second), .first = -7, .second = 8 };
    CHECK_INT(pl_options_read(&known, sizeof(known), &given, "known"), 0);
    CHECK_INT(known.first, -7);
    CHECK_INT(known.second, 0);
}

TEST(what_a_newer_header_has_must_be_zero)
{
    struct known known;
    struct later later = { .known = { .size = sizeof(later), .second = 5 } };
    CHECK_INT(pl_options_read(&known, sizeof(known), &later, "known"), 0);
    CHECK_INT(known.second, 5);
    CHECK_INT(known.size, sizeof(known));
    later.third = (uint64_t)1 << 63;
    CHECK_INT(pl_options_read(&known, sizeof(known), &later, "known"), -E2BIG);
    CHECK_CONTAINS(plait_error_text(), "known asks for something");
}

TEST(a_struct_that_nobody_initialised_is_told)
{
    struct known known, given = { .size = 0 };
    CHECK_INT(pl_options_read(&known, sizeof(known), &given, "known"), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "_INIT");
    given.size = SIZE_MAX;
    CHECK_INT(pl_options_read(&known, sizeof(known), &given, "known"), -EINVAL);
}
