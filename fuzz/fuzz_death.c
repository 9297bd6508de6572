/* Property: whatever a worker left in its status page, what its supervisor says of its death and its work is one line
 * that can be printed and ends within its room.
 *
 * The first byte says how to read the rest: bit 0 gives the page a sound head; its upper bits are the thread that the
 * worker named as it died.
 */
#include "fuzz_page.h"
#include "worker/worker.h"
#include <sys/mman.h>
#include <unistd.h>

static void require_line(const char *text, size_t room)
{
    REQUIRE(memchr(text, '\0', room) != NULL);
    for (; *text != '\0'; text++) REQUIRE((unsigned char)*text >= ' ' && *text != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[300];
    if (size == 0) return 0;
    size_t part = size - 1;
    uint8_t *page = exact_copy(data + 1, part);
    if ((data[0] & 1) != 0) mend_head(page, part);
    struct pl_worker worker = { .number = 3, .pid = 4711, .page_fd = memfd_create("page", MFD_CLOEXEC) };
    REQUIRE(worker.page_fd >= 0 && pwrite(worker.page_fd, page, part, 0) == (ssize_t)part);
    uint64_t death = pl_death_of(PL_DEATH_SIGNAL, 11, data[0] >> 1);
    for (size_t room = sizeof text; room > 0; room = room > 100 ? 40 : 0) {
        memset(text, 0x7f, sizeof text);
        pl_worker_tell_death(&worker, death, text, room);
        require_line(text, room);
        pl_worker_tell_work(&worker, data[0] >> 1, text, room);
        require_line(text, room);
    }
    close(worker.page_fd);
    free(page);
    return 0;
}
