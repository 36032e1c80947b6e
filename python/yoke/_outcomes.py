# SPDX-License-Identifier: MIT
"""How calls end that have no result: exceptions, made by the C part when they are needed.

Each function returns an exception. Imported with the first of them, since the classes of
concurrent.futures.process take a while to import.
"""

from concurrent.futures import CancelledError
import signal as _signal

from . import _errors
from ._errors import _RemoteTraceback  # as the standard library's own pools attach it


def remote(exc, text):
    """What a task raised, with the traceback of its worker."""
    if not isinstance(exc, BaseException):
        exc = _errors.TransferError(f"the worker sent {exc!r} where an exception was due")
    exc.__cause__ = _RemoteTraceback('\n"""\n' + text + '"""')
    return exc


def transfer(what, cause):
    """A result or an exception that could not be read here."""
    detail = f": {type(cause).__name__}: {cause}" if cause is not None else ""
    exc = _errors.TransferError(what + detail)
    exc.__cause__ = cause
    return exc


def not_carried(message, text):
    """What the worker could not read, or could not send."""
    exc = _errors.TransferError(message)
    if text:
        exc.__cause__ = _RemoteTraceback('\n"""\n' + text + '"""')
    return exc


def _signal_name(number):
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def died(task, signal, code, trace, begun):
    """The worker died in a task, or, if it had not begun, just before."""
    if signal:
        how = f"was killed by {_signal_name(signal)}"
    elif code >= 0:
        how = f"ended with exit code {code}"
    else:
        how = "died (another part of the program took its exit status)"
    where = f"while it ran {task}" if begun else f"before it began {task}"
    text = f"the worker {how} {where}"
    if trace:
        text += "\n\n" + trace.rstrip()
    return _errors.WorkerDied(
        text, signal=signal or None, exit_code=None if signal or code < 0 else code,
        task=task, traceback=trace,
    )


def timed_out(task, seconds):
    """It ran for longer than its timeout; its worker was ended."""
    return _errors.TaskTimeout(f"{task} ran for longer than {seconds:g} s", task=task)


def cancelled():
    return CancelledError()


def broken(text):
    return _errors.PoolBroken(text)


def refused(code, text):
    """It could not be handed in."""
    return OSError(-code, text) if -4096 < code < 0 else _errors.PoolBroken(text)


def again(exc):
    """Why the pool failed, once more: each call gets an exception of its own."""
    if isinstance(exc, _errors.PoolBroken):
        copy = _errors.PoolBroken(*exc.args)
    else:
        copy = _errors.PoolBroken(f"{type(exc).__name__}: {exc}")
    copy.__cause__ = exc
    return copy
