# SPDX-License-Identifier: MIT
"""What the fault tables are run with: rows, the process a row lives in, what it left behind.

A row is a function that takes a Context and makes something go wrong. It runs in an interpreter of
its own (`python faultkit.py MODULE NAME START FOLDER`), a session leader, so that a row that hangs
or dies costs that row, and what it leaves behind can be told from what others do: processes of its
session or with its mark in their environment, descriptors, threads, names in /dev/shm, files in
its folder for temporary files, and words on stderr. What it saw comes back as JSON.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, Callable, Iterator

HERE = str(pathlib.Path(__file__).resolve().parent)
SLOW = float(os.environ.get("SLOW") or 1)
HANG = 15 * SLOW  # s; what takes longer than that hangs
STARTS = ("fresh", "fork")
MARK, FOLDER = "YOKE_FAULT_ROW", "YOKE_FAULT_FOLDER"

Row = collections.namedtuple("Row", "name title function starts limit noisy raises known")
ROWS: dict[str, dict[str, Row]] = collections.defaultdict(dict)


def row(title: str, *, raises: str | None = None, starts: tuple[str, ...] = STARTS,
        limit: float = 60, noisy: bool = False, known: str = "") -> Callable:
    """Make a function a row of its module's table.

    raises: the exception it should see, as a name; noisy: it may write to stderr; limit: seconds;
    known: why it is not good yet; the page says so, and the test fails once it is good."""
    def register(function: Callable) -> Callable:
        name = function.__name__
        module = function.__module__.rpartition(".")[2]
        ROWS[module][name] = Row(name, title, function, starts, limit * SLOW, noisy, raises, known)
        return function
    return register


class Failed(AssertionError):
    """What a row found. It is noted at once: the row may hang on its way out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        try:
            with open(os.path.join(os.environ.get(FOLDER, "/nonexistent"), "failed"), "a") as file:
                file.write(text + "\n")
        except OSError:
            pass


def check(true: Any, text: str) -> None:
    """True, or Failed(text)."""
    if not true:
        raise Failed(text)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = HANG) -> Any:
    """Wait until condition() is true and return that; Failed if it is not in time."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(0.002)


# --- the pool under test --------------------------------------------------------------------------

def pool(**settings: Any) -> Any:
    """A pool of the backend that is under test: yoke, or stdlib to see which rows fail there."""
    settings.setdefault("workers", 2)
    if os.environ.get("YOKE_FAULT_BACKEND") == "stdlib":
        return stdlib_pool(**settings)
    import yoke
    return yoke.Pool(**settings)


def stdlib_pool(workers: int = 2, start: str = "fresh", **settings: Any) -> Any:
    """concurrent.futures' process pool, as far as it can be called as Yoke's."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    class Adapted(ProcessPoolExecutor):
        def submit(self, fn: Callable, /, *args: Any, timeout: Any = None, retries: int = 0,
                   **kwargs: Any) -> Any:
            return super().submit(fn, *args, **kwargs)

        def worker_ids(self) -> list[int]:
            return list(self._processes or ())

    settings = {k: v for k, v in settings.items() if k in ("initializer", "initargs")}
    context = multiprocessing.get_context("forkserver" if start == "fresh" else "fork")
    return Adapted(workers, mp_context=context, **settings)


# --- processes ------------------------------------------------------------------------------------

def stat_of(pid: int | str) -> list[str]:
    """/proc/PID/stat from the state on; [] if there is no such process (or only its remains)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def members(session: int, mark: str) -> list[int]:
    """The living processes of the session, and those with the mark in their environment."""
    found = []
    for name in os.listdir("/proc"):
        fields = stat_of(name) if name.isdigit() else []
        if not fields:
            continue
        if int(fields[3]) == session:
            found.append(int(name))
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if f"{MARK}={mark}".encode() in file.read():
                    found.append(int(name))
        except OSError:
            pass
    return found


def describe(pids: list[int]) -> str:
    """Names of processes, for a message."""
    words = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                args = file.read().replace(b"\0", b" ").decode(errors="replace")[:60]
        except OSError:
            args = "gone"
        words.append(f"{pid} ({args.strip()}, {(stat_of(pid) or '?')[0]})")
    return ", ".join(words)


def kill_all(session: int, mark: str) -> None:
    """End what a row left."""
    for _ in range(100):
        pids = [pid for pid in members(session, mark) if pid != os.getpid()]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.01)


def descriptors() -> dict[int, str]:
    """This process' open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # that of listdir itself
    return found


def shm_names() -> set[str]:
    """Names in /dev/shm; those of multiprocessing belong to others on this machine."""
    try:
        return {n for n in os.listdir("/dev/shm") if not n.startswith(("sem.", "psm_", "wnsm_"))}
    except OSError:
        return set()


# --- what a row works with ------------------------------------------------------------------------

def noop(*args: Any) -> None:
    """The task that has to work after each fault."""


def stamp(folder: str) -> None:
    """Note when the fault begins."""
    with open(f"{folder}/fault-at", "w") as file:
        file.write(repr(time.monotonic()))


def ledger(folder: str, item: Any) -> None:
    """Note that an item ran; whole lines, whoever writes."""
    fd = os.open(f"{folder}/ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{item}\n".encode())
    os.close(fd)


def good(folder: str, item: int) -> int:
    """A task beside the one at fault."""
    ledger(folder, item)
    return item * item


def faulty(folder: str, fault: Callable, *args: Any) -> Any:
    """The task at fault."""
    stamp(folder)
    return fault(*args)


FAULTY = 23


def in_map(folder: str, fault: Callable, item: int) -> Any:
    """Many that are well and one at fault."""
    if item == FAULTY:
        stamp(folder)
        return fault()
    return good(folder, item)


class Context:
    """What a row may use, and what it found."""

    def __init__(self, row: Row, start: str, folder: str) -> None:
        self.row, self.start, self.folder = row, start, folder
        self.mark = os.environ.get(MARK, "")
        self.seen: dict[str, Any] = {}
        self.processes: list[subprocess.Popen] = []

    def pool(self, **settings: Any) -> Any:
        settings.setdefault("start", self.start)
        return pool(**settings)

    def note(self, text: str) -> None:
        """A remark for the table."""
        notes = self.seen.setdefault("notes", [])
        if text not in notes:
            notes.append(text)

    def timed(self, seconds: float, where: str = "") -> None:
        """How long after the fault it was known; the worst of a row counts."""
        ms = round(seconds * 1000, 1)
        self.seen["ms"] = max(ms, self.seen.get("ms", 0.0))
        check(ms < 5000 * SLOW, f"it took {ms} ms from the fault to the exception {where}")

    def fault_at(self) -> float:
        with open(f"{self.folder}/fault-at") as file:
            return float(file.read())

    def expect(self, got: BaseException | None, raises: str | None = None) -> BaseException:
        """got is of the type that the row is documented to raise."""
        raises = raises or self.row.raises
        check(got is not None, f"no exception; {raises} expected")
        self.seen.setdefault("raised", type(got).__name__)
        details = [f"{k} {v}" for k in ("signal", "exit_code", "task")
                   if (v := getattr(got, k, None)) is not None]
        self.seen.setdefault("details", ", ".join(details))
        self.seen.setdefault("text", str(got)[:300])
        names = [c.__name__ for c in type(got).__mro__]
        wanted = raises.split("|")
        check(any(w in names for w in wanted), f"{type(got).__name__}({got}); {raises} expected")
        return got

    def works(self, pool: Any, tasks: int = 4) -> None:
        """A no-op, and then some, on a pool that has been through something."""
        futures = [pool.submit(noop) for _ in range(tasks)]
        for future in futures:
            check(future.result(timeout=HANG) is None, "a no-op has a result")

    def exception_of(self, future: Any, seconds: float = HANG) -> BaseException | None:
        """The exception of a future, which must have ended by then."""
        import concurrent.futures
        try:
            return future.exception(timeout=seconds)
        except concurrent.futures.CancelledError as exc:
            return exc
        except TimeoutError as exc:
            raise Failed(f"hangs: no result within {seconds:g} s") from exc

    def one_fault(self, fault: Callable, *args: Any, at_submit: bool = False, after: float = 0,
                  settings: dict | None = None, mapped: bool = True, then: Callable | None = None,
                  verify: Callable | None = None, **options: Any) -> None:
        """fault(*args) as one of several submits and, without arguments, as an item of a map.

        at_submit: the time counts from submit; after: seconds from the fault on that it should
        take; then(future): called once it runs; verify(exception): looks closer."""
        with self.pool(**(settings or {})) as pool:
            self.works(pool)
            self.among_submits(pool, fault, args, at_submit, after, then, verify, options)
            if mapped:
                self.among_items(pool, fault, after, verify, options)
                self.works(pool)

    def among_submits(self, pool: Any, fault: Callable, args: tuple, at_submit: bool, after: float,
                      then: Callable | None, verify: Callable | None, options: dict) -> None:
        self.forget()
        ends: list[Any] = []
        others = [pool.submit(good, self.folder, i) for i in range(10)]
        began = time.monotonic()
        try:
            future = pool.submit(faulty, self.folder, fault, *args, **options)
            future.add_done_callback(ends.append)
        except Exception as exc:  # noqa: BLE001 - the pool may refuse it at once
            future, raised = None, exc
            self.note("raised by submit")
        others += [pool.submit(good, self.folder, i) for i in range(10, 30)]
        if future is not None:
            if then:
                then(future)
            raised = self.exception_of(future)
        ended = time.monotonic()
        self.timed(ended - (began if at_submit else self.fault_at()) - after, "of a submit")
        self.expect(raised)
        if verify:
            verify(raised)
        for i, other in enumerate(others):
            exc = self.exception_of(other)
            check(exc is None, f"another task of the pool has {exc!r} too")
            check(other.result() == i * i, f"another task has a wrong result: {other.result()!r}")
        self.ran_once(range(30))
        self.works(pool)
        check(future is None or len(ends) == 1, f"callbacks were called {len(ends)} times")

    def among_items(self, pool: Any, fault: Callable, after: float, verify: Callable | None,
                    options: dict) -> None:
        import functools
        self.forget()
        got: list[Any] = []
        results = iter(pool.map(functools.partial(in_map, self.folder, fault), range(60),
                                **options))
        while len(got) < 100:
            try:
                got.append(next(results))
            except StopIteration:
                break
            except BaseException as exc:  # noqa: BLE001 - SystemExit is one of them
                got.append(exc)
                if verify:
                    verify(self.expect(exc))
                if os.path.exists(f"{self.folder}/fault-at"):
                    self.timed(time.monotonic() - self.fault_at() - after, "of a map")
        check(len(got) == 60, f"a map of 60 gave {len(got)}: {got[-1]!r}")
        self.expect(got[FAULTY] if isinstance(got[FAULTY], BaseException) else None)
        for i, value in enumerate(got):
            check(i == FAULTY or value == i * i, f"item {i} of the map: {value!r}")
        self.ran_once(i for i in range(60) if i != FAULTY)

    def forget(self) -> None:
        for name in ("ledger", "fault-at"):
            pathlib.Path(self.folder, name).unlink(missing_ok=True)

    def ran_once(self, items: Any) -> None:
        """The others ran, each once."""
        with open(f"{self.folder}/ledger") as file:
            times = collections.Counter(int(line) for line in file)
        wrong = {i: times[i] for i in items if times[i] != 1}
        check(not wrong, f"items that did not run once (item: times): {wrong}")

    # --- programs of their own

    def program(self, source: str, *flags: str, name: str = "program.py", **options: Any) -> Any:
        """Start a script. It sees pool(), START, FOLDER, wait_for and the standard modules."""
        # A row's own fork() beside threads is what it is about.
        head = ("import os, signal, subprocess, sys, threading, time, warnings\n"
                "warnings.filterwarnings('ignore', 'This process', DeprecationWarning)\n"
                f"sys.path.insert(0, {HERE!r})\n"
                "from faultkit import pool as _pool, noop, wait_for, check, good, ledger\n"
                f"START = {self.start!r}\nFOLDER = {self.folder!r}\n"
                "def pool(**k): return _pool(**{'start': START, **k})\n")
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(head + source)
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen([sys.executable, *flags, path], text=True, **options)
        self.processes.append(process)
        return process

    def run(self, source: str, *flags: str, code: int | None = 0, quiet: bool = True,
            **options: Any) -> str:
        """Run a script to its end and return what it printed; stderr must be empty if quiet."""
        process = self.program(source, *flags, **options)
        try:
            out, err = process.communicate(timeout=self.row.limit - 5)
        except subprocess.TimeoutExpired:
            left = describe(members(os.getpid(), self.mark))
            process.kill()
            out, err = process.communicate()
            raise Failed(f"the program hangs; printed {out!r}, {err[-2000:]!r}; {left}") from None
        out, err = out or "", err or ""
        if code is not None:
            check(process.returncode == code,
                  f"exit code {process.returncode}: {out[-500:]!r} {err[-3000:]!r}")
        check(not quiet or not err, f"stderr: {err[-2000:]!r}")
        return out

    def alone(self, seconds: float = 5.0) -> float:
        """No process of the row is left but this one, within that time; how long it took."""
        began = time.monotonic()
        others: list[int] = []

        def gone() -> bool:
            others[:] = [p for p in members(os.getpid(), self.mark) if p != os.getpid()]
            return not others
        try:
            wait_for(gone, "no process left", seconds * SLOW)
        except Failed:
            raise Failed(f"processes left: {describe(others)}") from None
        return time.monotonic() - began


# --- the process of a row -------------------------------------------------------------------------

def row_main(module: str, name: str, start: str, folder: str) -> None:
    """Run one row here and write what it saw into FOLDER/seen.json."""
    importlib.import_module(module)
    this = ROWS[module][name]
    context = Context(this, start, folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    error = None
    try:
        if not getattr(sys.modules[module], "PROGRAMS_ONLY", False):
            with context.pool() as warm:  # what a first pool opens for good is not a leak
                context.works(warm)
        before, threads, names = descriptors(), set(threading.enumerate()), shm_names()
        this.function(context)
        no_leak(context, before, threads, names)
    except Failed as exc:
        error = str(exc)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        error = traceback.format_exc()
    with open(f"{folder}/seen.json.new", "w") as file:
        json.dump({"error": error, **context.seen}, file)
    os.rename(f"{folder}/seen.json.new", f"{folder}/seen.json")


def no_leak(context: Context, before: dict[int, str], threads: set, names: set[str]) -> None:
    """Nothing is left: processes, threads, descriptors, names of shared memory, temporary files."""
    import gc
    gc.collect()
    for process in context.processes:
        process.wait(HANG)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
    context.alone()
    wait_for(lambda: not set(threading.enumerate()) - threads,
             f"threads end: {threading.enumerate()}", 2 * SLOW)

    def new() -> dict[int, str]:
        return {fd: to for fd, to in descriptors().items() if before.get(fd) != to}
    try:
        wait_for(lambda: not new(), "descriptors", 1 * SLOW)
    except Failed:
        raise Failed(f"descriptors left open: {new()}") from None
    left = [n for n in os.listdir(os.environ["TMPDIR"])] if "TMPDIR" in os.environ else []
    check(not left, f"temporary files left: {left}")
    check(not shm_names() - names, f"names left in /dev/shm: {shm_names() - names}")


def run_row(this: Row, module: str, start: str, python: str = sys.executable) -> dict[str, Any]:
    """Run a row in a process of its own; what it saw, with "error": None or why it failed."""
    folder = tempfile.mkdtemp(prefix="yoke-fault-")
    mark, began = os.path.basename(folder), time.monotonic()
    os.makedirs(f"{folder}/tmp")
    os.chmod(folder, 0o755)
    env = {**os.environ, MARK: mark, FOLDER: folder, "TMPDIR": f"{folder}/tmp",
           "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        with open(f"{folder}/stderr", "w+") as stderr:
            process = subprocess.Popen(
                [python, os.path.join(HERE, "faultkit.py"), "row", module, this.name, start,
                 folder], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=env,
                cwd=folder, start_new_session=True)
            seen = watch(process, this, folder, mark)
            stderr.seek(0)
            said = stderr.read()
        if said and not this.noisy and not seen["error"]:
            seen["error"] = f"stderr: {said[-2000:]}"
        elif said and seen["error"]:
            seen["error"] += f"\nstderr: {said[-2000:]}"
        if this.known:
            seen.setdefault("notes", []).append(this.known)
        return {**seen, "seconds": round(time.monotonic() - began, 2)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watch(process: subprocess.Popen, this: Row, folder: str, mark: str) -> dict[str, Any]:
    """Wait for the process of a row; end it and what it started if it does not end by itself."""
    hung = None
    try:
        process.wait(this.limit)
    except subprocess.TimeoutExpired:
        said = "after its end" if os.path.exists(f"{folder}/seen.json") else "inside"
        hung = f"hangs ({said}), killed after {this.limit:g} s"
    left = [p for p in members(process.pid, mark) if p != process.pid]
    end = time.monotonic() + 5 * SLOW
    while left and not hung and time.monotonic() < end:
        time.sleep(0.01)
        left = [p for p in members(process.pid, mark) if p != process.pid]
    leaves = f"left processes running: {describe(left)}" if left else None
    kill_all(process.pid, mark)
    process.wait()
    try:
        with open(f"{folder}/seen.json") as file:
            seen = json.load(file)
    except OSError:
        seen = {"error": f"the process of the row ended with {process.returncode}"}
        if os.path.exists(f"{folder}/failed"):
            with open(f"{folder}/failed") as file:
                seen["error"] = f"{file.read()}(the row did not end)"
    errors = [e for e in (seen.get("error"), hung, leaves) if e]
    if not errors and process.returncode:
        errors = [f"the process of the row ended with {process.returncode}"]
    return {**seen, "error": "\n".join(errors) or None}


def run_rows(module: str, names: list[str], starts: tuple[str, ...]) -> Iterator[tuple]:
    """Run rows; gives (row, start, what was seen) one after the other."""
    importlib.import_module(module)
    rows = ROWS[module]
    for name in names or rows:
        for start in starts:
            if start in rows[name].starts:
                yield rows[name], start, run_row(rows[name], module, start)


def main(module: str) -> int:
    """The command line of a table: MODULE.py [--start S] [--json FILE] [--stdlib] [ROW...]."""
    parser = argparse.ArgumentParser(description="Make things go wrong, and see what comes of it.")
    parser.add_argument("--start", choices=STARTS, action="append")
    parser.add_argument("--json", help="write what was seen there")
    parser.add_argument("--stdlib", action="store_true", help="against concurrent.futures")
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args()
    if options.stdlib:
        os.environ["YOKE_FAULT_BACKEND"] = "stdlib"
    table: dict[str, dict] = {}
    failed = 0
    for this, start, seen in run_rows(module, options.rows, tuple(options.start or STARTS)):
        failed += seen["error"] is not None
        took = f"{seen['ms']} ms" if "ms" in seen else ""
        print(f"{'FAIL' if seen['error'] else 'ok':5}{this.name} {start}: "
              f"{seen.get('raised', '')} {took} ({seen['seconds']} s in all) "
              f"{'; '.join(seen.get('notes', []))}", flush=True)
        if seen["error"]:
            print("      | " + seen["error"].strip().replace("\n", "\n      | "), flush=True)
        entry = table.setdefault(this.name, {"title": this.title, "raises": this.raises})
        entry[start] = seen
    if options.json:
        save(options.json, module, table)
    return 1 if failed else 0


def save(path: str, module: str, table: dict) -> None:
    """Keep what was seen, for tools/python-faults.py."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path + ".new", "w") as file:
        json.dump({"python": sys.version.split()[0], "tables": {module: table}}, file, indent=1)
    os.rename(path + ".new", path)


if __name__ == "__main__":
    # The rows' module imports this file by its name; there is one list of rows only.
    sys.path.insert(0, HERE)
    import faultkit
    if sys.argv[1] == "row":
        faultkit.row_main(*sys.argv[2:])
