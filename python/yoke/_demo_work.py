# SPDX-License-Identifier: MIT
"""What the demo runs: squares, hashes, downloads; and how it is measured.

Workers import this module, so what only some of them need is imported there.
"""
import os
import time

SQUARES = 1_000_000
HASHED_BYTES = 16 << 20
PAGES = 16
PAGE_BYTES = 16384
PAGE_DELAY_S = 0.05
LIMIT_S = 10  # for one page


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
    import hashlib

    return hashlib.sha256(bytes(size)).hexdigest()


def download(port):
    """One page; its size."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
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
        answer = await asyncio.wait_for(reader.read(-1), LIMIT_S)
    finally:
        writer.close()
    return len(answer.partition(b"\r\n\r\n")[2])


def trouble(number):
    """Some of these calls do not end as they should."""
    if number == 3:
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.raise_signal(signal.SIGSEGV)
    elif number == 5:
        os._exit(7)
    elif number == 7:
        while True:
            pass
    return number * number


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
