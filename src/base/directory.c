/* directory: choosing, making and verifying the runtime directories.
 *
 * The environment says where, the kernel says whose: a path is opened O_PATH|O_NOFOLLOW first and
 * judged by fstat of that descriptor, so nothing can be swapped between the look and the use. The
 * last component is what must be ours; those above it are the administrator's business, and whoever
 * can exchange them can keep names from being found, but not pose as a service (SO_PEERCRED tells).
 * A directory that the user chose (PLAIT_DIR) never has its mode changed; what we made gets its
 * mode by chmod, since a umask takes bits away and is shared with every other thread.
 */
#include "base/directory.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OWN_MODE 0700
#define SHARED_MODE 0755
#define TOP_MODE 01777
#define SUB_ROOM 160 /* what is put behind a directory's path must fit too: "/services/NAME@ID" */

/* What a directory has to be. */
struct demand {
    uid_t owner, other_owner; /* either will do */
    bool sticky;              /* writable by all will do, given the sticky bit */
    bool chosen;              /* by the user: we neither make it twice nor change its mode */
};

/* Reads an environment variable that holds an absolute path; "" if there is none. Trailing slashes go,
 * since they would make O_NOFOLLOW follow. */
static int variable(const char *name, char path[512])
{
    const char *value = secure_getenv(name);
    path[0] = '\0';
    if (value == NULL || value[0] == '\0') return 0;
    if (value[0] != '/')
        return pl_error(-EINVAL, "%s=%s: not an absolute path (write one that begins with /)", name, value);
    size_t size = strlen(value);
    while (size > 1 && value[size - 1] == '/') size--;
    if (size >= sizeof(((struct pl_directory *)NULL)->path) - SUB_ROOM)
        return pl_error(-ENAMETOOLONG, "%s=%.40s...: longer than %zu bytes (choose a shorter path)", name, value,
                        sizeof(((struct pl_directory *)NULL)->path) - SUB_ROOM - 1);
    memcpy(path, value, size);
    path[size] = '\0';
    return 0;
}

static int verify(int fd, const char *path, const struct demand *demand, struct stat *ret_status)
{
    char owner[PL_USER_TEXT], wanted[PL_USER_TEXT];
    if (fstat(fd, ret_status) < 0) return pl_error(-errno, "%s: %s", path, pl_error_word(errno));
    if (S_ISLNK(ret_status->st_mode))
        return pl_error(-ELOOP,
                        "%s: a symbolic link, which is not followed here (remove it, or set PLAIT_DIR to the "
                        "directory itself)",
                        path);
    if (!S_ISDIR(ret_status->st_mode))
        return pl_error(-ENOTDIR, "%s: not a directory (remove it, or set PLAIT_DIR to a directory)", path);
    if (ret_status->st_uid != demand->owner && ret_status->st_uid != demand->other_owner)
        return pl_error(-EPERM,
                        "%s: belongs to %s, not to %s (set PLAIT_DIR to a directory of your own, or have it removed)",
                        path, pl_user_format(ret_status->st_uid, owner), pl_user_format(demand->owner, wanted));
    if ((ret_status->st_mode & 022) != 0 && !(demand->sticky && (ret_status->st_mode & S_ISVTX) != 0))
        return pl_error(-EACCES, "%s: writable by others, mode %04o (chmod %s %s)", path,
                        (unsigned)(ret_status->st_mode & 07777), demand->sticky ? "+t" : "go-w", path);
    return 0;
}

/* mkdirat and chmod. The chmod goes through /proc, since O_PATH descriptors have no fchmod. */
static int make(int parent, const char *name, const char *path, mode_t mode)
{
    int fd PL_AUTO_CLOSE = -1;
    char link[64];
    if (mkdirat(parent, name, mode & 0777) < 0) {
        if (errno == EEXIST) return 0;
        const char *what = errno == EROFS ? "the file system is read-only (set PLAIT_DIR to a writable directory)"
                           : errno == ENOSPC || errno == EDQUOT
                               ? "no space left (free some, or set PLAIT_DIR to a directory elsewhere)"
                           : errno == EACCES || errno == EPERM
                               ? "no permission to make it (set PLAIT_DIR to a directory of your own)"
                               : pl_error_word(errno);
        return pl_error(-errno, "%s: %s", path, what);
    }
    fd = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return pl_error(-errno, "%s: made, but gone again: %s", path, pl_error_word(errno));
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (chmod(link, mode) < 0)
        return pl_error(-errno, "%s: chmod %04o: %s (is /proc mounted?)", path, (unsigned)mode, pl_error_word(errno));
    return 0;
}

/* Opens NAME in PARENT with FLAGS, makes it first if MODE isn't 0 and it's missing. */
static int open_in(int parent, const char *name, const char *path, mode_t mode, const struct demand *demand,
                   int *ret_fd)
{
    struct stat status;
    char link[64];
    int fd PL_AUTO_CLOSE = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && mode != 0) {
        int r = make(parent, name, path, mode);
        if (r < 0) return r;
        fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0) {
        int code = -errno;
        return pl_error(code, "%s: %s%s", path, pl_error_word(code),
                        code == -EACCES ? " (set PLAIT_DIR to a directory of your own)" : "");
    }
    int r = verify(fd, path, demand, &status);
    if (r < 0) return r;
    /* Its maker died between mkdir and chmod, under an odd umask. */
    if (mode != 0 && !demand->chosen && status.st_uid == geteuid() && (status.st_mode & 0700) != 0700) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (chmod(link, mode) < 0)
            return pl_error(-errno, "%s: chmod %04o: %s", path, (unsigned)mode, pl_error_word(errno));
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* The same for a whole PATH; only its last component is verified and made. */
static int open_path(const char *path, mode_t mode, const struct demand *demand, int *ret_fd)
{
    char parent[512];
    const char *slash = strrchr(path, '/');
    snprintf(parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    int fd PL_AUTO_CLOSE = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int code = -errno;
        return pl_error(code, "%s: %s: %s (make it, or set PLAIT_DIR to another directory)", path, parent,
                        pl_error_word(code));
    }
    return open_in(fd, slash[1] == '\0' ? "." : slash + 1, path, mode, demand, ret_fd);
}

/* $XDG_RUNTIME_DIR must be ours: sudo -E and su leave that of the user before, and what root makes in
 * there would only be in that user's way. */
static int check_parent(const char *parent)
{
    struct stat status;
    char owner[PL_USER_TEXT], self[PL_USER_TEXT];
    if (stat(parent, &status) < 0) {
        int code = -errno;
        return pl_error(code, "%s: %s (XDG_RUNTIME_DIR names it; make it, unset the variable, or set PLAIT_DIR)",
                        parent, pl_error_word(code));
    }
    if (status.st_uid != geteuid())
        return pl_error(-EPERM,
                        "%s: belongs to %s, not to %s (XDG_RUNTIME_DIR names it; unset the variable, or set PLAIT_DIR)",
                        parent, pl_user_format(status.st_uid, owner), pl_user_format(geteuid(), self));
    return 0;
}

/* Where the own directory is: its path, and whether the user named it outright. */
static int choose_own(char path[512], bool *ret_chosen)
{
    unsigned uid = (unsigned)geteuid();
    struct stat status;
    char base[512];
    int r = variable("PLAIT_DIR", base);
    if (r < 0) return r;
    if (base[0] != '\0') {
        bool many = lstat(base, &status) == 0 && S_ISDIR(status.st_mode) && (status.st_mode & S_ISVTX) != 0;
        if (many) snprintf(path, 512, "%.*s/%u", 512 - SUB_ROOM, base, uid);
        else memcpy(path, base, sizeof base);
        *ret_chosen = !many;
        return 0;
    }
    *ret_chosen = false;
    r = variable("XDG_RUNTIME_DIR", base);
    if (r == 0 && base[0] != '\0') {
        snprintf(path, 512, "%.*s/plait", 512 - SUB_ROOM, base);
        return check_parent(base);
    }
    snprintf(base, sizeof base, "/run/user/%u", uid);
    if (stat(base, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid())
        snprintf(path, 512, "%.*s/plait", 512 - SUB_ROOM, base);
    else snprintf(path, 512, "/tmp/plait-%u", uid);
    return 0;
}

static int open_own(struct pl_directory *directory, bool create)
{
    bool chosen = false;
    directory->owner = geteuid();
    directory->mode = OWN_MODE;
    int r = choose_own(directory->path, &chosen);
    if (r < 0) return r;
    struct demand demand = { directory->owner, directory->owner, false, chosen };
    return open_path(directory->path, create ? OWN_MODE : 0, &demand, &directory->fd);
}

int pl_directory_own(struct pl_directory *ret_directory, bool create)
{
    struct pl_directory directory = PL_DIRECTORY_NONE;
    int r = open_own(&directory, create);
    if (r < 0) return r;
    *ret_directory = directory;
    return 0;
}

/* The directory in which every uid has its shared one. Who may own it: root, and with PLAIT_DIR whoever
 * owns $PLAIT_DIR, which is who chose it. */
static int open_top(char path[512], bool create, int *ret_fd)
{
    char base[512];
    struct stat status;
    struct demand demand = { 0, 0, true, false };
    int r = variable("PLAIT_DIR", base);
    if (r < 0) return r;
    if (base[0] == '\0') {
        snprintf(path, 512, "/run/plait");
    } else {
        snprintf(path, 512, "%.*s/shared", 512 - SUB_ROOM, base);
        if (lstat(base, &status) == 0 && S_ISDIR(status.st_mode)) demand.other_owner = status.st_uid;
    }
    bool may_make = create && (geteuid() == 0 || (base[0] != '\0' && demand.other_owner == geteuid()));
    r = open_path(path, may_make ? TOP_MODE : 0, &demand, ret_fd);
    if (r == -ENOENT && create) return pl_error(-ENOENT, "%s: does not exist (as root: mkdir -m 1777 %s)", path, path);
    return r;
}

static int open_shared(struct pl_directory *directory, uid_t owner, bool create)
{
    char top[512];
    int fd PL_AUTO_CLOSE = -1;
    struct demand demand = { owner, owner, false, false };
    directory->owner = owner;
    directory->mode = SHARED_MODE;
    int r = open_top(top, create, &fd);
    snprintf(directory->path, sizeof directory->path, "%.*s/%u", 512 - 16, top, (unsigned)owner);
    if (r < 0) return r;
    return open_in(fd, strrchr(directory->path, '/') + 1, directory->path, create ? SHARED_MODE : 0, &demand,
                   &directory->fd);
}

int pl_directory_shared(struct pl_directory *ret_directory, bool create)
{
    struct pl_directory directory = PL_DIRECTORY_NONE;
    int r = open_shared(&directory, geteuid(), create);
    if (r < 0) return r;
    *ret_directory = directory;
    return 0;
}

/* Appends ", PLACE" to PATHS; a place that was refused is told with the reason (its error text begins
 * with the path). */
static void note(char *paths, size_t size, const struct pl_directory *directory, int r)
{
    size_t used = strlen(paths);
    bool refused = r < 0 && r != -ENOENT;
    if (paths == NULL || used + 1 >= size) return;
    snprintf(paths + used, size - used, "%s%s", used > 0 ? ", " : "",
             refused || directory->path[0] == '\0' ? pl_error_text() : directory->path);
}

static int places(struct pl_directory directories[3], const char *peer, char *paths, size_t paths_size)
{
    uid_t uid = 0;
    int r = peer != NULL ? pl_user_uid(peer, strlen(peer), &uid) : 0;
    if (r < 0) return pl_error_in(r, "peer");
    int count = peer != NULL && uid != 0 ? 3 : 2;
    char unused[1] = "";
    if (paths == NULL || paths_size == 0) {
        paths = unused;
        paths_size = sizeof unused;
    }
    paths[0] = '\0';
    for (int i = 0; i < count; i++) {
        directories[i] = (struct pl_directory)PL_DIRECTORY_NONE;
        r = i == 0 ? open_own(&directories[i], false) : open_shared(&directories[i], i == 1 ? 0 : uid, false);
        if (r == -EMFILE || r == -ENFILE || r == -ENOMEM) {
            while (i > 0) pl_directory_close(&directories[--i]);
            return r;
        }
        note(paths, paths_size, &directories[i], r);
    }
    return count;
}

int pl_directory_places(struct pl_directory directories[3], const char *peer)
{
    return places(directories, peer, NULL, 0);
}

int pl_directory_search(struct pl_directory directories[3], const char *peer, char *paths, size_t paths_size)
{
    int found = 0, count = places(directories, peer, paths, paths_size);
    if (count < 0) return count;
    for (int i = 0; i < count; i++)
        if (directories[i].fd >= 0) directories[found++] = directories[i];
    return found;
}

int pl_directory_sub(const struct pl_directory *directory, const char *name, bool create, int *ret_fd)
{
    char path[512 + 64];
    int fd PL_AUTO_CLOSE = -1, readable = -1;
    struct demand demand = { directory->owner, directory->owner, false, false };
    snprintf(path, sizeof path, "%s/%s", directory->path, name);
    int r = open_in(directory->fd, name, path, create ? directory->mode : 0, &demand, &fd);
    if (r < 0) return r;
    readable = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (readable < 0) return pl_error(-errno, "%s: %s", path, pl_error_word(errno));
    *ret_fd = readable;
    return 0;
}

void pl_directory_close(struct pl_directory *directory)
{
    pl_close(&directory->fd);
}
