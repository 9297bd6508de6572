/* user: user and group names to ids and back. */
#ifndef PL_BASE_USER_H
#define PL_BASE_USER_H

#include <stddef.h>
#include <sys/types.h>

/* SIZE bytes of TEXT, a name or a decimal id (which need not have a name). 0, or -EINVAL with text. */
int pl_user_uid(const char *text, size_t size, uid_t *ret_uid);
int pl_user_gid(const char *text, size_t size, gid_t *ret_gid);

#define PL_USER_TEXT 96
/* "uid 1000 (alice)", or "uid 1000" if it has no name; returns TEXT. */
const char *pl_user_format(uid_t uid, char text[PL_USER_TEXT]);

#endif
