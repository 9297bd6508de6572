/* holder: the kernel's table of sockets tells the inode of the listener, and /proc whose descriptor that is. */
#include "holder.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTENING 0x0a /* in /proc/net/tcp: TCP_LISTEN */

/* The port in tcp://HOST:PORT[/...][?...]; 0: none. */
static unsigned port_of(const char *url)
{
    char host_and_port[300];
    if (strncmp(url, "tcp://", 6) != 0) return 0;
    snprintf(host_and_port, sizeof(host_and_port), "%.*s", (int)strcspn(url + 6, "/?"), url + 6);
    const char *colon = strrchr(host_and_port, ':');
    return colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
}

static unsigned long listener_in(const char *table, unsigned port)
{
    char line[512];
    unsigned long inode = 0;
    FILE *file = fopen(table, "re");
    if (!file) return 0;
    while (inode == 0 && fgets(line, sizeof(line), file)) {
        unsigned local, state;
        unsigned long found;
        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*s %*s %lu", &local, &state, &found) == 3 &&
            local == port && state == LISTENING)
            inode = found;
    }
    fclose(file);
    return inode;
}

static bool has_socket(const char *pid, const char *wanted)
{
    char path[300], link[64];
    struct dirent *entry;
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    DIR *directory = opendir(path);
    if (!directory) return false;
    while (!found && (entry = readdir(directory)) != NULL) {
        ssize_t size = readlinkat(dirfd(directory), entry->d_name, link, sizeof(link) - 1);
        link[size > 0 ? size : 0] = 0;
        found = strcmp(link, wanted) == 0;
    }
    closedir(directory);
    return found;
}

/* The first process with a descriptor of the socket, and its name; false: none that we may look into. */
static bool find_process(unsigned long inode, long *ret_pid, char name[64])
{
    char wanted[64], path[64];
    struct dirent *entry;
    long pid = 0;
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    DIR *proc = opendir("/proc");
    if (!proc) return false;
    while (pid == 0 && (entry = readdir(proc)) != NULL)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && has_socket(entry->d_name, wanted))
            pid = strtol(entry->d_name, NULL, 10);
    closedir(proc);
    if (pid == 0) return false;
    snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(name, 64, file)) snprintf(name, 64, "ended");
    if (file) fclose(file);
    name[strcspn(name, "\n")] = 0;
    *ret_pid = pid;
    return true;
}

bool holder_of(const char *url, char *text, size_t size)
{
    unsigned port = port_of(url);
    unsigned long inode = port ? listener_in("/proc/net/tcp", port) : 0;
    char name[64];
    long pid;
    if (port && inode == 0) inode = listener_in("/proc/net/tcp6", port);
    if (inode == 0) return false;
    if (find_process(inode, &pid, name)) snprintf(text, size, "port %u is held by process %ld (%s)", port, pid, name);
    else snprintf(text, size, "port %u is held by another user's process", port);
    return true;
}
