# SPDX-License-Identifier: MIT
# timeout: 400
"""Each row of the fault table (faults.py), for each start, as a test."""

import sys
import unittest

import faultkit
import faults  # noqa: F401 - its rows


class Faults(unittest.TestCase):
    """One test for each row and start; see faults.py for what they do."""


def make(this: faultkit.Row, module: str, start: str):
    def test(self: unittest.TestCase) -> None:
        seen = faultkit.run_row(this, module, start)
        if seen["error"]:
            self.fail(f"{this.title}, start={start!r}: {seen['error']}")
    test.__doc__ = f"{this.title}, start={start!r}"
    return test


def add_rows(case: type, module: str) -> None:
    """Make the rows of a module tests of the case."""
    for row in faultkit.ROWS[module].values():
        for start in row.starts:
            setattr(case, f"test_{row.name}_{start}", make(row, module, start))


add_rows(Faults, "faults")

if __name__ == "__main__":
    sys.exit(unittest.main())
