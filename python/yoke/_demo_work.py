# SPDX-License-Identifier: MIT
"""What the demo runs: squares, hashes, downloads from a local server; and how it is measured.

The functions are in a module that workers import, so that they start without cloudpickle.
"""
import hashlib
import http.client
import os
import signal
import socketserver
import threading
import time

SQUARES = 1_000_000
HASHED_BYTES = 16 << 20
PAGES = 16
PAGE_BYTES = 16384
PAGE_DELAY_S = 0.05
_LIMIT_S = 10  # for one page


def nothing(_=None):
    """A call that does nothing, to see what calls cost."""


def squares(first, last):
    """The sum of the squares of first to last - 1: Python code."""
    total = 0
    for x in range(first, last):
        total += x * x
    return total


def squares_sum(count):
    """What it should be."""
    return count * (count + 1) * (2 * count + 1) // 6


def parts(count, size):
    """1 to size in count equal parts."""
    edges = [1 + i * size // count for i in range(count + 1)]
    return list(zip(edges, edges[1:]))


def hashes(size):
    """A checksum of so many bytes: C code, without the GIL."""
    return hashlib.sha256(bytes(size)).hexdigest()


def download(port):
    """One page; its size."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    try:
        connection.request("GET", "/")
        return len(connection.getresponse().read())
    finally:
        connection.close()


async def download_async(port):
    """The same with asyncio."""
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(-1), _LIMIT_S)
    finally:
        writer.close()
    return len(answer.partition(b"\r\n\r\n")[2])


def trouble(number):
    """Some of these calls do not end as they should."""
    if number == 3:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.raise_signal(signal.SIGSEGV)
    elif number == 5:
        os._exit(7)
    elif number == 7:
        while True:
            pass
    return number * number


# --- the server ----------------------------------------------------------------------------------


class _Handler(socketserver.StreamRequestHandler):
    timeout = _LIMIT_S

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


# --- how it is measured --------------------------------------------------------------------------


def measure(ways, rounds, expected=None):
    """The least seconds of each function; they take turns. What they return is compared.

    The least, since other work on the machine can only add to it.
    """
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, function in ways.items():
            began = time.perf_counter()
            value = function()
            seconds[name].append(time.perf_counter() - began)
            if expected is not None and value != expected:
                raise RuntimeError(f"{name}: the result is {value!r} and should be {expected!r}")
    return {name: min(values) for name, values in seconds.items()}


def private_bytes(*pids):
    """Memory that these processes share with nobody."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
    return total * 1024


def other_work():
    """How many CPUs are in use by others, by the last minute; as a sentence, or None."""
    load = os.getloadavg()[0]
    if load < 0.5:
        return None
    return f"This machine has other work to do (load {load:.1f}): the figures may be off."
