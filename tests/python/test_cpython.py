# SPDX-License-Identifier: MIT
# asan: no (the suites leave themselves out where they see a sanitizer)
# timeout: 240
"""test_cpython.py - CPython's own tests of concurrent.futures (cpython/glue.py), all kinds at once.

They sleep most of their time, so they run beside each other.
"""
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

GLUE = pathlib.Path(__file__).parent / "cpython/glue.py"
KINDS = ("fork", "forkserver", "future")
counts = {}


def summary():
    run, skipped = (sum(count[i] for count in counts.values()) for i in (0, 1))
    return f"{run} run, {skipped} skipped"


@unittest.skipUnless(importlib.util.find_spec("test.test_concurrent_futures"),
                     "CPython's tests are not here (libpython3.x-testsuite)")
class Suites(unittest.TestCase):
    def test_suites(self):
        started = {}
        for kind in KINDS:
            log = tempfile.TemporaryFile("w+")
            limit = dict(os.environ, YOKE_TEST_LIMIT="200")
            command = [sys.executable, str(GLUE), kind]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=limit)
            started[kind] = process, log
        for kind, (process, log) in started.items():
            code = process.wait()
            log.seek(0)
            said = log.read()
            print(f"-- {kind}\n{said}", flush=True)
            found = re.search(r"^(\d+) run, (\d+) skipped$", said, re.M)
            with self.subTest(kind):
                self.assertIsNotNone(found, "it fell before it could count")
                counts[kind] = int(found[1]), int(found[2])
                self.assertEqual(code, 0)
