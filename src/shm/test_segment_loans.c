/* Segments that are held before they are sent: by whom, until when, and what a receiver may claim meanwhile. */
#include "base/clock.h"
#include "base/error.h"
#include "shm/test_segment_rig.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

static bool rang(struct rig *rig)
{
    uint64_t count;
    return read(rig->bell, &count, sizeof(count)) == (ssize_t)sizeof(count);
}

static struct pl_segment *hold(struct rig *rig, size_t size)
{
    struct pl_segment *segment = NULL;
    CHECK_INT(pl_segment_hold(rig->pool, size, &segment), 0);
    CHECK(segment->capacity >= size);
    CHECK_INT(pl_segment_populate(segment, size), 0);
    return segment;
}

static struct pl_segment_view send(struct rig *rig, struct pl_segment *segment, size_t size)
{
    announce(rig, segment);
    pl_segment_send(rig->pool, segment);
    return view(rig, segment, size);
}

TEST(a_loan_gets_a_segment_at_its_size_s_first_use)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = hold(&rig, 20 * KIB);
    CHECK_INT(segment->generation, 0);
    memset(segment->data, 1, 20 * KIB);
    CHECK(pl_segment_held_at(rig.pool, segment->data) == segment);
    CHECK(pl_segment_held_at(rig.pool, segment->data + 1) == NULL);
    struct pl_segment_view view = send(&rig, segment, 20 * KIB);
    CHECK_INT(segment->generation, 1);
    CHECK(pl_segment_held_at(rig.pool, segment->data) == NULL); /* it cannot be sent twice */
    CHECK_MEM(view.data, segment->data, 20 * KIB);
    pl_segment_view_release(&view);
    pl_segment_release(segment);
    rig_close(&rig);
}

TEST(a_segment_is_used_again_when_neither_holder_nor_receiver_has_it)
{
    for (int holder_first = 0; holder_first < 2; holder_first++) {
        struct rig rig;
        rig_open(&rig);
        struct pl_segment *segment = hold(&rig, MIB), *other;
        struct pl_segment_view view = send(&rig, segment, MIB);
        if (holder_first) pl_segment_release(segment);
        else pl_segment_view_release(&view);
        other = hold(&rig, MIB);
        CHECK(other != segment);
        pl_segment_release(other);
        if (holder_first) pl_segment_view_release(&view);
        else pl_segment_release(segment);
        struct pl_segment *all[3];
        for (int i = 0; i < 3; i++) all[i] = hold(&rig, MIB);
        CHECK(all[0]->id < 2 && all[1]->id < 2 && all[0] != all[1]); /* both are free again */
        CHECK_INT(all[2]->id, 2);
        for (int i = 0; i < 3; i++) pl_segment_release(all[i]);
        rig_close(&rig);
    }
}

TEST(what_is_held_outlives_its_pool)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *sent = hold(&rig, MIB), *unsent = hold(&rig, MIB);
    struct pl_segment_view view = send(&rig, sent, MIB);
    rig_close(&rig);
    memset(sent->data, 3, MIB);
    memset(unsent->data, 4, MIB);
    CHECK_INT(view.data[MIB - 1], 3);
    pl_segment_release(unsent);
    pl_segment_release(sent);
    CHECK_INT(view.data[0], 3);
    pl_segment_view_release(&view);
}

/* ---- all are out ---- */

TEST(who_waits_is_rung_by_holders_and_by_the_receiver)
{
    struct rig rig;
    struct pl_segment *segments[PL_SEGMENTS_MAX], *more = NULL;
    struct pl_segment_view view;
    unsigned held, lent;
    rig_open(&rig);
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) segments[i] = hold(&rig, 20 * KIB);
    CHECK_INT(pl_segment_hold(rig.pool, 20 * KIB, &more), PL_SEGMENT_NONE);
    view = send(&rig, segments[5], 100);
    pl_segment_release(segments[5]);
    CHECK(!rang(&rig)); /* nobody asked */
    pl_segment_census(rig.pool, &held, &lent);
    CHECK_INT(held, PL_SEGMENTS_MAX - 1);
    CHECK_INT(lent, 1);
    CHECK(!pl_segment_want(rig.pool));
    pl_segment_view_release(&view);
    CHECK(rang(&rig));
    CHECK(pl_segment_want(rig.pool)); /* it is back */
    segments[5] = hold(&rig, 20 * KIB);
    CHECK(!pl_segment_want(rig.pool));
    pl_segment_release(segments[9]);
    CHECK(rang(&rig));
    pl_segment_release(segments[10]);
    CHECK(!rang(&rig)); /* once is enough */
    for (int i = 0; i < PL_SEGMENTS_MAX; i++)
        if (i != 9 && i != 10) pl_segment_release(segments[i]);
    rig_close(&rig);
}

struct race {
    struct rig *rig;
    struct pl_segment_view view;
    _Atomic int round;
};

static void *release_in_time(void *argument)
{
    struct race *race = argument;
    for (int i = 1; i <= 20000; i++) {
        while (race->round != i) continue;
        pl_segment_view_release(&race->view);
        race->round = -i;
    }
    return NULL;
}

/* Between the question and the sleep nothing is lost: either we see it come back, or the bell rings. */
TEST(a_segment_that_comes_back_while_one_asks_is_seen_or_rung_for)
{
    struct rig rig;
    struct pl_segment *segments[PL_SEGMENTS_MAX];
    rig_open(&rig);
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) segments[i] = hold(&rig, 20 * KIB);
    struct race race = { .rig = &rig };
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, release_in_time, &race), 0);
    for (int i = 1; i <= 20000; i++) {
        race.view = send(&rig, segments[0], 1);
        pl_segment_release(segments[0]);
        race.round = i;
        bool there = pl_segment_want(rig.pool);
        if (!there) {
            struct pollfd poller = { .fd = rig.bell, .events = POLLIN };
            CHECK_INT(poll(&poller, 1, 20000), 1);
        }
        while (race.round != -i) continue;
        (void)rang(&rig);
        segments[0] = hold(&rig, 20 * KIB);
        CHECK_INT(segments[0]->id, 0);
    }
    CHECK_INT(pthread_join(thread, NULL), 0);
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) pl_segment_release(segments[i]);
    rig_close(&rig);
}

/* ---- lies ---- */

TEST(giving_back_what_was_never_lent_or_is_only_held_is_a_lie)
{
    static const uint32_t claims[] = { 1, 2, UINT32_MAX };
    for (int i = 0; i < 3; i++) {
        struct rig rig;
        struct pl_segment *segment, *more = NULL;
        rig_open(&rig);
        segment = hold(&rig, MIB);
        rig.returned[0] = claims[i];
        CHECK_INT(pl_segment_hold(rig.pool, MIB, &more), -EPROTO);
        CHECK_CONTAINS(plait_error_text(), "which it does not have");
        CHECK_INT(pl_segment_take(rig.pool, MIB, &more), -EPROTO);
        CHECK(pl_segment_idle(rig.pool, UINT64_MAX / 2) == NULL);
        memset(segment->data, 1, MIB); /* ours all the same */
        pl_segment_release(segment);
        rig_close(&rig);
    }
}

TEST(a_generation_that_comes_back_early_or_twice_takes_nothing_from_its_holder)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = hold(&rig, MIB), *other;
    struct pl_segment_view view = send(&rig, segment, MIB);
    rig.returned[segment->id] = segment->generation; /* while it is still read there */
    other = hold(&rig, MIB);
    CHECK(other != segment);
    pl_segment_view_release(&view); /* the same again */
    struct pl_segment *third = hold(&rig, MIB);
    CHECK(third != segment && third != other);
    pl_segment_release(segment);
    pl_segment_release(other);
    pl_segment_release(third);
    rig_close(&rig);
}

/* ---- idle memory ---- */

TEST(idle_memory_is_given_up_after_a_while_and_made_again_on_demand)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = hold(&rig, MIB), *held = hold(&rig, MIB), *fresh = hold(&rig, MIB);
    struct pl_segment_view view = send(&rig, segment, MIB);
    uint64_t later = pl_ticks() + pl_ticks_of_ns(pl_segment_idle_ns) + pl_ticks_of_ns(1000000000);
    CHECK(pl_segment_idle(rig.pool, later) == NULL);
    pl_segment_release(segment);
    CHECK(pl_segment_idle(rig.pool, later) == NULL); /* its receiver has it */
    CHECK_INT(pl_segment_map_drop(rig.map, segment->id), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "in use here");
    pl_segment_view_release(&view);
    CHECK(pl_segment_idle(rig.pool, pl_ticks()) == NULL); /* from now on it is idle */
    CHECK(pl_segment_idle(rig.pool, later) == segment);
    CHECK_INT(segment->fd, -1);
    CHECK_INT(pl_segment_map_drop(rig.map, segment->id), 0);
    CHECK_INT(pl_segment_map_drop(rig.map, segment->id), -EPROTO);
    CHECK_INT(pl_segment_map_drop(rig.map, 99), -EPROTO);
    pl_segment_drop(rig.pool, segment);
    CHECK(segment->data == NULL);
    CHECK(pl_segment_idle(rig.pool, later) == NULL);
    pl_segment_release(fresh); /* nobody ever heard of it */
    CHECK(pl_segment_idle(rig.pool, pl_ticks()) == NULL);
    CHECK(pl_segment_idle(rig.pool, later) == fresh);
    CHECK(fresh->fd >= 0);
    pl_segment_drop(rig.pool, fresh);
    CHECK_INT(fresh->fd, -1);
    struct pl_segment *again = hold(&rig, 2 * MIB);
    CHECK(again == segment);
    CHECK_INT(again->generation, 1); /* goes on counting */
    view = send(&rig, again, 2 * MIB);
    CHECK_INT(again->generation, 2);
    pl_segment_view_release(&view);
    pl_segment_release(again);
    pl_segment_release(held);
    rig_close(&rig);
}

static void *release_later(void *argument)
{
    pl_segment_release(argument);
    return NULL;
}

TEST(holders_let_go_from_any_thread_while_the_pool_is_closed)
{
    for (int i = 0; i < 300; i++) {
        struct rig rig;
        pthread_t threads[3];
        rig_open(&rig);
        for (int k = 0; k < 3; k++)
            CHECK_INT(pthread_create(&threads[k], NULL, release_later, hold(&rig, 20 * KIB)), 0);
        rig_close(&rig);
        for (int k = 0; k < 3; k++) CHECK_INT(pthread_join(threads[k], NULL), 0);
    }
}
