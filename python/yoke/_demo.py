# SPDX-License-Identifier: MIT
"""python -m yoke: work that computes, work that waits, calls that crash; each measured while it is
told. A part returns what --json prints: its figures and its verdict."""
import concurrent.futures
import statistics
import sys
import time

import yoke
from yoke import _demo_work as work
from yoke import _yoke
from yoke._demo_server import Server
from yoke._demo_text import bytes_text, time_text, times_text

_ROUNDS = 7
_PAYS = 1.2  # times as fast: then it pays


def has_gil():
    """Threads of this Python take turns."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def about(cpus):
    """The first sentence."""
    version = ".".join(map(str, sys.version_info[:3]))
    return (f"Yoke {yoke.__version__} with Python {version}{'' if has_gil() else ' (no GIL)'}. "
            f"This program may use {cpus} CPU{'s' * (cpus != 1)}. "
            "Every figure below is measured now, in a few turns; the best counts.")


def run(screen):
    """Tell all parts; returns what --json prints."""
    cpus = _yoke.cpu_count()
    screen.say(about(cpus))
    busy = work.other_work()
    if busy:
        screen.say(busy)
    parts = [_squares(screen, cpus), _downloads(screen, cpus), _faults(screen)]
    screen.heading("Try next")
    screen.say("python -m yoke which")
    return {
        "yoke": yoke.__version__,
        "python": sys.version.split()[0],
        "gil": has_gil(),
        "cpus": cpus,
        "as_promised": parts[-1]["as_promised"],
        "parts": parts,
    }


def _figures(seconds, base):
    return [{"name": name, "seconds": value, "speedup": base / value}
            for name, value in seconds.items()]


def _rows(figures):
    rows = []
    for figure in figures:
        speedup = times_text(figure["speedup"]) if figure is not figures[0] else ""
        rows.append([figure["name"], time_text(figure["seconds"]), speedup])
    return rows


# --- 1. squares ----------------------------------------------------------------------------------


def _squares(screen, cpus):
    workers = max(2, cpus)
    cut = work.parts(workers, work.SQUARES)
    firsts, lasts = zip(*cut)
    screen.heading("1. Work that computes")
    screen.say(f"the squares of 1 to {work.SQUARES:,} in {workers} equal parts:")
    screen.busy("squares")

    def one_loop():
        return work.squares(1, work.SQUARES + 1)

    def started():
        with yoke.Pool(workers=workers) as new:
            return sum(new.map(work.squares, firsts, lasts, chunksize=1))

    with concurrent.futures.ThreadPoolExecutor(workers) as threads, yoke.Pool(
        workers=workers
    ) as pool:
        ways = {
            "one loop": one_loop,
            "threads": lambda: sum(threads.map(work.squares, firsts, lasts)),
            "processes": lambda: sum(pool.map(work.squares, firsts, lasts, chunksize=1)),
        }
        for way in ways.values():  # they are warm then
            way()
        seconds = work.measure(ways, _ROUNDS, work.squares_sum(work.SQUARES))
    seconds |= work.measure({"processes, started for it": started}, 3,
                            work.squares_sum(work.SQUARES))
    figures = _figures(seconds, seconds["one loop"])
    screen.table(_rows(figures))
    verdict = _squares_verdict(seconds, cpus)
    screen.verdict(verdict)
    return {"name": "squares", "figures": figures, "verdict": verdict}


def _squares_verdict(seconds, cpus):
    loop = seconds["one loop"]
    threads, processes = loop / seconds["threads"], loop / seconds["processes"]
    if cpus == 1:
        return "With 1 CPU nothing can make work that computes faster."
    if processes < _PAYS:
        return (f"Processes did not help now ({times_text(processes)}): other work has the CPUs. "
                "Try again when they are free.")
    if threads >= _PAYS:
        why = ("but the GIL lets one thread run at a time, so try again: other work may have "
               "slowed the one loop down" if has_gil() else "since this Python has no GIL")
        return f"Threads are {times_text(threads)} as fast as one loop, {why}."
    start = max(0.0, seconds["processes, started for it"] - seconds["processes"])
    pays = start / (1 - 1 / processes)
    return (f"Take processes, yoke.Pool: {times_text(processes)}. Threads are "
            f"{times_text(threads)}, since the GIL lets one of them run Python code at a time. To "
            f"start and end the processes took {time_text(start)}, so they pay from about "
            f"{time_text(pays)} of work on; or make the pool once and use it again.")


# --- 2. downloads --------------------------------------------------------------------------------


def _downloads(screen, cpus):
    count = work.PAGES
    screen.heading("2. Work that waits")
    screen.say(f"{count} web pages from a local server that takes {time_text(work.PAGE_DELAY_S)} "
               "for each:")
    screen.busy("downloads")
    with Server() as server:
        ports = [server.port] * count
        work.download(server.port)
        before = work.private_bytes("self")
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(count) as threads:
            list(threads.map(work.nothing, range(count)))
            threads_start = time.perf_counter() - began
            sum(threads.map(work.download, ports))
            threads_memory = max(0, work.private_bytes("self") - before)
            began = time.perf_counter()
            with yoke.Pool(workers=count, preload=["http.client"]) as pool:
                pool.submit(work.nothing).result()
                processes_start = time.perf_counter() - began
                sum(pool.map(work.download, ports, chunksize=1))
                ways = {
                    "one after the other": lambda: sum(map(work.download, ports)),
                    "a thread each": lambda: sum(threads.map(work.download, ports)),
                    "a process each": lambda: sum(pool.map(work.download, ports, chunksize=1)),
                }
                first = dict(list(ways.items())[:1])
                rest = dict(list(ways.items())[1:])
                expected = count * work.PAGE_BYTES
                seconds = work.measure(first, 1, expected) | work.measure(rest, 3, expected)
                processes_memory = work.private_bytes(*pool.worker_ids())
    figures = _figures(seconds, seconds["one after the other"])
    for figure, start, memory in (
        (figures[1], threads_start, threads_memory),
        (figures[2], processes_start, processes_memory),
    ):
        figure |= {"start_seconds": start, "memory_bytes": memory}
    rows = _rows(figures)
    for row, figure in zip(rows, figures):
        if "start_seconds" in figure:
            row += [f"to start {time_text(figure['start_seconds'])}",
                    f"memory {bytes_text(figure['memory_bytes'])}"]
        else:
            row += ["", ""]
    screen.table(rows)
    verdict = _downloads_verdict(seconds, cpus, figures)
    screen.verdict(verdict)
    return {"name": "downloads", "figures": figures, "verdict": verdict}


def _downloads_verdict(seconds, cpus, figures):
    serial = seconds["one after the other"]
    threads = serial / seconds["a thread each"]
    if threads < _PAYS:
        return f"Threads did not help here: {times_text(threads)}. Try again on a quieter machine."
    text = (f"Take threads: {times_text(threads)} on {cpus} CPU{'s' * (cpus != 1)}. Who waits "
            "needs no CPU, and no GIL.")
    thread, process = figures[1], figures[2]
    cheaper = (thread["start_seconds"] < process["start_seconds"]
               and thread["memory_bytes"] < process["memory_bytes"])
    if cheaper:
        text += " Processes cost more to start and more memory, and gain nothing here."
    return text


# --- 3. faults -----------------------------------------------------------------------------------


def _faults(screen):
    count = 12
    screen.heading("3. Calls that crash or never end")
    screen.say(f"{count} calls on 2 processes; one has a segmentation fault, one ends its "
               "process, one loops for ever and may take 0.3 s:")
    screen.busy("faults")
    faults, good = [], 0
    with yoke.Pool(workers=2) as pool:
        pool.submit(work.nothing).result()
        futures = [pool.submit(work.trouble, number, timeout=0.3) for number in range(count)]
        for number, future in enumerate(futures):
            try:
                good += future.result(timeout=5) == number * number
            except Exception as exc:
                text = str(exc).partition("\n")[0]
                faults.append({"call": number, "exception": type(exc).__name__, "text": text})
        again = [_again(pool) for _ in range(20)]
    for fault in faults:
        screen.item(f"call {fault['call']}: {fault['exception']}: {fault['text']}")
    verdict = (f"{good} of {count} results are right, and {len(faults)} calls ended in an "
               "exception of their own. The pool went on: a call takes "
               f"{time_text(statistics.median(again))}. In threads the first two would have ended the program, and nothing could end the "
               "third.")
    as_promised = good == count - 3 and len(faults) == 3
    if not as_promised:
        verdict = f"{good} of {count} results are right, {len(faults)} faults: that is an error."
    screen.verdict(verdict)
    return {"name": "faults", "calls": count, "right": good, "faults": faults,
            "as_promised": as_promised, "verdict": verdict}


def _again(pool):
    began = time.perf_counter()
    pool.submit(work.nothing).result()
    return time.perf_counter() - began
