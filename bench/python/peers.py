# SPDX-License-Identifier: MIT
"""peers.py - the pools that Yoke is compared with, and Yoke's.

Idea: a reference is used in its best way. Where several ways exist (start methods, chunk sizes), the
figure tries them first and takes the fastest. References are made before Yoke's pool, so that a fork
of the program copies none of Yoke's threads.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import yoke
from harness import WORKERS, best_of

# Forking beside threads is what those start methods do.
warnings.filterwarnings("ignore", "This process", DeprecationWarning)


def mp_pool(method: str = "fork", workers: int = WORKERS) -> multiprocessing.pool.Pool:
    return multiprocessing.get_context(method).Pool(workers)


def executor(
    measure: Callable[[ProcessPoolExecutor], float], **settings: Any
) -> tuple[ProcessPoolExecutor, str]:
    """A warm ProcessPoolExecutor with the start method that is the fastest by measure, its name."""
    methods = ("fork", "forkserver")
    made = [
        ProcessPoolExecutor(
            WORKERS, mp_context=multiprocessing.get_context(method), **settings
        )
        for method in methods
    ]
    best = best_of(made, measure)
    for one in made:
        if one is not best:
            one.shutdown()
    return best, f"ProcessPoolExecutor ({methods[made.index(best)]})"


def yoke_pool(**settings: Any) -> yoke.Pool:
    return yoke.Pool(workers=WORKERS, **settings)
