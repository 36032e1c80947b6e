# SPDX-License-Identifier: MIT
# asan: no
"""test_async.py - pools and asyncio: run, cancel, wrap_future, run_in_executor, many at once.

timeout: 120
"""
import asyncio
import functools
import os
import signal
import tempfile
import time
import unittest

import kit
import yoke

WAIT = kit.LIMIT_S


def square(x):
    return x * x


def keywords(*args, **kwargs):
    return args, kwargs


def fail(text):
    raise ValueError(text)


def stop():
    raise StopIteration("mine")


def cancelled():
    raise asyncio.CancelledError("mine")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_until(path, count):
    with open(path, "a+") as file:
        file.write("x")
        file.flush()
        if file.tell() <= count:
            os.kill(os.getpid(), signal.SIGKILL)
    return True


def wait_for(path):
    kit.until(lambda: os.path.exists(path), "that it may end")


def begun_sleep(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)


@kit.each(**kit.BOTH)
class Run:
    def setUp(self):
        self.pool = yoke.Pool(workers=2, start=self.start)
        self.addCleanup(self.pool.shutdown, kill=True)
        folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(folder.name, "file")
        self.addCleanup(folder.cleanup)

    def run_all(self, coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, WAIT))

    def test_results(self):
        async def main():
            self.assertEqual(await self.pool.run(square, 3), 9)
            self.assertEqual(await self.pool.run(keywords, 1, a=2), ((1,), {"a": 2}))
            got = await asyncio.gather(*(self.pool.run(square, i) for i in range(2000)))
            self.assertEqual(got, [i * i for i in range(2000)])

        self.run_all(main())

    def test_exceptions(self):
        async def main():
            with self.assertRaisesRegex(ValueError, "why"):
                await self.pool.run(fail, "why")
            with self.assertRaises(yoke.WorkerDied):
                await self.pool.run(die)
            with self.assertRaises(RuntimeError):
                await self.pool.run(stop)  # as any coroutine that StopIteration gets out of
            with self.assertRaises(asyncio.CancelledError):
                await self.pool.run(cancelled)
            self.assertEqual(await self.pool.run(square, 4), 16)

        self.run_all(main())

    def test_options(self):
        async def main():
            with self.assertRaises(yoke.TaskTimeout):
                await self.pool.run(time.sleep, 60, timeout=0.2)
            self.assertTrue(await self.pool.run(die_until, self.path, 1, retries=1))

        self.run_all(main())

    def test_the_loop_goes_on_meanwhile(self):
        async def main():
            task = asyncio.ensure_future(self.pool.run(wait_for, self.path))
            for _ in range(20):
                await asyncio.sleep(0.001)
                self.assertFalse(task.done())
            open(self.path, "w").close()
            await task

        self.run_all(main())

    async def begin(self):
        task = asyncio.ensure_future(self.pool.run(begun_sleep, self.path))
        while not (os.path.exists(self.path) and os.path.getsize(self.path)):
            await asyncio.sleep(0.002)
        with open(self.path) as file:
            return task, int(file.read())

    def test_cancel_ends_what_runs(self):
        async def main():
            task, pid = await self.begin()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            kit.until(lambda: not kit.alive(pid), "that the worker ends")
            self.assertEqual(await self.pool.run(square, 5), 25)

        self.run_all(main())

    def test_wait_for_ends_what_runs(self):
        async def main():
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(self.pool.run(begun_sleep, self.path), 0.3)
            if os.path.exists(self.path):
                with open(self.path) as file:
                    pid = int(file.read())
                kit.until(lambda: not kit.alive(pid), "that the worker ends")
            self.assertEqual(await self.pool.run(square, 5), 25)

        self.run_all(main())

    def test_a_loop_that_ends_first(self):
        async def main():
            task, pid = await self.begin()
            return task, pid

        _, pid = asyncio.run(main())  # it cancels what is left
        kit.until(lambda: not kit.alive(pid), "that the worker ends")
        self.assertEqual(self.pool.submit(square, 3).result(WAIT), 9)

    def test_a_loop_that_is_closed(self):
        loop = asyncio.new_event_loop()
        coroutine = self.pool.run(begun_sleep, self.path)
        task = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.sleep(0))
        kit.until(lambda: os.path.exists(self.path) and os.path.getsize(self.path), "that it runs")
        with open(self.path) as file:
            pid = int(file.read())
        loop.close()
        task._log_destroy_pending = False
        coroutine.close()
        kit.until(lambda: not kit.alive(pid), "that the worker ends")
        self.assertEqual(self.pool.submit(square, 3).result(WAIT), 9)

    def test_wrap_future(self):
        async def main():
            future = asyncio.wrap_future(self.pool.submit(square, 6))
            self.assertEqual(await future, 36)
            futures = [asyncio.wrap_future(self.pool.submit(square, i)) for i in range(300)]
            self.assertEqual(await asyncio.gather(*futures), [i * i for i in range(300)])

        self.run_all(main())

    def test_run_in_executor(self):
        async def main():
            loop = asyncio.get_running_loop()
            self.assertEqual(await loop.run_in_executor(self.pool, square, 7), 49)
            call = functools.partial(keywords, 1, a=2)
            self.assertEqual(await loop.run_in_executor(self.pool, call), ((1,), {"a": 2}))

        self.run_all(main())

    def test_outside_of_a_loop(self):
        coroutine = self.pool.run(square, 1)
        with self.assertRaises(RuntimeError):
            coroutine.send(None)

    def test_after_shutdown(self):
        async def main():
            self.pool.shutdown()
            with self.assertRaises(yoke.PoolClosed):
                await self.pool.run(square, 1)

        self.run_all(main())


class Serial(unittest.TestCase):
    def test_run(self):
        async def main():
            pool = yoke.Pool("serial")
            self.assertEqual(await pool.run(square, 3), 9)
            with self.assertRaises(ValueError):
                await pool.run(fail, "x")
            with self.assertRaises(RuntimeError):
                await pool.run(stop)

        asyncio.run(main())


class Interrupted(unittest.TestCase):
    def test_ctrl_c_in_asyncio_run(self):
        program = kit.Program("""
            import asyncio, time, yoke
            def sleep():
                print("begun", flush=True)
                time.sleep(60)
            async def main():
                pool = yoke.Pool(workers=1)
                await pool.run(sleep)
            asyncio.run(main())
        """)
        self.assertEqual(program.line(), "begun")
        began = program.interrupt()
        program.wait()
        self.assertLess(time.monotonic() - began, kit.AT_ONCE_S)
        self.assertIn("KeyboardInterrupt", program.err)
        kit.until(lambda: not program.left(), "that nothing is left", kit.AT_ONCE_S)


if __name__ == "__main__":
    unittest.main()
