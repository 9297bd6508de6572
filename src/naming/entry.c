/* entry: reading and judging name entries. What lies in a directory may have been written by another
 * user or by a broken process: bounded, parsed line by line, never believed about liveness.
 *
 * Three questions, each right where the others are blind:
 * - Is there a write lock? The kernel takes it away at death. But a forked child shares it.
 * - Is (pid, start time) still that process? But only in the pid namespace that the pid belongs to,
 *   and only through a /proc that shows that namespace (`unshare -p` alone leaves the old one).
 * - After connect: does the process that called listen() live? (lookup.c)
 */
#include "naming/entry.h"

#include "base/error.h"
#include "base/fd.h"
#include "wire/name.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* This process's pid as the mounted /proc sees it; 0 if there is no /proc. */
static pid_t pid_in_proc(void)
{
    char text[32];
    ssize_t length = readlink("/proc/self", text, sizeof text - 1);
    if (length <= 0) return 0;
    text[length] = '\0';
    return (pid_t)strtol(text, NULL, 10);
}

uint64_t pl_entry_namespace(void)
{
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
}

void pl_entry_self(struct pl_entry *ret_entry)
{
    struct pl_entry entry = { .pid = getpid(), .uid = geteuid(), .ns = pl_entry_namespace() };
    pid_t pid = pid_in_proc();
    if (pid > 0) entry.start = pl_process_start(pid);
    pl_process_name(pid, entry.process, sizeof entry.process);
    for (char *c = entry.process; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?'; /* prctl takes any byte; a newline would add a line */
    *ret_entry = entry;
}

size_t pl_entry_format(const struct pl_entry *entry, char text[PL_ENTRY_TEXT])
{
    /* urls come last: a rewrite that is read half-way can only garble those. */
    return (size_t)snprintf(text, PL_ENTRY_TEXT,
                            "pid %d\nuid %u\nstart %" PRIu64 "\nns %" PRIu64 "\nid %016" PRIx64
                            "\n%sprocess %s\nurls %s\n",
                            (int)entry->pid, (unsigned)entry->uid, entry->start, entry->ns, entry->id,
                            entry->holds ? "holds 1\n" : "", entry->process, entry->urls);
}

/* A number in BASE up to the end of the line, at most MAX. */
static bool parse_number(const char *text, size_t size, int base, uint64_t max, uint64_t *ret_number)
{
    char copy[24], *end = NULL;
    if (size == 0 || size >= sizeof copy || strchr("0123456789abcdef", text[0]) == NULL) return false;
    memcpy(copy, text, size);
    copy[size] = '\0';
    errno = 0;
    uint64_t number = strtoull(copy, &end, base);
    if (errno != 0 || *end != '\0' || number > max) return false;
    *ret_number = number;
    return true;
}

static void parse_text(const char *text, size_t size, char *copy, size_t room)
{
    if (size >= room) size = room - 1;
    for (size_t i = 0; i < size; i++) copy[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
    copy[size] = '\0';
}

/* One "key value" line; false: a known key with a bad value. Unknown keys are from a later version. */
static bool parse_line(struct pl_entry *entry, unsigned *seen, const char *line, size_t size)
{
    static const char *const keys[] = { "pid ", "uid ", "start ", "ns ", "id ", "process ", "urls ", "holds " };
    uint64_t number = 0;
    unsigned key = 0;
    while (key < 8 && (size < strlen(keys[key]) || memcmp(line, keys[key], strlen(keys[key])) != 0)) key++;
    if (key == 8) return true;
    line += strlen(keys[key]);
    size -= strlen(keys[key]);
    *seen |= 1u << key;
    switch (key) {
    case 0:
        if (!parse_number(line, size, 10, INT32_MAX, &number) || number == 0) return false;
        entry->pid = (pid_t)number;
        return true;
    case 1:
        if (!parse_number(line, size, 10, UINT32_MAX, &number)) return false;
        entry->uid = (uid_t)number;
        return true;
    case 2: return parse_number(line, size, 10, UINT64_MAX, &entry->start);
    case 3: return parse_number(line, size, 10, UINT64_MAX, &entry->ns);
    case 4: return parse_number(line, size, 16, UINT64_MAX, &entry->id);
    case 5: parse_text(line, size, entry->process, sizeof entry->process); return true;
    case 6: parse_text(line, size, entry->urls, sizeof entry->urls); return true;
    default:
        if (!parse_number(line, size, 10, 1, &number)) return false;
        entry->holds = number != 0;
        return true;
    }
}

int pl_entry_parse(struct pl_entry *ret_entry, const char *text)
{
    struct pl_entry entry = { 0 };
    unsigned seen = 0;
    while (*text != '\0' && (seen & 1u << 6) == 0) { /* nothing is read behind the urls */
        const char *end = strchrnul(text, '\n');
        if (!parse_line(&entry, &seen, text, (size_t)(end - text))) return -EBADMSG;
        text = *end == '\0' ? end : end + 1;
    }
    if ((seen & 0x17) != 0x17) return -EBADMSG; /* pid, uid, start, id */
    *ret_entry = entry;
    return 0;
}

bool pl_entry_split(const char *file, char name[PLAIT_NAME_MAX + 1], uint64_t *ret_id, bool *ret_hidden)
{
    bool hidden = file[0] == '.';
    file += hidden;
    const char *at = strchr(file, '@');
    if (at == NULL || strlen(at) != 17 || strspn(at + 1, "0123456789abcdef") != 16) return false;
    size_t size = (size_t)(at - file);
    if (!pl_name_valid(file, size)) return false;
    memcpy(name, file, size);
    name[size] = '\0';
    *ret_id = strtoull(at + 1, NULL, 16);
    *ret_hidden = hidden;
    return true;
}

int pl_entry_open(int folder_fd, const char *file, uid_t owner, int *ret_fd)
{
    struct stat status;
    /* NONBLOCK: a fifo in its place must not hold us. */
    int fd PL_AUTO_CLOSE = openat(folder_fd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return pl_error(-errno, "%s: %s", file, pl_error_word(errno));
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != owner) return -ENOENT;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int pl_entry_lock(int fd, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

/* Only write locks count: anyone who may read a file can lock it for reading. */
bool pl_entry_locked(int fd)
{
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* True if PID exists no more or is no more than a zombie, or is another process than the one that began at
 * START (0: unknown). What can't be found out counts as life: descriptors may have run out. */
static bool process_gone(pid_t pid, uint64_t start)
{
    char path[32], text[1024], state = '?';
    unsigned long threads = 0;
    unsigned long long began = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    ssize_t size = pl_fd_read_text(AT_FDCWD, path, text, sizeof text);
    /* No such file: it went meanwhile, or /proc hides other users' processes (hidepid). */
    if (size == -ENOENT || size == -ESRCH) return kill(pid, 0) < 0 && errno == ESRCH;
    const char *fields = size > 0 ? strrchr(text, ')') : NULL; /* the last: the name before it may hold any byte */
    if (fields == NULL ||
        sscanf(fields + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %*s %llu", &state,
               &threads, &began) != 3)
        return false;
    if ((state == 'Z' || state == 'X') && threads <= 1) return true; /* more: only its first thread has ended */
    return start != 0 && began != start;
}

/* True only where it is certain that the process no longer exists. */
static bool gone(const struct pl_entry *entry)
{
    if (entry->ns == 0 || entry->ns != pl_entry_namespace()) return false;
    if (kill(entry->pid, 0) < 0 && errno == ESRCH) return true;
    return pid_in_proc() == getpid() && process_gone(entry->pid, entry->start);
}

enum pl_entry_verdict pl_entry_judge(int fd, struct pl_entry *ret_entry)
{
    struct pl_entry entry;
    char text[PL_ENTRY_TEXT];
    if (!pl_entry_locked(fd)) return PL_ENTRY_DEAD;
    ssize_t size = pread(fd, text, sizeof text - 1, 0);
    if (size <= 0) return PL_ENTRY_UNCLEAR;
    text[size] = '\0';
    if (pl_entry_parse(&entry, text) < 0) return PL_ENTRY_UNCLEAR;
    if (gone(&entry)) return PL_ENTRY_DEAD;
    *ret_entry = entry;
    return PL_ENTRY_ALIVE;
}

bool pl_entry_same(int folder_fd, const char *file, int fd)
{
    struct stat there, here;
    return fstatat(folder_fd, file, &there, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &here) == 0 &&
           there.st_ino == here.st_ino && there.st_dev == here.st_dev;
}
