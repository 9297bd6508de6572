/* Names: the rule, its error texts, and what is near enough to be suggested. */
#include "base/error.h"
#include "wire/name.h"
#include "wire/test_guard.h"
#include <errno.h>
#include <plait/plait.h>
#include <stdio.h>

static bool valid(const char *name)
{
    size_t size = strlen(name);
    return pl_name_valid((const char *)guard_end(name, size), size);
}

static bool valid_method(const char *name)
{
    size_t size = strlen(name);
    return pl_name_valid_method((const char *)guard_end(name, size), size);
}

TEST(names_are_lower_case_letters_digits_and_marks_behind_the_first)
{
    CHECK(valid("greeter"));
    CHECK(valid("7"));
    CHECK(valid("a.b_c-d9"));
    CHECK(!valid(""));
    CHECK(!valid("Greeter"));
    CHECK(!valid("gReeter"));
    CHECK(!valid(".hidden"));
    CHECK(!valid("-x"));
    CHECK(!valid("_x"));
    CHECK(!valid("a/b"));
    CHECK(!valid("a@b"));
    CHECK(!valid("a b"));
    CHECK(!valid("gr\xc3\xbc\xc3\x9f"));
    CHECK(!pl_name_valid("a\0b", 3));
}

TEST(methods_may_use_capitals_and_begin_with_an_underscore)
{
    CHECK(valid_method("doThat"));
    CHECK(valid_method("DoThat"));
    CHECK(valid_method("_private"));
    CHECK(valid_method("9"));
    CHECK(!valid_method(""));
    CHECK(!valid_method("-x"));
    CHECK(!valid_method(".x"));
    CHECK(!valid_method("a:b"));
}

TEST(a_name_has_at_most_100_bytes)
{
    char name[PLAIT_NAME_MAX + 2];
    memset(name, 'a', sizeof(name));
    CHECK(pl_name_valid((const char *)guard_end(name, PLAIT_NAME_MAX), PLAIT_NAME_MAX));
    CHECK(!pl_name_valid((const char *)guard_end(name, PLAIT_NAME_MAX + 1), PLAIT_NAME_MAX + 1));
    CHECK_INT(pl_name_check("service", name, PLAIT_NAME_MAX), 0);
    CHECK_INT(pl_name_check("service", name, PLAIT_NAME_MAX + 1), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "101 bytes: at most 100 are allowed (PLAIT_NAME_MAX)");
}

TEST(every_single_byte_is_judged_alike_by_check_and_valid)
{
    for (int first = 0; first < 256; first++) {
        char name[2] = { (char)first, 'a' }, later[2] = { 'a', (char)first };
        CHECK_INT(pl_name_check("x", name, 2) == 0, pl_name_valid(name, 2));
        CHECK_INT(pl_name_check("x", later, 2) == 0, pl_name_valid(later, 2));
        CHECK_INT(pl_name_check_method(name, 2) == 0, pl_name_valid_method(name, 2));
        CHECK_INT(pl_name_check_method(later, 2) == 0, pl_name_valid_method(later, 2));
        CHECK(!pl_name_valid(name, 2) || pl_name_valid_method(name, 2));
    }
}

TEST(a_refused_name_is_told_with_its_first_bad_character_and_the_rule)
{
    CHECK_INT(pl_name_check("service", "greeTer", 7), -EINVAL);
    CHECK_STR(pl_error_text(),
              "the service name 'greeTer' has 'T' at position 5: use a-z and 0-9, and behind the first also '.', '_' "
              "and '-'");
    CHECK_INT(pl_name_check("topic", "", 0), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "the topic name is empty");
    CHECK_INT(pl_name_check_method("-x", 2), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "the method name '-x' has '-' at position 1: use letters, digits and '_'");
}

TEST(a_refused_name_cannot_carry_control_characters_into_the_error)
{
    char name[200];
    memset(name, 0x1b, sizeof(name));
    CHECK_INT(pl_name_check("service", (const char *)guard_end(name, 90), 90), -EINVAL);
    CHECK(strchr(pl_error_text(), 0x1b) == NULL);
    CHECK_CONTAINS(pl_error_text(), "\\x1b\\x1b");
    CHECK_CONTAINS(pl_error_text(), "...'");
    CHECK_INT(pl_name_check("service", (const char *)guard_end(name, 200), 200), -EINVAL);
    CHECK(strchr(pl_error_text(), 0x1b) == NULL);
    CHECK_INT(pl_name_check("service", "a'\\\0", 4), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "'a\\x27\\x5c\\x00' has '\\x27' at position 2");
}

TEST(near_names_differ_by_at_most_two_letters_or_begin_alike)
{
    CHECK(pl_name_near("greeter", "greter"));
    CHECK(pl_name_near("greeter", "geeetr"));
    CHECK(pl_name_near("greeter", "greeter"));
    CHECK(pl_name_near("greet", "greeter-v2"));
    CHECK(pl_name_near("greeter-v2", "greet"));
    CHECK(pl_name_near("framng", "framing"));
    CHECK(pl_name_near("mehtod", "method"));
    CHECK(!pl_name_near("greeter", "gxxxter"));
    CHECK(!pl_name_near("greeter", "agent"));
    CHECK(!pl_name_near("ab", "cd"));
    CHECK(!pl_name_near("a", "b"));
    CHECK(!pl_name_near("", "greeter"));
    CHECK(!pl_name_near("greeter", ""));
}

TEST(near_takes_strings_of_any_length)
{
    char a[1000], b[1000];
    memset(a, 'a', sizeof(a) - 1);
    memset(b, 'b', sizeof(b) - 1);
    a[999] = b[999] = '\0';
    CHECK(!pl_name_near(a, b));
    a[PLAIT_NAME_MAX] = b[PLAIT_NAME_MAX] = '\0';
    CHECK(!pl_name_near(a, b));
    memset(b, 'a', PLAIT_NAME_MAX);
    b[0] = 'b';
    CHECK(pl_name_near(a, b));
}
