/* workers: a supervisor's processes: how they serve, die and are started again, and what they share. */
#include "system/crew.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the usual ---- */

TEST(every_worker_serves_and_a_stop_ends_them_all)
{
    struct scene scene = scene_new();
    scene_begin(&scene);
    uint32_t numbers = 0;
    for (size_t i = 0; i < CREW; i++) {
        CHECK_INT(scene.crew.supervisor[i], scene.server.pid);
        CHECK_INT(scene.crew.restarts[i], 0);
        numbers |= 1u << scene.crew.numbers[i];
    }
    CHECK_INT(numbers, 2 | 4 | 8);
    pid_t callers[4];
    for (unsigned i = 0; i < 4; i++) callers[i] = caller_start(scene.board, i, i % 2 ? "crew" : "crew?shm=off", false);
    callers_advance(scene.board, 4);
    callers_end(scene.board, callers, 4);
    scene_stop(&scene);
    for (size_t i = 0; i < CREW; i++) CHECK(!alive(scene.crew.pids[i]));
    CHECK_INT(entries_of_names(), 0);
    WAIT_UNTIL(written("worker 1 (pid"));
    WAIT_UNTIL(written("has ended"));
    scene_end(&scene);
}

/* ---- deaths ---- */

/* A worker dies of NUMBER while it handles a call: what its caller is told, and that the place is filled again. */
static void check_death(const char *target, int number, const char *word, int threads)
{
    struct scene scene = scene_new();
    scene.what.options.threads = threads;
    scene_begin(&scene);
    pid_t caller = fork();
    if (caller == 0) {
        plait_client *client = open_client(target, NULL);
        char text[128];
        int r = plait_client_call(client, "hang", "\0\0\0\0\0\0\0\0", 8, NULL, NULL);
        if (r != -ECONNRESET) test_fail(__FILE__, __LINE__, "%d: %s", r, plait_error_text());
        CHECK_CONTAINS(plait_error_text(), "may have run");
        pid_t victim = atomic_load(&scene.board->in_handler);
        uint32_t place = 0;
        for (size_t i = 0; i < CREW; i++)
            if (scene.crew.pids[i] == victim) place = scene.crew.numbers[i];
        if (strstr(target, "shm=off") == NULL && !test_sanitized()) { /* there the news takes its time */
            snprintf(text, sizeof(text), "worker %u (pid %d) died: signal %d (%s)", place, (int)victim, number, word);
            CHECK_CONTAINS(plait_error_text(), text);
        }
        CHECK_INT(checked_call(scene.board, client, 100, 0, 0), 0); /* the others are there */
        plait_client_close(client);
        caller_forget();
        leave(0);
    }
    WAIT_UNTIL(atomic_load(&scene.board->in_handler) != 0);
    pid_t victim = atomic_load(&scene.board->in_handler);
    CHECK_INT(kill(victim, number), 0);
    CHECK_INT(test_wait_child(caller), 0);
    struct crew after = await_crew("crew", CREW, victim);
    uint32_t restarts = 0;
    for (size_t i = 0; i < CREW; i++) restarts += after.restarts[i];
    CHECK_INT(restarts, 1);
    char text[128];
    snprintf(text, sizeof(text), "(pid %d) died: signal %d (%s), call 1 of crew/hang in progress", (int)victim, number,
             word);
    WAIT_UNTIL(written(text));
    scene_end(&scene);
}

TEST(a_worker_s_crash_is_told_to_its_caller_with_its_signal)
{
    if (test_sanitized()) SKIP("the sanitizer has a handler of its own");
    check_death("crew", SIGSEGV, "Segmentation fault", 1);
    check_death("crew", SIGABRT, "Aborted", 4);
    check_death("crew?shm=off", SIGBUS, "Bus error", 1);
}

TEST(a_killed_worker_is_told_to_its_caller_as_well)
{
    check_death("crew", SIGKILL, "Killed", 1);
    check_death("crew", SIGKILL, "Killed", 4);
}

TEST(workers_that_die_harm_no_call_but_their_own)
{
    enum { LOAD = 4, KILLS = 12 };
    struct scene scene = scene_new();
    scene_begin(&scene);
    pid_t callers[LOAD];
    for (unsigned i = 0; i < LOAD; i++) callers[i] = caller_start(scene.board, i, "crew", true);
    callers_advance(scene.board, LOAD);
    size_t fds = fds_of(scene.server.pid);
    for (int i = 0; i < KILLS; i++) {
        pid_t victim = await_crew("crew", CREW, 0).pids[i % CREW];
        CHECK_INT(kill(victim, SIGKILL), 0);
        (void)await_crew("crew", CREW, victim);
        callers_advance(scene.board, LOAD);
    }
    uint32_t lost = 0;
    for (unsigned i = 0; i < LOAD; i++) lost += atomic_load(&scene.board->caller[i].lost);
    CHECK(lost <= LOAD * KILLS); /* one call at most of each caller for each death */
    callers_end(scene.board, callers, LOAD);
    await_fds(scene.server.pid, fds);
    scene_end(&scene);
}

TEST(an_idempotent_call_goes_to_the_next_worker_by_itself)
{
    struct scene scene = scene_new();
    scene_begin(&scene);
    pid_t caller = fork();
    if (caller == 0) {
        plait_client *client = open_client("crew", NULL);
        plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
        options.flags = PLAIT_CALL_IDEMPOTENT;
        int r = plait_client_call(client, "hang", "\0\0\0\0\0\0\0\0", 8, &options, NULL);
        if (r < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
        plait_client_close(client);
        leave(0);
    }
    pid_t before = 0;
    for (int i = 0; i < 4; i++) {
        WAIT_UNTIL(atomic_load(&scene.board->in_handler) != before);
        before = atomic_load(&scene.board->in_handler);
        CHECK_INT(kill(before, SIGKILL), 0);
    }
    WAIT_UNTIL(atomic_load(&scene.board->in_handler) != before);
    atomic_store(&scene.board->release, 1);
    CHECK_INT(test_wait_child(caller), 0);
    scene_end(&scene);
}

/* ---- listeners ---- */

TEST(a_worker_s_death_loses_only_its_own_connections_of_a_shared_listener)
{
    enum { LOAD = 9 };
    struct scene scene = scene_new();
    scene.what.listen[0] = "tcp://127.0.0.1:0";
    scene_begin(&scene);
    plait_client *clients[LOAD];
    for (int i = 0; i < LOAD; i++) clients[i] = open_client(scene.server.url[0], NULL);
    for (int i = 0; i < LOAD; i++) CHECK_INT(checked_call(scene.board, clients[i], 100, 0, 0), 0);
    plait_watch *watch;
    size_t shares[CREW] = { 0 }, connections = 0;
    CHECK_INT(plait_watch_open(&watch, "crew"), 0);
    for (size_t i = 0; i < plait_watch_count(watch); i++)
        for (size_t k = 0; k < CREW; k++)
            if (plait_watch_at(watch, i)->pid == scene.crew.pids[k]) {
                shares[k] = plait_watch_at(watch, i)->connection_count;
                connections += shares[k];
            }
    plait_watch_close(watch);
    CHECK_INT(connections, LOAD);
    size_t victim = 0;
    for (size_t k = 1; k < CREW; k++)
        if (shares[k] > shares[victim]) victim = k;
    CHECK_INT(kill(scene.crew.pids[victim], SIGKILL), 0);
    WAIT_UNTIL(!alive(scene.crew.pids[victim]));
    /* Those of the victim connect again and are served: the listener was never closed. */
    for (int i = 0; i < LOAD; i++) CHECK_INT(checked_call(scene.board, clients[i], 100, PLAIT_CALL_IDEMPOTENT, 0), 0);
    for (int i = 0; i < LOAD; i++) plait_client_close(clients[i]);
    scene_end(&scene);
}

TEST(a_stopped_worker_holds_up_no_new_connection)
{
    struct scene scene = scene_new();
    scene.what.listen[0] = "tcp://127.0.0.1:0?framing=lines";
    scene_begin(&scene);
    for (size_t i = 0; i + 1 < CREW; i++) {
        CHECK_INT(kill(scene.crew.pids[i], SIGSTOP), 0);
        WAIT_UNTIL(state_of(scene.crew.pids[i]) == 'T');
    }
    for (int i = 0; i < 20; i++) {
        int fd = raw_connect(scene.server.url[0]);
        char byte;
        raw_send(fd, "abcdefgh\n", 9);
        CHECK_INT(raw_read(fd, &byte, 1), 1);
        close(fd);
    }
    for (size_t i = 0; i + 1 < CREW; i++) CHECK_INT(kill(scene.crew.pids[i], SIGCONT), 0);
    scene_end(&scene);
}

TEST(a_unix_listener_s_file_goes_with_the_supervisor_and_not_with_a_worker)
{
    char url[300], path[280];
    struct scene scene = scene_new();
    snprintf(path, sizeof(path), "%s/shared", test_directory());
    snprintf(url, sizeof(url), "unix://%s", path);
    scene.what.listen[0] = url;
    scene_begin(&scene);
    CHECK_INT(kill(scene.crew.pids[0], SIGTERM), 0); /* it drains, as a stop would make it */
    (void)await_crew("crew", CREW, scene.crew.pids[0]);
    WAIT_UNTIL(written("exit status 0 (nobody had asked it to end)"));
    CHECK_INT(access(path, F_OK), 0);
    plait_client *client = open_client(url, NULL);
    CHECK_INT(checked_call(scene.board, client, 100, 0, 0), 0);
    plait_client_close(client);
    scene_stop(&scene);
    CHECK_INT(access(path, F_OK), -1);
    scene_end(&scene);
}
