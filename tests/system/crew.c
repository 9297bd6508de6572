/* crew: see crew.h. */
#include "system/crew.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- journal ---- */

static struct journal {
    _Atomic uint32_t used;
    char text[60000];
} * journal;

static void write_down(plait_log_level level, const char *line, void *context)
{
    (void)level;
    (void)context;
    size_t size = strlen(line);
    uint32_t at = atomic_fetch_add(&journal->used, (uint32_t)size + 1);
    if (at + size + 1 >= sizeof(journal->text)) return;
    memcpy(journal->text + at, line, size);
    journal->text[at + size] = '\n';
}

void journal_keep(void)
{
    plait_set_log(write_down, NULL);
}

void journal_open(void)
{
    journal = mmap(NULL, sizeof(*journal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(journal != MAP_FAILED);
}

void journal_close(void)
{
    munmap(journal, sizeof(*journal));
}

uint32_t journal_at(void)
{
    uint32_t used = atomic_load(&journal->used);
    return used < sizeof(journal->text) ? used : sizeof(journal->text);
}

/* A line that is just being written, or whose writer was killed, is a gap of zeros: what stands behind it counts as
 * well. */
const char *written_since(uint32_t from, const char *text)
{
    return memmem(journal->text + from, journal_at() - from, text, strlen(text));
}

bool written(const char *text)
{
    return written_since(0, text) != NULL;
}

/* ---- crew ---- */

struct crew crew_of(const char *name)
{
    struct crew crew = { 0 };
    plait_watch *watch;
    CHECK_INT(plait_watch_open(&watch, name), 0);
    for (size_t i = 0; i < plait_watch_count(watch) && crew.count < 16; i++) {
        const plait_watch_instance *instance = plait_watch_at(watch, i);
        crew.pids[crew.count] = instance->pid;
        crew.numbers[crew.count] = instance->worker;
        crew.restarts[crew.count] = instance->restarts;
        crew.supervisor[crew.count++] = instance->supervisor;
    }
    plait_watch_close(watch);
    return crew;
}

bool alive(pid_t pid)
{
    char state = state_of(pid);
    return state != 0 && state != 'Z' && state != 'X';
}

/* The supervisor has heard that PID serves: it has its status page open, and what it holds is what it always holds. */
static bool known_to_serve(pid_t pid)
{
    char serves[40], takes_over[40];
    snprintf(serves, sizeof(serves), "(pid %d) serves\n", (int)pid);
    snprintf(takes_over, sizeof(takes_over), ": pid %d takes over", (int)pid);
    return written(serves) || written(takes_over);
}

struct crew await_crew(const char *name, size_t count, pid_t not )
{
    struct crew crew;
    int64_t until = now_ms() + PATIENCE_MS;
    for (;;) {
        crew = crew_of(name);
        bool complete = crew.count == count;
        for (size_t i = 0; i < crew.count; i++) complete &= crew.pids[i] != not &&known_to_serve(crew.pids[i]);
        if (complete) return crew;
        if (now_ms() > until)
            test_fail(__FILE__, __LINE__, "%zu workers instead of %zu\n%s", crew.count, count, journal->text);
        pause_ms(1);
    }
}

/* ---- scene ---- */

struct scene scene_new(void)
{
    journal_open();
    return (struct scene){
        .board = board_new(),
        .what = { .name = "crew",
                  .options = { .size = sizeof(plait_server_options), .processes = CREW, .restart_burst = -1 },
                  .storm = journal_keep }
    };
}

void scene_begin(struct scene *scene)
{
    scene->server = serve(scene->board, &scene->what);
    scene->crew = await_crew("crew", (size_t)scene->what.options.processes, 0);
}

void scene_stop(struct scene *scene)
{
    end_server(&scene->server);
    scene->server.pid = 0;
}

void scene_end(struct scene *scene)
{
    if (scene->server.pid > 0) scene_stop(scene);
    journal_close();
    board_free(scene->board);
}

pid_t hang_in_crew(const struct scene *scene)
{
    pid_t caller = fork();
    CHECK(caller >= 0);
    if (caller == 0) {
        plait_client *client = open_client("crew", NULL);
        CHECK_INT(plait_client_call(client, "hang", "\0\0\0\0\0\0\0\0", 8, NULL, NULL), -ECONNRESET);
        plait_client_close(client);
        leave(0);
    }
    WAIT_UNTIL(atomic_load(&scene->board->in_handler) != 0);
    return caller;
}
