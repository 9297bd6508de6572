/* Property: whatever a status page holds, and however its three copies differ, it is refused with a printable
 * reason or becomes a picture in which every text ends in time and is printable, every connection belongs to
 * a listed service, and the counts of both agree.
 *
 * The first byte says how to read the rest: bit 0 gives it a sound head, bit 1 cuts it into three copies.
 */
#include "base/error.h"
#include "fuzz_page.h"
#include <errno.h>

static void require_text(const char *text, size_t room)
{
    REQUIRE(memchr(text, '\0', room) != NULL);
    for (; *text != '\0'; text++) REQUIRE((unsigned char)*text >= ' ' && *text != 0x7f);
}

static void require_sane(const struct pl_status_picture *picture)
{
    size_t connections = 0;
    require_text(picture->language, sizeof picture->language);
    require_text(picture->library, sizeof picture->library);
    require_text(picture->process, sizeof picture->process);
    REQUIRE(picture->service_count <= PL_STATUS_SERVICES_MAX);
    for (size_t i = 0; i < picture->service_count; i++) {
        const struct pl_status_service_picture *service = &picture->services[i];
        REQUIRE(service->id != 0);
        require_text(service->name, sizeof service->name);
        for (int text = 0; text < PL_STATUS_TEXTS; text++) {
            REQUIRE(service->texts[text] != NULL);
            require_text(service->texts[text], PL_STATUS_SIZE_MAX);
        }
        connections += service->connection_count;
    }
    REQUIRE(connections == picture->connection_count);
    for (size_t i = 0; i < picture->connection_count; i++) {
        const struct pl_status_connection_picture *connection = &picture->connections[i];
        REQUIRE(connection->id != 0 && connection->service < picture->service_count);
        require_text(connection->transport, sizeof connection->transport);
        require_text(connection->framing, sizeof connection->framing);
        require_text(connection->peer, sizeof connection->peer);
    }
    for (size_t i = 0; i < picture->thread_count; i++) {
        const struct pl_status_thread_picture *thread = &picture->threads[i];
        REQUIRE(thread->tid != 0 && (thread->service == SIZE_MAX || thread->service < picture->service_count));
        require_text(thread->name, sizeof thread->name);
    }
    for (size_t i = 0; i < picture->pool_count; i++) {
        REQUIRE(picture->pools[i].id != 0);
        require_text(picture->pools[i].name, sizeof picture->pools[i].name);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pl_status_picture picture = { 0 };
    uint8_t *copies[3];
    if (size == 0) return 0;
    size_t part = (data[0] & 2) != 0 ? (size - 1) / 3 : size - 1;
    for (size_t i = 0; i < 3; i++) {
        copies[i] = exact_copy(data + 1 + ((data[0] & 2) != 0 ? i * part : 0), part);
        if ((data[0] & 1) != 0) mend_head(copies[i], part);
    }
    struct pl_status_copy copy = { copies[0], copies[1], copies[2], part };
    int r = pl_status_parse(&picture, &copy);
    if (r == 0) {
        require_sane(&picture);
    } else {
        REQUIRE(r == -EPROTO);
        require_text(pl_error_text(), 4096);
    }
    pl_status_picture_deinit(&picture);
    for (size_t i = 0; i < 3; i++) free(copies[i]);
    return 0;
}
