/* docs/protocol.md says where everything lies in the memory that two processes share, so that a client in another
 * language can be written from it: every line of its tables must be what the compiler says. */
#include "shm/layout.h"

#include "harness/document.h"
#include "harness/test.h"
#include "shm/load.h"

#include <stdio.h>

#define FIELD(section, object, member, size, name)                                                                     \
    document_expect_field(document, section, offsetof(struct object, member), size, name)

static void expect_control(const char *document, size_t offset, const char *size, const char *name, const char *writer)
{
    char rest[100];
    snprintf(rest, sizeof rest, "%s | %s |", name, writer);
    document_expect_field(document, "Control page", offset, size, rest);
}
#define CONTROL(member, size, name, writer)                                                                            \
    expect_control(document, offsetof(struct pl_channel_control, member), size, name, writer)

TEST(the_document_says_where_the_control_page_s_words_lie)
{
    const char *document = document_read("protocol.md");
    document_expect(document, "Control page", "| magic `0x%x` | server, once |", (unsigned)PL_CHANNEL_MAGIC);
    document_expect(document, "Control page", "| layout version: %d | server, once |", PL_CHANNEL_VERSION);
    FIELD("Control page", pl_channel_control, magic, "4", "magic");
    FIELD("Control page", pl_channel_control, version, "4", "layout version");
    CONTROL(capacity, "4", "capacity", "server, once");
    CONTROL(ring[PL_RING_REQUESTS].tail, "8", "requests: tail", "client");
    CONTROL(ring[PL_RING_REQUESTS].skip, "8", "requests: skip", "client");
    CONTROL(ring[PL_RING_REQUESTS].head, "8", "requests: head", "server");
    CONTROL(ring[PL_RING_REQUESTS].sleeping, "4", "requests: sleeping", "both");
    CONTROL(ring[PL_RING_REQUESTS].starved, "4", "requests: starved", "both");
    CONTROL(ring[PL_RING_REPLIES].tail, "8", "replies: tail", "server");
    CONTROL(ring[PL_RING_REPLIES].skip, "8", "replies: skip", "server");
    CONTROL(ring[PL_RING_REPLIES].head, "8", "replies: head", "client");
    CONTROL(ring[PL_RING_REPLIES].sleeping, "4", "replies: sleeping", "both");
    CONTROL(ring[PL_RING_REPLIES].starved, "4", "replies: starved", "both");
    CONTROL(side[PL_SIDE_CLIENT].cpu, "4", "CPU that the client last ran on, plus 1; 0: unknown", "client");
    CONTROL(side[PL_SIDE_SERVER].cpu, "4", "CPU that the server last ran on, plus 1; 0: unknown", "server");
    CONTROL(side[PL_SIDE_SERVER].taken, "8", "taken: how many CALL and SEND frames the server has begun to handle",
            "server");
    CONTROL(returned[PL_RING_REQUESTS], "4 × 64", "returned, of the client's segments", "server");
    CONTROL(returned[PL_RING_REPLIES], "4 × 64", "returned, of the server's segments", "client");
    CONTROL(wanted[PL_RING_REQUESTS], "4", "wanted: the client waits for a segment", "both");
    CONTROL(wanted[PL_RING_REPLIES], "4", "wanted: the server waits for a segment", "both");
    CHECK_INT(PL_SEGMENTS_MAX, 64);
}

TEST(the_document_says_how_rings_are_laid_out)
{
    const char *document = document_read("protocol.md");
    document_expect(document, "Control page", "a control page (%d bytes", PL_CHANNEL_PAGE);
    document_expect(document, "Control page", "to 64 MiB; plait uses 65,536");
    CHECK_INT(PL_RING_CAPACITY, 65536);
    CHECK_INT(PL_RING_CAPACITY_MAX, 64 << 20);
    document_expect(document, "Rings", "The **alignment** of positions is %d bytes", PL_RING_ALIGN);
    document_expect(document, "Large bodies", "at most 64 per direction, with ids 0 to 63");
}

TEST(the_document_says_where_the_load_page_s_words_lie)
{
    const char *document = document_read("protocol.md");
    document_expect(document, "Load page", "then %d × u32", PL_LOAD_REACTORS);
    CHECK_INT(offsetof(struct pl_load_page, busy), 4);
    document_expect(document, "Load page", "u32 `worker` at %zu", offsetof(struct pl_load_page, worker));
    document_expect(document, "Load page", "i32 `supervisor` at %zu", offsetof(struct pl_load_page, supervisor));
    document_expect(document, "Load page", "u64 `death` at %zu", offsetof(struct pl_load_page, death));
    CHECK(PL_DEATH_SIGNAL == 1ull << 63 && PL_DEATH_EXIT == 1ull << 62);
    CHECK_INT(pl_death_number(pl_death_of(PL_DEATH_SIGNAL, 11, 4711)), 11);
    CHECK_INT(pl_death_of(0, 11, 4711) >> 32, 11);
}

TEST(the_document_says_where_a_topic_s_words_lie)
{
    const char *document = document_read("protocol.md");
    document_expect(document, "Topics", "| magic `0x%x` |", (unsigned)PL_BROADCAST_MAGIC);
    document_expect(document, "Topics", "| layout version: %d |", PL_BROADCAST_VERSION);
    FIELD("Topics", pl_broadcast_shared, capacity, "4", "capacity |");
    FIELD("Topics", pl_broadcast_shared, reliable, "4", "1: reliable |");
    FIELD("Topics", pl_broadcast_shared, intent, "8", "intent:");
    FIELD("Topics", pl_broadcast_shared, tail, "8", "tail:");
    FIELD("Topics", pl_broadcast_shared, cpu, "4", "the publisher's CPU, + 1 |");
    FIELD("Topics", pl_broadcast_shared, closed, "4", "1: it ended in order |");
    FIELD("Topics", pl_broadcast_shared, mark, "16 × 8", "marks:");
    FIELD("Topics", pl_broadcast_shared, generation, "64 × 4", "generations:");
    FIELD("Topics", pl_waiters_page, sleepers, "4", "waiters' page: sleepers | all |");
    FIELD("Topics", pl_subscriber_page, start, "8", "own page: position to begin at |");
    FIELD("Topics", pl_subscriber_page, number, "8", "number due there; 0 unknown |");
    FIELD("Topics", pl_subscriber_page, cursor, "8", "cursor:");
    FIELD("Topics", pl_subscriber_page, waiting, "4", "waiting:");
    FIELD("Topics", pl_subscriber_page, need, "8", "need:");
    FIELD("Topics", pl_subscriber_page, leaving, "4", "leaving:");
    FIELD("Topics", pl_subscriber_page, dropped, "8", "dropped:");
    FIELD("Topics", pl_subscriber_page, hazard, "8 × 8", "hazards |");
    CHECK_INT(PL_BROADCAST_MARKS, 16);
    CHECK_INT(PL_TOPIC_HAZARDS, 8);
    document_expect(document, "Topics", "the body, at most %d", PL_BROADCAST_BODY_MAX);
    document_expect(document, "Topics", "at a multiple of %d, and may reach", PL_BROADCAST_ALIGN);
}
