/* What the tests of naming share: servers in processes of their own, other users, other worlds. */
#ifndef PL_NAMING_TEST_SUPPORT_H
#define PL_NAMING_TEST_SUPPORT_H

#include "base/error.h"
#include "base/fd.h"
#include "harness/test.h"
#include "naming/claim.h"
#include "naming/lookup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOMEBODY 54321 /* has no name, and nothing else on this machine */
#define OTHER 54322

__attribute__((unused, format(printf, 1, 2))) static char *path_of(const char *format, ...)
{
    static char texts[8][512];
    static int next;
    char *text = texts[next++ % 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, 512, format, arguments);
    va_end(arguments);
    return text;
}

__attribute__((unused)) static void be(uid_t uid)
{
    CHECK_INT(setgroups(0, NULL), 0);
    CHECK_INT(setresgid(uid, uid, uid), 0);
    CHECK_INT(setresuid(uid, uid, uid), 0);
    CHECK_INT(prctl(PR_SET_DUMPABLE, 1), 0); /* cleared by setuid; /proc/self/fd needs it */
}

/* A PLAIT_DIR for several users, who each have an own directory in it. */
__attribute__((unused)) static void share_plait_dir(void)
{
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(chmod(test_directory(), 0755), 0);
    CHECK_INT(chmod(getenv("PLAIT_DIR"), 01777), 0);
    CHECK_INT(mkdir(path_of("%s/shared", getenv("PLAIT_DIR")), 0755), 0);
    CHECK_INT(chmod(path_of("%s/shared", getenv("PLAIT_DIR")), 01777), 0);
}

/* /run and /tmp become empty file systems that only this process and its children see. */
__attribute__((unused)) static void own_world(void)
{
    if (geteuid() != 0) SKIP("needs root");
    if (unshare(CLONE_NEWNS) < 0) SKIP("needs a mount namespace");
    CHECK_INT(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    CHECK_INT(mount("tmpfs", "/run", "tmpfs", 0, "mode=755"), 0);
    CHECK_INT(mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"), 0);
    unsetenv("PLAIT_DIR");
    unsetenv("XDG_RUNTIME_DIR");
}

/* The files in a folder of DIRECTORY, "." and ".." apart. */
__attribute__((unused)) static int files_in(const char *directory, const char *folder)
{
    DIR *list = opendir(path_of("%s/%s", directory, folder));
    int count = 0;
    if (list == NULL) return 0;
    for (struct dirent *item = readdir(list); item != NULL; item = readdir(list)) count++;
    closedir(list);
    return count - 2;
}

__attribute__((unused)) static void check_empty(const char *directory)
{
    CHECK_INT(files_in(directory, "services"), 0);
    CHECK_INT(files_in(directory, "s"), 0);
}

/* From now on SYSCALL, if its third argument is THIRD (or THIRD is -1), fails with CODE in this process: another
 * kernel, another file system. */
__attribute__((unused)) static void deny(int syscall, int third, int code)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)syscall, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)third, 0, third == -1 ? 0 : 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    CHECK_INT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) SKIP("needs seccomp");
}

struct server {
    pid_t pid;
    int talk; /* one byte from it: it has claimed; hanging up makes it withdraw and end */
    uint64_t id;
};

struct server_options {
    uid_t uid; /* 0: stay */
    bool exclusive, fork_child;
    const char *allow;
};

/* The server's process: claims, tells, waits, closes. With fork_child it has a child that shares all its
 * descriptors but the ones for talking, and ends when SECOND hangs up. */
__attribute__((unused, noreturn)) static void serve(const char *name, struct server_options options, int talk)
{
    struct pl_allow allow;
    struct pl_claim claim;
    char byte = 0;
    CHECK_INT(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
    if (options.uid != 0) be(options.uid);
    CHECK_INT(pl_allow_parse(&allow, options.allow), 0);
    int r = pl_claim_open(&claim, name, options.exclusive, &allow);
    if (r < 0) test_fail(__FILE__, __LINE__, "claim: %s", pl_error_text());
    if (options.fork_child && fork() == 0) {
        /* Lives as long as the test's process holds the other end: the parent's death doesn't end it. */
        (void)!read(talk, &byte, 1);
        _exit(0);
    }
    CHECK_INT(write(talk, &claim.id, sizeof claim.id), sizeof claim.id);
    (void)!read(talk, &byte, 1);
    pl_claim_close(&claim);
    _exit(0);
}

__attribute__((unused)) static struct server start(const char *name, struct server_options options)
{
    struct server server = { 0 };
    int pair[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    server.pid = fork();
    if (server.pid == 0) {
        close(pair[0]);
        serve(name, options, pair[1]);
    }
    close(pair[1]);
    server.talk = pair[0];
    CHECK_INT(read(server.talk, &server.id, sizeof server.id), sizeof server.id);
    return server;
}

__attribute__((unused)) static void stop(struct server *server)
{
    CHECK_INT(shutdown(server->talk, SHUT_WR), 0);
    CHECK_INT(test_wait_child(server->pid), 0);
    pl_close(&server->talk);
}

__attribute__((unused)) static void kill_only(const struct server *server)
{
    CHECK_INT(kill(server->pid, SIGKILL), 0);
    CHECK_INT(test_wait_child(server->pid), 128 + SIGKILL);
}

__attribute__((unused)) static void kill_it(struct server *server)
{
    kill_only(server);
    pl_close(&server->talk);
}

/* How many living instances NAME has for us. */
__attribute__((unused)) static int count_of(const char *name, const char *peer)
{
    struct pl_instance *instances = NULL;
    size_t count = 0;
    int r = pl_lookup(name, peer, &instances, &count);
    if (r < 0) test_fail(__FILE__, __LINE__, "lookup: %s", pl_error_text());
    free(instances);
    return (int)count;
}

/* The only living instance of NAME. */
__attribute__((unused)) static struct pl_instance only(const char *name, const char *peer)
{
    struct pl_instance *instances = NULL, instance;
    size_t count = 0;
    CHECK_INT(pl_lookup(name, peer, &instances, &count), 0);
    CHECK_INT(count, 1);
    instance = instances[0];
    free(instances);
    return instance;
}

__attribute__((unused)) static int connect_to(const struct pl_instance *instance, const char *peer)
{
    int fd = -1;
    uid_t uid = 0;
    int r = pl_lookup_connect(instance, peer, &fd, &uid);
    if (r != 0) CHECK_INT(fd, -1);
    pl_close(&fd);
    return r;
}

#endif
