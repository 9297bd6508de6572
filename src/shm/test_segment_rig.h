/* Both sides of one direction of segments, in one process. */
#ifndef PL_SHM_TEST_SEGMENT_RIG_H
#define PL_SHM_TEST_SEGMENT_RIG_H

#include "harness/test.h"
#include "shm/doorbell.h"
#include "shm/segment.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1 << 20 };

struct rig {
    _Atomic uint32_t returned[PL_SEGMENTS_MAX], wanted;
    struct pl_segment_pool *pool;
    struct pl_segment_map *map;
    int bell;
};

static inline void rig_open(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    CHECK_INT(pl_doorbell_create(&rig->bell), 0);
    CHECK_INT(pl_segment_pool_new(&rig->pool, rig->returned), 0);
    pl_segment_pool_wake(rig->pool, &rig->wanted, rig->bell);
    CHECK_INT(pl_segment_map_new(&rig->map, rig->returned), 0);
    pl_segment_map_wake(rig->map, &rig->wanted, rig->bell);
}

static inline void rig_close(struct rig *rig)
{
    pl_segment_pool_free(rig->pool);
    pl_segment_map_close(rig->map);
    close(rig->bell);
}

/* The announcement, as the socket would carry it. */
static inline void announce(struct rig *rig, struct pl_segment *segment)
{
    if (segment->fd < 0) return;
    int fd = fcntl(segment->fd, F_DUPFD_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_INT(pl_segment_map_add(rig->map, fd, segment->id, segment->capacity), 0);
    pl_segment_announced(rig->pool, segment);
    CHECK_INT(segment->fd, -1);
}

/* Takes past the first use of a class. */
static inline struct pl_segment *take(struct rig *rig, size_t size)
{
    struct pl_segment *segment = NULL;
    int r = pl_segment_take(rig->pool, size, &segment);
    if (r == PL_SEGMENT_NONE) r = pl_segment_take(rig->pool, size, &segment);
    CHECK_INT(r, 0);
    CHECK(segment->capacity >= size);
    announce(rig, segment);
    return segment;
}

static inline struct pl_segment_view view(struct rig *rig, const struct pl_segment *segment, size_t size)
{
    struct pl_segment_view result;
    CHECK_INT(pl_segment_map_view(rig->map, segment->id, segment->generation, size, &result), 0);
    CHECK_INT(result.size, size);
    return result;
}

/* How much memory stands behind FD. */
static inline size_t allocated(int fd)
{
    struct stat status;
    CHECK_INT(fstat(fd, &status), 0);
    return (size_t)status.st_blocks * 512;
}

#endif
