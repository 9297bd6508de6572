#include "observe/page.h"

#include "harness/test.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static struct pl_page *open_page(void)
{
    struct pl_page *page = NULL;
    CHECK_INT(pl_page_open(&page), 0);
    return page;
}

static void close_page(struct pl_page *page)
{
    pl_page_unlink(page);
    pl_page_unlink(page);
    pl_page_free(page);
}

TEST(a_text_chunk_that_is_used_again_has_another_word)
{
    static const char *const texts[PL_STATUS_TEXTS] = { "directory", "urls", "methods" };
    struct pl_page *page = open_page();
    uint64_t first, second, third;
    CHECK_INT(pl_page_text(page, texts, &first), 0);
    CHECK_INT(pl_page_text(page, texts, &second), 0);
    CHECK((uint32_t)first != (uint32_t)second);
    uint32_t used = page->used;
    pl_page_text_free(page, first);
    CHECK_INT(pl_page_text(page, texts, &third), 0);
    CHECK_INT((uint32_t)third, (uint32_t)first);
    CHECK(third != first); /* a reader that followed the first finds out */
    CHECK_INT(page->used, used);
    pl_page_text_free(page, 0);
    close_page(page);
}

TEST(slots_lie_apart_in_their_chunks_and_stay_where_they_are)
{
    enum { COUNT = 200 };
    struct pl_page *page = open_page();
    struct pl_page_slot slots[COUNT], again;
    for (int i = 0; i < COUNT; i++) {
        CHECK_INT(pl_page_slot(page, PL_STATUS_CONNECTIONS, &slots[i]), 0);
        memset(slots[i].memory, i, sizeof(struct pl_status_connection_slot));
    }
    for (int i = 0; i < COUNT; i++) {
        const uint8_t *bytes = slots[i].memory;
        CHECK_INT(bytes[0], i);
        CHECK_INT(bytes[sizeof(struct pl_status_connection_slot) - 1], i);
        CHECK(bytes >= page->memory && bytes + sizeof(struct pl_status_connection_slot) <= page->memory + page->used);
    }
    pl_page_slot_free(page, &slots[77]);
    CHECK_INT(pl_page_slot(page, PL_STATUS_CONNECTIONS, &again), 0);
    CHECK(again.memory == slots[77].memory);
    close_page(page);
}

TEST(a_page_ends_at_sixteen_mebibytes)
{
    struct pl_page *page = open_page();
    struct pl_page_slot slot;
    int count = 0, r;
    if (test_sanitized()) SKIP("touches 16 MiB");
    while ((r = pl_page_slot(page, PL_STATUS_CONNECTIONS, &slot)) == 0) count++;
    CHECK_INT(r, -ENOSPC);
    CHECK(count > 63000 && page->used <= PL_STATUS_SIZE_MAX);
    close_page(page);
}

TEST(a_version_is_odd_in_between)
{
    _Atomic uint64_t version = 4;
    pl_page_begin(&version);
    CHECK_INT(version, 5);
    pl_page_end(&version);
    CHECK_INT(version, 6);
}

TEST(a_page_without_a_file_grows_no_more)
{
    struct pl_page *page = open_page();
    struct pl_page_slot slot;
    pl_page_unlink(page);
    for (int i = 0; i < 63; i++) CHECK_INT(pl_page_slot(page, PL_STATUS_CONNECTIONS, &slot), 0);
    CHECK_INT(pl_page_slot(page, PL_STATUS_CONNECTIONS, &slot), -ENOENT);
    pl_page_free(page);
    pl_page_free(NULL);
}
