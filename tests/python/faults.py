# SPDX-License-Identifier: MIT
"""The fault table, tasks: what one call can do wrong, and what must come of it.

Each row: one exception of the documented type, for the task at fault alone, soon after the fault;
every other task ends well and runs once; the pool works afterwards; nothing is left behind. Run
rows by hand with `python faults.py [--start fresh] [--stdlib] [ROW...]`; docs/python-faults.md is
made of what they saw. What goes wrong around tasks is in faults_pool.py.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import itertools
import os
import signal
import sys
import threading
import time
from typing import Any

import faultkit
from faultkit import SLOW, Context, check, row, stamp, wait_for

# Tasks that are not at fault have no more, and may get no CPU for a while.
LATE_S = 1.5 * SLOW

# --- a task dies ----------------------------------------------------------------------------------


def has(**attributes: Any) -> Any:
    """A verify that looks at attributes; the status may be gone where the program collects it."""
    def look(exc: BaseException) -> None:
        for name, value in attributes.items():
            got = getattr(exc, name, None)
            check(got == value, f"{name} is {got!r}, not {value!r}: {exc}")
    return look


def segfault_task() -> None:
    ctypes.string_at(0)


def has_trace(exc: BaseException) -> None:
    has(signal=signal.SIGSEGV)(exc)
    text = getattr(exc, "traceback", None) or ""
    check("segfault_task" in text, f"the traceback of the crash does not name the function: {text}")


@row("segmentation fault", raises="WorkerDied")
def segfault(ctx: Context) -> None:
    ctx.one_fault(segfault_task, verify=has_trace)


@row("os._exit(3)", raises="WorkerDied")
def os_exit(ctx: Context) -> None:
    ctx.one_fault(functools.partial(os._exit, 3), verify=has(exit_code=3))


@row("os._exit(0)", raises="WorkerDied")
def os_exit_0(ctx: Context) -> None:
    ctx.one_fault(functools.partial(os._exit, 0))


def kill_me(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


@row("SIGKILL", raises="WorkerDied")
def sigkill(ctx: Context) -> None:
    ctx.one_fault(kill_me, verify=has(signal=signal.SIGKILL))


@row("SIGTERM", raises="WorkerDied")
def sigterm(ctx: Context) -> None:
    ctx.one_fault(functools.partial(kill_me, signal.SIGTERM), verify=has(signal=signal.SIGTERM))


@row("abort()", raises="WorkerDied")
def abort(ctx: Context) -> None:
    ctx.one_fault(os.abort, verify=has(signal=signal.SIGABRT))


def overflow_stack() -> None:
    # The C library's parser goes down one level for each parenthesis.
    ctypes.CDLL(None).regcomp(ctypes.create_string_buffer(4096), b"(" * 5_000_000, 1)


@row("stack overflow in C", raises="WorkerDied")
def stack_overflow(ctx: Context) -> None:
    ctx.one_fault(overflow_stack, verify=has(signal=signal.SIGSEGV))


def endless_recursion() -> None:
    endless_recursion()


@row("endless recursion in Python", raises="RecursionError")
def recursion(ctx: Context) -> None:
    ctx.one_fault(endless_recursion)


def eat_memory() -> int:
    hoard = bytearray(2 << 30)
    hoard[::4096] = b"x" * (len(hoard) // 4096)
    return len(hoard)


@row("more memory than `memory=` allows", raises="MemoryError|WorkerDied")
def memory_limit(ctx: Context) -> None:
    ctx.one_fault(eat_memory, settings={"memory": 512 << 20})


def burn_cpu() -> None:
    while True:
        pass


@row("more CPU time than `cpu_time=` allows", raises="WorkerDied")
def cpu_limit(ctx: Context) -> None:
    # In whole seconds of CPU; when that is depends on who else runs here.
    with ctx.pool(cpu_time=1) as pool:
        future = pool.submit(burn_cpu)
        ctx.expect(ctx.exception_of(future, 60 * SLOW))
        ctx.works(pool)


# --- something cannot be carried over -------------------------------------------------------------


class AwkwardError(Exception):
    """Pickles well, and cannot be made again: one argument is not enough."""

    def __init__(self, one: Any, two: Any) -> None:
        super().__init__(one)


class StuckError(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("stuck")
        self.lock = threading.Lock()


class Unpickled:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class Unpicklable:
    """Raises when it is pickled."""

    def __init__(self, kind: type = ValueError) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        raise self.kind("not to be pickled")


def raise_value(kind: Any = ValueError) -> None:
    raise kind("raised while unpickling")


def raise_awkward() -> None:
    raise AwkwardError(1, 2)


def raise_stuck() -> None:
    raise StuckError


def names(word: str) -> Any:
    """A verify: the text says what it was about."""
    def look(exc: BaseException) -> None:
        text = f"{exc} {exc.__cause__} {getattr(exc, '__notes__', '')}"
        check(word in text, f"nothing about {word} in: {text}")
    return look


@row("exception that cannot be unpickled", raises="TransferError")
def exception_unpickle(ctx: Context) -> None:
    ctx.one_fault(raise_awkward, verify=names("AwkwardError"))


@row("exception that cannot be pickled", raises="TransferError")
def exception_pickle(ctx: Context) -> None:
    ctx.one_fault(raise_stuck, verify=names("StuckError"))


@row("result that cannot be pickled", raises="TransferError|TypeError")
def result_pickle(ctx: Context) -> None:
    ctx.one_fault(threading.Lock, verify=names("lock"))


@row("result that raises while it is pickled", raises="TransferError|ValueError")
def result_pickle_raises(ctx: Context) -> None:
    ctx.one_fault(Unpicklable, verify=names("not to be pickled"))


def bad_result() -> Unpickled:
    return Unpickled(raise_value)


@row("result that raises while it is unpickled", raises="TransferError")
def result_unpickle(ctx: Context) -> None:
    ctx.one_fault(bad_result, verify=names("raised while unpickling"))


def exiting_result() -> Unpickled:
    return Unpickled(sys.exit, 1)


@row("result that calls sys.exit while it is unpickled", raises="TransferError")
def result_unpickle_exit(ctx: Context) -> None:
    ctx.one_fault(exiting_result)


def interrupting_result() -> Unpickled:
    return Unpickled(raise_value, KeyboardInterrupt)


@row("result that raises KeyboardInterrupt while it is unpickled",
     raises="TransferError|KeyboardInterrupt")
def result_unpickle_interrupt(ctx: Context) -> None:
    # It cannot be told from Ctrl-C in that moment, so it gets through as it is.
    ctx.one_fault(interrupting_result)


@row("result that kills the program while it is unpickled", limit=40)
def result_crash(ctx: Context) -> None:
    # Unpickling runs what the worker says: the program is gone, but nothing else is left.
    ctx.run("import faults\n"
            "with pool() as p:\n"
            "    p.submit(faults.crashing_result).result()\n", code=-signal.SIGSEGV)
    ctx.timed(ctx.alone())
    ctx.note("the program dies, as with pickle.loads; no process is left")


def crashing_result() -> Unpickled:
    return Unpickled(segfault_task)


def take(folder: str, item: Any) -> Any:
    """A task whose argument may be at fault."""
    return faultkit.good(folder, item)


def argument_row(ctx: Context, bad: Any, verify: Any = None) -> None:
    """bad as the argument of one submit among many, and as an item of a map."""
    with ctx.pool() as pool:
        ctx.works(pool)
        others = [pool.submit(take, ctx.folder, i) for i in range(10)]
        began = time.monotonic()
        try:
            future = pool.submit(take, ctx.folder, bad)
        except Exception as exc:  # noqa: BLE001
            got: Any = exc
            ctx.note("raised by submit")
        else:
            got = ctx.exception_of(future)
        ctx.timed(time.monotonic() - began)
        others += [pool.submit(take, ctx.folder, i) for i in range(10, 30)]
        ctx.expect(got)
        if verify:
            verify(got)
        for i, other in enumerate(others):
            check(ctx.exception_of(other) is None, f"another task: {other.exception()!r}")
            check(other.result() == i * i, f"a wrong result: {other.result()!r}")
        ctx.ran_once(range(30))
        ctx.works(pool)
        ctx.forget()
        argument_in_map(ctx, pool, bad)
        ctx.works(pool)


def argument_in_map(ctx: Context, pool: Any, bad: Any) -> None:
    got: list[Any] = []
    results = iter(pool.map(functools.partial(take, ctx.folder),
                            [bad if i == 23 else i for i in range(60)]))
    while len(got) < 100:
        try:
            got.append(next(results))
        except StopIteration:
            break
        except BaseException as exc:  # noqa: BLE001
            got.append(exc)
    check(len(got) == 60, f"a map of 60 gave {len(got)}: {got[-1]!r}")
    ctx.expect(got[23] if isinstance(got[23], BaseException) else None)
    for i, value in enumerate(got):
        check(i == 23 or value == i * i, f"item {i} of the map: {value!r}")
    ctx.ran_once(i for i in range(60) if i != 23)


@row("argument that raises while it is unpickled", raises="TransferError")
def argument_raises(ctx: Context) -> None:
    argument_row(ctx, Unpickled(raise_value), names("raised while unpickling"))


@row("argument that crashes while it is unpickled", raises="WorkerDied")
def argument_crashes(ctx: Context) -> None:
    argument_row(ctx, Unpickled(segfault_task), has(signal=signal.SIGSEGV))


@row("argument that calls os._exit(7) while it is unpickled", raises="WorkerDied")
def argument_exits(ctx: Context) -> None:
    argument_row(ctx, Unpickled(os._exit, 7), has(exit_code=7))


@row("argument that calls sys.exit while it is unpickled", raises="TransferError")
def argument_sys_exit(ctx: Context) -> None:
    argument_row(ctx, Unpickled(sys.exit, 7))


@row("argument that cannot be pickled", raises="TransferError|TypeError")
def argument_pickle(ctx: Context) -> None:
    argument_row(ctx, threading.Lock(), names("lock"))


@row("argument that raises while it is pickled", raises="TransferError|ValueError")
def argument_pickle_raises(ctx: Context) -> None:
    argument_row(ctx, Unpicklable(), names("not to be pickled"))


@row("function that cannot be pickled", raises="TransferError|TypeError")
def function_pickle(ctx: Context) -> None:
    lock = threading.Lock()

    def closure() -> bool:
        return lock.locked()

    with ctx.pool() as pool:
        others = [pool.submit(faultkit.good, ctx.folder, i) for i in range(20)]
        began = time.monotonic()
        try:
            future = pool.submit(closure)
        except Exception as exc:  # noqa: BLE001
            got: Any = exc
            ctx.note("raised by submit")
        else:
            got = ctx.exception_of(future)
        if got is None and ctx.start == "fork":
            check(future.result() is False, "the lock came as it was")
            ctx.note("works: the lock was there when the pool was made")
        else:
            ctx.timed(time.monotonic() - began)
            ctx.expect(got)
        check([f.result(faultkit.HANG) for f in others] == [i * i for i in range(20)], "others")
        ctx.works(pool)


class Unimportable:
    """Calls itself what no module has."""

    __name__ = __qualname__ = "nowhere_to_be_found"
    __module__ = "module_that_does_not_exist"

    def __call__(self) -> None:
        pass

    def __reduce__(self) -> str:
        return "nowhere_to_be_found"


@row("function of a module that workers do not find", raises="TransferError|PicklingError|"
     "ModuleNotFoundError|WorkerDied")
def function_missing(ctx: Context) -> None:
    with ctx.pool() as pool:
        ctx.works(pool)
        began = time.monotonic()
        try:
            got = ctx.exception_of(pool.submit(Unimportable()))
        except Exception as exc:  # noqa: BLE001
            got = exc
            ctx.note("raised by submit")
        ctx.timed(time.monotonic() - began)
        ctx.expect(got)
        ctx.works(pool)


# --- a task does not end --------------------------------------------------------------------------


def endless() -> None:
    while True:
        time.sleep(0.01)


def endless_in_c() -> None:
    """Keeps the GIL, blocks all signals, never looks at one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    collections.deque(itertools.repeat(0), maxlen=0)


@row("endless task, with a timeout", raises="TaskTimeout")
def endless_task(ctx: Context) -> None:
    ctx.one_fault(endless, timeout=LATE_S, after=LATE_S)


@row("endless loop in C, all signals blocked, with a timeout", raises="TaskTimeout")
def endless_c(ctx: Context) -> None:
    ctx.one_fault(endless_in_c, timeout=LATE_S, after=LATE_S)


def ignores_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            endless()
        except BaseException:  # noqa: BLE001 - as stubborn as can be
            pass


@row("task that ignores signals and catches all, with a timeout", raises="TaskTimeout")
def stubborn(ctx: Context) -> None:
    ctx.one_fault(ignores_signals, timeout=LATE_S, after=LATE_S)


def stop_me() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@row("SIGSTOP, with a timeout", raises="TaskTimeout")
def stopped(ctx: Context) -> None:
    ctx.one_fault(stop_me, timeout=LATE_S, after=LATE_S)


def force(ctx: Context) -> Any:
    """Cancel a future once it runs."""
    def cancel(future: Any) -> None:
        path = f"{ctx.folder}/fault-at"
        wait_for(lambda: os.path.exists(path) and os.path.getsize(path), "the task runs")
        check(future.running(), "the future says it runs")
        check(not future.cancel(), "a running call cannot be cancelled without force")
        stamp(ctx.folder)
        check(future.cancel(force=True), "cancel(force=True) says no")
    return cancel


@row("cancel(force=True) of an endless task", raises="CancelledError")
def cancel_force(ctx: Context) -> None:
    ctx.one_fault(endless, then=force(ctx), mapped=False)


@row("cancel(force=True) of an endless loop in C", raises="CancelledError")
def cancel_force_c(ctx: Context) -> None:
    ctx.one_fault(endless_in_c, then=force(ctx), mapped=False)


@row("cancel(force=True) of a stopped worker", raises="CancelledError")
def cancel_force_stopped(ctx: Context) -> None:
    ctx.one_fault(stop_me, then=force(ctx), mapped=False)


# --- exceptions that are no errors ----------------------------------------------------------------


def leave() -> None:
    sys.exit("from a task")


def interrupt() -> None:
    raise KeyboardInterrupt("from a task")


@row("sys.exit in a task", raises="SystemExit")
def sys_exit(ctx: Context) -> None:
    ctx.one_fault(leave)


@row("KeyboardInterrupt raised by a task", raises="KeyboardInterrupt")
def keyboard_interrupt(ctx: Context) -> None:
    ctx.one_fault(interrupt)


def raise_generator_exit() -> None:
    raise GeneratorExit


@row("GeneratorExit raised by a task", raises="GeneratorExit")
def generator_exit(ctx: Context) -> None:
    ctx.one_fault(raise_generator_exit)


def raise_stop() -> None:
    raise StopIteration(5)


@row("StopIteration raised by a task", raises="StopIteration|RuntimeError")
def stop_iteration(ctx: Context) -> None:
    # A map's iterator would take it for its own end, so it must not raise it as it is there.
    ctx.one_fault(raise_stop, mapped=False)
    with ctx.pool() as pool:
        got = []
        results = iter(pool.map(stop_at_3, range(6)))
        try:
            for value in results:
                got.append(value)
            ctx.note(f"ends a map early, after {len(got)} of 6")
        except RuntimeError:
            ctx.note("RuntimeError in a map")
        ctx.works(pool)


def stop_at_3(item: int) -> int:
    if item == 3:
        raise StopIteration
    return item


if __name__ == "__main__":
    sys.exit(faultkit.main("faults"))
