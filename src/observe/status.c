/* status: see status.h. One lock for everything that comes and goes; counters need none.
 *
 * An object remembers its page, so that one which outlives the last service (a deferred request's
 * connection) still has its counters while a new page is in use already. Without a page, or room in
 * it, an object counts in its own memory.
 *
 * The hook resets the lock in a forked child, where its holder doesn't exist, and lets go of the parent's
 * pages. It is registered before the lock is first taken.
 */
#include "observe/status.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/log.h"
#include "observe/page.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pl_counter_info pl_counter_table[PL_COUNTERS] = {
#define PL_COUNTER(id, unit, help) { #id, unit, help, false },
#define PL_GAUGE(id, unit, help) { #id, unit, help, true },
#include "observe/counters.def"
#undef PL_GAUGE
#undef PL_COUNTER
};

struct pl_status_service {
    struct pl_page *page; /* NULL: unseen, counts in `spare` */
    struct pl_page_slot place;
    struct pl_status_service_slot *slot;
    struct pl_counters *counters;
    uint64_t id;
    int users; /* itself, until removed, and its connections */
    bool removed;
    char *directory;
    struct pl_counters spare;
};

struct pl_status_connection {
    struct pl_status_service *service;
    struct pl_page *page; /* NULL: unseen */
    struct pl_page_slot place;
    struct pl_status_connection_slot *slot;
    struct pl_counters *counters;
    uint64_t id;
    struct pl_counters spare;
};

struct pl_status_thread {
    struct pl_page *page; /* NULL: unseen */
    struct pl_page_slot place;
    struct pl_status_work *work;
    struct pl_status_work spare;
};

struct pl_status_pool {
    struct pl_page *page; /* NULL: unseen */
    struct pl_page_slot place;
    struct pl_status_queue *queue;
    struct pl_status_queue spare;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct pl_fork_hook hook;
static struct pl_list pages = PL_LIST_INIT(pages); /* every page with users, the current one too */
static struct pl_page *current;                    /* where new objects go; NULL without services */
static uint64_t last_connection, last_pool;
static int services_seen;
static bool complained;

/* What is handed out when there is no memory even for an object: they count into nowhere. */
static struct pl_status_service lost_service = { .counters = &lost_service.spare };
static struct pl_status_connection lost_connection = { .service = &lost_service, .counters = &lost_connection.spare };
static struct pl_status_pool lost_pool = { .queue = &lost_pool.spare };
static struct pl_status_thread lost_thread = { .work = &lost_thread.spare };

static void in_child(struct pl_fork_hook *unused)
{
    (void)unused;
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    once = (pthread_once_t)PTHREAD_ONCE_INIT;
    for (struct pl_list *link = pl_list_take(&pages); link != NULL; link = pl_list_take(&pages))
        pl_page_forget(pl_container_of(link, struct pl_page, link));
    current = NULL;
    services_seen = 0;
    complained = false;
}

static void arm(void)
{
    pl_fork_remove(&hook);
    hook.in_child = in_child;
    pl_fork_add(&hook); /* it fails where pthread_atfork does, at no memory: then a fork is not noticed */
}

/* After a raw clone(2) no hook ran; the generation tells. */
static void enter(void)
{
    pthread_once(&once, arm);
    if (hook.generation != 0 && pl_forked(&hook)) {
        in_child(&hook);
        pthread_once(&once, arm);
    }
    pthread_mutex_lock(&lock);
}

/* Says once why something is not to be seen; outside the lock, since the log may be the user's function. */
static void leave(int r)
{
    bool say = r < 0 && !complained;
    if (say) complained = true;
    pthread_mutex_unlock(&lock);
    if (say) pl_log(PLAIT_LOG_ERROR, "%s: what this process serves is not shown in full", pl_error_text());
}

static void set_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from != NULL ? from : "");
}

static void clear_counters(union pl_status_counters *counters)
{
    /* relaxed: in a slot that isn't seen yet */
    for (int i = 0; i < PL_STATUS_COUNTERS_MAX; i++)
        atomic_store_explicit(&counters->words[i], 0, memory_order_relaxed);
}

/* ---- services --------------------------------------------------------------------------- */

static void drop_page(struct pl_page *page)
{
    if (--page->users > 0) return;
    pl_list_remove(&page->link);
    pl_page_free(page);
}

static void drop_service(struct pl_status_service *service)
{
    if (--service->users > 0) return;
    if (service->page != NULL) drop_page(service->page);
    free(service->directory);
    free(service);
}

static int need_page(void)
{
    if (current != NULL) return 0;
    int r = pl_page_open(&current);
    if (r < 0) return r;
    pl_list_append(&pages, &current->link);
    return 0;
}

/* Without services the page is nobody's: its file goes, and what still counts in it has the memory. */
static void lose_page(struct pl_page *page)
{
    if (page->services > 0) return;
    pl_page_unlink(page);
    if (current == page) current = NULL;
    if (page->users > 0) return;
    pl_list_remove(&page->link);
    pl_page_free(page);
}

/* Puts new texts behind the slot's word, then frees the old: a reader finds the one or the other whole. */
static int replace_text(struct pl_status_service *service, const char *urls, const char *methods)
{
    const char *const texts[PL_STATUS_TEXTS] = { service->directory != NULL ? service->directory : "",
                                                 urls != NULL ? urls : "", methods != NULL ? methods : "" };
    uint64_t word = 0, old = atomic_load_explicit(&service->slot->text, memory_order_relaxed); /* relaxed: ours */
    int r = pl_page_text(service->page, texts, &word);
    if (r < 0) return r;
    /* OBR4: pairs with OBA2 in reader.c: the word leads to a text that is complete */
    atomic_store_explicit(&service->slot->text, word, memory_order_release);
    /* OBR5: pairs with OBA1 in reader.c: whoever sees the old chunk used again sees the new word afterwards */
    atomic_thread_fence(memory_order_release);
    pl_page_text_free(service->page, old);
    return 0;
}

/* Makes SERVICE visible. */
static int show_service(struct pl_status_service *service, enum pl_status_kind kind, const char *name, int threads)
{
    int r = need_page();
    if (r < 0) return r;
    if (services_seen >= PL_STATUS_SERVICES_MAX)
        return pl_error(-ENOSPC, "status page: more than %d services", PL_STATUS_SERVICES_MAX);
    r = pl_page_slot(current, kind, &service->place);
    if (r < 0) return r;
    struct pl_status_service_slot *slot = service->place.memory;
    pl_page_begin(&slot->version);
    slot->id = service->id;
    slot->started_ms = pl_clock_unix_ms();
    slot->threads = threads > 0 ? (uint32_t)threads : 0;
    slot->supervisor = 0;
    slot->worker = slot->restarts = 0;
    set_text(slot->name, sizeof slot->name, name);
    atomic_store_explicit(&slot->text, 0, memory_order_relaxed); /* relaxed: the version is odd */
    clear_counters(&slot->own);
    clear_counters(&slot->closed);
    service->page = current;
    service->slot = slot;
    service->counters = &slot->own.known;
    current->users++;
    current->services++;
    services_seen++;
    r = replace_text(service, "", "");
    pl_page_end(&slot->version);
    return r;
}

static struct pl_status_service *add(enum pl_status_kind kind, const char *name, uint64_t id, const char *directory,
                                     int threads)
{
    struct pl_status_service *service = calloc(1, sizeof *service);
    if (service == NULL) return &lost_service;
    service->id = id;
    service->users = 1;
    service->counters = &service->spare;
    service->directory = directory != NULL ? strdup(directory) : NULL;
    enter();
    int r = show_service(service, kind, name, threads);
    if (current != NULL) lose_page(current); /* if it was made for this one alone, and in vain */
    leave(r);
    return service;
}

struct pl_status_service *pl_status_service_add(const char *name, uint64_t id, const char *directory, int threads)
{
    return add(PL_STATUS_SERVICES, name, id, directory, threads);
}

struct pl_status_service *pl_status_topic_add(const char *name, uint64_t id, const char *directory)
{
    return add(PL_STATUS_TOPICS, name, id, directory, 1);
}

void pl_status_service_set(struct pl_status_service *service, const char *urls, const char *methods)
{
    int r = 0;
    if (service->page == NULL) return;
    enter();
    if (!service->page->forgotten && !service->removed) r = replace_text(service, urls, methods);
    leave(r);
}

void pl_status_service_set_worker(struct pl_status_service *service, pid_t supervisor, unsigned worker,
                                  unsigned restarts)
{
    if (service->page == NULL) return;
    enter();
    if (!service->page->forgotten && !service->removed) {
        pl_page_begin(&service->slot->version);
        service->slot->supervisor = supervisor;
        service->slot->worker = worker;
        service->slot->restarts = restarts;
        pl_page_end(&service->slot->version);
    }
    leave(0);
}

void pl_status_page_name(char name[17])
{
    enter();
    snprintf(name, 17, "%s", current != NULL ? current->name : "");
    leave(0);
}

int pl_status_page_open(const char *name, int *ret_fd)
{
    struct pl_directory directory = PL_DIRECTORY_NONE;
    struct pl_place place = PL_PLACE_NONE;
    int r = pl_directory_own(&directory, false);
    if (r < 0) return r;
    r = pl_place_open(&place, &directory, false);
    pl_directory_close(&directory);
    if (r < 0) return r;
    int fd = openat(place.fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    r = fd < 0 ? pl_error(-errno, "status page %s/%s: %s", place.path, name, pl_error_word(errno)) : 0;
    pl_place_close(&place);
    if (r == 0) *ret_fd = fd;
    return r;
}

void pl_status_service_remove(struct pl_status_service *service)
{
    if (service == NULL || service == &lost_service) return;
    enter();
    service->removed = true;
    if (service->page != NULL && !service->page->forgotten) {
        struct pl_status_service_slot *slot = service->slot;
        uint64_t word = atomic_load_explicit(&slot->text, memory_order_relaxed); /* relaxed: ours */
        pl_page_begin(&slot->version);
        slot->id = 0;
        pl_page_end(&slot->version);
        pl_page_text_free(service->page, word);
        pl_page_slot_free(service->page, &service->place);
        service->page->services--;
        services_seen--;
        lose_page(service->page);
    }
    drop_service(service);
    leave(0);
}

struct pl_counters *pl_status_service_counters(struct pl_status_service *service)
{
    return service->counters;
}

/* ---- connections ------------------------------------------------------------------------ */

static int show_connection(struct pl_status_connection *connection, const struct pl_status_peer *peer)
{
    struct pl_page *page = connection->service->page;
    int r = pl_page_slot(page, PL_STATUS_CONNECTIONS, &connection->place);
    if (r < 0) return r;
    struct pl_status_connection_slot *slot = connection->place.memory;
    pl_page_begin(&slot->version);
    slot->id = connection->id;
    slot->service = connection->service->id;
    slot->connected_ms = pl_clock_unix_ms();
    slot->peer_pid = peer->pid;
    slot->peer_uid = peer->uid;
    set_text(slot->transport, sizeof slot->transport, peer->transport);
    set_text(slot->framing, sizeof slot->framing, peer->framing);
    set_text(slot->peer, sizeof slot->peer, peer->name);
    clear_counters(&slot->counters);
    pl_page_end(&slot->version);
    connection->page = page;
    connection->slot = slot;
    connection->counters = &slot->counters.known;
    page->users++;
    return 0;
}

struct pl_status_connection *pl_status_connection_add(struct pl_status_service *service,
                                                      const struct pl_status_peer *peer)
{
    int r = 0;
    struct pl_status_connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL || service == &lost_service) {
        free(connection);
        return &lost_connection;
    }
    connection->service = service;
    connection->counters = &connection->spare;
    enter();
    connection->id = ++last_connection;
    service->users++;
    if (service->page != NULL && !service->page->forgotten && !service->removed) r = show_connection(connection, peer);
    leave(r);
    return connection;
}

/* Moves what the connection counted to its service. Readers see the odd `folds` and look again: in between
 * it would be counted twice or not at all. */
static void fold(struct pl_status_service_slot *service, const struct pl_status_connection_slot *slot)
{
    _Atomic uint64_t *to = service->closed.words;
    for (int i = 0; i < PL_COUNTERS; i++) {
        if (pl_counter_table[i].gauge) continue;
        /* relaxed: the connection's writer is done, and under the lock there is one folder */
        pl_count(&to[i], atomic_load_explicit(&slot->counters.words[i], memory_order_relaxed));
    }
}

void pl_status_connection_remove(struct pl_status_connection *connection)
{
    if (connection == NULL || connection == &lost_connection) return;
    enter();
    struct pl_status_service *service = connection->service;
    if (connection->page != NULL && !connection->page->forgotten) {
        struct pl_status_connection_slot *slot = connection->slot;
        if (!service->removed) pl_page_begin(&service->slot->folds);
        pl_page_begin(&slot->version);
        if (!service->removed) fold(service->slot, slot);
        slot->id = 0;
        pl_page_end(&slot->version);
        if (!service->removed) pl_page_end(&service->slot->folds);
        pl_page_slot_free(connection->page, &connection->place);
    }
    if (connection->page != NULL) drop_page(connection->page);
    drop_service(service);
    leave(0);
    free(connection);
}

struct pl_counters *pl_status_connection_counters(struct pl_status_connection *connection)
{
    return connection->counters;
}

uint64_t pl_status_connection_id(const struct pl_status_connection *connection)
{
    return connection->id;
}

uint64_t pl_status_service_id(const struct pl_status_service *service)
{
    return service->id;
}

/* ---- threads ---------------------------------------------------------------------------- */

static int show_thread(struct pl_status_thread *thread, struct pl_page *page, enum pl_status_role role,
                       const char *name, uint64_t service)
{
    int r = pl_page_slot(page, PL_STATUS_THREADS, &thread->place);
    if (r < 0) return r;
    struct pl_status_thread_slot *slot = thread->place.memory;
    pl_page_begin(&slot->version);
    slot->id = (uint64_t)gettid();
    slot->library_id = (uint64_t)(uintptr_t)pthread_self();
    slot->role = role;
    slot->ticks_per_ms = pl_ticks_of_ns(1000000);
    slot->anchor_ns = pl_clock_ns();
    slot->anchor_ticks = pl_ticks();
    set_text(slot->name, sizeof slot->name, name);
    /* relaxed: the version is odd */
    atomic_store_explicit(&slot->work.current, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->work.since, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->work.service, service, memory_order_relaxed);
    pl_page_end(&slot->version);
    thread->page = page;
    thread->work = &slot->work;
    page->users++;
    return 0;
}

struct pl_status_thread *pl_status_thread_add(struct pl_status_service *service, enum pl_status_role role,
                                              const char *name)
{
    int r = 0;
    struct pl_status_thread *thread = calloc(1, sizeof *thread);
    if (thread == NULL) return &lost_thread;
    thread->work = &thread->spare;
    enter();
    if (service->page != NULL && !service->page->forgotten && !service->removed)
        r = show_thread(thread, service->page, role, name, service->id);
    leave(r);
    return thread;
}

/* What every slot begins with. */
struct slot_head {
    _Atomic uint64_t version;
    uint64_t id;
};
static_assert(offsetof(struct pl_status_thread_slot, id) == offsetof(struct slot_head, id), "a thread's id");
static_assert(offsetof(struct pl_status_pool_slot, id) == offsetof(struct slot_head, id), "a pool's id");

static void hide(struct pl_page *page, const struct pl_page_slot *place)
{
    enter();
    if (page != NULL && !page->forgotten) {
        struct slot_head *slot = place->memory;
        pl_page_begin(&slot->version);
        slot->id = 0;
        pl_page_end(&slot->version);
        pl_page_slot_free(page, place);
    }
    if (page != NULL) drop_page(page);
    leave(0);
}

void pl_status_thread_remove(struct pl_status_thread *thread)
{
    if (thread == NULL || thread == &lost_thread) return;
    hide(thread->page, &thread->place);
    free(thread);
}

struct pl_status_work *pl_status_thread_work(struct pl_status_thread *thread)
{
    return thread->work;
}

/* ---- pools ------------------------------------------------------------------------------ */

static int show_pool(struct pl_status_pool *pool, struct pl_page *page, const char *name, unsigned threads,
                     unsigned capacity)
{
    int r = pl_page_slot(page, PL_STATUS_POOLS, &pool->place);
    if (r < 0) return r;
    struct pl_status_pool_slot *slot = pool->place.memory;
    pl_page_begin(&slot->version);
    slot->id = ++last_pool;
    slot->threads = threads;
    slot->capacity = capacity;
    set_text(slot->name, sizeof slot->name, name);
    /* relaxed: the version is odd */
    atomic_store_explicit(&slot->queue.waiting, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->queue.oldest, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->queue.taken, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->queue.refused, 0, memory_order_relaxed);
    pl_page_end(&slot->version);
    pool->page = page;
    pool->queue = &slot->queue;
    page->users++;
    return 0;
}

struct pl_status_pool *pl_status_pool_add(struct pl_status_service *service, const char *name, unsigned threads,
                                          unsigned capacity)
{
    int r = 0;
    struct pl_status_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return &lost_pool;
    pool->queue = &pool->spare;
    enter();
    if (service->page != NULL && !service->page->forgotten && !service->removed)
        r = show_pool(pool, service->page, name, threads, capacity);
    leave(r);
    return pool;
}

void pl_status_pool_remove(struct pl_status_pool *pool)
{
    if (pool == NULL || pool == &lost_pool) return;
    hide(pool->page, &pool->place);
    free(pool);
}

struct pl_status_queue *pl_status_pool_queue(struct pl_status_pool *pool)
{
    return pool->queue;
}
