# SPDX-License-Identifier: MIT
# timeout: 400
# asan: no
"""Each row of faults_pool.py, for each start, as a test."""

import sys
import unittest

import faults_pool  # noqa: F401 - its rows
import test_faults


class Faults(test_faults.Rows):
    """The fault table, pools."""


test_faults.add_rows(Faults, "faults_pool")

if __name__ == "__main__":
    sys.exit(unittest.main())
