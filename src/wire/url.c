/* url: targets and listeners as text. One table of options says which exist, for which schemes,
 * and how they are read and written; errors list it, so a new option is one line.
 *
 * Text with control characters or spaces is refused first, so that everything quoted in an error
 * behind that is printable.
 */
#include "wire/url.h"
#include "base/error.h"
#include "wire/name.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { TEXT_MAX = 4095, PORT_DIGITS = 5, SCHEMES = PL_SCHEME_TLS + 1 };
static const char *const scheme_names[SCHEMES] = { "", "unix", "tcp", "udp", "tls" };
static const char *const framing_names[] = { "plait", "raw", "lines", "length" };
enum { FRAMINGS = sizeof(framing_names) / sizeof(framing_names[0]) };

const char *pl_framing_name(enum pl_framing framing)
{
    return framing_names[(unsigned)framing < FRAMINGS ? framing : 0];
}

const char *pl_url_messages(const struct pl_url *url)
{
    static const char *const texts[FRAMINGS] = { "framing=plait", "framing=raw", "framing=lines", "framing=length" };
    return url->scheme == PL_SCHEME_UDP ? "a datagram (udp://)" : texts[url->framing];
}

/* What is being parsed, for the errors: the whole text, and how much of it they show. */
struct part {
    const char *start;
    size_t size;
};
#define SHOW(part) (int)((part).size < 100 ? (part).size : 100), (part).start
enum { SHOWN = 160 };

static bool equals(struct part part, const char *word)
{
    return part.size == strlen(word) && memcmp(part.start, word, part.size) == 0;
}

/* Cuts PART at the first C: returns what lies before it, leaves what lies behind; without a C, all. */
static struct part cut(struct part *part, char c)
{
    const char *end = part->size > 0 ? memchr(part->start, c, part->size) : NULL;
    struct part head = { part->start, end != NULL ? (size_t)(end - part->start) : part->size };
    size_t taken = head.size + (end != NULL);
    part->start += taken;
    part->size -= taken;
    return head;
}

static bool contains(struct part part, char c)
{
    return part.size > 0 && memchr(part.start, c, part.size) != NULL;
}

/* ---- options ------------------------------------------------------------------------- */

static int read_framing(struct pl_url *url, struct part value, const char *text)
{
    if (url->scheme == PL_SCHEME_UDP && !equals(value, "raw"))
        return pl_error(-EINVAL,
                        "framing=%.*s in '%.*s': over udp:// a message is a datagram, which needs no framing; leave "
                        "it out, or use tcp://",
                        SHOW(value), SHOWN, text);
    for (int i = 0; i < FRAMINGS; i++) {
        if (!equals(value, framing_names[i])) continue;
        url->framing = (enum pl_framing)i;
        return 0;
    }
    char word[PLAIT_NAME_MAX + 1];
    const char *near = NULL;
    snprintf(word, sizeof(word), "%.*s", SHOW(value));
    for (int i = 0; i < FRAMINGS && near == NULL; i++)
        if (pl_name_near(word, framing_names[i])) near = framing_names[i];
    return pl_error(-EINVAL, "unknown framing '%s' in '%.*s': known are plait, raw, lines, length%s%s%s", word, SHOWN,
                    text, near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static int read_method(struct pl_url *url, struct part value, const char *text)
{
    int r = pl_name_check_method(value.start, value.size);
    if (r < 0) return pl_error_in(r, "method= in '%.*s'", SHOWN, text);
    memcpy(url->method, value.start, value.size);
    url->method[value.size] = '\0';
    return 0;
}

static int read_until(struct pl_url *url, struct part value, const char *text)
{
    if (!equals(value, "eof"))
        return pl_error(-EINVAL,
                        "until=%.*s in '%.*s': the only value is until=eof (a message ends where the peer stops "
                        "sending)",
                        SHOW(value), SHOWN, text);
    url->until_eof = true;
    return 0;
}

static int read_max_message(struct pl_url *url, struct part value, const char *text)
{
    static const char suffixes[] = "kKmMgG";
    uint64_t number = 0;
    unsigned shift = 0;
    size_t digits = 0;

    while (digits < value.size && digits < 11 && value.start[digits] >= '0' && value.start[digits] <= '9')
        number = number * 10 + (uint64_t)(value.start[digits++] - '0');
    if (digits > 0 && digits + 1 == value.size) {
        const char *suffix = strchr(suffixes, value.start[digits]);
        if (suffix != NULL) shift = 10 * (unsigned)((suffix - suffixes) / 2 + 1);
    }
    bool well_formed = digits > 0 && value.size == digits + (shift != 0);
    if (well_formed && url->scheme == PL_SCHEME_UDP && number > PLAIT_DATAGRAM_MAX >> shift)
        return pl_error(-EINVAL, "max_message=%.*s in '%.*s': a datagram holds at most %u bytes (PLAIT_DATAGRAM_MAX)",
                        SHOW(value), SHOWN, text, PLAIT_DATAGRAM_MAX);
    if (!well_formed || number == 0 || number > PLAIT_MESSAGE_MAX >> shift)
        return pl_error(-EINVAL,
                        "max_message=%.*s in '%.*s': give bytes from 1 to 1G (PLAIT_MESSAGE_MAX), as in 65536, "
                        "64k, 16M, 1G",
                        SHOW(value), SHOWN, text);
    url->max_message = number << shift;
    return 0;
}

static int read_shm(struct pl_url *url, struct part value, const char *text)
{
    if (!equals(value, "on") && !equals(value, "off"))
        return pl_error(-EINVAL, "shm=%.*s in '%.*s': give shm=on (the default) or shm=off (no shared memory)",
                        SHOW(value), SHOWN, text);
    url->shm_off = equals(value, "off");
    return 0;
}

static int read_insecure(struct pl_url *url, struct part value, const char *text)
{
    if (!equals(value, "0") && !equals(value, "1"))
        return pl_error(-EINVAL,
                        "insecure=%.*s in '%.*s': give insecure=1 (anybody who reaches the port may call) or "
                        "insecure=0 (the default)",
                        SHOW(value), SHOWN, text);
    url->insecure = equals(value, "1");
    return 0;
}

static const struct option {
    const char *name;
    unsigned schemes; /* bits: where it means something */
    int (*read)(struct pl_url *url, struct part value, const char *text);
} options[] = {
    { "framing", 1 << PL_SCHEME_TCP | 1 << PL_SCHEME_UNIX | 1 << PL_SCHEME_UDP, read_framing },
    { "method", 1 << PL_SCHEME_TCP | 1 << PL_SCHEME_UNIX | 1 << PL_SCHEME_UDP, read_method },
    { "until", 1 << PL_SCHEME_TCP | 1 << PL_SCHEME_UNIX, read_until },
    { "max_message", 1 << PL_SCHEME_TCP | 1 << PL_SCHEME_UNIX | 1 << PL_SCHEME_UDP | 1 << PL_SCHEME_NAME,
      read_max_message },
    { "insecure", 1 << PL_SCHEME_TCP | 1 << PL_SCHEME_UDP, read_insecure },
    { "shm", 1 << PL_SCHEME_UNIX | 1 << PL_SCHEME_NAME, read_shm },
};
enum { OPTIONS = sizeof(options) / sizeof(options[0]), KNOWN_MAX = 128 };

/* "framing, method, until": the options of SCHEME. */
static const char *list_options(enum pl_scheme scheme, char text[KNOWN_MAX])
{
    size_t end = 0;
    text[0] = '\0';
    for (int i = 0; i < OPTIONS; i++)
        if (options[i].schemes & 1u << scheme)
            end += (size_t)snprintf(text + end, KNOWN_MAX - end, "%s%s", end > 0 ? ", " : "", options[i].name);
    return text;
}

static int unknown_option(const struct pl_url *url, struct part name, const char *text)
{
    char known[KNOWN_MAX], word[PLAIT_NAME_MAX + 1];
    const char *near = NULL;

    list_options(url->scheme, known);
    snprintf(word, sizeof(word), "%.*s", SHOW(name));
    for (int i = 0; i < OPTIONS; i++) {
        if (equals(name, options[i].name))
            return pl_error(-EINVAL, "option '%s' in '%.*s' means nothing for %s: known are %s", word, SHOWN, text,
                            url->scheme == PL_SCHEME_NAME   ? "a service name"
                            : url->scheme == PL_SCHEME_UNIX ? "unix://"
                            : url->scheme == PL_SCHEME_UDP  ? "udp://"
                                                            : "tcp://",
                            known);
        bool fits = options[i].schemes & 1u << url->scheme;
        if (near == NULL && fits && pl_name_near(word, options[i].name)) near = options[i].name;
    }
    return pl_error(-EINVAL, "unknown option '%s' in '%.*s': known are %s%s%s%s", word, SHOWN, text, known,
                    near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static int read_option(struct pl_url *url, struct part option, unsigned *seen, const char *text)
{
    struct part value = option;
    struct part name = cut(&value, '=');
    if (option.size == 0) return pl_error(-EINVAL, "empty option in '%.*s': write ?name=value&name=value", SHOWN, text);
    for (int i = 0; i < OPTIONS; i++) {
        if (!equals(name, options[i].name) || !(options[i].schemes & 1u << url->scheme)) continue;
        if (name.size == option.size)
            return pl_error(-EINVAL, "option '%s' in '%.*s' has no value: write %s=...", options[i].name, SHOWN, text,
                            options[i].name);
        if (*seen & 1u << i)
            return pl_error(-EINVAL, "option '%s' stands twice in '%.*s': give it once", options[i].name, SHOWN, text);
        *seen |= 1u << i;
        return options[i].read(url, value, text);
    }
    return unknown_option(url, name, text);
}

static int parse_options(struct pl_url *url, struct part left, const char *text)
{
    unsigned seen = 0;
    bool more;
    do {
        more = contains(left, '&');
        int r = read_option(url, cut(&left, '&'), &seen, text);
        if (r < 0) return r;
    } while (more);
    if (url->until_eof && url->framing != PL_FRAMING_RAW)
        return pl_error(-EINVAL,
                        "until=eof in '%.*s' goes with framing=raw only: other framings say where a message ends",
                        SHOWN, text);
    return 0;
}

/* ---- host, port, path ---------------------------------------------------------------- */

/* "[v6]" or "[v6%scope]"; a scope may be written with "%25" as RFC 6874 wants it. */
static int parse_v6(struct pl_url *url, struct part host, const char *text)
{
    struct in6_addr ignored;
    char address[INET6_ADDRSTRLEN];
    bool scoped = contains(host, '%');
    struct part scope = host, number = cut(&scope, '%');

    if (scope.size > 2 && memcmp(scope.start, "25", 2) == 0) {
        scope.start += 2;
        scope.size -= 2;
    }
    snprintf(address, sizeof(address), "%.*s", (int)(number.size < sizeof(address) ? number.size : sizeof(address)),
             number.start);
    if (number.size >= sizeof(address) || inet_pton(AF_INET6, address, &ignored) != 1)
        return pl_error(-EINVAL, "'[%.*s]' in '%.*s' is no IPv6 address: write it as in [::1]", SHOW(host), SHOWN,
                        text);
    if (scoped && (scope.size == 0 || scope.size > 64 || contains(scope, '%')))
        return pl_error(-EINVAL, "'[%.*s]' in '%.*s' has no usable scope: write it as in [fe80::1%%eth0]", SHOW(host),
                        SHOWN, text);
    snprintf(url->host, sizeof(url->host), "%s%s%.*s", address, scoped ? "%" : "", scoped ? (int)scope.size : 0,
             scope.start);
    return 0;
}

static bool host_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
}

static int parse_host(struct pl_url *url, struct part host, const char *text)
{
    if (host.size == 0)
        return pl_error(-EINVAL,
                        "no host in '%.*s': write %s://127.0.0.1:PORT, %s://HOST:PORT, or %s://*:PORT to "
                        "listen on all addresses",
                        SHOWN, text, scheme_names[url->scheme], scheme_names[url->scheme], scheme_names[url->scheme]);
    if (contains(host, '@'))
        return pl_error(-EINVAL, "'%.*s' in '%.*s' has a user: plait takes none, write %s://HOST:PORT", SHOW(host),
                        SHOWN, text, scheme_names[url->scheme]);
    if (contains(host, ':'))
        return pl_error(-EINVAL,
                        "'%.*s' in '%.*s' has several colons: put an IPv6 address into brackets, as in "
                        "%s://[::1]:8888",
                        SHOW(host), SHOWN, text, scheme_names[url->scheme]);
    if (host.size >= sizeof(url->host))
        return pl_error(-EINVAL, "the host in '%.*s...' has %zu bytes: at most %zu are allowed", SHOWN, text, host.size,
                        sizeof(url->host) - 1);
    for (size_t i = 0; i < host.size && !equals(host, "*"); i++)
        if (!host_character(host.start[i]))
            return pl_error(-EINVAL,
                            "the host '%.*s' in '%.*s' has '%c': hosts are letters, digits, '.', '-', '_', or "
                            "'*' alone for all addresses",
                            SHOW(host), SHOWN, text, (unsigned char)host.start[i] < 0x80 ? host.start[i] : '?');
    memcpy(url->host, host.start, host.size);
    url->host[host.size] = '\0';
    return 0;
}

static int parse_port(struct pl_url *url, struct part port, const char *text)
{
    unsigned number = 0;
    size_t digits = 0;
    while (digits < port.size && digits < PORT_DIGITS && port.start[digits] >= '0' && port.start[digits] <= '9')
        number = number * 10 + (unsigned)(port.start[digits++] - '0');
    if (digits == 0 || digits != port.size || number > UINT16_MAX)
        return pl_error(-EINVAL,
                        "the port '%.*s' in '%.*s' is not a number from 0 to 65535 (0: the kernel chooses one)",
                        SHOW(port), SHOWN, text);
    url->port = (uint16_t)number;
    return 0;
}

static int no_port(const struct pl_url *url, const char *text)
{
    return pl_error(-EINVAL, "no port in '%.*s': write %s://HOST:PORT", SHOWN, text, scheme_names[url->scheme]);
}

/* HOST:PORT or [V6]:PORT. */
static int parse_authority(struct pl_url *url, struct part authority, const char *text)
{
    int r;
    if (authority.size > 0 && authority.start[0] == '[') {
        struct part left = { authority.start + 1, authority.size - 1 };
        if (!contains(left, ']'))
            return pl_error(-EINVAL, "the bracket in '%.*s' is not closed: write %s://[::1]:8888", SHOWN, text,
                            scheme_names[url->scheme]);
        r = parse_v6(url, cut(&left, ']'), text);
        if (r < 0) return r;
        if (left.size == 0 || left.start[0] != ':') return no_port(url, text);
        return parse_port(url, (struct part){ left.start + 1, left.size - 1 }, text);
    }
    size_t colon = authority.size;
    while (colon > 0 && authority.start[colon - 1] != ':') colon--;
    r = parse_host(url, (struct part){ authority.start, colon > 0 ? colon - 1 : authority.size }, text);
    if (r < 0) return r;
    if (colon == 0) return no_port(url, text);
    return parse_port(url, (struct part){ authority.start + colon, authority.size - colon }, text);
}

static int parse_service(struct pl_url *url, struct part name, const char *text)
{
    if (contains(name, '/'))
        return pl_error(-EINVAL, "'%.*s' in '%.*s' has a '/': a target names a service, and the call names its method",
                        SHOW(name), SHOWN, text);
    int r = pl_name_check("service", name.start, name.size);
    if (r < 0) return pl_error_in(r, "in '%.*s'", SHOWN, text);
    memcpy(url->name, name.start, name.size);
    url->name[name.size] = '\0';
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int parse_path(struct pl_url *url, struct part path, const char *text)
{
    size_t end = 0;
    if (path.size < 2 || path.start[0] != '/')
        return pl_error(-EINVAL, "'%.*s' has no absolute path: write unix:///run/app.sock, with three slashes", SHOWN,
                        text);
    for (size_t i = 0; i < path.size; i++) {
        char c = path.start[i];
        if (c == '%') {
#ifdef PLAIT_PLANT_BUG /* what fuzz_url must find: digits that nobody sent */
            size_t left = 3;
#else
            size_t left = path.size - i;
#endif
            int high = left >= 3 ? hex_digit(path.start[i + 1]) : -1;
            int low = left >= 3 ? hex_digit(path.start[i + 2]) : -1;
            if (high < 0 || low < 0 || (high | low) == 0)
                return pl_error(-EINVAL,
                                "'%.*s' has a '%%' without two hexadecimal digits (or %%00): write a '%%' of the "
                                "path as %%25",
                                SHOWN, text);
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (end == sizeof(url->path) - 1)
            return pl_error(-EINVAL, "the path in '%.*s...' is too long: at most %zu bytes are allowed", SHOWN, text,
                            sizeof(url->path) - 1);
        url->path[end++] = c;
    }
    url->path[end] = '\0';
    return 0;
}

/* ---- the whole ----------------------------------------------------------------------- */

static int foreign_scheme(struct part scheme, const char *text)
{
    if (scheme.size == 3 && strncasecmp(scheme.start, "tls", 3) == 0)
        return pl_error(-EPROTONOSUPPORT,
                        "tls:// in '%.*s' needs plait-tls, which is not installed: install it, or use "
                        "tcp:// behind a tunnel (ssh -L, stunnel)",
                        SHOWN, text);
    return pl_error(-EPROTONOSUPPORT,
                    "unknown scheme '%.*s://' in '%.*s': known are tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH, "
                    "and a service's bare name",
                    SHOW(scheme), SHOWN, text);
}

/* A bare name; what people write instead of one gets told how it is written. */
static int parse_bare(struct pl_url *url, struct part name, const char *text)
{
    if (name.size > 0 && (name.start[0] == '/' || name.start[0] == '.'))
        return pl_error(-EINVAL,
                        "'%.*s' looks like a path: write unix:// and the absolute path, as in "
                        "unix:///run/app.sock",
                        SHOWN, text);
    if (contains(name, ':'))
        return pl_error(-EINVAL, "'%.*s' is no service name: did you mean tcp://%.*s?", SHOWN, text, SHOWN, text);
    return parse_service(url, name, text);
}

static int parse_inet(struct pl_url *url, struct part place, const char *text)
{
    struct part name = place, authority = cut(&name, '/');
    int r = parse_authority(url, authority, text);
    return r < 0 || name.size == 0 ? r : parse_service(url, name, text);
}

static int check_text(const char *text)
{
    if (text == NULL || text[0] == '\0')
        return pl_error(-EINVAL, "the target is empty: give a service's name, tcp://HOST:PORT or unix:///PATH");
    size_t size = strnlen(text, TEXT_MAX + 1);
    if (size > TEXT_MAX) return pl_error(-EINVAL, "the target has more than %d bytes: is it a target?", TEXT_MAX);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f)
            return pl_error(-EINVAL, "the target has %s at position %zu: %s",
                            text[i] == ' ' ? "a space" : "a control character", i + 1,
                            text[i] == ' ' ? "write %20 inside a unix:// path"
                                           : "write it as %XX inside a unix:// path");
    return 0;
}

int pl_url_parse(struct pl_url *ret_url, const char *text)
{
    struct pl_url url = { .scheme = PL_SCHEME_NAME };
    int r = check_text(text);
    if (r < 0) return r;

    struct part left = { text, strlen(text) };
    bool has_options = contains(left, '?');
    struct part place = cut(&left, '?');
    const char *slashes = memmem(place.start, place.size, "://", 3);
    if (slashes != NULL) {
        struct part scheme = { place.start, (size_t)(slashes - place.start) };
        place.size -= scheme.size + 3;
        place.start += scheme.size + 3;
        if (scheme.size == 3 && strncasecmp(scheme.start, "tcp", 3) == 0) url.scheme = PL_SCHEME_TCP;
        else if (scheme.size == 3 && strncasecmp(scheme.start, "udp", 3) == 0) url.scheme = PL_SCHEME_UDP;
        else if (scheme.size == 4 && strncasecmp(scheme.start, "unix", 4) == 0) url.scheme = PL_SCHEME_UNIX;
        else return foreign_scheme(scheme, text);
    }

    if (url.scheme == PL_SCHEME_UDP) url.framing = PL_FRAMING_RAW; /* the only one: what one recv() gives */
    r = url.scheme == PL_SCHEME_NAME   ? parse_bare(&url, place, text)
        : url.scheme == PL_SCHEME_UNIX ? parse_path(&url, place, text)
                                       : parse_inet(&url, place, text);
    if (r == 0 && has_options) r = parse_options(&url, left, text);
    if (r < 0) return r;
    *ret_url = url;
    return 0;
}

/* ---- formatting ---------------------------------------------------------------------- */

struct writer {
    char *text;
    size_t size, end;
    unsigned options;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *writer, const char *format, ...)
{
    if (writer->end + 1 >= writer->size) return;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(writer->text + writer->end, writer->size - writer->end, format, arguments);
    va_end(arguments);
    size_t room = writer->size - writer->end - 1;
    if (length > 0) writer->end += (size_t)length < room ? (size_t)length : room;
}

static void put_path(struct writer *writer, const char *path)
{
    for (const char *c = path; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        put(writer, byte <= ' ' || byte == 0x7f || byte == '%' || byte == '?' ? "%%%02x" : "%c", byte);
    }
}

static void put_place(struct writer *writer, const struct pl_url *url)
{
    if (url->scheme == PL_SCHEME_NAME) {
        put(writer, "%s", url->name);
        return;
    }
    put(writer, "%s://", scheme_names[(unsigned)url->scheme < SCHEMES ? url->scheme : PL_SCHEME_TCP]);
    if (url->scheme == PL_SCHEME_UNIX) {
        put_path(writer, url->path);
        return;
    }
    const char *scope = strchr(url->host, '%');
    if (scope != NULL) put(writer, "[%.*s%%25%s]", (int)(scope - url->host), url->host, scope + 1);
    else if (strchr(url->host, ':') != NULL) put(writer, "[%s]", url->host);
    else put(writer, "%s", url->host);
    put(writer, ":%u", url->port);
    if (url->name[0] != '\0') put(writer, "/%s", url->name);
}

static void put_option(struct writer *writer, const char *name, const char *value)
{
    put(writer, "%c%s=%s", writer->options++ == 0 ? '?' : '&', name, value);
}

static void put_max_message(struct writer *writer, uint64_t bytes)
{
    static const char *const suffixes[] = { "", "k", "M", "G" };
    char value[32];
    unsigned unit = 0;
    while (unit < 3 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    snprintf(value, sizeof(value), "%llu%s", (unsigned long long)bytes, suffixes[unit]);
    put_option(writer, "max_message", value);
}

const char *pl_url_format(const struct pl_url *url, char *text, size_t size)
{
    struct writer writer = { .text = text, .size = size };

    if (size > 0) text[0] = '\0';
    put_place(&writer, url);
    if (url->framing != PL_FRAMING_PLAIT && url->scheme != PL_SCHEME_UDP)
        put_option(&writer, "framing", pl_framing_name(url->framing));
    if (url->method[0] != '\0') put_option(&writer, "method", url->method);
    if (url->until_eof) put_option(&writer, "until", "eof");
    if (url->max_message != 0) put_max_message(&writer, url->max_message);
    if (url->insecure) put_option(&writer, "insecure", "1");
    if (url->shm_off) put_option(&writer, "shm", "off");
    return text;
}
