/* plait get: what a web browser does first, and no more: one GET over a plain socket, the answer as it came.
 *
 * A call with the raw framing and until=eof: the request, then our half of the stream ends, then all that
 * comes until the other half does. Nothing is followed, decoded or left out.
 */
#include "command.h"
#include "message.h"
#include "output.h"
#include <plait/plait.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { PLACE_MAX = 300, URL_MAX = 2000, TARGET_ROOM = PLACE_MAX + 64, REQUEST_ROOM = URL_MAX + PLACE_MAX + 128 };

static int64_t timeout = 30000;

struct page {
    char target[TARGET_ROOM];
    char request[REQUEST_ROOM];
};

/* The ':' before the port, or NULL: an IPv6 address has others. */
static const char *find_port(const char *place, size_t size)
{
    const char *bracket = memrchr(place, ']', size);
    size_t skip = bracket ? (size_t)(bracket - place) : 0;

    return memchr(place + skip, ':', size - skip);
}

/* Usage errors are said; then -1. */
static int parse(struct page *ret_page, const char *url)
{
    const char *place = url + 7, *path, *port;
    size_t place_size, path_size;

    if (strncasecmp(url, "https://", 8) == 0)
        command_usage("get", "%s: https needs TLS, which is not built: ask for http://, or put a TLS tunnel before it",
                      url);
    else if (strncasecmp(url, "http://", 7) != 0) command_usage("get", "%s: write http://HOST[:PORT]/PATH", url);
    else if (strlen(url) > URL_MAX) command_usage("get", "the URL is longer than %d bytes", URL_MAX);
    else {
        for (const char *c = url; *c; c++)
            if ((unsigned char)*c <= ' ' || *c == 0x7f) {
                command_usage("get", "the URL has a space or a control character: write it as %%20, %%0A, ...");
                return -1;
            }
        place_size = strcspn(place, "/?#");
        path = place + place_size;
        path_size = strcspn(path, "#"); /* what is behind is for browsers alone */
        port = find_port(place, place_size);
        if (place_size == 0 || place_size > PLACE_MAX || memchr(place, '@', place_size)) {
            command_usage("get", "%s: write http://HOST[:PORT]/PATH, with a host and without a user", url);
            return -1;
        }
        /* max_message: an answer is as long as it is. */
        snprintf(ret_page->target, sizeof(ret_page->target), "tcp://%.*s%s?framing=raw&until=eof&max_message=1G",
                 (int)place_size, place, port ? "" : ":80");
        snprintf(
            ret_page->request, sizeof(ret_page->request),
            "GET %s%.*s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: plait/%s\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            *path == '/' ? "" : "/", (int)path_size, path, (int)place_size, place, PLAIT_VERSION);
        return 0;
    }
    return -1;
}

static int get(const struct page *page, const char *url)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    plait_client *client = NULL;
    plait_reply *reply = NULL;
    int r, status = STATUS_OK;

    options.connect_timeout = options.timeout = timeout;
    r = plait_client_open(&client, page->target, &options);
    if (r == 0) r = plait_client_call(client, "", page->request, strlen(page->request), NULL, &reply);
    if (r < 0) {
        status = (int)command_failed(r, "%s", url);
    } else if (plait_reply_body(reply).size == 0) {
        complain("%s: the server closed the connection without an answer (does it speak HTTP there?)", url);
        status = STATUS_REFUSED;
    } else {
        print_body(plait_reply_body(reply));
    }
    plait_reply_free(reply);
    plait_client_close(client);
    return status;
}

static int run(int argc, char **argv)
{
    struct page page;

    if (argc < 2) return command_usage("get", "which URL?");
    if (argc > 2) return command_usage("get", "%s: only one URL", argv[2]);
    if (parse(&page, argv[1]) < 0) return STATUS_USAGE;
    return get(&page, argv[1]);
}

static const struct option options[] = {
    { .name = "--timeout",
      .argument = "T",
      .kind = OPTION_DURATION,
      .value = &timeout,
      .help = "give up after T for connecting and T for the answer (default 30s)" },
    { .name = NULL },
};

const struct command command_get = {
    .name = "get",
    .arguments = "URL",
    .summary = "ask a web server for a page and print the answer as it came",
    .options = options,
    .text = "Connects to http://HOST[:PORT]/PATH, sends GET, and prints whatever comes until the server closes:\n"
            "the status line, the headers and the body as they are. Nothing is followed or decoded, and the\n"
            "exit status says only whether an answer came: 404 is one. https:// needs TLS and is refused.\n"
            "\n"
            "The same by hand, over any plain socket:\n"
            "  printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | nc localhost 8000\n"
            "  plait call 'tcp://localhost:8000?framing=raw&until=eof' - < request\n",
    .run = run,
};
