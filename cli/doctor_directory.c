/* Where names lie: is that ours, private and writable, and will other programs look there too? */
#include "doctor.h"
#include <errno.h>
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* PATH is absent: can the first server make it? */
static void report_absent(const char *path)
{
    char parent[1024], *slash;
    struct stat st;

    snprintf(parent, sizeof(parent), "%s", path);
    slash = strrchr(parent, '/');
    if (slash && slash != parent) *slash = 0;
    if (stat(parent, &st) < 0)
        doctor_report(VERDICT_FAIL, "directory", "make it, or set PLAIT_DIR to another directory",
                      "%s can't be made: %s: %s", path, parent, strerror(errno));
    else if (access(parent, W_OK | X_OK) < 0)
        doctor_report(VERDICT_FAIL, "directory", "set PLAIT_DIR to a directory that you may write",
                      "%s can't be made: %s: %s", path, parent, strerror(errno));
    else doctor_report(VERDICT_OK, "directory", NULL, "%s will be made by the first server", path);
}

static void report_own(const char *path)
{
    struct stat st;

    if (lstat(path, &st) < 0 && errno == ENOENT) report_absent(path);
    else if (lstat(path, &st) < 0)
        doctor_report(VERDICT_FAIL, "directory", "set PLAIT_DIR to a directory of your own", "%s: %s", path,
                      strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        doctor_report(VERDICT_FAIL, "directory", "remove it, or set PLAIT_DIR", "%s is %s", path,
                      S_ISLNK(st.st_mode) ? "a symbolic link, which is never followed" : "no directory");
    else if (st.st_uid != geteuid())
        doctor_report(VERDICT_FAIL, "directory",
                      "set PLAIT_DIR to a directory of your own, or tell its owner to remove it",
                      "%s belongs to uid %u, not to you", path, st.st_uid);
    else if (st.st_mode & 022)
        doctor_report(VERDICT_FAIL, "directory", "chmod 700 it", "%s may be written by others (mode %o)", path,
                      st.st_mode & 07777);
    else if (access(path, R_OK | W_OK | X_OK) < 0)
        doctor_report(VERDICT_FAIL, "directory", "chmod 700 it, or set PLAIT_DIR", "%s: %s", path, strerror(errno));
    else doctor_report(VERDICT_OK, "directory", NULL, "%s is yours", path);
}

static void report_shared(void)
{
    const char *path;
    int exists, count = 0;
    char found[1024] = "";

    for (size_t i = 1; (path = plait_watch_directory(i, &exists)); i++) {
        if (!exists) continue;
        snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s%s", count++ ? ", " : "", path);
    }
    if (count > 0)
        doctor_report(VERDICT_OK, "shared", NULL, "root's services, and those of others, are looked for in %s", found);
    else
        doctor_report(VERDICT_OK, "shared", NULL,
                      "no shared directory: services of root and --allow need root to mkdir -m 1777 /run/plait");
}

/* Two programs of one user that see different environments would look in different places. */
static void report_environment(const char *own)
{
    const char *variable = getenv("XDG_RUNTIME_DIR");

    if (getenv("PLAIT_DIR"))
        doctor_report(VERDICT_OK, "environment", NULL, "PLAIT_DIR is set: only programs with the same value meet here");
    else if (!variable && strncmp(own, "/tmp/", 5) == 0)
        doctor_report(
            VERDICT_WARN, "environment", "set XDG_RUNTIME_DIR or PLAIT_DIR alike for all programs that shall meet",
            "XDG_RUNTIME_DIR isn't set and there is no /run/user/%u: programs that have it set look elsewhere",
            geteuid());
    else
        doctor_report(VERDICT_OK, "environment", NULL, "XDG_RUNTIME_DIR is %s",
                      variable ? variable : "not set, and not needed");
}

void doctor_directories(void)
{
    char own[1024];
    const char *path = plait_watch_directory(0, NULL);

    snprintf(own, sizeof(own), "%s", path ? path : "");
    if (path) report_own(own);
    else doctor_report(VERDICT_FAIL, "directory", "set PLAIT_DIR to a directory of your own", "%s", plait_error_text());
    report_environment(own);
    report_shared();
}
