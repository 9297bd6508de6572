/* The ring in one thread: order, room, pages, announcements, lies. */
#include "shm/test_ring_rig.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

static void many_laps(struct rig *rig)
{
    uint64_t sent = 0, received = 0, bytes = 0;
    unsigned seed = 1;
    while (received < 100000) {
        for (int burst = rand_r(&seed) % 40; burst > 0; burst--) {
            size_t size = 16 + (size_t)rand_r(&seed) % (rand_r(&seed) % 8 == 0 ? 8000 : 200);
            int r = put(&rig->producer, sent, size);
            if (r == PL_RING_FULL) break;
            CHECK_INT(r, 0);
            sent++;
            if (rand_r(&seed) % 2 == 0) pl_ring_publish(&rig->producer);
        }
        pl_ring_publish(&rig->producer);
        for (int burst = rand_r(&seed) % 40; burst > 0 && received < sent; burst--) {
            size_t size = 0;
            CHECK_INT(take(&rig->consumer, received, &size), 0);
            received++;
            bytes += size;
            if (rand_r(&seed) % 4 == 0) pl_ring_give_back(&rig->consumer);
        }
        /* A consumer that stops in the middle of a run may hold back up to a quarter; then it gives back. */
        pl_ring_give_back(&rig->consumer);
    }
    CHECK(bytes > 100 * (uint64_t)N);
}

TEST(records_arrive_whole_and_in_order_over_many_laps)
{
    struct rig rig;
    rig_open(&rig);
    many_laps(&rig);
    rig_close(&rig);
}

TEST(a_ring_of_two_plain_halves_works_as_well)
{
    struct rig rig;
    rig_open_plain(&rig);
    many_laps(&rig);
    rig_close(&rig);
}

TEST(a_commit_is_invisible_until_it_is_published)
{
    struct rig rig;
    rig_open(&rig);
    size_t size;
    CHECK_INT(put(&rig.producer, 0, 40), 0);
    CHECK_INT(take(&rig.consumer, 0, &size), PL_RING_EMPTY);
    CHECK_INT(put(&rig.producer, 1, 40), 0);
    CHECK_INT(pl_ring_publish(&rig.producer), false);
    const uint8_t *data;
    CHECK_INT(pl_ring_peek(&rig.consumer, &data, &size), 0);
    CHECK_INT(size, 128); /* both, rounded up */
    CHECK_INT(take(&rig.consumer, 0, &size), 0);
    CHECK_INT(take(&rig.consumer, 1, &size), 0);
    CHECK_INT(take(&rig.consumer, 2, &size), PL_RING_EMPTY);
    rig_close(&rig);
}

TEST(a_reservation_without_commit_leaves_no_trace)
{
    struct rig rig;
    rig_open(&rig);
    void *first = NULL, *second = NULL;
    size_t size;
    CHECK_INT(pl_ring_reserve(&rig.producer, 5000, &first), 0);
    CHECK_INT(pl_ring_publish(&rig.producer), false);
    CHECK_INT(take(&rig.consumer, 0, &size), PL_RING_EMPTY);
    CHECK_INT(pl_ring_reserve(&rig.producer, 32, &second), 0);
    CHECK(first == second);
    /* Also where the reservation went on to the next lap. */
    for (uint64_t i = 0; i < 30; i++) put_and_take(&rig, i, 96);
    for (int i = 0; i < 2; i++) CHECK_INT(pl_ring_reserve(&rig.producer, 2048, &first), 0);
    pl_ring_publish(&rig.producer);
    CHECK_INT(take(&rig.consumer, 0, &size), PL_RING_EMPTY);
    put_and_take(&rig, 30, 96);
    rig_close(&rig);
}

TEST(a_full_ring_says_so_until_something_is_given_back)
{
    struct rig rig;
    rig_open(&rig);
    uint64_t sent = 0;
    size_t size;
    while (put(&rig.producer, sent, 1024) == 0) sent++;
    CHECK_INT(sent, N / 1024);
    CHECK_INT(put(&rig.producer, sent, 16), PL_RING_FULL);
    pl_ring_publish(&rig.producer);
    CHECK_INT(take(&rig.consumer, 0, &size), 0);
    CHECK_INT(put(&rig.producer, sent, 1024), PL_RING_FULL); /* not published yet */
    pl_ring_give_back(&rig.consumer);
    CHECK_INT(put(&rig.producer, sent, 1024), 0);
    CHECK_INT(put(&rig.producer, sent + 1, 16), PL_RING_FULL);
    rig_close(&rig);
}

TEST(a_record_may_be_as_large_as_the_ring_and_no_larger)
{
    struct rig rig;
    rig_open(&rig);
    void *data;
    for (uint64_t i = 0; i < 3; i++) put_and_take(&rig, i, N);
    put_and_take(&rig, 3, 96);
    for (uint64_t i = 4; i < 7; i++) put_and_take(&rig, i, N); /* straddles */
    size_t wrong[] = { N + 1, N * 2, SIZE_MAX - 31, SIZE_MAX };
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pl_ring_reserve(&rig.producer, wrong[i], &data), -EMSGSIZE);
        CHECK_CONTAINS(pl_error_text(), "ring");
    }
    rig_close(&rig);
}

TEST(the_head_is_published_when_drained_and_after_a_quarter)
{
    struct rig rig;
    rig_open(&rig);
    size_t size;
    for (uint64_t i = 0; i < 60; i++) CHECK_INT(put(&rig.producer, i, 1024), 0);
    pl_ring_publish(&rig.producer);
    for (uint64_t i = 0; i < 60; i++) {
        CHECK_INT(take(&rig.consumer, i, &size), 0);
        uint64_t behind = (i + 1) * 1024 - rig.shared->head;
        CHECK(behind < N / 4);
        if (i < 15) CHECK_INT(rig.shared->head, 0);
    }
    CHECK_INT(rig.shared->head, 60 * 1024);
    rig_close(&rig);
}

/* Pages. */

TEST(light_traffic_stays_in_the_first_page_of_the_first_mapping)
{
    struct rig rig;
    rig_open(&rig);
    unsigned seed = 2;
    for (uint64_t i = 0; i < 20000; i++) {
        size_t size = 16 + (size_t)rand_r(&seed) % 2000;
        void *data = NULL;
        CHECK_INT(pl_ring_reserve(&rig.producer, size, &data), 0);
        CHECK((uint8_t *)data + size <= rig.channel.ring[0] + PL_RING_LIGHT);
        put_and_take(&rig, i, size);
    }
    CHECK_INT(rig.producer.extent, PL_RING_LIGHT);
    CHECK_INT(rig.consumer.extent, PL_RING_LIGHT);
    rig_close(&rig);
}

TEST(light_traffic_never_meets_a_full_ring)
{
    struct rig rig;
    rig_open(&rig);
    unsigned seed = 3;
    /* Sizes beyond half a page cannot always go back to the start; they take more pages, not more time. */
    for (uint64_t i = 0; i < 20000; i++) put_and_take(&rig, i, 16 + (size_t)rand_r(&seed) % 8000);
    CHECK(rig.producer.extent <= 4 * PL_RING_LIGHT);
    rig_close(&rig);
}

TEST(busy_traffic_doubles_the_pages_used)
{
    struct rig rig;
    rig_open(&rig);
    uint64_t sent = 0, received = 0;
    size_t size;
    while (put(&rig.producer, sent, 1024) == 0) {
        sent++;
        size_t filled = sent * 1024, expected = PL_RING_LIGHT;
        while (expected < filled) expected *= 2;
        CHECK_INT(rig.producer.extent, expected);
    }
    pl_ring_publish(&rig.producer);
    CHECK_INT(rig.consumer.extent, PL_RING_LIGHT);
    for (; received < sent; received++) CHECK_INT(take(&rig.consumer, received, &size), 0);
    CHECK_INT(rig.consumer.extent, N);
    /* Never empty at the lap's end: then the mirror comes in, and from then on nothing is looked at. */
    for (int i = 0; i < 100; i++) {
        CHECK_INT(put(&rig.producer, sent++, 1056), 0);
        CHECK_INT(put(&rig.producer, sent++, 1056), 0);
        pl_ring_publish(&rig.producer);
        while (received < sent - 1) CHECK_INT(take(&rig.consumer, received++, &size), 0);
        pl_ring_give_back(&rig.consumer);
        CHECK_INT(put(&rig.producer, sent++, 1056), 0);
        pl_ring_publish(&rig.producer);
        while (received < sent) CHECK_INT(take(&rig.consumer, received++, &size), 0);
    }
    CHECK_INT(rig.producer.extent, 2 * N);
    CHECK_INT(rig.consumer.extent, 2 * N);
    rig_close(&rig);
}

TEST(a_skip_is_seen_by_a_consumer_that_has_more_pages)
{
    struct rig rig;
    rig_open(&rig);
    uint64_t sent = 0, received = 0;
    size_t size;
    /* Always one record ahead: never empty at a page's end. One run leads over the lap's end, where no
     * record does, so that the consumer populates its mirror and the producer doesn't. */
    CHECK_INT(put(&rig.producer, sent++, 1024), 0);
    pl_ring_publish(&rig.producer);
    while (sent < 2 * N / 1024) {
        for (int i = 0; i < 2; i++) CHECK_INT(put(&rig.producer, sent++, 1024), 0);
        pl_ring_publish(&rig.producer);
        for (int i = 0; i < 2; i++) CHECK_INT(take(&rig.consumer, received++, &size), 0);
        pl_ring_give_back(&rig.consumer);
    }
    while (received < sent) CHECK_INT(take(&rig.consumer, received++, &size), 0);
    pl_ring_give_back(&rig.consumer);
    CHECK_INT(rig.producer.extent, N);
    CHECK_INT(rig.consumer.extent, 2 * N);
    for (int i = 0; i < 1000; i++) put_and_take(&rig, sent++, 1536);
    CHECK_INT(rig.producer.extent, N);
    rig_close(&rig);
}

TEST(a_skip_that_brings_no_record_is_seen)
{
    for (int busy = 0; busy < 2; busy++) {
        struct rig rig;
        rig_open(&rig);
        uint64_t sent = 0, received = 0;
        size_t size;
        void *data = NULL;
        while (busy && put(&rig.producer, sent, 1024) == 0) sent++;
        pl_ring_publish(&rig.producer);
        while (received < sent) CHECK_INT(take(&rig.consumer, received++, &size), 0);
        uint64_t lap = rig.producer.tail / N;
        while (rig.producer.tail / N == lap) {
            CHECK_INT(pl_ring_reserve(&rig.producer, 96, &data), 0); /* skips, and is forgotten */
            if (rig.producer.tail / N != lap) break;
            put_and_take(&rig, sent++, 96);
        }
        CHECK(rig.producer.tail != rig.producer.published);
        pl_ring_publish(&rig.producer);
        CHECK_INT(take(&rig.consumer, sent, &size), PL_RING_EMPTY);
        CHECK_INT(rig.shared->head, rig.shared->tail);
        for (int i = 0; i < 100; i++) put_and_take(&rig, sent++, 96);
        rig_close(&rig);
    }
}

TEST(light_traffic_after_busy_traffic_goes_back_to_the_first_pages)
{
    struct rig rig;
    rig_open(&rig);
    uint64_t sent = 0, received = 0;
    size_t size;
    for (int i = 0; i < 50; i++) {
        while (put(&rig.producer, sent, 1056) == 0) sent++;
        pl_ring_publish(&rig.producer);
        while (received + 2 < sent) CHECK_INT(take(&rig.consumer, received++, &size), 0);
        pl_ring_give_back(&rig.consumer);
    }
    while (received < sent) CHECK_INT(take(&rig.consumer, received++, &size), 0);
    CHECK_INT(rig.producer.extent, 2 * N);
    for (int i = 0; i < 200; i++) put_and_take(&rig, sent++, 96);
    for (int i = 0; i < 2000; i++) {
        put_and_take(&rig, sent++, 96);
        CHECK((rig.producer.tail & (N - 1)) <= PL_RING_LIGHT);
    }
    rig_close(&rig);
}

TEST(bursts_do_not_meet_a_ring_made_small_by_a_skip)
{
    struct rig rig;
    rig_open(&rig);
    uint64_t sent = 0, received = 0;
    size_t size;
    for (int burst = 0; burst < 5000; burst++) {
        for (int i = 0; i < 100; i++) {
            CHECK_INT(put(&rig.producer, sent++, 96), 0);
            pl_ring_publish(&rig.producer);
        }
        while (received < sent) CHECK_INT(take(&rig.consumer, received++, &size), 0);
    }
    rig_close(&rig);
}

/* Wake-ups. */

TEST(an_announced_sleep_is_rung_once)
{
    struct rig rig;
    rig_open(&rig);
    size_t size;
    CHECK_INT(pl_ring_sleep(&rig.consumer), true);
    CHECK_INT(pl_ring_publish(&rig.producer), false); /* nothing to publish */
    CHECK_INT(put(&rig.producer, 0, 64), 0);
    CHECK_INT(pl_ring_publish(&rig.producer), true);
    CHECK_INT(put(&rig.producer, 1, 64), 0);
    CHECK_INT(pl_ring_publish(&rig.producer), false);
    pl_ring_awake(&rig.consumer);
    CHECK_INT(take(&rig.consumer, 0, &size), 0);
    CHECK_INT(take(&rig.consumer, 1, &size), 0);
    CHECK_INT(pl_ring_sleep(&rig.consumer), true);
    pl_ring_awake(&rig.consumer);
    CHECK_INT(put(&rig.producer, 2, 64), 0);
    CHECK_INT(pl_ring_publish(&rig.producer), false); /* awake by itself */
    rig_close(&rig);
}

TEST(no_sleep_over_records_that_are_there)
{
    struct rig rig;
    rig_open(&rig);
    size_t size;
    CHECK_INT(put(&rig.producer, 0, 64), 0);
    CHECK_INT(put(&rig.producer, 1, 64), 0);
    pl_ring_publish(&rig.producer);
    CHECK_INT(pl_ring_sleep(&rig.consumer), false); /* not looked at yet */
    CHECK_INT(rig.shared->sleeping, 0);
    CHECK_INT(take(&rig.consumer, 0, &size), 0);
    CHECK_INT(pl_ring_sleep(&rig.consumer), false); /* known and not consumed */
    CHECK_INT(take(&rig.consumer, 1, &size), 0);
    CHECK_INT(pl_ring_sleep(&rig.consumer), true);
    rig_close(&rig);
}

TEST(a_starving_producer_is_rung_once_when_room_is_given_back)
{
    struct rig rig;
    rig_open(&rig);
    size_t size;
    uint64_t sent = 0;
    while (put(&rig.producer, sent, 1024) == 0) sent++;
    pl_ring_publish(&rig.producer);
    CHECK_INT(pl_ring_starve(&rig.producer, 1024), true);
    CHECK_INT(pl_ring_give_back(&rig.consumer), false); /* the head has not moved */
    CHECK_INT(take(&rig.consumer, 0, &size), 0);
    CHECK_INT(pl_ring_give_back(&rig.consumer), true);
    CHECK_INT(pl_ring_give_back(&rig.consumer), false);
    CHECK_INT(pl_ring_starve(&rig.producer, 1024), false); /* there is room: no sleep */
    CHECK_INT(rig.shared->starved, 0);
    CHECK_INT(pl_ring_starve(&rig.producer, 1025), true);
    pl_ring_fed(&rig.producer);
    CHECK_INT(take(&rig.consumer, 1, &size), 0);
    CHECK_INT(pl_ring_give_back(&rig.consumer), false);
    rig_close(&rig);
}

TEST(hunger_shows_before_anything_is_given_back)
{
    struct rig rig;
    rig_open(&rig);
    uint64_t sent = 0;
    size_t size;
    while (put(&rig.producer, sent, 1024) == 0) sent++;
    pl_ring_publish(&rig.producer);
    CHECK_INT(pl_ring_hungry(&rig.consumer), false);
    CHECK_INT(pl_ring_starve(&rig.producer, 1024), true);
    CHECK_INT(take(&rig.consumer, 0, &size), 0);
    CHECK_INT(pl_ring_hungry(&rig.consumer), true);
    CHECK_INT(pl_ring_give_back(&rig.consumer), true);
    CHECK_INT(pl_ring_hungry(&rig.consumer), false);
    rig_close(&rig);
}

TEST(a_look_ahead_sees_what_comes_behind_a_record)
{
    struct rig rig;
    rig_open(&rig);
    const uint8_t *data = NULL;
    size_t size = 0;
    CHECK_INT(pl_ring_ahead(&rig.consumer, 0, &data, &size), false);
    for (uint64_t i = 0; i < 41; i++) put_and_take(&rig, i, 96); /* one more fits the page */
    CHECK_INT(put(&rig.producer, 41, 96), 0);
    pl_ring_publish(&rig.producer);
    CHECK_INT(pl_ring_peek(&rig.consumer, &data, &size), 0);
    CHECK_INT(pl_ring_ahead(&rig.consumer, 96, &data, &size), false);
    CHECK_INT(pl_ring_ahead(&rig.consumer, 0, &data, &size), true);
    check_record(data, size, 41);
    CHECK_INT(put(&rig.producer, 42, 96), 0); /* not empty: no skip */
    pl_ring_publish(&rig.producer);
    CHECK_INT(pl_ring_ahead(&rig.consumer, 96, &data, &size), true);
    CHECK_INT(size, 96);
    check_record(data, size, 42);
    for (uint64_t i = 41; i < 43; i++) CHECK_INT(take(&rig.consumer, i, &size), 0);
    rig_close(&rig);
}

TEST(a_look_ahead_follows_a_skip_and_believes_no_lie)
{
    struct rig rig;
    rig_open(&rig);
    const uint8_t *data = NULL, *before = NULL;
    size_t size = 0;
    uint64_t i = 0;
    for (; i < 42; i++) put_and_take(&rig, i, 96);
    CHECK_INT(put(&rig.producer, i, 96), 0);
    CHECK_INT(rig.producer.tail, N + 96);
    pl_ring_publish(&rig.producer);
    CHECK_INT(pl_ring_ahead(&rig.consumer, 0, &data, &size), true);
    CHECK(data == rig.channel.ring[0]);
    check_record(data, size, i);
    uint64_t head = rig.consumer.head;
    uint64_t lies[] = { head - 32, head, head + 1, head + 32, N, N - 32, head + N + 32, UINT64_MAX, 0 };
    for (size_t k = 0; k < sizeof(lies) / sizeof(lies[0]); k++) {
        rig.shared->tail = lies[k];
        CHECK_INT(pl_ring_ahead(&rig.consumer, 0, &before, &size), false);
    }
    CHECK(before == NULL);
    CHECK_INT(pl_ring_ahead(&rig.consumer, SIZE_MAX, &before, &size), false);
    rig_close(&rig);
}

TEST(a_head_that_consume_published_still_feeds_the_starving)
{
    struct rig rig;
    rig_open(&rig);
    size_t size;
    uint64_t sent = 0;
    while (put(&rig.producer, sent, 1024) == 0) sent++;
    pl_ring_publish(&rig.producer);
    for (uint64_t i = 0; i < sent - 1; i++) CHECK_INT(take(&rig.consumer, i, &size), 0);
    CHECK_INT(pl_ring_give_back(&rig.consumer), false);
    CHECK_INT(take(&rig.consumer, sent - 1, &size), 0); /* drained: consume publishes the head */
    CHECK_INT(rig.shared->head, N);
    rig.shared->starved = 1;
    CHECK_INT(pl_ring_give_back(&rig.consumer), true);
    rig_close(&rig);
}

/* Lies. */

static void check_lie(int r, const char *what)
{
    CHECK_INT(r, -EPROTO);
    CHECK_CONTAINS(pl_error_text(), what);
}

TEST(a_lying_producer_is_refused)
{
    struct rig rig;
    rig_open(&rig);
    const uint8_t *data = NULL;
    size_t size = 0;
    for (uint64_t i = 0; i < 3; i++) put_and_take(&rig, i, 4000);
    uint64_t head = rig.consumer.head, honest = rig.shared->tail;
    uint64_t lies[] = { head - 32, head - 1,   head + 1,   head + 31,       head + N + 1,       head + N + 32,
                        0,         1ULL << 63, UINT64_MAX, UINT64_MAX - 31, head + (1ULL << 32) };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        rig.shared->tail = lies[i];
        check_lie(pl_ring_peek(&rig.consumer, &data, &size), "claims to have written");
        CHECK_INT(pl_ring_sleep(&rig.consumer), false);
        CHECK(data == NULL);
    }
    rig.shared->tail = honest;
    put_and_take(&rig, 3, 4000);
    rig_close(&rig);
}

TEST(a_lying_skip_is_refused_or_harmless)
{
    struct rig rig;
    rig_open(&rig);
    const uint8_t *data = NULL;
    size_t size = 0;
    put_and_take(&rig, 0, 64);
    uint64_t head = rig.consumer.head;
    rig.shared->skip = head;
    rig.shared->tail = head + PL_RING_LIGHT; /* does not reach the next lap */
    check_lie(pl_ring_peek(&rig.consumer, &data, &size), "skips");
    rig.shared->tail = N; /* reaches it, brings nothing */
    CHECK_INT(pl_ring_peek(&rig.consumer, &data, &size), PL_RING_EMPTY);
    CHECK_INT(pl_ring_peek(&rig.consumer, &data, &size), PL_RING_EMPTY);
    CHECK(data == NULL);
    rig.shared->skip = N; /* at a lap's start there is nothing to skip */
    rig.shared->tail = 2 * N;
    CHECK_INT(pl_ring_peek(&rig.consumer, &data, &size), 0);
    CHECK_INT(size, N);
    rig_close(&rig);
}

TEST(a_lying_consumer_is_refused)
{
    struct rig rig;
    rig_open(&rig);
    void *data;
    uint64_t sent = 0;
    size_t size;
    for (; sent < 50; sent++) CHECK_INT(put(&rig.producer, sent, 1024), 0);
    pl_ring_publish(&rig.producer);
    for (uint64_t i = 0; i < 20; i++) CHECK_INT(take(&rig.consumer, i, &size), 0);
    pl_ring_give_back(&rig.consumer);
    while (put(&rig.producer, sent, 1024) == 0) sent++;
    /* 50 records are published, 20 were given back, 34 more are committed and not published. */
    uint64_t lies[] = { 19 * 1024, 20 * 1024 - 32, 20 * 1024 + 1, 50 * 1024 + 32,          84 * 1024,
                        0,         1ULL << 63,     UINT64_MAX,    20 * 1024 + (1ULL << 32) };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        rig.shared->head = lies[i];
        check_lie(pl_ring_reserve(&rig.producer, 1024, &data), "claims to have read");
        pl_ring_starve(&rig.producer, 1024);
    }
    rig.shared->head = 50 * 1024;
    CHECK_INT(pl_ring_reserve(&rig.producer, 1024, &data), 0);
    rig_close(&rig);
}

TEST(a_record_longer_than_what_is_there_is_refused)
{
    struct rig rig;
    rig_open(&rig);
    const uint8_t *data;
    size_t size;
    check_lie(pl_ring_consume(&rig.consumer, 1), "claims");
    CHECK_INT(put(&rig.producer, 0, 64), 0);
    CHECK_INT(put(&rig.producer, 1, 64), 0);
    pl_ring_publish(&rig.producer);
    check_lie(pl_ring_consume(&rig.consumer, 64), "claims"); /* not peeked yet */
    CHECK_INT(pl_ring_peek(&rig.consumer, &data, &size), 0);
    size_t lies[] = { 129, 160, N, SIZE_MAX, SIZE_MAX - 31, SIZE_MAX - 32 };
    for (int i = 0; i < 6; i++) check_lie(pl_ring_consume(&rig.consumer, lies[i]), "claims");
    CHECK_INT(pl_ring_consume(&rig.consumer, 0), 0);
    CHECK_INT(pl_ring_consume(&rig.consumer, 127), 0);
    CHECK_INT(pl_ring_peek(&rig.consumer, &data, &size), PL_RING_EMPTY);
    rig_close(&rig);
}
