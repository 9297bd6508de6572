/* The load page: written by one side, read by the other, forged by nobody. */
#include "harness/test.h"

#include "base/error.h"
#include "shm/load.h"
#include "shm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void make_pair(struct pl_load_page **server, const struct pl_load_page **client, int *fd)
{
    CHECK_INT(pl_load_create(server, fd), 0);
    CHECK_INT(pl_load_attach(client, *fd), 0);
}

TEST(a_client_reads_what_reactors_and_deferred_requests_add_up_to)
{
    struct pl_load_page *server;
    const struct pl_load_page *client;
    int fd;
    make_pair(&server, &client, &fd);
    CHECK_INT(pl_load_read(client, 4), 0);
    pl_load_busy(server, 0, 1);
    pl_load_busy(server, 3, 1);
    pl_load_defer(server, 5);
    pl_load_defer(server, -1);
    CHECK_INT(pl_load_read(client, 4), 6);
    CHECK_INT(pl_load_read(client, 3), 5);
    pl_load_busy(server, 0, 0);
    CHECK_INT(pl_load_read(client, UINT32_MAX), 5);
    CHECK_INT(pl_load_read(NULL, 4), 0);
    close(fd);
    pl_load_detach(server);
    pl_load_detach(client);
    pl_load_detach(NULL);
}

TEST(a_client_cannot_write_the_load_page)
{
    struct pl_load_page *server;
    const struct pl_load_page *client;
    int fd;
    make_pair(&server, &client, &fd);
    CHECK(mmap(NULL, pl_page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK_INT(pwrite(fd, "x", 1, 0), -1);
    CHECK_INT(mprotect((void *)(uintptr_t)client, pl_page_size(), PROT_READ | PROT_WRITE), -1);
    close(fd);
    pl_load_detach(server);
    pl_load_detach(client);
}

TEST(a_forged_load_page_is_refused)
{
    const struct pl_load_page *client = NULL;
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct {
        uint64_t size;
        int seals;
    } forged[] = {
        { pl_page_size(), 0 }, { pl_page_size(), F_SEAL_SEAL }, { pl_page_size() * 2, seals }, { 0, seals }
    };
    for (int i = 0; i < 4; i++) {
        int fd;
        CHECK_INT(pl_memfd_create("forged", forged[i].size, &fd), 0);
        if (forged[i].seals != 0) CHECK_INT(pl_memfd_seal(fd, forged[i].seals), 0);
        CHECK_INT(pl_load_attach(&client, fd), -EPROTO);
        close(fd);
    }
    CHECK_INT(pl_load_attach(&client, -1), -EPROTO);
    CHECK(client == NULL);
}
