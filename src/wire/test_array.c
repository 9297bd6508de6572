/* Arrays: the head's bytes, what is refused, and what a peer may claim. */
#include "base/error.h"
#include "wire/test_guard.h"
#include <errno.h>
#include <plait/plait.h>

static int read_at_guard(const uint8_t *bytes, size_t size, plait_array *array)
{
    return plait_array_read(guard_end(bytes, size), size, array);
}

TEST(an_array_comes_out_as_it_went_in)
{
    uint8_t body[PLAIT_ARRAY_HEAD + 24];
    const uint64_t shape[] = { 2, 3 };
    size_t size;
    void *data;
    plait_array array;
    CHECK_INT(plait_array_measure("<f4", shape, 2, &size), 0);
    CHECK_INT(size, sizeof(body));
    CHECK_INT(plait_array_write(body, sizeof(body), "<f4", shape, 2, &data), 0);
    CHECK(data == body + PLAIT_ARRAY_HEAD);
    memset(data, 7, 24);
    CHECK_INT(plait_array_read(body, sizeof(body), &array), 0);
    CHECK_STR(array.dtype, "<f4");
    CHECK_INT(array.dimensions, 2);
    CHECK_INT(array.shape[0], 2);
    CHECK_INT(array.shape[1], 3);
    CHECK_INT(array.item_size, 4);
    CHECK_INT(array.size, 24);
    CHECK(array.data == data);
}

/* As docs/protocol.md has it. */
TEST(the_head_s_bytes_are_frozen)
{
    uint8_t body[PLAIT_ARRAY_HEAD + 8], expected[PLAIT_ARRAY_HEAD] = { 1, 2 };
    memcpy(expected + 8, "<M8[ns]", 7);
    expected[64] = 1;
    expected[72] = 1;
    CHECK_INT(plait_array_write(body, sizeof(body), "<M8[ns]", (uint64_t[]){ 1, 1 }, 2, NULL), 0);
    CHECK_MEM(body, expected, PLAIT_ARRAY_HEAD);
}

TEST(a_single_element_and_an_empty_array_are_arrays)
{
    uint8_t body[PLAIT_ARRAY_HEAD + 1] = { 0 };
    plait_array array;
    CHECK_INT(plait_array_write(body, sizeof(body), "|u1", NULL, 0, NULL), 0);
    CHECK_INT(read_at_guard(body, sizeof(body), &array), 0);
    CHECK_INT(array.size, 1);
    CHECK_INT(plait_array_write(body, sizeof(body), "<i8", (uint64_t[]){ UINT64_MAX, 0, UINT64_MAX }, 3, NULL), 0);
    CHECK_INT(read_at_guard(body, PLAIT_ARRAY_HEAD, &array), 0);
    CHECK_INT(array.size, 0);
    CHECK_INT(array.shape[2] == UINT64_MAX, 1);
}

TEST(types_are_written_as_numpy_writes_them)
{
    static const struct {
        const char *dtype;
        size_t size; /* of an element; 0: refused */
    } cases[] = {
        { "|b1", 1 },     { "|i1", 1 },          { "<i2", 2 },
        { ">u4", 4 },     { "<f2", 2 },          { "<f16", 16 },
        { "<c16", 16 },   { "<m8", 8 },          { "<M8[25us]", 8 },
        { "|S7", 7 },     { "<U5", 20 },         { "|V12", 12 },
        { "f4", 0 },      { "=f4", 0 },          { "<f3", 0 },
        { "<f", 0 },      { "|O8", 0 },          { "|i4", 0 },
        { "<f4 ", 0 },    { "<i8[ns]", 0 },      { "<M8[]", 0 },
        { "<M8[n]s", 0 }, { "|S0", 0 },          { "", 0 },
        { "<", 0 },       { "|V9999999999", 0 }, { "<M8[nanoseconds_and_more]", 0 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t size = PLAIT_ARRAY_HEAD;
        int r = plait_array_measure(cases[i].dtype, NULL, 0, &size);
        CHECK_INT(r, cases[i].size ? 0 : -EINVAL);
        CHECK_INT(size - PLAIT_ARRAY_HEAD, cases[i].size);
        if (r < 0) CHECK_CONTAINS(plait_error_text(), "numpy's dtype.str");
    }
}

TEST(what_is_too_large_is_refused_with_its_limit_s_name)
{
    uint64_t huge[] = { UINT64_MAX / 2, 3 }, many[PLAIT_ARRAY_DIMENSIONS + 1] = { 1 };
    uint8_t body[PLAIT_ARRAY_HEAD + 3];
    size_t size;
    CHECK_INT(plait_array_measure("<f8", huge, 2, &size), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_MESSAGE_MAX");
    CHECK_INT(plait_array_measure("|u1", (uint64_t[]){ PLAIT_MESSAGE_MAX }, 1, &size), -EMSGSIZE);
    CHECK_INT(plait_array_measure("|u1", (uint64_t[]){ PLAIT_MESSAGE_MAX - PLAIT_ARRAY_HEAD }, 1, &size), 0);
    CHECK_INT(plait_array_measure("<f8", many, PLAIT_ARRAY_DIMENSIONS + 1, &size), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_ARRAY_DIMENSIONS");
    CHECK_INT(plait_array_write(body, sizeof(body), "<f4", (uint64_t[]){ 1 }, 1, NULL), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "needs 132 bytes");
    CHECK_INT(plait_array_measure(NULL, NULL, 0, &size), -EINVAL);
}

TEST(a_head_that_lies_is_refused)
{
    uint8_t good[PLAIT_ARRAY_HEAD + 8] = { 0 }, bad[sizeof(good)];
    plait_array array;
    CHECK_INT(plait_array_write(good, sizeof(good), "<u2", (uint64_t[]){ 2, 2 }, 2, NULL), 0);
    CHECK_INT(read_at_guard(good, sizeof(good), &array), 0);
    CHECK_INT(read_at_guard(good, sizeof(good) - 1, &array), -EBADMSG);
    CHECK_CONTAINS(plait_error_text(), "disagree with its size");
    CHECK_INT(read_at_guard(good, PLAIT_ARRAY_HEAD - 1, &array), -EBADMSG);
    CHECK_INT(plait_array_read(NULL, 0, &array), -EBADMSG);
    static const struct {
        size_t at;
        uint8_t value;
    } lies[] = { { 0, 2 },   { 1, 9 },   { 1, 3 },  { 1, 1 },    { 2, 1 },    { 7, 1 },
                 { 8, '!' }, { 9, 'O' }, { 10, 4 }, { 11, 'x' }, { 31, 'x' }, { 32, 1 },
                 { 63, 1 },  { 64, 3 },  { 71, 1 }, { 80, 1 },   { 127, 1 } };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        memcpy(bad, good, sizeof(bad));
        bad[lies[i].at] = lies[i].value;
        CHECK_INT(read_at_guard(bad, sizeof(bad), &array), -EBADMSG);
    }
}
