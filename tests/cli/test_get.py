"""plait get against small servers of its own: what is sent, what is printed, what is refused."""

import socket
import threading

from plaittest import OK, PATIENCE, REFUSED, TIMED_OUT, USAGE, Case, main


class Web:
    """Listens, keeps the request of one connection, and answers it with what HANDLE does to the connection."""

    def __init__(self, case, handle, address=("127.0.0.1", 0), family=socket.AF_INET):
        self.request = b""
        self.handle = handle
        self.listener = socket.socket(family)
        self.listener.bind(address)
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        case.addCleanup(self.end)

    def run(self):
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(PATIENCE)
            while b"\r\n\r\n" not in self.request:
                data = connection.recv(4096)
                if not data:
                    break
                self.request += data
            self.handle(connection)

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        self.listener.close()


def answering(answer):
    return lambda connection: connection.sendall(answer)


class Getting(Case):
    def test_the_answer_is_printed_as_it_came(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\0any\xffbyte"
        web = Web(self, answering(answer))
        result = self.plait("get", f"http://127.0.0.1:{web.port}/a/page?with=query#and-a-mark")
        self.assertEqual((result.status, result.out, result.err), (OK, answer, ""))
        lines = web.request.split(b"\r\n")
        self.assertEqual(lines[0], b"GET /a/page?with=query HTTP/1.1")
        self.assertIn(b"Host: 127.0.0.1:%d" % web.port, lines)
        self.assertIn(b"Connection: close", lines)
        self.assertEqual(lines[-2:], [b"", b""])

    def test_an_answer_in_pieces_and_of_megabytes_is_whole(self):
        body = b"x" * 5000000

        def in_pieces(connection):
            for byte in b"HTTP/1.1 404 Not Found\r\n":
                connection.sendall(bytes([byte]))
            connection.sendall(b"\r\n" + body)

        web = Web(self, in_pieces)
        result = self.plait("get", f"http://127.0.0.1:{web.port}")
        self.assertEqual((result.status, result.out), (OK, b"HTTP/1.1 404 Not Found\r\n\r\n" + body))
        self.assertTrue(web.request.startswith(b"GET / HTTP/1.1\r\n"))

    def test_an_ipv6_address_stands_in_brackets(self):
        web = Web(self, answering(b"six"), ("::1", 0), socket.AF_INET6)
        self.assertEqual(self.plait("get", f"http://[::1]:{web.port}?q").out, b"six")
        self.assertTrue(web.request.startswith(b"GET /?q HTTP/1.1\r\n"))

    def test_a_server_that_says_nothing_is_told(self):
        web = Web(self, lambda connection: None)
        self.check_error(self.plait("get", f"http://127.0.0.1:{web.port}/"), REFUSED, "without an answer")

    def test_a_server_that_never_answers_is_given_up(self):
        ended = threading.Event()
        self.addCleanup(ended.set)
        web = Web(self, lambda connection: ended.wait(PATIENCE))
        self.check_error(self.plait("get", f"http://127.0.0.1:{web.port}/", "--timeout", "200ms"), TIMED_OUT)
        ended.set()


class Refusing(Case):
    def test_https_is_refused_with_what_to_do(self):
        self.check_error(self.plait("get", "https://localhost/"), USAGE, "https needs TLS", "http://")

    def test_what_is_no_url_is_told(self):
        for url in ("", "localhost", "tcp://localhost:1", "http://", "http:///x", "http://me@h/", "http://h/a b",
                    "http://h/\n", "http://h:1:2/", "http://h:0x1/", "http://h/" + "a" * 2000):
            with self.subTest(url[:30]):
                self.check_error(self.plait("get", url), USAGE)
        self.check_error(self.plait("get"), USAGE, "which URL?")
        self.check_error(self.plait("get", "http://a/", "http://b/"), USAGE, "only one URL")

    def test_a_port_without_a_listener_is_told(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{holder.getsockname()[1]}/"
            self.check_error(self.plait("get", url), REFUSED, "is the server running?")


if __name__ == "__main__":
    main()
