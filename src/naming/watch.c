/* watch: one inotify for the process, told on to any number of watchers.
 *
 * inotify instances are few (128 per user by default), so there is one. A watcher's own descriptor is
 * an epoll of that inotify and of an eventfd of its own: an event makes all of them readable, whoever
 * comes first reads it and rings the others whom it concerns. So nobody needs a thread, and an event
 * that one has read is not lost for the rest.
 *
 * What is watched for each directory is its services (or topics) folder or, while that is missing, the nearest
 * ancestor that exists, for the one name that is missing there. After each event that concerns a
 * watcher its directories are looked at anew. A watch is a hint: nothing that it says is believed,
 * the watcher looks up again.
 */
#include "naming/watch.h"

#include "base/directory.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/fork.h"
#include "base/list.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

/* One mask for all, since a second watch on the same directory replaces the first one's. */
#define MASK                                                                                                           \
    (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define SELF_GONE (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)
#define ARM_TRIES 64 /* more than any path has components */

struct target {
    char path[512 + 16];    /* DIRECTORY/services or topics; "": none */
    int wd;                 /* what is watched: that, or an ancestor; -1: nothing */
    char awaited[NAME_MAX]; /* in an ancestor: the missing name; "": it's the folder itself */
};

struct pl_name_watch {
    struct pl_list link;
    int epoll, event;
    enum pl_kind kind;
    char *peer;
    struct target targets[3];
    bool concerned; /* scratch of clear */
};

static struct {
    pthread_mutex_t lock;
    struct pl_list watchers;
    struct pl_fork_hook hook;
    pthread_once_t hooked;
    int hook_error;
    int inotify;   /* open from the first watcher on, until there are neither watchers nor holders */
    unsigned held; /* by whom: see pl_name_watch_hold */
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER,
             .hooked = PTHREAD_ONCE_INIT,
             .watchers = PL_LIST_INIT(shared.watchers),
             .inotify = -1 };

/* A forked child shares the inotify and would read the parent's events. */
static void in_child(struct pl_fork_hook *hook)
{
    (void)hook;
    pthread_mutex_init(&shared.lock, NULL); /* another thread may have held it */
    shared.hooked = (pthread_once_t)PTHREAD_ONCE_INIT;
    pl_close(&shared.inotify);
    shared.held = 0;
    pl_list_each(link, &shared.watchers)
    {
        struct pl_name_watch *watch = pl_container_of(link, struct pl_name_watch, link);
        pl_close(&watch->epoll);
        pl_close(&watch->event);
        pl_list_init(&watch->link);
    }
    pl_list_init(&shared.watchers);
}

static void hook_up(void)
{
    shared.hook.in_child = in_child;
    shared.hook_error = pl_fork_add(&shared.hook);
}

/* Takes the lock; first does what the atfork handler could not do in the child of a raw clone(2). */
static void lock(void)
{
    if (pl_forked(&shared.hook)) in_child(&shared.hook);
    pthread_mutex_lock(&shared.lock);
}

/* Makes WD (or -1) what TARGET watches; gives up the old one if no other target has it. */
static void set_wd(struct target *target, int wd)
{
    int old = target->wd;
    target->wd = wd;
    if (old < 0 || old == wd) return;
    pl_list_each(link, &shared.watchers)
    {
        struct pl_name_watch *watch = pl_container_of(link, struct pl_name_watch, link);
        for (int i = 0; i < 3; i++)
            if (watch->targets[i].wd == old) return;
    }
    inotify_rm_watch(shared.inotify, old);
}

/* Cuts the last component off PATH into NAME. False at the root. */
static bool cut(char *path, char name[NAME_MAX])
{
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash[1] == '\0') return false;
    snprintf(name, NAME_MAX, "%s", slash + 1);
    slash[slash == path] = '\0';
    return true;
}

/* 0, or PL_NAME_WATCH_NONE. */
static int arm(struct target *target)
{
    char path[sizeof target->path], below[sizeof target->path], name[NAME_MAX] = "";
    snprintf(path, sizeof path, "%s", target->path);
    below[0] = '\0';
    for (int i = 0; i < ARM_TRIES && target->path[0] != '\0'; i++) {
        int wd = inotify_add_watch(shared.inotify, path, MASK);
        if (wd < 0 && (errno == ENOSPC || errno == ENOMEM)) return PL_NAME_WATCH_NONE;
        if (wd < 0) {
            memcpy(below, path, sizeof below);
            if (!cut(path, name)) return PL_NAME_WATCH_NONE;
            continue;
        }
        set_wd(target, wd);
        memcpy(target->awaited, name, sizeof name);
        /* What was missing may have been made before the watch was there. */
        if (below[0] == '\0' || access(below, R_OK) < 0) return 0;
        memcpy(path, target->path, sizeof path);
        below[0] = name[0] = '\0';
    }
    return 0;
}

/* Looks at the directories anew: which they are may have changed, too. */
static int arm_all(struct pl_name_watch *watch)
{
    struct pl_directory places[3];
    int count = pl_directory_places(places, watch->peer);
    if (count < 0) return count == -EMFILE || count == -ENFILE ? PL_NAME_WATCH_NONE : count;
    for (int i = 0; i < count; i++) {
        if (places[i].path[0] != '\0')
            snprintf(watch->targets[i].path, sizeof watch->targets[i].path, "%s/%s", places[i].path,
                     pl_kind_folder(watch->kind));
        pl_directory_close(&places[i]);
    }
    int r = 0;
    for (int i = 0; i < count && r == 0; i++) r = arm(&watch->targets[i]);
    return r;
}

static int add_to(int epoll, int fd)
{
    struct epoll_event event = { .events = EPOLLIN };
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int open_fds(struct pl_name_watch *watch)
{
    if (shared.inotify < 0) shared.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (shared.inotify >= 0) watch->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->event >= 0) watch->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (watch->epoll >= 0 && add_to(watch->epoll, shared.inotify) == 0 && add_to(watch->epoll, watch->event) == 0)
        return 0;
    if (errno == EMFILE || errno == ENFILE || errno == ENOSPC) return PL_NAME_WATCH_NONE;
    return pl_error(-errno, "watch for names: %s", pl_error_word(errno));
}

static int open_locked(struct pl_name_watch *watch)
{
    int r = open_fds(watch);
    pl_list_append(&shared.watchers, &watch->link);
    if (r == 0) r = arm_all(watch);
    return r;
}

static void close_unused(void)
{
    if (shared.held == 0 && pl_list_empty(&shared.watchers)) pl_close(&shared.inotify);
}

static void close_locked(struct pl_name_watch *watch)
{
    pl_list_remove(&watch->link);
    if (shared.inotify >= 0)
        for (int i = 0; i < 3; i++) set_wd(&watch->targets[i], -1);
    pl_close(&watch->epoll);
    pl_close(&watch->event);
    close_unused();
}

void pl_name_watch_hold(void)
{
    pthread_once(&shared.hooked, hook_up);
    lock();
    shared.held++;
    pthread_mutex_unlock(&shared.lock);
}

void pl_name_watch_release(void)
{
    lock();
    if (shared.held > 0) shared.held--;
    close_unused();
    pthread_mutex_unlock(&shared.lock);
}

int pl_name_watch_open_as(struct pl_name_watch **ret_watch, enum pl_kind kind, const char *peer)
{
    struct pl_name_watch *watch = calloc(1, sizeof *watch);
    char *copy = peer != NULL ? strdup(peer) : NULL;
    if (watch == NULL || (peer != NULL && copy == NULL)) {
        free(watch);
        free(copy);
        return pl_error(-ENOMEM, "watch for names: %s", pl_error_word(ENOMEM));
    }
    watch->epoll = watch->event = -1;
    watch->kind = kind;
    watch->peer = copy;
    pl_list_init(&watch->link);
    for (int i = 0; i < 3; i++) watch->targets[i].wd = -1;
    pthread_once(&shared.hooked, hook_up);
    lock();
    pthread_once(&shared.hooked, hook_up); /* again, if that found us in a new process */
    int r = shared.hook_error < 0 ? shared.hook_error : open_locked(watch);
    if (r != 0) close_locked(watch);
    pthread_mutex_unlock(&shared.lock);
    if (r != 0) {
        free(copy);
        free(watch);
        return r;
    }
    *ret_watch = watch;
    return 0;
}

int pl_name_watch_fd(const struct pl_name_watch *watch)
{
    return watch->epoll;
}

static bool concerns(const struct target *target, const struct inotify_event *event)
{
    if (target->wd != event->wd) return false;
    if ((event->mask & SELF_GONE) != 0) return true;
    if (event->len == 0) return false;
    /* Hidden: half-made entries and locks. They come and go without saying anything to a client. */
    return target->awaited[0] == '\0' ? event->name[0] != '.' : strcmp(event->name, target->awaited) == 0;
}

static void tell(const struct inotify_event *event)
{
    pl_list_each(link, &shared.watchers)
    {
        struct pl_name_watch *watch = pl_container_of(link, struct pl_name_watch, link);
        if ((event->mask & IN_Q_OVERFLOW) != 0) watch->concerned = true;
        for (int i = 0; i < 3; i++) {
            if (!concerns(&watch->targets[i], event)) continue;
            watch->concerned = true;
            if ((event->mask & IN_IGNORED) != 0) watch->targets[i].wd = -1; /* the kernel has removed it */
        }
    }
}

static void drain(void)
{
    char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t size;
    while ((size = read(shared.inotify, events, sizeof events)) > 0) {
        for (const char *at = events; at < events + size;) {
            const struct inotify_event *event = (const struct inotify_event *)at;
            tell(event);
            at += sizeof *event + event->len;
        }
    }
}

static void clear(struct pl_name_watch *watch)
{
    uint64_t count;
    drain();
    (void)!read(watch->event, &count, sizeof count);
    pl_list_each(link, &shared.watchers)
    {
        struct pl_name_watch *other = pl_container_of(link, struct pl_name_watch, link);
        if (!other->concerned) continue;
        other->concerned = false;
        /* A failure leaves it watching less than it should; its owner has a deadline and polls at that. */
        (void)arm_all(other);
        count = 1;
        if (other != watch) (void)!write(other->event, &count, sizeof count);
    }
}

void pl_name_watch_clear(struct pl_name_watch *watch)
{
    lock();
    if (watch->epoll >= 0) clear(watch);
    pthread_mutex_unlock(&shared.lock);
}

void pl_name_watch_close(struct pl_name_watch *watch)
{
    if (watch == NULL) return;
    lock();
    close_locked(watch);
    pthread_mutex_unlock(&shared.lock);
    free(watch->peer);
    free(watch);
}
