/* supervisors: workers replaced by others, and what becomes of them and of the name when their supervisor ends. */
#include "system/crew.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* ---- replacing ---- */

TEST(a_rolling_restart_under_load_fails_no_call)
{
    enum { LOAD = 6, ROUNDS = 3 };
    TEST_TIMEOUT(240);
    struct scene scene = scene_new();
    scene.what.listen[0] = "tcp://127.0.0.1:0";
    scene_begin(&scene);
    static char url[200];
    snprintf(url, sizeof(url), "%s", scene.server.url[0]);
    const char *targets[LOAD] = { "crew", "crew", "crew?shm=off", "crew?shm=off", url, url };
    pid_t callers[LOAD];
    for (unsigned i = 0; i < LOAD; i++) callers[i] = caller_start(scene.board, i, targets[i], false);
    callers_advance(scene.board, LOAD);
    for (int round = 0; round < ROUNDS; round++) {
        char over[64];
        uint32_t before = journal_at();
        CHECK_INT(kill(scene.server.pid, SIGHUP), 0);
        WAIT_UNTIL(written_since(before, "every worker has been replaced") != NULL);
        struct crew after = await_crew("crew", CREW, scene.crew.pids[0]);
        for (size_t i = 0; i < CREW; i++) {
            for (size_t k = 0; k < CREW; k++) CHECK(after.pids[k] != scene.crew.pids[i]);
            /* The new one serves before the old one has ended: old and new overlap. */
            snprintf(over, sizeof(over), "takes over from pid %d", (int)scene.crew.pids[i]);
            const char *taken = written_since(before, over);
            snprintf(over, sizeof(over), "(pid %d) has ended", (int)scene.crew.pids[i]);
            const char *ended = written_since(before, over);
            CHECK(taken != NULL && ended != NULL && taken < ended);
        }
        scene.crew = after;
        callers_advance(scene.board, LOAD);
    }
    callers_end(scene.board, callers, LOAD);
    scene_stop(&scene);
    CHECK_INT(entries_of_names(), 0);
    scene_end(&scene);
}

TEST(a_replaced_worker_answers_what_it_had_taken)
{
    struct scene scene = scene_new();
    scene.what.options.processes = 1;
    scene_begin(&scene);
    pid_t caller = caller_start(scene.board, 0, "crew", false);
    callers_advance(scene.board, 1);
    caller_order(scene.board, 0, ORDER_DEFER);
    WAIT_UNTIL(atomic_load(&scene.board->deferred) == 1);
    CHECK_INT(kill(scene.server.pid, SIGHUP), 0);
    WAIT_UNTIL(written("takes over from"));
    CHECK(alive(scene.crew.pids[0]));
    atomic_store(&scene.board->release, 1);
    callers_advance(scene.board, 1);
    WAIT_UNTIL(!alive(scene.crew.pids[0]));
    callers_end(scene.board, &caller, 1);
    scene_end(&scene);
}

/* ---- the supervisor's end ---- */

/* Workers of a supervisor that is killed: idle, with a handler that hangs, and stopped. */
TEST(no_worker_outlives_a_supervisor_that_is_killed)
{
    struct scene scene = scene_new();
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* orphans would come to us */
    scene_begin(&scene);
    pid_t caller = hang_in_crew(&scene);
    pid_t hanging = atomic_load(&scene.board->in_handler);
    for (size_t i = 0; i < CREW; i++)
        if (scene.crew.pids[i] != hanging) {
            CHECK_INT(kill(scene.crew.pids[i], SIGSTOP), 0);
            WAIT_UNTIL(state_of(scene.crew.pids[i]) == 'T');
            break;
        }
    kill_process(scene.server.pid);
    for (size_t i = 0; i < CREW; i++) CHECK_INT(waitpid(scene.crew.pids[i], NULL, 0), scene.crew.pids[i]);
    CHECK_INT(test_wait_child(caller), 0);
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
    /* The name is free again for an exclusive one. */
    struct serve next = { .name = "crew", .options = { .size = sizeof(plait_server_options), .exclusive = 1 } };
    scene.server = serve(scene.board, &next);
    scene_end(&scene);
}

/* Whose handler hangs, and who therefore can't let go of the name. */
TEST(an_exclusive_name_is_an_orphan_s_until_it_has_ended)
{
    char text[64];
    plait_server *next = NULL;
    struct scene scene = scene_new();
    scene.what.options.processes = scene.what.options.exclusive = 1;
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    scene_begin(&scene);
    pid_t caller = hang_in_crew(&scene), orphan = scene.crew.pids[0];
    kill_process(scene.server.pid);
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.exclusive = 1;
    if (plait_server_open(&next, "crew", &options) < 0) {
        snprintf(text, sizeof(text), "already served by pid %d (", (int)orphan);
        CHECK_CONTAINS(plait_error_text(), text);
    } else {
        CHECK(!alive(orphan)); /* it has some seconds, and this machine may have been slow */
        plait_server_close(next);
    }
    CHECK_INT(waitpid(orphan, NULL, 0), orphan);
    CHECK_INT(test_wait_child(caller), 0);
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
    CHECK_INT(plait_server_open(&next, "crew", &options), 0);
    plait_server_close(next);
    scene.server.pid = 0;
    scene_end(&scene);
}
