# SPDX-License-Identifier: MIT
# timeout: 400
# asan: no
"""Each row of faults.py, for each start, as a test; and how rows become tests."""

from __future__ import annotations

import concurrent.futures
import os
import sys
import unittest
from typing import Any

import faultkit
import faults  # noqa: F401 - its rows


class Rows(unittest.TestCase):
    """One test for each row and start of a module. Rows mostly wait, so those of the tests that
    were picked run beside each other; what they saw goes into the build folder."""

    module = ""
    picked: list[tuple[str, str]]  # rows and starts of the tests that were made
    seen: dict[tuple[str, str], concurrent.futures.Future]
    runner: concurrent.futures.ThreadPoolExecutor

    def __init__(self, name: str = "runTest") -> None:
        super().__init__(name)
        self.row, self.start = name.removeprefix("test_").rsplit("_", 1)
        self.picked.append((self.row, self.start))

    @classmethod
    def setUpClass(cls) -> None:
        cls.runner = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)
        rows = faultkit.ROWS[cls.module]
        cls.seen = {(name, start): cls.runner.submit(faultkit.run_row, rows[name], cls.module,
                                                     start)
                    for name, start in sorted(cls.picked)}

    @classmethod
    def tearDownClass(cls) -> None:
        cls.runner.shutdown(cancel_futures=True)
        rows = faultkit.ROWS[cls.module]
        if os.environ.get("BUILD") and len(cls.seen) == sum(len(r.starts) for r in rows.values()):
            table: dict[str, dict[str, Any]] = {n: {"title": r.title} for n, r in rows.items()}
            for (name, start), future in cls.seen.items():
                table[name][start] = future.result()
            version = ".".join(map(str, sys.version_info[:2]))
            faultkit.save(f"{os.environ['BUILD']}/python-faults/{version}-{cls.module}.json",
                          cls.module, table)

    def look(self) -> None:
        """What the row saw is as it should be."""
        row = faultkit.ROWS[self.module][self.row]
        error = self.seen[self.row, self.start].result()["error"]
        if row.known:
            self.assertTrue(error, f"this is good now, and no longer: {row.known}")
            self.skipTest(f"known: {row.known}")
        if error:
            self.fail(f"{row.title}: {error}")


def add_rows(case: type[Rows], module: str) -> None:
    """Make the rows of a module tests of the case."""
    case.module, case.picked = module, []
    for this in faultkit.ROWS[module].values():
        for start in this.starts:
            setattr(case, f"test_{this.name}_{start}", lambda self: self.look())


class Faults(Rows):
    """The fault table, tasks."""


add_rows(Faults, "faults")

if __name__ == "__main__":
    sys.exit(unittest.main())
