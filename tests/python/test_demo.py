# SPDX-License-Identifier: MIT
# asan: no
"""python -m yoke, as a reader runs it: what it shows, and how it ends.

timeout: 120
"""
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from yoke import _demo, _demo_text, _demo_which

SLOW = float(os.environ.get("SLOW") or 1)
LIMIT_S = 50 * SLOW


def command(*words):
    return [sys.executable, "-m", "yoke", *words]


def run(*words, **environment):
    return subprocess.run(command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=os.environ | environment, timeout=LIMIT_S)


class Shown(unittest.TestCase):
    def check_text(self, text, verdicts, arrow):
        lines = text.splitlines()
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertGreaterEqual(sum(line.startswith(f"  {arrow} ") for line in lines), verdicts)
        self.assertNotIn("\r", text)

    def test_story(self):
        with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream:
            found = _demo.run(_demo_text.Screen(stream))
            text = stream.buffer.getvalue().decode()
        self.check_text(text, 3, "->")
        for row in ("one loop", "threads", "processes", "a thread each", "a process each",
                    "call 3: WorkerDied: ", "call 5: WorkerDied: ", "call 7: TaskTimeout: "):
            self.assertRegex(text, rf"(?m)^  {row}")
        squares, downloads, faults = found["parts"]
        for part in squares, downloads:
            base = part["figures"][0]["seconds"]
            for figure in part["figures"]:
                self.assertGreater(figure["seconds"], 0)
                self.assertAlmostEqual(figure["speedup"], base / figure["seconds"])
        # 16 times 50 ms is what the server alone takes.
        self.assertGreaterEqual(downloads["figures"][0]["seconds"], 0.8)
        self.assertEqual([fault["exception"] for fault in faults["faults"]],
                         ["WorkerDied", "WorkerDied", "TaskTimeout"])
        self.assertEqual((faults["right"], found["as_promised"]), (9, True))
        self.assertIn("9 of 12 results are right", text)

    def test_table(self):
        figures = dict(start=0.0444, call=0.000123, item=9.99e-05, memory=12345678, squares=1.97,
                       hashes=1.5, pages=15.96)
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        screen = _demo_text.Screen(stream)
        ways = {"threads": figures, "processes, fresh": figures,
                "asyncio": figures | {"memory": None}}
        _demo_which.show(screen, ways, 2, 2)
        text = stream.buffer.getvalue().decode()
        self.check_text(text, 4, "\N{RIGHTWARDS ARROW}")
        self.assertIn(
            "  processes, fresh  44.4 ms  123 us  99.9 us  11.8 MB    1.97x   1.50x  16.0x", text)

    def test_which_as_json(self):
        done = run("which", "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found = json.loads(done.stdout)
        for way, figures in found["ways"].items():
            for name, value in figures.items():
                if value is None:
                    self.assertEqual((way, name), ("asyncio", "memory"))
                elif name != "memory":
                    self.assertGreater(value, 0, (way, name))
        self.assertGreater(found["ways"]["threads"]["pages"], 1.5)


class Ends(unittest.TestCase):
    def test_ctrl_c(self):
        for heading in "1. ", "2. ", "3. ":
            with self.subTest(heading), subprocess.Popen(
                command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            ) as demo:
                try:
                    for line in demo.stdout:
                        if line.startswith(heading):
                            break
                    began = time.monotonic()
                    os.killpg(demo.pid, signal.SIGINT)
                    _, said = demo.communicate(timeout=LIMIT_S)
                    took = time.monotonic() - began
                finally:
                    demo.kill()
                self.assertEqual((demo.returncode, said), (-signal.SIGINT, ""))
                self.assertLess(took, 5 * SLOW)

    def test_nobody_reads(self):
        with subprocess.Popen(command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as demo:
            demo.stdout.close()
            said = demo.stderr.read()
            self.assertEqual((demo.wait(LIMIT_S), said), (1, b""))

    def test_usage(self):
        for words, code, text in (
            (["--version"], 0, "^yoke [0-9]+[.][0-9]+[.][0-9]+\n$"),
            (["--help"], 0, "^usage: python -m yoke"),
            (["tour"], 2, "^yoke: unexpected argument 'tour'\nusage: "),
            (["demo", "which"], 2, "^yoke: unexpected argument 'which'\n"),
        ):
            with self.subTest(words):
                done = run(*words)
                self.assertEqual(done.returncode, code)
                self.assertTrue(re.search(text, done.stderr if code else done.stdout))


class Verdicts(unittest.TestCase):
    """They follow from the figures."""

    def squares(self, cpus=2, gil=True, **seconds):
        names = {"loop": "one loop", "started": "processes, started for it"}
        with mock.patch.object(_demo, "has_gil", lambda: gil):
            return _demo._squares_verdict(
                {names.get(name, name): value for name, value in seconds.items()}, cpus)

    def test_squares(self):
        usual = {"loop": 0.1, "threads": 0.1, "processes": 0.05, "started": 0.09}
        text = self.squares(**usual)
        self.assertRegex(text, "^Take processes, yoke.Pool: 2.00x. Threads are 1.00x")
        self.assertIn("took 40.0 ms", text)
        self.assertIn("from about 80.0 ms of work on", text)  # 40 + 80 / 2 = 80
        self.assertIn("no GIL", self.squares(gil=False, **usual | {"threads": 0.05}))
        self.assertIn("try again", self.squares(**usual | {"threads": 0.05}))
        self.assertIn("did not help", self.squares(**usual | {"processes": 0.09}))
        self.assertIn("With 1 CPU", self.squares(cpus=1, **usual))

    def test_downloads(self):
        def verdict(threads, start, memory):
            figures = [{}, {"start_seconds": 0.01, "memory_bytes": 1000},
                       {"start_seconds": start, "memory_bytes": memory}]
            return _demo._downloads_verdict(
                {"one after the other": 1.0, "a thread each": threads}, 2, figures)

        self.assertIn("Take threads: 10.0x on 2 CPUs", verdict(0.1, 0.1, 9000))
        self.assertIn("cost more", verdict(0.1, 0.1, 9000))
        self.assertNotIn("cost more", verdict(0.1, 0.001, 9000))
        self.assertIn("did not help", verdict(0.95, 0.1, 9000))
