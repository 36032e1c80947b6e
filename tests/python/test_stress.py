# SPDX-License-Identifier: MIT
"""test_stress.py - threads that do everything with a pool at once, at random.

They submit, wait, cancel, kill workers, begin maps and drop them, shut down; each future must end
once, each map give each item once, and nothing may stay in memory. STRESS_SEED repeats a run,
STRESS_SECONDS makes it longer, STRESS_FORKS=1 forks the program besides: then about one run in ten
fails, because a child hangs or is killed (docs/limits.md).

timeout: 120
# asan: no (forks of a program with threads hang in its allocator)
"""
import concurrent.futures as cf
import faulthandler
import gc
import logging
import os
import random
import signal
import threading
import time
import traceback
import unittest
import weakref

import kit
import yoke

SEED = int(os.environ.get("STRESS_SEED") or time.time_ns() % 1000000)
SECONDS = float(os.environ.get("STRESS_SECONDS") or 5)  # for each kind of start
LIMIT = kit.LIMIT_S


def ok(x):
    return x


def boom(x):
    raise ValueError(x)


def nap(x):
    time.sleep(0.02)
    return x


def die(x):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(x):
    os._exit(3)


def big(x):
    return bytes(x % 7 * 40000)


class Bad:
    def __reduce__(self):
        return (int, ("no number",))


def bad(x):
    return Bad()


def stop(x):
    raise StopIteration(x)


def mixed(x):
    if x % 97 == 13:
        raise ValueError(x)
    if x % 389 == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    if x % 50 == 3:
        return (x, b"z" * 70000)
    return x


FUNCTIONS = [ok] * 10 + [boom, nap, nap, big, bad, stop] + [die, leave] * 1
ALLOWED = (ValueError, StopIteration, yoke.WorkerDied, yoke.TaskTimeout, yoke.TransferError,
           cf.CancelledError)
problems = []


def problem(text):
    problems.append(text)


class Watch:
    def __init__(self):
        self.count = 0

    def __call__(self, future):
        self.count += 1
        if not future.done():
            problem("callback of one that is not done")
        if self.count % 3 == 0:
            raise RuntimeError("of a callback")


def check(future, expected):
    try:
        exc = future.exception(0)
    except cf.CancelledError:
        return
    except BaseException as e:
        return problem(f"exception() raised {e!r}")
    if exc is not None and not isinstance(exc, ALLOWED):
        problem(f"{expected}: {exc!r} cause {exc.__cause__!r}")


def submitter(pool, rng, over, record):
    held = []
    while not over.is_set():
        fn = rng.choice(FUNCTIONS)
        n = rng.choice((1, 1, 5, 40, 400 if fn is ok else 10))
        if fn in (die, leave):
            n = 1
        try:
            kw = {}
            if rng.random() < 0.2:
                kw["retries"] = rng.randrange(3)
            if rng.random() < 0.1:
                kw["timeout"] = rng.choice((0.005, 5))
            new = [pool.submit(fn, rng.randrange(1000) if fn is not ok or rng.random() < .9
                               else bytes(30000), **kw) for _ in range(n)]
        except (yoke.PoolClosed, RuntimeError):
            break
        for f in new:
            w = None
            if rng.random() < 0.3:
                w = Watch()
                f.add_done_callback(w)
            record.append((f, w, fn.__name__))
        held = (held + new)[-200:]
        what = rng.randrange(9)
        if what == 0:
            [f.cancel() for f in new]
        elif what == 1:
            f = rng.choice(held)
            f.cancel(force=True)
        elif what == 2:
            cf.wait(new, timeout=rng.choice((0.001, 0.1, LIMIT)),
                    return_when=rng.choice((cf.FIRST_COMPLETED, cf.ALL_COMPLETED,
                                             cf.FIRST_EXCEPTION)))
        elif what == 3:
            try:
                for f in cf.as_completed(new, timeout=rng.choice((0.001, 0.1, LIMIT))):
                    f.done()
            except TimeoutError:
                pass
        elif what == 4:
            try:
                rng.choice(held).result(rng.choice((0, 0.001, 0.1)))
            except BaseException:
                pass
        elif what == 5:
            try:
                rng.choice(new).result(LIMIT)
            except TimeoutError as e:
                if type(e) is TimeoutError:
                    problem("result() took too long")
            except BaseException:
                pass
        elif what == 6:
            new[0].running(), new[0].cancelled(), repr(new[0])
        elif what == 7:
            for f in new[:3]:
                f.cancel(force=True)


def draw(rng, n):
    for i in range(n):
        if i == 777:
            raise KeyError("of the iterable")
        if rng.random() < 0.001:
            time.sleep(0.003)
        yield i


def mapper(pool, rng, over, record):
    while not over.is_set():
        n = rng.choice((0, 1, 10, 500, 1000))
        kw = {}
        if rng.random() < 0.5:
            kw["chunksize"] = rng.choice((1, 3, 100))
        if rng.random() < 0.2:
            kw["timeout"] = LIMIT  # a worker may get no CPU for a while
        if rng.random() < 0.3:
            kw["unordered"] = True
        if rng.random() < 0.3:
            kw["retries"] = 1
        try:
            m = pool.map(mixed, draw(rng, n), **kw)
        except (yoke.PoolClosed, RuntimeError):
            break
        end = rng.choice(("all", "all", "drop", "close", "both"))
        limit = n + 10 if end in ("all", "both") else rng.randrange(n + 1)
        got = []
        stopper = None
        if end == "both":
            other = []

            def take(m=m, other=other):
                while True:
                    try:
                        other.append(next(m))
                    except StopIteration:
                        return
                    except BaseException as e:
                        other.append(e)
            stopper = threading.Thread(target=take)
            stopper.start()
        for _ in range(limit):
            try:
                got.append(next(m))
            except StopIteration:
                break
            except BaseException as e:
                got.append(e)
        if stopper:
            stopper.join()
            if over.closing.is_set():
                break
            want = n if n <= 777 else 778
            if len(got) + len(other) != want:
                problem(f"two threads: {len(got)} + {len(other)} of {want}")
            continue
        if end == "close":
            m.close()
        if over.closing.is_set():
            break
        if end != "all":
            del m
            continue
        want = n if n <= 777 else 778
        if len(got) != want:
            problem(f"map gave {len(got)} of {want} {kw}: {got[-5:]}")
            continue
        for i, value in enumerate(got):
            if isinstance(value, BaseException):
                if isinstance(value, KeyError) and n > 777:
                    continue
                if isinstance(value, (ValueError, yoke.WorkerDied)):
                    continue
                problem(f"map item {i}: {value!r}")
            elif not kw.get("unordered"):
                x = value[0] if isinstance(value, tuple) else value
                if x != i:
                    problem(f"map item {i} is {x} {kw}")
                    break
        if kw.get("unordered"):
            xs = [v[0] if isinstance(v, tuple) else v for v in got
                  if not isinstance(v, BaseException)]
            if len(set(xs)) != len(xs):
                problem("an item twice")


def killer(pool, rng, over, record):
    while not over.is_set():
        time.sleep(rng.random() * 0.3)
        pids = pool.worker_ids()
        pool.stats()
        if pids:
            try:
                os.kill(rng.choice(pids), rng.choice((signal.SIGKILL, signal.SIGSEGV)))
            except OSError:
                pass


def collector(pool, rng, over, record):
    while not over.is_set():
        time.sleep(rng.random() * 0.1)
        gc.collect()


def forker(pool, rng, over, record):
    while not over.is_set():
        time.sleep(rng.random() * 0.5)
        futures = [f for f, _, _ in record[-50:]]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.alarm(int(LIMIT))
                faulthandler.dump_traceback_later(LIMIT * 0.8)  # where it hangs
                for f in futures:
                    f.done(), f.running()
                    # A thread of the program may have been in the middle of it, as with any lock.
                    if f._condition.acquire(blocking=False):
                        f._condition.release()
                        f.cancel(), repr(f), f.add_done_callback(str)
                    try:
                        f.result(1)
                    except BaseException:
                        pass
                pool.stats(), pool.worker_ids()
                pool.shutdown()
                del pool, futures
                record.clear()
                gc.collect()
                with yoke.Pool(workers=1) as p:
                    assert p.submit(ok, 3).result(LIMIT) == 3
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        until = time.monotonic() + 2 * LIMIT
        while True:
            got, status = os.waitpid(pid, os.WNOHANG)
            if got:
                if status:
                    problem(f"child ended with {status}")
                break
            if time.monotonic() > until:
                problem("child hangs")
                os.kill(pid, signal.SIGABRT)
                os.waitpid(pid, 0)
                break
            time.sleep(0.01)


def guarded(kind, pool, rng, over, record):
    try:
        kind(pool, rng, over, record)
    except BaseException:
        problem(kind.__name__ + " " + traceback.format_exc())


def one_round(rng, start, seconds):
    """What was made in it, weakly, and the core."""
    pool = yoke.Pool(workers=rng.choice((1, 2, 3)), start=start,
                     tasks_max=rng.choice((None, None, 50)))
    over = threading.Event()
    over.closing = threading.Event()
    record = []
    kinds = [submitter, submitter, mapper, mapper, collector]
    if os.environ.get("STRESS_FORKS"):
        kinds.append(forker)
    if rng.random() < 0.7:
        kinds.append(killer)
    threads = [
        threading.Thread(target=guarded,
                         args=(kind, pool, random.Random(rng.random()), over, record), daemon=True)
        for kind in kinds
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    end = rng.choice(({}, {"cancel_futures": True}, {"kill": True}, {"wait": False}))
    over.closing.set()
    if rng.random() < 0.5:
        over.set()
    pool.shutdown(**end)
    over.set()
    for thread in threads:
        thread.join(2 * LIMIT)
        if thread.is_alive():
            raise AssertionError(f"{thread} hangs, seed {SEED}, {end}, {pool.stats()}")
    pool.shutdown()
    for future, watch, name in record:
        if future.done():
            check(future, name)
        else:
            problem(f"a future of {name} never ended: {future!r}")
        if watch is not None and watch.count != 1:
            problem(f"a callback of {name} was called {watch.count} times")
    return [weakref.ref(one[0]) for one in record] + [weakref.ref(pool._runner)], pool._core


class Stress(unittest.TestCase):
    def run_with(self, start):
        log = logging.getLogger("concurrent.futures")  # callbacks raise on purpose
        self.addCleanup(setattr, log, "disabled", log.disabled)
        log.disabled = True
        problems.clear()
        rng = random.Random(SEED)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not problems:
            made, core = one_round(rng, start, rng.random() * 1.5)
            gc.collect()
            kit.until(lambda: not any(one() is not None for one in made), "that all is let go of")
            if core.pending():
                problem("calls are pending")
        self.assertEqual(problems, [], f"seed {SEED}")

    def test_fresh(self):
        self.run_with("fresh")

    def test_fork(self):
        self.run_with("fork")


if __name__ == "__main__":
    unittest.main()
