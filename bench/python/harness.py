# SPDX-License-Identifier: MIT
"""harness.py - runs a figure in interleaved rounds and prints medians.

Idea: the same as bench/harness.c. A machine changes while it is measured, so Yoke and the reference
are measured in turns, close together, and each round gives a ratio of its own. The ratio printed is
the median of those. A measurement that cannot show that its work was done raises Refused.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

WORKERS = 2  # of each pool that is measured
T = TypeVar("T")


class Refused(Exception):
    """The measurement did not do its work; the text says why."""


class Figure:
    """One figure: a time for one operation, or memory, of Yoke and of the reference. Less is better.

    setup() runs once before the rounds, teardown() once after them, also after a failure (of setup()
    too). yoke() and ref() measure once. setup() may name the reference more exactly.
    """

    name = ""  # "python/what"
    unit = ""  # of both values: us, ms or KiB
    reference = ""  # what the value is compared with, in a few words
    wanted = 0.0  # the ratio that is aimed at; shown with -v
    rounds = 7  # how often each is measured, in turns
    cpus = 1  # skipped on a machine with fewer
    memory_mib = 0  # skipped when less is available

    def setup(self) -> None: ...

    def yoke(self) -> float:
        raise NotImplementedError

    def ref(self) -> float:
        raise NotImplementedError

    def teardown(self) -> None: ...

    def lacking(self) -> str | None:
        """What the machine has too little of."""
        if len(os.sched_getaffinity(0)) < self.cpus:
            return f"it needs {self.cpus} CPUs"
        if available_mib() < self.memory_mib:
            return "not enough memory is free"
        return None

    def run(self, rounds: int | None, verbose: bool) -> None:
        """Measure and print one line; raises what a measurement raises."""
        why = self.lacking()
        if why:
            print(f"# {self.name} skipped: {why}", flush=True)
            return
        try:
            self.setup()
            self._round(0)  # warms up; not counted
            self._report([self._round(i) for i in range(rounds or self.rounds)], verbose)
        finally:
            self.teardown()

    def _round(self, number: int) -> tuple[float, float]:
        """Who goes first changes, so that neither always finds the caches warm."""
        if number % 2:
            ref = self.ref()
            yoke = self.yoke()
        else:
            yoke = self.yoke()
            ref = self.ref()
        if not (yoke > 0 and ref > 0):
            raise Refused("a value that is not above zero")
        return yoke, ref

    def _report(self, pairs: list[tuple[float, float]], verbose: bool) -> None:
        yoke = sorted(pair[0] for pair in pairs)
        ref = sorted(pair[1] for pair in pairs)
        ratio = sorted(pair[1] / pair[0] for pair in pairs)
        middle = [f"{statistics.median(values):.4g}" for values in (yoke, ref)]
        print(
            f"{self.name}\t{middle[0]}\t{self.unit}\t{self.reference}\t{middle[1]}"
            f"\t{statistics.median(ratio):.3g}",
            flush=True,
        )
        if verbose:
            low = len(pairs) // 10
            yokes, refs, ratios = (
                f"{values[low]:.4g} .. {values[-1 - low]:.4g}" for values in (yoke, ref, ratio)
            )
            print(
                f"# {len(pairs)} rounds; 10% and 90%: yoke {yokes}, reference {refs}, "
                f"ratio {ratios}; wanted {self.wanted:g}",
                flush=True,
            )


def available_mib() -> int:
    """Memory that a program can still have."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    return 0


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that work() took, and what it returned. No garbage is collected meanwhile."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter_ns()
        result = work()
        return (time.perf_counter_ns() - start) / 1e9, result
    finally:
        gc.enable()


def same(got: Any, wanted: Any) -> None:
    """Refuse an answer that is not the right one."""
    if got == wanted:
        return
    if isinstance(got, list) and len(got) == len(wanted):
        got, wanted = next(pair for pair in zip(got, wanted) if pair[0] != pair[1])
    raise Refused(f"{str(got)[:60]} came in place of {str(wanted)[:60]}")


def best_of(candidates: Iterable[T], measure: Callable[[T], float], tries: int = 3) -> T:
    """The candidate with the lowest median, each tried in turn after one try that is not counted."""
    values: dict[int, list[float]] = {}
    candidates = list(candidates)
    for turn in range(tries + 1):
        for index, candidate in enumerate(candidates):
            value = measure(candidate)
            if turn:
                values.setdefault(index, []).append(value)
    return candidates[min(values, key=lambda index: statistics.median(values[index]))]
