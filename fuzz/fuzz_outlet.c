/* Property: whatever a subscriber sends, and whatever it stores into its page and the waiters' page, its publisher
 * comes to an end with each message, never believes that more than a lap may be written, leaves what another subscriber
 * holds as it is, tells that one everything in order, and keeps no descriptor.
 *
 * Input: one byte of flags (1: reliable; 2: a real hello comes first; 4: without shared memory; 8: it may be waited
 * for), then operations of one byte and their operands. */
#include "fuzz_wire.h"
#include "topic/topic.h"

#include "base/fd.h"
#include "shm/doorbell.h"
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CAPACITY = 32768, OPERATIONS = 400, HELD = 4 };

struct input {
    const uint8_t *data;
    size_t size;
};

/* One that means well: it reads all there is after each message. */
struct honest {
    int socket;
    struct pl_broadcast_reader reader;
    struct pl_subscriber_page *page;
    uint64_t received;
    struct {
        struct pl_frame_segment where;
        const uint8_t *data;
        uint8_t content;
    } held[HELD];
};

struct game {
    struct plait_publisher *publisher;
    struct pl_topic_listener listener;
    struct honest honest;
    int socket;                      /* the liar's end */
    struct pl_subscriber_page *page; /* the liar's; NULL: it got none */
    uint64_t published;
};

static uint64_t number(struct input *input, size_t size)
{
    uint64_t value = 0;
    if (size > input->size) size = input->size;
    if (size > 0) memcpy(&value, input->data, size);
    input->data += size;
    input->size -= size;
    return value;
}

static void on_wake(struct pl_wake *wake)
{
    (void)wake;
}

static void on_bell(struct pl_source *source, uint32_t events)
{
    (void)source;
    (void)events;
}

static void in_child(struct pl_fork_hook *hook)
{
    (void)hook;
}

/* A status page keeps descriptors: one for all. */
static struct pl_status_service *the_status(void)
{
    static struct pl_status_service *status;
    if (status == NULL) status = pl_status_topic_add("fuzz", 7, NULL);
    return status;
}

static int lowest_descriptor(void)
{
    int fd = dup(STDERR_FILENO);
    REQUIRE(fd >= 0);
    close(fd);
    return fd;
}

/* As plait_publisher_open makes it, without a name and with this thread as its helper. */
static struct plait_publisher *new_publisher(uint8_t flags)
{
    struct plait_publisher *publisher = calloc(1, sizeof *publisher);
    REQUIRE(publisher != NULL);
    strcpy(publisher->topic, "fuzz");
    publisher->status = the_status();
    publisher->counters = pl_status_service_counters(publisher->status);
    publisher->reliable = flags & 1;
    publisher->timeout_ns = flags & 8 ? 1000 : 0;
    publisher->max_message = 1 << 20;
    publisher->kept = PL_BULK_KEPT;
    publisher->claim.id = 7;
    publisher->fork.in_child = in_child;
    pthread_mutex_init(&publisher->lock, NULL);
    pl_list_init(&publisher->outlets);
    pl_list_init(&publisher->greetings);
    pl_spin_init(&publisher->spin, PLAIT_SPIN_NEVER);
    REQUIRE(pl_fork_add(&publisher->fork) == 0);
    REQUIRE(pl_broadcast_create(&publisher->writer, CAPACITY, publisher->reliable, &publisher->ring_fd) == 0);
    REQUIRE(pl_topic_page_create((void **)&publisher->waiters, &publisher->waiters_fd) == 0);
    REQUIRE(pl_doorbell_create(&publisher->bell) == 0);
    REQUIRE(pl_loop_init(&publisher->loop, 8) == 0);
    REQUIRE(pl_wake_init(&publisher->wake, &publisher->loop, on_wake) == 0);
    publisher->bell_source = PL_SOURCE(publisher->bell, on_bell);
    atomic_store(&publisher->limit, CAPACITY);
    return publisher;
}

static void free_publisher(struct plait_publisher *publisher)
{
    pl_list_each(item, &publisher->greetings) pl_outlet_end(pl_container_of(item, struct pl_outlet, link));
    pl_list_each(next, &publisher->outlets) pl_outlet_end(pl_container_of(next, struct pl_outlet, link));
    pl_loop_remove(&publisher->loop, &publisher->bell_source);
    pl_wake_deinit(&publisher->wake, &publisher->loop);
    pl_loop_deinit(&publisher->loop);
    pl_bulk_free(publisher);
    pl_broadcast_destroy(&publisher->writer);
    pl_topic_page_detach(publisher->waiters);
    pl_close(&publisher->bell);
    pl_close(&publisher->ring_fd);
    pl_close(&publisher->waiters_fd);
    pl_fork_remove(&publisher->fork);
    pthread_mutex_destroy(&publisher->lock);
    free(publisher);
}

static void run_helper(struct game *game)
{
    REQUIRE(pl_loop_wait(&game->publisher->loop, 0) >= 0);
    pl_loop_run_ready(&game->publisher->loop);
    pl_list_each(item, &game->publisher->outlets)
    {
        struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        if (!outlet->shm && !outlet->blocked) (void)pl_outlet_pump(outlet);
    }
}

static int join(struct game *game, bool hello, bool shm)
{
    int pair[2];
    struct pl_address nowhere = { 0 };
    uint8_t bytes[PL_HELLO_CLIENT_MAX + PL_FRAME_HEAD];
    struct pl_hello_client say = { .major = PL_PROTOCOL_MAJOR,
                                   .minor = PL_PROTOCOL_MINOR,
                                   .abi = pl_hello_abi(),
                                   .features = PL_FEATURE_TOPIC | (shm ? PL_FEATURE_SHM : 0),
                                   .max_reply = 1 << 20 };
    struct pl_frame frame = { .kind = PL_FRAME_SUBSCRIBE, .method = PL_SUBSCRIBE_GATES };
    size_t size = pl_hello_client_encode(bytes, &say);
    pl_frame_encode(bytes + size, &frame);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    size += PL_FRAME_HEAD;
    if (hello) REQUIRE(send(pair[1], bytes, size, MSG_NOSIGNAL) == (ssize_t)size);
    pl_outlet_begin(&game->listener, pair[0], &nowhere);
    return pair[1];
}

/* What the publisher said: of its descriptors the page is kept if none is there yet. */
static void hear(int socket, struct pl_subscriber_page **page, struct pl_broadcast_reader *reader)
{
    static uint8_t bytes[65536];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec vector = { bytes, sizeof bytes };
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
    };
    if (recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0) return;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_type != SCM_RIGHTS) return;
    int fds[8], count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(header), (size_t)count * sizeof(int));
    if (count == PL_TOPIC_FDS && *page == NULL) {
        REQUIRE(pl_topic_page_attach((void **)page, fds[PL_TOPIC_FD_PAGE]) == 0);
        if (reader != NULL) REQUIRE(pl_broadcast_attach(reader, fds[PL_TOPIC_FD_RING]) == 0);
    }
    for (int i = 0; i < count; i++) close(fds[i]);
}

static void begin_honest(struct game *game)
{
    struct honest *honest = &game->honest;
    honest->socket = join(game, true, true);
    run_helper(game);
    hear(honest->socket, &honest->page, &honest->reader);
    REQUIRE(honest->page != NULL);
    REQUIRE(pl_broadcast_begin(&honest->reader, honest->page->start, honest->page->number) == 0);
}

static void hold(struct game *game, int slot, const uint8_t *record)
{
    struct honest *honest = &game->honest;
    struct pl_frame_segment where;
    pl_frame_segment_decode(&where, record);
    if (honest->held[slot].data != NULL) return;
    REQUIRE(pl_hazard_set(honest->page, slot, honest->reader.shared, &where));
    honest->held[slot].where = where;
    honest->held[slot].data = pl_bulk_data(game->publisher->segments[where.id]);
    honest->held[slot].content = honest->held[slot].data[0];
}

static void check_held(struct honest *honest, int slot)
{
    const uint8_t *data = honest->held[slot].data;
    if (data == NULL) return;
    for (size_t at = 0; at < (uint32_t)honest->held[slot].where.size; at += 4096)
        REQUIRE(data[at] == honest->held[slot].content);
}

/* Every message, in order and whole. */
static void read_all(struct game *game, int slot)
{
    struct honest *honest = &game->honest;
    struct pl_broadcast_head head;
    static uint8_t body[PL_BROADCAST_BODY_MAX];
    uint64_t lost = 0;
    int r;
    while ((r = pl_broadcast_read(&honest->reader, &head, body, &lost)) == PL_BROADCAST_OK) {
        REQUIRE(lost == 0 && head.number == ++honest->received);
        if (head.kind == PL_BULK_SEGMENT) hold(game, slot, body);
        else if (head.size > 0) REQUIRE(body[0] == (uint8_t)head.number && body[head.size - 1] == body[0]);
    }
    REQUIRE(r == PL_BROADCAST_EMPTY && honest->received == game->published);
    (void)pl_broadcast_tell_cursor(honest->page, honest->reader.position);
}

static void publish(struct game *game, size_t size, int slot)
{
    static uint8_t body[1 << 17];
    struct plait_publisher *publisher = game->publisher;
    memset(body, (uint8_t)(game->published + 1), size);
    int r = plait_publisher_publish(publisher, body, size);
    REQUIRE(r == 0 || r == -ENOBUFS); /* who lies may hold all segments: that many there are, and no more */
    game->published += r == 0;
    REQUIRE(atomic_load(&publisher->limit) - publisher->writer.tail <= CAPACITY || !publisher->reliable);
    read_all(game, slot);
    for (int i = 0; i < HELD; i++) check_held(&game->honest, i);
}

static void lie(struct game *game, struct input *input)
{
    uint64_t choice = number(input, 1), near = number(input, 2), value = number(input, 8);
    struct pl_subscriber_page *page = game->page;
    if (choice & 0x80) value = game->publisher->writer.tail + (uint64_t)(int16_t)near * (choice & 0x40 ? 32 : 1);
    if (page == NULL) return;
    switch (choice & 7) {
    case 0:
    case 1: atomic_store(&page->cursor, value); break;
    case 2: atomic_store(&page->hazard[near % PL_TOPIC_HAZARDS], value); break;
    case 3: /* what a segment of ours is called now */
        atomic_store(&page->hazard[near % PL_TOPIC_HAZARDS], (value & 0xff) << 32 | ((near >> 8 & 63) + 1));
        break;
    case 4: atomic_store(&page->waiting, (uint32_t)value); break;
    case 5: atomic_store(&page->leaving, (uint32_t)value); break;
    case 6: memset((uint8_t *)page + near % sizeof *page, (int)value, 1); break;
    default: atomic_store(&game->publisher->waiters->sleepers, (uint32_t)value);
    }
}

static void operate(struct game *game, struct input *input)
{
    uint64_t operation = number(input, 1), size;
    switch (operation % 8) {
    case 0:
    case 1: lie(game, input); break;
    case 2: publish(game, number(input, 1) * 32 + 1, 0); break;
    case 3: publish(game, 8193 + number(input, 2), (int)(operation / 8 % HELD)); break;
    case 4: run_helper(game); break;
    case 5: /* any bytes */
        size = number(input, 1);
        if (size > input->size) size = input->size;
        if (size > 0 && send(game->socket, input->data, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) size = 0;
        input->data += size;
        input->size -= size;
        break;
    case 6: hear(game->socket, &game->page, NULL); break;
    default: { /* the honest one lets go */
        int slot = (int)(operation / 8 % HELD);
        check_held(&game->honest, slot);
        game->honest.held[slot].data = NULL;
        pl_hazard_clear(game->honest.page, slot);
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    uint8_t flags = (uint8_t)number(&input, 1);
    (void)the_status();
    int before = lowest_descriptor();
    struct game game = { .publisher = new_publisher(flags) };
    game.listener = (struct pl_topic_listener){ .publisher = game.publisher, .of_claim = true };
    game.listener.url.scheme = PL_SCHEME_UNIX;
    begin_honest(&game);
    game.socket = join(&game, flags & 2, (flags & 4) == 0);
    run_helper(&game);
    hear(game.socket, &game.page, NULL);
    for (int i = 0; i < OPERATIONS && input.size > 0; i++) operate(&game, &input);
    pl_topic_page_detach(game.page);
    pl_topic_page_detach(game.honest.page);
    pl_broadcast_detach(&game.honest.reader);
    close(game.socket);
    run_helper(&game); /* it hears of the end */
    close(game.honest.socket);
    free_publisher(game.publisher);
    REQUIRE(lowest_descriptor() == before);
    return 0;
}
