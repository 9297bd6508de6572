/* looking: what /proc, the runtime directory and the status pages say of other processes. */
#include "system/system.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t count_entries(const char *path)
{
    size_t count = 0;
    DIR *listing = opendir(path);
    if (listing == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(listing));) count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

size_t fds_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    return count_entries(path);
}

/* "6 anon_inode:[eventpoll], ..." */
static void list_fds(pid_t pid, char *text, size_t size)
{
    char path[300], target[100];
    size_t used = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *listing = opendir(path);
    if (listing == NULL) return;
    for (struct dirent *entry; (entry = readdir(listing)) && used < size;) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n > 0) used += (size_t)snprintf(text + used, size - used, "%s %.*s, ", entry->d_name, (int)n, target);
    }
    closedir(listing);
}

void await_fds(pid_t pid, size_t most)
{
    char text[900] = "";
    int64_t until = now_ms() + PATIENCE_MS;
    while (fds_of(pid) > most && now_ms() < until) pause_ms(1);
    if (fds_of(pid) <= most) return;
    list_fds(pid, text, sizeof(text));
    test_fail(__FILE__, __LINE__, "process %d should have %zu descriptors and has %s", (int)pid, most, text);
}

size_t mappings_of(pid_t pid)
{
    char line[1024];
    size_t count = 0;
    snprintf(line, sizeof(line), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(line, "re");
    if (maps == NULL) return 0;
    while (fgets(line, sizeof(line), maps)) {
        const char *mode = strchr(line, ' ');
        count += mode && strlen(mode) > 4 && mode[4] == 's';
    }
    fclose(maps);
    return count;
}

size_t entries_of_names(void)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/services", getenv("PLAIT_DIR"));
    size_t count = count_entries(path);
    snprintf(path, sizeof(path), "%s/s", getenv("PLAIT_DIR"));
    return count + count_entries(path);
}

char state_of(pid_t pid)
{
    char text[512] = "";
    snprintf(text, sizeof(text), "/proc/%d/stat", (int)pid);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *end = strrchr(text, ')');
    return end && end[1] ? end[2] : 0;
}

uint64_t switches_of(pid_t pid)
{
    char path[400], line[256];
    uint64_t sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, entry->d_name);
        FILE *status = fopen(path, "re");
        if (status == NULL) continue;
        unsigned long long value;
        while (fgets(line, sizeof(line), status))
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &value) == 1) sum += value;
        fclose(status);
    }
    closedir(tasks);
    return sum;
}

/* ---- the status page ---- */

static uint64_t u64_at(const uint8_t *bytes, size_t at)
{
    uint64_t value;
    memcpy(&value, bytes + at, sizeof(value));
    return value;
}

static uint32_t u32_at(const uint8_t *bytes, size_t at)
{
    uint32_t value;
    memcpy(&value, bytes + at, sizeof(value));
    return value;
}

/* The sum over the service and its connections in one page. */
static uint64_t counter_in_page(const uint8_t *page, size_t size, const char *service, const char *counter)
{
    size_t place = 0;
    uint64_t sum = 0, id = 0;
    while (place < 16 && strncmp((const char *)page + 160 + place * 24, counter, 24) != 0) place++;
    if (place == 16) return 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t at = u32_at(page, 12); at + 64 <= size && u32_at(page, at) != 0;) {
            uint32_t kind = u32_at(page, at), slot_size = u32_at(page, at + 4), count = u32_at(page, at + 8);
            for (uint32_t i = 0; i < count; i++) {
                const uint8_t *slot = page + at + u32_at(page, at + 12) + (size_t)i * slot_size;
                if (kind == 2 && pass == 0 && u64_at(slot, 8) && strcmp((const char *)slot + 48, service) == 0) {
                    id = u64_at(slot, 8);
                    sum += u64_at(slot, 256 + place * 8) + u64_at(slot, 384 + place * 8);
                } else if (kind == 3 && pass == 1 && u64_at(slot, 8) && id && u64_at(slot, 16) == id) {
                    sum += u64_at(slot, 128 + place * 8);
                }
            }
            if (u64_at(page, at + 16) == 0) break;
            at += u64_at(page, at + 16);
        }
    }
    return sum;
}

uint64_t counter_of(const char *service, const char *counter)
{
    char path[900], folder[600];
    struct stat status;
    uint64_t sum = 0;
    snprintf(folder, sizeof(folder), "%s/status", getenv("PLAIT_DIR"));
    DIR *listing = opendir(folder);
    if (listing == NULL) {
        CHECK_INT(stat(getenv("PLAIT_DIR"), &status), 0);
        snprintf(folder, sizeof(folder), "/dev/shm/plait-%llx-%llx", (unsigned long long)status.st_dev,
                 (unsigned long long)status.st_ino);
        listing = opendir(folder);
    }
    if (listing == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(listing));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &status) < 0) continue;
        uint8_t *page = malloc((size_t)status.st_size);
        CHECK(page != NULL);
        if (read(fd, page, (size_t)status.st_size) == status.st_size)
            sum += counter_in_page(page, (size_t)status.st_size, service, counter);
        free(page);
        close(fd);
    }
    closedir(listing);
    return sum;
}
