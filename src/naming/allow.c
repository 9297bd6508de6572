/* allow: a short list, compared linearly; credentials come from the kernel, never from the peer. */
#include "naming/allow.h"

#include "base/error.h"
#include "base/user.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM 32

static int add(struct pl_allow *allow, const char *item, size_t size)
{
    if (size == 1 && item[0] == '*') {
        allow->everybody = true;
        return 0;
    }
    if (item[0] == '@' && size > 0) {
        if (allow->gid_count == ROOM) return pl_error(-E2BIG, "more than %d groups", ROOM);
        int r = pl_user_gid(item + 1, size - 1, &allow->gids[allow->gid_count]);
        if (r == 0) allow->gid_count++;
        return r;
    }
    if (allow->uid_count == ROOM) return pl_error(-E2BIG, "more than %d users (make a group, and allow @group)", ROOM);
    int r = pl_user_uid(item, size, &allow->uids[allow->uid_count]);
    if (r == 0) allow->uid_count++;
    return r;
}

int pl_allow_parse(struct pl_allow *ret_allow, const char *text)
{
    struct pl_allow allow = { 0 };
    if (text != NULL && text[0] != '\0') {
        for (const char *item = text;; item++) {
            item += strspn(item, " \t");
            const char *end = strchrnul(item, ',');
            size_t size = (size_t)(end - item);
            while (size > 0 && (item[size - 1] == ' ' || item[size - 1] == '\t')) size--;
            int r = add(&allow, item, size);
            if (r < 0) return pl_error_in(r, "allow '%s'", text);
            item = end;
            if (*end == '\0') break;
        }
    }
    *ret_allow = allow;
    return 0;
}

static bool group_listed(const struct pl_allow *allow, gid_t gid)
{
    for (int i = 0; i < allow->gid_count; i++)
        if (allow->gids[i] == gid) return true;
    return false;
}

/* Supplementary groups: most have a few, the kernel allows 65536. */
static bool group_allowed(const struct pl_allow *allow, int socket, gid_t gid)
{
    gid_t few[64], *groups = few, *many = NULL;
    socklen_t size = sizeof few;
    if (allow->gid_count == 0) return false;
    if (group_listed(allow, gid)) return true;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, few, &size) < 0) {
        if (errno != ERANGE) return false;
        groups = many = malloc(size);
        if (many == NULL || getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, many, &size) < 0) size = 0;
    }
    bool found = false;
    for (size_t i = 0; i < size / sizeof(gid_t) && !found; i++) found = group_listed(allow, groups[i]);
    free(many);
    return found;
}

int pl_allow_check(const struct pl_allow *allow, int socket, pid_t *ret_pid, uid_t *ret_uid)
{
    struct ucred peer;
    char text[PL_USER_TEXT];
    socklen_t size = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return pl_error(-errno, "who called: %s", pl_error_word(errno));
    bool allowed = allow->everybody || peer.uid == 0 || peer.uid == geteuid();
    for (int i = 0; i < allow->uid_count && !allowed; i++) allowed = allow->uids[i] == peer.uid;
    if (!allowed && !group_allowed(allow, socket, peer.gid))
        return pl_error(-EACCES, "%s is not allowed to call (name it in the server's `allow`)",
                        pl_user_format(peer.uid, text));
    *ret_pid = peer.pid;
    *ret_uid = peer.uid;
    return 0;
}
