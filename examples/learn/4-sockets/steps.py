"""Each step of a TCP connection, and what the kernel shows of it: steps.py [PORT]"""
import socket
import sys
import time

STATES = {1: "ESTABLISHED", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 8: "CLOSE_WAIT", 10: "LISTEN"}


def kernel(*ports):
    """The lines of /proc/net/tcp whose local port is ours: state, ports, bytes in both queues."""
    shown = []
    for line in open("/proc/net/tcp").readlines()[1:]:
        _, local, remote, state, queues = line.split()[:5]
        local, remote = int(local.split(":")[1], 16), int(remote.split(":")[1], 16)
        unsent, unread = (int(number, 16) for number in queues.split(":"))
        if local in ports:
            who = "client" if local != ports[0] else "server" if remote else "listener"
            shown.append(f"    {who:8} {STATES.get(int(state, 16), state):11} port {local} -> port {remote}"
                         f"  unsent={unsent} unread={unread}")
    return "\n".join(sorted(shown)) or "    (nothing)"


def step(what, *ports):
    print(what, kernel(*ports), sep="\n")


wanted = sys.argv[1] if len(sys.argv) > 1 else "0"
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
try:
    listener.bind(("127.0.0.1", int(wanted)))       # 0: the kernel picks a free port
except (OSError, OverflowError, ValueError) as error:
    sys.exit(f"steps.py: port {wanted}: {error} (leave it out, and the kernel picks a free one)")
port = listener.getsockname()[1]
step("socket, bind: we own a port, and nobody can connect", port)
listener.listen()
step("listen: now the kernel answers for us", port)

client = socket.create_connection(("127.0.0.1", port))
own = client.getsockname()[1]
step("connect: it succeeds though nobody accepted; the new one waits in the listener's queue", port, own)
server, _ = listener.accept()
step("accept: takes it out of the queue", port, own)

client.send(b"hello")
step("send: five bytes lie at the other end, unread", port, own)
print("recv:", server.recv(100))
step("recv: and now they don't", port, own)

client.shutdown(socket.SHUT_WR)
print("half-closed: the server reads the end,", server.recv(100), "and can still send")
while "FIN_WAIT1" in kernel(port, own):               # until the other side has acknowledged it
    time.sleep(0.001)
step("shutdown: each side knows that one direction is over", port, own)
server.send(b"goodbye")
print("recv:", client.recv(100))

server.close()
client.close()
listener.close()
step("close: the kernel remembers the client's side for a minute, against stray packets", port, own)
