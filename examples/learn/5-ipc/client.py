"""Five things that happen to a server, each tried from outside: client.py [SECONDS] PORT, 1 s of patience."""
import socket
import sys

port = int(sys.argv[-1])
patience = float(sys.argv[1]) if len(sys.argv) > 2 else 1.0


def connect():
    return socket.create_connection(("127.0.0.1", port), timeout=patience)


def echo(connection, data):
    """What comes back for DATA: as much as was sent, or what comes until the end or patience's end."""
    back = b""
    try:
        connection.sendall(data)
        while len(back) < len(data):
            piece = connection.recv(65536)
            if not piece:
                break
            back += piece
    except OSError:
        pass
    return back


def check(what, data, back):
    print(f"{what:22}", "right" if back == data else f"WRONG: {len(back)} of {len(data)} bytes came back")


check("a NUL byte", b"a\0b", echo(connect(), b"a\0b"))
check("2,000 bytes", b"x" * 2000, echo(connect(), b"x" * 2000))
with connect() as idle:                                 # it is the first to be accepted, and says nothing
    with connect() as second:
        check("a second client", b"hello", echo(second, b"hello"))
gone = connect()                                        # as if its machine had lost power: no word, no end
with connect() as after:
    check("a client that vanished", b"hello", echo(after, b"hello"))
for line in open("/proc/net/tcp"):
    fields = line.split()
    if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
        everybody = fields[1].startswith("00000000")
        print("who can connect       ", "WRONG: everybody, from all addresses" if everybody else "this machine alone")
