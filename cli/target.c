/* target: one pass over the path, one over the options. */
#include "target.h"
#include "command.h"
#include <plait/plait.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static int set_method(struct target *target, const char *verb, const char *text, size_t size)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

    if (target->method[0]) {
        command_usage(verb, "the target names two methods: %s and %.*s", target->method, (int)size, text);
        return -1;
    }
    if (size == 0 || size > PLAIT_NAME_MAX || strspn(text, letters) < size || text[0] == '.' || text[0] == '-') {
        command_usage(verb,
                      "the method '%.*s': names are 1 to 100 letters, digits and '_', and behind the first also '.' "
                      "and '-'",
                      (int)size, text);
        return -1;
    }
    memcpy(target->method, text, size);
    target->method[size] = 0;
    return 0;
}

/* The '/' before the method in what stands before the '?', or NULL: the first one of a name, the second one
 * behind tcp://host:port. A path of a Unix socket names none. */
static const char *method_slash(const char *text, size_t size)
{
    const char *scheme = memmem(text, size, "://", 3), *slash;

    if (!scheme) return memchr(text, '/', size);
    if (strncmp(text, "unix:", 5) == 0) return NULL;
    scheme += 3;
    slash = memchr(scheme, '/', size - (size_t)(scheme - text));
    if (slash) slash = memchr(slash + 1, '/', size - (size_t)(slash + 1 - text));
    return slash;
}

/* Whether what OPTIONS of TEXT say has a place for a method's name. */
static bool carries_method(const char *text, const char *options)
{
    const char *framing = strstr(options, "framing=");

    if (strncasecmp(text, "udp:", 4) == 0) return false;
    return !framing || strncmp(framing + 8, "plait", 5) == 0;
}

int target_parse(struct target *ret_target, const char *verb, const char *text)
{
    struct target target = { "", "" };
    size_t head = strcspn(text, "?"), used;
    const char *slash = method_slash(text, head), *option = text + head;
    bool first = true;

    if (strlen(text) >= TARGET_MAX) {
        command_usage(verb, "the target is longer than %d bytes", TARGET_MAX - 1);
        return -1;
    }
    if (slash && set_method(&target, verb, slash + 1, head - (size_t)(slash + 1 - text)) < 0) return -1;
    used = slash ? (size_t)(slash - text) : head;
    memcpy(target.address, text, used);
    while (*option) {
        size_t size = strcspn(++option, "&");
        /* The URL that a raw, lines, length or udp listener prints can be called as it is: its method is the
         * listener's. */
        if (strncmp(option, "method=", 7) == 0 && size > 7 && carries_method(text, text + head)) {
            if (set_method(&target, verb, option + 7, size - 7) < 0) return -1;
        } else {
            target.address[used++] = first ? '?' : '&';
            memcpy(target.address + used, option, size);
            used += size;
            first = false;
        }
        option += size;
    }
    target.address[used] = 0;
    *ret_target = target;
    return 0;
}
