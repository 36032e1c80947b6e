# SPDX-License-Identifier: MIT
"""work.py - the functions that workers run. Small: workers import this module."""

from __future__ import annotations

import os
import time

FLOATS = 12_500_000  # 100 MB of them
ready = None


def echo(value):
    """The least that a task can do whose answer shows that it ran."""
    return value


def squares(part):
    """The sum of the squares of the numbers in part, (first, end)."""
    total = 0
    for number in range(*part):
        total += number * number
    return total


def nap(seconds):
    """Sleep, and say who did."""
    time.sleep(seconds)
    return os.getpid()


def pid():
    return os.getpid()


def ends(array):
    """What shows that the array has come, without the time for reading all of it."""
    return float(array[0]), float(array[-1]), array.nbytes


def total(array):
    return float(array.sum())


def make_array(first):
    import numpy

    return numpy.arange(first, first + FLOATS, dtype=numpy.float64)


def make_ready():
    """An initializer: each worker has an array to give back."""
    global ready
    ready = make_array(0.0)


def give_ready():
    return ready
