#include "shm/load.h"

#include "base/error.h"
#include "base/fd.h"
#include "shm/memory.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int pl_load_create(struct pl_load_page **ret_page, int *ret_fd)
{
    size_t size = pl_page_size();
    uint8_t *page;
    int fd PL_AUTO_CLOSE = -1;
    int r = pl_memfd_create_one_writer("plait-load", size, &page, &fd);
    if (r < 0) return r;
    r = pl_memory_populate(page, size, 1);
    if (r < 0) {
        munmap(page, size);
        return r;
    }
    *ret_page = (struct pl_load_page *)page;
    *ret_fd = fd;
    fd = -1;
    return 0;
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
