/* crew: what the tests of supervised workers share: a supervisor whose log can be read, and its workers as whoever
 * looks sees them.
 */
#ifndef TESTS_SYSTEM_CREW_H
#define TESTS_SYSTEM_CREW_H

#include "system/system.h"

enum { CREW = 3 };

/* ---- the log of supervisor and workers, in memory that all processes share ---- */
void journal_open(void);
void journal_close(void);
void journal_keep(void);   /* in a process whose log it is to be; its children's, too */
uint32_t journal_at(void); /* what is written from now on */
/* What was written at FROM or later and begins with TEXT; NULL: nothing yet. */
const char *written_since(uint32_t from, const char *text);
bool written(const char *text);

/* ---- the workers of a name ---- */
struct crew {
    size_t count;
    pid_t pids[16];
    uint32_t numbers[16], restarts[16];
    int32_t supervisor[16];
};
struct crew crew_of(const char *name); /* as they are now */
/* Until COUNT workers serve, as both those who look and their supervisor, who keeps a journal, see it; none of them
 * NOT. */
struct crew await_crew(const char *name, size_t count, pid_t not );
bool alive(pid_t pid);

/* ---- a supervisor of three workers that serve "crew", with the methods of serve() ---- */
struct scene {
    struct board *board;
    struct serve what; /* to be changed before it begins */
    struct started server;
    struct crew crew; /* as it was when it began */
};
struct scene scene_new(void);
void scene_begin(struct scene *scene);
void scene_stop(struct scene *scene); /* by SIGTERM; all must end well */
void scene_end(struct scene *scene);  /* the same, unless it has stopped; frees */

/* A child that calls `hang` of "crew" once and must be told -ECONNRESET; returns when the call is being handled. */
pid_t hang_in_crew(const struct scene *scene);

#endif
