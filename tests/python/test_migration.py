# SPDX-License-Identifier: MIT
# asan: no
"""The tables "From other pools" of docs/python.md: what stands on the left and what stands on the
right do the same, row by row."""
import concurrent.futures
import multiprocessing
import os
import threading
import time
import unittest
from concurrent.futures.process import BrokenProcessPool

import yoke
import yoke.futures

WAIT = 20 * float(os.environ.get("SLOW") or 1)
started = []


def twice(x):
    return 2 * x


def difference(a, b=0):
    return a - b


def set_up(x):
    started.append(x)


def set_up_with():
    return started


def fails():
    raise KeyError("a result of its own")


def put(queue, x):
    queue.put(x)


def send(connection, text):
    connection.send(text)


def take(*things):
    global taken
    taken = things


def use_what_was_taken():
    queue, lock, event = taken
    with lock:
        queue.put("it has the lock")
        event.set()


def inner(kind):
    if kind == "multiprocessing":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(twice, [1, 2])
    with yoke.Pool() as pool:
        return list(pool.map(twice, [1, 2])), pool.kind


def await_(condition):
    until = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > until:
            raise AssertionError("it did not come")
        time.sleep(0.001)


class FromMultiprocessing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.old = multiprocessing.get_context("fork").Pool(2, set_up, (7,))
        cls.new = yoke.Pool(workers=2, initializer=set_up, initargs=(7,))

    @classmethod
    def tearDownClass(cls):
        cls.old.close()
        cls.old.join()
        cls.new.shutdown()

    def both(self, old, new):
        self.assertEqual(old, new)
        self.assertIs(type(old), type(new))

    def test_map(self):
        self.both(self.old.map(twice, range(9)), list(self.new.map(twice, range(9))))

    def test_imap(self):
        self.both(list(self.old.imap(twice, range(9))), list(self.new.map(twice, range(9))))

    def test_imap_unordered(self):
        self.both(sorted(self.old.imap_unordered(twice, range(9))),
                  sorted(self.new.map(twice, range(9), unordered=True)))

    def test_starmap(self):
        pairs = [(3, 1), (5, 9)]
        self.both(self.old.starmap(difference, pairs), list(self.new.starmap(difference, pairs)))

    def test_apply(self):
        self.both(self.old.apply(difference, (5,), {"b": 2}),
                  self.new.submit(difference, 5, b=2).result())

    def test_initializer(self):
        self.both(self.old.apply(set_up_with), self.new.submit(set_up_with).result())

    def test_apply_async(self):
        old, new = self.old.apply_async(twice, (4,)), self.new.submit(twice, 4)
        self.both(old.get(WAIT), new.result(WAIT))
        self.both(old.ready(), new.done())
        self.both(old.successful(), new.exception() is None)

    def test_callback(self):
        got = []
        self.old.apply_async(twice, (4,), callback=got.append)
        await_(lambda: len(got) == 1)
        self.new.submit(twice, 4).add_done_callback(lambda future: got.append(future.result()))
        await_(lambda: len(got) == 2)
        self.both(*got)

    def test_what_the_function_raises(self):
        for ended in self.old.apply_async(fails).get, self.new.submit(fails).result:
            with self.assertRaisesRegex(KeyError, "a result of its own"):
                ended(WAIT)

    def test_get_in_time(self):
        old, new = self.old.apply_async(time.sleep, (1,)), self.new.submit(time.sleep, 1)
        with self.assertRaises(multiprocessing.TimeoutError):
            old.get(0.01)
        with self.assertRaises(TimeoutError):
            new.result(0.01)
        self.both(old.get(WAIT), new.result(WAIT))

    def test_managers_queue(self):
        with multiprocessing.Manager() as manager:
            queue = manager.Queue()
            self.new.submit(put, queue, 5).result(WAIT)
            self.assertEqual(queue.get(timeout=WAIT), 5)

    def test_pipe(self):
        here, there = multiprocessing.Pipe()
        self.new.submit(send, there, "a word").result(WAIT)
        self.assertTrue(here.poll(WAIT))
        self.assertEqual(here.recv(), "a word")

    def test_queue_lock_event(self):
        for start, context in ("fresh", "spawn"), ("fork", "spawn"), ("fork", "fork"):
            with self.subTest(start=start, context=context):
                made = multiprocessing.get_context(context)
                queue, lock, event = made.Queue(), made.Lock(), made.Event()
                with yoke.Pool(workers=1, start=start, initializer=take,
                               initargs=(queue, lock, event)) as pool:
                    pool.submit(use_what_was_taken).result(WAIT)
                self.assertEqual(queue.get(timeout=WAIT), "it has the lock")
                self.assertTrue(event.is_set())
                self.assertTrue(lock.acquire(timeout=WAIT))
                lock.release()
                queue.close()
                queue.join_thread()

    def test_pool_in_a_worker(self):
        self.assertEqual(self.new.submit(inner, "multiprocessing").result(WAIT), [2, 4])
        self.assertEqual(self.new.submit(inner, "yoke").result(WAIT), ([2, 4], "serial"))

    def test_tasks_max(self):
        with yoke.Pool(workers=1, tasks_max=2) as pool:
            self.assertEqual(len({pool.submit(os.getpid).result() for _ in range(6)}), 3)

    def test_fork(self):
        lock = threading.Lock()  # what cannot be sent

        def locked():
            return lock.locked()

        with yoke.Pool(workers=1, start="fork") as pool:
            self.assertFalse(pool.submit(locked).result(WAIT))

    def test_terminate(self):
        pool = yoke.Pool(workers=1)
        future = pool.submit(time.sleep, 3600)
        await_(future.running)
        began = time.monotonic()
        pool.shutdown(kill=True)
        self.assertLess(time.monotonic() - began, WAIT)
        self.assertTrue(future.done())


class FromConcurrentFutures(unittest.TestCase):
    def test_drop_in(self):
        found = []
        for executor in (concurrent.futures.ProcessPoolExecutor, yoke.futures.ProcessPoolExecutor):
            with executor(max_workers=2, mp_context=multiprocessing.get_context("fork"),
                          initializer=set_up, initargs=(3,)) as pool:
                found.append([list(pool.map(twice, range(7), chunksize=3, timeout=WAIT)),
                              pool.submit(difference, 5, b=1).result(),
                              pool.submit(set_up_with).result()])
        self.assertEqual(*found)

    def test_timeout_of_map_waits_and_does_not_kill(self):
        with yoke.futures.ProcessPoolExecutor(1) as pool:
            before = pool.submit(os.getpid).result()
            with self.assertRaises(TimeoutError):
                list(pool.map(time.sleep, [1], timeout=0.01))
            self.assertEqual(pool.submit(os.getpid).result(), before)

    def test_timeout_of_the_pools_map_kills(self):
        with yoke.Pool(workers=1) as pool:
            before = pool.submit(os.getpid).result()
            results = pool.map(time.sleep, [3600, 0], timeout=0.2)
            with self.assertRaises(yoke.TaskTimeout):
                next(results)
            self.assertIsNone(next(results))
            self.assertNotEqual(pool.submit(os.getpid).result(), before)

    def test_a_death_is_a_broken_process_pool_for_that_call(self):
        for pool in yoke.Pool(workers=2), yoke.futures.ProcessPoolExecutor(2):
            with self.subTest(type(pool)), pool:
                died, good = pool.submit(os._exit, 3), pool.submit(twice, 2)
                with self.assertRaises(BrokenProcessPool) as caught:
                    died.result(WAIT)
                self.assertIsInstance(caught.exception, yoke.WorkerDied)
                self.assertEqual((good.result(WAIT), pool.submit(twice, 3).result(WAIT)), (4, 6))

