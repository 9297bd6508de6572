/* The sender's half: which segment a payload gets, when one is used again, and lies of the receiver. */
#include "base/error.h"
#include "shm/test_segment_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

TEST(a_payload_arrives_and_its_segment_is_reused)
{
    struct rig rig;
    rig_open(&rig);
    uint8_t *memory = NULL;
    for (int i = 0; i < 1000; i++) {
        size_t size = 100 * KIB + (size_t)i * 20;
        struct pl_segment *segment = take(&rig, size);
        CHECK_INT(segment->id, 0);
        CHECK_INT(segment->generation, i + 1);
        CHECK(memory == NULL || memory == segment->data);
        memory = segment->data;
        memset(memory, i, size);
        struct pl_segment_view got = view(&rig, segment, size);
        CHECK_MEM(got.data, memory, size);
        CHECK(got.data != memory);
        pl_segment_view_release(&got);
        CHECK(got.map == NULL);
        pl_segment_view_release(&got);
    }
    rig_close(&rig);
}

TEST(a_size_class_pays_from_its_second_use)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, 33 * KIB, &segment), PL_SEGMENT_NONE);
    CHECK(segment == NULL);
    CHECK_INT(pl_segment_take(rig.pool, 32 * KIB, &segment), 0);
    CHECK_INT(segment->capacity, 32 * KIB);
    CHECK_INT(pl_segment_take(rig.pool, 64 * KIB, &segment), 0);
    CHECK_INT(segment->capacity, 64 * KIB);
    rig_close(&rig);
}

TEST(sizes_have_classes_from_16_kib_to_1_gib)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    struct {
        size_t size, capacity;
    } cases[] = { { 0, 16 * KIB }, { 1, 16 * KIB },      { 16 * KIB, 16 * KIB }, { 16 * KIB + 1, 32 * KIB },
                  { MIB, MIB },    { MIB + 1, 2 * MIB }, { 3 * MIB, 4 * MIB },   { 4 * MIB + 1, 8 * MIB } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int r = pl_segment_take(rig.pool, cases[i].size, &segment);
        if (r == PL_SEGMENT_NONE) r = pl_segment_take(rig.pool, cases[i].size, &segment);
        CHECK_INT(r, 0);
        CHECK_INT(segment->capacity, cases[i].capacity);
    }
    size_t over[] = { (1UL << 30) + 1, 1UL << 31, 1UL << 40, SIZE_MAX };
    for (int i = 0; i < 4; i++)
        for (int again = 0; again < 3; again++)
            CHECK_INT(pl_segment_take(rig.pool, over[i], &segment), PL_SEGMENT_NONE);
    rig_close(&rig);
}

TEST(segments_come_back_in_any_order)
{
    struct rig rig;
    rig_open(&rig);
    unsigned seed = 1;
    struct pl_segment_view views[20] = { 0 };
    for (int i = 0; i < 20000; i++) {
        struct pl_segment_view *one = &views[rand_r(&seed) % 20];
        if (one->map != NULL) {
            uint8_t expected = (uint8_t)(one->id + one->generation);
            CHECK_INT(one->data[0], expected);
            CHECK_INT(one->data[one->size - 1], expected);
            pl_segment_view_release(one);
        } else {
            size_t size = 1000 + (size_t)rand_r(&seed) % (200 * KIB);
            struct pl_segment *segment = take(&rig, size);
            segment->data[0] = segment->data[size - 1] = (uint8_t)(segment->id + segment->generation);
            *one = view(&rig, segment, size);
        }
    }
    for (int i = 0; i < 20; i++) pl_segment_view_release(&views[i]);
    rig_close(&rig);
}

TEST(at_the_cap_there_is_none_until_one_comes_back)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segments[PL_SEGMENTS_MAX], *more = NULL;
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) {
        segments[i] = take(&rig, 20 * KIB);
        CHECK_INT(segments[i]->id, i);
    }
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &more), PL_SEGMENT_NONE);
    struct pl_segment_view one = view(&rig, segments[40], 10);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &more), 0);
    CHECK_INT(more->id, 40);
    CHECK_INT(more->generation, 2);
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &more), PL_SEGMENT_NONE);
    rig_close(&rig);
}

TEST(an_idle_segment_too_small_is_replaced_when_slots_are_short)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segments[PL_SEGMENTS_MAX];
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) segments[i] = take(&rig, 20 * KIB);
    for (int i = 0; i < 2; i++) {
        struct pl_segment_view one = view(&rig, segments[7 - i], 10);
        pl_segment_view_release(&one);
    }
    struct pl_segment *larger = take(&rig, MIB);
    CHECK_INT(larger->id, 6); /* not used the longest */
    CHECK_INT(larger->generation, 2);
    memset(larger->data, 9, MIB);
    struct pl_segment_view got = view(&rig, larger, MIB);
    CHECK_INT(got.data[MIB - 1], 9);
    pl_segment_view_release(&got);
    CHECK_INT(take(&rig, MIB)->id, 6);
    rig_close(&rig);
}

TEST(a_small_payload_does_not_take_a_huge_segment)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *huge = take(&rig, 8 * MIB);
    struct pl_segment_view one = view(&rig, huge, 10);
    pl_segment_view_release(&one);
    CHECK(take(&rig, 20 * KIB) != huge);
    CHECK(take(&rig, 2 * MIB) == huge);
    rig_close(&rig);
}

TEST(an_aborted_segment_is_free_again_with_a_new_generation)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    CHECK(segment->fd >= 0);
    pl_segment_abort(rig.pool, segment);
    struct pl_segment *again = NULL;
    CHECK_INT(pl_segment_take(rig.pool, MIB, &again), 0);
    CHECK(again == segment);
    CHECK(again->fd >= 0); /* still to be announced */
    CHECK_INT(again->generation, 2);
    announce(&rig, again);
    struct pl_segment_view one = view(&rig, again, 10);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &again), 0);
    CHECK_INT(again->fd, -1);
    rig_close(&rig);
}

TEST(generations_wrap_around_without_zero)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = take(&rig, MIB);
    segment->generation = UINT32_MAX; /* as if it had been used that often */
    struct pl_segment_view one = view(&rig, segment, 10);
    pl_segment_view_release(&one);
    CHECK_INT(take(&rig, MIB)->generation, 1);
    one = view(&rig, segment, 10);
    pl_segment_view_release(&one);
    CHECK_INT(take(&rig, MIB)->generation, 2);
    rig_close(&rig);
}

TEST(only_what_payloads_need_is_populated)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, 33 * MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, 33 * MIB, &segment), 0);
    CHECK_INT(segment->capacity, 64 * MIB);
    int fd = fcntl(segment->fd, F_DUPFD_CLOEXEC, 0);
    CHECK_INT(allocated(fd), 33 * MIB);
    announce(&rig, segment);
    struct pl_segment_view one = view(&rig, segment, 33 * MIB);
    CHECK_INT(allocated(fd), 33 * MIB);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, 40 * MIB, &segment), 0);
    CHECK_INT(allocated(fd), 40 * MIB);
    close(fd);
    rig_close(&rig);
}

TEST(a_generation_that_was_never_lent_is_refused)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = NULL;
    take(&rig, MIB);
    struct pl_segment_view one = view(&rig, take(&rig, MIB), 10);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    CHECK_INT(segment->id, 1);
    CHECK_INT(segment->generation, 2);
    pl_segment_abort(rig.pool, segment);
    /* Segment 0 is lent with generation 1; 1 is idle and came back with 1; 2 never existed. */
    struct {
        uint32_t id, value;
    } lies[] = { { 0, 2 }, { 0, UINT32_MAX }, { 1, 0 }, { 1, 2 }, { 1, 3 }, { 2, 1 }, { 63, 1 }, { 63, UINT32_MAX } };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        uint32_t before = rig.returned[lies[i].id];
        rig.returned[lies[i].id] = lies[i].value;
        segment = NULL;
        CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), -EPROTO);
        CHECK_CONTAINS(pl_error_text(), "gives back generation");
        CHECK(segment == NULL);
        rig.returned[lies[i].id] = before;
    }
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    rig_close(&rig);
}

TEST(no_descriptors_left_is_another_way_and_no_failure)
{
    struct rig rig;
    struct rlimit before, tight = { 0 };
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight.rlim_max = before.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
    for (int i = 0; i < 100; i++) CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    CHECK_INT(segment->id, 0); /* the failures took no slots */
    rig_close(&rig);
}
