#include "shm/load.h"

#include "base/error.h"
#include "base/fd.h"
#include "shm/memory.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Maps FD for writing; SEAL: nobody else shall from now on. */
static int map(struct pl_load_page **ret_page, int fd, bool seal)
{
    size_t size = pl_page_size();
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return pl_error(-errno, "cannot map a page: %s", pl_error_word(errno));
    int r = pl_memory_populate(page, size, 1);
    if (r == 0 && seal) r = pl_memfd_seal_one_writer(fd);
    if (r < 0) {
        munmap(page, size);
        return r;
    }
    *ret_page = page;
    return 0;
}

static int create(struct pl_load_page **ret_page, int *ret_fd, bool seal)
{
    int fd PL_AUTO_CLOSE = -1;
    int r = pl_memfd_create("plait-load", pl_page_size(), &fd);
    if (r == 0) r = map(ret_page, fd, seal);
    if (r < 0) return r;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int pl_load_create(struct pl_load_page **ret_page, int *ret_fd)
{
    return create(ret_page, ret_fd, true);
}

int pl_load_create_open(struct pl_load_page **ret_page, int *ret_fd)
{
    return create(ret_page, ret_fd, false);
}

int pl_load_adopt(struct pl_load_page **ret_page, int fd)
{
    int r = pl_memfd_check(fd, pl_page_size(), 0);
    return r < 0 ? r : map(ret_page, fd, true);
}

int pl_load_attach(const struct pl_load_page **ret_page, int fd)
{
    size_t size = pl_page_size();
    int r = pl_memfd_check(fd, size, PL_MEMFD_SEALS);
    if (r < 0) return r;
    void *page = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return pl_error(-errno, "cannot map a page: %s", pl_error_word(errno));
    r = pl_memory_populate(page, size, 0);
    if (r < 0) {
        munmap(page, size);
        return r;
    }
    *ret_page = page;
    return 0;
}

void pl_load_detach(const struct pl_load_page *page)
{
    if (page != NULL) munmap((void *)page, pl_page_size());
}

const char *pl_death_text(uint64_t death, char *text, size_t size)
{
    unsigned number = pl_death_number(death);
    if (death & PL_DEATH_SIGNAL) {
        const char *word = sigdescr_np((int)number);
        snprintf(text, size, "signal %u (%s)", number, word ? word : "?");
    } else {
        snprintf(text, size, "exit status %u", number);
    }
    return text;
}
