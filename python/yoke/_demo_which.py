# SPDX-License-Identifier: MIT
"""python -m yoke which: what each way to run work costs here, and which one to use."""
import asyncio
import concurrent.futures
import statistics
import time

import yoke
from yoke import _demo_work as work
from yoke import _yoke
from yoke._demo import about, has_gil
from yoke._demo_server import Server
from yoke._demo_text import bytes_text, time_text, times_text

_MEMORY_WORKERS = 4
_PAYS = 1.2
_HEAD = ["", "start", "a call", "an item", "memory", "squares", "hashes", "pages"]
_MEANING = """\
start: until the first result of a new pool. a call: submit, and wait for the result. an item: of \
a map of many. memory: of one more worker, not shared with others. squares, hashes, pages: how \
many times as fast as one after the other; Python code, C code that lets the GIL go (SHA-256), \
and 16 downloads at once that each wait 50 ms."""


def _threads(workers):
    return concurrent.futures.ThreadPoolExecutor(workers)


def _fresh(workers, preload=()):
    return yoke.Pool(workers=workers, preload=preload)


def _fork(workers):
    return yoke.Pool(workers=workers, start="fork")


class _Loop:
    """asyncio as far as it is like a pool: calls are coroutines of one thread."""

    def __init__(self, workers):
        self._runner = asyncio.Runner()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.close()

    def submit(self, function):
        future = concurrent.futures.Future()
        future.set_result(self.map(function, [None])[0])
        return future

    def call_seconds(self):
        """Of one task, from inside the loop."""
        async def one():
            work.nothing()

        async def many():
            took = []
            for _ in range(200):
                began = time.perf_counter()
                await asyncio.create_task(one())
                took.append(time.perf_counter() - began)
            return statistics.median(took)

        return self._runner.run(many())

    def map(self, function, *iterables):
        async def one(args):
            return function(*args)

        async def page(args):
            return await work.download_async(*args)

        body = page if function is work.download else one

        async def all_of_them():
            return await asyncio.gather(*[body(args) for args in zip(*iterables)])

        return self._runner.run(all_of_them())


def _ways():
    ways = {"threads": _threads, "processes, fresh": _fresh, "processes, fork": _fork,
            "asyncio": _Loop}
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
    if interpreters is not None:
        ways["interpreters"] = interpreters
    return ways


# --- one way -------------------------------------------------------------------------------------


def _start(way, workers):
    began = time.perf_counter()
    with way(workers) as pool:
        pool.submit(work.nothing).result()
        return time.perf_counter() - began


def _call(pool, seconds=0.1, most=1000):
    if isinstance(pool, _Loop):
        return pool.call_seconds()
    took = []
    end = time.perf_counter() + seconds
    while len(took) < 10 or (len(took) < most and time.perf_counter() < end):
        began = time.perf_counter()
        pool.submit(work.nothing).result()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _item(pool, enough=0.05):
    count = 500
    while True:
        began = time.perf_counter()
        for _ in pool.map(work.nothing, range(count)):
            pass
        took = time.perf_counter() - began
        if took >= enough or count > 200_000:
            return took / count
        count *= 4


def _memory(way):
    """Private bytes of one more worker, and what the program itself needs for it."""
    if way is _Loop:
        return None
    before = work.private_bytes("self")
    with way(_MEMORY_WORKERS) as pool:
        for _ in pool.map(time.sleep, [0.01] * 4 * _MEMORY_WORKERS):
            pass
        pids = getattr(pool, "worker_ids", list)()
        if pids:
            return statistics.median(work.private_bytes(pid) for pid in pids)
        return max(0, work.private_bytes("self") - before) / _MEMORY_WORKERS


def _speedup(one, way, rounds):
    """How many times as fast; the two take turns, so that both see the same machine."""
    way()
    seconds = work.measure({"one": one, "way": way}, rounds)
    return seconds["one"] / seconds["way"]


def _speedups(way, workers, port, pages_serial):
    firsts, lasts = zip(*work.parts(workers, work.SQUARES))
    sizes = [work.HASHED_BYTES // workers] * workers
    with way(workers) as pool:
        found = {
            "squares": _speedup(lambda: work.squares(1, work.SQUARES + 1),
                                lambda: sum(_map(pool, work.squares, firsts, lasts)), 5),
            "hashes": _speedup(lambda: [work.hashes(size) for size in sizes],
                               lambda: list(_map(pool, work.hashes, sizes)), 5),
        }
    ports = [port] * work.PAGES
    more = {"preload": ["http.client"]} if way is _fresh else {}
    with way(work.PAGES, **more) as pool:
        sum(_map(pool, work.download, ports))
        pages = work.measure({"pages": lambda: sum(_map(pool, work.download, ports))}, 3,
                             work.PAGES * work.PAGE_BYTES)
    return found | {"pages": pages_serial / pages["pages"]}


def _map(pool, function, *iterables):
    more = {"chunksize": 1} if isinstance(pool, yoke.Pool) else {}
    return pool.map(function, *iterables, **more)


def _measure(way, workers, port, pages_serial):
    found = {"start": min(_start(way, workers) for _ in range(3))}
    with way(workers) as pool:
        pool.submit(work.nothing).result()
        found["call"] = _call(pool)
        found["item"] = _item(pool)
    found["memory"] = _memory(way)
    return found | _speedups(way, workers, port, pages_serial)


# --- all ways ------------------------------------------------------------------------------------


def run(screen):
    """Measure all, print the table and what follows; returns what --json prints."""
    cpus = _yoke.cpu_count()
    workers = max(2, cpus)
    screen.say(about(cpus))
    busy = work.other_work()
    if busy:
        screen.say(busy)
    figures = {}
    with Server() as server:
        screen.busy("one after the other")
        work.download(server.port)
        one_by_one = {"pages": lambda: [work.download(server.port) for _ in range(work.PAGES)]}
        pages = work.measure(one_by_one, 1)["pages"]
        for name, way in _ways().items():
            screen.busy(name)
            figures[name] = _measure(way, workers, server.port, pages)
    verdicts = show(screen, figures, workers, cpus)
    return {"yoke": yoke.__version__, "cpus": cpus, "gil": has_gil(), "workers": workers,
            "ways": figures, "verdicts": verdicts}


def show(screen, figures, workers, cpus):
    """The table and what follows from it; returns that."""
    screen.heading(f"What it costs and what it gains, with {workers} workers (pages: {work.PAGES})")
    screen.table([_row(name, found) for name, found in figures.items()], _HEAD)
    screen.say(_MEANING)
    screen.heading("Which one")
    verdicts = list(_verdicts(figures, cpus))
    for verdict in verdicts:
        screen.verdict(verdict)
    return verdicts


def _row(name, found):
    memory = "-" if found["memory"] is None else bytes_text(found["memory"])
    return [name, time_text(found["start"]), time_text(found["call"]), time_text(found["item"]),
            memory, *(times_text(found[kind]) for kind in ("squares", "hashes", "pages"))]


def _verdicts(figures, cpus):
    threads, fresh = figures["threads"], figures["processes, fresh"]
    loop = figures["asyncio"]
    if threads["pages"] >= _PAYS:
        yield (f"Waits (network, files, other programs): threads, {times_text(threads['pages'])} "
               f"here; or asyncio, {times_text(loop['pages'])}, when thousands wait at once and "
               "all the code is written for it.")
    if cpus == 1:
        yield "Computes: with 1 CPU nothing is faster than one loop."
        return
    if threads["hashes"] >= _PAYS:
        yield ("Computes in C code that lets the GIL go (numpy, hashlib, zlib): threads, "
               f"{times_text(threads['hashes'])} here, and nothing has to be sent.")
    if threads["squares"] >= _PAYS and not has_gil():
        yield ("Computes in Python code: threads, since there is no GIL: "
               f"{times_text(threads['squares'])}.")
    elif fresh["squares"] >= _PAYS:
        yield (f"Computes in Python code: processes, {times_text(fresh['squares'])} here; threads "
               f"{times_text(threads['squares'])}. A map costs {time_text(fresh['item'])} for each "
               f"item and a call by itself {time_text(fresh['call'])}: what takes less than that "
               "is faster in one loop.")
    else:
        yield (f"Computes in Python code: processes, but they gained nothing now "
               f"({times_text(fresh['squares'])}): other work has the CPUs.")
    yield ("May crash, hang or leak: processes. A call that is killed costs that call, and "
           "timeout= ends one that does not end.")
    yield ("start=\"fork\" when workers need what is in memory now and is large; else fresh.")
