# SPDX-License-Identifier: MIT
# asan: no
"""The programs in the documentation, each run as a script of its own.

Idea: what stands after `# ->` is what that line prints, so a block's output must be these texts, in
their order (`...` stands for any line). A program has a deadline; what it writes to stderr is shown
when it fails.
timeout: 180
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLOW = float(os.environ.get("SLOW") or 1)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
SHOWN = re.compile(r"# -> (.*)$", re.M)


def blocks(path):
    """(line, program) for each block."""
    text = path.read_text()
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start()) + 2, match[1]


class Docs(unittest.TestCase):
    def run_block(self, name, program):
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder) / "example.py"
            script.write_text(program)
            done = subprocess.run([sys.executable, str(script)], cwd=folder, text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=30 * SLOW)
        expected = [line.rstrip() for line in SHOWN.findall(program)]
        shown = done.stdout.splitlines()
        for i, line in enumerate(expected):
            if line == "..." and i < len(shown):
                expected[i] = shown[i]
        self.assertEqual((shown, done.returncode), (expected, 0), f"{name}\n{done.stderr}")

    def run_page(self, name, least):
        found = list(blocks(ROOT / name))
        self.assertGreaterEqual(len(found), least)
        for line, program in found:
            with self.subTest(f"{name}:{line}"):
                if "import numpy" in program and not _has("numpy"):
                    continue
                self.assertTrue(SHOWN.search(program), f"{name}:{line}: it shows nothing")
                self.run_block(f"{name}:{line}", program)

    def test_readme(self):
        self.run_page("README.md", 1)

    def test_guide(self):
        self.run_page("docs/python.md", 10)

    def test_which(self):
        self.run_page("docs/python-which.md", 1)

    def test_a_program_that_does_something_else_fails(self):
        for program in ("print(2)  # -> 3\n", "print(2)  # -> ...\nprint(3)\n", "pass  # -> ...\n",
                        "print(2)  # -> 2\nraise OSError\n"):
            with self.subTest(program), self.assertRaises(AssertionError):
                self.run_block("wrong", program)


def _has(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None
