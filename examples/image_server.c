/* A server that looks at pictures: the method "brightness" takes an array of bytes, HEIGHT x WIDTH x CHANNELS, and
 * answers with the mean of each channel. The picture is read where its sender wrote it. */
#include <plait/plait.h>
#include <stdio.h>

#define CHANNELS 4

static void brightness(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    plait_array image;
    double sum[CHANNELS] = { 0 };

    (void)context;
    if (plait_request_encoding(request) != PLAIT_ARRAY || plait_array_read(body.data, body.size, &image) < 0) {
        plait_request_fail(request, 1, "send an array: %s", plait_error_text());
        return;
    }
    if (image.item_size != 1 || image.dimensions != 3 || image.shape[2] > CHANNELS || image.size == 0) {
        plait_request_fail(request, 2, "send bytes of the shape HEIGHT x WIDTH x CHANNELS, at most %d channels",
                           CHANNELS);
        return;
    }
    const unsigned char *pixels = image.data;
    size_t channels = image.shape[2], count = image.size / channels;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < channels; c++) sum[c] += pixels[i * channels + c];
    for (size_t c = 0; c < CHANNELS; c++) sum[c] /= (double)count;
    plait_request_replyf(request, "%.1f %.1f %.1f", sum[0], sum[1], sum[2]);
}

int main(void)
{
    plait_server *server = NULL;
    int r = plait_server_open(&server, "image", NULL);

    if (r == 0) r = plait_server_handle(server, "brightness", brightness, NULL);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fprintf(stderr, "image-server: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}
