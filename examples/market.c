/* `market TOPIC RATE COUNT` publishes COUNT quotes, RATE of them each second: small messages, of which none may be lost
 * and none may come out of order. So the topic is reliable: a reader that is too slow for a moment is waited for, and
 * what was missed meanwhile is made up afterwards. Begins with the first reader; market_reader.c is one. */
#include "quote.h"

#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct market {
    plait_publisher *publisher;
    struct quote last[INSTRUMENTS];
    uint64_t number;
    uint32_t seed;
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Some instrument's price goes up or down a little. */
static int trade(struct market *market)
{
    market->seed = market->seed * 1664525u + 1013904223u;
    struct quote *quote = &market->last[market->seed >> 28];
    quote->number = ++market->number;
    quote->of_it++;
    quote->instrument = market->seed >> 28;
    quote->price += (int64_t)(market->seed >> 16 & 15) - 7;
    quote->size = market->seed >> 20 & 0xff;
    return plait_publisher_publish(market->publisher, quote, sizeof(*quote));
}

/* As many as are due, then a nap of a fifth of a millisecond. Sleeping once for each would cost more than the quote. */
static int trade_all(struct market *market, double rate, uint64_t count)
{
    const struct timespec nap = { .tv_nsec = 200000 };
    int r = trade(market); /* waits for the first reader */
    double began = now();

    while (r == 0 && market->number < count) {
        double due = (now() - began) * rate + 1;
        while (r == 0 && market->number < count && (double)market->number < due) r = trade(market);
        nanosleep(&nap, NULL);
    }
    double took = now() - began;
    if (r == 0) r = plait_publisher_publish(market->publisher, NULL, 0);
    if (r == 0)
        printf("%llu quotes in %.3f s: %.3f M/s\n", (unsigned long long)market->number, took,
               (double)market->number / took / 1e6);
    return r;
}

int main(int argc, char **argv)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    struct market market = { .seed = 1 };

    if (argc != 4 || atof(argv[2]) <= 0 || atoll(argv[3]) <= 0) {
        fprintf(stderr, "usage: market TOPIC RATE COUNT\n");
        return 2;
    }
    for (int i = 0; i < INSTRUMENTS; i++) market.last[i].price = 10000;
    options.reliable = 1;
    options.wait_subscribers = 1;
    options.timeout = 60000; /* for the first reader, and for one that stands still */
    int r = plait_publisher_open(&market.publisher, argv[1], &options);
    if (r == 0) r = trade_all(&market, atof(argv[2]), (uint64_t)atoll(argv[3]));
    if (r < 0) fprintf(stderr, "market: %s\n", plait_error_text());
    plait_publisher_close(market.publisher);
    return r < 0;
}
