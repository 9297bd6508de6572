/* hostile_servers: a client that meets something that is no server, or one that lies. It gets an error with a text, in
 * time, and holds nothing afterwards. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CAPACITY = 65536, WINDOW = 4096 + 2 * CAPACITY, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* What one connection gets. */
struct lie {
    const char *what;
    const void *bytes;
    size_t size;
    int fds[10];
    size_t fd_count;
    const char *text; /* in the error */
    bool stays;       /* the connection isn't closed behind it */
};

static char url[200];

static int listen_here(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/liar", test_directory());
    snprintf(url, sizeof(url), "unix://%s", address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_INT(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_INT(listen(fd, 64), 0);
    return fd;
}

static void send_lie(int fd, const struct lie *lie)
{
    union {
        char space[CMSG_SPACE(10 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = { (void *)(uintptr_t)lie->bytes, lie->size };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (lie->fd_count > 0) {
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(lie->fd_count * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        *head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS,
                                  .cmsg_len = CMSG_LEN(lie->fd_count * sizeof(int)) };
        memcpy(CMSG_DATA(head), lie->fds, lie->fd_count * sizeof(int));
    }
    (void)!sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Forks a server that tells one lie per connection. */
static pid_t tell(int listener, const struct lie *lies, size_t count)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    for (size_t i = 0; i < count; i++) {
        char hello[256];
        int fd = accept(listener, NULL, NULL);
        CHECK(fd >= 0);
        (void)!recv(fd, hello, sizeof(hello), 0);
        if (lies[i].size > 0) send_lie(fd, &lies[i]);
        if (lies[i].stays) (void)raw_closed(fd, PATIENCE_MS);
        close(fd);
    }
    leave(0);
}

/* Every lie, one client each. Opens must fail; where one doesn't, the first call must. */
static void check_lies(const struct lie *lies, size_t count)
{
    int listener = listen_here();
    pid_t liar = tell(listener, lies, count);
    size_t fds = test_count_fds(), mappings = test_count_mappings();
    for (size_t i = 0; i < count; i++) {
        plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
        plait_client *client = NULL;
        options.connect_timeout = 500;
        options.timeout = 500;
        int64_t start = now_ms();
        int r = plait_client_open(&client, url, &options);
        if (r == 0) r = plait_client_call(client, "", "12345678", 8, NULL, NULL);
        if (r >= 0) test_fail(__FILE__, __LINE__, "%s: the client took it", lies[i].what);
        const char *text = plait_error_text();
        if (text[0] == 0 || (lies[i].text && strstr(text, lies[i].text) == NULL))
            test_fail(__FILE__, __LINE__, "%s: the error says \"%s\"", lies[i].what, text);
        plait_client_close(client);
        if (now_ms() - start > 10000)
            test_fail(__FILE__, __LINE__, "%s: took %lld ms", lies[i].what, (long long)(now_ms() - start));
        if (test_count_fds() != fds)
            test_fail(__FILE__, __LINE__, "%s: the client left a descriptor open", lies[i].what);
        if (test_count_mappings() != mappings)
            test_fail(__FILE__, __LINE__, "%s: the client left a mapping", lies[i].what);
    }
    CHECK_INT(test_wait_child(liar), 0);
    close(listener);
}

/* A hello with METHODS methods, whose table is given; SHM asks for descriptors. */
static size_t server_hello(uint8_t bytes[256], bool shm, uint32_t methods, const char *table, size_t table_size)
{
    memset(bytes, 0, 256);
    memcpy(bytes, "PLAS\1", 5);
    bytes[12] = (uint8_t)table_size;
    bytes[16] = shm ? 3 : 2;
    memset(bytes + 24, 0x42, 8);
    bytes[35] = 0x40; /* 1 GiB */
    memcpy(bytes + 40, &(uint32_t){ (uint32_t)getpid() }, 4);
    memcpy(bytes + 44, &(uint32_t){ 1024 }, 4);
    bytes[48] = 1;
    if (shm) memcpy(bytes + 52, &(uint32_t){ CAPACITY }, 4);
    memcpy(bytes + 56, &methods, 4);
    memcpy(bytes + 64, table, table_size);
    return 64 + table_size;
}

TEST(what_answers_and_is_no_plait_server_is_named)
{
    static const char other_major[64] = "PLAS\3\0\1";
    uint8_t huge[256], bad_table[256], many[256], refusal[256];
    server_hello(huge, false, 1, "\1a", 2);
    memset(huge + 12, 0xff, 4);
    size_t bad_size = server_hello(bad_table, false, 2, "\1a", 2);
    size_t many_size = server_hello(many, false, UINT32_MAX, "\1a", 2);
    size_t refusal_size = server_hello(refusal, false, 0, "not you", 7);
    refusal[8] = EACCES;
    const struct lie lies[] = {
        { "HTTP", "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n and so on, longer than a hello", 78,
          .text = "HTTP" },
        { "a short HTTP answer", "HTTP/1.1 400 Bad Request\r\n\r\n", 28, .text = "HTTP" },
        { "a TLS alert", "\x15\x03\x03\x00\x02\x02\x32", 7, .text = "TLS" },
        { "SSH", "SSH-2.0-OpenSSH_9.2p1\r\n", 23, .text = "SSH" },
        { "another major version", other_major, 64, .text = "3.1" },
        { "nothing", "", 0, .text = "closed" },
        { "silence", "", 0, .stays = true, .text = "hello" },
        { "a huge tail", huge, 66, .stays = true },
        { "a table of too few", bad_table, bad_size },
        { "a table of 4 billion", many, many_size },
        { "a refusal", refusal, refusal_size, .text = "not you" },
    };
    check_lies(lies, sizeof(lies) / sizeof(lies[0]));
}

TEST(a_server_hello_cut_at_any_byte_is_an_error)
{
    static uint8_t hello[256];
    static struct lie lies[256];
    size_t size = server_hello(hello, false, 1, "\5greet", 6);
    for (size_t i = 0; i < size; i++) lies[i] = (struct lie){ "a cut hello", hello, i, .fd_count = 0 };
    check_lies(lies, size);
}

TEST(a_reply_that_breaks_the_rules_ends_the_connection)
{
    static uint8_t bytes[12][320];
    static struct lie lies[12];
    static const struct {
        const char *what;
        uint32_t size;
        uint8_t kind, flags;
        uint64_t call;
    } frames[] = {
        { "a reply of 4 GiB", UINT32_MAX, 3, 0, 1 },
        { "kind 0", 0, 0, 0, 1 },
        { "an unknown kind", 4, 77, 0, 1 },
        { "a call from a server", 4, 1, 0, 1 },
        { "unknown flags", 4, 3, 0x80, 1 },
        { "a segment on a stream", 16, 3, 4, 1 },
        { "a GOAWAY of 4 bytes", 4, 5, 0, 0 },
        { "a CANCEL", 0, 4, 0, 1 },
        { "half a reply", 200, 3, 0, 1 },
        { "a reply to nobody", 4, 3, 0, 0x77777777 },
        { "a PAD", 4, 6, 0, 1 },
        { "a BODY", 4, 8, 0, 1 },
    };
    for (size_t i = 0; i < 12; i++) {
        size_t size = server_hello(bytes[i], false, 1, "", 0);
        bytes[i][12] = 1; /* the method "" */
        bytes[i][size++] = 0;
        raw_frame(bytes[i] + size, frames[i].size, frames[i].kind, frames[i].flags, 0, frames[i].call);
        lies[i] = (struct lie){ frames[i].what, bytes[i], size + 36, .fd_count = 0 };
    }
    check_lies(lies, 12);
}

static int memory_fd(size_t size, unsigned flags, int seals)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | flags);
    if (fd < 0) return -1;
    (void)!ftruncate(fd, (off_t)size);
    if (seals) (void)fcntl(fd, F_ADD_SEALS, seals);
    return fd;
}

static int channel_fd(uint32_t magic, uint32_t version, uint32_t capacity, size_t size, int seals)
{
    int fd = memory_fd(size, MFD_ALLOW_SEALING, 0);
    uint32_t words[3] = { magic, version, capacity };
    CHECK_INT(pwrite(fd, words, sizeof(words), 0), sizeof(words));
    CHECK_INT(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

enum { MAGIC = 0x6c616970 };

TEST(descriptors_of_a_server_that_are_not_what_they_should_be_are_refused)
{
    static uint8_t hello[256];
    size_t size = server_hello(hello, true, 1, "\0", 1);
    int bell = eventfd(0, EFD_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int good = channel_fd(MAGIC, 1, CAPACITY, WINDOW, SEALS);
    int huge = memory_fd(2 << 20, MFD_ALLOW_SEALING | MFD_HUGETLB, SEALS);
    char path[600];
    snprintf(path, sizeof(path), "%s/file", test_directory());
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_INT(ftruncate(file, WINDOW), 0);
    int channels[] = { memory_fd(WINDOW, MFD_ALLOW_SEALING, 0),
                       memory_fd(WINDOW, MFD_ALLOW_SEALING, F_SEAL_SHRINK),
                       channel_fd(MAGIC, 1, CAPACITY, WINDOW - 4096, SEALS),
                       channel_fd(MAGIC, 1, CAPACITY, 4096, SEALS),
                       channel_fd(MAGIC, 2, CAPACITY, WINDOW, SEALS),
                       channel_fd(77, 1, CAPACITY, WINDOW, SEALS),
                       channel_fd(MAGIC, 1, 77, WINDOW, SEALS),
                       huge >= 0 ? huge : dup(file),
                       file,
                       bell };
    enum { CHANNELS = 10 };
    struct lie lies[CHANNELS + 7];
    for (size_t i = 0; i < CHANNELS; i++)
        lies[i] = (struct lie){ "a channel", hello, size, .fds = { channels[i], bell, bell }, .fd_count = 3 };
    lies[CHANNELS] = (struct lie){ "no descriptors", hello, size, .fd_count = 0 };
    lies[CHANNELS + 1] = (struct lie){ "one descriptor", hello, size, .fds = { good }, .fd_count = 1 };
    lies[CHANNELS + 2] = (struct lie){ "two descriptors", hello, size, .fds = { good, bell }, .fd_count = 2 };
    lies[CHANNELS + 3] = (struct lie){ "surplus descriptors", hello, size, .fd_count = 10,
                                       .fds = { good, bell, bell, good, bell, bell, bell, bell, bell, bell } };
    lies[CHANNELS + 4] =
        (struct lie){ "a doorbell that is a file", hello, size, .fds = { good, null, bell }, .fd_count = 3 };
    lies[CHANNELS + 5] =
        (struct lie){ "a doorbell that is a memfd", hello, size, .fds = { good, bell, good }, .fd_count = 3 };
    lies[CHANNELS + 6] =
        (struct lie){ "a load page that is a file", hello, size, .fds = { good, bell, bell, file }, .fd_count = 4 };
    check_lies(lies, CHANNELS + 7);
    for (size_t i = 0; i < CHANNELS; i++) close(channels[i]);
    close(null);
    close(good);
}

/* A server that greets well, then writes whatever it likes into the memory, at random. */
static void scribble(int listener)
{
    static uint8_t hello[256];
    size_t size = server_hello(hello, true, 1, "\0", 1);
    for (;;) {
        char dropped[256];
        int fd = accept(listener, NULL, NULL);
        CHECK(fd >= 0);
        (void)!recv(fd, dropped, sizeof(dropped), 0);
        int channel = channel_fd(MAGIC, 1, CAPACITY, WINDOW, SEALS);
        int client_bell = eventfd(0, EFD_CLOEXEC), server_bell = eventfd(0, EFD_CLOEXEC);
        uint8_t *window = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, channel, 0);
        CHECK(window != MAP_FAILED);
        struct lie lie = { "", hello, size, .fds = { channel, client_bell, server_bell }, .fd_count = 3 };
        send_lie(fd, &lie);
        for (int turn = 0; turn < 200 && !raw_closed(fd, 0); turn++) {
            uint8_t head[32];
            raw_frame(head, random_below(64), (uint8_t)(turn % 3 ? 3 : random_below(9)),
                      (uint8_t)(turn % 2 ? 0 : random_below(16)), 0, 1ull << 32);
            memcpy(window + 4096 + CAPACITY + random_below(8) * 32, head, 32);
            uint64_t value =
                turn % 4 ? 32 * (uint64_t)random_below(40) : (uint64_t)random_below(UINT32_MAX) << random_below(33);
            static const size_t places[] = { 320, 320, 320, 128, 328, 192, 448, 768, 1088, 832 };
            __atomic_store_n((uint64_t *)(void *)(window + places[random_below(10)]), value, __ATOMIC_RELEASE);
            (void)!write(client_bell, &(uint64_t){ 1 }, 8);
        }
        munmap(window, WINDOW);
        close(channel);
        close(client_bell);
        close(server_bell);
        close(fd);
    }
}

TEST(a_server_that_scribbles_in_shared_memory_gives_errors_and_no_more)
{
    enum { ROUNDS = 100 };
    int listener = listen_here();
    pid_t liar = fork();
    CHECK(liar >= 0);
    if (liar == 0) scribble(listener);
    size_t fds = test_count_fds(), mappings = test_count_mappings();
    int failed = 0;
    for (int i = 0; i < ROUNDS; i++) {
        plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
        options.connect_timeout = PATIENCE_MS;
        plait_client *client = open_client(url, &options);
        plait_call_options call = PLAIT_CALL_OPTIONS_INIT;
        static char body[20000];
        call.timeout = 60;
        for (int j = 0; j < 3; j++) {
            int r = plait_client_call(client, "", body, j == 1 ? sizeof(body) : 8, &call, NULL);
            if (r < 0) CHECK(plait_error_text()[0] != 0);
            failed += r < 0;
        }
        plait_client_close(client);
    }
    CHECK(failed > ROUNDS / 2);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings(), mappings);
    kill_process(liar);
    close(listener);
}
