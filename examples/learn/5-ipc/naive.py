"""The echo server that everybody writes first. It works, until somebody else uses it."""
import socket

listener = socket.socket()
listener.bind(("", 0))
listener.listen()
print("listening on port", listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    text = connection.recv(1023).split(b"\0")[0]        # as C's strlen() has it
    connection.send(text)
    connection.close()
