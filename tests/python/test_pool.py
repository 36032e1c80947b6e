# SPDX-License-Identifier: MIT
"""test_pool.py - yoke.Pool: its arguments, submit, cancel, timeouts, retries, deaths, many threads.

timeout: 180
"""
import concurrent.futures
import enum
import functools
import os
import signal
import tempfile
import threading
import time
import unittest
import weakref
from concurrent.futures import CancelledError

import kit
import yoke

WAIT = kit.LIMIT_S


def square(x):
    return x * x


def fail(text):
    raise ValueError(text)


def keywords(*args, **kwargs):
    return args, sorted(kwargs.items())


def die(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(code):
    os._exit(code)


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def square_later(path, x):
    """When there is that file."""
    kit.until(lambda: os.path.exists(path), "that it may end")
    return x * x


def begun_sleep(path, seconds):
    """Says in a file that it has begun."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)


def die_until(path, count):
    """Dies the first `count` times that it is called; says its pid."""
    with open(path, "a+") as file:
        file.write("x")
        file.flush()
        if file.tell() <= count:
            os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def deep(x):
    return {"a": [x, (x, {x}), {"b": None}], "c": b"\0" * 10, "d": 1 << 100, "e": "\ud800"}


class Colour(enum.Enum):
    RED = 1


def echo(x):
    return x


def stop_iteration():
    raise StopIteration("mine")


def interrupt():
    raise KeyboardInterrupt


def leave_by_exit():
    raise SystemExit(3)


class CannotTravel(Exception):
    def __reduce__(self):
        raise TypeError("I do not travel")


def raise_untravelled():
    raise CannotTravel("here I am")


def set_number(number):
    global the_number
    the_number = number


def get_number():
    return the_number


def lines_of(path):
    try:
        with open(path) as file:
            return file.read().split()
    except FileNotFoundError:
        return []


class Arguments(unittest.TestCase):
    def check(self, error, text, *args, **kwargs):
        with self.assertRaisesRegex(error, text):
            yoke.Pool(*args, **kwargs).shutdown()

    def test_kinds_and_starts(self):
        self.check(TypeError, "write workers=", 4)
        self.check(ValueError, "'processes' or 'serial'", "threads")
        self.check(ValueError, "'fresh' or 'fork'", start="spawn")
        self.check(TypeError, "start", start=None)

    def test_counts(self):
        self.check(ValueError, "workers must be greater than 0", workers=0)
        self.check(ValueError, "workers must be greater than 0", workers=-1)
        self.check(ValueError, "at most 1024", workers=1025)
        self.check(TypeError, "workers must be an integer or None, not 'float'", workers=2.0)
        self.check(TypeError, "workers must be an integer or None, not 'str'", workers="2")
        for name in ("tasks_max", "memory", "threads_per_worker"):
            self.check(ValueError, name + " must be greater than 0", **{name: 0})
            self.check(TypeError, name + " must be an integer", **{name: 1.5})
        self.check(ValueError, "cpu_time must be greater than 0", cpu_time=0)
        self.check(ValueError, "cpu_time must be greater than 0", cpu_time=float("nan"))
        self.check(TypeError, "cpu_time must be a number", cpu_time="1")

    def test_initializer_and_preload(self):
        self.check(TypeError, "initializer must be a callable", initializer=1)
        self.check(TypeError, "initargs must be a tuple", initializer=len, initargs=1)
        self.check(TypeError, "preload must be a list", preload="json")
        self.check(TypeError, "names of modules, not 'int'", preload=[1])
        self.check(ValueError, "preload goes with start='fresh'", preload=["json"], start="fork")

    def test_workers_by_default_are_the_cpus(self):
        with yoke.Pool() as pool:
            self.assertGreaterEqual(pool.workers, 1)
            self.assertLessEqual(pool.workers, len(os.sched_getaffinity(0)))


@kit.each(fresh={"options": {"start": "fresh"}}, fork={"options": {"start": "fork"}},
          serial={"options": {"kind": "serial"}})
class Same:
    """What is the same everywhere; serial is the oracle."""

    def setUp(self):
        self.pool = yoke.Pool(**self.options, **({} if "kind" in self.options else {"workers": 2}))
        self.addCleanup(self.pool.shutdown)

    def test_submit(self):
        future = self.pool.submit(square, 7)
        self.assertIsInstance(future, concurrent.futures.Future)
        self.assertEqual(future.result(WAIT), 49)
        self.assertIsNone(future.exception(WAIT))
        self.assertTrue(future.done())
        self.assertFalse(future.running())
        self.assertFalse(future.cancelled())

    def test_keywords(self):
        got = self.pool.submit(keywords, 1, 2, a=3, fn=4, self=5).result(WAIT)
        self.assertEqual(got, ((1, 2), [("a", 3), ("fn", 4), ("self", 5)]))
        own = functools.partial(keywords, timeout=1, retries=2)
        self.assertEqual(self.pool.submit(own).result(WAIT), ((), [("retries", 2), ("timeout", 1)]))

    def test_values_as_they_were(self):
        for value in (None, True, 0, -1, 1 << 70, 1.5, float("inf"), "", "\u00e9\U0001f600", b"x",
                      (), [], {}, set(), Colour.RED, ValueError, range(3), 1j, (1, (2, (3, [4])))):
            got = self.pool.submit(echo, value).result(WAIT)
            self.assertEqual(got, value)
            self.assertIs(type(got), type(value))
        self.assertIs(self.pool.submit(echo, Colour.RED).result(WAIT), Colour.RED)
        self.assertEqual(self.pool.submit(deep, 3).result(WAIT), deep(3))

    def test_an_exception(self):
        future = self.pool.submit(fail, "why")
        with self.assertRaisesRegex(ValueError, "why"):
            future.result(WAIT)
        self.assertIsInstance(future.exception(), ValueError)
        with self.assertRaises(ValueError):  # again, and not longer each time
            future.result()

    def test_exits_of_a_task_are_its_result(self):
        with self.assertRaises(SystemExit) as caught:
            self.pool.submit(leave_by_exit).result(WAIT)
        self.assertEqual(caught.exception.code, 3)
        with self.assertRaises(StopIteration):
            self.pool.submit(stop_iteration).result(WAIT)

    def test_lambdas_and_closures(self):
        here = 5
        self.assertEqual(self.pool.submit(lambda x: x + here, 1).result(WAIT), 6)
        self.assertEqual(list(self.pool.map(lambda x, y: x * y + here, [1, 2], [3, 4])), [8, 13])

    def test_callbacks(self):
        seen = threading.Event()
        got = []
        future = self.pool.submit(square, 3)
        future.add_done_callback(lambda ended: (got.append(ended.result()), seen.set()))
        self.assertTrue(seen.wait(WAIT))
        self.assertEqual(got, [9])
        future.add_done_callback(lambda ended: got.append(ended))  # at once
        self.assertEqual(got, [9, future])

    def test_initializer(self):
        with yoke.Pool(**self.options, initializer=set_number, initargs=(12,)) as pool:
            self.assertEqual(pool.submit(get_number).result(WAIT), 12)

    def test_initializer_that_raises(self):
        options = {**self.options, "initializer": fail, "initargs": ("not today",)}
        with self.assertRaises(yoke.PoolBroken) as caught:
            with yoke.Pool(**options) as pool:  # start="fork" raises here
                try:
                    pool.submit(square, 1).result(WAIT)
                finally:
                    with self.assertRaises(yoke.PoolBroken):
                        pool.submit(square, 1).result(WAIT)
        self.assertIn("not today", str(caught.exception))
        self.assertIsInstance(caught.exception, concurrent.futures.process.BrokenProcessPool)

    def test_after_shutdown(self):
        self.pool.shutdown()
        with self.assertRaisesRegex(RuntimeError, "after shutdown"):
            self.pool.submit(square, 1)
        with self.assertRaises(yoke.PoolClosed):
            self.pool.map(square, [1])
        self.pool.shutdown()

    def test_wait_and_as_completed(self):
        futures = [self.pool.submit(square, i) for i in range(20)]
        done, rest = concurrent.futures.wait(futures, WAIT)
        self.assertEqual((len(done), len(rest)), (20, 0))
        futures = [self.pool.submit(square, i) for i in range(20)]
        got = [f.result() for f in concurrent.futures.as_completed(futures, WAIT)]
        self.assertEqual(sorted(got), [i * i for i in range(20)])
        with self.assertRaises(ValueError):
            bad = [self.pool.submit(square, 1), self.pool.submit(fail, "x")]
            done, _ = concurrent.futures.wait(bad, WAIT, concurrent.futures.FIRST_EXCEPTION)
            for future in bad:
                future.result(WAIT)

    def test_bad_calls(self):
        with self.assertRaises(TypeError):
            self.pool.submit()
        with self.assertRaises(TypeError):
            self.pool.submit(3).result(WAIT)
        with self.assertRaises(TypeError):
            self.pool.submit(square).result(WAIT)
        with self.assertRaises(TypeError):
            self.pool.map(square)
        self.assertEqual(self.pool.submit(square, 2).result(WAIT), 4)

    def test_stats(self):
        self.pool.submit(square, 2).result(WAIT)
        self.assertIsInstance(self.pool.stats(), dict)
        self.assertIsInstance(self.pool.worker_ids(), list)


@kit.each(**kit.BOTH)
class Processes:
    def setUp(self):
        self.pool = yoke.Pool(workers=2, start=self.start)
        self.addCleanup(self.pool.shutdown, kill=True)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "file")

    def usable(self):
        self.assertEqual(self.pool.submit(square, 11).result(WAIT), 121)
        self.assertEqual(list(self.pool.map(square, range(50))), [i * i for i in range(50)])

    def begin(self, *args, count=1, **kwargs):
        """A call that sleeps, and has begun."""
        before = len(lines_of(self.path))
        futures = [self.pool.submit(begun_sleep, self.path, *args, **kwargs) for _ in range(count)]
        kit.until(lambda: len(lines_of(self.path)) >= before + count, "that the calls begin")
        return futures if count > 1 else futures[0]

    def test_calls_run_elsewhere(self):
        pids = {self.pool.submit(os.getpid).result(WAIT) for _ in range(20)}
        self.assertNotIn(os.getpid(), pids)
        self.assertLessEqual(pids, set(self.pool.worker_ids()))
        self.assertEqual(len(self.pool.worker_ids()), 2)

    def test_a_death_costs_one_call(self):
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM):
            futures = [self.pool.submit(square, i) for i in range(20)]
            bad = self.pool.submit(die, number)
            futures += [self.pool.submit(square, i) for i in range(20)]
            with self.assertRaises(yoke.WorkerDied) as caught:
                bad.result(WAIT)
            self.assertEqual(caught.exception.signal, number)
            self.assertIn("die", caught.exception.task)
            self.assertIsInstance(caught.exception, concurrent.futures.process.BrokenProcessPool)
            self.assertEqual([f.result(WAIT) for f in futures], [i * i for i in range(20)] * 2)
        self.usable()

    def test_an_exit_costs_one_call(self):
        futures = [self.pool.submit(leave, 7)] + [self.pool.submit(square, i) for i in range(9)]
        with self.assertRaises(yoke.WorkerDied) as caught:
            futures[0].result(WAIT)
        self.assertEqual(caught.exception.exit_code, 7)
        self.assertEqual([f.result(WAIT) for f in futures[1:]], [i * i for i in range(9)])

    def test_the_trace_of_a_crash(self):
        with self.assertRaises(yoke.WorkerDied) as caught:
            self.pool.submit(die, signal.SIGSEGV).result(WAIT)
        self.assertIn("in die", caught.exception.traceback)

    def test_the_traceback_of_the_worker(self):
        error = self.pool.submit(fail, "why").exception(WAIT)
        self.assertIn("in fail", str(error.__cause__))
        self.assertIn('raise ValueError(text)', str(error.__cause__))

    def test_what_cannot_travel(self):
        with self.assertRaisesRegex(Exception, "lock|pickle"):
            self.pool.submit(square, threading.Lock()).result(WAIT)
        with self.assertRaisesRegex(Exception, "lock|pickle"):
            self.pool.submit(threading.Lock).result(WAIT)
        with self.assertRaises(Exception) as caught:
            self.pool.submit(raise_untravelled).result(WAIT)
        self.assertNotIsInstance(caught.exception, TimeoutError)
        self.usable()

    def test_keyboard_interrupt_of_a_task_is_its_result(self):
        with self.assertRaises(KeyboardInterrupt):
            self.pool.submit(interrupt).result(WAIT)
        self.usable()

    def test_timeout(self):
        began = time.monotonic()
        future = self.pool.submit(sleep, 60, timeout=0.2)
        others = [self.pool.submit(square, i, timeout=30) for i in range(10)]
        with self.assertRaises(yoke.TaskTimeout) as caught:
            future.result(WAIT)
        self.assertIsInstance(caught.exception, TimeoutError)
        self.assertGreaterEqual(time.monotonic() - began, 0.2)
        self.assertIn("sleep", caught.exception.task)
        self.assertEqual([f.result(WAIT) for f in others], [i * i for i in range(10)])
        self.usable()

    def test_a_wait_that_times_out_is_no_task_timeout(self):
        future = self.begin(60)
        with self.assertRaises(concurrent.futures.TimeoutError) as caught:
            future.result(0.05)
        self.assertNotIsInstance(caught.exception, yoke.TaskTimeout)
        self.assertTrue(future.running())
        with self.assertRaises(concurrent.futures.TimeoutError):
            future.exception(0.05)
        future.cancel(force=True)

    def test_bad_options_of_submit(self):
        for bad in ("1", 0, -1, float("nan")):
            with self.assertRaises((TypeError, ValueError), msg=repr(bad)):
                self.pool.submit(square, 1, timeout=bad)
        for bad in ("1", -1, 1.5):
            with self.assertRaises((TypeError, ValueError), msg=repr(bad)):
                self.pool.submit(square, 1, retries=bad)
        self.assertEqual(self.pool.submit(square, 2, timeout=None, retries=0).result(WAIT), 4)
        self.assertEqual(self.pool.submit(square, 2, timeout=1e30).result(WAIT), 4)

    def test_retries(self):
        future = self.pool.submit(die_until, self.path, 2, retries=2)
        self.assertIn(future.result(WAIT), self.pool.worker_ids())
        self.assertEqual(os.path.getsize(self.path), 3)

    def test_retries_that_are_used_up(self):
        with self.assertRaises(yoke.WorkerDied):
            self.pool.submit(die_until, self.path, 100, retries=2).result(WAIT)
        self.assertEqual(os.path.getsize(self.path), 3)
        self.usable()

    def test_no_retries_by_default(self):
        with self.assertRaises(yoke.WorkerDied):
            self.pool.submit(die_until, self.path, 1).result(WAIT)
        self.assertEqual(os.path.getsize(self.path), 1)

    def test_retries_of_calls_in_a_batch(self):
        results = self.pool.map(die_until, [self.path] * 30, [3] * 30, retries=3)
        self.assertEqual(len(list(results)), 30)
        self.assertEqual(os.path.getsize(self.path), 33)

    def test_cancel_what_has_not_begun(self):
        self.begin(60, count=2)
        waiting = [self.pool.submit(square, i) for i in range(1000)]
        last = waiting[-1]
        self.assertTrue(last.cancel())
        self.assertTrue(last.cancelled())
        self.assertTrue(last.done())
        self.assertTrue(last.cancel())
        with self.assertRaises(CancelledError):
            last.result(WAIT)
        with self.assertRaises(CancelledError):
            last.exception(WAIT)
        for future in waiting:
            self.assertTrue(future.cancel() or future.done())

    def test_cancel_what_has_ended(self):
        future = self.pool.submit(square, 2)
        self.assertEqual(future.result(WAIT), 4)
        self.assertFalse(future.cancel())
        self.assertFalse(future.cancel(force=True))
        self.assertEqual(future.result(), 4)

    def test_cancel_what_runs(self):
        future = self.begin(60)
        self.assertFalse(future.cancel())
        self.assertTrue(future.running())
        pid = int(lines_of(self.path)[0])
        self.assertTrue(future.cancel(force=True))
        with self.assertRaises(CancelledError):
            future.result(WAIT)
        self.assertTrue(future.cancelled())
        kit.until(lambda: not kit.alive(pid), "that the worker ends")
        self.usable()

    def test_forced_cancel_of_many(self):
        futures = self.begin(60, count=2)
        futures += [self.pool.submit(sleep, 60) for _ in range(20)]
        for future in futures:
            self.assertTrue(future.cancel(force=True))
        for future in futures:
            with self.assertRaises(CancelledError):
                future.result(WAIT)
        self.usable()

    def test_cancel_tells_those_who_wait(self):
        future = self.begin(60)
        seen = threading.Event()
        future.add_done_callback(lambda _: seen.set())
        results = []

        def wait():
            try:
                future.result(WAIT)
            except CancelledError as exc:
                results.append(exc)

        thread = threading.Thread(target=wait)
        thread.start()
        future.cancel(force=True)
        thread.join(WAIT)
        self.assertEqual(len(results), 1)
        self.assertTrue(seen.wait(WAIT))
        done, _ = concurrent.futures.wait([future], WAIT)
        self.assertEqual(done, {future})

    def test_a_future_that_nobody_keeps_runs_all_the_same(self):
        self.pool.submit(begun_sleep, self.path, 0)
        kit.until(lambda: lines_of(self.path), "that it runs")

    def test_results_are_let_go(self):
        future = self.pool.submit(echo, Thing())
        thing = weakref.ref(future.result(WAIT))
        self.assertIsNotNone(thing())
        del future
        kit.until(lambda: thing() is None, "that the result is let go")

    def test_arguments_are_let_go(self):
        thing = Thing()
        gone = weakref.ref(thing)
        future = self.pool.submit(echo, thing)
        future.result(WAIT)
        del thing
        kit.until(lambda: gone() is None, "that the argument is let go")

    def test_many_threads_submit(self):
        errors = []

        def use(number):
            try:
                futures = [self.pool.submit(square, number * 1000 + i) for i in range(300)]
                for i, future in enumerate(futures):
                    if future.result(WAIT) != (number * 1000 + i) ** 2:
                        errors.append((number, i))
                if list(self.pool.map(square, range(number))) != [i * i for i in range(number)]:
                    errors.append(number)
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=use, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * WAIT)
        self.assertEqual(errors, [])

    def test_many_threads_wait_for_one_future(self):
        future = self.begin(0.1)
        got = []
        threads = [threading.Thread(target=lambda: got.append(future.result(WAIT)))
                   for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        self.assertEqual(got, [None] * 20)

    def test_a_callback_may_submit(self):
        seen = threading.Event()
        chain = []

        def more(future):
            chain.append(future.result())
            if len(chain) < 20:
                self.pool.submit(square, len(chain)).add_done_callback(more)
            else:
                seen.set()

        self.pool.submit(square, 0).add_done_callback(more)
        self.assertTrue(seen.wait(WAIT))
        self.assertEqual(chain, [i * i for i in range(20)])

    def test_a_callback_may_wait(self):
        seen = threading.Event()
        got = []

        def wait(future):
            got.append(self.pool.submit(square, future.result()).result(WAIT))
            seen.set()

        self.pool.submit(square, 2).add_done_callback(wait)
        self.assertTrue(seen.wait(WAIT))
        self.assertEqual(got, [16])

    def test_a_callback_that_raises(self):
        with self.assertLogs("concurrent.futures", "ERROR"):
            future = self.pool.submit(square, 2)
            ended = threading.Event()
            future.add_done_callback(fail)
            future.add_done_callback(lambda _: ended.set())
            self.assertTrue(ended.wait(WAIT))
        self.usable()

    def test_a_signal_while_callbacks_run(self):
        class Alarm(BaseException):
            pass

        def ring(*_):
            raise Alarm

        before = signal.signal(signal.SIGALRM, ring)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        for _ in range(20):
            called = []
            future = self.pool.submit(square_later, self.path, 3)
            future.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGALRM))
            future.add_done_callback(called.append)
            with self.assertRaises(Alarm):
                open(self.path, "w").close()  # not before: callbacks would be called at once, here
                future.result(WAIT)
                kit.until(lambda: False, "that the handler raises")
            kit.until(lambda: called, "that the other callback is called")
            self.assertEqual(future.result(WAIT), 9)
            self.assertEqual(called, [future])
            os.unlink(self.path)

    def test_ctrl_c_while_a_result_is_read(self):
        for _ in range(20):
            interrupted.clear()
            future = self.pool.submit(interrupting_later, self.path, os.getpid())
            with self.assertRaises(KeyboardInterrupt):
                open(self.path, "w").close()  # not before: another thread may read it at once
                future.result(WAIT)
                kit.until(lambda: False, "that Ctrl-C gets through")
            self.assertEqual(future.result(WAIT), os.getpid())
            os.unlink(self.path)

    def test_set_by_hand(self):
        before = self.begin(60, count=2)
        future = self.pool.submit(square, 3)
        self.assertTrue(future.set_running_or_notify_cancel())
        for one in before:
            one.cancel(force=True)
        self.assertEqual(future.result(WAIT), 9)
        future = self.pool.submit(begun_sleep, self.path, 0.05)
        future.set_result(7)
        self.assertEqual((future.result(WAIT), future.cancel()), (7, False))
        with self.assertRaises(TimeoutError):
            type(future)().result(timeout=0.001)

    def test_a_callback_may_shut_down(self):
        pool = yoke.Pool(workers=1, start=self.start)
        seen = threading.Event()

        def end(_):
            pool.shutdown()
            seen.set()

        pool.submit(square, 1).add_done_callback(end)
        self.assertTrue(seen.wait(WAIT))
        pool.shutdown()

    def test_tasks_max(self):
        with yoke.Pool(workers=1, start=self.start, tasks_max=2) as pool:
            pids = [pool.submit(os.getpid).result(WAIT) for _ in range(6)]
        self.assertEqual(len(set(pids)), 3)
        for pid in set(pids):
            self.assertEqual(pids.count(pid), 2)

    def test_the_child_of_a_fork(self):
        future = self.begin(60)
        done = self.pool.submit(square, 3)
        done.result(WAIT)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for use in (self.pool.submit, self.pool.map):
                    try:
                        use(square, [1])
                    except RuntimeError as exc:
                        code = 0 if "fork" in str(exc) else 2
                    else:
                        code = 3
                if done.result() != 9:
                    code = 4
                self.pool.shutdown()
                self.pool.__exit__(None, None, None)
                with yoke.Pool(workers=1) as pool:
                    if pool.submit(square, 5).result(WAIT) != 25:
                        code = 5
            except BaseException:
                code = 6
                raise
            finally:
                os._exit(code)
        kit.until(lambda: os.waitpid(pid, os.WNOHANG)[0], "that the child ends")
        self.usable()
        future.cancel(force=True)

    @kit.measures_memory
    def test_no_growth(self):
        def rounds(count):
            for _ in range(count // 1000):
                futures = [self.pool.submit(square, i) for i in range(1000)]
                for i, future in enumerate(futures):
                    if future.result() != i * i:
                        raise AssertionError((i, future.result(), future))

        rounds(20000)
        before = kit.resident_bytes()
        rounds(100000)
        self.assertLess(kit.resident_bytes() - before, 2 << 20)

    @kit.measures_memory
    def test_no_growth_where_nobody_looks(self):
        def rounds(count):
            for _ in range(count // 1000):
                for i in range(1000):
                    self.pool.submit(square, i)
                self.pool.submit(square, 1).result(WAIT)
            kit.until(lambda: self.pool.stats()["pending"] == 0, "that all is resolved")

        rounds(20000)
        before = kit.resident_bytes()
        rounds(50000)
        self.assertLess(kit.resident_bytes() - before, 4 << 20)


class Thing:
    pass


interrupted = []


def interrupt_once(pid):
    """Ctrl-C, the first time."""
    if not interrupted:
        interrupted.append(pid)
        os.kill(pid, signal.SIGINT)
    return pid


class Interrupting:
    """A result that sends Ctrl-C to the program when it is read."""

    def __init__(self, pid):
        self.pid = pid

    def __reduce__(self):
        return interrupt_once, (self.pid,)


def interrupting_later(path, pid):
    kit.until(lambda: os.path.exists(path), "that it may end")
    return Interrupting(pid)


if __name__ == "__main__":
    unittest.main()
