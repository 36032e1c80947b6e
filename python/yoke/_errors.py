# SPDX-License-Identifier: MIT
"""The exceptions of Yoke. Imported when first needed: their bases are slow to import."""

from __future__ import annotations

try:
    from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
except RuntimeError:
    # The interpreter ends, and that module cannot be imported any more: nobody catches its classes.
    from concurrent.futures import BrokenExecutor as BrokenProcessPool

    class _RemoteTraceback(Exception):
        def __str__(self):
            return str(self.args[0])


__all__ = ["PoolBroken", "PoolClosed", "TaskTimeout", "TransferError", "WorkerDied"]


def _public(cls):
    """Shown as yoke.NAME. Pickles by that name too."""
    cls.__module__ = "yoke"
    return cls


@_public
class WorkerDied(BrokenProcessPool):
    """The worker died while it ran this call. Other calls, and the pool, go on.

    signal     the number of the signal that killed it, or None
    exit_code  its exit code if it ended by itself, or None
    task       the name of the function that ran
    traceback  where its Python code was, as text, if the signal let it say so; or None
    """

    def __init__(self, *args, signal: int | None = None, exit_code: int | None = None,
                 task: str | None = None, traceback: str | None = None):
        super().__init__(*args)
        self.signal = signal
        self.exit_code = exit_code
        self.task = task
        self.traceback = traceback


@_public
class TaskTimeout(TimeoutError):
    """The call ran longer than its timeout. Its worker was killed and replaced.

    task  the name of the function that ran
    """

    def __init__(self, *args, task: str | None = None):
        super().__init__(*args)
        self.task = task


@_public
class TransferError(BrokenProcessPool):
    """Something could not be carried over to a worker or back; the cause and the notes say what.

    Other calls, and the pool, go on.
    """


@_public
class PoolBroken(BrokenProcessPool):
    """The pool has given up: workers cannot be started, or keep dying before they end a call."""


@_public
class PoolClosed(RuntimeError):
    """A call was handed in after shutdown."""
