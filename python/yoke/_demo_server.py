# SPDX-License-Identifier: MIT
"""The demo's web server: pages on loopback, each after a while; in threads of the program."""
import socketserver
import threading
import time

from yoke._demo_work import LIMIT_S, PAGE_BYTES, PAGE_DELAY_S, PAGES


class _Handler(socketserver.StreamRequestHandler):
    timeout = LIMIT_S

    def handle(self):
        while self.rfile.readline(1024).strip():
            pass
        time.sleep(PAGE_DELAY_S)
        head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % PAGE_BYTES
        self.wfile.write(head + bytes(PAGE_BYTES))


class Server(socketserver.ThreadingTCPServer):
    """Web pages on loopback, each after a while; in threads of this program."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 4 * PAGES

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that went away."""
