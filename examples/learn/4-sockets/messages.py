"""One recv() is not one message: a stream has no borders but its end; a datagram is a message, if it comes."""
import socket


def pair():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server, _ = listener.accept()
    listener.close()
    return client, server


def wait(sock, size):
    """Until SIZE bytes lie there: so that what you see doesn't depend on luck."""
    while len(sock.recv(size, socket.MSG_PEEK)) < size:
        pass


client, server = pair()
client.send(b"one")
client.send(b"two")
wait(server, 6)
print("TCP, joined: two sends, one recv:", server.recv(100))

client.send(b"a long message")
wait(server, 14)
print("TCP, split: one send, two recvs:", server.recv(6), server.recv(100))

client.send(b"a\0b\n")
wait(server, 4)
data = server.recv(100)
print("TCP, NUL: four bytes came:", data, "- a C string would end at", data.split(b"\0")[0])

client.shutdown(socket.SHUT_WR)
print("TCP, half-closed: recv says the end:", server.recv(100), "- and the other direction still works:", end=" ")
server.send(b"answer")
print(client.recv(100))

receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect(receiver.getsockname())
sender.send(b"one")
sender.send(b"two")
sender.send(b"")
print("UDP: each send is a message:", receiver.recv(100), receiver.recv(100), receiver.recv(100))
sender.send(b"a long message")
print("UDP, cut: what recv has no room for is gone:", receiver.recv(6))
try:
    sender.send(b"x" * 65508)
except OSError as error:
    print("UDP, 65508 bytes:", error.strerror)
receiver.close()
sender.send(b"anybody?")
try:
    sender.send(b"hello?")
except ConnectionRefusedError as error:
    print("UDP, nobody there: the first send succeeds, the next one hears:", error.strerror)
