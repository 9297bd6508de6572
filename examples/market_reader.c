/* `market-reader TOPIC` reads quotes (see market.c) until the market is closed, checks that each came, once and in its
 * order, and prints how many a second there were. */
#include "quote.h"

#include <plait/plait.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct book {
    uint64_t count, lost, disorder;
    uint64_t due; /* the next quote's number; 0: whatever comes first */
    uint32_t of_it[INSTRUMENTS];
    int64_t price[INSTRUMENTS];
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void enter(struct book *book, const plait_message *message)
{
    struct quote quote;

    memcpy(&quote, plait_message_body(message).data, sizeof(quote));
    uint64_t lost = plait_message_lost(message, NULL);
    if (book->due != 0 && quote.number != book->due + lost) book->disorder++;
    book->due = quote.number + 1;
    book->count++;
    book->lost += lost;
    if (quote.of_it <= book->of_it[quote.instrument % INSTRUMENTS]) book->disorder++;
    book->of_it[quote.instrument % INSTRUMENTS] = quote.of_it;
    book->price[quote.instrument % INSTRUMENTS] = quote.price;
}

static int read_all(plait_subscriber *subscriber, struct book *book)
{
    plait_message *message = NULL;
    double began = 0;
    int r;

    while ((r = plait_subscriber_next(subscriber, 60000, &message)) == 0) {
        if (began == 0) began = now();
        if (plait_message_body(message).size != sizeof(struct quote)) break; /* closed */
        enter(book, message);
    }
    if (r < 0) return r;
    book->lost += plait_message_lost(message, NULL);
    printf("%llu quotes in order, %llu lost, %llu out of order: %.3f M/s\n",
           (unsigned long long)(book->count - book->disorder), (unsigned long long)book->lost,
           (unsigned long long)book->disorder, (double)book->count / (now() - began) / 1e6);
    for (int i = 0; i < INSTRUMENTS; i++)
        printf("%c%lld.%02lld", i ? ' ' : '\t', (long long)(book->price[i] / 100), (long long)(book->price[i] % 100));
    printf("\n");
    return book->lost > 0 || book->disorder > 0;
}

int main(int argc, char **argv)
{
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber = NULL;
    struct book book = { 0 };

    if (argc != 2) {
        fprintf(stderr, "usage: market-reader TOPIC\n");
        return 2;
    }
    options.reliable = PLAIT_RELIABLE_YES; /* others aren't listened to */
    int r = plait_subscriber_open(&subscriber, argv[1], &options);
    if (r == 0) r = read_all(subscriber, &book);
    if (r < 0) fprintf(stderr, "market-reader: %s\n", plait_error_text());
    plait_subscriber_close(subscriber);
    return r != 0;
}
