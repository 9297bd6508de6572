/* hostile_clients: bad input to every listener. A verified good client runs beside; whatever the others do, it gets its
 * right answers, the server ends well, and holds no more than before. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NAME, UNIX, TCP, RAW, LINES, LENGTH, LISTENERS, PLAIT_LISTENERS = RAW, FEATURE_SHM = 1 };

struct scene {
    struct board *board;
    struct started server;
    pid_t good;
    size_t fds, mappings;
    char unix_url[200];
};

static struct scene scene_begin(void)
{
    struct scene scene = { .board = board_new() };
    struct serve what = { .name = "target" };
    snprintf(scene.unix_url, sizeof(scene.unix_url), "unix://%s/u", test_directory());
    const char *const urls[] = { scene.unix_url, "tcp://127.0.0.1:0", "tcp://127.0.0.1:0?framing=raw",
                                 "tcp://127.0.0.1:0?framing=lines&max_message=100000",
                                 "tcp://127.0.0.1:0?framing=length" };
    memcpy(what.listen, urls, sizeof(urls));
    scene.server = serve(scene.board, &what);
    scene.good = caller_start(scene.board, 0, "target", false);
    for (int i = 0; i < 10; i++) callers_advance(scene.board, 1);
    scene.fds = fds_of(scene.server.pid);
    scene.mappings = mappings_of(scene.server.pid);
    return scene;
}

static void scene_end(struct scene *scene)
{
    callers_advance(scene->board, 1);
    await_fds(scene->server.pid, scene->fds);
    WAIT_UNTIL(mappings_of(scene->server.pid) <= scene->mappings + 4);
    callers_end(scene->board, &scene->good, 1);
    end_server(&scene->server);
    board_free(scene->board);
}

static int dial(const struct scene *scene, int listener)
{
    return listener == NAME ? raw_connect_name("target") : raw_connect(scene->server.url[listener - UNIX]);
}

/* A whole server hello: its result; TEXT gets the refusal. -1: none came. */
static int read_answer(int fd, char *text, size_t size)
{
    uint8_t head[64];
    text[0] = 0;
    if (raw_read(fd, head, sizeof(head)) < sizeof(head) || memcmp(head, "PLAS", 4) != 0) return -1;
    size_t tail = head[12] | (size_t)head[13] << 8;
    uint8_t rest[8192];
    CHECK(tail <= sizeof(rest));
    CHECK_INT(raw_read(fd, rest, tail), tail);
    snprintf(text, size, "%.*s", (int)tail, (const char *)rest);
    return head[8] | head[9] << 8;
}

/* Greeted, without shared memory. */
static int greeted(const struct scene *scene, int listener)
{
    uint8_t hello[132];
    char text[600];
    int fd = dial(scene, listener);
    raw_send(fd, hello, raw_hello(hello, "target", 2));
    CHECK_INT(read_answer(fd, text, sizeof(text)), 0);
    return fd;
}

/* ---- hellos ---- */

struct refusal {
    const char *bytes;
    size_t size;
    int result;
    const char *text;
};
#define BYTES(literal) (literal), sizeof(literal) - 1

static const struct refusal refusals[] = {
    { BYTES("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/7\r\n\r\n"), EPROTO, "HTTP" },
    { BYTES("POST /call HTTP/1.0\r\n\r\n"), EPROTO, "HTTP" },
    { BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and thirty more bytes of a hello"), EPROTO, "TLS" },
    { BYTES("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), EPROTO, "SSH" },
    { BYTES("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), EPROTO, "" },
    { BYTES("{\"method\":\"greet\",\"params\":[]}\n\n\n\n\n\n\n"), EPROTO, "" },
    { BYTES("PLAS\1\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), EPROTO, "" },
    { BYTES("PLAI\2\0\3\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), EPROTO, "2.3" },
    { BYTES("PLAI\1\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\xff\0\0\0\0\0\0\0"), EPROTO, "" },
    { BYTES("PLAI\1\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"), EPROTO, "" },
    { BYTES("PLAI\1\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0../"), EPROTO, "" },
    { BYTES("PLAI\1\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0other"), ENOENT, "other" },
};

TEST(what_is_no_hello_is_refused_by_a_text_that_names_it)
{
    struct scene scene = scene_begin();
    const size_t count = sizeof(refusals) / sizeof(refusals[0]);
    for (int listener = 0; listener < PLAIT_LISTENERS; listener++) {
        for (size_t i = 0; i < count; i++) {
            char text[600];
            int fd = dial(&scene, listener);
            raw_send(fd, refusals[i].bytes, refusals[i].size);
            CHECK_INT(read_answer(fd, text, sizeof(text)), refusals[i].result);
            CHECK(text[0] != 0);
            CHECK_CONTAINS(text, refusals[i].text);
            CHECK(raw_closed(fd, PATIENCE_MS));
            close(fd);
        }
    }
    CHECK_INT(counter_of("target", "refused"), count * PLAIT_LISTENERS);
    scene_end(&scene);
}

TEST(a_hello_that_ends_at_any_byte_is_forgotten)
{
    struct scene scene = scene_begin();
    uint8_t hello[132];
    size_t size = raw_hello(hello, "target", 1);
    for (int listener = 0; listener < PLAIT_LISTENERS; listener++) {
        for (size_t cut = 0; cut < size; cut++) {
            int fd = dial(&scene, listener);
            raw_send(fd, hello, cut);
            close(fd);
        }
    }
    WAIT_UNTIL(counter_of("target", "refused") == size * PLAIT_LISTENERS);
    scene_end(&scene);
}

TEST(who_says_nothing_is_dropped_after_a_second_and_the_oldest_of_many_at_once)
{
    enum { SILENT = 80, MOST = 64 };
    struct scene scene = scene_begin();
    int fds[SILENT];
    char text[600];
    int64_t start = now_ms();
    for (int i = 0; i < SILENT; i++) {
        fds[i] = dial(&scene, i % PLAIT_LISTENERS);
        if (i % 2) raw_send(fds[i], "PLA", 3); /* a beginning is no hello either */
    }
    unsigned busy = 0, late = 0;
    for (int i = 0; i < SILENT; i++) {
        int result = read_answer(fds[i], text, sizeof(text));
        if (result == EBUSY) busy++;
        else if (result == ETIMEDOUT) late++;
        else test_fail(__FILE__, __LINE__, "silent client %d was told %d: %s", i, result, text);
        CHECK(raw_closed(fds[i], PATIENCE_MS));
        close(fds[i]);
    }
    CHECK_INT(busy + late, SILENT);
    CHECK(busy >= SILENT - MOST);
    CHECK(late > 0);
    CHECK(now_ms() - start >= 900);
    CHECK_INT(counter_of("target", "refused"), SILENT);
    scene_end(&scene);
}

/* ---- frames ---- */

struct broken {
    uint32_t size;
    uint8_t kind, flags;
    uint8_t payload; /* bytes that follow */
};

static const struct broken broken[] = {
    { UINT32_MAX, 1, 0, 0 }, { 0x40000001, 1, 0, 0 }, { UINT32_MAX, 2, 0, 8 },  { 0, 0, 0, 0 },    { 0, 0, 1, 0 },
    { 0, 9, 0, 0 },          { 0, 255, 0, 0 },        { 4, 1, 0x20, 4 },        { 4, 1, 0x80, 4 }, { 16, 1, 4, 16 },
    { 8, 1, 8, 8 },          { 0, 3, 0, 0 },          { 8, 5, 0, 8 },           { 4, 4, 0, 4 },    { 16, 7, 0, 16 },
    { 4, 8, 0, 4 },          { 4, 6, 0, 4 },          { UINT32_MAX, 99, 1, 0 }, { 16, 1, 12, 16 },
};

TEST(a_frame_that_breaks_the_rules_ends_its_connection_and_is_counted)
{
    struct scene scene = scene_begin();
    const size_t count = sizeof(broken) / sizeof(broken[0]);
    for (int listener = 0; listener < PLAIT_LISTENERS; listener++) {
        for (size_t i = 0; i < count; i++) {
            uint8_t bytes[32 + 255] = { 0 };
            int fd = greeted(&scene, listener);
            raw_frame(bytes, broken[i].size, broken[i].kind, broken[i].flags, 0, 1);
            raw_send(fd, bytes, 32u + broken[i].payload);
            if (!raw_closed(fd, PATIENCE_MS)) test_fail(__FILE__, __LINE__, "frame %zu was taken", i);
            close(fd);
        }
    }
    WAIT_UNTIL(counter_of("target", "protocol_errors") == count * PLAIT_LISTENERS);
    scene_end(&scene);
}

static void check_call(int fd, uint64_t call, bool slowly)
{
    uint8_t bytes[40], answer[40];
    raw_frame(bytes, 8, 1, 0, 0, call);
    memset(bytes + 32, 0, 8);
    for (size_t i = 0; slowly && i < sizeof(bytes); i++) raw_send(fd, bytes + i, 1);
    if (!slowly) raw_send(fd, bytes, sizeof(bytes));
    CHECK_INT(raw_read(fd, answer, sizeof(answer)), sizeof(answer));
    CHECK_INT(answer[4], 3);
    CHECK_INT(answer[16], call);
    for (int i = 32; i < 40; i++) CHECK_INT(answer[i], 0xff);
}

TEST(a_frame_that_ends_at_any_byte_hurts_nobody_and_unknown_ones_may_be_skipped)
{
    struct scene scene = scene_begin();
    for (int listener = 0; listener < PLAIT_LISTENERS; listener++) {
        uint8_t bytes[48] = { 0 };
        raw_frame(bytes, 16, 1, 0, 0, 1);
        for (size_t cut = 0; cut < sizeof(bytes); cut++) {
            int fd = greeted(&scene, listener);
            raw_send(fd, bytes, cut);
            close(fd);
        }
        int fd = greeted(&scene, listener);
        raw_frame(bytes, 16, 200, 1, 77, 9);
        raw_send(fd, bytes, sizeof(bytes));
        check_call(fd, 3, false);
        check_call(fd, 4, true);
        close(fd);
    }
    scene_end(&scene);
}

TEST(a_client_that_sends_byte_by_byte_is_understood_and_one_that_stalls_is_ended)
{
    struct scene scene = scene_begin();
    uint8_t hello[132], frame[48];
    char text[600];
    enum { STALLED = 5 };
    int stalled[STALLED];
    for (int listener = 0; listener < PLAIT_LISTENERS; listener++) {
        stalled[listener] = greeted(&scene, listener);
        raw_frame(frame, 16, 1, 0, 0, 1);
        raw_send(stalled[listener], frame, listener == NAME ? 5 : 40);
    }
    stalled[3] = dial(&scene, LINES);
    raw_send(stalled[3], "half a li", 9);
    stalled[4] = dial(&scene, LENGTH);
    raw_send(stalled[4], "\0\0\0\x20half", 8);
    int64_t start = now_ms();
    for (int listener = 0; listener < PLAIT_LISTENERS; listener++) {
        int fd = dial(&scene, listener);
        size_t size = raw_hello(hello, "target", 0);
        if (listener == TCP) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
        for (size_t i = 0; i < size; i++) raw_send(fd, hello + i, 1);
        CHECK_INT(read_answer(fd, text, sizeof(text)), 0);
        check_call(fd, 5, true);
        close(fd);
    }
    for (int i = 0; i < STALLED; i++) {
        if (!raw_closed(stalled[i], PATIENCE_MS)) test_fail(__FILE__, __LINE__, "stalled client %d is still there", i);
        close(stalled[i]);
    }
    CHECK(now_ms() - start >= 9000);
    scene_end(&scene);
}

TEST(a_listener_without_frames_ends_what_claims_too_much)
{
    struct scene scene = scene_begin();
    static char line[200000];
    memset(line, 'x', sizeof(line));
    int fd = dial(&scene, LENGTH);
    raw_send(fd, "\xff\xff\xff\xff", 4);
    CHECK(raw_closed(fd, PATIENCE_MS));
    close(fd);
    fd = dial(&scene, LINES);
    raw_send(fd, line, sizeof(line));
    CHECK(raw_closed(fd, PATIENCE_MS));
    close(fd);
    WAIT_UNTIL(counter_of("target", "protocol_errors") == 2);
    for (int listener = RAW; listener < LISTENERS; listener++) {
        for (int i = 0; i < 20; i++) {
            for (size_t j = 0; j < 64; j++) line[j] = (char)random_below(256);
            fd = dial(&scene, listener);
            raw_send(fd, line, 64);
            close(fd);
        }
    }
    scene_end(&scene);
}

/* ---- shared memory ---- */

enum { WINDOW = 4096 + 2 * 65536, FDS = 4 };

struct shm {
    int socket, fds[FDS];
    uint8_t *window;
};

static void send_fds(int socket, const void *bytes, size_t size, const int *fds, size_t count)
{
    union {
        char space[CMSG_SPACE(16 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = { (void *)(uintptr_t)bytes, size };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count > 0) {
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        *head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS,
                                  .cmsg_len = CMSG_LEN(count * sizeof(int)) };
        memcpy(CMSG_DATA(head), fds, count * sizeof(int));
    }
    (void)!sendmsg(socket, &message, MSG_NOSIGNAL);
}

/* A greeted connection whose memory the test writes as it likes. */
static struct shm shm_open_raw(void)
{
    struct shm shm = { .socket = raw_connect_name("target") };
    union {
        char space[CMSG_SPACE(FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    uint8_t hello[132], bytes[64], rest[8192];
    raw_send(shm.socket, hello, raw_hello(hello, "target", FEATURE_SHM));
    struct iovec part = { bytes, 1 };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)
    };
    CHECK_INT(recvmsg(shm.socket, &message, MSG_CMSG_CLOEXEC), 1);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    CHECK(head != NULL && head->cmsg_len == CMSG_LEN(FDS * sizeof(int)));
    memcpy(shm.fds, CMSG_DATA(head), sizeof(shm.fds));
    CHECK_INT(raw_read(shm.socket, bytes + 1, 63), 63);
    size_t tail = bytes[12] | (size_t)bytes[13] << 8;
    CHECK_INT(raw_read(shm.socket, rest, tail), tail);
    shm.window = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, shm.fds[0], 0);
    CHECK(shm.window != MAP_FAILED);
    return shm;
}

static void shm_close_raw(struct shm *shm)
{
    munmap(shm->window, WINDOW);
    for (int i = 0; i < FDS; i++) close(shm->fds[i]);
    close(shm->socket);
}

static void ring(const struct shm *shm)
{
    (void)!write(shm->fds[2], &(uint64_t){ 1 }, 8);
}

static void put64(struct shm *shm, size_t at, uint64_t value)
{
    __atomic_store_n((uint64_t *)(void *)(shm->window + at), value, __ATOMIC_RELEASE);
}

/* A frame at the start of the request ring, published; the ring begins behind the control page. */
static void publish(struct shm *shm, const uint8_t head[32], const void *payload, size_t size, uint64_t tail)
{
    memcpy(shm->window + 4096, head, 32);
    if (size) memcpy(shm->window + 4096 + 32, payload, size);
    put64(shm, 64, tail);
    ring(shm);
}

TEST(random_indices_in_shared_memory_end_that_connection_alone)
{
    static const size_t places[] = {
        0, 4, 8, 64, 72, 128, 192, 256, 320, 328, 384, 448, 512, 576, 704, 768, 832, 1088
    };
    static const uint64_t values[] = { 1,     31,    32,         33,         4096,       65536,
                                       65568, 65537, 1ull << 31, 1ull << 32, 1ull << 62, UINT64_MAX };
    struct scene scene = scene_begin();
    scene.board->strangers = 1;
    uint8_t head[32];
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        for (size_t j = 0; j < sizeof(values) / sizeof(values[0]); j++) {
            struct shm shm = shm_open_raw();
            put64(&shm, places[i] & ~(size_t)7, values[j]);
            ring(&shm);
            if (places[i] != 64) { /* and a good call behind it */
                raw_frame(head, 8, 1, 0, 0, 7);
                publish(&shm, head, "\0\0\0\0\0\0\0\0", 8, 64);
            } else if (values[j] % 32 || values[j] > 65536) {
                if (!raw_closed(shm.socket, PATIENCE_MS))
                    test_fail(__FILE__, __LINE__, "a tail of %llu was believed", (unsigned long long)values[j]);
            }
            shm_close_raw(&shm);
        }
    }
    CHECK(counter_of("target", "protocol_errors") >= 8);
    scene_end(&scene);
}

TEST(random_frames_in_shared_memory_end_that_connection_alone)
{
    struct scene scene = scene_begin();
    scene.board->strangers = 1;
    for (int i = 0; i < 400; i++) {
        struct shm shm = shm_open_raw();
        uint8_t head[32], payload[64];
        for (size_t j = 0; j < sizeof(payload); j++) payload[j] = (uint8_t)random_below(256);
        raw_frame(head, random_below(64), (uint8_t)(1 + random_below(8)), (uint8_t)(i % 2 ? 0 : random_below(32)), 0,
                  1);
        head[random_below(32)] = (uint8_t)random_below(256);
        publish(&shm, head, payload, sizeof(payload), 32 * (1 + random_below(4)));
        if (i % 4 == 0) raw_send(shm.socket, payload, sizeof(payload));
        shm_close_raw(&shm);
    }
    callers_advance(scene.board, 1);
    scene_end(&scene);
}

TEST(memory_that_changes_all_the_time_hurts_nobody)
{
    struct scene scene = scene_begin();
    scene.board->strangers = 1;
    for (int i = 0; i < 20; i++) {
        struct shm shm = shm_open_raw();
        int64_t until = now_ms() + 20;
        for (uint64_t tail = 0; now_ms() < until && raw_closed(shm.socket, 0) == 0; ring(&shm)) {
            for (int j = 0; j < 500; j++) {
                size_t at = i % 2 ? 4096 + random_below(65536) : random_below(WINDOW);
                shm.window[at] = (uint8_t)random_below(256);
            }
            uint8_t head[32];
            raw_frame(head, random_below(200), 1, 0, 0, 1);
            memcpy(shm.window + 4096 + tail % 65536, head, 32);
            put64(&shm, 64, tail += 32 * (1 + random_below(8)));
        }
        shm_close_raw(&shm);
    }
    scene_end(&scene);
}

static int memory_fd(size_t size, unsigned flags, int seals)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | flags);
    if (fd < 0) return -1;
    (void)!ftruncate(fd, (off_t)size);
    if (seals) (void)fcntl(fd, F_ADD_SEALS, seals);
    return fd;
}

/* Announces a segment with the descriptors FDS, then sends a call whose body lies in it. */
static void announce_and_use(struct shm *shm, const int *fds, size_t count, uint64_t announced, uint32_t used)
{
    uint8_t frame[48] = { 0 }, head[32], record[16] = { 0 };
    raw_frame(frame, 16, 7, 0, 0, 0);
    frame[32 + 4] = 1;
    memcpy(frame + 40, &announced, 8);
    send_fds(shm->socket, frame, sizeof(frame), fds, count);
    raw_frame(head, 16, 1, 4, 0, 1);
    record[4] = 1;
    memcpy(record + 8, &used, 4);
    record[12] = 1;
    publish(shm, head, record, sizeof(record), 64);
}

TEST(descriptors_that_are_no_sealed_memory_are_refused)
{
    enum { SIZE = 65536, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_FUTURE_WRITE };
    struct scene scene = scene_begin();
    char path[600];
    snprintf(path, sizeof(path), "%s/file", test_directory());
    int pipes[2];
    CHECK_INT(pipe2(pipes, O_CLOEXEC), 0);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_INT(ftruncate(file, SIZE), 0);
    struct {
        const char *what;
        int fd;
        size_t count;
        uint64_t announced;
        uint32_t used;
    } cases[] = {
        { "unsealed", memory_fd(SIZE, MFD_ALLOW_SEALING, 0), 1, SIZE, SIZE },
        { "half sealed", memory_fd(SIZE, MFD_ALLOW_SEALING, F_SEAL_SHRINK), 1, SIZE, SIZE },
        { "short", memory_fd(4096, MFD_ALLOW_SEALING, SEALS), 1, SIZE, SIZE },
        { "empty", memory_fd(0, MFD_ALLOW_SEALING, SEALS), 1, SIZE, SIZE },
        { "used beyond its end", memory_fd(SIZE, MFD_ALLOW_SEALING, SEALS), 1, SIZE, SIZE * 4 },
        { "of no size", memory_fd(SIZE, MFD_ALLOW_SEALING, SEALS), 1, 0, 0 },
        { "said to be huge", memory_fd(SIZE, MFD_ALLOW_SEALING, SEALS), 1, UINT64_MAX, SIZE },
        { "hugetlb", memory_fd(2 << 20, MFD_ALLOW_SEALING | MFD_HUGETLB, SEALS), 1, 2 << 20, SIZE },
        { "a pipe", pipes[0], 1, SIZE, SIZE },
        { "a file", file, 1, SIZE, SIZE },
        { "missing", pipes[0], 0, SIZE, SIZE },
        { "one of many", pipes[0], 10, SIZE, SIZE },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (cases[i].fd < 0) continue; /* no hugetlb on this machine */
        struct shm shm = shm_open_raw();
        int fds[10];
        for (size_t j = 0; j < 10; j++) fds[j] = cases[i].fd;
        announce_and_use(&shm, fds, cases[i].count, cases[i].announced, cases[i].used);
        if (!raw_closed(shm.socket, PATIENCE_MS))
            test_fail(__FILE__, __LINE__, "a segment %s was taken", cases[i].what);
        shm_close_raw(&shm);
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (cases[i].fd >= 0 && cases[i].fd != pipes[0] && cases[i].fd != file) close(cases[i].fd);
    close(pipes[0]);
    close(pipes[1]);
    close(file);
    CHECK(counter_of("target", "protocol_errors") >= 10);
    scene_end(&scene);
}

TEST(surplus_descriptors_on_any_socket_are_closed)
{
    struct scene scene = scene_begin();
    int fds[8];
    for (int i = 0; i < 8; i++) CHECK((fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    for (int round = 0; round < 20; round++) {
        uint8_t hello[132], frame[40] = { 0 };
        for (int listener = NAME; listener <= UNIX; listener++) {
            int fd = dial(&scene, listener);
            size_t size = raw_hello(hello, "target", 0);
            send_fds(fd, hello, size, fds, 8); /* with the hello, which expects none */
            raw_frame(frame, 8, 1, 0, 0, 1);
            send_fds(fd, frame, sizeof(frame), fds, 8);
            (void)raw_closed(fd, 20);
            close(fd);
        }
    }
    for (int i = 0; i < 8; i++) close(fds[i]);
    scene_end(&scene);
}
