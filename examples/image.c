/* `image TARGET COUNT` draws COUNT pictures of 1920 x 1080 into loans, sends each to TARGET's method "brightness", and
 * prints what it says. No byte of a picture is copied on a machine where TARGET is found by name. */
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>

static const uint64_t shape[] = { 1080, 1920, 3 };

/* Slanted bands of colour that move with NUMBER. */
static void draw(unsigned char *pixels, unsigned number)
{
    for (unsigned y = 0; y < shape[0]; y++)
        for (unsigned x = 0; x < shape[1]; x++, pixels += 3) {
            pixels[0] = (unsigned char)(x + number * 8);
            pixels[1] = (unsigned char)(y + x / 2);
            pixels[2] = (unsigned char)(number * 40);
        }
}

static int send_picture(plait_client *client, unsigned number)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_loan *loan = NULL;
    plait_reply *reply = NULL;
    void *pixels;
    size_t size;
    int r = plait_array_measure("|u1", shape, 3, &size);

    options.encoding = PLAIT_ARRAY;
    if (r == 0) r = plait_client_loan(client, size, &options, &loan);
    if (r < 0) return r;
    plait_array_write(plait_loan_data(loan), size, "|u1", shape, 3, &pixels); /* it was measured: it fits */
    draw(pixels, number);
    r = plait_client_call_loan(client, "brightness", loan, size, &options, &reply);
    if (r == 0) {
        plait_bytes text = plait_reply_body(reply);
        printf("picture %u: %.*s\n", number, (int)text.size, (const char *)text.data);
    }
    plait_reply_free(reply);
    return r;
}

int main(int argc, char **argv)
{
    plait_client *client = NULL;

    if (argc != 3) {
        fprintf(stderr, "usage: image TARGET COUNT\n");
        return 2;
    }
    int r = plait_client_open(&client, argv[1], NULL);
    for (int i = 0; r == 0 && i < atoi(argv[2]); i++) r = send_picture(client, (unsigned)i);
    if (r < 0) fprintf(stderr, "image: %s\n", plait_error_text());
    plait_client_close(client);
    return r < 0;
}
