/* What comes and goes, in one thread and in many, and without room. */
#include "observe/test_look.h"

#include "base/clock.h"
#include "base/fd.h"
#include "observe/reader.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

TEST(a_service_is_shown_with_what_it_said)
{
    plait_watch *watch;
    char name[64];
    struct pl_status_service *service = pl_status_service_add("greeter", 0xabcdef, "/run/here", 3);
    pl_status_service_set(service, "tcp://127.0.0.1:8888 unix:///x", "greet bye");
    pl_count(&pl_status_service_counters(service)->refused, 2);
    pl_count(&pl_status_service_counters(service)->requests, 5);
    const plait_watch_instance *seen = look_at("greeter", &watch);
    CHECK_STR(seen->service, "greeter");
    CHECK_INT(seen->id, 0xabcdef);
    CHECK_INT(seen->pid, getpid());
    CHECK_INT(seen->uid, geteuid());
    CHECK_STR(seen->process, pl_process_name(getpid(), name, sizeof name));
    CHECK_STR(seen->language, "c");
    CHECK_STR(seen->version, PLAIT_VERSION);
    CHECK_STR(seen->directory, "/run/here");
    CHECK_STR(seen->urls, "tcp://127.0.0.1:8888 unix:///x");
    CHECK_STR(seen->methods, "greet bye");
    CHECK_INT(seen->requests, 5);
    CHECK_INT(seen->threads, 3);
    CHECK_INT(seen->stopped, 0);
    CHECK(seen->started_ms > 1500000000000);
    CHECK_INT(seen->connection_count, 0);
    CHECK(plait_watch_at(watch, 1) == NULL);
    plait_watch_close(watch);
    CHECK_INT(count_instances("greete"), 0);
    CHECK_INT(count_instances(NULL), 1);
    pl_status_service_remove(service);
}

TEST(a_connection_is_shown_while_it_lives_and_counted_for_ever)
{
    plait_watch *watch;
    struct pl_status_service *service = pl_status_service_add("greeter", 1, "/run/here", 1);
    struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
    struct pl_counters *counters = pl_status_connection_counters(connection);
    pl_count(&counters->requests, 10);
    pl_count(&counters->replies, 9);
    pl_count(&counters->failures, 2);
    pl_count(&counters->bytes_in, 1000);
    pl_count(&counters->bytes_out, 2000);
    pl_count(&counters->outstanding, 1);
    const plait_watch_instance *seen = look_at("greeter", &watch);
    CHECK_INT(seen->connection_count, 1);
    const plait_watch_connection *one = &seen->connections[0];
    CHECK_STR(one->service, "greeter");
    CHECK_INT(one->id, pl_status_connection_id(connection));
    CHECK_INT(one->peer_pid, 4321);
    CHECK_INT(one->peer_uid, 77);
    CHECK_STR(one->peer, "caller");
    CHECK_STR(one->transport, "shm");
    CHECK_STR(one->framing, "plait");
    CHECK(one->connected_ms >= seen->started_ms);
    CHECK_INT(one->requests, 10);
    CHECK_INT(one->replies, 9);
    CHECK_INT(one->errors, 2);
    CHECK_INT(one->bytes_in, 1000);
    CHECK_INT(one->bytes_out, 2000);
    CHECK_INT(one->outstanding, 1);
    CHECK_INT(seen->requests, 10);
    plait_watch_close(watch);
    pl_status_connection_remove(connection);

    connection = pl_status_connection_add(service, &sample_peer); /* the slot again, from zero */
    pl_count(&pl_status_connection_counters(connection)->requests, 1);
    seen = look_at("greeter", &watch);
    CHECK_INT(seen->connection_count, 1);
    CHECK_INT(seen->connections[0].requests, 1);
    CHECK_INT(seen->connections[0].outstanding, 0);
    CHECK_INT(seen->requests, 11);
    CHECK_INT(seen->failures, 2);
    CHECK_INT(seen->bytes_in, 1000);
    plait_watch_close(watch);
    pl_status_connection_remove(connection);
    pl_status_service_remove(service);
}

TEST(the_last_service_takes_the_page_away)
{
    struct pl_status_service *first = pl_status_service_add("first", 1, "", 1);
    struct pl_status_service *second = pl_status_service_add("second", 2, "", 1);
    CHECK_INT(count_files().count, 1); /* one page per process */
    CHECK_INT(count_instances(NULL), 2);
    pl_status_service_remove(first);
    CHECK_INT(count_files().count, 1);
    CHECK_INT(count_instances(NULL), 1);
    pl_status_service_remove(second);
    CHECK_INT(count_files().count, 0);
    CHECK_INT(count_instances(NULL), 0);
    pl_status_service_remove(NULL);
    pl_status_connection_remove(NULL);
}

TEST(a_borrowed_directory_goes_with_its_last_page)
{
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    struct pl_status_service *service = pl_status_service_add("first", 1, "", 1);
    CHECK_INT(pl_directory_own(&directory, false), 0);
    CHECK_INT(pl_place_open(&place, &directory, false), 0);
    pl_directory_close(&directory);
    pl_place_close(&place);
    pl_status_service_remove(service);
    CHECK_INT(access(place.path, F_OK), place.borrowed ? -1 : 0);
}

static int read_picture(const struct pl_place *place, const char *name, void *context)
{
    int fd = openat(place->fd, name, O_RDONLY | O_CLOEXEC);
    CHECK_INT(pl_status_read(context, fd), 0);
    close(fd);
    return 1;
}

/* The only page's picture. */
static void read_page(struct pl_status_picture *picture)
{
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    CHECK_INT(pl_directory_own(&directory, false), 0);
    CHECK_INT(pl_place_open(&place, &directory, false), 0);
    CHECK_INT(pl_place_each(&place, read_picture, picture), 1);
    pl_place_close(&place);
    pl_directory_close(&directory);
}

TEST(a_gauge_ends_with_its_connection)
{
    struct pl_status_picture picture;
    struct pl_status_service *service = pl_status_service_add("greeter", 1, "", 1);
    struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
    pl_count(&pl_status_connection_counters(connection)->outstanding, 3);
    pl_count(&pl_status_connection_counters(connection)->parked, 4);
    read_page(&picture);
    CHECK_INT(picture.services[0].counters[PL_COUNTER_outstanding], 3);
    CHECK_INT(picture.services[0].counters[PL_COUNTER_parked], 4);
    pl_status_picture_deinit(&picture);
    pl_status_connection_remove(connection);
    read_page(&picture);
    CHECK_INT(picture.services[0].counters[PL_COUNTER_outstanding], 0);
    CHECK_INT(picture.services[0].counters[PL_COUNTER_parked], 4);
    CHECK_INT(picture.unsteady, 0);
    pl_status_picture_deinit(&picture);
    pl_status_service_remove(service);
}

static int read_folds(const struct pl_place *place, const char *name, void *context)
{
    struct pl_status_service_slot slot;
    int fd = openat(place->fd, name, O_RDONLY | O_CLOEXEC);
    CHECK_INT(pread(fd, &slot, sizeof slot, PL_STATUS_ALIGN + sizeof slot), sizeof slot);
    close(fd);
    *(uint64_t *)context = slot.folds;
    return 1;
}

TEST(a_closing_connection_announces_that_its_counts_move)
{
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    uint64_t folds = 99;
    if (sysconf(_SC_PAGESIZE) != PL_STATUS_ALIGN) SKIP("the first slot lies elsewhere with these pages");
    struct pl_status_service *service = pl_status_service_add("greeter", 1, "", 1);
    CHECK_INT(pl_directory_own(&directory, false), 0);
    CHECK_INT(pl_place_open(&place, &directory, false), 0);
    CHECK_INT(pl_place_each(&place, read_folds, &folds), 1);
    CHECK_INT(folds, 0);
    pl_status_connection_remove(pl_status_connection_add(service, &sample_peer));
    CHECK_INT(pl_place_each(&place, read_folds, &folds), 1);
    CHECK_INT(folds, 2); /* odd in between, even again */
    pl_place_close(&place);
    pl_directory_close(&directory);
    pl_status_service_remove(service);
}

TEST(a_connection_may_outlive_its_service_and_the_page)
{
    struct pl_status_service *first = pl_status_service_add("first", 1, "", 1);
    struct pl_status_connection *late = pl_status_connection_add(first, &sample_peer);
    struct pl_status_connection *later = pl_status_connection_add(first, &sample_peer);
    pl_status_service_remove(first);
    CHECK_INT(count_files().count, 0);
    pl_count(&pl_status_connection_counters(late)->replies, 1);
    struct pl_status_service *second = pl_status_service_add("second", 2, "", 1);
    CHECK_INT(count_instances(NULL), 1);
    pl_status_connection_remove(late);
    CHECK_INT(count_files().count, 1);
    pl_status_service_remove(second);
    pl_count(&pl_status_connection_counters(later)->replies, 1);
    pl_status_connection_remove(later);
}

TEST(two_thousand_connections_come_and_go_in_260_bytes_each)
{
    enum { COUNT = 2000 };
    plait_watch *watch;
    static struct pl_status_connection *connections[COUNT];
    struct pl_status_service *service = pl_status_service_add("crowd", 1, "", 1);
    size_t before = count_files().bytes, after = 0;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < COUNT; i++) {
            struct pl_status_peer peer = { 1000 + i, 0, "unix", "plait", "someone" };
            connections[i] = pl_status_connection_add(service, &peer);
            pl_count(&pl_status_connection_counters(connections[i])->requests, 1);
        }
        size_t bytes = count_files().bytes;
        CHECK(bytes - before <= COUNT * 261);
        if (round > 0) CHECK_INT(bytes, after); /* slots are used again */
        after = bytes;
        const plait_watch_instance *seen = look_at("crowd", &watch);
        CHECK_INT(seen->connection_count, COUNT);
        CHECK_INT(seen->requests, COUNT * (round + 1));
        uint64_t sum = 0;
        for (size_t i = 0; i < COUNT; i++) sum += (uint64_t)seen->connections[i].peer_pid;
        CHECK_INT(sum, (uint64_t)COUNT * 1000 + (uint64_t)COUNT * (COUNT - 1) / 2);
        plait_watch_close(watch);
        for (int i = 0; i < COUNT; i++)
            pl_status_connection_remove(connections[(i * 7) % COUNT]); /* 7 and 2000 share no factor */
    }
    pl_status_service_remove(service);
}

TEST(many_services_and_long_texts_fit)
{
    enum { COUNT = 40, METHODS = 100000 };
    plait_watch *watch;
    struct pl_status_service *services[COUNT];
    char *methods = malloc(METHODS + 1), name[32];
    for (int i = 0; i < METHODS; i++) methods[i] = i % 101 == 100 ? ' ' : 'm';
    methods[METHODS] = '\0';
    for (int i = COUNT - 1; i >= 0; i--) {
        snprintf(name, sizeof name, "service-%02d", i);
        services[i] = pl_status_service_add(name, (uint64_t)i + 1, "/run/here", 1);
    }
    for (int round = 0; round < 50; round++) pl_status_service_set(services[0], "url", methods);
    size_t bytes = count_files().bytes;
    CHECK(bytes < 4 * METHODS + COUNT * 8192); /* old texts make room for new ones */
    watch = look(NULL);
    CHECK_INT(plait_watch_count(watch), COUNT);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "service-%02d", i);
        CHECK_STR(plait_watch_at(watch, (size_t)i)->service, name); /* sorted */
    }
    CHECK_STR(plait_watch_at(watch, 0)->methods, methods);
    plait_watch_close(watch);
    for (int i = 0; i < COUNT; i++) pl_status_service_remove(services[i]);
    free(methods);
}

TEST(names_and_peers_that_are_too_long_are_cut)
{
    plait_watch *watch;
    char text[300];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct pl_status_peer peer = { 1, 1, text, text, text };
    struct pl_status_service *service = pl_status_service_add(text, 1, text, 1);
    struct pl_status_connection *connection = pl_status_connection_add(service, &peer);
    watch = look(NULL);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->service), 103);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->directory), sizeof text - 1);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->connections[0].peer), 63);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->connections[0].transport), 11);
    plait_watch_close(watch);
    pl_status_connection_remove(connection);
    pl_status_service_remove(service);
}

/* ---- threads ---------------------------------------------------------------------------- */

enum { WRITERS = 3 };
static _Atomic int writers_done;
static struct pl_status_service *busy;

/* Connections whose every text is the same letter, each counting one request in its short life. */
static void *come_and_go(void *context)
{
    char letter = (char)('a' + (intptr_t)context), text[40];
    memset(text, letter, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 3000; i++) {
        struct pl_status_peer peer = { letter, (uid_t)letter, text, text, text };
        struct pl_status_connection *connection = pl_status_connection_add(busy, &peer);
        pl_count(&pl_status_connection_counters(connection)->requests, 1);
        pl_status_connection_remove(connection);
    }
    atomic_fetch_add(&writers_done, 1);
    return NULL;
}

static void *exchange_texts(void *unused)
{
    char long_text[6000];
    (void)unused;
    for (int i = 0; i < 3000; i++) {
        size_t size = i % 2 == 0 ? 10 : sizeof long_text - 1;
        memset(long_text, 'a' + i % 26, size);
        long_text[size] = '\0';
        pl_status_service_set(busy, long_text, long_text);
    }
    atomic_fetch_add(&writers_done, 1);
    return NULL;
}

static void require_whole(const plait_watch_instance *seen)
{
    CHECK_STR(seen->urls, seen->methods);
    CHECK_INT(strspn(seen->urls, (char[]){ seen->urls[0], '\0' }), strlen(seen->urls));
    for (size_t i = 0; i < seen->connection_count; i++) {
        const plait_watch_connection *one = &seen->connections[i];
        char letter[2] = { (char)one->peer_pid, '\0' };
        CHECK_INT(one->peer_uid, one->peer_pid);
        CHECK_INT(strspn(one->peer, letter), 39);
        CHECK_INT(strspn(one->transport, letter), 11);
        CHECK_INT(strspn(one->framing, letter), 11);
    }
}

TEST(readers_never_see_half_a_thing_while_threads_come_and_go)
{
    plait_watch *watch;
    pthread_t threads[WRITERS + 1];
    const plait_watch_instance *seen;
    busy = pl_status_service_add("busy", 1, "", 1);
    for (intptr_t i = 0; i < WRITERS; i++) CHECK_INT(pthread_create(&threads[i], NULL, come_and_go, (void *)i), 0);
    CHECK_INT(pthread_create(&threads[WRITERS], NULL, exchange_texts, NULL), 0);
    while (atomic_load(&writers_done) < WRITERS + 1) {
        seen = look_at("busy", &watch);
        CHECK(seen->requests <= WRITERS * 3000);
        require_whole(seen);
        plait_watch_close(watch);
    }
    for (int i = 0; i <= WRITERS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    seen = look_at("busy", &watch);
    CHECK_INT(seen->requests, WRITERS * 3000); /* exactly: no fold was lost */
    CHECK_INT(seen->connection_count, 0);
    plait_watch_close(watch);
    pl_status_service_remove(busy);
}

static void *services_come_and_go(void *context)
{
    for (int i = 0; i < 200; i++) {
        struct pl_status_service *service =
            pl_status_service_add("brief", (uint64_t)(intptr_t)context * 1000 + (uint64_t)i + 1, "", 1);
        struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
        pl_status_service_remove(service);
        pl_status_connection_remove(connection);
    }
    return NULL;
}

static _Atomic int stop_churning;

static void *churn(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop_churning)) pl_status_connection_remove(pl_status_connection_add(busy, &sample_peer));
    return NULL;
}

/* The child finds the lock as some thread of the parent's held it, and that thread doesn't exist. */
TEST(a_child_forked_while_others_come_and_go_is_not_stuck)
{
    pthread_t thread;
    busy = pl_status_service_add("busy", 1, "", 1);
    CHECK_INT(pthread_create(&thread, NULL, churn, NULL), 0);
    for (int i = 0; i < 100; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20);
            pl_status_connection_remove(pl_status_connection_add(busy, &sample_peer));
            pl_status_service_remove(busy);
            _exit(0);
        }
        CHECK_INT(test_wait_child(pid), 0);
    }
    atomic_store(&stop_churning, 1);
    CHECK_INT(pthread_join(thread, NULL), 0);
    pl_status_service_remove(busy);
}

TEST(services_of_many_threads_make_and_lose_the_page)
{
    pthread_t threads[WRITERS];
    for (intptr_t i = 0; i < WRITERS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, services_come_and_go, (void *)i), 0);
    for (int i = 0; i < WRITERS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(count_files().count, 0);
}

/* ---- no room ------------------------------------------------------------------------------ */

static int lines_logged;
static char last_line[512];

static void note_line(plait_log_level level, const char *line, void *context)
{
    (void)context;
    if (level != PLAIT_LOG_ERROR) return;
    lines_logged++;
    snprintf(last_line, sizeof last_line, "%s", line);
}

/* A runtime directory on a tmpfs of SIZE, in a mount namespace that ends with this process. */
static void mount_small(const char *options)
{
    char path[600];
    if (unshare(CLONE_NEWNS) < 0) SKIP("needs root, for a mount of its own");
    CHECK_INT(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    snprintf(path, sizeof path, "%s/small", test_directory());
    CHECK_INT(mkdir(path, 0700), 0);
    CHECK_INT(mount("small", path, "tmpfs", 0, options), 0);
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
    plait_set_log(note_line, NULL);
}

static void unmount_small(void)
{
    plait_set_log(NULL, NULL);
    CHECK_INT(umount2(getenv("PLAIT_DIR"), MNT_DETACH), 0);
}

TEST(without_room_for_a_page_everything_counts_unseen_and_it_is_said_once)
{
    mount_small("size=8k,mode=0700");
    struct pl_status_service *first = pl_status_service_add("first", 1, "", 1);
    struct pl_status_service *second = pl_status_service_add("second", 2, "", 1);
    struct pl_status_connection *connection = pl_status_connection_add(first, &sample_peer);
    pl_status_service_set(first, "url", "method");
    pl_count(&pl_status_connection_counters(connection)->requests, 4);
    pl_count(&pl_status_service_counters(first)->refused, 5);
    CHECK_INT(atomic_load(&pl_status_connection_counters(connection)->requests), 4);
    CHECK_INT(atomic_load(&pl_status_service_counters(first)->refused), 5);
    CHECK_INT(count_instances(NULL), 0);
    CHECK_INT(lines_logged, 1);
    CHECK_CONTAINS(last_line, "no space");
    pl_status_connection_remove(connection);
    pl_status_service_remove(first);
    pl_status_service_remove(second);
    CHECK_INT(count_files().count, 0);
    unmount_small();
}

TEST(when_the_page_cannot_grow_further_connections_are_unseen_until_slots_are_free)
{
    enum { COUNT = 100 };
    plait_watch *watch;
    struct pl_status_connection *connections[COUNT];
    mount_small("size=32k,mode=0700");
    struct pl_status_service *service = pl_status_service_add("small", 1, "", 1);
    for (int i = 0; i < COUNT; i++) {
        connections[i] = pl_status_connection_add(service, &sample_peer);
        pl_count(&pl_status_connection_counters(connections[i])->requests, 1);
    }
    const plait_watch_instance *seen = look_at("small", &watch);
    CHECK_INT(seen->connection_count, 63);
    CHECK_INT(lines_logged, 1);
    plait_watch_close(watch);
    for (int i = 0; i < COUNT; i++) pl_status_connection_remove(connections[i]);
    connections[0] = pl_status_connection_add(service, &sample_peer);
    seen = look_at("small", &watch);
    CHECK_INT(seen->connection_count, 1);
    plait_watch_close(watch);
    pl_status_connection_remove(connections[0]);
    pl_status_service_remove(service);
    unmount_small();
}

TEST(a_limit_of_file_sizes_sends_no_signal)
{
    struct rlimit limit = { 8192, 8192 };
    pid_t pid = fork();
    if (pid == 0) {
        plait_set_log(note_line, NULL);
        CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
        struct pl_status_service *service = pl_status_service_add("small", 1, "", 1);
        CHECK_INT(count_instances(NULL), 0);
        CHECK_INT(lines_logged, 1);
        CHECK_CONTAINS(last_line, "ulimit -f");
        pl_status_service_remove(service);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
}

TEST(without_descriptors_everything_counts_unseen)
{
    struct rlimit limit;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = 3;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        struct pl_status_service *service = pl_status_service_add("poor", 1, "", 1);
        pl_count(&pl_status_service_counters(service)->refused, 1);
        plait_watch *watch = NULL;
        CHECK_INT(plait_watch_open(&watch, NULL), -EMFILE);
        CHECK(watch == NULL);
        pl_status_service_remove(service);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
}

/* ---- threads ---------------------------------------------------------------------------- */

TEST(a_thread_is_seen_with_what_it_handles_and_is_gone_when_it_ends)
{
    plait_watch *watch;
    struct pl_status_service *service = pl_status_service_add("threaded", 9, "", 1);
    pl_status_service_set(service, "", "\"\" greet *");
    struct pl_status_thread *thread = pl_status_thread_add(service, PL_STATUS_SERVES, "plait/threaded/0");
    struct pl_status_work *work = pl_status_thread_work(thread);
    (void)look_at("threaded", &watch);
    CHECK_INT(plait_watch_thread_count(watch), 1);
    const plait_watch_thread *seen = plait_watch_thread_at(watch, 0);
    CHECK_INT(seen->pid, getpid());
    CHECK_INT(seen->tid, gettid());
    CHECK(seen->library_id == (uint64_t)(uintptr_t)pthread_self());
    CHECK_STR(seen->name, "plait/threaded/0");
    CHECK_STR(seen->role, "serves");
    CHECK_STR(seen->service, "threaded");
    CHECK(seen->method == NULL);
    CHECK_INT(seen->handled, 0);
    CHECK(plait_watch_thread_at(watch, 1) == NULL);
    plait_watch_close(watch);

    uint64_t began = pl_clock_ns();
    pl_status_work_begin(work, 1, pl_ticks());
    do {
        plait_watch_close(watch = look("threaded"));
    } while (pl_clock_ns() - began < 3000000);
    watch = look("threaded");
    seen = plait_watch_thread_at(watch, 0);
    CHECK_STR(seen->method, "greet");
    CHECK_INT(seen->handled, 1);
    CHECK(seen->handling_us >= 2900 && seen->handling_us * 1000 <= pl_clock_ns() - began + 1000000);
    plait_watch_close(watch);
    pl_status_work_end(work);
    pl_status_work_begin(work, 0, pl_ticks());
    watch = look("threaded");
    CHECK_STR(plait_watch_thread_at(watch, 0)->method, "");
    CHECK_INT(plait_watch_thread_at(watch, 0)->handled, 2);
    plait_watch_close(watch);
    pl_status_work_end(work);
    pl_status_thread_remove(thread);
    watch = look("threaded");
    CHECK_INT(plait_watch_thread_count(watch), 0);
    plait_watch_close(watch);
    pl_status_service_remove(service);
}

TEST(a_thread_of_an_unseen_service_counts_all_the_same)
{
    mount_small("size=4k,mode=0700");
    struct pl_status_service *service = pl_status_service_add("small", 1, "", 1);
    struct pl_status_thread *thread = pl_status_thread_add(service, PL_STATUS_SERVES, "plait/small/0");
    pl_status_work_begin(pl_status_thread_work(thread), 0, pl_ticks());
    pl_status_work_end(pl_status_thread_work(thread));
    CHECK_INT(pl_status_thread_work(thread)->current, 1 << 16);
    pl_status_thread_remove(thread);
    pl_status_thread_remove(NULL);
    pl_status_service_remove(service);
    unmount_small();
}
