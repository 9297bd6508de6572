/* workers: the public functions. */
#include "base/error.h"
#include "base/options.h"
#include "worker/worker.h"

#include <errno.h>

int plait_server_run(plait_server *server)
{
    if (server->control_fd >= 0) {
        int control = server->control_fd;
        server->control_fd = -1;
        return pl_worker_serve(server, control);
    }
    return server->processes && !server->worker ? pl_supervise(server) : pl_server_serve(server);
}

int plait_server_workers(plait_server *server, const plait_worker_hooks *hooks)
{
    plait_worker_hooks known;
    int r = pl_server_check(server);
    if (r == 0) r = pl_options_read(&known, sizeof(known), hooks, "plait_worker_hooks");
    if (r < 0) return r;
    if (server->state != PL_SERVER_OPEN) return pl_error(-EBUSY, "%s runs already", server->name);
    server->hooks = known;
    return 0;
}

int plait_worker_fail(int code, const char *text)
{
    return pl_error(code, "%s", text);
}

int plait_server_worker(const plait_server *server)
{
    return (int)server->worker;
}
