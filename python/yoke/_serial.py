# SPDX-License-Identifier: MIT
"""Pool("serial"): what Core does, in the caller and at once. For debugging, and to compare with."""
import concurrent.futures


class Future(concurrent.futures.Future):
    """A future that has ended when it is made."""

    def cancel(self, force=False):
        return super().cancel()


class Map:
    """A map whose items are computed when they are asked for."""

    def __init__(self, core, fn, items, count):
        self._core = core
        self._fn = fn
        self._items = items
        self._left = count
        self.done = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self._items is None:
            raise StopIteration
        try:
            args = next(self._items)
        except BaseException:  # its end, or its own failure: there is nothing behind either
            self.close()
            raise
        self.done += 1
        if self._left:
            self._left -= 1
        try:
            return self._core.call(self._fn, args, None)
        except StopIteration as exc:
            raise RuntimeError("a call of a map raised StopIteration") from exc

    def __length_hint__(self):
        return self._left

    def close(self):
        self._items = None
        self._left = 0


class Core:
    """See Core in _yoke.pyi."""

    def __init__(self, initializer, initargs):
        self._closed = False
        self._failure = None
        self._ended = 0
        if initializer is not None:
            try:
                initializer(*initargs)
            except Exception as exc:
                from yoke._errors import PoolBroken

                self._failure = PoolBroken(f"the initializer raised {exc!r}")
                self._failure.__cause__ = exc

    def call(self, fn, args, kwargs):
        if self._failure is not None:
            raise self._failure
        try:
            return fn(*args, **(kwargs or {}))
        finally:
            self._ended += 1

    def _check(self):
        if self._failure is not None:
            raise self._failure
        if self._closed:
            from yoke._errors import PoolClosed

            raise PoolClosed("cannot schedule new futures after shutdown")

    def submit(self, fn, args, kwargs, timeout, retries):
        self._check()
        future = Future()
        future.set_running_or_notify_cancel()
        try:
            value = self.call(fn, args, kwargs)
        except BaseException as exc:
            future.set_exception(exc)
            if isinstance(exc, KeyboardInterrupt):
                raise
        else:
            future.set_result(value)
        return future

    def map(self, fn, iterables, star, chunksize, timeout, retries, unordered):
        self._check()
        try:
            count = min(len(iterable) for iterable in iterables)
        except TypeError:
            count = 0
        items = map(tuple, iterables[0]) if star else zip(*iterables)
        return Map(self, fn, items, count)

    def close(self, cancel, kill):
        self._closed = True

    def join(self, timeout):
        return True

    def worker_ids(self):
        return []

    def stats(self):
        return {"workers": 1, "ended": self._ended}

    def pending(self):
        return 0
