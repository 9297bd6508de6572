/* `camera TOPIC [COUNT]` publishes pictures of 1920 x 1080, 60 a second, COUNT of them or until Ctrl-C: a white disc
 * that wanders over a landscape while the camera pans. Each is drawn into a loan, so that subscribers look at the very
 * memory it was drawn into; tracker.py is one. A subscriber that is too slow misses pictures, and never holds the
 * camera up. */
#include <math.h>
#include <plait/plait.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WIDTH = 1920, HEIGHT = 1080, SCENE = 2560, RADIUS = 60, RATE = 60 };

static const uint64_t shape[] = { HEIGHT, WIDTH, 3 };
static unsigned char scene[HEIGHT][SCENE][3]; /* what there is to see, of which a picture shows a part */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* To and fro between 0 and RANGE. */
static unsigned bounce(unsigned way, unsigned range)
{
    way %= 2 * range;
    return way < range ? way : 2 * range - way;
}

/* Hills under a sky; nothing is as bright as the disc. */
static void make_scene(void)
{
    for (int x = 0; x < SCENE; x++) {
        int ridge = (int)(600 + 120 * sin(x / 230.0) + 50 * sin(x / 71.0 + 1) + 9 * sin(x / 13.0));
        uint32_t noise = (uint32_t)x * 2654435761u;
        for (int y = 0; y < HEIGHT; y++) {
            unsigned char *pixel = scene[y][x];
            noise = noise * 1664525u + 1013904223u;
            int grain = (int)(noise >> 27), depth = y - ridge;
            pixel[0] = (unsigned char)(depth < 0 ? 60 + y / 8 : 40 + depth / 8 + grain);
            pixel[1] = (unsigned char)(depth < 0 ? 90 + y / 10 : 110 - depth / 8 + grain);
            pixel[2] = (unsigned char)(depth < 0 ? 200 - y / 12 : 30 + grain);
        }
    }
}

/* What the camera sees as its picture NUMBER. */
static void draw(unsigned char *pixels, unsigned number)
{
    unsigned left = bounce(3 * number, SCENE - WIDTH);
    int x = RADIUS + (int)bounce(12 * number, WIDTH - 1 - 2 * RADIUS);
    int y = RADIUS + (int)bounce(7 * number, HEIGHT - 1 - 2 * RADIUS);

    for (int row = 0; row < HEIGHT; row++) memcpy(pixels + row * WIDTH * 3, scene[row][left], WIDTH * 3);
    for (int row = -RADIUS; row <= RADIUS; row++) {
        int half = (int)sqrt(RADIUS * RADIUS - row * row);
        memset(pixels + ((y + row) * WIDTH + x - half) * 3, 255, (size_t)(2 * half + 1) * 3);
    }
}

static int publish_picture(plait_publisher *publisher, unsigned number)
{
    plait_loan *loan = NULL;
    void *pixels;
    size_t size;
    int r = plait_array_measure("|u1", shape, 3, &size);

    if (r == 0) r = plait_publisher_loan(publisher, size, &loan);
    if (r < 0) return r;
    plait_array_write(plait_loan_data(loan), size, "|u1", shape, 3, &pixels); /* it was measured: it fits */
    draw(pixels, number);
    return plait_publisher_publish_loan(publisher, PLAIT_ARRAY, loan, size);
}

int main(int argc, char **argv)
{
    plait_publisher *publisher = NULL;
    unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    struct timespec due;

    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: camera TOPIC [COUNT]\n");
        return 2;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    make_scene();
    int r = plait_publisher_open(&publisher, argv[1], NULL);
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (unsigned number = 1; r == 0 && !interrupted && (count == 0 || number <= count); number++) {
        r = publish_picture(publisher, number);
        due.tv_nsec += 1000000000 / RATE;
        due.tv_sec += due.tv_nsec / 1000000000;
        due.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL); /* a signal ends it */
    }
    if (r < 0) fprintf(stderr, "camera: %s\n", plait_error_text());
    plait_publisher_close(publisher);
    return r < 0;
}
