# SPDX-License-Identifier: MIT
"""What the clean interpreter does before it serves, and what each worker sets up.

The image imports as little as it can: a program waits for it. What a worker needs rarely is imported
there, when it is needed.
"""
import atexit
import faulthandler
import gc
import io
import os
import sys

from yoke import _yoke

number = None  # of this worker; None: this process is none
dirty = bytearray(1)  # not 0: something was written to a stream and may not be out

_fresh = False  # this interpreter was started for the pool
_streams = []
_kept = []  # streams of the program: what they still hold is its business
_THREAD_COUNTS = (  # what libraries look at when they are loaded
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_LINE_MAX = 1 << 20  # bytes; longer lines may be torn
_THREADS_END_S = 1.0  # so long may threads of preloaded modules take to end


# --- the image ----------------------------------------------------------------------------------


def main(fd):
    """Become the image of a pool's workers. fd: of the file that holds the settings."""
    global _fresh
    _fresh = True
    try:
        import marshal

        gc.disable()  # what is made here stays
        setup = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        setup["fd"] = fd
        os.set_inheritable(fd, False)
        ticket = os.environ.pop("YOKE_IMAGE", "")
        _become(setup)
        _preload(setup)
        _load()
        _open_streams()
        os.register_at_fork(after_in_child=_forked)
        gc.freeze()
        _yoke.serve(ticket, setup)
    except BaseException as exc:
        _tell(fd, exc)
        os._exit(1)


def _load():
    """What all workers need, once. _pickle wants functools for partial alone, which is in _functools;
    the rest of functools takes as long as all else here."""
    early = "functools" not in sys.modules
    if early:
        import _functools

        sys.modules["functools"] = _functools
    try:
        from yoke import _loading as _loading
    finally:
        if early:
            del sys.modules["functools"]


def _tell(fd, exc):
    """Where the program looks for the reason."""
    import traceback

    text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    os.ftruncate(fd, 0)
    os.pwrite(fd, text.encode("utf-8", "backslashreplace"), 0)


def _become(setup):
    """Look like the program: its path, its arguments, its folder; and a __main__ of its name."""
    if setup["cwd"]:
        try:
            os.chdir(setup["cwd"])
        except OSError:
            pass  # we are where the program was
    sys.path[:] = setup["path"]
    sys.path_importer_cache.clear()
    sys.argv = list(setup["argv"])
    sys.prefix, sys.exec_prefix = setup["prefix"]
    module = type(sys)("__main__")
    module.__builtins__ = sys.modules["builtins"]
    if setup["main"]:
        module.__file__ = setup["main"]
    sys.modules["__main__"] = module
    if not hasattr(module.__builtins__, "exit"):
        import _sitebuiltins

        module.__builtins__.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
        module.__builtins__.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    linecache = sys.modules.get("linecache")
    if linecache is not None:  # 3.13 and later: the text of -c, which is ours
        linecache.cache.clear()
        getattr(linecache, "_interactive_cache", {}).clear()
    _set_filters(setup.get("warnings"))
    _yoke.set_title(f"yoke-image {setup['title']}")


class _Pattern:
    """A regular expression that is compiled when it is first needed: re is slow to import."""

    def __init__(self, text, ignore_case):
        self.pattern = text
        self._ignore_case = ignore_case

    def match(self, text):
        import re

        self.match = re.compile(self.pattern, re.IGNORECASE * self._ignore_case).match
        return self.match(text)


def _set_filters(filters):
    """The program's filters of warnings: (action, message, category, module, line), texts or None."""
    if filters is None:
        return
    import _warnings

    made = []
    for action, message, category, module, line in filters:
        kind = getattr(sys.modules.get(category[0]), category[1], None)
        if isinstance(kind, type) and issubclass(kind, Warning):
            made.append(
                (
                    action,
                    _Pattern(message, True) if message else None,
                    kind,
                    _Pattern(module, False) if module else None,
                    line,
                )
            )
    _warnings.filters[:] = made  # the list that the module warnings has, too


def _thread_count():
    return os.stat("/proc/self/task").st_nlink - 2


def _preload(setup):
    """Import what workers need. Libraries of linear algebra must not start threads meanwhile: a copy of
    this process would lack them."""
    names = setup["preload"]
    wanted = {name: os.environ.get(name) or str(setup["threads"]) for name in _THREAD_COUNTS}
    os.environ.update(wanted, OPENBLAS_NUM_THREADS="1")
    culprit = None
    try:
        for name in names:
            __import__(name)
            if culprit is None and _thread_count() > 1:
                culprit = name
    finally:
        os.environ["OPENBLAS_NUM_THREADS"] = wanted["OPENBLAS_NUM_THREADS"]
    if culprit is not None:
        _await_threads(culprit)


def _await_threads(culprit):
    """Threads that end soon do no harm."""
    import time

    until = time.monotonic() + _THREADS_END_S
    while _thread_count() > 1:
        if time.monotonic() > until:
            threads = sys.modules.get("threading")
            named = [thread.name for thread in threads.enumerate()[1:]] if threads else []
            what = f" ({', '.join(named)})" if named else ""
            raise RuntimeError(
                f"importing {culprit!r} (preload) started threads{what}; workers are copies of a "
                "process that must not have any. Import it in the initializer, or in the tasks"
            )
        time.sleep(0.005)


# --- streams ------------------------------------------------------------------------------------


class _Whole(io.FileIO):
    """A descriptor to which everything is written at once, beside other workers."""

    def write(self, data):
        return _yoke.write_whole(self.fileno(), data)


class _Lines(io.TextIOWrapper):
    """Text that goes out in whole lines; the rest at the end of the task, or when it is flushed."""

    mode = "w"

    def write(self, text):
        dirty[0] = 1
        return super().write(text)


def _open_stream(name, fd, default_errors):
    old = getattr(sys, name, None)
    if old is None or old is not getattr(sys, f"__{name}__", None):
        return  # there is none, or somebody has put another in its place
    try:
        raw = _Whole(fd, "w", closefd=False)
        raw.name = f"<{name}>"
        new = _Lines(
            io.BufferedWriter(raw, _LINE_MAX),
            encoding=getattr(old, "encoding", None),
            errors=getattr(old, "errors", None) or default_errors,
            newline="\n",
            line_buffering=True,
        )
    except (OSError, LookupError):
        return
    if _fresh:
        old.flush()
    _kept.append(old)
    _streams.append(new)
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


def _open_streams():
    _open_stream("stdout", 1, "strict")
    _open_stream("stderr", 2, "backslashreplace")
    _kept.append(sys.stdin)
    sys.stdin = io.StringIO()  # the program's input is the program's


def flush():
    """What was printed is out. Called after each task that printed."""
    dirty[0] = 0
    for stream in _streams:
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it, or the task closed it


# --- a worker -----------------------------------------------------------------------------------


def start_worker(worker, setup):
    """In each worker, after PyOS_AfterFork_Child(). What it raises keeps the worker from working."""
    global number
    number = worker
    _yoke.set_title(f"yoke-w{worker} {setup['title']}")
    _forget_exits()
    if _fresh:
        gc.enable()
    else:
        gc.freeze()  # collections leave the memory shared with the program alone
        _forget_imports(setup["importing"])  # before anything is imported
        from yoke import _loading  # it is there: it took the snapshot

        _loading.become(setup["snapshot"])
        _forget_signals()
        _open_streams()
        os.register_at_fork(after_in_child=_forked)
    # The program may have it on, for threads and handlers that are not here.
    faulthandler.disable()
    faulthandler.enable(_yoke.crash_file())
    _prepare_multiprocessing(setup)
    _limit_threads(setup["threads"])
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # random itself does so at each fork
    _make_frame()
    _initialize(setup["initializer"])
    os.close(setup["fd"])  # last: who has it still starts, and is found by it
    flush()


def _make_frame():
    """frame(run): the main loop as a function of __main__, so that eval() and the like find that."""
    global frame
    code = (lambda run: run()).__code__.replace(co_filename="<yoke>", co_name="worker")
    frame = type(_make_frame)(code, sys.modules["__main__"].__dict__)


def _initialize(initializer):
    if initializer is None:
        return
    if isinstance(initializer, bytes):
        import pickle

        initializer = pickle.loads(initializer)
    fn, args = initializer
    try:
        fn(*args)
    except BaseException:
        # Logging hears of it, as with the standard library, where anything has imported it; what it
        # sends through a queue of multiprocessing gets out before this worker ends.
        logging = sys.modules.get("logging")
        if logging is not None:
            logger = logging.getLogger("concurrent.futures")
            logger.critical("Exception in initializer:", exc_info=True)
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util._exit_function()
        raise


def _forked():
    """In a child that a worker made."""
    faulthandler.disable()  # what it leaves would be taken for the worker's


def _forget_exits():
    """What the program, or a preloaded module, wants done at its end is not for workers."""
    atexit._clear()
    weakref = sys.modules.get("weakref")
    if weakref is not None:
        # Private; without it files of the program would be removed when a worker ends.
        weakref.finalize._registry.clear()
        weakref.finalize._registered_with_atexit = False


def _forget_imports(above):
    """What threads were importing at the fork nobody will finish: it is imported anew.

    What stood above the making of the pool stays as it is: a module may make a pool, and to import
    it again would make another. What else the maker imports by the time of a later image is forgotten
    too. Private; without it whoever imports the same waits for ever for a thread that is not here.
    """
    import _frozen_importlib

    for name, ref in list(_frozen_importlib._module_locks.items()):
        owner = getattr(ref(), "owner", None)
        spec = getattr(sys.modules.get(name), "__spec__", None)
        unfinished = owner is not None and getattr(spec, "_initializing", False)
        if unfinished and name not in above:
            del sys.modules[name]
    _frozen_importlib._module_locks.clear()
    _frozen_importlib._blocking_on.clear()


def _forget_signals():
    """The handlers in C are gone; nobody shall find the program's in Python."""
    import signal

    signal.set_wakeup_fd(-1)
    for one in signal.valid_signals():
        if callable(signal.getsignal(one)) and one not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(one, signal.SIG_IGN if one == signal.SIGINT else signal.SIG_DFL)


def _limit_threads(threads):
    """Those of libraries that are loaded; others look at the environment."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        said = os.environ.get(name)
        if said is None:
            if not _fresh:
                os.environ[name] = str(threads)
        elif said.isdigit() and int(said) > 0:
            threads = int(said)
            break
    if not _fresh:
        for name in _THREAD_COUNTS:
            os.environ.setdefault(name, str(threads))
    if threads > 1 or not _fresh:
        _yoke.limit_threads(threads)


# --- multiprocessing in a worker ----------------------------------------------------------------


class _Watch:
    """Waits for imports of modules of multiprocessing, which are too slow to be made for nothing."""

    def __init__(self, setup, wanted):
        self.setup = setup
        self.wanted = wanted  # name of a module -> what to do with it

    def find_spec(self, name, path=None, target=None):
        act = self.wanted.pop(name, None)
        if act is None:
            return None
        import importlib.util

        spec = importlib.util.find_spec(name)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                act(module, self.setup)

            spec.loader.exec_module = exec_module
        return spec


def _prepare_multiprocessing(setup):
    wanted = {}
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        wanted["multiprocessing.process"] = _adopt
    else:
        _forget_children(process)
        _adopt(process, setup)
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is None:
        wanted["multiprocessing.resource_tracker"] = _track
    else:
        _track(tracker, setup)
    if wanted:
        sys.meta_path.insert(0, _Watch(setup, wanted))


def _forget_children(process):
    """As multiprocessing does in its own children."""
    util = sys.modules.get("multiprocessing.util")
    try:
        process._children = set()
        if util is not None:
            util._finalizer_registry.clear()
            util._run_after_forkers()
    except AttributeError:
        pass  # another Python: what is left over there is not ours to know


def _track(module, setup):
    """Shared memory is the program's to look after: a tracker of this worker's own would remove it when
    the worker ends."""
    if not _fresh and module._resource_tracker._fd is not None:
        return  # a copy of the program has the program's
    if setup["tracker"] is not None:
        module._resource_tracker._fd = setup["tracker"]  # as multiprocessing's children do
        return
    for name in ("register", "unregister"):

        def call(resource, kind, act=getattr(module, name)):
            if kind != "shared_memory":
                act(resource, kind)

        setattr(module, name, call)


def _adopt(process, setup):
    """This worker as multiprocessing sees it: a process with a name, that may have children."""
    current = process.current_process()
    current.name = f"yoke-worker-{number}"
    getattr(current, "_config", {}).pop("daemon", None)
    if setup.get("authkey"):
        current.authkey = setup["authkey"]  # so that managers of the program let us in


# --- the end ------------------------------------------------------------------------------------


def end_worker():
    """What tasks registered to be done at the end. Called in each worker that ends by itself."""
    try:
        atexit._run_exitfuncs()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()  # where it was imported by the program it is not registered any more
    flush()
