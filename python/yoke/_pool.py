# SPDX-License-Identifier: MIT
"""yoke.Pool: checks what it is given, and hands it to the core."""
import concurrent.futures
import math
import operator
import os
import sys

from yoke import _yoke

_WORKERS_MAX = 1024


# --- checks of arguments -------------------------------------------------------------------------


def a_count(name, value, least=1):
    """An int that is at least so; or None."""
    if value is None:
        return None
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer or None, not {type(value).__name__!r}"
        ) from None
    if value < least:
        if least == 1:
            raise ValueError(f"{name} must be greater than 0")
        raise ValueError(f"{name} must be {least} or more")
    return value


def seconds(name, value):
    """A positive float, or None."""
    if value is None:
        return None
    try:
        value = math.fsum((value,))  # takes numbers only, where float() takes text too
    except TypeError:
        raise TypeError(
            f"{name} must be a number of seconds or None, not {type(value).__name__!r}"
        ) from None
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0 seconds")
    return None if math.isinf(value) else value


def worker_count(name, value):
    """How many workers; None: as many as there are CPUs for this process."""
    value = a_count(name, value)
    if value is None:
        return min(_yoke.cpu_count(), _WORKERS_MAX)
    if value > _WORKERS_MAX:
        raise ValueError(f"{name} must be at most {_WORKERS_MAX}")
    return value


def initializer_of(initializer, initargs):
    """The same, checked."""
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    try:
        return initializer, tuple(initargs)
    except TypeError:
        raise TypeError(
            f"initargs must be a tuple of arguments, not {type(initargs).__name__!r}"
        ) from None


def in_worker():
    """This process is a worker: it has no workers of its own, and runs calls itself."""
    image = sys.modules.get("yoke._image")
    return image is not None and image.number is not None


def _one_of(name, value, choices):
    if not isinstance(value, str):
        hint = "; for the number of workers write workers=" if name == "kind" else ""
        raise TypeError(
            f"{name} must be {' or '.join(map(repr, choices))}, not {type(value).__name__!r}{hint}"
        )
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
    return value


def _modules(preload, start):
    if isinstance(preload, str):
        raise TypeError("preload must be a list of names of modules, not a str")
    preload = list(preload)
    for name in preload:
        if not isinstance(name, str):
            raise TypeError(f"preload must hold names of modules, not {type(name).__name__!r}")
    if preload and start == "fork":
        raise ValueError("preload goes with start='fresh'; with 'fork' import them before the pool")
    return preload


# --- the pool ------------------------------------------------------------------------------------


class Pool(concurrent.futures.Executor):
    """Workers that run calls in parallel. An Executor of concurrent.futures.

    kind          "processes"; or "serial": all calls run at once in the caller, for debugging.
    workers       how many, 1 to 1024; None: the CPUs this process may use (affinity and cgroup).
    start         "fresh": workers are copies of a clean interpreter that has imported `preload`.
                  "fork": copies of this program as it is now, with all that is in its memory.
    preload       names of modules that workers have from their start.
    initializer   called in each worker before its first task, with initargs. If it raises, the pool
                  is broken.
    tasks_max     a worker is replaced after so many tasks; None: never.
    memory        bytes of private memory a worker may have; None: no limit.
    cpu_time      seconds of CPU time a worker may use, then it is killed and replaced; None: no
                  limit.
    threads_per_worker  threads of BLAS and OpenMP in a worker; None: CPUs // workers, at least 1.

    With start="fresh" the constructor returns before the workers are ready; if they cannot be
    started, all calls end with yoke.PoolBroken. With "fork" it raises that at once.

    A pool may be used by any number of threads. A child that this program forks cannot use it
    (RuntimeError); a pool made in a worker is "serial". Work that was handed in is finished before
    the interpreter ends; Ctrl-C ends it.
    """

    def __init__(self, kind="processes", workers=None, *, start="fresh", preload=(),
                 initializer=None, initargs=(), tasks_max=None, memory=None, cpu_time=None,
                 threads_per_worker=None):
        _one_of("kind", kind, ("processes", "serial"))
        _one_of("start", start, ("fresh", "fork"))
        workers = worker_count("workers", workers)
        preload = _modules(preload, start)
        initializer, initargs = initializer_of(initializer, initargs)
        tasks_max = a_count("tasks_max", tasks_max) or 0
        memory = a_count("memory", memory) or 0
        cpu_ns = round((seconds("cpu_time", cpu_time) or 0) * 1e9)
        threads = a_count("threads_per_worker", threads_per_worker)
        if in_worker():
            kind = "serial"
        self.kind = kind
        self.workers = self._max_workers = workers if kind == "processes" else 1
        self._runner = None
        if kind == "serial":
            from yoke._serial import Core

            self._core = Core(initializer, initargs)
            return
        from yoke._collector import Runner, make_setup

        self._core = _yoke.Core(workers)
        setup, uses = make_setup(self._core, workers, start, preload=preload,
                                 initializer=initializer, initargs=initargs, threads=threads)
        self._runner = Runner(self._core, setup, uses, (tasks_max, memory, cpu_ns))
        self._runner.begin(start)
        self._runner.belongs_to(self)

    def __repr__(self):
        return f"<yoke.Pool {self.kind} workers={self.workers}>"

    def submit(self, fn, /, *args, timeout=None, retries=0, **kwargs):
        """Hand in fn(*args, **kwargs); returns its concurrent.futures.Future.

        timeout  seconds from the start of the call on its worker; then the worker is killed and
                 replaced, and the future has yoke.TaskTimeout. None: no limit.
        retries  how often the call may be started again after its worker died (yoke.WorkerDied).

        Keywords of fn that are named so too: use functools.partial. Raises yoke.PoolClosed after
        shutdown, yoke.PoolBroken when there can be no workers. Never waits for a worker.
        """
        return self._core.submit(fn, args, kwargs or None, timeout, retries)

    def map(self, fn, *iterables, timeout=None, retries=0, chunksize=None, unordered=False,
            progress=False):
        """fn of each item of an iterable (of several: of their first items, and so on).

        Begins at once and returns an iterator of results, in order; unordered=True: as they come.
        iterables are read as results are taken, a bounded number of items ahead, so they may be
        endless. An exception of an item is raised when its turn comes; the iterator goes on then.
        What has not begun when the iterator is closed or dropped does not run.

        timeout    seconds for each item, from its start; see submit. retries: see submit.
        chunksize  items handed to a worker at a time; None: chosen while it runs.
        progress   True: shows how many are done on stderr; by tqdm where that is installed.
        """
        if not iterables:
            raise TypeError("map() must have at least one iterable")
        return self._map(fn, iterables, False, timeout, retries, chunksize, unordered, progress)

    def starmap(self, fn, iterable, *, timeout=None, retries=0, chunksize=None, unordered=False,
                progress=False):
        """As map, with items that are tuples of arguments: fn(*item)."""
        return self._map(fn, (iterable,), True, timeout, retries, chunksize, unordered, progress)

    def _map(self, fn, iterables, star, timeout, retries, chunksize, unordered, progress):
        results = self._core.map(fn, iterables, star, a_count("chunksize", chunksize) or 0,
                                 seconds("timeout", timeout),
                                 a_count("retries", retries, 0) or 0, bool(unordered))
        if not progress:
            return results
        from yoke._progress import Progress

        try:
            total = min(len(iterable) for iterable in iterables)
        except TypeError:
            total = None
        return Progress(results, total, getattr(fn, "__name__", None) or type(fn).__name__)

    async def run(self, fn, /, *args, timeout=None, retries=0, **kwargs):
        """await fn(*args, **kwargs) on a worker, from asyncio. timeout, retries: see submit.

        When the awaiting task is cancelled, so is the call; if it runs its worker is killed and
        replaced.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        future = self.submit(fn, *args, timeout=timeout, retries=retries, **kwargs)

        def wake():
            if not ended.done():
                ended.set_result(None)

        def tell(_):
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        future.add_done_callback(tell)
        try:
            await ended
        except BaseException:
            future.cancel(force=True)
            raise
        return future.result()

    def worker_ids(self):
        """The process ids of the workers there are now; empty before they are ready."""
        return self._core.worker_ids()

    def stats(self):
        """Counts of what the pool is and did, as a dict."""
        return self._core.stats()

    def shutdown(self, wait=True, *, cancel_futures=False, kill=False):
        """No more calls. wait: until all that was handed in has ended and the workers are gone.

        cancel_futures  what has not begun is cancelled.
        kill            what runs is killed too.

        In a forked child it does nothing. Ctrl-C gets through the wait.
        """
        if self._runner is None:
            self._core.close(cancel_futures, kill)
            return
        self._runner.close(cancel_futures or kill, kill)
        if wait:
            self._runner.join()

    def __exit__(self, exc_type, exc_value, traceback):
        """Waits for all work; with KeyboardInterrupt or SystemExit: kills it."""
        kill = exc_type is not None and issubclass(exc_type, (KeyboardInterrupt, SystemExit))
        try:
            if kill and self._runner is not None:
                self._runner.kill()
            else:
                self.shutdown()
        except (KeyboardInterrupt, SystemExit):
            if self._runner is not None:
                self._runner.close(True, True)
            raise
        return False
