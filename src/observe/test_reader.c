/* Pages as nobody should write them: the parser must neither read beyond them nor believe them. Each page is
 * parsed in memory of exactly its size, right before a page that can't be touched. */
#include "observe/reader.h"

#include "base/error.h"
#include "harness/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SERVICES_AT = 4096, CONNECTIONS_AT = 8192, TEXT_AT = 24576, THREADS_AT = 28672, PAGE_SIZE = 32768 };
enum { SERVICE_AT = SERVICES_AT + 512, CONNECTION_AT = CONNECTIONS_AT + 256, THREAD_AT = THREADS_AT + 256 };

static const char *const sample_texts[PL_STATUS_TEXTS] = { "/run/x", "tcp://127.0.0.1:1 unix:///a", "greet bye" };

static void put_chunk(uint8_t *page, size_t offset, uint32_t kind, uint64_t size, uint32_t slot_size)
{
    struct pl_status_chunk *chunk = (struct pl_status_chunk *)(page + offset);
    chunk->kind = kind;
    chunk->size = size;
    chunk->slot_size = chunk->slot_start = slot_size;
    chunk->slot_count = slot_size > 0 ? (uint32_t)(size / slot_size) - 1 : 0;
}

static void put_texts(uint8_t *page, uint32_t generation)
{
    struct pl_status_chunk *chunk = (struct pl_status_chunk *)(page + TEXT_AT);
    uint8_t *to = (uint8_t *)(chunk + 1);
    put_chunk(page, TEXT_AT, PL_STATUS_TEXT, 4096, 0);
    chunk->generation = generation;
    for (int i = 0; i < PL_STATUS_TEXTS; i++) {
        chunk->text_size[i] = (uint32_t)strlen(sample_texts[i]);
        memcpy(to, sample_texts[i], chunk->text_size[i]);
        to += chunk->text_size[i];
    }
}

/* A sound page with one service, one connection and one thread. Free it. */
static uint8_t *sample(void)
{
    uint8_t *page = calloc(1, PAGE_SIZE);
    struct pl_status_head *head = (struct pl_status_head *)page;
    *head = (struct pl_status_head){
        .magic = PL_STATUS_MAGIC,
        .version = PL_STATUS_VERSION,
        .size = 4096,
        .id = 99,
        .pid = 12,
        .uid = 34,
        .counter_count = PL_COUNTERS,
        .language = "c",
        .library = "0.1.0",
        .process = "proc",
    };
    for (int i = 0; i < PL_COUNTERS; i++) strcpy(head->counter_names[i], pl_counter_table[i].name);
    put_chunk(page, SERVICES_AT, PL_STATUS_SERVICES, 4096, 512);
    put_chunk(page, CONNECTIONS_AT, PL_STATUS_CONNECTIONS, 16384, 256);
    put_texts(page, 3);
    struct pl_status_service_slot *service = (struct pl_status_service_slot *)(page + SERVICE_AT);
    service->version = 2;
    service->id = 7;
    service->threads = 5;
    service->text = UINT64_C(3) << 32 | TEXT_AT / PL_STATUS_ALIGN;
    strcpy(service->name, "greeter");
    service->own.known.requests = 1;
    service->closed.known.requests = 10;
    struct pl_status_connection_slot *connection = (struct pl_status_connection_slot *)(page + CONNECTION_AT);
    connection->version = 4;
    connection->id = 1;
    connection->service = 7;
    connection->peer_pid = 56;
    strcpy(connection->transport, "shm");
    strcpy(connection->framing, "plait");
    strcpy(connection->peer, "caller");
    connection->counters.known.requests = 100;
    put_chunk(page, THREADS_AT, PL_STATUS_THREADS, 4096, 256);
    struct pl_status_thread_slot *thread = (struct pl_status_thread_slot *)(page + THREAD_AT);
    thread->version = 2;
    thread->id = 57;
    thread->library_id = 0x7f0000000000;
    thread->role = PL_STATUS_SERVES;
    strcpy(thread->name, "plait/greeter/0");
    thread->work.current = 812 << 16 | 2;
    thread->work.since = 1000;
    thread->work.service = 7;
    return page;
}

/* Puts SIZE bytes right before untouchable memory. */
static uint8_t *guarded(const uint8_t *bytes, size_t size, void **ret_map, size_t *ret_map_size)
{
    size_t unit = (size_t)sysconf(_SC_PAGESIZE), room = (size + unit - 1) / unit * unit;
    uint8_t *map = mmap(NULL, room + unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    CHECK_INT(mprotect(map + room, unit, PROT_NONE), 0);
    if (size > 0) memcpy(map + room - size, bytes, size);
    *ret_map = map;
    *ret_map_size = room + unit;
    return map + room - size;
}

/* Parses the three copies (AFTER and BEFORE NULL: as BYTES). */
static int parse(struct pl_status_picture *picture, const uint8_t *before, const uint8_t *bytes, const uint8_t *after,
                 size_t size)
{
    const uint8_t *all[3] = { before != NULL ? before : bytes, bytes, after != NULL ? after : bytes };
    const uint8_t *placed[3];
    void *maps[3];
    size_t sizes[3];
    for (int i = 0; i < 3; i++) placed[i] = guarded(all[i], size, &maps[i], &sizes[i]);
    struct pl_status_copy copy = { placed[0], placed[1], placed[2], size };
    int r = pl_status_parse(picture, &copy);
    for (int i = 0; i < 3; i++) munmap(maps[i], sizes[i]);
    return r;
}

static void expect_broken(const uint8_t *page, const char *words)
{
    struct pl_status_picture picture;
    CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), words);
}

static struct pl_status_chunk *chunk_at(uint8_t *page, size_t offset)
{
    return (struct pl_status_chunk *)(page + offset);
}

TEST(a_sound_page_is_read_whole)
{
    struct pl_status_picture picture;
    uint8_t *page = sample();
    CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), 0);
    CHECK_INT(picture.pid, 12);
    CHECK_INT(picture.uid, 34);
    CHECK_STR(picture.process, "proc");
    CHECK_INT(picture.service_count, 1);
    CHECK_STR(picture.services[0].name, "greeter");
    CHECK_INT(picture.services[0].threads, 5);
    for (int i = 0; i < PL_STATUS_TEXTS; i++) CHECK_STR(picture.services[0].texts[i], sample_texts[i]);
    CHECK_INT(picture.services[0].counters[PL_COUNTER_requests], 111); /* own, closed, living */
    CHECK_INT(picture.connection_count, 1);
    CHECK_STR(picture.connections[0].peer, "caller");
    CHECK_INT(picture.connections[0].counters[PL_COUNTER_requests], 100);
    CHECK_INT(picture.unsteady, 0);
    pl_status_picture_deinit(&picture);
    pl_status_picture_deinit(&picture);
    free(page);
}

TEST(a_page_cut_anywhere_is_refused_or_read_in_bounds)
{
    uint8_t *page = sample();
    for (size_t size = 0; size < PAGE_SIZE; size += size < 1200 || (size > 4000 && size < 4800) ? 1 : 97) {
        struct pl_status_picture picture = { 0 };
        int r = parse(&picture, NULL, page, NULL, size);
        CHECK(r == 0 || r == -EPROTO);
        CHECK(r == 0 || pl_error_text()[0] != '\0');
        if (size < sizeof(struct pl_status_head)) CHECK_INT(r, -EPROTO);
        if (r == 0) pl_status_picture_deinit(&picture);
    }
    free(page);
}

TEST(what_is_no_page_of_this_version_is_named)
{
    uint8_t *page = sample();
    struct pl_status_head *head = (struct pl_status_head *)page;
    head->version = 9;
    expect_broken(page, "version 9");
    head->version = PL_STATUS_VERSION;
    head->magic++;
    expect_broken(page, "magic");
    free(page);
}

TEST(heads_that_lie_are_refused)
{
    uint8_t *page = sample();
    struct pl_status_head *head = (struct pl_status_head *)page;
    uint32_t sizes[] = { 0, 64, 4097, PAGE_SIZE + 64, UINT32_MAX };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        head->size = sizes[i];
        expect_broken(page, "head");
    }
    head->size = 4096;
    head->counter_count = PL_STATUS_COUNTERS_MAX + 1;
    expect_broken(page, "counters");
    free(page);
}

TEST(chunks_that_lie_are_refused)
{
    uint8_t *page = sample();
    uint64_t sizes[] = { 0, 63, 65, PAGE_SIZE - SERVICES_AT + 64, UINT64_MAX, UINT64_MAX - 63 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        chunk_at(page, SERVICES_AT)->size = sizes[i];
        expect_broken(page, "chunk");
    }
    free(page);
}

TEST(slots_that_lie_are_refused)
{
    static const struct {
        uint32_t start, size, count;
    } lies[] = { { 512, 0, 7 },           { 512, 256, 7 },
                 { 512, 516, 7 },         { 512, 512, 8 },
                 { 0, 512, 7 },           { 4096, 512, 1 },
                 { UINT32_MAX, 512, 1 },  { 512, UINT32_MAX & ~7u, UINT32_MAX },
                 { 512, 512, UINT32_MAX } };
    uint8_t *page = sample();
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        chunk_at(page, SERVICES_AT)->slot_start = lies[i].start;
        chunk_at(page, SERVICES_AT)->slot_size = lies[i].size;
        chunk_at(page, SERVICES_AT)->slot_count = lies[i].count;
        expect_broken(page, "slots");
    }
    free(page);
}

TEST(texts_that_lie_are_left_out_or_refused)
{
    uint8_t *page = sample();
    struct pl_status_service_slot *service = (struct pl_status_service_slot *)(page + SERVICE_AT);
    uint64_t words[] = { UINT64_C(3) << 32 | 7, UINT64_C(3) << 32 | UINT32_MAX, UINT64_C(3) << 32 };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct pl_status_picture picture;
        service->text = words[i];
        CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), 0);
        CHECK_INT(picture.unsteady, 1); /* it might lie in what the file grew by meanwhile */
        CHECK_INT(picture.service_count, 1);
        CHECK_STR(picture.services[0].texts[PL_STATUS_TEXT_URLS], "");
        pl_status_picture_deinit(&picture);
    }
    service->text = UINT64_C(3) << 32 | TEXT_AT / PL_STATUS_ALIGN;
    for (int i = 0; i < PL_STATUS_TEXTS; i++) {
        uint32_t honest = chunk_at(page, TEXT_AT)->text_size[i];
        chunk_at(page, TEXT_AT)->text_size[i] = i == 1 ? UINT32_MAX : 4096 - 64 + 1;
        expect_broken(page, "text of");
        chunk_at(page, TEXT_AT)->text_size[i] = honest;
    }
    free(page);
}

TEST(texts_without_an_end_or_with_control_characters_are_tamed)
{
    struct pl_status_picture picture;
    uint8_t *page = sample();
    struct pl_status_head *head = (struct pl_status_head *)page;
    struct pl_status_service_slot *service = (struct pl_status_service_slot *)(page + SERVICE_AT);
    struct pl_status_connection_slot *connection = (struct pl_status_connection_slot *)(page + CONNECTION_AT);
    memset(head->process, 'p', sizeof head->process);
    memset(service->name, 'n', sizeof service->name);
    memset(connection->peer, 'x', sizeof connection->peer);
    memset(connection->transport, 't', sizeof connection->transport);
    memcpy(connection->framing, "\033[2J\n\x7f", 7);
    page[TEXT_AT + 64] = '\r';
    CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), 0);
    CHECK_INT(strlen(picture.process), sizeof head->process - 1);
    CHECK_INT(strlen(picture.services[0].name), sizeof service->name - 1);
    CHECK_INT(strlen(picture.connections[0].peer), sizeof connection->peer - 1);
    CHECK_INT(strlen(picture.connections[0].transport), sizeof connection->transport - 1);
    CHECK_STR(picture.connections[0].framing, "?[2J??");
    CHECK_STR(picture.services[0].texts[PL_STATUS_TEXT_DIRECTORY], "?run/x");
    pl_status_picture_deinit(&picture);
    free(page);
}

TEST(a_slot_that_is_being_written_is_left_out_and_told)
{
    struct pl_status_picture picture;
    uint8_t *page = sample(), *later = sample();
    struct pl_status_connection_slot *slot = (struct pl_status_connection_slot *)(page + CONNECTION_AT);
    struct pl_status_connection_slot *later_slot = (struct pl_status_connection_slot *)(later + CONNECTION_AT);
    slot->version = 5; /* all three copies caught it in the middle */
    CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), 0);
    CHECK_INT(picture.connection_count, 0);
    CHECK_INT(picture.unsteady, 1);
    pl_status_picture_deinit(&picture);
    slot->version = 4; /* whole before, whole after, but not the same */
    later_slot->version = 6;
    CHECK_INT(parse(&picture, page, page, later, PAGE_SIZE), 0);
    CHECK_INT(picture.connection_count, 0);
    CHECK_INT(picture.unsteady, 1);
    pl_status_picture_deinit(&picture);
    free(page);
    free(later);
}

TEST(a_text_that_is_being_exchanged_is_told)
{
    struct pl_status_picture picture;
    uint8_t *page = sample(), *later = sample();
    ((struct pl_status_service_slot *)(later + SERVICE_AT))->text = UINT64_C(4) << 32 | TEXT_AT / PL_STATUS_ALIGN;
    chunk_at(page, TEXT_AT)->text_size[1] = UINT32_MAX; /* the one text's size, the other's place */
    CHECK_INT(parse(&picture, page, page, later, PAGE_SIZE), 0);
    CHECK_INT(picture.unsteady, 1);
    CHECK_INT(picture.service_count, 1);
    CHECK_STR(picture.services[0].texts[PL_STATUS_TEXT_URLS], "");
    pl_status_picture_deinit(&picture);
    chunk_at(page, TEXT_AT)->generation = 4; /* the chunk is in use for something else by now */
    CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), 0);
    CHECK_INT(picture.unsteady, 1);
    CHECK_STR(picture.services[0].texts[PL_STATUS_TEXT_URLS], "");
    pl_status_picture_deinit(&picture);
    free(page);
    free(later);
}

TEST(a_closing_connection_makes_totals_unsteady)
{
    struct pl_status_picture picture;
    uint8_t *page = sample(), *later = sample();
    ((struct pl_status_service_slot *)(later + SERVICE_AT))->folds = 2;
    CHECK_INT(parse(&picture, page, page, later, PAGE_SIZE), 0);
    CHECK_INT(picture.unsteady, 1);
    CHECK_INT(picture.service_count, 1);
    pl_status_picture_deinit(&picture);
    free(page);
    free(later);
}

TEST(a_chunk_that_the_first_copy_lacks_is_the_end)
{
    struct pl_status_picture picture;
    uint8_t *page = sample(), *earlier = sample();
    chunk_at(earlier, CONNECTIONS_AT)->kind = PL_STATUS_END;
    chunk_at(page, CONNECTIONS_AT)->size = 0; /* not yet written either */
    ((struct pl_status_service_slot *)(earlier + SERVICE_AT))->text = 0;
    ((struct pl_status_service_slot *)(page + SERVICE_AT))->text = 0;
    CHECK_INT(parse(&picture, earlier, page, page, PAGE_SIZE), 0);
    CHECK_INT(picture.service_count, 1);
    CHECK_INT(picture.connection_count, 0);
    pl_status_picture_deinit(&picture);
    free(page);
    free(earlier);
}

TEST(unknown_kinds_larger_slots_and_other_counters_are_no_trouble)
{
    struct pl_status_picture picture;
    uint8_t *page = sample();
    struct pl_status_head *head = (struct pl_status_head *)page;
    /* A later library: the counters in another order, one that we don't know, one of ours missing. */
    strcpy(head->counter_names[0], "sunspots");
    strcpy(head->counter_names[1], "requests");
    ((struct pl_status_service_slot *)(page + SERVICE_AT))->own.words[1] = 42;
    chunk_at(page, CONNECTIONS_AT)->kind = 4711;
    CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), 0);
    CHECK_INT(picture.connection_count, 0);
    CHECK_INT(picture.services[0].counters[PL_COUNTER_requests], 42);
    CHECK_INT(picture.services[0].counters[PL_COUNTER_replies], 0);
    pl_status_picture_deinit(&picture);
    chunk_at(page, CONNECTIONS_AT)->kind = PL_STATUS_CONNECTIONS;
    chunk_at(page, CONNECTIONS_AT)->slot_size = 512;
    chunk_at(page, CONNECTIONS_AT)->slot_count = 31;
    CHECK_INT(parse(&picture, NULL, page, NULL, PAGE_SIZE), 0);
    CHECK_INT(picture.connection_count, 1);
    pl_status_picture_deinit(&picture);
    free(page);
}

static const struct pl_status_thread_picture *read_thread(struct pl_status_picture *picture, uint8_t *before,
                                                          uint8_t *bytes, uint8_t *after)
{
    struct pl_status_copy copy = { before, bytes, after, PAGE_SIZE };
    CHECK_INT(pl_status_parse(picture, &copy), 0);
    CHECK_INT(picture->thread_count, 1);
    return &picture->threads[0];
}

TEST(a_thread_tells_what_it_handles_and_since_when)
{
    struct pl_status_picture picture;
    uint8_t *page = sample(), *later = sample();
    struct pl_status_thread_slot *thread = (struct pl_status_thread_slot *)(page + THREAD_AT);
    const struct pl_status_thread_picture *seen = read_thread(&picture, page, page, page);
    CHECK_INT(seen->tid, 57);
    CHECK_INT(seen->library_id, 0x7f0000000000);
    CHECK_STR(seen->name, "plait/greeter/0");
    CHECK_INT(seen->service, 0);
    CHECK_INT(seen->handled, 812);
    CHECK_INT(seen->method, 2);
    CHECK_INT(seen->since, 1000);
    pl_status_picture_deinit(&picture);

    /* Another request by the time of the last copy: what is between may be of either, so its age isn't told. */
    ((struct pl_status_thread_slot *)(later + THREAD_AT))->work.current += 1 << 16;
    seen = read_thread(&picture, page, page, later);
    CHECK_INT(seen->since, 0);
    CHECK_INT(seen->method, 2);
    pl_status_picture_deinit(&picture);

    thread->work.service = 12345; /* of nobody who is listed */
    memset(thread->name, '\x1b', sizeof thread->name);
    seen = read_thread(&picture, page, page, page);
    CHECK(seen->service == SIZE_MAX);
    CHECK_INT(strlen(seen->name), sizeof thread->name - 1);
    CHECK_INT(seen->name[0], '?');
    pl_status_picture_deinit(&picture);
    thread->version++;
    struct pl_status_copy copy = { page, page, page, PAGE_SIZE };
    CHECK_INT(pl_status_parse(&picture, &copy), 0);
    CHECK_INT(picture.thread_count, 0);
    CHECK_INT(picture.unsteady, 1);
    pl_status_picture_deinit(&picture);
    free(page);
    free(later);
}

TEST(a_thousand_services_are_the_limit)
{
    size_t size = SERVICES_AT + 512 * (PL_STATUS_SERVICES_MAX + 8);
    uint8_t *page = calloc(1, size), *one = sample();
    struct pl_status_picture picture;
    memcpy(page, one, SERVICES_AT);
    put_chunk(page, SERVICES_AT, PL_STATUS_SERVICES, size - SERVICES_AT, 512);
    for (uint32_t i = 0; i < chunk_at(page, SERVICES_AT)->slot_count; i++) page[SERVICE_AT + i * 512 + 8] = 1;
    CHECK_INT(parse(&picture, NULL, page, NULL, size), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "1024 services");
    free(page);
    free(one);
}

/* Deterministic noise: every run breaks the same pages. */
static uint32_t noise(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

TEST(random_damage_is_survived)
{
    static const size_t places[] = { 0, SERVICES_AT, SERVICE_AT, CONNECTIONS_AT, CONNECTION_AT, TEXT_AT };
    uint64_t state = 1;
    uint8_t *page = sample(), *damaged = malloc(PAGE_SIZE);
    for (int round = 0; round < (test_sanitized() ? 2000 : 10000); round++) {
        struct pl_status_picture picture;
        memcpy(damaged, page, PAGE_SIZE);
        for (uint32_t hits = 1 + noise(&state) % 4; hits > 0; hits--) {
            size_t at = places[noise(&state) % 6] + noise(&state) % 512;
            damaged[at] = (uint8_t)(noise(&state) % 3 == 0 ? 0xff : noise(&state));
        }
        struct pl_status_copy copy = { page, damaged, page, PAGE_SIZE };
        if (round % 2 == 0) copy.before = copy.after = damaged;
        int r = pl_status_parse(&picture, &copy);
        CHECK(r == 0 || r == -EPROTO);
        if (r == 0) pl_status_picture_deinit(&picture);
    }
    free(page);
    free(damaged);
}
