/* plait ls: who serves what, read from the status pages: right also while a server is stopped or busy. */
#include "command.h"
#include "output.h"
#include <plait/plait.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

static bool json;

/* The methods' names one after the other; *at begins as i->methods and moves on. NULL: no more. The default method has
 * no name, which the page writes as two quotes: it is a word of size 0. */
static const char *next_method(const char **at, size_t *ret_size)
{
    const char *word = *at + strspn(*at, " ");
    size_t size = strcspn(word, " ");

    *at = word + size;
    *ret_size = size == 2 && memcmp(word, "\"\"", 2) == 0 ? 0 : size;
    return size > 0 ? word : NULL;
}

/* ---- JSON --------------------------------------------------------------------------- */

/* Who it is that serves, or publishes. */
static void json_process(const plait_watch_instance *i)
{
    json_id("id", i->id);
    json_integer("pid", i->pid);
    json_number("uid", i->uid);
    json_text("process", i->process);
    json_text("language", i->language);
    json_text("version", i->version);
    json_number("started_ms", i->started_ms);
    json_text("directory", i->directory);
    json_words("urls", i->urls);
}

static void json_instance(const plait_watch_instance *i)
{
    size_t size;

    json_begin("instance");
    json_text("service", i->service);
    json_process(i);
    json_array("methods");
    for (const char *at = i->methods, *word; (word = next_method(&at, &size));) json_item(word, size);
    json_array_end();
    json_integer("threads", i->threads);
    json_bool("stopped", i->stopped);
    json_number("clients", i->connection_count);
    json_number("requests", i->requests);
    json_number("failures", i->failures);
    json_number("dropped", i->dropped);
    json_number("bytes_in", i->bytes_in);
    json_number("bytes_out", i->bytes_out);
    json_number("protocol_errors", i->protocol_errors);
    json_number("lost", i->lost);
    json_number("busy_us", i->busy_us);
    if (i->worker) {
        json_integer("supervisor", i->supervisor);
        json_number("worker", i->worker);
        json_number("restarts", i->restarts);
    }
    json_end();
}

static void json_methods(const plait_watch_instance *i)
{
    size_t size;

    for (const char *at = i->methods, *word; (word = next_method(&at, &size));) {
        json_begin("method");
        json_text("service", i->service);
        json_integer("pid", i->pid);
        json_bytes("method", word, size);
        json_end();
    }
}

static void json_peer(const plait_watch_connection *c)
{
    if (c->peer_pid) json_integer("peer_pid", c->peer_pid);
    if (c->peer_uid != UINT32_MAX) json_number("peer_uid", c->peer_uid);
    json_text("peer", c->peer);
    json_text("transport", c->transport);
}

static void json_connection(const plait_watch_instance *i, const plait_watch_connection *c)
{
    json_begin("connection");
    json_text("service", i->service);
    json_integer("pid", i->pid);
    json_number("connection", c->id);
    json_peer(c);
    json_text("framing", c->framing);
    json_number("connected_ms", c->connected_ms);
    json_number("requests", c->requests);
    json_number("replies", c->replies);
    json_number("bytes_in", c->bytes_in);
    json_number("bytes_out", c->bytes_out);
    json_number("errors", c->errors);
    json_number("outstanding", c->outstanding);
    json_end();
}

static void json_pools(const plait_watch *watch)
{
    for (size_t k = 0; k < plait_watch_pool_count(watch); k++) {
        const plait_watch_pool *pool = plait_watch_pool_at(watch, k);
        json_begin("pool");
        json_integer("pid", pool->pid);
        json_text("pool", pool->name);
        json_number("threads", pool->threads);
        json_number("capacity", pool->capacity);
        json_number("waiting", pool->waiting);
        json_number("oldest_us", pool->oldest_us);
        json_number("taken", pool->taken);
        json_number("refused", pool->refused);
        json_end();
    }
}

static void json_topic(const plait_watch_instance *i)
{
    json_begin("topic");
    json_text("topic", i->service);
    json_process(i);
    json_bool("reliable", strcmp(i->methods, "reliable") == 0);
    json_bool("stopped", i->stopped);
    json_number("subscribers", i->connection_count);
    json_number("messages", i->published);
    json_number("bytes", i->bytes_out);
    json_number("stuck", i->stuck);
    json_end();
}

static void json_subscriber(const plait_watch_instance *i, const plait_watch_connection *c)
{
    json_begin("subscriber");
    json_text("topic", i->service);
    json_integer("pid", i->pid);
    json_peer(c);
    json_number("connected_ms", c->connected_ms);
    json_end();
}

static void print_json(const plait_watch *watch, bool all)
{
    for (size_t k = 0; k < plait_watch_topic_count(watch) && !output_failed(); k++) {
        const plait_watch_instance *i = plait_watch_topic_at(watch, k);
        json_topic(i);
        for (size_t n = 0; all && n < i->connection_count; n++) json_subscriber(i, &i->connections[n]);
    }
    for (size_t k = 0; k < plait_watch_count(watch) && !output_failed(); k++) {
        const plait_watch_instance *i = plait_watch_at(watch, k);
        json_instance(i);
        if (!all) continue;
        json_methods(i);
        for (size_t n = 0; n < i->connection_count; n++) json_connection(i, &i->connections[n]);
    }
    if (all) json_pools(watch);
}

/* ---- tables ------------------------------------------------------------------------- */

static void add_user(struct table *table, uint32_t uid)
{
    const struct passwd *user = uid == UINT32_MAX ? NULL : getpwuid(uid);

    if (user) table_add(table, "%s", user->pw_name);
    else if (uid == UINT32_MAX) table_add(table, "-");
    else table_add(table, "%u", uid);
}

/* A handler that has been at it for a tenth of a second keeps its thread from others. */
static void add_state(struct table *table, const plait_watch_instance *i)
{
    if (i->stopped) table_add(table, "stopped");
    else if (i->busy_us < 100000) table_add(table, "serving");
    else if (i->busy_us < 10000000) table_add(table, "busy %llu ms", (unsigned long long)i->busy_us / 1000);
    else table_add(table, "busy %llu s", (unsigned long long)i->busy_us / 1000000);
}

static void print_instances(const plait_watch *watch)
{
    struct table table;
    char age[16];

    table_init(&table, "SERVICE|>PID|PROCESS|WORKER|USER|>UP|>CLIENTS|>REQUESTS|>FAILED|STATE|ALSO LISTENING ON");
    for (size_t k = 0; k < plait_watch_count(watch); k++) {
        const plait_watch_instance *i = plait_watch_at(watch, k);
        table_add(&table, "%s", i->service);
        table_add(&table, "%d", i->pid);
        table_add(&table, "%s", i->process);
        if (i->worker) table_add(&table, "%u of %d", i->worker, i->supervisor);
        else table_add(&table, "-");
        add_user(&table, i->uid);
        table_add(&table, "%s", age_text(i->started_ms, age));
        table_add(&table, "%zu", i->connection_count);
        table_add(&table, "%llu", (unsigned long long)i->requests);
        table_add(&table, "%llu", (unsigned long long)i->failures);
        add_state(&table, i);
        table_add(&table, "%s", i->urls[0] ? i->urls : "-");
    }
    table_print(&table);
}

static void print_methods(const plait_watch *watch)
{
    const char *at = plait_watch_at(watch, 0)->methods, *word = NULL;
    size_t size;

    for (bool first = true; (word = next_method(&at, &size)); first = false) {
        if (first) printf("\nMETHODS\n");
        if (size == 0) printf("(the default, of calls that name none)\n");
        else if (size == 1 && *word == '*') printf("* (any other)\n");
        else printf("%.*s\n", (int)size, word);
    }
}

static void print_pools(const plait_watch *watch)
{
    struct table table;

    if (plait_watch_pool_count(watch) == 0) return;
    table_init(&table, "POOL|>OF PID|>THREADS|>WAITING|>OF AT MOST|>FOR ms|>BEGUN|>REFUSED");
    for (size_t k = 0; k < plait_watch_pool_count(watch); k++) {
        const plait_watch_pool *pool = plait_watch_pool_at(watch, k);
        table_add(&table, "%s", pool->name);
        table_add(&table, "%d", pool->pid);
        table_add(&table, "%u", pool->threads);
        table_add(&table, "%llu", (unsigned long long)pool->waiting);
        table_add(&table, "%u", pool->capacity);
        table_add(&table, "%llu", (unsigned long long)pool->oldest_us / 1000);
        table_add(&table, "%llu", (unsigned long long)pool->taken);
        table_add(&table, "%llu", (unsigned long long)pool->refused);
    }
    printf("\n");
    table_print(&table);
}

/* Who is connected, to which process, and how. */
static void add_peer(struct table *table, const plait_watch_instance *i, const plait_watch_connection *c)
{
    table_add(table, "%s", c->peer);
    if (c->peer_pid) table_add(table, "%d", c->peer_pid);
    else table_add(table, "-");
    add_user(table, c->peer_uid);
    table_add(table, "%d", i->pid);
    table_add(table, "%s", c->transport);
}

static void add_connection(struct table *table, const plait_watch_instance *i, const plait_watch_connection *c)
{
    char age[16];

    add_peer(table, i, c);
    table_add(table, "%s", c->framing);
    table_add(table, "%s", age_text(c->connected_ms, age));
    table_add(table, "%llu", (unsigned long long)c->requests);
    table_add(table, "%llu", (unsigned long long)c->outstanding);
    table_add(table, "%llu", (unsigned long long)c->bytes_in);
    table_add(table, "%llu", (unsigned long long)c->bytes_out);
    table_add(table, "%llu", (unsigned long long)c->errors);
}

/* Datagrams that nobody will ask for again. */
static void print_lost(const plait_watch *watch)
{
    for (size_t k = 0; k < plait_watch_count(watch); k++) {
        const plait_watch_instance *i = plait_watch_at(watch, k);
        if (i->lost > 0) printf("\npid %d lost %llu datagrams (udp)\n", i->pid, (unsigned long long)i->lost);
    }
}

static void print_connections(const plait_watch *watch)
{
    struct table table;
    size_t count = 0;

    table_init(&table,
               "CLIENT|>PID|USER|>SERVED BY|TRANSPORT|FRAMING|>FOR|>REQUESTS|>OPEN|>BYTES IN|>BYTES OUT|>ERRORS");
    for (size_t k = 0; k < plait_watch_count(watch); k++) {
        const plait_watch_instance *i = plait_watch_at(watch, k);
        for (size_t n = 0; n < i->connection_count; n++, count++) add_connection(&table, i, &i->connections[n]);
    }
    if (count > 0) {
        printf("\n");
        table_print(&table);
        print_lost(watch);
    } else {
        printf("\nnobody is connected\n");
        table_free(&table);
    }
}

static void print_topics(const plait_watch *watch)
{
    struct table table;
    char age[16];

    table_init(&table, "TOPIC|>PID|PROCESS|USER|>UP|>SUBSCRIBERS|>MESSAGES|>BYTES|HOW|>STUCK|STATE|ALSO LISTENING ON");
    for (size_t k = 0; k < plait_watch_topic_count(watch); k++) {
        const plait_watch_instance *i = plait_watch_topic_at(watch, k);
        table_add(&table, "%s", i->service);
        table_add(&table, "%d", i->pid);
        table_add(&table, "%s", i->process);
        add_user(&table, i->uid);
        table_add(&table, "%s", age_text(i->started_ms, age));
        table_add(&table, "%zu", i->connection_count);
        table_add(&table, "%llu", (unsigned long long)i->published);
        table_add(&table, "%llu", (unsigned long long)i->bytes_out);
        table_add(&table, "%s", i->methods);
        table_add(&table, "%llu", (unsigned long long)i->stuck);
        table_add(&table, "%s", i->stopped ? "stopped" : "publishing");
        table_add(&table, "%s", i->urls[0] ? i->urls : "-");
    }
    table_print(&table);
}

static void print_subscribers(const plait_watch *watch)
{
    struct table table;
    char age[16];
    size_t count = 0;

    table_init(&table, "SUBSCRIBER|>PID|USER|>PUBLISHED BY|TRANSPORT|>FOR");
    for (size_t k = 0; k < plait_watch_topic_count(watch); k++) {
        const plait_watch_instance *i = plait_watch_topic_at(watch, k);
        for (size_t n = 0; n < i->connection_count; n++, count++) {
            add_peer(&table, i, &i->connections[n]);
            table_add(&table, "%s", age_text(i->connections[n].connected_ms, age));
        }
    }
    printf("\n");
    if (count > 0) table_print(&table);
    else table_free(&table);
    if (count == 0) printf("nobody is subscribed\n");
}

/* ---- the verb ----------------------------------------------------------------------- */

static bool is_name(const char *text)
{
    static const char rest[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t size = strlen(text);

    return size > 0 && size <= PLAIT_NAME_MAX && strspn(text, rest) == size && !strchr("._-", text[0]);
}

/* Near names, and where we looked: a misspelt name and a wrong PLAIT_DIR are the two usual reasons. */
static int say_missing(const char *name)
{
    plait_watch *all = NULL;
    const char *near = NULL;
    char looked[1024] = "";
    size_t used = 0;
    const char *directory;
    int best = 3;

    for (size_t i = 0; (directory = plait_watch_directory(i, NULL)) && used < sizeof(looked) - 1; i++)
        used += (size_t)snprintf(looked + used, sizeof(looked) - used, "%s%s", i ? ", " : "", directory);
    if (plait_watch_open(&all, NULL) < 0) all = NULL;
    size_t services = all ? plait_watch_count(all) : 0, topics = all ? plait_watch_topic_count(all) : 0;
    for (size_t i = 0; i < services + topics; i++) {
        const char *other = (i < services ? plait_watch_at(all, i) : plait_watch_topic_at(all, i - services))->service;
        int distance = edit_distance(name, other, 2);
        if (distance < best) {
            best = distance;
            near = other;
        }
    }
    if (near) complain("ls %s: no such service or topic in %s (did you mean %s?)", name, looked, near);
    else complain("ls %s: no such service or topic in %s (plait ls shows what there is)", name, looked);
    plait_watch_close(all);
    return STATUS_NO_NAME;
}

static int run(int argc, char **argv)
{
    plait_watch *watch = NULL;
    const char *name = argc > 1 ? argv[1] : NULL;
    int r, status = STATUS_OK;

    if (argc > 2) return command_usage("ls", "%s: one NAME at a time", argv[2]);
    if (name && !is_name(name))
        return command_usage("ls",
                             "'%s': no service or topic is called that: names are a-z and 0-9, and behind the first "
                             "also . _ -",
                             name);
    r = plait_watch_open(&watch, name);
    if (r < 0) return command_failed(r, "ls");
    size_t services = plait_watch_count(watch), topics = plait_watch_topic_count(watch);
    if (services + topics == 0 && name) status = say_missing(name);
    else if (json) print_json(watch, name != NULL);
    else if (services + topics == 0) fprintf(stderr, "nothing is served here (to try: plait serve hello --echo)\n");
    if (services > 0 && !json) print_instances(watch);
    if (services > 0 && name && !json) {
        print_methods(watch);
        print_pools(watch);
        print_connections(watch);
    }
    if (services > 0 && topics > 0 && !json) printf("\n");
    if (topics > 0 && !json) print_topics(watch);
    if (topics > 0 && name && !json) print_subscribers(watch);
    plait_watch_close(watch);
    return status;
}

static const struct option options[] = {
    { .name = "--json",
      .kind = OPTION_FLAG,
      .value = &json,
      .help = "an object for each instance and publisher (kinds \"instance\", \"topic\");\n"
              "with NAME also kinds \"method\", \"connection\", \"pool\" and \"subscriber\"" },
    { .name = NULL },
};

const struct command command_ls = {
    .name = "ls",
    .arguments = "[NAME]",
    .summary = "list the services and topics here, or one with who uses it",
    .options = options,
    .text = "Every process that serves a name, or publishes a topic, is a line: several may share one. The\n"
            "figures are read from memory that the program keeps up to date, so they cost it nothing and\n"
            "are right also while it is busy or stopped. WORKER is its number and its supervisor's pid; busy\n"
            "says how long a handler has been running. OPEN counts requests that were taken and not answered\n"
            "yet; a POOL's threads handle what the service gives them, and what finds no thread is WAITING.\n"
            "STUCK counts subscribers that a reliable publisher went on without. What other users serve isn't\n"
            "listed, though what admits you can be used.\n"
            "\n"
            "Examples:\n"
            "  plait ls\n"
            "  plait ls greeter\n"
            "  plait ls --json | jq -r .pid\n",
    .run = run,
};
