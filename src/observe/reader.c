/* reader: see reader.h.
 *
 * Why three copies: pread copies in no promised order, so a version and what it guards in one copy
 * prove nothing. A version read wholly before and again wholly after does.
 *
 * A process that was stopped or killed in the middle of a change leaves an odd version for ever: that one
 * slot is left out, which is the truth for a connection that is just coming or going, and for texts
 * cannot happen, since they are exchanged by storing one word.
 */
#include "observe/reader.h"

#include "base/error.h"

#include <errno.h>
#include <plait/plait.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READS_MAX = 8 };

struct parser {
    const struct pl_status_copy *copy;
    struct pl_status_picture *picture;
    uint32_t counter_count;                       /* in each block of this page */
    int8_t counter_index[PL_STATUS_COUNTERS_MAX]; /* which of ours each is; -1 unknown */
    size_t services_room, connections_room, threads_room, pools_room;
};

static uint32_t get32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint64_t get64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* SIZE bytes that somebody else wrote, to text that can be printed: TO has room for SIZE + 1. */
static void take_text(char *to, const uint8_t *from, size_t size)
{
    size_t i;
    for (i = 0; i < size && from[i] != '\0'; i++) to[i] = from[i] < ' ' || from[i] == 0x7f ? '?' : (char)from[i];
    to[i] = '\0';
}

/* A field of the page of the same size as our own: its last byte is not believed to be NUL. */
#define TAKE_TEXT(to, from) take_text((to), (const uint8_t *)(from), sizeof(to) - 1)

/* True if the version at OFFSET was even and didn't change while the middle copy was taken. */
static bool steady(const struct pl_status_copy *copy, size_t offset)
{
    uint64_t version = get64(copy->before + offset);
    return (version & 1) == 0 && version == get64(copy->after + offset);
}

static void take_counters(const struct parser *parser, uint64_t counters[PL_COUNTERS], const uint8_t *block, bool add)
{
    for (uint32_t i = 0; i < parser->counter_count; i++) {
        int to = parser->counter_index[i];
        if (to >= 0) counters[to] = (add ? counters[to] : 0) + get64(block + i * sizeof(uint64_t));
    }
}

/* Room for one more element; arrays double. */
static int need_room(void **array, size_t count, size_t *room, size_t element)
{
    if (count < *room) return 0;
    size_t more = *room == 0 ? 8 : *room * 2;
    void *memory = realloc(*array, more * element);
    if (memory == NULL) return pl_error(-ENOMEM, "status page: out of memory");
    *array = memory;
    *room = more;
    return 0;
}

/* ---- head ------------------------------------------------------------------------------- */

static int parse_head(struct parser *parser, size_t *ret_size)
{
    struct pl_status_head head;
    struct pl_status_picture *picture = parser->picture;
    if (parser->copy->size < sizeof head)
        return pl_error(-EPROTO, "status page: %zu bytes, too short", parser->copy->size);
    memcpy(&head, parser->copy->bytes, sizeof head);
    if (head.magic != PL_STATUS_MAGIC) return pl_error(-EPROTO, "status page: not one (wrong magic)");
    if (head.version != PL_STATUS_VERSION)
        return pl_error(-EPROTO, "status page: version %u, this library reads %d", head.version, PL_STATUS_VERSION);
    if (head.size < sizeof head || head.size % 64 != 0 || head.size > parser->copy->size)
        return pl_error(-EPROTO, "status page: a head of %u bytes", head.size);
    if (head.counter_count > PL_STATUS_COUNTERS_MAX)
        return pl_error(-EPROTO, "status page: %u counters", head.counter_count);
    picture->id = head.id;
    picture->created_ms = head.created_ms;
    picture->process_start = head.process_start;
    picture->pid_namespace = head.pid_namespace;
    picture->pid = head.pid;
    picture->uid = head.uid;
    TAKE_TEXT(picture->language, head.language);
    TAKE_TEXT(picture->library, head.library);
    TAKE_TEXT(picture->process, head.process);
    parser->counter_count = head.counter_count;
    for (uint32_t i = 0; i < head.counter_count; i++) {
        parser->counter_index[i] = -1;
        for (int own = 0; own < PL_COUNTERS; own++)
            if (strncmp(head.counter_names[i], pl_counter_table[own].name, PL_STATUS_COUNTER_NAME) == 0)
                parser->counter_index[i] = (int8_t)own;
    }
    *ret_size = head.size;
    return 0;
}

/* ---- chunks ----------------------------------------------------------------------------- */

struct chunk {
    size_t offset;
    uint32_t kind, slot_size, slot_count, slot_start;
    uint64_t size;
};

/* The chunk at OFFSET; 0 and kind END at the end. */
static int get_chunk(const struct pl_status_copy *copy, size_t offset, struct chunk *ret_chunk)
{
    struct chunk chunk = { .offset = offset };
    size_t left = copy->size - offset;
    if (left < sizeof(struct pl_status_chunk)) {
        *ret_chunk = chunk;
        return 0;
    }
    const uint8_t *at = copy->bytes + offset;
    /* What the first copy didn't have yet may be half there in the second: the kind is what comes last. */
    chunk.kind = get32(copy->before + offset) == PL_STATUS_END ? PL_STATUS_END : get32(at);
    if (chunk.kind != PL_STATUS_END) {
        chunk.slot_size = get32(at + offsetof(struct pl_status_chunk, slot_size));
        chunk.slot_count = get32(at + offsetof(struct pl_status_chunk, slot_count));
        chunk.slot_start = get32(at + offsetof(struct pl_status_chunk, slot_start));
        chunk.size = get64(at + offsetof(struct pl_status_chunk, size));
        if (chunk.size < sizeof(struct pl_status_chunk) || chunk.size % 64 != 0 || chunk.size > left)
            return pl_error(-EPROTO, "status page: a chunk of %llu bytes with %zu left", (unsigned long long)chunk.size,
                            left);
    }
    *ret_chunk = chunk;
    return 0;
}

/* Slots must lie in their chunk and hold at least what we know of them. */
static int check_slots(const struct chunk *chunk, size_t known)
{
    uint64_t end = chunk->slot_start + (uint64_t)chunk->slot_size * chunk->slot_count;
#ifdef PLAIT_PLANT_BUG /* what fuzz_status must find: pools of the usual size are believed to lie in their chunk */
    if (chunk->kind == PL_STATUS_POOLS && chunk->slot_size == known) return 0;
#endif
    if (chunk->slot_start < sizeof(struct pl_status_chunk) || chunk->slot_size < known || chunk->slot_size % 8 != 0 ||
        end > chunk->size)
        return pl_error(-EPROTO, "status page: %u slots of %u bytes in a chunk of %llu", chunk->slot_count,
                        chunk->slot_size, (unsigned long long)chunk->size);
    return 0;
}

/* ---- services --------------------------------------------------------------------------- */

/* The texts behind WORD, which didn't change meanwhile. 1: not there (the file has grown since its size was taken,
 * or the word is a lie) or of another generation; -EPROTO. */
static int take_texts(const struct pl_status_copy *copy, uint64_t word, char *texts[PL_STATUS_TEXTS])
{
    uint64_t offset = (word & UINT32_MAX) * PL_STATUS_ALIGN;
    struct chunk chunk;
    if (offset == 0 || offset >= copy->size) return 1;
    int r = get_chunk(copy, (size_t)offset, &chunk);
    if (r < 0) return r;
    const uint8_t *at = copy->bytes + offset;
    if (chunk.kind != PL_STATUS_TEXT || get32(at + offsetof(struct pl_status_chunk, generation)) != word >> 32)
        return 1;
    uint64_t used = sizeof(struct pl_status_chunk);
    for (int i = 0; i < PL_STATUS_TEXTS; i++) {
        uint32_t size = get32(at + offsetof(struct pl_status_chunk, text_size) + (size_t)i * sizeof(uint32_t));
        if (size > chunk.size - used) return pl_error(-EPROTO, "status page: a text of %u bytes", size);
        free(texts[i]);
        texts[i] = malloc((size_t)size + 1);
        if (texts[i] == NULL) return pl_error(-ENOMEM, "status page: out of memory");
        take_text(texts[i], at + used, size);
        used += size;
    }
    return 0;
}

static int parse_service(struct parser *parser, size_t offset)
{
    const struct pl_status_copy *copy = parser->copy;
    struct pl_status_picture *picture = parser->picture;
    const uint8_t *at = copy->bytes + offset;
    size_t text = offset + offsetof(struct pl_status_service_slot, text);
    if (!steady(copy, offset)) {
        picture->unsteady++;
        return 0;
    }
    if (get64(at + offsetof(struct pl_status_service_slot, id)) == 0) return 0;
    if (picture->service_count == PL_STATUS_SERVICES_MAX)
        return pl_error(-EPROTO, "status page: more than %d services", PL_STATUS_SERVICES_MAX);
    int r = need_room((void **)&picture->services, picture->service_count, &parser->services_room,
                      sizeof *picture->services);
    if (r < 0) return r;
    struct pl_status_service_picture *service = &picture->services[picture->service_count];
    *service = (struct pl_status_service_picture){
        .id = get64(at + offsetof(struct pl_status_service_slot, id)),
        .started_ms = get64(at + offsetof(struct pl_status_service_slot, started_ms)),
        .threads = get32(at + offsetof(struct pl_status_service_slot, threads)),
        .worker = get32(at + offsetof(struct pl_status_service_slot, worker)),
        .restarts = get32(at + offsetof(struct pl_status_service_slot, restarts)),
        .supervisor = (int32_t)get32(at + offsetof(struct pl_status_service_slot, supervisor)),
    };
    picture->service_count++; /* from here on deinit frees its texts */
    TAKE_TEXT(service->name, at + offsetof(struct pl_status_service_slot, name));
    take_counters(parser, service->counters, at + offsetof(struct pl_status_service_slot, own), false);
    take_counters(parser, service->counters, at + offsetof(struct pl_status_service_slot, closed), true);
    if (!steady(copy, offset + offsetof(struct pl_status_service_slot, folds))) picture->unsteady++;
    /* While texts are exchanged, what the word leads to may be in use for others: neither shown nor judged. */
    uint64_t word = get64(copy->before + text);
    if (word != get64(copy->after + text)) r = 1;
    else if (word != 0) r = take_texts(copy, word, service->texts);
    if (r < 0) return r;
    if (r > 0) picture->unsteady++;
    for (int i = 0; i < PL_STATUS_TEXTS; i++) {
        if (service->texts[i] == NULL) service->texts[i] = calloc(1, 1);
        if (service->texts[i] == NULL) return pl_error(-ENOMEM, "status page: out of memory");
    }
    return 0;
}

/* A topic's slot is laid out like a service's. */
static int parse_topic(struct parser *parser, size_t offset)
{
    size_t before = parser->picture->service_count;
    int r = parse_service(parser, offset);
    if (parser->picture->service_count > before) parser->picture->services[before].topic = true;
    return r;
}

/* ---- connections ------------------------------------------------------------------------ */

static size_t service_with(const struct pl_status_picture *picture, uint64_t id)
{
    size_t index = 0;
    while (index < picture->service_count && picture->services[index].id != id) index++;
    return index;
}

static int parse_connection(struct parser *parser, size_t offset)
{
    struct pl_status_picture *picture = parser->picture;
    const uint8_t *at = parser->copy->bytes + offset;
    if (!steady(parser->copy, offset)) {
        picture->unsteady++;
        return 0;
    }
    uint64_t id = get64(at + offsetof(struct pl_status_connection_slot, id));
    uint64_t owner = get64(at + offsetof(struct pl_status_connection_slot, service));
    size_t index = service_with(picture, owner);
    if (id == 0 || index == picture->service_count) return 0;
    int r = need_room((void **)&picture->connections, picture->connection_count, &parser->connections_room,
                      sizeof *picture->connections);
    if (r < 0) return r;
    struct pl_status_connection_picture *connection = &picture->connections[picture->connection_count++];
    *connection = (struct pl_status_connection_picture){
        .id = id,
        .service = index,
        .connected_ms = get64(at + offsetof(struct pl_status_connection_slot, connected_ms)),
        .peer_pid = (int32_t)get32(at + offsetof(struct pl_status_connection_slot, peer_pid)),
        .peer_uid = get32(at + offsetof(struct pl_status_connection_slot, peer_uid)),
    };
    TAKE_TEXT(connection->transport, at + offsetof(struct pl_status_connection_slot, transport));
    TAKE_TEXT(connection->framing, at + offsetof(struct pl_status_connection_slot, framing));
    TAKE_TEXT(connection->peer, at + offsetof(struct pl_status_connection_slot, peer));
    take_counters(parser, connection->counters, at + offsetof(struct pl_status_connection_slot, counters), false);
    picture->services[index].connection_count++;
    for (int i = 0; i < PL_COUNTERS; i++) picture->services[index].counters[i] += connection->counters[i];
    return 0;
}

/* ---- threads and pools -------------------------------------------------------------------- */

static int parse_thread(struct parser *parser, size_t offset)
{
    struct pl_status_picture *picture = parser->picture;
    const struct pl_status_copy *copy = parser->copy;
    const uint8_t *at = copy->bytes + offset;
    if (!steady(copy, offset)) {
        picture->unsteady++;
        return 0;
    }
    uint64_t id = get64(at + offsetof(struct pl_status_thread_slot, id));
    if (id == 0) return 0;
    int r =
        need_room((void **)&picture->threads, picture->thread_count, &parser->threads_room, sizeof *picture->threads);
    if (r < 0) return r;
    size_t place = offset + offsetof(struct pl_status_thread_slot, work.current);
    uint64_t current = get64(copy->bytes + place);
    /* The same request before and after: what lies between says since when. Else it began or ended just now. */
    bool still = get64(copy->before + place) == get64(copy->after + place);
    size_t service = service_with(picture, get64(at + offsetof(struct pl_status_thread_slot, work.service)));
    struct pl_status_thread_picture *thread = &picture->threads[picture->thread_count++];
    *thread = (struct pl_status_thread_picture){
        .tid = id,
        .library_id = get64(at + offsetof(struct pl_status_thread_slot, library_id)),
        .role = get32(at + offsetof(struct pl_status_thread_slot, role)),
        .service = service < picture->service_count ? service : SIZE_MAX,
        .handled = current >> 16,
        .method = (uint32_t)(current & UINT16_MAX),
        .since = still ? get64(at + offsetof(struct pl_status_thread_slot, work.since)) : 0,
    };
    TAKE_TEXT(thread->name, at + offsetof(struct pl_status_thread_slot, name));
    return 0;
}

static int parse_pool(struct parser *parser, size_t offset)
{
    struct pl_status_picture *picture = parser->picture;
    const uint8_t *at = parser->copy->bytes + offset;
    if (!steady(parser->copy, offset)) {
        picture->unsteady++;
        return 0;
    }
    uint64_t id = get64(at + offsetof(struct pl_status_pool_slot, id));
    if (id == 0) return 0;
    int r = need_room((void **)&picture->pools, picture->pool_count, &parser->pools_room, sizeof *picture->pools);
    if (r < 0) return r;
    struct pl_status_pool_picture *pool = &picture->pools[picture->pool_count++];
    *pool = (struct pl_status_pool_picture){
        .id = id,
        .waiting = get64(at + offsetof(struct pl_status_pool_slot, queue.waiting)),
        .oldest = get64(at + offsetof(struct pl_status_pool_slot, queue.oldest)),
        .taken = get64(at + offsetof(struct pl_status_pool_slot, queue.taken)),
        .refused = get64(at + offsetof(struct pl_status_pool_slot, queue.refused)),
        .threads = get32(at + offsetof(struct pl_status_pool_slot, threads)),
        .capacity = get32(at + offsetof(struct pl_status_pool_slot, capacity)),
    };
    TAKE_TEXT(pool->name, at + offsetof(struct pl_status_pool_slot, name));
    return 0;
}

/* Walks all chunks and gives each slot of KIND to FN. */
static int each_slot(struct parser *parser, size_t offset, uint32_t kind, size_t known,
                     int (*fn)(struct parser *, size_t))
{
    for (;;) {
        struct chunk chunk;
        int r = get_chunk(parser->copy, offset, &chunk);
        if (r < 0 || chunk.kind == PL_STATUS_END) return r;
        if (chunk.kind == kind) r = check_slots(&chunk, known);
        for (uint32_t i = 0; chunk.kind == kind && r == 0 && i < chunk.slot_count; i++)
            r = fn(parser, offset + chunk.slot_start + (size_t)i * chunk.slot_size);
        if (r < 0) return r;
        offset += (size_t)chunk.size;
    }
}

int pl_status_parse(struct pl_status_picture *ret_picture, const struct pl_status_copy *copy)
{
    struct pl_status_picture picture = { 0 };
    struct parser parser = { .copy = copy, .picture = &picture };
    size_t first = 0;
    int r = parse_head(&parser, &first);
    /* Services first, so that connections and threads find theirs, wherever the chunks lie. */
    if (r == 0) r = each_slot(&parser, first, PL_STATUS_SERVICES, sizeof(struct pl_status_service_slot), parse_service);
    if (r == 0) r = each_slot(&parser, first, PL_STATUS_TOPICS, sizeof(struct pl_status_service_slot), parse_topic);
    if (r == 0)
        r = each_slot(&parser, first, PL_STATUS_CONNECTIONS, sizeof(struct pl_status_connection_slot),
                      parse_connection);
    if (r == 0) r = each_slot(&parser, first, PL_STATUS_THREADS, sizeof(struct pl_status_thread_slot), parse_thread);
    if (r == 0) r = each_slot(&parser, first, PL_STATUS_POOLS, sizeof(struct pl_status_pool_slot), parse_pool);
    if (r < 0) {
        pl_status_picture_deinit(&picture);
        return r;
    }
    *ret_picture = picture;
    return 0;
}

void pl_status_picture_deinit(struct pl_status_picture *picture)
{
    for (size_t i = 0; i < picture->service_count; i++)
        for (int text = 0; text < PL_STATUS_TEXTS; text++) free(picture->services[i].texts[text]);
    free(picture->services);
    free(picture->connections);
    free(picture->threads);
    free(picture->pools);
    *picture = (struct pl_status_picture){ 0 };
}

/* ---- reading ---------------------------------------------------------------------------- */

static int read_all(int fd, uint8_t *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, bytes + done, size - done, (off_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pl_error(-errno, "status page: read: %s", pl_error_word(errno));
        if (got == 0) return pl_error(-EPROTO, "status page: shorter than it was");
        done += (size_t)got;
    }
    return 0;
}

/* Takes the three copies, of a file that may have grown since the last time, and what they say. */
static int read_once(struct pl_status_picture *picture, int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0) return pl_error(-errno, "status page: %s", pl_error_word(errno));
    if (!S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size > PL_STATUS_SIZE_MAX)
        return pl_error(-EPROTO, "status page: not a file of at most %d MiB", PL_STATUS_SIZE_MAX >> 20);
    size_t size = (size_t)status.st_size;
    uint8_t *memory = malloc(3 * size);
    if (memory == NULL) return pl_error(-ENOMEM, "status page: out of memory");
    int r = read_all(fd, memory, size);
    /* OBA2: pairs with OBR2, OBR3, OBR4 and OBR6 in page.c, status.c and status.h */
    atomic_thread_fence(memory_order_acquire);
    if (r == 0) r = read_all(fd, memory + size, size);
    /* OBA1: pairs with OBR1 in page.c and OBR5 in status.c */
    atomic_thread_fence(memory_order_acquire);
    if (r == 0) r = read_all(fd, memory + 2 * size, size);
    struct pl_status_copy copy = { memory, memory + size, memory + 2 * size, size };
    if (r == 0) r = pl_status_parse(picture, &copy);
    free(memory);
    return r;
}

int pl_status_read(struct pl_status_picture *ret_picture, int fd)
{
    struct pl_status_picture best = { .unsteady = SIZE_MAX };
    for (int reads = 0; reads < READS_MAX && best.unsteady > 0; reads++) {
        struct pl_status_picture picture = { 0 };
        int r = read_once(&picture, fd);
        if (r < 0) {
            pl_status_picture_deinit(&best);
            return r;
        }
        if (picture.unsteady < best.unsteady) {
            pl_status_picture_deinit(&best);
            best = picture;
        } else {
            pl_status_picture_deinit(&picture);
        }
    }
    *ret_picture = best;
    return 0;
}
