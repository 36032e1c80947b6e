# SPDX-License-Identifier: MIT
"""startup.py - from nothing to the first result, one more worker, and what importing costs.

Idea: what happens once in the life of a program is measured in a new program each time, which
prints nanoseconds. It has imported all that it names before the clock runs.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from typing import Any

import work
import yoke
from harness import Figure, Refused, same, timed

SECONDS_MAX = 60


def program(text: str, *arguments: str) -> list[str]:
    """Run a program that knows the modules beside this one; the words that it printed."""
    return run("-c", text, *arguments)


def run(*words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        cwd=os.path.dirname(__file__),
        check=False,
    )
    if done.returncode != 0:
        raise Refused(f"a program ended with {done.returncode}: {done.stderr[-200:]!r}")
    return done.stdout.split()


FIRST_YOKE = """
import time, yoke
make = yoke.Pool
start = time.perf_counter_ns()
pool = make(workers=2)
answer = pool.submit(abs, -7).result()
print(time.perf_counter_ns() - start, answer)
pool.shutdown()
"""

FIRST_REF = """
import time, multiprocessing, concurrent.futures
make = concurrent.futures.ProcessPoolExecutor
start = time.perf_counter_ns()
pool = make(2, mp_context=multiprocessing.get_context("forkserver"))
answer = pool.submit(abs, -7).result()
print(time.perf_counter_ns() - start, answer)
pool.shutdown()
"""


class First(Figure):
    """From the constructor of the first pool to the first result."""

    name = "python/pool-start-fresh"
    unit = "ms"
    reference = "ProcessPoolExecutor (forkserver)"
    wanted = 2.5
    rounds = 11

    def first(self, text: str) -> float:
        nanoseconds, answer = program(text)
        same(answer, "7")
        return int(nanoseconds) / 1e6

    def yoke(self) -> float:
        return self.first(FIRST_YOKE)

    def ref(self) -> float:
        return self.first(FIRST_REF)


MAIN = """
def negative(number):
    return -number
if __name__ == "__main__":
    """


class FirstMain(First):
    """The same with a function of `__main__`, and so with a file of a program."""

    name = "python/pool-start-fresh-main"

    def first(self, text: str) -> float:
        text = MAIN + text.strip().replace("abs", "negative").replace("\n", "\n    ")
        with tempfile.NamedTemporaryFile("w", prefix="yoke-bench-", suffix=".py") as file:
            file.write(text)
            file.flush()
            nanoseconds, answer = run(file.name)
        same(answer, "7")
        return int(nanoseconds) / 1e6


class Large(Figure):
    """One more worker in a program of 500 MB: a pool whose worker is replaced after each task."""

    name = "python/start-500m"
    unit = "ms"
    reference = "os.fork and wait"
    wanted = 10
    memory_mib = 1500
    bytes = 500_000_000
    count = 10
    pool: Any = None

    def setup(self) -> None:
        # Small pages, as most programs have them; and private, or a fork would not copy their tables.
        self.memory = mmap.mmap(-1, self.bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, self.bytes, mmap.PAGESIZE):
            self.memory[at] = 1
        self.pool = yoke.Pool(workers=1, tasks_max=1)

    def teardown(self) -> None:
        if self.pool:
            self.pool.shutdown()

    def yoke(self) -> float:
        pool = self.pool
        seconds, pids = timed(lambda: [pool.submit(work.pid).result() for _ in range(self.count)])
        if len(set(pids)) != self.count or os.getpid() in pids:
            raise Refused("a worker ran two tasks")
        return seconds / self.count * 1e3

    def ref(self) -> float:
        seconds, codes = timed(lambda: [self.fork() for _ in range(self.count)])
        same(codes, [7] * self.count)
        return seconds / self.count * 1e3

    @staticmethod
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


IMPORT = """
import time, concurrent.futures
start = time.perf_counter_ns()
import yoke
print(time.perf_counter_ns() - start)
"""


class Import(Figure):
    """`import yoke` after `import concurrent.futures`."""

    name = "python/import"
    unit = "ms"
    reference = "5 ms"
    wanted = 1
    rounds = 15

    def yoke(self) -> float:
        return int(program(IMPORT)[0]) / 1e6

    def ref(self) -> float:
        return 5.0


class ImportPool(Import):
    """The same with what a program needs of it first."""

    name = "python/import-pool"

    def yoke(self) -> float:
        return int(program(IMPORT.replace("import yoke", "from yoke import Pool"))[0]) / 1e6


FIGURES = [First(), FirstMain(), Large(), Import(), ImportPool()]
