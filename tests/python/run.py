# SPDX-License-Identifier: MIT
"""run.py TEST.py [NAME...] - run the tests of a file, or those named, and say how it went.

Idea: the file is imported as a module, so its functions can be imported by workers, and what is in
this file's folder too. Each test's name is shown before it begins. Shortly before the time that
tools/run-tests.sh gives is up (YOKE_TEST_LIMIT, seconds), the stacks of all threads are shown. A
module's function summary(), if there is one, adds to the line at the end.
"""
import faulthandler
import importlib
import os
import pathlib
import sys
import unittest


def main(path, *names):
    faulthandler.enable()
    limit = float(os.environ.pop("YOKE_TEST_LIMIT", "0"))
    if limit:
        faulthandler.dump_traceback_later(limit - min(5, limit / 10), exit=True)
    module = importlib.import_module(pathlib.Path(path).stem)
    loader = unittest.defaultTestLoader
    tests = loader.loadTestsFromNames(names, module) if names else loader.loadTestsFromModule(module)
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2)
    result = runner.run(tests)
    if not result.wasSuccessful():
        return 1
    skipped = len(result.skipped)
    if skipped >= result.testsRun:
        print("skipped: " + (result.skipped[0][1] if skipped else "there are no tests in it"))
        return 77
    more = getattr(module, "summary", lambda: f"{skipped} skipped" if skipped else "")()
    print(f"summary: {result.testsRun} tests" + (f", {more}" if more else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
