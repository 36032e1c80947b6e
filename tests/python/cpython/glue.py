# SPDX-License-Identifier: MIT
"""glue.py KIND [NAME...] - CPython's own tests of concurrent.futures, with Yoke's executor.

Idea: concurrent.futures.ProcessPoolExecutor is Yoke's before those tests are imported (from Debian's
libpython3.x-testsuite), and in the programs that they start. What is imported from the test suite
is run as it is: KIND is the start method of multiprocessing whose classes are run (fork: workers
are copies of the program; forkserver, spawn: of a fresh interpreter), NAME a part of test names.
KIND future: the tests of Future, with Yoke's. `--stdlib` before it all leaves out Yoke, to compare.

Says `N run, M skipped` at the end. More than a tenth skipped is a failure.
"""
import concurrent.futures.process
import faulthandler
import functools
import importlib
import os
import re
import sys
import unittest

PARTS = ("init", "process_pool", "shutdown", "wait", "as_completed", "deadlock")

# What is not run, and the private attribute of the stdlib's executor that it is about.
SKIP = {
    "test_processes_terminate": "_processes: grows with the first calls; here all are there at once",
    "test_idle_process_reuse_one": "_processes: the same",
    "test_idle_process_reuse_multiple": "_processes: the same",
    "test_python_finalization_error": "_executor_manager_thread: that it needs a second thread",
}
EVERYWHERE = {"test_python_finalization_error"}  # else not for fork

PRELUDE = """
import concurrent.futures.process, yoke.futures
concurrent.futures.ProcessPoolExecutor = yoke.futures.ProcessPoolExecutor
concurrent.futures.process.ProcessPoolExecutor = yoke.futures.ProcessPoolExecutor
# One of the programs uses it without an import (its author skips it with the stdlib's executor).
import multiprocessing
"""


def adopt():
    """Yoke's executor in place of the stdlib's, here and in programs that tests start."""
    from test.support import script_helper

    plain = script_helper.assert_python_ok

    @functools.wraps(plain)
    def with_yoke(*args, **environment):
        assert args[0] == "-c", args
        return plain("-c", PRELUDE + args[1], *args[2:], **environment)

    script_helper.assert_python_ok = with_yoke
    exec(PRELUDE, {})
    # Test cases take theirs now. A test leaves itself out where that is the stdlib's, by its place.
    executor = concurrent.futures.ProcessPoolExecutor
    concurrent.futures.ProcessPoolExecutor = type(executor.__name__, (executor,), {})
    modules()
    concurrent.futures.ProcessPoolExecutor = executor


def modules():
    package = importlib.import_module("test.test_concurrent_futures")
    if not hasattr(package, "__path__"):
        return [package]
    return [importlib.import_module(f"{package.__name__}.test_{part}") for part in PARTS]


def cases(kind):
    if kind == "future":
        module = importlib.import_module("test.test_concurrent_futures")
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"{module.__name__}.test_future")
        yield module.FutureTests
        return
    name = re.compile(f"ProcessPool{kind.capitalize()}(?!server)")
    for module in modules():
        yield from (value for key, value in sorted(vars(module).items()) if name.match(key))


def chosen(kind, names, skip):
    for case in cases(kind):
        for name in unittest.defaultTestLoader.getTestCaseNames(case):
            if names and not any(part in f"{case.__name__}.{name}" for part in names):
                continue
            if name in skip and (kind != "fork" or name in EVERYWHERE):
                setattr(case, name, unittest.skip(skip[name])(getattr(case, name)))
            yield case(name)


def main(*args):
    stdlib = args[0] == "--stdlib"
    kind, *names = args[1:] if stdlib else args
    limit = float(os.environ.pop("YOKE_TEST_LIMIT", "0"))
    if limit:
        faulthandler.dump_traceback_later(limit - min(5, limit / 10), exit=True)
    if not stdlib:
        adopt()
    suite = unittest.TestSuite(chosen(kind, names, {} if stdlib else SKIP))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, durations=10).run(suite) \
        if sys.version_info >= (3, 12) else \
        unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    skipped = len(result.skipped)
    print(f"{result.testsRun - skipped} run, {skipped} skipped")
    if not names and skipped * 10 > result.testsRun:
        print("too many are skipped")
        return 1
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
