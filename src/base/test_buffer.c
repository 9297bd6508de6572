/* Bytes come out as they went in, whatever moves or fails in between. */
#include "base/buffer.h"

#include "base/error.h"
#include "harness/test.h"
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Allocation that fails on demand. A sanitizer brings its own, which we leave alone. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAN_FAIL false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CAN_FAIL false
#endif
#endif
#ifndef CAN_FAIL
#define CAN_FAIL true
static int fail_after = -1; /* so many succeed first; -1: none fails */
static size_t largest = SIZE_MAX;

void *__libc_realloc(void *memory, size_t size);
void *realloc(void *memory, size_t size);
void *realloc(void *memory, size_t size)
{
    if (fail_after == 0 || size > largest) {
        errno = ENOMEM;
        return NULL;
    }
    if (fail_after > 0) fail_after--;
    return __libc_realloc(memory, size);
}
#endif

TEST(bytes_come_out_in_order)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    CHECK_INT(pl_buffer_append(&buffer, "hello, ", 7), 0);
    CHECK_INT(pl_buffer_append(&buffer, "world", 5), 0);
    CHECK_INT(pl_buffer_size(&buffer), 12);
    CHECK_MEM(pl_buffer_data(&buffer), "hello, world", 12);
    pl_buffer_consume(&buffer, 7);
    CHECK_INT(pl_buffer_size(&buffer), 5);
    CHECK_MEM(pl_buffer_data(&buffer), "world", 5);
    pl_buffer_deinit(&buffer);
}

TEST(nothing_may_be_appended)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    CHECK_INT(pl_buffer_append(&buffer, NULL, 0), 0);
    CHECK_INT(pl_buffer_reserve(&buffer, 0), 0);
    CHECK_INT(pl_buffer_printf(&buffer, "%s", ""), 0);
    CHECK_INT(pl_buffer_size(&buffer), 0);
    pl_buffer_consume(&buffer, 0);
    pl_buffer_deinit(&buffer);
}

TEST(deinit_is_idempotent)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    pl_buffer_append(&buffer, "x", 1);
    pl_buffer_deinit(&buffer);
    pl_buffer_deinit(&buffer);
    pl_buffer_deinit(NULL);
    CHECK_INT(pl_buffer_append(&buffer, "y", 1), 0); /* and it can be used again */
    pl_buffer_deinit(&buffer);
}

TEST(printf_appends_without_the_nul)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    for (int i = 0; i < 1000; i++) CHECK_INT(pl_buffer_printf(&buffer, "%d,", i), 0);
    CHECK_INT(pl_buffer_size(&buffer), 10 * 2 + 90 * 3 + 900 * 4);
    CHECK_MEM(pl_buffer_data(&buffer), "0,1,2,3,4,5,6,7,8,9,10,11,", 26);
    CHECK_MEM(pl_buffer_tail(&buffer) - 8, "998,999,", 8);
    pl_buffer_deinit(&buffer);
}

TEST(a_long_stream_through_a_short_buffer_stays_small)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    unsigned in = 0, out = 0;
    for (int round = 0; round < 20000; round++) {
        for (unsigned n = (unsigned)round * 7 % 400; n > 0; n--) {
            uint8_t byte = (uint8_t)(in++ * 31);
            CHECK_INT(pl_buffer_append(&buffer, &byte, 1), 0);
        }
        while (in - out > (unsigned)round % 97) {
            CHECK_INT(*pl_buffer_data(&buffer), (uint8_t)(out++ * 31));
            pl_buffer_consume(&buffer, 1);
        }
        CHECK_INT(pl_buffer_size(&buffer), in - out);
    }
    CHECK(buffer.capacity <= 4096);
    pl_buffer_deinit(&buffer);
}

TEST(a_long_queue_that_moves_by_one_byte_is_not_moved_each_time)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    TEST_TIMEOUT(20); /* else 2 TB would be copied */
    CHECK_INT(pl_buffer_reserve(&buffer, 1 << 20), 0);
    buffer.end += 1 << 20;
    memset(pl_buffer_data(&buffer), 0, 1 << 20);
    for (int i = 0; i < 2000000; i++) {
        pl_buffer_consume(&buffer, 1);
        CHECK_INT(pl_buffer_append(&buffer, "", 1), 0);
    }
    CHECK(buffer.capacity <= 4 << 20);
    pl_buffer_deinit(&buffer);
}

TEST(reserve_keeps_what_is_there)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    CHECK_INT(pl_buffer_append(&buffer, "abcdef", 6), 0);
    pl_buffer_consume(&buffer, 2);
    for (size_t size = 1; size < 300000; size = size * 3 + 1) {
        CHECK_INT(pl_buffer_reserve(&buffer, size), 0);
        CHECK(pl_buffer_room(&buffer) >= size);
        memset(pl_buffer_tail(&buffer), 0xee, size); /* all of it is ours */
        CHECK_INT(pl_buffer_size(&buffer), 4);
        CHECK_MEM(pl_buffer_data(&buffer), "cdef", 4);
    }
    pl_buffer_deinit(&buffer);
}

TEST(an_empty_large_buffer_gives_its_memory_back)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    CHECK_INT(pl_buffer_reserve(&buffer, 65536), 0);
    buffer.end += 65536;
    pl_buffer_consume(&buffer, 65536);
    CHECK_INT(buffer.capacity, 65536); /* 64 KiB is not large */
    CHECK_INT(pl_buffer_reserve(&buffer, 65537), 0);
    buffer.end += 65537;
    pl_buffer_consume(&buffer, 65536);
    CHECK(buffer.capacity > 0); /* not empty */
    pl_buffer_consume(&buffer, 1);
    CHECK_INT(buffer.capacity, 0);
    CHECK(buffer.memory == NULL);
}

TEST(impossible_sizes_are_refused)
{
    struct pl_buffer buffer = PL_BUFFER_INIT;
    CHECK_INT(pl_buffer_append(&buffer, "abc", 3), 0);
    CHECK_INT(pl_buffer_reserve(&buffer, SIZE_MAX), -ENOMEM);
    CHECK_INT(pl_buffer_reserve(&buffer, SIZE_MAX - 3), -ENOMEM);
    CHECK_INT(pl_buffer_reserve(&buffer, PTRDIFF_MAX), -ENOMEM);
    CHECK_CONTAINS(pl_error_text(), "out of memory");
    CHECK_INT(pl_buffer_size(&buffer), 3);
    CHECK_MEM(pl_buffer_data(&buffer), "abc", 3);
    pl_buffer_deinit(&buffer);
}

TEST(a_failed_allocation_leaves_the_buffer_as_it_was)
{
#if !CAN_FAIL
    SKIP("a sanitizer owns the allocator");
#else
    struct pl_buffer buffer = PL_BUFFER_INIT;
    fail_after = 0;
    CHECK_INT(pl_buffer_append(&buffer, "abc", 3), -ENOMEM);
    CHECK_CONTAINS(pl_error_text(), "no memory");
    CHECK_INT(pl_buffer_printf(&buffer, "abc"), -ENOMEM);
    CHECK_INT(pl_buffer_size(&buffer), 0);
    fail_after = 1;
    CHECK_INT(pl_buffer_append(&buffer, "abc", 3), 0);
    pl_buffer_consume(&buffer, 1);
    char more[1000] = "";
    CHECK_INT(pl_buffer_append(&buffer, more, sizeof more), -ENOMEM);
    CHECK_INT(pl_buffer_size(&buffer), 2);
    CHECK_MEM(pl_buffer_data(&buffer), "bc", 2);
    fail_after = -1;
    CHECK_INT(pl_buffer_append(&buffer, more, sizeof more), 0);
    CHECK_INT(pl_buffer_size(&buffer), 1002);
    pl_buffer_deinit(&buffer);
#endif
}

TEST(scarce_memory_is_asked_for_exactly)
{
#if !CAN_FAIL
    SKIP("a sanitizer owns the allocator");
#else
    struct pl_buffer buffer = PL_BUFFER_INIT;
    CHECK_INT(pl_buffer_reserve(&buffer, 4096), 0);
    buffer.end += 4096;
    largest = 5000; /* doubling doesn't fit, what is needed does */
    CHECK_INT(pl_buffer_reserve(&buffer, 904), 0);
    CHECK_INT(pl_buffer_reserve(&buffer, 905), -ENOMEM);
    largest = SIZE_MAX;
    pl_buffer_deinit(&buffer);
#endif
}
