# SPDX-License-Identifier: MIT
# timeout: 400
# asan: no
"""Programs that do what programs do: wait for children, close descriptors, take signals, change
their surroundings. The pool must work in them, or say what is wrong, and leave them alone.

Each is a script that runs exercise(), by itself, for each start. By hand:
`python test_hosts.py [--start fresh] [ROW...]`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import unittest
from typing import Any

import faultkit
import test_faults
from faultkit import HANG, Context, check, row


def square(item: int) -> int:
    return item * item


def segfault() -> None:
    ctypes.string_at(0)


def surroundings() -> dict[str, Any]:
    """What a worker sees."""
    import locale
    mask = os.umask(0)
    os.umask(mask)
    return {"umask": mask, "cwd": os.getcwd(), "affinity": sorted(os.sched_getaffinity(0)),
            "uid": os.getuid(), "groups": sorted(os.getgroups()),
            "optimize": sys.flags.optimize, "utf8": sys.flags.utf8_mode,
            "dev_mode": sys.flags.dev_mode, "isolated": sys.flags.isolated,
            "bytes_warning": sys.flags.bytes_warning, "stdout": getattr(sys.stdout, "encoding", 0),
            "filesystem": sys.getfilesystemencoding(), "locale": locale.setlocale(locale.LC_ALL),
            "digits": sys.get_int_max_str_digits(), "nice": os.nice(0),
            "sigpipe": signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN}


def exercise(pool: Any, dies: bool = True) -> None:
    """All that a pool does, in a second."""
    import concurrent.futures
    check(pool.submit(square, 5).result(HANG) == 25, "submit")
    got = list(pool.map(square, range(300), timeout=HANG))
    check(got == [i * i for i in range(300)], f"map: {got}")
    data = os.urandom(200_000)
    check(pool.submit(bytes.upper, data).result(HANG) == data.upper(), "bytes")
    check(pool.submit("grün {}".format, "é€").result(HANG) == "grün é€", "text")
    futures = [pool.submit(square, i) for i in range(50)]
    done, _ = concurrent.futures.wait(futures, timeout=HANG)
    check(len(done) == 50, "wait")
    if not dies or os.environ.get("YOKE_FAULT_BACKEND"):
        return
    exc = pool.submit(segfault).exception(HANG)
    check(type(exc).__name__ == "WorkerDied", f"a death: {exc!r}")
    check(exc.signal in (signal.SIGSEGV, None, 0), f"its signal: {exc.signal}")
    exc = pool.submit(os._exit, 3).exception(HANG)
    check(type(exc).__name__ == "WorkerDied", f"an exit: {exc!r}")
    check(exc.exit_code in (3, None, -1), f"its code: {exc.exit_code}")
    exc = pool.submit(signal.pause, timeout=0.2).exception(HANG)
    check(type(exc).__name__ == "TaskTimeout", f"a timeout: {exc!r}")
    check(pool.submit(square, 5).result(HANG) == 25, "submit after that")


PROGRAMS_ONLY = True  # no row makes a pool in its own process
USE = "from test_hosts import HANG, exercise, segfault, square, surroundings\n"
PLAIN = USE + "with pool() as p: exercise(p)\nprint('good')\n"


def good(ctx: Context, source: str, *flags: str, **options: Any) -> str:
    """Run a script that says good in the end; what it printed before."""
    out = ctx.run(USE + source + "\nprint('good')\n", *flags, **options)
    check(out.endswith("good\n"), f"printed {out!r}")
    return out[:-len("good\n")]


# --- who waits for children -----------------------------------------------------------------------

WAITER = """
stop = threading.Event()
taken = []
def waits():
    while not stop.is_set():
        try: taken.append({call})
        except ChildProcessError: stop.wait(0.001)
t = threading.Thread(target=waits, daemon=True)
"""


@row("os.wait() in a thread, begun before the pool")
def waits_before(ctx: Context) -> None:
    good(ctx, WAITER.format(call="os.wait()") +
         "t.start()\nfor _ in range(3):\n    with pool() as p: exercise(p)\nstop.set(); t.join()\n")


@row("waitpid(-1) in a thread, begun after the pool")
def waits_after(ctx: Context) -> None:
    good(ctx, WAITER.format(call="os.waitpid(-1, os.WNOHANG)") +
         "with pool() as p:\n    p.submit(square, 1).result()\n    t.start()\n    exercise(p)\n"
         "    exercise(p)\nstop.set(); t.join()\n")


@row("a child of the program's own, and os.wait() for it")
def waits_own(ctx: Context) -> None:
    good(ctx, "with pool() as p:\n    exercise(p, dies=False)\n"
         "    pid = os.fork()\n    if pid == 0: os._exit(9)\n"
         "    got, status = os.waitpid(pid, 0)\n"
         "    check(got == pid and os.waitstatus_to_exitcode(status) == 9, (got, status))\n"
         "    exercise(p)\n")


@row("SIGCHLD ignored, before the pool")
def sigchld_ignored(ctx: Context) -> None:
    good(ctx, "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwith pool() as p: exercise(p)\n")


@row("SIGCHLD ignored, after the pool")
def sigchld_ignored_late(ctx: Context) -> None:
    good(ctx, "with pool() as p:\n    p.submit(square, 1).result()\n"
         "    signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n    exercise(p)\n")


@row("a handler of SIGCHLD that waits for all")
def sigchld_handler(ctx: Context) -> None:
    good(ctx, """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
signal.signal(signal.SIGCHLD, reap)
with pool() as p: exercise(p)
""")


@row("subprocess at the same time")
def with_subprocess(ctx: Context) -> None:
    good(ctx, """
stop, wrong, runs = threading.Event(), [], []
def runs_programs():
    while not stop.is_set():
        code = subprocess.run(['sh', '-c', 'exit 7']).returncode
        runs.append(code)
t = threading.Thread(target=runs_programs)
t.start()
try:
    for _ in range(2):
        with pool() as p: exercise(p)
finally: stop.set(); t.join()
check(runs and set(runs) == {7}, runs)
""")


@row("asyncio's subprocesses at the same time")
def with_asyncio(ctx: Context) -> None:
    good(ctx, """
import asyncio
async def program():
    p = await asyncio.create_subprocess_exec('sh', '-c', 'echo word; exit 7', stdout=-1)
    out, _ = await p.communicate()
    return p.returncode, out
async def main():
    with pool() as p:
        for _ in range(5):
            got = await asyncio.gather(*[program() for _ in range(4)],
                                       *[p.run(square, i) for i in range(20)])
            check(got == [(7, b'word\\n')] * 4 + [i * i for i in range(20)], got)
            try: await p.run(os._exit, 3)
            except Exception as exc: check(type(exc).__name__ == 'WorkerDied', repr(exc))
            else: check(False, 'a death')
asyncio.run(main())
""")


@row("multiprocessing at the same time")
def with_multiprocessing(ctx: Context) -> None:
    good(ctx, """
import multiprocessing
with pool() as p:
    with multiprocessing.get_context('fork').Pool(2) as m:
        check(m.map(square, range(50)) == [i * i for i in range(50)], 'map')
        exercise(p)
    check(multiprocessing.active_children() == [], multiprocessing.active_children())
""")


# --- signals --------------------------------------------------------------------------------------


@row("signal.set_wakeup_fd")
def wakeup_fd(ctx: Context) -> None:
    good(ctx, """
import socket
ours, theirs = socket.socketpair()
ours.setblocking(False); theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
signal.signal(signal.SIGUSR1, lambda *_: None)
def in_worker(): return signal.set_wakeup_fd(-1)
with pool() as p:
    exercise(p)
    check(p.submit(in_worker).result() == -1, 'workers do not write there')
    for pid in p.worker_ids():
        os.kill(pid, signal.SIGUSR1)
    p.submit(square, 1).exception()
check(signal.set_wakeup_fd(-1) == theirs.fileno(), 'it is as it was')
try: check(not ours.recv(99), 'nothing was written')
except BlockingIOError: pass
""")


STORM = """
count = 0
def tick(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
with pool() as p:
    for _ in range(3): exercise(p)
    for _ in range(300): p.submit(square, 3).result()
    before = count
    p.submit(time.sleep, 0.1).result()
    check(count > before, 'handlers run while result() waits')
with pool() as p: p.submit(square, 3).result()
signal.setitimer(signal.ITIMER_REAL, 0, 0)
check(count > 100, count)
"""


@row("setitimer: a signal each half millisecond")
def timer_storm(ctx: Context) -> None:
    good(ctx, STORM)


@row("the same with system calls that are not begun again")
def timer_storm_eintr(ctx: Context) -> None:
    good(ctx, STORM.replace("signal.setitimer(signal.ITIMER_REAL, 0.0005",
                            "signal.siginterrupt(signal.SIGALRM, True)\n"
                            "signal.setitimer(signal.ITIMER_REAL, 0.0005", 1))


@row("a handler that raises while result() waits", raises="ValueError")
def handler_raises(ctx: Context) -> None:
    out = good(ctx, """
class Enough(ValueError): pass
def enough(*_): raise Enough
signal.signal(signal.SIGALRM, enough)
with pool() as p:
    p.submit(square, 2).result()
    f = p.submit(time.sleep, 0.5)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try: f.result()
    except Enough: print(round((time.monotonic() - began - 0.05) * 1000, 1))
    f.result()
    exercise(p)
""")
    ctx.seen.update(raised="ValueError", ms=float(out))
    check(float(out) < 300 * faultkit.SLOW, f"the handler's exception came after {out} ms")


@row("signals blocked in the thread that makes the pool")
def signals_blocked(ctx: Context) -> None:
    good(ctx, """
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
with pool() as p:
    exercise(p)
    exc = p.submit(signal.raise_signal, signal.SIGTERM).exception(10)
    check(exc.signal == signal.SIGTERM, 'workers do not have them blocked')
""")


@row("handlers of the program do not run in workers")
def handlers_stay(ctx: Context) -> None:
    good(ctx, """
def handler(*_):
    open(FOLDER + '/handled', 'w').close()
signal.signal(signal.SIGTERM, handler)
signal.signal(signal.SIGUSR1, handler)
with pool() as p:
    p.submit(square, 2).result()
    exc = p.submit(signal.raise_signal, signal.SIGTERM).exception(10)
    check(type(exc).__name__ == 'WorkerDied', repr(exc))
    check(not os.path.exists(FOLDER + '/handled'), 'handled')
    exercise(p)
""")


@row("SIGINT ignored in the program: it stays so")
def sigint_ignored(ctx: Context) -> None:
    good(ctx, """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with pool() as p:
    f = p.submit(time.sleep, 0.3)
    os.kill(0, signal.SIGINT)
    f.result()
    exercise(p)
check(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, 'ignored')
""", start_new_session=True)


@row("the pool leaves the program's handlers alone")
def handlers_kept(ctx: Context) -> None:
    good(ctx, """
def state(): return {s: signal.getsignal(s) for s in signal.valid_signals()}
before = state()
with pool() as p:
    exercise(p)
    check(state() == before, 'while it works')
check(state() == before, 'afterwards')
import faulthandler
check(not faulthandler.is_enabled(), 'faulthandler is not for the pool to switch on')
""")


# --- descriptors ----------------------------------------------------------------------------------


@row("os.closerange(3, 256) after the pool was made: tasks, no deaths")
def closerange(ctx: Context) -> None:
    ctx.run(USE + """
p = pool()
p.submit(square, 2).result()
os.closerange(3, 256)
exercise(p, dies=False)
os._exit(0)
""")


@row("the same, and a worker dies, and shutdown", limit=8,
     known="a death is not seen any more, and shutdown waits for ever")
def closerange_deaths(ctx: Context) -> None:
    ctx.run(USE + """
p = pool()
p.submit(square, 2).result()
os.closerange(3, 256)
try: exercise(p)
except (OSError, RuntimeError) as exc: check(not isinstance(exc, TimeoutError), 'a wait for ever')
p.shutdown()
""")


@row("a daemon: pool, fork, setsid, fork, close all, then a pool")
def daemon(ctx: Context) -> None:
    ctx.run(USE + """
with pool() as p: exercise(p)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.closerange(0, 256)
for _ in range(3): os.open(os.devnull, os.O_RDWR)
try:
    with pool() as p: exercise(p)
    said = 'works'
except (OSError, RuntimeError) as exc: said = f'{type(exc).__name__}: {exc}'
except BaseException:
    import traceback
    said = 'wrong: ' + traceback.format_exc()
open(FOLDER + '/said.new', 'w').write(said)
os.rename(FOLDER + '/said.new', FOLDER + '/said')
""")
    path = f"{ctx.folder}/said"
    faultkit.wait_for(lambda: os.path.exists(path), "the daemon is done", 2 * HANG)
    with open(path) as file:
        said = file.read()
    check(not said.startswith("wrong"), said)
    ctx.note(said.splitlines()[0])


@row("a daemon that makes its first pool after all that")
def daemon_first(ctx: Context) -> None:
    ctx.run(USE + """
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.closerange(0, 256)
for _ in range(3): os.open(os.devnull, os.O_RDWR)
try:
    with pool() as p: exercise(p)
    said = 'works'
except BaseException:
    import traceback
    said = traceback.format_exc()
open(FOLDER + '/said.new', 'w').write(said)
os.rename(FOLDER + '/said.new', FOLDER + '/said')
""")
    path = f"{ctx.folder}/said"
    faultkit.wait_for(lambda: os.path.exists(path), "the daemon is done", 2 * HANG)
    with open(path) as file:
        check(file.read() == "works", "the first pool of a daemon works: " + open(path).read())


@row("descriptors 0, 1 and 2 closed, in each mix")
def standard_closed(ctx: Context) -> None:
    for closed in ((0,), (1,), (2,), (0, 1), (0, 1, 2)):
        redirect = " ".join(f"{fd}>&-" for fd in closed)
        script = ctx.folder + "/closed.py"
        with open(script, "w") as file:
            file.write(f"import os, sys\nsys.path.insert(0, {faultkit.HERE!r})\n"
                       "from faultkit import pool\nfrom test_hosts import exercise\n"
                       f"with pool(start={ctx.start!r}) as p: exercise(p)\n"
                       f"open({ctx.folder + '/closed.good'!r}, 'w').close()\n")
        done = subprocess.run(["sh", "-c", f'exec "$0" "$1" {redirect}', sys.executable, script],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=50 * faultkit.SLOW)
        path = f"{ctx.folder}/closed.good"
        check(done.returncode == 0 and os.path.exists(path),
              f"{closed} closed: {done.returncode}, {done.stderr[-2000:]}")
        os.unlink(path)


@row("stdout is a pipe that nobody reads")
def stdout_broken(ctx: Context) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ctx.run(USE + """
with pool() as p:
    for _ in range(4):
        exc = p.submit(print, 'words').exception(10)
        check(exc is None or isinstance(exc, BrokenPipeError), repr(exc))
    exercise(p)
sys.stdout = None
os._exit(0)
""", stdout=write)
    finally:
        os.close(write)


@row("RLIMIT_NOFILE 64")
def few_descriptors(ctx: Context) -> None:
    good(ctx, """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for _ in range(3):
    with pool() as p: exercise(p)
""")


@row("a hundred inheritable descriptors of the program's open")
def many_descriptors(ctx: Context) -> None:
    out = good(ctx, """
files = [open('/dev/zero') for _ in range(100)]
for f in files: os.set_inheritable(f.fileno(), True)
def zeros():
    n = 0
    for fd in os.listdir('/proc/self/fd'):
        try: n += os.readlink('/proc/self/fd/' + fd) == '/dev/zero'
        except OSError: pass
    return n
with pool() as p:
    exercise(p)
    print(p.submit(zeros).result())
""")
    if ctx.start == "fork":
        ctx.note(f"workers have {out.strip()} of them")
    else:
        check(out == "0\n", f"workers have {out.strip()} of them")


# --- surroundings ---------------------------------------------------------------------------------


def same(ctx: Context, before: str, *flags: str, **options: Any) -> None:
    """What workers see of their surroundings is what the program sees."""
    good(ctx, before + """
mine = surroundings()
with pool() as p:
    theirs = p.submit(surroundings).result()
    differ = {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}
    check(not differ, f'(program, worker): {differ}')
    exercise(p)
""", *flags, **options)


@row("chdir, umask, nice and environment before the pool: workers have them")
def changed_before(ctx: Context) -> None:
    same(ctx, "os.chdir(FOLDER); os.umask(0o27); os.nice(1); os.environ['MY_WORD'] = 'word'\n")
    good(ctx, "os.environ['MY_WORD'] = 'word'\nos.environ.pop('HOME', None)\n"
         "with pool() as p:\n"
         "    check(p.submit(os.getenv, 'MY_WORD').result() == 'word', 'there')\n"
         "    check(p.submit(os.getenv, 'HOME').result() is None, 'gone')\n")


@row("chdir and environment changed after the pool was made")
def changed_after(ctx: Context) -> None:
    good(ctx, """
with pool() as p:
    p.submit(square, 1).result()
    was = os.getcwd()
    os.chdir('/'); os.environ['MY_WORD'] = 'word'
    exercise(p)
    check(p.submit(os.getcwd).result() == was, 'workers stay where the pool was made')
    check(p.submit(os.getenv, 'MY_WORD').result() is None, 'and with what there was')
""")
    ctx.note("workers keep what there was when the pool was made")


@row("the working directory is gone")
def no_directory(ctx: Context) -> None:
    good(ctx, """
os.mkdir(FOLDER + '/gone'); os.chdir(FOLDER + '/gone'); os.rmdir(FOLDER + '/gone')
with pool() as p: exercise(p)
""")


@row("sys.path changed after the pool was made")
def path_changed(ctx: Context) -> None:
    out = good(ctx, """
os.mkdir(FOLDER + '/more')
open(FOLDER + '/more/late_module.py', 'w').write('def five(): return 5\\n')
with pool() as p:
    p.submit(square, 1).result()
    sys.path.append(FOLDER + '/more')
    import late_module
    f = p.submit(late_module.five)
    exc = f.exception(10)
    check(exc is None or 'late_module' in str(exc), repr(exc))
    print('works' if exc is None else type(exc).__name__)
    exercise(p)
""")
    ctx.note(out.strip())


@row("locale.setlocale in the program")
def locale_set(ctx: Context) -> None:
    before = "import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8')\n"
    if ctx.start == "fork":
        same(ctx, before)
    else:
        good(ctx, before + "with pool() as p: exercise(p)\n")
        ctx.note("workers begin with the locale of a program's start")


@row("LC_ALL=C, PYTHONUTF8=0, PYTHONCOERCECLOCALE=0")
def locale_c(ctx: Context) -> None:
    same(ctx, "", env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})


def flag_row(flags: str) -> None:
    def run(ctx: Context) -> None:
        same(ctx, "", *flags.split())
    run.__name__ = "flags_" + "".join(c for c in flags if c.isalnum())
    run.__module__ = __name__
    row(f"python {flags}")(run)


for _flags in ("-I -O", "-s -E -P -bb", "-B -u -OO -X utf8", "-X dev", "-W error",
               "-X faulthandler"):
    flag_row(_flags)


@row("PYTHONDEVMODE=1 PYTHONWARNINGS=error")
def dev_mode(ctx: Context) -> None:
    same(ctx, "", env={**os.environ, "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"})


@row("python -c, and a script on standard input")
def other_ways(ctx: Context) -> None:
    head = (f"import sys; sys.path.insert(0, {faultkit.HERE!r})\n"
            f"from faultkit import pool\nfrom test_hosts import exercise\n"
            f"def here(i): return i + BASE\nBASE = 10\n"
            f"with pool(start={ctx.start!r}) as p:\n    exercise(p)\n"
            f"    print(p.submit(here, 5).result())\n")
    for args, given in ((["-c", head], None), (["-"], head), ([], head)):
        done = subprocess.run([sys.executable, *args], input=given or "", capture_output=True,
                              text=True, timeout=50 * faultkit.SLOW)
        check(done.returncode == 0 and done.stdout == "15\n" and not done.stderr,
              f"{args[:1]}: {done.returncode} {done.stdout!r} {done.stderr[-2000:]}")


@row("no place for temporary files, no HOME, an empty PATH")
def bare_environment(ctx: Context) -> None:
    keep = {k: v for k, v in os.environ.items() if k.startswith(("YOKE_", "LD_", "ASAN", "UBSAN"))}
    good(ctx, "with pool() as p: exercise(p)\n",
         env={**keep, "TMPDIR": "/nonexistent", "PATH": ""})


@row("one CPU")
def one_cpu(ctx: Context) -> None:
    same(ctx, "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n")
    out = good(ctx, "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
               "with pool(workers=None) as p:\n"
               "    exercise(p)\n    print(len(p.worker_ids()))\n")
    check(out == "1\n", f"as many workers as CPUs: {out}")


@row("another user")
def other_user(ctx: Context) -> None:
    if os.getuid() != 0:
        ctx.note("not run: needs root")
        return
    os.chmod(ctx.folder, 0o777)
    os.chmod(f"{ctx.folder}/tmp", 0o777)
    probe = subprocess.run([sys.executable, "-c", "import yoke._yoke, encodings"],
                           user=65534, group=65534, extra_groups=[], capture_output=True)
    if probe.returncode:
        ctx.note("not run: that user may not read this installation")
        return
    same(ctx, "", user=65534, group=65534, extra_groups=[])


@row("a program that gives up root after the pool was made", limit=8,
     known="it may not kill its workers: shutdown waits for ever, and they outlive it")
def drops_root(ctx: Context) -> None:
    check(os.getuid() == 0, "this needs root")
    ctx.run(USE + """
with pool() as p:
    p.submit(square, 1).result()
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    exercise(p)
""")


@row("a program that does not want new privileges")
def no_new_privileges(ctx: Context) -> None:
    good(ctx, "import ctypes\nctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\n"
         "with pool() as p: exercise(p)\n")


@row("a pool made and used in a thread that ends")
def in_thread(ctx: Context) -> None:
    good(ctx, """
kept = []
def work():
    p = pool()
    exercise(p)
    kept.append(p)
t = threading.Thread(target=work); t.start(); t.join()
exercise(kept[0])
kept[0].shutdown()
""")


@row("threads that hold locks and log while the pool works")
def busy_threads(ctx: Context) -> None:
    good(ctx, """
import logging
logging.basicConfig(stream=open(os.devnull, 'w'))
stop, lock = threading.Event(), threading.Lock()
def busy():
    while not stop.is_set():
        with lock: logging.warning('words')
threads = [threading.Thread(target=busy) for _ in range(3)]
for t in threads: t.start()
try:
    for _ in range(2):
        with pool() as p: exercise(p)
finally:
    stop.set()
    for t in threads: t.join()
""")


class Hosts(test_faults.Rows):
    """Programs around the pool."""


test_faults.add_rows(Hosts, __name__)

if __name__ == "__main__":
    sys.path.insert(0, faultkit.HERE)
    sys.exit(faultkit.main("test_hosts"))
