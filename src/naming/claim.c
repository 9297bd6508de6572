/* claim: making an instance's entries and sockets, and taking them away again.
 *
 * Killed at any instruction it leaves at most: a hidden or visible entry without lock, a socket, an
 * unlocked name lock. All of them are what a sweep removes, and no client takes any of them for a
 * service. The order is: hidden entry, lock, content, socket, listen, and only then the rename
 * that shows it; so whoever sees an entry can connect.
 *
 * In a forked child the descriptors are shared with the parent: an unlock or unlink there would
 * take the parent's name away. Whether this is the process that claimed is asked before either.
 */
#include "naming/claim.h"

#include "base/address.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/random.h"
#include "naming/entry.h"
#include "naming/namelock.h"
#include "naming/sweep.h"
#include "wire/name.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 8
enum { MAKE_AGAIN = 1 }; /* a sweeper was faster than our lock, or the id is taken: another id */

struct place {
    struct pl_directory directory;
    int entry; /* the locked entry; -1: none */
    bool visible, bound;
};

struct state {
    struct place places[2]; /* own, shared */
    int count;
    enum pl_kind kind;
    int name_lock;
    char name[PLAIT_NAME_MAX + 1];
    struct pl_entry self; /* what the entries say */
};

/* "NAME@ID" or ".NAME@ID" */
static const char *entry_file(const struct state *state, bool hidden, char file[PL_ENTRY_FILE])
{
    snprintf(file, PL_ENTRY_FILE, "%s%.*s@%016" PRIx64, hidden ? "." : "", PLAIT_NAME_MAX, state->name, state->self.id);
    return file;
}

static int failed(const struct place *place, const char *what, int code)
{
    return pl_error(code, "%s: %s: %s%s", place->directory.path, what, pl_error_word(code),
                    code == -ENOSPC ? " (free some, or set PLAIT_DIR to a directory elsewhere)" : "");
}

static int write_entry(const struct state *state, const struct place *place)
{
    char text[PL_ENTRY_TEXT];
    size_t size = pl_entry_format(&state->self, text), done = 0;
    while (done < size) {
        ssize_t written = pwrite(place->entry, text + done, size - done, (off_t)done);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return failed(place, "write entry", written == 0 ? -ENOSPC : -errno);
        done += (size_t)written;
    }
    if (ftruncate(place->entry, (off_t)size) < 0) return failed(place, "write entry", -errno);
    return 0;
}

static int make_entry(const struct state *state, struct place *place, int folder)
{
    char file[PL_ENTRY_FILE];
    entry_file(state, true, file);
    /* Nobody else may open it before it's locked: in the shared directory others could lock it first. */
    place->entry = openat(folder, file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (place->entry < 0) return errno == EEXIST ? MAKE_AGAIN : failed(place, "make entry", -errno);
    int r = pl_entry_lock(place->entry, F_WRLCK);
    if (r == -EAGAIN || (r == 0 && !pl_entry_same(folder, file, place->entry))) return MAKE_AGAIN;
    if (r < 0) return failed(place, "lock entry", r);
    r = write_entry(state, place);
    if (r < 0) return r;
    if (fchmod(place->entry, place->directory.mode == 0700 ? 0600 : 0644) < 0)
        return failed(place, "chmod entry", -errno);
    return 0;
}

static int make_socket(const struct state *state, struct place *place, int *ret_listener)
{
    int sockets PL_AUTO_CLOSE = -1, listener PL_AUTO_CLOSE = -1;
    char name[32];
    struct pl_address address;
    int r = pl_directory_sub(&place->directory, "s", true, &sockets);
    if (r < 0) return r;
    snprintf(name, sizeof name, "%016" PRIx64, state->self.id);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) return failed(place, "make socket", -errno);
    pl_address_unix_at(&address, sockets, name);
    if (bind(listener, (struct sockaddr *)&address.storage, address.size) < 0)
        return errno == EADDRINUSE ? MAKE_AGAIN : failed(place, "bind socket through /proc/self/fd", -errno);
    place->bound = true;
    /* Who may call is decided after accept, by uid; in the own directory others don't get this far. */
    if (fchmodat(sockets, name, place->directory.mode == 0700 ? 0600 : 0666, 0) < 0)
        return failed(place, "chmod socket", -errno);
    if (listen(listener, SOMAXCONN) < 0) return failed(place, "listen", -errno);
    *ret_listener = listener;
    listener = -1;
    return 0;
}

static int reveal(const struct state *state, struct place *place, int folder)
{
    char hidden[PL_ENTRY_FILE], visible[PL_ENTRY_FILE];
    entry_file(state, true, hidden);
    entry_file(state, false, visible);
    int r = renameat2(folder, hidden, folder, visible, RENAME_NOREPLACE);
    if (r < 0 &&
        (errno == EINVAL || errno == ENOSYS)) { /* a file system without the flag: link doesn't replace, either */
        r = linkat(folder, hidden, folder, visible, 0);
        if (r == 0) unlinkat(folder, hidden, 0);
    }
    if (r < 0) return errno == EEXIST ? MAKE_AGAIN : failed(place, "show entry", -errno);
    place->visible = true;
    return 0;
}

/* Takes away what PLACE has of this id, in the order that leaves no socket without entry. */
static void remove_place(const struct state *state, struct place *place)
{
    char path[PL_ENTRY_FILE + 16], file[PL_ENTRY_FILE];
    if (place->bound) {
        snprintf(path, sizeof path, "s/%016" PRIx64, state->self.id);
        unlinkat(place->directory.fd, path, 0);
    }
    if (place->entry >= 0) {
        snprintf(path, sizeof path, "%s/%s", pl_kind_folder(state->kind), entry_file(state, !place->visible, file));
        unlinkat(place->directory.fd, path, 0);
        pl_entry_lock(place->entry, F_UNLCK); /* for forked children that share it */
    }
    pl_close(&place->entry);
    place->bound = place->visible = false;
}

static int make_place(const struct state *state, struct place *place, int *ret_listener)
{
    int folder PL_AUTO_CLOSE = -1;
    int r = pl_directory_sub(&place->directory, pl_kind_folder(state->kind), true, &folder);
    if (r == 0) r = make_entry(state, place, folder);
    if (r == 0) r = make_socket(state, place, ret_listener);
    if (r == 0) r = reveal(state, place, folder);
    return r;
}

static int make_places(struct state *state, int listeners[2])
{
    int r = MAKE_AGAIN;
    for (int i = 0; i < TRIES && r == MAKE_AGAIN; i++) {
        state->self.id = pl_random_u64();
        r = 0;
        for (int j = 0; j < state->count && r == 0; j++) r = make_place(state, &state->places[j], &listeners[j]);
        for (int j = 0; j < state->count && r != 0; j++) {
            remove_place(state, &state->places[j]);
            pl_close(&listeners[j]);
        }
    }
    if (r == MAKE_AGAIN)
        return pl_error(-EBUSY, "%s: no entry could be made in %d attempts", state->places[0].directory.path, TRIES);
    return r;
}

/* The shared directory: asked for by ALLOW; for root it's a service to others that may fail. */
static int open_shared(struct state *state, const struct pl_allow *allow)
{
    struct stat status;
    const char *chosen = secure_getenv("PLAIT_DIR");
    bool asked = !pl_allow_empty(allow);
    if (!asked && geteuid() != 0) return 0;
    /* A private PLAIT_DIR: its shared directory is out of everybody else's reach. */
    if (!asked && chosen != NULL && stat(chosen, &status) == 0 && (status.st_mode & 011) == 0) return 0;
    int r = pl_directory_shared(&state->places[1].directory, true);
    if (r < 0 && asked) return pl_error_in(r, "allow");
    if (r < 0)
        pl_log(PLAIT_LOG_INFO, "%s '%s' is not offered to other users: %s", pl_kind_word(state->kind), state->name,
               pl_error_text());
    else state->count = 2;
    return 0;
}

static struct state *new_state(enum pl_kind kind, const char *name)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL) return NULL;
    snprintf(state->name, sizeof state->name, "%s", name);
    state->kind = kind;
    state->name_lock = -1;
    for (int i = 0; i < 2; i++) {
        state->places[i].directory = (struct pl_directory)PL_DIRECTORY_NONE;
        state->places[i].entry = -1;
    }
    pl_entry_self(&state->self);
    return state;
}

static void free_state(struct state *state)
{
    if (state == NULL) return;
    for (int i = 0; i < 2; i++) {
        pl_close(&state->places[i].entry);
        pl_directory_close(&state->places[i].directory);
    }
    pl_close(&state->name_lock);
    free(state);
}

/* Everything but the sockets' descriptors. */
static void withdraw(struct state *state)
{
    int folder PL_AUTO_CLOSE = -1;
    for (int i = 0; i < state->count; i++) remove_place(state, &state->places[i]);
    if (state->name_lock < 0) return;
    if (pl_directory_sub(&state->places[0].directory, pl_kind_folder(state->kind), false, &folder) == 0) {
        bool turn = pl_name_turn_begin(folder);
        pl_name_unlock(folder, state->name, turn, &state->name_lock);
        if (turn) pl_name_turn_end(folder);
    } else {
        pl_entry_lock(state->name_lock, F_UNLCK);
        pl_close(&state->name_lock);
    }
}

/* A hidden entry: nobody finds a service by it, but who wants the name sees that it is held. */
static int make_holder(struct state *state)
{
    int folder PL_AUTO_CLOSE = -1, r = MAKE_AGAIN;
    struct place *own = &state->places[0];
    int found = pl_directory_sub(&own->directory, pl_kind_folder(state->kind), true, &folder);
    if (found < 0) return found;
    state->self.holds = true;
    for (int i = 0; i < TRIES && r == MAKE_AGAIN; i++) {
        state->self.id = pl_random_u64();
        r = make_entry(state, own, folder);
        if (r != 0) remove_place(state, own);
    }
    return r == MAKE_AGAIN ? pl_error(-EBUSY, "%s: no entry could be made", own->directory.path) : r;
}

/* ALLOW NULL: the lock alone. */
static int claim(struct state *state, enum pl_claim_mode mode, const struct pl_allow *allow, int listeners[2])
{
    int folder PL_AUTO_CLOSE = -1;
    struct place *own = &state->places[0];
    int r = pl_directory_own(&own->directory, true);
    if (r < 0) return r;
    state->count = 1;
    if (allow != NULL) r = open_shared(state, allow);
    if (r == 0) r = pl_directory_sub(&own->directory, pl_kind_folder(state->kind), true, &folder);
    if (r < 0) return r;
    bool turn = pl_name_turn_begin(folder);
    for (int i = 0; i < state->count; i++) pl_sweep_directory(&state->places[i].directory, false);
    if (turn) pl_name_lock_sweep(&own->directory, folder, false);
    if (mode != PL_CLAIM_HELD)
        r = pl_name_lock(&own->directory, folder, state->name, mode == PL_CLAIM_EXCLUSIVE, turn, &state->name_lock);
    if (r == 0) {
        r = allow != NULL ? make_places(state, listeners) : make_holder(state);
        if (r < 0) pl_name_unlock(folder, state->name, turn, &state->name_lock);
    }
    if (turn) pl_name_turn_end(folder);
    return r;
}

int pl_claim_open_as(struct pl_claim *ret_claim, enum pl_kind kind, const char *name, enum pl_claim_mode mode,
                     const struct pl_allow *allow)
{
    int listeners[2] = { -1, -1 };
    int r = pl_name_check(pl_kind_word(kind), name, strlen(name));
    if (r < 0) return r;
    struct state *state = new_state(kind, name);
    if (state == NULL) return pl_error(-ENOMEM, "%s '%s': %s", pl_kind_word(kind), name, pl_error_word(ENOMEM));
    r = claim(state, mode, allow, listeners);
    if (r < 0) {
        free_state(state);
        return r;
    }
    *ret_claim = (struct pl_claim){ .id = state->self.id,
                                    .listeners = { listeners[0], listeners[1] },
                                    .directory = state->places[0].directory.path,
                                    .state = state };
    return 0;
}

int pl_claim_hold(struct pl_claim *ret_claim, const char *name, bool exclusive)
{
    return pl_claim_open(ret_claim, name, exclusive ? PL_CLAIM_EXCLUSIVE : PL_CLAIM_SHARED, NULL);
}

int pl_claim_lock_fd(const struct pl_claim *claim)
{
    const struct state *state = claim->state;
    return state != NULL ? state->name_lock : -1;
}

/* False in a forked child, also after a raw clone(2) into another pid namespace, where it may have our number. */
static bool ours(const struct state *state)
{
    return getpid() == state->self.pid && pl_entry_namespace() == state->self.ns;
}

int pl_claim_set_urls(struct pl_claim *claim, const char *urls)
{
    struct state *state = claim->state;
    for (const char *c = urls; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return pl_error(-EINVAL, "a listener's URL holds a control character");
    if (!ours(state))
        return pl_error(-ECHILD, "%s '%s': opened before fork() (open it in this process)", pl_kind_word(state->kind),
                        state->name);
    size_t size = strlen(urls);
    if (size >= sizeof state->self.urls) /* whole URLs only */
        for (size = sizeof state->self.urls - 1; size > 0 && urls[size] != ' ';) size--;
    memcpy(state->self.urls, urls, size);
    state->self.urls[size] = '\0';
    for (int i = 0; i < state->count; i++) {
        int r = state->places[i].entry >= 0 ? write_entry(state, &state->places[i]) : 0;
        if (r < 0) return r;
    }
    return 0;
}

void pl_claim_withdraw(struct pl_claim *claim)
{
    struct state *state = claim->state;
    if (state != NULL && (state->places[0].entry >= 0 || state->name_lock >= 0) && ours(state)) withdraw(state);
}

void pl_claim_forked(struct pl_claim *claim)
{
    struct state *state = claim->state;
    pl_close(&claim->listeners[0]);
    pl_close(&claim->listeners[1]);
    claim->directory = NULL;
    claim->state = NULL;
    free_state(state);
}

void pl_claim_close(struct pl_claim *claim)
{
    pl_claim_withdraw(claim);
    pl_claim_forked(claim); /* what is left is to close and to free, as in a child */
}

int pl_claim_sweep(void)
{
    struct pl_directory own = PL_DIRECTORY_NONE, shared = PL_DIRECTORY_NONE;
    int removed = 0;
    int r = pl_directory_own(&own, false);
    if (r < 0) return r == -ENOENT ? 0 : r;
    for (enum pl_kind kind = PL_KIND_SERVICE; kind <= PL_KIND_TOPIC; kind++) {
        int folder PL_AUTO_CLOSE = -1;
        if (pl_directory_sub(&own, pl_kind_folder(kind), false, &folder) < 0) continue;
        bool turn = pl_name_turn_begin(folder);
        removed += pl_sweep_directory(&own, true);
        if (turn) pl_name_lock_sweep(&own, folder, true);
        if (turn) pl_name_turn_end(folder);
    }
    if (pl_directory_shared(&shared, false) == 0) removed += pl_sweep_directory(&shared, true);
    pl_directory_close(&own);
    pl_directory_close(&shared);
    return removed;
}
