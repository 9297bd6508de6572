/* lookup: reading the directories that may hold a name. No cache: an entry costs a few system calls,
 * and what is true of one is true only now. Other users' directories are read with the same
 * distrust as the network; who serves a socket is what the kernel says of it after connect.
 */
#include "naming/lookup.h"

#include "base/address.h"
#include "base/clock.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/random.h"
#include "base/user.h"
#include "naming/entry.h"
#include "naming/sweep.h"
#include "wire/name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#define NEAR_NAMES 3
#define STAMP_SETTLE_NS 50000000 /* several ticks of the coarse clock that times directories */

struct found {
    struct pl_instance *instances;
    size_t count, room;
    enum pl_kind kind;
};

static bool known(const struct found *found, uint64_t id)
{
    for (size_t i = 0; i < found->count; i++)
        if (found->instances[i].id == id) return true;
    return false;
}

static int add(struct found *found, const char *name, const struct pl_entry *entry,
               const struct pl_directory *directory)
{
    if (found->count == found->room) {
        size_t room = found->room * 2 + 4;
        struct pl_instance *grown = realloc(found->instances, room * sizeof *grown);
        if (grown == NULL) return pl_error(-ENOMEM, "lookup: %s", pl_error_word(ENOMEM));
        found->instances = grown;
        found->room = room;
    }
    struct pl_instance *instance = &found->instances[found->count++];
    *instance = (struct pl_instance){
        .id = entry->id, .kind = found->kind, .pid = entry->pid, .uid = entry->uid, .start = entry->start
    };
    snprintf(instance->name, sizeof instance->name, "%s", name);
    memcpy(instance->urls, entry->urls, sizeof instance->urls);
    memcpy(instance->directory, directory->path, sizeof instance->directory);
    return 0;
}

/* One file of the kind's folder: taken if it's a living instance of NAME. */
static int look_at(struct found *found, const struct pl_directory *directory, int folder, const char *file,
                   const char *name)
{
    char entry_name[PLAIT_NAME_MAX + 1];
    struct pl_entry entry;
    uint64_t id = 0;
    bool hidden = false;
    int fd PL_AUTO_CLOSE = -1;
    if (!pl_entry_split(file, entry_name, &id, &hidden) || hidden || (name != NULL && strcmp(name, entry_name) != 0))
        return 0;
    if (known(found, id)) return 0; /* shared by its owner, who looks into both directories */
    int r = pl_entry_open(folder, file, directory->owner, &fd);
    if (r < 0) return r == -ENOENT ? 0 : r;
    switch (pl_entry_judge(fd, &entry)) {
    case PL_ENTRY_ALIVE: break;
    case PL_ENTRY_DEAD:
        if (directory->owner == geteuid()) pl_sweep_entry(directory, folder, file, fd);
        return 0;
    default: return 0;
    }
    if (entry.id != id) return 0;
    /* The uid in the file is what its maker's user namespace calls itself. */
    entry.uid = directory->owner;
    return add(found, entry_name, &entry, directory);
}

static int look_in(struct found *found, const struct pl_directory *directory, const char *name)
{
    int folder PL_AUTO_CLOSE = -1;
    int r = pl_directory_sub(directory, pl_kind_folder(found->kind), false, &folder);
    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM) return r;
    if (r < 0) return 0; /* missing, or not as it should be: nothing that may be believed */
    DIR *list = fdopendir(folder);
    if (list == NULL)
        return pl_error(-errno, "%s/%s: %s", directory->path, pl_kind_folder(found->kind), pl_error_word(errno));
    folder = -1; /* the list's now */
    for (struct dirent *item = readdir(list); item != NULL && r == 0; item = readdir(list))
        r = look_at(found, directory, dirfd(list), item->d_name, name);
    closedir(list);
    return r;
}

/* So that the clients of several instances don't all begin with the same. */
static void shuffle(struct found *found)
{
    for (size_t i = found->count; i > 1; i--) {
        size_t j = (size_t)(pl_random_u64() % i);
        struct pl_instance swap = found->instances[i - 1];
        found->instances[i - 1] = found->instances[j];
        found->instances[j] = swap;
    }
}

int pl_lookup_as(enum pl_kind kind, const char *name, const char *peer, struct pl_instance **ret_instances,
                 size_t *ret_count)
{
    struct pl_directory directories[3];
    struct found found = { .kind = kind };
    int r = 0, count = pl_directory_search(directories, peer, NULL, 0);
    if (count < 0) return count;
    for (int i = 0; i < count; i++) {
        if (r == 0) r = look_in(&found, &directories[i], name);
        pl_directory_close(&directories[i]);
    }
    if (r < 0) {
        free(found.instances);
        return r;
    }
    shuffle(&found);
    *ret_instances = found.instances;
    *ret_count = found.count;
    return 0;
}

/* Opens INSTANCE's directory anew and in it the folder NAME. */
static int open_folder(const struct pl_instance *instance, const char *name, int *ret_fd)
{
    int directory PL_AUTO_CLOSE = open(instance->directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = directory >= 0 ? openat(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd < 0) return pl_error(-errno, "%s/%s: %s", instance->directory, name, pl_error_word(errno));
    *ret_fd = fd;
    return 0;
}

int pl_instance_alive(const struct pl_instance *instance)
{
    char file[PL_ENTRY_FILE];
    struct pl_entry entry;
    int folder PL_AUTO_CLOSE = -1, fd PL_AUTO_CLOSE = -1;
    int r = open_folder(instance, pl_kind_folder(instance->kind), &folder);
    if (r == 0) {
        snprintf(file, sizeof file, "%s@%016" PRIx64, instance->name, instance->id);
        r = pl_entry_open(folder, file, instance->uid, &fd);
    }
    if (r < 0) return r == -EMFILE || r == -ENFILE || r == -ENOMEM ? r : 0;
    return pl_entry_judge(fd, &entry) == PL_ENTRY_ALIVE;
}

/* 1: whoever called listen() lives; 0: it's dead, the socket is a forked child's; -errno. */
static int listener_alive(const struct pl_instance *instance, int socket)
{
    int pidfd PL_AUTO_CLOSE = -1;
    socklen_t size = sizeof pidfd;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) < 0) {
        pidfd = -1;
        if (errno == EMFILE || errno == ENFILE)
            return pl_error(-errno, "%s '%s': %s", pl_kind_word(instance->kind), instance->name, pl_error_word(errno));
        if (errno == ESRCH || errno == EINVAL || errno == ENODATA) return 0; /* dead and reaped */
        return pl_instance_alive(instance);                                  /* a kernel before 6.5 */
    }
    struct pollfd ready = { .fd = pidfd, .events = POLLIN };
    return poll(&ready, 1, 0) <= 0;
}

static int check_server(const struct pl_instance *instance, const char *peer, int socket, uid_t *ret_uid)
{
    struct ucred server;
    socklen_t size = sizeof server;
    uid_t wanted = geteuid();
    char who[PL_USER_TEXT];
    int r = peer != NULL ? pl_user_uid(peer, strlen(peer), &wanted) : 0;
    if (r < 0) return pl_error_in(r, "peer");
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &server, &size) < 0)
        return pl_error(-errno, "%s '%s': who serves it: %s", pl_kind_word(instance->kind), instance->name,
                        pl_error_word(errno));
    if (server.uid != geteuid() && server.uid != 0 && server.uid != wanted)
        return pl_error(-EACCES,
                        "%s '%s' in %s is served by %s, who is neither you nor root (if that user is meant, ask for "
                        "it: peer=%u)",
                        pl_kind_word(instance->kind), instance->name, instance->directory,
                        pl_user_format(server.uid, who), (unsigned)server.uid);
    *ret_uid = server.uid;
    return 0;
}

int pl_lookup_connect(const struct pl_instance *instance, const char *peer, int *ret_fd, uid_t *ret_uid)
{
    int sockets PL_AUTO_CLOSE = -1, fd PL_AUTO_CLOSE = -1;
    char name[32];
    struct pl_address address;
    int r = open_folder(instance, "s", &sockets);
    if (r < 0) return r == -ENOENT ? PL_CONNECT_GONE : r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return pl_error(-errno, "%s '%s': socket: %s", pl_kind_word(instance->kind), instance->name,
                        pl_error_word(errno));
    snprintf(name, sizeof name, "%016" PRIx64, instance->id);
    pl_address_unix_at(&address, sockets, name);
    if (connect(fd, (struct sockaddr *)&address.storage, address.size) < 0) {
        int code = -errno;
        if (code == -ENOENT || code == -ECONNREFUSED) return PL_CONNECT_GONE;
        if (code != -EAGAIN)
            return pl_error(code, "%s '%s': %s/s/%s: %s", pl_kind_word(instance->kind), instance->name,
                            instance->directory, name, pl_error_word(code));
        /* Nobody will ever empty the backlog of a socket that only a forked child still has. */
        r = pl_instance_alive(instance);
        return r < 0 ? r : r == 0 ? PL_CONNECT_GONE : PL_CONNECT_BUSY;
    }
    uid_t uid = 0;
    r = check_server(instance, peer, fd, &uid);
    if (r < 0) return r;
    r = listener_alive(instance, fd);
    if (r < 0) return r;
    if (r == 0) return PL_CONNECT_GONE;
    *ret_uid = uid;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* "; did you mean 'a' or 'b'?" out of the names that there are. */
static void near_names(const char *name, const char *peer, char *text, size_t size)
{
    struct pl_instance *instances = NULL;
    const char *near[NEAR_NAMES];
    size_t count = 0, nears = 0, used = 0;
    text[0] = '\0';
    if (pl_lookup(NULL, peer, &instances, &count) < 0) return;
    for (size_t i = 0; i < count && nears < NEAR_NAMES; i++) {
        bool known = !pl_name_near(name, instances[i].name) || strcmp(name, instances[i].name) == 0;
        for (size_t j = 0; j < nears && !known; j++) known = strcmp(near[j], instances[i].name) == 0;
        if (!known) near[nears++] = instances[i].name;
    }
    for (size_t i = 0; i < nears; i++) {
        const char *before = i == 0 ? "; did you mean " : i + 1 == nears ? " or " : ", ";
        int length = snprintf(text + used, size - used, "%s'%s'%s", before, near[i], i + 1 == nears ? "?" : "");
        if (length > 0 && (size_t)length < size - used) used += (size_t)length;
    }
    free(instances);
}

/* Whether somebody publishes a topic NAME. */
static bool is_topic(const char *name, const char *peer)
{
    struct pl_instance *instances = NULL;
    size_t count = 0;
    if (pl_lookup_as(PL_KIND_TOPIC, name, peer, &instances, &count) < 0) return false;
    free(instances);
    return count > 0;
}

int pl_lookup_missing(const char *name, const char *peer)
{
    struct pl_directory directories[3];
    char paths[1600], near[NEAR_NAMES * (PLAIT_NAME_MAX + 8) + 32];
    int count = pl_directory_search(directories, peer, paths, sizeof paths);
    if (count < 0) return count;
    for (int i = 0; i < count; i++) pl_directory_close(&directories[i]);
    if (is_topic(name, peer)) snprintf(near, sizeof near, "; it is a topic: subscribe to it");
    else near_names(name, peer, near, sizeof near);
    return pl_error(-ENOENT, "no service '%s' (searched %s%s)", name, paths, near);
}

uint64_t pl_lookup_stamp(const char *peer)
{
    struct pl_directory directories[3];
    struct stat status;
    struct timespec now = { 0 };
    uint64_t stamp = 0;
    int count = pl_directory_search(directories, peer, NULL, 0);
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < count; i++) {
        if (fstatat(directories[i].fd, "services", &status, AT_SYMLINK_NOFOLLOW) == 0) {
            int64_t age = (now.tv_sec - status.st_mtim.tv_sec) * 1000000000 + now.tv_nsec - status.st_mtim.tv_nsec;
            stamp = (stamp ^ (uint64_t)status.st_ino) * 0x9e3779b97f4a7c15u;
            stamp = (stamp ^ (uint64_t)status.st_mtim.tv_sec) * 0x9e3779b97f4a7c15u;
            stamp = (stamp ^ (uint64_t)status.st_mtim.tv_nsec) * 0x9e3779b97f4a7c15u;
            /* A second change within the same tick leaves the time as it is: while that may still happen,
             * no two stamps are the same. */
            if (age < STAMP_SETTLE_NS) stamp ^= pl_clock_ns();
        }
        pl_directory_close(&directories[i]);
    }
    return stamp;
}
