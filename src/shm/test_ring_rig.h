/* test_ring_rig: both ends of one ring, and records that know what they should be. */
#ifndef PL_SHM_TEST_RING_RIG_H
#define PL_SHM_TEST_RING_RIG_H

#include "harness/test.h"

#include "shm/channel.h"
#include "shm/ring_spsc.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = PL_RING_CAPACITY };

/* Both ends of one ring: in a channel, or (PLAIN) in memory without a mirror, which lets TSan see it. */
struct rig {
    struct pl_channel channel;
    struct pl_ring_shared *shared;
    uint8_t *plain;
    struct pl_ring_producer producer;
    struct pl_ring_consumer consumer;
};

static inline void rig_join(struct rig *rig, uint8_t *data)
{
    pl_ring_producer_init(&rig->producer, rig->shared, data, N);
    pl_ring_consumer_init(&rig->consumer, rig->shared, data, N);
}

static inline void rig_open(struct rig *rig)
{
    int fd;
    *rig = (struct rig){ 0 };
    CHECK_INT(pl_channel_create(&rig->channel, N, &fd), 0);
    close(fd);
    rig->shared = &rig->channel.control->ring[0];
    rig_join(rig, rig->channel.ring[0]);
}

static inline void rig_open_plain(struct rig *rig)
{
    *rig = (struct rig){ 0 };
    rig->plain = aligned_alloc(4096, 2 * N);
    rig->shared = aligned_alloc(64, sizeof *rig->shared);
    CHECK(rig->plain != NULL && rig->shared != NULL);
    memset(rig->shared, 0, sizeof *rig->shared);
    rig_join(rig, rig->plain);
}

static inline void rig_close(struct rig *rig)
{
    pl_channel_detach(&rig->channel);
    if (rig->plain != NULL) free(rig->shared);
    free(rig->plain);
}

/* A record carries its number, its size and bytes that follow from both. */
static inline uint8_t byte_of(uint64_t number, size_t at)
{
    return (uint8_t)(number * 31 + at);
}

static inline int put(struct pl_ring_producer *ring, uint64_t number, size_t size)
{
    void *data = NULL;
    int r = pl_ring_reserve(ring, size, &data);
    if (r != 0) return r;
    uint8_t *bytes = data;
    uint64_t head[2] = { number, size };
    CHECK(size >= sizeof head);
    memcpy(bytes, head, sizeof head);
    for (size_t i = sizeof head; i < size; i++) bytes[i] = byte_of(number, i);
    pl_ring_commit(ring, size);
    return 0;
}

/* Checks that DATA begins with record NUMBER; its size. */
static inline size_t check_record(const uint8_t *data, size_t room, uint64_t number)
{
    uint64_t head[2];
    CHECK(room >= sizeof head);
    memcpy(head, data, sizeof head);
    CHECK_INT(head[0], number);
    CHECK(head[1] <= room);
    for (size_t i = sizeof head; i < head[1]; i++)
        if (data[i] != byte_of(number, i)) CHECK_INT(data[i], byte_of(number, i));
    return head[1];
}

static inline int take(struct pl_ring_consumer *ring, uint64_t number, size_t *ret_size)
{
    const uint8_t *data;
    size_t room;
    int r = pl_ring_peek(ring, &data, &room);
    if (r != 0) return r;
    *ret_size = check_record(data, room, number);
    return pl_ring_consume(ring, *ret_size);
}

static inline void put_and_take(struct rig *rig, uint64_t number, size_t size)
{
    size_t got = 0;
    CHECK_INT(put(&rig->producer, number, size), 0);
    pl_ring_publish(&rig->producer);
    CHECK_INT(take(&rig->consumer, number, &got), 0);
    CHECK_INT(got, size);
}

#endif
