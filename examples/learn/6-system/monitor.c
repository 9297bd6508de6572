/* A service that tells how this machine does, from /proc and /sys alone: cpu, memory, disk, network, processes,
 * pressure. Every answer is a JSON object. What the kernel doesn't offer is a failure that says so. */
#include <dirent.h>
#include <plait/plait.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

struct text {
    char bytes[8192];
    size_t used;
    int full; /* something had no room */
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text->bytes + text->used, sizeof(text->bytes) - text->used, format, arguments);
    va_end(arguments);
    if (n > 0 && text->used + (size_t)n < sizeof(text->bytes)) text->used += (size_t)n;
    else text->full = 1;
}

static void answer(plait_request *request, const struct text *text)
{
    if (text->full) plait_request_fail(request, 1, "more than %zu bytes to tell", sizeof(text->bytes) - 1);
    else plait_request_reply_as(request, PLAIT_JSON, text->bytes, text->used);
}

static FILE *open_or_fail(plait_request *request, const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) plait_request_fail(request, 1, "%s: this kernel doesn't offer it", path);
    return file;
}

/* Counts since boot, in ticks: who asks twice has the share in between. */
static void cpu(plait_request *request, void *context)
{
    unsigned long long user, nice, system, idle, wait, irq, softirq, steal;
    struct text text = { .used = 0 };
    FILE *file = open_or_fail(request, "/proc/stat");
    (void)context;
    if (file == NULL) return;
    if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq, &softirq,
               &steal) == 8) {
        unsigned long long busy = user + nice + system + irq + softirq + steal;
        add(&text, "{\"busy\":%llu,\"total\":%llu}", busy, busy + idle + wait);
        answer(request, &text);
    }
    fclose(file);
}

static void memory(plait_request *request, void *context)
{
    char line[256];
    unsigned long long kib, total = 0, available = 0;
    struct text text = { .used = 0 };
    FILE *file = open_or_fail(request, "/proc/meminfo");
    (void)context;
    if (file == NULL) return;
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "MemTotal: %llu", &kib) == 1) total = kib;
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1) available = kib;
    }
    fclose(file);
    add(&text, "{\"total_kib\":%llu,\"available_kib\":%llu}", total, available);
    answer(request, &text);
}

static void disk(plait_request *request, void *context)
{
    struct statvfs info;
    struct text text = { .used = 0 };
    (void)context;
    if (statvfs("/", &info) < 0) {
        plait_request_fail(request, 1, "/: no file system that tells its size");
        return;
    }
    add(&text, "{\"total_bytes\":%llu,\"available_bytes\":%llu}", (unsigned long long)info.f_blocks * info.f_frsize,
        (unsigned long long)info.f_bavail * info.f_frsize);
    answer(request, &text);
}

static void network(plait_request *request, void *context)
{
    char line[512], name[32];
    unsigned long long in, out;
    struct text text = { .used = 0 };
    FILE *file = open_or_fail(request, "/proc/net/dev");
    (void)context;
    if (file == NULL) return;
    add(&text, "{");
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, " %31[^:]: %llu %*u %*u %*u %*u %*u %*u %*u %llu", name, &in, &out) == 3)
            add(&text, "%s\"%s\":{\"in_bytes\":%llu,\"out_bytes\":%llu}", text.used > 1 ? "," : "", name, in, out);
    add(&text, "}");
    fclose(file);
    answer(request, &text);
}

static void processes(plait_request *request, void *context)
{
    unsigned count = 0, running = 0;
    struct text text = { .used = 0 };
    DIR *proc = opendir("/proc");
    (void)context;
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        char path[300], state = 0;
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file == NULL) continue; /* it has ended meanwhile */
        if (fscanf(file, "%*d (%*[^)]) %c", &state) == 1) {
            count++;
            running += state == 'R';
        }
        fclose(file);
    }
    if (proc) closedir(proc);
    add(&text, "{\"count\":%u,\"running\":%u}", count, running);
    answer(request, &text);
}

/* The share of the last 10 seconds in which somebody had to wait, in percent. */
static void pressure(plait_request *request, void *context)
{
    static const char *const names[] = { "cpu", "memory", "io" };
    struct text text = { .used = 0 };
    (void)context;
    add(&text, "{");
    for (int i = 0; i < 3; i++) {
        char path[64];
        double share = 0;
        snprintf(path, sizeof(path), "/proc/pressure/%s", names[i]);
        FILE *file = open_or_fail(request, path);
        if (file == NULL) return;
        if (fscanf(file, "some avg10=%lf", &share) == 1)
            add(&text, "%s\"%s\":%.2f", text.used > 1 ? "," : "", names[i], share);
        fclose(file);
    }
    add(&text, "}");
    answer(request, &text);
}

int main(void)
{
    static const struct {
        const char *name;
        plait_handler *handler;
    } methods[] = { { "cpu", cpu },         { "memory", memory },       { "disk", disk },
                    { "network", network }, { "processes", processes }, { "pressure", pressure } };
    plait_server *server = NULL;
    int r = plait_server_open(&server, "monitor", NULL);
    for (size_t i = 0; r == 0 && i < sizeof(methods) / sizeof(methods[0]); i++)
        r = plait_server_handle(server, methods[i].name, methods[i].handler, NULL);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fprintf(stderr, "monitor: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
