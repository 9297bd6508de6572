"""A web server for one command: runs COMMAND with PORT replaced by the server's port, then ends."""
import http.server
import subprocess
import sys
import threading


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"It works.\n"
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
command = [word.replace("PORT", str(server.server_address[1])) for word in sys.argv[1:]]
sys.exit(subprocess.run(command).returncode)
