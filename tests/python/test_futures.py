# SPDX-License-Identifier: MIT
# asan: no
"""test_futures.py - yoke.futures.ProcessPoolExecutor behaves as the standard library's.

The same tests run with both; what only one of them does is in classes of their own.

timeout: 180
"""
import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import unittest
import weakref
from concurrent.futures.process import BrokenProcessPool

import kit
import yoke
import yoke.futures

WAIT = kit.LIMIT_S
FORK = multiprocessing.get_context("fork")


def square(x):
    return x * x


def add(x, y):
    return x + y


def keywords(*args, **kwargs):
    return args, kwargs


def fail(text):
    raise ValueError(text)


def fail_at(x, at):
    if x == at:
        raise ValueError(x)
    return x


def touch(path, name, seconds=0):
    open(os.path.join(path, name), "w").close()
    time.sleep(seconds)
    return name


def wait_for(path):
    end = time.monotonic() + WAIT
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.002)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def set_number(number):
    global the_number
    the_number = number


def get_number():
    return the_number


the_number = None


class Thing:
    pass


def wait_and_make(path):
    wait_for(path)
    return Thing()


@kit.each(stdlib={"type": concurrent.futures.ProcessPoolExecutor, "context": FORK},
          fresh={"type": yoke.futures.ProcessPoolExecutor, "context": None},
          fork={"type": yoke.futures.ProcessPoolExecutor, "context": FORK})
class Same:
    def make(self, *args, **kwargs):
        executor = self.type(*args, mp_context=self.context, **kwargs)
        self.addCleanup(executor.shutdown)
        return executor

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.path = folder.name
        self.addCleanup(folder.cleanup)
        self.executor = self.make(2)

    def test_arguments(self):
        for bad in (0, -1):
            with self.assertRaisesRegex(ValueError, "^max_workers must be greater than 0$"):
                self.type(bad)
        with self.assertRaises(TypeError):
            self.type("2")
        with self.assertRaisesRegex(TypeError, "^initializer must be a callable$"):
            self.type(1, initializer=3)
        with self.assertRaisesRegex(TypeError, "^max_tasks_per_child must be an integer$"):
            self.type(1, max_tasks_per_child=1.5)
        with self.assertRaisesRegex(ValueError, "^max_tasks_per_child must be >= 1$"):
            self.type(1, max_tasks_per_child=0)
        with self.assertRaisesRegex(ValueError, "'fork' multiprocessing start method"):
            self.type(1, mp_context=FORK, max_tasks_per_child=1)
        with self.assertRaises(TypeError):
            self.type(1, None, None, (), 5)

    def test_submit(self):
        self.assertEqual(self.executor.submit(square, 5).result(WAIT), 25)
        got = self.executor.submit(keywords, 1, fn=2, self=3, timeout=4, retries=5).result(WAIT)
        self.assertEqual(got, ((1,), {"fn": 2, "self": 3, "timeout": 4, "retries": 5}))
        with self.assertRaises(TypeError):
            self.executor.submit()
        with self.assertRaises(TypeError):
            self.executor.submit(arg=1)
        with self.assertRaisesRegex(ValueError, "why"):
            self.executor.submit(fail, "why").result(WAIT)

    def test_map(self):
        self.assertEqual(list(self.executor.map(square, range(100))), [i * i for i in range(100)])
        self.assertEqual(list(self.executor.map(add, [1, 2, 3], [4, 5])), [5, 7])
        self.assertEqual(list(self.executor.map(square, [])), [])
        for size in (1, 3, 50, 1000):
            got = self.executor.map(add, range(100), range(100), chunksize=size)
            self.assertEqual(list(got), [2 * i for i in range(100)])
        for bad in (0, -1):
            with self.assertRaisesRegex(ValueError, "^chunksize must be >= 1.$"):
                self.executor.map(square, [1], chunksize=bad)

    def test_map_runs_all_though_nobody_takes(self):
        self.executor.map(touch, [self.path] * 20, map(str, range(20)))
        self.executor.shutdown()
        self.assertEqual(len(os.listdir(self.path)), 20)

    def test_map_reads_the_iterables_at_once(self):
        items = iter(range(10))
        results = self.executor.map(square, items)
        self.assertEqual(list(items), [])
        self.assertEqual(list(results), [i * i for i in range(10)])

    def test_map_ends_with_the_first_exception(self):
        results = self.executor.map(fail_at, range(10), [3] * 10)
        self.assertEqual([next(results) for _ in range(3)], [0, 1, 2])
        with self.assertRaises(ValueError):
            next(results)
        with self.assertRaises(StopIteration):
            next(results)

    def test_map_in_time(self):
        self.assertEqual(list(self.executor.map(square, [1, 2], timeout=WAIT)), [1, 4])

    def test_map_too_late(self):
        path = os.path.join(self.path, "go")
        results = self.executor.map(wait_for, [path], timeout=0.05)
        with self.assertRaises(concurrent.futures.TimeoutError) as caught:
            list(results)
        self.assertIsInstance(caught.exception, TimeoutError)
        open(path, "w").close()
        self.assertEqual(self.executor.submit(square, 2).result(WAIT), 4)

    def test_max_workers(self):
        self.assertEqual(self.executor._max_workers, 2)

    def test_processes(self):
        self.executor.submit(square, 1).result(WAIT)
        processes = self.executor._processes
        self.assertGreaterEqual(len(processes), 1)
        for pid, process in processes.items():
            self.assertEqual(process.pid, pid)
            self.assertTrue(process.is_alive())
            self.assertIsNone(process.exitcode)
            self.assertTrue(kit.alive(pid))
        self.assertFalse(self.executor._broken)
        self.assertTrue(self.executor._executor_manager_thread.is_alive())
        self.executor.shutdown()
        for process in processes.values():
            process.join(WAIT)
            self.assertFalse(process.is_alive())
            self.assertEqual(process.exitcode, 0)
        self.assertIsNone(self.executor._processes)
        self.assertIsNone(self.executor._executor_manager_thread)

    def test_a_worker_that_the_program_ends_breaks_it(self):
        running = self.executor.submit(time.sleep, 60)
        waiting = [self.executor.submit(time.sleep, 60) for _ in range(5)]
        worker = next(iter(self.executor._processes.values()))
        worker.terminate()
        for future in [running, *waiting]:
            with self.assertRaises(BrokenProcessPool):
                future.result(WAIT)
        worker.join(WAIT)
        # The executor's own thread may have reaped it, and be about to tell.
        kit.until(lambda: worker.exitcode is not None, "that its exit code is known")
        self.assertEqual(worker.exitcode, -signal.SIGTERM)
        with self.assertRaises(BrokenProcessPool):
            self.executor.submit(square, 1)
        self.assertTrue(self.executor._broken)

    def test_shutdown(self):
        futures = [self.executor.submit(square, i) for i in range(50)]
        self.executor.shutdown()
        self.assertTrue(all(future.done() for future in futures))
        with self.assertRaisesRegex(RuntimeError, "^cannot schedule new futures after shutdown$"):
            self.executor.submit(square, 1)
        with self.assertRaises(RuntimeError):
            self.executor.map(square, [1])
        self.executor.shutdown()

    def test_shutdown_of_what_was_never_used(self):
        self.executor.shutdown()
        with self.assertRaises(RuntimeError):
            self.executor.submit(square, 1)

    def test_shutdown_without_waiting(self):
        path = os.path.join(self.path, "go")
        futures = [self.executor.submit(wait_for, path)]
        futures += [self.executor.submit(square, i) for i in range(10)]
        self.executor.shutdown(wait=False)
        self.assertFalse(futures[0].done())
        open(path, "w").close()
        for future in futures:
            future.result(WAIT)

    def test_shutdown_with_cancel(self):
        path = os.path.join(self.path, "go")
        futures = [self.executor.submit(wait_for, path) for _ in range(500)]
        kit.until(futures[0].running, "that the first runs")
        threading.Timer(0.1, lambda: open(path, "w").close()).start()
        self.executor.shutdown(cancel_futures=True)
        self.assertTrue(all(future.done() for future in futures))
        self.assertFalse(futures[0].cancelled())
        self.assertTrue(futures[-1].cancelled())
        self.assertGreater(sum(future.cancelled() for future in futures), 400)

    def test_with(self):
        with self.type(1, self.context) as executor:
            future = executor.submit(square, 3)
        self.assertEqual(future.result(0), 9)

    def test_initializer(self):
        executor = self.make(1, initializer=set_number, initargs=(7,))
        self.assertEqual(executor.submit(get_number).result(WAIT), 7)

    def test_initializer_that_raises(self):
        executor = self.make(1, initializer=fail, initargs=("not today",))
        with self.assertRaises(concurrent.futures.BrokenExecutor):
            executor.submit(square, 1).result(WAIT)
        kit.until(lambda: executor._broken, "that it says it is broken")
        with self.assertRaises(concurrent.futures.BrokenExecutor):
            executor.submit(square, 1)

    def test_max_tasks_per_child(self):
        executor = self.type(1, max_tasks_per_child=2)
        self.addCleanup(executor.shutdown)
        pids = [executor.submit(os.getpid).result(WAIT) for _ in range(4)]
        self.assertEqual(pids[0], pids[1])
        self.assertEqual(pids[2], pids[3])
        self.assertNotEqual(pids[1], pids[2])

    def test_running_and_cancel(self):
        path = os.path.join(self.path, "go")
        running = [self.executor.submit(wait_for, path) for _ in range(2)]
        kit.until(lambda: all(future.running() for future in running), "that they run")
        waiting = [self.executor.submit(square, i) for i in range(1000)][-1]
        self.assertFalse(running[0].cancel())
        self.assertTrue(waiting.cancel())
        self.assertTrue(waiting.cancelled())
        open(path, "w").close()
        concurrent.futures.wait(running, WAIT)
        self.assertFalse(running[0].cancel())

    def test_results_of_map_are_let_go(self):
        path = os.path.join(self.path, "go")
        results = self.executor.map(wait_and_make, [path] * 3)
        open(path, "w").close()
        for thing in results:
            gone = weakref.ref(thing)
            del thing
            kit.until(lambda: gone() is None, "that the result is let go")

    def test_dropped_without_shutdown(self):
        executor = self.type(2, self.context)
        futures = [executor.submit(square, i) for i in range(20)]
        thread = executor._executor_manager_thread
        gone = weakref.ref(executor)
        del executor
        self.assertIsNone(gone())
        thread.join(WAIT)
        self.assertFalse(thread.is_alive())
        self.assertEqual([future.result(0) for future in futures], [i * i for i in range(20)])

    def test_dropped_while_a_map_goes_on(self):
        executor = self.type(2, self.context)
        thread_of = [executor.submit(square, 1).result(WAIT), executor._executor_manager_thread]
        results = executor.map(square, range(30))
        del executor
        self.assertEqual(list(results), [i * i for i in range(30)])
        thread_of[1].join(WAIT)

    def test_many_threads_begin(self):
        executor = self.make(2)
        futures = []
        gate = threading.Barrier(8)

        def submit():
            gate.wait()
            futures.append(executor.submit(square, 3))

        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        self.assertEqual([future.result(WAIT) for future in futures], [9] * 8)
        self.assertLessEqual(len(executor._processes), 2)


@kit.each(fresh={"context": None}, fork={"context": FORK})
class Yoke:
    """What only ours does, or what is new in later versions of Python."""

    def setUp(self):
        self.executor = yoke.futures.ProcessPoolExecutor(2, self.context)
        self.addCleanup(self.executor.shutdown)
        folder = tempfile.TemporaryDirectory()
        self.path = folder.name
        self.addCleanup(folder.cleanup)

    def test_a_death_costs_one_call(self):
        futures = [self.executor.submit(square, i) for i in range(10)]
        bad = self.executor.submit(die)
        futures += [self.executor.submit(square, i) for i in range(10)]
        with self.assertRaises(yoke.WorkerDied):
            bad.result(WAIT)
        got = [future.result(WAIT) for future in futures]
        self.assertEqual(got, [i * i for i in range(10)] * 2)
        self.assertFalse(self.executor._broken)
        self.assertEqual(self.executor.submit(square, 4).result(WAIT), 16)

    def test_lambdas(self):
        two = 2
        self.assertEqual(list(self.executor.map(lambda x: x * two, range(5), chunksize=2)),
                         [0, 2, 4, 6, 8])

    def test_names(self):
        self.assertEqual(yoke.futures.__all__, ["ProcessPoolExecutor"])
        self.assertIs(yoke.futures.BrokenProcessPool, BrokenProcessPool)
        with self.assertRaises(AttributeError):
            yoke.futures.nothing

    def test_buffersize(self):
        for bad, error in ((0, ValueError), (-1, ValueError), ("1", TypeError)):
            with self.assertRaisesRegex(error, "buffersize must be"):
                self.executor.map(square, [1], buffersize=bad)
        for size in (1, 3, 100):
            got = self.executor.map(square, range(20), buffersize=size)
            self.assertEqual(list(got), [i * i for i in range(20)])
        items = itertools.count()
        results = self.executor.map(square, items, buffersize=4)
        self.assertEqual(next(items), 4)
        self.assertEqual(next(results), 0)
        self.assertEqual(next(results), 1)
        self.assertEqual(next(items), 7)
        results.close()

    def test_buffersize_when_the_executor_has_gone(self):
        results = self.executor.map(square, range(100), buffersize=5)
        self.assertEqual(next(results), 0)
        self.executor.shutdown()
        with self.assertRaises(RuntimeError):
            list(results)
        executor = yoke.futures.ProcessPoolExecutor(2, self.context)
        results = executor.map(square, range(100), buffersize=5)
        del executor
        self.assertEqual(list(results), [0, 1, 4, 9, 16])

    def test_kill_workers(self):
        for name, number in (
            ("kill_workers", signal.SIGKILL), ("terminate_workers", signal.SIGTERM)
        ):
            executor = yoke.futures.ProcessPoolExecutor(2, self.context)
            futures = [executor.submit(touch, self.path, f"{name}{i}", 60) for i in range(300)]
            kit.until(lambda: len([f for f in os.listdir(self.path) if name in f]) == 2, "they run")
            workers = list(executor._processes.values())
            getattr(executor, name)()
            with self.assertRaises(RuntimeError):
                executor.submit(square, 1)
            for worker in workers:
                worker.join(WAIT)
                self.assertEqual(worker.exitcode, -number)
            for future in futures:
                with self.assertRaises((BrokenProcessPool, concurrent.futures.CancelledError)):
                    future.result(WAIT)
            self.assertTrue(futures[-1].cancelled())
            self.assertIsInstance(futures[0].exception(WAIT), BrokenProcessPool)

    def test_kill_workers_of_what_was_never_used(self):
        self.executor.kill_workers()
        with self.assertRaises(RuntimeError):
            self.executor.submit(square, 1)


class Method(unittest.TestCase):
    def test_the_start_method_of_the_program_counts(self):
        kit.run("""
            import multiprocessing, os, yoke.futures
            for method, expected in (("fork", "fork"), ("spawn", "fresh")):
                multiprocessing.set_start_method(method, force=True)
                assert yoke.futures.ProcessPoolExecutor(1)._start == expected, method
            context = multiprocessing.get_context("fork")
            assert yoke.futures.ProcessPoolExecutor(1, context)._start == "fork"
        """)


if __name__ == "__main__":
    unittest.main()
