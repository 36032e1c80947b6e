# SPDX-License-Identifier: MIT
"""test_map.py - map and starmap: lazy, bounded, ordered or not, exceptions in their turn, progress.

timeout: 180
"""
import gc
import io
import itertools
import operator
import os
import re
import signal
import sys
import tempfile
import threading
import time
import unittest

import kit
import yoke
from yoke import _progress

WAIT = kit.LIMIT_S


def square(x):
    return x * x


def add(x, y=100, z=1000):
    return x + y + z


def odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


def die_at(x, at):
    if x == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def wait_for(path, x):
    """The first waits for a file that appears later."""
    end = time.monotonic() + WAIT / 2
    while x == 0 and not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.002)
    return x


def meet(path, x):
    """The first waits for the tenth."""
    if x == 9:
        open(path, "w").close()
    return wait_for(path, x)


def sleep_at(x, at):
    if x == at:
        time.sleep(60)
    return x


def stop_at(x):
    if x == 2:
        raise StopIteration
    return x


def wrong():
    raise AssertionError("it was never asked for")


class Finalized:
    def __init__(self, call):
        self.call = call

    def __del__(self):
        self.call()


class Refused:
    """Cannot be pickled; `call` is called when the exception that says so goes."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        raise ValueError(Finalized(self.call))


class Counted:
    """An endless iterable that counts how far it was read."""

    def __init__(self):
        self.read = 0

    def __iter__(self):
        while True:
            self.read += 1
            yield self.read - 1


POOLS = {"fresh": {"options": {"start": "fresh", "workers": 2}},
         "fork": {"options": {"start": "fork", "workers": 2}},
         "serial": {"options": {"kind": "serial"}}}


@kit.each(**POOLS)
class Same:
    """What is the same everywhere; serial is the oracle."""

    def setUp(self):
        self.pool = yoke.Pool(**self.options)
        self.addCleanup(self.pool.shutdown, kill=True)

    def test_order(self):
        for count in (0, 1, 2, 3, 10, 1000, 20000):
            results = self.pool.map(square, range(count))
            self.assertEqual(list(results), [i * i for i in range(count)])
            self.assertEqual(list(results), [])

    def test_chunks(self):
        for size in (1, 2, 7, 100, 5000):
            results = self.pool.map(square, range(1000), chunksize=size)
            self.assertEqual(list(results), [i * i for i in range(1000)])

    def test_unordered(self):
        results = self.pool.map(square, range(1000), unordered=True)
        self.assertEqual(sorted(results), [i * i for i in range(1000)])

    def test_several_iterables_end_with_the_shortest(self):
        self.assertEqual(list(self.pool.map(add, [1, 2, 3], (10, 20), itertools.count())), [11, 23])
        self.assertEqual(list(self.pool.map(add, [], itertools.count())), [])

    def test_starmap(self):
        items = [(1,), (1, 2), [1, 2, 3], (i for i in (4, 5))]
        self.assertEqual(list(self.pool.starmap(add, items)), [1101, 1003, 6, 1009])
        self.assertEqual(list(self.pool.starmap(wrong, [])), [])

    def test_starmap_of_what_is_no_tuple(self):
        results = self.pool.starmap(add, [(1,), 2, (3,)])
        with self.assertRaises(TypeError):
            list(results)

    def test_nested_data(self):
        data = [{"a": [i, (i, None)], "b": {"c": {i}}} for i in range(300)]
        self.assertEqual(list(self.pool.map(lambda x: [x, x], data)), [[x, x] for x in data])

    def test_endless(self):
        source = Counted()
        results = self.pool.map(square, source)
        self.assertEqual(list(itertools.islice(results, 1000)), [i * i for i in range(1000)])
        self.assertLess(source.read, 1000 + 100000)
        results.close()
        self.assertEqual(list(results), [])

    def test_the_iterable_is_read_in_the_threads_that_take(self):
        seen = set()

        def items():
            for i in range(2000):
                seen.add(threading.current_thread())
                yield i

        self.assertEqual(sum(self.pool.map(square, items())), sum(i * i for i in range(2000)))
        self.assertEqual(seen, {threading.current_thread()})

    def test_an_exception_and_on(self):
        results = self.pool.map(odd_fails, range(100))
        for i in range(100):
            if i % 2:
                with self.assertRaisesRegex(ValueError, f"^{i}$"):
                    next(results)
            else:
                self.assertEqual(next(results), i)
        with self.assertRaises(StopIteration):
            next(results)
        with self.assertRaises(StopIteration):
            next(results)

    def test_stop_iteration_of_an_item_is_not_the_end(self):
        results = self.pool.map(stop_at, range(5))
        self.assertEqual([next(results), next(results)], [0, 1])
        with self.assertRaises(RuntimeError):
            next(results)
        self.assertEqual(list(results), [3, 4])

    def test_the_iterable_raises(self):
        def items():
            yield from range(10)
            raise KeyError("mine")

        got = []
        with self.assertRaisesRegex(KeyError, "mine"):
            for value in self.pool.map(square, items()):
                got.append(value)
        self.assertEqual(got, [i * i for i in range(10)])
        with self.assertRaisesRegex(KeyError, "mine"):
            list(self.pool.map(square, self.raises_at_once()))
        self.assertEqual(self.pool.submit(square, 3).result(WAIT), 9)

    @staticmethod
    def raises_at_once():
        raise KeyError("mine")
        yield

    def test_what_is_not_iterable(self):
        with self.assertRaises(TypeError):
            list(self.pool.map(square, 3))

    def test_bad_options(self):
        for bad in ({"chunksize": 0}, {"chunksize": "a"}, {"timeout": 0}, {"timeout": "a"},
                    {"retries": -1}, {"retries": 1.5}):
            with self.assertRaises((TypeError, ValueError), msg=str(bad)):
                self.pool.map(square, [1], **bad)

    def test_dropped(self):
        for _ in range(20):
            results = self.pool.map(square, itertools.count())
            self.assertEqual(next(results), 0)
            del results
        self.assertEqual(list(self.pool.map(square, range(10))), [i * i for i in range(10)])

    def test_two_at_once(self):
        pairs = zip(self.pool.map(square, range(3000)), self.pool.map(add, range(3000)))
        for i, (one, two) in enumerate(pairs):
            self.assertEqual((one, two), (i * i, i + 1100))

    def test_length_hint_and_done(self):
        results = self.pool.map(square, range(100))
        self.assertEqual(operator.length_hint(results, -1), 100)
        list(results)
        self.assertEqual(results.done, 100)
        self.assertEqual(operator.length_hint(results, -1), 0)

    def test_a_map_within_the_iterable(self):
        inner = self.pool.map(square, range(100))
        self.assertEqual(list(self.pool.map(add, inner)), [i * i + 1100 for i in range(100)])

    def test_progress(self):
        with Captured() as text:
            results = self.pool.map(odd_fails, range(0, 20, 2), progress=True)
            self.assertEqual(operator.length_hint(results, -1), 10)
            self.assertEqual(list(results), list(range(0, 20, 2)))
        self.assertRegex(text.value, "10")
        self.assertTrue(text.value.endswith("\n"), repr(text.value))


class Captured:
    """sys.stderr as text; terminal: it says that it is one."""

    def __init__(self, terminal=False):
        self.stream = io.StringIO()
        self.stream.isatty = lambda: terminal

    def __enter__(self):
        self.before, sys.stderr = sys.stderr, self.stream
        return self

    def __exit__(self, *_):
        sys.stderr = self.before

    @property
    def value(self):
        return self.stream.getvalue()


@kit.each(**kit.BOTH)
class Processes:
    def setUp(self):
        self.pool = yoke.Pool(workers=2, start=self.start)
        self.addCleanup(self.pool.shutdown, kill=True)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "file")

    def test_begins_at_once(self):
        results = self.pool.map(open_file, [self.path])
        kit.until(lambda: os.path.exists(self.path), "that it begins before it is asked")
        del results

    def test_bounded_while_nobody_takes(self):
        source = Counted()
        results = self.pool.map(square, source)
        next(results)
        read = source.read
        self.assertLess(read, 100000)
        for _ in range(50):
            next(results)
        self.assertLess(source.read, read + 100000)

    @kit.measures_memory
    def test_bounded_memory(self):
        big = "x" * 10000

        def take(count):
            results = self.pool.map(same, itertools.repeat(big))
            return sum(map(len, itertools.islice(results, count)))

        take(2000)
        before = kit.resident_bytes()
        self.assertEqual(take(30000), 300000000)
        self.assertLess(kit.resident_bytes() - before, 100 << 20)

    def test_unordered_gives_what_is_there(self):
        results = self.pool.map(wait_for, itertools.repeat(self.path), range(10), chunksize=1,
                                unordered=True)
        first = [next(results) for _ in range(9)]
        self.assertEqual(sorted(first), list(range(1, 10)))
        open(self.path, "w").close()
        self.assertEqual(list(results), [0])

    def test_order_holds_where_the_first_is_late(self):
        results = self.pool.map(meet, itertools.repeat(self.path), range(10), chunksize=1)
        self.assertEqual(list(results), list(range(10)))

    def test_a_death_costs_one_item(self):
        for size in (None, 1, 10):
            results = self.pool.map(die_at, range(200), [77] * 200, chunksize=size)
            got = []
            for i in range(200):
                try:
                    got.append(next(results))
                except yoke.WorkerDied as exc:
                    self.assertEqual((i, exc.signal), (77, signal.SIGKILL))
            self.assertEqual(got, [i for i in range(200) if i != 77])

    def test_timeout_of_an_item(self):
        results = self.pool.map(sleep_at, range(20), [5] * 20, timeout=3 * kit.SLOW)
        for i in range(20):
            if i == 5:
                with self.assertRaises(yoke.TaskTimeout):
                    next(results)
            else:
                self.assertEqual(next(results), i)

    def test_items_that_cannot_travel(self):
        items = [1, threading.Lock(), 3]
        results = self.pool.map(square, items)
        self.assertEqual(next(results), 1)
        with self.assertRaises(Exception) as caught:
            next(results)
        self.assertNotIsInstance(caught.exception, StopIteration)
        self.assertEqual(list(results), [9])

    def test_closed_while_it_runs(self):
        results = self.pool.map(sleep_at, itertools.repeat(1), itertools.count(), chunksize=1)
        next(results)
        results.close()
        with self.assertRaises(StopIteration):
            next(results)
        del results

    def test_shutdown_with_cancel_ends_it(self):
        pool = yoke.Pool(workers=1, start=self.start)
        results = pool.map(square, range(100000))
        next(results)
        pool.shutdown(cancel_futures=True)
        try:
            list(results)
        except (yoke.PoolClosed, kit_cancelled) as exc:
            self.assertTrue(exc)

    def test_threads_share_an_iterator(self):
        results = self.pool.map(square, range(5000))
        got = []

        def take():
            for value in results:
                got.append(value)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        self.assertEqual(sorted(got), [i * i for i in range(5000)])

    def test_dropped_while_what_is_behind_ends(self):
        # The first item's error is let go of first, and that runs code, while the others end.
        later = []

        def use_again():
            kit.until(lambda: self.pool.stats()["pending"] == 0, "that the others end")
            later.extend(self.pool.submit(square, i) for i in range(20))

        for end in ("del", "close"):
            later.clear()
            results = self.pool.map(square, [Refused(use_again), 1, 2, 3], chunksize=1)
            if end == "close":
                results.close()
            del results
            gc.collect()
            self.assertEqual([future.result(WAIT) for future in later], [i * i for i in range(20)])

    def test_the_iterable_shuts_down_and_raises(self):
        pool = yoke.Pool(workers=1, start=self.start)

        def items():
            yield 1
            pool.shutdown(wait=False, cancel_futures=True)
            raise KeyError("of the iterable")

        results = pool.map(square, items(), chunksize=10)
        with self.assertRaises(kit_cancelled):
            next(results)
        with self.assertRaises(KeyError):
            next(results)
        with self.assertRaises(StopIteration):
            next(results)

    def test_closed_in_a_child_while_a_thread_is_in_it(self):
        results = self.pool.map(wait_for, [self.path], [0])

        def take():
            next(results)

        thread = threading.Thread(target=take)
        thread.start()
        kit.until(lambda: sys._current_frames()[thread.ident].f_code is take.__code__, "it waits")
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            results.close()
            os._exit(0)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        open(self.path, "w").close()
        thread.join(WAIT)

    def test_progress_broken_off(self):
        with Captured(terminal=True) as text:
            results = self.pool.map(square, itertools.count(), progress=True)
            for _ in range(10):
                next(results)
            del results
        if "tqdm" not in sys.modules:
            self.assertEqual(text.value.rpartition("\r")[2], "")
            self.assertNotIn("\n", text.value)


def open_file(path):
    open(path, "w").close()


def same(x):
    return x


kit_cancelled = __import__("concurrent.futures").futures.CancelledError


class Line(unittest.TestCase):
    """The plain line."""

    def test_on_a_terminal(self):
        with Captured(terminal=True) as text:
            line = _progress.Line(1000, "work")
            for _ in range(1000):
                line.update(1)
            line.close()
        lines = text.value.split("\r")
        self.assertLessEqual(len(lines), 12)
        self.assertRegex(lines[1], r"^work: 1/1000 \(0 %\), ")
        self.assertRegex(lines[-1], r"^work: 1000/1000 \(100 %\), [0-9.]+ s, .*/s *\n$")
        self.assertEqual(text.value.count("\n"), 1)

    def test_rewritten_ten_times_a_second(self):
        with Captured(terminal=True) as text:
            line = _progress.Line(None, "work")
            end = time.monotonic() + 0.35
            while time.monotonic() < end:
                line.update(1)
            line.close()
        self.assertLessEqual(text.value.count("\r"), 2 + 0.35 / 0.1 + 1)
        self.assertGreaterEqual(text.value.count("\r"), 2)

    def test_elsewhere_one_line(self):
        with Captured() as text:
            line = _progress.Line(10, "work")
            for _ in range(10):
                line.update(1)
            self.assertEqual(text.value, "")
            line.close()
        self.assertTrue(re.fullmatch(r"work: 10/10 \(100 %\), [^\r\n]*\n", text.value), text.value)

    def test_a_longer_line_is_overwritten_whole(self):
        with Captured(terminal=True) as text:
            line = _progress.Line(None, "work")
            line._write("\r", "0123456789")
            line._write("\r", "01234")
            line.close(complete=False)
        self.assertEqual(text.value, "\r0123456789\r01234     \r     \r")

    def test_nowhere(self):
        before, sys.stderr = sys.stderr, None
        try:
            line = _progress.Line(10, "work")
            line.update(1)
            line.close()
        finally:
            sys.stderr = before


if __name__ == "__main__":
    unittest.main()
