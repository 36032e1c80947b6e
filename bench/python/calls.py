# SPDX-License-Identifier: MIT
"""calls.py - many small calls, one call at a time, and two long ones.

Idea: the function returns its argument, so that each answer can be looked at. Each figure is
measured with functions of an imported module; the same name with "-main": with functions of
`__main__`, which no worker can import.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import peers
import work
from harness import Figure, best_of, same, timed


class Calls(Figure):
    """What these figures share: the pools, and where the functions are."""

    unit = "us"
    cpus = 2
    count = 0

    def __init__(self, main: bool = False) -> None:
        self.work: Any = sys.modules["__main__"] if main else work
        self.peer: Any = None
        self.pool: Any = None
        if main:
            self.name += "-main"

    def setup(self) -> None:
        self.peer = peers.mp_pool()
        self.pool = peers.yoke_pool()

    def teardown(self) -> None:
        if self.pool:
            self.pool.shutdown()
        if isinstance(self.peer, peers.ProcessPoolExecutor):
            self.peer.shutdown()
        elif self.peer:
            self.peer.terminate()
            self.peer.join()

    def each(self, measure: Any) -> float:
        """Microseconds for each of the answers of measure(), which must be 0, 1, 2, ..."""
        seconds, answers = timed(measure)
        same(answers, list(range(self.count)))
        return seconds / self.count * 1e6


class MapProcess(Calls):
    name = "python/map-process"
    reference = "multiprocessing.Pool.map, chunksize=1"
    wanted = 9
    count = 10_000

    def yoke(self) -> float:
        numbers = range(self.count)
        return self.each(lambda: list(self.pool.map(self.work.echo, numbers, chunksize=1)))

    def ref(self) -> float:
        numbers = range(self.count)
        return self.each(lambda: self.peer.map(self.work.echo, numbers, chunksize=1))


class MapDefault(Calls):
    name = "python/map-default"
    reference = "multiprocessing.Pool.map"
    wanted = 1
    count = 500_000
    chunksize: int | None = None

    def setup(self) -> None:
        super().setup()
        count = self.count
        self.chunksize = best_of(
            (None, count // 2, count // 4, count // 8, count // 32, 5000, 1000), self.with_chunks
        )
        self.reference += f", chunksize={self.chunksize}"

    def with_chunks(self, chunksize: int | None) -> float:
        numbers = range(self.count)
        return self.each(lambda: self.peer.map(self.work.echo, numbers, chunksize=chunksize))

    def yoke(self) -> float:
        return self.each(lambda: list(self.pool.map(self.work.echo, range(self.count))))

    def ref(self) -> float:
        return self.with_chunks(self.chunksize)


class SubmitProcess(Calls):
    name = "python/submit-process"
    wanted = 17
    count = 4000

    def setup(self) -> None:
        self.peer, self.reference = peers.executor(self.through)
        self.pool = peers.yoke_pool()

    def through(self, pool: Any) -> float:
        def all_of_them() -> list[int]:
            futures = [pool.submit(self.work.echo, number) for number in range(self.count)]
            return [future.result() for future in futures]

        return self.each(all_of_them)

    def yoke(self) -> float:
        return self.through(self.pool)

    def ref(self) -> float:
        return self.through(self.peer)


class RoundTrip(Calls):
    name = "python/rtt-process"
    reference = "multiprocessing.Pool.apply"
    wanted = 3
    rounds = 9
    count = 1000

    def yoke(self) -> float:
        submit, echo = self.pool.submit, self.work.echo
        return self.each(lambda: [submit(echo, number).result() for number in range(self.count)])

    def ref(self) -> float:
        apply, echo = self.peer.apply, self.work.echo
        return self.each(lambda: [apply(echo, (number,)) for number in range(self.count)])


class Cpu(Calls):
    """Two halves of a sum of squares, through a pool that is there and through bare forks."""

    name = "python/cpu-process"
    unit = "ms"
    reference = "os.fork for each half"
    wanted = 0.97
    rounds = 9
    halves = ((1, 1_500_000), (1_500_000, 3_000_000))
    right = 0

    def setup(self) -> None:
        self.pool = peers.yoke_pool()
        last = self.halves[-1][1] - 1
        self.right = last * (last + 1) * (2 * last + 1) // 6

    def milliseconds(self, measure: Any) -> float:
        seconds, answer = timed(measure)
        same(answer, self.right)
        return seconds * 1e3

    def yoke(self) -> float:
        return self.milliseconds(lambda: sum(self.pool.map(self.work.squares, self.halves)))

    def ref(self) -> float:
        return self.milliseconds(self.forks)

    def forks(self) -> int:
        children = [self.fork(half) for half in self.halves]
        answer = 0
        for pid, end in children:
            answer += int(os.read(end, 100))
            os.close(end)
            os.waitpid(pid, 0)
        return answer

    def fork(self, half: tuple[int, int]) -> tuple[int, int]:
        end, other = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(other, str(self.work.squares(half)).encode())
            finally:
                os._exit(0)
        os.close(other)
        return pid, end


FIGURES = [
    figure(main)
    for figure in (MapProcess, MapDefault, SubmitProcess, RoundTrip, Cpu)
    for main in (False, True)
]
