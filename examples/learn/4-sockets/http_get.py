"""A web client by hand: connect, send four lines, print what comes. Arguments: HOST PORT."""
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])
with socket.create_connection((host, port)) as connection:
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    while data := connection.recv(4096):             # b"" is the end: the server has closed
        sys.stdout.buffer.write(data)
