# SPDX-License-Identifier: MIT
"""kit.py - what the tests of pools share: both starts, programs run apart, waits with a deadline.

A test waits for a condition, never for a time; LIMIT_S is how long before it says that it hangs.
"""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

SLOW = float(os.environ.get("SLOW") or 1)
LIMIT_S = 20 * SLOW
# "At once", against work of a minute, on a machine that has other things to do.
AT_ONCE_S = 5 * SLOW


def each(**variants):
    """Decorator of a mixin: a TestCase of it for each variant, with these attributes.

    @each(fresh={"start": "fresh"}, fork={"start": "fork"})
    class Submit: ...     # becomes SubmitFresh and SubmitFork
    """

    def make(mixin):
        for name, attributes in variants.items():
            title = mixin.__name__ + name.capitalize()
            case = type(title, (mixin, unittest.TestCase), dict(attributes))
            case.__module__ = mixin.__module__
            case.__qualname__ = title
            vars(sys.modules[mixin.__module__])[title] = case
        return mixin

    return make


BOTH = {"fresh": {"start": "fresh"}, "fork": {"start": "fork"}}


measures_memory = unittest.skipIf(
    "asan" in os.environ.get("LD_PRELOAD", ""), "under ASan memory grows by itself"
)


def until(condition, what="the condition", limit_s=None):
    """Wait until condition() is true, and return what it returned."""
    end = time.monotonic() + (limit_s or LIMIT_S)
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true")
        time.sleep(0.002)
    return value


def alive(pid):
    """The process is there and not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def children(pid=None):
    """The processes that have pid (this process) as parent."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == (pid or os.getpid()) and fields[0] not in (b"Z", b"X"):
                found.append(int(entry))
    return found


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Program:
    """A Python program that runs apart. how: "file", "-c", "stdin" or "module"."""

    def __init__(self, source, how="file", *, args=(), flags=(), env=None, limit_s=None, **options):
        source = textwrap.dedent(source)
        self.limit_s = limit_s or LIMIT_S
        self.folder = tempfile.TemporaryDirectory(prefix="yoke-test-")
        folder = pathlib.Path(self.folder.name)
        (folder / "program.py").write_text(source)
        given = None
        words = {
            "file": [str(folder / "program.py")],
            "module": ["-m", "program"],
            "-c": ["-c", source],
            "stdin": ["-"],
        }[how]
        if how == "stdin":
            given = open(folder / "program.py")
        full = dict(os.environ, **(env or {}))
        options.setdefault("stdin", given if given else subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        self.process = subprocess.Popen(
            [sys.executable, *flags, *words, *args], text=True, env=full, cwd=str(folder),
            start_new_session=True, **options
        )
        if given:
            given.close()

    def line(self):
        """The next line it prints, without its end."""
        return self.process.stdout.readline().rstrip("\n")

    def interrupt(self):
        """Ctrl-C: the signal goes to all of its processes. Returns when that was."""
        os.killpg(self.process.pid, signal.SIGINT)
        return time.monotonic()

    def wait(self):
        """Wait for its end; out, err and code are set. It is an error if it takes too long."""
        try:
            self.out, self.err = self.process.communicate(timeout=self.limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"the program hangs\n--- out\n{out}\n--- err\n{err}") from None
        self.code = self.process.returncode
        self.folder.cleanup()
        return self

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def left(self):
        """Processes of it that still run."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat", "rb") as file:
                        fields = file.read().rpartition(b")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.process.pid and fields[0] not in (b"Z", b"X"):
                    found.append(int(entry))
        return found


def run(source, how="file", **options):
    """A program from its start to its end; it must leave nothing running."""
    program = Program(source, how, **options).wait()
    try:
        until(lambda: not program.left(), "that all its processes have ended", AT_ONCE_S)
    except AssertionError:
        left = program.left()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"it left processes running: {left}") from None
    return program
