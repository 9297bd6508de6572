/* adopt: a worker that is a program of its own. It shares no memory with its supervisor: who it is, its listeners, its
 * load page and the name's lock come by the socket, before anything else.
 */
#include "base/error.h"
#include "base/fd.h"
#include "base/options.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { FD_LOAD, FD_LOCK, FD_COUNT };

/* ---- the supervisor's side ---- */

static int send_part(const struct pl_worker *worker, const void *data, size_t size, const int *fds, size_t count)
{
    ssize_t n = pl_fd_send(worker->control.fd, data, size, fds, count);
    if (n == (ssize_t)size) return 0;
    return pl_error(n < 0 ? (int)n : -EMSGSIZE, "cannot hand worker %u what it needs: %s", worker->number,
                    pl_error_word(n < 0 ? (int)n : -EMSGSIZE));
}

int pl_worker_send_seed(const struct pl_worker *worker)
{
    const struct plait_server *server = worker->supervisor->server;
    struct pl_worker_seed seed = { .magic = PL_WORKER_SEED,
                                   .version = PLAIT_VERSION,
                                   .number = worker->number,
                                   .restarts = worker->seat->restarts,
                                   .listeners = server->listener_count,
                                   .supervisor = worker->load->supervisor };
    int fds[FD_COUNT] = { [FD_LOAD] = worker->load_fd, [FD_LOCK] = pl_claim_lock_fd(&server->claim) };
    strcpy(seed.name, server->name);
    int r = send_part(worker, &seed, sizeof(seed), fds, FD_COUNT);
    for (unsigned i = 0; r == 0 && i < server->listener_count; i++) {
        const struct pl_listener *listener = server->listeners[i];
        r = send_part(worker, listener->text, strlen(listener->text) + 1, &listener->source.fd, 1);
    }
    return r;
}

/* ---- the worker's ---- */

/* One message of at most SIZE bytes with exactly COUNT descriptors: its length, or -errno. */
static ssize_t take_part(int control, void *data, size_t size, int *fds, size_t count)
{
    size_t came = count;
    ssize_t n = pl_fd_receive(control, data, size, fds, &came);
    if (n == 0) return pl_error(-ECONNRESET, "the supervisor is gone");
    if (n == -EPROTO) return n;
    if (n < 0) return pl_error(-EPROTO, "descriptor %d is no supervisor's socket: %s", control, pl_error_word((int)n));
    if (came == count) return n;
    for (size_t i = 0; i < came; i++) pl_close(&fds[i]);
    return pl_error(-EPROTO, "the supervisor sent %zu descriptors where %zu were due", came, count);
}

static int take_seed(int control, struct pl_worker_seed *seed, int fds[FD_COUNT])
{
    ssize_t n = take_part(control, seed, sizeof(*seed), fds, FD_COUNT);
    if (n < 0) return (int)n;
    seed->version[sizeof(seed->version) - 1] = seed->name[PLAIT_NAME_MAX] = 0;
    if (n != (ssize_t)sizeof(*seed) || seed->magic != PL_WORKER_SEED)
        return pl_error(-EPROTO, "descriptor %d is no supervisor's socket", control);
    if (strcmp(seed->version, PLAIT_VERSION) != 0)
        return pl_error(-EPROTO, "the supervisor has plait %s, this program %s: restart it", seed->version,
                        PLAIT_VERSION);
    return 0;
}

static int take_listeners(struct plait_server *server, int control, unsigned count)
{
    if (count >= PL_LISTENERS_MAX)
        return pl_error(-EPROTO, "the supervisor has %u listeners; the limit is PL_LISTENERS_MAX, %d", count,
                        PL_LISTENERS_MAX);
    for (unsigned i = 0; i < count; i++) {
        char text[sizeof(server->listeners[0]->text)];
        struct pl_url url;
        int fd = -1;
        ssize_t n = take_part(control, text, sizeof(text), &fd, 1);
        if (n < 0) return (int)n;
        text[n > 0 ? n - 1 : 0] = 0;
        int r = pl_url_parse(&url, text);
        if (r < 0) pl_close(&fd);
        else r = pl_server_add_listener(server, &url, text, fd);
        if (r < 0) return r;
    }
    return 0;
}

static int adopt(struct plait_server *server, int control, const struct pl_worker_seed *seed, int fds[FD_COUNT])
{
    /* First: what it closes when something fails is the supervisor's. */
    server->worker = seed->number;
    server->restarts = seed->restarts;
    server->supervisor = seed->supervisor;
    server->spawned = true;
    int r = pl_worker_bind(seed->supervisor);
    if (r == 0) r = take_listeners(server, control, seed->listeners);
    if (r == 0) r = pl_load_adopt(&server->load, fds[FD_LOAD]);
    if (r < 0) return r;
    server->load_fd = fds[FD_LOAD];
    server->name_lock = fds[FD_LOCK];
    fds[FD_LOAD] = fds[FD_LOCK] = -1;
    return 0;
}

int plait_server_open_worker(plait_server **ret_server, int control, const plait_server_options *options)
{
    int taken PL_AUTO_CLOSE = control, fds[FD_COUNT] = { -1, -1 };
    plait_server_options known;
    struct pl_worker_seed seed;
    struct plait_server *server = NULL;
    if (fcntl(taken, F_SETFD, FD_CLOEXEC) < 0) /* it was for this program, and is not for those that it starts */
        return pl_error(-EPROTO, "descriptor %d is no supervisor's socket: %s", control, pl_error_word(errno));
    int r = pl_options_read(&known, sizeof(known), options, "plait_server_options");
    if (r == 0) r = take_seed(taken, &seed, fds);
    if (r == 0) {
        known.processes = known.exclusive = 0;
        r = pl_server_new(&server, seed.name, &known);
    }
    if (r == 0) r = adopt(server, taken, &seed, fds);
    for (int i = 0; i < FD_COUNT; i++) pl_close(&fds[i]);
    if (r < 0) {
        plait_server_close(server);
        return r;
    }
    server->control_fd = taken;
    taken = -1;
    *ret_server = server;
    return 0;
}
