/* message: see message.h. */
#include "message.h"
#include "command.h"
#include "output.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const encoding_names[] = { "bytes", "utf8", "json", "array", NULL };

/* ---- DATA --------------------------------------------------------------------------- */

/* Standard input to its end: false after saying what is wrong. The buffer doubles, so that 1 GiB costs no more than
 * twice its copy. */
static bool read_input(char **ret_bytes, size_t *ret_size)
{
    size_t room = 65536, size = 0;
    char *bytes = malloc(room);
    ssize_t n = 1;

    while (bytes && n != 0) {
        if (size == room) {
            char *larger = realloc(bytes, room * 2);
            if (!larger) break;
            bytes = larger;
            room *= 2;
        }
        n = read(STDIN_FILENO, bytes + size, room - size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            complain("standard input: %s (give DATA as an argument, or redirect standard input)", strerror(errno));
            free(bytes);
            return false;
        }
        size += (size_t)n;
        if (size > PLAIT_MESSAGE_MAX) {
            complain("standard input: longer than a message may be (PLAIT_MESSAGE_MAX, 1 GiB)");
            free(bytes);
            return false;
        }
    }
    if (!bytes || n != 0) {
        complain("standard input: no memory for more than %zu bytes", size);
        free(bytes);
        return false;
    }
    *ret_bytes = bytes;
    *ret_size = size;
    return true;
}

int data_take(struct data *ret_data, const char *verb, int argc, char **argv, int literal)
{
    struct data data = { .bytes = "" };

    if (argc > 3) return command_usage(verb, "%s: only one DATA; quote data that has spaces", argv[3]);
    if (argc == 3 && literal > 2 && strcmp(argv[2], "-") == 0) {
        if (!read_input(&data.owned, &data.size)) return STATUS_FAILED;
        data.bytes = data.owned;
    } else if (argc == 3) {
        data.bytes = argv[2];
        data.size = strlen(argv[2]);
    }
    *ret_data = data;
    return STATUS_OK;
}

/* ---- bodies ------------------------------------------------------------------------- */

void print_body(plait_bytes body)
{
    const char *bytes = body.data;

    errno = 0;
    if (body.size > 0) fwrite(bytes, 1, body.size, stdout);
    if (output_failed()) return; /* noted before isatty() has an errno of its own */
    if (isatty(STDOUT_FILENO) && (body.size == 0 || bytes[body.size - 1] != '\n')) putchar('\n');
    fflush(stdout);
}

void json_body(plait_bytes body)
{
    json_number("size", body.size);
    if (utf8_valid(body.data, body.size)) json_bytes("text", body.data, body.size);
    else json_base64("base64", body.data, body.size);
}

/* ---- listeners ---------------------------------------------------------------------- */

/* What somebody who starts a listener may not have thought of. */
static const char *remark(const char *url)
{
    const char *host = strstr(url, "://");

    if ((strncmp(url, "tcp:", 4) != 0 && strncmp(url, "udp:", 4) != 0) || !host) return "";
    host += 3;
    if (strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0 || strncmp(host, "localhost", 9) == 0)
        return " (admits every local user)";
    return " (admits everybody who can reach it, unencrypted)";
}

void announce_listener(const char *url, bool json)
{
    if (json) {
        json_begin("listening");
        json_text("url", url);
        json_end();
        return;
    }
    printf("listening on %s%s\n", url, remark(url));
    fflush(stdout);
}

/* ---- the library's log -------------------------------------------------------------- */

static void say_line(plait_log_level level, const char *line, void *most)
{
    if (level <= *(const plait_log_level *)most) complain("%s", line);
}

void log_complaints(plait_log_level level)
{
    static plait_log_level most;

    most = level;
    if (!getenv("PLAIT_LOG")) plait_set_log(say_line, &most);
}
