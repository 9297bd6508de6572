/* test_look: what the tests of the status page see of it, as any tool would. */
#ifndef PL_OBSERVE_TEST_LOOK_H
#define PL_OBSERVE_TEST_LOOK_H

#include "harness/test.h"
#include "observe/place.h"
#include "observe/status.h"

#include <fcntl.h>
#include <plait/watch.h>
#include <sys/stat.h>

static const struct pl_status_peer sample_peer = { 4321, 77, "shm", "plait", "caller" };

static inline plait_watch *look(const char *name)
{
    plait_watch *watch = NULL;
    CHECK_INT(plait_watch_open(&watch, name), 0);
    return watch;
}

/* The only instance of NAME; the watch is the caller's to close. */
static inline const plait_watch_instance *look_at(const char *name, plait_watch **ret_watch)
{
    *ret_watch = look(name);
    CHECK_INT(plait_watch_count(*ret_watch), 1);
    return plait_watch_at(*ret_watch, 0);
}

static inline size_t count_instances(const char *name)
{
    plait_watch *watch = look(name);
    size_t count = plait_watch_count(watch);
    plait_watch_close(watch);
    return count;
}

struct files {
    size_t count, bytes;
};

static inline int add_file(const struct pl_place *place, const char *name, void *context)
{
    struct files *files = context;
    struct stat status;
    if (fstatat(place->fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        files->count++;
        files->bytes += (size_t)status.st_size;
    }
    return 0;
}

/* The pages that lie in the own directory's place, dead or alive. */
static inline struct files count_files(void)
{
    struct files files = { 0, 0 };
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    if (pl_directory_own(&directory, false) < 0) return files;
    if (pl_place_open(&place, &directory, false) == 0) CHECK_INT(pl_place_each(&place, add_file, &files), 0);
    pl_place_close(&place);
    pl_directory_close(&directory);
    return files;
}

#endif
