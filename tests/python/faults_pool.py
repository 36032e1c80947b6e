# SPDX-License-Identifier: MIT
"""The fault table, pools: workers and the image die, initializers fail, pools are closed, Ctrl-C
and the death of the program, locks and forks, what tasks do to their worker, no descriptors.

Made as the rows of faults.py, which see: `python faults_pool.py [--start fresh] [ROW...]`.
"""

from __future__ import annotations

import concurrent.futures
import errno
import functools
import itertools
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import faultkit
from faultkit import SLOW, Context, Failed, check, noop, row, wait_for
from faults import endless, endless_in_c, segfault_task, stop_me  # noqa: F401 - for programs

# --- workers die ----------------------------------------------------------------------------------


def workers(pool: Any) -> list[int]:
    return sorted(pool.worker_ids())


def whole_again(pool: Any, count: int, dead: set[int]) -> None:
    wait_for(lambda: len(set(workers(pool)) - dead) == count, f"{count} new workers")


@row("worker killed while it is idle")
def idle_killed(ctx: Context) -> None:
    with ctx.pool() as pool:
        ctx.works(pool)
        wait_for(lambda: len(workers(pool)) == 2, "two workers")
        for _ in range(5):
            victim = workers(pool)[0]
            os.kill(victim, signal.SIGKILL)
            ctx.works(pool)
            whole_again(pool, 2, {victim})
        ctx.works(pool)


@row("all workers killed while they are idle")
def all_idle_killed(ctx: Context) -> None:
    with ctx.pool() as pool:
        ctx.works(pool)
        for _ in range(3):
            victims = set(workers(pool))
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            ctx.works(pool)
            whole_again(pool, 2, victims)


def nap(folder: str, item: int, seconds: float) -> int:
    faultkit.ledger(folder, item)
    time.sleep(seconds)
    return item


@row("all workers killed while they run tasks", raises="WorkerDied")
def all_killed(ctx: Context) -> None:
    with ctx.pool() as pool:
        ctx.works(pool)
        # The two that run are lost; those that wait are not.
        futures = [pool.submit(nap, ctx.folder, i, 60 if i < 2 else 0) for i in range(20)]
        ledger = f"{ctx.folder}/ledger"
        wait_for(lambda: os.path.exists(ledger) and len(open(ledger).readlines()) == 2, "both run")
        began = time.monotonic()
        for pid in workers(pool):
            os.kill(pid, signal.SIGKILL)
        for future in futures[:2]:
            ctx.expect(ctx.exception_of(future))
        ctx.timed(time.monotonic() - began)
        for i, future in enumerate(futures[2:], 2):
            check(ctx.exception_of(future) is None, f"task {i} waited: {future.exception()!r}")
            check(future.result() == i, "a result")
        ctx.ran_once(range(20))
        ctx.works(pool)


@row("all workers killed 10 times during a map", raises="WorkerDied")
def map_killed(ctx: Context) -> None:
    with ctx.pool() as pool:
        ctx.works(pool)
        lost = right = 0
        results = iter(pool.map(slow_square, range(400)))
        for i in itertools.count():
            try:
                value = next(results)
            except StopIteration:
                break
            except Exception as exc:  # noqa: BLE001
                ctx.expect(exc)
                lost += 1
            else:
                check(value == i * i, f"item {i}: {value}")
                right += 1
            if i % 40 == 20:
                for pid in workers(pool):
                    os.kill(pid, signal.SIGKILL)
        check(lost + right == 400, f"400 items, {right} right, {lost} lost")
        check(lost <= 20, f"20 workers were killed, {lost} items were lost")
        ctx.works(pool)


def slow_square(item: int) -> int:
    time.sleep(0.002)
    return item * item


@row("a call with retries=1 whose worker dies once")
def retried(ctx: Context) -> None:
    with ctx.pool() as pool:
        check(pool.submit(die_once, f"{ctx.folder}/died", retries=1).result(faultkit.HANG) == 2,
              "the second run's result")
        got = ctx.exception_of(pool.submit(os._exit, 1, retries=3))
        ctx.expect(got, "WorkerDied")
        ctx.works(pool)


def die_once(path: str) -> int:
    with open(path, "a+") as file:
        file.write("x")
        file.flush()
        file.seek(0)
        times = len(file.read())
    if times == 1:
        os._exit(1)
    return times


@row("the image (template) killed")
def image_killed(ctx: Context) -> None:
    with ctx.pool() as pool:
        ctx.works(pool)
        futures = [pool.submit(nap, ctx.folder, i, 0.01) for i in range(30)]
        ours = {os.getpid(), *workers(pool)}
        others = [p for p in faultkit.members(os.getpid(), ctx.mark) if p not in ours]
        check(others, "there is an image")
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        for i, future in enumerate(futures):
            check(ctx.exception_of(future) is None, f"task {i}: {future.exception()!r}")
        # The next workers come from a new one.
        for _ in range(3):
            victims = set(workers(pool))
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            ctx.works(pool)
            whole_again(pool, 2, victims)


# --- the beginning and the end of a pool ----------------------------------------------------------


def bad_initializer() -> None:
    raise ValueError("the initializer is not well")


def broken_pool(ctx: Context, initializer: Any, *words: str) -> None:
    """A pool that cannot start: each call says so, and another pool works."""
    began = time.monotonic()
    try:
        pool = ctx.pool(initializer=initializer)
    except Exception as exc:  # noqa: BLE001 - start="fork" starts there
        got = [exc]
        ctx.note("raised by Pool()")
    else:
        futures = [pool.submit(noop) for _ in range(5)]
        got = [ctx.exception_of(future) for future in futures]
        try:
            pool.submit(noop).result(faultkit.HANG)
            raise Failed("a later call works on a broken pool")
        except Failed:
            raise
        except Exception as exc:  # noqa: BLE001
            got.append(exc)
        pool.shutdown()
    ctx.seen["ms"] = round((time.monotonic() - began) * 1000, 1)
    ctx.note("ms: from Pool() on")
    for exc in got:
        ctx.expect(exc)
        text = "".join([str(exc), str(exc.__cause__)])
        for word in words:
            check(word in text, f"nothing about {word!r} in {text!r}")
    with ctx.pool() as pool:
        ctx.works(pool)


@row("initializer raises", raises="PoolBroken", noisy=True)
def initializer_raises(ctx: Context) -> None:
    broken_pool(ctx, bad_initializer, "the initializer is not well")


@row("initializer calls os._exit(5)", raises="PoolBroken")
def initializer_dies(ctx: Context) -> None:
    broken_pool(ctx, functools.partial(os._exit, 5))


@row("initializer crashes", raises="PoolBroken")
def initializer_crashes(ctx: Context) -> None:
    broken_pool(ctx, segfault_task)


@row("initializer hangs; Ctrl-C", raises="KeyboardInterrupt")
def initializer_hangs(ctx: Context) -> None:
    process = ctx.program("import faults_pool\n"
                          "p = pool(initializer=faults_pool.hang_at, initargs=(FOLDER + '/in',))\n"
                          "p.submit(noop).result()\n")
    wait_for(lambda: os.path.exists(f"{ctx.folder}/in"), "the initializer runs")
    interrupted(ctx, process)


def hang_at(path: str) -> None:
    open(path, "w").close()
    endless()


@row("initializer hangs; shutdown(kill=True)", starts=("fresh",), raises="CancelledError")
def initializer_hangs_kill(ctx: Context) -> None:
    pool = ctx.pool(initializer=hang_at, initargs=(f"{ctx.folder}/in",))
    future = pool.submit(noop)
    wait_for(lambda: os.path.exists(f"{ctx.folder}/in"), "the initializer runs")
    began = time.monotonic()
    pool.shutdown(kill=True)
    ctx.expect(ctx.exception_of(future))
    ctx.timed(time.monotonic() - began)


@row("`preload=` names a module that is not there", starts=("fresh",), raises="PoolBroken")
def preload_missing(ctx: Context) -> None:
    pool = ctx.pool(preload=["a_module_that_is_not_there"])
    got = ctx.expect(ctx.exception_of(pool.submit(noop)))
    check("a_module_that_is_not_there" in str(got), f"names the module: {got}")
    pool.shutdown()


@row("shutdown while tasks run: they are waited for")
def close_waits(ctx: Context) -> None:
    pool = ctx.pool()
    futures = [pool.submit(nap, ctx.folder, i, 0.1) for i in range(6)]
    pool.shutdown(wait=True)
    check([f.result(0) for f in futures] == list(range(6)), "all have ended")
    ctx.ran_once(range(6))


@row("shutdown(cancel_futures=True) while tasks run", raises="CancelledError")
def close_cancels(ctx: Context) -> None:
    pool = ctx.pool()
    ctx.works(pool)
    futures = [pool.submit(nap, ctx.folder, i, 0.3) for i in range(200)]
    ledger = f"{ctx.folder}/ledger"
    wait_for(lambda: os.path.exists(ledger) and len(open(ledger).readlines()) >= 2, "both run")
    began = time.monotonic()
    pool.shutdown(wait=True, cancel_futures=True)
    took = time.monotonic() - began
    check(took < 5 * SLOW, f"shutdown took {took:.2f} s")
    cancelled = [f for f in futures if f.cancelled()]
    check(all(f.done() for f in futures), "all are done")
    check(len(cancelled) >= 190, f"{len(cancelled)} of 200 were cancelled")
    check(not futures[0].cancelled() and futures[0].result() == 0, "what ran has ended well")
    ctx.expect(ctx.exception_of(cancelled[0]))


@row("shutdown(kill=True) while tasks run", raises="WorkerDied|CancelledError")
def close_kills(ctx: Context) -> None:
    pool = ctx.pool()
    ctx.works(pool)
    futures = [pool.submit(endless) for _ in range(20)]
    wait_for(futures[0].running, "the first runs")
    began = time.monotonic()
    pool.shutdown(kill=True)
    ctx.timed(time.monotonic() - began)
    for future in futures:
        check(future.done(), "all are done")
        ctx.expect(ctx.exception_of(future))


@row("`with` left by an exception while endless tasks run: KeyboardInterrupt", limit=30)
def with_interrupted(ctx: Context) -> None:
    try:
        with ctx.pool() as pool:
            ctx.works(pool)
            futures = [pool.submit(endless) for _ in range(4)]
            wait_for(futures[0].running, "the first runs")
            began = time.monotonic()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        ctx.timed(time.monotonic() - began)
    check(all(f.done() for f in futures), "all are done")


@row("submit after shutdown", raises="RuntimeError")
def submit_late(ctx: Context) -> None:
    pool = ctx.pool()
    ctx.works(pool)
    pool.shutdown()
    for call in (lambda: pool.submit(noop), lambda: list(pool.map(noop, [1]))):
        try:
            call()
        except RuntimeError as exc:
            ctx.expect(exc)
        else:
            raise Failed("a call on a closed pool is taken")
    pool.shutdown()


# --- Ctrl-C and the end of the program ------------------------------------------------------------

CTRL_C = {
    "map": "with pool() as p:\n    list(p.map(task, range(6)))\n",
    "plain map": "p = pool()\nlist(p.map(task, range(6)))\n",
    "result": "p = pool()\nf = [p.submit(task, i) for i in range(6)]\nf[0].result()\n",
    "wait": ("import concurrent.futures\np = pool()\n"
             "concurrent.futures.wait([p.submit(task, i) for i in range(6)])\n"),
    "shutdown": "p = pool()\nfor i in range(6): p.submit(task, i)\np.shutdown()\n",
    "end": "p = pool()\nfor i in range(6): p.submit(task, i)\n",
    "asyncio": ("import asyncio\nasync def main():\n    p = pool()\n"
                "    await asyncio.gather(*[p.run(task, i) for i in range(6)])\n"
                "asyncio.run(main())\n"),
}
TASK = "def task(i):\n    ledger(FOLDER, i)\n    time.sleep(30)\n    return i\n"


def interrupted(ctx: Context, process: subprocess.Popen, group: bool = False) -> None:
    """Ctrl-C: the program ends soon, by it, with one traceback and no word from a worker."""
    began = time.monotonic()
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=faultkit.HANG)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failed(f"Ctrl-C: hangs; {process.communicate()[1][-1000:]}") from None
    took = time.monotonic() - began
    ctx.seen["ms"] = max(ctx.seen.get("ms", 0), round(took * 1000, 1))
    check(took < 5 * SLOW, f"{took:.2f} s from Ctrl-C to exit")
    check(process.returncode == -signal.SIGINT, f"exit code {process.returncode}: {err[-2000:]}")
    check("KeyboardInterrupt" in err, f"no KeyboardInterrupt: {err[-2000:]}")
    ctx.seen["raised"] = "KeyboardInterrupt"
    spam = [w for w in ("Exception ignored", "Fatal Python", "yoke-worker", "SystemExit", "ForkPr")
            if w in err]
    many = err.count("Traceback (most recent call last)")
    many -= err.count("During handling of the above exception")  # asyncio's
    check(many <= 1 and not spam, f"{many} tracebacks, {spam}: {err[-3000:]}")
    ctx.alone()


def ctrl_c_row(ctx: Context, *forms: str) -> None:
    for form in forms:
        for group in (True, False):
            ctx.forget()
            process = ctx.program(TASK + CTRL_C[form], start_new_session=True)
            ledger = f"{ctx.folder}/ledger"
            wait_for(lambda: os.path.exists(ledger) and len(open(ledger).readlines()) >= 2,
                     "two tasks run")
            try:
                interrupted(ctx, process, group)
            except Failed as exc:
                raise Failed(f"{form}, group={group}: {exc}") from None


@row("Ctrl-C during a map of 30 s sleeps, to the exit of the program", raises="KeyboardInterrupt")
def ctrl_c(ctx: Context) -> None:
    ctrl_c_row(ctx, "map", "plain map")


@row("Ctrl-C in result(), wait(), shutdown()", raises="KeyboardInterrupt")
def ctrl_c_waits(ctx: Context) -> None:
    ctrl_c_row(ctx, "result", "wait", "shutdown")


@row("Ctrl-C in asyncio", raises="KeyboardInterrupt")
def ctrl_c_asyncio(ctx: Context) -> None:
    ctrl_c_row(ctx, "asyncio")


@row("Ctrl-C while the end of the program waits for tasks", raises="KeyboardInterrupt", noisy=True)
def ctrl_c_end(ctx: Context) -> None:
    process = ctx.program(TASK + CTRL_C["end"], start_new_session=True)
    ledger = f"{ctx.folder}/ledger"
    wait_for(lambda: os.path.exists(ledger) and len(open(ledger).readlines()) >= 2, "two run")
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, err = process.communicate(timeout=faultkit.HANG)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failed("hangs") from None
    ctx.seen["ms"] = round((time.monotonic() - began) * 1000, 1)
    check(ctx.seen["ms"] < 5000 * SLOW, f"{ctx.seen['ms']} ms from Ctrl-C to exit")
    ctx.note(f"exit code {process.returncode}")
    ctx.alone()


@row("program killed by SIGKILL")
def program_killed(ctx: Context) -> None:
    # Workers that sleep, loop in C with signals blocked, and are stopped.
    for source in ("nap_forever", "endless_in_c", "stop_me"):
        process = ctx.program("import faults_pool\np = pool()\np.submit(noop).result()\n"
                              f"for i in range(6): p.submit(faults_pool.{source})\n"
                              "time.sleep(0.1)\nprint('ready', flush=True)\ntime.sleep(600)\n",
                              start_new_session=True)
        assert process.stdout
        check(process.stdout.readline() == "ready\n", "the program is ready")
        process.kill()
        process.wait()
        ctx.seen["ms"] = max(ctx.seen.get("ms", 0), round(ctx.alone() * 1000, 1))


def nap_forever() -> None:
    time.sleep(600)


@row("program killed by SIGKILL while its pool starts")
def program_killed_early(ctx: Context) -> None:
    for delay in (0.0, 0.01, 0.03, 0.06):
        process = ctx.program("print('ready', flush=True)\np = pool()\n"
                              "p.submit(noop).result()\ntime.sleep(600)\n",
                              start_new_session=True)
        assert process.stdout
        check(process.stdout.readline() == "ready\n", "the program is ready")
        time.sleep(delay)  # no condition to wait for: any moment will do
        process.kill()
        process.wait()
        ctx.seen["ms"] = max(ctx.seen.get("ms", 0), round(ctx.alone() * 1000, 1))


@row("program ends by os._exit while tasks run")
def program_exits(ctx: Context) -> None:
    ctx.run("import faults_pool\np = pool()\np.submit(noop).result()\n"
            "for i in range(6): p.submit(faults_pool.nap_forever)\nos._exit(0)\n")
    ctx.seen["ms"] = round(ctx.alone() * 1000, 1)


@row("program ends by an exception while tasks run")
def program_raises(ctx: Context) -> None:
    out = ctx.run("p = pool()\n"
                  "f = p.submit(good, FOLDER, 5)\nraise ValueError('the end')\n", code=1,
                  quiet=False)
    check(not out, out)
    ctx.alone()


# --- locks and forks ------------------------------------------------------------------------------

LOCK = threading.Lock()


def take_lock() -> bool:
    with LOCK:
        return True


@row("a thread holds a lock while the pool is made, and a task takes it")
def lock_held(ctx: Context) -> None:
    held, done = threading.Event(), threading.Event()

    def holder() -> None:
        with LOCK:
            held.set()
            done.wait()
    thread = threading.Thread(target=holder)
    thread.start()
    try:
        held.wait()
        with ctx.pool() as pool:
            ctx.works(pool)
            future = pool.submit(take_lock, timeout=1)
            got = ctx.exception_of(future)
            if ctx.start == "fresh":
                check(got is None and future.result(), f"the task has a lock of its own: {got!r}")
            else:
                ctx.expect(got, "TaskTimeout")
                ctx.note("the copy of the lock is held for ever; timeout=1 ends the task")
            ctx.works(pool)
    finally:
        done.set()
        thread.join()


def use_locks_of_the_interpreter(folder: str, item: int) -> int:
    """Logging, importing, printing, allocating: each has locks that another thread may hold."""
    import importlib
    logging.getLogger("faults").debug("item %d", item)
    logging.getLogger(f"faults.{item}").setLevel(logging.ERROR)
    importlib.reload(importlib.import_module("colorsys"))
    sys.stdout.write("")
    sys.stdout.flush()
    sys.stderr.flush()
    return faultkit.good(folder, item)


@row("threads log, import, print and allocate while the pool is made")
def busy_threads(ctx: Context) -> None:
    stop = threading.Event()

    def busy(number: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            logging.getLogger(f"busy.{number}.{n % 50}").debug("word")
            sys.stdout.write("")
            sys.stdout.flush()
            __import__(("colorsys", "keyword", "token")[n % 3])
            bytearray(100_000 + n % 1000)
    threads = [threading.Thread(target=busy, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(5):
            ctx.forget()
            with ctx.pool() as pool:
                got = list(pool.map(functools.partial(use_locks_of_the_interpreter, ctx.folder),
                                    range(20), timeout=20 * SLOW))
                check(got == [i * i for i in range(20)], f"turn {turn}: {got}")
                pool.submit(os._exit, 1)  # and a worker that is started later
                ctx.works(pool)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@row("fork() in the program while the pool is in use", raises="RuntimeError")
def fork_in_use(ctx: Context) -> None:
    with ctx.pool() as pool:
        futures = [pool.submit(nap, ctx.folder, i, 0.05) for i in range(20)]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                try:
                    pool.submit(noop)
                except RuntimeError as exc:
                    code = 0
                    with open(f"{ctx.folder}/child", "w") as file:
                        json.dump(type(exc).__name__, file)
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        check(status == 0, f"the child's use of the pool is an error: status {status:#x}")
        check([f.result(faultkit.HANG) for f in futures] == list(range(20)), "results")
        ctx.ran_once(range(20))
        with open(f"{ctx.folder}/child") as file:
            ctx.seen["raised"] = json.load(file)
        ctx.works(pool)


@row("fork() in the program; the child leaves the normal way")
def fork_exits(ctx: Context) -> None:
    out = ctx.run("p = pool()\n"
                  "f = [p.submit(good, FOLDER, i) for i in range(10)]\n"
                  "pid = os.fork()\n"
                  "if pid == 0: sys.exit(7)\n"
                  "check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, 'the code')\n"
                  "print([x.result() for x in f] == [i * i for i in range(10)])\n"
                  "p.shutdown()\n")
    check(out == "True\n", out)


@row("fork() in the program; the child makes a pool of its own")
def fork_then_pool(ctx: Context) -> None:
    out = ctx.run(
        "p = pool()\np.submit(noop).result()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        with pool() as mine: print(mine.submit(abs, -3).result(10), flush=True)\n"
        "    except (RuntimeError, OSError) as exc: print(type(exc).__name__, flush=True)\n"
        "    sys.exit(0)\n"
        "os.waitpid(pid, 0)\np.submit(noop).result()\np.shutdown()\n")
    check(out.strip() in ("3", "RuntimeError", "OSError", "PoolBroken"), out)
    ctx.note("works" if out.strip() == "3" else f"refused: {out.strip()}")


@row("fork() again and again in other threads while the pool is in use")
def fork_storm(ctx: Context) -> None:
    stop = threading.Event()

    def forks() -> None:
        while not stop.is_set():
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    thread = threading.Thread(target=forks)
    with ctx.pool() as pool:
        ctx.works(pool)
        thread.start()
        try:
            for _ in range(5):
                got = list(pool.map(abs, range(-500, 0), timeout=faultkit.HANG))
                check(got == list(range(500, 0, -1)), "results")
                ctx.expect(ctx.exception_of(pool.submit(os._exit, 1)), "WorkerDied")
            ctx.works(pool)
        finally:
            stop.set()
            thread.join()


# --- inside a worker ------------------------------------------------------------------------------


def yoke_pool_inside() -> list[int]:
    with faultkit.pool(start="fresh") as pool:
        return list(pool.map(abs, range(-5, 0)))


def multiprocessing_inside(method: str) -> list[int]:
    import multiprocessing
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, range(-5, 0))


def executor_inside() -> list[int]:
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        return list(pool.map(abs, range(-5, 0)))


def threads_inside() -> list[int]:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(abs, range(-5, 0)))


def program_inside() -> list[int]:
    subprocess.run(["true"], check=True)
    return [5, 4, 3, 2, 1]


@row("pool inside a worker")
def nested(ctx: Context) -> None:
    with ctx.pool() as pool:
        for inside, *args in ((threads_inside,), (program_inside,), (executor_inside,),
                              (multiprocessing_inside, "fork"), (yoke_pool_inside,)):
            future = pool.submit(inside, *args, timeout=30 * SLOW)
            got = ctx.exception_of(future, 40 * SLOW)
            if inside is yoke_pool_inside and got is not None:
                check(isinstance(got, RuntimeError), f"a clear error, not {got!r}")
                ctx.note(f"yoke.Pool in a worker: {type(got).__name__}")
                continue
            check(got is None, f"{inside.__name__}: {got!r}")
            check(future.result() == [5, 4, 3, 2, 1], f"{inside.__name__}: {future.result()}")
        ctx.works(pool)


def leave_children(path: str) -> int:
    child = subprocess.Popen(["sleep", "600"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    return child.pid


@row("a task leaves a thread running")
def thread_left(ctx: Context) -> None:
    with ctx.pool() as pool:
        for _ in range(4):
            check(pool.submit(start_thread).result(faultkit.HANG), "it runs")
        ctx.works(pool)


def start_thread() -> bool:
    thread = threading.Thread(target=time.sleep, args=(600,))
    thread.start()
    return thread.is_alive()


def close_stdout_fd() -> None:
    os.close(1)
    print("words that go nowhere", flush=True)


@row("worker prints after its descriptor 1 was closed", raises="OSError", noisy=True)
def stdout_closed(ctx: Context) -> None:
    with ctx.pool() as pool:
        got = ctx.exception_of(pool.submit(close_stdout_fd))
        if got is None:
            ctx.note("no exception: the words are lost")
        else:
            ctx.expect(got)
        for _ in range(4):
            pool.submit(print, "more", flush=False)
        ctx.works(pool, 20)


def close_stdout() -> None:
    sys.stdout.close()


@row("worker prints after sys.stdout.close()", raises="ValueError")
def stdout_object_closed(ctx: Context) -> None:
    with ctx.pool(workers=1) as pool:
        pool.submit(close_stdout).result(faultkit.HANG)
        ctx.expect(ctx.exception_of(pool.submit(print, "words")))
        ctx.works(pool, 20)


def close_all() -> None:
    os.closerange(3, 65536)


@row("task closes every descriptor of its worker")
def worker_closes_all(ctx: Context) -> None:
    with ctx.pool() as pool:
        for _ in range(4):
            got = ctx.exception_of(pool.submit(close_all))
            if got is not None:
                ctx.expect(got, "WorkerDied")
                ctx.note("the worker dies of it")
            ctx.works(pool)
        ctx.expect(ctx.exception_of(pool.submit(segfault_task)), "WorkerDied")
        ctx.works(pool)


# --- the program has no more descriptors ----------------------------------------------------------


def loaded(name: str) -> bool:
    """A module is there, and its import is over."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def use_up_descriptors() -> list[int]:
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        check(exc.errno == errno.EMFILE, f"out of descriptors: {exc}")
    return held


@row("no descriptor left in the program: tasks, a death, a new pool", raises="OSError|PoolBroken")
def no_descriptors(ctx: Context) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ctx.pool() as pool:
        ctx.works(pool)
        if "yoke" in sys.modules:  # a pool that has rested once has all that it needs to tell
            wait_for(lambda: loaded("yoke._outcomes"), "the exceptions are there")
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        held = use_up_descriptors()
        try:
            ctx.works(pool, 20)
            got = ctx.exception_of(pool.submit(segfault_task))
            refused = None
            try:
                with ctx.pool() as other:
                    refused = ctx.exception_of(other.submit(noop))
            except (OSError, RuntimeError) as exc:
                refused = exc
        finally:
            for fd in held:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        check(type(got).__name__ == "WorkerDied", f"a death without descriptors: {got!r}")
        if refused is None:
            ctx.note("a new pool works even so")
        else:
            ctx.expect(refused)
        ctx.works(pool)
    with ctx.pool() as pool:
        ctx.works(pool)


if __name__ == "__main__":
    sys.exit(faultkit.main("faults_pool"))
