# SPDX-License-Identifier: MIT
# asan: no
"""test_shutdown.py - the end of a pool, and of a program that has one, in each form; and the forms
a program itself comes in.

timeout: 300
"""
import gc
import os
import tempfile
import threading
import time
import unittest
import weakref
from concurrent.futures import CancelledError

import kit
import yoke

WAIT = kit.LIMIT_S
AT_ONCE_S = kit.AT_ONCE_S


def square(x):
    return x * x


def begun_sleep(path, seconds=60):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)


def wait_for(path):
    end = time.monotonic() + WAIT
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.002)
    return path


def lines_of(path):
    try:
        with open(path) as file:
            return file.read().split()
    except FileNotFoundError:
        return []


@kit.each(**kit.BOTH)
class Shutdown:
    def setUp(self):
        self.pool = yoke.Pool(workers=2, start=self.start)
        self.addCleanup(self.pool.shutdown, kill=True)
        folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(folder.name, "file")
        self.go = os.path.join(folder.name, "go")
        self.addCleanup(folder.cleanup)

    def begin(self, count=2):
        futures = [self.pool.submit(begun_sleep, self.path) for _ in range(count)]
        kit.until(lambda: len(lines_of(self.path)) == count, "that they begin")
        return futures

    def gone(self, pids):
        kit.until(lambda: not any(kit.alive(pid) for pid in pids), "that the workers are gone")

    def test_waits_for_all_work(self):
        futures = [self.pool.submit(square, i) for i in range(500)]
        results = self.pool.map(square, range(100))
        self.pool.submit(square, 1).result(WAIT)
        pids = self.pool.worker_ids()
        self.pool.shutdown()
        self.assertEqual([future.result(0) for future in futures], [i * i for i in range(500)])
        self.assertEqual(next(results), 0)
        self.assertEqual(self.pool.worker_ids(), [])
        self.gone(pids)
        self.pool.shutdown()
        self.pool.shutdown(cancel_futures=True, kill=True)

    def test_before_the_workers_are_there(self):
        for _ in range(5):
            pool = yoke.Pool(workers=1, start=self.start)
            future = pool.submit(square, 3)
            pool.shutdown()
            self.assertEqual(future.result(0), 9)
            yoke.Pool(workers=1, start=self.start).shutdown()

    def test_without_waiting(self):
        future = self.pool.submit(wait_for, self.go)
        self.pool.shutdown(wait=False)
        self.assertFalse(future.done())
        with self.assertRaises(yoke.PoolClosed):
            self.pool.submit(square, 1)
        open(self.go, "w").close()
        self.assertEqual(future.result(WAIT), self.go)
        self.pool.shutdown()

    def test_cancel_futures(self):
        running = [self.pool.submit(wait_for, self.go) for _ in range(2)]
        kit.until(lambda: all(future.running() for future in running), "that they run")
        waiting = [self.pool.submit(square, i) for i in range(1000)]
        self.pool.shutdown(wait=False, cancel_futures=True)
        for future in waiting[-500:]:
            with self.assertRaises(CancelledError):
                future.result(WAIT)
        open(self.go, "w").close()
        self.assertEqual([future.result(WAIT) for future in running], [self.go] * 2)
        self.pool.shutdown()

    def test_kill(self):
        running = self.begin()
        waiting = [self.pool.submit(square, i) for i in range(100)]
        pids = self.pool.worker_ids()
        began = time.monotonic()
        self.pool.shutdown(kill=True)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        for future in running + waiting:
            with self.assertRaises(CancelledError):
                future.result(0)
        self.gone(pids)

    def test_kill_while_the_workers_start(self):
        if self.start == "fork":
            return  # the constructor waits for them; see test_ctrl_c_while_they_are_forked
        pool = yoke.Pool(workers=2, start=self.start, initializer=begun_sleep,
                         initargs=(self.path,))
        future = pool.submit(square, 3)
        kit.until(lambda: lines_of(self.path), "that they start")
        pids = list(map(int, lines_of(self.path)))
        began = time.monotonic()
        pool.shutdown(kill=True)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        with self.assertRaises(CancelledError):
            future.result(WAIT)
        self.gone(pids)

    def test_kill_after_a_shutdown_that_does_not_end(self):
        self.begin()
        self.pool.shutdown(wait=False)
        began = time.monotonic()
        self.pool.shutdown(kill=True)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)

    def test_with(self):
        with self.pool as pool:
            self.assertIs(pool, self.pool)
            future = pool.submit(square, 3)
        self.assertEqual(future.result(0), 9)

    def test_with_an_exception_waits(self):
        with self.assertRaises(ValueError):
            with self.pool:
                future = self.pool.submit(square, 3)
                raise ValueError
        self.assertEqual(future.result(0), 9)

    def test_with_an_exit_kills(self):
        for error in (KeyboardInterrupt, SystemExit):
            pool = yoke.Pool(workers=1, start=self.start)
            path = f"{self.path}.{error.__name__}"
            began = None
            with self.assertRaises(error):
                with pool:
                    future = pool.submit(begun_sleep, path)
                    kit.until(lambda: lines_of(path), "that it begins")
                    began = time.monotonic()
                    raise error
            self.assertLess(time.monotonic() - began, AT_ONCE_S)
            with self.assertRaises(CancelledError):
                future.result(WAIT)
            self.gone(map(int, lines_of(path)))

    def test_from_many_threads(self):
        futures = [self.pool.submit(square, i) for i in range(100)]
        threads = [threading.Thread(target=self.pool.shutdown) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
            self.assertFalse(thread.is_alive())
        self.assertEqual([future.result(0) for future in futures], [i * i for i in range(100)])

    def test_while_others_submit(self):
        for _ in range(5):
            pool = yoke.Pool(workers=2, start=self.start)
            futures = []

            def submit():
                try:
                    while True:
                        futures.append(pool.submit(square, 2))
                except yoke.PoolClosed:
                    pass

            threads = [threading.Thread(target=submit) for _ in range(3)]
            for thread in threads:
                thread.start()
            kit.until(lambda: len(futures) > 50, "that they submit")
            pool.shutdown()
            for thread in threads:
                thread.join(WAIT)
            self.assertEqual({future.result(0) for future in futures}, {4})

    def test_dropped(self):
        futures = [self.pool.submit(square, i) for i in range(100)]
        futures[0].result(WAIT)
        pids = self.pool.worker_ids()
        thread = self.pool._runner.thread
        pool = weakref.ref(self.pool)
        self._cleanups.clear()
        self.pool = None
        gc.collect()
        self.assertIsNone(pool())
        thread.join(WAIT)
        self.assertFalse(thread.is_alive())
        self.assertEqual([future.result(0) for future in futures], [i * i for i in range(100)])
        self.gone(pids)

    def test_dropped_in_a_cycle(self):
        pool = yoke.Pool(workers=1, start=self.start)
        pool.me = pool
        future = pool.submit(square, 5)
        future.add_done_callback(lambda _, pool=pool: None)
        future.result(WAIT)
        thread = pool._runner.thread
        del pool, future
        gc.collect()
        thread.join(WAIT)
        self.assertFalse(thread.is_alive())

    def test_never_used_and_dropped(self):
        for _ in range(10):
            thread = yoke.Pool(workers=1, start=self.start)._runner.thread
            thread.join(WAIT)
            self.assertFalse(thread.is_alive())

    def test_nothing_is_left(self):
        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        with yoke.Pool(workers=2, start=self.start) as pool:
            pool.submit(square, 1).result(WAIT)
        own = {*kit.children()}
        before = descriptors()
        for _ in range(10):
            with yoke.Pool(workers=2, start=self.start) as pool:
                list(pool.map(square, range(100)))
        kit.until(lambda: {*kit.children()} <= own, "that no children are left")
        self.assertLessEqual(descriptors(), before)
        self.assertEqual([t for t in threading.enumerate() if t.name == "yoke-collector"
                          and t is not self.pool._runner.thread], [])


class Exit(unittest.TestCase):
    """The end of a program."""

    def check(self, program, code=0, out=None, err=""):
        if out is not None:
            self.assertEqual(program.out, out, program.err)
        if err is not None:
            self.assertEqual(program.err, err)
        self.assertEqual(program.code, code, program.err)

    def both(self, source, **expected):
        for start in kit.BOTH:
            with self.subTest(start=start):
                self.check(kit.run(source.replace("START", repr(start))), **expected)

    def test_work_that_was_handed_in_is_done(self):
        self.both("""
            import yoke, time
            def work(x):
                time.sleep(0.05)
                print(x, flush=True)
            pool = yoke.Pool(workers=1, start=START)
            for i in range(3):
                pool.submit(work, i)
        """, out="0\n1\n2\n")

    def test_nothing_handed_in(self):
        self.both("import yoke; pool = yoke.Pool(workers=1, start=START)")
        self.both("import yoke; yoke.Pool(workers=1, start=START).submit(len, 'a').result()")

    def test_a_map_half_taken(self):
        self.both("""
            import itertools, yoke
            pool = yoke.Pool(workers=2, start=START)
            results = pool.map(abs, itertools.count())
            print(next(results))
        """, out="0\n")

    def test_sys_exit(self):
        self.both("""
            import yoke, sys
            pool = yoke.Pool(workers=2, start=START)
            pool.submit(print, "done", flush=True)
            sys.exit(3)
        """, out="done\n", code=3)

    def test_sys_exit_within_with(self):
        self.both("""
            import yoke, sys, time
            with yoke.Pool(workers=2, start=START) as pool:
                pool.submit(time.sleep, 60)
                pool.submit(len, "a").result()
                sys.exit(3)
        """, code=3)

    def test_an_exception(self):
        program = kit.run("""
            import yoke
            pool = yoke.Pool(workers=2)
            pool.submit(print, "done", flush=True)
            raise ValueError("mine")
        """)
        self.check(program, code=1, out="done\n", err=None)
        self.assertEqual(program.err.count("Traceback"), 1)

    def test_os_exit(self):
        self.both("""
            import yoke, os, time
            pool = yoke.Pool(workers=2, start=START)
            pool.submit(time.sleep, 60)
            pool.submit(len, "a").result()
            os._exit(5)
        """, code=5)

    def test_submit_at_exit(self):
        self.both("""
            import atexit, yoke
            pool = yoke.Pool(workers=1, start=START)
            def late():
                try:
                    pool.submit(len, "a")
                except RuntimeError as exc:
                    print(exc)
                try:
                    yoke.Pool(workers=1, start=START)
                except RuntimeError as exc:
                    print("too late")
            atexit.register(late)
            print(pool.submit(len, "a").result(), flush=True)
        """, out="1\ncannot schedule new futures after shutdown\ntoo late\n")

    def test_a_first_pool_at_exit(self):
        program = kit.run("""
            import atexit
            def late():
                import yoke
                try:
                    print(yoke.Pool(workers=1).submit(len, "abc").result())
                except RuntimeError:
                    print("too late")
            atexit.register(late)
        """)
        self.assertIn(program.out, ("3\n", "too late\n"))
        self.assertEqual((program.code, program.err), (0, ""))

    def test_futures_that_outlive_the_pool(self):
        self.both("""
            import yoke
            future = yoke.Pool(workers=1, start=START).submit(pow, 2, 5)
            print(future.result())
        """, out="32\n")

    def test_threads_that_wait(self):
        self.both("""
            import threading, time, yoke
            pool = yoke.Pool(workers=1, start=START)
            future = pool.submit(time.sleep, 0.2)
            threading.Thread(target=lambda: print(future.result())).start()
        """, out="None\n")

    def test_it_says_what_it_waits_for(self):
        program = kit.Program("""
            import time, yoke, yoke._collector
            yoke._collector._NOTE_AFTER_S = 0.3
            pool = yoke.Pool(workers=1)
            pool.submit(time.sleep, 60)
            pool.submit(len, "a").cancel()
        """)
        line = program.process.stderr.readline()
        self.assertRegex(line, r"^yoke: the program .* waits for 1 call .*workers: \d+")
        self.assertLess(time.monotonic() - self.interrupt(program), AT_ONCE_S)
        self.assertEqual(program.err, "")
        self.assertEqual(program.code, -2)

    def interrupt(self, program):
        began = program.interrupt()
        program.wait()
        kit.until(lambda: not program.left(), "that nothing is left", AT_ONCE_S)
        return began

    def test_ctrl_c(self):
        """In each kind of wait: the end comes at once, with one traceback, and nothing is left."""
        announced = (
            "import yoke._collector as c; join = c.Runner.join; "
            "c.Runner.join = lambda *args: (print('begun', flush=True), join(*args))[1]"
        )
        waits = {
            "result": "pool.submit(sleep).result()",
            "map": "list(pool.map(sleep, range(4)))",
            "exit": "pool.submit(time.sleep, 60); " + announced,
            "shutdown": "pool.submit(sleep); pool.shutdown()",
            "with": "with pool: pool.submit(sleep)",
            "result within with": "with pool: pool.submit(sleep).result()",
            "wait": "concurrent.futures.wait([pool.submit(sleep)])",
            "as_completed": "list(concurrent.futures.as_completed([pool.submit(sleep)]))",
            "exception": "pool.submit(sleep).exception()",
        }
        for start in kit.BOTH:
            for name, wait in waits.items():
                with self.subTest(start=start, wait=name):
                    program = kit.Program(f"""
                        import concurrent.futures, time, yoke
                        def sleep(x=None):
                            print("begun", flush=True)
                            time.sleep(60)
                        pool = yoke.Pool(workers=2, start={start!r})
                        {wait}
                    """)
                    self.assertEqual(program.line(), "begun")
                    self.assertLess(time.monotonic() - self.interrupt(program), AT_ONCE_S)
                    self.assertEqual(program.code, -2, program.err)
                    self.assertEqual(program.err.count("Traceback"), name != "exit", program.err)
                    if name != "exit":
                        self.assertIn("KeyboardInterrupt", program.err)

    def test_ctrl_c_in_a_long_start(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "slow_to_import.py"), "w") as file:
                file.write("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
            for wait in ("", "; pool.submit(len, 'a').result()", "; pool.shutdown()"):
                with self.subTest(wait=wait):
                    program = kit.Program(f"""
                        import sys, yoke
                        sys.path.append({folder!r})
                        pool = yoke.Pool(workers=1, preload=["slow_to_import"]){wait}
                        import time; time.sleep(60)
                    """)
                    self.assertEqual(program.line(), "begun")
                    self.assertLess(time.monotonic() - self.interrupt(program), AT_ONCE_S)
                    self.assertEqual(program.code, -2, program.err)

    def test_ctrl_c_while_they_are_forked(self):
        program = kit.Program("""
            import time, yoke
            def hang():
                print("begun", flush=True)
                time.sleep(60)
            try:
                yoke.Pool(workers=1, start="fork", initializer=hang)
            except KeyboardInterrupt:
                print("stopped")
        """)
        self.assertEqual(program.line(), "begun")
        self.assertLess(time.monotonic() - self.interrupt(program), AT_ONCE_S)
        self.assertEqual((program.out, program.err, program.code), ("stopped\n", "", 0))

    def test_ctrl_c_that_is_caught(self):
        program = kit.Program("""
            import time, yoke
            def sleep():
                print("begun", flush=True)
                time.sleep(60)
            pool = yoke.Pool(workers=1)
            future = pool.submit(sleep)
            try:
                future.result()
            except KeyboardInterrupt:
                print(future.cancel(force=True), pool.submit(len, "abc").result())
        """)
        self.assertEqual(program.line(), "begun")
        self.interrupt(program)
        self.assertEqual((program.out, program.err, program.code), ("True 3\n", "", 0))

    def test_a_forked_child_ends(self):
        self.both("""
            import os, sys, time, warnings, yoke
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
            pool = yoke.Pool(workers=1, start=START)
            future = pool.submit(pow, 2, 3)
            future.result()
            with yoke.Pool(workers=1, start=START) as other:
                other.submit(pow, 2, 3).result()
                if os.fork() == 0:
                    print("child", flush=True)
                    sys.exit(0)
                print(os.wait()[1])
        """, out="child\n0\n")

    def test_multiprocessing_beside_it(self):
        self.both("""
            import multiprocessing, yoke
            pool = yoke.Pool(workers=1, start=START)
            print(pool.submit(pow, 2, 3).result(), flush=True)
            process = multiprocessing.get_context("fork").Process(target=print, args=("child",))
            process.start()
            process.join()
            print(process.exitcode)
        """, out="8\nchild\n0\n")

    def test_closed_streams(self):
        self.both("""
            import sys, yoke
            pool = yoke.Pool(workers=1, start=START)
            pool.submit(len, "a")
            sys.stderr.close()
            sys.stdout.close()
        """)

    def test_subinterpreters(self):
        program = kit.run("""
            try:
                import _interpreters as interpreters
            except ImportError:
                import _xxsubinterpreters as interpreters
            source = '''
            import yoke
            try:
                pool = yoke.Pool(workers=1, start="fork")
            except RuntimeError as exc:
                print("refused", flush=True)
            else:
                print("made", flush=True)
                pool.shutdown()
            try:
                with yoke.Pool(workers=1) as pool:
                    print(pool.submit(pow, 2, 3).result(), flush=True)
            except (RuntimeError, ImportError) as exc:
                print("8", flush=True)
            '''
            import textwrap
            id = interpreters.create()
            interpreters.run_string(id, textwrap.dedent(source))
            interpreters.destroy(id)
        """)
        self.assertEqual(program.out, "refused\n8\n", program.err)
        self.assertEqual(program.code, 0, program.err)


FORMS = """
import dataclasses, enum, typing
import yoke

@dataclasses.dataclass
class Point:
    x: int
    y: int = 2
    def sum(self):
        return self.x + self.y

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

class Pair(typing.NamedTuple):
    a: int
    b: int

class Mine(Exception):
    pass

factor = 3

def scaled(point):
    return Point(point.x * factor, point.y)

def colour(c):
    return Colour.BLUE if c is Colour.RED else c

def pair(p):
    return Pair(p.b, p.a)

def fail():
    raise Mine("x")

def total(n):
    return n if n == 0 else n + total(n - 1)

pool = yoke.Pool(workers=2)
p = pool.submit(scaled, Point(4)).result()
assert p == Point(12, 2) and type(p) is Point and p.sum() == 14, p
assert pool.submit(colour, Colour.RED).result() is Colour.BLUE
assert pool.submit(pair, Pair(1, 2)).result() == Pair(2, 1)
assert type(pool.submit(fail).exception()) is Mine
assert list(pool.map(total, range(5))) == [0, 1, 3, 6, 10]

def scaled(point):
    return "again"

assert pool.submit(scaled, Point(4)).result() == "again"
factor = 5
def use():
    return factor
assert pool.submit(use).result() == 5
factor = 6
assert pool.submit(use).result() == 6
print("fine")
"""


class Forms(unittest.TestCase):
    """What a program can look like; none of them has a guard."""

    def fine(self, program):
        self.assertEqual((program.out, program.err, program.code), ("fine\n", "", 0))

    def test_a_script(self):
        self.fine(kit.run(FORMS))

    def test_a_script_with_fork(self):
        self.fine(kit.run(FORMS.replace("workers=2", "workers=2, start='fork'")))

    def test_a_module(self):
        self.fine(kit.run(FORMS, "module"))

    def test_a_command(self):
        self.fine(kit.run(FORMS, "-c"))

    def test_standard_input(self):
        self.fine(kit.run(FORMS, "stdin"))

    def test_source_that_is_executed(self):
        source = f"exec(compile({FORMS!r}, '<cell>', 'exec'), {{'__name__': '__main__'}})"
        self.fine(kit.run(source))

    def test_cells_of_a_notebook(self):
        cells = [cell for cell in FORMS.split("\n\n") if cell.strip()]
        self.fine(kit.run(f"""
            for cell in {cells!r}:
                exec(compile(cell, "<cell>", "exec"), globals())
        """))

    def test_an_interactive_session(self):
        lines = ["import yoke", "def f(x):", "    return x + 1", "", "p = yoke.Pool(workers=1)",
                 "p.submit(f, 1).result()", "def f(x):", "    return x + 2", "",
                 "p.submit(f, 1).result()", "list(p.map(lambda x: f(x), [1, 2]))"]
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "lines")
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        with open(path) as file:
            program = kit.run("", "stdin", flags=("-i", "-q"), stdin=file)
        self.assertEqual((program.out, program.code), ("2\n3\n[3, 4]\n", 0), program.err)
        self.assertNotIn("Error", program.err)

    def test_options_of_the_interpreter(self):
        for flags in (("-I",), ("-E",), ("-O",), ("-OO",), ("-B",), ("-X", "utf8"), ("-X", "dev"),
                      ("-W", "error"), ("-u",), ("-s",), ("-P",), ("-bb",)):
            with self.subTest(flags=flags):
                program = kit.run("""
                    import sys, yoke
                    def options():
                        import sys
                        return {n: getattr(sys.flags, n) for n in (
                            "optimize", "dont_write_bytecode", "utf8_mode", "dev_mode",
                            "bytes_warning", "isolated")}
                    pool = yoke.Pool(workers=1)
                    there, here = pool.submit(options).result(), options()
                    assert there == here, (there, here)
                    print("fine")
                """, flags=flags)
                self.fine(program)

    def test_import_is_quick(self):
        program = kit.run("""
            import concurrent.futures, sys, time
            before = set(sys.modules)
            import yoke
            assert set(sys.modules) - before == {"yoke"}, set(sys.modules) - before
            assert {"Pool", "futures", "WorkerDied", "__version__"} <= set(dir(yoke))
            try:
                yoke.nothing
            except AttributeError as exc:
                print(exc)
            from yoke import *
            assert Pool is yoke.Pool and futures.ProcessPoolExecutor
            assert yoke.__version__.count(".") == 2, yoke.__version__
        """)
        self.assertEqual(program.out, "module 'yoke' has no attribute 'nothing'\n", program.err)
        self.assertEqual(program.code, 0, program.err)


if __name__ == "__main__":
    unittest.main()
