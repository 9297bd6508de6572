/* watch: the public picture: every living page in the directories that are searched for names, joined.
 *
 * Reads files and /proc alone, so it is right also while the observed are stopped. Pages that break the
 * format are skipped (and logged): one bad file must not hide the others.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "observe/place.h"
#include "observe/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <plait/watch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct plait_watch {
    const char *name;                    /* while opening: the one that is wanted, or NULL */
    struct pl_status_picture **pictures; /* own the texts that the instances show */
    size_t picture_count, picture_room;
    struct shown {
        plait_watch_instance *instances;
        size_t count, room;
    } services, topics;
    plait_watch_thread *threads;
    size_t thread_count, thread_room;
    plait_watch_pool *pools;
    size_t pool_count, pool_room;
};

static int grow(void **array, size_t count, size_t *room, size_t element)
{
    if (count < *room) return 0;
    size_t more = *room == 0 ? 8 : *room * 2;
    void *memory = realloc(*array, more * element);
    if (memory == NULL) return pl_error(-ENOMEM, "watch: out of memory");
    *array = memory;
    *room = more;
    return 0;
}

/* Stopped by a signal or by a debugger: the letter after the name in /proc/PID/stat. */
static bool stopped(int32_t pid)
{
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (pid <= 0 || pl_fd_read_text(AT_FDCWD, path, text, sizeof text) <= 0) return false;
    const char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' && (end[2] == 'T' || end[2] == 't');
}

static void show_connection(plait_watch_connection *to, const struct pl_status_connection_picture *from,
                            const char *service)
{
    *to = (plait_watch_connection){
        .service = service,
        .id = from->id,
        .peer_pid = from->peer_pid,
        .peer_uid = from->peer_uid,
        .peer = from->peer,
        .transport = from->transport,
        .framing = from->framing,
        .connected_ms = from->connected_ms,
        .requests = from->counters[PL_COUNTER_requests],
        .replies = from->counters[PL_COUNTER_replies],
        .bytes_in = from->counters[PL_COUNTER_bytes_in],
        .bytes_out = from->counters[PL_COUNTER_bytes_out],
        .errors = from->counters[PL_COUNTER_failures] + from->counters[PL_COUNTER_protocol_errors],
        .outstanding = from->counters[PL_COUNTER_outstanding],
    };
}

/* The connections of service INDEX, as an array of its own. */
static int show_connections(plait_watch_instance *instance, const struct pl_status_picture *picture, size_t index)
{
    size_t wanted = picture->services[index].connection_count, count = 0;
    if (wanted == 0) return 0;
    plait_watch_connection *connections = calloc(wanted, sizeof *connections);
    if (connections == NULL) return pl_error(-ENOMEM, "watch: out of memory");
    for (size_t i = 0; i < picture->connection_count && count < wanted; i++)
        if (picture->connections[i].service == index)
            show_connection(&connections[count++], &picture->connections[i], picture->services[index].name);
    instance->connections = connections;
    instance->connection_count = count;
    return 0;
}

static uint64_t age_us(uint64_t since)
{
    int64_t ticks = (int64_t)(pl_ticks() - since);
    return since == 0 || ticks < 0 ? 0 : pl_ns_of_ticks((uint64_t)ticks) / 1000;
}

/* Of the threads that serve INDEX. */
static uint64_t busy_us(const struct pl_status_picture *picture, size_t index)
{
    uint64_t longest = 0;
    for (size_t i = 0; i < picture->thread_count; i++) {
        const struct pl_status_thread_picture *thread = &picture->threads[i];
        uint64_t age = thread->service == index && thread->method != 0 ? age_us(thread->since) : 0;
        if (age > longest) longest = age;
    }
    return longest;
}

static int show_service(struct plait_watch *watch, const struct pl_status_picture *picture, size_t index, uid_t uid)
{
    const struct pl_status_service_picture *service = &picture->services[index];
    struct shown *shown = service->topic ? &watch->topics : &watch->services;
    int r = grow((void **)&shown->instances, shown->count, &shown->room, sizeof *shown->instances);
    if (r < 0) return r;
    plait_watch_instance *instance = &shown->instances[shown->count];
    *instance = (plait_watch_instance){
        .service = service->name,
        .id = service->id,
        .pid = picture->pid,
        .uid = uid,
        .process = picture->process,
        .language = picture->language,
        .version = picture->library,
        .started_ms = service->started_ms,
        .directory = service->texts[PL_STATUS_TEXT_DIRECTORY],
        .urls = service->texts[PL_STATUS_TEXT_URLS],
        .methods = service->texts[PL_STATUS_TEXT_METHODS],
        .requests = service->counters[PL_COUNTER_requests],
        .failures = service->counters[PL_COUNTER_failures],
        .dropped = service->counters[PL_COUNTER_dropped],
        .bytes_in = service->counters[PL_COUNTER_bytes_in],
        .bytes_out = service->counters[PL_COUNTER_bytes_out],
        .protocol_errors = service->counters[PL_COUNTER_protocol_errors],
        .lost = service->counters[PL_COUNTER_lost_requests] + service->counters[PL_COUNTER_lost_replies],
        .published = service->counters[PL_COUNTER_published],
        .stuck = service->counters[PL_COUNTER_stuck],
        .threads = (int32_t)service->threads,
        .stopped = picture->pid_namespace == pl_place_pid_namespace() && stopped(picture->pid),
        .supervisor = service->supervisor,
        .worker = service->worker,
        .restarts = service->restarts,
        .busy_us = busy_us(picture, index),
    };
    shown->count++;
    return show_connections(instance, picture, index);
}

/* The INDEXth of words separated by blanks, as the page lists methods; NULL: there are fewer. */
static char *method_at(const char *words, size_t index)
{
    words += strspn(words, " ");
    for (; index > 0 && *words; index--) {
        words += strcspn(words, " ");
        words += strspn(words, " ");
    }
    size_t size = strcspn(words, " ");
    if (size == 0) return NULL;
    bool unnamed = size == 2 && memcmp(words, "\"\"", 2) == 0;
    return strndup(words, unnamed ? 0 : size);
}

static const char *role_name(uint32_t role)
{
    static const char *const names[] = { "", "serves", "accepts", "pool", "watches" };
    return role < sizeof names / sizeof *names ? names[role] : "";
}

static int show_thread(struct plait_watch *watch, const struct pl_status_picture *picture,
                       const struct pl_status_thread_picture *from)
{
    int r = grow((void **)&watch->threads, watch->thread_count, &watch->thread_room, sizeof *watch->threads);
    if (r < 0) return r;
    const struct pl_status_service_picture *service =
        from->service < picture->service_count ? &picture->services[from->service] : NULL;
    watch->threads[watch->thread_count++] = (plait_watch_thread){
        .pid = picture->pid,
        .tid = (int32_t)from->tid,
        .library_id = from->library_id,
        .name = from->name,
        .role = role_name(from->role),
        .service = service ? service->name : "",
        .method = from->method && service ? method_at(service->texts[PL_STATUS_TEXT_METHODS], from->method - 1) : NULL,
        .handling_us = from->method ? age_us(from->since) : 0,
        .handled = from->handled,
    };
    return 0;
}

static int show_pool(struct plait_watch *watch, const struct pl_status_picture *picture,
                     const struct pl_status_pool_picture *from)
{
    int r = grow((void **)&watch->pools, watch->pool_count, &watch->pool_room, sizeof *watch->pools);
    if (r < 0) return r;
    watch->pools[watch->pool_count++] = (plait_watch_pool){
        .pid = picture->pid,
        .threads = from->threads,
        .capacity = from->capacity,
        .name = from->name,
        .waiting = from->waiting,
        .oldest_us = age_us(from->oldest),
        .taken = from->taken,
        .refused = from->refused,
    };
    return 0;
}

/* Their numbers mean nothing in another pid namespace. */
static int show_threads(struct plait_watch *watch, const struct pl_status_picture *picture)
{
    int r = 0;
    if (picture->pid_namespace != pl_place_pid_namespace()) return 0;
    for (size_t i = 0; i < picture->thread_count && r == 0; i++) r = show_thread(watch, picture, &picture->threads[i]);
    for (size_t i = 0; i < picture->pool_count && r == 0; i++) r = show_pool(watch, picture, &picture->pools[i]);
    return r;
}

/* True if a page was seen in another directory already. */
static bool known(const struct plait_watch *watch, uint64_t id)
{
    size_t i = 0;
    while (i < watch->picture_count && watch->pictures[i]->id != id) i++;
    return i < watch->picture_count;
}

static int show_page(struct plait_watch *watch, struct pl_status_picture *picture, uid_t uid)
{
    int r = 0;
    size_t before = watch->services.count;
    for (size_t i = 0; i < picture->service_count && r == 0; i++)
        if (watch->name == NULL || strcmp(watch->name, picture->services[i].name) == 0)
            r = show_service(watch, picture, i, uid);
    return r == 0 && watch->services.count > before ? show_threads(watch, picture) : r;
}

/* Gives PICTURE, as it is, to the watch; *ret_kept is where it lies now and stays. */
static int keep(struct plait_watch *watch, struct pl_status_picture *picture, struct pl_status_picture **ret_kept)
{
    int r = grow((void **)&watch->pictures, watch->picture_count, &watch->picture_room, sizeof *watch->pictures);
    struct pl_status_picture *kept = r < 0 ? NULL : malloc(sizeof *kept);
    if (kept == NULL) return pl_error(-ENOMEM, "watch: out of memory");
    *kept = *picture;
    *picture = (struct pl_status_picture){ 0 };
    watch->pictures[watch->picture_count++] = kept;
    *ret_kept = kept;
    return 0;
}

static int read_page(const struct pl_place *place, const char *name, void *context)
{
    struct plait_watch *watch = context;
    struct pl_status_picture picture = { 0 };
    struct stat status;
    int fd PL_AUTO_CLOSE = openat(place->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        return pl_error(-errno, "%s/%s: %s", place->path, name, pl_error_word(errno));
    if (fd < 0 || fstat(fd, &status) < 0) return 0; /* gone meanwhile, or not for us */
    int r = pl_status_read(&picture, fd);
    if (r == -ENOMEM) return r;
    if (r < 0) {
        pl_log(PLAIT_LOG_DEBUG, "%s/%s: %s", place->path, name, pl_error_text());
        return 0;
    }
    struct pl_status_picture *kept = NULL;
    if (!known(watch, picture.id) && pl_place_alive(fd, picture.pid, picture.process_start, picture.pid_namespace))
        r = keep(watch, &picture, &kept);
    pl_status_picture_deinit(&picture);
    return kept == NULL ? r : show_page(watch, kept, status.st_uid);
}

static int read_directory(struct plait_watch *watch, const struct pl_directory *directory)
{
    struct pl_place place = PL_PLACE_NONE;
    int r = pl_place_open(&place, directory, false);
    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM) return r;
    if (r < 0) {
        if (r != -ENOENT) pl_log(PLAIT_LOG_DEBUG, "%s", pl_error_text());
        return 0;
    }
    if (directory->owner == geteuid()) pl_place_sweep(&place);
    r = pl_place_each(&place, read_page, watch);
    pl_place_close(&place);
    return r;
}

static int compare(const void *a, const void *b)
{
    const plait_watch_instance *left = a, *right = b;
    int order = strcmp(left->service, right->service);
    if (order == 0) order = (left->started_ms > right->started_ms) - (left->started_ms < right->started_ms);
    return order != 0 ? order : (left->id > right->id) - (left->id < right->id);
}

/* A refused own directory is an error only where nothing else was found either: its owner may still offer
 * services to us. A missing one holds no services. */
static int read_directories(struct plait_watch *watch)
{
    struct pl_directory directories[3], own = PL_DIRECTORY_NONE;
    int count = pl_directory_search(directories, NULL, NULL, 0);
    if (count < 0) return count;
    if (count == 0) {
        int r = pl_directory_own(&own, false);
        pl_directory_close(&own);
        return r == -ENOENT ? 0 : r;
    }
    int r = 0;
    for (int i = 0; i < count; i++) {
        if (r == 0) r = read_directory(watch, &directories[i]);
        pl_directory_close(&directories[i]);
    }
    return r;
}

int plait_watch_open(plait_watch **ret_watch, const char *name)
{
    plait_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) return pl_error(-ENOMEM, "watch: out of memory");
    watch->name = name;
    int r = read_directories(watch);
    if (r < 0) {
        plait_watch_close(watch);
        return r;
    }
    watch->name = NULL;
    struct shown *shown[] = { &watch->services, &watch->topics };
    for (int i = 0; i < 2; i++)
        if (shown[i]->count > 0) qsort(shown[i]->instances, shown[i]->count, sizeof *shown[i]->instances, compare);
    *ret_watch = watch;
    return 0;
}

size_t plait_watch_count(const plait_watch *watch)
{
    return watch->services.count;
}

const plait_watch_instance *plait_watch_at(const plait_watch *watch, size_t index)
{
    return index < watch->services.count ? &watch->services.instances[index] : NULL;
}

size_t plait_watch_topic_count(const plait_watch *watch)
{
    return watch->topics.count;
}

const plait_watch_instance *plait_watch_topic_at(const plait_watch *watch, size_t index)
{
    return index < watch->topics.count ? &watch->topics.instances[index] : NULL;
}

static void shown_free(struct shown *shown)
{
    for (size_t i = 0; i < shown->count; i++) free((void *)shown->instances[i].connections);
    free(shown->instances);
}

size_t plait_watch_thread_count(const plait_watch *watch)
{
    return watch->thread_count;
}

const plait_watch_thread *plait_watch_thread_at(const plait_watch *watch, size_t index)
{
    return index < watch->thread_count ? &watch->threads[index] : NULL;
}

size_t plait_watch_pool_count(const plait_watch *watch)
{
    return watch->pool_count;
}

const plait_watch_pool *plait_watch_pool_at(const plait_watch *watch, size_t index)
{
    return index < watch->pool_count ? &watch->pools[index] : NULL;
}

void plait_watch_close(plait_watch *watch)
{
    if (watch == NULL) return;
    for (size_t i = 0; i < watch->thread_count; i++) free((void *)watch->threads[i].method);
    free(watch->threads);
    free(watch->pools);
    for (size_t i = 0; i < watch->picture_count; i++) {
        pl_status_picture_deinit(watch->pictures[i]);
        free(watch->pictures[i]);
    }
    shown_free(&watch->services);
    shown_free(&watch->topics);
    free(watch->pictures);
    free(watch);
}

const char *plait_watch_directory(size_t index, int *ret_exists)
{
    static _Thread_local char path[sizeof(((struct pl_directory *)NULL)->path)];
    struct pl_directory directories[3];
    int count = pl_directory_places(directories, NULL);
    const char *result = NULL;
    for (int i = 0; i < count; i++) {
        if ((size_t)i == index) {
            memcpy(path, directories[i].path, sizeof path);
            if (ret_exists != NULL) *ret_exists = directories[i].fd >= 0;
            result = path;
        }
        pl_directory_close(&directories[i]);
    }
    return result;
}
