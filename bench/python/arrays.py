# SPDX-License-Identifier: MIT
"""arrays.py - a numpy array of 100 MB to a worker, and one back.

Idea: the task looks at the ends of the array only, so that the time is that of the transport. In
setup() it is summed up once, so that all of it must have come.
"""

from __future__ import annotations

from typing import Any

import peers
import work
from harness import Figure, Refused, same, timed


class Array(Figure):
    unit = "ms"
    wanted = 11
    cpus = 2
    memory_mib = 2000
    pool: Any = None
    peer: Any = None
    settings: dict[str, Any] = {}

    def lacking(self) -> str | None:
        try:
            import numpy  # noqa: F401
        except ImportError:
            return "numpy is not installed"
        return super().lacking()

    def setup(self) -> None:
        self.peer, self.reference = peers.executor(self.once, **self.settings)
        self.pool = peers.yoke_pool(**self.settings)
        for pool in (self.peer, self.pool):
            self.prove(pool)

    def teardown(self) -> None:
        for pool in (self.pool, self.peer):
            if pool:
                pool.shutdown()

    def once(self, pool: Any) -> float:
        raise NotImplementedError

    def prove(self, pool: Any) -> None:
        raise NotImplementedError

    def yoke(self) -> float:
        return self.once(self.pool)

    def ref(self) -> float:
        return self.once(self.peer)


class To(Array):
    name = "python/array-100m-to"

    def setup(self) -> None:
        self.array = work.make_array(1.0)
        self.ends = work.ends(self.array)
        super().setup()

    def prove(self, pool: Any) -> None:
        same(pool.submit(work.total, self.array).result(), work.total(self.array))

    def once(self, pool: Any) -> float:
        seconds, ends = timed(lambda: pool.submit(work.ends, self.array).result())
        same(ends, self.ends)
        return seconds * 1e3


class Back(Array):
    name = "python/array-100m-back"
    settings = {"initializer": work.make_ready}

    def setup(self) -> None:
        right = work.make_array(0.0)
        self.ends, self.total = work.ends(right), work.total(right)
        del right
        super().setup()

    def prove(self, pool: Any) -> None:
        same(work.total(pool.submit(work.give_ready).result()), self.total)
        if work.ready is not None:
            raise Refused("the task ran in the program")

    def once(self, pool: Any) -> float:
        seconds, array = timed(lambda: pool.submit(work.give_ready).result())
        same(work.ends(array), self.ends)
        return seconds * 1e3


FIGURES = [To(), Back()]
