# SPDX-License-Identifier: MIT
# timeout: 400
# asan: no
"""Each row of faults.py, for each start, as a test; and how rows become tests."""

from __future__ import annotations

import os
import sys
import unittest
from typing import Any, Callable

import faultkit
import faults  # noqa: F401 - its rows


class Rows(unittest.TestCase):
    """One test for each row and start of a module; what they saw goes into the build folder."""

    module = ""
    table: dict[str, dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.table = {}

    @classmethod
    def tearDownClass(cls) -> None:
        rows = {name: cls.table[name] for name in faultkit.ROWS[cls.module] if name in cls.table}
        if os.environ.get("BUILD") and len(rows) == len(faultkit.ROWS[cls.module]):
            version = ".".join(map(str, sys.version_info[:2]))
            faultkit.save(f"{os.environ['BUILD']}/python-faults/{version}-{cls.module}.json",
                          cls.module, rows)


def make(this: faultkit.Row, start: str) -> Callable:
    """A row as a test."""
    def test(self: Rows) -> None:
        seen = faultkit.run_row(this, self.module, start)
        self.table.setdefault(this.name, {"title": this.title})[start] = seen
        if seen["error"]:
            self.fail(f"{this.title}, start={start!r}: {seen['error']}")
    test.__name__ = f"test_{this.name}_{start}"
    return test


def add_rows(case: type[Rows], module: str) -> None:
    """Make the rows of a module tests of the case."""
    case.module = module
    for this in faultkit.ROWS[module].values():
        for start in this.starts:
            setattr(case, f"test_{this.name}_{start}", make(this, start))


class Faults(Rows):
    """The fault table, tasks."""


add_rows(Faults, "faults")

if __name__ == "__main__":
    sys.exit(unittest.main())
