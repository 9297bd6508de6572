/* topic_end: the C end of the topics' matrix; topic_end.cpp and topic_end.py are the same in their languages.
 *
 * topic-end pub TOPIC HISTORY WAIT utf8|array [URL]: each line of standard input is a message; "listening on URL"
 * first. array: of bytes, as many columns as 3. topic-end sub TOPIC HISTORY COUNT: for each message "NUMBER LOST
 * ENCODING SIZE ADLER32 TOPIC", of an array the size and sum of its elements, and then its type and shape.
 */
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int publish_array(plait_publisher *publisher, const char *line, size_t size)
{
    const uint64_t shape[] = { size / 3, 3 };
    plait_loan *loan = NULL;
    void *elements;
    size_t whole;
    int r = plait_array_measure("|u1", shape, 2, &whole);
    if (r == 0) r = plait_publisher_loan(publisher, whole, &loan);
    if (r == 0) r = plait_array_write(plait_loan_data(loan), whole, "|u1", shape, 2, &elements);
    if (r < 0) return r;
    memcpy(elements, line, size / 3 * 3);
    return plait_publisher_publish_loan(publisher, PLAIT_ARRAY, loan, whole);
}

static int publish_all(char **argv)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    plait_publisher *publisher = NULL;
    int arrays = strcmp(argv[5], "array") == 0;
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    options.reliable = 1;
    options.timeout = 60000;
    options.history = (uint32_t)atoi(argv[3]);
    options.wait_subscribers = (uint32_t)atoi(argv[4]);
    options.listen = argv[6];
    int r = plait_publisher_open(&publisher, argv[2], &options);
    if (r == 0 && argv[6] != NULL) printf("listening on %s\n", plait_publisher_url(publisher, 0));
    fflush(stdout);
    while (r == 0 && (size = getline(&line, &room, stdin)) > 0) {
        if (arrays) r = publish_array(publisher, line, (size_t)size - 1);
        else r = plait_publisher_publish_as(publisher, PLAIT_UTF8, line, (size_t)size - 1);
    }
    if (r < 0) fprintf(stderr, "%s\n", plait_error_text());
    free(line);
    plait_publisher_close(publisher);
    return r < 0;
}

static uint32_t adler(const void *data, size_t size)
{
    uint32_t low = 1, high = 0;
    for (const unsigned char *at = data, *end = at + size; at < end; at++) {
        low = (low + *at) % 65521;
        high = (high + low) % 65521;
    }
    return high << 16 | low;
}

static int show(const plait_message *message)
{
    static const char *const encodings[] = { "bytes", "utf8", "json", "array" };
    plait_bytes body = plait_message_body(message);
    plait_array array = { .dimensions = 0 };
    int is_array = plait_message_encoding(message) == PLAIT_ARRAY;
    if (is_array) {
        int r = plait_array_read(body.data, body.size, &array);
        if (r < 0) return r;
        body = (plait_bytes){ array.data, array.size };
    }
    printf("%llu %llu %s %zu %u %s", (unsigned long long)plait_message_number(message),
           (unsigned long long)plait_message_lost(message, NULL), encodings[plait_message_encoding(message)], body.size,
           adler(body.data, body.size), plait_message_topic(message));
    if (is_array) printf(" %s", array.dtype);
    for (uint32_t i = 0; i < array.dimensions; i++) printf(" %llu", (unsigned long long)array.shape[i]);
    printf("\n");
    return 0;
}

static int subscribe(char **argv)
{
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;
    options.history = (uint32_t)atoi(argv[3]);
    int r = plait_subscriber_open(&subscriber, argv[2], &options);
    for (int count = atoi(argv[4]); r == 0 && count > 0; count--) {
        r = plait_subscriber_next(subscriber, 60000, &message);
        if (r == 0) r = show(message);
    }
    if (r < 0) fprintf(stderr, "%s\n", plait_error_text());
    plait_subscriber_close(subscriber);
    return r < 0;
}

int main(int argc, char **argv)
{
    if (argc >= 6 && strcmp(argv[1], "pub") == 0) return publish_all(argv);
    if (argc == 5 && strcmp(argv[1], "sub") == 0) return subscribe(argv);
    return 2;
}
