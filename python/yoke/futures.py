# SPDX-License-Identifier: MIT
"""yoke.futures: a ProcessPoolExecutor that takes the place of the standard library's.

    from yoke.futures import ProcessPoolExecutor

The same arguments, methods and exceptions. What differs: a worker that dies costs the call it ran
(yoke.WorkerDied, a BrokenProcessPool) and is replaced, and the executor goes on; __main__ is not
imported again by workers, so no guard is needed; lambdas and closures can be called.
"""
import collections
import concurrent.futures
import functools
import itertools
import os
import select
import signal
import sys
import threading
import time
import weakref

from yoke import _yoke
from yoke._pool import in_worker, initializer_of

__all__ = ["ProcessPoolExecutor"]

_WORKERS_MAX = 1024
_FIRST_S = 1.0  # so long is long enough for a worker to take its first call
_TERMINATE = "terminate"
_KILL = "kill"


def __getattr__(name):
    if name == "BrokenProcessPool":  # its module is slow to import
        from concurrent.futures.process import BrokenProcessPool

        return BrokenProcessPool
    raise AttributeError(f"module 'yoke.futures' has no attribute {name!r}")


def _call_each(fn, chunk):
    return [fn(*args) for args in chunk]


def _chunks(iterables, size):
    items = zip(*iterables)
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


def _take(future, end_time):
    """Its result; it is cancelled when that is not to be had in time."""
    try:
        try:
            if end_time is None:
                return future.result()
            return future.result(end_time - time.monotonic())
        finally:
            future.cancel()
    finally:
        del future  # an exception refers to this frame


class _Worker:
    """A worker as multiprocessing.Process shows it: as much as programs use of it."""

    daemon = False

    def __init__(self, executor, pid):
        self.pid = self.ident = pid
        self.name = f"yoke-worker-{pid}"
        self._executor = executor  # what to break when the program ends a worker: a weak reference
        self._signal = None
        self._gone = False
        try:
            self.sentinel = os.pidfd_open(pid)
        except OSError:
            self.sentinel = -1
            self._gone = True

    def __repr__(self):
        return f"<yoke worker pid={self.pid}{'' if self.is_alive() else ' ended'}>"

    def is_alive(self):
        """It has not ended."""
        return not self._wait(0)

    def join(self, timeout=None):
        """Wait until it has ended, at most timeout seconds."""
        self._wait(timeout)

    @property
    def exitcode(self):
        """None while it lives; minus the signal by which terminate() or kill() ended it; else 0,
        since its true status is read by the pool."""
        if self.is_alive():
            return None
        return -self._signal if self._signal else 0

    def terminate(self):
        """End it with SIGTERM. As in the standard library, the executor is broken then."""
        self._end(signal.SIGTERM)

    def kill(self):
        """End it with SIGKILL. As in the standard library, the executor is broken then."""
        self._end(signal.SIGKILL)

    def _end(self, number):
        executor = self._executor()
        if executor is not None and self.is_alive():
            self._signal = number
            executor._break(
                "A process in the process pool was terminated abruptly while the future was "
                "running or pending."
            )
        self._send(number)

    def _send(self, number):
        if not self._gone:
            try:
                signal.pidfd_send_signal(self.sentinel, number)
                self._signal = number
            except ProcessLookupError:
                pass

    def _wait(self, timeout):
        if not self._gone:
            poll = select.poll()
            poll.register(self.sentinel, select.POLLIN)
            self._gone = bool(poll.poll(None if timeout is None else max(0, timeout) * 1000))
        return self._gone

    def __del__(self):
        if getattr(self, "sentinel", -1) >= 0:
            os.close(self.sentinel)


class _CallQueue:
    """There is none, so it has no thread."""

    def close(self):
        pass

    def join_thread(self):
        pass


class ProcessPoolExecutor(concurrent.futures.Executor):
    """As concurrent.futures.ProcessPoolExecutor.

    max_workers   1 to 1024; None: the CPUs this process may use (affinity and cgroup).
    mp_context    a context of multiprocessing: with method "fork" workers are copies of this
                  program as it is at the first submit; with any other, or None, of a clean
                  interpreter. None goes by multiprocessing.set_start_method, if that was called.
    initializer   called with initargs in each worker before its first call. If it raises, the
                  executor is broken.
    max_tasks_per_child  a worker is replaced after so many calls; None: never. Not with "fork".

    Workers start with the first submit. Any number of threads may use it; a forked child may not.
    """

    def __init__(self, max_workers=None, mp_context=None, initializer=None, initargs=(), *,
                 max_tasks_per_child=None):
        if max_workers is None:
            max_workers = min(_yoke.cpu_count(), _WORKERS_MAX)
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        elif max_workers > _WORKERS_MAX:
            raise ValueError(f"max_workers must be <= {_WORKERS_MAX}")
        self._max_workers = max_workers
        self._initializer, self._initargs = initializer_of(initializer, initargs)
        self._given_context = mp_context
        start = _start_of(mp_context)
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if start == "fork" and mp_context is not None:
                raise ValueError(
                    "max_tasks_per_child is incompatible with the 'fork' multiprocessing start "
                    "method; supply a different mp_context."
                )
            start = "fresh"
        self._max_tasks_per_child = max_tasks_per_child
        self._start = start
        self._lock = threading.Lock()  # guards the start
        self._runner = None
        self._core = None
        self._breakage = False
        self._shutdown_thread = False
        self._workers = {}
        self._first = None  # a weak reference to the first future

    def _begin(self):
        """Start the workers, once."""
        from yoke._collector import Runner, make_setup

        with self._lock:
            if self._core is not None:
                return
            if self._shutdown_thread:
                self._refuse()
            if in_worker():
                from yoke._serial import Core

                self._core = Core(self._initializer, self._initargs)
                return
            core = _yoke.Core(self._max_workers)
            setup, uses = make_setup(core, self._max_workers, self._start,
                                     initializer=self._initializer, initargs=self._initargs)
            runner = Runner(core, setup, uses, (self._max_tasks_per_child or 0, 0, 0))
            try:
                runner.begin(self._start)
            except concurrent.futures.BrokenExecutor as exc:
                self._breakage = str(exc)
                raise
            runner.belongs_to(self)
            self._runner = runner
            self._core = core

    def submit(self, fn, /, *args, **kwargs):
        """Hand in fn(*args, **kwargs); returns its concurrent.futures.Future."""
        if self._shutdown_thread or self._breakage:
            self._refuse()
        if self._core is None:
            self._begin()
        try:
            future = self._core.submit(fn, args, kwargs or None, None, 0)
        except RuntimeError as exc:
            if type(exc).__name__ == "PoolClosed":
                self._refuse()
            raise
        if self._first is None:
            self._first = weakref.ref(future)
        return future

    def _refuse(self):
        """As the standard library says it."""
        if self._breakage:
            from yoke._errors import PoolBroken

            raise PoolBroken(self._breakage)
        from yoke._collector import exiting

        end = "shutdown" if self._shutdown_thread or not exiting() else "interpreter shutdown"
        raise RuntimeError(f"cannot schedule new futures after {end}")

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """As Executor.map: everything is handed in at once, and results come in order.

        timeout     seconds from now in which the results must be there; else TimeoutError.
        chunksize   items handed in as one call.
        buffersize  at most so many chunks are handed in and not taken; None: all at once.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end_time = None if timeout is None else timeout + time.monotonic()
        if chunksize == 1:
            calls = zip(*iterables)
        else:
            calls = ((chunk,) for chunk in _chunks(iterables, chunksize))
            fn = functools.partial(_call_each, fn)
        ahead = calls if buffersize is None else itertools.islice(calls, buffersize)
        futures = collections.deque(self.submit(fn, *args) for args in ahead)
        futures.reverse()
        results = _results(weakref.ref(self), fn, futures, None if buffersize is None else calls,
                           end_time)
        return results if chunksize == 1 else _flat(results)

    def shutdown(self, wait=True, *, cancel_futures=False):
        """No more calls. wait: until all that was handed in has ended and the workers are gone.
        cancel_futures: what has not begun is cancelled."""
        with self._lock:
            self._shutdown_thread = True
        runner = self._runner
        if runner is not None:
            if wait and cancel_futures:
                self._await_first()
            runner.close(cancel_futures)
            if wait:
                runner.join()
            self._runner = None
            self._workers = None

    def _await_first(self):
        """The standard library lets calls run that workers have got: wait until they have one."""
        until = time.monotonic() + _FIRST_S
        self._runner.ready.wait()
        while time.monotonic() < until:
            first = self._first() if self._first is not None else None
            if first is None or first.running() or first.done():
                return
            time.sleep(0.001)

    def _force_shutdown(self, operation):
        if operation not in (_TERMINATE, _KILL):
            raise ValueError(f"Unsupported operation: {operation!r}")
        workers = list((self._processes or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker._send(signal.SIGTERM if operation == _TERMINATE else signal.SIGKILL)

    def terminate_workers(self):
        """Shut down without waiting, and end the workers with SIGTERM: what they run raises
        BrokenProcessPool, what has not begun is cancelled."""
        self._force_shutdown(_TERMINATE)

    def kill_workers(self):
        """As terminate_workers, with SIGKILL."""
        self._force_shutdown(_KILL)

    def __exit__(self, exc_type, exc_value, traceback):
        runner = self._runner
        kill = exc_type is not None and issubclass(exc_type, (KeyboardInterrupt, SystemExit))
        try:
            if kill and runner is not None:
                runner.kill()
            self.shutdown(wait=not kill)
        except (KeyboardInterrupt, SystemExit):
            if runner is not None:
                runner.close(True, True)
            raise
        return False

    # What programs and tests read of the standard library's, by these names.

    @property
    def _mp_context(self):
        if self._given_context is None:
            import multiprocessing

            spawns = self._max_tasks_per_child is not None
            self._given_context = multiprocessing.get_context("spawn" if spawns else None)
        return self._given_context

    @property
    def _call_queue(self):
        return _CallQueue() if self._runner is not None or self._core is None else None

    @property
    def _executor_manager_thread(self):
        return self._runner.thread if self._runner is not None else None

    @property
    def _broken(self):
        runner = self._runner
        if not self._breakage and runner is not None and runner.failure is not None:
            self._breakage = str(runner.failure)
        return self._breakage

    @property
    def _processes(self):
        """pid -> worker, of those there are now; None after shutdown."""
        runner, workers = self._runner, self._workers
        if runner is None or workers is None:
            return workers
        runner.ready.wait()
        executor = weakref.ref(self)
        for pid in self._core.worker_ids():
            if pid not in workers:
                workers[pid] = _Worker(executor, pid)
        for pid, worker in list(workers.items()):
            if not worker.is_alive():
                workers.pop(pid, None)
        return dict(workers)

    def _break(self, why):
        """The program has ended a worker: nothing runs any more."""
        from yoke._errors import PoolBroken

        with self._lock:
            self._shutdown_thread = True
            self._breakage = self._breakage or why
        self._core.fail(PoolBroken(why))
        self._core.close(True, True)


def _start_of(mp_context):
    if mp_context is None:
        multiprocessing = sys.modules.get("multiprocessing")
        if multiprocessing is None:
            return "fresh"
        method = multiprocessing.get_start_method(allow_none=True)
    else:
        method = mp_context.get_start_method(allow_none=False)
    return "fork" if method == "fork" else "fresh"


def _results(executor, fn, futures, calls, end_time):
    """The results of futures, of which the last is the next; for each that is taken one of calls is
    handed in, while the executor lives. What is not taken is cancelled."""
    try:
        while futures:
            if calls is not None and (alive := executor()) is not None:
                if (args := next(calls, None)) is not None:
                    futures.appendleft(alive.submit(fn, *args))
                del alive
            yield _take(futures.pop(), end_time)
    finally:
        for future in futures:
            future.cancel()


def _flat(lists):
    """The elements of lists; it keeps no reference to what it has given out."""
    for elements in lists:
        elements.reverse()
        while elements:
            yield elements.pop()
