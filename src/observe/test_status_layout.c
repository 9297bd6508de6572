/* docs/status.md says where everything lies, so that a reader in another language can be written from it: every
 * line of its tables must be what the compiler says, and the counters must be those of counters.def. */
#include "observe/status_layout.h"

#include "harness/document.h"
#include "harness/test.h"

#include <stdio.h>
#include <string.h>

static const char *document;

static void read_document(void)
{
    document = document_read("status.md");
}

static void expect_row(const char *section, const char *row)
{
    document_expect(document, section, "%s", row);
}

static void expect_field(const char *section, size_t offset, const char *type, const char *name)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "`%s` |", name);
    document_expect_field(document, section, offset, type, quoted);
}

#define FIELD(section, object, type, name) expect_field(section, offsetof(struct object, name), type, #name)

TEST(the_document_says_where_everything_lies)
{
    read_document();
    FIELD("Head", pl_status_head, "u64", magic);
    FIELD("Head", pl_status_head, "u32", version);
    FIELD("Head", pl_status_head, "u32", size);
    FIELD("Head", pl_status_head, "u64", id);
    FIELD("Head", pl_status_head, "u64", created_ms);
    FIELD("Head", pl_status_head, "u64", process_start);
    FIELD("Head", pl_status_head, "u64", pid_namespace);
    FIELD("Head", pl_status_head, "i32", pid);
    FIELD("Head", pl_status_head, "u32", uid);
    FIELD("Head", pl_status_head, "u32", counter_count);
    FIELD("Head", pl_status_head, "text 16", language);
    FIELD("Head", pl_status_head, "text 16", library);
    FIELD("Head", pl_status_head, "text 64", process);
    FIELD("Head", pl_status_head, "16 × text 24", counter_names);
    FIELD("Chunk", pl_status_chunk, "u32", kind);
    FIELD("Chunk", pl_status_chunk, "u32", slot_size);
    FIELD("Chunk", pl_status_chunk, "u32", slot_count);
    FIELD("Chunk", pl_status_chunk, "u32", slot_start);
    FIELD("Chunk", pl_status_chunk, "u64", size);
    FIELD("Chunk", pl_status_chunk, "u32", generation);
    FIELD("Chunk", pl_status_chunk, "3 × u32", text_size);
    FIELD("Service", pl_status_service_slot, "u64", version);
    FIELD("Service", pl_status_service_slot, "u64", id);
    FIELD("Service", pl_status_service_slot, "u64", started_ms);
    FIELD("Service", pl_status_service_slot, "u64", text);
    FIELD("Service", pl_status_service_slot, "u64", folds);
    FIELD("Service", pl_status_service_slot, "u32", threads);
    FIELD("Service", pl_status_service_slot, "text 104", name);
    FIELD("Service", pl_status_service_slot, "i32", supervisor);
    FIELD("Service", pl_status_service_slot, "u32", worker);
    FIELD("Service", pl_status_service_slot, "u32", restarts);
    FIELD("Service", pl_status_service_slot, "16 × u64", own);
    FIELD("Service", pl_status_service_slot, "16 × u64", closed);
    FIELD("Connection", pl_status_connection_slot, "u64", version);
    FIELD("Connection", pl_status_connection_slot, "u64", id);
    FIELD("Connection", pl_status_connection_slot, "u64", service);
    FIELD("Connection", pl_status_connection_slot, "u64", connected_ms);
    FIELD("Connection", pl_status_connection_slot, "i32", peer_pid);
    FIELD("Connection", pl_status_connection_slot, "u32", peer_uid);
    FIELD("Connection", pl_status_connection_slot, "text 12", transport);
    FIELD("Connection", pl_status_connection_slot, "text 12", framing);
    FIELD("Connection", pl_status_connection_slot, "text 64", peer);
    FIELD("Connection", pl_status_connection_slot, "16 × u64", counters);
}

TEST(the_document_says_where_threads_and_pools_lie)
{
    read_document();
    FIELD("Thread", pl_status_thread_slot, "u64", version);
    FIELD("Thread", pl_status_thread_slot, "u64", id);
    FIELD("Thread", pl_status_thread_slot, "u64", library_id);
    FIELD("Thread", pl_status_thread_slot, "u32", role);
    FIELD("Thread", pl_status_thread_slot, "u64", anchor_ticks);
    FIELD("Thread", pl_status_thread_slot, "u64", anchor_ns);
    FIELD("Thread", pl_status_thread_slot, "u64", ticks_per_ms);
    FIELD("Thread", pl_status_thread_slot, "text 112", name);
    FIELD("Thread", pl_status_thread_slot, "u64", work.current);
    FIELD("Thread", pl_status_thread_slot, "u64", work.since);
    FIELD("Thread", pl_status_thread_slot, "u64", work.service);
    FIELD("Pool", pl_status_pool_slot, "u64", version);
    FIELD("Pool", pl_status_pool_slot, "u64", id);
    FIELD("Pool", pl_status_pool_slot, "u32", threads);
    FIELD("Pool", pl_status_pool_slot, "u32", capacity);
    FIELD("Pool", pl_status_pool_slot, "text 104", name);
    FIELD("Pool", pl_status_pool_slot, "u64", queue.waiting);
    FIELD("Pool", pl_status_pool_slot, "u64", queue.oldest);
    FIELD("Pool", pl_status_pool_slot, "u64", queue.taken);
    FIELD("Pool", pl_status_pool_slot, "u64", queue.refused);
}

TEST(the_document_names_every_counter)
{
    read_document();
    for (int i = 0; i < PL_COUNTERS; i++) {
        const struct pl_counter_info *counter = &pl_counter_table[i];
        char row[256];
        snprintf(row, sizeof row, "\n| `%s` | %s | %s | %s |", counter->name, counter->gauge ? "gauge" : "counter",
                 counter->unit, counter->help);
        expect_row("Counters", row);
    }
}

TEST(kinds_magic_and_version_are_what_the_document_says)
{
    read_document();
    expect_row("Head", "0x737574617473706c");
    CHECK_INT(PL_STATUS_MAGIC, 0x737574617473706c);
    CHECK_INT(PL_STATUS_VERSION, 1);
    static const struct {
        int kind;
        const char *row;
    } kinds[] = { { PL_STATUS_END, "\n| 0 | end:" },
                  { PL_STATUS_FREE, "\n| 1 | free:" },
                  { PL_STATUS_SERVICES, "\n| 2 | services |" },
                  { PL_STATUS_CONNECTIONS, "\n| 3 | connections |" },
                  { PL_STATUS_TEXT, "\n| 4 | text:" },
                  { PL_STATUS_THREADS, "\n| 5 | threads |" } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        expect_row("Chunk", kinds[i].row);
        CHECK_INT(kinds[i].kind, i);
    }
    expect_row("Chunk", "\n| 8 | pools |");
    CHECK_INT(PL_STATUS_POOLS, 8);
}

TEST(every_counter_has_a_name_that_fits_a_unit_and_a_help)
{
    for (int i = 0; i < PL_COUNTERS; i++) {
        CHECK(strlen(pl_counter_table[i].name) < PL_STATUS_COUNTER_NAME);
        CHECK(pl_counter_table[i].unit[0] != '\0' && pl_counter_table[i].help[0] != '\0');
        for (int other = 0; other < i; other++)
            CHECK(strcmp(pl_counter_table[i].name, pl_counter_table[other].name) != 0);
    }
    CHECK(pl_counter_table[PL_COUNTER_outstanding].gauge);
    CHECK(!pl_counter_table[PL_COUNTER_requests].gauge);
}
