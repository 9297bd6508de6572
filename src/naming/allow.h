/* allow: which other users may call: "alice,1001,@video,*". */
#ifndef PL_NAMING_ALLOW_H
#define PL_NAMING_ALLOW_H

#include <stdbool.h>
#include <sys/types.h>

struct pl_allow {
    bool everybody;
    uid_t uids[32];
    gid_t gids[32];
    int uid_count, gid_count;
};

/* Parses TEXT (NULL: nobody else). -EINVAL naming the unknown user or group, -E2BIG. */
int pl_allow_parse(struct pl_allow *ret_allow, const char *text);
static inline bool pl_allow_empty(const struct pl_allow *allow)
{
    return !allow->everybody && allow->uid_count == 0 && allow->gid_count == 0;
}

/* The peer of a connected Unix SOCKET: our own uid, root, or allowed (SO_PEERCRED, SO_PEERGROUPS). 0 with
 * *ret_pid, *ret_uid; -EACCES. */
int pl_allow_check(const struct pl_allow *allow, int socket, pid_t *ret_pid, uid_t *ret_uid);

#endif
