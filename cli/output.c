/* output: stdio with manners. */
#include "output.h"
#include "command.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int write_errno; /* of standard output; 0: all is well */

void output_init(void)
{
    /* Opened the wrong way round on purpose: reading from a closed standard input and writing to a closed
     * standard output stay errors, as they would be without the substitute. */
    static const int modes[] = { O_WRONLY, O_RDONLY, O_RDWR };

    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF) (void)!open("/dev/null", modes[fd]);
    }
    signal(SIGPIPE, SIG_IGN);
}

void complain(const char *format, ...)
{
    char text[4096];
    va_list list;
    int n;

    fflush(stdout);
    va_start(list, format);
    n = vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    if (n < 0) return;
    flockfile(stderr);
    fputs("plait: ", stderr);
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 && *p != '\n' && *p != '\t') putc('?', stderr);
        else putc(*p, stderr);
    }
    putc('\n', stderr);
    funlockfile(stderr);
}

bool output_failed(void)
{
    if (write_errno == 0 && ferror(stdout)) write_errno = errno ? errno : EIO;
    return write_errno != 0;
}

int output_finish(int status)
{
    if (write_errno == 0 && fflush(stdout) != 0) write_errno = errno ? errno : EIO;
    if (!output_failed() || status != STATUS_OK) return status;
    if (write_errno == EPIPE) return STATUS_OK;
    complain("standard output: %s (not everything was written)", strerror(write_errno));
    return STATUS_FAILED;
}

/* ---- JSON --------------------------------------------------------------------------- */

static void put(const char *text)
{
    errno = 0;
    if (fputs(text, stdout) == EOF && write_errno == 0) write_errno = errno ? errno : EIO;
}

/* The length of the well-formed UTF-8 sequence at P (1 to 4), or 0: no overlong forms, no surrogates. */
static size_t sequence(const unsigned char *p, size_t left)
{
    size_t size = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : 4;

    if (size == 1) return 1;
    if (*p < 0xc2 || *p > 0xf4 || left < size) return 0;
    for (size_t i = 1; i < size; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f)) return 0;
    if ((*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f)) return 0;
    return size;
}

bool utf8_valid(const void *data, size_t size)
{
    const unsigned char *p = data;

    while (size > 0) {
        size_t n = sequence(p, size);
        if (n == 0) return false;
        p += n;
        size -= n;
    }
    return true;
}

static void put_string(const void *data, size_t size)
{
    const unsigned char *p = data;

    put("\"");
    while (size > 0) {
        size_t n = sequence(p, size);
        if (n == 0) put("\\ufffd");
        else if (*p == '"' || *p == '\\') printf("\\%c", *p);
        else if (*p == '\n') put("\\n");
        else if (*p < 0x20 || *p == 0x7f) printf("\\u%04x", *p);
        else fwrite(p, 1, n, stdout);
        n = n ? n : 1;
        p += n;
        size -= n;
    }
    put("\"");
}

static void put_key(const char *key)
{
    put(",\"");
    put(key);
    put("\":");
}

void json_begin(const char *kind)
{
    put("{\"kind\":\"");
    put(kind);
    put("\"");
}

void json_bytes(const char *key, const void *data, size_t size)
{
    put_key(key);
    put_string(data, size);
}

void json_text(const char *key, const char *value)
{
    put_key(key);
    if (value) put_string(value, strlen(value));
    else put("null");
}

void json_base64(const char *key, const void *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;

    put_key(key);
    put("\"");
    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)p[i] << 16;
        bits |= i + 1 < size ? (uint32_t)p[i + 1] << 8 : 0;
        bits |= i + 2 < size ? p[i + 2] : 0;
        putchar(digits[bits >> 18]);
        putchar(digits[bits >> 12 & 63]);
        putchar(i + 1 < size ? digits[bits >> 6 & 63] : '=');
        putchar(i + 2 < size ? digits[bits & 63] : '=');
    }
    put("\"");
}

void json_number(const char *key, uint64_t value)
{
    put_key(key);
    printf("%llu", (unsigned long long)value);
}

void json_integer(const char *key, int64_t value)
{
    put_key(key);
    printf("%lld", (long long)value);
}

void json_decimal(const char *key, double value)
{
    put_key(key);
    printf("%.1f", value);
}

void json_bool(const char *key, bool value)
{
    put_key(key);
    put(value ? "true" : "false");
}

void json_id(const char *key, uint64_t value)
{
    put_key(key);
    printf("\"%016llx\"", (unsigned long long)value);
}

static bool array_empty;

void json_array(const char *key)
{
    put_key(key);
    put("[");
    array_empty = true;
}

void json_item(const char *data, size_t size)
{
    put(array_empty ? "" : ",");
    put_string(data, size);
    array_empty = false;
}

void json_array_end(void)
{
    put("]");
}

void json_words(const char *key, const char *words)
{
    json_array(key);
    for (const char *p = words + strspn(words, " "); *p; p += strspn(p, " ")) {
        size_t size = strcspn(p, " ");
        json_item(p, size);
        p += size;
    }
    json_array_end();
}

void json_end(void)
{
    put("}\n");
    errno = 0;
    if (fflush(stdout) != 0 && write_errno == 0) write_errno = errno ? errno : EIO;
}

/* ---- tables ------------------------------------------------------------------------- */

void print_clean(FILE *file, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;

    while (*p) {
        size_t n = sequence(p, strlen((const char *)p));
        bool control = *p < 0x20 || *p == 0x7f || (*p == 0xc2 && n == 2 && p[1] < 0xa0);
        if (n == 0 || control) putc('?', file);
        else fwrite(p, 1, n, file);
        p += n ? n : 1;
    }
}

/* Characters, which for the names that appear here is near enough to columns. */
static int width(const char *text)
{
    int n = 0;

    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

static void add(struct table *table, char *cell)
{
    if (table->count == table->room) {
        table->room = table->room ? table->room * 2 : 64;
        table->cells = realloc(table->cells, table->room * sizeof(*table->cells));
    }
    if (!cell || !table->cells) {
        complain("no memory for a table");
        exit(STATUS_FAILED);
    }
    table->cells[table->count++] = cell;
}

void table_init(struct table *table, const char *heads)
{
    memset(table, 0, sizeof(*table));
    while (table->columns < TABLE_COLUMNS_MAX) {
        size_t size = strcspn(heads, "|");
        bool right = *heads == '>';
        table->right[table->columns++] = right;
        add(table, strndup(heads + right, size - right));
        if (!heads[size]) break;
        heads += size + 1;
    }
}

void table_add(struct table *table, const char *format, ...)
{
    char *cell = NULL;
    va_list list;

    va_start(list, format);
    if (vasprintf(&cell, format, list) < 0) cell = NULL;
    va_end(list);
    add(table, cell);
}

void table_print(struct table *table)
{
    int widths[TABLE_COLUMNS_MAX] = { 0 };

    for (size_t i = 0; i < table->count; i++) {
        int *w = &widths[i % (size_t)table->columns], n = width(table->cells[i]);
        if (n > *w) *w = n;
    }
    for (size_t i = 0; i < table->count && !output_failed(); i++) {
        int column = (int)(i % (size_t)table->columns), pad = widths[column] - width(table->cells[i]);
        bool last = column == table->columns - 1;
        if (table->right[column]) printf("%*s", pad, "");
        print_clean(stdout, table->cells[i]);
        if (last) putchar('\n');
        else printf("%*s", table->right[column] ? 2 : pad + 2, "");
    }
    table_free(table);
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->count; i++) free(table->cells[i]);
    free(table->cells);
    memset(table, 0, sizeof(*table));
}

const char *age_text(uint64_t ms, char text[16])
{
    struct timespec now;
    int64_t seconds;

    clock_gettime(CLOCK_REALTIME, &now);
    seconds = (int64_t)now.tv_sec - (int64_t)(ms / 1000);
    if (seconds < 0) seconds = 0; /* a clock that was set back */
    if (seconds < 120) snprintf(text, 16, "%d s", (int)seconds);
    else if (seconds < 7200) snprintf(text, 16, "%d min", (int)(seconds / 60));
    else if (seconds < 172800) snprintf(text, 16, "%d h", (int)(seconds / 3600));
    else snprintf(text, 16, "%d d", (int)(seconds / 86400 % 1000000));
    return text;
}
