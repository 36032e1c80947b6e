# SPDX-License-Identifier: MIT
"""test_worker.py - inside a worker: requests, threads, signals, output, names, crashes, its end.

timeout: 240
"""
import atexit
import ctypes
import faulthandler
import fcntl
import json
import os
import pathlib
import random
import signal
import struct
import sys
import tempfile
import threading
import time
import unittest
import weakref

import kit
import yoke
from yoke import _yoke

WAIT = kit.LIMIT_S


# --- what workers run ----------------------------------------------------------------------------


def meet(folder, count, value=None):
    """Waits until `count` workers are in here; returns (pid, value())."""
    got = value() if value else None
    pathlib.Path(folder, str(os.getpid())).touch()
    kit.until(lambda: len(os.listdir(folder)) >= count)
    return os.getpid(), got


def from_each(pool, value):
    """value() of each worker."""
    with tempfile.TemporaryDirectory() as folder:
        futures = [pool.submit(meet, folder, pool.workers, value) for _ in range(pool.workers)]
        found = dict(future.result(WAIT) for future in futures)
    assert len(found) == pool.workers, found
    return list(found.values())


def random_number():
    return random.random()


def numpy_number():
    import numpy

    return float(numpy.random.rand())


def segfault():
    ctypes.string_at(0)


def segfault_elsewhere():
    ctypes.string_at(1)


def raises_with(kind, *args):
    raise kind(*args)


class Stubborn:
    """Cannot be carried over in the one direction or the other."""

    def __init__(self, where):
        self.where = where

    def __reduce__(self):
        if self.where == "pickle":
            raise ValueError("not to be pickled")
        return complain, (self.where,)


def complain(where):
    raise ValueError(f"not to be unpickled: {where}")


def raise_stubborn():
    raise ValueError(Stubborn("pickle"))


def length(item):
    return len(item) if hasattr(item, "__len__") else item


def repeat(size):
    return b"x" * size


probes = []


class Probe:
    pass


def raise_beside_probe():
    probe = Probe()
    probes.append(weakref.ref(probe))
    raise KeyError("beside")


def probes_alive():
    return [probe() is not None for probe in probes]


def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)


def deep_through_c(n):
    def key(x):
        return 0 if x == 0 else sorted([x - 1], key=key)[0] + 1

    return key(n)


def deep_json(n):
    return len(json.dumps(json.loads("[" * n + "]" * n)))


def deep_with_limit(n):
    sys.setrecursionlimit(20000)
    try:
        return deep(n)
    finally:
        sys.setrecursionlimit(1000)


def endless_recursion():
    return endless_recursion() + 1


def start_counting(path):
    """A thread that counts in a file, 8 bytes."""
    file = open(path, "r+b", buffering=0)

    def count():
        number = 0
        while True:
            number += 1
            file.seek(0)
            file.write(struct.pack("q", number))
            time.sleep(0.001)

    threading.Thread(target=count, daemon=True).start()


def counted(path):
    return struct.unpack("q", pathlib.Path(path).read_bytes())[0]


def describe():
    import multiprocessing

    return {
        "comm": pathlib.Path("/proc/self/comm").read_text().strip(),
        "cmdline": pathlib.Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode(),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "process": multiprocessing.current_process().name,
        "daemon": multiprocessing.current_process().daemon,
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "main": sys.modules["__main__"].__name__,
        "file": getattr(sys.modules["__main__"], "__file__", None),
        "image": os.environ.get("YOKE_IMAGE"),
        "sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    }


def read_input():
    try:
        return input()
    except EOFError:
        return "EOF"


def environment(*names):
    return [os.environ.get(name) for name in names]


def nested_multiprocessing():
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def nested_executor():
    import concurrent.futures
    import multiprocessing

    with concurrent.futures.ProcessPoolExecutor(
        2, mp_context=multiprocessing.get_context("fork")
    ) as pool:
        return list(pool.map(abs, [-1, -2, -3]))


def nested_yoke():
    with yoke.Pool(workers=2) as pool:
        return pool.kind, list(pool.map(abs, [-1, -2, -3])), pool.submit(abs, -4).result()


def nested_drop_in():
    with yoke.futures.ProcessPoolExecutor(2) as pool:
        return list(pool.map(abs, [-1, -2, -3]))


def child_crashes():
    """A child of the worker dies; the worker lives."""
    pid = os.fork()
    if pid == 0:
        segfault_elsewhere()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def own_faulthandler(path):
    faulthandler.enable(open(path, "w"))
    segfault()


def note_at_exit(path, text):
    atexit.register(lambda: pathlib.Path(path).write_text(text))
    return os.getpid()


def hang_at_exit():
    atexit.register(time.sleep, 3600)
    return os.getpid()


def put(queue):
    queue.put(os.getpid())


def on_signal(path):
    signal.signal(signal.SIGUSR1, lambda *_: pathlib.Path(path).write_text("handled"))


def leave_on_signal():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def ready():
    return os.getpid()


# --- requests ------------------------------------------------------------------------------------


@kit.each(**kit.BOTH)
class Requests:
    @classmethod
    def setUpClass(cls):
        cls.pool = yoke.Pool(workers=2, start=cls.start)

    @classmethod
    def tearDownClass(cls):
        cls.pool.shutdown()

    def ended(self, fn, *args):
        """The exception of a call; and the pool works on."""
        exc = self.pool.submit(fn, *args).exception(WAIT)
        self.assertEqual(self.pool.submit(abs, -3).result(WAIT), 3)
        return exc

    def test_what_a_task_raises_is_its_result(self):
        for kind in (ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration,
                     MemoryError, RecursionError):
            exc = self.ended(raises_with, kind, "why")
            self.assertIs(type(exc), kind)
            self.assertEqual(exc.args, ("why",))
            self.assertIn("in raises_with", str(exc.__cause__))
            self.assertIn(f"{kind.__name__}: why", str(exc.__cause__))

    def test_a_task_runs_in_main(self):
        with yoke.Pool(workers=1, start=self.start) as pool:
            pool.submit(exec, "global answer; answer = 42").result(WAIT)
            self.assertEqual(pool.submit(eval, "answer").result(WAIT), 42)
            self.assertEqual(pool.submit(eval, "__name__").result(WAIT), "__main__")

    def test_causes_are_in_the_text(self):
        exc = self.ended(eval, "[1/0 for i in [0] if not (_ for _ in ()).throw(KeyError(5))]")
        self.assertIs(type(exc), KeyError)
        self.assertNotIn("_image", str(exc.__cause__))
        exc = self.ended(exec, "try:\n  1/0\nexcept Exception as e:\n  raise ValueError(2) from e")
        self.assertIs(type(exc), ValueError)
        self.assertIn("ZeroDivisionError", str(exc.__cause__))
        self.assertIn("direct cause", str(exc.__cause__))

    def test_arguments_that_raise_when_unpickled_cost_one_call_of_a_batch(self):
        items = [1, b"ab", Stubborn("there"), "abc", 5]
        results = self.pool.map(length, items, chunksize=5)
        self.assertEqual([next(results), next(results)], [1, 2])
        with self.assertRaises(yoke.TransferError) as caught:
            next(results)
        self.assertIn("not to be unpickled: there", str(caught.exception))
        self.assertEqual(list(results), [3, 5])

    def test_results_that_cannot_be_pickled(self):
        exc = self.ended(Stubborn, "pickle")
        self.assertIs(type(exc), ValueError)
        self.assertIn("not to be pickled", str(exc))
        self.assertIn("while the result", str(exc.__notes__))

    def test_exceptions_that_cannot_be_pickled_are_told_as_text(self):
        exc = self.ended(raise_stubborn)
        self.assertIsInstance(exc, yoke.TransferError)
        self.assertIn("could not be pickled", str(exc))
        self.assertIn("in raise_stubborn", str(exc) + str(exc.__cause__))

    def test_results_of_all_sizes_keep_their_order(self):
        sizes = [0, 1, 100, 5000, 70000, 3, 1 << 20, 2, 200000, 10]
        for chunksize in (1, 4, 10):
            got = list(self.pool.map(repeat, sizes * 3, chunksize=chunksize))
            self.assertEqual([len(one) for one in got], sizes * 3)

    def test_an_exception_does_not_keep_its_frames_alive(self):
        with yoke.Pool(workers=1, start=self.start) as pool:
            for _ in range(3):
                self.assertIsInstance(pool.submit(raise_beside_probe).exception(WAIT), KeyError)
            self.assertEqual(pool.submit(probes_alive).result(WAIT), [False] * 3)

    def test_recursion(self):
        self.assertEqual(self.pool.submit(deep, 900).result(WAIT), 900)
        self.assertEqual(self.pool.submit(deep_through_c, 400).result(WAIT), 400)
        self.assertEqual(self.pool.submit(deep_json, 900).result(WAIT), 1800)
        self.assertEqual(self.pool.submit(deep_with_limit, 15000).result(WAIT), 15000)
        self.assertIsInstance(self.ended(endless_recursion), RecursionError)


# --- threads and signals -------------------------------------------------------------------------


@kit.each(**kit.BOTH)
class Threads:
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "file")
        pathlib.Path(self.path).write_bytes(bytes(8))

    def test_threads_run_while_the_worker_has_no_work(self):
        with yoke.Pool(workers=1, start=self.start, initializer=start_counting,
                       initargs=(self.path,)) as pool:
            pool.submit(ready).result(WAIT)
            before = counted(self.path)
            kit.until(lambda: counted(self.path) > before + 20, "that the thread counts")

    def test_threads_run_beside_tasks_in_c(self):
        with yoke.Pool(workers=1, start=self.start, initializer=start_counting,
                       initargs=(self.path,)) as pool:
            pool.submit(ready).result(WAIT)
            before = counted(self.path)
            end = time.monotonic() + WAIT
            while counted(self.path) < before + 5:
                for _ in pool.map(abs, range(20000)):
                    pass
                self.assertLess(time.monotonic(), end, "the thread gets no turn")

    def test_a_handler_runs_while_the_worker_sleeps(self):
        with yoke.Pool(workers=1, start=self.start, initializer=on_signal,
                       initargs=(self.path,)) as pool:
            os.kill(pool.submit(ready).result(WAIT), signal.SIGUSR1)
            kit.until(lambda: pathlib.Path(self.path).read_bytes() == b"handled")
            self.assertEqual(pool.submit(abs, -1).result(WAIT), 1)

    def test_a_handler_may_end_the_worker(self):
        with yoke.Pool(workers=1, start=self.start, initializer=leave_on_signal) as pool:
            pid = pool.submit(ready).result(WAIT)
            os.kill(pid, signal.SIGTERM)
            kit.until(lambda: not kit.alive(pid), "that it has ended")
            self.assertNotEqual(pool.submit(ready).result(WAIT), pid)


# --- what it looks like --------------------------------------------------------------------------


@kit.each(**kit.BOTH)
class Comforts:
    def test_it_looks_like_the_program(self):
        with yoke.Pool(workers=2, start=self.start) as pool:
            found = from_each(pool, describe)
        self.assertEqual(len({one["comm"] for one in found}), 2)
        for one in found:
            number = one["comm"].removeprefix("yoke-w")
            self.assertTrue(number.isdigit(), one)
            self.assertTrue(one["cmdline"].startswith(one["comm"]), one)
            self.assertEqual(one["process"], f"yoke-worker-{number}")
            self.assertEqual(one["argv"], sys.argv)
            self.assertEqual(one["cwd"], os.getcwd())
            self.assertEqual(one["main"], "__main__")
            self.assertEqual(one["file"], sys.modules["__main__"].__file__)
            self.assertIsNone(one["image"])
            self.assertFalse(one["daemon"])
            for name in ("main_thread", "sigint", "sigterm"):
                self.assertTrue(one[name], name)

    def test_random_states_differ(self):
        random.seed(1)
        with yoke.Pool(workers=2, start=self.start) as pool:
            self.assertEqual(len(set(from_each(pool, random_number))), 2)

    def test_random_states_of_numpy_differ(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("numpy is not installed")
        numpy.random.seed(1)
        preload = ["numpy.random"] if self.start == "fresh" else []
        with yoke.Pool(workers=2, start=self.start, preload=preload) as pool:
            self.assertEqual(len(set(from_each(pool, numpy_number))), 2)

    def test_the_programs_input_is_not_the_workers(self):
        with yoke.Pool(workers=1, start=self.start) as pool:
            self.assertEqual(pool.submit(read_input).result(WAIT), "EOF")

    def test_threads_of_libraries_are_limited(self):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        if any(name in os.environ for name in names):
            self.skipTest("the environment has its own limits")
        with yoke.Pool(workers=1, start=self.start, threads_per_worker=3) as pool:
            self.assertEqual(pool.submit(environment, *names).result(WAIT), ["3"] * 3)
        os.environ["OMP_NUM_THREADS"] = "2"
        self.addCleanup(os.environ.pop, "OMP_NUM_THREADS")
        with yoke.Pool(workers=1, start=self.start, threads_per_worker=3) as pool:
            self.assertEqual(pool.submit(environment, *names).result(WAIT)[0], "2")

    def test_pools_in_a_worker(self):
        with yoke.Pool(workers=1, start=self.start) as pool:
            self.assertEqual(pool.submit(nested_multiprocessing).result(WAIT), [1, 2, 3])
            self.assertEqual(pool.submit(nested_executor).result(WAIT), [1, 2, 3])
            self.assertEqual(pool.submit(nested_yoke).result(WAIT), ("serial", [1, 2, 3], 4))
            self.assertEqual(pool.submit(nested_drop_in).result(WAIT), [1, 2, 3])

    def test_a_manager_of_the_program_can_be_used(self):
        import multiprocessing

        with multiprocessing.Manager() as manager:
            event = manager.Event()
            with yoke.Pool(workers=1, start=self.start) as pool:
                pool.submit(event.set).result(WAIT)
            self.assertTrue(event.is_set())


    def test_shared_memory_of_multiprocessing_outlives_workers(self):
        for early in (True, False):  # the program's tracker runs before the pool, or after
            program = kit.run(f"""
                import os, yoke
                def attach(name):
                    from multiprocessing import shared_memory
                    memory = shared_memory.SharedMemory(name)
                    memory.buf[0] += 1
                    memory.close()
                    return os.getpid()
                def create():
                    from multiprocessing import shared_memory
                    memory = shared_memory.SharedMemory(create=True, size=100)
                    memory.close()
                    return memory.name
                pool = None if {early} else yoke.Pool(workers=1, start={self.start!r}, tasks_max=1)
                from multiprocessing import shared_memory
                memory = shared_memory.SharedMemory(create=True, size=100)
                with pool or yoke.Pool(workers=1, start={self.start!r}, tasks_max=1) as pool:
                    print(len(set(pool.map(attach, [memory.name] * 3, chunksize=1))))
                    other = pool.submit(create).result()
                    pool.submit(abs, 1).result()
                other = shared_memory.SharedMemory(other)
                other.close()
                other.unlink()
                print(memory.buf[0])
                memory.close()
                memory.unlink()
            """)
            self.assertEqual((program.code, program.out, program.err), (0, "3\n3\n", ""))

    def test_an_initializer_with_a_queue(self):
        import multiprocessing

        queue = multiprocessing.get_context("spawn").Queue()
        with yoke.Pool(workers=2, start=self.start, initializer=put, initargs=(queue,)) as pool:
            pool.submit(abs, -1).result(WAIT)
            got = {queue.get(timeout=WAIT) for _ in range(2)}
        self.assertEqual(len(got), 2)
        queue.close()

    def test_a_queue_of_the_fork_context(self):
        import multiprocessing

        queue = multiprocessing.get_context("fork").Queue()
        self.addCleanup(queue.close)
        if self.start == "fresh":  # it would have no semaphore there
            with self.assertRaisesRegex(RuntimeError, "spawn"):
                yoke.Pool(workers=1, start=self.start, initializer=put, initargs=(queue,))
            return
        with yoke.Pool(workers=1, start=self.start, initializer=put, initargs=(queue,)) as pool:
            pool.submit(abs, -1).result(WAIT)
            queue.get(timeout=WAIT)


# --- the end -------------------------------------------------------------------------------------


@kit.each(**kit.BOTH)
class Ends:
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "file")

    def test_exit_handlers_of_tasks_run(self):
        with yoke.Pool(workers=1, start=self.start) as pool:
            pool.submit(note_at_exit, self.path, "tasks'").result(WAIT)
        self.assertEqual(pathlib.Path(self.path).read_text(), "tasks'")

    def test_exit_handlers_of_the_program_do_not(self):
        program = kit.run(f"""
            import atexit, os, tempfile, yoke
            folder = tempfile.TemporaryDirectory()
            atexit.register(print, "at exit", os.getpid(), flush=True)
            with yoke.Pool(workers=2, start={self.start!r}) as pool:
                print(pool.submit(abs, -1).result())
            print(os.path.isdir(folder.name))
            print("pid", os.getpid())
        """)
        self.assertEqual((program.code, program.err), (0, ""))
        lines = program.out.splitlines()
        self.assertEqual(lines[:2], ["1", "True"])
        self.assertEqual(lines[3:], [f"at exit {lines[2].split()[1]}"])

    def test_exit_handlers_do_not_hang_it(self):
        begin = time.monotonic()
        with yoke.Pool(workers=1, start=self.start) as pool:
            pid = pool.submit(hang_at_exit).result(WAIT)
        kit.until(lambda: not kit.alive(pid), "the end of the worker")
        self.assertLess(time.monotonic() - begin, 10 * kit.SLOW)

    def test_a_worker_that_retires_runs_them_too(self):
        with yoke.Pool(workers=1, start=self.start, tasks_max=1) as pool:
            pid = pool.submit(note_at_exit, self.path, "retired").result(WAIT)
            kit.until(lambda: os.path.exists(self.path) and not kit.alive(pid))
            self.assertNotEqual(pool.submit(ready).result(WAIT), pid)
        self.assertEqual(pathlib.Path(self.path).read_text(), "retired")


# --- crashes -------------------------------------------------------------------------------------


@kit.each(**kit.BOTH)
class Crashes:
    def setUp(self):
        self.pool = yoke.Pool(workers=1, start=self.start)
        self.addCleanup(self.pool.shutdown)

    def died(self, fn, *args):
        exc = self.pool.submit(fn, *args).exception(WAIT)
        self.assertIsInstance(exc, yoke.WorkerDied)
        return exc

    def test_the_trace_is_there_life_after_life(self):
        for _ in range(3):
            exc = self.died(segfault)
            self.assertEqual(exc.signal, signal.SIGSEGV)
            self.assertIn("Segmentation fault", exc.traceback)
            self.assertIn("in segfault\n", exc.traceback)
            self.assertNotIn("_image.py", exc.traceback)
            exc = self.died(segfault_elsewhere)
            self.assertIn("in segfault_elsewhere\n", exc.traceback)
            self.assertNotIn("in segfault\n", exc.traceback)

    def test_the_signal_stays_the_true_one(self):
        for number in (signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGILL):
            exc = self.died(signal.raise_signal, number)
            self.assertEqual(exc.signal, number)
            self.assertIn("Fatal Python error", exc.traceback)
        exc = self.died(signal.raise_signal, signal.SIGKILL)
        self.assertEqual((exc.signal, exc.traceback), (signal.SIGKILL, None))

    def test_an_exit_leaves_no_trace(self):
        self.died(segfault)
        exc = self.died(os._exit, 3)
        self.assertEqual((exc.exit_code, exc.traceback), (3, None))

    def test_a_child_of_the_worker_is_not_the_worker(self):
        self.assertEqual(self.pool.submit(child_crashes).result(WAIT), -signal.SIGSEGV)
        self.assertNotIn("segfault_elsewhere", self.died(segfault).traceback)

    def test_who_turns_on_faulthandler_gets_the_trace(self):
        with tempfile.NamedTemporaryFile("r") as file:
            self.assertEqual(self.died(own_faulthandler, file.name).signal, signal.SIGSEGV)
            self.assertIn("in own_faulthandler", file.read())


# --- output --------------------------------------------------------------------------------------


@kit.each(**kit.BOTH)
class Output:
    def run_program(self, source, **options):
        program = kit.run(source.replace("START", repr(self.start)), **options)
        self.assertEqual((program.code, program.err), (0, ""))
        return program.out

    def test_long_lines_of_several_workers_arrive_whole(self):
        out = self.run_program("""
            import sys, yoke
            def say(number):
                letter = chr(ord("a") + number % 26)
                for _ in range(5):
                    print(letter * 10000)
                    sys.stderr.write("")
            with yoke.Pool(workers=4, start=START) as pool:
                list(pool.map(say, range(40), chunksize=1))
        """)
        lines = out.splitlines()
        self.assertEqual(len(lines), 200)
        for line in lines:
            self.assertEqual(line, line[:1] * 10000)

    def test_lines_arrive_at_once_and_the_rest_at_the_end_of_the_task(self):
        out = self.run_program("""
            import os, sys, yoke
            def say():
                print("whole")
                os.write(1, b"then\\n")
                print("part", end="")
            with yoke.Pool(workers=1, start=START) as pool:
                pool.submit(say).result()
                os.write(1, b"|the program\\n")
                pool.submit(sys.stdout.write, "x" * 20000).result() if START == "fresh" else None
                pool.submit(print, "y", end="").result()
                os.write(1, b"|\\n")
        """.replace('pool.submit(sys.stdout.write, "x" * 20000).result() if START == "fresh" else None',
                    'pool.submit(exec, "import sys; sys.stdout.write(\'x\' * 20000)").result()'))
        self.assertEqual(out, "whole\nthen\npart|the program\n" + "x" * 20000 + "y|\n")

    def test_what_the_program_has_not_flushed_comes_once(self):
        out = self.run_program("""
            import yoke
            print("before", end=" ")
            with yoke.Pool(workers=2, start=START) as pool:
                list(pool.map(print, ["x"] * 4, chunksize=1))
            print("after")
        """)
        self.assertEqual(out.count("before"), 1)
        self.assertEqual(out.count("x\n"), 4)
        self.assertEqual(out.count("after\n"), 1)

    def test_warnings_of_logging_arrive_whole(self):
        program = kit.run(f"""
            import logging, yoke
            def warn(number):
                for _ in range(5):
                    logging.warning("%s", chr(ord("a") + number) * 9000)
            with yoke.Pool(workers=4, start={self.start!r}) as pool:
                list(pool.map(warn, range(20), chunksize=1))
        """)
        lines = program.err.splitlines()
        self.assertEqual(len(lines), 100)
        for line in lines:
            text = line.rpartition(":")[2]
            self.assertEqual(text, text[:1] * 9000)

    def test_a_closed_output_is_that_tasks_affair(self):
        program = kit.Program(f"""
            import os, sys, yoke
            def say():
                print("x")
            with yoke.Pool(workers=1, start={self.start!r}) as pool:
                print("ready", flush=True)
                sys.stdin.readline()
                print(type(pool.submit(say).exception()).__name__, file=sys.stderr)
                print(pool.submit(abs, -2).result(), file=sys.stderr)
            sys.stderr.flush()
            os._exit(0)
        """, stdin=-1)
        with program.process as process:
            self.assertEqual(process.stdout.readline(), "ready\n")
            process.stdout.close()
            process.stdin.write("\n")
            process.stdin.close()
            self.assertEqual(process.stderr.read(), "BrokenPipeError\n2\n")
            self.assertEqual(process.wait(WAIT), 0)


class WriteWhole(unittest.TestCase):
    def test_a_stopped_process_with_the_lock_is_not_waited_for(self):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            fcntl.lockf(writer, fcntl.LOCK_EX)
            os.write(writer, b"held")
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        try:
            self.assertEqual(os.read(reader, 4), b"held")
            os.waitpid(pid, os.WUNTRACED)
            begin = time.monotonic()
            self.assertEqual(_yoke.write_whole(writer, b"free"), 4)
            self.assertLess(time.monotonic() - begin, 5 * kit.SLOW)
            self.assertEqual(os.read(reader, 4), b"free")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)
            os.close(writer)

    def test_a_pipe_that_does_not_block_is_waited_for(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        got = []

        def read():
            while sum(map(len, got)) < 300000:
                got.append(os.read(reader, 65536))

        thread = threading.Thread(target=read)
        thread.start()
        self.assertEqual(_yoke.write_whole(writer, b"z" * 300000), 300000)
        thread.join(WAIT)
        os.close(reader)
        with self.assertRaises(BrokenPipeError):
            _yoke.write_whole(writer, b"z")
        os.close(writer)
        with self.assertRaises(OSError):
            _yoke.write_whole(writer, b"z")


if __name__ == "__main__":
    unittest.main()
