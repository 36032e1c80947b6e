# SPDX-License-Identifier: MIT
"""What a pool has besides its core: the start of its workers, its thread, and its end.

A Runner holds the core and knows nothing of the pool, so that a pool nobody holds any more can go:
the core is then closed, the work it has is done, and the thread ends. At the end of the interpreter
work that was handed in is finished first, as in concurrent.futures; but it says what it waits for,
and Ctrl-C ends it.
"""
import _frozen_importlib
import concurrent.futures
import marshal
import os
import sys
import threading
import time
import weakref

from yoke import _yoke

_NOTE_AFTER_S = 10.0  # the wait at the end of the interpreter says then what it is for
_KILL_WAIT_S = 0.2  # workers that were killed are gone long before
_runners = set()  # those whose thread runs
_exiting = False
_watching = False


def exiting():
    """The interpreter has begun to end."""
    return _exiting


# --- how the clean interpreter is called ---------------------------------------------------------


def _needs_site():
    """Something that only site sets up is needed to import what the program can import."""
    return any(
        (getattr(finder, "__module__", None) or "").startswith("__editable__")
        for finder in sys.meta_path
    )


def _flags():
    """The options of this interpreter that matter to another; subprocess has the same, but is slow
    to import."""
    flags = sys.flags
    if flags.isolated:
        yield "-I"
    else:
        if flags.ignore_environment:
            yield "-E"
        yield "-s"
        yield "-P"
    if not _needs_site():
        yield "-S"
    for name, letter in (("dont_write_bytecode", "B"), ("bytes_warning", "b"), ("optimize", "O")):
        if count := getattr(flags, name):
            yield "-" + letter * count
    for warning in sys.warnoptions:
        if not warning.startswith(("BytesWarning", "error::BytesWarning")):
            yield "-W" + warning
    for name, value in sys._xoptions.items():
        yield f"-X{name}" if value is True else f"-X{name}={value}"


def image_argv(fd):
    """The words that start the clean interpreter; fd is where it finds the rest."""
    executable = sys.executable or getattr(sys, "_base_executable", None)
    if not executable:
        raise RuntimeError(
            "sys.executable is empty, so there is no Python to start workers with: set it, or use "
            "start='fork'"
        )
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # Appended: nothing there may stand before the standard library.
    code = f"import sys; sys.path.append({ascii(home)}); from yoke._image import main; main({fd})"
    return [executable, *_flags(), "-c", code]


def _warning_filters():
    """Those of the program as texts, first to last; None: as at the start of an interpreter."""
    warnings = sys.modules.get("warnings")
    if warnings is None or len(warnings.filters) == 5 and not sys.warnoptions:
        return None  # the five that there are from the start
    return [
        (
            action,
            message and getattr(message, "pattern", message),
            (category.__module__, category.__qualname__),
            module and getattr(module, "pattern", module),
            line,
        )
        for action, message, category, module, line in warnings.filters
    ]


def _imported(name):
    """The module, if it was imported; not one that another thread is importing just now."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module


def _importing():
    """Names of the modules that this thread is in the middle of importing. Private."""
    locks = list(_frozen_importlib._module_locks.items())
    here = threading.get_ident()
    return {name for name, ref in locks if getattr(ref(), "owner", None) == here}


def _authkey():
    """Managers of multiprocessing let those in who have it."""
    process = _imported("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else None


def _tracker():
    """The descriptor of the process that looks after shared memory of multiprocessing, or None."""
    if _imported("multiprocessing.shared_memory") is None:
        return None
    return sys.modules["multiprocessing.resource_tracker"].getfd()


class _Inherited:
    """What multiprocessing asks when one of its queues or locks is pickled for a new process."""

    def __init__(self, fds):
        self._fds = fds

    def duplicate_for_child(self, fd):
        self._fds.append(fd)
        return fd

    def DupFd(self, fd):
        from multiprocessing import popen_spawn_posix

        return popen_spawn_posix._DupFd(fd)  # private, but there is no other with its meaning


def _pack(call, uses, fds):
    """An initializer and its arguments; descriptors that workers need for them are added to fds."""
    from yoke import _pickling

    context = _imported("multiprocessing.context")
    if context is None:
        return _pickling.dumps(call, None, uses)
    context.set_spawning_popen(_Inherited(fds))
    try:
        return _pickling.dumps(call, None, uses)
    finally:
        context.set_spawning_popen(None)


def make_setup(core, workers, start, *, preload=(), initializer=None, initargs=(), threads=None):
    """What workers are told; and the definitions it names, to be kept as long as the pool."""
    uses = [initargs]
    packed = (initializer, initargs) if initializer is not None else None
    fds = []
    tracker = None
    if start == "fresh":
        if packed is not None:
            packed = _pack(packed, uses, fds)
        tracker = _tracker()
        if tracker is not None:
            fds.append(tracker)
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    argv = [str(word) for word in getattr(sys, "argv", ())]
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return {
        "desk": core.desk,
        "workers": workers,
        "path": [str(entry) for entry in sys.path if isinstance(entry, str)],
        "cwd": cwd,
        "argv": argv,
        "preload": [str(name) for name in preload],
        "initializer": packed,
        "threads": threads or max(1, _yoke.cpu_count() // workers),
        "title": os.path.basename(argv[0]) if argv and argv[0] else "python",
        "main": main if isinstance(main, str) else None,
        "prefix": [sys.prefix, sys.exec_prefix],
        "warnings": _warning_filters(),
        "authkey": _authkey(),
        "tracker": tracker,
        "fds": fds,
    }, uses


# --- the runner ----------------------------------------------------------------------------------


class Runner:
    """A core, and the thread that starts its workers and looks after what nobody waits for."""

    def __init__(self, core, setup, uses, limits=()):
        self.core = core
        self.pid = os.getpid()
        self.ready = threading.Event()  # the start is over, one way or the other
        self.failure = None  # why there are no workers
        self._setup = setup
        self._uses = uses  # what the setup names
        self._limits = limits
        self._fd = -1  # the nameless file; processes that start have it
        self._owner = None
        self._closed = False
        self.thread = threading.Thread(target=self._run, name="yoke-collector", daemon=False)

    def begin(self, start):
        """start "fork": the workers are there on return. "fresh": they are on their way."""
        if _exiting:
            raise RuntimeError("cannot make a pool at interpreter shutdown")
        if start == "fork":
            self._take_snapshot()
        _watch_exit()
        _runners.add(self)
        try:
            self._fd = os.memfd_create("yoke-setup")
            self.thread.start()
        except BaseException:
            _runners.discard(self)
            self._close_fd()
            raise
        if start == "fork":
            self._await_ready()

    def belongs_to(self, pool):
        """The core is closed when the pool is collected."""

        def gone(_):
            self.close()

        self._owner = weakref.ref(pool, gone)

    def _take_snapshot(self):
        from yoke._loading import Snapshot

        frame = sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__package__") == "yoke":
            frame = frame.f_back  # what it holds lives as long as the pool, so not the pool itself
        snapshot = Snapshot(frame)
        # Pools are of no use to workers, and would not end while nobody holds them.
        for number, value in enumerate(snapshot.objects):
            if isinstance(value, concurrent.futures.Executor):
                del snapshot.numbers[id(value)]
                snapshot.objects[number] = None
        for name, value in list(snapshot.main.items()):
            if isinstance(value, concurrent.futures.Executor):
                del snapshot.main[name]
        self._setup["snapshot"] = snapshot
        self._setup["importing"] = _importing()

    def _await_ready(self):
        try:
            # In slices: another thread may have taken the signal that this one should hear of.
            while not self.ready.wait(0.1):
                pass
        except BaseException:
            self.close(True, True)
            raise
        if self.failure is not None:
            self.close()
            raise self.failure

    def _start(self):
        """In the collector, whatever the start: it can be waited for and broken off."""
        if "snapshot" in self._setup:
            setup, argv = dict(self._setup, fd=self._fd), None
            self.core.start(setup, None, None, -1, *self._limits)
            self._setup["snapshot"].loosen()
        else:
            setup = marshal.dumps(self._setup)
            view = memoryview(setup)
            while view:
                view = view[os.write(self._fd, view):]
            argv = image_argv(self._fd)
            try:
                self.core.start(self._setup, argv, None, self._fd, *self._limits)
            except BaseException as exc:
                raise self._broken(exc, setup) from exc
        self._setup = None

    def _broken(self, exc, setup):
        """exc with what the interpreter wrote before it ended."""
        from yoke._errors import PoolBroken

        text = os.pread(self._fd, 1 << 20, 0)
        why = str(exc)
        if not isinstance(exc, PoolBroken):
            why = f"the workers could not be started: {why}"
        if text and text != setup:
            why += "\n\n" + text.decode("utf-8", "replace").strip()
        return PoolBroken(why)

    def _run(self):
        try:
            # A pool that is closed by now, with nothing to do, needs no workers.
            if not (self._closed and self.core.pending() == 0):
                self._start()
            self.ready.set()
            self.core.drive()
        except BaseException as exc:
            self.failure = exc
            for one in (exc, exc.__cause__, exc.__context__):
                if one is not None:
                    one.__traceback__ = None  # its frames hold this runner, and initargs
            self.core.fail(exc)
            self.ready.set()
            self.core.drive()
        finally:
            self.ready.set()
            _runners.discard(self)
            self._close_fd()

    def _close_fd(self):
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _break_off(self):
        """End the processes of a start that is under way, so that it fails."""
        until = time.monotonic() + _KILL_WAIT_S
        while not self.ready.is_set() and time.monotonic() < until:
            end_children_with(self._fd)
            self.ready.wait(0.005)

    def join(self, timeout=None):
        """Wait until the work is done and the thread has ended; False: timeout seconds are over."""
        if self.pid != os.getpid() or threading.current_thread() is self.thread:
            return True
        until = None if timeout is None else time.monotonic() + timeout
        if not self.core.join(timeout):
            return False
        self.thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not self.thread.is_alive()

    def close(self, cancel=False, kill=False):
        """No new calls; see Core.close. In a forked child: nothing."""
        if self.pid == os.getpid():
            self.core.close(cancel, kill)
            self._closed = True
            if kill and not self.ready.is_set():
                self._break_off()

    def kill(self):
        """End everything now."""
        self.close(True, True)
        return self.join(_KILL_WAIT_S)


def end_children_with(fd):
    """Kill the children of this process that have the file of this descriptor open."""
    import signal

    try:
        ours = os.fstat(fd)
    except OSError:
        return
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            pidfd = os.pidfd_open(int(name))
        except OSError:
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
            if parent == os.getpid() and any(
                os.path.samestat(ours, os.stat(f"/proc/{name}/fd/{one}"))
                for one in os.listdir(f"/proc/{name}/fd")
            ):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except OSError:
            pass  # it has ended, or is not ours
        finally:
            os.close(pidfd)


# --- the end of the interpreter, and forks of it -------------------------------------------------


def _watch_exit():
    global _watching
    if not _watching:
        try:
            # Private, but what concurrent.futures does: it runs before threads are waited for.
            threading._register_atexit(_at_exit)
        except AttributeError:
            import atexit

            atexit.register(_at_exit)
        os.register_at_fork(after_in_child=_runners.clear)
        _watching = True


def _interrupted():
    """The program ends because of a KeyboardInterrupt that nobody caught."""
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return False  # whatever it was, it was another line
    last = getattr(sys, "last_exc", None)
    return isinstance(last, KeyboardInterrupt) or getattr(
        sys, "last_type", None
    ) is KeyboardInterrupt


def _note(runners):
    if sys.stderr is None:
        return
    calls = sum(runner.core.pending() for runner in runners)
    pids = [str(pid) for runner in runners for pid in runner.core.worker_ids()]
    try:
        sys.stderr.write(
            f"yoke: the program is at its end and waits for {calls} call{'s' * (calls != 1)} that "
            f"{'is' if calls == 1 else 'are'} not done (workers: {', '.join(pids) or 'none'}); "
            "Ctrl-C ends it\n"
        )
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _at_exit():
    global _exiting
    _exiting = True
    runners = [runner for runner in _runners if runner.pid == os.getpid()]
    if _interrupted():
        _end(runners)
        _keep_interrupted()
        return
    for runner in runners:
        runner.close()
    noted = False
    until = time.monotonic() + _NOTE_AFTER_S
    try:
        for runner in runners:
            while not runner.join(None if noted else max(0.0, until - time.monotonic())):
                noted = True
                _note([runner for runner in runners if runner.thread.is_alive()])
    except KeyboardInterrupt:
        _end(runners)
        _keep_interrupted()
    except BaseException:
        _end(runners)
        raise


def _keep_interrupted():
    """Python ends by SIGINT, which tells the shell, where the text that it executed last ended by
    KeyboardInterrupt. Some modules execute texts when they are imported, so: once more."""
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        pass


def _end(runners):
    """Kill what runs. A thread in the middle of a long start is not waited for."""
    for runner in runners:
        runner.close(True, True)
    until = time.monotonic() + _KILL_WAIT_S
    if not all([runner.join(max(0.0, until - time.monotonic())) for runner in runners]):
        _end_as_interrupted()


def _end_as_interrupted():
    """End this process without waiting for its threads."""
    import atexit
    import signal

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # not the main thread of the main interpreter
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    os.kill(os.getpid(), signal.SIGINT)
