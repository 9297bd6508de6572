/* user: the system's user database asked with a buffer of bounded size. All digits is always an id,
 * so that what a container's /etc/passwd doesn't list can still be named. */
#include "base/user.h"

#include "base/error.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define NAME_ROOM 256
#define RECORD_ROOM 16384 /* a group's record lists its members */

/* 1: a decimal id; 0: not digits; -EINVAL: digits, but no id ((uid_t)-1 means "none" to the kernel). */
static int parse_id(const char *what, const char *text, size_t size, uint32_t *ret_id)
{
    if (size == 0 || strspn(text, "0123456789") < size) return 0;
    uint64_t id = 0;
    for (size_t i = 0; i < size && id < UINT32_MAX; i++) id = id * 10 + (uint64_t)(text[i] - '0');
    if (id >= UINT32_MAX) return pl_error(-EINVAL, "%s '%.*s': too large for an id", what, (int)size, text);
    *ret_id = (uint32_t)id;
    return 1;
}

static int copy_name(const char *what, const char *text, size_t size, char name[NAME_ROOM])
{
    if (size == 0) return pl_error(-EINVAL, "%s: an empty name (write a name or a number)", what);
    if (size >= NAME_ROOM || memchr(text, '\0', size) != NULL)
        return pl_error(-EINVAL, "%s '%.*s...': not a name", what, 32, text);
    memcpy(name, text, size);
    name[size] = '\0';
    return 0;
}

int pl_user_uid(const char *text, size_t size, uid_t *ret_uid)
{
    uint32_t id = 0;
    char name[NAME_ROOM], record[RECORD_ROOM];
    int r = parse_id("user", text, size, &id);
    if (r == 0) {
        r = copy_name("user", text, size, name);
        if (r < 0) return r;
        struct passwd entry, *found = NULL;
        getpwnam_r(name, &entry, record, sizeof record, &found);
        if (found == NULL) return pl_error(-EINVAL, "no user '%s' (see getent passwd; a uid will do too)", name);
        id = found->pw_uid;
    }
    if (r < 0) return r;
    *ret_uid = id;
    return 0;
}

int pl_user_gid(const char *text, size_t size, gid_t *ret_gid)
{
    uint32_t id = 0;
    char name[NAME_ROOM], record[RECORD_ROOM];
    int r = parse_id("group", text, size, &id);
    if (r == 0) {
        r = copy_name("group", text, size, name);
        if (r < 0) return r;
        struct group entry, *found = NULL;
        if (getgrnam_r(name, &entry, record, sizeof record, &found) == ERANGE)
            return pl_error(-EINVAL, "group '%s': too many members to read (write its gid instead)", name);
        if (found == NULL) return pl_error(-EINVAL, "no group '%s' (see getent group; a gid will do too)", name);
        id = found->gr_gid;
    }
    if (r < 0) return r;
    *ret_gid = id;
    return 0;
}

const char *pl_user_format(uid_t uid, char text[PL_USER_TEXT])
{
    char record[RECORD_ROOM];
    struct passwd entry, *found = NULL;
    getpwuid_r(uid, &entry, record, sizeof record, &found);
    if (found != NULL) snprintf(text, PL_USER_TEXT, "uid %u (%s)", (unsigned)uid, found->pw_name);
    else snprintf(text, PL_USER_TEXT, "uid %u", (unsigned)uid);
    return text;
}
