/* A client: `echo-client TARGET MESSAGE` calls TARGET a hundred times, checks that each answer is MESSAGE, and
 * prints the answer, how it came and the median round trip. */
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CALLS 100

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* 0, or the negative errno of a call; 1: an answer was not MESSAGE. */
static int call(plait_client *client, const char *message, double *times)
{
    for (int i = 0; i < CALLS; i++) {
        plait_reply *reply = NULL;
        double begun = now_us();
        int r = plait_client_call(client, "", message, strlen(message), NULL, &reply);
        times[i] = now_us() - begun;
        if (r < 0) {
            plait_reply_free(reply); /* -EREMOTEIO brings one */
            return r;
        }
        plait_bytes body = plait_reply_body(reply);
        int wrong = body.size != strlen(message) || memcmp(body.data, message, body.size) != 0;
        plait_reply_free(reply);
        if (wrong) return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    double times[CALLS];
    plait_client *client = NULL;

    if (argc != 3) {
        fprintf(stderr, "usage: echo-client TARGET MESSAGE\n");
        return 2;
    }
    int r = plait_client_open(&client, argv[1], NULL);
    if (r == 0) r = call(client, argv[2], times);
    if (r < 0) fprintf(stderr, "echo-client: %s\n", plait_error_text());
    if (r > 0) fprintf(stderr, "echo-client: the answer is not what was sent\n");
    if (r == 0) {
        qsort(times, CALLS, sizeof(times[0]), compare);
        printf("%s (%s, median of %d round trips: %.1f us)\n", argv[2], plait_client_transport(client), CALLS,
               times[CALLS / 2]);
    }
    plait_client_close(client);
    return r != 0;
}
