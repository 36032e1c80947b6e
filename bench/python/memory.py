# SPDX-License-Identifier: MIT
"""memory.py - what one more worker costs.

Idea: two new programs for each measurement, with one worker and with five, all of which have run
tasks; the memory of the whole tree of processes (the program, what serves it, the workers), shared
pages in equal parts (PSS), and pages of one process alone (USS). The difference is that of four
workers.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import startup
import work
from harness import Figure

FEW, MANY = 1, 5
SECONDS_MAX = 20

YOKE = """
import sys, memory, yoke
with yoke.Pool(workers=int(sys.argv[1])) as pool:
    memory.tell(int(sys.argv[1]), lambda naps: list(pool.map(memory.work.nap, naps, chunksize=1)))
"""

REF = """
import sys, memory, peers
with peers.mp_pool("forkserver", int(sys.argv[1])) as pool:
    memory.tell(int(sys.argv[1]), lambda naps: pool.map(memory.work.nap, naps, chunksize=1))
"""


def tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                pass  # it has just ended
    found = [root]
    for pid in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def kib(pid: int) -> tuple[int, int]:
    """PSS and USS of a process."""
    pss = uss = 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
            elif line.startswith("Private_"):
                uss += int(line.split()[1])
    return pss, uss


def tell(workers: int, run: Any) -> None:
    """Let each worker run something, then print PSS and USS of the tree."""
    pids: set[int] = set()
    give_up = time.monotonic() + SECONDS_MAX
    while len(pids) < workers and time.monotonic() < give_up:
        pids.update(run([0.02] * workers))
    found = tree(os.getpid())
    if len(pids) != workers or not pids <= set(found) or os.getpid() in pids:
        sys.exit(f"not {workers} workers: {pids} of {found}")
    sizes = [kib(pid) for pid in found]
    print(sum(size[0] for size in sizes), sum(size[1] for size in sizes))


class Memory(Figure):
    unit = "KiB"
    wanted = 3
    rounds = 3
    memory_mib = 1000

    def __init__(self, name: str, reference: str, column: int) -> None:
        self.name, self.reference, self.column = name, reference, column

    def more(self, text: str) -> float:
        few, many = (int(startup.program(text, str(n))[self.column]) for n in (FEW, MANY))
        return (many - few) / (MANY - FEW)

    def yoke(self) -> float:
        return self.more(YOKE)

    def ref(self) -> float:
        return self.more(REF)


FIGURES = [
    Memory("python/memory", "multiprocessing.Pool (forkserver), PSS", 0),
    Memory("python/memory-uss", "multiprocessing.Pool (forkserver), USS", 1),
]
